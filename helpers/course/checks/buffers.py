"""Checkers for the bonus notebook on buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from ._core import Hint, call, exercise, expect, expect_close, expect_kind, explained, same, self_test


@exercise("buffers.1")
def exercise_buffers_1(answer: Callable[..., nn.Module]) -> str:
    """`Standardize(mean, std)`: (x - mean) / std, with both in buffers that are saved."""
    expect(
        isinstance(answer, type) and issubclass(answer, nn.Module),
        "Hand in the class itself, a subclass of nn.Module, not an instance of it and not a function.",
    )
    generator = torch.Generator().manual_seed(101)
    for size in (1, 3, 5):
        mean, std = torch.randn(size, generator=generator), torch.rand(size, generator=generator) + 0.5
        x = torch.randn(4, size, generator=generator)
        right = (x - mean) / std

        def make(mean=mean, std=std) -> nn.Module:
            return call(answer, mean.clone(), std.clone())

        module, given = make(), x.clone()
        names = [name for name, _ in module.named_parameters()]
        expect(not names, f"Your module has the parameters {names}, which an optimizer would change.")
        expect_close(call(module, given), right, "This is the output for random rows. Subtract first, then divide.")
        expect(torch.equal(given, x), "Your forward changes the rows that it is given; return new ones.")
        _expect_moves(make, x)
        buffers, fresh = dict(module.named_buffers()), call(answer, torch.zeros(size), torch.ones(size))
        unsaved = sorted(set(buffers) - set(module.state_dict()))
        call(fresh.load_state_dict, module.state_dict())
        output = call(fresh, x)
        if not same(output, right):
            expect(
                not unsaved, f"The buffers {unsaved} are not saved, but nothing else holds the numbers that they hold."
            )
            expect(bool(module.state_dict()), "Nothing is saved: the state_dict of your module is empty.")
            raise Hint("A module that loaded the state of another computes something else than that one.")
        # With assign=True the buffers become other tensors; what an attribute beside them holds stays.
        fresh = call(answer, torch.zeros(size), torch.ones(size))
        call(fresh.load_state_dict, module.state_dict(), assign=True)
        hint = "This is the output after load_state_dict(state, assign=True), which puts new tensors into the buffers. "
        expect_close(call(fresh, x), right, f"{hint}Does forward compute with the buffers, or with attributes beside?")
    return (
        "Both move with the module, are in its state_dict, and are left alone by optimizers: they are measured from "
        "the data, not learned by gradients, and cannot be made again from the sizes alone."
    )


def _expect_moves(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    """Raise `Hint` unless a module that was moved, or changed to another number format, works on rows like these."""
    plain = "forward computes with a tensor that did not go along. An assigned tensor is a plain attribute."
    with explained(RuntimeError, f"After .to('meta'), {plain}", "device"):
        moved = call(make().to("meta"), x.to("meta"))
    expect(isinstance(moved, torch.Tensor) and moved.is_meta, "After .to('meta'), the output is not on meta.")
    for dtype in (torch.float64, torch.bfloat16):
        got = call(make().to(dtype), x.to(dtype))
        name = str(dtype).removeprefix("torch.")
        expect(
            getattr(got, "dtype", None) == dtype,
            f"After .to(torch.{name}), the output for {name} rows is not {name}: what does forward compute with?",
        )


def _holder(**tensors: torch.Tensor) -> nn.Module:
    module = nn.Module()
    for name, tensor in tensors.items():
        setattr(module, name, tensor)
    return module


def _broken_modules() -> Iterable[tuple[str, nn.Module, list[str]]]:
    """Modules with plain tensors in them: what each is, and the names of these tensors."""
    yield "a module with one plain tensor", _holder(mask=torch.ones(2, 2).tril()), ["mask"]
    mixed = _holder(mask=torch.ones(3, dtype=torch.bool), scale=torch.rand(3))
    mixed.layer, mixed.steps, mixed.label, mixed.nothing = nn.Linear(3, 3), [1, 2], "mixed", None
    mixed.register_buffer("positions", torch.arange(3), persistent=False)
    yield "a module with a layer, a buffer, two plain tensors and attributes of other kinds", mixed, ["mask", "scale"]
    nested = nn.Sequential(_holder(angles=torch.rand(4)), nn.BatchNorm1d(4), nn.Sequential(_holder(mean=torch.rand(2))))
    yield "nested modules", nested, ["0.angles", "2.0.mean"]
    part = _holder(mask=torch.ones(2))
    twice = nn.Module()
    twice.first, twice.second = part, part
    yield "a module that holds the same part under two names", twice, ["first.mask"]
    yield "a module with nothing to repair", nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), []


@exercise("buffers.2", "repair(module)")
def exercise_buffers_2(answer: Callable[[nn.Module], Iterable[str]]) -> str:
    """`repair(module)`: plain tensors of a module and its parts become saved buffers; returns their names."""
    for what, module, names in _broken_modules():
        tensors = {name: module.get_submodule(name.rpartition(".")[0]) for name in names}
        tensors = {name: vars(part)[name.rpartition(".")[2]] for name, part in tensors.items()}
        parameters, saved = dict(module.named_parameters()), set(module.state_dict())
        unsaved = set(dict(module.named_buffers())) - saved
        where = f"Tried with {what}: "
        exists = where + "register_buffer refuses a name that the module has already. What must go first?"
        changed = where + "the dictionary of attributes changes while you go through it. Go through a copy."
        with explained(KeyError, exists, "already exists"), explained(RuntimeError, changed, "changed (size|during)"):
            got = answer(module)
        expect_kind(got, list | tuple | set, "A list of names")
        for part_name, part in module.named_modules():
            left = sorted(name for name, value in vars(part).items() if isinstance(value, torch.Tensor))
            place = f"its part {part_name!r}" if part_name else "it"
            expect(not left, where + f"afterwards {place} still has {left} as plain attributes.")
        buffers, state = dict(module.named_buffers()), module.state_dict()
        for name, tensor in tensors.items():
            expect(
                name not in dict(module.named_parameters()),
                where + f"{name!r} is a parameter now; an optimizer would train it.",
            )
            expect(name in buffers, where + f"{name!r} is no buffer afterwards, and no plain attribute either.")
            expect(torch.equal(buffers[name], tensor), where + f"the numbers in {name!r} have changed.")
            expect(name in state, where + f"{name!r} is not in the state_dict, so that a file would not have it.")
        now = dict(module.named_parameters())
        kept = now.keys() == parameters.keys() and all(now[name] is parameters[name] for name in now)
        expect(kept, where + "the parameters are no longer those that they were.")
        expect(not unsaved & set(state), where + f"{sorted(unsaved)} was not to be saved, and now it is.")
        extra = sorted(set(buffers) - saved - unsaved - set(names))
        expect(not extra, where + f"{extra} is a buffer now and was not there before.")
        moved = dict(module.to("meta").named_buffers())
        expect(all(tensor.is_meta for tensor in moved.values()), where + "not all buffers move with it.")
        expect(
            sorted(map(str, got)) == sorted(names),
            where + f"you return {sorted(map(str, got))}; the names of the tensors that were moved, with those of the "
            f"parts before them as in named_buffers(), are {sorted(names)}.",
        )
    return (
        "Whatever was a plain tensor now moves, is saved and stays out of the optimizer's reach. Run it once on a "
        "module that you did not write: the names that it returns are the mistakes."
    )


self_test_buffers = self_test("buffers", "buffers")
