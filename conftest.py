"""What all tests share: how processes start, "The Verdict", and the order in which files run side by side."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it when it is imported; files run side by side instead
os.environ.setdefault("TQDM_DISABLE", "1")  # tqdm reads it when it is imported

pytest_plugins = ["tests.nbval_numbers"]


@pytest.fixture(scope="session")
def the_verdict() -> str:
    """ "The Verdict" by Edith Wharton (1908), the text of the book's chapters 2 and 5 and its appendix D."""
    return (Path(__file__).parent / "tests" / "fixtures" / "the-verdict.txt").read_text(encoding="utf-8")
