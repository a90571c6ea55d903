"""Pictures for chapter 6: two kinds of fine-tuning, padding, what is trained, few messages, thresholds, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .. import plots
from ..plots import arrow, box, canvas, describe, heatmap, subplots, write
from .shared import attention_mask


def two_kinds() -> Figure:
    """One pretrained model, fine-tuned in two ways: for classes and for instructions."""
    fig, ax = canvas(7.4, 2.9)
    box(ax, 1.15, 1.45, "pretrained model\n(continues texts)", 1.9, 0.8, plots.SHADE, fontsize=9.5)
    ways = [(2.1, plots.PALE_BLUE, "classifier", "texts with\na class each", "You have won a\nprize, call now", "spam")]
    question, reply = "Make it passive:\nWe ate the cake.", "The cake was\neaten."
    ways += [(0.8, plots.PALE_ORANGE, "assistant", "instructions\nwith answers", question, reply)]
    for y, color, name, shown, asked, answer in ways:
        arrow(ax, (2.1, 1.45 + (0.15 if y > 1.45 else -0.15)), (3.0, y))
        write(ax, 2.3, y + (0.1 if y > 1.45 else -0.1), shown, fontsize=8.5, color=plots.INK)
        ax.plot([4.3, 4.52], [y, y], color=plots.GREY, lw=1.2, ls=":")
        box(ax, 3.65, y, name, 1.3, 0.6, color, weight="bold", fontsize=9.5)
        box(ax, 5.15, y, asked, 1.25, 0.62, plots.PAPER, fontsize=8)
        arrow(ax, (5.78, y), (6.08, y))
        box(ax, 6.68, y, answer, 1.2, 0.62, plots.PALE_GREEN, fontsize=8.5)
    write(ax, 5.15, 2.62, "is given", fontsize=8.5, color=plots.GREY)
    write(ax, 6.68, 2.62, "replies", fontsize=8.5, color=plots.GREY)
    write(ax, 3.65, 2.62, "chapter 6", fontsize=8.5, color=plots.GREY)
    write(ax, 3.65, 0.3, "chapter 7", fontsize=8.5, color=plots.GREY)
    return describe(
        fig,
        "A pretrained model leads to two others. Trained on texts with a class it becomes a classifier, which is given "
        "'You have won a prize, call now' and replies spam. Trained on instructions with answers it becomes an "
        "assistant, which is given 'Make it passive: We ate the cake' and replies 'The cake was eaten'.",
    )


def class_counts(counts: Mapping[str, int], balanced: int) -> Figure:
    """How many messages of ham and spam there are, and how many of each, `balanced`, after balancing."""
    fig, axes = subplots(6.4, 2.4, 1, 2, sharey=True)
    for ax, title, heights in (
        (axes[0], "all messages", (counts["ham"], counts["spam"])),
        (axes[1], "balanced", (balanced, balanced)),
    ):
        ax.bar(["ham", "spam"], heights, color=[plots.BLUE, plots.ORANGE], width=0.6)
        ax.set(title=title, ylabel="messages" if ax is axes[0] else "")
    return describe(
        fig,
        f"Two bar charts. Among all messages there are {counts['ham']:,} ham and {counts['spam']:,} spam; in the "
        f"balanced set both bars have the height {balanced:,}.",
    )


def padded_batch(lengths: Sequence[int], max_length: int) -> Figure:
    """Messages as rows of squares: their tokens pale blue, padding grey, what is cut off outlined in orange-red."""
    rows, longest = len(lengths), max(max_length, *lengths)
    fig, ax = subplots(7, 0.5 + 0.3 * rows)
    for row, length in enumerate(lengths):
        for column in range(max(length, max_length)):
            cut = column >= max_length
            color = plots.PAPER if cut else (plots.PALE_BLUE if column < length else plots.PALE_GREY)
            edge = plots.VERMILION if cut else plots.PAPER
            ax.add_patch(Rectangle((column + 0.06, row + 0.12), 0.88, 0.76, facecolor=color, edgecolor=edge, lw=0.8))
        last = min(length, max_length) - 1
        ax.plot(last + 0.5, row + 0.5, "o", color=plots.BLUE, ms=4.5)
        ax.plot(max_length - 0.5, row + 0.5, "D", mfc="none", color=plots.ORANGE, ms=7, mew=1.6)
    ax.plot([], [], "o", color=plots.BLUE, ms=4.5, label="last real token")
    ax.plot([], [], "D", mfc="none", color=plots.ORANGE, ms=7, mew=1.6, label="last position")
    ax.set(xlim=(0, longest), ylim=(rows, 0), xlabel="position")
    ax.set_xticks([column + 0.5 for column in range(longest)], [str(column + 1) for column in range(longest)])
    ax.tick_params(axis="x", length=0)
    ax.set_yticks([row + 0.5 for row in range(rows)], [f"message {row + 1}" for row in range(rows)])
    ax.tick_params(axis="y", length=0)
    ax.spines.left.set_visible(False)
    fig.legend(loc="outside upper right", ncols=2, fontsize=9)
    sizes, cut = ", ".join(map(str, lengths)), sum(max(0, length - max_length) for length in lengths)
    return describe(
        fig,
        f"Messages of {sizes} tokens, padded or cut to {max_length} positions. Pale blue squares are tokens, grey ones "
        f"padding; {cut} outlined in orange-red are cut off. A blue dot marks each last real token, an orange diamond "
        "each last position.",
    )


def trained_parts(groups: Sequence[tuple[str, Sequence[torch.nn.Module]]]) -> Figure:
    """A model's parts from input to output, each with its number of parameters; the trained ones are pale orange.

    `groups` are (name, modules). A group counts as trained if its first parameter requires a gradient.
    """
    fig, ax = canvas(7.4, 1.65)
    width, said = 7.2 / len(groups), []
    for number, (name, modules) in enumerate(groups):
        parameters = [parameter for module in modules for parameter in module.parameters()]
        count, trained = sum(parameter.numel() for parameter in parameters), parameters[0].requires_grad
        x = 0.1 + width * (number + 0.5)
        box(ax, x, 0.95, name, width - 0.18, 0.72, plots.PALE_ORANGE if trained else plots.SHADE, fontsize=8.5)
        write(ax, x, 0.4, f"{count:,}", fontsize=8)
        write(ax, x, 0.15, "trained" if trained else "frozen", fontsize=8, color=plots.GREY)
        if number:
            arrow(ax, (x - width / 2 - 0.09, 0.95), (x - width / 2 + 0.09, 0.95))
        said.append(f"{name} {count:,} parameters, {'trained' if trained else 'frozen'}".replace("\n", " "))
    ax.text(0.1, 1.5, "from the token ids", ha="left", va="center", fontsize=8.5, color=plots.GREY)
    ax.text(7.3, 1.5, "to two scores", ha="right", va="center", fontsize=8.5, color=plots.GREY)
    return describe(fig, f"The model as a row of boxes, from the token ids to two scores: {'; '.join(said)}.")


def who_sees_whom(tokens: Sequence[str]) -> Figure:
    """The causal mask over the tokens of a message; the last row, which sees everything, is outlined in orange."""
    size = len(tokens)
    fig, ax = subplots(4.6, 3.4)
    attention_mask(ax, tokens)
    ax.set_xticks(range(size), tokens, rotation=45, ha="right", fontsize=9)
    ax.set_yticks(range(size), tokens, fontsize=9)
    ax.add_patch(
        Rectangle((-0.5, size - 1.5), size, 1, facecolor="none", edgecolor=plots.ORANGE, lw=2.5, clip_on=False)
    )
    ax.set(xlabel="can be seen", ylabel="position")
    return describe(
        fig,
        f"A triangle: each token of '{' '.join(tokens)}' sees itself and the tokens before it. The last row, for "
        f"'{tokens[-1]}', is outlined in orange; it alone sees all tokens.",
    )


def accuracy_by_parameters(points: Sequence[tuple[str, int, float, float]]) -> Figure:
    """Accuracy over the number of trained parameters; `points` are (name, parameters, accuracy, margin of it)."""
    fig, ax = subplots(6.4, 3)
    for (name, trained, accuracy, margin), color in zip(points, (plots.BLUE, plots.ORANGE, plots.GREEN), strict=False):
        ax.errorbar(trained, 100 * accuracy, 100 * margin, fmt="o", ms=7, capsize=5, color=color)
        ax.annotate(name, (trained, 100 * accuracy), (9, 7), textcoords="offset points", fontsize=9)
    ax.set(xlabel="trained parameters", ylabel="balanced accuracy (percent)", xscale="log", ylim=(75, 101))
    ax.set_xlim(points[0][1] / 3, points[-1][1] * 12)
    said = "; ".join(f"{name}, {trained:,}: {value:.1%} ± {margin:.1%}" for name, trained, value, margin in points)
    return describe(fig, f"Balanced accuracy with its margin over the number of trained parameters. {said}.")


def few_messages(sizes: Sequence[int], scores: Mapping[str, np.ndarray]) -> Figure:
    """Balanced accuracy over the number of training messages, on messages of the same set and on paraphrases.

    `scores` has for each way an array (2, sizes, draws): the two tests, and several draws of the training messages.
    Lines are means, bands one standard deviation to each side.
    """
    fig, axes = subplots(7.4, 3.3, 1, 2, sharey=True)
    said = []
    for test, (ax, title) in enumerate(zip(axes, ("other messages of the set", "paraphrases"), strict=True)):
        for (name, values), style, color in zip(
            scores.items(), ("s--", "^-.", "o-"), (plots.ORANGE, plots.PINK, plots.BLUE), strict=True
        ):
            mean, spread = 100 * values[test].mean(axis=1), 100 * values[test].std(axis=1)
            ax.plot(sizes, mean, style, color=color, ms=5, label=name)
            ax.fill_between(sizes, mean - spread, mean + spread, color=color, alpha=0.15, lw=0)
            said.append(f"{name} on {title} {', '.join(f'{value:.0f}' for value in mean)}")
        ax.axhline(50, color=plots.INK, ls=":", lw=1.2)
        ax.set(title=title, xlabel="training messages", xscale="log", ylim=(45, 101))
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
    axes[0].set_ylabel("balanced accuracy (percent)")
    axes[0].text(sizes[0], 51, "always the same answer", fontsize=8.5)
    axes[0].legend(fontsize=9, loc="lower right", bbox_to_anchor=(1, 0.1))
    return describe(
        fig,
        f"Two panels, balanced accuracy in percent for {', '.join(map(str, sizes))} training messages. "
        f"{'; '.join(said)}.",
    )


def confusion_matrices(tables: Mapping[str, np.ndarray]) -> Figure:
    """A confusion matrix for each classifier: rows are the true class, columns the predicted one."""
    fig, axes = subplots(3.3 * len(tables), 2.7, 1, len(tables), squeeze=False)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        heatmap(ax, table, ["not spam", "spam"], ["not spam", "spam"], "{:.0f}", vmin=0)
        ax.set(title=name, xlabel="called", ylabel="is")
    said = "; ".join(
        f"{name}: of {table[0].sum()} not spam {table[0, 1]} called spam, of {table[1].sum()} spam {table[1, 0]} missed"
        for name, table in tables.items()
    )
    return describe(fig, f"A confusion matrix per classifier. {said}.")


def threshold_figure(p_spam: np.ndarray, labels: np.ndarray, threshold: float) -> Figure:
    """The predicted probabilities of spam, as percent of each class, with a threshold and the rates that follow."""
    fig, ax = subplots(6.8, 3)
    bins = np.linspace(0, 1, 21)
    style = {"alpha": 0.65, "edgecolor": plots.PAPER, "lw": 0.5}
    for label, color, name, hatch in ((0, plots.BLUE, "not spam", None), (1, plots.ORANGE, "spam", "//")):
        members = p_spam[labels == label]
        percent = np.full(len(members), 100 / len(members))
        ax.hist(members, bins, weights=percent, color=color, label=name, hatch=hatch, **style)
    caught, alarms = (p_spam[labels == 1] > threshold).mean(), (p_spam[labels == 0] > threshold).mean()
    ax.axvline(threshold, color=plots.INK, lw=1.8)
    ax.set(xlabel="probability of spam, as the model sees it", ylabel="percent of the class", xlim=(0, 1))
    ax.set_title(f"threshold {threshold:.2f}: {caught:.1%} of spam caught, {alarms:.1%} false alarms", fontsize=10)
    ax.legend(loc="upper center", fontsize=9)
    return describe(
        fig,
        f"Histogram of the probability of spam for messages of both classes, with a threshold at {threshold:.2f}: "
        f"{caught:.1%} of spam caught, {alarms:.1%} false alarms.",
    )


def base_rates(spam_shares: Sequence[float], curves: Mapping[str, Sequence[float]], mark: float) -> Figure:
    """Precision, the share of spam among flagged messages, over the share of spam among all messages."""
    fig, ax = subplots(6.4, 3)
    for (name, values), style, color in zip(
        curves.items(), ("-", "--", "-."), (plots.BLUE, plots.ORANGE, plots.PINK), strict=False
    ):
        ax.plot(100 * np.asarray(spam_shares), 100 * np.asarray(values), style, color=color, label=name)
    ax.axvline(100 * mark, color=plots.GREY, ls=":", lw=1.2)
    ax.text(100 * mark + 0.8, 4, "as in this data set", fontsize=8.5, color=plots.GREY)
    ax.set(xlabel="spam among all messages (percent)", ylabel="spam among the flagged (percent)", ylim=(0, 103))
    ax.set_xlim(0, 50)
    ax.legend(fontsize=9, loc="lower right")
    said = "; ".join(
        f"{name} {100 * values[np.argmin(np.abs(spam_shares - mark))]:.0f}" for name, values in curves.items()
    )
    return describe(
        fig,
        "The share of real spam among flagged messages over the share of spam among all. All curves begin near "
        f"zero and rise; where {mark:.1%} are spam they are at, in percent: {said}.",
    )


def padding_lines(lengths: Sequence[int], curves: Mapping[str, Sequence[float]], trained_at: int) -> Figure:
    """Accuracy over the length to which the same messages are padded, a line for each position that is read."""
    fig, ax = subplots(6.4, 3)
    for (name, values), style, color in zip(
        curves.items(), ("o-", "s--", "^:"), (plots.ORANGE, plots.BLUE, plots.GREEN), strict=False
    ):
        ax.plot(lengths, [100 * value for value in values], style, color=color, ms=6, label=name)
    ax.axvline(trained_at, color=plots.GREY, ls=":", lw=1.2)
    ax.text(trained_at, 21, " as in training", fontsize=8.5, color=plots.GREY)
    ax.set(xlabel="padded to (tokens)", ylabel="accuracy (percent)", ylim=(20, 102))
    ax.set_xticks(lengths, [str(length) for length in lengths])
    ax.legend(fontsize=9, loc="center right", bbox_to_anchor=(1, 0.5), title="read at the")
    said = "; ".join(f"{name} {', '.join(f'{value:.0%}' for value in values)}" for name, values in curves.items())
    return describe(
        fig,
        f"Accuracy on the same test messages padded to {', '.join(map(str, lengths))} tokens, read at the {said}.",
    )
