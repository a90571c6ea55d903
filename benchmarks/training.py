"""Training GPT-2 124M, 2 x 256 tokens a step: the course's plain loop and its fast path beside transformers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks import _measure
from helpers import GPTModel, gpt_config, training_steps
from helpers.speed.memory import keep_freed_memory

BATCH, TOKENS = 2, 256


def our_steps(cfg: dict[str, Any], fast: bool, keep: bool = False) -> Iterator:
    """An endless iterator whose every `next` is one update of the course's model; `keep` keeps freed memory."""
    if keep:
        keep_freed_memory()
    torch.manual_seed(123)
    model = GPTModel(cfg)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
    ids = torch.randint(0, cfg["vocab_size"], (1000 * BATCH, TOKENS + 1))
    loader = DataLoader([(row[:-1], row[1:]) for row in ids], batch_size=BATCH)
    return training_steps(model, loader, optimizer, torch.device("cpu"), num_epochs=1000, fast=fast)


def their_steps(cfg: dict[str, Any]) -> Iterator:
    """The same for transformers' GPT-2 as it comes: float32, dropout 0.1, AdamW as it comes."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(123)
    sizes = {"n_embd": cfg["emb_dim"], "n_head": cfg["n_heads"], "n_layer": cfg["n_layers"]}
    model = GPT2LMHeadModel(GPT2Config(**sizes)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)
    while True:
        ids = torch.randint(0, cfg["vocab_size"], (BATCH, TOKENS))
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        yield


def run(rounds: int = 4, **changes: Any) -> str:
    """Measure, and return the section for RESULTS.md; `changes` are entries of the configuration of GPT-2 124M."""
    cfg = gpt_config("124M", **changes)
    peer = "transformers, float32"
    makers = {
        peer: partial(their_steps, cfg),
        "the plain loop of chapter 5, float32": partial(our_steps, cfg, fast=False),
        "the same with `fast=True`": partial(our_steps, cfg, fast=True),
        "and with `keep_freed_memory()`": partial(our_steps, cfg, fast=True, keep=True),
    }
    with ExitStack() as stack:
        steps = {name: stack.enter_context(_measure.process(make)) for name, make in makers.items()}
        seconds = _measure.race(steps, rounds)
    text = (
        f"## Training\n\nGPT-2 124M, batches of {BATCH} x {TOKENS} tokens, forward, backward and AdamW, dropout 0.1; "
        f"one step a round, {rounds} rounds, each contender in a process of its own, since "
        f"`keep_freed_memory` changes a whole process. The peer shares its output layer with the embedding, the "
        f"course's model has one of its own, as in the book. Target: the fast path at least 2.4 times the peer.\n\n"
    )
    return text + _measure.rates(seconds, BATCH * TOKENS, peer)


if __name__ == "__main__":
    print(_measure.machine(), run(), sep="\n\n")
