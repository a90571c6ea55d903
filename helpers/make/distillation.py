"""Distillation: a model is trained towards what several trained models say on average (Hinton et al., 2015)."""

from __future__ import annotations

import torch


class DistillationLoss(torch.autograd.Function):
    """Mean divergence of a student's next-token probabilities from the mean of its teachers', in nats per token.

    For hidden states (N, C) through a table of classes (V, C): KL(q || p), where p is the student's distribution and q
    the mean of those of `teachers`, pairs of hidden states (N, C) and a table (V, C). It is zero where they agree.

    As in `helpers.speed.loss.SoftmaxLoss`, chunk by chunk with the gradients on the way, matrix products in `dtype`,
    `log_weight` added to all logits, and only over `columns`, where these are given: the rest has then to be stood for
    by the weights, the same for student and teachers.
    """

    @staticmethod
    def forward(ctx, hidden, table, teachers, columns, log_weight, chunk=1024, dtype=torch.bfloat16):
        used, *tables = [(t if columns is None else t[columns]).to(dtype) for t in (table, *(t for _, t in teachers))]
        share, total = 1 / len(hidden), 0.0
        d_hidden, d_used = torch.empty_like(hidden), torch.zeros_like(used, dtype=table.dtype)
        states = [t.to(dtype) for t in (hidden, *(states for states, _ in teachers))]
        tile = max(1, 2**18 // len(used)) if used.is_cpu else chunk  # 1 MiB of logits stays in a core's cache
        for dx, x, *others in zip(*(t.split(chunk) for t in (d_hidden, *states)), strict=True):
            gradient = x @ used.T  # (n, K)
            opinions = [y @ t.T for y, t in zip(others, tables, strict=True)]
            for logits, *said in zip(*(t.split(tile) for t in (gradient, *opinions)), strict=True):
                log_p = (logits.float() + log_weight).log_softmax(dim=-1)
                q = sum((one.float() + log_weight).softmax(dim=-1) for one in said) / len(said)
                total += (torch.special.xlogy(q, q) - q * log_p).sum()
                logits.copy_(log_p.exp_().sub_(q).mul_(share))
            dx.copy_(gradient @ used)
            d_used += gradient.T @ x
        d_table = d_used if columns is None else torch.zeros_like(table).index_add_(0, columns, d_used)
        ctx.save_for_backward(d_hidden, d_table)
        return total * share

    @staticmethod
    def backward(ctx, grad):
        d_hidden, d_table = ctx.saved_tensors
        return grad * d_hidden, grad * d_table, None, None, None, None, None
