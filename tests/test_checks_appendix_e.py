"""Appendix E's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import pytest
import torch

from helpers import LinearWithLoRA
from tests import checkers


def forward(x, weight, bias, a, b, alpha):
    return x @ weight.T + bias + alpha / a.shape[1] * (x @ a) @ b


def by_our_module(x, weight, bias, a, b, alpha):
    layer = LinearWithLoRA(torch.nn.Linear(len(a), len(bias)), a.shape[1], alpha)
    layer.linear.load_state_dict({"weight": weight, "bias": bias})
    layer.lora.load_state_dict({"A": a, "B": b})
    return layer(x)


def merged(weight, a, b, alpha):
    return weight + alpha / a.shape[1] * (a @ b).T


def in_place(weight, a, b, alpha):
    return weight.add_((a @ b).T)


def square_only(weight, a, b, alpha):
    return weight + alpha / a.shape[1] * (a @ b)


def per_rank(shapes):
    return sum(d_in + d_out for d_in, d_out in shapes)


RIGHT = [
    ("E.1", (30_720, 383, 221_184)),
    ("E.1", [torch.tensor(30_720), 383.0, 221_184]),
    ("E.2", forward),
    ("E.2", by_our_module),
    ("E.3", merged),
    ("E.4", lambda shapes, budget: budget // per_rank(shapes)),
]

# number, wrong answer, what the hint must speak of
WRONG = [
    ("E.1", 30_720, "Three whole numbers"),
    ("E.1", (0.5, 1, 1), "whole number"),
    ("E.1", ("many", 1, 1), "whole number"),
    ("E.1", (8 * 768 * 3072, 383, 221_184), "Count the two and add"),
    ("E.1", (3840, 383, 221_184), "rank 1"),
    ("E.1", (768 * 3072, 383, 221_184), "W itself"),
    ("E.1", (1, 383, 221_184), "rows and columns"),
    ("E.1", (30_720, 384, 221_184), "none is saved"),
    ("E.1", (30_720, 768, 221_184), "each step in rank"),
    ("E.1", (30_720, 383, 98_304), "feed-forward part has two"),
    ("E.1", (30_720, 383, 122_880), "Attention has four"),
    ("E.1", (30_720, 383, 12 * 221_184), "all twelve blocks"),
    ("E.1", (30_720, 383, 5), "four layers are"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight + bias + alpha / a.shape[1] * x @ a @ b, "(d_out, d_in)"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight.T + bias + alpha * x @ a @ b, "alpha alone"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight.T + bias + x @ a @ b, "not scaled"),
    ("E.2", lambda x, weight, bias, a, b, alpha: alpha / a.shape[1] * x @ a @ b, "linear layer is missing"),
    ("E.2", lambda x, weight, bias, a, b, alpha: forward(x, weight, 0 * bias, a, b, alpha), "bias is missing"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight.T + bias, "output alone"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight.T + bias + alpha / len(a) * x @ a @ b, "number of inputs"),
    ("E.2", lambda x, weight, bias, a, b, alpha: alpha / a.shape[1] * (x @ weight.T + bias + x @ a @ b), "as well"),
    ("E.2", lambda x, weight, bias, a, b, alpha: forward(x, weight, bias, a, b, -alpha), "expected"),
    ("E.3", square_only, "wrong way round"),
    ("E.3", in_place, "has changed"),
    ("E.3", lambda weight, a, b, alpha: weight + alpha * (a @ b).T, "not divided"),
    ("E.3", lambda weight, a, b, alpha: weight + (a @ b).T, "not scaled"),
    ("E.3", lambda weight, a, b, alpha: weight - alpha / a.shape[1] * (a @ b).T, "unmerging"),
    ("E.3", lambda weight, a, b, alpha: alpha / a.shape[1] * (a @ b).T, "without the weight"),
    (
        "E.3",
        lambda weight, a, b, alpha: (
            merged(weight, a, b, alpha).T if len(a) != len(weight) else merged(weight, a, b, alpha)
        ),
        "the result is (d_in, d_out)",
    ),
    (
        "E.3",
        lambda weight, a, b, alpha: weight + a @ b if len(a) != len(weight) else merged(weight, a, b, alpha),
        "compare the shape of A B",
    ),
    ("E.3", lambda weight, a, b, alpha: [weight], "a tensor is expected"),
    ("E.3", lambda weight, a, b, alpha: 2 * weight, "expected"),
    ("E.4", lambda shapes, budget: budget / per_rank(shapes), "float"),
    ("E.4", lambda shapes, budget: budget // sum(a * b for a, b in shapes), "weights themselves"),
    ("E.4", lambda shapes, budget: budget // (shapes[0][0] + shapes[0][1]), "first layer only"),
    ("E.4", lambda shapes, budget: max(1, budget // per_rank(shapes)), "not even rank 1"),
    ("E.4", lambda shapes, budget: -(-budget // per_rank(shapes)), "more numbers than the budget"),
    ("E.4", lambda shapes, budget: (budget - 1) // per_rank(shapes), "and so does the next one"),
    ("E.4", lambda shapes, budget: 100, "the most that fits"),
]

GIVEAWAYS = {
    "E.1": ("30,720", "30720", "383", "221,184", "221184"),
    "E.2": ("x @", ".T", "shape[1]"),
    "E.3": (".T", "@", "shape[1]"),
    "E.4": ("//", "sum(", "floor"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS[number])
