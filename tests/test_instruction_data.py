"""The instruction set and its generators: form, variety, draws, and no leak from the test to practice."""

import itertools
import json
import os
import random
import re
import string
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from helpers import get_tokenizer
from helpers.make import instruction_set
from helpers.make.instruction_facts import FACTS, facts
from helpers.make.instruction_kinds import LABELS, SKILLS
from helpers.make.instruction_set import (
    INSTRUCTIONS_FILE,
    draw,
    kinds,
    main,
    make_entries,
    practice_entries,
    unseen_entries,
    write_instructions,
)
from helpers.make.instruction_words import Words, words_aside
from helpers.texts import GROUPS, INSTRUCTION_KINDS, kind_of
from tests.instruction_entries import (
    ENTRIES,
    NAMES,
    NUMBERS,
    SEEDS,
    TASKS,
    capital,
    everything,
    lines_of,
    lists_of,
    normal,
    numbers,
    parts,
    practice,
    read,
    request,
    unseen,
    words,
)

REPOSITORY = Path(__file__).parent.parent
TRAIN_END, TEST_END = 1105, 1235  # the parts that chapter 7 cuts off by position
PRACTICE_SEEDS = (1, 2, 3)
HANDWRITTEN = ("creative",)
FILES = {folder: sorted((SEEDS / folder).glob("*.txt")) for folder in ("facts", "phrasings", "words", "written")}
# What stands on both sides of a kind: words without content, and what the generators put around the words.
COMMON = set(
    parts(
        "a an the my in on at to from of with by under over behind near into up down through for out off around across "
        "about onto along and i you he she it they we him her them us me "
        "is are am was were will be do does did not can could cannot have has had "
        "don't doesn't didn't isn't aren't wasn't weren't can't couldn't won't i'm he's she's we're they're "
        "yes no every day yesterday tomorrow morning evening night again more most than even please would "
        "think that this really what everybody said found larger smaller"
    )
)


class TestFile:
    def test_the_seeds_make_the_committed_files(self, tmp_path):
        write_instructions(tmp_path)
        assert sorted(os.listdir(tmp_path)) == ["instructions.json", "kinds.json"]
        for file in (INSTRUCTIONS_FILE, INSTRUCTION_KINDS):
            assert (tmp_path / file.name).read_bytes() == file.read_bytes()
        assert make_entries() == ENTRIES
        assert kinds() == json.loads(INSTRUCTION_KINDS.read_text(encoding="utf-8"))

    def test_size_makes_a_round_split(self):
        assert len(ENTRIES) == len(kinds()) == 1300
        assert (int(len(ENTRIES) * 0.85), int(len(ENTRIES) * 0.1)) == (TRAIN_END, TEST_END - TRAIN_END)

    def test_fields(self):
        for entry in itertools.chain(ENTRIES, *everything().values()):
            assert list(entry) == ["instruction", "input", "output"]
            assert entry["instruction"] and entry["output"]
            for text in entry.values():
                assert re.fullmatch(r"[ -~\n]*", text), entry
                assert text == text.strip() and "  " not in text, entry
                assert not re.search(r"[{}|\\]|-->", text), entry

    def test_a_third_to_a_half_has_an_input(self):
        assert 0.33 <= sum(bool(entry["input"]) for entry in ENTRIES) / len(ENTRIES) <= 0.5

    def test_entries_are_short(self):
        lengths = [len(get_tokenizer().encode("\n".join(entry.values()))) for entry in ENTRIES]
        assert max(lengths) <= 60
        assert sum(lengths) / len(lengths) <= 25

    def test_card_counts_each_kind(self):
        card = (INSTRUCTIONS_FILE.parent / "README.md").read_text(encoding="utf-8")
        assert f"`input` ({sum(bool(entry['input']) for entry in ENTRIES)} have one" in card
        assert f"{sum(len(entry['output'].split()) == 1 for entry in ENTRIES)} answers are a single word" in card
        rows = re.findall(r"^\| ([a-z_]+) \| [a-z ]+ \| (\d+) \| (\d+) \|", card, flags=re.MULTILINE)
        with_input = Counter(kind for kind, entry in zip(kinds(), ENTRIES, strict=True) if entry["input"])
        assert {kind: (int(n), int(inputs)) for kind, n, inputs in rows} == {
            kind: (n, with_input[kind]) for kind, n in Counter(kinds()).items()
        }


class TestKinds:
    def test_many_and_none_too_large(self):
        counts = Counter(kinds())
        assert len(counts) >= 12
        assert min(counts.values()) >= 15
        assert max(counts.values()) <= 0.05 * len(ENTRIES)

    def test_groups_have_each_kind_once(self):
        assert sorted(kind for group in GROUPS.values() for kind in group) == sorted(set(kinds()))
        assert set(kinds()) == set(SKILLS) | set(FACTS) | set(HANDWRITTEN) == set(TASKS) | set(HANDWRITTEN)

    def test_shares_of_the_groups(self):
        shares = {group: sum(kind in members for kind in kinds()) / 13 for group, members in GROUPS.items()}
        expected = {
            "change the grammar": 27,
            "choose from a few": 23,
            "copy and rearrange": 18,
            "say it otherwise": 10,
            "know something": 12,
            "compute": 4,
            "write freely": 6,
        }
        assert shares == pytest.approx(expected, abs=0.5)

    def test_a_factor_makes_a_group_commoner(self):
        """Three times as many entries to choose in as of the others, beside their own shares; none comes twice."""
        counts = []
        for factors in (None, {"choose from a few": 3.0}):
            drawn = draw(2000, factors=factors)
            assert len({(entry["instruction"], entry["input"]) for _, entry in drawn}) == 2000
            counts.append(sum(kind in GROUPS["choose from a few"] for kind, _ in drawn))
        plain, more = (count / (2000 - count) for count in counts)
        assert more == pytest.approx(3 * plain, rel=0.2)

    def test_kind_of(self):
        assert [kind_of(entry) for entry in ENTRIES] == kinds()

    def test_kind_of_a_foreign_entry(self):
        with pytest.raises(ValueError, match=r"entry=.* is not an entry of the embedded instruction set"):
            kind_of({"instruction": "Fly to the moon.", "input": "", "output": "No."})

    @pytest.mark.parametrize("start, end", [(0, TRAIN_END), (TRAIN_END, TEST_END), (TEST_END, 1300)])
    def test_a_split_by_position_is_a_fair_sample(self, start, end):
        part = Counter(kinds()[start:end])
        for kind, count in Counter(kinds()).items():
            assert abs(part[kind] - count * (end - start) / len(ENTRIES)) < 2, kind

    def test_stretches_of_the_training_part_are_fair_samples(self):
        for start in range(0, TRAIN_END - 221, 221):
            part = Counter(kinds()[start : start + 221])
            for group in GROUPS.values():
                count = sum(kinds().count(kind) for kind in group)
                assert abs(sum(part[kind] for kind in group) - count * 221 / len(ENTRIES)) < 6, group

    def test_neighbours_differ(self):
        assert sum(a == b for a, b in itertools.pairwise(kinds())) <= 0.1 * len(ENTRIES)

    def test_entries_are_fresh_copies(self):
        make_entries()[0]["output"] = "changed"
        assert make_entries() == ENTRIES


class TestVariety:
    def test_no_request_comes_twice(self):
        seen = Counter(request(entry).lower() for entry in ENTRIES)
        assert [text for text, count in seen.items() if count > 1] == []

    def test_no_instruction_is_used_often(self):
        assert Counter(entry["instruction"] for entry in ENTRIES).most_common(1)[0][1] <= 6

    def test_answers_begin_in_many_ways(self):
        starts = Counter(entry["output"].split()[0] for entry in ENTRIES)
        assert starts.most_common(1)[0][1] <= 0.25 * len(ENTRIES)
        assert len(starts) >= 350
        two = Counter(" ".join(entry["output"].split()[:2]) for entry in ENTRIES)
        assert two.most_common(1)[0][1] <= 0.05 * len(ENTRIES)

    def test_requests_begin_in_many_ways(self):
        starts = Counter(" ".join(entry["instruction"].split()[:3]) for entry in ENTRIES)
        assert starts.most_common(1)[0][1] <= 0.03 * len(ENTRIES)

    def test_phrasings_of_each_kind(self):
        """At least 5 for each kind; a request has one form of answer, so that what is right is not left to chance."""
        assert sorted(task for tasks in TASKS.values() for task in tasks.split()) == [
            path.stem for path in FILES["phrasings"]
        ]
        for kind, tasks in TASKS.items():
            lines = [line for task in tasks.split() for line in lines_of(f"phrasings/{task}")]
            assert len(lines) >= 5, kind
            answers = dict(line.rpartition(" | ")[::2] for line in lines)
            assert len(answers) == len(set(lines)), kind

    @pytest.mark.parametrize("path", FILES["phrasings"] + FILES["written"], ids=lambda path: path.stem)
    def test_form_of_the_seeds(self, path):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.count("|") in (1, 2) and line.count(" | ") == line.count("|"), line

    @pytest.mark.parametrize("path", FILES["facts"], ids=lambda path: path.stem)
    def test_no_fact_comes_twice(self, path):
        rows = path.read_text(encoding="utf-8").splitlines()
        assert len(set(rows)) == len(rows)

    @pytest.mark.parametrize("path", FILES["words"], ids=lambda path: path.stem)
    def test_no_word_comes_twice_in_a_list(self, path):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = re.split(r" \| |, ", line.rpartition(": ")[2])
            assert len(set(found)) == len(found), line

    def test_the_same_request_has_the_same_answer(self):
        answers = {}
        for kind, entry in itertools.chain(*map(practice, PRACTICE_SEEDS)):
            if kind != "sentences":  # of which the request leaves much open
                assert answers.setdefault(request(entry), entry["output"]) == entry["output"], entry

    def test_facts_have_one_answer(self):
        """Two facts of a kind never share a request; drawing would hide one of them."""
        for kind in FACTS:
            answers = {}
            for task, _, values in facts(kind):
                for line in lines_of(f"phrasings/{task}"):
                    asked, _, answer = line.rpartition(" | ")
                    forms = {**values, **{capital(name): capital(text) for name, text in values.items()}}
                    forms |= {f"{a}_{name}": f"{a} {text}" for a in "aA" for name, text in values.items()}
                    asked, answer = asked.format_map(forms).lower(), answer.format_map(forms)
                    assert answers.setdefault(asked, answer) == answer, asked

    def test_nothing_is_from_the_books_set(self):
        folders = [os.environ.get("COURSE_DATA_DIR"), REPOSITORY.parent / "shared" / "data"]
        found = [Path(folder) / "instruction-data.json" for folder in folders if folder]
        found = [path for path in found if path.is_file()]
        if not found:
            pytest.skip("instruction-data.json is not here: name its folder in COURSE_DATA_DIR")
        book = json.loads(found[0].read_text(encoding="utf-8"))
        requests = {normal(request(entry)) for entry in book}
        assert [entry for entry in ENTRIES if normal(request(entry)) in requests] == []
        inputs = {normal(entry["input"]) for entry in book if len(entry["input"].split()) > 1}
        assert [entry for entry in ENTRIES if normal(entry["input"]) in inputs] == []


class TestDraws:
    def test_practice_is_of_any_number_and_different(self):
        for seed in PRACTICE_SEEDS:
            assert len({request(entry).lower() for _, entry in practice(seed)}) == len(practice(seed)) == 20_000
        assert practice_entries(50, 1) != practice_entries(50, 2)
        assert practice_entries(50, 1) == practice_entries(50, 1) == [entry for _, entry in practice(1)[:50]]

    def test_practice_has_the_shares_of_the_set(self):
        drawn = Counter(kind for kind, _ in practice(1))
        for group, members in GROUPS.items():
            share, expected = (sum(map(counts.get, members)) / counts.total() for counts in (drawn, Counter(kinds())))
            assert abs(share - expected) < 0.03, group

    def test_unseen_are_new_test_requests_of_every_skill(self):
        entries = unseen_entries(400, 5)
        assert len({request(entry) for entry in entries}) == 400
        assert not {request(entry) for entry in entries} & {request(entry) for entry in ENTRIES}
        assert {kind for kind, _ in unseen()} == set(SKILLS)

    def test_too_many(self, monkeypatch):
        monkeypatch.setattr(instruction_set, "COUNTS", {"jobs": 15, "uses": 15})
        with pytest.raises(ValueError, match=r"count=5000, but there are only \d+ different entries"):
            practice_entries(5000)

    def test_command_line(self, tmp_path, capsys):
        files = tmp_path / "practice.json", tmp_path / "unseen.json"
        main(["--practice", "30", str(files[0]), "--unseen", "20", str(files[1]), "--seed", "4"])
        made = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        assert made == [practice_entries(30, 4), unseen_entries(20, 4)]
        assert "practice.json: 30 entries" in capsys.readouterr().out


class TestNoLeak:
    """What a test request is about never occurs in training: neither in the first part of the set nor in practice."""

    def sides(self, kind):
        """The entries to train on, and the test requests, of one kind."""
        train = [entry for entry, name in zip(ENTRIES[:TRAIN_END], kinds(), strict=False) if name == kind]
        test = [entry for entry, name in zip(ENTRIES[TRAIN_END:], kinds()[TRAIN_END:], strict=True) if name == kind]
        train += [entry for seed in PRACTICE_SEEDS for name, entry in practice(seed) if name == kind]
        return train, test + [entry for name, entry in unseen() if name == kind]

    def test_no_test_request_is_trained(self):
        asked = {request(entry).lower() for entry in ENTRIES[TRAIN_END:]} | {request(e).lower() for _, e in unseen()}
        trained = {request(entry).lower() for entry in ENTRIES[:TRAIN_END]}
        trained |= {request(entry).lower() for seed in PRACTICE_SEEDS for _, entry in practice(seed)}
        assert not asked & trained
        lines = [{entry["output"] for entry in side} for side in self.sides("creative")]
        assert lines[0] and lines[1] and not lines[0] & lines[1]

    @pytest.mark.parametrize("kind", SKILLS)
    def test_words_of_skills(self, kind):
        frame = set(words(" ".join(line for task in TASKS[kind].split() for line in lines_of(f"phrasings/{task}"))))
        frame = {word.lower() for word in frame} | COMMON
        if kind in ("category", "odd_one_out", "pick", "yes_no"):
            frame |= set(words(" ".join(itertools.chain(*LABELS.values()))))
        frame |= {"pick": {"color", "number", "day", "month"}, "compare": set(NUMBERS)}.get(kind, set())
        frame |= set(string.ascii_lowercase) if kind == "letters" else set()
        train, test = (self.content(kind, side) - frame for side in self.sides(kind))
        assert len(test) >= 5 and train & test == set()

    def content(self, kind, entries):
        """The words of the entries; of a story about a feeling the whole text without the name, and the names."""
        if kind != "feelings":
            return {word.lower() for entry in entries for word in words(" ".join(entry.values()))}
        found = set()
        for entry in entries:
            _, _, values = read(kind, entry)[0]
            name = values.get("name") or next(name for name in words(values["text"].replace("'s", "")) if name in NAMES)
            found |= {values["text"].replace(name, "..."), name}
        return found

    @pytest.mark.parametrize("kind", SKILLS)
    def test_words_that_phrasings_have_too(self, kind):
        """The same for what fills the gaps, so that a word counts that stands in a phrasing as well."""
        filled = []
        for aside in (False, True):
            side, rng, found = Words(kind, aside), random.Random(kind), set()
            for _ in range(1500):
                task, values = SKILLS[kind](side, rng)
                assert task in TASKS[kind].split()
                texts = [text for name, text in values.items() if name not in ("label", "labels", "one_of")]
                if kind in ("category", "opinion", "feelings", "yes_no", "letters"):
                    texts = [values.get("word", values.get("thing", values.get("name")))]
                found |= {word.lower() for text in texts if text for word in words(text)}
            filled.append(found - COMMON - set(NUMBERS if kind in ("compare", "pick") else ()))
        assert filled[0] & filled[1] == set()

    @pytest.mark.parametrize("kind", ["compare", "ordering", "arithmetic"])
    def test_numbers(self, kind):
        sides = []
        for side in self.sides(kind):
            found = set()
            for entry in side:
                task, _, values = read(kind, entry)[0]
                if "a" in values and task != "alphabet_two":
                    a, b = (NUMBERS.index(n) + 1 if n in NUMBERS else int(n) for n in (values["a"], values["b"]))
                    found.add(tuple(sorted((a - b if task == "subtraction" else a, b))))
                elif task in ("ascending", "descending"):
                    found.add(tuple(sorted(numbers(values["answer"]))))
            sides.append(found)
        assert len(sides[1]) >= 10 and not sides[0] & sides[1]

    @pytest.mark.parametrize("kind", FACTS)
    def test_facts_in_other_phrasings(self, kind):
        train, test = (
            {
                (task, number, frozenset(str(text).lower() for text in values.values()))
                for entry in side
                for task, number, values in read(kind, entry)
            }
            for side in self.sides(kind)
        )
        assert test and not train & test

    @pytest.mark.parametrize("kind", FACTS)
    def test_facts_that_are_tested_are_trained(self, kind):
        """In the set itself a fact of the test is asked in training, in other words: it could be known."""
        parts = defaultdict(set)
        for i, entry in enumerate(ENTRIES):
            if kinds()[i] == kind:
                for _, _, values in read(kind, entry):
                    parts[i < TRAIN_END] |= {frozenset(words(text.lower())) for text in values.values()}
        assert parts[False] <= parts[True] or kind == "numbers"

    def test_a_fifth_is_set_aside(self):
        for kind in SKILLS:
            nouns = [word.partition("/")[0] for word in lists_of("nouns")["animal"]]
            assert 0.15 <= len(words_aside(kind) & set(nouns)) / len(nouns) <= 0.35
        assert words_aside("plural") != words_aside("swap")
