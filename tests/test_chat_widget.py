"""The chat's widget: Enter and buttons, a reply that can be stopped, and what stays after an error."""

import asyncio
from types import SimpleNamespace

import ipywidgets
import pytest

from helpers.apps import chat, chat_widget

from .test_chat import scripted, small_model


@pytest.fixture(name="model", scope="module")
def one_model():
    return small_model()


def show(monkeypatch, *arguments):
    """What `chat.widget` displays: the bundle, and the widgets in it by name."""
    bundles = []
    monkeypatch.setattr("helpers.course.widgets.display", lambda bundle, **options: bundles.append((bundle, options)))
    chat.widget(*arguments)
    ((bundle, options),) = bundles
    assert options == {"raw": True}
    view = ipywidgets.widgets.widget._instances[bundle["application/vnd.jupyter.widget-view+json"]["model_id"]]
    about, window, note, line, buttons, heat, nucleus, _foot = view.children
    send, stop, go_on, new = buttons.children
    assert [button.description for button in buttons.children] == ["Send", "Stop", "Continue", "New conversation"]
    return bundle, SimpleNamespace(
        about=about, window=window, page=window.children[0], note=note, line=line, heat=heat, nucleus=nucleus,
        send=send, stop=stop, go_on=go_on, new=new,
    )  # fmt: skip


@pytest.fixture(name="parts")
def shown_parts(model, monkeypatch):
    monkeypatch.setattr(chat_widget, "ENTER_DELAY", 0)
    return show(monkeypatch, model)[1]


def enter(parts, text):
    """Types a line and presses Enter, in the order in which the browser tells the kernel."""
    parts.line._handle_custom_msg({"event": "submit"}, [])
    parts.line.value = text


def run(*steps):
    """Runs each step in an event loop, as the kernel does, until all that it began is done."""

    async def run_all():
        for step in steps:
            step()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    asyncio.run(run_all())


def test_the_alternative(model, monkeypatch):
    bundle, parts = show(monkeypatch, model)
    assert bundle["text/plain"].startswith("Interactive chat. You write to your model: it continues your text. Temp")
    assert parts.window.layout.flex_flow == "column-reverse"  # what keeps the newest line in sight


def test_enter_sends_what_was_typed(parts, monkeypatch):
    calls = scripted(monkeypatch, " <b> mouse")
    parts.heat.value, parts.nucleus.value = 0.4, 0.6
    run(lambda: enter(parts, "A"))
    assert (calls[0]["prompt"], calls[0]["temperature"], calls[0]["top_p"]) == ("A", 0.4, 0.6)
    assert "&lt;b&gt; mouse" in parts.page.value
    assert parts.line.value == ""
    assert "tokens, " in parts.note.value


def test_leaving_the_line_does_not_send(parts, monkeypatch):
    calls = scripted(monkeypatch, " one")
    run(lambda: setattr(parts.line, "value", "A"))
    assert calls == [] and not parts.line.continuous_update


def test_it_streams_and_one_reply_is_written_at_a_time(parts, monkeypatch):
    calls, seen = scripted(monkeypatch, " one two three"), []

    def look(change):
        seen.append((change["new"], parts.send.disabled, parts.stop.disabled))
        parts.send.click()

    parts.page.observe(look, names="value")
    parts.line.value = "A"
    run(parts.send.click)
    assert len(calls) == 1 and len(seen) >= 3
    assert all((send, stop) == (True, False) for _, send, stop in seen)
    assert (parts.send.disabled, parts.stop.disabled) == (False, True)


def test_stop_and_continue(parts, monkeypatch):
    calls = scripted(monkeypatch, " one two three")
    parts.page.observe(lambda change: " two" in change["new"] and parts.stop.click(), names="value")
    assert parts.go_on.disabled
    run(lambda: enter(parts, "A"))
    assert "Stopped." in parts.note.value
    assert " two" in parts.page.value and "three" not in parts.page.value
    parts.page.unobserve_all()
    run(parts.go_on.click)
    assert calls[1]["prompt"] == "A one two"
    assert parts.page.value.count("<div") == 1  # the same turn
    assert " one two one two three" in parts.page.value


def test_a_new_conversation(parts, monkeypatch):
    calls = scripted(monkeypatch, " one")
    run(lambda: enter(parts, "A"), parts.new.click, lambda: enter(parts, "B"))
    assert calls[1]["prompt"] == "B"
    assert ">A<" not in parts.page.value


def test_an_error_is_a_sentence_and_the_line_stays(parts):
    run(lambda: enter(parts, "word " * 80))
    assert "This did not work: the message is too long: " in parts.note.value
    assert parts.line.value == "word " * 80
    assert not parts.send.disabled


def test_an_error_of_a_changed_model_is_shown(parts, monkeypatch):
    def stream(*_, **options):
        raise RuntimeError("shapes do not fit")
        yield

    monkeypatch.setattr(chat, "stream_with_logits", stream)
    run(lambda: enter(parts, "A"))
    assert "This did not work: RuntimeError: shapes do not fit" in parts.note.value
    assert (parts.line.value, parts.send.disabled) == ("A", False)


def test_an_empty_line_is_explained(parts, monkeypatch):
    calls = scripted(monkeypatch, " one")
    run(parts.send.click)
    assert "Write something first." in parts.note.value
    run(lambda: enter(parts, "A"), lambda: enter(parts, " "))
    assert "or press Continue" in parts.note.value
    assert len(calls) == 1


def test_an_answering_model(monkeypatch):
    scripted(monkeypatch, "Fine.")
    parts = show(monkeypatch, small_model(context_length=128), "phi3")[1]
    parts.line.value = "Say it."
    run(parts.send.click)
    assert "answers each message by itself" in parts.about.value
    assert "Say it.</span><br>" in parts.page.value


def test_a_spec():
    with pytest.raises(FileNotFoundError):
        chat.widget("nothing")
