"""Checkers for appendix D."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from ._core import (
    Hint,
    all_agree,
    exercise,
    expect,
    expect_close,
    read_number,
    read_numbers,
    read_parts,
    read_tensor,
    same,
    self_test,
)

Batches = Sequence[tuple[torch.Tensor, torch.Tensor]]


# What an AdamW step can do wrong, with the hint for it.
_ADAM_SLIPS = {
    "uncorrected": "Both averages begin at 0 and are too small at first: the hats, which depend on t, are missing.",
    "from 0": "The correction of the averages is one update off: in the first update t is 1, and one value is seen.",
    "no root": "The second average is one of squares. What is its unit, and what must that of the denominator be?",
    "inside": "Epsilon is added to the root, not to the number under it.",
    "uphill": "The parameter moves up the slope; the loss falls in the other direction.",
    "gradient": "The numerator is the average of the gradients, not the last gradient alone.",
    "no decay": "With weight_decay above 0, the parameter must also shrink a little.",
    "whole decay": "The parameter shrinks by weight_decay in one update; the learning rate belongs into that share.",
    "L2": "The decay is mixed into the gradient, as in Adam with an L2 term. In AdamW it acts on the parameter alone.",
    "old averages": "The parameter moves by the averages from before this update.",
}


def _adamw(p, g, m, v, t, lr, decay, slip: str = "") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step of AdamW with betas 0.9 and 0.999 and epsilon 1e-8: the new p, m and v, in float64."""
    p, g, m, v = (tensor.double() for tensor in (p, g, m, v))
    if slip == "L2":
        g = g + decay * p
    before = m, v
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    used_m, used_v = before if slip == "old averages" else (m, v)
    t = t - 1 if slip == "from 0" else t
    m_hat, v_hat = used_m / used_m.new_tensor(1 - 0.9**t), used_v / used_v.new_tensor(1 - 0.999**t)
    if slip == "uncorrected":
        m_hat, v_hat = used_m, used_v
    if slip == "gradient":
        m_hat = g
    size = {"no root": v_hat + 1e-8, "inside": (v_hat + 1e-8).sqrt()}.get(slip, v_hat.sqrt() + 1e-8)
    shrink = {"no decay": 0.0, "L2": 0.0, "whole decay": decay}.get(slip, lr * decay)
    step = -lr if slip == "uphill" else lr
    return p * (1 - shrink) - step * m_hat / size, m, v


@exercise("D.1", "adamw_step(p, g, m, v, t, lr, weight_decay)")
def exercise_d_1(answer: Callable[..., Sequence[torch.Tensor]]) -> str:
    """Check `adamw_step(p, g, m, v, t, lr, weight_decay)`, which returns the new p, m and v of one update."""
    generator = torch.Generator().manual_seed(5)
    order = "Return three tensors in this order: the new p, the new m, the new v."
    cases, results = [], []
    for shape, t, lr, decay, scale in (
        ((3,), 2, 0.1, 0.0, 1.0),
        ((2, 4), 3, 0.01, 0.1, 1e-3),
        ((5,), 1, 0.1, 0.5, 1.0),
        ((2, 3), 10, 0.05, 0.0, 1e-7),
        ((4,), 400, 0.02, 0.2, 30.0),
    ):
        p, g, m, v = (torch.randn(shape, generator=generator) for _ in range(4))
        g, m, v = scale * g, 0.3 * scale * m, 0.1 * (scale * v) ** 2
        if t == 1:  # the first update finds both averages at 0, and here a gradient that is 0
            g[0], m, v = 0.0, torch.zeros(shape), torch.zeros(shape)
        given = [tensor.clone() for tensor in (p, g, m, v)]
        got = [read_tensor(part) for part in read_parts(answer(*given, t, lr, decay), 3, order)]
        for name, tensor, copy in zip("pgmv", given, (p, g, m, v), strict=True):
            expect(torch.equal(tensor, copy), f"Your function changes {name} in place. Return new tensors.")
        expect(all(part.shape == shape for part in got), f"{order} Each of them has the shape of p.")
        nan = "There is a NaN: with a gradient of 0 in the first update, both averages are 0. What keeps 0 / 0 away?"
        expect(not any(part.isnan().any() for part in got), nan)
        cases.append((p, g, m, v, t, lr, decay))
        results.append((*got, scale))

    def moves(slip: str = "") -> list[torch.Tensor]:  # in units of the learning rate, or a wrong move would pass
        return [(_adamw(*case, slip)[0] - case[0].double()) / case[5] for case in cases]

    firsts = [m / scale for _, m, _, scale in results]
    right = [_adamw(*case)[1] / result[3] for case, result in zip(cases, results, strict=True)]
    swapped = [(0.1 * m + 0.9 * g).double() / s for (_, g, m, *_), (*_, s) in zip(cases, results, strict=True)]
    summed = [(0.9 * m + g).double() / s for (_, g, m, *_), (*_, s) in zip(cases, results, strict=True)]
    with_l2 = [_adamw(*case, "L2")[1] / result[3] for case, result in zip(cases, results, strict=True)]
    slips = [
        (
            swapped,
            "In m the old average has the small share, the gradient the large one; it is the other way round.",
        ),
        (summed, "m is an average: the shares of the old average and of the gradient add up to 1."),
        (with_l2, _ADAM_SLIPS["L2"]),
    ]
    expect(all_agree(firsts, right, slips), "The new m is not 0.9 of the old one plus 0.1 of the gradient.")
    seconds = [v / scale**2 for _, _, v, scale in results]
    right = [_adamw(*case)[2] / result[3] ** 2 for case, result in zip(cases, results, strict=True)]
    beta1 = [(0.9 * v + 0.1 * g**2).double() / s**2 for (_, g, _, v, *_), (*_, s) in zip(cases, results, strict=True)]
    plain = [(0.999 * v + 0.001 * g).double() / s**2 for (_, g, _, v, *_), (*_, s) in zip(cases, results, strict=True)]
    slips = [
        (beta1, "v forgets more slowly than m: its shares are 0.999 and 0.001."),
        (plain, "v is an average of squares."),
    ]
    expect(
        all_agree(seconds, right, slips), "The new v is not 0.999 of the old one plus 0.001 of the squared gradient."
    )
    taken = [(p - case[0].double()) / case[5] for (p, *_), case in zip(results, cases, strict=True)]
    tolerance = {"rtol": 1e-3, "atol": 2e-5}
    fits = all_agree(taken, moves(), [(moves(slip), hint) for slip, hint in _ADAM_SLIPS.items()], **tolerance)
    expect(fits, "The new m and v are right. The new p is not: compare its two parts, the move and the decay, by hand.")
    return (
        "These are the numbers of torch.optim.AdamW. The correction matters in the first updates only; the decay pulls "
        "every parameter towards 0 by the same share, whatever its gradients were."
    )


@exercise("D.2")
def exercise_d_2(answer: Sequence[float]) -> str:
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
    table = "look at the table of section D.1.3 to see where the ramp ends there."
    expect_close(first, right, "The first update at the peak:", slips, otherwise=table)
    growth = peak / right
    slips = [(9 * growth, "the first update has number 0, so which number has the ninth?")]
    hint = "how much does the rate grow per update?"
    expect_close(ninth, 8 * growth, "Rate of the ninth update:", slips, atol=0, otherwise=hint)
    return (
        "320 updates, a tenth of them for the warm-up: numbers 0 to 31 are below the peak and number 32 is the first "
        "at it. The rate grows by 3.2e-3 / 32 = 1e-4 per update, and the ninth update is number 8."
    )


def _squared_distance(rates: Iterable[float], square: float = 100.0) -> float:
    """Mean squared distance from the minimum of the noisy valley of section D.2.2 after updates at these rates."""
    for rate in rates:
        square = min((1 - rate) * (1 - rate) * square + rate * rate, 1e300)  # ** would raise OverflowError
    return square


def _best_cosine(total: int) -> float:
    """The least that a half cosine, whatever its peak, leaves of the squared distance after `total` updates."""
    shape = [0.5 * (1 + math.cos(math.pi * step / total)) for step in range(total)]
    return min(_squared_distance(peak / 500 * factor for factor in shape) for peak in range(1, 500))


@exercise("D.3", "rates(total)")
def exercise_d_3(answer: Callable[[int], Sequence[float]]) -> str:
    """Check `rates(total)`: as many learning rates, with which the noisy valley is left behind the best half cosine."""
    totals, found, reports = (20, 50, 200), [], []
    for total in totals:
        order = f"rates({total}) must return {total} numbers, one learning rate per update."
        given = read_numbers(answer(total), total, order)
        expect(all(math.isfinite(rate) and rate >= 0 for rate in given), "A learning rate is finite, from 0 on.")
        least, reached = _best_cosine(total), _squared_distance(given)
        found.append((given, reached, least))
        shown = f"{reached:.4f}" if reached < 1e4 else f"{reached:.0e}"
        reports.append(f"total={total}: you reach {shown}, the best half cosine {least:.4f}.")
    if all(reached < least for _, reached, least in found):
        return (
            "Long steps while the distance is large beside the noise, then ever shorter ones. Nothing does better here "
            "than about 1 / (step + 1), with which the last point is the mean of all that the noisy gradients said."
        )
    report = "\n".join(reports)
    large = any(max(given) > 2 or reached > 100 for given, reached, _ in found)
    expect(not large, f"Your largest rates are too large: their steps lead away from the minimum.\n{report}")
    constant = all(max(given) == min(given) for given, _, _ in found)
    expect(not constant, f"A constant rate is too short at the start, too long at the end, or both.\n{report}")
    far = all((10 * math.prod(1 - rate for rate in given)) ** 2 > reached / 2 for given, reached, _ in found)
    expect(not far, f"What is left is mostly the distance from the start: the rates are too small to arrive.\n{report}")
    expect(any(reached < least for _, reached, least in found), f"Your rates do not beat the cosine yet.\n{report}")
    raise Hint(f"Your rates beat the cosine for some lengths only. How should they depend on the length?\n{report}")


def _gradients(generator: torch.Generator, size: float) -> list[torch.Tensor]:
    return [size * torch.randn(shape, generator=generator) for shape in ((3, 2), (4,), (2, 2, 2))]


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


@exercise("D.4", "clip_by_norm(gradients, max_norm)")
def exercise_d_4(answer: Callable[..., Sequence[torch.Tensor]]) -> str:
    """Check `clip_by_norm(gradients, max_norm)`, which returns new gradients of a common norm of at most max_norm."""
    generator = torch.Generator().manual_seed(7)
    order = "clip_by_norm must return a list with one tensor for each gradient, in its shape."
    results, right, reports = [], [], []
    by_value, one_by_one, always, squares = [], [], [], []
    for size, max_norm in ((3.0, 1.0), (0.1, 1.0), (1.0, 0.5), (5.0, 2.5)):
        gradients = _gradients(generator, size)
        flat = _flat(gradients).double()
        norm = flat.norm().item()
        given = [g.clone() for g in gradients]
        got = [read_tensor(part) for part in read_parts(answer(given, max_norm), len(gradients), order)]
        expect([part.shape for part in got] == [g.shape for g in gradients], order)
        unchanged = all(map(torch.equal, given, gradients))
        expect(unchanged, "Your function changes the given gradients in place. Return new tensors instead.")
        results.append(_flat(got))
        right.append(flat * min(1.0, max_norm / norm))
        by_value.append(flat.clamp(-max_norm, max_norm))
        one_by_one.append(_flat(g * min(1.0, max_norm / g.norm().item()) for g in gradients))
        always.append(flat * max_norm / norm)
        squares.append(flat * min(1.0, max_norm / norm**2))
        length = results[-1].norm().item()
        reports.append(f"Gradients of norm {norm:.4g} with max_norm={max_norm:g} came back with norm {length:.4g}.")
    slips = [
        (by_value, "That clips each number by itself, which turns the gradient to another direction."),
        (one_by_one, "Each tensor is clipped by its own norm. All of them together have one norm and get one factor."),
        (always, "A gradient that is shorter than max_norm was made longer. Clipping only ever shortens."),
        (squares, "The factor has the sum of the squares in it; the norm is the square root of that sum."),
    ]
    if not all_agree(results, right, slips):
        raise Hint(next(r for r, a, b in zip(reports, results, right, strict=True) if not same(a, b)))
    return (
        "One norm for all gradients together, one factor for all of them, and nothing done to gradients that are short "
        "enough. The direction is kept, between the tensors too."
    )


@exercise("D.5", "longest_gradient(model)")
def exercise_d_5(answer: Callable[[nn.Module], tuple[str, float]]) -> str:
    """Check `longest_gradient(model)` -> (name of the parameter whose gradient has the largest norm, that norm)."""
    generator = torch.Generator().manual_seed(11)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2))
    cases = [{"0.weight": -2.0, "1.bias": 0.5}, {"2.bias": 3.0}, {"1.weight": 1.0, "0.bias": 1.6}, {"2.weight": -4.0}]
    answers, given = [], []
    for number, boosts in enumerate(cases):
        for name, parameter in model.named_parameters():
            values = torch.rand(parameter.shape, generator=generator) * boosts.get(name, 0.05)
            parameter.grad = None if number == 2 and name == "2.weight" else values
        given.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        name, norm = read_parts(answer(model), 2, "Return two things: (name, norm).")
        expect(
            isinstance(name, str), f"The first of the two must be a parameter's name, a str, not {type(name).__name__}."
        )
        answers.append((name, read_number(norm, "The norm")))

    def largest(measure: Callable[[torch.Tensor], Any]) -> list[tuple[str, float]]:
        sizes = [{name: float(measure(grad)) for name, grad in grads.items()} for grads in given]
        return [max(size.items(), key=lambda entry: entry[1]) for size in sizes]

    def fits(expected: Sequence[tuple[str, float]], names: bool = True) -> bool:
        pairs = zip(answers, expected, strict=True)
        return all((a[0] == b[0] or not names) and same(a[1], b[1], atol=0) for a, b in pairs)

    right = largest(torch.Tensor.norm)
    if fits(right):
        return (
            "You went through the named parameters, left out those without a gradient, and compared lengths rather "
            "than single entries, so that negative entries count as much as positive ones."
        )
    single = "That is the largest single entry. The norm takes all entries of a gradient into account."
    together = [("", math.sqrt(sum(grad.square().sum().item() for grad in grads.values()))) for grads in given]
    for measure, hint in (
        (torch.max, single),
        (lambda grad: grad.abs().max(), single),
        (lambda grad: grad.square().sum(), "That is the sum of the squares; the norm is the square root of it."),
        (lambda grad: grad.abs().sum(), "That is the sum of the sizes; the norm squares the entries first."),
        (lambda grad: grad.sum(), "Those are sums, in which negative entries cancel positive ones."),
    ):
        expect(not fits(largest(measure)), hint)
    expect(not fits(together, names=False), "That is the norm of all gradients together; one of them is asked for.")
    weights = {name: parameter.norm().item() for name, parameter in model.named_parameters()}
    heaviest = max(weights, key=weights.get)
    expect(any(name != heaviest for name, _ in answers), "Those are weights. Look at their gradients.")
    for (name, norm), (longest, length) in zip(answers, right, strict=True):
        expect(name == longest, f"The gradient of {name} is not the longest. Do negative entries count as well?")
        expect(same(norm, length, atol=0), f"The name is right; its norm is {length:.4g}, and you returned {norm:.4g}.")
    raise AssertionError("unreachable: some answer differs from the right one")


# What the loop of exercise D.6 can do wrong, with the hint for it.
_LOOP_SLIPS = {
    "clips often": "Look at what is clipped: with accumulate=3, what do the gradients hold when clipping first acts?",
    "rate late": "Print the rate that the optimizer has in its very first update. Is it rate(0)?",
    "rate by batch": "The rate is looked up with the number of a batch; the schedule counts updates.",
    "drops": "With 7 batches and accumulate=3, count the updates: the last batch trains nothing.",
    "divides": "With 7 batches and accumulate=3 the last group is one batch. Of how many losses is it the mean?",
    "adds": "The losses are added up; an update takes the gradient of their mean.",
    "keeps": "When a group begins, the gradients of the group before it are still there.",
    "never clips": "Long gradients come through at full length: nothing is clipped.",
}


def _epoch(model, batches: Batches, optimizer, rate, max_norm: float, accumulate: int, slips: Iterable[str] = ()):
    """One epoch of training with accumulation, clipping and a schedule, with the mistakes in `slips` in it."""
    slips = set(slips)
    clip = nn.utils.clip_grad_norm_
    optimizer.zero_grad()
    for update, begin in enumerate(range(0, len(batches), accumulate)):
        group = batches[begin : begin + accumulate]
        if "drops" in slips and len(group) < accumulate:
            return
        if "keeps" not in slips:
            optimizer.zero_grad()
        count = 1 if "adds" in slips else accumulate if "divides" in slips else len(group)
        for x, y in group:
            (F.cross_entropy(model(x), y) / count).backward()
            if "clips often" in slips:
                clip(model.parameters(), max_norm)
        if not slips & {"clips often", "never clips"}:
            clip(model.parameters(), max_norm)
        if not ("rate late" in slips and update == 0):
            for settings in optimizer.param_groups:
                settings["lr"] = rate(begin if "rate by batch" in slips else update)
        optimizer.step()


@exercise("D.6", "train_epoch(model, batches, optimizer, rate, max_norm, accumulate)", may_return_none=True)
def exercise_d_6(answer: Callable[..., Any]) -> str:
    """Check `train_epoch`: one epoch with accumulation, clipping and a schedule, by the weights that it leaves."""
    generator = torch.Generator().manual_seed(17)
    cases = []
    for count, accumulate, max_norm, size in ((6, 1, 9.0, 1.0), (6, 3, 0.2, 3.0), (7, 3, 9.0, 1.0), (8, 3, 0.5, 2.0)):
        start = nn.Linear(3, 4)
        batches = [
            (size * torch.randn(2, 3, generator=generator), torch.randint(4, (2,), generator=generator))
            for _ in range(count)
        ]
        cases.append((start, batches, max_norm, accumulate))

    def moved(train: Callable[..., Any], case: tuple) -> torch.Tensor:
        start, batches, max_norm, accumulate = case
        model = nn.Linear(3, 4)
        model.load_state_dict(start.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.9)
        train(model, batches, optimizer, lambda update: 0.1 * (update + 1), max_norm, accumulate)
        return (_flat(model.parameters()) - _flat(start.parameters())).detach().double()

    results = [moved(answer, case) for case in cases]
    expect(any(result.abs().max() > 0 for result in results), "Nothing was trained: the weights are as they were.")

    def first_difference(slips: Sequence[str]) -> int | None:  # the number of the case
        train = functools.partial(_epoch, slips=slips)
        numbered = enumerate(zip(results, cases, strict=True))
        return next((number for number, (result, case) in numbered if not same(result, moved(train, case))), None)

    place = first_difference(())
    if place is None:
        return (
            "One norm for the whole group, taken when it is complete; the rate set before the update that it belongs "
            "to; and a last update from what is left over, as the mean of the batches that it has."
        )
    for size in (1, 2, 3):
        for slips in itertools.combinations(_LOOP_SLIPS, size):
            if first_difference(slips) is None:
                left = "One mistake is left." if size == 1 else f"{size} mistakes are left."
                raise Hint(f"{left} {_LOOP_SLIPS[slips[0]]}")
    _, batches, max_norm, accumulate = cases[place]
    raise Hint(
        f"With {len(batches)} batches, accumulate={accumulate} and max_norm={max_norm:g} the weights come out wrong, "
        "and not by one of the usual mistakes. Try it with accumulate=1 first, where a group is one batch."
    )


@exercise("D.7", "largest_lost(weight)")
def exercise_d_7(answer: Callable[[float], float]) -> str:
    """Check `largest_lost(weight)`: the largest power of two that a bfloat16 number does not feel when it is added."""

    def lost(weight: float, update: float, dtype: torch.dtype = torch.bfloat16) -> bool:
        number = torch.tensor(weight, dtype=dtype)
        return (number + torch.tensor(update, dtype=dtype)).item() == number.item()

    def largest(weight: float, dtype: torch.dtype = torch.bfloat16) -> float:
        return next(2.0**power for power in range(20, -60, -1) if lost(weight, 2.0**power, dtype))

    weights = (1.0, 1.5, 1.0078125, 100.0, 0.10009765625, -1.0, -3.015625, 0.0004425048828125)
    got = [read_number(answer(weight)) for weight in weights]
    right = [largest(weight) for weight in weights]
    power_below = [2.0 ** math.floor(math.log2(abs(weight))) for weight in weights]
    slips = [
        ([2 * value for value in right], "One power of two too far: what you return does change the weight."),
        ([value / 2 for value in right], "Twice as much is lost as well. Go on to the largest one."),
        ([largest(weight, torch.float32) for weight in weights], "That is what float32 loses. Round to bfloat16."),
        ([largest(weight, torch.float16) for weight in weights], "That is what float16 loses; bfloat16 is asked for."),
        ([right[0]] * len(weights), "The spacing of floating-point numbers grows with them: the weight matters."),
        (
            [value * 2.0**-8 for value in power_below],
            "Right for some weights. A sum half-way between two may be rounded up.",
        ),
        (
            [value * 2.0**-7 for value in power_below],
            "That is the distance to the next larger number, which does arrive.",
        ),
    ]
    if all_agree(got, right, slips, rtol=1e-6, atol=0):
        return (
            "What is lost depends on the weight's size, and sums half-way between two numbers are rounded to the one "
            "whose last bit is 0. So trying it is safer than a formula, and about 1/256 of a weight is what gets lost."
        )
    weight, value, expected = next(
        row for row in zip(weights, got, right, strict=True) if not same(row[1], row[2], rtol=1e-6, atol=0)
    )
    expect(value > 0 and math.log2(value).is_integer(), f"largest_lost({weight}) gave {value:g}: no power of two.")
    changes = "does change it" if value > expected else "is lost, but a larger one is lost too"
    raise Hint(f"largest_lost({weight}) gave {value:g}; added to this weight in bfloat16, it {changes}.")


self_test_d = self_test("d", "appendix_d")
