"""The small network and data set of appendix A, which learn in a blink and show every step of training.

They stand in a module, not only in a notebook, because programs that PyTorch starts beside the notebook (a loader's
workers, the processes of a distributed run) import what they need by name.
"""

from __future__ import annotations

import time

import torch
from torch.utils.data import DataLoader, Dataset

from .guards import evaluation_mode, guard


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


@guard(_has_batches)
def compute_accuracy(model: torch.nn.Module, dataloader: DataLoader) -> float:
    """The share of examples whose highest logit is that of their label (section A.7).

    The model is put into evaluation mode and back; batches are moved to where its parameters are. Raises ValueError
    if the loader has no batch.
    """
    device = next(model.parameters()).device
    correct, total = 0, 0
    with evaluation_mode(model), torch.no_grad():
        for features, labels in dataloader:
            predictions = model(features.to(device)).argmax(dim=1)  # (B,)
            correct += (predictions == labels.to(device)).sum().item()
            total += len(labels)
    return correct / total
