"""Fine-tuning for classification: data as published, lengths at every edge, padding, losses and the loop by hand."""

import math
import os
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

import helpers
from helpers import (
    Progress,
    SpamDataset,
    calc_accuracy_loader,
    calc_loss_batch_classes,
    calc_loss_loader,
    class_logits,
    classify_review,
    create_balanced_dataset,
    get_tokenizer,
    last_real_token,
    load_messages,
    random_split,
    train_classifier_simple,
    training_steps,
)
from helpers.llama import LlamaModel
from tests.fakes import Letters
from tests.tiny import CPU, TINY, lively_model, tiny_model

REPOSITORY = Path(__file__).parent.parent
PAD = 96  # the last id of the tiny models' vocabulary; Letters(PAD) has all the others


def classifier(seed=1, model=lively_model, **changes):
    """A tiny GPT with two classes in place of its vocabulary."""
    found = model(seed, **changes)
    torch.manual_seed(seed)
    found.out_head = torch.nn.Linear(TINY["emb_dim"], 2)
    return found


def messages(ham=10, spam=4):
    rows = [("ham", f"hello {number}") for number in range(ham)] + [("spam", f"win {number}") for number in range(spam)]
    return pd.DataFrame(rows, columns=["Label", "Text"]).sample(frac=1, random_state=5).reset_index(drop=True)


def write(path, rows, columns=("Label", "Text")):
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)
    return path


class TestData:
    def test_balanced(self):
        df = messages()
        balanced = create_balanced_dataset(df)
        assert balanced["Label"].value_counts().to_dict() == {"ham": 4, "spam": 4}
        assert set(balanced["Text"]) <= set(df["Text"]) and balanced["Text"].is_unique
        expected = df[df["Label"] == "ham"].sample(4, random_state=123)
        assert balanced["Text"].tolist() == [*expected["Text"], *df[df["Label"] == "spam"]["Text"]]
        assert len(df) == 14 and list(df.columns) == ["Label", "Text"]  # left as it was

    @pytest.mark.parametrize(
        ("df", "message"),
        [
            (messages().rename(columns={"Text": "Message"}), r"columns \['Label', 'Message'\]; Label and Text"),
            (pd.DataFrame(), "Label and Text are expected"),
            (messages().replace("spam", "Spam"), "labels other than ham and spam"),
            (messages().assign(Label=1), "labels other than ham and spam"),
            (messages(spam=0), "10 ham and 0 spam"),
            (messages(ham=3), "3 ham and 4 spam"),
        ],
    )
    def test_not_to_be_balanced(self, df, message):
        with pytest.raises(ValueError, match=message):
            create_balanced_dataset(df)

    def test_split(self):
        df = pd.DataFrame({"Label": range(29), "Text": [str(number) for number in range(29)]})
        parts = random_split(df, 0.7, 0.1)
        assert [len(part) for part in parts] == [20, 2, 7]  # both fractions are rounded down
        together = pd.concat(parts)
        assert together["Label"].tolist() == df.sample(frac=1, random_state=123)["Label"].tolist()
        assert together.index.tolist() == list(range(29))
        assert [len(part) for part in random_split(df, 1, 0)] == [29, 0, 0]

    @pytest.mark.parametrize("fractions", [(-0.1, 0.1), (0.7, -0.1), (0.8, 0.3)])
    def test_not_to_be_split(self, fractions):
        with pytest.raises(ValueError, match=f"train_frac={fractions[0]}, validation_frac={fractions[1]}"):
            random_split(messages(), *fractions)

    def test_the_embedded_set(self):
        balanced = create_balanced_dataset(load_messages("messages"))
        counts = balanced["Label"].value_counts()
        assert counts["ham"] == counts["spam"] > 200

    def test_the_published_set(self, tmp_path, monkeypatch):
        """5,572 rows, 747 of them spam; 1,045, 149 and 300 after the split; 130, 19, 38 batches; 120 tokens."""
        folder = os.environ.get("COURSE_DATA_DIR") or str(REPOSITORY.parent / "shared" / "data")
        if not (Path(folder) / "SMSSpamCollection.tsv").exists():
            pytest.skip("the SMS Spam Collection is not here: name its folder in COURSE_DATA_DIR")
        monkeypatch.setenv("COURSE_DATA_DIR", folder)
        df = load_messages("sms-spam-collection")
        assert (len(df), (df["Label"] == "spam").sum()) == (5572, 747)
        balanced = create_balanced_dataset(df)
        balanced["Label"] = balanced["Label"].map({"ham": 0, "spam": 1})
        parts = random_split(balanced, 0.7, 0.1)
        assert [len(part) for part in parts] == [1045, 149, 300]
        for part, name in zip(parts, ("train", "validation", "test"), strict=True):
            part.to_csv(tmp_path / f"{name}.csv", index=False)
        train = SpamDataset(tmp_path / "train.csv", get_tokenizer())
        assert train.max_length == 120
        others = [SpamDataset(tmp_path / f"{n}.csv", get_tokenizer(), max_length=120) for n in ("validation", "test")]
        batches = [len(DataLoader(train, 8, drop_last=True)), *(len(DataLoader(other, 8)) for other in others)]
        assert batches == [130, 19, 38]
        # What chapter 6 says of the bag of words on this set: as good as the published 95.7 percent of GPT-2.
        baseline = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1000))
        baseline.fit(parts[0]["Text"], parts[0]["Label"])
        assert f"{baseline.score(parts[2]['Text'], parts[2]['Label']):.1%}" == "95.7%"


class TestSpamDataset:
    def test_padding_and_cutting(self, tmp_path):
        file = write(tmp_path / "a.csv", [(0, "abc"), (1, "abcdef"), (1, "a")])
        a, b, c, d, e, f = Letters(PAD).encode("abcdef")
        longest = SpamDataset(file, Letters(PAD), pad_token_id=PAD)
        assert len(longest) == 3 and longest.max_length == 6
        assert [ids.tolist() for ids, _ in longest] == [[a, b, c, PAD, PAD, PAD], [a, b, c, d, e, f], [a] + 5 * [PAD]]
        assert [label.item() for _, label in longest] == [0, 1, 1]
        ids, label = longest[1]
        assert ids.dtype == label.dtype == torch.int64 and label.shape == ()
        short = SpamDataset(file, Letters(PAD), max_length=3, pad_token_id=PAD)
        assert [ids.tolist() for ids, _ in short] == [[a, b, c], [a, b, c], [a, PAD, PAD]]
        assert SpamDataset(file, Letters(PAD), max_length=1)[1][0].tolist() == [a]

    def test_gpt2_pads_with_end_of_text(self, tmp_path):
        file = write(tmp_path / "a.csv", [(1, "Call now"), (0, "Hi")])
        assert SpamDataset(file, get_tokenizer())[1][0].tolist() == [*get_tokenizer().encode("Hi"), 50256]

    @pytest.mark.parametrize("text", ["NA", "nan", "None", "null", "5", "3.50", 'a, "b"', " x"])
    def test_a_text_is_what_was_written(self, tmp_path, text):
        file = write(tmp_path / "a.csv", [(0, text)])
        assert SpamDataset(file, Letters(PAD))[0][0].tolist() == Letters(PAD).encode(text)

    @pytest.mark.parametrize(
        ("rows", "columns", "message"),
        [
            ([(0, "a")], ("label", "Text"), "a.csv has no Label column"),
            ([(0, "a")], ("Label", "Message"), "a.csv has no Text column"),
            ([], ("Label", "Text"), "a.csv has no rows"),
            ([("ham", "a")], ("Label", "Text"), "has a label other than 0 and 1"),
            ([(0, "a"), (2, "b")], ("Label", "Text"), "has a label other than 0 and 1"),
            ([(0, "a"), (-100, "b")], ("Label", "Text"), "has a label other than 0 and 1"),
            ([(0, "a"), (None, "b")], ("Label", "Text"), "has a label other than 0 and 1"),
            ([(0, "a"), (1, "")], ("Label", "Text"), "row 1 of .*a.csv has an empty text"),
        ],
    )
    def test_files_that_are_not_right(self, tmp_path, rows, columns, message):
        with pytest.raises(ValueError, match=message):
            SpamDataset(write(tmp_path / "a.csv", rows, columns), Letters(PAD))

    @pytest.mark.parametrize("max_length", [0, -1])
    def test_max_length(self, tmp_path, max_length):
        with pytest.raises(ValueError, match=f"max_length={max_length} must be at least 1"):
            SpamDataset(write(tmp_path / "a.csv", [(0, "a")]), Letters(PAD), max_length=max_length)

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            SpamDataset(tmp_path / "nowhere.csv", Letters(PAD))


ROWS = torch.tensor([[5, 6, 7, PAD, PAD], [1, 2, 3, 4, 5], [9, PAD, PAD, PAD, PAD], [PAD] * 5, [8, PAD, 7, PAD, PAD]])


class TestReading:
    def test_last_real_token(self):
        assert last_real_token(ROWS, PAD).tolist() == [2, 4, 0, 0, 2]  # padding inside a text is part of it
        assert last_real_token(torch.tensor([[3, 50256, 50256]])).tolist() == [0]

    def test_class_logits(self):
        model = classifier()
        with torch.no_grad():
            everywhere = model(ROWS)  # (B, T, 2)
            assert torch.equal(class_logits(ROWS, model, CPU), everywhere[:, -1])
            assert torch.equal(class_logits(ROWS, model, CPU, read_at=0), everywhere[:, 0])
            real = class_logits(ROWS, model, CPU, read_at=partial(last_real_token, pad_token_id=PAD))
        assert real.shape == (5, 2)
        for row, place in enumerate((2, 4, 0, 0, 2)):
            assert torch.equal(real[row], everywhere[row, place])

    @pytest.mark.parametrize("text", ["a", "hello", "sixteen letters!"])
    def test_the_last_real_token_does_not_care_about_padding(self, text):
        """And the last position does."""
        model, ids = classifier(), Letters(PAD).encode(text)
        read = partial(last_real_token, pad_token_id=PAD)
        rows = [torch.tensor([ids + [PAD] * extra]) for extra in range(17 - len(ids))]
        with torch.no_grad():
            real = [class_logits(row, model, CPU, read) for row in rows]
            last = [class_logits(row, model, CPU) for row in rows]
        for scores in real:
            assert_close(scores, real[0], rtol=1e-5, atol=1e-6)
        assert torch.equal(last[0], real[0])
        assert all((scores - last[0]).abs().max() > 1e-2 for scores in last[1:])

    def test_whether_alone_or_beside_a_longer_text(self):
        model, read = classifier(), partial(last_real_token, pad_token_id=PAD)
        with torch.no_grad():
            alone = class_logits(ROWS[:1, :3], model, CPU, read)
            assert_close(class_logits(ROWS, model, CPU, read)[:1], alone, rtol=1e-5, atol=1e-6)


class TestLossAndAccuracy:
    def test_a_batch_by_hand(self):
        model, labels = classifier(), torch.tensor([0, 1, 1, 0, 1])
        log_p = torch.log_softmax(model(ROWS)[:, -1].double(), dim=-1)
        by_hand = -sum(log_p[row, label] for row, label in enumerate(labels.tolist())) / 5
        loss = calc_loss_batch_classes(ROWS, labels, model, CPU)
        assert loss.shape == () and loss.requires_grad
        assert_close(loss.double(), by_hand)
        first = F.cross_entropy(model(ROWS)[:, 0], labels)
        assert_close(calc_loss_batch_classes(ROWS, labels, model, CPU, read_at=0), first)

    def test_the_two_scores_of_the_notebook(self):
        class Fixed(torch.nn.Module):
            def forward(self, ids):
                return torch.tensor([1.2, -0.4]).expand(*ids.shape, 2)

        losses = [calc_loss_batch_classes(ROWS[:1], torch.tensor([label]), Fixed(), CPU).item() for label in (0, 1)]
        assert losses == pytest.approx([0.1839, 1.7839], abs=1e-4)
        assert losses[1] - losses[0] == pytest.approx(1.6, abs=1e-5)

    @pytest.mark.parametrize("label", [2, -1, -100])
    def test_labels_outside_the_classes(self, label):
        with pytest.raises(ValueError, match=f"the label {label}; the model has the classes 0 to 1"):
            calc_loss_batch_classes(ROWS, torch.tensor([0, 1, label, 0, 1]), classifier(), CPU)

    def loader(self, rows=7, batch_size=2, seed=0, **options):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(0, PAD, (rows, 6), generator=generator)
        return DataLoader(TensorDataset(ids, (ids[:, 0] > 48).long()), batch_size=batch_size, **options)

    def test_accuracy_against_counting(self):
        model, data = classifier(), self.loader(7)
        model.train()
        answers = [(model.eval()(x)[0, -1].argmax() == y[0]).item() for x, y in self.loader(7, batch_size=1)]
        model.train()
        assert calc_accuracy_loader(data, model, CPU) == sum(answers) / 7  # messages count alike, not batches
        assert calc_accuracy_loader(data, model, CPU, num_batches=2) == sum(answers[:4]) / 4
        assert calc_accuracy_loader(data, model, CPU, num_batches=99) == sum(answers) / 7
        assert model.training
        model.eval()
        calc_accuracy_loader(data, model, CPU)
        assert not model.training

    def test_accuracy_without_dropout(self):
        model, data = classifier(drop_rate=0.9), self.loader(60)
        model.train()
        assert len({calc_accuracy_loader(data, model, CPU) for _ in range(4)}) == 1

    def test_accuracy_keeps_no_gradients(self):
        model = classifier()
        calc_accuracy_loader(self.loader(), model, CPU)
        assert all(parameter.grad is None for parameter in model.parameters())

    @pytest.mark.parametrize(("rows", "num_batches"), [(1, None), (1, 5), (4, 0)])
    def test_nothing_to_count(self, rows, num_batches):
        data = self.loader(rows, drop_last=True)
        message = f"data_loader has {rows // 2} batches and num_batches={num_batches}: nothing to count"
        with pytest.raises(ValueError, match=message):
            calc_accuracy_loader(data, classifier(), CPU, num_batches)

    @pytest.mark.parametrize("training", [False, True])
    def test_no_accuracy_of_a_model_without_numbers(self, training):
        model = classifier().train(training)
        model.out_head.weight.data[0, 0] = math.nan
        with pytest.raises(ValueError, match="logits contain NaN"):
            calc_accuracy_loader(self.loader(), model, CPU)
        assert all(module.training == training for module in model.modules())

    def test_loss_of_a_loader(self):
        model, data = classifier(), self.loader(7)
        losses = [calc_loss_batch_classes(x, y, model, CPU).item() for x, y in data]
        assert calc_loss_loader(data, model, CPU, loss_function=calc_loss_batch_classes) == sum(losses) / 4


class TestTraining:
    loader = TestLossAndAccuracy.loader

    def test_history(self, capsys):
        model = classifier(model=tiny_model)
        train, val = self.loader(11, shuffle=True), self.loader(4, seed=1)  # 6 batches, the last of one
        history = train_classifier_simple(
            model, train, val, torch.optim.AdamW(model.parameters(), lr=1e-3), CPU, 2, 5, eval_iter=2
        )
        train_losses, val_losses, train_accs, val_accs, examples_seen = history
        assert [len(values) for values in history[:4]] == [3, 3, 2, 2]  # updates 0, 5, 10; epochs 1, 2
        assert examples_seen == 22
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"Ep 1 (Step 000000): Train loss {train_losses[0]:.3f}, Val loss {val_losses[0]:.3f}"
        assert lines[2] == f"Ep 1: Training accuracy {train_accs[0]:.2%}, Validation accuracy {val_accs[0]:.2%}"
        assert lines[3].startswith("Ep 2 (Step 000010)") and len(lines) == 5
        assert val_accs[-1] == calc_accuracy_loader(val, model, CPU, 2)

    @pytest.mark.parametrize("grown", [False, True])
    def test_rows_of_several_lengths(self, grown):
        """A collate function may pad each batch to its own longest row; rows may also be vectors for each token."""
        model = classifier(model=tiny_model)
        data = [(torch.ones(2 + row, dtype=torch.int64), torch.tensor(row % 2)) for row in range(8)]

        def collate(batch):
            rows = torch.nn.utils.rnn.pad_sequence([row for row, _ in batch], batch_first=True)
            return torch.stack([rows] * 5, dim=-1) if grown else rows, torch.stack([label for _, label in batch])

        if grown:  # each token has five numbers, of which the model reads the first
            model.register_forward_pre_hook(lambda module, inputs: inputs[0][..., 0])
        train = DataLoader(data, 3, collate_fn=collate)
        optimizer = torch.optim.AdamW(model.parameters())
        progress = Progress()
        history = train_classifier_simple(model, train, train, optimizer, CPU, 2, 9, 1, progress=progress)
        assert history[-1] == progress.rows_seen == 16
        assert train_classifier_simple(model, train, train, optimizer, CPU, 3, 9, 1, progress=progress)[-1] == 24

    @pytest.mark.parametrize("read_at", [-1, 0, last_real_token])
    def test_agrees_with_a_slow_loop_bit_for_bit(self, read_at):
        ours, theirs = classifier(model=tiny_model), classifier(model=tiny_model)
        train, val = self.loader(8), self.loader(4, seed=1)
        optimizer = torch.optim.AdamW(ours.parameters(), lr=1e-2)
        train_classifier_simple(ours, train, val, optimizer, CPU, 2, 3, None, read_at=read_at)
        optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
        for _ in range(2):
            for ids, labels in train:
                optimizer.zero_grad()
                logits = theirs(ids)  # (B, T, 2); no id is the end of text, so the last real token is the last
                F.cross_entropy(logits[:, 0 if read_at == 0 else 5], labels).backward()
                optimizer.step()
        for name, weight in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], weight), name

    def test_the_loop_is_the_courses(self, monkeypatch):
        called = []

        def watched(*args, **options):
            called.append(1)
            return training_steps(*args, **options)

        monkeypatch.setattr("helpers.training.training_steps", watched)
        model = classifier(model=tiny_model)
        train_classifier_simple(
            model, self.loader(), self.loader(), torch.optim.AdamW(model.parameters()), CPU, 1, 9, 1
        )
        assert called == [1]

    def test_learns_and_leaves_frozen_weights_alone(self, capsys):
        model = classifier(model=tiny_model)
        model.requires_grad_(False)
        for part in (model.trf_blocks[-1], model.final_norm, model.out_head):
            part.requires_grad_(True)
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        train = self.loader(64, batch_size=8)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        _, _, train_accs, _, _ = train_classifier_simple(model, train, train, optimizer, CPU, 20, 50, None)
        assert train_accs[-1] > 0.9
        for name, weight in model.state_dict().items():
            frozen = not name.startswith(("trf_blocks.1", "final_norm", "out_head")) or name.endswith("mask")
            assert torch.equal(weight, before[name]) == frozen, name

    def test_interruption(self, capsys):
        calls = []

        def read_at(ids):
            calls.append(1)
            if len(calls) > 20:
                raise KeyboardInterrupt
            return last_real_token(ids)

        model = classifier(model=tiny_model)
        history = train_classifier_simple(
            model, self.loader(8), self.loader(4), torch.optim.AdamW(model.parameters()), CPU, 99, 1, 1, read_at
        )
        assert len(history[0]) == len(history[1]) > 0 and history[4] > 0
        assert "the model keeps what it has learned" in capsys.readouterr().out

    def test_empty(self):
        model = classifier(model=tiny_model)
        with pytest.raises(ValueError, match="train_loader has 0 batches"):
            train_classifier_simple(
                model,
                self.loader(1, drop_last=True),
                self.loader(),
                torch.optim.AdamW(model.parameters()),
                CPU,
                1,
                1,
                1,
            )


class TestClassifyReview:
    """The tiny models' context is 16 tokens."""

    def answer(self, model, ids, place=-1):
        with torch.no_grad():
            return ["not spam", "spam"][model(torch.tensor([ids]))[0, place].argmax()]

    @pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 200])
    @pytest.mark.parametrize("max_length", [None, 1, 8, 16, 17, 99])
    def test_lengths(self, length, max_length):
        text = "".join(chr(40 + (7 * place) % 50) for place in range(length))
        ids = Letters(PAD).encode(text)[: min(max_length or 16, 16)]
        padded = ids + [PAD] * (min(max_length or 0, 16) - len(ids))
        answers = set()
        for seed in range(6):
            model = classifier(seed)
            got = classify_review(text, model, Letters(PAD), CPU, max_length, PAD)
            assert got == self.answer(model, padded)
            answers.add(got)
        assert answers == {"spam", "not spam"} or length in (1, 2)  # the seeds do not all agree

    def test_reads_where_it_is_told(self):
        read = partial(last_real_token, pad_token_id=PAD)
        differ = 0
        for seed in range(12):
            model = classifier(seed)
            plain = classify_review("hello", model, Letters(PAD), CPU)
            assert classify_review("hello", model, Letters(PAD), CPU, 14, PAD, read_at=read) == plain
            differ += classify_review("hello", model, Letters(PAD), CPU, 14, PAD) != plain
        assert differ  # padding does change an answer that is read at the last position

    @pytest.mark.parametrize("max_length", [None, 5])
    def test_empty(self, max_length):
        with pytest.raises(ValueError, match="text is empty"):
            classify_review("", classifier(), Letters(PAD), CPU, max_length)

    @pytest.mark.parametrize("max_length", [0, -3])
    def test_max_length(self, max_length):
        with pytest.raises(ValueError, match=f"max_length={max_length} must be at least 1"):
            classify_review("hello", classifier(), Letters(PAD), CPU, max_length)

    def test_a_llama(self):
        torch.manual_seed(1)
        sizes = {"vocab_size": 97, "context_length": 16, "emb_dim": 24, "n_heads": 3, "n_kv_heads": 1, "n_layers": 1}
        model = LlamaModel({**sizes, "hidden_dim": 48, "rope_base": 1e4, "norm_eps": 1e-5}).eval()
        model.out_head = torch.nn.Linear(24, 2)
        for text, ids in (("hello", Letters(PAD).encode("hello")), ("h" * 99, Letters(PAD).encode("h" * 16))):
            assert classify_review(text, model, Letters(PAD), CPU) == self.answer(model, ids)

    def test_models_that_cannot_answer(self):
        model = classifier()
        model.out_head.weight.data.fill_(math.nan)
        with pytest.raises(ValueError, match="logits contain NaN"):
            classify_review("hello", model, Letters(PAD), CPU)
        model.pos_emb = torch.nn.Identity()
        with pytest.raises(ValueError, match="model does not say how many tokens it reads at once"):
            classify_review("hello", model, Letters(PAD), CPU)

    def test_without_dropout(self):
        model = classifier(drop_rate=0.9)
        model.train()
        assert len({classify_review("hello", model, Letters(PAD), CPU) for _ in range(12)}) == 1


def test_plot_values():
    fig = helpers.plot_values([0, 1, 2], [0, 10, 20], [0.5, 0.7, 0.9], [0.5, 0.6, 0.7], label="accuracy")
    ax, top = fig.axes
    assert (ax.get_xlabel(), ax.get_ylabel(), top.get_xlabel()) == ("epochs", "accuracy", "examples seen")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.5, 0.7, 0.9], [0.5, 0.6, 0.7]]
    assert top.get_xlim()[1] == pytest.approx(10 * ax.get_xlim()[1])


def test_start_of_training_is_ln_2():
    model = classifier(model=tiny_model)
    with torch.no_grad():
        model.out_head.weight.zero_(), model.out_head.bias.zero_()
    loss = calc_loss_batch_classes(ROWS, torch.tensor([0, 1, 1, 0, 1]), model, CPU)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
