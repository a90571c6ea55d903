"""Checkers for chapter 1."""

from __future__ import annotations

import copy
import functools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ...pretrained import load_course_model
from ...tokenizers import get_tokenizer
from ._core import (
    Hint,
    all_agree,
    call,
    exercise,
    expect,
    expect_close,
    expect_kind,
    explained,
    read_integer,
    read_number,
    read_truth,
    self_test,
)

VOCABULARY = 50_257  # GPT-2's


@exercise("1.A", "most_probable(counts, token)", may_return_none=True)
def exercise_1_a(answer: Callable[[Mapping[str, Mapping[str, int]], str], str | None]) -> str:
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
        with (
            explained(errors, "Your function stops for a token that is not in the table."),
            explained(AttributeError, "The rows of some tables are plain dictionaries, as the statement says.", "dict"),
        ):
            got = answer(counts, token)
        expect(
            set(counts) == set(before),
            "Your function changed the table. Looking up a missing key in a defaultdict adds the key; test first "
            "whether the key is in it.",
        )
        expect(counts == before, "Your function changed the table: a row of it is no longer what it was.")
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


@functools.cache
def _course_model() -> torch.nn.Module:
    return load_course_model()[0]


def _read_text(value: Any) -> str:
    """A text, or its tokens as a list of texts or of ids. Raises `Hint` for anything else."""
    if isinstance(value, str):
        return value
    entries = value.tolist() if hasattr(value, "tolist") else value
    expect(isinstance(entries, list | tuple), f"A prompt, which is a text, is expected, not {type(value).__name__}.")
    if all(isinstance(entry, str) for entry in entries):
        return "".join(entries)
    ids = all(isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < VOCABULARY for entry in entries)
    expect(ids, "A prompt is a text, or the list of its tokens.")
    return get_tokenizer().decode(list(entries))


@exercise("1.B")
def exercise_1_b(answer: str | Sequence[str] | Sequence[int]) -> str:
    """A prompt of at most six tokens, without the word, after which the course model expects " door"."""
    most, least, tokenizer = 6, 0.6, get_tokenizer()
    prompt = _read_text(answer)
    ids = tokenizer.encode(prompt, allowed_special="all")
    expect(bool(ids), "Your prompt is empty.")
    expect("door" not in prompt.lower(), "Your prompt itself has the word in it; the model should come upon it.")
    pieces = [tokenizer.decode([token_id]) for token_id in ids]
    expect(len(ids) <= most, f"Your prompt has {len(ids)} tokens, {pieces}; at most {most} are allowed.")
    expect(
        not prompt[-1].isspace(),
        f"Your prompt ends in {prompt[-1]!r}. A word's token begins with the space before it, so this one is too many.",
    )
    with torch.no_grad():
        probabilities = torch.softmax(_course_model()(torch.tensor([ids]))[0, -1], dim=-1)  # (V,)
    door = float(probabilities[tokenizer.encode(" door")[0]])
    best = probabilities.topk(4)
    first = [f"{tokenizer.decode([i])!r} {p:.0%}" for i, p in zip(best.indices.tolist(), best.values, strict=True)]
    expect(
        door >= least,
        f"After {prompt!r} the course model gives ' door' a probability of {door:.2f}; at least {least} is asked for. "
        f"Its first tokens are {', '.join(first)}. What happens to a door, in stories, and to hardly anything else?",
    )
    return (
        f"After {prompt!r} the course model gives ' door' a probability of {door:.2f}. You have steered a model by its "
        "context alone, without changing one of its parameters. That is what people do who write prompts."
    )


@exercise("1.C", "training_pairs(tokens, context_length)")
def exercise_1_c(answer: Callable[[list[str], int], list[tuple[list[str], str]]]) -> str:
    """`training_pairs(tokens, context_length)`: every token but the first, with the tokens before it."""
    rng = random.Random(12)
    stock = ["The", " the", " hen", "ing", " ladder", ",", ".", " a"]
    cases = [(stock[:4], 2), (stock[:4], 9), (stock[:2], 1), (stock[:1], 3), ([], 3)]
    cases += [(rng.choices(stock, k=rng.randint(0, 12)), rng.randint(1, 6)) for _ in range(25)]
    for tokens, context_length in cases:
        given = list(tokens)
        got = answer(given, context_length)
        where = f"For tokens={tokens} and context_length={context_length}: "
        expect(given == tokens, "Your function changes the list that it is given; slices make copies.")
        expect_kind(got, list | tuple, "A list of pairs")
        expect(
            all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in got),
            "Each entry should be a pair of a context and the token that comes next.",
        )
        expect(
            all(isinstance(context, list | tuple) for context, _ in got),
            "A context is a list of tokens, as it is cut out of the list; a text would no longer say where they end.",
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


# Functions from a list of tokens to a list of as many outputs: whether they are causal, and what they do.
_READERS: tuple[tuple[bool, Callable[[list[str]], list], str], ...] = (
    (True, lambda tokens: [token.upper() for token in tokens], "it writes every token in capitals"),
    (False, lambda tokens: [*tokens[1:], ""], "it shows each place the next token"),
    (True, lambda tokens: ["", *tokens][: len(tokens)], "it shows each place the token before it"),
    (False, lambda tokens: ["".join(tokens)] * len(tokens), "it shows every place the whole text"),
    (True, lambda tokens: [len(set(tokens[: i + 1])) for i in range(len(tokens))], "it counts different tokens so far"),
    (
        False,
        lambda tokens: ["".join(tokens[:-1])] * len(tokens),
        "it shows every place all tokens but the text's last, which is the only one that it hides",
    ),
    (False, lambda tokens: [*tokens[2:], "", ""][: len(tokens)], "it shows each place the token after the next one"),
    (
        False,
        lambda tokens: [following if i % 2 else "" for i, following in enumerate([*tokens[1:], ""][: len(tokens)])],
        "it shows the next token, but only at the places with odd numbers",
    ),
    (False, lambda tokens: [*tokens[-1:], *tokens[1:]], "it shows the first place the last token"),
    (
        True,
        lambda tokens: ["".join(tokens[: i + 1]) for i in range(len(tokens))],
        "it shows each place the text up to there",
    ),
    (
        False,
        lambda tokens: [tokens.count(token) for token in tokens],
        "it counts how often each token occurs in the text, also after its place",
    ),
    (
        False,
        lambda tokens: [len(tokens) - 1 - i for i in range(len(tokens))],
        "it says how many tokens are still to come, whichever they are",
    ),
)


@exercise("1.D", "is_causal(read, tokens)")
def exercise_1_d(answer: Callable[[Callable[[list[str]], list], list[str]], bool]) -> str:
    """`is_causal(read, tokens)`: whether no output of `read` depends on what comes after its place."""
    texts = [["The", "hen", "saw", "the", "cat", "and", "the", "cat", "saw", "the", "hen"], list("abacbad")]
    verdicts = [[read_truth(answer(read, list(text))) for text in texts] for _, read, _ in _READERS]
    flat = [verdict for row in verdicts for verdict in row]
    expect(
        not all(flat),
        "You call every function causal. Is anything changed after a place, and are the outputs compared that the "
        "function gives before and after the change?",
    )
    expect(
        any(flat),
        "You call no function causal, not even one that treats every token by itself. An output may change where the "
        "token itself has changed, and after it: which outputs must stay?",
    )
    for row, (causal, _, what) in zip(verdicts, _READERS, strict=True):
        wrong = [(text, verdict) for text, verdict in zip(texts, row, strict=True) if verdict != causal]
        if wrong:
            text, verdict = wrong[0]
            says = "You call a function causal that is not" if verdict else "You refuse a causal function"
            more = "" if verdict else " Where a token has changed, and after it, outputs may change too."
            raise Hint(f"{says}: {what}.{more} Tried with the tokens {text}.")
    return (
        f"All {len(_READERS)} functions are told apart, and you have not looked into any of them. Chapters 3 and 4 "
        "test attention and a whole GPT in this way: change the future, watch the past."
    )


def _ngram(
    train: Sequence[str],
    test: Sequence[str],
    n: int,
    *,
    weight: float = 20,
    one: float = 1,
    vocabulary: int = VOCABULARY,
    open_end: bool = False,
    skip: bool = True,
    average: Callable[[list[float]], float] = lambda logs: math.exp(-sum(logs) / len(logs)),
) -> float:
    """Perplexity of an n-gram model on `test`; the options are what people get wrong.

    With `open_end`, a context counts also where the text ends after it; without `skip`, tokens with a shorter context
    are scored too.
    """
    overall, followers, contexts = Counter(train), Counter(), Counter()
    for end in range(n - 1, len(train) + open_end):
        contexts[tuple(train[end - n + 1 : end])] += 1
        if end < len(train):
            followers[tuple(train[end - n + 1 : end + 1])] += 1
    logs = []
    for end in range(n - 1 if skip else 0, len(test)):
        context = tuple(test[max(0, end - n + 1) : end])
        d = (overall[test[end]] + one) / (len(train) + vocabulary)
        share = (followers[(*context, test[end])] + weight * d) / (contexts[context] + weight)
        logs.append(math.log(max(share, 1e-300)))
    return average(logs)


_NGRAM_SLIPS: tuple[tuple[Callable[..., float], str], ...] = (
    (lambda train, test, n: _ngram(train, test, n + 1), "Your contexts have n tokens. With the next one they are n."),
    (
        lambda train, test, n: _ngram(train, test, n, skip=False),
        "You also score tokens that have fewer than n − 1 tokens before them in `test`.",
    ),
    (lambda train, test, n: _ngram(test, test, n), "You count in `test`. Where should the counts come from?"),
    (lambda train, test, n: _ngram(train, train, n), "You score `train`, the text on which you counted."),
    (
        lambda train, test, n: _ngram(train, test, n, open_end=True),
        "You also count a context at the very end of `train`, where nothing follows it.",
    ),
    (
        lambda train, test, n: _ngram(train, test, n, open_end=n > 1),
        "You also count a context at the very end of `train`, where nothing follows it.",
    ),
    (lambda train, test, n: _ngram(train, test, n, one=0), "The 1 that d adds for each token is missing."),
    (lambda train, test, n: _ngram(train, test, n, vocabulary=0), "The divisor of d lacks the vocabulary's size."),
    (
        lambda train, test, n: _ngram(train, test, n, weight=1),
        "d counts as much as one stretch, in place of 20.",
    ),
    (
        lambda train, test, n: _ngram(train, test, n, average=lambda logs: -sum(logs) / len(logs)),
        "This is the average of −log p. One step is left.",
    ),
    (
        lambda train, test, n: _ngram(train, test, n, average=lambda logs: math.exp(sum(logs) / len(logs))),
        "This is one divided by the perplexity: look at the sign in the exponent.",
    ),
    (
        lambda train, test, n: _ngram(
            train, test, n, average=lambda logs: sum(math.exp(-value) for value in logs) / len(logs)
        ),
        "You average 1/p. Average the logarithms, and take the exponential of that.",
    ),
)


@exercise("1.E")
def exercise_1_e(
    answer: Callable[[list[str], list[str], int], float],
    worse_from: int | None = None,
    train: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
) -> str:
    """`ngram_perplexity(train, test, n)`, and the smallest n from which the story's perplexity gets worse again."""
    usage = "Hand in the function ngram_perplexity itself, your n, train_tokens and test_tokens."
    expect(callable(answer) and train is not None and test is not None, usage)
    rng = random.Random(15)
    stock = ["The", " the", " hen", "ing", " ladder", ",", "."]
    cases = [(rng.choices(stock, k=60), rng.choices(stock, k=12), n) for n in (2, 1, 3, 4, 2)]
    cases.append((rng.choices(stock, k=60), *cases[0][1:]))  # another text to count in, all else the same
    results = []
    for first, second, n in cases:
        given = list(first), list(second)
        zero = "In your function some probability, or what you divide by, is 0. Which terms keep both above 0?"
        with explained((ValueError, ZeroDivisionError), zero, "math domain|positive input|division by zero"):
            got = call(answer, *given, n)
        expect(got is not None, "Your function returned nothing: is there a return at its end?")
        expect(given == (first, second), "Your function changes the lists that it is given.")
        results.append(read_number(got))
    expected = [_ngram(*case) for case in cases]
    slips = [([slip(*case) for case in cases], hint) for slip, hint in _NGRAM_SLIPS]
    all_agree(results, expected, slips, rtol=1e-3, atol=0)
    expect(
        results[0] != results[-1],
        "For two texts to count in, your function returns the same. Does it count in `train`, its argument?",
    )
    for got, right, (_, second, n) in zip(results, expected, cases, strict=True):
        hint = f"your function gives {got:.4g}, which is too {'large' if got > right else 'small'}. Work out the first "
        case = f"For a text of 60 tokens and a test of {len(second)}, with n={n}:"
        expect_close(got, right, case, rtol=1e-3, atol=0, otherwise=f"{hint}p by hand, with its two counts and d.")
    fits = all(isinstance(part, list | tuple) and len(part) > 50 for part in (train, test))
    expect(fits and all(isinstance(token, str) for token in [*train, *test]), f"{usage} The last two are lists of str.")
    table = {n: _ngram(train, test, n) for n in range(1, 6)}
    turn = next((n for n in range(2, 6) if table[n] > table[n - 1]), 6)
    chosen = read_integer(worse_from, "Your function is right. The n from which it gets worse")
    expect(
        chosen == turn,
        f"Your function is right. Now call it for the chapter's text with n = 1, 2, 3, 4: at n = {chosen} the "
        "perplexity does not rise for the first time. Smaller is better.",
    )
    shown = ", ".join(f"{table[n]:,.0f} for n = {n}" for n in range(1, 5))
    return (
        f"{shown}. One token of context helps. With more of them most contexts of the test were never counted, and "
        "only d is left. More text moves this point, but slowly; a network has no such table to fill."
    )


self_test_1 = self_test("1", "ch01")
