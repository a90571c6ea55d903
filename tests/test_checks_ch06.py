"""The checkers of chapter 6: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from helpers import checks
from tests import checkers
from tests.checkers import fails

RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# 6.A


def shares(labels, predicted):
    pairs = list(zip(labels, predicted, strict=True))
    return {one: sum(a == b == one for a, b in pairs) / list(labels).count(one) for one in set(labels)}


def balanced_accuracy(labels, predicted):
    return sum(shares(labels, predicted).values()) / len(set(labels))


def with_scikit_learn(labels, predicted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that occurs only among the predictions
        return balanced_accuracy_score(labels, predicted)


RIGHT += [
    ("6.A", balanced_accuracy),
    ("6.A", with_scikit_learn),
    ("6.A", lambda labels, predicted: torch.tensor(list(shares(labels, predicted).values())).mean()),
    ("6.A", lambda labels, predicted: round(balanced_accuracy(labels, predicted), 4)),
]


def precisions(labels, predicted):
    return balanced_accuracy(predicted, labels)


def over_all_names(labels, predicted):
    return sum(shares(labels, predicted).values()) / len({*labels, *predicted})


WRONG += [
    ("6.A", lambda a, b: sum(x == y for x, y in zip(a, b, strict=True)) / len(a), "plain accuracy"),
    ("6.A", precisions, "divide by how many messages are of the class"),
    ("6.A", over_all_names, "only among the predictions"),
    ("6.A", lambda a, b: min(shares(a, b).values()), "lowest"),
    ("6.A", lambda a, b: 1 - balanced_accuracy(a, b), "not recognised"),
    ("6.A", lambda a, b: 100 * balanced_accuracy(a, b), "from 0 to 1"),
    ("6.A", lambda a, b: 1 / len(set(a)), "expected"),
    ("6.A", lambda a, b: a[99], "IndexError"),
]


# 6.1


def padding(lengths, batch_size):
    batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
    return sum(max(batch) - length for batch in batches for length in batch)


def padding_saved(lengths, batch_size):
    return padding(lengths, batch_size) - padding(sorted(lengths), batch_size)


def longest_first(lengths, batch_size):
    """The same as from short to long where the last batch is full."""
    return padding(lengths, batch_size) - padding(sorted(lengths, reverse=True), batch_size)


def in_place(lengths, batch_size):
    before = padding(lengths, batch_size)
    lengths.sort()
    return before - padding(lengths, batch_size)


def full_batches_only(lengths, batch_size):
    whole = len(lengths) // batch_size * batch_size
    return padding(lengths[:whole], batch_size) - padding(sorted(lengths)[:whole], batch_size)


def last_batch_filled_up(lengths, batch_size):
    def filled(lengths):
        batches = [lengths[i : i + batch_size] for i in range(0, len(lengths), batch_size)]
        return sum(max(batch) * batch_size - sum(batch) for batch in batches)

    return filled(lengths) - filled(sorted(lengths))


RIGHT += [
    ("6.1", padding_saved),
    ("6.1", lambda lengths, size: torch.tensor(padding_saved(lengths, size))),
    ("6.1", lambda lengths, size: float(padding_saved(lengths, size))),
]

WRONG += [
    ("6.1", padding, "without sorting"),
    ("6.1", lambda lengths, size: padding(sorted(lengths), size), "left after sorting"),
    ("6.1", full_batches_only, "last batch counts"),
    ("6.1", last_batch_filled_up, "fewer rows"),
    ("6.1", lambda n, size: max(n) * len(n) - sum(n) - padding(sorted(n), size), "its own longest"),
    ("6.1", lambda n, size: padding_saved(n, size) / max(1, padding(n, size)), "number of positions"),
    ("6.1", lambda n, size: -padding_saved(n, size), "other way round"),
    ("6.1", in_place, "changes the list"),
    ("6.1", longest_first, "expected"),
    ("6.1", lambda n, size: 0, "expected"),
]


# 6.B

BREAKING = [10, 50256, 11, 50256]
RIGHT += [
    ("6.B", BREAKING),
    ("6.B", torch.tensor([5, 6, 50256, 7, 8, 50256, 50256])),
    ("6.B", (50256, 5, 50256)),
    ("6.B", np.array([[10, 50256, 11, 50256]])),
]
WRONG += [
    ("6.B", [10, 11, 12, 50256, 50256], "read at position 2"),
    ("6.B", [10, 11, 12], "read at position 2"),
    ("6.B", [50256, 50256], "all padding"),
    ("6.B", [10, 50256, 11], "end in padding"),
    ("6.B", [[10, 50256, 11, 50256], [1, 2, 3, 4]], "One row"),
    ("6.B", [10.5, 50256, 11, 50256], "whole numbers"),
    ("6.B", [10, 50257, 11, 50256], "between 0 and"),
    ("6.B", [], "One row"),
    ("6.B", "10 50256 11", "is expected"),
]


# 6.2


def training_bytes(model):
    return 12 * sum(p.numel() for p in model.parameters() if p.requires_grad)


RIGHT += [
    ("6.2", training_bytes),
    ("6.2", lambda model: torch.tensor(training_bytes(model))),
    ("6.2", lambda model: float(training_bytes(model))),
]


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


def first_seen(first, labels):
    rule = {}
    for token, label in zip(first, labels, strict=True):
        rule.setdefault(token, label)
    return sum(rule[token] == label for token, label in zip(first, labels, strict=True)) / len(labels)


def majority(labels):
    return Counter(labels).most_common(1)[0][1] / len(labels)


RIGHT += [
    ("6.3", first_token_ceiling),
    ("6.3", lambda first, labels: torch.tensor(first_token_ceiling(first, labels))),
    ("6.3", lambda first, labels: np.float32(first_token_ceiling(first, labels))),
]

WRONG += [
    ("6.3", lambda first, labels: majority(labels), "most frequent label"),
    ("6.3", mean_of_shares, "count for more"),
    ("6.3", last_seen, "last label"),
    ("6.3", first_seen, "first label seen"),
    ("6.3", lambda first, labels: 1 - first_token_ceiling(first, labels), "wrong"),
    ("6.3", lambda first, labels: sum(labels), "from 0 to 1"),
    ("6.3", lambda first, labels: 0.99, "expected"),
]


# 6.C


def stop_after(val_losses, patience):
    best, waited = 0, 0
    for index, loss in enumerate(val_losses[1:], start=1):
        best, waited = (index, 0) if loss < val_losses[best] else (best, waited + 1)
        if waited == patience:
            break
    return best


def seen_until(val_losses, patience):
    for index in range(len(val_losses)):
        if index >= patience and min(val_losses[: index - patience + 1]) <= min(
            val_losses[index - patience + 1 : index + 1]
        ):
            return val_losses[: index + 1]
    return val_losses


def rises_in_a_row(val_losses, patience):
    streak, seen = 0, [val_losses[0]]
    for before, loss in pairwise(val_losses):
        seen.append(loss)
        streak = streak + 1 if loss > before else 0
        if streak == patience:
            break
    return seen.index(min(seen))


def equal_is_better(val_losses, patience):
    best, waited = 0, 0
    for index, loss in enumerate(val_losses[1:], start=1):
        best, waited = (index, 0) if loss <= val_losses[best] else (best, waited + 1)
        if waited == patience:
            break
    return best


RIGHT += [
    ("6.C", stop_after),
    ("6.C", lambda losses, patience: seen_until(losses, patience).index(min(seen_until(losses, patience)))),
    ("6.C", lambda losses, patience: np.int64(stop_after(losses, patience))),
    ("6.C", lambda losses, patience: torch.tensor(stop_after(losses, patience))),
]

WRONG += [
    ("6.C", lambda losses, patience: losses.index(min(losses)), "after the stop"),
    ("6.C", lambda losses, patience: len(seen_until(losses, patience)) - 1, "where the training stops"),
    ("6.C", rises_in_a_row, "in a row the loss rises"),
    ("6.C", lambda losses, patience: stop_after(losses, patience + 1), "too late"),
    ("6.C", equal_is_better, "expected"),
    ("6.C", lambda losses, patience: len(losses), "is not the index"),
    ("6.C", lambda losses, patience: losses.sort() or 0, "changes the list"),
    ("6.C", lambda losses, patience: min(losses), "whole number"),
    ("6.C", lambda losses, patience: 0, "expected"),
]


# 6.D


def ham_of(p_spam, labels):
    return sorted((p for p, label in zip(p_spam, labels, strict=True) if label == 0), reverse=True)


def threshold_for(p_spam, labels, max_false_alarms):
    for threshold in sorted({0.0, *p_spam}):
        if sum(p > threshold for p in ham_of(p_spam, labels)) <= max_false_alarms * labels.count(0):
            return threshold
    return None


def by_counting(p_spam, labels, max_false_alarms):
    ham = ham_of(p_spam, labels)
    allowed = int(max_false_alarms * len(ham))
    return ham[allowed] if allowed < len(ham) else 0.0


def of_all_messages(p_spam, labels, max_false_alarms):
    return by_counting(p_spam, [0] * len(labels), max_false_alarms)


RIGHT += [
    ("6.D", threshold_for),
    ("6.D", by_counting),
    ("6.D", lambda p, labels, limit: torch.tensor(by_counting(p, labels, limit), dtype=torch.float64)),
    ("6.D", lambda p, labels, limit: np.float64(by_counting(p, labels, limit))),
]

WRONG += [
    ("6.D", lambda p, labels, limit: 0.5, "of the ham is flagged"),
    ("6.D", lambda p, labels, limit: 1.0, "get through"),
    ("6.D", lambda p, labels, limit: max(ham_of(p, labels)), "get through"),
    ("6.D", lambda p, labels, limit: 1 - limit, "get through"),
    ("6.D", lambda p, labels, limit: by_counting(p, [1 - label for label in labels], limit), "get through"),
    ("6.D", of_all_messages, "get through"),
    ("6.D", lambda p, labels, limit: 100 * by_counting(p, labels, limit), "from 0 to 1"),
    ("6.D", lambda p, labels, limit: p.sort() or 1.0, "changes the lists"),
]


GIVEAWAYS = {"6.A": ["set("], "6.1": ["sorted("], "6.2": ["12 *"], "6.3": ["max("], "6.C": ["<"], "6.D": ["sorted"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))


@pytest.mark.parametrize("number", ["6_a", "6_1", "6_2", "6_3", "6_c", "6_d"])
@pytest.mark.parametrize("result", ["much", [1, 2]])
def test_results_of_the_wrong_kind(number, result):
    word = "whole number" if number == "6_c" else "must be one number"
    fails(getattr(checks, f"exercise_{number}")(lambda *args: result), word)


def test_a_hint_is_given_only_if_the_slip_explains_every_case():
    """The first label seen is often the most frequent one, or how often that rule is wrong."""
    assert "how often" not in checks.exercise_6_3(first_seen).message
