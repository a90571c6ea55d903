"""A 5-gram model with interpolated Kneser-Ney smoothing, as the peer of the course model:

    python -m benchmarks.ngram tokens.npz

reads what `helpers.make.course_model prepare` wrote and prints the perplexity on each held-out text. Each order backs
off to the next shorter one (Kneser and Ney, 1995; Chen and Goodman, 1999), the unigrams to all of GPT-2's vocabulary.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from helpers.make.corpus_tokens import read_tokens
from helpers.make.course_model import VOCABULARY

ORDER, DISCOUNT = 5, 0.75


class NGrams:
    """Counts of one order. N-grams are numbered by their keys: the number of the first n - 1 tokens, then the last."""

    def __init__(self, keys: np.ndarray):
        self.keys, self.first, self.number, counts = np.unique(
            keys, return_index=True, return_inverse=True, return_counts=True
        )
        self.counts = counts.astype(np.float64)

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """Numbers of n-grams, -1 for those never seen."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1)

    def group(self) -> None:
        """Totals over all n-grams that share their first n - 1 tokens."""
        context = (self.keys >> 16).astype(np.int64)
        self.totals = np.bincount(context, weights=self.counts)
        self.distinct = np.bincount(context)


def joined(before: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Keys of n-grams that end at each token from the second on, from the numbers of the (n - 1)-grams before them."""
    return (before[:-1].astype(np.uint64) << np.uint64(16)) | tokens[1:].astype(np.uint64)


def train(tokens: np.ndarray) -> list[NGrams]:
    """Orders 1 to 5; all but the longest count in how many different contexts an n-gram was seen."""
    orders = [NGrams(tokens.astype(np.uint64))]
    for _ in range(1, ORDER):
        shorter = orders[-1].number
        offset = len(tokens) - len(shorter)
        orders.append(NGrams(joined(shorter, tokens[offset:])))
    for shorter, longer in itertools.pairwise(orders):
        # the n-gram that ends where a longer one does starts one token later: its number is one place further on
        shorter.counts = np.bincount(shorter.number[longer.first + 1], minlength=len(shorter.keys)).astype(np.float64)
    for order in orders[1:]:
        order.group()
    return orders


def perplexity(orders: list[NGrams], tokens: np.ndarray) -> float:
    """Per-token perplexity of a text."""
    unigram = orders[0]
    numbers = unigram.lookup(tokens.astype(np.uint64))
    seen = np.where(numbers >= 0, unigram.counts[numbers], 0.0)
    total = unigram.counts.sum()
    spare = DISCOUNT * len(unigram.keys) / total
    probability = np.maximum(seen - DISCOUNT, 0) / total + spare / VOCABULARY
    for order in orders[1:]:
        before = numbers[:-1]  # numbers of the (n - 1)-grams that end at the previous token
        known = before >= 0
        keys = joined(np.maximum(numbers, 0), tokens[len(tokens) - len(numbers) :])
        found = np.where(known, order.lookup(keys), -1)
        context = np.where(known & (before < len(order.totals)), before, 0)
        totals = np.where(known & (before < len(order.totals)), order.totals[context], 0.0)
        counts = np.where(found >= 0, order.counts[found], 0.0)
        shorter = probability[1:]
        with np.errstate(divide="ignore", invalid="ignore"):
            mixed = (np.maximum(counts - DISCOUNT, 0) + DISCOUNT * order.distinct[context] * shorter) / totals
        probability = np.where(totals > 0, mixed, shorter)
        numbers = found
    return float(np.exp(-np.log(probability).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    training, held_out = read_tokens(parser.parse_args().tokens)
    orders = train(np.concatenate(list(training.values())))
    print(json.dumps({name: round(perplexity(orders, ids), 1) for name, ids in held_out.items()}, indent=1))


if __name__ == "__main__":
    main()
