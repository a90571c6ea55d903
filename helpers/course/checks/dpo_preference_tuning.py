"""Checkers for the bonus notebook on preference tuning with DPO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from ._core import Question, exercise, expect, expect_close, expect_function, self_test

__all__ = ["exercise_dpo_1", "exercise_dpo_2", "exercise_dpo_3", "self_test_dpo"]


@exercise("dpo.1")
def exercise_dpo_1(answer: Sequence[float]) -> str:
    """Three numbers: a probability from two rewards, a difference from a probability, a loss of a wrong order."""
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 3,
        "Three numbers are wanted, as a tuple: (probability, difference, loss).",
    )
    expect(
        all(isinstance(number, (int, float)) for number in answer), "Each of the three must be a plain number, as 0.5."
    )
    probability, difference, loss = answer

    def near(number: float, wanted: float) -> bool:
        return abs(number - wanted) < 0.006

    expect(
        not near(probability, 1 / (1 + math.exp(1.5))),
        "First number: that is the probability that the other answer is preferred, the one with the smaller reward.",
    )
    expect(
        not near(probability, 2 / 2.5),
        "First number: you divide the rewards themselves. They come in as exponents: e to the reward.",
    )
    expect(near(probability, 1 / (1 + math.exp(-1.5))), "First number: take the difference of the rewards, and sigma.")
    expect(
        not near(difference, -math.log(9)),
        "Second number: the sign. The preferred answer has the larger reward, and it is listed first.",
    )
    expect(
        not near(difference, 1 / (1 + math.exp(-0.9))),
        "Second number: you go from 0.9 to a probability, but 0.9 is the probability. Go the other way.",
    )
    expect(near(difference, math.log(9)), "Second number: 9 of 10 choose it, so what are the odds, and their log?")
    expect(
        not near(loss, math.log(1 + math.exp(-1.5))),
        "Third number: that is the loss if the pair is in the right order. Here the chosen answer has the smaller one.",
    )
    expect(
        not near(loss, 1 / (1 + math.exp(1.5))),
        "Third number: that is the probability of the choice that was made; the loss is a logarithm of it.",
    )
    expect(
        near(loss, math.log(1 + math.exp(1.5))), "Third number: which probability does the model give to the choice?"
    )
    return (
        "Only the difference of two rewards matters. A difference of 1.5 is preferred about 82 times in 100; nine to "
        "one are odds whose logarithm is about 2.2; and a wrong order by 1.5 costs about 1.7 nats, where a right one "
        "by as much costs 0.2."
    )


@exercise("dpo.2")
def exercise_dpo_2(answer: Callable[[torch.Tensor, list[int], int], torch.Tensor]) -> str:
    """`answer_logprob(logits, ids, prompt_length)`: the log-probability of the answer in one row, from its logits."""
    expect_function(answer, "answer_logprob(logits, ids, prompt_length)")
    generator = torch.Generator().manual_seed(111)
    for length, prompt, vocabulary in [(5, 2, 7), (4, 1, 3), (6, 5, 4), (9, 3, 11)]:
        logits = 2 * torch.randn(length, vocabulary, generator=generator)
        ids = torch.randint(0, vocabulary, (length,), generator=generator).tolist()
        logp = torch.log_softmax(logits, dim=-1)

        def total(rows: range, shift: int, table: torch.Tensor, ids: list[int] = ids) -> torch.Tensor:
            return sum(table[row, ids[row + shift]] for row in rows)

        wanted = total(range(prompt - 1, length - 1), 1, logp)
        got = answer(logits.clone(), list(ids), prompt)
        where = f"This is for {length} tokens, of which the first {prompt} are the prompt."
        slips = [
            (total(range(length - 1), 1, logp), "You also count the tokens of the prompt, which are given."),
            (total(range(prompt, length - 1), 1, logp), "The first token of the answer is missing: who predicts it?"),
            (total(range(prompt, length), 0, logp), "A row of logits is about the token that comes after its own."),
            (total(range(prompt - 1, length - 1), 1, logits), "These are sums of logits, which are no logarithms yet."),
            (wanted / (length - prompt), "You take a mean; the probability of a whole is a product of all its parts."),
            (-wanted, "The sign: the logarithm of a probability is negative, and this is not a loss."),
            (wanted.exp(), "This is the probability itself; its logarithm is wanted."),
        ]
        value = got if isinstance(got, torch.Tensor) else torch.tensor(got) if isinstance(got, float) else None
        if value is not None and value.numel() == 1 and not torch.isclose(value, wanted, rtol=1e-3):
            for wrong, hint in slips:
                same = isinstance(wrong, torch.Tensor) and torch.isclose(wrong, value.reshape(()), rtol=1e-4)
                expect(not same, f"{where} {hint}")
        expect_close(got, wanted, where)
    return (
        "Row number t of the logits speaks about token t + 1, so the last row of the prompt speaks about the answer's "
        "first token, and the last row of all about a token that is not there. Logarithms of probabilities add up."
    )


@exercise("dpo.3")
def exercise_dpo_3(answer: Callable[[torch.Tensor, float], torch.Tensor]) -> str:
    """`doubtful_loss(margin, flipped)`: the loss if a share of the labels is the wrong way round."""
    expect_function(answer, "doubtful_loss(margin, flipped)")
    generator = torch.Generator().manual_seed(112)
    for count, flipped in [(1, 0.0), (1, 0.2), (4, 0.1), (7, 0.5), (3, 0.3)]:
        margin = 2 * torch.randn(count, generator=generator)
        right, wrong = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        wanted = ((1 - flipped) * right + flipped * wrong).mean()
        got = answer(margin.clone(), flipped)
        where = f"This is for {count} margins and a share of {flipped}."
        if isinstance(got, torch.Tensor) and got.numel() == 1 and not torch.isclose(got, wanted, rtol=1e-3):
            expect(
                not torch.isclose(got, (flipped * right + (1 - flipped) * wrong).mean(), rtol=1e-4),
                f"{where} The two parts have each other's weights: most labels are right.",
            )
            expect(
                not torch.isclose(got, right.mean(), rtol=1e-4),
                f"{where} You take the plain loss, as if every label were right.",
            )
            expect(not torch.isclose(got, wanted * count, rtol=1e-4), f"{where} You add the pairs up; take their mean.")
            expect(not torch.isclose(got, -wanted, rtol=1e-4), f"{where} The sign: a loss is not negative.")
            expect(
                not torch.isclose(got, -F.logsigmoid((1 - 2 * flipped) * margin).mean(), rtol=1e-4),
                f"{where} You average the margins before the loss; average the two losses instead.",
            )
        expect_close(got, wanted, where)
    far = answer(torch.tensor([-200.0, 200.0]), 0.1)
    expect(
        bool(torch.isfinite(torch.as_tensor(far)).all()),
        "For a margin of 200 your result is not a finite number: a probability there is rounded to 0 or 1, and its "
        "logarithm is lost. PyTorch has the logarithm of the sigmoid as one function.",
    )
    return (
        "With a share of doubtful labels the loss has its lowest point at a finite margin, where the model says the "
        "other answer with just that probability, and beyond it the loss rises again: nothing pushes without end."
    )


_QUESTIONS = [
    Question(
        "Before the first update, policy and reference are the same model. What is the DPO loss?",
        {
            "a": (False, "It would be 0 only if the chosen answers were infinitely more rewarded than the rejected."),
            "b": (True, "all rewards are 0, so is every margin, and the sigmoid of 0 is one half, whatever beta is."),
            "c": (False, "Beta multiplies differences, and every one of them is 0 at this point."),
        },
    ),
    Question(
        "The margin grows in every update. What happens to the log-probability of the chosen answers?",
        {
            "a": (False, "That is what one expects, but the loss sees only the difference of the two."),
            "b": (False, "It may well change, since the same weights write both answers."),
            "c": (True, "the loss asks that it falls less than that of the rejected answers, and for nothing more."),
        },
    ),
    Question(
        "Why is the reference model's log-probability computed before the training?",
        {
            "a": (True, "the reference never changes, so each pair has one fixed number for each of its answers."),
            "b": (False, "No gradient ever goes through the reference, whenever it is computed."),
            "c": (False, "It is fixed, and not zero: most answers have some probability from the start."),
        },
    ),
    Question(
        "What does a larger beta do, with the rest as it was?",
        {
            "a": (False, "Beta multiplies the differences inside the loss, not the gradient as a whole."),
            "b": (True, "a small step away from the reference already earns a large reward, so the pull ends early."),
            "c": (False, "It is the other way round: a small beta lets the policy go far before the loss is content."),
        },
    ),
    Question(
        "After the tuning 100 percent of the answers are friendly, and the reward accuracy is 1. What do you know?",
        {
            "a": (False, "The pairs said nothing about truth: both answers of each had the same content."),
            "b": (False, "Nothing in the loss looks at what the model writes by itself, so fluency may be lost."),
            "c": (True, "the manner was learned; whether answers are right or readable has to be measured apart."),
        },
    ),
]

self_test_dpo = self_test("dpo", _QUESTIONS)
