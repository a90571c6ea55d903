"""Chapter 1's figures with whatever a model may write: no token is too long, too strange or missing from the font."""

import warnings

import matplotlib as mpl
import pytest
import torch

from helpers import plots
from helpers.course.figures import ch01 as figures
from helpers.course.figures.ch03 import sentence_pattern

mpl.use("Agg")
STRANGE = ["$", "$$x_1$", "\\", "\\$", "\n", "", "、", "\ufffd", "\x0b", "-" * 128, " 안녕", "%", "{}"]
STEPS = [(token, 0.01 * number) for number, token in enumerate(STRANGE)]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")  # what matplotlib says of characters that the font lacks
        yield


def words_on(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.growing_text(STRANGE[:5], STEPS),
        lambda: figures.continuations({"one": (STRANGE, STEPS), "two": (["a"], []), "three": ([], STEPS * 9)}),
        lambda: figures.next_token_bars({"a $ title $\nof 안녕": STEPS, "nothing": [], "third": STEPS[:1]}),
        lambda: figures.next_token_bars({f"{n}\nprompt": STEPS for n in range(6)}, cols=3),
        lambda: sentence_pattern(STRANGE, torch.eye(len(STRANGE)), "chapter 3's heads"),
    ],
)
def test_strange_tokens_are_drawn_without_a_warning(draw):
    assert plots.png(draw()).startswith(b"\x89PNG")


def test_what_stays_on_the_canvas():
    """Every text of the growing rows and of the continuations lies within the picture."""
    for fig in (
        figures.growing_text(["She", " had"], [(" ladders", 0.5)] * 8),
        figures.continuations({"model": (["She", " had"], [(" ladders", 0.5)] * 60)}),
    ):
        (ax,) = fig.axes
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        for text in ax.texts:
            x, y = text.get_position()
            assert left <= x <= right and low <= y <= high, text.get_text()


def test_followers_counts_what_comes_after_a_word():
    words = words_on(figures.followers(["the", "cat", "sat", "on", "the", "mat", "and", "the", "cat", "ran"], "the"))
    assert "2 of 3 = 0.67" in words and "1 of 3 = 0.33" in words


def test_a_model_that_knows_nothing_is_said_to_know_nothing():
    assert "it has never seen this token" in words_on(figures.next_token_bars({"bigram": [], "model": STEPS}))


def test_a_decoder_sees_no_later_word_and_an_encoder_all():
    encoder, decoder = figures.who_sees_whom(["a", "b", "c"]).axes
    assert [text.get_text() for text in encoder.texts] == ["sees"] * 9
    assert [text.get_text() for text in decoder.texts] == [
        "sees",
        "–",
        "–",
        "sees",
        "sees",
        "–",
        "sees",
        "sees",
        "sees",
    ]


def test_shares_of_the_training_mix():
    words = words_on(figures.training_mix({"one": (30, 0.5), "two": (10, 0.5)}))
    assert words == ["75.0%", "25.0%", "50.0%", "50.0%"]


def test_alternatives_say_what_the_pictures_show():
    bars = figures.next_token_bars({"bigram\nShe had": [(" been", 0.25), (" a", 0.1)], "unknown": []})
    assert "bigram She had: 'been' with 0.250" in bars.get_label()
    assert "'a' 0.50, 'b' 0.25" in figures.growing_text(["x"], [(" a", 0.5), ("\nb", 0.25)]).get_label()
    assert "cold: She had been" in figures.continuations({"cold": (["She", " had"], [(" been", 0.5)])}).get_label()
    assert "cat 2 of 3" in figures.followers(["the", "cat", "the", "mat", "the", "cat"], "the").get_label()
    assert "one 75.0% and 50%" in figures.training_mix({"one": (30, 0.5), "two": (10, 0.5)}).get_label()


def test_the_fields_lie_in_each_other():
    """Each set of the picture is drawn inside the one that holds it; GenAI overlaps with language models."""
    (ax,) = figures.fields().axes
    outer, middle, inner, models, generative = (patch.get_extents() for patch in ax.patches)
    for large, small in ((outer, middle), (middle, inner), (inner, models), (inner, generative)):
        assert large.x0 < small.x0 and small.x1 < large.x1 and large.y0 < small.y0 and small.y1 < large.y1
    assert models.x0 < generative.x0 < models.x1 < generative.x1
