"""What a learner changes counts: with any part of a model replaced, each fast path gives what the plain loop gives."""

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import helpers.speed.loss
from helpers import (
    GELU,
    FeedForward,
    GPTModel,
    LayerNorm,
    MultiHeadAttention,
    TransformerBlock,
    calc_loss_batch,
    calc_loss_batch_labels,
    fuse,
    generate,
    generate_batch,
    generate_text_simple,
    load_course_model,
    load_saved_gpt,
    replace_linear_with_lora,
    save_checkpoint,
    save_gpt2,
    save_model,
    sequence_logprobs,
    training_steps,
)
from helpers.pretrained import read_gpt2, save_course_model
from helpers.speed.chosen import logits_at
from helpers.speed.parts import is_course_gpt
from tests.tiny import CPU, TINY, lively_model, loader, windows


class HalfAttention(MultiHeadAttention):
    def forward(self, x):
        return 0.5 * super().forward(x)


class RMSNorm(LayerNorm):
    def forward(self, x):
        return self.scale * x / (x.pow(2).mean(dim=-1, keepdim=True) + self.eps).sqrt() + self.shift


class ExactGELU(GELU):
    def forward(self, x):
        return F.gelu(x) + 0.1


class ParallelBlock(TransformerBlock):
    def forward(self, x):
        return x + self.att(self.norm1(x)) + self.ff(self.norm2(x))


class WithShortcut(FeedForward):
    def forward(self, x):
        return self.layers(x) + 0.3 * x


class Clipped(nn.Linear):
    def forward(self, x):
        return super().forward(x).clamp(-0.2, 0.2)


class Shifted(nn.Linear):
    """A layer that looks one position back: it must never be given chosen positions only."""

    def forward(self, x):
        return super().forward(torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1))


class ScaledEmbedding(nn.Embedding):
    def forward(self, ids):
        return 3.0 * super().forward(ids)


class Scale(nn.Module):
    def forward(self, x):
        return 0.7 * x


class Twice(nn.Sequential):
    def forward(self, x):
        return super().forward(super().forward(x))


class Cooler(GPTModel):
    def forward(self, in_idx):
        return super().forward(in_idx) / 2 + torch.arange(TINY["vocab_size"]) / 50


class Wrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, in_idx):
        return self.model(in_idx) + torch.arange(TINY["vocab_size"]) / 50


def retype(module, kind):
    module.__class__ = kind


def exchange(parent, name, kind, **options):
    old = getattr(parent, name)
    new = kind(old.in_features, old.out_features, **options)
    new.load_state_dict(old.state_dict(), strict=False)
    setattr(parent, name, new)


def bias_of_the_output_layer(model):
    exchange(model, "out_head", nn.Linear, bias=True)
    model.out_head.bias.data.copy_(torch.arange(TINY["vocab_size"]) / 40)


def window_of_three(model):
    for block in model.trf_blocks:
        length = len(block.att.mask)
        block.att.mask |= torch.tril(torch.ones(length, length, dtype=torch.bool), diagonal=-3)


def no_mask(model):
    for block in model.trf_blocks:
        block.att.mask.zero_()


def assigned_forward(model):
    block = model.trf_blocks[1]
    block.forward = lambda x: x + block.ff(block.norm2(x))


def parametrized(model):
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    nn.utils.parametrize.register_parametrization(model.trf_blocks[0].att.W_value, "weight", Double())


def halve_input(module, args):
    return (0.5 * args[0],)


def halve_output(module, args, output):
    return 0.5 * output


CHANGES = {
    "attention": lambda model: retype(model.trf_blocks[1].att, HalfAttention),
    "block": lambda model: retype(model.trf_blocks[0], ParallelBlock),
    "norm in a block": lambda model: retype(model.trf_blocks[0].norm2, RMSNorm),
    "final norm": lambda model: retype(model.final_norm, RMSNorm),
    "activation": lambda model: retype(model.trf_blocks[0].ff.layers[1], ExactGELU),
    "PyTorch's own activation": lambda model: setattr(model.trf_blocks[0].ff.layers, "1", nn.ReLU()),
    "feed-forward": lambda model: retype(model.trf_blocks[1].ff, WithShortcut),
    "a subclass of nn.Linear in attention": lambda model: exchange(
        model.trf_blocks[0].att, "W_query", Clipped, bias=False
    ),
    "a layer that looks back": lambda model: exchange(model, "out_head", Shifted, bias=False),
    "output layer": lambda model: exchange(model, "out_head", Clipped, bias=False),
    "bias of the output layer": bias_of_the_output_layer,
    "token embedding": lambda model: retype(model.tok_emb, ScaledEmbedding),
    "position embedding": lambda model: retype(model.pos_emb, ScaledEmbedding),
    "dropout of the embedding": lambda model: setattr(model, "drop_emb", Scale()),
    "dropout of a shortcut": lambda model: setattr(model.trf_blocks[1], "drop_shortcut", Scale()),
    "dropout of attention weights": lambda model: setattr(model.trf_blocks[1].att, "dropout", Scale()),
    "the sequence of blocks": lambda model: retype(model.trf_blocks, Twice),
    "one block less": lambda model: setattr(model, "trf_blocks", model.trf_blocks[:1]),
    "a sliding window": window_of_three,
    "no mask": no_mask,
    "forward assigned to a block": assigned_forward,
    "a hook on attention": lambda model: model.trf_blocks[0].att.register_forward_hook(halve_output),
    "a hook on a norm": lambda model: model.final_norm.register_forward_hook(lambda m, args, out: out.clamp(-1, 1)),
    "a hook on the output layer": lambda model: model.out_head.register_forward_hook(lambda m, a, out: out.roll(1, -1)),
    "a hook before a block": lambda model: model.trf_blocks[1].register_forward_pre_hook(
        lambda m, args: (0.5 * args[0],)
    ),
    "a hook on dropout": lambda model: model.trf_blocks[1].att.dropout.register_forward_hook(
        lambda m, a, out: 0.5 * out
    ),
    "a parametrized weight": parametrized,
    "a subclass of the model": lambda model: retype(model, Cooler),
    "a wrapper around the model": Wrapper,
    "LoRA": lambda model: replace_linear_with_lora(model, 2, 4),
    "nothing": lambda model: None,
}
SAME_RESULT = {"LoRA", "nothing"}  # B of LoRA begins at zero


def model_with(change):
    """A model with one part replaced, in evaluation mode."""
    model = lively_model(3)
    result = CHANGES[change](model)
    return (result if isinstance(result, Wrapper) else model).eval()


@pytest.fixture(name="changed", params=CHANGES)
def changed_model(request):
    return model_with(request.param)


def plain_losses(model, inputs, targets):
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), ignore_index=-100)


def some_ignored(targets):
    targets = targets.clone()
    targets[0, :3], targets[-1, 4:] = -100, -100
    return targets


def test_each_change_changes_the_model(request, changed):
    """Otherwise the tests below would show nothing."""
    inputs, _ = windows(2, 8)
    name = request.node.callspec.params["changed"]
    assert torch.allclose(changed(inputs), lively_model(3)(inputs)) is (name in SAME_RESULT)


def test_text(changed):
    prompt = windows(2, 5)[0]
    plain = generate_text_simple(changed, prompt, 9, 16)
    assert torch.equal(generate(changed, prompt, 9, 16), plain)
    assert generate_batch(changed, prompt, 9, 16) == plain[:, 5:].tolist()


def test_losses_of_fine_tuning(changed):
    inputs, targets = windows(3, 8)
    targets = some_ignored(targets)
    expected = plain_losses(changed, inputs, targets)
    assert_close(calc_loss_batch_labels(inputs, targets, changed, CPU), expected, rtol=1e-5, atol=1e-6)
    logp = torch.log_softmax(changed(inputs), dim=-1)
    chosen = logp.gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0].masked_fill(targets == -100, 0.0).sum(dim=1)
    assert_close(sequence_logprobs(changed, inputs, targets), chosen, rtol=1e-5, atol=1e-4)
    assert_close(logits_at(changed, inputs, targets != -100), changed(inputs)[targets != -100], rtol=1e-5, atol=1e-5)


def test_fused_kernels(changed):
    inputs, _ = windows(2, 8)
    expected = changed(inputs)
    assert_close(fuse(changed)(inputs), expected, rtol=1e-4, atol=1e-4)


def test_a_saved_model_comes_back_as_it_was_or_not_at_all(changed, tmp_path):
    """A file that can say only sizes and weights must not make a plain model of a changed one."""
    inputs, _ = windows(1, 16)
    save_model(changed, tmp_path / "model.safetensors")
    save_checkpoint(tmp_path / "run.pt", changed, torch.optim.SGD(changed.parameters(), lr=1.0))
    for file in ("model.safetensors", "run.pt"):
        try:
            again, _ = load_saved_gpt(tmp_path / file)
        except ValueError as error:
            assert "does not say the configuration of a plain GPTModel" in str(error)
        else:
            assert_close(again(inputs), changed(inputs), rtol=1e-4, atol=1e-4)


def test_formats_with_room_for_plain_models_only(request, tmp_path):
    for name in CHANGES:
        model = lively_model(3, tied=True, qkv_bias=True)
        changed = CHANGES[name](model) if name == "a wrapper around the model" else (CHANGES[name](model), model)[1]
        changed.eval()
        for save, read in ((save_gpt2, read_gpt2), (save_course_model, load_course_model)):
            try:
                save(changed, tmp_path / f"{name} {save.__name__}")
            except ValueError as error:
                assert re.search("not a GPTModel of plain|computes something else|output layer of its own", str(error))
                continue
            again = read(tmp_path / f"{name} {save.__name__}")[0]
            inputs, _ = windows(1, 16)
            assert_close(again(inputs), changed(inputs), rtol=0.05, atol=1.0 if read is load_course_model else 1e-3)


@pytest.mark.parametrize("native", [False, True], ids=["float32", "bfloat16"])
def test_fast_training(native, monkeypatch):
    """The losses of a fast run are those of the plain run, to rounding."""
    monkeypatch.setattr(helpers.speed.loss, "bfloat16_is_native", lambda device: native)
    for name in CHANGES:
        runs = []
        for fast in (False, True):
            model = model_with(name)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            runs.append([p.loss for p in training_steps(model, loader(6), optimizer, CPU, 2, fast=fast)])
        assert runs[1] == pytest.approx(runs[0], rel=0.03 if native else 1e-4), name


def test_a_class_that_was_patched(monkeypatch):
    model, prompt = lively_model(3), windows(1, 5)[0]
    assert is_course_gpt(model)
    monkeypatch.setattr(LayerNorm, "forward", lambda self, x: self.scale * x)
    assert not is_course_gpt(model)
    plain = generate_text_simple(model, prompt, 6, 16)
    assert torch.equal(generate(model, prompt, 6, 16), plain)
    assert type(fuse(model).final_norm) is LayerNorm


def test_a_hook_for_all_modules():
    model = lively_model(3)
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: None)
    try:
        assert not is_course_gpt(model)
    finally:
        handle.remove()
    assert is_course_gpt(model)


def test_dropout_that_is_left_on():
    """A part in training mode, as for Monte Carlo dropout, draws; no cache may leave that out."""
    model, prompt = lively_model(3, drop_rate=0.5).eval(), windows(1, 5)[0]
    model.drop_emb.train()
    assert len({tuple(generate(model, prompt, 6, 16)[0].tolist()) for _ in range(8)}) > 1


def test_layers_with_different_numbers_of_heads():
    model, prompt = lively_model(3), windows(1, 5)[0]
    att = model.trf_blocks[1].att
    att.num_heads, att.head_dim = 2, att.d_out // 2
    assert torch.equal(generate(model, prompt, 6, 16), generate_text_simple(model, prompt, 6, 16))


@pytest.mark.parametrize("loss", [calc_loss_batch, calc_loss_batch_labels])
def test_sequences_longer_than_the_context(loss):
    inputs, targets = windows(1, 17)
    with pytest.raises(ValueError, match="17 tokens, but context_length is 16"):
        loss(inputs, targets, lively_model(), CPU)
    with pytest.raises(ValueError, match="17 tokens, but context_length is 16"):
        sequence_logprobs(lively_model(), inputs, targets)


class TestAfterFusing:
    """Fused parts are watched: what is changed in them later counts as well."""

    def both(self, change, train=False):
        inputs, _ = windows(2, 8)
        models = lively_model(3), fuse(lively_model(3))
        for model in models:
            model(inputs)  # the fused one has looked at its masks
            change(model)
        return [model.train(train)(inputs) for model in models]

    @pytest.mark.parametrize("change", [window_of_three, no_mask], ids=["window", "no mask"])
    def test_a_mask(self, change):
        plain, fused = self.both(change)
        assert_close(fused, plain, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(plain, lively_model(3)(windows(2, 8)[0]), atol=1e-2)

    def test_a_mask_that_is_exchanged(self):
        def exchange_masks(model):
            for block in model.trf_blocks:
                block.att.mask = block.att.mask | torch.tril(torch.ones_like(block.att.mask), diagonal=-2)

        plain, fused = self.both(exchange_masks)
        assert_close(fused, plain, rtol=1e-4, atol=1e-4)

    def test_another_module_in_place_of_dropout(self):
        plain, fused = self.both(lambda model: setattr(model.trf_blocks[1].att, "dropout", Scale()), train=True)
        assert_close(fused, plain, rtol=1e-4, atol=1e-4)
        plain, fused = self.both(lambda model: setattr(model.trf_blocks[1].att, "dropout", nn.Identity()), train=True)
        assert_close(fused, plain, rtol=1e-4, atol=1e-4)

    def test_a_hook_that_captures_attention_weights(self):
        captured = []
        model = fuse(lively_model(3))
        model.trf_blocks[0].att.dropout.register_forward_hook(lambda module, args, out: captured.append(out.shape))
        model(windows(2, 8)[0])
        assert captured == [(2, TINY["n_heads"], 8, 8)]

    def test_dropout_of_attention_that_is_left_on(self):
        model, prompt = fuse(lively_model(3)), windows(1, 5)[0]
        for block in model.trf_blocks:
            block.att.dropout.p = 0.5
            block.att.dropout.train()
        assert len({tuple(generate(model, prompt, 6, 16)[0].tolist()) for _ in range(8)}) > 1

    @pytest.mark.parametrize(
        ("kind", "forward"), [(LayerNorm, lambda self, x: self.scale * x), (GELU, lambda self, x: x)]
    )
    def test_a_class_that_is_patched(self, kind, forward, monkeypatch):
        model, prompt = fuse(lively_model(3)), windows(1, 5)[0]
        monkeypatch.setattr(kind, "forward", forward)
        plain = lively_model(3)
        assert not is_course_gpt(model)
        assert_close(model(prompt), plain(prompt), rtol=1e-4, atol=1e-4)
        assert torch.equal(generate(model, prompt, 6, 16), generate_text_simple(plain, prompt, 6, 16))

    def test_a_fused_model_is_copied_and_moved(self):
        model = fuse(lively_model(3))
        model(windows(2, 8)[0])
        twin = copy.deepcopy(model).double()
        window_of_three(twin)
        plain = lively_model(3).double()
        window_of_three(plain)
        assert_close(twin(windows(2, 8)[0]), plain(windows(2, 8)[0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [nn.Linear, nn.Embedding, nn.Dropout])
def test_a_class_of_pytorch_that_was_patched(kind, monkeypatch):
    """As for fake quantization, or to count the products."""
    model, prompt, original = lively_model(3), windows(1, 5)[0], kind.forward
    assert is_course_gpt(model)
    monkeypatch.setattr(kind, "forward", lambda self, x: 0.5 * original(self, x))
    assert not is_course_gpt(model)
    plain = generate_text_simple(model, prompt, 6, 16)
    assert torch.equal(generate(model, prompt, 6, 16), plain)
    assert_close(fuse(lively_model(3))(prompt), lively_model(3)(prompt), rtol=1e-4, atol=1e-4)


def test_a_hook_for_all_modules_in_fused_attention():
    model, seen = fuse(lively_model(3)), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, out: seen.append(type(module)) if type(module) is nn.Linear else None
    )
    try:
        model(windows(1, 5)[0])
    finally:
        handle.remove()
    assert len(seen) == 1 + 6 * TINY["n_layers"]


@pytest.mark.parametrize("length", [7, 8, 16])
def test_one_entry_of_a_mask(length):
    """The masks are compared eight bytes at a time where that comes out even."""
    model = lively_model(3, context_length=length)
    assert is_course_gpt(model)
    model.trf_blocks[1].att.mask[length - 1, 0] = True
    assert not is_course_gpt(model)
    odd = torch.zeros(length * length + 1, dtype=torch.bool)[1:].view(length, length)
    model.trf_blocks[1].att.mask = odd.copy_(lively_model(3, context_length=length).trf_blocks[0].att.mask)
    assert is_course_gpt(model)


def test_positions_beyond_the_masks():
    model = lively_model(3)
    model.pos_emb = nn.Embedding(32, TINY["emb_dim"])
    assert not is_course_gpt(model)
    with pytest.raises(ValueError, match="17 tokens, but context_length is 16"):
        generate(model, windows(1, 5)[0], 20, 32)


@pytest.mark.parametrize("wrong", [-1, 97])
def test_a_target_that_is_no_token(wrong, monkeypatch):
    """-1 would be the last entry of a table; the plain loss refuses it."""
    monkeypatch.setattr(helpers.speed.loss, "bfloat16_is_native", lambda device: True)
    model, (inputs, targets) = lively_model(3), windows(2, 8)
    targets[0, 2] = wrong
    loss = helpers.speed.loss.speed_up(
        model, torch.optim.SGD(model.parameters(), lr=1.0), CPU, calc_loss_batch, chunked=True
    )
    with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
        loss(inputs, targets, model, CPU)
