"""The GPT-2 architecture from its parts, as chapter 4 builds it (Radford et al., 2019).

A configuration is a dictionary with the keys of `GPT_CONFIG_124M`. Shapes: B sequences of T tokens, C = emb_dim.
The output layer has weights of its own, as in the book; GPT-2 itself reuses the token embedding there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn

from .attention import MultiHeadAttention

GPT_CONFIG_124M: dict[str, Any] = {
    "vocab_size": 50257,
    "context_length": 1024,
    "emb_dim": 768,
    "n_heads": 12,
    "n_layers": 12,
    "drop_rate": 0.1,
    "qkv_bias": False,
}

# The four sizes in which GPT-2 was published; everything else is as in GPT_CONFIG_124M.
GPT_SIZES: dict[str, dict[str, int]] = {
    "124M": {"emb_dim": 768, "n_heads": 12, "n_layers": 12},
    "355M": {"emb_dim": 1024, "n_heads": 16, "n_layers": 24},
    "774M": {"emb_dim": 1280, "n_heads": 20, "n_layers": 36},
    "1558M": {"emb_dim": 1600, "n_heads": 25, "n_layers": 48},
}


def gpt_config(size: str = "124M", **changes: Any) -> dict[str, Any]:
    """A fresh configuration of a GPT-2 size ("124M", "355M", "774M", "1558M"), with any entries changed.

    Raises ValueError for an unknown size or an unknown entry.
    """
    if size not in GPT_SIZES:
        raise ValueError(f"size={size!r} is not one of {', '.join(GPT_SIZES)}")
    unknown = sorted(set(changes) - set(GPT_CONFIG_124M))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not an entry of a configuration: {', '.join(GPT_CONFIG_124M)}")
    return {**GPT_CONFIG_124M, **GPT_SIZES[size], **changes}


class LayerNorm(nn.Module):
    """Gives each token's vector mean 0 and variance 1, then scales and shifts it (section 4.2; Ba et al., 2016).

    Takes and returns (..., emb_dim). The variance divides by n, as in GPT-2.
    """

    def __init__(self, emb_dim: int):
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * (x - mean) / torch.sqrt(var + self.eps) + self.shift


class GELU(nn.Module):
    """The Gaussian error linear unit in the tanh form that GPT-2 uses (section 4.3; Hendrycks and Gimpel, 2016)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = (2.0 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)
        return 0.5 * x * (1.0 + torch.tanh(inner))


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, four times as wide inside (section 4.3). (B, T, C) to (B, T, C)."""

    def __init__(self, cfg: dict[str, Any]):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(cfg["emb_dim"], 4 * cfg["emb_dim"]),
            GELU(),
            nn.Linear(4 * cfg["emb_dim"], cfg["emb_dim"]),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each behind a LayerNorm and with a shortcut around it (section 4.5).

    (B, T, C) to (B, T, C). LayerNorm comes first in each half ("pre-LayerNorm"), as in GPT-2.
    """

    def __init__(self, cfg: dict[str, Any]):
        super().__init__()
        self.att = MultiHeadAttention(
            d_in=cfg["emb_dim"],
            d_out=cfg["emb_dim"],
            context_length=cfg["context_length"],
            num_heads=cfg["n_heads"],
            dropout=cfg["drop_rate"],
            qkv_bias=cfg["qkv_bias"],
        )
        self.ff = FeedForward(cfg)
        self.norm1 = LayerNorm(cfg["emb_dim"])
        self.norm2 = LayerNorm(cfg["emb_dim"])
        self.drop_shortcut = nn.Dropout(cfg["drop_rate"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_shortcut(self.att(self.norm1(x)))  # (B, T, C)
        x = x + self.drop_shortcut(self.ff(self.norm2(x)))  # (B, T, C)
        return x


class GPTModel(nn.Module):
    """A GPT-2-like language model: token ids in, a score for every possible next token out (section 4.6).

    Takes int64 ids (B, T) with T up to context_length, returns logits (B, T, vocab_size). Raises ValueError if the
    sequence is longer than the context, IndexError (from PyTorch) for ids outside the vocabulary.
    """

    def __init__(self, cfg: dict[str, Any]):
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.Sequential(*[TransformerBlock(cfg) for _ in range(cfg["n_layers"])])
        self.final_norm = LayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    def forward(self, in_idx: torch.Tensor) -> torch.Tensor:
        num_tokens = in_idx.shape[1]
        if num_tokens > self.pos_emb.num_embeddings:
            raise ValueError(f"in_idx has {num_tokens} tokens, but context_length is {self.pos_emb.num_embeddings}")
        positions = torch.arange(num_tokens, device=in_idx.device)
        x = self.tok_emb(in_idx) + self.pos_emb(positions)  # (B, T, C)
        x = self.trf_blocks(self.drop_emb(x))  # (B, T, C)
        return self.out_head(self.final_norm(x))  # (B, T, vocab_size)


def hidden_states(model: GPTModel, in_idx: torch.Tensor) -> torch.Tensor:
    """What the output layer would be given: int64 ids (B, T) to (B, T, C)."""
    positions = torch.arange(in_idx.shape[1], device=in_idx.device)
    x = model.drop_emb(model.tok_emb(in_idx) + model.pos_emb(positions))
    return model.final_norm(model.trf_blocks(x))
