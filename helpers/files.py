"""Files written whole or not at all, errors in one line, progress bars."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_text_whole(path: Path | str, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_whole(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write_whole(path: Path | str, write: Callable[[str], None]) -> None:
    """Call `write(temporary)`, then rename the temporary file to `path`: whoever reads `path` finds a whole file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask asks for; safetensors would leave 0600
        write(str(temporary))
        temporary.chmod(mode)
        with temporary.open("r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def progress_bar(iterable: Iterable | None = None, **options: Any):
    """tqdm's bar over an iterable, or one to update by hand; TQDM_DISABLE=1 hides it. `options` are tqdm's."""
    from tqdm.auto import tqdm  # in a notebook this loads ipywidgets

    hidden = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")  # tqdm's notebook bar does not ask for it
    return tqdm(iterable, disable=hidden, **options)
