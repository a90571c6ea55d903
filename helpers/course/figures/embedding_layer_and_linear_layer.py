"""Pictures for the bonus notebook on embedding and linear layers."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from ..plots import (
    BLUE,
    GREY,
    PALE_BLUE,
    PALE_ORANGE,
    PAPER,
    SHADE,
    TINTS,
    arrow,
    box,
    canvas,
    decimals,
    describe,
    subplots,
    write,
)
from .shared import box_row


def row_product(
    inputs: torch.Tensor,
    table: torch.Tensor,
    names: tuple[str, str, str] = ("inputs", "table", "output"),
) -> Figure:
    """Rows of weights (N, V) times a table (V, C): the rows of the table that are used in colour, and the product."""
    inputs, table = inputs.detach(), table.detach()
    result = inputs @ table  # (N, C)
    count, rows = inputs.shape
    height = 0.36 * max(rows, count) + 0.5
    fig, ax = canvas(7, height)
    middle = (height - 0.4) / 2
    top = middle + 0.18 * (rows - 1)
    across = 2.55 - 0.37 * rows  # the inputs end at the multiplication sign
    whole = bool((inputs == inputs.round()).all())
    tints = [TINTS[v % len(TINTS)] for v in range(rows)]
    style = {"gap": 0.02, "height": 0.31, "edge": GREY}
    for v in range(rows):
        color = tints[v] if inputs[:, v].any() else PAPER
        box_row(ax, 2.85, top - 0.36 * v, [decimals(value) for value in table[v].tolist()], 0.6, color, **style)
    for n in range(count):
        y = middle + 0.18 * (count - 1) - 0.36 * n
        shares = inputs[n].tolist()
        texts = [decimals(share, 0 if whole or share == 0 else 1) for share in shares]
        colors = [tint if share else PAPER for tint, share in zip(tints, shares, strict=True)]
        box_row(ax, across - 0.205, y, texts, 0.37, colors, **style)
        used = [v for v, share in enumerate(shares) if share]
        color = tints[used[0]] if len(used) == 1 else SHADE if used else PAPER
        box_row(ax, 5.1, y, [decimals(value) for value in result[n].tolist()], 0.6, color, **style)
    for x, text in [(2.55, "×"), (4.88, "=")]:
        write(ax, x, middle, text, fontsize=14)
    shapes = [(count, rows), tuple(table.shape), tuple(result.shape)]
    for x, name, shape in zip((across + 0.185 * (rows - 1), 3.75, 6.0), names, shapes, strict=True):
        write(ax, x, height - 0.15, f"{name} {shape}", weight="bold", fontsize=9.5)
    said = [f"row {n} of the {names[2]} is {_sum_in_words(shares)}" for n, shares in enumerate(inputs.tolist())]
    return describe(
        fig,
        f"A matrix of shape {shapes[0]}, the {names[0]}, times one of shape {shapes[1]}, the {names[1]}, whose rows "
        f"are used in the same colours: {'; '.join(said)}.",
    )


def _sum_in_words(shares: list[float]) -> str:
    """What a row of weights makes of the rows of a table: "0.7 times row 2 plus 0.3 times row 5"."""
    parts = [f"{round(share, 2):g} times row {row}" for row, share in enumerate(shares) if share]
    return " plus ".join(parts).replace("1 times row", "row") or "all zeros"


def work(vocabularies: list[int], tokens: int, size: int) -> Figure:
    """Multiplications of the product, and numbers copied by the lookup, over the size of the vocabulary."""
    fig, ax = subplots(6.2, 3.2)
    ax.loglog(vocabularies, [tokens * v * size for v in vocabularies], marker="o", label="product: multiplications")
    ax.loglog(vocabularies, [tokens * size] * len(vocabularies), "s--", label="lookup: numbers copied")
    ax.set(xlabel="size of the vocabulary, V", ylabel=f"work for {tokens:,} tokens, C = {size}", ylim=(1e6, 1e13))
    ax.legend(loc="upper left")
    return describe(
        fig,
        "Work against the size of the vocabulary on logarithmic axes: the product rises in proportion to the "
        "vocabulary, the lookup is a flat line far below it.",
    )


def tied_weights() -> Figure:
    """Tied weights, one table at both ends of a model: the input picks its rows, the output is compared with them."""
    fig, ax = canvas(7, 2.6)
    for x, text, width in [(0.55, "ids\n(B, T)", 0.8), (2.05, "embedding\npicks rows", 1.3)]:
        box(ax, x, 1.95, text, width=width, height=0.55, color=PALE_BLUE if x > 1 else SHADE)
    box(ax, 3.75, 1.95, "transformer\nblocks", width=1.2, height=0.55)
    box(ax, 5.3, 1.95, "output head\ncompares", width=1.2, height=0.55, color=PALE_BLUE)
    box(ax, 6.55, 1.95, "logits\n(B, T, V)", width=0.8, height=0.55)
    for start, end in [(0.97, 1.37), (2.72, 3.12), (4.37, 4.67), (5.92, 6.12)]:
        arrow(ax, (start, 1.95), (end, 1.95))
    box(ax, 3.67, 0.55, "one table, (V, C)", width=2.4, height=0.5, color=PALE_ORANGE, fontsize=10)
    arrow(ax, (2.75, 0.83), (2.15, 1.64), color=BLUE)
    arrow(ax, (4.6, 0.83), (5.2, 1.64), color=BLUE)
    ax.text(1.62, 1.15, "its rows", ha="center", fontsize=9)
    write(ax, 5.95, 1.15, "the same rows,\nas weights", fontsize=9)
    write(ax, 3.67, 1.15, "gradients from both\nends add up", fontsize=9)
    return describe(
        fig,
        "A model from left to right: ids, embedding, transformer blocks, output head, logits. One table of V rows "
        "below has arrows to both the embedding and the output head; gradients from both ends add up.",
    )
