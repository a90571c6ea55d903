"""Chapter 3's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers import MultiHeadAttention, MultiHeadAttentionWrapper, SelfAttention_v1, SelfAttention_v2
from tests import checkers

NAMES = ("W_query", "W_key", "W_value")


def copy_right(source: SelfAttention_v2, target: SelfAttention_v1) -> None:
    with torch.no_grad():
        for name in NAMES:
            getattr(target, name).copy_(getattr(source, name).weight.T)


def copy_with(pairs: dict[str, str], transpose: bool = True):
    def copy(source: SelfAttention_v2, target: SelfAttention_v1) -> SelfAttention_v1:
        for to, origin in pairs.items():
            weight = getattr(source, origin).weight
            setattr(target, to, nn.Parameter((weight.T if transpose else weight).detach().clone()))
        return target

    return copy


def spoil_source(source: SelfAttention_v2, target: SelfAttention_v1) -> None:
    copy_right(source, target)
    with torch.no_grad():
        source.W_query.weight.zero_()


def future(scores: torch.Tensor, diagonal: int = 1) -> torch.Tensor:
    return torch.ones_like(scores).triu(diagonal).bool()


def causal(scores: torch.Tensor) -> torch.Tensor:
    return torch.softmax(scores.masked_fill(future(scores), -torch.inf), dim=-1)


def renormalised(scores: torch.Tensor) -> torch.Tensor:
    weights = torch.softmax(scores, dim=-1).tril()
    return weights / weights.sum(dim=-1, keepdim=True)


def count(d_in: int, d_out: int, heads: int, bias: bool) -> int:
    return 3 * d_in * d_out + 3 * d_out * int(bias) + d_out**2 + d_out


def split(x: torch.Tensor, heads: int) -> torch.Tensor:
    batch, tokens, width = x.shape
    return x.view(batch, tokens, heads, width // heads).transpose(1, 2)


def wrapper(d_out: int = 1, heads: int = 2, d_in: int = 3, context: int = 6) -> MultiHeadAttentionWrapper:
    return MultiHeadAttentionWrapper(d_in, d_out, context, 0.0, heads)


RIGHT = [
    ("3.0", lambda query, inputs: inputs @ query),
    ("3.0", lambda query, inputs: [sum(a * b for a, b in zip(query, row, strict=True)) for row in inputs]),
    ("3.1", copy_right),
    ("3.1", copy_with(dict(zip(NAMES, NAMES, strict=True)))),
    ("3.2", wrapper()),
    ("3.3", MultiHeadAttention(768, 768, 1024, 0.1, 12)),
    ("3.3", MultiHeadAttention(768, 768, 1024, 0.0, 12, qkv_bias=True)),
    ("3.4", causal),
    ("3.4", renormalised),
    ("3.5", count),
    ("3.5", lambda *sizes: sum(p.numel() for p in MultiHeadAttention(*sizes[:2], 4, 0.0, *sizes[2:]).parameters())),
    ("3.6", split),
    ("3.6", lambda x, heads: torch.stack(x.chunk(heads, dim=-1), dim=1)),
]

# number, wrong answer, what the hint must speak of
WRONG = [
    ("3.0", lambda query, inputs: (inputs * query).sum(dim=0), "one score per word"),
    ("3.0", lambda query, inputs: inputs.T @ query, "wrong side"),
    ("3.0", lambda query, inputs: inputs * query, "add up"),
    ("3.0", lambda query, inputs: torch.softmax(inputs @ query, dim=0), "before any softmax"),
    ("3.0", lambda query, inputs: 2 * (inputs @ query), "expected"),
    ("3.0", lambda query, inputs: "scores", "tensor"),
    ("3.1", lambda source, target: target, "outputs differ"),
    ("3.1", copy_with(dict(zip(NAMES, NAMES, strict=True)), transpose=False), "order"),
    ("3.1", copy_with({"W_query": "W_key", "W_key": "W_query", "W_value": "W_value"}), "swapped"),
    ("3.1", copy_with({"W_query": "W_query", "W_key": "W_key"}), "outputs differ"),
    ("3.1", spoil_source, "source has changed"),
    ("3.2", 1, "module"),
    ("3.2", MultiHeadAttention(3, 2, 6, 0.0, 2), "Wrapper"),
    ("3.2", wrapper(d_out=2, heads=1), "two heads still"),
    ("3.2", wrapper(d_out=2), "each head contribute"),
    ("3.2", wrapper(context=2), "context_length"),
    ("3.3", 768, "module"),
    ("3.3", wrapper(), "MultiHeadAttention is expected"),
    ("3.3", MultiHeadAttention(768, 768, 1024, 0.1, 8), "12 heads"),
    ("3.3", MultiHeadAttention(768, 768, 256, 0.1, 12), "1,024"),
    ("3.3", MultiHeadAttention(768, 96, 1024, 0.1, 12), "all heads together"),
    ("3.4", lambda scores: torch.softmax(scores, dim=-1), "later word"),
    ("3.4", lambda scores: torch.softmax(scores, dim=-1).tril(), "no longer sum to 1"),
    ("3.4", lambda scores: torch.softmax(scores.tril(), dim=-1), "exp(0)"),
    ("3.4", lambda scores: torch.softmax(scores.masked_fill(future(scores, 0), -torch.inf), dim=-1), "itself"),
    ("3.4", lambda scores: torch.softmax(scores.masked_fill(future(scores), -torch.inf), dim=0), "columns"),
    ("3.4", lambda scores: torch.softmax(scores.masked_fill(future(scores).T, -torch.inf), dim=-1), "later word"),
    ("3.4", lambda scores: causal(scores)[0], "shape"),
    ("3.5", lambda d_in, d_out, heads, bias: 3 * d_in * d_out, "fourth layer"),
    ("3.5", lambda d_in, d_out, heads, bias: 3 * d_in * d_out + d_out**2, "has a bias"),
    ("3.5", lambda d_in, d_out, heads, bias: count(d_in, d_out, heads, False), "qkv_bias"),
    ("3.5", lambda d_in, d_out, heads, bias: heads * 3 * d_in * d_out + d_out**2 + d_out, "share"),
    ("3.5", lambda d_in, d_out, heads, bias: 7, "shape of each layer"),
    ("3.6", lambda x, heads: [1], "tensor"),
    ("3.6", lambda x, heads: x.view(len(x), x.shape[1], heads, -1), "in front of the tokens"),
    ("3.6", lambda x, heads: x.view(len(x), heads, x.shape[1], -1), "wrong places"),
    ("3.6", lambda x, heads: x, "shape"),
    ("3.6", lambda x, heads: split(x, heads).flip(1), "expected"),
]

GIVEAWAYS = {
    "3.0": ("inputs @ query",),
    "3.1": (".T", "transpose", "copy_("),
    "3.2": ("d_out=1", "d_out = 1"),
    "3.3": ("MultiHeadAttention(768",),
    "3.4": ("masked_fill", "triu", "keepdim"),
    "3.5": ("d_in * d_out", "d_out * d_out", "3 *", "d_out²"),
    "3.6": (".view(", "transpose(1, 2)"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS[number])
