"""Checkers for the bonus notebook on memory-efficient weights."""

from __future__ import annotations

import copy
import functools
import random
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...gpt import GPTModel, gpt_config
from ...pretrained import load_course_model
from ...speed.rounding import round_weights
from ...texts import load_text
from ...tokenizers import get_tokenizer
from ._core import Hint, exercise, expect, read_number, read_tensor, self_test

_MOST_ALIVE = 2  # tensors of the file at a time: a loop's variable still holds one while the next is read


class _Block(bytearray):
    """The memory of one tensor of a file, which can be watched: tensors that are made of it keep it alive."""


class _File:
    """A stand-in for a file of weights in bfloat16, what was read of it, and how many of those were alive at once."""

    def __init__(self, weights: Mapping[str, torch.Tensor]):
        self.weights, self.alive, self.most = weights, [], 0
        self.read_names: list[str] = []

    def read(self, name: str) -> torch.Tensor:
        if name not in self.weights:
            raise Hint(f"read is called with {name!r}, which is not one of the names.")
        self.read_names.append(name)
        weight = self.weights[name]
        block = _Block(weight.numel() * 2)
        tensor = torch.frombuffer(block, dtype=torch.bfloat16).view(weight.shape)
        tensor.copy_(weight)
        self.alive = [reference for reference in self.alive if reference() is not None] + [weakref.ref(block)]
        self.most = max(self.most, len(self.alive))
        return tensor


@exercise("memory.1", "fill(model, names, read)", may_return_none=True)
def exercise_memory_1(answer: Callable[[nn.Module, list[str], Callable[[str], torch.Tensor]], Any]) -> str:
    """`fill(model, names, read)`: a model on the meta device gets its weights in float32, one after the other."""
    rng = random.Random(111)
    for layers in (1, 3):
        cfg = gpt_config(vocab_size=50, context_length=8, emb_dim=8, n_heads=2, n_layers=layers)
        weights = {name: weight.to(torch.bfloat16) for name, weight in GPTModel(cfg).state_dict().items()}
        with torch.device("meta"):
            model = GPTModel(cfg)
        names, file = rng.sample(sorted(weights), len(weights)), _File(weights)
        answer(model, list(names), file.read)
        parameters = dict(model.named_parameters())
        lost = sorted(set(names) - set(parameters))
        expect(not lost, f"{_first(lost)} is no parameter of the model any more: assign an nn.Parameter.")
        empty = [name for name in names if parameters[name].is_meta]
        expect(
            not empty,
            f"{_first(empty)} is still on the meta device. Copying into a tensor without memory does nothing: the "
            "model must be given another one in its place.",
        )
        for name in names:
            got, right = parameters[name].detach(), weights[name]
            expect(got.dtype == torch.float32, f"{name} is {got.dtype} in the model; float32 is expected.")
            expect(got.shape == right.shape, f"{name} has shape {tuple(got.shape)}, in the file {tuple(right.shape)}.")
            expect(torch.equal(got, right.float()), f"{name} has other numbers in the model than in the file.")
            expect(parameters[name].requires_grad, f"{name} cannot be trained: its requires_grad is False.")
        expect(
            file.most <= _MOST_ALIVE,
            f"{file.most} of {len(names)} tensors of the file were in memory at the same time. Read one, put it into "
            "the model, and only then read the next.",
        )
        again = len(file.read_names) - len(set(file.read_names))
        expect(again == 0, f"{again} of {len(names)} tensors were read again. Reading is slow: read each one once.")
    return (
        "At no time is more in memory than the model itself and a weight or two. The peak no longer depends on the "
        "file's format, and a file that is twice as large as the memory that is left can still be read."
    )


def _first(names: list[str]) -> str:
    return f"{names[0]} (with {len(names) - 1} others)" if len(names) > 1 else (names or [""])[0]


@exercise("memory.2", "unpack(packed)")
def exercise_memory_2(answer: Callable[[torch.Tensor], torch.Tensor]) -> str:
    """`unpack(packed)`: the signed numbers of 4 bits in bytes, the first of each pair in the lower half."""
    generator = torch.Generator().manual_seed(112)
    cases = [torch.tensor([3, -3]), torch.arange(-8, 8), torch.tensor([-8, 7, -1, 0])]
    cases += [torch.randint(-8, 8, (2 * size,), generator=generator) for size in (1, 5, 16)]
    got = []
    for values in cases:
        result = read_tensor(answer(_packed(values)), "A tensor of whole numbers")
        expect(
            result.shape == values.shape,
            f"{len(values) // 2} bytes hold {len(values)} numbers; yours have shape {tuple(result.shape)}.",
        )
        got.append(result)
    right = [values.double() for values in cases]
    slips = [
        (lambda v: v % 16, "Your numbers are never negative. The upper half of the 16 values stands for those."),
        (lambda v: v.view(-1, 2).flip(1).flatten(), "Each pair comes out in the wrong order."),
        (lambda v: v.view(-1, 2).T.flatten(), "You give all lower halves, and then all upper halves."),
        (lambda v: v % 256, "The negative numbers are above 200: they wrapped around in a dtype without a sign."),
        (lambda v: v.abs(), "The negative numbers lost their sign."),
        (lambda v: v + 8, "Every number is 8 too large."),
    ]
    if all(torch.equal(a, b) for a, b in zip(got, right, strict=True)):
        return (
            "Two numbers per byte, and all sixteen values come back. A layer of 4 bits does this each time that it is "
            "used, a piece at a time, multiplies by the scales, and forgets the result."
        )
    for wrong, hint in slips:
        expect(not all(torch.equal(a, wrong(b)) for a, b in zip(got, right, strict=True)), hint)
    number = next(i for i, (a, b) in enumerate(zip(got, right, strict=True)) if not torch.equal(a, b))
    raise Hint(
        f"For the bytes {_packed(cases[number])[:4].tolist()} …\nexpected {cases[number][:8].tolist()}\n"
        f"got      {got[number][:8].tolist()}"
    )


def _packed(values: torch.Tensor) -> torch.Tensor:
    low, high = (values % 16).to(torch.uint8).view(-1, 2).unbind(1)
    return low + 16 * high


PARTS = {"embedding": "emb", "attention": ".att.", "feed-forward": ".ff."}  # what the names of their weights contain
WINDOW, WINDOWS = 256, 4


@exercise("memory.3", "rise(part)")
def exercise_memory_3(answer: Callable[[str], float]) -> str:
    """`rise(part)`: how much the loss rises if only that part's matrices have 4 bits, with a scale per row."""
    got = {part: read_number(answer(part), f"rise({part!r})") for part in PARTS}
    right = _rises()
    tolerance = {part: 0.02 * abs(rise) + 0.002 for part, rise in right.items()}

    def agree(wrong: Mapping[str, float]) -> bool:
        return all(abs(got[part] - wrong[part]) <= tolerance[part] for part in PARTS)

    again = read_number(answer("embedding"), "rise('embedding')")
    expect(
        abs(again - got["embedding"]) <= tolerance["embedding"],
        "rise('embedding') gives another number when it is called again: a call must not change the course model.",
    )
    if agree(right):
        rises = ", ".join(f"{rise:.2f} for the {part}" for part, rise in right.items())
        return (
            f"In nats per token the loss rises by {rises}. The embedding has most of the weights by far, so that per "
            "weight it minds least: real formats give some matrices more bits than others, and measure which."
        )
    exact = _course_losses()[1]
    slips = [
        ({part: exact + rise for part, rise in right.items()}, "These are losses. How far are they above the exact?"),
        ({part: -rise for part, rise in right.items()}, "The sign is the other way round: take after minus before."),
        (dict.fromkeys(PARTS, _rise_of("")), "All parts are rounded at the same time. Round the named one only."),
        (dict.fromkeys(PARTS, 0.0), "Nothing rises: are the rounded weights in the model whose loss you take?"),
    ]
    for wrong, hint in slips:
        expect(not agree(wrong), hint)
    off = max(PARTS, key=lambda part: abs(got[part] - right[part]) / tolerance[part])
    raise Hint(
        f"rise({off!r}) is {got[off]:.4f}, which does not agree. Round every matrix of this part, and no other, with 4 "
        f"bits and one scale per row, and take the mean over the notebook's {WINDOW * WINDOWS:,} tokens."
    )


@functools.cache
def _course_losses() -> tuple[GPTModel, float]:
    """The course model and its loss on the notebook's tokens."""
    model, _ = load_course_model()
    return model, _mean_loss(model)


@functools.cache
def _rises() -> dict[str, float]:
    return {part: _rise_of(mark) for part, mark in PARTS.items()}


@functools.cache
def _rise_of(mark: str) -> float:
    """The rise of the loss when the matrices with `mark` in their names are rounded."""
    model, exact = _course_losses()
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in rounded.named_parameters():
            if weight.dim() == 2 and mark in name:
                weight.copy_(round_weights(weight, 4))
    return _mean_loss(rounded) - exact


@torch.no_grad()
def _mean_loss(model: GPTModel) -> float:
    ids = torch.tensor(get_tokenizer().encode(load_text("story"))[: WINDOW * WINDOWS + 1])
    inputs, targets = ids[:-1].view(WINDOWS, WINDOW), ids[1:].view(WINDOWS, WINDOW)
    losses = [F.cross_entropy(model(row[None])[0], target) for row, target in zip(inputs, targets, strict=True)]
    return torch.stack(losses).mean().item()


self_test_memory = self_test("memory", "memory_efficient_weights")
