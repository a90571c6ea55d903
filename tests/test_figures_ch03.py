"""Chapter 3's figures: what should grow grows, alternatives say what is drawn, any sentence can be drawn."""

import ast

import matplotlib as mpl
import nbformat
import pytest
import torch

from helpers import plots
from helpers.course.figures import ch03 as figures
from tests.notebooks import ROOT, code_cells

mpl.use("Agg")
WORDS = ["one", "two", "three"]
SCORES = torch.tensor([0.5, 1.5, 1.0])
WEIGHTS = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.7, 0.1, 0.2]])
SQUARE = torch.tensor([[1.0, 2.0, 3.0], [2.0, 5.0, 4.0], [3.0, 4.0, 6.0]])

pytestmark = pytest.mark.filterwarnings("error")


def heights(ax):
    return [bar.get_height() for bar in ax.patches]


@pytest.mark.parametrize(
    ("fig", "said"),
    [
        (figures.encoder_decoder, "orange-red arrow"),
        (lambda: figures.first_token_left({"a": torch.tensor([[1.0, 0.2], [1.0, 0.4], [1.0, 0.3]])}), "0.3 after 2"),
        (lambda: figures.translation(WORDS, ["un", "deux", "trois"], WEIGHTS), "'deux' mostly at 'two'"),
        (lambda: figures.score_bars(WORDS, SCORES, "two"), "'two': one 0.50, two 1.50, three 1.00"),
        (lambda: figures.mixing(WORDS, WEIGHTS[2], "three", [0.1, 0.2]), "one 0.70, two 0.10, three 0.20"),
        (lambda: figures.vectors(WORDS, SQUARE / 6, WEIGHTS[2], SQUARE[2] / 6, "three"), "'three', a green star"),
        (lambda: figures.softmax_bars(WORDS, SCORES, 2.0), "times 2: one 1.00, two 3.00, three 2.00"),
        (lambda: figures.scores_and_weights(WORDS, SQUARE, WEIGHTS), "scores are symmetric"),
        (lambda: figures.scores_and_weights(WORDS, SQUARE, WEIGHTS), "are not symmetric"),
        (figures.projections, "softmaxed to weights"),
        (lambda: figures.scaling([4, 8], [(4, 0.5, 0.1), (8, 0.7, 0.05)], [(1, 0.4, 0.1)] * 2), "from 0.5 to 0.7"),
        (lambda: figures.masking(WORDS, SQUARE, SQUARE.masked_fill(SQUARE > 4, -torch.inf), WEIGHTS), "minus infinity"),
        (lambda: figures.dropped_weights(WORDS, WEIGHTS, WEIGHTS > 0.5, 2 * WEIGHTS), "twice as large"),
        (lambda: figures.head_patterns(WORDS, torch.stack((WEIGHTS, WEIGHTS)), ["a", "b"]), "b: the last word gives"),
        (figures.splitting_heads, "numbered squares"),
        (lambda: figures.head_shares(torch.tensor([[0.1, 0.2], [0.9, 0.3]]), "share"), "0.90, in head 1 of layer 2"),
        (lambda: figures.sentence_pattern(WORDS, WEIGHTS, "layer 1"), "so many places back: 0, 0, 2"),
    ],
)
def test_alternatives_say_what_is_drawn(fig, said):
    drawn = fig()
    assert said in drawn.get_label()
    assert plots.png(drawn).startswith(b"\x89PNG")


def test_scores_are_seen_to_grow_with_the_factor():
    """The slider's figure keeps its axes, so that a larger factor draws higher bars, and every bar lies within them."""
    drawn = [figures.softmax_bars(WORDS, SCORES, factor, largest=30).axes for factor in (0.0, 1.0, 8.0, 30.0)]
    for axes in zip(*drawn, strict=True):
        assert len({ax.get_ylim() for ax in axes}) == 1
        assert max(heights(axes[-1])) < axes[-1].get_ylim()[1]
    tallest = [max(heights(left)) for left, _ in drawn]
    assert tallest == pytest.approx([0.0, 1.5, 12.0, 45.0])
    assert heights(drawn[0][1]) == pytest.approx([1 / 3] * 3)


def test_influence_has_a_band_from_the_least_to_the_most_run():
    runs = torch.tensor([[1.0, 0.5, 0.1], [1.0, 0.2, 0.01], [1.0, 0.4, 0.02]])
    (ax,) = figures.first_token_left({"state": runs}).axes
    assert ax.lines[0].get_ydata() == pytest.approx([1.0, 0.4, 0.02])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.01, 1.0))


def test_a_learners_own_sentence():
    tokens = [b" $5", b"$", b"\\", b"\n", b"", b"\xf0\x9f", b"^_{}", b"%", b" 42"]
    fig = figures.sentence_pattern(tokens, torch.eye(len(tokens)), "layer 1, head 2")
    assert fig.axes[0].get_yticklabels()[0].get_text() == r"·\$5"
    assert plots.png(fig).startswith(b"\x89PNG")
    assert plots.png(figures.sentence_pattern([b"a"], torch.ones(1, 1), "one token")).startswith(b"\x89PNG")


# ---- the notebook's widgets ----------------------------------------------------------------------------------------


def bindings(tree: ast.AST) -> set[str]:
    """The names that a cell or a function binds: by assignment, loop, import or definition, not in functions within."""
    bound: set[str] = set()
    todo = [tree]
    while todo:
        for child in ast.iter_child_nodes(todo.pop()):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                bound.add(child.name)
                continue
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                bound.add(child.id)
            if isinstance(child, ast.arg):
                bound.add(child.arg)
            if isinstance(child, ast.alias):
                bound.add((child.asname or child.name).split(".")[0])
            if not isinstance(child, (ast.Lambda, ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)):
                todo.append(child)
    return bound


def globals_read(function: ast.FunctionDef) -> set[str]:
    """The names that a function, or one within it, reads and does not bind itself."""
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    inner = [node for node in ast.walk(function) if isinstance(node, (ast.FunctionDef, ast.comprehension, ast.Lambda))]
    return names - bindings(function) - {name for node in inner for name in bindings(node)}


def test_what_widgets_draw_with_is_bound_once():
    """A slider moved after the last cell draws what it drew at first: no later cell binds a name that it reads anew."""
    nb = nbformat.read(ROOT / "notebooks" / "ch03_attention.ipynb", as_version=4)
    trees = [ast.parse(cell.source) for cell in code_cells(nb)]
    functions = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    todo = [call.args[0].id for call in calls if ast.unparse(call.func) == "widgets.play"]
    assert len(todo) >= 3
    read: set[str] = set()
    while todo:  # what the draw functions read, and what the functions read that they call
        name = todo.pop()
        read.add(name)
        if name in functions:
            todo += globals_read(functions[name]) - read
    assert {"words", "journey_scores", "all_weights", "model", "attention_weights"} <= read
    for name in read:
        places = [number for number, tree in enumerate(trees) if name in bindings(tree)]
        assert len(places) <= 1, f"{name}, which a widget draws with, is bound in {len(places)} cells"
