"""setup_check.py must tell missing, too old and newer than tested apart, notice a device that computes wrongly, and
run where nothing is installed."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from helpers.course.chapters import NOTEBOOKS

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "setup_check.py"
SETTINGS = ("COURSE_", "COLAB_", "HF_", "HUGGINGFACE_", "TIKTOKEN_", "XDG_", "PYTHON", "COLUMNS")

spec = importlib.util.spec_from_file_location("setup_check", SCRIPT)
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Settings of whoever runs the tests do not count. (helpers may have set TIKTOKEN_CACHE_DIR already.)"""
    for name in list(os.environ):
        if name.startswith(SETTINGS):
            monkeypatch.delenv(name)


def run(*arguments: str, code: str | None = None, python: str = sys.executable, **options):
    """The checker in a process of its own, in a clean environment; `code` runs it in another way."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    settings["OMP_NUM_THREADS"] = "1"  # busy cores slow several threads far more than one
    start = ["-c", code] if code else options.pop("start", [str(SCRIPT)])
    return subprocess.run(
        [python, *start, *arguments], capture_output=True, text=True, timeout=120, env=settings, **options
    )


def row(report: dict, group: str, name: str) -> dict:
    return next(line for line in report[group] if line["name"] == name)


# Versions and packages

VERSIONS = """
0.9 1.0.dev3 1.0a1.dev2 1.0a1 1.0a2 1.0b1 1.0rc1 1.0rc2.dev1 1.0rc2 1.0 1.0.post1.dev1 1.0.post1 1.0.1 1.1.dev1 1.2
1.10 2.9.1 2.10.0 2.13.0.dev20260101 2.13.0rc7 2.13.0 2.14.0 2024.1 1!0.5 1 v1.0.0 1.0.beta2 1.0c1 2.13 10.0.10 0 0.0
"""


def test_versions_compare_as_packaging_compares_them():
    for one, other in itertools.product(VERSIONS.split(), repeat=2):
        mine, right = (check.version_key(one), check.version_key(other)), (Version(one), Version(other))
        assert (mine[0] < mine[1]) == (right[0] < right[1]), (one, other)
        assert (mine[0] == mine[1]) == (right[0] == right[1]), (one, other)


def test_a_local_version_does_not_count():
    assert check.version_key("2.13.0+cpu") == check.version_key("2.13.0") == check.version_key("2.13.0+cu130")


@pytest.mark.parametrize("nonsense", ["", "unknown", "1.x", "None"])
def test_what_is_not_a_version_is_refused(nonsense):
    with pytest.raises(ValueError, match="not a version"):
        check.version_key(nonsense)


@pytest.mark.parametrize(
    ("installed", "state", "status"),
    [
        (None, "missing", "problem"),
        ("", "damaged", "problem"),
        ("not.a.version", "damaged", "problem"),
        ("0.0", "too old", "problem"),
        ("2.3.9", "too old", "problem"),
        ("2.4.0rc1", "too old", "problem"),
        ("2.4.0", "right", "ok"),
        ("2.10.1+cu128", "right", "ok"),
        ("2.13.0.dev20260101", "right", "ok"),
        ("2.13.0+cpu", "right", "ok"),
        ("2.13.0", "right", "ok"),
        ("2.13.1+cpu", "newer than tested", "warning"),
        ("3.0.0a1", "newer than tested", "warning"),
    ],
)
def test_package_states(installed, state, status):
    found = check.judge_package("torch", installed, pin="2.13.0", oldest="2.4")
    assert (found["state"], found["status"], found["installed"]) == (state, status, installed or None)
    assert (installed or state) in found["text"]
    if status != "ok":
        assert "-m pip install" in found["fix"] and "torch==2.13.0" in found["fix"] and sys.executable in found["fix"]


def test_without_a_lower_bound_the_pin_is_the_bound():
    assert check.judge_package("extra", "1.0", pin="1.1", oldest=None)["state"] == "too old"


def test_the_bounds_are_those_of_the_project_files():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    core = [Requirement(text) for text in project["dependencies"]]
    extra = [Requirement(text) for text in project["optional-dependencies"]["lab"]]
    oldest = {need.name: next(bound.version for bound in need.specifier) for need in [*core, *extra]}
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
    pinned = {pin.name: next(iter(pin.specifier)).version for pin in pins}
    musts = {need.name for need in core}
    right = [(name, version, oldest.get(name), name in musts) for name, version in pinned.items()]
    assert check.read_requirements() == right
    assert len(right) == len(core) + len(extra)


def test_every_missing_package_is_named():
    rows = check.check_packages(find=lambda name: None)
    assert {line["state"] for line in rows} == {"missing"} and {line["status"] for line in rows} == {"problem"}
    assert len(rows) == len(check.read_requirements()) + 1  # and helpers itself
    assert not any("0.0" in line["text"].split() for line in rows)


def test_in_colab_only_what_helpers_needs_is_a_must(monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    states = {line["name"]: line["status"] for line in check.check_packages(find=lambda name: None)}
    assert (states["torch"], states["helpers"]) == ("problem", "problem")
    assert (states["jupyterlab"], states["nbval"]) == ("warning", "warning")
    assert check.check_widgets(find=lambda name: None)["status"] == "warning"
    assert check.check_kernel(find=lambda: ["/nowhere/python"])["status"] == "ok"


def test_versions_are_read_from_the_environment_but_not_from_this_folder(tmp_path, monkeypatch):
    for folder in ("site", "course"):
        info = tmp_path / folder / f"some_{folder}_package-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: some-{folder}-package\nVersion: 1.5\n")
    (tmp_path / "site" / "hollow-2.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "course"), str(tmp_path / "site")])
    monkeypatch.setattr(check, "ROOT", tmp_path / "course")
    assert check.installed_version("some-site-package") == "1.5"
    assert check.installed_version("some-course-package") is None
    assert check.installed_version("hollow") == ""


def test_a_lone_copy_says_that_the_course_is_missing(tmp_path):
    (only,) = check.check_packages(root=tmp_path)
    assert only["status"] == "problem" and "is missing" in only["text"] and "git clone" in only["fix"]


# Python and the machine


@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        ((3, 9, 18), "problem", "too old"),
        ((2, 7, 18), "problem", "too old"),
        ((3, 10, 0), "ok", "3.10.0"),
        ((3, 13, 5), "ok", "3.13.5"),
        ((3, 14, 0), "warning", "newer than tested"),
    ],
)
def test_python_versions(version, status, words):
    found = check.check_python(version)
    assert found["status"] == status and words in found["text"]


def test_on_an_old_python_it_says_one_thing_only():
    report = check.collect("quick", version_info=(3, 9, 18))
    assert report["exit_status"] == 1 and report["packages"] == report["devices"] == report["times"]["notebooks"] == []
    assert report["summary"].startswith("Not ready: Python 3.9.18 is too old, the course needs 3.10 to 3.13. First: ")


def test_old_pythons_can_read_the_file():
    tree = ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 7))
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert "dataclasses" not in imported and "__future__" not in imported  # not in 3.6
    assert imported <= set(sys.stdlib_module_names)


def test_a_small_machine_gets_a_note(monkeypatch):
    monkeypatch.setattr(check, "memory", lambda: (2.0, 1.5))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))
    rows = {line["name"]: line for line in check.check_machine()}
    assert rows["Memory"]["status"] == rows["Disk"]["status"] == "warning"
    monkeypatch.setattr(check, "memory", lambda: (None, None))
    assert "unknown" in {line["name"]: line for line in check.check_machine()}["Memory"]["text"]


# Devices


@pytest.fixture(scope="module")
def right_numbers() -> dict:
    return check.run_tiny_model("cpu", "float64")


def faked(right: dict, spoil):
    """A runner for which the CPU in float64 is right, and everything else is what `spoil` makes of it."""
    return lambda device, dtype: right if dtype == "float64" else spoil(dict(right))


def one_wrong(name: str, change):
    def spoil(numbers: dict) -> dict:
        numbers[name] = [change(numbers[name][0]), *numbers[name][1:]]
        return numbers

    return spoil


def test_this_cpu_computes_right_and_covers_the_parts():
    found = check.check_device("cpu", True)
    assert found["status"] == "ok" and found["computes"] == "right" and 0 < found["difference"] < 1e-4
    names = " ".join(check.run_tiny_model("cpu"))
    for part in ("tok_emb", "att.W_query", "norm1.scale", "ff.layers", "logits", "loss after two steps"):
        assert part in names


@pytest.mark.parametrize("where", ["logits", "gradient of tok_emb.weight", "loss after two steps"])
@pytest.mark.parametrize("added", [10, -10, math.nan, math.inf])
def test_a_wrong_number_anywhere_is_found(right_numbers, where, added):
    found = check.check_device("cuda:0", True, faked(right_numbers, one_wrong(where, lambda x: x + added)))
    assert (found["status"], found["computes"]) == ("problem", "wrongly")
    assert where in found["text"] and "COMPUTES WRONGLY" in found["text"] and "COURSE_DEVICE=cpu" in found["fix"]
    json.dumps(found, allow_nan=False)


def test_the_largest_difference_is_reported(right_numbers):
    scale = max(map(abs, right_numbers["logits"]))
    found = check.check_device("mps", False, faked(right_numbers, one_wrong("logits", lambda x: x + 0.25 * scale)))
    assert found["difference"] == pytest.approx(0.25) and "25 %" in found["text"]
    assert found["status"] == "warning"  # MPS is not used unless it is asked for


def test_rounding_is_not_a_fault(right_numbers):
    rounded = {name: [x * (1 + 1e-4) for x in numbers] for name, numbers in right_numbers.items()}
    assert check.check_device("cuda:0", True, faked(right_numbers, lambda _: rounded))["status"] == "ok"


def test_missing_and_short_results_are_faults(right_numbers):
    assert check.largest_difference({}, right_numbers)[0] == math.inf
    assert check.largest_difference({**right_numbers, "logits": [0.0]}, right_numbers) == (math.inf, "logits")


def test_a_device_that_raises_is_reported(right_numbers):
    def spoil(_):
        raise RuntimeError("no kernel image is available\nand more")

    found = check.check_device("cuda:0", True, faked(right_numbers, spoil))
    assert found["computes"] == "fails" and found["status"] == "problem" and "COURSE_DEVICE=cpu" in found["fix"]
    assert "no kernel image is available" in found["text"] and "more" not in found["text"]


def test_a_cpu_that_computes_wrongly_is_always_a_problem(right_numbers):
    spoil = one_wrong("logits", lambda x: x + 10)
    assert check.check_device("cpu", False, faked(right_numbers, spoil))["status"] == "problem"


def test_the_model_from_torchs_own_layers(monkeypatch):
    monkeypatch.setitem(sys.modules, "helpers", None)
    assert any("self_attn" in name for name in check.run_tiny_model("cpu"))
    assert check.check_device("cpu", True)["status"] == "ok"


def fake_torch(cards: int = 0, mps: bool = False) -> SimpleNamespace:
    card = SimpleNamespace(name="Card 9000", total_memory=8 * 2**30)
    return SimpleNamespace(
        __version__="2.13.0+cu130" if cards else "2.13.0",
        version=SimpleNamespace(cuda="13.0" if cards else None, hip=None),
        cuda=SimpleNamespace(
            is_available=lambda: cards > 0,
            device_count=lambda: cards,
            get_device_properties=lambda index: card,
            get_device_capability=lambda device: (7, 5) if device == "cuda:0" else (9, 0),
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_built=lambda: mps, is_available=lambda: mps)),
        cpu=SimpleNamespace(get_capabilities=lambda: {"avx512_bf16": True, "amx_bf16": False, "avx2": True}),
        get_num_threads=lambda: 4,
        device=torch.device,
    )


def test_every_device_is_listed_with_what_it_has(right_numbers, monkeypatch):
    runner = faked(right_numbers, lambda numbers: numbers)
    monkeypatch.setattr("helpers.settings.torch", fake_torch(cards=2))
    rows = {line["name"]: line for line in check.check_devices(fake_torch(cards=2, mps=True), runner)}
    assert list(rows) == ["torch", "cpu", "cuda:0", "cuda:1", "mps"]
    assert rows["torch"]["build"] == "CUDA 13.0" and rows["torch"]["mps_available"] is True
    assert rows["cpu"]["bf16"] is True and rows["cpu"]["threads"] == 4 and "bfloat16 native" in rows["cpu"]["text"]
    assert (rows["cuda:0"]["memory_gib"], rows["cuda:0"]["bf16"], rows["cuda:1"]["bf16"]) == (8.0, False, True)
    assert "Card 9000, 8.0 GiB, bfloat16 slow (not native)" in rows["cuda:0"]["text"]
    assert {line["status"] for line in rows.values()} == {"ok"}


@pytest.mark.parametrize(
    ("course_device", "cuda", "mps"),
    [
        (None, "problem", "warning"),
        ("cpu", "warning", "warning"),
        ("cuda:0", "problem", "warning"),
        ("mps", "warning", "problem"),
    ],
)
def test_a_faulty_device_matters_when_the_notebooks_would_use_it(right_numbers, monkeypatch, course_device, cuda, mps):
    monkeypatch.setattr("helpers.settings.torch", fake_torch(cards=1))
    if course_device:
        monkeypatch.setenv("COURSE_DEVICE", course_device)
    spoil = one_wrong("logits", lambda x: x + 10)

    def runner(device, dtype):
        return right_numbers if device == "cpu" else spoil(dict(right_numbers))

    rows = {line["name"]: line for line in check.check_devices(fake_torch(cards=1, mps=True), runner)}
    assert (rows["cpu"]["status"], rows["cuda:0"]["status"], rows["mps"]["status"]) == ("ok", cuda, mps)


def test_no_gpu_is_a_note_and_one_that_is_asked_for_a_problem(right_numbers, monkeypatch):
    monkeypatch.setattr("helpers.settings.torch", fake_torch())
    runner = faked(right_numbers, lambda numbers: numbers)
    rows = {line["name"]: line for line in check.check_devices(fake_torch(), runner)}
    assert rows["GPU"]["status"] == "warning" and rows["torch"]["build"] == "CPU" and "COURSE_DEVICE" not in rows
    for device in ("cuda", "cpu:1", "cpu:", "mps", "gpu"):  # as helpers.get_device has it
        monkeypatch.setenv("COURSE_DEVICE", device)
        row = {line["name"]: line for line in check.check_devices(fake_torch(), runner)}["COURSE_DEVICE"]
        assert row["status"] == "problem" and row["text"] == f"device {device!r} is not available; this machine has cpu"
    monkeypatch.setitem(sys.modules, "helpers.settings", None)
    for device, trouble in (("cuda", True), ("cpu", False)):  # also where helpers cannot be imported
        monkeypatch.setenv("COURSE_DEVICE", device)
        names = [line["name"] for line in check.check_devices(fake_torch(), runner)]
        assert ("COURSE_DEVICE" in names) is trouble


def test_bfloat16_is_unknown_without_helpers(right_numbers, monkeypatch):
    monkeypatch.setitem(sys.modules, "helpers.settings", None)
    runner = faked(right_numbers, lambda numbers: numbers)
    rows = {line["name"]: line for line in check.check_devices(fake_torch(), runner)}
    assert rows["cpu"]["bf16"] is None and "bfloat16 unknown without helpers" in rows["cpu"]["text"]
    assert rows["cpu"]["status"] == "ok"


# Jupyter


def test_the_kernel_must_be_this_environments(tmp_path):
    assert check.check_kernel(find=lambda: ["python", "-m", "ipykernel_launcher"])["status"] == "ok"
    assert check.check_kernel(find=lambda: [sys.executable, "-m", "ipykernel_launcher"])["status"] == "ok"
    twin = tmp_path / "bin" / "python"  # another environment, made from the same Python
    twin.parent.mkdir()
    twin.symlink_to(Path(sys.executable).resolve())
    for other in (str(twin), "/nowhere/bin/python"):
        found = check.check_kernel(find=lambda other=other: [other])
        assert found["status"] == "problem" and other in found["text"] and "-m ipykernel install" in found["fix"]


def test_a_missing_kernel_is_a_problem():
    def find():
        raise KeyError("No such kernel named python3")

    found = check.check_kernel(find)
    assert found["status"] == "problem" and "missing" in found["text"] and "ipykernel install" in found["fix"]


def test_the_widgets_need_package_and_files(tmp_path):
    home = tmp_path / "@jupyter-widgets" / "jupyterlab-manager"
    home.mkdir(parents=True)

    def status(version: str | None = "3.0.17") -> str:
        return check.check_widgets(find=lambda name: version, folders=[str(tmp_path / "none"), str(tmp_path)])["status"]

    assert status() == "problem"
    (home / "package.json").write_text('{"jupyterlab": {"_build": {"load": "static/entry.js"}}}')
    assert status() == "problem"
    (home / "static").mkdir()
    (home / "static" / "entry.js").write_text("")
    assert status() == "ok"
    assert status(version=None) == "problem"


# Data and weights


def test_bpe_files_right_damaged_and_missing(tmp_path):
    assert check.check_bpe(check.BPE_FOLDER)["status"] == "ok"
    for name in check.BPE_FILES:
        shutil.copy(check.BPE_FOLDER / name, tmp_path)
    assert check.check_bpe(tmp_path)["status"] == "ok"
    damaged = tmp_path / list(check.BPE_FILES)[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = check.check_bpe(tmp_path)
    assert (found["status"], found["state"]) == ("problem", "damaged") and str(damaged) in found["text"]
    damaged.unlink()
    found = check.check_bpe(tmp_path)
    assert (found["status"], found["state"]) == ("problem", "missing") and "TIKTOKEN_CACHE_DIR" in found["fix"]


def test_a_damaged_file_of_the_course_is_fetched_with_git(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "BPE_FOLDER", tmp_path)
    assert check.check_bpe(tmp_path)["fix"].startswith("git checkout")


def test_data_is_looked_for_and_never_fetched(tmp_path, monkeypatch):
    from helpers import pretrained, texts

    def no_download(*_):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(texts, "fetch", no_download)
    monkeypatch.setattr(pretrained, "fetch_gpt2", no_download)
    monkeypatch.setattr(pretrained, "find_gpt2", lambda size: tmp_path / "models" if size == "124M" else None)
    monkeypatch.setenv("COURSE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(texts, "EMBEDDED_TEXTS", {"here": SCRIPT, "gone": tmp_path / "gone.txt"})
    rows = {line["name"]: line for line in check.check_data("quick")}
    assert (rows["here"]["status"], rows["gone"]["status"]) == ("ok", "problem")
    assert {"messages", "instructions", "course model"} <= set(rows)
    downloads = {name for notebook in NOTEBOOKS for name in notebook.downloads}
    assert downloads <= set(rows) and {rows[name]["status"] for name in downloads} == {"ok"}
    assert {name for name in downloads if rows[name]["here"]} == {"gpt2-124M"}
    assert rows["gpt2-124M"]["text"] == f"in {tmp_path / 'models'} (notebooks 5, 6, C, E)"
    expected = f"not on this machine; the book profile downloads it to {tmp_path} (notebooks 7, bonus-dpo)"
    assert rows["instruction-data"]["text"] == expected


def test_a_wrong_data_folder_matters_in_the_book_profile(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "nowhere"))
    quick, book = ({line["name"]: line for line in check.check_data(name)} for name in ("quick", "book"))
    for name in ("the-verdict", "gpt2-124M"):
        assert (quick[name]["status"], book[name]["status"]) == ("warning", "problem")
        assert "nowhere" in book[name]["text"]
    monkeypatch.setenv("COURSE_PROFILE", "bok")
    assert {line["name"]: line for line in check.check_data("quick")}["COURSE_PROFILE"]["status"] == "problem"


# Time


def test_the_notebooks_are_the_courses():
    assert [tuple(notebook) for notebook in check.read_notebooks()] == [tuple(notebook) for notebook in NOTEBOOKS]


def test_without_helpers_there_are_no_notebooks(tmp_path):
    assert check.read_notebooks(tmp_path) == []


def test_estimates_follow_the_measured_speed():
    half = SimpleNamespace(file="ch04_gpt.ipynb", seconds=(60, 120), arithmetic=0.5)
    loops = SimpleNamespace(file="bonus/loops.ipynb", seconds=(30, 30), arithmetic=0.0)
    gflops, python = check.REFERENCE["gflops"], check.REFERENCE["python"]

    def minutes(**speed) -> list:
        found = check.estimate_times(speed or None, [half, loops])["notebooks"]
        assert [line["notebook"] for line in found] == ["ch04_gpt.ipynb", "bonus/loops.ipynb"]
        return [tuple(line["minutes"][name] for name in ("quick", "book")) for line in found]

    assert minutes() == [(None, None), (None, None)]
    assert minutes(gflops=gflops, python=python) == [(1.0, 2.0), (0.5, 0.5)]
    assert minutes(gflops=gflops / 3, python=python) == [(2.0, 4.0), (0.5, 0.5)]
    assert minutes(gflops=gflops, python=python / 3) == [(2.0, 4.0), (1.5, 1.5)]


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0.0, "under 0.1 min"),
        (0.09, "under 0.1 min"),
        (0.1, "0.1 min"),
        (9.94, "9.9 min"),
        (9.96, "10 min"),
        (36.4, "36 min"),
        (89.4, "89 min"),
        (90.0, "1.5 h"),
        (599.0, "10 h"),
        (1574.0, "26 h"),
    ],
)
def test_times_are_in_minutes_or_hours(minutes, words):
    assert check.spell(minutes) == words


def test_the_measurement_is_short_and_positive():
    speed = check.measure_speed(torch, seconds=0.05)
    assert speed["gflops"] > 0 and speed["python"] > 0


# The report


def made_up(**groups) -> dict:
    report = {"profile": "quick", "colab": False, **{group: [] for group in check.GROUPS}}
    report["times"] = {"basis": "a guess", "speed": {"gflops": 1.0, "python": 1.0}, "notebooks": []}
    report["python"] = [check.item("Python", "ok", "3.12.1")]
    report.update(groups)
    return check.conclude(report)


def test_notes_leave_it_ready_and_problems_do_not():
    note = check.item("numpy", "warning", "9.0 is newer than tested (2.2.6)")
    report = made_up(packages=[note])
    assert (report["ready"], report["exit_status"]) == (True, 0) and report["summary"].startswith("Ready (1 to note)")
    kernel = check.item("Kernel", "problem", "python3 is missing", "do this")
    report = made_up(packages=[note], jupyter=[kernel])
    assert (report["ready"], report["exit_status"]) == (False, 1)
    assert report["summary"] == "Not ready: Kernel python3 is missing. First: do this"


def test_main_prints_and_returns_the_status(monkeypatch, capsys):
    for status, expected in (("ok", 0), ("warning", 0), ("problem", 1)):
        report = made_up(jupyter=[check.item("Kernel", status, "words", "fix it")])

        def collect(profile, report=report):
            print("chatter of a library")
            return report

        monkeypatch.setattr(check, "collect", collect)
        assert check.main(["--json"]) == expected
        assert json.loads(capsys.readouterr().out) == report
        assert check.main([]) == expected
        text = capsys.readouterr().out
        assert "of a library" not in text and check.WORDS[status] in text and ("fix it" in text) == (status != "ok")


@pytest.mark.parametrize("terminal", [True, False])
def test_people_are_told_that_it_takes_a_moment(monkeypatch, capsys, terminal):
    """Before it begins to look, and apart from the report; a program that reads it is told nothing."""
    said = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setattr(check, "collect", lambda profile: said.append(capsys.readouterr().err) or made_up())
    assert check.main(["--json"]) == 0
    assert said == ["Looking at Python, packages, devices and data: about ten seconds.\n" if terminal else ""]
    json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("width", [40, 60, 88, 200])
def test_lines_fit_the_terminal_and_the_last_says_what_to_do(width):
    packages = check.check_packages(find=lambda name: None if name in ("pandas", "tqdm") else "99.0")
    times = {"basis": "words " * 30, "speed": {"gflops": 1.0, "python": 1.0}}
    times["notebooks"] = [{"notebook": "ch04_gpt.ipynb", "minutes": {"quick": 0.25, "book": 1574.0}}]
    report = made_up(packages=packages, times=times)
    text = check.render(report, width)
    lines = text.splitlines()
    assert all(len(line) <= width or len(line.split()) <= 4 for line in lines)
    assert "\x1b" not in text and text.isascii()
    assert " ".join(text.split()).endswith(" ".join(report["summary"].split()))
    assert "quick 0.2 min, book 26 h" in " ".join(text.split())
    assert " ".join(text.split()).count("-m pip install") >= 2


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(check, "check_data", lambda profile: [])
    report = check.collect("quick")
    assert report["exit_status"] == 1 and row(report, "devices", "torch")["status"] == "problem"
    assert report["times"]["speed"] is None and report["summary"].startswith("Not ready: torch does not work")


def test_many_missing_packages_give_one_thing_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "ROOT", tmp_path)  # no .venv there
    packages = [check.judge_package(f"package{index}", None, "1.0", None) for index in range(9)]
    report = made_up(packages=packages)
    assert report["summary"].startswith("Not ready: 9 of 9 packages are missing or wrong. First: `make lab`, or ")
    assert check.render(report, 88).count("pip install") == 1


# In processes of their own

OFFLINE = f"""
import runpy, socket, sys

def refuse(*arguments, **_):
    print("the network was touched:", arguments, file=sys.stderr)
    raise AssertionError("the network was touched")

def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "urllib.")):
        print("the network was touched:", event, arguments, file=sys.stderr)
        raise AssertionError(event)

socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
sys.addaudithook(watch)
sys.argv[0] = {str(SCRIPT)!r}
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def real() -> tuple[int, dict, str]:
    done = run("--json", code=OFFLINE)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_this_environment_is_ready_and_nothing_touched_the_network(real):
    status, report, errors = real
    assert status == 0 and report["ready"] is True, report["summary"]
    assert "network was touched" not in errors
    assert {line["status"] for group in check.GROUPS for line in report[group]} <= {"ok", "warning"}


def test_the_json_has_everything(real):
    _, report, _ = real
    assert set(report) == {*check.GROUPS, "profile", "colab", "times", "ready", "exit_status", "summary"}
    assert all({"name", "status", "text", "fix"} <= set(line) for group in check.GROUPS for line in report[group])
    assert row(report, "packages", "torch")["installed"] == torch.__version__
    assert row(report, "packages", "helpers")["state"] == "right"
    assert row(report, "devices", "cpu")["computes"] == "right"
    assert row(report, "machine", "Memory")["total_gib"] > 0
    assert row(report, "python", "Python")["executable"] == sys.executable
    assert [line["notebook"] for line in report["times"]["notebooks"]] == [notebook.file for notebook in NOTEBOOKS]
    assert all(line["minutes"]["book"] > 0 for line in report["times"]["notebooks"])


def test_the_hook_would_see_the_network():
    code = OFFLINE.split("sys.argv[0]")[0] + "import urllib.request; urllib.request.urlopen('http://localhost:9')"
    done = run(code=code)
    assert done.returncode == 1 and "network was touched" in done.stderr


def test_a_bare_environment_gets_status_1_and_useful_words(tmp_path):
    course = tmp_path / "course"
    (course / "llm_course_helpers.egg-info").mkdir(parents=True)
    (course / "llm_course_helpers.egg-info" / "PKG-INFO").write_text("Name: llm-course-helpers\nVersion: 0.1.0\n")
    for name in ("setup_check.py", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, course)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    done = run(python=python, start=[str(course / "setup_check.py")])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for words in ("torch", "missing, 2.13.0 is expected", "the course's own package", "python3 is missing", "make lab"):
        assert words in done.stdout
    done = run("--json", python=python, start=["-S", "-I", str(course / "setup_check.py")])
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_status"] == 1
    assert {line["state"] for line in report["packages"]} == {"missing"}
    assert report["times"]["speed"] is None
