"""Checkers for the bonus notebook on reasoning models."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._core import Hint, copies, exercise, expect, expect_close, expect_kind, read_number, self_test


@exercise("reasoning.1", "weighted_vote(answers, weights)", may_return_none=True)
def exercise_reasoning_1(answer: Callable[[list, list], Any]) -> str:
    """`weighted_vote(answers, weights)`: the answer with the largest sum of weights, ties to the first, None aside."""
    draw = random.Random(121)
    cases = [
        ([3, 5, 5], [1.0, 0.4, 0.5]),  # a majority of votes, not of weight
        ([3, 5, 5], [0.5, 0.4, 0.3]),  # the largest single weight, not the largest sum
        ([7, None, None, 7], [0.1, 0.9, 0.9, 0.1]),
        ([4, 0, 0, 4], [0.5, 0.5, 0.25, 0.25]),  # a tie in exact fractions, the smaller digit second
        ([0, 9], [0.25, 0.25]),
        ([2, 8, 8], [0.0, 0.0, 0.0]),
        ([None, None], [0.5, 0.5]),
        ([], []),
    ]
    for _ in range(40):
        count = draw.randint(1, 9)
        answers = [draw.choice([None, 0, 1, 2, 6]) for _ in range(count)]
        cases.append((answers, [draw.randint(0, 4) / 4 for _ in range(count)]))
    got, expected, slips = [], [], {name: [] for name in _VOTING_SLIPS}
    for answers, weights in cases:
        given = list(answers), list(weights)
        got.append(_digit(answer(*given)))
        expect(given == (answers, weights), "Your function changes the lists that it is given; leave them as they are.")
        expected.append(_weighted_vote(answers, weights))
        for name, slip in _VOTING_SLIPS.items():
            slips[name].append(slip(answers, weights))
    for name, wrong in slips.items():
        expect(got != wrong, name)
    for (answers, weights), result, right in zip(cases, got, expected, strict=True):
        expect(result == right, f"For answers={answers} and weights={weights} you return {result}.")
    return (
        "A vote weighted by what a verifier, or the model itself, thinks of each answer. With equal weights it is the "
        "majority vote; with the weight 1 for what a verifier accepts and 0 for the rest, it is best of n."
    )


def _weighted_vote(answers: Sequence[int | None], weights: Sequence[float]) -> int | None:
    totals: dict[int, float] = {}
    for given, weight in zip(answers, weights, strict=True):
        if given is not None:
            totals[given] = totals.get(given, 0.0) + weight
    return max(totals, key=totals.__getitem__) if totals else None  # the first of equals: dictionaries keep their order


def _plain_vote(answers: Sequence[int | None], weights: Sequence[float]) -> int | None:
    return _weighted_vote(answers, [1.0] * len(answers))


def _largest_weight(answers: Sequence[int | None], weights: Sequence[float]) -> int | None:
    pairs = [(given, weight) for given, weight in zip(answers, weights, strict=True) if given is not None]
    return max(pairs, key=lambda pair: pair[1])[0] if pairs else None


def _smallest_of_ties(answers: Sequence[int | None], weights: Sequence[float]) -> int | None:
    order = sorted(range(len(answers)), key=lambda place: (answers[place] is None, answers[place]))
    return _weighted_vote([answers[place] for place in order], [weights[place] for place in order])


def _last_of_ties(answers: Sequence[int | None], weights: Sequence[float]) -> int | None:
    return _weighted_vote(answers[::-1], weights[::-1])


def _mean_weight(answers: Sequence[int | None], weights: Sequence[float]) -> int | None:
    counts = {given: answers.count(given) for given in answers}
    return _weighted_vote(answers, [weight / counts[given] for given, weight in zip(answers, weights, strict=True)])


_VOTING_SLIPS = {
    "You count votes; here the weights of an answer's votes are to be added up.": _plain_vote,
    "You take the single answer with the largest weight; the weights of equal answers are to be added up.": (
        _largest_weight
    ),
    "Where two answers have the same total, the one that came first is expected; you return the smaller digit.": (
        _smallest_of_ties
    ),
    "Where two answers have the same total, the one that came first is expected; you look from the end.": _last_of_ties,
    "You take the mean weight of equal answers. What many samples agree on then counts no more than one.": _mean_weight,
}


def _digit(result: Any) -> int | None:
    """The learner's result as an int or None. Raises `Hint` for anything else."""
    expect(not isinstance(result, tuple | list), "Return the answer alone, without its weight.")
    if result is None:
        return None
    number = read_number(result)
    expect(number.is_integer(), f"You return {number:g}, which is none of the answers.")
    return int(number)


@exercise("reasoning.2", "leave_one_out(rewards)")
def exercise_reasoning_2(answer: Callable[[torch.Tensor], torch.Tensor]) -> str:
    """`leave_one_out(rewards)`: each reward less the mean of the other rewards of its row."""
    generator = torch.Generator().manual_seed(122)
    for questions, samples in ((3, 4), (4, 4), (1, 2), (5, 8)):
        rewards = torch.rand(questions, samples, generator=generator)
        if samples == 8:
            rewards = rewards.round()  # as a verifier gives them
            rewards[0] = 1.0  # and a group in which all are right
        mean = rewards.mean(dim=1, keepdim=True)
        right = (rewards - mean) * samples / (samples - 1)
        deviation = rewards.std(dim=1, keepdim=True, unbiased=False)
        slips = [
            (rewards - mean, "You subtract the mean of the whole group; each answer's own reward must not be in it."),
            ((rewards - mean) / (deviation + 1e-4), "These are group_advantages, from the section above."),
            (right / (deviation + 1e-4), "The differences are right, but you divide by the deviation besides."),
            (-right, "The sign: an answer that is better than the others has a positive advantage."),
            (rewards - rewards.mean(), "You take one mean over all questions; each question is a group of its own."),
            (
                rewards - (rewards.sum() - rewards) / (rewards.numel() - 1),
                "You take the others of all questions; each question is a group of its own.",
            ),
            (
                rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / samples,
                "How many rewards are in the mean of the others?",
            ),
        ]
        if questions > 1:
            across = rewards - (rewards.sum(dim=0) - rewards) / (questions - 1)
            slips.append((across, "You take the others of a column; the samples of a question are in a row."))
        (given,) = copies([rewards])
        case = f"This is for {questions} questions with {samples} samples each."
        expect_close(answer(given), right, case, slips)
        expect(torch.equal(given, rewards), "Your function changes the rewards that it is given; work on a copy.")
    return (
        "A baseline that does not contain the answer's own reward leaves the gradient what it is on average. The mean "
        "of the whole group shrinks it by the factor (S - 1) / S, which a learning rate can make up for, so the two "
        "differ little in practice; dividing by the deviation is another matter, since it gives easy and hard "
        "questions the same weight."
    )


_QUESTION = [4, 7, 8, 5, 3, 1]  # its last digit is 8


@exercise("reasoning.3")
def exercise_reasoning_3(cheat: str, closed: Callable[[list[int], str], float] | None = None) -> str:
    """`cheat`, a text that `lenient` always rewards, and `closed(question, text)`, which it does not fool."""
    expect_kind(cheat, str, "First comes the text that cheats, a string; a string")
    expect(callable(closed), "Second comes the function closed itself, to be called as closed(question, text).")
    refused = [digit for digit in range(10) if f"={digit}" not in cheat]
    expect(
        not refused,
        f"Your text gets the reward for {10 - len(refused)} of the 10 possible results, and not where the result is "
        f"{refused[0] if refused else ''}. What exactly does lenient look for, and how often may it be there?",
    )
    draw = random.Random(123)
    questions = [_QUESTION, [0] * 6, *([draw.randrange(10) for _ in range(6)] for _ in range(10))]
    for question in questions:
        digit, other = sum(question) % 10, (sum(question) + draw.randint(1, 9)) % 10
        steps = "".join(str(draw.randrange(10)) for _ in range(5))
        for text in (f"={digit}.", f"={digit}", f"{steps}={digit}.", f"{steps[:2]}={digit}"):
            _judge(closed, question, text, 1.0, "that is one right result, which the reward should still count.")
        for text, why in (
            (cheat, "your own text still gets a reward."),
            (f"={digit}={digit}.", "there are two equals signs; only one result counts."),
            (f"={other}={digit}.", "it names another result first."),
            (f"={digit}={other}.", "it names another result after it."),
            (f"={digit}{other}.", "two digits stand after the equals sign."),
            (f"{steps}={other}.", "the result is wrong."),
            (f"{steps}.", "there is no result in it, only steps."),
            (f"{digit}", "there is no equals sign in it."),
            (f"={digit}..", "something follows the full stop."),
            (f"={digit}.{other}", "something follows the full stop."),
            (f"={digit}\n", "a line break follows; in a regular expression, $ also matches before one."),
            (f"={digit}.\n", "a line break follows; in a regular expression, $ also matches before one."),
            (f"x={digit}.", "steps are digits; something else stands before the equals sign."),
            ("", "it is empty."),
            ("=.", "the digit is missing."),
        ):
            _judge(closed, question, text, 0.0, why)
    return (
        "A program that is rewarded for lenient would find such a text sooner or later, and its reward would be "
        "perfect. A verifier has to say what the whole answer looks like, not what occurs in it. And what it was not "
        "tested on is where it will be used."
    )


def _judge(closed: Callable, question: list[int], text: str, right: float, why: str) -> None:
    shown = text if len(text) <= 24 else f"{text[:21]}..."
    result = closed(list(question), text)
    plain = result.item() if getattr(result, "shape", None) == () else result
    got = float(plain) if isinstance(plain, bool) else read_number(plain)  # True and False say the same
    if got != right:
        raise Hint(f"For {question}, whose sum ends in {sum(question) % 10}, closed gives {got:g} to {shown!r}: {why}")


self_test_reasoning = self_test("reasoning", "reasoning_models")
