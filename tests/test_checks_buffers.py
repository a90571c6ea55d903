"""The checkers of the notebook on buffers: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers import checks
from tests import checkers
from tests.checkers import fails


class Standardize(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x):
        return (x - self.mean) / self.std


class Stacked(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("both", torch.stack((mean, std)))

    def forward(self, x):
        mean, std = self.both
        return (x - mean) / std


class OwnBuffers(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.shift, self.scale = nn.Buffer(-mean), nn.Buffer(1 / std)

    def forward(self, x):
        return (x + self.shift) * self.scale


class AsAttributes(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    forward = Standardize.forward


class Beside(Standardize):
    """Registers both, and computes with others."""

    def __init__(self, mean, std):
        super().__init__(mean, std)
        self.m, self.s = mean, std

    def forward(self, x):
        return (x - self.m) / self.s


class BesideAndMoved(Beside):
    def forward(self, x):
        return (x - self.m.to(x)) / self.s.to(x)


class AsLists(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.numbers = mean.tolist(), std.tolist()

    def forward(self, x):
        mean, std = x.new_tensor(self.numbers)
        return (x - mean) / std


class AsParameters(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = nn.Parameter(mean), nn.Parameter(std)

    forward = Standardize.forward


class Unsaved(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    forward = Standardize.forward


class HalfPlain(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.std = std

    forward = Standardize.forward


class OtherOrder(Standardize):
    def forward(self, x):
        return x / self.std - self.mean


class FloatOnly(Standardize):
    def forward(self, x):
        return super().forward(x).float()


class InPlace(Standardize):
    def forward(self, x):
        x -= self.mean
        return x / self.std


def tensors(part):
    return [name for name, value in vars(part).items() if isinstance(value, torch.Tensor)]


def repair(module, register=nn.Module.register_buffer):
    moved = []
    for place, part in module.named_modules():
        for name in tensors(part):
            tensor = getattr(part, name)
            delattr(part, name)
            register(part, name, tensor)
            moved.append(f"{place}.{name}" if place else name)
    return moved


def repair_recursively(module, prefix=""):
    moved = set()
    for name in tensors(module):
        module._buffers[name] = vars(module).pop(name)
        moved.add(prefix + name)
    for name, part in module.named_children():
        moved |= repair_recursively(part, f"{prefix}{name}.")
    return moved


def repair_by_comparing(module):
    before = set(module.state_dict())
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if torch.is_tensor(value):
                del part.__dict__[name]
                part.register_buffer(name, value.clone())
    shared = {name for name, _ in module.named_buffers()}
    return tuple(name for name in module.state_dict() if name not in before and name in shared)


def top_level_only(module):
    names = tensors(module)
    for name in names:
        module.register_buffer(name, vars(module).pop(name))
    return names


def without_deleting(module):
    for part in module.modules():
        for name in tensors(part):
            part.register_buffer(name, getattr(part, name))
    return []


def while_iterating(module):
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                delattr(part, name)
                part.register_buffer(name, value)
    return []


def under_another_name(module):
    names = tensors(module)
    for name in names:
        module.register_buffer(f"{name}_buffer", getattr(module, name))
    return names


def all_anew(module):
    """Registers the buffers that are there already once more, and has them saved."""
    names = repair(module)
    for part in module.modules():
        for name, value in list(part.named_buffers(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, value)
    return names


def frozen_layers(module):
    """Takes the parameters for tensors to be moved."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, value.detach())
    return repair(module)


def removed(module):
    names = repair(module, register=lambda part, name, tensor: None)
    return names


RIGHT = [("buffers.1", answer) for answer in (Standardize, Stacked, OwnBuffers)]
RIGHT += [("buffers.2", answer) for answer in (repair, repair_recursively, repair_by_comparing)]

WRONG = {
    "an instance": ("buffers.1", Standardize(torch.zeros(1), torch.ones(1)), "the class itself"),
    "a function": ("buffers.1", lambda mean, std: Standardize(mean, std), "the class itself"),
    "attributes": ("buffers.1", AsAttributes, "plain attribute"),
    "one attribute": ("buffers.1", HalfPlain, "plain attribute"),
    "attributes beside the buffers": ("buffers.1", Beside, "plain attribute"),
    "attributes that are moved in forward": ("buffers.1", BesideAndMoved, "attributes beside"),
    "lists": ("buffers.1", AsLists, "Nothing is saved"),
    "parameters": ("buffers.1", AsParameters, "an optimizer would change"),
    "not saved": ("buffers.1", Unsaved, "are not saved"),
    "other order": ("buffers.1", OtherOrder, "Subtract first"),
    "float32 only": ("buffers.1", FloatOnly, "not float64"),
    "in place": ("buffers.1", InPlace, "changes the rows"),
    "top level": ("buffers.2", top_level_only, "its part '0' still has ['angles']"),
    "nothing": ("buffers.2", lambda module: [], "it still has ['mask']"),
    "not deleted": ("buffers.2", without_deleting, "What must go first"),
    "while iterating": ("buffers.2", while_iterating, "Go through a copy"),
    "under another name": ("buffers.2", under_another_name, "still has ['mask']"),
    "removed": ("buffers.2", removed, "no buffer afterwards"),
    "parameters instead": (
        "buffers.2",
        lambda m: repair(m, lambda part, name, value: setattr(part, name, nn.Parameter(value))),
        "is a parameter now",
    ),
    "zeros": (
        "buffers.2",
        lambda m: repair(m, lambda part, name, value: part.register_buffer(name, torch.zeros_like(value))),
        "the numbers in 'mask' have changed",
    ),
    "not saved again": (
        "buffers.2",
        lambda m: repair(m, lambda part, name, value: part.register_buffer(name, value, persistent=False)),
        "is not in the state_dict",
    ),
    "all anew": ("buffers.2", all_anew, "was not to be saved"),
    "parameters as buffers": ("buffers.2", frozen_layers, "no longer those that they were"),
    "short names": ("buffers.2", lambda m: [name.split(".")[-1] for name in repair(m)], "the names of the tensors"),
    "a count": ("buffers.2", lambda m: len(repair(m)), "A list of names"),
}

# What would give a solution away.
SECRETS = ["register_buffer(", "persistent=True", "vars(", "named_modules"]


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=SECRETS)


def test_a_class_that_stops():
    class Broken(Standardize):
        def forward(self, x):
            raise KeyError("oops")

    class Unloadable(Standardize):
        def load_state_dict(self, state_dict):
            raise KeyError("oops")

    for broken in (Broken, Unloadable):
        fails(checks.exercise_buffers_1(broken), "stopped with KeyError", "oops")
    fails(checks.exercise_buffers_1(nn.Identity), "Subtract first")
