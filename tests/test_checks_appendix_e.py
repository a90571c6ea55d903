"""Appendix E's checkers: right answers pass, typical slips get a hint that aims at them and gives nothing away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from helpers import LinearWithLoRA, lora_layers, replace_linear_with_lora
from tests import checkers

# ---- E.1: low_rank_copy(target, rank) ------------------------------------------------------------------------------


def train_copy(target, rank, updates=800, lr=0.05, zero=False, optimizer=torch.optim.Adam):
    generator = torch.Generator().manual_seed(0)
    a = (0 if zero else 0.3) * torch.randn(target.shape[0], rank, generator=generator)
    a, b = a.requires_grad_(), torch.zeros(rank, target.shape[1], requires_grad=True)
    optimizer = optimizer([a, b], lr=lr)
    for _ in range(updates):
        optimizer.zero_grad()
        (target - a @ b).square().sum().backward()
        optimizer.step()
    return a.detach(), b.detach()


def decomposed(target, rank):
    u, s, v = np.linalg.svd(target.double().numpy(), full_matrices=False)
    return [u[:, :rank] * s[:rank], v[:rank]]


def alternating(target, rank):
    b = torch.randn(rank, target.shape[1], generator=torch.Generator().manual_seed(0))
    for _ in range(60):
        a = target @ torch.linalg.pinv(b)
        b = torch.linalg.pinv(a) @ target
    return a.numpy(), b.tolist()


def spoiled(target, rank):
    result = decomposed(target, rank)
    target.zero_()
    return result


# ---- E.2: lora_forward(x, weight, bias, A, B, alpha) ---------------------------------------------------------------


def forward(x, weight, bias, a, b, alpha):
    return x @ weight.T + bias + alpha / a.shape[1] * (x @ a) @ b


def by_our_module(x, weight, bias, a, b, alpha):
    layer = LinearWithLoRA(nn.Linear(len(a), len(bias)), a.shape[1], alpha)
    layer.linear.load_state_dict({"weight": weight, "bias": bias})
    layer.lora.load_state_dict({"A": a, "B": b})
    return layer(x)


def unturned(x, weight, bias, a, b, alpha):
    plain = torch.matmul(x, weight)
    return forward(x, weight, bias, a, b, alpha) + plain


def in_float64(*given):
    return forward(*[part.double() if isinstance(part, torch.Tensor) else part for part in given]).numpy()


def in_place(x, weight, bias, a, b, alpha):
    return x @ weight.T + bias + x @ a.mul_(alpha / a.shape[1]) @ b


def flipped_if_square(x, weight, bias, a, b, alpha):
    square = weight.shape[0] == weight.shape[1]
    return forward(x, weight.T if square else weight, bias, a, b, alpha)


# ---- E.3: unmet(model) ---------------------------------------------------------------------------------------------


def unmet(model):
    pairs = [layer.lora for layer in lora_layers(model).values()]
    ours = {id(part) for pair in pairs for part in (pair.A, pair.B)}
    allowed = ours | {id(parameter) for parameter in model.out_head.parameters()}
    problems = []
    if not pairs or not all(part.requires_grad for pair in pairs for part in (pair.A, pair.B)):
        problems.append(1)
    if any(p.requires_grad and id(p) not in allowed for p in model.parameters()):
        problems.append(2)
    if any((pair.A @ pair.B).any() for pair in pairs):
        problems.append(3)
    if any(not pair.A.any() and not pair.B.any() for pair in pairs):
        problems.append(4)
    return problems


def by_names(model):
    found, layers = set(), lora_layers(model)
    lora = {name: p for name, p in model.named_parameters() if ".lora." in name}
    others = [p for name, p in model.named_parameters() if name not in lora and not name.startswith("out_head")]
    checks = {
        1: bool(lora) and all(p.requires_grad for p in lora.values()),
        2: not any(p.requires_grad for p in others),
        3: all(float(layer.lora.delta().detach().abs().max()) == 0 for layer in layers.values()),
        4: all(float((layer.lora.A.abs().sum() + layer.lora.B.abs().sum()).detach()) > 0 for layer in layers.values()),
    }
    for number, good in checks.items():
        if not good:
            found.add(number)
    return found


def only_b(model):
    """Takes a B that is not zero for a change, though A may be."""
    moved = any(layer.lora.B.any() for layer in lora_layers(model).values())
    return [number for number in unmet(model) if number != 3] + ([3] if moved else [])


def without_head(model):
    """Takes the trained output layer for a fault."""
    lora = {id(p) for layer in lora_layers(model).values() for p in layer.lora.parameters()}
    base = any(p.requires_grad and id(p) not in lora for p in model.parameters())
    return sorted({number for number in unmet(model) if number != 2} | ({2} if base else set()))


def first_only(model):
    return unmet(model)[:1]


def weights_only(model):
    """Looks at weights alone, so that LayerNorm's scale and biases escape it."""
    trained = any(p.requires_grad for n, p in model.named_parameters() if n.endswith("weight") and "out_head" not in n)
    return [number for number in unmet(model) if number != 2] + ([2] if trained else [])


def repaired(model):
    problems = unmet(model)
    for layer in lora_layers(model).values():
        layer.lora.B.data.zero_()
    return problems


# ---- E.4: join(A1, B1, alpha1, A2, B2, alpha2) ---------------------------------------------------------------------


def join(a1, b1, alpha1, a2, b2, alpha2):
    r1, r2 = a1.shape[1], a2.shape[1]
    return torch.cat([alpha1 / r1 * a1, alpha2 / r2 * a2], dim=1), torch.cat([b1, b2]), r1 + r2


def scaled_in_b(a1, b1, alpha1, a2, b2, alpha2):
    r1, r2 = a1.shape[1], a2.shape[1]
    b = np.concatenate([b2.numpy() * alpha2 / r2 / 4, b1.numpy() * alpha1 / r1 / 4])
    return [torch.cat([a2, a1], dim=1), b, torch.tensor(4.0 * (r1 + r2))]


def decomposed_sum(a1, b1, alpha1, a2, b2, alpha2):
    rank = a1.shape[1] + a2.shape[1]
    whole = alpha1 / a1.shape[1] * a1 @ b1 + alpha2 / a2.shape[1] * a2 @ b2
    a, b = torch.zeros(len(a1), rank), torch.zeros(rank, b1.shape[1])
    u, s, v = torch.linalg.svd(whole, full_matrices=False)
    size = min(rank, len(s))
    a[:, :size], b[:size] = (u * s)[:, :size], v[:size]
    return a, b, rank


def crossed(a1, b1, alpha1, a2, b2, alpha2):
    return torch.cat([a1, a2], dim=1), torch.cat([b2, b1]), alpha1


def stacked(a1, b1, alpha1, a2, b2, alpha2):
    return torch.vstack([a1, b1]), torch.vstack([a2, b2]), alpha1


def joined_in_place(a1, b1, alpha1, a2, b2, alpha2):
    a1 *= alpha1 / a1.shape[1]
    a2 *= alpha2 / a2.shape[1]
    return torch.cat([a1, a2], dim=1), torch.cat([b1, b2]), a1.shape[1] + a2.shape[1]


# ---- E.5: attach(model, budget) ------------------------------------------------------------------------------------


def attach(model, budget, short=0, order="freeze", targets="trf_blocks", head=True, checked=True):
    linears = [module for module in model.trf_blocks.modules() if isinstance(module, nn.Linear)]
    step = sum(linear.in_features + linear.out_features for linear in linears)
    rank = (budget - sum(p.numel() for p in model.out_head.parameters())) // step - short
    if rank < 1 and checked:
        raise ValueError("no rank fits")
    rank = max(rank, 1)
    if order == "freeze":
        model.requires_grad_(False)
    replace_linear_with_lora(model, rank, alpha=rank, targets=targets)
    if order == "late":
        model.requires_grad_(False)
    model.out_head.requires_grad_(head)
    return rank


def by_counting(model, budget):
    """Tries one rank after the other on the meta device."""
    import copy

    best = 0
    for rank in range(1, 40):
        trial = copy.deepcopy(model).to("meta").requires_grad_(False)
        replace_linear_with_lora(trial, rank, 1, "trf_blocks")
        trial.out_head.requires_grad_(True)
        if sum(p.numel() for p in trial.parameters() if p.requires_grad) <= budget:
            best = rank
    if not best:
        raise ValueError("no rank fits")
    model.requires_grad_(False)
    replace_linear_with_lora(model, best, 1, "trf_blocks")
    model.out_head.requires_grad_(True)
    return np.int64(best)


def by_targets(model, budget):
    rank = attach(model, budget, targets=["att", "ff"])
    return torch.tensor(rank)


def without_the_head(model, budget):
    return attach(model, budget + sum(p.numel() for p in model.out_head.parameters()))


def changed_first(model, budget):
    model.out_head.weight.data *= 2
    return attach(model, budget)


def half_the_layers(model, budget):
    return attach(model, budget, targets="ff")


def another_error(model, budget):
    if budget < 500:
        raise KeyError("rank")
    return attach(model, budget)


def another_rank(model, budget):
    return attach(model, budget) + 1


RIGHT = [
    ("E.1", train_copy),
    ("E.1", lambda target, rank: train_copy(target, rank, 3000, 0.02, optimizer=torch.optim.SGD)),
    ("E.1", decomposed),
    ("E.1", alternating),
    ("E.2", forward),
    ("E.2", by_our_module),
    ("E.2", in_float64),
    ("E.3", unmet),
    ("E.3", by_names),
    ("E.3", lambda model: np.array(unmet(model), dtype=int)),
    ("E.4", join),
    ("E.4", scaled_in_b),
    ("E.4", decomposed_sum),
    ("E.5", attach),
    ("E.5", by_counting),
    ("E.5", by_targets),
]

# number, wrong answer, what the hint must speak of
WRONG = [
    ("E.1", lambda target, rank: train_copy(target, rank, zero=True), "A B is zero"),
    ("E.1", lambda target, rank: train_copy(target, rank, 8), "more updates"),
    (
        "E.1",
        lambda target, rank: train_copy(target, rank, 50, 0.9, optimizer=torch.optim.SGD),
        "learning rate too high",
    ),
    ("E.1", lambda target, rank: train_copy(target, rank + 1), "are expected"),
    ("E.1", lambda target, rank: (target, torch.eye(target.shape[1])), "are expected"),
    ("E.1", lambda target, rank: (target[:, :rank], torch.eye(rank, target.shape[1])), "is possible"),
    ("E.1", lambda target, rank: tuple(part.T for part in train_copy(target, rank)), "are expected"),
    ("E.1", lambda target, rank: torch.matmul(*train_copy(target, rank)), "as a tuple"),
    (
        "E.1",
        lambda target, rank: (-decomposed(target, rank)[0], decomposed(target, rank)[1]),
        "further from the target",
    ),
    ("E.1", spoiled, "has changed"),
    ("E.2", unturned, "(d_out, d_in)"),
    ("E.2", flipped_if_square, "wrong way round"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight.T + bias + alpha * x @ a @ b, "alpha alone"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight.T + bias + x @ a @ b, "not scaled"),
    ("E.2", lambda x, weight, bias, a, b, alpha: alpha / a.shape[1] * x @ a @ b, "part is missing"),
    ("E.2", lambda x, weight, bias, a, b, alpha: forward(x, weight, 0 * bias, a, b, alpha), "bias is missing"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight.T + bias, "output alone"),
    ("E.2", lambda x, weight, bias, a, b, alpha: x @ weight.T + bias + alpha / len(a) * x @ a @ b, "alpha / d_in"),
    ("E.2", lambda x, weight, bias, a, b, alpha: alpha / a.shape[1] * (x @ weight.T + bias + x @ a @ b), "as well"),
    ("E.2", lambda x, weight, bias, a, b, alpha: forward(x, weight, bias, a, b, alpha / len(b)), "expected"),
    ("E.2", lambda x, weight, bias, a, b, alpha: forward(x, weight, bias, a, b, -alpha), "expected"),
    ("E.2", lambda x, weight, bias, a, b, alpha: "y", "tensor is expected"),
    ("E.2", in_place, "has changed"),
    ("E.3", lambda model: [], "condition [1] is not met"),
    ("E.3", only_b, "condition [3] is met"),
    ("E.3", without_head, "condition [2] is met"),
    ("E.3", first_only, "condition [3] is not met"),
    ("E.3", weights_only, "condition [2] is not met"),
    ("E.3", lambda model: [number for number in unmet(model) if number != 4], "condition [4] is not met"),
    ("E.3", lambda model: "1", "A list of numbers is expected"),
    ("E.3", lambda model: ["frozen"], "must be a whole number"),
    ("E.3", repaired, "has changed the model"),
    ("E.4", lambda a1, b1, c1, a2, b2, c2: (a1 + a2, b1 + b2, c1 + c2), "are expected"),
    ("E.4", stacked, "equally many rows"),
    ("E.4", lambda a1, b1, c1, a2, b2, c2: (torch.cat([a1, a2], 1), torch.cat([b1, b2]), c1 + c2), "its own alpha"),
    ("E.4", lambda a1, b1, c1, a2, b2, c2: (*join(a1, b1, c1, a2, b2, c2)[:2], 1), "multiplied by"),
    ("E.4", lambda *given: (*join(*given)[:2], torch.ones(3)), "alpha must be one number"),
    ("E.4", lambda *given: join(*given)[:2], "as a tuple"),
    ("E.4", lambda a1, b1, c1, a2, b2, c2: (a1, b1, c1), "are expected"),
    ("E.4", crossed, "rows of the other"),
    ("E.4", lambda a1, b1, c1, a2, b2, c2: join(a1, b1, c1 * a1.shape[1], a2, b2, c2), "is not the sum"),
    ("E.4", joined_in_place, "has changed"),
    ("E.5", lambda model, budget: attach(model, budget, order="late"), "order do you freeze"),
    ("E.5", lambda model, budget: attach(model, budget, order="never"), "base are trained as well"),
    ("E.5", lambda model, budget: attach(model, budget, targets=None), "beside the output layer"),
    ("E.5", lambda model, budget: attach(model, budget, head=False), "output layer is not trained"),
    ("E.5", half_the_layers, "have no LoRA"),
    ("E.5", without_the_head, "counted the output layer"),
    ("E.5", lambda model, budget: attach(model, budget, short=1), "next rank would fit"),
    ("E.5", lambda model, budget: attach(model, budget, checked=False), "a ValueError is expected"),
    ("E.5", changed_first, "computes something else"),
    ("E.5", another_rank, "the layers have the rank"),
    ("E.5", another_error, "KeyError"),
    ("E.5", lambda model, budget: float(attach(model, budget)), "must be a whole number"),
]

GIVEAWAYS = {
    "E.1": ("svd", "Adam", "randn"),
    "E.2": ("x @", ".T", "shape[1]"),
    "E.3": ("requires_grad", ".any()", "lora_layers"),
    "E.4": ("cat(", "cat ", "shape[1]"),
    "E.5": ("//", "sum(", "requires_grad_"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS[number])
