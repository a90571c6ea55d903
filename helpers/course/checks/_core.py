"""What every exercise checker shares: verdicts, the decorator that makes a checker, comparisons, quizzes."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check. `passed` is None while there is no answer; `bool(verdict)` is true only when right."""

    passed: bool | None
    title: str
    message: str

    def __bool__(self) -> bool:
        return self.passed is True

    def _headline(self) -> str:
        state = {True: "right", False: "not yet", None: "no answer yet"}[self.passed]
        return f"{self.title}: {state}."

    def __repr__(self) -> str:
        return f"{self._headline()} {self.message}"

    def _repr_html_(self) -> str:
        color = {True: "#009E73", False: "#D55E00", None: "#767676"}[self.passed]
        text = html.escape(self.message).replace("\n", "<br>")
        return (
            f'<div role="status" style="border-left: 4px solid {color}; padding: 0.3em 0.8em">'
            f"<b>{html.escape(self._headline())}</b> {text}</div>"
        )


class Hint(Exception):
    """Raised inside a checker to say what is wrong with an answer, without giving the solution away."""


EXERCISES: dict[str, Callable[..., Verdict]] = {}


def exercise(number: str) -> Callable[[Callable[..., str]], Callable[..., Verdict]]:
    """Make a checker of a function that takes an answer and returns the explanation of why it is right.

    The function raises `Hint` for a wrong answer. An answer of None, or `...`, counts as not given. Whatever the
    learner's own code raises becomes a verdict too, so a checker itself never fails.
    """

    def register(check: Callable[..., str]) -> Callable[..., Verdict]:
        title = f"Exercise {number}"

        @functools.wraps(check)
        def checker(*answers: Any, **named: Any) -> Verdict:
            given = [*answers, *named.values()]
            if not given or any(answer is None or answer is ... for answer in given):
                return Verdict(None, title, "Replace None with your answer and run the cell again.")
            try:
                return Verdict(True, title, check(*answers, **named))
            except Hint as hint:
                return Verdict(False, title, str(hint))
            except Exception as error:
                return Verdict(False, title, f"Your answer stopped with {type(error).__name__}: {error}")

        EXERCISES[number] = checker
        return checker

    return register


def expect(condition: bool, hint: str) -> None:
    """Raise `Hint(hint)` unless `condition` holds."""
    if not condition:
        raise Hint(hint)


def expect_function(answer: Any, call: str) -> None:
    """Raise `Hint` unless `answer` can be called as `call` says, such as "count(text)"."""
    expect(
        callable(answer) and not isinstance(answer, torch.nn.Module),
        f"Hand in the function itself, to be called as {call}; this is a {type(answer).__name__}.",
    )


def expect_close(
    actual: Any,
    expected: torch.Tensor,
    hint: str,
    rtol: float = 1e-3,
    atol: float = 1e-4,
    reveal: bool = True,
) -> None:
    """Raise `Hint` unless `actual` is a tensor (or numbers) of the shape and values of `expected`.

    With `reveal`, what was expected and what came out stand in the message: for random cases, where that gives
    nothing away.
    """
    try:
        got = torch.as_tensor(actual).detach().to(expected.dtype)
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"A tensor of shape {tuple(expected.shape)} is wanted, not {type(actual).__name__}.") from None
    expect(
        got.shape == expected.shape,
        f"Your result has shape {tuple(got.shape)}; shape {tuple(expected.shape)} is wanted. {hint}",
    )
    if not torch.allclose(got, expected, rtol=rtol, atol=atol):
        shown = f"\nexpected {brief(expected)}\ngot      {brief(got)}" if reveal else ""
        raise Hint(hint + shown)


def brief(tensor: torch.Tensor, most: int = 6) -> str:
    """The first few numbers of a tensor, on one line."""
    numbers = [f"{number:.4g}" for number in tensor.flatten()[:most].tolist()]
    return " ".join(numbers) + (" …" if tensor.numel() > most else "")


@dataclass(frozen=True)
class Question:
    """A multiple-choice question: for each option whether it is right, and why or why not."""

    text: str
    options: dict[str, tuple[bool, str]]


def self_test(chapter: str, questions: Sequence[Question]) -> Callable[..., Verdict]:
    """Make the grader of a chapter's closing questions: `self_test_3(q1="b", q2=None, ...)`.

    Every chosen option is explained, right or wrong.
    """

    def grader(*answers: str | None, **named: str | None) -> Verdict:
        given = dict(zip(names, answers, strict=False)) | named
        unknown = [name for name in given if name not in names]
        if unknown or len(answers) > len(names):
            raise TypeError(f"self_test_{chapter} has the questions {', '.join(names)}")
        title = f"Self-test {chapter.upper() if len(chapter) == 1 else chapter}"
        return grade(title, questions, [given.get(name) for name in names])

    names = [f"q{number}" for number in range(1, len(questions) + 1)]
    grader.__name__ = grader.__qualname__ = f"self_test_{chapter}"
    return grader


def grade(title: str, questions: Sequence[Question], answers: Sequence[str | None]) -> Verdict:
    """Grade a self-test: every chosen option is explained, right or wrong."""
    if all(answer is None for answer in answers):
        return Verdict(None, title, "Replace each None with the letter of your answer and run the cell again.")
    lines, right = [], 0
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True), start=1):
        if answer is None:
            lines.append(f"{number}. Not answered yet.")
            continue
        letter = str(answer).strip().lower()
        if letter not in question.options:
            lines.append(f"{number}. {answer!r} is not one of {', '.join(question.options)}.")
            continue
        correct, why = question.options[letter]
        right += correct
        lines.append(f"{number}. {'Yes' if correct else 'No'}: {why}")
    message = f"{right} of {len(questions)} right.\n" + "\n".join(lines)
    return Verdict(right == len(questions), title, message)
