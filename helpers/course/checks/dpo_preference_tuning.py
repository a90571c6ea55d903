"""Checkers for the bonus notebook on preference tuning with DPO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ._core import (
    RTOL,
    AnswerError,
    exercise,
    expect,
    expect_close,
    expect_tells_apart,
    explained,
    read_numbers,
    read_tensor,
    read_truth,
    same,
    self_test,
)

Loss = Callable[..., torch.Tensor]


@exercise("dpo.1")
def exercise_dpo_1(answer: Sequence[float]) -> str:
    """Three numbers: a probability from two rewards, a difference from a probability, a loss of a wrong order."""
    order = "Three numbers are expected, as a tuple: (probability, difference, loss)."
    probability, difference, loss = read_numbers(answer, 3, order)
    larger, smaller = 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(1.5))  # probabilities from the rewards 2 and 0.5
    two_digits = {"rtol": 0, "atol": 0.006}  # as the exercise asks for
    from_rounded = {"rtol": 0, "atol": 0.02}  # -ln(0.18) = 1.715, where the first number was rounded before
    slips = [
        (smaller, "that is the probability that the other answer is preferred, the one with the smaller reward."),
        (2 / 2.5, "you divide the rewards themselves. They come in as exponents: e to the reward."),
    ]
    rewards = "take the difference of the rewards, and sigma."
    expect_close(probability, larger, "First number:", slips, **two_digits, otherwise=rewards)
    slips = [
        (-math.log(9), "the sign. The preferred answer has the larger reward, and it is listed first."),
        (
            1 / (1 + math.exp(-0.9)),
            "you go from 0.9 to a probability, but 0.9 is the probability. Go the other way.",
        ),
    ]
    odds = "9 of 10 choose it, so what are the odds, and their log?"
    expect_close(difference, math.log(9), "Second number:", slips, **two_digits, otherwise=odds)
    slips = [
        (
            -math.log(larger),
            "that is the loss if the pair is in the right order. Here the chosen answer has the smaller one.",
        ),
        (smaller, "that is the probability of the choice that was made; the loss is a logarithm of it."),
    ]
    choice = "which probability does the model give to the choice?"
    expect_close(loss, -math.log(smaller), "Third number:", slips, **from_rounded, otherwise=choice)
    return (
        "Only the difference of two rewards matters. A difference of 1.5 is preferred about 82 times in 100; nine to "
        "one are odds whose logarithm is about 2.2; and a wrong order by 1.5 costs about 1.7 nats, where a right one "
        "by as much costs 0.2."
    )


@exercise("dpo.2", "answer_logprob(logits, ids, prompt_length)")
def exercise_dpo_2(answer: Callable[[torch.Tensor, list[int], int], torch.Tensor]) -> str:
    """`answer_logprob(logits, ids, prompt_length)`: the log-probability of the answer in one row, from its logits."""
    generator = torch.Generator().manual_seed(111)
    for length, prompt, vocabulary in [(5, 2, 7), (4, 1, 3), (6, 5, 4), (9, 3, 11)]:
        logits = 2 * torch.randn(length, vocabulary, generator=generator)
        ids = torch.randint(0, vocabulary, (length,), generator=generator).tolist()
        logp = torch.log_softmax(logits, dim=-1)

        def total(rows: range, shift: int, table: torch.Tensor, ids: list[int] = ids) -> torch.Tensor:
            return sum((table[row, ids[row + shift]] for row in rows), torch.tensor(0.0))

        right = total(range(prompt - 1, length - 1), 1, logp)
        slips = [
            (total(range(length - 1), 1, logp), "You also count the tokens of the prompt, which are given."),
            (total(range(prompt, length - 1), 1, logp), "The first token of the answer is missing: who predicts it?"),
            (total(range(prompt, length), 0, logp), "A row of logits is about the token that comes after its own."),
            (total(range(prompt - 1, length - 1), 1, logits), "These are sums of logits, which are no logarithms yet."),
            (right / (length - prompt), "You take a mean; the probability of a whole is a product of all its parts."),
            (-right, "The sign: the logarithm of a probability is negative, and this is not a loss."),
            (right.exp(), "This is the probability itself; its logarithm is expected."),
        ]
        case = f"This is for {length} tokens, of which the first {prompt} are the prompt."
        expect_close(answer(logits.clone(), list(ids), prompt), right, case, slips)
    return (
        "Row number t of the logits speaks about token t + 1, so the last row of the prompt speaks about the answer's "
        "first token, and the last row of all about a token that is not there. Logarithms of probabilities add up."
    )


def _changes(chosen: Any, rejected: Any, ref_chosen: Any, ref_rejected: Any) -> Any:
    """By how much the policy moved the two answers of each pair apart."""
    return (chosen - ref_chosen) - (rejected - ref_rejected)


_RIGHT_LOSSES: tuple[tuple[str, Loss], ...] = (
    ("made with logsigmoid", lambda *logps, beta: -F.logsigmoid(beta * _changes(*logps)).mean()),
    ("made with softplus", lambda *logps, beta: F.softplus(-beta * _changes(*logps)).mean()),
    (
        "computed in float64 and then rounded to float32",
        lambda *logps, beta: F.softplus(-beta * _changes(*(logp.double() for logp in logps))).mean().float(),
    ),
)


def _faulty(margins: Callable[..., torch.Tensor], reduce: Callable = torch.mean, factor: float = 1.0) -> Loss:
    """The DPO loss with other margins, (beta, log-probabilities) to (B,), another reduction, or a factor."""
    return lambda *logps, beta: factor * reduce(-F.logsigmoid(margins(beta, *logps)))


# What is wrong with a loss that the learner's test has accepted.
_FAULTY_LOSSES: tuple[tuple[str, Loss], ...] = (
    ("never looks at the reference", _faulty(lambda beta, c, r, *_: beta * (c - r))),
    (
        "adds the reference instead of subtracting it",
        _faulty(lambda beta, c, r, ref, ref_r: beta * (c + ref - r - ref_r)),
    ),
    (
        "forgets the reference of the rejected answer",
        _faulty(lambda beta, c, r, ref, _: beta * (c - ref - r)),
    ),
    ("takes the two answers for each other", _faulty(lambda beta, *logps: -beta * _changes(*logps))),
    ("looks at the chosen answer only", _faulty(lambda beta, c, _, ref, __: beta * (c - ref))),
    ("has a beta of its own, 0.1, whatever it is given", _faulty(lambda beta, *logps: 0.1 * _changes(*logps))),
    ("divides by beta", _faulty(lambda beta, *logps: _changes(*logps) / beta)),
    ("adds up the pairs instead of averaging them", _faulty(lambda beta, *logps: beta * _changes(*logps), torch.sum)),
    ("looks at the first pair of a batch only", _faulty(lambda beta, *logps: (beta * _changes(*logps))[:1])),
    ("averages the margins before the loss", _faulty(lambda beta, *logps: (beta * _changes(*logps)).mean())),
    ("has the wrong sign", _faulty(lambda beta, *logps: beta * _changes(*logps), factor=-1.0)),
    (
        "gives one minus the probability of the choice, without a logarithm",
        lambda *logps, beta: torch.sigmoid(-beta * _changes(*logps)).mean(),
    ),
    (
        "takes the logarithm of a rounded probability, so that it is infinite for margins far below 0",
        lambda *logps, beta: -torch.log(torch.sigmoid(beta * _changes(*logps))).mean(),
    ),
)


def _positional(loss: Loss) -> Loss:
    """A loss that is called with beta by its place or by its name."""

    def called(
        logp_chosen: torch.Tensor,
        logp_rejected: torch.Tensor,
        ref_chosen: torch.Tensor,
        ref_rejected: torch.Tensor,
        beta: float = 0.1,
    ) -> torch.Tensor:
        return loss(logp_chosen, logp_rejected, ref_chosen, ref_rejected, beta=beta)

    return called


@exercise("dpo.3", "is_right(loss)")
def exercise_dpo_3(answer: Callable[[Loss], bool]) -> str:
    """`is_right(loss)`: a test that tells right DPO losses from faulty ones."""
    shapes = (TypeError, IndexError, ValueError, RuntimeError)
    with explained(shapes, "Call the loss with four tensors of the same shape (B) and a beta, a number."):
        right = [(name, read_truth(answer(_positional(loss)))) for name, loss in _RIGHT_LOSSES]
        faulty = [(name, read_truth(answer(_positional(loss)))) for name, loss in _FAULTY_LOSSES]
    hints = {
        "all refused": "Which of the values that you expect is not DPO's?",
        "all accepted": "Compare what the loss returns with what must come out.",
        "exact": "values",
        "missed": "Which input would show it?",
    }
    expect_tells_apart(right, faulty, "loss", hints)
    return (
        f"All {len(right)} right losses pass and all {len(faulty)} faulty ones are caught. Nearly all of these would "
        "have trained without an error. A test of a loss needs unequal numbers in all arguments, more than one pair, "
        "more than one beta, and a far margin."
    )


class _Pairs(nn.Module):
    """A small model: the logits of the next token are a row of a table."""

    def __init__(self, vocabulary: int, generator: torch.Generator):
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocabulary, vocabulary, generator=generator))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table[ids]


def _pair_batch(pairs: int, generator: torch.Generator) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """A batch as `preference_collate_fn` makes it, of random tokens, with answers of 1, 2, 3 ... targets."""
    ids = torch.randint(0, 9, (2 * pairs, pairs + 6), generator=generator)
    targets = torch.full_like(ids, -100)
    for row in range(2 * pairs):
        length = 1 + row % (pairs + 2)
        targets[row, 2 : 2 + length] = ids[row, 3 : 3 + length]
    return ids, (targets, -5 - 3 * torch.rand(2 * pairs, generator=generator))


@exercise("dpo.4", "anchored_loss(input_batch, target_batch, model, device)")
def exercise_dpo_4(answer: Loss) -> str:
    """`anchored_loss(input_batch, target_batch, model, device)`: DPO plus the loss per token of the chosen answers."""
    generator = torch.Generator().manual_seed(113)
    for pairs in (3, 1, 4):
        model, (ids, (targets, reference)) = _Pairs(9, generator), _pair_batch(pairs, generator)
        copies = [tensor.clone() for tensor in (ids, targets, reference)]
        counted = targets != -100
        logp = torch.log_softmax(model(ids), dim=-1).gather(2, targets.clamp(min=0)[..., None])[..., 0] * counted
        sums, counts = logp.sum(dim=1), counted.sum(dim=1)
        dpo = -F.logsigmoid(0.1 * _changes(*sums.chunk(2), *reference.chunk(2))).mean()
        per_answer = -sums / counts
        expected = dpo + per_answer[:pairs].mean()
        slips = [
            (dpo, "This is the DPO loss alone; nothing holds the chosen answers up."),
            (expected - dpo, "This is the loss of the chosen answers alone; the DPO loss is missing."),
            (dpo - sums[:pairs].mean(), "You take whole answers; divide each by its number of targets."),
            (dpo - sums[:pairs].sum() / counts[:pairs].sum(), "You average over all tokens; average over answers."),
            (dpo + per_answer[pairs:].mean(), "You hold up the rejected answers, the second half of the batch."),
            (dpo + per_answer.mean(), "You hold up both answers of a pair, the rejected one too."),
            (dpo - per_answer[:pairs].mean(), "The sign: this pushes the chosen answers down."),
            (dpo - (sums / logp.shape[1])[:pairs].mean(), "You divide by all places of a row; only targets count."),
            (dpo + per_answer[:pairs].sum(), "You add the chosen answers up; take their mean."),
        ]
        result = answer(ids, (targets, reference), model, torch.device("cpu"))
        expect_close(
            result, expected, f"This is for {pairs} pairs.", [(read_tensor(wrong), hint) for wrong, hint in slips]
        )
        given = (ids, targets, reference)
        expect(all(map(torch.equal, given, copies)), "Your function changes the batch itself; work on a copy.")
        expect(
            isinstance(result, torch.Tensor) and result.requires_grad,
            "The value is right, but it has no gradient, so nothing would be trained: keep to tensors, without "
            "`no_grad`, `item` and `detach`.",
        )
        got, right = (torch.autograd.grad(value, model.table)[0] for value in (result, expected))
        expect(same(got, right), "The value is right, but its gradient is not: is a part of it detached?")
    return (
        "The first term asks for a difference only, the second one that the chosen answers stay probable by "
        "themselves. Divided by its length, a long answer counts as much as a short one."
    )


@exercise("dpo.5", "doubtful_loss(margin, flipped)")
def exercise_dpo_5(answer: Callable[[torch.Tensor, float], torch.Tensor]) -> str:
    """`doubtful_loss(margin, flipped)`: the loss if a share of the labels is the wrong way round."""
    generator = torch.Generator().manual_seed(112)
    for count, flipped in [(1, 0.2), (4, 0.1), (1, 0.0), (7, 0.5), (3, 0.3)]:
        margin = 2 * torch.randn(count, generator=generator)
        right, wrong = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        expected = ((1 - flipped) * right + flipped * wrong).mean()
        mixed = -F.logsigmoid((1 - 2 * flipped) * margin).mean()
        swapped = (flipped * right + (1 - flipped) * wrong).mean()
        slips = [
            (swapped, "The two parts have each other's weights: most labels are right."),
            (right.mean(), "You take the plain loss, as if every label were right."),
            (expected * count, "You add the pairs up; take their mean."),
            (-expected, "The sign: a loss is not negative."),
            (mixed, "You average the margins before the loss; average the two losses instead."),
        ]
        case = f"This is for {count} margins and a share of {flipped}."
        expect_close(answer(margin.clone(), flipped), expected, case, slips)
    _expect_far_margins(answer)
    return (
        "This is label smoothing. With a share of doubtful labels the loss has its lowest point at a finite margin, "
        "where the model gives the other answer just that probability, and beyond it the loss rises again: no update "
        "asks for more."
    )


def _expect_far_margins(answer: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
    """Value and gradient at margins of -200 and 200, where a probability is rounded to 0 or 1."""
    far, flipped = torch.tensor([-200.0, 200.0]), 0.1
    value = read_tensor(answer(far.clone(), flipped))
    remedy = "PyTorch has the logarithm of the sigmoid as one function."
    expect(
        bool(torch.isfinite(value).all()) and value.abs().max().item() < 1e6,
        "For margins of -200 and 200 your result is no finite number, or one that stands for infinity: a probability "
        f"there is rounded to 0 or 1, and its logarithm is lost. {remedy}",
    )
    expect(
        same(value, torch.tensor(100.0), RTOL),
        f"For margins of -200 and 200 and a share of {flipped} you get {value.mean().item():.4g}; a wrong order by 200 "
        f"costs 200 nats. Do not cut margins or probabilities off to keep them finite. {remedy}",
    )
    margin = far.clone().requires_grad_()
    try:
        loss = answer(margin, flipped)
    except AnswerError:  # NumPy, say: without a gradient there is nothing to compare
        return
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        (slope,) = torch.autograd.grad(loss, margin)
        expect(
            same(slope, torch.tensor([-(1 - flipped) / 2, flipped / 2])),
            f"The value at margins of -200 and 200 is right, but its gradient is not a number or wrong. {remedy}",
        )


self_test_dpo = self_test("dpo", "dpo_preference_tuning")
