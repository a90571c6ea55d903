"""The loss of a language model without a tensor of all its logits, and a training step that uses it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ..gpt import GPTModel, hidden_states
from ..settings import bfloat16_is_native
from .fused import fuse


def speed_up(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    loss_function: Callable[..., torch.Tensor],
    chunked: bool = False,
) -> Callable[..., torch.Tensor]:
    """Prepare a model and an optimizer for fast training; returns the loss function to use from now on.

    The model is fused, AdamW becomes fused too if it has not begun yet, and losses are computed under bfloat16
    autocast where that is native. `chunked` says that it is the language-model loss, which is then taken in chunks.
    """
    fuse(model)
    if isinstance(optimizer, torch.optim.AdamW) and not optimizer.state:
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False
    native = bfloat16_is_native(device)
    chunked = chunked and native and type(model).forward is GPTModel.forward

    def fast_loss(input_batch: Any, target_batch: Any, model: torch.nn.Module, device: torch.device) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=native):
            if not chunked:
                return loss_function(input_batch, target_batch, model, device)
            hidden = hidden_states(model, input_batch.to(device)).flatten(0, 1)  # (B * T, C)
        targets = target_batch.to(device).flatten()
        counted = targets != -100  # what cross_entropy leaves out
        if not counted.all():
            hidden, targets = hidden[counted], targets[counted]
        return SoftmaxLoss.apply(hidden, model.out_head.weight, targets)

    return fast_loss


class SoftmaxLoss(torch.autograd.Function):
    """Mean cross-entropy of hidden states (N, C) against class ids (N,), through a table of classes (V, C).

    Computed in bfloat16, chunk by chunk, with the gradients on the way, so that no (N, V) tensor is ever kept.

    The softmax can be estimated (Jean et al., 2015): `columns` (K,) then lists the classes that get a logit, with
    `log_weight` (K,) added to it. The first `exact` classes must come first, in order; a target beyond them gets its
    logit in a column of its own.
    """

    @staticmethod
    def forward(ctx, hidden, table, targets, columns=None, log_weight=None, exact=None, chunk=512):
        if not len(hidden):
            raise ValueError("targets holds no label: there is nothing to average")
        hidden16 = hidden.to(torch.bfloat16)
        table16 = (table if columns is None else table[columns]).to(torch.bfloat16)
        exact = len(table) if exact is None else exact
        d_hidden, d_columns = torch.empty_like(hidden16), None
        d_table = None if columns is None else torch.zeros_like(table)
        last, total, share = len(table16), 0.0, 1 / len(hidden)  # each position's share of the mean
        sampled = last > exact or exact < len(table)
        for x, y, dx in zip(hidden16.split(chunk), targets.split(chunk), d_hidden.split(chunk), strict=True):
            logits = x @ table16.T  # (n, K)
            if log_weight is not None:
                logits += log_weight.to(torch.bfloat16)
            column = y
            if sampled:
                own, inside = table[y].to(torch.bfloat16), y < exact  # (n, C), (n,)
                own_logit = (x * own).sum(dim=-1).masked_fill(inside, -math.inf)
                logits = torch.cat((logits, own_logit[:, None]), dim=-1)  # (n, K + 1)
                column = torch.where(inside, y, last)
            p = torch.softmax(logits, dim=-1)
            rows = torch.arange(len(x), device=x.device)
            total += -p[rows, column].float().clamp(min=1e-30).log().sum()
            p[rows, column] -= 1
            dx.copy_(p[:, :last] @ table16)
            if sampled:
                dx += p[:, last:] * own
                d_table.index_add_(0, y, (p[:, last:] * x).to(d_table.dtype) * share)
            part = p[:, :last].T @ (x * share)  # (K, C)
            d_columns = part.to(table.dtype) if d_columns is None else d_columns.add_(part)
        if columns is not None:
            d_table.index_add_(0, columns, d_columns)
        ctx.save_for_backward(d_hidden.to(hidden.dtype) * share, d_columns if columns is None else d_table)
        return total * share

    @staticmethod
    def backward(ctx, grad):
        d_hidden, d_table = ctx.saved_tensors
        if grad != 1:  # a pass over a large table, which is seldom needed
            d_hidden, d_table = grad * d_hidden, grad * d_table
        return d_hidden, d_table, None, None, None, None, None
