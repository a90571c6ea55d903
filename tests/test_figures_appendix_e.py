"""Appendix E's figures: their alternative text says what they show, and the widget's figure has fixed axes."""

import matplotlib as mpl
import numpy as np
import pytest

from helpers import plots
from helpers.course.figures import appendix_e as figures

mpl.use("Agg")
STRANGE = ["$", "$$x_1$", "\\$", "\n", "", "\ufffd", "-" * 30, "%", "{}"]
NAMES = [f"trf_blocks.{block}.{kind}" for block in (0, 1) for kind in ("att.W_query", "ff.layers.0")]
RISING = np.linspace(0.1, 1, 10)

pytestmark = pytest.mark.filterwarnings("error")


def shares(rank=4):
    by_name = {name: RISING ** (1 + number / 10) for number, name in enumerate(NAMES)}
    return figures.kept_shares(by_name, {"3 × 3": RISING / 2, "3 × 9": RISING / 4}, rank)


RUNS = {"head only": (514, [(0.7, 0.6), (0.8, 0.5)]), "rank 1": (28_162, [(0.9, 0.25)])}


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (figures.low_rank, ["frozen matrix W", "alpha over r"]),
        (lambda: figures.parameter_counts(16, 768, 768), ["24,576", "4.2%", "589,824"]),
        (lambda: figures.loss_curves({"LoRA": ([1.0, 0.5], [1.2, 0.25])}, 13), ["LoRA: from 1.20 to 0.25"]),
        (shares, ["at rank 4", "random ones 20% and 10%"]),
        (lambda: figures.one_base("a model", {"none": "", "spam": "two classes"}), ["a model", "spam (two classes)"]),
        (
            lambda: figures.side_by_side({"LoRA": [0.9, 0.95]}, {"LoRA": 442_882}, ["validation", "test"]),
            ["LoRA 90.0% and 95.0%", "0.44 million"],
        ),
        (
            lambda: figures.runs_and_seeds(RUNS, ("all", (0.94, 0.15))),
            ["head only 75.0% and 0.550", "rank 1 90.0% and 0.250", "all: 94.0% and 0.150"],
        ),
    ],
)
def test_the_alternative_text_says_what_is_drawn(draw, words):
    figure = draw()
    for word in words:
        assert word in figure.get_label(), figure.get_label()
    assert plots.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("sizes", [(1, 256, 256), (256, 256, 256), (1, 1600, 6400), (256, 1600, 6400)])
def test_the_axes_of_the_widget_stay(sizes):
    """So that a larger layer is seen to lower the line, and a higher rank to move the dot."""
    ax = figures.parameter_counts(*sizes).axes[0]
    assert ax.get_xlim() == (0, 512) and ax.get_ylim() == (0, 215)
    dot = ax.lines[-1].get_data()
    rank, in_dim, out_dim = sizes
    assert dot[0][0] == rank and dot[1][0] == pytest.approx(100 * rank * (in_dim + out_dim) / (in_dim * out_dim))
    assert dot[1][0] < 215


def test_a_dot_for_every_seed_and_a_bar_at_the_mean():
    left = figures.runs_and_seeds(RUNS, ("all", (0.94, 0.15))).axes[0]
    assert [list(np.round(line.get_ydata(), 6)) for line in left.lines[:4]] == [[70, 80], [75, 75], [90], [90, 90]]


def test_every_layer_has_a_curve_and_a_dot():
    left, right = shares().axes
    assert len(left.lines) == len(NAMES) + 2 + 1  # and two random matrices, and the line at the rank
    dots = [line for line in right.lines if line.get_marker() == "o"]
    assert sum(len(line.get_ydata()) for line in dots) == len(NAMES)
    assert dots[0].get_ydata() == pytest.approx([RISING[3], RISING[3] ** 1.2])


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_are_drawn(name):
    plots.png(figures.one_base(name, {name: name, "b": ""}))
