"""Checkers for the bonus notebook on byte-pair encoding."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

from ...bpe import join_pair
from ._core import Hint, exercise, expect, expect_kind, read_integer, self_test


@exercise("bpe.1", "pair_changes(ids, pair, new_id)")
def exercise_bpe_1(answer: Callable[[list[int], tuple[int, int], int], Mapping[tuple[int, int], int]]) -> str:
    """`pair_changes(ids, pair, new_id)`: how the counts of pairs in a word change when a pair is joined."""
    rng = random.Random(81)
    cases = [([1, 2, 3, 4], (2, 3)), ([1, 2], (1, 2)), ([1, 2, 3], (3, 1)), ([7, 7, 7], (7, 7)), ([], (1, 2))]
    cases += [([7, 7, 7, 7], (7, 7)), ([1, 2, 1, 2], (1, 2))]
    cases += [(rng.choices([1, 2, 3], k=rng.randint(1, 9)), tuple(rng.choices([1, 2, 3], k=2))) for _ in range(60)]
    for ids, pair in cases:
        after = Counter(pairwise(join_pair(ids, pair, 300)))
        after.subtract(Counter(pairwise(ids)))
        right = {key: change for key, change in after.items() if change}
        given = list(ids)
        got = answer(given, pair, 300)
        expect_kind(got, Mapping, "A dictionary from pairs to changes")
        expect(given == ids, "Your function changes the list that it is given; leave it as it was.")
        where = f"For ids={ids} and the pair {pair}: "
        for change in got.values():
            read_integer(change, where + "Each change")
        expect(
            all(got.values()) or {key: change for key, change in got.items() if change} != right,
            where + "leave out the pairs whose count stays the same, instead of listing them with a 0.",
        )
        if dict(got) == right:
            continue
        expect(bool(got) or not right, where + "nothing is said to change, but at least the pair itself disappears.")
        expect(
            dict(got) != {key: -change for key, change in right.items()},
            where + "your signs are the wrong way round. A pair that disappears has a negative change.",
        )
        sides = f"you give {dict(got)}, but {right} is expected."
        if pair[0] == pair[1]:
            raise Hint(f"{where}{sides} Where the two ids are equal, joins must not overlap, though counts do.")
        raise Hint(f"{where}{sides} Look at both neighbours of each join.")
    return (
        "Only pairs that touch the joined place change: the pair itself and those with its neighbours on either side. "
        "So after a merge it is enough to look at the words that hold the pair."
    )


@exercise("bpe.2", "longest_first(word, vocabulary)")
def exercise_bpe_2(answer: Callable[[bytes, set[bytes]], list[bytes]]) -> str:
    """`longest_first(word, vocabulary)`: from the left, always the longest token that fits."""
    rng, letters = random.Random(82), [b"a", b"b", b"c", b" "]
    cases = [(b"abcab", {*letters, b"ab", b"abc"}), (b"", set(letters)), (b"abcc", {*letters, b"ab", b"bcc"})]
    for _ in range(60):
        word = b"".join(rng.choices(letters, k=rng.randint(1, 10)))
        starts = rng.choices(range(len(word)), k=rng.randint(1, 6))
        cases.append((word, {*letters, *(word[start : start + rng.randint(2, 4)] for start in starts)}))
    for word, vocabulary in cases:
        right, start = [], 0
        while start < len(word):
            end = next(end for end in range(len(word), start, -1) if word[start:end] in vocabulary)
            right.append(word[start:end])
            start = end
        got = answer(word, set(vocabulary))
        where = f"For {word!r} with the longer tokens {sorted(vocabulary - set(letters))}: "
        expect_kind(got, list, "A list of tokens")
        expect(
            all(isinstance(piece, bytes) for piece in got),
            "A piece in your list is no bytes object. word[i] is a number; word[i : i + 1] is one byte.",
        )
        expect(b"".join(got) == word, where + f"your pieces {got} do not add up to the word.")
        expect(set(got) <= vocabulary, where + f"your pieces {got} are not all in the vocabulary.")
        if got == right:
            continue
        single = [word[i : i + 1] for i in range(len(word))]
        expect(got != single, where + "you take the shortest token that fits; try the long ends first.")
        raise Hint(
            f"{where}your pieces are {got}. At each place take the longest token that begins there, before you look at "
            "what comes after it."
        )
    return (
        "This is how WordPiece, BERT's tokenizer, cuts a word. It needs a vocabulary but no order of merges, and with "
        "the same vocabulary it often cuts in other places than byte-pair encoding."
    )


self_test_bpe = self_test("bpe", "bpe_from_scratch")
