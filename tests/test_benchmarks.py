"""Every benchmark runs, on a tiny model and for one round. What it measures is not looked at: no test asserts times."""

import importlib
import re
import sys

import numpy as np
import pytest

from benchmarks import __main__, ngram

TINY = {"emb_dim": 16, "n_heads": 2, "n_layers": 1}
SHORT = {
    "training": TINY,
    "loading": TINY,
    "loader": {"copies": 1},
    "generation": {"n_embd": 16, "n_head": 2, "n_layer": 1, "characters": 2000},
}


@pytest.mark.parametrize("name", __main__.NAMES)
def test_runs(name):
    section = importlib.import_module(f"benchmarks.{name}").run(rounds=1, **SHORT[name])
    assert section.startswith(f"## {name.capitalize()}\n\n")
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "|  |"))]
    assert len(rows) >= 2 and all(re.search(r"\d", row.split("|")[-2]) for row in rows[1:])


def test_generation_gives_the_same_tokens():
    from benchmarks import generation

    theirs, ours = generation.models(n_embd=16, n_head=2, n_layer=1)
    assert "are the same in all four ways" in generation.one_prompt(theirs, ours, rounds=1)
    assert "gets the tokens that it gets alone" in generation.several_prompts(ours, rounds=1)


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
    assert "'speed' is not one of training, loading, loader, generation" in capsys.readouterr().err


def test_ngrams():
    """Tokens that repeat can be foreseen, others cannot; and over all next tokens, probabilities add up to one."""
    tokens = np.tile(np.arange(10, dtype=np.uint16), 50)
    orders = ngram.train(tokens)
    assert [len(order.keys) for order in orders] == [10] * 5
    assert ngram.perplexity(orders, tokens) < 1.5
    assert ngram.perplexity(orders, np.array([3, 9, 2, 7, 1], dtype=np.uint16)) > 5
