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
from .checkpoints import load_checkpoint, load_model, load_saved_gpt, save_checkpoint, save_model
from .data import GPTDatasetV1, create_dataloader_v1
from .generation import beam_search, choose_next, generate, generate_batch, generate_stream, generate_text_simple
from .gpt import GELU, GPT_CONFIG_124M, GPT_SIZES, FeedForward, GPTModel, LayerNorm, TransformerBlock, gpt_config
from .guards import evaluation_mode
from .instructions import (
    InstructionDataset,
    answer_entries,
    calc_loss_batch_labels,
    calc_loss_per_token,
    custom_collate_fn,
    extract_response,
    format_input,
    masked_collate_fn,
    save_responses,
    split_entries,
)
from .llama import (
    SMOLLM2_CONFIG_135M,
    GroupedQueryAttention,
    LayerCache,
    LlamaBlock,
    LlamaCache,
    LlamaModel,
    RMSNorm,
    SwiGLU,
    rotary_tables,
    rotate,
)
from .lora import (
    Adapters,
    LinearWithLoRA,
    LoRALayer,
    load_adapter,
    lora_layers,
    merge_lora,
    replace_linear_with_lora,
    save_adapter,
    unmerge_lora,
)
from .pretrained import (
    download_and_load_gpt2,
    load_course_model,
    load_gpt2,
    load_pretrained,
    load_weights_into_gpt,
    save_gpt2,
)
from .settings import PROFILES, Profile, get_device, get_profile
from .speed.fused import fuse
from .speed.weight_formats import pack_weights, quantize_int8, to_bfloat16
from .stop_button import interruptible, prepare_notebook
from .texts import load_instructions, load_messages, load_text
from .tokenizers import SimpleTokenizerV1, SimpleTokenizerV2, get_tokenizer, split_text
from .toy import NeuralNetwork, ToyDataset, compute_accuracy
from .training import (
    Progress,
    calc_loss_batch,
    calc_loss_loader,
    evaluate_model,
    evaluated_steps,
    find_highest_gradient,
    generate_and_print_sample,
    learning_rate_at,
    text_to_token_ids,
    token_ids_to_text,
    train_model,
    train_model_simple,
    training_steps,
)

prepare_notebook()  # the stop button, if this is the kernel of a notebook

_ON_USE = {  # by module: names that need matplotlib, pandas, ipywidgets or regex, or that few will want
    "bpe": ["BPETokenizer", "gpt2_bpe", "load_bpe", "save_bpe", "train_bpe"],
    "classification": [
        "SpamDataset",
        "calc_accuracy_loader",
        "calc_loss_batch_classes",
        "class_logits",
        "classify_review",
        "create_balanced_dataset",
        "last_real_token",
        "random_split",
        "train_classifier_simple",
    ],
    "judges": ["generate_model_scores", "query_model"],
    "course.plots": ["plot_losses", "plot_values"],
    "gguf": ["dequantize", "read_gguf", "read_q4_1", "read_q8_0"],
    "preferences": ["PreferenceDataset", "dpo_loss", "preference_collate_fn", "sequence_logprobs"],
    "smollm2": ["SmolTokenizer", "ask_smollm2", "find_smollm2", "load_smollm2", "smollm2_judge"],
    "speed.fused_llama": ["fuse_llama"],
}
_HOME = {name: module for module, names in _ON_USE.items() for name in names}


def __getattr__(name: str):
    if name in ("checks", "plots", "widgets"):
        from importlib import import_module

        return import_module(f".course.{name}", __name__)
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Adapters",
    "BPETokenizer",
    "CausalAttention",
    "FeedForward",
    "GELU",
    "GPTDatasetV1",
    "GPTModel",
    "GPT_CONFIG_124M",
    "GPT_SIZES",
    "GroupedQueryAttention",
    "InstructionDataset",
    "LayerCache",
    "LayerNorm",
    "LinearWithLoRA",
    "LlamaBlock",
    "LlamaCache",
    "LlamaModel",
    "LoRALayer",
    "MultiHeadAttention",
    "MultiHeadAttentionWrapper",
    "NeuralNetwork",
    "PROFILES",
    "PreferenceDataset",
    "Profile",
    "Progress",
    "RMSNorm",
    "SMOLLM2_CONFIG_135M",
    "SelfAttention_v1",
    "SelfAttention_v2",
    "SimpleTokenizerV1",
    "SimpleTokenizerV2",
    "SmolTokenizer",
    "SpamDataset",
    "SwiGLU",
    "ToyDataset",
    "TransformerBlock",
    "answer_entries",
    "ask_smollm2",
    "beam_search",
    "calc_accuracy_loader",
    "calc_loss_batch",
    "calc_loss_batch_classes",
    "calc_loss_batch_labels",
    "calc_loss_loader",
    "calc_loss_per_token",
    "choose_next",
    "class_logits",
    "classify_review",
    "compute_accuracy",
    "create_balanced_dataset",
    "create_dataloader_v1",
    "custom_collate_fn",
    "dequantize",
    "download_and_load_gpt2",
    "dpo_loss",
    "evaluate_model",
    "evaluated_steps",
    "evaluation_mode",
    "extract_response",
    "find_highest_gradient",
    "find_smollm2",
    "format_input",
    "fuse",
    "fuse_llama",
    "generate",
    "generate_and_print_sample",
    "generate_batch",
    "generate_model_scores",
    "generate_stream",
    "generate_text_simple",
    "get_device",
    "get_profile",
    "get_tokenizer",
    "gpt2_bpe",
    "gpt_config",
    "interruptible",
    "last_real_token",
    "learning_rate_at",
    "load_adapter",
    "load_bpe",
    "load_checkpoint",
    "load_course_model",
    "load_gpt2",
    "load_instructions",
    "load_messages",
    "load_model",
    "load_pretrained",
    "load_saved_gpt",
    "load_smollm2",
    "load_text",
    "load_weights_into_gpt",
    "lora_layers",
    "masked_collate_fn",
    "merge_lora",
    "pack_weights",
    "plot_losses",
    "plot_values",
    "preference_collate_fn",
    "quantize_int8",
    "query_model",
    "random_split",
    "read_gguf",
    "read_q4_1",
    "read_q8_0",
    "replace_linear_with_lora",
    "rotary_tables",
    "rotate",
    "save_adapter",
    "save_bpe",
    "save_checkpoint",
    "save_gpt2",
    "save_model",
    "save_responses",
    "sequence_logprobs",
    "smollm2_judge",
    "split_entries",
    "split_text",
    "text_to_token_ids",
    "to_bfloat16",
    "token_ids_to_text",
    "train_bpe",
    "train_classifier_simple",
    "train_model",
    "train_model_simple",
    "training_steps",
    "unmerge_lora",
]
