"""The checkers of the notebook on memory-efficient weights: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers import load_course_model, load_text
from helpers.speed.rounding import round_weights
from helpers.tokenizers import get_tokenizer
from tests import checkers

# memory.1


def put(model, name, tensor):
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, tensor)


def by_setattr(model, names, read):
    for name in names:
        put(model, name, nn.Parameter(read(name).float()))


def by_loading(model, names, read):
    for name in names:
        model.load_state_dict({name: read(name).to(torch.float32)}, strict=False, assign=True)
    return model


def into_empty(model, names, read):
    model.to_empty(device="cpu")
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).copy_(read(name))


def all_at_once(model, names, read):
    weights = {name: read(name) for name in names}
    for name in names:
        put(model, name, nn.Parameter(weights[name].float()))


def reads_twice(model, names, read):
    for name in names:
        assert read(name).shape
        put(model, name, nn.Parameter(read(name).float()))


def keeps_views(model, names, read):
    model.kept = []
    for name in names:
        weight = read(name)
        model.kept.append(weight[:1])
        put(model, name, nn.Parameter(weight.float()))


def as_in_the_file(model, names, read):
    for name in names[::-1]:
        put(model, name, nn.Parameter(read(name)))


def without_assign(model, names, read):
    for name in names:
        parameter = model.get_parameter(name)
        parameter.requires_grad_(False).copy_(read(name).to("meta"))


def frozen(model, names, read):
    for name in names:
        put(model, name, nn.Parameter(read(name).float(), requires_grad=False))


def halved(model, names, read):
    for name in names:
        put(model, name, nn.Parameter(read(name).float() / 2))


def leaves_one(model, names, read):
    by_setattr(model, names[:-1], read)


def as_plain_tensors(model, names, read):
    for name in names:
        owner, _, last = name.rpartition(".")
        delattr(model.get_submodule(owner), last)
        put(model, name, read(name).float())


def turned(model, names, read):
    for name in names:
        weight = read(name).float()
        put(model, name, nn.Parameter(weight.T.contiguous() if weight.dim() == 2 else weight))


# memory.2


def unpack(packed):
    both = torch.stack((packed % 16, packed // 16), dim=1).flatten().to(torch.int8)
    return torch.where(both > 7, both - 16, both)


def by_shifting(packed):
    low = (packed.to(torch.int8) << 4) >> 4
    return torch.stack((low, packed.view(torch.int8) >> 4), dim=-1).reshape(-1)


def in_python(packed):
    halves = [half for byte in packed.tolist() for half in (byte & 15, byte >> 4)]
    return [half - 16 if half >= 8 else half for half in halves]


# memory.3

MARKS = {"embedding": "emb", "attention": ".att.", "feed-forward": ".ff."}


def loss_of(model):
    ids = torch.tensor(get_tokenizer().encode(load_text("story"))[:1025])
    with torch.no_grad():
        logits = model(ids[:-1].view(4, 256))
    return F.cross_entropy(logits.flatten(0, 1), ids[1:])


@pytest.fixture(scope="module")
def losses():
    """The losses of the course model: exact, and with the matrices rounded whose names have a mark in them."""
    model, _ = load_course_model()
    found = {None: loss_of(model).item()}
    for mark in (*MARKS.values(), ""):
        found[mark] = loss_of(rounded(model, mark)).item()
    return found


def rounded(model, mark):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and mark in name:
                weight.copy_(round_weights(weight, 4))
    return model


FORMS = {
    "a float": lambda losses, part: losses[MARKS[part]] - losses[None],
    "a tensor": lambda losses, part: torch.tensor(losses[MARKS[part]]) - losses[None],
    "to two digits": lambda losses, part: float(f"{losses[MARKS[part]] - losses[None]:.3g}"),
}

SLIPS = {
    "losses": (lambda losses, part: losses[MARKS[part]], "These are losses"),
    "the other sign": (lambda losses, part: losses[None] - losses[MARKS[part]], "The sign is the other way round"),
    "all at once": (lambda losses, part: losses[""] - losses[None], "All parts are rounded at the same time"),
    "nothing": (lambda losses, part: 0.0, "Nothing rises"),
    "another part": (
        lambda losses, part: losses[".att." if part == "feed-forward" else MARKS[part]] - losses[None],
        "rise('feed-forward') is",
    ),
    "text": (lambda losses, part: "0.1", "must be one number"),
}

RIGHT = [("memory.1", by_setattr), ("memory.1", by_loading), ("memory.1", into_empty)]
RIGHT += [("memory.2", unpack), ("memory.2", by_shifting), ("memory.2", in_python)]

WRONG = {
    "all at once": ("memory.1", all_at_once, "were in memory at the same time"),
    "keeps views": ("memory.1", keeps_views, "were in memory at the same time"),
    "reads twice": ("memory.1", reads_twice, "were read again"),
    "as in the file": ("memory.1", as_in_the_file, "float32 is expected"),
    "copies into meta": ("memory.1", without_assign, "still on the meta device"),
    "frozen": ("memory.1", frozen, "requires_grad is False"),
    "halved": ("memory.1", halved, "other numbers"),
    "one left": ("memory.1", leaves_one, "still on the meta device"),
    "plain tensors": ("memory.1", as_plain_tensors, "assign an nn.Parameter"),
    "turned": ("memory.1", turned, "in the file"),
    "a wrong name": ("memory.1", lambda model, names, read: read("weights"), "not one of the names"),
    "no sign": ("memory.2", lambda packed: unpack(packed) % 16, "never negative"),
    "other order": ("memory.2", lambda packed: unpack(packed).view(-1, 2).flip(1).flatten(), "in the wrong order"),
    "halves apart": ("memory.2", lambda packed: unpack(packed).view(-1, 2).T.flatten(), "all lower halves"),
    "bytes": ("memory.2", lambda packed: unpack(packed).to(torch.uint8), "wrapped around"),
    "one per byte": ("memory.2", lambda packed: packed % 16, "yours have shape"),
    "absolute": ("memory.2", lambda packed: unpack(packed).abs(), "lost their sign"),
    "not shifted": ("memory.2", lambda packed: unpack(packed) + 8, "8 too large"),
    "doubled": ("memory.2", lambda packed: 2 * unpack(packed), "expected"),
}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers(name):
    checkers.refuses(*WRONG[name], giveaways=["setattr", "% 16", "& 15", ">> 4", "get_submodule"])


@pytest.mark.parametrize("form", FORMS)
def test_right_rises(form, losses):
    verdict = checkers.accepts("memory.3", lambda part: FORMS[form](losses, part))
    for part, mark in MARKS.items():
        assert f"{losses[mark] - losses[None]:.2f} for the {part}" in verdict.message
    sizes = dict.fromkeys(MARKS.values(), 0)
    for name, weight in load_course_model()[0].named_parameters():
        for mark in sizes:
            sizes[mark] += weight.numel() * (weight.dim() == 2 and mark in name)
    per_weight = {mark: (losses[mark] - losses[None]) / size for mark, size in sizes.items()}
    assert 2 * sizes["emb"] > sum(sizes.values()) and min(per_weight, key=per_weight.get) == "emb"  # as it says


@pytest.mark.parametrize("name", SLIPS)
def test_wrong_rises(name, losses):
    answer, aim = SLIPS[name]
    checkers.refuses("memory.3", lambda part: answer(losses, part), aim)


def test_a_call_that_changes_the_model(losses):
    calls = []

    def rise(part):
        calls.append(part)
        return losses[MARKS[part]] - losses[None] + 0.1 * (len(calls) > 3)

    checkers.fails(checkers.checks.exercise_memory_3(rise), "a call must not change the course model")
