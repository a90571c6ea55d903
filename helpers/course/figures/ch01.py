"""Pictures for chapter 1: next-token probabilities, growing texts, stages, the transformer, data, sizes; the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from ..chapters import NOTEBOOKS
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
    subplots,
    visible,
)
from .shared import attention_mask

Steps = Sequence[tuple[str, float]]  # tokens, each with the probability it had


def _plain(token: str, most: int = 40) -> str:
    """A token as it can be drawn: at most `most` characters, a box for one that the font lacks, $ without a formula."""
    font = get_font(findfont("DejaVu Sans"))
    shown = "".join(char if font.get_char_index(ord(char)) else "□" for char in visible(token))
    shown = shown if len(shown) <= most else shown[: most - 1] + "…"
    return shown.replace("$", r"\$")


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
    return fig


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
        ax.set_yticks(places, labels=[_plain(token, most=14) for token, _ in steps])
        ax.set_title(title.replace("$", r"\$"), fontsize=9.5 if cols < 3 else 8.3)
        ax.set_xlim(0, 1.28 * most)
        ax.invert_yaxis()
        ax.tick_params(axis="y", length=0)
        if not steps:
            ax.text(0.5, 0.5, "it has never seen this token", transform=ax.transAxes, ha="center", fontsize=9)
    fig.supxlabel("probability of being the next token", fontsize=10)
    return fig


def growing_text(prompt: Sequence[str], steps: Steps) -> Figure:
    """The loop of a language model, a row per step: the text that goes in, and the token that comes out (orange)."""
    tokens = [_plain(token) for token in [*prompt, *(token for token, _ in steps)]]
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
    return fig


def continuations(texts: Mapping[str, tuple[Sequence[str], Steps]]) -> Figure:
    """Continued texts, each as (prompt, new tokens): the prompt grey, new tokens orange, the likelier the darker."""
    lines: list[tuple[str, list[tuple[str, str, float]]]] = []  # (name, pieces with colour and width)
    for name, (prompt, steps) in texts.items():
        pieces = [(token, SHADE) for token in prompt]
        pieces += [(token, _tint(probability)) for token, probability in steps]
        row: list[tuple[str, str, float]] = []
        for token, color in pieces:
            shown = _plain(token)
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
    return fig


def _tint(probability: float) -> tuple[float, float, float]:
    """From nearly white (improbable) to orange (certain)."""
    strength = 0.08 + 0.92 * float(probability) ** 0.5
    orange = np.array([0xE6, 0x9F, 0x00]) / 255
    return tuple((1 - strength) + strength * orange)


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
    return fig


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
    return fig


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
    return fig


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
    return fig


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
    return fig


# ---- the map of the course ------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A notebook's box on the map: (x, y) is its upper left corner, in pixels."""

    file: str
    title: str
    x: int
    y: int
    color: str


_WIDTH, _BOX, _TALL = 760, 164, 58  # of the map and of a box, in pixels
_COLUMNS, _ROWS, _BONUS = (16, 204, 392, 580), (44, 154, 264), 380  # left edges; upper edges, of the bonus rows too
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
# Arrows: the way through the chapters, and (dashed) the ways aside.
_WAYS = [("1", "2"), ("2", "3"), ("3", "4"), ("4", "5"), ("5", "6"), ("6", "7")]
_WAYS_ASIDE = [("1", "A"), ("A", "2"), ("5", "D"), ("6", "E")]


def course_map(folder: Path | str = ".") -> str:
    """The map of the course as SVG for an HTML output, with chapter 1 marked as the notebook that is open.

    A box is a link if its notebook is in `folder`, and dashed if not. The bonus notebooks come last, four in a row.
    """
    folder, places, bonus = Path(folder), {}, 0
    for notebook in NOTEBOOKS:
        title = notebook.short or notebook.title
        if notebook.kind == "bonus":
            x, y, color = _COLUMNS[bonus % 4], _BONUS + 74 * (bonus // 4), SHADE
            bonus += 1
        else:
            column, row, color = _PLACES[notebook.number]
            x, y, title = _COLUMNS[column], _ROWS[row], f"{notebook.number}. {title}"
        places[notebook.number] = Place(notebook.file, title, x, y, color)
    height = max(place.y for place in places.values()) + _TALL + 16
    parts = [_way(places[a], places[b], dashed=False) for a, b in _WAYS]
    parts += [_way(places[a], places[b], dashed=True) for a, b in _WAYS_ASIDE]
    parts += [_place(place, (folder / place.file).exists(), number == "1") for number, place in places.items()]
    about = "Map of the course: chapters 1 to 7 in order, with appendices around them. A box opens its notebook."
    head = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="group" aria-label="{about}" '
            f'viewBox="0 0 {_WIDTH} {height}" style="max-width: {_WIDTH}px; width: 100%" font-family="sans-serif">',
            f"<desc>{about}</desc>",
            f'<defs>{head}<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>',
            f'<rect width="{_WIDTH}" height="{height}" fill="{PAPER}"/>',
            _words(16, 26, "The course, from left to right and back", weight="bold"),
            *parts,
            _words(16, _BONUS - 14, "Bonus notebooks", weight="bold"),
            "</svg>",
        ]
    )


def _place(place: Place, there: bool, here: bool) -> str:
    """A box of the map: a link if the notebook is `there`; `here` marks the notebook that is open."""
    line = f'stroke="{INK if there else GREY}" stroke-width="{3 if here else 1}"'
    line += "" if there else ' stroke-dasharray="4 3"'
    shape = f'<rect x="{place.x}" y="{place.y}" width="{_BOX}" height="{_TALL}" rx="7" fill="{place.color}" {line}/>'
    label = _words(place.x + 4, place.y + _TALL + 15, "you are here", size=11) if here else ""
    style = (
        "display: flex; width: 100%; height: 100%; align-items: center; justify-content: center; text-align: center; "
        f"box-sizing: border-box; padding: 0 8px; font: 13px/17px sans-serif; color: {INK}"
    )
    # JupyterLab opens notebooks from HTML links; a link of SVG's own stops it with an error.
    if there:
        kind, about = "a", f'href="{escape(place.file)}" title="Open {escape(place.file)}"'
    else:
        kind, about = "span", 'title="This notebook is not in your folder"'
    link = f'<{kind} xmlns="http://www.w3.org/1999/xhtml" {about} style="{style}">{escape(place.title)}</{kind}>'
    inside = f'<foreignObject x="{place.x}" y="{place.y}" width="{_BOX}" height="{_TALL}">{link}</foreignObject>'
    return "\n".join(filter(None, [shape, label, inside]))


def _words(x: float, y: float, text: str, weight: str = "normal", size: int = 13) -> str:
    style = f'font-weight="{weight}" font-size="{size}" fill="{INK}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def _way(start: Place, end: Place, dashed: bool) -> str:
    """A straight arrow between the sides of two boxes that face each other."""
    middle_x, middle_y = _BOX // 2, _TALL // 2
    if start.y == end.y and start.x < end.x:
        line = (start.x + _BOX, start.y + middle_y, end.x, end.y + middle_y)
    elif start.y == end.y:
        line = (start.x, start.y + middle_y, end.x + _BOX, end.y + middle_y)
    elif start.x == end.x:
        line = (start.x + middle_x, start.y + _TALL, end.x + middle_x, end.y)
    else:  # from a lower box to the one at its upper right
        line = (start.x + _BOX, start.y, end.x, end.y + _TALL)
    x1, y1, x2, y2 = line
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    style = f'stroke="{INK}" stroke-width="1.5"{dash} marker-end="url(#tip)"'
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {style}/>'
