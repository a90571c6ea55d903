"""The checkers of chapter 2: wrong answers get a hint that aims at the slip, right ones an explanation."""

import re
from collections import Counter

import numpy as np
import pytest
import torch

from helpers import GPTDatasetV1, checks, create_dataloader_v1, get_tokenizer, load_text, split_text
from tests import checkers

TEXT = load_text("story")


def split_more(text, marks=r",.:;?_!\"()'\[\]—", keep=True, dash="--|"):
    pattern = rf"([{marks}]|{dash}\s)" if keep else rf"[{marks}]|{dash}\s"
    return [piece.strip() for piece in re.split(pattern, text) if piece.strip()]


def split_more_by_findall(text):
    return re.findall(r"--|[,.:;?_!\"()'\[\]—]|(?:(?!--)[^\s,.:;?_!\"()'\[\]—])+", text)


def split_more_by_spaces(text):
    for mark in ["--", *",.:;?_!\"()'[]—"]:
        text = text.replace(mark, f" {mark} ")
    return tuple(text.split())


def build_vocab(text, min_count):
    counts = Counter(split_text(text))
    kept = sorted(token for token, count in counts.items() if count >= min_count)
    return {token: index for index, token in enumerate([*kept, "<|endoftext|>", "<|unk|>"])}


def build_vocab_by_loop(text, min_count):
    tokens, vocab = split_text(text), {}
    for token in sorted(set(tokens)):
        if tokens.count(token) >= min_count:
            vocab[token] = np.int64(len(vocab))
    return vocab | {"<|endoftext|>": len(vocab), "<|unk|>": len(vocab) + 1}


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


def merge_by_stack(tokens, left, right):
    merged, free = [], False  # whether the last token was there before and may still be joined
    for token in tokens:
        if free and merged[-1] == left and token == right:
            merged[-1], free = left + right, False
        else:
            merged.append(token)
            free = True
    return tuple(merged)


def merge_by_recursion(tokens, left, right):
    if len(tokens) < 2:
        return list(tokens)
    if (tokens[0], tokens[1]) == (left, right):
        return [left + right, *merge_by_recursion(tokens[2:], left, right)]
    return [tokens[0], *merge_by_recursion(tokens[1:], left, right)]


def merge_from_right(tokens, left, right):
    return [token[::-1] for token in merge_pair([t[::-1] for t in tokens[::-1]], right[::-1], left[::-1])][::-1]


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


def windows(num_tokens, max_length, stride):
    return [range(start, start + max_length) for start in range(0, num_tokens - max_length, stride)]


def times_read(num_tokens, max_length, stride):
    counts = [0] * num_tokens
    for window in windows(num_tokens, max_length, stride):
        for place in window:
            counts[place] += 1
    return counts


def times_read_by_dataset(num_tokens, max_length, stride):
    tokens = torch.arange(num_tokens)
    if num_tokens <= max_length:
        return torch.zeros(num_tokens, dtype=torch.long)
    return torch.bincount(tokens[:-1].unfold(0, max_length, stride).flatten(), minlength=num_tokens)


def times_read_by_formula(num_tokens, max_length, stride):
    last = (num_tokens - max_length - 1) // stride  # the number of the last window, below 0 if there is none
    first = [max(0, -(-(place - max_length + 1) // stride)) for place in range(num_tokens)]
    return np.array([max(0, min(place // stride, last) - first[place] + 1) for place in range(num_tokens)])


def times_read_with(make_windows):
    def read(num_tokens, max_length, stride):
        found = Counter(place for window in make_windows(num_tokens, max_length, stride) for place in window)
        return [found[place] for place in range(num_tokens)]

    return read


def position_ids(mask):
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def position_ids_by_shift(mask):
    places = torch.arange(mask.shape[1])[None, :]
    return (places - (mask == 0).sum(dim=1, keepdim=True)).clamp(min=0).to(torch.int32)


def position_ids_by_loop(mask):
    rows = []
    for row in mask.tolist():
        real = sum(row)
        rows.append([0] * (len(row) - real) + list(range(real)))
    return rows


def places(mask):
    return torch.arange(mask.shape[1]).expand_as(mask)


def loader(length=2, stride=2, shuffle=False, batch_size=4, text=TEXT):
    return create_dataloader_v1(text, batch_size=batch_size, max_length=length, stride=stride, shuffle=shuffle)


def loaders(first=None, second=None, shared=(0, 6)):
    return list(zip((first or loader(2), second or loader(8)), shared, strict=True))


TOKENIZER = get_tokenizer()
IDS = [33901, 86, 343, 86, 220, 959]
PAIRS = [(token_id, TOKENIZER.decode([token_id])) for token_id in IDS]
WORD = " unladderly"
LETTERS = [TOKENIZER.encode(letter)[0] for letter in WORD]

RIGHT = {
    "2.A": [split_more, split_more_by_findall, split_more_by_spaces],
    "2.B": [build_vocab, build_vocab_by_loop, lambda text, min_count: Counter(build_vocab(text, min_count))],
    "2.C": [merge_pair, merge_by_stack, merge_by_recursion],
    "2.1": [PAIRS, tuple(map(list, PAIRS)), [(np.int64(token_id), piece) for token_id, piece in PAIRS]],
    "2.D": [
        LETTERS,
        torch.tensor(LETTERS),
        tuple(i for piece in (" un", "l", "adder", "ly") for i in TOKENIZER.encode(piece)),
    ],
    "2.E": [times_read, times_read_by_dataset, times_read_by_formula],
    "2.2": [loaders(), tuple(map(list, loaders())), loaders(shared=(np.int64(0), torch.tensor(6)))],
    "2.F": [position_ids, position_ids_by_shift, position_ids_by_loop],
}

WRONG = [
    ("2.A", split_text, "A bracket is still glued"),
    ("2.A", lambda text: split_more(text, keep=False), "Characters were lost"),
    ("2.A", lambda text: re.split(r"([,.:;?_!\"()'\[\]—]|--|\s)", text), "Filter them out"),
    ("2.A", lambda text: re.split(r"([,.:;?_!\"()'\[\]]|(—)|--|\s)", text), "one pair of parentheses"),
    ("2.A", lambda text: " ".join(split_more(text)), "A list of strings"),
    ("2.A", lambda text: split_more(text, marks=r",.:;?_!\"()'\[\]"), "The long dash is still glued"),
    ("2.A", lambda text: split_more(text, marks=r",.:;?_!\"()'\[\]–"), "The long dash is still glued"),
    ("2.A", lambda text: split_more(text, marks=r",.?\"()'\[\]—"), "The mark : is still glued"),
    ("2.A", lambda text: split_more(text, marks=r"\[\]—"), "is still glued; all marks of split_text"),
    ("2.A", lambda text: split_more(text, marks=r",.:;?_!\"()'\[\]—-"), "stays whole"),
    ("2.A", lambda text: split_more(text, marks=r"\W_"), "stays whole"),
    ("2.A", lambda text: split_more(text, dash=""), "The double dash is one token"),
    ("2.A", lambda text: split_more(text.lower()), "Capital letters"),
    ("2.B", lambda text, min_count: split_text(text), "A dictionary"),
    ("2.B", lambda text, min_count: {i: t for t, i in build_vocab(text, min_count).items()}, "other way round"),
    ("2.B", lambda text, min_count: dict.fromkeys(build_vocab(text, min_count)), "Each id must be a whole number"),
    ("2.B", vocab_with(sorted), "special tokens is not"),
    ("2.B", lambda text, min_count: build_vocab(text, min_count + 1), "lacks"),
    (
        "2.B",
        lambda text, min_count: build_vocab(" ".join(w for w in split_text(text) if len(w) >= min_count), 1),
        "lacks [','] and has ['saw'] too much. The text has ',' 2 times, 'saw' 1 times.",
    ),
    ("2.B", vocab_with(lambda kept: sorted(kept) + SPECIAL, start=1), "start at 0"),
    ("2.B", vocab_with(lambda kept: sorted(kept + SPECIAL)), "last two ids"),
    ("2.B", vocab_with(lambda kept: sorted(kept) + SPECIAL[::-1]), "the very last"),
    ("2.B", vocab_with(lambda kept: sorted(kept, reverse=True) + SPECIAL), "sorted order"),
    ("2.C", lambda tokens, left, right: "".join(tokens), "A list of tokens"),
    ("2.C", merge_in_string, "Compare whole tokens"),
    ("2.C", merge_overlapping, "Characters were lost or used twice"),
    ("2.C", merge_in_place, "return a new one"),
    ("2.C", merge_first, "the first place only"),
    ("2.C", merge_from_right, "Begin at the left"),
    ("2.C", lambda tokens, left, right: merge_pair(tokens, left, right)[:-1], "the last token"),
    ("2.C", lambda tokens, left, right: list(tokens), "Every place where the pair occurs"),
    ("2.1", "Akwirw", "A list of pairs"),
    ("2.1", IDS, "a pair of an id and the piece"),
    ("2.1", [(piece, token_id) for token_id, piece in PAIRS], "the id (an int) comes first"),
    ("2.1", [(i, TOKENIZER.decode([i])) for i in TOKENIZER.encode("akwirw ier")], "whole text"),
    ("2.1", [(i, TOKENIZER.decode([i])) for w in ("Akwirw", "ier") for i in TOKENIZER.encode(w)], "The space between"),
    ("2.1", [(token_id, piece.strip()) for token_id, piece in PAIRS], "without stripping spaces"),
    ("2.D", TOKENIZER.encode(WORD), "the very ids that encode gives"),
    ("2.D", TOKENIZER.encode(WORD.strip()), "the space before the word is lost"),
    ("2.D", WORD, "A list of token ids"),
    ("2.D", [" un", "ladderly"], "Each token id must be a whole number"),
    ("2.D", [50257, *LETTERS], "[50257] is not in the vocabulary"),
    ("2.D", LETTERS[:-1], "' unladderl'; ' unladderly' is expected"),
    ("2.D", [220, *TOKENIZER.encode(WORD)], "'  unladderly'"),
    ("2.D", [float(token_id) for token_id in LETTERS], "not float"),
    ("2.E", lambda n, length, stride: dict(enumerate(times_read(n, length, stride))), "A list with a count"),
    ("2.E", lambda n, length, stride: [count for count in times_read(n, length, stride) if count], "one per token"),
    ("2.E", lambda n, length, stride: sum(times_read(n, length, stride)), "A list with a count"),
    ("2.E", lambda n, length, stride: [count / 1 for count in times_read(n, length, stride)], "Each count"),
    ("2.E", times_read_with(lambda n, length, stride: windows(n + 1, length, stride)), "needs a target"),
    (
        "2.E",
        times_read_with(lambda *case: [range(window[0], window[-1] + 2) for window in windows(*case)]),
        "You count the targets too",
    ),
    (
        "2.E",
        times_read_with(lambda *case: [range(window[0] + 1, window[-1] + 2) for window in windows(*case)]),
        "how often a token is a target",
    ),
    (
        "2.E",
        times_read_with(lambda n, length, stride: [range(s, s + length) for s in range(0, n, stride)]),
        "it is not cut short",
    ),
    ("2.E", lambda n, length, stride: [1] * n, "counting window by window gives"),
    ("2.2", loader(), "Two pairs are expected"),
    ("2.2", (loader(2), loader(8)), "Two pairs are expected"),
    ("2.2", [(TEXT, 0), (TEXT, 6)], "create_dataloader_v1"),
    ("2.2", loaders(loader(2, shuffle=True)), "shuffles"),
    ("2.2", loaders(loader(2, batch_size=2)), "batch_size=2"),
    ("2.2", loaders(loader(8), loader(2)), "windows of 8"),
    ("2.2", loaders(loader(2, 1)), "first loader do not start two tokens apart"),
    ("2.2", loaders(loader(2, 3)), "Look at stride"),
    ("2.2", loaders(None, loader(8, 8)), "second loader do not start two tokens apart"),
    ("2.2", loaders(None, loader(8, 1)), "Look at stride"),
    ("2.2", loaders(loader(text=TEXT[100:]), None), "another text"),
    ("2.2", loaders(torch.utils.data.DataLoader(GPTDatasetV1("one two three", TOKENIZER, 2, 2), 4)), "too few"),
    ("2.2", loaders(torch.utils.data.DataLoader([([1, 2], [2, 3])], batch_size=4)), "too few to compare"),
    ("2.2", loaders(torch.utils.data.DataLoader(TEXT, batch_size=4)), "stopped with ValueError"),
    ("2.2", loaders(torch.utils.data.DataLoader([([1, 2], [3])] * 40, batch_size=4)), "windows of 1 and 2 tokens"),
    ("2.2", loaders(shared=(2, 6)), "first loader you say that neighbouring rows share 2 tokens"),
    ("2.2", loaders(shared=(0, 2)), "Write two neighbouring rows"),
    ("2.2", loaders(shared=(1, 7)), "Compare inputs with inputs"),
    ("2.2", loaders(shared=("none", 6)), "must be a whole number"),
    ("2.F", lambda mask: mask.shape, "shape"),
    ("2.F", places, "You count columns"),
    ("2.F", lambda mask: places(mask) * mask, "The first real token should get 0"),
    ("2.F", lambda mask: mask.cumsum(dim=1), "start at 1"),
    ("2.F", lambda mask: mask.cumsum(dim=1) - 1, "negative position"),
    ("2.F", lambda mask: (mask.cumsum(dim=0) - 1).clamp(min=0), "down the columns"),
    ("2.F", lambda mask: position_ids(mask).float(), "whole numbers is expected, not torch.float32"),
    ("2.F", lambda mask: position_ids(mask)[0], "your result has shape (4,), not (2, 4)"),
    ("2.F", lambda mask: mask.sub_(1), "changes the mask"),
    ("2.F", lambda mask: position_ids(mask).flip(1), "is expected"),
]

# What must never stand in a hint: the decisive piece of each solution.
SECRETS = {
    "2.A": r"\[\]—",
    "2.B": "sorted(",
    "2.C": "index += 2",
    "2.1": "33901",
    "2.D": str(LETTERS[3]),
    "2.E": "num_tokens - max_length",
    "2.2": "stride=2",
    "2.F": "cumsum",
}


@pytest.mark.parametrize(("number", "form"), [(number, form) for number in RIGHT for form in range(3)])
def test_right_answers(number, form):
    checkers.accepts(number, RIGHT[number][form])


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_wrong_answers(number, answer, hint):
    checkers.refuses(number, answer, hint, [SECRETS[number]])


def test_every_exercise_has_wrong_answers():
    counts = Counter(number for number, *_ in WRONG)
    assert set(counts) == set(RIGHT) and min(counts.values()) >= 5


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

    pairs = [torch.utils.data.DataLoader(Sliced(length), batch_size=4) for length in (2, 8)]
    assert checks.exercise_2_2(loaders(*pairs)).passed


def test_loaders_of_the_book_profile_are_accepted():
    """On "The Verdict", of which the checker knows the first tokens."""
    opening = TOKENIZER.decode([40, 367, 2885, 1464, 1807, 3619, 402, 271, *range(1000, 1100)])
    pairs = [loader(length, text=opening) for length in (2, 8)]
    assert checks.exercise_2_2(loaders(*pairs)).passed


def test_times_read_agrees_with_the_dataset():
    class Counting:
        def encode(self, text, allowed_special=()):
            return list(range(len(text)))

    for size, length, stride in [(12, 4, 1), (12, 4, 4), (13, 4, 4), (5, 4, 9), (50, 7, 3)]:
        inputs = GPTDatasetV1("x" * size, Counting(), length, stride).input_ids
        assert torch.bincount(inputs.flatten(), minlength=size).tolist() == times_read(size, length, stride)


def test_positions_are_those_of_the_text_alone():
    """Left padding changes nothing: a token gets the position that it has without any."""
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert position_ids(mask)[0, 2:].tolist() == position_ids(mask[:1, 2:])[0].tolist() == [0, 1, 2]
