"""The checkers of the notebook on the KV cache: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import checkers

# ---- kv.1: chunk_mask(before, new) ---------------------------------------------------------------------------------


def chunk_mask(before, new):
    return torch.ones(new, before + new, dtype=torch.bool).triu(diagonal=before + 1)


def slice_of_the_triangle(before, new):
    size = before + new
    return torch.triu(torch.ones(size, size), diagonal=1).bool()[before:]


def lists(before, new):
    return [[column > before + row for column in range(before + new)] for row in range(new)]


def by_rule(rule):
    return lambda before, new: torch.tensor([[rule(i, j, before) for j in range(before + new)] for i in range(new)])


# ---- kv.2: is_right(model, start) ----------------------------------------------------------------------------------

PIECES = ([5, 1, 1, 3, 2], [1, 1, 4, 6], [4] * 3, [12])


def is_right(model, start, all_pieces=PIECES, tolerance=1e-4, whole=True):
    generator = torch.Generator().manual_seed(7)
    for pieces in all_pieces:
        ids = torch.randint(0, 40, (1, sum(pieces)), generator=generator)
        read, end = start(), 0
        for piece in ids.split(pieces, dim=1):
            got, end = read(piece), end + piece.shape[1]
            expected = model(ids[:, :end])[:, -1] if whole else model(piece)[:, -1]
            if not torch.allclose(got, expected, rtol=tolerance, atol=tolerance):
                return False
    return True


def as_numpy(model, start):
    return np.bool_(is_right(model, start))


def by_difference(model, start):
    """Two texts with one `start`, the larger difference of each."""
    worst = 0.0
    for pieces in ([3, 2, 1, 6], [2, 1, 1, 1, 7]):
        ids, read, end = torch.arange(sum(pieces))[None] * 3 % 40, start(), 0
        for piece in ids.split(pieces, dim=1):
            end += piece.shape[1]
            worst = max(worst, (read(piece) - model(ids[:, :end])[:, -1]).abs().max())
    return worst < 1e-3


def told(*pieces, **options):
    return lambda model, start: is_right(model, start, pieces, **options)


# ---- kv.3: enough_texts(weights, cfg, tokens, n_kv_heads, size) ----------------------------------------------------


def enough_texts(weights, cfg, tokens, n_kv_heads, size):
    head = cfg["emb_dim"] // cfg["n_heads"]
    return weights // (2 * cfg["n_layers"] * n_kv_heads * head * tokens * size) + 1


def by_counting(weights, cfg, tokens, n_kv_heads, size):
    per_text = 2 * cfg["n_layers"] * cfg["emb_dim"] * n_kv_heads // cfg["n_heads"] * tokens * size
    texts = weights // per_text
    while texts * per_text <= weights:
        texts += 1
    return np.int64(texts)


def in_a_tensor(*case):
    return torch.tensor(enough_texts(*case))


def changed(**changes):
    return lambda weights, cfg, tokens, heads, size: enough_texts(weights, cfg | changes, tokens, heads, size)


def rounded_up(weights, cfg, tokens, heads, size):
    head = cfg["emb_dim"] // cfg["n_heads"]
    return -(-weights // (2 * cfg["n_layers"] * heads * head * tokens * size))


RIGHT = [
    *[("kv.1", answer) for answer in (chunk_mask, slice_of_the_triangle, lists, lambda b, n: chunk_mask(b, n).numpy())],
    *[("kv.2", answer) for answer in (is_right, as_numpy, by_difference)],
    *[("kv.3", answer) for answer in (enough_texts, by_counting, in_a_tensor)],
]

WRONG = {
    "a text": ("kv.1", lambda b, n: "mask", "a tensor is expected"),
    "square": ("kv.1", lambda b, n: chunk_mask(0, n), "a row for each new token"),
    "numbers": ("kv.1", lambda b, n: chunk_mask(b, n).float(), "true and false are expected"),
    "turned round": ("kv.1", lambda b, n: ~chunk_mask(b, n), "mark where it may not"),
    "not itself": ("kv.1", lambda b, n: torch.ones(n, b + n).triu(b).bool(), "hide each token from itself"),
    "nothing kept": ("kv.1", lambda b, n: torch.ones(n, b + n).triu(1).bool(), "You hide kept tokens"),
    "nothing hidden": ("kv.1", lambda b, n: torch.zeros(n, b + n).bool(), "the ones after it"),
    "itself only": ("kv.1", by_rule(lambda i, j, b: j >= b and j != b + i), "those before it are the past"),
    "the past": ("kv.1", by_rule(lambda i, j, b: j < b + i), "You hide the past"),
    "one too far": ("kv.1", lambda b, n: torch.ones(n, b + n).triu(b + 2).bool(), "expected"),
    "all right": ("kv.2", lambda model, start: True, "You accept every reader"),
    "all wrong": ("kv.2", lambda model, start: False, "You refuse every reader"),
    "exactly": ("kv.2", told(*PIECES, tolerance=0), "Compare logits with a tolerance"),
    "one piece": ("kv.2", told([12]), "One that you accept counts the positions of each piece from 0"),
    "single tokens later": ("kv.2", told([5, *[1] * 7]), "no mask after the first piece"),
    "a short text": ("kv.2", told([3, 2, 1]), "counts positions from 0 again after eight tokens"),
    "one text": ("kv.2", told([5, 1, 1, 3, 2]), "left in the cache from the first"),
    "single tokens": ("kv.2", told([1] * 12, [1] * 12), "One that you accept"),
    "without the past": ("kv.2", told([5, 1], whole=False), "You refuse every reader"),
    "no answer": ("kv.2", lambda model, start: is_right, "True or False is expected"),
    "a token too many": ("kv.2", told([13]), "at most 12 in all of a text"),
    "a list of ids": ("kv.2", lambda model, start: start()([1, 2]) is not None, "int64 ids of shape (1, N)"),
    "a fraction": ("kv.3", lambda *case: enough_texts(*case) + 0.5, "must be a whole number"),
    "ungrouped": (
        "kv.3",
        lambda w, c, t, h, s: enough_texts(w, c, t, c["n_heads"], s),
        "one key and one value per query head",
    ),
    "wide heads": ("kv.3", changed(n_heads=1), "A head is not emb_dim numbers wide"),
    "keys alone": ("kv.3", lambda w, c, t, h, s: enough_texts(2 * w, c, t, h, s), "a key and a value"),
    "one layer": ("kv.3", changed(n_layers=1), "Every layer has keys and values"),
    "rounded down": ("kv.3", lambda *case: enough_texts(*case) - 1, "one text more is needed"),
    "one too many": ("kv.3", lambda *case: enough_texts(*case) + 1, "One text fewer is enough"),
    "rounded up": ("kv.3", rounded_up, "takes exactly as much"),
    "no texts": ("kv.3", lambda *case: 0, "expected"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=["triu", "//", "tril", "diagonal", "allclose"])


def test_every_faulty_reader_is_missed_by_some_test():
    """A test of one piece of a text of one token sees nothing but what every reader does alike."""
    verdict = checkers.checks.EXERCISES["kv.2"](lambda model, start: is_right(model, start, [[1]]))
    checkers.fails(verdict, "You catch ")
