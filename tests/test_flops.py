"""Counting operations: the formula agrees with PyTorch's counter, and the best split of a budget with a search."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from helpers import GPT_SIZES, GPTModel, gpt_config
from helpers.speed.flops import CHINCHILLA, REPLICATION, forward_flops, training_flops

SMALL = {"emb_dim": 24, "n_heads": 3, "n_layers": 2, "vocab_size": 70, "context_length": 40}


def counted(run):
    with FlopCounterMode(display=False) as counter:
        run()
    return counter


@pytest.mark.parametrize("size", GPT_SIZES)
@pytest.mark.parametrize("tokens", [1, 1024])
def test_gpt2_sizes(size, tokens):
    cfg = gpt_config(size)
    with torch.device("meta"):
        model, ids = GPTModel(cfg).eval(), torch.zeros(1, tokens, dtype=torch.long)
    assert sum(forward_flops(cfg, tokens).values()) == counted(lambda: model(ids)).get_total_flops()


@pytest.mark.parametrize(
    "changes", [{}, {"qkv_bias": True}, {"n_heads": 1}, {"n_layers": 5}, {"emb_dim": 48}, {"vocab_size": 9}]
)
def test_parts(changes):
    """The parts of attention, feed-forward and output layer, each as the counter has it for its module."""
    cfg = gpt_config(**{**SMALL, **changes})
    with torch.device("meta"):
        model, ids = GPTModel(cfg), torch.zeros(3, 17, dtype=torch.long)
    found = {}
    for name, by_operation in counted(lambda: model(ids)).get_flop_counts().items():
        part = name.split(".")[-1]
        found[part] = found.get(part, 0) + sum(by_operation.values())
    parts = {name: 3 * flops for name, flops in forward_flops(cfg, 17).items()}  # three texts
    assert parts["output layer"] == found["out_head"]
    assert parts["feed-forward"] == found["ff"]
    assert parts["output projection"] == found["out_proj"]
    assert parts["query, key, value"] == sum(found[name] for name in ("W_query", "W_key", "W_value"))
    products = parts["queries @ keys"] + parts["weights @ values"]
    assert products == found["att"] - parts["output projection"] - parts["query, key, value"]


def test_training():
    cfg = gpt_config(**SMALL)
    model, ids = GPTModel(cfg), torch.zeros(2, 40, dtype=torch.long)
    counter = counted(lambda: F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward())
    assert 2 * training_flops(cfg, 40) == counter.get_total_flops()


@pytest.mark.parametrize("law", [CHINCHILLA, REPLICATION])
@pytest.mark.parametrize("budget", [1e15, 1e20, 5.76e23, 1e26])
def test_best_split(law, budget):
    parameters, tokens = law.best_split(budget)
    assert 6 * parameters * tokens == pytest.approx(budget)
    others = parameters * np.array([0.5, 0.9, 0.99, 1.01, 1.1, 2])
    assert (law.loss(others, budget / 6 / others) > law.loss(parameters, tokens)).all()


def test_chinchilla_as_published():
    """Hoffmann et al. (2022), section 3.3: N grows as the budget to the power of 0.45; 1.69 nats cannot be beaten.

    Besiroglu et al. (2024): about 20 tokens per parameter, 70 billion parameters at Chinchilla's budget.
    """
    sizes = [CHINCHILLA.best_split(budget)[0] for budget in (1e20, 1e22)]
    assert np.log10(sizes[1] / sizes[0]) / 2 == pytest.approx(0.45, abs=0.01)
    assert CHINCHILLA.loss(1e30, 1e30) == pytest.approx(1.69, abs=1e-3)
    parameters, tokens = REPLICATION.best_split(5.76e23)
    assert parameters == pytest.approx(70e9, rel=0.05) and tokens / parameters == pytest.approx(20, rel=0.1)
