"""A folder of texts as a memory-mapped file: the same tokens as in one go, changes noticed, damage told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import helpers.apps.corpus
from helpers import GPTDatasetV1, get_tokenizer, load_text
from helpers.apps.corpus import END_OF_TEXT, TokenWindows, fingerprint, open_corpus, pieces
from helpers.texts import EMBEDDED_TEXTS

TOKENIZER = get_tokenizer()


def encode(text):
    return TOKENIZER.encode(text, allowed_special={"<|endoftext|>"})


@pytest.fixture
def folder(tmp_path):
    texts = tmp_path / "texts"
    (texts / "deeper").mkdir(parents=True)
    (texts / "b.txt").write_text("Every effort moves you.\n", encoding="utf-8")
    (texts / "deeper" / "a.txt").write_text("Küche, 漢字<|endoftext|>and more", encoding="utf-8")
    (texts / "empty.txt").write_text("", encoding="utf-8")
    (texts / "c.md").write_text("not a text", encoding="utf-8")
    return texts


@pytest.fixture
def counting(monkeypatch):
    """How often a folder was tokenized."""
    calls, real = [], helpers.apps.corpus._tokenize
    monkeypatch.setattr(helpers.apps.corpus, "_tokenize", lambda *args: (calls.append(1), real(*args))[1])
    return calls


class TestTokens:
    def test_files_in_order_each_with_an_end(self, folder):
        ids = open_corpus(folder)
        first, second = encode("Every effort moves you.\n"), encode("Küche, 漢字<|endoftext|>and more")
        assert ids.tolist() == [*first, END_OF_TEXT, *second, END_OF_TEXT]
        assert isinstance(ids, np.memmap) and ids.dtype == np.uint16
        assert Path(ids.filename) == folder.parent / "texts.tokens"
        with pytest.raises(ValueError, match="read-only"):
            ids[0] = 1

    def test_a_large_file_in_pieces(self, tmp_path, monkeypatch):
        text = load_text("story") + "\n\n\n  spaces   and 1234567 digits, it's\t\ttabs \n \n漢字 " * 50
        monkeypatch.setattr(helpers.apps.corpus, "_PIECE", 1000)
        monkeypatch.setattr(helpers.apps.corpus.pieces, "__defaults__", (100,))
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "a.txt").write_text(text, encoding="utf-8")
        assert len(list(pieces(tmp_path / "texts" / "a.txt"))) > 200
        assert open_corpus(tmp_path / "texts").tolist() == [*encode(text), END_OF_TEXT]

    @given(st.text(st.sampled_from(list("ab1'., \n\t!é漢\u00a0\u2003\x1c")), max_size=60), st.integers(1, 9))
    def test_pieces_give_the_tokens_of_the_whole(self, tmp_path_factory, text, size):
        path = tmp_path_factory.mktemp("piece") / "a.txt"
        path.write_text(text, encoding="utf-8")
        parts = list(pieces(path, size))
        assert "".join(parts) == text
        assert [token for part in parts for token in encode(part)] == encode(text)

    def test_memory_is_for_a_piece_not_for_a_file(self, tmp_path):
        path = tmp_path / "a.txt"
        path.write_text("some words " * 10_000, encoding="utf-8")
        assert max(map(len, pieces(path, 1000))) <= 1000 + len("some words ")

    def test_a_byte_order_mark_and_windows_line_ends(self, tmp_path):
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
        assert open_corpus(tmp_path / "texts").tolist() == [*encode("one\ntwo"), END_OF_TEXT]

    def test_a_relative_folder_and_a_file_of_ones_own(self, folder, monkeypatch, tmp_path):
        monkeypatch.chdir(folder)
        assert Path(open_corpus(".").filename) == folder.parent / "texts.tokens"
        assert Path(open_corpus(folder, tmp_path / "other" / "x").filename) == tmp_path / "other" / "x"


class TestChanges:
    def test_made_once(self, folder, counting):
        before = open_corpus(folder)
        assert np.array_equal(open_corpus(folder), before) and counting == [1]
        made = json.loads((folder.parent / "texts.tokens.json").read_text(encoding="utf-8"))
        assert [name for name, _, _ in made["files"]] == ["b.txt", "deeper/a.txt", "empty.txt"]
        assert made["tokens"] == len(before)

    def test_a_text_more_less_edited(self, folder, counting):
        open_corpus(folder)
        (folder / "new.txt").write_text("new", encoding="utf-8")
        assert open_corpus(folder).tolist()[-2:] == [*encode("new"), END_OF_TEXT]
        (folder / "new.txt").unlink()
        length = len(open_corpus(folder))
        (folder / "b.txt").write_text("Every effort moves YOU.\n", encoding="utf-8")  # as long as before
        os.utime(folder / "b.txt", (1, 1))
        ids = open_corpus(folder)
        assert ids.tolist()[: len(encode("Every effort moves YOU."))] == encode("Every effort moves YOU.")
        assert len(counting) == 4 and length > 0

    def test_the_note_is_lost(self, folder, counting):
        before = open_corpus(folder).tolist()
        note = folder.parent / "texts.tokens.json"
        for content in ("", "[]", "{}", "\ufffd"):
            note.write_text(content, encoding="utf-8")
            assert open_corpus(folder).tolist() == before
        note.unlink()
        assert open_corpus(folder).tolist() == before
        assert len(counting) == 6

    def test_whole_or_not_at_all(self, folder, monkeypatch):
        before = open_corpus(folder).tolist()
        (folder / "new.txt").write_text("new", encoding="utf-8")

        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(helpers.apps.corpus, "_append", interrupt)
            with pytest.raises(KeyboardInterrupt):
                open_corpus(folder)
        names = sorted(path.name for path in folder.parent.iterdir())
        assert names == ["texts", "texts.tokens", "texts.tokens.json"]
        assert np.fromfile(folder.parent / "texts.tokens", dtype="<u2").tolist() == before
        assert len(open_corpus(folder)) == len(before) + 2

    def test_interrupted_between_the_two_files(self, folder, monkeypatch):
        open_corpus(folder)
        (folder / "new.txt").write_text("new", encoding="utf-8")

        def stop(path, text):
            assert str(path).endswith(".json")
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(helpers.apps.corpus, "write_text_whole", stop)
            with pytest.raises(KeyboardInterrupt):
                open_corpus(folder)
        assert open_corpus(folder).tolist()[-2:] == [*encode("new"), END_OF_TEXT]


class TestErrors:
    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
            open_corpus(tmp_path / "nowhere")

    def test_no_texts(self, tmp_path):
        with pytest.raises(ValueError, match=r"holds no \.txt file$"):
            open_corpus(tmp_path)
        (tmp_path / "texts").mkdir()
        (tmp_path / "texts" / "a.txt").touch()
        with pytest.raises(ValueError, match=r"the \.txt files of .*texts are all empty$"):
            open_corpus(tmp_path / "texts")
        assert [path.name for path in tmp_path.iterdir()] == ["texts"]

    @pytest.mark.parametrize("name", ["novel.txt", "novel.txt.json"])
    @pytest.mark.parametrize("content", ["Chapter 1 Ä".encode(), b"", b"{}"])
    def test_a_file_of_somebody_else(self, folder, tmp_path, counting, name, content):
        own = tmp_path / name
        own.write_bytes(content)
        message = f"{own.name} exists and is not a file of tokens that was made here; name another, or delete it"
        with pytest.raises(ValueError, match=message):
            open_corpus(folder, tmp_path / "novel.txt")
        assert own.read_bytes() == content and counting == []
        own.unlink()
        assert len(open_corpus(folder, tmp_path / "novel.txt"))

    def test_a_text_in_the_place_of_an_older_file_of_tokens(self, folder):
        open_corpus(folder)
        file = folder.parent / "texts.tokens"
        file.write_text("my notes", encoding="utf-8")
        (folder / "new.txt").write_text("new", encoding="utf-8")
        with pytest.raises(ValueError, match="is not a file of tokens"):
            open_corpus(folder)
        assert file.read_text(encoding="utf-8") == "my notes"

    @pytest.mark.parametrize("content", ["naïve".encode("latin-1"), b"\x80abc", "cut short: é".encode()[:-1]])
    def test_not_utf_8(self, folder, content):
        (folder / "deeper" / "old.txt").write_bytes(content)
        with pytest.raises(ValueError, match=r"old\.txt is not UTF-8 text$"):
            open_corpus(folder)
        assert [path.name for path in folder.parent.iterdir()] == ["texts"]

    @pytest.mark.parametrize("damage", ["shorter", "longer", "one byte"])
    def test_damaged(self, folder, damage):
        open_corpus(folder)
        file = folder.parent / "texts.tokens"
        data = bytearray(file.read_bytes())
        data[4] ^= 1
        whole = file.read_bytes()
        file.write_bytes({"shorter": whole[:-2], "longer": whole + b"ab", "one byte": bytes(data)}[damage])
        message = r"texts\.tokens is damaged; delete it, and it will be made again from .*texts$"
        with pytest.raises(ValueError, match=message):
            open_corpus(folder)
        file.unlink()
        assert len(open_corpus(folder)) * 2 == len(whole)


class TestWindows:
    def test_are_those_of_chapter_2(self):
        text = EMBEDDED_TEXTS["story"].read_text(encoding="utf-8")
        theirs = GPTDatasetV1(text, TOKENIZER, max_length=32, stride=32)
        ours = TokenWindows(np.array(encode(text), dtype=np.uint16), 32)
        assert len(ours) == len(theirs) > 100
        for one, other in zip(map(ours.__getitem__, range(len(ours))), theirs, strict=True):
            assert one[0].dtype == torch.int64
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])

    @pytest.mark.parametrize(("count", "windows"), [(5, 1), (8, 1), (9, 2), (12, 2), (13, 3)])
    def test_edges(self, count, windows):
        ids = TokenWindows(np.arange(count, dtype=np.uint16), 4)
        assert len(ids) == windows
        assert ids[windows - 1][1].tolist() == [4 * windows - 3 + i for i in range(4)]
        with pytest.raises(IndexError):
            ids[windows]

    def test_too_short(self):
        with pytest.raises(ValueError, match="the text has 4 tokens; a window of 4 needs at least one more"):
            TokenWindows(np.zeros(4, dtype=np.uint16), 4)


def test_fingerprint(monkeypatch):
    ids = np.arange(1000, dtype=np.uint16)
    whole = fingerprint(ids)
    assert whole.startswith("1000 tokens, crc32 ")
    monkeypatch.setattr(helpers.apps.corpus, "_PIECE", 7)
    assert fingerprint(ids) == whole
    assert len({whole, fingerprint(ids[:-1]), fingerprint(ids[::-1])}) == 3


def test_command_line(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["corpus", str(folder)])
    helpers.apps.corpus.main()
    assert capsys.readouterr().out.endswith(f"tokens in {folder.parent / 'texts.tokens'}\n")
    monkeypatch.setattr(sys, "argv", ["corpus", str(folder / "none")])
    with pytest.raises(SystemExit, match=r"error: .*none is not a folder"):
        helpers.apps.corpus.main()
    monkeypatch.setattr(sys, "argv", ["corpus", str(folder), str(folder / "deeper")])
    with pytest.raises(SystemExit, match=r"error: .*deeper is a folder: the name of a file is expected"):
        helpers.apps.corpus.main()


def test_killed(folder):
    """A process that dies in the middle leaves what was there before."""
    before = open_corpus(folder).tolist()
    (folder / "new.txt").write_text("new", encoding="utf-8")
    code = "import os, sys, helpers.apps.corpus as c; c._append = lambda *_: os._exit(9); c.open_corpus(sys.argv[1])"
    run = subprocess.run([sys.executable, "-c", code, str(folder)], env={**os.environ, "TQDM_DISABLE": "1"})
    assert run.returncode == 9
    assert np.fromfile(folder.parent / "texts.tokens", dtype="<u2").tolist() == before
    assert open_corpus(folder).tolist() == [*before, *encode("new"), END_OF_TEXT]
