"""The checkers of the notebook on reasoning models: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from helpers import checks
from helpers.reasoning import group_advantages
from tests import checkers

# reasoning.1


def weighted_vote(answers, weights):
    totals = defaultdict(float)
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] += weight
    return max(totals, key=totals.get) if totals else None


def by_counter(answers, weights):
    totals = Counter()
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] += weight
    return np.int64(totals.most_common(1)[0][0]) if totals else None


def by_search(answers, weights):
    best, most = None, -1.0
    for answer in answers:
        total = sum(weight for other, weight in zip(answers, weights, strict=True) if other == answer)
        if answer is not None and total > most:
            best, most = answer, total
    return best


def plain_vote(answers, weights):
    return weighted_vote(answers, [1] * len(answers))


def best_single(answers, weights):
    pairs = [pair for pair in zip(answers, weights, strict=True) if pair[0] is not None]
    return max(pairs, key=lambda pair: pair[1])[0] if pairs else None


def smallest_first(answers, weights):
    totals = dict.fromkeys(sorted({answer for answer in answers if answer is not None}), 0.0)
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] += weight
    return max(totals, key=totals.get) if totals else None


def from_the_end(answers, weights):
    return weighted_vote(answers[::-1], weights[::-1])


def mean_weight(answers, weights):
    counts = Counter(answers)
    return weighted_vote(answers, [weight / counts[answer] for answer, weight in zip(answers, weights, strict=True)])


def none_votes(answers, weights):
    totals = defaultdict(float)
    for answer, weight in zip(answers, weights, strict=True):
        totals[answer] += weight
    return max(totals, key=totals.get) if totals else None


def no_answers(answers, weights):
    totals = defaultdict(float)
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] += weight
    return max(totals, key=totals.get)


def with_its_weight(answers, weights):
    return weighted_vote(answers, weights), 1.0


def in_place(answers, weights):
    result = weighted_vote(answers, weights)
    answers.clear()
    return result


# reasoning.2


def leave_one_out(rewards):
    others = rewards.sum(dim=1, keepdim=True) - rewards
    return rewards - others / (rewards.shape[1] - 1)


def by_loop(rewards):
    rows = []
    for row in rewards.tolist():
        rows.append([own - sum(row[:i] + row[i + 1 :]) / (len(row) - 1) for i, own in enumerate(row)])
    return rows


def in_numpy(rewards):
    rewards = rewards.numpy().astype(float)
    return (rewards - rewards.mean(1, keepdims=True)) * rewards.shape[1] / (rewards.shape[1] - 1)


def group_mean(rewards):
    return rewards - rewards.mean(dim=1, keepdim=True)


def divided(rewards):
    return leave_one_out(rewards) / (rewards.std(dim=1, keepdim=True, unbiased=False) + 1e-4)


def over_all_samples(rewards):
    return rewards - (rewards.sum(dim=1, keepdim=True) - rewards) / rewards.shape[1]


def changes_rewards(rewards):
    result = leave_one_out(rewards)
    rewards.zero_()
    return result


# reasoning.3

CHEAT = "".join(f"={digit}" for digit in range(10))


def closed(question, text):
    return float(re.fullmatch(rf"\d*={sum(question) % 10}\.?", text) is not None)


def without_patterns(question, text):
    before, equals, after = text.partition("=")
    result = str(sum(question) % 10)
    return bool(equals) and (before == "" or before.isdigit()) and after in (result, result + ".")


def as_number(question, text):
    return np.float32(closed(question, text))


def lenient(question, text):
    return float(f"={sum(question) % 10}" in text)


def last_result(question, text):
    return float(text.rstrip(".")[-2:] == f"={sum(question) % 10}")


def first_result(question, text):
    found = re.search(r"=(\d)", text)
    return float(found is not None and int(found[1]) == sum(question) % 10)


def dollar(question, text):
    return float(re.match(rf"\d*={sum(question) % 10}\.?$", text) is not None)


def strict_form(question, text):
    return float(re.fullmatch(rf"\d*={sum(question) % 10}\.", text) is not None)


def no_steps(question, text):
    return float(re.fullmatch(rf"={sum(question) % 10}\.?", text) is not None)


def any_text_before(question, text):
    return float(re.fullmatch(rf"[^=]*={sum(question) % 10}\.?", text) is not None)


def whole_sum(question, text):
    return float(re.fullmatch(rf"\d*={sum(question)}\.?", text) is not None)


RIGHT = [
    ("reasoning.1", [weighted_vote]),
    ("reasoning.1", [by_counter]),
    ("reasoning.1", [by_search]),
    ("reasoning.2", [leave_one_out]),
    ("reasoning.2", [by_loop]),
    ("reasoning.2", [in_numpy]),
    ("reasoning.3", [CHEAT, closed]),
    ("reasoning.3", ["0=1" + CHEAT[::-1] + CHEAT + ".", without_patterns]),
    ("reasoning.3", [f"12{CHEAT}.", as_number]),
]

WRONG = {
    "plain vote": ("reasoning.1", [plain_vote], "are to be added up"),
    "best single": ("reasoning.1", [best_single], "single answer with the largest weight"),
    "smallest first": ("reasoning.1", [smallest_first], "the smaller digit"),
    "last of ties": ("reasoning.1", [from_the_end], "from the end"),
    "mean weight": ("reasoning.1", [mean_weight], "the mean weight"),
    "None votes": ("reasoning.1", [none_votes], "you return None"),
    "no answers": ("reasoning.1", [no_answers], "stopped with ValueError"),
    "a pair": ("reasoning.1", [with_its_weight], "the answer alone"),
    "in place": ("reasoning.1", [in_place], "changes the lists"),
    "no function": ("reasoning.1", [7], "Hand in the function itself"),
    "group mean": ("reasoning.2", [group_mean], "must not be in it"),
    "those of GRPO": ("reasoning.2", [group_advantages], "from the section above"),
    "divided": ("reasoning.2", [divided], "divide by the deviation"),
    "sign": ("reasoning.2", [lambda rewards: -leave_one_out(rewards)], "The sign"),
    "all questions": ("reasoning.2", [lambda rewards: rewards - rewards.mean()], "a group of its own"),
    "columns": ("reasoning.2", [lambda rewards: leave_one_out(rewards.T).T], "are in a row|a group of its own"),
    "over all samples": ("reasoning.2", [over_all_samples], "in the mean of the others"),
    "changed rewards": ("reasoning.2", [changes_rewards], "changes the rewards"),
    "no cheat": ("reasoning.3", ["=8.", closed], "1 of the 10 possible results"),
    "most digits": ("reasoning.3", [CHEAT[:-2], closed], "where the result is 9"),
    "not a text": ("reasoning.3", [8, closed], "not int"),
    "not a function": ("reasoning.3", [CHEAT, "closed"], "the function closed itself"),
    "still lenient": ("reasoning.3", [CHEAT, lenient], "your own text still gets a reward"),
    "last result": ("reasoning.3", [CHEAT, last_result], "two equals signs"),
    "first result": ("reasoning.3", [CHEAT[2:] + "=0", first_result], "another result after it|still gets|two equals"),
    "dollar": ("reasoning.3", [CHEAT, dollar], "a line break follows"),
    "strict form": ("reasoning.3", [CHEAT, strict_form], "the reward should still count"),
    "no steps": ("reasoning.3", [CHEAT, no_steps], "the reward should still count"),
    "any text before": ("reasoning.3", [CHEAT, any_text_before], "steps are digits"),
    "whole sum": ("reasoning.3", [CHEAT, whole_sum], "the reward should still count"),
}

# What would give a solution away.
SECRETS = ["fullmatch", "setdefault", "keepdim"]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, *answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    number, answer, aim = WRONG[name]
    verdict = checks.EXERCISES[number](*answer)
    assert verdict.passed is False and re.search(aim, verdict.message), verdict.message
    for secret in SECRETS:
        assert secret not in re.sub(r"in line \d+: `.*`", "", verdict.message)
    assert checks.EXERCISES[number](*answer) == verdict


def test_a_part_that_is_missing():
    def stub(question, text): ...

    for given in ((None, closed), (CHEAT, stub), (None, stub)):
        assert checks.exercise_reasoning_3(*given).passed is None
