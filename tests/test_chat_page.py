"""The server of the chat's page: what it answers, to whom, and to one writer at a time (for the page itself see
test_browser_chat)."""

import errno
import html
import http.client
import json
import re
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from helpers.apps import chat, chat_page
from helpers.apps.chat import Chat
from helpers.tokenizers import get_tokenizer

from .test_chat import small_model

WORDS = " one two three four five six seven <b>🐭"
ASKED = {"text": "", "message": "Hello", "temperature": 0.5, "top_p": 0.8}


@pytest.fixture(name="server", scope="module")
def running_server():
    server = chat_page.ChatServer(Chat(small_model(context_length=128), "a <small> model"), port=0, temperature=0.4)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(name="writer")
def patient_writer(monkeypatch):
    """The model writes eight words and waits after the second until `go_on` is set; `calls` has what it was given.

    `fails` is an error that it raises at that place, `writing` how many replies are being written at this moment.
    """
    writer = SimpleNamespace(calls=[], go_on=threading.Event(), fails=None, writing=0, most=0)

    def stream(model, prompts, max_new_tokens, context_size, **options):
        prompt = get_tokenizer().decode(prompts[0].tolist())
        writer.calls.append({"prompt": prompt, "max_new_tokens": max_new_tokens, **options})
        writer.writing += 1
        writer.most = max(writer.most, writer.writing)
        try:
            for number, token in enumerate(get_tokenizer().encode(WORDS)[:max_new_tokens]):
                if number == 2:
                    writer.go_on.wait(60)
                    if writer.fails:
                        raise writer.fails
                logits = torch.zeros(1, 50257)
                logits[0, token] = 12.0
                yield [token], logits
        finally:
            writer.writing -= 1

    monkeypatch.setattr(chat, "stream_with_logits", stream)
    yield writer
    writer.go_on.set()


def ask(server, method="POST", path="/reply", body=ASKED, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, sent if method == "POST" else None, headers)
    return connection.getresponse()


def lines(answer):
    return [json.loads(line) for line in answer.read().decode().splitlines()]


def text(answered):
    return "".join(line.get("text", "") for line in answered)


class TestServer:
    def test_only_this_machine(self, server):
        assert server.server_address[0] == "127.0.0.1"

    def test_the_page(self, server):
        answer = ask(server, "GET", "/")
        page = answer.read().decode()
        assert "a &lt;small&gt; model: it continues your text" in page
        assert "style plain" not in page
        setup = json.loads(html.unescape(re.search('data-setup="(.*?)"', page)[1]))
        assert setup["settings"] == {"temperature": 0.4, "top_p": 0.9, "length": 120, "seed": None}
        assert (setup["continues"], setup["longest"], len(setup["examples"])) == (True, 64, 3)

    def test_the_page_loads_nothing_from_elsewhere_and_runs_nothing_inline(self, server):
        answer = ask(server, "GET", "/")
        page = answer.read().decode()
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'",) * 3
        assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
        files = re.findall('(?:src|href)="(/[^"]*)"', page)
        assert sorted(files) == ["/chat.css", "/chat.js"]
        for name, kind in [("/", "text/html"), ("/chat.css", "text/css"), ("/chat.js", "text/javascript")]:
            answer = ask(server, "GET", name)
            assert answer.headers["Content-Type"].startswith(kind)
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "http" not in answer.read().decode()  # no address at all
        assert not re.search(r"<script>|<style>| style=| on[a-z]+=", page)

    def test_streams(self, server, writer):
        answer, got = ask(server), b""
        while b" two" not in got:
            got += answer.read1()
            assert not answer.isclosed()
        assert b"three" not in got
        writer.go_on.set()
        answered = [json.loads(line) for line in (got + answer.read()).decode().splitlines()]
        assert text(answered) == WORDS
        assert answered[-1] == {"ended": "end"}
        assert (writer.calls[0]["temperature"], writer.calls[0]["top_p"]) == (0.5, 0.8)

    def test_each_token_has_its_probability(self, server, writer):
        writer.go_on.set()
        first, *_ = lines(ask(server))
        ((word, share, likeliest),) = first["tokens"]
        assert word == likeliest[0][0] == " one"
        assert share == likeliest[0][1] == pytest.approx(1.0, abs=0.01)  # a logit of 12 at temperature 0.5
        assert len(likeliest) == 3

    def test_the_conversation_comes_with_the_message(self, server, writer):
        writer.go_on.set()
        ask(server, body={**ASKED, "text": "Before."}).read()
        assert writer.calls[0]["prompt"] == "Before.\nHello"

    def test_a_reply_goes_on(self, server, writer):
        writer.go_on.set()
        ask(server, body={**ASKED, "text": "Before.", "begun": " and"}).read()
        assert writer.calls[0]["prompt"] == "Before.\nHello and"

    def test_length_and_seed(self, server, writer):
        writer.go_on.set()
        answered = lines(ask(server, body={**ASKED, "length": 3, "seed": 8}))
        assert (text(answered), answered[-1]) == (" one two three", {"ended": "length"})
        assert (writer.calls[0]["max_new_tokens"], writer.calls[0]["seed"]) == (3, 8)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({**ASKED, "message": " "}, "the message is empty"),
            ({**ASKED, "top_p": 2}, "top_p=2 must be"),
            ({**ASKED, "temperature": "hot"}, "a request holds text, message"),
            ({**ASKED, "length": 0}, "the length of a reply is 0: at least 1"),
            ({**ASKED, "length": "long"}, "a request holds"),
            ({**ASKED, "seed": -1}, "seed=-1 must be from 0"),
            ({**ASKED, "seed": 10**30}, "seed=1000000000000000000000000000000 must be from 0"),
            ({**ASKED, "begun": None}, "a request holds"),
            ([], "a request holds"),
            (b"no json", "Expecting value"),
        ],
    )
    def test_errors_are_sentences(self, server, body, said):
        answer = ask(server, body=body)
        assert answer.status == 400
        assert answer.read().decode().startswith(said)

    @pytest.mark.parametrize("error", [ValueError("no numbers"), RuntimeError("no numbers")])
    def test_an_error_in_the_middle_is_a_line_of_the_stream(self, server, writer, error):
        writer.fails = error
        writer.go_on.set()
        answered = lines(ask(server))
        assert (text(answered), answered[-1]) == (" one two", {"error": "no numbers"})

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
    def test_other_sites_are_refused(self, server, method, headers):
        answer = ask(server, method, "/" if method == "GET" else "/reply", **headers)
        assert answer.status == 403
        said = answer.read().decode()
        assert said.startswith(f"This chat is open to its own page only, at {server.url[:-1]} or http://localhost:")
        assert said.endswith(
            "this is a request to 'evil.example'." if "Host" in headers else "this is the page 'http://evil.example'."
        )

    @pytest.mark.parametrize("path", ["/", "/chat.js"])
    def test_an_address_with_a_query(self, server, path):
        assert ask(server, "GET", f"{path}?x=1").read() == ask(server, "GET", path).read()
        assert ask(server, "GET", f"{path}x?/").status == 404

    @pytest.mark.parametrize("path", ["/../pyproject.toml", "/reply", "/favicon.ico", "/chat.html", "/chat.js/../x"])
    def test_there_is_only_the_page(self, server, path):
        assert ask(server, "GET", path).status == 404


class TestOneWriter:
    def test_a_second_reader_is_told_to_wait(self, server, writer, monkeypatch):
        first = ask(server)
        assert b" one" in first.fp.readline()
        second = ask(server)
        assert json.loads(second.fp.readline()) == {"waiting": True}
        assert len(writer.calls) == 1
        writer.go_on.set()
        assert text(lines(first)) == WORDS.removeprefix(" one")
        assert text(lines(second)) == WORDS
        assert writer.most == 1

    def test_who_leaves_makes_room(self, server, writer):
        first = ask(server)
        first.fp.readline()
        first.close()
        second = ask(server)
        second.fp.readline()
        second.close()  # while it waits
        writer.go_on.set()
        assert text(lines(ask(server))) == WORDS
        end = time.monotonic() + 20
        while writer.writing and time.monotonic() < end:
            time.sleep(0.05)
        assert (writer.writing, writer.most) == (0, 1)


class TestMain:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(chat, "load", lambda spec: (small_model(), "small"))
        self.served = []
        monkeypatch.setattr(chat_page.ChatServer, "serve_forever", lambda server: self.served.append(server))

    def run(self, *arguments):
        self.served.clear()
        status = chat_page.main(["--no-browser", *arguments])
        for server in self.served:
            server.server_close()
        return status

    def test_a_port_in_use_gives_the_next_one(self, server, capsys):
        taken = server.server_port
        assert self.run("--port", str(taken)) == 0
        (found,) = self.served
        assert found.server_port > taken
        said = capsys.readouterr().out
        assert said.startswith(
            f"Port {taken} is in use. You write to small: it continues your text. The page is at http"
        )
        assert found.url in said and said.count("\n") == 1

    def test_no_port_free_is_one_sentence(self, server, monkeypatch, capsys):
        monkeypatch.setattr(chat_page, "PORTS", 1)
        port = server.server_port
        assert self.run("--port", str(port)) == 1
        assert capsys.readouterr().err == f"the ports {port} to {port} are in use: choose another one with --port\n"

    def test_a_port_that_may_not_be_taken_is_one_sentence(self, monkeypatch, capsys):
        def refuse(*_):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(socket.socket, "bind", refuse)
        assert self.run("--port", "80") == 1
        assert capsys.readouterr().err == "[Errno 13] Permission denied (port 80)\n"

    @pytest.mark.parametrize("port", ["-1", "65536"])
    def test_no_such_port(self, port, capsys):
        with pytest.raises(SystemExit):
            self.run("--port", port)
        assert "--port must be from 0 to 65535" in capsys.readouterr().err

    def test_what_the_controls_show_at_first(self):
        self.run("--port", "0", "--temperature", "0.2", "--top-p", "0.5", "--length", "9", "--seed", "4")
        (server,) = self.served
        assert "&quot;settings&quot;: {&quot;temperature&quot;: 0.2, &quot;top_p&quot;: 0.5" in server.page.decode()
        assert "&quot;length&quot;: 9, &quot;seed&quot;: 4}" in server.page.decode()
