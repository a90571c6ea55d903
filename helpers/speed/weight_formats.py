"""Weights in another form, for generation on a CPU: in 16 or 8 bits for one text, packed for several at once.

Reading the weights is what takes the time when a single token is computed, so fewer bits help. A matrix times a vector
is the sum of the matrix's columns, each weighted by one entry of the vector. So each linear layer keeps its matrix
column by column, in pieces, and sums the pieces with the kernels that PyTorch has for embedding tables of few bits.
They lie in memory in the order in which they are read, which is what makes it fast. In 8 bits, each piece has a scale
and an offset of its own, and only the weights are rounded: inputs, sums and all other parameters stay float32. In
bfloat16 the whole model is rounded.

For several rows the arithmetic counts as well, and with it the order in which the weights lie in memory. Packed
weights are the same numbers in the order in which oneDNN, the library behind PyTorch's products, works through them.

Training, GPUs and 4 bits are not in this module.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..gpt import GPTModel
from .few_rows import FewRowsLinear
from .parts import is_unchanged, register_linear


class OtherFormat(nn.Module):
    """What the layers here share: they save their weights in the usual form, and cannot load others."""

    bias: torch.Tensor | None

    def plain_weight(self) -> torch.Tensor:
        """The weights as `nn.Linear` has them, (d_out, d_in)."""
        raise NotImplementedError

    @property
    def weight(self) -> torch.Tensor:
        """What `plain_weight` gives, for code that was written for `nn.Linear`."""
        return self.plain_weight()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., d_in) to (..., d_out). Where x needs gradients, by the plain weights: the kernels here give none."""
        if torch.is_grad_enabled() and x.requires_grad:
            return F.linear(x, self.plain_weight(), self.bias)
        return self.multiply(x)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """The product without gradients, (..., d_in) to (..., d_out)."""
        raise NotImplementedError

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.plain_weight()

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors) -> None:
        errors.append(f"{prefix}weight is in another format here: load into a plain model, and convert that")


class ColumnLinear(OtherFormat):
    """A linear layer that keeps its matrix column by column. (..., d_in) to (..., d_out), in `dtype`."""

    dtype: torch.dtype
    piece: int  # numbers in a piece; a multiple of the 16 that a processor handles at once
    few: int  # rows up to which summing pieces is faster than a matrix product

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.d_out, self.d_in = linear.weight.shape
        self.width = width = min(self.piece, self.d_out)
        padded = F.pad(linear.weight.detach().to(self.dtype), (0, 0, 0, -self.d_out % width))
        self.blocks = len(padded) // width
        pieces = padded.view(self.blocks, width, self.d_in).transpose(1, 2).reshape(-1, width)  # (blocks * d_in, width)
        self.register_buffer("packed", self.pack(pieces), persistent=False)
        self.register_buffer("rows", torch.arange(len(pieces), dtype=torch.int32), persistent=False)
        starts = torch.arange(0, self.few * len(pieces), self.d_in, dtype=torch.int32)
        self.register_buffer("starts", starts, persistent=False)  # where each sum begins
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().to(self.dtype), False)

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """As in `OtherFormat`."""
        flat = x.reshape(1, -1, self.d_in)  # (1, N, d_in)
        count = flat.shape[1]
        if count <= self.few:
            rows = self.rows
            if count != 1:  # for one token of one text, each call counts
                rows = rows.view(-1, 1, self.d_in).expand(-1, count, -1).reshape(-1).contiguous()
            factors = flat.expand(self.blocks, -1, -1).reshape(-1)  # (blocks * N * d_in,), as rows
            factors = factors.contiguous()  # a single number would be expanded, which the kernel for 8 bits cannot read
            out = self.sum_pieces(rows, self.starts[: self.blocks * count], factors)
        else:
            out = flat @ self.unpack(self.packed).view(self.blocks, self.d_in, -1)
        if count != 1:
            out = out.view(self.blocks, count, self.width).transpose(0, 1)
        out = out.reshape(count, self.blocks * self.width)
        out = out if out.shape[1] == self.d_out else out[:, : self.d_out]  # the last piece may be longer
        out = out if self.bias is None else out + self.bias
        return out.view(*x.shape[:-1], self.d_out)

    def plain_weight(self) -> torch.Tensor:
        """As in `OtherFormat`."""
        columns = self.unpack(self.packed).view(self.blocks, self.d_in, -1)  # (blocks, d_in, width)
        return columns.transpose(1, 2).reshape(-1, self.d_in)[: self.d_out].clone()


class BFloat16Linear(ColumnLinear):
    """A linear layer in bfloat16, whose sums are rounded once at the end."""

    dtype, piece, few = torch.bfloat16, 128, 3
    pack = unpack = staticmethod(lambda pieces: pieces)

    def sum_pieces(self, rows: torch.Tensor, starts: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return torch.embedding_bag(self.packed, rows, starts, False, 0, False, factors)[0]  # 0: their sum


class Int8Linear(ColumnLinear):
    """A linear layer with weights in 8 bits, for inputs in float32; scale and offset are 8 more bytes of a piece."""

    dtype, piece, few = torch.float32, 384, 16

    @staticmethod
    def pack(pieces: torch.Tensor) -> torch.Tensor:
        return _quantized("embedding_bag_byte_prepack")(pieces)

    @staticmethod
    def unpack(packed: torch.Tensor) -> torch.Tensor:
        return _quantized("embedding_bag_byte_unpack")(packed)

    def sum_pieces(self, rows: torch.Tensor, starts: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        kernel = _quantized("embedding_bag_byte_rowwise_offsets")
        return kernel(self.packed, rows, starts, per_sample_weights=factors)


@cache
def _quantized(name: str) -> Callable[..., torch.Tensor]:
    """An operator of `torch.ops.quantized`, looked up when it is used: some builds of PyTorch come without them."""
    try:
        return getattr(torch.ops.quantized, name)
    except AttributeError:
        message = f"weights in 8 bits need torch.ops.quantized.{name}, which PyTorch {torch.__version__} does not have"
        raise NotImplementedError(message) from None


class PackedLinear(OtherFormat):
    """A linear layer whose weights lie in oneDNN's order. (..., d_in) to (..., d_out), both float32.

    Copies and pickles hold the weights in their usual order.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.packed = self._pack(linear.weight.detach())
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    @staticmethod
    def _pack(weight: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight, 8)  # rows that the order is chosen for

    def multiply(self, x: torch.Tensor) -> torch.Tensor:
        """As in `OtherFormat`."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    def plain_weight(self) -> torch.Tensor:
        """As in `OtherFormat`."""
        return self.packed.to_dense()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "packed": self.packed.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "packed": self._pack(state["packed"])})


for _kind in (BFloat16Linear, Int8Linear, PackedLinear):
    register_linear(_kind)


def _exchange(model: GPTModel, kind: type[nn.Module]) -> GPTModel:
    """Convert the layers that are exactly `nn.Linear`, or `FewRowsLinear`, and unchanged; others stay as they are."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in (nn.Linear, FewRowsLinear) and is_unchanged(child):
                setattr(module, name, kind(child))
    return model.eval()


def quantize_int8(model: GPTModel) -> GPTModel:
    """Turn a model's linear layers into `Int8Linear`, in place; for generation only, on a CPU and in float32.

    Subclasses of `nn.Linear` and layers with hooks stay as they are. The model saves its rounded weights in the usual
    form, which a plain model loads. Raises NotImplementedError where PyTorch comes without the operators for 8 bits.
    """
    return _exchange(model.float(), Int8Linear)


def to_bfloat16(model: GPTModel) -> GPTModel:
    """Turn a model into bfloat16 and its linear layers into `BFloat16Linear`, in place; for generation on a CPU."""
    return _exchange(model, BFloat16Linear).to(torch.bfloat16)


def pack_weights(model: GPTModel) -> GPTModel:
    """Turn a model's linear layers into `PackedLinear`, in place; for generating several texts at once in float32.

    What the model computes stays the same to rounding. A single text is slower than with the plain model, and an output
    layer that shared the embedding's weights gets a copy of its own. Where PyTorch has no oneDNN, or not the two
    private operators that pack weights and use them, nothing is packed.
    """
    operators = all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    if not (torch.backends.mkldnn.is_available() and operators):
        return model.eval()
    return _exchange(model.float(), PackedLinear)
