"""Checkers for chapter 4."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn as nn

from ...attention import MultiHeadAttention
from ...gpt import GPT_CONFIG_124M, GPTModel, TransformerBlock, gpt_config
from ._core import (
    Hint,
    brief,
    call,
    exercise,
    expect,
    expect_close,
    expect_kind,
    explained,
    read_integer,
    read_numbers,
    read_tensor,
    same,
    self_test,
)


@exercise("4.0", "normalize(x, eps)")
def exercise_4_0(answer: Callable[[torch.Tensor, float], torch.Tensor]) -> str:
    """Check `normalize(x, eps)` on random tensors (..., emb_dim)."""
    generator = torch.Generator().manual_seed(40)
    for shape in ((5,), (2, 6), (3, 4, 8), (2, 1, 3)):
        x = 2 * torch.randn(shape, generator=generator) + 3
        mean = x.mean(dim=-1, keepdim=True)
        centred = x - mean
        var = centred.square().mean(dim=-1, keepdim=True)
        got = answer(x.clone(), 1e-5)
        expect_kind(got, torch.Tensor, "A tensor")
        unbiased = var * x.shape[-1] / (x.shape[-1] - 1)
        slips = [
            (
                centred / torch.sqrt(unbiased + 1e-5),
                "The spread is that of the unbiased variance, which divides by n − 1; LayerNorm divides by n.",
            ),
            (
                centred / (var + 1e-5),
                "You divided by the variance; the numbers have to be divided by its square root.",
            ),
            (centred, "The mean is gone, but the variance is not 1 yet: one division is missing."),
            (x / torch.sqrt(var + 1e-5), "The mean is still in your result: subtract it before you divide."),
            (
                (x - x.mean()) / torch.sqrt(x.var(unbiased=False) + 1e-5),
                "Mean and variance are taken over the whole tensor; each row of the last dimension has its own.",
            ),
            (
                (x - x.mean(dim=0)) / torch.sqrt(x.var(dim=0, unbiased=False) + 1e-5),
                "Mean and variance run over dimension 0; the features are in the last dimension.",
            ),
        ]
        case = f"For x of shape {shape} the result differs from mean 0 and variance 1."
        expect_close(got, centred / torch.sqrt(var + 1e-5), case, slips)
    flat = answer(torch.full((2, 4), 3.0), 1e-5)
    expect(
        same(flat, torch.zeros(2, 4)),
        "A row whose numbers are all equal must come out as zeros, not as NaN. What is eps for?",
    )
    x = torch.randn(2, 4, generator=generator)
    centred = x - x.mean(dim=-1, keepdim=True)
    expected = centred / torch.sqrt(centred.square().mean(dim=-1, keepdim=True) + 0.5)
    expect_close(answer(x.clone(), 0.5), expected, "With eps=0.5 the result differs: add eps under the square root.")
    return (
        "Each row has lost its mean and been divided by its own standard deviation, with eps under the root so that a "
        "row of equal numbers gives zeros. Nothing was taken from the other rows."
    )


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
        expect_close(memory, right_memory, f"{size}:", slips, rtol=1e-4, atol=0, otherwise=bytes_each)
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


_RATES = ("drop_rate_emb", "drop_rate_shortcut", "drop_rate_attn")


def _small_config(**changes: Any) -> dict[str, Any]:
    cfg = {**GPT_CONFIG_124M, "vocab_size": 61, "context_length": 12, "emb_dim": 24, "n_heads": 3, "n_layers": 2}
    del cfg["drop_rate"]
    return {**cfg, **changes}


@exercise("4.3", "GPTModelThreeRates(cfg)")
def exercise_4_3(answer: type[nn.Module]) -> str:
    """Check a model class whose configuration has three dropout rates in place of `drop_rate`."""
    _check_rates(answer, dict(zip(_RATES, (0.11, 0.22, 0.33), strict=True)))
    _check_rates(answer, dict(zip(_RATES, (0.4, 0.3, 0.2), strict=True)))
    ids = torch.randint(0, 61, (2, 9))
    for chosen in (*_RATES, None):
        model = answer(_small_config(**{name: 0.5 if name == chosen else 0.0 for name in _RATES}))
        calm, lively = read_tensor(call(model.eval(), ids)), read_tensor(call(model.train(), ids))
        expect(calm.shape == (2, 9, 61), f"The logits have shape {tuple(calm.shape)}, not (B, T, vocab_size).")
        expect(
            chosen is None or not same(calm, lively),
            f"With only {chosen} above 0, training and evaluation give the same logits: that dropout is not used.",
        )
        expect(
            chosen is not None or same(calm, lively),
            "With all three rates at 0 the training logits still vary: some dropout has a rate of its own.",
        )
    return (
        "Each of the three places reads its own entry, and each of them acts in training. Separate rates let you "
        "treat the attention weights, the embeddings and the shortcuts differently; newer models mostly set all to 0."
    )


def _check_rates(answer: type[nn.Module], rates: dict[str, float]) -> None:
    cfg = _small_config(**rates)
    hint = "Something still reads cfg['drop_rate'], which this configuration does not have."
    with explained((KeyError, ValueError), hint, "'drop_rate'"):
        model = answer(cfg)
    expect(isinstance(model, nn.Module), "Calling your class with a configuration must give an nn.Module.")
    found: dict[str, list[float]] = {name: [] for name in _RATES}
    attentions = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    in_attention = {module for attention in attentions for module in attention.modules()}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Dropout):
            continue
        if module in in_attention:
            found["drop_rate_attn"].append(module.p)
        elif any(part.isdigit() for part in name.split(".")):  # one of several blocks, as in trf_blocks.0
            found["drop_rate_shortcut"].append(module.p)
        else:
            found["drop_rate_emb"].append(module.p)
    places = {
        "drop_rate_emb": "after the embeddings",
        "drop_rate_shortcut": "in the blocks before the shortcut is added",
        "drop_rate_attn": "inside MultiHeadAttention",
    }
    for name, place in places.items():
        expect(bool(found[name]), f"There is no Dropout {place}.")
        for rate in found[name]:
            other = [key for key in _RATES if key != name and math.isclose(rate, cfg[key])]
            expect(not other, f"The Dropout {place} has the rate of {other[0] if other else ''}, not of {name}.")
            expect(math.isclose(rate, cfg[name]), f"The Dropout {place} has p={rate:g}; {name} is {cfg[name]:g}.")
    expect(
        len(found["drop_rate_attn"]) == cfg["n_layers"],
        f"{cfg['n_layers']} blocks are expected, each with one attention.",
    )


@exercise("4.4", "block_parameters(cfg)")
def exercise_4_4(answer: Callable[[dict[str, Any]], int]) -> str:
    """Check `block_parameters(cfg)` on random configurations."""
    generator = torch.Generator().manual_seed(44)
    for trial in range(8):
        heads = int(torch.randint(1, 9, (), generator=generator))
        emb = heads * int(torch.randint(2, 30, (), generator=generator))
        bias = trial % 2 == 1
        cfg = {**GPT_CONFIG_124M, "emb_dim": emb, "n_heads": heads, "n_layers": 2 + trial, "qkv_bias": bias}
        cfg.update(context_length=16, vocab_size=50 + trial)
        with torch.device("meta"):
            block = TransformerBlock(cfg)
        right = sum(p.numel() for p in block.parameters())
        got = read_integer(answer(dict(cfg)))
        slips = [
            (right - 4 * emb, "The two LayerNorms are missing: each has a scale and a shift."),
            (right - 2 * emb, "Only one LayerNorm is counted, or only its scale."),
            (right - emb, "Attention's output projection has a bias, even if queries, keys and values have none."),
            (right - 5 * emb, "The biases of the feed-forward layers are missing: one per output of each layer."),
            (right - emb * emb - emb, "Attention's output projection is missing."),
            (right * cfg["n_layers"], "That is all blocks together; one is asked for."),
            (right - 3 * emb, "With qkv_bias=True, queries, keys and values have biases too.")
            if bias
            else (right + 3 * emb, "With qkv_bias=False, queries, keys and values have no biases."),
        ]
        expect_close(got, right, f"Tried with emb_dim={emb}, n_heads={heads}, qkv_bias={bias}.", slips)
    return (
        "Your formula agrees with blocks that were really built, in all eight configurations. The number of heads is "
        "not in it: heads divide the projections, they add nothing."
    )


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


@exercise("4.5", "generate_until(model, idx, max_new_tokens, context_size, stop_id)")
def exercise_4_5(answer: Callable[..., torch.Tensor]) -> str:
    """Check `generate_until(model, idx, max_new_tokens, context_size, stop_id)` with stand-in models."""
    generator, most, stop = torch.Generator().manual_seed(45), 9, 1
    for _ in range(20):
        vocab, context = (int(torch.randint(low, 12, (), generator=generator)) for low in (5, 2))
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


@exercise("4.6", "overall_slopes(slopes)")
def exercise_4_6(answer: Callable[[list[float]], tuple[float, float]]) -> str:
    """Check `overall_slopes(slopes)`: the slope of a chain of layers, without and with shortcuts."""
    generator = torch.Generator().manual_seed(46)
    for length in (1, 2, 5, 12):
        slopes = (torch.rand(length, generator=generator) * 1.4 - 0.4).tolist()
        pair = "Two numbers are expected: (without, with)."
        without, shortcuts = read_numbers(answer(list(slopes)), 2, pair)
        right, right_shortcuts = math.prod(slopes), math.prod(1 + slope for slope in slopes)
        close = functools.partial(same, rtol=1e-4, atol=1e-9)  # products of many slopes are small
        swapped = close(without, right_shortcuts) and close(shortcuts, right)
        expect(close(without, right) or not swapped, "Both numbers are right, but the other way round.")
        case = "(slopes " + ", ".join(f"{slope:.2f}" for slope in slopes[:5]) + (", …):" if length > 5 else "):")
        product = f"Without shortcuts the slope of a chain is a product {case}"
        expect_close(without, right, product, rtol=1e-4, atol=1e-9)
        slips = [(1 + right, "That is one shortcut around the whole chain; here every layer has its own.")]
        slope = f"expected {brief(right_shortcuts)}, got {brief(shortcuts)}. What is the slope of x + f(x)?"
        expect_close(shortcuts, right_shortcuts, f"With shortcuts {case}", slips, rtol=1e-4, atol=1e-9, otherwise=slope)
    return (
        "A chain multiplies the slopes of its layers. Small ones make the product vanish; with a shortcut each factor "
        "becomes 1 plus the slope, so a layer that does nearly nothing passes the gradient on unchanged."
    )


self_test_4 = self_test("4", "ch04")
