"""The checkers of chapter 7: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import re

import pytest
import torch

from helpers import checks, replace_linear_with_lora
from helpers.course.checks import ch07
from helpers.instructions import format_input, format_phi3
from tests.checkers import fails


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5])
def test_no_answer_is_no_failure(number):
    assert getattr(checks, f"exercise_7_{number}")(None).passed is None
    assert checks.EXERCISES[f"7.{number}"](...).passed is None


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_value_in_place_of_a_function(number):
    fails(getattr(checks, f"exercise_7_{number}")(3), "function itself")


# 7.0

TARGETS = [[11, 12, 13, 99], [99, -100, -100, -100], [31, 99, -100, -100]]


def test_7_0_right():
    assert checks.exercise_7_0(TARGETS)
    assert checks.exercise_7_0(torch.tensor(TARGETS))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ([[10, 11, 12, 13], [20, 99, 99, 99], [30, 31, 99, 99]], "inputs"),
        ([[11, 12, 13, 99], [99, 99, 99, 99], [31, 99, 99, 99]], "first 99"),
        ([[11, 12, 13, -100], [-100] * 4, [31, -100, -100, -100]], "ends"),
        ([[11, 12, 13, 99], [20, 99, -100, -100], [31, 99, -100, -100]], "Row 2"),
        ([[11, 12, 13], [99, -100, -100], [31, 99, -100]], "places"),
        (TARGETS[:2], "three rows"),
        ("no", "whole numbers"),
        (5, "list of three lists"),
    ],
)
def test_7_0_wrong(wrong, word):
    verdict = checks.exercise_7_0(wrong)
    fails(verdict, word)
    assert "31, 99" not in verdict.message


# 7.1


def test_7_1_right():
    assert checks.exercise_7_1(format_phi3)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda e: None, "return"),
        (lambda e: 5, "string"),
        (format_input, "Alpaca"),
        (lambda e: format_phi3(e) + "\n\n<|assistant|>\n", "marker"),
        (lambda e: format_phi3(e) + e["output"], "answer must not"),
        (lambda e: f"<|user|>\n{e['instruction']}\n{e['input']}", "no line break either"),
        (lambda e: f"<|user|>\n{e['instruction']}", "missing"),
        (lambda e: f"user\n{e['instruction']}", "tag of the user"),
        (lambda e: format_phi3(e).replace("\n", " "), "line breaks or spaces"),
    ],
)
def test_7_1_wrong(wrong, word):
    fails(checks.exercise_7_1(wrong), word)


# 7.2


def masking(shift=0, own=True, end=False):
    def mask_prompts(targets, lengths):
        targets = targets.clone()
        for row, length in enumerate(lengths):
            targets[row, : (length if own else lengths[0]) - 1 + shift] = -100
            if end:
                targets[row, (targets[row] != -100).nonzero()[-1]] = -100
        return targets

    return mask_prompts


def test_7_2_right():
    assert checks.exercise_7_2(masking())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (masking(1), "who predicts it"),
        (masking(-1), "still counts"),
        (masking(end=True), "learn to stop"),
        (masking(own=False), "own length"),
        (lambda t, n: t, "Nothing was masked"),
        (lambda t, n: torch.full_like(t, -100), "no target is left"),
        (lambda t, n: t[:, 2:], "not cut"),
        (lambda t, n: None, "return"),
        (lambda t, n: t.tolist(), "tensor"),
        (lambda t, n: torch.where(masking()(t, n) == -100, -100, 1), "stay what they were"),
    ],
)
def test_7_2_wrong(wrong, word):
    fails(checks.exercise_7_2(wrong), word)


# 7.3


def planning(lengths, batch_size, most):
    return len(lengths) // batch_size, sum(max(0, n - most) for n in lengths) / sum(lengths)


def test_7_3_right():
    assert checks.exercise_7_3(planning)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda n, b, m: (-(-len(n) // b), planning(n, b, m)[1]), "last batch"),
        (lambda n, b, m: (len(n) / b, planning(n, b, m)[1]), "whole number"),
        (lambda n, b, m: (len(n), planning(n, b, m)[1]), "is not right"),
        (lambda n, b, m: (len(n) // b, 1 - planning(n, b, m)[1]), "kept"),
        (lambda n, b, m: (len(n) // b, 100 * planning(n, b, m)[1]), "percent"),
        (lambda n, b, m: (len(n) // b, sum(x > m for x in n) / len(n)), "entries that are cut"),
        (lambda n, b, m: (len(n) // b, sum(x for x in n if x > m) / sum(n)), "not the whole"),
        (lambda n, b, m: (len(n) // b, sum(max(0, x - m) for x in n)), "number of tokens"),
        (lambda n, b, m: (len(n) // b, 0.77), "is not right"),
        (lambda n, b, m: len(n) // b, "Two numbers"),
        (lambda n, b, m: None, "return"),
    ],
)
def test_7_3_wrong(wrong, word):
    fails(checks.exercise_7_3(wrong), word)


# 7.4


def freeze(model):
    for parameter in model.parameters():
        parameter.requires_grad = False


def preparing(model, rank, alpha):
    freeze(model)
    replace_linear_with_lora(model, rank, alpha)


def too_late(model, rank, alpha):
    replace_linear_with_lora(model, rank, alpha)
    freeze(model)


def only_attention(model, rank, alpha):
    freeze(model)
    replace_linear_with_lora(model, rank, alpha, targets="att")


def swapped(model, rank, alpha):
    freeze(model)
    replace_linear_with_lora(model, int(alpha), float(rank))


def louder(model, rank, alpha):
    preparing(model, rank, alpha)
    with torch.no_grad():
        model.trf_blocks[0].att.W_query.lora.B.add_(1.0)


def test_7_4_right():
    state = torch.get_rng_state()
    assert checks.exercise_7_4(preparing)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (too_late, "frozen too"),
        (lambda model, rank, alpha: replace_linear_with_lora(model, rank, alpha), "besides LoRA's"),
        (lambda model, rank, alpha: freeze(model), "no LoRA layers"),
        (only_attention, "linear layers have LoRA"),
        (swapped, "other order"),
        (louder, "something else"),
    ],
)
def test_7_4_wrong(wrong, word):
    fails(checks.exercise_7_4(wrong), word)


# 7.5


def reading(reply):
    whole = re.fullmatch(r"\s*(\d+)\s*", reply)
    found = whole or re.search(r"score(?:\s+is|\s*:)?\s*(\d+)", reply, re.IGNORECASE)
    return int(found[1]) if found and int(found[1]) <= 100 else None


def test_7_5_right():
    assert checks.exercise_7_5(reading)


def first_number(reply):
    found = re.search(r"\d+", reply)
    return int(found[0]) if found and int(found[0]) <= 100 else None


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (first_number, "another of its numbers"),
        (lambda reply: str(reading(reply)), "not a string"),
        (lambda reply: int(reply) if reply.strip().isdigit() else None, "found none"),
        (lambda reply: reading(reply) or 0, "None is wanted"),
        (lambda reply: int(str(reading(reply))[0]) if reading(reply) is not None else None, "part of the number"),
        (lambda reply: int(reply), "ValueError"),
    ],
)
def test_7_5_wrong(wrong, word):
    fails(checks.exercise_7_5(wrong), word)


def test_the_self_test_explains_every_option():
    for number, question in enumerate(ch07._QUESTIONS, start=1):
        assert sum(right for right, _ in question.options.values()) == 1
        for letter, (right, why) in question.options.items():
            verdict = checks.self_test_7(**{f"q{number}": letter})
            assert why in verdict.message and verdict.passed is False
            assert f"{number}. {'Yes' if right else 'No'}" in verdict.message
    best = [next(letter for letter, (right, _) in q.options.items() if right) for q in ch07._QUESTIONS]
    assert checks.self_test_7(*best)
    assert len(set(best)) == 3
