"""Appendix A's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import json
import math
import sys
from types import MappingProxyType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers import checks
from tests import checkers

HERE = sys.version.split()[0]
TORCH = str(torch.__version__)


RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# A.1


RIGHT += [("A.1", f"{HERE} {TORCH}"), ("A.1", f"  {HERE} {TORCH}\n"), ("A.1", f"'{HERE} {TORCH}'")]
RIGHT += [("A.1", [f"{HERE} {TORCH}"])]  # what `line = !python -c ...` gives

WRONG += [
    ("A.1", f"3.6.1 {TORCH}", "terminal's Python is 3.6.1"),
    ("A.1", f"{HERE} 1.0.0", "PyTorch 1.0.0"),
    ("A.1", HERE, "Two versions"),
    ("A.1", "ModuleNotFoundError: No module named 'torch'", "has no PyTorch"),
    ("A.1", 2.13, "as a string"),
]


# A.2


def report(**changes):
    whole = {"python": [{"version": ".".join(map(str, sys.version_info[:3]))}], "packages": [], "devices": []}
    return {**whole, "data": [], "ready": True, "summary": "Ready", **changes}


RIGHT += [("A.2", report()), ("A.2", json.dumps(report(), indent=2) + "\n")]
RIGHT += [("A.2", MappingProxyType(report()))]


def test_a_2_the_real_report():
    import setup_check

    whole = setup_check.collect("quick")
    verdict = checks.exercise_a_2(json.dumps(whole))
    assert verdict.passed is whole["ready"]
    assert whole["ready"] or whole["summary"] in verdict.message


WRONG += [
    ("A.2", report(ready=False, summary="Not ready: torch missing."), "found something. Not ready: torch missing."),
    ("A.2", report(python=[{"version": "3.6.1"}]), "Python 3.6.1"),
    ("A.2", report(python=[]), "nothing about Python"),
    ("A.2", {"ready": True}, "not a report of setup_check.py: it has no 'python', 'packages'"),
    ("A.2", "Ready (1 to note): `make lab` opens the course", "--json"),
    ("A.2", json.dumps(report())[:40], "complete"),
    ("A.2", "", "--json"),
    ("A.2", 0, "not int"),
]


# A.3


RIGHT += [("A.3", 752), ("A.3", np.int64(752)), ("A.3", torch.tensor(752))]

WRONG += [
    ("A.3", 700, "weights"),
    ("A.3", 52, "biases alone"),
    ("A.3", 2213, "NeuralNetwork(50, 3)"),
    ("A.3", 6, "number of tensors"),
    ("A.3", 600, "one matrix"),
    ("A.3", 753, "Not yet"),
    ("A.3", 752.0, "not float"),
    ("A.3", True, "not bool"),
]


# A.4


def winning(cpu, gpu, bus, launch, operations=2, moved=12, most=20_000):
    for n in range(1, most + 1):
        if launch + moved * n**2 / bus + operations * n**3 / gpu < operations * n**3 / cpu:
            return n
    return None


def winning_at_once(cpu, gpu, bus, launch):
    n = np.arange(1, 20_001, dtype=np.float64)
    wins = launch + 12 * n**2 / bus + 2 * n**3 / gpu < 2 * n**3 / cpu
    return wins.argmax() + 1 if wins.any() else None


RIGHT += [("A.4", winning), ("A.4", winning_at_once), ("A.4", lambda *machine: winning(*map(np.float64, machine)))]

WRONG += [
    ("A.4", lambda *machine: winning(*machine, operations=1), "2n³"),
    ("A.4", lambda *machine: winning(*machine, moved=8), "fewer"),
    ("A.4", lambda *machine: winning(*machine, moved=4), "moved one"),
    ("A.4", lambda *machine: winning(*machine, moved=16), "moved more"),
    ("A.4", lambda *machine: winning(*machine, moved=3), "4 bytes"),
    ("A.4", lambda *machine: winning(*machine, moved=24), "not of 8"),
    ("A.4", lambda *machine: winning(*machine, moved=0), "moving them takes time"),
    ("A.4", lambda cpu, gpu, bus, launch: winning(cpu, gpu, bus, 0.0), "launch"),
    ("A.4", lambda *machine: winning(*machine) or 20_000, "None is expected"),
    ("A.4", lambda *machine: None if machine else 1, "Some n does win"),
    ("A.4", lambda *machine: 100, "expected"),
    ("A.4", lambda *machine: winning(*machine, most=1000), "Some n does win"),
    ("A.4", lambda *machine: winning(*machine, most=100_000), "None is expected"),
    ("A.4", lambda *machine: str(winning(*machine)), "not str"),
]


# A.A


def strides(shape):
    return tuple(math.prod(shape[k + 1 :]) for k in range(len(shape)))


def strides_by_loop(shape):
    found, size = [], 1
    for length in reversed(shape):
        found.insert(0, np.int64(size))
        size *= length
    return found


RIGHT += [("A.A", strides), ("A.A", strides_by_loop), ("A.A", lambda shape: torch.empty(shape).stride())]

WRONG += [
    ("A.A", lambda shape: strides(shape)[::-1], "wrong order"),
    ("A.A", lambda shape: tuple(4 * stride for stride in strides(shape)), "bytes"),
    ("A.A", lambda shape: tuple(math.prod(shape[:k]) for k in range(len(shape))), "column"),
    ("A.A", lambda shape: tuple(math.prod(shape[k:]) for k in range(len(shape))), "without its own"),
    ("A.A", lambda shape: shape, "How many numbers"),
    ("A.A", lambda shape: strides(shape)[1:], "one stride for each"),
    ("A.A", lambda shape: 3, "not int"),
]


# A.B


def broadcast(a, b):
    dims = max(len(a), len(b))
    a, b = (1,) * (dims - len(a)) + tuple(a), (1,) * (dims - len(b)) + tuple(b)
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b)):  # noqa: B905
        return None
    return tuple(max(m, n) for m, n in zip(a, b))  # noqa: B905


def flush_left(a, b):
    dims = max(len(a), len(b))
    a, b = tuple(a) + (1,) * (dims - len(a)), tuple(b) + (1,) * (dims - len(b))
    return None if any(m != n and 1 not in (m, n) for m, n in zip(a, b)) else tuple(map(max, a, b))  # noqa: B905


def divides(a, b):
    """As if any size were stretched to a multiple of it."""
    dims = max(len(a), len(b))
    a, b = (1,) * (dims - len(a)) + tuple(a), (1,) * (dims - len(b)) + tuple(b)
    pairs = list(zip(a, b))  # noqa: B905
    return None if any(max(m, n) % min(m, n) for m, n in pairs) else tuple(max(m, n) for m, n in pairs)


RIGHT += [("A.B", broadcast)]
RIGHT += [("A.B", lambda a, b: None if broadcast(a, b) is None else torch.broadcast_shapes(a, b))]
RIGHT += [("A.B", lambda a, b: None if broadcast(a, b) is None else list(map(np.int64, broadcast(a, b))))]

WRONG += [
    ("A.B", lambda a, b: broadcast(a, b) or (0,), "do not fit"),
    ("A.B", lambda a, b: None if a != b else a, "do fit"),
    ("A.B", lambda a, b: a if len(a) < len(b) else b, "as many dimensions"),
    ("A.B", flush_left, "lush right"),
    ("A.B", lambda a, b: "(3, 4)", "tuple of sizes"),
    ("A.B", lambda a, b: divides(a, b), "neither is 1"),
]


def test_a_b_the_cases_hold_both_kinds():
    seen = []

    def watch(a, b):
        seen.append(broadcast(a, b))
        return seen[-1]

    assert checks.exercise_a_b(watch)
    assert 3 <= sum(shape is None for shape in seen) <= len(seen) - 10


# A.C


def slopes(f, x, step):
    result = torch.zeros_like(x)
    for place in np.ndindex(*x.shape):
        up, down = x.clone(), x.clone()
        up[place] += step
        down[place] -= step
        result[place] = (f(up) - f(down)) / (2 * step)
    return result


def slopes_in_place(f, x, step):
    """Moves each entry of x itself and puts it back."""
    result, flat = [], x.view(-1)
    for k in range(flat.numel()):
        kept = flat[k].item()
        flat[k] = kept + step
        up = f(x)
        flat[k] = kept - step
        result.append((up - f(x)).item() / (2 * step))
        flat[k] = kept
    return torch.tensor(result).reshape(x.shape)


def slopes_by_rows(f, x, step):
    moves = step * np.eye(x.numel())
    rows = [(f(x + torch.tensor(m).view_as(x)) - f(x - torch.tensor(m).view_as(x))).item() for m in moves]
    return np.array(rows).reshape(x.shape) / (2 * step)


def forward_only(f, x, step):
    moves = step * torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    return torch.stack([f(x + move) - f(x) for move in moves]).reshape(x.shape) / step


def left_changed(f, x, step):
    result = slopes(f, x, step)
    x += step
    return result


RIGHT += [("A.C", slopes), ("A.C", slopes_in_place), ("A.C", slopes_by_rows)]

WRONG += [
    ("A.C", forward_only, "step in one direction"),
    ("A.C", lambda f, x, step: 2 * slopes(f, x, step), "two steps apart"),
    ("A.C", lambda f, x, step: slopes(f, x, step) * step, "not yet divided"),
    ("A.C", lambda f, x, step: -slopes(f, x, step), "sign"),
    ("A.C", lambda f, x, step: ((f(x + step) - f(x - step)) / (2 * step)).expand(x.shape), "one at a time"),
    ("A.C", left_changed, "before the call"),
    ("A.C", lambda f, x, step: slopes(f, x, step).flatten(), "shape"),
    ("A.C", lambda f, x, step: slopes(f, x, 1e-7), "step 0.2"),
    ("A.C", lambda f, x, step: torch.zeros_like(x), "expected"),
]


# A.D


def gradients(X, y, w, b, mean=True, sign=1, sigmoid=True, slope=False):
    a = torch.sigmoid(X @ w + b) if sigmoid else X @ w + b
    residual = sign * (a - y) * (a * (1 - a) if slope else 1)
    return X.T @ residual / (len(y) if mean else 1), residual.mean() if mean else residual.sum()


def gradients_by_loop(X, y, w, b):
    total_w, total_b = np.zeros(len(w)), 0.0
    for row, label in zip(X.tolist(), y.tolist(), strict=True):
        wrong = 1 / (1 + math.exp(-(np.dot(row, w.tolist()) + b.item()))) - label
        total_w, total_b = total_w + wrong * np.array(row), total_b + wrong
    return total_w / len(y), total_b / len(y)


RIGHT += [("A.D", gradients), ("A.D", lambda *data: gradients(*[part.double() for part in data]))]
RIGHT += [("A.D", gradients_by_loop)]

WRONG += [
    ("A.D", lambda *data: gradients(*data, mean=False), "mean"),
    ("A.D", lambda *data: gradients(*data, sign=-1), "sign"),
    ("A.D", lambda *data: gradients(*data, sigmoid=False), "sigmoid is missing"),
    ("A.D", lambda *data: gradients(*data, slope=True), "a(1 − a)"),
    ("A.D", lambda X, y, w, b: (gradients(X, y, w, b)[1].expand(len(w)), gradients(X, y, w, b)[1]), "its features"),
    ("A.D", lambda *data: gradients(*data)[0], "Two tensors"),
    ("A.D", lambda *data: (gradients(*data)[0], torch.tensor(0.5)), "mean slope"),
    ("A.D", lambda *data: (gradients(*data)[0][None], gradients(*data)[1]), "shape"),
]


# A.E


def pad(batch, pad_id):
    longest = max(len(ids) for ids, _ in batch)
    padded = torch.full((len(batch), longest), pad_id)
    for row, (ids, _) in zip(padded, batch, strict=True):
        row[: len(ids)] = ids
    return padded, torch.tensor([len(ids) for ids, _ in batch]), torch.tensor([label for _, label in batch])


def pad_by_library(batch, pad_id):
    texts, labels = zip(*batch, strict=True)
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad_id)
    return [padded, [len(ids) for ids in texts], list(labels)]


def pad_as_array(batch, pad_id):
    longest = max(len(ids) for ids, _ in batch)
    rows = [ids.tolist() + [pad_id] * (longest - len(ids)) for ids, _ in batch]
    return np.array(rows), np.array([len(ids) for ids, _ in batch]), np.array([label for _, label in batch])


def changed(ids=lambda ids, pad_id: ids, lengths=lambda lengths, ids, pad_id: lengths, labels=lambda labels: labels):
    def collate(batch, pad_id):
        padded, counts, classes = pad(batch, pad_id)
        return ids(padded, pad_id), lengths(counts, padded, pad_id), labels(classes)

    return collate


def pad_left(batch, pad_id):
    padded, lengths, labels = pad([(ids.flip(0), label) for ids, label in batch], pad_id)
    return padded.flip(1), lengths, labels


def pad_one_more(batch, pad_id):
    padded, lengths, labels = pad(batch, pad_id)
    return torch.cat([padded, torch.full((len(batch), 1), pad_id)], dim=1), lengths, labels


def pad_with(number):
    return lambda batch, pad_id: pad(batch, number)


RIGHT += [("A.E", pad), ("A.E", pad_by_library), ("A.E", pad_as_array)]

WRONG += [
    ("A.E", pad_left, "at the left"),
    ("A.E", pad_with(0), "not pad_id"),
    ("A.E", lambda batch, pad_id: pad([(ids[: min(len(i) for i, _ in batch)], y) for ids, y in batch], 0), "shortest"),
    ("A.E", pad_one_more, "longer than its longest"),
    ("A.E", changed(ids=lambda ids, pad_id: ids.float()), "token ids have fractions"),
    ("A.E", changed(labels=lambda labels: labels.float()), "labels have fractions"),
    ("A.E", changed(lengths=lambda lengths, ids, pad_id: torch.full_like(lengths, ids.shape[1])), "with the padding"),
    ("A.E", changed(lengths=lambda lengths, ids, pad_id: (ids != pad_id).sum(dim=1)), "number of the padding"),
    ("A.E", changed(labels=lambda labels: labels.flip(0)), "the labels"),
    ("A.E", lambda batch, pad_id: pad(batch, pad_id)[0], "three tensors"),
    ("A.E", lambda batch, pad_id: torch.stack([ids for ids, _ in batch]), "stopped with RuntimeError"),
]


# A.F


def fitting(twice=False, keep=False, graph=False, running=False, ends_in_eval=False, starts=True, total=False):
    """The loop of exercise A.F with some of its faults."""

    def fit(model, loader, epochs, lr):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        if starts:
            model.train()
        means, sum_ = [], 0.0
        for _ in range(epochs):
            if not running:
                sum_ = 0.0
            for features, labels in loader:
                logits = model(features)
                loss = F.cross_entropy(torch.softmax(logits, dim=1) if twice else logits, labels)
                if not keep:
                    optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                sum_ = sum_ + (loss if graph else loss.item())
            means.append(sum_ if total else sum_ / len(loader))
            if ends_in_eval:
                model.eval()
        return means

    return fit


def fit_in_numpy(model, loader, epochs, lr):
    """The parameters moved by hand, an array of means."""
    model.train()
    losses = np.zeros((epochs, len(loader)))
    for epoch in range(epochs):
        for k, (features, labels) in enumerate(loader):
            model.zero_grad()
            loss = F.cross_entropy(model(features), labels)
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= lr * parameter.grad
            losses[epoch, k] = loss.item()
    return losses.mean(axis=1)


RIGHT += [("A.F", fitting()), ("A.F", fit_in_numpy), ("A.F", lambda *given: tuple(fitting()(*given)))]

WRONG += [
    ("A.F", fitting(twice=True, keep=True, graph=True, running=True, ends_in_eval=True), "Two of the faults"),
    ("A.F", fitting(twice=True), "does not get what it expects"),
    ("A.F", fitting(keep=True), "batches before it"),
    ("A.F", fitting(graph=True), "still tensors"),
    ("A.F", fitting(running=True), "epochs before it"),
    ("A.F", fitting(ends_in_eval=True), "evaluation mode"),
    ("A.F", fitting(starts=False), "evaluation mode"),
    ("A.F", fitting(total=True), "sums over the batches"),
    ("A.F", lambda *given: fitting()(*given)[-1], "A list of 1"),
    ("A.F", lambda model, loader, epochs, lr: fitting()(model, loader, epochs, lr / 2), "parameters differ"),
    ("A.F", lambda model, loader, epochs, lr: [0.0] * epochs, "not been called"),
]


# A.G


def step(model, batches, optimizer):
    total = sum(len(labels) for _, labels in batches)
    optimizer.zero_grad()
    whole = 0.0
    for features, labels in batches:
        loss = F.cross_entropy(model(features), labels, reduction="sum") / total
        loss.backward()
        whole += loss.item()
    optimizer.step()
    return whole


def step_with_grad(model, batches, optimizer):
    """Gradients added up by hand."""
    parameters, sums, losses, total = list(model.parameters()), None, [], sum(len(labels) for _, labels in batches)
    for features, labels in batches:
        loss = F.cross_entropy(model(features), labels) * len(labels)
        grads = torch.autograd.grad(loss, parameters)
        sums = grads if sums is None else [a + b for a, b in zip(sums, grads, strict=True)]
        losses.append(loss.item())
    for parameter, summed in zip(parameters, sums, strict=True):
        parameter.grad = summed / total
    optimizer.step()
    return np.float64(sum(losses) / total)


def step_by_example(model, batches, optimizer):
    """One example at a time."""
    return step(model, [(x[None], y[None]) for X, Y in batches for x, y in zip(X, Y, strict=True)], optimizer)


def weighted(weight, empty=True, moves=True, late=False, each=False, as_tensor=False, result=None, softmax=False):
    """A step in which each batch's mean loss counts `weight(size, total, batches)`."""

    def train_step(model, batches, optimizer):
        total, whole = sum(len(labels) for _, labels in batches), 0
        if empty:
            optimizer.zero_grad()
        for features, labels in batches:
            logits = model(features)
            logits = torch.softmax(logits, dim=1) if softmax else logits
            loss = F.cross_entropy(logits, labels) * weight(len(labels), total, len(batches))
            loss.backward()
            whole = whole + loss
            if each:
                optimizer.step()
                optimizer.zero_grad()
        if late:
            optimizer.zero_grad()
        if moves and not each:
            optimizer.step()
        return result(model, batches) if result else whole if as_tensor else whole.item()

    return train_step


def share(size, total, batches):
    return size / total


def in_one(model, batches, optimizer):
    features, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return step(model, [(features, labels)], optimizer)


def in_evaluation(model, batches, optimizer):
    model.eval()
    return step(model, batches, optimizer)


def last_loss(model, batches):
    return F.cross_entropy(model(batches[-1][0]), batches[-1][1]).item()


RIGHT += [("A.G", step), ("A.G", step_with_grad), ("A.G", step_by_example)]

WRONG += [
    ("A.G", weighted(lambda size, total, batches: 1 / batches), "differ in size"),
    ("A.G", weighted(lambda size, total, batches: 1), "added up"),
    ("A.G", weighted(share, empty=False), "something from before the call"),
    ("A.G", weighted(share, late=True), "emptied after backward"),
    ("A.G", weighted(share, moves=False), "no parameter has moved"),
    ("A.G", weighted(lambda size, total, batches: 1, each=True), "a step of its own"),
    ("A.G", weighted(share, as_tensor=True), "whole graph stays"),
    ("A.G", weighted(share, result=last_loss), "the loss is not"),
    ("A.G", weighted(share, softmax=True), "logits"),
    ("A.G", lambda model, batches, optimizer: step(model, batches[-1:], optimizer), "Only the last batch"),
    ("A.G", lambda model, batches, optimizer: 0.5, "nothing has happened"),
    ("A.G", in_one, "more examples at a time"),
    ("A.G", in_evaluation, "evaluation mode"),
    ("A.G", lambda *given: str(step(*given)), "must be one number"),
]


GIVEAWAYS = {"A.3": ["752"], "A.F": ["zero_grad", ".item()", "train()"], "A.G": ["zero_grad()", ".item()"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))
