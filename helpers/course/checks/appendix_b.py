"""Checkers for appendix B."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from numbers import Integral

from ..references import load_references
from ._core import Hint, Question, exercise, expect, expect_function, self_test

__all__ = ["exercise_b_1", "exercise_b_2", "self_test_b"]


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


@exercise("B.1")
def exercise_b_1(answer: Callable[[str], tuple[int, int] | None]) -> str:
    """Check `arxiv_date(link)` -> (year, month) of an arXiv link, None for any other link."""
    expect_function(answer, "arxiv_date(link)")
    for link, want in _links():
        try:
            got = answer(link)
        except Exception as error:
            raise Hint(f"arxiv_date({link!r}) stopped with {type(error).__name__}: {error}") from None
        if want is None:
            expect(got is None, f"arxiv_date({link!r}) gave {got!r}. That is not an arXiv link, so None is wanted.")
            continue
        expect(got is not None, f"arxiv_date({link!r}) gave None, but this is an arXiv link.")
        expect(
            isinstance(got, tuple | list) and len(got) == 2,
            f"arxiv_date({link!r}) gave {got!r}; a pair (year, month) is wanted.",
        )
        expect(all(type(part) is int for part in got), f"Year and month must be whole numbers, not {tuple(got)!r}.")
        expect(got[0] != want[0] % 100, f"For {link} you give the year {got[0]}. Which century is that?")
        expect(tuple(got) == want, f"arxiv_date({link!r}): expected {want}, got {tuple(got)}.")
    return (
        "The first two digits are the year and the next two the month; what follows counts the papers of that month. "
        "Looking at the address as well as at the digits keeps other links out that only look similar."
    )


@exercise("B.2")
def exercise_b_2(answer: tuple[str, int, int]) -> str:
    """Check (title of the oldest paper, year with most references, how many rows name Noam Shazeer)."""
    expect(
        isinstance(answer, tuple | list) and len(answer) == 3,
        "Three things are wanted: (title of the oldest paper, year with most references, rows with Noam Shazeer).",
    )
    title, year, rows = answer
    table = load_references()
    papers = table[table["kind"] == "paper"]
    oldest, oldest_paper = (frame.sort_values("year")["title"].iloc[0] for frame in (table, papers))
    expect(isinstance(title, str), "The first of the three is a title, so a text.")
    expect(title.strip() != oldest, "That is the oldest reference of any kind. A paper is asked for.")
    expect(
        title.strip() == oldest_paper,
        "The title is not that of the oldest paper. Sort the papers by year, and copy the title as it stands.",
    )
    counts = Counter(int(value) for value in table["year"])
    expect(isinstance(year, Integral), f"The year must be a whole number, not {type(year).__name__}.")
    expect(year != max(counts), "That is the latest year, not the one with most rows.")
    expect(year == max(counts, key=counts.__getitem__), "The year: count the rows of each year, of all kinds together.")
    first = int(table["authors"].str.startswith("Noam Shazeer").sum())
    expect(rows != first, "You count the rows where he stands first. He also stands in other places.")
    right = int(table["authors"].str.contains("Noam Shazeer").sum())
    expect(rows == right, "Noam Shazeer: count the rows whose authors have the name anywhere in them.")
    return (
        "All three are one line of pandas each, or a few clicks in the widget. That is what data is for: a list in "
        "prose could be read, but not asked."
    )


_QUESTIONS = (
    Question(
        'A paper is cited as "Loshchilov and Hutter, 2019", and its arXiv id is 1711.05101. What does that mean?',
        {
            "a": (False, "both are right; they date different things."),
            "b": (True, "the id gives the month of the first version, the citation the year of the conference."),
            "c": (False, "the digits before the point are year and month; the counter stands after it."),
        },
    ),
    Question(
        "A paper reports that its method is better by 0.3 points, from one run of each method. What do you ask first?",
        {
            "a": (True, "if two seeds of one method differ by as much, the 0.3 points are not a finding."),
            "b": (False, "large machines make runs faster; they do not make a difference more certain."),
            "c": (False, "citations tell what was noticed, and a result can be noticed and wrong."),
        },
    ),
    Question(
        "You multiply the input of an RMSNorm by ten. What happens to its output?",
        {
            "a": (False, "the root mean square grows by the same factor, and it is divided by."),
            "b": (False, "RMSNorm never subtracts the mean; LayerNorm does."),
            "c": (True, "the factor is in the numerator and in the root mean square, and cancels."),
        },
    ),
)

self_test_b = self_test("b", _QUESTIONS)
