"""Checkers for appendix B."""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from ..references import CHAPTERS
from ._core import (
    Hint,
    all_agree,
    exercise,
    expect,
    expect_close,
    explained,
    read_integer,
    read_number,
    read_parts,
    self_test,
)

if TYPE_CHECKING:
    import pandas as pd

# ---- B.1 -----------------------------------------------------------------------------------------------------------

# Links that are not those of a paper on arXiv, and what one may take them for.
_OTHERS = {
    "https://github.com/karpathy/nanoGPT": "That is not an arXiv link",
    "https://example.com/arxiv.org/abs/1706.03762": "The address is example.com, whatever name its path has",
    "https://arxiv.org/list/cs.CL/2405.1": "That is a list of papers on arXiv and not a paper, which is at abs or pdf",
}


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
    return [*cases, *((link, None) for link in (doi, *_OTHERS))]


@exercise("B.1", "arxiv_date(link)", may_return_none=True)
def exercise_b_1(answer: Callable[[str], tuple[int, int] | None]) -> str:
    """Check `arxiv_date(link)` -> (year, month) of an arXiv link, None for any other link."""
    for link, date in _links():
        got = answer(link)
        if date is None:
            why = _OTHERS.get(link, "That is not an arXiv link")
            expect(got is None, f"arxiv_date({link!r}) gave {got!r}. {why}, so None is expected.")
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


# ---- B.2 -----------------------------------------------------------------------------------------------------------

_MOST_KEPT = 4  # scores that a function may hold at a time: the largest, the one at hand, and two to spare


class _Score(float):
    """A number of which one can tell whether somebody still holds it, which a plain float does not allow."""


class _Stream(Iterator[float]):
    """Hands out each score once. Raises Hint if more than _MOST_KEPT of those handed out are still held."""

    def __init__(self, scores: Iterable[float]) -> None:
        self._scores, self._handed_out = iter(scores), []

    def __next__(self) -> float:
        kept = sum(reference() is not None for reference in self._handed_out)
        expect(
            kept <= _MOST_KEPT,
            "Your function keeps the scores, in a list perhaps, to go through them again. Two numbers are enough: the "
            "largest score so far, and the sum so far.",
        )
        score = _Score(next(self._scores))
        self._handed_out.append(weakref.ref(score))
        return score


def _exp(number: float) -> float:
    return math.exp(number) if number < 700 else math.inf


def _in_one_pass(scores: Sequence[float], step: Callable[[float, float, float, float], float]) -> tuple[float, float]:
    """(largest, sum), where `step` makes the next sum from the sum, the old and the new largest and the score."""
    largest, total = scores[0], 1.0
    for score in scores[1:]:
        new = max(largest, score)
        largest, total = new, step(total, largest, new, score)
    return largest, total


def _normalizer(scores: Sequence[float]) -> tuple[float, float]:
    return max(scores), sum(math.exp(score - max(scores)) for score in scores)


# What known mistakes in B.2 give, each with its hint.
_NORMALIZER_SLIPS = (
    (
        lambda scores: (max(scores), sum(map(_exp, scores))),
        "Your sum is that of exp(score) as it stands. The largest score is to be subtracted before exp, so that no "
        "term is above 1.",
    ),
    (
        lambda scores: _in_one_pass(scores, lambda total, old, new, score: total + _exp(score - new)),
        "When a score larger than all before it comes, the sum so far still belongs to the old largest score. What has "
        "to happen to it?",
    ),
    (
        lambda scores: _in_one_pass(
            scores, lambda total, old, new, score: total * _exp(old - new) if new > old else total + _exp(score - new)
        ),
        "The score that becomes the largest has a term of its own in the sum.",
    ),
    (
        lambda scores: _in_one_pass(
            scores, lambda total, old, new, score: 1.0 if new > old else total + _exp(score - new)
        ),
        "When a new largest score comes, you begin the sum anew. The scores before it count, too.",
    ),
    (
        lambda scores: _in_one_pass(scores, lambda total, old, new, score: total * _exp(new - old) + _exp(score - new)),
        "The sum so far is changed by the right factor upside down: is it to become larger or smaller?",
    ),
    (
        lambda scores: (max(scores), max(scores) + math.log(_normalizer(scores)[1])),
        "Your second number is the logarithm of the sum of exp(score), not the sum.",
    ),
    (lambda scores: _normalizer(scores)[::-1], "Your two numbers are in the wrong order: the largest score is first."),
)


def _score_lists(seed: int = 6) -> tuple[list[list[float]], list[list[float]]]:
    """Lists of scores for B.2, and further ones that begin with minus infinity."""
    draw = random.Random(seed)
    normal = [draw.gauss(0, 3) for _ in range(40)]
    lists = [
        [1.0, 3.0, 2.0],
        [0.5],
        [0.1 * number for number in range(12)],
        [2.0 - 0.3 * number for number in range(8)],
        normal,
        [1.5, 1.5, 1.5],
        [0.5, -math.inf, 1.0],
        [1000.0, 1001.5, 999.0],
        [-1000.0, -1002.0, -999.5],
    ]
    return lists, [[-math.inf, 2.0, 1.0], [-math.inf, -math.inf, -3.0]]


@exercise("B.2", "normalizer(scores)")
def exercise_b_2(answer: Callable[[Iterator[float]], Sequence[float]]) -> str:
    """Check `normalizer(scores)` -> (largest score, sum of exp(score - largest)), from an iterator, in one pass."""

    def tried(scores: Sequence[float]) -> str:
        return f"Tried with the scores {', '.join(f'{score:.4g}' for score in scores[:6])}{' …' * (len(scores) > 6)}."

    def run(scores: Sequence[float]) -> torch.Tensor:
        with explained(OverflowError, f"{tried(scores)} exp of such a number is too large for a float."):
            got = answer(_Stream(scores))
        pair = f"{tried(scores)} A pair is expected: the largest score, and the sum."
        return torch.tensor([read_number(part, pair) for part in read_parts(got, 2, pair)], dtype=torch.float64)

    lists, masked_first = _score_lists()
    results = [run(scores) for scores in lists]
    expected = [torch.tensor(_normalizer(scores), dtype=torch.float64) for scores in lists]
    slips = (((torch.tensor(slip(scores)) for scores in lists), hint) for slip, hint in _NORMALIZER_SLIPS)
    all_agree(results, expected, slips)
    for got, right, scores in zip(results, expected, lists, strict=True):
        expect_close(got, right, tried(scores))
    for scores in masked_first:
        got = run(scores)
        expect(
            not got.isnan().any(),
            f"{tried(scores)} You get nan: −∞ − (−∞) is not a number. As long as all scores are −∞, what is the sum?",
        )
        expect_close(got, torch.tensor(_normalizer(scores), dtype=torch.float64), tried(scores))
    return (
        "Largest score and sum come out of one pass, because a sum that belongs to an old largest score needs one "
        "factor to belong to the new one. FlashAttention does the same with blocks of scores in place of single ones."
    )


# ---- B.3 -----------------------------------------------------------------------------------------------------------


def _years(table: pd.DataFrame, first_only: bool = False) -> dict[str, list[int]]:
    """The years of the references of each part of the course."""
    years: dict[str, list[int]] = {}
    for parts, year in zip(table["chapters"], table["year"], strict=True):
        for part in parts[:1] if first_only else parts:
            years.setdefault(part, []).append(int(year))
    return years


def _settled(table: pd.DataFrame, year: int) -> set[str]:
    return {part for part, years in _years(table).items() if max(years) < year}


# What known mistakes in B.3 give, each with its hint.
_SETTLED_SLIPS = (
    (
        lambda table, year: {part for part, years in _years(table, first_only=True).items() if max(years) < year},
        "You count a reference for its first part only. It counts for every part that its `chapters` names.",
    ),
    (
        lambda table, year: {part for part, years in _years(table).items() if max(years) <= year},
        "A part with a reference of that very year is not settled.",
    ),
    (
        lambda table, year: {part for part, years in _years(table).items() if min(years) < year},
        "You ask for a reference that is older. All of a part's references have to be.",
    ),
    (
        lambda table, year: _settled(table, year) | (set(CHAPTERS) - set(_years(table))),
        "A part without any reference in the table does not belong to the result.",
    ),
    (
        lambda table, year: set(_years(table)) - _settled(table, year),
        "These are the parts that have a reference of that year or later; the others are asked for.",
    ),
    (
        lambda table, year: {CHAPTERS[part] for part in _settled(table, year)},
        "Return the numbers of the parts, such as '3' or 'bonus-dpo', not their titles.",
    ),
)


def _tables(seed: int = 7) -> list[tuple[pd.DataFrame, int]]:
    """Small made-up tables of references, each with the year to ask for."""
    import pandas as pd

    draw, parts, cases = random.Random(seed), ["2", "3", "5", "7", "B", "bonus-dpo"], []
    for year in (2018, 2020, 2021, 2023):
        records = []
        for number in range(10):
            chosen = draw.sample(parts, draw.choice([1, 1, 2, 3]))
            record = {
                "chapters": tuple(part for part in CHAPTERS if part in chosen),
                "title": f"Paper {number}",
                "authors": "A. Nother",
                "year": year + draw.choice([-9, -4, -2, -1, -1, 0, 1]),
                "kind": draw.choice(["paper", "code"]),
                "link": f"https://example.org/{number}",
                "why": "It was made up to be counted in this table.",
            }
            records.append(record)
        cases.append((pd.DataFrame(records), year))
    return cases


@exercise("B.3", "settled(table, year)")
def exercise_b_3(answer: Callable[[pd.DataFrame, int], Collection[str]]) -> str:
    """Check `settled(table, year)` -> the parts of the course all of whose references are from before the year."""
    cases, results = _tables(), []
    for table, year in cases:
        got = answer(table.copy(), year)
        got = got.tolist() if hasattr(got, "tolist") else got
        expect(
            isinstance(got, list | tuple | set | frozenset) and all(isinstance(part, str) for part in got),
            f"A list of texts such as ['3', 'bonus-dpo'] is expected, not {got!r:.60}.",
        )
        expect(len(set(got)) == len(got), f"Your result {got!r:.60} names a part more than once.")
        results.append(set(got))
    expected = [_settled(*case) for case in cases]
    if results != expected:
        for slip, hint in _SETTLED_SLIPS:
            expect(results != [slip(*case) for case in cases], hint)
        for got, right, (table, year) in zip(results, expected, cases, strict=True):
            for part in sorted(got ^ right):
                years = sorted(_years(table).get(part, []))
                said = "is in your result" if part in got else "is missing from your result"
                raise Hint(f"With year={year}: {part!r} {said}. The years of its references are {years}.")
    return (
        "A reference counts for every part that it names, and the newest year of a part decides. This is what a list "
        "that is data can be asked, and a list in prose cannot."
    )


self_test_b = self_test("b", "appendix_b")
