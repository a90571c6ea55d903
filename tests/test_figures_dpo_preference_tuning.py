"""The figures of the notebook on DPO: their alternative text says what they show, and what is marked is right."""

import math

import matplotlib as mpl
import pytest

from helpers import plots
from helpers.course.figures import dpo_preference_tuning as figures

mpl.use("Agg")
TOKENS = {
    "chosen": [("Glad", -1.5), ("ly", -0.001), ("$x_1$", -7.25), ("<|endoftext|>", -0.3)],
    "rejected": [("Look", -0.25), ("<|endoftext|>", -1.0)],
}
SEEN = [
    {"step": 0, "chosen": -20.0, "rejected": -19.0, "margin": 0.0, "accuracy": 0.0},
    {"step": 12, "chosen": -24.5, "rejected": -40.0, "margin": 1.25, "accuracy": 1.0},
]
ROW = {
    "greedy": {"friendly": 0.25, "curt": 0.75},
    "drawn": {"friendly": 0.3, "curt": 0.6},
    "content": {"change": -0.125, "error": 0.02},
}

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: figures.choice_and_loss(1.0), ["0.731 at a difference of 1", "0.313"]),
        (lambda: figures.choice_and_loss(-4.0), ["0.018 at a difference of -4", "4.018"]),
        (
            lambda: figures.tokens_of_answers(TOKENS),
            ["chosen answer -1.5 nats, all tokens -9.1", "rejected answer -0.2"],
        ),
        (
            lambda: figures.goal_by_share(1 / 3, (10.0, 1.0, 0.2)),
            ["has 0.333", "0.356 for beta 10", "0.576 for beta 1", "0.987 for beta 0.2"],
        ),
        (
            lambda: figures.loss_by_beta(0.2),
            ["beta 0.2 falls from 0.69", "to 0.13 at", "0.12 of beta at a change of 10"],
        ),
        (lambda: figures.loss_by_beta(0.5), ["to 0.01 at"]),
        (lambda: figures.tuning(SEEN), ["over 12 updates", "from -20.0 to -24.5", "0.00 to 1.25", "to 1.00"]),
        (lambda: figures.tuning(SEEN, epoch=6), ["over 12 updates"]),
        (
            lambda: figures.manners({"before": ROW, "after": ROW}),
            ["2 models", "before: most probable answers 25% friendly and 75% curt, drawn ones 30% and 60%, F1 -0.12"],
        ),
    ],
)
def test_the_alternative_text_is_made_from_what_is_drawn(draw, words):
    fig = draw()
    for word in words:
        assert word in fig.get_label(), fig.get_label()
    assert plots.png(fig).startswith(b"\x89PNG")


@pytest.mark.parametrize("beta", [0.2, 1.0, 10.0])
def test_the_best_policy_is_that_of_the_formula(beta):
    """The highest point of the drawn curve, found among a thousand, is where the closed form has it."""
    (ax,) = figures.goal_by_share(0.25, (beta, 1.0)).axes[:1]
    weights = 0.25 * math.exp(1 / beta), 0.75
    assert ax.lines[-1].get_xdata()[0] == pytest.approx(weights[0] / sum(weights), abs=6e-4)


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5, 1.0])
def test_one_curve_of_loss_by_beta_is_the_chosen_one(beta):
    """At both ends of the slider, and where the chosen beta is one of the others."""
    left, right = figures.loss_by_beta(beta).axes
    named = [line for line in left.lines if line.get_label() == f"β = {beta:g}"]
    assert len(named) == 1 and left.get_legend().get_texts()[0].get_text() == f"β = {beta:g}"
    assert left.get_ylim() == (0, 2.2) and right.get_ylim() == (0, 1.05)


def test_shares_fill_their_bars_and_errors_are_two_standard_errors():
    greedy, drawn, content = figures.manners({"before": ROW}).axes
    for ax, shares in ((greedy, ROW["greedy"]), (drawn, ROW["drawn"])):
        widths = [bar.get_width() for bar in ax.patches]
        assert widths[:2] == pytest.approx([shares["friendly"], shares["curt"]])
        assert sum(widths) == pytest.approx(1)
    (segment,) = content.collections[0].get_segments()
    assert sorted(segment[:, 0]) == pytest.approx([-0.165, -0.085])
