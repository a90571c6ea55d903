"""Checkers for appendix B."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from ..references import load_references
from ._core import exercise, expect, expect_kind, explained, read_integer, read_parts, self_test


def _links(seed: int = 5) -> list[tuple[str, tuple[int, int] | None]]:
    """Made-up links, each with the year and month that its arXiv id tells, or None."""
    draw = random.Random(seed)
    cases: list[tuple[str, tuple[int, int] | None]] = []
    for part, version in (("abs", ""), ("abs", ""), ("abs", "v2"), ("pdf", ""), ("pdf", "v11")):
        year, month = draw.randrange(2015, 2030), draw.randrange(1, 13)
        number = f"{draw.randrange(1, 30_000):05d}"
        cases.append((f"https://arxiv.org/{part}/{year % 100}{month:02d}.{number}{version}", (year, month)))
    year, month = draw.randrange(2008, 2015), draw.randrange(1, 13)  # ids had four digits after the point until 2014
    cases.append((f"https://arxiv.org/abs/{year % 100:02d}{month:02d}.{draw.randrange(1, 9999):04d}", (year, month)))
    doi = f"https://doi.org/10.1145/14{draw.randrange(10000, 99999)}.1498{draw.randrange(100, 999)}"
    return [*cases, (doi, None), ("https://github.com/karpathy/nanoGPT", None)]


@exercise("B.1", "arxiv_date(link)", may_return_none=True)
def exercise_b_1(answer: Callable[[str], tuple[int, int] | None]) -> str:
    """Check `arxiv_date(link)` -> (year, month) of an arXiv link, None for any other link."""
    for link, date in _links():
        with explained(Exception, f"Tried arxiv_date({link!r})."):
            got = answer(link)
        if date is None:
            expect(got is None, f"arxiv_date({link!r}) gave {got!r}. That is not an arXiv link, so None is expected.")
            continue
        expect(got is not None, f"arxiv_date({link!r}) gave None, but this is an arXiv link.")
        pair = f"arxiv_date({link!r}) gave {got!r}; a pair (year, month) is expected."
        year, month = (read_integer(part, "Year and month, each,") for part in read_parts(got, 2, pair))
        expect(year != date[0] % 100, f"For {link} you give the year {year}. Which century is that?")
        expect((year, month) == date, f"arxiv_date({link!r}): expected {date}, got {(year, month)}.")
    return (
        "The first two digits are the year and the next two the month; what follows counts the papers of that month. "
        "Looking at the address as well as at the digits keeps other links out that only look similar."
    )


@exercise("B.2")
def exercise_b_2(answer: tuple[str, int, int]) -> str:
    """Check (title of the oldest paper, year with most references, how many rows name Noam Shazeer)."""
    order = "Three things are expected: (title of the oldest paper, year with most references, rows with Noam Shazeer)."
    title, year, rows = read_parts(answer, 3, order)
    table = load_references()
    papers = table[table["kind"] == "paper"]
    oldest, oldest_paper = (frame.sort_values("year")["title"].iloc[0] for frame in (table, papers))
    expect_kind(title, str, "First of the three, a title")
    expect(title.strip() != oldest, "That is the oldest reference of any kind. A paper is asked for.")
    expect(
        title.strip() == oldest_paper,
        "The title is not that of the oldest paper. Sort the papers by year, and copy the title as it stands.",
    )
    counts = Counter(int(value) for value in table["year"])
    year = read_integer(year, "The year")
    expect(year != max(counts), "That is the latest year, not the one with most rows.")
    expect(year == max(counts, key=counts.__getitem__), "The year: count the rows of each year, of all kinds together.")
    first = int(table["authors"].str.startswith("Noam Shazeer").sum())
    rows = read_integer(rows, "The number of rows")
    expect(rows != first, "You count the rows where he stands first. He also stands in other places.")
    right = int(table["authors"].str.contains("Noam Shazeer").sum())
    expect(rows == right, "Noam Shazeer: count the rows whose authors have the name anywhere in them.")
    return (
        "All three are one line of pandas each, or a few clicks in the widget. That is what data is for: a list in "
        "prose could be read, but not asked."
    )


self_test_b = self_test("b", "appendix_b")
