"""Checkers for the bonus notebook on embedding and linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn

from ._core import (
    Hint,
    all_agree,
    call,
    exercise,
    expect,
    expect_close,
    expect_kind,
    explained,
    read_tensor,
    self_test,
)


@exercise("embedding.1", "as_linear(embedding)")
def exercise_embedding_1(answer: Callable[[nn.Embedding], nn.Linear]) -> str:
    """`as_linear(embedding)`: a linear layer that turns one-hot rows into the same vectors."""
    generator = torch.Generator().manual_seed(91)
    for rows, size in [(6, 3), (4, 4), (2, 5), (9, 1)]:
        table = torch.randn(rows, size, generator=generator)
        embedding = nn.Embedding.from_pretrained(table.clone(), freeze=False)
        got = answer(embedding)
        expect_kind(got, nn.Linear, "An nn.Linear")
        expect(got.bias is None, "Your layer has a bias, which would be added to every row. A lookup adds nothing.")
        expect(
            (got.in_features, got.out_features) == (rows, size),
            f"For a table of {rows} rows and {size} columns your layer takes {got.in_features} numbers and returns "
            f"{got.out_features}. A one-hot row has as many numbers as the table has rows.",
        )
        expect(
            got.weight.shape == (size, rows),
            f"The weight of your layer has shape {tuple(got.weight.shape)}, but nn.Linear keeps a row for each output.",
        )
        one_hot_rows = torch.eye(rows, dtype=got.weight.dtype)
        expect_close(call(got, one_hot_rows), table, "These are the outputs for all one-hot rows in turn.")
        expect(torch.equal(embedding.weight.detach(), table), "Your function changes the embedding layer itself.")
        with torch.no_grad():
            got.weight.add_(1)
        expect(
            torch.equal(embedding.weight.detach(), table),
            f"With {rows} rows and {size} columns, the two layers share one memory: training the new one would change "
            "the table. Transposing gives a view, and it stays one wherever nothing is copied.",
        )
    return (
        "One-hot rows in, the rows of the table out: the linear layer holds a copy of the same numbers, transposed, "
        "since nn.Linear multiplies by the transposed weight."
    )


@contextmanager
def _without_autograd() -> Iterator[None]:
    """Inside, whoever asks PyTorch for a gradient gets a Hint."""

    def refuse(*_: object, **__: object) -> None:
        raise Hint("Here autograd is not to be used: write down what it does.")

    # Tensor.backward calls the first of these two.
    with mock.patch.object(torch.autograd, "backward", refuse), mock.patch.object(torch.autograd, "grad", refuse):
        yield


def _table_gradient(ids: torch.Tensor, output: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.zeros(rows, output.shape[-1]).index_add(0, ids.flatten(), output.flatten(0, 1))


def _last_of_each(ids: torch.Tensor, output: torch.Tensor, rows: int) -> torch.Tensor:
    """What is left where each place overwrites what an earlier place of the same id has written."""
    gradient = torch.zeros(rows, output.shape[-1])
    for token_id, row in zip(ids.flatten().tolist(), output.flatten(0, 1), strict=True):
        gradient[token_id] = row
    return gradient


def _mean_of_each(ids: torch.Tensor, output: torch.Tensor, rows: int) -> torch.Tensor:
    times = torch.bincount(ids.flatten(), minlength=rows).clamp(min=1)
    return _table_gradient(ids, output, rows) / times[:, None]


@exercise("embedding.2", "table_gradient(ids, output_gradient, num_rows)")
def exercise_embedding_2(answer: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]) -> str:
    """`table_gradient(ids, output_gradient, num_rows)`: the gradient of an embedding table, (V, C)."""
    generator = torch.Generator().manual_seed(92)
    cases, results = [], []
    for batch, length, rows, size in [(1, 3, 8, 2), (2, 4, 5, 3), (3, 5, 4, 2), (1, 6, 1, 3), (4, 2, 9, 1)]:
        ids = torch.randint(0, rows, (batch, length), generator=generator)
        output = torch.randn(batch, length, size, generator=generator)
        given = ids.clone(), output.clone()
        with _without_autograd():
            got = answer(*given, rows)
        results.append(read_tensor(got, f"A tensor of shape {(rows, size)}"))
        kept = torch.equal(given[0], ids) and torch.equal(given[1], output)
        expect(kept, "A tensor that was handed in has changed. Make a new one.")
        cases.append((ids, output, rows))
    expected = [_table_gradient(*case) for case in cases]
    slips = [
        (
            (_last_of_each(*case) for case in cases),
            "An id that occurs several times keeps the gradient of one place and loses the others.",
        ),
        (
            (_mean_of_each(*case) for case in cases),
            "You take the mean over the places of an id. Every use of a row adds to its gradient.",
        ),
    ]
    all_agree(results, expected, slips)
    for got, right, (ids, *_) in zip(results, expected, cases, strict=True):
        expect_close(got, right, f"This is for the ids {ids.tolist()}.")
    return (
        "Each place of the output hands its gradient back to the one row that it came from, and a row that was used "
        "several times gets the sum. Rows that were not used get zeros."
    )


def _mixed_by_hand(probabilities: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The mixtures, row by row: (..., V) and (V, C) to (..., C)."""
    mixed = []
    for shares in probabilities.flatten(0, -2):
        row = torch.zeros(table.shape[1])
        for share, token in zip(shares.tolist(), table, strict=True):
            row = row + share * token
        mixed.append(row)
    return torch.stack(mixed).reshape(*probabilities.shape[:-1], table.shape[1])


def _gradients_by_hand(
    probabilities: torch.Tensor, table: torch.Tensor, output_gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of the probabilities, (..., V), and of the table, (V, C), from that of the output, in a loop."""
    for_shares, for_table = torch.zeros_like(probabilities), torch.zeros_like(table)
    places = zip(probabilities.flatten(0, -2), for_shares.flatten(0, -2), output_gradient.flatten(0, -2), strict=True)
    for shares, for_place, gradient in places:
        for token_id, share in enumerate(shares.tolist()):
            for_place[token_id] = (gradient * table[token_id]).sum()
            for_table[token_id] += share * gradient
    return for_shares, for_table


# What known mistakes in embedding.3 give, each with its hint.
_MIXTURE_SLIPS = (
    (
        lambda probabilities, table: table[probabilities.argmax(dim=-1)],
        "You pick the row of the most probable token. All rows count, each with its probability.",
    ),
    (
        lambda probabilities, table: torch.softmax(probabilities, dim=-1) @ table,
        "What you are given are probabilities already; another softmax makes them more alike.",
    ),
    (
        lambda probabilities, table: (probabilities @ table) / table.shape[0],
        "You take the mean over the vocabulary. The probabilities sum to 1, so nothing is to be divided.",
    ),
)


@exercise("embedding.3", "soft_lookup(probabilities, embedding)")
def exercise_embedding_3(answer: Callable[[torch.Tensor, nn.Embedding], torch.Tensor]) -> str:
    """`soft_lookup(probabilities, embedding)`: mixtures of rows, (..., C), from which gradients reach both."""
    generator = torch.Generator().manual_seed(93)
    cases, results = [], []
    for shape, rows, size in [((2, 3), 6, 3), ((5,), 4, 2), ((1, 4), 3, 5), ((3,), 4, 4)]:
        table = torch.randn(rows, size, generator=generator)
        probabilities = torch.softmax(2 * torch.randn(*shape, rows, generator=generator), dim=-1)
        if len(shape) == 1:
            probabilities[0] = torch.eye(rows)[1]  # a token that is certain, as in a lookup
        embedding = nn.Embedding.from_pretrained(table.clone(), freeze=False)
        given = probabilities.clone().requires_grad_()
        case = f"Tried with probabilities of shape {tuple(probabilities.shape)} and a table of shape {(rows, size)}."
        with explained(RuntimeError, f"{case} Which of the two comes first in the product?", "shape|size"):
            got = answer(given, embedding)
        expect_kind(got, torch.Tensor, "A tensor")
        kept = torch.equal(embedding.weight.detach(), table) and torch.equal(given.detach(), probabilities)
        expect(kept, "The table or the probabilities have changed. Leave them as they are.")
        cases.append((case, probabilities, table, given, embedding, got))
        results.append(read_tensor(got))
    expected = [_mixed_by_hand(probabilities, table) for _, probabilities, table, *_ in cases]
    slips = (
        ((slip(probabilities, table) for _, probabilities, table, *_ in cases), hint) for slip, hint in _MIXTURE_SLIPS
    )
    all_agree(results, expected, slips)
    for got, right, (case, *_) in zip(results, expected, cases, strict=True):
        expect_close(got, right, case)
    for case, probabilities, table, given, embedding, got in cases:
        expect(
            got.requires_grad,
            "Your numbers are right, but no gradient can pass: something cuts the result off, such as detach, .data, "
            "no_grad or a way over plain numbers.",
        )
        output_gradient = torch.randn(got.shape, generator=generator)
        loss = (got.double() * output_gradient).sum()
        for_shares, for_table = torch.autograd.grad(loss, [given, embedding.weight], allow_unused=True)
        expect(
            for_table is not None,
            "Your numbers are right, but the embedding's weight gets no gradient: you compute with a copy of it, and "
            "training would move the copy.",
        )
        expect(
            for_shares is not None,
            "Your numbers are right, but the probabilities get no gradient, so whatever has made them cannot learn.",
        )
        by_hand = _gradients_by_hand(probabilities, table, output_gradient)
        expect_close(for_shares, by_hand[0], f"{case} This is the gradient of the probabilities.")
        expect_close(for_table, by_hand[1], f"{case} This is the gradient of the table.")
    return (
        "A product of the probabilities with the table: each row counts with its probability. The gradient of a row is "
        "the output's, times its probability; that of a probability is the dot product of its row with the output's."
    )


self_test_embedding = self_test("embedding", "embedding_layer_and_linear_layer")
