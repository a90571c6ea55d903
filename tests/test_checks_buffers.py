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


class AsAttributes(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    forward = Standardize.forward


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


class OtherOrder(Standardize):
    def forward(self, x):
        return x / self.std - self.mean


class FloatOnly(Standardize):
    def forward(self, x):
        return super().forward(x).float()


def kinds(module):
    found = {name: "parameter" for name, _ in module.named_parameters()}
    for name, _ in module.named_buffers():
        found[name] = "saved buffer" if name in module.state_dict() else "unsaved buffer"
    return found


def from_state_dict(module):
    parameters = dict(module.named_parameters())
    return {name: "parameter" if name in parameters else "saved buffer" for name in module.state_dict()}


def all_saved(module):
    return {name: kind.replace("unsaved", "saved") for name, kind in kinds(module).items()}


def by_gradient(module):
    return kinds(module) | {n: "saved buffer" for n, p in module.named_parameters() if not p.requires_grad}


RIGHT = [("buffers.1", Standardize), ("buffers.2", kinds)]

WRONG = {
    "an instance": ("buffers.1", Standardize(torch.zeros(1), torch.ones(1)), "the class itself"),
    "attributes": ("buffers.1", AsAttributes, "plain attribute"),
    "parameters": ("buffers.1", AsParameters, "an optimizer would change"),
    "not saved": ("buffers.1", Unsaved, "are not saved"),
    "other order": ("buffers.1", OtherOrder, "Subtract first"),
    "float32 only": ("buffers.1", FloatOnly, "not float64"),
    "state_dict alone": ("buffers.2", from_state_dict, "leaves out some buffers"),
    "all saved": ("buffers.2", all_saved, "whether a buffer is saved"),
    "frozen": ("buffers.2", by_gradient, "are parameters still"),
    "other words": ("buffers.2", lambda m: dict.fromkeys(kinds(m), "buffer"), "not among the three"),
    "names alone": ("buffers.2", lambda m: list(kinds(m)), "A dictionary from names"),
    "plain attribute": ("buffers.2", lambda m: kinds(m) | {"plain": "unsaved buffer"}, "neither a parameter nor"),
}

# What would give a solution away.
SECRETS = ["register_buffer", "in module.state_dict"]


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
    fails(checks.exercise_buffers_1(nn.Identity), "has 0 buffers")
    fails(checks.exercise_buffers_1(lambda mean, std: nn.Identity()), "the class itself")
