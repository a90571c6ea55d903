"""The checkers of chapter 7: right answers pass, each likely slip gets its own hint, no hint gives the solution."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
import pytest
import torch

from helpers import GPTModel, checks, gpt_config, load_instructions, replace_linear_with_lora
from helpers.course.checks import ch07
from helpers.instructions import format_input, format_phi3, split_entries
from tests import checkers
from tests.tiny import tiny_model

RIGHT, WRONG = [], []  # (number, answer) and (number, answer, what the hint must speak of)

# 7.1


def phi3_in_one_line(entry):
    return "<|user|>\n" + "\n".join(text for text in (entry["instruction"], entry["input"]) if text)


def phi3_by_parts(entry):
    text = "<|user|>\n{instruction}".format(**entry)
    if entry["input"] != "":
        text += "\n" + entry["input"]
    return text


RIGHT += [("7.1", format_phi3), ("7.1", phi3_in_one_line), ("7.1", phi3_by_parts)]

WRONG += [
    ("7.1", lambda e: 5, "string"),
    ("7.1", format_input, "Alpaca"),
    ("7.1", lambda e: format_phi3(e) + "\n\n<|assistant|>\n", "marker"),
    ("7.1", lambda e: format_phi3(e) + e["output"], "answer must not"),
    ("7.1", lambda e: f"<|user|>\n{e['instruction']}\n{e['input']}", "no line break either"),
    ("7.1", lambda e: f"<|user|>\n{e['instruction']}", "missing"),
    ("7.1", lambda e: f"user\n{e['instruction']}", "tag of the user"),
    ("7.1", lambda e: format_phi3(e).replace("\n", " "), "line breaks or spaces"),
]


# 7.A


def grouped(entries):
    groups = defaultdict(list)
    for entry in entries:
        groups[entry["instruction"]].append(entry)
    return sorted(groups.values(), key=len)


def split_groups(entries, share):
    train, test = [], []
    for group in grouped(entries):
        (test if len(test) < share * len(entries) else train).extend(group)
    return train, test


def largest_last(entries, share):  # fills up as far as it goes, and returns lists in a list
    chosen, size = set(), 0
    for group in grouped(entries):
        if size + len(group) <= share * len(entries):
            chosen.add(group[0]["instruction"])
            size += len(group)
    return [[e for e in entries if e["instruction"] not in chosen], [e for e in entries if e["instruction"] in chosen]]


def in_given_order(entries, share):
    chosen, size = [], 0
    for entry in entries:
        if entry["instruction"] not in chosen and size < share * len(entries):
            chosen.append(entry["instruction"])
            size = sum(e["instruction"] in chosen for e in entries)
    test = tuple(e for e in entries if e["instruction"] in chosen)
    return tuple(e for e in entries if e["instruction"] not in chosen), test


def share_of_groups(entries, share):
    groups = grouped(entries)[::-1]
    count = round(share * len(groups))
    return [e for group in groups[count:] for e in group], [e for group in groups[:count] for e in group]


def emptied(entries, share):
    parts = split_groups(list(entries), share)
    entries.clear()
    return parts


RIGHT += [("7.A", split_groups), ("7.A", largest_last), ("7.A", in_given_order)]

WRONG += [
    ("7.A", lambda entries, share: split_entries(entries, 1 - share, share)[:2], "are in both lists"),
    ("7.A", lambda entries, share: split_groups(entries, share)[::-1], "other order"),
    ("7.A", lambda entries, share: (split_groups(entries, share)[0], []), "in neither list"),
    ("7.A", lambda entries, share: (entries, split_groups(entries, share)[1]), "are in both lists, in one twice"),
    ("7.A", lambda entries, share: (entries, []), "are to be met"),
    ("7.A", share_of_groups, "are to be met"),
    ("7.A", lambda entries, share: entries, "Two lists"),
    ("7.A", emptied, "changed the list"),
]


# 7.B

TARGETS = [[11, 12, 13, 99], [99, -100, -100, -100], [31, 99, -100, -100]]


RIGHT += [
    ("7.B", TARGETS),
    ("7.B", torch.tensor(TARGETS)),
    ("7.B", np.array(TARGETS)),
    ("7.B", tuple(map(tuple, TARGETS))),
    ("7.B", torch.tensor(TARGETS).float()),
]

WRONG += [
    ("7.B", [[10, 11, 12, 13], [20, 99, 99, 99], [30, 31, 99, 99]], "inputs"),
    ("7.B", [[11, 12, 13, 99], [99, 99, 99, 99], [31, 99, 99, 99]], "first 99"),
    ("7.B", [[11, 12, 13, -100], [-100] * 4, [31, -100, -100, -100]], "ends"),
    ("7.B", [[11, 12, 13, 99], [20, 99, -100, -100], [31, 99, -100, -100]], "Row 2"),
    ("7.B", [[11, 12, 13], [99, -100, -100], [31, 99, -100]], "places"),
    ("7.B", TARGETS[:2], "three rows"),
    ("7.B", "no", "list of three lists"),
    ("7.B", 5, "list of three lists"),
]


# 7.2


def masking(shift=0, own=True, end=False):
    def mask_prompts(targets, lengths):
        targets = targets.clone()
        for row, length in enumerate(lengths):
            targets[row, : (length if own else lengths[0]) - 1 + shift] = -100
            if end:
                targets[row, (targets[row] != -100).nonzero()[-1]] = -100
        return targets

    return mask_prompts


def masked_at_once(targets, lengths):
    before = torch.arange(targets.shape[1]) < torch.tensor(lengths)[:, None] - 1
    return targets.masked_fill(before, -100)


def masked_in_place(targets, lengths):
    for k in range(len(lengths)):
        for place in range(lengths[k] - 1):
            targets[k][place] = -100
    return targets


def from_place(first):  # as many places as right, but not those
    def mask_prompts(targets, lengths):
        targets = targets.clone()
        for row, length in enumerate(lengths):
            targets[row, first : first + length - 1] = -100
        return targets

    return mask_prompts


def last_ones(targets, lengths):  # the answer in place of the prompt
    targets = targets.clone()
    for row, length in enumerate(lengths):
        counted = (targets[row] != -100).nonzero().flatten()
        targets[row, counted[len(counted) - (length - 1) :]] = -100
    return targets


def at_random(targets, lengths):
    targets = targets.clone()
    generator = torch.Generator().manual_seed(3)
    for row, length in enumerate(lengths):
        counted = (targets[row] != -100).nonzero().flatten()[:-1]
        targets[row, counted[torch.randperm(len(counted), generator=generator)[: length - 1]]] = -100
    return targets


RIGHT += [("7.2", masking()), ("7.2", masked_at_once), ("7.2", masked_in_place)]

WRONG += [
    ("7.2", masking(1), "who predicts it"),
    ("7.2", masking(-1), "still counts"),
    ("7.2", masking(end=True), "learn to stop"),
    ("7.2", masking(own=False), "own length"),
    ("7.2", from_place(1), "the wrong ones"),
    ("7.2", at_random, "the wrong ones"),
    ("7.2", last_ones, "learn to stop"),
    ("7.2", lambda t, n: t, "Nothing was masked"),
    ("7.2", lambda t, n: torch.full_like(t, -100), "no target is left"),
    ("7.2", lambda t, n: t[:, 2:], "not cut"),
    ("7.2", lambda t, n: t.tolist(), "tensor"),
    ("7.2", lambda t, n: torch.where(masking()(t, n) == -100, -100, 1), "stay what they were"),
    ("7.2", lambda t, n: (n.clear(), masked_at_once(t, [1] * len(t)))[1], "must stay as it is"),
]


# 7.3


def cut(lengths, most):
    return sum(max(0, length - most) for length in lengths)


def planning(lengths, batch_size, share, measure=cut):
    limit = 1
    while measure(lengths, limit) > share * sum(lengths):
        limit += 1
    return limit, len(lengths) // batch_size


def planning_from_above(lengths, batch_size, share):
    limit = max(lengths)
    while limit > 1 and cut(lengths, limit - 1) <= share * sum(lengths):
        limit -= 1
    return np.array([limit, len(lengths) // batch_size])


def planning_by_halves(lengths, batch_size, share):
    low, high = 0, max(lengths)  # at `high` not too much is cut, at `low` it is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if cut(lengths, middle) <= share * sum(lengths) else (middle, high)
    return torch.tensor([high, (len(lengths) - len(lengths) % batch_size) // batch_size])


def entries_cut(lengths, most):
    return sum(length > most for length in lengths) / len(lengths) * sum(lengths)


def whole_entries(lengths, most):
    return sum(length for length in lengths if length > most)


RIGHT += [("7.3", planning), ("7.3", planning_from_above), ("7.3", planning_by_halves)]

WRONG += [
    ("7.3", lambda n, b, s: (planning(n, b, s)[0], -(-len(n) // b)), "last batch"),
    ("7.3", lambda n, b, s: (planning(n, b, s)[0], len(n) / b), "whole numbers"),
    ("7.3", lambda n, b, s: (planning(n, b, s)[0], len(n)), "updates is not right"),
    ("7.3", lambda n, b, s: planning(n, b, s, entries_cut), "share of the entries"),
    ("7.3", lambda n, b, s: planning(n, b, s, whole_entries), "not the whole"),
    ("7.3", lambda n, b, s: (planning(n, b, s)[0] - 1, len(n) // b), "too much"),
    ("7.3", lambda n, b, s: (planning(n, b, s)[0] + 1, len(n) // b), "smaller limit"),
    ("7.3", lambda n, b, s: (max(n), len(n) // b), "smaller limit"),
    ("7.3", lambda n, b, s: len(n) // b, "Two whole numbers"),
]


# 7.4


def freeze(model):
    for parameter in model.parameters():
        parameter.requires_grad = False


def preparing(model, rank, alpha):
    freeze(model)
    replace_linear_with_lora(model, rank, alpha)


def preparing_at_once(model, rank, alpha):
    model.requires_grad_(False)
    replace_linear_with_lora(model, rank=rank, alpha=alpha)
    return model


def thawing(model, rank, alpha):
    replace_linear_with_lora(model, rank, alpha)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora." in name)


def too_late(model, rank, alpha):
    replace_linear_with_lora(model, rank, alpha)
    freeze(model)


def only_attention(model, rank, alpha):
    freeze(model)
    replace_linear_with_lora(model, rank, alpha, targets="att")


def swapped(model, rank, alpha):
    freeze(model)
    replace_linear_with_lora(model, int(alpha), float(rank))


def louder(model, rank, alpha):
    preparing(model, rank, alpha)
    with torch.no_grad():
        model.trf_blocks[0].att.W_query.lora.B.add_(1.0)


RIGHT += [("7.4", preparing), ("7.4", preparing_at_once), ("7.4", thawing)]

WRONG += [
    ("7.4", too_late, "frozen too"),
    ("7.4", lambda model, rank, alpha: replace_linear_with_lora(model, rank, alpha), "besides LoRA's"),
    ("7.4", lambda model, rank, alpha: freeze(model), "no LoRA layers"),
    ("7.4", only_attention, "linear layers have LoRA"),
    ("7.4", swapped, "other order"),
    ("7.4", louder, "something else"),
]


# 7.C


def reading(reply):
    whole = re.fullmatch(r"\s*(\d+)\s*", reply)
    found = whole or re.search(r"score(?:\s+is|\s*:)\s*(\d+)(?!\d|\.\d)", reply, re.IGNORECASE)
    return int(found[1]) if found and int(found[1]) <= 100 else None


def reading_by_hand(reply):
    if reply.strip().isdigit():
        value = int(reply)
        return value if value <= 100 else None
    _, found, rest = reply.lower().partition("score")
    rest = rest.lstrip().removeprefix(":").removeprefix("is").strip() if rest.lstrip()[:1] in (":", "i") else ""
    token = rest.replace("/", " ").replace(",", " ").split()[:1]
    digits = token[0].rstrip(".") if found and token else ""
    return int(digits) if digits.isdigit() and int(digits) <= 100 else None


RIGHT += [
    ("7.C", reading),
    ("7.C", reading_by_hand),
    ("7.C", lambda reply: None if (s := reading(reply)) is None else float(s)),
]


def first_number(reply):
    found = re.search(r"\d+", reply)
    return int(found[0]) if found and int(found[0]) <= 100 else None


def pattern(regex):
    def read(reply):
        found = re.fullmatch(r"\s*(-?[\d.]+)\s*", reply) or re.search(regex, reply)
        return int(float(found[1])) if found and 0 <= float(found[1]) <= 100 else None

    return read


WRONG += [
    ("7.C", first_number, "another of its numbers"),
    ("7.C", lambda reply: str(reading(reply)), "must be one number, not str"),
    ("7.C", lambda reply: int(reply) if reply.strip().isdigit() else None, "found none"),
    ("7.C", lambda reply: reading(reply) or 0, "None is expected"),
    ("7.C", lambda reply: int(str(reading(reply))[0]) if reading(reply) is not None else None, "part of the number"),
    ("7.C", lambda reply: int(reply), "ValueError"),
    ("7.C", pattern(r"(?i)score\D*(\d+)"), "for 3 reasons"),
    ("7.C", pattern(r"(?i)score(?:\s+is|\s*:)?\s*(\d+)"), "'score 40'"),
    ("7.C", pattern(r"(?i)score(?:\s+is|\s*:)\s*(\d{1,3})"), "'Score: 1000'"),
    ("7.C", pattern(r"(?i)score(?:\s+is|\s*:)\s*(\d+)(?!\d)"), "85.5"),
    ("7.C", lambda reply: first_number(reply) if reply == "-5" else reading(reply), "'-5'"),
    ("7.C", lambda reply: int(reply) if reply == "250" else reading(reply), "'250'"),
]


GIVEAWAYS = {"7.B": ["31, 99"]}


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_right_answers(number, answer):
    checkers.accepts(number, answer)


@pytest.mark.parametrize(("number", "answer", "aim"), WRONG)
def test_wrong_answers(number, answer, aim):
    checkers.refuses(number, answer, aim, GIVEAWAYS.get(number, ()))


KNOWN = load_instructions("instructions")[0]["instruction"]
LESSONS = [{"instruction": "Say it twice.", "input": f"word{k}", "output": f"word{k} word{k}"} for k in range(25)]


class TestTeaching:
    """Exercise 7.D: what the model answers is played by a stand-in; the solution in appendix C trains a real one."""

    @pytest.fixture(name="verdict")
    def verdict_of(self, monkeypatch):
        def verdict(right=5, old=1.0, lessons=LESSONS[:20], unseen=LESSONS[20:], taught=None):
            def play(model, entries, tokenizer, context, most, style):
                assert style is ch07.PHI3
                if entries[0]["instruction"] == unseen[0]["instruction"]:
                    return [e["output"] if k < right else "no" for k, e in enumerate(entries)]
                return [e["output"] if k < old * len(entries) else "%" for k, e in enumerate(entries)]

            monkeypatch.setattr(ch07, "answer_entries", play)
            monkeypatch.setattr(ch07, "_assistant_f1", lambda: 0.9)
            return checks.exercise_7_d(lessons, unseen, tiny_model() if taught is None else taught)

        return verdict

    def test_right(self, verdict):
        others = {
            "lessons": tuple(LESSONS[:20]),
            "unseen": [*LESSONS[20:], {**LESSONS[0], "input": "x", "output": "x x"}],
        }
        for kwargs in ({}, {"right": 3, "old": 0.5}, others):
            assert verdict(**kwargs), verdict(**kwargs)
        assert "3 of 5" in verdict(right=3).message

    @pytest.mark.parametrize(
        ("kwargs", "aim"),
        [
            ({"right": 2}, "2 of 5"),
            ({"old": 0.2}, "forgotten"),
            ({"lessons": LESSONS[:12]}, "12 entries; 20"),
            ({"unseen": LESSONS[20:23]}, "3 entries; 5"),
            ({"unseen": LESSONS[:5]}, "among the lessons"),
            ({"lessons": LESSONS[:19] + LESSONS[:1]}, "same request"),
            ({"unseen": LESSONS[20:24] + LESSONS[20:21]}, "Two of the unseen"),
            ({"lessons": [{"instruction": "Say it twice."}] * 20}, "lessons[0] has no 'input'"),
            ({"unseen": [{**e, "output": "yes"} for e in LESSONS[20:]]}, "same answer"),
            ({"unseen": [{**e, "instruction": KNOWN} for e in LESSONS[20:]]}, "no new task"),
            ({"taught": "model"}, "the trained model is expected"),
        ],
    )
    def test_wrong(self, verdict, kwargs, aim):
        checkers.fails(verdict(**kwargs), aim)

    @pytest.mark.parametrize(
        ("model", "long", "aim"),
        [
            ("diverged", 1, "The model cannot be asked: logits contain NaN"),
            ("right", 600, "The model cannot be asked: entries[0] has 622 tokens"),
            ("wrapped", 1, "taught is a Sequential: the GPT itself is expected"),
        ],
    )
    def test_a_model_that_cannot_be_asked(self, model, long, aim):
        cfg = gpt_config("124M", context_length=256, emb_dim=8, n_heads=2, n_layers=1)
        taught = GPTModel(cfg)
        if model == "diverged":
            torch.nn.init.constant_(taught.pos_emb.weight, float("nan"))
        lessons = [{**e, "input": e["input"] + " long" * long} for e in LESSONS]
        taught = torch.nn.Sequential(taught) if model == "wrapped" else taught
        verdict = checks.exercise_7_d(lessons[:20], lessons[20:], taught)
        checkers.fails(verdict, aim)

    def test_no_answer(self):
        assert checks.exercise_7_d(None, None, None).passed is None
