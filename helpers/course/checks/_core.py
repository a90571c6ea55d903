"""What every exercise checker shares: verdicts, reading and comparing answers, and the self-tests.

A checker is a function that raises `Hint` for a wrong answer and returns why a right one is right; `exercise` turns
both into a `Verdict`. The learner's code runs inside `call`, so its errors are told from the checker's own.
"""

from __future__ import annotations

import dis
import functools
import html
import inspect
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from ...files import first_line
from .. import progress

QUIZZES = Path(__file__).parents[2] / "assets" / "quizzes"  # the self-tests' questions, one file per notebook
FEWEST_OPTIONS = 3  # of a question; with two, half of all guesses would be right
RTOL, ATOL = 1e-3, 1e-4  # results that agree to three digits are the same
NO_ANSWER = "Replace None with your answer and run the cell again. A line `= None` below your answer undoes it."
_SEED = 1  # of what a check draws from PyTorch's global generator, such as a layer's first weights


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check. `passed` is None while there is no answer; `bool(verdict)` is true only when right.

    `counted` says how many of the notebook's exercises are solved, where that is kept.
    """

    passed: bool | None
    title: str
    message: str
    counted: str = ""

    def __bool__(self) -> bool:
        return self.passed is True

    def _headline(self) -> str:
        state = {True: "right", False: "not yet", None: "no answer yet"}[self.passed]
        return f"{self.title}: {state}."

    def __repr__(self) -> str:
        return f"{self._headline()} {self.message}" + (f"\n{self.counted}" if self.counted else "")

    def _repr_html_(self) -> str:
        if self.passed is None:
            look, mark, text = f"border-left: 4px solid {_GREY}", "", html.escape(self.message)
        else:
            color, tint, sign = _LOOKS[self.passed]
            look = f"border-left: 6px solid {color}; background: {tint}"
            mark = f'<b style="color: {color}">{sign}</b> '
            text = _as_html(self.message) + (f"<br><small>{_as_html(self.counted)}</small>" if self.counted else "")
        return (
            f'<div role="status" style="{look}; padding: 0.3em 0.8em">'
            f"{mark}<b>{html.escape(self._headline())}</b> {text}</div>"
        )


_GREY = "#767676"
_LOOKS = {True: ("#009E73", "rgba(0, 158, 115, 0.15)", "✓"), False: ("#D55E00", "rgba(213, 94, 0, 0.15)", "✗")}
_SIDES = re.compile(r"^expected .*\n(?: .*\n)*got .*(?:\n .*)*\n?", re.MULTILINE)  # results, one under the other


def _as_html(message: str) -> str:
    """A message as HTML that shows every character of it.

    Results that are to be compared stand under one another, code in backticks is set as code, and a dollar stays a
    dollar where JupyterLab would begin a formula.
    """
    parts, end = [], 0
    for sides in _SIDES.finditer(message):
        parts += [_prose(message[end : sides.start()].removesuffix("\n")), _columns(sides[0])]
        end = sides.end()
    return "".join([*parts, _prose(message[end:])])


def _columns(text: str) -> str:
    return f'<pre style="margin: 0.3em 0; background: none; white-space: pre-wrap">{html.escape(text.rstrip())}</pre>'


def _prose(text: str) -> str:
    lines = html.escape(text).replace("$", '<span class="mathjax_ignore">$</span>')
    lines = re.sub("  +", lambda gap: "&nbsp;" * len(gap[0]), lines)
    return re.sub("`([^`\n]+)`", r"<code>\1</code>", lines).replace("\n", "<br>")


class Hint(Exception):
    """Raised inside a checker to say what is wrong with an answer, without giving the solution away."""


class AnswerError(Hint):
    """The learner's own `code`, called with the arguments given, stopped with `error`.

    The message names the line of the code where it stopped, and the call.
    """

    def __init__(
        self, error: BaseException, code: Any = None, given: Sequence = (), named: Mapping | None = None
    ) -> None:
        message = f"Your answer stopped with {type(error).__name__}: {error}".removesuffix(": ")
        if line := _line_of(error, code):
            message += f", in {line}"
        if code is not None:
            arguments = [_shown(value) for value in given]
            arguments += [f"{name}={_shown(value)}" for name, value in (named or {}).items()]
            message += f", when called as {getattr(code, '__name__', type(code).__name__)}({', '.join(arguments)})."
        super().__init__(message)
        self.error = error


def _line_of(error: BaseException, code: Any) -> str:
    """Where in the file or cell of `code` an error came from: "line 3: `x = y`"; "" if it did not come from there."""
    function = code if isinstance(code, type) else getattr(code, "__func__", code)
    functions = [function, *(vars(function if isinstance(function, type) else type(function)).values())]
    files = {part.__code__.co_filename for part in functions if hasattr(part, "__code__")}
    places = [place for place in traceback.extract_tb(error.__traceback__) if place.filename in files]
    if not places:
        return ""
    return f"line {places[-1].lineno}" + (f": `{places[-1].line}`" if places[-1].line else "")


def _shown(value: Any) -> str:
    """An argument in a message: what it is in a few words."""
    if isinstance(value, torch.Tensor) and value.numel() > 6:
        return f"<tensor of shape {tuple(value.shape)}>"
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(value).split()))
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_stub(answer: Any) -> bool:
    """Whether a function or class is still as the exercise states it: its body is `...`, or returns nothing."""
    if isinstance(answer, type):
        parts = [part for part in vars(answer).values() if hasattr(part, "__code__")]
        return bool(parts) and all(map(is_stub, parts))
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP", "CACHE")]
    return steps[0].opname in ("LOAD_CONST", "RETURN_CONST") and steps[0].argval is None and len(steps) <= 2


class CheckerError(Exception):
    """A checker has a bug: it stopped outside the learner's code."""


EXERCISES: dict[str, Callable[..., Verdict]] = {}
SELF_TESTS: dict[str, Callable[..., Verdict]] = {}


def exercise(
    number: str, signature: str = "", *, may_return_none: bool = False
) -> Callable[[Callable[..., str]], Callable[..., Verdict]]:
    """Make a checker of a function that takes an answer and returns the explanation of why it is right.

    Where the answer is to be a function, `signature` says how it is called, such as "count(text)", and
    `may_return_none` whether None can be a right result. An answer of None, or a stub (`is_stub`), counts as not given.
    A check leaves PyTorch's random state on the CPU as it was. Raises CheckerError where `check` raises anything but
    `Hint`.
    """

    def register(check: Callable[..., str]) -> Callable[..., Verdict]:
        title = f"Exercise {number}"
        guard = functools.partial(_guarded, signature=signature, may_return_none=may_return_none)

        parameters = inspect.signature(check)

        def handing_in(count: int) -> str:
            names = list(parameters.parameters)
            several = " Numbers that belong together are one answer: put them into a pair or a list." * (
                len(names) == 1
            )
            arguments = f"{count} argument{'s' * (count != 1)}"
            return f"Hand it in as {check.__name__}({', '.join(names)}), and not with {arguments}.{several}"

        @functools.wraps(check)
        def checker(*answers: Any, **named: Any) -> Verdict:
            return _counted(judge(*answers, **named))

        def judge(*answers: Any, **named: Any) -> Verdict:
            given = [*answers, *named.values()]
            if not given or any(answer is None or answer is ... for answer in given):
                return Verdict(None, title, NO_ANSWER)
            if any(map(is_stub, given)):
                return Verdict(None, title, "Write the body in place of the three dots and run the cell again.")
            try:
                parameters.bind(*answers, **named)
            except TypeError:
                return Verdict(False, title, handing_in(len(given)))
            try:
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(_SEED)  # torch.manual_seed would seed the GPUs as well
                    by_name = {name: guard(answer) for name, answer in named.items()}
                    return Verdict(True, title, check(*map(guard, answers), **by_name))
            except Hint as hint:
                return Verdict(False, title, str(hint))
            except Exception as error:
                raise CheckerError(
                    f"The checker of exercise {number} failed, which says nothing about your answer. Please report it, "
                    "with your answer and the lines above."
                ) from error

        checker.signature = signature
        EXERCISES[number] = checker
        return checker

    return register


def _counted(verdict: Verdict) -> Verdict:
    """The verdict, after it has been kept among those that `checks.progress()` shows."""
    if verdict.passed is None:
        return verdict
    return replace(verdict, counted=progress.count(verdict.title, verdict.passed))


def _guarded(answer: Any, signature: str, may_return_none: bool) -> Any:
    """A learner's function that runs inside `call`; any other answer as it is."""
    is_function = callable(answer) and not isinstance(answer, torch.nn.Module)
    if not signature:
        return functools.partial(call, answer) if is_function and not isinstance(answer, type) else answer
    kind = type(answer).__name__
    expect(is_function, f"Hand in the function itself, to be called as {signature}; this is a {kind}.")

    def function(*given: Any, **named: Any) -> Any:
        result = call(answer, *given, **named)
        expect(result is not None or may_return_none, "Your function returned nothing: is there a return at its end?")
        return result

    return function


def call(code: Callable, *given: Any, **named: Any) -> Any:
    """What the learner's `code` (a function, class, module or method) returns; AnswerError if it raises."""
    try:
        return code(*given, **named)
    except Hint:  # from a stand-in that the checker handed over
        raise
    except (Exception, SystemExit) as error:
        raise AnswerError(error, code, given, named) from error


@contextmanager
def explained(kind: type | tuple[type, ...], hint: str, pattern: str = "") -> Iterator[None]:
    """Raise `Hint` with `hint` where the learner's code stops with an error of a `kind` whose text has the pattern."""
    try:
        yield
    except AnswerError as stopped:
        if isinstance(stopped.error, kind) and re.search(pattern, str(stopped.error)):
            raise Hint(f"{hint}\n{first_line(stopped, 200)}") from None
        raise


def expect(condition: bool, hint: str) -> None:
    """Raise `Hint(hint)` unless `condition` holds."""
    if not condition:
        raise Hint(hint)


def expect_kind(value: Any, kind: type | tuple[type, ...], what: str) -> None:
    """Raise `Hint` unless `value` is a `kind`, described by `what`, such as "A list of strings"."""
    expect(isinstance(value, kind), f"{what} is expected, not {type(value).__name__}.")


def read_number(value: Any, what: str = "Your result") -> float:
    """A number of any type, NumPy's included, or a tensor or array of one number. Raises `Hint` for anything else."""
    plain = _plain(value)
    try:
        return float("text" if isinstance(plain, bool | str | bytes) else plain)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Hint(f"{what} must be one number, not {type(value).__name__}.") from None


def read_integer(value: Any, what: str = "Your result") -> int:
    """An int, NumPy's included, or a tensor or array of one. Raises `Hint` for anything else, floats and bool too."""
    plain = _plain(value)
    whole = isinstance(plain, Integral) and not isinstance(plain, bool)
    expect(whole, f"{what} must be a whole number of type int, not {type(value).__name__}.")
    return int(plain)


def _plain(value: Any) -> Any:
    """The Python number in a NumPy number or in a tensor or array of one element; anything else as it is."""
    try:
        return value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):
        return value


def read_truth(value: Any, what: str = "True or False") -> bool:
    """A bool, NumPy's included, or a tensor or array of one. Raises `Hint` for anything else."""
    plain = _plain(value)
    expect(isinstance(plain, bool), f"{what} is expected, not {type(value).__name__}.")
    return plain


def read_share(value: Any, case: str) -> float:
    """A number from 0 to 1. Raises `Hint` for anything else, percent included."""
    share = read_number(value)
    expect(
        not 1 < share <= 100, f"{case} You get {share:.4g}: a share from 0 to 1 is expected, not percent or a count."
    )
    expect(0 <= share <= 1, f"{case} You get {share:.4g}, which is not a share from 0 to 1.")
    return share


def read_parts(value: Any, count: int, hint: str) -> list:
    """The `count` entries of a tuple, list, array or tensor. Raises `Hint(hint)` for anything else."""
    entries = value.tolist() if hasattr(value, "tolist") else value
    expect(isinstance(entries, tuple | list) and len(entries) == count, hint)
    return list(entries)


def read_numbers(value: Any, count: int, hint: str) -> list[float]:
    """The `count` numbers of a tuple, list, array or tensor. Raises `Hint` for anything else."""
    return [read_number(entry, f"{hint} Each of them") for entry in read_parts(value, count, hint)]


def read_tensor(value: Any, what: str = "A tensor") -> torch.Tensor:
    """A tensor of any dtype, an array, or lists of numbers, in float64. Raises `Hint` for anything else."""
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Hint(f"{what} is expected, not {type(value).__name__}.") from None
    expect(not tensor.is_complex(), f"{what} of real numbers is expected, not {tensor.dtype}.")
    return tensor.to(torch.float64)


def same(got: Any, expected: Any, rtol: float = RTOL, atol: float = ATOL) -> bool:
    """Whether two numbers or tensors agree in shape and values; exactly if `expected` is an int."""
    if isinstance(expected, int):
        return got == expected
    a, b = read_tensor(got), read_tensor(expected)
    return a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=atol)


def all_agree(
    got: Sequence[Any], expected: Sequence[Any], slips: Iterable[tuple[Iterable[Any], str]] = (), **tolerance: float
) -> bool:
    """Whether the results of all cases agree with what is expected of them, as `same` says.

    Where they do not, the first slip that explains every one of them raises `Hint`: `slips` has what a known mistake
    gives in each case, and its hint.
    """

    def agree(values: Iterable[Any]) -> bool:
        return all(same(result, value, **tolerance) for result, value in zip(got, values, strict=True))

    if agree(expected):
        return True
    for wrong, hint in slips:
        expect(not agree(wrong), hint)
    return False


def expect_tells_apart(
    right: Sequence[tuple[str, bool]], faulty: Sequence[tuple[str, bool]], thing: str, hints: Mapping[str, str]
) -> None:
    """Judge a learner's own test by what it accepted of right and of faulty things, each with a name.

    A test that refuses a right thing, or accepts a faulty one, raises `Hint`. `hints` has a sentence for a test that
    refuses all ("all refused"), for one that accepts all ("all accepted"), and a question on a faulty one ("missed");
    `exact` names what must be compared with a tolerance.
    """
    accepted = [name for name, passed in faulty if passed]
    everything = [passed for _, passed in (*right, *faulty)]
    expect(any(everything), f"You refuse every {thing}, the right ones too. {hints['all refused']}")
    expect(not all(everything), f"You accept every {thing}. {hints['all accepted']}")
    for name, passed in right:
        expect(passed, f"You refuse a right {thing}, {name}. Compare {hints['exact']} with a tolerance, not exactly.")
    caught = len(faulty) - len(accepted)
    expect(
        not accepted,
        f"You catch {caught} of {len(faulty)} faulty ones. One that you accept {accepted[0] if accepted else ''}. "
        f"{hints['missed']}",
    )


def copies(values: Iterable[Any]) -> list:
    """Arguments to hand to a learner's function: tensors are copied, so that what is changed in them does not count."""
    return [value.clone() if isinstance(value, torch.Tensor) else value for value in values]


def expect_close(
    got: Any,
    expected: float | torch.Tensor,
    case: str,
    slips: Sequence[tuple[Any, str]] = (),
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
    otherwise: str = "",
) -> None:
    """Raise `Hint` unless `got` agrees with `expected`, a number or a tensor (see `same`).

    `case` says what was tried. `slips` holds what known mistakes give, each with its hint: the first one that came out
    explains the answer. If none did, the message shows both sides, or says `otherwise` where that gives it away.
    """
    shape = tuple(expected.shape) if isinstance(expected, torch.Tensor) else None
    got = read_number(got) if shape is None else read_tensor(got, f"A tensor of shape {shape}")
    if same(got, expected, rtol, atol):
        return
    for wrong, hint in slips:
        expect(not same(got, wrong, rtol, atol), f"{case} {hint}".strip())
    if shape is not None:
        came = tuple(got.shape)
        expect(came == shape, f"Your result has shape {came}; shape {shape} is expected. {case}")
    if otherwise:
        raise Hint(f"{case} {otherwise}".strip())
    raise Hint(f"{case}\nexpected {brief(expected)}\ngot      {brief(got)}")


def brief(numbers: float | torch.Tensor, most: int = 6) -> str:
    """A number, or the first few of a tensor on one line."""
    if isinstance(numbers, torch.Tensor):
        shown = " ".join(f"{number:.4g}" for number in numbers.flatten()[:most].tolist())
        return shown + (" …" if numbers.numel() > most else "")
    return f"{numbers:,.0f}" if float(numbers).is_integer() else f"{numbers:.6g}"


@dataclass(frozen=True)
class Question:
    """A multiple-choice question: the letter of the right option, and for each option why it is right or wrong.

    The options' own words stand in the notebook.
    """

    text: str
    right: str
    options: Mapping[str, str]

    def __post_init__(self) -> None:
        if len(self.options) < FEWEST_OPTIONS:
            raise ValueError(f"{len(self.options)} options; at least {FEWEST_OPTIONS} are expected")
        if self.right not in self.options:
            raise ValueError(f"right={self.right!r} is none of the options {', '.join(self.options)}")
        if not self.text or not all(self.options.values()):
            raise ValueError("the question or an explanation is empty")


@functools.cache
def read_quiz(notebook: str) -> tuple[Question, ...]:
    """The questions of a notebook's self-test, from assets/quizzes/{notebook}.json. Raises ValueError if unusable."""
    path, questions = QUIZZES / f"{notebook}.json", []
    try:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            questions.append(Question(**entry))
        if not questions:
            raise ValueError("a list of questions is expected")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}, after {len(questions)} questions: {error}") from None
    return tuple(questions)


def self_test(chapter: str, notebook: str) -> Callable[..., Verdict]:
    """Make the grader of a notebook's closing questions: `self_test_3(q1="b", q2=None, ...)`.

    Every chosen option is explained, right or wrong.
    """

    def grader(*answers: str | None, **named: str | None) -> Verdict:
        questions = read_quiz(notebook)
        names = [f"q{number}" for number in range(1, len(questions) + 1)]
        given = dict(zip(names, answers, strict=False)) | named
        if len(answers) > len(names) or not set(given) <= set(names):
            raise TypeError(f"{grader.__name__} has the questions {', '.join(names)}")
        return _counted(grade(grader.title, questions, [given.get(name) for name in names]))

    grader.title = f"Self-test {chapter.upper() if len(chapter) == 1 else chapter}"
    grader.__name__ = grader.__qualname__ = f"self_test_{chapter}"
    SELF_TESTS[notebook] = grader
    return grader


def grade(title: str, questions: Sequence[Question], answers: Sequence[str | None]) -> Verdict:
    """Grade a self-test: every chosen option is explained, right or wrong."""
    if all(answer is None for answer in answers):
        return Verdict(None, title, "Replace each None with the letter of your answer and run the cell again.")
    lines, right = [], 0
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True), start=1):
        letter = re.sub(r"[\W_]", "", str(answer)).lower()  # "(b)" and "b." are b
        if answer is None:
            lines.append(f"{number}. Not answered yet.")
        elif letter not in question.options:
            lines.append(f"{number}. {answer!r} is not one of {', '.join(question.options)}.")
        else:
            right += letter == question.right
            lines.append(f"{number}. {'Yes' if letter == question.right else 'No'}: {question.options[letter]}")
    message = f"{right} of {len(questions)} right.\n" + "\n".join(lines)
    return Verdict(right == len(questions), title, message)
