"""Pretrained models: GPT-2's published weights (section 5.5), and the small model that comes with the course.

GPT-2's weights are read from safetensors files as Hugging Face publishes them: `config.json` and `model.safetensors` in
a folder. `find_gpt2` says where such a folder is looked for; a download is kept in the course's cache folder, where
every notebook and program finds it. No TensorFlow is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .checkpoints import plain_config, without_weights
from .files import existing_file, first_line, read_json, read_tensors, write_text_whole, write_whole
from .gpt import GPTModel, check_sizes, gpt_config, model_config
from .lora import load_adapter, merge_lora
from .settings import Profile
from .texts import cache_dir, data_folders
from .tokenizers import END_OF_TEXT

_ASSETS = Path(__file__).parent / "assets" / "course_model"
COURSE_MODEL_FILE = _ASSETS / "course_model.safetensors"
ASSISTANT_FILE = _ASSETS / "assistant.safetensors"  # an adapter for the course model
REPOSITORIES = {  # GPT-2's sizes on the Hugging Face Hub
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_SHARDS, _PICKLED = "model.safetensors.index.json", "pytorch_model.bin"  # forms of the weights that are not read
_HEAD = "lm_head.weight"  # the output layer, where it is not the embedding
_SCALE = ".scale_of_row"  # in the course model's file: one scale per row of a matrix of 8-bit integers


def load_pretrained(
    profile: Profile, model_size: str = "124M", models_dir: Path | str | None = None
) -> tuple[GPTModel, dict[str, Any], str]:
    """The pretrained model to start from, its configuration and its name: the course model in `quick`, GPT-2 in `book`.

    Where GPT-2's weights cannot be downloaded, it prints why and returns the course model. Both are in evaluation mode,
    without dropout, with one tensor for embedding and output layer. Raises ValueError as `load_gpt2`.
    """
    if profile.name == "book":
        try:
            return *load_gpt2(model_size, models_dir), f"GPT-2 {model_size}"
        except ConnectionError as error:
            print(f"{error}. Going on with the course model.")
    return *load_course_model(), "the course model"


# The course model


def load_course_model(path: Path | str = COURSE_MODEL_FILE) -> tuple[GPTModel, dict[str, Any]]:
    """The course model in evaluation mode on the CPU, and its configuration (a dictionary as `GPT_CONFIG_124M`).

    Output layer and token embedding are one tensor. Raises FileNotFoundError, or ValueError if the file is not a
    course model.
    """
    file = existing_file(path)
    try:
        stored, metadata = read_tensors(file)
        cfg = json.loads(metadata["config"])
        if "out_head.weight" in stored:
            raise ValueError("it has an output layer of its own")
        weights = {}
        for name, weight in stored.items():
            if not name.endswith(_SCALE):
                scale = stored.get(name + _SCALE)
                weights[name] = weight if scale is None else weight.float() * scale[:, None]
        weights["out_head.weight"] = weights["tok_emb.weight"]
        check_sizes(cfg, weights)
        model = without_weights(cfg)
        model.load_state_dict(weights, assign=True)
    except Exception as error:
        raise ValueError(f"{path} is not a course model file ({first_line(error)})") from None
    model.out_head.weight = model.tok_emb.weight  # read as two, they become one tensor again
    return model.eval(), cfg


def load_assistant(
    path: Path | str = ASSISTANT_FILE, model_path: Path | str = COURSE_MODEL_FILE
) -> tuple[GPTModel, dict[str, Any]]:
    """The course assistant (section 7.9): the course model with a merged adapter, as `load_course_model` returns it.

    It was fine-tuned by chapter 7's recipe, in the Phi-3 style, on many more entries (`helpers.make.assistant`). Its
    output layer and token embedding are still one tensor. Raises FileNotFoundError if there is no such adapter, and
    ValueError as `load_course_model` and `load_adapter`.
    """
    if not Path(path).expanduser().is_file():
        raise FileNotFoundError(
            f"path={str(path)!r} is not a file: an adapter for the course model is expected, which "
            "`python -m helpers.make.assistant train` writes"
        )
    model, cfg = load_course_model(model_path)
    load_adapter(model, path)
    merge_lora(model)
    return model.eval(), cfg


def save_course_model(model: GPTModel, path: Path | str) -> None:
    """Write a model with tied embeddings, its matrices as 8-bit integers with a scale per row.

    Raises ValueError for a model that is not a `GPTModel` of plain layers, or whose output layer is not its token
    embedding.
    """
    (cfg, state), stored = _tied_state(model), {}
    for name, weight in state.items():
        if name == "out_head.weight":
            continue
        weight = weight.detach().float().cpu()
        if weight.dim() == 2:
            scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127  # (rows,)
            stored[name], stored[name + _SCALE] = torch.round(weight / scale[:, None]).to(torch.int8), scale
        else:
            stored[name] = weight
    write_whole(path, lambda temporary: save_file(stored, temporary, metadata={"config": json.dumps(cfg)}))


# GPT-2: the folder of its weights


def find_gpt2(model_size: str = "124M", models_dir: Path | str | None = None) -> Path | None:
    """The folder on this machine that holds the weights of a GPT-2 size, or None. Never downloads.

    Looked for, in this order, in `models_dir`, in the folder that COURSE_DATA_DIR names, in the course's cache folder
    (COURSE_CACHE_DIR), and in huggingface_hub's cache (HF_HOME). In each of the first three the folder is called 124M,
    gpt2-124M or gpt2, its name on the Hub, and may lie in another folder called gpt2. Raises ValueError for an unknown
    size, and if COURSE_DATA_DIR is not a folder.
    """
    for folder in _folders(model_size, models_dir):
        if (folder / _CONFIG).is_file() and (folder / _WEIGHTS).is_file() and _other_form(folder) is None:
            return folder
    from huggingface_hub import try_to_load_from_cache  # loads slowly

    repository = REPOSITORIES[model_size]
    for name in (repository, repository.split("/")[1]):  # the second is the old name
        config, weights = (try_to_load_from_cache(name, file) for file in (_CONFIG, _WEIGHTS))
        if isinstance(config, str) and isinstance(weights, str):  # else None, or a mark that the Hub has no such file
            return Path(weights).parent
    return None


def fetch_gpt2(model_size: str = "124M", models_dir: Path | str | None = None) -> Path:
    """The folder of a GPT-2 size: the one that `find_gpt2` finds, else a download in the course's cache folder.

    A download that was interrupted is resumed. Raises ValueError as `find_gpt2`, and for a folder with the weights in a
    form that cannot be read; ConnectionError if the download fails.
    """
    found = find_gpt2(model_size, models_dir)
    if found is not None:
        return found
    for folder in _folders(model_size, models_dir):
        _check_form(folder)  # somebody put weights there, which a download would pass over without a word
    from huggingface_hub import snapshot_download  # loads slowly

    repository, files = REPOSITORIES[model_size], [_CONFIG, _WEIGHTS]
    target = cache_dir() / "gpt2" / model_size
    try:
        snapshot_download(repository, allow_patterns=files, local_dir=target)
    except Exception as error:
        place = target if models_dir is None else Path(models_dir).expanduser() / model_size
        raise ConnectionError(
            f"GPT-2 {model_size} cannot be downloaded: put {' and '.join(files)} of {repository} into {place} and try "
            f"again ({first_line(error)})"
        ) from None
    return target


def _folders(model_size: str, models_dir: Path | str | None) -> Iterator[Path]:
    """Where a learner or an earlier download may have put the weights of a GPT-2 size."""
    if model_size not in REPOSITORIES:
        raise ValueError(f"model_size={model_size!r} is not one of {', '.join(REPOSITORIES)}")
    names = (model_size, f"gpt2-{model_size}", REPOSITORIES[model_size].split("/")[1])
    if models_dir is not None:
        yield from (Path(models_dir).expanduser() / name for name in names)
    for folder in data_folders():
        yield from (base / name for base in (folder, folder / "gpt2") for name in names)


def _other_form(folder: Path) -> str | None:
    """What a folder has instead of one safetensors file of weights, and what to do; None if it has nothing else."""
    again = "load and save it with transformers: GPT2LMHeadModel.from_pretrained(folder).save_pretrained(folder"
    if (folder / _WEIGHTS).is_file():
        with (folder / _WEIGHTS).open("rb") as file:
            pointer = file.read(64).startswith(b"version https://git-lfs")
        return (
            f"{_WEIGHTS} is a Git LFS pointer, not the weights; run `git lfs pull` in the folder" if pointer else None
        )
    if (folder / _SHARDS).is_file():
        return f"the weights are in shards ({_SHARDS}); {again}, max_shard_size='50GB')"
    if (folder / _PICKLED).is_file():
        return f"the weights are in {_PICKLED}, not in {_WEIGHTS}; {again})"
    return None


def _check_form(folder: Path) -> None:
    form = _other_form(folder)
    if form is not None:
        raise ValueError(f"{folder} cannot be read as GPT-2's weights: {form}")


# GPT-2 as a model


def load_gpt2(model_size: str = "124M", models_dir: Path | str | None = None) -> tuple[GPTModel, dict[str, Any]]:
    """A pretrained GPT-2 in evaluation mode without dropout, and its configuration. Its output layer is its embedding.

    Found or downloaded as by `fetch_gpt2`; raises as that and as `read_gpt2`.
    """
    return read_gpt2(fetch_gpt2(model_size, models_dir))


def read_gpt2(folder: Path | str) -> tuple[GPTModel, dict[str, Any]]:
    """`load_gpt2` from a folder in Hugging Face's format.

    The model is built without memory for its weights, which are then read block by block: the peak is little more
    than the weights themselves. They become float32, whatever they are in the file, since training in half precision
    alone fails. The output layer is the embedding unless config.json says that it has weights of its own.

    Raises ValueError for a damaged or foreign file, for weights in another form (pytorch_model.bin, shards, a Git LFS
    pointer), and for a configuration that computes otherwise than GPT-2.
    """
    folder = Path(folder).expanduser()
    _check_form(folder)
    settings = _settings(folder)
    file, cfg = folder / _WEIGHTS, {**_config(settings), "drop_rate": 0.0}
    _check_layers(file, cfg["n_layers"])
    _check_tables(file, cfg)
    model = without_weights(cfg)
    for part in ("", *(f"h.{layer}." for layer in range(cfg["n_layers"]))):
        _fill(model, file, part)
    if _is_tied(settings):
        model.out_head.weight = model.tok_emb.weight
    else:
        head = _read(file, _HEAD).get(_HEAD)
        if head is None or head.shape != model.tok_emb.weight.shape:
            raise ValueError(f"{file} has no output layer of its own ({_HEAD}), which its {_CONFIG} says it has")
        model.out_head.weight = torch.nn.Parameter(head.to(torch.float32, copy=True))
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise ValueError(f"{file} is not a whole GPT-2: it lacks {missing[0]}")
    return model.eval(), cfg


def _fill(model: GPTModel, file: Path, part: str) -> None:
    """Give the model the weights in a file whose names begin with `part` (see `_read`)."""
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    stored = _read(file, part)  # views of the file's pages, let go at the end: those of all parts would add up
    try:
        weights = _course_weights(stored, len(model.final_norm.scale))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read as GPT-2's weights: {error}") from None
    for name, weight in weights.items():
        if weight.shape != shapes.get(name):
            raise ValueError(f"{file} and its {_CONFIG} disagree: {name} has shape {tuple(weight.shape)}")
        owner, _, last = name.rpartition(".")
        copy = weight.to(torch.float32, memory_format=torch.contiguous_format, copy=True)  # and in our layout
        setattr(model.get_submodule(owner), last, torch.nn.Parameter(copy))


def save_gpt2(model: GPTModel, folder: Path | str) -> None:
    """Write a model with tied embeddings as a folder that Hugging Face's transformers loads as a GPT-2.

    Raises ValueError for a model that is not a `GPTModel` of plain layers, or whose output layer is not its token
    embedding, which that format takes for granted.
    """
    cfg, state = _tied_state(model)
    folder, width = Path(folder), cfg["emb_dim"]
    weights = {"wte.weight": state["tok_emb.weight"], "wpe.weight": state["pos_emb.weight"]}
    weights |= {"ln_f.weight": state["final_norm.scale"], "ln_f.bias": state["final_norm.shift"]}
    for layer in range(cfg["n_layers"]):
        ours, theirs = f"trf_blocks.{layer}.", f"h.{layer}."
        for their, our in (("ln_1", "norm1"), ("ln_2", "norm2")):
            weights[f"{theirs}{their}.weight"] = state[f"{ours}{our}.scale"]
            weights[f"{theirs}{their}.bias"] = state[f"{ours}{our}.shift"]
        projections = [f"{ours}att.W_{name}." for name in ("query", "key", "value")]
        weights[f"{theirs}attn.c_attn.weight"] = torch.cat([state[p + "weight"] for p in projections]).T
        none = torch.zeros_like(state["final_norm.shift"])
        weights[f"{theirs}attn.c_attn.bias"] = torch.cat([state.get(p + "bias", none) for p in projections])
        for their, our in (("attn.c_proj", "att.out_proj"), ("mlp.c_fc", "ff.layers.0"), ("mlp.c_proj", "ff.layers.2")):
            weights[f"{theirs}{their}.weight"] = state[f"{ours}{our}.weight"].T
            weights[f"{theirs}{their}.bias"] = state[f"{ours}{our}.bias"]
    weights = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    settings = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": cfg["vocab_size"],
        "n_positions": cfg["context_length"],
        "n_ctx": cfg["context_length"],
        "n_embd": width,
        "n_head": cfg["n_heads"],
        "n_layer": cfg["n_layers"],
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": cfg["drop_rate"],
        "embd_pdrop": cfg["drop_rate"],
        "resid_pdrop": cfg["drop_rate"],
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
        "tie_word_embeddings": True,
    }
    write_whole(folder / _WEIGHTS, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    write_text_whole(folder / _CONFIG, json.dumps(settings, indent=2) + "\n")


# GPT-2 as the book loads it


def download_and_load_gpt2(
    model_size: str = "124M", models_dir: Path | str | None = None
) -> tuple[dict[str, int], dict[str, Any]]:
    """GPT-2's settings and parameters by OpenAI's names, as the book has them.

    `settings` has n_vocab, n_ctx, n_embd, n_head, n_layer. `params` has wte (n_vocab, n_embd), wpe (n_ctx, n_embd),
    g and b (n_embd,) of the last LayerNorm, and blocks: for each layer attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj
    with w (in, out) and b, and ln_1, ln_2 with g and b. All are torch tensors. Raises as `load_gpt2`.
    """
    folder = fetch_gpt2(model_size, models_dir)
    raw = _settings(folder)
    _config(raw)  # raises ValueError for what this form cannot say
    _check_layers(folder / _WEIGHTS, raw["n_layer"])
    if not _is_tied(raw):
        raise ValueError(f"{folder} has an output layer of its own, for which params has no entry: use load_gpt2")
    settings = {"n_vocab": raw["vocab_size"], "n_ctx": raw["n_positions"]}
    settings |= {name: raw[name] for name in ("n_embd", "n_head", "n_layer")}
    weights = {name: weight.float().clone() for name, weight in _read(folder / _WEIGHTS, None).items()}
    params: dict[str, Any] = {"blocks": [{} for _ in range(settings["n_layer"])]}
    last = {"weight": "w", "bias": "b"}
    for name, weight in weights.items():
        *path, leaf = name.split(".")
        if path[0] in ("wte", "wpe"):
            params[path[0]] = weight
        elif path[0] == "ln_f":
            params["g" if leaf == "weight" else "b"] = weight
        else:
            try:
                place = params["blocks"][int(path[1])]
                for step in path[2:]:
                    place = place.setdefault(step, {})
                place["g" if path[-1].startswith("ln") and leaf == "weight" else last[leaf]] = weight
            except (KeyError, IndexError, ValueError):
                raise ValueError(f"{folder} does not hold GPT-2's weights: {name} is not one of them") from None
    return settings, params


def load_weights_into_gpt(gpt: GPTModel, params: dict[str, Any]) -> None:
    """Copy parameters from `download_and_load_gpt2` into a model of the same size with query, key and value biases.

    Raises ValueError, before anything is copied, if the model does not fit or `params` is incomplete.
    """
    flat: dict[str, Any] = {}
    try:
        flat |= {"wte.weight": params["wte"], "wpe.weight": params["wpe"]}
        flat |= {"ln_f.weight": params["g"], "ln_f.bias": params["b"]}
        for layer, block in enumerate(params["blocks"]):
            for norm in ("ln_1", "ln_2"):
                flat[f"h.{layer}.{norm}.weight"], flat[f"h.{layer}.{norm}.bias"] = block[norm]["g"], block[norm]["b"]
            for part, name in (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj")):
                flat[f"h.{layer}.{part}.{name}.weight"] = block[part][name]["w"]
                flat[f"h.{layer}.{part}.{name}.bias"] = block[part][name]["b"]
    except KeyError as missing:
        raise ValueError(f"params has no entry {missing}: it should come from download_and_load_gpt2") from None
    flat = {name: torch.as_tensor(weight) for name, weight in flat.items()}
    weights = _course_weights(flat, flat["wte.weight"].shape[1])
    weights["out_head.weight"] = weights["tok_emb.weight"]
    own = gpt.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        if name not in own or name not in weights or own[name].shape != weights[name].shape:
            got = tuple(own[name].shape) if name in own else "nothing"
            expected = tuple(weights[name].shape) if name in weights else "nothing"
            raise ValueError(f"gpt does not fit the parameters: {name} is {got} in gpt, {expected} in params")
    gpt.load_state_dict(weights)


# What the formats have in common


def _tied_state(model: GPTModel) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The configuration and the weights of a plain model whose output layer is its token embedding; else ValueError."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile was given
    shapes, state = model_config(model), model.state_dict()
    differing = state.keys() if shapes is None else state.keys() ^ without_weights(shapes).state_dict().keys()
    if differing:
        first = f"model is not a GPTModel of plain layers (see its {min(differing)})"
        raise ValueError(f"{first}; merge LoRA layers first, with merge_lora")
    cfg = plain_config(model)
    if cfg is None:
        raise ValueError(
            "model computes something else than a GPTModel of its sizes with its weights, and this format has room for "
            "nothing more: a part of it was changed (activation, mask, eps, heads, a hook, a class of your own)"
        )
    head, embedding = state["out_head.weight"], state["tok_emb.weight"]
    if head.shape != embedding.shape or not torch.equal(head, embedding):
        raise ValueError("model has an output layer of its own; this format needs out_head.weight = tok_emb.weight")
    return cfg, state


def _settings(folder: Path) -> dict[str, Any]:
    """What a folder's config.json says. Raises ValueError if it is missing, damaged, or not a GPT-2's."""
    try:
        settings = read_json(folder / _CONFIG)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no readable config.json ({first_line(error)})") from None
    if isinstance(settings, dict) and "n_ctx" in settings:
        settings.setdefault("n_positions", settings["n_ctx"])
    for name in ("vocab_size", "n_positions", "n_embd", "n_head", "n_layer"):
        if not isinstance(settings, dict) or type(settings.get(name)) is not int or settings[name] < 1:
            raise ValueError(f"{folder} has a config.json that is not a GPT-2's: it has no number {name} of at least 1")
    return settings


def _is_tied(settings: dict[str, Any]) -> bool:
    return settings.get("tie_word_embeddings", True) is not False


def _check_layers(file: Path, layers: int) -> None:
    """Raise ValueError if a file has other layers than its configuration says."""
    found: dict[str, str] = {}
    for name in _read_names(file):
        if name.startswith("h."):
            found.setdefault(name.split(".")[1], name)
    beyond = [name for layer, name in found.items() if not layer.isdecimal() or int(layer) >= layers]
    if beyond or len(found) < layers:
        has = min(beyond) if beyond else f"{len(found)} layers"
        raise ValueError(f"{file} and its {_CONFIG} disagree: n_layer is {layers}, but the file has {has}")


def _check_tables(file: Path, cfg: dict[str, Any]) -> None:
    """Raise ValueError, before memory is taken, if a file's embeddings have other sizes than its configuration says."""
    stored = _read(file, "")
    for name, length in (("wte.weight", "vocab_size"), ("wpe.weight", "context_length")):
        if name not in stored:
            raise ValueError(f"{file} is not a whole GPT-2: it lacks {name}")
        if tuple(stored[name].shape) != (cfg[length], cfg["emb_dim"]):
            raise ValueError(f"{file} and its {_CONFIG} disagree: {name} has shape {tuple(stored[name].shape)}")


def _config(settings: dict[str, Any]) -> dict[str, Any]:
    """The course's configuration from Hugging Face's. Raises ValueError for settings that compute otherwise."""
    computes = {
        "model_type": ("gpt2",),
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "n_inner": (None, 4 * settings["n_embd"]),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    for name, known in computes.items():
        if settings.get(name, known[0]) not in known:
            message = f"{name} is {settings[name]!r}; GPT-2 has {known[0]!r}, and the course's model computes as GPT-2"
            raise ValueError(f"{_CONFIG} describes a model that computes otherwise: {message}")
    names = {"vocab_size": "vocab_size", "context_length": "n_positions", "emb_dim": "n_embd"}
    names |= {"n_heads": "n_head", "n_layers": "n_layer"}
    sizes = {ours: settings[theirs] for ours, theirs in names.items()}
    return gpt_config(**sizes, drop_rate=settings.get("resid_pdrop", 0.1), qkv_bias=True)


def _short(name: str) -> str:
    """A tensor's name without the prefixes of a model that was saved as a language model or compiled."""
    return name.removeprefix("_orig_mod.").removeprefix("transformer.")


def _read_names(file: Path) -> list[str]:
    try:
        with safe_open(str(file), framework="pt") as source:
            return [_short(name) for name in source.keys()]  # noqa: SIM118 (not a dictionary)
    except Exception as error:
        raise ValueError(f"{file} cannot be read as GPT-2's weights ({first_line(error)})") from None


def _read(file: Path, part: str | None) -> dict[str, torch.Tensor]:
    """The tensors of a file whose names begin with `part` ("" for those outside the blocks, None for all).

    They are views of the file, which stays mapped into memory for as long as one of them lives.
    """
    try:
        with safe_open(str(file), framework="pt") as source:
            names = {_short(name): name for name in source.keys()}  # noqa: SIM118
            skip = (".attn.bias", ".attn.masked_bias", _HEAD)  # masks, and usually the embedding once more
            chosen = {s: f for s, f in names.items() if not s.endswith(skip) or part == _HEAD}
            if part is not None:
                chosen = {s: f for s, f in chosen.items() if (s.startswith(part) if part else not s.startswith("h."))}
            return {short: source.get_tensor(full) for short, full in chosen.items()}
    except Exception as error:
        raise ValueError(f"{file} cannot be read as GPT-2's weights ({first_line(error)})") from None


def _course_weights(theirs: dict[str, torch.Tensor], width: int) -> dict[str, torch.Tensor]:
    """Hugging Face's names and layouts to ours, as views: matrices transposed, query, key and value taken apart."""
    outside = {"wte.weight": "tok_emb.weight", "wpe.weight": "pos_emb.weight"}
    outside |= {"ln_f.weight": "final_norm.scale", "ln_f.bias": "final_norm.shift"}
    inside = {"ln_1.weight": "norm1.scale", "ln_1.bias": "norm1.shift", "ln_2.weight": "norm2.scale"}
    inside |= {"ln_2.bias": "norm2.shift", "attn.c_proj": "att.out_proj", "mlp.c_fc": "ff.layers.0"}
    inside |= {"mlp.c_proj": "ff.layers.2"}
    ours: dict[str, torch.Tensor] = {}
    for name, weight in theirs.items():
        if name in outside:
            ours[outside[name]] = weight
            continue
        part, _, rest = name.partition(".")
        layer, _, rest = rest.partition(".")
        module, _, leaf = rest.rpartition(".")
        block = f"trf_blocks.{layer}."
        if part != "h" or (module != "attn.c_attn" and rest not in inside and module not in inside):
            raise ValueError(f"{name} is not one of GPT-2's weights")
        matrix = weight.T if weight.dim() == 2 else weight
        if module == "attn.c_attn":
            if len(matrix) != 3 * width:
                raise ValueError(f"{name} has shape {tuple(weight.shape)}, not 3 times {width} columns")
            for part, piece in zip(("query", "key", "value"), matrix.split(width), strict=True):
                ours[f"{block}att.W_{part}.{leaf}"] = piece
        elif rest in inside:
            ours[block + inside[rest]] = weight
        else:
            ours[f"{block}{inside[module]}.{leaf}"] = matrix
    return ours
