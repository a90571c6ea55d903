"""Checkers for appendix A."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Mapping, Sequence
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
    same,
    self_test,
)


@exercise("A.1")
def exercise_a_1(answer: str) -> str:
    """Check the line "PYTHON TORCH" that a terminal printed against the versions of this process."""
    if isinstance(answer, list) and len(answer) == 1:  # what `line = !python -c ...` gives in a notebook
        answer = answer[0]
    expect_kind(answer, str, "The printed line as a string, in quotes,")
    parts = answer.strip(" \n\r\t'\"`").split()
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


def _machine(cpu: float, gpu: float, bus: float, launch: float) -> dict[str, float]:
    return {"cpu": cpu, "gpu": gpu, "bus": bus, "launch": launch}


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
    machines = []
    for trial in range(8):
        cpu_speed, faster, bus, launch = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        cpu = 2e10 * 30**cpu_speed
        gpu = cpu * (5 + 200 * faster) if trial % 4 != 3 else cpu * (0.2 + 0.7 * faster)  # every fourth GPU is slower
        machines.append(_machine(cpu, gpu, 2e9 * 20**bus, 1e-6 * 100**launch))
    machines += [_machine(2e11, 2.2e11, 2e9, 1e-5), _machine(2e11, 2.2e11, 2e8, 1e-5)]  # n = 6,600, and beyond 20,000
    for machine in machines:
        right = _smallest_n(**machine)
        got = answer(*machine.values())
        case = "Tried with CPU {:.3g} and GPU {:.3g} operations per second, {:.3g} bytes per second, launch {:.2g} s."
        case = case.format(*machine.values())
        if right is None:
            expect(got is None, f"{case} No n up to 20,000 wins here: None is expected.")
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
        "a gain that grows as n³. So a faster GPU wins once n is large enough, and a slower one never does."
    )


@exercise("A.A", "contiguous_strides(shape)")
def exercise_a_a(answer: Callable[[tuple[int, ...]], tuple[int, ...]]) -> str:
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


@exercise("A.B", "broadcast_shape(a, b)", may_return_none=True)
def exercise_a_b(answer: Callable[[tuple[int, ...], tuple[int, ...]], tuple[int, ...] | None]) -> str:
    """Check `broadcast_shape(a, b)` on random pairs of shapes."""
    generator = torch.Generator().manual_seed(106)
    pairs = [
        ((3, 1), (4,)),
        ((2, 3), (2,)),
        ((), (3, 2)),
        ((2, 3), (3,)),
        ((1,), (5, 1, 2)),
        ((4,), (2,)),
        ((3,), (6,)),
    ]
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
        "included. Many of the shape errors that you will meet are decided by these few lines."
    )


@exercise("A.C", "numeric_gradient(f, x, step)")
def exercise_a_c(answer: Callable[..., torch.Tensor]) -> str:
    """Check `numeric_gradient(f, x, step)` on functions whose gradients autograd knows."""
    generator = torch.Generator().manual_seed(103)

    def bend(x: torch.Tensor) -> torch.Tensor:  # mixes all entries, so that none can be left out or moved with others
        return (x.sin() + x.square()).sum() * x.cos().sum()

    for shape, step in (((3,), 1e-3), ((), 1e-4), ((2, 3), 1e-3), ((2, 1, 2), 1e-4), ((4,), 0.2)):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        leaf = x.clone().requires_grad_()
        (true,) = torch.autograd.grad(bend(leaf), leaf)
        given = x.clone()
        got = answer(bend, given, step)
        expect(
            torch.equal(given, x),
            "x is not what it was before the call. Change a copy of it, or put each entry back after its turn.",
        )
        moves = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *shape) * step
        ahead, back = (torch.stack([bend(x + sign * move) for move in moves]).reshape(shape) for sign in (1, -1))
        slips = [
            ((ahead - bend(x)) / step, "That is the slope of a step in one direction. Go a step up and a step down."),
            ((ahead - back) / step, "The two points are two steps apart."),
            ((ahead - back) / 2, "The difference is not yet divided by how far the two points are apart."),
            (-(ahead - back) / (2 * step), "The sign is turned round."),
            (
                torch.full(shape, ((bend(x + step) - bend(x - step)) / (2 * step)).item(), dtype=torch.float64),
                "All entries have been moved together. Each one has a slope of its own: move one at a time.",
            ),
        ]
        case = f"With x of shape {shape} and step {step}:"
        expect_close(got, (ahead - back) / (2 * step), case, slips, rtol=1e-5, atol=1e-6)
        if step < 0.1:
            expect(same(got, true), f"{case} the result is not autograd's.")
    return (
        "Your slopes agree with autograd's to within what a step of this size allows, for any shape, and x is as it "
        "was. It takes two evaluations per number, where one backward pass gives all slopes at once: a check for "
        "small models, and no way to train."
    )


@exercise("A.D", "logistic_gradients(X, y, w, b)")
def exercise_a_d(answer: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> str:
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


@exercise("A.E", "pad_batch(batch, pad_id)")
def exercise_a_e(answer: Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> str:
    """Check `pad_batch(batch, pad_id)` on random batches of texts of different lengths."""
    generator = torch.Generator().manual_seed(109)
    for lengths, pad_id in (((3, 1, 4), 0), ((2, 5), 50), ((4, 4), 7), ((6,), 0), ((1, 2, 5, 3), 3)):
        texts = [torch.randint(0, 9, (length,), generator=generator) for length in lengths]
        texts[0][-1] = pad_id  # a token of its text, although it has the padding's number
        labels = torch.randint(0, 5, (len(lengths),), generator=generator)
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad_id)
        flipped = [text.flip(0) for text in texts]
        at_left = torch.nn.utils.rnn.pad_sequence(flipped, batch_first=True, padding_value=pad_id).flip(1)
        got = answer([(text.clone(), label) for text, label in zip(texts, labels.tolist(), strict=True)], pad_id)
        three = "A tuple of three tensors (ids, lengths, labels)"
        expect_kind(got, (tuple, list), three)
        got_ids, got_lengths, got_labels = read_parts(got, 3, f"{three} is expected.")
        case = f"With texts of {', '.join(map(str, lengths))} tokens and pad_id {pad_id}:"
        unpadded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=0 if pad_id else 1)
        slips = [
            (at_left, "The padding is at the left; it is expected after the text."),
            (unpadded, "The padding is not pad_id."),
            (ids[:, : min(lengths)], "The texts are cut to the shortest; nothing may be lost."),
            (torch.cat([ids, torch.full((len(ids), 1), pad_id)], dim=1), "The batch is longer than its longest text."),
        ]
        expect_close(got_ids, ids, f"{case} the ids.", slips)
        for tensor, what in ((got_ids, "token ids"), (got_labels, "labels")):
            whole = not (isinstance(tensor, torch.Tensor) and tensor.is_floating_point())
            expect(whole, f"{case} the {what} have fractions; an embedding and a loss expect whole numbers (int64).")
        slips = [
            (torch.full((len(lengths),), max(lengths)), "Those are lengths with the padding."),
            ((ids != pad_id).sum(dim=1), "A token of a text may have the number of the padding: count tokens first."),
        ]
        expect_close(got_lengths, torch.tensor(lengths), f"{case} the lengths.", slips)
        expect_close(got_labels, labels, f"{case} the labels.")
    return (
        "Whatever the lengths, your batch is as long as its longest text and nothing is lost, and the lengths say "
        "where each text ends. Given to a DataLoader as collate_fn, it serves texts in batches, as chapter 7 does."
    )


def _small_model(generator: torch.Generator) -> torch.nn.Module:
    """A model (B, 4) to logits (B, 3) with weights from the generator; nothing is drawn from the global one."""
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return model


def _batches(sizes: Sequence[int], generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches (features, labels) of these sizes for `_small_model`."""
    return [
        (torch.randn(size, 4, generator=generator), torch.randint(0, 3, (size,), generator=generator)) for size in sizes
    ]


def _watched(model: torch.nn.Module) -> tuple[torch.nn.Module, list[tuple[bool, int]]]:
    """A copy of a model, used before, and a list in which each forward pass notes its mode and its batch size."""
    copied, passes = copy.deepcopy(model), []
    copied(torch.ones(2, 4)).sum().backward()
    copied.register_forward_pre_hook(lambda module, given: passes.append((module.training, len(given[0]))))
    return copied, passes


def _same_parameters(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)


def _fit(model, batches, epochs: int, lr: float, twice: bool = False, keep: bool = False) -> list[float]:
    """The loop of exercise A.F; `twice` and `keep` put two of its faults in: softmax twice, gradients kept."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        for features, labels in batches:
            logits = model(features)
            loss = F.cross_entropy(torch.softmax(logits, dim=1) if twice else logits, labels)
            if not keep:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return [sum(losses[k : k + len(batches)]) / len(batches) for k in range(0, len(losses), len(batches))]


@exercise("A.F", "fit(model, loader, epochs, lr)")
def exercise_a_f(answer: Callable[..., list[float]]) -> str:
    """Check that the mended `fit(model, loader, epochs, lr)` trains as it should."""
    generator = torch.Generator().manual_seed(110)
    for epochs in (1, 3):
        start, batches = _small_model(generator), _batches((4, 4, 4), generator)
        right = copy.deepcopy(start)
        losses = _fit(right, batches, epochs, 0.5)
        theirs, passes = _watched(start)
        theirs.eval()
        moved, slips = [], ((True, True), (True, False), (False, True))
        for twice, keep in slips:
            slipped, _ = _watched(start)
            _fit(slipped, batches, epochs, 0.5, twice, keep)
            moved.append(slipped)
        got = answer(theirs, [(features.clone(), labels.clone()) for features, labels in batches], epochs, 0.5)
        expect(len(passes) > 0, "The model has not been called.")
        expect(
            not _same_parameters(theirs, moved[0]), "Two of the faults are still there, and both change the updates."
        )
        hint = "The loss does not get what it expects from the model (section A.5)."
        expect(not _same_parameters(theirs, moved[1]), hint)
        hint = "Each update contains something of the batches before it (section A.4.3)."
        expect(not _same_parameters(theirs, moved[2]), hint)
        modes = [training for training, _ in passes]
        hint = "forward passes found the model in evaluation mode, in which dropout is off."
        expect(all(modes), f"{modes.count(False)} of {len(modes)} {hint}")
        hint = f"After {epochs} epochs the parameters differ from those of the loop in section A.7."
        expect(_same_parameters(theirs, right), hint)
        got = read_parts(got, epochs, f"A list of {epochs} numbers is expected, a mean loss for each epoch.")
        tensors = any(isinstance(loss, torch.Tensor) for loss in got)
        expect(not tensors, "The losses are still tensors, and each keeps the whole graph of its epoch in memory.")
        means = torch.tensor(losses)
        running = torch.cumsum(means, dim=0)
        slips = [
            (running, "An epoch's mean contains the losses of the epochs before it."),
            (means * len(batches), "Those are sums over the batches."),
        ]
        numbers = torch.tensor([read_number(loss, "Each loss") for loss in got])
        expect_close(numbers, means, f"The mean losses of {epochs} epochs.", slips)
    return (
        "All faults are out: logits to the loss, gradients emptied, training mode in every epoch, a number and not a "
        "graph in the sum, and a sum that begins anew. None of them raised an error, and that is how such faults last."
    )


@exercise("A.G", "train_step(model, batches, optimizer)")
def exercise_a_g(answer: Callable[..., float]) -> str:
    """Check `train_step(model, batches, optimizer)`: several batches make one update."""
    generator = torch.Generator().manual_seed(108)
    for kind, options in ((torch.optim.SGD, {"lr": 0.3}), (torch.optim.Adam, {"lr": 0.05})):
        right = _small_model(generator)
        theirs, passes = _watched(right)
        optimizers = [kind(model.parameters(), **options) for model in (right, theirs)]
        for sizes in ((4, 4, 1), (3,), (2, 6)):
            batches = _batches(sizes, generator)
            before = copy.deepcopy(right), [parameter.grad.clone() for parameter in theirs.parameters()]
            features, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
            loss = F.cross_entropy(right(features), labels)
            optimizers[0].zero_grad()
            loss.backward()
            optimizers[0].step()
            hint = (
                "The parameters were moved between a forward and its backward pass, and autograd noticed: the step is "
                "taken before the gradients of all batches are there."
            )
            passes.clear()
            with explained(RuntimeError, hint, "modified by an inplace operation"):
                got = answer(theirs, [(x.clone(), y.clone()) for x, y in batches], optimizers[1])
            case = f"With {kind.__name__} and batches of {', '.join(map(str, sizes))} examples:"
            _compare_step(case, right, theirs, before, batches, options["lr"] if kind is torch.optim.SGD else None)
            modes, seen = [training for training, _ in passes], [size for _, size in passes]
            expect(all(modes) and theirs.training, f"{case} the model was put into evaluation mode; it is in training.")
            hint = "more examples at a time went through the model than a batch has, and memory is what is to be saved."
            expect(max(seen) <= max(sizes), f"{case} {hint}")
            hint = (
                "The loss comes back as a tensor, and with it the whole graph stays in memory. How does one get "
                "Python's number out of a tensor?"
            )
            expect(not isinstance(got, torch.Tensor), hint)
            got, means = read_number(got, "The loss"), [F.cross_entropy(before[0](x), y).item() for x, y in batches]
            slips = [
                (sum(means) / len(means), "A batch of one example counts as much in your loss as one of four."),
                (sum(means), "That is a sum of the batches' losses."),
                (means[-1], "That is the loss of the last batch."),
            ]
            expect_close(got, loss.item(), f"{case} the parameters are right, but the loss is not.", slips)
    return (
        "Your small batches move every parameter as one large batch would, with two optimizers and with batches of "
        "different sizes, and only one of them has a graph at a time. Appendix D calls this accumulation."
    )


def _compare_step(case: str, right, theirs, before, batches, lr: float | None) -> None:
    """Raise `Hint` unless both models have the same parameters; with plain SGD (`lr`), known slips are named."""
    if _same_parameters(right, theirs):
        return
    start, gradients = before
    if _same_parameters(start, theirs):
        now = [parameter.grad for parameter in theirs.parameters()]
        kept = all(new is not None and torch.equal(new, old) for new, old in zip(now, gradients, strict=True))
        expect(not kept, f"{case} nothing has happened: no gradient and no parameter has changed.")
        there = any(new is not None and new.abs().max() > 0 for new in now)
        expect(not there, f"{case} the gradients are there, but no parameter has moved. Which call moves them?")
        raise Hint(f"{case} no parameter has moved. Are the gradients emptied after backward has filled them?")
    total, count = sum(len(labels) for _, labels in batches), len(batches)
    shares = [len(labels) / total for _, labels in batches]
    slips = [
        (
            [1 / count] * count,
            0.0,
            "A mean over batches is not the mean over examples where the batches differ in size.",
        ),
        ([1.0] * count, 0.0, "The gradients of the batches were added up: the step is too long."),
        ([0.0] * (count - 1) + [1.0], 0.0, "Only the last batch has moved the parameters."),
        ([0.0] * (count - 1) + [shares[-1]], 0.0, "Only the last batch has moved the parameters."),
        (shares, 1.0, "The gradients still hold something from before the call."),
    ]
    for weights, old, hint in slips if lr else []:
        slipped = copy.deepcopy(start)
        slipped.zero_grad()
        for weight, (features, labels) in zip(weights, batches, strict=True):
            (weight * F.cross_entropy(slipped(features), labels)).backward()
        with torch.no_grad():
            for parameter, gradient in zip(slipped.parameters(), gradients, strict=True):
                parameter -= lr * (parameter.grad + old * gradient)
        expect(not _same_parameters(slipped, theirs), f"{case} {hint}")
    stepped = copy.deepcopy(start)
    if lr:
        _fit(stepped, batches, 1, lr)
        expect(not _same_parameters(stepped, theirs), f"{case} each batch has made a step of its own.")
    raise Hint(
        f"{case} the parameters differ from what one large batch gives. The gradients may hold something from before, "
        "or the loss is not the cross-entropy of the logits."
    )


self_test_a = self_test("a", "appendix_a")
