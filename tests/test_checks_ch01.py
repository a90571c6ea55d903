"""The checkers of chapter 1: wrong answers get a hint that aims at the slip, right ones an explanation."""

import pytest
import torch

from helpers import checks
from tests import checkers


def most_probable(counts, token):
    if token not in counts:
        return None
    return max(counts[token], key=counts[token].get)


def training_pairs(tokens, context_length):
    return [(tokens[max(0, i - context_length) : i], tokens[i]) for i in range(1, len(tokens))]


def may_see(num_tokens, kind):
    places = range(num_tokens)
    return [[kind == "encoder" or column <= row for column in places] for row in places]


def reading_years(num_tokens, words_per_minute, hours_per_day):
    return num_tokens * 0.75 / words_per_minute / 60 / hours_per_day / 365


def looks_up(counts, token):
    followers = counts[token]  # a defaultdict gets the key by this
    return max(followers, key=followers.get, default=None)


def first_pair_too(tokens, context_length):
    return [(tokens[max(0, i - context_length) : i], tokens[i]) for i in range(len(tokens))]


def full_windows_only(tokens, context_length):
    return [(tokens[i - context_length : i], tokens[i]) for i in range(context_length, len(tokens))]


def consuming(tokens, context_length):
    pairs = training_pairs(tokens, context_length)
    tokens.clear()
    return pairs


RIGHT = {
    "1.1": most_probable,
    "1.2": training_pairs,
    "1.3": "dbac",
    "1.4": may_see,
    "1.5": reading_years,
}

WRONG = [
    (
        "1.1",
        lambda counts, token: max(counts[token], key=counts[token].get),
        "stops for a token that is not in the table",
    ),
    ("1.1", looks_up, "changed the table"),
    ("1.1", lambda counts, token: most_probable(counts, token) or "", "None is expected"),
    ("1.1", lambda counts, token: max(counts.get(token, {}).items(), key=lambda i: i[1], default=None), "the pair"),
    ("1.1", lambda counts, token: max(counts.get(token, {}).values(), default=None), "a count"),
    ("1.1", lambda counts, token: print(end=""), "Is there a return"),
    ("1.1", lambda counts, token: " dog" if token in counts else None, "never follows"),
    ("1.1", lambda counts, token: min(d := counts.get(token, {}), key=d.get, default=None), "occurs more often"),
    ("1.2", lambda tokens, context_length: tuple(training_pairs(tokens, context_length)), "A list of pairs"),
    ("1.2", lambda tokens, context_length: tokens[1:], "a pair of a context"),
    ("1.2", first_pair_too, "contexts is empty"),
    ("1.2", full_windows_only, "have one before them"),
    ("1.2", consuming, "changes the list"),
    ("1.2", lambda t, n: [(c, "a") for c, _ in training_pairs(t, n)], "Every token but the first"),
    ("1.2", lambda t, n: training_pairs(t, 99), "more than are allowed"),
    ("1.2", lambda t, n: training_pairs(t, max(1, n - 1)), "the last tokens before it"),
    ("1.2", lambda t, n: [(t[: min(i, n)], t[i]) for i in range(1, len(t))], "the last tokens before it"),
    ("1.3", 4, "A string of letters"),
    ("1.3", "dba", "Each of the letters"),
    ("1.3", "dabc", "Which step makes the base model"),
    ("1.3", "bdac", "Does it exist yet"),
    ("1.3", "dbca", "training to come after it"),
    ("1.4", lambda n, kind: "triangle", "A list of lists"),
    ("1.4", lambda n, kind: [[True] * n], "entries each"),
    ("1.4", lambda n, kind: may_see(n, "decoder"), "not even what comes later"),
    ("1.4", lambda n, kind: may_see(n, "encoder"), "and so the one that it is to predict"),
    ("1.4", lambda n, kind: [[kind == "encoder" or c < r for c in range(n)] for r in range(n)], "may see itself"),
    ("1.4", lambda n, kind: [[kind == "encoder" or c >= r for c in range(n)] for r in range(n)], "swapped"),
    ("1.4", lambda n, kind: [[kind == "encoder" or r - c in (0, 1) for c in range(n)] for r in range(n)], "in row 2"),
    ("1.5", lambda n, w, h: str(reading_years(n, w, h)), "must be one number"),
    ("1.5", lambda n, w, h: reading_years(n, w, h) * 4 / 3, "counted tokens as words"),
    ("1.5", lambda n, w, h: reading_years(n, w, h) * 16 / 9, "wrong way round"),
    ("1.5", lambda n, w, h: reading_years(n, w, h) * 60, "sixty times too large"),
    ("1.5", lambda n, w, h: reading_years(n, w, h) * 365, "that is days"),
    ("1.5", lambda n, w, h: reading_years(n, w, 24), "day and night"),
    ("1.5", lambda n, w, h: reading_years(n, w, h) * 1.01, "Go through the units"),
]

# What must never stand in a hint: the decisive piece of each solution.
SECRETS = {"1.1": "key=", "1.2": "max(0", "1.3": "dbac", "1.4": "<=", "1.5": "0.75"}


@pytest.mark.parametrize("number", RIGHT)
def test_right_answers(number):
    checkers.accepts(number, RIGHT[number])


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_wrong_answers(number, answer, hint):
    checkers.refuses(number, answer, hint, [SECRETS[number]])


def test_other_ways_to_write_a_right_answer():
    assert checks.exercise_1_1(lambda counts, token: max(d := counts.get(token, {}), key=d.get, default=None))
    assert checks.exercise_1_2(lambda t, n: [[t[:i][-n:], t[i]] for i in range(1, len(t))])
    assert checks.exercise_1_3(["d", "b", "a", "c"])
    assert checks.exercise_1_3("D, B, A, C")
    assert checks.exercise_1_4(lambda n, kind: torch.ones(n, n) if kind == "encoder" else torch.ones(n, n).tril())
