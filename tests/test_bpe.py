"""Byte-pair encoding from scratch: equal to tiktoken, to Hugging Face and to a slow learner; its edges and files."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import (
    BPETokenizer,
    GPTDatasetV1,
    get_tokenizer,
    gpt2_bpe,
    load_bpe,
    load_text,
    save_bpe,
    text_to_token_ids,
    token_ids_to_text,
    train_bpe,
)
from helpers.bpe import GPT2_IDS, GPT2_MERGES, GPT2_SPLIT, apply_merges, join_pair, learn_merges

FIXED = settings(derandomize=True, deadline=None, database=None, max_examples=400)
END = "<|endoftext|>"
STORY = load_text("story")
TIKTOKEN, OURS = get_tokenizer(), gpt2_bpe()

# Text that is hard to cut: what hypothesis finds by itself in Unicode, and mixtures of pieces that trip up tokenizers.
PIECES = [
    " ", "  ", "     ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "\u200b", "\x00",
    "a", "aaa", "aaaaaaaaaaa", "A", "the", " the", "Hello", "ing", "é", "e\u0301", "ß", "Ж", "中文", "한", "ﬁ",
    "'", "'s", "'S", "'re", "'ll", "’s", "don't", "0", "1", "123", "1234567", "½", "Ⅷ", "٣", "一", "_", "__", "-",
    "--", "...", "!!!", "😸", "👩‍👩‍👧", "<|", "|>", "<|endoftext|", "\ufffd", "\U000e0001", "Ġ", "Ã", "#", "{", "==",
]  # fmt: skip
TEXT = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))


class TestAgainstTiktoken:
    @FIXED
    @given(TEXT)
    @example("")
    @example("aaa")
    @example("a" * 200)
    @example(" " * 70 + "x")
    @example("\n" * 30)
    @example("0123456789" * 9)
    def test_ordinary_text(self, text):
        expected = TIKTOKEN.encode_ordinary(text)
        assert OURS.encode_ordinary(text) == expected
        assert OURS.decode(expected) == text

    @FIXED
    @given(st.lists(st.one_of(TEXT, st.just(END)), max_size=6).map("".join))
    @example(END)
    @example(END + END)
    @example(f" {END} \n")
    @example(f"<|endof{END}text|>")
    def test_special_tokens(self, text):
        expected = TIKTOKEN.encode(text, allowed_special="all")
        assert OURS.encode(text, allowed_special="all") == OURS.encode(text, allowed_special={END}) == expected
        assert OURS.encode_ordinary(text) == TIKTOKEN.encode_ordinary(text)
        assert OURS.decode(expected) == text
        if END in text:
            for tokenizer in (OURS, TIKTOKEN):
                with pytest.raises(ValueError, match="endoftext"):
                    tokenizer.encode(text)
        else:
            assert OURS.encode(text) == TIKTOKEN.encode(text)

    @FIXED
    @given(st.lists(st.integers(0, 50_256), max_size=12))
    def test_decoding_any_ids(self, ids):
        assert OURS.decode(ids) == TIKTOKEN.decode(ids)
        assert [OURS.decode_single_token_bytes(i) for i in ids] == [TIKTOKEN.decode_single_token_bytes(i) for i in ids]

    def test_whole_texts(self):
        for text in (
            STORY,
            GPT2_MERGES.read_text(encoding="utf-8")[:30_000],
            Path(__file__).read_text(encoding="utf-8"),
        ):
            assert OURS.encode_ordinary(text) == TIKTOKEN.encode_ordinary(text)

    def test_every_kind_of_character(self):
        """A character of each block of 64, between letters, digits, marks and spaces: how it is classed shows."""
        text = "".join(f"a{chr(code)}1{chr(code)}. {chr(code)}" for code in range(0, 0x30000, 64) if code >> 11 != 27)
        assert OURS.encode_ordinary(text) == TIKTOKEN.encode_ordinary(text)

    def test_vocabulary(self):
        assert OURS.n_vocab == TIKTOKEN.n_vocab == 50_257 and OURS.special_tokens == {END: 50_256}
        assert all(OURS.tokens[i] == TIKTOKEN.decode_single_token_bytes(i) for i in range(50_257))
        assert OURS.encode("Akwirw ier") == [33901, 86, 343, 86, 220, 959]


def test_hugging_face_agrees():
    transformers = pytest.importorskip("transformers")
    vocabulary = json.loads(GPT2_IDS.read_text(encoding="utf-8"))
    merges = [tuple(line.split(" ")) for line in GPT2_MERGES.read_text(encoding="utf-8").splitlines()[1:]]
    theirs = transformers.GPT2Tokenizer(vocab=vocabulary, merges=merges)
    for text in [STORY, "aaa  a", "naïve 😸", "it's 1908", "\n\n x", f"one{END}two"]:
        assert OURS.encode(text, allowed_special="all") == theirs.encode(text)


def learn_slowly(words, num_merges):
    """Counts everything anew for each merge, on tuples of bytes objects' ids."""
    spellings, merges = {word: tuple(word) for word in words}, []
    for new_id in range(256, 256 + num_merges):
        counts = Counter()
        for word, times in words.items():
            for pair in pairwise(spellings[word]):
                counts[pair] += times
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if not ranked or ranked[0][1] < 2:
            break
        best = ranked[0][0]
        for word, ids in spellings.items():
            out = []
            for token in ids:  # left to right: a joined token is never one of the pair again
                if out and (out[-1], token) == best:
                    out[-1] = new_id
                else:
                    out.append(token)
            spellings[word] = tuple(out)
        merges.append(best)
    return merges


class TestLearning:
    @FIXED
    @given(st.dictionaries(st.text("abc", min_size=1, max_size=9).map(str.encode), st.integers(1, 5), max_size=8))
    @example({b"aaa": 1})
    @example({b"aaaaaaa": 2, b"aa": 1})
    @example({b"ring": 5, b"sing": 4, b"rings": 2, b"sung": 3})
    @example({})
    def test_counts_kept_up_to_date_equal_counting_anew(self, words):
        assert learn_merges(words, 30) == learn_slowly(words, 30)

    def test_on_the_story(self):
        words = Counter(word.encode() for word in regex.findall(GPT2_SPLIT, STORY))
        assert learn_merges(words, 60) == learn_slowly(words, 60)

    def test_number_of_merges_and_order(self):
        merges = learn_merges({b"ring": 5, b"sing": 4, b"rings": 2, b"sung": 3}, 3)
        assert merges == [(110, 103), (105, 256), (114, 257)]  # ng, ing, ring: those of chapter 2
        assert learn_merges({b"ring": 5}, 0) == []

    @FIXED
    @given(st.text("ab ", max_size=25))
    def test_merges_replayed_give_what_training_left(self, text):
        words = Counter(word.encode() for word in regex.findall(GPT2_SPLIT, text))
        merges = learn_merges(words, 20)
        ranks = {pair: 256 + number for number, pair in enumerate(merges)}
        for word in words:
            ids = list(word)
            for number, pair in enumerate(merges):
                ids = join_pair(ids, pair, 256 + number)
            assert apply_merges(list(word), ranks) == ids

    def test_story(self):
        tokenizer = train_bpe(STORY, 600)
        assert tokenizer.n_vocab == 600 and tokenizer.special_tokens == {END: 599}
        ids = tokenizer.encode(STORY)
        assert tokenizer.decode(ids) == STORY and max(ids) < 599
        assert len(ids) < 0.45 * len(STORY)
        assert all(" " not in token.decode("utf-8", "replace")[1:] for token in tokenizer.tokens[256:599])

    def test_longer_vocabularies_begin_with_the_shorter_ones(self):
        assert list(train_bpe(STORY, 400).ranks) == list(train_bpe(STORY, 500).ranks)[:143]

    @FIXED
    @given(TEXT)
    def test_any_text_comes_back(self, text):
        tokenizer = SMALL
        assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text

    @pytest.mark.parametrize(
        ("text", "tokens"),
        [("a", 257), ("ab", 257), ("aaa", 258), ("aaaa", 258), (" ", 257), (END, 257), ("é" * 3, 259)],
    )
    def test_a_small_text_gives_fewer_tokens(self, text, tokens):
        tokenizer = train_bpe(text, 1000)
        assert tokenizer.n_vocab == tokens
        assert tokenizer.decode(tokenizer.encode(text + " more", allowed_special="all")) == text + " more"

    def test_nothing_is_learned_from_special_tokens(self):
        tokenizer = train_bpe(f"{END}ab{END}ab{END}", 1000)
        assert tokenizer.tokens[256:] == [b"ab", END.encode()]

    def test_bad_input(self):
        with pytest.raises(ValueError, match="text is empty"):
            train_bpe("", 300)
        with pytest.raises(ValueError, match="vocab_size=256 is less"):
            train_bpe("ab", 256)
        assert train_bpe("abab", 257).n_vocab == 257
        assert train_bpe("abab", 256, special_tokens=()).n_vocab == 256


SMALL = train_bpe(STORY, 400, [END, "<|end|>", "<|endoftext|><|end|>"])


class TestTokenizer:
    def test_longest_special_token_first(self):
        ids = SMALL.encode(f"{END}<|end|>{END}", allowed_special="all")
        assert ids == [399, 397]

    def test_only_allowed_special_tokens(self):
        with pytest.raises(ValueError, match=r"'<\|end\|>'"):
            SMALL.encode("x<|end|>", allowed_special={END})
        assert SMALL.encode("x<|end|>", allowed_special={"<|end|>"}) == [120, 398]

    def test_without_special_tokens(self):
        tokenizer = BPETokenizer([(97, 97)])
        assert tokenizer.encode("aaa" + END)[:2] == [256, 97] and tokenizer.n_vocab == 257

    def test_half_a_character(self):
        assert SMALL.decode(list("é".encode())[:1]) == "\ufffd"
        assert SMALL.decode(list("é".encode())) == "é"
        with pytest.raises(UnicodeEncodeError):
            SMALL.encode("\ud800")

    @pytest.mark.parametrize("token_id", [-1, 400])
    def test_unknown_ids(self, token_id):
        with pytest.raises(ValueError, match=f"token id {token_id} is not between 0 and 399"):
            SMALL.decode([token_id])

    def test_remembered_words_are_not_shared(self):
        first = SMALL.encode("the hen")
        first.append(0)
        assert SMALL.encode("the hen") == first[:-1]

    def test_in_place_of_tiktoken(self):
        """The rest of the course can use it: loaders, tensors of ids, text again."""
        inputs, targets = GPTDatasetV1(STORY, SMALL, max_length=8, stride=8)[3]
        assert inputs.shape == targets.shape == (8,) and SMALL.decode(inputs) in STORY
        ids = text_to_token_ids(f"the hen{END}", SMALL)
        assert ids.dtype == torch.int64 and token_ids_to_text(ids, SMALL) == f"the hen{END}"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"merges": [(97, 256)]}, "does not exist yet"),
            ({"merges": [(97, 98), (97, 98)]}, "comes twice"),
            ({"merges": [(-1, 98)]}, "does not exist yet"),
            ({"merges": [], "special_tokens": ["x", "x"]}, "must be different"),
            ({"merges": [], "special_tokens": [""]}, "not empty"),
            ({"merges": [], "byte_order": range(255)}, "each of the 256 bytes"),
            ({"merges": [], "special_tokens": [1]}, r"special_tokens must be a list of strings, got \[1\]"),
            ({"merges": [], "special_tokens": "<pad>"}, "special_tokens must be a list of strings, got '<pad>'"),
            ({"merges": iter([(97, 98)])}, "merges must be a list"),
            ({"merges": [(97, 98)], "special_tokens": iter(["x"])}, "special_tokens must be a list"),
        ],
    )
    def test_parts_that_do_not_fit(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            BPETokenizer(**arguments)


class TestArguments:
    @pytest.mark.parametrize(
        ("text", "special_tokens", "message"),
        [
            (["a"], [END], "text is a list: a string is expected"),
            (None, [END], "text is a NoneType: a string is expected"),
            (STORY, "<pad>", "special_tokens must be a list of strings, got '<pad>'"),
            (STORY, ("<pad>", "<pad>"), "special_tokens must be different"),
            (STORY, [1], "special_tokens must be a list of strings"),
        ],
    )
    def test_training(self, text, special_tokens, message, monkeypatch):
        """Refused before anything is learned, which takes minutes for a long text."""
        monkeypatch.setattr("helpers.bpe.learn_merges", lambda *_: pytest.fail("merges were learned"))
        with pytest.raises(ValueError, match=message):
            train_bpe(text, 400, special_tokens)

    @pytest.mark.parametrize("text", [None, b"abc", ["a"], 7])
    def test_texts(self, text):
        for encode in (SMALL.encode, SMALL.encode_ordinary):
            with pytest.raises(ValueError, match=rf"text is a {type(text).__name__}: a string is expected"):
                encode(text)

    @pytest.mark.parametrize("ids", [torch.tensor([[97, 98]]), torch.tensor([[97], [98]]), torch.tensor(97), [[97]]])
    def test_rows_of_ids(self, ids):
        with pytest.raises(ValueError, match="the ids of one text"):
            SMALL.decode(ids)
        assert SMALL.decode(torch.tensor([97, 98])) == SMALL.decode(iter([97, 98])) == "ab"


class TestFiles:
    @pytest.mark.parametrize("tokenizer", [SMALL, OURS, BPETokenizer([])], ids=["small", "gpt2", "bytes"])
    def test_round_trip(self, tokenizer, tmp_path):
        save_bpe(tokenizer, tmp_path / "new" / "bpe.json")
        loaded = load_bpe(tmp_path / "new" / "bpe.json")
        assert (loaded.tokens, loaded.ranks) == (tokenizer.tokens, tokenizer.ranks)
        assert (loaded.special_tokens, loaded.byte_ids) == (tokenizer.special_tokens, tokenizer.byte_ids)
        for text in (STORY, "naïve 😸  aaa", f"a{END}b"):
            assert loaded.encode(text, allowed_special="all") == tokenizer.encode(text, allowed_special="all")
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["bpe.json"]

    def test_damaged_or_foreign_files(self, tmp_path):
        path = tmp_path / "bpe.json"
        save_bpe(SMALL, path)
        whole = json.loads(path.read_text(encoding="utf-8"))
        changes = [
            {"split": r"\S+"},
            {"merges": [[1]]},
            {"merges": [["a", "b"]]},
            {"byte_order": [1, 2]},
            {"special_tokens": [1]},
            {"special_tokens": "abc"},
            {"merges": 3},
        ]
        for change in changes:
            path.write_text(json.dumps(whole | change), encoding="utf-8")
            with pytest.raises(ValueError, match=r"bpe\.json holds no tokenizer"):
                load_bpe(path)
        for key in whole:
            path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}), encoding="utf-8")
            with pytest.raises(ValueError, match=f"KeyError: '{key}'"):
                load_bpe(path)
        for text in ("", "[]", '{"split"'):
            path.write_text(text, encoding="utf-8")
            with pytest.raises(ValueError, match="holds no tokenizer"):
                load_bpe(path)
        with pytest.raises(FileNotFoundError):
            load_bpe(tmp_path / "gone.json")

    def test_another_class(self, tmp_path):
        class Lower(BPETokenizer):
            def encode_ordinary(self, text):
                return super().encode_ordinary(text.lower())

        for tokenizer, name in ((Lower([]), "Lower"), (TIKTOKEN, "Encoding")):
            with pytest.raises(ValueError, match=f"tokenizer is a {name}: a BPETokenizer itself is expected"):
                save_bpe(tokenizer, tmp_path / "bpe.json")
        assert list(tmp_path.iterdir()) == []
