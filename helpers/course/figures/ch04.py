"""Pictures for chapter 4: the parts of a GPT model and how they fit together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import FuncFormatter

from ...gpt import GPT_CONFIG_124M, count_parameters
from .. import plots
from ..plots import arrow, box, canvas, decimals, describe, subplots, write
from .shared import box_row

# One colour per kind of part, in every diagram.
_NORM, _MIX, _THINK, _EMBED, _WHOLE = plots.PALE_BLUE, plots.PALE_ORANGE, plots.PALE_GREEN, plots.PALE_PINK, plots.SHADE


def chapter_map() -> Figure:
    """What is built in which section, from the parts on the left to generated text on the right."""
    fig, ax = canvas(7.2, 3.5)
    box(ax, 3.6, 3.2, "4.1  a dummy model: the frame, with placeholders where the parts will go", 6.9, 0.38, _WHOLE)
    parts = [
        (2.5, "ch03  MultiHeadAttention", _MIX),
        (1.9, "4.2  LayerNorm", _NORM),
        (1.3, "4.3  GELU and FeedForward", _THINK),
        (0.7, "4.4  shortcut connections", _WHOLE),
    ]
    for y, text, color in parts:
        box(ax, 1.15, y, text, 2.0, 0.42, color)
        arrow(ax, (2.15, y), (2.75, 1.6 + 0.12 * (y - 1.6)))
    box(ax, 3.55, 1.6, "4.5\nTransformer-\nBlock", 1.6, 1.0, _WHOLE, weight="bold")
    arrow(ax, (4.35, 1.6), (4.75, 1.6))
    box(ax, 5.25, 1.6, "4.6\nGPTModel", 1.0, 1.0, _WHOLE, weight="bold")
    arrow(ax, (5.75, 1.6), (6.1, 1.6))
    box(ax, 6.6, 1.6, "4.7\ngenerate\ntext", 0.95, 1.0, _WHOLE, weight="bold")
    box(ax, 5.25, 0.5, "embeddings (ch02), final\nLayerNorm, output layer", 1.75, 0.56, _EMBED, fontsize=8.5)
    arrow(ax, (5.25, 0.78), (5.25, 1.1))
    ax.text(3.55, 0.86, "used 12 times", ha="center", fontsize=8.5)
    arrow(ax, (5.25, 3.01), (5.25, 2.1), color=plots.GREY)
    ax.text(5.33, 2.52, "placeholders replaced", fontsize=8.5, color=plots.INK)
    return describe(
        fig,
        "Map of the chapter: a dummy model gives the frame; attention, LayerNorm, feed-forward and shortcuts make a "
        "TransformerBlock; twelve blocks with embeddings and an output layer make GPTModel, which generates text.",
    )


def gradients_by_scale(
    factors: Sequence[float], plain: Sequence[Sequence[float]], normalized: Sequence[Sequence[float]]
) -> Figure:
    """Gradient of the first layer against the factor on all initial weights: a dot per seed, a line at their medians.

    `plain` and `normalized` hold, for each factor, the gradients of all seeds.
    """
    fig, ax = subplots(6.4, 3.2)
    medians = []
    for runs, name, color, marker in (
        (normalized, "with LayerNorm after every layer", plots.BLUE, "o"),
        (plain, "without", plots.VERMILION, "s"),
    ):
        medians.append([float(np.median(run)) for run in runs])
        ax.loglog(factors, medians[-1], color=color, lw=1.2)
        for number, (factor, run) in enumerate(zip(factors, runs, strict=True)):
            label = None if number else name
            ax.plot([factor] * len(run), run, marker, ms=5, color=color, ls="", label=label)
    ax.set_xticks(factors, labels=[f"{factor:g}" for factor in factors])
    ax.minorticks_off()
    ax.set(xlabel="factor on the usual initial weights", ylabel="gradient of layer 1", title="24 layers, five seeds")
    ax.legend(loc="upper left")
    (calm_low, *_, calm_high), (low, *_, high) = medians
    return describe(
        fig,
        f"Mean gradient of the first of 24 layers on a log scale, for initial weights from {factors[0]:g} to "
        f"{factors[-1]:g} times the usual size. Without LayerNorm it goes from {low:.0e} to {high:.0e}, "
        f"with it from {calm_low:.0e} to {calm_high:.0e}.",
    )


def layer_norm_effect(before: torch.Tensor, after: torch.Tensor) -> Figure:
    """The numbers of each example (rows) on a line, before and after; mean and one standard deviation are marked."""
    fig, axes = subplots(7, 2.6, 1, 2, sharey=True)
    for ax, values, title in zip(axes, (before, after), ("before LayerNorm", "after LayerNorm"), strict=True):
        for row, numbers in enumerate(values.tolist()):
            mean, std = np.mean(numbers), np.std(numbers)  # the biased one, as in LayerNorm
            ax.plot([mean - std, mean + std], [row, row], color=plots.ORANGE, lw=7, alpha=0.45, solid_capstyle="butt")
            ax.plot(numbers, [row] * len(numbers), "o", color=plots.BLUE, ms=6, mec=plots.PAPER, mew=0.7)
            ax.plot(mean, row - 0.2, "v", color=plots.VERMILION, ms=8)
        ax.axvline(0, color=plots.GREY, lw=0.8, zorder=0)
        ax.set(title=title, xlabel="value", xlim=(-2.3, 2.3), ylim=(len(values) - 0.5, -0.6))
        ax.set_yticks(range(len(values)), labels=[f"example {row}" for row in range(len(values))])
    axes[0].plot([], [], "o", color=plots.BLUE, label="a value")
    axes[0].plot([], [], "v", color=plots.VERMILION, label="mean")
    axes[0].plot([], [], color=plots.ORANGE, lw=7, alpha=0.45, label="± 1 std")
    axes[0].legend(loc="center left", fontsize=8, handlelength=1.2)
    low, high = (decimals(value.item()) for value in (before.min(), before.max()))
    new_low, new_high = (decimals(value.item()) for value in (after.min(), after.max()))
    return describe(
        fig,
        f"{len(before)} rows of {before.shape[1]} numbers on a line, before and after normalization. Before, they lie "
        f"between {low} and {high}, each row with a mean of its own; after, between {new_low} and {new_high}, both "
        "rows centred on 0 with a standard deviation of 1.",
    )


def normalization_axes() -> Figure:
    """A batch as a grid of tokens by features: LayerNorm averages along a row, batch norm down a column."""
    fig, ax = canvas(7, 2.45)
    for left, name, chosen in ((0.95, "LayerNorm", "row"), (4.45, "batch normalization", "column")):
        ax.text(left + 1.0, 2.22, name, ha="center", weight="bold")
        for row in range(4):
            for col in range(5):
                hit = row == 1 if chosen == "row" else col == 1
                color = plots.SKY if hit else plots.PAPER
                ax.add_patch(
                    Rectangle((left + 0.4 * col, 1.65 - 0.4 * row), 0.4, 0.4, facecolor=color, edgecolor=plots.INK)
                )
        write(ax, left - 0.12, 1.25, "tokens", rotation=90, fontsize=9)
        write(ax, left + 1.0, 0.3, "features", fontsize=9)
        note = "mean of one token's features" if chosen == "row" else "mean of one feature over tokens"
        write(ax, left + 1.0, 0.05, note, fontsize=9)
    return describe(
        fig,
        "Two grids of tokens by features. LayerNorm takes the mean of one row, the features of one token; batch "
        "normalization takes the mean of one column, one feature over all tokens.",
    )


def gelu_and_relu(gelu: Callable[[torch.Tensor], torch.Tensor]) -> Figure:
    """Both activation functions on the left, their derivatives (computed by autograd) on the right."""
    fig, (left, right) = subplots(7, 2.9, 1, 2)
    for function, name, color, style in ((gelu, "GELU", plots.BLUE, "-"), (torch.relu, "ReLU", plots.ORANGE, "--")):
        x = torch.linspace(-3.5, 3.5, 281, requires_grad=True)
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        if name == "ReLU":  # its derivative jumps at 0: leave a gap there
            slope = torch.where(x.abs() < 1e-4, torch.nan, slope)
        left.plot(x.detach(), y.detach(), style, color=color, label=name)
        right.plot(x.detach(), slope, style, color=color, label=name)
    for ax, title in ((left, "the function"), (right, "its derivative")):
        ax.axhline(0, color=plots.GREY, lw=0.8, zorder=0)
        ax.axvline(0, color=plots.GREY, lw=0.8, zorder=0)
        ax.set(title=title, xlabel="input $x$")
        ax.legend(loc="upper left")
    left.set_ylabel("output")
    right.set_ylabel("slope")
    return describe(
        fig,
        "Left: ReLU with its kink at 0, and GELU, a smooth curve beside it. Right: their slopes; that of ReLU jumps "
        "from 0 to 1, that of GELU changes smoothly.",
    )


def feed_forward(emb_dim: int = 768, factor: int = 4) -> Figure:
    """One token's vector before, between and after the two linear layers: its height is the number of its entries."""
    fig, ax = canvas(7, 3.1)
    wide, narrow, middle = 2.4, 2.4 / factor, 1.6
    columns = [(0.7, narrow, _EMBED), (3.0, wide, _THINK), (4.0, wide, _THINK), (6.3, narrow, _EMBED)]
    for x, height, color in columns:
        ax.add_patch(Rectangle((x - 0.14, middle - height / 2), 0.28, height, facecolor=color, edgecolor=plots.INK))
    for (x1, h1, _), (x2, h2, _) in ((columns[0], columns[1]), (columns[2], columns[3])):
        corners = [(x1 + 0.14, middle + h1 / 2), (x2 - 0.14, middle + h2 / 2)]
        corners += [(x2 - 0.14, middle - h2 / 2), (x1 + 0.14, middle - h1 / 2)]
        ax.add_patch(Polygon(corners, facecolor=_WHOLE, edgecolor="none", zorder=0))
    arrow(ax, (3.14, middle), (3.86, middle))
    ax.text(3.5, middle + 0.12, "GELU", ha="center")
    write(ax, 1.85, middle, f"Linear\n{emb_dim} to {factor * emb_dim}")
    write(ax, 5.15, middle, f"Linear\n{factor * emb_dim} to {emb_dim}")
    for x, text in ((0.7, "in"), (6.3, "out")):
        write(ax, x, middle - narrow / 2 - 0.12, f"{emb_dim}\nnumbers {text}", va="top", fontsize=9)
    write(ax, 3.5, 0.12, f"{factor * emb_dim} hidden numbers", fontsize=9)
    return describe(
        fig,
        f"A token's vector as a short column of {emb_dim} numbers, expanded by a linear layer to a tall column of "
        f"{factor * emb_dim}, passed through GELU, and contracted by a second linear layer to {emb_dim} numbers.",
    )


def _add_sign(ax: Axes, x: float, y: float, small: bool = False) -> None:
    ax.plot(x, y, "o", ms=12 if small else 15, color=plots.PAPER, mec=plots.INK, mew=1)
    write(ax, x, y - 0.01, "+", fontsize=10 if small else 13)


def _around(ax: Axes, x: float, low: float, high: float, side: float) -> None:
    """A shortcut from (x, low) along `side` to the plus sign at (x, high)."""
    ax.plot([x, side, side], [low, low, high], color=plots.BLUE, lw=1.8)
    gap = 0.14 if side > x else -0.14
    arrow(ax, (side, high), (x + gap, high), color=plots.BLUE, lw=1.8)


def shortcut_nets(plain: Sequence[float], shortcut: Sequence[float]) -> Figure:
    """The five-layer networks side by side, with the mean size of the gradient of its weights in each layer's box."""
    fig, ax = canvas(7, 5.7)
    step, last = 0.95, len(plain) - 1
    for left, title, means, jumps in (
        (1.6, "without shortcuts", plain, False),
        (4.8, "with shortcuts", shortcut, True),
    ):
        write(ax, left, 5.5, title, weight="bold")
        box(ax, left, 0.22, "input: 3 numbers", 1.7, 0.32, plots.PAPER)
        below = 0.38  # where the arrow into the next layer starts
        for layer, mean in enumerate(means):
            y = 0.98 + step * layer
            arrow(ax, (left, below), (left, y - 0.18))
            shade = 0.25 + 0.75 * min(1.0, max(0.0, (np.log10(mean) + 4) / 4.2))
            color = tuple(1 - shade * (1 - channel) for channel in (0.98, 0.86, 0.62))
            box(ax, left, y, f"layer {layer + 1}   gradient {mean:.5f}", 2.2, 0.36, color)
            below = y + 0.18
            if jumps and layer < last:
                arrow(ax, (left, below), (left, y + 0.3))
                _add_sign(ax, left, y + 0.42, small=True)
                _around(ax, left, y - 0.3, y + 0.42, left + 1.3)
                below = y + 0.52
        arrow(ax, (left, below), (left, 5.3))
    ax.text(6.2, 1.45, "the layer's\ninput is\nadded to\nits output", color=plots.BLUE, fontsize=9, va="center")
    return describe(
        fig,
        f"The two {len(plain)}-layer networks side by side, from the input at the bottom to the last layer at the "
        f"top, with each layer's mean gradient: without shortcuts {plain[0]:.5f} in the first and {plain[-1]:.5f} in "
        f"the last layer, with shortcuts {shortcut[0]:.5f} and {shortcut[-1]:.5f}.",
    )


def layer_gradients(curves: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Mean gradient per layer on a log scale: for each kind of network a thin line per seed."""
    fig, ax = subplots(6.8, 3.4)
    notes = []
    for (name, runs), color in zip(
        curves.items(), (plots.VERMILION, plots.GREEN, plots.ORANGE, plots.BLUE), strict=True
    ):
        for number, means in enumerate(runs):
            ax.semilogy(range(1, len(means) + 1), means, color=color, lw=1.1, label=None if number else name)
        first, last = (np.median([means[end] for means in runs]) for end in (0, -1))
        notes.append(f"{name}: {first:.0e} in the first and {last:.0e} in the last layer")
    depth = len(next(iter(curves.values()))[0])
    ax.set_xticks([1, *range(6, depth + 1, 6)])
    ax.set(xlabel="layer (1 is nearest the input)", ylabel="mean |gradient| of weights")
    fig.legend(loc="outside upper center", ncols=len(curves), fontsize=9)
    return describe(
        fig,
        f"Mean gradient per layer on a log scale, {depth} layers, one line per seed; medians: {'; '.join(notes)}.",
    )


def transformer_block() -> Figure:
    """The block from bottom to top: two halves, each with LayerNorm, a layer, dropout and the shortcut's sum."""
    fig, ax = canvas(7, 6.3)
    x, side = 2.6, 4.45
    ax.add_patch(Rectangle((0.85, 0.72), 4.05, 4.95, facecolor=plots.BACKDROP, edgecolor=plots.GREY, lw=1.2, zorder=0))
    write(ax, 2.6, 0.22, "x, shape (B, T, 768)")
    write(ax, 2.6, 6.12, "output, shape (B, T, 768)")
    heights = [1.25, 1.8, 2.35, 2.85, 3.6, 4.15, 4.7, 5.2]
    labels = [
        ("LayerNorm   norm1", _NORM),
        ("MultiHeadAttention   att", _MIX),
        ("Dropout   drop_shortcut", _WHOLE),
        None,
        ("LayerNorm   norm2", _NORM),
        ("FeedForward   ff", _THINK),
        ("Dropout   drop_shortcut", _WHOLE),
        None,
    ]
    arrow(ax, (x, 0.38), (x, heights[0] - 0.19))
    for index, (y, label) in enumerate(zip(heights, labels, strict=True)):
        if label is None:
            _add_sign(ax, x, y)
        else:
            box(ax, x, y, label[0], 2.5, 0.38, label[1])
        top = y + (0.14 if label is None else 0.19)
        if index + 1 < len(heights):
            below = 0.14 if labels[index + 1] is None else 0.19
            arrow(ax, (x, top), (x, heights[index + 1] - below))
    arrow(ax, (x, 5.34), (x, 5.95))
    _around(ax, x, 0.9, 2.85, side)
    _around(ax, x, 3.2, 5.2, side)
    for y, text in (
        (1.87, "first half: tokens\nexchange information"),
        (4.2, "second half: each token\nis worked on by itself"),
    ):
        ax.text(5.1, y, text, va="center", fontsize=9)
    ax.text(4.37, 1.3, "shortcut", color=plots.BLUE, rotation=90, va="center", ha="right", fontsize=9)
    ax.text(4.37, 3.62, "shortcut", color=plots.BLUE, rotation=90, va="center", ha="right", fontsize=9)
    return describe(
        fig,
        "A transformer block from bottom to top: LayerNorm, attention, dropout, plus the shortcut; then LayerNorm, "
        "feed-forward, dropout, plus the second shortcut. Input and output both have shape (B, T, 768).",
    )


def gpt_model(cfg: Mapping[str, Any]) -> Figure:
    """The whole model from bottom to top, with the shape of the tensor at every arrow."""
    fig, ax = canvas(7.2, 6.9)
    emb, vocab, layers = cfg["emb_dim"], cfg["vocab_size"], cfg["n_layers"]
    x, wide = 2.3, 3.0
    parts = [  # y, text, colour, height, note; without text, the plus sign
        (1.3, f"token embedding   tok_emb\n{vocab:,} rows of {emb}", _EMBED, 0.56, ""),
        (2.1, "", "", 0.28, ""),
        (2.9, "dropout   drop_emb", _WHOLE, 0.42, "only in training"),
        (4.05, f"{layers} × TransformerBlock\ntrf_blocks", _MIX, 0.95, "shape in = shape out"),
        (5.2, "LayerNorm   final_norm", _NORM, 0.42, "mean 0, variance 1 per token"),
        (6.0, f"output layer   out_head\nLinear, {emb} to {vocab}", _THINK, 0.56, "a score for every token"),
    ]
    write(ax, x, 0.66, "token ids", weight="bold")
    write(ax, x, 0.3, '"Every effort moves you": 6109 3626 6100 345', fontsize=9)
    shapes = ["(B, T)"] + [f"(B, T, {emb})"] * 5 + [f"(B, T, {vocab})"]
    bottom = 0.78
    for (y, text, color, height, note), shape in zip(parts, shapes, strict=False):
        arrow(ax, (x, bottom), (x, y - height / 2))
        ax.text(x + 0.15, (bottom + y - height / 2) / 2, shape, va="center", color=plots.BLUE, fontsize=9.5)
        if height > 0.9:  # a stack of blocks
            for step in (2, 1):
                shift = 0.07 * step
                box(ax, x + shift, y + shift, "", wide, height, _MIX)
        if text:
            box(ax, x, y, text, wide, height, color)
        else:
            _add_sign(ax, x, y)
        ax.text(4.15, y, note, va="center", fontsize=9)
        bottom = y + height / 2 + (0.14 if height > 0.9 else 0)
    box(ax, 5.6, 2.1, f"position embedding   pos_emb\n{cfg['context_length']:,} rows of {emb}", 2.6, 0.56, _EMBED)
    write(ax, 5.6, 1.2, "positions 0, 1, 2, 3", fontsize=9)
    arrow(ax, (5.6, 1.34), (5.6, 1.82))
    arrow(ax, (4.3, 2.1), (x + 0.14, 2.1))
    write(ax, 3.4, 2.24, f"(T, {emb})", color=plots.BLUE, fontsize=9.5)
    arrow(ax, (x, bottom), (x, 6.65))
    ax.text(x + 0.15, 6.46, shapes[-1], va="center", color=plots.BLUE, fontsize=9.5)
    write(ax, x, 6.78, "logits", weight="bold")
    return describe(
        fig,
        f"The GPT model from bottom to top: token ids (B, T), token embedding, a plus sign where the position "
        f"embedding comes in from the side, dropout, {layers} transformer blocks, LayerNorm, each with shape "
        f"(B, T, {emb}), and an output layer to (B, T, {vocab}) logits.",
    )


_PART_COLORS = {
    "token embedding": plots.PINK,
    "position embedding": plots.GREY,
    "attention": plots.ORANGE,
    "feed-forward": plots.GREEN,
    "LayerNorms": plots.INK,
    "output layer": plots.SKY,
}


def parameter_growth(cfg: Mapping[str, Any], start: Mapping[str, Any] = GPT_CONFIG_124M) -> Figure:
    """The parameters of each part on a log scale with fixed limits: a filled dot, and a hollow one for `start`."""
    parts, before = count_parameters(cfg), count_parameters(start)
    total = sum(parts.values())
    fig, ax = subplots(7.2, 3.4)
    for row, (name, number) in enumerate(parts.items()):
        color = _PART_COLORS[name]
        ax.plot([before[name], number], [row, row], color=color, lw=3)
        ax.plot(before[name], row, "o", ms=9, color=plots.PAPER, mec=color, mew=1.8)
        ax.plot(number, row, "o", ms=9, color=color, mec=color, mew=1.8)
        times = number / before[name]
        ax.text(2.2e9, row, f"{number:,} ({times:.2g} ×)" if times >= 0.01 else f"{number:,}", va="center", fontsize=9)
    ax.set_yticks(range(len(parts)), labels=list(parts))
    ax.set_xscale("log")
    # From the smallest count that the notebook's sliders allow to the largest, and room for the numbers beside it:
    # neither depends on the counts, so that what grows is seen to grow.
    ax.set(xlim=(2e2, 1e12), ylim=(len(parts) - 0.4, -0.6), xticks=[10**power for power in range(3, 10)])
    ax.spines.bottom.set_bounds(2e2, 1.7e9)
    ax.set_xlabel("parameters, each tick ten times the one before (hollow: 124M)", loc="left")
    ax.grid(axis="x", color=plots.SHADE, zorder=0)
    ax.minorticks_off()
    ax.set_title(
        f"{total:,} parameters: {total * 4 / 2**20:,.0f} MB in float32,\n"
        f"about {total * 16 / 2**20:,.0f} MB to train with AdamW"
    )
    changes = ", ".join(
        f"{name} {number / 1e6:,.2f} ({number / before[name]:.2g} times)" for name, number in parts.items()
    )
    return describe(
        fig,
        f"Parameters by part in millions, and how many times those of the 124M model, for emb_dim {cfg['emb_dim']}, "
        f"n_layers {cfg['n_layers']} and vocab_size {cfg['vocab_size']}: {changes}.",
    )


def parameter_shares(configs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """For several configurations, the share of the parameters that each part holds (stacked bars)."""
    fig, ax = subplots(7, 3.2)
    counts = {name: count_parameters(cfg) for name, cfg in configs.items()}
    left = np.zeros(len(counts))
    for part, color in _PART_COLORS.items():
        shares = np.array([parts[part] / sum(parts.values()) for parts in counts.values()])
        ax.barh(list(counts), shares, left=left, color=color, label=part, edgecolor=plots.PAPER, lw=0.6)
        for row, share in enumerate(shares):
            if share > 0.035:
                write(ax, left[row] + share / 2, row, f"{share:.0%}", fontsize=9, color=plots.INK)
        left += shares
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="share of all parameters", ylabel="GPT-2 size")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9)
    said = []
    for size, parts in counts.items():
        total = sum(parts.values())
        shares = ", ".join(f"{part} {parts[part] / total:.0%}" for part in parts if parts[part] > 0.035 * total)
        said.append(f"{size}: {shares}")
    return describe(fig, f"Stacked bars of the parts' shares in the GPT-2 sizes. {'; '.join(said)}.")


def changes(amounts: torch.Tensor, words: Sequence[str]) -> Figure:
    """How much the logits at each token (columns) move when a token (rows) is changed: (T, T)."""
    fig, ax = subplots(6.4, 4.2)
    plots.heatmap(ax, amounts, rows=words, cols=words)
    ax.set(title="Largest change of a logit", xlabel="logits at this token", ylabel="token that was changed")
    left = amounts.tril(-1).max().item()
    return describe(
        fig,
        f"Heatmap of {len(words)} by {len(words)} tokens: which logits move when a token is changed. The largest "
        f"change to the left of the diagonal is {decimals(left)}; on the diagonal the changes are between "
        f"{decimals(amounts.diagonal().min().item())} and {decimals(amounts.max().item())}.",
    )


def next_token_probabilities(untrained: torch.Tensor, trained: torch.Tensor, labels: Sequence[str]) -> Figure:
    """The untrained model's likeliest tokens, and how much probability the likeliest tokens of both models hold.

    `labels` are the texts of as many of the untrained model's tokens as bars are drawn; probabilities (vocab_size,).
    """
    ordered, peaked = (p.sort(descending=True).values.double().numpy() for p in (untrained, trained))
    uniform = 100 / len(ordered)
    fig, (left, right) = subplots(7.2, 3.4, 1, 2)
    left.barh(range(len(labels)), 100 * ordered[: len(labels)], color=plots.SKY)
    left.set_yticks(range(len(labels)), labels=labels, fontsize=9, parse_math=False)
    left.invert_yaxis()
    left.axvline(uniform, color=plots.VERMILION, lw=1.5, ls="--")
    left.set(title="untrained: likeliest tokens", xlabel="probability in percent", xlim=(0, 0.03))
    left.set_xticks([0, 0.01, 0.02, 0.03])
    ranks = np.arange(1, len(ordered) + 1)
    right.axhline(0.5, color=plots.GREY, lw=0.8)
    right.semilogx(ranks, peaked.cumsum(), color=plots.GREEN, label="trained")
    right.semilogx(ranks, ordered.cumsum(), color=plots.BLUE, label="untrained")
    right.semilogx(ranks, ranks / len(ranks), color=plots.VERMILION, lw=1.5, ls="--", label="all equal")
    right.set(title="what the likeliest tokens hold", xlabel="number of tokens", ylabel="share of the probability")
    right.set_xticks([1, 10, 100, 1000, 10_000], labels=["1", "10", "100", "1,000", "10,000"], fontsize=9)
    right.minorticks_off()
    right.legend(loc="upper left", fontsize=9)
    hundred, hundred_peaked = ordered[:100].sum(), peaked[:100].sum()
    return describe(
        fig,
        f"Left: the {len(labels)} likeliest next tokens of the untrained model, unrelated pieces of words, none above "
        f"{100 * ordered[0]:.3f} percent. Right: the share of all probability that the likeliest tokens hold, against "
        f"their number on a log scale; the first 100 hold {hundred_peaked:.0%} in the trained and {hundred:.1%} in the "
        f"untrained model.",
    )


def generation_loop(steps: Sequence[Sequence[str]]) -> Figure:
    """The loop of greedy generation as a cycle, and the growing text: one list of tokens per step."""
    fig, ax = canvas(7.2, 4.4)
    stations = [
        (0.8, "token ids\n(1, T)", _EMBED),
        (2.25, "GPTModel", _MIX),
        (3.7, "logits\n(1, T, V)", _WHOLE),
        (5.1, "last row\n(1, V)", _WHOLE),
        (6.45, "argmax\n(1, 1)", _THINK),
    ]
    for x, text, color in stations:
        box(ax, x, 3.75, text, 1.05, 0.56, color)
    for (x1, *_), (x2, *_) in itertools.pairwise(stations):
        arrow(ax, (x1 + 0.525, 3.75), (x2 - 0.525, 3.75))
    ax.plot([6.45, 6.45, 0.8], [3.47, 3.05, 3.05], color=plots.BLUE, lw=1.8)
    arrow(ax, (0.8, 3.05), (0.8, 3.47), color=plots.BLUE, lw=1.8)
    ax.text(3.6, 3.17, "append the new token and go round again", ha="center", color=plots.BLUE, fontsize=9)
    for row, pieces in enumerate(steps):
        y = 2.45 - 0.58 * row
        ax.text(0.95, y, f"round {row + 1}", ha="right", va="center", fontsize=9)
        widths = [0.37 + 0.092 * len(piece) for piece in pieces]
        colors = [_EMBED] * (len(pieces) - 1) + [_THINK]
        box_row(ax, 1.065, y, pieces, widths, colors, gap=0.07, height=0.4)
    return describe(
        fig,
        "The generation loop: token ids go through the model to logits, the argmax of the last row is appended, and "
        f"round again. Below, the text grows by one piece per round, to {''.join(steps[-1])}.",
    )
