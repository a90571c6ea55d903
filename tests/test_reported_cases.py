"""Problems that people reported with the course, each with the right result.

What other files prove is not repeated: scores from the words about the scale (test_judges.py, case 04), a GPT-2 folder
without one whole file (test_pretrained.py, 31), a drive that refuses chmod (test_files.py, 32), a compiled model or one
with LoRA saved as a GPT-2 (test_pretrained.py, 37), a key with a line end (test_faults.py, 25).
"""

import contextlib
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel

from helpers import (
    GPTDatasetV1,
    GPTModel,
    InstructionDataset,
    Progress,
    SimpleTokenizerV2,
    answer_entries,
    calc_loss_batch,
    calc_loss_batch_labels,
    calc_loss_loader,
    custom_collate_fn,
    generate,
    generate_and_print_sample,
    generate_model_scores,
    generate_stream,
    generate_text_simple,
    get_tokenizer,
    load_checkpoint,
    model_client,
    query_model,
    replace_linear_with_lora,
    save_checkpoint,
    save_gpt2,
    save_model,
    split_text,
    text_to_token_ids,
    texts,
    token_ids_to_text,
    train_model_simple,
    training_steps,
)
from helpers.apps import chat, train_distributed
from helpers.apps.corpus import open_corpus
from helpers.classification import SpamDataset, calc_accuracy_loader, classify_review
from helpers.judges import exact_match, rouge_l, token_f1
from helpers.preferences import PreferenceDataset, reference_logprobs
from helpers.pretrained import find_gpt2, read_gpt2

from .fakes import Letters, StubServer
from .tiny import CPU, lively_model, loader, tiny_model, windows


def adamw(model, lr=1e-3):
    return torch.optim.AdamW(model.parameters(), lr=lr)


@pytest.fixture(name="gpt2", scope="module")
def gpt2_settings():
    return {"vocab_size": 97, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 2, "bos_token_id": 96,
            "eos_token_id": 96}  # fmt: skip


class TestNumPyNumbersInACheckpoint:
    """Case 01."""

    @pytest.mark.parametrize(
        ("extra", "expected"),
        [
            ({"losses": [np.mean([3.0, 2.5]), np.mean([2.0, 1.5])]}, {"losses": [2.75, 1.75]}),
            ({"best": np.float64(1.5), "epoch": np.int64(3)}, {"best": 1.5, "epoch": 3}),
        ],
    )
    def test_extras(self, tmp_path, extra, expected):
        model = tiny_model()
        save_checkpoint(tmp_path / "run.pt", model, adamw(model), **extra)
        assert load_checkpoint(tmp_path / "run.pt", model, adamw(model))[1] == expected

    @pytest.mark.parametrize("rate", [1e-3 * 0.5 * (1 + np.cos(np.pi * 0.3)), np.logspace(-4, -2, 3)[1]])
    def test_learning_rates(self, tmp_path, rate):
        model, other = tiny_model(), adamw(tiny_model())
        save_checkpoint(tmp_path / "run.pt", model, adamw(model, rate))
        load_checkpoint(tmp_path / "run.pt", model, other)
        assert other.param_groups[0]["lr"] == float(rate) and type(other.param_groups[0]["lr"]) is float


class TestResumedWithAnotherBatchSize:
    """Case 02: it never ended, or a bare StopIteration."""

    @pytest.mark.parametrize("done", [5, 8])
    def test_refused(self, done):
        model = tiny_model()
        progress = Progress(batch=done, step=done, random_epoch=torch.get_rng_state())  # of 10 batches of 4
        with pytest.raises(ValueError, match=rf"after batch {done} of its epoch, and train_loader has 5 batches"):
            training_steps(model, loader(40, 8, shuffle=True), adamw(model), CPU, 2, progress=progress)

    def test_the_next_epoch_may_have_another(self):
        model, progress = tiny_model(), Progress(epoch=1, step=10)
        steps = training_steps(model, loader(40, 8), adamw(model), CPU, 2, progress=progress)
        assert [p.step for p in steps] == [11, 12, 13, 14, 15]


class TestAnEntryLongerThanTheContext:
    """Case 03: IndexError from PyTorch, on a GPU an assertion that ends the kernel."""

    LONG = "Repeat this. " * 40
    SENTENCE = r"^in_idx has \d{3,} tokens, but context_length is 16$"

    @pytest.mark.parametrize("loss", [calc_loss_batch, calc_loss_batch_labels])
    def test_losses(self, loss):
        entry = {"instruction": self.LONG, "input": "", "output": "Yes."}
        inputs, targets = custom_collate_fn(InstructionDataset([entry], Letters()), pad_token_id=0)
        with pytest.raises(ValueError, match=self.SENTENCE):
            loss(inputs, targets, tiny_model(), CPU)

    def test_dpo(self):
        pair = {"instruction": self.LONG, "input": "", "chosen": "Yes.", "rejected": "No."}
        with pytest.raises(ValueError, match=r"tokens, but context_length is 16$"):
            reference_logprobs(tiny_model(), PreferenceDataset([pair], Letters()))


class TestGPT2WithAnOutputLayerOfItsOwn:
    """Case 06: the embedding was put in its place."""

    def test_logits(self, gpt2, tmp_path):
        torch.manual_seed(0)
        theirs = GPT2LMHeadModel(GPT2Config(**gpt2, tie_word_embeddings=False)).eval()
        theirs.save_pretrained(tmp_path)
        ours, _ = read_gpt2(tmp_path)
        ids = torch.arange(24).view(2, 12)
        with torch.no_grad():
            torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)
        assert ours.out_head.weight is not ours.tok_emb.weight


class TestGPT2InHalfPrecision:
    """Case 08: NaN after one update."""

    def test_it_trains_as_in_float32(self, gpt2, tmp_path):
        torch.manual_seed(0)
        theirs = GPT2LMHeadModel(GPT2Config(**gpt2)).half()
        theirs.save_pretrained(tmp_path)
        model, _ = read_gpt2(tmp_path)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert torch.equal(model.tok_emb.weight, theirs.transformer.wte.weight.float())
        losses = [progress.loss for progress in training_steps(model, loader(), adamw(model, 5e-5), CPU, 2)]
        assert all(4.3 < loss < 4.9 for loss in losses), losses  # about ln 97 = 4.57


class TestACheckpointThatIsAFolder:
    """Case 09: the whole run was trained first, and was lost."""

    def test_before_the_training(self, tmp_path, monkeypatch):
        monkeypatch.setenv("COURSE_DEVICE", "cpu")
        monkeypatch.setenv("TQDM_DISABLE", "1")
        monkeypatch.setattr(train_distributed, "token_ids", lambda *_: pytest.fail("it begins"))
        with pytest.raises(SystemExit, match="is a folder: the name of a file is expected"):
            train_distributed.main(["--checkpoint", str(tmp_path)])


class TestAnOptimizerOfAnotherModel:
    """Case 10: all updates were made, and not one weight moved."""

    def test_refused(self):
        def refused(model, optimizer, words):
            with pytest.raises(ValueError, match=words):
                training_steps(model, loader(), optimizer, CPU, 1)

        model = tiny_model()
        refused(model, adamw(tiny_model(2)), "optimizer has none of the model's trainable parameters")
        optimizer = adamw(model)
        model.requires_grad_(False)
        refused(model, optimizer, "all of it is frozen")
        replace_linear_with_lora(model, 2, 4)
        refused(model, optimizer, "optimizer has none of the model's trainable parameters")

    def test_one_made_after_lora_trains_it(self):
        model = tiny_model().requires_grad_(False)
        replace_linear_with_lora(model, 2, 4)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        list(training_steps(model, loader(), optimizer, CPU, 1))
        assert model.out_head.lora.B.abs().max() > 0


class TestWordsOfOtherScripts:
    """Cases 11 and 13: vowel signs did not count, and a phrase without blanks was one word."""

    @pytest.mark.parametrize(
        ("answer", "reference", "f1"),
        [("का", "कि", 0.0), ("कु", "क", 0.0), ("தா", "தி", 0.0), ("ไป", "ไปู", 0.5), ("מָה", "מֶה", 0.0)],
    )
    def test_other_words(self, answer, reference, f1):
        assert (exact_match(answer, reference), token_f1(answer, reference), rouge_l(answer, reference)) == (
            0.0,
            f1,
            f1,
        )
        assert (exact_match(answer, answer), token_f1(answer, answer), rouge_l(answer, answer)) == (1.0, 1.0, 1.0)

    def test_chinese(self):
        answer, reference = "今天天氣很好", "天氣很好"  # four of six characters, four of four
        assert token_f1(answer, reference) == rouge_l(answer, reference) == pytest.approx(0.8)
        assert exact_match(answer, reference) == 0.0


class TestMinusOneAndZero:
    """Case 14: a loss of 0, or a bare ZeroDivisionError."""

    def test_refused(self):
        model = tiny_model()
        classes = DataLoader(TensorDataset(windows(4)[0], torch.zeros(4, dtype=torch.long)), 2)

        def train(eval_freq=2, eval_iter=1, **options):
            train_model_simple(
                model, loader(), loader(), adamw(model), CPU, 1, eval_freq, eval_iter, "a", Letters(), **options
            )

        for call, words in (
            (lambda: calc_loss_loader(loader(), model, CPU, -1), "num_batches=-1"),
            (lambda: calc_accuracy_loader(classes, model, CPU, -1), "num_batches=-1"),
            (lambda: train(eval_iter=-1), "eval_iter=-1 must be at least 1"),
            (lambda: train(eval_freq=0), "eval_freq=0 must be at least 1"),
            (lambda: train(accumulate=0), "accumulate=0 must be at least 1"),
        ):
            with pytest.raises(ValueError, match=words):
                call()

    def test_none_is_all(self):
        model, data = tiny_model(), loader(8, 2)
        each = [calc_loss_batch(*batch, model, CPU).item() for batch in data]
        assert calc_loss_loader(data, model, CPU) == pytest.approx(sum(each) / 4)


class TestUpperCaseTXT:
    """Case 16: on Linux the text was left out."""

    def test_both_are_read(self, tmp_path):
        for name, text in {"one.txt": "One.", "TWO.TXT": "Two.", "three.md": "Three."}.items():
            (tmp_path / "texts").mkdir(exist_ok=True)
            (tmp_path / "texts" / name).write_text(text)
        text = get_tokenizer().decode(open_corpus(tmp_path / "texts").tolist())
        assert text == "Two.<|endoftext|>One.<|endoftext|>"


class TestEndOfTextInTheData:
    """Case 18: an error of tiktoken's that named neither entry nor file. It is read as the letters that it is."""

    TEXT = "The token <|endoftext|>."

    def check(self, ids):
        assert 50256 not in ids and self.TEXT in get_tokenizer().decode(ids)

    def test_data_sets(self, tmp_path):
        entry = {"instruction": "What ends a text?", "input": "", "output": self.TEXT}
        self.check(InstructionDataset([entry], get_tokenizer())[0])
        pair = {**entry, "chosen": self.TEXT, "rejected": "No."}
        self.check(PreferenceDataset([pair], get_tokenizer())[0][0])
        (tmp_path / "a.csv").write_text(f"Label,Text\n0,hello\n0,{self.TEXT}\n")
        self.check(
            [token for token in SpamDataset(tmp_path / "a.csv", get_tokenizer())[1][0].tolist() if token < 50256]
        )

    def test_questions(self):
        asked = []

        class Spy(Letters):
            def encode(self, text, allowed_special=frozenset()):
                asked.append(get_tokenizer().decode(get_tokenizer().encode(text, disallowed_special=())))
                return [1, 2]

        assert len(answer_entries(lively_model(), [{"instruction": self.TEXT}], Spy(), 16, 2)) == 1
        assert classify_review(self.TEXT, lively_model(), get_tokenizer_of_97(), CPU) in ("spam", "not spam")
        assert self.TEXT in asked[0]


def get_tokenizer_of_97():
    """GPT-2's tokenizer with its ids folded into the tiny model's vocabulary; it refuses special tokens."""

    class Folded:
        def encode(self, text, *, allowed_special=frozenset(), disallowed_special="all"):
            ids = get_tokenizer().encode(text, allowed_special=allowed_special, disallowed_special=disallowed_special)
            return [token % 97 for token in ids]

        def decode(self, ids):
            return get_tokenizer().decode(ids)

    return Folded()


class TestQuestionsAreChecked:
    """Case 19: None and nan were asked as words."""

    @pytest.mark.parametrize(
        ("entries", "words"),
        [
            ([{"instruction": None, "input": ""}], r"entries\[0\]\['instruction'\] is a NoneType"),
            ([{"instruction": "Hi.", "input": math.nan}], r"entries\[0\]\['input'\] is a float"),
            ([{"instruction": "Hi."}, {"instruction": " ", "input": ""}], r"entries\[1\]\['instruction'\] is empty"),
            ([{"prompt": "Hi."}], r"entries\[0\] has no 'instruction', only 'prompt'"),
            ({"instruction": ["Hi."], "input": [""]}, "entries is a dict: a list of dictionaries"),
        ],
    )
    def test_refused(self, entries, words):
        with pytest.raises(ValueError, match=words):
            answer_entries(lively_model(), entries, Letters(), 500)


class TestAPromptWithoutBatchDimension:
    """Case 20."""

    def test_generate_takes_every_form(self):
        model = lively_model()
        expected = generate_text_simple(model, torch.tensor([[1, 2, 3]]), 3, 16)
        for prompt in (torch.tensor([1, 2, 3]), [[1, 2, 3]], [1, 2, 3]):
            assert torch.equal(generate(model, prompt, 3, 16), expected)
        steps = list(generate_stream(model, torch.tensor([[1, 2, 3]]), 3, 16))
        assert steps == [[token] for token in expected[0, 3:].tolist()]

    @pytest.mark.parametrize(
        "call", [lambda model, ids: generate_text_simple(model, ids, 3, 16), lambda model, ids: model(ids)]
    )
    def test_the_books_functions_say_what_they_take(self, call):
        with pytest.raises(ValueError, match=r"must have the shape \(B, T\).*got \(3,\)"):
            call(lively_model(), torch.tensor([1, 2, 3]))


class TestAVocabularyLargerThanTheTokenizers:
    """Case 22: a token that the tokenizer lacks ended the training after an epoch."""

    def model(self):
        model = GPTModel({"vocab_size": 50304, "context_length": 64, "emb_dim": 8, "n_heads": 2, "n_layers": 1,
                          "drop_rate": 0.0, "qkv_bias": False})  # fmt: skip
        with torch.no_grad():
            model.out_head.weight.zero_()
            model.out_head.weight[50300] = 1.0
            model.final_norm.shift.fill_(1.0)
        return model

    def test_it_is_shown_as_unknown(self, capsys):
        model = self.model()
        data = DataLoader(TensorDataset(*windows(2)), 1)
        losses = train_model_simple(model, data, data, adamw(model, 1e-9), CPU, 1, 1, 1, "Hi", get_tokenizer())
        assert [len(part) for part in losses] == [2, 2, 2]
        assert "Hi" + "\ufffd" * 50 in capsys.readouterr().out
        assert answer_entries(model, [{"instruction": "Say hi."}], get_tokenizer(), 64, 3) == ["\ufffd" * 3]


class TestASampleThatCannotBePrinted:
    """Case 23: found after an epoch, and the losses were lost."""

    @pytest.mark.parametrize(
        ("context", "tokenizer", "words"), [("", Letters(), "start_context=''"), ("a", None, "tokenizer is None")]
    )
    def test_before_the_first_batch(self, context, tokenizer, words):
        class Never(TensorDataset):
            def __getitem__(self, index):
                raise AssertionError("a batch was drawn")

        model, data = tiny_model(), DataLoader(Never(*windows(4)), 2)
        with pytest.raises(ValueError, match=words):
            train_model_simple(model, data, data, adamw(model), CPU, 3, 100, 1, context, tokenizer)


class TestATerminalWithoutUTF8:
    """Case 24: one letter ended a chat's reply, or a training."""

    def printed(self, call):
        """What a call prints to such a terminal, which must be as strict afterwards as it was."""
        output = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="strict", write_through=True)
        with contextlib.redirect_stdout(output):
            call()
        assert output.errors == "strict"
        return output.buffer.getvalue().decode("cp1252")

    def test_sample(self):
        class Arrows(Letters):
            def decode(self, ids):
                return "→" * len(ids)

        written = self.printed(lambda: generate_and_print_sample(lively_model(), Arrows(), CPU, "a"))
        assert written.strip() == "?" * 51

    def test_chat(self, monkeypatch):
        lines = iter(["Hello"])
        monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or (_ for _ in ()).throw(EOFError))
        monkeypatch.setattr(chat, "load", lambda spec: (None, "a model"))
        monkeypatch.setattr(chat.Chat, "reply", lambda *_: iter(["a", " →", " b"]))
        assert "a ? b" in self.printed(lambda: chat.main([]))


class TestJSONUnderAnotherName:
    """Case 26: Ollama's lines called application/json, and a content in parts."""

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/api/chat", "".join(json.dumps({"message": {"content": d}, "done": d == "5"}) + "\n" for d in "85")),
            ("/v1/chat/completions", json.dumps({"choices": [{"message": {"content": [
                {"type": "text", "text": "8"}, {"type": "reference"}, {"type": "text", "text": "5"}]}}]})),
        ],
    )  # fmt: skip
    def test_the_answer(self, monkeypatch, path, body):
        def answer(handler):
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body.encode())

        monkeypatch.setattr(model_client, "_RETRY_PAUSES", (0.0,))
        server = StubServer(answer)
        try:
            assert query_model("Hi", "m", server.url + path) == "85"
        finally:
            server.close()


class TestACSVWithACarriageReturn:
    """Case 28: a message was split into two rows."""

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("quote", ["", '"'])
    def test_the_row_stays_whole(self, tmp_path, end, quote):
        rows = ["Label,Text", f"0,{quote}call now\rthanks{quote}", "1,free", ""]
        (tmp_path / "train.csv").write_bytes(end.join(rows).encode())
        data = SpamDataset(tmp_path / "train.csv", Letters())
        assert list(data.data["Text"]) == ["call now\rthanks", "free"] and [int(label) for _, label in data] == [0, 1]


class TestColumnsInsteadOfRows:
    """Case 30: a slice of a Hugging Face data set, or a table."""

    COLUMNS = ("instruction", "input", "output", "chosen", "rejected", "answer")

    @pytest.mark.parametrize("form", [dict, pd.DataFrame])
    @pytest.mark.parametrize(
        "take",
        [
            lambda data: InstructionDataset(data, Letters()),
            lambda data: PreferenceDataset(data, Letters()),
            lambda data: generate_model_scores(data, "answer", url="http://127.0.0.1:9/api/chat"),
        ],
    )
    def test_refused(self, form, take):
        with pytest.raises(ValueError, match=rf"is a {form.__name__}: a list of dictionaries, one per entry"):
            take(form({name: [name] for name in self.COLUMNS}))

    def test_a_table_as_records(self):
        table = pd.DataFrame({name: [name] for name in self.COLUMNS})
        assert len(InstructionDataset(table.to_dict("records"), Letters())) == 1

    def test_an_input_that_is_a_number(self):
        with pytest.raises(ValueError, match=r"json_data\[0\]\['input'\] is a int, not a string"):
            entry = {"instruction": "Say hi.", "input": 5, "output": "Hi.", "answer": "Hi."}
            generate_model_scores([entry], "answer", url="http://127.0.0.1:9/api/chat")


class TestTheHomeFolderAsATilde:
    """Case 34: it worked for texts and not for GPT-2, and a folder called ~ was made."""

    def test_everywhere(self, tmp_path, monkeypatch):
        home, work = tmp_path / "home", tmp_path / "work"
        folder = home / "course-data" / "gpt2"
        folder.mkdir(parents=True)
        work.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("{}")
        for variable in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(variable, str(home))
        monkeypatch.setenv("COURSE_DATA_DIR", "~/course-data")
        monkeypatch.chdir(work)
        assert texts.data_folders()[0] == (home / "course-data").resolve()
        assert (
            find_gpt2("124M", "nowhere").resolve() == find_gpt2("124M", "~/course-data").resolve() == folder.resolve()
        )
        save_model(torch.nn.Linear(1, 1), "~/model.safetensors")
        assert (home / "model.safetensors").is_file() and list(work.iterdir()) == []


class TestWeightsThatAreNotNumbers:
    """Case 35: token 0 for ever."""

    @pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"use_cache": False}])
    def test_refused(self, options):
        model = lively_model()
        with torch.no_grad():
            model.final_norm.scale.fill_(math.nan)
        with pytest.raises(ValueError, match="logits contain NaN"):
            generate(model, [1, 2], 8, 16, **options)


class TestNamesOfACompiledModel:
    """Case 37: read_gpt2 did not know them."""

    def test_read(self, tmp_path):
        from safetensors.torch import load_file, save_file

        model = lively_model(tied=True, qkv_bias=True)
        save_gpt2(model, tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        renamed = {f"_orig_mod.transformer.{name}": weight for name, weight in weights.items()}
        save_file(renamed, tmp_path / "model.safetensors")
        assert torch.equal(read_gpt2(tmp_path)[0](windows(2)[0]), model(windows(2)[0]))


class TestTokenizersOtherThanTiktoken:
    """Case 38: only tiktoken's arguments were known."""

    TEXT = "the hen sat on the top rung of the ladder and looked at the sea . " * 4

    def test_chapter_2(self):
        words = sorted(set(split_text(self.TEXT)))
        own = SimpleTokenizerV2({word: number for number, word in enumerate([*words, "<|unk|>"])})
        ids = own.encode(self.TEXT)
        data = GPTDatasetV1(self.TEXT, own, 8, 8)
        assert len(data) == 7 and data[0][0].tolist() == ids[:8] and data[0][1].tolist() == ids[1:9]
        assert token_ids_to_text(text_to_token_ids("the hen", own), own) == "the hen"

    def test_hugging_face(self):
        model = tokenizers.models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]")
        theirs = tokenizers.Tokenizer(model)
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        data = GPTDatasetV1(self.TEXT, theirs, 8, 8)
        assert data[0][0].tolist() == [0, 1, 1, 1, 0, 1, 1, 1]
