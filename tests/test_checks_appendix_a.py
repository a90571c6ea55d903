"""Appendix A's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F

from helpers import checks
from helpers.course.checks import appendix_a
from tests.checkers import fails

HERE = sys.version.split()[0]
TORCH = str(torch.__version__)


@pytest.mark.parametrize("number", range(1, 9))
def test_no_answer_is_no_failure(number):
    assert getattr(checks, f"exercise_a_{number}")(None).passed is None
    assert checks.EXERCISES[f"A.{number}"](...).passed is None


@pytest.mark.parametrize("number", range(4, 9))
def test_a_value_in_place_of_a_function(number):
    fails(getattr(checks, f"exercise_a_{number}")(3), "function itself")


@pytest.mark.parametrize("number", range(4, 9))
def test_the_seed_is_left_alone(number):
    answers = {4: winning, 5: strides, 6: broadcast, 7: gradients, 8: step}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert getattr(checks, f"exercise_a_{number}")(answers[number])
    assert torch.equal(state, torch.get_rng_state())


# A.1


def test_a_1_right():
    assert checks.exercise_a_1(f"{HERE} {TORCH}")
    assert checks.exercise_a_1(f"  {HERE} {TORCH}\n")


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (f"3.6.1 {TORCH}", "terminal's Python is 3.6.1"),
        (f"{HERE} 1.0.0", "PyTorch 1.0.0"),
        (HERE, "Two versions"),
        ("ModuleNotFoundError: No module named 'torch'", "has no PyTorch"),
        (2.13, "as a string"),
    ],
)
def test_a_1_wrong(answer, word):
    fails(checks.exercise_a_1(answer), word)


# A.2


def report(**changes):
    whole = {"python": [{"version": ".".join(map(str, sys.version_info[:3]))}], "packages": [], "devices": []}
    return {**whole, "data": [], "ready": True, "summary": "Ready", **changes}


def test_a_2_right():
    assert checks.exercise_a_2(report())
    assert checks.exercise_a_2(json.dumps(report(), indent=2) + "\n")


def test_a_2_the_real_report():
    import setup_check

    whole = setup_check.collect("quick")
    verdict = checks.exercise_a_2(json.dumps(whole))
    assert verdict.passed is whole["ready"]
    assert whole["ready"] or whole["summary"] in verdict.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (report(ready=False, summary="Not ready: torch missing."), ["found something", "torch missing"]),
        (report(python=[{"version": "3.6.1"}]), ["Python 3.6.1"]),
        (report(python=[]), ["nothing about Python"]),
        ({"ready": True}, ["not a report", "'packages'"]),
        ("Ready (1 to note): `make lab` opens the course", ["--json"]),
        (json.dumps(report())[:40], ["complete"]),
        ("", ["--json"]),
        (0, ["not a int"]),
    ],
)
def test_a_2_wrong(answer, words):
    fails(checks.exercise_a_2(answer), *words)


# A.3


def test_a_3_right():
    assert checks.exercise_a_3(752)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (700, "weights"),
        (52, "biases alone"),
        (2213, "NeuralNetwork(50, 3)"),
        (6, "number of tensors"),
        (600, "one matrix"),
        (753, "Not yet"),
        (752.0, "not float"),
        (True, "not bool"),
    ],
)
def test_a_3_wrong(answer, word):
    verdict = checks.exercise_a_3(answer)
    fails(verdict, word)
    assert "752" not in verdict.message


# A.4


def winning(cpu, gpu, bus, launch, operations=2, moved=12, most=20_000):
    for n in range(1, most + 1):
        if launch + moved * n**2 / bus + operations * n**3 / gpu < operations * n**3 / cpu:
            return n
    return None


def test_a_4_right():
    assert checks.exercise_a_4(winning)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda *machine: winning(*machine, operations=1), "2n³"),
        (lambda *machine: winning(*machine, moved=8), "fewer"),
        (lambda *machine: winning(*machine, moved=4), "moved one"),
        (lambda *machine: winning(*machine, moved=16), "moved more"),
        (lambda *machine: winning(*machine, moved=3), "4 bytes"),
        (lambda *machine: winning(*machine, moved=24), "not of 8"),
        (lambda *machine: winning(*machine, moved=0), "moving them takes time"),
        (lambda cpu, gpu, bus, launch: winning(cpu, gpu, bus, 0.0), "launch"),
        (lambda *machine: winning(*machine) or 20_000, "None is wanted"),
        (lambda *machine: None, "Some n does win"),
        (lambda *machine: 100, "is expected"),
        (lambda *machine: str(winning(*machine)), "not str"),
    ],
)
def test_a_4_wrong(wrong, word):
    fails(checks.exercise_a_4(wrong), word)


# A.5


def strides(shape):
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


def test_a_5_right():
    assert checks.exercise_a_5(strides)
    assert checks.exercise_a_5(lambda shape: list(strides(shape)))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda shape: strides(shape)[::-1], "wrong order"),
        (lambda shape: tuple(4 * stride for stride in strides(shape)), "bytes"),
        (lambda shape: tuple(math.prod(shape[:k]) for k in range(len(shape))), "column"),
        (lambda shape: tuple(math.prod(shape[k:]) for k in range(len(shape))), "without its own"),
        (lambda shape: shape, "How many numbers"),
        (lambda shape: strides(shape)[1:], "one stride for each"),
        (lambda shape: 3, "not int"),
    ],
)
def test_a_5_wrong(wrong, word):
    fails(checks.exercise_a_5(wrong), word)


# A.6


def broadcast(a, b):
    dims = max(len(a), len(b))
    a, b = (1,) * (dims - len(a)) + tuple(a), (1,) * (dims - len(b)) + tuple(b)
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b)):  # noqa: B905
        return None
    return tuple(max(m, n) for m, n in zip(a, b))  # noqa: B905


def flush_left(a, b):
    dims = max(len(a), len(b))
    a, b = tuple(a) + (1,) * (dims - len(a)), tuple(b) + (1,) * (dims - len(b))
    return None if any(m != n and 1 not in (m, n) for m, n in zip(a, b)) else tuple(map(max, a, b))  # noqa: B905


def test_a_6_right():
    assert checks.exercise_a_6(broadcast)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda a, b: broadcast(a, b) or (0,), "do not fit"),
        (lambda a, b: None, "do fit"),
        (lambda a, b: a if len(a) < len(b) else b, "as many dimensions"),
        (flush_left, "lush right"),
        (lambda a, b: "(3, 4)", "tuple of sizes"),
        (lambda a, b: a if a == b else None, "do fit"),
    ],
)
def test_a_6_wrong(wrong, word):
    fails(checks.exercise_a_6(wrong), word)


def test_a_6_the_cases_hold_both_kinds():
    seen = []

    def watch(a, b):
        seen.append(broadcast(a, b))
        return seen[-1]

    assert checks.exercise_a_6(watch)
    assert 3 <= sum(shape is None for shape in seen) <= len(seen) - 10


# A.7


def gradients(X, y, w, b, mean=True, sign=1, sigmoid=True, slope=False):
    a = torch.sigmoid(X @ w + b) if sigmoid else X @ w + b
    residual = sign * (a - y) * (a * (1 - a) if slope else 1)
    return X.T @ residual / (len(y) if mean else 1), residual.mean() if mean else residual.sum()


def test_a_7_right():
    assert checks.exercise_a_7(gradients)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda *data: gradients(*data, mean=False), "mean"),
        (lambda *data: gradients(*data, sign=-1), "sign"),
        (lambda *data: gradients(*data, sigmoid=False), "sigmoid is missing"),
        (lambda *data: gradients(*data, slope=True), "a(1 − a)"),
        (lambda X, y, w, b: (gradients(X, y, w, b)[1].expand(len(w)), gradients(X, y, w, b)[1]), "its features"),
        (lambda *data: gradients(*data)[0], "Two tensors"),
        (lambda *data: (gradients(*data)[0], torch.tensor(0.5)), "mean slope"),
        (lambda *data: (gradients(*data)[0][None], gradients(*data)[1]), "shape"),
    ],
)
def test_a_7_wrong(wrong, word):
    fails(checks.exercise_a_7(wrong), word)


# A.8


def step(model, features, labels, optimizer):
    loss = F.cross_entropy(model(features), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def without_emptying(model, features, labels, optimizer):
    loss = F.cross_entropy(model(features), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def emptied_too_late(model, features, labels, optimizer):
    loss = F.cross_entropy(model(features), labels)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def no_step(model, features, labels, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(features), labels)
    loss.backward()
    return loss.item()


def step_first(model, features, labels, optimizer):
    loss = F.cross_entropy(model(features), labels)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def on_probabilities(model, features, labels, optimizer):
    return step(lambda x: torch.softmax(model(x), dim=1), features, labels, optimizer)


def as_tensor(model, features, labels, optimizer):
    loss = F.cross_entropy(model(features), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def after_the_step(model, features, labels, optimizer):
    step(model, features, labels, optimizer)
    return F.cross_entropy(model(features), labels).item()


def nothing(model, features, labels, optimizer):
    step(model, features, labels, optimizer)


def test_a_8_right():
    assert checks.exercise_a_8(step)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (without_emptying, "something from before"),
        (emptied_too_late, "emptied after backward"),
        (no_step, "no parameter has moved"),
        (step_first, "step is taken before"),
        (on_probabilities, "logits"),
        (as_tensor, "whole graph stays"),
        (after_the_step, "before the step"),
        (nothing, "not NoneType"),
    ],
)
def test_a_8_wrong(wrong, word):
    verdict = checks.exercise_a_8(wrong)
    fails(verdict, word)
    assert "zero_grad()" not in verdict.message
    assert ".item()" not in verdict.message


# the closing questions


def test_self_test():
    assert checks.self_test_a(q1="c", q2="b", q3="c", q4="a", q5="a")
    assert checks.self_test_a(q1=None, q2=None, q3=None, q4=None, q5=None).passed is None
    half = checks.self_test_a(q1="a", q2="b")
    assert half.passed is False
    assert "1 of 5 right" in half.message


def test_every_option_is_explained():
    for question in appendix_a._QUESTIONS:
        assert sorted(question.options) == ["a", "b", "c"]
        assert sum(right for right, _ in question.options.values()) == 1
        assert all(len(why.split()) > 5 for _, why in question.options.values())
