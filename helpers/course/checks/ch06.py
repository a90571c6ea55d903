"""Checkers for chapter 6. Random cases come from generators of their own; the global seed is never touched."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...gpt import GPTModel, gpt_config
from ._core import Hint, Question, exercise, expect, expect_function, self_test

__all__ = [
    "exercise_6_0",
    "exercise_6_1",
    "exercise_6_2",
    "exercise_6_3",
    "exercise_6_4",
    "self_test_6",
]


def _share(result: Any, case: str) -> float:
    expect(result is not None, "Your function returned nothing: is there a return at its end?")
    try:
        value = float(result)
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"One number is wanted, not {type(result).__name__}.") from None
    expect(not 1 < value <= 100, f"{case} You get {value:.4g}: a share from 0 to 1 is wanted, not percent or a count.")
    expect(0 <= value <= 1, f"{case} You get {value:.4g}, which is not a share from 0 to 1.")
    return value


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)


def _compare(got: float, expected: float, case: str, slips: Sequence[tuple[float, str]]) -> None:
    """Raise `Hint` unless the two agree: the hint of the slip that gives what came out, if there is one."""
    if _same(got, expected):
        return
    for value, hint in slips:
        if _same(got, value):
            raise Hint(f"{case} {hint}")
    raise Hint(f"{case} Expected {expected:.4f}, got {got:.4f}.")


@exercise("6.0")
def exercise_6_0(answer: Callable) -> str:
    """`answer(labels)` is the accuracy of always giving the most frequent label."""
    expect_function(answer, "majority_accuracy(labels)")
    draw = random.Random(60)
    cases: list[list] = [["spam", "ham", "ham", "ad", "ham", "ham", "spam"], [1, 1, 1, 0], ["spam"]]
    cases += [draw.choices("abc", weights=(1, 2, 4), k=draw.randint(5, 40)) for _ in range(5)]
    for labels in cases:
        case = f"Tried with {labels[:7]}{' …' if len(labels) > 7 else ''}."
        counts = Counter(labels).most_common()
        slips = (
            (counts[-1][1] / len(labels), "That is the share of the rarest label."),
            (1 / len(counts), "That would be right if all labels were equally frequent."),
            (labels.count(labels[0]) / len(labels), "That is the share of the first label, which need not be it."),
            (1 - counts[0][1] / len(labels), "That is how often the lazy classifier is wrong."),
        )
        _compare(_share(answer(list(labels)), case), counts[0][1] / len(labels), case, slips)
    return (
        "The share of the most frequent label. On data with 87 percent ham it is 87 percent, without a single "
        "spam being found; on balanced data it is one half."
    )


@exercise("6.1")
def exercise_6_1(answer: Callable) -> str:
    """`answer(lengths, max_length)` is the share of positions that are padding."""
    expect_function(answer, "padding_share(lengths, max_length)")
    draw = random.Random(61)
    cases = [([3, 5], 5), ([5, 5, 5], 5), ([2, 50, 30], 10), ([3, 7, 5, 1], 5), ([20, 30, 25], 1024)]
    cases += [([draw.randint(1, 60) for _ in range(draw.randint(2, 20))], draw.choice((20, 45, 512))) for _ in range(5)]
    for lengths, most in cases:
        case = f"Tried with lengths {lengths[:6]}{' …' if len(lengths) > 6 else ''} and max_length {most}."
        kept, positions = sum(min(length, most) for length in lengths), most * len(lengths)
        uncut = 1 - sum(lengths) / positions
        result = answer(list(lengths), most)
        try:
            below = float(result) < 0
        except (TypeError, ValueError, RuntimeError):
            below = False
        expect(not below, f"{case} Yours is below 0: what becomes of a message that is longer than max_length?")
        slips = (
            (kept / positions, "That is the share of real tokens."),
            (uncut, "What becomes of a message that is longer than max_length?"),
            (max(0.0, uncut), "A message that is too long cannot make up for the padding of a short one."),
            (sum(length < most for length in lengths) / len(lengths), "That is the share of messages with padding."),
        )
        _compare(_share(result, case), 1 - kept / positions, case, slips)
    return (
        "Messages of about 25 tokens that are padded to 1,024 are padding to 98 percent: forty times the work, and the "
        "last position is a thousand places away from the text it is to judge. For attention the price is higher still."
    )


def _partly_frozen(layers: int, trained: int, tied: bool, embedding: bool) -> GPTModel:
    with torch.random.fork_rng(devices=[]):
        model = GPTModel(gpt_config("124M", vocab_size=30, context_length=8, emb_dim=12, n_heads=2, n_layers=layers))
        if not tied:
            model.out_head = torch.nn.Linear(12, 2)
    if tied:
        model.out_head.weight = model.tok_emb.weight
    for parameter in model.parameters():
        parameter.requires_grad = False
    parts = [model.trf_blocks[layers - trained :], model.final_norm, model.out_head]
    parts += [model.tok_emb, model.pos_emb] if embedding else []
    for part in parts:
        for parameter in part.parameters():
            parameter.requires_grad = True
    return model


@exercise("6.2")
def exercise_6_2(answer: Callable) -> str:
    """`answer(model)` says how many bytes gradients and AdamW's averages of a model take."""
    expect_function(answer, "training_bytes(model)")
    cases = [(2, 1, False, False), (3, 3, False, True), (2, 0, False, False), (1, 1, True, True)]
    for layers, trained, tied, embedding in cases:
        model = _partly_frozen(layers, trained, tied, embedding)
        numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        doubled = sum(
            value.numel()
            for name, value in model.named_parameters(remove_duplicate=False)
            if model.get_parameter(name).requires_grad
        )
        flags = [p.requires_grad for p in model.parameters()]
        result = answer(model)
        expect(result is not None, "Your function returned nothing: is there a return at its end?")
        try:
            got = float(result)
        except (TypeError, ValueError, RuntimeError):
            raise Hint(f"One number is wanted, not {type(result).__name__}.") from None
        expect([p.requires_grad for p in model.parameters()] == flags, "Your function changes what is frozen.")
        what = "one that shares weights between embedding and output" if tied else f"the last {trained} blocks trained"
        case = f"Tried with a model of {layers} blocks, {what}."
        if got == 12 * numbers:
            continue
        slips = (
            (12 * total, "You count the frozen parameters too; they get no gradient."),
            (8 * numbers, "Those are two numbers per trained weight; three are kept."),
            (4 * numbers, "That is one number per trained weight; three are kept."),
            (16 * numbers, "You count the weights themselves too; only what training adds is wanted."),
            (3 * numbers, "That is how many numbers; how many bytes are they?"),
            (12 * doubled, "A tensor that stands in two places has only one gradient."),
            (12 * (total - numbers), "It is the other way round: those are the frozen ones."),
        )
        for value, hint in slips:
            if got == value:
                raise Hint(f"{case} {hint}")
        raise Hint(f"{case} Expected {12 * numbers:,} bytes, got {got:,.0f}.")
    return (
        "Three numbers of 4 bytes for each trained weight. Training all 124 million weights of GPT-2 takes 1.5 GB "
        "beside the weights; its last block, final norm and a new head take 85 MB. In the published run the "
        "whole model gained one point for it: 96.67 against 95.7 percent."
    )


def _ceiling(first: Sequence[int], labels: Sequence[int]) -> float:
    groups: dict[int, Counter] = defaultdict(Counter)
    for token, label in zip(first, labels, strict=True):
        groups[token][label] += 1
    return sum(counts.most_common(1)[0][1] for counts in groups.values()) / len(labels)


@exercise("6.3")
def exercise_6_3(answer: Callable) -> str:
    """`answer(first_ids, labels)` is the accuracy of the best rule that knows only the first token."""
    expect_function(answer, "first_token_ceiling(first_ids, labels)")
    draw = random.Random(63)
    cases = [([7, 7, 7, 9, 9, 9, 4], [1, 1, 0, 0, 0, 0, 1]), ([5, 5, 5, 5], [0, 0, 0, 1]), ([1, 2, 3, 4], [0, 1, 1, 0])]
    cases += [([4, 4, 8, 8, 8], [1, 0, 0, 1, 1])]
    for size in (12, 30, 60):
        tokens = draw.choices(range(100, 106), k=size)
        cases.append((tokens, [int(draw.random() < (token - 99) / 7) for token in tokens]))
    for first, labels in cases:
        more = " …" if len(first) > 6 else ""
        case = f"Tried with first tokens {first[:6]}{more} and labels {labels[:6]}{more}."
        expected = _ceiling(first, labels)
        majority = Counter(labels).most_common(1)[0][1] / len(labels)
        groups = [[label for token, label in zip(first, labels, strict=True) if token == one] for one in set(first)]
        shares = [max(group.count(0), group.count(1)) / len(group) for group in groups]
        latest = dict(zip(first, labels, strict=True))
        slips = (
            (majority, "That is always giving the most frequent label; the first token may change the answer."),
            (sum(shares) / len(shares), "A token that begins many messages must count for more than a rare one."),
            (
                sum(latest[t] == y for t, y in zip(first, labels, strict=True)) / len(labels),
                "A dictionary keeps only the last label seen with a token; the most frequent one is wanted.",
            ),
            (1 - expected, "That is how often the rule is wrong."),
        )
        _compare(_share(answer(list(first), list(labels)), case), expected, case, slips)
    return (
        "The largest group of each token, added up. It is a ceiling for these messages, not a forecast: a token that "
        "occurs once is always 'right'. A model that reads its answer at the first position knows nothing else, so on "
        "the messages it was trained on it cannot come out above it, whatever its size."
    )


@exercise("6.4")
def exercise_6_4(answer: Callable) -> str:
    """`answer(recall, false_alarms, spam_share)` is the share of spam among what is flagged."""
    expect_function(answer, "precision(recall, false_alarms, spam_share)")
    draw = random.Random(64)
    cases = [(0.9, 0.05, 0.13), (0.9, 0.1, 0.5), (0.8, 0.0, 0.2)]
    cases += [tuple(round(draw.uniform(0.05, 0.95), 2) for _ in range(3)) for _ in range(5)]
    for recall, alarms, share in cases:
        case = f"Tried with recall {recall:g}, false alarms {alarms:g} and {share:g} spam."
        right, wrong = recall * share, alarms * (1 - share)
        slips = (
            (recall / (recall + alarms), "That is right where the classes are balanced; what about the share of spam?"),
            (wrong / (right + wrong), "That is the share of ham among the flagged messages."),
            (right, "That is the share of flagged spam among all messages; what is the share among the flagged?"),
            (right + wrong, "That is the share of messages that are flagged."),
            (right / (right + alarms), "False alarms are a share of the ham, not of all messages."),
            (right + (1 - alarms) * (1 - share), "That is the accuracy."),
        )
        _compare(_share(answer(recall, alarms, share), case), right / (right + wrong), case, slips)
    case = "Tried with a filter that never flags anything."
    try:
        silent = answer(0.0, 0.0, 0.3)
    except ZeroDivisionError:
        raise Hint(f"{case} Your function divides by zero; 0.0 is wanted then.") from None
    expect(_share(silent, case) == 0.0, f"{case} 0.0 is wanted then.")
    return (
        "Flagged spam over all that is flagged. With 95 percent caught and 5 percent false alarms it is 95 percent on "
        "balanced messages, 74 percent where 13 percent are spam, and 28 percent where 2 percent are."
    )


_QUESTIONS = (
    Question(
        "Why is the class read at the last position rather than at the first?",
        {
            "a": (False, "all positions have vectors of the same size; what differs is what they have seen."),
            "b": (True, "each position sees itself and what comes before, so only the last has seen everything."),
            "c": (False, "GPT-2 has no special token at the beginning; the first position is the first token."),
        },
    ),
    Question(
        "87 percent ham, and an accuracy of 87 percent. What do you know?",
        {
            "a": (False, "it may have found no spam at all: always saying ham gives the same number."),
            "b": (True, "the accuracy alone cannot tell it from a classifier that never looks at the text."),
            "c": (False, "overfitting shows in the distance between training and test, which is not given here."),
        },
    ),
    Question(
        "Why was all but the last block frozen?",
        {
            "a": (False, "frozen blocks compute as before and take the same space; they are only not changed."),
            "b": (False, "the new layer stands at the end and gets its gradient whatever is frozen before it."),
            "c": (True, "no backward pass, no gradients and no averages for most weights, and they stay as they are."),
        },
    ),
    Question(
        "95.3 against 94.6 percent on 129 messages. Which is better?",
        {
            "a": (False, "0.7 points of 129 messages is one message; the standard error is almost two points."),
            "b": (True, "the margin of each of the two numbers is several times their difference."),
            "c": (
                False,
                "simplicity is a good reason to prefer it, but it says nothing about which is more often right.",
            ),
        },
    ),
    Question(
        "A filter tested on balanced messages is used where 2 percent are spam. What happens to its precision?",
        {
            "a": (True, "there is much more ham to raise false alarms on, and much less spam to find."),
            "b": (False, "recall and the rate of false alarms stay; precision also depends on the mixture."),
            "c": (False, "less spam also means fewer right alarms, while the false alarms grow in number."),
        },
    ),
)

self_test_6 = self_test("6", _QUESTIONS)
