"""Pictures for appendix E: a low-rank update, its parameters, losses, shares kept, adapters on one base, ranks."""

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
    return plots.describe(
        fig,
        "An input x goes two ways: through the large frozen matrix W, and through a thin matrix A and a flat matrix B, "
        "with only r numbers between the two. The second result is multiplied by alpha over r, and the sum of both is "
        "y.",
    )


def parameter_counts(rank: int = 16, in_dim: int = 768, out_dim: int = 768) -> Figure:
    """The parameters that A and B have together, in percent of those of the full matrix W, over the rank."""
    whole, now = in_dim * out_dim, rank * (in_dim + out_dim)
    ranks = np.arange(0, 513)
    fig, ax = plots.subplots(6.6, 3.2)
    ax.axhline(100, color=plots.GREY, linestyle="--", lw=1.5)
    ax.text(506, 97, "as many as W", ha="right", va="top", fontsize=9.5, color=plots.GREY)
    ax.plot(ranks, 100 * ranks * (in_dim + out_dim) / whole)
    ax.plot([rank], [100 * now / whole], "o", color=plots.VERMILION, markersize=8)
    ax.set(xlabel="rank r", ylabel="numbers in A and B (% of W)", xlim=(0, 512), ylim=(0, 215))
    ax.set_title(f"{in_dim} × {out_dim}: W has {whole:,} numbers, A and B at rank {rank} have {now:,}", fontsize=10)
    return plots.describe(
        fig,
        "The numbers in A and B, in percent of those in W, are a straight line over the rank. At rank "
        f"{rank} there are {now:,}, which is {now / whole:.1%} of the {whole:,} in W.",
    )


def loss_curves(runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], every: int) -> Figure:
    """Training and validation losses of several runs, evaluated every so many updates from update 0 on."""
    runs = {name: pair for name, pair in runs.items() if pair[0]}  # none, if a training was stopped at once
    if not runs:
        return plots.nothing_measured()
    fig, axes = plots.subplots(7, 2.9, 1, 2, sharey=True)
    top = 1.08 * max(max(losses) for pair in runs.values() for losses in pair)
    said = []
    for part, (ax, title) in enumerate(zip(axes, ("training messages", "validation messages"), strict=True)):
        for (name, pair), color, marker in zip(runs.items(), (plots.ORANGE, plots.BLUE), "os", strict=False):
            losses = pair[part]
            ax.plot(every * np.arange(len(losses)), losses, marker=marker, color=color, label=name)
            said.append(f"{title}, {name}: from {losses[0]:.2f} to {losses[-1]:.2f}")
        ax.set(title=title, xlabel="update", ylim=(0, top))
    axes[0].set_ylabel("loss")
    axes[0].legend(fontsize=9)
    return plots.describe(fig, f"Two line plots of the loss. {'. '.join(said)}.")


def kept_shares(shares: Mapping[str, np.ndarray], chance: Mapping[str, np.ndarray], rank: int) -> Figure:
    """What share of each layer's change its best copy keeps: over the rank, and for one rank by kind of layer.

    `shares` holds, by the layer's dotted name, the share at rank 1, 2, ...; `chance` the same for random matrices.
    """
    kinds = list(dict.fromkeys(name.split(".", 2)[2] for name in shares))
    fig, (left, right) = plots.subplots(7.4, 3.3, 1, 2, width_ratios=[1, 1.15], sharey=True)
    for share in shares.values():
        left.plot(np.arange(1, len(share) + 1), share, color=plots.GREEN, lw=0.8, alpha=0.6)
    for (name, share), style in zip(chance.items(), ("--", ":"), strict=False):
        left.plot(np.arange(1, len(share) + 1), share, style, color=plots.GREY)
        right.axhline(share[rank - 1], linestyle=style, color=plots.GREY, lw=1.5, label=f"random matrix, {name}")
    left.axvline(rank, color=plots.VERMILION, lw=1)
    left.set(xlabel="rank of the copy", ylabel="share that it keeps", xlim=(1, 64), ylim=(0, 1.03))
    for place, kind in enumerate(kinds):
        heights = [share[rank - 1] for name, share in shares.items() if name.endswith(kind)]
        right.plot(place + np.linspace(-0.25, 0.25, len(heights)), heights, "o", color=plots.GREEN, markersize=5)
    labels = [kind.replace("att.", "").replace("layers.", "").replace("_", "\n") for kind in kinds]
    right.set_xticks(range(len(kinds)), labels=labels, fontsize=8.5)
    right.legend(fontsize=8.5, loc=(0.03, 0.28))
    right.set_title(f"rank {rank}, block 0 to {len(shares) // len(kinds) - 1} from the left")
    low, high = (pick(share[rank - 1] for share in shares.values()) for pick in (min, max))
    return plots.describe(
        fig,
        f"Left: a curve per layer of the share that copies of rank 1 to 64 keep of its change, all above dashed curves "
        f"of random matrices. Right: at rank {rank} the copies keep between {low:.0%} and {high:.0%}, random ones "
        f"{' and '.join(f'{share[rank - 1]:.0%}' for share in chance.values())}.",
    )


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
    above = ", ".join(f"{name} ({size})" if size else name for name, size in adapters.items())
    return plots.describe(fig, f"One frozen base, {base}, and above it what can be put onto it in turn: {above}.")


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
    said = [f"{name} {' and '.join(f'{value:.1%}' for value in values)}" for name, values in accuracies.items()]
    sizes = [f"{name} {number / 1e6:.2f} million" for name, number in trained.items()]
    return plots.describe(
        fig, f"Accuracies on {' and '.join(parts)}: {'; '.join(said)}. Numbers trained: {', '.join(sizes)}."
    )


def runs_and_seeds(
    runs: Mapping[str, tuple[int, Sequence[tuple[float, float]]]], reference: tuple[str, tuple[float, float]]
) -> Figure:
    """Accuracy and loss of training runs, a dot per seed and a bar at the mean; the reference is a dashed line.

    `runs` holds, by name, how many parameters were trained and each seed's (accuracy, loss).
    """
    fig, axes = plots.subplots(7.4, 3.4, 1, 2)
    places = np.arange(len(runs))
    said = []
    for part, (ax, label) in enumerate(zip(axes, ("accuracy (%)", "loss"), strict=True)):
        scale = 100 if part == 0 else 1
        for place, (_, results) in zip(places, runs.values(), strict=True):
            values = [scale * result[part] for result in results]
            ax.plot(place + np.linspace(-0.12, 0.12, len(values)), values, "o", color=plots.ORANGE, markersize=6)
            ax.plot([place - 0.3, place + 0.3], [np.mean(values)] * 2, color=plots.INK, lw=2)
        ax.axhline(scale * reference[1][part], color=plots.BLUE, linestyle="--", lw=1.5, label=reference[0])
        ax.set_xticks(places, labels=[name.replace(", ", "\n") for name in runs], fontsize=8)
        ax.set(ylabel=label, xlim=(-0.6, len(runs) - 0.4))
    axes[1].set_ylim(0, 1.3 * max(loss for _, results in runs.values() for _, loss in results))
    axes[1].legend(fontsize=9, loc="upper right")
    for name, (_, results) in runs.items():
        accuracy, loss = np.mean(results, axis=0)
        said.append(f"{name} {accuracy:.1%} and {loss:.3f}")
    return plots.describe(
        fig,
        f"Accuracy and loss of {len(runs)} ways to train, a dot per seed; means: {', '.join(said)}. "
        f"{reference[0]}: {reference[1][0]:.1%} and {reference[1][1]:.3f}.",
    )
