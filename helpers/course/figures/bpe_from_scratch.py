"""Pictures for the bonus notebook on byte-pair encoding: words, stages of merging, counts that change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import regex
from matplotlib.figure import Figure

from ...bpe import GPT2_SPLIT
from .. import plots
from ..plots import arrow, box, canvas, visible, write
from .shared import box_row

# The alternatives of GPT-2's pattern, each with its colour.
_KINDS = {
    "letters": (r" ?\p{L}+", plots.PALE_BLUE),
    "ending": (r"'(?:[sdmt]|ll|ve|re)", plots.PALE_PINK),
    "digits": (r" ?\p{N}+", plots.PALE_ORANGE),
    "other marks": (r" ?[^\s\p{L}\p{N}]+", plots.PALE_GREEN),
    "white space": (r"\s+", plots.SHADE),
}
_NEW, _GONE = plots.PALE_GREEN, plots.PALE_VERMILION


def words_by_kind(text: str) -> Figure:
    """A text cut by GPT-2's pattern, each piece in the colour of the alternative that matched it."""
    words = regex.findall(GPT2_SPLIT, text)
    unit = 6.8 / sum(len(word) + 0.6 for word in words)
    fig, ax = canvas(7, 1.25)
    widths = [unit * (len(word) + 0.6) for word in words]
    colors = [next(color for kind, color in _KINDS.values() if regex.fullmatch(kind, word)) for word in words]
    box_row(ax, 0.1, 0.9, [visible(word) for word in words], widths, colors, gap=0.03, height=0.4)
    for number, (kind, (_, color)) in enumerate(_KINDS.items()):
        left = 0.1 + 1.37 * number
        box(ax, left + 0.13, 0.25, "", width=0.26, height=0.2, color=color)
        ax.text(left + 0.34, 0.25, kind, va="center", fontsize=9)
    return fig


def stages(rows: Sequence[tuple[str, Sequence[bytes]]]) -> Figure:
    """The same text in several stages of merging, one below the other: each with its caption and its pieces."""
    unit = 6.8 / max(sum(len(piece) for piece in pieces) for _, pieces in rows)
    height = 0.72 * len(rows)
    fig, ax = canvas(7, height)
    for number, (caption, pieces) in enumerate(rows):
        top, x = height - 0.72 * number, 0.1
        ax.text(0.1, top - 0.14, caption, va="center", fontsize=9, weight="bold")
        for piece in pieces:
            width, text = unit * len(piece), visible(piece)
            color = plots.SHADE if len(piece) == 1 else plots.PALE_BLUE
            size = min(9, 9 * width / (plots.CHAR_WIDTH * len(text) + 0.03))
            box(ax, x + width / 2, top - 0.45, text, width=width - 0.025, height=0.34, color=color, fontsize=size)
            x += width
    return fig


def count_changes(before: Sequence[str], after: Sequence[str], changes: Mapping[tuple[str, str], int]) -> Figure:
    """A word before and after a merge, and below them the pairs whose counts change, with the change."""
    fig, ax = canvas(7, 2.55)
    for y, name, pieces in [(2.25, "before", before), (1.45, "after", after)]:
        ax.text(0.1, y, name, va="center", weight="bold", fontsize=9)
        widths = [0.5 * len(piece) for piece in pieces]
        colors = [plots.SHADE if piece in before else _NEW for piece in pieces]
        box_row(ax, 1.0, y, [visible(piece) for piece in pieces], widths, colors, gap=0.06, height=0.38, fontsize=10)
    arrow(ax, (1.0 + 0.25 * len("".join(before)), 2.02), (1.0 + 0.25 * len("".join(before)), 1.68), color=plots.GREY)
    ax.text(0.1, 0.62, "counts", va="center", weight="bold", fontsize=9)
    for number, (pair, change) in enumerate(sorted(changes.items(), key=lambda item: item[1])):
        x = 1.0 + 1.15 * number
        label = " ".join(map(visible, pair))
        box(ax, x + 0.48, 0.62, label, width=0.98, height=0.38, color=_NEW if change > 0 else _GONE, fontsize=10)
        write(ax, x + 0.48, 0.24, f"{change:+d}".replace("-", "−"), fontsize=10, color=plots.INK)
    return fig
