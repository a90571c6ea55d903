"""The map of the course: an SVG whose boxes link to the notebooks that are there."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import NamedTuple

from ..plots import GREY, INK, PAPER, SHADE

_PALE_BLUE, _PALE_ORANGE, _PALE_GREEN, _PALE_PINK = "#BFE0F2", "#FBE3B5", "#BDE6D6", "#EFD0E0"
_WIDTH, _BOX, _TALL = 760, 164, 58  # of the picture and of a box, in pixels


class Place(NamedTuple):
    """A notebook on the map: its file begins with `start`; (x, y) is the upper left corner of its box."""

    start: str
    title: str
    x: int
    y: int
    color: str


_MAP = [
    Place("ch01", "1. Understanding language models", 16, 44, _PALE_ORANGE),
    Place("ch02", "2. Working with text data", 204, 44, _PALE_BLUE),
    Place("ch03", "3. Coding attention", 392, 44, _PALE_BLUE),
    Place("ch04", "4. A GPT model from scratch", 580, 44, _PALE_BLUE),
    Place("ch05", "5. Pretraining", 580, 154, _PALE_GREEN),
    Place("ch06", "6. Fine-tuning for classification", 392, 154, _PALE_PINK),
    Place("ch07", "7. Fine-tuning to follow instructions", 204, 154, _PALE_PINK),
    Place("appendix_a", "A. Introduction to PyTorch", 16, 154, SHADE),
    Place("appendix_d", "D. Bells and whistles for training", 580, 264, SHADE),
    Place("appendix_e", "E. LoRA: fine-tuning with few weights", 392, 264, SHADE),
    Place("appendix_b", "B. References", 16, 264, SHADE),
    Place("appendix_c", "C. Exercise solutions", 204, 264, SHADE),
]
# Arrows: the way through the chapters, and (dashed) the ways aside.
_WAYS = [("ch01", "ch02"), ("ch02", "ch03"), ("ch03", "ch04"), ("ch04", "ch05"), ("ch05", "ch06"), ("ch06", "ch07")]
_WAYS_ASIDE = [("ch01", "appendix_a"), ("appendix_a", "ch02"), ("ch05", "appendix_d"), ("ch06", "appendix_e")]


def course_map(folder: Path | str = ".", here: str = "ch01") -> str:
    """The map as SVG for an HTML output; `folder` holds the notebooks, `here` begins the name of the one open now.

    A box is a link if its notebook is in the folder, and dashed if not. Notebooks in its folder `bonus` come last,
    under their own titles.
    """
    folder = Path(folder)
    places = [*_MAP, *_bonus(folder)]
    height = max(place.y for place in places) + _TALL + 16
    corners = {place.start: place for place in places}
    parts = [_arrow(corners[a], corners[b], dashed=False) for a, b in _WAYS]
    parts += [_arrow(corners[a], corners[b], dashed=True) for a, b in _WAYS_ASIDE]
    parts += [_box(place, _file(folder, place.start), place.start == here) for place in places]
    if len(places) > len(_MAP):
        parts.append(_text(16, 366, "Bonus notebooks", weight="bold"))
    about = "Map of the course: chapters 1 to 7 in order, with appendices around them. A box opens its notebook."
    head = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="group" aria-label="{about}" '
            f'viewBox="0 0 {_WIDTH} {height}" style="max-width: {_WIDTH}px; width: 100%" font-family="sans-serif">',
            f"<desc>{about}</desc>",
            f'<defs>{head}<path d="M0,0 L8,4 L0,8 z" fill="{INK}"/></marker></defs>',
            f'<rect width="{_WIDTH}" height="{height}" fill="{PAPER}"/>',
            _text(16, 26, "The course, from left to right and back", weight="bold"),
            *parts,
            "</svg>",
        ]
    )


def _bonus(folder: Path) -> list[Place]:
    """The bonus notebooks that are there, four in a row, titled by their first line."""
    places = []
    for number, path in enumerate(sorted(folder.glob("bonus/*.ipynb"))):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]).splitlines()[0]
        title = first.lstrip("# ").removeprefix("Bonus: ")
        places.append(Place(f"bonus/{path.stem}", title, 16 + 188 * (number % 4), 380 + 74 * (number // 4), SHADE))
    return places


def _file(folder: Path, start: str) -> str | None:
    """The name, seen from `folder`, of the notebook that begins with `start`; None if there is none."""
    found = sorted([*folder.glob(f"{start}.ipynb"), *folder.glob(f"{start}_*.ipynb")])
    return found[0].relative_to(folder).as_posix() if found else None


def _box(place: Place, file: str | None, is_here: bool) -> str:
    line = f'stroke="{INK if file else GREY}" stroke-width="{3 if is_here else 1}"'
    line += "" if file else ' stroke-dasharray="4 3"'
    shape = f'<rect x="{place.x}" y="{place.y}" width="{_BOX}" height="{_TALL}" rx="7" fill="{place.color}" {line}/>'
    label = _text(place.x + 4, place.y + _TALL + 15, "you are here", size=11) if is_here else ""
    style = (
        "display: flex; width: 100%; height: 100%; align-items: center; justify-content: center; text-align: center; "
        f"box-sizing: border-box; padding: 0 8px; font: 13px/17px sans-serif; color: {INK}"
    )
    # JupyterLab opens notebooks from HTML links; a link of SVG's own stops it with an error.
    if file:
        kind, about = "a", f'href="{escape(file)}" title="Open {escape(file)}"'
    else:
        kind, about = "span", 'title="This notebook is not there yet"'
    link = f'<{kind} xmlns="http://www.w3.org/1999/xhtml" {about} style="{style}">{escape(place.title)}</{kind}>'
    inside = f'<foreignObject x="{place.x}" y="{place.y}" width="{_BOX}" height="{_TALL}">{link}</foreignObject>'
    return "\n".join(filter(None, [shape, label, inside]))


def _text(x: float, y: float, text: str, weight: str = "normal", size: int = 13) -> str:
    style = f'font-weight="{weight}" font-size="{size}" fill="{INK}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(text)}</text>'


def _arrow(start: Place, end: Place, dashed: bool) -> str:
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
