"""Files: written whole or not at all, safetensors read, paths with "~", errors in one line, progress bars."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    import torch


def write_text_whole(path: Path | str, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_whole(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def write_whole(path: Path | str, write: Callable[[str], None]) -> None:
    """Call `write(temporary)`, then rename the temporary file to `path`: whoever reads `path` finds a whole file.

    A `path` that begins with "~" lies in the home folder; folders that do not exist are made; a file that is replaced
    keeps its permissions. Raises OSError, the file at `path` as it was, if it cannot be written.
    """
    target = check_writable(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")  # threads may write to one path at once
    try:
        temporary.touch()
        mode = (target if target.exists() else temporary).stat().st_mode  # a new file's is what the umask asks for
        write(str(temporary))
        with temporary.open("r+b") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # some network drives refuse chmod; the content matters more
            temporary.chmod(stat.S_IMODE(mode))  # safetensors would leave 0600
        os.replace(temporary, target)
    except (SafetensorError, RuntimeError) as error:  # how safetensors and torch say that they could not write
        raise OSError(f"{path} cannot be written; is the disk full? ({first_line(error)})") from None
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path | str) -> Path:
    """The file that writing to `path` would make: "~" is replaced, a link is followed, missing folders are made.

    To call before a long computation whose result goes there. Raises IsADirectoryError, PermissionError or another
    OSError, in a sentence, where no file can be written.
    """
    target = expand_home(path)
    target = Path(os.path.realpath(target)) if target.is_symlink() else target
    if target.is_symlink():
        raise OSError(f"{path} is a link that leads back to itself: the name of a file is expected")
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder: the name of a file is expected")
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is a device or a pipe: the name of a file is expected")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"{target.parent} cannot be written to: choose another folder")
    return target


def expand_home(path: Path | str) -> Path:
    """`path` with "~" replaced by the home folder; a name such as "~draft", where there is no such user, is a name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def existing_file(path: Path | str) -> Path:
    """`path` with "~" replaced by the home folder. Raises FileNotFoundError if there is no such file."""
    expanded = expand_home(path)
    if not expanded.is_file():
        raise FileNotFoundError(f"{path} does not exist" if not expanded.exists() else f"{path} is not a file")
    return expanded


def read_json(path: Path | str) -> Any:
    """What a JSON file in UTF-8 holds. Raises FileNotFoundError, or ValueError if it is not JSON."""
    try:
        return json.loads(existing_file(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file, or it is damaged ({first_line(error)})") from None


def read_tensors(path: Path | str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, by name, and its metadata. Raises what safetensors raises."""
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        return tensors, file.metadata() or {}


def first_line(error: BaseException, length: int = 120) -> str:
    """The first line of an error's message, cut after `length` characters; the error's type if it has no message.

    A line that ends in a colon says nothing yet: the next one is joined to it.

    >>> first_line(ValueError("Error(s) in loading: \\n\\tMissing key(s): 'scale'.\\n\\tUnexpected key(s): 'mask'."))
    "Error(s) in loading: Missing key(s): 'scale'."
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    message = lines.pop(0)
    while message.endswith(":") and lines:
        message += f" {lines.pop(0)}"
    return message[:length]


def progress_bar(iterable: Iterable | None = None, **options: Any):
    """tqdm's bar over an iterable, or one to update by hand; TQDM_DISABLE=1 hides it. `options` are tqdm's.

    With leave=False nothing is left of it at its end, also where that comes early: in a notebook, tqdm's own bar stays,
    in red, if it was not filled, and its place says "model not found" when the notebook is opened again.
    """
    from tqdm.auto import tqdm  # in a notebook this loads ipywidgets

    hidden = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")  # tqdm's notebook bar does not ask for it
    in_notebook = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
    if hidden or options.get("leave", True) or not in_notebook:
        return tqdm(iterable, disable=hidden, **options)

    class Bar(tqdm):
        def close(self) -> None:
            self.total = self.n
            super().close()
            if (place := self.__dict__.pop("place", None)) is not None:
                place.update({"text/plain": ""}, raw=True)

    from IPython.display import display

    bar = Bar(iterable, display=False, **options)
    bar.place = display(bar.container, display_id=True)
    return bar
