"""The checkers of chapter 1: wrong answers get a hint that aims at the slip, right ones an explanation."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from helpers import checks, get_tokenizer
from tests import checkers
from tests.checkers import fails

# ---- 1.A ------------------------------------------------------------------------------------------------------------


def most_probable(counts, token):
    if token not in counts:
        return None
    return max(counts[token], key=counts[token].get)


def by_counter(counts, token):
    ranking = Counter(counts.get(token, {})).most_common(1)
    return ranking[0][0] if ranking else None


def by_sorting(counts, token):
    best = sorted(counts.get(token, {}).items(), key=lambda item: item[1])
    return best[-1][0] if best else None


def looks_up(counts, token):
    followers = counts[token]  # a defaultdict gets the key by this
    return max(followers, key=followers.get, default=None)


def takes_out(counts, token):
    best = most_probable(counts, token)
    if best is not None:
        del counts[token][best]
    return best


# ---- 1.C ------------------------------------------------------------------------------------------------------------


def training_pairs(tokens, context_length):
    return [(tokens[max(0, i - context_length) : i], tokens[i]) for i in range(1, len(tokens))]


def pairs_in_a_loop(tokens, context_length):
    pairs, context = [], []
    for token in tokens:
        if context:
            pairs.append([tuple(context), token])
        context = [*context, token][-context_length:]
    return tuple(pairs)


def first_pair_too(tokens, context_length):
    return [(tokens[max(0, i - context_length) : i], tokens[i]) for i in range(len(tokens))]


def full_windows_only(tokens, context_length):
    return [(tokens[i - context_length : i], tokens[i]) for i in range(context_length, len(tokens))]


def consuming(tokens, context_length):
    pairs = training_pairs(tokens, context_length)
    tokens.clear()
    return pairs


def joined(tokens, context_length):
    return [("".join(context), following) for context, following in training_pairs(tokens, context_length)]


# ---- 1.D ------------------------------------------------------------------------------------------------------------


def by_cutting(read, tokens):
    return all(read(tokens[:end]) == read(tokens)[:end] for end in range(len(tokens)))


def by_changing_and_adding(read, tokens):
    for place in range(len(tokens)):
        for rest in (["?"] * (len(tokens) - place - 1), ["?"], []):
            if read(tokens[: place + 1] + rest)[: place + 1] != read(tokens)[: place + 1]:
                return np.False_
    return np.True_


def by_growing(read, tokens):
    grown = [read(tokens[: end + 1])[-1] for end in range(len(tokens))]
    return torch.tensor(grown == read(tokens))


def changes_the_last(read, tokens):
    return read([*tokens[:-1], "?"])[:-1] == read(tokens)[:-1]


def watches_the_first(read, tokens):
    return all(read(tokens[:end])[:1] == read(tokens)[:1] for end in range(1, len(tokens)))


def changes_the_next(read, tokens):
    for place in range(len(tokens) - 1):
        changed = [*tokens[: place + 1], "?", *tokens[place + 2 :]]
        if read(changed)[place] != read(tokens)[place]:
            return False
    return True


def same_length_only(read, tokens):
    for place in range(len(tokens)):
        changed = tokens[: place + 1] + ["?"] * (len(tokens) - place - 1)
        if read(changed)[: place + 1] != read(tokens)[: place + 1]:
            return False
    return True


def compares_all(read, tokens):
    return read([*tokens[:-1], "?"]) == read(tokens)


def changes_the_past(read, tokens):
    return all(read(["?", *tokens[1:]])[place] == read(tokens)[place] for place in range(1, len(tokens)))


# ---- 1.E ------------------------------------------------------------------------------------------------------------


def ngram_perplexity(train, test, n, weight=20, one=1, vocabulary=50_257, open_end=False):
    overall = Counter(train)
    pairs = Counter(tuple(train[i : i + n]) for i in range(len(train) - n + 1))
    last = len(train) - (n - 1) + (1 if open_end else 0)
    contexts = Counter(tuple(train[i : i + n - 1]) for i in range(last))
    logs = []
    for i in range(n - 1, len(test)):
        context = tuple(test[i - n + 1 : i])
        d = (overall[test[i]] + one) / (len(train) + vocabulary)
        logs.append(math.log((pairs[(*context, test[i])] + weight * d) / (contexts[context] + weight)))
    return math.exp(-sum(logs) / len(logs))


def with_tables(train, test, n):
    table = {}
    for *context, following in zip(*(train[i:] for i in range(n)), strict=False):
        table.setdefault(tuple(context), Counter())[following] += 1
    overall, product, count = Counter(train), 1.0, 0
    for *context, following in zip(*(test[i:] for i in range(n)), strict=False):
        row = table.get(tuple(context), Counter())
        d = (overall.get(following, 0) + 1) / (len(train) + 50_257)
        product /= (row[following] + 20 * d) / (sum(row.values()) + 20)
        count += 1
        if product > 1e200:  # too large for a float soon; the rest goes another way
            return ngram_perplexity(train, test, n)
    return np.float64(product ** (1 / count))


def in_torch(train, test, n):
    return torch.tensor(ngram_perplexity(train, test, n))


def unsmoothed(train, test, n):
    return ngram_perplexity(train, test, n, weight=0)


TRAIN, TEST = list("abacabdab") * 40, list("abdcacbab") * 10


@pytest.fixture(scope="module")
def story():
    from helpers import load_text

    tokenizer = get_tokenizer()
    tokens = [tokenizer.decode([token_id]) for token_id in tokenizer.encode(load_text("story"))]
    cut = len(tokens) * 9 // 10
    return tokens[:cut], tokens[cut:]


DOOR = "She heard a knock on the"

RIGHT = [
    *[("1.A", answer) for answer in (most_probable, by_counter, by_sorting)],
    *[("1.B", answer) for answer in (DOOR, ["She", " heard", " a", " knock", " on", " the"])],
    *[("1.C", answer) for answer in (training_pairs, pairs_in_a_loop)],
    ("1.C", lambda t, n: [[t[:i][-n:], t[i]] for i in range(1, len(t))]),
    *[("1.D", answer) for answer in (by_cutting, by_changing_and_adding, by_growing)],
]

WRONG = [
    ("1.A", lambda counts, token: max(counts[token], key=counts[token].get), "stops for a token that is not in"),
    ("1.A", looks_up, "adds the key"),
    ("1.A", takes_out, "a row of it is no longer what it was"),
    ("1.A", lambda counts, token: counts[token].most_common(1)[0][0] if token in counts else None, "are plain dict"),
    ("1.A", lambda counts, token: most_probable(counts, token) or "", "None is expected"),
    ("1.A", lambda counts, token: max(counts.get(token, {}).items(), key=lambda i: i[1], default=None), "the pair"),
    ("1.A", lambda counts, token: max(counts.get(token, {}).values(), default=None), "a count"),
    ("1.A", lambda counts, token: [most_probable(counts, token)] if token in counts else None, "not list"),
    ("1.A", lambda counts, token: print(end=""), "Is there a return"),
    ("1.A", lambda counts, token: " dog" if token in counts else None, "never follows"),
    ("1.A", lambda counts, token: min(d := counts.get(token, {}), key=d.get, default=None), "occurs more often"),
    ("1.A", lambda counts, token: max(counts.get(token, {}), default=None), "occurs more often"),
    ("1.B", "", "is empty"),
    ("1.B", "He opened the old wooden garden gate and the", "at most 6 are allowed"),
    ("1.B", "The door! The", "has the word in it"),
    ("1.B", "He knocked at the ", "one is too many"),
    ("1.B", "She ate the", "at least 0.6 is asked for"),
    ("1.B", "Once upon a time", "Its first tokens are"),
    ("1.B", 0.6, "is expected, not float"),
    ("1.B", ["He", 3], "the list of its tokens"),
    ("1.C", lambda tokens, context_length: {}, "A list of pairs"),
    ("1.C", lambda tokens, context_length: tokens[1:], "a pair of a context"),
    ("1.C", first_pair_too, "contexts is empty"),
    ("1.C", full_windows_only, "have one before them"),
    ("1.C", consuming, "changes the list"),
    ("1.C", joined, "A context is a list of tokens"),
    ("1.C", lambda t, n: [(c, "a") for c, _ in training_pairs(t, n)], "Every token but the first"),
    ("1.C", lambda t, n: training_pairs(t, 99), "more than are allowed"),
    ("1.C", lambda t, n: training_pairs(t, max(1, n - 1)), "the last tokens before it"),
    ("1.C", lambda t, n: [(t[: min(i, n)], t[i]) for i in range(1, len(t))], "the last tokens before it"),
    ("1.D", lambda read, tokens: True, "call every function causal"),
    ("1.D", lambda read, tokens: False, "call no function causal"),
    ("1.D", compares_all, "and after it, outputs may change"),
    ("1.D", changes_the_last, "the only one that it hides"),
    ("1.D", watches_the_first, "only at the places with odd numbers"),
    ("1.D", changes_the_next, "the token after the next one"),
    ("1.D", same_length_only, "how many tokens are still to come"),
    ("1.D", changes_the_past, "it shows each place the next token"),
    ("1.D", lambda read, tokens: read(tokens), "True or False is expected"),
]

# What must never stand in a hint: the decisive piece of each solution.
SECRETS = {"1.A": ["key="], "1.B": ["knock", "opened", "shut"], "1.C": ["max(0"], "1.D": ["[:"], "1.E": ["+ 20"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_wrong_answers(number, answer, hint):
    own = SECRETS[number] if number != "1.B" else [word for word in SECRETS[number] if word not in str(answer)]
    checkers.refuses(number, answer, hint, own)


def test_a_prompt_as_ids():
    for ids in (get_tokenizer().encode(DOOR), torch.tensor(get_tokenizer().encode(DOOR))):
        assert checks.exercise_1_b(ids)


@pytest.mark.parametrize("answer", [ngram_perplexity, with_tables, in_torch])
def test_perplexities_of_ngrams(answer, story):
    verdict = checkers.accepts("1.E", answer, 3, *story)
    assert "405 for n = 2" in verdict.message
    assert checks.exercise_1_e(answer, torch.tensor(3), *story)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (lambda train, test, n: ngram_perplexity(train, test, n + 1), "Your contexts have n tokens"),
        (lambda train, test, n: ngram_perplexity(test, test, n), "You count in `test`"),
        (lambda train, test, n: ngram_perplexity(train, train, n), "You score `train`"),
        (lambda train, test, n: ngram_perplexity(train, test, n, open_end=True), "at the very end of `train`"),
        (lambda train, test, n: ngram_perplexity(train, test, n, open_end=n > 1), "at the very end of `train`"),
        (lambda train, test, n: ngram_perplexity(train, test, n, one=0), "The 1 that d adds"),
        (lambda train, test, n: ngram_perplexity(train, test, n, vocabulary=0), "lacks the vocabulary's size"),
        (lambda train, test, n: ngram_perplexity(train, test, n, weight=1), "as much as one stretch"),
        (lambda train, test, n: math.log(ngram_perplexity(train, test, n)), "One step is left"),
        (lambda train, test, n: 1 / ngram_perplexity(train, test, n), "look at the sign"),
        (lambda train, test, n: ngram_perplexity(TRAIN, TEST, 2), "Does it count in `train`, its argument"),
        (lambda train, test, n: 2 * ngram_perplexity(train, test, n), "too large"),
        (lambda train, test, n: ngram_perplexity(train, test, n) - 1, "too small"),
        (unsmoothed, "keep both above 0"),
        (lambda train, test, n: train.pop() and ngram_perplexity(train, test, n), "changes the lists"),
        (lambda train, test, n: print(end=""), "is there a return"),
        (lambda train, test, n: "12", "must be one number"),
    ],
)
def test_wrong_perplexities(answer, hint, story):
    verdict = checks.exercise_1_e(answer, 3, *story)
    fails(verdict, hint)
    assert SECRETS["1.E"][0] not in verdict.message


def test_where_it_gets_worse(story):
    for chosen in (1, 2, 4):
        fails(checks.exercise_1_e(ngram_perplexity, chosen, *story), "does not rise for the first time")
    fails(checks.exercise_1_e(ngram_perplexity, 3.5, *story), "whole number")
    fails(checks.exercise_1_e(ngram_perplexity, 3), "Hand in the function")
    fails(checks.exercise_1_e(ngram_perplexity, 3, "a text", "another"), "lists of str")
    fails(checks.exercise_1_e(3, 3, *story), "Hand in the function")
    assert checks.exercise_1_e(ngram_perplexity, ..., *story).passed is None
