"""The checkers of the notebook on DPO: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from helpers.course.checks import dpo_preference_tuning
from helpers.preferences import calc_dpo_loss_batch, dpo_loss, sequence_logprobs
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


def in_numpy(margin, flipped):
    margin = margin.numpy().astype(float)
    return float((np.logaddexp(0, -margin) * (1 - flipped) + np.logaddexp(0, margin) * flipped).mean())


def far_by_hand(margin, flipped):
    """Right values everywhere; the gradient of the branch that is not taken is infinity times 0."""
    right, wrong = (torch.where(m < -30, -m, torch.log1p(torch.exp(-m))) for m in (margin, -margin))
    return ((1 - flipped) * right + flipped * wrong).mean()


# dpo.3


def values(*cases):
    """A test of a loss that compares it with dpo_loss on the given cases, each (four lists, beta)."""

    def is_right(loss):
        for logps, beta in cases:
            logps = [torch.tensor(logp) for logp in logps]
            if not torch.allclose(loss(*logps, beta), dpo_loss(*logps, beta)[0], rtol=1e-3):
                return False
        return True

    return is_right


EXAMPLE = ([-11.0], [-14.0], [-12.0], [-10.0]), 0.1
PAIRS = ([-11.0, -9.0], [-14.0, -3.0], [-12.0, -8.0], [-10.0, -4.0]), 0.5
SAME = ([-11.0, -9.0], [-14.0, -3.0], [-11.0, -9.0], [-14.0, -3.0]), 0.5
FAR = ([-200.0, -1.0], [0.0, -1.0], [0.0, -1.0], [0.0, -1.0]), 1.0

ONE_FAR = ([-200.0], [0.0], [0.0], [0.0]), 1.0


def by_hand(loss):
    """The values of dpo_loss worked out in plain Python."""
    two = (
        torch.tensor([-11.0, -20.0]),
        torch.tensor([-14.0, -18.0]),
        torch.tensor([-12.0, -19.0]),
        torch.tensor([-10.0] * 2),
    )
    margins = [0.3 * (1 + 4), 0.3 * (-1 + 8)]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 2
    far = loss(torch.tensor([-200.0]), torch.tensor([0.0]), torch.zeros(1), torch.zeros(1), beta=1.0)
    return abs(loss(*two, beta=0.3).item() - expected) < 1e-4 and np.isclose(far.item(), 200)


def by_properties(loss):
    a, b, c, d = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    start = torch.isclose(loss(a, b, a, b, 0.7), torch.tensor(2.0).log())
    margins = 0.7 * (a - b - c + d)
    known = torch.isclose(loss(a, b, c, d, 0.7), torch.log1p(torch.exp(-margins)).mean(), rtol=1e-4)
    far = torch.isfinite(loss(a - 300, b, c, d, 1.0))
    return start & known & far  # a tensor


# dpo.4


def anchored_loss(ids, target_batch, model, device, whole=False, rows="chosen", sign=1):
    targets, _ = target_batch
    logp, counts = sequence_logprobs(model, ids, targets), (targets != -100).sum(dim=1)
    per_answer = -logp / (1 if whole else counts)
    half = len(targets) // 2
    part = {"chosen": per_answer[:half], "rejected": per_answer[half:], "both": per_answer}[rows]
    return calc_dpo_loss_batch(ids, target_batch, model, device) + sign * part.mean()


def anchored_from_scratch(input_batch, target_batch, model, device):
    targets, reference = target_batch
    logits, total = model(input_batch), []
    for row, line in enumerate(targets.tolist()):
        logp = torch.log_softmax(logits[row].double(), dim=-1)
        total.append([logp[place, token] for place, token in enumerate(line) if token != -100])
    pairs, terms = len(total) // 2, []
    for i in range(pairs):
        chosen, rejected = sum(total[i]), sum(total[pairs + i])
        margin = 0.1 * (chosen - reference[i] - rejected + reference[pairs + i])
        terms.append(-nn.functional.logsigmoid(margin) - chosen / len(total[i]))
    return torch.stack(terms).mean()


def anchored_by_cross_entropy(ids, target_batch, model, device):
    targets, reference = target_batch
    losses = nn.functional.cross_entropy(model(ids).transpose(1, 2), targets, reduction="none")  # 0 where ignored
    sums, counts = losses.sum(dim=1), (targets != -100).sum(dim=1)
    loss, _, _ = dpo_loss(*(-sums).chunk(2), *reference.chunk(2), beta=0.1)
    return loss + (sums / counts).chunk(2)[0].mean()


def over_all_tokens(ids, target_batch, model, device):
    targets, _ = target_batch
    logp, counts = sequence_logprobs(model, ids, targets), (targets != -100).sum(dim=1)
    half = len(targets) // 2
    return calc_dpo_loss_batch(ids, target_batch, model, device) - logp[:half].sum() / counts[:half].sum()


def per_place(ids, target_batch, model, device):
    logp = sequence_logprobs(model, ids, target_batch[0])
    return calc_dpo_loss_batch(ids, target_batch, model, device) - logp.chunk(2)[0].mean() / ids.shape[1]


def half_detached(ids, target_batch, model, device):
    loss = calc_dpo_loss_batch(ids, target_batch, model, device)
    return loss + (anchored_loss(ids, target_batch, model, device) - loss).detach()


def changing_targets(ids, target_batch, model, device):
    loss = anchored_loss(ids, target_batch, model, device)
    target_batch[0].clamp_(min=0)
    return loss


ODDS = (0.82, 2.2, 1.7)

RIGHT = [
    ("dpo.1", ODDS),
    ("dpo.1", (1 / (1 + math.exp(-1.5)), math.log(9), math.log(1 + math.exp(1.5)))),
    ("dpo.1", [0.818, 2.197, 1.701]),
    ("dpo.2", answer_logprob),
    ("dpo.1", np.array([0.818, 2.197, 1.7])),
    ("dpo.1", (torch.tensor(0.8176), np.float32(2.197), -math.log(0.18))),
    ("dpo.2", by_cross_entropy),
    ("dpo.2", lambda z, ids, n: answer_logprob(z.double(), ids, n)),
    ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n).item()),
    ("dpo.3", values(PAIRS, SAME, FAR, EXAMPLE)),
    ("dpo.3", by_hand),
    ("dpo.3", by_properties),
    ("dpo.4", anchored_loss),
    ("dpo.4", anchored_from_scratch),
    ("dpo.4", anchored_by_cross_entropy),
    ("dpo.5", doubtful_loss),
    ("dpo.5", lambda m, flipped: doubtful_loss(m.double(), flipped)),
    ("dpo.5", in_numpy),
    (
        "dpo.5",
        lambda m, e: ((1 - e) * nn.functional.softplus(-m) + e * nn.functional.softplus(m)).sum() / len(m),
    ),
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
    "no answer": ("dpo.2", lambda z, ids, n: "none", "not str"),
    "refuses all": ("dpo.3", lambda loss: False, "You refuse every loss"),
    "accepts all": ("dpo.3", lambda loss: True, "You accept every loss"),
    "no verdict": ("dpo.3", lambda loss: loss(*torch.zeros(4, 1), 0.1), "True or False is expected, not Tensor"),
    "plain numbers": (
        "dpo.3",
        lambda loss: loss(-11.0, -14.0, -12.0, -10.0, 0.1) > 0,
        "four tensors of the same shape",
    ),
    "one pair": ("dpo.3", values(EXAMPLE, ONE_FAR), "adds up the pairs instead of averaging them"),
    "the start only": ("dpo.3", values(SAME), "You catch"),
    "no far margin": ("dpo.3", values(PAIRS, EXAMPLE), "infinite for margins far below 0"),
    "one beta": ("dpo.3", values(EXAMPLE), "beta of its own"),
    "exactly equal": (
        "dpo.3",
        lambda loss: loss(*map(torch.tensor, EXAMPLE[0]), 0.1).item() == math.log1p(math.exp(-0.5)),
        "You refuse every loss",
    ),
    "no anchor": ("dpo.4", calc_dpo_loss_batch, "nothing holds the chosen answers up"),
    "no pairs": (
        "dpo.4",
        lambda *given: anchored_loss(*given) - calc_dpo_loss_batch(*given),
        "the DPO loss is missing",
    ),
    "whole answers": ("dpo.4", lambda *given: anchored_loss(*given, whole=True), "divide each by its number"),
    "rejected held up": ("dpo.4", lambda *given: anchored_loss(*given, rows="rejected"), "hold up the rejected"),
    "both held up": ("dpo.4", lambda *given: anchored_loss(*given, rows="both"), "both answers of a pair"),
    "pushed down": ("dpo.4", lambda *given: anchored_loss(*given, sign=-1), "The sign"),
    "over tokens": ("dpo.4", over_all_tokens, "average over answers"),
    "over places": ("dpo.4", per_place, "all places of a row"),
    "no gradient": ("dpo.4", lambda *given: anchored_loss(*given).item(), "no gradient"),
    "half a gradient": ("dpo.4", half_detached, "its gradient is not"),
    "targets changed": ("dpo.4", changing_targets, "changes the batch itself"),
    "one per token": ("dpo.2", lambda z, ids, n: torch.log_softmax(z, -1)[n:, 0], "shape"),
    "weights swapped": ("dpo.5", lambda m, flipped: doubtful_loss(m, 1 - flipped), "each other's weights"),
    "no doubt": ("dpo.5", lambda m, flipped: doubtful_loss(m, 0.0), "as if every label were right"),
    "summed": ("dpo.5", lambda m, flipped: doubtful_loss(m, flipped) * len(m), "take their mean"),
    "negative": ("dpo.5", lambda m, flipped: -doubtful_loss(m, flipped), "a loss is not negative"),
    "margins averaged": ("dpo.5", mixed_margins, "average the two losses"),
    "clamped": ("dpo.5", lambda m, e: doubtful_loss(m.clamp(-50, 50), e), "costs 200 nats"),
    "with a small number": (
        "dpo.5",
        lambda m, e: -((1 - e) * (m.sigmoid() + 1e-8).log() + e * ((-m).sigmoid() + 1e-8).log()).mean(),
        "costs 200 nats",
    ),
    "NaN to a number": ("dpo.5", lambda m, e: unstable(m, e).nan_to_num(), "stands for infinity"),
    "probability clamped": (
        "dpo.5",
        lambda m, e: -((1 - e) * m.sigmoid().clamp(1e-12).log() + e * (-m).sigmoid().clamp(1e-12).log()).mean(),
        "costs 200 nats",
    ),
    "gradient lost": ("dpo.5", far_by_hand, "its gradient is not a number or wrong"),
    "far margins": ("dpo.5", unstable, "no finite number"),
}

# What would give a solution away.
SECRETS = ["0.82", "2.2", "1.7", "log_softmax", "logsigmoid", "log(9)"]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", dict(dpo_preference_tuning._FAULTY_LOSSES))
def test_each_faulty_loss_differs_from_the_right_one(name):
    """A test that looks at everything catches it, so each of them can be found, and no two are the same."""
    loss = dict(dpo_preference_tuning._FAULTY_LOSSES)[name]
    wide = [torch.tensor(logp) for logp in PAIRS[0]]
    far = [torch.tensor(logp) for logp in FAR[0]]
    results = [(other(*wide, beta=0.5), other(*far, beta=1.0)) for _, other in dpo_preference_tuning._FAULTY_LOSSES]
    assert not values(PAIRS, FAR)(lambda *given: loss(*given[:4], beta=given[4]))
    mine = (loss(*wide, beta=0.5), loss(*far, beta=1.0))
    assert sum(torch.allclose(torch.stack(mine), torch.stack(result)) for result in results) == 1


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=SECRETS)
