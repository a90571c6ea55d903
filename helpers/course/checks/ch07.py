"""Checkers for chapter 7."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence

import torch

from ...gpt import GPTModel, gpt_config
from ...instructions import custom_collate_fn, format_phi3
from ...lora import lora_layers
from ._core import Hint, call, exercise, expect, expect_close, expect_kind, read_number, read_numbers, same, self_test


@exercise("7.0")
def exercise_7_0(answer: Sequence[Sequence[int]]) -> str:
    """Check the targets of the batch [10, 11, 12, 13], [20], [30, 31], with 99 for end of text."""
    try:
        rows = [[int(token) for token in row] for row in answer]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise Hint("A list of three lists of whole numbers is expected.") from None
    expect(len(rows) == 3, f"The batch has three rows; yours has {len(rows)}.")
    expect(all(len(row) == 4 for row in rows), "Each row has as many places as the longest entry has tokens.")
    batch = [[10, 11, 12, 13], [20], [30, 31]]
    inputs, targets = (part.tolist() for part in custom_collate_fn(batch, pad_token_id=99))
    expect(rows != inputs, "Those are the inputs. At each place the target is what comes next.")
    expect(
        all(-100 in row for row in rows[1:]) or any(-100 in row for row in rows[:1]),
        "Only the first 99 of a row counts; what stands in the places after it?",
    )
    expect(all(99 in row for row in rows), "Every entry ends, the longest one too: in which row is the end missing?")
    for number, (row, right) in enumerate(zip(rows, targets, strict=True), start=1):
        expect(row == right, f"Row {number} is not right yet: move its entry on by one, and think of its end.")
    return "Each row moved on by one, the end once, and nothing to learn behind it."


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
        expect(entry["output"] not in got, "The answer must not stand in the request.")
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


@exercise("7.2", "mask_prompts(targets, prompt_lengths)")
def exercise_7_2(answer: Callable[[torch.Tensor, list[int]], torch.Tensor]) -> str:
    """Check `mask_prompts(targets, prompt_lengths)`, targets int64 (B, T)."""
    dice = random.Random(72)
    for _ in range(5):
        prompts = [dice.randint(2, 6) for _ in range(4)]
        rows = [[dice.randint(1, 90) for _ in range(length + dice.randint(1, 5))] for length in prompts]
        _, targets = custom_collate_fn(rows, pad_token_id=99)
        got = answer(targets.clone(), list(prompts))
        expect_kind(got, torch.Tensor, "A tensor")
        expect(
            got.shape == targets.shape,
            f"Targets of shape {tuple(targets.shape)} went in, {tuple(got.shape)} came out: masked, not cut.",
        )
        kept = (got != -100).sum(dim=1).tolist()  # (B,)
        right = [len(row) - length + 1 for row, length in zip(rows, prompts, strict=True)]
        case = f"Tried a prompt of {prompts[0]} and an answer of {len(rows[0]) - prompts[0]} tokens."
        expect(not torch.equal(got, targets), f"{case} Nothing was masked.")
        expect(all(count > 0 for count in kept), f"{case} In some row no target is left.")
        if kept == [count - 1 for count in right]:
            last = [targets[row, len(ids) - 1] == got[row, len(ids) - 1] for row, ids in enumerate(rows)]
            expect(not all(last), f"{case} The first token of the answer is masked too: who predicts it?")
            raise Hint(f"{case} The end of the text is masked: the model would not learn to stop.")
        if kept == [count + 1 for count in right]:
            raise Hint(f"{case} A token of the prompt still counts: targets stand one place before the inputs.")
        if len(set(prompts)) > 1 and kept == [len(row) - prompts[0] + 1 for row in rows]:
            raise Hint("All rows are masked alike, but each prompt has its own length.")
        expect(kept == right, f"{case} {kept[0]} targets are left in the first row; how many should it be?")
        counted = got != -100
        expect(torch.equal(got[counted], targets[counted]), "Targets that count must stay what they were.")
    return "The last token of the prompt predicts the first of the answer, so one place fewer than it has is masked."


@exercise("7.3", "plan(lengths, batch_size, allowed_max_length)")
def exercise_7_3(answer: Callable[[list[int], int, int], tuple[int, float]]) -> str:
    """Check `plan(lengths, batch_size, allowed_max_length)`, the updates of an epoch and the share cut off."""
    dice = random.Random(73)
    cases = [([10, 20, 30, 40, 50], 2, 30), ([5, 5, 5], 3, 8)]
    cases += [
        ([dice.randint(20, 700) for _ in range(dice.randint(30, 90))], dice.choice([4, 8]), 256) for _ in range(4)
    ]
    for lengths, batch_size, most in cases:
        pair = "Two numbers are expected: updates, and a share from 0 to 1."
        updates, share = read_numbers(answer(list(lengths), batch_size, most), 2, pair)
        case = f"Tried {len(lengths)} entries in batches of {batch_size}, at most {most} tokens."
        right = len(lengths) // batch_size
        expect(updates.is_integer(), f"{case} Updates are a whole number, not {updates:g}.")
        expect(updates != right + 1, f"{case} Your count has one update too many: what about the last batch?")
        expect(updates == right, f"{case} {updates:g} updates is not right.")
        total, cut = sum(lengths), sum(max(0, length - most) for length in lengths)
        cut_whole = sum(length for length in lengths if length > most)
        slips = [
            (1 - cut / total, "That is the share that is kept."),
            (100 * cut / total, "A share from 0 to 1 is expected, not percent."),
            (sum(length > most for length in lengths) / len(lengths), "That is the share of entries that are cut."),
            (cut_whole / total, "Of an entry that is too long, only the rest is cut off, not the whole."),
            (float(cut), "That is a number of tokens; which share of all is it?"),
        ]
        expect_close(share, cut / total, case, slips, otherwise=f"A share of {share:.4f} is not right.")
    return "Cutting long entries saves time, and costs ends of answers: a model that never sees them does not stop."


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
    "Score: 40": 40,
    "score is 0": 0,
    "The answer has 2 mistakes. Score: 60/100": 60,
    "A good answer in 3 sentences, so the SCORE is 92.": 92,
    "I would call this a fine answer.": None,
    "It names 4 of the 5 rivers.": None,
    "Score: 250": None,
    "": None,
}


@exercise("7.5", "read_score(reply)", may_return_none=True)
def exercise_7_5(answer: Callable[[str], int | None]) -> str:
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


self_test_7 = self_test("7", "ch07")
