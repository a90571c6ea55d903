"""What every checker must do with a right and with a wrong answer; the test file of each notebook names the answers.

What holds for all checkers whatever the answer is tested in test_checks_core.py.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Any

import torch

from helpers import checks
from helpers.course.checks import Verdict

FEWEST_WORDS = 10  # in which a right answer is explained


def fails(verdict: Verdict, *words: str) -> None:
    """A verdict on a wrong answer, with these words in it."""
    assert verdict.passed is False, verdict
    for word in words:
        assert word in verdict.message, verdict.message


def accepts(number: str, *answer: Any) -> Verdict:
    """A right answer passes and is told why; checking draws nothing from the global random states."""
    states = torch.get_rng_state(), random.getstate()
    verdict = checks.EXERCISES[number](*answer)
    assert verdict.passed is True, verdict
    assert verdict.title == f"Exercise {number}"
    assert len(verdict.message.split()) >= FEWEST_WORDS
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    return verdict


def refuses(number: str, answer: Any, aim: str, giveaways: Iterable[str] = ()) -> None:
    """A wrong answer gets the hint with `aim` in it, the same each time, which gives nothing away."""
    verdict = checks.EXERCISES[number](answer)
    fails(verdict, aim)
    said = re.sub(r"in line \d+: `.*`", "", verdict.message)  # the learner's own line aside
    for giveaway in giveaways:
        assert giveaway not in said, verdict.message
    assert checks.EXERCISES[number](answer) == verdict
