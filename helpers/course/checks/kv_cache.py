"""Checkers for the bonus notebook on the KV cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

from ...gpt import gpt_config
from ._core import Question, exercise, expect, expect_function, self_test

__all__ = ["exercise_kv_1", "exercise_kv_2", "self_test_kv"]


@exercise("kv.1")
def exercise_kv_1(answer: Callable[[int, int], torch.Tensor]) -> str:
    """`chunk_mask(before, new)`: true where one of `new` tokens behind `before` others must not look."""
    expect_function(answer, "chunk_mask(before, new)")
    rng = random.Random(91)
    sizes = [(3, 2), (0, 1), (5, 1), (0, 4), (1, 3)] + [(rng.randint(0, 9), rng.randint(1, 9)) for _ in range(30)]
    for before, new in sizes:
        got = answer(before, new)
        where = f"For before={before}, new={new}: "
        expect(isinstance(got, torch.Tensor), where + f"a tensor is wanted, not {type(got).__name__}.")
        shape = (new, before + new)
        expect(
            got.shape == shape,
            where + f"your mask has shape {tuple(got.shape)}; a row for each new token and a column for every token "
            f"makes {shape}.",
        )
        expect(got.dtype == torch.bool, where + f"your mask is {got.dtype}; true and false are wanted.")
        wanted = [[column > before + row for column in range(before + new)] for row in range(new)]
        if got.tolist() == wanted:
            continue
        rows = f"\nexpected {_drawn(wanted)}\ngot      {_drawn(got.tolist())}"
        expect((~got).tolist() != wanted, where + "you mark where a token may look; it is the other way round." + rows)
        expect(
            before == 0 or not got[:, :before].any(),
            where + "you hide kept tokens. All of them are earlier than the new ones." + rows,
        )
        expect(
            not all(got[row, before + row] for row in range(new)),
            where + "you hide each token from itself; it may look at itself." + rows,
        )
        expect(False, where + "a new token must not see the ones behind it, and only these." + rows)
    return (
        "Every new token sees all kept ones, itself, and the new ones before it: the last rows of the triangle that "
        "chapter 3 uses. For a single new token nothing is hidden, so decoding needs no mask."
    )


def _drawn(mask: list[list[bool]]) -> str:
    return " / ".join("".join("×" if hidden else "·" for hidden in row) for row in mask)


@exercise("kv.2")
def exercise_kv_2(answer: Callable[[int, int, dict[str, Any], int, int], int]) -> str:
    """`most_texts(memory, weights, cfg, tokens, size)`: how many texts' caches fit beside the weights."""
    expect_function(answer, "most_texts(memory, weights, cfg, tokens, size)")
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
        wanted = free // (pair * tokens)
        got = answer(memory, weights, dict(cfg), tokens, size)
        where = (
            f"For {memory:,} bytes of memory, {weights:,} of weights, {cfg['n_layers']} layers of {cfg['emb_dim']}, "
            f"{tokens} tokens and {size} bytes per number: "
        )
        expect(isinstance(got, int) and not isinstance(got, bool), where + f"a whole number is wanted, not {got!r}.")
        if got == wanted:
            continue
        expect(got >= 0, where + "there cannot be fewer than no texts; what if the weights alone do not fit?")
        expect(got != memory // (pair * tokens), where + f"you give {got}. The weights need their place too.")
        expect(got != 2 * free // (pair * tokens), where + f"you give {got}. Each token has a key and a value.")
        expect(
            got != free // (pair * tokens // cfg["n_layers"]),
            where + f"you give {got}. Every layer has keys and values of its own.",
        )
        expect(got != wanted + 1, where + f"you give {got}, but the last of them does not fit whole.")
        expect(False, where + f"you give {got}, but {wanted} is right.")
    return (
        "What the weights leave free, divided by 2 · layers · emb_dim · tokens · bytes, rounded down. The number of "
        "heads plays no part: more heads are narrower. It would, if several query heads shared one key and one value."
    )


_KV_QUESTIONS = [
    Question(
        "Why can keys and values of earlier tokens be kept?",
        {
            "a": (
                False,
                "True, but without a mask the keys of later layers would change with each new token all the same.",
            ),
            "b": (True, "with the causal mask the past is finished; section 1.2 saw it change without one."),
            "c": (False, "Softmax has nothing to do with it: keys and values are computed before it."),
        },
    ),
    Question(
        "Why is there no need to keep the queries?",
        {
            "a": (True, "the new token brings its own query and asks all keys; nobody asks on behalf of an old one."),
            "b": (False, "They come from another weight matrix, W_query."),
            "c": (False, "They would take as much as the keys; but nobody would ever read them."),
        },
    ),
    Question(
        "A cached text begins with the right token and goes astray soon after. What do you look at first?",
        {
            "a": (
                False,
                "A greedy text has no temperature, and this one differs from the greedy text without a cache.",
            ),
            "b": (False, "A wrong mask in the prompt would already spoil the first new token."),
            "c": (
                True,
                "the first new token comes from the prompt alone; the second is the first that is read from a place.",
            ),
        },
    ),
    Question(
        "Eight texts at once are written in little more time than one. Why?",
        {
            "a": (False, "Each text has its own keys and values; the cache grows with the number of texts."),
            "b": (True, "one token per text is little arithmetic, and reading the weights is what takes the time."),
            "c": (
                False,
                "How long the texts are has little to do with it: the cache is small beside the weights here.",
            ),
        },
    ),
]

self_test_kv = self_test("kv", _KV_QUESTIONS)
