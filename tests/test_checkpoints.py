"""Checkpoints: round trips, tied and compiled models, files that are damaged or foreign, kills in mid-save."""

import errno
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import helpers.checkpoints
from helpers import Progress, load_checkpoint, load_model, save_checkpoint, save_model, training_steps
from helpers.files import write_whole
from tests.tiny import CPU, TINY, lively_model, loader, tiny_model, windows

REPOSITORY = Path(__file__).parent.parent


def adamw(model, **options):
    return torch.optim.AdamW(model.parameters(), lr=1e-2, **options)


def trained(model, updates=2, **options):
    optimizer = adamw(model, **options)
    for progress in training_steps(model, loader(), optimizer, CPU, num_epochs=1):
        if progress.step == updates:
            return optimizer, progress


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def is_tied(model):
    return model.out_head.weight is model.tok_emb.weight


class TestModelAlone:
    @pytest.mark.parametrize("tied", [False, True])
    def test_round_trip(self, tmp_path, tied):
        model, other = lively_model(1, tied), tiny_model(2, tied)
        save_model(model, tmp_path / "deep" / "model.safetensors")
        load_model(other, tmp_path / "deep" / "model.safetensors")
        assert same(model.state_dict(), other.state_dict())
        ids = windows(2)[0]
        assert torch.equal(model.eval()(ids), other.eval()(ids))
        assert is_tied(other) is tied
        assert os.listdir(tmp_path / "deep") == ["model.safetensors"]

    def test_tied_weights_are_stored_once(self, tmp_path):
        save_model(lively_model(tied=True), tmp_path / "tied")
        save_model(lively_model(), tmp_path / "untied")
        assert "out_head.weight" not in load_file(tmp_path / "tied")
        assert len(load_file(tmp_path / "untied")) == len(load_file(tmp_path / "tied")) + 1
        difference = (tmp_path / "untied").stat().st_size - (tmp_path / "tied").stat().st_size
        assert difference > 97 * 24 * 4

    def test_a_tied_model_still_learns_as_one_after_loading(self, tmp_path):
        save_model(lively_model(tied=True), tmp_path / "model")
        model = tiny_model(2, tied=True)
        load_model(model, tmp_path / "model")
        trained(model)
        assert torch.equal(model.out_head.weight, model.tok_emb.weight)

    def test_either_name_serves_for_a_tied_model(self, tmp_path):
        weights = lively_model(tied=True).state_dict()
        embedding = weights.pop("tok_emb.weight")
        save_file({name: weight.clone() for name, weight in weights.items()}, tmp_path / "head")
        model = tiny_model(2, tied=True)
        load_model(model, tmp_path / "head")
        assert torch.equal(model.tok_emb.weight, embedding)

    def test_an_untied_file_does_not_fit_a_tied_model(self, tmp_path):
        save_model(lively_model(), tmp_path / "untied")
        save_model(lively_model(tied=True), tmp_path / "tied")
        with pytest.raises(ValueError, match=r"tok_emb.weight and out_head.weight differ in .*untied"):
            load_model(tiny_model(tied=True), tmp_path / "untied")
        with pytest.raises(ValueError, match=r"out_head.weight is missing from .*tied: .*another model"):
            load_model(tiny_model(), tmp_path / "tied")

    def test_a_string_as_path(self, tmp_path):
        save_model(lively_model(), str(tmp_path / "model"))
        load_model(tiny_model(2), str(tmp_path / "model"))


class Compiled(torch.nn.Module):
    """What torch.compile returns, as far as names go."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


class TestCompiledModels:
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("wrap", [Compiled, lambda model: torch.compile(model, backend="eager")])
    def test_both_ways(self, tmp_path, wrap, tied):
        model = lively_model(1, tied)
        compiled = wrap(model)
        assert all(name.startswith("_orig_mod.") for name in compiled.state_dict())
        optimizer = adamw(compiled)
        save_model(compiled, tmp_path / "compiled")
        save_checkpoint(tmp_path / "compiled.pt", compiled, optimizer)
        assert not [name for name in load_file(tmp_path / "compiled") if "_orig_mod" in name]
        for load, path in ((load_model, tmp_path / "compiled"), (load_run, tmp_path / "compiled.pt")):
            plain, other = tiny_model(2, tied), wrap(tiny_model(3, tied))
            load(plain, path)
            load(other, path)
            assert same(plain.state_dict(), model.state_dict())
            assert same(other.state_dict(), compiled.state_dict())

    def test_a_file_with_the_prefix(self, tmp_path):
        """Such as one that was written without save_model."""
        model, other = lively_model(), tiny_model(2)
        save_file({f"_orig_mod.{name}": weight for name, weight in model.state_dict().items()}, tmp_path / "file")
        load_model(other, tmp_path / "file")
        assert same(other.state_dict(), model.state_dict())


class TestCheckpoint:
    def test_round_trip(self, tmp_path):
        model = tiny_model(drop_rate=0.2)
        optimizer, progress = trained(model)
        losses = [1.5, 2.5]
        extra = {"losses": losses, "note": "é", "nested": {"a": [1, None, True]}, "tensor": torch.ones(2)}
        save_checkpoint(tmp_path / "run.pt", model, optimizer, progress, **extra)
        expected = torch.rand(3)
        other = tiny_model(2)
        other_optimizer = torch.optim.AdamW(other.parameters(), lr=7.0)
        torch.manual_seed(4)
        found, found_extra = load_checkpoint(tmp_path / "run.pt", other, other_optimizer)
        assert torch.equal(torch.rand(3), expected)
        assert same(model.state_dict(), other.state_dict())
        assert other_optimizer.param_groups[0]["lr"] == 1e-2
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            assert same(optimizer.state[one], other_optimizer.state[two])
        assert isinstance(found, Progress)
        assert (found.epoch, found.batch, found.step, found.tokens_seen) == (0, 2, 2, 32)
        assert found.loss == progress.loss and torch.equal(found.random_epoch, progress.random_epoch)
        assert torch.equal(found_extra.pop("tensor"), torch.ones(2))
        assert found_extra == {"losses": losses, "note": "é", "nested": {"a": [1, None, True]}}
        assert os.listdir(tmp_path) == ["run.pt"]

    def test_without_progress(self, tmp_path):
        model = tiny_model()
        save_checkpoint(tmp_path / "run.pt", model, adamw(model))
        progress, extra = load_checkpoint(tmp_path / "run.pt", model)
        assert (progress.epoch, progress.batch, progress.step, extra) == (0, 0, 0, {})

    def test_the_model_alone(self, tmp_path):
        model, other = lively_model(), tiny_model(2)
        save_checkpoint(tmp_path / "run.pt", model, adamw(model))
        torch.manual_seed(4)
        before = torch.get_rng_state()
        load_checkpoint(tmp_path / "run.pt", other)
        assert same(model.state_dict(), other.state_dict())
        assert torch.equal(torch.get_rng_state(), before)

    def test_tied(self, tmp_path):
        model, other = lively_model(1, tied=True), tiny_model(2, tied=True)
        save_checkpoint(tmp_path / "run.pt", model, adamw(model))
        load_checkpoint(tmp_path / "run.pt", other)
        assert is_tied(other) and same(model.state_dict(), other.state_dict())
        save_checkpoint(tmp_path / "untied.pt", lively_model(1), adamw(model))
        assert (tmp_path / "untied.pt").stat().st_size - (tmp_path / "run.pt").stat().st_size > 97 * 24 * 4

    @pytest.mark.parametrize("value", [{1, 2}, object(), torch.nn.Linear(1, 1), [1, [object()]], {1: 2}, len])
    def test_extras_that_could_not_be_read_back(self, tmp_path, value):
        model = tiny_model()
        with pytest.raises(TypeError, match=r"history is a .*; numbers, strings, and lists of them can be kept"):
            save_checkpoint(tmp_path / "run.pt", model, adamw(model), history=value)
        assert os.listdir(tmp_path) == []

    def test_another_optimizer(self, tmp_path):
        model = tiny_model()
        optimizer, progress = trained(model)
        save_checkpoint(tmp_path / "run.pt", model, optimizer, progress)
        other = tiny_model(2)
        before = {name: weight.clone() for name, weight in other.state_dict().items()}
        for wrong in (torch.optim.SGD(other.parameters(), lr=0.1), torch.optim.AdamW([other.pos_emb.weight])):
            with pytest.raises(ValueError, match=r"run.pt is the checkpoint of another optimizer") as caught:
                load_checkpoint(tmp_path / "run.pt", other, wrong)
            assert "\n" not in str(caught.value)
            assert same(other.state_dict(), before)
        load_checkpoint(tmp_path / "run.pt", other, adamw(other))


def load_run(model, path):
    return load_checkpoint(path, model)


class Harmful:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def bad_files(folder):
    """Files that are no checkpoint and no model of the tiny size, by what they are."""
    model = lively_model()
    save_model(model, folder / "good.safetensors")
    save_checkpoint(folder / "good.pt", model, adamw(model))
    weights, checkpoint = (folder / "good.safetensors").read_bytes(), (folder / "good.pt").read_bytes()
    contents = {
        "empty": b"",
        "text": b"Every effort moves you\n" * 100,
        "noise": bytes(range(256)) * 40,
        "zeros": bytes(5000),
        "half-weights": weights[: len(weights) // 2],
        "weights-but-a-byte": weights[:-1],
        "header-only": weights[:100],
        "half-checkpoint": checkpoint[: len(checkpoint) // 2],
        "checkpoint-but-a-byte": checkpoint[:-1],
        "damaged-header": weights[:8] + b"x" * 50 + weights[58:],
        "pickle": pickle.dumps({"course_checkpoint": 1, "model": {}}),
        "harmful-pickle": pickle.dumps(Harmful(folder / "harm")),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    torch.save(Harmful(folder / "harm"), folder / "harmful-checkpoint")
    torch.save({"course_checkpoint": 1, "model": Harmful(folder / "harm")}, folder / "harmful-entry")
    torch.save(model.state_dict(), folder / "state-dict")
    torch.save([1, 2, 3], folder / "list")
    torch.save({"course_checkpoint": 1}, folder / "hollow")
    save_file({"a": torch.ones(2)}, folder / "foreign-weights")
    large = {**TINY, "emb_dim": 48}
    save_model(lively_model(**large), folder / "other-size")
    save_checkpoint(folder / "other-size.pt", lively_model(**large), adamw(model))
    save_model(lively_model(n_layers=3), folder / "more-layers")
    save_model(lively_model(n_layers=1), folder / "fewer-layers")
    save_checkpoint(folder / "fewer-layers.pt", lively_model(n_layers=1), adamw(model))
    return sorted({path.name for path in folder.iterdir()} - {"good.safetensors", "good.pt"})


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
class TestBadFiles:
    def test_each_is_refused_in_one_line(self, tmp_path):
        names = bad_files(tmp_path)
        assert len(names) > 20
        for load, good, other_kind in (
            (load_model, "good.safetensors", "good.pt"),
            (load_run, "good.pt", "good.safetensors"),
        ):
            model = tiny_model(2)
            before = {name: weight.clone() for name, weight in model.state_dict().items()}
            for name in [*names, other_kind]:
                with pytest.raises(ValueError) as caught:
                    load(model, tmp_path / name)
                message = str(caught.value)
                assert name in message and "\n" not in message, (name, message)
                assert len(message) < 200 + 2 * len(str(tmp_path)), message
                assert caught.value.__suppress_context__ or caught.value.__context__ is None  # a short traceback
                assert same(model.state_dict(), before), name
            load(model, tmp_path / good)
        assert not (tmp_path / "harm").exists()

    def test_the_harmful_pickle_is_harmful(self, tmp_path):
        """The test above can fail."""
        bad_files(tmp_path)
        torch.load(tmp_path / "harmful-checkpoint", weights_only=False)
        assert (tmp_path / "harm").exists()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("other-size", r"final_norm.scale in .*other-size has shape \(48,\), the model has \(24,\).*another size"),
            ("more-layers", "trf_blocks.2.* is unknown to the model, but in .*more-layers.*another model"),
            ("fewer-layers", "trf_blocks.1.* is missing from .*fewer-layers.*another model"),
            ("text", "text cannot be read as a safetensors file; it may be damaged or of another kind"),
        ],
    )
    def test_what_is_wrong(self, tmp_path, name, message):
        bad_files(tmp_path)
        with pytest.raises(ValueError, match=message):
            load_model(tiny_model(), tmp_path / name)

    def test_missing(self, tmp_path):
        for load in (load_model, load_run):
            with pytest.raises(FileNotFoundError, match=r"nothing\.pt does not exist"):
                load(tiny_model(), tmp_path / "nothing.pt")
            with pytest.raises(FileNotFoundError, match="is not a file"):
                load(tiny_model(), tmp_path)  # a folder


class TestWriting:
    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_permissions_are_those_of_any_file(self, tmp_path, mask):
        model = tiny_model(tied=True)
        before = os.umask(mask)
        try:
            (tmp_path / "any").write_text("")
            save_model(model, tmp_path / "model")
            save_checkpoint(tmp_path / "checkpoint", model, adamw(model))
            save_model(model, tmp_path / "model")  # and once more over it
        finally:
            os.umask(before)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        assert set(modes.values()) == {0o666 & ~mask}, modes

    @pytest.mark.parametrize("kind", ["model", "checkpoint"])
    def test_a_full_disk_leaves_the_old_file(self, tmp_path, monkeypatch, kind):
        model, path = lively_model(1), tmp_path / "file"

        def save(model):
            save_model(model, path) if kind == "model" else save_checkpoint(path, model, adamw(model))

        save(model)
        before = path.read_bytes()

        def full(content, target, *rest):
            Path(target).write_bytes(b"the beginning of a")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(helpers.checkpoints, "save_file", full)
        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            save(lively_model(2))
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["file"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_disk_that_is_full_from_the_start(self, tmp_path, monkeypatch):
        monkeypatch.setattr(
            helpers.checkpoints, "save_file", lambda weights, path, _: Path("/dev/full").write_text("x" * 100_000)
        )
        with pytest.raises(OSError, match="No space left"):
            save_model(tiny_model(), tmp_path / "model")
        assert os.listdir(tmp_path) == []

    def test_the_name_appears_only_when_the_file_is_whole(self, tmp_path):
        def write(temporary):
            Path(temporary).write_text("half")
            assert not (tmp_path / "file").exists()
            Path(temporary).write_text("whole")

        write_whole(tmp_path / "file", write)
        assert (tmp_path / "file").read_text() == "whole"


KILLS = """
import os, signal, sys
import torch
from helpers import checkpoints, load_checkpoint, load_model, save_checkpoint, save_model
from tests.tiny import tiny_model

folder = sys.argv[1]
files = {
    "run.pt": lambda path: save_checkpoint(path, model, optimizer),
    "model.safetensors": lambda path: save_model(model, path),
}
model = tiny_model()
optimizer = torch.optim.AdamW(model.parameters())
replace, torch_save, save_file = os.replace, torch.save, checkpoints.save_file

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(save):
    def save_half(content, path, *rest):
        save(content, path, *rest)
        os.truncate(path, os.path.getsize(path) // 2)
        die()
    return save_half

def save(name, version):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(version)
    files[name](f"{folder}/{name}")

def version_in(name):
    path = f"{folder}/{name}"
    load_checkpoint(path, model) if name == "run.pt" else load_model(model, path)
    (version,) = {value.item() for parameter in model.parameters() for value in parameter.unique()}
    return version

def writing():
    torch.save, checkpoints.save_file = half(torch_save), half(save_file)

def written():
    os.replace = die

def renamed():
    os.replace = lambda *names: (replace(*names), die())

for name in files:
    save(name, 0)
    for version, until in enumerate((writing, written, renamed), start=1):
        child = os.fork()
        if child == 0:
            until()
            save(name, version)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        litter = set(os.listdir(folder)) - set(files)
        assert all(name.startswith(".") for name in litter), litter  # nothing that a person or *.pt would pick up
        print(name, until.__name__, version_in(name), len(litter))
        for left in litter:
            os.remove(f"{folder}/{left}")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_kills_in_mid_save_lose_nothing(tmp_path):
    command = [sys.executable, "-c", KILLS, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = "{0} writing 0.0 1|{0} written 0.0 1|{0} renamed 3.0 0"
    assert done.stdout.splitlines() == "|".join(map(expected.format, ("run.pt", "model.safetensors"))).split("|")
