"""The checkers of chapter 5: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import copy
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from helpers import (
    GPT_CONFIG_124M,
    GPTModel,
    calc_loss_batch,
    calc_loss_loader,
    checks,
    evaluate_model,
    evaluation_mode,
    gpt_config,
    load_checkpoint,
    training_steps,
)
from tests import checkers
from tests.checkers import fails

CPU = torch.device("cpu")


RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# 5.A


def text_losses(model, ids, context, stride, new_only=True, whole_only=False):
    """The losses that each window scores."""
    parts, end, start = [], 0, 0
    while end < len(ids) - 1:
        window = ids[start : start + context + 1]
        losses = F.cross_entropy(model(window[None, :-1])[0], window[1:], reduction="none")
        if len(losses) == context or not whole_only:
            parts.append(losses[end - start :] if new_only else losses)
        end = start + len(losses)
        start += stride
    return parts


def text_perplexity(model, ids, context, stride):
    return torch.cat(text_losses(model, ids, context, stride)).mean().exp().item()


def text_perplexity_token_by_token(model, ids, context, stride):
    total, ids = 0.0, ids.tolist()
    for place in range(1, len(ids)):
        late = max(0, place - context)  # the first window that reaches this token
        start = -(-late // stride) * stride
        logits = model(torch.tensor([ids[start:place]]))[0, -1]
        total += math.log(torch.softmax(logits.double(), 0)[ids[place]])
    return np.exp(-total / (len(ids) - 1))


RIGHT += [
    ("5.A", text_perplexity),
    ("5.A", text_perplexity_token_by_token),
    ("5.A", lambda model, ids, context, stride: torch.tensor([text_perplexity(model, ids, context, stride)])),
]


def in_place(model, ids, context, stride):
    perplexity = text_perplexity(model, ids, context, stride)
    ids[0] = 0
    return perplexity


WRONG += [
    ("5.A", lambda *a: math.log(text_perplexity(*a)), "That is the loss"),
    ("5.A", lambda *a: torch.cat(text_losses(*a, new_only=False)).mean().exp(), "scored twice"),
    ("5.A", lambda model, ids, context, stride: text_perplexity(model, ids, context, context), "do not overlap"),
    ("5.A", lambda *a: torch.stack([p.mean() for p in text_losses(*a)]).mean().exp(), "average windows"),
    ("5.A", lambda *a: torch.stack([p.mean().exp() for p in text_losses(*a)]).mean(), "average perplexities"),
    ("5.A", lambda model, ids, context, stride: text_perplexity(model, ids, context + 1, stride), "is the limit"),
    ("5.A", lambda model, ids, context, stride: text_perplexity(model, ids[1:], context, stride), "targets"),
    ("5.A", lambda *a: 5.0, "targets"),
    ("5.A", lambda model, ids, context, stride: ids, "must be one number"),
    ("5.A", lambda model, ids, context, stride: model(ids), "(B, T)"),
    ("5.A", in_place, "changed the ids"),
]


def test_5_a_names_tokens_that_are_left_out_at_the_end_and_at_the_beginning():
    def without_end(model, ids, context, stride):
        return torch.cat(text_losses(model, ids, context, min(stride, len(ids) - 1), whole_only=True)).mean().exp()

    def without_beginning(*a):
        first, *rest = text_losses(*a)
        return torch.cat([first[-a[3] :], *rest]).mean().exp()

    for answer in (without_end, without_beginning):
        assert checks.exercise_5_a(answer).passed is False


# 5.B


def train_until_best(
    model,
    train,
    val,
    optimizer,
    max_epochs,
    patience,
    copies=True,
    back=True,
    evaluating=True,
    late=0,
    batches=None,
    both=False,
):
    losses, best, since = [], None, 0
    model.train()
    for _ in range(max_epochs):
        if back:
            model.train()
        for inputs, targets in train:
            optimizer.zero_grad()
            calc_loss_batch(inputs, targets, model, CPU).backward()
            optimizer.step()
        if evaluating:
            model.eval()
        with torch.no_grad():
            losses.append(calc_loss_loader(val, model, CPU, batches))
        if both:  # the chapter's own function evaluates the training texts too
            losses[-1] = evaluate_model(model, train, val, CPU, None)[1]
        since += 1
        if losses[-1] == min(losses):
            best, since = copy.deepcopy(model.state_dict()) if copies else model.state_dict(), 0
        if since >= patience + late:
            break
    model.load_state_dict(best)
    return losses


def until_best(**changes):
    return lambda *given: train_until_best(*given, **changes)


def with_evaluation_mode(model, train, val, optimizer, max_epochs, patience):
    best_loss, best, losses = math.inf, {}, []
    while len(losses) < max_epochs:
        for inputs, targets in train:
            model.zero_grad(set_to_none=False)
            F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
        with evaluation_mode(model):
            losses.append(sum(calc_loss_batch(x, y, model, CPU).item() for x, y in val) / len(val))
        if losses[-1] < best_loss:
            best_loss, best = losses[-1], {name: weight.clone() for name, weight in model.state_dict().items()}
        if min(losses[-patience:]) > best_loss:
            break
    model.load_state_dict(best)
    return tuple(losses)


RIGHT += [
    ("5.B", train_until_best),
    ("5.B", with_evaluation_mode),
    ("5.B", lambda *given: np.array(train_until_best(*given))),
    ("5.B", until_best(both=True)),
]


def no_zero_grad(model, train, val, optimizer, max_epochs, patience):
    optimizer.zero_grad = lambda: None
    return train_until_best(model, train, val, optimizer, max_epochs, patience)


WRONG += [
    ("5.B", until_best(copies=False), "copies"),
    ("5.B", until_best(evaluating=False), "training mode"),
    ("5.B", until_best(back=False), "back into training mode"),
    ("5.B", until_best(late=1), "at which number"),
    ("5.B", until_best(late=-1), "at which number"),
    ("5.B", until_best(batches=1), "not as expected"),
    ("5.B", no_zero_grad, "not as expected"),
    ("5.B", lambda model, train, val, optimizer, *_: [1.0], "No batch of train_loader"),
    ("5.B", lambda *given: train_until_best(*given)[-1], "epochs"),
    ("5.B", lambda *given: str(train_until_best(*given)), "A list of losses"),
]

# 5.1


def temperature_for(logits, word, count, draws):
    low, high = 1e-3, 1e4
    for _ in range(100):
        middle = math.sqrt(low * high)
        if draws * torch.softmax(logits / middle, dim=0)[word] < count:
            low = middle
        else:
            high = middle
    return low


def on_a_grid(logits, word, count, draws):
    temperatures = torch.logspace(-1, 3, 8000)
    counts = draws * torch.softmax(logits / temperatures[:, None], dim=1)[:, word]
    return temperatures[(counts - count).abs().argmin()]


RIGHT += [
    ("5.1", temperature_for),
    ("5.1", on_a_grid),
    ("5.1", lambda *given: np.float32(temperature_for(*given))),
]


def test_5_1_quotes_what_is_expected_of_pizza():
    assert "42.9" in checks.exercise_5_1(temperature_for).message


def drawing(logits, word, count, draws):
    best, nearest = 1.0, math.inf
    for temperature in (0.5, 1.0, 2.0, 4.0, 8.0):
        drawn = torch.multinomial(torch.softmax(logits / temperature, 0), 50, replacement=True)
        gap = abs((drawn == word).sum().item() - 50 * count / draws)
        best, nearest = (temperature + 0.001 * torch.rand(()).item(), gap) if gap < nearest else (best, nearest)
    return best


WRONG += [
    ("5.1", drawing, "drawing"),
    ("5.1", lambda *given: 1 / temperature_for(*given), "inverse"),
    ("5.1", lambda logits, word, count, n: n * torch.softmax(logits, 0)[word] / count, "before the softmax"),
    ("5.1", lambda logits, word, count, draws: 5.0, "on average"),
    ("5.1", lambda logits, word, count, draws: temperature_for(logits, word, count + 20, draws), "on average"),
    ("5.1", lambda logits, word, count, draws: 0, "above 0"),
    ("5.1", lambda logits, word, count, draws: logits, "A temperature must be one number"),
]


# 5.C


def nucleus(probabilities, p, crossing=True):
    ordered, order = probabilities.sort(descending=True)
    keep = torch.zeros(len(order), dtype=torch.bool)
    total = ordered.cumsum(0)
    keep[order] = total - ordered < p if crossing else total <= p
    return keep


def nucleus_by_loop(probabilities, p):
    keep, total = [False] * len(probabilities), 0.0
    while total < p and not all(keep):
        place = max((i for i in range(len(keep)) if not keep[i]), key=lambda i: float(probabilities[i]))
        keep[place], total = True, total + float(probabilities[place])
    return keep


def decided(decide, back=True):
    def answer(probabilities, p):
        ordered, order = probabilities.sort(descending=True)
        decisions = decide(ordered, ordered.cumsum(0), p)
        keep = torch.zeros(len(order), dtype=torch.bool)
        keep[order] = decisions
        return keep if back else decisions[order]

    return answer


RIGHT += [
    ("5.C", nucleus),
    ("5.C", nucleus_by_loop),
    ("5.C", lambda probabilities, p: nucleus(probabilities, p).numpy()),
]


def zeroes(probabilities, p):
    keep = nucleus(probabilities, p)
    probabilities[~keep] = 0
    return keep


WRONG += [
    ("5.C", lambda q, p: nucleus(q, p, crossing=False), "crosses"),
    ("5.C", lambda q, p: nucleus(q.sort(descending=True).values, p), "order of the input"),
    ("5.C", decided(lambda ordered, total, p: total - ordered < p, back=False), "the wrong way"),
    ("5.C", decided(lambda ordered, total, p: total - ordered <= p), "exactly p"),
    ("5.C", decided(lambda ordered, total, p: total == total[0]), "most probable token only"),
    ("5.C", lambda q, p: ~nucleus(q, p), "other way round"),
    ("5.C", lambda q, p: q >= p, "compare each"),
    ("5.C", lambda q, p: q.cumsum(0) - q < p, "begin with the most probable"),
    ("5.C", lambda q, p: q[nucleus(q, p)], "One truth value"),
    ("5.C", lambda q, p: nucleus(q, p).float(), "Truth values"),
    ("5.C", lambda q, p: torch.ones(len(q), dtype=torch.bool), "expected"),
    ("5.C", zeroes, "changed the probabilities"),
]

# 5.2

SAMPLES = {0.5: [[1, 2, 3, 1, 2, 3, 1], [1, 2, 3, 4, 5, 6, 7]], 1.0: [[*range(50), 7, 8, 9], [*range(9)]]}
SAMPLES |= {0.0: [[1, 2, 3] * 4], 1.5: [list(range(20))]}


def grams_of(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def repeated_share(tokens, n):
    seen, repeated = set(), 0
    grams = grams_of(tokens, n)
    for gram in grams:
        repeated += gram in seen
        seen.add(gram)
    return repeated / len(grams) if grams else 0.0


def by_counting(tokens, n):
    counts = Counter(grams_of(tokens, n))
    return Fraction(sum(counts.values()) - len(counts), max(1, sum(counts.values())))


def by_text(tokens, n):
    grams = [" ".join(map(str, gram)) for gram in grams_of(tokens, n)]
    return torch.tensor([gram in grams[:i] for i, gram in enumerate(grams)]).float().mean().nan_to_num()


def overlapping(tokens, n, step=1, count=lambda grams: len(grams)):
    grams = grams_of(tokens, n)[::step]
    return (len(grams) - len(set(grams))) / max(1, count(grams))


@pytest.mark.parametrize("answer", [repeated_share, by_counting, by_text])
def test_5_2_right(answer):
    checkers.accepts("5.2", answer, 1.0, SAMPLES)
    checkers.accepts("5.2", answer, np.float64(1), SAMPLES)


@pytest.mark.parametrize(
    ("answer", "lowest", "word"),
    [
        (lambda tokens, n: 1 - repeated_share(tokens, n), 1.0, "are new"),
        (
            lambda tokens, n: (
                sum(grams_of(tokens, n).count(gram) > 1 for gram in grams_of(tokens, n))
                / max(1, len(grams_of(tokens, n)))
            ),
            1.0,
            "first occurrence",
        ),
        (
            lambda tokens, n: (
                sum(count > 1 for count in Counter(grams_of(tokens, n)).values())
                / max(1, len(Counter(grams_of(tokens, n))))
            ),
            1.0,
            "count places",
        ),
        (lambda tokens, n: overlapping(tokens, n, count=lambda grams: len(tokens)), 1.0, "divide by the number"),
        (lambda tokens, n: overlapping(tokens, n, step=n), 1.0, "do not overlap"),
        (lambda tokens, n: 100 * repeated_share(tokens, n), 1.0, "not percent"),
        (
            lambda tokens, n: (len(grams_of(tokens, n)) - len(set(grams_of(tokens, n)))) / len(grams_of(tokens, n)),
            1.0,
            "shorter than n",
        ),
        (lambda tokens, n: repeated_share(tokens, 2), 1.0, "expected"),
        (lambda tokens, n: print(end=""), 1.0, "returned nothing"),
        (repeated_share, 0.5, "on average over the samples"),
        (repeated_share, 0.0, "on average over the samples"),
        (repeated_share, 1.5, "at a lower one as well"),
        (repeated_share, 0.7, "none of"),
        (repeated_share, "1.0", "The temperature must be one number"),
        ({0.5: 0.3}, 1.0, "the function repeated_share itself"),
    ],
)
def test_5_2_wrong(answer, lowest, word):
    fails(checks.exercise_5_2(answer, lowest, SAMPLES), word)


def test_5_2_without_an_answer():
    def repeated_share(tokens, n): ...

    assert checks.exercise_5_2(repeated_share, None, SAMPLES).passed is None
    assert checks.exercise_5_2(repeated_share, 1.0, SAMPLES).passed is None


def test_5_2_the_function_alone():
    fails(checks.exercise_5_2(repeated_share), "Your function is right")
    fails(checks.exercise_5_2(torch.nn.Linear(2, 2)), "Your answer stopped with")


# 5.3

GREEDY = {"temperature": 0.0}


for second in ({"top_k": 1}, {"seed": 5}, {"top_p": 1e-6}, {"top_k": 50, "seed": 3}):
    RIGHT += [("5.3", (GREEDY, {"temperature": 1.0, **second})), ("5.3", [{}, {"temperature": 1, **second}])]
RIGHT += [("5.3", ({"temperature": 0.0, "top_k": 25}, {"temperature": 1.0, "top_k": 1, "seed": 3}))]

WRONG += [
    ("5.3", (GREEDY, {"temperature": 1.0}), "different texts"),
    ("5.3", (GREEDY, {"temperature": 1.0, "top_k": 2}), "way 2"),
    ("5.3", (GREEDY, {"temperature": 1.0, "top_p": 0.5}), "different texts"),
    ("5.3", (GREEDY, {"temperature": 1.0, "top_p": 0.01}), "different texts"),
    ("5.3", (GREEDY, {"temperature": 1.0, "top_p": 0.04}), "different texts"),
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


def by_counting_updates(path, model, optimizer, train_loader):
    progress, _ = load_checkpoint(path, model, optimizer)
    until = progress.step + len(train_loader)
    for after in training_steps(model, train_loader, optimizer, torch.device("cpu"), 1000, progress=progress):
        if after.step == until:
            return model


def with_list(path, model, optimizer, train_loader):
    start = load_checkpoint(path, model, optimizer)[0]
    list(training_steps(model, train_loader, optimizer, CPU, num_epochs=start.epoch + 1, progress=start))
    return model


RIGHT += [("5.4", one_more_epoch), ("5.4", by_counting_updates), ("5.4", with_list)]


def test_5_4_shows_no_progress_bar(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    assert checks.exercise_5_4(one_more_epoch)
    assert capsys.readouterr().err == ""


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


@pytest.mark.parametrize("form", [tuple, list, np.array, torch.tensor])
def test_5_5_right(small, form):
    model, loaders, losses = small
    model.train()
    checkers.accepts("5.5", form(losses), model, *loaders)
    assert model.training  # as it was
    assert checks.exercise_5_5(None, model, *loaders).passed is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a, b: (b, a), "wrong order"),
        (lambda a, b: (math.exp(a), math.exp(b)), "perplexities"),
        (lambda a, b: (a, 0.9 * b), "validation loss is off by 10.0%"),
        (lambda a, b: (1.2 * a, b), "training loss is off by 20.0%"),
        (lambda a, b: (1.002 * a, b), "training loss is off by 0.2%"),
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


def config_from(params, **changes):
    sizes = {
        "vocab_size": len(params["wte"]),
        "context_length": len(params["wpe"]),
        "emb_dim": params["wte"].shape[1],
        "n_heads": params["wte"].shape[1] // 64,
        "n_layers": len(params["blocks"]),
    }
    return sizes | {"drop_rate": 0.1, "qkv_bias": True} | changes


def from_attention(params):
    attention = params["blocks"][-1]["attn"]
    width, positions = attention["c_proj"]["w"].shape[0], params["wpe"].shape[0]
    sizes = {"vocab_size": np.int64(params["wte"].shape[0]), "context_length": positions, "emb_dim": width}
    sizes |= {"n_heads": attention["c_attn"]["b"].numel() // 192, "n_layers": len(params["blocks"]), "drop_rate": 0}
    return sizes | {"qkv_bias": "b" in attention["c_attn"]}


RIGHT += [
    ("5.6", config_from),
    ("5.6", from_attention),
    ("5.6", lambda params: {**GPT_CONFIG_124M, **config_from(params, drop_rate=0.0)}),
]

WRONG += [
    ("5.6", lambda p: config_from(p, qkv_bias=False), "biases"),
    ("5.6", lambda p: config_from(p, context_length=256), "context_length is 256"),
    ("5.6", lambda p: {**config_from(p), "n_embd": 3}, "n_embd"),
    ("5.6", lambda p: {k: v for k, v in config_from(p).items() if k != "drop_rate"}, "lacks drop_rate"),
    ("5.6", lambda p: config_from(p, n_heads=len(p["blocks"])), "number of blocks"),
    ("5.6", lambda p: config_from(p, n_heads=12), "n_heads is 12"),
    ("5.6", lambda p: config_from(p, emb_dim=p["blocks"][0]["attn"]["c_attn"]["w"].shape[1]), "side by side"),
    ("5.6", lambda p: config_from(p, vocab_size=len(p["wpe"]), context_length=len(p["wte"])), "vocab_size is 1024"),
    ("5.6", lambda p: config_from(p, vocab_size=50257), "vocab_size is 50257"),
    ("5.6", list, "dictionary"),
    ("5.6", lambda p: config_from(p, drop_rate=None), "dropout rate"),
    ("5.6", lambda p: config_from(p, n_layers=None), "n_layers must be one number"),
]

GIVEAWAYS = {"5.1": ["42.9"], "5.3": ["top_k=1"], "5.4": ["progress.epoch + 1"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))
