"""Weights in 8 bits, for generation on a CPU, where reading the weights is what takes the time.

Each linear layer keeps its matrix as int8 with one scale per output, and multiplies through PyTorch's weight-only
kernel; activations are bfloat16. A quarter of float32's bytes, and outputs that differ by about one percent.
Training, GPUs and 4 bits are not in this module.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from .gpt import GPTModel


def round_to_int8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix (rows, columns) as int8 and one float32 scale per row: their product is about the matrix."""
    weight = weight.detach().float()
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127  # (rows,)
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


class Int8Linear(nn.Module):
    """A linear layer with int8 weights (d_out, d_in) and a scale per output. (..., d_in) to (..., d_out)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        rounded, scale = round_to_int8(linear.weight)  # (d_out, d_in), (d_out,)
        self.padding = -rounded.shape[1] % 16  # the kernel reads 16 numbers at a time, past the end if there are fewer
        self.register_buffer("weight", F.pad(rounded, (0, self.padding)))  # (d_out, d_in, rounded up to 16)
        self.register_buffer("scale", scale.to(torch.bfloat16))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(torch.bfloat16), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (N, d_in)
        if self.padding:
            flat = F.pad(flat, (0, self.padding))
        if len(flat) <= 16:
            out = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale)  # (N, d_out)
        else:  # a prompt: for many rows bfloat16's product is faster (it holds every 8-bit number exactly)
            out = F.linear(flat, self.weight.to(torch.bfloat16)) * self.scale
        out = out if self.bias is None else out.add_(self.bias)
        return out.view(*x.shape[:-1], -1)


def quantize_int8(model: GPTModel) -> GPTModel:
    """Turn a model into one with int8 linear layers and everything else in bfloat16, in place; for generation only."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    for module in model.modules():
        if not isinstance(module, Int8Linear):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    return model.eval()
