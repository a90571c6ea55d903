"""The nine ways to compute attention agree: outputs, gradients, training, in a model; and so do the tiles."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import GPTModel, MultiHeadAttention, gpt_config, replace_linear_with_lora
from helpers.speed import attention_variants
from helpers.speed.attention_variants import (
    CombinedAttention,
    EinsumAttention,
    FlashAttention,
    FlexAttention,
    MathAttention,
    TorchAttention,
    WrapperAttention,
    stacked,
    tiled_attention,
    variants,
)

NAMES = [
    "1 heads side by side",
    "2 split into heads",
    "3 combined QKV",
    "4 einsum",
    "5 sdpa without Flash",
    "6 sdpa with Flash",
    "7 nn.MultiheadAttention",
    "8 ... without weights",
    "9 FlexAttention",
]
TRAINED = [name for name in NAMES if name != "9 FlexAttention"]


def layer(emb_dim=24, heads=3, context=40, seed=0, **options) -> MultiHeadAttention:
    torch.manual_seed(seed)
    return MultiHeadAttention(emb_dim, emb_dim, context, dropout=0.0, num_heads=heads, **{"qkv_bias": True, **options})


def close(a, b, atol=1e-5):
    return torch.allclose(a, b, rtol=0, atol=atol)


def test_names():
    assert list(variants(layer())) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("emb_dim", "heads"), [(24, 3), (8, 1), (12, 12), (64, 4)])
def test_outputs_agree(name, bias, emb_dim, heads):
    att = layer(emb_dim, heads, qkv_bias=bias)
    variant = variants(att)[name]
    with torch.no_grad():
        for batch, length in ((1, 1), (3, 2), (2, 17), (1, 40)):
            x = 3 * torch.randn(batch, length, emb_dim)
            assert variant(x).shape == x.shape
            assert close(variant(x), att(x))


@pytest.mark.parametrize("name", NAMES)
def test_no_token_sees_a_later_one(name):
    variant = variants(layer())[name]
    x = torch.randn(1, 20, 24)
    with torch.no_grad():
        before = variant(x)
        x[:, 12:] += 1
        after = variant(x)
    assert close(before[:, :12], after[:, :12], 1e-6) and not close(before[:, 12:], after[:, 12:], 1e-2)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_agree(name, bias):
    att = layer(qkv_bias=bias)
    variant, gradients = variants(att)[name], []
    x, direction = torch.randn(2, 40, 24), torch.randn(2, 40, 24)
    for module in (att, variant):
        given = x.clone().requires_grad_()
        (module(given) * direction).sum().backward()
        gradients.append(given.grad)
    assert gradients[0].abs().max() > 0.1
    assert close(*gradients)


@pytest.mark.parametrize("name", TRAINED)
def test_they_learn_the_same(name):
    """After a few updates by Adam the layers, whose weights lie in other shapes, still compute the same."""
    att = layer()
    variant, after = variants(att)[name], []
    x = torch.randn(2, 40, 24)
    before = att(x).detach()
    for module in (att, variant):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01, eps=1e-3)
        for _ in range(5):
            optimizer.zero_grad()
            (module(x) - 1).square().sum().backward()
            optimizer.step()
        after.append(module(x).detach())
    assert (after[0] - before).abs().max() > 0.1
    assert close(*after, atol=5e-5)


def test_flex_attention_gives_no_gradients_on_a_cpu():
    """If this fails, PyTorch has learned it: the notebook's sections 2.3 and 3.2 say otherwise."""
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        FlexAttention(layer())(torch.randn(1, 5, 24))


def test_flex_attention_does_not_warn():
    code = (
        "import torch, warnings; warnings.simplefilter('error'); from helpers import MultiHeadAttention\n"
        "from helpers.speed.attention_variants import FlexAttention\n"
        "with torch.no_grad(): FlexAttention(MultiHeadAttention(8, 8, 9, 0.0, 2))(torch.randn(1, 9, 8))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_copies(name):
    att = layer()
    x = torch.randn(1, 5, 24)
    variant = variants(att)[name]
    with torch.no_grad():
        before = variant(x)
        for parameter in att.parameters():
            parameter.add_(1)
        assert torch.equal(variant(x), before) and not close(att(x), before, 0.1)
    assert all(parameter.requires_grad for parameter in variant.parameters())
    assert sum(p.numel() for p in variant.parameters()) == sum(p.numel() for p in att.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_in_a_model(name):
    torch.manual_seed(1)
    sizes = {"emb_dim": 24, "n_heads": 3, "n_layers": 3, "context_length": 16, "vocab_size": 50}
    model = GPTModel(gpt_config(**sizes, drop_rate=0.0, qkv_bias=True)).eval()
    changed, ids = copy.deepcopy(model), torch.randint(50, (2, 16))
    for block in changed.trf_blocks:
        block.att = variants(block.att)[name]
    with torch.no_grad():
        assert close(changed(ids), model(ids))


def test_double_precision():
    """In float64 the agreement is to more digits, so it is not the tolerance that makes them agree."""
    att = layer().double()
    x = torch.randn(2, 40, 24, dtype=torch.float64)
    with torch.no_grad():
        for name, variant in variants(att).items():
            assert close(variant(x), att(x), 1e-13), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu(name):
    """In bfloat16, which all kernels there take, outputs and gradients agree to its three digits."""
    att = layer(64, 4, 256).to("cuda", torch.bfloat16)
    variant, found = variants(att)[name], []
    x = torch.randn(2, 256, 64, device="cuda", dtype=torch.bfloat16)
    for module in (att, variant):
        given = x.clone().requires_grad_()
        output = module(given)
        output.float().square().sum().backward()
        found.append((output.float(), given.grad.float()))
    for plain, other in zip(*found, strict=True):
        assert close(plain, other, 0.03 * plain.abs().max().item())


def test_stacked():
    weight, bias = stacked(layer())
    assert (weight.shape, bias.shape, weight.requires_grad) == ((72, 24), (72,), False)
    assert torch.equal(weight[24:48], layer().W_key.weight) and torch.equal(bias[48:], layer().W_value.bias)
    weight, bias = stacked(layer(qkv_bias=False))
    assert not bias.any() and bias.shape == (72,)


KINDS = [
    WrapperAttention,
    CombinedAttention,
    EinsumAttention,
    MathAttention,
    FlashAttention,
    FlexAttention,
    lambda att: TorchAttention(att, need_weights=False),
]


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_tokens(kind):
    with torch.no_grad(), pytest.raises(ValueError, match="x has 41 tokens, but context_length is 40"):
        kind(layer())(torch.randn(1, 41, 24))


def with_dropout(att):
    att.dropout.p = 0.1


def with_another_mask(att):
    att.mask.zero_()


def with_one_bias_less(att):
    att.W_key.bias = None


def with_another_output(att):
    att.out_proj = nn.Linear(24, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_dropout, "att has a dropout of 0.1: set att.dropout.p = 0"),
        (with_another_mask, "att must be a MultiHeadAttention of chapter 3"),
        (with_one_bias_less, "for none of them"),
        (with_another_output, "one square shape"),
        (lambda att: replace_linear_with_lora(att, rank=2, alpha=2), "four nn.Linear layers"),
    ],
)
def test_what_cannot_be_taken_over(change, message):
    att = layer()
    change(att)
    with pytest.raises(ValueError, match=message):
        CombinedAttention(att)
    with pytest.raises(ValueError, match="att must be a MultiHeadAttention"):
        CombinedAttention(nn.Linear(24, 24))


def test_kernels_are_the_ones_that_were_chosen():
    """On a CPU, ways 6 and 8 run the Flash kernel, and 5 the plain one."""
    x = torch.randn(1, 40, 24)
    for name, variant in variants(layer()).items():
        with torch.no_grad(), torch.profiler.profile() as record:
            variant(x)
        names = {event.key for event in record.key_averages()}
        assert ("aten::_scaled_dot_product_flash_attention_for_cpu" in names) == (name[0] in "68"), name
        assert ("aten::_scaled_dot_product_attention_math" in names) == (name[0] == "5"), name


class TestTiles:
    @pytest.mark.parametrize("block", [1, 2, 5, 16, 37, 64])
    @pytest.mark.parametrize("shape", [(37, 8), (2, 37, 8), (2, 3, 37, 4), (1, 1, 1)])
    def test_they_agree_with_pytorch(self, block, shape):
        generator = torch.Generator().manual_seed(block)
        q, k, v = (2 * torch.randn(shape, generator=generator) for _ in range(3))
        assert close(tiled_attention(q, k, v, block), F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def test_large_scores(self):
        q, k, v = (torch.randn(30, 4) for _ in range(3))
        q = 1e4 * q
        result = tiled_attention(q, k, v, 8)
        assert result.isfinite().all()
        assert close(result, F.scaled_dot_product_attention(q, k, v, is_causal=True), 1e-3)

    def test_gradients(self):
        gradients = []
        for attend in (
            lambda q, k, v: tiled_attention(q, k, v, 8),
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        ):
            torch.manual_seed(2)
            given = [torch.randn(2, 21, 4, requires_grad=True) for _ in range(3)]
            attend(*given).square().sum().backward()
            gradients.append(torch.stack([tensor.grad for tensor in given]))
        assert close(*gradients, atol=1e-4)


def test_blocks_are_made_once():
    first = attention_variants.causal_blocks(33, torch.device("cpu"))
    assert attention_variants.causal_blocks(33, torch.device("cpu")) is first
