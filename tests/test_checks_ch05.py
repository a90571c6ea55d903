"""The checkers of chapter 5: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers import GPT_SIZES, GPTModel, calc_loss_loader, checks, gpt_config, load_checkpoint, training_steps
from tests import checkers
from tests.checkers import fails

CPU = torch.device("cpu")


RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# 5.0


RIGHT += [
    ("5.0", lambda p: torch.exp(-p.log().mean())),
    ("5.0", lambda p: math.exp(-sum(map(math.log, p.flatten().tolist())) / p.numel())),
]

WRONG += [
    ("5.0", lambda p: -p.log().mean(), "That is the loss"),
    ("5.0", lambda p: p.log().mean(), "mean logarithm"),
    ("5.0", lambda p: p.log().mean().exp(), "sign"),
    ("5.0", lambda p: 1 / p.mean(), "averaged"),
    ("5.0", lambda p: (-p.log().sum()).exp(), "take the mean"),
    ("5.0", lambda p: 2 ** (-p.log().mean()), "natural"),
    ("5.0", lambda p: p.double().prod() ** (-1 / p.numel()), "vanishes"),
    ("5.0", lambda p: p, "must be one number"),
    ("5.0", lambda p: 5.0, "expected"),
]


# 5.1


def expected_draws(logits, temperature, draws):
    return draws * torch.softmax(logits / temperature, dim=0)


RIGHT += [("5.1", expected_draws)]


def test_5_1_quotes_what_is_expected_of_pizza():
    assert "42.9" in checks.exercise_5_1(expected_draws).message


def drawing(logits, temperature, draws):
    drawn = torch.multinomial(torch.softmax(logits / temperature, 0), draws, replacement=True)
    return torch.bincount(drawn, minlength=len(logits))


WRONG += [
    ("5.1", drawing, "still drawing"),
    ("5.1", lambda logits, t, n: (n * torch.softmax(logits / t, 0)).round(), "whole"),
    ("5.1", lambda logits, t, n: torch.softmax(logits / t, 0), "probabilities"),
    ("5.1", lambda logits, t, n: n * torch.softmax(logits, 0), "no effect"),
    ("5.1", lambda logits, t, n: n * torch.softmax(logits * t, 0), "flatten"),
    ("5.1", lambda logits, t, n: n * torch.softmax(logits, 0) / t, "before the softmax"),
    ("5.1", lambda logits, t, n: torch.zeros(2), "shape"),
]


# 5.2

FITTING = {"contract": "A", "story": "B", "names": "C", "test": "A"}

RIGHT += [("5.2", FITTING), ("5.2", {job.upper(): letter.lower() for job, letter in FITTING.items()})]


@pytest.mark.parametrize("job", FITTING)
@pytest.mark.parametrize("letter", ["A", "B", "C"])
def test_5_2_every_single_slip_is_explained(job, letter):
    verdict = checks.exercise_5_2({**FITTING, job: letter})
    if letter == FITTING[job]:
        assert verdict
    else:
        fails(verdict, job, "3 of 4")
        assert not any(f"{name}: {right}" in verdict.message for name, right in FITTING.items())


WRONG += [
    ("5.2", "ABCA", "dictionary"),
    ("5.2", {"contract": "A"}, "story"),
    ("5.2", {**FITTING, "names": "D"}, "'D'"),
]


# 5.3

GREEDY = {"temperature": 0.0}


for second in ({"top_k": 1}, {"seed": 5}, {"top_p": 1e-6}, {"top_k": 1, "seed": 3}):
    RIGHT += [("5.3", (GREEDY, {"temperature": 1.0, **second})), ("5.3", [{}, {"temperature": 1, **second}])]

WRONG += [
    ("5.3", (GREEDY, {"temperature": 1.0}), "different texts"),
    ("5.3", (GREEDY, {"temperature": 1.0, "top_k": 2}), "way 2"),
    ("5.3", (GREEDY, {"temperature": 1.0, "top_p": 0.5}), "different texts"),
    ("5.3", (GREEDY, GREEDY), "second way should have temperature 1.0"),
    ("5.3", ({"temperature": 1.0, "top_k": 1}, GREEDY), "first way"),
    ("5.3", (GREEDY, {"temperature": 1.0, "topk": 1}), "topk"),
    ("5.3", GREEDY, "as a pair"),
    ("5.3", (GREEDY, {"temperature": 1.0, "top_k": 0}), "ValueError"),
]


# 5.4


def one_more_epoch(path, model, optimizer, train_loader):
    progress, _ = load_checkpoint(path, model, optimizer)
    for _ in training_steps(model, train_loader, optimizer, CPU, progress.epoch + 1, progress=progress):
        pass
    return model


def variant(load_optimizer=True, epochs=None, draws=False, returns=lambda model: model):
    def answer(path, model, optimizer, train_loader):
        progress, _ = load_checkpoint(path, model, optimizer if load_optimizer else None)
        if draws:
            torch.rand(3)
        count = progress.epoch + 1 if epochs is None else epochs(progress.epoch)
        for _ in training_steps(model, train_loader, optimizer, CPU, count, progress=progress):
            pass
        return returns(model)

    return answer


RIGHT += [("5.4", one_more_epoch)]


def from_the_start(path, model, optimizer, train_loader):
    progress, _ = load_checkpoint(path, model, optimizer)
    for _ in training_steps(model, train_loader, optimizer, CPU, progress.epoch + 1):
        pass
    return model


WRONG += [
    ("5.4", lambda path, model, optimizer, loader: model, "as it was handed to you"),
    ("5.4", variant(epochs=lambda done: 1), "no update was made"),
    ("5.4", variant(load_optimizer=False), "averages"),
    ("5.4", variant(epochs=lambda done: done + 2), "updates since the beginning"),
    ("5.4", from_the_start, "updates since the beginning"),
    ("5.4", variant(draws=True), "random"),
    ("5.4", variant(returns=lambda model: model.state_dict()), "return the model"),
    ("5.4", lambda path, model, optimizer, loader: load_checkpoint(path, model) and model, "no update was made"),
]


# 5.5


@pytest.fixture(scope="module")
def small():
    generator = torch.Generator().manual_seed(5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(55)
        model = GPTModel(gpt_config("124M", vocab_size=40, context_length=8, emb_dim=16, n_heads=2, n_layers=1))
    ids = torch.randint(0, 40, (14, 9), generator=generator)
    loaders = [DataLoader(TensorDataset(part[:, :-1], part[:, 1:]), batch_size=2) for part in (ids[:10], ids[10:])]
    with torch.no_grad():
        losses = tuple(calc_loss_loader(loader, model.eval(), CPU) for loader in loaders)
    return model, loaders, losses


def test_5_5_right(small):
    model, loaders, losses = small
    model.train()
    checkers.accepts("5.5", losses, model, *loaders)
    assert model.training  # as it was
    assert checks.exercise_5_5(None, model, *loaders).passed is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a, b: (b, a), "wrong order"),
        (lambda a, b: (math.exp(a), math.exp(b)), "perplexities"),
        (lambda a, b: (a, 0.9 * b), "validation loss is off by 10%"),
        (lambda a, b: (1.2 * a, b), "training loss is off by 20%"),
        (lambda a, b: (a,), "Two numbers"),
        (lambda a, b: "low", "Two numbers"),
    ],
)
def test_5_5_wrong(small, change, word):
    model, loaders, losses = small
    verdict = checks.exercise_5_5(change(*losses), model, *loaders)
    fails(verdict, word)
    assert f"{losses[0]:.2f}" not in verdict.message


def test_5_5_a_model_that_cannot_read_the_loaders(small):
    _, loaders, losses = small
    fails(checks.exercise_5_5(losses, torch.nn.Linear(2, 2), *loaders), "Your answer stopped with")


# 5.6


def config_from(settings, **changes):
    names = {"vocab_size": "n_vocab", "context_length": "n_ctx", "emb_dim": "n_embd"}
    names |= {"n_heads": "n_head", "n_layers": "n_layer"}
    return {ours: settings[theirs] for ours, theirs in names.items()} | {"drop_rate": 0.1, "qkv_bias": True} | changes


RIGHT += [("5.6", config_from), ("5.6", lambda settings: config_from(settings, drop_rate=0.0))]

WRONG += [
    ("5.6", lambda s: config_from(s, qkv_bias=False), "biases"),
    ("5.6", lambda s: config_from(s, context_length=256), "context_length is 256"),
    ("5.6", lambda s: {**config_from(s), "n_embd": 3}, "n_embd"),
    ("5.6", lambda s: {k: v for k, v in config_from(s).items() if k != "drop_rate"}, "lacks drop_rate"),
    ("5.6", lambda s: config_from(s, n_heads=s["n_layer"], n_layers=s["n_head"]), "n_heads"),
    ("5.6", lambda s: list(s), "dictionary"),
    ("5.6", lambda s: config_from(s, drop_rate=None), "dropout rate"),
    (
        "5.6",
        lambda s: gpt_config(
            next((k for k, v in GPT_SIZES.items() if v["emb_dim"] == s["n_embd"]), "124M"), qkv_bias=True
        ),
        "no published size",
    ),
]


# 5.7


def nucleus(probabilities, p, crossing=True):
    ordered, order = probabilities.sort(descending=True)
    keep = torch.zeros(len(order), dtype=torch.bool)
    total = ordered.cumsum(0)
    keep[order] = total - ordered < p if crossing else total <= p
    return keep


RIGHT += [("5.7", nucleus)]

WRONG += [
    ("5.7", lambda q, p: nucleus(q, p, crossing=False), "crosses"),
    ("5.7", lambda q, p: nucleus(q.sort(descending=True).values, p), "order of the input"),
    ("5.7", lambda q, p: ~nucleus(q, p), "other way round"),
    ("5.7", lambda q, p: q >= p, "compare each"),
    ("5.7", lambda q, p: q.cumsum(0) - q < p, "likeliest"),
    ("5.7", lambda q, p: q[nucleus(q, p)], "One truth value"),
    ("5.7", lambda q, p: nucleus(q, p).float(), "Truth values"),
    ("5.7", lambda q, p: torch.ones(len(q), dtype=torch.bool), "Expected"),
]

GIVEAWAYS = {"5.1": ["42.9"], "5.3": ["top_k=1"], "5.4": ["progress.epoch + 1"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))
