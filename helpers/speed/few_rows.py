"""Matrix products of a few rows, as when a model writes one token at a time, on a CPU in float32."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..gpt import GELU, FeedForward, LayerNorm
from .fused import FusedGELU, FusedLayerNorm, gelu, layer_norm
from .parts import register_linear


def linear_few_rows(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """What `linear(x)` gives, faster when x (..., d_in) has up to 24 rows in float32 on a CPU, as when generating.

    PyTorch's matrix product is made for many rows: it first brings the weights into another order, and for one row some
    processors use one core alone. A batch of small products, each with 16 of the outputs, takes half the time; for up
    to 4 rows it is quicker with the weights on the left. Small matrices gain nothing.
    """
    rows, weight, bias = x.numel() // x.shape[-1], linear.weight, linear.bias
    plain = x.dtype != torch.float32 or x.device.type != "cpu"
    if plain or not (0 < rows <= 24 and len(weight) >= 16 and weight.numel() >= 2**18):
        return F.linear(x, weight, bias)
    blocks, flat = len(weight) // 16, x.reshape(rows, -1).contiguous()  # (rows, d_in); a transposed x would be slow
    small = weight[: blocks * 16].view(blocks, 16, -1)  # (blocks, 16, d_in)
    if rows <= 4:
        out = torch.bmm(small, flat.T.expand(blocks, -1, -1)).view(-1, rows).T  # (rows, blocks * 16)
    else:
        out = torch.bmm(flat.expand(blocks, -1, -1), small.transpose(1, 2)).transpose(0, 1).reshape(rows, -1)
    if blocks * 16 < len(weight):
        out = torch.cat((out, flat @ weight[blocks * 16 :].T), dim=1)  # (rows, d_out)
    out = out if bias is None else out + bias
    return out.reshape(*x.shape[:-1], len(weight))


class FewRowsLinear(nn.Linear):
    """`nn.Linear`, faster for up to 24 rows in float32 on a CPU (see `linear_few_rows`)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear_few_rows(self, x)


register_linear(FewRowsLinear)


def forward_few_rows(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What `module(x)` gives, fast for a few rows: for exactly the course's classes and `nn.Linear`, hooks aside.

    Any other module (LoRA, weights of fewer bits, a layer of your own) is called as it is.
    """
    kind = type(module)
    if kind is nn.Linear:
        return linear_few_rows(module, x)
    if kind in (LayerNorm, FusedLayerNorm):
        return layer_norm(module, x)
    if kind in (GELU, FusedGELU):
        return gelu(x)
    if kind is FeedForward:
        for layer in module.layers:
            x = forward_few_rows(layer, x)
        return x
    return module(x)
