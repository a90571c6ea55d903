"""The checkers of chapter 4: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from helpers import GPTModel, LayerNorm, MultiHeadAttention, TransformerBlock, checks
from tests import checkers

RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# 4.A


def normalize(x, eps, unbiased=False, dim=-1, divide=True, root=True, centre=True):
    count = x.shape[dim] - unbiased
    mean = x.mean(dim=dim, keepdim=True)
    var = ((x - mean) ** 2).sum(dim=dim, keepdim=True) / count + eps
    return (x - mean if centre else x) / (torch.sqrt(var) if root else var) if divide else x - mean


def in_numpy(x, eps):
    x = x.numpy()
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def row_by_row(x, eps):
    if x.dim() > 1:
        return torch.stack([row_by_row(row, eps) for row in x])
    deviations = [value - sum(x.tolist()) / len(x) for value in x.tolist()]
    root = math.sqrt(sum(d * d for d in deviations) / len(x) + eps)
    return torch.tensor([d / root for d in deviations], dtype=torch.float64)


def in_place(x, eps):
    x -= x.mean(dim=-1, keepdim=True)
    return normalize(x, eps)


RIGHT += [
    ("4.A", normalize),
    ("4.A", in_numpy),
    ("4.A", row_by_row),
    ("4.A", lambda x, eps: normalize(x.double(), eps)),
    ("4.A", lambda x, eps: normalize(x, eps).tolist()),
]

WRONG += [
    ("4.A", functools.partial(normalize, unbiased=True), "unbiased"),
    ("4.A", functools.partial(normalize, root=False), "square root"),
    ("4.A", functools.partial(normalize, divide=False), "variance is not 1"),
    ("4.A", functools.partial(normalize, centre=False), "mean is still"),
    ("4.A", functools.partial(normalize, dim=0), "dimension 0"),
    ("4.A", lambda x, eps: (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + eps), "whole tensor"),
    (
        "4.A",
        lambda x, eps: normalize(x, 0.0, divide=False) / (normalize(x, 0, divide=False) ** 2).mean(-1, True).sqrt(),
        "eps=0.5",
    ),
    ("4.A", lambda x, eps: normalize(x, 1e-5), "eps=0.5"),
    ("4.A", lambda x, eps: x * 2, "differs"),
    ("4.A", lambda x, eps: "none", "not str"),
    ("4.A", lambda x, eps: x / "a", "TypeError"),
    ("4.A", lambda x, eps: (x - x.mean(-1, True)) / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt(), "`var`"),
    ("4.A", lambda x, eps: F.layer_norm(x, x.shape[-1:], eps=eps), "`layer_norm`"),
    ("4.A", lambda x, eps: LayerNorm(x.shape[-1])(x), "`var`"),
    ("4.A", in_place, "changed x itself"),
]


def test_4_a_a_row_of_equal_numbers():
    """An eps that is left out where the variance is not small is found by its row of zeros."""

    def careless(x, eps):
        return normalize(x, eps) if normalize(x, 0, divide=False).any() else normalize(x, 0)

    checkers.refuses("4.A", careless, "NaN")


def test_4_a_eps_beside_the_root():
    def beside(x, eps):
        centred = x - x.mean(-1, True)
        return centred / ((centred**2).mean(-1, True).sqrt() + eps)

    checkers.refuses("4.A", beside, "under the root")


# 4.B


def run(layers, x, use_shortcut):
    for layer in layers:
        x = x + layer(x) if use_shortcut else layer(x)
    return x


def first_gradient(layers, x, use_shortcut, loss=lambda out: (out**2).mean(), reset=True, layer=0, size=abs):
    chosen = layers[layer][0].weight
    if reset:
        for part in layers:
            part.zero_grad()
    loss(run(layers, x, use_shortcut)).backward()
    return size(chosen.grad).mean().item()


def with_autograd(layers, x, use_shortcut):
    (gradient,) = torch.autograd.grad(run(layers, x, use_shortcut).square().mean(), [layers[0][0].weight])
    return gradient.abs().mean()


def as_a_module(layers, x, use_shortcut):
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, x):
            return run(self.layers, x, use_shortcut)

    model = Chain()
    model.zero_grad()
    out = model(x)
    nn.MSELoss()(out, torch.zeros_like(out)).backward()
    return np.float32(layers[0][0].weight.grad.abs().mean())


def around_the_chain(layers, x, use_shortcut):
    (gradient,) = torch.autograd.grad(
        (run(layers, x, False) + (x if use_shortcut else 0)).square().mean(), [layers[0][0].weight]
    )
    return gradient.abs().mean()


RIGHT += [("4.B", first_gradient), ("4.B", with_autograd), ("4.B", as_a_module)]

WRONG += [
    ("4.B", functools.partial(first_gradient, reset=False), "adds to the `.grad`"),
    ("4.B", functools.partial(first_gradient, layer=-1), "last layer"),
    ("4.B", functools.partial(first_gradient, size=lambda grad: grad), "signs"),
    ("4.B", functools.partial(first_gradient, size=lambda grad: grad.abs().sum()), "sum of the absolute"),
    ("4.B", functools.partial(first_gradient, loss=lambda out: (out**2).sum()), "not their sum"),
    ("4.B", functools.partial(first_gradient, loss=lambda out: out.mean()), "not of the output itself"),
    ("4.B", lambda layers, x, use_shortcut: first_gradient(layers, x, False), "without shortcuts"),
    ("4.B", lambda layers, x, use_shortcut: first_gradient(layers, x, True), "use_shortcut=False"),
    ("4.B", around_the_chain, "around the whole chain"),
    ("4.B", lambda *given: 0.0, "expected"),
    ("4.B", lambda layers, x, use_shortcut: layers[0][0].weight.grad, "return at its end"),
    ("4.B", lambda layers, x, use_shortcut: run(layers, x, use_shortcut).detach(), "one number"),
]


def test_4_b_what_the_verdict_measured():
    """Without shortcuts the gradient vanishes with the depth, with them it does not."""
    last = checks.exercise_4_b(first_gradient).message.splitlines()[-1]
    plain, shortcut = (float(word) for word in last.split() if "e" in word and word[0].isdigit())
    assert last.startswith("30 layers") and plain < 1e-8 and shortcut > 1e-2


# 4.1

FEED, ATTENTION = 4_722_432, 2_360_064


RIGHT += [("4.1", form((FEED, ATTENTION))) for form in (tuple, list, np.array, torch.tensor)]

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


# 4.C


def half(x, norm, work, drop, stream=False, late=False, shortcut=True, dropped=True):
    """One half of a block, with the mistakes to choose from."""
    start, out = (norm(x) if stream else x) if shortcut else 0, work(norm(x))
    if late:
        return drop(start + out)
    return start + (drop(out) if dropped else out)


def block_with(first=None, second=None, same_norm=False):
    class MendedBlock(TransformerBlock):
        def forward(self, x):
            x = half(x, self.norm1, self.att, self.drop_shortcut, **(first or {}))
            return half(x, self.norm1 if same_norm else self.norm2, self.ff, self.drop_shortcut, **(second or {}))

    return MendedBlock


class Renamed(TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.norm = self.norm1
        del self.norm1


class TwoDropouts(block_with()):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop_again = nn.Dropout(cfg["drop_rate"])

    def forward(self, x):
        x = x + self.drop_shortcut(self.att(self.norm1(x)))
        return x + self.drop_again(self.ff(self.norm2(x)))


class PostNorm(TransformerBlock):
    def forward(self, x):
        x = self.norm1(x + self.drop_shortcut(self.att(x)))
        return self.norm2(x + self.drop_shortcut(self.ff(x)))


class Lively(TransformerBlock):
    def forward(self, x):
        output = super().forward(x)
        self.train()
        return output


RIGHT += [
    ("4.C", block_with()),
    ("4.C", TransformerBlock),
    ("4.C", TwoDropouts),
    ("4.C", lambda cfg: block_with()(cfg)),
]

WRONG += [
    ("4.C", block_with({"stream": True}, {"late": True}, same_norm=True), "normalized. One of the two"),
    ("4.C", block_with({"stream": True}), "does not begin at x"),
    ("4.C", block_with(same_norm=True), "never used"),
    ("4.C", block_with({}, {"late": True}), "drops the stream"),
    ("4.C", block_with({"late": True}), "drops the stream"),
    ("4.C", block_with({"dropped": False}), "only the feed-forward half"),
    ("4.C", block_with({}, {"dropped": False}), "only the attention half"),
    ("4.C", block_with({"dropped": False}, {"dropped": False}), "nothing is dropped"),
    ("4.C", block_with({"shortcut": False}, {"shortcut": False}), "no shortcuts left"),
    ("4.C", PostNorm, "before the work"),
    ("4.C", Lively, "in training mode"),
    ("4.C", Renamed, "TransformerBlock has the parameter norm1.scale"),
    ("4.C", LayerNorm, "TypeError"),
    ("4.C", lambda cfg: cfg, "nn.Module"),
]


# 4.2

LARGER = {
    "355M": (406_212_608, 354_749_440, 1549.578125),
    "774M": (838_220_800, 773_891_840, 3197.558594),
    "1558M": (1_637_792_000, 1_557_380_800, 6247.680664),
}


RIGHT += [
    ("4.2", LARGER),
    ("4.2", {size: [n, tied, round(mb, 2)] for size, (n, tied, mb) in LARGER.items()}),
    ("4.2", {size: np.array([n, tied, round(mb)]) for size, (n, tied, mb) in LARGER.items()}),
    ("4.2", {size: torch.tensor(entry, dtype=torch.float64) for size, entry in LARGER.items()}),
]


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


# 4.D


def forward_flops(cfg, num_tokens, products=2, squares=12, out=None, layers=None, heads=1, factor=2):
    c, t = cfg["emb_dim"], num_tokens
    layer = products * t * t * c * (cfg["n_heads"] if heads is None else heads) + squares * t * c * c
    return factor * ((layers or cfg["n_layers"]) * layer + (t if out is None else out) * c * cfg["vocab_size"])


def from_shapes(cfg, num_tokens):
    c, heads = cfg["emb_dim"], cfg["n_heads"]
    t, d = num_tokens, c // heads
    products = [(t, c, c)] * 4 + [(t, d, t), (t, t, d)] * heads + [(t, c, 4 * c), (t, 4 * c, c)]
    return sum(2 * m * n * p for m, n, p in products * cfg["n_layers"] + [(t, c, cfg["vocab_size"])])


def counted(cfg, num_tokens):
    model = GPTModel(cfg)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, num_tokens, dtype=torch.long))
    return counter.get_total_flops()


RIGHT += [
    ("4.D", forward_flops),
    ("4.D", from_shapes),
    ("4.D", counted),
    ("4.D", lambda cfg, num_tokens: float(forward_flops(cfg, num_tokens))),
    ("4.D", lambda cfg, num_tokens: np.int64(forward_flops(cfg, num_tokens))),
]

WRONG += [
    ("4.D", functools.partial(forward_flops, factor=1), "half of the count"),
    ("4.D", functools.partial(forward_flops, products=0), "two products inside attention are missing"),
    ("4.D", functools.partial(forward_flops, products=1), "count one, or halves"),
    ("4.D", functools.partial(forward_flops, squares=11), "output projection"),
    ("4.D", functools.partial(forward_flops, squares=9), "four linear layers; you count one"),
    ("4.D", functools.partial(forward_flops, squares=8), "four linear layers are missing"),
    ("4.D", functools.partial(forward_flops, squares=4), "feed-forward network is missing"),
    ("4.D", functools.partial(forward_flops, squares=6), "four times as wide"),
    ("4.D", functools.partial(forward_flops, out=0), "output layer is missing"),
    ("4.D", functools.partial(forward_flops, out=1), "every position"),
    ("4.D", functools.partial(forward_flops, layers=1), "count one block"),
    ("4.D", functools.partial(forward_flops, heads=None), "heads share"),
    ("4.D", lambda cfg, t: forward_flops(cfg, t) // t, "per token"),
    ("4.D", lambda cfg, t: forward_flops(cfg, t) + 1, "expected"),
    ("4.D", lambda cfg, t: str(forward_flops(cfg, t)), "one number, not str"),
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


class OwnAttention(nn.Module):
    """PyTorch's attention in place of the course's, with the same parameters."""

    def __init__(self, cfg):
        super().__init__()
        c = cfg["emb_dim"]
        self.heads, self.rate = cfg["n_heads"], cfg["drop_rate_attn"]
        self.W_query, self.W_key, self.W_value = (nn.Linear(c, c, bias=cfg["qkv_bias"]) for _ in range(3))
        self.out_proj = nn.Linear(c, c)

    def forward(self, x):
        parts = [
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.W_query, self.W_key, self.W_value)
        ]
        rate = self.rate if self.training else 0.0
        return self.out_proj(
            F.scaled_dot_product_attention(*parts, dropout_p=rate, is_causal=True).transpose(1, 2).flatten(2)
        )


class Anew(GPTModel):
    """Written with functions in place of nn.Dropout."""

    def __init__(self, cfg, **given):
        super().__init__({**cfg, "drop_rate": 0.0})
        self.cfg = cfg
        for block in self.trf_blocks:
            block.att = OwnAttention(cfg)

    def forward(self, in_idx):
        cfg = self.cfg
        x = self.tok_emb(in_idx) + self.pos_emb.weight[: in_idx.shape[1]]
        x = F.dropout(x, cfg["drop_rate_emb"], self.training)
        for block in self.trf_blocks:
            x = x + F.dropout(block.att(block.norm1(x)), cfg["drop_rate_shortcut"], self.training)
            x = x + F.dropout(block.ff(block.norm2(x)), cfg["drop_rate_shortcut"], self.training)
        return self.out_head(self.final_norm(x))


class WithMask(ThreeRates):
    """The mask is saved with the weights."""

    def __init__(self, cfg):
        super().__init__(cfg)
        for module in self.modules():
            if isinstance(module, MultiHeadAttention):
                module.register_buffer("mask", module.mask, persistent=True)


RIGHT += [("4.3", ThreeRates), ("4.3", Anew), ("4.3", WithMask)]


def three_rates(**slip):
    return type("GPTModelThreeRates", (ThreeRates,), slip)


def with_blocks(*halves, **options):
    """The three rates around blocks with a mistake (see `block_with`)."""

    class Model(ThreeRates):
        def __init__(self, cfg):
            super().__init__(cfg)
            for block in self.trf_blocks:
                block.__class__ = block_with(*halves, **options)

    return Model


class Fixed(ThreeRates):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop_emb = nn.Dropout(0.1)


class Missing(ThreeRates):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.drop_emb = nn.Identity()


class NoPositions(ThreeRates):
    def forward(self, in_idx):
        return self.out_head(self.final_norm(self.trf_blocks(self.drop_emb(self.tok_emb(in_idx)))))


class AlwaysDrops(ThreeRates):
    def forward(self, in_idx):
        x = F.dropout(self.tok_emb(in_idx) + self.pos_emb.weight[: in_idx.shape[1]], self.drop_emb.p)
        return self.out_head(self.final_norm(self.trf_blocks(x)))


class ToTraining(ThreeRates):
    def forward(self, in_idx):
        logits = super().forward(in_idx)
        self.train()
        return logits


class Short(ThreeRates):
    def forward(self, in_idx):
        return super().forward(in_idx)[:, -1]


class Sticky(ThreeRates):
    def forward(self, in_idx):
        return F.dropout(super().forward(in_idx), 0.1, self.training)


class OneBlock(ThreeRates):
    def __init__(self, cfg):
        super().__init__({**cfg, "n_layers": 1})


class Wider(ThreeRates):
    def __init__(self, cfg):
        super().__init__({**cfg, "context_length": 13})


class Biased(ThreeRates):
    def __init__(self, cfg):
        super().__init__({**cfg, "qkv_bias": True})


WRONG += [
    ("4.3", three_rates(attn="drop_rate_emb"), "drop_rate_attn = 1 and the others 0, training and evaluation give"),
    ("4.3", three_rates(shortcut="drop_rate_attn"), "nothing reads it"),
    ("4.3", three_rates(emb="drop_rate_shortcut", shortcut="drop_rate_emb"), "it acts before the additions"),
    ("4.3", with_blocks({"dropped": False}), "Only the feed-forward half"),
    ("4.3", with_blocks({}, {"dropped": False}), "Only the attention half"),
    ("4.3", with_blocks({"late": True}, {"late": True}), "before the addition"),
    ("4.3", with_blocks({"shortcut": False}, {"shortcut": False}), "without shortcuts"),
    ("4.3", with_blocks(same_norm=True), "line by line"),
    ("4.3", NoPositions, "without position embeddings"),
    ("4.3", AlwaysDrops, "training=self.training"),
    ("4.3", ToTraining, "must not change the mode"),
    ("4.3", GPTModel, "cfg['drop_rate']"),
    ("4.3", Fixed, "rate of its own"),
    ("4.3", Missing, "drop_rate_emb = 1"),
    ("4.3", Short, "shape"),
    ("4.3", Sticky, "rate of its own"),
    ("4.3", OneBlock, "GPTModel has the parameter trf_blocks.1."),
    ("4.3", Wider, "pos_emb.weight has shape (13, 24)"),
    ("4.3", Biased, "Your model has the parameter trf_blocks.0.att.W_key.bias"),
    ("4.3", lambda cfg: 5, "nn.Module"),
]


# 4.E


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


def one_at_a_time(model, idx, max_new_tokens, context_size, stop_id):
    tokens = idx[0].tolist()
    while max_new_tokens > 0:
        logits = model(torch.tensor([tokens[-context_size:]]))
        token = int(logits[0, -1].argmax())
        if token == stop_id:
            return torch.tensor([tokens])
        tokens.append(token)
        max_new_tokens -= 1
    return torch.tensor([tokens])


def with_recursion(model, idx, max_new_tokens, context_size, stop_id):
    if max_new_tokens == 0:
        return idx
    new = torch.softmax(model(idx[:, -context_size:])[:, -1], dim=-1).max(dim=-1, keepdim=True).indices
    if new == stop_id:
        return idx
    return with_recursion(model, torch.hstack((idx, new)), max_new_tokens - 1, context_size, stop_id)


RIGHT += [("4.E", generate_until), ("4.E", one_at_a_time), ("4.E", with_recursion)]


def cuts_afterwards(model, idx, max_new_tokens, context_size, stop_id):
    full = generate_until(model, idx, max_new_tokens, context_size, stop_id, stop=False)
    new = full[0, idx.shape[1] :].tolist()
    end = new.index(stop_id) if stop_id in new else len(new)
    return full[:, : idx.shape[1] + end]


def adds_one(model, idx, max_new_tokens, context_size, stop_id):
    result = generate_until(model, idx, max_new_tokens, context_size, stop_id)
    idx += 1
    return result


WRONG += [
    ("4.E", functools.partial(generate_until, keep=True), "stop token is in your result"),
    ("4.E", functools.partial(generate_until, crop=False), "too many"),
    ("4.E", functools.partial(generate_until, first=True), "expected"),
    ("4.E", functools.partial(generate_until, stop=False), "goes on"),
    ("4.E", cuts_afterwards, "called"),
    ("4.E", adds_one, "changed"),
    ("4.E", lambda m, i, n, c, stop_id: generate_until(m, i, n, c, stop_id or -1), "goes on"),
    ("4.E", lambda m, i, n, c, stop_id: generate_until(m, i, n, c, 1), "expected"),
    ("4.E", lambda m, i, n, c, stop_id: i if stop_id in i else generate_until(m, i, n, c, stop_id), "expected"),
    ("4.E", lambda *given: [1], "not list"),
    ("4.E", lambda *given: generate_until(*given)[0], "shape"),
]


def test_4_e_the_cases_hold_both_kinds():
    """In some of them the model stops the text, in others max_new_tokens does."""
    new = []

    def watch(model, idx, max_new_tokens, context_size, stop_id):
        result = generate_until(model, idx, max_new_tokens, context_size, stop_id)
        new.append(result.shape[1] - idx.shape[1] < max_new_tokens)
        return result

    assert checks.exercise_4_e(watch)
    assert 0 < sum(new) < len(new)


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
