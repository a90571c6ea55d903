"""Fine-tuning a GPT to follow instructions: prompts, batches, masks, answers (chapter 7).

An entry is a dictionary of three strings, "instruction", "input" (may be empty) and "output". A `PromptStyle` turns it
into the text that the model reads. Training is chapter 5's: a dataset and a collate function are all that is new.
The prompt and the answer are tokenized one after the other, so that the model is asked in exactly the tokens in which
it was taught; for answers that begin with a letter, a digit or a mark, that is what tokenizing the whole text gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from .files import write_text_whole
from .generation import generate_batch
from .guards import adapt, evaluation_mode, guard
from .speed.chosen import logits_at
from .tokenizers import END_OF_TEXT, takes_tokenizer

Entry = Mapping[str, str]


def format_input(entry: Entry) -> str:
    """The prompt of an entry in the style of Alpaca (Taori et al., 2023), up to its response (section 7.2)."""
    text = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    text += f"\n\n### Instruction:\n{entry['instruction']}"
    if entry["input"]:
        text += f"\n\n### Input:\n{entry['input']}"
    return text


def format_phi3(entry: Entry) -> str:
    """The prompt of an entry in the style of Phi-3 (Abdin et al., 2024), up to its response (exercise 7.1)."""
    text = f"<|user|>\n{entry['instruction']}"
    if entry["input"]:
        text += f"\n{entry['input']}"
    return text


@dataclass(frozen=True)
class PromptStyle:
    """How an entry becomes a text: the function that writes the request, and what stands before the response."""

    name: str
    request: Callable[[Entry], str]
    response: str

    def prompt(self, entry: Entry) -> str:
        """Everything that the model is given when it is asked: the request and what stands before the response."""
        return self.request(entry) + self.response

    @takes_tokenizer
    def encode(self, entry: Entry, tokenizer: Any, answer: str = "") -> list[int]:
        """The token ids of that, and of what is already written of the answer."""
        return tokenizer.encode(self.prompt(entry) + answer)


ALPACA = PromptStyle("Alpaca", format_input, "\n\n### Response:\n")
PHI3 = PromptStyle("Phi-3", format_phi3, "\n\n<|assistant|>\n")


def check_entries(
    data: Sequence[Entry],
    keys: Sequence[str] = ("instruction", "input", "output"),
    optional: Collection[str] = (),
    name: str = "data",
) -> None:
    """Raise ValueError, naming the place, unless `data` is a list of dictionaries with a text under each of `keys`.

    Only the input may be an empty text, and only `optional` keys may be missing. `name` is what the error calls `data`.
    """
    if not isinstance(data, Sequence) or isinstance(data, str | bytes):
        raise ValueError(
            f"{name} is a {type(data).__name__}: a list of dictionaries, one per entry, is expected "
            "(of a pandas table, table.to_dict('records'); of a Hugging Face data set, list(dataset))"
        )
    if not data:
        raise ValueError(f"{name} holds no entry")
    for number, entry in enumerate(data):
        if not isinstance(entry, Mapping):
            raise ValueError(f"{name}[{number}] is a {type(entry).__name__}, not a dictionary of strings")
        for key in keys:
            if key not in entry:
                if key in optional:
                    continue
                raise ValueError(f"{name}[{number}] has no {key!r}, only {', '.join(map(repr, entry)) or 'nothing'}")
            if not isinstance(entry[key], str):
                raise ValueError(f"{name}[{number}][{key!r}] is a {type(entry[key]).__name__}, not a string")
            if key != "input" and not entry[key].strip():
                raise ValueError(f"{name}[{number}][{key!r}] is empty")


def _check_fractions(train_frac: float, test_frac: float) -> None:
    if train_frac != train_frac or test_frac != test_frac:  # NaN is neither too small nor too large
        raise ValueError(f"train_frac={train_frac}, test_frac={test_frac}: numbers are expected")
    if train_frac < 0 or test_frac < 0 or train_frac + test_frac > 1:
        raise ValueError(f"train_frac={train_frac}, test_frac={test_frac}: not negative, sum at most 1")


@guard(_check_fractions)
def split_entries(
    data: Sequence[Entry], train_frac: float = 0.85, test_frac: float = 0.1
) -> tuple[Sequence[Entry], Sequence[Entry], Sequence[Entry]]:
    """Training, test and validation part by position; the validation part is what the fractions leave (section 7.2).

    Raises ValueError if the fractions are negative or sum to more than 1.
    """
    train_end = int(len(data) * train_frac)
    test_end = train_end + int(len(data) * test_frac)
    return data[:train_end], data[train_end:test_end], data[test_end:]


def _check_data(data: Sequence[Entry]) -> None:
    check_entries(data)


class InstructionDataset(Dataset):
    """Entries as lists of token ids, prompt and answer in one, without the end token (section 7.3).

    With `with_prompt_lengths`, each item is (ids, number of tokens in the prompt), as `masked_collate_fn` wants it.
    Raises ValueError as `check_entries`.
    """

    @guard(_check_data)
    @takes_tokenizer
    def __init__(
        self, data: Sequence[Entry], tokenizer: Any, style: PromptStyle = ALPACA, with_prompt_lengths: bool = False
    ):
        self.data = data
        prompts = [tokenizer.encode(style.prompt(entry)) for entry in data]
        answers = [tokenizer.encode(entry["output"]) for entry in data]
        pairs = zip(prompts, answers, strict=True)
        self.encoded_texts = [prompt + answer for prompt, answer in pairs]
        self.prompt_lengths = [len(prompt) for prompt in prompts]
        self.with_prompt_lengths = with_prompt_lengths

    def __getitem__(self, index: int) -> list[int] | tuple[list[int], int]:
        ids = self.encoded_texts[index]
        return (ids, self.prompt_lengths[index]) if self.with_prompt_lengths else ids

    def __len__(self) -> int:
        return len(self.data)


def _has_prompt_length(item: Any) -> bool:
    """Whether an item of a batch is (ids, prompt length), not ids alone."""
    return len(item) == 2 and bool(getattr(item[0], "ndim", isinstance(item[0], Sequence)))


def _check_batch(batch: Sequence[Sequence[int]], allowed_max_length: int | None) -> None:
    if not batch or not all(len(ids) for ids in batch):
        raise ValueError("batch holds no entry, or one without tokens")
    if any(map(_has_prompt_length, batch)):
        raise ValueError(
            "batch has pairs (ids, prompt length), as of an InstructionDataset made with_prompt_lengths=True: "
            "masked_collate_fn takes these, custom_collate_fn lists of ids"
        )
    if allowed_max_length is not None and allowed_max_length < 1:
        raise ValueError(f"allowed_max_length={allowed_max_length} must be at least 1")


def _as_lists(batch: Sequence[Sequence[int] | torch.Tensor]) -> list[Sequence[int]]:
    return [ids.tolist() if isinstance(ids, torch.Tensor) else ids for ids in batch]


@adapt("batch", _as_lists)
@guard(_check_batch)
def custom_collate_fn(
    batch: Sequence[Sequence[int]],
    pad_token_id: int = 50256,
    ignore_index: int = -100,
    allowed_max_length: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lists of token ids as inputs and targets, both int64 (B, T), T as long as the longest list (section 7.3).

    Tensors (T,) of ids will do as well.
    Targets are the inputs shifted by one, with `pad_token_id` once as the end of the text; the rest of a row is
    `ignore_index`, which the loss leaves out. Longer rows are cut to `allowed_max_length` tokens. Raises ValueError
    for no list, an empty one, one that has a prompt length beside it, or an `allowed_max_length` below 1.
    """
    longest = max(len(ids) for ids in batch)
    inputs = torch.full((len(batch), longest), pad_token_id)  # (B, T)
    targets = torch.full((len(batch), longest), ignore_index)  # (B, T)
    for row, ids in enumerate(batch):
        inputs[row, : len(ids)] = torch.tensor(ids)
        targets[row, : len(ids)] = torch.tensor([*ids[1:], pad_token_id])
    return inputs[:, :allowed_max_length].to(device), targets[:, :allowed_max_length].to(device)


def masked_collate_fn(
    batch: Sequence[tuple[Sequence[int], int]], ignore_index: int = -100, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """`custom_collate_fn` for (ids, prompt length), where only the answer and its end are targets (exercise 7.2).

    Raises ValueError if no target is left, as when `allowed_max_length` cuts all answers off: the loss would be NaN;
    and for a prompt length that is missing, below 1 or above the number of tokens.
    """
    if not all(map(_has_prompt_length, batch)):
        raise ValueError("batch has ids without a prompt length: make InstructionDataset with_prompt_lengths=True")
    for ids, prompt_length in batch:
        if not 1 <= prompt_length <= len(ids):
            raise ValueError(f"batch has a prompt length of {prompt_length} for {len(ids)} tokens: 1 to {len(ids)} fit")
    inputs, targets = custom_collate_fn([ids for ids, _ in batch], ignore_index=ignore_index, **options)
    for row, (_, prompt_length) in enumerate(batch):
        targets[row, : prompt_length - 1] = ignore_index  # the last token of the prompt predicts the answer's first
    if (targets == ignore_index).all():
        raise ValueError(f"no target is left in a batch of {len(batch)}: are the answers cut off?")
    return inputs, targets


def _check_targets(target_batch: torch.Tensor, ignore_index: int) -> None:
    if (target_batch == ignore_index).all():
        raise ValueError(f"all {target_batch.numel()} targets are {ignore_index}: there is nothing to learn from")


@guard(_check_targets)
def calc_loss_batch_labels(
    input_batch: torch.Tensor,
    target_batch: torch.Tensor,
    model: torch.nn.Module,
    device: torch.device,
    ignore_index: int = -100,
) -> torch.Tensor:
    """`calc_loss_batch` with the logits computed only where there is a target (see `logits_at`): faster, the same.

    Raises ValueError if all targets are `ignore_index`, where the mean would be NaN, or if a row exceeds the context.
    """
    targets = target_batch.to(device)  # (B, T)
    counted = targets != ignore_index  # (B, T)
    logits = logits_at(model, input_batch.to(device), counted)  # (N, vocab_size), N targets that count
    return F.cross_entropy(logits, targets[counted])


def calc_loss_per_token(data_loader: DataLoader, model: torch.nn.Module, device: torch.device) -> float:
    """The mean loss over all targets of a loader, in nats per token, whatever batch they are in (section 7.6).

    Raises ValueError if the loader has no target. The model is put into evaluation mode for this.
    """
    total, count = 0.0, 0
    with evaluation_mode(model), torch.no_grad():
        for input_batch, target_batch in data_loader:
            labels = int((target_batch != -100).sum())
            if labels == 0:  # a batch without a target adds nothing
                continue
            total += calc_loss_batch_labels(input_batch, target_batch, model, device).item() * labels
            count += labels
    if count == 0:
        raise ValueError("data_loader has no batch with a target: there is nothing to average")
    return total / count


def _check_prompt(generated_text: str, prompt: str) -> None:
    if not generated_text.startswith(prompt):
        raise ValueError(f"generated_text does not begin with the prompt {prompt[:60]!r}")


@guard(_check_prompt)
def extract_response(generated_text: str, prompt: str) -> str:
    """What the model wrote after its prompt, up to the end of the text (section 7.7).

    Raises ValueError if the text does not begin with the prompt.
    """
    return generated_text.removeprefix(prompt).split("<|endoftext|>")[0].strip()


@takes_tokenizer
def answer_entries(
    model: torch.nn.Module,
    entries: Sequence[Entry],
    tokenizer: Any,
    context_size: int,
    max_new_tokens: int = 50,
    style: PromptStyle = ALPACA,
    batch_size: int = 32,
    eos_id: int = END_OF_TEXT,
    **options: Any,
) -> list[str]:
    """The model's answers to entries, many at a time; each ends at its own end token (section 7.7).

    Entries need no output. `options` go to `generate_batch`, such as temperature. The model is put into evaluation
    mode for this. Raises ValueError for an entry without an instruction, for a prompt that leaves no room for an
    answer, for a batch_size below 1, and as `generate_batch`.
    """
    if len(entries) == 0:
        return []
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    check_entries(entries, ("instruction", "input"), optional=("input",), name="entries")
    prompts = [style.encode({"input": "", **entry}, tokenizer) for entry in entries]
    for number, prompt in enumerate(prompts):
        if len(prompt) >= context_size:
            raise ValueError(f"entries[{number}] has {len(prompt)} tokens as a prompt; the context has {context_size}")
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))  # alike in length, little padding
    responses = [""] * len(prompts)
    with evaluation_mode(model):
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = [prompts[number] for number in numbers]
            answers = generate_batch(model, batch, max_new_tokens, context_size, eos_id=eos_id, **options)
            for number, ids in zip(numbers, answers, strict=True):
                responses[number] = tokenizer.decode(ids).strip()
    return responses


def save_responses(entries: Sequence[Entry], responses: Sequence[str], path: Path | str) -> None:
    """Write entries as JSON, each with its answer under "model_response", whole or not at all (section 7.7).

    Raises ValueError if there are not as many answers as entries.
    """
    if len(entries) != len(responses):
        raise ValueError(f"there are {len(entries)} entries and {len(responses)} responses")
    rows = [{**entry, "model_response": response} for entry, response in zip(entries, responses, strict=True)]
    write_text_whole(path, json.dumps(rows, indent=4, ensure_ascii=False) + "\n")
