"""The package as a whole: its names, what importing it loads, its dependencies, and the examples in its docstrings."""

import ast
import doctest
import graphlib
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import helpers

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parent.parent
PACKAGE = Path(helpers.__file__).parent
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]

# What the syllabus names, chapter by chapter.
SYLLABUS = {
    2: ["SimpleTokenizerV1", "SimpleTokenizerV2", "GPTDatasetV1", "create_dataloader_v1"],
    3: ["SelfAttention_v1", "SelfAttention_v2", "CausalAttention", "MultiHeadAttentionWrapper", "MultiHeadAttention"],
    4: ["GPT_CONFIG_124M", "LayerNorm", "GELU", "FeedForward", "TransformerBlock", "GPTModel", "generate_text_simple"],
    6: [
        "create_balanced_dataset",
        "random_split",
        "SpamDataset",
        "calc_accuracy_loader",
        "train_classifier_simple",
        "plot_values",
        "classify_review",
    ],
}

# Where a module comes from that is not named as its distribution, or that comes with another one.
COMES_WITH = {"IPython": "ipywidgets", "PIL": "matplotlib"}


def module_names():
    return ["helpers"] + [module.name for module in pkgutil.walk_packages(helpers.__path__, "helpers.")]


def source_files():
    """The package's modules and their files, without importing any."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_nodes(body, inside_functions):
    """The import statements of a list of statements; those under TYPE_CHECKING never run and are left out."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif is_type_checking(node):
            yield from import_nodes(node.orelse, inside_functions)
        elif inside_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from import_nodes(list(ast.iter_child_nodes(node)), inside_functions)


def imported(name, path, inside_functions):
    """The full names of the modules that a module imports; a submodule named after "from" is meant itself."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    modules = {module for module, _ in source_files()}
    for node in import_nodes(ast.parse(path.read_text(encoding="utf-8")).body, inside_functions):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base]) if base else ".".join(above)
        for alias in node.names:
            submodule = f"{base}.{alias.name}"
            yield submodule if submodule in modules else base


class TestNames:
    @pytest.mark.parametrize("name", helpers.__all__)
    def test_every_public_name(self, name):
        assert getattr(importlib.import_module("helpers"), name) is not None

    @pytest.mark.parametrize("chapter", SYLLABUS)
    def test_the_syllabus(self, chapter):
        assert set(SYLLABUS[chapter]) <= set(helpers.__all__)

    def test_no_name_twice(self):
        assert len(helpers.__all__) == len(set(helpers.__all__))

    def test_star_import_gives_nothing_else(self):
        names = {}
        exec("from helpers import *", names)
        assert set(names) - {"__builtins__"} == set(helpers.__all__)

    @pytest.mark.parametrize("name", module_names())
    def test_every_module_imports(self, name):
        assert importlib.import_module(name).__doc__, "a module says what it holds"

    def test_public_names_have_docstrings(self):
        for name in helpers.__all__:
            thing = getattr(helpers, name)
            if callable(thing):
                assert thing.__doc__, name


class TestImport:
    def test_loads_nothing_heavy(self):
        heavy = (
            "matplotlib pandas ipywidgets IPython tiktoken pooch transformers sklearn huggingface_hub tqdm requests PIL"
        )
        # What torch itself loads in this environment is not ours to blame.
        code = f"""
import sys, torch
before = set(sys.modules)
import helpers
print(*sorted(name for name in {heavy.split()!r} if name in set(sys.modules) - before))
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (result.stdout.strip(), result.stderr) == ("", "")

    def test_leaves_the_random_state_alone(self):
        code = "import torch; torch.manual_seed(1); a = torch.get_rng_state(); import helpers; "
        code += "print(torch.equal(a, torch.get_rng_state()), torch.get_default_dtype())"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert result.stdout.split() == ["True", "torch.float32"]

    def test_no_cycles(self):
        graph = {name: set() for name, _ in source_files()}
        for name, path in source_files():
            graph[name] = {other for other in imported(name, path, inside_functions=False) if other in graph} - {name}
        order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
        assert set(order) == set(graph)
        assert "helpers.attention" in graph["helpers.gpt"]  # the graph is not empty

    def test_no_module_imports_a_notebook_or_a_test(self):
        found = 0
        for name, path in source_files():
            for other in imported(name, path, inside_functions=True):
                found += 1
                assert not re.match(r"(notebooks|tests|import_ipynb|previous_chapters|ch\d+)\b", other), name
        assert found > 20


def pyproject():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins():
    """requirements.txt as {name: version}, and its other lines."""
    versions, others = {}, []
    for line in (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-"):
            others.append(line)
        elif line:
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{line}: pinned to one version"
            versions[canonicalize_name(requirement.name)] = Version(specifier.version)
    return versions, others


def declared(*extras):
    """The requirements of pyproject.toml, with those of some extras, or of all of them."""
    project = pyproject()
    extras = extras or tuple(project["optional-dependencies"])
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    return [Requirement(line) for line in lines if not line.startswith(project["name"])]


class TestDependencies:
    @pytest.mark.parametrize("requirement", declared(), ids=str)
    def test_only_lower_bounds(self, requirement):
        assert [specifier.operator for specifier in requirement.specifier] == [">="]

    @pytest.mark.parametrize("requirement", declared(), ids=str)
    def test_pinned_at_or_above_the_lower_bound(self, requirement):
        versions, _ = pins()
        name = canonicalize_name(requirement.name)
        assert name in versions, "requirements.txt pins everything that pyproject.toml names"
        assert requirement.specifier.contains(versions[name])

    def test_nothing_is_pinned_that_is_not_declared(self):
        versions, others = pins()
        assert set(versions) == {canonicalize_name(requirement.name) for requirement in declared()}
        assert others == ["-e ."]

    def test_torch(self):
        assert pins()[0]["torch"] == Version("2.13.0")

    def test_no_tensorflow(self):
        assert not {"tensorflow", "tensorflow-cpu", "keras"} & set(pins()[0])

    def test_pins_are_what_is_installed(self):
        from importlib.metadata import version

        wrong = {name: version(name) for name, pin in pins()[0].items() if Version(version(name)).public != str(pin)}
        if wrong:
            pytest.skip(f"another environment than requirements.txt makes: {wrong}")

    def test_what_helpers_imports_is_declared(self):
        needed = {canonicalize_name(r.name) for r in map(Requirement, pyproject()["dependencies"])}
        missing = {}
        for name, path in source_files():
            for other in imported(name, path, inside_functions=True):
                top = other.partition(".")[0]
                if top == "helpers" or top in sys.stdlib_module_names:
                    continue
                if canonicalize_name(COMES_WITH.get(top, top)) not in needed:
                    missing[top] = name
        assert missing == {}

    def test_assets_travel_with_the_package(self):
        config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
        assert config["package-data"]["helpers"] == ["assets/**/*"]


class TestPythonVersions:
    def test_pyproject(self):
        assert pyproject()["requires-python"] == ">=3.10"  # a lower bound, as for the libraries

    def test_conda_environment(self):
        environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text(encoding="utf-8"))
        plain = [line for line in environment["dependencies"] if isinstance(line, str)]
        sections = [line for line in environment["dependencies"] if isinstance(line, dict)]
        assert sections == [{"pip": ["-r requirements.txt"]}]
        assert "pip" in plain
        (python,) = [line for line in plain if line.startswith("python")]
        constraint = python.removeprefix("python").strip()
        if re.match(r"=\d", constraint):  # conda's "=3.12" is any 3.12
            constraint = f"={constraint}.*"
        allowed = [v for v in ["3.8", "3.9", *PYTHONS, "3.14", "3.15"] if Version(f"{v}.1") in SpecifierSet(constraint)]
        assert allowed
        assert set(allowed) <= set(PYTHONS)
        assert set(plain) == {python, "pip"}  # every other version stands in requirements.txt alone

    def test_makefile(self):
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        assert all(f"python{version}" in makefile for version in PYTHONS)
        assert "(3, 10) <= sys.version_info[:2] <= (3, 13)" in makefile


class TestDocstrings:
    @pytest.mark.parametrize("name", module_names())
    def test_examples(self, name):
        assert doctest.testmod(importlib.import_module(name)).failed == 0

    def test_there_are_examples(self):
        finder = doctest.DocTestFinder()
        modules = map(importlib.import_module, module_names())
        assert sum(len(test.examples) for module in modules for test in finder.find(module)) > 0
