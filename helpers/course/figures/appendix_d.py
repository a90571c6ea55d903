"""Pictures for appendix D: learning-rate schedules, clipping, accumulation, number formats, runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from ...training import learning_rate_at
from .. import plots
from .shared import box_row
from .shared import number_formats as number_formats


def schedule(
    warmup_share: float = 0.2,
    peak: float = 5.0,
    minimum: float = 0.1,
    initial: float = 0.1,
    total_steps: int = 135,
) -> Figure:
    """Linear warm-up and cosine decay over `total_steps` updates; learning rates in units of 1e-4."""
    warmup = int(warmup_share * total_steps)
    steps = range(total_steps)
    rates = [learning_rate_at(step, total_steps, warmup, peak, initial, minimum) for step in steps]
    fig, ax = plots.subplots(6.6, 3.2)
    ax.axvspan(0, warmup, color=plots.YELLOW, alpha=0.25, lw=0)
    ax.plot(steps, rates, color=plots.BLUE)
    ax.axhline(minimum, color=plots.GREY, lw=1, linestyle=":")
    top = max(peak, 10)
    share = warmup / total_steps
    if share >= 0.1:
        plots.write(ax, warmup / 2, top * 1.08, "warm-up", fontsize=9.5)
    if share <= 0.85:
        plots.write(ax, (warmup + total_steps) / 2, top * 1.08, "cosine decay", fontsize=9.5)
    ax.set(xlabel="update", ylabel="learning rate (× 1e-4)", xlim=(0, total_steps), ylim=(0, top * 1.18))
    ax.set_title(f"{warmup} of {total_steps} updates warm up; average rate {np.mean(rates):.2f}e-4")
    return fig


def clipping(gradient: Sequence[float], max_norm: float, limit: float) -> Figure:
    """A gradient of two numbers, clipped by its norm (left) and by value, each number on its own (right)."""
    full = np.asarray(gradient, dtype=float)
    by_norm = full * min(1.0, max_norm / np.linalg.norm(full))
    by_value = np.clip(full, -limit, limit)
    fig, axes = plots.subplots(7, 3.9, 1, 2)
    reach = 1.12 * max(abs(full).max(), max_norm, limit)
    for ax, short, title in zip(axes, (by_norm, by_value), ("by norm", "by value"), strict=True):
        if title == "by norm":
            ax.add_patch(Circle((0, 0), max_norm, facecolor=plots.SHADE, edgecolor=plots.GREY, lw=1))
        else:
            corner, side = (-limit, -limit), 2 * limit
            ax.add_patch(Rectangle(corner, side, side, facecolor=plots.SHADE, edgecolor=plots.GREY, lw=1))
        plots.arrow(ax, (0, 0), tuple(full), color=plots.SKY, lw=2)
        plots.arrow(ax, (0, 0), tuple(short), color=plots.VERMILION, lw=3)
        style = {"textcoords": "offset points", "fontsize": 9}
        ax.annotate(_pair(full), full, xytext=(-6, 6), ha="right", **style)
        ax.annotate(_pair(short), short, xytext=(26, -4), color=plots.DARK_VERMILION, **style)
        ax.set(title=f"clipped {title}", xlabel="first parameter", xlim=(-1.4, reach), ylim=(-1.4, reach))
        ax.set_box_aspect(1)
    axes[0].set_ylabel("second parameter")
    return fig


def _pair(point: np.ndarray) -> str:
    return "(" + ", ".join(f"{number:.2g}" for number in point) + ")"


def accumulation(batches: int, together: int) -> Figure:
    """Gradient accumulation: an epoch of batches, of which `together` at a time make one update."""
    fig, ax = plots.canvas(7, 2.0)
    spacing = 6.6 / batches
    names = [f"batch {number + 1}" for number in range(batches)]
    xs = box_row(ax, 0.2, 1.55, names, spacing, plots.PALE_BLUE, gap=spacing * 0.16, height=0.42, fontsize=7.5)
    for group, first in enumerate(range(0, batches, together)):
        members = xs[first : first + together]
        middle = members.mean()
        color = plots.PALE_GREEN if len(members) == together else plots.PALE_ORANGE
        text = f"update {group + 1}: mean of {len(members)}"
        plots.box(ax, middle, 0.4, text, width=1.36, height=0.42, color=color, fontsize=8)
        for x in members:
            plots.arrow(ax, (x, 1.33), (middle + (x - middle) * 0.35, 0.63))
    return fig


def runs(losses: Mapping[str, np.ndarray], smooth: int = 10) -> Figure:
    """Training losses of several recipes, each an array (seeds, updates): the mean, and the range of the seeds.

    Each point is the average over the last `smooth` updates.
    """
    fig, ax = plots.subplots(7, 3.8)
    styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
    for (name, values), style in zip(losses.items(), styles, strict=False):
        kernel = np.ones(smooth) / smooth
        curves = np.stack([np.convolve(row, kernel, mode="valid") for row in np.asarray(values)])
        steps = np.arange(smooth, np.shape(values)[1] + 1)
        (line,) = ax.plot(steps, curves.mean(0), linestyle=style, label=name)
        ax.fill_between(steps, curves.min(0), curves.max(0), color=line.get_color(), alpha=0.15, lw=0)
    ax.set(xlabel="update", ylabel=f"training loss (mean of {smooth} updates)")
    ax.legend(fontsize=9)
    return fig
