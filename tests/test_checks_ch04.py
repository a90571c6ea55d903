"""The checkers of chapter 4: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn as nn

from helpers import GPT_CONFIG_124M, GPT_SIZES, GPTModel, TransformerBlock, checks, gpt_config
from helpers.course.checks import ch04
from helpers.course.figures import ch04 as figures
from tests.checkers import fails


@pytest.mark.parametrize("number", range(7))
def test_no_answer_is_no_failure(number):
    assert getattr(checks, f"exercise_4_{number}")(None).passed is None
    assert checks.EXERCISES[f"4.{number}"](...).passed is None


@pytest.mark.parametrize("number", [0, 3, 4, 5, 6])
def test_a_value_in_place_of_a_function(number):
    fails(getattr(checks, f"exercise_4_{number}")(3), "function itself")


# 4.0


def normalize(x, eps, unbiased=False, dim=-1, divide=True, root=True, centre=True):
    mean = x.mean(dim=dim, keepdim=True)
    var = x.var(dim=dim, keepdim=True, unbiased=unbiased) + eps
    return (x - mean if centre else x) / (torch.sqrt(var) if root else var) if divide else x - mean


def test_4_0_right():
    state = torch.get_rng_state()
    assert checks.exercise_4_0(normalize)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda x, eps: normalize(x, eps, unbiased=True), "unbiased"),
        (lambda x, eps: normalize(x, eps, root=False), "square root"),
        (lambda x, eps: normalize(x, eps, divide=False), "variance is not 1"),
        (lambda x, eps: normalize(x, eps, centre=False), "mean is still"),
        (lambda x, eps: (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + eps), "whole tensor"),
        (lambda x, eps: normalize(x, eps, dim=0), "dimension 0"),
        (lambda x, eps: normalize(x, 0.0), "NaN"),
        (lambda x, eps: normalize(x, 1e-5), "eps=0.5"),
        (lambda x, eps: x * 2, "differs"),
        (lambda x, eps: x.tolist(), "not list"),
        (lambda x, eps: x / "a", "TypeError"),
    ],
)
def test_4_0_wrong(wrong, word):
    fails(checks.exercise_4_0(wrong), word)


# 4.1

FEED, ATTENTION = 4_722_432, 2_360_064


def test_4_1_right():
    assert checks.exercise_4_1((FEED, ATTENTION))
    assert checks.exercise_4_1([FEED, ATTENTION])


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ((ATTENTION, FEED), "other way round"),
        ((12 * FEED, 12 * ATTENTION), "twelve blocks"),
        ((FEED, 12 * ATTENTION), "twelve blocks"),
        ((8 * 768**2, ATTENTION), "biases"),
        ((FEED // 2, ATTENTION), "one of its two"),
        ((FEED, 3 * 768**2), "one more linear layer"),
        ((FEED, 4 * 768**2), "has a bias"),
        ((FEED, ATTENTION + 3 * 768), "qkv_bias"),
        ((FEED + 1, ATTENTION), "feed-forward count"),
        ((FEED, ATTENTION - 1), "attention count"),
        (FEED, "Two numbers"),
        ((FEED,), "Two numbers"),
    ],
)
def test_4_1_wrong(answer, word):
    verdict = checks.exercise_4_1(answer)
    fails(verdict, word)
    assert_hides(verdict, FEED, ATTENTION)


def assert_hides(verdict, *numbers) -> None:
    plain = verdict.message.replace(",", "").replace("_", "")
    for number in numbers:
        assert str(number) not in plain


# 4.2

LARGER = {
    "355M": (406_212_608, 354_749_440, 1549.578125),
    "774M": (838_220_800, 773_891_840, 3197.558594),
    "1558M": (1_637_792_000, 1_557_380_800, 6247.680664),
}


def test_4_2_right():
    assert checks.exercise_4_2(LARGER)
    assert checks.exercise_4_2({size: (n, tied, round(mb, 2)) for size, (n, tied, mb) in LARGER.items()})


@pytest.mark.parametrize(
    ("size", "entry", "word"),
    [
        ("355M", None, "no entry"),
        ("355M", (1, 2), "three numbers"),
        ("774M", (163_009_536, 124_412_160, 621.83), "124M model"),
        ("774M", (838_220_801, 773_891_840, 3197.56), "first number"),
        ("774M", (838_220_800, 838_220_800, 3197.56), "smaller"),
        ("774M", (838_220_800, 773_891_841, 3197.56), "second number"),
        ("1558M", (1_637_792_000, 1_557_380_800, 1_637_792_000 * 4 / 1e6), "1024"),
        ("1558M", (1_637_792_000, 1_557_380_800, 1_557_380_800 * 4 / 2**20), "tied weights"),
        ("1558M", (1_637_792_000, 1_557_380_800, 3123.8), "4 bytes"),
    ],
)
def test_4_2_wrong(size, entry, word):
    answer = {**LARGER, size: entry}
    if entry is None:
        del answer[size]
    verdict = checks.exercise_4_2(answer)
    fails(verdict, size, word)
    assert_hides(verdict, *LARGER[size][:2], "6247", "3197", "1549")


def test_4_2_wants_a_dictionary():
    fails(checks.exercise_4_2([1, 2, 3]), "dictionary")


# 4.3


class ThreeRates(GPTModel):
    """The three rates, with slips to choose from."""

    attn, shortcut, emb = "drop_rate_attn", "drop_rate_shortcut", "drop_rate_emb"

    def __init__(self, cfg):
        super().__init__({**cfg, "drop_rate": cfg[self.attn]})
        self.drop_emb = nn.Dropout(cfg[self.emb])
        for block in self.trf_blocks:
            block.drop_shortcut = nn.Dropout(cfg[self.shortcut])


def test_4_3_right():
    state = torch.get_rng_state()
    assert checks.exercise_4_3(ThreeRates)
    assert torch.equal(state, torch.get_rng_state())


def test_4_3_swapped_rates():
    fails(checks.exercise_4_3(type("M", (ThreeRates,), {"attn": "drop_rate_emb"})), "inside MultiHeadAttention")
    fails(checks.exercise_4_3(type("M", (ThreeRates,), {"shortcut": "drop_rate_attn"})), "drop_rate_attn")
    fails(checks.exercise_4_3(type("M", (ThreeRates,), {"emb": "drop_rate_shortcut"})), "after the embeddings")


def test_4_3_still_reads_the_old_entry():
    fails(checks.exercise_4_3(GPTModel), "cfg['drop_rate']")


def test_4_3_fixed_rate():
    class Fixed(ThreeRates):
        def __init__(self, cfg):
            super().__init__(cfg)
            self.drop_emb = nn.Dropout(0.1)

    fails(checks.exercise_4_3(Fixed), "p=0.1")


def test_4_3_a_dropout_that_is_missing_or_unused():
    class Missing(ThreeRates):
        def __init__(self, cfg):
            super().__init__(cfg)
            self.drop_emb = nn.Identity()

    class Unused(ThreeRates):
        def forward(self, in_idx):
            positions = torch.arange(in_idx.shape[1])
            x = self.trf_blocks(self.tok_emb(in_idx) + self.pos_emb(positions))
            return self.out_head(self.final_norm(x))

    fails(checks.exercise_4_3(Missing), "no Dropout after the embeddings")
    fails(checks.exercise_4_3(Unused), "only drop_rate_emb above 0", "not used")


def test_4_3_other_slips():
    class Short(ThreeRates):
        def forward(self, in_idx):
            return super().forward(in_idx)[:, -1]

    class Sticky(ThreeRates):
        def forward(self, in_idx):
            return nn.functional.dropout(super().forward(in_idx), 0.1, self.training)

    class OneBlock(ThreeRates):
        def __init__(self, cfg):
            super().__init__({**cfg, "n_layers": 1})

    fails(checks.exercise_4_3(Short), "shape")
    fails(checks.exercise_4_3(Sticky), "rate of its own")
    fails(checks.exercise_4_3(OneBlock), "2 blocks")
    fails(checks.exercise_4_3(lambda cfg: 5), "nn.Module")


# 4.4


def block_parameters(cfg, norms=4, ff_biases=5, out=1, qkv=None):
    c = cfg["emb_dim"]
    qkv = cfg["qkv_bias"] if qkv is None else qkv
    return 3 * c * c + 3 * c * qkv + out * (c * c + c) + 8 * c * c + ff_biases * c + norms * c


def test_4_4_right():
    assert checks.exercise_4_4(block_parameters)


@pytest.mark.parametrize(
    ("slip", "word"),
    [
        ({"norms": 0}, "two LayerNorms"),
        ({"norms": 2}, "Only one LayerNorm"),
        ({"ff_biases": 0}, "feed-forward layers are missing"),
        ({"out": 0}, "output projection is missing"),
        ({"qkv": False}, "qkv_bias=True"),
        ({"qkv": True}, "qkv_bias=False"),
        ({"norms": 3}, "projection has a bias"),
        ({"norms": 9}, "expected"),
    ],
)
def test_4_4_wrong(slip, word):
    fails(checks.exercise_4_4(lambda cfg: block_parameters(cfg, **slip)), word)


def test_4_4_more_slips():
    fails(checks.exercise_4_4(lambda cfg: cfg["n_layers"] * block_parameters(cfg)), "one is asked for")
    fails(checks.exercise_4_4(lambda cfg: float(block_parameters(cfg))), "whole number")


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


def test_4_5_right():
    assert checks.exercise_4_5(generate_until)


@pytest.mark.parametrize(
    ("slip", "word"),
    [
        ({"keep": True}, "stop token is in your result"),
        ({"crop": False}, "too many"),
        ({"first": True}, "expected"),
        ({"stop": False}, "goes on"),
    ],
)
def test_4_5_wrong(slip, word):
    fails(checks.exercise_4_5(lambda *given: generate_until(*given, **slip)), word)


def test_4_5_more_slips():
    def cuts_afterwards(model, idx, max_new_tokens, context_size, stop_id):
        full = generate_until(model, idx, max_new_tokens, context_size, stop_id, stop=False)
        new = full[0, idx.shape[1] :].tolist()
        end = new.index(stop_id) if stop_id in new else len(new)
        return full[:, : idx.shape[1] + end]

    def in_place(model, idx, max_new_tokens, context_size, stop_id):
        result = generate_until(model, idx, max_new_tokens, context_size, stop_id)
        idx += 1
        return result

    fails(checks.exercise_4_5(cuts_afterwards), "called")
    fails(checks.exercise_4_5(in_place), "changed")
    fails(checks.exercise_4_5(lambda *given: [1]), "not list")
    fails(checks.exercise_4_5(lambda *given: generate_until(*given)[0]), "shape")


# 4.6


def overall_slopes(slopes):
    return math.prod(slopes), math.prod(1 + slope for slope in slopes)


def test_4_6_right():
    assert checks.exercise_4_6(overall_slopes)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda s: overall_slopes(s)[::-1], "other way round"),
        (lambda s: (sum(s), overall_slopes(s)[1]), "product"),
        (lambda s: (math.prod(s), 1 + math.prod(s)), "whole chain"),
        (lambda s: (math.prod(s), 1 + sum(s)), "slope of"),
        (lambda s: math.prod(s), "Two numbers"),
    ],
)
def test_4_6_wrong(wrong, word):
    fails(checks.exercise_4_6(wrong), word)


# The self-test and the formula behind the figures


def test_every_option_of_the_self_test_is_explained():
    for question in ch04._QUESTIONS:
        assert list(question.options) == ["a", "b", "c"]
        assert sum(right for right, _ in question.options.values()) == 1
        assert all(len(why.split()) > 8 for _, why in question.options.values())


def test_self_test_is_graded():
    right = [next(k for k, (ok, _) in q.options.items() if ok) for q in ch04._QUESTIONS]
    assert checks.self_test_4(*right)
    assert checks.self_test_4().passed is None
    assert checks.self_test_4(q1="d").passed is False
    for letters in itertools.product("abc", repeat=2):
        verdict = checks.self_test_4(*letters, *right[2:])
        assert verdict.passed is (list(letters) == right[:2])


@pytest.mark.parametrize("size", GPT_SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_the_formula_counts_what_a_model_has(size, bias):
    cfg = gpt_config(size, qkv_bias=bias)
    with torch.device("meta"):
        model = GPTModel(cfg)
        block = TransformerBlock(cfg)
    parts = figures.count_parameters(cfg)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    in_block = sum(p.numel() for p in block.parameters()) * cfg["n_layers"]
    assert parts["attention"] + parts["feed-forward"] + parts["LayerNorms"] - 2 * cfg["emb_dim"] == in_block


def test_the_published_counts():
    assert sum(figures.count_parameters(GPT_CONFIG_124M).values()) == 163_009_536
