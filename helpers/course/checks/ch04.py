"""Checkers for chapter 4."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ...gpt import GELU, GPT_CONFIG_124M, GPTModel, TransformerBlock, gpt_config
from ._core import (
    Hint,
    all_agree,
    call,
    exercise,
    expect,
    expect_close,
    expect_kind,
    explained,
    read_number,
    read_numbers,
    read_tensor,
    same,
    self_test,
)


class _Without(TorchFunctionMode):
    """Inside this `with` block, PyTorch functions of these names raise `Hint`."""

    def __init__(self, *names: str):
        super().__init__()
        self.names = names

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        expect(
            name not in self.names, f"Your function calls `{name}`, which is to be left out here: write it yourself."
        )
        return function(*args, **(kwargs or {}))


def _expect_all(
    results: Sequence[Any],
    expected: Sequence[Any],
    cases: Sequence[str],
    slips: Sequence[tuple[Sequence[Any], str]],
    **tolerance: float,
) -> None:
    """Raise `Hint` unless every result agrees with what is expected; a slip explains an answer if it fits all cases."""
    if all_agree(results, expected, slips, **tolerance):
        return
    for got, right, case in zip(results, expected, cases, strict=True):
        expect_close(got, right, case, **tolerance)


@exercise("4.A", "normalize(x, eps)")
def exercise_4_a(answer: Callable[[torch.Tensor, float], torch.Tensor]) -> str:
    """Check `normalize(x, eps)` on random tensors (..., emb_dim)."""
    inputs = [(2 * torch.randn(shape) + 3, 1e-5) for shape in ((5,), (2, 6), (4, 4), (3, 4, 8), (2, 1, 3))]
    inputs.append((torch.randn(2, 4), 0.5))
    cases, results = [], []
    for x, eps in inputs:
        cases.append(f"For x of shape {tuple(x.shape)} and eps={eps:g} the result differs.")
        given = x.clone()
        with _Without("var", "std", "var_mean", "std_mean", "layer_norm", "rms_norm", "batch_norm"):
            results.append(read_tensor(answer(given, eps), f"A tensor of shape {tuple(x.shape)}"))
        expect(torch.equal(given, x), "Your function has changed x itself; make a new tensor.")

    def everywhere(
        rule: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor],
    ) -> list[torch.Tensor]:
        """What a rule gives for all inputs, from x, its means and variances (..., 1) and eps."""
        found = []
        for x, eps in inputs:
            mean = x.mean(dim=-1, keepdim=True)
            found.append(rule(x, mean, (x - mean).square().mean(dim=-1, keepdim=True), eps))
        return found

    slips = [
        (
            everywhere(lambda x, mean, _, eps: (x - mean) / (x.var(dim=-1, keepdim=True) + eps).sqrt()),
            "The spread is that of the unbiased variance, which divides by n − 1; LayerNorm divides by n.",
        ),
        (
            everywhere(lambda x, mean, var, eps: (x - mean) / (var + eps)),
            "You divided by the variance; the numbers have to be divided by its square root.",
        ),
        (
            everywhere(lambda x, mean, var, eps: (x - mean) / (var.sqrt() + eps)),
            "You add eps to the root; it belongs under the root.",
        ),
        (
            everywhere(lambda x, mean, var, eps: x - mean),
            "The mean is gone, but the variance is not 1 yet: one division is missing.",
        ),
        (
            everywhere(lambda x, mean, var, eps: x / (var + eps).sqrt()),
            "The mean is still in your result: subtract it before you divide.",
        ),
        (
            everywhere(lambda x, mean, var, eps: (x - x.mean()) / (x.var(unbiased=False) + eps).sqrt()),
            "Mean and variance are taken over the whole tensor; each row of the last dimension has its own.",
        ),
        (
            everywhere(lambda x, mean, var, eps: (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + eps).sqrt()),
            "Mean and variance run over dimension 0; the features are in the last dimension.",
        ),
    ]
    flat = answer(torch.full((2, 4), 3.0), 1e-5)
    _expect_all(results, everywhere(lambda x, mean, var, eps: (x - mean) / (var + eps).sqrt()), cases, slips)
    expect(
        same(flat, torch.zeros(2, 4)),
        "A row whose numbers are all equal must come out as zeros, not as NaN. What is eps for?",
    )
    return (
        "Each row has lost its mean and been divided by its own standard deviation, with eps under the root so that a "
        "row of equal numbers gives zeros. Nothing was taken from the other rows."
    )


@exercise("4.B", "first_gradient(layers, x, use_shortcut)")
def exercise_4_b(answer: Callable[[list[nn.Module], torch.Tensor, bool], float]) -> str:
    """Check `first_gradient(layers, x, use_shortcut)` on chains of layers that map (B, 6) to (B, 6)."""
    cases, results, gradients = [], [], []
    for depth in (1, 2, 5, 9):
        layers, x = [nn.Sequential(nn.Linear(6, 6), GELU()) for _ in range(depth)], torch.randn(4, 6)
        for use_shortcut in (False, True):
            cases.append(f"{depth} layers, use_shortcut={use_shortcut}:")
            gradients.append(_chain_gradients(layers, x, use_shortcut))
            got, again = (read_number(answer(list(layers), x.clone(), use_shortcut)) for _ in range(2))
            expect(
                same(got, again, **_SMALL),
                f"{cases[-1]} called twice with the same layers, your function gives {got:.3g} and then {again:.3g}. "
                "`backward` adds to the `.grad` that is already there.",
            )
            results.append(got)
    hints = {
        "signed": "That is the mean of the gradient with its signs: take absolute values first.",
        "sum": "That is the sum of the absolute gradients; their mean is asked for.",
        "last": "That is the gradient of the last layer; the first one is asked for.",
        "whole": "That is one shortcut around the whole chain; each layer has its own.",
        "loss": "The loss is the mean of the squares of the output, not their sum.",
        "plain mean": "The loss is the mean of the squares of the output, not of the output itself.",
        "never": "With use_shortcut=True the result is that of the chain without shortcuts.",
        "always": "With use_shortcut=False the result is that of the chain with shortcuts.",
    }
    slips = [([found[slip] for found in gradients], hint) for slip, hint in hints.items()]
    _expect_all(results, [found["right"] for found in gradients], cases, slips, **_SMALL)
    measured = []
    for depth in (1, 10, 20, 30):
        layers, x = [nn.Sequential(nn.Linear(16, 16), GELU()) for _ in range(depth)], torch.randn(8, 16)
        plain, shortcut = (_chain_gradients(layers, x, use_shortcut)["right"] for use_shortcut in (False, True))
        measured.append(f"{depth:2d} layers: {plain:.0e} without shortcuts, {shortcut:.0e} with")
    return "Your gradients agree with the checker's. What it measured on chains of width 16:\n" + "\n".join(measured)


_SMALL = {"rtol": 1e-3, "atol": 1e-12}  # how closely small gradients agree


def _chain_gradients(layers: list[nn.Module], x: torch.Tensor, use_shortcut: bool) -> dict[str, float]:
    """The mean |gradient| of the first weight, as the exercise asks for it ("right") and with each slip."""

    def run(each: bool, whole: bool = False) -> torch.Tensor:
        out = x
        for layer in layers:
            out = out + layer(out) if each else layer(out)
        return out + x if whole else out

    def gradient(loss: torch.Tensor, layer: int = 0) -> torch.Tensor:
        return torch.autograd.grad(loss, layers[layer][0].weight)[0]

    def size(loss: torch.Tensor, layer: int = 0) -> float:
        return gradient(loss, layer).abs().mean().item()

    return {
        "right": size(run(use_shortcut).square().mean()),
        "signed": gradient(run(use_shortcut).square().mean()).mean().item(),
        "sum": gradient(run(use_shortcut).square().mean()).abs().sum().item(),
        "last": size(run(use_shortcut).square().mean(), -1),
        "whole": size(run(False, whole=use_shortcut).square().mean()),
        "loss": size(run(use_shortcut).square().sum()),
        "plain mean": size(run(use_shortcut).mean()),
        "never": size(run(False).square().mean()),
        "always": size(run(True).square().mean()),
    }


_COUNT = "The count is off. Add up p.numel() over its parameters."


@exercise("4.1")
def exercise_4_1(answer: tuple[int, int]) -> str:
    """Check the parameter counts (feed-forward, attention) of one block of the 124M model."""
    got_feed, got_attention = read_numbers(answer, 2, "Two numbers are expected: (feed-forward, attention).")
    with torch.device("meta"):
        block = TransformerBlock(GPT_CONFIG_124M)
    emb = GPT_CONFIG_124M["emb_dim"]
    feed, attention = (sum(p.numel() for p in part.parameters()) for part in (block.ff, block.att))
    expect((got_feed, got_attention) != (attention, feed), "Both numbers are right, but the other way round.")
    layers = GPT_CONFIG_124M["n_layers"]
    expect(
        got_feed != layers * feed and got_attention != layers * attention,
        "That is all twelve blocks together; one is asked for.",
    )
    slips = [
        (8 * emb * emb, "The weights are right; its linear layers also have biases."),
        (feed // 2, "That is about one of its two linear layers."),
    ]
    expect_close(got_feed, feed, "Feed-forward:", slips, otherwise=_COUNT)
    slips = [
        (3 * emb * emb, "Besides queries, keys and values there is one more linear layer."),
        (3 * emb * emb + 3 * emb, "Besides queries, keys and values there is one more linear layer."),
        (4 * emb * emb, "The weights are right; one of its layers has a bias."),
        (attention + 3 * emb, "With qkv_bias False, the three projections have no biases."),
    ]
    expect_close(got_attention, attention, "Attention:", slips, otherwise=_COUNT)
    return (
        "Feed-forward has 8·768² weights and 5·768 biases, attention 4·768² weights and 768 biases: the part that "
        "works on each token alone is twice as large as the part that lets tokens exchange information."
    )


@exercise("4.C", "MendedBlock(cfg)")
def exercise_4_c(answer: type[nn.Module]) -> str:
    """Check a TransformerBlock whose forward had three mistakes: norm1 on the stream, norm1 twice, late dropout."""
    reference, x = _varied(TransformerBlock(_small_config(drop_rate=0.0))), torch.randn(2, 7, 24)
    first, second, att, ff = reference.norm1, reference.norm2, reference.att, reference.ff

    def outcome(stream: bool, twice: bool) -> torch.Tensor:
        """What mistakes that are still there give: norm1 on the stream itself, norm1 in both halves."""
        half = (first(x) if stream else x) + att(first(x))
        return half + ff((first if twice else second)(half))

    expected = outcome(False, False)
    block = _with_weights(answer(_small_config(drop_rate=1.0)), reference, "TransformerBlock")
    calm = call(block.eval(), x.clone())
    stream = "The first shortcut does not begin at x: what is added to the result of attention is normalized."
    twice = "One of the two LayerNorms is never used."
    slips = [
        (outcome(True, True), f"{stream} {twice}"),
        (outcome(True, False), stream),
        (outcome(False, True), twice),
        (_block(reference, x, shortcut=False), "There are no shortcuts left."),
        (_block(reference, x, pre_norm=False), "LayerNorm comes before the work, not after the addition."),
    ]
    case = "In evaluation mode the output is not that of a TransformerBlock."
    expect_close(calm, expected, case, slips, otherwise="Compare each half with the figure of the block.")
    expect(not block.training, "After a call in evaluation mode, your block is in training mode.")
    lively = call(block.train(), x.clone())
    slips = [
        (torch.zeros_like(x), "everything is gone: the dropout after the addition drops the stream itself."),
        (_block(reference, x, weights=False), "nothing is dropped before the additions."),
        (_block(reference, x, attention=False), "only the attention half drops anything."),
        (_block(reference, x, feed_forward=False, weights=False), "only the feed-forward half drops anything."),
    ]
    case = "In training with a drop_rate of 1, both contributions are dropped and x passes unchanged; in your block"
    expect_close(lively, x, case, slips, otherwise="something else comes out.")
    return (
        "All three mistakes are gone: the stream x is never normalized, each half has a LayerNorm of its own, and "
        "dropout acts on what is added, not on the sum. None of the mistakes raised an error or changed a shape, which "
        "is why a block is compared in numbers."
    )


def _small_config(**changes: Any) -> dict[str, Any]:
    small = {"vocab_size": 61, "context_length": 12, "emb_dim": 24, "n_heads": 3, "n_layers": 2}
    return {**GPT_CONFIG_124M, **small, **changes}


@torch.no_grad()
def _varied(model: nn.Module) -> nn.Module:
    """The model with random numbers in all parameters, so that each of them counts, without gradients."""
    for parameter in model.parameters():
        parameter.normal_(std=0.4)
    return model.eval().requires_grad_(False)


def _with_weights(model: Any, reference: nn.Module, like: str) -> nn.Module:
    """A learner's model with the reference's weights. Raises `Hint` unless it has the same parameters."""
    expect(isinstance(model, nn.Module), "Calling your class with a configuration must give an nn.Module.")
    theirs, ours = (
        {name: p.shape for name, p in module.named_parameters(remove_duplicate=False)} for module in (model, reference)
    )
    missing, strange = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    expect(not missing, f"{like} has the parameter {missing[0] if missing else ''}, your model has not.")
    expect(not strange, f"Your model has the parameter {strange[0] if strange else ''}, {like} has not.")
    for name, shape in ours.items():
        expect(theirs[name] == shape, f"{name} has shape {tuple(theirs[name])}; in {like} it is {tuple(shape)}.")
    model.load_state_dict(reference.state_dict(), strict=False)  # a buffer for the mask may be there or not
    return model


@torch.no_grad()
def _block(
    block: TransformerBlock,
    x: torch.Tensor,
    *,
    shortcut: bool = True,
    pre_norm: bool = True,
    attention: bool = True,
    feed_forward: bool = True,
    weights: bool = True,
) -> torch.Tensor:
    """A TransformerBlock (B, T, C) with parts of it left out; without `weights`, attention gives its last bias only."""
    for norm, work, there in ((block.norm1, block.att, attention), (block.norm2, block.ff, feed_forward)):
        out = work(norm(x) if pre_norm else x)
        if work is block.att and not weights:
            out = block.att.out_proj.bias.expand_as(x)
        x = (x if shortcut else 0) + (out if there else 0)
        x = x if pre_norm else norm(x)
    return x


@exercise("4.2")
def exercise_4_2(answer: Mapping[str, tuple[int, int, float]]) -> str:
    """Check {size: (parameters, parameters with tied weights, memory in MB)} of the three larger sizes."""
    expect_kind(answer, Mapping, 'A dictionary with the keys "355M", "774M" and "1558M"')
    base = _totals("124M")
    for size in ("355M", "774M", "1558M"):
        expect(size in answer, f'The dictionary has no entry "{size}".')
        shape = f"{size}: three numbers are expected, (parameters, tied, memory in MB)."
        total, tied, memory = read_numbers(answer[size], 3, shape)
        right_total, right_tied, right_memory = _totals(size)
        expect(total != base[0], f"{size}: that is the 124M model. Did the configuration change?")
        expect(
            total == right_total,
            f"{size}: the first number is off. A size sets three entries: emb_dim, n_heads and n_layers.",
        )
        expect(tied != total, f"{size}: tied weights save the whole output layer, so the second number is smaller.")
        expect(tied == right_tied, f"{size}: the second number is off. Which matrix is shared, and how large is it?")
        slips = [
            (right_total * 4 / 1e6, "divided by a million bytes; here one MB is 1024 · 1024 bytes."),
            (right_tied * 4 / 2**20, "that is the memory with tied weights; our model has an output layer of its own."),
        ]
        bytes_each = "the memory is off. A float32 takes 4 bytes."
        expect_close(memory, right_memory, f"{size}:", slips, rtol=0, atol=1, otherwise=bytes_each)
    return (
        "The largest has ten times the parameters of the smallest. Tying the weights would save about a quarter of "
        "the 124M model, but only a twentieth of the 1558M one: the blocks outgrow the vocabulary."
    )


@functools.cache
def _totals(size: str) -> tuple[int, int, float]:
    with torch.device("meta"):
        model = GPTModel(gpt_config(size))
    total = sum(p.numel() for p in model.parameters())
    return total, total - model.out_head.weight.numel(), total * 4 / 2**20


@exercise("4.D", "forward_flops(cfg, num_tokens)")
def exercise_4_d(answer: Callable[[dict[str, Any], int], int]) -> str:
    """Check `forward_flops(cfg, num_tokens)` against what PyTorch counts in models on the meta device."""
    inputs, expected = zip(*_counted_flops(), strict=True)
    cases = []
    for cfg, tokens in inputs:
        entries = [f"{name}={cfg[name]}" for name in ("emb_dim", "n_heads", "n_layers", "vocab_size")]
        cases.append(f"num_tokens={tokens}, {', '.join(entries)}")

    def everywhere(products: float = 2, squares: int = 12, out: str = "tokens", share: float = 1.0) -> list[float]:
        """A count for all inputs: of a block attention's products and C by C matrices, the output layer's positions."""
        found = []
        for cfg, tokens in inputs:
            emb = cfg["emb_dim"]
            layer = products * 2 * tokens * tokens * emb + squares * 2 * tokens * emb * emb
            head = {"tokens": tokens, "once": 1, "none": 0}[out] * 2 * emb * cfg["vocab_size"]
            found.append(share * (cfg["n_layers"] * layer + head))
        return found

    depths, counts = [cfg["n_layers"] for cfg, _ in inputs], everywhere()
    blocks = [(total - head) for total, head in zip(counts, everywhere(products=0, squares=0), strict=True)]
    slips = [
        (everywhere(share=0.5), "That is half of the count: a multiplication and an addition are two operations."),
        (everywhere(products=0), "The two products inside attention are missing: scores, and weights times values."),
        (everywhere(products=1), "Attention has two products besides its linear layers; you count one, or halves."),
        (everywhere(squares=11), "In each block one matrix of C by C is missing: attention's output projection?"),
        (everywhere(squares=9), "Attention has four linear layers; you count one."),
        (everywhere(squares=8), "Attention's four linear layers are missing."),
        (everywhere(squares=4), "The feed-forward network is missing."),
        (everywhere(squares=6), "The feed-forward network is four times as wide inside: 4 C, twice."),
        (everywhere(out="none"), "The output layer is missing: it gives a logit per token of the vocabulary."),
        (everywhere(out="once"), "The output layer works at every position, as all other layers do."),
        (
            [total - block + block / depth for total, block, depth in zip(counts, blocks, depths, strict=True)],
            "You count one block; there are n_layers of them.",
        ),
        (
            [total / tokens for total, (_, tokens) in zip(counts, inputs, strict=True)],
            "That is the count per token; the whole text is asked for.",
        ),
        (
            [
                total + cfg["n_layers"] * (cfg["n_heads"] - 1) * 4 * tokens * tokens * cfg["emb_dim"]
                for total, (cfg, tokens) in zip(counts, inputs, strict=True)
            ],
            "The heads share emb_dim: with more heads each is narrower, and their products take the same in all.",
        ),
    ]
    results = [read_number(answer(dict(cfg), tokens)) for cfg, tokens in inputs]
    _expect_all(results, expected, cases, slips, rtol=1e-9, atol=0.5)
    return (
        "Your count agrees with PyTorch's in all cases. Only attention's two products grow with the square of the "
        "length; everything else takes the same number of operations per token."
    )


@functools.cache
def _counted_flops() -> list[tuple[tuple[dict[str, Any], int], int]]:
    """Configurations and lengths, each with what PyTorch counts in a model of it on the meta device."""
    found = []
    for emb, heads, layers, vocab, tokens in (
        (24, 3, 2, 61, 12),
        (32, 4, 3, 99, 40),
        (16, 2, 5, 300, 90),
        (48, 6, 1, 30, 7),
    ):
        changes = {"emb_dim": emb, "n_heads": heads, "n_layers": layers, "vocab_size": vocab}
        cfg = {**GPT_CONFIG_124M, **changes, "context_length": 128, "qkv_bias": heads % 2 == 0}
        with torch.device("meta"):
            model, ids = GPTModel(cfg).eval(), torch.zeros(1, tokens, dtype=torch.long)
        with FlopCounterMode(display=False) as counter:
            model(ids)
        found.append(((cfg, tokens), counter.get_total_flops()))
    return found


_PLACES = {
    "drop_rate_emb": "after the embeddings",
    "drop_rate_shortcut": "before the additions in the blocks",
    "drop_rate_attn": "on the attention weights",
}


@exercise("4.3", "GPTModelThreeRates(cfg)")
def exercise_4_3(answer: type[nn.Module]) -> str:
    """Check a model class whose configuration has three dropout rates in place of `drop_rate`, by what it computes."""
    reference, ids = _varied(GPTModel(_small_config(drop_rate=0.0))), torch.randint(0, 61, (2, 9))
    expected = reference(ids)
    rates = dict(zip(_PLACES, (0.4, 0.3, 0.2), strict=True))
    model = _three_rates(answer, reference, **rates).eval()
    calm = read_tensor(call(model, ids), "A tensor of logits")
    expect(calm.shape == (2, 9, 61), f"The logits have shape {tuple(calm.shape)}, not (B, T, vocab_size).")
    expect(
        not any(module.training for module in model.modules()),
        "After a call in evaluation mode, your model is in training mode: forward must not change the mode.",
    )
    expect(
        same(calm, call(model, ids)),
        "In evaluation mode, two calls give different logits: a dropout acts there too. F.dropout drops by default; "
        "it has to be told training=self.training.",
    )
    slips = [
        (_logits(reference, ids, positions=False), "They are what a model without position embeddings gives."),
        (_logits(reference, ids, shortcut=False), "They are what blocks without shortcuts give."),
        (_logits(reference, ids, pre_norm=False), "They are what LayerNorm after each addition gives, not before."),
    ]
    case = "In evaluation mode, with the weights of a GPTModel, your logits differ from its logits."
    expect_close(calm, expected, case, slips, otherwise="Compare your forward with that of GPTModel line by line.")
    still = read_tensor(call(_three_rates(answer, reference).train(), ids))
    hint = "With all three rates at 0 the logits in training still differ: some dropout has a rate of its own."
    expect(same(still, expected), hint)
    dropped = {  # what comes out if everything at one place is dropped
        "drop_rate_emb": _logits(reference, ids, embeddings=False),
        "drop_rate_shortcut": _logits(reference, ids, attention=False, feed_forward=False),
        "drop_rate_attn": _logits(reference, ids, weights=False),
    }
    found = {}
    for name in _PLACES:
        model = _three_rates(answer, reference, **{name: 1.0}).train()
        found[name] = read_tensor(call(model, ids))
        unused = f"With {name} = 1 and the others 0, training and evaluation give the same logits: nothing reads it."
        expect(not same(found[name], expected), unused)
    slips = [
        (_logits(reference, ids, attention=False), "Only the attention half of a block drops anything."),
        (_logits(reference, ids, feed_forward=False), "Only the feed-forward half of a block drops anything."),
        (
            reference.out_head(reference.final_norm.shift).expand(2, 9, -1),
            "Everything is gone, the shortcut too: the dropout has to come before the addition.",
        ),
    ]
    for name, place in _PLACES.items():
        case = f"With {name} = 1 and the others 0, in training:"
        others = [(dropped[key], f"it acts {_PLACES[key]}, not {place}.") for key in _PLACES if key != name]
        otherwise = f"the logits are not those of a model in which all is dropped {place} and nothing else."
        own = slips if name == "drop_rate_shortcut" else []
        expect_close(found[name], dropped[name], case, [*own, *others], otherwise=otherwise)
    return (
        "Each of the three places reads its own entry and acts in training only; with the weights of a GPTModel, the "
        "model computes the same. Separate rates let you treat the attention weights, the embeddings and the shortcuts "
        "differently; newer models mostly set all to 0."
    )


def _three_rates(answer: type[nn.Module], reference: nn.Module, **rates: float) -> nn.Module:
    """A model of the learner's class with these rates, the others 0, and the reference's weights."""
    cfg = _small_config(**dict.fromkeys(_PLACES, 0.0) | rates)
    del cfg["drop_rate"]
    hint = "Something still reads cfg['drop_rate'], which this configuration does not have."
    with explained((KeyError, ValueError), hint, "'drop_rate'"):
        model = answer(cfg)
    return _with_weights(model, reference, "GPTModel")


@torch.no_grad()
def _logits(
    model: GPTModel, ids: torch.Tensor, embeddings: bool = True, positions: bool = True, **parts: bool
) -> torch.Tensor:
    """The logits of a GPTModel with parts of it left out (see `_block`)."""
    x = model.tok_emb(ids) + (model.pos_emb.weight[: ids.shape[1]] if positions else 0)
    x = x if embeddings else torch.zeros_like(x)
    for block in model.trf_blocks:
        x = _block(block, x, **parts)
    return model.out_head(model.final_norm(x))


class _Counting(nn.Module):
    """A stand-in for a GPT: the next token depends on the sum of all tokens it is shown, and on how many there are."""

    def __init__(self, vocab_size: int, most: int):
        super().__init__()
        self.vocab_size, self.most, self.calls = vocab_size, most, 0

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if idx.shape[1] > self.most:
            raise Hint(f"The model was given {idx.shape[1]} tokens; with context_size={self.most}, that is too many.")
        if idx.shape[1] == 0:
            raise Hint("The model was given no token at all.")
        sums = idx.cumsum(dim=1) * 7 + 3 * torch.arange(1, idx.shape[1] + 1)
        return nn.functional.one_hot(sums % self.vocab_size, self.vocab_size).float()


@exercise("4.E", "generate_until(model, idx, max_new_tokens, context_size, stop_id)")
def exercise_4_e(answer: Callable[..., torch.Tensor]) -> str:
    """Check `generate_until(model, idx, max_new_tokens, context_size, stop_id)` with stand-in models."""
    generator, most = torch.Generator().manual_seed(45), 9
    for trial in range(20):
        vocab, context = (int(torch.randint(low, 12, (), generator=generator)) for low in (5, 2))
        stop = int(torch.randint(0, vocab, (), generator=generator)) if trial % 4 else 0  # also a stop_id that is false
        prompt = torch.randint(0, vocab, (1, int(torch.randint(1, 7, (), generator=generator))), generator=generator)
        model = _Counting(vocab, context)
        expected, reached = prompt, False
        for _ in range(most):
            new = model(expected[:, -context:])[:, -1].argmax(dim=-1, keepdim=True)
            if new.item() == stop:
                reached = True
                break
            expected = torch.cat((expected, new), dim=1)
        model.calls = 0
        given = prompt.clone()
        got = answer(model, given, most, context, stop)
        expect_kind(got, torch.Tensor, "A tensor of token ids")
        expect(got.ndim == 2, f"The shape is {tuple(got.shape)}; a prompt and its continuation have shape (1, T).")
        expect(torch.equal(given, prompt), "The prompt that was handed over has been changed; make a new tensor.")
        case = f"\nprompt {prompt[0].tolist()}, stop_id {stop}, context_size {context}"
        case += f"\nexpected {expected[0].tolist()}\ngot      {got.flatten().tolist()}"
        if reached and torch.equal(got, torch.cat((expected, torch.tensor([[stop]])), dim=1)):
            raise Hint("The stop token is in your result; it only says that the text is over." + case)
        expect(
            got.shape[-1] <= expected.shape[1] or not reached,
            "The generation goes on after the stop token was drawn." + case,
        )
        expect(got.shape == expected.shape, f"The shape is {tuple(got.shape)}, not {tuple(expected.shape)}." + case)
        expect(torch.equal(got, expected), "The tokens differ. Is the last position read, and its argmax?" + case)
        calls = expected.shape[1] - prompt.shape[1] + reached
        expect(model.calls == calls, f"The model was called {model.calls} times where {calls} are enough.")
    return (
        "The text ends where the model says so, or after max_new_tokens. With <|endoftext|>, 50256, as the stop "
        "token, this is how a GPT ends a document by itself."
    )


self_test_4 = self_test("4", "ch04")
