"""How this process gives memory back to the system."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Let this process keep freed blocks of up to 2 GiB for its next allocations (Linux; elsewhere nothing happens).

    The C library hands large blocks back to the system when they are freed, and the system clears every page of them
    before it gives them out again. Training frees and allocates the same blocks in each step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # it is there in glibc
        trim_threshold, mmap_threshold = -1, -3  # as numbered in malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**31 - 1)
