"""The pictures of the notebook from GPT to Llama: what they show is what they are given, and they say it in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import rotary_tables
from helpers.course.figures import from_gpt_to_llama as figures


def test_norms_show_three_clouds():
    points = torch.tensor([[1.0, 7.0], [2.0, 0.0]])
    fig = figures.norms(points, points / 5, points * 0)
    shown = [ax.collections[0].get_offsets() for ax in fig.axes]
    for got, expected in zip(shown, (points, points / 5, points * 0), strict=True):
        np.testing.assert_allclose(got, expected)


@pytest.mark.parametrize("degrees", [20.0, 30.0])
def test_the_angle_between_is_the_same(degrees):
    fig = figures.turning(degrees)
    for ax in fig.axes:
        assert f"{2 * degrees:.0f}°" in [text.get_text() for text in ax.texts]
        arrows = [text for text in ax.texts if text.get_text() == ""]
        key, query = (np.arctan2(*reversed(arrow.xy)) for arrow in arrows)
        assert np.rad2deg(query - key) % 360 == pytest.approx(2 * degrees)


def test_a_row_per_pair():
    fig = figures.rotary_speeds(rotary_tables(8, 20, 100.0)[0])
    assert fig.axes[0].images[0].get_array().shape == (4, 20)
    assert "each of 4 pairs" in fig.get_label() and "each of 20 positions" in fig.get_label()


def test_scores_are_centred():
    fig = figures.score_patterns(torch.tensor([[1.0, 3.0], [3.0, 1.0]]), torch.eye(2))
    left = fig.axes[0].images[0]
    np.testing.assert_allclose(left.get_array(), [[-1, 1], [1, -1]])
    assert left.get_clim() == (-1, 1)


def test_every_query_head_has_a_line_to_its_group():
    fig = figures.shared_heads(6, (6, 2, 1))
    lines = fig.axes[0].lines
    assert len(lines) == 18
    ends = [sorted({round(line.get_xdata()[1], 3) for line in lines[start : start + 6]}) for start in (0, 6, 12)]
    assert [len(places) for places in ends] == [6, 2, 1]
    assert [round(line.get_xdata()[1], 3) for line in lines[6:9]] == [ends[1][0]] * 3  # neighbours share


def test_cache_sizes():
    fig = figures.cache_sizes({"a": 2048, "b": 1024})
    assert [bar.get_width() for bar in fig.axes[0].patches] == [2, 1]
    assert "a: 2 KiB; b: 1 KiB" in fig.get_label()


def test_curves():
    fig = figures.curves([1, 2], {"GPT": np.array([[3.0, 2.0], [5.0, 4.0]]), "Llama": np.array([[1.0, 1.0]])})
    lines = fig.axes[0].lines
    assert len(lines) == 3 + 2 and lines[2].get_ydata().tolist() == [4.0, 3.0]
    assert "GPT and Llama" in fig.get_label()


def test_blocks_are_to_scale():
    fig = figures.block_bytes()
    widths = [patch.get_width() for patch in fig.axes[0].patches]
    assert sum(widths[:2]) / sum(widths[2:]) == pytest.approx(34 / 20)


def test_the_error_in_the_title():
    exact = np.linspace(-1, 1, 32)
    fig = figures.one_block(exact, exact + 0.001, exact + 0.05)
    assert [ax.get_title() for ax in fig.axes] == ["Q8_0: largest error 0.0010", "Q4_1: largest error 0.0500"]


def test_parts_of_the_file():
    fig = figures.file_layout({"a": 10_000_000, "b": 5_000_000})
    assert [(bar.get_x(), bar.get_width()) for bar in fig.axes[0].patches] == [(0, 10), (10, 5)]
    assert "a 10.0 MB; b 5.0 MB" in fig.get_label()


def test_next_tokens():
    fig = figures.next_tokens(["' Paris'", "' the'"], [0.75, 0.1], "after “The capital of France is”")
    assert [text.get_text() for text in fig.axes[0].texts] == ["75%", "10%"]


def test_scores_that_are_missing_are_left_out():
    fig = figures.scores_of_a_judge([100, None, 80], [None, None, None])
    right, wrong = (collection.get_offsets().tolist() for collection in fig.axes[0].collections)
    assert right == [[1, 100], [3, 80]] and wrong == []


@pytest.mark.parametrize(
    "draw", [figures.turning, figures.gate, figures.shared_heads, figures.blocks_compared, figures.block_bytes]
)
def test_each_says_what_it_shows(draw):
    assert len(draw().get_label().split()) >= 12
