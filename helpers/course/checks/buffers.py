"""Checkers for the bonus notebook on buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ._core import Question, exercise, expect, expect_close, expect_function, self_test

__all__ = ["exercise_buffers_1", "exercise_buffers_2", "self_test_buffers"]


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
        module = answer(mean.clone(), std.clone())
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
        expect_close(module(x), (x - mean) / std, "This is the output for random rows. Subtract first, then divide.")
        double = module.to(torch.float64)(x.double())
        expect(double.dtype == torch.float64, "After .to(torch.float64), the output for float64 rows is not float64.")
        other = answer(torch.zeros(size), torch.ones(size))
        other.load_state_dict(answer(mean.clone(), std.clone()).state_dict())
        expect_close(other(x), (x - mean) / std, "This is the output of a module that loaded the state of another.")
    return (
        "Both tensors move with the module, are in its state_dict, and are left alone by optimizers: they are "
        "measured from the data, not learned by gradients, and cannot be made again from the sizes alone."
    )


@exercise("buffers.2")
def exercise_buffers_2(answer: Callable[[nn.Module], Mapping[str, str]]) -> str:
    """`kinds(module)`: for every parameter and buffer by name which of the three kinds it is."""
    expect_function(answer, "kinds(module)")
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
        wanted = dict.fromkeys((name for name, _ in module.named_parameters()), "parameter")
        for name, _ in module.named_buffers():
            wanted[name] = "saved buffer" if name in module.state_dict() else "unsaved buffer"
        got = answer(module)
        where = f"For {str(module).splitlines()[0].rstrip('(')}: "
        expect(isinstance(got, Mapping), f"A dictionary from names to kinds is wanted, not {type(got).__name__}.")
        strange = sorted({str(kind) for kind in got.values()} - {"parameter", "saved buffer", "unsaved buffer"})
        expect(not strange, f"The kinds {strange} are not among the three of the exercise.")
        missing = sorted(set(wanted) - set(got))
        expect(
            not missing,
            where + f"{missing} is missing. A state_dict leaves out some buffers; module.named_buffers() has them all.",
        )
        extra = sorted(set(got) - set(wanted))
        expect(not extra, where + f"{extra} is neither a parameter nor a buffer with a tensor in it.")
        wrong = sorted(name for name in wanted if got[name] != wanted[name])
        if wrong:
            name = wrong[0]
            expect(
                wanted[name] != "parameter",
                where + f"you call {name} a {got[name]}. Parameters whose requires_grad is False are parameters still.",
            )
            expect(False, where + f"you call {name} a {got[name]}. Whether a buffer is saved, its state_dict tells.")
    return (
        "Parameters come from named_parameters, buffers from named_buffers, and a buffer is saved if its name is in "
        "the state_dict. A plain tensor appears nowhere, which is what is wrong with it."
    )


_BUFFER_QUESTIONS = [
    Question(
        "A module keeps its mask as a plain attribute. What happens after model.to('cuda')?",
        {
            "a": (False, "A module cannot know which of its attributes you meant; it moves what was registered."),
            "b": (True, "and the first operation on both stops with an error about two devices."),
            "c": (False, "PyTorch never copies between devices by itself, as that would be slow without saying so."),
        },
    ),
    Question(
        "Which tensor should be a buffer with persistent=True?",
        {
            "a": (True, "it was gathered from the data, and nothing but the file can bring it back."),
            "b": (False, "It can be made from the context length alone, so saving it only makes files larger."),
            "c": (False, "What is learned by gradients is a parameter, so that optimizers find it."),
        },
    ),
    Question(
        "A checkpoint was saved with masks; the model now has persistent=False. What does load_state_dict say?",
        {
            "a": (False, "strict=True is the default, and it wants both sides to have the same names."),
            "b": (False, "Missing are names that the model has and the file has not; here it is the other way round."),
            "c": (True, "the file has names that the model no longer saves; leave them out before loading."),
        },
    ),
    Question(
        "Does model.to(torch.float16) change a boolean mask that is a buffer?",
        {
            "a": (True, "dtypes change for floating-point tensors only; a move to a device changes every buffer."),
            "b": (False, "It would be converted if it were a floating-point mask; booleans and integers stay."),
            "c": (False, "There is no error: what is not a floating-point tensor is left as it is."),
        },
    ),
]

self_test_buffers = self_test("buffers", _BUFFER_QUESTIONS)
