"""The checkers of chapter 4: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn as nn

from helpers import GPT_CONFIG_124M, GPT_SIZES, GPTModel, TransformerBlock, checks, gpt_config
from helpers.gpt import count_parameters
from tests import checkers

RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# 4.0


def normalize(x, eps, unbiased=False, dim=-1, divide=True, root=True, centre=True):
    mean = x.mean(dim=dim, keepdim=True)
    var = x.var(dim=dim, keepdim=True, unbiased=unbiased) + eps
    return (x - mean if centre else x) / (torch.sqrt(var) if root else var) if divide else x - mean


RIGHT += [("4.0", normalize)]

WRONG += [
    ("4.0", lambda x, eps: normalize(x, eps, unbiased=True), "unbiased"),
    ("4.0", lambda x, eps: normalize(x, eps, root=False), "square root"),
    ("4.0", lambda x, eps: normalize(x, eps, divide=False), "variance is not 1"),
    ("4.0", lambda x, eps: normalize(x, eps, centre=False), "mean is still"),
    ("4.0", lambda x, eps: (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + eps), "whole tensor"),
    ("4.0", lambda x, eps: normalize(x, eps, dim=0), "dimension 0"),
    ("4.0", lambda x, eps: normalize(x, 0.0), "NaN"),
    ("4.0", lambda x, eps: normalize(x, 1e-5), "eps=0.5"),
    ("4.0", lambda x, eps: x * 2, "differs"),
    ("4.0", lambda x, eps: x.tolist(), "not list"),
    ("4.0", lambda x, eps: x / "a", "TypeError"),
]


# 4.1

FEED, ATTENTION = 4_722_432, 2_360_064


RIGHT += [("4.1", (FEED, ATTENTION)), ("4.1", [FEED, ATTENTION])]

WRONG += [
    ("4.1", (ATTENTION, FEED), "other way round"),
    ("4.1", (12 * FEED, 12 * ATTENTION), "twelve blocks"),
    ("4.1", (FEED, 12 * ATTENTION), "twelve blocks"),
    ("4.1", (8 * 768**2, ATTENTION), "biases"),
    ("4.1", (FEED // 2, ATTENTION), "one of its two"),
    ("4.1", (FEED, 3 * 768**2), "one more linear layer"),
    ("4.1", (FEED, 4 * 768**2), "has a bias"),
    ("4.1", (FEED, ATTENTION + 3 * 768), "qkv_bias"),
    ("4.1", (FEED + 1, ATTENTION), "Feed-forward: The count"),
    ("4.1", (FEED, ATTENTION - 1), "Attention: The count"),
    ("4.1", FEED, "Two numbers"),
    ("4.1", (FEED,), "Two numbers"),
]


# 4.2

LARGER = {
    "355M": (406_212_608, 354_749_440, 1549.578125),
    "774M": (838_220_800, 773_891_840, 3197.558594),
    "1558M": (1_637_792_000, 1_557_380_800, 6247.680664),
}


RIGHT += [("4.2", LARGER), ("4.2", {size: (n, tied, round(mb, 2)) for size, (n, tied, mb) in LARGER.items()})]


def with_entry(size, *entry):
    return {**LARGER, size: entry}


WRONG += [
    ("4.2", [1, 2, 3], "dictionary"),
    ("4.2", {"774M": LARGER["774M"]}, 'no entry "355M"'),
    ("4.2", with_entry("355M", 1, 2), "355M: three numbers"),
    ("4.2", with_entry("774M", 163_009_536, 124_412_160, 621.83), "774M: that is the 124M model"),
    ("4.2", with_entry("774M", 838_220_801, 773_891_840, 3197.56), "774M: the first number"),
    ("4.2", with_entry("774M", 838_220_800, 838_220_800, 3197.56), "smaller"),
    ("4.2", with_entry("774M", 838_220_800, 773_891_841, 3197.56), "774M: the second number"),
    ("4.2", with_entry("1558M", 1_637_792_000, 1_557_380_800, 1_637_792_000 * 4 / 1e6), "1024"),
    ("4.2", with_entry("1558M", 1_637_792_000, 1_557_380_800, 1_557_380_800 * 4 / 2**20), "tied weights"),
    (
        "4.2",
        with_entry("1558M", 1_637_792_000, 1_557_380_800, 3123.8),
        "1558M: the memory is off. A float32 takes 4",
    ),
]


# 4.3


class ThreeRates(GPTModel):
    """The three rates, with slips to choose from."""

    attn, shortcut, emb = "drop_rate_attn", "drop_rate_shortcut", "drop_rate_emb"

    def __init__(self, cfg):
        super().__init__({**cfg, "drop_rate": cfg[self.attn]})
        self.drop_emb = nn.Dropout(cfg[self.emb])
        for block in self.trf_blocks:
            block.drop_shortcut = nn.Dropout(cfg[self.shortcut])


RIGHT += [("4.3", ThreeRates)]


class Fixed(ThreeRates):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop_emb = nn.Dropout(0.1)


class Missing(ThreeRates):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop_emb = nn.Identity()


class Unused(ThreeRates):
    def forward(self, in_idx):
        positions = torch.arange(in_idx.shape[1])
        x = self.trf_blocks(self.tok_emb(in_idx) + self.pos_emb(positions))
        return self.out_head(self.final_norm(x))


class Short(ThreeRates):
    def forward(self, in_idx):
        return super().forward(in_idx)[:, -1]


class Sticky(ThreeRates):
    def forward(self, in_idx):
        return nn.functional.dropout(super().forward(in_idx), 0.1, self.training)


class OneBlock(ThreeRates):
    def __init__(self, cfg):
        super().__init__({**cfg, "n_layers": 1})


def three_rates(**slip):
    return type("GPTModelThreeRates", (ThreeRates,), slip)


WRONG += [
    ("4.3", three_rates(attn="drop_rate_emb"), "inside MultiHeadAttention"),
    ("4.3", three_rates(shortcut="drop_rate_attn"), "drop_rate_attn"),
    ("4.3", three_rates(emb="drop_rate_shortcut"), "after the embeddings"),
    ("4.3", GPTModel, "cfg['drop_rate']"),
    ("4.3", Fixed, "p=0.1"),
    ("4.3", Missing, "no Dropout after the embeddings"),
    (
        "4.3",
        Unused,
        "only drop_rate_emb above 0, training and evaluation give the same logits",
    ),
    ("4.3", Short, "shape"),
    ("4.3", Sticky, "rate of its own"),
    ("4.3", OneBlock, "2 blocks"),
    ("4.3", lambda cfg: 5, "nn.Module"),
]


# 4.4


def block_parameters(cfg, norms=4, ff_biases=5, out=1, qkv=None):
    c = cfg["emb_dim"]
    qkv = cfg["qkv_bias"] if qkv is None else qkv
    return 3 * c * c + 3 * c * qkv + out * (c * c + c) + 8 * c * c + ff_biases * c + norms * c


RIGHT += [("4.4", block_parameters)]

WRONG += [
    ("4.4", functools.partial(block_parameters, norms=0), "two LayerNorms"),
    ("4.4", functools.partial(block_parameters, norms=2), "Only one LayerNorm"),
    ("4.4", functools.partial(block_parameters, ff_biases=0), "feed-forward layers are missing"),
    ("4.4", functools.partial(block_parameters, out=0), "output projection is missing"),
    ("4.4", functools.partial(block_parameters, qkv=False), "qkv_bias=True"),
    ("4.4", functools.partial(block_parameters, qkv=True), "qkv_bias=False"),
    ("4.4", functools.partial(block_parameters, norms=3), "projection has a bias"),
    ("4.4", functools.partial(block_parameters, norms=9), "expected"),
    ("4.4", lambda cfg: cfg["n_layers"] * block_parameters(cfg), "one is asked for"),
    ("4.4", lambda cfg: float(block_parameters(cfg)), "whole number"),
]


# 4.5


def generate_until(model, idx, max_new_tokens, context_size, stop_id, keep=False, crop=True, first=False, stop=True):
    for _ in range(max_new_tokens):
        logits = model(idx[:, -context_size:] if crop else idx)
        new = logits[:, 0 if first else -1].argmax(dim=-1, keepdim=True)
        if stop and new.item() == stop_id and not keep:
            break
        idx = torch.cat((idx, new), dim=1)
        if stop and new.item() == stop_id:
            break
    return idx


RIGHT += [("4.5", generate_until)]


def cuts_afterwards(model, idx, max_new_tokens, context_size, stop_id):
    full = generate_until(model, idx, max_new_tokens, context_size, stop_id, stop=False)
    new = full[0, idx.shape[1] :].tolist()
    end = new.index(stop_id) if stop_id in new else len(new)
    return full[:, : idx.shape[1] + end]


def in_place(model, idx, max_new_tokens, context_size, stop_id):
    result = generate_until(model, idx, max_new_tokens, context_size, stop_id)
    idx += 1
    return result


WRONG += [
    ("4.5", functools.partial(generate_until, keep=True), "stop token is in your result"),
    ("4.5", functools.partial(generate_until, crop=False), "too many"),
    ("4.5", functools.partial(generate_until, first=True), "expected"),
    ("4.5", functools.partial(generate_until, stop=False), "goes on"),
    ("4.5", cuts_afterwards, "called"),
    ("4.5", in_place, "changed"),
    ("4.5", lambda *given: [1], "not list"),
    ("4.5", lambda *given: generate_until(*given)[0], "shape"),
]


def test_4_5_the_cases_hold_both_kinds():
    """In some of them the model stops the text, in others max_new_tokens does."""
    new = []

    def watch(model, idx, max_new_tokens, context_size, stop_id):
        result = generate_until(model, idx, max_new_tokens, context_size, stop_id)
        new.append(result.shape[1] - idx.shape[1] < max_new_tokens)
        return result

    assert checks.exercise_4_5(watch)
    assert 0 < sum(new) < len(new)


# 4.6


def overall_slopes(slopes):
    return math.prod(slopes), math.prod(1 + slope for slope in slopes)


RIGHT += [("4.6", overall_slopes)]

WRONG += [
    ("4.6", lambda s: overall_slopes(s)[::-1], "other way round"),
    ("4.6", lambda s: (sum(s), overall_slopes(s)[1]), "product"),
    ("4.6", lambda s: (math.prod(s), 1 + math.prod(s)), "whole chain"),
    ("4.6", lambda s: (math.prod(s), 1 + sum(s)), "slope of"),
    ("4.6", lambda s: math.prod(s), "Two numbers"),
]


def spelled(*numbers):
    """Whole numbers in the ways that a message might give them away."""
    return [form for n in numbers for form in (str(n), f"{n:,}", f"{n:_}")]


GIVEAWAYS = {
    "4.1": spelled(FEED, ATTENTION),
    "4.2": [*spelled(*(n for entry in LARGER.values() for n in entry[:2])), "6247", "3197", "1549"],
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))


# The formula behind the figures


@pytest.mark.parametrize("size", GPT_SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_the_formula_counts_what_a_model_has(size, bias):
    cfg = gpt_config(size, qkv_bias=bias)
    with torch.device("meta"):
        model = GPTModel(cfg)
        block = TransformerBlock(cfg)
    parts = count_parameters(cfg)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    in_block = sum(p.numel() for p in block.parameters()) * cfg["n_layers"]
    assert parts["attention"] + parts["feed-forward"] + parts["LayerNorms"] - 2 * cfg["emb_dim"] == in_block


def test_the_published_counts():
    assert sum(count_parameters(GPT_CONFIG_124M).values()) == 163_009_536
