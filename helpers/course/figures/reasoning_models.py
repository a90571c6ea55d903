"""Pictures for the bonus notebook on reasoning models: steps, samples, rewards over updates, the four ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from matplotlib.figure import Figure

from ..plots import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    PALE_ORANGE,
    PINK,
    SHADE,
    VERMILION,
    arrow,
    box,
    canvas,
    describe,
    subplots,
    write,
)

Curve = Mapping[int, float]  # accuracy by number of samples
History = Sequence[Mapping[str, float]]  # a record of each update, as `helpers.reasoning.train_grpo` gives it

GUESS = 0.1  # the share of digits that are guessed right


def sum_in_steps(digits: Sequence[int] = (4, 7, 8, 5, 3, 1)) -> Figure:
    """Two ways to the last digit of a sum: from all digits at once, and through the running sums."""
    sums = [total % 10 for total in accumulate(digits)]
    fig, ax = canvas(7.6, 3.1)
    xs = [1.7 + 0.85 * place for place in range(len(digits))]
    for y, label in ((2.75, "the question"), (1.45, "with steps"), (0.3, "without")):
        write(ax, 0.1, y, label, ha="left")
    for x, digit in zip(xs, digits, strict=True):
        box(ax, x, 2.75, str(digit), 0.5, 0.42, PALE_BLUE)
    for place, x in enumerate(xs[1:], start=1):
        box(ax, x, 1.45, str(sums[place]), 0.5, 0.42, PALE_ORANGE)
        arrow(ax, (x, 2.52), (x, 1.68))
        start = (xs[0] + 0.1, 2.52) if place == 1 else (xs[place - 1] + 0.26, 1.45)
        arrow(ax, start, (x - 0.26, 1.5 if place == 1 else 1.45), color=VERMILION)
    end = xs[-1] + 1.0
    for y in (1.45, 0.3):
        box(ax, end, y, f"={sums[-1]}", 0.55, 0.42, PALE_GREEN)
    arrow(ax, (xs[-1] + 0.26, 1.45), (end - 0.28, 1.45), color=VERMILION)
    for x in xs:
        ax.plot([x, x], [2.52, 2.3], color=GREY, lw=0.8)
    ax.plot([xs[0], xs[-1] + 0.5], [2.3, 2.3], color=GREY, lw=0.8)
    ax.plot([xs[-1] + 0.5, xs[-1] + 0.5], [2.3, 0.3], color=GREY, lw=0.8)
    arrow(ax, (xs[-1] + 0.5, 0.3), (end - 0.28, 0.3), color=GREY)
    shown, written = (", ".join(map(str, row)) for row in (digits, sums[1:]))
    return describe(
        fig,
        f"The digits {shown} and two ways to the last digit of their sum, {sums[-1]}. With steps, each running sum, "
        f"{written}, is made from the one before and one digit. Without, one arrow leads from all digits to it.",
    )


def by_steps(rows: Mapping[int, Mapping[str, float]]) -> Figure:
    """How often an answer has 0, 1, 2 ... steps (`share`), and how often such answers are right (`right`)."""
    fig, (left, right) = subplots(7.4, 2.9, 1, 2)
    steps = list(rows)
    shares, rights = ([rows[step][key] for step in steps] for key in ("share", "right"))
    for ax, heights, color, title in (
        (left, shares, PALE_BLUE, "share of the answers"),
        (right, rights, PALE_ORANGE, "share of them that is right"),
    ):
        ax.bar(steps, heights, color=color, edgecolor=INK, lw=0.8)
        for step, height in zip(steps, heights, strict=True):
            write(ax, step, height + 0.04, f"{height:.2f}", fontsize=9)
        ax.set(title=title, xlabel="steps written", ylim=(0, 1.1), xticks=steps)
    right.axhline(GUESS, color=GREY, lw=1, ls=":")
    parts = [
        f"{step} steps: {share:.2f}, {good:.2f} right" for step, share, good in zip(steps, shares, rights, strict=True)
    ]
    return describe(fig, f"Bars by the number of steps written, share of the answers: {'; '.join(parts)}.")


def by_length(runs: Mapping[str, Mapping[int, Sequence[float]]]) -> Figure:
    """Accuracy over the number of digits for models trained to answer in one way each; a dot for each seed."""
    fig, ax = subplots(6, 3.1)
    for (name, lengths), color, marker in zip(runs.items(), (ORANGE, BLUE), ("s", "o"), strict=True):
        means = [sum(values) / len(values) for values in lengths.values()]
        ax.plot(list(lengths), means, color=color, label=name)
        for length, values in lengths.items():
            ax.plot([length] * len(values), values, marker, color=color, ms=5, alpha=0.8)
    ax.axhline(GUESS, color=GREY, lw=1, ls=":")
    ax.set(xlabel="digits to add", ylabel="share right", ylim=(0, 1.05), xticks=list(lengths))
    ax.legend(loc="center right")
    parts = [
        f"{name}: "
        + ", ".join(f"{length} digits {sum(values) / len(values):.2f}" for length, values in lengths.items())
        for name, lengths in runs.items()
    ]
    return describe(fig, f"Share right over the number of digits, mean of the seeds. {'. '.join(parts)}.")


def by_samples(panels: Mapping[str, Mapping[str, Curve]], tokens: float | None = None) -> Figure:
    """Accuracy over the number of samples, a panel for each model, a line for each way to choose among them.

    With `tokens` per answer, the axis along the top has the tokens that are written for a question.
    """
    fig, axes = subplots(4.3 + 3.2 * (len(panels) - 1), 3.3, 1, len(panels), sharey=True, squeeze=False)
    styles = ((BLUE, "o-"), (GREEN, "s--"), (ORANGE, "^-."), (PINK, "D:"))
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for (name, curve), (color, style) in zip(curves.items(), styles, strict=False):
            ax.plot(list(curve), list(curve.values()), style, color=color, ms=4, label=name)
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(curve), [str(number) for number in curve])
        ax.set(title=title, xlabel="samples per question", ylim=(0, 1.05))
        if tokens:
            top = ax.secondary_xaxis("top", functions=(lambda x: x * tokens, lambda x: x / tokens))
            top.set_xticks([number * tokens for number in curve], [f"{number * tokens:.0f}" for number in curve])
            top.minorticks_off()
            top.set_xlabel("tokens written per question", fontsize=9)
        ax.minorticks_off()
    axes[0, 0].set_ylabel("share right")
    axes[0, -1].legend(loc="upper left" if len(panels) == 1 else "lower right", fontsize=9)
    parts = []
    for title, curves in panels.items():
        ends = [f"{name} from {next(iter(c.values())):.2f} to {list(c.values())[-1]:.2f}" for name, c in curves.items()]
        parts.append(f"{title}: {', '.join(ends)}")
    most = max(next(iter(next(iter(panels.values())).values())))
    return describe(fig, f"Share right over the number of samples, from 1 to {most}. {'. '.join(parts)}.")


def smooth(values: Sequence[float], width: int = 5) -> list[float]:
    """The mean of each value and those just before it, at most `width` together."""
    return [sum(values[max(0, end - width) : end]) / min(end, width) for end in range(1, len(values) + 1)]


def training(runs: Mapping[str, History]) -> Figure:
    """Three panels over updates: the share of right answers, tokens per answer, groups whose rewards differ."""
    fig, axes = subplots(7.8, 2.9, 1, 3)
    keys = {"right": "share right", "tokens": "tokens per answer", "mixed": "groups with both rewards"}
    for ax, (key, title) in zip(axes, keys.items(), strict=True):
        for (name, history), color, style in zip(
            runs.items(), (BLUE, VERMILION, GREEN), ("-", "--", "-."), strict=False
        ):
            values = smooth([record[key] for record in history])
            ax.plot(range(1, len(values) + 1), values, style, color=color, label=name)
        ax.set(title=title, xlabel="update", ylim=(0, 9 if key == "tokens" else 1.05))
    if len(runs) > 1:
        axes[0].legend(loc="lower right", fontsize=9)
    parts = []
    for name, history in runs.items():
        first, last = history[0], [smooth([record[key] for record in history])[-1] for key in keys]
        changes = [
            f"{title} from {first[key]:.2f} to {end:.2f}" for (key, title), end in zip(keys.items(), last, strict=True)
        ]
        parts.append(f"{name}: {', '.join(changes)} in {len(history)} updates")
    return describe(fig, f"Curves over the updates. {'. '.join(parts)}.")


def reward_and_truth(runs: Mapping[str, History]) -> Figure:
    """For each run a panel with the reward and the share of right answers over updates."""
    fig, axes = subplots(3.7 * len(runs), 2.9, 1, len(runs), sharey=True, squeeze=False)
    parts = []
    for ax, (title, history) in zip(axes[0], runs.items(), strict=True):
        updates = range(1, len(history) + 1)
        ends = []
        for key, color, style, name in (
            ("reward", VERMILION, "--", "reward that it is trained on"),
            ("right", BLUE, "-", "right answers"),
        ):
            values = smooth([record[key] for record in history])
            ax.plot(updates, values, style, color=color, label=name)
            ends.append(f"{name} from {values[0]:.2f} to {values[-1]:.2f}")
        ax.set(title=title, xlabel="update", ylim=(0, 1.05))
        parts.append(f"{title}: {', '.join(ends)}")
    axes[0, 0].set_ylabel("mean of a batch")
    axes[0, 0].legend(loc="center right", fontsize=9)
    return describe(fig, f"Reward and right answers over the updates. {'. '.join(parts)}.")


def ways(rows: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy of each way as a row of dots, one for each seed, and a line at their mean."""
    fig, ax = subplots(7.2, 0.6 + 0.33 * len(rows))
    parts = []
    for place, (name, values) in enumerate(reversed(rows.items())):
        mean = sum(values) / len(values)
        ax.plot([0, 1], [place, place], color=SHADE, lw=6, zorder=1, solid_capstyle="butt")
        ax.plot(values, [place] * len(values), "o", color=BLUE, ms=5, alpha=0.8, zorder=3)
        ax.plot([mean, mean], [place - 0.3, place + 0.3], color=INK, lw=1.6, zorder=2)
        parts.insert(0, f"{name} {mean:.2f}")
    ax.set_yticks(range(len(rows)), list(reversed(rows)))
    ax.tick_params(axis="y", length=0)
    ax.set(xlim=(0, 1.02), xlabel="share right, a dot for each seed")
    ax.axvline(GUESS, color=PALE_GREY, lw=1, ls=":")
    return describe(fig, f"Share of held-out questions answered rightly, mean of the seeds: {', '.join(parts)}.")
