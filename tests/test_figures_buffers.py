"""The figures of the notebook on buffers: what they show, and that their alternatives say the same."""

import matplotlib as mpl
import torch

from helpers import plots
from helpers.course.figures import buffers as figures

mpl.use("Agg")


def words_on(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def test_kinds_of_tensors():
    fig = figures.kinds_of_tensors({"buffer": [True, False], "plain": [False, False]}, ["moves", "saved"])
    assert words_on(fig) == ["moves", "saved", "buffer", "yes", "no", "plain", "no", "no"]
    assert fig.get_label().endswith("buffer: moves yes, saved no. plain: moves no, saved no.")
    assert plots.png(fig)


def test_memory_of_masks():
    fig = figures.mask_memory(1000, 10_000_000, num_layers=2)
    assert [text.strip() for text in words_on(fig)] == ["40 MB", "42 MB", "48 MB"]
    assert "mask saved as float32 " in fig.get_label() and "48 MB" in fig.get_label()


def test_the_leak_is_coloured_where_something_is_seen_that_should_not_be():
    after = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [0.01, 0.0, 0.0]])
    fig = figures.leak(torch.ones(3, 3).tril(), after)
    (_, second) = fig.axes
    colors = [patch.get_facecolor() for patch in second.patches]
    assert colors[1] == colors[5] != colors[2]  # row by row
    assert "2.0 on average" in fig.get_label()
