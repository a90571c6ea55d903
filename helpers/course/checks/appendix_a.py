"""Checkers for appendix A."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ...toy import NeuralNetwork
from ._core import (
    Hint,
    exercise,
    expect,
    expect_close,
    expect_kind,
    explained,
    read_integer,
    read_number,
    read_parts,
    self_test,
)


@exercise("A.1")
def exercise_a_1(answer: str) -> str:
    """Check the line "PYTHON TORCH" that a terminal printed against the versions of this process."""
    expect_kind(answer, str, "The printed line as a string, in quotes,")
    parts = answer.split()
    expect(
        "ModuleNotFoundError" not in answer and "No module named" not in answer,
        "The terminal's Python has no PyTorch. Activate the course's environment there first (source "
        ".venv/bin/activate; on Windows .venv\\Scripts\\activate).",
    )
    expect(len(parts) == 2, "Two versions are expected, as the command prints them: Python's, a space, PyTorch's.")
    python, pytorch = parts
    here = sys.version.split()[0]
    where = "Is the course's environment activated in the terminal, and is JupyterLab started from it?"
    expect(python == here, f"The terminal's Python is {python}, but this notebook runs on {here}. {where}")
    expect(
        pytorch == str(torch.__version__),
        f"The Pythons agree, but the terminal has PyTorch {pytorch} and this notebook {torch.__version__}. {where}",
    )
    return (
        "Terminal and notebook run the same Python and the same PyTorch. Whenever something works in the one and not "
        "in the other, ask this question first."
    )


@exercise("A.2")
def exercise_a_2(answer: Mapping[str, Any] | str) -> str:
    """Check the report of `python setup_check.py --json`, as text or as a dictionary."""
    if isinstance(answer, str):
        text = answer.strip()
        if not text.startswith("{"):
            raise Hint("That is not the report as JSON. Did you run setup_check.py with --json and keep its output?")
        try:
            answer = json.loads(text)
        except json.JSONDecodeError:
            raise Hint("The text begins like JSON but cannot be read; is it complete?") from None
    expect_kind(answer, Mapping, "A report, as a text or a dictionary,")
    missing = [key for key in ("python", "packages", "devices", "data", "ready", "summary") if key not in answer]
    expect(not missing, f"This is not a report of setup_check.py: it has no {', '.join(map(repr, missing))}.")
    rows = answer["python"] if isinstance(answer["python"], list) else []
    expect(bool(rows) and isinstance(rows[0], Mapping), "The report says nothing about Python.")
    version, here = rows[0].get("version"), ".".join(map(str, sys.version_info[:3]))
    expect(
        version == here,
        f"The report is about Python {version}, but this notebook runs on {here}: run the checker with the course's "
        "environment activated.",
    )
    expect(answer["ready"] is True, f"The checker works, and it has found something. {answer['summary']}")
    return (
        "The report is complete and says that everything that matters is in order, the processor's gradients "
        "included. When a notebook misbehaves one day, run the checker again before you look further."
    )


@exercise("A.3")
def exercise_a_3(answer: int) -> str:
    """Check the number of parameters of `NeuralNetwork(2, 2)`."""
    got = read_integer(answer, "Your answer")
    with torch.device("meta"):
        parameters = [p.numel() for p in NeuralNetwork(2, 2).parameters()]
        larger = sum(p.numel() for p in NeuralNetwork(50, 3).parameters())
    weights, biases = sum(parameters[0::2]), sum(parameters[1::2])
    slips = [
        (weights, "Those are the weights. Each linear layer also has biases, one per output."),
        (biases, "Those are the biases alone."),
        (larger, "That is NeuralNetwork(50, 3), which we counted in the text; here there are 2 inputs."),
        (len(parameters), "That is the number of tensors. Each of them holds many parameters."),
        (30 * 20, "That is one matrix of weights; there are three, and three biases."),
    ]
    steps = "Not yet. For each of the three layers: inputs times outputs, and one per output."
    expect_close(got, weights + biases, "", slips, otherwise=steps)
    return "The layers have 2·30 + 30 = 90, 30·20 + 20 = 620 and 20·2 + 2 = 42 parameters, 752 together."


_MOST_N = 20_000  # the largest n that is tried; a float32 matrix of this size takes 1.6 GB


def _smallest_n(
    cpu: float, gpu: float, bus: float, launch: float, *, operations: float = 2, matrices: float = 3, size: float = 4
) -> int | None:
    """The smallest n that wins; the keywords are there to try what a slip would give."""
    n = torch.arange(1, _MOST_N + 1, dtype=torch.float64)
    work = operations * n**3
    wins = launch + size * matrices * n**2 / bus + work / gpu < work / cpu
    return int(wins.to(torch.int8).argmax()) + 1 if bool(wins.any()) else None


@exercise("A.4", "smallest_winning_n(cpu_flops, gpu_flops, bytes_per_second, launch)", may_return_none=True)
def exercise_a_4(answer: Callable[[float, float, float, float], int | None]) -> str:
    """Check `smallest_winning_n(cpu_flops, gpu_flops, bytes_per_second, launch)` on random machines."""
    generator = torch.Generator().manual_seed(104)
    for trial in range(8):
        cpu_speed, faster, bus, launch = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        cpu = 2e10 * 30**cpu_speed
        gpu = cpu * (5 + 200 * faster) if trial % 4 != 3 else cpu * (0.2 + 0.7 * faster)  # every fourth GPU is slower
        machine = {"cpu": cpu, "gpu": gpu, "bus": 2e9 * 20**bus, "launch": 1e-6 * 100**launch}
        right = _smallest_n(**machine)
        got = answer(*machine.values())
        case = "Tried with CPU {:.3g} and GPU {:.3g} operations per second, {:.3g} bytes per second, launch {:.2g} s."
        case = case.format(*machine.values())
        if right is None:
            expect(got is None, f"{case} This GPU is slower than its CPU and never wins: None is expected.")
            continue
        expect(got is not None, f"{case} Some n does win here, but you return None.")
        slips = [
            ({"operations": 1}, "One multiplication and one addition for each pair: 2n³ operations, not n³."),
            ({"matrices": 2}, "Two matrices go there and one comes back; you have moved fewer."),
            ({"matrices": 1}, "Three matrices are moved, and you have moved one."),
            ({"matrices": 4}, "Three n × n matrices are moved; you have moved more."),
            ({"size": 1}, "A float32 takes 4 bytes; you have moved n² bytes per matrix."),
            ({"size": 8}, "The matrices are float32, of 4 bytes per number, not of 8."),
            ({"matrices": 0}, "The matrices lie in the CPU's memory: moving them takes time."),
            ({"launch": 0.0}, "Starting on the GPU takes time, too: launch."),
        ]
        tried = [(_smallest_n(**{**machine, **change}), hint) for change, hint in slips]
        # A number next to the right one is more often a matter of < and ≤ than of a slip.
        expect_close(read_integer(got), right, case, [slip for slip in tried if slip[0] and abs(slip[0] - right) > 1])
    return (
        "The GPU has to earn back a fixed price, the launch, and one that grows as n², the way there and back, with "
        "a gain that grows as n³. So a faster GPU always wins in the end, and a slower one never."
    )


@exercise("A.5", "contiguous_strides(shape)")
def exercise_a_5(answer: Callable[[tuple[int, ...]], tuple[int, ...]]) -> str:
    """Check `contiguous_strides(shape)` on random shapes."""
    generator = torch.Generator().manual_seed(105)
    shapes = [(2, 3), (7,)]
    for dims in (2, 3, 3, 4, 5, 5):
        shapes.append(tuple(torch.randint(2, 7, (dims,), generator=generator).tolist()))
    for shape in shapes:
        right = torch.empty(shape, device="meta").stride()
        got = answer(shape)
        expect_kind(got, (tuple, list), "A tuple of numbers")
        got = tuple(read_integer(stride, "Each stride") for stride in got)
        case = f"\nshape {shape}: expected {right}, got {got}"
        expect(len(got) == len(shape), "There is one stride for each dimension." + case)
        if got != right:
            expect(got != right[::-1], "The right numbers in the wrong order: the last dimension has stride 1." + case)
            expect(got != tuple(4 * s for s in right), "Those are bytes; PyTorch counts strides in numbers." + case)
            columns = [1]
            for size in shape[:-1]:
                columns.append(columns[-1] * size)
            expect(got != tuple(columns), "Those are the strides for numbers that lie column by column." + case)
            including = tuple(s * n for s, n in zip(right, shape, strict=True))
            expect(
                got != including, "A dimension's stride is the product of the sizes after it, without its own." + case
            )
            raise Hint("How many numbers do you pass over when you go one further in that dimension?" + case)
    return (
        "Each stride is the product of the sizes to its right: so many numbers are passed when that index grows by "
        "one. With the strides, a start and the shape, a tensor is nothing but a row of numbers."
    )


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return tuple(torch.broadcast_shapes(a, b))
    except RuntimeError:
        return None


@exercise("A.6", "broadcast_shape(a, b)", may_return_none=True)
def exercise_a_6(answer: Callable[[tuple[int, ...], tuple[int, ...]], tuple[int, ...] | None]) -> str:
    """Check `broadcast_shape(a, b)` on random pairs of shapes."""
    generator = torch.Generator().manual_seed(106)
    pairs = [((3, 1), (4,)), ((2, 3), (2,)), ((), (3, 2)), ((2, 3), (3,)), ((1,), (5, 1, 2))]
    for trial in range(24):
        dims = int(torch.randint(1, 5, (), generator=generator))
        whole = torch.randint(1, 5, (dims,), generator=generator).tolist()
        pair = []
        for _ in range(2):
            keep = int(torch.randint(0, dims + 1, (), generator=generator))
            ones = torch.rand(dims, generator=generator) < 0.4
            shape = [1 if one else size for one, size in zip(ones.tolist(), whole, strict=True)]
            pair.append(shape[dims - keep :])
        if trial % 3 == 2 and pair[0]:  # now and then a size that may not fit
            pair[0][int(torch.randint(0, len(pair[0]), (), generator=generator))] = 7
        pairs.append((tuple(pair[0]), tuple(pair[1])))
    for a, b in pairs:
        right, got = _broadcast(a, b), answer(a, b)
        if isinstance(got, list | tuple):
            got = tuple(read_integer(size, "Each size") for size in got)
        case = f"\n{a} and {b}: expected {right}, got {got}"
        expect(got is None or isinstance(got, tuple), "A tuple of sizes or None is expected." + case)
        if got == right:
            continue
        expect(right is not None, "These do not fit: two sizes differ and neither is 1." + case)
        expect(got is not None, "These do fit. Flush right, a size of 1, or a missing one, is stretched." + case)
        expect(len(got) == len(right), "The result has as many dimensions as the longer of the two." + case)
        raise Hint("Write the shapes under each other, flush right, and go place by place." + case)
    return (
        "Flush right, equal or 1 or missing: your rule agrees with PyTorch's on all pairs, those that do not fit "
        "included. These few lines decide over most of the shape errors you will see."
    )


@exercise("A.7", "logistic_gradients(X, y, w, b)")
def exercise_a_7(answer: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> str:
    """Check `logistic_gradients(X, y, w, b)` against autograd on random data."""
    generator = torch.Generator().manual_seed(107)
    for n, d in ((1, 1), (5, 2), (8, 3), (3, 6)):
        X = torch.randn(n, d, generator=generator) + 0.3
        y = (torch.rand(n, generator=generator) < 0.5).float()
        w, b = torch.randn(d, generator=generator), torch.randn((), generator=generator)
        leaf_w, leaf_b = w.clone().requires_grad_(), b.clone().requires_grad_()
        loss = F.binary_cross_entropy_with_logits(X @ leaf_w + leaf_b, y)
        right = torch.autograd.grad(loss, (leaf_w, leaf_b))
        got = answer(X.clone(), y.clone(), w.clone(), b.clone())
        got_w, got_b = read_parts(got, 2, "Two tensors are expected: for w and for b.")
        z = X @ w + b
        a = torch.sigmoid(z)
        residual = a - y
        squared = "The sigmoid's slope a(1 − a) is already in prediction minus label; do not multiply by it again."
        slips = [
            (X.T @ residual, "That is the sum over the examples; the loss is their mean."),
            (-X.T @ residual / n, "The sign is turned round: the slope at z is prediction minus label."),
            (X.T @ (z - y) / n, "The sigmoid is missing: the prediction is σ(z), not z."),
            (X.T @ (residual * a * (1 - a)) / n, squared),
            (residual.mean().expand(d), "For w, each example's slope at z has to be multiplied by its features."),
        ]
        case = f"With {n} examples of {d} features, the gradient for"
        expect_close(got_w, right[0], f"{case} w differs from autograd's.", slips)
        expect_close(got_b, right[1], f"{case} b differs from autograd's. It is the mean slope at z.")
    return (
        "For w it is the features weighted by how wrong the model is on each example, averaged; for b the average of "
        "that wrongness itself. Autograd arrives at the same numbers by multiplying the slopes of every step."
    )


@exercise("A.8", "train_step(model, features, labels, optimizer)")
def exercise_a_8(answer: Callable[..., float]) -> str:
    """Check `train_step(model, features, labels, optimizer)` over several steps of small models."""
    generator = torch.Generator().manual_seed(108)
    for kind, options in ((torch.optim.SGD, {"lr": 0.3}), (torch.optim.Adam, {"lr": 0.05})):
        with torch.device("meta"):  # so that no random numbers are drawn
            right = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
        right.to_empty(device="cpu")
        for parameter in right.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
        theirs = copy.deepcopy(right)
        start = copy.deepcopy(right.state_dict())
        optimizers = [kind(model.parameters(), **options) for model in (right, theirs)]
        theirs(torch.ones(2, 4)).sum().backward()  # the model has been used before
        for step in range(1, 4):
            features = torch.randn(6, 4, generator=generator)
            labels = torch.randint(0, 3, (6,), generator=generator)
            loss = F.cross_entropy(right(features), labels)
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()
            hint = (
                "The parameters were moved between the forward and the backward pass, and autograd noticed: the step "
                "is taken before the gradients of this batch are there."
            )
            with explained(RuntimeError, hint, "modified by an inplace operation"):
                got = answer(theirs, features.clone(), labels.clone(), optimizers[1])
            expect(
                not isinstance(got, torch.Tensor),
                "The loss comes back as a tensor, and with it the whole graph stays in memory. How does one get "
                "Python's number out of a tensor?",
            )
            got = read_number(got, "The loss")
            _compare(right, theirs, start, step)
            expect(
                abs(got - loss.item()) < 1e-4,
                f"Step {step} moves the parameters rightly, but returns {got:.4f} where the loss was "
                f"{loss.item():.4f}: the cross-entropy of the batch before the step.",
            )
    return (
        "Forward, loss, empty, backward, step: your function moved every parameter as PyTorch's own would have, over "
        "several steps and with two optimizers. The loops of all later chapters are made around these lines."
    )


def _compare(right: torch.nn.Module, theirs: torch.nn.Module, start: dict[str, torch.Tensor], step: int) -> None:
    """Raise `Hint` unless both models have the same parameters after `step` steps."""
    pairs = list(zip(right.state_dict().values(), theirs.state_dict().values(), strict=True))
    if all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs):
        return
    stayed = all(torch.equal(b, a) for a, b in zip(start.values(), theirs.state_dict().values(), strict=True))
    if step == 1 and stayed:
        gradients = [p.grad for p in theirs.parameters()]
        if any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients):
            raise Hint("The gradients are there, but no parameter has moved. Which call moves them?")
        raise Hint(
            "No parameter has moved. Are the gradients emptied after backward has filled them, or was there no "
            "backward at all?"
        )
    raise Hint(
        f"After step {step} the parameters differ from what they should be. The gradients may hold something from "
        "before, or the loss is not the cross-entropy of the logits."
    )


self_test_a = self_test("a", "appendix_a")
