"""The checkers of the notebook on DPO: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests import checkers


def answer_logprob(logits, ids, prompt_length, shift=1, first=-1):
    logp = torch.log_softmax(logits, dim=-1)
    rows = range(prompt_length + first, len(ids) - shift)
    return sum(logp[row, ids[row + shift]] for row in rows)


def by_cross_entropy(logits, ids, prompt_length):
    answer = torch.tensor(ids[prompt_length:])
    return -nn.functional.cross_entropy(logits[prompt_length - 1 : -1], answer, reduction="sum")


def raw_logits(logits, ids, prompt_length):
    return sum(logits[row, ids[row + 1]] for row in range(prompt_length - 1, len(ids) - 1))


def doubtful_loss(margin, flipped):
    right, wrong = nn.functional.logsigmoid(margin), nn.functional.logsigmoid(-margin)
    return -((1 - flipped) * right + flipped * wrong).mean()


def unstable(margin, flipped):
    right, wrong = torch.sigmoid(margin).log(), torch.sigmoid(-margin).log()
    return -((1 - flipped) * right + flipped * wrong).mean()


def mixed_margins(margin, flipped):
    return -nn.functional.logsigmoid((1 - 2 * flipped) * margin).mean()


ODDS = (0.82, 2.2, 1.7)

RIGHT = [
    ("dpo.1", ODDS),
    ("dpo.1", (1 / (1 + math.exp(-1.5)), math.log(9), math.log(1 + math.exp(1.5)))),
    ("dpo.1", [0.818, 2.197, 1.701]),
    ("dpo.2", answer_logprob),
    ("dpo.2", by_cross_entropy),
    ("dpo.3", doubtful_loss),
]

WRONG = {
    "odds, one number": ("dpo.1", 0.82, "Three numbers are expected"),
    "odds, two numbers": ("dpo.1", ODDS[:2], "Three numbers are expected"),
    "odds, text": ("dpo.1", ("0.82", 2.2, 1.7), "must be one number"),
    "odds, the other answer": ("dpo.1", (0.18, 2.2, 1.7), "the other answer"),
    "odds, rewards divided": ("dpo.1", (0.8, 2.2, 1.7), "They come in as exponents"),
    "odds, anything": ("dpo.1", (0.5, 2.2, 1.7), "the difference of the rewards"),
    "odds, sign": ("dpo.1", (0.82, -2.2, 1.7), "the sign"),
    "odds, wrong way": ("dpo.1", (0.82, 0.71, 1.7), "Go the other way"),
    "odds, nine": ("dpo.1", (0.82, 9, 1.7), "the odds, and their log"),
    "odds, right order": ("dpo.1", (0.82, 2.2, 0.2), "in the right order"),
    "odds, no logarithm": ("dpo.1", (0.82, 2.2, 0.18), "the loss is a logarithm"),
    "odds, other loss": ("dpo.1", (0.82, 2.2, 1.5), "which probability"),
    "with the prompt": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, 1), "tokens of the prompt"),
    "one late": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n, first=0), "who predicts it"),
    "not moved": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n, shift=0, first=0), "comes after its own"),
    "logits": ("dpo.2", raw_logits, "sums of logits"),
    "mean of logs": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n) / (len(ids) - n), "You take a mean"),
    "a loss": ("dpo.2", lambda z, ids, n: -answer_logprob(z, ids, n), "The sign"),
    "a probability": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n).exp(), "the probability itself"),
    "one per token": ("dpo.2", lambda z, ids, n: torch.log_softmax(z, -1)[n:, 0], "shape"),
    "weights swapped": ("dpo.3", lambda m, flipped: doubtful_loss(m, 1 - flipped), "each other's weights"),
    "no doubt": ("dpo.3", lambda m, flipped: doubtful_loss(m, 0.0), "as if every label were right"),
    "summed": ("dpo.3", lambda m, flipped: doubtful_loss(m, flipped) * len(m), "take their mean"),
    "negative": ("dpo.3", lambda m, flipped: -doubtful_loss(m, flipped), "a loss is not negative"),
    "margins averaged": ("dpo.3", mixed_margins, "average the two losses"),
    "far margins": ("dpo.3", unstable, "not a finite number"),
}

# What would give a solution away.
SECRETS = ["0.82", "2.2", "1.7", "log_softmax", "logsigmoid", "log(9)"]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=SECRETS)
