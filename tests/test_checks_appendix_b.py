"""Appendix B's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import re

import pytest

from helpers import checks
from helpers.course.checks import appendix_b
from helpers.course.references import load_references
from tests import checkers

OLDEST = "Learning representations by back-propagating errors"
TABLE = load_references()
PAPERS = TABLE[TABLE["kind"] == "paper"].sort_values("year")


def date(link):
    match = re.match(r"https://arxiv\.org/(?:abs|pdf)/(\d\d)(\d\d)\.", link)
    return (2000 + int(match[1]), int(match[2])) if match else None


def two_digits(link):
    found = date(link)
    return found and (found[0] - 2000, found[1])


def as_text(link):
    found = date(link)
    return found and tuple(map(str, found))


def digits_anywhere(link):
    match = re.search(r"(\d\d)(\d\d)\.\d+", link)
    return (2000 + int(match[1]), int(match[2])) if match else None


def abstracts_only(link):
    return date(link) if "/abs/" in link else None


def without_version(link):
    match = re.fullmatch(r"https://arxiv\.org/(?:abs|pdf)/(\d\d)(\d\d)\.\d{4,5}", link)
    return (2000 + int(match[1]), int(match[2])) if match else None


def five_digits(link):
    match = re.match(r"https://arxiv\.org/(?:abs|pdf)/(\d\d)(\d\d)\.\d{5}", link)
    return (2000 + int(match[1]), int(match[2])) if match else None


def swapped(link):
    found = date(link)
    return found and found[::-1]


def right():
    year = int(TABLE["year"].mode()[0])
    return PAPERS["title"].iloc[0], year, int(TABLE["authors"].str.contains("Noam Shazeer").sum())


def with_part(place, value):
    answer = list(right())
    answer[place] = value
    return tuple(answer)


RIGHT = [("B.1", date), ("B.2", right()), ("B.2", list(right()))]

# number, wrong answer, what the hint must speak of
WRONG = [
    ("B.1", two_digits, "Which century"),
    ("B.1", as_text, "whole number"),
    ("B.1", digits_anywhere, "not an arXiv link"),
    ("B.1", abstracts_only, "gave None"),
    ("B.1", without_version, "v2"),
    ("B.1", five_digits, "gave None"),
    ("B.1", swapped, "expected"),
    ("B.1", lambda link: date(link)[0], "a pair"),
    ("B.1", lambda link: print(end=""), "gave None"),
    ("B.1", lambda link: date(link) or (0, 0), "None is expected"),
    ("B.1", lambda link: 1 // 0, "stopped with ZeroDivisionError"),
    ("B.2", with_part(0, "The Verdict"), "oldest reference of any kind"),
    ("B.2", with_part(0, OLDEST), "not that of the oldest paper"),
    ("B.2", with_part(0, 1951), "a title"),
    ("B.2", with_part(1, 2025), "the latest year"),
    ("B.2", with_part(1, 2022), "count the rows of each year"),
    ("B.2", with_part(1, "2023"), "whole number"),
    ("B.2", with_part(2, 2), "stands first"),
    ("B.2", with_part(2, 50), "anywhere in them"),
    ("B.2", "The Verdict", "Three things"),
    ("B.2", ("a", 2023), "Three things"),
    ("B.2", 3, "Three things"),
]

GIVEAWAYS = {"B.1": [], "B.2": [str(part) for part in right()[:2]]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS[number])


def test_b_1_says_how_an_id_is_read():
    assert "first two digits" in checks.exercise_b_1(date).message


def test_b_1_links_are_made_anew_in_the_same_way():
    assert appendix_b._links() == appendix_b._links()
    assert appendix_b._links(1) != appendix_b._links(2)
    for seed in range(300):
        for link, year_and_month in appendix_b._links(seed):
            assert date(link) == year_and_month


def test_b_2_has_one_answer_to_each_question():
    assert PAPERS["year"].iloc[0] < PAPERS["year"].iloc[1]
    assert len(TABLE["year"].mode()) == 1
    assert TABLE["year"].mode()[0] != TABLE["year"].max()
    assert TABLE["kind"].loc[TABLE["year"].idxmin()] != "paper"
