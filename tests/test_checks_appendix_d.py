"""Appendix D's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import learning_rate_at
from tests import checkers


def linear(step, total, warmup, peak, initial, low):
    if step < warmup:
        return initial + step * (peak - initial) / warmup
    return peak + (low - peak) * (step - warmup) / (total - warmup)


def guarded(step, total, warmup, peak, initial, low):
    if step < warmup:
        return initial + step * (peak - initial) / warmup
    return peak + (low - peak) * (step - warmup) / max(1, total - warmup)


def ahead(step, total, warmup, peak, initial, low):
    return linear(step + 1, total, warmup, peak, initial, low) if step < warmup else peak


def from_zero(step, total, warmup, peak, initial, low):
    return linear(step, total, warmup, peak, initial, low) if step < warmup else peak + (low - peak) * step / total


def to_zero(step, total, warmup, peak, initial, low):
    return linear(step, total, warmup, peak, initial, 0.0)


def divides(step, total, warmup, peak, initial, low):
    return initial + step * (peak - initial) / warmup


def common(gradients, max_norm, at_most=True):
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    factor = (max_norm / norm).clamp(max=1.0) if at_most else max_norm / norm
    return [g * factor for g in gradients]


def each(gradients, max_norm):
    return [g * min(1.0, max_norm / g.norm().item()) for g in gradients]


def longest(model, measure=torch.linalg.vector_norm):
    sizes = {name: measure(p.grad).item() for name, p in model.named_parameters() if p.grad is not None}
    name = max(sizes, key=sizes.get)
    return name, sizes[name]


def wrong_norm(model):
    return longest(model)[0], 0.5


def squared(model):
    name, norm = longest(model)
    return name, norm**2


def together(model):
    return "all", math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None))


def of_weights(model):
    return longest_weight(model), 1.0


def longest_weight(model):
    sizes = {name: p.norm().item() for name, p in model.named_parameters()}
    return max(sizes, key=sizes.get)


def updates(batches, accumulate, epochs):
    return -(-batches // accumulate) * epochs


RIGHT = [
    ("D.1", (32, 32, 8e-4)),
    ("D.1", [32, 32, torch.tensor(0.0008)]),
    ("D.2", linear),  # no step of a run that is all warm-up divides by zero
    ("D.2", guarded),
    ("D.3", common),
    ("D.4", longest),
    ("D.5", updates),
]

# number, wrong answer, what the hint must speak of
WRONG = [
    ("D.1", 32, "Three numbers"),
    ("D.1", ("a", 32, 8e-4), "must be one number"),
    ("D.1", (4, 4, 8e-4), "one epoch"),
    ("D.1", (64, 64, 8e-4), "a tenth of all"),
    ("D.1", (32, 33, 8e-4), "one off"),
    ("D.1", (32, 31, 8e-4), "one off"),
    ("D.1", (32, 1, 8e-4), "where the ramp ends"),
    ("D.1", (32, 32, 9e-4), "which number has the ninth"),
    ("D.1", (32, 32, 3.2e-3), "per update"),
    ("D.2", learning_rate_at, "straight line"),
    ("D.2", ahead, "one update ahead"),
    ("D.2", from_zero, "where the warm-up ends"),
    ("D.2", to_zero, "end at min_lr"),
    ("D.2", divides, "In the decay"),
    ("D.2", lambda *numbers: linear(*numbers) if numbers[2] else 1 / 0, "Both parts can be empty"),
    ("D.3", lambda gradients, max_norm: gradients[:1], "one tensor for each"),
    ("D.3", lambda gradients, max_norm: [g.clamp(-max_norm, max_norm) for g in gradients], "by itself"),
    ("D.3", each, "its own norm"),
    ("D.3", lambda gradients, max_norm: common(gradients, max_norm, at_most=False), "made longer"),
    ("D.3", lambda gradients, max_norm: gradients, "came back with norm"),
    ("D.4", lambda model: "0.weight", "two things"),
    ("D.4", lambda model: longest(model, torch.max), "single entry"),
    ("D.4", lambda model: longest(model, lambda g: g.abs().max()), "single entry"),
    ("D.4", squared, "sum of the squares"),
    ("D.4", together, "all gradients together"),
    ("D.4", of_weights, "weights"),
    ("D.4", wrong_norm, "name is right"),
    ("D.5", lambda batches, accumulate, epochs: batches * epochs, "counts batches"),
    ("D.5", lambda batches, accumulate, epochs: batches // accumulate * epochs, "make an update too"),
    ("D.5", lambda batches, accumulate, epochs: math.ceil(batches * epochs / accumulate), "next epoch"),
    ("D.5", lambda batches, accumulate, epochs: batches / accumulate * epochs, "not a whole"),
    ("D.5", lambda batches, accumulate, epochs: 7, "expected"),
]

GIVEAWAYS = {
    "D.1": ("32", "0.0008", "8e-4"),
    "D.2": ("(low - peak)", "(min_lr - peak_lr)", "max(1"),
    "D.3": ("min(1", "clip_grad_norm_"),
    "D.4": (".norm()", "named_parameters("),
    "D.5": ("ceil", "-(-", "// accumulate"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS[number])
