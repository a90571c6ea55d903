"""Pictures for the bonus notebook on buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..plots import GREY, PALE_GREEN, PALE_VERMILION, PAPER, box, canvas, decimals, describe, subplots, write
from .shared import memory_bars

_YES, _NO = PALE_GREEN, PALE_VERMILION


def kinds_of_tensors(rows: Mapping[str, Sequence[bool]], columns: Sequence[str]) -> Figure:
    """A table of yes and no: what happens to parameters, buffers and other tensors of a module."""
    height = 0.5 * len(rows) + 0.55
    fig, ax = canvas(7, height)
    for col, column in enumerate(columns):
        write(ax, 3.1 + 1.25 * col, height - 0.22, column, weight="bold", fontsize=9)
    for row, (name, answers) in enumerate(rows.items()):
        y = height - 0.75 - 0.5 * row
        ax.text(0.1, y, name, va="center", fontsize=9.5)
        for col, answer in enumerate(answers):
            color = _YES if answer else _NO
            box(ax, 3.1 + 1.25 * col, y, "yes" if answer else "no", width=1.1, height=0.38, color=color)
    told = [
        f"{name}: " + ", ".join(f"{column} {'yes' if yes else 'no'}" for column, yes in zip(columns, row, strict=True))
        for name, row in rows.items()
    ]
    return describe(fig, f"Table of yes and no. {'. '.join(told)}.")


def mask_memory(context_length: int, weights: int, num_layers: int = 12) -> Figure:
    """What a checkpoint of a GPT holds: float32 weights, and a causal mask per layer in three ways, in MB."""
    squares = num_layers * context_length**2
    fig, ax = subplots(6.6, 2.4)
    names = ["mask not saved", "mask saved as bool", "mask saved as float32"]
    masks = [0.0, squares / 1e6, 4 * squares / 1e6]
    notes = [f"{4 * weights / 1e6 + mask:,.0f} MB" for mask in masks]
    memory_bars(ax, names, [4 * weights / 1e6] * 3, masks, "masks", notes)
    ax.set_xlim(0, (4 * weights + 4 * squares) / 1e6 * 1.16)
    ax.set(xlabel="MB in the file", title=f"{num_layers} layers, context length {context_length:,}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.28), ncols=2)
    told = ", ".join(f"{name} {note}" for name, note in zip(names, notes, strict=True))
    return describe(fig, f"Bars for a GPT with {num_layers} layers and a context length of {context_length:,}: {told}.")


def leak(before: torch.Tensor, after: torch.Tensor) -> Figure:
    """A mask (T, T) before and after training steps that could change it; pale vermilion where it should be zero."""
    fig, axes = subplots(6.4, 2.9, 1, 2)
    for ax, values, title in [(axes[0], before, "before training"), (axes[1], after, "after training")]:
        values = values.detach()
        ax.set_xlim(-0.5, len(values) - 0.5)
        ax.set_ylim(len(values) - 0.5, -0.5)
        ax.set_aspect("equal")
        for row in range(len(values)):
            for col in range(len(values)):
                value, future = float(values[row, col]), col > row
                color = (_NO if abs(value) >= 0.05 else PAPER) if future else _YES
                ax.add_patch(Rectangle((col - 0.48, row - 0.48), 0.96, 0.96, facecolor=color, edgecolor=GREY, lw=0.6))
                write(ax, col, row, decimals(value, 1), fontsize=9)
        ax.set(title=title, xlabel="looks at", ylabel="token", xticks=range(len(values)), yticks=range(len(values)))
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    just_above = decimals(float(after.detach().diagonal(1).mean()), 1)
    return describe(
        fig,
        f"Two squares of {len(before)} by {len(before)} numbers. Before training: ones on and below the diagonal, "
        "zeros above. After training: the numbers just above the diagonal, where each token looks at the next, are "
        f"{just_above} on average.",
    )
