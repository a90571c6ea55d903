"""Judges: scores by hand, Ollama's protocol from a stub, OpenAI's from a stub and from a real server."""

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.version import Version

from helpers import generate, get_tokenizer, judges, load_course_model, model_client, query_model, save_gpt2
from helpers.judges import exact_match, generate_model_scores, rouge_l, token_f1
from helpers.model_client import CutOff
from tests.fakes import StubServer


class TestOfflineScores:
    @pytest.mark.parametrize(
        ("answer", "reference", "exact", "f1", "rouge"),
        [
            ("The sky is blue.", "the sky is blue", 1, 1, 1),
            ("The sky is blue.", "The sky was blue.", 0, 3 / 4, 3 / 4),  # 3 of 4 and 3 of 4
            ("blue", "The sky is blue.", 0, 2 / 5, 2 / 5),  # precision 1, recall 1/4: 2 * 1/4 / (5/4)
            ("blue is the sky", "the sky is blue", 0, 1, 1 / 2),  # in order: "the sky" only, 2 of 4 and 2 of 4
            ("a a a b", "a b b", 0, 4 / 7, 4 / 7),  # a once, b once: precision 2/4, recall 2/3
            ("a a b", "a a c", 0, 2 / 3, 2 / 3),  # a twice: 2 of 3 and 2 of 3
            ("cats", "dogs", 0, 0, 0),
            ("", "dogs", 0, 0, 0),
            ("dogs", "", 0, 0, 0),
            ("", "", 1, 1, 1),
            ("35", "3.5", 0, 0, 0),
            ("2", "-2", 0, 0, 0),
            ("5 %", "5%", 1, 1, 1),
            ("l’été à Göteborg", "L’été, à Göteborg!", 1, 1, 1),
            ("naïve", "naive", 0, 0, 0),
            ("It's", "its", 0, 0, 0),
            ("?", "!", 0, 0, 0),  # punctuation alone is all there is to compare
            ("?", "?", 1, 1, 1),
            ("−2", "-2", 1, 1, 1),
            ("It’s", "It's", 1, 1, 1),
            ("cafe\u0301", "caf\u00e9", 1, 1, 1),  # one letter, written in two ways
            ("का", "कि", 0, 0, 0),  # the words differ in a vowel sign
            ("தா", "தி", 0, 0, 0),
            ("ไปู", "ไป", 0, 1 / 2, 1 / 2),
            ("מָה", "מֶה", 0, 0, 0),
            ("今天天氣很好", "天氣很好", 0, 4 / 5, 4 / 5),  # 4 of 6 and 4 of 4
            ("-sin x", "sin x", 0, 1 / 2, 1 / 2),  # what mathematics writes counts
            ("f(x) = −x", "f(x) = x", 0, 3 / 4, 3 / 4),
            ("-2x", "2x", 0, 0, 0),
            ("-$5", "$5", 0, 4 / 5, 4 / 5),
            ("x = -∞", "x = ∞", 0, 6 / 7, 6 / 7),
            ("x ≤ 5", "x ≥ 5", 0, 2 / 3, 2 / 3),
            ("3 × 4", "3 ÷ 4", 0, 2 / 3, 2 / 3),
            ("p ∧ q", "p ∨ q", 0, 2 / 3, 2 / 3),
            ("a != b", "a = b", 0, 2 / 3, 2 / 3),
            ("a != b", "a ≠ b", 1, 1, 1),
            ("C#", "C", 0, 2 / 3, 2 / 3),
            ("₹100", "100", 0, 2 / 3, 2 / 3),
            (".5", "5", 0, 0, 0),
            ("-.5", "-0.5", 1, 1, 1),
            ("- well-known\n- 'new'", "well known, “new”", 1, 1, 1),  # and this is punctuation
            ("-Apples\n-Pears", "apples – pears", 1, 1, 1),
            ("the suffix -ed | #1 ~ & @you…", "The suffix 'ed': 1 you", 1, 1, 1),
            ("“I,” he said. -Yes.", "I he said... yes!", 1, 1, 1),
        ],
    )
    def test_by_hand(self, answer, reference, exact, f1, rouge):
        scores = exact_match(answer, reference), token_f1(answer, reference), rouge_l(answer, reference)
        assert scores == pytest.approx((exact, f1, rouge))
        assert all(type(score) is float for score in scores)

    def test_rouge_is_the_library_of_its_authors(self):
        """On plain words, where the library's own way of splitting gives the same words."""
        from rouge_score.rouge_scorer import RougeScorer

        theirs = RougeScorer(["rougeL"]).score("the quick brown fox jumps over", "a quick fox over the brown log")
        ours = rouge_l("a quick fox over the brown log", "The quick, brown fox jumps over.")
        assert ours == theirs["rougeL"].fmeasure == pytest.approx(2 * 3 / (7 + 6))


class TestScoreInAnAnswer:
    @pytest.mark.parametrize(
        ("answer", "score"),
        [
            ("85", 85),
            (" 0\n", 0),
            ("100.", 100),
            ("**85**", 85),
            ("85.0", 85),
            ("85/100", 85),
            ("Score: 85", 85),
            ("**Score:** 85/100", 85),
            ("The score is 85. It lacks a word, so the score of 85 is fair.", 85),
            ("I would give it 85 out of 100.", 85),
            ("<think>A score of 3?</think>\n90", 90),
            ("", None),
            ("Once upon a time", None),
            ("There are 3 mistakes.", None),
            ("101", None),
            ("Score: 1000", None),
            ("-5", None),
            ("Score: -5", None),
            ("8.5", None),
            ("Score: 8.5", None),
            ("7/10", None),
            ("Score: 7/10", None),
            ("Between a score of 40 and a score of 50", None),
            ("1,000", None),
            ("Score (0-100): 85", 85),
            ("Score [0 to 100]: 85", 85),
            ("85/100. To get a full score of 100, it would have to name the author.", 85),
            ("I would grade this 85/100; a perfect score of 100 needs more detail.", 85),
            ("The maximum possible score is 100. Score: 40", 40),
            ("Grade: 85-90", None),
            ("Grade: 85 – 90", None),
            ("A score of 85 to 90", None),
            ("<think>A score of 85 seems", None),  # cut off while it was still thinking
            ("<think>Score: 3</think> Hm. <think>Score: 4", None),
            ("<thinking>A score of 30?</thinking>\n90", 90),
            ("[THINK]A score of 30?[/THINK]90", 90),
            ("<Think>Score: 30</Think>90", 90),
            ("<reasoning>Score: 30</reasoning> Score: 90", 90),
            ("<thinking>A score of 30", None),
            ("[THINK]Score: 30", None),
            ("Score: 8 out of 10", None),  # another scale
            ("Rating: 4 of 5", None),
            ("Rating: 4 out of 5 stars", None),
            ("**Score:** 8 (out of 10)", None),
            ("A score of 4 stars", None),
            ("On a scale of 1 to 10, score: 8", None),
            ("Score: 85 of 100", 85),
            ("Score: 85 (out of 100)", 85),
            ("Score: 85 out of a possible 100", 85),
            ("On a scale of 0 to 100, score: 8", 8),
            ("I cannot give it a score of 100. I would give it 80.", None),
            ("I can't give it 100/100. Score: 80", 80),
            ("It does not name the author, so I give it a score of 70.", 70),
            ("A score of 0 would be too harsh. I would give it 40.", None),
            ("A score of 0 would be too harsh. Score: 40", 40),
            ("A score of 85 would be fair.", 85),
            ("A score of 85 reflects this.", 85),
            ("It is worth more than a score of 50.", None),
            ("Score: 3 mistakes", None),
            ("Score: 85 points", 85),
            ("Score: 85\nStrengths: it is right", 85),
            ("Score: 85\nreads well", 85),
            ("Score: 85\nOf all words, 3 are wrong", 85),
            ("Score: 85 as it is right", 85),
            ("This text suits grade 5 readers.", None),
            ("Score: −5", None),
            ("Score: 1 000", None),
            ("1 000", None),
            ("85\n\nThe answer is right.", 85),
            ("It has 3 mistakes.\n\n**85/100**\n", 85),
            ("85\nIt is right.\n90", None),
            ("3 mistakes\nand more", None),
            ("So it gets $\\boxed{85}$.", 85),
            ("\\boxed{85/100}", 85),
            ("\\boxed{8/10}", None),
            ("Score: …", None),  # cut off
        ],
    )
    def test_one_score_or_none(self, answer, score):
        assert judges._score_in(answer) == score

    @pytest.mark.parametrize(
        "text", ["9", "not ", "score: 9 of ", "100/", "<think>", "-", "[0 ", "scale of 1", "1 000 "]
    )
    def test_a_long_answer(self, text):
        begin = time.perf_counter()
        judges._score_in(text * 30_000)
        judges._score_in("not a score " + text * 30_000)
        assert time.perf_counter() - begin < 20


class Judge(StubServer):
    """Answers each request with the next of its replies, the last one over and over."""

    def __init__(self, path, *replies):
        remaining = list(replies)

        def answer(handler):
            reply = remaining.pop(0) if len(remaining) > 1 else remaining[0]
            status, kind, pieces = reply() if callable(reply) else reply
            handler.send_response(status)
            handler.send_header("Content-Type", kind)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for piece in pieces:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.write(b"0\r\n\r\n")

        super().__init__(answer)
        self.url += path

    @property
    def requests(self):
        return [json.loads(body) for _, _, body in self.received]

    @property
    def headers(self):
        return [headers for _, headers, _ in self.received]


@pytest.fixture(name="serve")
def stubs(monkeypatch):
    monkeypatch.setattr(model_client, "_RETRY_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    started = []

    def start(path, *replies):
        started.append(Judge(path, *replies))
        return started[-1]

    yield start
    for stub in started:
        stub.close()


def json_line(content):
    return json.dumps(content).encode() + b"\n"


def ollama_part(content, done, reason="stop"):
    """A line as Ollama 0.5 sends it; the last one has the counts."""
    part = {"model": "llama3", "created_at": "2025-01-15T09:30:12.104Z"}
    part |= {"message": {"role": "assistant", "content": content}, "done": done}
    if done:
        part |= {"done_reason": reason, "total_duration": 4883583458, "prompt_eval_count": 26, "eval_count": 3}
    return json_line(part)


def ollama(*texts):
    """A streamed answer."""
    return 200, "application/x-ndjson", [ollama_part(text, False) for text in texts] + [ollama_part("", True)]


def ollama_whole(text, reason="stop"):
    return 200, "application/json; charset=utf-8", [ollama_part(text, True, reason)]


def failure(status, message):
    return status, "application/json; charset=utf-8", [json_line({"error": message})]


def event(choice):
    content = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}
    return b"data: " + json_line(content) + b"\n"


def openai(*texts):
    events = [event({"delta": {"role": "assistant"}, "finish_reason": None}), b": still here\n\n"]
    events += [event({"delta": {"content": text}, "finish_reason": None}) for text in texts]
    return 200, "text/event-stream", [*events, event({"delta": {}, "finish_reason": "stop"}), b"data: [DONE]\n\n"]


def slow(seconds):
    def reply():
        time.sleep(seconds)
        return ollama("late")

    return reply


CHAT = "/api/chat"
COMPLETIONS = "/v1/chat/completions"


class TestOllama:
    @pytest.mark.parametrize("reply", [ollama("Hel", "lo ", "wörld"), ollama_whole("Hello wörld")])
    def test_an_answer(self, serve, reply):
        server = serve(CHAT, reply)
        assert query_model("Say hello.", "llama3", server.url) == "Hello wörld"
        (request,) = server.requests
        assert request == {
            "model": "llama3",
            "messages": [{"role": "user", "content": "Say hello."}],
            "options": {"seed": 123, "temperature": 0.0, "num_ctx": 4096},
            "stream": True,
        }

    def test_options(self, serve):
        server = serve(CHAT, ollama("x"))
        query_model("p", "m", server.url, seed=7, temperature=0.5, num_ctx=512, max_tokens=9, api_key="secret")
        assert server.requests[0]["options"] == {"seed": 7, "temperature": 0.5, "num_ctx": 512, "num_predict": 9}
        assert server.headers[0]["Authorization"] == "Bearer secret"

    def test_no_proxy_for_this_machine(self, serve, monkeypatch):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        server = serve(CHAT, ollama("x"))
        assert query_model("p", "m", server.url) == "x"
        assert query_model("p", "m", server.url.replace("127.0.0.1", "localhost")) == "x"

    def test_not_running(self, serve):
        server = serve(CHAT, ollama("x"))
        server.close()
        with pytest.raises(ConnectionError, match=r"^No server is running at .*; start it \(`ollama serve`\)\.$"):
            query_model("p", "llama3", server.url)

    @pytest.mark.parametrize("words", ["model 'llama3' not found", 'model "llama3" not found, try pulling it first'])
    def test_model_not_pulled(self, serve, words):
        server = serve(CHAT, failure(404, words))
        with pytest.raises(LookupError, match=r"does not have the model 'llama3' .*`ollama pull llama3`\.$"):
            query_model("p", "llama3", server.url)
        assert len(server.requests) == 1

    def test_a_wrong_address(self, serve):
        server = serve("/wrong/api/chat", (404, "text/plain", [b"404 page not found"]))
        with pytest.raises(ValueError, match="knows no such address"):
            query_model("p", "llama3", server.url)
        for url in ("http://localhost:11434", "localhost:11434/api/chat", "file:///api/chat"):
            with pytest.raises(ValueError, match="must be http"):
                query_model("p", "llama3", url)

    def test_a_refused_request(self, serve):
        server = serve(CHAT, failure(400, '"llama3" does not support chat'))
        with pytest.raises(ValueError, match=r"refuses the request \(400: .*does not support chat"):
            query_model("p", "llama3", server.url)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), None])
    def test_a_timeout_of_nothing(self, serve, timeout):
        server = serve(CHAT, ollama("x"))
        with pytest.raises(ValueError, match=f"^timeout={timeout} must be a number of seconds above 0$"):
            query_model("p", "llama3", server.url, timeout=timeout)
        assert server.requests == []

    def test_no_error(self, serve):
        part = json.loads(ollama_part("Hello", True)) | {"error": None}
        assert query_model("p", "llama3", serve(CHAT, (200, "application/json", [json_line(part)])).url) == "Hello"

    def test_an_answer_that_is_cut_off(self, serve):
        assert isinstance(query_model("p", "m", serve(CHAT, ollama_whole("Score: 8", "length")).url), CutOff)
        assert not isinstance(query_model("p", "m", serve(CHAT, ollama_whole("Score: 85")).url), CutOff)
        pieces = [event({"delta": {"content": "8"}, "finish_reason": reason}) for reason in (None, "length")]
        answer = query_model("p", "m", serve(COMPLETIONS, (200, "text/event-stream", pieces)).url)
        assert answer == "88" and isinstance(answer, CutOff)

    def test_silence(self, serve):
        server = serve(CHAT, slow(1.0))
        with pytest.raises(TimeoutError, match=r"silent for 0\.1 seconds; .*larger timeout"):
            query_model("p", "llama3", server.url, timeout=0.1)
        assert len(server.requests) == 3

    def test_silence_in_the_middle(self, serve):
        def pieces():
            yield ollama_part("a", False)
            time.sleep(1.0)

        server = serve(CHAT, lambda: (200, "application/x-ndjson", pieces()))
        with pytest.raises(TimeoutError):
            query_model("p", "llama3", server.url, timeout=0.1)

    def test_a_slow_answer_that_keeps_coming(self, serve):
        def pieces():
            for letter in "abcdef":
                time.sleep(0.3)
                yield ollama_part(letter, letter == "f")

        server = serve(CHAT, lambda: (200, "application/x-ndjson", pieces()))
        assert query_model("p", "llama3", server.url, timeout=1.5) == "abcdef"  # 1.8 s in all

    @pytest.mark.parametrize(
        "bad",
        [
            failure(500, "llama runner process has terminated"),
            failure(503, "server busy, please try again"),
            (200, "application/x-ndjson", [ollama_part("bro", False)]),  # it ends without "done"
            (200, "application/x-ndjson", [ollama_part("bro", False), json_line({"error": "out of memory"})]),
            (200, "application/x-ndjson", [b'{"message": {"cont\n']),
            (200, "application/json", [b'"text"']),
            (200, "application/json", [b'{"choices": [3]}']),
        ],
    )
    def test_wrong_then_right(self, serve, bad):
        server = serve(CHAT, bad, ollama("right"))
        assert query_model("p", "llama3", server.url) == "right"
        assert len(server.requests) == 2

    @pytest.mark.parametrize("silent", [False, True])
    def test_a_failure_that_breaks_off(self, serve, silent):
        def broken():
            yield b"out of "
            if silent:
                time.sleep(1.0)
            raise BrokenPipeError  # the stub closes the connection

        bad = lambda: (500, "text/plain", broken())  # noqa: E731
        server = serve(CHAT, bad, ollama("right"))
        assert query_model("p", "llama3", server.url, timeout=0.3) == "right"
        with pytest.raises(ConnectionError, match=r"fails \(500: no reason given\); look into"):
            query_model("p", "llama3", serve(CHAT, bad).url, timeout=0.3)

    def test_an_error_in_the_middle(self, serve):
        server = serve(
            CHAT, (200, "application/x-ndjson", [ollama_part("a", False), json_line({"error": "no memory"})])
        )
        with pytest.raises(ConnectionError, match=r"broke off its answer \(no memory\); look into its log"):
            query_model("p", "llama3", server.url)

    def test_wrong_for_ever(self, serve, monkeypatch):
        pauses = []
        monkeypatch.setattr(model_client, "_RETRY_PAUSES", (0.0, 2.0, 5.0))
        monkeypatch.setattr(model_client.time, "sleep", pauses.append)
        server = serve(CHAT, failure(500, "llama runner process has terminated"))
        with pytest.raises(ConnectionError, match=r"fails \(500: llama runner process has terminated\); look into"):
            query_model("p", "llama3", server.url)
        assert pauses == [0.0, 2.0, 5.0]


class TestOpenAI:
    WHOLE = (
        200,
        "application/json",
        [json_line({"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]})],
    )

    UNFINISHED = (200, "text/event-stream", [event({"delta": {"content": "Hello"}}), b"data: [DONE]\n\n"])

    @pytest.mark.parametrize("reply", [openai("Hel", "lo"), WHOLE, UNFINISHED])
    def test_an_answer(self, serve, reply):
        server = serve(COMPLETIONS, reply)
        assert query_model("Say hello.", "m", server.url, seed=5, max_tokens=4) == "Hello"
        (request,) = server.requests
        assert request == {
            "model": "m",
            "messages": [{"role": "user", "content": "Say hello."}],
            "seed": 5,
            "temperature": 0.0,
            "max_tokens": 4,
            "stream": True,
        }

    @pytest.mark.parametrize(
        ("status", "content"),
        [
            (404, {"error": {"message": "The model `m7` does not exist.", "type": "NotFoundError", "code": 404}}),
            (404, {"object": "error", "message": "The model `m7` does not exist.", "code": 404}),
            (400, {"detail": "Server is pinned to 'other'; requested 'm7'."}),
        ],
    )
    def test_missing_model(self, serve, status, content):
        server = serve(COMPLETIONS, (status, "application/json", [json_line(content)]))
        with pytest.raises(LookupError, match=r"does not have the model 'm7' .*; start it with this model"):
            query_model("p", "m7", server.url)

    def test_not_running(self, serve):
        server = serve(COMPLETIONS, openai("x"))
        server.close()
        with pytest.raises(ConnectionError, match=r"start it \(for instance `transformers serve FOLDER`\)"):
            query_model("p", "m", server.url)

    def test_cut_off(self, serve):
        cut = (200, "text/event-stream", openai("Hel", "lo")[2][:3])
        assert query_model("p", "m", serve(COMPLETIONS, cut, openai("right")).url) == "right"


def entry(response, **changes):
    return {"instruction": "Name a colour.", "input": "", "output": "Red.", "model_response": response, **changes}


ENTRIES = [entry("Red."), entry("Blue."), entry("A dog."), entry("Seven.")]


class TestGenerateModelScores:
    def test_scores(self, serve, capsys):
        server = serve(CHAT, *map(ollama, ["80", "Score: 75", "5", "0"]))
        scores = generate_model_scores(ENTRIES, "model_response", "phi3", server.url, seed=1)
        assert scores == [80, 75, 5, 0] and all(type(score) is int for score in scores)
        assert capsys.readouterr() == ("", "")
        assert [request["model"] for request in server.requests] == ["phi3"] * 4
        assert server.requests[0]["options"]["seed"] == 1

    def test_what_the_judge_reads(self, serve):
        server = serve(CHAT, ollama("50"))
        generate_model_scores([entry("<Blue>", input="a warm one")], "model_response", url=server.url)
        (message,) = server.requests[0]["messages"]
        for text in ("Name a colour.\na warm one\n", "Red.", "<Blue>", "0", "100", "integer only"):
            assert text in message["content"]

    def test_an_empty_response_is_worth_nothing(self, serve):
        server = serve(CHAT, ollama("90"))
        assert generate_model_scores([entry(" \n"), entry("Red.")], "model_response", url=server.url) == [0, 90]
        assert len(server.requests) == 1

    def test_garbage_is_counted_and_shown(self, serve, capsys):
        server = serve(CHAT, ollama("80"), ollama("It is\nfine."), ollama("Hm."), ollama("5"))
        assert generate_model_scores(ENTRIES, "model_response", url=server.url) == [80, None, None, 5]
        shown = capsys.readouterr().out
        assert "2 of 4 answers have no score" in shown and "entry 1, 'It is fine.'; use a larger judge" in shown

    def test_nothing_but_garbage(self, serve):
        server = serve(CHAT, ollama("Once upon a time"))
        with pytest.raises(ValueError, match=r"4 of 4 answers have no score .*'Once upon a time'; use a larger judge"):
            generate_model_scores(ENTRIES, "model_response", url=server.url)

    def test_progress(self, serve, monkeypatch, capsys):
        server = serve(CHAT, ollama("80"))
        monkeypatch.setenv("TQDM_DISABLE", "0")
        generate_model_scores(ENTRIES, "model_response", url=server.url)
        assert "/4" in capsys.readouterr().err

    @pytest.mark.parametrize("bad", [{"instruction": "x", "output": "y"}, entry(None)])
    def test_entries_are_checked_first(self, serve, bad):
        server = serve(CHAT, ollama("80"))
        with pytest.raises(ValueError, match=r"json_data\[2\] has no text under 'model_response'"):
            generate_model_scores([*ENTRIES[:2], bad], "model_response", url=server.url)
        assert server.requests == []

    @pytest.mark.parametrize(
        ("bad", "words", "saved"),
        [
            (failure(404, "model 'llama3' not found"), "does not have the model 'llama3'", False),
            (failure(404, "model 'llama3' not found"), "does not have the model 'llama3'", True),
            (failure(500, "out of memory"), "500: out of memory", True),
            (slow(2.0), "was silent for 0.5 seconds", True),
        ],
    )
    def test_a_failure_loses_nothing(self, serve, tmp_path, capsys, bad, words, saved):
        options = {"save_to": tmp_path / "scores.json"} if saved else {}
        server = serve(CHAT, ollama("80"), ollama("70"), bad)
        ask = functools.partial(generate_model_scores, ENTRIES, "model_response", timeout=0.5, **options)
        assert ask(url=server.url) == [80, 70]
        shown = capsys.readouterr().out
        assert words in shown and "Stopped at entry 2 of 4: the 2 finished scores are returned" in shown
        assert ("the same call goes on from here" in shown) == saved
        better = serve(CHAT, ollama("60"), ollama("50"), ollama("40"), ollama("30"))
        assert ask(url=better.url) == ([80, 70, 60, 50] if saved else [60, 50, 40, 30])
        assert len(better.requests) == (2 if saved else 4)

    def test_a_failure_with_nothing_finished(self, serve):
        server = serve(CHAT, failure(404, "model 'llama3' not found"))
        with pytest.raises(LookupError, match="ollama pull"):
            generate_model_scores(ENTRIES, "model_response", url=server.url)

    def test_control_c(self, tmp_path, monkeypatch, capsys):
        answers = iter(["80", "70"])

        def ask(*arguments, **options):
            for answer in answers:
                return answer
            raise KeyboardInterrupt

        monkeypatch.setattr(judges, "query_model", ask)
        assert generate_model_scores(ENTRIES, "model_response", save_to=tmp_path / "s.json") == [80, 70]
        assert capsys.readouterr().out.startswith("Interrupted.\nStopped at entry 2 of 4")
        with pytest.raises(KeyboardInterrupt):
            generate_model_scores(ENTRIES, "model_response")

    def test_each_answer_is_on_disk_before_the_next_question(self, serve, tmp_path):
        file, found = tmp_path / "folder" / "scores.json", []

        def reply():
            found.append(len(json.loads(file.read_text())) if file.exists() else 0)
            return ollama("80")

        server = serve(CHAT, reply)
        generate_model_scores(ENTRIES, "model_response", url=server.url, save_to=file)
        assert found == [0, 1, 2, 3]
        assert [path.name for path in file.parent.iterdir()] == ["scores.json"]  # no temporary file stays

    def test_another_judge_or_response_is_asked_anew(self, serve, tmp_path):
        server = serve(CHAT, ollama("80"))
        ask = functools.partial(generate_model_scores, url=server.url, save_to=tmp_path / "scores.json")
        for count, (data, options) in enumerate(
            [(ENTRIES[:1], {}), (ENTRIES[1:2], {}), (ENTRIES[:1], {"model": "phi3"}), (ENTRIES[:1], {"seed": 9})], 1
        ):
            for _ in range(2):
                assert ask(data, "model_response", **options) == [80]
                assert len(server.requests) == count

    def test_an_answer_that_is_cut_off_has_no_half_of_a_number(self, serve, tmp_path, capsys):
        replies = [ollama_whole(text, "length") for text in ("Score: 8", "Score: 85\nIt is ri", "Score: 75 ")]
        server, file = serve(CHAT, *replies), tmp_path / "scores.json"
        scores = generate_model_scores(ENTRIES[:3], "model_response", url=server.url, save_to=file)
        assert scores == [None, 85, 75]
        assert next(iter(json.loads(file.read_text(encoding="utf-8")).values())) == "Score: …"
        assert "that to entry 0, 'Score: …'" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("third", "words"),
        [
            (RuntimeError("CUDA out of memory"), "CUDA out of memory\n"),
            (StopIteration(), "StopIteration\n"),
            (77, "ask gives a int: the text of an answer is expected\n"),
            (None, "ask gives a NoneType: the text"),
        ],
    )
    def test_a_function_that_fails(self, tmp_path, capsys, monkeypatch, third, words):
        monkeypatch.setenv("TQDM_DISABLE", "1")
        answers = ["80", "70", third]

        def ask(prompt):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        file = tmp_path / "scores.json"
        judge = functools.partial(generate_model_scores, ENTRIES, "model_response", "me", save_to=file)
        assert judge(ask=ask) == [80, 70]
        shown = capsys.readouterr().out
        assert shown.startswith(words) and "Stopped at entry 2 of 4: the 2 finished scores are returned" in shown
        assert judge(ask=lambda prompt: "60") == [80, 70, 60, 60]
        answers.append(third)
        with pytest.raises(type(third) if isinstance(third, Exception) else ValueError):
            generate_model_scores(ENTRIES, "model_response", ask=ask)

    def test_what_a_function_is_asked_with(self, tmp_path):
        file = tmp_path / "scores.json"
        with pytest.raises(ValueError, match="tempreature, seed: with ask, no server is asked that could take options"):
            generate_model_scores(ENTRIES, "model_response", ask=lambda prompt: "90", tempreature=3, seed=1)
        with pytest.raises(ValueError, match="model=None: with ask and save_to, give the judge a name"):
            generate_model_scores(ENTRIES, "model_response", ask=lambda prompt: "90", save_to=file)
        assert not file.exists()
        assert generate_model_scores(ENTRIES, "model_response", ask=lambda prompt: "90") == [90] * 4
        for judge in ("90", "10"):
            ask = lambda prompt, answer=judge: answer  # noqa: E731
            got = generate_model_scores(ENTRIES, "model_response", f"judge {judge}", ask=ask, save_to=file)
            assert got == [int(judge)] * 4

    @pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}'])
    def test_a_file_of_another_kind(self, serve, tmp_path, content):
        server, file = serve(CHAT, ollama("80")), tmp_path / "notes.json"
        file.write_text(content)
        with pytest.raises(ValueError, match=re.escape("notes.json is not a file of judged answers")):
            generate_model_scores(ENTRIES, "model_response", url=server.url, save_to=file)
        assert file.read_text() == content and server.requests == []


def export(folder):
    """The course model with its tokenizer, as `transformers serve` wants it."""
    from transformers import GPT2TokenizerFast

    model, cfg = load_course_model()
    save_gpt2(model, folder)
    vocabulary = Path(judges.__file__).parent / "assets" / "tiktoken"
    shutil.copy(vocabulary / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee", folder / "merges.txt")
    shutil.copy(vocabulary / "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6", folder / "vocab.json")
    tokenizer = GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return model, cfg


class TestRealServer:
    """`transformers serve`, with the course model that `save_gpt2` exported."""

    @pytest.fixture(name="server")
    def start(self, tmp_path):
        for name in ("fastapi", "uvicorn", "openai"):
            pytest.importorskip(name)
        if Version(version("transformers")) < Version("5.5"):
            pytest.skip("this release's server takes no model on its command line")
        model, cfg = export(tmp_path / "course-model")
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"http://127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "course-model", "--device", "cpu"]
        command += ["--host", "127.0.0.1", "--port", address.rpartition(":")[2]]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
        log = tmp_path / "log.txt"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with log.open("w") as out:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + 240  # about 10 s on two idle cores
            while True:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                try:
                    opener.open(f"{address}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.25)
            yield process, address + COMPLETIONS, model, cfg
        finally:
            process.kill()
            process.wait()

    def test_from_the_first_answer_to_a_stopped_server(self, server, tmp_path, capsys):
        process, url, model, cfg = server

        # The served model is ours: it says what `generate` says.
        prompt = "Once upon a time there was a girl who"
        tokenizer = get_tokenizer()
        ids = torch.tensor([tokenizer.encode(prompt)])
        expected = generate(model, ids, 12, cfg["context_length"])[0, ids.shape[1] :].tolist()
        assert query_model(prompt, "course-model", url, max_tokens=12) == tokenizer.decode(expected)

        with pytest.raises(LookupError, match=r"does not have the model 'gpt-9' .*'course-model'.*; start it with"):
            query_model(prompt, "gpt-9", url)

        # So small a model does not grade: its answers are garbage, counted, and kept.
        file = tmp_path / "scores.json"
        options = {"model": "course-model", "url": url, "save_to": file, "max_tokens": 12}
        with pytest.raises(ValueError, match="2 of 2 answers have no score"):
            generate_model_scores(ENTRIES[:2], "model_response", **options)
        assert len(json.loads(file.read_text())) == 2
        assert generate_model_scores([entry(""), *ENTRIES[:2]], "model_response", **options) == [0, None, None]
        assert "2 of 3 answers have no score" in capsys.readouterr().out

        process.terminate()
        process.wait(timeout=60)
        assert generate_model_scores([entry(""), *ENTRIES[:3]], "model_response", **options) == [0, None, None]
        shown = capsys.readouterr().out
        assert "No server is running" in shown and "Stopped at entry 3 of 4: the 3 finished scores" in shown
        assert len(json.loads(file.read_text())) == 2
