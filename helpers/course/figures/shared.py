"""What figures of several notebooks have in common: whole pictures, and rows, tables and bars within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle

from ..plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_ORANGE,
    PAPER,
    SHADE,
    box,
    canvas,
    describe,
    heatmap,
    visible,
    write,
)


def printable(text: str) -> str:
    """A text as it can be drawn: with a box for each character that the font lacks, and $ without a formula."""
    font = get_font(findfont("DejaVu Sans"))
    return "".join(c if c == "\n" or font.get_char_index(ord(c)) else "□" for c in text).replace("$", r"\$")


def drawable(token: str | bytes, most: int = 40) -> str:
    """A token as it can be drawn: at most `most` characters, spaces and new lines made visible (see `printable`)."""
    shown = visible(token)
    return printable(shown if len(shown) <= most else shown[: most - 1] + "…")


def number_formats() -> Figure:
    """How many bits of float32, bfloat16 and float16 hold the sign, the exponent (range) and the fraction (precision).

    For appendices A and D.
    """
    fig, ax = canvas(7, 2.2)
    for row, (name, exponent, fraction) in enumerate((("float32", 8, 23), ("bfloat16", 8, 7), ("float16", 5, 10))):
        y, unit, left = 1.62 - 0.6 * row, 0.17, 1.05
        ax.text(left - 0.12, y, name, ha="right", va="center", weight="bold")
        for bits, color, text in (
            (1, SHADE, "±"),
            (exponent, PALE_ORANGE, f"exponent {exponent}"),
            (fraction, PALE_BLUE, f"fraction {fraction}"),
        ):
            ax.add_patch(Rectangle((left, y - 0.19), unit * bits, 0.38, facecolor=color, edgecolor=INK))
            for bit in range(1, bits):
                ax.plot([left + unit * bit] * 2, [y - 0.19, y - 0.12], color=GREY, lw=0.7)
            write(ax, left + unit * bits / 2, y + 0.02, text, fontsize=9)
            left += unit * bits
        ax.text(6.6, y, f"{(1 + exponent + fraction) // 8} bytes", ha="left", va="center", fontsize=9)
    alt = (
        "Three bars of bits. float32: sign, 8 bits of exponent, 23 of fraction. bfloat16: sign, 8 of exponent, 7 of "
        "fraction. float16: sign, 5 of exponent, 10 of fraction."
    )
    return describe(fig, alt)


def attention_mask(ax: Axes, words: Sequence[str], causal: bool = True) -> None:
    """Squares of words by words, dark where the row's word sees the column's.

    With a `causal` mask, each word sees itself and the words before it, otherwise all.
    """
    size = len(words)
    seen = np.tril(np.ones((size, size))) if causal else np.ones((size, size))
    heatmap(ax, seen, words, words, fmt=None, vmin=0, vmax=2.2)
    ax.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=PAPER, lw=1.5)
    ax.tick_params(which="minor", length=0)


def box_row(
    ax: Axes,
    left: float,
    y: float,
    texts: Sequence[str],
    widths: float | Sequence[float],
    colors: str | Sequence[str],
    gap: float = 0.04,
    height: float = 0.34,
    **box_options,
) -> np.ndarray:
    """Draw boxes with texts side by side from `left` on; returns the x of their centres.

    Each takes its width, of which `gap` stays free. One width, or one colour, serves for all.
    """
    widths = np.broadcast_to(widths, len(texts))
    colors = [colors] * len(texts) if isinstance(colors, str) else colors
    centres = left + np.cumsum(widths) - widths / 2
    for text, x, width, color in zip(texts, centres, widths, colors, strict=True):
        box(ax, x, y, text, width - gap, height, color, **box_options)
    return centres


def rows_that_fit(widths: Sequence[float], room: float) -> list[list[int]]:
    """The indices of pieces of these widths, in order, broken into rows of at most `room`.

    A piece that is wider than that has a row of its own.
    """
    rows: list[list[int]] = []
    used = 0.0
    for index, width in enumerate(widths):
        if not rows or used + width > room:
            rows.append([])
            used = 0.0
        rows[-1].append(index)
        used += width
    return rows


def grouped_bars(
    ax: Axes,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    colors: Sequence[str],
    fill: float = 1.0,
) -> list[BarContainer]:
    """Bars side by side in each group, one per series (by name, one value per group); returns the bars per series.

    The bars of a group take 0.8 of its space, each of them the share `fill` of its own.
    """
    width, drawn = 0.8 / len(series), []
    for number, ((name, values), color) in enumerate(zip(series.items(), colors, strict=False)):
        places = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        drawn.append(ax.bar(places, values, width * fill, color=color, label=name))
    ax.set_xticks(range(len(groups)), labels=groups)
    return drawn


def memory_bars(
    ax: Axes,
    names: Sequence[str],
    weights: Sequence[float],
    extra: Sequence[float],
    label: str,
    notes: Sequence[str],
) -> None:
    """Horizontal bars of memory: the weights, then, hatched, what comes on top of them (`label`), then a note each."""
    ax.barh(names, weights, color=BLUE, label="weights")
    ax.barh(names, extra, left=weights, color=ORANGE, hatch="//", edgecolor=INK, lw=0.5, label=label)
    for row, note in enumerate(notes):
        ax.text(weights[row] + extra[row], row, f"  {note}", va="center", fontsize=9)
