"""The chat as a page in the browser (`make chat`), served to this machine alone by Python's standard library.

    python -m helpers.apps.chat_page --model course --style plain --port 8000

Three files, in `assets/chat`, hold everything that the page needs; its security policy forbids it to load anything from
elsewhere. A reply is streamed while it is written, a line of JSON per piece. The server keeps no conversation: the page
does, in the browser's memory of its tab, and sends what was said so far with each message.
"""

from __future__ import annotations

import argparse
import errno
import html
import json
import sys
import threading
import webbrowser
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any

from ..guards import printable
from .chat import ERRORS, Chat, Piece, open_chat, read_options

FOLDER = Path(__file__).parents[1] / "assets" / "chat"
FILES = {"/chat.css": "text/css; charset=utf-8", "/chat.js": "text/javascript; charset=utf-8"}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
POLICY += "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
LARGEST = 2_000_000  # bytes of a request: more than any context holds
PORTS = 20  # how many are tried, one after the other, where others are in use
# What a request holds, and what stands for a value that is left out.
KINDS = {"text": str, "message": str, "temperature": (int, float), "top_p": (int, float), "begun": str}
KINDS |= {"length": int, "seed": (int, type(None))}
DEFAULTS = {"begun": "", "length": 120, "seed": None}
# What may be written at first, to a model that continues a text and to one that answers.
BEGINNINGS = ["Once upon a time there was", "The old man looked at the sea and", "“Where is the dog?” asked"]
REQUESTS = [
    "What is the opposite of warm?",
    "Rewrite the sentence in the past tense: She walks to school.",
    "Is a sparrow an animal or a plant?",
]


class ChatServer(ThreadingHTTPServer):
    """Serves one chat on the loopback address; port 0 takes a free one. Raises OSError if the port is in use.

    `settings` are what the page's controls show at first: temperature, top_p, length, seed.
    """

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # on Windows it would let two servers share a port

    def __init__(self, chat: Chat, port: int = 8000, **settings: float | None):
        self.chat, self.turn = chat, threading.Lock()  # one reply at a time has the processor
        shown = {"temperature": 0.7, "top_p": 0.9, **DEFAULTS, **settings}
        setup = {
            "settings": {name: shown[name] for name in ("temperature", "top_p", "length", "seed")},
            "continues": chat.continues,
            "longest": chat.context // 2,
            "examples": BEGINNINGS if chat.continues else REQUESTS,
        }
        words = {"about": chat.about(), "setup": json.dumps(setup), "kind": "text" if chat.continues else "messages"}
        page = Template((FOLDER / "chat.html").read_text(encoding="utf-8"))
        self.page = page.substitute({name: html.escape(word) for name, word in words.items()}).encode()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """GET / is the page; POST /reply takes JSON (see KINDS) and streams the reply, one line of JSON per piece.

    The lines are {"text": …, "tokens": [[text, probability, [[text, probability], …]], …]}, before them
    {"waiting": true} once per second while another reply is written, at the end {"ended": "end" or "length"} or
    {"error": …}. A stream without such an end was cut off.
    """

    server: ChatServer
    timeout = 60  # seconds that a client may be silent, or not take what it is sent
    streaming = False  # whether a reply has begun

    def do_GET(self) -> None:
        """The page and its two files, and nothing else."""
        if not self._is_ours():
            return
        path = self.path.partition("?")[0]  # editors and bookmarks add a query to an address
        if path == "/":
            self._send(200, self.server.page, "text/html; charset=utf-8", {"Content-Security-Policy": POLICY})
        elif path in FILES:
            self._send(200, FOLDER.joinpath(path[1:]).read_bytes(), FILES[path])
        else:
            self._send(404, b"There is only the page at /.")

    def do_POST(self) -> None:
        """A reply, piece by piece; an error that comes before its first line is a sentence with status 400."""
        if not self._is_ours():
            return
        try:
            self._reply(self._request())
        except (ConnectionError, TimeoutError):
            return  # the reader pressed Stop, or left
        except (*ERRORS, OverflowError, RuntimeError) as error:
            if self.streaming:
                self._line({"error": str(error)})
            else:
                self._send(400, str(error).encode("utf-8", "replace"))

    def _reply(self, asked: dict[str, Any]) -> None:
        begun = {"before": asked["text"], "message": asked["message"], "answer": asked["begun"]}
        chat = replace(self.server.chat, **(begun if asked["begun"] else {"before": asked["text"]}))
        message = "" if asked["begun"] else asked["message"]
        pieces = chat.pieces(message, asked["temperature"], asked["top_p"], asked["length"], asked["seed"])
        while not self.server.turn.acquire(timeout=1):  # also as long as a reply needs to notice that it was stopped
            self._line({"waiting": True})
        try:
            for piece in pieces:
                self._line(_as_json(piece))
            self._line({"ended": chat.ended})
        finally:
            self.server.turn.release()

    def _line(self, content: dict[str, Any]) -> None:
        """One line of the stream; as plain text, so that no browser takes a reply for a page."""
        if not self.streaming:
            self._head(200, "text/plain; charset=utf-8")
            self.streaming = True
        self.wfile.write(json.dumps(content, allow_nan=False).encode() + b"\n")
        self.wfile.flush()

    def _request(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if self.path != "/reply" or not length.isdecimal() or int(length) > LARGEST:
            raise ValueError("this is no request for a reply")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except TimeoutError:
            raise ValueError("the request is shorter than it says") from None
        except RecursionError:
            raise ValueError("the request is nested too deeply") from None
        asked = {**DEFAULTS, **asked} if isinstance(asked, dict) else {}
        if not all(isinstance(asked.get(name, ...), kind) for name, kind in KINDS.items()):
            raise ValueError(f"a request holds {', '.join(KINDS)}")
        return asked

    def _is_ours(self) -> bool:
        """Refuses what another site's page would send through the reader's browser to this port."""
        port = self.server.server_port
        here = (f"127.0.0.1:{port}", f"localhost:{port}")
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        if host in here and (origin is None or origin in [f"http://{own}" for own in here]):
            return True
        what = f"the page {origin!r:.80}" if host in here else f"a request to {host!r:.80}"
        own = " or ".join(f"http://{host}" for host in here)
        self._send(403, f"This chat is open to its own page only, at {own}: this is {what}.".encode("utf-8", "replace"))
        return False

    def _head(self, status: int, kind: str, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8", more=None) -> None:
        self._head(status, kind, {"Content-Length": str(len(body)), **(more or {})})
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged: what is written here stays in the page."""


def _as_json(piece: Piece) -> dict[str, Any]:
    tokens = [[token.text, token.probability, token.likeliest] for token in piece.tokens]
    return {"text": piece.text, "tokens": tokens}


def open_server(chat: Chat, port: int, **settings: float | None) -> ChatServer:
    """A server on `port`, or on the next one that is free. Raises OSError, in a sentence, if none of PORTS ports is."""
    last = min(port + PORTS - 1, 65535)
    for number in range(port, last + 1):
        try:
            return ChatServer(chat, number, **settings)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OSError(f"{error} (port {number})") from None
    raise OSError(f"the ports {port} to {last} are in use: choose another one with --port")


@printable
def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("helpers.apps.chat_page", None, __doc__, formatter_class=formatter)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one, a taken one the next (%(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    options = read_options(parser, arguments)
    if not 0 <= options.port <= 65535:
        parser.error("--port must be from 0 to 65535")
    settings = {name: getattr(options, name) for name in ("temperature", "top_p", "length", "seed")}
    try:
        chat = open_chat(options.model, options.style)
        server = open_server(chat, options.port, **settings)
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    if options.port not in (0, server.server_port):
        print(f"Port {options.port} is in use.", end=" ")
    print(f"{chat.about()} The page is at {server.url} (Ctrl-C ends).", flush=True)
    if not options.no_browser:
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
