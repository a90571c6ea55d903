"""Properties of the public functions for any shape, type, text and number, each against a slow plain version.

Hypothesis draws the examples, always the same ones. What one function owes to one known input is in its own test file.
"""

import csv
import inspect
import itertools
import json
import math
import time
import unicodedata
from collections import Counter
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import helpers
from helpers import (
    Adapters,
    CausalAttention,
    GPTDatasetV1,
    GPTModel,
    LayerNorm,
    LinearWithLoRA,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    Progress,
    SelfAttention_v1,
    SelfAttention_v2,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    SpamDataset,
    answer_entries,
    beam_search,
    calc_accuracy_loader,
    calc_loss_batch,
    calc_loss_batch_classes,
    calc_loss_batch_labels,
    calc_loss_loader,
    calc_loss_per_token,
    choose_next,
    class_logits,
    classify_review,
    compute_accuracy,
    create_balanced_dataset,
    custom_collate_fn,
    dpo_loss,
    evaluation_mode,
    extract_response,
    find_highest_gradient,
    fuse,
    generate,
    generate_batch,
    generate_text_simple,
    get_tokenizer,
    gpt2_bpe,
    gpt_config,
    last_real_token,
    learning_rate_at,
    load_adapter,
    load_bpe,
    load_checkpoint,
    load_model,
    load_saved_gpt,
    lora_layers,
    masked_collate_fn,
    merge_lora,
    pack_weights,
    quantize_int8,
    random_split,
    replace_linear_with_lora,
    save_adapter,
    save_bpe,
    save_checkpoint,
    save_gpt2,
    save_model,
    save_responses,
    sequence_logprobs,
    split_entries,
    to_bfloat16,
    train_bpe,
    train_model,
    training_steps,
    unmerge_lora,
)
from helpers.judges import _score_in, exact_match, rouge_l, token_f1
from helpers.preferences import preference_collate_fn
from helpers.pretrained import read_gpt2
from helpers.speed.chosen import logits_at
from helpers.speed.few_rows import linear_few_rows
from helpers.speed.fused import FusedDropout, FusedMultiHeadAttention
from helpers.speed.loss import SoftmaxLoss
from helpers.speed.weight_formats import BFloat16Linear, Int8Linear, PackedLinear
from helpers.tokenizers import AnyTokenizer
from tests.tiny import CPU, lively_model, tiny_model

FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],  # all examples are small already
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FEW = settings(FIXED, max_examples=10)
SEEDS = st.integers(0, 2**31)
GPT2, OURS = get_tokenizer(), gpt2_bpe()
END = "<|endoftext|>"
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)  # no half of a surrogate pair
TEXT = st.lists(st.one_of(UNICODE, st.sampled_from([END, " ", "\r\n", "e\u0301", "the", "👩‍🚀"])), max_size=5).map(
    "".join
)


@st.composite
def configs(draw, layers=2):
    heads = draw(st.integers(1, 3))
    return gpt_config(
        vocab_size=draw(st.integers(2, 24)),
        context_length=draw(st.integers(1, 9)),
        emb_dim=heads * draw(st.integers(1, 6)),
        n_heads=heads,
        n_layers=draw(st.integers(0, layers)),
        drop_rate=0.0,
        qkv_bias=draw(st.booleans()),
    )


def numbers(*shape, seed=0, scale=1.0, dtype=torch.float32):
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def ids(*shape, seed=0, vocabulary=97):
    return torch.randint(0, vocabulary, shape, generator=torch.Generator().manual_seed(seed))


class Letters:
    """A tokenizer of a kind of its own: one id per character."""

    def encode(self, text):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))


# ---- tokenizers and windows ----------------------------------------------------------------------------------------


class TestTokenizers:
    @FIXED
    @given(TEXT, st.booleans())
    def test_any_text_comes_back_from_any_tokenizer(self, text, special):
        allowed = {END} if special else ()
        for tokenizer in (GPT2, OURS, Letters(), AnyTokenizer(GPT2)):
            adapted = AnyTokenizer(tokenizer)
            assert adapted.decode(adapted.encode(text, allowed_special=allowed)) == text
        assert AnyTokenizer(GPT2).encode(text, allowed) == AnyTokenizer(OURS).encode(text, allowed)
        assert (50256 in AnyTokenizer(GPT2).encode(text, allowed)) == (special and END in text)

    @FIXED
    @given(st.lists(st.one_of(st.integers(0, 50256), st.sampled_from([50257, 50303, 2**40, -1])), max_size=9))
    def test_ids_that_no_tokenizer_knows_are_shown(self, ids):
        expected = "".join(
            GPT2.decode(list(run)) if known else "\ufffd" * len(list(run))
            for known, run in itertools.groupby(ids, lambda token_id: 0 <= token_id < 50257)
        )
        assert AnyTokenizer(GPT2).decode(ids) == AnyTokenizer(OURS).decode(ids) == expected

    @FIXED
    @given(UNICODE)
    def test_word_level_tokenizers_keep_what_they_have_read(self, text):
        words = helpers.split_text(text)
        vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*words, "<|unk|>"]))}
        for kind in (SimpleTokenizerV1, SimpleTokenizerV2):
            tokenizer = kind(vocabulary)
            read = tokenizer.encode(text)
            assert tokenizer.encode(tokenizer.decode(read)) == read
            assert [tokenizer.int_to_str[token_id] for token_id in read] == words

    @FEW
    @given(UNICODE.filter(bool), st.integers(257, 300), UNICODE)
    def test_trained_and_saved(self, tmp_path, text, size, other):
        tokenizer = train_bpe(text, size)
        save_bpe(tokenizer, tmp_path / "bpe.json")
        again = load_bpe(tmp_path / "bpe.json")
        assert tokenizer.n_vocab == again.n_vocab <= size
        for sample in (text, other, END + other):
            assert again.encode(sample, allowed_special="all") == tokenizer.encode(sample, allowed_special="all")
            assert again.decode(again.encode(sample, allowed_special="all")) == sample

    @FIXED
    @given(st.text(max_size=30), st.integers(-1, 40), st.integers(-1, 40))
    def test_windows_are_slices(self, text, max_length, stride):
        token_ids = Letters().encode(text)
        if max_length < 1 or stride < 1 or len(token_ids) <= max_length:
            with pytest.raises(ValueError):
                GPTDatasetV1(text, Letters(), max_length, stride)
            return
        dataset = GPTDatasetV1(text, Letters(), max_length, stride)
        starts = range(0, len(token_ids) - max_length, stride)
        assert len(dataset) == len(starts)
        for (inputs, targets), start in zip(dataset, starts, strict=False):
            assert inputs.tolist() == token_ids[start : start + max_length]
            assert targets.tolist() == token_ids[start + 1 : start + max_length + 1]
            assert inputs.dtype == targets.dtype == torch.int64


# ---- attention and the model ---------------------------------------------------------------------------------------


def attend_slowly(x, attention):
    """Causal attention (T, d_in), one query, one head at a time, in float64."""
    x, width = x.double(), attention.head_dim
    weights = [layer.weight.double() for layer in (attention.W_query, attention.W_key, attention.W_value)]
    biases = [layer.bias for layer in (attention.W_query, attention.W_key, attention.W_value)]
    q, k, v = (x @ w.T + (0 if b is None else b.double()) for w, b in zip(weights, biases, strict=True))
    out = torch.zeros_like(q)
    for token in range(len(x)):
        for head in range(attention.num_heads):
            part = slice(head * width, (head + 1) * width)
            scores = [(q[token, part] * k[other, part]).sum() / width**0.5 for other in range(token + 1)]
            shares = torch.softmax(torch.stack(scores), dim=0)
            out[token, part] = sum(share * v[other, part] for other, share in enumerate(shares))
    return out @ attention.out_proj.weight.double().T + attention.out_proj.bias.double()


class TestModel:
    @FIXED
    @given(
        SEEDS,
        st.integers(1, 3),
        st.integers(1, 5),
        st.integers(1, 7),
        st.integers(1, 3),
        st.integers(1, 4),
        st.booleans(),
    )
    def test_attention_looks_back_only(self, seed, batch, tokens, d_in, heads, width, bias):
        torch.manual_seed(seed)
        d_out, keep = heads * width, seed % tokens
        shape = {"d_in": d_in, "context_length": tokens, "dropout": 0.0, "qkv_bias": bias}
        many = [kind(d_out=d_out, num_heads=heads, **shape) for kind in (MultiHeadAttention, FusedMultiHeadAttention)]
        modules = [CausalAttention(d_out=d_out, **shape), *many]
        modules.append(MultiHeadAttentionWrapper(d_out=width, num_heads=heads, **shape))
        x = numbers(batch, tokens, d_in, seed=seed)
        changed = x.clone()
        changed[:, keep + 1 :] = 100 * numbers(batch, tokens - keep - 1, d_in, seed=seed + 1)
        for module in modules:
            assert module(x).shape == (batch, tokens, d_out)
            torch.testing.assert_close(module(changed)[:, : keep + 1], module(x)[:, : keep + 1])
        for attention in many:
            expected = torch.stack([attend_slowly(row, attention) for row in x]).float()
            torch.testing.assert_close(attention(x), expected, rtol=1e-4, atol=1e-5)

    @FIXED
    @given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
    def test_attention_without_mask_is_an_average(self, seed, tokens, d_in, d_out):
        torch.manual_seed(seed)
        x = numbers(2, tokens, d_in, seed=seed)
        for module in (SelfAttention_v1(d_in, d_out), SelfAttention_v2(d_in, d_out, qkv_bias=True)):
            order = torch.randperm(tokens)
            torch.testing.assert_close(module(x[:, order]), module(x)[:, order])  # no token knows its place
            torch.testing.assert_close(module(x)[0], module(x[0]))
            values = x @ module.W_value if isinstance(module, SelfAttention_v1) else module.W_value(x)
            low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
            assert ((module(x) >= low - 1e-5) & (module(x) <= high + 1e-5)).all()

    @FIXED
    @given(
        SEEDS,
        st.lists(st.integers(0, 4), max_size=3),
        st.integers(1, 40),
        st.sampled_from([1e-8, 1.0, 1e6]),
        st.sampled_from([torch.float32, torch.float64]),
    )
    def test_norm_and_gelu_are_pytorchs(self, seed, shape, width, scale, dtype):
        x = numbers(*shape, width, seed=seed, scale=scale, dtype=dtype)
        norm = LayerNorm(width).to(dtype)
        with torch.no_grad():
            norm.scale.add_(numbers(width, seed=seed)), norm.shift.add_(numbers(width, seed=seed + 1))
        expected = F.layer_norm(x, (width,), norm.scale, norm.shift, 1e-5)
        torch.testing.assert_close(norm(x), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(helpers.GELU()(x), F.gelu(x, approximate="tanh"), rtol=1e-4, atol=1e-5)

    @FIXED
    @given(configs(), SEEDS, st.integers(1, 3))
    def test_model_looks_back_only_fused_or_not(self, config, seed, batch):
        model = lively_model(seed, **config)
        tokens = config["context_length"]
        keep = seed % tokens
        x = ids(batch, tokens, seed=seed, vocabulary=config["vocab_size"])
        changed = torch.cat((x[:, : keep + 1], ids(batch, tokens - keep - 1, seed=seed + 1, vocabulary=2)), dim=1)
        logits = model(x)
        assert logits.shape == (batch, tokens, config["vocab_size"])
        torch.testing.assert_close(model(changed)[:, : keep + 1], logits[:, : keep + 1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(fuse(model)(x), logits, rtol=1e-4, atol=1e-4)
        assert sum(p.numel() for p in model.parameters()) == sum(helpers.gpt.count_parameters(config).values())

    @FIXED
    @given(configs(), SEEDS, st.integers(0, 3), st.integers(0, 2))
    def test_logits_at_chosen_places(self, config, seed, batch, kind):
        model = lively_model(seed, **config)
        if kind and config["n_layers"]:
            replace_linear_with_lora(model, 2, 4.0)
        model = quantize_int8(model) if kind == 2 and not config["n_layers"] else model
        tokens = 1 + seed % config["context_length"]
        x = ids(batch, tokens, seed=seed, vocabulary=config["vocab_size"])
        chosen = ids(batch, tokens, seed=seed + 1, vocabulary=2).bool()
        torch.testing.assert_close(logits_at(model, x, chosen), model(x)[chosen], rtol=1e-4, atol=1e-4)
        wrapped = nn.Sequential(model)
        torch.testing.assert_close(logits_at(wrapped, x, chosen), model(x)[chosen], rtol=1e-4, atol=1e-4)


# ---- choosing and generating ---------------------------------------------------------------------------------------

LOGITS = st.lists(
    st.one_of(st.integers(-3, 3).map(float), st.floats(-50, 50, width=16), st.just(-math.inf)), min_size=1, max_size=9
).filter(lambda row: max(row) > -math.inf)
KINDS = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def allowed_tokens(row, temperature, top_k, top_p):
    """Which tokens `choose_next` may draw, and which of them only a rounding or a tie could let in or leave out."""
    floor = sorted(row, reverse=True)[top_k - 1] if top_k else -math.inf
    kept = [value if value >= floor else -math.inf for value in row]
    powers = [math.exp((value - max(kept)) / temperature) for value in kept]
    shares = [power / sum(powers) for power in powers]
    total, least = 0.0, 0.0
    for share in sorted(shares, reverse=True):
        if total >= (top_p or 2) - 1e-6:
            break
        total, least = total + share, share
    return {token for token, share in enumerate(shares) if share > 0 and share >= least * (1 - 1e-4)}, shares


class TestChoice:
    @FIXED
    @given(st.lists(LOGITS, min_size=1, max_size=3), KINDS, st.integers(1, 9))
    def test_greedy_takes_a_highest(self, rows, kind, top_k):
        width = min(map(len, rows))
        logits = torch.tensor([row[:width] for row in rows], dtype=kind)
        assume(bool((logits.amax(dim=1) > -math.inf).all()))
        chosen = choose_next(logits, top_k=min(top_k, width), top_p=0.5)
        assert chosen.shape == (len(rows), 1) and chosen.dtype == torch.int64
        assert torch.equal(logits.gather(1, chosen)[:, 0], logits.amax(dim=1))
        assert torch.equal(chosen, choose_next(logits))

    @settings(FIXED, max_examples=40)
    @given(
        LOGITS,
        KINDS,
        st.sampled_from([1e-30, 0.01, 0.7, 1.0, 30.0, 1e30]),
        st.none() | st.integers(1, 9),
        st.none() | st.floats(1e-9, 1.0),
        SEEDS,
    )
    @example([0.0, 0.0, 0.0, 0.0], torch.float32, 1.0, 2, 0.5, 0)
    def test_draws_are_of_the_kept_tokens(self, row, kind, temperature, top_k, top_p, seed):
        top_k = top_k and min(top_k, len(row))
        logits = torch.tensor([row] * 200, dtype=kind)
        before, kept = logits.clone(), allowed_tokens(logits[0].tolist(), temperature, top_k, top_p)[0]
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        state = torch.get_rng_state()
        drawn = choose_next(logits, generator=torch.Generator().manual_seed(seed), **options)
        assert set(drawn.flatten().tolist()) <= kept
        assert torch.equal(drawn, choose_next(logits, generator=torch.Generator().manual_seed(seed), **options))
        assert torch.equal(torch.get_rng_state(), state) and torch.equal(logits, before)

    @FEW
    @given(LOGITS, st.sampled_from([0.5, 1.0, 2.0]), SEEDS)
    def test_draws_come_as_often_as_they_are_probable(self, row, temperature, seed):
        shares = torch.tensor(allowed_tokens(row, temperature, None, None)[1])
        logits = torch.tensor([row]).expand(20_000, -1)
        drawn = choose_next(logits, temperature, generator=torch.Generator().manual_seed(seed)).flatten()
        found = torch.bincount(drawn, minlength=len(row)) / len(drawn)
        assert ((found - shares).abs() <= 6 * (shares * (1 - shares) / len(drawn)).sqrt() + 1e-3).all()

    @FIXED
    @given(
        st.integers(1, 4),
        st.sampled_from([0.0, 1.0]),
        st.sampled_from([math.nan, -1.0, math.inf, -math.inf, 1e-40]),
        st.sampled_from([math.nan, 0.0, -0.1, 1.1, math.inf]),
        st.sampled_from([0, -1, 5]),
    )
    def test_what_cannot_be_drawn_from_is_refused(self, width, temperature, hot, top_p, top_k):
        good = torch.zeros(2, width)
        hopeless = torch.stack((good[0], torch.full((width,), -math.inf)))
        endless, nothing = good.clone(), good.clone()
        endless[1, 0], nothing[0, width - 1] = math.inf, math.nan
        for logits in (hopeless, nothing, good[0]):
            with pytest.raises(ValueError):
                choose_next(logits, temperature)
        with pytest.raises(ValueError):
            choose_next(endless, 1.0)
        for options in ({"temperature": hot}, {"top_p": top_p}, {"top_k": top_k}):
            with pytest.raises(ValueError):
                choose_next(good, **{"temperature": temperature, **options})


def generate_slowly(model, prompt, count, context_size, eos_id=None):
    """The new tokens of one prompt, each from the whole window again."""
    tokens = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens[-context_size:]]))[0, -1].argmax()))
        if tokens[-1] == eos_id:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


class TestGeneration:
    @settings(FIXED, max_examples=30)
    @given(
        configs(),
        SEEDS,
        st.lists(st.integers(1, 12), min_size=1, max_size=4),
        st.integers(0, 6),
        st.booleans(),
        st.data(),
    )
    def test_any_prompts_against_the_plain_loop(self, config, seed, lengths, count, cached, data):
        model, vocabulary = lively_model(seed, **config), config["vocab_size"]
        context_size = data.draw(st.integers(1, config["context_length"]))
        prompts = [ids(length, seed=seed + row, vocabulary=vocabulary).tolist() for row, length in enumerate(lengths)]
        plain = [generate_slowly(model, prompt, count, context_size) for prompt in prompts]
        ends = (
            st.none() | st.integers(-1, vocabulary) | st.sampled_from([token for row in plain for token in row] or [0])
        )
        eos_id = data.draw(ends)
        options = {"eos_id": eos_id, "use_cache": cached}
        expected = [generate_slowly(model, prompt, count, context_size, eos_id) for prompt in prompts]
        if data.draw(st.booleans()):
            fuse(model)
        assert generate_batch(model, prompts, count, context_size, **options) == expected
        assert (
            generate_batch(model, [np.array(prompt) for prompt in prompts], count, context_size, **options) == expected
        )
        alone = generate(model, prompts[0], count, context_size, **options)[0].tolist()
        assert alone == prompts[0] + expected[0]
        simple = generate_text_simple(model, torch.tensor(prompts[:1]), count, context_size)
        assert simple[0].tolist() == prompts[0] + plain[0]

    @FEW
    @given(configs(), SEEDS, st.integers(1, 3), st.integers(0, 5), st.booleans())
    def test_seeded_draws_are_one_with_and_without_cache(self, config, seed, rows, count, training):
        model = lively_model(seed, **config).train(training)
        prompts = ids(rows, 2, seed=seed, vocabulary=config["vocab_size"])
        options = {"temperature": 0.7, "top_k": 2, "top_p": 0.95, "seed": seed}
        state = torch.get_rng_state()
        size = config["context_length"]
        written = [generate(model, prompts, count, size, use_cache=cached, **options) for cached in (True, False, True)]
        assert written[0].shape == (rows, 2 + count)
        assert torch.equal(written[0], written[1]) and torch.equal(written[0], written[2])
        assert torch.equal(torch.get_rng_state(), state) and model.training == training

    @FIXED
    @given(SEEDS, st.integers(2, 4), st.integers(0, 3), st.integers(1, 70), st.integers(1, 5))
    def test_beam_search_against_all_continuations(self, seed, vocabulary, count, beams, context_size):
        model = lively_model(seed, vocab_size=vocabulary, context_length=5)
        start = ids(1, 3, seed=seed, vocabulary=vocabulary)

        def score(new):
            tokens, total = start[0].tolist(), 0.0
            for token in new:
                window = torch.tensor([tokens[-context_size:]])
                total += torch.log_softmax(model(window)[0, -1].double(), dim=-1)[token].item()
                tokens.append(token)
            return total

        with torch.no_grad():
            found = beam_search(model, start, count, context_size, beams=beams)[0, 3:].tolist()
            kept = [()]
            for _ in range(count):
                longer = [(*new, token) for new in kept for token in range(vocabulary)]
                kept = sorted(longer, key=score, reverse=True)[:beams]
            assert math.isclose(score(found), score(kept[0]), abs_tol=1e-4)
            if beams >= vocabulary ** max(0, count - 1):
                best = max(map(score, itertools.product(range(vocabulary), repeat=count)))
                assert math.isclose(score(found), best, abs_tol=1e-4)


# ---- losses, labels and batches ------------------------------------------------------------------------------------

ROWS = st.lists(st.lists(st.integers(0, 23), min_size=1, max_size=6), min_size=1, max_size=4)


class TestLosses:
    @settings(FIXED, max_examples=30)
    @given(ROWS, st.integers(0, 23), st.sampled_from([-100, -1, -(2**40)]), st.none() | st.integers(-1, 8))
    def test_collated_rows(self, rows, pad, ignored, cut):
        if cut is not None and cut < 1:
            with pytest.raises(ValueError):
                custom_collate_fn(rows, pad, ignored, cut)
            return
        inputs, targets = custom_collate_fn(rows, pad, ignored, cut)
        longest = max(map(len, rows))
        for row, line, labels in zip(rows, inputs.tolist(), targets.tolist(), strict=True):
            filling = longest - len(row)
            assert line == (row + [pad] * filling)[:cut]
            assert labels == (row[1:] + [pad] + [ignored] * filling)[:cut]

    @settings(FIXED, max_examples=30)
    @given(ROWS, st.integers(0, 23), st.none() | st.integers(1, 8), st.data())
    def test_masked_rows(self, rows, pad, cut, data):
        lengths = [data.draw(st.integers(1, len(row))) for row in rows]
        batch, plain = list(zip(rows, lengths, strict=True)), custom_collate_fn(rows, pad, -100, cut)
        expected = [[-100] * (length - 1) for length in lengths]
        expected = [
            (masked + labels[len(masked) :])[: len(labels)]
            for masked, labels in zip(expected, plain[1].tolist(), strict=True)
        ]
        if all(label == -100 for row in expected for label in row):
            with pytest.raises(ValueError):
                masked_collate_fn(batch, pad_token_id=pad, allowed_max_length=cut)
            return
        inputs, targets = masked_collate_fn(batch, pad_token_id=pad, allowed_max_length=cut)
        assert torch.equal(inputs, plain[0]) and targets.tolist() == expected

    @FIXED
    @given(ROWS, ROWS, st.integers(1, 6))
    def test_pairs_are_the_masked_rows_of_both_answers(self, chosen, rejected, prompt):
        count = min(len(chosen), len(rejected))
        chosen, rejected = ([[7] * prompt + row for row in rows[:count]] for rows in (chosen, rejected))
        reference = numbers(count, 2)
        items = list(zip(chosen, rejected, [prompt] * count, reference, strict=True))
        inputs, (targets, expected) = preference_collate_fn(items)
        alone = masked_collate_fn([(row, prompt) for row in chosen + rejected])
        assert torch.equal(inputs, alone[0]) and torch.equal(targets, alone[1])
        assert torch.equal(expected, torch.cat((reference[:, 0], reference[:, 1])))

    @settings(FIXED, max_examples=30)
    @given(configs(), SEEDS, st.integers(1, 3), st.sampled_from([-100, -1]), st.integers(0, 3), st.booleans())
    def test_label_losses_against_a_loop(self, config, seed, batch, ignored, density, wrapped):
        model, vocabulary = lively_model(seed, **config), config["vocab_size"]
        tokens = 1 + seed % config["context_length"]
        x, y = (
            ids(batch, tokens, seed=seed, vocabulary=vocabulary),
            ids(batch, tokens, seed=seed + 1, vocabulary=vocabulary),
        )
        y[ids(batch, tokens, seed=seed + 2, vocabulary=4) < density] = ignored
        shares = torch.log_softmax(model(x).double(), dim=-1)
        rows = [[shares[b, t, y[b, t]] for t in range(tokens) if y[b, t] != ignored] for b in range(batch)]
        sums = torch.stack([sum(row, torch.tensor(0.0)) for row in rows]).float()
        model = nn.Sequential(model) if wrapped else model
        torch.testing.assert_close(sequence_logprobs(model, x, y, ignored), sums, rtol=1e-4, atol=1e-4)
        flat = list(itertools.chain(*rows))
        if not flat:
            with pytest.raises(ValueError, match="nothing to learn"):
                calc_loss_batch_labels(x, y, model, CPU, ignored)
            return
        loss = calc_loss_batch_labels(x, y, model, CPU, ignored)
        torch.testing.assert_close(loss, -torch.stack(flat).mean().float(), rtol=1e-4, atol=1e-4)
        if ignored == -100:
            torch.testing.assert_close(loss, calc_loss_batch(x, y, model, CPU), rtol=1e-4, atol=1e-4)

    @FIXED
    @given(
        SEEDS, st.integers(1, 7), st.integers(1, 3), st.integers(0, 4), st.booleans(), st.none() | st.integers(-1, 9)
    )
    def test_losses_of_loaders_against_loops(self, seed, rows, batch_size, density, training, most):
        model = lively_model(seed).train(training)
        x, y = ids(rows, 5, seed=seed), ids(rows, 5, seed=seed + 1)
        y[ids(rows, 5, seed=seed + 2, vocabulary=5) < density] = -100
        y[seed % rows] = -100  # a whole row without a label
        loader = DataLoader(TensorDataset(x, y), batch_size)
        losses = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none")
        labels = (y != -100).flatten()
        if labels.any():
            mean = calc_loss_per_token(loader, model, CPU)
            assert math.isclose(mean, losses[labels].mean().item(), rel_tol=1e-4)
        else:
            with pytest.raises(ValueError):
                calc_loss_per_token(loader, model, CPU)
        assert model.training == training
        whole = DataLoader(TensorDataset(x, ids(rows, 5, seed=seed)), batch_size)
        batches = list(whole) if most is None else list(whole)[: max(0, most)]
        if not batches:
            with pytest.raises(ValueError):
                calc_loss_loader(whole, model, CPU, most)
            return
        each = [calc_loss_batch(*batch, model, CPU).item() for batch in batches]
        assert math.isclose(calc_loss_loader(whole, model, CPU, most), sum(each) / len(each), rel_tol=1e-5)

    @FIXED
    @given(st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 4), min_size=1, max_size=5), st.floats(0.01, 10))
    def test_dpo_loss_against_its_formula(self, rows, beta):
        loss, chosen, rejected = dpo_loss(*torch.tensor(rows, dtype=torch.float64).T, beta=beta)
        margins = [beta * (a - c) - beta * (b - d) for a, b, c, d in rows]
        losses = [math.log1p(math.exp(-abs(margin))) + max(0, -margin) for margin in margins]
        assert math.isclose(loss.item(), sum(losses) / len(losses), rel_tol=1e-6, abs_tol=1e-9)
        assert torch.allclose(chosen - rejected, torch.tensor(margins, dtype=torch.float64), atol=1e-6)

    @FIXED
    @given(SEEDS, st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(-6, 5))
    def test_classes_against_loops(self, seed, rows, tokens, classes, batch_size, place):
        model = lively_model(seed)
        model.out_head = nn.Linear(24, classes)
        x, y = ids(rows, tokens, seed=seed, vocabulary=4), ids(rows, seed=seed + 1, vocabulary=classes)
        ends = [max((t for t in range(tokens) if row[t] != 3), default=0) for row in x.tolist()]
        assert last_real_token(x, 3).tolist() == ends
        read = [lambda batch: last_real_token(batch, 3), ends]
        if -tokens <= place < tokens and seed % 2:
            read = [place, [place] * rows]
        logits = torch.stack([model(x)[row, end] for row, end in enumerate(read[1])])
        torch.testing.assert_close(class_logits(x, model, CPU, read[0]), logits)
        loss = calc_loss_batch_classes(x, y, model, CPU, read[0])
        torch.testing.assert_close(loss, F.cross_entropy(logits, y))
        loader = DataLoader(TensorDataset(x, y), batch_size)
        right = [int(row.argmax()) == label for row, label in zip(logits, y.tolist(), strict=True)]
        assert math.isclose(calc_accuracy_loader(loader, model, CPU, None, read[0]), sum(right) / rows)
        for wrong in (-1, classes, -100):
            with pytest.raises(ValueError, match="label"):
                calc_loss_batch_classes(x, torch.full_like(y, wrong), model, CPU)
        features = numbers(rows, 5, seed=seed)
        network = nn.Linear(5, classes)
        hits = sum(int(network(row).argmax()) == label for row, label in zip(features, y.tolist(), strict=True))
        assert math.isclose(compute_accuracy(network, DataLoader(TensorDataset(features, y), batch_size)), hits / rows)


# ---- training ------------------------------------------------------------------------------------------------------


class Line(nn.Module):
    """A model of one matrix and dropout, to train a lot of in no time."""

    def __init__(self, drop=0.0):
        super().__init__()
        torch.manual_seed(3)
        self.body, self.head, self.drop = nn.Linear(4, 3), nn.Linear(3, 2), nn.Dropout(drop)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.body(x))))


def squares(x, y, model, device):
    return ((model(x) - y) ** 2).mean()


def line_loader(batches, batch_size=2, order="plain", seed=0, extra=0):
    data = TensorDataset(
        numbers(batches * batch_size - extra, 4, seed=1), numbers(batches * batch_size - extra, 2, seed=2)
    )
    own = torch.Generator().manual_seed(seed)
    if order == "sampler":
        return DataLoader(data, batch_size, sampler=RandomSampler(data, replacement=True, generator=own))
    return DataLoader(data, batch_size, shuffle=order != "plain", generator=own if order == "own" else None)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class TestTraining:
    @FIXED
    @given(st.integers(0, 12), st.integers(0, 12), st.floats(1e-6, 1), st.floats(0, 1), st.floats(0, 1))
    def test_schedule_against_a_table(self, total, warmup, peak, first, least):
        first, least = first * peak, least * peak
        rates = [learning_rate_at(step, total, warmup, peak, first, least) for step in range(total)]
        table = [first + (peak - first) * step / warmup for step in range(min(warmup, total))]
        left = total - warmup
        table += [least + (peak - least) * (1 + math.cos(math.pi * step / left)) / 2 for step in range(max(0, left))]
        assert rates == pytest.approx(table, rel=1e-9)
        assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
        assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
        assert all(min(first, least) - 1e-12 <= rate <= peak + 1e-12 for rate in rates)

    @FIXED
    @given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2))
    def test_accumulating_equals_larger_batches(self, accumulate, updates, batch_size, epochs):
        models = [Line(), Line()]
        count = accumulate * updates
        small, large = line_loader(count, batch_size), line_loader(updates, batch_size * accumulate)
        for model, loader, parts in ((models[0], small, accumulate), (models[1], large, 1)):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
            steps = list(training_steps(model, loader, optimizer, CPU, epochs, squares, accumulate=parts))
            assert len(steps) == epochs * updates
        torch.testing.assert_close(weights(models[0]), weights(models[1]), rtol=1e-4, atol=1e-5)

    @settings(FIXED, max_examples=30)
    @given(
        st.integers(1, 3),
        st.integers(1, 5),
        st.integers(1, 5),
        st.sampled_from(["plain", "shuffled", "own", "sampler"]),
        st.sampled_from([0.0, 0.4]),
        st.booleans(),
        st.data(),
    )
    @example(2, 2, 1, "own", 0.0, False, None)
    def test_resuming_from_any_update(self, tmp_path, epochs, batches, accumulate, order, drop, looks, data):
        accumulate = min(accumulate, batches)
        updates = epochs * math.ceil(batches / accumulate)
        stop = data.draw(st.integers(1, updates)) if data else batches
        extra = data.draw(st.integers(0, 1)) if data else 0

        def start():
            model = Line(drop)
            return model, torch.optim.AdamW(model.parameters(), 0.1), line_loader(batches, order=order, extra=extra)

        def run(model, optimizer, loader, progress=None, save_at=None):
            options = {"progress": progress, "accumulate": accumulate}
            for now in training_steps(model, loader, optimizer, CPU, epochs, squares, **options):
                if looks:  # at the training loss, which draws from the loader too
                    with evaluation_mode(model):
                        next(iter(loader))
                if now.step == save_at:
                    save_checkpoint(tmp_path / "run.pt", model, optimizer, now)
            return weights(model)

        torch.manual_seed(5)
        whole = run(*start(), save_at=stop)
        model, optimizer, loader = start()
        torch.manual_seed(99)
        progress, _ = load_checkpoint(tmp_path / "run.pt", model, optimizer)
        assert progress.step == stop
        torch.testing.assert_close(run(model, optimizer, loader, progress), whole, rtol=0, atol=0)
        assert progress.step == updates and progress.epoch == epochs

    @FIXED
    @given(st.integers(1, 5), st.integers(1, 3), st.sampled_from(["plain", "own"]), st.integers(1, 9))
    def test_interrupted_between_two_batches_of_an_update(self, batches, accumulate, order, fails_at):
        accumulate, calls = min(accumulate, batches), itertools.count(1)

        def failing(*arguments):
            if next(calls) == fails_at:
                raise KeyboardInterrupt
            return squares(*arguments)

        results = []
        for loss_function in (squares, failing):
            model, loader = Line(), line_loader(batches, order=order)
            optimizer, progress = torch.optim.SGD(model.parameters(), 0.1), Progress()
            options = {"progress": progress, "accumulate": accumulate}
            with suppress(KeyboardInterrupt):
                list(training_steps(model, loader, optimizer, CPU, 2, loss_function, **options))
            list(training_steps(model, loader, optimizer, CPU, 2, loss_function, **options))
            results.append(weights(model))
            assert progress.step == 2 * math.ceil(batches / accumulate)
            assert progress.tokens_seen == 2 * 4 * len(loader.dataset)
        torch.testing.assert_close(*results, rtol=0, atol=0)

    @FEW
    @given(
        st.lists(st.floats(1e-4, 1e-1), min_size=1, max_size=3), st.integers(0, 7), st.integers(1, 2), st.integers(1, 3)
    )
    def test_groups_keep_their_ratio_through_the_schedule(self, peaks, warmup, epochs, accumulate):
        model = tiny_model(emb_dim=6, n_layers=1, vocab_size=128)
        parts = list(model.parameters())
        groups = [{"params": parts[number :: len(peaks)], "lr": peak} for number, peak in enumerate(peaks)]
        optimizer, seen = torch.optim.SGD(groups, lr=1.0), []
        optimizer.register_step_pre_hook(lambda *_: seen.append([group["lr"] for group in optimizer.param_groups]))
        x = ids(6, 4, vocabulary=128)
        loader = DataLoader(TensorDataset(x, x), 2)
        arguments = (model, loader, loader, optimizer, CPU, epochs, 3, 1, "hi", Letters(), warmup)
        *_, rates = train_model(*arguments, initial_lr=1e-5, min_lr=1e-6, accumulate=accumulate)
        total = epochs * math.ceil(3 / accumulate)
        table = [learning_rate_at(step, total, warmup, peaks[0], 1e-5, 1e-6) for step in range(total)]
        assert rates == pytest.approx(table)
        assert np.array(seen) == pytest.approx(np.outer(table, np.array(peaks) / peaks[0]))
        assert [group["lr"] for group in optimizer.param_groups] == peaks

    @FEW
    @given(st.sampled_from([{"before_update": print}, {"name": "x"}, {"accumulate": 9}, "rate of 0"]), SEEDS)
    def test_a_schedule_that_cannot_be_kept_is_refused(self, options, seed):
        model = tiny_model(seed, vocab_size=128, n_layers=1)
        before, x = weights(model).clone(), ids(4, 4, seed=seed)
        loader = DataLoader(TensorDataset(x, x), 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.0 if options == "rate of 0" else 0.1)
        options = {} if options == "rate of 0" else options
        with pytest.raises(ValueError):
            train_model(model, loader, loader, optimizer, CPU, 1, 1, 1, "hi", Letters(), 1, **options)
        assert torch.equal(weights(model), before)

    @FIXED
    @given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
    def test_progress_of_another_run_is_refused(self, batches, done, of):
        model = Line()
        optimizer, progress = torch.optim.SGD(model.parameters(), 0.1), Progress(batch=done, batches_per_epoch=of)
        with pytest.raises(ValueError, match="progress"):
            training_steps(model, line_loader(batches), optimizer, CPU, 1, squares, progress=progress)

    @FIXED
    @given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=4), max_size=3), st.integers(0, 2))
    def test_highest_gradient(self, gradients, without):
        model = nn.Module()
        for number, values in enumerate(gradients):
            parameter = nn.Parameter(torch.zeros(len(values)))
            parameter.grad = torch.tensor(values)
            model.register_parameter(f"p{number}", parameter)
        for number in range(without):
            model.register_parameter(f"q{number}", nn.Parameter(torch.zeros(2)))
        assert find_highest_gradient(model) == (max(itertools.chain(*gradients)) if gradients else None)


# ---- LoRA ----------------------------------------------------------------------------------------------------------

TARGETS = st.sampled_from([None, "W_query", ["att", "out_head"], ["trf_blocks.0"], "ff", ["layers.2", "W_value"]])


def stir_lora(model, seed):
    with torch.no_grad():
        for number, layer in enumerate(lora_layers(model).values()):
            layer.lora.B.copy_(numbers(*layer.lora.B.shape, seed=seed + number))


class TestLoRA:
    @FIXED
    @given(
        SEEDS,
        st.integers(1, 40),
        st.integers(1, 40),
        st.integers(1, 9),
        st.floats(0.01, 100),
        st.lists(st.integers(0, 3), max_size=2),
    )
    def test_a_layer_is_a_product_beside_a_layer(self, seed, d_in, d_out, rank, alpha, shape):
        torch.manual_seed(seed)
        linear, x = nn.Linear(d_in, d_out), numbers(*shape, d_in, seed=seed)
        layer = LinearWithLoRA(linear, rank, alpha)
        assert torch.equal(layer(x), linear(x))
        stir_lora(nn.Sequential(layer), seed)
        product = alpha / rank * (x.double() @ layer.lora.A.double() @ layer.lora.B.double())
        torch.testing.assert_close(layer(x), (linear(x).double() + product).float(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(F.linear(x, layer.weight, linear.bias), layer(x), rtol=1e-3, atol=1e-3)

    @FIXED
    @given(configs(), SEEDS, st.integers(1, 5), st.floats(0.1, 32), TARGETS, st.booleans())
    def test_merged_and_unmerged(self, config, seed, rank, alpha, targets, tied):
        config["n_layers"] = max(1, config["n_layers"])
        model = lively_model(seed, tied, **config)
        x = ids(2, config["context_length"], seed=seed, vocabulary=config["vocab_size"])
        before = {name: value.clone() for name, value in model.state_dict().items()}
        replace_linear_with_lora(model, rank, alpha, targets)
        torch.testing.assert_close(model(x), lively_model(seed, tied, **config)(x))
        stir_lora(model, seed)
        beside, names = model(x), list(lora_layers(model))
        with pytest.raises(ValueError, match="already"):
            replace_linear_with_lora(model, rank, alpha)
        merged = merge_lora(model)
        assert list(merged) == names and not lora_layers(model) and model.state_dict().keys() == before.keys()
        scale = beside.abs().max().item()
        torch.testing.assert_close(model(x), beside, rtol=1e-3, atol=1e-3 * scale)
        unmerge_lora(model, merged)
        assert set(lora_layers(model)) == set(names)
        torch.testing.assert_close(model(x), beside, rtol=1e-3, atol=1e-3 * scale)
        for name, value in model.state_dict().items():
            if ".lora." not in name:
                size = max(1.0, *(lora.delta().abs().max().item() for lora in merged.values()))
                torch.testing.assert_close(value, before[name.replace(".linear.", ".")], rtol=1e-4, atol=1e-5 * size)

    @FIXED
    @given(
        configs(),
        SEEDS,
        st.integers(1, 5),
        st.one_of(
            st.integers(1, 64), st.floats(0.1, 32), st.sampled_from([np.float32(16), np.int64(8), np.float64(2)])
        ),
        TARGETS,
        st.booleans(),
    )
    def test_adapters_come_back(self, tmp_path, config, seed, rank, alpha, targets, head):
        config["n_layers"] = max(1, config["n_layers"])
        model, base = lively_model(seed, **config), lively_model(seed, **config).requires_grad_(False)
        model.requires_grad_(False)
        if head:
            model.out_head = nn.Linear(config["emb_dim"], 3)
        replace_linear_with_lora(model, rank, alpha, targets)
        stir_lora(model, seed)
        save_adapter(model, tmp_path / "adapter", ["out_head"] if head else [])
        adapters, state = Adapters(base), torch.get_rng_state()
        x = ids(2, config["context_length"], seed=seed, vocabulary=config["vocab_size"])
        plain = base(x)
        settings = load_adapter(base, tmp_path / "adapter")
        assert (settings["rank"], settings["alpha"]) == (rank, alpha) and torch.equal(torch.get_rng_state(), state)
        assert torch.equal(base(x), model(x))
        adapters.keep("one")
        adapters.use()
        assert torch.equal(base(x), plain)
        adapters.use("one")
        assert torch.equal(base(x), model(x))


# ---- files ---------------------------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**100), 2**100),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from([np.float32(1.5), np.float64(-0.0), np.int8(-3), np.uint64(2**63), np.bool_(True), np.str_("é")]),
    st.sampled_from(["f4", ">f8", "<i2", "u1", "?", "f2", ">i4"]).flatmap(
        lambda kind: st.lists(st.integers(0, 9), max_size=4).map(lambda values: np.array(values, dtype=kind)[::-1])
    ),
    st.sampled_from([torch.float32, torch.int64, torch.bfloat16, torch.bool]).map(
        lambda kind: torch.ones(2, 0, 3).to(kind)
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(kept, given):
    """Whether what came back is what was given, NumPy's values as Python's and torch's."""
    if isinstance(given, np.ndarray):
        return isinstance(kept, torch.Tensor) and np.array_equal(kept.numpy(), given)
    if isinstance(given, torch.Tensor):
        return kept.dtype == given.dtype and torch.equal(kept, given)
    if isinstance(given, dict):
        return kept.keys() == given.keys() and all(same(kept[key], value) for key, value in given.items())
    if isinstance(given, list | tuple):
        return type(kept) is type(given) and all(map(same, kept, given)) and len(kept) == len(given)
    given = given.item() if isinstance(given, np.generic) else given
    return type(kept) is type(given) and kept == given


class Shared(nn.Module):
    """Weights that are one tensor, a tensor and its transpose, and tensors without an entry."""

    def __init__(self, tied, turned, empty, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        if tied:
            self.two.weight = self.one.weight
        if turned:
            self.three.weight = nn.Parameter(self.one.weight.T)
        if empty:
            self.register_buffer("nothing", torch.zeros(0))
            self.register_buffer("void", torch.zeros(0))


class TestFiles:
    @settings(FIXED, max_examples=40)
    @given(st.dictionaries(st.sampled_from(["lr", "history", "note"]), TREES, max_size=3))
    def test_any_tree_of_plain_values_comes_back(self, tmp_path, extra):
        model = nn.Linear(1, 1)
        save_checkpoint(tmp_path / "c.pt", model, torch.optim.SGD(model.parameters(), 0.1), **extra)
        kept = load_checkpoint(tmp_path / "c.pt", model)[1]
        assert same(kept, extra)

    @FIXED
    @given(
        st.sampled_from(
            [
                {1},
                object(),
                1j,
                np.datetime64("2020"),
                np.array([None]),
                np.array(["a"]),
                b"x",
                len,
                np.longdouble(1),
                {1: 2},
            ]
        ),
        st.booleans(),
    )
    def test_what_could_not_come_back_is_refused_at_once(self, tmp_path, value, nested):
        model, path = nn.Linear(1, 1), tmp_path / "c.pt"
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        save_checkpoint(path, model, optimizer, note="the last good one")
        with pytest.raises(TypeError):
            save_checkpoint(path, model, optimizer, note=[{"a": value}] if nested else value)
        assert load_checkpoint(path, model)[1] == {"note": "the last good one"}
        assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]

    @FIXED
    @given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 3), st.booleans())
    def test_shared_weights_come_back(self, tmp_path, tied, turned, empty, compiled, checkpoint):
        saved, other = (Shared(tied, turned, empty, seed) for seed in (1, 2))
        wrap = [lambda model: model, lambda model: torch.compile(model, backend="eager")]
        for_saving, for_loading = wrap[compiled % 2](saved), wrap[compiled // 2](other)
        path = tmp_path / "weights"
        if checkpoint:
            save_checkpoint(path, for_saving, torch.optim.SGD(saved.parameters(), 0.1))
            load_checkpoint(path, for_loading)
        else:
            save_model(for_saving, path)
            load_model(for_loading, path)
        for name, value in saved.state_dict().items():
            assert torch.equal(other.state_dict()[name], value), name
        assert (other.one.weight is other.two.weight) == tied

    @FIXED
    @given(configs(), SEEDS, st.booleans(), st.booleans(), st.sampled_from(["plain", "int8", "packed", "bfloat16"]))
    def test_a_gpt_from_its_file_alone(self, tmp_path, config, seed, tied, checkpoint, kind):
        config["n_layers"] = max(1, config["n_layers"])
        model, path = lively_model(seed, tied, **config), tmp_path / "gpt"
        x = ids(2, config["context_length"], seed=seed, vocabulary=config["vocab_size"])
        model = {"int8": quantize_int8, "packed": pack_weights, "bfloat16": to_bfloat16}.get(kind, lambda same: same)(
            model
        )
        if checkpoint:
            save_checkpoint(path, model, torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1))
        else:
            save_model(model, path)
        again, settings = load_saved_gpt(path)
        assert settings == config and not again.training
        if kind == "plain":
            assert (again.out_head.weight is again.tok_emb.weight) == tied
        tolerance = 0.1 * model(x).abs().max().item() + 0.1 if kind == "bfloat16" else 1e-3
        torch.testing.assert_close(again(x).float(), model(x).float(), rtol=1e-3, atol=tolerance)

    @FEW
    @given(configs(), SEEDS)
    def test_gpt2s_own_form(self, tmp_path, config, seed):
        config["n_layers"] = max(1, config["n_layers"])
        model = lively_model(seed, tied=True, **config)
        save_gpt2(model, tmp_path)
        again, settings = read_gpt2(tmp_path)
        x = ids(2, config["context_length"], seed=seed, vocabulary=config["vocab_size"])
        torch.testing.assert_close(again(x), model(x), rtol=1e-4, atol=1e-4)
        assert settings == {**config, "qkv_bias": True} and again.out_head.weight is again.tok_emb.weight

    @FIXED
    @given(st.lists(st.tuples(UNICODE, UNICODE), max_size=4))
    def test_responses_come_back(self, tmp_path, pairs):
        entries = [{"instruction": text, "input": "", "output": text} for text, _ in pairs]
        save_responses(entries, [answer for _, answer in pairs], tmp_path / "r.json")
        rows = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
        assert rows == [{**entry, "model_response": answer} for entry, (_, answer) in zip(entries, pairs, strict=True)]


# ---- faster forms --------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.integers(0, 5), max_size=2)


class TestFasterForms:
    @settings(FIXED, max_examples=30)
    @given(SEEDS, st.integers(1, 40), st.integers(1, 900), SHAPES, st.booleans(), st.sampled_from([1e-6, 1.0, 1e4]))
    @example(0, 3, 385, [17], True, 1.0)
    @example(0, 1, 900, [], True, 1e4)  # one number for all pieces
    def test_int8_is_within_half_a_step_of_each_piece(self, seed, d_in, d_out, shape, bias, scale):
        linear = nn.Linear(d_in, d_out, bias)
        with torch.no_grad():
            linear.weight.copy_(numbers(d_out, d_in, seed=seed, scale=scale))
        layer, x = Int8Linear(linear), numbers(*shape, d_in, seed=seed)
        error = (layer.plain_weight() - linear.weight).abs()  # (d_out, d_in)
        for piece, wrong in zip(linear.weight.split(384), error.split(384), strict=True):
            whole = F.pad(piece, (0, 0, 0, 1)) if len(piece) < 384 < d_out else piece  # the last one is filled with 0
            step = (whole.amax(dim=0) - whole.amin(dim=0)) / 255
            assert (
                wrong <= 0.51 * step + 1e-6 * piece.abs().max() + 1e-8
            ).all()  # the 1e-8 is what the kernel adds to ranges
        expected = F.linear(x, layer.plain_weight(), linear.bias)
        assert layer(x).shape == expected.shape == (*shape, d_out)
        torch.testing.assert_close(layer(x), expected, rtol=1e-3, atol=1e-4 * max(scale, 1e-6) * d_in)

    @FIXED
    @given(SEEDS, st.integers(1, 40), st.integers(1, 300), SHAPES, st.booleans())
    def test_bfloat16_is_within_its_rounding(self, seed, d_in, d_out, shape, bias):
        torch.manual_seed(seed)
        linear, x = nn.Linear(d_in, d_out, bias), numbers(*shape, d_in, seed=seed, dtype=torch.bfloat16)
        layer = BFloat16Linear(linear)
        assert torch.equal(layer.plain_weight(), linear.weight.bfloat16())
        assert layer(x).shape == (*shape, d_out) and layer(x).dtype == torch.bfloat16
        exact = None if linear.bias is None else linear.bias.bfloat16().double()
        expected = F.linear(x.double(), linear.weight.bfloat16().double(), exact)
        torch.testing.assert_close(layer(x).double(), expected, rtol=0.02, atol=0.02 * max(1.0, d_in**0.5))

    @FIXED
    @given(SEEDS, st.integers(1, 70), st.integers(1, 70), SHAPES, st.booleans())
    def test_packed_weights_are_the_same_numbers(self, seed, d_in, d_out, shape, bias):
        torch.manual_seed(seed)
        linear, x = nn.Linear(d_in, d_out, bias), numbers(*shape, d_in, seed=seed)
        layer = PackedLinear(linear)
        assert torch.equal(layer.plain_weight(), linear.weight)
        assert layer(x).shape == (*shape, d_out)
        torch.testing.assert_close(layer(x), linear(x))

    @FIXED
    @given(
        SEEDS,
        st.sampled_from([(512, 512), (519, 513), (2**18, 1), (3, 2**17), (16, 2**14), (17, 2**14)]),
        st.lists(st.integers(0, 5), max_size=2),
        st.booleans(),
    )
    @example(0, (512, 512), [0], True)
    @example(0, (3, 2**17), [2], True)
    def test_products_of_a_few_rows(self, seed, size, shape, bias):
        d_out, d_in = size
        linear, x = nn.Linear(d_in, d_out, bias), numbers(*shape, d_in, seed=seed)
        turned = x.transpose(0, 1).contiguous().transpose(0, 1) if x.dim() > 1 else x
        for rows in (x, turned):
            torch.testing.assert_close(linear_few_rows(linear, rows), linear(rows), rtol=1e-3, atol=1e-4)

    @FIXED
    @given(
        SEEDS, st.lists(st.integers(0, 9), max_size=3), st.sampled_from([0.0, 1e-9, 0.1, 0.5, 0.9, 1.0]), st.booleans()
    )
    def test_fused_dropout_drops_and_scales(self, seed, shape, p, training):
        torch.manual_seed(seed)
        layer, x = FusedDropout(p).train(training), torch.ones(*shape, 64)
        out = layer(x)
        assert out.shape == x.shape
        if not training:
            assert out is x or torch.equal(out, x)
            return
        values = set(out.unique().tolist())
        assert all(value == 0 or math.isclose(value, 1 / (1 - p), rel_tol=1e-4) for value in values)
        dropped = (out == 0).double().sum().item()
        assert abs(dropped - p * x.numel()) <= 6 * (x.numel() * p * (1 - p)) ** 0.5 + 1e-3 * x.numel() + 1e-6

    @FIXED
    @given(
        SEEDS,
        st.integers(1, 20),
        st.integers(1, 30),
        st.integers(1, 12),
        st.integers(1, 9),
        st.sampled_from([0.01, 1.0, 30.0]),
    )
    def test_chunked_loss_is_cross_entropy(self, seed, rows, vocabulary, width, chunk, scale):
        hidden = numbers(rows, width, seed=seed, scale=scale).requires_grad_()
        table = numbers(vocabulary, width, seed=seed + 1).requires_grad_()
        targets = ids(rows, seed=seed, vocabulary=vocabulary)
        expected = F.cross_entropy(hidden.double() @ table.double().T, targets)
        gradients = torch.autograd.grad(expected, (hidden, table))
        loss = SoftmaxLoss.apply(hidden, table, targets, None, None, None, chunk, torch.float32)
        torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-6)
        for ours, plain in zip(torch.autograd.grad(loss, (hidden, table)), gradients, strict=True):
            torch.testing.assert_close(ours, plain.float(), rtol=1e-3, atol=1e-5)

    @FIXED
    @given(configs(), SEEDS, st.sampled_from([quantize_int8, pack_weights]), st.booleans())
    def test_converted_models_write_what_their_weights_say(self, config, seed, convert, tied):
        model = convert(lively_model(seed, tied, **config))
        plain = GPTModel(config).eval()
        plain.load_state_dict(model.state_dict())
        prompts = [ids(1 + row, seed=seed + row, vocabulary=config["vocab_size"]).tolist() for row in range(3)]
        x = torch.tensor(prompts[-1:])[:, -config["context_length"] :]
        torch.testing.assert_close(model(x), plain(x), rtol=1e-3, atol=1e-3)
        size = config["context_length"]
        slow = [generate_slowly(model, prompt, 4, size) for prompt in prompts]
        assert generate_batch(model, prompts, 4, size, use_cache=False) == slow
        assert generate_batch(model, prompts, 4, size) == slow


# ---- judges --------------------------------------------------------------------------------------------------------

WORDS = st.lists(
    st.one_of(
        st.sampled_from(
            ["the", "Bus", "3.5", "-2", "Straße", "ΟΔΟΣ", "café", "don't", "कि", "中文", "ไทย", "İ", "%", "Ångström"]
        ),
        st.text(st.characters(categories=["L", "Nd", "Mn"]), min_size=1, max_size=4),
    ),
    max_size=6,
).map(" ".join)
MEASURES = (exact_match, token_f1, rouge_l)


class TestJudges:
    @settings(FIXED, max_examples=30)
    @given(st.one_of(WORDS, UNICODE), st.one_of(WORDS, UNICODE))
    def test_symmetric_and_between_0_and_1(self, one, other):
        for measure in MEASURES:
            assert measure(one, one) == 1.0
            assert measure(one, other) == pytest.approx(measure(other, one), abs=1e-12)
            assert 0.0 <= measure(one, other) <= 1.0
        assert exact_match(one, other) <= rouge_l(one, other) <= token_f1(one, other) + 1e-12

    @settings(FIXED, max_examples=30)
    @given(WORDS, st.sampled_from(["NFC", "NFD"]), st.sampled_from([" ", "\n", "\u00a0", "  "]))
    @example("die Straße", "NFC", " ")
    def test_case_letters_and_blanks_do_not_count(self, text, form, blank):
        lower = text.lower() if text.lower().upper().lower() == text.lower() else text  # ı, ŉ and their like
        upper = text.upper() if text.upper().lower() == text.lower() else text
        german = text.replace("ß", "SS").replace("Σ", "σ")
        for changed in (lower, upper, german, unicodedata.normalize(form, text), text.replace(" ", blank)):
            for measure in MEASURES:
                assert measure(changed, text) == 1.0, (measure.__name__, changed, text)

    @FIXED
    @given(
        st.lists(st.sampled_from(["the", "red", "bus", "café", "7"]), min_size=1, max_size=6),
        st.sampled_from([".", "!", ", ", "…", '"', " ?", ";"]),
    )
    def test_marks_between_words_do_not_count(self, words, mark):
        for measure in MEASURES:
            assert measure(f"{mark} ".join(words) + mark, " ".join(words)) == 1.0

    @FIXED
    @given(*[st.lists(st.sampled_from("abc"), min_size=1, max_size=6)] * 2)
    def test_against_counting_by_hand(self, ours, theirs):
        shared = sum(min(ours.count(word), theirs.count(word)) for word in "abc")
        runs = {
            tuple(ours[place] for place in places)
            for size in range(len(ours) + 1)
            for places in itertools.combinations(range(len(ours)), size)
        }
        longest = max(
            size
            for size in range(len(theirs) + 1)
            if any(
                tuple(theirs[place] for place in places) in runs
                for places in itertools.combinations(range(len(theirs)), size)
            )
        )
        for measure, hits in ((token_f1, shared), (rouge_l, longest)):
            precision, recall = hits / len(ours), hits / len(theirs)
            expected = 2 * precision * recall / (precision + recall) if hits else 0.0
            assert measure(" ".join(ours), " ".join(theirs)) == pytest.approx(expected)

    @settings(FIXED, max_examples=100)
    @given(
        st.lists(
            st.one_of(
                st.integers(-5, 130).map(str),
                st.sampled_from(
                    [
                        "score",
                        "Score:",
                        "rating",
                        "of",
                        "is",
                        "/",
                        "100",
                        "out",
                        "-",
                        "–",
                        ".",
                        ",",
                        "(",
                        "full",
                        "max",
                        "85.0",
                        "3.5",
                        "0-100",
                        "<think>",
                        "</think>",
                        "%",
                        "\n",
                    ]
                ),
                st.text(max_size=2),
                st.just("9" * 5000),
            ),
            max_size=8,
        ),
        st.sampled_from(["", " "]),
    )
    @example(["Score:", "9" * 5000], " ")
    def test_a_score_is_a_number_of_the_text(self, parts, blank):
        text = blank.join(parts)
        score = _score_in(text)
        if score is not None:
            assert 0 <= score <= 100
            digits = "".join(str(unicodedata.decimal(letter, " ")) for letter in text)
            assert score in {int(number) for number in digits.split() if len(number) < 4000}

    @FIXED
    @given(
        st.integers(0, 100),
        st.sampled_from(
            [
                "{}",
                "Score: {}",
                "{}/100",
                "**{}**",
                "The score is {}.",
                "{} out of 100",
                "<think>3 or 4?</think>{}",
                "I'd rate it: Rating: {}",
                "Score (0-100): {}",
            ]
        ),
    )
    def test_a_plain_score_is_found(self, score, form):
        assert _score_in(form.format(score)) == score

    @FEW
    @given(
        st.sampled_from(
            [
                "a",
                "<think>",
                "score ",
                "score is ",
                "1",
                "1 ",
                "!",
                "full ",
                "0-",
                "</think",
                "best possible ",
                "score\n\n",
            ]
        )
    )
    def test_long_garbage_takes_no_time(self, piece):
        text = piece * (50_000 // len(piece))
        begin = time.perf_counter()
        assert _score_in(text) is None
        assert time.perf_counter() - begin < 1


# ---- data sets -----------------------------------------------------------------------------------------------------


class TestData:
    @FIXED
    @given(st.lists(st.sampled_from(["ham", "spam"]), max_size=12), st.booleans())
    def test_balanced(self, labels, numbered):
        table = pd.DataFrame({"Label": labels, "Text": [f"text {number}" for number in range(len(labels))]})
        table.index = table.index if numbered else [0] * len(table)
        count = Counter(labels)
        if not 0 < count["spam"] <= count["ham"]:
            with pytest.raises(ValueError):
                create_balanced_dataset(table)
            return
        balanced = create_balanced_dataset(table)
        assert Counter(balanced["Label"]) == {"ham": count["spam"], "spam": count["spam"]}
        rows = list(balanced.itertuples(index=False, name=None))
        assert len(set(rows)) == len(rows) and set(rows) <= set(table.itertuples(index=False, name=None))

    @settings(FIXED, max_examples=40)
    @given(st.integers(0, 30), st.integers(-5, 105), st.integers(-5, 105))
    def test_parts_are_a_partition(self, count, first, second):
        entries = [{"instruction": str(number)} for number in range(count)]
        table = pd.DataFrame({"Text": range(count)})
        if first < 0 or second < 0 or first + second > 100:
            for split, data in ((split_entries, entries), (random_split, table)):
                with pytest.raises(ValueError):
                    split(data, first / 100, second / 100)
            return
        parts = split_entries(entries, first / 100, second / 100)
        assert [entry for part in parts for entry in part] == entries
        frames = random_split(table, first / 100, second / 100)
        assert sorted(pd.concat(frames)["Text"]) == list(range(count))
        for sizes in (list(map(len, parts)), list(map(len, frames))):
            assert abs(sizes[0] - count * first / 100) <= 1 and abs(sizes[1] - count * second / 100) <= 1

    @settings(FIXED, max_examples=40)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 1),
                st.one_of(UNICODE, st.sampled_from(["NA", "3.50", '"', "a,b", "x\ny", "x\ry", " ", "true"])),
            ),
            min_size=1,
            max_size=5,
        ),
        st.none() | st.integers(1, 9),
        st.integers(0, 300),
    )
    @example([(0, "a\r"), (1, '"\r"')], None, 0)
    @example([(0, "before\x00after")], None, 0)
    def test_messages_become_rows(self, tmp_path, messages, max_length, pad):
        messages = [(label, text.replace("\r\n", "\n") or "x") for label, text in messages]
        pd.DataFrame(messages, columns=["Label", "Text"]).to_csv(tmp_path / "m.csv", index=None, quoting=csv.QUOTE_ALL)
        if any("\0" in text for _, text in messages):
            with pytest.raises(ValueError, match="NUL"):
                SpamDataset(tmp_path / "m.csv", Letters())
            return
        dataset = SpamDataset(tmp_path / "m.csv", Letters(), max_length, pad)
        width = max_length or max(len(text) for _, text in messages)
        assert dataset.max_length == width and len(dataset) == len(messages)
        for (row, label), (expected, text) in zip((dataset[i] for i in range(len(dataset))), messages, strict=True):
            assert label.item() == expected
            assert row.tolist() == (Letters().encode(text) + [pad] * width)[:width]

    @FIXED
    @given(
        SEEDS,
        st.text(st.characters(max_codepoint=96), max_size=20),
        st.none() | st.integers(-1, 40),
        st.integers(0, 96),
        st.booleans(),
    )
    def test_a_message_is_read_as_the_training_rows(self, seed, text, max_length, pad, training):
        model = lively_model(seed).train(training)
        model.out_head = nn.Linear(24, 2)
        arguments = (text, model, Letters(), CPU, max_length, pad)
        if not text or (max_length is not None and max_length < 1):
            with pytest.raises(ValueError):
                classify_review(*arguments)
            return
        row = (Letters().encode(text) + [pad] * 40)[: min(max_length or len(text), 16)]
        expected = ["not spam", "spam"][int(model(torch.tensor([row]))[0, -1].argmax())]
        assert classify_review(*arguments) == expected and model.training == training

    @FIXED
    @given(UNICODE, UNICODE, UNICODE, st.booleans())
    def test_responses_are_taken_out_of_the_text(self, prompt, response, rest, ended):
        assume(END not in response and END not in prompt)
        text = prompt + response + (END + rest if ended else "")
        assert extract_response(text, prompt) == response.strip()
        if not response.startswith(prompt[:1]):
            with pytest.raises(ValueError):
                extract_response(response, prompt)

    @FEW
    @given(
        st.lists(st.text("abcdefgh ", min_size=1, max_size=9).filter(str.strip), max_size=5),
        st.integers(-2, 6),
        st.integers(0, 4),
    )
    def test_each_entry_gets_its_own_answer(self, instructions, batch_size, count):
        class Hashes:
            def encode(self, text):
                return [ord(letter) % 97 for letter in text[-20 - len(text) % 7 :]]

            def decode(self, ids):
                return "".join(chr(200 + number) for number in ids)

        entries, model = [{"instruction": text} for text in instructions], lively_model(4, context_length=32)
        style = helpers.instructions.ALPACA
        if batch_size < 1 and entries:
            with pytest.raises(ValueError, match="batch_size"):
                answer_entries(model, entries, Hashes(), 32, count, batch_size=batch_size)
            return
        answers = answer_entries(model, entries, Hashes(), 32, count, batch_size=batch_size)
        prompts = [Hashes().encode(style.prompt({"input": "", **entry})) for entry in entries]
        assert answers == [Hashes().decode(generate_slowly(model, prompt, count, 32)).strip() for prompt in prompts]


# ---- around functions ----------------------------------------------------------------------------------------------


class TestGuards:
    @FIXED
    @given(
        st.lists(st.booleans(), min_size=4, max_size=4),
        st.sampled_from([None, ValueError, KeyboardInterrupt]),
        st.booleans(),
    )
    def test_every_module_gets_its_mode_back(self, modes, error, meddled):
        model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Linear(1, 1)))
        modules = list(model.modules())
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode

        def work():
            with evaluation_mode(model) as given:
                assert given is model and not any(module.training for module in modules)
                if meddled:
                    model.train()
                if error:
                    raise error

        if error:
            with pytest.raises(error):
                work()
        else:
            work()
        assert [module.training for module in modules] == modes

    @pytest.mark.parametrize("name", [name for name in helpers.__all__ if callable(getattr(helpers, name))])
    def test_names_and_parameters_are_those_that_were_written(self, name):
        function = getattr(helpers, name)
        written = inspect.unwrap(function)
        assert function.__name__ == name and function.__doc__ == written.__doc__ and function.__doc__
        if not inspect.isclass(function):
            assert inspect.signature(function) == inspect.signature(written)
            assert "arguments" not in inspect.signature(function).parameters
