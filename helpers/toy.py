"""The small network and data set of appendix A, which learn in a blink and show every step of training.

They stand in a module, not only in a notebook, because programs that PyTorch starts beside the notebook (a loader's
workers, the processes of a distributed run) import what they need by name.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from .guards import check_numbers, evaluation_mode, guard


class NeuralNetwork(torch.nn.Module):
    """Two hidden layers of 30 and 20 with ReLU: (B, num_inputs) to logits (B, num_outputs) (section A.5)."""

    def __init__(self, num_inputs: int, num_outputs: int):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(num_inputs, 30),
            torch.nn.ReLU(),
            torch.nn.Linear(30, 20),
            torch.nn.ReLU(),
            torch.nn.Linear(20, num_outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, num_inputs) to (B, num_outputs)."""
        return self.layers(x)


class ToyDataset(Dataset):
    """Features (N, D) and labels (N,), served one example at a time (section A.6).

    Raises ValueError if there are not as many labels as rows of features.
    """

    def __init__(self, X: torch.Tensor, y: torch.Tensor):
        if len(X) != len(y):
            raise ValueError(f"y has {len(y)} labels; {len(X)}, one per row of X, are expected")
        self.features = X
        self.labels = y

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.features[index], self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)


class SlowDataset(Dataset):
    """Another data set, each example of which takes `delay` seconds longer, as if it came from a slow disk."""

    def __init__(self, dataset: Dataset, delay: float = 0.01):
        self.dataset = dataset
        self.delay = delay

    def __getitem__(self, index: int):
        time.sleep(self.delay)
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)


def _has_batches(dataloader: DataLoader) -> None:
    if len(dataloader) == 0:
        raise ValueError("dataloader has no batch; is the data set empty, or smaller than one batch with drop_last?")


class _Checked(torch.nn.Module):
    """A model that raises ValueError where its logits cannot be compared with the labels of the batch at hand."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def batches(self, dataloader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of a loader, whose labels are kept for `forward`."""
        for features, self.labels in dataloader:
            yield features, self.labels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = check_numbers(self.model(x))
        if logits.ndim != 2:
            raise ValueError(f"model gives logits of the shape {tuple(logits.shape)}: (B, classes) is expected")
        if self.labels.shape != logits.shape[:1]:
            shape = tuple(self.labels.shape)
            raise ValueError(f"dataloader gives labels of the shape {shape}: ({len(logits)},), one each, is expected")
        last = logits.shape[1] - 1
        wrong = self.labels[(self.labels < 0) | (self.labels > last)].tolist()
        if wrong:
            raise ValueError(f"dataloader gives the label {wrong[0]}; the model has the classes 0 to {last}")
        return logits


def expects_labels(function: Callable) -> Callable:
    """A decorator: logits and labels that cannot be compared raise ValueError instead of giving an accuracy."""

    @functools.wraps(function)
    def checking(model: torch.nn.Module, dataloader: DataLoader) -> float:
        checked = _Checked(model)
        return function(checked, checked.batches(dataloader))

    return checking


@guard(_has_batches)
@expects_labels
def compute_accuracy(model: torch.nn.Module, dataloader: DataLoader) -> float:
    """The share of examples whose highest logit is that of their label (section A.7).

    The model is put into evaluation mode and back; batches are moved to where its parameters are. Raises ValueError
    if the loader has no batch, if its labels are not (B,) or not classes of the model (a network with one output has
    one), and if logits are NaN.
    """
    device = next(model.parameters()).device
    correct, total = 0, 0
    with evaluation_mode(model), torch.no_grad():
        for features, labels in dataloader:
            predictions = model(features.to(device)).argmax(dim=1)  # (B,)
            correct += (predictions == labels.to(device)).sum().item()
            total += len(labels)
    return correct / total
