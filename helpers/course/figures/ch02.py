"""Pictures for chapter 2: from text to token ids, windows and embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from .. import plots
from ..plots import arrow, box, canvas, decimals, describe, heatmap, subplots, visible, write
from .shared import box_row, drawable, rows_that_fit


def pipeline(text: str, tokenizer: Any, numbers: torch.Tensor) -> Figure:
    """What becomes of a short text on its way into the model: tokens, ids, embeddings.

    `numbers` is (tokens, n): the first n embedding numbers of each token of `text`.
    """
    ids = tokenizer.encode(text)
    fig, ax = canvas(7, 3.7)
    left, step = 1.75, 5.1 / len(ids)
    centres = [left + step * (index + 0.5) for index in range(len(ids))]
    pieces = [visible(tokenizer.decode_single_token_bytes(token_id)) for token_id in ids]
    for y, name in [(3.35, "text"), (2.5, "tokens"), (1.65, "token ids"), (0.55, "embeddings")]:
        ax.text(0.1, y, name, fontsize=10.5, weight="bold", va="center")
    box(ax, left + 2.55, 3.35, visible(text), width=5.0, height=0.42, color=plots.PAPER, fontsize=11)
    for index, (token_id, x) in enumerate(zip(ids, centres, strict=True)):
        width = min(step - 0.12, 1.1)
        arrow(ax, (x, 3.14), (x, 2.71))
        box(ax, x, 2.5, pieces[index], width=width, color=plots.TINTS[index % len(plots.TINTS)])
        arrow(ax, (x, 2.3), (x, 1.86))
        box(ax, x, 1.65, str(token_id), width=width)
        arrow(ax, (x, 1.45), (x, 1.04))
        shown = "\n".join([*map(decimals, numbers[index].tolist()), "…"])
        box(ax, x, 0.55, shown, width=width, height=0.96, color=plots.TINTS[index % len(plots.TINTS)], fontsize=8.5)
    for y, name in [(2.92, "split"), (2.08, "look up the id"), (1.25, "pick a row")]:
        ax.text(0.1, y, name, fontsize=8.5, color=plots.GREY, va="center", style="italic")
    steps = ", ".join(f"{piece} with the id {token_id}" for piece, token_id in zip(pieces, ids, strict=True))
    alt = f"The text '{text}' is split into {len(ids)} tokens, each token is looked up as an id, and each id picks a "
    return describe(fig, f"{alt}row of embedding numbers: {steps}. A dot in a token stands for a space.")


def word_map(words: Mapping[str, tuple[float, float]], groups: Mapping[str, Sequence[str]]) -> Figure:
    """Words as points in the plane, each group of words with its own colour and marker."""
    fig, ax = subplots(6.4, 3.9)
    for (name, members), color, marker in zip(
        groups.items(), [plots.BLUE, plots.VERMILION, plots.GREEN, plots.PINK], "osD^", strict=False
    ):
        points = np.array([words[word] for word in members])
        ax.scatter(*points.T, color=color, marker=marker, s=55, label=name, zorder=3)
        for word, (x, y) in zip(members, points, strict=True):
            ax.annotate(word, (x, y), xytext=(8, 0), textcoords="offset points", va="center")
    ax.axhline(0, color=plots.GREY, lw=0.7)
    ax.axvline(0, color=plots.GREY, lw=0.7)
    ax.set(xlabel="first number of the embedding", ylabel="second number", title="Words as points in the plane")
    ax.set(xlim=(-1.15, 1.35), ylim=(-1.1, 1.25))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    places = [
        f"{name}: " + ", ".join(f"{word} ({', '.join(map(decimals, words[word]))})" for word in members)
        for name, members in groups.items()
    ]
    return describe(fig, f"{len(words)} words as points in the plane. {'. '.join(places)}.")


def token_pieces(lines: Sequence[str], tokenizer: Any) -> Figure:
    """Each line cut into its tokens: coloured pieces with their ids below; a dot stands for a space.

    What the font lacks is drawn as a box, so that any text may be cut.
    """
    rows, words = [], []
    for line in lines:
        ids = tokenizer.encode(line, allowed_special="all")
        pieces = [tokenizer.decode_single_token_bytes(token_id) for token_id in ids]
        tokens: list[tuple[str, str, float]] = []  # pieces with their ids and widths
        for piece, token_id in zip(map(drawable, pieces), map(str, ids), strict=True):
            widths = len(piece.replace(r"\$", "$")) * plots.CHAR_WIDTH + 0.2, len(token_id) * plots.CHAR_WIDTH + 0.06
            tokens.append((piece, token_id, max(widths)))
        rows += [[tokens[k] for k in row] for row in rows_that_fit([width for *_, width in tokens], 6.84)]
        words.append(" | ".join(f"{visible(piece)} {token_id}" for piece, token_id in zip(pieces, ids, strict=True)))
    height = 0.72 * len(rows) + 0.05
    fig, ax = canvas(max(sum(width for *_, width in row) for row in rows) + 0.16, height)
    for number, row in enumerate(rows):
        y = height - 0.25 - 0.72 * number
        pieces, ids, widths = zip(*row, strict=True)
        colors = [plots.TINTS[place % len(plots.TINTS)] for place in range(len(row))]
        for x, token_id in zip(box_row(ax, 0.08, y, pieces, widths, colors, edge=plots.PAPER), ids, strict=True):
            write(ax, x, y - 0.29, token_id, fontsize=8, color=plots.INK)
    return describe(fig, f"Text cut into tokens, each with its id, a dot for a space: {'; '.join(words)}.")


def merge_steps(steps: Sequence[Sequence[bytes]], ranks: Mapping[bytes, int]) -> Figure:
    """How byte-pair encoding merges a word: a row per step, with the piece just made in pale orange.

    `steps` are the pieces before the first merge and after each one, `ranks` gives each piece its token id.
    """
    height = 0.44 * len(steps) + 0.35
    unit = min(0.33, 4.6 / sum(len(piece) for piece in steps[0]))
    right, notes = 0.15 + unit * sum(len(piece) for piece in steps[0]) + 0.4, []
    fig, ax = canvas(right + 1.9, height)
    for number, pieces in enumerate(steps):
        y = height - 0.42 - 0.44 * number
        before = steps[number - 1] if number else pieces
        fresh = next((i for i, piece in enumerate(pieces) if piece != before[i]), None)
        colors = [plots.PALE_ORANGE if index == fresh else plots.SHADE for index in range(len(pieces))]
        box_row(ax, 0.15, y, [visible(piece) for piece in pieces], [unit * len(piece) for piece in pieces], colors)
        note = "single bytes" if fresh is None else f"merge {visible(pieces[fresh])} (id {ranks[pieces[fresh]]})"
        ax.text(right, y, note, va="center", fontsize=9)
        notes.append(note)
    ax.text(0.15, height - 0.12, "pieces", fontsize=9, weight="bold", va="center")
    ax.text(right, height - 0.12, "what was done", fontsize=9, weight="bold", va="center")
    word, last = (" ".join(map(visible, pieces)) for pieces in (steps[0], steps[-1]))
    alt = f"A word of {len(steps[0])} bytes, {word}, in {len(steps) - 1} merges, a row for each: "
    return describe(fig, f"{alt}{', '.join(notes[1:])}. At the end it has {len(steps[-1])} pieces: {last}.")


def sliding_window(tokens: Sequence[str], max_length: int, stride: int, most: int = 5) -> Figure:
    """Windows over the first tokens of a text: inputs in pale blue, the targets one token further in pale orange.

    At most `most` windows are drawn; the caption counts all that fit.
    """
    count = max((len(tokens) - max_length - 1) // stride + 1, 0)
    shown = min(count, most)
    left, room = 0.95, 6.0
    widths = np.array([plots.CHAR_WIDTH * len(visible(token)) + 0.14 for token in tokens])
    scale = room / widths.sum()
    edges = left + scale * np.concatenate([[0], np.cumsum(widths)])
    height = 0.95 + 0.72 * most
    fig, ax = canvas(7, height)

    def cell(index: int, y: float, color: str) -> None:
        x, width = (edges[index] + edges[index + 1]) / 2, edges[index + 1] - edges[index] - 0.05
        text = visible(tokens[index])
        box(ax, x, y, text, width=width, height=0.27, color=color, fontsize=min(9, 9 * scale))

    top = height - 0.45
    ax.text(0.05, top, "text", va="center", weight="bold", fontsize=9)
    for index in range(len(tokens)):
        cell(index, top, plots.SHADE)
        ax.text(
            (edges[index] + edges[index + 1]) / 2, top + 0.27, str(index), ha="center", fontsize=7.5, color=plots.GREY
        )
    for window in range(shown):
        y, start = top - 0.52 - 0.72 * window, window * stride
        ax.text(0.05, y, f"input {window}", va="center", fontsize=8.5, color=plots.BLUE, weight="bold")
        ax.text(0.05, y - 0.3, f"target {window}", va="center", fontsize=8.5, color=plots.DARK_ORANGE, weight="bold")
        for index in range(start, start + max_length):
            cell(index, y, plots.PALE_BLUE)
            cell(index + 1, y - 0.3, plots.PALE_ORANGE)
    more = f", the first {shown} of them drawn" if shown < count else ""
    windows = "1 window fits" if count == 1 else f"{count} windows fit"
    caption = f"max_length = {max_length}, stride = {stride}: {windows} into these {len(tokens)} tokens{more}"
    ax.text(0.05, 0.08, caption, fontsize=9, va="center")
    starts = [window * stride for window in range(shown)]
    drawn = [
        f"input {window} has tokens {start} to {start + max_length - 1}, target {window} has {start + 1} to "
        f"{start + max_length}"
        for window, start in enumerate(starts)
    ]
    return describe(fig, f"{caption}. {'; '.join(drawn)}".removesuffix(". ") + ".")


def batch(inputs: torch.Tensor, targets: torch.Tensor, tokenizer: Any) -> Figure:
    """A batch of inputs and its targets, both (B, T), as two tables of tokens with arrows from row to row."""
    rows, cols = inputs.shape
    tables = []
    height = 0.52 * rows + 0.62
    fig, ax = canvas(7, height)
    width = 3.05 / cols
    for left, ids, color, name in [
        (0.1, inputs, plots.PALE_BLUE, "inputs"),
        (3.85, targets, plots.PALE_ORANGE, "targets"),
    ]:
        ax.text(left, height - 0.17, f"{name}, ({rows}, {cols})", weight="bold", va="center")
        texts = [[visible(tokenizer.decode_single_token_bytes(token_id)) for token_id in row] for row in ids.tolist()]
        tables.append(f"{name}: {'; '.join(' | '.join(row) for row in texts)}")
        for row in range(rows):
            for col in range(cols):
                token_id, text = int(ids[row, col]), texts[row][col]
                x, y = left + width * (col + 0.5), height - 0.62 - 0.52 * row
                size = min(9, 9 * (width - 0.05) / (plots.CHAR_WIDTH * len(text) + 0.04))
                box(ax, x, y, "", width=width - 0.04, height=0.46, color=color)
                write(ax, x, y + 0.08, text, fontsize=size)
                write(ax, x, y - 0.12, str(token_id), fontsize=7.5, color=plots.INK)
    for row in range(rows):
        y = height - 0.62 - 0.52 * row
        arrow(ax, (3.2, y), (3.8, y), color=plots.GREY)
    ax.text(0.1, 0.1, "each row is a window of the text; an arrow moves it on by one token", fontsize=8.5, va="center")
    return describe(fig, f"Two tables of {rows} rows and {cols} columns, a row per window. {'. '.join(tables)}.")


def lookup(weight: torch.Tensor, ids: Sequence[int]) -> Figure:
    """An embedding layer as a table: `weight` is (V, C); each id picks the row with its number."""
    weight = weight.detach()
    vocabulary, size = weight.shape
    fig, ax = canvas(7, 0.36 * max(vocabulary, len(ids)) + 0.55)
    top = 0.36 * max(vocabulary, len(ids)) - 0.1
    colors = {token_id: plots.TINTS[index % len(plots.TINTS)] for index, token_id in enumerate(dict.fromkeys(ids))}
    rows = [[decimals(value) for value in values] for values in weight.tolist()]
    style = {"gap": 0.02, "height": 0.31}
    for x, name in [(0.45, "token ids"), (3.1, f"weight, ({vocabulary}, {size})")]:
        write(ax, x, top + 0.45, name, weight="bold")
    write(ax, 5.95, top + 0.45, f"output, ({len(ids)}, {size})", weight="bold")
    for token_id in range(vocabulary):
        y = top - 0.36 * token_id
        ax.text(2.0, y, str(token_id), ha="right", va="center", color=plots.GREY, fontsize=9)
        box_row(ax, 2.17, y, rows[token_id], 0.62, colors.get(token_id, plots.PAPER), **style)
    shift = 0.36 * (vocabulary - len(ids)) / 2
    for index, token_id in enumerate(ids):
        y, source = top - shift - 0.36 * index, top - 0.36 * token_id
        box(ax, 0.45, y, str(token_id), width=0.5, height=0.31, color=colors[token_id])
        arrow(ax, (0.72, y), (1.84, source))
        box_row(ax, 5.02, y, rows[token_id], 0.62, colors[token_id], **style)
        arrow(ax, (4.05, source), (5.01, y))
    order = ", ".join(map(str, ids))
    alt = f"The ids {order} point to the rows with these numbers in a table of {vocabulary} rows and {size} columns; "
    return describe(fig, f"{alt}at the right the picked rows stand in the order of the ids.")


def add_positions(tokens: Sequence[str], token_rows: torch.Tensor, position_rows: torch.Tensor) -> Figure:
    """Token embeddings plus position embeddings give input embeddings: three tables of numbers, each (T, C)."""
    token_rows, position_rows = token_rows.detach(), position_rows.detach()
    labels = [visible(token) for token in tokens]
    places = [f"position {place}" for place in range(len(labels))]
    limit = 1.6 * float((token_rows + position_rows).abs().max())  # pale colours, on which dark numbers can be read
    fig, axes = subplots(7, 0.38 * len(labels) + 0.65, 1, 3)
    fig.get_layout_engine().set(w_pad=0.1)  # else the longest label touches the picture's edge
    parts = [
        (token_rows, labels, "token embedding"),
        (position_rows, places, "+  position embedding"),
        (token_rows + position_rows, labels, "=  input embedding"),
    ]
    for ax, (values, names, title) in zip(axes, parts, strict=True):
        heatmap(ax, values.round(decimals=1) + 0.0, rows=names, fmt="{:.1f}", cmap="RdBu", vmin=-limit, vmax=limit)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(f"first {values.shape[1]} numbers")
        ax.tick_params(axis="y", labelsize=8)
    alt = f"Three tables of {len(labels)} rows and {token_rows.shape[1]} numbers each: token embeddings plus position "
    return describe(fig, f"{alt}embeddings, a row per place, are the input embeddings of {' '.join(labels)}.")


def absolute_and_relative(tokens: Sequence[str]) -> Figure:
    """Absolute positions, a number per token, and relative ones, a distance per pair of tokens (row minus column)."""
    labels = [visible(token) for token in tokens]
    places = np.arange(len(labels))
    fig, axes = subplots(7, 3.7, 1, 2, width_ratios=[1, 2.2])
    heatmap(axes[0], places[:, None], rows=labels, fmt="{:.0f}", cmap="Blues", vmax=2 * len(labels))
    axes[0].set_title("absolute:\none number per token")
    distances = places[:, None] - places[None, :]
    limit = 1.6 * len(labels)
    heatmap(axes[1], distances, rows=labels, cols=labels, fmt="{:.0f}", cmap="PuOr", vmin=-limit, vmax=limit)
    for ax in axes:
        ax.tick_params(labelsize=8)
    axes[1].set_title("relative:\none number per pair (row − column)")
    last = len(labels) - 1
    alt = f"Left: each of {len(labels)} tokens has one number, its position from 0 to {last}. Right: a table with the "
    return describe(fig, f"{alt}distance between each two tokens, from −{last} to {last}, with zeros on the diagonal.")


def token_statistics(lengths: Counter[int], parts: Counter[int]) -> Figure:
    """How many tokens of a text have how many characters, and how many of its words need how many tokens."""
    fig, axes = subplots(7, 2.9, 1, 2)
    axes[0].bar(list(lengths), list(lengths.values()), color=plots.BLUE)
    axes[0].set(xlabel="characters in the token", ylabel="tokens of the text", title="Length of the tokens")
    axes[1].bar(list(parts), list(parts.values()), color=plots.ORANGE)
    axes[1].set(xlabel="tokens needed", ylabel="different words", title="Parts of the words", xticks=sorted(parts))
    for count in parts:
        write(axes[1], count, parts[count], str(parts[count]), va="bottom", fontsize=9)
    common = lengths.most_common(1)[0][0]
    words = ", ".join(f"{parts[count]} need {count}" for count in sorted(parts))
    alt = f"Bars. Left: tokens of the text by length, from {min(lengths)} to {max(lengths)} characters, most often "
    return describe(fig, f"{alt}{common}. Right: different words by the number of tokens each needs: {words}.")
