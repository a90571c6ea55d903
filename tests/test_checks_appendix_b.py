"""Appendix B's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import re

import pytest

from helpers import checks
from helpers.course.checks import appendix_b
from helpers.course.references import load_references

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


class TestArxivDate:
    def test_right(self):
        verdict = checks.exercise_b_1(date)
        assert verdict.passed is True
        assert "first two digits" in verdict.message

    def test_no_answer(self):
        assert checks.exercise_b_1(None).passed is None

    @pytest.mark.parametrize(
        ("answer", "hint"),
        [
            (two_digits, "Which century"),
            (as_text, "whole numbers"),
            (digits_anywhere, "not an arXiv link"),
            (abstracts_only, "gave None"),
            (without_version, "v2"),
            (five_digits, "gave None"),
            (swapped, "expected"),
            (lambda link: date(link)[0], "a pair"),
            (lambda link: None, "gave None"),
            (lambda link: date(link) or (0, 0), "None is wanted"),
            (lambda link: 1 // 0, "stopped with ZeroDivisionError"),
            ((2017, 6), "Hand in the function itself"),
        ],
    )
    def test_slips(self, answer, hint):
        verdict = checks.exercise_b_1(answer)
        assert verdict.passed is False
        assert hint in verdict.message

    def test_links_are_made_anew_in_the_same_way(self):
        assert appendix_b._links() == appendix_b._links()
        assert appendix_b._links(1) != appendix_b._links(2)
        for seed in range(300):
            for link, want in appendix_b._links(seed):
                assert date(link) == want


def right():
    year = int(TABLE["year"].mode()[0])
    return PAPERS["title"].iloc[0], year, int(TABLE["authors"].str.contains("Noam Shazeer").sum())


class TestAskTheTable:
    def test_right(self):
        assert checks.exercise_b_2(right()).passed is True
        assert checks.exercise_b_2(list(right())).passed is True

    def test_the_questions_have_one_answer_each(self):
        assert PAPERS["year"].iloc[0] < PAPERS["year"].iloc[1]
        assert len(TABLE["year"].mode()) == 1
        assert TABLE["year"].mode()[0] != TABLE["year"].max()
        assert TABLE["kind"].loc[TABLE["year"].idxmin()] != "paper"

    def test_no_answer(self):
        assert checks.exercise_b_2(None).passed is None

    @pytest.mark.parametrize(
        ("place", "value", "hint"),
        [
            (0, "The Verdict", "oldest reference of any kind"),
            (0, OLDEST, "not that of the oldest paper"),
            (0, 1951, "is a title"),
            (1, 2025, "the latest year"),
            (1, 2022, "count the rows of each year"),
            (1, "2023", "whole number"),
            (2, 2, "stands first"),
            (2, 50, "anywhere in them"),
        ],
    )
    def test_slips(self, place, value, hint):
        answer = list(right())
        answer[place] = value
        verdict = checks.exercise_b_2(tuple(answer))
        assert verdict.passed is False
        assert hint in verdict.message
        assert not any(str(part) in verdict.message for part in right()[:2])

    @pytest.mark.parametrize("answer", ["The Verdict", ("a", 2023), 3])
    def test_shape(self, answer):
        verdict = checks.exercise_b_2(answer)
        assert verdict.passed is False
        assert "Three things" in verdict.message


class TestSelfTest:
    def test_all_right(self):
        verdict = checks.self_test_b("b", "a", "c")
        assert verdict.passed is True
        assert verdict.title == "Self-test B"

    def test_every_option_is_explained(self):
        for question in appendix_b._QUESTIONS:
            assert sorted(question.options) == ["a", "b", "c"]
            assert sum(correct for correct, _ in question.options.values()) == 1
            assert all(len(why.split()) >= 6 for _, why in question.options.values())

    @pytest.mark.parametrize(("number", "letter"), [(1, "a"), (1, "c"), (2, "b"), (2, "c"), (3, "a"), (3, "b")])
    def test_wrong_ones(self, number, letter):
        verdict = checks.self_test_b(**{f"q{number}": letter})
        assert verdict.passed is False
        assert f"{number}. No:" in verdict.message
