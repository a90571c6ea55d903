"""Byte-pair encoding from scratch: learning merges, encoding, decoding (the bonus notebook on BPE).

Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (2016), on bytes and within words, as in
GPT-2 (Radford et al., 2019, section 2.2). Left out: a heap for the next pair, threads, texts too large for memory,
other ways to cut a text into words than GPT-2's. tiktoken and Hugging Face's tokenizers have all that.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf
from pathlib import Path

import regex

from .files import write_whole
from .guards import guard, takes_file
from .tokenizers import check_ids, check_text

Pair = tuple[int, int]

# How GPT-2 cuts a text before any merge: English endings; letters, digits or other marks, each with at most one space
# before them; white space. Every character is in exactly one piece.
GPT2_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT2_MERGES = Path(__file__).parent / "assets" / "tiktoken" / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"  # vocab.bpe
GPT2_IDS = GPT2_MERGES.with_name("6c7ea1a7e38e3a7f062df639a5b80947f075ffe6")  # encoder.json; only the notebook reads it


def join_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """`ids` with every occurrence of `pair`, from left to right, replaced by `new_id`.

    >>> join_pair([7, 7, 7, 5], (7, 7), 300)
    [300, 7, 5]
    """
    joined, index = [], 0
    while index < len(ids):
        found = tuple(ids[index : index + 2]) == pair
        joined.append(new_id if found else ids[index])
        index += 2 if found else 1
    return joined


def learn_merges(words: Mapping[bytes, int], num_merges: int) -> list[Pair]:
    """The most frequent pairs, one after another; `words` says how often each word occurs.

    The k-th pair (from 0) becomes token 256 + k; ids below 256 are bytes. Of equally frequent pairs the one with the
    smallest ids is taken. Stops early when no pair occurs twice, so a small text gives fewer merges.
    """
    spellings, times = [list(word) for word in words], list(words.values())
    counts, places = Counter(), defaultdict(set)

    def count(index, sign):
        for pair in pairwise(spellings[index]):
            counts[pair] += sign * times[index]
            places[pair].add(index)

    for index in range(len(spellings)):
        count(index, 1)
    merges = []
    while counts and len(merges) < num_merges:
        best = max(counts, key=lambda pair: (counts[pair], -pair[0], -pair[1]))
        if counts[best] < 2:
            break
        for index in list(places[best]):  # only words that hold the pair (or did) can change
            count(index, -1)
            spellings[index] = join_pair(spellings[index], best, 256 + len(merges))
            count(index, 1)
        merges.append(best)
    return merges


def apply_merges(ids: Sequence[int], ranks: Mapping[Pair, int]) -> list[int]:
    """`ids` of one word after all merges, the earliest learned first; `ranks` maps a pair to the id of its token."""
    ids = list(ids)
    while len(ids) > 1:
        first = min(pairwise(ids), key=lambda pair: ranks.get(pair, inf))
        if first not in ranks:
            break
        ids = join_pair(ids, first, ranks[first])
    return ids


def split_special(text: str, special_tokens: Collection[str]) -> list[str]:
    """`text` cut at special tokens, which are at the odd places of the result; pieces between them may be empty."""
    if not special_tokens:
        return [text]
    longest_first = sorted(special_tokens, key=len, reverse=True)
    pattern = "|".join(map(regex.escape, longest_first))
    return regex.split(f"({pattern})", text)


def _check_parts(merges: Sequence[Pair], special_tokens: Sequence[str], byte_order: Sequence[int]) -> None:
    for name, part in (("merges", merges), ("special_tokens", special_tokens), ("byte_order", byte_order)):
        if iter(part) is part:  # an iterator would be used up here, and the tokenizer would lack what it held
            raise ValueError(f"{name} must be a list or another sequence, got {type(part).__name__}")
    if isinstance(special_tokens, str) or not all(isinstance(token, str) for token in special_tokens):
        raise ValueError(f"special_tokens must be a list of strings, got {special_tokens!r:.60}")
    if sorted(byte_order) != list(range(256)):
        raise ValueError("byte_order must hold each of the 256 bytes once")
    if len(set(special_tokens)) < len(special_tokens) or "" in special_tokens:
        raise ValueError(f"special_tokens must be different and not empty, got {list(special_tokens)}")
    seen = set()
    for left, right in merges:
        if not (0 <= min(left, right) <= max(left, right) < 256 + len(seen)) or (left, right) in seen:
            raise ValueError(f"merge {(left, right)} comes twice or joins a token that does not exist yet")
        seen.add((left, right))


class BPETokenizer:
    """Text to token ids and back. `encode`, `decode` and `n_vocab` are used like those of a tiktoken encoding.

    The first 256 ids are the bytes in the order of `byte_order`; `merges[k]` is the pair of ids that makes token
    256 + k; special tokens come last. Remembers every word it has encoded. Raises ValueError if the parts do not fit.
    """

    @guard(_check_parts)
    def __init__(
        self, merges: Sequence[Pair], special_tokens: Sequence[str] = (), byte_order: Sequence[int] = range(256)
    ):
        self.tokens = [bytes([byte]) for byte in byte_order]
        self.ranks = {}
        for left, right in merges:
            self.ranks[left, right] = len(self.tokens)
            self.tokens.append(self.tokens[left] + self.tokens[right])
        self.special_tokens = {}
        for token in special_tokens:
            self.special_tokens[token] = len(self.tokens)
            self.tokens.append(token.encode("utf-8"))
        self.byte_ids = {byte: token_id for token_id, byte in enumerate(byte_order)}
        self.n_vocab = len(self.tokens)
        self.known = {}

    @guard(check_text)
    def encode_ordinary(self, text: str) -> list[int]:
        """Token ids of `text`, in which special tokens are characters like any others."""
        ids = []
        for word in regex.findall(GPT2_SPLIT, text):
            if word not in self.known:
                byte_ids = [self.byte_ids[byte] for byte in word.encode("utf-8")]
                self.known[word] = apply_merges(byte_ids, self.ranks)
            ids += self.known[word]
        return ids

    @guard(check_text)
    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Token ids of `text`; `allowed_special` names the special tokens that may stand in it, "all" means each.

        Raises ValueError if another special token stands in `text` or it is not a string, and UnicodeEncodeError for
        half a surrogate pair.
        """
        ids = []
        for number, piece in enumerate(split_special(text, self.special_tokens)):
            if number % 2 == 0:
                ids += self.encode_ordinary(piece)
            elif allowed_special == "all" or piece in allowed_special:
                ids.append(self.special_tokens[piece])
            else:
                hint = "name it in allowed_special, or use encode_ordinary"
                raise ValueError(f"text contains {piece!r}: {hint}")
        return ids

    def decode_single_token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token. Raises ValueError if there is no such token."""
        if not 0 <= token_id < len(self.tokens):
            raise ValueError(f"token id {token_id} is not between 0 and {len(self.tokens) - 1}")
        return self.tokens[token_id]

    @guard(check_ids)
    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. Bytes that are no UTF-8, such as those of half a character, become U+FFFD.

        Raises ValueError for an id that is no token's, and for rows of ids.
        """
        pieces = [self.decode_single_token_bytes(int(token_id)) for token_id in ids]
        return b"".join(pieces).decode("utf-8", "replace")


def _check_training(text: str, vocab_size: int, special_tokens: Sequence[str]) -> None:
    check_text(text)
    _check_parts((), special_tokens, range(256))
    if vocab_size < 256 + len(special_tokens):
        raise ValueError(f"vocab_size={vocab_size} is less than 256 bytes and {len(special_tokens)} special tokens")
    if not text:
        raise ValueError("text is empty: there is nothing to learn merges from")


@guard(_check_training)
def train_bpe(text: str, vocab_size: int, special_tokens: Sequence[str] = ("<|endoftext|>",)) -> BPETokenizer:
    """A tokenizer with at most `vocab_size` tokens: 256 bytes, the merges learned from `text`, the special tokens.

    Nothing is learned from special tokens in `text`. A small text gives fewer tokens (see `learn_merges`). Raises
    ValueError if `text` is empty or not a string, if `vocab_size` has no room for bytes and special tokens, and if
    these are not different strings.
    """
    words = Counter()
    for piece in split_special(text, special_tokens)[::2]:
        words.update(word.encode("utf-8") for word in regex.findall(GPT2_SPLIT, piece))
    num_merges = vocab_size - 256 - len(special_tokens)
    return BPETokenizer(learn_merges(words, num_merges), special_tokens)


def gpt2_bpe() -> BPETokenizer:
    """GPT-2's tokenizer, from the list of merges that comes with the course: 50,257 tokens.

    The file writes each byte as one visible character: itself if it has a shape in Latin-1, else one from U+0100 on.
    """
    visible = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = [chr(byte) for byte in visible]
    letters += [chr(256 + number) for number in range(len(hidden))]
    ids, merges = {letter: token_id for token_id, letter in enumerate(letters)}, []
    lines = GPT2_MERGES.read_text(encoding="utf-8").splitlines()
    for line in lines[1:]:  # the first line is the file's version
        left, right = line.split(" ")
        merges.append((ids[left], ids[right]))
        ids[left + right] = 255 + len(merges)
    return BPETokenizer(merges, ["<|endoftext|>"], visible + hidden)


def _check_saved(tokenizer: BPETokenizer) -> None:
    if type(tokenizer) is not BPETokenizer:  # a subclass may number, cut or encode otherwise: the file would not say so
        raise ValueError(f"tokenizer is a {type(tokenizer).__name__}: a BPETokenizer itself is expected")


@guard(_check_saved)
def save_bpe(tokenizer: BPETokenizer, path: Path | str) -> None:
    """Write a tokenizer as JSON: how it cuts words, the order of the bytes, special tokens, merges.

    Raises ValueError if it is of another class, also of one made from `BPETokenizer`.
    """
    parts = {"split": GPT2_SPLIT, "byte_order": list(tokenizer.byte_ids)}
    parts |= {"special_tokens": list(tokenizer.special_tokens), "merges": list(tokenizer.ranks)}
    content = json.dumps(parts)
    write_whole(path, lambda temporary: Path(temporary).write_text(content, encoding="utf-8"))


@takes_file
def load_bpe(path: Path | str) -> BPETokenizer:
    """Read what `save_bpe` wrote. Raises ValueError if `path` holds anything else."""
    try:
        parts = json.loads(Path(path).read_text(encoding="utf-8"))
        if parts["split"] != GPT2_SPLIT:
            raise ValueError(f"it cuts words by another pattern, {parts['split']}")
        return BPETokenizer(parts["merges"], parts["special_tokens"], parts["byte_order"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no tokenizer: {type(error).__name__}: {error}") from None
