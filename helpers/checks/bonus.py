"""Checkers for the bonus notebooks on byte-pair encoding, embedding and linear layers, and buffers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import nn

from ..bpe import join_pair
from ._core import Question, exercise, expect, expect_close, expect_function, self_test

__all__ = [
    "exercise_bpe_1",
    "exercise_bpe_2",
    "exercise_buffers_1",
    "exercise_buffers_2",
    "exercise_embedding_1",
    "exercise_embedding_2",
    "self_test_bpe",
    "self_test_buffers",
    "self_test_embedding",
]


# ---- byte-pair encoding ----------------------------------------------------------------------------------------------


@exercise("bpe.1")
def exercise_bpe_1(answer: Callable[[list[int], tuple[int, int], int], Mapping[tuple[int, int], int]]) -> str:
    """`pair_changes(ids, pair, new_id)`: how the counts of pairs in a word change when a pair is joined."""
    expect_function(answer, "pair_changes(ids, pair, new_id)")
    rng = random.Random(81)
    cases = [([1, 2, 3, 4], (2, 3)), ([1, 2], (1, 2)), ([1, 2, 3], (3, 1)), ([7, 7, 7], (7, 7)), ([], (1, 2))]
    cases += [([7, 7, 7, 7], (7, 7)), ([1, 2, 1, 2], (1, 2))]
    cases += [(rng.choices([1, 2, 3], k=rng.randint(1, 9)), tuple(rng.choices([1, 2, 3], k=2))) for _ in range(60)]
    for ids, pair in cases:
        after = Counter(pairwise(join_pair(ids, pair, 300)))
        after.subtract(Counter(pairwise(ids)))
        wanted = {key: change for key, change in after.items() if change}
        given = list(ids)
        got = answer(given, pair, 300)
        expect(isinstance(got, Mapping), f"A dictionary from pairs to changes is wanted, not {type(got).__name__}.")
        expect(given == ids, "Your function changes the list that it is given; leave it as it was.")
        where = f"For ids={ids} and the pair {pair}: "
        expect(
            all(got.values()) or {key: change for key, change in got.items() if change} != wanted,
            where + "leave out the pairs whose count stays the same, instead of listing them with a 0.",
        )
        if dict(got) == wanted:
            continue
        expect(
            bool(got) or not wanted, where + "nothing is said to change, but the pair itself disappears at the least."
        )
        expect(
            dict(got) != {key: -change for key, change in wanted.items()},
            where + "your signs are the wrong way round. A pair that disappears has a negative change.",
        )
        repeated = pair[0] == pair[1]
        expect(
            not repeated,
            where
            + f"you give {dict(got)}, but {wanted} is wanted. Where the two ids of the pair are equal, joins must "
            "not overlap, though counts do.",
        )
        expect(False, where + f"you give {dict(got)}, but {wanted} is wanted. Look at both neighbours of each join.")
    return (
        "Only pairs that touch the joined place change: the pair itself and those with its neighbours on either side. "
        "So after a merge it is enough to look at the words that hold the pair."
    )


@exercise("bpe.2")
def exercise_bpe_2(answer: Callable[[bytes, set[bytes]], list[bytes]]) -> str:
    """`longest_first(word, vocabulary)`: from the left, always the longest token that fits."""
    expect_function(answer, "longest_first(word, vocabulary)")
    rng, letters = random.Random(82), [b"a", b"b", b"c", b" "]
    cases = [(b"abcab", {*letters, b"ab", b"abc"}), (b"", set(letters)), (b"abcc", {*letters, b"ab", b"bcc"})]
    for _ in range(60):
        word = b"".join(rng.choices(letters, k=rng.randint(1, 10)))
        starts = rng.choices(range(len(word)), k=rng.randint(1, 6))
        cases.append((word, {*letters, *(word[start : start + rng.randint(2, 4)] for start in starts)}))
    for word, vocabulary in cases:
        wanted, start = [], 0
        while start < len(word):
            end = next(end for end in range(len(word), start, -1) if word[start:end] in vocabulary)
            wanted.append(word[start:end])
            start = end
        got = answer(word, set(vocabulary))
        where = f"For {word!r} with the longer tokens {sorted(vocabulary - set(letters))}: "
        expect(isinstance(got, list), f"A list of tokens is wanted, not {type(got).__name__}.")
        expect(
            all(isinstance(piece, bytes) for piece in got),
            "A piece in your list is no bytes object. word[i] is a number; word[i : i + 1] is one byte.",
        )
        expect(b"".join(got) == word, where + f"your pieces {got} do not add up to the word.")
        expect(set(got) <= vocabulary, where + f"your pieces {got} are not all in the vocabulary.")
        if got != wanted:
            expect(
                got != [word[i : i + 1] for i in range(len(word))],
                where + "you take the shortest token that fits; try the long ends first.",
            )
            expect(
                False,
                where + f"your pieces are {got}. At each place take the longest token that begins there, before "
                "you look at what comes behind it.",
            )
    return (
        "This is how WordPiece, BERT's tokenizer, cuts a word. It needs a vocabulary but no order of merges, and with "
        "the same vocabulary it often cuts in other places than byte-pair encoding."
    )


_BPE_QUESTIONS = [
    Question(
        "Why does GPT-2 start from bytes rather than from characters?",
        {
            "a": (False, "A character outside ASCII takes two to four bytes, so sequences get longer, not shorter."),
            "b": (True, "256 tokens are enough to spell any text, where Unicode has over 100,000 characters."),
            "c": (False, "Nothing is lost either way: characters can be put together again as well as bytes."),
        },
    ),
    Question(
        "A word is encoded. Which of its pairs is joined first?",
        {
            "a": (False, "That would be the longest-match rule of exercise bpe.2; merges are replayed in their order."),
            "b": (False, "Frequencies matter while learning. When a word is encoded, nothing is counted."),
            "c": (True, "so the word goes through the same stages that it would have gone through in training."),
        },
    ),
    Question(
        "After a merge, which counts of pairs can have changed?",
        {
            "a": (True, "the pair itself and the pairs with its neighbours, in the words that hold it."),
            "b": (False, "Pairs far from the joined place keep their counts; that is what makes learning fast."),
            "c": (False, "The new token also makes new pairs, and the old neighbours lose theirs."),
        },
    ),
    Question(
        "What does cutting the text into words before any merge prevent?",
        {
            "a": (False, "Rare words are possible all the same: they are spelled with several tokens."),
            "b": (
                True,
                "a frequent phrase would otherwise use up entries of the vocabulary, as would 'dog.' and 'dog!'.",
            ),
            "c": (False, "Bytes take care of that. The cutting loses no character and adds none."),
        },
    ),
]

self_test_bpe = self_test("bpe", _BPE_QUESTIONS)


# ---- embedding and linear layers -------------------------------------------------------------------------------------


@exercise("embedding.1")
def exercise_embedding_1(answer: Callable[[nn.Embedding], nn.Linear]) -> str:
    """`as_linear(embedding)`: a linear layer that turns one-hot rows into the same vectors."""
    expect_function(answer, "as_linear(embedding)")
    generator = torch.Generator().manual_seed(91)
    for rows, size in [(6, 3), (4, 4), (2, 5), (9, 1)]:
        table = torch.randn(rows, size, generator=generator)
        embedding = nn.Embedding.from_pretrained(table.clone(), freeze=False)
        got = answer(embedding)
        expect(isinstance(got, nn.Linear), f"An nn.Linear is wanted, not {type(got).__name__}.")
        expect(got.bias is None, "Your layer has a bias, which would be added to every row. A lookup adds nothing.")
        expect(
            (got.in_features, got.out_features) == (rows, size),
            f"For a table of {rows} rows and {size} columns your layer takes {got.in_features} numbers and returns "
            f"{got.out_features}. A one-hot row has as many numbers as the table has rows.",
        )
        expect(
            got.weight.shape == (size, rows),
            f"The weight of your layer has shape {tuple(got.weight.shape)}, but nn.Linear keeps a row for each output.",
        )
        expect_close(got(torch.eye(rows)), table, "These are the outputs for all one-hot rows in turn.")
        expect(torch.equal(embedding.weight.detach(), table), "Your function changes the embedding layer itself.")
    return (
        "One-hot rows in, the rows of the table out: the linear layer holds the same numbers, turned, since nn.Linear "
        "multiplies by the transposed weight."
    )


@exercise("embedding.2")
def exercise_embedding_2(answer: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]) -> str:
    """`table_gradient(ids, output_gradient, num_rows)`: the gradient of an embedding table, (V, C)."""
    expect_function(answer, "table_gradient(ids, output_gradient, num_rows)")
    generator = torch.Generator().manual_seed(92)
    for batch, length, rows, size in [(1, 3, 8, 2), (2, 4, 5, 3), (3, 5, 4, 2), (1, 6, 1, 3), (4, 2, 9, 1)]:
        ids = torch.randint(0, rows, (batch, length), generator=generator)
        output = torch.randn(batch, length, size, generator=generator)
        wanted = torch.zeros(rows, size).index_add(0, ids.flatten(), output.flatten(0, 1))
        last = torch.zeros(rows, size)
        for token_id, row in zip(ids.flatten().tolist(), output.flatten(0, 1), strict=True):
            last[token_id] = row
        got = answer(ids, output.clone(), rows)
        where = f"This is for the ids {ids.tolist()}."
        if isinstance(got, torch.Tensor) and got.shape == wanted.shape and not torch.allclose(wanted, last):
            expect(
                not torch.allclose(got, last),
                f"{where} An id that occurs several times keeps the gradient of one place and loses the others.",
            )
            times = torch.bincount(ids.flatten(), minlength=rows).clamp(min=1)[:, None]
            expect(
                not torch.allclose(got, wanted / times),
                f"{where} You take the mean over the places of an id. Every use of a row adds to its gradient.",
            )
        expect_close(got, wanted, where)
    return (
        "Each place of the output hands its gradient back to the one row that it came from, and a row that was used "
        "several times gets the sum. Rows that were not used get zeros."
    )


_EMBEDDING_QUESTIONS = [
    Question(
        "An embedding table has shape (V, C). What is the shape of the weight of an nn.Linear that does the same?",
        {
            "a": (False, "nn.Linear keeps one row for each output, and here the outputs are the C numbers."),
            "b": (True, "nn.Linear(V, C) multiplies by the transposed weight, so its weight is the table, turned."),
            "c": (False, "The one-hot rows are as long as the vocabulary, so V must appear."),
        },
    ),
    Question(
        "Which rows of the table have a gradient other than zero after one batch?",
        {
            "a": (True, "all the other rows were multiplied by zeros, so a change in them would change nothing."),
            "b": (False, "A row that was not picked has no influence on the loss by way of the lookup."),
            "c": (False, "Every use adds to the row's gradient; none of them is thrown away."),
        },
    ),
    Question(
        "When is a linear layer the right choice for the input of a network?",
        {
            "a": (False, "There it is the wrong choice: the work grows with V, and a lookup does not."),
            "b": (False, "Both layers can be trained, and the gradients are the same."),
            "c": (True, "a mixture of rows is a real matrix product, and a lookup can only pick."),
        },
    ),
    Question(
        "What does tying the weights of a GPT's output head to its token embedding save?",
        {
            "a": (True, "the two have the same shape, (V, C), so one tensor can serve as both."),
            "b": (False, "The head still multiplies by the whole table at every position."),
            "c": (False, "On the contrary: through the head, every row gets a gradient in every step."),
        },
    ),
]

self_test_embedding = self_test("embedding", _EMBEDDING_QUESTIONS)


# ---- buffers ---------------------------------------------------------------------------------------------------------


@exercise("buffers.1")
def exercise_buffers_1(answer: Callable[..., nn.Module]) -> str:
    """`Standardize(mean, std)`: (x - mean) / std, with both as buffers that are saved."""
    expect(
        isinstance(answer, type) and issubclass(answer, nn.Module),
        "Hand in the class itself, a subclass of nn.Module, not an instance of it.",
    )
    generator = torch.Generator().manual_seed(101)
    for size in (1, 3, 5):
        mean, std = torch.randn(size, generator=generator), torch.rand(size, generator=generator) + 0.5
        module = answer(mean.clone(), std.clone())
        x = torch.randn(4, size, generator=generator)
        names = [name for name, _ in module.named_parameters()]
        expect(not names, f"Your module has the parameters {names}, which an optimizer would change.")
        buffers = dict(module.named_buffers())
        expect(
            len(buffers) >= 2,
            f"Your module has {len(buffers)} buffers; mean and std should both be. An assigned tensor is a plain "
            "attribute, which PyTorch does not know of.",
        )
        unsaved = sorted(set(buffers) - set(module.state_dict()))
        expect(not unsaved, f"The buffers {unsaved} are not saved, but nothing else holds the numbers that they hold.")
        expect_close(module(x), (x - mean) / std, "This is the output for random rows. Subtract first, then divide.")
        double = module.to(torch.float64)(x.double())
        expect(double.dtype == torch.float64, "After .to(torch.float64), the output for float64 rows is not float64.")
        other = answer(torch.zeros(size), torch.ones(size))
        other.load_state_dict(answer(mean.clone(), std.clone()).state_dict())
        expect_close(other(x), (x - mean) / std, "This is the output of a module that loaded the state of another.")
    return (
        "Both tensors move with the module, are in its state_dict, and are left alone by optimizers: they are "
        "measured from the data, not learned by gradients, and cannot be made again from the sizes alone."
    )


@exercise("buffers.2")
def exercise_buffers_2(answer: Callable[[nn.Module], Mapping[str, str]]) -> str:
    """`kinds(module)`: for every parameter and buffer by name which of the three kinds it is."""
    expect_function(answer, "kinds(module)")
    attention = nn.Module()
    attention.register_buffer("mask", torch.ones(2, 2), persistent=False)
    attention.key = nn.Linear(2, 2, bias=False)
    frozen = nn.Linear(2, 1).requires_grad_(False)
    nested = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), attention)
    nested.register_buffer("scale", torch.ones(1))
    nested.plain = torch.ones(1)
    empty = nn.Module()
    empty.register_buffer("later", None)
    for module in (nn.Linear(2, 2), nn.BatchNorm1d(4), attention, nested, frozen, nn.ReLU(), empty):
        wanted = dict.fromkeys((name for name, _ in module.named_parameters()), "parameter")
        for name, _ in module.named_buffers():
            wanted[name] = "saved buffer" if name in module.state_dict() else "unsaved buffer"
        got = answer(module)
        where = f"For {str(module).splitlines()[0].rstrip('(')}: "
        expect(isinstance(got, Mapping), f"A dictionary from names to kinds is wanted, not {type(got).__name__}.")
        strange = sorted({str(kind) for kind in got.values()} - {"parameter", "saved buffer", "unsaved buffer"})
        expect(not strange, f"The kinds {strange} are not among the three of the exercise.")
        missing = sorted(set(wanted) - set(got))
        expect(
            not missing,
            where + f"{missing} is missing. A state_dict leaves out some buffers; module.named_buffers() has them all.",
        )
        extra = sorted(set(got) - set(wanted))
        expect(not extra, where + f"{extra} is neither a parameter nor a buffer with a tensor in it.")
        wrong = sorted(name for name in wanted if got[name] != wanted[name])
        if wrong:
            name = wrong[0]
            expect(
                wanted[name] != "parameter",
                where + f"you call {name} a {got[name]}. Parameters whose requires_grad is False are parameters still.",
            )
            expect(False, where + f"you call {name} a {got[name]}. Whether a buffer is saved, its state_dict tells.")
    return (
        "Parameters come from named_parameters, buffers from named_buffers, and a buffer is saved if its name is in "
        "the state_dict. A plain tensor appears nowhere, which is what is wrong with it."
    )


_BUFFER_QUESTIONS = [
    Question(
        "A module keeps its mask as a plain attribute. What happens after model.to('cuda')?",
        {
            "a": (False, "A module cannot know which of its attributes you meant; it moves what was registered."),
            "b": (True, "and the first operation on both stops with an error about two devices."),
            "c": (False, "PyTorch never copies between devices by itself, as that would be slow without saying so."),
        },
    ),
    Question(
        "Which tensor should be a buffer with persistent=True?",
        {
            "a": (True, "it was gathered from the data, and nothing but the file can bring it back."),
            "b": (False, "It can be made from the context length alone, so saving it only makes files larger."),
            "c": (False, "What is learned by gradients is a parameter, so that optimizers find it."),
        },
    ),
    Question(
        "A checkpoint was saved with masks; the model now has persistent=False. What does load_state_dict say?",
        {
            "a": (False, "strict=True is the default, and it wants both sides to have the same names."),
            "b": (False, "Missing are names that the model has and the file has not; here it is the other way round."),
            "c": (True, "the file has names that the model no longer saves; leave them out before loading."),
        },
    ),
    Question(
        "Does model.to(torch.float16) change a boolean mask that is a buffer?",
        {
            "a": (True, "dtypes change for floating-point tensors only; a move to a device changes every buffer."),
            "b": (False, "It would be converted if it were a floating-point mask; booleans and integers stay."),
            "c": (False, "There is no error: what is not a floating-point tensor is left as it is."),
        },
    ),
]

self_test_buffers = self_test("buffers", _BUFFER_QUESTIONS)
