"""The figures of the notebook on reasoning models: their alternative text says what they show."""

import matplotlib as mpl
import pytest

from helpers import plots
from helpers.course.figures import reasoning_models as figures

mpl.use("Agg")
ROWS = {0: {"share": 0.5, "right": 0.1}, 1: {"share": 0.25, "right": 0.125}, 2: {"share": 0.25, "right": 0.75}}
LENGTHS = {"without steps": {2: [1.0, 0.5], 3: [0.125, 0.125]}, "with steps": {2: [1.0, 1.0], 3: [1.0, 0.5]}}
CURVES = {"vote": {1: 0.25, 2: 0.25, 4: 0.5}, "any right": {1: 0.25, 2: 0.5, 4: 1.0}}
HISTORY = [
    {"reward": 0.5, "right": 0.25, "tokens": 4.0, "mixed": 0.75},
    {"reward": 1.0, "right": 0.125, "tokens": 8.0, "mixed": 0.25},
]

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (figures.sum_in_steps, ["4, 7, 8, 5, 3, 1", "their sum, 8", "1, 9, 4, 7, 8"]),
        (lambda: figures.sum_in_steps((9, 9, 1)), ["9, 9, 1", "their sum, 9", "8, 9"]),
        (lambda: figures.by_steps(ROWS), ["0 steps: 0.50, 0.10 right", "2 steps: 0.25, 0.75 right"]),
        (lambda: figures.by_length(LENGTHS), ["without steps: 2 digits 0.75, 3 digits 0.12", "3 digits 0.75"]),
        (lambda: figures.by_samples({"base": CURVES}, 12.5), ["from 1 to 4", "any right from 0.25 to 1.00"]),
        (lambda: figures.by_samples({"a": CURVES, "b": CURVES}), ["a: vote from 0.25 to 0.50", "b: vote"]),
        (
            lambda: figures.training({"pure": HISTORY}),
            [
                "pure: share right from 0.25 to 0.19, tokens per answer from 4.00 to 6.00",
                "from 0.75 to 0.50 in 2 updates",
            ],
        ),
        (lambda: figures.training({"a": HISTORY, "b": HISTORY}), ["a: share", "b: share"]),
        (
            lambda: figures.reward_and_truth({"run": HISTORY}),
            ["run: reward that it is trained on from 0.50 to 0.75, right answers from 0.25 to 0.19"],
        ),
        (lambda: figures.ways({"base": [0.25, 0.75], "other": [1.0, 1.0]}), ["base 0.50, other 1.00"]),
    ],
)
def test_the_alternative_text_is_made_from_what_is_drawn(draw, words):
    fig = draw()
    for word in words:
        assert word in fig.get_label(), fig.get_label()
    assert plots.png(fig).startswith(b"\x89PNG")


def test_curves_are_smoothed_backwards_only():
    assert figures.smooth([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]
    assert figures.smooth([2.0], 5) == [2.0]


def test_every_seed_has_a_dot_and_the_line_is_their_mean():
    fig = figures.ways({"first": [0.25, 0.75], "second": [1.0, 1.0]})
    dots = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[1.0, 1.0], [0.25, 0.75]]  # the first row is on top
    assert [label.get_text() for label in fig.axes[0].get_yticklabels()] == ["second", "first"]
    means = [line.get_xdata()[0] for line in fig.axes[0].lines if line.get_color() == plots.INK]
    assert means == [1.0, 0.5]
