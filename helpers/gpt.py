"""The GPT-2 architecture from its parts, as chapter 4 builds it (Radford et al., 2019).

A configuration is a dictionary with the keys of `GPT_CONFIG_124M`. Shapes: B sequences of T tokens, C = emb_dim.
The output layer has weights of its own, as in the book; GPT-2 itself reuses the token embedding there.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
import torch.nn as nn

from .attention import MultiHeadAttention
from .guards import guard

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


def count_parameters(cfg: Mapping[str, Any]) -> dict[str, int]:
    """The number of parameters in each part of a `GPTModel` of this configuration, without building it.

    With C = emb_dim, L = n_layers, V = vocab_size and T = context_length:

    - token embedding and output layer: V C each (the output layer has no bias)
    - position embedding: T C
    - attention, per layer: 4 C² in the weights of query, key, value and out_proj, C in the bias of out_proj, and 3 C
      more with qkv_bias
    - feed-forward, per layer: two matrices of 4 C² each, biases of 4 C and C
    - LayerNorms: scale and shift, 2 C, twice per layer and once at the end
    """
    emb, layers = cfg["emb_dim"], cfg["n_layers"]
    qkv_biases = 3 * emb if cfg["qkv_bias"] else 0
    return {
        "token embedding": cfg["vocab_size"] * emb,
        "position embedding": cfg["context_length"] * emb,
        "attention": layers * (4 * emb * emb + emb + qkv_biases),
        "feed-forward": layers * (8 * emb * emb + 5 * emb),
        "LayerNorms": layers * 4 * emb + 2 * emb,
        "output layer": cfg["vocab_size"] * emb,
    }


def model_config(model: nn.Module) -> dict[str, Any] | None:
    """The configuration with which a model of these shapes is built; None for what is not made as a `GPTModel` is."""
    try:
        attention = model.trf_blocks[0].att
        vocab_size, emb_dim = model.tok_emb.weight.shape
        return {
            "vocab_size": vocab_size,
            "context_length": len(model.pos_emb.weight),
            "emb_dim": emb_dim,
            "n_heads": attention.num_heads,
            "n_layers": len(model.trf_blocks),
            "drop_rate": float(model.drop_emb.p),
            "qkv_bias": attention.W_query.bias is not None,
        }
    except (AttributeError, IndexError, TypeError, ValueError):
        return None


def check_sizes(cfg: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError unless weights, by their names in a `GPTModel`, have the sizes that a configuration says.

    To call before a model is built for weights from a file, whose configuration may say anything.
    """
    words, positions = weights.get("tok_emb.weight", weights.get("out_head.weight")), weights.get("pos_emb.weight")
    for names, tensor in ((("vocab_size", "emb_dim"), words), (("context_length", "emb_dim"), positions)):
        said = [cfg[name] for name in names]
        if tensor is None or list(tensor.shape) != said:
            has = "no weights for it" if tensor is None else f"weights of {list(tensor.shape)}"
            raise ValueError(f"the configuration says {said} for {' and '.join(names)}, and there are {has}")
    layers = len({name.split(".")[1] for name in weights if name.startswith("trf_blocks.")})
    if layers != cfg["n_layers"]:
        raise ValueError(f"the configuration says {cfg['n_layers']!r} for n_layers, and there are weights of {layers}")


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
    """Attention, then feed-forward, each after a LayerNorm and with a shortcut around it (section 4.5).

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


def _check_shape(in_idx: torch.Tensor) -> None:
    if not isinstance(in_idx, torch.Tensor) or in_idx.is_floating_point():
        given = in_idx.dtype if isinstance(in_idx, torch.Tensor) else type(in_idx).__name__
        raise ValueError(f"in_idx is a {given}: a tensor of token ids, int64 (B, T), is expected")
    if in_idx.dim() != 2:
        raise ValueError(f"in_idx must have the shape (B, T), got {tuple(in_idx.shape)}")


def _check_config(cfg: dict[str, Any]) -> None:
    missing = [name for name in GPT_CONFIG_124M if name not in cfg]
    if missing:
        raise ValueError(f"cfg has no entry {missing[0]!r}; a configuration has {', '.join(GPT_CONFIG_124M)}")
    for name in ("vocab_size", "context_length", "emb_dim", "n_heads", "n_layers"):
        value, least = cfg[name], int(name != "n_layers")
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"cfg[{name!r}] is {value!r}: a whole number of at least {least} is expected")
    if not isinstance(cfg["drop_rate"], Real) or not 0 <= cfg["drop_rate"] <= 1:
        raise ValueError(f"cfg['drop_rate'] is {cfg['drop_rate']!r}: a number from 0 to 1 is expected")


class GPTModel(nn.Module):
    """A GPT-2-like language model: token ids in, a score for every possible next token out (section 4.6).

    Takes int64 ids (B, T) with T up to context_length, returns logits (B, T, vocab_size). Raises ValueError for another
    shape or a sequence longer than the context, IndexError (from PyTorch) for ids outside the vocabulary.
    """

    @guard(_check_config)
    def __init__(self, cfg: dict[str, Any]):
        super().__init__()
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.pos_emb = nn.Embedding(cfg["context_length"], cfg["emb_dim"])
        self.drop_emb = nn.Dropout(cfg["drop_rate"])
        self.trf_blocks = nn.Sequential(*[TransformerBlock(cfg) for _ in range(cfg["n_layers"])])
        self.final_norm = LayerNorm(cfg["emb_dim"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)

    @guard(_check_shape)
    def forward(self, in_idx: torch.Tensor) -> torch.Tensor:
        num_tokens, longest = in_idx.shape[1], self.pos_emb.num_embeddings
        if num_tokens > longest:
            raise ValueError(f"in_idx has {num_tokens} tokens, but context_length is {longest}")
        positions = torch.arange(num_tokens, device=in_idx.device)
        x = self.tok_emb(in_idx) + self.pos_emb(positions)  # (B, T, C)
        x = self.trf_blocks(self.drop_emb(x))  # (B, T, C)
        return self.out_head(self.final_norm(x))  # (B, T, vocab_size)


def hidden_states(model: GPTModel, in_idx: torch.Tensor) -> torch.Tensor:
    """What the output layer would be given: int64 ids (B, T) to (B, T, C). Raises ValueError as `GPTModel`.

    It repeats what `GPTModel.forward` does, so it is for models that are made of exactly the course's own parts.
    """
    _check_shape(in_idx)
    if in_idx.shape[1] > model.pos_emb.num_embeddings:
        raise ValueError(f"in_idx has {in_idx.shape[1]} tokens, but context_length is {model.pos_emb.num_embeddings}")
    positions = torch.arange(in_idx.shape[1], device=in_idx.device)
    x = model.drop_emb(model.tok_emb(in_idx) + model.pos_emb(positions))
    return model.final_norm(model.trf_blocks(x))
