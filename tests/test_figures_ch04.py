"""Chapter 4's figures: their alternative text says what they show, and what grows is seen to grow."""

import matplotlib as mpl
import pytest
import torch

from helpers import GPT_CONFIG_124M, GPT_SIZES, gpt_config, plots
from helpers.course.figures import ch04 as figures
from helpers.gpt import count_parameters

mpl.use("Agg")
STRANGE = ["$", "$$x_1$", "\\$", "\n", "", "\ufffd", "-" * 30, "%", "{}"]
SMALLEST, LARGEST = {"emb_dim": 64, "n_layers": 1, "vocab_size": 257}, {"emb_dim": 1600, "n_layers": 48}
SEEDS = [[1e-15, 2e-15, 3e-15], [1e-8] * 3, [0.02] * 3, [1e9, 2e9, 3e9]]

pytestmark = pytest.mark.filterwarnings("error")


def flat_probabilities(favourite=0.0002):
    p = torch.full((50257,), (1 - favourite) / 50256)
    p[7] = favourite
    return p


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (figures.chapter_map, ["TransformerBlock", "twelve blocks"]),
        (lambda: figures.gradients_by_scale([0.5, 1, 1.73, 3], SEEDS, SEEDS[2:] + SEEDS[2:]), ["from 2e-15 to 2e+09"]),
        (
            lambda: figures.layer_norm_effect(torch.tensor([[0.0, 0.5]]), torch.tensor([[-1.0, 1.0]])),
            ["between 0.00 and 0.50", "between −1.00 and 1.00"],
        ),
        (figures.normalization_axes, ["one row", "one column"]),
        (lambda: figures.gelu_and_relu(torch.nn.GELU()), ["kink at 0"]),
        (lambda: figures.feed_forward(8, 3), ["column of 8 numbers", "24"]),
        (lambda: figures.shortcut_nets([2e-4, 1e-3, 5e-3], [0.2, 0.3, 1.3]), ["3-layer", "0.00020", "1.30000"]),
        (
            lambda: figures.layer_gradients(dict.fromkeys("abcd", [[1e-12, 1e-6, 1.0]] * 2)),
            ["3 layers", "a: 1e-12 in the first and 1e+00 in the last layer"],
        ),
        (figures.transformer_block, ["LayerNorm, attention, dropout, plus the shortcut"]),
        (lambda: figures.gpt_model(gpt_config("355M")), ["24 transformer blocks", "(B, T, 1024)", "from the side"]),
        (lambda: figures.parameter_growth(gpt_config(emb_dim=1536)), ["feed-forward 226.58 (4 times)"]),
        (lambda: figures.parameter_shares({"124M": GPT_CONFIG_124M}), ["feed-forward 35%", "output layer 24%"]),
        (lambda: figures.changes(torch.ones(2, 2).triu() * 2.2, ["a", "b"]), ["diagonal is 0.00", "2.20 and 2.20"]),
        (
            lambda: figures.next_token_probabilities(flat_probabilities(), flat_probabilities(0.4), STRANGE),
            ["none above 0.020 percent", "the first 100 hold 40% in the trained and 0.2% in the untrained model"],
        ),
        (lambda: figures.generation_loop([["a", "·b"], ["a", "·b", "·c"]]), ["to a·b·c."]),
    ],
)
def test_the_alternative_text_is_made_from_what_is_drawn(draw, words):
    fig = draw()
    for word in words:
        assert word in fig.get_label(), fig.get_label()
    assert plots.png(fig).startswith(b"\x89PNG")


@pytest.mark.parametrize("changes", [SMALLEST, {}, LARGEST, {**LARGEST, "vocab_size": 100257}, {"emb_dim": 1536}])
def test_what_grows_is_seen_to_grow(changes):
    """The limits of the widget's figure are fixed, and every dot lies between them at both ends of every slider."""
    cfg = gpt_config(**changes)
    (ax,) = figures.parameter_growth(cfg).axes
    assert ax.get_xlim() == figures.parameter_growth(GPT_CONFIG_124M).axes[0].get_xlim()
    low, high = ax.get_xlim()
    for row, (name, number) in enumerate(count_parameters(cfg).items()):
        hollow, filled = (line.get_xdata()[0] for line in ax.lines[3 * row + 1 : 3 * row + 3])
        assert (hollow, filled) == (count_parameters(GPT_CONFIG_124M)[name], number)
        assert low < filled < high


def test_shares_of_all_sizes_add_up():
    (ax,) = figures.parameter_shares({size: gpt_config(size) for size in GPT_SIZES}).axes
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert ends[-4:] == pytest.approx([1.0] * 4)


def test_layer_norm_bars_are_as_long_as_the_standard_deviation():
    """The biased one, as LayerNorm divides by it: after it, the bars reach from -1 to 1."""
    before = torch.tensor([[0.0, 0.5, 0.1, 0.3]])
    after = (before - before.mean()) / before.std(unbiased=False)
    _, right = figures.layer_norm_effect(before, after).axes
    assert right.lines[0].get_xdata() == pytest.approx([-1.0, 1.0])
