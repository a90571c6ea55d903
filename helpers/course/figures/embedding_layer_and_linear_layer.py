"""Pictures for the bonus notebook on embedding and linear layers."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from ..plots import BLUE, GREY, PAPER, SHADE, arrow, box, canvas

_TINTS = ["#BFE0F2", "#FBE3B5", "#BDE6D6", "#EFD0E0", "#FFF6A8", "#F6C9AE"]


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
