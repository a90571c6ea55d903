"""Stand-ins that several test files use: a tokenizer of letters, and a web server that answers as a test tells it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Letters:
    """A tokenizer with one id per character, from 0 to `vocabulary` - 1: as many as the tiny models have tokens."""

    def __init__(self, vocabulary=97):
        self.vocabulary = vocabulary

    def encode(self, text, allowed_special=frozenset()):
        return [ord(letter) % self.vocabulary for letter in text]

    def decode(self, ids):
        return "".join("\n" if token_id < 20 else chr(64 + token_id % 26) for token_id in ids)


class StubServer:
    """A web server on loopback whose `answer(handler)` replies to each request through http.server's handler.

    `received` has each request as it came: its path, headers and body (bytes).
    """

    def __init__(self, answer):
        self.received = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stub.received.append((self.path, self.headers, body))
                try:
                    answer(self)
                except OSError:  # the client has gone
                    self.close_connection = True

            do_GET = do_POST = reply

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
