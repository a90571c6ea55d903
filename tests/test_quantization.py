"""Weights in 16 and 8 bits: outputs and perplexity close to the exact ones, generation, and the size. Packed ones."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from helpers import (
    calc_loss_loader,
    fuse,
    generate,
    generate_batch,
    pack_weights,
    quantize_int8,
    replace_linear_with_lora,
    save_model,
    to_bfloat16,
    training_steps,
)
from helpers.checkpoints import load_model, load_saved_gpt
from helpers.speed.weight_formats import BFloat16Linear, Int8Linear, PackedLinear
from tests.tiny import CPU, TINY, lively_model, loader, tiny_model, windows

KINDS = pytest.mark.parametrize("kind", [BFloat16Linear, Int8Linear])
BOTH = pytest.mark.parametrize("smaller", [to_bfloat16, quantize_int8])
PIECE = Int8Linear.piece


def size(model):
    """Bytes that the model's parameters and packed weights take in memory."""
    packed = [buffer for name, buffer in model.named_buffers() if name.endswith(".packed")]
    return sum(part.nbytes for part in [*model.parameters(), *packed])


def matrix(layer):
    """The rounded weights (d_out, d_in) of a layer, by its definition."""
    pieces = layer.unpack(layer.packed)  # (blocks * d_in, width)
    return pieces.view(layer.blocks, layer.d_in, -1).transpose(1, 2).reshape(-1, layer.d_in)[: layer.d_out]


@KINDS
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (3, 64), (2, 5, 64), (1, 1, 64), (16, 64), (17, 64), (2, 20, 64)])
def test_a_layer(kind, bias, shape):
    torch.manual_seed(1)
    linear, x = torch.nn.Linear(64, 48, bias=bias), torch.randn(shape)
    out, expected = kind(linear)(x.to(kind.dtype)), linear(x)
    assert out.shape == expected.shape and out.dtype == kind.dtype
    assert (out - expected).norm() < 0.01 * expected.norm()


@KINDS
@pytest.mark.parametrize("rows", [1, 3, 4, 16, 17])
@pytest.mark.parametrize(("d_in", "d_out"), [(1, 1), (5, 37), (40, PIECE), (24, PIECE + 1), (100, 2 * PIECE), (7, 900)])
def test_any_size(kind, rows, d_in, d_out):
    """The kernel gives what the rounded matrix gives, in all rows and outputs, but for the rounding of the result."""
    torch.manual_seed(1)
    layer, x = kind(torch.nn.Linear(d_in, d_out)), torch.randn(rows, d_in).to(kind.dtype)
    exact = x.float() @ matrix(layer).float().T + layer.bias.float()
    tolerance = 1e-4 if kind is Int8Linear else 1.5e-2  # bfloat16 has eight binary digits, and rounds twice
    assert_close(layer(x).float(), exact, rtol=tolerance, atol=tolerance)


def test_rounding():
    """No weight is off by more than half a step, a 255th of the range of its piece."""
    torch.manual_seed(1)
    linear = torch.nn.Linear(64, 2 * PIECE)
    with torch.no_grad():
        linear.weight[:, 3] *= 100
        linear.weight[:PIECE, 5] = 0
    layer = Int8Linear(linear)
    assert layer.packed.dtype == torch.uint8
    pieces = linear.weight.detach().view(2, PIECE, 64)
    step = (pieces.amax(dim=1) - pieces.amin(dim=1)) / 255  # (2, 64)
    error = (matrix(layer).view(2, PIECE, 64) - pieces).abs()
    assert (error <= 0.51 * step[:, None] + 1e-7).all()
    assert error[0, :, 5].max() == 0 and error[:, :, 3].max() > 10 * error[:, :, 4].max()


@BOTH
@pytest.mark.parametrize("options", [{}, {"tied": True}, {"qkv_bias": True}])
def test_outputs(smaller, options):
    model, ids = lively_model(2, **options), windows(3, 16)[0]
    expected = model(ids)
    quantized = smaller(model)
    assert quantized is model and not model.training
    assert not [module for module in model.modules() if type(module) is torch.nn.Linear]
    with torch.no_grad():
        out = model(ids)
    assert (out - expected).norm() < 0.03 * expected.norm()


def test_the_embedding_of_a_tied_model_is_not_rounded():
    model = lively_model(2, tied=True)
    embedding = model.tok_emb.weight.detach().clone()
    quantize_int8(model)
    assert torch.equal(model.tok_emb.weight, embedding)
    assert not torch.equal(matrix(model.out_head), embedding)
    assert_close(matrix(model.out_head), embedding, rtol=0.02, atol=0.02)


@BOTH
def test_perplexity(smaller):
    model, data = tiny_model(3), loader(6, batch_size=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in training_steps(model, data, optimizer, CPU, num_epochs=12):
        pass
    model.eval()
    with torch.no_grad():
        exact = calc_loss_loader(data, model, CPU)
        assert 0.3 < exact < 4.0  # it has learned something, but not everything
        quantized = calc_loss_loader(data, smaller(model), CPU)
    assert math.exp(quantized - exact) == pytest.approx(1.0, abs=0.01)


@BOTH
def test_generation(smaller):
    model, ids = smaller(lively_model(2)), windows(3, 4)[0]
    cached, plain = (generate(model, ids, 20, 16, use_cache=use_cache) for use_cache in (True, False))
    assert cached.shape == plain.shape == (3, 24)
    assert (cached[:, :6] == plain[:, :6]).float().mean() > 0.8  # rounding may part them later
    assert len(generate_batch(model, [[1, 2], [3], [4, 5, 6]], 5, 16)) == 3


@BOTH
def test_a_fused_model(smaller):
    ids = windows(2)[0]
    expected = lively_model(2)(ids)
    with torch.no_grad():
        out = smaller(fuse(lively_model(2)))(ids)
    assert (out - expected).norm() < 0.03 * expected.norm()


def test_size():
    """8 bits: a quarter for the linear layers; the embeddings and what has one dimension stay as they are."""
    options = {"emb_dim": 384, "n_layers": 3, "vocab_size": 400}
    before, after = size(lively_model(1, **options)), size(quantize_int8(lively_model(1, **options)))
    linear = 4 * (3 * 12 * 384 * 384 + 400 * 384)
    assert (after - (before - linear)) / linear == pytest.approx(0.26, abs=0.01)


class TestPacked:
    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", [(70,), (1, 70), (8, 70), (2, 5, 70), (300, 70)])
    def test_a_layer(self, bias, shape):
        torch.manual_seed(1)
        linear, x = torch.nn.Linear(70, 45, bias=bias), torch.randn(*shape, 2)
        layer = PackedLinear(linear)
        with torch.no_grad():
            for numbers in (x[..., 0].contiguous(), x[..., 1]):
                assert_close(layer(numbers), linear(numbers), rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("options", [{}, {"tied": True}, {"qkv_bias": True}])
    def test_a_model(self, options):
        model, plain, ids = lively_model(2, **options), lively_model(2, **options), windows(3, 16)[0]
        assert pack_weights(model) is model and not model.training
        assert not [module for module in model.modules() if type(module) is torch.nn.Linear]
        assert_close(model(ids), plain.eval()(ids), rtol=1e-4, atol=1e-4)
        prompts = [[1, 2], [3], [4, 5, 6, 7, 8], [9] * 7]
        assert generate_batch(model, prompts, 9, 16) == generate_batch(plain, prompts, 9, 16)

    @pytest.mark.parametrize("tied", [True, False])
    def test_saved_and_copied(self, tied, tmp_path):
        plain = lively_model(2, tied=tied)
        packed = pack_weights(copy.deepcopy(plain))
        assert packed.state_dict().keys() == plain.state_dict().keys()
        save_model(packed, tmp_path / "packed.safetensors")
        read, _ = load_saved_gpt(tmp_path / "packed.safetensors")
        for name, weight in plain.state_dict().items():
            assert torch.equal(read.state_dict()[name], weight)
        twin, ids = copy.deepcopy(packed), windows(2)[0]
        twin.out_head.bias = torch.nn.Parameter(torch.ones(len(packed.tok_emb.weight)))
        assert_close(twin(ids), packed(ids) + 1)
        assert twin.out_head.packed.is_mkldnn  # packed again, not only equal

    def test_without_onednn(self, monkeypatch):
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        model = pack_weights(lively_model(2))
        assert type(model.out_head) is torch.nn.Linear and not model.training


WITHOUT_OPERATORS = """
import importlib, pkgutil
import torch

look_up = torch._ops._OpNamespace.__getattr__

def missing(self, name):
    if self.name in ("quantized", "mkldnn"):
        raise AttributeError(f"torch.ops.{self.name} has no {name}")
    return look_up(self, name)

torch._ops._OpNamespace.__getattr__ = missing
for name in ("quantized", "mkldnn"):
    vars(torch.ops).pop(name, None)  # what torch has looked up already

import helpers
for module in pkgutil.walk_packages(helpers.__path__, "helpers."):
    importlib.import_module(module.name)
from tests.tiny import lively_model, windows

model, ids = lively_model(2), windows(3, 4)[0]
expected = helpers.generate(model, ids, 8, 16)
assert type(helpers.pack_weights(model).out_head) is torch.nn.Linear
assert torch.equal(helpers.generate(model, ids, 8, 16), expected)
try:
    helpers.quantize_int8(model)
except NotImplementedError as error:
    print(error)
assert type(model.out_head) is torch.nn.Linear
helpers.to_bfloat16(model)
"""


def test_where_pytorch_lacks_its_private_operators():
    """Everything imports and works, packing leaves the layers as they are, and 8 bits are refused in a sentence."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OPERATORS],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "weights in 8 bits need torch.ops.quantized.embedding_bag_byte_prepack, which PyTorch"
    )


@BOTH
def test_saved_weights_load_into_a_plain_model(smaller, tmp_path):
    """What is saved are the rounded weights in the usual form."""
    model, ids = smaller(lively_model(2)), windows(2)[0]
    save_model(model, tmp_path / "model.safetensors")
    plain, cfg = load_saved_gpt(tmp_path / "model.safetensors")
    assert cfg == TINY and type(plain.out_head) is torch.nn.Linear
    with torch.no_grad():
        assert (plain(ids) - model(ids).float()).norm() < 0.03 * plain(ids).norm()
    with pytest.raises(ValueError, match="is in another format here: load into a plain model, and convert that"):
        load_model(model, tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("convert", [quantize_int8, to_bfloat16, pack_weights])
def test_models_of_other_types(convert, dtype):
    model, ids = convert(lively_model(2).to(dtype)), windows(1, 4)[0]
    expected = lively_model(2)(ids)
    with torch.no_grad():
        assert (model(ids).float() - expected).norm() < 0.05 * expected.norm()
    assert generate(model, ids, 5, 16).shape == (1, 9)


class Clipped(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x).clamp(-0.1, 0.1)


@pytest.mark.parametrize("convert", [quantize_int8, to_bfloat16, pack_weights])
def test_a_layer_of_your_own_stays(convert):
    model = lively_model(2)
    model.trf_blocks[0].att.W_query.__class__ = Clipped
    model.trf_blocks[1].att.W_query.register_forward_hook(lambda module, args, out: 0.5 * out)
    expected, ids = copy.deepcopy(model), windows(1, 8)[0]
    model = convert(model)
    assert type(model.trf_blocks[0].att.W_query) is Clipped
    assert type(model.trf_blocks[1].att.W_query) is torch.nn.Linear
    with torch.no_grad():
        assert (model(ids).float() - expected(ids)).norm() < 0.05 * expected(ids).norm()


@pytest.mark.parametrize("convert", [quantize_int8, to_bfloat16, pack_weights])
def test_layers_of_ones_own_around_converted_ones(convert):
    """What was written for `nn.Linear` may read its weight, and train what stands before it."""

    class Merged(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear, self.added = linear, torch.nn.Parameter(torch.zeros(24, 24))

        def forward(self, x):
            return F.linear(x, self.linear.weight + self.added.to(x.dtype), self.linear.bias)

    ids, model = torch.arange(8)[None], lively_model(1)
    model.trf_blocks[0].att.W_query = Merged(model.trf_blocks[0].att.W_query)
    assert_close(convert(model)(ids).float(), convert(lively_model(1))(ids).float(), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("convert", [quantize_int8, to_bfloat16, pack_weights])
def test_gradients_go_through(convert):
    """LoRA on a model whose weights were converted: the gradients are those of the plain model, to rounding."""
    ids, norms = torch.arange(8)[None], []
    for change in (lambda model: model, convert):
        model = lively_model(1).requires_grad_(False)
        torch.manual_seed(2)
        replace_linear_with_lora(model, 2, 4)
        for name, parameter in model.named_parameters():
            if name.endswith("lora.B"):
                torch.nn.init.normal_(parameter, std=0.1)
        F.cross_entropy(change(model)(ids)[0], ids[0]).backward()
        norms.append(model.trf_blocks[0].att.W_query.lora.A.grad.float().norm().item())
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
