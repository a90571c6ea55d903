"""The checkers of the notebook from GPT to Llama: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import checkers

STARTS = ((0, 0), (5, 2), (2, 9), (250, 31))


def by_shifting(turn, shifts=(1, 7, 100, 300), tolerance=1e-3, starts=STARTS):
    torch.manual_seed(0)
    for _ in range(5):
        query, key = torch.randn(8), torch.randn(8)
        for at, other in starts:
            score = turn(query, at) @ turn(key, other)
            for shift in shifts:
                if not torch.isclose(
                    score, turn(query, at + shift) @ turn(key, other + shift), atol=tolerance, rtol=1e-3
                ):
                    return False
    return True


def by_a_table(turn):
    query, key = torch.ones(8), torch.arange(8.0)
    q = torch.stack([turn(query, p) for p in range(0, 600, 7)])
    k = torch.stack([turn(key, p) for p in range(0, 600, 7)])
    scores = q @ k.T
    return bool((scores[1:, 1:] - scores[:-1, :-1]).abs().max() < 1e-2)


def merge_heads(weight, heads, kv_heads):
    return weight.view(kv_heads, heads // kv_heads, -1, weight.shape[1]).mean(dim=1).reshape(-1, weight.shape[1])


def merge_by_loops(weight, heads, kv_heads):
    each, group = weight.chunk(heads), heads // kv_heads
    return torch.cat([sum(each[start : start + group]) / group for start in range(0, heads, group)])


def to_q8_0(values):
    scale = values.abs().max() / 127
    numbers = torch.round(values / scale) if scale > 0 else torch.zeros(32)
    return scale, numbers.to(torch.int8)


def with_numpy(values):
    values = values.numpy()
    scale = np.abs(values).max() / 127
    return scale, np.round(values / max(scale, 1e-30)).astype(np.int8)


def as_in_a_file(values):
    scale, numbers = with_numpy(values)
    return np.float16(scale).tobytes() + numbers.tobytes() if scale > 1e-4 else with_numpy(values)


def other_scale(divide, convert=torch.round):
    def answer(values):
        scale = divide(values)
        return scale, convert(values / scale) if scale else torch.zeros(32)

    return answer


RIGHT = [
    ("llama.1", by_shifting),
    ("llama.1", by_a_table),
    ("llama.1", lambda turn: np.bool_(by_shifting(turn))),
    ("llama.1", lambda turn: by_shifting(lambda x, position: turn(x, np.int64(position)))),
    ("llama.2", merge_heads),
    ("llama.2", merge_by_loops),
    ("llama.2", lambda w, h, g: merge_heads(w.double(), h, g).numpy()),
    ("llama.3", to_q8_0),
    ("llama.3", with_numpy),
    ("llama.3", as_in_a_file),
    ("llama.3", lambda values: list(to_q8_0(values))),
]

WRONG = {
    "always": ("llama.1", lambda turn: True, "decides without calling turn"),
    "never": ("llama.1", lambda turn: False, "decides without calling turn"),
    "a number": ("llama.1", lambda turn: 1 if by_shifting(turn) else 0, "True or False is expected"),
    "exactly": ("llama.1", lambda turn: by_shifting(turn, tolerance=0.0) and _exact(turn), "compare with a tolerance"),
    "early positions only": (
        "llama.1",
        lambda turn: by_shifting(turn, shifts=(1, 7, 100), starts=(*STARTS[:3], (30, 12))),
        "The highest position that you tried is 130",
    ),
    "one at zero": (
        "llama.1",
        lambda turn: bool(torch.isclose(turn(torch.ones(8), 0) @ torch.ones(8), torch.tensor(8.0), atol=1e-3)),
        "is taken for one where",
    ),
    "beyond the end": ("llama.1", lambda turn: by_shifting(turn, shifts=(400,)), "it knows 0 to 599"),
    "strided": (
        "llama.2",
        lambda w, h, g: w.view(h // g, g, -1, w.shape[1]).mean(dim=0).reshape(-1, w.shape[1]),
        "kv_heads apart",
    ),
    "a sum": ("llama.2", lambda w, h, g: merge_heads(w, h, g) * (h // g), "Take their mean"),
    "rows": ("llama.2", lambda w, h, g: w.view(len(w) // h * g, -1, w.shape[1]).mean(dim=1), "numbers of one head"),
    "the first of each group": (
        "llama.2",
        lambda w, h, g: w.view(g, h // g, -1, w.shape[1])[:, 0].reshape(-1, w.shape[1]),
        "is the mean of the heads in its group",
    ),
    "all heads": ("llama.2", lambda w, h, g: w, "your result has shape"),
    "in place": ("llama.2", lambda w, h, g: merge_heads(w.mul_(1.5), h, g) / 1.5, "changes the weight"),
    "three dimensions": (
        "llama.2",
        lambda w, h, g: merge_heads(w, h, g).view(g, -1, w.shape[1]),
        "your result has shape",
    ),
    "128": ("llama.3", other_scale(lambda v: v.abs().max() / 128), "a signed byte has -128 to 127"),
    "clipped": (
        "llama.3",
        other_scale(lambda v: v.abs().max() / 200, lambda x: x.round().clamp(-128, 127)),
        "nothing may be cut off",
    ),
    "floor": ("llama.3", other_scale(lambda v: v.abs().max() / 127, torch.floor), "you cut fractions off"),
    "trunc": ("llama.3", other_scale(lambda v: v.abs().max() / 127, torch.trunc), "you cut fractions off"),
    "not rounded": ("llama.3", other_scale(lambda v: v.abs().max() / 127, lambda x: x), "these have fractions"),
    "half of the range": ("llama.3", other_scale(lambda v: v.abs().max() / 63), "should use the whole range"),
    "signs": ("llama.3", other_scale(lambda v: v.max().clamp(min=1e-3) / 127), "a signed byte has -128 to 127"),
    "zeros": (
        "llama.3",
        lambda v: (v.abs().max() / 127, torch.round(v / (v.abs().max() / 127))),
        "What if all are zero",
    ),
    "numbers only": ("llama.3", lambda v: to_q8_0(v)[1], "Two results are expected"),
    "one per number": ("llama.3", lambda v: (v.abs() / 127, torch.full((32,), 127.0)), "one scale is expected"),
}


def _exact(turn):
    return bool(
        torch.equal(
            turn(torch.ones(8), 9) @ turn(torch.arange(8.0), 2), turn(torch.ones(8), 99) @ turn(torch.arange(8.0), 92)
        )
    )


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=[".mean(", "round(", "/ 127", "allclose"])
