"""Pictures for appendix A: tensors in memory, computation graphs, batches, decision boundaries, processes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .. import plots
from ..plots import arrow, box, canvas, decimals, describe, subplots, write
from .shared import number_formats


def fields() -> Figure:
    """Artificial intelligence, machine learning, deep learning, large language models: each within the one before."""
    fig, ax = canvas(7, 2.5)
    kinds = [
        ("artificial intelligence", "programs for tasks that seem to need thought", plots.BACKDROP),
        ("machine learning", "that learn such a task from examples", plots.PALE_BLUE),
        ("deep learning", "with networks of many layers", plots.PALE_GREEN),
        ("large language models", "that predict the next token of a text", plots.PALE_ORANGE),
    ]
    for k, (name, note, color) in enumerate(kinds):
        left, right, bottom, top = 0.1 + 0.25 * k, 6.9 - 0.12 * k, 0.1 + 0.1 * k, 2.4 - 0.5 * k
        box(ax, (left + right) / 2, (bottom + top) / 2, "", right - left, top - bottom, color)
        ax.text(left + 0.15, top - 0.25, name, va="center", weight="bold")
        ax.text(right - 0.15, top - 0.25, note, va="center", ha="right", fontsize=9)
    says = ", ".join(f"{name} ({note})" for name, note, _ in kinds)
    return describe(fig, f"Four boxes, each inside the one before it: {says}.")


float_formats = number_formats  # appendix D shows the same picture


def three_parts() -> Figure:
    """The three layers of PyTorch, each built on the one below it."""
    fig, ax = canvas(7, 2.5)
    parts = [
        ("tensors", "numbers in rows and columns, and fast\narithmetic on them, on processors and GPUs", "A.2"),
        ("autograd", "remembers what was computed\nand works out the slopes by itself", "A.3, A.4"),
        ("torch.nn, optim, data", "layers, losses, optimizers,\nloaders: what networks share", "A.5 to A.9"),
    ]
    for row, (name, text, sections) in enumerate(parts):
        y = 0.42 + 0.8 * row
        box(ax, 3.5, y, "", 6.8, 0.68, (plots.PALE_BLUE, plots.PALE_ORANGE, plots.PALE_GREEN)[row])
        ax.text(0.3, y, name, va="center", weight="bold")
        ax.text(2.35, y, text, va="center", fontsize=9)
        ax.text(6.75, y, sections, va="center", ha="right", fontsize=9)
    alt = (
        "Three boxes stacked: tensors at the bottom (section A.2), autograd in the middle (A.3 and A.4), and on top "
        "torch.nn, optim and data (A.5 to A.9)."
    )
    return describe(fig, alt)


def _grid(
    ax: Axes, left: float, top: float, values, side: float = 0.42, color=plots.PAPER, ghost=None, layer=2
) -> None:
    """Draw a matrix of numbers with its upper left corner at (left, top); squares in the mask `ghost` are faint."""
    values = np.asarray(values)
    for (row, col), value in np.ndenumerate(values):
        faint = ghost is not None and ghost[row, col]
        face = color[row][col] if isinstance(color, list) else color
        corner = (left + side * col, top - side * (row + 1))
        edge, line = (plots.GREY, (0, (2, 2))) if faint else (plots.INK, "-")
        square = Rectangle(
            corner, side, side, facecolor=plots.PAPER if faint else face, edgecolor=edge, ls=line, lw=0.9
        )
        square.set_zorder(layer - 1 if faint else layer)
        ax.add_patch(square)
        x, y = corner[0] + side / 2, corner[1] + side / 2
        write(ax, x, y, f"{value}", fontsize=9, color=plots.GREY if faint else plots.INK, zorder=layer)


def dimensions() -> Figure:
    """A scalar, a vector, a matrix and a tensor of three dimensions, with the shape of each."""
    fig, ax = canvas(7, 2.4)
    _grid(ax, 0.5, 1.55, [[1]], color=plots.PALE_BLUE)
    _grid(ax, 1.65, 1.55, [[1, 2, 3]], color=plots.PALE_BLUE)
    _grid(ax, 3.6, 1.76, [[1, 2, 3], [4, 5, 6]], color=plots.PALE_BLUE)
    _grid(ax, 5.63, 1.94, [[7, 8, 9], [10, 11, 12]], color=plots.PALE_GREEN)
    _grid(ax, 5.35, 1.66, [[1, 2, 3], [4, 5, 6]], color=plots.PALE_BLUE, layer=3)
    for x, name, shape in (
        (0.71, "scalar", "()"),
        (2.28, "vector", "(3,)"),
        (4.23, "matrix", "(2, 3)"),
        (6.05, "3-d tensor", "(2, 2, 3)"),
    ):
        ax.text(x, 0.5, name, ha="center", weight="bold")
        ax.text(x, 0.22, f"shape {shape}", ha="center", fontsize=9)
    for x, count in ((0.71, "no"), (2.28, "1"), (4.23, "2"), (6.05, "3")):
        ax.text(x, 2.2, f"{count} dimension{'' if count == '1' else 's'}", ha="center", fontsize=9)
    alt = (
        "A single square for a scalar, a row of three for a vector, two rows of three for a matrix, and two such "
        "tables, one partly covering the other, for a tensor of shape (2, 2, 3)."
    )
    return describe(fig, alt)


def broadcast(a: torch.Tensor, b: torch.Tensor) -> Figure:
    """The sum of two tensors that broadcast: the repeated numbers, which are not stored, are grey in dashed squares."""
    total = a + b
    rows, cols = total.shape
    side = min(0.42, 1.9 / cols)
    fig, ax = canvas(7, side * rows + 0.75)
    top = side * rows + 0.35
    places, wide = [0.35, 0.35 + 2.35, 0.35 + 4.7], side * cols
    for left, tensor, color in zip(
        places, (a, b, total), (plots.PALE_BLUE, plots.PALE_ORANGE, plots.PALE_GREEN), strict=True
    ):
        full = torch.broadcast_to(tensor, total.shape)
        here = torch.zeros(total.shape, dtype=torch.bool)
        here[: tensor.shape[-2] if tensor.dim() > 1 else 1, : tensor.shape[-1]] = True
        _grid(ax, left, top, full.tolist(), side, color, ghost=~here.numpy())
        ax.text(left + wide / 2, top + 0.13, f"shape {tuple(tensor.shape)}", ha="center", fontsize=9)
    for left, sign in ((places[1], "+"), (places[2], "=")):
        write(ax, (left - 2.35 + wide + left) / 2, top - side * rows / 2, sign, fontsize=15)
    alt = (
        f"A tensor of shape {tuple(a.shape)} plus one of shape {tuple(b.shape)}, both repeated to {rows} rows and "
        f"{cols} columns, gives numbers from {total.min()} to {total.max()}. Repeated numbers are grey, in dashed "
        "squares."
    )
    return describe(fig, alt)


def strides(matrix: torch.Tensor) -> Figure:
    """A (2, 3) matrix and its transpose as two views of the same numbers in memory, with their strides."""
    fig, ax = canvas(7, 3.6)
    flat = matrix.flatten().tolist()
    colors = [plots.PALE_BLUE] * 3 + [plots.PALE_ORANGE] * 3
    _grid(ax, 2.24, 0.9, [flat], color=[colors])
    ax.text(2.1, 0.69, "memory", ha="right", va="center", weight="bold")
    for place in range(6):
        write(ax, 2.45 + 0.42 * place, 0.33, f"{place}", fontsize=8, color=plots.GREY)
    ax.text(2.1, 0.33, "position", ha="right", va="center", fontsize=8, color=plots.GREY)
    _grid(ax, 0.75, 3.05, matrix.tolist(), color=[[plots.PALE_BLUE] * 3, [plots.PALE_ORANGE] * 3])
    _grid(ax, 5.0, 3.15, matrix.T.tolist(), color=[[plots.PALE_BLUE, plots.PALE_ORANGE]] * 3)
    says = []
    for x, y, view, name in ((1.38, 2.0, matrix, "matrix"), (5.42, 1.7, matrix.T, "matrix.T")):
        down, right = view.stride()
        ax.text(x, 3.4, f"{name}, shape {tuple(view.shape)}", ha="center", weight="bold", fontsize=9.5)
        write(ax, x, y, f"one to the right: {right} further", fontsize=9)
        write(ax, x, y - 0.22, f"one down: {down} further", fontsize=9)
        says.append(f"in {name} one step to the right is {right} further and one down {down}")
    arrow(ax, (1.5, 1.6), (2.4, 0.95), color=plots.GREY)  # both views begin at position 0
    arrow(ax, (4.6, 1.3), (2.52, 0.95), color=plots.GREY)
    numbers = ", ".join(map(str, flat))
    return describe(
        fig, f"The numbers {numbers} in one row of memory, in which both views begin at position 0: {'; '.join(says)}."
    )


def _children(node) -> list:
    """The nodes to which a node of autograd's graph passes gradients on; inputs that need none are left out."""
    return [child for child, _ in node.next_functions if child is not None]


def _places(root) -> dict:
    """(level, slot) of each node of a graph: the longest branch keeps its slot, others take the nearest free one."""
    heights, places, busy = {}, {}, set()

    def height(node) -> int:
        if node not in heights:
            heights[node] = 1 + max((height(child) for child in _children(node)), default=0)
        return heights[node]

    def put(node, level: int, slot: int) -> None:
        places[node] = (level, slot)
        straight = True
        for child in sorted(_children(node), key=height, reverse=True):
            if child in places:  # used in several places: it stays where it is
                continue
            span = range(level + 1, level + 1 + height(child))
            free = slot if straight else next(k for k in range(slot, 99) if not busy & {(at, k) for at in span})
            busy.update((at, free) for at in span)
            put(child, level + 1, free)
            straight = False

    put(root, 0, 0)
    return places


def graph(root: torch.Tensor, names: Mapping[str, torch.Tensor], down: bool = False) -> Figure:
    """The computation graph of `root`, found by walking from `root.grad_fn` along `next_functions`.

    Each box is a node that autograd made; arrows follow the computation, to the right or `down`. Tensors in `names`
    are named in their boxes: a single number with its value, and its `.grad` below in vermilion if it has one, others
    with their shape. Raises ValueError if `root` has no graph.
    """
    if root.grad_fn is None:
        raise ValueError("root has no grad_fn: it was not computed from a tensor that requires a gradient")
    fig, ax, spots, (wide, high) = _graph_canvas(_places(root.grad_fn), down)
    named = {tensor.grad_fn: (name, tensor) for name, tensor in names.items() if tensor.grad_fn is not None}
    leaves = {id(tensor): (name, tensor) for name, tensor in names.items() if tensor.grad_fn is None}
    said = {}
    for node, (x, y) in spots.items():
        leaf = getattr(node, "variable", None)
        name, tensor = named.get(node) or leaves.get(id(leaf)) or (None, None)
        kind = "AccumulateGrad" if leaf is not None else type(node).__name__
        color = plots.PALE_GREEN if leaf is not None else plots.PALE_ORANGE if node is root.grad_fn else plots.PALE_BLUE
        box(ax, x, y, "", wide, high, color)
        write(ax, x, y + (0.22 * high if name else 0), kind if down else "\n".join(_wrap(kind)), fontsize=8)
        said[node] = f"{name or 'a box'} ({kind})"
        if not name:
            continue
        shown = f"{name} = {tensor.item():.4f}" if tensor.numel() == 1 else f"{name} {tuple(tensor.shape)}"
        said[node] = f"{shown} ({kind})"
        write(ax, x, y - (0.23 if down else 0.32) * high, shown, fontsize=8.5, weight="bold")
        gradient = tensor.grad if tensor.is_leaf or tensor.retains_grad else None
        if gradient is not None and gradient.numel() == 1:
            says = f"grad {decimals(gradient.item(), 4)}"
            said[node] = f"{shown}, {says} ({kind})"
            write(ax, x, y - high / 2 - 0.13, says, fontsize=8.5, color=plots.VERMILION)
    for node, (x, y) in spots.items():
        for x1, y1 in (spots[child] for child in _children(node)):
            if down:
                arrow(ax, (x1, y1 - high / 2), (x + (0 if x1 == x else 0.5), y + high / 2))
            else:
                arrow(ax, (x1 + wide / 2, y1), (x - wide / 2, y - (0 if y1 == y else 0.2)))
    leads = [f"{said[child]} leads to {said[node]}" for node in spots for child in _children(node)]
    return describe(fig, f"Computation graph of {len(spots)} boxes: {'; '.join(reversed(leads))}.")


def _graph_canvas(places: dict, down: bool) -> tuple[Figure, Axes, dict, tuple[float, float]]:
    """A canvas for a graph, the centre of each node's box on it, and the width and height of the boxes."""
    levels, slots = (1 + max(place[axis] for place in places.values()) for axis in (0, 1))
    if down:
        fig, ax = canvas(7.2, 0.82 * levels + 0.05)
        spots = {node: (1.3 + 2.3 * slot, 0.82 * level + 0.4) for node, (level, slot) in places.items()}
        return fig, ax, spots, (1.9, 0.56)
    fig, ax = canvas(7.2, 1.15 * slots + 0.15)
    step = 7.2 / levels
    spots = {
        node: (step * (levels - level - 0.5), 1.15 * (slots - slot) - 0.5) for node, (level, slot) in places.items()
    }
    return fig, ax, spots, (min(1.25, step - 0.22), 0.78)


def _wrap(name: str, most: int = 12) -> list[str]:
    """The name of a node in lines that fit its box, broken before capital letters."""
    lines = [""]
    for part in re.findall(r"[A-Z][a-z]*\d*|[a-z]+\d*", name):
        too_long = lines[-1] and len(lines[-1] + part) > most
        if too_long or part.startswith("Backward"):
            lines.append("")
        lines[-1] += part
    return [line for line in lines if line]


def network(sizes: Sequence[int]) -> Figure:
    """A multilayer perceptron with a circle for each number, a line for each weight, and its parameters below."""
    fig, ax = canvas(7, 4.1)
    xs = np.linspace(0.75, 6.25, len(sizes))
    gap = 3.0 / max(sizes)
    layers = [2.25 + gap * (np.arange(size)[::-1] - (size - 1) / 2) for size in sizes]
    counts = [f"{a} · {b} + {b}\n= {a * b + b:,}" for a, b in pairwise(sizes)]
    for k, count in enumerate(counts):
        lines = [[(xs[k], y1), (xs[k + 1], y2)] for y1 in layers[k] for y2 in layers[k + 1]]
        ax.add_collection(LineCollection(lines, colors=plots.GREY, lw=0.25, alpha=0.35, zorder=1))
        write(ax, (xs[k] + xs[k + 1]) / 2, 0.3, count, fontsize=9, color=plots.BLUE)
    for k, (x, ys, size) in enumerate(zip(xs, layers, sizes, strict=True)):
        color = plots.PALE_GREEN if k == 0 else plots.PALE_ORANGE if k == len(sizes) - 1 else plots.PALE_BLUE
        ax.plot([x] * size, ys, "o", ms=min(9, 65 * gap), color=color, mec=plots.INK, mew=0.6)
        kind = "inputs" if k == 0 else "logits" if k == len(sizes) - 1 else "hidden, ReLU"
        write(ax, x, 3.95, f"{size} {kind}", fontsize=9, weight="bold")
    ax.text(0.05, 0.3, "para-\nmeters", va="center", fontsize=9, color=plots.BLUE)
    alt = (
        f"A network drawn as columns of {', '.join(map(str, sizes))} circles, each connected with all of the next. "
        f"Parameters between the columns: {'; '.join(count.replace(chr(10), ' ') for count in counts)}."
    )
    return describe(fig, alt)


def epochs_of_batches(epochs: Sequence[Sequence[Sequence[int]]], batch_size: int) -> Figure:
    """The order in which a shuffling loader returns examples, a row per epoch; incomplete batches are dashed."""
    fig, ax = canvas(7, 0.62 * len(epochs) + 0.35)
    side = 0.42
    for row, batches in enumerate(epochs):
        y, x = 0.62 * (len(epochs) - row) + 0.1, 1.4
        ax.text(1.2, y - side / 2, f"epoch {row + 1}", ha="right", va="center", weight="bold")
        for batch in batches:
            full = len(batch) == batch_size
            _grid(
                ax, x, y, [list(batch)], side, plots.PALE_BLUE, ghost=None if full else np.ones((1, len(batch)), bool)
            )
            if not full:
                ax.text(x + side * len(batch) + 0.12, y - side / 2, "left out by drop_last", va="center", fontsize=9)
            x += side * len(batch) + 0.4
    ax.text(1.4, 0.1, "numbers of the examples, batch after batch", fontsize=9, va="center")
    rows = [f"epoch {k}: {' '.join(map(str, batches))}" for k, batches in enumerate(epochs, start=1)]
    return describe(fig, f"The batches of {len(epochs)} epochs, incomplete ones dashed. {'; '.join(rows)}.")


def loading(load: float, train: float, workers: int, batches: int = 6, until: float = 36.0) -> Figure:
    """A timeline of loading and training: with 0 workers one after the other, otherwise the workers load ahead.

    Each worker starts on its next batch as soon as it has finished one; `load` and `train` are seconds per batch. The
    axis ends at `until` seconds, whatever the durations, so that two pictures can be compared.
    """
    free, ready, done, bars = [0.0] * max(1, workers), [], 0.0, []
    for batch in range(batches):
        who = batch % len(free)
        start = done if workers == 0 else free[who]
        bars.append((who, start, load, batch, "load"))
        free[who] = start + load
        ready.append(free[who])
        begin = max(done, ready[batch])
        bars.append((len(free) if workers else 0, begin, train, batch, "train"))
        done = begin + train
    lanes = ["the program itself"] if workers == 0 else [*[f"worker {k + 1}" for k in range(workers)], "the program"]
    fig, ax = subplots(7, 1.15 + 0.36 * len(lanes))
    for lane, start, length, batch, kind in bars:
        color = plots.SKY if kind == "load" else plots.ORANGE
        ax.barh(lane, length, left=start, height=0.7, color=color, edgecolor=plots.INK, lw=0.7)
        if length > until / 40:  # else the number is wider than its bar
            write(ax, start + length / 2, lane, str(batch + 1), fontsize=8.5)
    ax.barh(0, 0, color=plots.SKY, label="load a batch")
    ax.barh(0, 0, color=plots.ORANGE, label="train on it")
    ax.set_yticks(range(len(lanes)), labels=lanes)
    ax.set_ylim(len(lanes) - 0.45, -0.55)
    ax.set_xlim(0, until)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("seconds")
    ax.set_title(f"{batches} batches in {done:g} seconds", loc="left")
    ax.legend(loc="lower right", fontsize=9, bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)
    alt = (
        f"Timeline with {workers} workers: batches that take {load:g} seconds to load and {train:g} to train on; all "
        f"{batches} are done after {done:g} seconds."
    )
    return describe(fig, alt)


def _boundary(ax: Axes, model: torch.nn.Module, X: torch.Tensor, y: torch.Tensor, title: str) -> None:
    """Draw the model's probability of class 1 over the plane as shades, the line where it is 0.5, and the points."""
    across, up = torch.linspace(-2, 3.5, 111), torch.linspace(-2.5, 4, 131)
    plane = torch.cartesian_prod(across, up)
    with torch.no_grad():
        one = torch.softmax(model(plane), dim=1)[:, 1].reshape(111, 131).T
    levels = np.linspace(0, 1, 11)
    ax.contourf(across, up, one, levels=levels, cmap="RdBu_r", alpha=0.55, vmin=-0.15, vmax=1.15)
    if one.min() < 0.5 < one.max():
        ax.contour(across, up, one, levels=[0.5], colors=[plots.INK], linewidths=1.8)
    for label, marker, color in ((0, "o", plots.BLUE), (1, "s", plots.VERMILION)):
        chosen = X[y == label]
        ax.plot(chosen[:, 0], chosen[:, 1], marker, color=color, ms=7, mec=plots.PAPER, mew=0.9, label=f"class {label}")
    ax.set(title=title, xlabel="$x_1$")


def boundaries(models: Mapping[str, torch.nn.Module], X: torch.Tensor, y: torch.Tensor) -> Figure:
    """The decision boundaries of several models side by side, with points X (N, 2) and their labels y (N,), 0 or 1."""
    fig, axes = subplots(7.4, 2.3, 1, len(models), sharey=True)
    panels = []
    for ax, (title, model) in zip(np.atleast_1d(axes), models.items(), strict=True):
        _boundary(ax, model, X, y, title)
        with torch.no_grad():
            right = (model(X).argmax(dim=1) == y).sum().item()
        panels.append(f"{title}: {right} of {len(y)} points are on the side of their class")
    np.atleast_1d(axes)[0].set_ylabel("$x_2$")
    np.atleast_1d(axes)[0].legend(loc="lower left", fontsize=7, frameon=True, framealpha=0.85, handletextpad=0.1)
    return describe(
        fig, f"Planes shaded by the probability of class 1, with the decision boundary. {'; '.join(panels)}."
    )


def learning(model: torch.nn.Module, losses: Sequence[float], update: int, X: torch.Tensor, y: torch.Tensor) -> Figure:
    """The decision boundary after `update` updates, and beside it the losses of the batches so far."""
    fig, (left, right) = subplots(7, 3.1, 1, 2)
    _boundary(left, model, X, y, f"after {update} updates" if update != 1 else "after 1 update")
    left.set_ylabel("$x_2$")
    left.legend(loc="lower left", fontsize=8, frameon=True, framealpha=0.85)
    right.plot(range(1, len(losses) + 1), losses, "o--", color=plots.GREY, lw=1, ms=4, mfc=plots.PAPER)
    right.plot(range(1, update + 1), losses[:update], "o-", color=plots.ORANGE, mec=plots.INK)
    right.set(xlabel="update", ylabel="loss of its batch", title="loss", ylim=(0, max(losses) * 1.1))
    right.set_xticks(range(1, len(losses) + 1))
    return describe(fig, f"The plane with the decision boundary after {update} updates, and the losses so far.")


def spread(panels: Mapping[str, Mapping[str, torch.Tensor]], X: torch.Tensor, y: torch.Tensor, chance: float) -> Figure:
    """Points X (N, 2) with labels y (N,), 0 or 1, and beside them how training on them went, a panel of curves each.

    `panels` holds by title the losses (seeds, updates) of each way to train, by name: the line is the median over the
    seeds, the band reaches from the lowest to the highest. `chance` is the loss of guessing.
    """
    fig, axes = subplots(7.6, 2.9, 1, 1 + len(panels))
    for label, marker, color in ((0, "o", plots.BLUE), (1, "s", plots.VERMILION)):
        chosen = X[y == label]
        axes[0].plot(chosen[:, 0], chosen[:, 1], marker, color=color, ms=3, label=f"class {label}")
    axes[0].set(xlabel="$x_1$", ylabel="$x_2$", title=f"{len(y)} points", ylim=(X[:, 1].min().item() - 0.7, None))
    axes[0].legend(loc="lower left", fontsize=8, handletextpad=0.1)
    says = []
    for ax, (title, curves) in zip(axes[1:], panels.items(), strict=True):
        for (name, losses), line in zip(curves.items(), ("-", "--", ":"), strict=False):
            updates, median = range(1, losses.shape[1] + 1), losses.median(dim=0).values
            (drawn,) = ax.semilogy(updates, median, line, label=name)
            ax.fill_between(updates, losses.amin(dim=0), losses.amax(dim=0), color=drawn.get_color(), alpha=0.2, lw=0)
            says.append(
                f"{title}, {name}: the median of {len(losses)} runs goes from {median[0]:.2f} to {median[-1]:.2f}"
            )
        ax.axhline(chance, color=plots.GREY, lw=1, ls="-.")
        ax.set(xlabel="update", title=title, ylim=(0.1, 10))
        ax.legend(fontsize=8, loc="upper right")
    axes[1].set_ylabel("loss")
    return describe(fig, f"Points of two classes, and the loss over {losses.shape[1]} updates. {'; '.join(says)}.")


def crossover(cpu_flops: float, gpu_flops: float, bytes_per_second: float, launch: float) -> Figure:
    """Estimated seconds for the product of two n × n float32 matrices: on a CPU, on a GPU, on a GPU with transfers.

    `cpu_flops` and `gpu_flops` are operations per second, `launch` the seconds to start work on the GPU.
    """
    fig, ax = subplots(6.4, 3.1)
    n = np.logspace(1, 4, 200)
    cpu, (alone, moving) = 2 * n**3 / cpu_flops, _gpu_seconds(n, gpu_flops, bytes_per_second, launch)
    ax.loglog(n, cpu, color=plots.BLUE, label="CPU")
    ax.loglog(n, alone, "--", color=plots.GREEN, label="GPU, data already there")
    ax.loglog(n, moving, color=plots.VERMILION, label="GPU, data there and back")
    ax.set(xlabel="n, for two n × n matrices", ylabel="seconds", title="Arithmetic grows faster than what is moved")
    ax.legend()
    first, later = n[np.argmax(alone < cpu)], n[np.argmax(moving < cpu)]
    alt = (
        f"Seconds against n, both logarithmic. The CPU's line rises steadily. The GPU's curves begin flat at "
        f"{launch:.0e} seconds and fall below the CPU's line near n = {first:.0f}, with moving near n = {later:.0f}."
    )
    return describe(fig, alt)


def _gpu_seconds(n, gpu_flops: float, bytes_per_second: float, launch: float) -> tuple:
    """Seconds on a GPU for the product of two n × n float32 matrices: without and with moving three matrices."""
    alone = launch + 2 * n**3 / gpu_flops
    return alone, alone + 3 * 4 * n**2 / bytes_per_second


def data_parallel() -> Figure:
    """One update with two processes: each has the model and half of the batch; their gradients are averaged."""
    fig, ax = canvas(7.2, 3.2)
    for row, (rank, numbers) in enumerate(((0, "examples 0, 2"), (1, "examples 1, 3"))):
        y = 2.3 - 1.5 * row
        ax.add_patch(
            Rectangle((0.05, y - 0.55), 7.1, 1.1, facecolor=plots.BACKDROP, edgecolor=plots.GREY, lw=1, zorder=0)
        )
        ax.text(0.15, y + 0.39, f"process of rank {rank}", fontsize=9, weight="bold", va="center")
        box(ax, 0.8, y - 0.1, numbers, 1.2, 0.42, plots.PALE_GREEN)
        box(ax, 2.5, y - 0.1, "the same model\nforward, backward", 1.4, 0.55, plots.PALE_BLUE, fontsize=8.5)
        box(ax, 4.15, y - 0.1, "its own\ngradients", 1.0, 0.55, plots.PALE_ORANGE, fontsize=8.5)
        box(ax, 6.3, y - 0.1, "the same step:\nstill the same model", 1.55, 0.55, plots.PALE_BLUE, fontsize=8.5)
        arrow(ax, (1.4, y - 0.1), (1.8, y - 0.1))
        arrow(ax, (3.2, y - 0.1), (3.65, y - 0.1))
        arrow(ax, (4.65, y - 0.1), (5.52, y - 0.1))
    ax.plot(5.08, 1.45, "o", ms=46, color=plots.YELLOW, mec=plots.INK, mew=1, zorder=3)
    write(ax, 5.08, 1.45, "all-\nreduce:\nmean", fontsize=8.5, zorder=4)
    ax.plot([5.08, 5.08], [0.7, 2.2], color=plots.INK, lw=1.2, zorder=2)
    alt = (
        "Two processes as two rows. Each takes two of four examples through the same model and gets gradients of its "
        "own; an all-reduce averages them, and both take the same step."
    )
    return describe(fig, alt)
