"""Checkers for the bonus notebook on embedding and linear layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ._core import call, exercise, expect, expect_close, expect_kind, self_test


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
        expect_close(call(got, torch.eye(rows)), table, "These are the outputs for all one-hot rows in turn.")
        expect(torch.equal(embedding.weight.detach(), table), "Your function changes the embedding layer itself.")
    return (
        "One-hot rows in, the rows of the table out: the linear layer holds the same numbers, turned, since nn.Linear "
        "multiplies by the transposed weight."
    )


@exercise("embedding.2", "table_gradient(ids, output_gradient, num_rows)")
def exercise_embedding_2(answer: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]) -> str:
    """`table_gradient(ids, output_gradient, num_rows)`: the gradient of an embedding table, (V, C)."""
    generator = torch.Generator().manual_seed(92)
    for batch, length, rows, size in [(1, 3, 8, 2), (2, 4, 5, 3), (3, 5, 4, 2), (1, 6, 1, 3), (4, 2, 9, 1)]:
        ids = torch.randint(0, rows, (batch, length), generator=generator)
        output = torch.randn(batch, length, size, generator=generator)
        right = torch.zeros(rows, size).index_add(0, ids.flatten(), output.flatten(0, 1))
        last = torch.zeros(rows, size)
        for token_id, row in zip(ids.flatten().tolist(), output.flatten(0, 1), strict=True):
            last[token_id] = row
        times = torch.bincount(ids.flatten(), minlength=rows).clamp(min=1)[:, None]
        slips = [
            (last, "An id that occurs several times keeps the gradient of one place and loses the others."),
            (right / times, "You take the mean over the places of an id. Every use of a row adds to its gradient."),
        ]
        expect_close(answer(ids.clone(), output.clone(), rows), right, f"This is for the ids {ids.tolist()}.", slips)
    return (
        "Each place of the output hands its gradient back to the one row that it came from, and a row that was used "
        "several times gets the sum. Rows that were not used get zeros."
    )


self_test_embedding = self_test("embedding", "embedding_layer_and_linear_layer")
