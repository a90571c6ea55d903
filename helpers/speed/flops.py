"""What a GPT computes, counted by formula, and how a budget of computing is best spent (the bonus notebook on FLOPs).

Counted are the matrix products, two floating-point operations for each multiplication with its addition. Shapes: T
tokens, C = emb_dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


def forward_flops(cfg: Mapping[str, Any], num_tokens: int) -> dict[str, int]:
    """The operations of one forward pass of a `GPTModel` over one text of `num_tokens` tokens, by part.

    Both products inside attention in full, as the course's plain attention computes them, also the masked half; the
    output layer at every position.
    """
    tokens, emb, layers = num_tokens, cfg["emb_dim"], cfg["n_layers"]
    return {
        "query, key, value": layers * 2 * tokens * emb * 3 * emb,
        "queries @ keys": layers * 2 * tokens * tokens * emb,
        "weights @ values": layers * 2 * tokens * tokens * emb,
        "output projection": layers * 2 * tokens * emb * emb,
        "feed-forward": layers * 2 * (2 * tokens * emb * 4 * emb),
        "output layer": 2 * tokens * emb * cfg["vocab_size"],
    }


def training_flops(cfg: Mapping[str, Any], num_tokens: int) -> int:
    """The operations of a forward and a backward pass over one text; the backward pass takes twice the forward's."""
    return 3 * sum(forward_flops(cfg, num_tokens).values())


class ScalingLaw(NamedTuple):
    """The loss of a model after training, E + A / N^alpha + B / D^beta for N parameters and D tokens, in nats."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        """The loss predicted for so many parameters and tokens; arrays are welcome."""
        return self.E + self.A / parameters**self.alpha + self.B / tokens**self.beta

    def best_split(self, budget: float) -> tuple[float, float]:
        """The parameters and tokens of the lowest loss for a budget of 6 N D operations (Hoffmann et al., eq. 4)."""
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        parameters = ratio * (budget / 6) ** (self.beta / (self.alpha + self.beta))
        return parameters, budget / 6 / parameters


CHINCHILLA = ScalingLaw(1.69, 406.4, 410.7, 0.34, 0.28)  # Hoffmann et al., 2022, section 3.3 and appendix D.3
REPLICATION = ScalingLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)  # Besiroglu et al., 2024, from the same runs
