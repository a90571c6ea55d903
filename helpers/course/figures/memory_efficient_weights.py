"""Pictures for the bonus notebook on memory-efficient weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...speed.rounding import round_weights
from ..plots import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_GREY,
    PALE_ORANGE,
    PAPER,
    VERMILION,
    arrow,
    box,
    canvas,
    describe,
    subplots,
)
from .shared import memory_bars

ROW = (0.42, -0.31, 0.12, -0.18, 0.25, -0.09, 2.1, 0.36)  # weights of one row, one of them large


def ways_to_load() -> Figure:
    """What lies in memory while a file of weights becomes a model, in four ways of loading."""
    fig, ax = canvas(7.4, 3.1)
    file, read, model = 0.45, 1.35, 2.25  # heights
    ax.plot([0.05, 7.35], [0.88, 0.88], color=GREY, lw=1, linestyle="--")
    ax.text(7.35, 0.91, "memory", ha="right", va="bottom", fontsize=9, color=INK)
    ax.text(7.35, 0.85, "disk", ha="right", va="top", fontsize=9, color=INK)
    titles = ("read, then copy", "take what was read", "map the file", "one by one")
    for x, title in zip((0.95, 2.75, 4.55, 6.25), titles, strict=True):
        ax.text(x, 2.85, title, ha="center", fontsize=10, weight="bold")
        box(ax, x, file, "file", 1.2, 0.42, PALE_GREY)
    box(ax, 0.95, read, "tensors read", 1.2, 0.42, PALE_ORANGE)
    box(ax, 0.95, model, "model", 1.2, 0.42, PALE_BLUE)
    arrow(ax, (0.95, 0.66), (0.95, 1.14))
    arrow(ax, (0.95, 1.56), (0.95, 2.04))
    ax.text(1.02, 1.8, "copied", va="center", fontsize=9)
    box(ax, 2.75, (read + model) / 2, "tensors read\n= model", 1.2, 0.56, PALE_BLUE)
    arrow(ax, (2.75, 0.66), (2.75, 1.52))
    box(ax, 4.55, (read + model) / 2, "model:\naddresses", 1.2, 0.56, PAPER, edge=BLUE)
    arrow(ax, (4.55, 0.66), (4.55, 1.52))
    ax.text(4.62, 1.1, "page by page,\nwhen used", va="center", fontsize=9)
    box(ax, 6.25, read, "one", 0.5, 0.34, PALE_ORANGE)
    box(ax, 6.25, model, "model", 1.2, 0.42, PALE_BLUE)
    arrow(ax, (6.25, 0.66), (6.25, 1.18))
    arrow(ax, (6.25, 1.52), (6.25, 2.04))
    ax.text(6.32, 1.78, "converted", va="center", fontsize=9)
    alt = (
        "Four columns, each with a file on disk below and what lies in memory above it. Read, then copy: the tensors "
        "read and, copied from them, the model. Take what was read: one box, which is both. Map the file: a model of "
        "addresses, filled page by page when used. One by one: a single tensor, converted into the model."
    )
    return describe(fig, alt)


def peaks(measured: Mapping[str, tuple[int, int]], weights: int) -> Figure:
    """Peak memory of ways to load, in multiples of the weights in float32: what stays, and what only loading takes.

    `measured` has the peak and what was kept of each way, in bytes.
    """
    peak, kept = (np.array([pair[part] for pair in measured.values()]) / weights for part in (0, 1))
    fig, ax = subplots(7, 0.42 * len(measured) + 1.1)
    memory_bars(ax, list(measured), kept, peak - kept, "only while loading", [f"{most:.1f}" for most in peak])
    ax.containers[0].set_label("kept")
    ax.axvline(1, color=GREY, lw=1, linestyle="--", zorder=0)
    ax.set(xlabel="times the weights in float32", xlim=(0, 2.4))
    ax.invert_yaxis()
    ax.legend(loc="lower right")
    alt = (
        "Bars of memory for each way of loading, in multiples of the weights: what is kept and, hatched, what is taken "
        "only while loading. The ways that build the model first and read the file beside it are about twice as long "
        "as those that take over what was read; the mapped file takes next to nothing until it is used."
    )
    return describe(fig, alt)


def rounded_row(bits: int) -> Figure:
    """One row of eight weights rounded to `bits` bits: with one scale for the row, and with one per four neighbours."""
    row = torch.tensor([ROW])
    fig, axes = subplots(7.2, 3.1, 1, 2, sharey=True)
    for ax, group, title in zip(axes, (8, 4), ("one scale for the row", "one scale per four weights"), strict=True):
        rounded = round_weights(row, bits, group)
        _levels(ax, bits, group)
        places = np.arange(1, len(ROW) + 1)
        ax.plot(places, ROW, "o", color=BLUE, ms=7, label="weight")
        ax.plot(places, rounded[0], "x", color=VERMILION, ms=8, mew=2, label="rounded")
        error = (rounded - row).abs()[0]
        ax.set(title=title, xlabel=f"mean error {error.mean():.3f}, of the first four {error[:4].mean():.3f}")
        ax.set_xticks(places)
    axes[0].set_ylabel("weight")
    axes[0].legend(loc="upper left")
    alt = (
        f"Eight weights of a row, the seventh much larger than the others, and what {bits} bits make of them. With one "
        "scale for the row the steps are as wide as the large weight demands. With one scale per four weights, the "
        "first four have narrow steps and their errors are smaller."
    )
    return describe(fig, alt)


def _levels(ax: Axes, bits: int, group: int) -> None:
    """Short lines at the multiples of each group's scale, as far as the picture reaches."""
    most = 2 ** (bits - 1) - 1
    for first in range(0, len(ROW), group):
        scale = max(map(abs, ROW[first : first + group])) / most
        for level in range(-most, most + 1):
            if -0.9 < level * scale < 2.4:
                ax.plot([first + 0.6, first + group + 0.4], [level * scale] * 2, color=PALE_GREY, lw=0.8, zorder=0)
    ax.set_ylim(-0.9, 2.4)


def cost_of_bits(rows: Sequence[tuple[str, float, float]], exact: float) -> Figure:
    """Perplexity of each format beside that of float32 (`exact`); `rows` has name, bits per weight and perplexity."""
    fig, ax = subplots(7, 0.36 * len(rows) + 1.1)
    ax.axvline(exact, color=GREY, lw=1, linestyle="--", zorder=0)
    for place, (*_, perplexity) in enumerate(rows):
        ax.plot([exact, perplexity], [place] * 2, color=ORANGE, lw=3, zorder=1)
        ax.plot(perplexity, place, "o", color=BLUE, ms=7, zorder=2)
        ax.text(1.15 * perplexity, place, f"{perplexity:,.1f}", va="center", fontsize=9)
    ax.set_yticks(range(len(rows)), labels=[f"{name}  ({bits:.3g} bits)" for name, bits, _ in rows])
    most = max(perplexity for *_, perplexity in rows)
    ax.set(xscale="log", xlabel="perplexity (dashed: float32)", xlim=(0.8 * exact, 2 * most))
    ax.invert_yaxis()
    alt = (
        "A dot for the perplexity of each format, on a logarithmic scale, joined with a dashed line for float32. From "
        "sixteen bits down to eight the dots lie on the line; at four bits a little to the right of it, with a scale "
        "per group nearer than with one per row; at three farther; at two bits far away."
    )
    return describe(fig, alt)
