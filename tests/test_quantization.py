"""8-bit weights: outputs and perplexity close to the exact ones, generation, and the size."""

import math

import pytest
import torch
from torch.testing import assert_close

from helpers import calc_loss_loader, fuse, generate, generate_batch, quantize_int8, training_steps
from helpers.quantization import Int8Linear
from tests.tiny import CPU, lively_model, loader, tiny_model, windows


def size(model):
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return sum(t.numel() * t.element_size() for name, t in tensors.items() if "mask" not in name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 64), (3, 64), (2, 5, 64), (1, 1, 64)])
def test_a_layer(bias, shape):
    torch.manual_seed(1)
    linear, x = torch.nn.Linear(64, 48, bias=bias), torch.randn(shape)
    layer = Int8Linear(linear)
    out = layer(x.to(torch.bfloat16))
    expected = linear(x)
    assert out.shape == expected.shape and out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("width", [1, 5, 8, 16, 17, 24, 40, 100])
def test_any_width(width):
    """PyTorch's kernel reads past the end, and may end Python, where the width is not a multiple of 16."""
    torch.manual_seed(1)
    linear, x = torch.nn.Linear(width, 37), torch.randn(48, width)
    expected = linear(x)
    assert (Int8Linear(linear)(x.to(torch.bfloat16)).float() - expected).norm() < 0.02 * expected.norm()


def test_rounding():
    """Each row's largest weight becomes 127, and no weight is off by more than half a step."""
    torch.manual_seed(1)
    linear = torch.nn.Linear(64, 48)
    with torch.no_grad():
        linear.weight[3] *= 100
        linear.weight[5] = 0
    layer = Int8Linear(linear)
    assert layer.weight.dtype == torch.int8
    largest = layer.weight.int().abs().amax(dim=1)
    assert largest.tolist() == [127] * 5 + [0] + [127] * 42
    step = linear.weight.detach().abs().amax(dim=1).clamp(min=1e-12) / 127
    assert ((layer.weight * step[:, None] - linear.weight).abs() <= 0.5001 * step[:, None]).all()


@pytest.mark.parametrize("options", [{}, {"tied": True}, {"qkv_bias": True}])
def test_outputs(options):
    model, ids = lively_model(2, **options), windows(3, 16)[0]
    expected = model(ids)
    quantized = quantize_int8(model)
    assert quantized is model and not model.training
    assert not [module for module in model.modules() if type(module) is torch.nn.Linear]
    with torch.no_grad():
        out = model(ids)
    assert (out.float() - expected).norm() < 0.06 * expected.norm()


def test_the_embedding_of_a_tied_model_is_not_rounded():
    model = lively_model(2, tied=True)
    embedding = model.tok_emb.weight.detach().clone()
    quantize_int8(model)
    assert torch.equal(model.tok_emb.weight, embedding.to(torch.bfloat16))
    restored = model.out_head.weight[:, :24] * model.out_head.scale.float()[:, None]
    assert_close(restored, embedding, rtol=0.02, atol=0.02)


def test_perplexity():
    model, data = tiny_model(3), loader(6, batch_size=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in training_steps(model, data, optimizer, CPU, num_epochs=12):
        pass
    model.eval()
    with torch.no_grad():
        exact = calc_loss_loader(data, model, CPU)
        assert 0.3 < exact < 4.0  # it has learned something, but not everything
        quantized = calc_loss_loader(data, quantize_int8(model), CPU)
    assert math.exp(quantized - exact) == pytest.approx(1.0, abs=0.01)


def test_generation():
    model, ids = quantize_int8(lively_model(2)), windows(3, 4)[0]
    cached, plain = (generate(model, ids, 20, 16, use_cache=use_cache) for use_cache in (True, False))
    assert cached.shape == plain.shape == (3, 24)
    assert (cached[:, :6] == plain[:, :6]).float().mean() > 0.8  # rounding may part them later
    assert len(generate_batch(model, [[1, 2], [3], [4, 5, 6]], 5, 16)) == 3


def test_a_fused_model():
    ids = windows(2)[0]
    expected = lively_model(2)(ids)
    with torch.no_grad():
        out = quantize_int8(fuse(lively_model(2)))(ids)
    assert (out.float() - expected).norm() < 0.06 * expected.norm()


def test_size():
    options = {"emb_dim": 192, "n_layers": 3, "vocab_size": 400}
    assert size(quantize_int8(lively_model(1, **options))) / size(lively_model(1, **options)) == pytest.approx(
        0.28, abs=0.03
    )
