"""Checkers for the bonus notebook on byte-pair encoding."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import regex

from ...bpe import GPT2_SPLIT, BPETokenizer, Pair, apply_merges, join_pair, learn_merges
from ._core import Hint, call, exercise, expect, expect_kind, explained, read_integer, self_test

END = "<|endoftext|>"

# ---- bpe.1: a pattern ----------------------------------------------------------------------------------------------

_REST = r"| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_PATTERN = r"'(?i:[sdmt]|ll|ve|re)" + _REST
_NUMBERS = r"\p{N}{1,3}"
_PATTERN_SLIPS = [
    (GPT2_SPLIT, "This is GPT-2's own pattern still."),
    (_PATTERN.replace(_NUMBERS, r" ?\p{N}{1,3}"), "A group of digits takes the space before it; it should not."),
    (_PATTERN.replace(_NUMBERS, r" ?\p{N}+"), "The numbers are those of GPT-2 still; the endings are right."),
    (_PATTERN.replace(_NUMBERS, r"\p{N}+"), "Numbers are whole; a group has at most three digits."),
    (_PATTERN.replace(_NUMBERS, r"\p{N}"), "Each digit is a piece of its own; up to three go together."),
    (_PATTERN.replace(_NUMBERS, r"\p{N}{3}|\p{N}"), "What is left over after the groups of three is cut into digits."),
    (r"'(?:[sdmt]|ll|ve|re)" + _REST, "The numbers are right; endings in capitals are not cut off yet."),
    (
        r"'(?:[sdmtSDMT]|ll|ve|re|LL|VE|RE)" + _REST,
        "Endings in capitals are cut off, but not those in which small letters and capitals are mixed, such as 'Ll.",
    ),
]
_LINES = [
    "It's 1908, IT'S 12 o'clock, we'Ll see 1234567 hens",
    "½ of 2500, 10000 and ٣٤٥٦; x86, 3.14159 (1,000,000)",
    "  7   88    999 9999\n\n\t00000000   ",
    "HE'D, She'RE, they've, 'S, 's, 'twas, rock'n'roll a_b __ -- !!",
    "",
    "'''s '1' 'M'm",
]


def _cut(pattern: Any, text: str) -> list[str]:
    return [found.group() for found in pattern.finditer(text, timeout=3)]


@exercise("bpe.1")
def exercise_bpe_1(answer: str) -> str:
    """A pattern that cuts a text as GPT-2's does, numbers and endings in capitals aside."""
    expect(
        isinstance(answer, str) or hasattr(answer, "finditer"),
        f"A pattern is expected, a string; this is a {type(answer).__name__}.",
    )
    try:
        given = regex.compile(answer if isinstance(answer, str) else answer.pattern)
    except regex.error as error:
        raise Hint(f"This is no pattern that `regex` can read: {error}.") from None
    rng = random.Random(81)
    parts = ["a", "Z", "é", "1", "23", "456", "½", " ", "  ", "\n", "'s", "'LL", "'vE", "'", ".", "_", "-", "七"]
    lines = _LINES + ["".join(rng.choices(parts, k=rng.randint(1, 12))) for _ in range(150)]
    try:
        cuts = [_cut(given, line) for line in lines]
    except TimeoutError:
        raise Hint("Your pattern takes more than three seconds for a line. Does it try nested repetitions?") from None
    for line, pieces in zip(lines, cuts, strict=True):
        if "" in pieces:
            raise Hint(f"For {line!r} one of your pieces is empty. Every alternative must match at least a character.")
        expect(
            "".join(pieces) == line,
            f"For {line!r} your pieces {pieces} are not the whole line: something is left out between them.",
        )
    right = [_cut(regex.compile(_PATTERN), line) for line in lines]
    if cuts != right:
        for slip, hint in _PATTERN_SLIPS:
            expect(cuts != [_cut(regex.compile(slip), line) for line in lines], hint)
        where = next(number for number, (ours, theirs) in enumerate(zip(right, cuts, strict=True)) if ours != theirs)
        raise Hint(f"For {lines[where]!r} your pieces are {cuts[where]}.\n{right[where]} are expected.")
    return (
        "Two alternatives are enough to make another tokenizer. GPT-4's pattern does both: with groups of at most "
        "three digits no long number gets a token of its own, and a year does not depend on the space before it."
    )


# ---- bpe.2: words that tell learners apart -------------------------------------------------------------------------

MOST_WORDS, MOST_LETTERS, MERGES = 5, 6, 20


def _count(spellings: Sequence[list[int]], times: Sequence[int], once: bool = False) -> Counter:
    counts: Counter = Counter()
    for ids, number in zip(spellings, times, strict=True):
        for pair in set(pairwise(ids)) if once else pairwise(ids):
            counts[pair] += number
    return counts


def _learner(
    choose: Callable[[Counter], Pair] = lambda counts: max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1])),
    join: Callable[[list[int], Pair, int], list[int]] = join_pair,
    least: int = 2,
    alike: bool = False,
    once: bool = False,
    across: bool = False,
) -> Callable[[Mapping[bytes, int]], list[Pair]]:
    """A learner that counts everything anew for each merge, with one of its rules changed."""

    def learn(words: Mapping[bytes, int]) -> list[Pair]:
        spellings, times = [list(word) for word in words], [1] * len(words) if alike else list(words.values())
        if across:
            row = [byte for word, number in words.items() for _ in range(number) for byte in word]
            spellings, times = [row], [1]
        merges: list[Pair] = []
        while len(merges) < MERGES:
            counts = _count(spellings, times, once)
            if not counts or max(counts.values()) < least:
                break
            best = choose(counts)
            spellings = [join(ids, best, 256 + len(merges)) for ids in spellings]
            merges.append(best)
        return merges

    return learn


def _join_first(ids: list[int], pair: Pair, new_id: int) -> list[int]:
    """Joins a pair in the first of its places only."""
    place = next((index for index, found in enumerate(pairwise(ids)) if found == pair), None)
    return ids if place is None else [*ids[:place], new_id, *ids[place + 2 :]]


# Learners with a mistake each, and what the mistake is.
_LEARNERS: tuple[tuple[str, Callable[[Mapping[bytes, int]], list[Pair]]], ...] = (
    (
        "A, which takes the pair that it met first of equally frequent ones",
        _learner(lambda counts: max(counts, key=counts.__getitem__)),
    ),
    (
        "B, which takes the pair with the largest ids of equally frequent ones",
        _learner(lambda counts: max(counts, key=lambda pair: (counts[pair], pair))),
    ),
    ("C, which counts each different word once, however often it occurs", _learner(alike=True)),
    ("D, which counts a pair once per word, however often the word holds it", _learner(once=True)),
    ("E, which joins a pair in the first of its places in a word only", _learner(join=_join_first)),
    ("F, which goes on to join pairs that occur once", _learner(least=1)),
    ("G, which does not keep the words apart and joins pairs across their borders", _learner(across=True)),
)


@exercise("bpe.2")
def exercise_bpe_2(answer: Mapping[bytes, int]) -> str:
    """Words from which each of several faulty learners learns other merges than the right one."""
    pairs = list(answer.items()) if isinstance(answer, Mapping) else answer
    form = "A dictionary from words (bytes objects) to the number of times that each occurs is expected."
    expect(isinstance(pairs, list | tuple), form)
    words: dict[bytes, int] = {}
    for pair in pairs:
        expect(isinstance(pair, tuple | list) and len(pair) == 2, form)
        word, times = pair
        expect(isinstance(word, str | bytes), form)
        word = word.encode("utf-8") if isinstance(word, str) else word
        words[word] = read_integer(times, f"The number of times that {word!r} occurs")
        expect(words[word] >= 1, f"{word!r} occurs {words[word]} times; a word of a text occurs at least once.")
        expect(1 <= len(word) <= MOST_LETTERS, f"{word!r} has {len(word)} letters; 1 to {MOST_LETTERS} are allowed.")
        expect(words[word] <= 1000, f"{word!r} occurs {words[word]} times; at most 1,000 are allowed.")
    expect(0 < len(words) <= MOST_WORDS, f"You hand in {len(words)} words; 1 to {MOST_WORDS} are allowed.")
    right = learn_merges(words, MERGES)
    missed = [name for name, learn in _LEARNERS if learn(words) == right]
    if missed:
        raise Hint(
            f"Your words give away {len(_LEARNERS) - len(missed)} of the {len(_LEARNERS)} learners. One that learns "
            f"the same merges as the right one, {len(right)} of them, is {missed[0]}. Which word would show it?"
        )
    return (
        f"All {len(_LEARNERS)} learners give themselves away. On most texts none of these mistakes is an error that "
        "stops a program: each gives a tokenizer that works by itself and agrees with no other."
    )


# ---- bpe.3: encode(word, ranks) ------------------------------------------------------------------------------------


def _rounds(ids: Sequence[int], ranks: Mapping[Pair, int], choose: Callable[[list[Pair]], Pair]) -> list[int]:
    """Join pairs until none is left, each time all places of the pair that `choose` takes of the possible ones."""
    ids = list(ids)
    while possible := [pair for pair in pairwise(ids) if pair in ranks]:
        pair = choose(possible)
        ids = join_pair(ids, pair, ranks[pair])
    return ids


def _from_the_left(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Join the first pair from the left that has a merge, one place at a time."""
    ids = list(ids)
    while places := [place for place, pair in enumerate(pairwise(ids)) if pair in ranks]:
        ids[places[0] : places[0] + 2] = [ranks[ids[places[0]], ids[places[0] + 1]]]
    return ids


def _once(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Join the earliest learned pair, and stop."""
    possible = [pair for pair in pairwise(ids) if pair in ranks]
    pair = min(possible, key=ranks.__getitem__, default=None)
    return list(ids) if pair is None else join_pair(ids, pair, ranks[pair])


def _one_place(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Every merge of the list in its order, but only in the first of its places."""
    ids = list(ids)
    for pair, new_id in sorted(ranks.items(), key=lambda item: item[1]):
        ids = _join_first(ids, pair, new_id)
    return ids


def _longest(word: bytes, tokens: Mapping[int, bytes]) -> list[int]:
    """From the left, always the longest token that fits."""
    ids, by_bytes, start = [], {token: token_id for token_id, token in tokens.items()}, 0
    while start < len(word):
        end = next(end for end in range(len(word), start, -1) if word[start:end] in by_bytes)
        ids.append(by_bytes[word[start:end]])
        start = end
    return ids


def _words(rng: random.Random, letters: str, most: int) -> list[bytes]:
    return ["".join(rng.choices(letters, k=rng.randint(1, most))).encode() for _ in range(8)]


@exercise("bpe.3", "encode(word, ranks)")
def exercise_bpe_3(answer: Callable[[bytes, dict[Pair, int]], list[int]]) -> str:
    """`encode(word, ranks)`: the ids of a word after all merges, in the order in which they were learned."""
    rng, cases = random.Random(83), []
    for letters in ("ab", "abc", "ring", "aé"):
        for _ in range(6):
            merges = learn_merges(Counter({word: rng.randint(1, 4) for word in _words(rng, letters, 6)}), 12)
            ranks = {pair: 256 + number for number, pair in enumerate(merges)}
            cases += [(word, ranks) for word in _words(rng, letters, 9)]
    cases += [(b"", {}), (b"a", {(97, 97): 256}), (b"xyz", {}), (b"aaaaa", {(97, 97): 256, (256, 256): 257})]
    results = []
    for word, ranks in cases:
        given = dict(ranks)
        got = answer(word, given)
        got = got.tolist() if hasattr(got, "tolist") else got
        expect_kind(got, list | tuple | bytes | bytearray, "A list of ids")
        expect(given == ranks, "Your function changes the dictionary that it is given; leave it as it was.")
        results.append([read_integer(token_id, f"For {word!r}: each id") for token_id in got])
    right = [apply_merges(word, ranks) for word, ranks in cases]
    if results == right:
        return (
            "The word goes through the stages that it would have gone through while the merges were learned, so it is "
            "spelled as the words of the training text are."
        )
    tokens = []
    for _, ranks in cases:
        by_id = {byte: bytes([byte]) for byte in range(256)}
        for (first, second), new_id in ranks.items():
            by_id[new_id] = by_id[first] + by_id[second]
        tokens.append(by_id)
    from_left = "You join the first pair from the left that has a merge; another pair may have been learned before it."
    slips = [
        ([_rounds(word, ranks, lambda possible: possible[0]) for word, ranks in cases], from_left),
        ([_from_the_left(word, ranks) for word, ranks in cases], from_left),
        (
            [_longest(word, by_id) for (word, _), by_id in zip(cases, tokens, strict=True)],
            "You take the longest token that fits, from the left. That needs no order, and gives other pieces.",
        ),
        (
            [_rounds(word, ranks, lambda possible, ranks=ranks: max(possible, key=ranks.get)) for word, ranks in cases],
            "You join the pair that was learned last; the order is the other way round.",
        ),
        (
            [_once(word, ranks) for word, ranks in cases],
            "You stop after the first merge. The new token may be in a pair that has a merge, too.",
        ),
        (
            [_one_place(word, ranks) for word, ranks in cases],
            "You join a pair in its first place only; the word may hold it more than once.",
        ),
        ([list(word) for word, _ in cases], "These are the bytes; nothing is joined."),
    ]
    for wrong, hint in slips:
        expect(results != wrong, hint)
    where = next(number for number, (got, ids) in enumerate(zip(results, right, strict=True)) if got != ids)
    word, ranks = cases[where]
    raise Hint(f"For {word!r} and the merges {ranks} your ids are {results[where]}.\n{right[where]} are expected.")


# ---- bpe.4: special tokens -----------------------------------------------------------------------------------------


@exercise("bpe.4", "join_documents(texts, tokenizer)")
def exercise_bpe_4(answer: Callable[[list[str], BPETokenizer], list[int]]) -> str:
    """`join_documents(texts, tokenizer)`: the ids of texts, each followed by the end-of-text token."""
    tokenizers = [BPETokenizer([(97, 98)], [END]), BPETokenizer([(97, 98), (60, 124), (124, 62)], ["<|pad|>", END])]
    groups = [["ab", "hen"], ["one text"], [], ["", "a"], ["the end", f"a trick {END} b", f"{END}{END}"], [f"{END}ab"]]
    groups += [["ends in a", "b begins"], [f"<|endof{END}text|>", " x ", "<|pad|>"]]
    results, cases = [], [(texts, tokenizer) for texts in groups for tokenizer in tokenizers]
    forbidden = "A special token in a text of somebody else is characters like any others; `encode` refuses it."
    for texts, tokenizer in cases:
        with explained(ValueError, forbidden, "allowed_special"):
            given = list(texts)
            got = answer(given, tokenizer)
        got = got.tolist() if hasattr(got, "tolist") else got
        expect(given == texts, "Your function changes the list of texts; leave it as it was.")
        expect_kind(got, list | tuple, "A list of ids")
        results.append([read_integer(token_id, f"For {texts}: each id") for token_id in got])

    def each(rule: Callable[[list[str], BPETokenizer, list[int]], list[int]]) -> list[list[int]]:
        return [rule(texts, tokenizer, [tokenizer.special_tokens[END]]) for texts, tokenizer in cases]

    right = each(lambda texts, tok, end: [i for text in texts for i in tok.encode_ordinary(text) + end])
    if results == right:
        return (
            "The end-of-text token is put in by its id, and what stands in a text can never become one. Otherwise "
            "whoever wrote a text could end it where they liked, and begin another in the name of somebody else."
        )
    allow = {"allowed_special": "all"}
    slips = [
        (
            each(lambda texts, tok, end: tok.encode("".join(text + END for text in texts), **allow)),
            "A text that contains the characters <|endoftext|> gets the special token in its middle: its author could "
            "end it there. Only your own function may put that token in.",
        ),
        (
            each(lambda texts, tok, end: [i for text in texts for i in tok.encode(text, **allow) + end]),
            "A text that contains the characters <|endoftext|> gets the special token in its middle: its author could "
            "end it there. Only your own function may put that token in.",
        ),
        (
            each(lambda texts, tok, end: [i for text in texts for i in tok.encode_ordinary(text) + end][:-1]),
            "The last text needs an end, too.",
        ),
        (
            each(lambda texts, tok, end: [i for text in texts for i in end + tok.encode_ordinary(text)]),
            "The token comes after each text, not before it.",
        ),
        (
            each(lambda texts, tok, end: tok.encode_ordinary("".join(text + END for text in texts))),
            "Your ends are spelled in characters; the special token is one id.",
        ),
        (
            each(
                lambda texts, tok, end: [i for t in texts for i in tok.encode_ordinary(t.replace(END, "")) + end],
            ),
            "You take characters out of a text; each text should come back as it was.",
        ),
        (
            each(lambda texts, tok, end: [i for text in texts for i in [*tok.encode_ordinary(text), 50256]]),
            "50256 is GPT-2's id; ask the tokenizer for its own.",
        ),
        (each(lambda texts, tok, end: tok.encode_ordinary("".join(texts))), "The ends are missing."),
    ]
    for wrong, hint in slips:
        expect(results != wrong, hint)
    where = next(number for number, (got, ids) in enumerate(zip(results, right, strict=True)) if got != ids)
    texts, tokenizer = cases[where]
    raise Hint(
        f"For {texts} and a tokenizer in which {END} is {tokenizer.special_tokens[END]}, your ids are "
        f"{results[where]}.\n{right[where]} are expected."
    )


# ---- bpe.5: decoding while a text is written -----------------------------------------------------------------------


def _complete(joined: bytes) -> str:
    """The complete characters at the start of valid UTF-8 that is cut anywhere."""
    return joined.decode("utf-8", "ignore")


@exercise("bpe.5", "readable(ids, tokenizer)")
def exercise_bpe_5(answer: Callable[[list[int], BPETokenizer], list[str]]) -> str:
    """`readable(ids, tokenizer)`: for each id, the characters that are complete with it."""
    cat, bridge = list("😸".encode()), list("子".encode())
    merges = [(cat[0], cat[1]), (cat[2], cat[3]), (cat[3], bridge[0]), (104, 101), (195, 175)]
    tokenizer, rng = BPETokenizer(merges), random.Random(85)
    texts = ["hen", "naïve", "", "😸", "the 😸子 hen", "梯子 λόφο", " a  b ", "a \ufffd b"]
    texts += ["".join(rng.choices("he ï😸子λ", k=rng.randint(1, 8))) for _ in range(40)]
    cases = [tokenizer.encode(text) for text in texts]
    cases += [ids[: rng.randint(0, len(ids))] for ids in cases]  # a text that is not finished
    cases.append([*tokenizer.encode("a"), cat[0], cat[1], cat[2], 258, bridge[1], bridge[2]])  # across two characters
    results = []
    for ids in cases:
        given = list(ids)
        got = answer(given, tokenizer)
        expect(given == ids, "Your function changes the list of ids; leave it as it was.")
        expect(isinstance(got, Iterable) and not isinstance(got, str), "A list of strings is expected, one per id.")
        got = call(list, got)  # a generator runs here
        expect(all(isinstance(part, str) for part in got), "Each entry of your list should be a string.")
        results.append(got)
    pieces = [[tokenizer.decode_single_token_bytes(token_id) for token_id in ids] for ids in cases]
    grown = [[_complete(b"".join(parts[: end + 1])) for end in range(len(parts))] for parts in pieces]
    right = [[new[len(old) :] for old, new in pairwise(["", *texts_so_far])] for texts_so_far in grown]
    if results == right:
        return (
            "This is what a chat page does while a model writes: bytes wait until their character is complete, and "
            "what has been shown never changes."
        )
    slips = [
        (
            [[part.decode("utf-8", "replace") for part in parts] for parts in pieces],
            "You decode every token by itself, and a character that is cut between two tokens becomes two \ufffd.",
        ),
        (
            [[part.decode("utf-8", "ignore") for part in parts] for parts in pieces],
            "A character that is cut between two tokens is lost: its first bytes must wait for the others.",
        ),
        (grown, "Each of your strings is the whole text so far; only what is new is asked for."),
        (
            [[tokenizer.decode(ids[: end + 1]) for end in range(len(ids))] for ids in cases],
            "Each of your strings is the whole text so far, unfinished characters included; only what is new and "
            "complete is asked for.",
        ),
        (
            [[tokenizer.decode(ids)] for ids in cases],
            "One string for the whole text comes too late; each token should show what is complete by then.",
        ),
    ]
    for wrong, hint in slips:
        expect(results != wrong, hint)
    for ids, got, parts in zip(cases, results, right, strict=True):
        case = f"For tokens with the bytes {[tokenizer.tokens[token_id] for token_id in ids]}"
        expect(
            len(got) == len(ids), f"{case} you give {len(got)} strings; there are {len(ids)} ids. Some may be empty."
        )
        expect(got == parts, f"{case} your strings are {got}.\n{parts} are expected.")
    raise AssertionError("unreachable: some case differs")


# ---- bpe.6: the longest token first --------------------------------------------------------------------------------


@exercise("bpe.6", "longest_first(word, vocabulary)")
def exercise_bpe_6(answer: Callable[[bytes, set[bytes]], list[bytes]]) -> str:
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
        expect_kind(got, list | tuple, "A list of tokens")
        got = list(got)
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
