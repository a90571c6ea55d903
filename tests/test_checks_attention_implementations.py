"""The checkers of the notebook on nine ways to compute attention: right answers pass, slips get a hint that fits."""

from __future__ import annotations

import pytest
import torch

from tests import checkers

# ---- attention.1


def to_stacked(rows, num_heads):
    return rows.view(num_heads, 3, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)


def by_chunks(rows, num_heads):
    heads = rows.chunk(num_heads)
    return torch.cat([head.chunk(3)[kind] for kind in range(3) for head in heads])


def by_index(rows, num_heads):
    dim = len(rows) // (3 * num_heads)
    order = [
        head * 3 * dim + kind * dim + place for kind in range(3) for head in range(num_heads) for place in range(dim)
    ]
    return rows[order].double()


# ---- attention.2


def make_mask(documents, window):
    def mask(batch, head, query, key):
        return (key <= query) & (query - key < window) & (documents[query] == documents[key])

    return mask


def with_logical_and(documents, window):
    def mask(b, h, q, k):
        near = torch.logical_and(q >= k, k > q - window)
        return torch.logical_and(near, documents[q] == documents[k])

    return mask


def as_a_lambda(documents, window):
    return lambda b, h, q, k: (q - k >= 0) & (q - k <= window - 1) & (documents[k] == documents[q])


def masked(condition):
    """A wrong make_mask from a condition of (query - key, the same text, window)."""

    def make(documents, window):
        return lambda b, h, q, k: condition(q - k, documents[q] == documents[k], window)

    return make


def with_and(documents, window):
    return lambda b, h, q, k: k <= q and q - k < window and documents[q] == documents[k]


# ---- attention.3


def merge(first, second):
    largest = torch.maximum(first[0], second[0])
    a, b = torch.exp(first[0] - largest), torch.exp(second[0] - largest)
    return largest, a * first[1] + b * second[1], a * first[2] + b * second[2]


def in_double(first, second):
    return list(merge(*([part.double() for part in side] for side in (first, second))))


def by_logarithms(first, second):
    """By way of the logarithm of the sum of all exponentials."""
    largest = torch.where(first[0] > second[0], first[0], second[0])
    log_totals = [part[0] + part[1].log() for part in (first, second)]
    total = (torch.logaddexp(*log_totals) - largest).exp()
    mix = sum((part[0] - largest).exp() * part[2] for part in (first, second))
    return largest, total, mix


def overflowing(first, second):
    largest = torch.maximum(first[0], second[0])
    a, b = torch.exp(first[0]), torch.exp(second[0])
    return largest, *((a * x + b * y) / torch.exp(largest) for x, y in zip(first[1:], second[1:], strict=True))


def not_for_empty_parts(first, second):
    """NaN for empty parts: −∞ minus −∞."""
    largest, total, mix = merge(first, second)
    return largest, total + 0 * (first[0] - first[0]) + 0 * (second[0] - second[0]), mix


def second_shrinks(first, second):
    b = torch.exp(second[0] - first[0])
    return torch.maximum(first[0], second[0]), first[1] + b * second[1], first[2] + b * second[2]


# ---- attention.4


def numbers_moved(num_tokens, head_dim, block):
    numbers = 2 * num_tokens * head_dim
    for top in range(0, num_tokens, block):
        numbers += 2 * min(top + block, num_tokens) * head_dim
    return numbers


def in_one_formula(num_tokens, head_dim, block):
    full, rest = divmod(num_tokens, block)
    keys = block * full * (full + 1) // 2 + (num_tokens if rest else 0)
    return torch.tensor(2 * head_dim * (num_tokens + keys))


def tile_by_tile(num_tokens, head_dim, block):
    numbers = 0
    for top in range(0, num_tokens, block):
        numbers += 2 * head_dim * len(range(top, min(top + block, num_tokens)))
        for left in range(0, top + 1, block):
            numbers += 2 * head_dim * len(range(left, min(left + block, num_tokens)))
    return numbers


def rows_of_tiles(num_tokens, block):
    return [min(top + block, num_tokens) for top in range(0, num_tokens, block)]


RIGHT = [
    ("attention.1", to_stacked),
    ("attention.1", by_chunks),
    ("attention.1", by_index),
    ("attention.2", make_mask),
    ("attention.2", with_logical_and),
    ("attention.2", as_a_lambda),
    ("attention.3", merge),
    ("attention.3", in_double),
    ("attention.3", by_logarithms),
    ("attention.4", numbers_moved),
    ("attention.4", in_one_formula),
    ("attention.4", tile_by_tile),
]

WRONG = {
    "untouched": ("attention.1", lambda rows, heads: rows, "in the order in which they came"),
    "inverse": (
        "attention.1",
        lambda rows, heads: rows.view(3, heads, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape),
        "as if the queries of all heads came first",
    ),
    "every third": (
        "attention.1",
        lambda rows, heads: torch.cat([rows[kind::3] for kind in range(3)]),
        "You take every third row",
    ),
    "keys first": (
        "attention.1",
        lambda rows, heads: torch.cat([to_stacked(rows, heads).chunk(3)[kind] for kind in (1, 0, 2)]),
        "Number the rows of a small example",
    ),
    "weights only": (
        "attention.1",
        lambda rows, heads: rows.view(heads, 3, -1, rows.shape[1]).transpose(0, 1).reshape(rows.shape),
        "Your answer stopped with IndexError",
    ),
    "with dimensions": (
        "attention.1",
        lambda rows, heads: rows.view(heads, 3, -1, *rows.shape[1:]).transpose(0, 1),
        "so the shape stays",
    ),
    "a list": ("attention.1", lambda rows, heads: to_stacked(rows, heads).tolist(), "A tensor is expected"),
    "inverted": ("attention.2", masked(lambda d, t, w: ~((d >= 0) & (d < w) & t)), "true where a token must not look"),
    "both sides": ("attention.2", masked(lambda d, t, w: (d.abs() < w) & t), "may look at later tokens"),
    "any text": ("attention.2", masked(lambda d, t, w: (d >= 0) & (d < w)), "looks into other texts"),
    "no window": ("attention.2", masked(lambda d, t, w: (d >= 0) & t), "whatever the window"),
    "one too short": ("attention.2", masked(lambda d, t, w: (d >= 0) & (d < w - 1) & t), "one too short"),
    "one too long": ("attention.2", masked(lambda d, t, w: (d >= 0) & (d <= w) & t), "one too long"),
    "only itself": ("attention.2", masked(lambda d, t, w: d == 0), "a row per query"),
    "numbers": ("attention.2", masked(lambda d, t, w: ((d >= 0) & (d < w) & t).int()), "true or false is expected"),
    "and": ("attention.2", with_and, "one plain true or false"),
    "a table": ("attention.2", lambda documents, window: documents[:, None] == documents, "must return a function"),
    "second shrinks": ("attention.3", second_shrinks, "the first that has to shrink"),
    "totals added": (
        "attention.3",
        lambda a, b: (torch.maximum(a[0], b[0]), a[1] + b[1], a[2] + b[2]),
        "You add the totals as they are",
    ),
    "mixes added": ("attention.3", lambda a, b: (*merge(a, b)[:2], a[2] + b[2]), "the mixes need the same factors"),
    "divided": (
        "attention.3",
        lambda a, b: (*merge(a, b)[:2], merge(a, b)[2] / merge(a, b)[1]),
        "divided by the total already",
    ),
    "first largest": ("attention.3", lambda a, b: (a[0], *merge(a, b)[1:]), "the larger of the two largest"),
    "overflow": ("attention.3", overflowing, "overflows"),
    "empty parts": ("attention.3", not_for_empty_parts, "one part is empty"),
    "wrong way round": (
        "attention.3",
        lambda a, b: (torch.maximum(a[0], b[0]), *merge((-a[0], *a[1:]), (-b[0], *b[1:]))[1:]),
        "not those of all scores",
    ),
    "one tensor": ("attention.3", lambda a, b: merge(a, b)[2], "three tensors"),
    "flat": ("attention.3", lambda a, b: (merge(a, b)[0][:, 0], *merge(a, b)[1:]), "Your largest has shape"),
    "keys only": (
        "attention.4",
        lambda n, d, b: 2 * n * d + sum(rows_of_tiles(n, b)) * d,
        "keys and values are both read",
    ),
    "past the diagonal": (
        "attention.4",
        lambda n, d, b: 2 * n * d + 2 * len(rows_of_tiles(n, b)) * n * d,
        "stops at the diagonal",
    ),
    "read once": ("attention.4", lambda n, d, b: 4 * n * d, "anew for each block"),
    "not written": ("attention.4", lambda n, d, b: numbers_moved(n, d, b) - n * d, "have to be written"),
    "queries per tile": (
        "attention.4",
        lambda n, d, b: n * d + 3 * sum(rows_of_tiles(n, b)) * d,
        "Each block of them is read once",
    ),
    "rounded down": (
        "attention.4",
        lambda n, d, b: 2 * n * d + 2 * d * sum(b * (row + 1) for row in range(n // b)),
        "leave out the last block",
    ),
    "bytes": ("attention.4", lambda n, d, b: 4 * numbers_moved(n, d, b), "Draw the square of tiles"),
    "a fraction": ("attention.4", lambda n, d, b: numbers_moved(n, d, b) / 1, "must be a whole number"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=["transpose", "view(", "torch.exp", "maximum", "min(", "logical_and"])
