"""Appendix A's network, data set and accuracy, with its published numbers."""

import pickle
import time

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from helpers import NeuralNetwork, ToyDataset, compute_accuracy
from helpers.toy import SlowDataset

X = torch.tensor([[-1.2, 3.1], [-0.9, 2.9], [-0.5, 2.6], [2.3, -1.1], [2.7, -1.5]])
Y = torch.tensor([0, 0, 0, 1, 1])


class Constant(torch.nn.Module):
    """Gives class 1 the highest logit, and remembers in which mode it was asked."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor([0.0, 2.0, 1.0]))
        self.modes = []

    def forward(self, x):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.bias.expand(len(x), 3)


def trained():
    loader = DataLoader(ToyDataset(X, Y), batch_size=2, shuffle=True, drop_last=True)
    torch.manual_seed(123)
    model = NeuralNetwork(2, 2)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.5), []
    for _ in range(3):
        for features, labels in loader:
            loss = F.cross_entropy(model(features), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return model, losses


class TestNeuralNetwork:
    def test_parameters(self):
        assert sum(p.numel() for p in NeuralNetwork(50, 3).parameters()) == 2213
        assert sum(p.numel() for p in NeuralNetwork(2, 2).parameters()) == 752

    def test_published_numbers(self):
        torch.manual_seed(123)
        model = NeuralNetwork(50, 3)
        assert model.layers[0].weight[0, :3].tolist() == pytest.approx([-0.0577, 0.0047, -0.0702], abs=5e-5)
        torch.manual_seed(123)
        logits = model(torch.rand((1, 50)))
        assert logits[0].tolist() == pytest.approx([-0.1262, 0.1080, -0.1792], abs=5e-5)
        assert torch.softmax(logits, dim=1)[0].tolist() == pytest.approx([0.3113, 0.3934, 0.2952], abs=5e-5)

    def test_against_products_of_matrices(self):
        model, x = NeuralNetwork(4, 3), torch.randn(6, 4)
        first, second, third = model.layers[0], model.layers[2], model.layers[4]
        hidden = (x @ first.weight.T + first.bias).relu()
        hidden = (hidden @ second.weight.T + second.bias).relu()
        torch.testing.assert_close(model(x), hidden @ third.weight.T + third.bias)

    def test_published_losses(self):
        model, losses = trained()
        assert [round(loss, 2) for loss in losses] == [0.75, 0.65, 0.44, 0.13, 0.03, 0.00]
        assert compute_accuracy(model, DataLoader(ToyDataset(X, Y), batch_size=2)) == 1.0


class TestToyDataset:
    def test_serves_examples(self):
        dataset = ToyDataset(X, Y)
        assert len(dataset) == 5
        features, label = dataset[3]
        assert torch.equal(features, X[3])
        assert label == 1

    def test_lengths_must_agree(self):
        with pytest.raises(ValueError, match="y has 4 labels; 5"):
            ToyDataset(X, Y[:4])

    def test_slow_data_set(self):
        dataset = SlowDataset(ToyDataset(X, Y), delay=0.02)
        start = time.perf_counter()
        assert torch.equal(dataset[2][0], X[2])
        assert time.perf_counter() - start >= 0.02
        assert len(dataset) == 5

    def test_workers_can_receive_it(self):
        """A fresh process gets a data set by pickle, which finds classes of modules only."""
        again = pickle.loads(pickle.dumps(SlowDataset(ToyDataset(X, Y), delay=0.0)))
        assert torch.equal(again[4][0], X[4])

    def test_workers(self):
        loader = DataLoader(ToyDataset(X, Y), batch_size=2, num_workers=2)
        assert torch.equal(torch.cat([features for features, _ in loader]), X)


class TestComputeAccuracy:
    def test_weights_by_examples_not_by_batches(self):
        labels = torch.tensor([1, 1, 1, 0, 0])
        loader = DataLoader(ToyDataset(X, labels), batch_size=3)  # batches with 3 of 3 and 0 of 2 right
        assert compute_accuracy(Constant(), loader) == pytest.approx(3 / 5)

    @pytest.mark.parametrize("training", [True, False])
    def test_mode_is_put_back(self, training):
        model = Constant().train(training)
        compute_accuracy(model, DataLoader(ToyDataset(X, Y), batch_size=2))
        assert model.training is training
        assert set(model.modes) == {(False, False)}

    def test_no_batch(self):
        with pytest.raises(ValueError, match="no batch"):
            compute_accuracy(Constant(), DataLoader(ToyDataset(X, Y), batch_size=9, drop_last=True))

    @pytest.mark.parametrize("labels", [Y[:, None], F.one_hot(Y), Y[:, None].expand(5, 3)])
    def test_labels_that_are_not_one_per_example(self, labels):
        message = r"dataloader gives labels of the shape \(2, \d\): \(2,\), one each, is expected"
        with pytest.raises(ValueError, match=message):
            compute_accuracy(NeuralNetwork(2, 2), DataLoader(ToyDataset(X, labels), batch_size=2))

    def test_logits_that_are_no_numbers(self):
        model = NeuralNetwork(2, 2)
        with torch.no_grad():
            model.layers[0].weight.fill_(torch.nan)
        with pytest.raises(ValueError, match="logits contain NaN"):
            compute_accuracy(model, DataLoader(ToyDataset(X, Y), batch_size=2))
        assert model.training

    def test_labels_that_are_no_classes(self):
        """A network with one output, too, which would be right wherever the label is 0."""
        for outputs, labels, wrong in ((1, Y, 1), (2, Y + 1, 2), (2, Y - 1, -1)):
            message = f"gives the label {wrong}; the model has the classes 0 to {outputs - 1}"
            with pytest.raises(ValueError, match=message):
                compute_accuracy(NeuralNetwork(2, outputs), DataLoader(ToyDataset(X, labels), batch_size=2))
        flat = torch.nn.Sequential(NeuralNetwork(2, 1), torch.nn.Flatten(0))
        with pytest.raises(ValueError, match=r"model gives logits of the shape \(2,\): \(B, classes\) is expected"):
            compute_accuracy(flat, DataLoader(ToyDataset(X, Y), batch_size=2))

    def test_arguments_by_name(self):
        loader = DataLoader(ToyDataset(X, Y), batch_size=2)
        assert compute_accuracy(dataloader=loader, model=Constant()) == pytest.approx(2 / 5)
