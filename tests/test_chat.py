"""The chat's core and terminal: what is loaded, what the model is given, and how its reply is cut in pieces."""

import builtins

import pytest
import torch

from helpers import checkpoints
from helpers.apps import chat, chat_page
from helpers.apps.chat import Chat
from helpers.generation import generate
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
            yield [token], torch.zeros(1, 50304)

    monkeypatch.setattr(chat, "stream_with_logits", stream)
    return calls


class TestLoad:
    def test_the_course_model(self):
        assistant, called = chat.load("assistant")
        assert called == "the course assistant" and not assistant.training
        talk = chat.Chat(assistant, called, chat.usual_style("assistant"))
        assert "".join(talk.reply("Repeat after me: blue bird", temperature=0.0)) and talk.ended == "end"
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
        with pytest.raises(
            FileNotFoundError,
            match=r"^'nothing' is no file or folder, and not one of course, assistant, smollm2, gpt2-",
        ):
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
        with pytest.raises(ValueError, match=r"does not write|does not say the configuration of a plain"):
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

    def test_what_the_model_does_is_said_without_naming_a_style(self, model):
        assert Chat(model).about() == "You write to the model: it continues your text."
        said = Chat(model, style="alpaca").about()
        assert said == "You write to the model: it answers each message by itself and does not see the earlier ones."
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
            ("a", {"max_new_tokens": 0}, "the length of a reply is 0"),
            ("a", {"seed": -1}, "seed=-1 must be from 0"),
            ("a", {"seed": 2**64}, "seed=18446744073709551616 must be from 0"),
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


class TestGoingOn:
    """An empty message lets the last reply go on; a message that is taken back can be asked again."""

    def test_a_continued_text_is_the_same_text(self, model, monkeypatch):
        calls = scripted(monkeypatch, " one two")
        talk = Chat(model, before="Before.")
        list(talk.reply("Then"))
        list(talk.reply(""))
        assert calls[1]["prompt"] == "Before.\nThen one two"
        assert talk.text == "Before.\nThen one two one two"
        assert (talk.before, talk.message, talk.answer) == ("Before.", "Then", " one two one two")

    def test_an_answer_goes_on_in_its_frame(self, monkeypatch):
        calls = scripted(monkeypatch, "It is")
        talk = Chat(small_model(context_length=128), style="phi3")
        list(talk.reply("What?"))
        list(talk.reply(""))
        assert calls[1]["prompt"] == "<|user|>\nWhat?\n\n<|assistant|>\nIt is"
        assert talk.text == "What?\nIt isIt is"

    def test_an_answer_that_fills_the_context(self, monkeypatch):
        calls = scripted(monkeypatch, "")
        talk = Chat(small_model(context_length=64), style="phi3", message="What?", answer="A")
        talk.answer += " word" * (62 - len(talk.prompt("", 1)))
        list(talk.reply(""))
        assert (calls[0]["tokens"], calls[0]["max_new_tokens"]) == (62, 2)
        talk.answer += " word" * 2
        with pytest.raises(ValueError, match="the reply cannot go on: with its message it fills the context of 64 tok"):
            list(talk.reply(""))

    def test_a_reply_in_two_parts_is_the_same_reply(self, model):
        """A reply that goes on is what one long reply would have been: nothing is lost or added at the joint."""
        whole, parts = Chat(model), Chat(model)
        list(whole.reply("a", temperature=0.0, max_new_tokens=12))
        for message in ("a", ""):
            list(parts.reply(message, temperature=0.0, max_new_tokens=6))
        assert parts.text == whole.text

    def test_taken_back(self, model, monkeypatch):
        calls = scripted(monkeypatch, " one")
        talk = Chat(model, before="Before.")
        list(talk.reply("Then"))
        assert talk.take_back() == "Then"
        assert talk.text == "Before."
        list(talk.reply("Then"))
        assert calls[0]["prompt"] == calls[1]["prompt"]

    def test_what_ended_it(self, model, monkeypatch):
        scripted(monkeypatch, " one two")
        talk = Chat(model)
        for length, ended, closing in [
            (5, "end", "2 tokens, 0.5 per second."),
            (2, "length", "2 tokens, 0.5 per second; the reply has reached its length."),
        ]:
            list(talk.reply("a", max_new_tokens=length))
            assert (talk.ended, talk.closing(4.0)) == (ended, closing)
        scripted(monkeypatch, "")
        list(talk.reply("a"))
        assert talk.closing(1.0) == "The model ended its reply at once."


class TestProbabilities:
    """Each token comes with the probability that the model gave it, from the logits that it was drawn from."""

    @pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 1.7])
    @pytest.mark.parametrize("changed", [False, True], ids=["cached", "plain loop"])
    def test_against_the_model_itself(self, temperature, changed):
        model = small_model()
        with torch.no_grad():
            model.out_head.weight *= 6  # so that the probabilities differ
        if changed:
            model.trf_blocks[0].register_forward_hook(lambda module, inputs, output: output * 1.5)
        talk = Chat(model)
        prompt = talk.prompt("A mouse", 8)
        pieces = list(talk.pieces("A mouse", temperature, 0.8, 8, seed=4))
        ids = generate(model, prompt, 8, 64, temperature=temperature, top_p=0.8, eos_id=END_OF_TEXT, seed=4)[0]
        tokens = [token for piece in pieces for token in piece.tokens]
        assert len(tokens) == len(ids) - len(prompt) > 3
        for number, token in enumerate(tokens):
            place = len(prompt) + number
            with torch.no_grad():
                logits = model(ids[None, :place])[0, -1]
            expected = torch.softmax(logits / (temperature or 1.0), dim=-1)
            assert token.probability == pytest.approx(expected[ids[place]].item(), rel=1e-3)
            shares = [share for _, share in token.likeliest]
            assert shares == pytest.approx(expected.topk(3).values.tolist(), rel=1e-3)
            words = [get_tokenizer().decode([id_]) for id_ in expected.topk(3).indices.tolist()]
            assert [word for word, _ in token.likeliest] == words

    def test_a_character_of_several_tokens_is_one_piece(self, model, monkeypatch):
        scripted(monkeypatch, "a🐭")
        first, second = Chat(model).pieces("x")
        assert (first.text, len(first.tokens)) == ("a", 1)
        assert (second.text, len(second.tokens)) == ("🐭", len(get_tokenizer().encode("🐭")))
        assert all(token.probability == pytest.approx(1 / 50304) for token in second.tokens)


@pytest.fixture(name="typing")
def typed_lines(model, monkeypatch):
    """Runs the terminal's chat with lines typed in; a callable among them is raised or called instead."""

    def run(lines, *arguments):
        waiting = iter(lines)

        def typed(prompt):
            line = next(waiting, EOFError)
            if line is EOFError or line is KeyboardInterrupt:
                raise line
            return line

        monkeypatch.setattr(builtins, "input", typed)
        monkeypatch.setattr(chat, "load", lambda spec: (model, f"model {spec}"))
        return chat.main(["--model", "x", *arguments])

    return run


class TestTerminal:
    def test_a_conversation(self, typing, monkeypatch, capsys):
        scripted(monkeypatch, " there")
        assert typing(["Hello", "/new", ""]) == 0
        said = capsys.readouterr().out
        assert said.startswith("You write to model x: it continues your text. Ctrl-C stops a reply, an empty line lets")
        assert " there\n[1 token, " in said
        assert "This did not work: the message is empty" in said  # /new forgot the conversation

    def test_length_and_seed(self, typing, monkeypatch, capsys):
        calls = scripted(monkeypatch, " one two")
        typing(["Hello"], "--length", "2", "--seed", "7")
        assert (calls[0]["max_new_tokens"], calls[0]["seed"]) == (2, 7)
        assert "the reply has reached its length.]" in capsys.readouterr().out

    def test_going_on_and_again(self, typing, monkeypatch):
        calls = scripted(monkeypatch, " one")
        typing(["Hello", "", "/again"])
        assert [call["prompt"] for call in calls] == ["Hello", "Hello one", "Hello"]

    def test_a_stop_keeps_what_was_written(self, typing, monkeypatch, capsys):
        prompts = []

        def stream(model, given, *_, **options):
            prompts.append(get_tokenizer().decode(given[0].tolist()))
            yield get_tokenizer().encode(" one"), torch.zeros(1, 50304)
            if len(prompts) == 1:
                raise KeyboardInterrupt

        monkeypatch.setattr(chat, "stream_with_logits", stream)
        assert typing(["Hello", "", KeyboardInterrupt]) == 0
        assert prompts == ["Hello", "Hello one"]
        assert " one ...\n[stopped]" in capsys.readouterr().out

    def test_colour_only_on_a_terminal(self, typing, monkeypatch, capsys):
        scripted(monkeypatch, " one")
        typing(["Hello"])
        assert "\033" not in capsys.readouterr().out
        monkeypatch.setattr(chat.sys.stdout, "isatty", lambda: True)
        monkeypatch.delenv("NO_COLOR", raising=False)
        typing(["Hello"])
        assert "\033[34m one\033[0m\n" in capsys.readouterr().out


def test_terminal_with_an_unknown_model(capsys):
    assert chat.main(["--model", "nothing"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("wrong", ["--top-p 0", "--top-p nan", "--style poem", "--length 0", "--seed -1"])
def test_terminal_refuses(wrong):
    with pytest.raises(SystemExit):
        chat.main(wrong.split())


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e-40"])
@pytest.mark.parametrize("program", [chat, chat_page])
def test_a_temperature_that_gives_no_probabilities(monkeypatch, capsys, program, value):
    monkeypatch.setattr(program, "open_chat", None)
    with pytest.raises(SystemExit):
        program.main(["--temperature", value])
    assert "--temperature must be 0 or from 1e-6 to 1e6" in capsys.readouterr().err
