"""Checkers for the bonus notebook on buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ._core import Hint, call, exercise, expect, expect_close, expect_kind, self_test


@exercise("buffers.1")
def exercise_buffers_1(answer: Callable[..., nn.Module]) -> str:
    """`Standardize(mean, std)`: (x - mean) / std, with both as buffers that are saved."""
    expect(
        isinstance(answer, type) and issubclass(answer, nn.Module),
        "Hand in the class itself, a subclass of nn.Module, not an instance of it.",
    )
    generator = torch.Generator().manual_seed(101)
    for size in (1, 3, 5):
        mean, std = torch.randn(size, generator=generator), torch.rand(size, generator=generator) + 0.5
        module = call(answer, mean.clone(), std.clone())
        x = torch.randn(4, size, generator=generator)
        names = [name for name, _ in module.named_parameters()]
        expect(not names, f"Your module has the parameters {names}, which an optimizer would change.")
        buffers = dict(module.named_buffers())
        expect(
            len(buffers) >= 2,
            f"Your module has {len(buffers)} buffers; mean and std should both be. An assigned tensor is a plain "
            "attribute, which PyTorch does not know of.",
        )
        unsaved = sorted(set(buffers) - set(module.state_dict()))
        expect(not unsaved, f"The buffers {unsaved} are not saved, but nothing else holds the numbers that they hold.")
        right = (x - mean) / std
        expect_close(call(module, x), right, "This is the output for random rows. Subtract first, then divide.")
        double = call(module.to(torch.float64), x.double())
        expect(double.dtype == torch.float64, "After .to(torch.float64), the output for float64 rows is not float64.")
        other = call(answer, torch.zeros(size), torch.ones(size))
        call(other.load_state_dict, call(answer, mean.clone(), std.clone()).state_dict())
        expect_close(call(other, x), right, "This is the output of a module that loaded the state of another.")
    return (
        "Both tensors move with the module, are in its state_dict, and are left alone by optimizers: they are "
        "measured from the data, not learned by gradients, and cannot be made again from the sizes alone."
    )


@exercise("buffers.2", "kinds(module)")
def exercise_buffers_2(answer: Callable[[nn.Module], Mapping[str, str]]) -> str:
    """`kinds(module)`: for every parameter and buffer by name which of the three kinds it is."""
    attention = nn.Module()
    attention.register_buffer("mask", torch.ones(2, 2), persistent=False)
    attention.key = nn.Linear(2, 2, bias=False)
    frozen = nn.Linear(2, 1).requires_grad_(False)
    nested = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), attention)
    nested.register_buffer("scale", torch.ones(1))
    nested.plain = torch.ones(1)
    empty = nn.Module()
    empty.register_buffer("later", None)
    for module in (nn.Linear(2, 2), nn.BatchNorm1d(4), attention, nested, frozen, nn.ReLU(), empty):
        right = dict.fromkeys((name for name, _ in module.named_parameters()), "parameter")
        for name, _ in module.named_buffers():
            right[name] = "saved buffer" if name in module.state_dict() else "unsaved buffer"
        got = answer(module)
        where = f"For {str(module).splitlines()[0].rstrip('(')}: "
        expect_kind(got, Mapping, "A dictionary from names to kinds")
        strange = sorted({str(kind) for kind in got.values()} - {"parameter", "saved buffer", "unsaved buffer"})
        expect(not strange, f"The kinds {strange} are not among the three of the exercise.")
        missing = sorted(set(right) - set(got))
        expect(
            not missing,
            where + f"{missing} is missing. A state_dict leaves out some buffers; module.named_buffers() has them all.",
        )
        extra = sorted(map(str, set(got) - set(right)))
        expect(not extra, where + f"{extra} is neither a parameter nor a buffer with a tensor in it.")
        wrong = sorted(name for name in right if got[name] != right[name])
        if wrong:
            name = wrong[0]
            where += f"you call {name} a {got[name]}."
            expect(right[name] != "parameter", f"{where} Parameters whose requires_grad is False are parameters still.")
            raise Hint(f"{where} The state_dict tells whether a buffer is saved.")
    return (
        "Parameters come from named_parameters, buffers from named_buffers, and a buffer is saved if its name is in "
        "the state_dict. A plain tensor appears nowhere, which is what is wrong with it."
    )


self_test_buffers = self_test("buffers", "buffers")
