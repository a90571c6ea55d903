"""One source of truth: what a notebook builds and `helpers` ships is the same code.

A cell tagged `helpers:MODULE.NAME` holds one class or function whose syntax tree equals that in helpers/MODULE.py
(`helpers:speed.kv_cache.KVCache` that in helpers/speed/kv_cache.py). Docstrings, comments and type hints may differ,
and the checks of arguments that `@guard(...)` puts before a function in helpers.
"""

import ast
from pathlib import Path

import nbformat
import pytest

import helpers
from helpers.course.chapters import NOTEBOOKS
from tests.notebooks import ROOT, all_notebooks, code_cells, tags

# The number of the notebook that builds what a module ships.
BUILDERS = {
    "tokenizers": "2",
    "data": "2",
    "attention": "3",
    "gpt": "4",
    "generation": "4",
    "training": "5",
    "classification": "6",
    "instructions": "7",
    "toy": "A",
    "lora": "E",
    "bpe": "bonus-bpe",
    "preferences": "bonus-dpo",
    "llama": "bonus-llama",
    "gguf": "bonus-llama",
}

# Names that another notebook builds than the rest of their module.
ELSEWHERE = {"choose_next": "5", "find_highest_gradient": "D", "learning_rate_at": "D", "train_model": "D"}

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
    "evaluated_steps": "training_steps with the losses evaluated every few updates; chapter 5 introduces it",
    "LlamaCache": "a LayerCache for each layer, and a count; the notebook uses it",
    "SMOLLM2_CONFIG_135M": "a dictionary",
    "read_gguf": "read_header, with each tensor's bytes cut out and all of it checked; the notebook uses it",
    "interruptible": "ends a training run at the stop button; chapter 5 introduces it",
}


class _Bare(ast.NodeTransformer):
    """Takes docstrings, type hints and `@guard(...)` out of a syntax tree."""

    def visit(self, node):
        node = self.generic_visit(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.body = node.body or [ast.Pass()]
            node.decorator_list = [decorator for decorator in node.decorator_list if not _is_guard(decorator)]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            return ast.Assign([node.target], node.value) if node.value else None
        return node


# Decorators that check or adapt arguments: `helpers` has them, the notebooks show the function without.
GUARDS = {
    "adapt",
    "counts_rows",
    "expects_labels",
    "expects_numbers",
    "guard",
    "printable",
    "takes_any_reward",
    "takes_file",
    "takes_tokenizer",
}


def _is_guard(decorator: ast.expr) -> bool:
    """Whether a decorator is one of GUARDS, called or not."""
    name = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(name, ast.Name) and name.id in GUARDS


def bare(source: str) -> str:
    """The code of one class or function, without docstrings, comments, type hints and `@guard(...)`.

    Raises ValueError if the source holds anything else.
    """
    tree = ast.parse(source)
    if len(tree.body) != 1 or not isinstance(tree.body[0], (ast.FunctionDef, ast.ClassDef)):
        raise ValueError("a cell tagged helpers:... holds exactly one class or function")
    return ast.unparse(ast.fix_missing_locations(_Bare().visit(tree)))


def in_helpers(module: str, name: str) -> str:
    """The source of a class or function of helpers, as written in its module (such as "gpt" or "speed.kv_cache")."""
    found = [node for node in definitions(module) if node.name == name]
    assert len(found) == 1, f"helpers.{module} has {len(found)} definitions of {name}"
    return ast.unparse(found[0])


def definitions(module: str) -> list[ast.FunctionDef | ast.ClassDef]:
    """The classes and functions that a module of helpers defines."""
    path = ROOT.joinpath("helpers", *module.split(".")).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [node for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def tagged_cells() -> list[tuple[Path, str, str, str]]:
    """(notebook, module, name, source) of every cell that is tagged helpers:module.name."""
    cells = []
    for path in all_notebooks():
        for cell in code_cells(nbformat.read(path, as_version=4)):
            for tag in [tag for tag in tags(cell) if tag.startswith("helpers:")]:
                module, _, name = tag.removeprefix("helpers:").rpartition(".")
                cells.append((path, module, name, cell.source))
    return cells


TAGGED = tagged_cells()


def builder(module: str, name: str) -> Path:
    """The notebook that builds what `module` ships as `name`."""
    number = ELSEWHERE.get(name, BUILDERS[module])
    return ROOT / "notebooks" / next(notebook.file for notebook in NOTEBOOKS if notebook.number == number)


def shipped() -> list[tuple[str, str]]:
    """(module, name) of all that `helpers` ships from the modules of BUILDERS."""
    return [(module, node.name) for module in BUILDERS for node in definitions(module) if node.name in helpers.__all__]


@pytest.mark.parametrize(
    ("path", "module", "name", "source"), TAGGED, ids=[f"{path.stem}-{name}" for path, _, name, _ in TAGGED]
)
def test_notebook_and_helpers_agree(path, module, name, source):
    assert ast.parse(source).body[0].name == name
    assert bare(source) == bare(in_helpers(module, name))


@pytest.mark.parametrize(("module", "name"), shipped())
def test_what_helpers_ships_is_built_once(module, name):
    places = [path for path, *tagged, _ in TAGGED if tagged == [module, name]]
    if name in EXEMPT:
        assert len(places) <= 1, f"{name} is built in {places}"
    else:
        assert places == [builder(module, name)], f"{name} is built in {places or 'no notebook'}"


def test_exemptions_are_shipped():
    assert set(EXEMPT) | set(ELSEWHERE) <= set(helpers.__all__)


# ---- the comparison itself -----------------------------------------------------------------------------------------

ORIGINAL = '''
class Scale(nn.Module):
    """Multiplies."""

    limit: int = 3
    label: str

    @guard(_check_weight)
    def set(self, weight: float) -> None:
        self.weight = weight

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

    def set(self, weight):
        self.weight = weight

    @property
    def double(self):
        return 2.0 * self.factor

    # a comment
    def forward(self, x, times=2):
        out = x * 1e-5
        return (out @
                self.weight)
"""


def test_docstrings_comments_hints_and_guards_are_left_aside():
    assert bare(ORIGINAL) == bare(NOTEBOOK)
    function = "def half(x):\n    return x / 2"
    assert bare(f"@guard(_check_half)\n{function}") == bare(function)
    assert bare(f"@guard(_check_half)\n@torch.no_grad()\n{function}") == bare(f"@torch.no_grad()\n{function}")


@pytest.mark.parametrize("decorator", ["torch.no_grad()", "guarded(check)", "guards.guard", "functools.cache"])
def test_any_other_decorator_counts(decorator):
    function = "def half(x):\n    return x / 2"
    assert bare(f"@{decorator}\n{function}") != bare(function)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1e-5", "1e-6"),
        ("times=2", "times=3"),
        ("times=2", "count=2"),
        ("limit = 3", "limit = 4"),
        ("self.weight)", "self.weights)"),
        ("out @", "out *"),
        ("    @property\n", ""),
        ("        self.weight = weight\n", "        self.weight = 2 * weight\n"),
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
    assert "class KVCache" in in_helpers("speed.kv_cache", "KVCache")
    source = in_helpers("gpt", "LayerNorm")
    assert bare(source) == bare(in_helpers("gpt", "LayerNorm"))
    assert bare(source.replace("1e-05", "1e-06")) != bare(source)
    assert bare(source.replace("emb_dim", "width")) != bare(source)
