"""Pictures for the bonus notebooks on embedding layers, linear layers and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..plots import BLUE, GREY, INK, ORANGE, PAPER, SHADE, arrow, box, canvas, subplots

_TINTS = ["#BFE0F2", "#FBE3B5", "#BDE6D6", "#EFD0E0", "#FFF6A8", "#F6C9AE"]
_YES, _NO = "#BDE6D6", "#F6C9AE"


def _number(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0 takes the sign from −0


def row_product(
    inputs: torch.Tensor,
    table: torch.Tensor,
    names: tuple[str, str, str] = ("inputs", "table", "output"),
) -> Figure:
    """Rows of weights (N, V) times a table (V, C): the table's rows in colour, and what becomes of them."""
    inputs, table = inputs.detach(), table.detach()
    result = inputs @ table  # (N, C)
    count, rows = inputs.shape
    height = 0.36 * max(rows, count) + 0.5
    fig, ax = canvas(7, height)
    middle = (height - 0.4) / 2
    top = middle + 0.18 * (rows - 1)
    across = 2.55 - 0.37 * rows  # the inputs end at the multiplication sign
    whole = bool((inputs == inputs.round()).all())
    for n in range(count):
        y = middle + 0.18 * (count - 1) - 0.36 * n
        for v in range(rows):
            share = float(inputs[n, v])
            text = _number(share, 0 if whole or share == 0 else 1)
            color = _TINTS[v % len(_TINTS)] if share else PAPER
            box(ax, across - 0.02 + 0.37 * v, y, text, width=0.35, height=0.31, color=color, edge=GREY)
    for v in range(rows):
        used = bool(inputs[:, v].any())
        for c, value in enumerate(table[v].tolist()):
            color = _TINTS[v % len(_TINTS)] if used else PAPER
            box(ax, 3.15 + 0.6 * c, top - 0.36 * v, _number(value, 2), width=0.58, height=0.31, color=color, edge=GREY)
    for n in range(count):
        y = middle + 0.18 * (count - 1) - 0.36 * n
        single = [v for v in range(rows) if inputs[n, v]]
        color = _TINTS[single[0] % len(_TINTS)] if len(single) == 1 else SHADE if single else PAPER
        for c, value in enumerate(result[n].tolist()):
            box(ax, 5.4 + 0.6 * c, y, _number(value, 2), width=0.58, height=0.31, color=color, edge=GREY)
    for x, text in [(2.55, "×"), (4.88, "=")]:
        ax.text(x, middle, text, ha="center", va="center", fontsize=14)
    shapes = [(count, rows), tuple(table.shape), tuple(result.shape)]
    for x, name, shape in zip((across + 0.185 * (rows - 1), 3.75, 6.0), names, shapes, strict=True):
        ax.text(x, height - 0.15, f"{name} {shape}", ha="center", va="center", weight="bold", fontsize=9.5)
    return fig


def tied_weights() -> Figure:
    """One table at both ends of a model: rows are picked at the input, and compared with at the output."""
    fig, ax = canvas(7, 2.6)
    for x, text, width in [(0.55, "ids\n(B, T)", 0.8), (2.05, "embedding\npicks rows", 1.3)]:
        box(ax, x, 1.95, text, width=width, height=0.55, color="#BFE0F2" if x > 1 else SHADE)
    box(ax, 3.75, 1.95, "transformer\nblocks", width=1.2, height=0.55)
    box(ax, 5.3, 1.95, "output head\ncompares", width=1.2, height=0.55, color="#BFE0F2")
    box(ax, 6.55, 1.95, "logits\n(B, T, V)", width=0.8, height=0.55)
    for start, end in [(0.97, 1.37), (2.72, 3.12), (4.37, 4.67), (5.92, 6.12)]:
        arrow(ax, (start, 1.95), (end, 1.95))
    box(ax, 3.67, 0.55, "one table, (V, C)", width=2.4, height=0.5, color="#FBE3B5", fontsize=10)
    arrow(ax, (2.75, 0.83), (2.15, 1.64), color=BLUE)
    arrow(ax, (4.6, 0.83), (5.2, 1.64), color=BLUE)
    ax.text(1.62, 1.15, "its rows", ha="center", fontsize=9)
    ax.text(5.95, 1.15, "the same rows,\nas weights", ha="center", va="center", fontsize=9)
    ax.text(3.67, 1.15, "gradients from both\nends add up", ha="center", va="center", fontsize=9)
    return fig


def kinds_of_tensors(rows: Mapping[str, Sequence[bool]], columns: Sequence[str]) -> Figure:
    """A table of yes and no: what happens to each kind of tensor in a module."""
    height = 0.5 * len(rows) + 0.55
    fig, ax = canvas(7, height)
    for number, column in enumerate(columns):
        ax.text(3.1 + 1.25 * number, height - 0.22, column, ha="center", va="center", weight="bold", fontsize=9)
    for number, (name, answers) in enumerate(rows.items()):
        y = height - 0.75 - 0.5 * number
        ax.text(0.1, y, name, va="center", fontsize=9.5)
        for col, answer in enumerate(answers):
            color = _YES if answer else _NO
            box(ax, 3.1 + 1.25 * col, y, "yes" if answer else "no", width=1.1, height=0.38, color=color)
    return fig


def mask_memory(context_length: int, weights: int, num_layers: int = 12) -> Figure:
    """What a checkpoint of a GPT holds: float32 weights, and a causal mask per layer in three ways, in MB."""
    squares = num_layers * context_length**2
    fig, ax = subplots(6.6, 2.4)
    names = ["mask not saved", "mask saved as bool", "mask saved as float32"]
    masks = [0.0, squares / 1e6, 4 * squares / 1e6]
    ax.barh(names, [4 * weights / 1e6] * 3, color=BLUE, label="weights")
    ax.barh(names, masks, left=4 * weights / 1e6, color=ORANGE, hatch="//", edgecolor=INK, lw=0.5, label="masks")
    for number, mask in enumerate(masks):
        ax.text(4 * weights / 1e6 + mask, number, f"  {4 * weights / 1e6 + mask:,.0f} MB", va="center", fontsize=9)
    ax.set_xlim(0, (4 * weights + 4 * squares) / 1e6 * 1.16)
    ax.set(xlabel="MB in the file", title=f"{num_layers} layers, context length {context_length:,}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.28), ncols=2)
    return fig


def leak(before: torch.Tensor, after: torch.Tensor) -> Figure:
    """A mask (T, T) before and after training steps that were allowed to change it; red where it should be zero."""
    fig, axes = subplots(6.4, 2.9, 1, 2)
    for ax, values, title in [(axes[0], before, "before training"), (axes[1], after, "after training")]:
        values = values.detach()
        ax.set_xlim(-0.5, len(values) - 0.5)
        ax.set_ylim(len(values) - 0.5, -0.5)
        ax.set_aspect("equal")
        for row in range(len(values)):
            for col in range(len(values)):
                number, future = float(values[row, col]), col > row
                color = (_NO if abs(number) >= 0.05 else PAPER) if future else _YES
                text = _number(number, 1)
                ax.add_patch(Rectangle((col - 0.48, row - 0.48), 0.96, 0.96, facecolor=color, edgecolor=GREY, lw=0.6))
                ax.text(col, row, text, ha="center", va="center", fontsize=9)
        ax.set(title=title, xlabel="looks at", ylabel="token", xticks=range(len(values)), yticks=range(len(values)))
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    return fig
