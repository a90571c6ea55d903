"""What the command lines of this folder share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ..speed.memory import keep_freed_memory


def run(command: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Run a command; what can go wrong becomes a sentence and a non-zero status.

    With the option `keep_freed_memory`, the process keeps freed memory first. A command that saves as it goes says in
    `options.kept_in` where.
    """
    if getattr(options, "keep_freed_memory", False):
        keep_freed_memory()  # each update frees and allocates the same large blocks
    try:
        command(options)
    except (ValueError, OSError, ArithmeticError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        kept_in = getattr(options, "kept_in", None)
        again = f": the same command goes on from {kept_in}" if kept_in is not None and kept_in.exists() else ""
        sys.exit(f"interrupted{again}")


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
