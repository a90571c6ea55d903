"""Tokenizers: the word-level ones against a slow reference, GPT-2's encoding against its published ids and offline."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import helpers
from helpers import (
    InstructionDataset,
    SimpleTokenizerV1,
    SimpleTokenizerV2,
    extract_response,
    get_tokenizer,
    gpt2_bpe,
    split_text,
    token_ids_to_text,
)
from helpers.bpe import GPT2_IDS, GPT2_MERGES
from helpers.tokenizers import AnyTokenizer

FIXED = settings(derandomize=True, deadline=None, database=None, max_examples=200)
ASSETS = Path(helpers.__file__).parent / "assets" / "tiktoken"
BPE_FILES = {
    "6d1cbeee0f20b3d9449abfede4726ed8212e3aee": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
NO_SOCKETS = """
import socket

def refuse(*args, **kwargs):
    raise OSError("this test allows no network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""


def split_slowly(text):
    """`split_text`, one character at a time and without a regular expression."""
    pieces, word, position = [], "", 0
    while position < len(text):
        character = text[position]
        if text[position : position + 2] == "--":
            mark, length = "--", 2
        elif character in ",.:;?_!\"()'":
            mark, length = character, 1
        elif character.isspace():
            mark, length = None, 1
        else:
            word, position = word + character, position + 1
            continue
        pieces += [piece for piece in (word, mark) if piece]
        word, position = "", position + length
    return pieces + ([word] if word else [])


class TestSplitText:
    @FIXED
    @given(st.one_of(st.text(), st.text(alphabet="ab-_'\".,;:?!() \n\t\xa0é—", max_size=30)))
    @example("---")
    @example("a-- b --c-d")
    @example("")
    def test_agrees_with_a_character_walk(self, text):
        assert split_text(text) == split_slowly(text)

    @pytest.mark.parametrize(
        ("text", "pieces"),
        [
            ("Hello, world. Is this-- a test?", ["Hello", ",", "world", ".", "Is", "this", "--", "a", "test", "?"]),
            ("don't", ["don", "'", "t"]),
            ("snake_case", ["snake", "_", "case"]),
            ("well-known", ["well-known"]),
            (" \n\t ", []),
            ("one <|endoftext|> two", ["one", "<|endoftext|>", "two"]),
        ],
    )
    def test_examples(self, text, pieces):
        assert split_text(text) == pieces

    @FIXED
    @given(st.text())
    def test_loses_nothing_but_white_space(self, text):
        assert "".join(split_text(text)) == "".join(text.split())


@pytest.fixture(name="vocab")
def word_vocabulary():
    tokens = sorted(set(split_text('the cat sat, and the dog -- a big one! -- ran (twice): "why?" it\'s; so. be_it')))
    return {token: token_id for token_id, token in enumerate(tokens)}


class TestSimpleTokenizerV1:
    @pytest.mark.parametrize("text", ["the cat sat, and the dog ran.", "the cat -- a big one! -- ran: so; why?", ""])
    def test_round_trip(self, vocab, text):
        tokenizer = SimpleTokenizerV1(vocab)
        assert tokenizer.decode(tokenizer.encode(text)) == text

    @FIXED
    @given(st.data())
    def test_ids_survive_decoding_and_encoding(self, data):
        tokens = ["a", "b", "Wort", "--", "-", "_", ",", ".", ":", ";", "?", "!", '"', "(", ")", "'"]
        tokenizer = SimpleTokenizerV1({token: token_id for token_id, token in enumerate(tokens)})
        ids = data.draw(st.lists(st.integers(0, len(tokens) - 1), max_size=30))
        assert tokenizer.encode(tokenizer.decode(ids)) == ids

    def test_no_space_before_punctuation(self, vocab):
        tokenizer = SimpleTokenizerV1(vocab)
        ids = [vocab[token] for token in ("the", "cat", ",", "(", "twice", ")", ":", "why", "?", "so", ".")]
        assert tokenizer.decode(ids) == "the cat,( twice): why? so."

    def test_decodes_a_tensor(self, vocab):
        import torch

        tokenizer = SimpleTokenizerV1(vocab)
        assert tokenizer.decode(torch.tensor(tokenizer.encode("the cat sat"))) == "the cat sat"

    def test_unknown_word(self, vocab):
        with pytest.raises(KeyError, match="zebra"):
            SimpleTokenizerV1(vocab).encode("the zebra sat")

    def test_unknown_id(self, vocab):
        with pytest.raises(KeyError, match="9999"):
            SimpleTokenizerV1(vocab).decode([9999])


class TestSimpleTokenizerV2:
    @pytest.fixture(name="tokenizer")
    def with_special_tokens(self, vocab):
        return SimpleTokenizerV2({**vocab, "<|endoftext|>": len(vocab), "<|unk|>": len(vocab) + 1})

    def test_unknown_words(self, tokenizer, vocab):
        ids = tokenizer.encode("the zebra sat, quietly.")
        assert ids[1] == ids[4] == len(vocab) + 1
        assert tokenizer.decode(ids) == "the <|unk|> sat, <|unk|>."

    def test_end_of_text_is_one_token(self, tokenizer, vocab):
        text = "the cat sat. <|endoftext|> the dog ran."
        ids = tokenizer.encode(text)
        assert ids.count(len(vocab)) == 1
        assert tokenizer.decode(ids) == text

    def test_known_words_as_v1(self, tokenizer, vocab):
        text = "the cat sat, and the dog ran."
        assert tokenizer.encode(text) == SimpleTokenizerV1(vocab).encode(text)

    def test_vocabulary_without_unk(self, vocab):
        with pytest.raises(ValueError, match=r"vocab .*<\|unk\|>"):
            SimpleTokenizerV2(vocab)


class TestBytePairEncoding:
    @FIXED
    @given(
        st.one_of(
            st.text(),
            st.text(alphabet=" ", max_size=40),
            st.text(alphabet=" a\n\r\t\xa0", max_size=40),
            st.text(alphabet="0123456789., ", max_size=40),
            st.text(alphabet="éß漢字🙂👩‍👧\u0301אב", max_size=20),
        )
    )
    @example("a" * 100)
    @example("\n\n\n   x   \n")
    @example("'s 't 're 've 'm 'll 'd")
    @example("\x00\ufffd\U0010ffff")
    def test_round_trip(self, text):
        tokenizer = get_tokenizer()
        ids = tokenizer.encode(text, disallowed_special=())
        assert tokenizer.decode(ids) == text
        assert all(0 <= token_id < 50256 for token_id in ids)

    def test_unknown_word_piece_by_piece(self):
        tokenizer = get_tokenizer("gpt2")
        ids = tokenizer.encode("Akwirw ier")
        assert ids == [33901, 86, 343, 86, 220, 959]
        assert "".join(tokenizer.decode([token_id]) for token_id in ids) == "Akwirw ier"

    @pytest.mark.parametrize(
        ("text", "ids"),
        [
            ("Hello, I am", [15496, 11, 314, 716]),
            ("Every effort moves you", [6109, 3626, 6100, 345]),
            ("Hello, do you like tea?", [15496, 11, 466, 345, 588, 8887, 30]),
        ],
    )
    def test_published_ids(self, text, ids):
        assert get_tokenizer().encode(text) == ids

    def test_vocabulary(self):
        tokenizer = get_tokenizer()
        assert tokenizer.n_vocab == 50257
        assert tokenizer.eot_token == 50256

    def test_end_of_text(self):
        tokenizer = get_tokenizer()
        assert tokenizer.encode("<|endoftext|>", allowed_special={"<|endoftext|>"}) == [50256]
        with pytest.raises(ValueError, match="endoftext"):
            tokenizer.encode("<|endoftext|>")

    def test_unknown_encoding(self):
        with pytest.raises(ValueError, match="nonsense"):
            get_tokenizer("nonsense")


class TestEmbeddedFiles:
    @pytest.mark.parametrize(("name", "sha256"), BPE_FILES.items())
    def test_sha256(self, name, sha256):
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == sha256

    def test_nothing_else_is_in_the_folder(self):
        assert {path.name for path in ASSETS.iterdir()} == set(BPE_FILES)


def run_without_network(code, **environment):
    """Run code in a fresh Python in which no connection can be made; a value of None unsets a variable."""
    env = {**os.environ, **{name: value for name, value in environment.items() if value is not None}}
    for name in [name for name, value in environment.items() if value is None] + ["DATA_GYM_CACHE_DIR"]:
        env.pop(name, None)
    return subprocess.run(
        [sys.executable, "-c", NO_SOCKETS + code], env=env, capture_output=True, text=True, timeout=60
    )


ENCODE = """
import os, helpers
before = os.environ.get("TIKTOKEN_CACHE_DIR")
print(helpers.get_tokenizer().encode("Akwirw ier"))
print(os.environ.get("TIKTOKEN_CACHE_DIR") == before)
"""


class TestOffline:
    @pytest.mark.parametrize("value", [None, ""])
    def test_loads_from_the_package(self, value):
        result = run_without_network(ENCODE, TIKTOKEN_CACHE_DIR=value)
        assert result.stderr == ""
        assert result.stdout.splitlines() == ["[33901, 86, 343, 86, 220, 959]", "True"]

    def test_tiktoken_finds_gpt2_by_itself(self):
        """As in the book, after any import of helpers."""
        code = "import helpers, tiktoken; helpers.split_text; print(tiktoken.get_encoding('gpt2').n_vocab)"
        assert run_without_network(code).stdout.split() == ["50257"]

    def test_with_a_cache_of_the_users_under_the_older_name(self, tmp_path):
        result = run_without_network(ENCODE, DATA_GYM_CACHE_DIR=str(tmp_path))
        assert result.stdout.splitlines() == ["[33901, 86, 343, 86, 220, 959]", "True"]
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("chosen", [None, "", str(ASSETS), "a folder"])
    def test_only_gpt2_is_looked_for_in_the_package(self, chosen, monkeypatch):
        """tiktoken would keep what it downloads for others in this folder."""
        import tiktoken

        monkeypatch.setattr(tiktoken, "get_encoding", lambda name: os.environ.get("TIKTOKEN_CACHE_DIR"))
        monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
        if chosen is not None:
            monkeypatch.setenv("TIKTOKEN_CACHE_DIR", chosen)
        own = chosen if chosen == "a folder" else None
        assert get_tokenizer("cl100k_base") == own
        assert get_tokenizer("gpt2") == (own or str(ASSETS))
        assert get_tokenizer("cl100k_base") == own
        assert os.environ.get("TIKTOKEN_CACHE_DIR") == chosen

    def test_a_folder_of_the_users_is_respected(self, tmp_path):
        full, empty = tmp_path / "full", tmp_path / "empty"
        shutil.copytree(ASSETS, full)
        empty.mkdir()
        result = run_without_network(ENCODE, TIKTOKEN_CACHE_DIR=str(full))
        assert result.stdout.splitlines() == ["[33901, 86, 343, 86, 220, 959]", "True"]
        # From an empty folder tiktoken wants to download, which shows that it looks there and not into the package.
        result = run_without_network(ENCODE, TIKTOKEN_CACHE_DIR=str(empty))
        assert result.returncode != 0
        assert "this test allows no network" in result.stderr


END = "<|endoftext|>"


def in_transformers():
    """GPT-2's encoding in Hugging Face's transformers."""
    from transformers import GPT2TokenizerFast

    merges = [tuple(line.split(" ")) for line in GPT2_MERGES.read_text(encoding="utf-8").splitlines()[1:]]
    return GPT2TokenizerFast(vocab=json.loads(GPT2_IDS.read_text(encoding="utf-8")), merges=merges)


def in_tokenizers():
    """The same in Hugging Face's tokenizers."""
    return tokenizers.Tokenizer.from_str(in_transformers().backend_tokenizer.to_str())


def with_a_beginning(transformers):
    """The same, but it puts a special token before a text, as Llama's and BERT's do."""
    core = in_tokenizers()
    process = tokenizers.processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 50256)])
    core.post_processor = process
    if not transformers:
        return core
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.fixture(name="theirs", scope="module", params=["transformers", "tokenizers", "BOS", "BOS in transformers"])
def hugging_face_tokenizer(request):
    if request.param.startswith("BOS"):
        return with_a_beginning(transformers="transformers" in request.param)
    return in_transformers() if request.param == "transformers" else in_tokenizers()


class TestHuggingFace:
    """Everything as with tiktoken's encoding of the same vocabulary."""

    TEXTS = ("", "hi", "Hello , world . It 's", f"a{END}b", f"{END}{END} x", "🏠 é 漢字", "a\n\n  b ")

    def test_encode(self, theirs):
        ours, expected = AnyTokenizer(theirs), AnyTokenizer(get_tokenizer())
        before = theirs.encode(f"a{END}b")
        for text in self.TEXTS:
            for allowed in ((), {END}, [END], END, "all", {"<|other|>"}):
                ids = ours.encode(text, allowed)
                assert ids == expected.encode(text, allowed), (text, allowed)
                assert ours.decode(ids) == text
        after = theirs.encode(f"a{END}b")  # the tokenizer itself is as it was
        assert getattr(after, "ids", after) == getattr(before, "ids", before)

    def test_special_tokens_that_are_typed_are_letters(self, theirs):
        assert AnyTokenizer(theirs).encode(f"a{END}b") == [64, 27, 91, 437, 1659, 5239, 91, 29, 65]
        assert AnyTokenizer(theirs).encode(f"a{END}b", END) == [64, 50256, 65]

    def test_none_in_the_middle_of_an_entry(self, theirs):
        entry = {"instruction": f"Say {END}", "input": "", "output": "Hi."}
        assert InstructionDataset([entry], theirs)[0] == InstructionDataset([entry], get_tokenizer())[0]

    def test_one_that_is_trained_by_hand(self):
        theirs = tokenizers.ByteLevelBPETokenizer()
        options = {"vocab_size": 270, "special_tokens": [END], "show_progress": False}
        theirs.train_from_iterator(["the hen in the pen"] * 9, **options)
        ours, text = AnyTokenizer(theirs), f"the 🏠{END}pen"
        assert 0 not in ours.encode(text) and ours.encode(text, END).count(0) == 1
        assert ours.decode(ours.encode(text)) == ours.decode(ours.encode(text, END)) == text
        assert b"".join(map(ours.token_bytes, ours.encode(text))) == text.encode()

    def test_the_longest_special_token_first(self):
        core = in_tokenizers()
        core.add_special_tokens([f"{END}>", "<|more|>"])
        assert AnyTokenizer(core).encode(f"a{END}>{END}<|more|>", "all") == [64, 50257, 50256, 50258]
        ids = AnyTokenizer(core).encode(f"{END}<|more|>", {"<|more|>"})
        assert ids == [*AnyTokenizer(core).encode(END), 50258] and 50256 not in ids

    @FIXED
    @given(st.text())
    @example("🏠 é")
    @example("\ufffd")
    def test_bytes(self, text):
        expected = AnyTokenizer(get_tokenizer())
        for theirs in (TRANSFORMERS, TOKENIZERS):
            ours = AnyTokenizer(theirs)
            for token_id in ours.encode(text):
                assert ours.token_bytes(token_id) == expected.token_bytes(token_id)

    def test_bytes_of_other_vocabularies(self):
        words = {"[UNK]": 0, "é": 1, "##s": 2, "\ufffd": 3}
        pieces = AnyTokenizer(tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]")))
        assert [pieces.token_bytes(token_id) for token_id in (1, 3)] == ["é".encode(), "\ufffd".encode()]
        tokens = [("a", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256))]
        core = tokenizers.Tokenizer(tokenizers.models.Unigram(tokens, unk_id=0, byte_fallback=True))
        core.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()])
        numbered = AnyTokenizer(core)
        assert b"".join(map(numbered.token_bytes, numbered.encode("a🏠"))) == "a🏠".encode()

    def test_unknown_ids_are_shown(self, theirs):
        ours, expected = AnyTokenizer(theirs), AnyTokenizer(get_tokenizer())
        for ids in ([72, 50300], [50300, 50301, 72], [-1, 72, 2**40], [50256, 50257], [*ours.encode("🏠"), 50300]):
            assert ours.decode(ids) == expected.decode(ids)
        assert ours.token_bytes(50300) == ours.token_bytes(-1) == b""

    def test_the_end_of_an_answer_is_found(self, theirs):
        text = token_ids_to_text(torch.tensor([[64, 65, 50256, 66]]), theirs)
        assert text == f"ab{END}c" and extract_response(text, "a") == "b"


TRANSFORMERS, TOKENIZERS = in_transformers(), in_tokenizers()


class TestAnyTokenizer:
    @pytest.mark.parametrize("tokenizer", [get_tokenizer(), gpt2_bpe()])
    def test_one_special_token_as_a_string(self, tokenizer):
        assert AnyTokenizer(tokenizer).encode(f"a{END}b", END) == [64, 50256, 65]
        assert AnyTokenizer(tokenizer).encode("a<b", END) == tokenizer.encode("a<b")

    @pytest.mark.parametrize("rows", [torch.tensor([[64, 65]]), torch.tensor([[64], [65]]), [[64, 65]], [(64,)]])
    def test_rows_of_ids(self, rows):
        with pytest.raises(ValueError, match="the ids of one text"):
            AnyTokenizer(get_tokenizer()).decode(rows)
