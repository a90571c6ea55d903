"""Every benchmark runs, on a tiny model and for one round. What it measures is not looked at: no test asserts times."""

import contextlib
import importlib
import re
import sys
from functools import partial

import numpy as np
import pytest

from benchmarks import __main__, _measure, ngram, training

TINY = {"emb_dim": 16, "n_heads": 2, "n_layers": 1}
SHORT = {
    "training": TINY,
    "loading": TINY,
    "loader": {"copies": 1},
    "generation": {"n_embd": 16, "n_head": 2, "n_layer": 1, "characters": 4000},
    "llama": {"vocab_size": 97, "emb_dim": 16, "n_heads": 2, "n_kv_heads": 1, "n_layers": 1, "hidden_dim": 24},
}


SAYS = {
    "generation": ("in float32 are the same in all four ways", "Each prompt gets the tokens that it gets alone"),
    "llama": ("random weights", "The tokens in float32 are the same in all three ways"),
}


@contextlib.contextmanager
def in_this_process(make_steps):
    yield partial(next, make_steps())


@pytest.mark.parametrize("name", __main__.NAMES)
def test_runs(name, monkeypatch):
    calls = []
    monkeypatch.setattr(_measure, "process", in_this_process)  # where starting one takes longer than the rest
    monkeypatch.setattr(training, "keep_freed_memory", lambda: calls.append(1))
    section = importlib.import_module(f"benchmarks.{name}").run(rounds=1, **SHORT[name])
    assert calls == [1] * (name == "training")
    assert section.startswith(f"## {name.capitalize()}\n\n")
    tables = re.findall(r"\| ---.*\n((?:\|.*\n?)+)", section)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(rows) >= 2 and all(re.search(r"\d", row.split("|")[-2]) for row in rows)
    assert all(sentence in section for sentence in SAYS.get(name, ()))


def test_steps_in_a_process_of_their_own():
    with _measure.process(partial(iter, "ab")) as step:
        assert [step(), step()] == ["done", "done"]


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(
        importlib.import_module("benchmarks.loader"), "run", lambda rounds: f"## Loader, {rounds} rounds"
    )
    monkeypatch.setattr(sys, "argv", ["benchmarks", "loader", "--rounds", "7"])
    __main__.main()
    assert capsys.readouterr().out == "## Loader, 7 rounds\n\n"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "speed"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "'speed' is not one of training, loading, loader, generation, llama" in capsys.readouterr().err


def test_ngrams():
    """Tokens that repeat can be foreseen, others cannot; and over all next tokens, probabilities add up to one."""
    tokens = np.tile(np.arange(10, dtype=np.uint16), 50)
    orders = ngram.train(tokens)
    assert [len(order.keys) for order in orders] == [10] * 5
    assert ngram.perplexity(orders, tokens) < 1.5
    assert ngram.perplexity(orders, np.array([3, 9, 2, 7, 1], dtype=np.uint16)) > 5
