"""The checkers of the notebook on byte-pair encoding: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from helpers.bpe import join_pair
from tests import checkers


def pair_changes(ids, pair, new_id):
    changes = Counter(pairwise(join_pair(ids, pair, new_id)))
    changes.subtract(Counter(pairwise(ids)))
    return {key: change for key, change in changes.items() if change}


def with_zeros(ids, pair, new_id):
    changes = Counter(pairwise(join_pair(ids, pair, new_id)))
    changes.subtract(Counter(pairwise(ids)))
    return changes


def only_the_pair(ids, pair, new_id):
    count = list(pairwise(ids)).count(pair)
    return {pair: -count} if count else {}


def overlapping(ids, pair, new_id):
    joined, index = [], 0
    while index < len(ids):
        if tuple(ids[index : index + 2]) == pair:
            joined.append(new_id)
            index += 1 if pair[0] == pair[1] and len(ids) > index + 2 and ids[index + 2] == pair[0] else 2
        else:
            joined.append(ids[index])
            index += 1
    changes = Counter(pairwise(joined))
    changes.subtract(Counter(pairwise(ids)))
    return {key: change for key, change in changes.items() if change}


def in_place(ids, pair, new_id):
    changes = pair_changes(ids, pair, new_id)
    ids[:] = join_pair(ids, pair, new_id)
    return changes


def longest_first(word, vocabulary):
    pieces = []
    while word:
        end = max(end for end in range(1, len(word) + 1) if word[:end] in vocabulary)
        pieces.append(word[:end])
        word = word[end:]
    return pieces


def anywhere(word, vocabulary):
    """The longest token anywhere in the word first, then what is left and right of it."""
    if not word:
        return []
    token = max((t for t in vocabulary if t in word), key=len)
    start = word.index(token)
    return [*anywhere(word[:start], vocabulary), token, *anywhere(word[start + len(token) :], vocabulary)]


RIGHT = [("bpe.1", pair_changes), ("bpe.2", longest_first)]

WRONG = {
    "a list of changes": ("bpe.1", lambda i, p, n: list(pair_changes(i, p, n).items()), "A dictionary"),
    "zeros kept": ("bpe.1", with_zeros, "leave out the pairs whose count stays the same"),
    "only the pair": ("bpe.1", only_the_pair, "both neighbours of each join"),
    "nothing": ("bpe.1", lambda i, p, n: {}, "the pair itself disappears"),
    "signs": ("bpe.1", lambda i, p, n: {k: -v for k, v in pair_changes(i, p, n).items()}, "signs are the wrong way"),
    "overlaps": ("bpe.1", overlapping, "must not overlap"),
    "changes its input": ("bpe.1", in_place, "changes the list that it is given"),
    "single bytes": ("bpe.2", lambda w, v: [w[i : i + 1] for i in range(len(w))], "you take the shortest"),
    "numbers": ("bpe.2", lambda w, v: list(w), "no bytes object"),
    "anywhere": ("bpe.2", anywhere, "the longest token that begins there"),
    "first piece only": ("bpe.2", lambda w, v: longest_first(w, v)[:1], "do not add up to the word"),
    "whole word": ("bpe.2", lambda w, v: [w] if w else [], "not all in the vocabulary"),
    "a tuple": ("bpe.2", lambda w, v: tuple(longest_first(w, v)), "A list of tokens"),
}

# What would give a solution away.
SECRETS = ["join_pair", "subtract", "max("]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=SECRETS)
