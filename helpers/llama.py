"""The architecture of Llama from its parts, as the bonus notebook "From GPT to Llama" builds it.

What open models have had in common since Llama (Touvron et al., 2023): RMSNorm (Zhang and Sennrich, 2019), rotary
positions (Su et al., 2021), SwiGLU (Shazeer, 2020), grouped-query attention (Ainslie et al., 2023) and no biases. A
configuration is a dictionary with the keys of `SMOLLM2_CONFIG_135M`. Shapes: B sequences of T tokens, C = emb_dim, H
heads of D numbers, G heads of keys and values; with a cache, K kept tokens. Left out: dropout, which these models do
without, scaling of the positions for longer contexts, and mixtures of experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F

from .guards import guard

SMOLLM2_CONFIG_135M: dict[str, Any] = {
    "vocab_size": 49152,
    "context_length": 8192,
    "emb_dim": 576,
    "n_heads": 9,
    "n_kv_heads": 3,
    "n_layers": 30,
    "hidden_dim": 1536,
    "rope_base": 100_000.0,
    "norm_eps": 1e-5,
}


class RMSNorm(nn.Module):
    """Divides each token's vector by the root of its mean square, then scales it (Zhang and Sennrich, 2019).

    Takes and returns (..., emb_dim). Unlike LayerNorm it subtracts no mean and adds no shift.
    """

    def __init__(self, emb_dim: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(emb_dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean_square = (x * x).mean(dim=-1, keepdim=True)
        return self.scale * x * torch.rsqrt(mean_square + self.eps)


def rotary_tables(head_dim: int, context_length: int, base: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of the angle by which each pair of numbers turns at each position: (context_length, D/2) each.

    Pair i turns by base**(-2i/D) per position (Su et al., 2021, section 3.2.2): the first by one radian, later ones
    ever more slowly.
    """
    speeds = base ** (-torch.arange(0, head_dim, 2) / head_dim)  # (D/2,) radians per position
    angles = torch.arange(context_length)[:, None] * speeds  # (context_length, D/2)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair of numbers in (..., T, D) by its angle; number i of D makes a pair with number i + D/2.

    `cos` and `sin` are (..., T, D/2): the rows of `rotary_tables` for the tokens' positions.
    """
    first, second = x.chunk(2, dim=-1)  # (..., T, D/2) each
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class SwiGLU(nn.Module):
    """The feed-forward part with a gate: down(silu(gate(x)) * up(x)) (Shazeer, 2020). (B, T, C) to (B, T, C)."""

    def __init__(self, cfg: Mapping[str, Any]):
        super().__init__()
        self.gate = nn.Linear(cfg["emb_dim"], cfg["hidden_dim"], bias=False)
        self.up = nn.Linear(cfg["emb_dim"], cfg["hidden_dim"], bias=False)
        self.down = nn.Linear(cfg["hidden_dim"], cfg["emb_dim"], bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class LayerCache:
    """Keys and values of one layer: room for `capacity` tokens in each of B rows, (B, G, capacity, D) each."""

    def __init__(self, batch: int, num_kv_heads: int, capacity: int, head_dim: int):
        self.keys = torch.zeros(batch, num_kv_heads, capacity, head_dim)
        self.values = torch.zeros(batch, num_kv_heads, capacity, head_dim)

    def add(
        self, keys: torch.Tensor, values: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep keys and values (B, G, T, D) at `positions` (1 or B, T); returns all there are so far, (B, G, K, D)."""
        rows = torch.arange(len(keys), device=keys.device)[:, None]  # (B, 1)
        self.keys[rows, :, positions] = keys.transpose(1, 2)  # (B, T, G, D)
        self.values[rows, :, positions] = values.transpose(1, 2)
        end = int(positions.max()) + 1
        return self.keys[:, :, :end], self.values[:, :, :end]


class _LayerCacheOfOneType(LayerCache):
    """A `LayerCache` that keeps its type: under autocast, what is added to it is of another."""

    def add(self, keys, values, positions):
        return super().add(keys.to(self.keys.dtype), values.to(self.values.dtype), positions)


class LlamaCache:
    """What all layers of a `LlamaModel` keep of the tokens so far, and how many these are in each row.

    `lengths` (B,) counts the tokens; the model's forward pass adds those it reads. Rows that were padded at the right
    are set back by whoever padded them (see `forward_last`).
    """

    def __init__(self, model: LlamaModel, batch: int, capacity: int):
        weight = model.tok_emb.weight
        attentions = [block.att for block in model.trf_blocks]
        self.layers = [_LayerCacheOfOneType(batch, att.num_kv_heads, capacity, att.head_dim) for att in attentions]
        for layer in self.layers:
            layer.keys, layer.values = layer.keys.to(weight), layer.values.to(weight)
        self.lengths = torch.zeros(batch, dtype=torch.long, device=weight.device)
        self.capacity = capacity


class GroupedQueryAttention(nn.Module):
    """Causal attention in which several query heads share one head of keys and values (Ainslie et al., 2023).

    Takes (B, T, C) and returns the same. `positions` (1 or B, T) says where the tokens stand, `cos` and `sin`
    (1 or B, 1, T, D/2) how far they turn; `kept` has the keys and values of earlier tokens. With as many heads of keys
    as of queries it is chapter 3's attention with rotary positions; with one it is multi-query attention.
    """

    def __init__(self, cfg: Mapping[str, Any]):
        super().__init__()
        self.num_heads, self.num_kv_heads = cfg["n_heads"], cfg["n_kv_heads"]
        self.head_dim = cfg["emb_dim"] // cfg["n_heads"]
        self.W_query = nn.Linear(cfg["emb_dim"], self.num_heads * self.head_dim, bias=False)
        self.W_key = nn.Linear(cfg["emb_dim"], self.num_kv_heads * self.head_dim, bias=False)
        self.W_value = nn.Linear(cfg["emb_dim"], self.num_kv_heads * self.head_dim, bias=False)
        self.out_proj = nn.Linear(self.num_heads * self.head_dim, cfg["emb_dim"], bias=False)

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        kept: LayerCache | None = None,
    ) -> torch.Tensor:
        batch, num_tokens, _ = x.shape
        by_head = (batch, num_tokens, -1, self.head_dim)
        queries = self.W_query(x).view(by_head).transpose(1, 2)  # (B, H, T, D)
        keys = self.W_key(x).view(by_head).transpose(1, 2)  # (B, G, T, D)
        values = self.W_value(x).view(by_head).transpose(1, 2)  # (B, G, T, D)
        queries, keys = rotate(queries, cos, sin), rotate(keys, cos, sin)
        if kept is not None:
            keys, values = kept.add(keys, values, positions)  # (B, G, K, D), K tokens so far
        shared_by = self.num_heads // self.num_kv_heads
        keys = keys.repeat_interleave(shared_by, dim=1)  # (B, H, K, D)
        values = values.repeat_interleave(shared_by, dim=1)  # (B, H, K, D)
        attn_scores = queries @ keys.transpose(2, 3) / self.head_dim**0.5  # (B, H, T, K)
        columns = torch.arange(keys.shape[2], device=x.device)  # (K,) where each key stands
        later = columns > positions[:, None, :, None]  # (1 or B, 1, T, K)
        attn_weights = torch.softmax(attn_scores.masked_fill(later, -torch.inf), dim=-1)
        context = (attn_weights @ values).transpose(1, 2)  # (B, T, H, D)
        return self.out_proj(context.reshape(batch, num_tokens, -1))  # (B, T, C)


class LlamaBlock(nn.Module):
    """Attention, then feed-forward, each after an RMSNorm and with a shortcut around it. (B, T, C) to (B, T, C)."""

    def __init__(self, cfg: Mapping[str, Any]):
        super().__init__()
        self.att = GroupedQueryAttention(cfg)
        self.ff = SwiGLU(cfg)
        self.norm1 = RMSNorm(cfg["emb_dim"], cfg["norm_eps"])
        self.norm2 = RMSNorm(cfg["emb_dim"], cfg["norm_eps"])

    def forward(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        kept: LayerCache | None = None,
    ) -> torch.Tensor:
        x = x + self.att(self.norm1(x), positions, cos, sin, kept)  # (B, T, C)
        return x + self.ff(self.norm2(x))  # (B, T, C)


def _check_config(cfg: Mapping[str, Any]) -> None:
    missing = [name for name in SMOLLM2_CONFIG_135M if name not in cfg]
    if missing:
        raise ValueError(f"cfg has no entry {missing[0]!r}; a configuration has {', '.join(SMOLLM2_CONFIG_135M)}")
    for name in SMOLLM2_CONFIG_135M:
        value = cfg[name]
        if name in ("rope_base", "norm_eps"):
            if not isinstance(value, Real) or not value > 0:
                raise ValueError(f"cfg[{name!r}] is {value!r}: a positive number is expected")
        elif not isinstance(value, Integral) or isinstance(value, bool) or value < int(name != "n_layers"):
            raise ValueError(f"cfg[{name!r}] is {value!r}: a whole number of at least 1 is expected")
    emb_dim, heads, kv_heads = cfg["emb_dim"], cfg["n_heads"], cfg["n_kv_heads"]
    if emb_dim % (2 * heads):
        raise ValueError(f"emb_dim={emb_dim} must be a multiple of twice n_heads={heads}: numbers turn in pairs")
    if heads % kv_heads:
        raise ValueError(f"n_heads={heads} must be a multiple of n_kv_heads={kv_heads}")


def _check_input(self: LlamaModel, in_idx: torch.Tensor, cache: LlamaCache | None) -> None:
    if not isinstance(in_idx, torch.Tensor) or in_idx.is_floating_point() or in_idx.dim() != 2:
        given = tuple(in_idx.shape) if isinstance(in_idx, torch.Tensor) else type(in_idx).__name__
        raise ValueError(f"in_idx must be token ids, int64 of the shape (B, T), got {given}")
    before = 0 if cache is None else int(cache.lengths.max())
    room, limit = self.context_length, "context_length"
    if cache is not None and cache.capacity < room:
        room, limit = cache.capacity, "the cache's capacity"
    if before + in_idx.shape[1] > room:
        kept = f" after {before} kept ones" if before else ""
        raise ValueError(f"in_idx has {in_idx.shape[1]} tokens{kept}, but {limit} is {room}")


class LlamaModel(nn.Module):
    """A language model with the architecture of Llama: token ids in, a score for every possible next token out.

    Takes int64 ids (B, T), returns logits (B, T, vocab_size). With a `cache`, the ids are those that follow the kept
    tokens. The output layer has weights of its own until somebody ties it to the embedding. Raises ValueError for
    another shape or more tokens than the context or the cache has room for, IndexError (from PyTorch) for ids outside
    the vocabulary.
    """

    @guard(_check_config)
    def __init__(self, cfg: Mapping[str, Any]):
        super().__init__()
        self.context_length = cfg["context_length"]
        self.tok_emb = nn.Embedding(cfg["vocab_size"], cfg["emb_dim"])
        self.trf_blocks = nn.ModuleList([LlamaBlock(cfg) for _ in range(cfg["n_layers"])])
        self.final_norm = RMSNorm(cfg["emb_dim"], cfg["norm_eps"])
        self.out_head = nn.Linear(cfg["emb_dim"], cfg["vocab_size"], bias=False)
        head_dim = cfg["emb_dim"] // cfg["n_heads"]
        cos, sin = rotary_tables(head_dim, cfg["context_length"], cfg["rope_base"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @guard(_check_input)
    def hidden_states(self, in_idx: torch.Tensor, cache: LlamaCache | None = None) -> torch.Tensor:
        """What the output layer is given: int64 ids (B, T) to (B, T, C)."""
        positions = torch.arange(in_idx.shape[1], device=in_idx.device)[None]  # (1, T)
        if cache is not None:
            positions = cache.lengths[:, None] + positions  # (B, T)
        cos, sin = self.cos[positions][:, None], self.sin[positions][:, None]  # (1 or B, 1, T, D/2)
        x = self.tok_emb(in_idx)  # (B, T, C)
        for number, block in enumerate(self.trf_blocks):
            x = block(x, positions, cos, sin, None if cache is None else cache.layers[number])
        if cache is not None:
            cache.lengths = cache.lengths + in_idx.shape[1]
        return self.final_norm(x)

    def forward(self, in_idx: torch.Tensor, cache: LlamaCache | None = None) -> torch.Tensor:
        return self.out_head(self.hidden_states(in_idx, cache))  # (B, T, vocab_size)


@torch.no_grad()
def forward_last(
    model: LlamaModel, idx: torch.Tensor, cache: LlamaCache, new: torch.Tensor | None = None
) -> torch.Tensor:
    """Feed further tokens and return the logits after each row's last one: int64 (B, T) to (B, vocab_size).

    `idx` follows what the cache holds, padded at the right if rows have different numbers of tokens; `new` (B,) says
    how many of the T count in each row (all, if left out). What was kept of padding is overwritten later, and no token
    looks at it until then. Raises ValueError for a `new` that is not from 1 to T.
    """
    if new is not None and not bool(((new >= 1) & (new <= idx.shape[1])).all()):
        raise ValueError(f"new={new.tolist()} must be from 1 to the {idx.shape[1]} tokens of idx in each row")
    hidden = model.hidden_states(idx, cache)  # (B, T, C)
    if new is None:
        return model.out_head(hidden[:, -1])
    cache.lengths = cache.lengths - idx.shape[1] + new
    return model.out_head(hidden[torch.arange(len(idx), device=idx.device), new - 1])


def llama_parameters(cfg: Mapping[str, Any]) -> dict[str, int]:
    """The number of parameters in each part of a `LlamaModel` of this configuration, without building it.

    With C = emb_dim, F = hidden_dim, L layers, G of H heads with keys and values: 2 C² + 2 C² G/H per attention, 3 C F
    per feed-forward part, C per norm, V C for the token embedding. The output layer is not counted again, since these
    small models share it with the embedding. There are no biases.
    """
    emb, layers = cfg["emb_dim"], cfg["n_layers"]
    kv_width = emb // cfg["n_heads"] * cfg["n_kv_heads"]
    return {
        "token embedding": cfg["vocab_size"] * emb,
        "attention": layers * (2 * emb * emb + 2 * emb * kv_width),
        "feed-forward": layers * 3 * emb * cfg["hidden_dim"],
        "RMSNorms": (2 * layers + 1) * emb,
    }
