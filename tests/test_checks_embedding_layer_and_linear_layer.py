"""The checkers of the notebook on embedding layers: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests import checkers


def as_linear(embedding, bias=False, turn=True, swap=False):
    rows, size = embedding.weight.shape
    linear = nn.Linear(size, rows, bias=bias) if swap else nn.Linear(rows, size, bias=bias)
    with torch.no_grad():
        linear.weight = nn.Parameter(embedding.weight.detach().T.clone() if turn else embedding.weight.detach().clone())
    return linear


def untrained(embedding):
    linear = as_linear(embedding)
    nn.init.ones_(linear.weight)
    return linear


def changes_the_embedding(embedding):
    linear = as_linear(embedding)
    with torch.no_grad():
        embedding.weight.zero_()
    return linear


def table_gradient(ids, output_gradient, num_rows):
    gradient = torch.zeros(num_rows, output_gradient.shape[-1])
    for token_id, row in zip(ids.flatten(), output_gradient.flatten(0, 1), strict=True):
        gradient[token_id] += row
    return gradient


def assigned(ids, output_gradient, num_rows):
    gradient = torch.zeros(num_rows, output_gradient.shape[-1])
    gradient[ids.flatten()] += output_gradient.flatten(0, 1)
    return gradient


def averaged(ids, output_gradient, num_rows):
    times = torch.bincount(ids.flatten(), minlength=num_rows).clamp(min=1)
    return table_gradient(ids, output_gradient, num_rows) / times[:, None]


def by_one_hot(ids, output_gradient, num_rows):
    return nn.functional.one_hot(ids.flatten(), num_rows).float().T @ output_gradient.flatten(0, 1)


RIGHT = [("embedding.1", as_linear), ("embedding.2", table_gradient), ("embedding.2", by_one_hot)]

WRONG = {
    "not turned": ("embedding.1", lambda e: as_linear(e, turn=False), "keeps a row for each output"),
    "sizes swapped": ("embedding.1", lambda e: as_linear(e, swap=True), "A one-hot row has as many numbers"),
    "bias": ("embedding.1", lambda e: as_linear(e, bias=True), "has a bias"),
    "other numbers": ("embedding.1", untrained, "one-hot rows in turn"),
    "the table": ("embedding.1", lambda e: e.weight, "An nn.Linear is expected"),
    "changes it": ("embedding.1", changes_the_embedding, "changes the embedding layer itself"),
    "assignment": ("embedding.2", assigned, "keeps the gradient of one place"),
    "mean": ("embedding.2", averaged, "Every use of a row adds"),
    "shape": ("embedding.2", lambda i, g, r: table_gradient(i, g, r)[:-1], "shape"),
}

# What would give a solution away.
SECRETS = ["index_add", "weight.T"]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=SECRETS)
