"""Preference tuning: pairs, batches, log-probabilities of answers, the DPO loss and its gradient."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from helpers.instructions import PHI3, masked_collate_fn
from helpers.preferences import (
    CURT,
    FRIENDLY,
    PreferenceDataset,
    calc_dpo_loss_batch,
    check_preferences,
    compare_with_reference,
    dpo_loss,
    make_preferences,
    preference_collate_fn,
    reference_logprobs,
    sequence_logprobs,
)
from helpers.training import training_steps
from tests.tiny import CPU, lively_model, windows

END = 96  # the end of text in the tiny vocabulary of 97 ids


class Words:
    """A tokenizer of one id per letter, which leaves out what every prompt has."""

    def encode(self, text):
        return [ord(letter) % 90 for letter in text.removeprefix("<|user|>\n").removesuffix(PHI3.response)]


ENTRIES = [
    {"instruction": "Name a colour.", "input": "", "output": "Red"},
    {"instruction": "Copy this.", "input": "my hat", "output": "my hat"},
    {"instruction": "Add.", "input": "1 + 1", "output": "It is 2."},
]
PAIRS = [
    {"instruction": "a", "input": "", "chosen": "yes", "rejected": "no"},
    {"instruction": "bb", "input": "c", "chosen": "x", "rejected": "long"},
    {"instruction": "ccc", "input": "", "chosen": "abcd", "rejected": "dcb"},
]
collate = partial(preference_collate_fn, pad_token_id=END)


def dataset():
    return PreferenceDataset(PAIRS, Words())


def by_loop(model, prompt, answer, end=END):
    """The log-probability of an answer and its end, one token at a time, each by a pass of its own."""
    total, ids = 0.0, list(prompt)
    with torch.no_grad():
        for token in [*answer, end]:
            total += torch.log_softmax(model(torch.tensor([ids]))[0, -1].double(), dim=-1)[token].item()
            ids.append(token)
    return total


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_differ_in_their_opening_only():
    pairs = make_preferences(ENTRIES, seed=3)
    check_preferences(pairs)
    assert [pair["output"] for pair in pairs] == [entry["output"] for entry in ENTRIES]
    for entry, pair in zip(ENTRIES, pairs, strict=True):
        assert pair["chosen"].removesuffix(entry["output"]) in FRIENDLY
        assert pair["rejected"].removesuffix(entry["output"]) in CURT
    assert pairs == make_preferences(ENTRIES, seed=3)
    assert pairs[:2] == make_preferences(ENTRIES[:2], seed=3)


def test_all_openings_occur_and_the_seed_matters():
    pairs = make_preferences(ENTRIES * 20)
    for key, openings in (("chosen", FRIENDLY), ("rejected", CURT)):
        assert all(any(pair[key].startswith(opening) for pair in pairs) for opening in openings)
    assert pairs != make_preferences(ENTRIES * 20, seed=124)
    assert "chosen" not in ENTRIES[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": None}, r"pairs\[1\]\['chosen'\] is a NoneType, not a string"),
        ({"rejected": " "}, r"pairs\[1\]\['rejected'\] is empty"),
        ({"rejected": "x"}, r"pairs\[1\] has the same answer twice"),
    ],
)
def test_bad_pairs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        PreferenceDataset([PAIRS[0], {**PAIRS[1], **change}], Words())


def test_a_missing_key_and_no_pairs():
    without = {key: value for key, value in PAIRS[0].items() if key != "chosen"}
    with pytest.raises(ValueError, match=r"pairs\[0\] has no 'chosen', only 'instruction', 'input', 'rejected'"):
        check_preferences([without])
    with pytest.raises(ValueError, match="pairs holds no entry"):
        check_preferences([])
    with pytest.raises(ValueError, match="no entry"):
        make_preferences([])


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_items_and_batches():
    data = dataset()
    data.reference = torch.tensor([[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]])
    prompt, yes = Words().encode(PHI3.prompt(PAIRS[0])), Words().encode("yes")
    chosen, rejected, length, reference = data[0]
    assert chosen == prompt + yes and rejected == prompt + Words().encode("no") and length == len(prompt)
    assert reference.tolist() == [-1.0, -2.0]
    inputs, (targets, reference) = collate([data[0], data[2]])
    assert inputs.shape == targets.shape == (4, len(data[2][0]))
    assert reference.tolist() == [-1.0, -5.0, -2.0, -6.0]  # the chosen half first
    assert inputs[0, : len(chosen)].tolist() == chosen and inputs[2, : len(rejected)].tolist() == rejected
    assert targets[0][targets[0] != -100].tolist() == [*yes, END]
    assert (targets[:, : len(prompt) - 1] == -100).all()


def test_no_answer_is_cut():
    """The reference counts whole answers, so a batch with part of one would compare unlike things."""
    data = dataset()
    longest = max(len(data[1][0]), len(data[1][1]))
    assert collate([data[1]], allowed_max_length=longest)[0].shape[1] == longest
    with pytest.raises(ValueError, match=f"allowed_max_length={longest - 1} cuts a row of {longest} tokens"):
        collate([data[1]], allowed_max_length=longest - 1)


# ---- log-probabilities -----------------------------------------------------------------------------------------------


def test_logprobs_are_those_of_the_slow_loop():
    model, data = lively_model(), dataset()
    inputs, (targets, _) = collate([data[i] for i in range(3)])
    with torch.no_grad():
        fast = sequence_logprobs(model, inputs, targets)
    slow = [by_loop(model, data.prompts[i], answers[i]) for answers in (data.chosen, data.rejected) for i in range(3)]
    torch.testing.assert_close(fast, torch.tensor(slow), rtol=1e-4, atol=1e-4)


def test_padding_and_neighbours_do_not_matter():
    model, data = lively_model(2), dataset()
    together, (targets, _) = collate([data[i] for i in range(3)])
    with torch.no_grad():
        all_at_once = sequence_logprobs(model, together, targets)
        for i in range(3):
            inputs, (own, _) = collate([data[i]])
            torch.testing.assert_close(sequence_logprobs(model, inputs, own), all_at_once[[i, 3 + i]])
        wider = torch.cat((together, torch.full((6, 3), 7)), dim=1)
        ignored = torch.cat((targets, torch.full((6, 3), -100)), dim=1)
        torch.testing.assert_close(sequence_logprobs(model, wider, ignored), all_at_once)


def test_gradients_of_logprobs_reach_the_model():
    model, data = lively_model(3), dataset()
    inputs, (targets, _) = collate([data[0]])
    weight = model.out_head.weight
    sequence_logprobs(model, inputs, targets)[0].backward()
    row, column = data.chosen[0][0], 5
    slope, step = weight.grad[row, column].item(), 1e-2
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            weight[row, column] += sign * step
            values.append(by_loop(model, data.prompts[0], data.chosen[0]))
            weight[row, column] -= sign * step
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.02)


def test_the_reference_is_the_same_in_any_order_and_keeps_the_mode():
    model = lively_model(4, vocab_size=50257)  # the default end token must be in the vocabulary
    model.train()
    data = dataset()
    whole, one_by_one = reference_logprobs(model, data), reference_logprobs(model, data, batch_size=1)
    assert whole.shape == (3, 2) and not whole.requires_grad and model.training
    torch.testing.assert_close(whole, one_by_one)
    slow = [by_loop(model, data.prompts[1], answers[1], 50256) for answers in (data.chosen, data.rejected)]
    torch.testing.assert_close(whole[1], torch.tensor(slow), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("vocabulary", "end"), [(97, END), (50400, 50300)])
def test_the_reference_ends_as_the_batches_do(vocabulary, end):
    """With the end token of the training's batches, DPO begins at log 2; with another, it would not."""
    model, data = lively_model(4, vocab_size=vocabulary), dataset()
    data.reference = reference_logprobs(model, data, collate_fn=partial(preference_collate_fn, pad_token_id=end))
    inputs, targets = preference_collate_fn([data[row] for row in range(3)], pad_token_id=end)
    assert calc_dpo_loss_batch(inputs, targets, model, CPU).item() == pytest.approx(math.log(2), rel=1e-5)
    compared = compare_with_reference(model, data, 0.2, partial(preference_collate_fn, pad_token_id=end))
    assert compared["loss"] == pytest.approx(math.log(2), rel=1e-5) and compared["margin"] == 0
    assert preference_collate_fn([data[0]])[1][0].max() == 50256  # the default is what it was


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_a_value_computed_by_hand():
    """The notebook's example: +1 and -4 nats at beta 0.1 are a margin of 0.5, and log(1 + exp(-0.5)) is 0.4741."""
    numbers = [torch.tensor([value]) for value in (-11.0, -14.0, -12.0, -10.0)]
    loss, chosen, rejected = dpo_loss(*numbers, beta=0.1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.5)), rel=1e-5)
    assert chosen.item() == pytest.approx(0.1, rel=1e-5) and rejected.item() == pytest.approx(-0.4, rel=1e-5)


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
def test_the_loss_begins_at_log_2(beta):
    logp = torch.randn(2, 7, generator=torch.Generator().manual_seed(1))
    loss, chosen, rejected = dpo_loss(*logp, *logp, beta=beta)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    assert not chosen.any() and not rejected.any()


def test_direction_and_size_of_the_gradient():
    logp = (3 * torch.randn(4, 5, generator=torch.Generator().manual_seed(2))).double().requires_grad_()
    beta = 0.3
    loss, chosen, rejected = dpo_loss(*logp, beta=beta)
    loss.backward()
    pull = beta * torch.sigmoid(rejected - chosen) / 5  # of the mean over 5 pairs
    torch.testing.assert_close(logp.grad, torch.stack([-pull, pull, pull, -pull]))
    assert torch.autograd.gradcheck(lambda *x: dpo_loss(*x, beta=beta)[0], tuple(logp.detach().requires_grad_()))


def test_far_margins_stay_finite():
    far = torch.tensor([1e4, -1e4])
    loss, _, _ = dpo_loss(far, -far, torch.zeros(2), torch.zeros(2), beta=1.0)
    assert loss.item() == pytest.approx(1e4)


@pytest.mark.parametrize("beta", [0, -0.1, math.nan])
def test_beta_must_be_positive(beta):
    with pytest.raises(ValueError, match=f"beta={beta} must be positive"):
        dpo_loss(*torch.zeros(4, 2), beta=beta)


def test_the_loss_of_a_batch():
    model, data = lively_model(5), dataset()
    data.reference = torch.tensor([[-9.0, -8.0], [-7.0, -9.5], [-12.0, -11.0]])
    inputs, target_batch = collate([data[i] for i in (2, 0)])
    loss = calc_dpo_loss_batch(inputs, target_batch, model, CPU, beta=0.2)
    terms = []
    for i in (2, 0):
        chosen, rejected = (by_loop(model, data.prompts[i], answers[i]) for answers in (data.chosen, data.rejected))
        change = chosen - data.reference[i, 0].item() - rejected + data.reference[i, 1].item()
        terms.append(math.log1p(math.exp(-0.2 * change)))
    assert loss.item() == pytest.approx(sum(terms) / 2, rel=1e-3)


# ---- training --------------------------------------------------------------------------------------------------------


def test_training_prefers_the_chosen_answers():
    """The course's own loop, five epochs: every pair ends in the right order, and only the policy has changed."""
    model, data = lively_model(6, vocab_size=50257), dataset()
    data.reference = reference_logprobs(model, data)
    kept = data.reference.clone()
    start = compare_with_reference(model, data)
    assert start["margin"] == pytest.approx(0, abs=1e-5) and start["loss"] == pytest.approx(math.log(2), rel=1e-4)
    loader = DataLoader(data, 3, collate_fn=preference_collate_fn)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in training_steps(model, loader, optimizer, CPU, 5, calc_dpo_loss_batch):
        pass
    end = compare_with_reference(model, data)
    assert end["accuracy"] == 1.0 and end["margin"] > 0.05 and end["loss"] < start["loss"]
    assert end["chosen"] - start["chosen"] > end["rejected"] - start["rejected"]
    assert torch.equal(kept, data.reference)


def test_a_forgotten_reference_stops_the_training():
    loader = DataLoader(dataset(), 3, collate_fn=collate)
    model = lively_model(7)
    steps = training_steps(model, loader, torch.optim.SGD(model.parameters(), lr=0.1), CPU, 1, calc_dpo_loss_batch)
    with pytest.raises(FloatingPointError, match="nan after 0 updates"):
        next(steps)


def test_targets_are_those_of_chapter_7():
    data = dataset()
    inputs, (targets, _) = preference_collate_fn([data[0]])
    same_inputs, same_targets = masked_collate_fn([(data[0][0], data[0][2]), (data[0][1], data[0][2])])
    assert torch.equal(inputs, same_inputs) and torch.equal(targets, same_targets)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_log_probabilities_of_models_of_other_types(dtype):
    inputs, targets = windows(2, 8)
    expected = sequence_logprobs(lively_model(2), inputs, targets)
    got = sequence_logprobs(lively_model(2).to(dtype), inputs, targets)
    assert got.dtype == dtype
    assert torch.allclose(got.float(), expected, rtol=0.05)
