"""Generation: against slow loops, with and without a cache, sampling, batches, beams, streams, and errors."""

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import helpers.generation
from helpers import GPTModel, beam_search, choose_next, generate, generate_batch, generate_stream, generate_text_simple
from tests.tiny import TINY, lively_model, tiny_model, windows

VOCABULARY = 11


class Toy(nn.Module):
    """A model whose next token depends on every token it is given; it notes what it was called with."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.table = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=generator))
        self.dropout = nn.Dropout(0.0)
        self.calls = []

    def forward(self, idx):
        self.calls.append((idx.clone(), torch.is_grad_enabled(), self.training))
        place = torch.arange(1, idx.shape[1] + 1, dtype=torch.float32)[:, None]
        return self.dropout((self.table[idx] * torch.sin(place)).cumsum(dim=1))  # (B, T, vocabulary)


def greedy_slowly(row, steps, context_size):
    """The continuation of one list of ids, with a search over every logit."""
    model, row = Toy(), list(row)
    for _ in range(steps):
        logits = model(torch.tensor([row[-context_size:]]))[0, -1].tolist()
        best = 0
        for token_id in range(VOCABULARY):
            if logits[token_id] > logits[best]:
                best = token_id
        row.append(best)
    return row


PROMPTS = [[4, 1, 7], [0, 0, 9], [10, 2, 5]]


@pytest.mark.parametrize("context_size", [1, 2, 3, 5, 50])
@pytest.mark.parametrize("steps", [0, 1, 8])
def test_agrees_with_a_slow_loop(context_size, steps):
    out = generate_text_simple(Toy(), torch.tensor(PROMPTS), steps, context_size)
    assert out.dtype == torch.int64
    assert out.tolist() == [greedy_slowly(row, steps, context_size) for row in PROMPTS]


def test_rows_of_a_batch_are_independent():
    together = generate_text_simple(Toy(), torch.tensor(PROMPTS), 8, 5)
    assert len({tuple(row[3:]) for row in together.tolist()}) > 1
    for number, row in enumerate(PROMPTS):
        alone = generate_text_simple(Toy(), torch.tensor([row]), 8, 5)
        assert torch.equal(alone[0], together[number])


def test_the_context_is_cropped_to_its_end():
    model = Toy()
    out = generate_text_simple(model, torch.tensor([[1, 2, 3, 4, 5]]), 4, context_size=3)
    assert [idx.shape[1] for idx, _, _ in model.calls] == [3, 3, 3, 3]
    assert model.calls[0][0].tolist() == [[3, 4, 5]]
    assert model.calls[-1][0].tolist() == [out[0, 5:8].tolist()]


def test_no_new_tokens():
    model, idx = Toy(), torch.tensor(PROMPTS)
    assert torch.equal(generate_text_simple(model, idx, 0, 4), idx)
    assert model.calls == []


def test_the_prompt_is_left_as_it_was():
    idx = torch.tensor(PROMPTS)
    generate_text_simple(Toy(), idx, 3, 4)
    assert idx.tolist() == PROMPTS


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_in_its_mode(training):
    model = Toy().train(training)
    generate_text_simple(model, torch.tensor(PROMPTS), 3, 4)
    assert model.training is training
    assert {was_training for _, _, was_training in model.calls} == {training}


def test_no_gradient_is_kept():
    model = Toy()
    out = generate_text_simple(model, torch.tensor(PROMPTS), 3, 4)
    assert not any(grad_enabled for _, grad_enabled, _ in model.calls)
    assert not out.requires_grad
    assert model.table.grad is None
    assert torch.is_grad_enabled()  # and afterwards it is as before


@pytest.mark.parametrize(
    ("shape", "steps", "context_size", "message"),
    [
        ((1, 0), 3, 4, "at least one token per row"),
        ((2, 0), 0, 4, "at least one token per row"),
        ((3,), 3, 4, r"the shape \(B, T\)"),
        ((1, 2), -1, 4, "max_new_tokens=-1 must be at least 0"),
        ((1, 2), 3, 0, "context_size=0 at least 1"),
        ((1, 2), 3, -2, "context_size=-2 at least 1"),
    ],
)
def test_bad_inputs(shape, steps, context_size, message):
    model = Toy()
    with pytest.raises(ValueError, match=message):
        generate_text_simple(model, torch.zeros(shape, dtype=torch.int64), steps, context_size)
    assert model.calls == []


# Sampling, caching, batches, beams. The models here are small GPTs with large random weights.


def ids_of(batch, tokens, seed=0):
    return windows(batch, tokens, seed)[0]


def newly(model, row, steps, context_size, **options):
    """The new tokens of one row that is generated alone, without a cache."""
    out = generate(model, row[None], steps, context_size, use_cache=False, **options)
    return out[0, len(row) :].tolist()


class TestGreedy:
    @pytest.mark.parametrize("use_cache", [True, False])
    @pytest.mark.parametrize(
        ("prompt", "steps", "context_size"),
        [(1, 15, 16), (4, 12, 16), (4, 30, 16), (16, 5, 16), (20, 6, 16), (3, 20, 5), (3, 0, 16), (2, 1, 1)],
    )
    def test_equals_the_simple_loop(self, use_cache, prompt, steps, context_size):
        """Up to the context's edge and beyond it."""
        model, ids = lively_model(3), ids_of(3, prompt)
        expected = generate_text_simple(model, ids, steps, context_size)
        assert torch.equal(generate(model, ids, steps, context_size, use_cache=use_cache), expected)
        if steps > 2:  # and it is not the same text over and over
            assert len({tuple(row[prompt:]) for row in expected.tolist()}) == 3

    def test_a_second_call_knows_nothing_of_the_first(self):
        model, first, second = lively_model(3), ids_of(2, 9), ids_of(2, 4, seed=1)
        generate(model, first, 5, 16)
        assert torch.equal(generate(model, second, 9, 16), generate_text_simple(model, second, 9, 16))
        more = generate(model, second, 3, 16)
        assert torch.equal(generate(model, more, 6, 16), generate_text_simple(model, second, 9, 16))

    def test_weights_that_changed_are_seen(self):
        model, ids = lively_model(3), ids_of(1, 4)
        before = generate(model, ids, 8, 16)
        with torch.no_grad():
            model.tok_emb.weight.mul_(-1)
        after = generate(model, ids, 8, 16)
        assert not torch.equal(before, after)
        assert torch.equal(after, generate_text_simple(model, ids, 8, 16))

    def test_a_toy_without_a_cache(self):
        ids = torch.tensor(PROMPTS)
        assert torch.equal(generate(Toy().eval(), ids, 8, 5), generate_text_simple(Toy(), ids, 8, 5))

    def test_a_model_with_a_forward_of_its_own_is_not_cached(self, monkeypatch):
        class Backwards(GPTModel):
            def forward(self, in_idx):
                return -super().forward(in_idx)

        monkeypatch.setattr(helpers.generation, "KVCache", no_cache)
        torch.manual_seed(1)
        model, ids = Backwards(TINY).eval(), ids_of(2, 3)
        assert torch.equal(generate(model, ids, 6, 16), generate_text_simple(model, ids, 6, 16))

    def test_a_model_in_training_mode_is_not_cached(self, monkeypatch):
        monkeypatch.setattr(helpers.generation, "KVCache", no_cache)
        model, ids = tiny_model(drop_rate=0.5).train(), ids_of(2, 3)
        torch.manual_seed(5)
        expected = generate_text_simple(model, ids, 6, 16)
        torch.manual_seed(5)
        assert torch.equal(generate(model, ids, 6, 16), expected)  # with its dropout
        assert model.training

    def test_the_cache_is_used(self, monkeypatch):
        monkeypatch.setattr(helpers.generation, "KVCache", no_cache)
        with pytest.raises(AssertionError, match="a cache was made"):
            generate(lively_model(), ids_of(1, 3), 2, 16)
        generate(lively_model(), ids_of(1, 3), 2, 16, use_cache=False)

    def test_bfloat16(self):
        model, ids = lively_model(3).to(torch.bfloat16), ids_of(2, 5)
        out = generate(model, ids, 20, 16)
        assert out.shape == (2, 25) and ((out >= 0) & (out < 97)).all()
        sampled = generate(model, ids, 20, 16, temperature=1.0, top_p=0.9, top_k=20, seed=1)
        assert sampled.shape == (2, 25)


def no_cache(*arguments):
    raise AssertionError("a cache was made")


class TestEndToken:
    def with_ends(self, model, ids, steps, context_size):
        """What comes without an end token, and a token that some row but not all has in it."""
        plain = generate_text_simple(model, ids, steps, context_size)[:, ids.shape[1] :].tolist()
        for token in sorted({token for row in plain for token in row}):
            places = [row.index(token) if token in row else steps for row in plain]
            if len(set(places)) == len(places) and max(places) == steps and min(places) > 0:
                return plain, token, places
        raise AssertionError("no such token")

    @pytest.mark.parametrize("use_cache", [True, False])
    def test_each_row_ends_for_itself(self, use_cache):
        model, ids = lively_model(3), ids_of(3, 4)
        plain, eos, places = self.with_ends(model, ids, 20, 16)
        out = generate(model, ids, 20, 16, eos_id=eos, use_cache=use_cache)[:, 4:].tolist()
        for row, expected, place in zip(out, plain, places, strict=True):
            assert row == expected[:place] + [eos] * (20 - place)

    @pytest.mark.parametrize("use_cache", [True, False])
    def test_all_ended(self, use_cache):
        model, ids = lively_model(3), ids_of(3, 4)
        _, eos, places = self.with_ends(model, ids, 20, 16)
        ending = [row for row, place in enumerate(places) if place < 20]
        longest = max(places[row] for row in ending)
        out = generate(model, ids[ending], 20, 16, eos_id=eos, use_cache=use_cache)
        assert out.shape == (len(ending), 4 + longest)  # the step in which the last row ends adds nothing

    def test_at_once(self):
        model, ids = lively_model(3), ids_of(1, 4)
        first = newly(model, ids[0], 1, 16)[0]
        assert torch.equal(generate(model, ids, 9, 16, eos_id=first), ids)
        assert generate_batch(model, ids.tolist(), 9, 16, eos_id=first) == [[]]

    def test_an_end_token_in_the_prompt_ends_nothing(self):
        model, ids = lively_model(3), ids_of(1, 4)
        prompt_token = next(token for token in ids[0].tolist() if token not in newly(model, ids[0], 8, 16))
        assert generate(model, ids, 8, 16, eos_id=prompt_token).shape == (1, 12)


class TestBatches:
    PROMPTS = tuple(ids_of(1, tokens, seed=tokens)[0].tolist() for tokens in (4, 1, 9, 4, 16, 21, 2, 12))

    @pytest.mark.parametrize("use_cache", [True, False])
    @pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:4], PROMPTS[1:2], PROMPTS[:1] * 3])
    def test_each_gets_the_tokens_it_gets_alone(self, prompts, use_cache):
        model = lively_model(3)
        expected = [newly(model, torch.tensor(prompt), 12, 16) for prompt in prompts]
        assert generate_batch(model, prompts, 12, 16, use_cache=use_cache) == expected

    @pytest.mark.parametrize("use_cache", [True, False])
    def test_end_tokens_by_row(self, use_cache):
        model, prompts = lively_model(3), self.PROMPTS[:4]
        plain = [newly(model, torch.tensor(prompt), 12, 16) for prompt in prompts]
        tried = 0
        for eos in sorted({token for row in plain for token in row}):
            expected = [row[: row.index(eos)] if eos in row else row for row in plain]
            assert generate_batch(model, prompts, 12, 16, eos_id=eos, use_cache=use_cache) == expected
            tried += len({len(row) for row in expected}) > 1
        assert tried > 3

    def test_a_seed_gives_the_same_batch_with_and_without_a_cache(self):
        model, options = lively_model(3), {"temperature": 0.7, "top_k": 9, "seed": 4}
        cached = generate_batch(model, self.PROMPTS[:4], 10, 16, **options)
        assert cached == generate_batch(model, self.PROMPTS[:4], 10, 16, use_cache=False, **options)

    def test_prompts_are_left_as_they_were(self):
        prompts = [[1, 2], [3]]
        generate_batch(lively_model(), prompts, 3, 16)
        assert prompts == [[1, 2], [3]]


class TestStream:
    def test_yields_token_by_token(self):
        model, ids = lively_model(3), ids_of(2, 3)
        stream = generate_stream(model, list(ids), 6, 16)
        first = next(stream)
        assert all(type(token) is int for token in first)
        assert torch.is_grad_enabled()  # between the steps too
        steps = [first, *stream]
        assert torch.tensor(steps).T.tolist() == generate_text_simple(model, ids, 6, 16)[:, 3:].tolist()

    def test_works_only_when_asked(self):
        model = Toy().eval()
        stream = generate_stream(model, [torch.tensor([1, 2])], 1000, 4)
        assert model.calls == []
        next(stream), next(stream)
        assert len(model.calls) == 2
        stream.close()

    def test_ended_rows_go_on_yielding_the_end(self):
        model, ids = lively_model(3), ids_of(3, 4)
        plain, eos, places = TestEndToken().with_ends(model, ids, 20, 16)
        steps = list(generate_stream(model, list(ids), 20, 16, eos_id=eos))
        for row, place in enumerate(places):
            assert [step[row] for step in steps] == plain[row][:place] + [eos] * (20 - place)


def probabilities_slowly(logits, temperature, top_k, top_p):
    """What choose_next draws from, for one list of logits, with loops."""
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    kept = set(order[:top_k]) if top_k else set(order)
    largest = max(logits)
    weights = [math.exp((value - largest) / temperature) if t in kept else 0.0 for t, value in enumerate(logits)]
    p = [weight / sum(weights) for weight in weights]
    if top_p is not None:
        reached, nucleus = 0.0, set()
        for token in order:
            if reached >= top_p:
                break
            nucleus.add(token)
            reached += p[token]
        p = [value if token in nucleus else 0.0 for token, value in enumerate(p)]
    return [value / sum(p) for value in p]


class TestChoosing:
    @pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
    @pytest.mark.parametrize("top_k", [None, 1, 3, 11])
    @pytest.mark.parametrize("top_p", [None, 0.05, 0.6, 0.95, 1.0])
    def test_draws_from_the_slow_reference(self, monkeypatch, temperature, top_k, top_p):
        drawn_from = []
        draw = torch.multinomial

        def watched(probabilities, **options):
            drawn_from.append(probabilities / probabilities.sum(dim=-1, keepdim=True))
            return draw(probabilities, **options)

        monkeypatch.setattr(torch, "multinomial", watched)
        logits = 2 * torch.randn(5, 11, generator=torch.Generator().manual_seed(1))
        ids = choose_next(logits, temperature, top_k, top_p)
        assert ids.shape == (5, 1) and ids.dtype == torch.int64
        expected = [probabilities_slowly(row, temperature, top_k, top_p) for row in logits.tolist()]
        assert_close(drawn_from[0], torch.tensor(expected), rtol=1e-4, atol=1e-6)
        assert all(expected[row][ids[row, 0]] > 0 for row in range(5))

    def test_greedy(self):
        logits = torch.randn(4, 11, generator=torch.Generator().manual_seed(1))
        for top_k in (None, 1, 5):
            assert torch.equal(choose_next(logits, top_k=top_k), logits.argmax(dim=-1, keepdim=True))

    def test_frequencies(self):
        logits = torch.tensor([[1.0, 0.0, -1.0, 3.0]]).expand(20_000, 4)
        counts = choose_next(logits, 1.5, generator=torch.Generator().manual_seed(3)).flatten().bincount(minlength=4)
        expected = torch.tensor(probabilities_slowly([1.0, 0.0, -1.0, 3.0], 1.5, None, None))
        assert_close(counts / 20_000, expected, rtol=0, atol=0.015)

    def test_pizza(self):  # chapter 5's toy vocabulary
        words = ["closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you"]
        logits = torch.tensor([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])
        p = torch.softmax(logits / 5, dim=-1)[0, words.index("pizza")].item()
        assert round(100 * p, 1) == 4.3
        torch.manual_seed(123)
        draws = [choose_next(logits, temperature=5.0).item() for _ in range(1000)]
        assert draws.count(words.index("pizza")) == 32

    def test_bfloat16_logits(self):
        logits = torch.randn(3, 97, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
        assert choose_next(logits, 0.8, 20, 0.9).shape == (3, 1)

    def test_logits_are_left_as_they_were(self):
        logits = torch.randn(2, 11)
        before = logits.clone()
        choose_next(logits, 0.8, 3, 0.9)
        assert torch.equal(logits, before)


SAMPLING = {"temperature": 1.0, "top_k": 40, "top_p": 0.95}


class TestSeeds:
    def test_a_seed_repeats_the_draw_and_leaves_the_global_state(self):
        model, ids = lively_model(3), ids_of(2, 3)
        before = torch.get_rng_state()
        one = generate(model, ids, 12, 16, seed=7, **SAMPLING)
        assert torch.equal(generate(model, ids, 12, 16, seed=7, **SAMPLING), one)
        assert torch.equal(generate(model, ids, 12, 16, seed=7, use_cache=False, **SAMPLING), one)
        assert not torch.equal(generate(model, ids, 12, 16, seed=8, **SAMPLING), one)
        assert torch.equal(torch.get_rng_state(), before)

    def test_without_a_seed_the_global_state_decides(self):
        model, ids = lively_model(3), ids_of(2, 3)
        torch.manual_seed(7)
        one, two = (generate(model, ids, 12, 16, **SAMPLING) for _ in range(2))
        assert not torch.equal(one, two)
        torch.manual_seed(7)
        assert torch.equal(generate(model, ids, 12, 16, **SAMPLING), one)

    def test_one_candidate_is_greedy(self):
        model, ids = lively_model(3), ids_of(2, 3)
        expected = generate_text_simple(model, ids, 8, 16)
        assert torch.equal(generate(model, ids, 8, 16, temperature=2.0, top_k=1), expected)
        assert torch.equal(generate(model, ids, 8, 16, temperature=2.0, top_p=1e-6), expected)
        assert torch.equal(generate(model, ids, 8, 16, temperature=1e-4), expected)


class TestBadOptions:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"temperature": -0.1}, r"temperature=-0\.1 must not be negative"),
            ({"top_k": 0}, "top_k=0 must be at least 1"),
            ({"top_k": -3}, "top_k=-3 must be at least 1"),
            ({"top_k": 98}, "top_k=98 is more than the 97 tokens of the vocabulary"),
            ({"top_k": 98, "temperature": 1.0, "use_cache": False}, "top_k=98 is more than the 97 tokens"),
            ({"top_p": 0.0}, r"top_p=0\.0 must be above 0 and at most 1"),
            ({"top_p": 1.5}, r"top_p=1\.5 must be above 0 and at most 1"),
            ({"max_new_tokens": -1}, "max_new_tokens=-1 must be at least 0"),
            ({"context_size": 0}, "context_size=0 at least 1"),
            ({"context_size": 32, "max_new_tokens": 14}, "context_size=32 exceeds the model's context_length of 16"),
            ({"idx": torch.zeros((2, 0), dtype=torch.int64)}, "the prompt holds no token to continue from"),
            ({"eos_id": [3, 4]}, r"eos_id=\[3, 4\] must be one token id"),
            ({"eos_id": "<|endoftext|>"}, "eos_id='<|endoftext|>' must be one token id"),
            ({"seed": 2**64}, "seed=18446744073709551616 must be a whole number of at most 64 bits"),
        ],
    )
    def test_refused(self, changes, message):
        arguments = {"idx": ids_of(2, 3), "max_new_tokens": 3, "context_size": 16, **changes}
        with pytest.raises(ValueError, match=message) as caught:
            generate(lively_model(), **arguments)
        assert "\n" not in str(caught.value)

    def test_a_batch_with_nothing_in_it(self):
        for prompts in ([], [[1, 2], []]):
            with pytest.raises(ValueError, match="the prompt holds no token to continue from"):
                generate_batch(lively_model(), prompts, 3, 16)

    def test_the_whole_vocabulary_is_allowed(self):
        out = generate(lively_model(), ids_of(1, 3), 3, 16, temperature=1.0, top_k=97, top_p=1.0, seed=1)
        assert out.shape == (1, 6)

    def test_numbers_of_numpy(self):
        options = {"temperature": 1.0, "seed": 3, "eos_id": 5}
        theirs = {**options, "seed": np.int64(3), "eos_id": np.int32(5)}
        texts = [generate(lively_model(), ids_of(1, 3), 5, 16, **given).tolist() for given in (options, theirs)]
        assert texts[0] == texts[1]

    def test_beam_search_with_a_token_that_does_not_exist(self):
        with pytest.raises(ValueError, match="token id 200; the model's vocabulary has 0 to 96"):
            beam_search(lively_model(), [1, 200], 3, 16)

    def test_a_large_context_size_that_is_not_reached(self):
        model, ids = lively_model(), ids_of(1, 3)
        assert torch.equal(generate(model, ids, 13, 1024), generate(model, ids, 13, 16))


class OwnPositions(nn.Module):
    """A small model as people write their own: positions without a table of weights, and no context_length."""

    def __init__(self, positions, last_only=False):
        super().__init__()
        torch.manual_seed(1)
        self.tok_emb = nn.Sequential(nn.Embedding(VOCABULARY, 8), nn.Linear(8, 8))
        self.pos_emb, self.last_only = positions, last_only
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, ids):
        table = self.pos_emb if isinstance(self.pos_emb, torch.Tensor) else self.pos_emb(ids)
        x = torch.tanh(self.tok_emb(ids) + table[:, : ids.shape[1]]).cumsum(dim=1)
        return self.head(x[:, -1:] if self.last_only else x)


class Sinusoidal(nn.Module):
    def forward(self, ids):
        return torch.sin(torch.arange(32.0)[None, :, None] * torch.arange(1, 9))


class TestModelsOfOnesOwn:
    """What the plain loop writes, `generate` writes too, whatever a model is made of."""

    @pytest.mark.parametrize("last_only", [False, True])
    @pytest.mark.parametrize("positions", [lambda: nn.Parameter(torch.ones(1, 32, 8)), Sinusoidal])
    def test_positions_and_embeddings_of_another_kind(self, positions, last_only):
        model, prompt = OwnPositions(positions(), last_only), torch.tensor([[1, 2, 3]])
        plain = generate_text_simple(model, prompt, 6, 16)
        assert torch.equal(generate(model, prompt, 6, 16), plain)
        assert generate_batch(model, [[1, 2, 3], [4]], 6, 16)[0] == plain[0, 3:].tolist()
        assert torch.equal(beam_search(model, prompt, 6, 16, beams=1), plain)

    def test_a_model_without_parameters(self):
        class Next(nn.Module):
            def forward(self, ids):
                return nn.functional.one_hot((ids + 1) % VOCABULARY, VOCABULARY).float()

        assert generate(Next(), [9, 10], 3, 16).tolist() == [[9, 10, 0, 1, 2]]
        assert beam_search(Next(), [9, 10], 3, 16).tolist() == [[9, 10, 0, 1, 2]]

    def test_rows_of_different_lengths_without_a_mask(self):
        """Padding at the right would be seen by a model that looks ahead."""
        model, prompts = lively_model(3), [[1, 2, 3], [4, 5, 6, 7, 8, 9, 10], [11, 12, 13]]
        for block in model.trf_blocks:
            block.att.mask.zero_()
        together = generate_batch(model, prompts, 12, 16)
        assert together == [generate_batch(model, [prompt], 12, 16)[0] for prompt in prompts]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (lambda ids: (torch.zeros(1, 2, VOCABULARY), None), "is of tuple"),
            (lambda ids: torch.zeros(1, VOCABULARY), r"is of the shape \(1, 11\)"),
        ],
    )
    def test_a_model_that_gives_something_else(self, given, message):
        class Other(nn.Module):
            def forward(self, ids):
                return given(ids)

        with pytest.raises(ValueError, match=rf"model\(ids\) must be a tensor of logits .*{message}"):
            generate(Other(), [1, 2], 3, 16)


@pytest.mark.parametrize("lengths", [(3,), (3, 5)])
def test_under_autocast(lengths):
    """Under autocast, keys and values are of another type than the parameters."""
    prompts = [list(range(1, 1 + length)) for length in lengths]
    with torch.autocast("cpu", torch.bfloat16):
        cached = generate_batch(lively_model(3), prompts, 4, 16)
        assert cached == generate_batch(lively_model(3), prompts, 4, 16, use_cache=False)


def test_a_text_of_unlimited_length():
    """Until the end token, or until whoever reads it has enough."""
    stream = generate_stream(tiny_model(), [1, 2, 3], 10**15, 16)
    assert len([next(stream) for _ in range(300)]) == 300
    with pytest.raises(ValueError, match="a list"):
        generate_text_simple(tiny_model(), [[1, 2, 3]], 3, 16)


NO_PROMPTS = ["text", b"ab", 7, None, [], [[]], [1, [2]], [1.5], [True, False], torch.zeros(1, 2, 3), torch.rand(1, 3)]


class TestOneWayToCall:
    """All functions that write take the same prompts, and the same options in the same order, by name."""

    WRITERS = (generate, generate_batch, generate_stream, beam_search)

    def test_options_have_one_order_and_go_by_name(self):
        orders = []
        for function in self.WRITERS:
            parameters = list(inspect.signature(function).parameters.values())
            assert [parameter.name for parameter in parameters[2:4]] == ["max_new_tokens", "context_size"]
            assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[4:])
            orders.append([(parameter.name, parameter.default) for parameter in parameters[4:]])
        assert orders[0] == orders[1] == orders[2]
        with pytest.raises(TypeError):
            generate(lively_model(), ids_of(1, 3), 3, 16, 1.0)

    @pytest.mark.parametrize("form", [list, tuple, torch.tensor, lambda ids: torch.tensor(ids, dtype=torch.int32)])
    @pytest.mark.parametrize("rows", [False, True], ids=["one-row", "a-list-of-one"])
    def test_one_prompt_in_every_form(self, form, rows):
        model, ids = lively_model(), [5, 90, 17]
        plain = generate_text_simple(model, torch.tensor([ids]), 4, 16)
        prompt = [form(ids)] if rows else form(ids)
        assert torch.equal(generate(model, prompt, 4, 16), plain)
        assert generate_batch(model, prompt, 4, 16) == [plain[0, 3:].tolist()]
        assert [step[0] for step in generate_stream(model, prompt, 4, 16)] == plain[0, 3:].tolist()
        assert torch.equal(beam_search(model, prompt, 4, 16, beams=1), plain)

    def test_several_prompts_in_every_form(self):
        model, ids = lively_model(), ids_of(2, 3)
        for prompts in (ids, ids.tolist(), list(ids), tuple(ids.tolist())):
            assert generate_batch(model, prompts, 4, 16) == generate(model, prompts, 4, 16)[:, 3:].tolist()

    @pytest.mark.parametrize(
        "prompt",
        ["text", b"ab", 7, None, [], [[]], [1, [2]], torch.zeros(1, 2, 3), torch.rand(1, 3), [1.5], [True, False]],
    )
    def test_what_is_no_prompt(self, prompt):
        for function in self.WRITERS:
            with pytest.raises(ValueError, match="token ids are expected"):
                list(function(lively_model(), prompt, 3, 16))

    @pytest.mark.parametrize("token_id", [-1, 97])
    def test_ids_outside_the_vocabulary(self, token_id):
        with pytest.raises(ValueError, match=f"the token id {token_id}; the model's vocabulary has 0 to 96"):
            generate(lively_model(), [1, token_id], 3, 16)

    def test_rows_of_different_lengths(self):
        with pytest.raises(ValueError, match="generate_batch continues such prompts"):
            generate(lively_model(), [[1, 2], [3]], 3, 16)

    def test_errors_come_before_the_first_step(self):
        with pytest.raises(ValueError, match="max_new_tokens=-1"):
            generate_stream(lively_model(), [1, 2], -1, 16)  # not iterated


class TestChoosingIsChecked:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": -1.0}, "temperature=-1.0 must not be negative"),
            ({"temperature": math.nan}, "temperature=nan must not be negative"),
            ({"temperature": 1e-40}, "temperature=1e-40 cannot divide the logits"),
            ({"top_k": 0}, "top_k=0 must be at least 1"),
            ({"top_k": 6}, "top_k=6 is more than the 5 tokens of the vocabulary"),
            ({"top_p": 0.0}, "top_p=0.0 must be above 0"),
            ({"top_p": math.nan}, "top_p=nan must be above 0"),
            ({"logits": torch.zeros(5)}, r"the shape \(B, vocab_size\), got \(5,\)"),
            ({"logits": torch.full((1, 5), math.nan)}, "logits contain NaN"),
        ],
    )
    def test_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            choose_next(**{"logits": torch.zeros(1, 5), **options})


@pytest.mark.parametrize("write", [generate_text_simple, generate, generate_batch, beam_search])
def test_weights_that_are_no_numbers(write):
    """Greedy choice would take token 0 for ever."""
    model = lively_model()
    with torch.no_grad():
        model.final_norm.scale.fill_(math.nan)
    with pytest.raises(ValueError, match="logits contain NaN"):
        write(model, ids_of(1, 3), 3, 16)


class TestBeamSearch:
    def scores(self, model, prompt, length, context_size=16):
        """The log-probability of every continuation of the length."""
        sequences = torch.cartesian_prod(*[torch.arange(5)] * length).view(-1, length)
        full = torch.cat((prompt.expand(len(sequences), -1), sequences), dim=1)
        total = torch.zeros(len(full))
        with torch.no_grad():
            for place in range(prompt.shape[1], full.shape[1]):
                log_p = torch.log_softmax(model(full[:, :place][:, -context_size:])[:, -1], dim=-1)
                total += log_p[torch.arange(len(full)), full[:, place]]
        return full, total

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("context_size", [16, 3])
    def test_with_all_beams_it_finds_the_best(self, seed, context_size):
        model, prompt = lively_model(seed, vocab_size=5), windows(1, 2, seed, vocabulary=5)[0]
        full, total = self.scores(model, prompt, 4, context_size)
        assert torch.equal(beam_search(model, prompt, 4, context_size, beams=5**4)[0], full[total.argmax()])

    def test_one_beam_is_greedy(self):
        model, prompt = lively_model(3), ids_of(1, 4)
        assert torch.equal(beam_search(model, prompt, 8, 16, beams=1), generate_text_simple(model, prompt, 8, 16))

    def test_beams_can_beat_greedy(self):
        better = 0
        for seed in range(6):
            model, prompt = lively_model(seed, vocab_size=5), windows(1, 2, seed, vocabulary=5)[0]
            full, total = self.scores(model, prompt, 4)
            score = {tuple(row): value for row, value in zip(full.tolist(), total.tolist(), strict=True)}
            greedy = score[tuple(beam_search(model, prompt, 4, 16, beams=1)[0].tolist())]
            found = score[tuple(beam_search(model, prompt, 4, 16, beams=25)[0].tolist())]
            better += found > greedy + 1e-4
        assert better >= 1

    def test_bad_inputs(self):
        model = lively_model()
        with pytest.raises(ValueError, match="idx has 2 rows and beams=4"):
            beam_search(model, ids_of(2, 3), 2, 16)
        with pytest.raises(ValueError, match="the prompt holds no token to continue from"):
            beam_search(model, torch.zeros((1, 0), dtype=torch.int64), 2, 16)
        with pytest.raises(ValueError, match="beams=0: one row and at least one beam"):
            beam_search(model, ids_of(1, 3), 2, 16, beams=0)
        with pytest.raises(ValueError, match="max_new_tokens=-1 must be at least 0"):
            beam_search(model, ids_of(1, 3), -1, 16)
        assert torch.equal(beam_search(model, ids_of(1, 3), 0, 16), ids_of(1, 3))
