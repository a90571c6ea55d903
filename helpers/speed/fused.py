"""The classes of chapters 3 and 4 with each step as one call into PyTorch ("fused" kernels).

Attention never stores the (T, T) weights (Dao et al., "FlashAttention", 2022); LayerNorm and GELU are single
operations. Parameters stay what they are, and in float32 so do the results, to rounding, where no dropout is drawn.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..attention import MultiHeadAttention
from ..gpt import GELU, LayerNorm
from .blockwise import BlockwiseAttention
from .large_pages import LARGE, zeros_in_large_pages
from .parts import (
    has_global_hooks,
    is_causal,
    is_causal_attention,
    is_dropout,
    is_layer_norm,
    is_unchanged,
    is_unpatched,
    register_fused,
)


class FusedMultiHeadAttention(MultiHeadAttention):
    """`MultiHeadAttention` through `scaled_dot_product_attention`. (B, T, d_in) to (B, T, d_out).

    With dropout on a CPU, that function would store the weights too, and draw the mask slowly: there the plain class
    does it, with this module's dropout. So it does once the mask or the dropout was changed, or is listened to.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropout = getattr(self.dropout, "p", 0.0) if self.dropout.training else 0.0
        if (dropout and x.device.type == "cpu") or not (is_dropout(self.dropout) and self._has_causal_mask()):
            return super().forward(x)
        batch, num_tokens, _ = x.shape
        if num_tokens > len(self.mask):
            raise ValueError(f"x has {num_tokens} tokens, but context_length is {len(self.mask)}")
        projected = self._project(x).view(batch, num_tokens, 3, self.num_heads, self.head_dim)
        if projected.is_cpu and projected.dtype == torch.bfloat16:
            return self.out_proj(BlockwiseAttention.apply(projected).flatten(2))
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        context = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True)
        return self.out_proj(context.transpose(1, 2).reshape(batch, num_tokens, self.d_out))

    def _has_causal_mask(self) -> bool:
        """Whether the mask is still chapter 3's. It is compared again only after it was exchanged or written to."""
        mask, known = self.mask, self.__dict__.get("_causal")
        if torch.compiler.is_compiling():
            return True
        if mask.is_inference():  # such a tensor does not count how often it was written to
            return is_causal(mask)
        if known is None or known[0] is not mask or known[1] != mask._version:
            if not is_causal(mask):
                return False
            self._causal = mask, mask._version
        return True

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values side by side, (B, T, 3 * d_out): one product in place of three.

        Where a layer is not a plain `nn.Linear`, or is listened to, each of them is called.
        """
        layers = self.W_query, self.W_key, self.W_value
        biases = [layer.bias for layer in layers if getattr(layer, "bias", None) is not None]
        plain = not has_global_hooks() and all(type(layer) is nn.Linear and is_unchanged(layer) for layer in layers)
        if not plain or len(biases) not in (0, len(layers)):
            return torch.cat([layer(x) for layer in layers], dim=-1)
        return F.linear(x, torch.cat([layer.weight for layer in layers]), torch.cat(biases) if biases else None)


def layer_norm(norm: LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """What `LayerNorm.forward` computes, as one operation. (..., emb_dim) to (..., emb_dim)."""
    return F.layer_norm(x, norm.scale.shape, norm.scale, norm.shift, norm.eps)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """What `GELU.forward` computes, as one operation."""
    return F.gelu(x, approximate="tanh")


class FusedLayerNorm(LayerNorm):
    """`LayerNorm` as one operation. (..., emb_dim) to (..., emb_dim)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(self, x) if is_unpatched(type(self)) else super().forward(x)


class FusedGELU(GELU):
    """`GELU` as one operation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return gelu(x) if is_unpatched(type(self)) else super().forward(x)


class _Rows(torch.autograd.Function):
    """Rows of a table (V, C) by their numbers (...): (..., C). The gradient's zeros are taken from large pages."""

    @staticmethod
    def forward(ctx, ids, table):
        ctx.save_for_backward(ids)
        ctx.like = table.shape, table.dtype, table.device
        return F.embedding(ids, table)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (ids,) = ctx.saved_tensors
        return None, zeros_in_large_pages(*ctx.like).index_add_(0, ids.flatten(), grad.flatten(0, -2))


class FusedEmbedding(nn.Embedding):
    """`nn.Embedding` whose gradient on a CPU is put together faster; a table below 32 MiB gains nothing."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        plain = self.padding_idx is None and self.max_norm is None and not (self.scale_grad_by_freq or self.sparse)
        if plain and self.weight.is_cpu and self.weight.nbytes >= LARGE and not torch.compiler.is_compiling():
            return _Rows.apply(ids, self.weight)
        return super().forward(ids)


class FusedDropout(nn.Dropout):
    """`nn.Dropout` that spends 16 random bits on a number, where PyTorch's spends 64 on a CPU: up to ten times as fast.

    The share of zeros is p to the nearest 1/65,536. The masks are others than PyTorch's for the same seed.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropped = round(self.p * 2**16)  # of the 2**16 values that 16 bits can have
        if not self.training or x.device.type != "cpu" or dropped in (0, 2**16):
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)  # 64 bits each
        kept = bits.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * (kept.to(x.dtype) * (2**16 / (2**16 - dropped)))


_FUSED = {
    MultiHeadAttention: FusedMultiHeadAttention,
    LayerNorm: FusedLayerNorm,
    GELU: FusedGELU,
    nn.Dropout: FusedDropout,
    nn.Embedding: FusedEmbedding,
}
register_fused(_FUSED)


def fuse(model: torch.nn.Module) -> torch.nn.Module:
    """Make a model built of the course's classes use fused kernels, in place; parameters stay as they are.

    What is not exactly one of the course's classes stays as it is: subclasses, attention with another mask or with
    another layer in the place of its dropout, classes whose `forward` was replaced.
    """
    for module in list(model.modules()):
        kind = type(module)
        if kind in _FUSED and is_unpatched(kind) and _FUSIBLE.get(kind, lambda module: True)(module):
            module.__class__ = _FUSED[kind]
    return model


def _is_fusible(attention: MultiHeadAttention) -> bool:
    """Whether attention has the mask that the fused kernel takes for granted, and a dropout that nothing listens to."""
    return is_causal_attention(attention) and is_dropout(attention.dropout)


_FUSIBLE = {MultiHeadAttention: _is_fusible, LayerNorm: is_layer_norm}
