"""Is this machine ready for the course? Run `python setup_check.py`, or with `--json` for a program to read.

Starts with the standard library alone, so that it can say what is missing, and keeps to what Python 3.6 can parse, so
that it can say that a Python is too old. It never uses the network, changes nothing, and starts no kernel or browser.
The notebooks, what they download and how long they take are in helpers/course/chapters.py. Exit status: 0 when ready
(perhaps with notes), 1 when something that matters is wrong.
"""

import argparse
import contextlib
import hashlib
import json
import math
import os
import platform
import re
import runpy
import shutil
import sys
import textwrap
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BPE_FOLDER = ROOT / "helpers" / "assets" / "tiktoken"
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
MEMORY_GIB, DISK_GIB = 4, 5  # less than this gets a note
TOLERANCE = 2e-3  # float32 differs from float64 by about 1e-6 here, a device that computes wrongly by far more

# The machine on which the seconds in helpers/course/chapters.py were measured, and its speeds as `measure_speed` gives
# them.
REFERENCE = {"name": "two cores of a server CPU with AVX-512", "gflops": 330.0, "python": 45.0}

# GPT-2's byte-pair encoding, vocab.bpe and encoder.json: tiktoken's name (the SHA-1 of the address), and the SHA-256.
BPE_FILES = {
    "6d1cbeee0f20b3d9449abfede4726ed8212e3aee": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
PROFILES = ("quick", "book")
GROUPS = ("python", "machine", "packages", "devices", "jupyter", "data")
WORDS = {"ok": "ok", "warning": "note", "problem": "WRONG"}


def item(name: str, status: str, text: str, fix: str = "", **facts) -> dict:
    """One line of the report: `status` is ok, warning or problem, `fix` says what to do, `facts` are for JSON."""
    return {"name": name, "status": status, "text": text, "fix": fix, **facts}


def command(*words: str) -> str:
    """A command line for this interpreter, with quotes where a word needs them."""
    return " ".join('"' + word + '"' if re.search(r"[\s=<>&]", word) else word for word in (sys.executable, *words))


def in_colab() -> bool:
    return bool(os.environ.get("COLAB_RELEASE_TAG")) or "google.colab" in sys.modules


def reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def read_notebooks(root: Path = ROOT) -> list:
    """The course's list of notebooks; an empty list if the folder helpers is missing."""
    path = root / "helpers" / "course" / "chapters.py"
    return list(runpy.run_path(str(path))["NOTEBOOKS"]) if path.exists() else []


# Python and the machine


def check_python(version_info: tuple) -> dict:
    version = ".".join(str(part) for part in version_info[:3])
    supported = "{}.{} to {}.{}".format(*OLDEST_PYTHON, *NEWEST_PYTHON)
    facts = {"version": version, "executable": sys.executable, "prefix": sys.prefix}
    if tuple(version_info[:2]) < OLDEST_PYTHON:
        fix = f"install Python {supported} and run this check with it (`make lab` finds it by itself)"
        return item("Python", "problem", f"{version} is too old, the course needs {supported}", fix, **facts)
    if tuple(version_info[:2]) > NEWEST_PYTHON:
        text = f"{version} is newer than tested ({supported}); some packages may have no build for it yet"
        return item("Python", "warning", text, **facts)
    return item("Python", "ok", f"{version} ({sys.executable})", **facts)


def memory() -> "tuple[float | None, float | None]":
    """Total and available memory in GiB (a container's limit counts); None for what cannot be found out."""
    total = available = None
    try:  # comes with ipykernel
        import psutil

        total, available = psutil.virtual_memory().total, psutil.virtual_memory().available
    except Exception:
        with contextlib.suppress(Exception):  # not on Windows, and what is available on Linux only
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            available = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1))
    with contextlib.suppress(Exception):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        total, available = min(total, limit), min(available, limit)
    return tuple(None if number is None else round(number / 2**30, 1) for number in (total, available))


def check_machine() -> list:
    system = platform.platform() + (", in Colab" if in_colab() else "")
    total, available = memory()
    text = "size unknown" if total is None else f"{total} GiB"
    text += "" if available is None else f", {available} GiB of it available"
    low = total is not None and total < MEMORY_GIB
    text += f"; with less than {MEMORY_GIB} GiB some notebooks are slow or stop" if low else ""
    free = round(shutil.disk_usage(str(ROOT)).free / 2**30, 1)
    space = f"{free} GiB free" + (f"; the book profile needs {DISK_GIB} GiB" if free < DISK_GIB else "")
    return [
        item("System", "ok", system, machine=platform.machine()),
        item("Memory", "warning" if low else "ok", text, total_gib=total, available_gib=available),
        item("Disk", "warning" if free < DISK_GIB else "ok", space, free_gib=free),
    ]


# Packages

# What may follow the numbers of a version, in the order in which PEP 440 sorts it; "" is the end, numbers come last.
MARKS = {"dev": 0, "a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "pre": 3, "rc": 3, "": 4, "post": 5, "rev": 5}


def version_key(version: str) -> tuple:
    """Sorts versions as PEP 440 does, except that a local part (the +cpu of 2.13.0+cpu) does not count.

    Raises ValueError for what is not a version.
    """
    marks = r"((?:[-_.]?(?:" + "|".join(filter(None, MARKS)) + r")[-_.]?\d*)*)"
    found = re.match(r"v?(?:(\d+)!)?(\d+(?:\.\d+)*?)(?:\.0+)*" + marks + r"(?:\+.*)?$", version.strip().lower())
    if found is None:
        raise ValueError(f"{version!r} is not a version")
    parts = [*re.findall(r"\d+|[a-z]+", found.group(2) + found.group(3)), ""]
    return (int(found.group(1) or 0), [(6, int(part)) if part.isdigit() else (MARKS[part], 0) for part in parts])


def read_requirements(root: Path = ROOT) -> list:
    """(name, pinned version, oldest supported version or None, whether helpers needs it) for each requirement.

    Reads lines `name==version` of requirements.txt and strings "name>=version" of pyproject.toml, which is all that
    these files use; Python 3.10 has no reader for TOML.
    """
    project = (root / "pyproject.toml").read_text("utf-8")
    core = (re.findall(r"^dependencies\s*=\s*\[(.*?)^\]", project, re.M | re.S) or [""])[0]
    oldest = dict(re.findall(r"[\"']([\w.-]+)\s*>=\s*([^\"',;\s]+)", project))
    pins = re.findall(r"^([\w.-]+)\s*==\s*([^\s;#]+)", (root / "requirements.txt").read_text("utf-8"), re.M)
    return [(name, pin, oldest.get(name), bool(re.search(rf"[\"']{re.escape(name)}\b", core))) for name, pin in pins]


def installed_version(name: str) -> "str | None":
    """The version of a package in this environment, None if it is missing, "" if its metadata is damaged.

    This folder does not count: it holds the sources of helpers and perhaps their metadata, installed or not.
    """
    from importlib import metadata

    path = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]
    found = next(iter(metadata.distributions(name=name, path=path)), None)
    try:
        return None if found is None else str(found.version or "")
    except Exception:
        return ""


def judge_package(name: str, installed: "str | None", pin: str, oldest: "str | None", optional: bool = False) -> dict:
    """How an installed version compares with the pin, and with the oldest that is supported (else the pin).

    `optional` turns what would be a problem into a warning.
    """
    wrong, oldest = "warning" if optional else "problem", oldest or pin
    fix = command("-m", "pip", "install", f"{name}=={pin}")
    facts = {"installed": installed or None, "pin": pin, "oldest": oldest}
    if installed is None:
        return item(name, wrong, f"missing, {pin} is expected", fix, state="missing", **facts)
    try:
        key = version_key(installed)
    except ValueError:
        text = f"damaged, its version reads {installed!r}"
        return item(name, wrong, text, fix + " --force-reinstall", state="damaged", **facts)
    if key < version_key(oldest):
        return item(name, wrong, f"{installed} is too old, at least {oldest} is needed", fix, state="too old", **facts)
    if key > version_key(pin):
        text = f"{installed} is newer than tested ({pin})"
        return item(name, "warning", text, fix, state="newer than tested", **facts)
    return item(name, "ok", installed, state="right", **facts)


def check_packages(root: Path = ROOT, find=installed_version) -> list:
    """Every requirement, and helpers itself. In Colab only what helpers needs is a must."""
    try:
        requirements = read_requirements(root)
    except OSError as error:
        return [
            item("requirements", "problem", f"{error.filename} is missing", "get the whole course again (git clone)")
        ]
    rows = [judge_package(name, find(name), pin, old, in_colab() and not core) for name, pin, old, core in requirements]
    ours, fix = find("llm-course-helpers"), command("-m", "pip", "install", "-e", str(root))
    state = {"installed": ours, "pin": None, "oldest": None, "state": "right" if ours else "missing"}
    if ours:
        return [*rows, item("helpers", "ok", ours, **state)]
    return [*rows, item("helpers", "problem", "missing, the course's own package", fix, **state)]


# torch, the devices, and whether they compute correctly


def bfloat16(device: str) -> "bool | None":
    """Whether a device computes in bfloat16 itself; None where helpers cannot be imported."""
    try:
        from helpers.settings import bfloat16_is_native
    except Exception:
        return None
    return bfloat16_is_native(device)


def trouble_with(device: str, there: bool) -> str:
    """Why notebooks will not run on a device; "" if they will. `there` decides where helpers cannot be imported."""
    try:
        from helpers.settings import get_device
    except Exception:
        return "" if there else f"{device!r} is set, but this machine does not have it"
    try:
        get_device(device)
        return ""
    except ValueError as error:
        return str(error)


BFLOAT16 = {True: "bfloat16 native", False: "bfloat16 slow (not native)", None: "bfloat16 unknown without helpers"}


def make_model(torch, vocab_size: int, context: int, width: int, layers: int):
    """The course's GPT without dropout, or one from PyTorch's layers where helpers cannot be imported; fixed seed."""
    torch.manual_seed(123)
    try:
        from helpers import GPTModel, gpt_config

        sizes = {"vocab_size": vocab_size, "context_length": context, "emb_dim": width, "n_layers": layers}
        return GPTModel(gpt_config(**sizes, n_heads=4, drop_rate=0.0))
    except ImportError:
        options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        blocks = [torch.nn.TransformerEncoderLayer(width, 4, 4 * width, **options) for _ in range(layers)]
        head = [torch.nn.LayerNorm(width), torch.nn.Linear(width, vocab_size, bias=False)]
        return torch.nn.Sequential(torch.nn.Embedding(vocab_size, width), *blocks, *head)


def run_tiny_model(device: str, dtype: str = "float32") -> dict:
    """Logits, gradients, and the loss after two steps of AdamW, each as a list of numbers."""
    import torch

    model = make_model(torch, vocab_size=96, context=32, width=64, layers=2).to(device, getattr(torch, dtype))
    ids = torch.randint(0, 96, (4, 33), generator=torch.Generator().manual_seed(123)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    results = {}
    for step in range(3):
        logits = model(ids[:, :-1])  # (4, 32, 96)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            tensors = {"gradient of " + name: weight.grad for name, weight in model.named_parameters()}
            tensors["logits"] = logits.detach()
            results = {name: tensor.cpu().flatten().tolist() for name, tensor in tensors.items()}
        optimizer.step()
    results["loss after two steps"] = [loss.item()]
    return results


def largest_difference(got: dict, expected: dict) -> "tuple[float, str]":
    """(difference, where): over all tensors, the largest |got - expected| as a share of its largest |expected|.

    Infinite where a tensor is missing, has another size, or holds a number that is not finite.
    """
    worst = (0.0, "nothing")
    for name, right in expected.items():
        numbers = got.get(name, [])
        if len(numbers) != len(right) or not all(math.isfinite(number) for number in [*numbers, *right]):
            return (math.inf, name)
        gap = max(abs(a - b) for a, b in zip(numbers, right))  # noqa: B905 - strict= is not in Python 3.6
        worst = max(worst, (gap / (max(abs(number) for number in right) or 1.0), name))
    return worst


def check_device(name: str, chosen: bool, runner=run_tiny_model, about: str = "", **facts) -> dict:
    """A device in float32 beside the CPU in float64. A fault of the CPU or of the `chosen` device is a problem."""
    wrong, fix = "problem" if chosen or name == "cpu" else "warning", "set COURSE_DEVICE=cpu to compute on the CPU"
    if name == "cpu":
        fix = command("-m", "pip", "install", "--force-reinstall", "torch")
    try:
        gap, where = largest_difference(runner(name, "float32"), runner("cpu", "float64"))
    except Exception as error:
        text = f"{about}CANNOT RUN a small model ({reason(error)})"
        return item(name, wrong, text, fix, computes="fails", difference=None, **facts)
    if gap <= TOLERANCE:
        text = f"{about}computes correctly (within {gap:.0e})"
        return item(name, "ok", text, computes="right", difference=gap, **facts)
    amount = f"by up to {100 * gap:.2g} %" if math.isfinite(gap) else "and is not finite"
    text = f"{about}COMPUTES WRONGLY: {where} differs from float64 on the CPU {amount}"
    return item(name, wrong, text, fix, computes="wrongly", difference=gap if math.isfinite(gap) else None, **facts)


def check_devices(torch, runner=run_tiny_model) -> list:
    """torch's build, then every device that it has."""
    cuda, apple = torch.cuda.is_available(), torch.backends.mps
    hip, mps = getattr(torch.version, "hip", None), bool(apple.is_available())
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {hip}" if hip else "CPU"
    facts = {"version": torch.__version__, "build": build, "mps_built": bool(apple.is_built()), "mps_available": mps}
    text = f"{torch.__version__}, {build} build" + (", with Apple's MPS" if apple.is_built() else "")
    rows = [item("torch", "ok", text, **facts)]
    used = os.environ.get("COURSE_DEVICE") or ("cuda" if cuda else "cpu")  # as helpers.get_device
    text = trouble_with(used, {"cpu": True, "cuda": cuda, "mps": mps}.get(used.split(":")[0], False))
    if text:
        rows.append(item("COURSE_DEVICE", "problem", text, "set COURSE_DEVICE=cpu, or unset it"))
    threads, native = torch.get_num_threads(), bfloat16("cpu")
    about = f"{threads} threads, {BFLOAT16[native]}, "
    rows.append(check_device("cpu", True, runner, about, threads=threads, bf16=native))
    for index in range(torch.cuda.device_count() if cuda else 0):
        card, native = torch.cuda.get_device_properties(index), bfloat16(f"cuda:{index}")
        facts = {"device_name": card.name, "memory_gib": round(card.total_memory / 2**30, 1), "bf16": native}
        about = f"{card.name}, {facts['memory_gib']} GiB, {BFLOAT16[native]}, "
        chosen = used == f"cuda:{index}" or (used == "cuda" and index == 0)
        rows.append(check_device(f"cuda:{index}", chosen, runner, about, **facts))
    if mps:
        rows.append(check_device("mps", used.startswith("mps"), runner, "used with COURSE_DEVICE=mps, "))
    if not cuda and not mps:
        text = "none; the quick profile needs none, but training in the book profile takes long without one"
        if shutil.which("nvidia-smi") and not torch.version.cuda:
            text = "the NVIDIA GPU is not used, because this torch is a CPU build (pytorch.org has the CUDA builds)"
        rows.append(item("GPU", "warning", text))
    return rows


# Jupyter


def kernel_command() -> "list[str]":
    """The command that starts python3, the kernel that the notebooks name. Raises whatever keeps Jupyter from it."""
    from jupyter_client.kernelspec import KernelSpecManager

    return KernelSpecManager().get_kernel_spec("python3").argv


def check_kernel(find=kernel_command) -> dict:
    if in_colab():
        return item("Kernel", "ok", "Colab brings its own", interpreter=None)
    fix = command("-m", "ipykernel", "install", "--sys-prefix", "--name", "python3")
    try:
        program = find()[0]
    except Exception as error:
        return item("Kernel", "problem", f"python3 is missing ({reason(error)})", fix, interpreter=None)
    if re.match(r"python(3(\.\d+)?)?(\.exe)?$", program):  # a bare name: Jupyter starts its own interpreter
        program = sys.executable
    here, there = Path(sys.executable), Path(program)
    # An environment's python is a link to the one it was made from, so the folders must be the same, too.
    if there.exists() and (here.parent.resolve(), here.resolve()) == (there.parent.resolve(), there.resolve()):
        return item("Kernel", "ok", "python3 starts this environment's Python", interpreter=program)
    return item("Kernel", "problem", f"python3 starts another Python ({program})", fix, interpreter=program)


def check_widgets(find=installed_version, folders: "list[str] | None" = None) -> dict:
    """JupyterLab's part of ipywidgets: the package, and its files where JupyterLab looks for extensions."""
    wrong, version = "warning" if in_colab() else "problem", find("jupyterlab_widgets")
    fix = command("-m", "pip", "install", "--force-reinstall", "jupyterlab_widgets")
    if not version:
        return item("Widgets", wrong, "jupyterlab_widgets is missing, sliders will not show", fix, version=None)
    if folders is None:
        with contextlib.suppress(ImportError):
            from jupyter_core.paths import jupyter_path

            folders = jupyter_path("labextensions")
    for folder in folders or []:
        with contextlib.suppress(OSError, ValueError, KeyError):
            home = Path(folder) / "@jupyter-widgets" / "jupyterlab-manager"
            package = json.loads((home / "package.json").read_text("utf-8"))
            if (home / package["jupyterlab"]["_build"]["load"]).exists():
                return item("Widgets", "ok", f"jupyterlab_widgets {version} and its extension", version=version)
    text = f"jupyterlab_widgets {version} lacks its JupyterLab extension, sliders will not show"
    return item("Widgets", wrong, text, fix, version=version)


# Data and weights


def check_bpe(folder: Path) -> dict:
    """GPT-2's two BPE files. tiktoken deletes a damaged one and downloads it anew, which fails offline."""
    fix = "git checkout -- helpers/assets/tiktoken"
    if folder != BPE_FOLDER:
        fix = "unset TIKTOKEN_CACHE_DIR, so that the files that come with the course are used"
    for name, sha256 in BPE_FILES.items():
        try:
            right, fault = hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256, "damaged"
        except OSError:
            right, fault = False, "missing"
        if not right:
            return item("GPT-2 BPE", "problem", f"{folder / name} is {fault}", fix, state=fault)
    text = "comes with the course" if folder == BPE_FOLDER else f"in {folder}"
    return item("GPT-2 BPE", "ok", text, state="right")


def check_data(profile: str) -> list:
    """What comes with the course must be here; what the book profile uses may be downloaded later."""
    rows = [check_bpe(Path(os.environ.get("TIKTOKEN_CACHE_DIR") or BPE_FOLDER))]
    if os.environ.get("COURSE_PROFILE", "") not in ("", *PROFILES):
        text = f"{os.environ['COURSE_PROFILE']!r} is not a profile"
        rows.append(item("COURSE_PROFILE", "problem", text, "set COURSE_PROFILE to quick or book, or unset it"))
    try:
        from helpers import pretrained, texts

        cache = texts.cache_dir()
    except Exception as error:
        return [*rows, item("Texts", "warning", f"cannot be looked for without helpers ({reason(error)})")]
    sets = {**texts.EMBEDDED_TEXTS, **texts.EMBEDDED_MESSAGES, **texts.EMBEDDED_INSTRUCTIONS}
    for name, path in [*sets.items(), ("course model", pretrained.COURSE_MODEL_FILE)]:
        if Path(path).exists():
            rows.append(item(name, "ok", "comes with the course", here=True))
        else:
            rows.append(item(name, "problem", f"{path} is missing", "git checkout -- helpers/assets", here=False))
    users = {}  # numbers of the notebooks by what they download
    for notebook in read_notebooks():
        for name in notebook.downloads:
            users.setdefault(name, []).append(notebook.number)
    for name, numbers in users.items():
        try:
            file = texts.BOOK_FILES.get(name)
            found = texts.find(file) if file else pretrained.find_gpt2(name[len("gpt2-") :])
            text = f"in {found}" if found else f"not on this machine; the book profile downloads it to {cache}"
            rows.append(item(name, "ok", f"{text} (notebooks {', '.join(numbers)})", here=found is not None))
        except Exception as error:  # COURSE_DATA_DIR is not a folder, or holds another file of that name
            wrong = "problem" if profile == "book" else "warning"
            rows.append(item(name, wrong, reason(error), "correct COURSE_DATA_DIR, or unset it", here=False))
    return rows


# How long it takes


def measure_speed(torch, seconds: float = 0.6) -> dict:
    """Best of many tries: float32 matrix products in GFLOP/s, and steps of a Python loop in millions per second."""
    matrix = torch.ones(1024, 1024)
    product = loop = math.inf
    started = time.perf_counter()
    while math.isinf(loop) or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        matrix @ matrix
        between = time.perf_counter()
        sum(number for number in range(100000))
        product, loop = min(product, between - before), min(loop, time.perf_counter() - between)
    return {"gflops": 2 * 1024**3 / product / 1e9, "python": 0.1 / loop}


def estimate_times(speed: "dict | None", notebooks: list) -> dict:
    """Minutes for each notebook in each profile; None if the speed was not measured."""
    rows = [{"notebook": notebook.file, "minutes": dict.fromkeys(PROFILES)} for notebook in notebooks]
    if speed is None:
        return {"basis": "nothing was measured", "speed": None, "notebooks": rows}
    products, python = (REFERENCE[key] / speed[key] for key in ("gflops", "python"))
    for row, notebook in zip(rows, notebooks):  # noqa: B905 - strict= is not in Python 3.6
        factor = notebook.arithmetic * products + (1 - notebook.arithmetic) * python
        quick, book = (round(seconds * factor / 60, 2) for seconds in notebook.seconds)
        row["minutes"] = {"quick": quick, "book": book}
    basis = (
        f"timed on {REFERENCE['name']}, then scaled by what was measured here: float32 matrix products "
        f"{1 / products:.2f} times as fast, plain Python {1 / python:.2f} times; without downloads"
    )
    return {"basis": basis, "speed": speed, "notebooks": rows}


# The report


def collect(profile: str, version_info: tuple = tuple(sys.version_info)) -> dict:
    """Everything, ready for JSON. On a Python that is too old, only what concerns it and the machine."""
    report = {"profile": profile, "colab": in_colab(), **{group: [] for group in GROUPS}}
    report.update(python=[check_python(version_info)], machine=check_machine(), times=estimate_times(None, []))
    if report["python"][0]["status"] != "problem":
        notebooks = read_notebooks()
        report.update(packages=check_packages(), jupyter=[check_kernel(), check_widgets()])
        report.update(times=estimate_times(None, notebooks))
        try:
            import torch

            report.update(devices=check_devices(torch), times=estimate_times(measure_speed(torch), notebooks))
        except Exception as error:  # a damaged build raises OSError, for instance
            fix = command("-m", "pip", "install", "-r", str(ROOT / "requirements.txt"))
            report["devices"] = [item("torch", "problem", f"does not work ({reason(error)})", fix)]
        report["data"] = check_data(profile)
    return conclude(report)


def conclude(report: dict) -> dict:
    """Add `ready`, `exit_status` and `summary`: one sentence, ready or what to do first."""
    rows = [row for group in GROUPS for row in report[group]]
    problems = [row for row in rows if row["status"] == "problem"]
    report.update(ready=not problems, exit_status=1 if problems else 0)
    if not problems:
        start = "`make lab` opens the course" if shutil.which("make") else command("-m", "jupyter", "lab", "notebooks")
        notes = sum(row["status"] == "warning" for row in rows)
        report["summary"] = f"Ready ({notes} to note): " + ("open a notebook" if report["colab"] else start)
        return report
    first, packages = problems[0], [row for row in report["packages"] if row["status"] == "problem"]
    what, fix = f"{first['name']} {first['text']}", first["fix"]
    if first in packages and len(packages) > 3:
        what = f"{len(packages)} of {len(report['packages'])} packages are missing or wrong"
        fix = "`make lab`, or " + command("-m", "pip", "install", "-r", str(ROOT / "requirements.txt"))
    home = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if first in [*report["python"], *packages] and home.exists() and Path(sys.prefix).resolve() != ROOT / ".venv":
        fix = f"use the course's own environment: {home} {ROOT / 'setup_check.py'}"
    report["summary"] = f"Not ready: {what}. First: {fix}"
    return report


def spell(minutes: float) -> str:
    """A time for people: "under 0.1 min", "2.4 min", "36 min", "2.5 h" or "26 h"."""
    if minutes < 0.1:
        return "under 0.1 min"
    number, unit = (minutes, "min") if minutes < 90 else (minutes / 60, "h")
    return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"


def render(report: dict, width: int) -> str:
    """The report for people; no line is longer than `width`, long words aside."""
    names = max(len(row["name"]) for group in GROUPS for row in report[group])
    few = sum(row["status"] == "problem" for group in GROUPS for row in report[group]) <= 5
    deep = 9 + names + 2 if width >= 60 else 9  # where a row's text goes on
    lines = []

    def add(head: str, text: str, indent: int) -> None:
        options = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": " " * indent}
        lines.extend(textwrap.wrap(text, max(width, 30), initial_indent=head, **options))

    for group in (group for group in GROUPS if report[group]):
        lines += ["", group.capitalize()] if lines else [group.capitalize()]
        rows = report[group]
        if group == "packages":  # those that are right share one row
            right = [row for row in rows if row["status"] == "ok"]
            rows = [row for row in rows if row["status"] != "ok"]
            listed = ", ".join(f"{row['name']} {row['text']}" for row in right)
            rows += [item(f"{len(right)} right", "ok", listed)] if right else []
        for row in rows:
            add(f"  {WORDS[row['status']]:<5}  {row['name']:<{names}}  ", row["text"], deep)
            if row["fix"] and row["status"] != "ok" and few:
                add(" " * deep, "fix: " + row["fix"], deep + 5)
    if report["times"]["notebooks"] and report["times"]["speed"]:
        lines += ["", "Time for each notebook, about"]
        longest = max(len(row["notebook"]) for row in report["times"]["notebooks"])
        for row in report["times"]["notebooks"]:
            times = ", ".join(f"{name} {spell(minutes)}" for name, minutes in row["minutes"].items())
            add(f"  {row['notebook']:<{longest}}  ", times, 4)
        add("  ", f"Basis: {report['times']['basis']}.", 2)
    lines.append("")
    add("", report["summary"], 0)
    return "\n".join(lines)


def main(arguments: "list[str] | None" = None) -> int:
    parser = argparse.ArgumentParser(description="Says whether this machine is ready for the course.")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    usual = os.environ.get("COURSE_PROFILE")
    parser.add_argument("--profile", choices=PROFILES, default=usual if usual in PROFILES else "quick")
    options = parser.parse_args(arguments)
    if sys.stderr is not None and sys.stderr.isatty():  # for people, whom half a minute of silence would worry
        print("Looking at Python, packages, devices and data: about ten seconds.", file=sys.stderr, flush=True)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = collect(options.profile)
    if hasattr(sys.stdout, "reconfigure"):  # a path may hold letters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    width = shutil.get_terminal_size((88, 24)).columns
    print(json.dumps(report, indent=2, allow_nan=False) if options.json else render(report, width))
    return report["exit_status"]


if __name__ == "__main__":
    sys.exit(main())
