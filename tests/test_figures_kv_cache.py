"""The pictures of the KV cache notebook: the numbers in them are those of the notebook."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from helpers.course.figures import kv_cache as figures


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
