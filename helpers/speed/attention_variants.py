"""Nine ways to compute the causal multi-head attention of chapter 3, all with the weights of one layer.

Each class is made from a `MultiHeadAttention`, takes over its weights and gives its numbers, to rounding; `variants`
makes all nine. Shapes: B sequences, T tokens, C numbers per token, H heads of D numbers. The bonus notebook on
attention builds the classes and compares their time and memory. There is no dropout in them.
"""

from __future__ import annotations

import copy
import functools
import warnings

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from ..attention import MultiHeadAttention, MultiHeadAttentionWrapper
from ..guards import guard
from .parts import is_causal_attention


def _check_source(att: nn.Module) -> None:
    if not is_causal_attention(att) or type(att) is not MultiHeadAttention:
        raise ValueError("att must be a MultiHeadAttention of chapter 3 with its causal mask")
    layers = (att.W_query, att.W_key, att.W_value, att.out_proj)
    if any(type(layer) is not nn.Linear or layer.weight.shape != layers[-1].weight.shape for layer in layers):
        raise ValueError("att must have four nn.Linear layers of one square shape, so that d_in equals d_out")
    if len({layer.bias is None for layer in layers[:3]}) > 1:
        raise ValueError("att must have biases for query, key and value, or for none of them")
    if att.dropout.p:
        raise ValueError(f"att has a dropout of {att.dropout.p}: set att.dropout.p = 0, the variants have none")


def _check_length(self: nn.Module, x: torch.Tensor) -> None:
    if x.shape[1] > len(self.mask):
        raise ValueError(f"x has {x.shape[1]} tokens, but context_length is {len(self.mask)}")


@guard(_check_source)
def stacked(att: MultiHeadAttention) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of query, key and value on top of each other, (3 * C, C), and their biases, (3 * C,).

    Copies; a missing bias is zeros. Raises ValueError, as all classes here, for anything but a plain, square
    `MultiHeadAttention` without dropout.
    """
    layers = (att.W_query, att.W_key, att.W_value)
    weight = torch.cat([layer.weight for layer in layers]).detach()  # (3 * C, C)
    if att.W_query.bias is None:
        return weight, weight.new_zeros(len(weight))
    return weight, torch.cat([layer.bias for layer in layers]).detach()


class WrapperAttention(nn.Module):
    """A layer of its own for each head and for each of query, key and value: 3 H small products. (B, T, C) to same."""

    def __init__(self, att: MultiHeadAttention):
        super().__init__()
        weight, bias = stacked(att)  # (3 * C, C), (3 * C,)
        sizes = weight.shape[1], att.head_dim, len(att.mask)
        self.heads = MultiHeadAttentionWrapper(*sizes, 0.0, att.num_heads, qkv_bias=True)
        self.heads.to(weight)
        names = ("W_query", "W_key", "W_value")
        layers = [getattr(head, name) for name in names for head in self.heads.heads]
        pieces = zip(weight.split(att.head_dim), bias.split(att.head_dim), strict=True)
        for layer, (rows, numbers) in zip(layers, pieces, strict=True):  # (D, C) and (D,)
            layer.load_state_dict({"weight": rows, "bias": numbers})
        self.out_proj = copy.deepcopy(att.out_proj)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.heads(x))  # (B, T, C)


class CombinedAttention(nn.Module):
    """One layer for query, key and value together. (B, T, C) to (B, T, C). Subclasses compute `attend` otherwise."""

    def __init__(self, att: MultiHeadAttention):
        super().__init__()
        weight, bias = stacked(att)  # (3 * C, C), (3 * C,)
        self.num_heads, self.head_dim = att.num_heads, att.head_dim
        self.qkv = nn.Linear(weight.shape[1], weight.shape[0]).to(weight)
        self.qkv.load_state_dict({"weight": weight, "bias": bias})
        self.out_proj = copy.deepcopy(att.out_proj)
        self.register_buffer("mask", att.mask, persistent=False)

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Attention of each head: three times (B, H, T, D) to (B, H, T, D)."""
        num_tokens = queries.shape[2]
        scores = queries @ keys.transpose(2, 3)  # (B, H, T, T)
        scores = scores.masked_fill(self.mask[:num_tokens, :num_tokens], -torch.inf)
        weights = torch.softmax(scores / self.head_dim**0.5, dim=-1)
        return weights @ values  # (B, H, T, D)

    @guard(_check_length)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        by_head = (*x.shape[:2], 3, self.num_heads, self.head_dim)
        queries, keys, values = self.qkv(x).view(by_head).permute(2, 0, 3, 1, 4)
        context = self.attend(queries, keys, values)  # (B, H, T, D)
        return self.out_proj(context.transpose(1, 2).reshape(x.shape))  # (B, T, C)


class EinsumAttention(nn.Module):
    """Every product as an einsum, with a dimension for the heads in the weights. (B, T, C) to (B, T, C)."""

    def __init__(self, att: MultiHeadAttention):
        super().__init__()
        weight, bias = stacked(att)  # (3 * C, C), (3 * C,)
        heads, dim, out = att.num_heads, att.head_dim, att.out_proj
        self.W_qkv = nn.Parameter(weight.view(3, heads, dim, -1))  # (3, H, D, C)
        self.b_qkv = nn.Parameter(bias.view(3, 1, heads, 1, dim))
        self.W_out = nn.Parameter(out.weight.detach().clone().view(-1, heads, dim))  # (C, H, D)
        self.b_out = nn.Parameter(out.bias.detach().clone())
        self.register_buffer("mask", att.mask, persistent=False)

    @guard(_check_length)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        num_tokens, head_dim = x.shape[1], self.b_qkv.shape[-1]
        queries, keys, values = torch.einsum("btc,nhdc->nbhtd", x, self.W_qkv) + self.b_qkv
        scores = torch.einsum("bhqd,bhkd->bhqk", queries, keys)  # (B, H, T, T)
        scores = scores.masked_fill(self.mask[:num_tokens, :num_tokens], -torch.inf)
        weights = torch.softmax(scores / head_dim**0.5, dim=-1)
        context = torch.einsum("bhqk,bhkd->bhqd", weights, values)  # (B, H, T, D)
        return torch.einsum("bhtd,chd->btc", context, self.W_out) + self.b_out  # (B, T, C)


class MathAttention(CombinedAttention):
    """`scaled_dot_product_attention` held to its plain kernel, which stores the weights (B, H, T, T)."""

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """As in `CombinedAttention`."""
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


class FlashAttention(CombinedAttention):
    """`scaled_dot_product_attention` held to FlashAttention (Dao et al., 2022), which never stores the weights.

    On a GPU, this kernel takes float16 and bfloat16 only, and PyTorch raises RuntimeError for other types.
    """

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """As in `CombinedAttention`."""
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)


class TorchAttention(nn.Module):
    """PyTorch's `nn.MultiheadAttention`. (B, T, C) to (B, T, C).

    With `need_weights` it computes its second result, the weights averaged over the heads, which nobody here reads.
    """

    def __init__(self, att: MultiHeadAttention, need_weights: bool):
        super().__init__()
        weight, bias = stacked(att)  # (3 * C, C), (3 * C,)
        emb_dim, num_heads = weight.shape[1], att.num_heads
        self.attention = nn.MultiheadAttention(emb_dim, num_heads, batch_first=True).to(weight)
        out = {f"out_proj.{name}": tensor for name, tensor in att.out_proj.state_dict().items()}
        self.attention.load_state_dict({"in_proj_weight": weight, "in_proj_bias": bias, **out})
        self.need_weights = need_weights
        self.register_buffer("mask", att.mask, persistent=False)

    @guard(_check_length)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = self.mask[: x.shape[1], : x.shape[1]]
        options = {"attn_mask": mask, "is_causal": True, "need_weights": self.need_weights}
        return self.attention(x, x, x, **options)[0]  # (B, T, C)


def causal(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Whether the token at place `query` may look at the one at place `key`, in the form that FlexAttention asks for.

    True is "may look", the other way round than in the course's masks.
    """
    return key <= query


@functools.cache
def causal_blocks(num_tokens: int, device: torch.device) -> BlockMask:
    """FlexAttention's record of which blocks of scores `causal` leaves out, for sequences of so many tokens."""
    return create_block_mask(causal, None, None, num_tokens, num_tokens, device=device)


class FlexAttention(CombinedAttention):
    """`flex_attention` with its mask as a small Python function (Dong et al., 2024).

    Made from a layer on a GPU, it is compiled at its first call. On a CPU it runs uncompiled, storing all scores, and
    gives no gradients: PyTorch raises NotImplementedError where they are asked for.
    """

    def __init__(self, att: MultiHeadAttention):
        super().__init__(att)
        self.flex = torch.compile(flex_attention) if self.qkv.weight.is_cuda else flex_attention

    def attend(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """As in `CombinedAttention`."""
        blocks = causal_blocks(queries.shape[2], queries.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
            return self.flex(queries, keys, values, block_mask=blocks)  # (B, H, T, D)


def variants(att: MultiHeadAttention) -> dict[str, nn.Module]:
    """The nine ways by name, in the notebook's order, each with a copy of the weights of `att`, on its device."""
    return {
        "1 heads side by side": WrapperAttention(att),
        "2 split into heads": copy.deepcopy(att),
        "3 combined QKV": CombinedAttention(att),
        "4 einsum": EinsumAttention(att),
        "5 sdpa without Flash": MathAttention(att),
        "6 sdpa with Flash": FlashAttention(att),
        "7 nn.MultiheadAttention": TorchAttention(att, need_weights=True),
        "8 ... without weights": TorchAttention(att, need_weights=False),
        "9 FlexAttention": FlexAttention(att),
    }


def tiled_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block: int) -> torch.Tensor:
    """Causal attention as FlashAttention goes about it, in plain PyTorch: (..., T, D) each to (..., T, D).

    The scores are computed `block` times `block` at a time and never stored together.
    """
    num_tokens, head_dim = queries.shape[-2:]
    context = torch.empty_like(queries)
    for top in range(0, num_tokens, block):  # a block of queries
        q = queries[..., top : top + block, :] / head_dim**0.5
        largest = torch.full_like(q[..., :1], -torch.inf)
        total, mix = torch.zeros_like(largest), torch.zeros_like(q)
        for left in range(0, top + 1, block):  # the blocks of keys up to the diagonal
            scores = q @ keys[..., left : left + block, :].transpose(-2, -1)  # (..., block, block)
            if left == top:
                future = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1)
                scores = scores.masked_fill(future, -torch.inf)
            before, largest = largest, torch.maximum(largest, scores.amax(-1, keepdim=True))
            weights, shrink = torch.exp(scores - largest), torch.exp(before - largest)
            total = shrink * total + weights.sum(-1, keepdim=True)
            mix = shrink * mix + weights @ values[..., left : left + block, :]
        context[..., top : top + block, :] = mix / total
    return context
