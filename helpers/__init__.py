"""The reusable classes of the course. Every public name can be imported from here: `from helpers import GPTModel`.

Importing this costs little more than importing torch. Modules that need matplotlib, pandas or ipywidgets load on
use: `from helpers import checks, plots, widgets`.
"""

from .attention import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    SelfAttention_v1,
    SelfAttention_v2,
)
from .checkpoints import load_checkpoint, load_model, save_checkpoint, save_model
from .course_model import load_course_model
from .data import GPTDatasetV1, create_dataloader_v1
from .datasets import load_text
from .device import get_device
from .fast import fuse
from .generation import (
    beam_search,
    choose_next,
    generate,
    generate_batch,
    generate_stream,
    generate_text_simple,
)
from .gpt import (
    GELU,
    GPT_CONFIG_124M,
    GPT_SIZES,
    FeedForward,
    GPTModel,
    LayerNorm,
    TransformerBlock,
    gpt_config,
)
from .pretrained import download_and_load_gpt2, load_gpt2, load_weights_into_gpt, save_gpt2
from .profiles import PROFILES, Profile, get_profile
from .quantization import quantize_int8
from .tokenizers import SimpleTokenizerV1, SimpleTokenizerV2, get_tokenizer, split_text
from .training import (
    Progress,
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    find_highest_gradient,
    generate_and_print_sample,
    learning_rate_at,
    text_to_token_ids,
    token_ids_to_text,
    train_model,
    train_model_simple,
    training_steps,
)

_ON_USE = {"plot_losses": "plots"}  # names whose modules need matplotlib, pandas or ipywidgets


def __getattr__(name: str):
    if name in _ON_USE:
        from importlib import import_module

        return getattr(import_module(f".{_ON_USE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CausalAttention",
    "FeedForward",
    "GELU",
    "GPTDatasetV1",
    "GPTModel",
    "GPT_CONFIG_124M",
    "GPT_SIZES",
    "LayerNorm",
    "MultiHeadAttention",
    "MultiHeadAttentionWrapper",
    "PROFILES",
    "Profile",
    "Progress",
    "SelfAttention_v1",
    "SelfAttention_v2",
    "SimpleTokenizerV1",
    "SimpleTokenizerV2",
    "TransformerBlock",
    "beam_search",
    "calc_loss_batch",
    "calc_loss_loader",
    "choose_next",
    "create_dataloader_v1",
    "download_and_load_gpt2",
    "evaluate_model",
    "find_highest_gradient",
    "fuse",
    "generate",
    "generate_and_print_sample",
    "generate_batch",
    "generate_stream",
    "generate_text_simple",
    "get_device",
    "get_profile",
    "get_tokenizer",
    "gpt_config",
    "learning_rate_at",
    "load_checkpoint",
    "load_course_model",
    "load_gpt2",
    "load_model",
    "load_text",
    "load_weights_into_gpt",
    "plot_losses",
    "quantize_int8",
    "save_checkpoint",
    "save_gpt2",
    "save_model",
    "split_text",
    "text_to_token_ids",
    "token_ids_to_text",
    "train_model",
    "train_model_simple",
    "training_steps",
]
