"""Chapter 5's pictures: what they say agrees with what the code does, and their alternatives with what is drawn."""

from __future__ import annotations

import matplotlib as mpl
import pytest
import torch

from helpers import choose_next
from helpers.course.figures import ch05 as figures
from helpers.course.plots import png

mpl.use("Agg")
STRANGE = ["$", "$$x_1$", "\\$", "\n", "", "\ufffd", "-" * 30, "%", "{}"]
LOGITS = torch.tensor([3.0, 1.0, 2.0])

pytestmark = pytest.mark.filterwarnings("error")


def curves(train, val, counted=447.0):
    seen = [256 * (1 + n) for n in range(len(train))]
    return figures.perplexity_curves([n / 5 for n in range(len(train))], seen, train, val, 50257, counted)


def table(**rows):
    words = ["the", "old", "cat", "man", "sat"]
    result = torch.full((5, 5), 0.01)
    for word, followers in rows.items():
        for follower, p in followers.items():
            result[words.index(word), words.index(follower)] = p
    return words, result


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            lambda: figures.loss_pipeline(["a", "a b"], ["b", "c"], [0.5, -0.5], [0.5, 0.125]),
            ["2 rows", "mean, −1.3863", "loss, 1.3863", "perplexity, 4."],
        ),
        (lambda: figures.text_split((900, 7), (100, 1), 128), ["900 tokens, is cut into 7", "100 tokens, into 1"]),
        (lambda: figures.surprise([0.5, 0.01]), ["0.69 at p = 0.5, 4.61 at p = 0.01"]),
        (figures.training_cycle, ["forget the old gradients", "backward: the gradients"]),
        (lambda: curves([9, 5, 1], [9, 6, 6.5]), ["from 8,103 to 2.7", "lowest point, 403", "after 0.2", "at 665"]),
        (lambda: curves([10.0], [10.0]), ["at 447 (counting tokens)"]),
        (
            lambda: figures.temperature_bars(["a", "b", "c"], LOGITS, (1.0, 5.0)),
            ["At 1 a has 0.665 and b 0.090", "at 5 a has 0.402"],
        ),
        (
            lambda: figures.cut(["␣a", "b", "c"], LOGITS, 1.0, top_k=2, height=1.1),
            ["3 most probable tokens at temperature 1, top-k 2", "2 of 3 tokens are left", "a 73%, c 27%."],
        ),
        (lambda: figures.cut(STRANGE, torch.arange(9.0)), ["9 of 9 tokens are left"]),
        (
            lambda: figures.beam_tree(
                *table(the={"cat": 0.5, "old": 0.4}, old={"man": 0.9}, cat={"sat": 0.4, "man": 0.3}), "the"
            ),
            ["Greedy decoding goes to cat with 0.50", "together 0.200", "old with 0.40 and then man with 0.90"],
        ),
        (figures.checkpoint_contents, ["save_model holds the weights", "random state now (dropout)"]),
        (
            lambda: figures.perplexity_bars(["x", "y"], {"one": [50000, 20], "two": [1.4, 3]}),
            ["on x, y, of 2 models", "one: 50,000.0, 20.0; two: 1.4, 3.0."],
        ),
        (lambda: figures.verbatim(["a", "$", "\n", "", "%"], 2, 1), ["1 tokens were given; the next 2"]),
        (
            lambda: figures.two_ways(["a", "b"], torch.tensor([0.0, 0.0]), torch.tensor([0.5, -0.5]), 1),
            ["a 0.5000 and +0.5000", "b 0.5000 and -0.5000", "target, b"],
        ),
        (
            lambda: figures.tail_mass([1, 10], torch.tensor([[0.5, 0.1], [0.7, 0.3]]), "a text"),
            ["in a text", "60% beyond the top 1, 20% beyond the top 10"],
        ),
    ],
)
def test_the_alternative_text_is_made_from_what_is_drawn(draw, words):
    fig = draw()
    for word in words:
        assert word in fig.get_label(), fig.get_label()
    assert png(fig).startswith(b"\x89PNG")


def test_the_cut_keeps_what_choose_next_draws_from():
    logits = torch.randn(30, generator=torch.Generator().manual_seed(8)) * 2
    for options in ({"top_k": 4}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.5}, {}):
        fig = figures.cut([str(n) for n in range(30)], logits, 1.3, **options)
        title = fig.axes[0].get_title()
        png(fig)  # draws and closes it
        rows = logits.expand(6000, -1)
        drawn = choose_next(rows, temperature=1.3, generator=torch.Generator().manual_seed(1), **options)
        kept = int(title.split(": ")[1].split(" of ")[0])
        seen = len(drawn.unique())
        assert seen <= kept and (seen == kept or not options)


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(0.1, 1, 0.05), (5.0, None, None), (1.0, 50, 1.0)])
def test_the_widget_keeps_its_axis_at_both_ends_of_its_sliders(temperature, top_k, top_p):
    logits = 3 * torch.randn(500, generator=torch.Generator().manual_seed(8))
    fig = figures.cut([str(n) for n in range(500)], logits, temperature, top_k, top_p, height=1.1)
    assert fig.axes[0].get_ylim() == (0, 1.1)
    assert max(bar.get_height() for bar in fig.axes[0].patches) <= 1
    png(fig)
