"""Turning text into token ids and back (chapter 2).

Two small word-level tokenizers that the chapter builds, and GPT-2's byte-pair encoding from tiktoken, read from
files that ship with the course so that nothing is downloaded. Training a byte-pair encoding is not in this module.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .guards import adapt, guard

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = 50256  # the id of GPT-2's `<|endoftext|>`

# tiktoken looks here for "gpt2" before it would download anything. A folder that the user chose is left alone.
if not os.environ.get("TIKTOKEN_CACHE_DIR"):
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(__file__).parent / "assets" / "tiktoken")


def split_text(text: str) -> list[str]:
    """Split text into words and punctuation marks, without the white space (section 2.2).

    >>> split_text("Is this-- a test?")
    ['Is', 'this', '--', 'a', 'test', '?']
    """
    pieces = re.split(r"([,.:;?_!\"()']|--|\s)", text)
    return [piece.strip() for piece in pieces if piece.strip()]


class SimpleTokenizerV1:
    """A word-level tokenizer with a fixed vocabulary (section 2.3).

    `vocab` maps each token to its id. A word outside it raises a KeyError: chapter 2 meets that failure and mends it
    in `SimpleTokenizerV2`. White space is not kept, so `decode(encode(text))` may differ from `text` in its spaces.
    """

    def __init__(self, vocab: dict[str, int]):
        self.str_to_int = vocab
        self.int_to_str = {token_id: token for token, token_id in vocab.items()}

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, one per word or punctuation mark."""
        return [self.str_to_int[token] for token in split_text(text)]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids: tokens joined by spaces, none before a punctuation mark."""
        text = " ".join(self.int_to_str[int(token_id)] for token_id in ids)
        return re.sub(r"\s+([,.:;?!\"()'])", r"\1", text)


def _check_unknown(vocab: dict[str, int]) -> None:
    if "<|unk|>" not in vocab:
        raise ValueError("vocab has no '<|unk|>' entry, which stands for every unknown word")


class SimpleTokenizerV2(SimpleTokenizerV1):
    """`SimpleTokenizerV1` that reads a word it does not know as `<|unk|>` (section 2.4).

    `vocab` must hold `<|unk|>`; `<|endoftext|>` between two texts is one token of its own.
    """

    @guard(_check_unknown)
    def __init__(self, vocab: dict[str, int]):
        super().__init__(vocab)
        self.unknown = vocab["<|unk|>"]

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; unknown words get the id of `<|unk|>`."""
        return [self.str_to_int.get(token, self.unknown) for token in split_text(text)]


def get_tokenizer(name: str = "gpt2") -> tiktoken.Encoding:
    """GPT-2's byte-pair encoding: 50,257 tokens, `<|endoftext|>` = 50256 (section 2.5).

    The same as `tiktoken.get_encoding(name)`. "gpt2" is read from files in this package; tiktoken would download
    any other encoding.
    """
    import tiktoken  # takes a moment, and not every use of helpers needs it

    return tiktoken.get_encoding(name)


class AnyTokenizer:
    """A tokenizer of any kind (tiktoken's, chapter 2's, Hugging Face's, yours), called in one way.

    `encode` reads special tokens as the letters that they are written with, unless `allowed_special` names them.
    `decode` shows ids that the tokenizer does not know, such as those that fill up a vocabulary of 50,304, as U+FFFD.
    Raises ValueError for what has no `encode` and `decode`.
    """

    def __init__(self, tokenizer: Any):
        if not any(callable(getattr(tokenizer, name, None)) for name in ("encode", "decode")):
            raise ValueError(f"tokenizer is {tokenizer!r:.60}: an object with methods encode and decode is expected")
        self.tokenizer = tokenizer
        try:
            parameters = inspect.signature(tokenizer.encode).parameters
        except (AttributeError, TypeError, ValueError):  # it only decodes, or is written in another language
            parameters = {}
        self.knows_special = "allowed_special" in parameters
        self.refuses_special = "disallowed_special" in parameters

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The token ids of a text."""
        if not isinstance(text, str):
            raise ValueError(f"text is a {type(text).__name__}: a string is expected")
        allowed = allowed_special if allowed_special == "all" else set(allowed_special)
        options: dict[str, Any] = {}
        if self.refuses_special:
            options = {"allowed_special": allowed, "disallowed_special": ()}
        elif self.knows_special and (allowed or not hasattr(self.tokenizer, "encode_ordinary")):
            options = {"allowed_special": allowed}
        elif hasattr(self.tokenizer, "encode_ordinary"):
            return list(self.tokenizer.encode_ordinary(text))
        ids = self.tokenizer.encode(text, **options)
        return list(getattr(ids, "ids", ids))  # Hugging Face's tokenizers give an object that has the ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids."""
        ids = [int(token_id) for token_id in ids]
        try:
            return self.tokenizer.decode(ids)
        except Exception:  # every tokenizer has an error of its own for an id that it does not know
            parts = [self._known(token_id) for token_id in ids]
            if not any(part is None for part in parts):
                raise
        text, known = "", []
        for token_id, part in zip([*ids, None], [*parts, None], strict=True):  # None: the end
            if part is not None:
                known.append(token_id)
                continue
            text += self.tokenizer.decode(known) if known else ""
            text += "" if token_id is None else "\ufffd"
            known = []
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, which may be a part of a character; none for an id that the tokenizer lacks."""
        exact = getattr(self.tokenizer, "decode_single_token_bytes", None)
        try:
            return exact(token_id) if exact else self.tokenizer.decode([token_id]).encode("utf-8", "replace")
        except Exception:
            return b""

    def _known(self, token_id: int) -> str | None:
        """The text of one token; None if the tokenizer does not know it."""
        try:
            return self.tokenizer.decode([token_id])
        except Exception:
            return None


def takes_tokenizer(function: Callable) -> Callable:
    """A decorator: the function's argument `tokenizer` may be a tokenizer of any kind (see `AnyTokenizer`)."""
    return adapt("tokenizer", lambda given: given if isinstance(given, AnyTokenizer) else AnyTokenizer(given))(function)
