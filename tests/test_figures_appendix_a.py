"""Appendix A's figures: the computation graph that is drawn is autograd's, and loading times add up."""

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F

from helpers import NeuralNetwork
from helpers.course.figures import appendix_a as figures

X = torch.tensor([[-1.2, 3.1], [-0.9, 2.9], [-0.5, 2.6], [2.3, -1.1], [2.7, -1.5]])
Y = torch.tensor([0, 0, 0, 1, 1])


@pytest.fixture(autouse=True)
def figures_closed():
    yield
    plt.close("all")


class TestGraph:
    """The picture of a graph holds every node that autograd made, and nothing else."""

    def texts(self, fig):
        return [text.get_text() for text in fig.axes[0].texts if text.get_text()]

    def example(self):
        w, b = torch.tensor([2.2], requires_grad=True), torch.tensor([0.0], requires_grad=True)
        u = torch.tensor([1.1]) * w
        z = u + b
        a = torch.sigmoid(z)
        loss = F.binary_cross_entropy(a, torch.tensor([1.0]))
        return {"w1": w, "b": b, "u": u, "z": z, "a": a, "loss": loss}

    def test_every_node_once(self):
        names = self.example()
        texts = self.texts(figures.graph(names["loss"], names))
        kinds = sorted(text.replace("\n", "") for text in texts if "=" not in text)
        nodes = ["AccumulateGrad"] * 2 + ["AddBackward0", "BinaryCrossEntropyBackward0", "MulBackward0"]
        assert kinds == [*nodes, "SigmoidBackward0"]
        assert "w1 = 2.2000" in texts
        assert "loss = 0.0852" in texts

    def test_gradients_after_backward(self):
        names = self.example()
        assert not any("grad " in text for text in self.texts(figures.graph(names["loss"], names)))
        names["z"].retain_grad()
        names["loss"].backward()
        texts = self.texts(figures.graph(names["loss"], names))
        assert sorted(text for text in texts if text.startswith("grad")) == ["grad −0.0817"] * 2 + ["grad −0.0898"]

    @pytest.mark.parametrize("down", [True, False])
    def test_boxes_do_not_overlap(self, down):
        model = NeuralNetwork(2, 2)
        loss = F.cross_entropy(model(X), Y)
        fig = figures.graph(loss, dict(model.named_parameters()), down=down)
        boxes = [patch.get_window_extent() for patch in fig.axes[0].patches if hasattr(patch, "get_boxstyle")]
        boxes = [box for box in boxes if box.width > 20]
        assert len(boxes) == 6 + 3 + 3 + 2 + 2  # leaves, transposes, products, bends, the two of cross-entropy
        for k, one in enumerate(boxes):
            assert not any(one.overlaps(other) for other in boxes[:k])

    def test_a_tensor_used_twice_is_one_box(self):
        w = torch.tensor(3.0, requires_grad=True)
        square = w * w
        texts = self.texts(figures.graph(square * w, {"w": w, "square": square}))
        assert sum("w = 3" in text for text in texts) == 1

    def test_the_longest_branch_goes_straight_on(self):
        short, long = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
        root = (short + long.sin().exp()).grad_fn
        (short_node, _), (long_node, _) = root.next_functions
        places = figures._places(root)
        assert (places[root], places[long_node], places[short_node]) == ((0, 0), (1, 0), (1, 1))

    def test_no_graph(self):
        with pytest.raises(ValueError, match="no grad_fn"):
            figures.graph(torch.tensor(1.0), {})


class TestLoading:
    @pytest.mark.parametrize(
        ("load", "train", "workers", "total"),
        [(2, 1, 0, 18), (2, 1, 1, 13), (2, 1, 2, 8), (2, 1, 4, 8), (1, 3, 1, 19)],
    )
    def test_schedule(self, load, train, workers, total):
        fig = figures.loading(load, train, workers)
        assert fig.axes[0].get_title(loc="left") == f"6 batches in {total} seconds"
