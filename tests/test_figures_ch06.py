"""The figures of chapter 6: alternative texts say what is drawn, and what is drawn follows the arguments."""

import numpy as np
import pytest
import torch

from helpers.course.figures import ch06 as figures


def test_padding_counts_what_is_cut():
    fig = figures.padded_batch([3, 7, 5, 1], 5)
    assert "2 outlined in orange-red" in fig.get_label()
    assert "0 outlined" in figures.padded_batch([3, 5], 5).get_label()


def test_parts_say_what_is_trained():
    frozen = torch.nn.Linear(2, 3).requires_grad_(False)
    fig = figures.trained_parts([("body", [frozen, frozen]), ("new\nhead", [torch.nn.Linear(4, 2)])])
    assert "body 18 parameters, frozen; new head 10 parameters, trained" in fig.get_label()
    assert {"18", "10"} <= {text.get_text() for text in fig.axes[0].texts}


def test_few_messages_draws_the_means_of_the_draws():
    scores = {name: np.full((2, 2, 3), value) for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.7))}
    scores["c"][1, :, 0] = 1.0  # the mean of 1.0, 0.7 and 0.7 is 0.8
    fig = figures.few_messages((20, 50), scores)
    left, right = fig.axes
    assert [line.get_ydata()[0] for line in left.lines[:3]] == pytest.approx([50, 60, 70])
    assert right.lines[2].get_ydata().tolist() == pytest.approx([80, 80])
    assert "c on paraphrases 80, 80" in fig.get_label()


def test_the_threshold_flags_what_lies_above_it():
    p_spam, labels = np.array([0.1, 0.5, 0.9, 0.5]), np.array([0, 0, 1, 1])
    assert "50.0% of spam caught, 0.0% false alarms" in figures.threshold_figure(p_spam, labels, 0.5).get_label()
    heights = sum(patch.get_height() for patch in figures.threshold_figure(p_spam, labels, 0.5).axes[0].patches)
    assert heights == pytest.approx(200)  # each class adds up to 100 percent


def test_confusion_says_both_kinds_of_mistakes():
    label = figures.confusion_matrices({"model": np.array([[57, 3], [1, 68]])}).get_label()
    assert "of 60 not spam 3 called spam, of 69 spam 1 missed" in label


def test_other_figures_have_a_description():
    grid = np.linspace(0.01, 0.5, 50)
    for fig in (
        figures.two_kinds(),
        figures.class_counts({"ham": 1978, "spam": 319}, 319),
        figures.who_sees_whom(["You", "have", "won"]),
        figures.accuracy_by_parameters([("head", 1026, 0.9, 0.03), ("block", 790_786, 0.95, 0.02)]),
        figures.base_rates(grid, {"5% false alarms": 0.95 * grid / (0.95 * grid + 0.05 * (1 - grid))}, 0.14),
        figures.padding_lines([45, 60], {"last position": [0.95, 0.5], "last real token": [0.95, 0.95]}, 45),
    ):
        assert len(fig.get_label().split()) > 10
