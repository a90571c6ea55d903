"""The checkers of the notebook on byte-pair encoding: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import codecs
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import regex
import torch

from helpers.bpe import GPT2_SPLIT, apply_merges, join_pair
from helpers.course.checks import bpe_from_scratch as module
from tests import checkers

END = "<|endoftext|>"

# ---- bpe.1: a pattern ----------------------------------------------------------------------------------------------

PATTERN = r"'(?i:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SPELLED_OUT = r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GROUPED = r"(?i)('(?:s|d|m|t|ll|ve|re))|( ?\p{L}+)|(\p{N}\p{N}?\p{N}?)| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def numbers(part):
    return PATTERN.replace(r"\p{N}{1,3}", part, 1)


# ---- bpe.2: words that tell learners apart -------------------------------------------------------------------------

TELLING = {b"cd": 2, b"ab": 2, b"xy": 1, b"efef": 1, b"ghgh": 2}

# ---- bpe.3: encode(word, ranks) ------------------------------------------------------------------------------------


def encode(word, ranks):
    ids = list(word)
    while True:
        found = [ranks[pair] for pair in pairwise(ids) if pair in ranks]
        if not found:
            return ids
        first = next(pair for pair, new_id in ranks.items() if new_id == min(found))
        ids = join_pair(ids, first, ranks[first])


def replayed(word, ranks):
    ids = list(word)
    for pair, new_id in sorted(ranks.items(), key=lambda item: item[1]):
        ids = join_pair(ids, pair, new_id)
    return np.array(ids, dtype=np.int64)


def one_place_at_a_time(word, ranks):
    ids = list(word)
    while found := [(ranks[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in ranks]:
        new_id, place = min(found)
        ids[place : place + 2] = [new_id]
    return torch.tensor(ids)


def from_the_left(word, ranks):
    ids = list(word)
    while found := [place for place, pair in enumerate(pairwise(ids)) if pair in ranks]:
        ids[found[0] : found[0] + 2] = [ranks[ids[found[0]], ids[found[0] + 1]]]
    return ids


def longest(word, ranks):
    tokens = {bytes([byte]): byte for byte in range(256)}
    by_id = {byte: bytes([byte]) for byte in range(256)}
    for (left, right), new_id in sorted(ranks.items(), key=lambda item: item[1]):
        by_id[new_id] = by_id[left] + by_id[right]
        tokens[by_id[new_id]] = new_id
    return [tokens[piece] for piece in longest_first(word, set(tokens))]


def last_first(word, ranks):
    ids = list(word)
    while found := [pair for pair in pairwise(ids) if pair in ranks]:
        pair = max(found, key=ranks.get)
        ids = join_pair(ids, pair, ranks[pair])
    return ids


def one_merge(word, ranks):
    found = [pair for pair in pairwise(word) if pair in ranks]
    pair = min(found, key=ranks.get, default=None)
    return join_pair(word, pair, ranks.get(pair)) if found else list(word)


def first_place(word, ranks):
    ids = list(word)
    for pair, new_id in ranks.items():
        if pair in list(pairwise(ids)):
            place = list(pairwise(ids)).index(pair)
            ids[place : place + 2] = [new_id]
    return ids


def emptying(word, ranks):
    ids = encode(word, ranks)
    ranks.clear()
    return ids


# ---- bpe.4: join_documents(texts, tokenizer) -----------------------------------------------------------------------


def join_documents(texts, tokenizer):
    ids = []
    for text in texts:
        ids += [*tokenizer.encode_ordinary(text), tokenizer.special_tokens[END]]
    return ids


def with_encoded_end(texts, tokenizer):
    end = tokenizer.encode(END, allowed_special={END})
    return np.array([i for text in texts for i in tokenizer.encode_ordinary(text) + end], dtype=np.int32)


def as_tensor(texts, tokenizer):
    return torch.tensor(join_documents(texts, tokenizer))


def allowed(texts, tokenizer):
    return tokenizer.encode("".join(text + END for text in texts), allowed_special="all")


def allowed_in_each(texts, tokenizer):
    return [i for text in texts for i in tokenizer.encode(text + END, allowed_special="all")]


def refused(texts, tokenizer):
    return [i for text in texts for i in [*tokenizer.encode(text), tokenizer.special_tokens[END]]]


def cleaned(texts, tokenizer):
    return join_documents([text.replace(END, "") for text in texts], tokenizer)


def before_each(texts, tokenizer):
    return [i for text in texts for i in [tokenizer.special_tokens[END], *tokenizer.encode_ordinary(text)]]


def gpt2s(texts, tokenizer):
    return [i for text in texts for i in [*tokenizer.encode_ordinary(text), 50256]]


# ---- bpe.5: readable(ids, tokenizer) -------------------------------------------------------------------------------


def readable(ids, tokenizer):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(tokenizer.decode_single_token_bytes(token_id)) for token_id in ids]


def with_waiting(ids, tokenizer):
    shown, waiting = [], b""
    for token_id in ids:
        waiting += tokenizer.decode_single_token_bytes(token_id)
        complete = waiting.decode("utf-8", "ignore")
        shown.append(complete)
        waiting = waiting[len(complete.encode()) :]
    return tuple(shown)


def by_generator(ids, tokenizer):
    """Tries to decode what waits, shorter and shorter."""
    waiting = b""
    for token_id in ids:
        waiting += tokenizer.decode_single_token_bytes(token_id)
        for end in range(len(waiting), -1, -1):
            try:
                text = waiting[:end].decode()
            except UnicodeDecodeError:
                continue
            break
        waiting = waiting[end:]
        yield text


def bytes_of(ids, tokenizer):
    return [tokenizer.decode_single_token_bytes(token_id) for token_id in ids]


def so_far(ids, tokenizer):
    return [b"".join(bytes_of(ids[: end + 1], tokenizer)).decode("utf-8", "ignore") for end in range(len(ids))]


def no_empty_ones(ids, tokenizer):
    return [text for text in readable(ids, tokenizer) if text]


def whole_tokens_wait(ids, tokenizer):
    """A token that ends inside a character waits whole, with the complete characters before it."""
    shown, waiting = [], b""
    for piece in bytes_of(ids, tokenizer):
        waiting += piece
        try:
            shown.append(waiting.decode())
            waiting = b""
        except UnicodeDecodeError:
            shown.append("")
    return shown


# ---- bpe.6: longest_first(word, vocabulary) ------------------------------------------------------------------------


def longest_first(word, vocabulary):
    pieces = []
    while word:
        end = max(end for end in range(1, len(word) + 1) if word[:end] in vocabulary)
        pieces.append(word[:end])
        word = word[end:]
    return pieces


def by_length(word, vocabulary):
    tokens, pieces = sorted(vocabulary, key=len, reverse=True), ()
    while word:
        piece = next(token for token in tokens if word.startswith(token))
        pieces, word = (*pieces, piece), word[len(piece) :]
    return pieces


def by_pattern(word, vocabulary):
    tokens = sorted(vocabulary, key=len, reverse=True)
    return regex.findall(b"|".join(map(regex.escape, tokens)), word)


def anywhere(word, vocabulary):
    """The longest token anywhere in the word first, then what is left and right of it."""
    if not word:
        return []
    token = max((t for t in vocabulary if t in word), key=len)
    start = word.index(token)
    return [*anywhere(word[:start], vocabulary), token, *anywhere(word[start + len(token) :], vocabulary)]


RIGHT = [
    *[("bpe.1", answer) for answer in (PATTERN, SPELLED_OUT, GROUPED, regex.compile(PATTERN))],
    *[
        ("bpe.2", answer)
        for answer in (
            TELLING,
            Counter({"cd": 2, "ab": 2, "xy": 1, "efef": 1, "ghgh": 2}),
            [(b"zz", np.int64(1)), (b"ba", np.int64(2)), (b"aa", 2), (b"efef", 1), (b"ghghgh", 2)],
        )
    ],
    *[("bpe.3", answer) for answer in (encode, replayed, one_place_at_a_time, lambda w, r: tuple(apply_merges(w, r)))],
    *[("bpe.4", answer) for answer in (join_documents, with_encoded_end, as_tensor)],
    *[("bpe.5", answer) for answer in (readable, with_waiting, by_generator)],
    *[("bpe.6", answer) for answer in (longest_first, by_length, by_pattern)],
]

WRONG = {
    "GPT-2's pattern": ("bpe.1", GPT2_SPLIT, "GPT-2's own pattern still"),
    "numbers with a space": ("bpe.1", numbers(r" ?\p{N}{1,3}"), "takes the space before it"),
    "whole numbers": ("bpe.1", numbers(r"\p{N}+"), "at most three digits"),
    "GPT-2's numbers": ("bpe.1", numbers(r" ?\p{N}+"), "The numbers are those of GPT-2"),
    "single digits": ("bpe.1", numbers(r"\p{N}"), "up to three go together"),
    "threes and ones": ("bpe.1", numbers(r"\p{N}{3}|\p{N}"), "is cut into digits"),
    "digits only": ("bpe.1", numbers(r"\d{1,3}"), "something is left out"),
    "small endings": ("bpe.1", PATTERN.replace("(?i:", "(?:"), "endings in capitals are not cut off"),
    "unmixed endings": (
        "bpe.1",
        PATTERN.replace("(?i:[sdmt]|ll|ve|re)", "(?:[sdmtSDMT]|ll|ve|re|LL|VE|RE)"),
        "mixed",
    ),
    "no white space": ("bpe.1", PATTERN.replace(r"|\s+(?!\S)|\s+", ""), "something is left out"),
    "an empty piece": ("bpe.1", PATTERN + "|", "one of your pieces is empty"),
    "no pattern": ("bpe.1", "(", "no pattern that `regex` can read"),
    "the pieces": ("bpe.1", ["a"], "A pattern is expected"),
    "runs of spaces": ("bpe.1", PATTERN.replace(r"\s+(?!\S)|", ""), "are expected"),
    "chapter 2's words": ("bpe.2", {b"ring": 5, b"sing": 4, b"rings": 2, b"sung": 3}, "Which word would show it?"),
    "one word": ("bpe.2", {b"abab": 2}, "Your words give away"),
    "no words": ("bpe.2", {}, "1 to 5 are allowed"),
    "too many words": ("bpe.2", {bytes([97 + i, 98]): 1 for i in range(6)}, "You hand in 6 words"),
    "a long word": ("bpe.2", {b"ababababab": 1}, "1 to 6 are allowed"),
    "not a number": ("bpe.2", {b"ab": 1.5}, "must be a whole number"),
    "never": ("bpe.2", {b"ab": 0}, "occurs at least once"),
    "a text": ("bpe.2", "ring sing", "A dictionary from words"),
    "no counts": ("bpe.2", [b"ab", b"cd"], "A dictionary from words"),
    "first found": ("bpe.3", from_the_left, "first pair from the left"),
    "longest": ("bpe.3", longest, "the longest token that fits"),
    "last learned": ("bpe.3", last_first, "the order is the other way round"),
    "one merge": ("bpe.3", one_merge, "stop after the first merge"),
    "one place": ("bpe.3", first_place, "in its first place only"),
    "bytes": ("bpe.3", lambda word, ranks: list(word), "nothing is joined"),
    "tokens": ("bpe.3", lambda word, ranks: [bytes([byte]) for byte in word], "each id must be a whole number"),
    "one more": ("bpe.3", lambda word, ranks: [*encode(word, ranks), 0], "are expected"),
    "empties the ranks": ("bpe.3", emptying, "changes the dictionary"),
    "allowed": ("bpe.4", allowed, "its author could end it there"),
    "allowed in each": ("bpe.4", allowed_in_each, "its author could end it there"),
    "refused": ("bpe.4", refused, "`encode` refuses it"),
    "cleaned": ("bpe.4", cleaned, "You take characters out"),
    "between": ("bpe.4", lambda t, k: join_documents(t, k)[:-1], "The last text needs an end"),
    "before": ("bpe.4", before_each, "not before it"),
    "spelled": ("bpe.4", lambda t, k: k.encode_ordinary("".join(s + END for s in t)), "the special token is one id"),
    "GPT-2's end": ("bpe.4", gpt2s, "GPT-2's id"),
    "no ends": ("bpe.4", lambda t, k: k.encode_ordinary("".join(t)), "The ends are missing"),
    "a list per text": ("bpe.4", lambda t, k: [join_documents([s], k) for s in t], "must be a whole number"),
    "each by itself": (
        "bpe.5",
        lambda ids, t: [piece.decode("utf-8", "replace") for piece in bytes_of(ids, t)],
        "every token by itself",
    ),
    "ignored": (
        "bpe.5",
        lambda ids, t: [piece.decode("utf-8", "ignore") for piece in bytes_of(ids, t)],
        "is lost",
    ),
    "so far": ("bpe.5", so_far, "the whole text so far"),
    "so far, unfinished": (
        "bpe.5",
        lambda ids, t: [t.decode(ids[: end + 1]) for end in range(len(ids))],
        "unfinished characters included",
    ),
    "at the end": ("bpe.5", lambda ids, t: [t.decode(ids)], "comes too late"),
    "no empty ones": ("bpe.5", no_empty_ones, "Some may be empty"),
    "waits too long": ("bpe.5", whole_tokens_wait, "are expected"),
    "one text": ("bpe.5", lambda ids, t: t.decode(ids), "A list of strings"),
    "raises": ("bpe.5", lambda ids, t: [piece.decode() for piece in bytes_of(ids, t)], "UnicodeDecodeError"),
    "single bytes": ("bpe.6", lambda w, v: [w[i : i + 1] for i in range(len(w))], "you take the shortest"),
    "numbers": ("bpe.6", lambda w, v: list(w), "no bytes object"),
    "anywhere": ("bpe.6", anywhere, "the longest token that begins there"),
    "first piece only": ("bpe.6", lambda w, v: longest_first(w, v)[:1], "do not add up to the word"),
    "whole word": ("bpe.6", lambda w, v: [w] if w else [], "not all in the vocabulary"),
}

# What would give a solution away.
SECRETS = ["join_pair", "(?i", "{1,3}", "min(", "max(", "getincrementaldecoder"]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=SECRETS)


def test_each_faulty_learner_is_missed_by_some_words():
    """So the hints that describe the learners are all in use, and each is a mistake of its own."""
    for name, learn in module._LEARNERS:
        assert learn(TELLING) != module.learn_merges(TELLING, module.MERGES), name
        assert learn({b"a": 1}) == [], name


def test_the_right_learner_by_hand():
    """What the faulty learners are changed from is the notebook's own."""
    for words in (TELLING, {b"aaaa": 1, b"banana": 3}, {b"ring": 5, b"sing": 4, b"rings": 2, b"sung": 3}):
        assert module._learner()(words) == module.learn_merges(words, module.MERGES)
