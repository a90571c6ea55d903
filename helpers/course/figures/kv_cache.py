"""Pictures for the bonus notebook on the KV cache."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ...gpt import GPT_SIZES
from ..plots import INK, heatmap, subplots, write
from .shared import memory_bars


def score_counts(prompt: int, new: int) -> Figure:
    """How often each attention score is computed for `new` tokens after `prompt` ones, without and with a cache."""
    size = prompt + new - 1  # the last new token is never read
    row, col = np.indices((size, size))
    passes = np.where(row < prompt, new, prompt + new - 1 - row).astype(float)
    fig, axes = subplots(7, 4.1, 1, 2)
    for ax, counts, title in [(axes[0], passes, "everything again"), (axes[1], np.ones_like(passes), "with a cache")]:
        shown = np.where(col <= row, counts, np.nan)
        heatmap(ax, shown, range(1, size + 1), range(1, size + 1), fmt=None, vmin=0, vmax=2.2 * new)
        for i, j in zip(*np.nonzero(col <= row), strict=True):
            write(ax, j, i, f"{counts[i, j]:.0f}", fontsize=9)
        ax.axhline(prompt - 0.5, color=INK, lw=1, linestyle="--")
        ax.set(title=f"{title}: {np.nansum(shown):.0f} scores", xlabel="looks at token", ylabel="token")
    return fig


def tokens_read(prompt: int, most: int = 200) -> Figure:
    """Tokens that go through the model in total, against the number of new tokens, without and with a cache."""
    new = np.arange(1, most + 1)
    fig, ax = subplots(6, 3.2)
    ax.plot(new, prompt * new + new * (new - 1) / 2, label="everything again")
    ax.plot(new, prompt + new - 1, label="with a cache", linestyle="--")
    ax.set(xlabel="new tokens", ylabel="tokens through the model", title=f"prompt of {prompt} tokens")
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.legend()
    return fig


def cache_memory(texts: int) -> Figure:
    """Memory of GPT-2's sizes in GB, all in float32: weights, and the KV cache of `texts` texts of 1,024 tokens."""
    fig, ax = subplots(6.6, 2.6)
    names = list(GPT_SIZES)  # the names are the millions of parameters
    weights = np.array([int(name.removesuffix("M")) * 4e6 / 1e9 for name in names])
    cache = np.array([texts * 2 * size["n_layers"] * 1024 * size["emb_dim"] * 4 / 1e9 for size in GPT_SIZES.values()])
    notes = [f"{a:.1f} + {b:.1f} GB" for a, b in zip(weights, cache, strict=True)]
    memory_bars(ax, names, weights, cache, "cache", notes)
    ax.set_xlim(0, float(max(weights + cache)) * 1.25)
    ax.set(xlabel="GB", title=f"{texts} {'text' if texts == 1 else 'texts'} of 1,024 tokens")
    ax.invert_yaxis()
    ax.legend(loc="upper right")
    return fig
