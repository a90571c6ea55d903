"""Talking to a model: one core for the terminal, the notebook and the page (`helpers.apps.chat_page`).

    python -m helpers.apps.chat                                          the course model, in the terminal
    python -m helpers.apps.chat --model my_model.safetensors --style phi3
    python -m helpers.apps.chat --model gpt2-124M --temperature 0.9 --top-p 0.95

A model that was only pretrained continues a text and answers nothing: the style "plain" gives it the text as it stands.
The styles "alpaca" and "phi3" put each message into a frame of chapter 7, for models that were fine-tuned with it; such
a model saw one request at a time in its training, so it gets one at a time here.
"""

from __future__ import annotations

import argparse
import codecs
import html
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import load_saved_gpt
from ..generation import generate_stream
from ..gpt import GPT_SIZES, GPTModel
from ..guards import printable
from ..instructions import ALPACA, PHI3
from ..pretrained import load_course_model, load_gpt2, read_gpt2
from ..settings import get_device
from ..tokenizers import END_OF_TEXT, AnyTokenizer, get_tokenizer

STYLES = {"plain": None, "alpaca": ALPACA, "phi3": PHI3}
ERRORS = (ValueError, OSError)  # what a wrong file or number raises, ConnectionError and FileNotFoundError included


def load(spec: str = "course") -> tuple[GPTModel, str]:
    """A model in evaluation mode on the course's device, and what to call it.

    `spec` is "course", a GPT-2 size such as "gpt2-124M" (see `helpers.pretrained.fetch_gpt2`), a file of `save_model`
    or `save_checkpoint`, or a folder of `save_gpt2`. Raises FileNotFoundError for a spec that is none of them,
    ConnectionError if a download fails, ValueError for a file that cannot be read or does not write.
    """
    path, sizes = Path(spec).expanduser(), {f"gpt2-{size.lower()}": size for size in GPT_SIZES}
    if spec == "course":
        model, name = load_course_model()[0], "the course model"
    elif spec.lower() in sizes:
        model, name = load_gpt2(sizes[spec.lower()])[0], f"GPT-2 {sizes[spec.lower()]}"
    elif path.is_dir():
        model, name = read_gpt2(path)[0], path.name
    elif path.is_file():
        model, name = load_saved_gpt(path)[0], path.name
    else:
        names = ", ".join(f"gpt2-{size}" for size in GPT_SIZES)
        raise FileNotFoundError(f"{spec!r} is no file or folder, and not one of course, {names}")
    vocabulary = get_tokenizer().n_vocab
    if min(len(model.tok_emb.weight), len(model.out_head.weight)) < vocabulary:
        raise ValueError(f"{spec} does not write: its layers have fewer entries than GPT-2's {vocabulary:,} tokens")
    return model.eval().to(get_device()), name


@dataclass
class Chat:
    """A conversation with a model: `reply` streams what it writes. `text` is what was said so far, in both voices."""

    model: GPTModel
    name: str = "the model"
    style: str = "plain"
    text: str = ""
    tokenizer: Any = field(default_factory=get_tokenizer)

    def __post_init__(self):
        self.tokenizer = self.tokenizer if isinstance(self.tokenizer, AnyTokenizer) else AnyTokenizer(self.tokenizer)
        if self.style not in STYLES:
            raise ValueError(f"style={self.style!r} is not one of {', '.join(STYLES)}")

    def about(self) -> str:
        """One sentence: the model and the style in use."""
        frame = STYLES[self.style]
        does = f"each message is an instruction to it, in the {frame.name} form" if frame else "it continues your text"
        return f"You write to {self.name}: {does} (style {self.style})."

    def prompt(self, message: str, room: int) -> torch.Tensor:
        """The token ids (T,) that the model is given, with `room` tokens of its context left for the reply.

        In plain style a long conversation loses its beginning; an instruction loses nothing. Raises ValueError for an
        empty message, or one that does not fit.
        """
        frame = STYLES[self.style]
        if frame is None:
            whole = "\n".join(filter(None, (self.text, message)))  # an empty message: the text goes on
        else:
            whole = frame.prompt({"instruction": message.strip(), "input": ""}) if message.strip() else ""
        if not whole.strip():
            raise ValueError("the message is empty: write something first")
        ids = self.tokenizer.encode(whole)  # "<|endoftext|>" typed is only text
        space = len(self.model.pos_emb.weight) - room
        own = ids if frame else self.tokenizer.encode(message)
        if len(own) > space:
            raise ValueError(f"the message is too long: {len(own)} tokens, and there is room for {space}")
        return torch.tensor(ids[-space:])

    def reply(
        self,
        message: str,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_new_tokens: int = 120,
        seed: int | None = None,
    ) -> Iterator[str]:
        """Yield the reply in pieces of text, each of whole characters, until the end token or `max_new_tokens`.

        What was written is kept in `text`, also if the caller stops listening. At most half of the context is used
        for the reply. Raises ValueError as `prompt` and `generate_stream`; then nothing is kept.
        """
        context = len(self.model.pos_emb.weight)
        room = min(max_new_tokens, context // 2)
        prompt = self.prompt(message, room)
        options = {"temperature": temperature, "top_p": top_p, "eos_id": END_OF_TEXT, "seed": seed}
        steps = generate_stream(self.model, [prompt], room, context, **options)
        first = next(steps, None)  # raises before anything is kept
        self.text = "\n".join(filter(None, (self.text, message)))
        if self.style != "plain":
            self.text += "\n"
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a token may end inside a character
        while first is not None:
            piece = decoder.decode(self.tokenizer.token_bytes(first[0]))
            if piece:
                self.text += piece
                yield piece
            first = next(steps, None)
        rest = decoder.decode(b"", final=True)
        if rest:
            self.text += rest
            yield rest


def widget(model: GPTModel | str = "course", style: str = "plain", name: str | None = None) -> None:
    """Show a chat in the notebook: a line to write in, sliders for temperature and top-p, the conversation below.

    `model` is a model, in evaluation mode, or a spec as for `load`. Raises as `load`.
    """
    import ipywidgets  # needed here alone

    from ..course import widgets

    loaded, called = load(model) if isinstance(model, str) else (model, "your model")
    chat = Chat(loaded, name or called, style)
    message = widgets.text("your text")
    heat = widgets.slider("temperature", 0.0, 2.0, 0.1, 0.7)
    nucleus = widgets.slider("top-p", 0.05, 1.0, 0.05, 0.9)
    send = ipywidgets.Button(description="Send", button_style="primary")
    page = ipywidgets.HTML(layout=ipywidgets.Layout(max_height="360px", overflow="auto"))

    def show(kind: str, shown: str) -> str:
        weight = "bold" if kind == "you" else "normal"
        return f'<p style="white-space: pre-wrap; line-height: 1.4; font-weight: {weight}">{html.escape(shown)}</p>'

    def answer(_click=None) -> None:
        asked, before, said = message.value, page.value, ""
        send.disabled = True  # one reply at a time
        page.value = before = before + show("you", asked)
        try:
            for piece in chat.reply(asked, heat.value, nucleus.value):
                said += piece
                page.value = before + show("model", said)
            message.value = ""
        except ERRORS as error:
            page.value = before + show("error", f"This did not work: {error}.")
        finally:
            send.disabled = False

    send.on_click(answer)
    view = ipywidgets.VBox([ipywidgets.HTML(html.escape(chat.about())), message, heat, nucleus, send, page])
    widgets.show(view, alt=f"Interactive chat. {chat.about()} Temperature and top-p are set by sliders.")


def read_options(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> argparse.Namespace:
    """The options that terminal and page share."""
    add = parser.add_argument
    add("--model", default="course", help="course, gpt2-124M (355M, 774M, 1558M), or a saved model (%(default)s)")
    add("--temperature", type=float, default=0.7, help="0 takes the most probable token (%(default)s)")
    add("--top-p", type=float, default=0.9, help="above 0, at most 1 (%(default)s)")
    add("--style", choices=list(STYLES), default="plain", help="plain continues the text (%(default)s)")
    options = parser.parse_args(arguments)
    if options.temperature < 0 or not 0 < options.top_p <= 1:
        parser.error("--temperature must be at least 0, and --top-p above 0 and at most 1")
    return options


@printable
def main(arguments: list[str] | None = None) -> int:
    """The chat in the terminal; returns the exit status."""
    formatter = argparse.RawDescriptionHelpFormatter
    options = read_options(
        argparse.ArgumentParser("helpers.apps.chat", None, __doc__, formatter_class=formatter), arguments
    )
    try:
        chat = Chat(*load(options.model), style=options.style)
    except ERRORS as error:
        print(f"{error}", file=sys.stderr)
        return 1
    print(f"{chat.about()} An empty line goes on, /new starts over, Ctrl-C stops a reply, Ctrl-D ends.")
    while True:
        try:
            message = input("\n> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        if message.strip() == "/new":
            chat.text = ""
            continue
        try:
            for piece in chat.reply(message, options.temperature, options.top_p):
                print(piece, end="", flush=True)
            print()
        except KeyboardInterrupt:
            print(" ...")
        except ERRORS as error:
            print(f"This did not work: {error}.")


if __name__ == "__main__":
    sys.exit(main())
