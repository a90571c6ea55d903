"""Attention: published numbers, parity with PyTorch's own kernels, causality, dropout, buffers and errors."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from helpers import CausalAttention, MultiHeadAttention, MultiHeadAttentionWrapper, SelfAttention_v1, SelfAttention_v2

# "Your journey starts with one step", the running example of chapter 3: (6, 3)
JOURNEY = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)
BATCH = torch.stack((JOURNEY, JOURNEY))  # (2, 6, 3)
PRINTED = {"rtol": 0, "atol": 6e-5}  # numbers that were published with four digits


def random_input(batch, tokens, width, seed=0):
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed))


class TestPublishedNumbers:
    def test_scores_of_the_second_token(self):
        expected = [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865]
        assert_close(JOURNEY @ JOURNEY[1], torch.tensor(expected), **PRINTED)

    def test_self_attention_v1(self):
        torch.manual_seed(123)
        out = SelfAttention_v1(3, 2)(JOURNEY)
        assert_close(out[0], torch.tensor([0.2996, 0.8053]), **PRINTED)
        assert_close(out[1], torch.tensor([0.3061, 0.8210]), **PRINTED)

    def test_self_attention_v2(self):
        torch.manual_seed(789)
        out = SelfAttention_v2(3, 2)(JOURNEY)
        assert_close(out[0], torch.tensor([-0.0739, 0.0713]), **PRINTED)
        assert_close(out[5], torch.tensor([-0.0754, 0.0693]), **PRINTED)

    def test_causal_attention(self):
        torch.manual_seed(123)
        out = CausalAttention(3, 2, context_length=6, dropout=0.0)(BATCH)
        assert out.shape == (2, 6, 2)
        assert_close(out[1, 0], torch.tensor([-0.4519, 0.2216]), **PRINTED)
        assert_close(out[1, 5], torch.tensor([-0.5299, -0.1081]), **PRINTED)

    def test_wrapper(self):
        torch.manual_seed(123)
        out = MultiHeadAttentionWrapper(3, 2, context_length=6, dropout=0.0, num_heads=2)(BATCH)
        assert out.shape == (2, 6, 4)
        assert_close(out[0, 0], torch.tensor([-0.4519, 0.2216, 0.4772, 0.1063]), **PRINTED)
        assert_close(out[0, 5], torch.tensor([-0.5299, -0.1081, 0.5077, 0.3493]), **PRINTED)

    def test_multi_head_attention(self):
        torch.manual_seed(123)
        out = MultiHeadAttention(3, 2, context_length=6, dropout=0.0, num_heads=2)(BATCH)
        assert out.shape == (2, 6, 2)
        assert_close(out[0, 0], torch.tensor([0.3190, 0.4858]), **PRINTED)
        assert_close(out[0, 5], torch.tensor([0.2575, 0.4028]), **PRINTED)

    def test_parameters_of_gpt2_small(self):
        with torch.device("meta"):
            attention = MultiHeadAttention(768, 768, context_length=1024, dropout=0.0, num_heads=12)
        assert sum(p.numel() for p in attention.parameters()) == 2_360_064


SHAPES = [(1, 1, 3, 2), (2, 6, 3, 2), (3, 5, 8, 8), (2, 17, 16, 12)]  # batch, tokens, d_in, d_out


class TestParityWithTorch:
    @pytest.mark.parametrize(("batch", "tokens", "d_in", "d_out"), SHAPES)
    def test_self_attention_v1(self, batch, tokens, d_in, d_out):
        torch.manual_seed(1)
        attention, x = SelfAttention_v1(d_in, d_out), random_input(batch, tokens, d_in)
        expected = scaled_dot_product_attention(x @ attention.W_query, x @ attention.W_key, x @ attention.W_value)
        assert_close(attention(x), expected)
        assert_close(attention(x[0]), expected[0])  # without a batch

    @pytest.mark.parametrize("qkv_bias", [False, True])
    @pytest.mark.parametrize(("batch", "tokens", "d_in", "d_out"), SHAPES)
    def test_self_attention_v2(self, batch, tokens, d_in, d_out, qkv_bias):
        torch.manual_seed(1)
        attention, x = SelfAttention_v2(d_in, d_out, qkv_bias=qkv_bias), random_input(batch, tokens, d_in)
        assert (attention.W_query.bias is not None) == qkv_bias
        expected = scaled_dot_product_attention(attention.W_query(x), attention.W_key(x), attention.W_value(x))
        assert_close(attention(x), expected)
        assert_close(attention(x[0]), expected[0])

    @pytest.mark.parametrize("qkv_bias", [False, True])
    @pytest.mark.parametrize(("batch", "tokens", "d_in", "d_out"), SHAPES)
    def test_causal_attention(self, batch, tokens, d_in, d_out, qkv_bias):
        torch.manual_seed(1)
        attention = CausalAttention(d_in, d_out, tokens + 3, dropout=0.0, qkv_bias=qkv_bias)
        x = random_input(batch, tokens, d_in)
        assert (attention.W_key.bias is not None) == qkv_bias
        expected = scaled_dot_product_attention(
            attention.W_query(x), attention.W_key(x), attention.W_value(x), is_causal=True
        )
        assert_close(attention(x), expected)

    @pytest.mark.parametrize("qkv_bias", [False, True])
    @pytest.mark.parametrize("num_heads", [1, 2, 4])
    @pytest.mark.parametrize(("batch", "tokens", "d_in", "d_out"), [(1, 1, 3, 4), (3, 5, 8, 8), (2, 17, 16, 12)])
    def test_multi_head_attention(self, batch, tokens, d_in, d_out, num_heads, qkv_bias):
        torch.manual_seed(1)
        attention = MultiHeadAttention(d_in, d_out, tokens + 3, 0.0, num_heads, qkv_bias=qkv_bias)
        x = random_input(batch, tokens, d_in)
        assert (attention.W_value.bias is not None) == qkv_bias
        assert attention.out_proj.bias is not None
        queries, keys, values = (
            torch.stack(projection(x).chunk(num_heads, dim=-1), dim=1)  # (B, H, T, D)
            for projection in (attention.W_query, attention.W_key, attention.W_value)
        )
        heads = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        assert_close(attention(x), attention.out_proj(torch.cat(heads.unbind(dim=1), dim=-1)))

    @pytest.mark.parametrize("qkv_bias", [False, True])
    @pytest.mark.parametrize(("num_heads", "width"), [(1, 4), (2, 8), (3, 12)])
    def test_nn_multihead_attention(self, num_heads, width, qkv_bias):
        torch.manual_seed(1)
        ours = MultiHeadAttention(width, width, 10, 0.0, num_heads, qkv_bias=qkv_bias)
        theirs = nn.MultiheadAttention(width, num_heads, batch_first=True)
        projections = (ours.W_query, ours.W_key, ours.W_value)
        with torch.no_grad():
            theirs.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
            theirs.in_proj_bias.zero_()
            if qkv_bias:
                theirs.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
            theirs.out_proj.load_state_dict(ours.out_proj.state_dict())
        x = random_input(2, 7, width)
        future = torch.triu(torch.ones(7, 7, dtype=torch.bool), diagonal=1)
        expected, _ = theirs(x, x, x, attn_mask=future, need_weights=False)
        assert_close(ours(x), expected)

    def test_gradients(self):
        torch.manual_seed(1)
        attention, x = CausalAttention(5, 4, 8, 0.0), random_input(2, 8, 5)
        loss = (attention(x) ** 2).sum()
        ours = torch.autograd.grad(loss, list(attention.parameters()))
        out = scaled_dot_product_attention(
            attention.W_query(x), attention.W_key(x), attention.W_value(x), is_causal=True
        )
        theirs = torch.autograd.grad((out**2).sum(), list(attention.parameters()))
        assert_close(ours, theirs)


class TestTheSameInOtherWords:
    def test_v1_with_the_weights_of_v2(self):  # exercise 3.1
        torch.manual_seed(123)
        v1, v2 = SelfAttention_v1(3, 2), SelfAttention_v2(3, 2)
        for name in ("W_query", "W_key", "W_value"):
            setattr(v1, name, nn.Parameter(getattr(v2, name).weight.T))
        assert_close(v1(JOURNEY), v2(JOURNEY))

    def test_two_heads_with_one_number_each(self):  # exercise 3.2
        assert MultiHeadAttentionWrapper(3, 1, 6, 0.0, num_heads=2)(BATCH).shape == (2, 6, 2)

    @pytest.mark.parametrize("qkv_bias", [False, True])
    @pytest.mark.parametrize(("num_heads", "head_dim"), [(1, 3), (2, 2), (4, 5)])
    def test_wrapper_and_split_projection(self, num_heads, head_dim, qkv_bias):
        torch.manual_seed(1)
        width = num_heads * head_dim
        wrapper = MultiHeadAttentionWrapper(6, head_dim, 9, 0.0, num_heads, qkv_bias=qkv_bias)
        split = MultiHeadAttention(6, width, 9, 0.0, num_heads, qkv_bias=qkv_bias)
        with torch.no_grad():
            for name in ("W_query", "W_key", "W_value"):
                parts = [getattr(head, name) for head in wrapper.heads]
                getattr(split, name).weight.copy_(torch.cat([part.weight for part in parts]))
                if qkv_bias:
                    getattr(split, name).bias.copy_(torch.cat([part.bias for part in parts]))
            split.out_proj.weight.copy_(torch.eye(width))
            split.out_proj.bias.zero_()
        x = random_input(3, 9, 6)
        assert_close(split(x), wrapper(x))


CAUSAL = [
    pytest.param(lambda dropout=0.0: CausalAttention(8, 8, 10, dropout), id="CausalAttention"),
    pytest.param(lambda dropout=0.0: MultiHeadAttentionWrapper(8, 4, 10, dropout, 2), id="MultiHeadAttentionWrapper"),
    pytest.param(lambda dropout=0.0: MultiHeadAttention(8, 8, 10, dropout, 2), id="MultiHeadAttention"),
]


@pytest.mark.parametrize("make", CAUSAL)
class TestCausality:
    def test_a_later_token_changes_nothing_earlier(self, make):
        torch.manual_seed(1)
        attention, x = make(), random_input(2, 10, 8)
        before = attention(x)
        for position in range(10):
            changed = x.clone()
            changed[:, position] += 5.0
            after = attention(changed)
            assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-6)
            assert not torch.allclose(after[:, position], before[:, position], atol=1e-2)

    def test_a_shorter_text_gives_the_same_start(self, make):
        torch.manual_seed(1)
        attention, x = make(), random_input(2, 10, 8)
        for tokens in (1, 4, 9):
            assert_close(attention(x[:, :tokens]), attention(x)[:, :tokens])

    def test_sequences_of_a_batch_are_independent(self, make):
        torch.manual_seed(1)
        attention, x = make(), random_input(3, 10, 8)
        for row in range(3):
            assert_close(attention(x)[row], attention(x[row : row + 1])[0])

    def test_too_long(self, make):
        with pytest.raises(ValueError, match="x has 11 tokens, but context_length is 10"):
            make()(random_input(1, 11, 8))

    def test_one_token(self, make):
        assert make()(random_input(1, 1, 8)).shape == (1, 1, 8)


class TestDropout:
    """With one-hot tokens as values the output is the matrix of attention weights, here twice side by side."""

    TOKENS = 40

    def weights(self, attention):
        with torch.no_grad():
            attention.W_value.weight.copy_(torch.eye(self.TOKENS).repeat(2, 1))
            if isinstance(attention, MultiHeadAttention):
                attention.out_proj.weight.copy_(torch.eye(2 * self.TOKENS))
                attention.out_proj.bias.zero_()
            one_hot = torch.eye(self.TOKENS)[None]
            full, dropped = attention.eval()(one_hot)[0], attention.train()(one_hot)[0]
        for twice in (full, dropped):  # had the output been dropped, its halves would differ
            assert torch.equal(twice[:, : self.TOKENS], twice[:, self.TOKENS :])
        return full[:, : self.TOKENS], dropped[:, : self.TOKENS]

    @pytest.mark.parametrize("p", [0.1, 0.5])
    @pytest.mark.parametrize("kind", [CausalAttention, MultiHeadAttention])
    def test_kept_weights_are_scaled_and_the_others_are_zero(self, kind, p):
        torch.manual_seed(1)
        heads = {} if kind is CausalAttention else {"num_heads": 1}
        full, dropped = self.weights(kind(self.TOKENS, 2 * self.TOKENS, self.TOKENS, p, **heads))
        assert_close(full.sum(dim=-1), torch.ones(self.TOKENS))
        assert torch.equal(full.triu(diagonal=1), torch.zeros_like(full))
        kept = dropped != 0
        assert_close(dropped[kept], full[kept] / (1 - p))
        past = torch.ones_like(full).tril().bool()  # 820 weights, each dropped with probability p
        share = 1 - kept[past].float().mean().item()
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / past.sum().item())

    @pytest.mark.parametrize("make", CAUSAL)
    def test_none_in_evaluation_mode(self, make):
        torch.manual_seed(1)
        attention, x = make(0.5), random_input(2, 10, 8)
        assert not torch.equal(attention(x), attention(x))
        attention.eval()
        assert torch.equal(attention(x), attention(x))


@pytest.mark.parametrize("make", CAUSAL)
class TestBuffers:
    def test_state_dict_has_no_mask(self, make):
        names = make().state_dict()
        assert names
        assert not [name for name in names if "mask" in name]

    def test_masks_follow_the_device(self, make):
        attention = make().to("meta")
        masks = [buffer for name, buffer in attention.named_buffers() if name.endswith("mask")]
        assert masks
        assert all(mask.device.type == "meta" for mask in masks)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 0.05)])
    def test_other_dtypes(self, make, dtype, tolerance):
        torch.manual_seed(1)
        attention, x = make(), random_input(2, 10, 8)
        expected = attention(x)
        out = attention.to(dtype)(x.to(dtype))
        assert out.dtype == dtype
        assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
    def test_on_a_gpu(self, make):
        torch.manual_seed(1)
        attention, x = make(), random_input(2, 10, 8)
        assert_close(attention.to("cuda")(x.to("cuda")).cpu(), attention.to("cpu")(x), rtol=1e-3, atol=1e-4)


class TestErrors:
    @pytest.mark.parametrize(("d_out", "num_heads"), [(5, 2), (2, 3), (4, 0), (4, -2)])
    def test_d_out_must_divide_into_heads(self, d_out, num_heads):
        with pytest.raises(ValueError, match=f"d_out={d_out} must be a multiple of num_heads={num_heads}"):
            MultiHeadAttention(3, d_out, 6, 0.0, num_heads)
