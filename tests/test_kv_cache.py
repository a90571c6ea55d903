"""The KV cache: the same logits as without it, however the tokens come, and what it refuses."""

import pytest
import torch
from torch.testing import assert_close

from helpers import fuse
from helpers.speed.kv_cache import KVCache, forward_cached
from tests.tiny import TINY, lively_model, windows

CONTEXT = TINY["context_length"]


def ids_of(batch, tokens, seed=0):
    return windows(batch, tokens, seed)[0]


def last_logits(model, idx):
    with torch.no_grad():
        return model(idx)[:, -1]


@pytest.fixture(name="model", params=[False, True], ids=["no-bias", "bias-tied"])
def models(request):
    return lively_model(2, tied=request.param, qkv_bias=request.param)


@pytest.mark.parametrize(
    "chunks", [[16], [1] * 16, [5, 11], [1, 15], [15, 1], [3, 1, 1, 4, 7], [8, 8], [2, 2, 1, 1, 10]]
)
def test_a_prompt_in_chunks(model, chunks):
    ids = ids_of(3, CONTEXT)
    cache, start = KVCache(model, 3, CONTEXT), 0
    for chunk in chunks:  # up to the context's edge
        logits = forward_cached(model, ids[:, start : start + chunk], cache)
        start += chunk
        assert logits.shape == (3, TINY["vocab_size"])
        assert_close(logits, last_logits(model, ids[:, :start]), rtol=1e-4, atol=1e-5)
        assert cache.lengths.tolist() == [start] * 3


def test_what_was_cached_matters():
    """The test above can fail: another past gives other logits."""
    model, ids, other = lively_model(2), ids_of(1, 6), ids_of(1, 6, seed=1)
    cache, other_cache = KVCache(model, 1, 8), KVCache(model, 1, 8)
    forward_cached(model, ids[:, :5], cache)
    forward_cached(model, other[:, :5], other_cache)
    one, two = (forward_cached(model, ids[:, 5:], c) for c in (cache, other_cache))
    assert (one - two).abs().max() > 0.1


@pytest.mark.parametrize("lengths", [[4, 7, 1], [7, 7, 7], [1, 1, 2], [7, 1, 6]])
def test_rows_of_different_lengths(model, lengths):
    ids = ids_of(3, CONTEXT)
    counts = torch.tensor(lengths)
    padded = ids[:, : max(lengths)].clone()
    padded[torch.arange(max(lengths)) >= counts[:, None]] = 50  # what stands in the padding must not matter
    cache = KVCache(model, 3, CONTEXT)
    logits = forward_cached(model, padded, cache, counts)
    for step in range(CONTEXT - max(lengths) + 1):
        for row, length in enumerate(lengths):
            alone = last_logits(model, ids[row : row + 1, : length + step])
            assert_close(logits[row : row + 1], alone, rtol=1e-4, atol=1e-5)
        assert cache.lengths.tolist() == [length + step for length in lengths]
        if step < CONTEXT - max(lengths):
            logits = forward_cached(model, ids[torch.arange(3), counts + step][:, None], cache)


def test_uneven_chunks_in_a_row(model):
    """Several tokens at once into rows that already differ, again padded."""
    ids, cache = ids_of(2, CONTEXT), KVCache(model, 2, CONTEXT)
    done = torch.zeros(2, dtype=torch.long)
    for counts in ([2, 5], [4, 1], [1, 3], [3, 3], [2, 1]):
        counts = torch.tensor(counts)
        piece = torch.zeros(2, int(counts.max()), dtype=torch.long)
        for row in range(2):
            piece[row, : counts[row]] = ids[row, done[row] : done[row] + counts[row]]
        logits = forward_cached(model, piece, cache, counts)
        done += counts
        for row in range(2):
            assert_close(
                logits[row : row + 1], last_logits(model, ids[row : row + 1, : done[row]]), rtol=1e-4, atol=1e-5
            )


def test_room(model):
    cache = KVCache(model, 1, 6)
    forward_cached(model, ids_of(1, 4), cache)
    held = [keys.clone() for keys in cache.keys]
    with pytest.raises(ValueError, match="idx brings 3 tokens, but the cache of 6 already holds 4"):
        forward_cached(model, ids_of(1, 3), cache)
    assert all(torch.equal(one, other) for one, other in zip(held, cache.keys, strict=True))
    forward_cached(model, ids_of(1, 2), cache)  # and to the last place it goes on
    with pytest.raises(ValueError, match="idx brings 1 tokens, but the cache of 6 already holds 6"):
        forward_cached(model, ids_of(1, 1), cache)


def test_buffers_are_allocated_once(model):
    cache = KVCache(model, 2, CONTEXT)
    places = [buffer.data_ptr() for buffer in cache.keys + cache.values]
    assert cache.keys[0].shape == (2, TINY["n_heads"], CONTEXT, TINY["emb_dim"] // TINY["n_heads"])
    for position in range(CONTEXT):
        forward_cached(model, ids_of(2, CONTEXT)[:, position : position + 1], cache)
    assert [buffer.data_ptr() for buffer in cache.keys + cache.values] == places


def test_no_gradients(model):
    cache = KVCache(model, 1, 4)
    assert not forward_cached(model, ids_of(1, 2), cache).requires_grad
    assert not cache.keys[0].requires_grad
    assert torch.is_grad_enabled()


def test_bfloat16(model):
    exact, ids = last_logits(model, ids_of(2, 9)), ids_of(2, 9)
    model = model.to(torch.bfloat16)
    cache = KVCache(model, 2, 9)
    assert cache.keys[0].dtype == torch.bfloat16
    forward_cached(model, ids[:, :5], cache)
    forward_cached(model, ids[:, 5:6], cache)
    logits = forward_cached(model, ids[:, 6:], cache)
    assert logits.dtype == torch.bfloat16
    assert_close(logits.float(), exact, rtol=0.1, atol=0.05 * exact.std().item() * 4)


def test_a_fused_model(model):
    ids = ids_of(2, 9)
    expected = last_logits(model, ids)
    fuse(model)
    cache = KVCache(model, 2, 9)
    forward_cached(model, ids[:, :5], cache)
    assert_close(forward_cached(model, ids[:, 5:], cache), expected, rtol=1e-4, atol=1e-5)


def test_a_layer_that_was_exchanged_is_used(model):
    """As LoRA does: the cache goes through the model's own layers."""

    class Plus(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x) + 0.5 * x

    ids = ids_of(2, 9)
    before = last_logits(model, ids)
    model.trf_blocks[1].att.W_value = Plus(model.trf_blocks[1].att.W_value)
    model.trf_blocks[0].ff.layers[2] = torch.nn.Sequential(model.trf_blocks[0].ff.layers[2], torch.nn.Tanh())
    expected = last_logits(model, ids)
    assert not torch.allclose(before, expected, atol=1e-2)
    cache = KVCache(model, 2, 9)
    forward_cached(model, ids[:, :5], cache)
    assert_close(forward_cached(model, ids[:, 5:], cache), expected, rtol=1e-4, atol=1e-5)
