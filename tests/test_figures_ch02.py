"""Chapter 2's figures: what their alternative texts say is what was drawn, and nothing is cut off."""

import warnings
from collections import Counter

import matplotlib as mpl
import pytest
import torch

from helpers import get_tokenizer, plots
from helpers.course.figures import ch02 as figures

mpl.use("Agg")
TOKENIZER = get_tokenizer()
TOKENS = ["The", " ladder", " went", " down", " the", " hill", "."]
ROWS = torch.arange(28.0).view(7, 4) / 10


def words_on(fig):
    return [text.get_text() for ax in fig.axes for text in ax.texts]


FIGURES = {
    "pipeline": lambda: figures.pipeline("The hen.", TOKENIZER, torch.zeros(3, 2)),
    "word_map": lambda: figures.word_map({"hen": (0.5, -1.0), "run": (0.0, 1.0)}, {"a": ["hen"], "b": ["run"]}),
    "token_pieces": lambda: figures.token_pieces(["The hen", "😸"], TOKENIZER),
    "merge_steps": lambda: figures.merge_steps([[b"r", b"u", b"n"], [b"r", b"un"]], {b"un": 403}),
    "sliding_window": lambda: figures.sliding_window(TOKENS, 3, 2),
    "no window": lambda: figures.sliding_window(TOKENS, 7, 1),
    "batch": lambda: figures.batch(torch.tensor([[464, 262]]), torch.tensor([[262, 13]]), TOKENIZER),
    "lookup": lambda: figures.lookup(torch.zeros(4, 2), [2, 0, 2]),
    "add_positions": lambda: figures.add_positions(TOKENS, ROWS, ROWS),
    "absolute_and_relative": lambda: figures.absolute_and_relative(TOKENS),
    "token_statistics": lambda: figures.token_statistics(Counter({1: 3, 4: 9}), Counter({1: 8, 2: 1})),
}
SAID = {
    "pipeline": "split into 3 tokens",
    "word_map": "a: hen (0.50, −1.00). b: run (0.00, 1.00).",
    "token_pieces": "The 464 | ·hen 30963; <F0><9F><98> 47249 | <B8> 116.",
    "merge_steps": "in 1 merges, a row for each: merge un (id 403). At the end it has 2 pieces: r un.",
    "sliding_window": "input 1 has tokens 2 to 4, target 1 has 3 to 5.",
    "no window": "0 windows fit into these 7 tokens.",
    "batch": "inputs: The | ·the. targets: ·the | ..",
    "lookup": "The ids 2, 0, 2 point",
    "add_positions": "Three tables of 7 rows and 4 numbers",
    "absolute_and_relative": "from 0 to 6",
    "token_statistics": "most often 4. Right: different words by the number of tokens each needs: 8 need 1, 1 need 2.",
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_says_what_it_shows(name):
    fig = FIGURES[name]()
    assert SAID[name] in fig.get_label()
    assert plots.png(fig).startswith(b"\x89PNG")


def test_windows_are_those_of_the_dataset():
    """As many as fit, counted in the caption, also where fewer are drawn; the height does not change with them."""
    for max_length, stride in [(1, 1), (3, 1), (3, 2), (3, 8), (6, 1), (7, 1)]:
        fig = figures.sliding_window(TOKENS, max_length, stride, most=2)
        count = len(range(0, len(TOKENS) - max_length, stride))
        caption = words_on(fig)[-1]
        assert ("1 window fits" if count == 1 else f"{count} windows fit") in caption
        assert sum(word.startswith("input") for word in words_on(fig)) == min(count, 2)
        assert ("of them drawn" in caption) == (count > 2)
        assert fig.get_figheight() == figures.sliding_window(TOKENS, 1, 1, most=2).get_figheight()


def test_the_pieces_fill_the_picture():
    """No part at the right is empty, and a long line is broken."""
    short = figures.token_pieces(["The hen."], TOKENIZER)
    right = max(patch.get_x() + patch.get_width() for patch in short.axes[0].patches)
    assert right <= short.get_figwidth() <= right + 0.2
    assert figures.token_pieces(["The hen. " * 20], TOKENIZER).get_figwidth() <= 7


TYPED = ["$$ or $x_1$", "猫の 안녕 🐭", "-" * 200, "word " * 40, "\t", " ", "<|endoftext|>"]


@pytest.mark.parametrize("text", TYPED)
def test_whatever_a_reader_types_can_be_drawn(text):
    """No formula is read into it, no character is missing in the font, no piece is wider than the picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fig = figures.token_pieces([text], TOKENIZER)
        fig.draw_without_rendering()
    boxes = [patch.get_window_extent() for patch in fig.axes[0].patches]
    pieces = [label.get_window_extent() for label in fig.axes[0].texts if label.get_fontsize() == 9]
    assert fig.get_figwidth() <= 7 and len(boxes) == len(pieces)
    assert all(box.x0 <= piece.x0 and piece.x1 <= box.x1 for box, piece in zip(boxes, pieces, strict=True))


def test_labels_of_the_tables_are_within_the_picture():
    fig = figures.add_positions(TOKENS, ROWS, -ROWS - 0.02)
    fig.draw_without_rendering()
    labels = [label for ax in fig.axes for label in ax.get_yticklabels()]
    assert min(label.get_window_extent().x0 for label in labels) >= 5
    assert words_on(fig)[:2] == ["0.0", "0.1"] and "−0.1" in words_on(fig) and "−0.0" not in words_on(fig)
