"""The chat as a widget in the notebook: `chat.widget()` shows it."""

from __future__ import annotations

import asyncio
import html
import time

import ipywidgets

from ..course import widgets
from .chat import ERRORS, Chat

ENTER_DELAY = 0.1  # seconds: the browser announces Enter a moment before it sends the line that was typed
YOU, MODEL = "font-weight: bold", "color: var(--jp-content-link-color, #1976d2)"


class ChatWidget:
    """A line to write in, sliders for temperature and top-p, buttons, and the conversation, its newest line in sight.

    A reply is written between the kernel's other tasks, so that Stop is heard while it grows.
    """

    def __init__(self, chat: Chat):
        self.chat, self.turns, self.task, self.stopping = chat, [], None, False
        self.line = widgets.text("your text")
        self.line.continuous_update = False  # so that no half-typed line is still on its way when Enter comes
        self.heat = widgets.slider("temperature", 0.0, 2.0, 0.1, 0.7)
        self.nucleus = widgets.slider("top-p", 0.05, 1.0, 0.05, 0.9)
        self.send, self.stop, self.go_on, self.new = (
            ipywidgets.Button(description=name) for name in ("Send", "Stop", "Continue", "New conversation")
        )
        self.page, self.note = ipywidgets.HTML(), ipywidgets.HTML()
        # From the bottom up: a box that is filled in this direction stays at its newest line.
        window = ipywidgets.Box(
            [self.page], layout=ipywidgets.Layout(max_height="360px", overflow="auto", flex_flow="column-reverse")
        )
        about = ipywidgets.HTML(f"{html.escape(chat.about())} Enter sends.")
        buttons = ipywidgets.HBox([self.send, self.stop, self.go_on, self.new])
        parts = [about, window, self.note, self.line, buttons, self.heat, self.nucleus, widgets.foot()]
        self.view = ipywidgets.VBox(parts)
        self.line.on_msg(self._entered)
        self.send.on_click(lambda _: self._begin(self._sent()))
        self.go_on.on_click(lambda _: self._begin(self._write("")))
        self.stop.on_click(self._stop)
        self.new.on_click(self._start_over)
        self._show_busy(False)

    def show(self) -> None:
        """Show it as a cell's output."""
        alt = f"Interactive chat. {self.chat.about()} Temperature and top-p are set by sliders."
        widgets.show(self.view, alt=alt)

    def _entered(self, _line: ipywidgets.Widget, content: dict, _buffers: list) -> None:
        if content.get("event") == "submit":
            self._begin(self._sent(ENTER_DELAY))

    def _begin(self, work) -> None:
        if self.task is None or self.task.done():  # one reply at a time
            self.task = asyncio.get_running_loop().create_task(work)
        else:
            work.close()

    async def _sent(self, delay: float = 0.0) -> None:
        await asyncio.sleep(delay)
        if self.line.value.strip():
            await self._write(self.line.value)
        else:
            self._say("Write something first." if not self.turns else "Write something first, or press Continue.")

    async def _write(self, message: str) -> None:
        """Stream a reply into the page; an empty message lets the last one go on."""
        self._show_busy(True)
        begin, earlier, said = time.perf_counter(), list(self.turns), ""
        asked, written = (message, "") if message else earlier.pop()
        try:
            for piece in self.chat.reply(message, self.heat.value, self.nucleus.value):
                said += piece
                self._set([*earlier, (asked, written + said)])
                await asyncio.sleep(0)  # the buttons are heard here
                if self.stopping:
                    break
            self._set([*earlier, (asked, written + said)])  # a reply may be empty
            if message:
                self.line.value = ""  # after an error it is still there
            self._say("Stopped." if self.stopping else self.chat.closing(time.perf_counter() - begin))
        except ERRORS as error:
            self._say(f"This did not work: {error}.")
        except Exception as error:  # a model that was changed may raise anything; no cell would show it
            self._say(f"This did not work: {type(error).__name__}: {error}")
        finally:
            self._show_busy(False)

    def _stop(self, _click: ipywidgets.Button) -> None:
        self.stopping = True

    def _start_over(self, _click: ipywidgets.Button) -> None:
        self.chat.start_over()
        self._set([])
        self._say("")
        self._show_busy(False)

    def _show_busy(self, busy: bool) -> None:
        self.stopping = False
        self.send.disabled = self.new.disabled = busy
        self.stop.disabled = not busy
        self.go_on.disabled = busy or not self.turns
        if busy:
            self._say("The model is writing.")

    def _say(self, sentence: str) -> None:
        self.note.value = f"<i>{html.escape(sentence)}</i>" if sentence else ""

    def _set(self, turns: list[tuple[str, str]]) -> None:
        """Show messages and replies: as one text if the model continues it, else one below the other."""
        self.turns = turns
        between = "" if self.chat.continues else "<br>"
        shown = [
            f'<span style="{YOU}">{html.escape(asked)}</span>{between}<span style="{MODEL}">{html.escape(said)}</span>'
            for asked, said in turns
        ]
        gap = "4px" if self.chat.continues else "14px"
        self.page.value = "".join(
            f'<div style="white-space: pre-wrap; line-height: 1.4; margin-bottom: {gap}">{turn}</div>' for turn in shown
        )
