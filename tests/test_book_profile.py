"""The notebooks in the `book` profile, with the book's text from a folder instead of the network."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import create_dataloader_v1, get_profile, get_tokenizer, load_text, texts
from tests.notebooks import ROOT, all_notebooks

# The folder with the book's data, seen from the repository; without it these tests cannot say anything.
DATA = os.environ.get("COURSE_DATA_DIR", "../shared/data")

EXPECTED = {
    "ch01_understanding_llms.ipynb": ["20,479 characters, 5,145 tokens", "bigram charts equal: True"],
    "appendix_a_pytorch.ipynb": [
        "2,213 trainable parameters",
        "tensor([[-0.1262,  0.1080, -0.1792]], grad_fn",
        "epoch 2, batch 2: loss 0.13",
        "the same within rounding: True",
    ],
    "ch02_text_data.ipynb": [
        "20,479 characters",
        "4,690 tokens",
        "1,130 of them different",
        "5,145",
        "[40, 367, 2885, 1464] -> 1807",
    ],
    "ch03_attention.ipynb": ["0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865", "0.3190, 0.4858"],
    "ch04_gpt.ipynb": ["163,009,536", "Hello, I am Featureiman Byeswickattribute argue"],
    "appendix_b_references.ipynb": ["profile: book;", "same as PyTorch's: True"],
}


# Chapters whose book profile takes too long for a test; a slow test of the training loop has their first numbers.
EXEMPT = {
    "ch06_classification.ipynb": "fine-tunes on 1,045 messages; test_classification.py has the published counts",
    "ch05_pretraining.ipynb": "trains 124 million parameters for ten epochs: minutes on a processor",
    "ch07_instructions.ipynb": "fine-tunes 355 million parameters; test_instructions.py has the published split",
    "appendix_e_lora.ipynb": "fine-tunes 124 million parameters five times",
    "appendix_c_solutions.ipynb": "reads the weights of GPT-2 for exercise 5.5; the chapters have the numbers",
    "appendix_d_training_loop.ipynb": "trains 124 million parameters for fifteen epochs",
}


def printed(nb: nbformat.NotebookNode) -> str:
    outputs = [output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_every_notebook_has_expectations():
    chapters = [path.name for path in all_notebooks() if path.parent.name == "notebooks"]
    assert sorted([*EXPECTED, *EXEMPT]) == sorted(chapters)


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> str:
    """The book's profile and its text."""
    monkeypatch.setenv("COURSE_DATA_DIR", DATA)
    monkeypatch.setenv("COURSE_PROFILE", "book")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.chdir(ROOT)
    try:
        there = texts.find(texts.BOOK_FILES["the-verdict"])
    except ValueError:
        there = None
    if there is None:
        pytest.skip(f"the book's text is neither in {Path(DATA)} nor in the cache")
    return load_text(get_profile("quick").pretraining_text)


def test_the_text_and_its_rows(book: str):
    assert len(book) == 20_479
    assert len(get_tokenizer().encode(book)) == 5_145
    inputs, _ = next(iter(create_dataloader_v1(book, batch_size=4, max_length=2, stride=2, shuffle=False)))
    assert inputs.tolist() == [[40, 367], [2885, 1464], [1807, 3619], [402, 271]]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_books_numbers_come_out(name: str, book: str):
    nb = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    NotebookClient(
        nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": ROOT / "notebooks"}}
    ).execute()
    text = printed(nb)
    for expected in EXPECTED[name]:
        assert expected in text
    errors = [output for cell in nb.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
    assert errors == []
