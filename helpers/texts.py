"""The texts and data sets of the course: embedded ones, and the book's, which are downloaded once and checked.

A file of the book is looked for, in this order, in the folder that COURSE_DATA_DIR names (a classroom without
internet), in this course's cache folder, and at its sources on the internet, the second one if the first fails.
Every copy is compared with its SHA-256 before it is used.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .files import first_line, write_whole

if TYPE_CHECKING:
    import pandas as pd

_ASSETS = Path(__file__).parent / "assets"
_REPOSITORY = Path(__file__).parent.parent
_RAW = "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/"
_MIRROR = "https://cdn.jsdelivr.net/gh/rasbt/LLMs-from-scratch@main/"
_LARGEST_MEMBER = 50_000_000  # bytes of a file in an archive; the message set has half a million
_RETRY_PAUSES = (0.0, 1.0, 4.0)  # seconds before each round of all sources


@dataclass(frozen=True)
class DataFile:
    """A file of the `book` profile: its name in every folder, its SHA-256, and where it can be downloaded.

    An address that ends in .zip is an archive that holds the file as `member`.
    """

    name: str
    sha256: str
    urls: tuple[str, ...]
    member: str | None = None


BOOK_FILES = {
    "the-verdict": DataFile(
        name="the-verdict.txt",
        sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
        urls=(
            _RAW + "ch02/01_main-chapter-code/the-verdict.txt",
            _MIRROR + "ch02/01_main-chapter-code/the-verdict.txt",
        ),
    ),
    "sms-spam-collection": DataFile(
        name="SMSSpamCollection.tsv",
        sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
        urls=(
            "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
            "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
        ),
        member="SMSSpamCollection",
    ),
    "instruction-data": DataFile(
        name="instruction-data.json",
        sha256="7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
        urls=(
            _RAW + "ch07/01_main-chapter-code/instruction-data.json",
            _MIRROR + "ch07/01_main-chapter-code/instruction-data.json",
        ),
    ),
}

EMBEDDED_TEXTS = {"story": _ASSETS / "story.txt"}
EMBEDDED_MESSAGES = {
    "messages": _ASSETS / "spam" / "messages.tsv",
    "paraphrases": _ASSETS / "spam" / "paraphrases.tsv",
}
EMBEDDED_INSTRUCTIONS = {"instructions": _ASSETS / "instructions" / "instructions.json"}
INSTRUCTION_KINDS = _ASSETS / "instructions" / "kinds.json"  # the kind of task of each entry, in the set's order

# The kinds of task of the embedded instructions, in groups of what they ask for.
GROUPS = {
    "change the grammar": (
        "plural",
        "past_tense",
        "tense",
        "negative",
        "question",
        "passive",
        "article",
        "agreement",
        "comparison",
        "grammar",
    ),
    "choose from a few": (
        "pick",
        "category",
        "odd_one_out",
        "opinion",
        "feelings",
        "compare",
        "reading",
        "yes_no",
    ),
    "copy and rearrange": (
        "repeat",
        "first_and_last",
        "swap",
        "reverse",
        "replace",
        "punctuation",
        "letters",
        "ordering",
    ),
    "say it otherwise": ("antonyms", "synonyms", "rhyme", "polite"),
    "know something": ("animals", "definitions", "colors", "calendar", "jobs", "uses", "completion"),
    "compute": ("arithmetic", "counting", "numbers"),
    "write freely": ("advice", "creative", "sentences", "lists", "similes"),
}


def load_text(name: str) -> str:
    """The text called `name`: "story" (embedded) or "the-verdict" (Edith Wharton, 1908; a download in `book`).

    Raises ValueError for an unknown name, and what `fetch` raises.
    """
    return _path(name, EMBEDDED_TEXTS, "the-verdict", "a text").read_text(encoding="utf-8")


def load_messages(name: str) -> pd.DataFrame:
    """Messages with the columns Label ("ham" or "spam") and Text: "messages" or "paraphrases" (both
    embedded), or "sms-spam-collection".

    The third is UCI's, a download in `book`; pandas' default quoting makes 5,572 messages of its 5,574 lines.
    Raises as `load_text`.
    """
    import pandas as pd

    path = _path(name, EMBEDDED_MESSAGES, "sms-spam-collection", "a set of messages")
    return pd.read_csv(path, sep="\t", header=None, names=["Label", "Text"])


def load_instructions(name: str) -> list[dict[str, str]]:
    """Entries with the keys instruction, input (may be "") and output: "instructions" (embedded) or "instruction-data".

    The second is the book's, a download in `book`. Raises as `load_text`.
    """
    path = _path(name, EMBEDDED_INSTRUCTIONS, "instruction-data", "a set of instructions")
    return json.loads(path.read_text(encoding="utf-8"))


def kind_of(entry: dict[str, str]) -> str:
    """The kind of task of an entry of the embedded instruction set, such as "antonyms" or "arithmetic".

    Found by the entry's instruction and input, wherever a split has put it. Raises ValueError for any other entry.
    """
    try:
        return _kinds()[entry["instruction"], entry["input"]]
    except KeyError:
        raise ValueError(f"entry={entry!r} is not an entry of the embedded instruction set") from None


@functools.cache
def _kinds() -> dict[tuple[str, str], str]:
    kinds = json.loads(INSTRUCTION_KINDS.read_text(encoding="utf-8"))
    entries = load_instructions("instructions")
    return {(entry["instruction"], entry["input"]): kind for entry, kind in zip(entries, kinds, strict=True)}


def _path(name: str, embedded: dict[str, Path], of_the_book: str, kind: str) -> Path:
    """The file called `name`, downloaded if it has to be."""
    if name in embedded:
        return embedded[name]
    if name != of_the_book:
        raise ValueError(f"name={name!r} is not {kind}; there are {', '.join([*embedded, of_the_book])}")
    return fetch(BOOK_FILES[name])


def cache_dir() -> Path:
    """Where downloads are kept: COURSE_CACHE_DIR if set, else the system's cache folder for this course."""
    import pooch

    return Path(os.environ.get("COURSE_CACHE_DIR") or pooch.os_cache("llm-course")).expanduser()


def data_folders() -> list[Path]:
    """The folders in which the book's files are looked for: the one that COURSE_DATA_DIR names, then the cache folder.

    Raises ValueError if COURSE_DATA_DIR names a folder that does not exist.
    """
    folder = _data_dir()
    return [cache_dir()] if folder is None else [folder, cache_dir()]


def find(file: DataFile) -> Path | None:
    """The path of a file that is on this machine (COURSE_DATA_DIR, then the cache), or None. Never downloads.

    Raises ValueError if COURSE_DATA_DIR names a folder that does not exist, or holds the file with wrong content.
    """
    folder = _data_dir()
    if folder is not None and (folder / file.name).exists():
        if not _matches(folder / file.name, file.sha256):
            raise ValueError(f"{folder / file.name} is not the file the course expects (its SHA-256 differs)")
        return folder / file.name
    cached = cache_dir() / file.name
    return cached if cached.exists() and _matches(cached, file.sha256) else None


def fetch(file: DataFile) -> Path:
    """The path of a file, downloaded to the cache if it is not on this machine yet.

    A download goes to a temporary file that is checked and then renamed, so a broken one leaves nothing behind. All
    sources are tried in turn, three times. Raises ConnectionError if none delivers the right file.
    """
    found = find(file)
    if found is not None:
        return found
    import pooch

    folder, failures = cache_dir(), {}
    pooch.get_logger().setLevel("WARNING")  # a notebook's output must not depend on what is cached
    for pause in _RETRY_PAUSES:
        time.sleep(pause)
        for url in file.urls:
            try:
                return _download(url, file, folder)
            except Exception as error:  # pooch raises requests' errors, OSError and ValueError alike
                failures[url] = f"{url}: {first_line(error, 80)}"
    raise ConnectionError(
        f"{file.name} could not be downloaded. Put it into a folder and name that in COURSE_DATA_DIR, or use the quick "
        f"profile, which needs no download. Tried " + "; ".join(failures.values())
    )


def _download(url: str, file: DataFile, folder: Path) -> Path:
    """Fetch a file from one source into a folder, whole or not at all."""
    import pooch

    if file.member is None or not url.endswith(".zip"):
        return Path(pooch.retrieve(url, known_hash=f"sha256:{file.sha256}", fname=file.name, path=folder))
    archive = Path(pooch.retrieve(url, known_hash=None, fname=f"{file.name}.zip", path=folder))
    try:
        with zipfile.ZipFile(archive) as opened:
            if opened.getinfo(file.member).file_size > _LARGEST_MEMBER:
                raise ValueError(f"its {file.member} is larger than any of the course's files")
            content = opened.read(file.member)  # into memory: no path in the archive is ever used
    finally:
        archive.unlink()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ValueError(f"its {file.member} has another SHA-256")
    write_whole(folder / file.name, lambda temporary: Path(temporary).write_bytes(content))
    return folder / file.name


def _data_dir() -> Path | None:
    """COURSE_DATA_DIR as a folder; a relative one is seen from the working directory, then from the repository."""
    value = os.environ.get("COURSE_DATA_DIR")
    if not value:
        return None
    for base in (Path.cwd(), _REPOSITORY):
        folder = (base / Path(value).expanduser()).resolve()
        if folder.is_dir():
            return folder
    raise ValueError(f"COURSE_DATA_DIR={value!r} is not a folder")


def _matches(path: Path, sha256: str) -> bool:
    import pooch

    return pooch.file_hash(str(path), alg="sha256") == sha256
