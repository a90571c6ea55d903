"""The texts of the course: embedded ones, and the book's, which are downloaded once and checked.

A file of the book is looked for, in this order, in the folder that COURSE_DATA_DIR names (a classroom without
internet), in this course's cache folder, and at its sources on the internet, the second one if the first fails.
Every copy is compared with its SHA-256 before it is used.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_ASSETS = Path(__file__).parent / "assets"
_REPOSITORY = Path(__file__).parent.parent
_RAW = "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/"
_MIRROR = "https://cdn.jsdelivr.net/gh/rasbt/LLMs-from-scratch@main/"
_RETRY_PAUSES = (0.0, 1.0, 4.0)  # seconds before each round of all sources


@dataclass(frozen=True)
class DataFile:
    """A file of the `book` profile: its name in every folder, its SHA-256, and where it can be had."""

    name: str
    sha256: str
    urls: tuple[str, ...]


BOOK_FILES = {
    "the-verdict": DataFile(
        name="the-verdict.txt",
        sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
        urls=(
            _RAW + "ch02/01_main-chapter-code/the-verdict.txt",
            _MIRROR + "ch02/01_main-chapter-code/the-verdict.txt",
        ),
    ),
}

EMBEDDED_TEXTS = {"story": _ASSETS / "story.txt"}


def load_text(name: str) -> str:
    """The text called `name`: "story" (embedded) or "the-verdict" (Edith Wharton, 1908; a download in `book`).

    Raises ValueError for an unknown name, and what `fetch` raises.
    """
    if name in EMBEDDED_TEXTS:
        return EMBEDDED_TEXTS[name].read_text(encoding="utf-8")
    if name not in BOOK_FILES:
        raise ValueError(f"name={name!r} is not a text; there are {', '.join([*EMBEDDED_TEXTS, *BOOK_FILES])}")
    return fetch(BOOK_FILES[name]).read_text(encoding="utf-8")


def cache_dir() -> Path:
    """Where downloads are kept: COURSE_CACHE_DIR if set, else the system's cache folder for this course."""
    import pooch

    return Path(os.environ.get("COURSE_CACHE_DIR") or pooch.os_cache("llm-course"))


def find(file: DataFile) -> Path | None:
    """The path of a file that is already here (COURSE_DATA_DIR, then the cache), or None. Never downloads.

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
    """The path of a file, downloaded to the cache if it is not here yet.

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
                path = pooch.retrieve(url, known_hash=f"sha256:{file.sha256}", fname=file.name, path=folder)
                return Path(path)
            except Exception as error:  # pooch raises requests' errors, OSError and ValueError alike
                failures[url] = f"{url}: {(str(error) or type(error).__name__).splitlines()[0]}"
    raise ConnectionError(
        f"{file.name} could not be downloaded. Put it into a folder and name that folder in COURSE_DATA_DIR, or use "
        f"the quick profile, which needs no download. Tried " + "; ".join(failures.values())
    )


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
