"""Checkers for chapter 3. Random cases come from generators of their own; the global seed is never touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...attention import SelfAttention_v1, SelfAttention_v2
from ._core import Hint, Question, exercise, expect, expect_close, expect_function, self_test

__all__ = [
    "exercise_3_0",
    "exercise_3_1",
    "exercise_3_2",
    "exercise_3_3",
    "exercise_3_4",
    "exercise_3_5",
    "exercise_3_6",
    "self_test_3",
]


def _need_tensor(result: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(_need_result(result)).detach().float()
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"Your function should return a tensor; this is a {type(result).__name__}.") from None


def _need_result(result: Any) -> Any:
    expect(result is not None, "Your function returned nothing: is there a return at its end?")
    return result


@exercise("3.0")
def exercise_3_0(answer: Callable) -> str:
    """`answer(query, inputs)` gives the scores (T,) of a query (d,) with each row of inputs (T, d)."""
    expect_function(answer, "attention_scores(query, inputs)")
    generator = torch.Generator().manual_seed(30)
    for tokens, width in ((4, 4), (6, 3), (2, 5), (1, 7), (9, 2)):
        query = torch.randn(width, generator=generator)
        inputs = torch.randn(tokens, width, generator=generator)
        result = answer(query.clone(), inputs.clone())
        expected = inputs @ query
        got = _need_tensor(result)
        other_axis = (inputs * query).sum(dim=0)
        if tokens > 1 and got.shape == other_axis.shape and torch.allclose(got, other_axis, atol=1e-4):
            raise Hint("You summed down the words, not along each word's numbers: there must be one score per word.")
        if got.ndim == 1 and len(got) == tokens and torch.allclose(got, torch.softmax(expected, 0), atol=1e-4):
            raise Hint("These are weights already: the scores are wanted, before any softmax.")
        if tokens == width and got.shape == (tokens,) and torch.allclose(got, query @ inputs, atol=1e-4):
            raise Hint("You multiplied by the wrong side of the matrix: each row is a word, each column a place.")
        if got.shape == (tokens, width):
            raise Hint("You multiplied, but did not add up: a dot product sums its products into one number per word.")
        expect_close(got, expected, f"Tried with {tokens} words of {width} numbers each.")
    return "One dot product per word, and it works for any number of words and any width."


@exercise("3.1")
def exercise_3_1(answer: Callable) -> str:
    """`answer(source, target)` copies the weights of a SelfAttention_v2 into a SelfAttention_v1."""
    expect_function(answer, "copy_weights(source, target)")
    for case, (d_in, d_out) in enumerate(((4, 4), (3, 2), (5, 7))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(31 + case)
            source, target = SelfAttention_v2(d_in, d_out), SelfAttention_v1(d_in, d_out)
            x = torch.randn(6, d_in)
        before = {name: weight.clone() for name, weight in source.state_dict().items()}
        result = answer(source, target)
        target = result if isinstance(result, SelfAttention_v1) else target
        for name, weight in source.state_dict().items():
            expect(torch.equal(weight, before[name]), "The source has changed: copy from it, and leave it as it was.")
        for name in ("W_query", "W_key", "W_value"):
            got, wanted = getattr(target, name).detach(), getattr(source, name).weight.detach()
            if d_in == d_out and torch.equal(got, wanted):
                raise Hint(
                    f"{name} was copied as it stands. That fits when d_in equals d_out, and is wrong all the same: in "
                    f"which order does a linear layer store its weights, and which order does x @ W need?"
                )
            expect(
                got.shape == (d_in, d_out),
                f"{name} of the target has shape {tuple(got.shape)}; shape {(d_in, d_out)} is wanted.",
            )
            others = [n for n in ("W_query", "W_key", "W_value") if n != name]
            for other in others:
                if torch.allclose(got, getattr(source, other).weight.detach().T):
                    raise Hint(f"{name} of the target holds the weights of {other}: have two of them been swapped?")
        with torch.no_grad():
            expect_close(target(x), source(x), f"Tried with d_in={d_in}, d_out={d_out}; the two outputs differ.")
    return (
        "Both modules now give the same output. A linear layer stores its weights as (d_out, d_in) and computes "
        "x @ weight.T, so each matrix has to be turned over on its way into SelfAttention_v1."
    )


@exercise("3.2")
def exercise_3_2(answer: Any) -> str:
    """`answer` is a MultiHeadAttentionWrapper with two heads whose output has two numbers per token."""
    expect(isinstance(answer, torch.nn.Module), "Hand in the module: MultiHeadAttentionWrapper(...).")
    heads = getattr(answer, "heads", None)
    expect(heads is not None, f"{type(answer).__name__} has no heads; a MultiHeadAttentionWrapper is wanted.")
    expect(len(heads) == 2, f"There must be two heads still; yours has {len(heads)}.")
    generator = torch.Generator().manual_seed(32)
    for tokens in (1, 4, 6):
        x = torch.randn(2, tokens, 3, generator=generator)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
            result = answer(x)
        expect(
            result.shape == (2, tokens, 2),
            f"For an input of shape {tuple(x.shape)} your output has shape {tuple(result.shape)}; it must end in 2. "
            f"How many numbers does each head contribute?",
        )
    return "The heads' outputs are joined end to end, so two heads of one number each give two numbers per token."


@exercise("3.3")
def exercise_3_3(answer: Any) -> str:
    """`answer` is a MultiHeadAttention of the size that GPT-2 small uses."""
    expect(isinstance(answer, torch.nn.Module), "Hand in the module: MultiHeadAttention(...).")
    for name in ("num_heads", "head_dim", "W_query", "out_proj", "mask"):
        expect(hasattr(answer, name), f"{type(answer).__name__} has no {name}; a MultiHeadAttention is wanted.")
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
    x = torch.randn(1, 5, 768, generator=torch.Generator().manual_seed(33))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        expect(answer(x).shape == (1, 5, 768), "Its output must have the shape of its input.")
    return "12 heads of 768 / 12 = 64 numbers each, for up to 1,024 tokens: GPT-2 small has twelve such modules."


@exercise("3.4")
def exercise_3_4(answer: Callable) -> str:
    """`answer(scores)` turns scores (T, T) into causal weights (T, T)."""
    expect_function(answer, "causal_softmax(scores)")
    generator = torch.Generator().manual_seed(34)
    for tokens in (4, 1, 2, 7, 6):
        scores = 2 * torch.randn(tokens, tokens, generator=generator)
        future = torch.triu(torch.ones(tokens, tokens, dtype=torch.bool), diagonal=1)
        expected = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
        got = _need_tensor(answer(scores.clone()))
        if got.shape == expected.shape and tokens > 1:
            expect(
                not torch.isnan(got).any(),
                "There are NaNs: a row in which every score is −∞ has no softmax. The word itself must stay visible.",
            )
            zeroed = torch.softmax(scores.masked_fill(future, 0.0), dim=-1)
            expect(
                not torch.allclose(got, zeroed, atol=1e-5),
                "A masked score of 0 still counts, since exp(0) is 1. Which score has an exponential of 0?",
            )
            expect(
                float(got[future].abs().max()) < 1e-6,
                "Some weight falls on a later word: every entry to the right of the diagonal must be zero.",
            )
            expect(
                not torch.allclose(got, torch.softmax(scores, dim=-1).masked_fill(future, 0.0), atol=1e-5),
                "The later words are zero now, but the rows no longer sum to 1. What is missing after the masking, or "
                "what should be masked before the softmax instead?",
            )
            if torch.allclose(got.sum(dim=0), torch.ones(tokens), atol=1e-4):
                raise Hint("Your columns sum to 1 where the rows should: along which dimension is the softmax taken?")
        expect_close(got, expected, f"Tried with {tokens} words.")
    return "Zero for every later word, rows that sum to 1, and the words left over share as their scores say."


@exercise("3.5")
def exercise_3_5(answer: Callable) -> str:
    """`answer(d_in, d_out, num_heads, qkv_bias)` counts the parameters of a MultiHeadAttention."""
    expect_function(answer, "count_parameters(d_in, d_out, num_heads, qkv_bias)")
    cases = ((4, 6, 2, False), (3, 2, 2, True), (8, 8, 4, False), (768, 768, 12, False), (5, 9, 3, True))
    for d_in, d_out, heads, bias in cases:
        got = _need_result(answer(d_in, d_out, heads, bias))
        qkv, out = 3 * d_in * d_out + 3 * d_out * bias, d_out * d_out + d_out
        case = f"For d_in={d_in}, d_out={d_out}, num_heads={heads}, qkv_bias={bias} you count {got}."
        if got == qkv + out:
            continue
        slips = {
            qkv: "A fourth layer comes after the heads have been merged: its parameters are missing.",
            qkv + d_out * d_out: "The last layer has a bias, which qkv_bias says nothing about.",
            3 * d_in * d_out + out: "With qkv_bias the three projections have biases too.",
            heads * qkv + out: "The heads share the projections: each takes a slice, and more heads cost nothing more.",
        }
        raise Hint(f"{case} {slips.get(got, 'Write down the shape of each layer, with its bias if it has one.')}")
    return (
        "Three projections of d_in · d_out and an output layer of d_out · d_out + d_out, plus 3 · d_out if there are "
        "biases. The number of heads does not matter: they split what is there."
    )


@exercise("3.6")
def exercise_3_6(answer: Callable) -> str:
    """`answer(x, num_heads)` turns (B, T, C) into (B, H, T, C / H)."""
    expect_function(answer, "split_heads(x, num_heads)")
    generator = torch.Generator().manual_seed(36)
    for batch, tokens, heads, width in ((2, 3, 4, 5), (1, 3, 2, 2), (3, 1, 2, 4), (2, 4, 4, 1), (2, 5, 1, 3)):
        x = torch.randn(batch, tokens, heads * width, generator=generator)
        got = _need_result(answer(x.clone(), heads))
        expect(isinstance(got, torch.Tensor), f"A tensor is wanted, not {type(got).__name__}.")
        split = x.view(batch, tokens, heads, width)
        if tokens != heads and got.shape == split.shape:
            raise Hint(
                f"Your result has shape {tuple(got.shape)}, that is (B, T, H, D): the numbers are shared out, but the "
                f"heads are not yet in front of the tokens."
            )
        if tokens > 1 and heads > 1 and got.shape == (batch, heads, tokens, width):
            direct = x.view(batch, heads, tokens, width)
            expect(
                not torch.equal(got, direct),
                "The shape is right, the numbers are not: reshaping straight to (B, H, T, D) cuts the list of numbers "
                "in the wrong places, and a head gets whole tokens. Which dimension can be cut in two safely?",
            )
        expect_close(got, split.transpose(1, 2), f"Tried with an input of shape {tuple(x.shape)} and {heads} heads.")
    return "Cut the last dimension first, then move the heads forward: no number changes its token on the way."


_QUESTIONS = (
    Question(
        "What is an attention weight?",
        {
            "a": (False, "that is a parameter such as W_query, which training sets once for all texts."),
            "b": (True, "it is computed anew for every text, and says how much of a token's value goes into the mix."),
            "c": (False, "the raw dot product is the score; a weight is what softmax makes of it."),
        },
    ),
    Question(
        "Why are scores divided by the square root of d_k?",
        {
            "a": (False, "softmax makes rows sum to 1 whatever goes into it."),
            "b": (True, "unscaled scores grow with the width, softmax saturates, and its gradients vanish."),
            "c": (False, "a division by a constant saves nothing; it even costs a little."),
        },
    ),
    Question(
        "Scores of later tokens are set to −∞ before the softmax. What would 0 instead of −∞ do?",
        {
            "a": (True, "exp(0) is 1, so later tokens would still get weight; only exp(−∞) is exactly 0."),
            "b": (False, "0 is an ordinary score: with it a later token can even beat one whose score is negative."),
            "c": (False, "PyTorch raises no error here, which is why this slip is easily overlooked."),
        },
    ),
    Question(
        "An attention weight passes through dropout with p = 0.5 in training and is kept. What becomes of it?",
        {
            "a": (False, "left as they are, the kept weights would sum to about half of what they sum to later."),
            "b": (False, "that would make the sum smaller still: the kept ones must make up for the dropped."),
            "c": (True, "it is multiplied by 1 / (1 − p) = 2, so that the expected value stays what it was."),
        },
    ),
    Question(
        "MultiHeadAttention with d_out = 768: what changes from 1 head to 12 heads?",
        {
            "a": (False, "the projections keep their size; each head gets a slice of 64 numbers of them."),
            "b": (True, "the same 768 numbers per token are compared in 12 groups of 64: 12 patterns instead of one."),
            "c": (False, "the heads' outputs are joined to 12 · 64 = 768 numbers again."),
        },
    ),
)

self_test_3 = self_test("3", _QUESTIONS)
