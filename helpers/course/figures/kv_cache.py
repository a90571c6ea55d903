"""Pictures for the bonus notebook on the KV cache."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ...gpt import GPT_SIZES
from ..plots import GREY, INK, PAPER, describe, heatmap, subplots, write
from .shared import memory_bars

LONGEST_PROMPT, MOST_TEXTS = 256, 32  # where the two sliders end; the axes are made for them


def score_counts(prompt: int, new: int) -> Figure:
    """How often each attention score is computed for `new` tokens after `prompt` ones, without and with a cache."""
    size = prompt + new - 1  # the last new token is never read
    row, col = np.indices((size, size))
    passes = np.where(row < prompt, new, prompt + new - 1 - row).astype(float)
    fig, axes = subplots(7, 4.1, 1, 2)
    totals = []
    for ax, counts, title in [(axes[0], passes, "everything again"), (axes[1], np.ones_like(passes), "with a cache")]:
        shown = np.where(col <= row, counts, np.nan)
        heatmap(ax, shown, range(size), range(size), fmt=None, vmin=0, vmax=2.2 * new)
        for i, j in zip(*np.nonzero(col <= row), strict=True):
            write(ax, j, i, f"{counts[i, j]:.0f}", fontsize=9)
        ax.axhline(prompt - 0.5, color=INK, lw=1, linestyle="--")
        totals.append(f"{np.nansum(shown):.0f} scores")
        ax.set(title=f"{title}: {totals[-1]}", xlabel="looks at token", ylabel="token")
    return describe(
        fig,
        f"Two triangles of attention scores, {size} tokens each, with how often each is computed. Everything again: "
        f"{new} times in the rows of the prompt, then less from row to row, {totals[0]} in all. With a cache: once "
        f"everywhere, {totals[1]}.",
    )


def tokens_read(prompt: int, most: int = 200, start: int = 32) -> Figure:
    """Tokens that go through the model in total, against the number of new tokens, without and with a cache.

    The axes are those of the longest prompt of the slider, and the curves of a prompt of `start` tokens stay as a thin
    line, so that what grows is seen to grow.
    """
    new = np.arange(1, most + 1)

    def again(length: int) -> np.ndarray:
        return length * new + new * (new - 1) / 2

    fig, ax = subplots(6, 3.2)
    if prompt != start:
        ax.plot(new, again(start), color=GREY, lw=1, label=f"prompt of {start}, for comparison")
        ax.plot(new, start + new - 1, color=GREY, lw=1, linestyle="--")
    ax.plot(new, again(prompt), label="everything again", color="C0")
    ax.plot(new, prompt + new - 1, label="with a cache", linestyle="--", color="C1")
    ax.set(xlabel="new tokens", ylabel="tokens through the model", title=f"prompt of {prompt} tokens")
    ax.set(xlim=(0, most), ylim=(0, 1.04 * max(again(LONGEST_PROMPT)[-1], again(prompt)[-1])))
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.legend(loc="upper left")
    return describe(
        fig,
        f"Tokens through the model against new tokens, prompt of {prompt}. Everything again: a curve that bends "
        f"upwards to {again(prompt)[-1]:,.0f} at {most} new tokens. With a cache: a nearly flat line that reaches "
        f"{prompt + most - 1}.",
    )


def cache_memory(texts: int) -> Figure:
    """The KV cache of `texts` texts of 1,024 tokens in GPT-2's sizes, in multiples of their weights; all in float32.

    The axis is that of the largest number of texts of the slider, so that the bars are seen to grow.
    """
    fig, ax = subplots(6.8, 2.7)
    names = list(GPT_SIZES)  # the names are the millions of parameters
    weights = np.array([int(name.removesuffix("M")) * 4e6 / 1e9 for name in names])
    per_text = np.array([2 * size["n_layers"] * 1024 * size["emb_dim"] * 4 / 1e9 for size in GPT_SIZES.values()])
    times = texts * per_text / weights
    notes = [f"{a:.1f} + {texts * b:.1f} GB" for a, b in zip(weights, per_text, strict=True)]
    memory_bars(ax, names, np.ones(len(names)), times, "cache", notes)
    ax.axvline(2, color=INK, lw=1, linestyle=":")
    for note in ax.texts:  # to be read on the dotted line, too
        note.set(text=note.get_text().strip(), x=note.get_position()[0] + 0.1)
        note.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 1})
    ax.set_xlim(0, 1 + 1.32 * max(texts, MOST_TEXTS) * float(max(per_text / weights)))
    ax.set(xlabel="memory, in multiples of the weights (dotted: the cache is as large as they are)")
    ax.set_title(f"{texts} {'text' if texts == 1 else 'texts'} of 1,024 tokens")
    ax.invert_yaxis()
    ax.legend(loc="lower right")
    bars = ", ".join(f"{name}: {note}" for name, note in zip(names, notes, strict=True))
    return describe(fig, f"Memory for {texts} texts of 1,024 tokens, weights + cache, by size of GPT-2. {bars}.")
