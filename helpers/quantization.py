"""Weights in 8 bits, for generation on a CPU, where reading the weights is what takes the time.

Each linear layer keeps its matrix as int8 with one scale per output, and multiplies through PyTorch's weight-only
kernel; activations are bfloat16. A quarter of float32's bytes, and outputs that differ by about one percent.
Training, GPUs and 4 bits are not in this module.
"""

from __future__ import annotations

import torch
import torch.nn as nn

from .gpt import GPTModel


class Int8Linear(nn.Module):
    """A linear layer with int8 weights (d_out, d_in) and a scale per output. (..., d_in) to (..., d_out)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127  # (d_out,)
        self.register_buffer("weight", torch.round(weight / scale[:, None]).to(torch.int8))
        self.register_buffer("scale", scale.to(torch.bfloat16))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(torch.bfloat16), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])  # (N, d_in)
        out = torch.ops.aten._weight_int8pack_mm(flat, self.weight, self.scale)
        out = out if self.bias is None else out + self.bias
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
