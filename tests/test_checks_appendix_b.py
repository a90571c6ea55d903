"""Appendix B's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import functools
import math
import re
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch

from helpers import checks
from helpers.course.checks import appendix_b
from helpers.course.references import CHAPTERS, load_references, select
from tests import checkers

# ---- B.1: the date of a link ---------------------------------------------------------------------------------------


def date(link):
    match = re.match(r"https://arxiv\.org/(?:abs|pdf)/(\d\d)(\d\d)\.", link)
    return (2000 + int(match[1]), int(match[2])) if match else None


def date_by_cutting(link):
    """Without a pattern, and with NumPy's integers in a list."""
    address = urlsplit(link)
    kind, _, number = address.path.strip("/").partition("/")
    if address.netloc != "arxiv.org" or kind not in ("abs", "pdf"):
        return None
    return [np.int64(2000 + int(number[:2])), np.int64(number[2:4])]


def date_in_a_tensor(link):
    return None if date(link) is None else torch.tensor(date(link))


def two_digits(link):
    found = date(link)
    return found and (found[0] - 2000, found[1])


def as_text(link):
    found = date(link)
    return found and tuple(map(str, found))


def digits_anywhere(link):
    match = re.search(r"(\d\d)(\d\d)\.\d+", link)
    return (2000 + int(match[1]), int(match[2])) if match else None


def arxiv_anywhere(link):
    match = re.search(r"arxiv.*/(\d\d)(\d\d)\.\d+", link)
    return (2000 + int(match[1]), int(match[2])) if match else None


def unanchored(link):
    match = re.search(r"arxiv\.org/(?:abs|pdf)/(\d\d)(\d\d)\.\d", link)
    return (2000 + int(match[1]), int(match[2])) if match else None


def any_page_of_arxiv(link):
    match = re.match(r"https://arxiv\.org/.*?(\d\d)(\d\d)\.\d", link)
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


# ---- B.2: largest score and sum in one pass ------------------------------------------------------------------------


def normalizer(scores):
    largest, total = -math.inf, 0.0
    for score in scores:
        if score == -math.inf:
            continue
        new = max(largest, score)
        total = total * math.exp(largest - new) + math.exp(score - new)
        largest = new
    return largest, total


def normalizer_by_cases(scores):
    """Without a first value, in a list of tensors."""
    largest = total = None
    for score in scores:
        score = torch.tensor(score, dtype=torch.float64)
        if largest is None or largest == -math.inf:
            largest, total = score, torch.tensor(0.0 if score == -math.inf else 1.0)
        elif score > largest:
            largest, total = score, total * (largest - score).exp() + 1
        else:
            total = total + (score - largest).exp()
    return [largest, total]


def normalizer_reduced(scores):
    def join(state, score):
        largest, total = state
        if score <= largest:
            return largest, total + (math.exp(score - largest) if largest > -math.inf else 0.0)
        return score, 1.0 + (total * math.exp(largest - score) if largest > -math.inf else 0.0)

    return np.array(functools.reduce(join, scores, (-math.inf, 0.0)))


def stepwise(scores, step, start=-math.inf):
    largest, total = start, 0.0
    for score in scores:
        new = max(largest, score)
        largest, total = new, step(total, largest, new, score)
    return largest, total


def exp(number):
    return torch.tensor(float(number), dtype=torch.float64).exp().item()


def kept_in_a_list(scores):
    scores = list(scores)
    return max(scores), sum(math.exp(score - max(scores)) for score in scores)


def not_rescaled(scores):
    return stepwise(scores, lambda total, old, new, score: total + exp(score - new))


def own_term_missing(scores):
    largest, total = -math.inf, 0.0
    for score in scores:
        if largest == -math.inf:
            largest, total = score, 1.0
        elif score > largest:
            largest, total = score, total * exp(largest - score)
        else:
            total += exp(score - largest)
    return largest, total


def begun_anew(scores):
    return stepwise(scores, lambda total, old, new, score: 1.0 if new > old else total + exp(score - new))


def upside_down(scores):
    largest, total = next(scores), 1.0
    for score in scores:
        new = max(largest, score)
        total = total * exp(new - largest) + exp(score - new)
        largest = new
    return largest, total


def not_subtracted(scores):
    return stepwise(scores, lambda total, old, new, score: total + exp(score))


def overflowing(scores):
    return stepwise(scores, lambda total, old, new, score: total + math.exp(score))


def nan_at_first(scores):
    return stepwise(scores, lambda total, old, new, score: total * exp(old - new) + exp(score - new))


def with_logarithm(scores):
    largest, total = normalizer(scores)
    return largest, largest + math.log(total) if total else largest


# ---- B.3: the settled parts ----------------------------------------------------------------------------------------


def settled(table, year):
    newest = table.explode("chapters").groupby("chapters")["year"].max()
    return newest.index[newest < year]  # pandas' own kind of list


def settled_in_a_loop(table, year):
    newest = {}
    for parts, when in zip(table["chapters"], table["year"], strict=True):
        for part in parts:
            newest[part] = max(when, newest.get(part, 0))
    return [part for part, when in newest.items() if when < year]


def settled_by_select(table, year):
    return {part for part in CHAPTERS if select(table, chapter=part)["year"].max() < year}  # NaN where there is none


def by_first_part(table, year):
    return settled(table.assign(chapters=table["chapters"].str[0]), year).tolist()


def with_that_year(table, year):
    return settled(table, year + 1).tolist()


def any_old(table, year):
    oldest = table.explode("chapters").groupby("chapters")["year"].min()
    return oldest.index[oldest < year].tolist()


def with_empty_parts(table, year):
    return [part for part in CHAPTERS if (select(table, chapter=part)["year"] < year).all()]


def the_others(table, year):
    return sorted(set(table["chapters"].explode()) - set(settled(table, year)))


def with_titles(table, year):
    return [CHAPTERS[part] for part in settled(table, year)]


def with_repeats(table, year):
    return [*settled(table, year), *settled(table, year)]


def papers_only(table, year):
    return settled(table[table["kind"] == "paper"], year).tolist()


RIGHT = [
    ("B.1", date),
    ("B.1", date_by_cutting),
    ("B.1", date_in_a_tensor),
    ("B.2", normalizer),
    ("B.2", normalizer_by_cases),
    ("B.2", normalizer_reduced),
    ("B.3", settled),
    ("B.3", settled_in_a_loop),
    ("B.3", settled_by_select),
]

# number, wrong answer, what the hint must speak of
WRONG = [
    ("B.1", two_digits, "Which century"),
    ("B.1", as_text, "whole number"),
    ("B.1", digits_anywhere, "not an arXiv link"),
    ("B.1", arxiv_anywhere, "address is example.com"),
    ("B.1", unanchored, "address is example.com"),
    ("B.1", any_page_of_arxiv, "a list of papers"),
    ("B.1", abstracts_only, "gave None"),
    ("B.1", without_version, "v2"),
    ("B.1", five_digits, "gave None"),
    ("B.1", swapped, "expected"),
    ("B.1", lambda link: date(link) and date(link)[0], "a pair"),
    ("B.1", lambda link: print(end=""), "gave None"),
    ("B.1", lambda link: date(link) or (0, 0), "None is expected"),
    ("B.1", lambda link: 1 // 0, "stopped with ZeroDivisionError"),
    ("B.2", kept_in_a_list, "keeps the scores"),
    ("B.2", not_rescaled, "still belongs to the old largest score"),
    ("B.2", own_term_missing, "a term of its own"),
    ("B.2", begun_anew, "begin the sum anew"),
    ("B.2", upside_down, "upside down"),
    ("B.2", not_subtracted, "subtracted before exp"),
    ("B.2", overflowing, "too large for a float"),
    ("B.2", nan_at_first, "nan"),
    ("B.2", with_logarithm, "the logarithm of the sum"),
    ("B.2", lambda scores: normalizer(scores)[::-1], "wrong order"),
    ("B.2", lambda scores: normalizer(scores)[0], "A pair is expected"),
    ("B.2", lambda scores: (normalizer(scores)[0], 1.0), "expected"),
    ("B.3", by_first_part, "first part only"),
    ("B.3", with_that_year, "of that very year"),
    ("B.3", any_old, "All of a part's references"),
    ("B.3", with_empty_parts, "without any reference"),
    ("B.3", the_others, "of that year or later"),
    ("B.3", with_titles, "not their titles"),
    ("B.3", with_repeats, "more than once"),
    ("B.3", papers_only, "The years of its references are"),
    ("B.3", lambda table, year: len(table), "A list of texts"),
    ("B.3", lambda table, year: [], "is missing from your result"),
    ("B.3", lambda table, year: table["chapter"], "stopped with KeyError"),
]

GIVEAWAYS = {"B.1": ["abs|pdf"], "B.2": ["exp(old - new)", "exp(largest - new)"], "B.3": ["explode", "groupby"]}


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
    assert len(appendix_b._links()) == 10  # as the statement says
    for seed in range(300):
        for link, year_and_month in appendix_b._links(seed):
            assert date(link) == year_and_month


def test_b_2_a_few_scores_may_be_held():
    """The largest so far and the one before the one at hand: that is not yet keeping them all."""

    def with_neighbours(scores):
        first = next(scores)
        largest, total, _before = first, float(first > -math.inf), first
        for score in scores:
            if score > -math.inf:
                new = max(largest, score)
                total = (total * math.exp(largest - new) if total else 0.0) + math.exp(score - new)
                largest, _before = new, score
        return largest, total

    checkers.accepts("B.2", with_neighbours)
    ordinary, masked_first = appendix_b._score_lists()
    assert len(ordinary) + len(masked_first) == 11  # as the statement says


def test_b_3_tables_tell_the_readings_apart():
    cases = appendix_b._tables()
    assert len(cases) == 4  # as the statement says
    right = [appendix_b._settled(*case) for case in cases]
    assert any(right)
    for slip, hint in appendix_b._SETTLED_SLIPS:
        assert right != [slip(*case) for case in cases], hint


def test_b_3_on_the_list_itself():
    """What the statement and the solution say: some parts are settled by 2020, and chapter 4 is not."""
    found = set(settled(load_references(), 2020))
    assert found and not found & set("1234567")
