"""Saving and loading: a model alone, or everything a training run needs to go on as if it had never stopped (5.4).

A model alone is a safetensors file, which holds numbers and nothing that could run. A checkpoint is a file of torch's
that is read with `weights_only=True`. Both are written to a temporary file first and then renamed, so a file of the
name asked for is always whole: the new one or the old one.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from .files import existing_file, first_line, read_tensors, write_whole
from .gpt import GPT_CONFIG_124M, GPTModel, check_sizes, model_config
from .guards import evaluation_mode
from .speed.parts import is_course_gpt
from .training import Progress

_COMPILED = "_orig_mod."  # what torch.compile puts before every name


def save_model(model: torch.nn.Module, path: Path | str) -> None:
    """Write a model's weights to a safetensors file. Tensors that share their numbers are stored once.

    The file of a plain `GPTModel` also says its configuration, so that `load_saved_gpt` can build the model.
    """
    weights, places = {}, set()
    for name, weight in model.state_dict().items():
        place = _place(weight)
        if place not in places or not weight.numel():
            weights[name.replace(_COMPILED, "")] = weight.detach().contiguous()
        places.add(place)
    config = plain_config(model)
    metadata = None if config is None else {"config": json.dumps(config)}
    write_whole(path, lambda temporary: save_file(weights, temporary, metadata))


def load_model(model: torch.nn.Module, path: Path | str) -> None:
    """Read weights that `save_model` wrote into a model of the same shape.

    Raises FileNotFoundError, or ValueError if the file is damaged, or of another model.
    """
    try:
        weights, _ = read_tensors(existing_file(path))
    except Exception as error:
        raise _unreadable(path, error, "a safetensors file") from None
    _load(model, weights, path)


def save_checkpoint(
    path: Path | str,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress | None = None,
    **extra: Any,
) -> None:
    """Write model, optimizer, progress and torch's random states.

    `extra` takes numbers, strings and tensors, and lists, tuples and dictionaries of them; `load_checkpoint` returns
    it, NumPy's numbers as Python's. The file is read back before it takes the place of an earlier one.

    For a resumed run to repeat the uninterrupted one, save after whatever else is done between two updates: an
    evaluation after it would draw random numbers that the resumed run does not draw.

    Raises TypeError for an extra that could not be read back safely.
    """
    for name, value in extra.items():
        if not _plain(_without_numpy(value)):
            raise TypeError(f"{name} is a {type(value).__name__}; numbers, strings, and lists of them can be kept")
    random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}
    states = model.state_dict(), optimizer.state_dict()
    write_checkpoint(path, *states, progress or Progress(), random, extra, plain_config(model))


def write_checkpoint(
    path: Path | str,
    weights: dict[str, torch.Tensor],
    optimizer_state: dict[str, Any],
    progress: Progress,
    random: dict[str, Any],
    extra: dict[str, Any],
    config: dict[str, Any] | None = None,
) -> None:
    """What `save_checkpoint` does, for states that were gathered elsewhere (see `helpers.apps.train_distributed`)."""
    state = _without_numpy(
        {
            "course_checkpoint": 1,
            "model": {name.replace(_COMPILED, ""): weight for name, weight in weights.items()},
            "optimizer": optimizer_state,
            "progress": asdict(progress),
            "random": random,
            "extra": extra,
            "config": config,
        }
    )

    def write(temporary: str) -> None:
        torch.save(state, temporary)
        try:  # before the file takes the place of the last one
            torch.load(temporary, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:
            raise TypeError(f"{path} was not written: it could not be read back safely ({first_line(error)})") from None

    write_whole(path, write)


def load_checkpoint(
    path: Path | str, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> tuple[Progress, dict[str, Any]]:
    """Put a checkpoint back into a model and an optimizer, and torch's random states to where they were.

    Returns the progress, for `training_steps`, and the extras. Without an optimizer only the model is loaded, and the
    random states are left alone. Raises FileNotFoundError, or ValueError if the file is damaged or not a checkpoint of
    this model.
    """
    state = read_checkpoint(path)
    if optimizer is not None and not _fits(optimizer.state_dict(), state["optimizer"]):
        raise ValueError(f"{path} is the checkpoint of another optimizer, or of one with other parameters")
    _load(model, state["model"], path)
    if optimizer is not None:
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"]["cpu"])
        if torch.cuda.is_available() and len(state["random"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["random"]["cuda"])
    return Progress(**state["progress"]), state["extra"]


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """A checkpoint's entries, on the CPU: model, optimizer, progress, random and extra.

    Raises FileNotFoundError, or ValueError if the file is damaged or not a checkpoint of this course.
    """
    try:
        state = torch.load(existing_file(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise _unreadable(path, error, "a checkpoint") from None
    entries = {"course_checkpoint", "model", "optimizer", "progress", "random", "extra"}
    if not isinstance(state, dict) or not entries <= state.keys():
        raise ValueError(f"{path} is not a checkpoint of this course")
    return state


def load_saved_gpt(path: Path | str) -> tuple[GPTModel, dict[str, Any]]:
    """A `GPTModel` from a file of `save_model` or `save_checkpoint` alone, in evaluation mode, and its configuration.

    Raises FileNotFoundError, or ValueError if the file is damaged, does not say its configuration, or holds a model
    that is no plain `GPTModel` (a classifier, unmerged LoRA layers).
    """
    file = existing_file(path)
    if zipfile.is_zipfile(file):  # torch's own format
        state = read_checkpoint(path)
        weights, config = state["model"], state.get("config")
    else:
        try:
            weights, metadata = read_tensors(file)
            config = json.loads(metadata.get("config", "null"))
        except Exception as error:
            raise _unreadable(path, error, "a safetensors file or a checkpoint") from None
    if not isinstance(config, dict) or not GPT_CONFIG_124M.keys() <= config.keys():
        raise ValueError(
            f"{path} does not say the configuration of a plain GPTModel: build its model as it was built, and read the "
            "weights into it with load_model or load_checkpoint"
        )
    config = {name: config[name] for name in GPT_CONFIG_124M}
    try:
        check_sizes(config, weights)
        model = GPTModel(config)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or not a model of this course: {error}") from None
    head, embedding = weights.get("out_head.weight"), weights.get("tok_emb.weight")
    if head is None or (embedding is not None and head.data_ptr() == embedding.data_ptr()):  # one tensor for both
        model.out_head.weight = model.tok_emb.weight
    _load(model, weights, path)
    return model.eval(), config


class _ShapesOnly(TorchFunctionMode):
    """Leaves out what only fills tensors: on the meta device that would load 800 modules of torch, for nothing."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function.__name__ in ("normal_", "uniform_", "kaiming_uniform_", "triu"):
            return args[0] if args else None
        return function(*args, **(kwargs or {}))


def without_weights(cfg: dict[str, Any]) -> GPTModel:
    """A model whose parameters have a shape and no memory, until others are put in their place."""
    with torch.device("meta"), _ShapesOnly():
        model = GPTModel(cfg)
    for module in model.modules():  # the meta device gave the masks no content
        if isinstance(getattr(module, "mask", None), torch.Tensor):
            module.mask = torch.triu(torch.ones(module.mask.shape, dtype=torch.bool), diagonal=1)
    return model


def plain_config(model: torch.nn.Module) -> dict[str, Any] | None:
    """The configuration with which a plain `GPTModel` of the same weights computes what `model` does, to rounding.

    None if there is none: for another kind of model, and for one of which a part was changed (an activation, a mask, a
    class of your own). A model with such parts is tried out, on a text as long as its context.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile was given
    config = model_config(model)
    if config is None:
        return None
    plain = without_weights(config)
    try:
        plain.load_state_dict(model.state_dict(), assign=True)
    except RuntimeError:  # other parameters, or parameters of other sizes
        return None
    length = min(32, config["context_length"]) if is_course_gpt(model) else config["context_length"]
    ids = torch.randint(0, config["vocab_size"], (1, length), generator=torch.Generator().manual_seed(0))
    device = plain.tok_emb.weight.device
    try:
        with evaluation_mode(model), torch.no_grad():
            given, expected = model(ids.to(device)).float(), plain.eval().to(device)(ids.to(device)).float()
            if given.shape != expected.shape:
                return None
            share = 1e-3 if plain.tok_emb.weight.dtype in (torch.float32, torch.float64) else 0.05  # for rounding
            # Not "at most": weights that are not numbers do not make another model.
            return None if (given - expected).abs().max() > share * expected.abs().max() else config
    except Exception:  # a forward that takes or gives something else
        return None


def _unreadable(path: Path | str, error: Exception, kind: str) -> Exception:
    if isinstance(error, FileNotFoundError):
        return error
    return ValueError(f"{path} cannot be read as {kind}; it may be damaged or of another kind ({first_line(error)})")


def _load(model: torch.nn.Module, weights: dict[str, torch.Tensor], path: Path | str) -> None:
    own = model.state_dict()
    weights = {name.replace(_COMPILED, ""): weight for name, weight in weights.items()}
    compiled = {name.replace(_COMPILED, ""): name for name in own}
    shared = {}  # tied weights are stored once: find each missing name's twin
    for name, full in compiled.items():
        twins = [
            other
            for other in compiled
            if other != name and other in weights and _place(own[compiled[other]]) == _place(own[full])
        ]
        if twins and name not in weights:
            shared[name] = weights[twins[0]]
        elif twins and not torch.equal(weights[name], weights[twins[0]]):
            raise ValueError(f"{name} and {twins[0]} differ in {path}, but are one tensor in the model")
    weights |= shared
    for name in sorted(compiled.keys() | weights.keys()):
        if name not in weights or name not in compiled:
            where = "missing from" if name not in weights else "unknown to the model, but in"
            raise ValueError(f"{name} is {where} {path}: the file belongs to another model")
        if own[compiled[name]].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)}, the model has {tuple(own[compiled[name]].shape)}"
            raise ValueError(f"{name} in {path} has shape {shapes}: the file belongs to a model of another size")
    try:
        model.load_state_dict({compiled[name]: weight for name, weight in weights.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} cannot be loaded into this model: {first_line(error, 200)}") from None


def _place(weight: torch.Tensor) -> tuple:
    """Equal for two tensors that are one: a transposed matrix shares its numbers, but is another tensor."""
    return weight.data_ptr(), weight.shape, weight.stride()


def _fits(own: dict[str, Any], saved: dict[str, Any]) -> bool:
    """Whether two optimizers' states are of one kind and have the same groups of parameters."""
    groups, others = own["param_groups"], saved["param_groups"]
    same = [len(group["params"]) for group in groups] == [len(other["params"]) for other in others]
    # Settings that only one of them has may come from another version of torch; some on either side do not.
    return same and all(
        group.keys() <= other.keys() or other.keys() <= group.keys()
        for group, other in zip(groups, others, strict=True)
    )


def _without_numpy(value: Any) -> Any:
    """A value with NumPy's numbers and arrays in it as Python numbers and tensors, which can be read back safely."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
    if isinstance(value, dict):
        return {_without_numpy(key): _without_numpy(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_without_numpy, value))
    return value


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)
