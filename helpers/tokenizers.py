"""Turning text into token ids and back (chapter 2).

Two small word-level tokenizers that the chapter builds, and GPT-2's byte-pair encoding from tiktoken, read from
files that ship with the course so that nothing is downloaded. Training a byte-pair encoding is not in this module.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

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


class SimpleTokenizerV2(SimpleTokenizerV1):
    """`SimpleTokenizerV1` that reads a word it does not know as `<|unk|>` (section 2.4).

    `vocab` must hold `<|unk|>`; `<|endoftext|>` between two texts is one token of its own.
    """

    def __init__(self, vocab: dict[str, int]):
        if "<|unk|>" not in vocab:
            raise ValueError("vocab has no '<|unk|>' entry, which stands for every unknown word")
        super().__init__(vocab)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; unknown words get the id of `<|unk|>`."""
        unknown = self.str_to_int["<|unk|>"]
        return [self.str_to_int.get(token, unknown) for token in split_text(text)]


def get_tokenizer(name: str = "gpt2") -> tiktoken.Encoding:
    """GPT-2's byte-pair encoding: 50,257 tokens, `<|endoftext|>` = 50256 (section 2.5).

    The same as `tiktoken.get_encoding(name)`. "gpt2" is read from files in this package; tiktoken would download
    any other encoding.
    """
    import tiktoken  # takes a moment, and not every use of helpers needs it

    return tiktoken.get_encoding(name)
