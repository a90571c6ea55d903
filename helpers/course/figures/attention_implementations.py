"""Pictures for the bonus notebook on nine ways to compute attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrow, Rectangle
from matplotlib.ticker import LogLocator

from .. import plots

_KINDS = {"query": plots.PALE_BLUE, "key": plots.PALE_ORANGE, "value": plots.PALE_GREEN}
_MIB = 2**20


def layouts(heads: int = 2) -> Figure:
    """Where the rows of the weights of query, key and value lie: a matrix per head, three matrices, one matrix."""
    fig, ax = plots.canvas(7.2, 3.1)
    row, width = 0.36, 1.15
    bottom = 0.2

    def pile(left: float, gap_in: float, gap_between: float, order: Sequence[tuple[str, int]], title: str) -> None:
        y = bottom + 3 * heads * row + 2 * gap_between + 3 * (heads - 1) * gap_in
        plots.write(ax, left + width / 2, y + 0.2, title, fontsize=9, weight="bold")
        for place, (kind, head) in enumerate(order):
            y -= row
            ax.add_patch(Rectangle((left, y), width, row, facecolor=_KINDS[kind], edgecolor=plots.GREY, lw=0.6))
            plots.write(ax, left + width / 2, y + row / 2, f"{kind} {head}", fontsize=8.5)
            last = place + 1 == len(order)
            new_kind = not last and order[place + 1][0] != kind
            y -= 0 if last else gap_between if new_kind else gap_in

    by_kind = [(kind, head) for kind in _KINDS for head in range(1, heads + 1)]
    by_head = [(kind, head) for head in range(1, heads + 1) for kind in _KINDS]
    pile(0.25, 0.06, 0.06, by_kind, "1 head by head")
    pile(2.05, 0.0, 0.15, by_kind, "2 split")
    pile(3.85, 0.0, 0.0, by_kind, "3 combined")
    pile(5.75, 0.0, 0.0, by_head, "interleaved")
    for left, gap_in, gap_between, matrices in ((0.25, 0.06, 0.06, 3 * heads), (2.05, 0.0, 0.15, 3)):
        rows = 3 * heads // matrices
        y = bottom + 3 * heads * row + 2 * gap_between + 3 * (heads - 1) * gap_in
        for _ in range(matrices):
            y -= rows * row
            ax.add_patch(Rectangle((left, y), width, rows * row, fill=False, edgecolor=plots.INK, lw=1.4))
            y -= gap_between
    for left in (3.85, 5.75):
        ax.add_patch(Rectangle((left, bottom), width, 3 * heads * row, fill=False, edgecolor=plots.INK, lw=1.4))
    return plots.describe(
        fig,
        f"The rows of the weights of {heads} heads, D rows for each of query, key and value, in four layouts. Head by "
        f"head: {3 * heads} small matrices. Split: three matrices, each with its heads on top of each other. Combined: "
        "one matrix with all queries, then all keys, then all values. Interleaved: one matrix with query, key and "
        "value of the first head, then those of the next.",
    )


def block_kinds(kinds: Sequence[Sequence[int]], block: int) -> Figure:
    """Blocks of scores by what FlexAttention does with them: 0 is left out, 1 computed with the mask, 2 without it."""
    kinds = np.asarray(kinds)
    fig, ax = plots.subplots(4.6, 3.3)
    colors = ListedColormap([plots.PAPER, plots.PALE_ORANGE, plots.PALE_BLUE])
    ax.imshow(kinds, cmap=colors, vmin=0, vmax=2)
    ends = [f"{block * place:,}" for place in range(len(kinds) + 1)]
    ax.set_xticks(np.arange(len(kinds) + 1) - 0.5, labels=ends, fontsize=8)
    ax.set_yticks(np.arange(len(kinds) + 1) - 0.5, labels=ends, fontsize=8)
    ax.grid(color=plots.GREY, lw=0.6)
    for (top, left), kind in np.ndenumerate(kinds):
        plots.write(ax, left, top, ("", "mask", "all")[kind], fontsize=7.5)
    ax.set(xlabel="key", ylabel="query")
    counts = [int((kinds == kind).sum()) for kind in (2, 1, 0)]
    return plots.describe(
        fig,
        f"The scores of {block * len(kinds):,} queries and keys in blocks of {block}: {counts[0]} below the diagonal "
        f"are computed whole, {counts[1]} on it with the mask, {counts[2]} above it are left out.",
    )


def curves(results: Mapping[str, Mapping[int, tuple[float, float]]], title: str) -> Figure:
    """Time and memory over the length, a line for each way; `results` has (seconds, bytes) by name and length."""
    fig, axes = plots.subplots(7.4, 3.9, 1, 2)
    styles = dict(zip("123456789", "osv^DPX*h", strict=True))
    colors = {"6": plots.VERMILION, "8": plots.ORANGE, "9": plots.GREEN, "1": plots.PINK}
    said = []
    for name, by_length in results.items():
        color = colors.get(name[0], plots.BLUE)
        lengths = list(by_length)
        for ax, part, unit in zip(axes, (0, 1), (1e-3, _MIB), strict=True):
            values = [by_length[length][part] / unit for length in lengths]
            ax.plot(lengths, values, marker=styles[name[0]], color=color, lw=1.3, markersize=5, label=name)
        said.append(f"{name} {by_length[lengths[-1]][0] * 1e3:.0f} ms and {by_length[lengths[-1]][1] / _MIB:.0f} MiB")
    for ax, label in zip(axes, ("ms", "MiB"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        ax.set_xticks(lengths, labels=[f"{length:,}" for length in lengths])
        ax.minorticks_off()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:,.0f}")
    fig.suptitle(title, fontsize=11, fontweight="bold")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8.5)
    return plots.describe(fig, f"{title}: time and memory over the length. At the last length: {'; '.join(said)}.")


def traffic(num_tokens: int, heads: int, head_dim: int) -> Figure:
    """What moves between memory and processor, step by step in the plain way and in one go in FlashAttention."""
    table = heads * num_tokens**2 * 4 / 1e6  # MB of float32
    small = heads * num_tokens * head_dim * 4 / 1e6
    steps = [("QKᵀ", 2 * small, table), ("mask", table, table), ("÷ √D", table, table)]
    steps += [("softmax", table, table), ("· V", table + small, small)]
    fig, ax = plots.canvas(7.6, 3.0)
    for left, right in ((0.95, 5.85), (6.1, 7.5)):
        for y, color in ((2.55, plots.PALE_GREY), (0.65, plots.SHADE)):
            ax.add_patch(Rectangle((left, y - 0.2), right - left, 0.4, facecolor=color, edgecolor=plots.INK, lw=0.8))
    for y, text in ((2.55, "memory"), (0.65, "processor")):
        ax.text(0.88, y, text, fontsize=9, color=plots.GREY, ha="right", va="center")

    def moved(x: float, read: float, written: float) -> None:
        for number, place, start, length in ((read, x - 0.23, 2.35, -1.5), (written, x + 0.23, 0.85, 1.5)):
            width = 0.02 + 0.2 * number / table
            shape = {"width": width, "head_width": width + 0.12, "head_length": 0.2, "length_includes_head": True}
            ax.add_patch(FancyArrow(place, start, 0, length, color=plots.BLUE, lw=0, **shape))
            note = {"facecolor": plots.PAPER, "lw": 0, "pad": 1}
            plots.write(ax, place, 1.6, f"{number:.0f}", fontsize=9, bbox=note)

    for place, (name, read, written) in enumerate(steps):
        x = 1.45 + 0.975 * place
        plots.write(ax, x, 0.65, name, fontsize=9)
        moved(x, read, written)
    plots.write(ax, 6.8, 0.65, "all, tile by tile", fontsize=9)
    moved(6.8, 3 * small, small)
    total, least = sum(read + written for _, read, written in steps), 4 * small
    plots.write(ax, 3.4, 0.22, f"the plain way: {total:,.0f} MB", fontsize=9.5, weight="bold")
    plots.write(ax, 6.8, 0.22, f"Flash: from {least:,.0f} MB", fontsize=9.5, weight="bold")
    plots.write(ax, 3.4, 2.55, "a table of scores, written anew after each step", fontsize=9)
    plots.write(ax, 6.8, 2.55, "Q, K, V, out", fontsize=9)
    listed = ", ".join(f"{name} {read:.0f} and {written:.0f}" for name, read, written in steps)
    return plots.describe(
        fig,
        f"Megabytes that go from memory to the processor and back. The plain way, read and written: {listed}; together "
        f"{total:,.0f}. FlashAttention goes over all tiles at once, reads {3 * small:.0f} and writes {small:.0f}.",
    )


def tiles(blocks: int, current: tuple[int, int]) -> Figure:
    """The order in which `tiled_attention` computes its tiles of scores, and the one in hand, (row, column)."""
    fig, ax = plots.canvas(5.6, 3.5)
    side, left, top = 0.5, 1.5, 2.75
    number = 0
    for row in range(blocks):
        for col in range(blocks):
            x, y = left + col * side, top - (row + 1) * side
            seen = col <= row
            color = plots.PALE_VERMILION if (row, col) == current else plots.PALE_BLUE if seen else plots.PAPER
            edge = plots.INK if seen else plots.PALE_GREY
            ax.add_patch(Rectangle((x, y), side, side, facecolor=color, edgecolor=edge, lw=0.8, zorder=1 + seen))
            if seen:
                number += 1
                plots.write(ax, x + side / 2, y + side / 2, str(number), fontsize=9, zorder=3)
        plots.box(ax, left - 0.4, top - (row + 0.5) * side, f"Q{row + 1}", 0.5, side - 0.1, plots.PALE_ORANGE)
        plots.box(ax, left + blocks * side + 0.45, top - (row + 0.5) * side, f"out {row + 1}", 0.6, side - 0.1)
        plots.box(
            ax, left + (row + 0.5) * side, top + 0.3, f"K{row + 1}\nV{row + 1}", side - 0.1, 0.46, plots.PALE_GREEN
        )
    ax.text(
        4.75,
        1.9,
        "in the\nprocessor's\ncache: one\ntile, and the\nrunning\nlargest,\ntotal, mix",
        fontsize=8.5,
        va="center",
    )
    return plots.describe(
        fig,
        f"A square of {blocks} by {blocks} tiles of scores, rows for blocks of queries and columns for blocks of keys "
        f"and values. The {number} tiles on and below the diagonal are numbered row by row; one is marked as the one "
        "in the processor's cache. Those above the diagonal are empty.",
    )
