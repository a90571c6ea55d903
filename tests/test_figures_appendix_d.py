"""Appendix D's figures: their alternative text says what they show, and what grows is seen to grow."""

import matplotlib as mpl
import numpy as np
import pytest

from helpers import plots
from helpers.course.figures import appendix_d as figures

mpl.use("Agg")
FINALS = {"constant": np.array([[1.0, 5.0], [2.0, 6.0]]), "warm-up": np.array([[0.5, 7.0], [0.7, 7.5]])}

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            lambda: figures.step_lengths([1.0, 0.8, 0.7, 0.6, 0.55, 0.5] + [0.25] * 30),
            ["36 updates", "1.00", "0.25 on"],
        ),
        (lambda: figures.schedule(0.2, 10.0, 0.1), ["135 updates", "rise to 10e-4 over the first 27", "above 0.1e-4"]),
        (lambda: figures.valley({"constant": [9.0, 0.58], "cosine": [8.0, 0.21]}), ["cosine: from 8.00 to 0.21"]),
        (lambda: figures.clipping((2.4, 3.2), 1.0, 1.0), ["(2.4, 3.2)", "orange-red arrow (0.6, 0.8)", "(1, 1)"]),
        (
            lambda: figures.outlier(
                {"SGD": {"free": [7, 5, 300], "limit 1": [7, 5, 5]}, "AdamW": {"free": [7, 5, 6]}}, 1
            ),
            ["SGD, free: 5.0 before it, 300.0 at worst after", "AdamW, free: 5.0 before it, 6.0 at worst"],
        ),
        (
            lambda: figures.training_run(range(0, 10, 5), [11.0, 4.0], [11.1, 5.0], [0, 1, 2, 3, 2, 1, 1, 1, 1, 0]),
            ["Training: from 11.0 to 4.0; validation: from 11.1 to 5.0", "peak at update 3"],
        ),
        (lambda: figures.accumulation(10, 4), ["10 batches", "3 updates", "means of 4, 4, 2 batches"]),
        (lambda: figures.final_losses(FINALS), ["warm-up: training 0.60, validation 7.25"]),
    ],
)
def test_the_alternative_text_is_made_from_what_is_drawn(draw, words):
    fig = draw()
    for word in words:
        assert word in fig.get_label(), fig.get_label()
    assert plots.png(fig).startswith(b"\x89PNG")


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("peak", [1.0, 20.0])
@pytest.mark.parametrize("minimum", [0.0, 1.0])
def test_a_schedule_fits_into_fixed_limits(share, peak, minimum):
    """At both ends of every slider; a higher peak is drawn higher."""
    (ax,) = figures.schedule(share, peak, minimum).axes
    assert ax.get_ylim() == figures.schedule().axes[0].get_ylim()
    rates = ax.lines[0].get_ydata()
    assert len(rates) == 135 and min(rates) >= 0
    assert max(rates) == pytest.approx(peak, rel=0.01)
    assert max(rates) < ax.get_ylim()[1]
    assert f"{int(share * 135)} of 135" in ax.get_title()


def test_every_loss_is_a_dot_on_the_row_of_its_recipe():
    (ax,) = figures.final_losses(FINALS).axes
    dots = [
        (x, round(y)) for line in ax.lines if line.get_marker() in "os" for x, y in zip(*line.get_data(), strict=True)
    ]
    assert sorted(dots) == sorted(
        (loss, row) for row, values in enumerate(FINALS.values()) for loss in values.flatten()
    )
    assert [label.get_text() for label in ax.get_yticklabels()] == list(FINALS)


def test_each_batch_leads_to_its_update():
    (ax,) = figures.accumulation(7, 3).axes
    assert sum(text.get_text().startswith("batch") for text in ax.texts) == 7
    assert [text.get_text() for text in ax.texts if "update" in text.get_text()][-1] == "update 3: mean of 1"
