"""Checkers for the bonus notebook on preference tuning with DPO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from ._core import exercise, expect, expect_close, read_numbers, read_tensor, self_test


@exercise("dpo.1")
def exercise_dpo_1(answer: Sequence[float]) -> str:
    """Three numbers: a probability from two rewards, a difference from a probability, a loss of a wrong order."""
    order = "Three numbers are expected, as a tuple: (probability, difference, loss)."
    probability, difference, loss = read_numbers(answer, 3, order)
    larger, smaller = 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(1.5))  # probabilities from the rewards 2 and 0.5
    two_digits = {"rtol": 0, "atol": 0.006}  # as the exercise asks for
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
    expect_close(loss, -math.log(smaller), "Third number:", slips, **two_digits, otherwise=choice)
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


@exercise("dpo.3", "doubtful_loss(margin, flipped)")
def exercise_dpo_3(answer: Callable[[torch.Tensor, float], torch.Tensor]) -> str:
    """`doubtful_loss(margin, flipped)`: the loss if a share of the labels is the wrong way round."""
    generator = torch.Generator().manual_seed(112)
    for count, flipped in [(1, 0.0), (1, 0.2), (4, 0.1), (7, 0.5), (3, 0.3)]:
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
    far = read_tensor(answer(torch.tensor([-200.0, 200.0]), 0.1))
    expect(
        bool(torch.isfinite(far).all()),
        "For a margin of 200 your result is not a finite number: a probability there is rounded to 0 or 1, and its "
        "logarithm is lost. PyTorch has the logarithm of the sigmoid as one function.",
    )
    return (
        "With a share of doubtful labels the loss has its lowest point at a finite margin, where the model says the "
        "other answer with just that probability, and beyond it the loss rises again: nothing pushes without end."
    )


self_test_dpo = self_test("dpo", "dpo_preference_tuning")
