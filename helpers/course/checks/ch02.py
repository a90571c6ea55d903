"""Checkers for chapter 2."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from ...tokenizers import get_tokenizer, split_text
from ._core import Hint, call, exercise, expect, expect_close, expect_kind, read_integer, read_parts, self_test


@exercise("2.0", "split_more(text)")
def exercise_2_0(answer: Callable[[str], list[str]]) -> str:
    """`split_more(text)`: split_text that also splits off square brackets and the long dash."""
    rng = random.Random(20)
    parts = ["hen", "Ladder", "7", "[", "]", "—", ",", ".", "--", "'", '"', "(", ")", "?", " ", "  ", "\n"]
    texts = ["a [b]—c", "[[hen]]", "no marks", "wait—what?"]
    texts += ["".join(rng.choices(parts, k=rng.randint(2, 12))) for _ in range(40)]
    for text in texts:
        right = [p.strip() for p in re.split(r"([,.:;?_!\"()'\[\]—]|--|\s)", text) if p.strip()]
        got = answer(text)
        expect_kind(got, list, "A list of strings")
        expect(None not in got, f"For {text!r} there is a None in the list: use one pair of parentheses only.")
        expect(all(isinstance(piece, str) for piece in got), f"For {text!r} you return {got}; strings are expected.")
        expect(
            all(piece.strip() for piece in got),
            f"For {text!r} there are empty strings or white space in the list: {got}. Filter them out.",
        )
        expect(
            "".join(got) == "".join(right),
            f"For {text!r} characters were lost or added: {got}. What a pattern matches outside parentheses is "
            "thrown away by re.split.",
        )
        expect(
            got == right,
            f"For {text!r} your function gives {got}, but {right} is expected. Inside square brackets of a pattern, "
            "the characters [ and ] need a backslash before them.",
        )
    return (
        "A bracket is a special sign in a pattern, so it needs a backslash to stand for itself; the long dash is a "
        "single character and can go in with the other marks, unlike the double dash."
    )


@exercise("2.1")
def exercise_2_1(answer: Sequence[tuple[int, str]]) -> str:
    """The ids and pieces of a word that means nothing."""
    text = "Akwirw ier"
    tokenizer = get_tokenizer()
    expect_kind(answer, (list, tuple), "A list of pairs")
    shape = "Each entry should be a pair of an id and the piece of text that it stands for."
    pairs = [read_parts(pair, 2, shape) for pair in answer]
    for pair in pairs:
        expect(isinstance(pair[1], str), "In each pair the id (an int) comes first and the piece (a str) second.")
        pair[0] = read_integer(pair[0], "The id, first in each pair,")
    expect(
        [token_id for token_id, _ in pairs] != tokenizer.encode("Akwirw") + tokenizer.encode("ier"),
        "Encode the two words together. The space between them is a part of the text too.",
    )
    expect(
        [token_id for token_id, _ in pairs] == tokenizer.encode(text),
        "These are not the ids of the whole text. Encode it as one string, exactly as it stands in the exercise.",
    )
    for token_id, piece in pairs:
        expect(
            piece == tokenizer.decode([token_id]),
            f"The id {token_id} does not stand for {piece!r}. Decode each id alone, without stripping spaces.",
        )
    return (
        "Six tokens for ten characters. The word is not in the vocabulary, but its pieces are, down to single letters "
        "and a space of its own; joined, they give back the text exactly, so nothing is ever unknown."
    )


def _windows(dataset: Dataset, count: int = 40) -> list[tuple[list[int], list[int]]]:
    """The first inputs and targets of a dataset, as lists."""
    pairs = (dataset[index] for index in range(count))
    return [(list(map(int, inputs)), list(map(int, targets))) for inputs, targets in pairs]


@exercise("2.2")
def exercise_2_2(answer: tuple[DataLoader, DataLoader]) -> str:
    """Two loaders: windows of 2 and of 8 tokens, both with a stride of 2."""
    order = "A pair of loaders is expected: first the one with windows of 2 tokens, then the one with windows of 8."
    loaders = read_parts(answer, 2, order)
    for name, loader, max_length in zip(("first", "second"), loaders, (2, 8), strict=True):
        expect_kind(loader, DataLoader, f"In the {name} place, a loader made by create_dataloader_v1")
        expect(loader.batch_size == 4, f"The {name} loader has batch_size={loader.batch_size}; 4 is expected.")
        expect(
            isinstance(loader.sampler, SequentialSampler),
            f"The {name} loader shuffles the windows, so its first rows would differ from run to run.",
        )
        windows = call(_windows, loader.dataset)
        lengths = sorted({len(part) for window in windows for part in window})
        expect(
            lengths == [max_length],
            f"The {name} loader has windows of {' and '.join(map(str, lengths))} tokens; {max_length} are expected.",
        )
        text = [*windows[0][0], windows[0][1][-1]]  # the first max_length + 1 tokens
        for index, (inputs, targets) in enumerate(windows):
            row = [*inputs, targets[-1]]
            text[2 * index :] = text[2 * index : 2 * index + max_length - 1] + row[max_length - 1 :]
            expect(
                row == text[2 * index :] and inputs[1:] == targets[:-1],
                f"The rows of the {name} loader do not start two tokens apart. Look at stride.",
            )
    return (
        "With max_length=2 and stride=2 the rows follow each other without sharing a token; with max_length=8 and "
        "stride=2 each row shares six of its eight tokens with the next one."
    )


@exercise("2.4", "build_vocab(text, min_count)")
def exercise_2_4(answer: Callable[[str, int], dict[str, int]]) -> str:
    """`build_vocab(text, min_count)`: a vocabulary without rare tokens, special tokens last."""
    rng = random.Random(24)
    special = ["<|endoftext|>", "<|unk|>"]
    stock = ["hen", "Hen", "saw", "zoo", "ladder", "a", ",", ".", "?", "7"]
    cases = [("the hen, the saw, the hen.", 1), ("the hen, the saw, the hen.", 2), ("one two", 3)]
    cases += [(" ".join(rng.choices(stock, k=rng.randint(5, 40))), rng.randint(1, 4)) for _ in range(25)]
    for text, min_count in cases:
        counts = Counter(split_text(text))
        kept = sorted(token for token, count in counts.items() if count >= min_count)
        where = f"For text={text!r} and min_count={min_count}: "
        got = answer(text, min_count)
        expect_kind(got, dict, "A dictionary from tokens to ids")
        expect(
            all(isinstance(token, str) for token in got),
            "The keys should be tokens and the values ids; yours seem to be the other way round.",
        )
        for token_id in got.values():
            read_integer(token_id, "Each id")
        expect(all(token in got for token in special), "One of the two special tokens is not in your vocabulary.")
        words = set(got) - set(special)
        expect(
            words == set(kept),
            where + f"your vocabulary has {len(words)} ordinary tokens, {len(kept)} are expected. "
            "A token that occurs exactly min_count times belongs to it.",
        )
        ids = sorted(got.values())
        expect(
            ids == list(range(len(got))),
            where + f"the ids run from {ids[0]} to {ids[-1]}; they should start at 0 and leave no gap.",
        )
        expect(
            [got[token] for token in special] == [len(kept), len(kept) + 1],
            where + "the special tokens should have the last two ids, <|unk|> the very last.",
        )
        expect(sorted(kept, key=got.get) == kept, where + "the ids do not follow the sorted order of the tokens.")
    return (
        "Rare tokens are left out, so they are read as <|unk|> in training too, and the model gets to learn what an "
        "unknown word is like."
    )


@exercise("2.5", "merge_pair(tokens, left, right)")
def exercise_2_5(answer: Callable[[list[str], str, str], list[str]]) -> str:
    """`merge_pair(tokens, left, right)`: one merge of byte-pair encoding."""
    rng = random.Random(25)
    cases = [
        (["r", "i", "n", "g"], "n", "g"),
        (["in", "g"], "n", "g"),
        (["a", "a", "a"], "a", "a"),
        (["a", "a", "a", "a"], "a", "a"),
        (["n", "n", "g"], "n", "g"),
        ([], "a", "b"),
        (["a"], "a", "b"),
        ([" ", "a", " ", "a"], " ", "a"),
    ]
    for _ in range(40):
        tokens = rng.choices(["a", "b", "ab", "c"], k=rng.randint(2, 9))
        cases.append((tokens, *rng.choices(["a", "b", "ab"], k=2)))
    for tokens, left, right in cases:
        merged = _merged(tokens, left, right)
        given = list(tokens)
        got = answer(given, left, right)
        expect_kind(got, list, "A list of tokens")
        expect(all(isinstance(token, str) for token in got), f"You return {got}; its tokens should be strings.")
        expect(given == tokens, "Your function changes the list that it is given; return a new one.")
        if got == merged:
            continue
        where = f"For {tokens} and the pair {left!r}, {right!r} your function gives {got}; {merged} is expected. "
        if left == right and len(got) >= len(merged):
            raise Hint(where + "Once two tokens are joined, continue after both of them.")
        expect("".join(got) == "".join(tokens), where + "Characters were lost or used twice. Mind the last token.")
        if not any(pair == (left, right) for pair in pairwise(tokens)):
            raise Hint(where + "Compare whole tokens, not the text inside them.")
        raise Hint(where + "Every place where the pair stands should be joined, and no other.")
    return (
        "Whole tokens are compared, and after a join the walk goes on behind it. A list of tokens says where each one "
        "begins and ends, which a joined string does not."
    )


def _merged(tokens: Sequence[str], left: str, right: str) -> list[str]:
    merged: list[str] = []
    index = 0
    while index < len(tokens):
        if list(tokens[index : index + 2]) == [left, right]:
            merged.append(left + right)
            index += 2
        else:
            merged.append(tokens[index])
            index += 1
    return merged


@exercise("2.6", "count_windows(num_tokens, max_length, stride)")
def exercise_2_6(answer: Callable[[int, int, int], int]) -> str:
    """`count_windows(num_tokens, max_length, stride)`."""
    rng = random.Random(26)
    cases = [(12, 4, 1), (12, 4, 4), (12, 4, 2), (5, 4, 1), (4, 4, 1), (2, 4, 1), (9, 4, 4), (10, 4, 4), (100, 8, 3)]
    cases += [(rng.randint(0, 200), rng.randint(1, 20), rng.randint(1, 25)) for _ in range(60)]
    for num_tokens, max_length, stride in cases:
        starts = range(0, num_tokens, stride)
        count = sum(start + max_length < num_tokens for start in starts)
        got = answer(num_tokens, max_length, stride)
        expect(not isinstance(got, float), "A whole number of type int is expected: divide with // to round down.")
        got = read_integer(got)
        case = (
            f"For num_tokens={num_tokens}, max_length={max_length}, stride={stride} your function gives {got}; "
            f"counting gives {count}."
        )
        expect(count > 0 or got == 0, f"{case} A text that is too short has no window, and a count is never negative.")
        without_target = sum(start + max_length <= num_tokens for start in starts)
        slips = [
            (without_target, "The last window needs a target as well, one token after its last input."),
            (count - 1, "The numbers of the windows start at 0: how many are there from 0 up to the last?"),
        ]
        last = "Where does the last possible window start, and how many strides is that from 0?"
        expect_close(got, count, case, slips, otherwise=last)
    return (
        "The last start is the largest multiple of the stride that leaves room for max_length inputs and one more "
        "token; since counting starts at 0, there is one window more than that multiple."
    )


@exercise("2.7", "embed(ids, token_layer, position_layer)")
def exercise_2_7(answer: Callable[..., torch.Tensor]) -> str:
    """`embed(ids, token_layer, position_layer)`: token plus position embeddings, (B, T, C)."""
    generator = torch.Generator().manual_seed(27)
    for batch, length, context, size in [(2, 4, 4, 3), (3, 2, 5, 4), (4, 4, 8, 2), (1, 1, 3, 5), (5, 3, 3, 6)]:
        token_layer, position_layer = _table(11, size, generator), _table(context, size, generator)
        ids = torch.randint(0, min(11, context), (batch, length), generator=generator)
        tokens, table = token_layer.weight[ids], position_layer.weight  # (B, T, C), (context, C)
        right = tokens + table[:length]
        got = answer(ids, token_layer, position_layer)
        expect_kind(got, torch.Tensor, "A tensor")
        by_window = tokens + table[torch.arange(batch) % context, None]
        slips = [
            (tokens, "These are the token embeddings alone; positions are not in yet."),
            (tokens + table[ids], "You look up positions by token id. A position is the column of ids."),
            (by_window, "You number the windows of the batch; the places inside a window are expected."),
        ]
        case = f"This is for ids of shape ({batch}, {length}) and {context} positions."
        expect_close(got, right, case, slips)
    return (
        "Each id picks a row of the first table, each column a row of the second, and broadcasting adds the same "
        "positions to every window of the batch. The first lines of every GPT are these."
    )


def _table(rows: int, size: int, generator: torch.Generator) -> torch.nn.Embedding:
    return torch.nn.Embedding.from_pretrained(torch.randn(rows, size, generator=generator))


self_test_2 = self_test("2", "ch02")
