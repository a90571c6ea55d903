"""Weights rounded to few bits and kept in float32: what fewer bits cost, without what they save.

The scheme is the one of GGUF's formats of 4 and 8 bits, Q4_0 and Q8_0, but for a step that is symmetric around zero:
each group of weights in a row has one scale, and whole numbers around zero.
"""

from __future__ import annotations

import torch


def round_weights(weight: torch.Tensor, bits: int, group: int | None = None) -> torch.Tensor:
    """A matrix (rows, columns) rounded to whole multiples of a scale, with `bits` bits per multiple; float32.

    There is one scale per `group` neighbours in a row, or per row if `group` is None, chosen so that the largest of
    them in size is the largest multiple, 2^(bits - 1) - 1. Raises RuntimeError (from PyTorch) if `group` does not
    divide the number of columns.
    """
    most = 2 ** (bits - 1) - 1
    groups = weight.float().unflatten(1, (-1, group or weight.shape[1]))  # (rows, groups, group)
    scale = groups.abs().amax(dim=-1, keepdim=True) / most  # (rows, groups, 1)
    scale = scale.clamp(min=1e-12)  # a group of zeros stays zero
    return ((groups / scale).round() * scale).flatten(1)  # (rows, columns)
