"""The checkers of the notebook on FLOPs: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from helpers.speed.flops import forward_flops
from tests import checkers

# ---- flops.1


def by_halving(cfg, share):
    def enough(tokens):
        parts = forward_flops(cfg, tokens)
        return parts["queries @ keys"] + parts["weights @ values"] >= share * sum(parts.values())

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def by_formula(cfg, share):
    emb, layers = cfg["emb_dim"], cfg["n_layers"]
    others = 24 * emb**2 * layers + 2 * emb * cfg["vocab_size"]  # per token
    exact = Fraction(str(share)) * others / ((1 - Fraction(str(share))) * 4 * emb * layers)
    return max(1, math.ceil(exact))


def as_numpy(cfg, share):
    return np.int64(by_halving(cfg, share))


def odds(cfg, share):
    return by_halving(cfg, share / (1 + share))


# ---- flops.2


def cost(law, loss, served, size):
    left = loss - law.E - law.A / size**law.alpha
    left = np.where(left > 0, left, np.nan)
    return 6 * size * (law.B / left) ** (1 / law.beta) + 2 * size * served


def by_search(law, loss, served):
    sizes = np.logspace(5, 13, 20_001)
    return sizes[np.nanargmin(cost(law, loss, served, sizes))]


def in_plain_python(law, loss, served):
    best = None
    for step in range(4000):
        size = 10 ** (5 + 8 * step / 4000)
        left = loss - law.E - law.A / size**law.alpha
        if left > 0:
            total = 6 * size * (law.B / left) ** (1 / law.beta) + 2 * size * served
            if best is None or total < best[0]:
                best = total, size
    return best[1]


def by_slope(law, loss, served):
    """Bisection on the derivative of the logarithm of N."""
    low, high = math.log((law.A / (loss - law.E)) ** (1 / law.alpha)) + 1e-6, math.log(1e14)
    for _ in range(200):
        middle = (low + high) / 2
        size, up = math.exp(middle), math.exp(middle + 1e-6)
        low, high = (middle, high) if cost(law, loss, served, up) < cost(law, loss, served, size) else (low, middle)
    return math.exp(low)


# ---- flops.3


def enough_rows(d_in, d_out, peak, bandwidth, size):
    gain = 2 * d_in * d_out / peak - size * (d_in + d_out) / bandwidth
    return None if gain <= 0 else max(1, math.ceil(size * d_in * d_out / bandwidth / gain))


def exactly(d_in, d_out, peak, bandwidth, size):
    peak, bandwidth = Fraction(peak), Fraction(bandwidth)
    gain = 2 * d_in * d_out / peak - size * (d_in + d_out) / bandwidth
    return math.ceil(size * d_in * d_out / bandwidth / gain) if gain > 0 else None


def by_trying(d_in, d_out, peak, bandwidth, size):
    def enough(rows):
        moved = size * (rows * d_in + d_in * d_out + rows * d_out)
        return 2 * rows * d_in * d_out * bandwidth >= moved * peak

    high = 1
    while not enough(high):
        high *= 2
        if high > 10**9:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return np.int32(high)


RIGHT = [
    ("flops.1", by_halving),
    ("flops.1", by_formula),
    ("flops.1", as_numpy),
    ("flops.2", by_search),
    ("flops.2", in_plain_python),
    ("flops.2", by_slope),
    ("flops.3", enough_rows),
    ("flops.3", exactly),
    ("flops.3", by_trying),
]

WRONG = {
    "without output layer": (
        "flops.1",
        lambda cfg, share: by_halving(cfg | {"vocab_size": 0}, share),
        "leave the output",
    ),
    "odds": ("flops.1", odds, "A share is of all operations"),
    "one short": ("flops.1", lambda cfg, share: by_halving(cfg, share) - 1, "one short"),
    "one product": ("flops.1", lambda cfg, share: by_halving(cfg, min(0.9999, 2 * share)), "you give"),
    "6C": ("flops.1", lambda cfg, share: 6 * cfg["emb_dim"], "you give 4,608 tokens"),
    "not whole": ("flops.1", lambda cfg, share: float(by_halving(cfg, share)), "must be a whole number"),
    "up to a million": ("flops.1", lambda cfg, share: min(10**6, by_halving(cfg, share)), "is larger"),
    "training only": ("flops.2", lambda law, loss, served: by_search(law, loss, 0), "does not depend on the tokens"),
    "six for use": ("flops.2", lambda law, loss, served: by_search(law, loss, 3 * served), "no backward pass in use"),
    "smallest": (
        "flops.2",
        lambda law, loss, served: (law.A / (loss - law.E)) ** (1 / law.alpha),
        "endless text",
    ),
    "too small": ("flops.2", lambda law, loss, served: by_search(law, loss, served) / 20, "cannot reach this loss"),
    "a little off": ("flops.2", lambda law, loss, served: 1.1 * by_search(law, loss, served), "would do"),
    "tokens": ("flops.2", lambda law, loss, served: 20 * by_search(law, loss, served), "would do"),
    "infinite": ("flops.2", lambda law, loss, served: math.inf, "a number of parameters is expected"),
    "one operation": (
        "flops.3",
        lambda i, o, p, b, s: enough_rows(i, o, 2 * p, b, s),
        "a multiplication and an addition",
    ),
    "matrix alone": (
        "flops.3",
        lambda i, o, p, b, s: max(1, math.ceil(s * p / (2 * b))),
        "The batch and the result move as well",
    ),
    "numbers": ("flops.3", lambda i, o, p, b, s: enough_rows(i, o, p, b, 1), "as if they were bytes"),
    "never for small": ("flops.3", lambda i, o, p, b, s: enough_rows(i, o, p, b, s) or 10**6, "no number of rows"),
    "always none": ("flops.3", lambda i, o, p, b, s: None if i < 5000 else 1, "a number of rows exists"),
    "one more": (
        "flops.3",
        lambda i, o, p, b, s: None if enough_rows(i, o, p, b, s) is None else enough_rows(i, o, p, b, s) + 1,
        "more than the smallest",
    ),
    "not whole rows": (
        "flops.3",
        lambda i, o, p, b, s: None if enough_rows(i, o, p, b, s) is None else enough_rows(i, o, p, b, s) - 0.5,
        "must be a whole number",
    ),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=["24C²", "d_in + d_out", "law.B", "ceil"])
