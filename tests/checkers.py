"""What every checker of exercises must do; the tests of a chapter's checkers name the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from helpers import checks
from helpers.course.checks._core import Question, Verdict


def fails(verdict: Verdict, *words: str) -> None:
    """A verdict on a wrong answer, with these words in it."""
    assert verdict.passed is False, verdict
    for word in words:
        assert word in verdict.message, verdict.message


def accepts(number: str, answer: Any) -> None:
    """A right answer passes, and is told why."""
    verdict = checks.EXERCISES[number](answer)
    assert verdict.passed is True, verdict
    assert len(verdict.message) > 60


def refuses(number: str, answer: Any, aim: str, giveaways: Iterable[str]) -> None:
    """A wrong answer gets the hint with `aim` in it, which gives nothing away."""
    verdict = checks.EXERCISES[number](answer)
    fails(verdict, aim)
    for giveaway in giveaways:
        assert giveaway not in verdict.message


def waits_for_an_answer(number: str) -> None:
    """No answer is no verdict."""
    assert checks.EXERCISES[number](None).passed is None
    assert checks.EXERCISES[number](...).passed is None


def survives_an_error(number: str) -> None:
    """An error in the learner's function becomes a verdict that names it."""

    def broken(*_):
        raise RuntimeError("shapes do not fit")

    fails(checks.EXERCISES[number](broken), "shapes do not fit")


def leaves_the_seed_alone(number: str, answer: Any) -> None:
    """Checking draws nothing from torch's global random state."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    checks.EXERCISES[number](answer)
    assert torch.equal(torch.rand(3), expected)


def explains_every_option(self_test: Callable, questions: Sequence[Question]) -> None:
    """A self-test has one right option per question, explains each option, and passes with all the right ones."""
    for position, question in enumerate(questions):
        assert sum(right for right, _ in question.options.values()) == 1
        for letter, (right, why) in question.options.items():
            verdict = self_test(**{f"q{position + 1}": letter})
            assert verdict.passed is False  # the others are not answered yet
            assert f"{position + 1}. {'Yes' if right else 'No'}: {why}" in verdict.message
            assert len(why) > 30
    assert self_test().passed is None
    right = [next(k for k, (ok, _) in question.options.items() if ok) for question in questions]
    assert self_test(*right).passed is True
    assert "is not one of" in self_test(*right[:-1], "z").message
