"""Checkers for chapter 1."""

from __future__ import annotations

import copy
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import torch

from ._core import Hint, exercise, expect, expect_close, expect_kind, explained, read_number, read_tensor, self_test


@exercise("1.1", "most_probable(counts, token)", may_return_none=True)
def exercise_1_1(answer: Callable[[Mapping[str, Mapping[str, int]], str], str | None]) -> str:
    """`most_probable(counts, token)`: the follower that occurs most often, or None."""
    rng = random.Random(11)
    for number in range(40):
        stock = rng.sample([" cat", " hen", " saw", " the", ".", " ladder", " ran", " on", " Zoo"], k=6)
        table: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for token in stock[:4]:
            table[token] = Counter(dict(zip(rng.sample(stock, k=3), rng.sample(range(1, 30), k=3), strict=True)))
        counts = table if number % 2 else {token: dict(row) for token, row in table.items()}
        before, token = copy.deepcopy(counts), rng.choice(stock[:5])
        where = f"For counts={ {key: dict(row) for key, row in before.items()} } and token={token!r}: "
        errors = (KeyError, IndexError, ValueError) if token not in before else ()
        with explained(errors, "Your function stops for a token that is not in the table."):
            got = answer(counts, token)
        expect(
            counts == before,
            "Your function changed the table. Looking up a missing key in a defaultdict adds the key; test first "
            "whether the key is in it.",
        )
        if token not in before:
            expect(got is None, where + f"the token is not in the table, so None is expected; you return {got!r}.")
            continue
        row = before[token]
        expect(got is not None, where + "you return None although the token is in the table. Is there a return?")
        expect(not isinstance(got, tuple), where + f"you return the pair {got!r}; the token alone is expected.")
        expect(not isinstance(got, int), where + f"you return {got!r}, a count; its token is expected.")
        expect_kind(got, str, where + "A token")
        expect(got in row, where + f"you return {got!r}, which never follows this token.")
        expect(
            row[got] == max(row.values()),
            where + f"you return {got!r}, which occurs {row[got]} times; another one occurs more often.",
        )
    return (
        "The model's favourite is the follower with the highest count; dividing all counts by their sum would not "
        "change which one it is. Taking it at every step is greedy choice, which runs in circles here."
    )


@exercise("1.2", "training_pairs(tokens, context_length)")
def exercise_1_2(answer: Callable[[list[str], int], list[tuple[list[str], str]]]) -> str:
    """`training_pairs(tokens, context_length)`: every token but the first, with the tokens before it."""
    rng = random.Random(12)
    cases = [(list("abcd"), 2), (list("abcd"), 9), (list("ab"), 1), (["a"], 3), ([], 3)]
    cases += [(rng.choices("abcdefg", k=rng.randint(0, 12)), rng.randint(1, 6)) for _ in range(25)]
    for tokens, context_length in cases:
        given = list(tokens)
        got = answer(given, context_length)
        where = f"For tokens={tokens} and context_length={context_length}: "
        expect(given == tokens, "Your function changes the list that it is given; slices make copies.")
        expect_kind(got, list, "A list of pairs")
        expect(
            all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in got)
            and all(isinstance(context, list | tuple | str) for context, _ in got),
            "Each entry should be a pair of a context and the token that comes next.",
        )
        pairs = [(list(context), following) for context, following in got]
        count = max(len(tokens) - 1, 0)
        expect(
            all(context for context, _ in pairs),
            where + "one of your contexts is empty. The first token has none before it, so it has no pair.",
        )
        expect(
            len(pairs) == count,
            where + f"you return {len(pairs)} pairs, and {count} are expected. Which tokens have one before them?",
        )
        expect(
            [following for _, following in pairs] == tokens[1:],
            where + f"the tokens that come next are {[following for _, following in pairs]} in your pairs. Every token "
            "but the first should come up once, in order.",
        )
        longest = max((len(context) for context, _ in pairs), default=0)
        expect(
            longest <= context_length,
            where + f"one of your contexts has {longest} tokens, more than are allowed.",
        )
        right = [(tokens[max(0, i - context_length) : i], tokens[i]) for i in range(1, len(tokens))]
        for mine, yours in zip(right, pairs, strict=True):
            expect(
                yours[0] == mine[0],
                where + f"before {mine[1]!r} you have {yours[0]}, but {mine[0]} is expected: the last tokens before "
                "it, as many as there are or as are allowed.",
            )
    return (
        "A text of n tokens gives n − 1 pairs, whatever the context length: every token but the first is a solution "
        "once. The beginning of the text has shorter contexts, and the model learns to cope with them too."
    )


@exercise("1.3")
def exercise_1_3(answer: str) -> str:
    """The four steps from nothing to an assistant, in order."""
    text = "".join(map(str, answer)) if isinstance(answer, list | tuple) else answer
    expect_kind(text, str, "A string of letters")
    order = [letter for letter in text.lower() if letter.isalpha()]
    expect(sorted(order) == list("abcd"), "Each of the letters a to d should occur once.")
    place = {letter: index for index, letter in enumerate(order)}
    for first, then, hint in [
        ("b", "a", "In step (a) a base model is trained further. Which step makes the base model?"),
        ("d", "b", "In step (b) a network is trained. Does it exist yet?"),
        ("a", "c", "Step (c) judges the finished model, and there is still some training to come after it."),
    ]:
        expect(place[first] < place[then], hint)
    return (
        "First a network that knows nothing; pretraining makes a base model of it, which continues texts; fine-tuning "
        "makes an assistant of that; and only questions that it was not trained on can show what it has learned."
    )


@exercise("1.4", "may_see(num_tokens, kind)")
def exercise_1_4(answer: Callable[[int, str], list[list[bool]]]) -> str:
    """`may_see(num_tokens, kind)`: all true for an encoder, a triangle for a decoder."""
    for num_tokens in (1, 2, 3, 5, 8):
        for kind in ("encoder", "decoder"):
            where = f"For num_tokens={num_tokens} and kind={kind!r}: "
            got = answer(num_tokens, kind)
            seen = read_tensor(got, where + "A list of lists of one length") != 0  # (T, T)
            expect(
                seen.shape == (num_tokens, num_tokens),
                where + f"a list of {num_tokens} lists of {num_tokens} entries each is expected.",
            )
            if kind == "encoder":
                expect(bool(seen.all()), where + "in an encoder nothing is hidden, not even what comes later.")
                continue
            expect(
                bool(seen.diagonal().all()),
                where + "a token may see itself; what is hidden is what it is to predict, the one after it.",
            )
            past = torch.ones_like(seen).tril()
            if num_tokens > 1:
                expect(not seen.all(), where + "every token sees every other, and so the one that it is to predict.")
                expect(
                    not torch.equal(seen, past.T),
                    where + "your tokens see the future and not the past: rows and columns are swapped.",
                )
            wrong = (seen != past).nonzero().tolist()
            if wrong:
                row, column = wrong[0]
                raise Hint(where + f"the entry in row {row} and column {column} is wrong. May that token see that one?")
    return (
        "The triangle is the only difference in what encoder and decoder see. Every row of it is an exercise of its "
        "own, and chapter 3 builds it into attention as the causal mask."
    )


@exercise("1.5", "reading_years(num_tokens, words_per_minute, hours_per_day)")
def exercise_1_5(answer: Callable[[float, float, float], float]) -> str:
    """`reading_years(num_tokens, words_per_minute, hours_per_day)`."""

    def right(num_tokens: float, words_per_minute: float, hours_per_day: float) -> float:
        return num_tokens * 3 / 4 / words_per_minute / 60 / hours_per_day / 365

    rng = random.Random(15)
    cases = [(300e9, 250, 8)]
    cases += [
        (rng.randint(1, 900) * 10 ** rng.randint(5, 10), rng.randint(100, 600), rng.randint(1, 24)) for _ in range(12)
    ]
    for num_tokens, speed, hours in cases:
        years = right(num_tokens, speed, hours)
        slips = [
            (years * 4 / 3, "you counted tokens as words. Four tokens are three words."),
            (years * 16 / 9, "you turned tokens into words the wrong way round. There are fewer words than tokens."),
            (years * 60, "your result is sixty times too large. Speed is in words per minute, the day in hours."),
            (years * 365, "that is days."),
            (years * hours / 24, "that is for somebody who reads day and night."),
        ]
        case = f"For {num_tokens:,.0f} tokens, {speed} words per minute and {hours} hours per day:"
        got = read_number(answer(num_tokens, speed, hours))
        units = "Go through the units: tokens, words, minutes, hours, days, years."
        expect_close(got, years, case, slips, atol=0, otherwise=f"your function gives {got:,.4g}. {units}")
    return (
        f"GPT-3's training text takes {right(*cases[0]):,.0f} years at eight hours a day. The model read it in one "
        "training run, on many processors at once. People learn a language from far less, and nobody quite knows how."
    )


self_test_1 = self_test("1", "ch01")
