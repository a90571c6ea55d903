"""Appendix D's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_

from helpers.course.checks import appendix_d as checkers_d
from tests import checkers


def adamw(p, g, m, v, t, lr, weight_decay):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g.square()
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
    return p - lr * weight_decay * p - lr * m_hat / (v_hat.sqrt() + 1e-8), m, v


def adamw_in_double(p, g, m, v, t, lr, weight_decay):
    return [part.numpy() for part in adamw(*(x.double() for x in (p, g, m, v)), t, lr, weight_decay)]


def adamw_of_torch(p, g, m, v, t, lr, weight_decay):
    parameter = torch.nn.Parameter(p.clone())
    optimizer = torch.optim.AdamW([parameter], lr=lr, weight_decay=weight_decay)
    state = {"step": torch.tensor(float(t - 1)), "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimizer.state[parameter] = state
    parameter.grad = g.clone()
    optimizer.step()
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def adamw_with(slip):
    return lambda p, g, m, v, t, lr, weight_decay: checkers_d._adamw(p, g, m, v, t, lr, weight_decay, slip)


def in_place(p, g, m, v, t, lr, weight_decay):
    new = adamw(p, g, m, v, t, lr, weight_decay)
    m.copy_(new[1])
    return new[0], m, new[2]


def swapped(p, g, m, v, t, lr, weight_decay):
    new = adamw(p, g, m, v, t, lr, weight_decay)
    return new[0], 0.1 * m + 0.9 * g, new[2]


def one_beta(p, g, m, v, t, lr, weight_decay):
    new = adamw(p, g, m, v, t, lr, weight_decay)
    return new[0], new[1], 0.9 * v + 0.1 * g**2


def without_epsilon(p, g, m, v, t, lr, weight_decay):
    _, m, v = adamw(p, g, m, v, t, lr, weight_decay)
    return p - lr * (m / (1 - 0.9**t)) / (v / (1 - 0.999**t)).sqrt(), m, v


def harmonic(total):
    return [1 / (step + 1) for step in range(total)]


def greedy(total):
    square, rates = 100.0, []
    for _ in range(total):
        rates.append(square / (square + 1))
        square = (1 - rates[-1]) ** 2 * square + rates[-1] ** 2
    return torch.tensor(rates)


def two_stages(total):  # one long step, then a mean of what is seen
    return np.array([0.9] + [1 / step for step in range(2, total + 1)])


def cosine(total, peak=0.5):
    return [peak / 2 * (1 + math.cos(math.pi * step / total)) for step in range(total)]


def common(gradients, max_norm, at_most=True):
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    factor = (max_norm / norm).clamp(max=1.0) if at_most else max_norm / norm
    return [g * factor for g in gradients]


def clipped_by_torch(gradients, max_norm):
    parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    clip_grad_norm_(parameters, max_norm)
    return tuple(parameter.grad for parameter in parameters)


def each(gradients, max_norm):
    return [g * min(1.0, max_norm / g.norm().item()) for g in gradients]


def clips_in_place(gradients, max_norm):
    clipped = common(gradients, max_norm)
    for gradient, new in zip(gradients, clipped, strict=True):
        gradient.copy_(new)
    return gradients


def longest(model, measure=torch.linalg.vector_norm):
    sizes = {name: measure(p.grad).item() for name, p in model.named_parameters() if p.grad is not None}
    name = max(sizes, key=sizes.get)
    return name, sizes[name]


def longest_sorted(model):
    pairs = [(p.grad.flatten() @ p.grad.flatten(), name) for name, p in model.named_parameters() if p.grad is not None]
    square, name = max(pairs)
    return [name, square.sqrt()]


def squared(model):
    return longest(model, lambda grad: grad.square().sum())


def together(model):
    return "all", math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters() if p.grad is not None))


def of_weights(model):
    sizes = {name: p.norm().item() for name, p in model.named_parameters()}
    name = max(sizes, key=sizes.get)
    return name, sizes[name]


def epoch(model, batches, optimizer, rate, max_norm, accumulate):
    optimizer.zero_grad()
    update = 0
    for number, (x, y) in enumerate(batches, start=1):
        first = (number - 1) // accumulate * accumulate
        together = min(accumulate, len(batches) - first)
        (F.cross_entropy(model(x), y) / together).backward()
        if number % accumulate == 0 or number == len(batches):
            clip_grad_norm_(model.parameters(), max_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate(update)
            optimizer.step()
            optimizer.zero_grad()
            update += 1


def epoch_by_groups(model, batches, optimizer, rate, max_norm, accumulate):
    groups = [batches[begin : begin + accumulate] for begin in range(0, len(batches), accumulate)]
    for update, group in enumerate(groups):
        optimizer.zero_grad()
        torch.stack([F.cross_entropy(model(x), y) for x, y in group]).mean().backward()
        optimizer.param_groups[0]["lr"] = rate(update)
        clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
    return len(groups)


def epoch_scaling_after(model, batches, optimizer, rate, max_norm, accumulate):
    """Adds the gradients up and divides them at the end."""
    waiting, update = 0, 0
    for number, (x, y) in enumerate(batches):
        F.cross_entropy(model(x), y).backward()
        waiting += 1
        if waiting == accumulate or number == len(batches) - 1:
            for parameter in model.parameters():
                parameter.grad /= waiting
            clip_grad_norm_(model.parameters(), max_norm)
            for group in optimizer.param_groups:
                group["lr"] = rate(update)
            optimizer.step()
            optimizer.zero_grad()
            waiting, update = 0, update + 1


def faulty_epoch(model, batches, optimizer, rate, max_norm, accumulate):  # the notebook's
    optimizer.zero_grad()
    for number, (x, y) in enumerate(batches, start=1):
        (F.cross_entropy(model(x), y) / accumulate).backward()
        clip_grad_norm_(model.parameters(), max_norm)
        if number % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = rate(number // accumulate)


def epoch_with(*slips):
    return lambda *given: checkers_d._epoch(*given, slips=slips)


def epoch_by_value(model, batches, optimizer, rate, max_norm, accumulate):
    for x, y in batches:
        F.cross_entropy(model(x), y).backward()
        torch.nn.utils.clip_grad_value_(model.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad()


def lost(weight, dtype=torch.bfloat16, begin=1024.0):
    number, update = torch.tensor(weight, dtype=dtype), begin
    while number + torch.tensor(update, dtype=dtype) != number:
        update /= 2
    return update


def lost_counting(weight):
    powers = [2.0**power for power in range(-40, 11)]
    return max(u for u in powers if torch.tensor(weight).bfloat16() + torch.tensor(u).bfloat16() == weight)


def lost_in_float32(weight):
    powers = torch.tensor([2.0**power for power in range(-40, 11)])
    return powers[(torch.tensor(weight) + powers).to(torch.bfloat16) == weight].max()


RIGHT = [
    ("D.1", adamw),
    ("D.1", adamw_in_double),
    ("D.1", adamw_of_torch),
    ("D.2", (32, 32, 8e-4)),
    ("D.2", [32, 32, torch.tensor(0.0008)]),
    ("D.2", np.array([32, 32, 8e-4])),
    ("D.2", torch.tensor([32, 32, 8e-4])),
    ("D.3", harmonic),
    ("D.3", greedy),
    ("D.3", two_stages),
    ("D.4", common),
    ("D.4", lambda gradients, max_norm: common([g.double() for g in gradients], max_norm)),
    ("D.4", clipped_by_torch),
    ("D.5", longest),
    ("D.5", longest_sorted),
    ("D.5", lambda model: (longest(model)[0], np.float32(longest(model)[1]))),
    ("D.6", epoch),
    ("D.6", epoch_by_groups),
    ("D.6", epoch_scaling_after),
    ("D.7", lost),
    ("D.7", lost_counting),
    ("D.7", lost_in_float32),
]

# number, wrong answer, what the hint must speak of
WRONG = [
    ("D.1", lambda *given: adamw(*given)[0], "three tensors"),
    ("D.1", in_place, "changes m in place"),
    ("D.1", swapped, "other way round"),
    ("D.1", one_beta, "more slowly"),
    ("D.1", without_epsilon, "NaN"),
    ("D.1", lambda *given: adamw_with("")(*given)[:1] + given[2:4], "new m is not"),
    *(("D.1", adamw_with(slip), hint) for slip, hint in checkers_d._ADAM_SLIPS.items() if slip not in ("from 0",)),
    ("D.1", lambda p, g, m, v, t, lr, weight_decay: (p, *adamw(p, g, m, v, t, lr, weight_decay)[1:]), "two parts"),
    ("D.2", 32, "Three numbers"),
    ("D.2", ("a", 32, 8e-4), "must be one number"),
    ("D.2", (4, 4, 8e-4), "one epoch"),
    ("D.2", (64, 64, 8e-4), "a tenth of all"),
    ("D.2", (32, 33, 8e-4), "one off"),
    ("D.2", (32, 31, 8e-4), "one off"),
    ("D.2", (32, 1, 8e-4), "section D.1.3"),
    ("D.2", (32, 32, 9e-4), "which number has the ninth"),
    ("D.2", (32, 32, 3.2e-3), "per update"),
    ("D.3", lambda total: harmonic(20), "must return 50 numbers"),
    ("D.3", lambda total: 0.1, "must return 20 numbers"),
    ("D.3", lambda total: [-0.1] * total, "from 0 on"),
    ("D.3", lambda total: [math.nan] * total, "from 0 on"),
    ("D.3", lambda total: [0.2] * total, "constant rate"),
    ("D.3", cosine, "do not beat"),
    ("D.3", lambda total: [1e308] * total, "too large"),
    ("D.3", lambda total: [3.0] * (total // 2) + [0.05] * (total - total // 2), "too large"),
    ("D.3", lambda total: [40 / (step + 1) ** 0.5 for step in range(total)], "too large"),
    ("D.3", lambda total: [2 - 0.001 * step / total for step in range(total)], "too large"),
    ("D.3", lambda total: [0.001 / (step + 1) for step in range(total)], "too small to arrive"),
    ("D.3", lambda total: [0.5 * 0.974**step for step in range(total)], "some lengths only"),
    ("D.4", lambda gradients, max_norm: gradients[:1], "one tensor for each"),
    ("D.4", lambda gradients, max_norm: [g.flatten() for g in common(gradients, max_norm)], "in its shape"),
    ("D.4", lambda gradients, max_norm: [g.clamp(-max_norm, max_norm) for g in gradients], "by itself"),
    ("D.4", each, "its own norm"),
    ("D.4", lambda gradients, max_norm: common(gradients, max_norm, at_most=False), "made longer"),
    ("D.4", lambda gradients, max_norm: gradients, "came back with norm"),
    ("D.4", clips_in_place, "in place"),
    ("D.4", lambda gradients, max_norm: gradients[0].new_tensor(math.nan), "one tensor for each"),
    ("D.5", lambda model: "0.weight", "two things"),
    ("D.5", lambda model: (3, 1.0), "a str"),
    ("D.5", lambda model: longest(model, torch.max), "single entry"),
    ("D.5", lambda model: longest(model, lambda g: g.abs().max()), "single entry"),
    ("D.5", lambda model: longest(model, torch.sum), "cancel"),
    ("D.5", lambda model: longest(model, lambda g: g.abs().sum()), "sum of the sizes"),
    ("D.5", squared, "sum of the squares"),
    ("D.5", together, "all gradients together"),
    ("D.5", of_weights, "weights"),
    ("D.5", lambda model: (longest(model)[0], 0.5), "name is right"),
    ("D.5", lambda model: ("0.bias", 0.5), "not the longest"),
    ("D.5", lambda model: longest(model, lambda g: torch.tensor(-1.0 * g.numel())), "not the longest"),
    ("D.6", faulty_epoch, "3 mistakes are left"),
    ("D.6", lambda *given: 1, "Nothing was trained"),
    ("D.6", epoch_by_value, "not by one of the usual mistakes"),
    *(("D.6", epoch_with(slip), hint) for slip, hint in checkers_d._LOOP_SLIPS.items()),
    ("D.6", epoch_with("rate late", "divides"), "2 mistakes are left"),
    ("D.7", lambda weight: 2 * lost(weight), "One power of two too far"),
    ("D.7", lambda weight: lost(weight) / 2, "Twice as much"),
    ("D.7", lambda weight: lost(weight, torch.float32), "float32 loses"),
    ("D.7", lambda weight: lost(weight, torch.float16), "float16 loses"),
    ("D.7", lambda weight: 2.0**-8, "weight matters"),
    ("D.7", lambda weight: 2.0 ** (math.floor(math.log2(abs(weight))) - 8), "half-way"),
    ("D.7", lambda weight: 2.0 ** (math.floor(math.log2(abs(weight))) - 7), "next larger number"),
    ("D.7", lambda weight: abs(weight) / 300, "no power of two"),
    ("D.7", lambda weight: "small", "one number"),
]

GIVEAWAYS = {
    "D.1": ("1 - 0.9", "0.9**t", "sqrt("),
    "D.2": ("32", "0.0008", "8e-4"),
    "D.3": ("1 / (", "/ (step"),
    "D.4": ("min(1", "clip_grad_norm_"),
    "D.5": (".norm()", "named_parameters("),
    "D.6": ("len(batches)", "min("),
    "D.7": ("while", "2**-8", "256"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS[number])


def test_a_correction_that_is_one_update_off():
    """With t counted from 0, the first update divides by nothing."""
    checkers.refuses("D.1", lambda p, g, m, v, t, lr, weight_decay: adamw(p, g, m, v, t - 1, lr, weight_decay), "NaN")


def test_the_best_cosine_is_found():
    """No peak between those that are tried leaves less; the numbers are those of the notebook."""
    found = [checkers_d._best_cosine(total) for total in (20, 50, 200)]
    assert found == pytest.approx([0.0786, 0.0331, 0.0087], abs=1e-4)
    for total, least in zip((20, 50, 200), found, strict=True):
        assert all(
            checkers_d._squared_distance(cosine(total, peak / 997)) > 0.999 * least for peak in range(1, 1500, 3)
        )
