"""One source of truth: what a notebook builds and `helpers` ships is the same code.

A cell tagged `helpers:MODULE.NAME` holds one class or function whose syntax tree equals that in helpers/MODULE.py;
docstrings, comments and type hints may differ.
"""

import ast
from pathlib import Path

import nbformat
import pytest

import helpers
from tests.notebooks import ROOT, all_notebooks, code_cells, tags

# The chapter that builds what a module ships.
CHAPTERS = {"tokenizers": "ch02", "data": "ch02", "attention": "ch03", "gpt": "ch04", "generation": "ch04"}
CHAPTERS |= {"classification": "ch06", "instructions": "ch07"}
CHAPTERS |= {"training": "ch05", "bpe": "bpe_from_scratch", "toy": "appendix_a", "lora": "appendix_e"}
CHAPTERS |= {"preferences": "dpo_preference_tuning"}

# Names that another notebook builds than the rest of their module.
ELSEWHERE = {
    "choose_next": "ch05",
    "find_highest_gradient": "appendix_d",
    "learning_rate_at": "appendix_d",
    "train_model": "appendix_d",
}

# What these modules ship, but no notebook needs to build in a cell of its own.
EXEMPT = {
    "get_tokenizer": "tells tiktoken where the course's files are; the notebook shows tiktoken itself",
    "split_text": "a convenience: the notebook builds the pattern step by step",
    "gpt_config": "a convenience for later chapters",
    "GPT_CONFIG_124M": "a dictionary",
    "GPT_SIZES": "a dictionary",
    "beam_search": "beyond the book: chapter 5 uses it",
    "generate": "with a cache and for batches; chapter 5 builds the plain loop",
    "generate_batch": "for prompts of different lengths, on the cache",
    "generate_stream": "the loop behind generate, on the cache",
    "Progress": "a record: chapter 5 shows it",
    "unmerge_lora": "merge_lora backwards, with checks; the notebook uses it",
    "save_adapter": "tensors and a few numbers to a file; the notebook uses it",
    "load_adapter": "the same backwards, with checks; the notebook uses it",
    "answer_entries": "generate_batch for prompts of a style; chapter 7 uses it",
    "masked_collate_fn": "its core is exercise 7.2",
    "calc_loss_per_token": "chapter 5's calc_loss_loader with another weighting; chapter 7 uses it",
    "save_responses": "entries to a JSON file; chapter 7 uses it",
    "training_steps": "the loop that chapter 5 writes in six lines, with what makes it resumable",
}


class _Bare(ast.NodeTransformer):
    """Takes docstrings and type hints out of a syntax tree."""

    def visit(self, node):
        node = self.generic_visit(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.body = node.body or [ast.Pass()]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            return ast.Assign([node.target], node.value) if node.value else None
        return node


def bare(source: str) -> str:
    """The code of one class or function, without docstrings, comments and type hints.

    Raises ValueError if the source holds anything else.
    """
    tree = ast.parse(source)
    if len(tree.body) != 1 or not isinstance(tree.body[0], (ast.FunctionDef, ast.ClassDef)):
        raise ValueError("a cell tagged helpers:... holds exactly one class or function")
    return ast.unparse(ast.fix_missing_locations(_Bare().visit(tree)))


def in_helpers(module: str, name: str) -> str:
    """The source of a class or function of helpers, as written in its module."""
    text = (ROOT / "helpers" / f"{module}.py").read_text(encoding="utf-8")
    found = [node for node in ast.parse(text).body if getattr(node, "name", None) == name]
    assert len(found) == 1, f"helpers/{module}.py has {len(found)} definitions of {name}"
    return ast.unparse(found[0])


def tagged_cells() -> list[tuple[Path, str, str, str]]:
    """(notebook, module, name, source) of every cell that is tagged helpers:module.name."""
    cells = []
    for path in all_notebooks():
        for cell in code_cells(nbformat.read(path, as_version=4)):
            for tag in [tag for tag in tags(cell) if tag.startswith("helpers:")]:
                module, name = tag.removeprefix("helpers:").split(".")
                cells.append((path, module, name, cell.source))
    return cells


TAGGED = tagged_cells()


def builder(module: str, name: str) -> str:
    """How the name of the notebook begins that builds what `module` ships as `name`."""
    return ELSEWHERE.get(name, CHAPTERS[module])


def shipped() -> list[tuple[str, str]]:
    """(module, name) of all that `helpers` ships from the modules of CHAPTERS and whose notebook exists."""
    stems = [path.stem for path in all_notebooks()]
    names = []
    for module in CHAPTERS:
        body = ast.parse((ROOT / "helpers" / f"{module}.py").read_text(encoding="utf-8")).body
        defined = [node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        names += [(module, name) for name in defined if name in helpers.__all__]
    return [pair for pair in names if any(stem.startswith(builder(*pair)) for stem in stems)]


@pytest.mark.parametrize(
    ("path", "module", "name", "source"), TAGGED, ids=[f"{path.stem}-{name}" for path, _, name, _ in TAGGED]
)
def test_notebook_and_helpers_agree(path, module, name, source):
    assert ast.parse(source).body[0].name == name
    assert bare(source) == bare(in_helpers(module, name))


@pytest.mark.parametrize(("module", "name"), shipped())
def test_what_helpers_ships_is_built_once(module, name):
    places = [path.stem for path, *tagged, _ in TAGGED if tagged == [module, name]]
    if name in EXEMPT:
        assert len(places) <= 1, f"{name} is built in {places}"
    else:
        assert len(places) == 1, f"{name} is built in {places or 'no notebook'}"
        assert places[0].startswith(builder(module, name))


def test_exemptions_are_shipped():
    assert set(EXEMPT) | set(ELSEWHERE) <= set(helpers.__all__)


# ---- the comparison itself -----------------------------------------------------------------------------------------

ORIGINAL = '''
class Scale(nn.Module):
    """Multiplies."""

    limit: int = 3
    label: str

    @property
    def double(self) -> float:
        return 2.0 * self.factor

    def forward(self, x: torch.Tensor, times: int = 2) -> torch.Tensor:
        """Takes (B, T)."""
        out: torch.Tensor = x * 1e-5  # (B, T)
        return out @ self.weight
'''
NOTEBOOK = """
class Scale(nn.Module):
    limit = 3

    @property
    def double(self):
        return 2.0 * self.factor

    # a comment
    def forward(self, x, times=2):
        out = x * 1e-5
        return (out @
                self.weight)
"""


def test_docstrings_comments_and_hints_are_set_aside():
    assert bare(ORIGINAL) == bare(NOTEBOOK)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1e-5", "1e-6"),
        ("times=2", "times=3"),
        ("times=2", "count=2"),
        ("limit = 3", "limit = 4"),
        ("self.weight", "self.weights"),
        ("out @", "out *"),
        ("    @property\n", ""),
        ("nn.Module", "torch.nn.Module"),
        ("class Scale", "class Rescale"),
        ("        out = x * 1e-5\n", "        out = x * 1e-5\n        print(out)\n"),
        ("    limit = 3\n", ""),
    ],
)
def test_any_other_change_counts(old, new):
    assert old in NOTEBOOK
    assert bare(ORIGINAL) != bare(NOTEBOOK.replace(old, new))


@pytest.mark.parametrize("source", ["x = 1", "import torch\n\ndef f():\n    pass", "def f(): pass\ndef g(): pass", ""])
def test_a_cell_holds_one_definition(source):
    with pytest.raises(ValueError, match="exactly one"):
        bare(source)


def test_a_cell_against_helpers():
    source = in_helpers("gpt", "LayerNorm")
    assert bare(source) == bare(in_helpers("gpt", "LayerNorm"))
    assert bare(source.replace("1e-05", "1e-06")) != bare(source)
    assert bare(source.replace("emb_dim", "width")) != bare(source)
