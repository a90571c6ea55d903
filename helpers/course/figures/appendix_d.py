"""Pictures for appendix D: schedules, a noisy valley, clipping, accumulation, number formats, runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from ...training import learning_rate_at
from .. import plots
from .shared import box_row
from .shared import number_formats as number_formats

_STYLES = ("-", "--", "-.", ":")
_HIGHEST_PEAK = 20.0  # of the sliders under `schedule`, in units of 1e-4


def step_lengths(lengths: Sequence[float]) -> Figure:
    """The median move of a model's parameters in each update, in units of the learning rate."""
    fig, ax = plots.subplots(6.2, 2.8)
    ax.plot(lengths)
    ax.set(xlabel="update", ylabel="median move / learning rate", ylim=(0, 1.05))
    return plots.describe(
        fig,
        f"The median step length over {len(lengths)} updates: {lengths[0]:.2f} in the first update, "
        f"{lengths[5]:.2f} five updates later, {np.mean(lengths[-20:]):.2f} on average over the last 20.",
    )


def schedule(warmup_share: float = 0.2, peak: float = 10.0, minimum: float = 0.1, total_steps: int = 135) -> Figure:
    """Linear warm-up from 0.1 and cosine decay over `total_steps` updates; learning rates in units of 1e-4."""
    warmup = int(warmup_share * total_steps)
    steps = range(total_steps)
    rates = [learning_rate_at(step, total_steps, warmup, peak, 0.1, minimum) for step in steps]
    fig, ax = plots.subplots(6.6, 3.2)
    ax.axvspan(0, warmup, color=plots.YELLOW, alpha=0.25, lw=0)
    ax.plot(steps, rates, color=plots.BLUE)
    ax.axhline(minimum, color=plots.GREY, lw=1, linestyle=":")
    if warmup >= 0.1 * total_steps:
        plots.write(ax, warmup / 2, _HIGHEST_PEAK * 1.08, "warm-up", fontsize=9.5)
    if warmup <= 0.85 * total_steps:
        plots.write(ax, (warmup + total_steps) / 2, _HIGHEST_PEAK * 1.08, "cosine decay", fontsize=9.5)
    ax.set(xlabel="update", ylabel="learning rate (× 1e-4)", xlim=(0, total_steps), ylim=(0, _HIGHEST_PEAK * 1.18))
    ax.set_title(f"{warmup} of {total_steps} updates warm up; average rate {np.mean(rates):.2f}e-4")
    return plots.describe(
        fig,
        f"Learning rate over {total_steps} updates: a straight rise to {peak:g}e-4 over the first {warmup} updates, "
        f"then a falling half wave of a cosine that flattens out just above {minimum:g}e-4.",
    )


def valley(distances: Mapping[str, Sequence[float]]) -> Figure:
    """How far from the minimum of a noisy valley a parameter is after each update, on a log scale, by schedule."""
    fig, ax = plots.subplots(6.2, 3.2)
    for (name, values), style in zip(distances.items(), _STYLES, strict=False):
        ax.plot(range(1, len(values) + 1), values, linestyle=style, label=name)
    ax.set(xlabel="update", ylabel="distance (root mean square)", yscale="log")
    ax.set_yticks([0.2, 0.5, 1, 2, 5], labels=["0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    ax.legend(fontsize=9)
    ends = "; ".join(f"{name}: from {values[0]:.2f} to {values[-1]:.2f}" for name, values in distances.items())
    return plots.describe(fig, f"Distance from the minimum after each update, on a log scale. {ends}.")


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
    return plots.describe(
        fig,
        f"Two panels with the gradient {_pair(full)} as a light blue arrow. Clipped by norm, the orange-red arrow "
        f"{_pair(by_norm)} lies on it; clipped by value, the arrow {_pair(by_value)} stays within a square.",
    )


def _pair(point: np.ndarray) -> str:
    return "(" + ", ".join(f"{number:.2g}" for number in point) + ")"


def outlier(losses: Mapping[str, Mapping[str, Sequence[float]]], at: int) -> Figure:
    """Training losses, by optimizer (a panel each) and by name of the run; the gradient of update `at` was too long.

    A panel has a log scale if a loss in it is far above the others.
    """
    fig, axes = plots.subplots(7, 3.2, 1, len(losses), squeeze=False)
    told = []
    for ax, (optimizer, runs) in zip(axes[0], losses.items(), strict=True):
        ax.axvline(at, color=plots.GREY, lw=1, linestyle=":")
        for (name, values), style in zip(runs.items(), _STYLES, strict=False):
            ax.plot(values, linestyle=style, label=name)
            told.append(f"{optimizer}, {name}: {values[at]:.1f} before it, {max(values[at + 1 :]):.1f} at worst after")
        ax.set(title=optimizer, xlabel="update")
        if max(max(values) for values in runs.values()) > 30:  # too far apart for a linear scale
            ax.set(title=f"{optimizer} (log scale)", yscale="log")
            ax.set_yticks([3, 10, 30, 100, 300, 1000], labels=["3", "10", "30", "100", "300", "1000"])
            ax.minorticks_off()
    axes[0, 0].set_ylabel("training loss")
    axes[0, 0].legend(fontsize=9, loc="upper left")
    return plots.describe(fig, f"Training losses, with one gradient far too long at update {at}. {'; '.join(told)}.")


def training_run(
    updates: Sequence[int], train_losses: Sequence[float], val_losses: Sequence[float], rates: Sequence[float]
) -> Figure:
    """Training and validation loss at some `updates`, above the learning rate of every update.

    Of a training that was stopped early there are fewer losses than updates.
    """
    if not train_losses:
        return plots.nothing_measured()
    updates = updates[: len(train_losses)]
    fig, (above, below) = plots.subplots(6.4, 4.2, 2, 1, sharex=True, height_ratios=[3, 1])
    above.plot(updates, train_losses, marker="o", ms=3.5, label="training")
    above.plot(updates, val_losses, marker="s", ms=3.5, linestyle="--", label="validation")
    above.set(ylabel="loss (nats per token)")
    above.legend()
    below.plot(rates, color=plots.GREEN)
    below.set(xlabel="update", ylabel="learning rate", ylim=(0, None))
    return plots.describe(
        fig,
        f"Losses at {len(updates)} updates, above the learning rate of each. Training: from {train_losses[0]:.1f} to "
        f"{train_losses[-1]:.1f}; validation: from {val_losses[0]:.1f} to {val_losses[-1]:.1f}. The rate rises to its "
        f"peak at update {int(np.argmax(rates))} and then falls to nearly nothing.",
    )


def accumulation(batches: int, together: int) -> Figure:
    """Gradient accumulation: an epoch of batches, of which `together` at a time make one update."""
    fig, ax = plots.canvas(7, 2.0)
    spacing = 6.6 / batches
    names = [f"batch {number + 1}" for number in range(batches)]
    xs = box_row(ax, 0.2, 1.55, names, spacing, plots.PALE_BLUE, gap=spacing * 0.16, height=0.42, fontsize=7.5)
    sizes = []
    for group, first in enumerate(range(0, batches, together)):
        members = xs[first : first + together]
        sizes.append(len(members))
        middle = members.mean()
        color = plots.PALE_GREEN if len(members) == together else plots.PALE_ORANGE
        text = f"update {group + 1}: mean of {len(members)}"
        plots.box(ax, middle, 0.4, text, width=1.36, height=0.42, color=color, fontsize=8)
        for x in members:
            plots.arrow(ax, (x, 1.33), (middle + (x - middle) * 0.35, 0.63))
    return plots.describe(
        fig,
        f"{batches} batches in a row, from which arrows lead to {len(sizes)} updates. The updates are the means of "
        f"{', '.join(map(str, sizes))} batches.",
    )


def final_losses(finals: Mapping[str, np.ndarray]) -> Figure:
    """Losses at the end of several recipes' runs, each an array (seeds, 2) of training and validation loss."""
    fig, ax = plots.subplots(7, 0.8 + 0.45 * len(finals))
    for row, values in enumerate(finals.values()):
        for column, color, marker, y in ((0, plots.BLUE, "o", row - 0.14), (1, plots.ORANGE, "s", row + 0.14)):
            losses = np.asarray(values)[:, column]
            label = ("training", "validation")[column] if row == 0 else None
            ax.plot(losses, [y] * len(losses), marker, color=color, ms=6, alpha=0.75, mew=0, label=label)
            ax.plot([losses.mean()] * 2, [y - 0.13, y + 0.13], color=plots.INK, lw=1.5)
    ax.set_yticks(range(len(finals)), labels=list(finals))
    ax.invert_yaxis()
    ax.set(xlabel="loss at the end (nats per token)")
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, 1.0), ncol=2)
    ax.set_ylim(len(finals) - 0.5, -1.0)
    means = "; ".join(
        f"{name}: training {np.mean(values, axis=0)[0]:.2f}, validation {np.mean(values, axis=0)[1]:.2f}"
        for name, values in finals.items()
    )
    return plots.describe(fig, f"Losses at the end of the runs, a dot per seed, means over the seeds: {means}.")
