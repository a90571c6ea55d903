"""Checkers for chapter 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...attention import CausalAttention, SelfAttention_v1, SelfAttention_v2
from ._core import (
    Hint,
    all_agree,
    brief,
    call,
    copies,
    exercise,
    expect,
    expect_close,
    read_number,
    read_tensor,
    read_truth,
    same,
    self_test,
)


def _expect_all(
    answer: Callable,
    cases: Sequence[tuple],
    right: Callable[..., Any],
    slips: Sequence[tuple[Callable[..., Any], str]],
    tried: Callable[..., str],
    read: Callable[[Any], Any] = read_tensor,
    otherwise: str = "",
) -> list:
    """What `answer` gives for each case, as `read` reads it; a Hint unless all of it agrees with what `right` gives.

    A slip is what a known mistake gives, with its hint, which is shown only if the mistake explains every case. `tried`
    puts a case into words; `otherwise` is as in `expect_close`.
    """
    expected = [right(*case) for case in cases]
    results = [read(answer(*copies(case))) for case in cases]
    all_agree(results, expected, (((slip(*case) for case in cases), hint) for slip, hint in slips))
    for result, number, case in zip(results, expected, cases, strict=True):
        expect_close(result, number, tried(*case), otherwise=otherwise)
    return results


def _attention(x, w_query, w_key, w_value, dim: int = -1, divide: Callable[[int, int], float] | None = None):
    """Self-attention in one piece, or with the softmax along another dimension or scores divided by something else."""
    scores = (x @ w_query) @ (x @ w_key).T
    divisor = divide(*w_key.shape) if divide else w_key.shape[1] ** 0.5
    return torch.softmax(scores / divisor, dim=dim) @ (x @ w_value)


@exercise("3.A", "self_attention(x, W_query, W_key, W_value)")
def exercise_3_a(answer: Callable) -> str:
    """`answer(x, W_query, W_key, W_value)` gives the context vectors (T, d_out) of x (T, d_in); no mask."""
    generator = torch.Generator().manual_seed(30)
    cases = []
    for tokens, d_in, d_out in ((6, 3, 2), (4, 4, 4), (1, 3, 5), (5, 2, 9), (3, 7, 4)):
        x = torch.randn(tokens, d_in, generator=generator)
        cases.append((x, *(torch.randn(d_in, d_out, generator=generator) for _ in range(3))))

    def weights(x, q, k):
        return torch.softmax((x @ q) @ (x @ k).T / k.shape[1] ** 0.5, dim=-1)

    slips = [
        (
            lambda x, q, k, v: _attention(x, q, k, v, divide=lambda d_in, d_out: 1),
            "The scores are not divided by anything: see 3.4.1 and 3.4.2.",
        ),
        (
            lambda x, q, k, v: _attention(x, q, k, v, divide=lambda d_in, d_out: d_out),
            "You divide by d_k itself; which power of it brings the variance of a score back to 1?",
        ),
        (
            lambda x, q, k, v: _attention(x, q, k, v, divide=lambda d_in, d_out: d_in**0.5),
            "You divide by the root of d_in. A score sums as many products as a key has numbers: how many are these?",
        ),
        (
            lambda x, q, k, v: _attention(x, q, k, v, dim=0),
            "Your columns of weights sum to 1; for each query, that is in each row, they should.",
        ),
        (
            lambda x, q, k, v: _attention(x, k, q, v),
            "Queries and keys have changed places: row i of the scores belongs to the query of word i.",
        ),
        (
            lambda x, q, k, v: _attention(x, q, v, k),
            "Keys and values have changed places: queries meet keys, and the weights mix values.",
        ),
        (
            lambda x, q, k, v: weights(x, q, k) @ x,
            "The weights mix the inputs, as in 3.3; here they are to mix the values.",
        ),
        (
            lambda x, q, k, v: weights(x, q, k),
            "These are the weights. One step is left: what do they mix?",
        ),
        (
            lambda x, q, k, v: weights(x, q, k).tril() @ (x @ v),
            "Some words are left out of the mix. There is no mask yet: every word looks at all words.",
        ),
        (
            lambda x, q, k, v: ((x @ q) @ (x @ k).T / k.shape[1] ** 0.5) @ (x @ v),
            "The scores mix the values without having become weights: where is the softmax?",
        ),
    ]

    def tried(x, q, *_):
        return f"Tried with {len(x)} words of {q.shape[0]} numbers, and matrices of shape {tuple(q.shape)}."

    _expect_all(answer, cases, _attention, slips, tried)
    return (
        "Project three times, compare queries with keys, divide by the root of d_k, softmax along each row, mix the "
        "values. These are all the steps of a head, and they work for any number of words and any widths."
    )


@exercise("3.1", "copy_weights(source, target)", may_return_none=True)
def exercise_3_1(answer: Callable) -> str:
    """`answer(source, target)` copies the weights of a SelfAttention_v2 into a SelfAttention_v1."""
    for d_in, d_out in ((4, 4), (3, 2), (5, 7)):
        source, target = SelfAttention_v2(d_in, d_out), SelfAttention_v1(d_in, d_out)
        x = torch.randn(6, d_in)
        expected = source(x).detach()
        before = {name: weight.clone() for name, weight in source.state_dict().items()}
        result = answer(source, target)
        target = result if isinstance(result, SelfAttention_v1) else target
        for name, weight in source.state_dict().items():
            expect(torch.equal(weight, before[name]), "The source has changed: copy from it, and leave it as it was.")
        weights = {name: getattr(source, name).weight for name in ("W_query", "W_key", "W_value")}
        for name, weight in weights.items():
            got = read_tensor(getattr(target, name), f"A tensor in {name} of the target")
            expect(
                d_in != d_out or not same(got, weight),
                f"{name} was copied as it stands. That fits when d_in equals d_out, and is wrong all the same: in "
                f"which order does a linear layer store its weights, and which order does x @ W need?",
            )
            expect(
                got.shape == (d_in, d_out),
                f"{name} of the target has shape {tuple(got.shape)}; shape {(d_in, d_out)} is expected.",
            )
            for other in [other for other in weights if other != name]:
                swapped = same(got, weights[other].T)
                expect(not swapped, f"{name} of the target holds the weights of {other}: have two been swapped?")
        outputs = f"Tried with d_in={d_in}, d_out={d_out}; the two outputs differ."
        expect_close(call(SelfAttention_v1.forward, target, x), expected, outputs)
        with torch.no_grad():
            for name in weights:
                getattr(target, name).add_(1)
        for name, weight in source.state_dict().items():
            expect(
                torch.equal(weight, before[name]),
                f"{name} of the target is the very tensor of the source: changing one changes the other. Copy the "
                "numbers.",
            )
    return (
        "Both modules now give the same output. A linear layer stores its weights as (d_out, d_in) and computes "
        "x @ weight.T, so each matrix has to be turned over on its way into SelfAttention_v1."
    )


def _windowed(scores: torch.Tensor, window: int, fill: float = -torch.inf) -> torch.Tensor:
    """The scores with `fill` in the places that a causal window does not see."""
    return scores.masked_fill(_unseen(len(scores), window), fill)


def _read_weights(value: Any) -> torch.Tensor:
    weights = read_tensor(value)
    expect(
        not bool(torch.isnan(weights).any()),
        "There are NaNs. Either every score of some row is −∞, or a 0 was multiplied by −∞, which is not a number "
        "either: put −∞ into the places instead of multiplying by it.",
    )
    return weights


def _unseen(tokens: int, window: int) -> torch.Tensor:
    everything = torch.ones(tokens, tokens, dtype=torch.bool)
    return everything.triu(1) | everything.tril(-window)


@exercise("3.B", "window_softmax(scores, window)")
def exercise_3_b(answer: Callable) -> str:
    """`answer(scores, window)` turns scores (T, T) into weights: each word sees itself and window − 1 words before."""
    generator = torch.Generator().manual_seed(34)
    sizes = ((5, 2), (6, 3), (4, 1), (3, 8), (1, 1), (7, 7), (8, 4))
    cases = [(2 * torch.randn(tokens, tokens, generator=generator), window) for tokens, window in sizes]

    def softmax(scores):
        return torch.softmax(scores, dim=-1)

    def right(scores, window):
        return softmax(_windowed(scores, window))

    def kept(scores, window):
        return softmax(scores).masked_fill(_unseen(len(scores), window), 0.0)

    slips = [
        (
            lambda s, w: softmax(_windowed(s, len(s))),
            "No later word is seen, but all earlier ones: where does w come in?",
        ),
        (
            lambda s, w: softmax(_windowed(s, w + 1)),
            "Each word sees w words before it besides itself. The word itself counts among the w.",
        ),
        (
            lambda s, w: softmax(_windowed(s.T, w).T),
            "Each word sees itself and words after it: the window must lie on the other side of the diagonal.",
        ),
        (
            lambda s, w: softmax(s.masked_fill(_unseen(len(s), w) & _unseen(len(s), w).T, -torch.inf)),
            "Your window reaches to both sides; a word must not see the words after it.",
        ),
        (lambda s, w: softmax(s), "Every word sees all words: nothing is masked."),
        (
            lambda s, w: softmax(_windowed(s, w, 0.0)),
            "A masked score of 0 still counts, since exp(0) is 1. Which score has an exponential of 0?",
        ),
        (
            kept,
            "The words outside the window have no weight, but the rows no longer sum to 1. What is missing after the "
            "masking, or what should be masked before the softmax instead?",
        ),
        (
            lambda s, w: kept(s, w) / kept(s, w).sum(dim=-1),
            "Your rows do not sum to 1: each row was divided by the sums of all rows. Section 3.5.1 says what keeps "
            "the sums in a column.",
        ),
        (_windowed, "These are scores still, with the right places masked: where is the softmax?"),
        (
            lambda s, w: torch.log_softmax(_windowed(s, w), dim=-1),
            "These are logarithms of weights; the weights themselves are expected.",
        ),
        (
            lambda s, w: torch.softmax(_windowed(s, w), dim=0),
            "Your columns sum to 1 where the rows should: along which dimension is the softmax taken?",
        ),
        (
            lambda s, w: softmax(_windowed(s, w) / len(s) ** 0.5),
            "The scores were divided by something. No scaling is asked for here.",
        ),
    ]

    def tried(scores, window):
        return f"Tried with {len(scores)} words and a window of {window}."

    results = _expect_all(answer, cases, right, slips, tried, read=_read_weights)
    for weights, (scores, window) in zip(results, cases, strict=True):
        outside = float((weights * _unseen(len(scores), window)).max())
        expect(
            outside == 0,
            f"{tried(scores, window)} A weight outside the window is {brief(outside)}: tiny, but not 0. Which score "
            "has an exponential of exactly 0?",
        )
    return (
        "Zero outside the window, rows that sum to 1, and the words left over share as their scores say. With a window "
        "as long as the text this is the causal softmax."
    )


def _weights_of(x: torch.Tensor) -> torch.Tensor:
    """Weights of every word for every word, of x (T, C), without a mask."""
    return torch.softmax(x @ x.T, dim=-1)


def _later(x: torch.Tensor, diagonal: int = 1) -> torch.Tensor:
    return torch.ones(len(x), len(x), dtype=torch.bool).triu(diagonal)


def _masked(x: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
    return torch.softmax((x @ x.T).masked_fill(unseen, -torch.inf), dim=-1) @ x


def _all_but_last(x: torch.Tensor) -> torch.Tensor:
    """Every word sees all words, but the last one, which only the last word sees."""
    unseen = torch.zeros(len(x), len(x), dtype=torch.bool)
    unseen[:-1, -1] = True
    return _masked(x, unseen)


# Functions from (T, C) to (T, C): whether they are causal, what they do, and a hint for who gets it wrong.
_SUSPECTS: tuple[tuple[bool, Callable[[torch.Tensor], torch.Tensor], str], ...] = (
    (True, lambda x: _masked(x, _later(x)), "causal attention"),
    (False, lambda x: _weights_of(x) @ x, "attention without a mask"),
    (True, lambda x: 2 * x + 1, "a function that treats every word by itself"),
    (
        False,
        lambda x: _masked(x, _later(x, 2)),
        "attention in which every word sees one word after it (the mask begins one place too far right)",
    ),
    (
        False,
        _all_but_last,
        "attention that hides the last word only: words in the middle of the text see later ones. Have you changed "
        "anything but the last word?",
    ),
    (
        False,
        lambda x: _weights_of(x).tril() @ x,
        "attention whose weights were masked after the softmax and not divided by their sum: the later words have "
        "left their mark in the size of the others' weights",
    ),
    (True, lambda x: x.cumsum(dim=0), "a sum of all words so far"),
    (
        True,
        lambda x: torch.cat((torch.zeros_like(x[:1]), x[:-1])),
        "a function that hands each word on to the next one",
    ),
    (False, lambda x: x - x.mean(dim=0), "a function that subtracts the mean of all words, later ones included"),
    (False, lambda x: torch.cat((x[:1] + x[-1:], x[1:])), "a function that adds the last word to the first"),
    (False, lambda x: x + 1e-3 * x.flip(0), "a function in which later words show only in the third decimal"),
)


@exercise("3.C", "is_causal(attention, x)")
def exercise_3_c(answer: Callable) -> str:
    """`answer(attention, x)` says whether any row of attention(x), (T, C), depends on a later row of x."""
    generator = torch.Generator().manual_seed(33)
    for causal, attention, what in _SUSPECTS:
        for tokens, width in ((6, 3), (7, 4)):
            x = torch.randn(tokens, width, generator=generator)
            verdict = read_truth(answer(attention, x.clone()))
            wrong = "You call it causal, and it is not" if verdict else "You say that it looks ahead, and it does not"
            expect(verdict == causal, f"{wrong}: {what}. Tried with {tokens} words of {width} numbers.")
    return (
        f"All {len(_SUSPECTS)} functions are told apart. To change the future and watch the past needs no look into "
        "the code, so the same test will serve for a whole GPT in chapter 4."
    )


@exercise("3.2")
def exercise_3_2(answer: Any) -> str:
    """`answer` is a MultiHeadAttentionWrapper with two heads whose output has two numbers per token."""
    expect(isinstance(answer, torch.nn.Module), "Hand in the module: MultiHeadAttentionWrapper(...).")
    heads, kind = getattr(answer, "heads", None), type(answer).__name__
    expect(isinstance(heads, torch.nn.ModuleList), f"{kind} has no heads; a MultiHeadAttentionWrapper is expected.")
    expect(len(heads) == 2, f"There must be two heads still; yours has {len(heads)}.")
    dtype = next((parameter.dtype for parameter in answer.parameters()), torch.float32)
    generator = torch.Generator().manual_seed(32)
    for tokens in (1, 4, 6):
        x = torch.randn(2, tokens, 3, generator=generator).to(dtype)
        shape = read_tensor(call(answer, x)).shape
        expect(
            shape == (2, tokens, 2),
            f"For an input of shape {tuple(x.shape)} your output has shape {tuple(shape)}; it must end in 2. "
            f"How many numbers does each head contribute?",
        )
    count = sum(parameter.numel() for parameter in answer.parameters())
    expect(
        count in (18, 24),
        f"Your module has {count} parameters. Two heads with three projections of (1, 3) each have 18, with biases 24.",
    )
    return "The heads' outputs are joined end to end, so two heads of one number each give two numbers per token."


@exercise("3.D", "misplaced(num_heads, num_tokens, head_dim)")
def exercise_3_d(answer: Callable) -> str:
    """`answer(num_heads, num_tokens, head_dim)` counts numbers that a merge without transposing puts elsewhere."""
    cases = ((2, 3, 2), (3, 4, 5), (1, 4, 3), (4, 4, 2), (3, 1, 2), (12, 8, 64))

    def differ(heads, tokens, width):
        numbers = torch.arange(heads * tokens * width).view(heads, tokens, width)
        return numbers.transpose(0, 1).reshape(tokens, -1) != numbers.reshape(tokens, -1)

    slips = [
        (
            lambda *sizes: int((~differ(*sizes)).sum()),
            "You count the numbers that stand in the right place; the others are asked for.",
        ),
        (
            lambda *sizes: int(differ(*sizes).any(dim=1).sum()),
            "You count the tokens that lose a number; count the numbers.",
        ),
        (
            lambda *sizes: int(differ(*sizes).sum()) // sizes[2],
            "You count blocks of head_dim numbers; count the single numbers.",
        ),
        (
            lambda *sizes: differ(*sizes).numel(),
            "You count all numbers. Some stay in their places: compare the two results place by place.",
        ),
    ]

    def tried(heads, tokens, width):
        alone = " With a single head or a single token, nothing can go astray." if 1 in (heads, tokens) else ""
        return f"Tried with {heads} heads, {tokens} tokens and {width} numbers per head.{alone}"

    way = "Number the entries from 0 on, merge them both ways, and compare place by place."
    _expect_all(answer, cases, lambda *sizes: int(differ(*sizes).sum()), slips, tried, read_number, way)
    return (
        "With one head or one token nothing moves. Otherwise many numbers end up with another token or head, although "
        "the shape is right and no error comes up."
    )


@exercise("3.E", "look_back(attention, steps)")
def exercise_3_e(answer: Callable) -> str:
    """`answer(attention, steps)` sets weights of a CausalAttention so that each word looks `steps` words back."""
    generator = torch.Generator().manual_seed(35)
    for tokens, steps in ((6, 2), (6, 1), (8, 3), (5, 4)):
        texts = torch.cat(
            (torch.rand(4, tokens, 3, generator=generator), torch.eye(tokens).expand(4, tokens, tokens)), dim=-1
        )  # (B, T, 3 + T)
        module = CausalAttention(3 + tokens, tokens, tokens, 0.0)
        result = answer(module, steps)
        expect(
            isinstance(result, torch.nn.Module) and hasattr(result, "W_query") and hasattr(result, "W_key"),
            f"Return the attention module, not {type(result).__name__}.",
        )
        with torch.no_grad():
            queries, keys = read_tensor(call(result.W_query, texts)), read_tensor(call(result.W_key, texts))
            call(result, texts)
        scores = queries @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5
        weights = torch.softmax(scores.masked_fill(_later(scores[0]), -torch.inf), dim=-1)  # (B, T, T)
        case = f"Tried with {tokens} words and steps={steps}."
        for word in range(steps, tokens):
            seen = weights[:, word]
            target = float(seen[:, word - steps].min())
            if target > 0.9:
                continue
            place = f"{case} Word {word + 1} should look at word {word + 1 - steps}"
            favourites = set(seen.argmax(dim=-1).tolist())
            expect(
                float(seen.max() - seen[:, : word + 1].min()) > 1e-3,
                f"{place}. All words that it sees have the same weight: does its query fit any of the keys?",
            )
            expect(
                favourites != {word - steps},
                f"{place}. It does, but with a weight of {target:.2f} only: which numbers make its score larger, "
                "and so the weight?",
            )
            expect(
                len(favourites) == 1,
                f"{place}. Where it looks depends on the first three numbers of the words: which columns of the "
                "matrices read these?",
            )
            raise Hint(f"{place}. It looks most at word {favourites.pop() + 1}.")
    return (
        "Each query asks for the place that lies as many words back as it should, and each key says which place it is. "
        "No content is needed for this; a trained model can come to the same by moving position embeddings around."
    )


@exercise("3.3")
def exercise_3_3(answer: Any) -> str:
    """`answer` is a MultiHeadAttention of the size that GPT-2 small uses."""
    expect(isinstance(answer, torch.nn.Module), "Hand in the module: MultiHeadAttention(...).")
    for name in ("num_heads", "head_dim", "W_query", "out_proj", "mask"):
        expect(hasattr(answer, name), f"{type(answer).__name__} has no {name}; a MultiHeadAttention is expected.")
    expect(answer.num_heads == 12, f"GPT-2 small has 12 heads; yours has {answer.num_heads}.")
    width = answer.W_query.weight.shape
    expect(
        width == (768, 768),
        f"Both the input and the output have 768 numbers per token; your projection is {tuple(width)}. In "
        f"MultiHeadAttention, d_out is the width of all heads together.",
    )
    expect(
        answer.mask.shape == (1024, 1024),
        f"GPT-2 reads up to 1,024 tokens; your mask is {tuple(answer.mask.shape)}.",
    )
    x = torch.randn(1, 5, 768).to(answer.W_query.weight.dtype)
    expect(read_tensor(call(answer, x)).shape == x.shape, "Its output must have the shape of its input.")
    count = sum(parameter.numel() for parameter in answer.parameters())
    expect(
        count in (2_360_064, 2_362_368),
        f"Your module has {count:,} parameters; three projections and an output layer have 2,360,064, or 2,362,368 "
        "with biases for queries, keys and values.",
    )
    return "12 heads of 768 / 12 = 64 numbers each, for up to 1,024 tokens: GPT-2 small has twelve such modules."


@exercise("3.F", "count_parameters(d_in, d_out, num_heads, qkv_bias)")
def exercise_3_f(answer: Callable) -> str:
    """`answer(d_in, d_out, num_heads, qkv_bias)` counts the parameters of a MultiHeadAttention."""
    cases = ((4, 6, 2, False), (3, 2, 2, True), (8, 8, 4, False), (768, 768, 12, False), (5, 9, 3, True))

    def right(d_in, d_out, heads, bias):
        return 3 * (d_in * d_out + d_out * bias) + d_out * d_out + d_out

    slips = [
        (
            lambda d_in, d_out, heads, bias: 3 * (d_in * d_out + d_out * bias),
            "A fourth layer comes after the heads have been merged: its parameters are missing.",
        ),
        (
            lambda d_in, d_out, heads, bias: 3 * (d_in * d_out + d_out * bias) + d_out * d_out,
            "The last layer has a bias, which qkv_bias says nothing about.",
        ),
        (
            lambda d_in, d_out, heads, bias: right(d_in, d_out, heads, False),
            "With qkv_bias the three projections have biases too.",
        ),
        (
            lambda d_in, d_out, heads, bias: 3 * heads * (d_in * d_out + d_out * bias) + d_out * d_out + d_out,
            "The heads share the projections: each takes a slice, and more heads cost no more.",
        ),
        (
            lambda d_in, d_out, heads, bias: right(d_out, d_out, heads, bias),
            "You take d_in to be as large as d_out. That holds for GPT-2, but not for every module.",
        ),
    ]

    def tried(d_in, d_out, heads, bias):
        return f"Tried with d_in={d_in}, d_out={d_out}, num_heads={heads}, qkv_bias={bias}."

    layers = "Write down the shape of each layer, with its bias if it has one."
    _expect_all(answer, cases, right, slips, tried, read_number, layers)
    return (
        "Three projections of d_in · d_out and an output layer of d_out · d_out + d_out, plus 3 · d_out if there are "
        "biases. The number of heads does not matter: they split what is there."
    )


self_test_3 = self_test("3", "ch03")
