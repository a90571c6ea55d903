"""When the C library gives memory back to the system: a setting of the whole process, left alone unless asked for."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Let this process keep freed blocks of up to 2 GiB for its next allocations (Linux; elsewhere nothing happens).

    The C library hands large blocks back to the system when they are freed, and the system clears every page of them
    before it gives them out again. Training frees and allocates the same blocks in each step. The setting holds for
    everything that the process runs, so no function of `helpers` calls this; a program may, where its user asked for it
    (`helpers.make.course_model --keep-freed-memory`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # glibc has it, other C libraries may not
        trim_threshold, mmap_threshold = -1, -3  # as numbered in malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**31 - 1)
