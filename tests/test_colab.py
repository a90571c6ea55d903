"""As in Colab: other versions of torch, numpy, pandas and matplotlib, no checkout, and nothing but a notebook's file.

Slow, since an environment is made (`make test ARGS="-m slow tests/test_colab.py"`, about ten minutes). COURSE_COLAB
names a folder for the environment, to use it again; what was installed and how long it took is printed at the end.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbclient import NotebookClient

from tests.notebooks import BOOTSTRAP, ROOT, read, tags

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="Colab runs on Linux")]

# What Colab brings, in other versions than requirements.txt pins; never touched by installing `helpers`.
BROUGHT = ["torch>=2.10,<2.13", "numpy>=1.26,<2.2", "pandas>=2.0,<2.3", "matplotlib>=3.8,<3.10"]
ALSO_BROUGHT = ["scikit-learn", "ipykernel", "ipywidgets"]
ADDRESS = "https://github.com/reader/course"  # leads to this repository, by a setting of git's
IN_COLAB = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The Python of an environment without `helpers`."""
    folder = Path(os.environ.get("COURSE_COLAB") or tmp_path_factory.mktemp("colab") / "env")
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "llm-course-helpers"], check=True)
    subprocess.run([*pip, "install", "--quiet", *BROUGHT, *ALSO_BROUGHT], check=True)
    return python


def versions(python):
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    return {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}


def address_of_this_repository():
    """Environment variables that let git fetch this repository's last commit where a notebook names ADDRESS."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
    }


@pytest.mark.parametrize("name", ["ch02_text_data", "ch05_pretraining", "ch06_classification"])
def test_a_notebook_in_colab(colab, name, tmp_path, monkeypatch, record_property):
    hook, content, spec = tmp_path / "hook", tmp_path / "content", tmp_path / "share" / "kernels" / "colab"
    for folder in (hook, content, spec):
        folder.mkdir(parents=True)
    (hook / "sitecustomize.py").write_text(IN_COLAB)
    launcher = {"argv": [str(colab), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Colab"}
    (spec / "kernel.json").write_text(json.dumps({**launcher, "language": "python"}))
    settings = address_of_this_repository() | {
        "JUPYTER_PATH": str(tmp_path / "share"),
        "PYTHONPATH": str(hook),
        "PATH": f"{colab.parent}{os.pathsep}{os.environ['PATH']}",
        "COURSE_CACHE_DIR": str(tmp_path / "cache"),
    }
    for variable, value in settings.items():
        monkeypatch.setenv(variable, value)
    for variable in ("COURSE_PROFILE", "COURSE_DATA_DIR"):
        monkeypatch.delenv(variable, raising=False)

    notebook = read(ROOT / "notebooks" / f"{name}.ipynb")
    (first,) = (cell for cell in notebook.cells if "bootstrap" in tags(cell))
    first.source = BOOTSTRAP.format(repository=ADDRESS.removeprefix("https://github.com/"))
    before, begin = versions(colab), time.monotonic()
    NotebookClient(
        notebook, kernel_name="colab", timeout=900, resources={"metadata": {"path": str(content)}}
    ).execute()  # raises the first error of a cell
    after = versions(colab)

    assert {package: after.get(package) for package in before} == before
    assert "llm-course-helpers" in after
    said = "".join(output.text for output in first.outputs if output.output_type == "stream")
    assert "error" not in said.lower()
    brought = ", ".join(f"{package} {after[package]}" for package in ("torch", "numpy", "pandas", "matplotlib"))
    new = ", ".join(sorted(set(after) - set(before))) or "nothing"
    seconds = time.monotonic() - begin
    record_property("line", f"{name} in Colab: {seconds:.0f} s with {brought}; newly installed: {new}")
