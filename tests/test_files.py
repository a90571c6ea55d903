"""Files written whole, paths in the home folder, errors in one line."""

import os
import stat
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers import load_checkpoint, load_model, load_saved_gpt, save_checkpoint, save_model
from helpers.files import check_writable, existing_file, first_line, read_tensors, write_text_whole, write_whole
from tests.tiny import lively_model, tiny_model


@pytest.fixture(name="home")
def home_folder(tmp_path, monkeypatch):
    """A home folder, and a working directory elsewhere."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


class TestWriting:
    def test_a_text(self, tmp_path):
        for text in ("one\n", "two ž\n"):
            write_text_whole(tmp_path / "deep" / "text", text)
            assert (tmp_path / "deep" / "text").read_text(encoding="utf-8") == text
        assert os.listdir(tmp_path / "deep") == ["text"]

    def test_a_failure_leaves_the_old_file(self, tmp_path):
        write_text_whole(tmp_path / "text", "old")

        def fail(temporary):
            Path(temporary).write_text("half of the n")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_whole(tmp_path / "text", fail)
        assert (tmp_path / "text").read_text() == "old" and os.listdir(tmp_path) == ["text"]

    def test_a_drive_that_refuses_chmod(self, tmp_path, monkeypatch):
        def refuse(self, mode, **_):
            raise PermissionError(1, "Operation not permitted", str(self))

        monkeypatch.setattr(Path, "chmod", refuse)
        save_model(torch.nn.Linear(2, 2), tmp_path / "model")
        load_model(torch.nn.Linear(2, 2), tmp_path / "model")

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
    def test_permissions_are_those_of_any_new_file(self, tmp_path):
        save_model(torch.nn.Linear(2, 2), tmp_path / "model")
        (tmp_path / "any").write_text("")
        assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == stat.S_IMODE((tmp_path / "any").stat().st_mode)

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
    def test_a_file_that_is_replaced_keeps_its_permissions(self, tmp_path, mode):
        for name, write in (
            ("text", lambda path: write_text_whole(path, "new")),
            ("model", lambda path: save_model(torch.nn.Linear(2, 2), path)),
        ):
            (tmp_path / name).write_text("old")
            (tmp_path / name).chmod(mode)
            write(tmp_path / name)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
            assert (tmp_path / name).read_bytes() != b"old"

    def test_two_threads_at_one_path(self, tmp_path):
        both, failures = threading.Barrier(2), []

        def write(letter):
            def halves(temporary):
                Path(temporary).write_text(letter)
                both.wait(10)
                with Path(temporary).open("a") as file:
                    file.write(letter)

            try:
                write_whole(tmp_path / "text", halves)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == [] and (tmp_path / "text").read_text() in ("aa", "bb") and os.listdir(tmp_path) == ["text"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files, and makes links only for administrators")
class TestOtherThanFiles:
    def test_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match=r"pipe is a device or a pipe: the name of a file is expected"):
            write_text_whole(tmp_path / "pipe", "text")
        assert (tmp_path / "pipe").is_fifo() and os.listdir(tmp_path) == ["pipe"]

    def test_a_device(self):
        with pytest.raises(OSError, match=r"^/dev/null is a device or a pipe"):
            check_writable("/dev/null")  # not written to: whoever may would replace the device

    def test_a_link_that_leads_back_to_itself(self, tmp_path):
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(OSError, match=r"a is a link that leads back to itself: the name of a file is expected"):
            write_text_whole(tmp_path / "a", "text")
        with pytest.raises(FileNotFoundError, match=r"a does not exist"):
            existing_file(tmp_path / "a")

    def test_a_link_to_a_file_that_is_not_there_yet(self, tmp_path):
        (tmp_path / "link").symlink_to("text")
        write_text_whole(tmp_path / "link", "text")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "text").read_text() == "text"


class TestHomeFolder:
    def test_a_name_that_begins_like_a_users(self, home):
        """There is no user of this name, so it is the name of a file, as in a shell."""
        save_model(torch.nn.Linear(2, 2), "~draft.safetensors")
        load_model(torch.nn.Linear(2, 2), "~draft.safetensors")
        assert os.listdir() == ["~draft.safetensors"] and os.listdir(home) == []

    def test_models_and_checkpoints(self, home):
        model = lively_model()
        optimizer = torch.optim.AdamW(model.parameters())
        save_model(model, "~/runs/model.safetensors")
        save_checkpoint("~/runs/run.pt", model, optimizer)
        assert sorted(os.listdir(home / "runs")) == ["model.safetensors", "run.pt"] and os.listdir() == []
        for load in (
            lambda other: load_model(other, "~/runs/model.safetensors"),
            lambda other: load_checkpoint("~/runs/run.pt", other),
        ):
            other = tiny_model(2)
            load(other)
            assert torch.equal(other.tok_emb.weight, model.tok_emb.weight)
        for name in ("model.safetensors", "run.pt"):
            assert torch.equal(load_saved_gpt(f"~/runs/{name}")[0].tok_emb.weight, model.tok_emb.weight)

    def test_the_message_says_what_was_given(self, home):
        with pytest.raises(FileNotFoundError, match=r"^~/nothing does not exist$"):
            existing_file("~/nothing")
        with pytest.raises(FileNotFoundError, match=r"^~ is not a file$"):
            existing_file("~")
        (home / "something").write_text("")
        assert existing_file("~/something") == home / "something"


def test_tensors_and_metadata(tmp_path):
    save_file({"a": torch.arange(3)}, tmp_path / "with", metadata={"config": "{}"})
    save_file({"a": torch.arange(3)}, tmp_path / "without")
    for name, expected in (("with", {"config": "{}"}), ("without", {})):
        tensors, metadata = read_tensors(tmp_path / name)
        assert torch.equal(tensors.pop("a"), torch.arange(3)) and (tensors, metadata) == ({}, expected)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("one\ntwo"), "one"),
        (OSError("\n\n  one \n two"), "one"),
        (ValueError("Errors:\n\tone\n\ttwo"), "Errors: one"),
        (ValueError("Errors:\n\tin a:\n\n\tone\n\ttwo"), "Errors: in a: one"),
        (ValueError("Errors:"), "Errors:"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (KeyError("config"), "'config'"),
        (FileNotFoundError(2, "No such file or directory", "a file"), "[Errno 2] No such file or directory: 'a file'"),
        (ValueError("x" * 500), "x" * 120),
    ],
)
def test_first_line(error, line):
    assert first_line(error) == line
    assert first_line(error, 3) == line[:3]
