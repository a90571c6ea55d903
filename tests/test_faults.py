"""Faults and bad inputs: nothing is lost, nothing is executed, and a sentence says what was wrong.

Each case is a row of the table that the run writes (see `tests.fault_table`).
"""

import errno
import hashlib
import http.client
import io
import json
import math
import os
import pickle
import shutil
import signal
import socket
import struct
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import helpers
from helpers import (
    BPETokenizer,
    GPTDatasetV1,
    GPTModel,
    InstructionDataset,
    LoRALayer,
    MultiHeadAttention,
    answer_entries,
    calc_loss_loader,
    create_dataloader_v1,
    custom_collate_fn,
    extract_response,
    generate,
    generate_model_scores,
    generate_text_simple,
    get_device,
    get_profile,
    get_tokenizer,
    gpt_config,
    judges,
    load_bpe,
    load_checkpoint,
    load_instructions,
    load_model,
    load_saved_gpt,
    load_text,
    masked_collate_fn,
    merge_lora,
    model_client,
    query_model,
    replace_linear_with_lora,
    save_bpe,
    save_checkpoint,
    save_gpt2,
    save_model,
    text_to_token_ids,
    texts,
    train_bpe,
    train_model_simple,
    training_steps,
)
from helpers.apps import chat_page
from helpers.apps.chat import Chat, load
from helpers.apps.corpus import TokenWindows, open_corpus
from helpers.classification import (
    SpamDataset,
    calc_accuracy_loader,
    calc_loss_batch_classes,
    classify_review,
    create_balanced_dataset,
    random_split,
)
from helpers.course.references import load_references, select
from helpers.files import write_text_whole
from helpers.generation import beam_search, choose_next, generate_batch, generate_stream
from helpers.instructions import calc_loss_batch_labels, check_entries, save_responses, split_entries
from helpers.judges import exact_match, token_f1
from helpers.lora import load_adapter, save_adapter
from helpers.preferences import PreferenceDataset, dpo_loss, make_preferences, preference_collate_fn
from helpers.pretrained import (
    fetch_gpt2,
    find_gpt2,
    load_course_model,
    load_weights_into_gpt,
    read_gpt2,
    save_course_model,
)
from helpers.toy import ToyDataset

from .fakes import Letters, StubServer
from .test_chat import small_model
from .tiny import CPU, lively_model, loader, tiny_model, windows

ENTRIES = [{"instruction": "Say hi.", "input": "", "output": "Hi.", "response": "Hello."}]
NOWHERE = "http://127.0.0.1:9/api/chat"


def cases(rows):
    """Parameters of a test from a table: what is tried, the rest of the row."""
    return [pytest.param(*row, id=str(number)) for number, row in enumerate(rows)]


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*"))


# Files that are read


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def with_lora(model):
    model.requires_grad_(False)
    replace_linear_with_lora(model, 2, 4, "att")
    return model


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def into(load, path):
    """Load a file into a model, which must be as it was before if that fails."""
    model = tiny_model(2)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    try:
        load(model, path)
    except Exception:
        after = model.state_dict()
        assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
        raise


def scores(path):
    return generate_model_scores(ENTRIES, "response", url=NOWHERE, save_to=path)


LOADERS = {  # what reads a file: the file, and the call
    "load_model": ("model.safetensors", lambda path: into(load_model, path)),
    "load_checkpoint": ("run.pt", lambda path: into(lambda model, path: load_checkpoint(path, model), path)),
    "load_saved_gpt": ("model.safetensors", load_saved_gpt),
    "load_saved_gpt of a checkpoint": ("run.pt", load_saved_gpt),
    "chat.load": ("model.safetensors", lambda path: load(str(path))),
    "load_adapter": ("adapter.safetensors", lambda path: into(load_adapter, path)),
    "load_course_model": ("course.safetensors", load_course_model),
    "read_gpt2": ("gpt2/model.safetensors", lambda path: read_gpt2(path.parent)),
    "read_gpt2 with config.json": ("gpt2/config.json", lambda path: read_gpt2(path.parent)),
    "load_bpe": ("bpe.json", load_bpe),
    "load_references": ("references.json", load_references),
    "generate_model_scores with save_to": ("scores.json", scores),
    "SpamDataset": ("messages.csv", lambda path: SpamDataset(path, Letters())),
    "open_corpus": ("texts.tokens", lambda path: open_corpus(path.parent / "texts")),
}


@pytest.fixture(name="good", scope="module")
def whole_files(tmp_path_factory):
    """A folder with a whole file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    model = lively_model()
    save_model(model, folder / "model.safetensors")
    save_checkpoint(folder / "run.pt", model, adamw(model), losses=[3.5, 2.5])
    save_adapter(with_lora(lively_model()), folder / "adapter.safetensors")
    save_course_model(lively_model(tied=True), folder / "course.safetensors")
    save_gpt2(lively_model(tied=True, qkv_bias=True), folder / "gpt2")
    save_bpe(train_bpe("the hen in the pen and the ten men " * 3, 270), folder / "bpe.json")
    shutil.copy(helpers.course.references.PATH, folder / "references.json")
    write_text_whole(folder / "scores.json", json.dumps({"key": "85"}))
    write_text_whole(folder / "messages.csv", 'Label,Text\n0,hello\n1,"win, now"\n')
    write_text_whole(folder / "texts" / "one.txt", "One.")
    open_corpus(folder / "texts")
    return folder


def copied(good, name, folder):
    """A good file, with what belongs to it, in another folder."""
    if "/" in name or name.endswith(".tokens"):
        shutil.copytree(
            good / name.split("/")[0] if "/" in name else good, folder / name.split("/")[0] if "/" in name else folder
        )
    else:
        folder.mkdir()
        shutil.copy(good / name, folder)
    return folder / name


def damaged_with(name, payload):
    """What stands in a damaged file of any kind; the good content where it depends on that."""
    if name == "a pickle that would run a command":
        return lambda good: pickle.dumps(Payload(payload))
    if name == "a torch file that would run a command":
        file = io.BytesIO()
        torch.save({"course_checkpoint": 1, "model": Payload(payload)}, file)
        return lambda good: file.getvalue()
    if name == "an archive with paths that lead outside":
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("../outside", b"x")
            archive.writestr("archive/data.pkl", pickle.dumps(Payload(payload)))
        return lambda good: file.getvalue()
    return DAMAGE[name]


DAMAGE = {
    "nothing at all": lambda good: b"",
    "its first half": lambda good: good[: len(good) // 2],
    "a sentence": lambda good: b"Every effort moves you\n" * 20,
    "a page of a network's login": lambda good: b"<!DOCTYPE html>\n<html><body>Please log in.</body></html>\n",
    "random bytes": lambda good: np.random.default_rng(1).bytes(4000),
    "zeros": lambda good: bytes(4000),
    "a header that claims 2**60 bytes": lambda good: struct.pack("<Q", 2**60) + good[8:],
    "brackets, 100,000 deep": lambda good: b"[" * 100_000,
    "a JSON document of another kind": lambda good: b'{"merges": 3, "key": [1], "n_layer": "two", "lora": null}',
    "a pickle that would run a command": None,
    "a torch file that would run a command": None,
    "an archive with paths that lead outside": None,
}
FORGIVEN = {  # without a checksum, these are whole files
    ("SpamDataset", "its first half"),
}


CONFIGS = {
    "vocab_size 10**15": {"vocab_size": 10**15},
    "n_layers 10**9": {"n_layers": 10**9},
    "emb_dim a text": {"emb_dim": "24"},
    "emb_dim 0": {"emb_dim": 0},
    "n_heads 0": {"n_heads": 0},
    "n_heads -3": {"n_heads": -3},
    "n_heads 5, which does not divide 24": {"n_heads": 5},
    "context_length -1": {"context_length": -1},
    "drop_rate 7": {"drop_rate": 7},
    "n_layers null": {"n_layers": None},
    "n_layers 2.5": {"n_layers": 2.5},
    "qkv_bias true, the file without": {"qkv_bias": True},
}


SETTINGS = {
    "n_layer 10**9": {"n_layer": 10**9},
    "n_layer 0": {"n_layer": 0},
    "n_head 0": {"n_head": 0},
    "n_head true": {"n_head": True},
    "n_embd -24": {"n_embd": -24},
    "n_embd 48": {"n_embd": 48},
    "vocab_size 10**18": {"vocab_size": 10**18},
    "n_positions 10**9": {"n_positions": 10**9, "n_ctx": 10**9},
    "activation_function relu": {"activation_function": "relu"},
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
class TestReading:
    """Damaged, swapped and malicious files."""

    @pytest.mark.parametrize("damage", DAMAGE)
    @pytest.mark.parametrize("reader", LOADERS)
    def test_damaged(self, fault, good, tmp_path, reader, damage):
        name, read = LOADERS[reader]
        path = copied(good, name, tmp_path / "here")
        path.write_bytes(damaged_with(damage, tmp_path / "run")(path.read_bytes()))
        before = listing(tmp_path)
        if (reader, damage) in FORGIVEN:
            fault.tries(f"{reader}: {path.name} holds {damage}", "read as what it holds")
            fault.happened(f"{len(read(path))} row read")
        else:
            fault.tries(f"{reader}: {path.name} holds {damage}", "refused in a sentence, nothing executed or changed")
            with fault.refuses(path.name if reader == "load_references" else "here", (ValueError, OSError)):
                read(path)
        assert listing(tmp_path) == before  # nothing was executed, unpacked or written

    @pytest.mark.parametrize("reader", LOADERS)
    def test_flipped_bits(self, fault, good, tmp_path, reader):
        name, read = LOADERS[reader]
        fault.tries(f"{reader}: 24 copies of {Path(name).name}, each with a bit flipped", "each is read, or refused")
        path = copied(good, name, tmp_path / "here")
        content, refused = path.read_bytes(), 0
        draw = np.random.default_rng(7)
        for number in range(24):
            place = int(draw.integers(len(content) if number % 2 else min(300, len(content))))
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(draw.integers(8))
            path.write_bytes(flipped)
            before = listing(tmp_path)
            try:
                read(path)
            except (ValueError, OSError) as error:
                assert "\n" not in str(error) or reader == "load_references"
                refused += 1
            assert listing(tmp_path) == before
        fault.happened(f"{refused} refused, {24 - refused} read")

    @pytest.mark.parametrize(
        ("reader", "other"),
        [
            (reader, other)
            for reader in LOADERS
            for other in ("a folder", "nothing", "a folder that cannot be entered")
            if reader != "open_corpus" and (reader, other) != ("generate_model_scores with save_to", "nothing")  # made
        ],
    )
    def test_no_file(self, fault, good, tmp_path, reader, other):
        name, read = LOADERS[reader]
        fault.tries(f"{reader}: at the path is {other}", "refused in a sentence")
        path = copied(good, name, tmp_path / "here")
        if other == "a folder that cannot be entered":
            path = Path("/dev/null/here") / path.name  # asking for it raises NotADirectoryError
        else:
            path.unlink()
            path.mkdir() if other == "a folder" else None
        with fault.refuses("here", (ValueError, OSError)):
            read(path)

    @pytest.mark.parametrize(
        ("reader", "file"),
        [
            (reader, file)
            for reader in ("load_model", "load_checkpoint", "load_adapter", "load_course_model")
            for file in ("model.safetensors", "run.pt", "adapter.safetensors", "course.safetensors")
            if LOADERS[reader][0] != file
        ],
    )
    def test_swapped(self, fault, good, reader, file):
        fault.tries(f"{reader} is given {file}", "refused in a sentence, the model unchanged")
        with fault.refuses(file.replace(".", r"\."), ValueError):
            LOADERS[reader][1](good / file)

    @pytest.mark.parametrize("change", CONFIGS)
    @pytest.mark.parametrize("kind", ["model.safetensors", "run.pt", "course.safetensors"])
    def test_configuration_that_lies(self, fault, good, tmp_path, kind, change):
        from safetensors.torch import save_file

        from helpers.files import read_tensors

        fault.tries(f"a {kind} whose configuration says {change}", "refused in a sentence, at once")
        path, read = tmp_path / "here" / kind, load_course_model if "course" in kind else load_saved_gpt
        path.parent.mkdir()
        if kind == "run.pt":
            state = torch.load(good / kind, weights_only=True)
            state["config"] |= CONFIGS[change]
            torch.save(state, path)
        else:
            tensors, metadata = read_tensors(good / kind)
            config = {**json.loads(metadata["config"]), **CONFIGS[change]}
            save_file(tensors, path, {"config": json.dumps(config)})
        with fault.refuses("here", ValueError):
            read(path)

    @pytest.mark.parametrize("change", SETTINGS)
    def test_gpt2_configuration_that_lies(self, fault, good, tmp_path, change):
        fault.tries(f"read_gpt2: a config.json that says {change}", "refused in a sentence, at once")
        shutil.copytree(good / "gpt2", tmp_path / "here")
        path = tmp_path / "here" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | SETTINGS[change]))
        with fault.refuses("config", ValueError):
            read_gpt2(tmp_path / "here")

    TABLES = cases(
        [
            ("a table without the column Label", "Text\nhello\n", "Label"),
            ("a label that is a word", "Label,Text\nspam,hello\n", "row 0 .*label"),
            ("a label of 1e300", "Label,Text\n1e300,hello\n", "row 0 .*label"),
            ("an empty text", "Label,Text\n0,hello\n1,\n", "row 1 .*empty"),
            ("a quote that is never closed", 'Label,Text\n0,"hello\n', "messages.csv"),
            ("too many columns in a row", "Label,Text\n0,hello\n0,one,two,three\n", "messages.csv"),
            ("only a header", "Label,Text\n", "rows"),
            ("UTF-16", "Label,Text\n0,hello\n".encode("utf-16"), "UTF-8"),
            ("the same column twice", "Label,Label,Text\n0,5,hello\n", "messages.csv"),
        ]
    )

    @pytest.mark.parametrize(("tried", "content", "names"), TABLES)
    def test_tables(self, fault, tmp_path, tried, content, names):
        path = tmp_path / "messages.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if "twice" in tried:  # pandas renames the second
            fault.tries(f"SpamDataset: {tried}", "the first counts")
            data = SpamDataset(path, Letters())
            assert data[0][1] == 0
            fault.happened("label 0")
            return
        fault.tries(f"SpamDataset: {tried}", "refused, with the place")
        with fault.refuses(names, ValueError):
            SpamDataset(path, Letters())


# Files that are written


def judged(path, answer):
    """Scores of a judge that is not asked over the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "query_model", lambda *_, **__: "85")
        return generate_model_scores([{**ENTRIES[0], "response": answer}], "response", save_to=path)


TEXTS = {}  # folders of texts, by a number


@pytest.fixture(autouse=True, scope="module")
def two_corpora(tmp_path_factory):
    for n in (1, 2):
        TEXTS[n] = tmp_path_factory.mktemp("corpus") / "texts"
        write_text_whole(TEXTS[n] / "one.txt", f"{n} words " * 3000)


SAVERS = {  # what writes a file: a call with its path and a text or number that makes the content another
    "save_model": lambda path, n: save_model(lively_model(n), path),
    "save_checkpoint": lambda path, n: save_checkpoint(path, lively_model(n), adamw(lively_model(n))),
    "save_adapter": lambda path, n: save_adapter(with_lora(lively_model(n)), path),
    "save_course_model": lambda path, n: save_course_model(lively_model(n, tied=True), path),
    "save_bpe": lambda path, n: save_bpe(train_bpe("the hen in the pen " * 300 * n, 260 + n), path),
    "save_responses": lambda path, n: save_responses(ENTRIES, ["x" * 5000 * n], path),
    "generate_model_scores with save_to": lambda path, n: judged(path, f"answer {n}"),
    "open_corpus": lambda path, n: open_corpus(TEXTS[n], path),
}


class Full:
    """The disk takes no more: no file may grow beyond some bytes, for a with block."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        import resource

        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
        signal.signal(signal.SIGXFSZ, self.handler)


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def refused(*_, **__):
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("writer", SAVERS)
class TestWriting:
    """Files that cannot be written."""

    @pytest.fixture(name="path")
    def old_file(self, tmp_path, writer):
        path = tmp_path / "here" / "file"
        SAVERS[writer](path, 1)
        return path

    @pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit on the size of a file")
    @pytest.mark.parametrize("size", [0, 20])
    def test_disk_full(self, fault, writer, path, size):
        fault.tries(f"{writer}: the disk is full after {size} bytes", "refused in a sentence, the old file intact")
        before, files = path.read_bytes(), listing(path.parent)
        with fault.refuses("(?i)file|space|write|writing|written", OSError), Full(size):
            SAVERS[writer](path, 2)
        assert path.read_bytes() == before and listing(path.parent) == files

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_disk_full_at_the_end(self, fault, writer, path, call, monkeypatch):
        fault.tries(f"{writer}: no space left at {call}", "refused in a sentence, the old file intact")
        before, files = path.read_bytes(), listing(path.parent)
        with monkeypatch.context() as patch, fault.refuses("No space left", OSError):
            patch.setattr(os, call, no_space)
            SAVERS[writer](path, 2)
        assert path.read_bytes() == before and listing(path.parent) == files

    def test_read_only_folder(self, fault, writer, path, monkeypatch):
        fault.tries(f"{writer}: the folder may not be written to", "refused in a sentence, the old file intact")
        before, files = path.read_bytes(), listing(path.parent)
        with monkeypatch.context() as patch, fault.refuses("here cannot be written to", OSError):
            patch.setattr(os, "access", lambda place, *_: Path(place) != path.parent)  # root may write anywhere
            SAVERS[writer](path, 2)
        assert path.read_bytes() == before and listing(path.parent) == files

    def test_a_folder(self, fault, writer, tmp_path):
        fault.tries(f"{writer}: the path is a folder", "refused in a sentence, the folder intact")
        (tmp_path / "here" / "file" / "kept").mkdir(parents=True)
        with fault.refuses("here/file is a folder", OSError):
            SAVERS[writer](tmp_path / "here" / "file", 2)
        assert listing(tmp_path / "here") == ["file", "file/kept"]

    def test_a_parent_that_is_a_file(self, fault, writer, tmp_path):
        fault.tries(f"{writer}: a folder on the way is a file", "refused in a sentence, the file intact")
        (tmp_path / "here").write_text("kept")
        with fault.refuses("here", OSError):
            SAVERS[writer](tmp_path / "here" / "file", 2)
        assert (tmp_path / "here").read_text() == "kept"

    def test_missing_folders(self, fault, writer, tmp_path):
        fault.tries(f"{writer}: the folders do not exist", "made")
        path = tmp_path / "here" / "deep" / "file"
        SAVERS[writer](path, 1)
        fault.happened(f"{path.stat().st_size} bytes written")

    def test_home_folder(self, fault, writer, tmp_path, monkeypatch):
        fault.tries(f"{writer}: a path that begins with ~", "written in the home folder")
        (tmp_path / "work").mkdir()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path / "work")
        SAVERS[writer]("~/here/file", 1)
        assert (tmp_path / "home" / "here" / "file").is_file() and listing(tmp_path / "work") == []
        fault.happened("written there")

    def test_a_link(self, fault, writer, tmp_path, path):
        fault.tries(f"{writer}: the path is a link to a file elsewhere", "the file is written, the link kept")
        target = tmp_path / "elsewhere" / "target"
        target.parent.mkdir()
        path.rename(target)
        path.symlink_to(target)
        before = target.read_bytes()
        SAVERS[writer](path, 2)
        assert path.is_symlink() and target.read_bytes() != before
        fault.happened("so")

    def test_permissions_refused(self, fault, writer, path, monkeypatch):
        fault.tries(f"{writer}: the drive refuses chmod", "written all the same")
        before = path.read_bytes()
        monkeypatch.setattr(Path, "chmod", refused)
        SAVERS[writer](path, 2)
        assert path.read_bytes() != before
        fault.happened("written")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
    def test_killed(self, fault, writer, path):
        fault.tries(f"{writer}: kill -9 between writing and renaming", "the old file intact")
        before = path.read_bytes()
        child = os.fork()
        if child == 0:
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            SAVERS[writer](path, 2)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        assert path.read_bytes() == before
        fault.happened("intact")


READERS = {
    "load_bpe": ("bpe.json", load_bpe),
    "load_adapter": ("adapter.safetensors", lambda path: load_adapter(tiny_model(), path)),
    "load_course_model": ("course.safetensors", load_course_model),
    "SpamDataset": ("messages.csv", lambda path: SpamDataset(path, Letters())),
    "open_corpus": ("texts", open_corpus),
    "read_gpt2": ("gpt2", read_gpt2),
}


class TestHomeFolder:
    """What was written in the home folder is found there."""

    @pytest.mark.parametrize("reader", READERS)
    def test_read(self, fault, good, monkeypatch, reader):
        fault.tries(f"{reader}: a path that begins with ~", "read from the home folder")
        monkeypatch.setenv("HOME", str(good))
        monkeypatch.setenv("USERPROFILE", str(good))
        name, read = READERS[reader]
        read(f"~/{name}")
        fault.happened("read")

    def test_judged_answers_are_kept(self, fault, tmp_path, monkeypatch):
        fault.tries("generate_model_scores, twice, with save_to='~/scores.json'", "both answers are in the file")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
        for answer in ("one", "two"):
            judged("~/scores.json", answer)
        kept = json.loads((tmp_path / "scores.json").read_text())
        assert list(kept.values()) == ["85", "85"]
        fault.happened(f"{len(kept)} answers")


# Downloads

CONTENT = ("It was a bright cold day, and the clocks were striking thirteen.\n" * 300).encode()


def answering(status=200, body=CONTENT, headers=(), length=None, cut=None, pause=0.0):
    """What a server answers; `cut` bytes are sent and the connection closed, in pieces with pauses between them."""

    def answer(handler):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        sent = body if cut is None else body[:cut]
        for start in range(0, len(sent), 4000):
            time.sleep(pause)
            handler.wfile.write(sent[start : start + 4000])
        handler.close_connection = True

    return answer


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


class TestDownloads:
    """Downloads that go wrong."""

    @pytest.fixture(name="serve")
    def servers(self, tmp_path, monkeypatch):
        monkeypatch.setenv("COURSE_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.delenv("COURSE_DATA_DIR", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(texts, "_RETRY_PAUSES", (0.0, 0.0))
        started = []

        def start(answer):
            started.append(StubServer(answer))
            return started[-1]

        yield start
        for server in started:
            server.close()

    def file(self, *urls, member=None):
        return texts.DataFile("a-text.txt", hashlib.sha256(CONTENT).hexdigest(), urls, member)

    LOGIN = b"<!DOCTYPE html>\n<html>Please log in to the network.</html>"
    REFUSED = cases(
        [
            ("cut off half-way", answering(cut=9000)),
            ("cut off before the first byte", answering(cut=0)),
            ("wrong bytes", answering(body=CONTENT.replace(b"bright", b"blight"))),
            ("an empty body", answering(body=b"")),
            ("one byte too many", answering(body=CONTENT + b"\n")),
            ("the login page of a network, as 200", answering(body=LOGIN)),
            ("404", answering(404, b"not here")),
            ("403", answering(403, b"no")),
            ("502", answering(502, b"")),
            ("redirected to a file of this machine", answering(302, b"", [("Location", "file:///etc/hostname")])),
            ("redirected to itself", answering(302, b"", [("Location", "/again")])),
            ("redirected to a port where nothing is", answering(302, b"", [("Location", "http://127.0.0.1:9/")])),
            ("compressed, but not really", answering(headers=[("Content-Encoding", "gzip")])),
        ]
    )

    @pytest.mark.parametrize(("tried", "answer"), REFUSED)
    def test_refused(self, fault, serve, tmp_path, tried, answer):
        fault.tries(f"download: {tried}", "refused in a sentence with the way out, nothing left in the cache")
        server = serve(answer)
        with fault.refuses("a-text.txt could not be downloaded.*COURSE_DATA_DIR", ConnectionError):
            texts.fetch(self.file(f"{server.url}/a-text.txt"))
        assert [name for name in listing(tmp_path) if name != "cache"] == []

    @pytest.mark.parametrize(("tried", "answer"), REFUSED[:6])
    def test_the_second_source(self, fault, serve, tmp_path, tried, answer):
        fault.tries(f"download: {tried}; a second source has the file", "taken from there")
        path = texts.fetch(self.file(*(f"{server.url}/a-text.txt" for server in (serve(answer), serve(answering())))))
        assert path.read_bytes() == CONTENT and listing(tmp_path) == ["cache", "cache/a-text.txt"]
        fault.happened("whole file")

    def test_slow(self, fault, serve):
        fault.tries("download: slow, in pieces", "waited for")
        assert texts.fetch(self.file(f"{serve(answering(pause=0.05)).url}/a")).read_bytes() == CONTENT
        fault.happened("whole file")

    def test_silent(self, fault, serve, monkeypatch):
        import requests

        get, limits = requests.get, []

        def impatient(*arguments, timeout=None, **options):
            limits.append(timeout)
            return get(*arguments, timeout=0.1, **options)

        fault.tries("download: a server that says nothing", "given up after a limited time")
        monkeypatch.setattr(requests, "get", impatient)
        with fault.refuses("timed out", ConnectionError):
            texts.fetch(self.file(f"{serve(lambda handler: time.sleep(0.5)).url}/a"))
        assert limits and all(0 < limit <= 60 for limit in limits)

    def test_redirected_to_the_file(self, fault, serve):
        fault.tries("download: redirected to where the right file is", "taken from there")
        there = serve(answering())
        here = serve(answering(302, b"", [("Location", f"{there.url}/moved")]))
        assert texts.fetch(self.file(f"{here.url}/a")).read_bytes() == CONTENT
        fault.happened("whole file")

    ARCHIVES = cases(
        [
            ("an archive with paths that lead outside", zipped({"../outside": b"x", "/outside": b"x"})),
            ("an archive that is cut off", zipped({"member": CONTENT})[:-30]),
            ("an archive with another file", zipped({"member": CONTENT[1:]})),
            ("an archive that is a text", CONTENT),
        ]
    )

    @pytest.mark.parametrize(("tried", "body"), ARCHIVES)
    def test_archives(self, fault, serve, tmp_path, tried, body):
        fault.tries(f"download: {tried}", "refused in a sentence, nothing unpacked")
        with fault.refuses("could not be downloaded", ConnectionError):
            texts.fetch(self.file(f"{serve(answering(body=body)).url}/a.zip", member="member"))
        assert [name for name in listing(tmp_path) if name != "cache"] == [] and not Path("/outside").exists()

    def test_cache_that_is_a_file(self, fault, serve, tmp_path):
        fault.tries("download: COURSE_CACHE_DIR is a file", "refused in a sentence, the file intact")
        (tmp_path / "cache").write_text("kept")
        with fault.refuses("cache", OSError):
            texts.fetch(self.file(f"{serve(answering()).url}/a"))
        assert (tmp_path / "cache").read_text() == "kept"

    @pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit on the size of a file")
    def test_disk_full(self, fault, serve, tmp_path):
        fault.tries("download: the disk is full", "refused in a sentence, nothing left in the cache")
        server = serve(answering())
        with fault.refuses("could not be downloaded", OSError), Full(5000):
            texts.fetch(self.file(f"{server.url}/a"))
        assert listing(tmp_path / "cache") == []

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")
    def test_two_processes(self, fault, serve, tmp_path):
        import pooch  # noqa: F401 (before the fork)
        import requests  # noqa: F401

        fault.tries("download: three processes with one cache at the same time", "each has the whole file")
        file, children = self.file(f"{serve(answering(pause=0.02)).url}/a"), []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = 0 if texts.fetch(file).read_bytes() == CONTENT else 2
                finally:
                    os._exit(status)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
        assert listing(tmp_path / "cache") == ["a-text.txt"]
        fault.happened("so, and one file in the cache")

    def test_wrong_file_in_the_data_folder(self, fault, tmp_path, monkeypatch):
        fault.tries("COURSE_DATA_DIR has the file with other content", "refused in a sentence")
        monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path))
        (tmp_path / "a-text.txt").write_bytes(CONTENT[1:])
        with fault.refuses("a-text.txt is not the file the course expects", ValueError):
            texts.fetch(self.file("http://127.0.0.1:9/"))

    def test_missing_data_folder(self, fault, tmp_path, monkeypatch):
        fault.tries("COURSE_DATA_DIR is no folder", "refused in a sentence")
        monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "nothing"))
        for find in (lambda: texts.fetch(self.file("http://127.0.0.1:9/")), lambda: find_gpt2("124M")):
            with fault.refuses("COURSE_DATA_DIR=.*nothing' is not a folder", ValueError):
                find()


# Judges


def line(content, done=False):
    return json.dumps({"message": {"content": content}, "done": done}).encode() + b"\n"


def choices(value):
    return json.dumps({"choices": value}).encode()


SECRET = "sk-course-0123456789"


class TestJudges:
    """Servers of a judge that misbehave."""

    @pytest.fixture(name="serve")
    def servers(self, monkeypatch):
        monkeypatch.setattr(model_client, "_RETRY_PAUSES", (0.0, 0.0))
        started = []

        def start(answer):
            started.append(StubServer(answer))
            return started[-1]

        yield start
        for server in started:
            server.close()

    JSON, HTML, LINES = ([("Content-Type", kind)] for kind in ("application/json", "text/html", "application/x-ndjson"))
    OLLAMA, OPENAI = "/api/chat", "/v1/chat/completions"
    ROWS = cases(
        [
            ("closes at once", OLLAMA, lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "broke off"),
            ("closes in mid-answer", OLLAMA, answering(body=line("8"), headers=LINES, length=5000), "broke off"),
            ("ends without an end", OLLAMA, answering(body=line("8"), headers=LINES), "ended too early"),
            ("sends random bytes", OLLAMA, answering(body=np.random.default_rng(0).bytes(9000)), "ended too early"),
            ("sends a line of 2 MB", OLLAMA, answering(body=b"{" + b"x" * 2_000_000, headers=LINES), "protocol"),
            ("sends a document of 2 MB", OPENAI, answering(body=b"x" * 2_000_000, headers=JSON), "broke off"),
            ("sends brackets, 100,000 deep", OPENAI, answering(body=b"[" * 100_000, headers=JSON), "broke off"),
            ("sends an object, 100,000 deep", OLLAMA, answering(body=b'{"a":' * 100_000, headers=LINES), "broke off"),
            ("sends a page", OPENAI, answering(body=b"<html>\n<h1>It works</h1>\n</html>", headers=HTML), "broke off"),
            ("sends a page, with status 500", OPENAI, answering(500, b"<h1>no</h1>\n" * 900, HTML), "fails .500"),
            (
                "sends bytes that are no UTF-8",
                OLLAMA,
                answering(body=b'{"message": "\xff\xfe"}\n', headers=LINES),
                "broke",
            ),
            ("sends JSON that is a number", OPENAI, answering(body=b"85", headers=JSON), "broke off"),
            ("sends JSON that is null", OLLAMA, answering(body=b"null", headers=JSON), "broke off"),
            ("sends a list", OPENAI, answering(body=b"[]", headers=JSON), "broke off"),
            ("sends choices that are a number", OPENAI, answering(body=choices(85), headers=JSON), "broke off"),
            ("sends a choice that is null", OPENAI, answering(body=choices([None]), headers=JSON), "broke off"),
            ("sends a content that is a number", OLLAMA, answering(body=line(85, True), headers=JSON), "broke off"),
            ("sends parts that are numbers", OLLAMA, answering(body=line([85], True), headers=JSON), "broke off"),
            (
                "sends parts of a wrong type",
                OLLAMA,
                answering(body=line([{"type": "text"}], True), headers=JSON),
                "broke",
            ),
            ("sends a message that is a list", OLLAMA, answering(body=b'{"message": [1], "done": true}'), "broke off"),
            (
                "sends an error that is a list",
                OLLAMA,
                answering(body=b'{"error": [1, 2]}\n', headers=LINES),
                "broke off",
            ),
            ("redirects to another machine", OLLAMA, answering(302, b"", [("Location", "http://127.0.0.1:9/x")]), ""),
            ("redirects to a file", OLLAMA, answering(302, b"", [("Location", "file:///etc/hostname")]), ""),
            ("redirects to itself", OPENAI, answering(307, b"", [("Location", "/v1/chat/completions")]), ""),
            ("answers 204", OLLAMA, answering(204, b""), "ended too early"),
            ("answers 200 with nothing", OPENAI, answering(body=b"", headers=JSON), "broke off"),
            ("answers 401 with the key", OPENAI, answering(401, f"wrong key: Bearer {SECRET}".encode()), "401"),
            ("answers 500 with the key", OPENAI, answering(500, f"key {SECRET} failed".encode()), "500"),
            ("answers 400 with many lines", OPENAI, answering(400, b"one\ntwo\n" * 500), "400"),
            ("answers 404", OLLAMA, answering(404, b"404 page not found"), "no such address"),
            ("answers 429", OPENAI, answering(429, b'{"error": {"message": "slow down"}}'), "slow down"),
            (
                "breaks its chunks",
                OLLAMA,
                answering(body=b"zz\r\n", headers=[("Transfer-Encoding", "chunked")]),
                "broke",
            ),
            ("is not HTTP", OLLAMA, lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n"), "broke off"),
            ("echoes the key in its error", OLLAMA, answering(body=f'{{"error": "{SECRET}"}}\n'.encode()), "broke off"),
        ]
    )

    @pytest.mark.parametrize(("tried", "path", "answer", "names"), ROWS)
    def test_server(self, fault, serve, tried, path, answer, names):
        fault.tries(f"query_model: the server {tried}", "refused in a sentence without the key")
        with fault.refuses(names, (ValueError, OSError), SECRET):
            query_model("p", "m", serve(answer).url + path, timeout=2, api_key=SECRET)

    def test_redirected_with_the_key(self, fault, serve):
        fault.tries("query_model: redirected to another server", "refused, the key does not go there")
        other = serve(answering(body=line("85", True), headers=self.JSON))
        here = serve(answering(302, b"", [("Location", f"{other.url}/x")]))
        with fault.refuses("", (ValueError, OSError), SECRET):
            query_model("p", "m", here.url + self.OLLAMA, timeout=2, api_key=SECRET)
        assert other.received == []

    @pytest.mark.parametrize("sent", ["nothing", "half a line"])
    def test_hangs(self, fault, serve, sent):
        def answer(handler):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b"" if sent == "nothing" else b'{"message": ')
            handler.wfile.flush()
            time.sleep(0.6)

        fault.tries(f"query_model: the server sends {sent}, and then is silent", "given up after the timeout")
        with fault.refuses("silent for 0.1 seconds", TimeoutError):
            query_model("p", "m", serve(answer).url + self.OLLAMA, timeout=0.1)

    def test_not_running(self, fault):
        fault.tries("query_model: no server is running", "refused in a sentence that says how to start it")
        with fault.refuses("No server is running at .*start it", ConnectionError, SECRET):
            query_model("p", "m", NOWHERE, api_key=SECRET + "\n")

    ADDRESSES = ("", "localhost", "ftp://localhost/api/chat", "http://localhost:x/api/chat", "http:///api/chat",
                 "http://[::1/api/chat", "file:///etc/hostname/api/chat", "http://localhost:99999/api/chat",
                 "http://a b/api/chat", "http://localhost:9/api/chat\r\nX: y")  # fmt: skip

    @pytest.mark.parametrize("url", ADDRESSES)
    def test_addresses(self, fault, url):
        fault.tries(f"query_model: url={url!r}", "refused in a sentence")
        with fault.refuses("^url=.* must be http", ValueError, SECRET):
            query_model("p", "m", url, timeout=1, api_key=SECRET)

    @pytest.mark.parametrize("key", ["two words sk-1", "line\nend", "ключ", "x\r\nHost: evil"])
    def test_keys(self, fault, key):
        fault.tries(f"query_model: api_key={key!r}", "refused in a sentence that does not show it")
        with fault.refuses("api_key", ValueError, key):
            query_model("p", "m", NOWHERE, api_key=key)

    def test_answers_that_are_kept(self, fault, serve, tmp_path, capsys):
        remaining = [answering(body=line("85", True), headers=self.JSON), answering(500, b"no memory")]
        server = serve(lambda handler: (remaining.pop(0) if len(remaining) > 1 else remaining[0])(handler))
        fault.tries("generate_model_scores: the server fails after the first answer", "that one is returned and kept")
        entries = [{**ENTRIES[0], "response": text} for text in ("one", "two")]
        got = generate_model_scores(entries, "response", url=server.url + self.OLLAMA, save_to=tmp_path / "scores.json")
        assert got == [85] and list(json.loads((tmp_path / "scores.json").read_text()).values()) == ["85"]
        fault.happened(f"{got}; {capsys.readouterr().out.splitlines()[0]}".replace(server.url, "SERVER"))


# The chat's page

SCRIPT = "<script>alert(1)</script>"
ASKED = {"text": "", "message": "Hello", "temperature": 0.0, "top_p": 0.8}


@pytest.fixture(name="server", scope="module")
def running_server():
    server = chat_page.ChatServer(Chat(small_model(context_length=64), SCRIPT), port=0)
    server.errors = []
    server.handle_error = lambda *_: server.errors.append("a traceback")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class TestChatPage:
    """Requests to the chat's page."""

    @pytest.fixture(autouse=True)
    def no_errors_yet(self, server):
        server.errors.clear()

    def ask(self, server, method="POST", path="/reply", body=ASKED, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, sent, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer, text

    def check(self, fault, server, answer, text, status):
        fault.happened(f"{answer.status}: {text[:200]}")
        assert answer.status == status and server.errors == []
        kind = answer.headers["Content-Type"]
        assert kind.startswith("text/plain") or (SCRIPT not in text and kind.startswith("text/html"))
        assert status >= 500 or len(text) < 300 or status == 200

    NUMBER = "9" * 400
    BODIES = cases(
        [
            ("no JSON", b"no json", 400),
            ("nothing", b"", 400),
            ("bytes that are no UTF-8", b'{"text": "\xff"}', 400),
            ("brackets, 100,000 deep", b"[" * 100_000, 400),
            ("a list", b"[]", 400),
            ("null", b"null", 400),
            ("a field missing", {"text": ""}, 400),
            ("a text that is a list", {**ASKED, "text": ["a"]}, 400),
            ("a message that is a number", {**ASKED, "message": 5}, 400),
            ("an empty message", {**ASKED, "message": " \n"}, 400),
            ("a message longer than the context", {**ASKED, "message": "word " * 500}, 400),
            ("a temperature that is NaN", {**ASKED, "temperature": math.nan}, 400),
            ("a top-p that is NaN", {**ASKED, "top_p": math.nan}, 400),
            ("a temperature of -1", {**ASKED, "temperature": -1}, 400),
            ("a temperature of -Infinity", {**ASKED, "temperature": -math.inf}, 400),
            ("a temperature of 1e-40", {**ASKED, "temperature": 1e-40}, 400),
            ("a temperature with 400 digits", json.dumps(ASKED).replace("0.0", NUMBER).encode(), 400),
            ("a temperature with 5,000 digits", json.dumps(ASKED).replace("0.0", "9" * 5000).encode(), 400),
            ("a top-p of 0", {**ASKED, "top_p": 0}, 400),
            ("a top-p of 2", {**ASKED, "top_p": 2}, 400),
            ("half a character (a lone surrogate)", b'{"text":"","message":"\\ud800","temperature":0,"top_p":1}', 200),
            ("a temperature of Infinity", {**ASKED, "temperature": math.inf}, 400),
            ("a script", {**ASKED, "message": SCRIPT}, 200),
            ("zeros in the text", {**ASKED, "message": "a\0b"}, 200),
        ]
    )

    @pytest.mark.parametrize(("tried", "body", "status"), BODIES)
    def test_bodies(self, fault, server, tried, body, status):
        expected = "refused in a sentence" if status == 400 else "a reply as plain text"
        fault.tries(f"POST /reply with {tried}", expected)
        answer, text = self.ask(server, body=body)
        self.check(fault, server, answer, text, status)
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert status == 200 or (text and "\n" not in text)

    REQUESTS = cases(
        [
            ("GET /reply", {"method": "GET", "body": None}, 404),
            ("GET /../../etc/passwd", {"method": "GET", "path": "/../../etc/passwd", "body": None}, 404),
            (f"GET /{SCRIPT}", {"method": "GET", "path": f"/{SCRIPT}", "body": None}, 404),
            ("POST /", {"path": "/"}, 400),
            ("PUT /reply", {"method": "PUT"}, 501),
            ("DELETE /", {"method": "DELETE", "body": None}, 501),
            ("OPTIONS /reply", {"method": "OPTIONS", "body": None}, 501),
            ("the method <b>", {"method": "<b>", "body": None}, 501),
            ("a foreign Host", {"Host": "evil.example"}, 403),
            ("a foreign Host that begins as ours", {"Host": "127.0.0.1.evil.example"}, 403),
            ("a foreign Origin", {"Origin": "http://evil.example"}, 403),
            ("the Origin null", {"Origin": "null"}, 403),
            ("the page with a foreign Host", {"method": "GET", "path": "/", "body": None, "Host": "evil.example"}, 403),
            ("a body that is said to have 10**12 bytes", {"Content_Length": str(10**12)}, 400),
            ("a length of -1", {"Content_Length": "-1"}, 400),
            ("a length that is a word", {"Content_Length": "many"}, 400),
            ("a length of ²", {"Content_Length": "\xb2"}, 400),
        ]
    )

    @pytest.mark.parametrize(("tried", "options", "status"), REQUESTS)
    def test_requests(self, fault, server, tried, options, status):
        fault.tries(f"the chat's page: {tried}", f"refused with {status}")
        answer, text = self.ask(server, **options)
        self.check(fault, server, answer, text, status)

    def test_the_name_is_escaped(self, fault, server):
        fault.tries("GET / of a model whose name is a script", "shown as text")
        answer, text = self.ask(server, "GET", "/", None)
        assert answer.status == 200 and SCRIPT not in text and "&lt;script&gt;alert(1)" in text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        fault.happened("&lt;script&gt;, and a policy that loads nothing")

    RAW = cases(
        [
            ("no length", b"POST /reply HTTP/1.1\r\nHost: HOST\r\n\r\n", b" 400 "),
            ("no Host", b"GET / HTTP/1.1\r\n\r\n", b" 403 "),
            ("a body in chunks", b"POST /reply HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n", b" 400 "),
            ("a first line of 100 KB", b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
            ("1,000 headers", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n", b" 431 "),
            ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"Bad request"),
            ("less than it says", b"POST /reply HTTP/1.1\r\nHost: HOST\r\nContent-Length: 500\r\n\r\n{", b" 400 "),
            ("half a request line", b"GET / HT", b""),
        ]
    )

    @pytest.mark.parametrize(("tried", "sent", "status"), RAW)
    def test_raw(self, fault, server, monkeypatch, tried, sent, status):
        fault.tries(f"the chat's page is sent {tried}", "refused, or the connection ended; the server goes on")
        monkeypatch.setattr(chat_page.Handler, "timeout", 0.2)
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
            connection.sendall(sent.replace(b"HOST", f"127.0.0.1:{server.server_port}".encode()))
            got = b""
            try:
                while piece := connection.recv(4096):
                    got += piece
            except ConnectionResetError:
                pass
        first = got.splitlines()[0].decode() if got else ""
        fault.happened(first or "the connection was ended")
        assert status in got and server.errors == []
        assert self.ask(server, "GET", "/", None)[0].status == 200

    def test_a_reader_who_leaves(self, fault, server):
        fault.tries("the reader closes the connection before the reply", "the server goes on")
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
            connection.request("POST", "/reply", json.dumps(ASKED))
            connection.close()
        assert self.ask(server)[0].status == 200 and server.errors == []
        fault.happened("the next reply comes")


# Arguments


def train(**changes):
    model = changes.pop("model", None) or tiny_model()
    options = {"train_loader": loader(), "optimizer": adamw(model), "device": CPU, "num_epochs": 1, **changes}
    return list(training_steps(model, **options))


def write(idx=((1, 2),), max_new_tokens=2, context_size=16, **options):
    return generate(lively_model(), torch.tensor(idx), max_new_tokens, context_size, **options)


def labelled(label):
    return calc_loss_batch_classes(torch.zeros(2, 4, dtype=torch.long), torch.tensor([0, label]), tiny_model(), CPU)


TWO = torch.tensor([[1.0, 2.0]])
PAIR = {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"}
FRAME = pd.DataFrame({"Label": ["ham", "spam"], "Text": ["a", "b"]})
LOGITS = torch.tensor([[0.1, 0.2, 0.3]])
ARGUMENTS = [
    ("gpt_config('13B')", lambda: gpt_config("13B"), "size='13B'"),
    ("gpt_config(emb=3)", lambda: gpt_config(emb=3), "'emb'"),
    ("GPTModel({})", lambda: GPTModel({}), "vocab_size"),
    ("GPTModel, 24 dimensions and 5 heads", lambda: tiny_model(n_heads=5), "num_heads=5|n_heads=5|divi"),
    ("GPTModel, 0 heads", lambda: tiny_model(n_heads=0), "num_heads|n_heads"),
    ("GPTModel, -1 heads", lambda: tiny_model(n_heads=-1), "num_heads|n_heads"),
    ("GPTModel, drop_rate 2", lambda: tiny_model(drop_rate=2.0), "drop"),
    ("GPTModel, drop_rate NaN", lambda: tiny_model(drop_rate=math.nan), "drop"),
    ("GPTModel, emb_dim a text", lambda: tiny_model(emb_dim="24"), "emb_dim"),
    ("GPTModel, vocab_size -1", lambda: tiny_model(vocab_size=-1), "vocab_size"),
    ("GPTModel, context_length 0", lambda: tiny_model(context_length=0), "context_length"),
    ("GPTModel, n_layers 1.5", lambda: tiny_model(n_layers=1.5), "n_layers"),
    ("GPTModel, n_layers None", lambda: tiny_model(n_layers=None), "n_layers"),
    ("MultiHeadAttention(8, 8, 4, 0.0, num_heads=3)", lambda: MultiHeadAttention(8, 8, 4, 0.0, 3), "num_heads"),
    ("model(ids (T,))", lambda: tiny_model()(torch.tensor([1, 2])), r"shape \(B, T\)"),
    ("model of 17 tokens, context 16", lambda: tiny_model()(torch.zeros(1, 17, dtype=torch.long)), "17 tokens"),
    ("model(floats)", lambda: tiny_model()(torch.zeros(1, 3)), "in_idx"),
    ("model([[1, 2]]), a list", lambda: tiny_model()([[1, 2]]), "in_idx"),
    ("generate, max_new_tokens=-1", lambda: write(max_new_tokens=-1), "max_new_tokens=-1"),
    ("generate, max_new_tokens=None", lambda: write(max_new_tokens=None), "max_new_tokens"),
    ("generate, max_new_tokens=2.5", lambda: write(max_new_tokens=2.5), "max_new_tokens"),
    ("generate, context_size=0", lambda: write(context_size=0), "context_size=0"),
    ("generate, context_size=None", lambda: write(context_size=None), "context_size"),
    ("generate, context_size=99", lambda: write(context_size=99, max_new_tokens=50), "context_length of 16"),
    ("generate, no token", lambda: write(idx=[[]]), "no token"),
    ("generate, a token of 97", lambda: write(idx=[[97]]), "token id 97"),
    ("generate, a token of -1", lambda: write(idx=[[-1]]), "token id -1"),
    ("generate, fractions", lambda: write(idx=[[0.5]]), "numbers of type"),
    ("generate, three dimensions", lambda: write(idx=[[[1]]]), r"shape \(1, 1, 1\)"),
    ("generate, a text", lambda: generate(lively_model(), "Hello", 2, 16), "'Hello'"),
    ("generate, None", lambda: generate(lively_model(), None, 2, 16), "NoneType"),
    ("generate, temperature=-1", lambda: write(temperature=-1), "temperature=-1"),
    ("generate, temperature=NaN", lambda: write(temperature=math.nan), "temperature=nan"),
    ("generate, temperature=None", lambda: write(temperature=None), "temperature"),
    ("generate, temperature='hot'", lambda: write(temperature="hot"), "temperature"),
    ("generate, temperature=1e-40", lambda: write(temperature=1e-40), "temperature=1e-40"),
    ("generate, top_k=0", lambda: write(temperature=1.0, top_k=0), "top_k=0"),
    ("generate, top_k=98", lambda: write(temperature=1.0, top_k=98), "top_k=98"),
    ("generate, top_k=2.5", lambda: write(temperature=1.0, top_k=2.5), "top_k"),
    ("generate, top_p=0", lambda: write(temperature=1.0, top_p=0), "top_p=0"),
    ("generate, top_p=NaN", lambda: write(temperature=1.0, top_p=math.nan), "top_p=nan"),
    ("generate, seed='x'", lambda: write(temperature=1.0, seed="x"), "seed"),
    ("generate_text_simple(ids (T,))", lambda: generate_text_simple(lively_model(), torch.tensor([1]), 2, 16), "shape"),
    ("generate_batch([])", lambda: generate_batch(lively_model(), [], 2, 16), "no token"),
    ("generate_batch([[1], []])", lambda: generate_batch(lively_model(), [[1], []], 2, 16), "without tokens"),
    ("beam_search, beams=0", lambda: beam_search(lively_model(), [1], 2, 16, beams=0), "beams=0"),
    ("beam_search, two rows", lambda: beam_search(lively_model(), [[1], [2]], 2, 16), "2 rows"),
    ("choose_next, NaN", lambda: choose_next(LOGITS * math.nan), "NaN"),
    ("choose_next, logits (V,)", lambda: choose_next(LOGITS[0]), r"shape \(B, vocab_size\)"),
    ("choose_next, top_k=4 of 3", lambda: choose_next(LOGITS, 1.0, 4), "top_k=4"),
    ("text_to_token_ids(None)", lambda: text_to_token_ids(None, get_tokenizer()), "NoneType"),
    ("text_to_token_ids, tokenizer=None", lambda: text_to_token_ids("a", None), "tokenizer is None"),
    ("GPTDatasetV1, max_length=0", lambda: GPTDatasetV1("a b c", Letters(), 0, 1), "max_length=0"),
    ("GPTDatasetV1, stride=-1", lambda: GPTDatasetV1("a b c", Letters(), 1, -1), "stride=-1"),
    ("GPTDatasetV1, an empty text", lambda: GPTDatasetV1("", Letters(), 1, 1), "0 tokens"),
    ("create_dataloader_v1, batch_size=0", lambda: create_dataloader_v1("a b c " * 20, 0, 2, 1), "batch_size"),
    ("create_dataloader_v1, batch_size=99", lambda: create_dataloader_v1("a b c", 99, 2, 1), "batch_size=99"),
    ("training, num_epochs=-1", lambda: train(num_epochs=-1), "num_epochs=-1"),
    ("training, num_epochs=None", lambda: train(num_epochs=None), "num_epochs"),
    ("training, accumulate=0", lambda: train(accumulate=0), "accumulate=0"),
    ("training, an empty loader", lambda: train(train_loader=DataLoader(TensorDataset(*windows(1)), 2, drop_last=True)),
     "0 batches"),
    ("training, another model's optimizer", lambda: train(optimizer=adamw(tiny_model(2))), "optimizer has none"),
    ("training, all frozen", lambda: train(model=tiny_model().requires_grad_(False)), "frozen"),
    ("calc_loss_loader, num_batches=-1", lambda: calc_loss_loader(loader(), tiny_model(), CPU, -1), "num_batches=-1"),
    ("calc_loss_loader, num_batches=0", lambda: calc_loss_loader(loader(), tiny_model(), CPU, 0), "num_batches=0"),
    ("calc_accuracy_loader, num_batches=0", lambda: calc_accuracy_loader(loader(), tiny_model(), CPU, 0), "=0"),
    ("a label of -1", lambda: labelled(-1), "label -1"),
    ("a label of 97, 97 classes", lambda: labelled(97), "label 97"),
    ("all targets -100", lambda: calc_loss_batch_labels(torch.zeros(1, 2, dtype=torch.long),
                                                        torch.full((1, 2), -100), tiny_model(), CPU), "are -100"),
    ("custom_collate_fn([])", lambda: custom_collate_fn([]), "no entry"),
    ("custom_collate_fn([[]])", lambda: custom_collate_fn([[]]), "without tokens"),
    ("custom_collate_fn, allowed_max_length=0", lambda: custom_collate_fn([[1]], allowed_max_length=0), "=0"),
    ("masked_collate_fn, prompt length 0", lambda: masked_collate_fn([([1, 2], 0)]), "prompt length of 0"),
    ("masked_collate_fn, prompt length 3 of 2", lambda: masked_collate_fn([([1, 2], 3)]), "prompt length of 3"),
    ("masked_collate_fn([])", lambda: masked_collate_fn([]), "no entry"),
    ("preference_collate_fn([])", lambda: preference_collate_fn([]), "batch"),
    ("InstructionDataset(None)", lambda: InstructionDataset(None, Letters()), "NoneType"),
    ("InstructionDataset([])", lambda: InstructionDataset([], Letters()), "no entry"),
    ("InstructionDataset([3])", lambda: InstructionDataset([3], Letters()), r"data\[0\] is a int"),
    ("InstructionDataset, output None", lambda: InstructionDataset([{**ENTRIES[0], "output": None}], Letters()),
     r"data\[0\]\['output'\]"),
    ("check_entries, a JSON of an object", lambda: check_entries({"data": ENTRIES}), "data is a dict"),
    ("check_entries, a key missing", lambda: check_entries([{"instruction": "a"}]), "has no 'input'"),
    ("check_entries, a nested list", lambda: check_entries([ENTRIES]), r"data\[0\] is a list"),
    ("answer_entries, batch_size=0", lambda: answer_entries(lively_model(), ENTRIES, Letters(), 999, batch_size=0),
     "batch_size"),
    ("answer_entries, too long", lambda: answer_entries(lively_model(), ENTRIES, Letters(), 16), r"entries\[0\]"),
    ("split_entries, fractions of 2", lambda: split_entries(ENTRIES, 2.0), "train_frac=2.0"),
    ("split_entries, NaN", lambda: split_entries(ENTRIES, math.nan), "train_frac=nan"),
    ("random_split, NaN", lambda: random_split(FRAME, math.nan, 0.1), "train_frac=nan"),
    ("random_split, -1", lambda: random_split(FRAME, -1, 0.1), "train_frac=-1"),
    ("create_balanced_dataset, other labels", lambda: create_balanced_dataset(FRAME.replace("ham", "eggs")), "labels"),
    ("create_balanced_dataset, other columns", lambda: create_balanced_dataset(FRAME[["Text"]]), "columns"),
    ("classify_review('')", lambda: classify_review("", tiny_model(), Letters(), CPU), "empty"),
    ("classify_review(None)", lambda: classify_review(None, tiny_model(), Letters(), CPU), "text is a NoneType"),
    ("extract_response of another prompt", lambda: extract_response("b", "a"), "prompt 'a'"),
    ("save_responses, one too few", lambda: save_responses(ENTRIES, [], "unused"), "0 responses"),
    ("LoRALayer, rank=0", lambda: LoRALayer(4, 4, 0, 1), "rank=0"),
    ("LoRALayer, rank=1.5", lambda: LoRALayer(4, 4, 1.5, 1), "rank=1.5"),
    ("LoRALayer, alpha=NaN", lambda: LoRALayer(4, 4, 1, math.nan), "alpha=nan"),
    ("LoRALayer, alpha=None", lambda: LoRALayer(4, 4, 1, None), "alpha"),
    ("replace_linear_with_lora, no such target", lambda: replace_linear_with_lora(tiny_model(), 2, 4, "x"), "'x'"),
    ("replace_linear_with_lora, twice", lambda: replace_linear_with_lora(with_lora(tiny_model()), 2, 4), "already"),
    ("merge_lora without LoRA", lambda: merge_lora(tiny_model()), "no LoRA"),
    ("save_course_model, untied", lambda: save_course_model(tiny_model(), "unused"), "output layer of its own"),
    ("save_gpt2 with LoRA", lambda: save_gpt2(with_lora(tiny_model(tied=True)), "unused"), "merge"),
    ("save_checkpoint, an extra that is a function", lambda: save_checkpoint("unused", tiny_model(),
     adamw(tiny_model()), extra=print), "extra is a builtin"),
    ("load_weights_into_gpt, params={}", lambda: load_weights_into_gpt(tiny_model(), {}), "'wte'"),
    ("train_bpe('')", lambda: train_bpe("", 300), "text is empty"),
    ("train_bpe, vocab_size=10", lambda: train_bpe("abc", 10), "vocab_size=10"),
    ("BPETokenizer, a merge of tokens to come", lambda: BPETokenizer([(999, 1)]), "merge .999, 1."),
    ("BPETokenizer.decode([-1])", lambda: BPETokenizer([]).decode([-1]), "token id -1"),
    ("load_text('x')", lambda: load_text("x"), "name='x'"),
    ("load_instructions('x')", lambda: load_instructions("x"), "name='x'"),
    ("get_profile('x')", lambda: get_profile("x"), "'x' is not a profile"),
    ("get_device('gpu')", lambda: get_device("gpu"), "'gpu' is not available"),
    ("get_device('cuda:99')", lambda: get_device("cuda:99"), "'cuda:99' is not available"),
    ("get_device('cpu:x')", lambda: get_device("cpu:x"), "'cpu:x' is not available"),
    ("fetch_gpt2('1B')", lambda: fetch_gpt2("1B"), "model_size='1B'"),
    ("chat.load('nothing')", lambda: load("nothing"), "'nothing' is no file or folder"),
    ("chat.load('')", lambda: load(""), "no file or folder|config"),
    ("Chat, style='x'", lambda: Chat(small_model(), style="x"), "style='x'"),
    ("Chat, tokenizer=3", lambda: Chat(small_model(), tokenizer=3), "tokenizer is 3"),
    ("dpo_loss, beta=0", lambda: dpo_loss(*[TWO[0]] * 4, beta=0), "beta=0"),
    ("dpo_loss, beta=NaN", lambda: dpo_loss(*[TWO[0]] * 4, beta=math.nan), "beta=nan"),
    ("PreferenceDataset, equal answers", lambda: PreferenceDataset([{**PAIR, "rejected": "b"}], Letters()), "pairs.0."),
    ("PreferenceDataset, a key missing", lambda: PreferenceDataset(ENTRIES, Letters()), "has no 'chosen'"),
    ("make_preferences([])", lambda: make_preferences([]), "no entry"),
    ("generate_model_scores, another key", lambda: generate_model_scores(ENTRIES, "x", url=NOWHERE), "'x'"),
    ("generate_model_scores([])", lambda: generate_model_scores([], "response", url=NOWHERE), "no entry"),
    ("exact_match(None, 'a')", lambda: exact_match(None, "a"), "not NoneType"),
    ("token_f1('a', 3)", lambda: token_f1("a", 3), "not int"),
    ("select references, chapter='9'", lambda: select(load_references(), "9"), "chapter='9'"),
    ("ToyDataset, 2 examples and 1 label", lambda: ToyDataset(torch.zeros(2, 1), torch.zeros(1)), "2, one per row"),
    ("TokenWindows, too short", lambda: TokenWindows(np.zeros(3, dtype="<u2"), 5), "3 tokens"),
    ("open_corpus of no folder", lambda: open_corpus("nothing"), "nothing is not a folder"),
    ("query_model, num_ctx and an address of no kind", lambda: query_model("p", url="x"), "url='x'"),
]  # fmt: skip


class TestArguments:
    """Arguments that make no sense."""

    @pytest.mark.parametrize(("tried", "call", "names"), cases(ARGUMENTS))
    def test_refused(self, fault, tmp_path, monkeypatch, tried, call, names):
        fault.tries(tried, "refused in a sentence that names it")
        monkeypatch.chdir(tmp_path)
        with fault.refuses(names):
            call()
        assert listing(tmp_path) == []

    def test_loss_that_is_no_number(self, fault):
        fault.tries("training with weights that are NaN", "stopped at the first update")
        model = tiny_model()
        with torch.no_grad():
            model.final_norm.scale.fill_(math.nan)
        with fault.refuses("the loss became nan after 0 updates", FloatingPointError):
            train(model=model)

    @pytest.mark.parametrize("changes", [{"start_context": ""}, {"tokenizer": None}, {"start_context": 5}])
    def test_sample_that_cannot_be_printed(self, fault, changes):
        fault.tries(f"train_model_simple with {changes}", "refused before the first update")
        model = tiny_model()
        before = model.tok_emb.weight.clone()
        options = {"start_context": "a", "tokenizer": Letters(), **changes}
        with fault.refuses("start_context|tokenizer", ValueError):
            train_model_simple(model, loader(), loader(), adamw(model), CPU, 1, 1, 1, **options)
        assert torch.equal(before, model.tok_emb.weight)

    def test_model_that_writes_no_numbers(self, fault):
        fault.tries("generate_stream with weights that are NaN", "refused instead of token 0 for ever")
        model = lively_model()
        with torch.no_grad():
            model.final_norm.scale.fill_(math.nan)
        with fault.refuses("logits contain NaN", ValueError):
            list(generate_stream(model, [[1]], 2, 16))


def test_the_payload_is_harmful(tmp_path):
    """The tests of malicious files can fail."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "run")))
    assert (tmp_path / "run").is_dir()


class TestTable:
    """The table itself."""

    def report(self, outcome, when="call", **row):
        row = {"area": "An area", "tried": "", "expected": "", "happened": "", "test": "", **row}
        return type("Report", (), {"user_properties": [["fault", row]], "when": when, "outcome": outcome,
                                   "failed": outcome == "failed"})()  # fmt: skip

    def test_rows(self, fault):
        from .fault_table import table

        fault.tries("a table of two rows", "one as expected")
        written = table([self.report("passed", tried="a|b"), self.report("failed", tried="<b>", happened="x\ny"),
                         self.report("passed", "setup")])  # fmt: skip
        assert "2 rows, 1 as expected" in written
        assert (
            "| 1 | An area | a\\|b |  |  | passed |" in written
            and "| 2 | An area | &lt;b> |  | x y | failed |" in written
        )
        fault.happened("so")
