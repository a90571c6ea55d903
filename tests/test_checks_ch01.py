"""The checkers of chapter 1: wrong answers get a hint that aims at the slip, right ones an explanation."""

import random

import pytest
import torch

from helpers import checks
from helpers.course.checks import ch01


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
    ("1.1", " cat", "function itself"),
    ("1.1", lambda counts, token: max(counts[token], key=counts[token].get), "your function stops with"),
    ("1.1", looks_up, "changed the table"),
    ("1.1", lambda counts, token: most_probable(counts, token) or "", "None is wanted"),
    ("1.1", lambda counts, token: max(counts.get(token, {}).items(), key=lambda i: i[1], default=None), "the pair"),
    ("1.1", lambda counts, token: max(counts.get(token, {}).values(), default=None), "a count"),
    ("1.1", lambda counts, token: None, "Is there a return"),
    ("1.1", lambda counts, token: " dog" if token in counts else None, "never follows"),
    ("1.1", lambda counts, token: min(d := counts.get(token, {}), key=d.get, default=None), "occurs more often"),
    ("1.2", 3, "function itself"),
    ("1.2", lambda tokens, context_length: None, "A list of pairs"),
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
    ("1.3", "bdac", "Is it there yet"),
    ("1.3", "dbca", "training to come after it"),
    ("1.4", [[True]], "function itself"),
    ("1.4", lambda n, kind: None, "Is there a return"),
    ("1.4", lambda n, kind: True, "A list of lists"),
    ("1.4", lambda n, kind: [[True] * n], "entries each"),
    ("1.4", lambda n, kind: may_see(n, "decoder"), "not even what comes later"),
    ("1.4", lambda n, kind: may_see(n, "encoder"), "in plain sight"),
    ("1.4", lambda n, kind: [[kind == "encoder" or c < r for c in range(n)] for r in range(n)], "may see itself"),
    ("1.4", lambda n, kind: [[kind == "encoder" or c >= r for c in range(n)] for r in range(n)], "swapped"),
    ("1.4", lambda n, kind: [[kind == "encoder" or r - c in (0, 1) for c in range(n)] for r in range(n)], "in row 2"),
    ("1.5", 5137.0, "function itself"),
    ("1.5", lambda n, w, h: None, "A number is wanted"),
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
def test_right_answers_pass_and_are_explained(number):
    verdict = checks.EXERCISES[number](RIGHT[number])
    assert verdict.passed is True, verdict
    assert len(verdict.message.split()) > 15


@pytest.mark.parametrize("number", RIGHT)
def test_no_answer_is_neither_right_nor_wrong(number):
    assert checks.EXERCISES[number](None).passed is None


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_wrong_answers_get_the_hint_that_fits(number, answer, hint):
    verdict = checks.EXERCISES[number](answer)
    assert verdict.passed is False
    assert hint in verdict.message
    assert SECRETS[number] not in verdict.message
    assert verdict.message == checks.EXERCISES[number](answer).message


def test_other_ways_to_write_a_right_answer():
    assert checks.exercise_1_1(lambda counts, token: max(d := counts.get(token, {}), key=d.get, default=None))
    assert checks.exercise_1_2(lambda t, n: [[t[:i][-n:], t[i]] for i in range(1, len(t))])
    assert checks.exercise_1_3(["d", "b", "a", "c"])
    assert checks.exercise_1_3("D, B, A, C")
    assert checks.exercise_1_4(lambda n, kind: torch.ones(n, n) if kind == "encoder" else torch.ones(n, n).tril())


def test_checkers_leave_the_random_states_alone():
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    for number, answer in RIGHT.items():
        checks.EXERCISES[number](answer)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state


@pytest.mark.parametrize("question", range(4))
def test_every_quiz_option_is_explained_and_one_is_right(question):
    options = ch01._QUESTIONS[question].options
    assert sum(right for right, _ in options.values()) == 1
    for letter, (right, why) in options.items():
        verdict = checks.self_test_1(**{f"q{question + 1}": letter})
        assert why in verdict.message and len(why.split()) >= 8
        assert verdict.message.startswith("1 of 4" if right else "0 of 4")


def test_quiz_as_a_whole():
    assert checks.self_test_1().passed is None
    assert checks.self_test_1("b", "a", "b", "c").passed is True
    assert checks.self_test_1("B", "a", "b", "a").passed is False
