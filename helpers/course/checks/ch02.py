"""Checkers for chapter 2."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from ...texts import load_text
from ...tokenizers import get_tokenizer, split_text
from ._core import Hint, call, exercise, expect, expect_kind, read_integer, read_parts, read_tensor, self_test

_VERDICT = [40, 367, 2885, 1464, 1807, 3619, 402, 271]  # the first tokens of "The Verdict", the book profile's text


@exercise("2.A", "split_more(text)")
def exercise_2_a(answer: Callable[[str], list[str]]) -> str:
    """`split_more(text)`: split_text that also splits off square brackets and the long dash."""
    rng = random.Random(20)
    parts = ["hen", "Ladder", "7", "[", "]", "—", ",", ".", "--", "'", '"', "(", ")", "?", " ", "  ", "\n"]
    texts = ["a [b]—c", "[[hen]]", "no marks", "wait—what?", "Stop! a_b; x: well-known e@f", "a–b -- 2 * 3"]
    texts += ["".join(rng.choices(parts, k=rng.randint(2, 12))) for _ in range(40)]
    for text in texts:
        right = [p.strip() for p in re.split(r"([,.:;?_!\"()'\[\]—]|--|\s)", text) if p.strip()]
        got = answer(text)
        expect_kind(got, (list, tuple), "A list of strings")
        got = list(got)
        expect(None not in got, f"For {text!r} there is a None in the list: use one pair of parentheses only.")
        expect(all(isinstance(piece, str) for piece in got), f"For {text!r} you return {got}; strings are expected.")
        expect(
            all(piece.strip() for piece in got),
            f"For {text!r} there are empty strings or white space in the list: {got}. Filter them out.",
        )
        if got != right:
            raise Hint(f"For {text!r} your function gives {got}, but {right} is expected. {_split_slip(got, right)}")
    return (
        "A bracket is a special sign in a pattern, so it needs a backslash to stand for itself; the long dash is a "
        "single character and can go in with the other marks, unlike the double dash."
    )


def _split_slip(got: list[str], right: list[str]) -> str:
    """What is wrong with these pieces, as far as they show it."""
    came, expected = "".join(got), "".join(right)
    if came != expected and came.lower() == expected.lower():
        return "Capital letters stay as they are."
    if came != expected:
        return "Characters were lost or added. What a pattern matches outside parentheses is thrown away by re.split."
    glued = [mark for mark in "[]—,.:;?_!\"()'" if any(mark in piece and piece != mark for piece in got)]
    if "[" in glued or "]" in glued:
        return "A bracket is still glued. Inside square brackets of a pattern, [ and ] need a backslash before them."
    if "—" in glued:
        return "The long dash is still glued. Yours may be a hyphen or a shorter dash: copy it from the statement."
    if glued:
        return f"The mark {glued[0]} is still glued; all marks of split_text remain."
    if got.count("--") < right.count("--"):
        return "The double dash is one token, as in split_text."
    return "What split_text leaves whole stays whole: only the three new marks are split off in addition."


@exercise("2.B", "build_vocab(text, min_count)")
def exercise_2_b(answer: Callable[[str, int], dict[str, int]]) -> str:
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
        got = {token: read_integer(token_id, "Each id") for token, token_id in got.items()}
        expect(all(token in got for token in special), "One of the two special tokens is not in your vocabulary.")
        lacks = [token for token in kept if token not in got]
        extra = [token for token in got if token not in (*kept, *special)]
        if lacks or extra:
            faults = [f"lacks {lacks}"] * bool(lacks) + [f"has {extra} too much"] * bool(extra)
            seen = ", ".join(f"{token!r} {counts[token]} times" for token in (lacks + extra)[:3])
            raise Hint(f"{where}your vocabulary {' and '.join(faults)}. The text has {seen}.")
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


@exercise("2.C", "merge_pair(tokens, left, right)")
def exercise_2_c(answer: Callable[[list[str], str, str], list[str]]) -> str:
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
    results = []
    for tokens, left, right in cases:
        given = list(tokens)
        got = answer(given, left, right)
        expect_kind(got, (list, tuple), "A list of tokens")
        expect(all(isinstance(token, str) for token in got), f"You return {got}; its tokens should be strings.")
        expect(given == tokens, "Your function changes the list that it is given; return a new one.")
        results.append(list(got))
    expected = [_merged(*case) for case in cases]
    if results == expected:
        return (
            "Whole tokens are compared, and after a join the walk goes on after both of them. A list of tokens says "
            "where each one begins and ends, which a joined string does not."
        )
    slips = [
        (_merged_from_right, "Begin at the left: of three equal tokens, the first two are joined."),
        (_merged_once, "You join the first place only; every place where the pair occurs should be joined."),
    ]
    for slip, hint in slips:
        expect(results != [slip(*case) for case in cases], hint)
    (tokens, left, right), got, merged = next(
        both for both in zip(cases, results, expected, strict=True) if both[1] != both[2]
    )
    where = f"For {tokens} and the pair {left!r}, {right!r} your function gives {got}; {merged} is expected. "
    expect(
        "".join(got) == "".join(tokens), where + "Characters were lost or used twice: mind a join and the last token."
    )
    if not any(pair == (left, right) for pair in pairwise(tokens)):
        raise Hint(where + "Compare whole tokens, not the text inside them.")
    raise Hint(where + "Every place where the pair occurs should be joined, and no other.")


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


def _merged_from_right(tokens: Sequence[str], left: str, right: str) -> list[str]:
    merged: list[str] = []
    for token in reversed(tokens):
        if merged and (token, merged[0]) == (left, right):
            merged[0] = left + right
        else:
            merged.insert(0, token)
    return merged


def _merged_once(tokens: Sequence[str], left: str, right: str) -> list[str]:
    for index, pair in enumerate(pairwise(tokens)):
        if pair == (left, right):
            return [*tokens[:index], left + right, *tokens[index + 2 :]]
    return list(tokens)


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


@exercise("2.D")
def exercise_2_d(answer: Sequence[int]) -> str:
    """Ids that decode to " unladderly" and are not what `encode` gives."""
    text, tokenizer = " unladderly", get_tokenizer()
    answer = answer.tolist() if hasattr(answer, "tolist") else answer
    expect_kind(answer, (list, tuple), "A list of token ids")
    ids = [read_integer(token_id, "Each token id") for token_id in answer]
    outside = [token_id for token_id in ids if not 0 <= token_id < tokenizer.n_vocab]
    expect(not outside, f"{outside[:3]} is not in the vocabulary, whose ids run from 0 to {tokenizer.n_vocab - 1:,}.")
    got = tokenizer.decode(ids)
    expect(
        got != text.strip(),
        f"Your ids decode to {got!r}: the space before the word is lost. It belongs to the first token or is one.",
    )
    expect(got == text, f"Your ids decode to {got!r}; {text!r} is expected.")
    expect(
        ids != tokenizer.encode(text),
        "These are the very ids that encode gives. Find others: which shorter pieces of the word are tokens as well?",
    )
    return (
        f"Your {len(ids)} tokens give the same text as the {len(tokenizer.encode(text))} of encode. Decoding is exact, "
        "but many rows of ids decode to one text, and a model is trained on the one that encode gives. A prompt that "
        "is cut off within a word leads to another one, which the model has hardly ever seen."
    )


@exercise("2.E", "times_read(num_tokens, max_length, stride)")
def exercise_2_e(answer: Callable[[int, int, int], list[int]]) -> str:
    """`times_read(num_tokens, max_length, stride)`: how often each token is an input in one pass."""
    rng = random.Random(26)
    cases = [(12, 4, 4), (12, 4, 1), (12, 4, 2), (5, 4, 1), (4, 4, 1), (2, 4, 1), (9, 4, 4), (12, 2, 5), (100, 8, 3)]
    cases += [(rng.randint(1, 60), rng.randint(1, 12), rng.randint(1, 15)) for _ in range(60)]
    results = []
    for case in cases:
        got = answer(*case)
        got = got.tolist() if hasattr(got, "tolist") else got
        expect_kind(got, (list, tuple), "A list with a count for each token")
        results.append([read_integer(count, "Each count") for count in got])
        expect(
            len(results[-1]) == case[0],
            f"For {_named(case)} your list has {len(results[-1])} entries; {case[0]} are expected, one per token.",
        )
    expected = [_read(*case) for case in cases]
    if results == expected:
        return (
            "A token counts once for every window that has it among its inputs. With a stride as large as the window "
            "that is once, except for a remainder at the end that no window reaches; with a larger stride the tokens "
            "between the windows are never read, whatever the number of epochs."
        )
    slips = [
        (_read(*case, needs_target=False) for case in cases),
        (_read(*case, width=1) for case in cases),
        (_read(*case, width=1, shift=1) for case in cases),
        (_read(*case, needs_target=False, whole=False) for case in cases),
    ]
    hints = [
        "The last window needs a target as well, one token after its last input.",
        "You count the targets too; the question is how often a token is an input.",
        "You count how often a token is a target; the question is how often it is an input.",
        "A window that would run past the end of the text does not exist; it is not cut short.",
    ]
    for slip, hint in zip(map(list, slips), hints, strict=True):
        expect(results != slip, hint)
    case, got, right = next(both for both in zip(cases, results, expected, strict=True) if both[1] != both[2])
    raise Hint(f"For {_named(case)} your function gives\n{got}, but counting window by window gives\n{right}.")


def _named(case: tuple[int, int, int]) -> str:
    return "num_tokens={}, max_length={}, stride={}".format(*case)


def _read(
    num_tokens: int,
    max_length: int,
    stride: int,
    needs_target: bool = True,
    whole: bool = True,
    width: int = 0,
    shift: int = 0,
) -> list[int]:
    """How often each token is an input; the keywords are for what is often done instead.

    A window may lack its target or, unless it must be `whole`, inputs; `width` more tokens are counted in each, without
    the first `shift`.
    """
    counts = [0] * num_tokens
    for start in range(0, num_tokens, stride):
        if whole and start + max_length + needs_target > num_tokens:
            break
        for place in range(start + shift, min(start + max_length + width, num_tokens)):
            counts[place] += 1
    return counts


@exercise("2.2")
def exercise_2_2(answer: Sequence[tuple[DataLoader, int]]) -> str:
    """Two loaders, windows of 2 and of 8 tokens with a stride of 2, each with the overlap of its neighbouring rows."""
    order = (
        "Two pairs are expected, first for windows of 2 tokens, then for windows of 8: each has a loader and the "
        "number of input tokens that a row shares with the next."
    )
    pairs = [read_parts(pair, 2, order) for pair in read_parts(answer, 2, order)]
    for name, (loader, shared), max_length in zip(("first", "second"), pairs, (2, 8), strict=True):
        expect_kind(loader, DataLoader, f"In the {name} pair, a loader made by create_dataloader_v1")
        expect(loader.batch_size == 4, f"The {name} loader has batch_size={loader.batch_size}; 4 is expected.")
        expect(
            isinstance(loader.sampler, SequentialSampler),
            f"The {name} loader shuffles the windows, so its first rows would differ from run to run.",
        )
        windows = call(_windows, loader.dataset)
        expect(len(windows) > 1, f"The {name} loader has {len(windows)} windows, too few to compare.")
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
        texts = (get_tokenizer().encode(load_text("story"))[: len(_VERDICT)], _VERDICT)
        expect(text[: len(_VERDICT)] in texts, f"The {name} loader reads another text than the chapter's, raw_text.")
        shared = read_integer(shared, "The number of shared tokens, second in each pair,")
        says = f"For the {name} loader you say that neighbouring rows share {shared} tokens. "
        expect(shared != max_length - 1, says + "Compare inputs with inputs: the targets are no part of the question.")
        expect(
            shared == max_length - 2,
            says + "Write two neighbouring rows of inputs below each other: how many ids at the end of the one begin "
            "the other?",
        )
    return (
        "With max_length=2 and stride=2 the rows follow each other without sharing a token; with max_length=8 and "
        "stride=2 each row shares six of its eight tokens with the next one."
    )


def _windows(dataset: Dataset, count: int = 40) -> list[tuple[list[int], list[int]]]:
    """The first inputs and targets of a dataset, as lists."""
    pairs = (dataset[index] for index in range(min(count, len(dataset))))
    return [(list(map(int, inputs)), list(map(int, targets))) for inputs, targets in pairs]


@exercise("2.F", "position_ids(mask)")
def exercise_2_f(answer: Callable[[torch.Tensor], torch.Tensor]) -> str:
    """`position_ids(mask)`: the positions of the tokens of a batch that is padded at the left, (B, T)."""
    cases = list(_left_padded())
    expected = [_positions(mask) for mask in cases]  # before the learner's function can change a mask
    results = []
    for mask in cases:
        given = mask.clone()
        got = answer(given)
        expect(torch.equal(given, mask), "Your function changes the mask that it is given; return a new tensor.")
        kind = getattr(got, "dtype", None)
        expect(
            not isinstance(kind, torch.dtype) or not (kind.is_floating_point or kind == torch.bool),
            f"Positions are row numbers of a table: a tensor of whole numbers is expected, not {kind}.",
        )
        got = read_tensor(got, f"A tensor of shape {tuple(mask.shape)}")
        case = f"For the mask {mask.tolist()}"
        expect(got.shape == mask.shape, f"{case} your result has shape {tuple(got.shape)}, not {tuple(mask.shape)}.")
        results.append(got.tolist())
    if results == [right.tolist() for right in expected]:
        return (
            "Counting the real tokens from the left gives the first of them 1, so one is taken off; padding would get "
            "−1, which no table has, and 0 serves as well as any row, since padding is ignored. Now a text gets the "
            "same position vectors alone and in any batch."
        )
    places = [torch.arange(mask.shape[1]).expand_as(mask) for mask in cases]
    counts = [mask.cumsum(dim=1) for mask in cases]
    slips = [
        (places, "You count columns: the first real token of a padded row does not get 0."),
        ([place * mask for place, mask in zip(places, cases, strict=True)], "The first real token should get 0."),
        (counts, "Your positions start at 1; the first row of the table has the number 0."),
        ([count - 1 for count in counts], "Padding gets a negative position, for which the table has no row."),
        (
            [(mask.cumsum(dim=0) - 1).clamp(min=0) for mask in cases],
            "You count down the columns of the batch: texts are rows, and the places are counted along each of them.",
        ),
    ]
    for slip, hint in slips:
        expect(results != [tensor.tolist() for tensor in slip], hint)
    mask, got, right = next(both for both in zip(cases, results, expected, strict=True) if both[1] != both[2].tolist())
    got = [[round(number) for number in row] for row in got]
    raise Hint(f"For the mask {mask.tolist()} your function gives\n{got}, but\n{right.tolist()} is expected.")


def _left_padded() -> Iterator[torch.Tensor]:
    """Masks (B, T) of 1 for tokens and 0 for padding at the left; every row has a token."""
    rng = random.Random(27)
    yield torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    for _ in range(20):
        length = rng.randint(1, 6)
        rows = [[0] * padding + [1] * (length - padding) for padding in rng.choices(range(length), k=rng.randint(1, 4))]
        yield torch.tensor(rows)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    rows = []
    for row in mask.tolist():
        padding = row.count(0)
        rows.append([max(place - padding, 0) for place in range(len(row))])
    return torch.tensor(rows)


self_test_2 = self_test("2", "ch02")
