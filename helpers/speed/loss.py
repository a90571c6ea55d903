"""The loss of a language model without a tensor of all its logits, and a training step that uses it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..gpt import hidden_states
from ..settings import bfloat16_is_native
from .fused import fuse
from .large_pages import zeros_in_large_pages
from .parts import is_course_gpt


def speed_up(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device | str,
    loss_function: Callable[..., torch.Tensor],
    chunked: bool = False,
) -> Callable[..., torch.Tensor]:
    """Prepare a model and an optimizer for fast training; returns the loss function to use from now on.

    The model's parts that are exactly the course's are fused, AdamW becomes fused too if it has not begun yet and the
    device has that kernel, and losses are computed under bfloat16 autocast where that is native. `chunked` says that it
    is the language-model loss, which is then taken in chunks if the whole model is the course's own.
    """
    fuse(model)
    if type(optimizer) is torch.optim.AdamW and not optimizer.state and _can_fuse(optimizer):
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    kind, native = torch.device(device).type, bfloat16_is_native(device)

    def fast_loss(input_batch: Any, target_batch: Any, model: torch.nn.Module, device: torch.device) -> torch.Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=native):
            if not (chunked and native and _has_plain_head(model)):
                return loss_function(input_batch, target_batch, model, device)
            hidden = hidden_states(model, input_batch.to(device)).flatten(0, 1)  # (B * T, C)
        targets = target_batch.to(device).flatten()
        counted = targets != -100  # what cross_entropy leaves out
        if not counted.all():
            hidden, targets = hidden[counted], targets[counted]
        if (targets < 0).any() or (targets >= len(model.out_head.weight)).any():
            return loss_function(input_batch, target_batch, model, device)  # which says what is wrong with them
        return SoftmaxLoss.apply(hidden, model.out_head.weight, targets)

    return fast_loss


def _has_plain_head(model: torch.nn.Module) -> bool:
    """Whether a model is the course's own, with an output layer that is a matrix and nothing else."""
    return is_course_gpt(model) and type(model.out_head) is torch.nn.Linear and model.out_head.bias is None


def _can_fuse(optimizer: torch.optim.AdamW) -> bool:
    """Whether PyTorch has the fused kernel for the devices and types of an optimizer's parameters and settings."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(group.get("differentiable") or group.get("capturable") for group in optimizer.param_groups):
        return False
    try:
        torch.optim.AdamW(parameters, fused=True)  # which looks at each of them
    except RuntimeError:
        return False
    return True


def rows_in_cache(table: torch.Tensor, chunk: int) -> int:
    """How many rows of logits over a table (K, C) to work on at once: on a CPU, 1 MiB of them stays in its cache."""
    return max(1, 2**18 // len(table)) if table.is_cpu else chunk


def scaled(grad: torch.Tensor, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Gradients times that of the loss, which is 1 but for a loss that is one part of another."""
    return gradients if grad == 1 else tuple(grad * gradient for gradient in gradients)


class SoftmaxLoss(torch.autograd.Function):
    """Mean cross-entropy of hidden states (N, C) against class ids (N,), through a table of classes (V, C).

    Computed chunk by chunk, with the gradients on the way, so that no (N, V) tensor is ever kept. The matrix products
    are in `dtype`, the rest in float32, so that small losses and their gradients are as precise as large ones.
    `log_weight` (V,) is added to the logits: a class that stands for n classes has log(n).

    The softmax can be estimated (Jean et al., 2015). `columns` (K,) then lists the classes that get a logit: first
    those below `exact`, in order, then others, drawn without repetition, that stand for all the rest by their
    `log_weight` (K,). A target among the rest gets a logit of its own, without weight; where it has also been drawn, it
    is not counted once more.
    """

    @staticmethod
    def forward(
        ctx, hidden, table, targets, columns=None, log_weight=None, exact=None, chunk=1024, dtype=torch.bfloat16
    ):
        if not len(hidden):
            raise ValueError("targets holds no label: there is nothing to average")
        if columns is None:
            exact, column_of = len(table), torch.arange(len(table), device=table.device)
        else:
            column_of = torch.full((len(table),), -1, device=table.device)  # -1: this class has no column
            column_of[columns] = torch.arange(len(columns), device=table.device)
        # Blocks of this size come fresh from the system in each step.
        count, block = len(table if columns is None else columns), partial(zeros_in_large_pages, device=table.device)
        used = block((count, table.shape[1]), dtype).copy_(table if columns is None else table[columns])  # (K, C)
        inputs, share, total = hidden.to(dtype), 1 / len(hidden), 0.0  # each position's share of the mean
        d_hidden, d_used = torch.empty_like(hidden), None
        d_table = None if columns is None else block(table.shape, table.dtype)
        buffer, part = block((min(chunk, len(hidden)), count), dtype), block(used.shape, dtype)
        tile = rows_in_cache(used, chunk)
        for x, y, dx in zip(inputs.split(chunk), targets.split(chunk), d_hidden.split(chunk), strict=True):
            logits = torch.mm(x, used.T, out=buffer[: len(x)])  # (n, K)
            own, inside = table[y].to(dtype), y < exact  # (n, C), (n,)
            own_logit = (x.float() * own.float()).sum(dim=-1)
            arguments = [t.split(tile) for t in (logits, column_of[y], own_logit, inside)]
            results = [_logits_to_gradient(log_weight, *tiles) for tiles in zip(*arguments, strict=True)]
            losses, rest, whole = map(torch.cat, zip(*results, strict=True))  # (n,) each
            total += losses.sum()
            scale = (share / whole)[:, None]
            dx.copy_((logits @ used) * scale)
            torch.mm(logits.T, (x * scale).to(dtype), out=part)  # (K, C)
            d_used = block(part.shape, table.dtype).copy_(part) if d_used is None else d_used.add_(part)
            if columns is not None:
                d_own = rest.masked_fill(inside, 0)[:, None] * -scale  # (n, 1)
                dx += d_own * own
                d_table.index_add_(0, y, (d_own * x).to(table.dtype))
        if columns is not None:
            d_table.index_add_(0, columns, d_used)
        ctx.save_for_backward(d_hidden, d_used if columns is None else d_table)
        return total * share

    @staticmethod
    def backward(ctx, grad):
        return *scaled(grad, *ctx.saved_tensors), None, None, None, None, None, None


def _logits_to_gradient(
    log_weight: torch.Tensor | None,
    logits: torch.Tensor,
    column: torch.Tensor,
    own_logit: torch.Tensor,
    inside: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Replace logits (n, K), in place, by the gradient of each row's loss times that row's `whole`.

    `column` (n,) is the target's column, -1 if it has none. Where `inside` is false, `own_logit` is the target's logit.
    Returns (n,) each, the last two in units of the largest exp(logit) of the row: the loss, the sum over all but the
    target (`rest`), and the sum over all (`whole`).
    """
    rows = torch.arange(len(logits), device=logits.device)
    odds = logits.float()  # a copy, unless in float32
    if log_weight is not None:
        odds += log_weight
    target = torch.where(inside, odds[rows, column], own_logit)
    largest = torch.maximum(odds.amax(dim=-1), target)
    odds.sub_(largest[:, None]).exp_()
    odds[rows, column] = odds[rows, column].masked_fill(column >= 0, 0)
    rest, distance = odds.sum(dim=-1), target - largest
    # The gradient at the target is p - 1 = -rest / whole; that of a target with a logit of its own is elsewhere.
    odds[rows, column] = torch.where(inside, -rest, odds[rows, column])
    logits.copy_(odds)
    losses = torch.log1p(rest + torch.expm1(distance)) - distance  # log(whole) - distance, precise where it is small
    return losses, rest, rest + distance.exp()
