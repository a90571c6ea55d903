"""Pictures for chapter 7: a prompt and its parts, a batch with its targets, token counts, scores, answers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ...tokenizers import END_OF_TEXT
from .. import plots
from ..plots import arrow, box, canvas, describe, subplots, write


def from_text_to_answer() -> Figure:
    """What pretraining and fine-tuning learn from, and what the model replies to the same request after each."""
    fig, ax = canvas(7.4, 2.5)
    request, story = "Name the opposite\nof cold.", "“The wind blew from\nthe sea, and …”"
    for y, color, name, food, reply, tone in (
        (1.65, plots.SHADE, "pretrained model", "texts as they are", story, plots.SHADE),
        (0.55, plots.PALE_ORANGE, "assistant", "requests with answers", "“Hot”", plots.PALE_GREEN),
    ):
        box(ax, 1.05, y, food, 1.8, 0.5, plots.PAPER)
        arrow(ax, (1.95, y), (2.3, y))
        box(ax, 3.1, y, name, 1.6, 0.5, color, weight="bold")
        arrow(ax, (3.9, y), (5.35, y))
        write(ax, 4.6, y + 0.27, request, fontsize=8, color=plots.INK)
        box(ax, 6.35, y, reply, 1.9, 0.58, tone)
    arrow(ax, (3.1, 1.4), (3.1, 0.8), color=plots.GREY)
    ax.text(3.2, 1.1, "the same weights to begin with", ha="left", va="center", fontsize=8, color=plots.GREY)
    for x, title in ((1.05, "is trained on"), (4.6, "is asked"), (6.35, "writes")):
        write(ax, x, 2.3, title, fontsize=9, color=plots.GREY)
    alt = (
        "Two rows. A pretrained model is trained on texts as they are; asked 'Name the opposite of cold' it writes a "
        "sentence of a story. An assistant begins with the same weights and is trained on requests with answers; asked "
        "the same it writes 'Hot'."
    )
    return describe(fig, alt)


def prompt_parts(parts: Sequence[tuple[str, str]], counts: Sequence[int]) -> Figure:
    """The parts (name, text) of one entry as coloured blocks from top to bottom, each with its number of tokens."""
    lines = [textwrap.wrap(text.replace("\n", " ⏎ "), 62) for _, text in parts]
    heights = [0.2 + 0.19 * len(wrapped) for wrapped in lines]
    fig, ax = canvas(7.4, sum(heights) + 0.1 * len(heights) + 0.35)
    y = sum(heights) + 0.1 * len(heights)
    colors = {"frame": plots.SHADE, "request": plots.PALE_BLUE, "answer": plots.PALE_GREEN}
    write(ax, 6.95, y + 0.18, "tokens", fontsize=9, color=plots.GREY)
    for (name, _), wrapped, height, count in zip(parts, lines, heights, counts, strict=True):
        color = colors["answer" if name == "answer" else "frame" if name == "frame" else "request"]
        ax.add_patch(Rectangle((1.25, y - height), 5.3, height, facecolor=color, edgecolor=plots.PAPER))
        ax.text(1.38, y - height / 2, "\n".join(wrapped), ha="left", va="center", fontsize=8.5, family="monospace")
        ax.text(1.15, y - height / 2, name, ha="right", va="center", fontsize=9)
        write(ax, 6.95, y - height / 2, str(count), fontsize=9)
        y -= height + 0.1
    said = ", ".join(f"{name} {count}" for (name, _), count in zip(parts, counts, strict=True))
    return describe(fig, f"The text of one entry from top to bottom, with the tokens of each part: {said}.")


def batch_and_targets(
    inputs: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    lengths: Sequence[int],
    pad_token_id: int = END_OF_TEXT,
    ignore_index: int = -100,
) -> Figure:
    """Inputs (B, T) and targets (B, T) as two grids of ids; `lengths` (B,) are the numbers of tokens before padding."""
    fig, axes = subplots(7.4, 0.75 + 0.42 * len(inputs), 1, 2)
    for ax, title, rows in zip(axes, ("inputs", "targets"), (inputs, targets), strict=True):
        for row, ids in enumerate(rows):
            for column, token in enumerate(ids):
                if token == ignore_index:
                    color = plots.PAPER
                elif token == pad_token_id:
                    color = plots.PALE_ORANGE if title == "targets" else plots.SHADE
                else:
                    color = plots.PALE_BLUE
                filled = title == "inputs" and column >= lengths[row]
                edge = plots.GREY if token == ignore_index else plots.PAPER
                face = plots.SHADE if filled else color
                square = (column + 0.05, row + 0.1)
                ax.add_patch(Rectangle(square, 0.9, 0.8, facecolor=face, edgecolor=edge, lw=0.8, ls=":"))
                write(ax, column + 0.5, row + 0.5, str(token).replace("-", "−"), fontsize=8)
        ax.set(xlim=(0, len(rows[0])), ylim=(len(rows), 0), title=title)
        ax.axis("off")
    kinds = (
        (plots.PALE_BLUE, "token"),
        (plots.PALE_ORANGE, "end of text"),
        (plots.SHADE, "padding"),
        (plots.PAPER, "left out of the loss"),
    )
    squares = [Patch(facecolor=color, edgecolor=plots.GREY, lw=0.6, label=label) for color, label in kinds]
    fig.legend(handles=squares, loc="outside lower center", ncols=4, fontsize=8.5)
    names = {pad_token_id: "padding", ignore_index: "not counted"}
    shown = "; ".join(" ".join(names.get(token, str(token)) for token in ids) for ids in inputs)
    names[pad_token_id] = "the end"
    learned = "; ".join(" ".join(names.get(token, str(token)) for token in ids) for ids in targets)
    return describe(fig, f"Two grids of numbers, row by row. Inputs: {shown}. Targets: {learned}.")


def tokens_by_style(counts: Mapping[str, tuple[float, float]]) -> Figure:
    """Stacked bars: for each prompt style, the mean tokens of the prompt and of the answer."""
    fig, ax = subplots(6.6, 0.7 + 0.5 * len(counts))
    for row, (prompt, answer) in enumerate(counts.values()):
        names = ("prompt", "answer") if row == 0 else (None, None)
        ax.barh(row, prompt, color=plots.PALE_BLUE, edgecolor=plots.BLUE, height=0.6, label=names[0])
        ax.barh(row, answer, left=prompt, color=plots.PALE_GREEN, edgecolor=plots.GREEN, height=0.6, label=names[1])
        write(ax, prompt / 2, row, f"{prompt:.1f}", fontsize=9)
        write(ax, prompt + answer / 2, row, f"{answer:.1f}", fontsize=9)
    ax.set_yticks(range(len(counts)), list(counts))
    ax.invert_yaxis()
    ax.set(xlabel="tokens of an average entry")
    fig.legend(loc="outside upper right", ncols=2, fontsize=9)
    said = "; ".join(f"{name} {prompt:.1f} and {answer:.1f}" for name, (prompt, answer) in counts.items())
    return describe(fig, f"Bars of the tokens of an average entry, prompt and answer, by style: {said}.")


def scores_by_group(
    scores: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int], measure: str = "token F1"
) -> Figure:
    """For each group of tasks its mean scores, 0 to 1, as dots joined by a line.

    `scores` has for each model, by its name in the legend, the score of each group in `sizes`, in whose order they are
    drawn.
    """
    groups = list(sizes)
    fig, ax = subplots(7, 0.9 + 0.36 * len(groups))
    for row, group in enumerate(groups):
        values = [of[group] for of in scores.values()]
        ax.plot([min(values), max(values)], [row, row], color=plots.GREY, lw=1.5, zorder=1)
    looks = (
        {"marker": "o", "mfc": plots.PAPER, "mec": plots.INK},
        {"marker": "o", "color": plots.BLUE},
        {"marker": "D", "color": plots.ORANGE},
    )
    for (name, of), look in zip(scores.items(), looks, strict=False):
        ax.plot([of[group] for group in groups], range(len(groups)), ls="", ms=8, mew=1.4, label=name, **look)
    sizes = list(sizes.values())
    ax.set_yticks(range(len(groups)), [f"{name} ({size})" for name, size in zip(groups, sizes, strict=True)])
    ax.set(xlim=(-0.03, 1.03), xlabel=f"mean score ({measure})", ylim=(len(groups) - 0.5, -0.5))
    ax.grid(axis="x", color=plots.SHADE)
    ax.set_axisbelow(True)
    fig.legend(loc="outside upper right", ncols=len(scores), fontsize=9)
    said = "; ".join(f"{group} {', '.join(f'{of[group]:.2f}' for of in scores.values())}" for group in groups)
    return describe(fig, f"Dots for the mean {measure} of each group of tasks, {', '.join(scores)}: {said}.")


def answer_cards(cards: Sequence[tuple[str, Mapping[str, str], Mapping[str, tuple[str, float]]]]) -> Figure:
    """Cards one below the other, each with a request, its reference, and answers with their scores.

    A card is its title, an entry, and for each answer, by its name, the text and its token F1.
    """
    heights = [0.95 + 0.5 * (1 + len(answers)) for _, _, answers in cards]
    fig, ax = canvas(7.4, sum(heights))
    top, said = sum(heights), []
    for (title, entry, answers), height in zip(cards, heights, strict=True):
        request = "\n".join(filter(None, (entry["instruction"], entry["input"])))
        rows = [("request", request, plots.PALE_BLUE, None), ("reference", entry["output"], plots.SHADE, None)]
        rows += [(name, text, plots.PALE_GREEN, score) for name, (text, score) in answers.items()]
        ax.text(1.0, top - 0.17, title, ha="left", va="center", fontsize=9.5, weight="bold")
        write(ax, 6.95, top - 0.17, "token F1", fontsize=8.5, color=plots.GREY)
        for number, (name, text, color, score) in enumerate(rows):
            y = top - 0.55 - 0.5 * number
            ax.add_patch(Rectangle((1.0, y - 0.23), 5.4, 0.46, facecolor=color, edgecolor=plots.GREY, lw=0.6))
            ax.text(1.1, y, _two_lines(text), ha="left", va="center", fontsize=8.5, linespacing=1.15)
            ax.text(0.9, y, name, ha="right", va="center", fontsize=9)
            if score is not None:
                write(ax, 6.95, y, f"{score:.2f}", fontsize=10)
        given = ", ".join(f"{name} {text!r} ({score:.2f})" for name, (text, score) in answers.items())
        asked = request.replace("\n", " ")
        said.append(f"{title}: request {asked!r}, reference {entry['output']!r}, {given}")
        top -= height
    return describe(fig, f"Cards with a request and its answers. {'; '.join(said)}.")


def _two_lines(text: str) -> str:
    lines = [line for part in text.splitlines() or [""] for line in textwrap.wrap(part, 66) or [""]]
    lines = lines if len(lines) <= 2 else [lines[0], lines[1][:63] + " …"]
    return "\n".join(lines).replace("$", r"\$")


def learning(updates: Sequence[int], train: Sequence[float], val: Sequence[float]) -> Figure:
    """Training and validation loss over the updates made, with a star where the validation loss is lowest."""
    if not updates:
        return plots.nothing_measured()
    fig, ax = subplots(6.4, 3.2)
    ax.plot(updates, train, "o-", ms=4, color=plots.BLUE, label="training")
    ax.plot(updates, val, "s--", ms=4, color=plots.ORANGE, label="validation")
    best = int(np.argmin(val))
    ax.plot(updates[best], val[best], "*", ms=14, color=plots.INK, label="lowest validation loss")
    ax.set(xlabel="updates", ylabel="loss (nats per target)", ylim=(0, None))
    ax.legend()
    alt = (
        f"Training and validation loss over the updates: from {train[0]:.1f} and {val[0]:.1f} at update {updates[0]} "
        f"to {train[-1]:.1f} and {val[-1]:.1f} at update {updates[-1]}; a star marks the lowest validation loss, "
        f"{val[best]:.1f}, at update {updates[best]}."
    )
    return describe(fig, alt)
