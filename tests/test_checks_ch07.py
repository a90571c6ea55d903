"""The checkers of chapter 7: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import re

import pytest
import torch

from helpers import replace_linear_with_lora
from helpers.instructions import format_input, format_phi3
from tests import checkers

RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# 7.0

TARGETS = [[11, 12, 13, 99], [99, -100, -100, -100], [31, 99, -100, -100]]


RIGHT += [("7.0", TARGETS), ("7.0", torch.tensor(TARGETS))]

WRONG += [
    ("7.0", [[10, 11, 12, 13], [20, 99, 99, 99], [30, 31, 99, 99]], "inputs"),
    ("7.0", [[11, 12, 13, 99], [99, 99, 99, 99], [31, 99, 99, 99]], "first 99"),
    ("7.0", [[11, 12, 13, -100], [-100] * 4, [31, -100, -100, -100]], "ends"),
    ("7.0", [[11, 12, 13, 99], [20, 99, -100, -100], [31, 99, -100, -100]], "Row 2"),
    ("7.0", [[11, 12, 13], [99, -100, -100], [31, 99, -100]], "places"),
    ("7.0", TARGETS[:2], "three rows"),
    ("7.0", "no", "whole numbers"),
    ("7.0", 5, "list of three lists"),
]


# 7.1


RIGHT += [("7.1", format_phi3)]

WRONG += [
    ("7.1", lambda e: 5, "string"),
    ("7.1", format_input, "Alpaca"),
    ("7.1", lambda e: format_phi3(e) + "\n\n<|assistant|>\n", "marker"),
    ("7.1", lambda e: format_phi3(e) + e["output"], "answer must not"),
    ("7.1", lambda e: f"<|user|>\n{e['instruction']}\n{e['input']}", "no line break either"),
    ("7.1", lambda e: f"<|user|>\n{e['instruction']}", "missing"),
    ("7.1", lambda e: f"user\n{e['instruction']}", "tag of the user"),
    ("7.1", lambda e: format_phi3(e).replace("\n", " "), "line breaks or spaces"),
]


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


RIGHT += [("7.2", masking())]

WRONG += [
    ("7.2", masking(1), "who predicts it"),
    ("7.2", masking(-1), "still counts"),
    ("7.2", masking(end=True), "learn to stop"),
    ("7.2", masking(own=False), "own length"),
    ("7.2", lambda t, n: t, "Nothing was masked"),
    ("7.2", lambda t, n: torch.full_like(t, -100), "no target is left"),
    ("7.2", lambda t, n: t[:, 2:], "not cut"),
    ("7.2", lambda t, n: t.tolist(), "tensor"),
    ("7.2", lambda t, n: torch.where(masking()(t, n) == -100, -100, 1), "stay what they were"),
]


# 7.3


def planning(lengths, batch_size, most):
    return len(lengths) // batch_size, sum(max(0, n - most) for n in lengths) / sum(lengths)


RIGHT += [("7.3", planning)]

WRONG += [
    ("7.3", lambda n, b, m: (-(-len(n) // b), planning(n, b, m)[1]), "last batch"),
    ("7.3", lambda n, b, m: (len(n) / b, planning(n, b, m)[1]), "whole number"),
    ("7.3", lambda n, b, m: (len(n), planning(n, b, m)[1]), "is not right"),
    ("7.3", lambda n, b, m: (len(n) // b, 1 - planning(n, b, m)[1]), "kept"),
    ("7.3", lambda n, b, m: (len(n) // b, 100 * planning(n, b, m)[1]), "percent"),
    ("7.3", lambda n, b, m: (len(n) // b, sum(x > m for x in n) / len(n)), "entries that are cut"),
    ("7.3", lambda n, b, m: (len(n) // b, sum(x for x in n if x > m) / sum(n)), "not the whole"),
    ("7.3", lambda n, b, m: (len(n) // b, sum(max(0, x - m) for x in n)), "number of tokens"),
    ("7.3", lambda n, b, m: (len(n) // b, 0.77), "is not right"),
    ("7.3", lambda n, b, m: len(n) // b, "Two numbers"),
]


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


RIGHT += [("7.4", preparing)]

WRONG += [
    ("7.4", too_late, "frozen too"),
    ("7.4", lambda model, rank, alpha: replace_linear_with_lora(model, rank, alpha), "besides LoRA's"),
    ("7.4", lambda model, rank, alpha: freeze(model), "no LoRA layers"),
    ("7.4", only_attention, "linear layers have LoRA"),
    ("7.4", swapped, "other order"),
    ("7.4", louder, "something else"),
]


# 7.5


def reading(reply):
    whole = re.fullmatch(r"\s*(\d+)\s*", reply)
    found = whole or re.search(r"score(?:\s+is|\s*:)?\s*(\d+)", reply, re.IGNORECASE)
    return int(found[1]) if found and int(found[1]) <= 100 else None


RIGHT += [("7.5", reading)]


def first_number(reply):
    found = re.search(r"\d+", reply)
    return int(found[0]) if found and int(found[0]) <= 100 else None


WRONG += [
    ("7.5", first_number, "another of its numbers"),
    ("7.5", lambda reply: str(reading(reply)), "must be one number, not str"),
    ("7.5", lambda reply: int(reply) if reply.strip().isdigit() else None, "found none"),
    ("7.5", lambda reply: reading(reply) or 0, "None is expected"),
    ("7.5", lambda reply: int(str(reading(reply))[0]) if reading(reply) is not None else None, "part of the number"),
    ("7.5", lambda reply: int(reply), "ValueError"),
]


GIVEAWAYS = {"7.0": ["31, 99"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))
