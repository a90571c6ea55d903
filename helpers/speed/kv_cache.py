"""Keys and values kept between the tokens of a generation, so that each new token costs one token's work.

For models that are made of exactly the course's own parts (`helpers.speed.parts.is_course_gpt`), LoRA layers and other
weight formats included; `generate` computes any other model without a cache. The buffers are allocated once. Rows of a
batch may have different lengths: each row has a position of its own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..gpt import GPTModel
from .few_rows import forward_few_rows


class KVCache:
    """Room for the keys and values of `capacity` tokens in each of `batch` rows: per layer (B, H, capacity, D)."""

    def __init__(self, model: GPTModel, batch: int, capacity: int):
        options = {"dtype": model.pos_emb.weight.dtype, "device": model.pos_emb.weight.device}
        shapes = [(batch, block.att.num_heads, capacity, block.att.head_dim) for block in model.trf_blocks]
        self.keys = [torch.zeros(shape, **options) for shape in shapes]
        self.values = [torch.zeros(shape, **options) for shape in shapes]
        device = options["device"]
        self.capacity = capacity
        self.lengths = torch.zeros(batch, dtype=torch.long, device=device)  # tokens held in each row
        self.longest, self.even = 0, True  # the largest of them, and whether they are all the same
        self.rows, self.columns = torch.arange(batch, device=device), torch.arange(capacity, device=device)

    def advance(self, count: int | torch.Tensor) -> None:
        """Count further tokens, the same number in each row or (B,) numbers."""
        self.lengths = self.lengths + count
        if isinstance(count, int):
            self.longest += count
        else:
            self.longest, self.even = int(self.lengths.max()), False


@torch.no_grad()
def forward_cached(model: GPTModel, idx: torch.Tensor, cache: KVCache, new: torch.Tensor | None = None) -> torch.Tensor:
    """Feed further tokens and return the logits after each row's last one.

    `idx` is int64 (B, N): the tokens that follow those in the cache, padded at the right if rows have different
    numbers of them; `new` (B,) says how many of the N count in each row (all, if left out). Returns (B, vocab_size).
    The model must be in evaluation mode. Raises ValueError if the cache has no room left for them, and for a `new` that
    is not from 1 to N.
    """
    batch, count = idx.shape
    if new is not None and not bool(((new >= 1) & (new <= count)).all()):
        raise ValueError(f"new={new.tolist()} must be from 1 to the {count} tokens of idx in each row")
    if new is not None and bool((new == count).all()):
        new = None  # no padding after all
    longest = cache.longest + count  # keys beyond this column are empty in every row
    if longest > cache.capacity:
        raise ValueError(f"idx brings {count} tokens, but the cache of {cache.capacity} already holds {cache.longest}")
    if cache.even:
        positions = cache.columns[None, cache.longest : longest]  # (1, N): the same in every row
    else:
        positions = cache.lengths[:, None] + cache.columns[:count]  # (B, N)
    rows = cache.rows[:, None]
    x = model.tok_emb(idx) + model.pos_emb(positions)  # (B, N, C)
    real = None if new is None else cache.columns[:count] < new[:, None]  # (B, N): not padding
    x = x if real is None else x[real]  # (tokens, C): only attention needs to know the rows
    mask = None  # for one token per row, all at the same place, every column is allowed
    if count > 1 or not cache.even:  # (B or 1, 1, N, longest): a token sees the columns up to its own
        later = (cache.columns[:longest] > positions[:, :, None])[:, None]
        mask = torch.zeros_like(later, dtype=x.dtype).masked_fill_(later, -torch.inf)
    for block, keys, values in zip(model.trf_blocks, cache.keys, cache.values, strict=True):
        att, normed = block.att, forward_few_rows(block.norm1, x)
        projected = [
            forward_few_rows(layer, normed) for layer in (att.W_query, att.W_key, att.W_value)
        ]  # (..., C) each
        if real is not None:
            projected = [y.new_zeros(batch, count, att.d_out).masked_scatter_(real[:, :, None], y) for y in projected]
        if count == 1:  # the heads of one token already lie one after the other
            q, k, v = (y.view(batch, att.num_heads, 1, att.head_dim) for y in projected)  # (B, H, 1, D)
        else:
            split = (batch, count, att.num_heads, att.head_dim)
            q, k, v = (y.view(split).transpose(1, 2) for y in projected)  # (B, H, N, D)
        if cache.even:
            keys[:, :, cache.longest : longest], values[:, :, cache.longest : longest] = k, v
        else:
            keys[rows, :, positions] = k.transpose(1, 2).to(keys.dtype)  # under autocast it is in another
            values[rows, :, positions] = v.transpose(1, 2).to(values.dtype)
        mixed = F.scaled_dot_product_attention(q, keys[:, :, :longest], values[:, :, :longest], attn_mask=mask)
        mixed = mixed.transpose(1, 2).reshape(batch, count, att.d_out)
        x = x + forward_few_rows(att.out_proj, mixed if real is None else mixed[real])
        x = x + forward_few_rows(block.ff, forward_few_rows(block.norm2, x))
    cache.advance(count if new is None else new)
    last = x[:, -1] if new is None else x[new.cumsum(0) - 1]  # (B, C)
    return forward_few_rows(model.out_head, forward_few_rows(model.final_norm, last))
