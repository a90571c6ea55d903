"""The chat's core, terminal and widget: what is loaded, what the model is given, and how its reply is cut in pieces."""

import builtins

import ipywidgets
import pytest
import torch

from helpers import checkpoints
from helpers.apps import chat
from helpers.apps.chat import Chat
from helpers.gpt import GPTModel, gpt_config
from helpers.lora import replace_linear_with_lora
from helpers.tokenizers import END_OF_TEXT, get_tokenizer
from helpers.training import Progress

SMALL = gpt_config(context_length=64, emb_dim=8, n_heads=2, n_layers=1, drop_rate=0.1, qkv_bias=True)


def small_model(**changes):
    torch.manual_seed(1)
    return GPTModel({**SMALL, **changes}).eval()


@pytest.fixture(name="model", scope="module")
def one_model():
    return small_model()


def scripted(monkeypatch, text="", ids=None):
    """Lets the model write a given text, and notes what it was given."""
    calls = []

    def stream(model, prompts, max_new_tokens, context_size, **options):
        calls.append({"prompt": get_tokenizer().decode(prompts[0].tolist()), "tokens": len(prompts[0])} | options)
        calls[-1] |= {"max_new_tokens": max_new_tokens, "context_size": context_size}
        for token in get_tokenizer().encode(text) if ids is None else ids:
            yield [token]

    monkeypatch.setattr(chat, "generate_stream", stream)
    return calls


class TestLoad:
    def test_the_course_model(self):
        model, name = chat.load("course")
        assert name == "the course model"
        assert not model.training

    def test_what_was_saved(self, model, tmp_path):
        tied = small_model()
        tied.out_head.weight = tied.tok_emb.weight
        optimizer = torch.optim.AdamW(model.parameters())
        idx = torch.tensor([[1, 2, 3]])
        checkpoints.save_model(model, tmp_path / "model.safetensors")
        checkpoints.save_model(tied, tmp_path / "tied.safetensors")
        checkpoints.save_checkpoint(tmp_path / "run.pt", model, optimizer)
        for saved, name in [(model, "model.safetensors"), (tied, "tied.safetensors"), (model, "run.pt")]:
            loaded, called = chat.load(str(tmp_path / name))
            assert called == name
            torch.testing.assert_close(loaded(idx), saved(idx), rtol=0, atol=0)
        assert checkpoints.load_saved_gpt(tmp_path / "run.pt")[1] == SMALL

    def test_a_run_of_train_distributed(self, model, tmp_path):
        state = torch.optim.AdamW(model.parameters()).state_dict()
        random = {"cpu": torch.get_rng_state(), "cuda": []}
        extra = {"run": {"epochs": 1}}
        checkpoints.write_checkpoint(tmp_path / "r.pt", model.state_dict(), state, Progress(), random, extra, SMALL)
        assert checkpoints.load_saved_gpt(tmp_path / "r.pt")[1] == SMALL

    def test_unknown(self):
        with pytest.raises(FileNotFoundError, match=r"^'nothing' is no file or folder, and not one of course, gpt2-"):
            chat.load("nothing")

    def test_a_file_without_configuration(self, tmp_path):
        checkpoints.save_model(torch.nn.Linear(2, 2), tmp_path / "layer.safetensors")
        with pytest.raises(ValueError, match="does not say the configuration"):
            chat.load(str(tmp_path / "layer.safetensors"))

    def test_a_damaged_file(self, tmp_path):
        (tmp_path / "bad.safetensors").write_bytes(b"no model")
        with pytest.raises(ValueError, match="cannot be read as a safetensors file or a checkpoint"):
            chat.load(str(tmp_path / "bad.safetensors"))

    def test_a_model_with_lora_layers(self, tmp_path):
        adapted = small_model()
        replace_linear_with_lora(adapted, rank=2, alpha=2)
        checkpoints.save_model(adapted, tmp_path / "lora.safetensors")
        with pytest.raises(ValueError, match=r"configuration|another model"):
            chat.load(str(tmp_path / "lora.safetensors"))

    @pytest.mark.parametrize("classes", [True, False])
    def test_a_model_that_does_not_write(self, tmp_path, classes):
        other = small_model() if classes else small_model(vocab_size=100)
        if classes:
            other.out_head = torch.nn.Linear(8, 2)
        checkpoints.save_model(other, tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match=r"another|does not write"):
            chat.load(str(tmp_path / "other.safetensors"))


class TestPrompt:
    def test_plain_gives_the_text_as_it_stands(self, model, monkeypatch):
        calls = scripted(monkeypatch, " a mouse.")
        talk = Chat(model)
        assert "".join(talk.reply("There was")) == " a mouse."
        list(talk.reply("It ran"))
        assert calls[1]["prompt"] == "There was a mouse.\nIt ran"
        list(talk.reply(""))
        assert calls[2]["prompt"] == "There was a mouse.\nIt ran a mouse."

    @pytest.mark.parametrize(
        ("style", "start", "end"),
        [
            ("alpaca", "Below is an instruction", "### Instruction:\nSay another.\n\n### Response:\n"),
            ("phi3", "<|user|>\nSay another.", "another.\n\n<|assistant|>\n"),
        ],
    )
    def test_an_instruction_style_frames_each_message(self, style, start, end, monkeypatch):
        calls = scripted(monkeypatch, "Fine.")
        talk = Chat(small_model(context_length=256), style=style)
        for message in ("Say one thing.", " Say another.\n"):
            list(talk.reply(message))
        assert calls[1]["prompt"].startswith(start)
        assert calls[1]["prompt"].endswith(end)
        assert "one thing" not in calls[1]["prompt"]

    def test_the_style_is_said(self, model):
        assert "continues your text (style plain)" in Chat(model).about()
        assert "in the Alpaca form (style alpaca)" in Chat(model, style="alpaca").about()
        with pytest.raises(ValueError, match="style='poem' is not one of plain, alpaca, phi3"):
            Chat(model, style="poem")

    def test_a_long_conversation_loses_its_beginning(self, model, monkeypatch):
        calls = scripted(monkeypatch, " word" * 20)
        talk = Chat(model)
        for _ in range(5):
            list(talk.reply("more"))
            assert calls[-1]["tokens"] + calls[-1]["max_new_tokens"] <= calls[-1]["context_size"] == 64
        assert calls[-1]["tokens"] == 32
        assert calls[-1]["prompt"].endswith("\nmore")

    def test_an_end_token_that_is_typed_is_only_text(self, model):
        assert END_OF_TEXT not in Chat(model).prompt("<|endoftext|>", 1).tolist()

    @pytest.mark.parametrize("style", ["plain", "phi3"])
    def test_errors_keep_nothing(self, style):
        talk = Chat(small_model(context_length=128), style=style)
        for message, options, said in [
            (" ", {}, "the message is empty"),
            ("word " * 120, {}, "the message is too long"),
            ("a", {"temperature": -1.0}, "must not be negative"),
            ("a", {"top_p": 0.0}, "top_p=0.0"),
        ]:
            with pytest.raises(ValueError, match=said):
                list(talk.reply(message, **options))
        assert talk.text == ""


class TestReply:
    def test_characters_are_never_split(self, model, monkeypatch):
        text = "naïve 🐭 日本語 ok"
        assert len(get_tokenizer().encode("🐭")) > 1
        scripted(monkeypatch, text)
        pieces = list(Chat(model).reply("a"))
        assert "".join(pieces) == text
        assert len(pieces) > 3
        assert not any("\ufffd" in piece or piece == "" for piece in pieces)

    def test_half_a_character_at_the_end(self, model, monkeypatch):
        scripted(monkeypatch, ids=get_tokenizer().encode("🐭")[:1])
        talk = Chat(model)
        assert list(talk.reply("a")) == ["\ufffd"]
        assert talk.text == "a\ufffd"

    def test_ids_beyond_the_vocabulary(self, model, monkeypatch):
        scripted(monkeypatch, ids=[50300, *get_tokenizer().encode("ok")])
        assert "".join(Chat(model).reply("a")) == "ok"

    def test_what_is_passed_on(self, model, monkeypatch):
        calls = scripted(monkeypatch)
        list(Chat(model).reply("a", 0.3, 0.8, max_new_tokens=7, seed=5))
        assert calls[0].items() >= {"temperature": 0.3, "top_p": 0.8, "seed": 5, "max_new_tokens": 7}.items()
        assert calls[0]["eos_id"] == END_OF_TEXT

    def test_stops_at_the_end_token(self):
        model = small_model()
        with torch.no_grad():
            model.final_norm.scale.zero_()
            model.final_norm.shift.fill_(1.0)
            model.out_head.weight[END_OF_TEXT] = 10.0
        assert list(Chat(model).reply("a", temperature=0.0)) == []

    def test_what_was_written_stays_if_the_listener_leaves(self, model, monkeypatch):
        scripted(monkeypatch, " one two three")
        talk = Chat(model)
        pieces = talk.reply("a")
        next(pieces)
        pieces.close()
        assert talk.text == "a one"

    def test_a_seed_repeats_the_reply(self, model):
        first, second = ("".join(Chat(model).reply("a", seed=3, max_new_tokens=8)) for _ in range(2))
        assert first == second != ""


def test_terminal(model, monkeypatch, capsys):
    scripted(monkeypatch, " there")
    monkeypatch.setattr(chat, "load", lambda spec: (model, f"model {spec}"))
    lines = iter(["Hello", "/new", ""])

    def typed(prompt):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", typed)
    assert chat.main(["--model", "x"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("You write to model x: it continues your text (style plain).")
    assert " there\n" in said
    assert "This did not work: the message is empty" in said  # /new forgot the conversation


def test_terminal_with_an_unknown_model(capsys):
    assert chat.main(["--model", "nothing"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("wrong", [["--temperature", "-1"], ["--top-p", "0"], ["--style", "poem"]])
def test_terminal_refuses(wrong):
    with pytest.raises(SystemExit):
        chat.main(wrong)


class TestWidget:
    @pytest.fixture(name="parts")
    def shown_parts(self, model, monkeypatch):
        bundles = []
        monkeypatch.setattr(
            "helpers.course.widgets.display", lambda bundle, **options: bundles.append((bundle, options))
        )
        chat.widget(model)
        ((bundle, options),) = bundles
        assert options == {"raw": True}
        assert bundle["text/plain"].startswith("Interactive chat. You write to your model: it continues your text")
        view = ipywidgets.widgets.widget._instances[bundle["application/vnd.jupyter.widget-view+json"]["model_id"]]
        return view.children

    def test_streams(self, parts, monkeypatch):
        _, message, heat, nucleus, send, page = parts
        calls, seen = scripted(monkeypatch, " <b> mouse"), []
        page.observe(lambda change: seen.append((change["new"], send.disabled)), names="value")
        message.value, heat.value, nucleus.value = "A", 0.4, 0.6
        send.click()
        assert (calls[0]["temperature"], calls[0]["top_p"]) == (0.4, 0.6)
        assert len(seen) > 3
        assert all(disabled for _, disabled in seen)
        assert "&lt;b&gt; mouse" in page.value
        assert (message.value, send.disabled) == ("", False)
        send.click()
        assert calls[1]["prompt"] == "A <b> mouse"

    def test_an_error_is_a_sentence(self, parts):
        *_, send, page = parts
        send.click()
        assert "This did not work: the message is empty: write something first." in page.value
        assert not send.disabled

    def test_a_spec(self, monkeypatch):
        with pytest.raises(FileNotFoundError):
            chat.widget("nothing")
