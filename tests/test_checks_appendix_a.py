"""Appendix A's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
import torch.nn.functional as F

from helpers import checks
from tests import checkers

HERE = sys.version.split()[0]
TORCH = str(torch.__version__)


RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# A.1


RIGHT += [("A.1", f"{HERE} {TORCH}"), ("A.1", f"  {HERE} {TORCH}\n")]

WRONG += [
    ("A.1", f"3.6.1 {TORCH}", "terminal's Python is 3.6.1"),
    ("A.1", f"{HERE} 1.0.0", "PyTorch 1.0.0"),
    ("A.1", HERE, "Two versions"),
    ("A.1", "ModuleNotFoundError: No module named 'torch'", "has no PyTorch"),
    ("A.1", 2.13, "as a string"),
]


# A.2


def report(**changes):
    whole = {"python": [{"version": ".".join(map(str, sys.version_info[:3]))}], "packages": [], "devices": []}
    return {**whole, "data": [], "ready": True, "summary": "Ready", **changes}


RIGHT += [("A.2", report()), ("A.2", json.dumps(report(), indent=2) + "\n")]


def test_a_2_the_real_report():
    import setup_check

    whole = setup_check.collect("quick")
    verdict = checks.exercise_a_2(json.dumps(whole))
    assert verdict.passed is whole["ready"]
    assert whole["ready"] or whole["summary"] in verdict.message


WRONG += [
    ("A.2", report(ready=False, summary="Not ready: torch missing."), "found something. Not ready: torch missing."),
    ("A.2", report(python=[{"version": "3.6.1"}]), "Python 3.6.1"),
    ("A.2", report(python=[]), "nothing about Python"),
    ("A.2", {"ready": True}, "not a report of setup_check.py: it has no 'python', 'packages'"),
    ("A.2", "Ready (1 to note): `make lab` opens the course", "--json"),
    ("A.2", json.dumps(report())[:40], "complete"),
    ("A.2", "", "--json"),
    ("A.2", 0, "not int"),
]


# A.3


RIGHT += [("A.3", 752)]

WRONG += [
    ("A.3", 700, "weights"),
    ("A.3", 52, "biases alone"),
    ("A.3", 2213, "NeuralNetwork(50, 3)"),
    ("A.3", 6, "number of tensors"),
    ("A.3", 600, "one matrix"),
    ("A.3", 753, "Not yet"),
    ("A.3", 752.0, "not float"),
    ("A.3", True, "not bool"),
]


# A.4


def winning(cpu, gpu, bus, launch, operations=2, moved=12, most=20_000):
    for n in range(1, most + 1):
        if launch + moved * n**2 / bus + operations * n**3 / gpu < operations * n**3 / cpu:
            return n
    return None


RIGHT += [("A.4", winning)]

WRONG += [
    ("A.4", lambda *machine: winning(*machine, operations=1), "2n³"),
    ("A.4", lambda *machine: winning(*machine, moved=8), "fewer"),
    ("A.4", lambda *machine: winning(*machine, moved=4), "moved one"),
    ("A.4", lambda *machine: winning(*machine, moved=16), "moved more"),
    ("A.4", lambda *machine: winning(*machine, moved=3), "4 bytes"),
    ("A.4", lambda *machine: winning(*machine, moved=24), "not of 8"),
    ("A.4", lambda *machine: winning(*machine, moved=0), "moving them takes time"),
    ("A.4", lambda cpu, gpu, bus, launch: winning(cpu, gpu, bus, 0.0), "launch"),
    ("A.4", lambda *machine: winning(*machine) or 20_000, "None is expected"),
    ("A.4", lambda *machine: None, "Some n does win"),
    ("A.4", lambda *machine: 100, "expected"),
    ("A.4", lambda *machine: str(winning(*machine)), "not str"),
]


# A.5


def strides(shape):
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


RIGHT += [("A.5", strides), ("A.5", lambda shape: list(strides(shape)))]

WRONG += [
    ("A.5", lambda shape: strides(shape)[::-1], "wrong order"),
    ("A.5", lambda shape: tuple(4 * stride for stride in strides(shape)), "bytes"),
    ("A.5", lambda shape: tuple(math.prod(shape[:k]) for k in range(len(shape))), "column"),
    ("A.5", lambda shape: tuple(math.prod(shape[k:]) for k in range(len(shape))), "without its own"),
    ("A.5", lambda shape: shape, "How many numbers"),
    ("A.5", lambda shape: strides(shape)[1:], "one stride for each"),
    ("A.5", lambda shape: 3, "not int"),
]


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


RIGHT += [("A.6", broadcast)]

WRONG += [
    ("A.6", lambda a, b: broadcast(a, b) or (0,), "do not fit"),
    ("A.6", lambda a, b: None, "do fit"),
    ("A.6", lambda a, b: a if len(a) < len(b) else b, "as many dimensions"),
    ("A.6", flush_left, "lush right"),
    ("A.6", lambda a, b: "(3, 4)", "tuple of sizes"),
    ("A.6", lambda a, b: a if a == b else None, "do fit"),
]


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


RIGHT += [("A.7", gradients)]

WRONG += [
    ("A.7", lambda *data: gradients(*data, mean=False), "mean"),
    ("A.7", lambda *data: gradients(*data, sign=-1), "sign"),
    ("A.7", lambda *data: gradients(*data, sigmoid=False), "sigmoid is missing"),
    ("A.7", lambda *data: gradients(*data, slope=True), "a(1 − a)"),
    ("A.7", lambda X, y, w, b: (gradients(X, y, w, b)[1].expand(len(w)), gradients(X, y, w, b)[1]), "its features"),
    ("A.7", lambda *data: gradients(*data)[0], "Two tensors"),
    ("A.7", lambda *data: (gradients(*data)[0], torch.tensor(0.5)), "mean slope"),
    ("A.7", lambda *data: (gradients(*data)[0][None], gradients(*data)[1]), "shape"),
]


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


RIGHT += [("A.8", step)]

WRONG += [
    ("A.8", without_emptying, "something from before"),
    ("A.8", emptied_too_late, "emptied after backward"),
    ("A.8", no_step, "no parameter has moved"),
    ("A.8", step_first, "step is taken before"),
    ("A.8", on_probabilities, "logits"),
    ("A.8", as_tensor, "whole graph stays"),
    ("A.8", after_the_step, "before the step"),
    ("A.8", nothing, "returned nothing"),
]


GIVEAWAYS = {"A.3": ["752"], "A.8": ["zero_grad()", ".item()"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))
