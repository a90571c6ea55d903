"""The parts of `helpers.llama` with each step as one call into PyTorch, and products of few rows in a quicker order.

Parameters stay what they are, and so do the results, to rounding. On a CPU in float32 a single text is written in
little more time than it takes to read the weights.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..llama import GroupedQueryAttention, LayerCache, LlamaModel, RMSNorm, rotate
from .blockwise import BlockwiseAttention
from .few_rows import FewRowsLinear
from .parts import is_course_llama, register_fused


class FusedRMSNorm(RMSNorm):
    """`RMSNorm` as one operation. (..., emb_dim) to (..., emb_dim)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale, self.eps)


class FusedGroupedQueryAttention(GroupedQueryAttention):
    """`GroupedQueryAttention` that copies no keys: for one new token, the queries of a group are rows of one product.

    For several tokens it goes through `scaled_dot_product_attention`, which never stores all of the weights, and in
    bfloat16 on a CPU through `BlockwiseAttention`.
    """

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        kept: LayerCache | None = None,
    ) -> torch.Tensor:
        batch, num_tokens, _ = x.shape
        projected = (self.W_query(x), self.W_key(x), self.W_value(x))
        queries, keys, values = (y.view(batch, num_tokens, -1, self.head_dim).transpose(1, 2) for y in projected)
        queries, keys = rotate(queries, cos, sin), rotate(keys, cos, sin)
        if kept is None and values.is_cpu and values.dtype == torch.bfloat16:
            shared_by = self.num_heads // self.num_kv_heads
            keys, values = (y.to(values).repeat_interleave(shared_by, dim=1) for y in (keys, values))
            packed = torch.stack((queries.to(values), keys, values), dim=1)  # (B, 3, H, T, D)
            return self.out_proj(BlockwiseAttention.apply(packed.permute(0, 3, 1, 2, 4)).flatten(2))
        if kept is None:
            mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=True)
            return self.out_proj(mixed.transpose(1, 2).reshape(batch, num_tokens, -1))
        keys, values = kept.add(keys, values, positions)  # (B, G, K, D)
        columns = torch.arange(keys.shape[2], device=x.device)
        if num_tokens > 1:
            seen = columns <= positions[:, None, :, None]  # (1 or B, 1, T, K)
            mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, enable_gqa=True)
            return self.out_proj(mixed.transpose(1, 2).reshape(batch, num_tokens, -1))
        grouped = queries.reshape(batch, self.num_kv_heads, -1, self.head_dim)  # (B, G, H/G, D)
        scores = grouped @ keys.transpose(2, 3) / self.head_dim**0.5  # (B, G, H/G, K)
        if batch > 1:  # the only row has no later columns
            scores = scores.masked_fill(columns > positions[:, None, :, None], -torch.inf)
        mixed = torch.softmax(scores, dim=-1) @ values  # (B, G, H/G, D)
        return self.out_proj(mixed.reshape(batch, 1, -1))


_FUSED = {GroupedQueryAttention: FusedGroupedQueryAttention, RMSNorm: FusedRMSNorm}
register_fused(_FUSED)


def fuse_llama(model: LlamaModel) -> LlamaModel:
    """Make a `LlamaModel` of the course's own parts compute faster, in place; its parameters stay as they are.

    A model that was changed, by a class of your own or a hook, stays as it is.
    """
    if is_course_llama(model):
        for module in model.modules():
            kind = type(module)
            module.__class__ = FewRowsLinear if kind is nn.Linear else _FUSED.get(kind, kind)
    return model
