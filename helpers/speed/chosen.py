"""Logits at chosen positions only: with a vocabulary of 50,257, the output layer is most of a small model's work."""

from __future__ import annotations

import torch

from ..gpt import hidden_states
from .parts import is_course_gpt, is_course_llama


def logits_at(model: torch.nn.Module, in_idx: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """What `model(in_idx)[chosen]` gives: int64 ids (B, T) and a boolean mask (B, T) to logits (N, vocab_size).

    A model made of the course's own parts computes its output layer at the chosen positions only; any other model
    computes as it does. Raises ValueError if the sequence is longer than the context.
    """
    if is_course_gpt(model):
        return model.out_head(hidden_states(model, in_idx)[chosen])
    if is_course_llama(model):
        return model.out_head(model.hidden_states(in_idx)[chosen])
    return model(in_idx)[chosen]
