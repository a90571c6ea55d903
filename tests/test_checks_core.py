"""What all checkers share: answers that are missing, of the wrong kind or stop; errors of a checker; quizzes."""

from __future__ import annotations

import json
import re
from fractions import Fraction

import nbformat
import numpy as np
import pytest
import torch

from helpers.course import checks
from helpers.course.checks import _core
from helpers.course.checks._core import (
    QUIZZES,
    AnswerError,
    CheckerError,
    Hint,
    call,
    exercise,
    expect,
    expect_close,
    read_integer,
    read_number,
    read_numbers,
    read_parts,
    read_quiz,
    read_share,
    read_tensor,
    same,
)
from tests.checkers import fails
from tests.notebooks import ROOT, SOLUTIONS

FUNCTIONS = [number for number, checker in checks.EXERCISES.items() if checker.signature]
VALUES = sorted(set(checks.EXERCISES) - set(FUNCTIONS))
# Exercises whose functions may return None, at least now and then.
GIVE_NONE = {"1.A", "3.1", "7.4", "7.C", "A.4", "A.B", "B.1", "D.6", "flops.3", "memory.1", "reasoning.1"}

STRANGE = {  # none of which is a right answer to any exercise
    "nothing in it": [],
    "a text": "x",
    "a list": [1, 2],
    "lists": [[1], [2, 3]],
    "a list of None": [None, None],
    "a pair": (1, 2),
    "three texts": ("a", "b", "c"),
    "a dictionary": {"a": None},
    "a set": {1},
    "an int": 3,
    "a huge int": 10**400,
    "below 0": -1,
    "true": True,
    "not a number": float("nan"),
    "infinity": float("inf"),
    "a complex number": 1j,
    "a tensor of one number": torch.tensor(2.0),
    "an empty tensor": torch.zeros(0),
    "a 3-d tensor": torch.zeros(2, 3, 4),
    "NaN in a tensor": torch.full((4, 4), float("nan")),
    "truth values": torch.ones(4, dtype=torch.bool),
    "tensors": (torch.ones(2), torch.ones(3)),
    "an array": np.ones((3, 3)),
    "an array of objects": np.array([None, "a"], dtype=object),
    "a NumPy number": np.float32(3),
    "a module": torch.nn.Linear(2, 2),
    "a class": dict,
    "a function": len,
}


@pytest.fixture
def made():
    """The decorator `exercise`, whose checkers are forgotten after the test."""
    before = dict(checks.EXERCISES)
    yield exercise
    checks.EXERCISES.clear()
    checks.EXERCISES.update(before)


# ---- answers of every kind, to all checkers ------------------------------------------------------------------------


def test_names():
    for number, checker in checks.EXERCISES.items():
        assert checker is getattr(checks, "exercise_" + number.lower().replace(".", "_"))
    assert len(FUNCTIONS) > len(VALUES) > 0


@pytest.mark.parametrize("number", checks.EXERCISES)
def test_no_answer_is_no_verdict(number):
    checker = checks.EXERCISES[number]
    text = f"Exercise {number}: no answer yet. {_core.NO_ANSWER}"
    for verdict in (checker(None), checker(...), checker(answer=None), checker()):
        assert verdict.passed is None and repr(verdict) == text


@pytest.mark.parametrize("number", FUNCTIONS)
def test_a_stub_is_no_answer(number):
    def stub(*_): ...

    def documented(*_):
        """What it will do."""

    for answer in (stub, documented, lambda *_: None):
        assert checks.EXERCISES[number](answer).passed is None


def test_stubs():
    class Begun:
        def __init__(self): ...

        def forward(self, x):
            return x

    class Stub:
        def __init__(self): ...

        def forward(self, x): ...

    class Empty(torch.nn.Module): ...

    assert _core.is_stub(Stub)
    for other in (Begun, Empty, dict, len, torch.nn.Linear(1, 1), lambda: 0, lambda x: x, print, 3):
        assert not _core.is_stub(other)


@pytest.mark.parametrize("number", FUNCTIONS)
def test_a_value_in_place_of_a_function(number):
    signature = checks.EXERCISES[number].signature
    for value in (3, torch.zeros(2), torch.nn.Linear(1, 1)):
        fails(checks.EXERCISES[number](value), "function itself", signature, type(value).__name__)


@pytest.mark.parametrize("number", FUNCTIONS)
def test_an_error_in_the_learners_function_is_a_verdict(number):
    def broken(*_):
        raise RuntimeError("out of flour")

    def leaves(*_):
        raise SystemExit("enough")

    fails(checks.EXERCISES[number](broken), "stopped with RuntimeError", "out of flour")
    fails(checks.EXERCISES[number](leaves), "stopped with SystemExit: enough")
    fails(checks.EXERCISES[number](lambda: 3), "stopped with TypeError", "positional argument")  # none is expected


@pytest.mark.parametrize("number", FUNCTIONS)
def test_a_function_that_returns_nothing(number):
    def silent(*given):
        list(given)

    verdict = checks.EXERCISES[number](silent)
    fails(verdict)
    assert ("is there a return at its end" in verdict.message) is (number not in GIVE_NONE)


@pytest.mark.parametrize("number", FUNCTIONS)
def test_strange_results_are_the_learners_mistake(number):
    for result in STRANGE.values():
        fails(checks.EXERCISES[number](lambda *_, result=result: result))


@pytest.mark.parametrize("number", VALUES)
def test_strange_answers_are_the_learners_mistake(number):
    others = (torch.nn.Linear(2, 2), [3, 1, 4]) if number == "5.5" else ()  # model and loaders, of no use here
    for answer in STRANGE.values():
        for form in (answer, (answer, answer), [answer] * 3, {"355M": answer, "contract": answer, "python": answer}):
            fails(checks.EXERCISES[number](form, *others[:1], *others[1:] * 2))


# ---- whose error it is ---------------------------------------------------------------------------------------------


def bug():
    return {}["a key that a checker lacks"]


def test_an_error_of_the_checker_is_not_the_learners(made):
    @made("99.1", "double(x)")
    def exercise_99_1(answer):
        answer(2)
        bug()

    with pytest.raises(CheckerError, match=r"checker of exercise 99\.1 failed, .* nothing about your answer") as caught:
        exercise_99_1(lambda x: 2 * x)
    assert isinstance(caught.value.__cause__, KeyError)  # with the lines that a report needs
    fails(exercise_99_1(lambda x: x / 0), "ZeroDivisionError")  # the learner's error comes first


def test_an_error_of_the_checker_before_the_answer_is_used(made):
    @made("99.2")
    def exercise_99_2(answer):
        bug()

    for answer in (3, len, [1], torch.nn.Linear(1, 1)):
        with pytest.raises(CheckerError):
            exercise_99_2(answer)


def test_a_wrong_number_of_answers(made):
    @made("99.6")
    def exercise_99_6(answer):
        return "Right."

    @made("99.7")
    def exercise_99_7(answer, model, *, loader=None):
        return "Right."

    several = "Hand it in as exercise_99_6(answer), and not with 2 arguments. Numbers that belong together are one"
    fails(exercise_99_6(1, 2), several)
    assert exercise_99_6((1, 2)) and exercise_99_7(1, model=2) and exercise_99_7(1, 2, loader=3)
    hint = "Hand it in as exercise_99_7(answer, model, loader), and not with 1 argument."
    assert exercise_99_7(1).message == exercise_99_7(modle=1).message == hint
    assert exercise_99_6(1, None).passed is None


def test_functions_without_a_signature_and_named_answers(made):
    @made("99.3")
    def exercise_99_3(answer):
        return f"It is {answer(1)}."

    assert exercise_99_3(lambda x: x).message == "It is 1."
    fails(exercise_99_3(lambda x: x / 0), "ZeroDivisionError")
    fails(exercise_99_3(answer=lambda x: x / 0), "ZeroDivisionError")


def test_what_a_stand_in_says_reaches_the_learner(made):
    """A hint raised in a model that the checker hands over passes through the learner's function."""

    @made("99.4", "ask(model)")
    def exercise_99_4(answer):
        def model(tokens):
            expect(tokens < 3, "too many tokens")
            return tokens

        return f"It is {answer(model)}."

    assert exercise_99_4(lambda model: model(2))
    assert exercise_99_4(lambda model: model(3)).message == "too many tokens"


def test_call():
    assert call(divmod, 7, 2) == (3, 1)
    with pytest.raises(AnswerError, match="stopped with ZeroDivisionError") as caught:
        call(divmod, 7, 0)
    assert isinstance(caught.value.error, ZeroDivisionError)
    with pytest.raises(KeyboardInterrupt):
        call(lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_an_error_names_line_and_call():
    """Of the learner's own code, also where a library that it called raised the error."""

    def first(text, *, count):
        return torch.zeros(2)[count]

    message = hint(call, first, "a b", count=7)
    line = first.__code__.co_firstlineno + 1
    assert "IndexError: index 7 is out of bounds" in message
    assert message.endswith(f", in line {line}: `return torch.zeros(2)[count]`, when called as first('a b', count=7).")

    class Layer(torch.nn.Module):
        def forward(self, x):
            return x @ x

    message = hint(call, Layer(), torch.zeros(3, 4))
    assert "in line " in message and ": `return x @ x`, when called as Layer(<tensor of shape (3, 4)>)." in message
    assert hint(call, divmod, 1, 0).endswith(", when called as divmod(1, 0).")
    assert len(hint(call, divmod, "x" * 1000, 0)) < 250


def test_random_states_are_left_alone_whatever_the_learner_draws(made):
    @made("99.5", "draw()")
    def exercise_99_5(answer):
        return f"{answer():.6f} {torch.rand(1).item():.6f}"

    state = torch.get_rng_state()
    first = exercise_99_5(lambda: torch.rand(1).item())
    torch.rand(5)
    assert exercise_99_5(lambda: torch.rand(1).item()) == first  # the same draws each time
    torch.set_rng_state(state)
    exercise_99_5(lambda: torch.manual_seed(7) and torch.rand(1).item())
    assert torch.equal(torch.get_rng_state(), state)


# ---- reading and comparing -----------------------------------------------------------------------------------------


def hint(function, *given, **named) -> str:
    with pytest.raises(Hint) as caught:
        function(*given, **named)
    return str(caught.value)


def test_numbers():
    sevens = (7, 7.0, np.int64(7), np.float32(7), np.array([7]), torch.tensor(7), torch.tensor([[7.0]]), Fraction(7))
    for seven in sevens:
        assert read_number(seven) == 7.0 and type(read_number(seven)) is float
    for other in ("7", b"7", True, np.bool_(True), None, [7], (7,), {}, 7j, torch.zeros(2), np.zeros(0), 10**400):
        assert type(other).__name__ in hint(read_number, other)
    assert "The norm must be one number, not str" in hint(read_number, "7", "The norm")


def test_integers():
    for seven in (7, np.int64(7), torch.tensor(7), np.array([7])):
        assert read_integer(seven) == 7 and type(read_integer(seven)) is int
    for other in (7.0, True, "7", None, torch.tensor(7.0), torch.tensor(True), float("nan"), [7], torch.ones(2)):
        assert "whole number of type int" in hint(read_integer, other)


def test_shares():
    assert [read_share(share, "") for share in (0, 1, 0.25, torch.tensor(0.5))] == [0.0, 1.0, 0.25, 0.5]
    for percent in (1.5, 87, 100):
        assert "not percent" in hint(read_share, percent, "")
    for other in (-0.1, 101, float("nan"), float("inf")):
        assert "not a share from 0 to 1" in hint(read_share, other, "")


def test_parts():
    for pair in ((1, 2), [1, 2], np.array([1, 2]), torch.tensor([1, 2])):
        assert read_parts(pair, 2, "two") == [1, 2]
        assert read_numbers(pair, 2, "two") == [1.0, 2.0]
    for other in ((1,), (1, 2, 3), "ab", {1: 2, 3: 4}, {1, 2}, 12, None, torch.tensor(12)):
        assert hint(read_parts, other, 2, "Two are expected.") == "Two are expected."
        assert "Two are expected." in hint(read_numbers, other, 2, "Two are expected.")
    assert "Two are expected." in hint(read_numbers, (1, "b"), 2, "Two are expected.")


def test_tensors():
    leaf = torch.ones(2, requires_grad=True)
    for numbers in ([1, 2], (1.0, 2.0), np.array([1, 2]), torch.tensor([1, 2]), leaf.cumsum(0)):
        assert torch.equal(read_tensor(numbers), torch.tensor([1.0, 2.0], dtype=torch.float64))
    for other in ("ab", {}, None, [[1], [2, 3]], [None], [10**400]):
        assert type(other).__name__ in hint(read_tensor, other)
    assert "complex64" in hint(read_tensor, torch.ones(2, dtype=torch.complex64))


def test_agreement():
    assert same(0.26668, 0.26666) and not same(0.27, 0.26666) and not same(0.26668, 0.26666, rtol=0, atol=1e-6)
    assert same(1_000_000.0, 1_000_000) and not same(1_000_001, 1_000_000)  # whole numbers agree exactly
    assert same(torch.ones(2), torch.ones(2).double()) and not same(torch.ones(2), torch.ones(1, 2))
    assert not same(torch.tensor(float("nan")), torch.tensor(float("nan")))


def test_slips_explain_an_answer():
    slips = [(4.0, "You added."), (9.0, "You squared.")]
    expect_close(6, 6.0, "For 3:", slips)
    expect_close(torch.tensor(6.0005), 6.0, "For 3:", slips)
    assert hint(expect_close, 9, 6.0, "For 3:", slips) == "For 3: You squared."
    assert hint(expect_close, 7.5, 6.0, "For 3:", slips) == "For 3:\nexpected 6\ngot      7.5"
    assert hint(expect_close, 7.5, 6.0, "For 3:", slips, otherwise="Think of 3.") == "For 3: Think of 3."
    assert hint(expect_close, 1_234_568, 1_234_567, "Now.") == "Now.\nexpected 1,234,567\ngot      1,234,568"
    assert "must be one number" in hint(expect_close, "6", 6.0, "For 3:")


def test_slips_of_tensors_may_have_another_shape():
    right, slips = torch.tensor([1.0, 2.0]), [(torch.tensor(3.0), "You added them up.")]
    expect_close([1, 2], right, "Here.", slips)
    assert hint(expect_close, 3, right, "Here.", slips) == "Here. You added them up."
    assert hint(expect_close, [[1, 2]], right, "Here.", slips).startswith("Your result has shape (1, 2); shape (2,) is")
    assert hint(expect_close, [1, 3], right, "Here.", slips) == "Here.\nexpected 1 2\ngot      1 3"
    assert hint(expect_close, "12", right, "Here.") == "A tensor of shape (2,) is expected, not str."
    assert hint(expect_close, torch.zeros(9), torch.ones(9), "").endswith("got      0 0 0 0 0 0 …")


# ---- the self-tests ------------------------------------------------------------------------------------------------


def test_every_quiz_belongs_to_a_notebook_and_every_notebook_has_one():
    files = {path.stem for path in QUIZZES.iterdir()}
    assert files == set(checks.SELF_TESTS)
    assert files == {checker.__module__.rsplit(".", 1)[1] for checker in checks.EXERCISES.values()}
    for grader in checks.SELF_TESTS.values():
        assert grader is getattr(checks, grader.__name__)
    assert checks.self_test_3.__name__ == "self_test_3" and checks.SELF_TESTS["ch03"] is checks.self_test_3


@pytest.mark.parametrize("notebook", checks.SELF_TESTS)
def test_quizzes_explain_every_option(notebook):
    """One option per question is right, each is explained, and a self-test passes with all the right ones only."""
    grader, questions = checks.SELF_TESTS[notebook], read_quiz(notebook)
    title = grader.__name__.removeprefix("self_test_")
    right = [question.right for question in questions]
    assert len(questions) >= 3 and len(set(right)) > 1
    assert grader().passed is grader(q1=None).passed is None
    assert grader(*right).passed is True and f"{len(right)} of {len(right)} right" in grader(*right).message
    assert grader(*right).title == f"Self-test {title.upper() if len(title) == 1 else title}"
    assert grader(*[f" {letter.upper()} " for letter in right]).passed is True
    for place, question in enumerate(questions):
        assert len(question.options) >= 3 and "".join(question.options) == "abcdef"[: len(question.options)]
        for letter, why in question.options.items():
            assert len(why) > 30 and len(why.split()) >= 8
            good = letter == question.right
            line = f"{place + 1}. {'Yes' if good else 'No'}: {why}"
            alone = grader(**{f"q{place + 1}": letter})
            assert alone.passed is False and line in alone.message and "Not answered yet" in alone.message
            assert alone.message.startswith(f"{int(good)} of {len(right)} right.")
            among = grader(*right[:place], letter, *right[place + 1 :])
            assert among.passed is good and line in among.message
    fails(grader(*right[:-1], "z"), f"{len(right)}. 'z' is not one of a, b, c")
    for given, named in [(["a"] * (len(right) + 1), {}), ([], {"q9": "a"}), ([], {"Q1": "a"})]:
        with pytest.raises(TypeError, match=f"{grader.__name__} has the questions q1, "):
            grader(*given, **named)


def test_quizzes_have_the_answers_of_the_notebook_of_solutions():
    """Every self-test is called there, with the letter of each of its questions, and passes."""
    cells = nbformat.read(ROOT / "notebooks" / SOLUTIONS, as_version=4).cells
    calls = [cell.source for cell in cells if re.match(r"checks\.self_test_\w+\(", cell.source)]
    verdicts = [eval(call, {"checks": checks}) for call in calls]
    assert len(verdicts) == len(checks.SELF_TESTS) == len({verdict.title for verdict in verdicts})
    assert all(verdict.passed for verdict in verdicts)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda quiz: quiz[1].update(right="d"), "after 1 questions: right='d' is none of the options a, b, c"),
        (lambda quiz: quiz[1]["options"].pop("a"), "after 1 questions: 2 options; at least 3"),
        (lambda quiz: quiz[0].update(text=""), "after 0 questions: the question or an explanation is empty"),
        (lambda quiz: quiz[0]["options"].update(c=""), "an explanation is empty"),
        (lambda quiz: quiz[0].pop("right"), "right"),
        (lambda quiz: quiz[0].update(hint="x"), "hint"),
        (lambda quiz: quiz.append("x"), "after 5 questions"),
        (lambda quiz: quiz.clear(), "a list of questions is expected"),
    ],
)
def test_an_unusable_quiz_is_named(change, words, tmp_path, monkeypatch):
    quiz = json.loads((QUIZZES / "ch03.json").read_text(encoding="utf-8"))
    change(quiz)
    monkeypatch.setattr(_core, "QUIZZES", tmp_path)
    (tmp_path / "sample.json").write_text(json.dumps(quiz), encoding="utf-8")
    with pytest.raises(ValueError, match=r"sample\.json") as caught:
        read_quiz("sample")
    assert words in str(caught.value)


def test_a_damaged_quiz_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(_core, "QUIZZES", tmp_path)
    (tmp_path / "sample.json").write_text('[{"text": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"sample\.json, after 0 questions"):
        read_quiz("sample")


# ---- verdicts ------------------------------------------------------------------------------------------------------


def test_verdicts_read_as_text_and_as_html():
    verdict = checks.Verdict(False, "Exercise 9.1", "a < b\nand more")
    assert repr(verdict) == "Exercise 9.1: not yet. a < b\nand more"
    html = verdict._repr_html_()
    assert "a &lt; b<br>and more" in html and "#D55E00" in html and "Exercise 9.1: not yet." in html
    assert [bool(checks.Verdict(passed, "", "")) for passed in (True, False, None)] == [True, False, False]


def test_right_and_wrong_differ_by_more_than_colour():
    right, wrong, none = (checks.Verdict(passed, "Exercise 9.1", "x")._repr_html_() for passed in (True, False, None))
    assert "✓" in right and "✗" in wrong and "✓" not in none and "✗" not in none
    assert "background: rgba(0, 158, 115, 0.15)" in right and "background: rgba(213, 94, 0, 0.15)" in wrong


def test_results_stand_under_one_another():
    message = hint(expect_close, 7.5, 1_234_567, "For  3:", otherwise="")
    html = checks.Verdict(False, "Exercise 9.1", message)._repr_html_()
    assert ">expected 1,234,567\ngot      7.5</pre>" in html and "For&nbsp;&nbsp;3:<pre" in html
    html = checks.Verdict(False, "Exercise 9.1", "expected is less than got, says\nexpected 1 <b>\ngot 2\nNow.")
    assert ">expected 1 &lt;b&gt;\ngot 2</pre>Now.</div>" in html._repr_html_()


def test_nothing_is_escaped_away():
    """Signs that HTML, Markdown or MathJax would take for their own."""
    message = "`x < y` costs $5 or $6, <script> & *stars* _here_"
    html = checks.Verdict(True, "Exercise 9.1", message)._repr_html_()
    assert "<code>x &lt; y</code>" in html and "&lt;script&gt; &amp; *stars* _here_" in html
    assert html.count('<span class="mathjax_ignore">$</span>') == 2
