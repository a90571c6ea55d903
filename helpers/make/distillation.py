"""Distillation: a model is trained towards what several trained models say on average (Hinton et al., 2015)."""

from __future__ import annotations

import torch

from ..speed.loss import rows_in_cache, scaled


class DistillationLoss(torch.autograd.Function):
    """Mean divergence of a student's next-token probabilities from the mean of its teachers', in nats per token.

    For hidden states (N, C) through a table of classes (V, C): KL(q || p), where p is the student's distribution and q
    the mean of those of `teachers`, pairs of hidden states (N, C) and a table (V, C). It is zero where they agree.

    As in `helpers.speed.loss.SoftmaxLoss`, chunk by chunk with the gradients on the way, matrix products in `dtype`,
    and `log_weight` added to all logits. Only over `columns` (K,), where these are given; then `log_weight` (K,) has to
    make some of them stand for the classes that are left out.
    """

    @staticmethod
    def forward(ctx, hidden, table, teachers, columns, log_weight, chunk=1024, dtype=torch.bfloat16):
        if not len(hidden) or not teachers:
            raise ValueError(
                f"there are {len(hidden)} hidden states and {len(teachers)} teachers; one is needed of each"
            )
        share, total = 1 / len(hidden), 0.0
        tables = [table, *(teacher_table for _, teacher_table in teachers)]
        used, *others_used = [(rows if columns is None else rows[columns]).to(dtype) for rows in tables]  # (K, C) each
        states = [hidden, *(teacher_states for teacher_states, _ in teachers)]
        d_hidden, d_used = torch.empty_like(hidden), torch.zeros_like(used, dtype=table.dtype)
        tile = rows_in_cache(used, chunk)
        for dx, x, *others in zip(d_hidden.split(chunk), *(t.to(dtype).split(chunk) for t in states), strict=True):
            logits = x @ used.T  # (n, K)
            taught = [y @ rows.T for y, rows in zip(others, others_used, strict=True)]
            for part, *said in zip(*(t.split(tile) for t in (logits, *taught)), strict=True):
                log_p = (part.float() + log_weight).log_softmax(dim=-1)
                q = sum((one.float() + log_weight).softmax(dim=-1) for one in said) / len(said)
                total += (torch.special.xlogy(q, q) - q * log_p).sum()
                part.copy_(log_p.exp_().sub_(q).mul_(share))  # their gradient, in place of the logits
            dx.copy_(logits @ used)
            d_used += logits.T @ x
        d_table = d_used if columns is None else torch.zeros_like(table).index_add_(0, columns, d_used)
        ctx.save_for_backward(d_hidden, d_table)
        return total * share

    @staticmethod
    def backward(ctx, grad):
        return *scaled(grad, *ctx.saved_tensors), None, None, None, None, None
