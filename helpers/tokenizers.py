"""Turning text into token ids and back (chapter 2).

Two small word-level tokenizers that the chapter builds, and GPT-2's byte-pair encoding from tiktoken, read from
files that ship with the course so that nothing is downloaded. Training a byte-pair encoding is not in this module.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .guards import adapt, guard

if TYPE_CHECKING:
    import tiktoken

END_OF_TEXT = 50256  # the id of GPT-2's `<|endoftext|>`
GPT2_FILES = Path(__file__).parent / "assets" / "tiktoken"

# So that tiktoken finds "gpt2" here without a download, also where it is called without `get_tokenizer`. Folders that
# the user chose are left alone.
if not (os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")):
    os.environ["TIKTOKEN_CACHE_DIR"] = str(GPT2_FILES)


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

    The same as `tiktoken.get_encoding(name)`. "gpt2" is read from files in this package, unless TIKTOKEN_CACHE_DIR
    names a folder. tiktoken would download any other encoding; it keeps them where it does without this course.
    """
    import tiktoken  # takes a moment, and not every use of helpers needs it

    before = os.environ.pop("TIKTOKEN_CACHE_DIR", None)
    chosen = before if before != str(GPT2_FILES) else None
    folder = chosen or (str(GPT2_FILES) if name == "gpt2" else None)
    try:
        if folder:
            os.environ["TIKTOKEN_CACHE_DIR"] = folder
        return tiktoken.get_encoding(name)
    finally:
        os.environ.pop("TIKTOKEN_CACHE_DIR", None)
        if before is not None:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def byte_letters() -> dict[int, str]:
    """How byte-level tokenizers write each of the 256 bytes in their files: as one visible letter.

    First the bytes that have a shape in Latin-1, which stand for themselves; the others get letters from U+0100 on.
    """
    visible = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + number) for number, byte in enumerate(hidden)}


def check_text(text: str) -> None:
    """Raise ValueError for what is not a string."""
    if not isinstance(text, str):
        raise ValueError(f"text is a {type(text).__name__}: a string is expected")


def check_ids(ids: Iterable[int]) -> None:
    """Raise ValueError for rows of token ids, as a tensor or in a list, where the ids of one text are expected."""
    if getattr(ids, "ndim", 1) != 1:
        raise ValueError(f"ids has the shape {tuple(ids.shape)}: the ids of one text, (T,), are expected")
    if isinstance(ids, list | tuple) and any(isinstance(token_id, list | tuple) for token_id in ids):
        raise ValueError("ids is a list of lists: the ids of one text are expected")


class HuggingFaceTokenizer:
    """A tokenizer of Hugging Face's transformers or tokenizers, with the methods and the habits of a tiktoken encoding.

    Special tokens in a text are letters unless allowed, none is put around it, none is left out of the text of ids, and
    an id that the tokenizer does not know is an error.
    """

    def __init__(self, tokenizer: Any):
        self.in_transformers = hasattr(tokenizer, "convert_ids_to_tokens")
        if not self.in_transformers:
            tokenizer = getattr(tokenizer, "_tokenizer", tokenizer)  # of a ByteLevelBPETokenizer, which lacks a setting
        self.tokenizer = tokenizer
        self.token = tokenizer.convert_ids_to_tokens if self.in_transformers else tokenizer.id_to_token
        added = tokenizer.added_tokens_decoder if self.in_transformers else tokenizer.get_added_tokens_decoder()
        self.special_tokens = {token.content: token_id for token_id, token in added.items() if token.special}

    def encode_ordinary(self, text: str) -> list[int]:
        """Token ids of `text`, in which special tokens are characters like any others."""
        if self.in_transformers:
            return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        before = self.tokenizer.encode_special_tokens  # a setting of the tokenizer, which may be in use elsewhere
        self.tokenizer.encode_special_tokens = True
        try:
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self.tokenizer.encode_special_tokens = before

    def encode(self, text: str, *, allowed_special: Collection[str] = ()) -> list[int]:
        """Token ids of `text`; `allowed_special` names the special tokens that are one id in it, "all" means each."""
        from .bpe import split_special  # that module needs this one

        allowed = [token for token in self.special_tokens if allowed_special == "all" or token in allowed_special]
        ids = []
        for number, piece in enumerate(split_special(text, allowed)):
            ids += [self.special_tokens[piece]] if number % 2 else self.encode_ordinary(piece)
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids. Raises ValueError or OverflowError if there is no such token."""
        for token_id in ids:
            self.written(token_id)
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def decode_single_token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, which may be a part of a character. Raises as `decode`."""
        text, written = self.decode([token_id]), self.written(token_id)
        if "\ufffd" in text:  # a part of a character: a byte by its number, or bytes as letters
            numbers = {letter: byte for byte, letter in byte_letters().items()}
            if match := re.fullmatch("<0x([0-9A-F]{2})>", written):
                return bytes.fromhex(match[1])
            if set(written) <= set(numbers):
                return bytes(numbers[letter] for letter in written)
        return text.encode("utf-8", "replace")

    def written(self, token_id: int) -> str:
        """How the tokenizer's vocabulary writes a token. Raises as `decode`."""
        token = self.token(token_id)
        if token is None:
            raise ValueError(f"token id {token_id} is not in the tokenizer's vocabulary")
        return token


class AnyTokenizer:
    """A tokenizer of any kind (tiktoken's, chapter 2's, Hugging Face's, yours), called in one way.

    `encode` reads special tokens as the letters that they are written with, unless `allowed_special` names them: one,
    several, or "all". It puts none around the text, and `decode` leaves none out. `decode` shows ids that the tokenizer
    does not know, such as those that fill up a vocabulary of 50,304, as U+FFFD. Raises ValueError for what has no
    `encode` and `decode`.
    """

    def __init__(self, tokenizer: Any):
        if not any(callable(getattr(tokenizer, name, None)) for name in ("encode", "decode")):
            raise ValueError(f"tokenizer is {tokenizer!r:.60}: an object with methods encode and decode is expected")
        if any(hasattr(tokenizer, name) for name in ("added_tokens_decoder", "get_added_tokens_decoder")):
            tokenizer = HuggingFaceTokenizer(tokenizer)
        self.tokenizer = tokenizer
        try:
            parameters = inspect.signature(tokenizer.encode).parameters
        except (AttributeError, TypeError, ValueError):  # it only decodes, or is written in another language
            parameters = {}
        self.knows_special = "allowed_special" in parameters
        self.refuses_special = "disallowed_special" in parameters

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """The token ids of a text. Raises ValueError if it is not a string."""
        check_text(text)
        allowed: Any = allowed_special
        if allowed != "all":
            allowed = {allowed} if isinstance(allowed, str) else set(allowed)
        options: dict[str, Any] = {}
        if self.refuses_special:
            options = {"allowed_special": allowed, "disallowed_special": ()}
        elif self.knows_special and (allowed or not hasattr(self.tokenizer, "encode_ordinary")):
            options = {"allowed_special": allowed}
        elif hasattr(self.tokenizer, "encode_ordinary"):
            return list(self.tokenizer.encode_ordinary(text))
        ids = self.tokenizer.encode(text, **options)
        return list(getattr(ids, "ids", ids))  # some give an object that has the ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids. Raises ValueError for rows of them."""
        check_ids(ids)
        ids = [int(token_id) for token_id in ids]
        with contextlib.suppress(Exception):  # every tokenizer has an error of its own for an id that it does not know
            return self.tokenizer.decode(ids)
        runs = itertools.groupby(ids, self._knows)
        return "".join(self.tokenizer.decode(list(run)) if known else "\ufffd" * len(list(run)) for known, run in runs)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, which may be a part of a character; none for an id that the tokenizer lacks."""
        exact = getattr(self.tokenizer, "decode_single_token_bytes", None)
        try:
            return exact(token_id) if exact else self.tokenizer.decode([token_id]).encode("utf-8", "replace")
        except Exception:
            return b""

    def _knows(self, token_id: int) -> bool:
        """Whether the tokenizer gives a text for a token."""
        try:
            return self.tokenizer.decode([token_id]) is not None
        except Exception:
            return False


def takes_tokenizer(function: Callable) -> Callable:
    """A decorator: the function's argument `tokenizer` may be a tokenizer of any kind (see `AnyTokenizer`)."""
    return adapt("tokenizer", lambda given: given if isinstance(given, AnyTokenizer) else AnyTokenizer(given))(function)
