"""The checkers of chapter 5: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers import GPT_SIZES, GPTModel, calc_loss_loader, checks, gpt_config, load_checkpoint, training_steps
from helpers.course.checks import ch05
from helpers.course.figures import ch05 as figures
from tests.checkers import fails

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 6, 7])
def test_no_answer_is_no_failure(number):
    assert getattr(checks, f"exercise_5_{number}")(None).passed is None
    assert checks.EXERCISES[f"5.{number}"](...).passed is None


@pytest.mark.parametrize("number", [0, 1, 4, 6, 7])
def test_a_value_in_place_of_a_function(number):
    fails(getattr(checks, f"exercise_5_{number}")(3), "function itself")


# 5.0


def test_5_0_right():
    state = torch.get_rng_state()
    assert checks.exercise_5_0(lambda p: torch.exp(-p.log().mean()))
    assert checks.exercise_5_0(lambda p: math.exp(-sum(map(math.log, p.flatten().tolist())) / p.numel()))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda p: -p.log().mean(), "That is the loss"),
        (lambda p: p.log().mean(), "mean logarithm"),
        (lambda p: p.log().mean().exp(), "sign"),
        (lambda p: 1 / p.mean(), "averaged"),
        (lambda p: (-p.log().sum()).exp(), "take the mean"),
        (lambda p: 2 ** (-p.log().mean()), "natural"),
        (lambda p: p.double().prod() ** (-1 / p.numel()), "vanishes"),
        (lambda p: p, "One number"),
        (lambda p: None, "return"),
        (lambda p: 5.0, "expected"),
    ],
)
def test_5_0_wrong(wrong, word):
    fails(checks.exercise_5_0(wrong), word)


# 5.1


def test_5_1_right():
    state = torch.get_rng_state()
    verdict = checks.exercise_5_1(lambda logits, t, n: n * torch.softmax(logits / t, 0))
    assert verdict and "42.9" in verdict.message
    assert torch.equal(state, torch.get_rng_state())


def drawing(logits, temperature, draws):
    drawn = torch.multinomial(torch.softmax(logits / temperature, 0), draws, replacement=True)
    return torch.bincount(drawn, minlength=len(logits))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (drawing, "still drawing"),
        (lambda logits, t, n: (n * torch.softmax(logits / t, 0)).round(), "whole"),
        (lambda logits, t, n: torch.softmax(logits / t, 0), "probabilities"),
        (lambda logits, t, n: n * torch.softmax(logits, 0), "no effect"),
        (lambda logits, t, n: n * torch.softmax(logits * t, 0), "flatten"),
        (lambda logits, t, n: n * torch.softmax(logits, 0) / t, "before the softmax"),
        (lambda logits, t, n: None, "return"),
        (lambda logits, t, n: torch.zeros(2), "shape"),
    ],
)
def test_5_1_wrong(wrong, word):
    verdict = checks.exercise_5_1(wrong)
    fails(verdict, word)
    assert "42.9" not in verdict.message


# 5.2

RIGHT = {"contract": "A", "story": "B", "names": "C", "test": "A"}


def test_5_2_right():
    assert checks.exercise_5_2(RIGHT)
    assert checks.exercise_5_2({job.upper(): letter.lower() for job, letter in RIGHT.items()})


@pytest.mark.parametrize("job", RIGHT)
@pytest.mark.parametrize("letter", ["A", "B", "C"])
def test_5_2_every_single_slip_is_explained(job, letter):
    verdict = checks.exercise_5_2({**RIGHT, job: letter})
    if letter == RIGHT[job]:
        assert verdict
    else:
        fails(verdict, job, "3 of 4")
        assert not any(f"{name}: {right}" in verdict.message for name, right in RIGHT.items())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [("ABCA", "dictionary"), ({"contract": "A"}, "story"), ({**RIGHT, "names": "D"}, "'D'")],
)
def test_5_2_wrong(wrong, word):
    fails(checks.exercise_5_2(wrong), word)


# 5.3

GREEDY = {"temperature": 0.0}


@pytest.mark.parametrize("second", [{"top_k": 1}, {"seed": 5}, {"top_p": 1e-6}, {"top_k": 1, "seed": 3}])
def test_5_3_right(second):
    state = torch.get_rng_state()
    assert checks.exercise_5_3((GREEDY, {"temperature": 1.0, **second}))
    assert checks.exercise_5_3([{}, {"temperature": 1, **second}])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ((GREEDY, {"temperature": 1.0}), "different texts"),
        ((GREEDY, {"temperature": 1.0, "top_k": 2}), "way 2"),
        ((GREEDY, {"temperature": 1.0, "top_p": 0.5}), "different texts"),
        ((GREEDY, GREEDY), "second way should have temperature 1.0"),
        (({"temperature": 1.0, "top_k": 1}, GREEDY), "first way"),
        ((GREEDY, {"temperature": 1.0, "topk": 1}), "topk"),
        (GREEDY, "as a pair"),
        ((GREEDY, {"temperature": 1.0, "top_k": 0}), "ValueError"),
    ],
)
def test_5_3_wrong(wrong, word):
    verdict = checks.exercise_5_3(wrong)
    fails(verdict, word)
    assert "top_k=1" not in verdict.message


# 5.4


def one_more_epoch(path, model, optimizer, train_loader):
    progress, _ = load_checkpoint(path, model, optimizer)
    for _ in training_steps(model, train_loader, optimizer, CPU, progress.epoch + 1, progress=progress):
        pass
    return model


def variant(load_optimizer=True, epochs=None, draws=False, shout=True):
    def answer(path, model, optimizer, train_loader):
        progress, _ = load_checkpoint(path, model, optimizer if load_optimizer else None)
        if draws:
            torch.rand(3)
        count = progress.epoch + 1 if epochs is None else epochs(progress.epoch)
        for _ in training_steps(model, train_loader, optimizer, CPU, count, progress=progress):
            pass
        return model if shout else None

    return answer


def test_5_4_right():
    state = torch.get_rng_state()
    assert checks.exercise_5_4(one_more_epoch)
    assert torch.equal(state, torch.get_rng_state())


def from_the_start(path, model, optimizer, train_loader):
    progress, _ = load_checkpoint(path, model, optimizer)
    for _ in training_steps(model, train_loader, optimizer, CPU, progress.epoch + 1):
        pass
    return model


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda path, model, optimizer, loader: model, "as it was handed to you"),
        (variant(epochs=lambda done: 1), "no update was made"),
        (variant(load_optimizer=False), "averages"),
        (variant(epochs=lambda done: done + 2), "updates since the beginning"),
        (from_the_start, "updates since the beginning"),
        (variant(draws=True), "random"),
        (variant(shout=False), "return the model"),
        (lambda path, model, optimizer, loader: load_checkpoint(path, model) and model, "no update was made"),
    ],
)
def test_5_4_wrong(wrong, word):
    verdict = checks.exercise_5_4(wrong)
    fails(verdict, word)
    assert "progress.epoch + 1" not in verdict.message


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
    assert checks.exercise_5_5(losses, model, *loaders)
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
        (lambda a, b: "low", "two numbers"),
    ],
)
def test_5_5_wrong(small, change, word):
    model, loaders, losses = small
    verdict = checks.exercise_5_5(change(*losses), model, *loaders)
    fails(verdict, word)
    assert f"{losses[0]:.2f}" not in verdict.message


# 5.6


def config_from(settings, **changes):
    names = {"vocab_size": "n_vocab", "context_length": "n_ctx", "emb_dim": "n_embd"}
    names |= {"n_heads": "n_head", "n_layers": "n_layer"}
    return {ours: settings[theirs] for ours, theirs in names.items()} | {"drop_rate": 0.1, "qkv_bias": True} | changes


def test_5_6_right():
    assert checks.exercise_5_6(config_from)
    assert checks.exercise_5_6(lambda settings: config_from(settings, drop_rate=0.0))


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda s: config_from(s, qkv_bias=False), "biases"),
        (lambda s: config_from(s, context_length=256), "context_length is 256"),
        (lambda s: {**config_from(s), "n_embd": 3}, "n_embd"),
        (lambda s: {k: v for k, v in config_from(s).items() if k != "drop_rate"}, "lacks drop_rate"),
        (lambda s: config_from(s, n_heads=s["n_layer"], n_layers=s["n_head"]), "n_heads"),
        (lambda s: list(s), "dictionary"),
        (lambda s: config_from(s, drop_rate=None), "dropout rate"),
        (
            lambda s: gpt_config(
                next((k for k, v in GPT_SIZES.items() if v["emb_dim"] == s["n_embd"]), "124M"), qkv_bias=True
            ),
            "no published size",
        ),
    ],
)
def test_5_6_wrong(wrong, word):
    fails(checks.exercise_5_6(wrong), word)


# 5.7


def nucleus(probabilities, p, crossing=True):
    ordered, order = probabilities.sort(descending=True)
    keep = torch.zeros(len(order), dtype=torch.bool)
    total = ordered.cumsum(0)
    keep[order] = total - ordered < p if crossing else total <= p
    return keep


def test_5_7_right():
    state = torch.get_rng_state()
    assert checks.exercise_5_7(nucleus)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (lambda q, p: nucleus(q, p, crossing=False), "crosses"),
        (lambda q, p: nucleus(q.sort(descending=True).values, p), "order of the input"),
        (lambda q, p: ~nucleus(q, p), "other way round"),
        (lambda q, p: q >= p, "compare each"),
        (lambda q, p: q.cumsum(0) - q < p, "likeliest"),
        (lambda q, p: q[nucleus(q, p)], "One truth value"),
        (lambda q, p: nucleus(q, p).float(), "Truth values"),
        (lambda q, p: None, "return"),
        (lambda q, p: torch.ones(len(q), dtype=torch.bool), "Expected"),
    ],
)
def test_5_7_wrong(wrong, word):
    fails(checks.exercise_5_7(wrong), word)


# The self-test and the figures


def test_every_option_of_the_self_test_is_explained():
    for question in ch05._QUESTIONS:
        assert list(question.options) == ["a", "b", "c"]
        assert sum(right for right, _ in question.options.values()) == 1
        assert all(len(why.split()) > 8 for _, why in question.options.values())


def test_self_test_is_graded():
    right = [next(k for k, (ok, _) in q.options.items() if ok) for q in ch05._QUESTIONS]
    assert checks.self_test_5(*right)
    assert checks.self_test_5().passed is None
    for letters in itertools.product("abc", repeat=2):
        assert checks.self_test_5(*letters, *right[2:]).passed is (list(letters) == right[:2])


def test_the_cut_keeps_what_choose_next_draws_from():
    from helpers import choose_next
    from helpers.course.plots import png

    logits = torch.randn(30, generator=torch.Generator().manual_seed(8)) * 2
    for options in ({"top_k": 4}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.5}, {}):
        fig = figures.cut([str(n) for n in range(30)], logits, 1.3, **options)
        title = fig.axes[0].get_title()
        png(fig)  # draws and closes it
        rows = logits.expand(6000, -1)
        drawn = choose_next(rows, temperature=1.3, generator=torch.Generator().manual_seed(1), **options)
        kept = int(title.split(": ")[1].split(" of ")[0])
        seen = len(drawn.unique())
        assert seen <= kept and (seen == kept or not options)
