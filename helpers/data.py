"""Sliding windows over a text, and the loaders that batch them (section 2.6)."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .guards import guard
from .tokenizers import get_tokenizer, takes_tokenizer


def _check_windows(max_length: int, stride: int) -> None:
    if max_length < 1 or stride < 1:
        raise ValueError(f"max_length={max_length} and stride={stride} must both be at least 1")


class GPTDatasetV1(Dataset):
    """Pairs of (input, target) windows over one text; the target is the input shifted by one token.

    Windows are `max_length` tokens long and start every `stride` tokens. All of them are views into one tensor of
    token ids, so a dataset takes 8 bytes per token, whatever the stride. Item i is a pair of int64 tensors, each
    (max_length,). A last window that would run past the end is left out.

    Raises ValueError if `max_length` or `stride` is below 1, or if the text is too short for a single window.
    """

    @guard(_check_windows)
    @takes_tokenizer
    def __init__(self, txt: str, tokenizer: Any, max_length: int, stride: int):
        token_ids = torch.tensor(tokenizer.encode(txt, allowed_special={"<|endoftext|>"}))
        if len(token_ids) <= max_length:
            needs = f"max_length={max_length} needs at least one more"
            raise ValueError(f"txt has {len(token_ids)} tokens; {needs}")
        self.input_ids = token_ids[:-1].unfold(0, max_length, stride)  # (windows, max_length)
        self.target_ids = token_ids[1:].unfold(0, max_length, stride)  # (windows, max_length)

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.input_ids[idx], self.target_ids[idx]


def create_dataloader_v1(
    txt: str,
    batch_size: int = 4,
    max_length: int = 256,
    stride: int = 128,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
) -> DataLoader:
    """Batches of GPT-2 token windows: pairs of int64 tensors, each (batch_size, max_length).

    With `drop_last` a last batch that is not full is left out. Shuffling draws from torch's global random state.

    Raises ValueError as `GPTDatasetV1` does, and if there are fewer windows than one batch needs.
    """
    tokenizer = get_tokenizer("gpt2")
    dataset = GPTDatasetV1(txt, tokenizer, max_length, stride)
    if drop_last and len(dataset) < batch_size:
        raise ValueError(f"txt gives {len(dataset)} windows, fewer than batch_size={batch_size}")
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_workers=num_workers)
