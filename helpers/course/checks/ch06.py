"""Checkers for chapter 6."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import torch

from ...gpt import GPTModel, gpt_config
from ._core import exercise, expect, expect_close, explained, read_number, read_share, self_test


@exercise("6.0", "majority_accuracy(labels)")
def exercise_6_0(answer: Callable) -> str:
    """`answer(labels)` is the accuracy of always giving the most frequent label."""
    draw = random.Random(60)
    cases: list[list] = [["spam", "ham", "ham", "ad", "ham", "ham", "spam"], [1, 1, 1, 0], ["spam"]]
    cases += [draw.choices("abc", weights=(1, 2, 4), k=draw.randint(5, 40)) for _ in range(5)]
    for labels in cases:
        case = f"Tried with {labels[:7]}{' …' if len(labels) > 7 else ''}."
        counts = Counter(labels).most_common()
        slips = [
            (counts[-1][1] / len(labels), "That is the share of the rarest label."),
            (1 / len(counts), "That would be right if all labels were equally frequent."),
            (labels.count(labels[0]) / len(labels), "That is the share of the first label, not of the most frequent."),
            (1 - counts[0][1] / len(labels), "That is how often the lazy classifier is wrong."),
        ]
        expect_close(read_share(answer(list(labels)), case), counts[0][1] / len(labels), case, slips)
    return (
        "The share of the most frequent label. On data with 87 percent ham it is 87 percent, without a single "
        "spam being found; on balanced data it is one half."
    )


@exercise("6.1", "padding_share(lengths, max_length)")
def exercise_6_1(answer: Callable) -> str:
    """`answer(lengths, max_length)` is the share of positions that are padding."""
    draw = random.Random(61)
    cases = [([3, 5], 5), ([5, 5, 5], 5), ([2, 50, 30], 10), ([3, 7, 5, 1], 5), ([20, 30, 25], 1024)]
    cases += [([draw.randint(1, 60) for _ in range(draw.randint(2, 20))], draw.choice((20, 45, 512))) for _ in range(5)]
    for lengths, most in cases:
        case = f"Tried with lengths {lengths[:6]}{' …' if len(lengths) > 6 else ''} and max_length {most}."
        kept, positions = sum(min(length, most) for length in lengths), most * len(lengths)
        uncut = 1 - sum(lengths) / positions
        got = read_number(answer(list(lengths), most))
        longer = "What becomes of a message that is longer than max_length?"
        expect(got >= 0, f"{case} Yours is below 0. {longer}")
        slips = [
            (kept / positions, "That is the share of real tokens."),
            (uncut, longer),
            (max(0.0, uncut), "A message that is too long cannot make up for the padding of a short one."),
            (sum(length < most for length in lengths) / len(lengths), "That is the share of messages with padding."),
        ]
        expect_close(read_share(got, case), 1 - kept / positions, case, slips)
    return (
        "Messages of about 25 tokens that are padded to 1,024 are padding to 98 percent: forty times the work, and the "
        "last position is a thousand places away from the text it is to judge. For attention the price is higher still."
    )


def _partly_frozen(layers: int, trained: int, tied: bool, embedding: bool) -> GPTModel:
    model = GPTModel(gpt_config("124M", vocab_size=30, context_length=8, emb_dim=12, n_heads=2, n_layers=layers))
    if tied:
        model.out_head.weight = model.tok_emb.weight
    else:
        model.out_head = torch.nn.Linear(12, 2)
    for parameter in model.parameters():
        parameter.requires_grad = False
    parts = [model.trf_blocks[layers - trained :], model.final_norm, model.out_head]
    parts += [model.tok_emb, model.pos_emb] if embedding else []
    for part in parts:
        for parameter in part.parameters():
            parameter.requires_grad = True
    return model


@exercise("6.2", "training_bytes(model)")
def exercise_6_2(answer: Callable) -> str:
    """`answer(model)` says how many bytes gradients and AdamW's averages of a model take."""
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
        got = read_number(answer(model))
        expect([p.requires_grad for p in model.parameters()] == flags, "Your function changes what is frozen.")
        what = "one that shares weights between embedding and output" if tied else f"the last {trained} blocks trained"
        case = f"Tried with a model of {layers} blocks, {what}."
        kept = 3 * 4  # bytes per trained weight: its gradient and AdamW's two averages, in float32
        slips = [
            (kept * total, "You count the frozen parameters too; they get no gradient."),
            (8 * numbers, "Those are two numbers per trained weight; three are kept."),
            (4 * numbers, "That is one number per trained weight; three are kept."),
            (16 * numbers, "You count the weights themselves too; only what training adds is expected."),
            (3 * numbers, "That is how many numbers; how many bytes are they?"),
            (kept * doubled, "A tensor that stands in two places has only one gradient."),
            (kept * (total - numbers), "It is the other way round: those are the frozen ones."),
        ]
        expect_close(got, kept * numbers, case, slips)
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


@exercise("6.3", "first_token_ceiling(first_ids, labels)")
def exercise_6_3(answer: Callable) -> str:
    """`answer(first_ids, labels)` is the accuracy of the best rule that knows only the first token."""
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
        once = sum(latest[token] == label for token, label in zip(first, labels, strict=True)) / len(labels)
        slips = [
            (majority, "That is always giving the most frequent label; the first token may change the answer."),
            (sum(shares) / len(shares), "A token that begins many messages must count for more than a rare one."),
            (once, "A dictionary keeps only the last label seen with a token; the most frequent one is expected."),
            (1 - expected, "That is how often the rule is wrong."),
        ]
        expect_close(read_share(answer(list(first), list(labels)), case), expected, case, slips)
    return (
        "The largest group of each token, added up. It is a ceiling for these messages, not a forecast: a token that "
        "occurs once is always 'right'. A model that reads its answer at the first position knows nothing else, so on "
        "the messages it was trained on it cannot come out above it, whatever its size."
    )


@exercise("6.4", "precision(recall, false_alarms, spam_share)")
def exercise_6_4(answer: Callable) -> str:
    """`answer(recall, false_alarms, spam_share)` is the share of spam among what is flagged."""
    draw = random.Random(64)
    cases = [(0.9, 0.05, 0.13), (0.9, 0.1, 0.5), (0.8, 0.0, 0.2)]
    cases += [tuple(round(draw.uniform(0.05, 0.95), 2) for _ in range(3)) for _ in range(5)]
    for recall, alarms, share in cases:
        case = f"Tried with recall {recall:g}, false alarms {alarms:g} and {share:g} spam."
        right, wrong = recall * share, alarms * (1 - share)
        slips = [
            (recall / (recall + alarms), "That is right where the classes are balanced; what about the share of spam?"),
            (wrong / (right + wrong), "That is the share of ham among the flagged messages."),
            (right, "That is the share of flagged spam among all messages; what is the share among the flagged?"),
            (right + wrong, "That is the share of messages that are flagged."),
            (right / (right + alarms), "False alarms are a share of the ham, not of all messages."),
            (right + (1 - alarms) * (1 - share), "That is the accuracy."),
        ]
        expect_close(read_share(answer(recall, alarms, share), case), right / (right + wrong), case, slips)
    case = "Tried with a filter that never flags anything."
    with explained(ZeroDivisionError, f"{case} Your function divides by zero; 0.0 is expected then."):
        silent = answer(0.0, 0.0, 0.3)
    expect(read_share(silent, case) == 0.0, f"{case} 0.0 is expected then.")
    return (
        "Flagged spam over all that is flagged. With 95 percent caught and 5 percent false alarms it is 95 percent on "
        "balanced messages, 74 percent where 13 percent are spam, and 28 percent where 2 percent are."
    )


self_test_6 = self_test("6", "ch06")
