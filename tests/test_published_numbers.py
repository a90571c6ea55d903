"""The published numbers of chapter 5 and appendix D: GPT-2's 124M size with a context of 256 on "The Verdict".

Those of chapters 2 to 4 are beside the code that they belong to: test_data.py, test_attention.py, test_gpt.py.
"""

import pytest
import torch

from helpers import (
    GPTModel,
    calc_loss_batch,
    calc_loss_loader,
    create_dataloader_v1,
    find_highest_gradient,
    get_tokenizer,
    gpt_config,
    train_model,
    train_model_simple,
)
from tests.tiny import CPU

TOKENIZER, CONTEXT = get_tokenizer(), "Every effort moves you"


def new_model():
    torch.manual_seed(123)
    return GPTModel(gpt_config("124M", context_length=256))


@pytest.fixture(scope="class")
def untrained():
    """A new model, and torch's random state after its weights were drawn."""
    return new_model(), torch.get_rng_state()


@pytest.fixture
def loaders(the_verdict):
    """Training and validation batches of 2 x 256 tokens, from 90 and 10 percent of the text."""
    split, options = int(0.9 * len(the_verdict)), {"batch_size": 2, "max_length": 256, "stride": 256}
    train = create_dataloader_v1(the_verdict[:split], **options)
    val = create_dataloader_v1(the_verdict[split:], **options, shuffle=False, drop_last=False)
    assert (len(train), len(val)) == (9, 1)
    return train, val


class TestUntrained:
    def test_probabilities_of_the_targets(self, untrained):  # section 5.1
        inputs, targets = (
            torch.tensor([TOKENIZER.encode(text) for text in texts])
            for texts in (("every effort moves", "I really like"), (" effort moves you", " really like chocolate"))
        )
        with torch.no_grad():
            probabilities = untrained[0].eval()(inputs).softmax(dim=-1).gather(2, targets[..., None]).squeeze(2)
        published = [[7.4541e-05, 3.1061e-05, 1.1563e-05], [1.0337e-05, 5.6776e-05, 4.7559e-06]]
        torch.testing.assert_close(probabilities, torch.tensor(published), rtol=1e-4, atol=0)
        assert probabilities.log().mean().item() == pytest.approx(-10.7940, abs=5e-5)

    def test_losses_before_training(self, untrained, loaders):
        model = untrained[0].eval()
        torch.manual_seed(123)
        with torch.no_grad():
            losses = [calc_loss_loader(loader, model, CPU) for loader in loaders]
        assert losses == pytest.approx([10.98758, 10.98110], abs=2e-5)

    def test_the_highest_gradient_before_and_after_clipping(self, untrained, loaders):
        """Section D.3, after the loader went through 15 epochs for each of the two schedules before it."""
        model, random_state = untrained
        torch.manual_seed(123)
        for _ in range(2 * 15):
            *_, last = loaders[0]
        torch.set_rng_state(random_state)
        calc_loss_batch(*last, model.train(), CPU).backward()
        found = [find_highest_gradient(model)]
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        found.append(find_highest_gradient(model))
        model.zero_grad()
        assert found == pytest.approx([0.0411, 0.0185], abs=5e-5)


def the_first(updates):
    """A loss function that ends a training run after some updates, as Ctrl-C would."""
    calls = []

    def loss_function(inputs, targets, model, device):
        calls.append(model.training)
        if sum(calls) > updates:
            raise KeyboardInterrupt
        return calc_loss_batch(inputs, targets, model, device)

    return loss_function


def with_schedule(loaders, updates):
    """Training and validation losses of the run in section D.4, ended early: every 5 updates, from the first one on.

    It was published with these rates: 1e-5 at both ends, and AdamW's default of 1e-3 as the peak.
    """
    model = new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    rates = {"warmup_steps": 27, "initial_lr": 1e-5, "min_lr": 1e-5}
    history = train_model(
        model, *loaders, optimizer, CPU, 15, 5, 1, CONTEXT, TOKENIZER, **rates, loss_function=the_first(updates)
    )
    return list(zip(*history[:2], strict=True))


class TestTraining:
    def test_the_start_with_a_schedule(self, loaders):  # section D.4
        assert with_schedule(loaders, updates=1) == [pytest.approx((10.934, 10.939), abs=1e-3)]

    @pytest.mark.slow
    def test_the_first_updates_with_a_schedule(self, loaders):
        first, second = with_schedule(loaders, updates=6)
        assert first == pytest.approx((10.934, 10.939), abs=1e-3)
        assert second == pytest.approx((9.151, 9.461), abs=0.02)

    @pytest.mark.slow
    def test_the_first_updates(self, loaders):  # section 5.2
        model = new_model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0004, weight_decay=0.1)
        train, val, tokens = train_model_simple(
            model, *loaders, optimizer, CPU, 10, 5, 5, CONTEXT, TOKENIZER, loss_function=the_first(6)
        )
        assert train == pytest.approx([9.781, 8.111], abs=0.02)
        assert val == pytest.approx([9.933, 8.339], abs=0.02)
        assert tokens == [512, 3072]
