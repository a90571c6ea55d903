"""Pictures for the bonus notebook on DPO: a choice and its loss, tokens of two answers, what training does to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plots import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_ORANGE,
    SHADE,
    VERMILION,
    decimals,
    describe,
    subplots,
    write,
)


def choice_and_loss(difference: float = 1.0) -> Figure:
    """The probability of a choice and its loss over the difference of two rewards, with one point marked in both."""
    x = np.linspace(-5, 5, 201)
    fig, axes = subplots(7.4, 2.9, 1, 2)
    probability, loss = 1 / (1 + np.exp(-difference)), np.log1p(np.exp(-difference))
    for ax, curve, point, title in (
        (axes[0], 1 / (1 + np.exp(-x)), probability, "probability of the choice"),
        (axes[1], np.log1p(np.exp(-x)), loss, "loss, in nats"),
    ):
        ax.plot(x, curve, color=BLUE)
        ax.axvline(0, color=GREY, lw=0.8, ls=":")
        ax.plot(difference, point, "o", color=VERMILION, ms=7)
        offset = (9, -13) if ax is axes[0] else (7, 7)  # away from the curve
        ax.annotate(f"{point:.3f}", (difference, point), xytext=offset, textcoords="offset points")
        ax.set(title=title, xlabel="reward of the chosen − reward of the rejected", ylim=(0, None))
        ax.xaxis.label.set_size(9)
    axes[0].set_ylim(0, 1.08)
    return describe(
        fig,
        "Two curves over the difference of rewards from -5 to 5. The probability of the choice rises in an S from 0 to "
        f"1 and is {probability:.3f} at a difference of {difference:g}. The loss falls from 5 to nearly 0 and is "
        f"{loss:.3f} there.",
    )


def tokens_of_answers(answers: Mapping[str, Sequence[tuple[str, float]]]) -> Figure:
    """For each answer (by name) its tokens with their log-probabilities, as bars that hang from 0."""
    longest = max(len(tokens) for tokens in answers.values())
    lowest = min(value for tokens in answers.values() for _, value in tokens)
    fig, axes = subplots(7.4, 1.9 * len(answers), len(answers), 1)
    for ax, (name, tokens), color in zip(axes, answers.items(), (BLUE, ORANGE), strict=False):
        values = [value for _, value in tokens]
        ax.bar(range(len(tokens)), values, color=color, width=0.7)
        for place, value in enumerate(values):
            write(ax, place, value + 0.02 * lowest, decimals(value, 1), va="top", fontsize=8.5)
        names = [token.replace("<|endoftext|>", "(end)").replace("$", r"\$").strip() for token, _ in tokens]
        ax.set_xticks(range(len(tokens)), names, fontsize=9)
        ax.xaxis.tick_top()
        ax.tick_params(axis="x", length=0)
        ax.set(xlim=(-0.6, longest - 0.4), ylim=(lowest * 1.25, 0), ylabel="nats")
        ax.set_title(f"{name}: {decimals(sum(values))} in all", loc="left", pad=8)
        ax.spines.bottom.set_visible(False)
        ax.spines.top.set_visible(True)
    parts = [
        f"First token of the {name} answer {tokens[0][1]:.1f} nats, all tokens {sum(value for _, value in tokens):.1f}."
        for name, tokens in answers.items()
    ]
    return describe(fig, "Bars of the log-probability of each token of two answers to a request. " + " ".join(parts))


def goal_by_share(reference: float, betas: Sequence[float]) -> Figure:
    """Mean reward, less beta times the KL divergence, over the policy's probability of the better of two answers.

    The better answer has the reward 1, the other one 0, and the reference gives the better one the probability
    `reference`. A panel for each beta; the largest value is marked.
    """
    p = np.linspace(0.001, 0.999, 999)
    divergence = p * np.log(p / reference) + (1 - p) * np.log((1 - p) / (1 - reference))
    fig, axes = subplots(7.6, 2.9, 1, len(betas), sharey=True)
    best = []
    for ax, beta in zip(axes, betas, strict=True):
        goal = p - beta * divergence
        best.append(p[goal.argmax()])
        ax.plot(p, p, color=GREY, lw=1.2, ls="--", label="mean reward")
        ax.plot(p, goal, color=BLUE, label="less the penalty")
        ax.axvline(reference, color=GREY, lw=0.8, ls=":")
        ax.plot(best[-1], goal.max(), "o", color=VERMILION, ms=7, clip_on=False, zorder=5)
        ax.annotate(f"{best[-1]:.3f}", (best[-1], goal.max()), xytext=(-4, 8), textcoords="offset points", ha="right")
        ax.set(title=f"β = {beta:g}", xlim=(0, 1), ylim=(-1, 1.15))
        ax.set_xlabel("policy's probability of the better", fontsize=9)
    axes[-1].legend(loc="lower right", fontsize=8.5)
    marks = ", ".join(f"at {share:.3f} for beta {beta:g}" for share, beta in zip(best, betas, strict=True))
    return describe(
        fig,
        f"{len(betas)} panels over the policy's probability of the better answer, of which the reference has "
        f"{reference:.3f}. The mean reward is a straight line; less the penalty, it has its highest point {marks}.",
    )


def loss_by_beta(beta: float, betas: Sequence[float] = (0.02, 0.1, 0.5)) -> Figure:
    """The loss, and its gradient as a share of beta, over the policy's change; one beta among some others."""
    x = np.linspace(-20, 60, 321)
    fig, axes = subplots(7.4, 3.1, 1, 2)
    for each in (*(other for other in betas if other != beta), beta):
        main = each == beta
        color, width, label = (BLUE, 2.4, f"β = {each:g}") if main else (GREY, 1.1, None)
        for ax, curve in ((axes[0], np.logaddexp(0, -each * x)), (axes[1], 1 / (1 + np.exp(each * x)))):
            ax.plot(x, curve, color=color, lw=width, label=label, zorder=3 if main else 2)
            if not main:
                at = 40 if each < 0.05 else 22 if each < 0.3 else -3
                height = np.interp(at, x, curve)
                ax.annotate(f"{each:g}", (at, height), xytext=(5, 3), textcoords="offset points", fontsize=8)
    axes[0].set(title="loss", ylim=(0, 2.2), ylabel="nats")
    axes[1].set(title="gradient, as a share of β", ylim=(0, 1.05))
    for ax in axes:
        ax.set_xlabel("change of log π(chosen) − log π(rejected)", fontsize=9)
        ax.axvline(0, color=GREY, lw=0.8, ls=":")
    axes[0].legend(loc="upper right")
    return describe(
        fig,
        "Two panels over the change of the log-probability of the chosen less that of the rejected answer. Left, the "
        f"loss for beta {beta:g} falls from 0.69 at no change to {np.logaddexp(0, -10 * beta):.2f} at a change of 10; "
        f"for beta {min(betas):g} it hardly falls. Right, the gradient is one half of beta at no change for every "
        f"beta, and for beta {beta:g} it is {1 / (1 + np.exp(10 * beta)):.2f} of beta at a change of 10.",
    )


def tuning(seen: Sequence[Mapping[str, float]], epoch: int | None = None) -> Figure:
    """Held-out pairs over updates, in three panels: log-probabilities, reward margin, share in the right order.

    `epoch` is the number of updates after which a dashed line ends the first epoch.
    """
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
    first, last = seen[0], seen[-1]
    return describe(
        fig,
        f"Three panels over {last['step']} updates, on unseen pairs. Log-probabilities: chosen from "
        f"{first['chosen']:.1f} to {last['chosen']:.1f}, rejected from {first['rejected']:.1f} to "
        f"{last['rejected']:.1f}. The margin grows from {first['margin']:.2f} to {last['margin']:.2f}. The share of "
        f"pairs in the right order goes from {first['accuracy']:.2f} to {last['accuracy']:.2f}.",
    )


def manners(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """For each model (by name): manners of its most probable answers, of drawn ones, and what its content gained.

    A row holds "greedy" and "drawn", each with the shares "friendly" and "curt", and "content" with the mean change of
    the token F1 since the first row's model and its standard error, "change" and "error".
    """
    names = list(rows)
    fig, axes = subplots(7.8, 1.15 + 0.42 * len(rows), 1, 3, sharey=True, width_ratios=[3, 3, 3])
    for ax, key, title in ((axes[0], "greedy", "most probable answers"), (axes[1], "drawn", "drawn answers")):
        for number, row in enumerate(rows.values()):
            _stack(ax, number, row[key])
        ax.set(xlim=(0, 1), xlabel="share", xticks=[0, 0.5, 1])
        ax.set_title(title, fontsize=10)
    for number, row in enumerate(rows.values()):
        change, error = row["content"]["change"], row["content"]["error"]
        axes[2].errorbar(change, number, xerr=2 * error, fmt="o", color=GREEN, ms=6, capsize=3, lw=1.6)
    axes[2].axvline(0, color=GREY, lw=0.8, ls=":")
    axes[2].set_xlabel("change of F1,\n± 2 standard errors", fontsize=9)
    axes[2].set_title("content", fontsize=10)
    axes[2].tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), names)
    axes[0].invert_yaxis()
    axes[1].tick_params(axis="y", length=0)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles[:3], labels[:3], loc="outside upper left", ncols=3, fontsize=9)
    parts = [
        f"{name}: most probable answers {row['greedy']['friendly']:.0%} friendly and {row['greedy']['curt']:.0%} curt, "
        f"drawn ones {row['drawn']['friendly']:.0%} and {row['drawn']['curt']:.0%}, F1 {row['content']['change']:+.2f}."
        for name, row in rows.items()
    ]
    return describe(fig, f"Manners and content of {len(rows)} models. " + " ".join(parts))


def _stack(ax: Axes, y: int, shares: Mapping[str, float]) -> None:
    """One bar of the shares of friendly, curt and other answers, with the larger shares written in it."""
    start, rest = 0.0, 1 - shares["friendly"] - shares["curt"]
    for share, color, edge, label in (
        (shares["friendly"], PALE_BLUE, BLUE, "friendly"),
        (shares["curt"], PALE_ORANGE, ORANGE, "curt"),
        (rest, SHADE, GREY, "neither"),
    ):
        ax.barh(y, share, left=start, color=color, edgecolor=edge, height=0.62, label=label)
        if share >= 0.13:
            write(ax, start + share / 2, y, f"{share:.0%}", fontsize=9)
        start += share
