"""Pictures for the bonus notebook from GPT to Llama."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..plots import (
    BLUE,
    DARK_ORANGE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    PALE_ORANGE,
    PALE_PINK,
    SHADE,
    VERMILION,
    arrow,
    box,
    canvas,
    describe,
    subplots,
    write,
)


def norms(points: torch.Tensor, rms: torch.Tensor, layer: torch.Tensor) -> Figure:
    """Points of a plane (N, 2), and where two norms put them."""
    fig, axes = subplots(8.4, 3.1, 1, 3)
    for ax, values, title in zip(axes, (points, rms, layer), ("before", "RMSNorm", "LayerNorm"), strict=True):
        angle = torch.atan2(points[:, 1], points[:, 0])
        ax.scatter(*values.T, c=angle, cmap="twilight", s=16, vmin=-np.pi, vmax=np.pi, edgecolor=INK, lw=0.3)
        ax.axhline(0, color=GREY, lw=0.6, zorder=0)
        ax.axvline(0, color=GREY, lw=0.6, zorder=0)
        ax.set(title=title, xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xlabel="first number")
    axes[0].set_ylabel("second number")
    return describe(
        fig,
        "Three planes. Before: a cloud of points, coloured by direction. RMSNorm: the same colours on a circle of "
        "radius 1.4. LayerNorm: all points at one of two places, upper left and lower right.",
    )


def turning(degrees: float = 30.0) -> Figure:
    """A query two positions after a key, early and late in a text: both have turned, the angle between them is one."""
    fig, axes = subplots(6.4, 3.2, 1, 2)
    for ax, (at_key, at_query) in zip(axes, ((1, 3), (5, 7)), strict=True):
        for position, color, name in ((at_key, BLUE, "key"), (at_query, VERMILION, "query")):
            angle = np.deg2rad(degrees * position)
            ax.annotate(
                "", (np.cos(angle), np.sin(angle)), (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2}
            )
            write(ax, 1.28 * np.cos(angle), 1.18 * np.sin(angle), f"{name}, {position}", color=color, fontsize=9)
        sweep = np.deg2rad(np.linspace(degrees * at_key, degrees * at_query, 30))
        ax.plot(0.4 * np.cos(sweep), 0.4 * np.sin(sweep), color=INK, lw=1)
        middle = np.deg2rad(degrees * (at_key + at_query) / 2)
        write(ax, 0.6 * np.cos(middle), 0.6 * np.sin(middle), f"{degrees * (at_query - at_key):.0f}°", fontsize=9)
        circle = np.linspace(0, 2 * np.pi, 100)
        ax.plot(np.cos(circle), np.sin(circle), color=PALE_GREY, lw=1, zorder=0)
        ax.set(title=f"positions {at_key} and {at_query}", xlim=(-1.7, 1.7), ylim=(-1.35, 1.35), aspect="equal")
        ax.axis("off")
    return describe(
        fig,
        "Two circles with a blue arrow for a key and an orange-red one for a query, 30 degrees per position. At the "
        "positions 1 and 3 they point up right and up; at 5 and 7 left and down left. Both times the angle between "
        "them is 60 degrees.",
    )


def rotary_speeds(cos: torch.Tensor) -> Figure:
    """The cosines (positions, pairs) of `rotary_tables` as a picture: quick pairs at the top, slow ones below."""
    fig, ax = subplots(7.4, 2.8)
    image = ax.imshow(cos.T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    ax.set(xlabel="position", ylabel="pair", title="cosine of each pair's angle")
    fig.colorbar(image, ax=ax, ticks=[-1, 0, 1])
    return describe(
        fig,
        f"A picture with a row for each of {cos.shape[1]} pairs and a column for each of {cos.shape[0]} positions. The "
        "upper rows change colour within a few positions, each lower row more slowly; the lowest ones hardly change.",
    )


def score_patterns(added: torch.Tensor, turned: torch.Tensor) -> Figure:
    """Scores (T, T) of one query with one key at every pair of positions: positions added, and positions turned."""
    fig, axes = subplots(7.4, 3.3, 1, 2)
    titles = "GPT: positions added", "Llama: positions turned"
    for ax, scores, title in zip(axes, (added, turned), titles, strict=True):
        scores = scores - scores.mean()
        limit = float(scores.abs().max())
        ax.imshow(scores, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set(title=title, xlabel="position of the key", ylabel="position of the query")
    return describe(
        fig,
        "Two squares of scores, a row for each position of the query and a column for each of the key. With "
        "positions added the first column is the strongest, whatever the query. With positions turned there are "
        "stripes along the diagonals, each of one colour.",
    )


def gate() -> Figure:
    """SiLU beside GELU, and the product of a gated and a plain number over the plane of both."""
    fig, axes = subplots(7.8, 3.1, 1, 2)
    x = torch.linspace(-5, 5, 200)
    axes[0].plot(x, F.silu(x), label="SiLU", color=BLUE)
    axes[0].plot(x, F.gelu(x, approximate="tanh"), label="GELU", color=ORANGE, linestyle="--")
    axes[0].set(title="two activation functions", xlabel="x")
    axes[0].legend()
    a, b = torch.meshgrid(torch.linspace(-4, 4, 81), torch.linspace(-4, 4, 81), indexing="xy")
    image = axes[1].imshow(
        F.silu(a) * b, extent=(-4, 4, -4, 4), origin="lower", cmap="RdBu", vmin=-16, vmax=16, aspect="auto"
    )
    axes[1].set(title="SiLU(gate) · up", xlabel="gate", ylabel="up")
    fig.colorbar(image, ax=axes[1])
    return describe(
        fig,
        "Left: SiLU and GELU, both near zero for negative and near x for positive x; SiLU dips lower, to -0.28. "
        "Right: SiLU of the gate times up, as a colour. Where the gate is negative it is nearly zero; where the gate "
        "is positive it has the sign of up and grows with both.",
    )


def shared_heads(heads: int = 9, groups: Sequence[int] = (9, 3, 1)) -> Figure:
    """Query heads above heads of keys and values: as many, a third, one."""
    fig, ax = canvas(9, 2.5)
    names = {heads: "multi-head", 1: "multi-query"}
    for panel, kv_heads in enumerate(groups):
        left, width = 0.2 + 3 * panel, 2.6 / heads
        write(ax, left + 1.3, 2.3, f"{names.get(kv_heads, 'grouped-query')}: {heads} and {kv_heads}", weight="bold")
        for head in range(heads):
            x, group = left + width * (head + 0.5), head * kv_heads // heads
            center = left + 2.6 * (group + 0.5) / kv_heads
            ax.plot([x, center], [1.55, 0.85], color=GREY, lw=1)
            box(ax, x, 1.7, f"{head + 1}", 0.8 * width, 0.34, PALE_BLUE)
        for group in range(kv_heads):
            box(ax, left + 2.6 * (group + 0.5) / kv_heads, 0.68, f"{group + 1}", 0.8 * width, 0.34, PALE_ORANGE)
    write(ax, 0.2, 1.98, "queries", ha="left", fontsize=9, color=BLUE)
    write(ax, 0.2, 0.32, "keys and values", ha="left", fontsize=9, color=DARK_ORANGE)
    return describe(
        fig,
        "Three ways to arrange heads, each with nine query heads in a row. Multi-head: each has its own head of keys "
        "and values. Grouped-query: three query heads share each of three. Multi-query: all nine share one.",
    )


def cache_sizes(rows: Mapping[str, int]) -> Figure:
    """Bytes that each model keeps per token, as bars."""
    fig, ax = subplots(7, 0.45 * len(rows) + 1.1)
    names, sizes = list(rows), [size / 1024 for size in rows.values()]
    ax.barh(names, sizes, color=[PALE_GREY] * (len(rows) - 1) + [PALE_GREEN], edgecolor=INK)
    for place, size in enumerate(sizes):
        write(ax, size + max(sizes) * 0.01, place, f"{size:.0f} KiB", ha="left", fontsize=9)
    ax.set(xlabel="KiB per token, float32", xlim=(0, max(sizes) * 1.15))
    ax.invert_yaxis()
    listed = "; ".join(f"{name}: {size:.0f} KiB" for name, size in zip(names, sizes, strict=True))
    return describe(fig, f"Bars of the memory that a KV cache takes per token. {listed}.")


def blocks_compared() -> Figure:
    """GPT's block and Llama's, part by part; what differs is coloured."""
    fig, ax = canvas(8.4, 4.9)
    columns = {
        "GPT-2 (chapter 4)": (
            "feed-forward: two matrices,\nGELU, biases",
            "LayerNorm",
            "attention: each head has\nkeys and values; a bias at its end",
            "LayerNorm",
            "token embedding\n+ position embedding",
        ),
        "Llama": (
            "SwiGLU: three matrices,\na gate, no biases",
            "RMSNorm",
            "grouped-query attention, queries\nand keys turned; no biases",
            "RMSNorm",
            "token embedding",
        ),
    }
    heights = (4.0, 3.25, 2.5, 1.75, 0.75)
    for (title, parts), x in zip(columns.items(), (2.1, 6.3), strict=True):
        write(ax, x, 4.7, title, weight="bold")
        colors = (PALE_GREEN, PALE_BLUE, PALE_ORANGE, PALE_BLUE, PALE_PINK) if x > 4 else (SHADE,) * 5
        for y, part, color in zip(heights, parts, colors, strict=True):
            box(ax, x, y, part, 3.1, 0.5, color, fontsize=8.5)
        for lower, upper in zip(heights[:0:-1], heights[-2::-1], strict=True):
            arrow(ax, (x, lower + 0.26), (x, upper - 0.26))
        for begin, end in ((1.3, 2.95), (2.95, 4.5)):  # around attention, around feed-forward
            ax.plot([x, x - 1.8, x - 1.8, x], [begin, begin, end, end], color=GREY, lw=1)
            if end > 4:
                ax.plot([x, x], [heights[0] + 0.25, end], color=GREY, lw=1)
    return describe(
        fig,
        "Two stacks of boxes, from below: embedding, norm, attention, norm, feed-forward, with shortcuts around "
        "attention and feed-forward in both. In Llama's all five are coloured: no position embedding, RMSNorm twice, "
        "grouped-query attention with turned queries and keys, SwiGLU; and no biases.",
    )


def curves(steps: Sequence[int], losses: Mapping[str, np.ndarray]) -> Figure:
    """Losses (seeds, steps) of several models: each run thin, the mean thick."""
    fig, ax = subplots(6.4, 3.2)
    for (name, runs), color, style in zip(losses.items(), (BLUE, VERMILION, GREEN), ("-", "--", ":"), strict=False):
        for run in runs:
            ax.plot(steps, run, color=color, lw=0.8, alpha=0.5, linestyle=style)
        ax.plot(steps, np.mean(runs, axis=0), color=color, linestyle=style, label=name)
    ax.set(xlabel="updates", ylabel="validation loss (nats per letter)")
    ax.legend()
    return describe(
        fig, f"Validation loss over updates for {' and '.join(losses)}: thin lines for single runs, thick for means."
    )


def block_bytes() -> Figure:
    """The bytes of a Q8_0 block and of a Q4_1 block, to scale."""
    fig, ax = canvas(9, 2.6)
    unit = 8.2 / 34
    for y, name, parts in (
        (
            1.75,
            "Q8_0: 34 bytes",
            [("scale", 2, PALE_ORANGE), ("32 whole numbers from −128 to 127, a byte each", 32, PALE_BLUE)],
        ),
        (
            0.55,
            "Q4_1: 20 bytes",
            [("scale", 2, PALE_ORANGE), ("min.", 2, PALE_GREEN), ("32 from 0 to 15, two per byte", 16, PALE_BLUE)],
        ),
    ):
        write(ax, 0.4, y + 0.5, name, ha="left", weight="bold", fontsize=9.5)
        x = 0.4
        for text, count, color in parts:
            ax.add_patch(Rectangle((x, y - 0.22), count * unit, 0.44, facecolor=color, edgecolor=INK, lw=1))
            for line in range(1, count):
                ax.plot([x + line * unit] * 2, [y - 0.22, y - 0.12], color=GREY, lw=0.6)
            write(ax, x + count * unit / 2, y + 0.02, text, fontsize=8.5)
            x += count * unit
    return describe(
        fig,
        "Two bars made of bytes. Q8_0: two bytes of scale, then 32 bytes with a number each. Q4_1: two bytes of scale, "
        "two of minimum, then 16 bytes with two numbers each.",
    )


def one_block(exact: np.ndarray, eight: np.ndarray, four: np.ndarray) -> Figure:
    """32 numbers and what the two kinds of blocks make of them; for Q4_1, its sixteen levels."""
    fig, axes = subplots(8.4, 2.9, 1, 2, sharey=True)
    levels = np.linspace(exact.min(), exact.max(), 16)
    for ax, kept, name in zip(axes, (eight, four), ("Q8_0", "Q4_1"), strict=True):
        for level in levels if name == "Q4_1" else ():
            ax.axhline(level, color=PALE_GREY, lw=0.7, zorder=0)
        ax.scatter(range(32), exact, color=GREY, s=26, label="exact", zorder=2)
        ax.scatter(range(32), kept, color=VERMILION, s=12, marker="x", label="kept", zorder=3)
        ax.set(title=f"{name}: largest error {np.abs(kept - exact).max():.4f}", xlabel="number in the block")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return describe(
        fig,
        "Two panels with 32 grey dots, the exact numbers, and a cross for what is kept of each. Q8_0: every cross lies "
        "on its dot. Q4_1: the crosses lie on sixteen grey levels, some visibly beside their dots.",
    )


def file_layout(parts: Mapping[str, int]) -> Figure:
    """The file as one bar, its parts to scale, in MB."""
    fig, ax = subplots(8.4, 1.5)
    left, colors = 0.0, (PALE_GREY, PALE_ORANGE, PALE_BLUE, PALE_GREEN, PALE_PINK)
    for (name, size), color in zip(parts.items(), colors, strict=False):
        ax.barh([0], [size / 1e6], left=left, color=color, edgecolor=INK, label=f"{name}, {size / 1e6:.1f} MB")
        left += size / 1e6
    ax.set(xlabel="MB", yticks=[])
    ax.spines.left.set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8.5)
    listed = "; ".join(f"{name} {size / 1e6:.1f} MB" for name, size in parts.items())
    return describe(fig, f"The file as a bar, its parts to scale: {listed}.")


def next_tokens(words: Sequence[str], shares: Sequence[float], title: str) -> Figure:
    """The most probable next tokens as bars."""
    fig, ax = subplots(5.6, 0.34 * len(words) + 0.9)
    ax.barh(list(words), list(shares), color=PALE_BLUE, edgecolor=INK)
    for place, share in enumerate(shares):
        write(ax, share + 0.01, place, f"{share:.0%}", ha="left", fontsize=9)
    ax.set(xlim=(0, 1.1), xlabel="probability", title=title)
    ax.invert_yaxis()
    return describe(fig, f"Bars of the probabilities of the most probable next tokens {title}.")


def scores_of_a_judge(right: Sequence[float | None], wrong: Sequence[float | None]) -> Figure:
    """A judge's scores of right answers and of answers to other requests, request by request."""
    fig, ax = subplots(6.4, 2.8)
    for scores, color, marker, name in (
        (right, GREEN, "o", "the right answer"),
        (wrong, VERMILION, "x", "a wrong one"),
    ):
        places = [place for place, score in enumerate(scores, start=1) if score is not None]
        ax.scatter(places, [scores[place - 1] for place in places], color=color, marker=marker, label=name, s=42)
    ax.set(xlabel="request", ylabel="score", ylim=(-5, 108), xlim=(0.4, len(right) + 0.6))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return describe(
        fig, "A judge's scores, request by request: a green dot for the right answer, a cross for a wrong one."
    )
