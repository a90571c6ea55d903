"""Pictures for the bonus notebook on DPO: a choice and its loss, tokens of two answers, what training does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..plots import BLUE, GREEN, GREY, INK, ORANGE, PALE_BLUE, PALE_ORANGE, SHADE, VERMILION, decimals, subplots, write


def choice_and_loss(difference: float = 1.0) -> Figure:
    """The probability of a choice and its loss over the difference of two rewards, with one point marked in both."""
    x = np.linspace(-5, 5, 201)
    fig, axes = subplots(7.4, 2.9, 1, 2)
    for ax, curve, point, title in (
        (axes[0], 1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-difference)), "probability of the choice"),
        (axes[1], np.log1p(np.exp(-x)), np.log1p(np.exp(-difference)), "loss, in nats"),
    ):
        ax.plot(x, curve, color=BLUE)
        ax.axvline(0, color=GREY, lw=0.8, ls=":")
        ax.plot(difference, point, "o", color=VERMILION, ms=7)
        offset = (9, -13) if ax is axes[0] else (7, 7)  # away from the curve
        ax.annotate(f"{point:.3f}", (difference, point), xytext=offset, textcoords="offset points")
        ax.set(title=title, xlabel="reward of the chosen − reward of the rejected", ylim=(0, None))
        ax.xaxis.label.set_size(9)
    axes[0].set_ylim(0, 1.08)
    return fig


def tokens_of_answers(answers: Mapping[str, Sequence[tuple[str, float]]]) -> Figure:
    """For each answer (by name) its tokens with their log-probabilities, as bars that hang from 0."""
    longest = max(len(tokens) for tokens in answers.values())
    lowest = min(value for tokens in answers.values() for _, value in tokens)
    fig, axes = subplots(7.4, 1.9 * len(answers), len(answers), 1)
    for ax, (name, tokens), color in zip(axes, answers.items(), (BLUE, ORANGE), strict=False):
        values = [value for _, value in tokens]
        ax.bar(range(len(tokens)), values, color=color, width=0.7)
        for place, value in enumerate(values):
            write(ax, place, value - 0.1, decimals(value, 1), va="top", fontsize=8.5)
        names = [token.replace("<|endoftext|>", "(end)").strip() for token, _ in tokens]
        ax.set_xticks(range(len(tokens)), names, fontsize=9)
        ax.xaxis.tick_top()
        ax.tick_params(axis="x", length=0)
        ax.set(xlim=(-0.6, longest - 0.4), ylim=(lowest * 1.22, 0), ylabel="nats")
        ax.set_title(f"{name}: {decimals(sum(values))} in all", loc="left", pad=8)
        ax.spines.bottom.set_visible(False)
        ax.spines.top.set_visible(True)
    return fig


def loss_by_beta(beta: float, betas: Sequence[float] = (0.02, 0.1, 0.5)) -> Figure:
    """The loss, and its gradient as a share of the largest, over the policy's change; one beta among some others."""
    x = np.linspace(-20, 60, 321)
    fig, axes = subplots(7.4, 3.1, 1, 2)
    for each in (*betas, beta):
        main = each == beta
        color, width, label = (BLUE, 2.4, f"β = {each:g}") if main else (GREY, 1.1, None)
        pull = each / (1 + np.exp(each * x))
        for ax, curve in ((axes[0], np.logaddexp(0, -each * x)), (axes[1], pull / each)):
            ax.plot(x, curve, color=color, lw=width, label=label, zorder=3 if main else 2)
            if not main:
                at = 40 if each < 0.05 else 22 if each < 0.3 else -3
                height = np.interp(at, x, curve)
                ax.annotate(f"{each:g}", (at, height), xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes[0].set(title="loss", ylim=(0, 2.2), ylabel="nats")
    axes[1].set(title="pull that is left, of 1", ylim=(0, 1.05))
    for ax in axes:
        ax.set_xlabel("change of log π(chosen) − log π(rejected)", fontsize=9)
        ax.axvline(0, color=GREY, lw=0.8, ls=":")
    axes[0].legend(loc="upper right")
    return fig


def tuning(seen: Sequence[Mapping[str, float]], epoch: int | None = None) -> Figure:
    """Held-out pairs over updates, in three panels: log-probabilities, reward margin, share in the right order."""
    steps = [row["step"] for row in seen]
    fig, axes = subplots(7.6, 2.9, 1, 3)
    for key, color, style in (("chosen", BLUE, "o-"), ("rejected", ORANGE, "s--")):
        axes[0].plot(steps, [row[key] for row in seen], style, ms=4, color=color, label=key)
    axes[0].axhline(seen[0]["chosen"], color=BLUE, lw=0.8, ls=":")
    axes[0].legend(loc="lower left", fontsize=9, handlelength=1.4)
    axes[1].plot(steps, [row["margin"] for row in seen], "o-", ms=4, color=GREEN)
    axes[2].plot(steps, [row["accuracy"] for row in seen], "o-", ms=4, color=INK)
    axes[2].axhline(0.5, color=GREY, lw=0.8, ls=":")
    axes[2].set_ylim(-0.05, 1.08)
    for ax, title in zip(axes, ("log-probability, nats", "margin of rewards", "share in the right order"), strict=True):
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("updates")
        if epoch is not None:
            ax.axvline(epoch, color=GREY, lw=0.8, ls="--")
    return fig


def manners(rows: Mapping[str, tuple[float, float, float]]) -> Figure:
    """For each model (by name) the shares of friendly and of curt answers as one bar, and the answers' token F1."""
    names = list(rows)
    fig, axes = subplots(7.4, 0.95 + 0.42 * len(rows), 1, 2, sharey=True, width_ratios=[3, 2])
    for row, (friendly, curt, score) in enumerate(rows.values()):
        start = 0.0
        for share, color, edge, label in (
            (friendly, PALE_BLUE, BLUE, "friendly"),
            (curt, PALE_ORANGE, ORANGE, "curt"),
            (1 - friendly - curt, SHADE, GREY, "neither"),
        ):
            axes[0].barh(
                row, share, left=start, color=color, edgecolor=edge, height=0.62, label=label if not row else None
            )
            if share >= 0.08:
                write(axes[0], start + share / 2, row, f"{share:.0%}", fontsize=9)
            start += share
        axes[1].barh(row, score, color=GREEN, height=0.62, alpha=0.75)
        axes[1].text(score + 0.01, row, f"{score:.2f}", va="center", fontsize=9)
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].invert_yaxis()
    axes[0].set(xlim=(0, 1), xlabel="share of the answers")
    axes[1].set(xlim=(0, max(score for *_, score in rows.values()) * 1.25), xlabel="token F1 of what is said")
    axes[1].tick_params(axis="y", length=0)
    fig.legend(loc="outside upper left", ncols=3, fontsize=9)
    return fig
