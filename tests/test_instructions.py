"""Instruction fine-tuning: prompts, batches and masks, losses, answers, files, and what bad input is told."""

from __future__ import annotations

import json
import os
import warnings

import pytest
import torch
from torch.utils.data import DataLoader

import helpers.files
from helpers import calc_loss_batch, generate, get_tokenizer, load_instructions, texts, training_steps
from helpers.instructions import (
    ALPACA,
    PHI3,
    InstructionDataset,
    answer_entries,
    calc_loss_batch_labels,
    calc_loss_per_token,
    check_entries,
    custom_collate_fn,
    extract_response,
    format_input,
    masked_collate_fn,
    save_responses,
    split_entries,
)
from tests.tiny import CPU, lively_model, tiny_model

WITH = {"instruction": "Make it plural.", "input": "mouse", "output": "Mice"}
WITHOUT = {"instruction": "Name a red fruit.", "input": "", "output": "A cherry"}


class Bytes:
    """A tokenizer of the tiny model's 97 ids: one for each character; 96 is the end."""

    def encode(self, text):
        return [ord(letter) % 96 for letter in text]

    def decode(self, ids):
        return "".join(chr(33 + token) for token in ids)


# Prompts


def test_alpaca_as_published():
    frame = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    assert format_input(WITHOUT) == frame + "\n\n### Instruction:\nName a red fruit."
    assert format_input(WITH) == frame + "\n\n### Instruction:\nMake it plural.\n\n### Input:\nmouse"
    assert ALPACA.prompt(WITHOUT) == format_input(WITHOUT) + "\n\n### Response:\n"


def test_phi3():
    assert PHI3.prompt(WITH) == "<|user|>\nMake it plural.\nmouse\n\n<|assistant|>\n"
    assert PHI3.prompt(WITHOUT) == "<|user|>\nName a red fruit.\n\n<|assistant|>\n"


@pytest.mark.parametrize("style", [ALPACA, PHI3], ids=lambda style: style.name)
def test_tokens_are_those_of_the_whole_text(style):
    tokenizer, data = get_tokenizer("gpt2"), load_instructions("instructions")
    dataset = InstructionDataset(data, tokenizer, style)
    whole = [tokenizer.encode(style.prompt(entry) + entry["output"]) for entry in data]
    assert dataset.encoded_texts == whole
    assert len(dataset) == len(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "no entry"),
        ([WITH, {"instruction": "x", "output": "y"}], r"data\[1\] has no 'input'"),
        ([{"instruction": "x", "input": ""}], r"data\[0\] has no 'output'"),
        ([{**WITH, "output": 3}], "is a int, not a string"),
        ([{**WITH, "output": " "}], r"\['output'\] is empty"),
        ([{**WITH, "instruction": ""}], r"\['instruction'\] is empty"),
        (["text"], "is a str, not a dictionary"),
    ],
)
def test_entries_that_lack_something(data, words):
    with pytest.raises(ValueError, match=words):
        check_entries(data)
    with pytest.raises(ValueError, match=words):
        InstructionDataset(data, Bytes())


def test_split():
    parts = split_entries(range(1100))
    assert [len(part) for part in parts] == [935, 110, 55]
    assert [*parts[0], *parts[1], *parts[2]] == list(range(1100))
    for fractions in ((0.9, 0.2), (-0.1, 0.5), (0.5, -0.1)):
        with pytest.raises(ValueError, match="sum at most 1"):
            split_entries(range(10), *fractions)


def test_the_books_split(monkeypatch):
    monkeypatch.setenv("COURSE_DATA_DIR", os.environ.get("COURSE_DATA_DIR", "../shared/data"))
    try:
        there = texts.find(texts.BOOK_FILES["instruction-data"])
    except ValueError:
        there = None
    if there is None:
        pytest.skip("the book's instruction data is not here")
    data = load_instructions("instruction-data")
    check_entries(data)
    assert [len(part) for part in split_entries(data)] == [935, 110, 55]


# Batches


def slow_collate(batch, pad, ignore):
    """As the book describes it: add an end, pad to the longest, move on by one, keep the first end only."""
    longest = max(len(ids) + 1 for ids in batch)
    inputs, targets = [], []
    for ids in batch:
        padded = [*ids, *[pad] * (longest - len(ids))]
        row = padded[1:]
        ends = [place for place, token in enumerate(row) if token == pad]
        for place in ends[1:]:
            row[place] = ignore
        inputs.append(padded[:-1])
        targets.append(row)
    return inputs, targets


def test_collate_published_example():
    inputs, targets = custom_collate_fn([[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]])
    assert inputs.tolist() == [[0, 1, 2, 3, 4], [5, 6, 50256, 50256, 50256], [7, 8, 9, 50256, 50256]]
    assert targets.tolist() == [[1, 2, 3, 4, 50256], [6, 50256, -100, -100, -100], [8, 9, 50256, -100, -100]]


def test_collate_against_a_slow_loop():
    generator = torch.Generator().manual_seed(7)
    for _ in range(10):
        lengths = torch.randint(1, 9, (5,), generator=generator).tolist()
        batch = [torch.randint(0, 90, (length,), generator=generator).tolist() for length in lengths]
        inputs, targets = custom_collate_fn(batch, pad_token_id=96, ignore_index=-1)
        assert (inputs.tolist(), targets.tolist()) == slow_collate(batch, 96, -1)
        assert inputs.dtype == targets.dtype == torch.int64
        short = custom_collate_fn(batch, pad_token_id=96, ignore_index=-1, allowed_max_length=3)
        assert torch.equal(short[0], inputs[:, :3])
        assert torch.equal(short[1], targets[:, :3])


def test_mask():
    inputs, targets = masked_collate_fn([([1, 2, 3, 4, 5], 3), ([6, 7], 1)], pad_token_id=96)
    assert inputs.tolist() == [[1, 2, 3, 4, 5], [6, 7, 96, 96, 96]]
    assert targets.tolist() == [[-100, -100, 4, 5, 96], [7, 96, -100, -100, -100]]


def test_bad_batches():
    for batch in ([], [[1], []]):
        with pytest.raises(ValueError, match="no entry, or one without tokens"):
            custom_collate_fn(batch)
    with pytest.raises(ValueError, match="allowed_max_length=0"):
        custom_collate_fn([[1]], allowed_max_length=0)
    with pytest.raises(ValueError, match="cut off"):
        masked_collate_fn([([1, 2, 3, 4], 3)], allowed_max_length=2)


def test_tensors_of_ids():
    rows = [[1, 2, 3], [4, 5], [6]]
    expected = custom_collate_fn(rows, pad_token_id=96)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensors = custom_collate_fn([torch.tensor(ids) for ids in rows], pad_token_id=96)
        pairs = masked_collate_fn([(torch.tensor(ids), 1) for ids in rows], pad_token_id=96)
    for inputs, targets in (tensors, pairs):
        assert torch.equal(inputs, expected[0]) and torch.equal(targets, expected[1])
    with pytest.raises(ValueError, match="no entry, or one without tokens"):
        custom_collate_fn([torch.tensor([1]), torch.tensor([], dtype=torch.int64)])


@pytest.mark.parametrize("entries", [[WITH], [WITH, WITHOUT]])
def test_prompt_lengths_go_with_the_masked_collate_function(entries):
    plain, pairs = (InstructionDataset(entries, Bytes(), with_prompt_lengths=masked) for masked in (False, True))
    with pytest.raises(ValueError, match="with_prompt_lengths=True: masked_collate_fn takes these"):
        custom_collate_fn(list(pairs))
    for batch in (list(plain), [[1, 2], [3, 4]], [torch.tensor([1, 2])]):
        with pytest.raises(ValueError, match="without a prompt length: make InstructionDataset with_prompt_lengths"):
            masked_collate_fn(batch)


# Losses


def entries_loader(batch_size=2, masked=True):
    data = [WITH, WITHOUT, {"instruction": "b", "input": "", "output": "Yes, it is."}]
    style = PHI3.__class__("short", lambda entry: entry["instruction"][:3], ">")
    dataset = InstructionDataset(data, Bytes(), style, with_prompt_lengths=masked)
    collate = masked_collate_fn if masked else custom_collate_fn
    return DataLoader(dataset, batch_size, collate_fn=lambda batch: collate(batch, pad_token_id=96))


def test_loss_where_there_are_labels_is_the_loss():
    model = tiny_model()
    for inputs, targets in entries_loader():
        ours, theirs = (loss(inputs, targets, model, CPU) for loss in (calc_loss_batch_labels, calc_loss_batch))
        assert torch.allclose(ours, theirs)
        ours.backward()
        gradient = model.trf_blocks[0].ff.layers[0].weight.grad.clone()
        model.zero_grad()
        theirs.backward()
        assert torch.allclose(gradient, model.trf_blocks[0].ff.layers[0].weight.grad, atol=1e-6)
        model.zero_grad()


def test_no_label_at_all_is_an_error_and_not_nan():
    inputs = torch.ones((2, 4), dtype=torch.int64)
    with pytest.raises(ValueError, match="all 8 targets are -100"):
        calc_loss_batch_labels(inputs, torch.full((2, 4), -100), tiny_model(), CPU)
    with pytest.raises(ValueError, match="no batch"):
        calc_loss_per_token([], tiny_model(), CPU)


def test_loss_per_token_does_not_depend_on_the_batches():
    model = lively_model().train()
    one, two = (calc_loss_per_token(entries_loader(size), model, CPU) for size in (1, 2))
    assert one == pytest.approx(two, rel=1e-5)
    assert model.training
    unweighted = [calc_loss_batch(*batch, model.eval(), CPU).item() for batch in entries_loader(2)]
    assert one != pytest.approx(sum(unweighted) / 2, rel=1e-4)


def test_training_learns_the_answers():
    model, loader = tiny_model(), entries_loader()
    before = calc_loss_per_token(loader, model, CPU)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in training_steps(model, loader, optimizer, CPU, 20, loss_function=calc_loss_batch_labels):
        pass
    assert calc_loss_per_token(loader, model, CPU) < before / 4


# Answers


def test_extract_response():
    prompt = PHI3.prompt(WITH)
    assert extract_response(prompt + " Mice\n<|endoftext|><|endoftext|>", prompt) == "Mice"
    tricky = PHI3.prompt({"instruction": "Repeat: \n\n<|assistant|>\nno", "input": ""})
    assert extract_response(tricky + "no", tricky) == "no"
    assert extract_response(tricky + "no\n\n<|assistant|>\nyes", tricky) == "no\n\n<|assistant|>\nyes"
    with pytest.raises(ValueError, match="does not begin"):
        extract_response("Mice", prompt)


def test_answers_together_are_those_alone():
    tokenizer, style = Bytes(), PHI3.__class__("short", lambda entry: entry["instruction"], ">")
    entries = [{"instruction": text} for text in ("abcdef", "x", "qrs", "hello")]
    ended = 0
    for seed in range(4):
        model = lively_model(seed)
        alone = []
        for entry in entries:
            ids = torch.tensor([tokenizer.encode(style.prompt(entry))])
            first = generate(model, ids, 6, 16)[0, ids.shape[1] :].tolist()
            eos = first[2] if seed else 96  # a token that does come
            cut = first[: first.index(eos)] if eos in first else first
            ended += len(cut) < len(first)
            alone.append(tokenizer.decode(cut).strip())
            [got] = answer_entries(model, [entry], tokenizer, 16, 6, style, eos_id=eos)
            assert got == alone[-1]
        if not seed:
            for size in (1, 3, 4):
                assert answer_entries(model, entries, tokenizer, 16, 6, style, batch_size=size, eos_id=96) == alone
        assert not model.training
    assert ended > 6
    with pytest.raises(ValueError, match=r"entries\[1\] has 17 tokens"):
        answer_entries(model, [entries[0], {"instruction": "y" * 16}], tokenizer, 16, 6, style)


def test_save_responses(tmp_path, monkeypatch):
    file = tmp_path / "answers.json"
    save_responses([WITH, WITHOUT], ["Mice", "Äpfel"], file)
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert rows == [{**WITH, "model_response": "Mice"}, {**WITHOUT, "model_response": "Äpfel"}]
    with pytest.raises(ValueError, match="2 entries and 1 responses"):
        save_responses([WITH, WITHOUT], ["Mice"], file)

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(helpers.files.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        save_responses([WITH], ["other"], file)
    assert json.loads(file.read_text(encoding="utf-8")) == rows
