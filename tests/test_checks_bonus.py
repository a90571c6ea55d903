"""The checkers of the bonus notebooks: right answers pass, slips get a hint that aims at them."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn

from helpers import checks
from helpers.bpe import join_pair
from helpers.course.checks import (
    bpe_from_scratch,
    buffers,
    dpo_preference_tuning,
    embedding_layer_and_linear_layer,
)

# ---- right and wrong answers -----------------------------------------------------------------------------------------


def pair_changes(ids, pair, new_id):
    changes = Counter(pairwise(join_pair(ids, pair, new_id)))
    changes.subtract(Counter(pairwise(ids)))
    return {key: change for key, change in changes.items() if change}


def with_zeros(ids, pair, new_id):
    changes = Counter(pairwise(join_pair(ids, pair, new_id)))
    changes.subtract(Counter(pairwise(ids)))
    return changes


def only_the_pair(ids, pair, new_id):
    count = list(pairwise(ids)).count(pair)
    return {pair: -count} if count else {}


def overlapping(ids, pair, new_id):
    joined, index = [], 0
    while index < len(ids):
        if tuple(ids[index : index + 2]) == pair:
            joined.append(new_id)
            index += 1 if pair[0] == pair[1] and len(ids) > index + 2 and ids[index + 2] == pair[0] else 2
        else:
            joined.append(ids[index])
            index += 1
    changes = Counter(pairwise(joined))
    changes.subtract(Counter(pairwise(ids)))
    return {key: change for key, change in changes.items() if change}


def in_place(ids, pair, new_id):
    changes = pair_changes(ids, pair, new_id)
    ids[:] = join_pair(ids, pair, new_id)
    return changes


def longest_first(word, vocabulary):
    pieces = []
    while word:
        end = max(end for end in range(1, len(word) + 1) if word[:end] in vocabulary)
        pieces.append(word[:end])
        word = word[end:]
    return pieces


def anywhere(word, vocabulary):
    """The longest token anywhere in the word first, then what is left and right of it."""
    if not word:
        return []
    token = max((t for t in vocabulary if t in word), key=len)
    start = word.index(token)
    return [*anywhere(word[:start], vocabulary), token, *anywhere(word[start + len(token) :], vocabulary)]


def as_linear(embedding, bias=False, turn=True, swap=False):
    rows, size = embedding.weight.shape
    linear = nn.Linear(size, rows, bias=bias) if swap else nn.Linear(rows, size, bias=bias)
    with torch.no_grad():
        linear.weight = nn.Parameter(embedding.weight.detach().T.clone() if turn else embedding.weight.detach().clone())
    return linear


def untrained(embedding):
    linear = as_linear(embedding)
    nn.init.ones_(linear.weight)
    return linear


def changes_the_embedding(embedding):
    linear = as_linear(embedding)
    with torch.no_grad():
        embedding.weight.zero_()
    return linear


def table_gradient(ids, output_gradient, num_rows):
    gradient = torch.zeros(num_rows, output_gradient.shape[-1])
    for token_id, row in zip(ids.flatten(), output_gradient.flatten(0, 1), strict=True):
        gradient[token_id] += row
    return gradient


def assigned(ids, output_gradient, num_rows):
    gradient = torch.zeros(num_rows, output_gradient.shape[-1])
    gradient[ids.flatten()] += output_gradient.flatten(0, 1)
    return gradient


def averaged(ids, output_gradient, num_rows):
    times = torch.bincount(ids.flatten(), minlength=num_rows).clamp(min=1)
    return table_gradient(ids, output_gradient, num_rows) / times[:, None]


class Standardize(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x):
        return (x - self.mean) / self.std


class AsAttributes(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    forward = Standardize.forward


class AsParameters(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = nn.Parameter(mean), nn.Parameter(std)

    forward = Standardize.forward


class Unsaved(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    forward = Standardize.forward


class OtherOrder(Standardize):
    def forward(self, x):
        return x / self.std - self.mean


class FloatOnly(Standardize):
    def forward(self, x):
        return super().forward(x).float()


def kinds(module):
    found = {name: "parameter" for name, _ in module.named_parameters()}
    for name, _ in module.named_buffers():
        found[name] = "saved buffer" if name in module.state_dict() else "unsaved buffer"
    return found


def from_state_dict(module):
    parameters = dict(module.named_parameters())
    return {name: "parameter" if name in parameters else "saved buffer" for name in module.state_dict()}


def all_saved(module):
    return {name: kind.replace("unsaved", "saved") for name, kind in kinds(module).items()}


def by_gradient(module):
    return kinds(module) | {n: "saved buffer" for n, p in module.named_parameters() if not p.requires_grad}


def answer_logprob(logits, ids, prompt_length, shift=1, first=-1):
    logp = torch.log_softmax(logits, dim=-1)
    rows = range(prompt_length + first, len(ids) - shift)
    return sum(logp[row, ids[row + shift]] for row in rows)


def by_cross_entropy(logits, ids, prompt_length):
    answer = torch.tensor(ids[prompt_length:])
    return -nn.functional.cross_entropy(logits[prompt_length - 1 : -1], answer, reduction="sum")


def raw_logits(logits, ids, prompt_length):
    return sum(logits[row, ids[row + 1]] for row in range(prompt_length - 1, len(ids) - 1))


def doubtful_loss(margin, flipped):
    right, wrong = nn.functional.logsigmoid(margin), nn.functional.logsigmoid(-margin)
    return -((1 - flipped) * right + flipped * wrong).mean()


def unstable(margin, flipped):
    right, wrong = torch.sigmoid(margin).log(), torch.sigmoid(-margin).log()
    return -((1 - flipped) * right + flipped * wrong).mean()


def mixed_margins(margin, flipped):
    return -nn.functional.logsigmoid((1 - 2 * flipped) * margin).mean()


ODDS = (0.82, 2.2, 1.7)

RIGHT = {
    "dpo.1": [ODDS, (1 / (1 + math.exp(-1.5)), math.log(9), math.log(1 + math.exp(1.5))), [0.818, 2.197, 1.701]],
    "dpo.2": [answer_logprob, by_cross_entropy],
    "dpo.3": [doubtful_loss],
    "bpe.1": [pair_changes],
    "bpe.2": [longest_first],
    "embedding.1": [as_linear],
    "embedding.2": [
        table_gradient,
        lambda ids, gradient, rows: nn.functional.one_hot(ids.flatten(), rows).float().T @ gradient.flatten(0, 1),
    ],
    "buffers.1": [Standardize],
    "buffers.2": [kinds],
}

WRONG = {
    "odds, one number": ("dpo.1", 0.82, "Three numbers are wanted"),
    "odds, two numbers": ("dpo.1", ODDS[:2], "Three numbers are wanted"),
    "odds, text": ("dpo.1", ("0.82", 2.2, 1.7), "a plain number"),
    "odds, the other answer": ("dpo.1", (0.18, 2.2, 1.7), "the other answer"),
    "odds, rewards divided": ("dpo.1", (0.8, 2.2, 1.7), "They come in as exponents"),
    "odds, anything": ("dpo.1", (0.5, 2.2, 1.7), "the difference of the rewards"),
    "odds, sign": ("dpo.1", (0.82, -2.2, 1.7), "the sign"),
    "odds, wrong way": ("dpo.1", (0.82, 0.71, 1.7), "Go the other way"),
    "odds, nine": ("dpo.1", (0.82, 9, 1.7), "the odds, and their log"),
    "odds, right order": ("dpo.1", (0.82, 2.2, 0.2), "in the right order"),
    "odds, no logarithm": ("dpo.1", (0.82, 2.2, 0.18), "the loss is a logarithm"),
    "odds, other loss": ("dpo.1", (0.82, 2.2, 1.5), "which probability"),
    "with the prompt": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, 1), "tokens of the prompt"),
    "one late": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n, first=0), "who predicts it"),
    "not moved": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n, shift=0, first=0), "comes after its own"),
    "logits": ("dpo.2", raw_logits, "sums of logits"),
    "mean of logs": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n) / (len(ids) - n), "You take a mean"),
    "a loss": ("dpo.2", lambda z, ids, n: -answer_logprob(z, ids, n), "The sign"),
    "a probability": ("dpo.2", lambda z, ids, n: answer_logprob(z, ids, n).exp(), "the probability itself"),
    "one per token": ("dpo.2", lambda z, ids, n: torch.log_softmax(z, -1)[n:, 0], "shape"),
    "weights swapped": ("dpo.3", lambda m, flipped: doubtful_loss(m, 1 - flipped), "each other's weights"),
    "no doubt": ("dpo.3", lambda m, flipped: doubtful_loss(m, 0.0), "as if every label were right"),
    "summed": ("dpo.3", lambda m, flipped: doubtful_loss(m, flipped) * len(m), "take their mean"),
    "negative": ("dpo.3", lambda m, flipped: -doubtful_loss(m, flipped), "a loss is not negative"),
    "margins averaged": ("dpo.3", mixed_margins, "average the two losses"),
    "far margins": ("dpo.3", unstable, "not a finite number"),
    "not a function": ("dpo.3", 0.3, "doubtful_loss(margin, flipped)"),
    "a number": ("bpe.1", 3, "pair_changes(ids, pair, new_id)"),
    "a list of changes": ("bpe.1", lambda i, p, n: list(pair_changes(i, p, n).items()), "A dictionary"),
    "zeros kept": ("bpe.1", with_zeros, "leave out the pairs whose count stays the same"),
    "only the pair": ("bpe.1", only_the_pair, "both neighbours of each join"),
    "nothing": ("bpe.1", lambda i, p, n: {}, "the pair itself disappears"),
    "signs": ("bpe.1", lambda i, p, n: {k: -v for k, v in pair_changes(i, p, n).items()}, "signs are the wrong way"),
    "overlaps": ("bpe.1", overlapping, "must not overlap"),
    "changes its input": ("bpe.1", in_place, "changes the list that it is given"),
    "single bytes": ("bpe.2", lambda w, v: [w[i : i + 1] for i in range(len(w))], "you take the shortest"),
    "numbers": ("bpe.2", lambda w, v: list(w), "no bytes object"),
    "anywhere": ("bpe.2", anywhere, "the longest token that begins there"),
    "first piece only": ("bpe.2", lambda w, v: longest_first(w, v)[:1], "do not add up to the word"),
    "whole word": ("bpe.2", lambda w, v: [w] if w else [], "not all in the vocabulary"),
    "a tuple": ("bpe.2", lambda w, v: tuple(longest_first(w, v)), "A list of tokens"),
    "not turned": ("embedding.1", lambda e: as_linear(e, turn=False), "keeps a row for each output"),
    "sizes swapped": ("embedding.1", lambda e: as_linear(e, swap=True), "A one-hot row has as many numbers"),
    "bias": ("embedding.1", lambda e: as_linear(e, bias=True), "has a bias"),
    "other numbers": ("embedding.1", untrained, "one-hot rows in turn"),
    "the table": ("embedding.1", lambda e: e.weight, "An nn.Linear is wanted"),
    "changes it": ("embedding.1", changes_the_embedding, "changes the embedding layer itself"),
    "assignment": ("embedding.2", assigned, "keeps the gradient of one place"),
    "mean": ("embedding.2", averaged, "Every use of a row adds"),
    "shape": ("embedding.2", lambda i, g, r: table_gradient(i, g, r)[:-1], "shape"),
    "an instance": ("buffers.1", Standardize(torch.zeros(1), torch.ones(1)), "the class itself"),
    "attributes": ("buffers.1", AsAttributes, "plain attribute"),
    "parameters": ("buffers.1", AsParameters, "an optimizer would change"),
    "not saved": ("buffers.1", Unsaved, "are not saved"),
    "other order": ("buffers.1", OtherOrder, "Subtract first"),
    "float32 only": ("buffers.1", FloatOnly, "not float64"),
    "state_dict alone": ("buffers.2", from_state_dict, "leaves out some buffers"),
    "all saved": ("buffers.2", all_saved, "Whether a buffer is saved"),
    "frozen": ("buffers.2", by_gradient, "are parameters still"),
    "other words": ("buffers.2", lambda m: dict.fromkeys(kinds(m), "buffer"), "not among the three"),
    "names alone": ("buffers.2", lambda m: list(kinds(m)), "A dictionary from names"),
    "plain attribute": ("buffers.2", lambda m: kinds(m) | {"plain": "unsaved buffer"}, "neither a parameter nor"),
}

# What would give a solution away.
SECRETS = ["index_add", "join_pair", "subtract", "weight.T", "register_buffer", "in module.state_dict", "max("]
SECRETS += ["0.82", "2.2", "1.7", "log_softmax", "logsigmoid", "log(9)"]


@pytest.mark.parametrize("number", RIGHT)
def test_right_answers(number):
    for answer in RIGHT[number]:
        verdict = checks.EXERCISES[number](answer)
        assert verdict.passed is True, verdict
        assert len(verdict.message.split()) > 15 and verdict.title == f"Exercise {number}"


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_get_the_hint_that_aims_at_them(name):
    number, answer, hint = WRONG[name]
    verdict = checks.EXERCISES[number](answer)
    assert verdict.passed is False and hint in verdict.message, verdict
    assert not any(secret in verdict.message for secret in SECRETS)
    assert repr(verdict) == repr(checks.EXERCISES[number](answer))


@pytest.mark.parametrize("number", [number for number in RIGHT if number != "dpo.1"])  # which is no function
def test_no_answer_and_answers_that_raise(number):
    assert checks.EXERCISES[number](None).passed is None

    def broken(*_):
        raise KeyError("oops")

    verdict = checks.EXERCISES[number](broken)
    assert verdict.passed is False and ("KeyError" in verdict.message or number == "buffers.1")


def test_checkers_leave_the_random_state_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for number in ("embedding.2", "buffers.1", "bpe.1", "dpo.2", "dpo.3"):
        checks.EXERCISES[number](RIGHT[number][0])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("topic", "questions"),
    [
        ("bpe", bpe_from_scratch._BPE_QUESTIONS),
        ("embedding", embedding_layer_and_linear_layer._EMBEDDING_QUESTIONS),
        ("buffers", buffers._BUFFER_QUESTIONS),
        ("dpo", dpo_preference_tuning._QUESTIONS),
    ],
)
def test_every_option_is_explained(topic, questions):
    grader = getattr(checks, f"self_test_{topic}")
    assert grader(q1=None).passed is None
    for number, question in enumerate(questions, start=1):
        assert sum(right for right, _ in question.options.values()) == 1 and len(question.options) == 3
        for letter, (right, why) in question.options.items():
            verdict = grader(**{f"q{number}": letter})
            assert f"{'Yes' if right else 'No'}: {why}" in verdict.message and len(why.split()) >= 8
    best = [next(letter for letter, (right, _) in q.options.items() if right) for q in questions]
    assert len(set(best)) > 1 and grader(*best).passed is True
    assert grader(*best).title == f"Self-test {topic}"
