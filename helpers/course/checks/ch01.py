"""Checkers for chapter 1."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from ._core import Question, exercise, expect, expect_function, self_test

__all__ = ["exercise_1_1", "exercise_1_2", "exercise_1_3", "exercise_1_4", "exercise_1_5", "self_test_1"]


@exercise("1.1")
def exercise_1_1(answer: Callable[[Mapping[str, Mapping[str, int]], str], str | None]) -> str:
    """`most_probable(counts, token)`: the follower that occurs most often, or None."""
    expect_function(answer, "most_probable(counts, token)")
    rng = random.Random(11)
    for number in range(40):
        stock = rng.sample([" cat", " hen", " saw", " the", ".", " ladder", " ran", " on", " Zoo"], k=6)
        table: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for token in stock[:4]:
            table[token] = Counter(dict(zip(rng.sample(stock, k=3), rng.sample(range(1, 30), k=3), strict=True)))
        counts = table if number % 2 else {token: dict(row) for token, row in table.items()}
        before, token = copy.deepcopy(counts), rng.choice(stock[:5])
        where = f"For counts={ {key: dict(row) for key, row in before.items()} } and token={token!r}: "
        try:
            got = answer(counts, token)
        except (KeyError, IndexError, ValueError) as error:
            expect(token in before, f"For a token that is not in the table, your function stops with {error!r}.")
            raise
        expect(
            counts == before,
            "Your function changed the table. Looking up a missing key in a defaultdict puts the key in; ask whether "
            "it is there first.",
        )
        if token not in before:
            expect(got is None, where + f"the token is not in the table, so None is wanted; you return {got!r}.")
            continue
        row = before[token]
        wanted = sorted(row, key=row.__getitem__)[-1]
        expect(not isinstance(got, tuple), where + f"you return the pair {got!r}; the token alone is wanted.")
        expect(not isinstance(got, int), where + f"you return {got!r}, a count; its token is wanted.")
        expect(got is not None, where + "you return None although the token is in the table. Is there a return?")
        expect(got in row, where + f"you return {got!r}, which never follows this token.")
        expect(
            got == wanted,
            where + f"you return {got!r}, which occurs {row.get(got)} times; another one occurs more often.",
        )
    return (
        "The model's favourite is the follower with the highest count; dividing all counts by their sum would not "
        "change which one it is. Taking it at every step is greedy choice, which runs in circles here."
    )


@exercise("1.2")
def exercise_1_2(answer: Callable[[list[str], int], list[tuple[list[str], str]]]) -> str:
    """`training_pairs(tokens, context_length)`: every token but the first, with the tokens before it."""
    expect_function(answer, "training_pairs(tokens, context_length)")
    rng = random.Random(12)
    cases = [(list("abcd"), 2), (list("abcd"), 9), (list("ab"), 1), (["a"], 3), ([], 3)]
    cases += [(rng.choices("abcdefg", k=rng.randint(0, 12)), rng.randint(1, 6)) for _ in range(25)]
    for tokens, context_length in cases:
        given = list(tokens)
        got = answer(given, context_length)
        where = f"For tokens={tokens} and context_length={context_length}: "
        expect(given == tokens, "Your function changes the list that it is given; slices make copies.")
        expect(isinstance(got, list), f"A list of pairs is wanted, not {type(got).__name__}.")
        expect(
            all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in got),
            "Each entry should be a pair of a context and the token that comes next.",
        )
        pairs = [(list(context), following) for context, following in got]
        wanted = max(len(tokens) - 1, 0)
        expect(
            all(context for context, _ in pairs),
            where + "one of your contexts is empty. From nothing, nothing is predicted: the first token has no pair.",
        )
        expect(
            len(pairs) == wanted,
            where + f"you return {len(pairs)} pairs, and {wanted} are wanted. Which tokens have one before them?",
        )
        expect(
            [following for _, following in pairs] == tokens[1:],
            where + f"the tokens that come next are {[following for _, following in pairs]} with you. Every token but "
            "the first should come up once, in order.",
        )
        longest = max((len(context) for context, _ in pairs), default=0)
        expect(
            longest <= context_length,
            where + f"a context of yours has {longest} tokens, more than are allowed.",
        )
        right = [(tokens[max(0, i - context_length) : i], tokens[i]) for i in range(1, len(tokens))]
        for mine, yours in zip(right, pairs, strict=True):
            expect(
                yours[0] == mine[0],
                where + f"before {mine[1]!r} you have {yours[0]}, but {mine[0]} is wanted: the last tokens before it, "
                "as many as there are or as are allowed.",
            )
    return (
        "A text of n tokens gives n − 1 pairs, whatever the context length: every token but the first is a solution "
        "once. The beginning of the text has shorter contexts, and the model learns to cope with them too."
    )


@exercise("1.3")
def exercise_1_3(answer: str) -> str:
    """The four steps from nothing to an assistant, in order."""
    text = "".join(map(str, answer)) if isinstance(answer, (list, tuple)) else answer
    expect(isinstance(text, str), f"A string of letters is wanted, not {type(answer).__name__}.")
    order = [letter for letter in text.lower() if letter.isalpha()]
    expect(sorted(order) == list("abcd"), "Each of the letters a to d should occur once.")
    place = {letter: index for index, letter in enumerate(order)}
    for first, then, hint in [
        ("b", "a", "In step (a) a base model is trained further. Which step makes the base model?"),
        ("d", "b", "In step (b) a network is trained. Is it there yet?"),
        ("a", "c", "Step (c) judges the finished model, and there is still some training to come after it."),
    ]:
        expect(place[first] < place[then], hint)
    return (
        "First a network that knows nothing; pretraining makes a base model of it, which continues texts; fine-tuning "
        "makes an assistant of that; and only questions that it was not trained on can show what it has learned."
    )


@exercise("1.4")
def exercise_1_4(answer: Callable[[int, str], list[list[bool]]]) -> str:
    """`may_see(num_tokens, kind)`: all true for an encoder, a triangle for a decoder."""
    expect_function(answer, "may_see(num_tokens, kind)")
    for num_tokens in (1, 2, 3, 5, 8):
        for kind in ("encoder", "decoder"):
            where = f"For num_tokens={num_tokens} and kind={kind!r}: "
            got = answer(num_tokens, kind)
            expect(got is not None, where + "your function returns None. Is there a return?")
            got = got.tolist() if hasattr(got, "tolist") else got
            expect(isinstance(got, (list, tuple)), f"A list of lists is wanted, not {type(got).__name__}.")
            expect(
                len(got) == num_tokens
                and all(isinstance(row, (list, tuple)) and len(row) == num_tokens for row in got),
                where + f"{num_tokens} lists of {num_tokens} entries each are wanted.",
            )
            table = [[bool(entry) for entry in row] for row in got]
            cells = [(row, col) for row in range(num_tokens) for col in range(num_tokens)]
            if kind == "encoder":
                expect(
                    all(table[row][col] for row, col in cells),
                    where + "in an encoder nothing is hidden, not even what comes later.",
                )
                continue
            expect(
                all(table[place][place] for place in range(num_tokens)),
                where + "a token may see itself; what is hidden is what it is to predict, the one after it.",
            )
            expect(
                not all(table[row][col] for row, col in cells) or num_tokens == 1,
                where + "every token sees every other, so the solutions are in plain sight.",
            )
            transposed = [[col >= row for col in range(num_tokens)] for row in range(num_tokens)]
            expect(
                num_tokens == 1 or table != transposed,
                where + "your tokens see the future and not the past: rows and columns are swapped.",
            )
            wrong = next(((row, col) for row, col in cells if table[row][col] is not (row >= col)), None)
            expect(
                wrong is None,
                where + f"the entry in row {wrong and wrong[0]} and column {wrong and wrong[1]} is wrong. May that "
                "token see that one?",
            )
    return (
        "The triangle is the only difference in what encoder and decoder see. Every row of it is an exercise of its "
        "own, and chapter 3 builds it into attention as the causal mask."
    )


@exercise("1.5")
def exercise_1_5(answer: Callable[[float, float, float], float]) -> str:
    """`reading_years(num_tokens, words_per_minute, hours_per_day)`."""
    expect_function(answer, "reading_years(num_tokens, words_per_minute, hours_per_day)")
    rng = random.Random(15)
    cases = [(300e9, 250, 8)]
    cases += [
        (rng.randint(1, 900) * 10 ** rng.randint(5, 10), rng.randint(100, 600), rng.randint(1, 24)) for _ in range(12)
    ]
    for num_tokens, speed, hours in cases:
        years = num_tokens * 3 / 4 / speed / 60 / hours / 365
        got = answer(num_tokens, speed, hours)
        where = f"For {num_tokens:,.0f} tokens, {speed} words a minute and {hours} hours a day: "
        expect(isinstance(got, (int, float)) and not isinstance(got, bool), f"A number is wanted, not {got!r}.")
        for factor, hint in [
            (4 / 3, "you counted tokens as words. Four tokens are three words."),
            (16 / 9, "you turned tokens into words the wrong way round. There are fewer words than tokens."),
            (60, "your result is sixty times too large. Speed is in words a minute, the day in hours."),
            (365, "that is days."),
            (hours / 24, "that is for somebody who reads day and night."),
        ]:
            expect(
                math.isclose(factor, 1) or not math.isclose(got, years * factor, rel_tol=1e-3),
                where + hint,
            )
        expect(
            math.isclose(got, years, rel_tol=1e-3),
            where
            + f"your function gives {got:,.4g}. Go through the units: tokens, words, minutes, hours, days, years.",
        )
    years = 300e9 * 3 / 4 / 250 / 60 / 8 / 365
    return (
        f"GPT-3's training text takes {years:,.0f} years at eight hours a day. The model read it in one training "
        "run, on many processors at once. People learn a language from far less, and nobody quite knows how."
    )


_QUESTIONS = [
    Question(
        "What does a GPT compute from a text?",
        {
            "a": (False, "It never plans a whole sentence; sentences come about one token after another, by the loop."),
            "b": (True, "a probability for each token of the vocabulary; all else is drawing from it and repeating."),
            "c": (False, "It says what is probable in texts like those it has read, which is not the same as true."),
        },
    ),
    Question(
        "Why does pretraining need no labels?",
        {
            "a": (True, "every text carries the solution of each of its exercises, the token that really came next."),
            "b": (
                False,
                "The tokenizer cuts the text into pieces and numbers them; it knows nothing of what is right.",
            ),
            "c": (False, "Nobody could label hundreds of billions of tokens; labels belong to fine-tuning."),
        },
    ),
    Question(
        "In a text of 1,000 tokens, how many of the tokens can a GPT be trained to predict from those before them?",
        {
            "a": (False, "The last is only one of them; each place of the text is an exercise, all in a single pass."),
            "b": (True, "each token but the first, which has nothing before it to be predicted from."),
            "c": (
                False,
                "That counts all pairs of tokens; only the next one is predicted, from all before it together.",
            ),
        },
    ),
    Question(
        "A base model answers 'What is the largest lake?' with 'What is the longest river?'",
        {
            "a": (False, "It did what it was trained for. Answering is a habit that instruction fine-tuning teaches."),
            "b": (
                False,
                "It was trained on texts of all kinds; among them are lists in which questions follow questions.",
            ),
            "c": (True, "a base model continues, and this is a likely continuation; chapter 7 teaches it to answer."),
        },
    ),
]

self_test_1 = self_test("1", _QUESTIONS)
