"""Memory in large pages: what a block that comes fresh from the system costs.

A block of more than 32 MiB comes from the system each time it is allocated, and the system clears it page by page while
it is written to for the first time. In pages of 4 KiB that takes several times as long as the writing.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch

LARGE = 2**25  # bytes: smaller blocks are mostly memory that the C library has kept


def zeros_in_large_pages(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """What `torch.zeros` gives; on a CPU under Linux, a large tensor lies in pages of 2 MiB, which are quick to clear.

    Only this tensor is concerned ("transparent huge pages", asked for with madvise), and the system may give it small
    pages all the same.
    """
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type == "cpu" and size >= LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # zeros, once they are read
            memory.madvise(mmap.MADV_HUGEPAGE)
            return torch.frombuffer(memory, dtype=dtype).view(*shape)
        except OSError:  # a system without such pages, or without the memory
            pass
    return torch.zeros(shape, dtype=dtype, device=device)
