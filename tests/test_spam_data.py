"""The embedded spam messages: reproducible, varied, nobody's number or link, and no giveaways between the classes."""

import csv
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from helpers import get_tokenizer, load_messages
from helpers.make import message_set
from helpers.make.message_set import SPAM_DIR, SPAM_FILE, build_messages, near_duplicates

# The real collection (UCI, 5,574 messages) by the same counts: words that stand in at least 2 % of the messages of one
# class and in none of the other, and how much of spam has at least one of them; then how sure each trait makes spam.
UCI_SPAM_ONLY_WORDS, UCI_SPAM_WITH_SUCH_A_WORD = 53, 0.70
UCI_SPAM_IF = {"link": 0.91, "phone": 0.99, "money": 0.93, "stop": 0.74, "free": 0.74, "capitals": 0.59}
TRAITS = {
    "link": r"\.example",
    "phone": r"\d{6,}|\d{4} \d{3}",
    "money": "[£$]",
    "stop": r"(?i)\bstop\b",
    "free": r"(?i)\bfree\b",
    "capitals": r"\b[A-Z]{4,}\b",
}


def read(path):
    return [tuple(line.split("\t")) for line in path.read_text(encoding="utf-8").splitlines()]


def words(text):
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


MESSAGES = read(SPAM_FILE)
TEXTS = {label: [text for other, text in MESSAGES if other == label] for label in ("ham", "spam")}


class TestFile:
    def test_made_by_the_generator(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(message_set, "SPAM_FILE", tmp_path / "messages.tsv")
        message_set.main()
        assert (tmp_path / "messages.tsv").read_bytes() == SPAM_FILE.read_bytes()
        assert f"{len(MESSAGES)} messages, {len(TEXTS['spam'])} of them spam" in capsys.readouterr().out

    def test_form(self):
        content = SPAM_FILE.read_bytes().decode("utf-8")
        assert content.endswith("\n")
        assert "\r" not in content
        assert all(len(row) == 2 and row[0] in ("ham", "spam") for row in MESSAGES)
        assert all(text == " ".join(text.split()) and text for _, text in MESSAGES)
        assert not [text for _, text in MESSAGES if set(text) & set("{}|")]  # a slot or choice that was not filled

    def test_every_reader_reads_the_same(self):
        """pandas and csv take a quotation mark at the start of a field for the start of a quoted one."""
        pd = pytest.importorskip("pandas")
        frame = pd.read_csv(SPAM_FILE, sep="\t", header=None, names=["Label", "Text"])
        assert list(frame.itertuples(index=False, name=None)) == MESSAGES
        with SPAM_FILE.open(encoding="utf-8", newline="") as file:
            assert [tuple(row) for row in csv.reader(file, delimiter="\t")] == MESSAGES

    def test_size_and_share(self):
        assert len(MESSAGES) >= 1_500
        assert len(TEXTS["spam"]) / len(MESSAGES) == pytest.approx(0.134, abs=0.01)  # as in the real collection

    def test_classes_are_mixed(self):
        """Any tenth of the file has about its share of spam, so a split by position is fair."""
        tenth = len(MESSAGES) // 10
        shares = [sum(row[0] == "spam" for row in MESSAGES[i * tenth : (i + 1) * tenth]) / tenth for i in range(10)]
        assert min(shares) > 0.06
        assert max(shares) < 0.22

    def test_most_are_written_by_hand(self):
        files = [*SPAM_DIR.glob("source/ham_*.txt"), *SPAM_DIR.glob("source/spam_*.txt")]
        lines = [line for path in files for line in message_set._lines(path)]
        assert len(lines) == len(set(lines))
        assert len(lines) >= 0.7 * len(MESSAGES)

    def test_card_has_the_numbers(self):
        card = (SPAM_DIR / "README.md").read_text(encoding="utf-8")
        for count in (len(MESSAGES), len(TEXTS["ham"]), len(TEXTS["spam"])):
            assert f"{count:,}" in card


class TestTexts:
    def test_lengths(self):
        lengths = sorted(len(get_tokenizer().encode(text)) for _, text in MESSAGES)
        assert lengths[-1] < 120
        assert 10 <= lengths[len(lengths) // 2] <= 40

    def test_no_near_duplicates(self):
        assert near_duplicates(text for _, text in MESSAGES) == []

    @pytest.mark.parametrize(
        "twin",
        [
            "hi mum i dropped my phone in the sink, this is my new number 07700 900999. can you text me on it? x",
            "Hi mum, I drpped my phone in the sink so ths is my new numbr. Can you text me bck on it when you see ths?",
        ],
    )
    def test_a_near_duplicate_would_be_found(self, twin):
        assert [pair[1] for pair in near_duplicates([*TEXTS["spam"], twin])] == [twin]

    def test_links_lead_nowhere(self):
        """Every host ends in .example, which RFC 2606 keeps out of the internet."""
        for _, text in MESSAGES:
            assert not re.search(r"(?i)\b[\w-]+\.(com|org|net|info|co|uk|io|me|ly|gov)\b", text), text
            for host in re.findall(r"(?:https?://|www\.)([^/\s]*)", text):
                assert host.endswith(".example"), text

    def test_numbers_are_nobodys(self):
        """Long numbers come from the ranges kept for drama (Ofcom) and fiction (555-01xx), or are codes."""
        drama = (
            r"07700900\d{3}|(0207946|0113496|0161496|0117496|0141496)0\d{3}|08081570\d{3}|09098790\d{3}|\d{3}55501\d\d"
        )
        for _, text in MESSAGES:
            for run in re.findall(r"\(?\d[\d ()-]{7,}\d", re.sub(r"[A-Z]{2}\d{6}", "", text)):
                assert re.fullmatch(drama, re.sub(r"\D", "", run)), (run, text)
            for short in re.findall(r"\bto (\d{4,6})\b(?! ?\d)", text):
                assert re.fullmatch(r"55\d\d", short), (short, text)

    @pytest.mark.parametrize("length", [7])
    def test_nothing_is_copied_from_the_real_collection(self, length):
        folders = [os.environ.get("COURSE_DATA_DIR"), Path(__file__).parents[2] / "shared" / "data"]
        files = [Path(folder) / "SMSSpamCollection.tsv" for folder in folders if folder]
        real = next((path for path in files if path.exists()), None)
        if real is None:
            pytest.skip("SMSSpamCollection.tsv is not here (COURSE_DATA_DIR)")

        def runs(text):
            return {tuple(words(text)[i : i + length]) for i in range(len(words(text)) - length + 1)}

        lines = real.read_text(encoding="utf-8").split("\n")
        known = set().union(*(runs(line.partition("\t")[2]) for line in lines))
        assert [text for _, text in MESSAGES if runs(text) & known] == []


class TestNoGiveaways:
    def test_no_word_belongs_to_spam_alone(self):
        seen = {label: Counter(word for text in texts for word in set(words(text))) for label, texts in TEXTS.items()}
        assert [word for word, count in seen["spam"].items() if count >= 15 and word not in seen["ham"]] == []
        often = 0.02 * len(TEXTS["spam"])
        alone = {word for word, count in seen["spam"].items() if count >= often and word not in seen["ham"]}
        assert len(alone) < UCI_SPAM_ONLY_WORDS / 4
        assert sum(bool(alone & set(words(text))) for text in TEXTS["spam"]) < len(TEXTS["spam"]) / 4
        assert UCI_SPAM_WITH_SUCH_A_WORD > 2 / 4

    def test_few_words_belong_to_ham_alone(self):
        """Ham is six times as much text, so some words are in it alone by chance; the real collection has 218."""
        seen = {label: Counter(word for text in texts for word in set(words(text))) for label, texts in TEXTS.items()}
        alone = {word for word, count in seen["ham"].items() if count >= 15 and word not in seen["spam"]}
        assert len(alone) < 40
        assert sum(bool(alone & set(words(text))) for text in TEXTS["ham"]) < len(TEXTS["ham"]) / 4

    @pytest.mark.parametrize("trait", TRAITS)
    def test_traits_are_in_both_classes(self, trait):
        ham, spam = (sum(bool(re.search(TRAITS[trait], text)) for text in TEXTS[label]) for label in ("ham", "spam"))
        assert min(ham, spam) >= 15
        assert spam / (ham + spam) <= UCI_SPAM_IF[trait] + 0.03  # no surer sign of spam than in real messages

    def test_firms_are_in_both_classes(self):
        slots = message_set._read_slots()
        for kind in ("bank", "courier", "telco", "shop", "stream", "energy"):
            for firm in slots[kind]:
                assert all(any(firm in text for text in texts) for texts in TEXTS.values()), firm

    def test_hard_cases(self):
        plain = [text for text in TEXTS["spam"] if not re.search(r"[\d£$!]|\.example|[A-Z]{3}", text)]
        assert len(plain) >= 15  # spam without numbers, links, money, capitals or exclamation marks
        shouting = "free|win|won|prize|claim|urgent|congratulations|code|account|offer|password|cash"
        loud = [text for text in TEXTS["ham"] if re.search(rf"(?i)\b({shouting})\b", text)]
        assert len(loud) >= 100


class TestBaseline:
    """Logistic regression on word counts must find the task neither trivial nor hopeless."""

    @staticmethod
    def accuracy(rows, generator):
        """Share of right answers on the last 20 % of the shuffled rows, trained on the first 70 %, per class."""
        rows = [rows[i] for i in torch.randperm(len(rows), generator=generator)]
        train, test = rows[: int(0.7 * len(rows))], rows[int(0.8 * len(rows)) :]
        vocabulary = {word: i for i, word in enumerate(sorted({word for _, text in train for word in words(text)}))}

        def tensors(part):
            counts = torch.zeros(len(part), len(vocabulary))
            for row, (_, text) in enumerate(part):
                for word in words(text):
                    if word in vocabulary:
                        counts[row, vocabulary[word]] += 1
            return counts, torch.tensor([float(label == "spam") for label, _ in part])

        x, y = tensors(train)
        weight = torch.zeros(len(vocabulary) + 1, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")

        def loss():
            optimizer.zero_grad()
            logits = x @ weight[1:] + weight[0]
            value = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
            value = value + weight[1:].square().sum() / 2  # scikit-learn's C = 1
            value.backward()
            return value

        optimizer.step(loss)
        x, y = tensors(test)
        right = ((x @ weight.detach()[1:] + weight.detach()[0] > 0) == (y > 0.5)).float()
        return right.mean().item(), (right[y > 0.5].mean().item() + right[y < 0.5].mean().item()) / 2

    def test_balanced(self):
        generator, scores = torch.Generator().manual_seed(123), []
        for _ in range(6):
            chosen = torch.randperm(len(TEXTS["ham"]), generator=generator)[: len(TEXTS["spam"])]
            rows = [("ham", TEXTS["ham"][i]) for i in chosen] + [("spam", text) for text in TEXTS["spam"]]
            scores.append(self.accuracy(rows, generator)[1])
        assert max(scores) < 0.99
        assert 0.90 <= sum(scores) / len(scores) <= 0.97

    def test_all(self):
        generator = torch.Generator().manual_seed(123)
        scores = [self.accuracy(MESSAGES, generator) for _ in range(2)]
        for accuracy, balanced in scores:
            assert 0.92 < accuracy < 0.99
            assert balanced < 0.97


class TestGenerator:
    def test_a_line_does_not_change_the_others(self, tmp_path, monkeypatch):
        folder = tmp_path / "source"
        folder.mkdir()
        for path in (SPAM_DIR / "source").glob("*.txt"):
            (folder / path.name).write_bytes(path.read_bytes() if path.stem == "slots" else b"# nothing yet\n")
        monkeypatch.setattr(message_set, "SPAM_DIR", tmp_path)
        spam, ham = folder / "spam_offers.txt", folder / "ham_hard.txt"
        spam.write_text("Call {prem} for a {gift|prize}\n", encoding="utf-8")
        before = build_messages()
        ham.write_text("See {link} and ring {name} on {mobile}\n", encoding="utf-8")
        after = build_messages()
        assert len(before) == 1
        assert len(after) == 2
        assert set(before) < set(after)

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("Hello {nobody}\n", r"\{nobody\} is not a slot: Hello \{nobody\}"),
            ("Hello {there|you\n", "braces do not match: Hello"),
            ("Hello there} you\n", "braces do not match: Hello"),
            ("Shall we go to the pool today?\nShall we go to the pool today\n", "too close to"),
        ],
    )
    def test_bad_lines(self, tmp_path, monkeypatch, lines, message):
        folder = tmp_path / "source"
        folder.mkdir()
        for path in (SPAM_DIR / "source").glob("*.txt"):
            (folder / path.name).write_bytes(path.read_bytes() if path.stem == "slots" else b"")
        (folder / "ham_hard.txt").write_text(lines, encoding="utf-8")
        monkeypatch.setattr(message_set, "SPAM_DIR", tmp_path)
        with pytest.raises(ValueError, match=message):
            build_messages()


class TestParaphrases:
    ROWS = read(SPAM_DIR / "paraphrases.tsv")

    def test_form(self):
        assert Counter(label for label, _ in self.ROWS) == {"ham": 24, "spam": 24}
        assert all(text == " ".join(text.split()) for _, text in self.ROWS)
        assert len({text for _, text in self.ROWS}) == 48

    def test_no_address_and_no_short_code(self):
        for label, text in self.ROWS:
            assert ".example" not in text and "http" not in text, text
            assert label == "ham" or not re.search(r"\b\d{4}\b(?! \d)", re.sub(r"0113 496 0090", "", text)), text

    def test_other_words(self):
        """No message of the set shares half of a paraphrase's words (intersection over union)."""
        for _, text in self.ROWS:
            own = set(words(text))
            alike = max((len(own & set(words(other))) / len(own | set(words(other))), other) for _, other in MESSAGES)
            assert alike[0] < 0.5, (text, alike)

    def test_loaded_as_messages(self):
        assert load_messages("paraphrases")["Text"].tolist() == [text for _, text in self.ROWS]
