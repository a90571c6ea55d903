"""Checkers for chapter 6."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import torch

from ...classification import last_real_token
from ...gpt import GPTModel, gpt_config
from ._core import (
    all_agree,
    exercise,
    expect,
    expect_close,
    read_integer,
    read_number,
    read_share,
    read_tensor,
    same,
    self_test,
)

Tried = tuple[str, float, float, dict[str, float]]  # a case, what came, what was expected, and what known slips give


def _judge(tried: Sequence[Tried]) -> None:
    """Raise `Hint` unless all results are as expected; the hint of a slip is given if the slip explains every case."""
    _, results, right, mistakes = zip(*tried, strict=True)
    for case, got, expected, slips in tried:
        if not same(got, expected):
            all_agree(results, right, (([given[hint] for given in mistakes], f"{case} {hint}") for hint in slips))
            expect_close(got, expected, case)


def _recalls(labels: Sequence, predicted: Sequence) -> list[float]:
    pairs = list(zip(labels, predicted, strict=True))
    members = {label: [guess for true, guess in pairs if true == label] for label in labels}
    return [sum(guess == label for guess in guesses) / len(guesses) for label, guesses in members.items()]


@exercise("6.A", "balanced_accuracy(labels, predicted)")
def exercise_6_a(answer: Callable) -> str:
    """`answer(labels, predicted)` is the mean over the classes of the share of their members that is recognised."""
    draw, tried = random.Random(60), []
    cases: list[tuple[list, list]] = [
        (["ham"] * 6 + ["spam"] * 2, ["ham"] * 8),
        ([1, 1, 1, 0, 0], [1, 1, 0, 0, 0]),
        (["ham", "ham", "spam", "spam", "spam"], ["ham", "ad", "spam", "ham", "spam"]),
    ]
    for _ in range(5):
        labels = [*draw.choices("abc", weights=(1, 3, 6), k=draw.randint(12, 40)), "a"]
        cases.append((labels, [label if draw.random() < 0.6 else draw.choice("abc") for label in labels]))
    for labels, predicted in cases:
        more = " …" if len(labels) > 6 else ""
        case = f"Tried with labels {labels[:6]}{more} and predictions {predicted[:6]}{more}."
        got = read_share(answer(list(labels), list(predicted)), case)
        shares, found = _recalls(labels, predicted), _recalls(predicted, labels)
        either = set(labels) | set(predicted)
        slips = {
            "That is the plain accuracy: a large class counts for more in it than a small one.": sum(
                label == guess for label, guess in zip(labels, predicted, strict=True)
            )
            / len(labels),
            "You divide by how often a class was predicted; divide by how many messages are of the class.": sum(found)
            / len(found),
            "A class that occurs only among the predictions has no members to recognise: leave it out.": sum(shares)
            / len(either),
            "That is the lowest of the shares; their mean is expected.": min(shares),
            "That is how much is not recognised.": 1 - sum(shares) / len(shares),
        }
        tried.append((case, got, sum(shares) / len(shares), slips))
    _judge(tried)
    return (
        "The mean of the shares recognised, each class counted alike. Always answering ham gets 1 for ham and 0 for "
        "spam, so one half, whether 13 or 50 percent of the messages are spam."
    )


def _padding(lengths: Sequence[int], batch_size: int, full: bool = False) -> int:
    """Positions of padding with batches in this order; with `full`, the last one is filled up to `batch_size` rows."""
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    return sum(max(batch) * (batch_size if full else len(batch)) - sum(batch) for batch in batches)


@exercise("6.1", "padding_saved(lengths, batch_size)")
def exercise_6_1(answer: Callable) -> str:
    """`answer(lengths, batch_size)` says how many positions of padding sorting the messages by length saves."""
    draw, tried = random.Random(61), []
    cases = [([5, 1, 5, 1], 2), ([3, 9, 4, 8, 2], 2), ([7, 1, 2], 3), ([1, 2, 3, 30, 31, 32, 5], 3)]
    cases += [([draw.randint(1, 45) for _ in range(draw.randint(9, 30))], draw.choice((2, 4, 8))) for _ in range(5)]
    for lengths, size in cases:
        case = f"Tried with lengths {lengths[:6]}{' …' if len(lengths) > 6 else ''} and batches of {size}."
        given = list(lengths)
        got = read_number(answer(given, size))
        expect(given == lengths, f"{case} Your function changes the list of lengths.")
        plain, ordered = _padding(lengths, size), _padding(sorted(lengths), size)
        whole = len(lengths) // size * size
        to_longest = max(lengths) * len(lengths) - sum(lengths)
        slips = {
            "That is the padding without sorting.": plain,
            "That is the padding that is left after sorting; how much less is it?": ordered,
            "The last batch counts too, even if it is smaller.": _padding(lengths[:whole], size)
            - _padding(sorted(lengths)[:whole], size),
            "A smaller last batch has fewer rows to fill up.": _padding(lengths, size, True)
            - _padding(sorted(lengths), size, True),
            "In the order given, too, each batch is padded to its own longest message only.": to_longest - ordered,
            "That is a share of the padding; a number of positions is expected.": (plain - ordered) / max(plain, 1),
            "The sign is the other way round.": ordered - plain,
        }
        tried.append((case, got, plain - ordered, slips))
    _judge(tried)
    return (
        "Sorted, the messages of a batch are of nearly one length, and little is left to fill up. Batches that are "
        "always the same ones teach less well, so libraries sort within large random groups. Padding all to 1,024 "
        "goes the other way: messages of 25 tokens are then padding to 98 percent."
    )


_PAD = 50256
_SHORTCUT = "The shortcut counts the tokens that are not padding"


@exercise("6.B")
def exercise_6_b(answer: Sequence[int]) -> str:
    """Check a row of token ids on which counting tokens does not find the last real one."""
    ids = read_tensor(answer, "A list of token ids")
    ids = ids[0] if ids.dim() == 2 and len(ids) == 1 else ids  # a batch of one row
    expect(ids.dim() == 1 and len(ids) > 0, "One row is expected: a list of token ids, such as [10, 11, 12, 50256].")
    expect(bool((ids == ids.long()).all()), "Token ids are whole numbers.")
    expect(bool(((ids >= 0) & (ids <= _PAD)).all()), f"Token ids lie between 0 and {_PAD}.")
    row = ids.long()[None]
    expect(bool((row != _PAD).any()), "That row is all padding: it holds no text. Find one that has a last real token.")
    right, counted = last_real_token(row).item(), (row != _PAD).sum().item() - 1
    expect(
        right != counted,
        f"On this row both read at position {right}. {_SHORTCUT}: what must a text hold for the count to go wrong?",
    )
    expect(
        row[0, -1].item() == _PAD,
        "That works. Now let the row end in padding, as the exercise asks: the two kinds of 50256 then differ in "
        "nothing but their place.",
    )
    return (
        f"The last real token is at position {right}, the shortcut reads at {counted}. The end-of-text token inside a "
        "text is part of it, and not counted; a message made of two texts would be read too early. The maximum of the "
        "positions does not care what lies before."
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
    draw, tried = random.Random(63), []
    cases = [([7, 7, 7, 9, 9, 9, 4], [1, 1, 0, 0, 0, 0, 1]), ([5, 5, 5, 5], [0, 0, 0, 1]), ([1, 2, 3, 4], [0, 1, 1, 0])]
    cases += [([4, 4, 8, 8, 8], [1, 0, 0, 1, 1])]
    for size in (12, 30, 60):
        tokens = draw.choices(range(100, 106), k=size)
        cases.append((tokens, [int(draw.random() < (token - 99) / 7) for token in tokens]))
    for first, labels in cases:
        more = " …" if len(first) > 6 else ""
        case = f"Tried with first tokens {first[:6]}{more} and labels {labels[:6]}{more}."
        got, pairs = read_share(answer(list(first), list(labels)), case), list(zip(first, labels, strict=True))
        expected = _ceiling(first, labels)
        groups = [[label for token, label in pairs if token == one] for one in set(first)]
        shares = [max(group.count(0), group.count(1)) / len(group) for group in groups]
        latest, earliest = dict(pairs), dict(reversed(pairs))
        slips = {
            "That is always giving the most frequent label; the first token may change the answer.": max(
                labels.count(0), labels.count(1)
            )
            / len(labels),
            "A token that begins many messages must count for more than a rare one.": sum(shares) / len(shares),
            "A dictionary keeps only the last label seen with a token; the most frequent one is expected.": sum(
                latest[token] == label for token, label in pairs
            )
            / len(pairs),
            "That is the rule that gives the first label seen with a token; the most frequent one is expected.": sum(
                earliest[token] == label for token, label in pairs
            )
            / len(pairs),
            "That is how often the rule is wrong.": 1 - expected,
        }
        tried.append((case, got, expected, slips))
    _judge(tried)
    return (
        "The largest group of each token, added up. It is a ceiling for these messages, not a forecast: a token that "
        "occurs once is always 'right'. A model that reads its answer at the first position knows nothing else, so on "
        "the messages it was trained on it cannot come out above it, whatever its size."
    )


def _stopped(losses: Sequence[float], patience: int) -> int:
    best = 0
    for index, loss in enumerate(losses):
        if loss < losses[best]:
            best = index
        elif index - best >= patience:
            break
    return best


@exercise("6.C", "stop_after(val_losses, patience)")
def exercise_6_c(answer: Callable) -> str:
    """`answer(val_losses, patience)` is the index of the evaluation whose weights early stopping keeps."""
    draw, tried = random.Random(65), []
    cases = [
        ([0.9, 0.5, 0.6, 0.7, 0.3], 2),
        ([0.9, 0.5, 0.6, 0.4, 0.5, 0.6], 2),
        ([0.8, 0.8, 0.8, 0.2], 2),
        ([0.5, 0.4, 0.3], 1),
        ([0.7], 3),
        ([0.5, 0.6, 0.4, 0.45, 0.44, 0.43, 0.1], 3),
    ]
    for _ in range(6):
        losses = [round(1 / (1 + step / 2) + draw.uniform(0, 0.4), 1) for step in range(draw.randint(6, 20))]
        cases.append((losses, draw.randint(1, 4)))
    for losses, patience in cases:
        more = " …" if len(losses) > 7 else ""
        case = f"Tried with losses {losses[:7]}{more} and patience {patience}."
        given = list(losses)
        got = read_integer(answer(given, patience))
        expect(given == losses, f"{case} Your function changes the list of losses.")
        expect(0 <= got < len(losses), f"{case} {got} is not the index of one of the {len(losses)} losses.")
        stop = next((i for i in range(len(losses)) if i - _stopped(losses[: i + 1], 10**9) >= patience), None)
        rises, streak = None, 0
        for index in range(1, len(losses)):
            streak = streak + 1 if losses[index] > losses[index - 1] else 0
            if rises is None and streak >= patience:
                rises = index
        seen = losses if rises is None else losses[: rises + 1]
        slips = {
            "That is the lowest of all losses, some of which come after the stop.": losses.index(min(losses)),
            "That is where the training stops; the weights kept are those of the lowest loss before.": len(losses) - 1
            if stop is None
            else stop,
            "You count how often in a row the loss rises; it is compared with the lowest one so far.": seen.index(
                min(seen)
            ),
            "You stop one evaluation too late.": _stopped(losses, patience + 1),
            "You stop one evaluation too early.": _stopped(losses, max(1, patience - 1)),
        }
        tried.append((case, got, _stopped(losses, patience), slips))
    _judge(tried)
    return (
        "The lowest loss seen before `patience` evaluations passed without a lower one. What comes later might have "
        "been lower still: patience is the price of finding that out."
    )


@exercise("6.D", "threshold_for(p_spam, labels, max_false_alarms)")
def exercise_6_d(answer: Callable) -> str:
    """`answer(p_spam, labels, max_false_alarms)` is a threshold that keeps to the limit and catches what it can."""
    draw = random.Random(64)
    cases = [
        ([0.9, 0.2, 0.6, 0.8, 0.7, 0.95], [1, 0, 0, 0, 1, 1], 0.34),
        ([0.9, 0.2, 0.6, 0.8, 0.7, 0.95], [1, 0, 0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5, 0.9, 0.5], [0, 0, 0, 1, 1], 0.4),
        ([1.0, 0.3, 0.999, 0.4], [0, 0, 1, 1], 0.1),
        ([0.4, 0.3, 0.6], [0, 0, 1], 1.0),
    ]
    for _ in range(6):
        labels = [0] * draw.randint(10, 40) + [1] * draw.randint(5, 20)
        p_spam = [round(min(1, max(0, draw.gauss(0.35 + 0.35 * label, 0.25))), 2) for label in labels]
        cases.append((p_spam, labels, (draw.randint(0, 3) + 0.5) / labels.count(0)))
    for p_spam, labels, limit in cases:
        shown = f"probabilities {p_spam[:6]}, labels {labels[:6]}" if len(labels) <= 6 else f"{len(labels)} messages"
        case = f"Tried with {shown} and at most {limit:.3g} false alarms."
        given = list(p_spam), list(labels)
        got = read_share(answer(*given, limit), case)
        expect(given == (list(p_spam), list(labels)), f"{case} Your function changes the lists.")
        ham = [p for p, label in zip(p_spam, labels, strict=True) if label == 0]
        spam = [p for p, label in zip(p_spam, labels, strict=True) if label == 1]

        def alarms(threshold: float, ham: Sequence[float] = ham) -> float:
            return sum(p > threshold for p in ham) / len(ham)

        best = min(t for t in (0.0, *ham) if alarms(t) <= limit)
        expect(
            alarms(got) <= limit,
            f"{case} With {got:.4g}, {alarms(got):.3g} of the ham is flagged. Is the share taken of the ham alone?",
        )
        missed, could = sum(p <= got for p in spam), sum(p <= best for p in spam)
        expect(
            missed == could,
            f"{case} {got:.4g} keeps to the limit, but {missed} of {len(spam)} spam get through; {could} need to. "
            "A message whose probability equals the threshold is not flagged.",
        )
    return (
        "Only the ham decides: the threshold lies at the first ham that must not be flagged any more, counted from the "
        "top. Spam above it is caught, whatever its number. On other messages the limit holds only roughly."
    )


self_test_6 = self_test("6", "ch06")
