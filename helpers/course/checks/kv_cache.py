"""Checkers for the bonus notebook on the KV cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from ...gpt import gpt_config
from ._core import Hint, exercise, expect, expect_close, expect_kind, read_integer, self_test


@exercise("kv.1", "chunk_mask(before, new)")
def exercise_kv_1(answer: Callable[[int, int], torch.Tensor]) -> str:
    """`chunk_mask(before, new)`: true where one of `new` tokens after `before` others must not look."""
    rng = random.Random(91)
    sizes = [(3, 2), (0, 1), (5, 1), (0, 4), (1, 3)] + [(rng.randint(0, 9), rng.randint(1, 9)) for _ in range(30)]
    for before, new in sizes:
        got = answer(before, new)
        where = f"For before={before}, new={new}: "
        expect_kind(got, torch.Tensor, where + "a tensor")
        shape = (new, before + new)
        expect(
            got.shape == shape,
            where + f"your mask has shape {tuple(got.shape)}; a row for each new token and a column for every token "
            f"makes {shape}.",
        )
        expect(got.dtype == torch.bool, where + f"your mask is {got.dtype}; true and false are expected.")
        right = [[column > before + row for column in range(before + new)] for row in range(new)]
        if got.tolist() == right:
            continue
        rows = f"\nexpected {_drawn(right)}\ngot      {_drawn(got.tolist())}"
        expect((~got).tolist() != right, where + "you mark where a token may look; it is the other way round." + rows)
        expect(
            before == 0 or not got[:, :before].any(),
            where + "you hide kept tokens. All of them are earlier than the new ones." + rows,
        )
        expect(
            not all(got[row, before + row] for row in range(new)),
            where + "you hide each token from itself; it may look at itself." + rows,
        )
        raise Hint(where + "a new token must not see the ones after it, and only these." + rows)
    return (
        "Every new token sees all kept ones, itself, and the new ones before it: the last rows of the triangle that "
        "chapter 3 uses. For a single new token nothing is hidden, so decoding needs no mask."
    )


def _drawn(mask: list[list[bool]]) -> str:
    return " / ".join("".join("×" if hidden else "·" for hidden in row) for row in mask)


@exercise("kv.2", "most_texts(memory, weights, cfg, tokens, size)")
def exercise_kv_2(answer: Callable[[int, int, dict[str, Any], int, int], int]) -> str:
    """`most_texts(memory, weights, cfg, tokens, size)`: how many texts' caches fit beside the weights."""
    rng = random.Random(92)
    cases = [(16 * 10**9, 497_759_232, gpt_config("124M"), 1024, 4), (10**9, 2 * 10**9, gpt_config("355M"), 100, 2)]
    for _ in range(40):
        cfg = gpt_config(rng.choice(["124M", "355M", "774M", "1558M"]))
        cases.append(
            (rng.randint(1, 80) * 10**9, rng.randint(1, 9) * 10**9, cfg, rng.randint(10, 1024), rng.choice([1, 2, 4]))
        )
    for memory, weights, cfg, tokens, size in cases:
        pair = 2 * cfg["n_layers"] * cfg["emb_dim"] * size  # bytes for each token
        free = max(0, memory - weights)
        case = (
            f"For {memory:,} bytes of memory, {weights:,} of weights, {cfg['n_layers']} layers of {cfg['emb_dim']}, "
            f"{tokens} tokens and {size} bytes per number:"
        )
        got = read_integer(answer(memory, weights, dict(cfg), tokens, size), f"{case} your result")
        expect(got >= 0, f"{case} there cannot be fewer than no texts; what if the weights alone do not fit?")
        right = free // (pair * tokens)
        slips = [
            (memory // (pair * tokens), f"you give {got}. The weights take memory too."),
            (2 * free // (pair * tokens), f"you give {got}. Each token has a key and a value."),
            (
                free // (pair * tokens // cfg["n_layers"]),
                f"you give {got}. Every layer has keys and values of its own.",
            ),
            (right + 1, f"you give {got}, but the last of them does not fit whole."),
        ]
        expect_close(got, right, case, slips)
    return (
        "What the weights leave free, divided by 2 · layers · emb_dim · tokens · bytes, rounded down. The number of "
        "heads plays no part: more heads are narrower. It would, if several query heads shared one key and one value."
    )


self_test_kv = self_test("kv", "kv_cache")
