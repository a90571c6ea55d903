"""The package as a whole: its names, what importing it loads, its dependencies, and the examples in its docstrings."""

import ast
import doctest
import functools
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

# What the chapters teach under these names.
TAUGHT = {
    "2": "SimpleTokenizerV1 SimpleTokenizerV2 GPTDatasetV1 create_dataloader_v1",
    "3": "SelfAttention_v1 SelfAttention_v2 CausalAttention MultiHeadAttentionWrapper MultiHeadAttention",
    "4": "GPT_CONFIG_124M LayerNorm GELU FeedForward TransformerBlock GPTModel generate_text_simple",
    "5": "text_to_token_ids token_ids_to_text calc_loss_batch calc_loss_loader train_model_simple evaluate_model "
    "generate_and_print_sample plot_losses generate download_and_load_gpt2 load_weights_into_gpt",
    "6": "create_balanced_dataset random_split SpamDataset calc_accuracy_loader train_classifier_simple plot_values "
    "classify_review",
    "7": "format_input InstructionDataset custom_collate_fn query_model generate_model_scores",
    "A": "NeuralNetwork ToyDataset compute_accuracy",
    "D": "find_highest_gradient train_model",
    "E": "LoRALayer LinearWithLoRA replace_linear_with_lora",
    "every chapter": "get_profile get_tokenizer load_text",
}

# Where a module comes from that is not named as its distribution, or that comes with another one.
COMES_WITH = {"IPython": "ipywidgets", "PIL": "matplotlib", "filelock": "huggingface_hub"}


def module_names():
    return ["helpers"] + [module.name for module in pkgutil.walk_packages(helpers.__path__, "helpers.")]


@functools.cache
def source_files():
    """The package's modules and their files, without importing any."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


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


@functools.cache
def imported(name, inside_functions):
    """The full names of the modules that a module imports; a submodule named after "from" is meant itself."""
    path, found = source_files()[name], set()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in import_nodes(ast.parse(path.read_text(encoding="utf-8")).body, inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base]) if base else ".".join(above)
        submodules = {f"{base}.{alias.name}" for alias in node.names}
        found |= {submodule if submodule in source_files() else base for submodule in submodules}
    return found


class TestNames:
    @pytest.mark.parametrize("name", helpers.__all__)
    def test_every_public_name(self, name):
        assert getattr(importlib.import_module("helpers"), name) is not None

    @pytest.mark.parametrize("chapter", TAUGHT)
    def test_what_the_chapters_teach(self, chapter):
        assert set(TAUGHT[chapter].split()) <= set(helpers.__all__)

    @pytest.mark.parametrize("name", ["checks", "plots", "widgets"])
    def test_the_modules_that_every_notebook_imports(self, name):
        assert getattr(helpers, name) is importlib.import_module(f"helpers.course.{name}")

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


FRESH = """
import sys, torch
before = set(sys.modules)  # what torch itself loads in this environment is not ours to blame
torch.manual_seed(1)
random_state = torch.get_rng_state()
import helpers
print(*(name for name in HEAVY if name in set(sys.modules) - before))
print(torch.equal(random_state, torch.get_rng_state()), torch.get_default_dtype())
helpers.texts.kind_of(helpers.load_instructions("instructions")[0])
print("helpers.make" in sys.modules)
"""
HEAVY = "matplotlib pandas ipywidgets IPython tiktoken pooch transformers sklearn huggingface_hub tqdm requests PIL"
HEAVY += " rouge_score nltk helpers.judges"


@pytest.fixture(scope="module")
def said():
    """What a fresh Python prints, line by line."""
    code = FRESH.replace("HEAVY", repr(HEAVY.split()))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stderr == ""
    return result.stdout.split("\n")


class TestImport:
    def test_loads_nothing_heavy(self, said):
        assert said[0] == ""

    def test_leaves_the_random_state_alone(self, said):
        assert said[1] == "True torch.float32"

    def test_kinds_of_instructions_need_no_generator(self, said):
        assert said[2] == "False"

    def test_no_cycles(self):
        graph = {name: imported(name, inside_functions=False) & set(source_files()) - {name} for name in source_files()}
        order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
        assert set(order) == set(graph)
        assert "helpers.attention" in graph["helpers.gpt"]  # the graph is not empty

    def test_what_notebooks_build_needs_neither_furniture_nor_programs(self):
        """The modules on the top floor, and those that make them faster, import nothing from the other rooms."""
        lower = [name for name in source_files() if name.count(".") == 1 or name.startswith("helpers.speed.")]
        assert {"helpers.attention", "helpers.speed.kv_cache"} <= set(lower)
        for name in lower:
            if name.split(".")[1] not in ("course", "apps", "make"):
                for other in imported(name, inside_functions=True):
                    assert not re.match(r"helpers\.(course|apps|make)\b", other), name

    def test_no_module_imports_a_notebook_or_a_test(self):
        found = 0
        for name in source_files():
            for other in imported(name, inside_functions=True):
                found += 1
                assert not re.match(r"(notebooks|tests|import_ipynb|previous_chapters|ch\d+)\b", other), name
        assert found > 20


def pyproject():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins():
    """Both requirements.txt, of the course and of the tests, as {name: version}, and their other lines."""
    versions, others = {}, []
    files = [REPOSITORY / "requirements.txt", REPOSITORY / "tests" / "requirements.txt"]
    for line in [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]:
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
        assert others == ["-e .", "-r ../requirements.txt"]

    def test_learners_install_what_the_course_needs_and_no_more(self):
        text = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
        pinned = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
        assert pinned == {canonicalize_name(requirement.name) for requirement in declared("lab")}

    def test_the_lowest_versions_are_the_lower_bounds(self):
        lines = (REPOSITORY / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
        lines = [line for line in lines if line and not line.startswith("#")]
        assert lines == [*(str(requirement).replace(">=", "==") for requirement in declared()), "-e ."]

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
        for name in source_files():
            for other in imported(name, inside_functions=True):
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
