"""The checkers of chapter 2: wrong answers get a hint that aims at the slip, right ones an explanation."""

import re
from collections import Counter

import pytest
import torch

from helpers import GPTDatasetV1, checks, create_dataloader_v1, get_tokenizer, load_text, split_text
from tests import checkers

TEXT = load_text("story")


def split_more(text, marks=r",.:;?_!\"()'\[\]—", keep=True):
    pattern = rf"([{marks}]|--|\s)" if keep else rf"[{marks}]|--|\s"
    return [piece.strip() for piece in re.split(pattern, text) if piece.strip()]


def build_vocab(text, min_count):
    counts = Counter(split_text(text))
    kept = sorted(token for token, count in counts.items() if count >= min_count)
    return {token: index for index, token in enumerate([*kept, "<|endoftext|>", "<|unk|>"])}


def vocab_with(make_tokens, start=0):
    def build(text, min_count):
        counts = Counter(split_text(text))
        kept = [token for token, count in counts.items() if count >= min_count]
        return {token: index for index, token in enumerate(make_tokens(kept), start=start)}

    return build


SPECIAL = ["<|endoftext|>", "<|unk|>"]


def merge_pair(tokens, left, right):
    merged, index = [], 0
    while index < len(tokens):
        if tokens[index : index + 2] == [left, right]:
            merged.append(left + right)
            index += 2
        else:
            merged.append(tokens[index])
            index += 1
    return merged


def merge_in_string(tokens, left, right):
    return " ".join(tokens).replace(f"{left} {right}", left + right).split()


def merge_overlapping(tokens, left, right):
    merged = []
    for index, token in enumerate(tokens):
        if tokens[index : index + 2] == [left, right]:
            merged.append(left + right)
        elif index == 0 or tokens[index - 1 : index + 1] != [left, right]:
            merged.append(token)
    return merged


def merge_in_place(tokens, left, right):
    merged = merge_pair(tokens, left, right)
    tokens[:] = merged
    return merged


def merge_first(tokens, left, right):
    for index in range(len(tokens) - 1):
        if tokens[index : index + 2] == [left, right]:
            return [*tokens[:index], left + right, *tokens[index + 2 :]]
    return tokens


def count_windows(num_tokens, max_length, stride):
    return max((num_tokens - max_length - 1) // stride + 1, 0)


def embed(ids, token_layer, position_layer):
    return token_layer(ids) + position_layer(torch.arange(ids.shape[1]))


def loaders(first=(2, 2), second=(8, 2), shuffle=False, batch_size=4):
    return tuple(
        create_dataloader_v1(TEXT, batch_size=batch_size, max_length=length, stride=stride, shuffle=shuffle)
        for length, stride in (first, second)
    )


TOKENIZER = get_tokenizer()
IDS = [33901, 86, 343, 86, 220, 959]
PAIRS = [(token_id, TOKENIZER.decode([token_id])) for token_id in IDS]

RIGHT = {
    "2.0": split_more,
    "2.1": PAIRS,
    "2.2": loaders(),
    "2.4": build_vocab,
    "2.5": merge_pair,
    "2.6": count_windows,
    "2.7": embed,
}

WRONG = [
    ("2.0", split_text, "need a backslash"),
    ("2.0", lambda text: split_more(text, keep=False), "characters were lost"),
    ("2.0", lambda text: re.split(r"([,.:;?_!\"()'\[\]—]|--|\s)", text), "Filter them out"),
    ("2.0", lambda text: re.split(r"([,.:;?_!\"()'\[\]]|(—)|--|\s)", text), "one pair of parentheses"),
    ("2.0", lambda text: " ".join(split_more(text)), "A list of strings"),
    ("2.1", "Akwirw", "A list of pairs"),
    ("2.1", IDS, "a pair of an id and the piece"),
    ("2.1", [(piece, token_id) for token_id, piece in PAIRS], "the id (an int) comes first"),
    ("2.1", [(i, TOKENIZER.decode([i])) for i in TOKENIZER.encode("akwirw ier")], "whole text"),
    ("2.1", [(i, TOKENIZER.decode([i])) for w in ("Akwirw", "ier") for i in TOKENIZER.encode(w)], "The space between"),
    ("2.1", [(token_id, piece.strip()) for token_id, piece in PAIRS], "without stripping spaces"),
    ("2.2", loaders()[0], "A pair of loaders"),
    ("2.2", (TEXT, TEXT), "create_dataloader_v1"),
    ("2.2", loaders(shuffle=True), "shuffles"),
    ("2.2", loaders(batch_size=2), "batch_size=2"),
    ("2.2", loaders(first=(8, 2), second=(2, 2)), "windows of 8"),
    ("2.2", loaders(first=(2, 1)), "first loader do not start two tokens apart"),
    ("2.2", loaders(first=(2, 3)), "Look at stride"),
    ("2.2", loaders(second=(8, 8)), "second loader do not start two tokens apart"),
    ("2.2", loaders(second=(8, 1)), "Look at stride"),
    ("2.2", (torch.utils.data.DataLoader(TEXT, batch_size=4),) * 2, "stopped with ValueError"),
    ("2.2", (torch.utils.data.DataLoader([([1, 2], [3])] * 40, batch_size=4),) * 2, "windows of 1 and 2 tokens"),
    ("2.4", lambda text, min_count: split_text(text), "A dictionary"),
    ("2.4", lambda text, min_count: {i: t for t, i in build_vocab(text, min_count).items()}, "other way round"),
    ("2.4", vocab_with(sorted), "special tokens is not"),
    ("2.4", lambda text, min_count: build_vocab(text, min_count + 1), "exactly min_count times"),
    ("2.4", vocab_with(lambda kept: sorted(kept) + SPECIAL, start=1), "start at 0"),
    ("2.4", vocab_with(lambda kept: sorted(kept + SPECIAL)), "last two ids"),
    ("2.4", vocab_with(lambda kept: sorted(kept) + SPECIAL[::-1]), "the very last"),
    ("2.4", vocab_with(lambda kept: sorted(kept, reverse=True) + SPECIAL), "sorted order"),
    ("2.5", lambda tokens, left, right: "".join(tokens), "A list of tokens"),
    ("2.5", merge_in_string, "Compare whole tokens"),
    ("2.5", merge_overlapping, "continue after both"),
    ("2.5", merge_in_place, "return a new one"),
    ("2.5", merge_first, "continue after both"),
    ("2.5", lambda tokens, left, right: merge_pair(tokens, left, right)[:-1], "Mind the last token"),
    ("2.5", lambda tokens, left, right: list(tokens), "Every place where the pair stands"),
    ("2.6", lambda n, length, stride: (n - length - 1) / stride + 1, "type int"),
    ("2.6", lambda n, length, stride: (n - length - 1) // stride + 1, "never negative"),
    ("2.6", lambda n, length, stride: max((n - length) // stride + 1, 0), "needs a target"),
    ("2.6", lambda n, length, stride: max((n - length - 1) // stride, 0), "start at 0"),
    ("2.6", lambda n, length, stride: n // stride, "Where does the last possible window start"),
    ("2.7", lambda ids, tok, pos: [1.0], "A tensor is expected"),
    ("2.7", lambda ids, tok, pos: tok(ids), "positions are not in yet"),
    ("2.7", lambda ids, tok, pos: tok(ids) + pos(ids), "by token id"),
    ("2.7", lambda ids, tok, pos: tok(ids) + pos(torch.arange(len(ids)))[:, None], "number the windows"),
    ("2.7", lambda ids, tok, pos: tok(ids) + pos.weight, "RuntimeError"),
    ("2.7", lambda ids, tok, pos: pos(torch.arange(ids.shape[1])), "shape (2, 4, 3) is expected"),
    ("2.7", lambda ids, tok, pos: 2 * embed(ids, tok, pos), "expected"),
]

# What must never stand in a hint: the decisive piece of each solution.
SECRETS = {
    "2.0": r"\[\]—",
    "2.1": "33901",
    "2.2": "stride=2",
    "2.4": "sorted(",
    "2.5": "index += 2",
    "2.6": "max_length - 1",
    "2.7": "arange",
}


@pytest.mark.parametrize("number", RIGHT)
def test_right_answers(number):
    checkers.accepts(number, RIGHT[number])


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_wrong_answers(number, answer, hint):
    checkers.refuses(number, answer, hint, [SECRETS[number]])


def test_loaders_of_a_learners_own_dataset_are_accepted():
    class Sliced(torch.utils.data.Dataset):  # the windows as copies in lists, as many tutorials make them
        def __init__(self, length):
            tokens = TOKENIZER.encode(TEXT)
            starts = range(0, len(tokens) - length, 2)
            self.windows = [torch.tensor(tokens[start : start + length + 1]) for start in starts]

        def __len__(self):
            return len(self.windows)

        def __getitem__(self, index):
            return self.windows[index][:-1], self.windows[index][1:]

    pair = [torch.utils.data.DataLoader(Sliced(length), batch_size=4) for length in (2, 8)]
    assert checks.exercise_2_2(pair).passed


def test_count_windows_agrees_with_the_dataset():
    class Counting:
        def encode(self, text, allowed_special=()):
            return list(range(len(text)))

    for size, length, stride in [(12, 4, 1), (12, 4, 4), (13, 4, 4), (5, 4, 9), (50, 7, 3)]:
        assert len(GPTDatasetV1("x" * size, Counting(), length, stride)) == count_windows(size, length, stride)
