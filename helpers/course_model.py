"""The pretrained model that ships with the course: a small GPT-2 in one file of at most 30 MB.

It has GPT-2's architecture and vocabulary with tied embeddings. The file keeps each weight matrix as 8-bit integers
with one scale per row. The card beside the file says what it was trained on and how well it does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .checkpoints import read_tensors, write_whole
from .gpt import GPTModel

COURSE_MODEL_FILE = Path(__file__).parent / "assets" / "course_model" / "course_model.safetensors"
_SCALE = ".scale_of_row"


def load_course_model(path: Path | str = COURSE_MODEL_FILE) -> tuple[GPTModel, dict[str, Any]]:
    """The course model in evaluation mode on the CPU, and its configuration (a dictionary as `GPT_CONFIG_124M`).

    Output layer and token embedding are one tensor. Raises FileNotFoundError, or ValueError if the file is not a
    course model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        stored, metadata = read_tensors(path)
        cfg = json.loads(metadata["config"])
        if "out_head.weight" in stored:
            raise ValueError("it has an output layer of its own")
        weights = {}
        for name, weight in stored.items():
            if not name.endswith(_SCALE):
                scale = stored.get(name + _SCALE)
                weights[name] = weight if scale is None else weight.float() * scale[:, None]
        weights["out_head.weight"] = weights["tok_emb.weight"]
        model = GPTModel({**cfg, "vocab_size": 1})  # the real embedding comes from the file
        model.tok_emb = torch.nn.Embedding(cfg["vocab_size"], cfg["emb_dim"], device="meta")
        model.out_head.weight = model.tok_emb.weight
        model.load_state_dict(weights, assign=True)
    except Exception as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        raise ValueError(f"{path} is not a course model file ({reason[:120]})") from None
    model.out_head.weight = model.tok_emb.weight  # read as two, they become one tensor again
    return model.eval(), cfg


def save_course_model(model: GPTModel, cfg: dict[str, Any], path: Path | str) -> None:
    """Write a model with tied embeddings, its matrices as 8-bit integers with a scale per row."""
    stored: dict[str, torch.Tensor] = {}
    for name, weight in model.state_dict().items():
        if name == "out_head.weight":
            continue
        weight = weight.detach().float().cpu()
        if weight.dim() == 2:
            scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127  # (rows,)
            stored[name], stored[name + _SCALE] = torch.round(weight / scale[:, None]).to(torch.int8), scale
        else:
            stored[name] = weight
    write_whole(path, lambda temporary: save_file(stored, temporary, metadata={"config": json.dumps(cfg)}))
