"""Pictures for chapter 1: next-token probabilities, growing texts, stages, the transformer, data, sizes; the map."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ..chapters import NOTEBOOKS, Notebook
from ..plots import (
    BLUE,
    CHAR_WIDTH,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_ORANGE,
    PALE_PINK,
    PAPER,
    SHADE,
    arrow,
    box,
    canvas,
    describe,
    subplots,
    write,
)
from .shared import attention_mask, drawable, printable

Steps = Sequence[tuple[str, float]]  # tokens, each with the probability it had


def followers(words: Sequence[str], word: str) -> Figure:
    """A short text with each `word` in blue and what follows it in orange; beside it the shares of the followers."""
    found = [words[place + 1] for place in range(len(words) - 1) if words[place] == word]
    shares = {follower: found.count(follower) / len(found) for follower in dict.fromkeys(found)}
    fig, ax = canvas(7, 1.75)
    x = 0.1
    for place, text in enumerate(words):
        width = CHAR_WIDTH * len(text) + 0.2
        after = place > 0 and words[place - 1] == word
        color = PALE_BLUE if text == word else PALE_ORANGE if after else SHADE
        box(ax, x + width / 2, 1.53, text, width=width, height=0.36, color=color)
        if after:
            arrow(ax, (x - 0.2, 1.31), (x + width / 2, 1.31), curve=0.5)
        x += width + 0.07
    ax.text(0.1, 0.68, f"after {word!r}", fontsize=10, weight="bold", va="center")
    for row, (follower, share) in enumerate(shares.items()):
        y = 0.68 - 0.4 * row
        box(ax, 1.6, y, follower, width=0.7, height=0.32, color=PALE_ORANGE)
        ax.barh([y], [3 * share], left=2.1, height=0.26, color=BLUE)
        ax.text(2.2 + 3 * share, y, f"{found.count(follower)} of {len(found)} = {share:.2f}", va="center", fontsize=9)
    counted = ", ".join(f"{follower} {found.count(follower)} of {len(found)}" for follower in shares)
    return describe(fig, f"{len(words)} words in boxes. What follows {word!r}, in boxes and as bars: {counted}.")


def next_token_bars(panels: Mapping[str, Steps], cols: int = 2, height: float = 2.6) -> Figure:
    """For each title a bar chart of the most probable next tokens; all panels share one scale."""
    rows = -(-len(panels) // cols)
    fig, grid = subplots(7, height * rows, rows, cols, squeeze=False, sharex=True)
    most = max((probability for steps in panels.values() for _, probability in steps), default=1.0)
    for index, (ax, (title, steps)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        places = range(len(steps))
        ax.barh(
            places,
            [probability for _, probability in steps],
            color=[BLUE, ORANGE][(index // cols if rows > 1 else index) % 2],
        )
        for place, (_, probability) in enumerate(steps):
            ax.text(probability + 0.02 * most, place, f"{probability:.3f}", va="center", fontsize=8)
        ax.set_yticks(places, labels=[drawable(token, most=14) for token, _ in steps])
        ax.set_title(printable(title), fontsize=9.5 if cols < 3 else 8.3)
        ax.set_xlim(0, 1.28 * most)
        ax.invert_yaxis()
        ax.tick_params(axis="y", length=0)
        if not steps:
            ax.text(0.5, 0.5, "it has never seen this token", transform=ax.transAxes, ha="center", fontsize=9)
    fig.supxlabel("probability of being the next token", fontsize=10)
    first = [
        f"{' '.join(title.split())}: {' '.join(steps[0][0].split())!r} with {steps[0][1]:.3f}"
        for title, steps in panels.items()
        if steps
    ]
    return describe(
        fig, f"{len(panels)} bar charts of the most probable next tokens. The first of each: {'; '.join(first)}."
    )


def growing_text(prompt: Sequence[str], steps: Steps) -> Figure:
    """The loop of a language model, a row per step: the text that goes in, and the token that comes out (orange)."""
    tokens = [drawable(token) for token in [*prompt, *(token for token, _ in steps)]]
    sizes = np.array([CHAR_WIDTH * len(token.replace("\\", "")) + 0.14 for token in tokens])
    scale = min(1.0, 5.5 / sizes.sum())
    edges = 0.62 + scale * np.concatenate([[0], np.cumsum(sizes)])
    height = 0.42 * (len(steps) + 1) + 0.1
    fig, ax = canvas(7, height)
    ax.text(0.05, height - 0.2, "step", fontsize=9, weight="bold", va="center")
    ax.text(
        0.66, height - 0.2, "text that goes in, and the token that comes out", fontsize=9, weight="bold", va="center"
    )
    ax.text(6.95, height - 0.2, "probability", fontsize=9, weight="bold", va="center", ha="right")
    for row, (_, probability) in enumerate(steps):
        y, newest = height - 0.6 - 0.42 * row, len(prompt) + row
        ax.text(0.05, y, f"{row + 1}", fontsize=9, va="center")
        for place in range(newest + 1):
            color = SHADE if place < len(prompt) else PALE_BLUE
            color = ORANGE if place == newest else color
            middle, width = (edges[place] + edges[place + 1]) / 2, edges[place + 1] - edges[place] - 0.03
            box(ax, middle, y, tokens[place], width=width, height=0.3, color=color, edge=PAPER, fontsize=9 * scale)
        ax.text(6.95, y, f"{probability:.2f}", fontsize=9, va="center", ha="right")
    came = ", ".join(f"{' '.join(token.split())!r} {probability:.2f}" for token, probability in steps)
    return describe(
        fig,
        f"{len(steps)} rows, each with the text so far and one more token, in orange, at its end. The tokens that come "
        f"out, with their probabilities: {came}.",
    )


def continuations(texts: Mapping[str, tuple[Sequence[str], Steps]]) -> Figure:
    """Continued texts, each as (prompt, new tokens): the prompt grey, new tokens orange, the likelier the darker."""
    lines: list[tuple[str, list[tuple[str, str, float]]]] = []  # (name, pieces with colour and width)
    for name, (prompt, steps) in texts.items():
        pieces = [(token, SHADE) for token in prompt]
        pieces += [(token, _tint(probability)) for token, probability in steps]
        row: list[tuple[str, str, float]] = []
        for token, color in pieces:
            shown = drawable(token)
            width = CHAR_WIDTH * len(shown.replace("\\", "")) + 0.1
            if row and sum(piece[2] + 0.03 for piece in row) + width > 5.6:
                lines.append((name, row))
                name, row = "", []
            row.append((shown, color, width))
        lines.append((name, row))
    height = 0.36 * len(lines) + 0.2 * (len(texts) - 1) + 0.55
    fig, ax = canvas(7, height)
    y = height + 0.36
    for name, row in lines:
        y -= 0.36 + (0.2 if name else 0)
        ax.text(0.05, y, name, fontsize=9, weight="bold", va="center")
        x = 1.37
        for shown, color, width in row:
            box(ax, x + width / 2, y, shown, width=width, height=0.29, color=color, edge=PAPER)
            x += width + 0.03
    x = 1.25
    for probability in (0.01, 0.1, 0.5, 1.0):
        box(ax, x + 0.15, 0.14, "", width=0.3, height=0.2, color=_tint(probability), edge=GREY)
        ax.text(x + 0.37, 0.14, f"{probability:g}", fontsize=8, va="center")
        x += 0.85
    ax.text(x, 0.14, "probability of a new token; a dot is a space", fontsize=8, va="center")
    told = "; ".join(
        f"{name}: {' '.join(''.join([*prompt, *(token for token, _ in steps)]).split())}"
        for name, (prompt, steps) in texts.items()
    )
    return describe(fig, f"Text in boxes, new tokens in orange, the darker the more probable they were. {told}")


def _tint(probability: float) -> tuple[float, float, float]:
    """From nearly white (improbable) to orange (certain)."""
    strength = 0.08 + 0.92 * float(probability) ** 0.5
    orange = np.array([0xE6, 0x9F, 0x00]) / 255
    return tuple((1 - strength) + strength * orange)


def fields() -> Figure:
    """Nested sets: artificial intelligence, machine learning, deep learning, language models; GenAI across them."""
    fig, ax = canvas(7, 3.95)
    rings = [  # name, example, colour, and the ring's left, low, width and height
        ("artificial intelligence", "a chess program with rules written by hand", SHADE, (0.05, 0.05, 6.9, 3.85)),
        ("machine learning", "our bigram model; a bag of words (chapter 6)", PALE_GREEN, (0.3, 0.2, 6.4, 3.1)),
        ("deep learning", "a network that finds faces in photographs", PALE_BLUE, (0.55, 0.35, 5.9, 2.35)),
    ]
    for name, example, color, (left, low, width, height) in rings:
        box(ax, left + width / 2, low + height / 2, "", width=width, height=height, color=color)
        y = low + height - 0.3
        ax.text(left + 0.15, y, name, va="center", weight="bold")
        ax.text(left + width - 0.15, y, example, va="center", ha="right", fontsize=8.5)
    box(ax, 2.55, 1.25, "", width=3.5, height=1.5, color=PALE_ORANGE)
    ax.text(0.95, 1.82, "large language models", va="center", weight="bold")
    style = {"boxstyle": "round,pad=0,rounding_size=0.06", "facecolor": "none", "edgecolor": INK}
    ax.add_patch(FancyBboxPatch((2.6, 0.62), 3.65, 1.02, **style, ls="--", lw=1.4))
    ax.text(6.1, 1.46, "generative AI", va="center", ha="right", weight="bold")
    for x, text in [
        (1.7, "a spam filter\nmade of a GPT\n(chapter 6)"),
        (3.45, "GPT-3;\nthe assistant\nof chapter 7"),
        (5.28, "networks that paint\nor compose"),
    ]:
        write(ax, x, 1.02, text, fontsize=8.5)
    return describe(
        fig,
        "Nested sets. Artificial intelligence, with a chess program whose rules people wrote, holds machine learning, "
        "with our bigram model and a bag of words, which holds deep learning, with a network that finds faces, which "
        "holds large language models. Generative AI, dashed, lies in deep learning and overlaps with language models: "
        "GPT-3 and an assistant are in both, a spam filter made of a GPT is a language model alone, and networks that "
        "paint or compose are generative alone.",
    )


def stages() -> Figure:
    """From raw text to a base model by pretraining, and from there to a classifier and to an assistant."""
    fig, ax = canvas(7, 3.5)
    box(ax, 0.95, 1.75, "raw text\n\nbooks, web pages;\nno labels", width=1.6, height=1.35, color=PAPER)
    box(ax, 3.25, 1.75, "base model\n\ncontinues\nany text", width=1.4, height=1.35, color=PALE_BLUE)
    box(ax, 6.05, 2.85, "classifier\n\nspam, or not spam", width=1.7, height=0.95, color=PALE_GREEN)
    box(ax, 6.05, 0.65, "assistant\n\nfollows instructions", width=1.7, height=0.95, color=PALE_PINK)
    arrow(ax, (1.77, 1.75), (2.53, 1.75))
    arrow(ax, (3.97, 2.05), (5.18, 2.75))
    arrow(ax, (3.97, 1.45), (5.18, 0.75))
    names = {"ha": "center", "va": "center", "fontsize": 9, "weight": "bold"}
    ax.text(2.15, 2.75, "pretraining\n(chapter 5)", **names)
    ax.text(2.15, 0.85, "predict the next token,\nbillions of times", ha="center", va="center", fontsize=8.5)
    ax.text(4.3, 3.0, "classification\nfine-tuning (chapter 6)", **names)
    ax.text(4.3, 2.62, "texts with labels", ha="center", va="center", fontsize=8.5)
    ax.text(4.3, 0.5, "instruction\nfine-tuning (chapter 7)", **names)
    ax.text(4.3, 0.12, "instructions with answers", ha="center", va="center", fontsize=8.5)
    return describe(
        fig,
        "Raw text leads by pretraining, predicting the next token billions of times, to a base model, which continues "
        "any text. From there, classification fine-tuning with labelled texts leads to a classifier, and instruction "
        "fine-tuning with instructions and answers to an assistant.",
    )


def transformers() -> Figure:
    """The transformer of 2017, an encoder and a decoder for translation, beside GPT, which is a decoder alone."""
    fig, ax = canvas(7, 3.9)
    ax.text(2.05, 3.72, "the transformer of 2017", ha="center", va="center", weight="bold")
    ax.text(5.85, 3.72, "GPT", ha="center", va="center", weight="bold")
    ax.axvline(4.45, 0.02, 0.98, color=GREY, lw=0.8, ls=":")
    _stack(ax, 1.05, "encoder", "sees the whole\nsentence at once", PALE_GREEN, "The hen\nclimbs")
    _stack(ax, 3.1, "decoder", "sees what it has\nwritten so far", PALE_BLUE, "Die Henne")
    _stack(ax, 5.85, "decoder", "sees the text so far", PALE_BLUE, "The hen climbs the")
    arrow(ax, (1.86, 1.62), (2.35, 1.62))
    ax.text(2.07, 1.1, "what the\nsentence means", ha="center", va="center", fontsize=8)
    for x, word in [(3.1, "steigt"), (5.85, "ladder")]:
        arrow(ax, (x, 2.62), (x, 2.95))
        box(ax, x, 3.14, word, width=1.0, height=0.34, color=PALE_ORANGE)
        ax.text(x, 3.43, "next token", ha="center", va="center", fontsize=8)
    for x, loop in [(3.1, 4.15), (5.85, 6.85)]:
        ax.plot([x + 0.5, loop, loop, x + 0.83], [3.14, 3.14, 0.4, 0.4], color=INK, lw=1.0, ls="--")
        arrow(ax, (x + 0.85, 0.4), (x + 0.79, 0.4), lw=1.0)
    return describe(
        fig,
        "Left, the transformer of 2017: an encoder reads 'The hen climbs' as a whole and hands what it means to a "
        "decoder, which has written 'Die Henne' and gives the next token, 'steigt', which joins its input. Right, GPT: "
        "a decoder alone reads 'The hen climbs the' and gives the next token, 'ladder'.",
    )


def _stack(ax: Axes, x: float, name: str, note: str, color: str, text: str) -> None:
    """A part of a transformer as a pile of layers over its input."""
    for shift in (0.12, 0.06, 0.0):
        box(ax, x + shift / 2, 2.0 + shift / 2, "", width=1.5, height=1.15, color=color)
    ax.text(x, 2.25, name, ha="center", va="center", weight="bold", fontsize=10)
    ax.text(x, 1.83, note, ha="center", va="center", fontsize=8)
    arrow(ax, (x, 0.66), (x, 1.41))
    box(ax, x, 0.4, text, width=1.55, height=0.5, color=PAPER, fontsize=8.5)


def who_sees_whom(words: Sequence[str]) -> Figure:
    """Two tables of words by words: in an encoder each sees all, in a decoder itself and what comes before it."""
    fig, axes = subplots(7, 3.1, 1, 2)
    for ax, causal, title in zip(axes, (False, True), ("everything", "only what came before"), strict=True):
        attention_mask(ax, words, causal)
        for row, col in np.ndindex(len(words), len(words)):
            text = "sees" if col <= row or not causal else "–"
            ax.text(col, row, text, ha="center", va="center", fontsize=8)
        ax.set_title(f"{'decoder' if causal else 'encoder'}: {title}", fontsize=10)
        ax.set(xlabel="… this word", ylabel="does this word see …")
    return describe(
        fig,
        f"Two tables of {len(words)} words by {len(words)} words. In the encoder's, every word sees every word. In the "
        "decoder's, each word sees itself and those before it: a triangle.",
    )


def training_mix(sources: Mapping[str, tuple[float, float]]) -> Figure:
    """Each source of a training set, given as (billions of tokens, weight in training): its share beside its weight."""
    total = sum(tokens for tokens, _ in sources.values())
    places = np.arange(len(sources))
    fig, ax = subplots(7, 3.4)
    shares = [tokens / total for tokens, _ in sources.values()]
    weights = [weight for _, weight in sources.values()]
    for shift, values, color, label in [
        (-0.2, shares, BLUE, "share of the tokens that there are"),
        (0.2, weights, ORANGE, "share of the tokens that training reads"),
    ]:
        ax.barh(places + shift, values, height=0.36, color=color, label=label)
        for place, value in zip(places, values, strict=True):
            ax.text(value + 0.01, place + shift, f"{value:.1%}", va="center", fontsize=8.5)
    names = [f"{name}\n{tokens:g} billion" for name, (tokens, _) in sources.items()]
    ax.set_yticks(places, labels=names)
    ax.set_xlim(0, 0.97)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set(xlabel="share", title="What there is, and what is read")
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="lower right")
    pairs = ", ".join(f"{name} {a:.1%} and {b:.0%}" for name, a, b in zip(sources, shares, weights, strict=True))
    return describe(fig, f"Two bars per source, its share of the tokens and of what training reads: {pairs}.")


def parameter_counts(models: Mapping[str, int]) -> Figure:
    """Numbers of parameters as bars on a logarithmic axis."""
    places = range(len(models))
    fig, ax = subplots(7, 0.42 * len(models) + 0.9)
    ax.barh(places, list(models.values()), color=[ORANGE, ORANGE, *[BLUE] * (len(models) - 2)], height=0.6)
    for place, count in zip(places, models.values(), strict=True):
        ax.text(count * 1.3, place, f"{count:,}", va="center", fontsize=9)
    ax.set_xscale("log")
    ax.set_xlim(100, 5e14)
    ax.set_xticks([1e3, 1e6, 1e9, 1e12], labels=["a thousand", "a million", "a billion", "a trillion"])
    ax.minorticks_off()
    ax.set_yticks(places, labels=list(models))
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("parameters (logarithmic axis)")
    counted = ", ".join(f"{name} {count:,}" for name, count in models.items())
    return describe(fig, f"Bars on a logarithmic axis, numbers of parameters: {counted}.")


# ---- the map of the course ------------------------------------------------------------------------------------------

_BOX, _TALL = 1.5, 0.62  # of a notebook's box on the map, in inches
_COLUMNS, _ROWS, _BONUS = (0.1, 1.85, 3.6, 5.35), (0.7, 1.72, 2.74), 3.85  # left edges; upper edges, from the top
# Column, row and colour of each chapter's and appendix's box: the chapters run to the right, then back.
_PLACES = {
    "1": (0, 0, PALE_ORANGE),
    "2": (1, 0, PALE_BLUE),
    "3": (2, 0, PALE_BLUE),
    "4": (3, 0, PALE_BLUE),
    "5": (3, 1, PALE_GREEN),
    "6": (2, 1, PALE_PINK),
    "7": (1, 1, PALE_PINK),
    "A": (0, 1, SHADE),
    "B": (0, 2, SHADE),
    "C": (1, 2, SHADE),
    "D": (3, 2, SHADE),
    "E": (2, 2, SHADE),
}
_COLORS = [("build", PALE_BLUE), ("pretrain", PALE_GREEN), ("fine-tune", PALE_PINK), ("more", SHADE)]
# Arrows: the way through the chapters, and (dashed) the ways aside.
_WAYS = [("1", "2"), ("2", "3"), ("3", "4"), ("4", "5"), ("5", "6"), ("6", "7")]
_WAYS_ASIDE = [("1", "A"), ("A", "2"), ("5", "D"), ("6", "E")]


def course_map() -> Figure:
    """The notebooks as boxes, chapter 1 marked as the open one; the bonus notebooks come last, four in a row."""
    bonus = [notebook for notebook in NOTEBOOKS if notebook.kind == "bonus"]
    last = _BONUS + 0.74 * ((len(bonus) - 1) // 4) + _TALL
    fig, ax = canvas(7, last + 0.1)
    top = last + 0.1
    ax.text(0.1, top - 0.2, "The course, from left to right and back", va="center", weight="bold")
    for number, (name, color) in enumerate(_COLORS):
        box(ax, 3.75 + 0.85 * number, top - 0.2, name, width=0.78, height=0.24, color=color, edge=PAPER, fontsize=8)
    ax.text(0.1, top - _BONUS + 0.2, "Bonus notebooks", va="center", weight="bold")
    corners = {}
    for notebook in NOTEBOOKS:
        if notebook.kind == "bonus":
            row, column = divmod(bonus.index(notebook), 4)
            x, y, color = _COLUMNS[column], top - _BONUS - 0.74 * row, SHADE
        else:
            column, row, color = _PLACES[notebook.number]
            x, y = _COLUMNS[column], top - _ROWS[row]
        corners[notebook.number] = (x, y)
        _notebook(ax, notebook, x, y, color)
    for ways, dashed in [(_WAYS, False), (_WAYS_ASIDE, True)]:
        for start, end in ways:
            _way(ax, corners[start], corners[end], dashed)
    return describe(
        fig,
        "Map of the course. Chapters 1 to 7 follow each other: 2 to 4 build the model, 5 pretrains it, 6 and 7 "
        "fine-tune it. Dashed arrows lead aside: from chapter 1 to appendix A and on to chapter 2, from 5 to D, from 6 "
        f"to E. Appendices B and C stand alone, and so do {len(bonus)} bonus notebooks.",
    )


def _notebook(ax: Axes, notebook: Notebook, x: float, y: float, color: str) -> None:
    """A notebook's box, whose upper left corner is (x, y); its title in the largest type that fits."""
    title = notebook.short or notebook.title
    if notebook.kind != "bonus":
        title = f"{notebook.number}. {title}"
    here = notebook.number == "1"
    for size in (8.5, 7.5, 6.5):
        lines = textwrap.wrap(title, int((_BOX - 0.1) / (CHAR_WIDTH * size / 9)), break_on_hyphens=False)
        lines += ["(you are here)"] * here
        if len(lines) * 1.25 * size / 72 <= _TALL - 0.06:
            break
    text = printable("\n".join(lines))
    box(ax, x + _BOX / 2, y - _TALL / 2, text, width=_BOX, height=_TALL, color=color, fontsize=size)
    ax.patches[-1].set_linewidth(2.2 if here else 1)


def _way(ax: Axes, start: tuple[float, float], end: tuple[float, float], dashed: bool) -> None:
    """A straight arrow between the sides of two boxes that face each other, given by their upper left corners."""
    (x1, y1), (x2, y2) = start, end
    if y1 == y2:
        x1, x2 = (x1 + _BOX, x2) if x1 < x2 else (x1, x2 + _BOX)
        y1 = y2 = y1 - _TALL / 2
    elif x1 == x2:
        x1 = x2 = x1 + _BOX / 2
        y1 -= _TALL
    else:  # from a lower box to the one at its upper right
        x1, y2 = x1 + _BOX, y2 - _TALL
    arrow(ax, (x1, y1), (x2, y2), ls="--" if dashed else "-")
