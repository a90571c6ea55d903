"""Checkers for the bonus notebook on byte-pair encoding."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

from ...bpe import join_pair
from ._core import Question, exercise, expect, expect_function, self_test

__all__ = ["exercise_bpe_1", "exercise_bpe_2", "self_test_bpe"]


@exercise("bpe.1")
def exercise_bpe_1(answer: Callable[[list[int], tuple[int, int], int], Mapping[tuple[int, int], int]]) -> str:
    """`pair_changes(ids, pair, new_id)`: how the counts of pairs in a word change when a pair is joined."""
    expect_function(answer, "pair_changes(ids, pair, new_id)")
    rng = random.Random(81)
    cases = [([1, 2, 3, 4], (2, 3)), ([1, 2], (1, 2)), ([1, 2, 3], (3, 1)), ([7, 7, 7], (7, 7)), ([], (1, 2))]
    cases += [([7, 7, 7, 7], (7, 7)), ([1, 2, 1, 2], (1, 2))]
    cases += [(rng.choices([1, 2, 3], k=rng.randint(1, 9)), tuple(rng.choices([1, 2, 3], k=2))) for _ in range(60)]
    for ids, pair in cases:
        after = Counter(pairwise(join_pair(ids, pair, 300)))
        after.subtract(Counter(pairwise(ids)))
        wanted = {key: change for key, change in after.items() if change}
        given = list(ids)
        got = answer(given, pair, 300)
        expect(isinstance(got, Mapping), f"A dictionary from pairs to changes is wanted, not {type(got).__name__}.")
        expect(given == ids, "Your function changes the list that it is given; leave it as it was.")
        where = f"For ids={ids} and the pair {pair}: "
        expect(
            all(got.values()) or {key: change for key, change in got.items() if change} != wanted,
            where + "leave out the pairs whose count stays the same, instead of listing them with a 0.",
        )
        if dict(got) == wanted:
            continue
        expect(
            bool(got) or not wanted, where + "nothing is said to change, but the pair itself disappears at the least."
        )
        expect(
            dict(got) != {key: -change for key, change in wanted.items()},
            where + "your signs are the wrong way round. A pair that disappears has a negative change.",
        )
        repeated = pair[0] == pair[1]
        expect(
            not repeated,
            where
            + f"you give {dict(got)}, but {wanted} is wanted. Where the two ids of the pair are equal, joins must "
            "not overlap, though counts do.",
        )
        expect(False, where + f"you give {dict(got)}, but {wanted} is wanted. Look at both neighbours of each join.")
    return (
        "Only pairs that touch the joined place change: the pair itself and those with its neighbours on either side. "
        "So after a merge it is enough to look at the words that hold the pair."
    )


@exercise("bpe.2")
def exercise_bpe_2(answer: Callable[[bytes, set[bytes]], list[bytes]]) -> str:
    """`longest_first(word, vocabulary)`: from the left, always the longest token that fits."""
    expect_function(answer, "longest_first(word, vocabulary)")
    rng, letters = random.Random(82), [b"a", b"b", b"c", b" "]
    cases = [(b"abcab", {*letters, b"ab", b"abc"}), (b"", set(letters)), (b"abcc", {*letters, b"ab", b"bcc"})]
    for _ in range(60):
        word = b"".join(rng.choices(letters, k=rng.randint(1, 10)))
        starts = rng.choices(range(len(word)), k=rng.randint(1, 6))
        cases.append((word, {*letters, *(word[start : start + rng.randint(2, 4)] for start in starts)}))
    for word, vocabulary in cases:
        wanted, start = [], 0
        while start < len(word):
            end = next(end for end in range(len(word), start, -1) if word[start:end] in vocabulary)
            wanted.append(word[start:end])
            start = end
        got = answer(word, set(vocabulary))
        where = f"For {word!r} with the longer tokens {sorted(vocabulary - set(letters))}: "
        expect(isinstance(got, list), f"A list of tokens is wanted, not {type(got).__name__}.")
        expect(
            all(isinstance(piece, bytes) for piece in got),
            "A piece in your list is no bytes object. word[i] is a number; word[i : i + 1] is one byte.",
        )
        expect(b"".join(got) == word, where + f"your pieces {got} do not add up to the word.")
        expect(set(got) <= vocabulary, where + f"your pieces {got} are not all in the vocabulary.")
        if got != wanted:
            expect(
                got != [word[i : i + 1] for i in range(len(word))],
                where + "you take the shortest token that fits; try the long ends first.",
            )
            expect(
                False,
                where + f"your pieces are {got}. At each place take the longest token that begins there, before "
                "you look at what comes behind it.",
            )
    return (
        "This is how WordPiece, BERT's tokenizer, cuts a word. It needs a vocabulary but no order of merges, and with "
        "the same vocabulary it often cuts in other places than byte-pair encoding."
    )


_BPE_QUESTIONS = [
    Question(
        "Why does GPT-2 start from bytes rather than from characters?",
        {
            "a": (False, "A character outside ASCII takes two to four bytes, so sequences get longer, not shorter."),
            "b": (True, "256 tokens are enough to spell any text, where Unicode has over 100,000 characters."),
            "c": (False, "Nothing is lost either way: characters can be put together again as well as bytes."),
        },
    ),
    Question(
        "A word is encoded. Which of its pairs is joined first?",
        {
            "a": (False, "That would be the longest-match rule of exercise bpe.2; merges are replayed in their order."),
            "b": (False, "Frequencies matter while learning. When a word is encoded, nothing is counted."),
            "c": (True, "so the word goes through the same stages that it would have gone through in training."),
        },
    ),
    Question(
        "After a merge, which counts of pairs can have changed?",
        {
            "a": (True, "the pair itself and the pairs with its neighbours, in the words that hold it."),
            "b": (False, "Pairs far from the joined place keep their counts; that is what makes learning fast."),
            "c": (False, "The new token also makes new pairs, and the old neighbours lose theirs."),
        },
    ),
    Question(
        "What does cutting the text into words before any merge prevent?",
        {
            "a": (False, "Rare words are possible all the same: they are spelled with several tokens."),
            "b": (
                True,
                "a frequent phrase would otherwise use up entries of the vocabulary, as would 'dog.' and 'dog!'.",
            ),
            "c": (False, "Bytes take care of that. The cutting loses no character and adds none."),
        },
    ),
]

self_test_bpe = self_test("bpe", _BPE_QUESTIONS)
