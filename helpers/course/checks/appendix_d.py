"""Checkers for appendix D."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
import torch.nn as nn

from ._core import Hint, Question, exercise, expect, expect_function, self_test

__all__ = ["exercise_d_1", "exercise_d_2", "exercise_d_3", "exercise_d_4", "exercise_d_5", "self_test_d"]


def _number(value: Any, what: str) -> float:
    """`value` as a float; raises Hint unless it is a number (or a tensor of one)."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    expect(isinstance(value, Real), f"{what} must be a number, not {type(value).__name__}.")
    return float(value)


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-9)


@exercise("D.1")
def exercise_d_1(answer: Sequence[float]) -> str:
    """Check (warm-up updates, first update at the peak, rate of the ninth update) of a run of 40 × 8 updates."""
    expect(
        isinstance(answer, tuple | list) and len(answer) == 3,
        "Three numbers are wanted: (warm-up updates, number of the first update at the peak, rate of the ninth).",
    )
    warmup, first, ninth = (_number(value, "Each of the three") for value in answer)
    expect(warmup != 4, "That is a tenth of one epoch. The share is of all updates of the run.")
    expect(warmup == 32, "Warm-up updates: a tenth of all updates. How many batches are there in eight epochs?")
    expect(
        first not in (31, 33), "The first update at the peak is one off: updates are counted from 0, as in the table."
    )
    expect(
        first == 32, "The first update at the peak: look at the table of section D.2 to see where the ramp ends there."
    )
    expect(
        not _near(ninth, 9e-4) and not math.isclose(ninth, 9e-4, rel_tol=0.02),
        "Rate of the ninth update: the first update has number 0, so which number has the ninth?",
    )
    expect(math.isclose(ninth, 8e-4, rel_tol=1e-3), "Rate of the ninth update: how much does the rate grow per update?")
    return (
        "320 updates, a tenth of them for the warm-up: numbers 0 to 31 are below the peak and number 32 is the first "
        "at it. The rate grows by 3.2e-3 / 32 = 1e-4 per update, and the ninth update is number 8."
    )


@exercise("D.2")
def exercise_d_2(answer: Callable[..., float]) -> str:
    """Check `linear_schedule(step, total_steps, warmup_steps, peak_lr, initial_lr, min_lr)`."""
    expect_function(answer, "linear_schedule(step, total_steps, warmup_steps, peak_lr, initial_lr, min_lr)")

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
            try:
                got = _number(answer(step, total, warmup, peak, initial, low), "What linear_schedule returns")
            except ZeroDivisionError:
                raise Hint(f"Division by zero at step {step} with {case}. Both parts can be empty.") from None
            want = right(step, total, warmup, peak, initial, low)
            if _near(got, want):
                continue
            if step < warmup:
                expect(
                    not _near(got, right(step + 1, total, warmup, peak, initial, low)),
                    f"The warm-up runs one update ahead: update 0 has the rate initial_lr ({case}).",
                )
                raise Hint(f"In the warm-up, at step {step} with {case}: expected {want:.6g}, got {got:.6g}.")
            span = max(1, total - warmup)
            cosine = low + (peak - low) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / span))
            expect(not _near(got, cosine), "That is the half cosine of section D.2; a straight line is asked for.")
            expect(
                not _near(got, peak + (low - peak) * step / total),
                "The decay counts from update 0. It has to begin, at the peak, where the warm-up has ended.",
            )
            expect(
                not _near(got, peak * (1 - (step - warmup) / span)),
                f"The line goes down to 0. With {case} it has to end at min_lr.",
            )
            raise Hint(f"In the decay, at step {step} with {case}: expected {want:.6g}, got {got:.6g}.")
    return (
        "Up one straight line and down another, meeting at the peak, with either part allowed to be empty. This shape "
        "is in wide use too; the average rate over the decay is the same as under the cosine."
    )


def _gradients(generator: torch.Generator, size: float) -> list[torch.Tensor]:
    return [size * torch.randn(shape, generator=generator) for shape in ((3, 2), (4,), (2, 2, 2))]


@exercise("D.3")
def exercise_d_3(answer: Callable[..., Sequence[torch.Tensor]]) -> str:
    """Check `clip_by_norm(gradients, max_norm)`, which returns new gradients of a common norm of at most max_norm."""
    expect_function(answer, "clip_by_norm(gradients, max_norm)")
    generator = torch.Generator().manual_seed(7)
    for size, max_norm in ((3.0, 1.0), (0.1, 1.0), (1.0, 0.5), (5.0, 2.5)):
        gradients = _gradients(generator, size)
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        got = answer([g.clone() for g in gradients], max_norm)
        expect(
            isinstance(got, tuple | list)
            and len(got) == len(gradients)
            and all(isinstance(a, torch.Tensor) and a.shape == b.shape for a, b in zip(got, gradients, strict=True)),
            "clip_by_norm must return a list with one tensor for each gradient, in its shape.",
        )

        def same(others: Sequence[torch.Tensor], got: Sequence[torch.Tensor] = got) -> bool:
            return all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(got, others, strict=True))

        if same([g * min(1.0, max_norm / norm) for g in gradients]):
            continue
        expect(
            not same([g.clamp(-max_norm, max_norm) for g in gradients]),
            "That clips each number by itself, which turns the gradient to another direction.",
        )
        expect(
            not same([g * min(1.0, max_norm / g.norm().item()) for g in gradients]),
            "Each tensor is clipped by its own norm. All of them together have one norm and get one factor.",
        )
        expect(
            norm > max_norm or not same([g * max_norm / norm for g in gradients]),
            "A gradient that is shorter than max_norm was made longer. Clipping only ever shortens.",
        )
        expect(norm > max_norm, "A gradient that is shorter than max_norm must come back as it was.")
        now = math.sqrt(sum(g.float().square().sum().item() for g in got))
        raise Hint(f"Gradients of norm {norm:.4g} with max_norm={max_norm:g} came back with norm {now:.4g}.")
    return (
        "One norm for all gradients together, one factor for all of them, and nothing done to gradients that are short "
        "enough. The direction is kept, between the tensors too."
    )


@exercise("D.4")
def exercise_d_4(answer: Callable[[nn.Module], tuple[str, float]]) -> str:
    """Check `longest_gradient(model)` -> (name of the parameter whose gradient has the largest norm, that norm)."""
    expect_function(answer, "longest_gradient(model)")
    generator = torch.Generator().manual_seed(11)
    with torch.random.fork_rng(devices=[]):  # the layers' first weights are drawn from the global state
        torch.manual_seed(11)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2))
    cases = [{"0.weight": -2.0, "1.bias": 0.5}, {"2.bias": 3.0}, {"1.weight": 1.0, "0.bias": 1.6}, {"2.weight": -4.0}]
    for number, boosts in enumerate(cases):
        for name, parameter in model.named_parameters():
            values = torch.rand(parameter.shape, generator=generator) * boosts.get(name, 0.05)
            parameter.grad = None if number == 2 and name == "2.weight" else values
        given = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        norms = {name: grad.norm().item() for name, grad in given.items()}
        want = max(norms, key=norms.get)
        got = answer(model)
        expect(isinstance(got, tuple | list) and len(got) == 2, "Return two things: (name, norm).")
        name, norm = got[0], _number(got[1], "The norm")
        if name == want and math.isclose(norm, norms[want], rel_tol=1e-3):
            continue
        expect(
            not math.isclose(norm, norms[want] ** 2, rel_tol=1e-3),
            "That is the sum of the squares; the norm is the square root of it.",
        )
        entries = {name: grad.max().item() for name, grad in given.items()}
        sizes = {name: grad.abs().max().item() for name, grad in given.items()}
        expect(
            not any(math.isclose(norm, max(found.values()), rel_tol=1e-3) for found in (entries, sizes)),
            "That is the largest single entry. The norm takes all entries of a gradient into account.",
        )
        total = math.sqrt(sum(value**2 for value in norms.values()))
        expect(
            not math.isclose(norm, total, rel_tol=1e-3),
            "That is the norm of all gradients together; the largest of the single ones is asked for.",
        )
        weights = {name: parameter.norm().item() for name, parameter in model.named_parameters()}
        expect(name != max(weights, key=weights.get) or name == want, "Those are weights. Look at their gradients.")
        expect(name == want, f"The gradient of {name} is not the longest one. Do its negative entries count as well?")
        raise Hint(f"The name is right; its norm is {norms[want]:.4g}, and you returned {norm:.4g}.")
    return (
        "You went through the named parameters, left out those without a gradient, and compared lengths rather than "
        "single entries, so that negative entries count as much as positive ones."
    )


@exercise("D.5")
def exercise_d_5(answer: Callable[[int, int, int], int]) -> str:
    """Check `number_of_updates(batches, accumulate, epochs)`."""
    expect_function(answer, "number_of_updates(batches, accumulate, epochs)")
    for batches, accumulate, epochs in ((12, 4, 1), (9, 1, 15), (9, 4, 15), (130, 8, 5), (7, 7, 2), (20, 3, 10)):
        case = f"batches={batches}, accumulate={accumulate}, epochs={epochs}"
        got = _number(answer(batches, accumulate, epochs), "What number_of_updates returns")
        want = math.ceil(batches / accumulate) * epochs
        if got == want:
            continue
        expect(got != batches * epochs, f"With {case}: that counts batches, not updates.")
        expect(
            got != batches // accumulate * epochs,
            f"With {case}: the batches left at the end of an epoch make an update too.",
        )
        expect(
            got not in (math.ceil(batches * epochs / accumulate), batches * epochs // accumulate),
            f"With {case}: a group of batches does not reach over into the next epoch.",
        )
        expect(got == int(got), f"With {case}: {got:g} is not a whole number of updates.")
        raise Hint(f"With {case}: expected {want}, got {got:g}.")
    return (
        "Each epoch has its full groups and, if batches are left over, one more update. A schedule has to be planned "
        "with this number, not with the number of batches, or it would be cut off early."
    )


_QUESTIONS = (
    Question(
        "Why is the first update of Adam as large for a tiny gradient as for a large one?",
        {
            "a": (False, "both averages begin at zero, but Adam corrects for that; nothing is left over from it."),
            "b": (True, "with one gradient seen, Adam divides it by its own size; only the sign is left."),
            "c": (False, "gradients are not clipped by Adam, and before the first update nothing is known of noise."),
        },
    ),
    Question(
        "A run has 200 updates, 40 of them warm-up. What does the cosine schedule give at update 120?",
        {
            "a": (
                False,
                "that would be the rate three quarters of the way, when the cosine has nearly reached the end.",
            ),
            "b": (True, "update 120 is half-way through the decay, where the half cosine is half-way down."),
            "c": (False, "the peak is reached at update 40, and from there the rate only falls."),
        },
    ),
    Question(
        "What does clipping to norm 1 do to a gradient of norm 0.3?",
        {
            "a": (False, "it never lengthens a gradient; that would blow up the noise near a minimum."),
            "b": (False, "entries are not looked at one by one; that would be clipping by value."),
            "c": (True, "it is short enough, so it stays exactly as it is."),
        },
    ),
    Question(
        "Four batches are accumulated into one update. Why is each loss divided by four?",
        {
            "a": (True, "backward adds gradients up, and the mean of a large batch is the mean of its parts' means."),
            "b": (False, "memory depends on the size of one batch; the numbers in it make no difference."),
            "c": (False, "the learning rate is left alone; it is set by the schedule, once per update."),
        },
    ),
    Question(
        "Why do parameters stay in float32 under mixed precision?",
        {
            "a": (False, "matrix products accept bfloat16, and that is where the time is saved."),
            "b": (False, "the ranges are the same: bfloat16 has float32's exponent."),
            "c": (True, "an update far smaller than a parameter would be rounded away in bfloat16, again and again."),
        },
    ),
)

self_test_d = self_test("d", _QUESTIONS)
