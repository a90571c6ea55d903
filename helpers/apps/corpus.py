"""A folder of texts as one memory-mapped file of token ids, made once:

    python -m helpers.apps.corpus FOLDER [FILE]

All .txt files of the folder and the folders in it (UTF-8, in the order of their names) become GPT-2 tokens, 2 bytes
each, with the end-of-text token after every file. FILE is FOLDER.tokens unless named. Beside it lies FILE.json, which
says what the tokens were made from: when a text is added, removed or edited (size or time of change differ), the next
use makes the file again. Texts are read in pieces and ids are written as they come, so a corpus may be larger than
memory, and so may the file: the operating system reads from it what a window touches.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ..files import progress_bar, write_text_whole, write_whole
from ..tokenizers import END_OF_TEXT, get_tokenizer

_PIECE = 1 << 20  # characters that are tokenized at once
_END = END_OF_TEXT.to_bytes(2, "little")  # no text in UTF-8 ends with these two bytes


class TokenWindows(Dataset):
    """Windows of `length` tokens over a row of ids, one after the other; the target is shifted by one token.

    Item i is a pair of int64 tensors, each (length,). Raises ValueError if there are too few ids for one window.
    """

    def __init__(self, ids: np.ndarray, length: int):
        if len(ids) <= length:
            raise ValueError(f"the text has {len(ids)} tokens; a window of {length} needs at least one more")
        self.ids, self.length = ids, length

    def __len__(self) -> int:
        return (len(self.ids) - 1) // self.length

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= idx < len(self):
            raise IndexError(idx)
        start = idx * self.length
        window = torch.from_numpy(self.ids[start : start + self.length + 1].astype(np.int64))
        return window[:-1], window[1:]


def open_corpus(folder: Path | str, file: Path | str | None = None) -> np.ndarray:
    """The ids of a folder of texts, as a read-only memory map of uint16 (N,). Tokenizes what is new or has changed.

    Raises FileNotFoundError if there is no such folder, ValueError if it has no text, a text is not UTF-8, the file of
    tokens is damaged, or what is there is no such file, IsADirectoryError or PermissionError where none can be written.
    """
    folder = Path(folder).expanduser()
    place = folder.resolve()
    file = Path(file).expanduser() if file is not None else place.with_name(f"{place.name}.tokens")
    sources = _sources(folder)
    made = _made_from(file)
    if made is None or made["files"] != sources:
        _check_replaceable(file)
        made = _tokenize(folder, sources, file)
    ids = np.memmap(file, dtype="<u2", mode="r") if file.stat().st_size == 2 * made["tokens"] else None
    if ids is None or _checksum(ids) != made["crc32"]:
        raise ValueError(f"{file} is damaged; delete it, and it will be made again from {folder}")
    return ids


def fingerprint(ids: np.ndarray) -> str:
    """A short name for a row of ids, to tell whether a run goes on with the text that it began with."""
    return f"{len(ids)} tokens, crc32 {_checksum(ids):08x}"


def pieces(path: Path, size: int = _PIECE) -> Iterator[str]:
    """A text in pieces of about `size` characters, whose tokens together are those of the whole text.

    GPT-2's first step cuts a text into words, and always cuts before a blank that follows something else. Pieces end
    only there. Raises UnicodeDecodeError.
    """
    rest = ""
    with path.open(encoding="utf-8-sig") as text:
        while more := text.read(size):
            rest += more
            cuts = [match.start() + 1 for match in re.finditer(r"\S[ \n]", rest[-size:])]
            if cuts:
                cut = max(0, len(rest) - size) + cuts[-1]
                yield rest[:cut]
                rest = rest[cut:]
    if rest:
        yield rest


def _sources(folder: Path) -> list[list]:
    """Name, size and time of change of each text."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    texts = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*") if _is_text(path)}
    if not texts:
        raise ValueError(f"{folder} holds no .txt file")
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in sorted(texts.items())]


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and path.is_file()  # NAME.TXT too, on every system


def _made_from(file: Path) -> dict | None:
    """What a file of tokens was made from; None if there is none yet, or nothing that says so."""
    return _read_note(Path(f"{file}.json")) if file.is_file() else None


def _read_note(note: Path) -> dict | None:
    try:
        made = json.loads(note.read_text(encoding="utf-8"))
        return made if made.keys() == {"files", "tokens", "crc32"} else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _check_replaceable(file: Path) -> None:
    """Refuse what others have put at `file` and beside it. A file of tokens ends with the end-of-text token."""
    note = Path(f"{file}.json")
    if file.is_file():
        with file.open("rb") as content:
            content.seek(max(0, file.stat().st_size - len(_END)))
            foreign = None if content.read() == _END else file
    else:
        foreign = note if note.exists() and _read_note(note) is None else None
    if foreign is not None:
        raise ValueError(f"{foreign} exists and is not a file of tokens that was made here; name another, or delete it")


def _tokenize(folder: Path, sources: list[list], file: Path) -> dict:
    """Write the file of tokens and, after it, what it was made from."""
    tokenizer = get_tokenizer("gpt2")
    made = {"files": sources, "tokens": 0, "crc32": 0}

    def write(temporary: str) -> None:
        total = sum(size for _, size, _ in sources)
        with open(temporary, "wb") as out, progress_bar(total=total, unit="B", unit_scale=True) as bar:
            for name, size, _ in sources:
                try:
                    for piece in pieces(folder / name) if size else ():
                        _append(out, tokenizer.encode(piece, allowed_special={"<|endoftext|>"}), made)
                        bar.update(len(piece))
                except UnicodeDecodeError:
                    raise ValueError(f"{folder / name} is not UTF-8 text") from None
                if size:
                    _append(out, [END_OF_TEXT], made)
        if not made["tokens"]:
            raise ValueError(f"the .txt files of {folder} are all empty")

    write_whole(file, write)
    write_text_whole(f"{file}.json", json.dumps(made))
    return made


def _append(out, ids: list[int], made: dict) -> None:
    data = np.array(ids, dtype="<u2").tobytes()
    out.write(data)
    made["tokens"] += len(ids)
    made["crc32"] = zlib.crc32(data, made["crc32"])


def _checksum(ids: np.ndarray) -> int:
    crc32 = 0
    for start in range(0, len(ids), _PIECE):
        crc32 = zlib.crc32(np.ascontiguousarray(ids[start : start + _PIECE], dtype="<u2"), crc32)
    return crc32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of .txt files")
    parser.add_argument("file", type=Path, nargs="?", help="where the tokens go (FOLDER.tokens)")
    options = parser.parse_args()
    try:
        ids = open_corpus(options.folder, options.file)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{len(ids):,} tokens in {ids.filename}")


if __name__ == "__main__":
    main()
