"""Pictures for chapter 3: weighted mixing, vectors in space, weight matrices, scaling, heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import plots
from .shared import box_row


def encoder_decoder() -> Figure:
    """An encoder and a decoder joined by one vector, the last state of the encoder."""
    fig, ax = plots.canvas(7, 2.5)
    english, french = ["the", "black", "cat", "sleeps"], ["le", "chat", "noir", "dort"]
    for step, (word, output) in enumerate(zip(english, french, strict=True)):
        left, right = 0.55 + 0.85 * step, 4.25 + 0.75 * step
        plots.box(ax, left, 1.25, f"$h_{step + 1}$", width=0.5, color=plots.SKY)
        plots.write(ax, left, 0.4, word)
        plots.arrow(ax, (left, 0.58), (left, 1.04))
        plots.box(ax, right, 1.25, f"$s_{step + 1}$", width=0.5, color=plots.ORANGE)
        plots.write(ax, right, 2.1, output)
        plots.arrow(ax, (right, 1.46), (right, 1.92))
        if step < 3:
            plots.arrow(ax, (left + 0.26, 1.25), (left + 0.59, 1.25))
            plots.arrow(ax, (right + 0.26, 1.25), (right + 0.49, 1.25))
    plots.arrow(ax, (3.36, 1.25), (3.99, 1.25), color=plots.VERMILION, lw=4)
    ax.text(1.2, 1.72, "encoder reads", ha="center", color=plots.BLUE, fontweight="bold")
    ax.text(5.4, 0.72, "decoder writes", ha="center", color=plots.DARK_ORANGE, fontweight="bold")
    note = "all that the decoder\nknows of the sentence"
    ax.text(3.25, 1.98, note, ha="center", color=plots.DARK_VERMILION, fontsize=9)
    ax.plot([3.66, 3.66], [1.38, 1.92], color=plots.VERMILION, lw=1)
    return fig


def mixing(words: Sequence[str], weights: Sequence[float], query: str, context: Sequence[float]) -> Figure:
    """Arrows from every word to the context vector of `query`, as thick as the weight of the word."""
    fig, ax = plots.canvas(7, 3.3)
    spacing, top, bottom = 7 / len(words), 2.45, 0.62
    for number, (word, weight) in enumerate(zip(words, weights, strict=True)):
        x, own = spacing * (number + 0.5), word == query
        color = plots.ORANGE if own else plots.BLUE
        end = (3.5 + (x - 3.5) * 0.42, top)
        if float(weight) >= 0.005:
            thickness = 20 * float(weight)
            style = {"arrowstyle": "-|>", "lw": thickness, "color": color, "mutation_scale": 9 + 3 * thickness}
            ax.annotate("", xy=end, xytext=(x, bottom), arrowprops={**style, "shrinkA": 0, "shrinkB": 0})
        middle = (x + (end[0] - x) * 0.38, bottom + (top - bottom) * 0.38)
        label = {"boxstyle": "round,pad=0.15", "facecolor": plots.PAPER, "edgecolor": "none"}
        plots.write(ax, *middle, f"{float(weight):.2f}", fontsize=9, bbox=label)
        plots.box(ax, x, 0.4, word, width=0.95, color=plots.PALE_ORANGE if own else plots.SHADE, edge=color)
    numbers = "  ".join(f"{float(number):.2f}" for number in context)
    plots.box(ax, 3.5, 2.75, f"context vector of “{query}”:  {numbers}", width=4.3, height=0.56, color=plots.PALE_GREEN)
    return fig


def vectors(words: Sequence[str], vectors, weights: Sequence[float], context, query: str) -> Figure:
    """Words with three numbers each as points in two views, joined by lines to the context vector of `query`."""
    points, star = np.asarray(vectors, dtype=float), np.asarray(context, dtype=float)
    fig, axes = plots.subplots(7, 3.7, 1, 2)
    above = (0, 9)
    places = (
        {"journey": (-12, 9), "starts": (26, -2), "context": (32, 1), "Your": (0, -13), "one": (0, -13)},
        {"journey": (20, 8), "starts": (26, -8), "context": (-28, 11), "with": (0, -13), "one": (0, -13)},
    )
    for ax, height, name, shift in zip(axes, (1, 2), ("second", "third"), places, strict=True):
        for word, weight, point in zip(words, weights, points, strict=True):
            color = plots.ORANGE if word == query else plots.BLUE
            ends = [point[0], star[0]], [point[height], star[height]]
            ax.plot(*ends, color=color, alpha=0.35, lw=20 * float(weight), solid_capstyle="butt", zorder=1)
            ax.scatter(point[0], point[height], color=color, s=40, zorder=3)
            _name(ax, word, point[0], point[height], shift.get(word, above))
        ax.scatter(star[0], star[height], color=plots.GREEN, marker="*", s=220, edgecolor=plots.INK, zorder=4)
        _name(ax, "context", star[0], star[height], shift["context"])
        ax.set(xlim=(-0.05, 1.05), ylim=(-0.02, 1.08), aspect="equal", xlabel="first number", ylabel=f"{name} number")
    return fig


def _name(ax: Axes, text: str, x: float, y: float, offset: tuple[float, float]) -> None:
    """Write a point's name beside it, `offset` away in points of 1/72 inch."""
    ax.annotate(text, (x, y), xytext=offset, textcoords="offset points", ha="center", va="center", fontsize=9, zorder=5)


def softmax_bars(words: Sequence[str], scores, scale: float = 1.0) -> Figure:
    """Scores times `scale` on the left, the softmax of them on the right."""
    scaled = scale * np.asarray(scores, dtype=float)
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    fig, (left, right) = plots.subplots(7, 2.8, 1, 2)
    for ax, values, color in ((left, scaled, plots.SKY), (right, weights, plots.BLUE)):
        bars = ax.bar(words, values, color=color)
        ax.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=8.5)
        ax.tick_params(axis="x", rotation=30)
        ax.margins(y=0.14)
    left.set(title=f"scores × {scale:g}", ylabel="score")
    right.set(title="after softmax: sums to 1", ylabel="weight", ylim=(0, 1.1))
    return fig


def projections() -> Figure:
    """Self-attention with trainable weights as a flow of matrices, with their shapes."""
    fig, ax = plots.canvas(7, 3.4)
    plots.box(ax, 0.6, 1.7, "inputs $X$\n(T, 3)", width=0.95, height=0.6)
    colors = {"query": plots.PALE_ORANGE, "key": plots.PALE_BLUE, "value": plots.PALE_GREEN}
    for (name, color), y, plural in zip(colors.items(), (2.8, 1.7, 0.6), ("queries", "keys", "values"), strict=True):
        plots.box(ax, 2.0, y, f"× $W_{{{name}}}$\n(3, 2)", width=1.0, height=0.56, color=color)
        plots.box(ax, 3.45, y, f"{plural}\n(T, 2)", width=0.95, height=0.56, color=color)
        plots.arrow(ax, (1.08, 1.7 + (y - 1.7) * 0.12), (1.49, y))
        plots.arrow(ax, (2.51, y), (2.96, y))
    plots.box(ax, 4.85, 2.25, "scores\n(T, T)", width=0.9, height=0.56)
    plots.arrow(ax, (3.94, 2.8), (4.4, 2.38))
    plots.arrow(ax, (3.94, 1.7), (4.4, 2.12))
    plots.box(ax, 6.3, 2.25, "weights\n(T, T)", width=0.95, height=0.56)
    plots.arrow(ax, (5.31, 2.25), (5.81, 2.25))
    ax.text(5.56, 2.72, "÷ √$d_k$, then softmax", ha="center", fontsize=9)
    plots.box(ax, 6.3, 0.6, "context\n(T, 2)", width=0.95, height=0.56, color=plots.PALE_PINK)
    plots.arrow(ax, (6.3, 1.96), (6.3, 0.89))
    plots.arrow(ax, (3.94, 0.6), (5.81, 0.6))
    ax.text(6.18, 1.42, "mix", ha="right", fontsize=9)
    ax.text(4.85, 1.72, "dot products", ha="center", fontsize=9)
    return fig


def scaling(dims: Sequence[int], spread, largest, gradient) -> Figure:
    """Three curves over d, each without and with the division by the square root of d.

    `spread`, `largest` and `gradient` are pairs of sequences: (raw, scaled).
    """
    fig, axes = plots.subplots(7.2, 2.7, 1, 3)
    titles = ("variance of a score", "largest weight", "size of the gradient")
    for ax, title, (raw, scaled) in zip(axes, titles, (spread, largest, gradient), strict=True):
        ax.plot(dims, raw, "o-", color=plots.VERMILION, ms=4, label="raw")
        ax.plot(dims, scaled, "s--", color=plots.BLUE, ms=4, label="÷ √d")
        ax.set(title=title, xlabel="d", xscale="log")
        ax.set_xticks([4, 64, 1024], labels=["4", "64", "1024"])
        ax.minorticks_off()
    axes[0].set_yscale("log")
    axes[0].legend(loc="upper left", fontsize=9)
    axes[1].set_ylim(0, 1.05)
    axes[2].set_ylim(bottom=0)
    return fig


def weight_panels(
    words: Sequence[str],
    matrices: Sequence,
    titles: Sequence[str],
    vmin: float | None = None,
    vmax: float | None = None,
) -> Figure:
    """Small square matrices side by side, query words down, key words across; ".29" stands for 0.29."""
    fig, axes = plots.subplots(7.2, 3.0, 1, len(matrices))
    for number, (ax, matrix, title) in enumerate(zip(axes, matrices, titles, strict=True)):
        plots.heatmap(ax, matrix, rows=words if number == 0 else None, cols=words, vmin=vmin, vmax=vmax)
        ax.tick_params(axis="x", rotation=90)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("attends to", fontsize=9)
        for label in ax.texts:
            label.set_fontsize(7.5)
            label.set_text(_short(label.get_text()))
    axes[0].set_ylabel("query", fontsize=9)
    return fig


def _short(text: str) -> str:
    return {"0.00": "0", "−0.00": "0", "1.00": "1", "2.00": "2"}.get(text, text.replace("0.", ".", 1))


def splitting_heads() -> Figure:
    """Three tokens of four numbers, split into two heads of two numbers, and merged again."""
    fig, ax = plots.canvas(7.2, 3.9)
    colors = (plots.PALE_ORANGE, plots.PALE_BLUE)

    def grid(left: float, y: float, rows: Sequence[Sequence[int]]) -> None:
        for number, values in enumerate(rows):
            heads = [colors[value % 4 // 2] for value in values]  # of four numbers, two for each head
            texts = [str(value) for value in values]
            box_row(ax, left, y - 0.32 * number, texts, 0.32, heads, gap=0.02, height=0.3, fontsize=8.5)

    rows = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    grid(0.04, 2.35, rows)
    for token in range(3):
        grid(2.34, 3.15 - 0.92 * token, [rows[token][:2], rows[token][2:]])
        ax.text(2.29, 2.99 - 0.92 * token, f"token {token + 1}", ha="right", va="center", fontsize=8.5)
    grid(4.34, 3.15, [row[:2] for row in rows])
    grid(4.34, 1.75, [row[2:] for row in rows])
    ax.text(4.28, 2.83, "head 1", ha="right", va="center", fontsize=8.5)
    ax.text(4.28, 1.43, "head 2", ha="right", va="center", fontsize=8.5)
    grid(5.79, 2.35, rows)
    for x, title, shape in (
        (0.68, "projected", "(B, T, C)\n(1, 3, 4)"),
        (2.66, "view", "(B, T, H, D)\n(1, 3, 2, 2)"),
        (4.66, "transpose(1, 2)", "(B, H, T, D)\n(1, 2, 3, 2)"),
        (6.43, "transposed back,\nmerged", "(B, T, C)\n(1, 3, 4)"),
    ):
        plots.write(ax, x, 3.62, title, fontsize=9.5, fontweight="bold")
        plots.write(ax, x, 0.32, shape, fontsize=9)
    plots.arrow(ax, (1.4, 2.03), (1.74, 2.03))
    plots.arrow(ax, (3.1, 2.03), (3.78, 2.03))
    plots.arrow(ax, (5.1, 2.03), (5.7, 2.03))
    return fig


def tokens_and_time(ax: Axes, steps: Sequence[int], curves: dict[str, Sequence[float]]) -> None:
    """Draw onto `ax` how much influence the first token has left after each step, on a logarithmic axis."""
    styles = (("-", plots.VERMILION), ("--", plots.BLUE))
    for (name, values), (style, color) in zip(curves.items(), styles, strict=False):
        ax.plot(steps, values, style, color=color, label=name)
    ax.set(yscale="log", xlabel="tokens read", ylabel="influence of the first token")
    ax.legend(loc="best", fontsize=9)
