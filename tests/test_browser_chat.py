"""The chat in a real browser: the page as a reader meets it, and the notebook's widget in JupyterLab.

Needs Chromium, as test_browser does. Accessibility is checked by axe-core where COURSE_AXE names its axe.min.js
(`npm pack axe-core`); without it that test is skipped.
"""

import json
import os
import re
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch

from helpers.apps import chat, chat_page
from helpers.apps.chat import Chat
from helpers.tokenizers import get_tokenizer

from .test_browser import new_visit, open_browser, run_all, running_lab  # noqa: F401 (the fixtures)
from .test_chat import small_model

pytestmark = pytest.mark.browser

WORDS = " one two three four five six seven <b>🐭"
LONG = " word\n" * 400  # more lines than any window has
WIDTHS = {"wide": (1280, 800), "700": (700, 800), "200 %": (640, 400), "phone": (375, 667)}


@pytest.fixture(name="writer")
def obedient_writer(monkeypatch):
    """A model that writes `writer.text`: all at once, or as far as `writer.allow(tokens)` says.

    `fails` is an error that it raises at its end; `calls` has what it was given.
    """
    writer = SimpleNamespace(text=WORDS, calls=[], fails=None, allowed=threading.Semaphore(0), patient=False)

    def allow(tokens):
        for _ in range(tokens):
            writer.allowed.release()

    def stream(model, prompts, max_new_tokens, context_size, **options):
        prompt = get_tokenizer().decode(prompts[0].tolist())
        writer.calls.append({"prompt": prompt, "max_new_tokens": max_new_tokens, **options})
        for token in get_tokenizer().encode(writer.text)[:max_new_tokens]:
            if writer.patient:
                writer.allowed.acquire(timeout=60)
            logits = torch.zeros(1, 50257)
            logits[0, token] = 11.0
            yield [token], logits
        if writer.fails:
            raise writer.fails

    monkeypatch.setattr(chat, "stream_with_logits", stream)
    writer.allow = allow
    yield writer
    writer.patient = False
    allow(10_000)


def serve(style="plain", port=0, **settings):
    server = chat_page.ChatServer(
        Chat(small_model(context_length=512), "a <small> model", style), port, **{"length": 200, **settings}
    )
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def close(server):
    server.shutdown()
    server.server_close()


@pytest.fixture(name="server")
def running_server():
    server = serve()
    yield server
    close(server)


class Reader:
    """Somebody at the page: what they type and press, and what they see. `problems` are errors in the console."""

    def __init__(self, page):
        from playwright.sync_api import expect

        self.page, self.expect, self.problems = page, expect, []
        page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.box, self.log = page.get_by_label("Message", exact=True), page.locator("#log")
        self.status, self.note, self.turns = page.locator("#status"), page.locator("#note"), page.locator(".turn")

    def send(self, text, wait=True):
        self.box.fill(text)
        self.box.press("Enter")
        if wait:
            self.wait()

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def wait(self):
        self.expect(self.page.locator("#send")).to_be_visible()

    def wait_for_pieces(self, count):
        self.expect(self.page.locator(".piece").nth(count - 1)).to_be_attached()

    def kept(self):
        return self.page.evaluate("Object.entries(sessionStorage)[0]")


@pytest.fixture(name="reader")
def new_reader(visit, server):
    reader = Reader(visit.page)
    visit.page.goto(server.url)
    yield reader
    assert visit.outside() == []


def newest_is_in_sight(page):
    """Whether the last line of the conversation soon lies inside the log's window, and the log above the form.

    "Soon", since the page follows a change of its layout in the frame after it.
    """
    from playwright.sync_api import TimeoutError as NotSoon

    is_in_sight = """() => {
        const log = document.getElementById("log").getBoundingClientRect();
        const form = document.getElementById("form").getBoundingClientRect();
        const shown = document.getElementById("note").hidden ? ".turn:last-child .piece:last-child" : "#note";
        const last = [...document.querySelectorAll(shown)].pop().getBoundingClientRect();
        const points = [[last.left + 2, last.bottom - 3], [last.left + 2, last.top + 3]];
        const uncovered = points.every(point => document.getElementById("log").contains(
            document.elementFromPoint(...point)));
        const inOrder = [last.bottom, log.bottom, form.bottom, innerHeight];
        return uncovered && log.bottom <= form.top + 1 && inOrder.every((y, n) => n === 0 || inOrder[n - 1] <= y + 1);
    }"""
    try:
        page.wait_for_function(is_in_sight, timeout=5000)
    except NotSoon:
        return False
    return True


class TestConversation:
    def test_a_reply_is_streamed_with_what_was_set(self, reader, writer):
        page = reader.page
        page.evaluate("""() => {
            window.states = [];
            new MutationObserver(() => {
                const line = document.querySelector("#log .model");
                if (line) window.states.push(line.textContent);
            }).observe(document.getElementById("turns"), {childList: true, subtree: true, characterData: true});
        }""")
        reader.expect(page.locator("#about")).to_have_text("You write to a <small> model: it continues your text.")
        writer.patient = True
        page.get_by_label("Top-p").fill("0.65")
        page.get_by_label("Temperature").fill("0.4")
        page.get_by_label("Length").fill("30")
        page.get_by_label("Seed").fill("5")
        reader.send("Hello", wait=False)
        writer.allow(2)
        reply = page.locator("#log .model")
        reader.expect(reply).to_have_text(" one two")
        writer.allow(20)
        reader.expect(reply).to_have_text(WORDS)
        reader.wait()
        states = [state for state in page.evaluate("window.states") if state]
        assert len(set(states)) > 3 and all(later.startswith(earlier) for earlier, later in pairwise(states))
        call = writer.calls[0]
        assert (call["temperature"], call["top_p"], call["max_new_tokens"], call["seed"]) == (0.4, 0.65, 30, 5)
        assert reader.problems == []

    def test_what_a_continuing_model_writes_is_one_text_with_its_own_part_coloured(self, reader, writer):
        writer.text = " one."
        reader.send("Hello")
        reader.send("There")
        you, model = reader.page.locator(".you").first, reader.page.locator(".model").first
        assert reader.turns.first.text_content() == "Hello one."
        colours = [part.evaluate("part => getComputedStyle(part).color") for part in (you, model)]
        backs = [part.evaluate("part => getComputedStyle(part).backgroundColor") for part in (you, model)]
        assert colours[0] != colours[1] and backs[0] != backs[1]  # not by colour alone
        first, second = (you.bounding_box(), model.bounding_box())
        assert first["y"] == pytest.approx(second["y"], abs=3)  # on one line
        assert writer.calls[1]["prompt"] == "Hello one.\nThere"

    def test_an_answering_model(self, visit, writer):
        server = serve("phi3")
        try:
            reader = Reader(visit.page)
            visit.page.goto(server.url)
            reader.expect(visit.page.locator("#about")).to_contain_text("answers each message by itself")
            reader.send("Say it.")
            you, model = visit.page.locator(".you").bounding_box(), visit.page.locator(".model").bounding_box()
            assert model["y"] >= you["y"] + you["height"] and model["x"] < you["x"]
            visit.page.get_by_role("button", name="Regenerate").click()
            reader.wait()
            assert writer.calls[0]["prompt"] == writer.calls[1]["prompt"] == "<|user|>\nSay it.\n\n<|assistant|>\n"
        finally:
            close(server)

    def test_examples(self, reader, writer):
        example = reader.page.locator("#examples button").first
        text = example.text_content()
        example.click()
        reader.expect(reader.page.locator(".you")).to_have_text(text)
        reader.wait()
        assert writer.calls[0]["prompt"] == text
        reader.expect(example).to_be_hidden()

    def test_the_end_of_the_length_is_marked_and_the_reply_goes_on(self, reader, writer):
        reader.page.get_by_label("Length").fill("2")
        reader.send("Hello")
        reader.expect(reader.note).to_contain_text("The reply has reached its length.")
        reader.press("Continue")
        reader.expect(reader.turns).to_have_text(["Hello one two one two"])
        assert writer.calls[1]["prompt"] == "Hello one two"
        reader.wait()
        reader.page.get_by_label("Length").fill("100")
        reader.press("Continue")
        reader.wait()
        reader.expect(reader.note).not_to_contain_text("length")
        reader.expect(reader.page.get_by_role("button", name="Continue")).to_be_hidden()

    def test_stop_and_go_on(self, reader, writer):
        writer.patient = True
        reader.send("Hello", wait=False)
        writer.allow(3)
        reader.expect(reader.turns).to_have_text(["Hello one two three"])
        reader.press("Stop")
        reader.expect(reader.note).to_contain_text("You stopped it.")
        writer.patient = False
        writer.allow(20)
        reader.press("Continue")
        reader.wait()
        assert writer.calls[1]["prompt"] == "Hello one two three"
        assert reader.turns.text_content() == f"Hello one two three{WORDS}"

    def test_regenerate_replaces_the_last_reply(self, reader, writer):
        reader.send("Hello")
        reader.send("More")
        writer.text = " another"
        reader.press("Regenerate")
        reader.expect(reader.turns).to_have_text([f"Hello{WORDS}", "More another"])
        assert writer.calls[2]["prompt"] == writer.calls[1]["prompt"]

    def test_copy(self, reader, writer):
        reader.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        reader.send("Hello")
        reader.send("More")
        reader.press("Copy")
        reader.expect(reader.status).to_have_text("The conversation is copied.")
        assert reader.page.evaluate("navigator.clipboard.readText()") == f"Hello{WORDS}\nMore{WORDS}"

    def test_a_new_conversation(self, reader, writer):
        reader.send("Hello")
        reader.press("New conversation")
        reader.expect(reader.turns).to_have_count(0)
        reader.expect(reader.page.locator("#examples")).to_be_visible()
        reader.send("More")
        assert writer.calls[1]["prompt"] == "More"
        assert "Hello" not in json.loads(reader.kept()[1])["turns"][0]["message"]

    def test_an_empty_reply(self, reader, writer):
        writer.text = ""
        reader.send("Hello")
        reader.expect(reader.note).to_contain_text("The model ended its reply at once.")
        reader.expect(reader.turns).to_have_text(["Hello"])

    def test_enter_on_an_empty_line_is_explained(self, reader, writer):
        reader.box.press("Enter")
        reader.expect(reader.status).to_have_text("Write something first, or choose one of the examples.")
        reader.page.get_by_label("Length").fill("2")
        reader.send("Hello")
        reader.box.press("Enter")
        reader.expect(reader.status).to_have_text("Write something first, or press Continue.")
        assert len(writer.calls) == 1

    def test_a_line_break_and_enter_while_it_writes(self, reader, writer):
        reader.box.fill("One")
        reader.box.press("Shift+Enter")
        reader.box.press_sequentially("two")
        writer.patient = True
        reader.box.press("Enter")
        writer.allow(1)
        reader.expect(reader.page.locator(".you")).to_have_text("One\ntwo")
        reader.box.fill("next")
        reader.box.press("Enter")
        reader.expect(reader.status).to_have_text("The model is still writing. Press Stop first.")
        writer.allow(20)
        reader.wait()
        reader.expect(reader.box).to_have_value("next")
        assert len(writer.calls) == 1


class TestProbabilities:
    def test_on_hover(self, reader, writer):
        reader.page.get_by_label("Temperature").fill("1")
        reader.send("Hello")
        reader.page.locator(".piece", has_text="two").hover()
        card = reader.page.get_by_role("tooltip")
        reader.expect(card).to_be_visible()
        share = round(100 * float(chat.probabilities(torch.tensor([11.0] + [0.0] * 50256), 1.0)[0]))
        reader.expect(card).to_contain_text(f"“ two” had a probability of {share} %. Most probable here:")
        reader.expect(card.locator("li")).to_have_count(3)
        reader.expect(card.locator("li.this")).to_have_text(f"“ two”{share} %")
        reader.page.mouse.move(5, 5)
        reader.expect(card).to_be_hidden()

    def test_by_keyboard(self, reader, writer):
        reader.send("Hello")
        reader.page.locator(".model").focus()
        card = reader.page.get_by_role("tooltip")
        for key, word in [("ArrowRight", "one"), ("ArrowRight", "two"), ("ArrowLeft", "one")]:
            reader.page.keyboard.press(key)
            reader.expect(card).to_contain_text(f"“ {word}” had")
            reader.expect(reader.status).to_contain_text(f"“ {word}”: ")
        reader.page.keyboard.press("Escape")
        reader.expect(card).to_be_hidden()

    def test_a_character_of_several_tokens(self, reader, writer):
        writer.text = "🐭"
        reader.send("Hello")
        reader.page.locator(".piece").hover()
        reader.expect(reader.page.get_by_role("tooltip").locator("p")).to_have_count(len(get_tokenizer().encode("🐭")))

    def test_tokens_per_second(self, reader, writer):
        reader.send("Hello")
        count = len(get_tokenizer().encode(WORDS))
        reader.expect(reader.note).to_have_text(re.compile(rf"^{count} tokens, \d+\.\d per second\."))

    def test_the_settings_are_explained_in_a_sentence(self, reader):
        for name, words in [
            ("Temperature", "takes the most probable token"), ("Top-p", "draws only from the most probable tokens"),
            ("Length", "up to 256"), ("Seed", "the same request gives the same reply"),
        ]:  # fmt: skip
            control = reader.page.get_by_label(name)
            help_text = reader.page.locator(f"#{control.get_attribute('aria-describedby')}")
            reader.expect(help_text).to_be_visible()
            assert words in re.sub(r"\s+", " ", help_text.text_content())
        text = reader.page.locator("body").inner_text()
        assert not re.search(r"\bstyle\b|\bplain\b|alpaca|phi", text, re.I)

    @pytest.mark.parametrize(("name", "wrong"), [("Length", "0"), ("Length", ""), ("Length", "9999"), ("Seed", "1.5")])
    def test_a_wrong_number_is_explained_and_nothing_sent(self, reader, writer, name, wrong):
        reader.page.get_by_label(name).fill(wrong)
        reader.send("Hello")
        reader.expect(reader.status).to_contain_text(f"The {name.lower()} must be a whole number")
        reader.expect(reader.box).to_have_value("Hello")
        assert writer.calls == []


class TestWhatGoesWrong:
    def test_an_error_keeps_the_text(self, reader):
        message = "word " * 600
        reader.send(message)
        reader.expect(reader.status).to_contain_text("This did not work: the message is too long: ")
        reader.expect(reader.box).to_have_value(message)
        reader.expect(reader.turns).to_have_count(0)

    def test_an_error_in_the_middle_keeps_both_texts(self, reader, writer):
        writer.fails = ValueError("the numbers ran out")
        reader.send("Hello")
        reader.expect(reader.status).to_have_text("This did not work: the numbers ran out.")
        reader.expect(reader.turns).to_have_text([f"Hello{WORDS}"])
        reader.expect(reader.note).to_contain_text("The reply was cut off.")
        writer.fails = None
        reader.press("Continue")
        reader.wait()
        assert writer.calls[1]["prompt"] == f"Hello{WORDS}"

    def test_a_failed_regenerate_keeps_the_reply(self, reader, writer):
        reader.send("Hello")
        reader.page.route("**/reply", lambda route: route.fulfill(status=400, body="no room"))
        reader.press("Regenerate")
        reader.expect(reader.status).to_have_text("This did not work: no room.")
        reader.expect(reader.turns).to_have_text([f"Hello{WORDS}"])

    def test_a_server_that_is_gone_is_named_and_one_that_is_back_is_used(self, visit, writer):
        server = serve()
        reader = Reader(visit.page)
        visit.page.goto(server.url)
        reader.send("Hello")
        close(server)
        reader.send("More")
        reader.expect(reader.status).to_contain_text("The chat's server does not answer")
        reader.expect(reader.status).to_contain_text("make chat")
        reader.expect(reader.box).to_have_value("More")
        reader.expect(reader.turns).to_have_text([f"Hello{WORDS}"])
        server = serve(port=server.server_port)
        try:
            reader.box.press("Enter")
            reader.expect(reader.turns).to_have_count(2)
            reader.wait()
            assert writer.calls[-1]["prompt"] == f"Hello{WORDS}\nMore"
        finally:
            close(server)

    def test_a_server_that_dies_in_the_middle(self, visit):
        script = """
import os, sys
import torch
from helpers.apps import chat, chat_page
from helpers.tokenizers import get_tokenizer
from tests.test_chat import small_model

def stream(*arguments, **options):
    for token in get_tokenizer().encode(" one two"):
        yield [token], torch.zeros(1, 50257)
    sys.stdin.readline()
    os._exit(1)

chat.stream_with_logits = stream
chat.load = lambda spec: (small_model(), "a model")
chat_page.main(["--no-browser", "--port", "0"])
"""
        command = [sys.executable, "-c", script]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=Path(__file__).parents[1], **pipes) as process:
            url = next(word for word in process.stdout.readline().split() if word.startswith("http"))
            reader = Reader(visit.page)
            visit.page.goto(url)
            reader.send("Hello", wait=False)
            reader.expect(reader.turns).to_have_text(["Hello one two"])
            process.communicate("die\n")
        reader.expect(reader.status).to_contain_text("The chat's server stopped in the middle of the reply.")
        reader.expect(reader.turns).to_have_text(["Hello one two"])
        reader.expect(reader.page.get_by_role("button", name="Continue")).to_be_visible()

    def test_busy_is_shown_in_a_second_tab(self, reader, writer, server):
        writer.patient = True
        reader.send("Hello", wait=False)
        writer.allow(2)
        reader.expect(reader.turns).to_have_text(["Hello one two"])
        other = Reader(reader.page.context.new_page())
        other.page.goto(server.url)
        other.send("Second", wait=False)
        other.expect(other.status).to_contain_text("The model is busy with another reply, perhaps in another tab.")
        assert len(writer.calls) == 1
        writer.patient = False
        writer.allow(30)
        other.expect(other.turns).to_have_text([f"Second{WORDS}"])
        reader.expect(reader.turns).to_have_text([f"Hello{WORDS}"])


class TestReload:
    def test_conversation_settings_and_draft_survive(self, reader, writer):
        reader.page.get_by_label("Temperature").fill("1.2")
        reader.page.get_by_label("Length").fill("2")
        reader.send("Hello")
        reader.box.fill("half a sen")
        reader.page.reload()
        reader.expect(reader.turns).to_have_text(["Hello one two"])
        reader.expect(reader.box).to_have_value("half a sen")
        reader.expect(reader.page.get_by_label("Temperature")).to_have_value("1.2")
        reader.expect(reader.page.locator("output[for=temperature]")).to_have_text("1.20")
        reader.press("Continue")
        reader.expect(reader.turns).to_have_text(["Hello one two one two"])
        reader.page.locator(".piece").first.hover()
        reader.expect(reader.page.get_by_role("tooltip")).to_contain_text("“ one” had")

    def test_in_the_middle_of_a_reply(self, reader, writer):
        writer.patient = True
        reader.send("Hello", wait=False)
        writer.allow(2)
        reader.expect(reader.turns).to_have_text(["Hello one two"])
        reader.page.reload()
        reader.expect(reader.turns).to_have_text(["Hello one two"])
        reader.expect(reader.note).to_contain_text("The reply was cut off.")
        writer.patient = False
        writer.allow(20)
        reader.press("Continue")
        reader.wait()
        assert writer.calls[1]["prompt"] == "Hello one two"

    def test_nothing_is_kept_elsewhere(self, reader, writer, server):
        """Only in the browser's memory of this tab: no cookie, nothing on the server, nothing in another tab."""
        reader.send("Hello")
        assert "Hello" in reader.kept()[1]
        assert reader.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        assert reader.page.context.cookies() == []
        assert server.chat.text == ""
        other = Reader(reader.page.context.new_page())
        other.page.goto(server.url)
        other.expect(other.turns).to_have_count(0)


class TestScrolling:
    @pytest.mark.parametrize("size", WIDTHS)
    def test_the_newest_line_is_in_sight_while_it_is_written(self, reader, writer, size):
        width, height = WIDTHS[size]
        reader.page.set_viewport_size({"width": width, "height": height})
        reader.page.get_by_label("Length").evaluate("field => { field.value = 256; }")
        writer.text, writer.patient = LONG, True
        reader.send("Hello", wait=False)
        for written in (3, 100, 100):
            before = reader.page.locator(".piece").count()
            writer.allow(written)
            reader.wait_for_pieces(before + written)
            assert newest_is_in_sight(reader.page)
        writer.patient = False
        writer.allow(500)
        reader.wait()
        assert newest_is_in_sight(reader.page)
        if size != "wide":
            reader.page.get_by_text("Settings").click()
            assert newest_is_in_sight(reader.page)
        assert reader.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert reader.page.evaluate("document.documentElement.scrollHeight <= innerHeight")

    def test_scrolling_back_while_it_streams_does_not_jump(self, reader, writer):
        writer.text, writer.patient = LONG, True
        reader.page.set_viewport_size({"width": 500, "height": 500})
        reader.send("Hello", wait=False)
        writer.allow(150)
        reader.wait_for_pieces(150)
        reader.log.evaluate("log => { log.scrollTop = 40; }")
        place = reader.page.locator(".piece").nth(20).bounding_box()
        reader.expect(reader.page.locator("#newest")).to_be_visible()
        writer.patient = False
        writer.allow(500)
        reader.wait()
        assert reader.log.evaluate("log => log.scrollTop") == 40
        assert reader.page.locator(".piece").nth(20).bounding_box() == place
        reader.page.locator("#newest").click()
        assert newest_is_in_sight(reader.page)
        reader.expect(reader.page.locator("#newest")).to_be_hidden()

    def test_following_goes_on_where_it_was_left(self, reader, writer):
        """A reader who comes back to the end by themselves follows again."""
        writer.text, writer.patient = LONG, True
        reader.page.set_viewport_size({"width": 500, "height": 500})
        reader.send("Hello", wait=False)
        writer.allow(100)
        reader.wait_for_pieces(100)
        reader.log.evaluate("log => { log.scrollTop = 0; }")
        reader.expect(reader.page.locator("#newest")).to_be_visible()
        reader.log.evaluate("log => { log.scrollTop = log.scrollHeight; }")
        writer.patient = False
        writer.allow(500)
        reader.wait()
        assert newest_is_in_sight(reader.page)


class TestLooks:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize(("size", "style"), [*zip(WIDTHS, ["plain", "phi3"] * 2, strict=True)])
    def test_accessibility(self, visit, writer, scheme, size, style):
        path = Path(os.environ.get("COURSE_AXE", "no"))
        if not path.is_file():
            pytest.skip("COURSE_AXE names no axe.min.js (npm pack axe-core)")
        width, height = WIDTHS[size]
        server = serve(style, length=2)
        try:
            page = visit.page
            page.set_viewport_size({"width": width, "height": height})
            page.emulate_media(color_scheme=scheme)
            reader = Reader(page)
            page.goto(server.url)
            page.evaluate(path.read_text(encoding="utf-8"))
            found = page.evaluate("axe.run()")["violations"]
            reader.send("Hello")
            page.locator(".piece").first.hover()
            if size != "wide":
                page.get_by_text("Settings").click()
            found += page.evaluate("axe.run()")["violations"]
            assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
        finally:
            close(server)


def test_make_chat_serves_the_course_model(visit):
    command = [sys.executable, "-m", "helpers.apps.chat_page", "--no-browser", "--port", "0", "--length", "30"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("You write to the course model: it continues your text."), line
            reader = Reader(visit.page)
            visit.page.goto(next(word for word in line.split() if word.startswith("http://127.0.0.1:")))
            reader.send("Once upon a time")
            assert len(visit.page.locator(".model").text_content()) > 20
            assert visit.page.locator(".piece").count() > 20
            reader.expect(reader.note).to_contain_text("30 tokens, ")
            assert reader.problems == [] and visit.outside() == []
        finally:
            process.terminate()


def test_the_widget_in_jupyterlab(lab, visit):
    """Enter sends, Stop is heard while the reply grows, the newest line is in sight, and a new conversation begins."""
    from playwright.sync_api import expect

    code = """
import torch
from helpers import GPTModel, gpt_config
from helpers.apps import chat

torch.manual_seed(1)  # a model of the course model's size; untrained, it hardly ever ends by itself
chat.widget(GPTModel(gpt_config(context_length=512, emb_dim=256, n_heads=4, n_layers=6)).eval())
"""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code.strip())], metadata=kernel)
    nbformat.write(notebook, lab.course / "notebooks" / "talk.ipynb")
    page = visit.page
    panel = run_all(lab, page, "talk.ipynb")
    line = panel.get_by_label("your text")
    expect(line).to_be_visible()
    expect(panel.get_by_text("You write to your model: it continues your text. Enter sends.")).to_be_visible()
    note, stop = panel.locator("i"), panel.get_by_role("button", name="Stop")
    said = panel.locator(".widget-html-content div")

    line.click()
    page.keyboard.type("Once upon a time there was a mouse who", delay=5)
    page.keyboard.press("Enter")
    expect(note).to_have_text("The model is writing.")
    expect(said).to_contain_text("Once upon a time there was a mouse who")  # the whole line, to its last letter
    stop.click()
    expect(note).to_have_text("Stopped.")
    stopped = said.text_content()
    expect(line).to_have_value("")

    for _ in range(2):
        panel.get_by_role("button", name="Continue").click()
        expect(note).to_have_text("The model is writing.")
        expect(note).to_have_text(re.compile(r"^120 tokens, .*; the reply has reached its length\.$"))
    assert said.text_content().startswith(stopped) and len(said.text_content()) > len(stopped) + 500
    hidden = said.evaluate("""text => {
        let window = text;
        while (getComputedStyle(window).flexDirection !== "column-reverse") window = window.parentElement;
        return text.getBoundingClientRect().bottom - window.getBoundingClientRect().bottom;
    }""")
    assert hidden <= 12  # below the window's edge there is nothing but a margin

    panel.get_by_role("button", name="New conversation").click()
    expect(said).to_have_count(0)
    assert visit.outside() == [] and lab.outside() == []
