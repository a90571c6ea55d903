"""The pictures of the notebook on byte-pair encoding: nothing is lost in them, and their alternatives say so."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from helpers import plots
from helpers.course.figures import bpe_from_scratch as figures

mpl.use("Agg")
LINES = ["Oda's hen said:   it isn't 1908", "a", "\n\n \t", "naïve 😸 梯子", "100 % of {} and \\frac _x^2"]
ORDERS = {"first": [("", list("abc")), ("ab", ["ab", "c"])], "second": [("", list("abc")), ("bc", ["a", "bc"])]}

# A letter that the font lacks is drawn as a box.
pytestmark = pytest.mark.filterwarnings("error", "ignore:Glyph")


def texts_of(fig):
    return [text.get_text() for text in fig.axes[0].texts]


@pytest.mark.parametrize("line", LINES)
def test_every_piece_of_a_line_is_drawn(line):
    fig = figures.words_by_kind(line)
    drawn = texts_of(fig)
    assert "".join(drawn[: -2 * len(figures._KINDS)]) == plots.visible(line)
    assert "coloured by kind" in fig.get_label()
    assert plots.png(fig).startswith(b"\x89PNG")


def test_stages():
    fig = figures.stages([("0 merges", [b" ", b"a", b"\xf0"]), ("1 merge", [b" a", b"\xf0"])])
    assert {"·", "a", "<F0>", "·a"} <= set(texts_of(fig))
    assert "1 merge, ·a | <F0>" in fig.get_label()


def test_orders_side_by_side():
    fig = figures.two_orders(ORDERS)
    assert texts_of(fig).count("bytes") == 2 and {"first", "second", "ab", "bc"} <= set(texts_of(fig))
    assert "first: a b c; ab c" in fig.get_label() and "second: a b c; a bc" in fig.get_label()
    assert plots.png(fig).startswith(b"\x89PNG")


def test_counts():
    fig = figures.count_changes(list("ringing"), ["r", "i", "ng", "i", "ng"], {("n", "g"): -2, ("i", "ng"): 2})
    assert {"−2", "+2"} <= set(texts_of(fig))
    assert "n g by -2, i ng by +2" in fig.get_label()


def test_characters_per_token():
    learned, held_out = np.array([[1.0, 2.0, 3.2], [1.0, 2.2, 3.4]]), np.array([[1.0, 1.5, 2.0], [1.0, 1.9, 2.8]])
    curves = {"learned on": learned, "held out": held_out}
    fig = figures.characters_per_token([256, 300, 400], curves, ("GPT-2", 3.75))
    first, second, line = fig.axes[0].lines
    assert first.get_ydata() == pytest.approx([1, 2.1, 3.3]) and second.get_ydata() == pytest.approx([1, 1.7, 2.4])
    assert line.get_ydata()[0] == 3.75 and fig.axes[0].get_ylim()[1] > 3.75
    assert len(fig.axes[0].collections) == 2  # the bands from the lowest to the highest split
    assert "learned on: 1.00 at 256 and 3.30 at 400" in fig.get_label() and "GPT-2: 3.75" in fig.get_label()
