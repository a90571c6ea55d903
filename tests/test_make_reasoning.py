"""The script behind the recorded comparison of the notebook on reasoning models, on tiny runs, and its record."""

from __future__ import annotations

import json

import pytest
import torch

from helpers import reasoning
from helpers.make import reasoning as make


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Runs of a few updates, ten held-out questions, and a file of its own for the record."""
    ten = reasoning.held_out()[:10]
    monkeypatch.setattr(reasoning, "held_out", lambda: ten)
    for name, value in {"BASE_UPDATES": 2, "RL_UPDATES": 2, "COLD_UPDATES": 1, "BATCH": 16}.items():
        monkeypatch.setattr(reasoning, name, value)
    monkeypatch.setattr(make, "RECORD", tmp_path / "record.json")
    return make.RECORD


def test_two_seeds_are_kept_side_by_side(record, capsys):
    for seed in (2, 1):
        make.main(["ways", "--seed", str(seed)])
    found = json.loads(record.read_text(encoding="utf-8"))["ways"]
    assert list(found) == ["1", "2"] and list(found["1"]) == list(found["2"])
    assert "student, distilled" in capsys.readouterr().out
    budget = found["1"]["reinforcement"]["training"]
    for name, row in found["1"].items():
        assert row["training"] <= 1.3 * budget and (row["training"] == 0) == (name in ("base", "student"))
        assert all(0 <= row[key] <= 1 for key in ("greedy", "drawn", "vote", "verifier", "any"))
        assert row["drawn"] <= row["any"]


def test_lengths(record, monkeypatch):
    monkeypatch.setattr(make, "LENGTH_UPDATES", 1)
    monkeypatch.setattr(make, "LENGTH_SEEDS", (1,))
    make.main(["lengths"])
    found = json.loads(record.read_text(encoding="utf-8"))["lengths"]
    assert list(found) == ["without steps", "with steps"]
    assert all(list(lengths) == ["2", "3", "4", "5", "6"] for lengths in found.values())


def test_an_error_is_one_sentence(record):
    record.write_text("{", encoding="utf-8")
    with pytest.raises(SystemExit, match="error: "):
        make.run(lambda options: make.save("ways", {"1": {}}), None)


def test_measuring_by_hand(monkeypatch):
    """A model that always writes the same text: its accuracies are the shares of questions with that result."""
    questions = reasoning.draw_questions(50, torch.Generator().manual_seed(1))
    monkeypatch.setattr(reasoning, "held_out", lambda: questions)
    text = [int(c) for c in "3"] + [reasoning.EQUALS, 3, reasoning.END] + [reasoning.END] * 4

    def ask(model, questions, samples=1, **options):
        rows = torch.tensor(text).repeat(len(questions) * samples, 1)
        start = torch.nn.functional.pad(questions, (0, 1), value=reasoning.COLON)
        return torch.cat((start.repeat_interleave(samples, dim=0), rows), dim=1)

    monkeypatch.setattr(reasoning, "ask", ask)
    row = make.measure(reasoning.new_model(1, emb_dim=8, n_heads=1, n_layers=1), 5.0, samples=3)
    share = sum(sum(question) % 10 == 3 for question in questions.tolist()) / 50
    for key in ("greedy", "drawn", "any", "vote"):
        assert row[key] == pytest.approx(share)
    assert row["verifier"] == 0 and row["steps"] == 1 and row["training"] == 5.0


class TestRecord:
    found = json.loads(reasoning.RECORD.read_text(encoding="utf-8")) if reasoning.RECORD.exists() else {}

    def test_three_seeds_of_each(self):
        assert len(self.found["ways"]) == 3 and len({tuple(rows) for rows in self.found["ways"].values()}) == 1
        for lengths in self.found["lengths"].values():
            assert list(lengths) == ["2", "3", "4", "5", "6"] and all(len(seeds) == 3 for seeds in lengths.values())

    def test_trainings_cost_the_same(self):
        """What is compared at equal cost had about the same operations; shorter answers than planned cost less."""
        for rows in self.found["ways"].values():
            budget = rows["reinforcement"]["training"]
            for name, row in rows.items():
                least = {"base": 0, "student": 0, "written solutions": 0.1}.get(name, 0.75)
                assert least * budget <= row["training"] <= 1.05 * budget, name

    def test_sizes_and_costs_are_those_of_the_code(self):
        for rows in self.found["ways"].values():
            for name, size in (("base", reasoning.BASE_SIZE), ("student", reasoning.STUDENT_SIZE)):
                model = reasoning.new_model(1, **size)
                assert rows[name]["parameters"] == sum(weight.numel() for weight in model.parameters())
                tokens = rows[name]["answer"] / reasoning.gflop(model, generated=1)
                assert reasoning.DIGITS + 4 <= tokens <= reasoning.CONTEXT
