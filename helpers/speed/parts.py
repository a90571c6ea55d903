"""Which models a faster path may stand in for: those that are made of exactly the course's own parts.

A faster path (KV cache, logits at chosen positions only, chunked loss, fused attention) repeats what a model's
`forward` does. It gives the same only while nobody has changed anything: so each part has to be of exactly the class
that the path knows, without hooks, without a `forward` of its own, and with the causal mask of chapter 3. Anywhere else
the plain model computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn as nn

from ..attention import MultiHeadAttention
from ..gpt import GELU, FeedForward, GPTModel, LayerNorm, TransformerBlock
from ..llama import GroupedQueryAttention, LlamaBlock, LlamaModel, RMSNorm, SwiGLU

# What the classes compute when `helpers` is imported: a `forward` assigned to a class later is noticed.
_GPT = (MultiHeadAttention, GELU, FeedForward, GPTModel, LayerNorm, TransformerBlock)
_LLAMA = (GroupedQueryAttention, SwiGLU, LlamaModel, RMSNorm, LlamaBlock)
_TORCH = (nn.Linear, nn.Embedding, nn.Dropout, nn.Identity, nn.Sequential)
_FORWARD = {kind: kind.forward for kind in _GPT + _LLAMA + _TORCH}
_ATTENTIONS: set[type[nn.Module]] = {MultiHeadAttention}
_GROUPED: set[type[nn.Module]] = {GroupedQueryAttention}
_NORMS: set[type[nn.Module]] = {LayerNorm}
_RMS_NORMS: set[type[nn.Module]] = {RMSNorm}
_EMBEDDINGS: set[type[nn.Module]] = {nn.Embedding}
_DROPOUTS: set[type[nn.Module]] = {nn.Dropout, nn.Identity}
# Layers that treat each position by itself, so that it does not matter which positions they are given.
_LINEARS: dict[type[nn.Module], Callable[[nn.Module], bool]] = {nn.Linear: lambda layer: True}
_ACTIVATIONS: set[type[nn.Module]] = {GELU, nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh, nn.Identity}


def register_fused(fused: dict[type[nn.Module], type[nn.Module]]) -> None:
    """Make faster classes known as parts, each in the place of the class that it computes the same as."""
    for plain, fast in fused.items():
        for kinds in (_ATTENTIONS, _GROUPED, _NORMS, _RMS_NORMS, _EMBEDDINGS, _DROPOUTS, _ACTIVATIONS):
            if plain in kinds:
                kinds.add(fast)
        _FORWARD[fast] = fast.forward


def register_linear(kind: type[nn.Module], whole: Callable[[nn.Module], bool] = lambda layer: True) -> None:
    """Make a class known that may stand where a linear layer stands; `whole(layer)` says if its parts are known."""
    _LINEARS[kind] = whole
    _FORWARD[kind] = kind.forward


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer in one of the course's forms: plain, with LoRA, in another weight format."""
    return type(module) in _LINEARS and _LINEARS[type(module)](module)


def is_unchanged(module: nn.Module) -> bool:
    """Whether calling a module runs its class's own `forward` and nothing else: no hook, nothing assigned."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return not any(hooks) and "forward" not in vars(module) and is_unpatched(type(module))


def is_unpatched(kind: type[nn.Module]) -> bool:
    """Whether a class, and each known class that it is made from, still has the `forward` it was defined with."""
    return all(_FORWARD.get(base, base.forward) is base.forward for base in kind.__mro__ if base in _FORWARD)


def is_causal_attention(module: nn.Module) -> bool:
    """Whether a module is the course's multi-head attention with the mask and the parts that chapter 3 gives it."""
    if type(module) not in _ATTENTIONS:
        return False
    layers = (module.W_query, module.W_key, module.W_value, module.out_proj)
    return all(map(is_linear, layers)) and type(module.dropout) in _DROPOUTS and is_causal(module.mask)


def is_layer_norm(module: nn.Module) -> bool:
    """Whether a module is the course's LayerNorm, with one number to scale and one to shift each entry."""
    return type(module) in _NORMS and module.scale.shape == module.shift.shape and module.scale.dim() == 1


def is_dropout(module: nn.Module) -> bool:
    """Whether a module is dropout or nothing at all, and nothing listens to it."""
    return type(module) in _DROPOUTS and is_unchanged(module)


def is_course_gpt(model: nn.Module) -> bool:
    """Whether a model is a `GPTModel` of which every part is exactly the course's own, without hooks.

    LoRA layers and weights in other formats count as the course's own; a subclass, another attention, a changed mask
    or a wrapper around the model does not.
    """
    return (
        type(model) is GPTModel
        and type(model.tok_emb) in _EMBEDDINGS
        and type(model.pos_emb) in _EMBEDDINGS
        and type(model.drop_emb) in _DROPOUTS
        and type(model.trf_blocks) is nn.Sequential
        and all(map(_is_course_block, model.trf_blocks))
        and all(len(block.att.mask) >= len(model.pos_emb.weight) for block in model.trf_blocks)
        and is_layer_norm(model.final_norm)
        and is_linear(model.out_head)
        and all(map(is_unchanged, model.modules()))
        and not has_global_hooks()
    )


def is_course_llama(model: nn.Module) -> bool:
    """Whether a model is a `LlamaModel` of which every part is exactly the course's own, without hooks.

    As for `is_course_gpt`, LoRA layers and weights in other formats count as the course's own.
    """
    return (
        type(model) is LlamaModel
        and type(model.tok_emb) in _EMBEDDINGS
        and type(model.trf_blocks) is nn.ModuleList
        and all(map(_is_llama_block, model.trf_blocks))
        and type(model.final_norm) in _RMS_NORMS
        and is_linear(model.out_head)
        and all(map(is_unchanged, model.modules()))
        and getattr(model.hidden_states, "__func__", None) is _HIDDEN_STATES
        and not has_global_hooks()
    )


_HIDDEN_STATES = LlamaModel.hidden_states


def _is_llama_block(block: nn.Module) -> bool:
    return (
        type(block) is LlamaBlock
        and type(block.att) in _GROUPED
        and type(block.ff) is SwiGLU
        and type(block.norm1) in _RMS_NORMS
        and type(block.norm2) in _RMS_NORMS
        and all(map(is_linear, (*block.att.children(), *block.ff.children())))
    )


def _is_course_block(block: nn.Module) -> bool:
    return (
        type(block) is TransformerBlock
        and is_causal_attention(block.att)
        and type(block.ff) is FeedForward
        and type(block.ff.layers) is nn.Sequential
        and all(is_linear(layer) or type(layer) in _ACTIVATIONS for layer in block.ff.layers)
        and is_layer_norm(block.norm1)
        and is_layer_norm(block.norm2)
        and type(block.drop_shortcut) in _DROPOUTS
    )


def is_causal(mask: torch.Tensor) -> bool:
    """Whether a mask is chapter 3's: boolean (T, T), true where a token would look at a later one."""
    causal = _causal_mask(len(mask), str(mask.device))
    if mask.dtype != torch.bool or mask.shape != causal.shape:
        return False
    mask, causal = mask.flatten(), causal.flatten()
    if len(mask) % 8 == mask.storage_offset() % 8 == 0:  # eight bytes at a time are compared nine times as fast
        mask, causal = mask.view(torch.int64), causal.view(torch.int64)
    return torch.equal(mask, causal)


@cache
def _causal_mask(length: int, device: str) -> torch.Tensor:
    return torch.triu(torch.ones(length, length, dtype=torch.bool, device=device), diagonal=1)


def has_global_hooks() -> bool:
    """Whether somebody has registered a hook for the calls of all modules (a profiler, say)."""
    from torch.nn.modules import module

    names = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
    return any(getattr(module, name, None) for name in names)
