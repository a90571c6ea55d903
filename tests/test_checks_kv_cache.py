"""The checkers of the bonus notebook on the KV cache, and its pictures' numbers."""

import matplotlib.pyplot as plt
import pytest
import torch

from helpers import checks
from helpers.course.checks import kv_cache
from helpers.course.figures import kv_cache as figures
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


RIGHT = {"kv.1": [chunk_mask, slice_of_the_triangle], "kv.2": [most_texts]}

WRONG = {
    "no function": ("kv.1", torch.ones(2, 2), "chunk_mask(before, new)"),
    "a list": ("kv.1", lambda b, n: chunk_mask(b, n).tolist(), "a tensor is wanted"),
    "square": ("kv.1", lambda b, n: chunk_mask(0, n), "a row for each new token"),
    "numbers": ("kv.1", lambda b, n: chunk_mask(b, n).float(), "true and false are wanted"),
    "turned round": ("kv.1", lambda b, n: ~chunk_mask(b, n), "the other way round"),
    "not itself": ("kv.1", lambda b, n: torch.ones(n, b + n).triu(b).bool(), "hide each token from itself"),
    "nothing kept": ("kv.1", lambda b, n: torch.ones(n, b + n).triu(1).bool(), "you hide kept tokens"),
    "nothing hidden": ("kv.1", lambda b, n: torch.zeros(n, b + n).bool(), "the ones behind it"),
    "no cfg": ("kv.2", 7, "most_texts(memory, weights, cfg, tokens, size)"),
    "a fraction": ("kv.2", lambda *case: most_texts(*case) + 0.5, "a whole number is wanted"),
    "weights forgotten": ("kv.2", lambda m, w, *rest: most_texts(m, 0, *rest), "The weights need their place"),
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
    "heads": ("kv.2", lambda m, w, c, t, s: most_texts(m, w, c, t, s) // c["n_heads"], "is right"),
}


@pytest.mark.parametrize(("number", "answer"), [(number, answer) for number in RIGHT for answer in RIGHT[number]])
def test_right_answers(number, answer):
    checkers.accepts(number, answer)
    checkers.leaves_the_seed_alone(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=["triu", "//", "tril", "diagonal"])


@pytest.mark.parametrize("number", RIGHT)
def test_no_answer_and_answers_that_raise(number):
    checkers.waits_for_an_answer(number)
    checkers.survives_an_error(number)


def test_self_test():
    checkers.explains_every_option(checks.self_test_kv, kv_cache._KV_QUESTIONS)


def numbers_in(ax):
    return [int(text.get_text()) for text in ax.texts]


@pytest.mark.parametrize(("prompt", "new"), [(4, 4), (1, 3), (5, 1)])
def test_scores_are_counted(prompt, new):
    """The left triangle adds up to all scores of all passes, the right one has each place once."""
    fig = figures.score_counts(prompt, new)
    left, right = (numbers_in(ax) for ax in fig.axes)
    plt.close(fig)
    passes = range(prompt, prompt + new)
    assert sum(left) == sum(length * (length + 1) // 2 for length in passes)
    assert right == [1] * (passes[-1] * (passes[-1] + 1) // 2) and len(left) == len(right)


def test_tokens_are_counted():
    fig = figures.tokens_read(7, most=12)
    again, cached = (line.get_ydata()[-1] for line in fig.axes[0].lines)
    plt.close(fig)
    assert (again, cached) == (sum(range(7, 19)), 18)  # as the notebook counts them


def test_memory():
    fig = figures.cache_memory(8)
    assert next(text.get_text().strip() for text in fig.axes[0].texts) == "0.5 + 0.6 GB"
    plt.close(fig)
