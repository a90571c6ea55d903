"""The notebooks in the `book` profile: the book's text from tests/fixtures instead of the network, and its numbers.

Chapters 1 and 2 read the text and are run. The others of the list are the same in both profiles, so that their
committed outputs, which nbval compares, are looked up instead.
"""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.nbval_numbers import kernel_environment
from tests.notebooks import ROOT, all_notebooks, code_cells, read

RUN = {
    "ch01_understanding_llms.ipynb": ["20,479 characters, 5,145 tokens", "bigram charts equal: True"],
    "ch02_text_data.ipynb": [
        "20,479 characters",
        "4,690 tokens",
        "1,130 of them different",
        "5,145",
        "[40, 367, 2885, 1464] -> 1807",
    ],
}
SAME_IN_BOTH = {
    "ch03_attention.ipynb": ["0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865", "0.3190, 0.4858"],
    "ch04_gpt.ipynb": ["163,009,536", "Hello, I am Featureiman Byeswickattribute argue"],
    "appendix_a_pytorch.ipynb": [
        "2,213 trainable parameters",
        "tensor([[-0.1262,  0.1080, -0.1792]], grad_fn",
        "epoch 2, batch 2: loss 0.13",
        "all differences are below a millionth: True",
    ],
    "appendix_b_references.ipynb": ["same as PyTorch's: True"],
}

# Chapters whose book profile takes too long for a test.
EXEMPT = {
    "ch05_pretraining.ipynb": "trains 124 million parameters; test_published_numbers.py has the first losses",
    "ch06_classification.ipynb": "fine-tunes on 1,045 messages; test_classification.py has the published counts",
    "ch07_instructions.ipynb": "fine-tunes 355 million parameters; test_instructions.py has the published split",
    "appendix_c_solutions.ipynb": "reads the weights of GPT-2 for exercise 5.5; the chapters have the numbers",
    "appendix_d_training_loop.ipynb": "trains 124 million parameters; test_published_numbers.py has the first losses",
    "appendix_e_lora.ipynb": "fine-tunes 124 million parameters five times",
}


def printed(nb: nbformat.NotebookNode) -> str:
    """All that a notebook prints, and the last values of its cells."""
    outputs = [output for cell in code_cells(nb) for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_every_chapter_has_expectations():
    chapters = [path.name for path in all_notebooks() if path.parent.name == "notebooks"]
    assert sorted([*RUN, *SAME_IN_BOTH, *EXEMPT]) == sorted(chapters)


@pytest.mark.parametrize("name", RUN)
def test_the_numbers_of_the_book_come_out(name: str, monkeypatch: pytest.MonkeyPatch):
    nb = read(ROOT / "notebooks" / name)
    with kernel_environment():
        monkeypatch.setenv("COURSE_PROFILE", "book")
        monkeypatch.setenv("COURSE_DATA_DIR", str(ROOT / "tests" / "fixtures"))
        NotebookClient(
            nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": ROOT / "notebooks"}}
        ).execute()
    for expected in RUN[name]:
        assert expected in printed(nb)
    assert [output for cell in code_cells(nb) for output in cell.outputs if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", SAME_IN_BOTH)
def test_what_is_the_same_in_both_profiles(name: str):
    nb = read(ROOT / "notebooks" / name)
    uses = [cell.source for cell in code_cells(nb) if "profile" in cell.source]
    assert len(uses) == 1 and uses[0].count("profile.") == uses[0].count("{profile.name}") == 1
    for expected in SAME_IN_BOTH[name]:
        assert expected in printed(nb)
