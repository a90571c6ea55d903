"""What holds around a function: its arguments are checked before it runs, the model's mode is restored after it.

The decorators here let the notebooks show a function without its checks, while `helpers` ships the same function with
them.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .files import existing_file


def guard(check: Callable[..., None]) -> Callable[[Callable], Callable]:
    """A decorator that calls `check` with those arguments of a function that it names, before the function itself.

    `check` raises ValueError for what the function cannot work with.
    """
    names = list(inspect.signature(check).parameters)

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def guarded(*arguments, **options):
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            check(**{name: bound.arguments[name] for name in names})
            return function(*arguments, **options)

        return guarded

    return decorate


def adapt(name: str, convert: Callable[[Any], Any]) -> Callable[[Callable], Callable]:
    """A decorator that gives a function `convert(argument)` in place of its argument `name`."""

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def adapting(*arguments, **options):
            bound = signature.bind(*arguments, **options)
            bound.arguments[name] = convert(bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return adapting

    return decorate


def printable(function: Callable) -> Callable:
    """A decorator: what the function prints reaches terminals of any encoding; letters that they lack become "?"."""

    @functools.wraps(function)
    def printing(*arguments, **options):
        output, errors = sys.stdout, getattr(sys.stdout, "errors", None)
        if errors != "strict" or not hasattr(output, "reconfigure"):
            return function(*arguments, **options)
        output.reconfigure(errors="replace")
        try:
            return function(*arguments, **options)
        finally:
            output.reconfigure(errors=errors)

    return printing


def expects_numbers(function: Callable) -> Callable:
    """A decorator: the function's argument `model` raises ValueError where its logits are NaN, instead of giving them.

    Greedy choice would take token 0 for ever from such logits ("!!!!" in GPT-2's vocabulary) and say nothing.
    """
    return adapt("model", lambda model: lambda in_idx: check_numbers(model(in_idx)))(function)


def takes_file(function: Callable) -> Callable:
    """A decorator: the function's argument `path` is a file that exists, also one in the home folder, "~".

    Brackets in it that are nested too deeply to be read raise ValueError.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def finding(*arguments, **options):
        bound = signature.bind(*arguments, **options)
        path = bound.arguments["path"]
        bound.arguments["path"] = existing_file(path)
        try:
            return function(*bound.args, **bound.kwargs)
        except RecursionError:
            raise ValueError(f"{path} is nested too deeply to be read") from None

    return finding


def check_numbers(logits: torch.Tensor) -> torch.Tensor:
    """The logits, or ValueError if some are NaN."""
    if logits.isnan().any():
        raise ValueError("logits contain NaN: the model's weights are no longer numbers (did its training diverge?)")
    return logits


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Put a model into evaluation mode (no dropout) for a `with` block, and back into the mode that it was in.

    It goes back after an error and after Ctrl-C too, and each module to a mode of its own: what was in evaluation mode
    before, such as a frozen part of a model in training, is in it afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
