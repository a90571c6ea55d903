"""Pictures for the bonus notebook on FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...speed.flops import ScalingLaw, forward_flops
from .. import plots

_PARTS = {
    "attention's four layers": ("query, key, value", "output projection"),
    "feed-forward": ("feed-forward",),
    "output layer": ("output layer",),
    "T × T products": ("queries @ keys", "weights @ values"),
}


def shares_by_length(configs: Mapping[str, Mapping[str, Any]], longest: int = 2**17) -> Figure:
    """The parts of a forward pass over the length of the text, for the first model; the T × T products for all."""
    lengths = np.array([2**power for power in range(6, int(np.log2(longest)) + 1)])
    fig, (left, right) = plots.subplots(7.4, 3.4, 1, 2)
    first = next(iter(configs))
    counted = [forward_flops(configs[first], int(length)) for length in lengths]
    totals = np.array([sum(parts.values()) for parts in counted], dtype=float)
    layers = [sum(np.array([parts[name] for parts in counted], dtype=float) for name in _PARTS[key]) for key in _PARTS]
    tints = (plots.PALE_BLUE, plots.PALE_GREEN, plots.PALE_GREY, plots.PALE_VERMILION)
    left.stackplot(lengths, *[100 * layer / totals for layer in layers], colors=tints, labels=list(_PARTS))
    left.set(ylabel="share of operations (%)", ylim=(0, 100), title=f"GPT-2 {first}")
    styles = ("-", "--", "-.", ":")
    said = []
    for (name, cfg), style in zip(configs.items(), styles, strict=False):
        parts = [forward_flops(cfg, int(length)) for length in lengths]
        share = [100 * (p["queries @ keys"] + p["weights @ values"]) / sum(p.values()) for p in parts]
        right.plot(lengths, share, style, label=name)
        said.append(f"{name} {share[list(lengths).index(1024)]:.0f}% and {share[-1]:.0f}%")
    right.axvline(1024, color=plots.GREY, lw=1)
    right.text(1150, 92, "GPT-2's\ncontext", fontsize=8.5, color=plots.GREY, va="top")
    right.set(title="T × T products", ylim=(0, 100))
    right.legend(fontsize=9, loc="lower right")
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(lengths[::3], labels=[f"{length:,}" for length in lengths[::3]])
        ax.set(xlabel="tokens", xlim=(lengths[0], lengths[-1]))
    fig.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8.5)
    return plots.describe(
        fig,
        f"Left: shares of the operations of GPT-2 {first} over the length of the text, from 64 to {longest:,} tokens; "
        "the T × T products grow from nearly nothing to nearly all. Right: their share for all sizes; at 1,024 and at "
        f"{longest:,} tokens: {'; '.join(said)}.",
    )


def backward_products() -> Figure:
    """A linear layer's forward product, and the two products of its backward pass, with their shapes."""
    fig, ax = plots.canvas(6.6, 3.5)
    size = {"m": 0.5, "n": 0.75, "p": 1.0}
    colors = {"X": plots.PALE_BLUE, "W": plots.PALE_GREY, "Y": plots.PALE_GREEN}
    rows = [
        ("forward", (("X", "m", "n"), ("W", "n", "p"), ("Y", "m", "p"))),
        ("gradient of X", (("dY", "m", "p"), ("Wᵀ", "p", "n"), ("dX", "m", "n"))),
        ("gradient of W", (("Xᵀ", "n", "m"), ("dY", "m", "p"), ("dW", "n", "p"))),
    ]
    for row, (title, matrices) in enumerate(rows):
        y = 2.95 - 1.17 * row
        ax.text(0.1, y, title, fontsize=9.5, weight="bold", va="center")
        for place, (name, high, wide) in enumerate(matrices):
            x, width, height = 2.2 + 1.65 * place, size[wide], size[high]
            color = plots.PALE_ORANGE if name.startswith("d") else colors[name[0]]
            ax.add_patch(
                Rectangle((x - width / 2, y - height / 2), width, height, facecolor=color, edgecolor=plots.INK)
            )
            plots.write(ax, x, y + 0.09, name, fontsize=9.5)
            plots.write(ax, x, y - 0.12, f"({high}, {wide})", fontsize=8, color=plots.GREY)
            if place < 2:
                plots.write(ax, x + 0.825, y, "·="[place], fontsize=13)
    return plots.describe(
        fig,
        "Three matrix products below each other. Forward: X (m, n) times W (n, p) is Y (m, p). Gradient of X: dY (m, "
        "p) times W transposed (p, n) is dX (m, n). Gradient of W: X transposed (n, m) times dY (m, p) is dW (n, p).",
    )


def chinchilla(
    law: ScalingLaw, budgets: Sequence[float], models: Mapping[str, tuple[float, float]], other: ScalingLaw
) -> Figure:
    """The predicted loss over the size of a model for several budgets, and where published models stand.

    `models` has parameters and tokens by name; `other` is a second estimate, of which only the best split is drawn.
    """
    fig, (left, right) = plots.subplots(7.6, 3.9, 1, 2)
    said = []
    for budget in budgets:
        best, tokens = law.best_split(budget)
        parameters = best * np.logspace(-1.3, 1.3, 60)
        left.plot(parameters, law.loss(parameters, budget / 6 / parameters), color=plots.BLUE, lw=1.4)
        left.plot([best], [law.loss(best, tokens)], "o", color=plots.VERMILION, markersize=5)
        exponent = round(np.log10(budget))
        top = law.loss(parameters[0], budget / 6 / parameters[0])
        left.text(0.85 * parameters[0], top, f"$10^{{{exponent}}}$", fontsize=8.5, ha="right", va="center")
        said.append(f"10^{exponent} at {best:.1e} parameters")
    left.set(
        xscale="log", xlabel="parameters N", ylabel="predicted loss (nats per token)", title="one budget, one curve"
    )
    left.set_xlim(left=law.best_split(min(budgets))[0] / 200)
    span = np.logspace(np.log10(min(budgets)) - 1, np.log10(max(budgets)) + 3, 30)
    for one, style, name in ((law, "-", "Hoffmann et al."), (other, "--", "Besiroglu et al.")):
        splits = np.array([one.best_split(budget) for budget in span])
        right.plot(splits[:, 0], splits[:, 1], style, color=plots.VERMILION, label=f"best, {name}", lw=1.5)
    parameters = np.logspace(6.5, 12.5, 5)
    right.plot(parameters, 20 * parameters, ":", color=plots.GREY, label="20 tokens each", lw=1.5)
    for name, (size, tokens) in models.items():
        right.plot([size], [tokens], "s", color=plots.BLUE, markersize=5)
        words = "\n".join(name.rsplit(" ", 1)) if len(name) > 12 else name
        right.annotate(words, (size, tokens), xytext=(7, 0), textcoords="offset points", fontsize=8.5, va="center")
    right.set(xscale="log", yscale="log", xlabel="parameters N", ylabel="tokens D", title="where models stand")
    right.set(xlim=(5e6, 2e13), ylim=(1e7, 1e15))
    right.legend(fontsize=8, loc="upper left")
    placed = "; ".join(f"{name} {size:.3g} and {tokens:.3g}" for name, (size, tokens) in models.items())
    return plots.describe(
        fig,
        f"Left: for each of {len(budgets)} budgets a valley-shaped curve of the predicted loss over the number of "
        f"parameters, lower and further right for larger budgets; lowest points: {', '.join(said)}. Right: tokens over "
        f"parameters, two estimates of the best split and the line of 20 tokens per parameter; models: {placed}.",
    )


def roofline(peak: float, bandwidth: float, points: Mapping[str, tuple[float, float]], title: str) -> Figure:
    """What a machine can reach at most over the operations per byte, and what some computations reach.

    `peak` is in operations and `bandwidth` in bytes per second; `points` has operations per byte and operations per
    second by name.
    """
    fig, ax = plots.subplots(6.8, 3.9)
    intensity = np.logspace(-1.7, 3.2, 200)
    ax.plot(intensity, np.minimum(peak, bandwidth * intensity) / 1e9, color=plots.INK, lw=1.8)
    ridge = peak / bandwidth
    ax.axvline(ridge, color=plots.GREY, lw=1, linestyle=":")
    ax.text(ridge * 1.1, peak / 1e9 * 1.25, f"{ridge:.0f} operations per byte", fontsize=8.5, color=plots.GREY)
    markers = "osv^DPX*"
    for (name, (x, y)), marker in zip(points.items(), markers, strict=False):
        ax.plot([x], [y / 1e9], marker, markersize=7, label=name)
    ax.set(xscale="log", yscale="log", xlabel="operations per byte moved", ylabel="GFLOP/s", title=title)
    ax.set(xlim=(0.02, 1500), ylim=(bandwidth * 0.02 / 1e9, peak / 1e9 * 3))
    ax.legend(fontsize=8.5, loc="lower right")
    placed = "; ".join(f"{name} {y / 1e9:.1f} GFLOP/s at {x:.2g}" for name, (x, y) in points.items())
    return plots.describe(
        fig,
        f"A roof that rises with the operations per byte up to {ridge:.0f} and is flat at {peak / 1e9:.0f} GFLOP/s "
        f"from there on. Measured: {placed}.",
    )
