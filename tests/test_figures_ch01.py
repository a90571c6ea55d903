"""Chapter 1's figures with whatever a model may write: no token is too long, too strange or missing from the font."""

import warnings

import matplotlib as mpl
import pytest

from helpers import plots
from helpers.course.figures import ch01 as figures

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
        lambda: figures.next_token_bars({"a $ title $": STEPS, "nothing": [], "third": STEPS[:1]}),
        lambda: figures.next_token_bars({f"{n}\nprompt": STEPS for n in range(6)}, cols=3),
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
