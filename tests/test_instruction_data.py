"""The embedded instruction set: its form, its variety, and whatever a program can check of its answers."""

import itertools
import json
import operator
import os
import re
import string
from collections import Counter
from pathlib import Path

import pytest

from helpers import get_tokenizer
from helpers.make.instruction_set import INSTRUCTIONS_FILE, UNITS, kinds, make_entries, write_instructions
from helpers.texts import INSTRUCTION_KINDS, kind_of

REPOSITORY = Path(__file__).parent.parent
SEEDS = INSTRUCTIONS_FILE.parent / "seeds"
TABLES = sorted((SEEDS / "material").glob("*.txt"))
PHRASINGS = sorted((SEEDS / "phrasings").glob("*.txt"))
WRITTEN = sorted((SEEDS / "written").glob("*.txt"))
ENTRIES = json.loads(INSTRUCTIONS_FILE.read_text(encoding="utf-8"))
VOWELS = "aeiou"


def of_kind(*names):
    return [entry for entry, kind in zip(ENTRIES, kinds(), strict=True) if kind in names]


def lines_of(folder, name):
    return (SEEDS / folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def table(name):
    header, *rows = (
        line.split(" | ") for line in (SEEDS / "material" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    )
    return [dict(zip(header, row, strict=True)) for row in rows]


def request(entry):
    return f"{entry['instruction']}\n{entry['input']}"


def normal(text):
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def words(text):
    return re.findall(r"[A-Za-z']+", text)


def numbers(text):
    return [int(digits) for digits in re.findall(r"\d+", text)]


def capital(text):
    return text[0].upper() + text[1:]


def counted(amount):
    return {1: "once", 2: "twice", 3: "three times"}[amount]


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
        assert (int(len(ENTRIES) * 0.85), int(len(ENTRIES) * 0.1)) == (1105, 130)

    def test_fields(self):
        for entry in ENTRIES:
            assert list(entry) == ["instruction", "input", "output"]
            assert entry["instruction"] and entry["output"]
            for text in entry.values():
                assert re.fullmatch(r"[ -~\n]*", text), entry
                assert text == text.strip() and "  " not in text, entry
                assert not re.search(r"[{}|\\]|-->", text), entry

    def test_about_a_third_has_an_input(self):
        assert 0.3 <= sum(bool(entry["input"]) for entry in ENTRIES) / len(ENTRIES) <= 0.4

    def test_entries_are_short(self):
        lengths = [len(get_tokenizer().encode("\n".join(entry.values()))) for entry in ENTRIES]
        assert max(lengths) <= 60
        assert sum(lengths) / len(lengths) <= 25

    def test_card_counts_each_kind(self):
        card = (INSTRUCTIONS_FILE.parent / "README.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| ([a-z_]+) \| (\d+) \| (\d+) \|", card, flags=re.MULTILINE)
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

    def test_kind_of(self):
        assert [kind_of(entry) for entry in ENTRIES] == kinds()

    def test_kind_of_a_foreign_entry(self):
        with pytest.raises(ValueError, match=r"entry=.* is not an entry of the embedded instruction set"):
            kind_of({"instruction": "Fly to the moon.", "input": "", "output": "No."})

    @pytest.mark.parametrize("start, end", [(0, 1105), (1105, 1235), (1235, 1300)])
    def test_a_split_by_position_is_a_fair_sample(self, start, end):
        part = Counter(kinds()[start:end])
        for kind, count in Counter(kinds()).items():
            assert abs(part[kind] - count * (end - start) / len(ENTRIES)) < 2, kind

    def test_neighbours_differ(self):
        assert sum(a == b for a, b in zip(kinds(), kinds()[1:], strict=False)) <= 0.1 * len(ENTRIES)

    def test_entries_are_fresh_copies(self):
        make_entries()[0]["output"] = "changed"
        assert make_entries() == ENTRIES


class TestVariety:
    def test_no_request_comes_twice(self):
        seen = Counter(normal(request(entry)) for entry in ENTRIES)
        assert [text for text, count in seen.items() if count > 1] == []

    def test_half_is_written_out_by_hand(self):
        assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in WRITTEN) >= 550

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

    def test_phrasings_of_each_generated_kind(self):
        """At least 8 for each kind; a request has one form of answer, so that what is right is not left to chance."""
        parts = {
            "arithmetic": ["addition", "subtraction", "multiplication", "division"],
            "counting": ["count_letters", "count_letter", "count_words"],
            "letters": ["first_letter", "last_letter"],
            "ordering": ["ascending", "descending", "alphabet"],
        }
        names = {path.stem for path in PHRASINGS}
        groups = list(parts.values()) + [[name] for name in names - {name for part in parts.values() for name in part}]
        for group in groups:
            lines = [
                line
                for name in group
                for line in (SEEDS / "phrasings" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
            ]
            assert len(lines) >= 8, group
            requests = [line.rpartition(" | ")[0] for line in lines]
            assert len(set(requests)) == len(requests), group

    @pytest.mark.parametrize("path", WRITTEN + PHRASINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
    def test_form_of_the_seeds(self, path):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line.count("|") in (1, 2) and line.count(" | ") == line.count("|"), line

    @pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
    def test_no_material_comes_twice(self, path):
        rows = path.read_text(encoding="utf-8").splitlines()
        assert len(set(rows)) == len(rows)

    def test_nothing_is_from_the_books_set(self):
        folders = [os.environ.get("COURSE_DATA_DIR"), REPOSITORY.parent / "shared" / "data"]
        found = [Path(folder) / "instruction-data.json" for folder in folders if folder]
        found = [path for path in found if path.is_file()]
        if not found:
            pytest.skip("instruction-data.json is not here: name its folder in COURSE_DATA_DIR")
        book = json.loads(found[0].read_text(encoding="utf-8"))
        requests = {normal(request(entry)) for entry in book}
        inputs = {normal(entry["input"]) for entry in book} - {""}
        assert [entry for entry in ENTRIES if normal(request(entry)) in requests] == []
        assert [entry for entry in ENTRIES if normal(entry["input"]) in inputs] == []


class TestNumbers:
    OPERATIONS = (
        (r"\bplus\b|\bAdd\b|sum of|\+|\bmore\b|together", operator.add),
        (r"minus|Subtract|away|difference|\d - \d|eats", operator.sub),
        (r"times (\d+\?|\d+\.)|Multiply|product|\bx\b|such boxes|ticket|each of", operator.mul),
        (r"[Dd]ivide|go into|Share|equal parts|/|equal teams", operator.floordiv),
    )

    def test_arithmetic(self):
        for entry in of_kind("arithmetic"):
            fitting = [work for pattern, work in self.OPERATIONS if re.search(pattern, request(entry))]
            assert len(fitting) == 1, entry
            a, b = numbers(request(entry))
            if re.search("Subtract|go into|Take", entry["instruction"]):
                a, b = max(a, b), min(a, b)
            result = fitting[0](a, b)
            assert fitting[0] is not operator.floordiv or a == result * b
            given = [number for number in numbers(entry["output"]) if number not in (a, b)] or [result]
            assert given == [result] and result in numbers(entry["output"]), entry

    def test_conversion(self):
        factors = {(small, large): factor for small, large, factor in UNITS}
        names = {unit for pair in factors for unit in pair}
        for entry in of_kind("conversion"):
            amount = re.search(rf"(\d+) ({'|'.join(names)})\b", request(entry))
            value, unit = int(amount[1]), amount[2]
            (other,) = {word for word in words(request(entry)) if word in names} - {unit}
            if (other, unit) in factors:
                result = value * factors[other, unit]
            else:
                result, rest = divmod(value, factors[unit, other])
                assert rest == 0
            answers = [number for number in numbers(entry["output"]) if number != value or len(entry["output"]) < 5]
            assert answers == [result], entry
            assert f"{result} {other}" in entry["output"] or entry["output"] == f"{result}", entry

    def test_units(self):
        metres = {"millimeters": 0.001, "centimeters": 0.01, "meters": 1, "kilometers": 1000}
        feet = {"inches": 1 / 12, "feet": 1, "yards": 3}
        seconds = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}
        years = {"months": 1 / 12, "years": 1, "centuries": 100}
        rest = {"grams": 1, "kilograms": 1000}, {"milliliters": 1, "liters": 1000}, {"cents": 1, "dollars": 100}
        for small, large, factor in UNITS:
            (scale,) = (scale for scale in (metres, feet, seconds, years, *rest) if small in scale and large in scale)
            assert scale[large] / scale[small] == pytest.approx(factor)

    def test_counting(self):
        for entry in of_kind("counting"):
            text = request(entry)
            if "words" in entry["instruction"]:
                sentence = entry["input"] or re.search(r'"(.*)"', text)[1]
                assert numbers(entry["output"]) == [len(sentence.split())], entry
            elif "letters" in entry["instruction"]:
                word = entry["input"] or re.search(r'"(\w+)"|word (\w+) made', text).group(1, 2)
                word = word if isinstance(word, str) else next(filter(None, word))
                assert numbers(entry["output"]) == [len(word)], entry
            else:
                letter, word = re.search(r"letter (\w)\b", text)[1], re.search(r'"(\w+)"', text)[1]
                assert re.search(rf"\b{counted(word.count(letter))}\b", entry["output"]), entry

    def test_ordering(self):
        for entry in of_kind("ordering"):
            items = re.findall(r"\d+", request(entry))
            if items:
                down = bool(re.search("large to small|largest first|highest to|get smaller", entry["instruction"]))
                right = sorted(items, key=int, reverse=down)
            else:
                items = entry["input"] or re.search(r"(\w+, )+\w+", entry["instruction"])[0]
                items = items.split(", ")
                right = sorted(items)
            assert items != right
            assert len(set(items)) == len(items)
            assert entry["output"] in (", ".join(right), f'The word "{right[0]}" comes first.'), entry

    def test_rows_of_numbers_go_on(self):
        for entry in of_kind("completion"):
            row = re.fullmatch(r"\d+(, (\d+|___))+", entry["input"])
            if row:
                shown = entry["input"].split(", ")
                whole = numbers(entry["output"])
                if len(whole) == 1:
                    whole = [int(n) if n != "___" else whole[0] for n in shown] + whole * ("___" not in shown)
                steps = {b - a for a, b in itertools.pairwise(whole)}
                assert len(steps) == 1, entry


class TestWords:
    def vocabulary(self):
        """The common words: those that GPT-2 has one token for."""
        tokenizer = get_tokenizer()
        tokens = (tokenizer.decode([i]) for i in range(tokenizer.n_vocab - 1))
        return {token[1:] for token in tokens if re.fullmatch(r" [A-Za-z]+", token)}

    def test_spelling_pairs(self):
        vocabulary, seen = self.vocabulary(), set()
        for row in table("spelling"):
            wrong, right, sentence = row["wrong"], row["right"], row["sentence"]
            assert right in vocabulary, right
            assert wrong not in vocabulary, wrong
            assert right.lower() in map(str.lower, words(sentence)), row
            seen |= {right}
        assert len(seen) == 40

    def test_misspelled_words_are_only_where_they_are_mended(self):
        wrong = {row["wrong"] for row in table("spelling")}
        for kind, entry in zip(kinds(), ENTRIES, strict=True):
            shown = wrong & {word.lower() for word in words(request(entry))}
            assert not shown or kind == "spelling", entry
            if kind == "spelling":
                rights = {row["right"] for row in table("spelling") if row["wrong"] in shown}
                answered = {word.lower() for word in words(entry["output"])}
                assert rights <= answered if shown else entry["output"].startswith("Yes, "), entry

    def test_most_words_are_common(self):
        vocabulary = {word.lower() for word in self.vocabulary()}
        used = [word for entry in ENTRIES for word in words(entry["output"])]
        common = sum(word.lower() in vocabulary for word in used)
        assert common / len(used) > 0.97

    def test_letters(self):
        for entry in of_kind("letters"):
            word = entry["input"] or re.search(r'"(\w+)"|word (\w+) (?:begin|end)', entry["instruction"])
            word = word if isinstance(word, str) else word[1] or word[2]
            letter = word[-1] if re.search(r"last|end\b", entry["instruction"]) else word[0]
            assert re.search(r"\b[A-Z]\b", entry["output"])[0] == letter.upper(), entry

    def test_plural_forms(self):
        irregular = {
            "leaf": "leaves",
            "wolf": "wolves",
            "knife": "knives",
            "potato": "potatoes",
            "tomato": "tomatoes",
            "child": "children",
            "man": "men",
            "woman": "women",
            "foot": "feet",
            "tooth": "teeth",
            "mouse": "mice",
            "goose": "geese",
        }
        for row in table("plural"):
            word = row["word"]
            if re.search(r"(s|x|ch|sh)$", word):
                regular = word + "es"
            elif re.search(rf"[^{VOWELS}]y$", word):
                regular = word[:-1] + "ies"
            else:
                regular = word + "s"
            assert row["answer"] == irregular.get(word, regular)
        self.check_pairs("plural", "word", "answer")

    def test_past_tense(self):
        forms = (
            "go/went come/came see/saw run/ran eat/ate drink/drank sing/sang swim/swam give/gave take/took fall/fell "
            "find/found think/thought buy/bought write/wrote speak/spoke sleep/slept fly/flew sit/sat stand/stood "
            "tell/told know/knew hide/hid stop/stopped"
        )
        irregular = dict(pair.split("/") for pair in forms.split())
        for row in table("past_tense"):
            word = row["word"]
            regular = word[:-1] + "ied" if re.search(rf"[^{VOWELS}]y$", word) else word + "ed"
            assert row["answer"] == irregular.get(word, regular)
        self.check_pairs("past_tense", "word", "answer")

    @pytest.mark.parametrize("kind", ["antonyms", "synonyms", "rhyme"])
    def test_pairs(self, kind):
        rows = table(kind)
        pairs = {frozenset((row["word"], row["answer"])) for row in rows}
        assert len(pairs) == len(rows) == len({row["word"] for row in rows})
        assert all(len(pair) == 2 for pair in pairs)
        self.check_pairs(kind, "word", "answer")

    def test_antonyms_and_synonyms_do_not_contradict_each_other(self):
        opposite, same = ({frozenset(row.values()) for row in table(kind)} for kind in ("antonyms", "synonyms"))
        assert not opposite & same

    def check_pairs(self, kind, given, wanted):
        """Each row of the table is the material of one entry, which asks with the one word and answers the other."""
        left = table(kind)
        for entry in of_kind(kind):
            asked, answered = words(request(entry)), [word.lower() for word in words(entry["output"])]
            row = next(row for row in left if row[given] in asked and row[wanted] in answered)
            left.remove(row)
        assert left == []

    def test_category(self):
        groups = {row["word"]: row["answer"] for row in table("category")}
        assert set(Counter(groups.values())) == {"animal", "plant", "thing"}
        for entry in of_kind("category"):
            (word,) = (word for word in groups if re.search(rf"\b{word}\b", request(entry)))
            named = re.findall(r"animal|plant|thing", entry["output"].lower())
            assert named == [groups[word]], entry

    def test_opinion(self):
        """Each remark has the label of its row, and both labels are equally frequent."""
        labels = {row["text"]: row["answer"] for row in table("opinion")}
        assert Counter(labels.values()) == {"positive": 30, "negative": 30}
        for entry in of_kind("opinion"):
            (text,) = (text for text in labels if text in request(entry))
            assert re.findall("positive|negative", entry["output"].lower()) == [labels[text]], entry

    def test_articles(self):
        for entry in ENTRIES:
            text = " ".join(entry.values())
            if kind_of(entry) not in ("grammar", "completion", "counting"):  # they have wrong ones, and the letter
                for article, word in re.findall(r"\b([Aa]n?) ([a-z]+)", text):
                    assert (article.lower() == "an") == (word[0] in VOWELS or word == "hour"), (article, word, entry)

    def test_parts_of_speech(self):
        for row in table("parts_of_speech"):
            assert row["word"] in words(row["sentence"])
            assert row["answer"] in ("noun", "verb", "adjective", "adverb")
            assert (row["answer"] == "adverb") == row["word"].endswith("ly")
            nouns = [other["word"] for other in table("parts_of_speech") if other["answer"] == row["answer"]]
            assert sum(word in words(row["sentence"]) for word in nouns) == 1, row


class TestSentences:
    def test_repeat(self):
        texts = {row["text"] for row in table("repeat")}
        for entry in of_kind("repeat"):
            assert entry["output"] in texts and entry["output"] in request(entry), entry
            texts.remove(entry["output"])
        assert not texts

    def test_swap(self):
        pairs = [tuple(row.values()) for row in table("swap")]
        for entry in of_kind("swap"):
            first, second = next(pair for pair in pairs if set(pair) <= set(words(request(entry))))
            assert request(entry).index(first) < request(entry).rindex(second)
            assert re.fullmatch(rf"{second}(,| and|) {first}", entry["output"])

    def test_passive(self):
        for row in table("passive"):
            active, passive = row["active"], row["passive"]
            assert re.search(r"\b(is|are|was|were|will be) \w+ by ", passive), row
            subject, agent = passive.split(" by ")
            assert active.lower().startswith(agent.rstrip(".").lower() + " "), row
            thing = re.split(r" (?:is|are|was|were|will be) ", subject)[0]
            assert active.rstrip(".").lower().endswith(thing.lower()), row
            plural = re.search(r"\b(are|were)\b", passive) is not None
            assert plural == (thing.endswith(("s", "children")) and "will" not in passive), row

    def test_tense(self):
        for row in table("tense"):
            present, past, future = (words(row[name]) for name in ("present", "past", "future"))
            assert len(future) == len(present) + 1 and len(past) == len(present)
            place = future.index("will")
            assert present[:place] == past[:place] == future[:place]
            assert present[place + 1 :] == past[place + 1 :] == future[place + 2 :]
            base, now = future[place + 1], present[place]
            assert now in (base, base + "s", base + "es") or (base, now) in (
                ("be", "is"),
                ("be", "are"),
                ("have", "has"),
            )

    @pytest.mark.parametrize("kind", ["tense", "passive"])
    def test_each_sentence_is_used_once(self, kind):
        rows = table(kind)
        for entry in of_kind(kind):
            row = next(row for row in rows if entry["output"] in row.values())
            others = set(row.values()) - {entry["output"]}
            assert any(other in request(entry) for other in others), entry
            rows.remove(row)
        assert rows == []

    def test_tense_is_the_one_asked_for(self):
        forms = {sentence: name for row in table("tense") for name, sentence in row.items()}
        asked = {
            "future": r"future\b|tomorrow|\"will\"",
            "present": r"present tense|now\.",
            "past": r"past\b|yesterday|already over",
        }
        for entry in of_kind("tense"):
            (name,) = (name for name, pattern in asked.items() if re.search(pattern, entry["instruction"]))
            assert forms[entry["output"]] == name, entry

    def test_answers_that_must_change_or_repeat_the_input(self):
        for entry in of_kind("negative", "question", "passive", "tense", "formality"):
            assert normal(entry["output"]) != normal(entry["input"]) or kind_of(entry) == "question", entry

    def test_questions_end_with_a_question_mark(self):
        for entry in of_kind("question"):
            statement = "into a statement" in entry["instruction"] or "full sentence" in entry["instruction"]
            assert entry["output"].endswith("?") != statement, entry

    def test_odd_one_out_comes_from_the_list(self):
        for entry in of_kind("odd_one_out"):
            items = [item.lower() for item in entry["input"].split(", ")]
            named = [item for item in items if item in re.findall(r"\w+", entry["output"].lower())]
            assert len(named) == 1 or "in common" in entry["instruction"] or "country" in entry["output"], entry

    def test_sentences_end_with_a_mark(self):
        """A long answer with a capital letter is a sentence, a line of verse or a list."""
        for entry in ENTRIES:
            if len(entry["output"].split()) > 4 and entry["output"][0] in string.ascii_uppercase:
                loose = "\n" in entry["output"] or kind_of(entry) in ("creative", "simplify", "arithmetic")
                assert entry["output"][-1] in '.?"' or loose, entry
