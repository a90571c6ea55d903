"""The pictures of the notebook on memory-efficient weights: the numbers in them are those that they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch

from helpers.course.figures import memory_efficient_weights as figures
from helpers.speed.rounding import round_weights


def test_peaks_are_stacked():
    fig = figures.peaks({"copied": (2000, 1000), "mapped": (10, 10)}, weights=1000)
    ax = fig.axes[0]
    kept, more = (([bar.get_width() for bar in bars]) for bars in ax.containers)
    assert kept == pytest.approx([1, 0.01]) and more == pytest.approx([1, 0])
    assert [text.get_text().strip() for text in ax.texts] == ["2.0", "0.0"]
    plt.close(fig)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_row_shows_both_ways(bits):
    fig = figures.rounded_row(bits)
    for ax, group in zip(fig.axes, (8, 4), strict=True):
        drawn = next(line.get_ydata() for line in ax.lines if line.get_label() == "rounded")
        expected = round_weights(torch.tensor([figures.ROW]), bits, group)[0]
        torch.testing.assert_close(torch.tensor(drawn, dtype=torch.float32), expected)
        assert f"{(expected - torch.tensor(figures.ROW)).abs().mean():.3f}" in ax.get_xlabel()
    plt.close(fig)


def test_groups_help_the_small_weights():
    row = torch.tensor([figures.ROW])
    errors = [(round_weights(row, 4, group) - row).abs()[0, :4].mean() for group in (8, 4)]
    assert errors[1] < errors[0]


def test_cost_of_bits_has_a_dot_per_format():
    fig = figures.cost_of_bits([("16", 16, 50.0), ("4, group of 32", 4.5, 55.0)], exact=50.0)
    (ax,) = fig.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["16  (16 bits)", "4, group of 32  (4.5 bits)"]
    assert [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"] == [50.0, 55.0]
    assert [text.get_text() for text in ax.texts] == ["50.0", "55.0"]
    plt.close(fig)


@pytest.mark.parametrize("draw", [figures.ways_to_load, lambda: figures.rounded_row(3)])
def test_alternatives(draw):
    fig = draw()
    assert len(fig.get_label().split()) > 20
    plt.close(fig)
