"""Preference tuning with DPO: pairs of answers, log-probabilities of whole answers, the loss on them (bonus notebook).

After Rafailov et al., "Direct Preference Optimization" (2023), section 4. A pair is a dictionary of four strings,
"instruction", "input" (may be empty), "chosen" and "rejected". A batch of B pairs has 2B rows, the chosen ones first.
What this leaves out: several answers in order, doubtful labels, and losses per token instead of per answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from .guards import evaluation_mode, guard
from .instructions import PHI3, Entry, PromptStyle, check_entries, masked_collate_fn
from .speed.chosen import logits_at
from .tokenizers import takes_tokenizer

Preference = Mapping[str, str]

FRIENDLY = ("Gladly. ", "Of course. ", "With pleasure. ")
CURT = ("Obviously. ", "Everybody knows that. ", "Look it up. ")


def _check_texts(entries: Sequence[Entry]) -> None:
    check_entries(entries, name="entries")


@guard(_check_texts)
def make_preferences(entries: Sequence[Entry], seed: int = 123) -> list[dict[str, str]]:
    """A pair for each entry, in its order: the same answer with a friendly opening (chosen) and with a curt one.

    Which of the openings an answer gets is drawn at random. Raises ValueError as `check_entries`.
    """
    draw = random.Random(seed)
    pairs = []
    for entry in entries:
        friendly, curt = draw.choice(FRIENDLY), draw.choice(CURT)
        answers = {"chosen": friendly + entry["output"], "rejected": curt + entry["output"]}
        pairs.append({**entry, **answers})
    return pairs


def check_preferences(pairs: Sequence[Preference]) -> None:
    """Raise ValueError, naming the place, unless each pair has its strings and two different answers."""
    check_entries(pairs, ("instruction", "input", "chosen", "rejected"), name="pairs")
    for number, pair in enumerate(pairs):
        if pair["chosen"] == pair["rejected"]:
            raise ValueError(f"pairs[{number}] has the same answer twice, {pair['chosen'][:40]!r}: nothing to prefer")


class PreferenceDataset(Dataset):
    """Pairs as token ids: each item is (prompt + chosen, prompt + rejected, tokens in the prompt, reference).

    `reference`, float (N, 2), is for the reference model's log-probabilities of both answers: set it to what
    `reference_logprobs` gives. Until then it is NaN, on which `training_steps` stops. An item has its row (2,).
    Raises ValueError as `check_preferences`.
    """

    @guard(check_preferences)
    @takes_tokenizer
    def __init__(self, pairs: Sequence[Preference], tokenizer: Any, style: PromptStyle = PHI3):
        self.prompts = [tokenizer.encode(style.prompt(pair)) for pair in pairs]
        self.chosen = [tokenizer.encode(pair["chosen"]) for pair in pairs]
        self.rejected = [tokenizer.encode(pair["rejected"]) for pair in pairs]
        self.reference = torch.full((len(pairs), 2), torch.nan)

    def __getitem__(self, index: int) -> tuple[list[int], list[int], int, torch.Tensor]:
        prompt = self.prompts[index]
        chosen, rejected = prompt + self.chosen[index], prompt + self.rejected[index]
        return chosen, rejected, len(prompt), self.reference[index]

    def __len__(self) -> int:
        return len(self.prompts)


def _check_pairs(batch: Sequence[Any], options: Mapping[str, Any]) -> None:
    if not batch:
        raise ValueError("batch holds no pair")
    longest = max(len(ids) for chosen, rejected, *_ in batch for ids in (chosen, rejected))
    allowed = options.get("allowed_max_length")
    if allowed is not None and longest > allowed:
        raise ValueError(
            f"allowed_max_length={allowed} cuts a row of {longest} tokens, but the reference counts whole answers: "
            "leave longer pairs out"
        )


@guard(_check_pairs)
def preference_collate_fn(
    batch: Sequence[tuple[Sequence[int], Sequence[int], int, torch.Tensor]], **options: Any
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """B items as inputs (2B, T), targets (2B, T) and reference (2B,), in each the chosen half first.

    Targets are those of `masked_collate_fn`, which `options` go to: the answer and its end count, the prompt does not.
    Raises ValueError for an `allowed_max_length` that would cut an answer: the reference counts all of it.
    """
    chosen = [(ids, length) for ids, _, length, _ in batch]
    rejected = [(ids, length) for _, ids, length, _ in batch]
    inputs, targets = masked_collate_fn(chosen + rejected, **options)
    reference = torch.stack([reference for *_, reference in batch])  # (B, 2)
    return inputs, (targets, reference.T.flatten().to(inputs.device))  # (2B, T), ((2B, T), (2B,))


def sequence_logprobs(
    model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor, ignore_index: int = -100
) -> torch.Tensor:
    """The log-probability of each row's answer, in nats: int64 inputs and targets (B, T) to (B,).

    It is the sum over the targets that are not `ignore_index`; logits are computed only there (see `logits_at`).
    Raises ValueError if a row exceeds the context.
    """
    counted = targets != ignore_index  # (B, T)
    logits = logits_at(model, inputs, counted)  # (N, vocab_size), N targets that count
    losses = F.cross_entropy(logits, targets[counted], reduction="none")  # (N,)
    return losses.new_zeros(targets.shape).masked_scatter(counted, -losses).sum(dim=1)  # (B,)


def reference_logprobs(
    model: torch.nn.Module,
    dataset: PreferenceDataset,
    batch_size: int = 16,
    collate_fn: Callable = preference_collate_fn,
) -> torch.Tensor:
    """The log-probabilities of both answers of every pair under a model that stays as it is: (N, 2), on the CPU.

    `collate_fn` should be the one of the training's loader: with a tokenizer other than GPT-2's, for example
    `partial(preference_collate_fn, pad_token_id=2)`.
    """
    device, parts = next(model.parameters()).device, []
    loader = DataLoader(dataset, batch_size, collate_fn=collate_fn)
    with evaluation_mode(model), torch.no_grad():
        for inputs, (targets, _) in loader:
            logprobs = sequence_logprobs(model, inputs.to(device), targets.to(device))  # (2B,)
            parts.append(logprobs.view(2, -1).T)  # (B, 2)
    return torch.cat(parts).cpu()


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise ValueError(f"beta={beta} must be positive")


@guard(_check_beta)
def dpo_loss(
    logp_chosen: torch.Tensor,
    logp_rejected: torch.Tensor,
    ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor,
    beta: float = 0.1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """DPO's loss, a scalar, and the implicit rewards of the chosen and of the rejected answers, both (B,).

    All arguments are log-probabilities of whole answers, (B,) (Rafailov et al., 2023, equation 7). Raises ValueError
    unless beta is positive.
    """
    reward_chosen = beta * (logp_chosen - ref_chosen)  # (B,)
    reward_rejected = beta * (logp_rejected - ref_rejected)  # (B,)
    loss = -F.logsigmoid(reward_chosen - reward_rejected).mean()
    return loss, reward_chosen.detach(), reward_rejected.detach()


def calc_dpo_loss_batch(
    input_batch: torch.Tensor,
    target_batch: tuple[torch.Tensor, torch.Tensor],
    model: torch.nn.Module,
    device: torch.device,
    beta: float = 0.1,
) -> torch.Tensor:
    """`dpo_loss` of a batch from `preference_collate_fn`, a scalar: the `loss_function` that `training_steps` takes."""
    targets, reference = target_batch
    logp = sequence_logprobs(model, input_batch.to(device), targets.to(device))  # (2B,)
    loss, _, _ = dpo_loss(*logp.chunk(2), *reference.to(device).chunk(2), beta=beta)
    return loss


def compare_with_reference(
    model: torch.nn.Module,
    dataset: PreferenceDataset,
    beta: float = 0.1,
    collate_fn: Callable = preference_collate_fn,
) -> dict[str, float]:
    """Means over all pairs of a dataset with its `reference`: both log-probabilities, margin, accuracy and loss.

    The margin is the reward of the chosen answer less that of the rejected one; accuracy is the share of pairs where it
    is positive. `collate_fn` is as for `reference_logprobs`.
    """
    chosen, rejected = reference_logprobs(model, dataset, collate_fn=collate_fn).T  # (N,) each
    references = dataset.reference.T  # (2, N)
    loss, reward_chosen, reward_rejected = dpo_loss(chosen, rejected, *references, beta=beta)
    margin = reward_chosen - reward_rejected  # (N,)
    return {
        "chosen": chosen.mean().item(),
        "rejected": rejected.mean().item(),
        "margin": margin.mean().item(),
        "accuracy": (margin > 0).float().mean().item(),
        "loss": loss.item(),
    }
