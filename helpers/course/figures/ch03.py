"""Pictures for chapter 3: weighted mixing, vectors in space, weight matrices, scaling, heads by hand and trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .. import plots
from .shared import box_row, drawable


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
    return plots.describe(
        fig,
        "An encoder reads 'the black cat sleeps' through hidden states h1 to h4. A single thick orange-red arrow "
        "passes h4 to a decoder, which writes 'le chat noir dort' through states s1 to s4.",
    )


def first_token_left(curves: Mapping[str, Tensor]) -> Figure:
    """The influence that the first token has left after each token read, on a logarithmic axis.

    `curves` holds (runs, tokens) by name: the median is drawn as a line, all runs as a band around it.
    """
    fig, ax = plots.subplots(6, 2.9)
    said = []
    styles = (("-", plots.VERMILION), ("--", plots.BLUE))
    for (name, runs), (style, color) in zip(curves.items(), styles, strict=False):
        steps, values = range(1, runs.shape[1] + 1), np.asarray(runs, dtype=float)
        middle = np.median(values, axis=0)
        ax.plot(steps, middle, style, color=color, label=name)
        ax.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, lw=0)
        said.append(f"{name}: {middle[0]:.0%} after the first token, {middle[-1]:.2g} after {runs.shape[1]}")
    ax.set(yscale="log", ylim=(1e-10, 3), xlabel="tokens read", ylabel="influence of the first token")
    ax.legend(loc="lower left", fontsize=9)
    return plots.describe(fig, f"Line plot on a logarithmic axis, each line in a band. {'. '.join(said)}.")


def translation(read: Sequence[str], written: Sequence[str], weights: Tensor) -> Figure:
    """How much weight each word written gives to each word read."""
    fig, ax = plots.subplots(4.4, 3.2)
    plots.heatmap(ax, weights, rows=written, cols=read, vmin=0, vmax=1)
    ax.set(title="where the decoder looks", xlabel="English word read", ylabel="French word written")
    pairs = [f"'{word}' mostly at '{read[int(row.argmax())]}'" for word, row in zip(written, weights, strict=True)]
    return plots.describe(fig, f"Heatmap of weights: {', '.join(pairs)}.")


def score_bars(words: Sequence[str], scores: Tensor, query: str) -> Figure:
    """The attention scores of one query as bars, its own in orange."""
    fig, ax = plots.subplots(6, 2.7)
    colors = [plots.ORANGE if word == query else plots.BLUE for word in words]
    ax.bar_label(ax.bar(words, np.asarray(scores), color=colors), fmt="%.2f")
    ax.set(title=f"attention scores for the query “{query}”", ylabel="score", ylim=(0, 1.17 * float(scores.max())))
    return plots.describe(fig, f"Bar chart of attention scores for '{query}': {_pairs(words, scores)}.")


def _pairs(words: Sequence[str], numbers) -> str:
    """ "one 0.71, step 1.09": words and their numbers for an alternative text."""
    return ", ".join(f"{word} {plots.decimals(float(number))}" for word, number in zip(words, numbers, strict=True))


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
    return plots.describe(
        fig,
        f"A box for each word, with an arrow as thick as its weight to one box, the context vector of '{query}' "
        f"({numbers}). The weights: {_pairs(words, weights)}.",
    )


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
    return plots.describe(
        fig,
        "Two scatter plots of the word vectors, first number against second and first against third. The context "
        f"vector of '{query}', a green star, lies among the words, tied to each by a band as wide as its weight.",
    )


def _name(ax: Axes, text: str, x: float, y: float, offset: tuple[float, float]) -> None:
    """Write a point's name beside it, `offset` away in points of 1/72 inch."""
    ax.annotate(text, (x, y), xytext=offset, textcoords="offset points", ha="center", va="center", fontsize=9, zorder=5)


def softmax_bars(words: Sequence[str], scores, factor: float = 1.0, largest: float | None = None) -> Figure:
    """Scores times `factor` on the left, the softmax of them on the right.

    With `largest`, the largest factor to be tried, both axes stay the same whatever the factor is.
    """
    scores = np.asarray(scores, dtype=float)
    scaled = factor * scores
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    fig, (left, right) = plots.subplots(7, 2.8, 1, 2)
    for ax, values, color in ((left, scaled, plots.SKY), (right, weights, plots.BLUE)):
        bars = ax.bar(words, values, color=color)
        ax.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=8.5)
        ax.tick_params(axis="x", rotation=30)
    left.set(title=f"scores × {factor:g}", ylabel="score", ylim=(0, 1.14 * (largest or factor or 1) * scores.max()))
    right.set(title="after softmax: sums to 1", ylabel="weight", ylim=(0, 1.1))
    return plots.describe(
        fig,
        f"Two bar charts. Scores times {factor:g}: {_pairs(words, scaled)}. Their softmax: {_pairs(words, weights)}.",
    )


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
    return plots.describe(
        fig,
        "Flow diagram: inputs X (T, 3) are multiplied by W_query, W_key and W_value, each (3, 2), giving queries, keys "
        "and values (T, 2). Queries and keys give scores (T, T), divided by the root of d_k and softmaxed to weights "
        "(T, T), which mix the values to the context (T, 2).",
    )


def scores_and_weights(words: Sequence[str], scores: Tensor, weights: Tensor) -> Figure:
    """Two square matrices side by side, query words down, the words looked at across."""
    fig, axes = plots.subplots(7.2, 3.7, 1, 2)
    for ax, matrix, title in zip(axes, (scores, weights), ("scores", "weights"), strict=True):
        plots.heatmap(ax, matrix, rows=words, cols=words)
        ax.tick_params(axis="x", rotation=45)
        ax.set(title=title, xlabel="looked at", ylabel="query")
    symmetric = [
        "symmetric about the diagonal" if np.allclose(matrix, matrix.T) else "not symmetric"
        for matrix in (scores, weights)
    ]
    return plots.describe(
        fig,
        f"Two heatmaps of {len(words)} by {len(words)}. The scores are {symmetric[0]}; the weights, a softmax of each "
        f"row, are {symmetric[1]}.",
    )


def scaling(dims: Sequence[int], raw: Sequence[Sequence[float]], scaled: Sequence[Sequence[float]]) -> Figure:
    """Three curves over d, each without (`raw`) and with (`scaled`) the division by the square root of d.

    `raw` and `scaled` hold for each d: the variance of a score, the largest weight, the gradient.
    """
    fig, axes = plots.subplots(7.2, 2.7, 1, 3)
    titles, said = ("variance of a score", "largest weight", "size of the gradient"), []
    for number, (ax, title) in enumerate(zip(axes, titles, strict=True)):
        for rows, style, color, label in (
            (raw, "o-", plots.VERMILION, "raw"),
            (scaled, "s--", plots.BLUE, "÷ √d"),
        ):
            values = [row[number] for row in rows]
            ax.plot(dims, values, style, color=color, ms=4, label=label)
            said.append(f"{title}, {label}: from {values[0]:.3g} to {values[-1]:.3g}")
        ax.set(title=title, xlabel="d", xscale="log")
        ax.set_xticks([4, 64, 1024], labels=["4", "64", "1024"])
        ax.minorticks_off()
    axes[0].set_yscale("log")
    axes[0].legend(loc="upper left", fontsize=9)
    axes[1].set_ylim(0, 1.05)
    axes[2].set_ylim(bottom=0)
    return plots.describe(fig, f"Three line plots against d from {dims[0]} to {dims[-1]}. {'; '.join(said)}.")


def masking(words: Sequence[str], scores: Tensor, masked: Tensor, weights: Tensor) -> Figure:
    """Scores, the scores with the future masked, and the weights after the softmax."""
    fig = _panels(words, (scores, masked, weights), ("scores", "masked", "weights"))
    return plots.describe(
        fig,
        "Three square heatmaps: the scores; the scores with minus infinity above the diagonal; the weights after the "
        "softmax, zero above the diagonal, with 1 in the first row and ever smaller shares further down.",
    )


def dropped_weights(words: Sequence[str], weights: Tensor, keep: Tensor, kept: Tensor) -> Figure:
    """Weights, a mask of ones and zeros, and the kept weights times two."""
    fig = _panels(words, (weights, keep, kept), ("weights", "kept (1) or dropped (0)", "kept weights × 2"))
    return plots.describe(
        fig,
        "Three square heatmaps: causal weights; a mask of ones and zeros; the product times two, in which dropped "
        "weights are zero and kept ones twice as large.",
    )


def head_patterns(words: Sequence[str], patterns: Tensor, names: Sequence[str]) -> Figure:
    """The weights of several heads, (H, T, T), side by side, on one scale from 0 to 1."""
    fig = _panels(words, patterns, names, vmin=0, vmax=1)
    said = [
        f"{name}: the last word gives {_pairs(words, rows[-1])}" for name, rows in zip(names, patterns, strict=True)
    ]
    return plots.describe(fig, f"{len(names)} square heatmaps of causal weights. {'; '.join(said)}.")


def _panels(
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
    return plots.describe(
        fig,
        "Shape diagram with numbered squares. Three tokens of four numbers, two orange and two blue each; view cuts "
        "each token into an orange and a blue row; transpose collects the orange rows into head 1 and the blue rows "
        "into head 2; transposing back and merging restores the first grid.",
    )


def head_shares(shares: Tensor, title: str) -> Figure:
    """A share for each head of a model, (layers, heads), as a table in colours."""
    layers, heads = shares.shape
    fig, ax = plots.subplots(0.8 * heads + 1.6, 0.42 * layers + 1.2)
    plots.heatmap(ax, shares, [str(n + 1) for n in range(layers)], [str(n + 1) for n in range(heads)], vmin=0)
    ax.set(title=title, xlabel="head", ylabel="layer", aspect="auto")
    layer, head = divmod(int(shares.argmax()), heads)
    return plots.describe(
        fig,
        f"Heatmap of {layers} layers by {heads} heads, {title}. The largest share is {float(shares.max()):.2f}, in "
        f"head {head + 1} of layer {layer + 1}.",
    )


def sentence_pattern(tokens: Sequence[str], weights: Tensor, title: str) -> Figure:
    """The weights (T, T) of one head on a sentence, without numbers: query tokens down, the tokens looked at across."""
    names = [drawable(token) for token in tokens]
    fig, ax = plots.subplots(5.6, 5.0)
    plots.heatmap(ax, weights, names, names, fmt=None, vmin=0, vmax=1)
    ax.tick_params(axis="x", rotation=90)
    ax.set(title=title, xlabel="attends to", ylabel="query")
    back = [row - int(weights[row].argmax()) for row in range(len(names))]
    return plots.describe(
        fig,
        f"Heatmap of the attention weights of {len(names)} tokens, {title}. From the first token to the last, the "
        f"largest weight lies so many places back: {', '.join(map(str, back))}.",
    )
