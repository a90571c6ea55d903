"""The chat's page: its server's answers, and in a real browser the streamed reply and no request that leaves."""

import http.client
import json
import subprocess
import sys
import threading
from itertools import pairwise
from types import SimpleNamespace

import pytest

from helpers.apps import chat, chat_page
from helpers.apps.chat import Chat
from helpers.tokenizers import get_tokenizer

from .test_browser import new_visit, open_browser  # noqa: F401 (the fixtures visit and browser)
from .test_chat import small_model

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
    """The model writes eight words and waits after the second until `go_on` is set; `calls` has what it was given."""
    calls, go_on = [], threading.Event()

    def stream(model, prompts, max_new_tokens, context_size, **options):
        calls.append({"prompt": get_tokenizer().decode(prompts[0].tolist()), **options})
        for number, token in enumerate(get_tokenizer().encode(" one two three four five six seven <b>🐭")):
            if number == 2:
                go_on.wait(60)
            yield [token]

    monkeypatch.setattr(chat, "generate_stream", stream)
    yield SimpleNamespace(calls=calls, go_on=go_on)
    go_on.set()


def ask(server, method="POST", path="/reply", body=ASKED, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, sent if method == "POST" else None, headers)
    return connection.getresponse()


class TestServer:
    def test_only_this_machine(self, server):
        assert server.server_address[0] == "127.0.0.1"

    def test_the_page(self, server):
        answer = ask(server, "GET", "/")
        page = answer.read().decode()
        assert "a &lt;small&gt; model: it continues your text" in page
        assert 'value="0.4"' in page
        assert "http" not in page.replace("http-equiv", "")  # no address at all
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")

    def test_streams(self, server, writer):
        answer, text = ask(server), b""
        while b" two" not in text:
            text += answer.read1()
            assert not answer.isclosed()
        assert b"three" not in text
        writer.go_on.set()
        assert (text + answer.read()).decode() == " one two three four five six seven <b>🐭"
        assert (writer.calls[0]["temperature"], writer.calls[0]["top_p"]) == (0.5, 0.8)

    def test_the_conversation_comes_with_the_message(self, server, writer):
        writer.go_on.set()
        ask(server, body={**ASKED, "text": "Before."}).read()
        assert writer.calls[0]["prompt"] == "Before.\nHello"

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ({**ASKED, "message": " "}, "the message is empty"),
            ({**ASKED, "top_p": 2}, "top_p=2 must be"),
            ({**ASKED, "temperature": "hot"}, "a request holds text, message"),
            ([], "a request holds"),
            (b"no json", "Expecting value"),
        ],
    )
    def test_errors_are_sentences(self, server, body, said):
        answer = ask(server, body=body)
        assert answer.status == 400
        assert answer.read().decode().startswith(said)

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
    def test_other_sites_are_refused(self, server, method, headers):
        assert ask(server, method, "/" if method == "GET" else "/reply", **headers).status == 403

    @pytest.mark.parametrize("path", ["/../pyproject.toml", "/reply", "/favicon.ico"])
    def test_there_is_only_the_page(self, server, path):
        assert ask(server, "GET", path).status == 404


def test_a_port_in_use_is_one_sentence(server, monkeypatch, capsys):
    monkeypatch.setattr(chat_page, "load", lambda spec: (small_model(), "small"))
    monkeypatch.setattr(chat_page.ChatServer, "allow_reuse_address", False)
    assert chat_page.main(["--no-browser", "--port", str(server.server_port)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


WATCH_LINE = """() => {
    window.states = [];
    new MutationObserver(() => {
        const line = document.querySelector("#log .model");
        if (line) window.states.push(line.textContent);
    }).observe(document.getElementById("log"), {childList: true, subtree: true, characterData: true});
}"""


@pytest.mark.browser
def test_a_reply_is_streamed_and_nothing_leaves_the_machine(server, writer, visit):
    from playwright.sync_api import expect

    page = visit.page
    page.goto(server.url)
    page.evaluate(WATCH_LINE)
    expect(page.locator("#about")).to_contain_text("a <small> model: it continues your text")
    page.get_by_label("top-p").fill("0.65")
    page.get_by_label("Message").fill("Hello")
    page.get_by_label("Message").press("Enter")
    reply = page.locator("#log .model")
    expect(reply).to_contain_text("two")
    assert "three" not in reply.text_content()
    writer.go_on.set()
    expect(reply).to_have_text("one two three four five six seven <b>🐭")
    states = [state for state in page.evaluate("window.states") if state]
    assert all(later.startswith(earlier) for earlier, later in pairwise(states))
    assert (writer.calls[0]["temperature"], writer.calls[0]["top_p"]) == (0.4, 0.65)

    writer.go_on.clear()
    page.get_by_label("Message").fill("More")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#log .model").last).to_contain_text("one")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    assert writer.calls[1]["prompt"].endswith("<b>🐭\nMore")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#log p")).to_have_count(0)
    assert len([url for url in visit.addresses if url.endswith("/reply")]) == 2
    assert visit.outside() == []


@pytest.mark.browser
def test_make_chat_serves_the_course_model(visit):
    from playwright.sync_api import expect

    command = [sys.executable, "-m", "helpers.apps.chat_page", "--no-browser", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("You write to the course model: it continues your text"), line
            page = visit.page
            page.goto(next(word for word in line.split() if word.startswith("http://127.0.0.1:")))
            page.evaluate(WATCH_LINE)
            page.get_by_label("Message").fill("Once upon a time")
            page.get_by_role("button", name="Send").click()
            expect(page.get_by_role("button", name="Stop")).to_be_enabled()
            expect(page.get_by_role("button", name="Send")).to_be_enabled()
            assert len(page.locator("#log .model").text_content()) > 20
            assert len({state for state in page.evaluate("window.states") if state}) > 3
            assert visit.outside() == []
        finally:
            process.terminate()
