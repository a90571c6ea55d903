"""What holds around a function: its arguments are checked before it runs, the model's mode is restored after it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def guard(check: Callable[..., None]) -> Callable[[Callable], Callable]:
    """A decorator that calls `check` with a function's arguments before the function itself.

    `check` has the same parameters and raises ValueError for what the function cannot work with. So the notebooks can
    show a function without its checks, and `helpers` ships the same function with them.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def guarded(*arguments, **options):
            check(*arguments, **options)
            return function(*arguments, **options)

        return guarded

    return decorate


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Put a model into evaluation mode (no dropout) for a `with` block, and back into the mode that it was in.

    It goes back after an error and after Ctrl-C too, and each module to a mode of its own: what was in evaluation mode
    before, such as a frozen part of a model in training, stays in it.
    """
    in_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield model
    finally:
        for module in in_training:
            module.training = True
