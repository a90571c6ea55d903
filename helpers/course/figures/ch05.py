"""Pictures for chapter 5: the loss, the training loop, ways to choose the next token, what files hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .. import plots
from ..plots import arrow, box, canvas, decimals, describe, subplots, top_scale, write
from .shared import grouped_bars, rows_that_fit


def loss_pipeline(
    contexts: Sequence[str], targets: Sequence[str], logits: Sequence[float], probabilities: Sequence[float]
) -> Figure:
    """From the logit of each target token to its probability, its logarithm, the mean and the loss."""
    rows = len(targets)
    height = 1.75 + 0.46 * rows
    fig, ax = canvas(7.4, height)
    columns = (2.62, 3.72, 4.98, 6.38)
    top = height - 0.75
    titles = ("text so far → target", "logit", "probability", "logarithm", "mean")
    for x, text in zip((1.25, *columns), titles, strict=True):
        write(ax, x, top + 0.45, text, weight="bold", fontsize=9.5)
    logs = [math.log(probability) for probability in probabilities]
    middle = top - 0.46 * (rows - 1) / 2
    for row, (context, target) in enumerate(zip(contexts, targets, strict=True)):
        y = top - 0.46 * row
        ax.text(1.2, y, f"{context} →", ha="right", va="center", fontsize=8.5)
        box(ax, 1.7, y, target, 0.9, 0.34, plots.PALE_ORANGE, fontsize=8.5)
        box(ax, columns[0], y, decimals(logits[row]), 0.66, 0.34, plots.SHADE)
        box(ax, columns[1], y, f"{probabilities[row]:.2e}".replace("-", "−"), 0.94, 0.34, plots.PALE_BLUE)
        box(ax, columns[2], y, decimals(logs[row]), 0.8, 0.34, plots.PALE_GREEN)
        for start, end in ((2.15, 2.29), (2.95, 3.25), (4.19, 4.58)):
            arrow(ax, (start, y), (end, y))
        arrow(ax, (5.38, y), (5.88, middle + 0.06 * (rows / 2 - row)), color=plots.GREY)
    mean = sum(logs) / rows
    box(ax, columns[3], middle, decimals(mean, 4), 1.0, 0.4, plots.PALE_GREEN, weight="bold")
    arrow(ax, (columns[3], middle - 0.2), (columns[3], 0.68))
    ax.text(columns[3] - 0.1, (middle + 0.46) / 2 - 0.02, "change\nthe sign", ha="right", va="center", fontsize=8.5)
    box(ax, columns[3], 0.47, f"loss {-mean:.4f}", 1.3, 0.42, plots.PALE_PINK, weight="bold")
    box(ax, columns[1] - 0.3, 0.47, f"perplexity {math.exp(-mean):,.0f}", 1.9, 0.42, plots.PALE_PINK, weight="bold")
    arrow(ax, (columns[3] - 0.65, 0.47), (columns[1] + 0.65, 0.47))
    ax.text((columns[3] + columns[1]) / 2, 0.56, "exp", ha="center", va="bottom", fontsize=8.5)
    write(ax, 3.17, top + 0.24, "softmax", fontsize=8.5, color=plots.GREY)
    write(ax, 4.38, top + 0.24, "ln", fontsize=8.5, color=plots.GREY)
    alt = (
        f"{rows} rows, one for each target token, from its logit through softmax to its probability and on to its "
        f"logarithm. All logarithms lead to their mean, {decimals(mean, 4)}; with the sign changed it is the loss, "
        f"{-mean:.4f}, and the loss's exponential is the perplexity, {math.exp(-mean):,.0f}."
    )
    return describe(fig, alt)


def text_split(train: tuple[int, int], val: tuple[int, int], context_length: int) -> Figure:
    """The text as a strip of a training and a validation part, both cut into windows.

    `train` and `val` are the numbers (tokens, windows) of the two parts.
    """
    fig, ax = canvas(7.4, 1.75)
    total, left, width = train[0] + val[0], 0.3, 6.8
    for (tokens, windows), start, color, name in (
        (train, 0, plots.PALE_BLUE, "training"),
        (val, train[0], plots.PALE_ORANGE, "validation"),
    ):
        x, w = left + width * start / total, width * tokens / total
        ax.add_patch(Rectangle((x, 0.75), w, 0.42, facecolor=plots.SHADE, edgecolor="none"))
        step = width * context_length / total
        for window in range(windows):
            ax.add_patch(Rectangle((x + window * step, 0.75), step, 0.42, facecolor=color, edgecolor=plots.PAPER, lw=1))
        ax.add_patch(Rectangle((x, 0.75), w, 0.42, facecolor="none", edgecolor=plots.INK, lw=1.1))
        align, at = ("left", x) if start == 0 else ("right", x + w)
        ax.text(at, 1.4, f"{name}: {tokens:,} tokens", ha=align, va="center", weight="bold", fontsize=9.5)
        ax.text(at, 0.5, f"{windows} windows of {context_length}", ha=align, va="center", fontsize=9)
    write(ax, left + width / 2, 0.16, "the text, from its first token to its last", fontsize=9)
    arrow(ax, (left + width / 2 + 1.6, 0.16), (left + width / 2 + 2.3, 0.16), color=plots.GREY)
    arrow(ax, (left + width / 2 - 2.3, 0.16), (left + width / 2 - 1.6, 0.16), color=plots.GREY)
    alt = (
        f"The text as a strip. Its first part, {train[0]:,} tokens, is cut into {train[1]} training windows, the rest, "
        f"{val[0]:,} tokens, into {val[1]} validation windows. At the end of either part a few tokens fill no window."
    )
    return describe(fig, alt)


def surprise(probabilities: Sequence[float]) -> Figure:
    """The loss of one prediction, −ln p, as a curve over p, with some points marked."""
    fig, ax = subplots(6, 2.9)
    p = np.linspace(0.002, 1, 500)
    ax.plot(p, -np.log(p), color=plots.BLUE)
    for probability in probabilities:
        loss = -math.log(probability)
        ax.plot(probability, loss, "o", color=plots.ORANGE, mec=plots.INK, ms=7)
        ax.annotate(f"p = {probability:g}: {loss:.2f}", (probability, loss), (8, 7), textcoords="offset points")
    ax.set(xlabel="probability $p$ given to the right token", ylabel=r"$-\ln p$", xlim=(0, 1.12), ylim=(0, 6.5))
    values = ", ".join(f"{-math.log(probability):.2f} at p = {probability:g}" for probability in probabilities)
    return describe(
        fig, f"The curve of minus the logarithm of p: {values}. It climbs ever faster towards p = 0 and is 0 at p = 1."
    )


def training_cycle() -> Figure:
    """The training loop as a cycle of five steps, with the line of code for each."""
    fig, ax = canvas(7.4, 3.9)
    stations = [
        (3.7, 3.45, "next batch from the loader", "for input_batch, target_batch in train_loader:", plots.PALE_ORANGE),
        (6.05, 2.35, "forget the old gradients", "optimizer.zero_grad()", plots.SHADE),
        (5.35, 0.75, "forward: compute the loss", "loss = calc_loss_batch(...)", plots.PALE_BLUE),
        (2.05, 0.75, "backward: the gradients", "loss.backward()", plots.PALE_PINK),
        (1.35, 2.35, "move every weight a little", "optimizer.step()", plots.PALE_GREEN),
    ]
    for x, y, text, code, color in stations:
        wide = 3.9 if "for" in code.split()[0] else 2.35
        ax.add_patch(Rectangle((x - wide / 2, y - 0.31), wide, 0.62, facecolor=color, edgecolor=plots.INK, lw=1))
        write(ax, x, y + 0.13, text, fontsize=9.5, weight="bold")
        write(ax, x, y - 0.13, code, fontsize=8.5, family="DejaVu Sans Mono")
    arrow(ax, (5.68, 3.4), (6.3, 2.7), curve=-0.2)
    arrow(ax, (6.3, 2.02), (5.95, 1.1), curve=-0.1)
    arrow(ax, (4.15, 0.75), (3.25, 0.75))
    arrow(ax, (1.45, 1.1), (1.1, 2.02), curve=-0.1)
    arrow(ax, (1.1, 2.7), (1.72, 3.4), curve=-0.2)
    write(ax, 3.7, 2.05, "once round:\none update", fontsize=10, color=plots.BLUE)
    steps = "; ".join(text.rstrip("?") for _, _, text, _, _ in stations)
    return describe(
        fig, f"The training loop as a cycle of five stations, each with its line of code: {steps}; and round again."
    )


def perplexity_curves(
    epochs_seen: Sequence[float],
    tokens_seen: Sequence[int],
    train_losses: Sequence[float],
    val_losses: Sequence[float],
    vocab_size: int,
    counted: float,
) -> Figure:
    """Perplexity over epochs on a logarithmic axis; the gap between the two texts shaded, with tokens seen on top.

    `counted` is the perplexity, on the validation text, of a model that only counts tokens.
    """
    if not train_losses:
        return plots.nothing_measured()
    fig, ax = subplots(6.6, 3.8)
    train, val = np.exp(train_losses), np.exp(val_losses)
    ax.fill_between(
        epochs_seen, train, val, where=val > train, color=plots.ORANGE, alpha=0.2, label="the gap: overfitting"
    )
    ax.semilogy(epochs_seen, train, "o-", ms=4, color=plots.BLUE, label="training text")
    ax.semilogy(epochs_seen, val, "s--", ms=4, color=plots.ORANGE, label="validation text")
    best = int(np.argmin(val))
    star = {"ms": 15, "color": plots.VERMILION, "mec": plots.INK}
    ax.plot(epochs_seen[best], val[best], "*", label="lowest on the validation text", **star)
    for level, text in ((vocab_size, "all tokens alike"), (counted, "counting tokens, validation text")):
        ax.axhline(level, color=plots.GREY, lw=1, ls=":")
        ax.text(epochs_seen[-1] / 2, level * 1.12, text, ha="center", va="bottom", fontsize=9)
    ax.set(xlabel="epochs", ylabel="perplexity", ylim=(0.9, vocab_size * 3))
    ax.legend(fontsize=9, loc="lower left")
    top_scale(ax, tokens_seen, train, "tokens seen").xaxis.set_major_formatter("{x:,.0f}")
    alt = (
        f"Perplexity over epochs on a logarithmic axis, with dotted lines at {vocab_size:,} (all tokens alike) and at "
        f"{counted:,.0f} (counting tokens). The training curve falls from {train[0]:,.0f} to {train[-1]:,.1f}. The "
        f"validation curve falls from {val[0]:,.0f} to its lowest point, {val[best]:,.0f}, marked by a star after "
        f"{epochs_seen[best]:.1f} epochs, and ends at {val[-1]:,.0f}. The gap between them is shaded."
    )
    return describe(fig, alt)


def temperature_bars(words: Sequence[str], logits: torch.Tensor, temperatures: Sequence[float]) -> Figure:
    """The probabilities of each word at several temperatures, as groups of bars."""
    fig, ax = subplots(7.2, 3.1)
    series = {f"temperature {each:g}": torch.softmax(logits / each, 0).tolist() for each in temperatures}
    grouped_bars(ax, words, series, (plots.GREEN, plots.BLUE, plots.ORANGE))
    ax.set(ylabel="probability", ylim=(0, 1.05))
    ax.legend()
    parts = []
    for temperature, (name, values) in zip(temperatures, series.items(), strict=True):
        best, worst = (int(pick(values)) for pick in (np.argmax, np.argmin))
        share = f"{words[best]} has {values[best]:.3f} and {words[worst]} {values[worst]:.3f}"
        parts.append(f"at {temperature:g} {share}" if parts else f"{name.replace('temperature ', 'At ')} {share}")
    bars = f"Bars of the probabilities of {len(words)} words at {len(temperatures)} temperatures."
    return describe(fig, f"{bars} {'; '.join(parts)}.")


def cut(
    words: Sequence[str],
    logits: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    most: int = 12,
    height: float | None = None,
) -> Figure:
    """A distribution at a temperature, before and after top-k and top-p: bars from the most probable token down.

    `words` has a name for each of the `logits` (V,); at most `most` bars are drawn. The probability axis ends at
    `height`, or a little above the highest bar.
    """
    order = logits.argsort(descending=True)
    plain = torch.softmax(logits[order] / temperature, 0)
    kept, final = _cut(logits[order], temperature, top_k, top_p)
    count = min(most, len(order))
    fig, ax = subplots(7.2, 3.2)
    style = {"color": plots.PAPER, "edgecolor": plots.GREY, "lw": 1.2, "hatch": "///"}
    ax.bar(range(count), plain[:count].tolist(), label="before the cut", **style)
    ax.bar(range(count), final[:count].tolist(), width=0.5, color=plots.BLUE, label="after the cut")
    for place in range(count):
        text = f"{final[place]:.0%}" if kept[place] else "–"
        higher = max(float(plain[place]), float(final[place]))
        ax.annotate(text, (place, higher), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=9)
    names = [words[index] for index in order[:count].tolist()]
    ax.set_xticks(range(count), labels=names, rotation=30 if count > 9 else 0)
    settings = [f"temperature {temperature:g}"]
    settings += [f"top-k {top_k}"] if top_k is not None else []
    settings += [f"top-p {top_p:g}"] if top_p is not None else []
    left = int(kept.sum())
    ax.set(title=f"{', '.join(settings)}: {left} of {len(order):,} tokens left", ylabel="probability")
    ax.set_ylim(0, height or min(1.12, 1.3 * max(float(plain.max()), float(final.max()))))
    ax.legend(loc="upper right")
    first = ", ".join(f"{name.strip('␣')} {p:.0%}" for name, p in zip(names, final.tolist(), strict=False) if p > 0)
    alt = (
        f"Bars of the {count} most probable tokens at {', '.join(settings)}: hatched before the cut, where they have "
        f"{float(plain[:count].sum()):.0%} together, filled after it. {left} of {len(order):,} tokens are left, with "
        f"these shares: {first}."
    )
    return describe(fig, alt)


def _cut(
    ordered: torch.Tensor, temperature: float, top_k: int | None, top_p: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of the logits (V,), in descending order, `choose_next` keeps, and the probabilities that it draws from."""
    kept = torch.ones(len(ordered), dtype=torch.bool)
    if top_k is not None:
        kept &= ordered >= ordered[min(top_k, len(ordered)) - 1]
    probabilities = torch.softmax(ordered.masked_fill(~kept, -math.inf) / temperature, 0)
    if top_p is not None:
        kept &= probabilities.cumsum(0) - probabilities < top_p
    probabilities = torch.where(kept, probabilities, 0.0)
    return kept, probabilities / probabilities.sum()


def beam_tree(words: Sequence[str], table: torch.Tensor, start: str, beams: int = 2) -> Figure:
    """Two steps of beam search through a table of next-word probabilities (V, V), beside the greedy choice.

    At each step, continuations with a probability above 5 % are drawn.
    """
    fig, ax = canvas(7.6, 3.5)
    first = _followers(words, table, start)
    leaves = [(word, last, p, q) for word, p in first for last, q in _followers(words, table, word)]
    best = max(leaves, key=lambda leaf: leaf[2] * leaf[3])
    greedy = next(leaf for leaf in leaves if leaf[0] == first[0][0])
    kept = {word for word, _ in first[:beams]}
    gap = 3.0 / len(leaves)
    heights = [3.2 - gap * (number + 0.5) for number in range(len(leaves))]
    middles = {
        word: np.mean([y for y, leaf in zip(heights, leaves, strict=True) if leaf[0] == word]) for word, _ in first
    }
    root = float(np.mean(list(middles.values())))
    box(ax, 0.7, root, start, 0.9, 0.36, plots.SHADE)
    for word, p in first:
        color = plots.INK if word in kept else plots.GREY
        arrow(ax, (1.15, root), (2.15, middles[word]), color=color, lw=1.8 if word in kept else 1)
        box(ax, 2.65, middles[word], word, 1.0, 0.36, plots.PALE_BLUE if word in kept else plots.PAPER, edge=color)
        write(ax, 1.65, (root + middles[word]) / 2, f"{p:.2f}", fontsize=9, backgroundcolor=plots.PAPER)
    for y, leaf in zip(heights, leaves, strict=True):
        word, last, p, q = leaf
        inside = word in kept
        arrow(ax, (3.15, middles[word]), (4.2, y), color=plots.INK if inside else plots.GREY)
        color = (
            plots.PALE_GREEN
            if leaf == best
            else plots.PALE_ORANGE
            if leaf == greedy
            else plots.SHADE
            if inside
            else plots.PAPER
        )
        box(ax, 4.7, y, last, 1.0, min(0.32, gap * 0.85), color, edge=plots.INK if inside else plots.GREY)
        x, middle = 3.78, middles[word] + 0.6 * (y - middles[word])
        write(ax, x, middle, f"{q:.2f}", fontsize=8.5, backgroundcolor=plots.PAPER)
        note = f"{p:.2f} · {q:.2f} = {p * q:.3f}"
        note += "   beam search" if leaf == best else "   greedy" if leaf == greedy else ""
        ax.text(5.28, y, note, va="center", fontsize=9, weight="bold" if leaf in (best, greedy) else "normal")
    alt = (
        f"A tree of two steps from '{start}'. Greedy decoding goes to {greedy[0]} with {greedy[2]:.2f} and on to "
        f"{greedy[1]}, together {greedy[2] * greedy[3]:.3f}. The most probable path is {best[0]} with {best[2]:.2f} "
        f"and then {best[1]} with {best[3]:.2f}, together {best[2] * best[3]:.3f}."
    )
    return describe(fig, alt)


def _followers(words: Sequence[str], table: torch.Tensor, word: str) -> list[tuple[str, float]]:
    """The words that follow `word` with a probability above 5 %, with that probability, the likeliest first."""
    row = table[list(words).index(word)].tolist()
    likely = [(name, p) for name, p in zip(words, row, strict=True) if p > 0.05]
    return sorted(likely, key=lambda pair: -pair[1])


def checkpoint_contents() -> Figure:
    """The files of `save_model` and `save_checkpoint` side by side: what is in each, and what it is for."""
    fig, ax = canvas(7.4, 3.15)
    rows = [
        ("weights of the model", plots.PALE_BLUE, True),
        ("optimizer: two averages per weight", plots.PALE_ORANGE, False),
        ("progress: epoch, batch, step, tokens", plots.PALE_GREEN, False),
        ("random state now (dropout)", plots.PALE_PINK, False),
        ("random state at the start of the epoch (shuffling)", plots.PALE_PINK, False),
    ]
    for x, width, title, use in (
        (1.75, 3.1, "save_model", "to write text, to fine-tune, to share"),
        (5.55, 3.45, "save_checkpoint", "to go on training as if never stopped"),
    ):
        write(ax, x, 2.95, title, weight="bold", family="DejaVu Sans Mono")
        write(ax, x, 0.12, use, fontsize=9)
        ax.add_patch(Rectangle((x - width / 2, 0.33), width, 2.42, facecolor="none", edgecolor=plots.GREY, lw=1.2))
        for row, (text, color, both) in enumerate(rows):
            if both or title == "save_checkpoint":
                box(ax, x, 2.48 - 0.47 * row, text, width - 0.2, 0.36, color, fontsize=8.5)
    held = "; ".join(text for text, _, _ in rows)
    return describe(
        fig, f"Two files side by side. The file of save_model holds the {rows[0][0]}. That of save_checkpoint: {held}."
    )


def perplexity_bars(texts: Sequence[str], models: Mapping[str, Sequence[float]]) -> Figure:
    """Perplexity of several models on several texts, as groups of bars on a logarithmic axis."""
    fig, ax = subplots(7.2, 3.3)
    drawn = grouped_bars(ax, texts, models, (plots.GREY, plots.GREEN, plots.ORANGE, plots.BLUE))
    for bars, values in zip(drawn, models.values(), strict=True):
        ax.bar_label(bars, [f"{value:,.0f}" if value > 10 else f"{value:.1f}" for value in values], fontsize=9)
    ax.set_yscale("log")
    ax.set(ylabel="perplexity (lower is better)", ylim=(1, 3e6))
    ax.legend(ncols=len(models), loc="upper center", fontsize=9)
    parts = [f"{name}: {', '.join(f'{value:,.1f}' for value in values)}" for name, values in models.items()]
    alt = f"Bars of perplexity, on a logarithmic axis, on {', '.join(texts)}, of {len(models)} models. "
    return describe(fig, alt + "; ".join(parts) + ".")


def verbatim(pieces: Sequence[str], matches: int, prompt: int, per_line: int = 66) -> Figure:
    """A generated text: the prompt grey, tokens equal to the training text's pale blue, those after them white.

    `pieces` are the tokens as text: `prompt` of them were given, the next `matches` equal the training text's.
    """
    shown = [piece.replace("\n", "⏎").replace("$", r"\$") for piece in pieces]
    lines = rows_that_fit([len(text) for text in shown], per_line)
    height = 0.34 * len(lines) + 0.6
    fig, ax = canvas(7.4, height)
    for row, line in enumerate(lines):
        x, y = 0.15, height - 0.25 - 0.34 * row
        for number in line:
            text = shown[number]
            width = 0.106 * len(text) + 0.01
            color = plots.SHADE if number < prompt else plots.PALE_BLUE if number < prompt + matches else plots.PAPER
            ax.add_patch(Rectangle((x, y - 0.14), width, 0.28, facecolor=color, edgecolor=plots.PAPER, lw=0.8))
            write(ax, x + width / 2, y, text.strip(), fontsize=8.6, family="DejaVu Sans Mono")
            x += width
    legend = [
        (plots.SHADE, "given"),
        (plots.PALE_BLUE, "as in the training text, to the letter"),
        (plots.PAPER, "different"),
    ]
    for x, (color, text) in zip(itertools.accumulate((0.15, 1.1, 3.6)), legend, strict=False):
        ax.add_patch(Rectangle((x, 0.08), 0.24, 0.2, facecolor=color, edgecolor=plots.GREY, lw=0.8))
        ax.text(x + 0.32, 0.18, text, va="center", fontsize=9)
    alt = f"A generated text, token by token. {prompt} tokens were given; the next {matches} are the training text's."
    return describe(fig, alt)


def two_ways(words: Sequence[str], logits: torch.Tensor, gradient: torch.Tensor, target: int) -> Figure:
    """Softmax probabilities of a few words, and the gradient of the loss with respect to each logit."""
    fig, (left, right) = subplots(7, 2.6, 1, 2)
    colors = [plots.GREEN if number == target else plots.SKY for number in range(len(words))]
    left.bar_label(left.bar(words, torch.softmax(logits, 0).tolist(), color=colors), fmt="%.4f", fontsize=9)
    left.set(title="probability", ylim=(0, 1))
    bars = right.bar(words, gradient.tolist(), color=colors)
    right.bar_label(bars, fmt="%+.4f", fontsize=9, padding=2)
    right.axhline(0, color=plots.INK, lw=0.8)
    right.set(title="gradient of the loss", ylim=(-1.05, 1.05))
    parts = [
        f"{word} {p:.4f} and {g:+.4f}"
        for word, p, g in zip(words, torch.softmax(logits, 0).tolist(), gradient.tolist(), strict=True)
    ]
    alt = f"Two bar charts, of probabilities and of gradients of the loss: {', '.join(parts)}. "
    return describe(fig, f"{alt}The target, {words[target]}, is drawn in green.")


def tail_mass(ks: Sequence[int], shares: torch.Tensor, texts: str) -> Figure:
    """What the tokens beyond the k most probable ones have together, over k: mean and middle 80 % of the places.

    `shares` is (places, len(ks)); `texts` says where the places are.
    """
    fig, ax = subplots(6.6, 3.2)
    low, high = torch.quantile(shares, torch.tensor([0.1, 0.9]), dim=0)
    mean = shares.mean(dim=0).tolist()
    ax.fill_between(ks, low, high, color=plots.SKY, alpha=0.3, label="eight of ten places")
    ax.semilogx(ks, mean, "o-", color=plots.BLUE, label="mean over all places")
    for k, share in zip(ks, mean, strict=True):
        ax.annotate(f"{share:.0%}", (k, share), (3, 5), textcoords="offset points", fontsize=9)
    ax.set(xlabel="k", ylabel="probability beyond the top k", ylim=(0, 1))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.legend()
    values = ", ".join(f"{share:.0%} beyond the top {k:,}" for k, share in zip(ks, mean, strict=True))
    return describe(fig, f"A falling curve of the probability of all tokens but the top k, in {texts}: {values}.")
