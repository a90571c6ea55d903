"""Pictures for the bonus notebook on byte-pair encoding: words, orders and stages of merging, counts, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import regex
from matplotlib.figure import Figure

from ...bpe import GPT2_SPLIT
from .. import plots
from ..plots import arrow, box, canvas, describe, visible, write
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
    pieces = " | ".join(map(visible, words))
    return describe(fig, f"A line cut into {len(words)} pieces, coloured by kind, a dot for a space: {pieces}")


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
    said = [f"{caption}, {' | '.join(map(visible, pieces))}" for caption, pieces in rows]
    return describe(fig, f"A text cut into tokens, a dot for a space. {'; '.join(said)}.")


def two_orders(columns: Mapping[str, Sequence[tuple[str, Sequence[str]]]]) -> Figure:
    """A word after each merge, in columns for several orders of the same merges.

    `columns` holds, by title, the rows from top to bottom: what is joined ("" in the first row), and the pieces.
    """
    width, height = 7.2 / len(columns), 0.46 * max(map(len, columns.values())) + 0.5
    fig, ax = canvas(7.2, height)
    said = []
    for number, (title, rows) in enumerate(columns.items()):
        left = width * number + 0.1
        ax.text(left, height - 0.2, title, va="center", fontsize=9.5, weight="bold")
        for row, (merge, pieces) in enumerate(rows):
            y = height - 0.65 - 0.46 * row
            ax.text(left, y, merge or "bytes", va="center", fontsize=9, color=plots.INK if merge else plots.GREY)
            colors = [_NEW if merge == piece else plots.SHADE for piece in pieces]
            widths = [0.27 * len(piece) for piece in pieces]
            box_row(ax, left + 0.75, y, pieces, widths, colors, gap=0.04, height=0.34, fontsize=10)
        said.append(f"{title}: {'; '.join(' '.join(pieces) for _, pieces in rows)}")
    return describe(fig, f"A word after each merge that changes it. {'. '.join(said)}.")


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
    said = ", ".join(f"{' '.join(map(visible, pair))} by {change:+d}" for pair, change in changes.items())
    return describe(
        fig, f"{' '.join(before)} and, after a merge, {' '.join(after)}. Below, the pairs whose counts change: {said}."
    )


def characters_per_token(
    vocabulary: Sequence[int], curves: Mapping[str, np.ndarray], reference: tuple[str, float]
) -> Figure:
    """Characters per token against the size of the vocabulary: means over several splits, with all splits as a band.

    `curves` holds (splits, sizes) for each text; `reference` is the name and the value of a dotted line.
    """
    fig, ax = plots.subplots(6.4, 3.4)
    name, value = reference
    said, top = [], value
    for (label, values), marker, style in zip(curves.items(), "os^", ("-", "--", "-."), strict=False):
        mean = values.mean(axis=0)
        ax.fill_between(vocabulary, values.min(axis=0), values.max(axis=0), alpha=0.25, lw=0)
        ax.plot(vocabulary, mean, marker=marker, linestyle=style, markersize=5, label=label)
        said.append(f"{label}: {mean[0]:.2f} at {vocabulary[0]} and {mean[-1]:.2f} at {vocabulary[-1]}")
        top = max(top, values.max())
    ax.axhline(value, color=plots.GREY, lw=1.2, linestyle=":")
    ax.text(vocabulary[0], value + 0.05, name, fontsize=9)
    ax.set(xlabel="size of the vocabulary", ylabel="characters per token", ylim=(0.8, 1.1 * top))
    ax.legend(loc="lower right", fontsize=9)
    said.append(f"dotted, {name}: {value:.2f}")
    return describe(fig, f"Characters per token, over the size of the vocabulary. {'; '.join(said)}.")
