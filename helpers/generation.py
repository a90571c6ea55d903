"""Producing text, one token at a time (section 4.7)."""

from __future__ import annotations

import torch


def generate_text_simple(
    model: torch.nn.Module, idx: torch.Tensor, max_new_tokens: int, context_size: int
) -> torch.Tensor:
    """Extend token ids greedily: each new token is the one with the highest logit.

    `idx` is int64 (B, T); returns (B, T + max_new_tokens). Only the last `context_size` tokens are fed to the model.
    The caller puts the model into evaluation mode; dropout would make the text vary.

    Raises ValueError if `idx` holds no token, or `max_new_tokens` or `context_size` is out of range.
    """
    if idx.shape[1] == 0:
        raise ValueError("idx holds no token to continue from")
    if max_new_tokens < 0 or context_size < 1:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} must be at least 0 and context_size={context_size} at least 1"
        )
    for _ in range(max_new_tokens):
        with torch.no_grad():
            logits = model(idx[:, -context_size:])  # (B, T, vocab_size)
        next_id = logits[:, -1, :].argmax(dim=-1, keepdim=True)  # (B, 1)
        idx = torch.cat((idx, next_id), dim=1)  # (B, T + 1)
    return idx
