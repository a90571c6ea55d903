"""The checkers of chapter 6: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
import torch

from helpers import checks
from helpers.course.checks import ch06
from tests.checkers import fails


@pytest.mark.parametrize("number", range(5))
def test_no_answer_and_no_function(number):
    checker = getattr(checks, f"exercise_6_{number}")
    assert checker(None).passed is None
    assert checks.EXERCISES[f"6.{number}"](...).passed is None
    fails(checker(0.5), "function itself")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize(("result", "word"), [(None, "return"), ("much", "One number"), ([1, 2], "One number")])
def test_results_of_the_wrong_kind(number, result, word):
    fails(getattr(checks, f"exercise_6_{number}")(lambda *args: result), word)


# 6.0


def majority(labels):
    return Counter(labels).most_common(1)[0][1] / len(labels)


def test_6_0_right():
    states = torch.get_rng_state(), random.getstate()
    assert checks.exercise_6_0(majority)
    assert checks.exercise_6_0(lambda labels: torch.tensor(majority(labels)))
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda labels: Counter(labels).most_common()[-1][1] / len(labels), "rarest"),
        (lambda labels: 1 / len(set(labels)), "equally frequent"),
        (lambda labels: labels.count(labels[0]) / len(labels), "first label"),
        (lambda labels: 1 - majority(labels), "wrong"),
        (lambda labels: 100 * majority(labels), "from 0 to 1"),
        (lambda labels: -0.5, "not a share"),
        (lambda labels: 0.123, "Expected"),
    ],
)
def test_6_0_wrong(wrong, word):
    verdict = checks.exercise_6_0(wrong)
    fails(verdict, word)
    assert "Counter" not in verdict.message


# 6.1


def padding_share(lengths, max_length):
    return 1 - sum(min(length, max_length) for length in lengths) / (len(lengths) * max_length)


def test_6_1_right():
    assert checks.exercise_6_1(padding_share)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda lengths, most: 1 - padding_share(lengths, most), "real tokens"),
        (lambda lengths, most: 1 - sum(lengths) / (len(lengths) * most), "longer than max_length"),
        (lambda lengths, most: max(0, 1 - sum(lengths) / (len(lengths) * most)), "make up"),
        (lambda lengths, most: sum(length < most for length in lengths) / len(lengths), "messages with padding"),
        (lambda lengths, most: 0.37, "Expected"),
        (lambda lengths, most: lengths[99], "IndexError"),
    ],
)
def test_6_1_wrong(wrong, word):
    verdict = checks.exercise_6_1(wrong)
    fails(verdict, word)
    assert "min(" not in verdict.message


# 6.2


def training_bytes(model):
    return 12 * sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_6_2_right():
    state = torch.get_rng_state()
    assert checks.exercise_6_2(training_bytes)
    assert torch.equal(state, torch.get_rng_state())


def counted_twice(model):
    return 12 * sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False) if p.requires_grad)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda model: 12 * sum(p.numel() for p in model.parameters()), "frozen parameters too"),
        (lambda model: training_bytes(model) * 2 // 3, "three are kept"),
        (lambda model: training_bytes(model) // 3, "one number"),
        (lambda model: training_bytes(model) * 4 // 3, "weights themselves"),
        (lambda model: training_bytes(model) // 4, "how many bytes"),
        (counted_twice, "only one gradient"),
        (lambda model: 12 * sum(p.numel() for p in model.parameters() if not p.requires_grad), "other way round"),
        (lambda model: training_bytes(model.requires_grad_(True)), "changes what is frozen"),
        (lambda model: 7, "Expected"),
    ],
)
def test_6_2_wrong(wrong, word):
    verdict = checks.exercise_6_2(wrong)
    fails(verdict, word)
    assert "12 *" not in verdict.message


def test_6_2_quotes_what_gpt2_takes():
    block, norm, head, whole = 7_087_872, 1536, 1538, 124_439_808  # with biases for queries, keys and values
    message = checks.exercise_6_2(training_bytes).message
    assert f"{12 * (whole + head) / 1e9:.1f} GB" in message
    assert f"{12 * (block + norm + head) / 1e6:.0f} MB" in message


# 6.3


def first_token_ceiling(first, labels):
    groups = defaultdict(list)
    for token, label in zip(first, labels, strict=True):
        groups[token].append(label)
    return sum(max(Counter(group).values()) for group in groups.values()) / len(labels)


def mean_of_shares(first, labels):
    groups = defaultdict(list)
    for token, label in zip(first, labels, strict=True):
        groups[token].append(label)
    return sum(max(Counter(group).values()) / len(group) for group in groups.values()) / len(groups)


def last_seen(first, labels):
    rule = dict(zip(first, labels, strict=True))
    return sum(rule[token] == label for token, label in zip(first, labels, strict=True)) / len(labels)


def test_6_3_right():
    assert checks.exercise_6_3(first_token_ceiling)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda first, labels: majority(labels), "most frequent label"),
        (mean_of_shares, "count for more"),
        (last_seen, "last label"),
        (lambda first, labels: 1 - first_token_ceiling(first, labels), "wrong"),
        (lambda first, labels: sum(labels), "from 0 to 1"),
        (lambda first, labels: 0.99, "Expected"),
    ],
)
def test_6_3_wrong(wrong, word):
    verdict = checks.exercise_6_3(wrong)
    fails(verdict, word)
    assert "max(" not in verdict.message


# 6.4


def precision(recall, false_alarms, spam_share):
    right, wrong = recall * spam_share, false_alarms * (1 - spam_share)
    return right / (right + wrong) if right + wrong else 0.0


def test_6_4_right():
    verdict = checks.exercise_6_4(precision)
    assert verdict
    for share, percent in ((0.5, "95"), (0.13, "74"), (0.02, "28")):
        assert f"{100 * precision(0.95, 0.05, share):.0f}" == percent and percent in verdict.message


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda r, f, s: r / (r + f), "what about the share of spam"),
        (lambda r, f, s: 1 - precision(r, f, s), "share of ham"),
        (lambda r, f, s: r * s, "among all messages"),
        (lambda r, f, s: r * s + f * (1 - s), "that are flagged"),
        (lambda r, f, s: r * s / (r * s + f), "share of the ham"),
        (lambda r, f, s: r * s + (1 - f) * (1 - s), "accuracy"),
        (lambda r, f, s: r * s / (r * s + f * (1 - s)), "divides by zero"),
        (lambda r, f, s: precision(r, f, s) if r else 1.0, "never flags"),
        (lambda r, f, s: 0.5, "Expected"),
    ],
)
def test_6_4_wrong(wrong, word):
    verdict = checks.exercise_6_4(wrong)
    fails(verdict, word)
    assert "(1 -" not in verdict.message


# The self-test


def test_self_test():
    right = {"q1": "b", "q2": "b", "q3": "c", "q4": "b", "q5": "a"}
    assert checks.self_test_6(**right)
    assert checks.self_test_6().passed is None
    for number, question in enumerate(ch06._QUESTIONS, start=1):
        assert [letter for letter, (good, _) in question.options.items() if good] == [right[f"q{number}"]]
        for letter, (good, why) in question.options.items():
            verdict = checks.self_test_6(**{f"q{number}": letter})
            assert why in verdict.message and ("1 of 5" if good else "0 of 5") in verdict.message
