"""The facts of the instruction set: opposites, definitions, what animals do, days and months (`seeds/facts`).

A fact can only be learned, so it may be asked in the test and in practice, but never in the same phrasing. Its key
says which requests are about the same fact: the opposite of *hot* and the opposite of *cold* are one.
"""

from __future__ import annotations

import random
from functools import cache

from .instruction_words import draw_number, lines_of, lists_of

Fact = tuple[str, str, dict[str, str]]  # the name of a list of phrasings, the fact's key, what fills the gaps

# The tables of each kind, and for each table the lists of phrasings that ask for it.
_TABLES = {
    "antonyms": {"antonyms": ["antonyms"]},
    "synonyms": {"synonyms": ["synonyms"]},
    "rhyme": {"rhyme": ["rhyme"]},
    "animals": {name: [name] for name in ("sound", "young", "legs", "home", "feeds", "gives")},
    "definitions": {
        "definitions": ["definitions", "defined_word"],
        "wordnet_nouns": ["definitions", "defined_word"],
        "verbs": ["verb_meaning"],
        "wordnet_verbs": ["verb_meaning"],
        "adjectives": ["adjective_meaning"],
        "wordnet_adjectives": ["adjective_meaning"],
    },
    "colors": {"colors": ["colors"]},
    "jobs": {"jobs": ["jobs"]},
    "uses": {"uses": ["uses"]},
    "completion": {"completion": ["completion"]},
    "advice": {"problem": ["problem"], "how_to": ["how_to"]},
    "similes": {"similes": ["similes"]},
    "lists": {"lists": ["lists"]},
}
_BOTH_WAYS = ("antonyms", "rhyme")  # tables that answer either word with the other
_LIKE_COLORS = ({"white", "gray", "black"}, {"red", "orange", "pink", "brown", "yellow"}, {"blue", "green"})
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
_PLACES = _ORDINALS.split()
_SEASONS = ("spring", "summer", "autumn", "winter")

FACTS = (*_TABLES, "calendar", "numbers")


@cache
def facts(kind: str) -> tuple[Fact, ...]:
    """All facts of a kind: those of tables in their order, the common ones first; days and numbers in random order."""
    if kind in ("calendar", "numbers"):
        made = _calendar() if kind == "calendar" else _numbers()
        return tuple(sorted(made, key=lambda fact: draw_number(fact[1])))
    return tuple(
        (phrasings, key, values)
        for table, lists in _TABLES[kind].items()
        for key, values in _rows(table)
        for phrasings in lists
    )


def table(name: str) -> list[dict[str, str]]:
    """The rows of a table in `seeds/facts`, each a dictionary of its columns."""
    header, *rows = (line.split(" | ") for line in lines_of(f"facts/{name}"))
    return [dict(zip(header, row, strict=True)) for row in rows]


def _rows(name: str) -> list[tuple[str, dict[str, str]]]:
    """The rows of a table with the key of each; those that can be asked both ways come twice."""
    found = []
    for row in table(name):
        key = f"{name} {' '.join(row.values())}"
        if name == "colors":
            row["other"] = _other_color(row["answer"], key)
        found.append((key, row))
        if name in _BOTH_WAYS:
            found.append((key, {"word": row["answer"], "answer": row["word"]}))
    return found


def _other_color(color: str, key: str) -> str:
    """A color that nobody could take for this one."""
    (like,) = (colors for colors in _LIKE_COLORS if color in colors)
    others = [other for colors in _LIKE_COLORS if colors is not like for other in sorted(colors)]
    return random.Random(key).choice(others)


def _calendar() -> list[Fact]:
    """Neighbors of days, months and seasons; the length of each month and its place in the year."""
    found = []
    for name in ("day", "month"):
        names = lists_of("values")[name]
        for i, value in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            found.append((f"next_{name}", f"next {value}", {name: value, "next": after}))
            found.append((f"previous_{name}", f"previous {value}", {name: value, "previous": before}))
    for i, month in enumerate(lists_of("values")["month"]):
        if month != "February":
            found.append(("month_days", f"days {month}", {"month": month, "answer": f"{_DAYS[i]}"}))
        other = _PLACES[i - 1] if i % 2 else _PLACES[(i + 1) % 12]
        found.append(("month_place", f"place {month}", {"month": month, "place": _PLACES[i], "other": other}))
    for i, season in enumerate(_SEASONS):
        found.append(("next_season", f"next {season}", {"season": season, "next": _SEASONS[(i + 1) % 4]}))
    return found


def _numbers() -> list[Fact]:
    """The neighbors of each number from 1 to 20, in digits and in words."""
    found = []
    for names in ([str(n) for n in range(1, 21)], lists_of("values")["number"]):
        for i, value in enumerate(names):
            if i < 19:
                row = ", ".join(names[max(0, i - 2) : i + 1])
                found.append(("next_number", f"next {i + 1}", {"n": value, "next": names[i + 1], "row": row}))
            if i > 0:
                found.append(("previous_number", f"previous {i + 1}", {"n": value, "previous": names[i - 1]}))
    return found
