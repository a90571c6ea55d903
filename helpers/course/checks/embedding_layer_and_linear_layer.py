"""Checkers for the bonus notebook on embedding and linear layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ._core import Question, exercise, expect, expect_close, expect_function, self_test

__all__ = ["exercise_embedding_1", "exercise_embedding_2", "self_test_embedding"]


@exercise("embedding.1")
def exercise_embedding_1(answer: Callable[[nn.Embedding], nn.Linear]) -> str:
    """`as_linear(embedding)`: a linear layer that turns one-hot rows into the same vectors."""
    expect_function(answer, "as_linear(embedding)")
    generator = torch.Generator().manual_seed(91)
    for rows, size in [(6, 3), (4, 4), (2, 5), (9, 1)]:
        table = torch.randn(rows, size, generator=generator)
        embedding = nn.Embedding.from_pretrained(table.clone(), freeze=False)
        got = answer(embedding)
        expect(isinstance(got, nn.Linear), f"An nn.Linear is wanted, not {type(got).__name__}.")
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
        expect_close(got(torch.eye(rows)), table, "These are the outputs for all one-hot rows in turn.")
        expect(torch.equal(embedding.weight.detach(), table), "Your function changes the embedding layer itself.")
    return (
        "One-hot rows in, the rows of the table out: the linear layer holds the same numbers, turned, since nn.Linear "
        "multiplies by the transposed weight."
    )


@exercise("embedding.2")
def exercise_embedding_2(answer: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]) -> str:
    """`table_gradient(ids, output_gradient, num_rows)`: the gradient of an embedding table, (V, C)."""
    expect_function(answer, "table_gradient(ids, output_gradient, num_rows)")
    generator = torch.Generator().manual_seed(92)
    for batch, length, rows, size in [(1, 3, 8, 2), (2, 4, 5, 3), (3, 5, 4, 2), (1, 6, 1, 3), (4, 2, 9, 1)]:
        ids = torch.randint(0, rows, (batch, length), generator=generator)
        output = torch.randn(batch, length, size, generator=generator)
        wanted = torch.zeros(rows, size).index_add(0, ids.flatten(), output.flatten(0, 1))
        last = torch.zeros(rows, size)
        for token_id, row in zip(ids.flatten().tolist(), output.flatten(0, 1), strict=True):
            last[token_id] = row
        got = answer(ids, output.clone(), rows)
        where = f"This is for the ids {ids.tolist()}."
        if isinstance(got, torch.Tensor) and got.shape == wanted.shape and not torch.allclose(wanted, last):
            expect(
                not torch.allclose(got, last),
                f"{where} An id that occurs several times keeps the gradient of one place and loses the others.",
            )
            times = torch.bincount(ids.flatten(), minlength=rows).clamp(min=1)[:, None]
            expect(
                not torch.allclose(got, wanted / times),
                f"{where} You take the mean over the places of an id. Every use of a row adds to its gradient.",
            )
        expect_close(got, wanted, where)
    return (
        "Each place of the output hands its gradient back to the one row that it came from, and a row that was used "
        "several times gets the sum. Rows that were not used get zeros."
    )


_EMBEDDING_QUESTIONS = [
    Question(
        "An embedding table has shape (V, C). What is the shape of the weight of an nn.Linear that does the same?",
        {
            "a": (False, "nn.Linear keeps one row for each output, and here the outputs are the C numbers."),
            "b": (True, "nn.Linear(V, C) multiplies by the transposed weight, so its weight is the table, turned."),
            "c": (False, "The one-hot rows are as long as the vocabulary, so V must appear."),
        },
    ),
    Question(
        "Which rows of the table have a gradient other than zero after one batch?",
        {
            "a": (True, "all the other rows were multiplied by zeros, so a change in them would change nothing."),
            "b": (False, "A row that was not picked has no influence on the loss by way of the lookup."),
            "c": (False, "Every use adds to the row's gradient; none of them is thrown away."),
        },
    ),
    Question(
        "When is a linear layer the right choice for the input of a network?",
        {
            "a": (False, "There it is the wrong choice: the work grows with V, and a lookup does not."),
            "b": (False, "Both layers can be trained, and the gradients are the same."),
            "c": (True, "a mixture of rows is a real matrix product, and a lookup can only pick."),
        },
    ),
    Question(
        "What does tying the weights of a GPT's output head to its token embedding save?",
        {
            "a": (True, "the two have the same shape, (V, C), so one tensor can serve as both."),
            "b": (False, "The head still multiplies by the whole table at every position."),
            "c": (False, "On the contrary: through the head, every row gets a gradient in every step."),
        },
    ),
]

self_test_embedding = self_test("embedding", _EMBEDDING_QUESTIONS)
