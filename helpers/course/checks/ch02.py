"""Checkers for chapter 2."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch.utils.data import DataLoader, SequentialSampler

from ...tokenizers import get_tokenizer, split_text
from ._core import Hint, Question, exercise, expect, expect_close, expect_function, self_test

__all__ = [
    "exercise_2_0",
    "exercise_2_1",
    "exercise_2_2",
    "exercise_2_4",
    "exercise_2_5",
    "exercise_2_6",
    "exercise_2_7",
    "self_test_2",
]


@exercise("2.0")
def exercise_2_0(answer: Callable[[str], list[str]]) -> str:
    """`split_more(text)`: split_text that also splits off square brackets and the long dash."""
    expect_function(answer, "split_more(text)")
    rng = random.Random(20)
    parts = ["hen", "Ladder", "7", "[", "]", "—", ",", ".", "--", "'", '"', "(", ")", "?", " ", "  ", "\n"]
    texts = ["a [b]—c", "[[hen]]", "no marks", "wait—what?"]
    texts += ["".join(rng.choices(parts, k=rng.randint(2, 12))) for _ in range(40)]
    for text in texts:
        wanted = [p.strip() for p in re.split(r"([,.:;?_!\"()'\[\]—]|--|\s)", text) if p.strip()]
        got = answer(text)
        expect(isinstance(got, list), f"A list of strings is wanted, not {type(got).__name__}.")
        expect(None not in got, f"For {text!r} there is a None in the list: use one pair of parentheses only.")
        expect(
            all(piece.strip() for piece in got),
            f"For {text!r} there are empty strings or white space in the list: {got}. Filter them out.",
        )
        expect(
            "".join(got) == "".join(wanted),
            f"For {text!r} characters were lost or added: {got}. What a pattern matches outside parentheses is "
            "thrown away by re.split.",
        )
        expect(
            got == wanted,
            f"For {text!r} your function gives {got}, but {wanted} is wanted. Inside square brackets of a pattern, "
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
    wanted = tokenizer.encode(text)
    expect(isinstance(answer, (list, tuple)), f"A list of pairs is wanted, not {type(answer).__name__}.")
    expect(
        all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in answer),
        "Each entry should be a pair of an id and the piece of text that it stands for.",
    )
    pairs = [(pair[0], pair[1]) for pair in answer]
    expect(
        all(isinstance(token_id, int) and isinstance(piece, str) for token_id, piece in pairs),
        "In each pair the id (an int) comes first and the piece (a str) second.",
    )
    expect(
        [token_id for token_id, _ in pairs] != tokenizer.encode("Akwirw") + tokenizer.encode("ier"),
        "Encode the two words together. The space between them is a part of the text too.",
    )
    expect(
        [token_id for token_id, _ in pairs] == wanted,
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


@exercise("2.2")
def exercise_2_2(answer: tuple[DataLoader, DataLoader]) -> str:
    """Two loaders: windows of 2 and of 8 tokens, both with a stride of 2."""
    expect(
        isinstance(answer, (list, tuple)) and len(answer) == 2,
        "A pair of loaders is wanted: first the one with windows of 2 tokens, then the one with windows of 8.",
    )
    for name, loader, max_length in (("first", answer[0], 2), ("second", answer[1], 8)):
        expect(
            isinstance(loader, DataLoader),
            f"The {name} answer is of type {type(loader).__name__}; create_dataloader_v1 returns what is wanted.",
        )
        expect(loader.batch_size == 4, f"The {name} loader has batch_size={loader.batch_size}; 4 is wanted.")
        expect(
            isinstance(loader.sampler, SequentialSampler),
            f"The {name} loader shuffles the windows, so its first rows would differ from run to run.",
        )
        windows = [loader.dataset[index] for index in range(40)]
        length = len(windows[0][0])
        expect(length == max_length, f"The {name} loader has windows of {length} tokens; {max_length} are wanted.")
        text = torch.cat([windows[0][0], windows[0][1][-1:]]).tolist()  # the first max_length + 1 tokens
        for index, (inputs, targets) in enumerate(windows):
            row = [*inputs.tolist(), int(targets[-1])]
            text[2 * index :] = text[2 * index : 2 * index + max_length - 1] + row[max_length - 1 :]
            expect(
                row == text[2 * index :] and torch.equal(inputs[1:], targets[:-1]),
                f"The rows of the {name} loader do not start two tokens apart. Look at stride.",
            )
    return (
        "With max_length=2 and stride=2 the rows follow each other without sharing a token; with max_length=8 and "
        "stride=2 each row shares six of its eight tokens with the next one."
    )


@exercise("2.4")
def exercise_2_4(answer: Callable[[str, int], dict[str, int]]) -> str:
    """`build_vocab(text, min_count)`: a vocabulary without rare tokens, special tokens last."""
    expect_function(answer, "build_vocab(text, min_count)")
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
        expect(isinstance(got, dict), f"A dictionary from tokens to ids is wanted, not {type(got).__name__}.")
        expect(
            all(isinstance(token, str) for token in got),
            "The keys should be tokens and the values ids; yours seem to be the other way round.",
        )
        expect(all(token in got for token in special), "One of the two special tokens is not in your vocabulary.")
        words = set(got) - set(special)
        expect(
            words == set(kept),
            where + f"your vocabulary has {len(words)} ordinary tokens, {len(kept)} are wanted. "
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


@exercise("2.5")
def exercise_2_5(answer: Callable[[list[str], str, str], list[str]]) -> str:
    """`merge_pair(tokens, left, right)`: one merge of byte-pair encoding."""
    expect_function(answer, "merge_pair(tokens, left, right)")
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
        wanted = _merged(tokens, left, right)
        given = list(tokens)
        got = answer(given, left, right)
        expect(got is not None, "Your function returns None. Is there a return at its end?")
        expect(isinstance(got, list), f"A list of tokens is wanted, not {type(got).__name__}.")
        expect(given == tokens, "Your function changes the list that it is given; return a new one.")
        if got == wanted:
            continue
        where = f"For {tokens} and the pair {left!r}, {right!r} your function gives {got}; {wanted} is wanted. "
        if left == right and len(got) >= len(wanted):
            raise Hint(where + "Once two tokens are joined, go on behind both of them.")
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


@exercise("2.6")
def exercise_2_6(answer: Callable[[int, int, int], int]) -> str:
    """`count_windows(num_tokens, max_length, stride)`."""
    expect_function(answer, "count_windows(num_tokens, max_length, stride)")
    rng = random.Random(26)
    cases = [(12, 4, 1), (12, 4, 4), (12, 4, 2), (5, 4, 1), (4, 4, 1), (2, 4, 1), (9, 4, 4), (10, 4, 4), (100, 8, 3)]
    cases += [(rng.randint(0, 200), rng.randint(1, 20), rng.randint(1, 25)) for _ in range(60)]
    for num_tokens, max_length, stride in cases:
        wanted = sum(start + max_length < num_tokens for start in range(0, num_tokens, stride))
        got = answer(num_tokens, max_length, stride)
        expect(
            isinstance(got, int) and not isinstance(got, bool),
            f"A whole number of type int is wanted, not {type(got).__name__}. Divide with // to round down.",
        )
        if got == wanted:
            continue
        where = (
            f"For num_tokens={num_tokens}, max_length={max_length}, stride={stride} your function gives {got}; "
            f"counting gives {wanted}. "
        )
        if wanted == 0:
            raise Hint(where + "A text that is too short has no window, and a count is never negative.")
        no_target = sum(start + max_length <= num_tokens for start in range(0, num_tokens, stride))
        if got == no_target:
            raise Hint(where + "The last window needs a target as well, one token behind its last input.")
        if got == wanted - 1:
            raise Hint(where + "The numbers of the windows start at 0: how many are there from 0 up to the last?")
        raise Hint(where + "Where does the last possible window start, and how many strides is that from 0?")
    return (
        "The last start is the largest multiple of the stride that leaves room for max_length inputs and one more "
        "token; since counting starts at 0, there is one window more than that multiple."
    )


@exercise("2.7")
def exercise_2_7(answer: Callable[..., torch.Tensor]) -> str:
    """`embed(ids, token_layer, position_layer)`: token plus position embeddings, (B, T, C)."""
    expect_function(answer, "embed(ids, token_layer, position_layer)")
    generator = torch.Generator().manual_seed(27)
    for batch, length, context, size in [(2, 4, 4, 3), (3, 2, 5, 4), (4, 4, 8, 2), (1, 1, 3, 5), (5, 3, 3, 6)]:
        token_layer, position_layer = _table(11, size, generator), _table(context, size, generator)
        ids = torch.randint(0, min(11, context), (batch, length), generator=generator)
        got = answer(ids, token_layer, position_layer)
        tokens, table = token_layer.weight[ids], position_layer.weight  # (B, T, C), (context, C)
        wanted = tokens + table[:length]
        expect(got is not None, "Your function returns None. Is there a return at its end?")
        expect(isinstance(got, torch.Tensor), f"A tensor is wanted, not {type(got).__name__}.")
        if got.shape == wanted.shape and not torch.allclose(got, wanted):
            expect(not torch.allclose(got, tokens), "These are the token embeddings alone; positions are not in yet.")
            expect(
                not torch.allclose(got, tokens + table[ids]),
                "You look up positions by token id. A position is the column of ids, whatever token stands there.",
            )
            by_window = tokens + table[torch.arange(batch) % context, None]
            expect(
                not torch.allclose(got, by_window),
                "You number the windows of the batch; the places inside a window are wanted.",
            )
        expect_close(got, wanted, f"This is for ids of shape ({batch}, {length}) and {context} positions.")
    return (
        "Each id picks a row of the first table, each column a row of the second, and broadcasting adds the same "
        "positions to every window of the batch. The first lines of every GPT are these."
    )


def _table(rows: int, size: int, generator: torch.Generator) -> torch.nn.Embedding:
    return torch.nn.Embedding.from_pretrained(torch.randn(rows, size, generator=generator))


_QUESTIONS = [
    Question(
        "Why can GPT-2's tokenizer encode any word?",
        {
            "a": (False, "New words are made every day, and 50,257 entries hold only the frequent ones."),
            "b": (False, "That is what SimpleTokenizerV2 does; GPT-2's vocabulary has no such entry."),
            "c": (True, "all 256 bytes are in the vocabulary, and every text is made of bytes."),
        },
    ),
    Question(
        "A text of 100 tokens is cut with max_length=10, stride=10. How many windows are there?",
        {
            "a": (False, "The tenth window would need token 100 as its last target, and tokens end at 99."),
            "b": (True, "the windows start at 0, 10, ..., 80; one that starts at 90 would lack its last target."),
            "c": (False, "That is the count for a stride of 1; here a window starts only at every tenth token."),
        },
    ),
    Question(
        "In a training window, what is the target for the last input token?",
        {
            "a": (True, "targets are the inputs moved on by one in the text, so the last one lies beyond the window."),
            "b": (False, "The end of a window is not the end of the text, and the model should not learn that it is."),
            "c": (False, "Every input token has a target; that is why the last window must leave one token over."),
        },
    ),
    Question(
        "Why is a position embedding added to each token embedding?",
        {
            "a": (False, "Size is not the aim, and sums of random vectors could be had without any positions."),
            "b": (True, "without it the two 'the' of a sentence would be the same vector, and order would be lost."),
            "c": (False, "On the contrary: a table of learned positions limits the length to its number of rows."),
        },
    ),
]

self_test_2 = self_test("2", _QUESTIONS)
