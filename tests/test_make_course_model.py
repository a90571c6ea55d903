"""The course model's script: its losses, its text, and runs of a tiny model through the command line."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from helpers import get_tokenizer, load_course_model
from helpers.checkpoints import read_checkpoint
from helpers.gpt import model_config
from helpers.make import course_model
from helpers.make.corpus_tokens import (
    COLLECTIONS,
    HELD_OUT,
    VOCABULARY,
    Classes,
    DrawnWindows,
    prepare,
    read_tokens,
    windows_in_order,
)
from helpers.make.distillation import DistillationLoss
from helpers.pretrained import save_course_model
from helpers.speed.loss import SoftmaxLoss
from helpers.tokenizers import END_OF_TEXT
from tests.tiny import CPU, TINY

CLASSES, WIDTH = 60, 16
EXACT = {"rtol": 1e-4, "atol": 1e-6}  # for products in float32


def loss_case(rows=25, scale=0.0, seed=1):
    """Hidden states, a table of classes, and targets. `scale` says how far a hidden state points at its target."""
    generator = torch.Generator().manual_seed(seed)
    table = 4 * F.normalize(torch.randn(CLASSES, WIDTH, generator=generator), dim=-1)
    targets = torch.randint(0, CLASSES, (rows,), generator=generator)
    hidden = 0.5 * torch.randn(rows, WIDTH, generator=generator) + scale * table[targets]
    return hidden.requires_grad_(), table.requires_grad_(), targets


def softmax_loss(hidden, table, targets, columns=None, log_weight=None, exact=None, chunk=1024, dtype=torch.float32):
    """The loss, and its gradients for the hidden states and the table."""
    loss = SoftmaxLoss.apply(hidden, table, targets, columns, log_weight, exact, chunk, dtype)
    return loss.detach(), *torch.autograd.grad(loss, (hidden, table))


def reference(hidden, table, targets, columns=None, log_weight=None, exact=CLASSES):
    """The same by definition, one row at a time: PyTorch's cross-entropy in float32 over the logits that count."""
    losses = []
    columns = torch.arange(CLASSES) if columns is None else columns
    log_weight = torch.zeros(len(columns)) if log_weight is None else log_weight
    for x, target in zip(hidden, targets, strict=True):
        own = target >= exact
        counted = columns != target if own else torch.ones(len(columns), dtype=torch.bool)
        logits = (table[columns] @ x + log_weight)[counted]
        if own:
            logits = torch.cat((logits, (table[target] @ x)[None]))
        place = len(logits) - 1 if own else int((columns == target).nonzero())
        losses.append(F.cross_entropy(logits, torch.tensor(place)))
    loss = torch.stack(losses).mean()
    return loss.detach(), *torch.autograd.grad(loss, (hidden, table))


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


class TestExactLoss:
    @pytest.mark.parametrize(("rows", "chunk"), [(25, 1024), (25, 8), (24, 8), (1, 1), (7, 1)])
    def test_against_cross_entropy(self, rows, chunk):
        case = loss_case(rows)
        assert_close(softmax_loss(*case, chunk=chunk), reference(*case), **EXACT)

    def test_tiles_smaller_than_a_chunk(self):
        """More rows than have their logits in the cache at once."""
        case = loss_case(5000)
        hidden, table, targets = case
        loss = F.cross_entropy(hidden @ table.T, targets)
        expected = loss.detach(), *torch.autograd.grad(loss, (hidden, table))
        assert_close(softmax_loss(*case, chunk=5000), expected, **EXACT)

    @pytest.mark.parametrize(
        ("scale", "smaller_than"), [(0, 10), (0.5, 1), (1, 0.01), (1.5, 1e-3), (2, 1e-4), (3, 1e-6)]
    )
    def test_small_losses(self, scale, smaller_than):
        """Down to where 1 - p is lost in float32. What remains in bfloat16 is the rounding of the products."""
        case = loss_case(scale=scale)
        hidden, table, targets = case[0].detach().double(), case[1].detach().double(), case[2]
        logits = hidden.requires_grad_() @ table.requires_grad_().T
        loss = F.cross_entropy(logits, targets)
        assert loss < smaller_than
        expected = [loss.detach(), *torch.autograd.grad(loss, (hidden, table))]
        for found, right in zip(softmax_loss(*case), expected, strict=True):
            assert relative_error(found, right) < 1e-4
        rounding = logits.abs().max().item() * 2**-9  # of a logit in bfloat16
        products = hidden.bfloat16() @ table.bfloat16().T
        rounded = F.cross_entropy(products.double(), targets)
        assert softmax_loss(*case, dtype=torch.bfloat16)[0].item() == pytest.approx(rounded.item(), rel=1e-3)
        for found, right in zip(softmax_loss(*case, dtype=torch.bfloat16), expected, strict=True):
            assert relative_error(found, right) < 0.01 + 2 * rounding

    def test_a_large_loss(self):
        """A target with a probability far below the smallest float."""
        hidden, table, targets = loss_case(1)
        with torch.no_grad():
            hidden.mul_(1 / hidden.norm())
            table.zero_()[targets[0] - 1] = 300 * hidden[0]
        assert_close(softmax_loss(hidden, table, targets), reference(hidden, table, targets), **EXACT)
        assert softmax_loss(hidden, table, targets)[0] > 299

    def test_a_class_that_stands_for_several(self):
        """Is the same as that many classes with equal rows."""
        hidden, table, targets = loss_case()
        targets = targets.clamp(min=1)
        log_weight = torch.zeros(CLASSES)
        log_weight[0] = math.log(7)
        found = softmax_loss(hidden, table, targets, log_weight=log_weight)
        loss = F.cross_entropy(hidden @ torch.cat((table[:1].expand(6, -1), table)).T, targets + 6)
        assert_close(found, (loss.detach(), *torch.autograd.grad(loss, (hidden, table))), **EXACT)


class TestEstimatedLoss:
    @pytest.mark.parametrize("exact", [0, 20, 59])
    @pytest.mark.parametrize("chunk", [1024, 8])
    def test_all_drawn_is_exact(self, exact, chunk):
        """A drawn target is not counted twice."""
        case = loss_case()
        order = torch.randperm(CLASSES - exact, generator=torch.Generator().manual_seed(5))
        columns = torch.cat((torch.arange(exact), exact + order))
        found = softmax_loss(*case, columns, torch.zeros(CLASSES), exact, chunk)
        assert_close(found, reference(*case), **EXACT)

    @pytest.mark.parametrize("scale", [0, 1, 2])
    @pytest.mark.parametrize("drawn", [1, 10, 30])
    def test_against_the_definition(self, scale, drawn):
        case = loss_case(scale=scale)
        columns = torch.cat((torch.arange(20), 20 + torch.randperm(40, generator=torch.Generator().manual_seed(5))))
        columns, log_weight = columns[: 20 + drawn], torch.zeros(20 + drawn)
        log_weight[20:], log_weight[0] = math.log(40 / drawn), math.log(7)
        targets = case[2]
        assert (targets < 20).any() and (drawn == 1 or (targets[:, None] == columns[20:]).any())
        assert (targets[:, None] != columns).all(dim=1).any()  # neither exact nor drawn
        expected = reference(*case, columns, log_weight, 20)
        for found, right in zip(softmax_loss(*case, columns, log_weight, 20, 8), expected, strict=True):
            assert relative_error(found, right) < 1e-3
        found = softmax_loss(*case, columns, log_weight, 20, 8, torch.bfloat16)
        assert max(map(relative_error, found, expected)) < 0.15


def distillation_case(rows=25):
    """A student, two teachers as (hidden states, table), and the classes' weights."""
    (hidden, table, _), *teachers = (loss_case(rows, seed=seed) for seed in (1, 2, 3))
    log_weight = torch.zeros(CLASSES)
    log_weight[0] = math.log(7)
    return hidden, table, [(x.detach(), t.detach()) for x, t, _ in teachers], log_weight


def distillation(hidden, table, teachers, columns, log_weight, chunk=1024, dtype=torch.float32):
    """The loss, and its gradients for the student's hidden states and table."""
    loss = DistillationLoss.apply(hidden, table, teachers, columns, log_weight, chunk, dtype)
    return loss.detach(), *torch.autograd.grad(loss, (hidden, table))


class TestDistillation:
    @pytest.mark.parametrize(("rows", "chunk"), [(25, 1024), (25, 8), (1, 1), (9000, 5000)])
    @pytest.mark.parametrize("some", [False, True])
    def test_against_the_definition(self, rows, chunk, some):
        """PyTorch's divergence from the teachers' mean, in which a class that stands for seven counts so often."""
        hidden, table, teachers, log_weight = distillation_case(rows)
        columns = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(5))[:40] if some else None
        used = slice(None) if columns is None else columns
        log_p = (hidden @ table[used].T + log_weight[used]).log_softmax(dim=-1)
        q = sum((x @ t[used].T + log_weight[used]).softmax(dim=-1) for x, t in teachers) / 2
        loss = F.kl_div(log_p, q, reduction="batchmean")
        expected = loss.detach(), *torch.autograd.grad(loss, (hidden, table))
        weights = log_weight[used]
        assert_close(distillation(hidden, table, teachers, columns, weights, chunk), expected, **EXACT)
        found = distillation(hidden, table, teachers, columns, weights, chunk, torch.bfloat16)
        assert max(map(relative_error, found, expected)) < 0.02

    def test_a_student_that_agrees_has_no_loss(self):
        hidden, table, _, log_weight = distillation_case()
        own = (hidden.detach(), table.detach())
        loss, *gradients = distillation(hidden, table, [own, own], None, log_weight)
        assert abs(loss) < 1e-6 and all(gradient.abs().max() < 1e-7 for gradient in gradients)

    def test_a_probability_of_zero(self):
        """The teacher excludes a class: 0 log 0 is 0."""
        hidden, table, teachers, log_weight = distillation_case(2)
        x, t = teachers[0]
        loss, *gradients = distillation(hidden, table, [(1000 * x, t)], None, log_weight)
        assert loss > 0 and all(gradient.isfinite().all() for gradient in (loss, *gradients))


WORDS = ["".join((a, b, c, d)) for a in "bdfgklmnpr" for b in "aeiou" for c in "lmnrst" for d in ("", "y")]


def story(random, sentences=12):
    return " ".join(f"The {' '.join(random.choice(WORDS[:400], 6))}." for _ in range(sentences))


@pytest.fixture(name="texts", scope="module")
def folders_of_texts(tmp_path_factory):
    """A corpus folder and a modern folder with some of the real files' names."""
    random, base = np.random.default_rng(1), tmp_path_factory.mktemp("texts")
    names = (*HELD_OUT[::2], *COLLECTIONS, "simple/a.txt", "general/b.txt", "modern/self-dialogue-corpus.txt")
    for name in (*names, "modern/fables.txt"):
        path = base / ("modern" if name.startswith("modern/") else "corpus") / name.removeprefix("modern/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n<|endoftext|>\n".join(story(random) for _ in range(30)))
    return base / "corpus", base / "modern"


@pytest.fixture(name="tokens", scope="module")
def file_of_tokens(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.npz"
    course_model.main(["prepare", *map(str, texts), str(path)])
    return path


class TestText:
    def test_sources(self, tokens, texts):
        training, held_out = read_tokens(tokens)
        assert set(training) == {"stories", "dialogue", "simple", "general"}
        assert set(held_out) == {*HELD_OUT[::2], *COLLECTIONS}
        tokenizer, corpus = get_tokenizer(), texts[0]
        text = (corpus / "general" / "b.txt").read_text()
        ids = tokenizer.encode(text, allowed_special={"<|endoftext|>"})
        assert training["general"].tolist() == [*ids, END_OF_TEXT]
        dialogue = tokenizer.decode(training["dialogue"].tolist())
        assert (texts[1] / "self-dialogue-corpus.txt").read_text() in dialogue

    def test_collections_lose_their_last_twentieth(self, tokens, texts):
        training, held_out = read_tokens(tokens)
        name = COLLECTIONS[0]
        text = (texts[0] / name).read_text()
        kept_aside = get_tokenizer().decode(held_out[name].tolist())
        assert text.endswith(kept_aside.removesuffix("<|endoftext|>")) and 0.05 <= len(kept_aside) / len(text) < 0.1
        shown = get_tokenizer().decode(training["stories"].tolist())
        assert text[: len(text) - len(kept_aside)] in shown and kept_aside[20:200] not in shown

    def test_held_out_texts_are_not_trained_on(self, tokens, texts):
        training, _ = read_tokens(tokens)
        decoded = [get_tokenizer().decode(ids.tolist()) for ids in training.values()]
        for name in HELD_OUT[::2]:
            beginning = (texts[0] / name).read_text()[:200]
            assert not any(beginning in text for text in decoded)

    def test_what_is_refused(self, texts, tmp_path):
        (tmp_path / "simple").mkdir()
        with pytest.raises(ValueError, match="have no text to train on"):
            prepare(tmp_path, tmp_path, tmp_path / "tokens.npz")
        (tmp_path / "simple" / "one.txt").write_text("One.")
        with pytest.raises(ValueError, match="have no held-out text, such as simple/peter-pan"):
            prepare(tmp_path, tmp_path, tmp_path / "tokens.npz")
        (tmp_path / COLLECTIONS[0]).write_text("Two.")
        with pytest.raises(ValueError, match=r"has no line <\|endoftext\|> in its first 95 %"):
            prepare(tmp_path, tmp_path, tmp_path / "tokens.npz")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "three.txt").write_text("Three.")
        (tmp_path / COLLECTIONS[0]).unlink()
        with pytest.raises(ValueError, match=r"other/three\.txt belongs to no source"):
            prepare(tmp_path, tmp_path, tmp_path / "tokens.npz")
        assert not (tmp_path / "tokens.npz").exists()

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4 and no more"])
    def test_other_files(self, tmp_path, content):
        (tmp_path / "tokens.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of tokens that `prepare` wrote"):
            read_tokens(tmp_path / "tokens.npz")
        np.savez(tmp_path / "tokens.npz", numbers=np.arange(3))
        with pytest.raises(ValueError, match="is not a file of tokens"):
            read_tokens(tmp_path / "tokens.npz")

    def test_classes(self):
        """By frequency, and each source counts alike: 9 is one in two of a short source, 5 three in four of a long."""
        classes = Classes({"long": np.array([5, 5, 5, 7] * 100, np.uint16), "short": np.array([9, 3], np.uint16)})
        assert [classes.of_token[token] for token in (5, 3, 9, 7)] == [1, 2, 3, 4]
        assert classes.count == 5 and classes.unseen == VOCABULARY - 4
        assert (classes.of_token == 0).sum() == classes.unseen

    def test_windows_in_order(self):
        assert windows_in_order(np.arange(8), 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
        assert windows_in_order(np.arange(7), 3).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
        assert windows_in_order(np.arange(3), 3).shape == windows_in_order(np.arange(0), 3).shape == (0, 4)


def drawn(mix, updates=range(400), seed=1, batch=5):
    sources = {"a": np.arange(100, 120), "b": np.arange(200, 205), "c": np.arange(300, 304)}
    return list(DrawnWindows(sources, mix, batch, 4, seed, updates))


class TestDrawnWindows:
    def test_targets_are_the_next_tokens_of_one_source(self):
        for inputs, targets in drawn({"b": 1, "a": 1}):
            assert inputs.shape == targets.shape == (5, 4) and inputs.dtype == torch.int64
            assert torch.equal(targets, inputs + 1)

    def test_shares_and_places(self):
        inputs = torch.cat([inputs for inputs, _ in drawn({"a": 3, "b": 1})])
        assert (inputs[:, 0] < 200).float().mean().item() == pytest.approx(0.75, abs=0.03)
        begins = inputs[inputs[:, 0] < 200][:, 0].bincount()[100:]
        assert len(begins) == 16 and begins.min() > 50  # each place of 20 - 4, alike often

    def test_an_update_has_its_windows(self):
        """Whatever came before it; another seed or update has others."""
        whole, part = drawn({"a": 1, "b": 1}), drawn({"a": 1, "b": 1}, range(7, 9))
        assert torch.equal(whole[7][0], part[0][0]) and torch.equal(whole[8][1], part[1][1])
        assert not torch.equal(whole[7][0], whole[8][0])
        assert not torch.equal(whole[7][0], drawn({"a": 1, "b": 1}, seed=2)[7][0])

    def test_what_is_refused(self):
        with pytest.raises(ValueError, match="mix has 'd'; the sources are a, b, c"):
            drawn({"d": 1})
        with pytest.raises(ValueError, match="c has 4 tokens; a window needs 5"):
            drawn({"a": 1, "c": 1})


@pytest.fixture(autouse=True, scope="module")
def small_softmax():
    """So few frequent and drawn tokens that the tiny vocabulary has others too; the same numbers on all processors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course_model, "FREQUENT", 40)
        patch.setattr(course_model, "SAMPLED", 20)
        patch.setattr(course_model, "SAMPLE_TOKENS", 5)
        patch.setattr(course_model, "bfloat16_is_native", lambda device: False)
        yield


class TestClassLoss:
    def case(self, tokens):
        classes = Classes(read_tokens(tokens)[0])
        torch.manual_seed(1)
        model = course_model.tied_model({**TINY, "vocab_size": classes.count})
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        ids = read_tokens(tokens)[0]["simple"][:52].astype(np.int64).reshape(4, 13)
        return classes, model, torch.from_numpy(ids)

    def test_in_evaluation_it_is_that_of_the_whole_vocabulary(self, tokens):
        classes, model, ids = self.case(tokens)
        full = course_model.with_all_tokens(model, classes)
        expected = F.cross_entropy(full(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        of_class = torch.from_numpy(classes.of_token)[ids]
        found = course_model.ClassLoss(classes, CPU, False)(of_class[:, :-1], of_class[:, 1:], model.eval(), CPU)
        assert_close(found, expected, rtol=1e-5, atol=1e-5)

    def test_back_and_forth(self, tokens):
        classes, model, _ = self.case(tokens)
        again = course_model.with_classes(course_model.with_all_tokens(model, classes), classes)
        assert_close(dict(again.state_dict()), dict(model.state_dict()))
        assert again.out_head.weight is again.tok_emb.weight

    def test_estimates_are_right_on_average(self, tokens):
        classes, model, ids = self.case(tokens)
        classes.unseen = 20  # so that they are not most of the probability
        ids = torch.from_numpy(classes.of_token)[ids]
        results = {}
        for exact in (True, False):
            loss, total, gradient = course_model.ClassLoss(classes, CPU, exact), 0.0, 0.0
            for _ in range(1 if exact else 200):
                value = loss(ids[:, :-1], ids[:, 1:], model.train(), CPU)
                total, gradient = total + value.item(), gradient + torch.autograd.grad(value, model.tok_emb.weight)[0]
            results[exact] = [total / (1 if exact else 200), gradient / (1 if exact else 200)]
        assert results[False][0] == pytest.approx(results[True][0], rel=0.01)
        assert relative_error(results[False][1], results[True][1]) < 0.1

    @pytest.mark.parametrize("frequent", ["as many", "more", "many more"])
    def test_few_classes_are_never_estimated(self, tokens, monkeypatch, frequent):
        classes, model, ids = self.case(tokens)
        ids = torch.from_numpy(classes.of_token)[ids]
        count = {"as many": classes.count - 1, "more": classes.count, "many more": 4096}[frequent]
        monkeypatch.setattr(course_model, "FREQUENT", count)
        losses = [
            course_model.ClassLoss(classes, CPU, exact)(ids[:, :-1], ids[:, 1:], model.train(), CPU)
            for exact in (False, True)
        ]
        assert_close(*losses, rtol=1e-5, atol=0)

    def test_tokens_that_never_occur_are_always_counted(self, tokens):
        """Or nothing would hold down their probability."""
        classes, model, ids = self.case(tokens)
        ids = torch.from_numpy(classes.of_token)[ids]
        rows = []
        for exact in (True, False):
            value = course_model.ClassLoss(classes, CPU, exact)(ids[:, :-1], ids[:, 1:], model.train(), CPU)
            rows.append(torch.autograd.grad(value, model.tok_emb.weight)[0][0])
        assert rows[0].norm() > 0.1
        assert relative_error(rows[1], rows[0]) < 0.2

    def test_teachers_say_what_is_learned(self, tokens):
        """Their mean, and not the targets; in evaluation the loss is that of the text as ever."""
        classes, model, ids = self.case(tokens)
        inputs, targets = torch.from_numpy(classes.of_token)[ids[:, :-1]], torch.zeros_like(ids[:, 1:])
        torch.manual_seed(2)
        teachers = [course_model.tied_model(model_config(model)).eval() for _ in range(2)]
        loss = course_model.ClassLoss(classes, CPU, True, teachers)
        with torch.no_grad():
            log_weight = loss.log_weight
            q = sum((teacher(inputs) + log_weight).softmax(dim=-1) for teacher in teachers).flatten(0, 1) / 2
            log_p = (model(inputs) + log_weight).log_softmax(dim=-1).flatten(0, 1)
        found = loss(inputs, targets, model.train(), CPU)
        assert_close(found.detach(), F.kl_div(log_p, q, reduction="batchmean"), rtol=1e-4, atol=1e-5)
        assert all(parameter.grad is None for teacher in teachers for parameter in teacher.parameters())
        plain = course_model.ClassLoss(classes, CPU, True)(inputs, targets, model.eval(), CPU)
        assert_close(loss(inputs, targets, model.eval(), CPU), plain)

    def test_estimates_from_teachers(self, tokens):
        """Near the exact gradient, and at the rare tokens of the batch too, which a teacher is sure of."""
        classes, model, ids = self.case(tokens)
        classes.unseen = 20
        ids = torch.from_numpy(classes.of_token)[ids]
        inputs, targets = ids[:, :-1], ids[:, 1:]
        teacher = course_model.tied_model(model_config(model))
        optimizer, plain = torch.optim.Adam(teacher.parameters(), lr=0.01), course_model.ClassLoss(classes, CPU, True)
        for _ in range(40):
            optimizer.zero_grad()
            plain(inputs, targets, teacher.train(), CPU).backward()
            optimizer.step()
        assert plain(inputs, targets, teacher.eval(), CPU) < 1.5
        loss = course_model.ClassLoss(classes, CPU, False, [teacher])

        def gradient(times):
            values = [loss(inputs, targets, model.train(), CPU) for _ in range(times)]
            return sum(torch.autograd.grad(value, model.tok_emb.weight)[0] for value in values) / times

        found, loss.exact = gradient(60), True
        exact = gradient(1)
        rare = targets[targets > course_model.FREQUENT].unique()
        assert len(rare) > 5
        assert relative_error(found, exact) < 0.1
        assert relative_error(found[rare], exact[rare]) < 0.1

    def test_in_bfloat16(self, tokens, monkeypatch):
        classes, model, ids = self.case(tokens)
        ids = torch.from_numpy(classes.of_token)[ids]
        expected = course_model.ClassLoss(classes, CPU, True)(ids[:, :-1], ids[:, 1:], model, CPU)
        monkeypatch.setattr(course_model, "bfloat16_is_native", lambda device: True)
        found = course_model.ClassLoss(classes, CPU, True)(ids[:, :-1], ids[:, 1:], model, CPU)
        assert found != expected
        assert_close(found, expected, rtol=0.02, atol=0)


MIX = ["--mix", "stories=2,dialogue=1,simple=1,general=1"]
SIZE = ["--config", "n_layers=2,emb_dim=16,n_heads=2,context_length=16", "--batch", "4"]


def command(name, *arguments):
    course_model.main([name, *map(str, arguments)])


def same_run(one, two):
    one, two = read_checkpoint(one), read_checkpoint(two)
    assert one["progress"]["step"] == two["progress"]["step"]
    assert one["progress"]["tokens_seen"] == two["progress"]["tokens_seen"]
    assert_close(one["model"], two["model"], rtol=0, atol=0)
    assert_close(one["optimizer"]["parts"], two["optimizer"]["parts"], rtol=0, atol=0)
    assert_close(one["random"], two["random"], rtol=0, atol=0)


class Stopped(Exception):
    pass


def stop_at(monkeypatch, update):
    """Let training fail in an update, counted from 1."""
    calls, step = [], course_model.MuonAndAdamW.step

    def failing(self):
        calls.append(1)
        if len(calls) == update:
            raise Stopped
        step(self)

    monkeypatch.setattr(course_model.MuonAndAdamW, "step", failing)


@pytest.fixture(name="run", scope="module")
def a_hundred_updates(tokens, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run.pt"
    command("train", tokens, path, "--updates", 100, *MIX, *SIZE)
    return path


@pytest.fixture(name="model", scope="module")
def a_model_from_them(tokens, run):
    path = run.with_name("model.safetensors")
    command("decay", tokens, run, path, "--updates", 30, *MIX, "--batch", 4)
    return path


class TestRuns:
    def test_it_learns(self, tokens, run, model):
        state = read_checkpoint(run)
        assert state["progress"]["step"] == 100 and state["progress"]["tokens_seen"] == 100 * 4 * 16
        loaded, cfg = load_course_model(model)
        assert cfg == {**course_model.CONFIG, "n_layers": 2, "emb_dim": 16, "n_heads": 2, "context_length": 16}
        held_out = read_tokens(tokens)[1]
        found = course_model.perplexities(loaded, held_out, CPU, 20)
        assert set(found) == set(held_out)
        assert max(found.values()) < 150 < len(set(held_out[HELD_OUT[0]].tolist())) < VOCABULARY  # a uniform guess

    def test_resuming_repeats_the_uninterrupted_run(self, tokens, run, tmp_path, monkeypatch):
        """One that was prolonged, and that was interrupted in update 67, when 60 were saved."""
        command("train", tokens, tmp_path / "run.pt", "--updates", 37, *MIX, *SIZE)
        with monkeypatch.context() as patch:
            stop_at(patch, 30)
            with pytest.raises(Stopped):
                command("train", tokens, tmp_path / "run.pt", "--updates", 63, *MIX, *SIZE, "--save-every", 20)
        assert read_checkpoint(tmp_path / "run.pt")["progress"]["step"] == 60
        command("train", tokens, tmp_path / "run.pt", "--updates", 40, *MIX, *SIZE)
        same_run(tmp_path / "run.pt", run)

    def test_against_learning_by_heart(self, tokens, tmp_path):
        """Dropout counts in training and not in the model's file; the weight decay stays until another is given."""
        path, told = tmp_path / "run.pt", [*MIX, *SIZE]
        command("train", tokens, path, "--updates", 2, *told)
        plain = read_checkpoint(path)["model"]
        path.unlink()
        command("train", tokens, path, "--updates", 2, *told, "--dropout", 0.5, "--weight-decay", 0.2)
        state = read_checkpoint(path)
        assert not torch.equal(state["model"]["tok_emb.weight"], plain["tok_emb.weight"])
        command("train", tokens, path, "--updates", 1, *told)
        decays = [part["param_groups"][0]["weight_decay"] for part in read_checkpoint(path)["optimizer"]["parts"]]
        assert decays == [0.2, 0.01]
        command("decay", tokens, path, tmp_path / "model.safetensors", "--updates", 2, *told[:2], "--dropout", 0.5)
        assert load_course_model(tmp_path / "model.safetensors")[1]["drop_rate"] == 0
        command("train", tokens, path, "--updates", 1, *told, "--weight-decay", 0.3)
        assert read_checkpoint(path)["optimizer"]["parts"][0]["param_groups"][0]["weight_decay"] == 0.3

    def test_a_student_learns_what_its_teachers_say(self, tokens, run, model, tmp_path):
        """A trained model with an untrained teacher, which is sure of nothing, forgets what the text says."""
        torch.manual_seed(5)
        untrained = course_model.tied_model(load_course_model(model)[1]).eval()
        save_course_model(untrained, tmp_path / "untrained.safetensors")
        told = ["--teacher", tmp_path / "untrained.safetensors", *MIX, "--batch", 4]
        command("train", tokens, tmp_path / "run.pt", "--updates", 60, "--start", model, *told)
        command("decay", tokens, tmp_path / "run.pt", tmp_path / "student.safetensors", "--updates", 30, *told)
        ids = torch.from_numpy(read_tokens(tokens)[1][HELD_OUT[0]][:160].astype(np.int64)).view(10, 16)

        @torch.no_grad()
        def divergence(file):
            log_p, q = load_course_model(file)[0](ids).log_softmax(dim=-1), untrained(ids).softmax(dim=-1)
            return F.kl_div(log_p.flatten(0, 1), q.flatten(0, 1), reduction="batchmean").item()

        assert divergence(tmp_path / "student.safetensors") < 0.05 * divergence(model)

    def test_resuming_with_teachers(self, tokens, model, tmp_path, monkeypatch):
        """An interrupted run goes on, and so does a decay, but one with other settings begins anew."""
        told = ("--start", model, "--teacher", model, *MIX, "--batch", 4, "--dropout", 0.2)
        command("train", tokens, tmp_path / "whole.pt", "--updates", 12, *told)
        with monkeypatch.context() as patch:
            stop_at(patch, 8)
            with pytest.raises(Stopped):
                command("train", tokens, tmp_path / "run.pt", "--updates", 12, *told, "--save-every", 5)
        command("train", tokens, tmp_path / "run.pt", "--updates", 7, *told)
        same_run(tmp_path / "run.pt", tmp_path / "whole.pt")
        files = []
        for first, then in ((0.5, 0.5), (0.4, 0.5)):
            place = tmp_path / f"model-{first}.safetensors"
            options = (tokens, tmp_path / "run.pt", place, "--updates", 6, *told[2:], "--save-every", 2, "--rate")
            with monkeypatch.context() as patch:
                stop_at(patch, 6)
                with pytest.raises(Stopped):
                    command("decay", *options, first)
            command("decay", *options, then)
            files.append(place.read_bytes())
        assert files[0] == files[1]

    @pytest.mark.parametrize("update", [12, 29])
    def test_an_interrupted_decay(self, tokens, run, model, tmp_path, monkeypatch, update):
        options = (tokens, run, tmp_path / "model.safetensors", "--updates", 30, *MIX, "--batch", 4)
        with monkeypatch.context() as patch:
            stop_at(patch, update)
            with pytest.raises(Stopped):
                command("decay", *options, "--save-every", 1)
        assert [path.name for path in tmp_path.iterdir()] == ["model.decay.pt"]
        command("decay", *options)
        assert (tmp_path / "model.safetensors").read_bytes() == model.read_bytes()
        assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]

    def test_another_decay_begins_anew(self, tokens, run, model, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            stop_at(patch, 12)
            with pytest.raises(Stopped):
                command("decay", tokens, run, tmp_path / "m.x", "--updates", 20, *MIX, "--batch", 4, "--save-every", 1)
        command("decay", tokens, run, tmp_path / "m.x", "--updates", 30, *MIX, "--batch", 4)
        assert (tmp_path / "m.x").read_bytes() == model.read_bytes()

    def test_learning_rates(self, tokens, run, tmp_path, monkeypatch):
        """They rise in the first 100 updates, stay, and fall to zero in a decay; `--rate` is a factor."""
        rates, step = [], course_model.MuonAndAdamW.step

        def recorded(self):
            rates.append([group["lr"] for group in self.param_groups])
            step(self)

        monkeypatch.setattr(course_model.MuonAndAdamW, "step", recorded)
        monkeypatch.setattr(course_model, "WARM_UP", 4)
        command("train", tokens, tmp_path / "run.pt", "--updates", 3, *MIX, *SIZE)
        command("train", tokens, tmp_path / "run.pt", "--updates", 3, *MIX, *SIZE, "--rate", 0.5)
        command("decay", tokens, tmp_path / "run.pt", tmp_path / "model", "--updates", 4, *MIX, "--batch", 4)
        shares = [0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 1, 0.75, 0.5, 0.25]
        peaks = course_model.PEAK_RATES
        assert rates == [pytest.approx([share * peaks[0], share * peaks[1]]) for share in shares]

    def test_the_last_tenth_of_a_decay_is_exact(self, tokens, run, tmp_path, monkeypatch):
        exact, call = [], course_model.ClassLoss.__call__

        def recorded(self, inputs, targets, model, device):
            if model.training:
                exact.append(self.exact)
            return call(self, inputs, targets, model, device)

        monkeypatch.setattr(course_model.ClassLoss, "__call__", recorded)
        command("decay", tokens, run, tmp_path / "model", "--updates", 20, *MIX, "--batch", 4)
        assert exact == [False] * 18 + [True] * 2
        command("decay", tokens, run, tmp_path / "model", "--updates", 2, *MIX, "--batch", 4, "--exact")
        assert exact[20:] == [True] * 2

    def test_from_a_course_model(self, tokens, model, tmp_path):
        """Too small a learning rate to change anything."""
        options = ("--updates", 1, *MIX, "--batch", 4, "--rate", 1e-9)
        command("train", tokens, tmp_path / "run.pt", *options, "--start", model)
        command("decay", tokens, tmp_path / "run.pt", tmp_path / "model", *options)
        held_out = read_tokens(tokens)[1]
        before, after = (
            course_model.perplexities(load_course_model(path)[0], held_out, CPU, 20)
            for path in (model, tmp_path / "model")
        )
        assert after == pytest.approx(before, rel=1e-3)

    def test_evaluate(self, tokens, model, capsys):
        command("evaluate", tokens, model, "--windows", 3)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[2] for line in lines] == list(read_tokens(tokens)[1])
        loaded, _ = load_course_model(model)
        ids = torch.from_numpy(read_tokens(tokens)[1][HELD_OUT[0]][:49].astype(np.int64))
        losses = [F.cross_entropy(loaded(ids[None, i : i + 16])[0], ids[i + 1 : i + 17]) for i in (0, 16, 32)]
        by_name = {line.split()[2]: float(line.split()[1]) for line in lines}
        assert by_name[HELD_OUT[0]] == pytest.approx(torch.stack(losses).mean().exp().item(), abs=0.006)

    def test_sample(self, model, capsys):
        command("sample", model, "--prompt", "The badly", "--count", 3, "--tokens", 9)
        first = capsys.readouterr().out
        assert [line[:19] for line in first.splitlines() if line.startswith("sample")] == [
            f"sample {seed}: The badly" for seed in (1, 2, 3)
        ]
        assert len({line.partition(":")[2] for line in first.splitlines() if line.startswith("sample")}) > 1
        command("sample", model, "--prompt", "The badly", "--count", 2, "--tokens", 9)
        assert first.startswith(capsys.readouterr().out)


class TestRefused:
    def refused(self, *arguments):
        with pytest.raises(SystemExit) as caught:
            command(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_a_folder_to_write_to(self, texts, tokens, run, tmp_path, monkeypatch):
        """It is refused before the work."""
        monkeypatch.setattr(course_model.Run, "__init__", None)
        monkeypatch.setattr(sys.modules["helpers.make.corpus_tokens"], "get_tokenizer", None)
        expected = f"error: {tmp_path} is a folder: the name of a file is expected"
        assert self.refused("prepare", *texts, tmp_path) == expected
        assert self.refused("train", tokens, tmp_path, "--updates", 1, *MIX) == expected
        assert self.refused("decay", tokens, run, tmp_path, "--updates", 1, *MIX) == expected

    def test_what_an_interrupted_run_goes_on_from(self, tokens, tmp_path, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        path = tmp_path / "run.pt"
        with monkeypatch.context() as patch:
            patch.setattr(course_model.MuonAndAdamW, "step", interrupt)
            assert self.refused("train", tokens, path, "--updates", 2, *MIX, *SIZE) == "interrupted"
        command("train", tokens, path, "--updates", 1, *MIX, *SIZE)
        monkeypatch.setattr(course_model.MuonAndAdamW, "step", interrupt)
        again = f"interrupted: the same command goes on from {path}"
        assert self.refused("train", tokens, path, "--updates", 2, *MIX, *SIZE) == again

    def test_other_tokens(self, texts, run, tmp_path):
        (tmp_path / "simple").mkdir()
        for name in (COLLECTIONS[0], "simple/c.txt"):
            (tmp_path / name).write_text("\n<|endoftext|>\n".join(["Another text of other words, which is long."] * 40))
        command("prepare", tmp_path, tmp_path, tmp_path / "other.npz")
        message = self.refused("train", tmp_path / "other.npz", run, "--updates", 1, "--mix", "stories=1")
        assert "run.pt is not a run on" in message and "its classes are others" in message

    def test_another_checkpoint(self, tokens, tmp_path):
        (tmp_path / "run.pt").write_text("no checkpoint")
        assert "cannot be read as a checkpoint" in self.refused(
            "train", tokens, tmp_path / "run.pt", "--updates", 1, *MIX
        )

    def test_no_checkpoint(self, tokens, tmp_path):
        message = self.refused("decay", tokens, tmp_path / "run.pt", tmp_path / "m", "--updates", 1, *MIX)
        assert "run.pt does not exist" in message

    def test_no_muon(self, tokens, tmp_path, monkeypatch):
        monkeypatch.delattr(torch.optim, "Muon")
        message = self.refused("train", tokens, tmp_path / "run.pt", "--updates", 1, *MIX, *SIZE)
        assert message.startswith("error: torch.optim.Muon is in torch from 2.9 on, and this is torch 2.")

    @pytest.mark.parametrize("mix", ["stories", "stories=", "stories=0", "stories=-1", "", "=,"])
    def test_a_mix(self, tokens, tmp_path, mix, capsys):
        with pytest.raises(SystemExit):
            command("train", tokens, tmp_path / "run.pt", "--updates", 1, "--mix", mix)
        assert "is not of the form name=number,name=number, numbers above 0" in capsys.readouterr().err

    @pytest.mark.parametrize("updates", ["0", "-1", "1.5", "many"])
    def test_updates(self, tokens, tmp_path, updates, capsys):
        with pytest.raises(SystemExit):
            command("train", tokens, tmp_path / "run.pt", f"--updates={updates}", *MIX)
        assert "is not a whole number from 1 on" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("option", "expected"),
        [
            ("--dropout=1", "'1' is not a number from 0 to below 1"),
            ("--dropout=-0.1", "'-0.1' is not a number from 0 to below 1"),
            ("--dropout=nan", "'nan' is not a number from 0 to below 1"),
            ("--weight-decay=-1", "'-1' is not a number from 0 on"),
            ("--weight-decay=inf", "'inf' is not a number from 0 on"),
            ("--rate=0", "'0' is not a number above 0"),
            ("--rate=fast", "'fast' is not a number above 0"),
        ],
    )
    def test_numbers(self, tokens, tmp_path, option, expected, capsys):
        with pytest.raises(SystemExit):
            command("train", tokens, tmp_path / "run.pt", "--updates", 1, *MIX, option)
        assert expected in capsys.readouterr().err

    def test_a_teacher_that_reads_less(self, tokens, model, tmp_path):
        path = tmp_path / "run.pt"
        larger = [*SIZE[:1], SIZE[1].replace("context_length=16", "context_length=32")]
        message = self.refused("train", tokens, path, "--updates", 1, *MIX, *larger, "--teacher", model)
        assert "model.safetensors reads 16 tokens; 32, as many as the model, are needed" in message

    def test_a_vocabulary_of_another_size(self, tokens, tmp_path):
        save_course_model(course_model.tied_model({**TINY, "qkv_bias": True}), tmp_path / "m")
        message = self.refused("train", tokens, tmp_path / "r", "--updates", 1, *MIX, "--start", tmp_path / "m")
        assert "has 97 tokens; GPT-2's 50257 are expected" in message


def test_as_a_program(tmp_path):
    repository = Path(__file__).parent.parent
    options = [sys.executable, "-m", "helpers.make.course_model", "evaluate", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(options, capture_output=True, text=True, cwd=repository)
    assert done.returncode == 1 and done.stderr == f"error: {tmp_path / 'b'} does not exist\n"
