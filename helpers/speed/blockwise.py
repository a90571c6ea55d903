"""Causal attention in bfloat16 on a processor, in blocks of queries, as matrix products that its cores are good at.

On processors with bfloat16 products, PyTorch's `scaled_dot_product_attention` spends two to three times as long on the
same numbers: it splits the work into pieces too small for them (`python -m benchmarks training` shows both).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

BLOCK = 128  # queries at once: fewer make small products, more compute weights that the mask removes


class BlockwiseAttention(torch.autograd.Function):
    """Causal attention without dropout: (B, T, 3, H, D), which holds queries, keys and values, to (B, T, H, D).

    The weights of a block are computed again in the backward pass, so the (T, T) weights are never stored. What is
    added up over blocks is added up in float32.
    """

    @staticmethod
    def forward(ctx, projected: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(projected)
        batch, num_tokens, _, num_heads, head_dim = projected.shape
        context = projected.new_empty(batch, num_tokens, num_heads, head_dim)
        for text, result in zip(projected, context, strict=True):
            queries, keys, values = text.permute(1, 2, 0, 3).contiguous()  # (H, T, D) each
            for block, weights in _blocks_of_weights(queries, keys):
                result[block] = torch.bmm(weights, values[:, : block.stop]).transpose(0, 1)
        return context

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        (projected,) = ctx.saved_tensors
        d_projected = torch.empty_like(projected)
        for text, d_text, d_result in zip(projected, d_projected, grad, strict=True):
            queries, keys, values = text.permute(1, 2, 0, 3).contiguous()
            d_context = d_result.transpose(0, 1).contiguous()  # (H, T, D)
            d_keys, d_values = (torch.zeros_like(keys, dtype=torch.float32) for _ in range(2))
            for block, weights in _blocks_of_weights(queries, keys):
                seen, d_block = slice(block.stop), d_context[:, block]
                d_values[:, seen] += torch.bmm(weights.transpose(1, 2), d_block)
                d_weights = torch.bmm(d_block, values[:, seen].transpose(1, 2))
                d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
                d_scores *= _scale(queries)
                d_text[block, 0] = torch.bmm(d_scores, keys[:, seen]).transpose(0, 1)
                d_keys[:, seen] += torch.bmm(d_scores.transpose(1, 2), queries[:, block])
            d_text[:, 1], d_text[:, 2] = d_keys.transpose(0, 1), d_values.transpose(0, 1)
        return d_projected


def _blocks_of_weights(queries: torch.Tensor, keys: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """For each block of the queries (H, T, D): where it lies, and its attention weights (H, block, keys it sees)."""
    num_tokens = queries.shape[1]
    mask = queries.new_full((BLOCK, BLOCK), -torch.inf).triu(1)
    for first in range(0, num_tokens, BLOCK):
        block = slice(first, min(first + BLOCK, num_tokens))
        size = block.stop - first
        scores = torch.bmm(queries[:, block], keys[:, : block.stop].transpose(1, 2)).mul_(_scale(queries))
        scores[:, :, block] += mask[:size, :size]
        yield block, scores.softmax(dim=-1)


def _scale(queries: torch.Tensor) -> float:
    return queries.shape[-1] ** -0.5
