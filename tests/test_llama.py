"""The parts of Llama: parity with transformers' classes on tiny random models, the cache, and what a change does."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn as nn
from torch.testing import assert_close

from benchmarks.llama import in_transformers
from helpers import (
    SMOLLM2_CONFIG_135M,
    GroupedQueryAttention,
    LayerCache,
    LlamaBlock,
    LlamaCache,
    LlamaModel,
    MultiHeadAttention,
    RMSNorm,
    SwiGLU,
    fuse_llama,
    generate,
    generate_batch,
    generate_text_simple,
    lora_layers,
    merge_lora,
    quantize_int8,
    replace_linear_with_lora,
    rotary_tables,
    rotate,
)
from helpers.gpt import gpt_config
from helpers.llama import forward_last, llama_parameters
from helpers.speed.blockwise import BlockwiseAttention
from helpers.speed.chosen import logits_at
from helpers.speed.fused_llama import FusedGroupedQueryAttention
from helpers.speed.parts import is_course_llama
from helpers.speed.weight_formats import Int8Linear

TINY = {
    "vocab_size": 97,
    "context_length": 32,
    "emb_dim": 24,
    "n_heads": 6,
    "n_kv_heads": 2,
    "n_layers": 2,
    "hidden_dim": 40,
    "rope_base": 10_000.0,
    "norm_eps": 1e-5,
}
IDS = torch.randint(0, 97, (3, 9), generator=torch.Generator().manual_seed(0))
SIZES = [{}, {"n_kv_heads": 6}, {"n_kv_heads": 1}, {"rope_base": 100_000.0, "norm_eps": 1e-3}, {"n_layers": 3}]


def tiny_llama(seed=1, tied=False, **changes):
    """A tiny model with large random weights, whose next tokens depend visibly on all that came before."""
    torch.manual_seed(seed)
    model = LlamaModel({**TINY, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    if tied:
        model.out_head.weight = model.tok_emb.weight
    return model.eval()


def theirs(model, tied=False, **changes):
    return in_transformers(model, {**TINY, **changes})


def their_config(**changes):
    return theirs(tiny_llama(**changes), **changes).config


class TestParity:
    """Each part beside its counterpart in transformers, and the whole model."""

    def test_rms_norm(self):
        from transformers.models.llama.modeling_llama import LlamaRMSNorm

        x, scale = torch.randn(2, 5, 24), torch.randn(24)
        ours, other, torchs = RMSNorm(24, 1e-3), LlamaRMSNorm(24, 1e-3), nn.RMSNorm(24, 1e-3)
        for norm, name in ((ours, "scale"), (other, "weight"), (torchs, "weight")):
            getattr(norm, name).data = scale
        assert_close(ours(x), other(x))
        assert_close(ours(x), torchs(x))

    @pytest.mark.parametrize("base", [10_000.0, 100_000.0])
    def test_rotary_positions(self, base):
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

        queries, keys = torch.randn(2, 3, 9, 4), torch.randn(2, 3, 9, 4)
        positions = torch.randint(0, 32, (2, 9))
        other = LlamaRotaryEmbedding(their_config(rope_base=base))
        their_cos, their_sin = other(queries, positions)
        cos, sin = (table[positions][:, None] for table in rotary_tables(4, 32, base))
        expected = apply_rotary_pos_emb(queries, keys, their_cos, their_sin)
        assert_close(rotate(queries, cos, sin), expected[0])
        assert_close(rotate(keys, cos, sin), expected[1])

    def test_swiglu(self):
        from transformers.models.llama.modeling_llama import LlamaMLP

        ours, other, x = SwiGLU(TINY), LlamaMLP(their_config()), torch.randn(2, 5, 24)
        for part in ("gate", "up", "down"):
            getattr(other, f"{part}_proj").weight = getattr(ours, part).weight
        assert_close(ours(x), other(x))

    @pytest.mark.parametrize("kv_heads", [1, 2, 3, 6])
    def test_attention(self, kv_heads):
        from transformers.models.llama.modeling_llama import LlamaAttention

        torch.manual_seed(0)
        ours = GroupedQueryAttention({**TINY, "n_kv_heads": kv_heads})
        config = their_config(n_kv_heads=kv_heads)
        config._attn_implementation = "eager"
        other, x, positions = LlamaAttention(config, layer_idx=0), torch.randn(2, 7, 24), torch.arange(7)[None]
        for their, our in (("q", "W_query"), ("k", "W_key"), ("v", "W_value"), ("o", "out_proj")):
            getattr(other, f"{their}_proj").weight = getattr(ours, our).weight
        cos, sin = (table[positions][:, None] for table in rotary_tables(4, 32, 10_000.0))
        mask = torch.full((7, 7), -torch.inf).triu(1)[None, None]
        doubled = [torch.cat((table, table), dim=-1)[:, 0] for table in (cos, sin)]
        expected = other(hidden_states=x, position_embeddings=tuple(doubled), attention_mask=mask)[0]
        assert_close(ours(x, positions, cos, sin), expected)

    def test_as_many_heads_of_keys_as_of_queries_are_chapter_3s_attention(self):
        """Where nothing turns (all tokens at position 0 as far as angles go), and without out_proj's bias."""
        torch.manual_seed(0)
        ours = GroupedQueryAttention({**TINY, "n_kv_heads": 6})
        plain, x = MultiHeadAttention(24, 24, 32, 0.0, num_heads=6), torch.randn(2, 7, 24)
        for name in ("W_query", "W_key", "W_value", "out_proj"):
            getattr(plain, name).weight = getattr(ours, name).weight
        nn.init.zeros_(plain.out_proj.bias)
        cos, sin = torch.ones(1, 1, 7, 2), torch.zeros(1, 1, 7, 2)
        assert_close(ours(x, torch.arange(7)[None], cos, sin), plain(x))

    def test_block(self):
        model = tiny_llama()
        other = theirs(model).model
        x, positions = torch.randn(2, 7, 24), torch.arange(7)[None]
        cos, sin = model.cos[positions][:, None], model.sin[positions][:, None]
        mask = torch.full((7, 7), -torch.inf).triu(1)[None, None]
        out = other.layers[0](x, attention_mask=mask, position_embeddings=other.rotary_emb(x, positions))
        out = out[0] if isinstance(out, tuple) else out
        assert_close(model.trf_blocks[0](x, positions, cos, sin), out, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("changes", SIZES, ids=str)
    @torch.no_grad()
    def test_model(self, changes, tied):
        model = tiny_llama(tied=tied, **changes)
        assert_close(model(IDS), theirs(model, **changes)(IDS).logits, rtol=1e-4, atol=1e-4)

    def test_gradients(self):
        model = tiny_llama(tied=True)
        other = theirs(model)
        model(IDS).logsumexp(-1).sum().backward()
        other(IDS).logits.logsumexp(-1).sum().backward()
        ours, expected = model.trf_blocks[0].att.W_key.weight.grad, other.model.layers[0].self_attn.k_proj.weight.grad
        assert_close(ours, expected, rtol=1e-3, atol=1e-3)
        assert_close(model.tok_emb.weight.grad, other.model.embed_tokens.weight.grad, rtol=1e-3, atol=1e-3)

    def test_generation(self):
        model = tiny_llama()
        prompt, options = IDS[:1], {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        expected = theirs(model).generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        assert torch.equal(generate(model, prompt, 12, 32), expected)

    def test_smollm2_has_135_million_parameters(self):
        parts = llama_parameters(SMOLLM2_CONFIG_135M)
        assert sum(parts.values()) == 134_515_008
        with torch.device("meta"):
            model = LlamaModel(SMOLLM2_CONFIG_135M)
        total = sum(parameter.numel() for parameter in model.parameters())
        assert total == sum(parts.values()) + parts["token embedding"]  # the output layer, which is the embedding there


class TestRotation:
    def test_only_the_distance_counts(self):
        query, key = torch.randn(2, 1, 8)
        cos, sin = rotary_tables(8, 64, 10_000.0)

        def score(at, other):
            return rotate(query, cos[at], sin[at]) @ rotate(key, cos[other], sin[other]).T

        assert_close(score(5, 2), score(55, 52))
        assert not torch.allclose(score(5, 2), score(5, 3))

    def test_lengths_stay(self):
        x = torch.randn(3, 7, 8)
        cos, sin = rotary_tables(8, 7, 10_000.0)
        assert_close(rotate(x, cos, sin).norm(dim=-1), x.norm(dim=-1))
        assert_close(rotate(x, cos, sin)[:, 0], x[:, 0])


class TestCache:
    @pytest.mark.parametrize("make", [tiny_llama, lambda: fuse_llama(tiny_llama())], ids=["plain", "fused"])
    @torch.no_grad()
    def test_chunks_give_what_the_whole_gives(self, make):
        model = make()
        whole, cache = model(IDS), LlamaCache(model, 3, 9)
        parts = [model(IDS[:, start:end], cache) for start, end in ((0, 4), (4, 5), (5, 8), (8, 9))]
        assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)
        assert cache.lengths.tolist() == [9, 9, 9]

    @pytest.mark.parametrize("new", [[0, 3, 3], [3, 4, 3], [-1, 2, 2]])
    def test_a_number_of_new_tokens_that_cannot_be(self, new):
        model = tiny_llama()
        with pytest.raises(ValueError, match=r"new=\[.*must be from 1 to the 3 tokens"):
            forward_last(model, IDS[:, :3], LlamaCache(model, 3, 9), torch.tensor(new))

    @pytest.mark.parametrize("make", [tiny_llama, lambda: fuse_llama(tiny_llama())], ids=["plain", "fused"])
    def test_under_autocast(self, make):
        model, prompts = make(), [[1, 2, 3], [4, 5, 6, 7, 8]]
        with torch.autocast("cpu", torch.bfloat16):
            cached = generate_batch(model, prompts, 4, 9)
            assert cached == generate_batch(model, prompts, 4, 9, use_cache=False)

    def test_it_is_smaller_by_the_size_of_a_group(self):
        for kv_heads in (6, 2, 1):
            cache = LlamaCache(tiny_llama(n_kv_heads=kv_heads), 3, 10)
            assert (
                sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
                == 2 * 2 * 3 * 10 * 4 * kv_heads
            )

    @pytest.mark.parametrize("make", [tiny_llama, lambda: fuse_llama(tiny_llama())], ids=["plain", "fused"])
    def test_rows_of_different_lengths(self, make):
        model = make()
        rows = [IDS[0, :3].tolist(), IDS[1, :9].tolist(), IDS[2, :1].tolist()]
        together = generate_batch(model, rows, 10, 32)
        assert together == [
            generate_text_simple(model, torch.tensor([row]), 10, 32)[0, len(row) :].tolist() for row in rows
        ]

    @pytest.mark.parametrize("mode", ["evaluation", "training", "LoRA"])
    def test_generate_reads_each_token_once(self, mode, monkeypatch):
        """Without dropout, the mode changes nothing; LoRA layers begin in training mode in whatever they are put."""
        model, seen = tiny_llama().train(mode == "training"), []
        if mode == "LoRA":
            replace_linear_with_lora(model, rank=2, alpha=4)
        assert any(module.training for module in model.modules()) is (mode != "evaluation")
        plain = LlamaModel.hidden_states
        hook = lambda self, idx, cache=None: (seen.append(tuple(idx.shape)), plain(self, idx, cache))[1]  # noqa: E731
        monkeypatch.setattr("helpers.speed.parts._HIDDEN_STATES", hook)
        monkeypatch.setattr(LlamaModel, "hidden_states", hook)
        cached = generate(model, IDS, 4, 32)
        assert seen == [(3, 9), (3, 1), (3, 1), (3, 1)]
        assert torch.equal(cached, generate(model, IDS, 4, 32, use_cache=False))

    def test_a_text_that_outgrows_the_context(self):
        model = tiny_llama()
        assert torch.equal(generate(model, IDS, 8, 10), generate_text_simple(model, IDS, 8, 10))

    @torch.no_grad()
    def test_no_room(self):
        model = tiny_llama()
        cache = LlamaCache(model, 1, 6)
        model(IDS[:1, :5], cache)
        with pytest.raises(ValueError, match="in_idx has 2 tokens after 5 kept ones, but the cache's capacity is 6"):
            model(IDS[:1, :2], cache)
        with pytest.raises(ValueError, match="in_idx has 33 tokens, but context_length is 32"):
            model(torch.zeros(1, 33, dtype=torch.long))
        with pytest.raises(ValueError, match="exceeds the model's context_length of 32"):
            generate(model, IDS, 30, 40)

    def test_a_layer_keeps_keys_where_they_belong(self):
        kept = LayerCache(2, 1, 5, 3)
        keys = torch.randn(2, 1, 2, 3)
        all_keys, all_values = kept.add(keys, -keys, torch.tensor([[0, 1], [2, 3]]))
        assert all_keys.shape == (2, 1, 4, 3)
        assert_close(all_keys[0, :, :2], keys[0])
        assert_close(all_keys[1, :, 2:], keys[1])
        assert_close(all_values, -all_keys)

    @torch.no_grad()
    def test_forward_last(self):
        model = tiny_llama()
        cache, lengths = LlamaCache(model, 3, 9), torch.tensor([4, 9, 1])
        last = forward_last(model, IDS, cache, lengths)
        assert_close(last, model(IDS)[torch.arange(3), lengths - 1], rtol=1e-4, atol=1e-4)
        assert cache.lengths.tolist() == [4, 9, 1]


class Shouting(GroupedQueryAttention):
    def forward(self, x, *places):
        return 2 * super().forward(x, *places)


class FromTheFirst(GroupedQueryAttention):
    """What a cache could not give: each token also gets what the last one of all had."""

    def forward(self, x, *places):
        return super().forward(x, *places) + x[:, -1:]


def changed(kind):
    """A model with one part changed."""
    model = tiny_llama()
    block = model.trf_blocks[1]
    if kind in (Shouting, FromTheFirst):
        block.att.__class__ = kind
    elif kind == "hook":
        block.att.register_forward_hook(lambda module, given, out: out + given[0].mean(dim=1, keepdim=True))
    elif kind == "norm":
        block.norm1 = nn.LayerNorm(24)
    elif kind == "gate":
        block.ff.gate.register_forward_hook(lambda module, given, out: -out)
    elif kind == "forward":
        model.forward = lambda idx, cache=None: -LlamaModel.forward(model, idx, cache)
    return model


class TestWhatALearnerChanges:
    @pytest.mark.parametrize("kind", [Shouting, FromTheFirst, "hook", "norm", "gate", "forward"])
    def test_it_counts(self, kind):
        model = changed(kind)
        assert not is_course_llama(model)
        expected = generate_text_simple(model, IDS, 6, 32)
        assert torch.equal(generate(model, IDS, 6, 32), expected)
        assert torch.equal(generate(fuse_llama(model), IDS, 6, 32), expected)
        mask = torch.zeros_like(IDS, dtype=torch.bool)
        mask[:, 3:] = True
        with torch.no_grad():
            assert_close(logits_at(model, IDS, mask), model(IDS)[mask])

    def test_dropout_of_a_training_model_is_none(self):
        assert not any(isinstance(module, nn.Dropout) for module in tiny_llama().modules())

    @pytest.mark.parametrize("changes", SIZES, ids=str)
    @torch.no_grad()
    def test_fused_parts_give_the_same(self, changes):
        model = tiny_llama(**changes)
        fused = fuse_llama(copy.deepcopy(model))
        assert {type(module).__name__ for module in fused.modules()} >= {"FusedRMSNorm", "FusedGroupedQueryAttention"}
        assert_close(fused(IDS), model(IDS), rtol=1e-4, atol=1e-4)
        assert is_course_llama(fused)
        assert torch.equal(generate(fused, IDS, 8, 32), generate_text_simple(model, IDS, 8, 32))

    @pytest.mark.parametrize("kv_heads", [1, 2, 6])
    @pytest.mark.parametrize("num_tokens", [7, 150])
    def test_fused_attention_in_bfloat16(self, num_tokens, kv_heads, monkeypatch):
        """Outputs and gradients are those of the class as taught in float32, to bfloat16's precision."""
        blockwise, apply = [], BlockwiseAttention.apply
        monkeypatch.setattr(BlockwiseAttention, "apply", lambda x: blockwise.append(x.dtype) or apply(x))
        torch.manual_seed(0)
        plain = GroupedQueryAttention({**TINY, "emb_dim": 48, "n_kv_heads": kv_heads})
        fused = copy.deepcopy(plain)
        fused.__class__ = FusedGroupedQueryAttention
        x, weight, positions = *torch.randn(2, 3, num_tokens, 48), torch.arange(num_tokens)[None]
        tables = [table[positions][:, None] for table in rotary_tables(8, num_tokens, 10_000.0)]
        found = []
        for attention, fast in ((plain, False), (fused, True)):
            given = x.clone().requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast):
                out = attention(given, positions, *tables)
            (out * weight).sum().backward()
            found.append([out, given.grad, *(parameter.grad for parameter in attention.parameters())])
        assert blockwise == [torch.bfloat16]
        for expected, got in zip(*found, strict=True):
            assert (got - expected).norm() < 0.02 * expected.norm()

    @torch.no_grad()
    def test_logits_at(self):
        model, mask = tiny_llama(), torch.rand(IDS.shape, generator=torch.Generator().manual_seed(1)) < 0.5
        assert_close(logits_at(model, IDS, mask), model(IDS)[mask])

    def test_a_text_in_8_bits(self):
        model = quantize_int8(tiny_llama(emb_dim=48, hidden_dim=96))
        assert is_course_llama(model)
        assert torch.equal(generate(model, IDS, 6, 32), generate_text_simple(model, IDS, 6, 32))


def test_hidden_states_that_are_assigned():
    model = tiny_llama()
    model.hidden_states = lambda ids, cache=None: -LlamaModel.hidden_states(model, ids, cache)
    assert not is_course_llama(model)
    plain = generate_text_simple(model, IDS[:1, :3], 4, 9)
    assert torch.equal(generate(model, IDS[:1, :3], 4, 9), plain)


def test_a_fused_model_in_fewer_bits():
    model = quantize_int8(fuse_llama(tiny_llama()))
    assert type(model.out_head) is type(model.trf_blocks[0].ff.gate) is Int8Linear
    assert_close(model(IDS), tiny_llama()(IDS), rtol=0.1, atol=0.5)


class TestLoRA:
    @pytest.mark.parametrize("make", [tiny_llama, lambda: fuse_llama(tiny_llama())], ids=["plain", "fused"])
    def test_it_goes_beside_every_linear_layer(self, make):
        model = make()
        with torch.no_grad():
            before = model(IDS)
        model.requires_grad_(False)
        replace_linear_with_lora(model, rank=2, alpha=4)
        assert len(lora_layers(model)) == 2 * 7 + 1
        assert_close(model(IDS).detach(), before)
        optimizer = torch.optim.Adam(
            [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.01
        )
        targets = IDS.roll(-1, dims=1)
        losses = []
        for _ in range(15):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(IDS).flatten(0, 1), targets.flatten())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]
        assert is_course_llama(model)
        expected = generate_text_simple(model, IDS, 5, 32)
        assert torch.equal(generate(model, IDS, 5, 32), expected)
        merge_lora(model)
        assert torch.equal(generate(model, IDS, 5, 32), expected)

    def test_targets(self):
        model = tiny_llama()
        replace_linear_with_lora(model, rank=2, alpha=4, targets=["trf_blocks.1", "W_query"])
        assert len(lora_layers(model)) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emb_dim": 25}, "must be a multiple of twice n_heads"),
        ({"emb_dim": 18}, "must be a multiple of twice n_heads"),
        ({"n_kv_heads": 4}, "n_heads=6 must be a multiple of n_kv_heads=4"),
        ({"n_kv_heads": 0}, "a whole number of at least 1"),
        ({"hidden_dim": 2.5}, "a whole number of at least 1"),
        ({"norm_eps": 0.0}, "a positive number"),
        ({"rope_base": "10000"}, "a positive number"),
    ],
)
def test_a_wrong_configuration(changes, message):
    with pytest.raises(ValueError, match=message):
        LlamaModel({**TINY, **changes})


def test_a_configuration_of_chapter_4_lacks_entries():
    with pytest.raises(ValueError, match="cfg has no entry 'n_kv_heads'"):
        LlamaModel(gpt_config())


@pytest.mark.parametrize("ids", [torch.zeros(3, dtype=torch.long), torch.zeros(1, 3), [[1, 2]]])
def test_wrong_ids(ids):
    with pytest.raises(ValueError, match="in_idx must be token ids"):
        tiny_llama()(ids)


def test_block_is_the_sum_of_its_halves():
    block, x, positions = LlamaBlock(TINY), torch.randn(1, 4, 24), torch.arange(4)[None]
    cos, sin = (table[positions][:, None] for table in rotary_tables(4, 32, 10_000.0))
    middle = x + block.att(block.norm1(x), positions, cos, sin)
    assert_close(block(x, positions, cos, sin), middle + block.ff(block.norm2(middle)))
