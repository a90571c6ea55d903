"""The checkers of the notebook on embedding layers: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests import checkers

# ---- embedding.1: the linear layer of a table ----------------------------------------------------------------------


def as_linear(embedding, bias=False, transpose=True, swap=False):
    rows, size = embedding.weight.shape
    linear = nn.Linear(size, rows, bias=bias) if swap else nn.Linear(rows, size, bias=bias)
    with torch.no_grad():
        table = embedding.weight.detach()
        linear.weight = nn.Parameter(table.T.clone() if transpose else table.clone())
    return linear


def as_linear_from_a_state(embedding):
    linear = nn.Linear(embedding.num_embeddings, embedding.embedding_dim, bias=False)
    linear.load_state_dict({"weight": embedding.weight.T})
    return linear


def as_linear_in_float64(embedding):
    linear = nn.Linear(*embedding.weight.shape, bias=False, dtype=torch.float64)
    linear.weight.data = embedding.weight.data.T.double()
    return linear


def as_linear_sharing(embedding):
    linear = nn.Linear(*embedding.weight.shape, bias=False)
    linear.weight = nn.Parameter(embedding.weight.T)
    return linear


def as_linear_contiguous(embedding):
    """A copy, but for a table of one column, whose transposed form is contiguous as it is."""
    linear = nn.Linear(*embedding.weight.shape, bias=False)
    linear.weight.data = embedding.weight.data.T.contiguous()
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


# ---- embedding.2: the gradient of a table --------------------------------------------------------------------------


def table_gradient(ids, output_gradient, num_rows):
    gradient = torch.zeros(num_rows, output_gradient.shape[-1])
    for token_id, row in zip(ids.flatten(), output_gradient.flatten(0, 1), strict=True):
        gradient[token_id] += row
    return gradient


def by_index_add(ids, output_gradient, num_rows):
    gradient = torch.zeros(num_rows, output_gradient.shape[-1], dtype=torch.float64)
    return gradient.index_add_(0, ids.flatten(), output_gradient.flatten(0, 1).double())


def by_one_hot(ids, output_gradient, num_rows):
    return F.one_hot(ids.flatten(), num_rows).float().T @ output_gradient.flatten(0, 1)


def by_numpy(ids, output_gradient, num_rows):
    gradient = np.zeros((num_rows, output_gradient.shape[-1]))
    np.add.at(gradient, ids.flatten().numpy(), output_gradient.flatten(0, 1).numpy())
    return gradient


def assigned(ids, output_gradient, num_rows):
    gradient = torch.zeros(num_rows, output_gradient.shape[-1])
    gradient[ids.flatten()] += output_gradient.flatten(0, 1)
    return gradient


def averaged(ids, output_gradient, num_rows):
    times = torch.bincount(ids.flatten(), minlength=num_rows).clamp(min=1)
    return table_gradient(ids, output_gradient, num_rows) / times[:, None]


def by_backward(ids, output_gradient, num_rows):
    table = torch.zeros(num_rows, output_gradient.shape[-1], requires_grad=True)
    F.embedding(ids, table).backward(output_gradient)
    return table.grad


def by_grad(ids, output_gradient, num_rows):
    table = torch.zeros(num_rows, output_gradient.shape[-1], requires_grad=True)
    return torch.autograd.grad(table[ids], table, output_gradient)[0]


def in_place(ids, output_gradient, num_rows):
    gradient = table_gradient(ids, output_gradient, num_rows)
    output_gradient.zero_()
    return gradient


def last_axis_only(ids, output_gradient, num_rows):
    return table_gradient(ids[:1], output_gradient[:1], num_rows)


# ---- embedding.3: look up a mixture --------------------------------------------------------------------------------


def soft_lookup(probabilities, embedding):
    return probabilities @ embedding.weight


def by_linear(probabilities, embedding):
    return F.linear(probabilities.double(), embedding.weight.T.double())


def by_sum(probabilities, embedding):
    ids = torch.arange(embedding.num_embeddings)
    return (probabilities[..., None] * embedding(ids)).sum(dim=-2)


def by_einsum(probabilities, embedding):
    return torch.einsum("...v,vc->...c", probabilities, embedding.weight)


def hard_lookup(probabilities, embedding):
    return embedding(probabilities.argmax(dim=-1))


def softmax_again(probabilities, embedding):
    return torch.softmax(probabilities, dim=-1) @ embedding.weight


def mean_of_rows(probabilities, embedding):
    return (probabilities[..., None] * embedding.weight).mean(dim=-2)


def by_a_copy(probabilities, embedding):
    return as_linear(embedding)(probabilities)


def by_data(probabilities, embedding):
    return probabilities @ embedding.weight.data


def probabilities_cut_off(probabilities, embedding):
    return probabilities.detach() @ embedding.weight


def all_cut_off(probabilities, embedding):
    with torch.no_grad():
        return probabilities @ embedding.weight


def transposed(probabilities, embedding):
    return probabilities @ embedding.weight.T


def straight_through(probabilities, embedding):
    """The right numbers with the gradients of a hard lookup."""
    hard, soft = hard_lookup(probabilities, embedding), soft_lookup(probabilities, embedding)
    return hard + (soft - hard).detach() + 0 * probabilities.sum()


RIGHT = [
    ("embedding.1", as_linear),
    ("embedding.1", as_linear_from_a_state),
    ("embedding.1", as_linear_in_float64),
    ("embedding.2", table_gradient),
    ("embedding.2", by_index_add),
    ("embedding.2", by_one_hot),
    ("embedding.2", by_numpy),
    ("embedding.3", soft_lookup),
    ("embedding.3", by_linear),
    ("embedding.3", by_sum),
    ("embedding.3", by_einsum),
]

WRONG = {
    "not transposed": ("embedding.1", lambda e: as_linear(e, transpose=False), "keeps a row for each output"),
    "sizes swapped": ("embedding.1", lambda e: as_linear(e, swap=True), "A one-hot row has as many numbers"),
    "bias": ("embedding.1", lambda e: as_linear(e, bias=True), "has a bias"),
    "other numbers": ("embedding.1", untrained, "one-hot rows in turn"),
    "the table": ("embedding.1", lambda e: e.weight, "An nn.Linear is expected"),
    "changes it": ("embedding.1", changes_the_embedding, "changes the embedding layer itself"),
    "shares memory": ("embedding.1", as_linear_sharing, "share one memory"),
    "shares it at times": ("embedding.1", as_linear_contiguous, "With 9 rows and 1 columns"),
    "assignment": ("embedding.2", assigned, "keeps the gradient of one place"),
    "mean": ("embedding.2", averaged, "Every use of a row adds"),
    "shape": ("embedding.2", lambda i, g, r: table_gradient(i, g, r)[:-1], "shape"),
    "backward": ("embedding.2", by_backward, "autograd is not to be used"),
    "grad": ("embedding.2", by_grad, "autograd is not to be used"),
    "in place": ("embedding.2", in_place, "handed in has changed"),
    "first sequence": ("embedding.2", last_axis_only, "This is for the ids"),
    "hard": ("embedding.3", hard_lookup, "most probable token"),
    "softmax again": ("embedding.3", softmax_again, "another softmax"),
    "mean of the rows": ("embedding.3", mean_of_rows, "nothing is to be divided"),
    "a copy": ("embedding.3", by_a_copy, "with a copy"),
    "data": ("embedding.3", by_data, "gets no gradient"),
    "probabilities cut off": ("embedding.3", probabilities_cut_off, "the probabilities get no gradient"),
    "all cut off": ("embedding.3", all_cut_off, "no gradient can pass"),
    "wrong side": ("embedding.3", transposed, "comes first in the product"),
    "gradients of another formula": ("embedding.3", straight_through, "This is the gradient of"),
    "numbers": ("embedding.3", lambda p, e: soft_lookup(p, e).tolist(), "A tensor is expected"),
}

# What would give a solution away.
SECRETS = ["index_add", "weight.T", "@ embedding.weight"]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=SECRETS)


def test_autograd_works_again_after_the_check():
    checkers.refuses("embedding.2", by_backward, "autograd")
    x = torch.ones(2, requires_grad=True)
    (3 * x).sum().backward()
    assert torch.autograd.grad((2 * x).sum(), x)[0].tolist() == [2.0, 2.0] and x.grad.tolist() == [3.0, 3.0]
