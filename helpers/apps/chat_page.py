"""The chat as a page in the browser (`make chat`), served to this machine alone by Python's standard library.

    python -m helpers.apps.chat_page --model course --style plain --port 8000

One file of HTML, `assets/chat.html`, holds everything that the page needs; its security policy forbids it to load
anything from elsewhere. A reply is streamed as plain text while it is written. The server keeps no conversation: the
page sends what was said so far with each message.
"""

from __future__ import annotations

import argparse
import html
import json
import sys
import threading
import webbrowser
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

from .chat import ERRORS, Chat, load, read_options

PAGE = Path(__file__).parents[1] / "assets" / "chat.html"
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:"
LARGEST = 2_000_000  # bytes of a request: more than any context holds


class ChatServer(ThreadingHTTPServer):
    """Serves one chat on the loopback address; port 0 takes a free one. Raises OSError if the port is in use."""

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # on Windows it would let two servers share a port

    def __init__(self, chat: Chat, port: int = 8000, temperature: float = 0.7, top_p: float = 0.9):
        self.chat, self.turn = chat, threading.Lock()  # one reply at a time has the processor
        page = PAGE.read_text(encoding="utf-8").replace("{about}", html.escape(chat.about()))
        self.page = page.replace("{temperature}", str(temperature)).replace("{top_p}", str(top_p)).encode()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """GET / is the page; POST /reply takes JSON (text, message, temperature, top_p) and streams the reply's text."""

    server: ChatServer
    timeout = 60  # seconds that a client may be silent, or not take what it is sent

    def do_GET(self) -> None:
        """The page, and nothing else."""
        if not self._is_ours():
            return
        if self.path != "/":
            self._send(404, b"There is only the page at /.")
            return
        self._send(200, self.server.page, "text/html; charset=utf-8", {"Content-Security-Policy": POLICY})

    def do_POST(self) -> None:
        """A reply, piece by piece; an error that comes before its first piece is a sentence with status 400."""
        if not self._is_ours():
            return
        try:
            asked = self._request()
            chat = replace(self.server.chat, text=asked["text"])
            with self.server.turn:
                pieces = chat.reply(asked["message"], asked["temperature"], asked["top_p"])
                first = next(pieces, "")
                self._head(200, "text/plain; charset=utf-8")
                for piece in chain([first], pieces):
                    self.wfile.write(piece.encode())
                    self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            return  # the reader pressed Stop, or left
        except (*ERRORS, OverflowError) as error:
            self._send(400, str(error).encode("utf-8", "replace"))

    def _request(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if self.path != "/reply" or not length.isdecimal() or int(length) > LARGEST:
            raise ValueError("this is no request for a reply")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except RecursionError:
            raise ValueError("the request is nested too deeply") from None
        kinds = {"text": str, "message": str, "temperature": (int, float), "top_p": (int, float)}
        if not isinstance(asked, dict) or not all(isinstance(asked.get(name), kinds[name]) for name in kinds):
            raise ValueError(f"a request holds {', '.join(kinds)}")
        return asked

    def _is_ours(self) -> bool:
        """Refuses what another site's page would send through the reader's browser to this port."""
        port = self.server.server_port
        here = (f"127.0.0.1:{port}", f"localhost:{port}")
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in here and (origin is None or origin in [f"http://{host}" for host in here]):
            return True
        self._send(403, b"This chat is open to pages of its own only.")
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


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit status."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("helpers.apps.chat_page", None, __doc__, formatter_class=formatter)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (%(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    options = read_options(parser, arguments)
    try:
        chat = Chat(*load(options.model), style=options.style)
        server = ChatServer(chat, options.port, options.temperature, options.top_p)
    except (*ERRORS, OverflowError) as error:
        print(f"{error} (port {options.port})" if isinstance(error, OSError) else error, file=sys.stderr)
        return 1
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
