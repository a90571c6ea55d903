"""The text that the course model is trained on: files of token ids, classes for them, and windows drawn from them.

A source is a kind of text. Training mixes sources by weight, so that a small one can be seen often; `SOURCES` says by
name to which source a file belongs. Held-out texts are never trained on: whole files, and the last twentieth of some
collections.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from ..files import check_writable, existing_file, write_whole
from ..tokenizers import END_OF_TEXT, get_tokenizer

SOURCES = {  # by folder and file name; the first pattern that fits decides
    "modern/*dialogue*": "dialogue",
    "modern/*chat*": "dialogue",
    "modern/*": "stories",
    "simple/tinystories*": "stories",
    "simple/african-storybook*": "stories",
    "simple/pratham-books*": "stories",
    "simple/*": "simple",
    "general/*": "general",
}
HELD_OUT = (
    "simple/peter-pan-j-m-barrie.txt",
    "simple/the-sea-fairies-l-frank-baum.txt",
    "general/the-thirty-nine-steps-john-buchan.txt",
    "general/the-country-of-the-pointed-firs-sarah-orne-jewett.txt",
)
COLLECTIONS = (  # many texts in one file: the last twentieth is held out
    "simple/tinystories-first-2-mb-of-the-training-split.txt",
    "simple/african-storybook-stories-english.txt",
    "simple/pratham-books-storyweaver-stories-english.txt",
    "modern/topical-chat-valid-test.txt",
)
VOCABULARY = 50257

Ids = np.ndarray  # token ids, uint16 (N,)


def prepare(corpus: Path, modern: Path, target: Path) -> None:
    """Tokenize the .txt files in `corpus`/simple, `corpus`/general and `modern` into one .npz file.

    Texts are UTF-8; in a file of many, a line `<|endoftext|>` separates them. Raises ValueError if there is no text to
    train on, or no held-out text, IsADirectoryError or PermissionError where `target` cannot be written.
    """
    check_writable(target)  # now, not after the work
    files = {f"{path.parent.name}/{path.name}": path for path in sorted(corpus.glob("*/*.txt"))}
    files |= {f"modern/{path.name}": path for path in sorted(modern.glob("*.txt"))}
    tokenizer, training, held_out = get_tokenizer("gpt2"), {}, {}
    for name, path in files.items():
        ids = tokenizer.encode(path.read_text(encoding="utf-8"), allowed_special={"<|endoftext|>"})
        ids = np.array([*ids, END_OF_TEXT], dtype=np.uint16)
        if name in HELD_OUT:
            held_out[name] = ids
            continue
        if name in COLLECTIONS:
            ids, held_out[name] = split_collection(ids, name)
        training.setdefault(source_of(name), []).append(ids)
    if not training or not held_out:
        missing = "text to train on" if not training else f"held-out text, such as {HELD_OUT[0]}"
        raise ValueError(f"{corpus}/simple, {corpus}/general and {modern} have no {missing}")
    arrays = {f"training/{source}": np.concatenate(parts) for source, parts in training.items()}
    arrays |= {f"held out/{name}": ids for name, ids in held_out.items()}

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:  # given a name, numpy would add .npz to it
            np.savez_compressed(file, **arrays)

    write_whole(target, write)
    for name, ids in arrays.items():
        print(f"{len(ids):>12,} tokens  {name}")


def source_of(name: str) -> str:
    """The source of a file, by its folder and name. Raises ValueError if none fits."""
    for pattern, source in SOURCES.items():
        if fnmatch(name, pattern):
            return source
    raise ValueError(f"{name} belongs to no source: its folder must be simple, general or modern")


def split_collection(ids: Ids, name: str) -> tuple[Ids, Ids]:
    """Training text and held-out text: cut at the last end of a text in the first 95 %."""
    ends = np.flatnonzero(ids[: int(0.95 * len(ids))] == END_OF_TEXT)
    if not len(ends):
        raise ValueError(f"{name} has no line <|endoftext|> in its first 95 %: its last twentieth cannot be held out")
    return ids[: ends[-1] + 1], ids[ends[-1] + 1 :]


def read_tokens(path: Path | str) -> tuple[dict[str, Ids], dict[str, Ids]]:
    """Training text by source, and held-out text by folder and file name, from a file that `prepare` wrote.

    Raises FileNotFoundError, or ValueError if it is another kind of file.
    """
    file = existing_file(path)
    texts: dict[str, dict[str, Ids]] = {"training": {}, "held out": {}}
    try:
        with np.load(file) as arrays:  # numpy refuses pickled content unless asked
            for key in arrays.files:
                kind, _, name = key.partition("/")
                texts[kind][name] = arrays[key]
    except Exception:  # numpy's, zipfile's and zlib's errors
        raise ValueError(f"{path} is not a file of tokens that `prepare` wrote, or it is damaged") from None
    return texts["training"], texts["held out"]


class Classes:
    """What a model tells apart while it is trained: class 0, all tokens that never occur, then each token that does.

    These come in the order of their frequency, for which each source counts alike. `of_token` (VOCABULARY,) is each
    token's class, `unseen` the number of tokens in class 0, `checksum` a number that tells one order from another.
    """

    def __init__(self, training: Mapping[str, Ids]):
        shares = sum(np.bincount(ids, minlength=VOCABULARY) / len(ids) for ids in training.values())
        seen = int((shares > 0).sum())
        self.of_token = np.zeros(VOCABULARY, dtype=np.int64)
        self.of_token[np.argsort(-shares, kind="stable")[:seen]] = np.arange(1, seen + 1)
        self.count, self.unseen, self.checksum = seen + 1, VOCABULARY - seen, zlib.crc32(self.of_token.tobytes())


class DrawnWindows:
    """Batches of inputs and targets, int64 (batch, context) each, one for each update number in `updates`.

    Each window is of a source drawn by its weight in `mix`, and begins at a random place of it. What an update gets
    depends on the seed and on its number, and on nothing that happened before. Raises ValueError for a source that
    does not exist or is shorter than a window.
    """

    def __init__(
        self, sources: Mapping[str, Ids], mix: Mapping[str, float], batch: int, context: int, seed: int, updates: range
    ):
        for name in mix:
            if name not in sources:
                raise ValueError(f"mix has {name!r}; the sources are {', '.join(sources)}")
            if len(sources[name]) <= context:
                raise ValueError(f"{name} has {len(sources[name])} tokens; a window needs {context + 1}")
        self.ids = torch.from_numpy(np.concatenate([sources[name] for name in mix]))
        self.lengths = np.array([len(sources[name]) for name in mix])
        self.weights = np.array(list(mix.values())) / sum(mix.values())
        self.batch, self.context, self.seed, self.updates = batch, context, seed, updates

    def __len__(self) -> int:
        return len(self.updates)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        begins = self.lengths.cumsum() - self.lengths
        for update in self.updates:
            random = np.random.default_rng((self.seed, update))
            source = random.choice(len(self.weights), size=self.batch, p=self.weights)
            starts = begins[source] + random.integers(self.lengths[source] - self.context)
            places = torch.from_numpy(starts[:, None] + np.arange(self.context + 1))
            ids = self.ids[places].long()  # (batch, context + 1)
            yield ids[:, :-1], ids[:, 1:]


def windows_in_order(ids: np.ndarray, context: int) -> torch.Tensor:
    """A text as int64 windows (n, context + 1), of which each begins with the last token of the one before."""
    count = max(0, len(ids) - 1) // context
    text = torch.from_numpy(ids[: count * context + 1].astype(np.int64))
    return text.unfold(0, context + 1, context) if count else text.new_empty(0, context + 1)
