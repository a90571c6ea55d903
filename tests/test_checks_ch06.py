"""The checkers of chapter 6: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import torch

from helpers import checks
from tests import checkers
from tests.checkers import fails

RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# 6.0


def majority(labels):
    return Counter(labels).most_common(1)[0][1] / len(labels)


RIGHT += [("6.0", majority), ("6.0", lambda labels: torch.tensor(majority(labels)))]

WRONG += [
    ("6.0", lambda labels: Counter(labels).most_common()[-1][1] / len(labels), "rarest"),
    ("6.0", lambda labels: 1 / len(set(labels)), "equally frequent"),
    ("6.0", lambda labels: labels.count(labels[0]) / len(labels), "first label"),
    ("6.0", lambda labels: 1 - majority(labels), "wrong"),
    ("6.0", lambda labels: 100 * majority(labels), "from 0 to 1"),
    ("6.0", lambda labels: -0.5, "not a share"),
    ("6.0", lambda labels: 0.123, "expected"),
]


# 6.1


def padding_share(lengths, max_length):
    return 1 - sum(min(length, max_length) for length in lengths) / (len(lengths) * max_length)


RIGHT += [("6.1", padding_share)]

WRONG += [
    ("6.1", lambda lengths, most: 1 - padding_share(lengths, most), "real tokens"),
    ("6.1", lambda lengths, most: 1 - sum(lengths) / (len(lengths) * most), "longer than max_length"),
    ("6.1", lambda lengths, most: max(0, 1 - sum(lengths) / (len(lengths) * most)), "make up"),
    ("6.1", lambda lengths, most: sum(length < most for length in lengths) / len(lengths), "messages with padding"),
    ("6.1", lambda lengths, most: 0.37, "expected"),
    ("6.1", lambda lengths, most: lengths[99], "IndexError"),
]


# 6.2


def training_bytes(model):
    return 12 * sum(p.numel() for p in model.parameters() if p.requires_grad)


RIGHT += [("6.2", training_bytes)]


def counted_twice(model):
    return 12 * sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False) if p.requires_grad)


WRONG += [
    ("6.2", lambda model: 12 * sum(p.numel() for p in model.parameters()), "frozen parameters too"),
    ("6.2", lambda model: training_bytes(model) * 2 // 3, "three are kept"),
    ("6.2", lambda model: training_bytes(model) // 3, "one number"),
    ("6.2", lambda model: training_bytes(model) * 4 // 3, "weights themselves"),
    ("6.2", lambda model: training_bytes(model) // 4, "how many bytes"),
    ("6.2", counted_twice, "only one gradient"),
    ("6.2", lambda model: 12 * sum(p.numel() for p in model.parameters() if not p.requires_grad), "other way round"),
    ("6.2", lambda model: training_bytes(model.requires_grad_(True)), "changes what is frozen"),
    ("6.2", lambda model: 7, "expected"),
]


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


RIGHT += [("6.3", first_token_ceiling)]

WRONG += [
    ("6.3", lambda first, labels: majority(labels), "most frequent label"),
    ("6.3", mean_of_shares, "count for more"),
    ("6.3", last_seen, "last label"),
    ("6.3", lambda first, labels: 1 - first_token_ceiling(first, labels), "wrong"),
    ("6.3", lambda first, labels: sum(labels), "from 0 to 1"),
    ("6.3", lambda first, labels: 0.99, "expected"),
]


# 6.4


def precision(recall, false_alarms, spam_share):
    right, wrong = recall * spam_share, false_alarms * (1 - spam_share)
    return right / (right + wrong) if right + wrong else 0.0


RIGHT += [("6.4", precision)]


def test_6_4_quotes_what_the_share_of_spam_does():
    message = checks.exercise_6_4(precision).message
    for share, percent in ((0.5, "95"), (0.13, "74"), (0.02, "28")):
        assert f"{100 * precision(0.95, 0.05, share):.0f}" == percent and percent in message


WRONG += [
    ("6.4", lambda r, f, s: r / (r + f), "what about the share of spam"),
    ("6.4", lambda r, f, s: 1 - precision(r, f, s), "share of ham"),
    ("6.4", lambda r, f, s: r * s, "among all messages"),
    ("6.4", lambda r, f, s: r * s + f * (1 - s), "that are flagged"),
    ("6.4", lambda r, f, s: r * s / (r * s + f), "share of the ham"),
    ("6.4", lambda r, f, s: r * s + (1 - f) * (1 - s), "accuracy"),
    ("6.4", lambda r, f, s: r * s / (r * s + f * (1 - s)), "divides by zero"),
    ("6.4", lambda r, f, s: precision(r, f, s) if r else 1.0, "never flags"),
    ("6.4", lambda r, f, s: 0.5, "expected"),
]


GIVEAWAYS = {"6.0": ["Counter"], "6.1": ["min("], "6.2": ["12 *"], "6.3": ["max("], "6.4": ["(1 -"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("result", ["much", [1, 2]])
def test_results_of_the_wrong_kind(number, result):
    fails(getattr(checks, f"exercise_6_{number}")(lambda *args: result), "must be one number")
