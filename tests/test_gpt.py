"""The GPT model: parameter counts, parity with PyTorch and transformers, the published text, and errors."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from helpers import (
    GELU,
    GPT_CONFIG_124M,
    GPT_SIZES,
    FeedForward,
    GPTModel,
    LayerNorm,
    TransformerBlock,
    generate_text_simple,
    get_tokenizer,
    gpt_config,
)
from helpers.gpt import count_parameters
from tests.tiny import TINY, tiny_model

MIB = 1024 * 1024


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def small_ids(batch=2, tokens=16, seed=0):
    return torch.randint(0, TINY["vocab_size"], (batch, tokens), generator=torch.Generator().manual_seed(seed))


class TestConfigurations:
    def test_124m(self):
        assert GPT_CONFIG_124M == {
            "vocab_size": 50257,
            "context_length": 1024,
            "emb_dim": 768,
            "n_heads": 12,
            "n_layers": 12,
            "drop_rate": 0.1,
            "qkv_bias": False,
        }
        assert gpt_config() == gpt_config("124M") == GPT_CONFIG_124M

    def test_changes_do_not_reach_the_original(self):
        changed = gpt_config("355M", context_length=256, qkv_bias=True)
        assert (changed["emb_dim"], changed["context_length"], changed["qkv_bias"]) == (1024, 256, True)
        changed["vocab_size"] = 1
        assert gpt_config("355M")["vocab_size"] == GPT_CONFIG_124M["vocab_size"] == 50257
        assert gpt_config("355M")["context_length"] == 1024

    def test_unknown_size(self):
        with pytest.raises(ValueError, match="size='125M' is not one of 124M, 355M, 774M, 1558M"):
            gpt_config("125M")

    def test_unknown_entry(self):
        with pytest.raises(ValueError, match=r"'n_head' is not an entry .*n_heads"):
            gpt_config(n_head=4)


class TestParameterCounts:
    @pytest.mark.parametrize(
        ("size", "parameters", "tied"),
        [
            ("124M", 163_009_536, 124_412_160),
            ("355M", 406_212_608, 354_749_440),
            ("774M", 838_220_800, 773_891_840),
            ("1558M", 1_637_792_000, 1_557_380_800),
        ],
    )
    def test_all_sizes(self, size, parameters, tied):
        with torch.device("meta"):
            model = GPTModel(gpt_config(size))
        assert count(model) == parameters
        assert count(model) - count(model.out_head) == tied
        assert model.out_head.weight.shape == model.tok_emb.weight.shape

    def test_sizes(self):
        assert {size: tuple(entries.values()) for size, entries in GPT_SIZES.items()} == {
            "124M": (768, 12, 12),
            "355M": (1024, 16, 24),
            "774M": (1280, 20, 36),
            "1558M": (1600, 25, 48),
        }

    def test_megabytes(self):
        sizes = {}
        for size in ("124M", "1558M"):
            with torch.device("meta"):
                model = GPTModel(gpt_config(size))
            sizes[size] = sum(p.numel() * p.element_size() for p in model.parameters()) / MIB
        assert f"{sizes['124M']:.2f}" == "621.83"
        assert f"{sizes['1558M']:.2f}" == "6247.68"

    def test_one_block(self):  # exercise 4.1
        with torch.device("meta"):
            block = TransformerBlock(GPT_CONFIG_124M)
        assert count(block.ff) == 4_722_432
        assert count(block.att) == 2_360_064

    def test_biases_of_the_projections(self):
        assert count(tiny_model(qkv_bias=True)) - count(tiny_model()) == TINY["n_layers"] * 3 * TINY["emb_dim"]

    @pytest.mark.parametrize("size", GPT_SIZES)
    @pytest.mark.parametrize("bias", [False, True])
    def test_the_formula_counts_what_a_model_has(self, size, bias):
        cfg = gpt_config(size, qkv_bias=bias)
        with torch.device("meta"):
            model = GPTModel(cfg)
        blocks = model.trf_blocks
        assert count_parameters(cfg) == {
            "token embedding": count(model.tok_emb),
            "position embedding": count(model.pos_emb),
            "attention": sum(count(block.att) for block in blocks),
            "feed-forward": sum(count(block.ff) for block in blocks),
            "LayerNorms": sum(count(block.norm1) + count(block.norm2) for block in blocks) + count(model.final_norm),
            "output layer": count(model.out_head),
        }
        assert sum(count_parameters(cfg).values()) == count(model)

    def test_the_published_count(self):
        assert sum(count_parameters(GPT_CONFIG_124M).values()) == 163_009_536


class TestParts:
    @pytest.mark.parametrize("shape", [(2, 5), (3, 4, 8), (1, 1, 64)])
    def test_layer_norm(self, shape):
        torch.manual_seed(1)
        x = 3 * torch.randn(shape) + 7
        ours, theirs = LayerNorm(shape[-1]), nn.LayerNorm(shape[-1])
        assert_close(ours(x), theirs(x))
        with torch.no_grad():
            theirs.weight.copy_(ours.scale.normal_())
            theirs.bias.copy_(ours.shift.normal_())
        assert_close(ours(x), theirs(x))

    def test_layer_norm_divides_by_n(self):
        x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
        assert_close((LayerNorm(4)(x) ** 2).mean(), torch.tensor(1.0), rtol=0, atol=1e-4)

    def test_layer_norm_of_equal_numbers(self):
        assert torch.equal(LayerNorm(4)(torch.full((2, 4), 3.0)), torch.zeros(2, 4))

    def test_gelu(self):
        x = torch.linspace(-6, 6, 1001)
        assert_close(GELU()(x), nn.GELU(approximate="tanh")(x))
        assert_close(GELU()(x.double()), nn.GELU(approximate="tanh")(x.double()), rtol=1e-9, atol=1e-9)
        assert not torch.allclose(GELU()(x), nn.GELU()(x), rtol=0, atol=1e-5)  # the exact form is another function

    def test_feed_forward(self):
        torch.manual_seed(1)
        feed_forward, x = FeedForward(TINY), torch.randn(2, 5, TINY["emb_dim"])
        first, _, last = feed_forward.layers
        assert first.weight.shape == (4 * TINY["emb_dim"], TINY["emb_dim"])
        assert_close(feed_forward(x), last(nn.functional.gelu(first(x), approximate="tanh")))

    def test_block(self):
        torch.manual_seed(1)
        block, x = TransformerBlock(TINY), torch.randn(2, 5, TINY["emb_dim"])
        middle = x + block.att(block.norm1(x))
        assert_close(block(x), middle + block.ff(block.norm2(middle)))


class TestModel:
    def test_shape(self):
        assert tiny_model()(small_ids(3, 7)).shape == (3, 7, TINY["vocab_size"])
        assert tiny_model()(small_ids(1, 1)).shape == (1, 1, TINY["vocab_size"])

    def test_a_later_token_changes_nothing_earlier(self):
        model, ids = tiny_model(), small_ids()
        before = model(ids)
        for position in range(16):
            changed = ids.clone()
            changed[:, position] = (changed[:, position] + 1) % TINY["vocab_size"]
            after = model(changed)
            assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-5)
            assert not torch.allclose(after[:, position], before[:, position], atol=1e-3)

    def test_positions_matter(self):
        logits = tiny_model()(torch.full((1, 4), 5))
        assert not torch.allclose(logits[0, 0], logits[0, 3], atol=1e-3)

    def test_gradients_reach_every_parameter(self):
        model, ids = tiny_model(), small_ids(8)
        nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert (parameter.grad != 0).any(), name

    def test_dropout_only_while_training(self):
        model, ids = tiny_model(drop_rate=0.5), small_ids()
        assert not torch.equal(model(ids), model(ids))
        model.eval()
        assert torch.equal(model(ids), model(ids))
        assert_close(model(ids), tiny_model().eval()(ids))

    def test_state_dict_round_trip(self):
        model, other = tiny_model(seed=1), tiny_model(seed=2)
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(small_ids()), other(small_ids()))
        assert not [name for name in model.state_dict() if "mask" in name]

    def test_too_long(self):
        with pytest.raises(ValueError, match="in_idx has 17 tokens, but context_length is 16"):
            tiny_model()(small_ids(1, 17))

    def test_id_outside_the_vocabulary(self):
        with pytest.raises(IndexError):
            tiny_model()(torch.tensor([[TINY["vocab_size"]]]))

    def test_heads_must_divide_the_width(self):
        with pytest.raises(ValueError, match="d_out=24 must be a multiple of num_heads=5"):
            tiny_model(n_heads=5)


class TestParityWithTransformers:
    @pytest.mark.parametrize("qkv_bias", [False, True])
    def test_logits(self, qkv_bias):
        from transformers import GPT2Config, GPT2LMHeadModel

        ours = tiny_model(qkv_bias=qkv_bias).eval()
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():  # as they are initialised, all LayerNorms would be alike
            for parameter in ours.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        theirs = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=TINY["vocab_size"],
                n_positions=TINY["context_length"],
                n_embd=TINY["emb_dim"],
                n_layer=TINY["n_layers"],
                n_head=TINY["n_heads"],
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                tie_word_embeddings=False,
            )
        ).eval()
        weights = {
            "transformer.wte.weight": ours.tok_emb.weight,
            "transformer.wpe.weight": ours.pos_emb.weight,
            "transformer.ln_f.weight": ours.final_norm.scale,
            "transformer.ln_f.bias": ours.final_norm.shift,
            "lm_head.weight": ours.out_head.weight,
        }
        for number, block in enumerate(ours.trf_blocks):
            projections = (block.att.W_query, block.att.W_key, block.att.W_value)
            biases = [p.bias if qkv_bias else torch.zeros(TINY["emb_dim"]) for p in projections]
            parts = {  # transformers keeps these matrices the other way round, as (in, out)
                "ln_1.weight": block.norm1.scale,
                "ln_1.bias": block.norm1.shift,
                "attn.c_attn.weight": torch.cat([p.weight for p in projections]).T,
                "attn.c_attn.bias": torch.cat(biases),
                "attn.c_proj.weight": block.att.out_proj.weight.T,
                "attn.c_proj.bias": block.att.out_proj.bias,
                "ln_2.weight": block.norm2.scale,
                "ln_2.bias": block.norm2.shift,
                "mlp.c_fc.weight": block.ff.layers[0].weight.T,
                "mlp.c_fc.bias": block.ff.layers[0].bias,
                "mlp.c_proj.weight": block.ff.layers[2].weight.T,
                "mlp.c_proj.bias": block.ff.layers[2].bias,
            }
            weights |= {f"transformer.h.{number}.{name}": weight for name, weight in parts.items()}
        names = {name for name, _ in theirs.named_parameters()}
        assert names == set(weights)
        theirs.load_state_dict(weights, strict=False)
        ids = small_ids(3)
        with torch.no_grad():
            expected = theirs(ids).logits
            assert expected.std() > 0.1
            assert_close(ours(ids), expected, rtol=0, atol=1e-4)


def test_published_text_of_the_untrained_model():
    torch.manual_seed(123)
    model = GPTModel(GPT_CONFIG_124M).eval()
    assert count(model) == 163_009_536
    ids = torch.tensor([get_tokenizer().encode("Hello, I am")])
    out = generate_text_simple(model, ids, max_new_tokens=6, context_size=1024)
    assert out.tolist() == [[15496, 11, 314, 716, 27018, 24086, 47843, 30961, 42348, 7267]]
