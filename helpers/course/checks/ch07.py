"""Checkers for chapter 7."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch

from ...files import first_line
from ...gpt import GPTModel, gpt_config
from ...instructions import (
    PHI3,
    Entry,
    answer_entries,
    check_entries,
    custom_collate_fn,
    format_phi3,
    masked_collate_fn,
    split_entries,
)
from ...judges import exact_match, token_f1
from ...lora import lora_layers
from ...pretrained import load_assistant
from ...texts import load_instructions
from ...tokenizers import get_tokenizer
from ._core import (
    Hint,
    call,
    exercise,
    expect,
    expect_kind,
    read_number,
    read_numbers,
    read_parts,
    same,
    self_test,
)


@exercise("7.1", "phi3_request(entry)")
def exercise_7_1(answer: Callable[[Mapping[str, str]], str]) -> str:
    """Check `phi3_request(entry)`, the request without the marker of the response."""
    entries = [
        {"instruction": "Name a red fruit.", "input": "", "output": "A cherry"},
        {"instruction": "Make this plural.", "input": "mouse", "output": "mice"},
        {"instruction": "Put these in order.", "input": "c, a, b", "output": "a, b, c"},
    ]
    for entry in entries:
        got, expected = answer(dict(entry)), format_phi3(entry)
        expect_kind(got, str, "A string")
        kind = "with an input" if entry["input"] else "without an input"
        if got == expected:
            continue
        expect("assistant" not in got, "The marker of the response is not part of the request.")
        expect(entry["output"] not in got, "The answer must not be in the request.")
        expect("###" not in got and "Below is" not in got, "Nothing of the Alpaca style is left in this one.")
        expect(got.startswith("<|user|>"), "The request begins with the tag of the user, with its bars and brackets.")
        if not entry["input"] and got.rstrip() == expected:
            raise Hint("Without an input, nothing comes after the instruction, no line break either.")
        expect(
            not entry["input"] or entry["input"] in got, "The entry has an input, which is missing from your request."
        )
        if got.split() == expected.split() or got.replace("\n", "") == expected.replace("\n", ""):
            raise Hint(f"Tried an entry {kind}: the words are right, the line breaks or spaces are not: {got!r}")
        raise Hint(f"Tried an entry {kind}, and got {got!r}.")
    return "Three pieces and no frame: in a short entry that is a third fewer tokens to compute."


@exercise("7.A", "split_groups(entries, share)")
def exercise_7_a(answer: Callable[[list[Entry], float], tuple[list[Entry], list[Entry]]]) -> str:
    """Check `split_groups(entries, share)`, training and test list without a common instruction."""
    dice = random.Random(71)
    plans = [([4, 4, 4, 4, 4, 4, 4, 4, 4, 4], 0.2), ([30, 1, 1, 1, 1, 1, 1, 1, 1, 2], 0.25)]
    plans += [([dice.randint(1, 12) for _ in range(40)], dice.choice([0.1, 0.15, 0.3])) for _ in range(4)]
    for sizes, share in plans:
        entries = [
            {"instruction": f"Task {group}.", "input": f"case {group}-{k}", "output": f"done {group}-{k}"}
            for group, size in enumerate(sizes)
            for k in range(size)
        ]
        dice.shuffle(entries)
        given = copy.deepcopy(entries)
        pair = "Two lists of entries are expected, training and test."
        parts = read_parts(answer(entries, share), 2, pair)
        train, test = (_entries_of(part, pair) for part in parts)
        expect(entries == given, "Your function has changed the list or the entries that it was given.")
        case = f"Tried {len(entries)} entries of {len(sizes)} instructions with share={share}."
        before, after = (Counter(map(_key, part)) for part in (given, [*train, *test]))
        lost, gained = (before - after).total(), (after - before).total()
        expect(lost == 0, f"{case} {lost} entries are in neither list.")
        expect(gained == 0, f"{case} {gained} entries are in both lists, in one twice, or changed.")
        shared = {entry["instruction"] for entry in train} & {entry["instruction"] for entry in test}
        expect(not shared, f"{case} {len(shared)} instructions are in both lists, {min(shared, default='')!r} first.")
        target, room = share * len(entries), max(sizes)
        far = f"{case} The test has {len(test)} entries; {target:g} are to be met within {room}, the largest group."
        swapped = abs(len(train) - target) <= room
        expect(abs(len(test) - target) <= room, f"{far} Are the two lists in the other order?" if swapped else far)
    return "Whole groups go to one side: a test request then never has an instruction that was trained."


def _entries_of(part: Any, hint: str) -> list:
    expect(isinstance(part, list | tuple), hint)
    expect(all(isinstance(entry, Mapping) and {"instruction", "input"} <= set(entry) for entry in part), hint)
    return list(part)


def _key(entry: Entry) -> tuple[str, ...]:
    return tuple(str(entry.get(name)) for name in ("instruction", "input", "output"))


@exercise("7.B")
def exercise_7_b(answer: Sequence[Sequence[int]]) -> str:
    """Check the targets of the batch [10, 11, 12, 13], [20], [30, 31], with 99 for end of text."""
    rows = [[read_number(token, "Each entry of your rows") for token in row] for row in _rows(answer)]
    expect(len(rows) == 3, f"The batch has three rows; yours has {len(rows)}.")
    batch = [[10, 11, 12, 13], [20], [30, 31]]
    inputs, targets = (part.tolist() for part in custom_collate_fn(batch, pad_token_id=99))
    expect(
        all(len(row) == 4 for row in rows),
        "Each row has as many places as the longest entry has tokens: no place is added for the end.",
    )
    expect(rows != inputs, "Those are the inputs. At each place the target is what comes next.")
    expect(99 in rows[0], "Every entry ends, the longest one too: which place predicts the end of the first row?")
    expect(all(99 in row for row in rows), "Every entry ends: in which row is the end missing?")
    expect(
        all(row.count(99) == 1 for row in rows),
        "Only the first 99 of a row counts; what is in the places after it?",
    )
    for number, (row, right) in enumerate(zip(rows, targets, strict=True), start=1):
        expect(row == right, f"Row {number} is not right yet: move its entry on by one, and think of its end.")
    return "Each row moved on by one, the end once, and nothing to learn after it."


def _rows(answer: Any) -> list:
    """The rows of a list, tuple, array or tensor of numbers, as lists."""
    hint = "A list of three lists of whole numbers is expected."
    rows = answer.tolist() if hasattr(answer, "tolist") else answer
    expect(isinstance(rows, list | tuple), hint)
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in rows]
    expect(all(isinstance(row, list | tuple) for row in rows), hint)
    return [list(row) for row in rows]


@exercise("7.2", "mask_prompts(targets, prompt_lengths)")
def exercise_7_2(answer: Callable[[torch.Tensor, list[int]], torch.Tensor]) -> str:
    """Check `mask_prompts(targets, prompt_lengths)`, targets int64 (B, T)."""
    dice = random.Random(72)
    for _ in range(5):
        prompts = [dice.randint(2, 6) for _ in range(4)]
        rows = [[dice.randint(1, 90) for _ in range(length + dice.randint(2, 5))] for length in prompts]
        _, targets = custom_collate_fn(rows, pad_token_id=99)
        _, right = masked_collate_fn(list(zip(rows, prompts, strict=True)), pad_token_id=99)
        lengths = list(prompts)
        got = answer(targets.clone(), lengths)
        expect_kind(got, torch.Tensor, "A tensor")
        expect(
            got.shape == targets.shape,
            f"Targets of shape {tuple(targets.shape)} went in, {tuple(got.shape)} came out: masked, not cut.",
        )
        expect(lengths == prompts, "The list of prompt lengths must stay as it is.")
        if torch.equal(got, right):
            continue
        case = f"Tried a prompt of {prompts[0]} and an answer of {len(rows[0]) - prompts[0]} tokens."
        expect(not torch.equal(got, targets), f"{case} Nothing was masked.")
        kept = got != -100  # (B, T)
        expect(torch.equal(got[kept], targets[kept]), f"{case} Targets that count must stay what they were.")
        expect(bool(kept.any(dim=1).all()), f"{case} In some row no target is left.")
        counts = kept.sum(dim=1)
        for shift, hint in (
            (1, "The first token of the answer is masked too: who predicts it?"),
            (-1, "A token of the prompt still counts: targets stand one place before the inputs."),
        ):
            shifted = targets.clone()
            for row, length in enumerate(prompts):
                shifted[row, : length - 1 + shift] = -100
            expect(not torch.equal(got, shifted), f"{case} {hint}")
        alike = targets.clone()
        alike[:, : prompts[0] - 1] = -100
        expect(not torch.equal(got, alike), "All rows are masked alike, but each prompt has its own length.")
        answers = (right != -100).sum(dim=1)
        ends = got.gather(1, torch.tensor([[len(row) - 1] for row in rows]))
        expect(bool((ends == 99).all()), f"{case} The end of the text is masked: the model would not learn to stop.")
        expect(
            not torch.equal(counts, answers),
            f"{case} The right number of places is left, but the wrong ones: place 0 of a row of targets is its token "
            "1, and the answer comes after the prompt.",
        )
        raise Hint(f"{case} {counts[0]} targets are left in the first row; which should it be, and how many?")
    return "The last token of the prompt predicts the first of the answer, so one place fewer than it has is masked."


@exercise("7.3", "plan(lengths, batch_size, share)")
def exercise_7_3(answer: Callable[[list[int], int, float], tuple[int, int]]) -> str:
    """Check `plan(lengths, batch_size, share)`, the smallest limit that cuts at most a share, and the updates."""
    dice = random.Random(73)
    cases = [
        ([10, 20, 30, 40, 50], 2, 0.2),
        ([5, 5, 5], 3, 0.0),
        ([100] + [10] * 40, 4, 0.1),
        ([10] * 40 + [20] * 9, 4, 0.5),
    ]
    for _ in range(5):
        lengths = [dice.randint(20, 120) for _ in range(dice.randint(30, 90))] + [dice.randint(300, 700)] * 3
        cases.append((lengths, dice.choice([4, 8]), dice.choice([0.01, 0.05, 0.2])))
    results = []
    for lengths, batch_size, share in cases:
        pair = "Two whole numbers are expected: the limit, and the updates."
        limit, updates = read_numbers(answer(list(lengths), batch_size, share), 2, pair)
        expect(limit.is_integer() and updates.is_integer(), f"{pair} Yours are {limit:g} and {updates:g}.")
        results.append((limit, updates))
    right = [(_limit(lengths, share, _cut_off), len(lengths) // batch_size) for lengths, batch_size, share in cases]
    if results == right:
        return "Few tokens are cut, but they are the ends of the longest answers: such a model sees no end there."
    case = [f"Tried {len(n)} entries in batches of {b}, of which {share:.0%} may be cut." for n, b, share in cases]
    first = next(k for k, pair in enumerate(results) if pair != right[k])
    updates = [got for _, got in results]
    slip = [-(-len(lengths) // batch_size) for lengths, batch_size, _ in cases]
    expect(updates != slip, "Your count of updates includes a last batch that is not full.")
    wrong = next((k for k, pair in enumerate(results) if pair[1] != right[k][1]), None)
    expect(wrong is None, f"{case[wrong or 0]} {results[wrong or 0][1]:g} updates is not right.")
    limits = [limit for limit, _ in results]
    for rule, hint in (
        (_entries_cut, "That is the limit for a share of the entries; the share is one of all tokens."),
        (_whole_entries, "Of an entry that is too long, only the rest is cut off, not the whole."),
    ):
        slips = [_limit(lengths, share, rule) for lengths, _, share in cases]
        expect(limits != slips, f"{case[first]} {hint}")
    lengths, _, share = cases[first]
    cut = _cut_off(lengths, int(limits[first])) / sum(lengths)
    got = f"{case[first]} A limit of {limits[first]:g} cuts {cut:.2%} of the tokens"
    expect(cut <= share, f"{got}, which is too much.")
    raise Hint(f"{got}; a smaller limit is allowed too.")


def _limit(lengths: Sequence[int], share: float, cut: Callable[[Sequence[int], int], float]) -> int:
    """The smallest limit at which `cut` is at most `share` of all tokens."""
    return next(most for most in range(1, max(lengths) + 1) if cut(lengths, most) <= share * sum(lengths))


def _cut_off(lengths: Sequence[int], most: int) -> float:
    return sum(max(0, length - most) for length in lengths)


def _entries_cut(lengths: Sequence[int], most: int) -> float:
    return sum(length > most for length in lengths) / len(lengths) * sum(lengths)


def _whole_entries(lengths: Sequence[int], most: int) -> float:
    return sum(length for length in lengths if length > most)


@exercise("7.4", "prepare(model, rank, alpha)", may_return_none=True)
def exercise_7_4(answer: Callable[[GPTModel, int, float], None]) -> str:
    """Check `prepare(model, rank, alpha)`, which leaves only LoRA's matrices to be trained."""
    size = {"vocab_size": 61, "context_length": 12, "emb_dim": 16, "n_heads": 2, "drop_rate": 0.0}
    ids = torch.arange(20).view(2, 10)  # (B, T)
    for layers, rank, alpha in ((1, 2, 4.0), (2, 4, 2.0)):
        model = GPTModel(gpt_config(**size, n_layers=layers)).eval()
        linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        with torch.no_grad():
            before = model(ids)
        old = copy.deepcopy(model.state_dict())
        answer(model, rank, alpha)
        found = lora_layers(model)
        expect(len(found) > 0, "The model has no LoRA layers afterwards. Is it changed in place?")
        expect(len(found) == len(linears), f"{len(found)} of {len(linears)} linear layers have LoRA.")
        expect(
            all((layer.lora.rank, layer.lora.alpha) == (rank, alpha) for layer in found.values()),
            "Rank or alpha are not the ones given, or in the other order.",
        )
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        own = {f"{name}.lora.{matrix}" for name in found for matrix in "AB"}
        expect(bool(trained), "Nothing can be trained any more: LoRA's matrices are frozen too.")
        expect(own <= trained, "Some of LoRA's matrices are frozen.")
        expect(trained == own, f"{len(trained - own)} tensors besides LoRA's are still trained.")
        expect(same(call(model.eval(), ids), before), "The model says something else than before.")
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        call(model, ids).square().mean().backward()
        optimizer.step()
        state = {name.replace(".linear.", "."): weight for name, weight in model.state_dict().items()}
        expect(
            all(torch.equal(weight, state[name]) for name, weight in old.items()),
            "A step of training has changed a weight that should be frozen.",
        )
    return "Frozen first, then LoRA added, whose new matrices are trainable from the start."


_REPLIES = {
    "85": 85,
    " 7 \n": 7,
    "100": 100,
    "0": 0,
    "Score: 40": 40,
    "score is 0": 0,
    "The answer has 2 mistakes. Score: 60/100": 60,
    "A good answer in 3 sentences, so the SCORE is 92.": 92,
    "I would call this a fine answer.": None,
    "It names 4 of the 5 rivers.": None,
    "The score for 3 reasons is hard to give.": None,
    "A score of this kind, 40, is rare.": None,
    "score 40": None,
    "Score: 250": None,
    "Score: 1000": None,
    "250": None,
    "-5": None,
    "Score: -5": None,
    "85.5": None,
    "Score: 85.5": None,
    "": None,
}


@exercise("7.C", "read_score(reply)", may_return_none=True)
def exercise_7_c(answer: Callable[[str], int | None]) -> str:
    """Check `read_score(reply)`, the score in a judge's reply or None."""
    dice = random.Random(75)
    cases = dict(_REPLIES)
    for _ in range(4):
        score, other = dice.randint(0, 100), dice.randint(2, 9)
        cases[f"It makes {other} points. Score: {score}"] = score
        cases[f"The score is {score}, for {other} reasons."] = score
    for reply, expected in cases.items():
        got = answer(reply)
        case = f"Tried the reply {reply!r}."
        if expected is None:
            expect(got is None, f"{case} There is no score from 0 to 100 in it, so None is expected, not {got!r}.")
            continue
        expect(got is not None, f"{case} There is a score in it, but your function found none.")
        got = read_number(got, f"{case} Your result")
        numbers = [int(number) for number in "".join(c if c.isdigit() else " " for c in reply).split()]
        expect(
            got == expected or got not in numbers, f"{case} Your function took another of its numbers than the score."
        )
        first_digit = expected > 9 and got == int(str(expected)[0])
        expect(not first_digit, f"{case} Only a part of the number was read.")
        expect(got == expected, f"{case} Your function returned {got:g}.")
    return "Reading strictly and reporting what cannot be read: a guess would be counted as an opinion of the judge."


_LESSONS, _UNSEEN, _LEARNED, _OLD = 20, 5, 3, 12


@exercise("7.D")
def exercise_7_d(lessons: Sequence[Entry], unseen: Sequence[Entry] = (), taught: torch.nn.Module | None = None) -> str:
    """Check a model that was trained on 20 entries of a new kind of task, with 5 others of that kind."""
    for name, part, count in (("lessons", lessons, _LESSONS), ("unseen", unseen, _UNSEEN)):
        try:
            check_entries(list(part) if isinstance(part, tuple) else part, name=name)
        except ValueError as error:
            raise Hint(f"{error}.") from None
        expect(len(part) >= count, f"{name} has {len(part)} entries; {count} are expected.")
    expect(isinstance(taught, torch.nn.Module), f"taught is a {type(taught).__name__}: the trained model is expected.")
    asked = [(entry["instruction"], entry["input"]) for entry in lessons]
    expect(len(set(asked)) == len(asked), "Two of the lessons are the same request.")
    tests = [(entry["instruction"], entry["input"]) for entry in unseen]
    expect(len(set(tests)) == len(tests), "Two of the unseen requests are the same.")
    both = set(asked) & set(tests)
    expect(not both, f"{len(both)} of the unseen requests are among the lessons, {min(both, default='')} first.")
    data = load_instructions("instructions")
    instructions = {entry["instruction"] for entry in data}
    known = sum(entry["instruction"] in instructions for entry in unseen)
    expect(known == 0, f"{known} of your unseen entries have an instruction of the course's set: that is no new task.")
    answers = {entry["output"] for entry in unseen}
    expect(len(answers) > 2, "Nearly all unseen entries have the same answer, which can be learned without the input.")
    expect(hasattr(taught, "pos_emb"), f"taught is a {type(taught).__name__}: the GPT itself is expected.")
    written = _answers_of(taught, unseen)
    right = sum(exact_match(answer, entry["output"]) for answer, entry in zip(written, unseen, strict=True))
    said = f"the request {unseen[0]['instruction']!r} {unseen[0]['input']!r} is answered {written[0]!r}"
    expect(
        right >= _LEARNED,
        f"{right:.0f} of {len(unseen)} unseen requests come out exactly; {said}. More epochs, a higher rate or a "
        "simpler task may help; the model is asked in the Phi-3 style.",
    )
    old = split_entries(data)[1][:_OLD]
    score, best = _f1_of(taught, old), _assistant_f1()
    expect(
        score >= best / 3,
        f"{right:.0f} of {len(unseen)} new requests come out exactly, but on {_OLD} old ones the token F1 is "
        f"{score:.2f}, where the course assistant has {best:.2f}: it has forgotten what it could.",
    )
    return (
        f"{right:.0f} of {len(unseen)} unseen requests of the new kind come out exactly; on {_OLD} old ones the token "
        f"F1 is {score:.2f}, where the course assistant has {best:.2f}."
    )


def _answers_of(model: torch.nn.Module, entries: Sequence[Entry]) -> list[str]:
    """The model's answers. Raises `Hint` where it gives none: its training diverged, or an entry is too long."""
    try:
        return answer_entries(model, entries, get_tokenizer(), len(model.pos_emb.weight), 30, PHI3)
    except (ValueError, RuntimeError) as error:
        raise Hint(f"The model cannot be asked: {first_line(error, 300).rstrip('.')}.") from None


def _f1_of(model: torch.nn.Module, entries: Sequence[Entry]) -> float:
    answers = _answers_of(model, entries)
    return sum(token_f1(answer, e["output"]) for answer, e in zip(answers, entries, strict=True)) / len(entries)


@cache
def _assistant_f1() -> float:
    return _f1_of(load_assistant()[0], split_entries(load_instructions("instructions"))[1][:_OLD])


self_test_7 = self_test("7", "ch07")
