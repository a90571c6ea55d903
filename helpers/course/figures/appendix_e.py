"""Pictures for appendix E: a low-rank update, its number of parameters, adapters on one base, rank and accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .. import plots
from .shared import grouped_bars

_FROZEN, _TRAINED = plots.PALE_GREY, plots.PALE_ORANGE


def low_rank() -> Figure:
    """A frozen weight matrix and, parallel to it, the product of two thin matrices: their outputs are added."""
    fig, ax = plots.canvas(7.1, 3.0)
    plots.box(ax, 0.55, 1.5, "x\n(d)", width=0.7, height=0.7)
    ax.add_patch(Rectangle((2.2, 1.62), 1.2, 1.2, facecolor=_FROZEN, edgecolor=plots.INK))
    plots.write(ax, 2.8, 2.22, "W\n(d × d')\nfrozen", fontsize=9)
    ax.add_patch(Rectangle((1.75, 0.1), 0.34, 1.2, facecolor=_TRAINED, edgecolor=plots.INK))
    plots.write(ax, 1.92, 0.7, "A", fontsize=10, fontweight="bold")
    ax.text(2.18, 0.22, "(d × r)", ha="left", va="center", fontsize=8.5)
    ax.add_patch(Rectangle((3.3, 0.53), 1.2, 0.34, facecolor=_TRAINED, edgecolor=plots.INK))
    plots.write(ax, 3.9, 0.7, "B", fontsize=10, fontweight="bold")
    plots.write(ax, 3.9, 0.34, "(r × d')", fontsize=8.5)
    plots.write(ax, 2.7, 0.92, "r numbers", fontsize=8.5, color=plots.DARK_ORANGE)
    plots.box(ax, 5.45, 0.7, "× α/r", width=0.75, height=0.42)
    plots.box(ax, 5.45, 1.5, "+", width=0.42, height=0.42, fontsize=13)
    plots.box(ax, 6.6, 1.5, "y\n(d')", width=0.7, height=0.7)
    plots.arrow(ax, (0.9, 1.66), (2.2, 2.2))
    plots.arrow(ax, (0.9, 1.34), (1.75, 0.85))
    plots.arrow(ax, (2.09, 0.7), (3.3, 0.7), color=plots.ORANGE, lw=2)
    plots.arrow(ax, (4.5, 0.7), (5.07, 0.7))
    plots.arrow(ax, (5.45, 0.91), (5.45, 1.29))
    plots.arrow(ax, (3.4, 2.2), (5.24, 1.62))
    plots.arrow(ax, (5.66, 1.5), (6.25, 1.5))
    return fig


def parameter_counts(rank: int = 16, in_dim: int = 768, out_dim: int = 768) -> Figure:
    """The number of parameters that A and B have together, over the rank, beside that of the full matrix W."""
    whole, top = in_dim * out_dim, min(in_dim, out_dim)
    ranks = np.arange(1, top + 1)
    now = rank * (in_dim + out_dim)
    fig, ax = plots.subplots(6.6, 3.3)
    ax.axhline(whole / 1e3, color=plots.GREY, linestyle="--", lw=1.5)
    ax.text(top * 0.01, whole / 1e3 * 1.02, f"W: {whole:,}", va="bottom", fontsize=9.5)
    ax.plot(ranks, ranks * (in_dim + out_dim) / 1e3)
    ax.plot([rank], [now / 1e3], "o", color=plots.VERMILION, markersize=8)
    ax.set(xlabel="rank r", ylabel="numbers (thousands)", xlim=(0, top), ylim=(0, 2.1 * whole / 1e3))
    ax.set_title(f"{in_dim} × {out_dim}, rank {rank}: A and B have {now:,} numbers, {now / whole:.1%} of W")
    return fig


def spectrum(values: Sequence[float], rank: int) -> Figure:
    """Singular values of a change of weights, and the share of the sum of their squares in the first ones."""
    values = np.asarray(values, dtype=float)
    share = np.cumsum(values**2) / np.sum(values**2)
    numbers = np.arange(1, len(values) + 1)
    fig, (left, right) = plots.subplots(7, 2.9, 1, 2)
    left.plot(numbers, values / values[0])
    left.set(xlabel="number", ylabel="singular value (first = 1)", xlim=(0, len(values)), ylim=(0, 1.05))
    right.plot(numbers, share, color=plots.GREEN)
    right.plot([rank], [share[rank - 1]], "o", color=plots.VERMILION, markersize=8)
    right.set(xlabel="rank of the best copy", ylabel="share that it keeps", xlim=(0, len(values)), ylim=(0, 1.05))
    right.set_title(f"rank {rank} keeps {share[rank - 1]:.0%}")
    return fig


def one_base(base: str, adapters: Mapping[str, str]) -> Figure:
    """One frozen model and the adapters that can be added to it, by name, with their sizes."""
    fig, ax = plots.canvas(7, 2.5)
    plots.box(ax, 3.5, 0.55, f"frozen base\n{base}", width=4.2, height=0.8, color=_FROZEN)
    width = 6.6 / len(adapters)
    for number, (name, size) in enumerate(adapters.items()):
        x = 0.2 + width * (number + 0.5)
        color = _TRAINED if size else plots.PAPER
        plots.box(ax, x, 1.95, f"{name}\n{size}".strip(), width=width * 0.86, height=0.7, color=color)
        plots.arrow(ax, (x, 1.6), (1.9 + 3.2 * (number + 0.5) / len(adapters), 0.95))
    return fig


def side_by_side(accuracies: Mapping[str, Sequence[float]], trained: Mapping[str, int], parts: Sequence[str]) -> Figure:
    """Accuracies of several training runs on the same parts of the data, and how many parameters each trained."""
    fig, (left, right) = plots.subplots(7.2, 3.1, 1, 2, width_ratios=[1.6, 1])
    colors = [plots.GREY, plots.ORANGE, plots.BLUE, plots.GREEN]
    percent = {name: [100 * value for value in values] for name, values in accuracies.items()}
    for bars in grouped_bars(left, parts, percent, colors, fill=0.92):
        left.bar_label(bars, fmt="%.0f", fontsize=8)
    left.set(ylabel="accuracy (%)", ylim=(0, 128))
    left.set_yticks(range(0, 101, 25))
    left.legend(fontsize=8.5, loc="upper center", ncols=len(accuracies), columnspacing=1.0, handlelength=1.2)
    names = list(trained)
    chosen = [colors[list(accuracies).index(name)] for name in names]
    bars = right.barh(range(len(names)), [trained[name] / 1e6 for name in names], 0.55, color=chosen)
    right.bar_label(bars, labels=[f"{trained[name] / 1e6:.2f}" for name in names], fontsize=8.5, padding=3)
    right.set_yticks(range(len(names)), labels=names)
    right.set(xlabel="trained numbers (millions)", xlim=(0, 1.3 * max(trained.values()) / 1e6))
    right.invert_yaxis()
    return fig


def ranks(points: Mapping[str, tuple[int, float, float]], reference: tuple[str, float]) -> Figure:
    """Each run's (trained parameters, validation accuracy, test accuracy); the reference's test accuracy as a line."""
    fig, ax = plots.subplots(6.8, 3.4)
    places = np.arange(len(points))
    for column, (label, marker, color) in enumerate([("validation", "s", plots.BLUE), ("test", "o", plots.ORANGE)]):
        heights = [100 * values[1 + column] for values in points.values()]
        ax.plot(places + 0.12 * column - 0.06, heights, marker, color=color, markersize=8, label=label)
    name, height = reference
    ax.axhline(100 * height, color=plots.GREY, linestyle="--", lw=1.5, label=f"test, {name}")
    ax.set_xticks(places, labels=[f"{name}\n{count:,}" for name, (count, *_) in points.items()])
    ax.set(xlabel="run, and how many numbers it trains", ylabel="accuracy (%)", ylim=(40, 103))
    ax.set_xlim(-0.5, len(points) - 0.5)
    ax.legend(fontsize=9, loc="lower right", ncols=3)
    return fig
