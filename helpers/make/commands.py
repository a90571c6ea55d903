"""What the command lines of this folder share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ..speed.memory import keep_freed_memory


def run(command: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Run a command; what can go wrong becomes a sentence and a non-zero status.

    With the option `keep_freed_memory`, the process keeps freed memory first.
    """
    if getattr(options, "keep_freed_memory", False):
        keep_freed_memory()  # each update frees and allocates the same large blocks
    try:
        command(options)
    except (ValueError, OSError, ArithmeticError, ImportError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from the last save")
