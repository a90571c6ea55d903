"""Talking to a model: one core for the terminal, the notebook (`chat_widget`) and the page (`chat_page`).

    python -m helpers.apps.chat                                          the course model, in the terminal
    python -m helpers.apps.chat --model assistant                        the course assistant, which answers
    python -m helpers.apps.chat --model smollm2                          SmolLM2-135M-Instruct, fetched before
    python -m helpers.apps.chat --model my_model.safetensors --style phi3
    python -m helpers.apps.chat --model gpt2-124M --temperature 0.9 --top-p 0.95 --length 200

A model that was only pretrained continues a text and answers nothing: the style "plain" gives it the text as it stands.
The styles "alpaca" and "phi3" put each message into a frame of chapter 7, for models that were fine-tuned with it; such
a model saw one request at a time in its training, so it gets one at a time here. The style "smollm2" is the frame of
SmolLM2, for that model alone: it has a tokenizer of its own (`open_chat` sees to that).
"""

from __future__ import annotations

import argparse
import codecs
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import load_saved_gpt
from ..generation import context_length, stream_with_logits
from ..gpt import GPT_SIZES, GPTModel
from ..guards import printable
from ..instructions import ALPACA, PHI3
from ..llama import LlamaModel
from ..pretrained import load_assistant, load_course_model, load_gpt2, read_gpt2
from ..settings import get_device
from ..smollm2 import SMOLLM2, load_smollm2
from ..speed.fused_llama import fuse_llama
from ..tokenizers import END_OF_TEXT, AnyTokenizer, get_tokenizer

STYLES = {"plain": None, "alpaca": ALPACA, "phi3": PHI3, "smollm2": SMOLLM2}
ERRORS = (ValueError, OSError)  # what a wrong file or number raises, ConnectionError and FileNotFoundError included
RIVALS = 3  # of the most probable tokens at a place, how many are told
LARGEST_SEED = 2**63 - 1


def load(spec: str = "course") -> tuple[GPTModel, str]:
    """A model in evaluation mode on the course's device, and what to call it.

    `spec` is "course", "assistant", a GPT-2 size such as "gpt2-124M" (see `helpers.pretrained.fetch_gpt2`), a file of
    `save_model` or `save_checkpoint`, or a folder of `save_gpt2`; for SmolLM2, which has a tokenizer of its own, see
    `open_chat`. Raises FileNotFoundError for a spec that is none of them, ConnectionError if a download fails,
    ValueError for a file that cannot be read or does not write.
    """
    path, sizes = Path(spec).expanduser(), {f"gpt2-{size.lower()}": size for size in GPT_SIZES}
    if spec == "course":
        model, name = load_course_model()[0], "the course model"
    elif spec == "assistant":
        model, name = load_assistant()[0], "the course assistant"
    elif spec.lower() in sizes:
        model, name = load_gpt2(sizes[spec.lower()])[0], f"GPT-2 {sizes[spec.lower()]}"
    elif path.is_dir():
        model, name = read_gpt2(path)[0], path.name
    elif path.is_file():
        model, name = load_saved_gpt(path)[0], path.name
    else:
        names = ", ".join(f"gpt2-{size}" for size in GPT_SIZES)
        raise FileNotFoundError(f"{spec!r} is no file or folder, and not one of course, assistant, smollm2, {names}")
    vocabulary = get_tokenizer().n_vocab
    if min(len(model.tok_emb.weight), len(model.out_head.weight)) < vocabulary:
        raise ValueError(f"{spec} does not write: its layers have fewer entries than GPT-2's {vocabulary:,} tokens")
    return model.eval().to(get_device()), name


def usual_style(spec: str) -> str:
    """The style that a model of this spec is talked to in, unless something else is said."""
    return {"assistant": "phi3", "smollm2": "smollm2"}.get(spec, "plain")


def open_chat(spec: str = "course", style: str | None = None) -> Chat:
    """A conversation with the model of a spec: one of `load`, or "smollm2", whose file is fetched before.

    Without a style, the usual one. Raises ValueError for a style that is not the model's, FileNotFoundError where
    SmolLM2's file is not on this machine, and as `load`.
    """
    style = style or usual_style(spec)
    if style == "smollm2" and spec != "smollm2":
        raise ValueError(f"the style smollm2 is for the model smollm2 alone: its tokens are not those of {spec}")
    if spec != "smollm2":
        return Chat(*load(spec), style=style)
    if STYLES[style] not in (None, SMOLLM2):
        raise ValueError(f"style={style!r} is not one that smollm2 knows: smollm2, or plain to continue a text")
    model, _, tokenizer = load_smollm2()
    model = fuse_llama(model).to(get_device())
    end = tokenizer.special_tokens["<|im_end|>"]
    return Chat(model, "SmolLM2-135M-Instruct", style, tokenizer=tokenizer, eos_id=end)


@dataclass(frozen=True)
class Token:
    """One token of a reply: its text, its probability, and the most probable tokens at its place, itself included.

    A token that ends inside a character shows that part of its text as U+FFFD.
    """

    text: str
    probability: float
    likeliest: list[tuple[str, float]]


@dataclass(frozen=True)
class Piece:
    """What a reply grows by: whole characters, and the tokens that they are made of, one or more."""

    text: str
    tokens: list[Token]


@dataclass
class Chat:
    """A conversation with a model: `reply` streams what it writes, `pieces` the same with each token's probability.

    `before` is what both voices said before the last `message`, `answer` what the model has written in reply to it.
    `ended` says what ended that: "end" (the model's end token), "length", or nothing yet (it was stopped); `written` is
    how many tokens it wrote.
    """

    model: GPTModel | LlamaModel
    name: str = "the model"
    style: str = "plain"
    before: str = ""
    message: str = ""
    answer: str = ""
    ended: str = field(default="", init=False)
    written: int = field(default=0, init=False)
    tokenizer: Any = field(default_factory=get_tokenizer)
    eos_id: int = END_OF_TEXT  # the model's end token

    def __post_init__(self):
        self.tokenizer = self.tokenizer if isinstance(self.tokenizer, AnyTokenizer) else AnyTokenizer(self.tokenizer)
        if self.style not in STYLES:
            raise ValueError(f"style={self.style!r} is not one of {', '.join(STYLES)}")

    @property
    def continues(self) -> bool:
        """Whether the model continues a text, instead of answering messages."""
        return STYLES[self.style] is None

    @property
    def context(self) -> int:
        """How many tokens the model reads at once."""
        return context_length(self.model)

    @property
    def text(self) -> str:
        """All that was said so far, in both voices."""
        said = "\n".join(filter(None, (self.before, self.message)))
        return said + ("" if self.continues or not self.message else "\n") + self.answer

    def about(self) -> str:
        """One sentence: the model, and what it does with what it is given."""
        if self.continues:
            return f"You write to {self.name}: it continues your text."
        return f"You write to {self.name}: it answers each message by itself and does not see the earlier ones."

    def take_back(self) -> str:
        """Forget the last message and the reply to it; returns the message, which may be asked again."""
        message, self.message, self.answer = self.message, "", ""
        return message

    def start_over(self) -> None:
        """Forget everything that was said."""
        self.before = self.message = self.answer = ""

    def prompt(self, message: str, room: int) -> torch.Tensor:
        """The token ids (T,) that the model is given, with `room` tokens of its context left for the reply.

        An empty message lets the last reply go on. In plain style a long conversation loses its beginning; an
        instruction loses nothing. Raises ValueError if there is nothing to go on from, or it does not fit.
        """
        return self._prompt(*self._turn(message), room)

    def _turn(self, message: str) -> tuple[str, str, str]:
        """What was said before, the message, and what is already written in reply to it."""
        goes_on = not message and self.answer
        return (self.before, self.message, self.answer) if goes_on else (self.text, message, "")

    def _prompt(self, before: str, message: str, answer: str, room: int) -> torch.Tensor:
        frame = STYLES[self.style]
        whole = message if frame else "\n".join(filter(None, (before, message))) + answer
        if not whole.strip():
            raise ValueError("the message is empty: write something first")
        if frame:  # special tokens that are typed are only text
            ids = frame.encode({"instruction": message.strip(), "input": ""}, self.tokenizer, answer)
        else:
            ids = self.tokenizer.encode(whole)
        if frame and answer and len(ids) >= self.context:
            raise ValueError(f"the reply cannot go on: with its message it fills the context of {self.context} tokens")
        space = self.context - (1 if frame and answer else room)
        own = len(ids) if frame else len(self.tokenizer.encode(message))
        if own > space:
            raise ValueError(f"the message is too long: {own} tokens, and there is room for {space}")
        return torch.tensor(ids[-space:])

    def pieces(
        self,
        message: str,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_new_tokens: int = 120,
        seed: int | None = None,
    ) -> Iterator[Piece]:
        """Yield the reply piece by piece, until the end token or `max_new_tokens`; see `probabilities` for its tokens.

        An empty message lets the last reply go on. What was written is kept in `answer`, also if the caller stops
        listening. At most half of the context is used for the reply. Raises ValueError as `prompt` and
        `stream_with_logits`, and for a length or a seed out of range; then nothing is kept.
        """
        if max_new_tokens < 1:
            raise ValueError(f"the length of a reply is {max_new_tokens}: at least 1 token is expected")
        if seed is not None and not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"seed={seed} must be from 0 to {LARGEST_SEED}")
        turn = self._turn(message)
        prompt = self._prompt(*turn, min(max_new_tokens, self.context // 2))
        room = min(max_new_tokens, self.context // 2, self.context - len(prompt))
        options = {"temperature": temperature, "top_p": top_p, "eos_id": self.eos_id, "seed": seed}
        steps = stream_with_logits(self.model, [prompt], room, self.context, **options)
        first = next(steps, None)  # raises before anything is kept
        self.before, self.message, self.answer = turn
        self.ended, self.written = "", 0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a token may end inside a character
        tokens = []
        for (token_id,), logits in chain([first] if first else [], steps):
            self.written += 1
            tokens.append(self._token(token_id, logits, temperature))
            text = decoder.decode(self.tokenizer.token_bytes(token_id))
            if text:
                self.answer += text
                yield Piece(text, tokens)
                tokens = []
        self.ended = "length" if self.written == room else "end"
        rest = decoder.decode(b"", final=True)
        if rest:
            self.answer += rest
            yield Piece(rest, tokens)

    def _token(self, token_id: int, logits: torch.Tensor, temperature: float) -> Token:
        shares = probabilities(logits[0], temperature)
        values, ids = shares.topk(min(RIVALS, len(shares)))
        likeliest = [(self._shown(rival), share) for rival, share in zip(ids.tolist(), values.tolist(), strict=True)]
        return Token(self._shown(token_id), shares[token_id].item(), likeliest)

    def _shown(self, token_id: int) -> str:
        return self.tokenizer.token_bytes(token_id).decode("utf-8", "replace")

    def reply(
        self,
        message: str,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_new_tokens: int = 120,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The text of `pieces`, each of whole characters."""
        for piece in self.pieces(message, temperature, top_p, max_new_tokens, seed):
            yield piece.text

    def closing(self, seconds: float) -> str:
        """What stands under a reply that took `seconds`: tokens, tokens per second, and whether its length ended it."""
        if not self.written:
            return "The model ended its reply at once."
        counted = f"{self.written} token{'s' if self.written > 1 else ''}, {self.written / seconds:.1f} per second"
        return f"{counted}; the reply has reached its length." if self.ended == "length" else f"{counted}."


def probabilities(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """What logits (V,) make of each token: softmax(logits / temperature), before top-p leaves any out.

    At temperature 0, where the highest logit is taken, they are those of temperature 1.
    """
    return torch.softmax(logits.float() / (temperature or 1.0), dim=-1)


def widget(model: GPTModel | str = "course", style: str | None = None, name: str | None = None) -> None:
    """Show a chat in the notebook: a line to write in, sliders for temperature and top-p, the conversation.

    `model` is a model, in evaluation mode, or a spec as for `open_chat`. Without a `style`, a model continues the text,
    and the course assistant and SmolLM2 answer. Raises as `open_chat`.
    """
    from .chat_widget import ChatWidget  # ipywidgets are needed there alone

    chat = open_chat(model, style) if isinstance(model, str) else Chat(model, "your model", style or "plain")
    chat.name = name or chat.name
    ChatWidget(chat).show()


def read_options(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> argparse.Namespace:
    """The options that terminal and page share."""
    add = parser.add_argument
    add("--model", default="course", help="course, assistant, smollm2, gpt2-124M (355M, 774M, 1558M), or a saved model")
    add("--temperature", type=float, default=0.7, help="0 takes the most probable token (%(default)s)")
    add("--top-p", type=float, default=0.9, help="above 0, at most 1 (%(default)s)")
    add("--length", type=int, default=120, help="at most so many tokens per reply (%(default)s)")
    add("--seed", type=int, help="a whole number: the same request gives the same reply")
    add("--style", choices=list(STYLES), help="plain continues the text, and is usual but for assistant and smollm2")
    options = parser.parse_args(arguments)
    options.style = options.style or usual_style(options.model)
    if not (options.temperature == 0 or 1e-6 <= options.temperature <= 1e6) or not 0 < options.top_p <= 1:
        parser.error("--temperature must be 0 or from 1e-6 to 1e6, and --top-p above 0 and at most 1")
    if options.length < 1 or not 0 <= (options.seed or 0) <= LARGEST_SEED:
        parser.error(f"--length must be at least 1, and --seed from 0 to {LARGEST_SEED}")
    return options


@printable
def main(arguments: list[str] | None = None) -> int:
    """The chat in the terminal; returns the exit status."""
    formatter = argparse.RawDescriptionHelpFormatter
    options = read_options(
        argparse.ArgumentParser("helpers.apps.chat", None, __doc__, formatter_class=formatter), arguments
    )
    try:
        chat = open_chat(options.model, options.style)
    except ERRORS as error:
        print(f"{error}", file=sys.stderr)
        return 1
    with suppress(ImportError):
        import readline  # noqa: F401 (the arrow keys bring back what was typed; Windows does so by itself)
    print(f"{chat.about()} Ctrl-C stops a reply, an empty line lets it go on, /again asks for another one,")
    print("/new starts over, Ctrl-D ends.")
    while True:
        try:
            message = input("\n> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        if message.strip() == "/new":
            chat.start_over()
            continue
        if message.strip() == "/again":
            message = chat.take_back()
        _write(chat, message, options)


def _write(chat: Chat, message: str, options: argparse.Namespace) -> None:
    """Print a reply as it comes, in blue where the terminal has colours, and under it how it ended."""
    colours = sys.stdout.isatty() and os.name != "nt" and "NO_COLOR" not in os.environ
    blue, plain = ("\033[34m", "\033[0m") if colours else ("", "")
    begin = time.perf_counter()
    print(blue, end="")
    try:
        for piece in chat.reply(message, options.temperature, options.top_p, options.length, options.seed):
            print(piece, end="", flush=True)
        print(f"{plain}\n[{chat.closing(time.perf_counter() - begin)}]")
    except KeyboardInterrupt:
        print(f"{plain} ...\n[stopped]")
    except ERRORS as error:
        print(f"{plain}This did not work: {error}.")


if __name__ == "__main__":
    sys.exit(main())
