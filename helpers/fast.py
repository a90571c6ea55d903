"""The same GPT, faster: fused kernels, and a loss that never holds all logits at once.

The classes of chapters 3 and 4 spell every step out. Here each becomes one call into PyTorch: attention that never
stores the (T, T) weights (Dao et al., "FlashAttention", 2022), LayerNorm and GELU as single operations. Parameters
stay what they are, and in float32 so do the results, to rounding, where no dropout is drawn. Weights in other forms
are in `helpers.quantization`.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from .attention import MultiHeadAttention
from .device import bfloat16_is_native
from .gpt import GELU, FeedForward, GPTModel, LayerNorm


class FusedMultiHeadAttention(MultiHeadAttention):
    """`MultiHeadAttention` through `scaled_dot_product_attention`. (B, T, d_in) to (B, T, d_out).

    With dropout on a CPU, that function would store the weights too, and draw the mask slowly: there the plain class
    does it, with this module's dropout.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropout = self.dropout.p if self.training else 0.0
        if dropout and x.device.type == "cpu":
            return super().forward(x)
        batch, num_tokens, _ = x.shape
        if num_tokens > len(self.mask):
            raise ValueError(f"x has {num_tokens} tokens, but context_length is {len(self.mask)}")
        split = (batch, num_tokens, self.num_heads, self.head_dim)
        queries = self.W_query(x).view(split).transpose(1, 2)  # (B, H, T, D)
        keys = self.W_key(x).view(split).transpose(1, 2)  # (B, H, T, D)
        values = self.W_value(x).view(split).transpose(1, 2)  # (B, H, T, D)
        context = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True)
        return self.out_proj(context.transpose(1, 2).reshape(batch, num_tokens, self.d_out))


class FusedLayerNorm(LayerNorm):
    """`LayerNorm` as one operation. (..., emb_dim) to (..., emb_dim)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.scale.shape, self.scale, self.shift, self.eps)


class FusedGELU(GELU):
    """`GELU` as one operation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x, approximate="tanh")


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
}


def fuse(model: torch.nn.Module) -> torch.nn.Module:
    """Make a model built of the course's classes use fused kernels, in place; parameters stay as they are."""
    for module in model.modules():
        if type(module) in _FUSED:
            module.__class__ = _FUSED[type(module)]
    return model


def few_rows(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """What `linear(x)` gives, faster when x (..., d_in) has up to 24 rows in float32 on a CPU, as when generating.

    PyTorch's matrix product is made for many rows: it first brings the weights into another order, and for one row some
    processors use one core alone. A batch of small products, each with 16 of the outputs, takes half the time; for up
    to 4 rows it is quicker with the weights on the left. Small matrices gain nothing.
    """
    rows, weight, bias = x.numel() // x.shape[-1], linear.weight, linear.bias
    if not (rows <= 24 and x.dtype == torch.float32 and x.device.type == "cpu" and weight.numel() >= 2**18):
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


def quick(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What `module(x)` gives, fast for a few rows: for exactly the course's classes and `nn.Linear`, hooks aside.

    Any other module (LoRA, weights of fewer bits, a layer of your own) is called as it is.
    """
    kind = type(module)
    if kind is nn.Linear:
        return few_rows(module, x)
    if kind in (LayerNorm, FusedLayerNorm):
        return FusedLayerNorm.forward(module, x)
    if kind in (GELU, FusedGELU):
        return FusedGELU.forward(module, x)
    if kind is FeedForward:
        for layer in module.layers:
            x = quick(layer, x)
        return x
    return module(x)


def hidden_states(model: GPTModel, in_idx: torch.Tensor) -> torch.Tensor:
    """What the output layer would be given: int64 ids (B, T) to (B, T, C)."""
    positions = torch.arange(in_idx.shape[1], device=in_idx.device)
    x = model.drop_emb(model.tok_emb(in_idx) + model.pos_emb(positions))
    return model.final_norm(model.trf_blocks(x))


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


def speed_up(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    loss_function: Callable[..., torch.Tensor],
    chunked: bool = False,
) -> Callable[..., torch.Tensor]:
    """Prepare a model and an optimizer for fast training; returns the loss function to use from now on.

    The model is fused, AdamW becomes fused too if it has not begun yet, and losses are computed under bfloat16
    autocast where that is native. `chunked` says that it is the language-model loss, which is then taken in chunks.
    """
    fuse(model)
    if isinstance(optimizer, torch.optim.AdamW) and not optimizer.state:
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    native = bfloat16_is_native(device)
    chunked = chunked and native and type(model).forward is GPTModel.forward

    def fast_loss(input_batch: Any, target_batch: Any, model: torch.nn.Module, device: torch.device) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=native):
            if not chunked:
                return loss_function(input_batch, target_batch, model, device)
            hidden = hidden_states(model, input_batch.to(device)).flatten(0, 1)  # (B * T, C)
        targets = target_batch.to(device).flatten()
        counted = targets != -100  # what cross_entropy leaves out
        if not counted.all():
            hidden, targets = hidden[counted], targets[counted]
        return SoftmaxLoss.apply(hidden, model.out_head.weight, targets)

    return fast_loss


class SoftmaxLoss(torch.autograd.Function):
    """Mean cross-entropy of hidden states (N, C) against class ids (N,), through a table of classes (V, C).

    Computed in bfloat16, chunk by chunk, with the gradients on the way, so that no (N, V) tensor is ever kept.

    The softmax can be estimated (Jean et al., 2015): `columns` (K,) then lists the classes that get a logit, with
    `log_weight` (K,) added to it. The first `exact` classes must come first, in order; a target beyond them gets its
    logit in a column of its own.
    """

    @staticmethod
    def forward(ctx, hidden, table, targets, columns=None, log_weight=None, exact=None, chunk=512):
        if not len(hidden):
            raise ValueError("targets holds no label: there is nothing to average")
        hidden16 = hidden.to(torch.bfloat16)
        table16 = (table if columns is None else table[columns]).to(torch.bfloat16)
        exact = len(table) if exact is None else exact
        d_hidden, d_columns = torch.empty_like(hidden16), None
        d_table = None if columns is None else torch.zeros_like(table)
        last, total, share = len(table16), 0.0, 1 / len(hidden)  # each position's share of the mean
        sampled = last > exact or exact < len(table)
        for x, y, dx in zip(hidden16.split(chunk), targets.split(chunk), d_hidden.split(chunk), strict=True):
            logits = x @ table16.T  # (n, K)
            if log_weight is not None:
                logits += log_weight.to(torch.bfloat16)
            column = y
            if sampled:
                own, inside = table[y].to(torch.bfloat16), y < exact  # (n, C), (n,)
                own_logit = (x * own).sum(dim=-1).masked_fill(inside, -math.inf)
                logits = torch.cat((logits, own_logit[:, None]), dim=-1)  # (n, K + 1)
                column = torch.where(inside, y, last)
            p = torch.softmax(logits, dim=-1)
            rows = torch.arange(len(x), device=x.device)
            total += -p[rows, column].float().clamp(min=1e-30).log().sum()
            p[rows, column] -= 1
            dx.copy_(p[:, :last] @ table16)
            if sampled:
                dx += p[:, last:] * own
                d_table.index_add_(0, y, (p[:, last:] * x).to(d_table.dtype) * share)
            part = p[:, :last].T @ (x * share)  # (K, C)
            d_columns = part.to(table.dtype) if d_columns is None else d_columns.add_(part)
        if columns is not None:
            d_table.index_add_(0, columns, d_columns)
        ctx.save_for_backward(d_hidden.to(hidden.dtype) * share, d_columns if columns is None else d_table)
        return total * share

    @staticmethod
    def backward(ctx, grad):
        d_hidden, d_table = ctx.saved_tensors
        if grad != 1:  # a pass over a large table, which is seldom needed
            d_hidden, d_table = grad * d_hidden, grad * d_table
        return d_hidden, d_table, None, None, None, None, None
