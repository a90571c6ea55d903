"""Pictures for appendix B: the references on a time line, and how the ideas of the course build on one another."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .. import plots
from ..chapters import NOTEBOOKS

if TYPE_CHECKING:
    import pandas as pd

LANES = ("attention", "layers", "text", "models", "training", "preferences", "fine-tuning")

# The ideas: the text of the box, its lane, and the title of its record in assets/references.json.
IDEAS = {
    "LSTM": ("attention", "Long Short-Term Memory"),
    "attention": ("attention", "Neural Machine Translation by Jointly Learning to Align and Translate"),
    "transformer": ("attention", "Attention Is All You Need"),
    "RoPE": ("attention", "RoFormer: Enhanced Transformer with Rotary Position Embedding"),
    "shortcuts": ("layers", "Deep Residual Learning for Image Recognition"),
    "LayerNorm": ("layers", "Layer Normalization"),
    "RMSNorm": ("layers", "Root Mean Square Layer Normalization"),
    "neural LM": ("text", "A Neural Probabilistic Language Model"),
    "word2vec": ("text", "Efficient Estimation of Word Representations in Vector Space"),
    "BPE": ("text", "Neural Machine Translation of Rare Words with Subword Units"),
    "GPT": ("models", "Improving Language Understanding by Generative Pre-Training"),
    "GPT-2": ("models", "Language Models are Unsupervised Multitask Learners"),
    "GPT-3": ("models", "Language Models are Few-Shot Learners"),
    "LLaMA": ("models", "LLaMA: Open and Efficient Foundation Language Models"),
    "Adam": ("training", "Adam: A Method for Stochastic Optimization"),
    "AdamW": ("training", "Decoupled Weight Decay Regularization"),
    "scaling laws": ("training", "Scaling Laws for Neural Language Models"),
    "Chinchilla": ("training", "Training Compute-Optimal Large Language Models"),
    "PPO": ("preferences", "Proximal Policy Optimization Algorithms"),
    "InstructGPT": ("preferences", "Training language models to follow instructions with human feedback"),
    "DPO": ("preferences", "Direct Preference Optimization: Your Language Model is Secretly a Reward Model"),
    "LoRA": ("fine-tuning", "LoRA: Low-Rank Adaptation of Large Language Models"),
    "QLoRA": ("fine-tuning", "QLoRA: Efficient Finetuning of Quantized LLMs"),
}

# What leads to what. An arrow leaves a box at its lower edge, or at the named side.
ARROWS = (
    ("LSTM", "attention", ""),
    ("attention", "transformer", ""),
    ("shortcuts", "transformer", "left"),
    ("LayerNorm", "transformer", "left"),
    ("transformer", "RoPE", ""),
    ("transformer", "GPT", ""),
    ("neural LM", "word2vec", ""),
    ("neural LM", "GPT", "right"),
    ("BPE", "GPT", ""),
    ("Adam", "AdamW", ""),
    ("AdamW", "GPT", ""),
    ("GPT", "GPT-2", ""),
    ("GPT-2", "GPT-3", ""),
    ("GPT-2", "scaling laws", ""),
    ("LayerNorm", "RMSNorm", ""),
    ("RMSNorm", "LLaMA", ""),
    ("RoPE", "LLaMA", ""),
    ("GPT-3", "LLaMA", ""),
    ("scaling laws", "Chinchilla", ""),
    ("Chinchilla", "LLaMA", ""),
    ("GPT-3", "InstructGPT", ""),
    ("PPO", "InstructGPT", ""),
    ("InstructGPT", "DPO", ""),
    ("GPT-3", "LoRA", ""),
    ("LoRA", "QLoRA", ""),
)
_COLORS = dict(zip(LANES, (*plots.TINTS, plots.PALE_GREY), strict=True))


def ideas(table: pd.DataFrame) -> Figure:
    """The ideas of the course in lanes, the years running down, with an arrow from each to what builds on it."""
    years = dict(zip(table["title"], table["year"], strict=True))
    when = {name: int(years[title]) for name, (_, title) in IDEAS.items()}
    rows = {year: row for row, year in enumerate(sorted(set(when.values())))}
    width, step, left, high = 1.0, 0.46, 0.55, 0.27
    height = step * len(rows) + 0.5
    place = {
        name: (left + width * (LANES.index(lane) + 0.5), height - 0.62 - step * rows[when[name]])
        for name, (lane, _) in IDEAS.items()
    }
    fig, ax = plots.canvas(left + width * len(LANES) + 0.05, height)
    for number, lane in enumerate(LANES):
        ax.text(
            left + width * (number + 0.5), height - 0.18, lane, ha="center", va="center", fontsize=9, fontweight="bold"
        )
    for year, row in rows.items():
        y = height - 0.62 - step * row
        ax.plot([left, left + width * len(LANES)], [y, y], color=plots.SHADE, lw=1, zorder=0)
        ax.text(left - 0.08, y, str(year), ha="right", va="center", fontsize=8.5, color=plots.GREY)
    for source, target, side in ARROWS:
        (x, y), (to_x, to_y) = place[source], place[target]
        start = {"left": (x - 0.44, y), "right": (x + 0.44, y), "": (x, y - high / 2)}[side]
        plots.arrow(ax, start, (to_x, to_y + high / 2), color=plots.GREY, lw=1)
    for name, (x, y) in place.items():
        plots.box(ax, x, y, name, width=0.88, height=high, color=_COLORS[IDEAS[name][0]], fontsize=8.5)
    sources = {name: [source for source, target, _ in ARROWS if target == name] for name in IDEAS}
    said = [f"{name} ({when[name]}) from {', '.join(found)}" for name, found in sources.items() if found]
    return plots.describe(
        fig,
        f"Ideas in {len(LANES)} lanes, {', '.join(LANES)}, with the years {min(rows)} to {max(rows)} running down and "
        f"an arrow from each idea to what took it up: {'; '.join(said)}.",
    )


def timeline(table: pd.DataFrame, since: int = 2012) -> Figure:
    """Each reference as a dot at its year, in the row of its first chapter; what is older than `since` at the left."""
    main = [notebook for notebook in NOTEBOOKS if notebook.kind != "bonus"]
    colors = [plots.BLUE if notebook.kind == "chapter" else plots.GREEN for notebook in main] + [plots.VERMILION]
    labels = [f"{notebook.number}. {notebook.title}" for notebook in main] + ["bonus notebooks"]
    rows = {notebook.number: min(place, len(main)) for place, notebook in enumerate(NOTEBOOKS)}  # one row for all bonus
    fig, ax = plots.subplots(7.2, 5.2)
    spots = zip(table["chapters"], table["year"], strict=True)
    counts = Counter((max(int(year), since - 1), rows[chapters[0]]) for chapters, year in spots)
    for (year, row), count in counts.items():
        for line in range(0, count, 4):  # four dots side by side, then a new line
            dots, lines = min(4, count - line), (count + 3) // 4
            xs = [year + 0.2 * (dot - (dots - 1) / 2) for dot in range(dots)]
            y = row + min(0.26, 0.9 / lines) * (line / 4 - (lines - 1) / 2)
            ax.plot(xs, [y] * dots, "o", ms=3.8, color=colors[row])
    last = int(table["year"].max())
    ax.axvline(since - 0.5, color=plots.GREY, lw=1, linestyle=":")
    for year in range(since, last):
        ax.axvline(year + 0.5, color=plots.SHADE, lw=1, zorder=0)
    ax.set_xticks(range(since - 1, last + 1), ["older", *(f"{year}" for year in range(since, last + 1))], fontsize=7.6)
    ax.set_yticks(range(len(labels)), labels, fontsize=8.5)
    ax.set(xlim=(since - 1.5, last + 0.5), ylim=(len(labels) - 0.4, -0.6), xlabel="year of the first public version")
    ax.tick_params(length=0)
    return plots.describe(
        fig,
        "A row for each chapter and appendix and one for the bonus notebooks, a column for each year from "
        f"{since} to {last} and one for older work; a dot for each reference in the row of the first part that it "
        "belongs to.",
    )
