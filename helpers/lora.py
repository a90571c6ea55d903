"""LoRA, low-rank adaptation: training a small product of two matrices beside each frozen weight matrix (appendix E).

After Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), sections 4.1 and 4.2. An adapter is what
such a training adds to a base model: a file of its own, merged into the weights or exchanged for another one. All
adapters here have one rank and one alpha, and go beside linear layers only.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

from .files import existing_file, first_line, read_tensors, write_whole
from .guards import evaluation_mode, guard
from .speed.parts import is_linear, is_unchanged, register_linear


def _check_sizes(rank: int, alpha: float) -> None:
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank={rank!r} must be a whole number of at least 1")
    if not isinstance(alpha, Real) or not 0 < alpha < math.inf:
        raise ValueError(f"alpha={alpha!r} must be a positive number")


class LoRALayer(nn.Module):
    """The product of two thin matrices, A (in_dim, rank) and B (rank, out_dim), times alpha / rank (section E.4).

    Takes (..., in_dim), returns (..., out_dim). B begins at zero, and with it the output. A is drawn as published,
    Kaiming-uniform with a = sqrt(5); PyTorch takes the second size for the number of inputs there, so its entries
    lie within 1 / sqrt(rank), where peft, which keeps A transposed, draws them within 1 / sqrt(in_dim).

    alpha / rank is the field's standard scale. The book's first printing multiplied by alpha alone: to repeat a run
    made that way, give alpha times rank. Raises ValueError for a rank below 1 and for an alpha that is not positive.
    """

    @guard(_check_sizes)
    def __init__(self, in_dim: int, out_dim: int, rank: int, alpha: float):
        super().__init__()
        self.A = nn.Parameter(torch.empty(in_dim, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.B = nn.Parameter(torch.zeros(rank, out_dim))
        self.rank = rank
        self.alpha = alpha

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.alpha / self.rank * (x @ self.A @ self.B)  # (..., out_dim)

    def delta(self) -> torch.Tensor:
        """The one matrix (in_dim, out_dim) that does the same."""
        return self.alpha / self.rank * (self.A @ self.B)


class LinearWithLoRA(nn.Module):
    """A linear layer and a `LoRALayer` beside it; their outputs are added (section E.4).

    Takes (..., in_dim), returns (..., out_dim): at first exactly what the linear layer returns.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.linear = linear
        lora = LoRALayer(linear.in_features, linear.out_features, rank, alpha)
        self.lora = lora.to(linear.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.lora(x)

    @property
    def weight(self) -> torch.Tensor:
        """The weight (out_dim, in_dim) of the one linear layer that does the same; gradients reach A and B."""
        return self.linear.weight + self.lora.delta().T


register_linear(LinearWithLoRA, lambda layer: type(layer.lora) is LoRALayer and is_linear(layer.linear))


def lora_layers(model: nn.Module) -> dict[str, LinearWithLoRA]:
    """The layers of a model that have LoRA, by name; they are known by what they hold, so your own class counts too."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora")}


def replace_layer(model: nn.Module, name: str, module: nn.Module) -> None:
    """Let `module` take the place of the model's layer with a (dotted) name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def _check_without_lora(model: nn.Module) -> None:
    if lora_layers(model):
        raise ValueError("model has LoRA layers already: begin with one that has none")


def _check_targets(model: nn.Module, targets: Sequence[str] | str | None) -> None:
    _check_without_lora(model)
    names = [name for name, module in model.named_modules() if name and isinstance(module, nn.Linear)]
    for target in [targets] if isinstance(targets, str) else targets or []:
        if not any(f".{target}." in f".{name}." for name in names):
            raise ValueError(f"targets has {target!r}, which is in the name of no linear layer of the model")
    if not names or (targets is not None and not targets):
        raise ValueError("there is no linear layer to give LoRA to")


@guard(_check_targets)
def replace_linear_with_lora(
    model: nn.Module, rank: int, alpha: float, targets: Sequence[str] | str | None = None
) -> None:
    """Give linear layers of a model LoRA, in place: all of them, or those that `targets` name (section E.4).

    A target is a layer's name or some whole parts of it: "W_query" in every block, "att" for all four of attention's
    layers, "trf_blocks.5" for a block, "out_head". What is trained is up to you: freeze the model's own parameters
    first. Raises ValueError, before anything is changed, for a target that no linear layer has in its name, for a
    model that has LoRA already, and as `LoRALayer`.
    """
    targets = [targets] if isinstance(targets, str) else targets
    for name, module in list(model.named_modules()):
        chosen = targets is None or any(f".{target}." in f".{name}." for target in targets)
        if chosen and isinstance(module, nn.Linear):
            replace_layer(model, name, LinearWithLoRA(module, rank, alpha))


def _check_mergeable(model: nn.Module) -> None:
    layers = lora_layers(model)
    if not layers:
        raise ValueError("model has no LoRA layers to merge")
    if not all(isinstance(layer.linear, nn.Linear) for layer in layers.values()):
        raise ValueError("model has weights in another form (fewer bits, packed): merge first")
    for name, layer in layers.items():
        _check_weight(name, layer)


def _check_weight(name: str, layer: nn.Module) -> None:
    """What a layer computes has to be what one linear layer with its `weight` computes."""
    linear = layer.linear
    if "weight" not in linear._parameters:
        raise ValueError(f"{name} has a weight that is made of others (parametrized, pruned): make it one first")
    if not _computes(layer, lambda x: F.linear(x, layer.weight.to(x), linear.bias), linear.weight):
        raise ValueError(
            f"{name} computes something else than its weight says (a class of its own, a hook): it cannot be merged"
        )


def _computes(module: nn.Module, formula: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor) -> bool:
    """Whether a module gives what a formula gives, to rounding, for a few inputs that a matrix `like` this one takes.

    The matrix is (_, in_dim) and lends its type and device. Torch's global random state is left alone.
    """
    x = torch.randn(1, 4, like.shape[-1], generator=torch.Generator().manual_seed(0)).to(like)
    with evaluation_mode(module), torch.no_grad():
        got, expected = module(x), formula(x)
    rounding = max(1e-5 if _products_are_exact() else 1e-2, 2 * torch.finfo(got.dtype).eps)
    got, expected = got.float(), expected.float()
    return not (got - expected).norm() > rounding * (got.norm() + expected.norm())


def _products_are_exact() -> bool:
    """Whether products of float32 matrices are float32 too, not rounded to fewer digits for speed (TF32)."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # it was set by torch.backends, which this function cannot read
        return False


def _check_savable(name: str, layer: nn.Module) -> None:
    """A file has A, B, rank and alpha, which `load_adapter` uses as `LoRALayer` does."""
    lora = layer.lora

    def product(x: torch.Tensor) -> torch.Tensor:
        return lora.alpha / lora.rank * (x.to(lora.A) @ lora.A @ lora.B)

    if type(layer) is LinearWithLoRA and is_unchanged(layer):
        same = _computes(lora, product, lora.A.T)
    else:
        like = layer.linear.weight if isinstance(layer.linear, nn.Linear) else lora.A.T
        same = _computes(layer, lambda x: layer.linear(x) + product(x), like)
    if not same:
        raise ValueError(
            f"{name} computes something else than alpha / rank times A and B beside its linear layer (a class of its "
            "own, a hook): an adapter's file cannot hold that"
        )


def _warn_of_others(model: nn.Module, kept: Iterable[nn.Parameter], stacklevel: int) -> None:
    """Warn of what may have been trained and is not kept."""
    kept = {id(parameter) for parameter in kept}
    others = [name for name, value in model.named_parameters() if value.requires_grad and id(value) not in kept]
    if others:
        warnings.warn(
            f"{len(others)} trainable parameters are not part of the adapter, {others[0]} first: freeze them before "
            "training",
            stacklevel=stacklevel,
        )


@torch.no_grad()
@guard(_check_mergeable)
def merge_lora(model: nn.Module) -> dict[str, LoRALayer]:
    """Add each LoRA product to the weight it stands beside, in place; returns what was merged, by layer (section E.5).

    The model is then built of plain linear layers again, and so are its files. Weights that were shared with another
    layer, as GPT-2's output layer with the embedding, are not shared any more. Raises ValueError for a model without
    LoRA, one whose linear layers were quantized, packed or parametrized, or a layer that computes otherwise than its
    `weight` says, such as one with a hook.
    """
    layers = lora_layers(model)
    for name, layer in layers.items():
        linear = copy.deepcopy(layer.linear)  # the frozen layer itself may serve other adapters
        linear.weight.copy_(layer.weight)
        replace_layer(model, name, linear)
    return {name: layer.lora for name, layer in layers.items()}


@torch.no_grad()
def unmerge_lora(model: nn.Module, merged: dict[str, LoRALayer]) -> None:
    """Take out again what `merge_lora` put into a model and returned: the product is subtracted and stands beside.

    The weights are the former ones to rounding. Raises ValueError, before anything is changed, if a layer does not fit.
    """
    linears = {name: _fitting(model, name, lora.A, lora.B) for name, lora in merged.items()}
    for name, lora in merged.items():
        linear = copy.deepcopy(linears[name])
        linear.weight.sub_(lora.delta().T)
        replace_layer(model, name, _beside(linear, lora))


def save_adapter(model: nn.Module, path: Path | str, also: Sequence[str] = ()) -> None:
    """Write a model's adapter to a safetensors file: A and B of each layer; rank, alpha and targets as its metadata.

    `also` names linear layers that the base model does not have in this form, such as a classifier's "out_head"; they
    are written whole. Warns if other parameters are trainable. Raises ValueError if the model has no LoRA, no linear
    layer of such a name, or a layer that computes otherwise than `LinearWithLoRA`.
    """
    model = getattr(model, "_orig_mod", model)  # compiled models have longer names
    layers = lora_layers(model)
    if not layers:
        raise ValueError("model has no LoRA layers to save")
    tensors = {}
    for name, layer in layers.items():
        _check_savable(name, layer)
        tensors |= {f"{name}.lora.A": layer.lora.A, f"{name}.lora.B": layer.lora.B}
    kept = list(tensors.values())
    modules = dict(model.named_modules())
    for name in also:
        module = modules.get(name)
        linear = module.linear if name in layers else module
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"also has {name!r}, which is no linear layer of the model")
        tensors |= {f"{name}.{part}": values for part, values in linear.state_dict().items()}
        kept += linear.parameters()
    tensors = {name: values.detach().cpu().contiguous() for name, values in tensors.items()}
    sizes = {(layer.lora.rank, layer.lora.alpha) for layer in layers.values()}
    if len(sizes) > 1:
        raise ValueError(f"an adapter has one rank and one alpha; this model's layers have {sorted(sizes)}")
    [(rank, alpha)] = sizes
    _warn_of_others(model, kept, stacklevel=3)
    alpha = alpha if isinstance(alpha, int) else float(alpha)  # JSON does not know NumPy's numbers
    settings = {"rank": rank, "alpha": alpha, "targets": list(layers), "also": list(also)}
    write_whole(path, lambda temporary: save_file(tensors, temporary, metadata={"lora": json.dumps(settings)}))


@torch.no_grad()
def load_adapter(model: nn.Module, path: Path | str) -> dict[str, Any]:
    """Put an adapter that `save_adapter` wrote onto its base model, in place; returns rank, alpha, targets and also.

    Raises FileNotFoundError, or ValueError, before anything is changed, if the file is damaged or not an adapter, if it
    belongs to another model, or if the model has LoRA already.
    """
    file = existing_file(path)
    model = getattr(model, "_orig_mod", model)  # compiled models have longer names
    _check_without_lora(model)
    try:
        tensors, metadata = read_tensors(file)
        settings = json.loads(metadata["lora"])
        pairs = {name: (tensors[f"{name}.lora.A"], tensors[f"{name}.lora.B"]) for name in settings["targets"]}
        heads = {name: (tensors[f"{name}.weight"], tensors.get(f"{name}.bias")) for name in settings["also"]}
        rank, alpha = settings["rank"], settings["alpha"]
        if any((a.shape[1], b.shape[0]) != (rank, rank) for a, b in pairs.values()):
            raise ValueError(f"its matrices are not of rank {rank}")
    except Exception as error:
        raise ValueError(f"{path} is not an adapter's file, or it is damaged ({first_line(error)})") from None
    new: dict[str, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):  # what the layers draw is overwritten
        for name, (weight, bias) in heads.items():
            old = _fitting(model, name, weight.T, None)
            new[name] = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(old.weight)
            new[name].load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        for name, (a, b) in pairs.items():
            layer = LinearWithLoRA(_fitting(model, name, a, b, new.get(name)), rank, alpha)
            layer.lora.load_state_dict({"A": a, "B": b})
            new[name] = layer
    for name, module in new.items():
        replace_layer(model, name, module)
    return settings


def _check_use(self: Adapters, name: str | None) -> None:
    if name is not None and name not in self.kept:
        raise ValueError(f"name={name!r} was not kept; there are {', '.join(self.kept) or 'no adapters'}")
    if self.changed() and self.changed() not in self.kept.values():
        raise ValueError("the layers on the model would be lost: keep them under a name first")


def _warn_at_keep(self: Adapters) -> None:
    base = {id(parameter) for layer in self.base.values() for parameter in layer.parameters()}
    changed = [parameter for layer in self.changed().values() for parameter in layer.parameters()]
    _warn_of_others(self.model, [parameter for parameter in changed if id(parameter) not in base], stacklevel=4)


class Adapters:
    """Several adapters on one frozen base model, of which one, or none, is in use at a time (section E.5).

    The base is the model as it is when this is made. `keep(name)` remembers, under a name, the linear layers that were
    exchanged since (LoRA layers, a new head); `use(name)` puts them back, `use()` gives the base alone. No weight is
    copied. Raises ValueError for a model that has LoRA already, for a name that was not kept, and when `use` would
    throw away layers that were not kept; `keep` warns if anything else in the model is trainable.
    """

    @guard(_check_without_lora)
    def __init__(self, model: nn.Module):
        self.model = model
        linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        self.base = {name: model.get_submodule(name) for name in linears}
        self.kept: dict[str, dict[str, nn.Module]] = {}

    def changed(self) -> dict[str, nn.Module]:
        """The linear layers that are not the base's at the moment, by name."""
        now = {name: self.model.get_submodule(name) for name in self.base}
        return {name: module for name, module in now.items() if module is not self.base[name]}

    @guard(_warn_at_keep)
    def keep(self, name: str) -> None:
        self.kept[name] = self.changed()

    @guard(_check_use)
    def use(self, name: str | None = None) -> None:
        layers = self.base | self.kept.get(name, {})  # what is kept replaces the base's layers
        for place, module in layers.items():
            replace_layer(self.model, place, module)


def _fitting(
    model: nn.Module, name: str, a: torch.Tensor, b: torch.Tensor | None, linear: nn.Linear | None = None
) -> nn.Linear:
    """The model's linear layer of a name, or `linear` in its stead, if its sizes are those of A and B."""
    linear = linear or dict(model.named_modules()).get(name)
    if not isinstance(linear, nn.Linear):
        raise ValueError(f"the adapter is for another model: this one has no linear layer {name}")
    given = (a.shape[0], linear.out_features if b is None else b.shape[1])
    if given != (linear.in_features, linear.out_features):
        sizes = f"from {linear.in_features} to {linear.out_features} here, from {given[0]} to {given[1]} there"
        raise ValueError(f"the adapter is for another model: {name} goes {sizes}")
    return linear


def _beside(linear: nn.Linear, lora: LoRALayer) -> LinearWithLoRA:
    """A linear layer with a LoRA layer that exists already."""
    with torch.random.fork_rng(devices=[]):
        layer = LinearWithLoRA(linear, lora.rank, lora.alpha)
    layer.lora = lora
    return layer
