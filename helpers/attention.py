"""Self-attention in five steps, as chapter 3 builds it (Vaswani et al., "Attention Is All You Need", 2017).

Shapes: B sequences in a batch, T tokens, H heads, D numbers per head. Attention scores are computed in full, (T, T)
per head; fused kernels and a cache for generation are not in this module.
"""

from __future__ import annotations

import torch
import torch.nn as nn


class SelfAttention_v1(nn.Module):
    """One attention head with plain weight matrices drawn from `torch.rand` (section 3.4).

    Takes (T, d_in) or (B, T, d_in), returns the same with d_out numbers per token. No mask: every token sees all.
    """

    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.W_query = nn.Parameter(torch.rand(d_in, d_out))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries = x @ self.W_query  # (T, d_out)
        keys = x @ self.W_key  # (T, d_out)
        values = x @ self.W_value  # (T, d_out)
        attn_scores = queries @ keys.transpose(-2, -1)  # (T, T)
        attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
        return attn_weights @ values  # (T, d_out)


class SelfAttention_v2(nn.Module):
    """`SelfAttention_v1` with linear layers, whose initial weights suit training better (section 3.4)."""

    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False):
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries = self.W_query(x)  # (T, d_out)
        keys = self.W_key(x)  # (T, d_out)
        values = self.W_value(x)  # (T, d_out)
        attn_scores = queries @ keys.transpose(-2, -1)  # (T, T)
        attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
        return attn_weights @ values  # (T, d_out)


class CausalAttention(nn.Module):
    """One attention head in which a token sees only itself and what came before (section 3.5).

    Takes (B, T, d_in) with T up to `context_length`, returns (B, T, d_out). `dropout` is the probability with which
    an attention weight is set to zero while training. Raises ValueError if T exceeds `context_length`.
    """

    def __init__(self, d_in: int, d_out: int, context_length: int, dropout: float, qkv_bias: bool = False):
        super().__init__()
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.dropout = nn.Dropout(dropout)
        future = torch.triu(torch.ones(context_length, context_length, dtype=torch.bool), diagonal=1)
        self.register_buffer("mask", future, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        num_tokens = x.shape[1]
        if num_tokens > len(self.mask):
            raise ValueError(f"x has {num_tokens} tokens, but context_length is {len(self.mask)}")
        queries = self.W_query(x)  # (B, T, d_out)
        keys = self.W_key(x)  # (B, T, d_out)
        values = self.W_value(x)  # (B, T, d_out)
        attn_scores = queries @ keys.transpose(1, 2)  # (B, T, T)
        attn_scores = attn_scores.masked_fill(self.mask[:num_tokens, :num_tokens], -torch.inf)
        attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
        return self.dropout(attn_weights) @ values  # (B, T, d_out)


class MultiHeadAttentionWrapper(nn.Module):
    """Several `CausalAttention` heads side by side, their outputs joined (section 3.6.1).

    Takes (B, T, d_in), returns (B, T, num_heads * d_out).
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
    ):
        super().__init__()
        self.heads = nn.ModuleList(
            [CausalAttention(d_in, d_out, context_length, dropout, qkv_bias) for _ in range(num_heads)]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([head(x) for head in self.heads], dim=-1)  # (B, T, H * d_out)


class MultiHeadAttention(nn.Module):
    """Causal multi-head attention with one projection that is split into heads (section 3.6.2).

    Takes (B, T, d_in) with T up to `context_length`, returns (B, T, d_out); each head has d_out / num_heads numbers
    per token. Raises ValueError if d_out is not a multiple of num_heads, or if T exceeds `context_length`.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
    ):
        super().__init__()
        if num_heads < 1 or d_out % num_heads != 0:
            raise ValueError(f"d_out={d_out} must be a multiple of num_heads={num_heads}")
        self.d_out = d_out
        self.num_heads = num_heads
        self.head_dim = d_out // num_heads
        self.W_query = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_key = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.W_value = nn.Linear(d_in, d_out, bias=qkv_bias)
        self.out_proj = nn.Linear(d_out, d_out)
        self.dropout = nn.Dropout(dropout)
        future = torch.triu(torch.ones(context_length, context_length, dtype=torch.bool), diagonal=1)
        self.register_buffer("mask", future, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch_size, num_tokens, _ = x.shape
        if num_tokens > len(self.mask):
            raise ValueError(f"x has {num_tokens} tokens, but context_length is {len(self.mask)}")
        by_head = (batch_size, num_tokens, self.num_heads, self.head_dim)
        queries = self.W_query(x).view(by_head).transpose(1, 2)  # (B, H, T, D)
        keys = self.W_key(x).view(by_head).transpose(1, 2)  # (B, H, T, D)
        values = self.W_value(x).view(by_head).transpose(1, 2)  # (B, H, T, D)
        attn_scores = queries @ keys.transpose(2, 3)  # (B, H, T, T)
        attn_scores = attn_scores.masked_fill(self.mask[:num_tokens, :num_tokens], -torch.inf)
        attn_weights = torch.softmax(attn_scores / self.head_dim**0.5, dim=-1)
        context = self.dropout(attn_weights) @ values  # (B, H, T, D)
        context = context.transpose(1, 2).reshape(batch_size, num_tokens, self.d_out)  # (B, T, d_out)
        return self.out_proj(context)
