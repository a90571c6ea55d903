"""The pictures of the KV cache notebook: the numbers in them are those of the notebook, and the widgets' axes stay."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from helpers import plots
from helpers.course.figures import kv_cache as figures

mpl.use("Agg")


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
    assert f"{sum(left)} scores in all" in fig.get_label() and f"{len(right)} scores" in fig.get_label()


def lines(fig):
    return {line.get_label(): line.get_ydata() for line in fig.axes[0].lines}


def test_tokens_are_counted():
    found = lines(figures.tokens_read(7, most=12))
    assert found["everything again"][-1] == sum(range(7, 19))  # as the notebook counts them
    assert found["with a cache"][-1] == 18
    assert "7" in figures.tokens_read(7, most=12).get_label()


def test_a_longer_prompt_is_seen_to_cost_more():
    """The axes stay, everything fits into them, and the curves of the start stay beside the new ones."""
    limits = set()
    for prompt in (8, 32, figures.LONGEST_PROMPT):
        fig = figures.tokens_read(prompt)
        limits.add((fig.axes[0].get_xlim(), fig.axes[0].get_ylim()))
        assert max(values.max() for values in lines(fig).values()) <= fig.axes[0].get_ylim()[1]
        assert len(lines(fig)) == (2 if prompt == 32 else 4)
        if prompt != 32:
            assert lines(fig)["prompt of 32, for comparison"][-1] == 32 * 200 + 200 * 199 / 2
    assert len(limits) == 1


def test_memory():
    fig = figures.cache_memory(8)
    assert next(text.get_text().strip() for text in fig.axes[0].texts) == "0.5 + 0.6 GB"
    assert "124M: 0.5 + 0.6 GB" in fig.get_label() and "8 texts of" in fig.get_label()


def test_more_texts_are_seen_to_take_more():
    """The axis stays, the weights' bars stay, and the cache's bars grow with the number of texts."""
    limits, ends = set(), []
    for texts in (1, 8, figures.MOST_TEXTS):
        fig = figures.cache_memory(texts)
        ax = fig.axes[0]
        limits.add(ax.get_xlim())
        weights, cache = ax.containers
        assert [bar.get_width() for bar in weights] == [1, 1, 1, 1]
        ends.append(max(bar.get_x() + bar.get_width() for bar in cache))
        assert ends[-1] < ax.get_xlim()[1]
    assert len(limits) == 1 and ends == sorted(ends) and ends[0] < 2 < ends[1]


@pytest.mark.parametrize("draw", [figures.tokens_read, figures.cache_memory])
@pytest.mark.parametrize("value", [1, 8, 32])
def test_they_can_be_drawn(draw, value):
    assert plots.png(draw(value)).startswith(b"\x89PNG")
