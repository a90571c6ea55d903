"""What all tests share: one thread per process, how many processes and in which order, and "The Verdict"."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: files run side by side instead
os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported
# Read when a worker begins: it keeps freed memory, since a virtual machine is slow to hand out pages.
for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
    os.environ.setdefault(name, str(2**31 - 1))

pytest_plugins = ["tests.nbval_numbers", "tests.fault_table"]

ROOT = Path(__file__).parent
GIB_PER_WORKER = 3  # what a worker and its kernel hold: 3.8 GiB for a moment, where GPT-2 124M is trained; mostly half

# Seconds that test files take in `make test`; those of the notebooks are in helpers/course/chapters.py. A file that is
# missing here begins late, and may leave a core idle at the end of a run; nothing else depends on these numbers.
SECONDS = {
    "browser": 44,
    "published_numbers": 38,
    "browser_chat": 34,
    "distributed": 31,
    "site": 29,
    "nbval_numbers": 16,
    "book_profile": 14,
    "properties": 14,
    "benchmarks": 12,
    "peak_memory": 11,
    "smollm2": 10,
    "make_course_model": 10,
    "judges": 9,
    "pretrained": 9,
    "faults": 8,
    "tokenizers": 6,
    "training": 6,
    "settings": 6,
    "attention_variants": 5,
    "checks_memory_efficient_weights": 5,
    "spam_data": 5,
    "gguf": 4,
    "progress": 4,
    "setup_check": 4,
    "stop_button": 3,
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """For `-n auto`: a worker per core that this process may use, as far as the memory reaches."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**40
    return max(1, min(cores, round(memory / 2**30 / GIB_PER_WORKER)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one of them at the end."""
    from helpers.course.chapters import NOTEBOOKS

    seconds = {Path(notebook.file).name: notebook.seconds[0] for notebook in NOTEBOOKS}
    seconds |= {f"test_{name}.py": taken for name, taken in SECONDS.items()}
    items.sort(key=lambda item: -seconds.get(item.path.name, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have recorded under the name "line", such as times."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    properties = [pair for report in calls for pair in report.user_properties]
    for line in sorted(value for name, value in properties if name == "line"):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def the_verdict() -> str:
    """The text of the book's chapters 2 and 5 and of its appendix D."""
    return (ROOT / "tests" / "fixtures" / "the-verdict.txt").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def figures_closed() -> Iterator[None]:
    """Close what a test has drawn: pyplot keeps open figures, and at twenty it warns in whichever test comes next."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
