"""Greedy generation: against a slow loop on a toy model, the context it is given, and errors."""

import pytest
import torch
from torch import nn

from helpers import generate_text_simple

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
        ((1, 0), 3, 4, "idx holds no token"),
        ((2, 0), 0, 4, "idx holds no token"),
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
