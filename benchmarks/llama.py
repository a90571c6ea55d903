"""Greedy generation with SmolLM2-135M beside transformers, in float32: the same weights in both."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks import _measure
from helpers.generation import generate
from helpers.llama import SMOLLM2_CONFIG_135M, LlamaModel
from helpers.smollm2 import find_smollm2, load_smollm2
from helpers.speed.fused_llama import fuse_llama
from helpers.speed.weight_formats import quantize_int8

PROMPT, NEW = 32, 64
# The parts of a block: their names here and in transformers.
NAMES = {
    "norm1.scale": "input_layernorm.weight",
    "norm2.scale": "post_attention_layernorm.weight",
    "att.W_query.weight": "self_attn.q_proj.weight",
    "att.W_key.weight": "self_attn.k_proj.weight",
    "att.W_value.weight": "self_attn.v_proj.weight",
    "att.out_proj.weight": "self_attn.o_proj.weight",
    "ff.gate.weight": "mlp.gate_proj.weight",
    "ff.up.weight": "mlp.up_proj.weight",
    "ff.down.weight": "mlp.down_proj.weight",
}


def in_transformers(ours: LlamaModel, cfg: Mapping[str, Any]) -> Any:
    """A `LlamaForCausalLM` of transformers with the weights of a `LlamaModel`, in evaluation mode."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tied = ours.out_head.weight is ours.tok_emb.weight
    config = LlamaConfig(
        vocab_size=cfg["vocab_size"],
        hidden_size=cfg["emb_dim"],
        intermediate_size=cfg["hidden_dim"],
        num_hidden_layers=cfg["n_layers"],
        num_attention_heads=cfg["n_heads"],
        num_key_value_heads=cfg["n_kv_heads"],
        max_position_embeddings=cfg["context_length"],
        rms_norm_eps=cfg["norm_eps"],
        rope_parameters={"rope_type": "default", "rope_theta": cfg["rope_base"]},
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    state, weights = ours.state_dict(), {}
    for name, weight in state.items():
        if name.startswith("trf_blocks."):
            _, layer, part = name.split(".", 2)
            weights[f"model.layers.{layer}.{NAMES[part]}"] = weight
    weights["model.embed_tokens.weight"] = state["tok_emb.weight"]
    weights["model.norm.weight"] = state["final_norm.scale"]
    weights["lm_head.weight"] = state["out_head.weight"]
    theirs = LlamaForCausalLM(config)
    theirs.load_state_dict(weights)
    return theirs.eval()


def run(rounds: int = 5, **changes: Any) -> str:
    """Measure, and return the section for RESULTS.md.

    With SmolLM2's weights where they are on this machine, else with random ones of the same shape. For a short run,
    `changes` make the model smaller (entries of its configuration), which then has random weights.
    """
    torch.manual_seed(123)
    real = not changes and find_smollm2() is not None
    if real:
        plain, cfg, _ = load_smollm2()
    else:
        cfg = {**SMOLLM2_CONFIG_135M, **changes}
        plain = LlamaModel(cfg).eval()
        plain.out_head.weight = plain.tok_emb.weight
    theirs, fused = in_transformers(plain, cfg), fuse_llama(copy.deepcopy(plain))
    int8 = quantize_int8(copy.deepcopy(plain))
    prompt = torch.randint(0, cfg["vocab_size"], (1, min(PROMPT, cfg["context_length"] // 2)))
    new = min(NEW, cfg["context_length"] - prompt.shape[1])
    tokens: dict[str, torch.Tensor] = {}

    def keep(name, model):
        return lambda: tokens.__setitem__(name, generate(model, prompt, new, cfg["context_length"]))

    def their_run():
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "eos_token_id": None}
        tokens[peer] = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0, **options)

    peer = "transformers `generate`, float32"
    contenders = {
        peer: their_run,
        "`generate`, the classes as taught": keep("plain", plain),
        "`generate`, after `fuse_llama`": keep("fused", fused),
        "`generate`, int8 weights": keep("int8", int8),
    }
    seconds = _measure.race(contenders, rounds)
    same = torch.equal(tokens[peer], tokens["plain"]) and torch.equal(tokens[peer], tokens["fused"])
    weights = "the weights of SmolLM2-135M-Instruct" if real else "random weights"
    return (
        f"## Llama\n\nSmolLM2's architecture with {weights}; greedy, {prompt.shape[1]} random tokens of prompt and "
        f"{new} new ones, {rounds} rounds. Target, to transformers with its cache: 1 in float32 with the same "
        f"tokens.\n\n"
        f"{_measure.rates(seconds, new, peer)}\n\n"
        f"The tokens in float32 are {'the same' if same else 'NOT THE SAME'} in all three ways."
    )


if __name__ == "__main__":
    print(_measure.machine(), run(), sep="\n\n")
