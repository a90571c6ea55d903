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
from .data import GPTDatasetV1, create_dataloader_v1
from .datasets import load_text
from .device import get_device
from .generation import generate_text_simple
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
from .profiles import PROFILES, Profile, get_profile
from .tokenizers import SimpleTokenizerV1, SimpleTokenizerV2, get_tokenizer, split_text

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
    "SelfAttention_v1",
    "SelfAttention_v2",
    "SimpleTokenizerV1",
    "SimpleTokenizerV2",
    "TransformerBlock",
    "create_dataloader_v1",
    "generate_text_simple",
    "get_device",
    "get_profile",
    "get_tokenizer",
    "gpt_config",
    "load_text",
    "split_text",
]
