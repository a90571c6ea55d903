"""The script that trains the course assistant, on a tiny model and few entries."""

import pytest

from helpers import gpt_config, load_course_model
from helpers.lora import load_adapter
from helpers.make import assistant
from helpers.make.course_model import tied_model
from helpers.pretrained import save_course_model

ENTRIES = ["--entries", "64", "--device", "cpu"]


@pytest.fixture(name="model")
def small_model(tmp_path, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    cfg = gpt_config("124M", context_length=256, emb_dim=16, n_heads=2, n_layers=1, drop_rate=0.0)
    save_course_model(tied_model(cfg), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def train(model, adapter, *options):
    assistant.main(["train", str(adapter), "--model", str(model), *ENTRIES, *options])


def refused(capsys, *arguments):
    """The sentence that a command ends with."""
    with pytest.raises(SystemExit) as end:
        train(*arguments)
    return capsys.readouterr().err if end.value.code == 2 else end.value.code


@pytest.mark.parametrize("name", ["adapter.safetensors", "adapter.pt", "adapter.training.pt"])
def test_the_result_stays(model, tmp_path, monkeypatch, name):
    monkeypatch.setattr(assistant, "SAVE_EVERY", 1)
    folder = tmp_path / "made"
    train(model, folder / name, "--epochs", "1")
    assert [path.name for path in folder.iterdir()] == [name]
    load_adapter(load_course_model(model)[0], folder / name)


def test_it_goes_on_from_the_last_save(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(assistant, "SAVE_EVERY", 1)
    train(model, tmp_path / "whole", "--epochs", "2")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[:-1]] == [
        f"update {step} of 4" for step in (1, 2, 3, 4)
    ]
    real, calls = assistant.calc_loss_batch_labels, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(assistant, "calc_loss_batch_labels", interrupted)
    adapter, kept = tmp_path / "adapter.pt", tmp_path / "adapter.training.pt"
    again = f"interrupted: the same command goes on from {kept}"
    assert refused(capsys, model, adapter, "--epochs", "2") == again
    assert kept.exists() and not adapter.exists()
    train(model, adapter, "--epochs", "2")
    assert f"going on from {kept}: 2 of 4 updates" in capsys.readouterr().out
    assert adapter.read_bytes() == (tmp_path / "whole").read_bytes() and not kept.exists()


def test_what_is_refused_before_the_work(model, tmp_path, monkeypatch, capsys):
    adapter = tmp_path / "adapter"
    assert "argument --epochs: '0' is not a whole number from 1 on" in refused(capsys, model, adapter, "--epochs", "0")
    assert refused(capsys, model, adapter, "--entries", "16") == "error: --entries 16 is less than a batch of 32"
    monkeypatch.setattr(assistant, "load_course_model", None)
    expected = f"error: {tmp_path} is a folder: the name of a file is expected"
    assert refused(capsys, model, tmp_path) == expected
    assert not adapter.exists()
