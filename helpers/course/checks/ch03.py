"""Checkers for chapter 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...attention import SelfAttention_v1, SelfAttention_v2
from ._core import brief, call, exercise, expect, expect_close, expect_kind, read_number, read_tensor, same, self_test


@exercise("3.0", "attention_scores(query, inputs)")
def exercise_3_0(answer: Callable) -> str:
    """`answer(query, inputs)` gives the scores (T,) of a query (d,) with each row of inputs (T, d)."""
    generator = torch.Generator().manual_seed(30)
    for tokens, width in ((4, 4), (6, 3), (2, 5), (1, 7), (9, 2)):
        query = torch.randn(width, generator=generator)
        inputs = torch.randn(tokens, width, generator=generator)
        scores = inputs @ query
        slips = [
            (
                (inputs * query).sum(dim=0),
                "You summed down the words, not along each word's numbers: there must be one score per word.",
            ),
            (torch.softmax(scores, dim=0), "These are weights already: the scores are expected, before any softmax."),
            (
                inputs * query,
                "You multiplied, but did not add up: a dot product sums its products into one number per word.",
            ),
        ]
        if tokens == width:
            hint = "You multiplied by the wrong side of the matrix: each row is a word, each column a place."
            slips.append((query @ inputs, hint))
        got = answer(query.clone(), inputs.clone())
        expect_close(got, scores, f"Tried with {tokens} words of {width} numbers each.", slips)
    return "One dot product per word, and it works for any number of words and any width."


@exercise("3.1", "copy_weights(source, target)", may_return_none=True)
def exercise_3_1(answer: Callable) -> str:
    """`answer(source, target)` copies the weights of a SelfAttention_v2 into a SelfAttention_v1."""
    for d_in, d_out in ((4, 4), (3, 2), (5, 7)):
        source, target = SelfAttention_v2(d_in, d_out), SelfAttention_v1(d_in, d_out)
        x = torch.randn(6, d_in)
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
        got = call(target, x)
        expect_close(got, source(x), f"Tried with d_in={d_in}, d_out={d_out}; the two outputs differ.")
    return (
        "Both modules now give the same output. A linear layer stores its weights as (d_out, d_in) and computes "
        "x @ weight.T, so each matrix has to be turned over on its way into SelfAttention_v1."
    )


@exercise("3.2")
def exercise_3_2(answer: Any) -> str:
    """`answer` is a MultiHeadAttentionWrapper with two heads whose output has two numbers per token."""
    expect(isinstance(answer, torch.nn.Module), "Hand in the module: MultiHeadAttentionWrapper(...).")
    heads, kind = getattr(answer, "heads", None), type(answer).__name__
    expect(isinstance(heads, torch.nn.ModuleList), f"{kind} has no heads; a MultiHeadAttentionWrapper is expected.")
    expect(len(heads) == 2, f"There must be two heads still; yours has {len(heads)}.")
    generator = torch.Generator().manual_seed(32)
    for tokens in (1, 4, 6):
        x = torch.randn(2, tokens, 3, generator=generator)
        shape = read_tensor(call(answer, x)).shape
        expect(
            shape == (2, tokens, 2),
            f"For an input of shape {tuple(x.shape)} your output has shape {tuple(shape)}; it must end in 2. "
            f"How many numbers does each head contribute?",
        )
    return "The heads' outputs are joined end to end, so two heads of one number each give two numbers per token."


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
    x = torch.randn(1, 5, 768, dtype=answer.W_query.weight.dtype)
    expect(read_tensor(call(answer, x)).shape == x.shape, "Its output must have the shape of its input.")
    return "12 heads of 768 / 12 = 64 numbers each, for up to 1,024 tokens: GPT-2 small has twelve such modules."


@exercise("3.4", "causal_softmax(scores)")
def exercise_3_4(answer: Callable) -> str:
    """`answer(scores)` turns scores (T, T) into causal weights (T, T)."""
    generator = torch.Generator().manual_seed(34)
    for tokens in (4, 1, 2, 7, 6):
        scores = 2 * torch.randn(tokens, tokens, generator=generator)
        future = torch.triu(torch.ones(tokens, tokens, dtype=torch.bool), diagonal=1)
        expected = torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)
        got = read_tensor(answer(scores.clone()))
        if got.shape == expected.shape and tokens > 1:
            expect(
                not torch.isnan(got).any(),
                "There are NaNs: a row in which every score is −∞ has no softmax. The word itself must stay visible.",
            )
            expect(
                not same(got, torch.softmax(scores.masked_fill(future, 0.0), dim=-1)),
                "A masked score of 0 still counts, since exp(0) is 1. Which score has an exponential of 0?",
            )
            expect(
                float(got[future].abs().max()) < 1e-6,
                "Some weight falls on a later word: every entry to the right of the diagonal must be zero.",
            )
            expect(
                not same(got, torch.softmax(scores, dim=-1).masked_fill(future, 0.0)),
                "The later words are zero now, but the rows no longer sum to 1. What is missing after the masking, or "
                "what should be masked before the softmax instead?",
            )
            expect(
                not same(got.sum(dim=0), torch.ones(tokens)),
                "Your columns sum to 1 where the rows should: along which dimension is the softmax taken?",
            )
        expect_close(got, expected, f"Tried with {tokens} words.")
    return "Zero for every later word, rows that sum to 1, and the words left over share as their scores say."


@exercise("3.5", "count_parameters(d_in, d_out, num_heads, qkv_bias)")
def exercise_3_5(answer: Callable) -> str:
    """`answer(d_in, d_out, num_heads, qkv_bias)` counts the parameters of a MultiHeadAttention."""
    cases = ((4, 6, 2, False), (3, 2, 2, True), (8, 8, 4, False), (768, 768, 12, False), (5, 9, 3, True))
    for d_in, d_out, heads, bias in cases:
        got = read_number(answer(d_in, d_out, heads, bias))
        qkv, out = 3 * d_in * d_out + 3 * d_out * bias, d_out * d_out + d_out
        case = f"For d_in={d_in}, d_out={d_out}, num_heads={heads}, qkv_bias={bias} you count {brief(got)}."
        slips = [
            (qkv, "A fourth layer comes after the heads have been merged: its parameters are missing."),
            (qkv + d_out * d_out, "The last layer has a bias, which qkv_bias says nothing about."),
            (3 * d_in * d_out + out, "With qkv_bias the three projections have biases too."),
            (heads * qkv + out, "The heads share the projections: each takes a slice, and more heads cost no more."),
        ]
        layers = "Write down the shape of each layer, with its bias if it has one."
        expect_close(got, qkv + out, case, slips, otherwise=layers)
    return (
        "Three projections of d_in · d_out and an output layer of d_out · d_out + d_out, plus 3 · d_out if there are "
        "biases. The number of heads does not matter: they split what is there."
    )


@exercise("3.6", "split_heads(x, num_heads)")
def exercise_3_6(answer: Callable) -> str:
    """`answer(x, num_heads)` turns (B, T, C) into (B, H, T, C / H)."""
    generator = torch.Generator().manual_seed(36)
    for batch, tokens, heads, width in ((2, 3, 4, 5), (1, 3, 2, 2), (3, 1, 2, 4), (2, 4, 4, 1), (2, 5, 1, 3)):
        x = torch.randn(batch, tokens, heads * width, generator=generator)
        got = answer(x.clone(), heads)
        expect_kind(got, torch.Tensor, "A tensor")
        split = x.view(batch, tokens, heads, width)
        expect(
            tokens == heads or got.shape != split.shape,
            f"Your result has shape {tuple(got.shape)}, that is (B, T, H, D): the numbers are shared out, but the "
            f"heads are not yet in front of the tokens.",
        )
        expect(
            1 in (tokens, heads) or not same(got, x.view(batch, heads, tokens, width)),
            "The shape is right, the numbers are not: reshaping straight to (B, H, T, D) cuts the list of numbers "
            "in the wrong places, and a head gets whole tokens. Which dimension can be cut in two safely?",
        )
        expect_close(got, split.transpose(1, 2), f"Tried with an input of shape {tuple(x.shape)} and {heads} heads.")
    return "Cut the last dimension first, then move the heads forward: no number changes its token on the way."


self_test_3 = self_test("3", "ch03")
