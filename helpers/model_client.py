"""Asking a language model that runs on a server, through Ollama's HTTP API or any OpenAI-compatible one (section 7.8).

What this leaves out: conversations of several turns, tools, and showing the answer while it is written.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import math
import re
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from .files import first_line

OLLAMA = "http://localhost:11434/api/chat"
_RETRY_PAUSES = (0.0, 2.0, 5.0)  # seconds before each attempt


class CutOff(str):
    """An answer that ended at a limit of tokens, perhaps within a word."""


def query_model(
    prompt: str,
    model: str = "llama3",
    url: str = OLLAMA,
    *,
    seed: int = 123,
    temperature: float = 0.0,
    num_ctx: int = 4096,
    max_tokens: int | None = None,
    timeout: float = 120.0,
    api_key: str | None = None,
) -> str:
    """What a model on a server answers to a prompt.

    A `url` that ends in /api/chat is Ollama's; one that ends in /chat/completions is of an OpenAI-compatible server
    (llama.cpp, vLLM, `transformers serve`, ...). `num_ctx` is Ollama's context in tokens: a longer prompt would be cut
    without a word; other servers set theirs when they start. `max_tokens` limits the answer; one that ended at a limit
    is a `CutOff`. `timeout` is in seconds of silence: the answer is streamed, so a slow one is not cut off while it is
    still coming. `api_key` is sent as a bearer token; blanks and line ends around it, as from a file, are left out, and
    no message shows it. Requests to this machine never go through a proxy.

    A server that is busy, fails or falls silent is asked three times, with pauses. Raises ConnectionError if the
    server is not running or goes on failing, TimeoutError if it stays silent, LookupError if it does not have the
    model, ValueError for an address of neither kind, a timeout that is not above 0, or a refused request.
    """
    if timeout is None or not 0 < timeout < math.inf:
        raise ValueError(f"timeout={timeout} must be a number of seconds above 0")
    body = _request_body(prompt, model, url, seed, temperature, num_ctx, max_tokens)
    key = _checked(api_key)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, json.dumps({**body, "stream": True}).encode(), headers)
    failure: Exception | None = None
    for pause in _RETRY_PAUSES:
        time.sleep(pause)
        try:
            with _opener(url).open(request, timeout=timeout) as response:
                return _read_answer(response, key)
        except urllib.error.HTTPError as error:
            with error:
                message = _error_message(_body(error), key)
            if error.code in (301, 302, 303, 307, 308):
                message = "it redirects to another address, where neither the question nor a key is sent"
            if error.code < 500 and error.code not in (408, 429):
                raise _refusal(error.code, message, model, url) from None
            failure = ConnectionError(f"The server at {url} fails ({error.code}: {message}); look into its log.")
        except (OSError, http.client.HTTPException, _Broken) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                failure = TimeoutError(
                    f"The server at {url} was silent for {timeout:g} seconds; it may still be loading {model!r}: "
                    "try again, give a larger timeout, or use a smaller model."
                )
            elif isinstance(error, urllib.error.URLError) and not isinstance(reason, ConnectionResetError):
                start = "`ollama serve`" if _is_ollama(url) else "for instance `transformers serve FOLDER`"
                raise ConnectionError(f"No server is running at {url} ({reason}); start it ({start}).") from None
            else:
                detail = first_line(reason)
                failure = ConnectionError(f"The server at {url} broke off its answer ({detail}); look into its log.")
    raise failure


def _checked(api_key: str | None) -> str:
    key = (api_key or "").strip()
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError("api_key contains a blank, a line end or a letter outside ASCII; check how it was read")
    return key


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would take the key along to any other machine."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Broken(Exception):
    """An answer that ended before its end, or is not of the protocol."""


def _is_ollama(url: str) -> bool:
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0 and all(letter > " " for letter in url)
    except ValueError:  # no port, or no address of a machine
        whole = False
    if whole and parts.scheme in ("http", "https") and parts.path.endswith(("/api/chat", "/chat/completions")):
        return parts.path.endswith("/api/chat")
    raise ValueError(
        f"url={url!r} must be http(s)://... and end in /api/chat (Ollama) or /v1/chat/completions (others)"
    )


def _request_body(prompt, model, url, seed, temperature, num_ctx, max_tokens) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    if _is_ollama(url):  # outside of options Ollama would ignore them without a word
        limit = {} if max_tokens is None else {"num_predict": max_tokens}
        return {**body, "options": {"seed": seed, "temperature": temperature, "num_ctx": num_ctx, **limit}}
    return {**body, "seed": seed, "temperature": temperature} | (
        {} if max_tokens is None else {"max_tokens": max_tokens}
    )


def _opener(url: str) -> urllib.request.OpenerDirector:
    host = urlsplit(url).hostname or ""
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    return urllib.request.build_opener(_NoRedirect, *([urllib.request.ProxyHandler({})] if here else []))


def _body(error: urllib.error.HTTPError) -> bytes:
    """What a server says beside a status; nothing if that breaks off or does not come."""
    try:
        return error.read()
    except (OSError, http.client.HTTPException):
        return b""


def _read_answer(response: http.client.HTTPResponse, key: str) -> str:
    """An answer in JSON lines (Ollama), server-sent events (OpenAI), or one JSON document (either)."""
    pieces = []
    whole = response.headers.get_content_type() == "application/json"
    lines = [response.read()] if whole else response
    if whole and not _is_json(lines[0]):  # some gateways call lines of JSON a document
        lines, whole = lines[0].splitlines(), False
    for line in lines:
        line = line.strip().removeprefix(b"data:").strip()
        if line == b"[DONE]":
            return "".join(pieces)
        if not line.startswith(b"{"):
            if whole:
                raise _Broken(f"it is not a JSON object: {_hide(line, key)[:80]!r}")
            continue  # empty lines, and comments that keep the connection open
        try:
            part = json.loads(line)
            if part.get("error") is not None:
                raise _Broken(_error_message(line, key))
            choice = part["choices"][0] if part.get("choices") else part
            message = choice.get("message") or choice.get("delta") or {}
            pieces.append(_text_of(message.get("content")))
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise _Broken(f"it is not of the protocol: {_hide(line, key)[:80]!r}") from error
        reason = part.get("done_reason") or choice.get("finish_reason")
        if whole or part.get("done") or reason:
            return (CutOff if reason == "length" else str)("".join(pieces))
    raise _Broken("it ended too early")


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _hide(body: bytes, key: str) -> bytes:
    """What a server sent, without the key: some say it in their errors."""
    return body.replace(key.encode(), b"(api_key)") if key else body


def _text_of(content: Any) -> str:
    """A content, which is a string, nothing, or a list of parts of which some are text."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str | None):
        raise TypeError(f"a content that is a {type(content).__name__}")
    return content or ""


def _error_message(body: bytes, key: str) -> str:
    """What a server says went wrong: {"error": text}, {"error": {"message": text}}, {"detail": text}, or text."""
    body = _hide(body, key)
    try:
        content = json.loads(body)
        error = content.get("error") or content.get("detail") or content
        message = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        message = body.decode(errors="replace")
    return " ".join(str(message).split())[:200] or "no reason given"


def _refusal(code: int, message: str, model: str, url: str) -> Exception:
    if model in message and re.search(r"not found|not exist|pinned|unknown|no such", message):
        get = (
            f"get it with `ollama pull {model}`"
            if _is_ollama(url)
            else "start it with this model or ask for the one it has"
        )
        return LookupError(f"The server at {url} does not have the model {model!r} ({message}); {get}.")
    if code == 404:
        return ValueError(f"The server at {url} knows no such address ({message}); check the end of url.")
    return ValueError(f"The server at {url} refuses the request ({code}: {message}).")
