"""What figures of several notebooks share: rows of boxes, broken lines, groups of bars, masks and number formats."""

import matplotlib as mpl
import numpy as np
import pytest
import torch

from helpers import plots
from helpers.course.figures import appendix_a, appendix_d, appendix_e, ch05, ch07, shared

mpl.use("Agg")


@pytest.fixture
def ax():
    return plots.canvas(7, 2)[1]


def spans(ax):
    """Left and right edge of each box."""
    return [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" ladder", "·ladder"),
        ("\n", "↵"),
        (b"\xf0\x9f", "<F0><9F>"),
        (" 안녕", "·□□"),
        ("$x$", r"\$x\$"),
        ("-" * 41, "-" * 39 + "…"),
    ],
)
def test_what_a_token_looks_like(token, shown):
    assert shared.drawable(token) == shown


def test_a_text_keeps_its_spaces_and_lines():
    assert shared.printable("two $\nlines 안\t") == "two \\$\nlines □□"


class TestBoxRow:
    def test_boxes_of_different_widths(self, ax):
        centres = shared.box_row(ax, 1.0, 0.5, ["a", "bc"], [0.4, 0.8], ["red", "blue"], gap=0.1, height=0.3)
        assert centres.tolist() == pytest.approx([1.2, 1.8])
        assert np.ravel(spans(ax)) == pytest.approx([1.05, 1.35, 1.45, 2.15])
        assert [patch.get_height() for patch in ax.patches] == [0.3, 0.3]
        assert [text.get_text() for text in ax.texts] == ["a", "bc"]
        assert [text.get_position()[0] for text in ax.texts] == pytest.approx([1.2, 1.8])
        assert [patch.get_facecolor()[:3] for patch in ax.patches] == [(1, 0, 0), (0, 0, 1)]

    def test_one_width_and_one_colour_for_all(self, ax):
        shared.box_row(ax, 0.0, 0.5, ["1", "2", "3"], 0.5, plots.SKY, gap=0.0, fontsize=7)
        assert np.ravel(spans(ax)) == pytest.approx([0, 0.5, 0.5, 1, 1, 1.5])
        assert {patch.get_facecolor() for patch in ax.patches} == {mpl.colors.to_rgba(plots.SKY)}
        assert {text.get_fontsize() for text in ax.texts} == {7}


class TestRowsThatFit:
    @pytest.mark.parametrize(
        ("widths", "rows"),
        [
            ([], []),
            ([2, 2, 2], [[0, 1], [2]]),
            ([2, 2, 1], [[0, 1, 2]]),
            ([9, 1, 9], [[0], [1], [2]]),
            ([1, 9, 1, 1], [[0], [1], [2, 3]]),
        ],
    )
    def test_rows(self, widths, rows):
        assert shared.rows_that_fit(widths, 5) == rows


def test_grouped_bars():
    _, ax = plots.subplots()
    drawn = shared.grouped_bars(ax, ["x", "y"], {"one": [1, 2], "two": [3, 4]}, [plots.BLUE, plots.ORANGE], fill=0.5)
    assert [[bar.get_height() for bar in bars] for bars in drawn] == [[1, 2], [3, 4]]
    middles = [[bar.get_x() + bar.get_width() / 2 for bar in bars] for bars in drawn]
    assert np.ravel(middles) == pytest.approx([-0.2, 0.8, 0.2, 1.2])
    assert drawn[0][0].get_width() == pytest.approx(0.2)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]
    assert ax.get_legend_handles_labels()[1] == ["one", "two"]


def test_memory_bars():
    _, ax = plots.subplots()
    shared.memory_bars(ax, ["small", "large"], [1, 2], [3, 0], "cache", ["4 GB", "2 GB"])
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 1), (0, 2), (1, 3), (2, 0)]
    assert [(text.get_position(), text.get_text().strip()) for text in ax.texts] == [((4, 0), "4 GB"), ((2, 1), "2 GB")]
    assert ax.get_legend_handles_labels()[1] == ["weights", "cache"]


@pytest.mark.parametrize("causal", [True, False])
def test_attention_mask(causal):
    _, ax = plots.subplots()
    shared.attention_mask(ax, ["a", "b", "c"], causal)
    allowed = torch.ones(3, 3).tril() if causal else torch.ones(3, 3)
    assert ax.images[0].get_array().tolist() == allowed.tolist()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]


def test_number_formats():
    """Each part of a bar is as wide as its number of bits, which are those of PyTorch's formats."""
    fig = shared.number_formats()
    (ax,) = fig.axes
    widths = [patch.get_width() / ax.patches[0].get_width() for patch in ax.patches]
    for row, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16)):
        sign, exponent, fraction = widths[3 * row : 3 * row + 3]
        assert sign == 1
        assert sign + exponent + fraction == pytest.approx(torch.finfo(dtype).bits)
        assert 2.0**-fraction == pytest.approx(torch.finfo(dtype).eps)
        assert 2.0 ** (2 ** (exponent - 1)) == pytest.approx(torch.finfo(dtype).max, rel=0.01)


def test_both_appendices_show_the_same_number_formats():
    assert appendix_a.float_formats is appendix_d.number_formats is shared.number_formats


class TestStoppedEarly:
    """Figures of a training's course, after the stop button: with fewer losses than planned, or none."""

    def test_nothing_was_measured(self):
        empty = plots.nothing_measured().get_label()
        assert len(empty.split()) > 5
        assert plots.plot_losses([], [], [], []).get_label() == empty
        assert ch05.perplexity_curves([], [], [], [], 50257, 900.0).get_label() == empty
        assert ch07.learning([], [], []).get_label() == empty
        assert appendix_d.training_run(range(0, 10, 5), [], [], []).get_label() == empty
        assert appendix_e.loss_curves({"LoRA": ([], []), "all": ([], [])}, 13).get_label() == empty
        assert plots.png(plots.plot_values([], [], [], []))

    def test_less_than_planned(self):
        fig = appendix_d.training_run(range(0, 100, 5), [11.0, 4.0], [11.1, 5.0], [0, 1, 2, 3, 2, 1])
        assert "Losses at 2 updates" in fig.get_label()
        fig = appendix_e.loss_curves({"LoRA": ([1.0], [1.2]), "all": ([], [])}, 13)
        assert "LoRA: from 1.00" in fig.get_label() and "all" not in fig.get_label()

    def test_what_was_measured_is_described(self):
        label = plots.plot_losses([0, 1], [10, 20], [9.0, 1.0], [9.5, 6.5]).get_label()
        assert "from 9.0 to 1.0" in label and "lowest at 6.5" in label
