"""Checkers for appendix D."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn as nn

from ._core import (
    Hint,
    exercise,
    expect,
    expect_close,
    explained,
    read_number,
    read_numbers,
    read_parts,
    read_tensor,
    same,
    self_test,
)

_EXACT = {"rtol": 1e-5, "atol": 1e-9}  # learning rates are small numbers, and a rate one update off is near


@exercise("D.1")
def exercise_d_1(answer: Sequence[float]) -> str:
    """Check (warm-up updates, first update at the peak, rate of the ninth update) of a run of 40 × 8 updates."""
    order = "Three numbers are expected: (warm-up updates, number of the first update at the peak, rate of the ninth)."
    warmup, first, ninth = read_numbers(answer, 3, order)
    batches, epochs, peak = 40, 8, 3.2e-3  # of the run in the exercise, whose warm-up is a tenth of it
    right = batches * epochs // 10
    slips = [(batches // 10, "That is a tenth of one epoch. The share is of all updates of the run.")]
    epochs_too = "a tenth of all updates. How many batches are there in eight epochs?"
    expect_close(warmup, right, "Warm-up updates:", slips, otherwise=epochs_too)
    one_off = "it is one off: updates are counted from 0, as in the table."
    slips = [(right - 1, one_off), (right + 1, one_off)]
    table = "look at the table of section D.2 to see where the ramp ends there."
    expect_close(first, right, "The first update at the peak:", slips, otherwise=table)
    growth = peak / right
    slips = [(9 * growth, "the first update has number 0, so which number has the ninth?")]
    hint = "how much does the rate grow per update?"
    expect_close(ninth, 8 * growth, "Rate of the ninth update:", slips, atol=0, otherwise=hint)
    return (
        "320 updates, a tenth of them for the warm-up: numbers 0 to 31 are below the peak and number 32 is the first "
        "at it. The rate grows by 3.2e-3 / 32 = 1e-4 per update, and the ninth update is number 8."
    )


@exercise("D.2", "linear_schedule(step, total_steps, warmup_steps, peak_lr, initial_lr, min_lr)")
def exercise_d_2(answer: Callable[..., float]) -> str:
    """Check `linear_schedule(step, total_steps, warmup_steps, peak_lr, initial_lr, min_lr)`."""

    def right(step: int, total: int, warmup: int, peak: float, initial: float, low: float) -> float:
        if step < warmup:
            return initial + step * (peak - initial) / warmup
        return peak + (low - peak) * (step - warmup) / max(1, total - warmup)

    for total, warmup, peak, initial, low in (
        (100, 20, 1.0, 0.1, 0.0),
        (135, 27, 5e-4, 1e-5, 1e-5),
        (40, 0, 2e-3, 1e-5, 1e-4),
        (11, 3, 0.5, 0.25, 0.125),
        (10, 10, 1.0, 0.0, 0.0),
    ):
        case = f"total_steps={total}, warmup_steps={warmup}, peak_lr={peak:g}, initial_lr={initial:g}, min_lr={low:g}"
        for step in range(total):
            with explained(ZeroDivisionError, f"Tried step {step} with {case}. Both parts can be empty."):
                got = read_number(answer(step, total, warmup, peak, initial, low))
            span = max(1, total - warmup)
            cosine = low + (peak - low) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / span))
            if step < warmup:
                where = "In the warm-up"
                one_ahead = right(step + 1, total, warmup, peak, initial, low)
                slips = [(one_ahead, "The warm-up runs one update ahead: update 0 has the rate initial_lr.")]
            else:
                where = "In the decay"
                from_zero, to_zero = peak + (low - peak) * step / total, peak * (1 - (step - warmup) / span)
                slips = [
                    (cosine, "That is the half cosine of section D.2; a straight line is asked for."),
                    (
                        from_zero,
                        "The decay counts from update 0. It has to begin, at the peak, where the warm-up ends.",
                    ),
                    (to_zero, "The line goes down to 0; it has to end at min_lr."),
                ]
            rate = right(step, total, warmup, peak, initial, low)
            expect_close(got, rate, f"{where}, at step {step} with {case}.", slips, **_EXACT)
    return (
        "Up one straight line and down another, meeting at the peak, with either part allowed to be empty. This shape "
        "is in wide use too; the average rate over the decay is the same as under the cosine."
    )


def _gradients(generator: torch.Generator, size: float) -> list[torch.Tensor]:
    return [size * torch.randn(shape, generator=generator) for shape in ((3, 2), (4,), (2, 2, 2))]


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@exercise("D.3", "clip_by_norm(gradients, max_norm)")
def exercise_d_3(answer: Callable[..., Sequence[torch.Tensor]]) -> str:
    """Check `clip_by_norm(gradients, max_norm)`, which returns new gradients of a common norm of at most max_norm."""
    generator = torch.Generator().manual_seed(7)
    for size, max_norm in ((3.0, 1.0), (0.1, 1.0), (1.0, 0.5), (5.0, 2.5)):
        gradients = _gradients(generator, size)
        norm = _flat(gradients).norm().item()
        got = answer([g.clone() for g in gradients], max_norm)
        order = "clip_by_norm must return a list with one tensor for each gradient, in its shape."
        got = [read_tensor(part) for part in read_parts(got, len(gradients), order)]
        expect([part.shape for part in got] == [g.shape for g in gradients], order)
        slips = [
            (
                [g.clamp(-max_norm, max_norm) for g in gradients],
                "That clips each number by itself, which turns the gradient to another direction.",
            ),
            (
                [g * min(1.0, max_norm / g.norm().item()) for g in gradients],
                "Each tensor is clipped by its own norm. All of them together have one norm and get one factor.",
            ),
        ]
        if norm <= max_norm:
            longer = "A gradient that is shorter than max_norm was made longer. Clipping only ever shortens."
            slips.append(([g * max_norm / norm for g in gradients], longer))
        flat = [(_flat(parts), hint) for parts, hint in slips]
        now = _flat(got).norm().item()
        hint = f"Gradients of norm {norm:.4g} with max_norm={max_norm:g} came back with norm {now:.4g}."
        if norm <= max_norm:
            hint = "A gradient that is shorter than max_norm must come back as it was."
        clipped = _flat([g * min(1.0, max_norm / norm) for g in gradients])
        expect_close(_flat(got), clipped, "", flat, otherwise=hint)
    return (
        "One norm for all gradients together, one factor for all of them, and nothing done to gradients that are short "
        "enough. The direction is kept, between the tensors too."
    )


@exercise("D.4", "longest_gradient(model)")
def exercise_d_4(answer: Callable[[nn.Module], tuple[str, float]]) -> str:
    """Check `longest_gradient(model)` -> (name of the parameter whose gradient has the largest norm, that norm)."""
    generator = torch.Generator().manual_seed(11)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2))
    cases = [{"0.weight": -2.0, "1.bias": 0.5}, {"2.bias": 3.0}, {"1.weight": 1.0, "0.bias": 1.6}, {"2.weight": -4.0}]
    for number, boosts in enumerate(cases):
        for name, parameter in model.named_parameters():
            values = torch.rand(parameter.shape, generator=generator) * boosts.get(name, 0.05)
            parameter.grad = None if number == 2 and name == "2.weight" else values
        given = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        norms = {name: grad.norm().item() for name, grad in given.items()}
        longest = max(norms, key=norms.get)
        name, norm = read_parts(answer(model), 2, "Return two things: (name, norm).")
        norm = read_number(norm, "The norm")
        if name == longest and same(norm, norms[longest], atol=0):
            continue
        single = "That is the largest single entry. The norm takes all entries of a gradient into account."
        slips = [
            (norms[longest] ** 2, "That is the sum of the squares; the norm is the square root of it."),
            (max(grad.max().item() for grad in given.values()), single),
            (max(grad.abs().max().item() for grad in given.values()), single),
            (
                math.sqrt(sum(value**2 for value in norms.values())),
                "That is the norm of all gradients together; the largest of the single ones is asked for.",
            ),
        ]
        for wrong, hint in slips:
            expect(not same(norm, wrong, atol=0), hint)
        weights = {name: parameter.norm().item() for name, parameter in model.named_parameters()}
        of_weights = name == max(weights, key=weights.get)
        expect(name == longest or not of_weights, "Those are weights. Look at their gradients.")
        expect(name == longest, f"The gradient of {name} is not the longest. Do its negative entries count as well?")
        raise Hint(f"The name is right; its norm is {norms[longest]:.4g}, and you returned {norm:.4g}.")
    return (
        "You went through the named parameters, left out those without a gradient, and compared lengths rather than "
        "single entries, so that negative entries count as much as positive ones."
    )


@exercise("D.5", "number_of_updates(batches, accumulate, epochs)")
def exercise_d_5(answer: Callable[[int, int, int], int]) -> str:
    """Check `number_of_updates(batches, accumulate, epochs)`."""
    for batches, accumulate, epochs in ((12, 4, 1), (9, 1, 15), (9, 4, 15), (130, 8, 5), (7, 7, 2), (20, 3, 10)):
        got = read_number(answer(batches, accumulate, epochs))
        reaches = "a group of batches does not reach over into the next epoch."
        slips = [
            (batches * epochs, "that counts batches, not updates."),
            (batches // accumulate * epochs, "the batches left at the end of an epoch make an update too."),
            (math.ceil(batches * epochs / accumulate), reaches),
            (batches * epochs // accumulate, reaches),
        ]
        updates = math.ceil(batches / accumulate) * epochs
        case = f"With batches={batches}, accumulate={accumulate}, epochs={epochs}:"
        whole = "" if got.is_integer() else f"{got:g} is not a whole number of updates."
        expect_close(got, updates, case, slips, otherwise=whole)
    return (
        "Each epoch has its full groups and, if batches are left over, one more update. A schedule has to be planned "
        "with this number, not with the number of batches, or it would be cut off early."
    )


self_test_d = self_test("d", "appendix_d")
