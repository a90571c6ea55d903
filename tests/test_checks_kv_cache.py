"""The checkers of the notebook on the KV cache: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import pytest
import torch

from tests import checkers


def chunk_mask(before, new):
    return torch.ones(new, before + new, dtype=torch.bool).triu(diagonal=before + 1)


def slice_of_the_triangle(before, new):
    size = before + new
    return torch.triu(torch.ones(size, size), diagonal=1).bool()[before:]


def most_texts(memory, weights, cfg, tokens, size):
    return max(0, memory - weights) // (2 * cfg["n_layers"] * cfg["emb_dim"] * tokens * size)


def in_one_layer(memory, weights, cfg, tokens, size):
    return most_texts(memory, weights, cfg | {"n_layers": 1}, tokens, size)


RIGHT = [("kv.1", chunk_mask), ("kv.1", slice_of_the_triangle), ("kv.2", most_texts)]

WRONG = {
    "a list": ("kv.1", lambda b, n: chunk_mask(b, n).tolist(), "a tensor is expected"),
    "square": ("kv.1", lambda b, n: chunk_mask(0, n), "a row for each new token"),
    "numbers": ("kv.1", lambda b, n: chunk_mask(b, n).float(), "true and false are expected"),
    "turned round": ("kv.1", lambda b, n: ~chunk_mask(b, n), "the other way round"),
    "not itself": ("kv.1", lambda b, n: torch.ones(n, b + n).triu(b).bool(), "hide each token from itself"),
    "nothing kept": ("kv.1", lambda b, n: torch.ones(n, b + n).triu(1).bool(), "you hide kept tokens"),
    "nothing hidden": ("kv.1", lambda b, n: torch.zeros(n, b + n).bool(), "the ones after it"),
    "a fraction": ("kv.2", lambda *case: most_texts(*case) + 0.5, "must be a whole number"),
    "weights forgotten": ("kv.2", lambda m, w, *rest: most_texts(m, 0, *rest), "The weights take memory too"),
    "keys alone": (
        "kv.2",
        lambda m, w, c, t, s: (m - w) // (c["n_layers"] * c["emb_dim"] * t * s),
        "a key and a value",
    ),
    "one layer": ("kv.2", in_one_layer, "Every layer has keys and values"),
    "rounded up": ("kv.2", lambda *case: most_texts(*case) + 1, "does not fit whole"),
    "debts": (
        "kv.2",
        lambda m, w, c, t, s: (m - w) // (2 * c["n_layers"] * c["emb_dim"] * t * s),
        "fewer than no texts",
    ),
    "heads": ("kv.2", lambda m, w, c, t, s: most_texts(m, w, c, t, s) // c["n_heads"], "expected"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=["triu", "//", "tril", "diagonal"])
