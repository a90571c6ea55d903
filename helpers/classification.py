"""Fine-tuning a GPT to sort texts into classes, such as spam and not spam (chapter 6).

The classifier is a `GPTModel` whose output layer has been replaced by one with a row per class. It still answers at
every position; `read_at` says at which one the answer is read. -1, the default, is the book's choice: the last
position, padding or not. `last_real_token` finds the last token before the padding, so that the answer does not depend
on how much padding there is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from .files import existing_file, first_line
from .guards import adapt, check_numbers, evaluation_mode, guard
from .stop_button import interruptible
from .tokenizers import takes_tokenizer
from .training import Progress, WithContext, evaluated_steps

ReadAt = int | Callable[[torch.Tensor], torch.Tensor]


def _check_messages(df: pd.DataFrame) -> None:
    if not {"Label", "Text"} <= set(df.columns):
        raise ValueError(f"df has the columns {list(df.columns)}; Label and Text are expected")
    if not df["Label"].isin(["ham", "spam"]).all():
        raise ValueError("df has labels other than ham and spam")
    ham, spam = ((df["Label"] == label).sum() for label in ("ham", "spam"))
    if not 0 < spam <= ham:
        raise ValueError(f"df has {ham} ham and {spam} spam: there must be spam, and at least as much ham")


@guard(_check_messages)
def create_balanced_dataset(df: pd.DataFrame) -> pd.DataFrame:
    """All spam and as many messages of ham, drawn with random_state=123 (section 6.2).

    `df` has the columns Label ("ham" or "spam") and Text. Raises ValueError if it has not, if another label occurs, or
    if there is no spam or less ham than spam.
    """
    ham, spam = df[df["Label"] == "ham"], df[df["Label"] == "spam"]
    return pd.concat([ham.sample(len(spam), random_state=123), spam])


def _check_fractions(train_frac: float, validation_frac: float) -> None:
    if train_frac != train_frac or validation_frac != validation_frac:  # NaN is neither too small nor too large
        raise ValueError(f"train_frac={train_frac}, validation_frac={validation_frac}: numbers are expected")
    if train_frac < 0 or validation_frac < 0 or train_frac + validation_frac > 1:
        raise ValueError(f"train_frac={train_frac}, validation_frac={validation_frac}: not negative, sum at most 1")


@guard(_check_fractions)
def random_split(
    df: pd.DataFrame, train_frac: float, validation_frac: float
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Training, validation and test part of a data frame, shuffled with random_state=123 (section 6.2).

    The test part is what the two fractions leave. Raises ValueError if they are negative or sum to more than 1.
    """
    df = df.sample(frac=1, random_state=123).reset_index(drop=True)
    train_end = int(len(df) * train_frac)
    validation_end = train_end + int(len(df) * validation_frac)
    return df[:train_end], df[train_end:validation_end], df[validation_end:]


def read_messages(csv_file: Path | str) -> pd.DataFrame:
    """The rows of a CSV file with the columns Label (0 or 1) and Text, read as pandas does, and checked (section 6.3).

    Every text stays a string, "NA" and "3.50" too; a carriage return within a text does not end its row. Raises
    ValueError, with the row, for a missing column, a label other than 0 and 1, or an empty text.
    """
    try:
        content = existing_file(csv_file).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ValueError(f"{csv_file} is not text in UTF-8") from None
    if "\0" in content:  # where pandas would cut a text off
        raise ValueError(f"{csv_file} holds the character NUL: it is no text, or damaged")
    try:
        data = pd.read_csv(StringIO(content), dtype={"Text": str}, keep_default_na=False, lineterminator="\n")
    except ValueError as error:  # pandas' own errors are of this kind
        raise ValueError(f"{csv_file} cannot be read as a table ({first_line(error)})") from None
    missing = [column for column in ("Label", "Text") if column not in data.columns]
    if missing or data.empty:
        raise ValueError(f"{csv_file} has no {missing[0] + ' column' if missing else 'rows'}")
    wrong_label, empty = ~data["Label"].isin([0, 1]), data["Text"] == ""
    for wrong, what in ((wrong_label, "a label other than 0 and 1"), (empty, "an empty text")):
        if wrong.any():
            raise ValueError(f"row {int(wrong.to_numpy().argmax())} of {csv_file} has {what}")
    return data


def _check_max_length(max_length: int | None) -> None:
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length={max_length} must be at least 1")


class SpamDataset(Dataset):
    """Messages as rows of `max_length` token ids, with their labels (section 6.3).

    `csv_file` has the columns Label (0 or 1) and Text. Longer messages are cut off, shorter ones filled up with
    `pad_token_id`; without `max_length`, the longest message decides. Each item is (ids, label): int64 (T,) and ().

    Raises ValueError as `read_messages`, and for a `max_length` below 1.
    """

    @guard(_check_max_length)
    @takes_tokenizer
    def __init__(self, csv_file: Path | str, tokenizer: Any, max_length: int | None = None, pad_token_id: int = 50256):
        self.data = read_messages(csv_file)
        encoded = [tokenizer.encode(text) for text in self.data["Text"]]
        self.max_length = max_length or max(len(ids) for ids in encoded)
        self.encoded_texts = [ids[: self.max_length] + [pad_token_id] * (self.max_length - len(ids)) for ids in encoded]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor(self.encoded_texts[index])
        return ids, torch.tensor(int(self.data["Label"][index]))

    def __len__(self) -> int:
        return len(self.data)


def last_real_token(input_batch: torch.Tensor, pad_token_id: int = 50256) -> torch.Tensor:
    """The position of each row's last token that is not padding: int64 (B, T) to (B,); 0 if all is padding.

    Beyond the book. A causal model has seen the whole text there and none of the padding after it.
    """
    positions = torch.arange(input_batch.shape[1], device=input_batch.device)  # (T,)
    return (positions * (input_batch != pad_token_id)).amax(dim=1)


def class_logits(
    input_batch: torch.Tensor, model: torch.nn.Module, device: torch.device, read_at: ReadAt = -1
) -> torch.Tensor:
    """The classifier's scores for each class: int64 (B, T) to (B, classes) (section 6.5).

    `read_at` is a position for all rows, or a function such as `last_real_token` that finds one for each.
    """
    input_batch = input_batch.to(device)
    logits = model(input_batch)  # (B, T, classes)
    if not callable(read_at):
        return logits[:, read_at]
    return logits[torch.arange(len(logits), device=device), read_at(input_batch)]


def _check_labels(target_batch: torch.Tensor, classes: int) -> None:
    """-100 as a label would be left out of the loss without a word, and a GPU reports others in a way hard to read."""
    if target_batch.min() < 0 or target_batch.max() >= classes:
        wrong = target_batch.min() if target_batch.min() < 0 else target_batch.max()
        raise ValueError(f"target_batch has the label {wrong}; the model has the classes 0 to {classes - 1}")


class _WithNumbers(WithContext):
    """A `WithContext` whose logits must not be NaN: the first class would win in silence."""

    def forward(self, in_idx: torch.Tensor) -> torch.Tensor:
        return check_numbers(super().forward(in_idx))


def expects_labels(loss_function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A decorator: labels that are not classes raise ValueError as soon as the model has said how many there are."""

    @wraps(loss_function)
    def guarded(input_batch, target_batch, model, *arguments, **options):
        def checked(ids: torch.Tensor) -> torch.Tensor:
            logits = model(ids)
            _check_labels(target_batch, logits.shape[-1])
            return logits

        return loss_function(input_batch, target_batch, checked, *arguments, **options)

    return guarded


@expects_labels
def calc_loss_batch_classes(
    input_batch: torch.Tensor,
    target_batch: torch.Tensor,
    model: torch.nn.Module,
    device: torch.device,
    read_at: ReadAt = -1,
) -> torch.Tensor:
    """Mean cross-entropy of a batch of texts (B, T) and their classes (B,), as a scalar (section 6.6).

    The book calls it calc_loss_batch, as in chapter 5. Raises ValueError for a label that is not a class.
    """
    logits = class_logits(input_batch, model, device, read_at)  # (B, classes)
    return F.cross_entropy(logits, target_batch.to(device))


def _check_batches(data_loader: DataLoader, num_batches: int | None) -> None:
    count = len(data_loader) if num_batches is None else min(num_batches, len(data_loader))
    if count < 1:
        raise ValueError(f"data_loader has {len(data_loader)} batches and num_batches={num_batches}: nothing to count")


@adapt("model", _WithNumbers)
@guard(_check_batches)
def calc_accuracy_loader(
    data_loader: DataLoader,
    model: torch.nn.Module,
    device: torch.device,
    num_batches: int | None = None,
    read_at: ReadAt = -1,
) -> float:
    """The share of right answers in the first `num_batches` batches (all, if None), from 0 to 1 (section 6.6).

    The model is put into evaluation mode for this. Raises ValueError if there is no batch, or if logits are NaN.
    """
    right, total = 0, 0
    with evaluation_mode(model), torch.no_grad():
        for input_batch, target_batch in islice(data_loader, num_batches):
            predicted = class_logits(input_batch, model, device, read_at).argmax(dim=-1)  # (B,)
            right += (predicted == target_batch.to(device)).sum().item()
            total += len(target_batch)
    return right / total


def counts_rows(function: Callable) -> Callable:
    """A decorator: `examples_seen` is the number of rows in the batches, which a collate function may have padded."""

    @wraps(function)
    def counting(*arguments, **options):
        progress = options["progress"] = options.get("progress") or Progress()
        *history, _ = function(*arguments, **options)
        return *history, progress.rows_seen

    return counting


@counts_rows
def train_classifier_simple(
    model: torch.nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    num_epochs: int,
    eval_freq: int,
    eval_iter: int | None,
    read_at: ReadAt = -1,
    **options: Any,
) -> tuple[list[float], list[float], list[float], list[float], int]:
    """Train a classifier: losses every `eval_freq` updates, accuracies after each epoch (section 6.7).

    Both are taken over `eval_iter` batches. Returns training losses, validation losses, training accuracies,
    validation accuracies, and the number of examples seen. Interrupting ends the training and returns the results so
    far. `options` go to `training_steps`, such as fast=True.
    """
    loss_function = partial(calc_loss_batch_classes, read_at=read_at)
    train_losses, val_losses, train_accs, val_accs, examples_seen = [], [], [], [], 0
    steps = evaluated_steps(
        model, train_loader, val_loader, optimizer, device, num_epochs, eval_freq, eval_iter, loss_function, **options
    )
    with interruptible():
        for progress, losses in steps:
            row_length = len(train_loader.dataset[0][0])  # all rows have one length
            examples_seen = progress.tokens_seen // row_length
            if losses is not None:
                train_losses.append(losses[0])
                val_losses.append(losses[1])
            if progress.batch == 0:  # an epoch has ended
                for loader, accuracies in ((train_loader, train_accs), (val_loader, val_accs)):
                    accuracies.append(calc_accuracy_loader(loader, model, device, eval_iter, read_at))
                both = f"Training accuracy {train_accs[-1]:.2%}, Validation accuracy {val_accs[-1]:.2%}"
                print(f"Ep {progress.epoch_of_update}: {both}")
    return train_losses, val_losses, train_accs, val_accs, examples_seen


def _check_text(text: str, tokenizer: Any) -> None:
    if not tokenizer.encode(text):
        raise ValueError("text is empty: there is nothing to classify")


@adapt("model", _WithNumbers)
@guard(_check_max_length)
@takes_tokenizer
@guard(_check_text)
def classify_review(
    text: str,
    model: torch.nn.Module,
    tokenizer: Any,
    device: torch.device,
    max_length: int | None = None,
    pad_token_id: int = 50256,
    read_at: ReadAt = -1,
) -> str:
    """ "spam" or "not spam" (section 6.8).

    The text is cut to `max_length` tokens and to the model's context, and filled up with `pad_token_id` to
    `max_length`. A model that was trained with padding and is read at the last position needs the `max_length` of its
    training; without one, nothing is filled up. Raises ValueError for an empty text, a `max_length` below 1, a model
    that does not say its context length, or logits that are NaN.
    """
    ids = tokenizer.encode(text)
    length = min(max_length or len(ids), model.pos_emb.weight.shape[0])
    ids = ids[:length] + [pad_token_id] * (length - len(ids))
    with evaluation_mode(model), torch.no_grad():
        logits = class_logits(torch.tensor([ids]), model, device, read_at)  # (1, 2)
    return "spam" if logits.argmax(dim=-1).item() == 1 else "not spam"
