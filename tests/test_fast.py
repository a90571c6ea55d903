"""The fast path: the same outputs and gradients as the plain classes, the chunked loss, and when it falls back."""

import copy
import gc
import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import helpers.speed.fused
import helpers.speed.loss
from helpers import GELU, GPTModel, LayerNorm, MultiHeadAttention, calc_loss_batch, fuse, training_steps
from helpers.gpt import hidden_states
from helpers.settings import bfloat16_is_native
from helpers.speed import large_pages
from helpers.speed.blockwise import BlockwiseAttention
from helpers.speed.few_rows import forward_few_rows, linear_few_rows
from helpers.speed.fused import FusedDropout, FusedEmbedding
from helpers.speed.large_pages import zeros_in_large_pages
from helpers.speed.loss import SoftmaxLoss, speed_up
from tests.tiny import CPU, TINY, lively_model, loader, tiny_model, windows


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


class TestFusing:
    @pytest.mark.parametrize("options", [{}, {"qkv_bias": True}, {"tied": True}])
    def test_the_same_in_float32(self, options):
        plain, fused = lively_model(2, **options), fuse(lively_model(2, **options))
        inputs, targets = windows(3, 16)
        assert_close(fused(inputs), plain(inputs), rtol=1e-4, atol=1e-4)
        assert plain(inputs).std() > 0.5
        for model in (plain, fused):
            calc_loss_batch(inputs, targets, model.train(), CPU).backward()
        ours, theirs = gradients(fused), gradients(plain)
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)

    def test_every_part_is_exchanged_and_stays_what_it_is(self):
        model = tiny_model()
        before = dict(model.named_parameters())
        assert fuse(model) is model
        kinds = {type(module) for module in model.modules()}
        assert not kinds & {MultiHeadAttention, LayerNorm, GELU}
        assert isinstance(model.trf_blocks[0].att, MultiHeadAttention)
        assert all(before[name] is parameter for name, parameter in model.named_parameters())
        assert fuse(model) is model  # twice does no harm

    def test_classes_of_ones_own_are_left_alone(self):
        class Mine(LayerNorm):
            def forward(self, x):
                return 2 * super().forward(x)

        model = tiny_model()
        model.final_norm = Mine(TINY["emb_dim"])
        assert type(fuse(model).final_norm) is Mine

    def test_dropout(self):
        model = fuse(tiny_model(drop_rate=0.5)).train()
        ids = windows(2)[0]
        assert not torch.equal(model(ids), model(ids))
        assert_close(model.eval()(ids), tiny_model(drop_rate=0.5).eval()(ids), rtol=1e-5, atol=1e-5)

    def test_attention_weights_are_dropped_and_scaled(self):
        """Kept weights are divided by 1 - p, so that the mean stays."""
        torch.manual_seed(1)
        attention = fuse(torch.nn.Sequential(MultiHeadAttention(8, 8, 4, dropout=0.5, num_heads=2)))
        x = torch.randn(1, 4, 8)
        expected = attention.eval()(x)
        mean = torch.stack([attention.train()(x) for _ in range(4000)]).mean(dim=0)
        assert_close(mean, expected, rtol=0, atol=0.03)

    def test_attention_with_dropout_is_that_of_chapter_3(self):
        """With the same masks, outputs and gradients are the same."""
        results = []
        for change in (lambda attention: fuse(torch.nn.Sequential(attention))[0], lambda attention: attention):
            torch.manual_seed(1)
            plain = MultiHeadAttention(8, 8, 6, dropout=0.3, num_heads=2)
            plain.dropout = FusedDropout(0.3)
            x = torch.randn(3, 5, 8, requires_grad=True)
            y = change(plain).train()(x)
            y.square().sum().backward()
            results.append((y, x.grad))
        assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)

    def test_too_long(self):
        with pytest.raises(ValueError, match="tokens, but context_length is 16"):
            fuse(tiny_model()).trf_blocks(torch.zeros(1, 17, TINY["emb_dim"]))

    def test_hidden_states(self):
        model, ids = lively_model(2), windows(2)[0]
        assert_close(model.out_head(hidden_states(model, ids)), model(ids), rtol=1e-6, atol=1e-6)


class TestBlockwiseAttention:
    @pytest.mark.parametrize("num_tokens", [1, 5, 127, 128, 129, 300])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
    def test_against_the_definition(self, num_tokens, dtype, tolerance):
        """Outputs and gradients, seen as vectors, beside attention in float32 on the same numbers."""
        generator = torch.Generator().manual_seed(num_tokens)
        given = torch.randn(2, num_tokens, 3, 3, 20, generator=generator).to(dtype)
        weight = torch.randn(2, num_tokens, 3, 20, generator=generator).to(dtype)
        found, expected = given.clone().requires_grad_(), given.float().requires_grad_()
        queries, keys, values = expected.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        later = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
        scores = (queries @ keys.transpose(2, 3) / math.sqrt(20)).masked_fill(later, -torch.inf)
        wanted = (scores.softmax(dim=-1) @ values).transpose(1, 2)
        output = BlockwiseAttention.apply(found)
        (output * weight).sum().backward()
        (wanted * weight.float()).sum().backward()
        assert output.dtype == found.grad.dtype == dtype and output.shape == wanted.shape
        assert alike(output.float(), wanted, tolerance) and alike(found.grad.float(), expected.grad, tolerance)

    def test_where_it_is_used(self, monkeypatch):
        """Under bfloat16 autocast and nowhere else, and not where attention weights are dropped."""
        used, apply = [], BlockwiseAttention.apply
        monkeypatch.setattr(BlockwiseAttention, "apply", lambda x: used.append(x.dtype) or apply(x))
        model, ids = fuse(lively_model(2)), windows(2)[0]
        expected = model(ids)
        assert used == []
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert alike(model(ids).float(), expected, 0.05)
            assert used == [torch.bfloat16] * 2
            fuse(tiny_model(drop_rate=0.5)).train()(ids)
        assert used == [torch.bfloat16] * 2


class TestDropout:
    @pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_share_and_scale(self, p, dtype):
        torch.manual_seed(1)
        out = FusedDropout(p)(torch.ones(300, 1000, dtype=dtype))
        assert out.dtype == dtype
        assert out.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4 if dtype == torch.float32 else 4e-3)
        share = (out == 0).float()
        assert share.mean().item() == pytest.approx(p, abs=0.004)
        assert share.mean(dim=0).std().item() == pytest.approx(math.sqrt(p * (1 - p) / 300), rel=0.1)
        assert share.mean(dim=1).std().item() == pytest.approx(math.sqrt(p * (1 - p) / 1000), rel=0.15)

    def test_masks_come_from_the_random_state(self):
        layer, x = FusedDropout(0.5), torch.ones(50, 7)  # 350 is no multiple of 4
        torch.manual_seed(3)
        first, second = layer(x), layer(x)
        torch.manual_seed(3)
        assert torch.equal(layer(x), first) and torch.equal(layer(x), second) and not torch.equal(first, second)

    def test_gradients_pass_where_numbers_did(self):
        x = torch.rand(40, 5, requires_grad=True)
        out = FusedDropout(0.4)(x)
        out.sum().backward()
        assert_close(x.grad * x, out)
        assert 0 < (x.grad == 0).sum() < 200

    def test_nothing_and_everything(self):
        x = torch.rand(100)
        assert torch.equal(FusedDropout(0.0)(x), x) and torch.equal(FusedDropout(0.5).eval()(x), x)
        assert not FusedDropout(1.0)(x).any()


class TestQuick:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("outputs", [24, 512, 545, 1056])  # 545 is no multiple of 16
    @pytest.mark.parametrize("bias", [True, False])
    def test_few_rows(self, dtype, outputs, bias):
        torch.manual_seed(1)
        linear = torch.nn.Linear(512, outputs, bias=bias).to(dtype)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
        shapes = [(1, 512), (1, 1, 512), (2, 1, 512), (4, 512), (5, 1, 512), (2, 4, 512), (24, 512), (25, 512), (512,)]
        for shape in shapes:
            x = torch.randn(shape).to(dtype)
            with torch.no_grad():
                assert_close(linear_few_rows(linear, x), linear(x), **tolerance)

    def test_modules(self):
        model = lively_model(2)
        x = torch.randn(3, 1, TINY["emb_dim"], generator=torch.Generator().manual_seed(1))
        block = model.trf_blocks[0]
        for module in (block.norm1, block.ff, block.att.W_query, block.ff.layers[1], model.out_head):
            with torch.no_grad():
                assert_close(forward_few_rows(module, x), module(x), rtol=1e-5, atol=1e-5)

    def test_other_modules_are_called(self):
        class Mine(torch.nn.Linear):
            def forward(self, x):
                return super().forward(x) + 1

        module, x = Mine(4, 4), torch.randn(3, 4)
        assert torch.equal(forward_few_rows(module, x), module(x))


def softmax_case(rows, classes=60, width=16, seed=1):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator).requires_grad_()
    table = torch.randn(classes, width, generator=generator).requires_grad_()
    return hidden, table, torch.randint(0, classes, (rows,), generator=generator)


def alike(found, expected, tolerance=0.03):
    """Whether two gradients agree to bfloat16's precision, seen as vectors."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    return (found - expected).norm() < tolerance * expected.norm()


class TestSoftmaxLoss:
    @pytest.mark.parametrize(
        ("rows", "chunk"), [(24, 512), (24, 24), (24, 8), (25, 8), (23, 8), (1, 8), (513, 512), (7, 1)]
    )
    def test_against_cross_entropy(self, rows, chunk):
        hidden, table, targets = softmax_case(rows)
        expected = F.cross_entropy(hidden @ table.T, targets)
        wanted = torch.autograd.grad(3 * expected, (hidden, table))
        loss = SoftmaxLoss.apply(hidden, table, targets, None, None, None, chunk)
        assert_close(loss, expected, rtol=0.01, atol=0.01)
        found = torch.autograd.grad(3 * loss, (hidden, table))
        assert alike(found[0], wanted[0]) and alike(found[1], wanted[1])

    def test_chunks_do_not_matter(self):
        hidden, table, targets = softmax_case(30)
        values = [SoftmaxLoss.apply(hidden, table, targets, None, None, None, chunk) for chunk in (30, 7, 1)]
        for value in values[1:]:
            assert_close(value, values[0], rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("exact", [60, 20, 0])
    def test_all_columns_are_the_exact_softmax(self, exact):
        """As an estimate: the frequent classes, then all others, each standing for itself alone."""
        hidden, table, targets = softmax_case(40)
        expected = F.cross_entropy(hidden @ table.T, targets)
        wanted = torch.autograd.grad(expected, (hidden, table))
        columns = torch.arange(60)
        zeros = torch.zeros(60)
        if exact < 60:
            # A target beyond the exact classes gets a column of its own, so it would be there twice:
            # for one row at a time, leave it out of the others.
            for row in range(40):
                keep = columns[(columns < exact) | (columns != targets[row])]
                one = SoftmaxLoss.apply(
                    hidden[row : row + 1], table, targets[row : row + 1], keep, torch.zeros(len(keep)), exact
                )
                alone = F.cross_entropy(hidden[row : row + 1] @ table.T, targets[row : row + 1])
                assert_close(one, alone, rtol=0.02, atol=0.03)
                ours = torch.autograd.grad(one, (hidden, table))
                theirs = torch.autograd.grad(alone, (hidden, table))
                assert (ours[0] - theirs[0]).norm() < 0.05 * theirs[0].norm() + 0.02
                assert (ours[1] - theirs[1]).norm() < 0.05 * theirs[1].norm() + 0.02
            return
        loss = SoftmaxLoss.apply(hidden, table, targets, columns, zeros, exact)
        assert_close(loss, expected, rtol=0.01, atol=0.01)
        found = torch.autograd.grad(loss, (hidden, table))
        assert alike(found[0], wanted[0]) and alike(found[1], wanted[1])

    def test_a_sample_is_right_on_average(self):
        hidden, table, targets = softmax_case(64)
        with torch.no_grad():
            hidden.mul_(0.3)
        expected = F.cross_entropy(hidden @ table.T, targets)
        wanted = torch.autograd.grad(expected, (hidden, table))
        generator, losses, sums = torch.Generator().manual_seed(2), [], [0, 0]
        for _ in range(200):
            drawn = 20 + torch.randperm(40, generator=generator)[:20]
            columns, weight = torch.cat((torch.arange(20), drawn)), torch.zeros(40)
            weight[20:] = math.log(40 / 20)
            loss = SoftmaxLoss.apply(hidden, table, targets, columns, weight, 20)
            losses.append(loss.item())
            sums = [one + other for one, other in zip(sums, torch.autograd.grad(loss, (hidden, table)), strict=True)]
        assert sum(losses) / 200 == pytest.approx(expected.item(), rel=0.02)
        assert alike(sums[0] / 200, wanted[0], 0.1) and alike(sums[1] / 200, wanted[1], 0.1)

    def test_nothing_to_average(self):
        hidden, table, targets = softmax_case(0)
        with pytest.raises(ValueError, match="targets holds no label"):
            SoftmaxLoss.apply(hidden, table, targets)

    def test_a_tied_table_gets_both_gradients(self):
        model, (inputs, targets) = lively_model(2, tied=True), windows(4)
        loss = SoftmaxLoss.apply(hidden_states(model, inputs).flatten(0, 1), model.out_head.weight, targets.flatten())
        loss.backward()
        other = lively_model(2, tied=True)
        calc_loss_batch(inputs, targets, other, CPU).backward()
        assert alike(model.tok_emb.weight.grad, other.tok_emb.weight.grad, 0.05)


@pytest.fixture(name="native", params=[True, False], ids=["bfloat16", "no-bfloat16"])
def processors(request, monkeypatch):
    """A processor with native bfloat16, or without. (The results do not depend on which this one is.)"""
    monkeypatch.setattr(helpers.speed.loss, "bfloat16_is_native", lambda device: request.param)
    return request.param


class TestSpeedUp:
    def test_optimizer(self, native):
        model = tiny_model()
        optimizer = torch.optim.AdamW(model.parameters())
        speed_up(model, optimizer, CPU, calc_loss_batch)
        assert optimizer.param_groups[0]["fused"] is True
        calc_loss_batch(*windows(2), model, CPU).backward()
        optimizer.step()
        reference = fuse(tiny_model())
        other = torch.optim.AdamW(reference.parameters())
        calc_loss_batch(*windows(2), reference, CPU).backward()
        other.step()
        for one, two in zip(model.parameters(), reference.parameters(), strict=True):
            assert_close(one, two, rtol=1e-4, atol=1e-6)

    def test_a_started_optimizer_is_left_alone(self):
        model = tiny_model()
        optimizer = torch.optim.AdamW(model.parameters())
        calc_loss_batch(*windows(2), model, CPU).backward()
        optimizer.step()
        before = optimizer.param_groups[0]["fused"], optimizer.param_groups[0]["foreach"]
        speed_up(model, optimizer, CPU, calc_loss_batch)
        assert (optimizer.param_groups[0]["fused"], optimizer.param_groups[0]["foreach"]) == before
        optimizer.step()

    def test_another_optimizer_is_left_alone(self):
        model = tiny_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
        speed_up(model, optimizer, CPU, calc_loss_batch)
        assert {name: value for name, value in optimizer.param_groups[0].items() if name != "params"} == before

    def test_loss(self, native, monkeypatch):
        model, (inputs, targets) = lively_model(2), windows(4)
        expected = calc_loss_batch(inputs, targets, model, CPU)
        used = []
        apply = SoftmaxLoss.apply
        monkeypatch.setattr(SoftmaxLoss, "apply", lambda *arguments: used.append(1) or apply(*arguments))
        optimizer = torch.optim.AdamW(model.parameters())
        loss_function = speed_up(model, optimizer, CPU, calc_loss_batch, chunked=True)
        loss = loss_function(inputs, targets, model, CPU)
        tolerance = 0.02 if native else 1e-5
        assert_close(loss, expected, rtol=tolerance, atol=tolerance)
        assert bool(used) is native  # without native bfloat16 it is the plain loss
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_labels_to_ignore(self, native):
        model, (inputs, targets) = lively_model(2), windows(4)
        targets[0, 3:] = -100
        targets[2] = -100
        expected = calc_loss_batch(inputs, targets, model, CPU)
        loss_function = speed_up(model, torch.optim.AdamW(model.parameters()), CPU, calc_loss_batch, chunked=True)
        assert_close(loss_function(inputs, targets, model, CPU), expected, rtol=0.02, atol=0.02)

    def test_a_model_with_a_forward_of_its_own(self, native):
        class Doubled(GPTModel):
            def forward(self, in_idx):
                return 2 * super().forward(in_idx)

        torch.manual_seed(1)
        model, (inputs, targets) = Doubled(TINY), windows(4)
        expected = calc_loss_batch(inputs, targets, model, CPU)
        loss_function = speed_up(model, torch.optim.AdamW(model.parameters()), CPU, calc_loss_batch, chunked=True)
        assert_close(loss_function(inputs, targets, model, CPU), expected, rtol=0.02, atol=0.02)

    def test_a_loss_of_ones_own(self, native):
        model, seen = tiny_model(), []
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

        def loss_function(inputs, targets, model, device):
            logits = model(inputs)
            seen.append(logits.dtype)
            return F.cross_entropy(logits[:, -1], targets[:, -1])

        assert len(list(training_steps(model, loader(), optimizer, CPU, 1, loss_function, fast=True))) == 4
        assert set(seen) == {torch.bfloat16 if native else torch.float32}

    def test_learns(self, native):
        model = tiny_model(drop_rate=0.05)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = [p.loss for p in training_steps(model, loader(4), optimizer, CPU, num_epochs=40, fast=True)]
        assert losses[0] > 4 and losses[-1] < 0.8
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        model.eval()
        assert calc_loss_batch(*windows(4), model, CPU) < 0.8  # the plain loss agrees

    def test_the_first_losses_are_those_of_the_plain_loop(self, native):
        runs = []
        for fast in (False, True):
            model = tiny_model()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            runs.append([p.loss for p in training_steps(model, loader(), optimizer, CPU, num_epochs=2, fast=fast)])
        assert runs[1] == pytest.approx(runs[0], rel=0.01 if native else 1e-4)


def test_this_processor_is_asked():
    assert isinstance(bfloat16_is_native("cpu"), bool)


FREED_MEMORY = """
import torch
from helpers.speed.memory import keep_freed_memory

def kept():
    torch.ones(25_000_000)  # 100 MB, freed at once
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1000

before = kept()
keep_freed_memory()
print(kept() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it does nothing")
def test_freed_memory_is_kept():
    """In a process of its own, since nothing undoes it: the megabytes that it holds after a block was freed."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", FREED_MEMORY], capture_output=True, text=True, check=True, env=plain)
    assert float(done.stdout) > 95


class TestLargePages:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
    @pytest.mark.parametrize("shape", [(3, 5), (2**13, 1031), (2**23 + 1,)])
    def test_they_are_zeros(self, shape, dtype):
        zeros, expected = zeros_in_large_pages(shape, dtype, "cpu"), torch.zeros(shape, dtype=dtype)
        assert torch.equal(zeros, expected) and zeros.dtype == dtype and zeros.is_contiguous()
        zeros[-1] = 1
        assert zeros.sum() == expected[-1].numel()
        assert not zeros_in_large_pages(shape, dtype, "cpu").any()

    def test_a_system_without_them(self, monkeypatch):
        def refuse(*arguments, **options):
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(large_pages.mmap, "mmap", refuse)
        assert torch.equal(zeros_in_large_pages((2**23 + 1,), torch.float32, "cpu"), torch.zeros(2**23 + 1))
        monkeypatch.delattr(large_pages.mmap, "MADV_HUGEPAGE", raising=False)
        assert torch.equal(zeros_in_large_pages((2**23 + 1,), torch.float32, "cpu"), torch.zeros(2**23 + 1))

    def test_they_last_as_long_as_a_view(self):
        view = zeros_in_large_pages((2**23 + 8,), torch.float32, "cpu")[5:9]
        gc.collect()
        view += 3
        assert view.tolist() == [3.0] * 4


@pytest.mark.parametrize("options", [{}, {"padding_idx": 3}, {"max_norm": 0.5}, {"scale_grad_by_freq": True}])
@pytest.mark.parametrize("shape", [(6,), (2, 7), (2, 3, 4)])
def test_the_gradient_of_an_embedding(options, shape, monkeypatch):
    """To the last bit what PyTorch adds up, also where an id comes twice."""
    monkeypatch.setattr(helpers.speed.fused, "LARGE", 0)
    torch.manual_seed(1)
    plain = torch.nn.Embedding(5, 6, **options)
    fast = copy.deepcopy(plain)
    fast.__class__ = FusedEmbedding
    ids, weights = torch.randint(0, 5, shape), torch.randn(*shape, 6)
    for embedding in (plain, fast):
        (embedding(ids) * weights).sum().backward()
    assert torch.equal(fast(ids), plain(ids))
    assert torch.equal(fast.weight.grad, plain.weight.grad)


def test_training_with_large_tables(monkeypatch):
    """The loss and the gradients of a step are the same whether its large blocks lie in large pages or not."""
    gradients = []
    for large in (2**62, 0):
        monkeypatch.setattr(helpers.speed.fused, "LARGE", large)
        monkeypatch.setattr(large_pages, "LARGE", large)
        monkeypatch.setattr(helpers.speed.loss, "bfloat16_is_native", lambda device: True)
        model = lively_model(3)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        losses = [progress.loss for progress in training_steps(model, loader(6), optimizer, CPU, 2, fast=True)]
        gradients.append((losses, [parameter.detach().clone() for parameter in model.parameters()]))
    assert gradients[0][0] == gradients[1][0]
    assert all(map(torch.equal, gradients[0][1], gradients[1][1]))
