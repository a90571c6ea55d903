"""LoRA: nothing changes at first, merging and unmerging, adapters as files and on one base, and peft's numbers."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.utils import parametrizations, prune

import helpers
from helpers import (
    GPT_CONFIG_124M,
    Adapters,
    GPTModel,
    LinearWithLoRA,
    LoRALayer,
    calc_loss_batch,
    fuse,
    generate,
    generate_text_simple,
    load_adapter,
    load_model,
    lora_layers,
    merge_lora,
    quantize_int8,
    replace_linear_with_lora,
    save_adapter,
    save_model,
    training_steps,
    unmerge_lora,
)
from tests.tiny import CPU, TINY, lively_model, loader, tiny_model, windows

IDS = windows(3)[0]  # (3, 8)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS)


def stir(model, seed=5):
    """Give B numbers, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        layer.lora.B.data = 0.3 * torch.randn(layer.lora.B.shape, generator=generator)
    return model


def adapted(rank=3, alpha=5.0, targets=None, tied=False, make=lively_model):
    """A tiny model with LoRA that does something; `tiny_model` makes one that does not magnify rounding."""
    model = make(1, tied, qkv_bias=True).requires_grad_(False)
    replace_linear_with_lora(model, rank, alpha, targets)
    return stir(model)


def classifier(seed=1):
    """A tiny model with a new head of two classes, frozen."""
    model = lively_model(seed)
    torch.manual_seed(seed + 1)
    model.out_head = torch.nn.Linear(TINY["emb_dim"], 2)
    return model.requires_grad_(False)


class TestLayer:
    def test_by_hand(self):
        layer = LoRALayer(2, 3, rank=1, alpha=4)
        layer.A.data, layer.B.data = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 0.0, -1.0]])
        x = torch.tensor([[1.0, 1.0], [0.5, 0.0]])
        assert layer(x).tolist() == [[36.0, 0.0, -12.0], [6.0, 0.0, -2.0]]  # 4/1 times (x A) B
        assert layer.delta().tolist() == [[12.0, 0.0, -4.0], [24.0, 0.0, -8.0]]

    def test_alpha_is_divided_by_rank(self):
        torch.manual_seed(0)
        layer = LoRALayer(6, 5, rank=4, alpha=2)
        layer.B.data = torch.randn(4, 5)
        x = torch.randn(7, 6)
        assert torch.allclose(layer(x), 0.5 * (x @ layer.A @ layer.B), atol=1e-6)

    def test_initial_values(self):
        torch.manual_seed(123)
        layer = LoRALayer(64, 32, rank=4, alpha=4)
        torch.manual_seed(123)
        expected = torch.nn.init.kaiming_uniform_(torch.empty(64, 4), a=5**0.5)
        assert torch.equal(layer.A, expected)
        assert 0.45 < layer.A.abs().max() <= 0.5  # 1 / sqrt(rank)
        assert not layer.B.any() and layer.B.shape == (4, 32)

    @pytest.mark.parametrize(
        ("rank", "alpha", "named"),
        [
            (0, 1, "rank=0"),
            (-2, 1, "rank=-2"),
            (1.5, 1, "rank=1.5"),
            (2, 0, "alpha=0"),
            (2, -1.0, "alpha=-1.0"),
            (2, float("nan"), "alpha=nan"),
            (2, float("inf"), "alpha=inf"),
        ],
    )
    def test_errors(self, rank, alpha, named):
        with pytest.raises(ValueError, match=named):
            LoRALayer(3, 3, rank, alpha)

    def test_beside_a_linear_layer(self):
        torch.manual_seed(2)
        linear = torch.nn.Linear(6, 4)
        layer = LinearWithLoRA(linear, rank=2, alpha=3)
        x = torch.randn(2, 5, 6)
        assert torch.equal(layer(x), linear(x))
        layer.lora.B.data = torch.randn(2, 4)
        assert torch.allclose(layer(x), x @ layer.weight.T + linear.bias, atol=1e-6)
        assert not torch.allclose(layer(x), linear(x), atol=1e-2)

    def test_takes_dtype_and_device_of_the_layer(self):
        assert LinearWithLoRA(torch.nn.Linear(3, 3, dtype=torch.float64), 1, 1).lora.A.dtype == torch.float64
        assert LinearWithLoRA(torch.nn.Linear(3, 3, device="meta"), 1, 1).lora.B.is_meta


class TestReplace:
    def test_nothing_changes_at_first(self):
        plain, model = lively_model(), lively_model()
        replace_linear_with_lora(model, 4, 8)
        assert torch.equal(logits(model), logits(plain))

    def test_all_linear_layers(self):
        model = lively_model()
        linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        replace_linear_with_lora(model, 2, 2)
        assert list(lora_layers(model)) == linears
        assert len(linears) == 6 * TINY["n_layers"] + 1

    @pytest.mark.parametrize(
        ("targets", "count"),
        [
            (["W_query", "W_value"], 4),
            ("att", 8),
            (["ff"], 4),
            ("trf_blocks.1", 6),
            ("ff.layers.0", 2),
            (["out_head"], 1),
            (["trf_blocks.0.att.W_key"], 1),
            (["att", "W_query", "out_head"], 9),
        ],
    )
    def test_targets(self, targets, count):
        model = lively_model()
        replace_linear_with_lora(model, 2, 2, targets)
        wanted = [targets] if isinstance(targets, str) else targets
        assert len(lora_layers(model)) == count
        assert all(any(part in name for part in wanted) for name in lora_layers(model))

    @pytest.mark.parametrize("targets", [["W_quer"], "query", ["att", "nothing"], [""], "trf_blocks.0.norm1", []])
    def test_targets_that_match_nothing(self, targets):
        model = lively_model()
        with pytest.raises(ValueError, match="linear layer"):
            replace_linear_with_lora(model, 2, 2, targets)
        assert not lora_layers(model)

    def test_block_1_is_not_block_11(self):
        model = tiny_model(n_layers=12)
        replace_linear_with_lora(model, 1, 1, "trf_blocks.1")
        assert {name.split(".")[1] for name in lora_layers(model)} == {"1"}

    @pytest.mark.parametrize(("rank", "alpha"), [(0, 1), (2, -1)])
    def test_errors_change_nothing(self, rank, alpha):
        model = lively_model()
        with pytest.raises(ValueError, match="must be"):
            replace_linear_with_lora(model, rank, alpha)
        assert not lora_layers(model)

    def test_twice(self):
        model = adapted()
        with pytest.raises(ValueError, match="already"):
            replace_linear_with_lora(model, 2, 2)
        with pytest.raises(ValueError, match="no linear layer"):
            replace_linear_with_lora(torch.nn.GELU(), 2, 2)

    def test_a_class_of_your_own_counts(self, tmp_path):
        """The notebook builds these classes itself, and hands its models to the functions here."""

        class Mine(torch.nn.Module):
            def __init__(self, linear, rank, alpha):
                super().__init__()
                self.linear, self.lora = linear, LoRALayer(linear.in_features, linear.out_features, rank, alpha)

            def forward(self, x):
                return self.linear(x) + self.lora(x)

        model = lively_model().requires_grad_(False)
        model.out_head = Mine(model.out_head, 2, 2)
        stir(model)
        save_adapter(model, tmp_path / "a.safetensors", also=["out_head"])
        load_adapter(other := lively_model(), tmp_path / "a.safetensors")
        assert torch.equal(logits(other), logits(model))

    def test_training_moves_only_the_adapter(self):
        model = lively_model().requires_grad_(False)
        replace_linear_with_lora(model, 2, 2)
        before = {name: values.clone() for name, values in model.state_dict().items()}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        losses = [progress.loss for progress in training_steps(model, loader(), optimizer, CPU, 5)]
        assert losses[-1] < losses[0]
        moved = {name for name, values in model.state_dict().items() if not torch.equal(values, before[name])}
        assert moved == {name for name in before if ".lora." in name}

    def test_published_counts(self):
        with torch.device("meta"):
            model = GPTModel({**GPT_CONFIG_124M, "qkv_bias": True})
            model.out_head = torch.nn.Linear(768, 2)
        count = sum(parameter.numel() for parameter in model.parameters())
        model.requires_grad_(False)
        assert (count, sum(p.numel() for p in model.parameters() if p.requires_grad)) == (124_441_346, 0)
        replace_linear_with_lora(model, rank=16, alpha=16)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2_666_528


class TestOtherPaths:
    """What computes with a model's layers in another way must see the adapter too."""

    def test_generation_with_a_cache(self):
        model, plain = adapted(), lively_model(qkv_bias=True)
        prompt = IDS[:1, :3]
        slow = generate_text_simple(model, prompt, 10, TINY["context_length"])
        assert torch.equal(generate(model, prompt, 10, TINY["context_length"]), slow)
        assert not torch.equal(generate(plain, prompt, 10, TINY["context_length"]), slow)

    def test_fused(self):
        model = adapted()
        before = logits(model)
        assert torch.allclose(logits(fuse(model)), before, atol=1e-4)

    def test_the_fast_loss(self):
        """Its chunks take the output layer's weight, LoRA and all, and send gradients to A and B."""
        gradients = {}
        for fast in (False, True):
            model = lively_model().requires_grad_(False)
            replace_linear_with_lora(model, 2, 2, ["out_head", "att"])
            stir(model)
            trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
            steps = training_steps(model, loader(2), torch.optim.SGD(trained, lr=1.0), CPU, 1, fast=fast)
            before = [parameter.detach().clone() for parameter in trained]
            next(steps)
            gradients[fast] = torch.cat([(b - p).flatten() for b, p in zip(before, trained, strict=True)])
        assert torch.cosine_similarity(*gradients.values(), dim=0) > 0.99

    def test_8_bit_weights(self):
        model = adapted(targets="att")
        before = logits(model)
        quantize_int8(model)
        assert torch.allclose(logits(model), before, atol=0.3)
        with pytest.raises(ValueError, match="merge first"):
            merge_lora(model)


class TestMerge:
    @pytest.mark.parametrize("tied", [False, True])
    def test_same_logits(self, tied):
        model = adapted(tied=tied, make=tiny_model)
        before, embedding = logits(model), model.tok_emb.weight.clone()
        merged, near = merge_lora(model), 1e-5 * before.abs().max()
        assert (logits(model) - before).abs().max() < near
        assert torch.equal(model.tok_emb.weight, embedding)  # though it was the output layer's weight too
        assert not lora_layers(model)
        unmerge_lora(model, merged)
        assert (logits(model) - before).abs().max() < near
        assert list(lora_layers(model)) == list(merged)

    def test_unmerge_gives_the_base_back(self):
        plain, model = tiny_model(qkv_bias=True), adapted(make=tiny_model)
        unmerge_lora(model, merge_lora(model))
        for layer in lora_layers(model).values():
            layer.lora.B.data.zero_()
        assert torch.allclose(logits(model), logits(plain), rtol=1e-5, atol=1e-5)

    def test_a_merged_file_knows_nothing_of_lora(self, tmp_path):
        model, plain = adapted(make=tiny_model), tiny_model(9, qkv_bias=True)
        before = logits(model)
        merge_lora(model)
        assert model.state_dict().keys() == plain.state_dict().keys()
        save_model(model, tmp_path / "merged.safetensors")
        with safe_open(tmp_path / "merged.safetensors", framework="pt") as file:
            assert not [name for name in file.keys() if "lora" in name or ".linear." in name]  # noqa: SIM118
        load_model(plain, tmp_path / "merged.safetensors")
        assert torch.allclose(logits(plain), before, rtol=1e-5, atol=1e-5)

    def test_frozen_stays_frozen(self):
        model = classifier()
        replace_linear_with_lora(model, 2, 2)
        merge_lora(model)
        assert not any(parameter.requires_grad for parameter in model.parameters())

    def test_random_state_is_left_alone(self):
        model = adapted()
        state = torch.get_rng_state()
        unmerge_lora(model, merge_lora(model))
        assert torch.equal(torch.get_rng_state(), state)

    def test_errors(self):
        with pytest.raises(ValueError, match="no LoRA layers to merge"):
            merge_lora(lively_model())
        merged = merge_lora(adapted())
        small = tiny_model(emb_dim=12, n_heads=3)
        with pytest.raises(ValueError, match=r"another model: trf_blocks\.0\.att\.W_query goes from 12 to 12"):
            unmerge_lora(small, merged)
        assert not lora_layers(small)


class RsLoRA(LoRALayer):
    """Kalajdzievski (2023): alpha / sqrt(rank)."""

    def forward(self, x):
        return self.alpha / self.rank**0.5 * (x @ self.A @ self.B)


class DoRA(LinearWithLoRA):
    """Liu et al. (2024): the length of each row is trained apart from its direction."""

    def forward(self, x):
        weight = 1.7 * self.linear.weight.norm(dim=1, keepdim=True) * F.normalize(self.weight, dim=1)
        return F.linear(x, weight, self.linear.bias)


class WithDropout(LinearWithLoRA):
    """As peft does while training."""

    def forward(self, x):
        return self.linear(x) + self.lora(F.dropout(x, 0.5, self.training))


def double(module, inputs, output):
    return 2 * output


def own_lora(layer):
    layer.lora.__class__ = RsLoRA


def own_layer(layer):
    layer.__class__ = DoRA


def hook_on_layer(layer):
    layer.register_forward_hook(double)


def hook_on_lora(layer):
    layer.lora.register_forward_hook(double)


OTHERWISE = [own_lora, own_layer, hook_on_layer, hook_on_lora]


class TestLayersOfYourOwn:
    """What computes otherwise than A, B and alpha say is neither merged nor saved as if it did not."""

    @pytest.mark.parametrize("change", OTHERWISE)
    def test_refused(self, tmp_path, change):
        model = adapted(targets="att")
        change(model.trf_blocks[1].att.W_key)
        before = logits(model)
        with pytest.raises(ValueError, match=r"trf_blocks\.1\.att\.W_key computes something else than its weight"):
            merge_lora(model)
        with pytest.raises(ValueError, match=r"trf_blocks\.1\.att\.W_key computes something else than alpha / rank"):
            save_adapter(model, tmp_path / "a.safetensors")
        assert len(lora_layers(model)) == 8 and torch.equal(logits(model), before) and not list(tmp_path.iterdir())

    def test_a_forward_put_into_the_class(self, tmp_path, monkeypatch):
        model = adapted()
        monkeypatch.setattr(LoRALayer, "forward", RsLoRA.forward)
        with pytest.raises(ValueError, match="cannot be merged"):
            merge_lora(model)
        with pytest.raises(ValueError, match="cannot hold that"):
            save_adapter(model, tmp_path / "a.safetensors")

    @pytest.mark.parametrize(
        "change",
        [
            parametrizations.weight_norm,
            lambda linear: prune.l1_unstructured(linear, "weight", 0.5),
        ],
        ids=["weight_norm", "pruned"],
    )
    def test_a_weight_made_of_others(self, change):
        model = lively_model()
        change(model.trf_blocks[0].att.W_query)
        replace_linear_with_lora(model, 2, 4, "W_query")
        with pytest.raises(ValueError, match=r"trf_blocks\.0\.att\.W_query has a weight that is made of others"):
            merge_lora(stir(model))
        assert len(lora_layers(model)) == 2

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_what_agrees_is_merged_and_saved(self, tmp_path, dtype):
        """A listening hook and dropout while training change nothing; a weight that fits its forward is its own."""
        model, seen = adapted(make=tiny_model, targets="att"), []
        att = model.trf_blocks[0].att
        att.W_query.register_forward_hook(lambda module, inputs, output: seen.append(output))
        att.W_key.__class__ = WithDropout
        model.to(dtype).train()
        state = torch.get_rng_state()
        save_adapter(model, tmp_path / "a.safetensors")
        att.W_value.lora.__class__ = type("Whole", (RsLoRA,), {"delta": lambda self: 3**0.5 * LoRALayer.delta(self)})
        merge_lora(model)
        assert torch.equal(torch.get_rng_state(), state) and model.training and not lora_layers(model) and seen

    def test_products_of_fewer_digits(self, monkeypatch):
        """On a GPU that rounds products to TF32, the two ways differ by more than float32's digits."""
        model = adapted(make=tiny_model)
        monkeypatch.setattr(LoRALayer, "forward", lambda self, x: 1.002 * (x @ self.delta()))
        with pytest.raises(ValueError, match="cannot be merged"):
            merge_lora(model)
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
        merge_lora(model)


class TestFiles:
    def test_round_trip(self, tmp_path):
        model = adapted(rank=2, alpha=7.0, targets=["W_query", "ff"])
        save_adapter(model, tmp_path / "a.safetensors")
        other = lively_model(qkv_bias=True)
        settings = load_adapter(other, tmp_path / "a.safetensors")
        assert torch.equal(logits(other), logits(model))
        assert (settings["rank"], settings["alpha"]) == (2, 7.0)
        assert settings["targets"] == list(lora_layers(model)) == list(lora_layers(other))

    def test_what_is_in_the_file(self, tmp_path):
        path = tmp_path / "new folder" / "a.safetensors"
        save_adapter(adapted(targets="W_key"), path)
        with safe_open(path, framework="pt") as file:
            names = [f"trf_blocks.{block}.att.W_key.lora.{part}" for block in (0, 1) for part in "AB"]
            assert sorted(file.keys()) == names
            assert json.loads(file.metadata()["lora"])["rank"] == 3
        assert [entry.name for entry in path.parent.iterdir()] == ["a.safetensors"]  # nothing temporary is left
        whole = tmp_path / "model.safetensors"
        save_model(lively_model(), whole)
        assert path.stat().st_size < whole.stat().st_size / 10

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "a.safetensors"
        save_adapter(adapted(), path)
        before = path.read_bytes()
        monkeypatch.setattr("helpers.lora.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            save_adapter(adapted(rank=1), path)
        assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("targets", [None, "att"])
    def test_with_a_new_head(self, tmp_path, targets):
        model = classifier()
        replace_linear_with_lora(model, 2, 4, targets)
        stir(model)
        save_adapter(model, tmp_path / "spam.safetensors", also=["out_head"])
        base = lively_model()  # with its language-model head, which has no bias and 97 outputs
        state = torch.get_rng_state()
        load_adapter(base, tmp_path / "spam.safetensors")
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(logits(base), logits(model)) and logits(base).shape == (3, 8, 2)

    def test_of_a_compiled_model(self, tmp_path):
        model = adapted(targets="W_key")
        save_adapter(torch.compile(model), tmp_path / "a.safetensors")
        load_adapter(other := lively_model(qkv_bias=True), tmp_path / "a.safetensors")
        assert torch.equal(logits(other), logits(model))
        load_adapter(torch.compile(third := lively_model(qkv_bias=True)), tmp_path / "a.safetensors")
        assert torch.equal(logits(third), logits(model))

    @pytest.mark.parametrize("half", [False, True])
    def test_of_8_bit_weights(self, tmp_path, half):
        model = quantize_int8(adapted(targets="att"))
        save_adapter(model.half() if half else model, tmp_path / "a.safetensors")
        assert load_adapter(lively_model(qkv_bias=True), tmp_path / "a.safetensors")["rank"] == 3

    def test_what_else_was_trained(self, tmp_path):
        model, path = classifier(), tmp_path / "a.safetensors"
        replace_linear_with_lora(model, 2, 4, "att")
        model.out_head.requires_grad_(True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            save_adapter(model, path, also=["out_head"])
        with pytest.warns(
            UserWarning, match=r"2 trainable .* not part of the adapter, out_head\.weight first"
        ) as found:
            save_adapter(model, path)
        assert found[0].filename == __file__

    def test_nothing_to_save(self, tmp_path):
        with pytest.raises(ValueError, match="no LoRA layers to save"):
            save_adapter(lively_model(), tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match="'tok_emb', which is no linear layer"):
            save_adapter(adapted(), tmp_path / "a.safetensors", also=["tok_emb"])
        mixed = adapted(rank=2, targets="att")
        mixed.out_head = LinearWithLoRA(mixed.out_head, 1, 1)
        with pytest.raises(ValueError, match="one rank and one alpha"):
            save_adapter(mixed, tmp_path / "a.safetensors")
        assert list(tmp_path.iterdir()) == []

    def test_of_another_model(self, tmp_path):
        save_adapter(adapted(), tmp_path / "a.safetensors")
        for other, named in [
            (tiny_model(emb_dim=12), "goes from 12 to 12 here, from 24 to 24 there"),
            (tiny_model(n_layers=1), r"no linear layer trf_blocks\.1"),
            (tiny_model(vocab_size=50), "out_head goes from 24 to 50"),
        ]:
            before = logits(other) if other.tok_emb.num_embeddings == 97 else None
            with pytest.raises(ValueError, match=named):
                load_adapter(other, tmp_path / "a.safetensors")
            assert not lora_layers(other)
            assert before is None or torch.equal(logits(other), before)

    def test_unreadable(self, tmp_path):
        path, model = tmp_path / "a.safetensors", lively_model(qkv_bias=True)
        with pytest.raises(FileNotFoundError, match="does not exist"):
            load_adapter(model, path)
        save_model(model, path)
        with pytest.raises(ValueError, match="not an adapter's file"):
            load_adapter(model, path)
        save_adapter(adapted(), path)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match="damaged"):
            load_adapter(model, path)
        a, b = torch.zeros(24, 2), torch.zeros(2, 97)
        settings = {"rank": 3, "alpha": 1, "targets": ["out_head"], "also": []}
        save_file({"out_head.lora.A": a, "out_head.lora.B": b}, path, metadata={"lora": json.dumps(settings)})
        with pytest.raises(ValueError, match="not of rank 3"):
            load_adapter(model, path)
        assert not lora_layers(model)

    def test_onto_an_adapter(self, tmp_path):
        save_adapter(adapted(), tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match="already"):
            load_adapter(adapted(), tmp_path / "a.safetensors")


class TestAdapters:
    def test_switching(self):
        model = lively_model().requires_grad_(False)
        plain = logits(model)
        adapters = Adapters(model)
        replace_linear_with_lora(model, 2, 2, "att")
        style = logits(stir(model, seed=1))
        adapters.keep("style")
        adapters.use()
        assert torch.equal(logits(model), plain)
        model.out_head = torch.nn.Linear(TINY["emb_dim"], 2)
        replace_linear_with_lora(model, 4, 1)
        spam = logits(stir(model, seed=2))
        adapters.keep("spam")
        for name, expected in [("style", style), ("spam", spam), ("spam", spam), (None, plain), ("style", style)]:
            adapters.use(name)
            assert torch.equal(logits(model), expected)

    def test_from_files(self, tmp_path):
        save_adapter(model := adapted(), tmp_path / "a.safetensors")
        base = lively_model(qkv_bias=True).requires_grad_(False)
        adapters = Adapters(base)
        load_adapter(base, tmp_path / "a.safetensors")
        adapters.keep("a")
        adapters.use()
        adapters.use("a")
        assert torch.equal(logits(base), logits(model))

    def test_merging_one_leaves_the_base_alone(self):
        model = lively_model().requires_grad_(False)
        plain, adapters = logits(model), Adapters(model)
        replace_linear_with_lora(model, 2, 2)
        expected = logits(stir(model))
        adapters.keep("a")
        merge_lora(model)
        adapters.keep("merged")
        adapters.use()
        assert torch.equal(logits(model), plain)
        adapters.use("merged")
        assert torch.allclose(logits(model), expected, rtol=1e-5, atol=1e-5)

    def test_what_else_was_trained(self):
        model = lively_model()  # not frozen
        adapters = Adapters(model)
        replace_linear_with_lora(model, 2, 2, "W_query")
        with pytest.warns(UserWarning, match=r"31 trainable .* part of the adapter, tok_emb\.weight first") as found:
            adapters.keep("a")
        assert found[0].filename == __file__
        model.requires_grad_(False)
        for layer in lora_layers(model).values():
            layer.lora.requires_grad_(True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            adapters.keep("a")

    def test_errors(self):
        model = lively_model()
        adapters = Adapters(model)
        with pytest.raises(ValueError, match="name='a' was not kept; there are no adapters"):
            adapters.use("a")
        replace_linear_with_lora(model, 2, 2)
        with pytest.raises(ValueError, match="would be lost"):
            adapters.use()
        assert lora_layers(model)
        with pytest.raises(ValueError, match="already"):
            Adapters(model)


class TestPeft:
    """The same weights in Hugging Face's peft, on the same model."""

    TARGETS = ("W_query", "W_value", "out_proj", "ff.layers.0", "ff.layers.2", "out_head")

    @pytest.fixture(params=[(1, 1), (3, 5), (8, 4)], ids=str)
    def pair(self, request):
        peft = pytest.importorskip("peft")
        rank, alpha = request.param
        ours = adapted(rank, float(alpha), self.TARGETS)
        config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(self.TARGETS))
        theirs = peft.get_peft_model(lively_model(qkv_bias=True), config)
        modules = dict(theirs.base_model.model.named_modules())
        for name, layer in lora_layers(ours).items():
            modules[name].lora_A["default"].weight.data = layer.lora.A.detach().T.clone()
            modules[name].lora_B["default"].weight.data = layer.lora.B.detach().T.clone()
        adapted_there = {name for name, module in modules.items() if hasattr(module, "lora_A")}
        assert adapted_there == set(lora_layers(ours))
        return ours, theirs

    def test_outputs(self, pair):
        ours, theirs = pair
        assert torch.allclose(logits(ours), logits(theirs), rtol=1e-5, atol=1e-5)

    def test_gradients(self, pair):
        ours, theirs = pair
        inputs, targets = windows(3)
        for model in pair:
            calc_loss_batch(inputs, targets, model, CPU).backward()
        modules = dict(theirs.base_model.model.named_modules())
        for name, layer in lora_layers(ours).items():
            for mine, their in ((layer.lora.A, "lora_A"), (layer.lora.B, "lora_B")):
                expected = getattr(modules[name], their)["default"].weight.grad.T
                assert torch.allclose(mine.grad, expected, rtol=1e-4, atol=1e-5), name

    def test_merged_weights(self, pair):
        ours, theirs = pair
        merge_lora(ours)
        merged = theirs.merge_and_unload().state_dict()
        assert ours.state_dict().keys() == merged.keys()
        for name, values in ours.state_dict().items():
            assert torch.allclose(values, merged[name], rtol=1e-5, atol=1e-5), name


def test_public_names():
    wanted = {"LoRALayer", "LinearWithLoRA", "replace_linear_with_lora", "merge_lora", "unmerge_lora", "Adapters"}
    assert wanted | {"save_adapter", "load_adapter", "lora_layers"} <= set(helpers.__all__)
