"""Chapter 3's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from helpers import MultiHeadAttention, MultiHeadAttentionWrapper, SelfAttention_v1, SelfAttention_v2, checks
from tests import checkers

NAMES = ("W_query", "W_key", "W_value")


def attend(x, q, k, v, dim=-1, divide=None, mask=None):
    scores = (x @ q) @ (x @ k).T / (k.shape[1] ** 0.5 if divide is None else divide)
    weights = torch.softmax(scores, dim=dim)
    return (weights if mask is None else mask(weights)) @ (x @ v)


def attend_in_loops(x, q, k, v):
    queries, keys, values = x @ q, x @ k, x @ v
    rows = []
    for query in queries:
        exponentials = [float(torch.exp(query @ key / len(key) ** 0.5)) for key in keys]
        rows.append(sum(e / sum(exponentials) * value for e, value in zip(exponentials, values, strict=True)).tolist())
    return rows


def attend_in_numpy(x, q, k, v):
    x, q, k, v = (part.double().numpy() for part in (x, q, k, v))
    scores = np.exp((x @ q) @ (x @ k).T / np.sqrt(k.shape[1]))
    return scores / scores.sum(axis=1, keepdims=True) @ (x @ v)


def copy_right(source: SelfAttention_v2, target: SelfAttention_v1) -> None:
    with torch.no_grad():
        for name in NAMES:
            getattr(target, name).copy_(getattr(source, name).weight.T)


def copy_data(source: SelfAttention_v2, target: SelfAttention_v1) -> None:
    for name in NAMES:
        getattr(target, name).data = getattr(source, name).weight.detach().clone().T


def copy_with(pairs: dict[str, str], transpose: bool = True):
    def copy(source: SelfAttention_v2, target: SelfAttention_v1) -> SelfAttention_v1:
        for to, origin in pairs.items():
            weight = getattr(source, origin).weight
            setattr(target, to, nn.Parameter((weight.T if transpose else weight).detach().clone()))
        return target

    return copy


def copy_nothing_but_forward(source: SelfAttention_v2, target: SelfAttention_v1) -> None:
    target.forward = source.forward


def share_memory(source: SelfAttention_v2, target: SelfAttention_v1) -> None:
    for name in NAMES:
        setattr(target, name, nn.Parameter(getattr(source, name).weight.T))


def spoil_source(source: SelfAttention_v2, target: SelfAttention_v1) -> None:
    copy_right(source, target)
    with torch.no_grad():
        source.W_query.weight.zero_()


def unseen(scores: torch.Tensor, window: int) -> torch.Tensor:
    everything = torch.ones_like(scores)
    return (everything.triu(1) + everything.tril(-window)).bool()


def window_softmax(scores, window, fill=-torch.inf, dim=-1):
    return torch.softmax(scores.masked_fill(unseen(scores, window), fill), dim=dim)


def renormalised(scores, window, keepdim=True):
    weights = torch.softmax(scores, dim=-1).masked_fill(unseen(scores, window), 0.0)
    return weights / weights.sum(dim=-1, keepdim=keepdim)


def window_in_loops(scores, window):
    rows = []
    for i, row in enumerate(scores):
        seen = [j for j in range(len(row)) if i - window < j <= i]
        shares = torch.softmax(row[seen], dim=0).tolist()
        rows.append([shares[seen.index(j)] if j in seen else 0.0 for j in range(len(row))])
    return rows


def multiplied(scores, window):
    return torch.softmax(scores + unseen(scores, window) * -torch.inf, dim=-1)


def changes_the_future(attention, x):
    before = attention(x)
    for place in range(1, len(x)):
        other = x.clone()
        other[place:] = -other[place:] + 1
        if not torch.allclose(attention(other)[:place], before[:place], atol=1e-6):
            return False
    return True


def cuts_the_text(attention, x):
    whole = attention(x)
    return np.bool_(all(torch.allclose(attention(x[:n]), whole[:n], atol=1e-6) for n in range(1, len(x) + 1)))


def follows_gradients(attention, x):
    derivatives = torch.autograd.functional.jacobian(attention, x).abs().sum(dim=(1, 3))  # (T, T)
    return derivatives.triu(1).sum() == 0


def changes_the_last_word(attention, x):
    other = x.clone()
    other[-1] = 7.0
    return torch.allclose(attention(other)[:-1], attention(x)[:-1], atol=1e-6)


def looks_roughly(attention, x):
    other = x.clone()
    other[1:] += 0.1
    return torch.allclose(attention(other)[0], attention(x)[0], atol=0.01)


def compares_everything(attention, x):
    other = x.clone()
    other[-1] = 7.0
    return torch.allclose(attention(other), attention(x))


def wrapper(d_out: int = 1, heads: int = 2, d_in: int = 3, context: int = 6, **options) -> MultiHeadAttentionWrapper:
    return MultiHeadAttentionWrapper(d_in, d_out, context, 0.0, heads, **options)


class Pretender(nn.Module):
    """Looks like a wrapper of two heads and computes nothing of the kind."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, x):
        return x[..., :2]


def misplaced(heads, tokens, width):
    context = torch.arange(heads * tokens * width).view(1, heads, tokens, width)
    right = context.transpose(1, 2).reshape(1, tokens, heads * width)
    return int((right != context.reshape(1, tokens, heads * width)).sum())


def misplaced_in_loops(heads, tokens, width):
    wrong = [(head, token, number) for head in range(heads) for token in range(tokens) for number in range(width)]
    right = [(head, token, number) for token in range(tokens) for head in range(heads) for number in range(width)]
    return sum(a != b for a, b in zip(wrong, right, strict=True))


def misplaced_in_numpy(heads, tokens, width):
    context = np.arange(heads * tokens * width).reshape(heads, tokens, width)
    return np.count_nonzero(context.transpose(1, 0, 2).ravel() != context.ravel())


def merge_by_view(heads, tokens, width):
    context = torch.arange(heads * tokens * width).view(1, heads, tokens, width)
    right = context.transpose(1, 2).view(1, tokens, heads * width)
    return int((right != context.view(1, tokens, -1)).sum())


def look_back(attention, steps, factor=30.0, content=False):
    tokens = len(attention.mask)
    with torch.no_grad():
        if not content:
            attention.W_query.weight.zero_()
            attention.W_key.weight.zero_()
        for place in range(tokens):
            attention.W_key.weight[place, 3 + place] = 1.0
            if place >= steps:
                attention.W_query.weight[place - steps, 3 + place] = factor
    return attention


def look_back_by_matrices(attention, steps):
    tokens = len(attention.mask)
    shift = torch.diag(torch.ones(tokens - steps), diagonal=steps)
    nothing = torch.zeros(tokens, 3)
    attention.W_query.weight = nn.Parameter(50 * torch.cat((nothing, shift), dim=1))
    attention.W_key.weight = nn.Parameter(torch.cat((nothing, torch.eye(tokens)), dim=1))
    return attention


def look_back_by_keys(attention, steps):
    """The same with the places moved in the keys, and with the factor there."""
    tokens = len(attention.mask)
    shift = torch.diag(torch.ones(tokens - steps), diagonal=-steps)
    state = {name: torch.cat((torch.zeros(tokens, 3), part), dim=1) for name, part in (("W_query", torch.eye(tokens)),)}
    state["W_key"] = torch.cat((torch.zeros(tokens, 3), 40 * shift), dim=1)
    attention.load_state_dict({f"{name}.weight": part for name, part in state.items()}, strict=False)
    return attention


def look_at_content(attention, steps):
    tokens = len(attention.mask)
    with torch.no_grad():
        for layer, factor in ((attention.W_query, 300.0), (attention.W_key, 1.0)):
            layer.weight.copy_(factor * torch.eye(tokens, 3 + tokens))
            layer.weight[:, 3:] = 0.0
    return attention


def zero_queries(attention, steps):
    nn.init.zeros_(attention.W_query.weight)
    return attention


def count(d_in: int, d_out: int, heads: int, bias: bool) -> int:
    return 3 * d_in * d_out + 3 * d_out * int(bias) + d_out**2 + d_out


def count_by_building(d_in: int, d_out: int, heads: int, bias: bool) -> int:
    module = MultiHeadAttention(d_in, d_out, 4, 0.0, heads, bias)
    return sum(parameter.numel() for parameter in module.parameters())


RIGHT = [
    ("3.A", attend),
    ("3.A", attend_in_loops),
    ("3.A", attend_in_numpy),
    ("3.A", lambda *parts: attend(*(part.double() for part in parts))),
    ("3.1", copy_right),
    ("3.1", copy_data),
    ("3.1", copy_with(dict(zip(NAMES, NAMES, strict=True)))),
    ("3.B", window_softmax),
    ("3.B", renormalised),
    ("3.B", window_in_loops),
    ("3.B", lambda scores, window: window_softmax(scores.double(), window, -1e9)),
    ("3.C", changes_the_future),
    ("3.C", cuts_the_text),
    ("3.C", follows_gradients),
    ("3.2", wrapper()),
    ("3.2", wrapper(qkv_bias=True)),
    ("3.2", wrapper(context=1024).double()),
    ("3.D", misplaced),
    ("3.D", misplaced_in_loops),
    ("3.D", misplaced_in_numpy),
    ("3.E", look_back),
    ("3.E", look_back_by_matrices),
    ("3.E", look_back_by_keys),
    ("3.3", MultiHeadAttention(768, 768, 1024, 0.1, 12)),
    ("3.3", MultiHeadAttention(768, 768, 1024, 0.0, 12, qkv_bias=True)),
    ("3.3", MultiHeadAttention(768, 768, 1024, 0.0, 12).bfloat16()),
    ("3.F", count),
    ("3.F", count_by_building),
    ("3.F", lambda *sizes: np.int64(count(*sizes))),
]

# number, wrong answer, what the hint must speak of
WRONG = [
    ("3.A", lambda x, q, k, v: attend(x, q, k, v, divide=1), "not divided"),
    ("3.A", lambda x, q, k, v: attend(x, q, k, v, divide=k.shape[1]), "d_k itself"),
    ("3.A", lambda x, q, k, v: attend(x, q, k, v, divide=k.shape[0] ** 0.5), "root of d_in"),
    ("3.A", lambda x, q, k, v: attend(x, q, k, v, dim=0), "columns of weights"),
    ("3.A", lambda x, q, k, v: attend(x, k, q, v), "Queries and keys"),
    ("3.A", lambda x, q, k, v: attend(x, q, v, k), "Keys and values"),
    ("3.A", lambda x, q, k, v: torch.softmax((x @ q) @ (x @ k).T / k.shape[1] ** 0.5, -1) @ x, "mix the inputs"),
    ("3.A", lambda x, q, k, v: torch.softmax((x @ q) @ (x @ k).T / k.shape[1] ** 0.5, -1), "One step is left"),
    ("3.A", lambda x, q, k, v: attend(x, q, k, v, mask=torch.tril), "no mask yet"),
    ("3.A", lambda x, q, k, v: (x @ q) @ (x @ k).T / k.shape[1] ** 0.5 @ (x @ v), "where is the softmax"),
    ("3.A", lambda x, q, k, v: 2 * attend(x, q, k, v), "expected"),
    ("3.1", lambda source, target: target, "outputs differ"),
    ("3.1", copy_with(dict(zip(NAMES, NAMES, strict=True)), transpose=False), "order"),
    ("3.1", copy_with({"W_query": "W_key", "W_key": "W_query", "W_value": "W_value"}), "swapped"),
    ("3.1", copy_with({"W_query": "W_query", "W_key": "W_key"}), "outputs differ"),
    ("3.1", copy_nothing_but_forward, "outputs differ"),
    ("3.1", share_memory, "very tensor of the source"),
    ("3.1", spoil_source, "source has changed"),
    ("3.B", lambda scores, window: window_softmax(scores, len(scores)), "where does w come in"),
    ("3.B", lambda scores, window: window_softmax(scores, window + 1), "counts among the w"),
    ("3.B", lambda scores, window: window_softmax(scores, window - 1), "NaN"),
    ("3.B", multiplied, "a 0 was multiplied"),
    ("3.B", lambda scores, window: window_softmax(scores.T, window).T, "expected"),
    (
        "3.B",
        lambda scores, window: torch.softmax(scores.masked_fill(unseen(scores, window).T, -torch.inf), -1),
        "other",
    ),
    (
        "3.B",
        lambda scores, window: torch.softmax(
            scores.masked_fill(unseen(scores, window) & unseen(scores, window).T, -torch.inf), dim=-1
        ),
        "both sides",
    ),
    ("3.B", lambda scores, window: torch.softmax(scores, dim=-1), "nothing is masked"),
    ("3.B", lambda scores, window: window_softmax(scores, window, 0.0), "exp(0)"),
    ("3.B", lambda scores, window: window_softmax(scores, window, -30.0), "tiny, but not 0"),
    (
        "3.B",
        lambda scores, window: torch.softmax(scores, dim=-1).masked_fill(unseen(scores, window), 0.0),
        "no longer sum to 1",
    ),
    ("3.B", lambda scores, window: renormalised(scores, window, keepdim=False), "sums of all rows"),
    ("3.B", lambda scores, window: scores.masked_fill(unseen(scores, window), -torch.inf), "scores still"),
    ("3.B", lambda scores, window: window_softmax(scores, window).log(), "logarithms"),
    ("3.B", lambda scores, window: window_softmax(scores, window, dim=0), "columns"),
    ("3.B", lambda scores, window: window_softmax(scores / len(scores) ** 0.5, window), "No scaling"),
    ("3.B", lambda scores, window: window_softmax(scores, window)[0], "shape"),
    ("3.C", lambda attention, x: True, "without a mask"),
    ("3.C", lambda attention, x: False, "You say that it looks ahead"),
    ("3.C", changes_the_last_word, "anything but the last word"),
    ("3.C", looks_roughly, "You call it causal"),
    ("3.C", compares_everything, "You say that it looks ahead, and it does not: causal attention"),
    ("3.C", lambda attention, x: attention(x), "True or False"),
    ("3.C", lambda attention, x: changes_the_future(attention, x)[0], "TypeError"),
    ("3.2", 1, "module"),
    ("3.2", MultiHeadAttention(3, 2, 6, 0.0, 2), "Wrapper"),
    ("3.2", wrapper(d_out=2, heads=1), "two heads still"),
    ("3.2", wrapper(d_out=2), "each head contribute"),
    ("3.2", wrapper(context=2), "context_length"),
    ("3.2", Pretender(), "0 parameters"),
    ("3.D", lambda heads, tokens, width: heads * tokens * width - misplaced(heads, tokens, width), "right place"),
    ("3.D", lambda heads, tokens, width: tokens if 1 not in (heads, tokens) else 0, "count the numbers"),
    ("3.D", lambda heads, tokens, width: misplaced(heads, tokens, width) // width, "single numbers"),
    ("3.D", lambda heads, tokens, width: heads * tokens * width, "stay in their places"),
    ("3.D", lambda heads, tokens, width: (heads - 1) * tokens * width, "place by place"),
    ("3.D", lambda heads, tokens, width: misplaced(heads, tokens, width) or 1, "nothing can go astray"),
    ("3.E", lambda attention, steps: look_back(attention, 1), "looks most at word 2"),
    ("3.E", lambda attention, steps: look_back(attention, steps - 1), "looks most at word"),
    ("3.E", lambda attention, steps: look_back(attention, steps, factor=1.0), "larger"),
    ("3.E", lambda attention, steps: look_back(attention, steps, factor=6.0), "larger"),  # a weight of about 0.7
    ("3.E", lambda attention, steps: look_back(attention, steps, factor=0.3, content=True), "Word"),
    ("3.E", look_at_content, "first three numbers"),
    ("3.E", zero_queries, "fit any of the keys"),
    ("3.E", lambda attention, steps: attention.W_query.weight, "Return the attention module"),
    ("3.3", 768, "module"),
    ("3.3", wrapper(), "MultiHeadAttention is expected"),
    ("3.3", MultiHeadAttention(768, 768, 1024, 0.1, 8), "12 heads"),
    ("3.3", MultiHeadAttention(768, 768, 256, 0.1, 12), "1,024"),
    ("3.3", MultiHeadAttention(768, 96, 1024, 0.1, 12), "all heads together"),
    ("3.F", lambda d_in, d_out, heads, bias: 3 * (d_in + bias) * d_out, "fourth layer"),
    ("3.F", lambda d_in, d_out, heads, bias: count(d_in, d_out, heads, bias) - d_out, "has a bias"),
    ("3.F", lambda d_in, d_out, heads, bias: count(d_in, d_out, heads, False), "With qkv_bias"),
    ("3.F", lambda d_in, d_out, heads, bias: 3 * heads * (d_in + bias) * d_out + d_out**2 + d_out, "share"),
    ("3.F", lambda d_in, d_out, heads, bias: count(d_out, d_out, heads, bias), "as large as d_out"),
    ("3.F", lambda d_in, d_out, heads, bias: 2_360_064, "shape of each layer"),
    ("3.F", lambda d_in, d_out, heads, bias: str(count(d_in, d_out, heads, bias)), "not str"),
]

GIVEAWAYS = {
    "3.A": ("x @", "** 0.5", "softmax("),
    "3.1": (".T", "transpose", "copy_("),
    "3.B": ("masked_fill", "triu", "tril", "keepdim"),
    "3.C": ("allclose", ".clone("),
    "3.2": ("d_out=1", "d_out = 1"),
    "3.D": (".transpose(", ".reshape("),
    "3.E": ("torch.eye", "diag", "zero_("),
    "3.3": ("MultiHeadAttention(768",),
    "3.F": ("d_in * d_out", "d_out * d_out", "3 *", "d_out²"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS[number])


@pytest.mark.parametrize(
    ("number", "answer"), [("3.A", lambda x, q, k, v: attend(x, q.T, k, v)), ("3.D", merge_by_view)]
)
def test_answers_that_stop(number, answer):
    checkers.refuses(number, answer, "Your answer stopped with RuntimeError")


def test_module_without_its_output_layer():
    module = MultiHeadAttention(768, 768, 1024, 0.1, 12)
    module.out_proj = nn.Identity()
    checkers.fails(checks.exercise_3_3(module), "1,769,472 parameters")


def test_a_hint_is_given_only_if_the_slip_explains_every_case():
    """Right for one case and wrong for another is not the slip that the first case looks like."""

    def now_and_then(x, q, k, v):
        return attend(x, q, k, v, divide=1 if len(x) == 6 else None)

    checkers.fails(checks.exercise_3_a(now_and_then), "expected", "got")
