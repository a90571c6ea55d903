"""The task, the verifiers and the training of the notebook on reasoning models, against loops and exact sums."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from helpers import reasoning
from helpers.generation import generate_text_simple
from helpers.gpt import GPTModel
from helpers.reasoning import CHARACTERS, COLON, CONTEXT, DIGITS, END

SIZE = {"emb_dim": 16, "n_heads": 2, "n_layers": 1}


@pytest.fixture
def model():
    return reasoning.new_model(3, **SIZE)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def text_of(row):
    return "".join(CHARACTERS[token] for token in row.tolist())


class TestTask:
    @pytest.mark.parametrize(
        ("steps", "text"),
        [(0, "478531:=8......."), (1, "478531:1=8......"), (2, "478531:19=8....."), (5, "478531:19478=8.")],
    )
    def test_an_answer_written_out(self, steps, text):
        rows = reasoning.write_out(torch.tensor([[4, 7, 8, 5, 3, 1]]), torch.tensor([steps]))
        assert rows.shape == (1, CONTEXT) and text_of(rows[0]) == text[:CONTEXT]

    def test_without_carelessness_every_answer_is_right(self, generator):
        questions = reasoning.draw_questions(200, generator)
        rows = reasoning.write_out(questions, torch.arange(200) % DIGITS)
        assert torch.equal(rows[:, :DIGITS], questions) and bool((rows[:, DIGITS] == COLON).all())
        for reward in (reasoning.right_answer, reasoning.no_mistakes):
            assert reasoning.score(questions, rows, reward).tolist() == [[1.0]] * 200

    def test_slips_are_as_often_as_stated_and_carried_on(self, generator):
        """Each step against the one written before it: by chance anything else, between large digits one more."""
        questions = reasoning.draw_questions(20_000, generator)
        rows = reasoning.write_out(questions, torch.full((20_000,), 3), True, generator)
        slips = {True: [], False: []}
        for question, text in zip(questions.tolist(), reasoning.to_texts(rows), strict=True):
            before = question[0]
            for digit, step in zip(question[1:4], map(int, text[:3]), strict=True):
                slips[min(before, digit) >= reasoning.LARGE].append((step - before - digit) % 10)
                before = step
            assert int(text[4]) == (before + sum(question[4:])) % 10 and text[3] == "=" and text[5:] == "."
        assert set(slips[True]) == {0, 1} and set(slips[False]) == set(range(10))
        for large, share in ((True, reasoning.MISTAKEN), (False, reasoning.CARELESS)):
            made = sum(slip != 0 for slip in slips[large]) / len(slips[large])
            assert made == pytest.approx(share, abs=0.02)

    def test_people_write_as_stated(self, generator):
        rows = reasoning.people_write(20_000, generator)
        lengths = [len(text) - 3 for text in reasoning.to_texts(rows)]
        for steps, share in enumerate(reasoning.HABITS):
            assert lengths.count(steps) / 20_000 == pytest.approx(share, abs=0.015)
        right = reasoning.score(rows[:, :DIGITS], rows).flatten().tolist()
        assert all(good for good, steps in zip(right, lengths, strict=True) if steps == 0)

    def test_held_out_questions_are_never_drawn(self, generator):
        powers = 10 ** torch.arange(DIGITS - 1, -1, -1)
        held = set((reasoning.held_out() * powers).sum(dim=1).tolist())
        drawn = (reasoning.draw_questions(200_000, generator) * powers).sum(dim=1)
        assert len(held) == reasoning.TEST_SIZE and held.isdisjoint(drawn.tolist())
        assert len(drawn) == 200_000 and int(drawn.min()) >= 0 and int(drawn.max()) < 10**DIGITS

    def test_which_tokens_are_written(self):
        answers = torch.tensor([[1, END, END], [END, END, END], [1, 2, 3], [1, 2, END]])
        expected = [[True, True, False], [True, False, False], [True] * 3, [True] * 3]
        assert reasoning.is_written(answers).tolist() == expected


class TestVerifiers:
    @pytest.mark.parametrize(
        ("text", "digit"),
        [("=8.", 8), ("19478=8.", 8), ("0=0.", 0), ("12345678=8.", 8)]
        + [(text, None) for text in ("", ".", "=8", "8.", "=.", "=88.", "=8=8.", "1=2=3.", "=8..", ":=8.", "=8.\n")],
    )
    def test_reading(self, text, digit):
        assert reasoning.read_answer(text) == digit

    def test_only_the_result_counts(self):
        question = [4, 7, 8, 5, 3, 1]
        assert [reasoning.right_answer(question, text) for text in ("=8.", "00000=8.", "19478=3.", "8.")] == [
            1,
            1,
            0,
            0,
        ]

    def test_the_loophole_of_no_mistakes(self):
        question = [4, 7, 8, 5, 3, 1]
        texts = {"19478=8.": 1, "19=8.": 1, "=3.": 1, "19=0.": 1, "18=8.": 0, "9=8.": 0, "19": 0, "=8": 0}
        assert {text: reasoning.no_mistakes(question, text) for text in texts} == texts

    def test_scores_stand_with_their_questions(self):
        questions = torch.tensor([[1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]])
        answers = ["=1.", "=2.", "=2.", "=2.", "=1.", "=7."]  # three samples for each
        rows = [[0] * (DIGITS + 1) + [CHARACTERS.index(c) for c in text] + [END] * 5 for text in answers]
        assert reasoning.score(questions, torch.tensor(rows)).tolist() == [[1, 0, 0], [1, 0, 0]]

    @pytest.mark.parametrize(
        ("answers", "winner"),
        [([3, 5, 5], 5), ([7, 2, 2, 7], 7), ([None, None, 4], 4), ([None], None), ([], None), ([0, None, None], 0)],
    )
    def test_majority(self, answers, winner):
        assert reasoning.majority(answers) == winner

    @pytest.mark.parametrize("kind", [bool, int, float, torch.tensor])
    def test_rewards_of_any_kind_of_number(self, model, kind):
        questions = torch.tensor([[1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0]])
        rows = reasoning.write_out(questions, torch.zeros(2, dtype=torch.int64))
        rewards = reasoning.score(questions, rows, lambda question, text: kind(question[0] == 1))
        assert rewards.dtype == torch.float32 and rewards.tolist() == [[1.0], [0.0]]
        seen = reasoning.train_grpo(model, 1, lambda question, text: kind(len(text) < 4), questions=2, samples=2)
        assert 0 <= seen[0]["reward"] <= 1

    def test_a_reward_that_returns_nothing(self, model):
        with pytest.raises(ValueError, match=r"reward returned None for the answer '.*': a number is expected"):
            reasoning.train_grpo(model, 1, lambda question, text: None, questions=2, samples=2)


class TestAsking:
    def test_greedy_answers_are_those_of_the_plain_loop(self, model):
        questions = reasoning.held_out()[:20]
        prompts = F.pad(questions, (0, 1), value=COLON)
        plain = generate_text_simple(model, prompts, DIGITS + 2, CONTEXT)
        asked = reasoning.ask(model, questions)
        written = reasoning.is_written(plain[:, DIGITS + 1 :])
        assert torch.equal(asked[:, : DIGITS + 1], prompts)
        assert torch.equal(asked[:, DIGITS + 1 :], plain[:, DIGITS + 1 :].masked_fill(~written, END))

    def test_samples_of_a_question_stand_together(self, model):
        questions = reasoning.held_out()[:3]
        rows = reasoning.ask(model, questions, samples=4, temperature=1.0, seed=1)
        assert rows.shape == (12, CONTEXT)
        assert torch.equal(rows[:, :DIGITS], questions.repeat_interleave(4, dim=0))
        assert torch.equal(rows, reasoning.ask(model, questions, 4, 1.0, seed=1))
        assert not torch.equal(rows, reasoning.ask(model, questions, 4, 1.0, seed=2))

    def test_texts_end_with_their_full_stop(self):
        rows = torch.tensor([[0] * (DIGITS + 1) + [1, 2, END, END, END, END, END, END], [0] * CONTEXT])
        assert reasoning.to_texts(rows) == ["12.", "0" * 8]

    def test_what_has_no_full_stop_has_no_answer(self, model):
        """A model that never ends writes as much as there is room for, and gets no reward."""
        with torch.no_grad():
            model.out_head.weight.zero_()
            model.out_head.weight[1] = 100 * model.final_norm.shift.new_ones(SIZE["emb_dim"])
            model.final_norm.shift.fill_(1.0)
        (text,) = reasoning.to_texts(reasoning.ask(model, reasoning.held_out()[:1]))
        assert text == "1" * (DIGITS + 2) and reasoning.read_answer(text) is None


class TestTraining:
    def test_loss_by_a_loop(self, model, generator):
        rows = reasoning.people_write(12, generator)
        logp, losses = torch.log_softmax(model(rows), dim=-1), []
        for row, table in zip(rows.tolist(), logp, strict=True):
            for place in range(DIGITS + 1, CONTEXT):
                losses.append(-table[place - 1, row[place]])
                if row[place] == END:
                    break
        assert reasoning.answer_loss(model, rows).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)

    def test_log_probabilities_by_a_loop(self, model, generator):
        rows = reasoning.people_write(6, generator)
        logp, found = torch.log_softmax(model(rows), dim=-1), reasoning.answer_logprobs(model, rows)
        for at, row in enumerate(rows.tolist()):
            ended = False
            for place in range(DIGITS + 1, CONTEXT):
                expected = 0.0 if ended else logp[at, place - 1, row[place]].item()
                assert found[at, place - DIGITS - 1].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
                ended = ended or row[place] == END

    def test_supervised_training_lowers_the_loss(self, model, generator):
        losses = reasoning.train_on(model, lambda: reasoning.people_write(32, generator), updates=40, lr=1e-2)
        assert len(losses) == 40 and sum(losses[-5:]) < 0.8 * sum(losses[:5])

    def test_without_warm_up_it_begins_at_the_full_rate(self, generator):
        runs = []
        for warm_up in (0, 1):
            rows = reasoning.people_write(8, torch.Generator().manual_seed(1))
            runs.append(reasoning.train_on(reasoning.new_model(3, **SIZE), lambda rows=rows: rows, 3, 1e-2, warm_up))
        assert runs[0] == runs[1] and runs[0][-1] < runs[0][0]

    def test_no_right_lesson(self, model):
        with pytest.raises(ValueError, match="rows holds no answer to learn from"):
            reasoning.tune_on(model, torch.zeros(0, CONTEXT, dtype=torch.int64), 2, seed=1)

    def test_advantages(self, generator):
        rewards = torch.rand(5, 8, generator=generator).round()
        rewards[0] = 1.0
        advantages = reasoning.group_advantages(rewards)
        assert torch.allclose(advantages.sum(dim=1), torch.zeros(5), atol=1e-4)
        assert advantages[0].tolist() == [0.0] * 8
        mixed = advantages[rewards.std(dim=1) > 0]
        assert torch.allclose((mixed**2).mean(dim=1), torch.ones(len(mixed)), atol=1e-3)
        assert bool((advantages[1:][rewards[1:] == 1.0] >= 0).all())


class _TwoTokens:
    """A policy over answers of two tokens out of three, as a table: exact, so that every answer can be enumerated."""

    def __init__(self):
        generator = torch.Generator().manual_seed(9)
        self.first = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)
        self.second = torch.randn(3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
        self.rewards = torch.rand(3, 3, generator=generator, dtype=torch.float64)
        self.answers = list(itertools.product(range(3), repeat=2))

    def logprobs(self, answers):
        """(B, 2): what `answer_logprobs` gives for a model."""
        first, second = self.first.log_softmax(0), self.second.log_softmax(1)
        return torch.stack([torch.stack((first[a], second[a, b])) for a, b in answers])

    def probability(self, answer):
        return self.logprobs([answer]).sum().exp()

    def gradients(self, value):
        return torch.cat([part.flatten() for part in torch.autograd.grad(value, (self.first, self.second))])

    def exact(self):
        """The gradient of the expected reward."""
        return self.gradients(sum(self.probability(answer) * self.rewards[answer] for answer in self.answers))


class TestPolicyGradient:
    @pytest.mark.parametrize("baseline", [0.0, 0.4, -3.0])
    def test_on_average_it_is_the_gradient_of_the_expected_reward(self, baseline):
        """The mean over all answers, each as often as the policy writes it; a baseline changes nothing."""
        policy = _TwoTokens()
        mean = torch.zeros(12, dtype=torch.float64)
        for answer in policy.answers:
            advantage = (policy.rewards[answer] - baseline)[None]
            loss = reasoning.policy_loss(policy.logprobs([answer]), advantage)
            mean += policy.probability(answer).detach() * policy.gradients(loss)
        assert torch.allclose(-mean, policy.exact(), atol=1e-12)

    @pytest.mark.parametrize("own_reward", [True, False])
    def test_the_mean_of_the_group_shrinks_it_by_a_known_factor(self, own_reward):
        """All groups of two answers: with the own reward in the mean, half of the gradient is left; without, all."""
        policy = _TwoTokens()
        mean = torch.zeros(12, dtype=torch.float64)
        for group in itertools.product(policy.answers, repeat=2):
            rewards = torch.stack([policy.rewards[answer] for answer in group])
            baseline = rewards.mean() if own_reward else rewards.flip(0)
            loss = reasoning.policy_loss(policy.logprobs(group), rewards - baseline)
            weight = policy.probability(group[0]) * policy.probability(group[1])
            mean += weight.detach() * policy.gradients(loss)
        factor = 0.5 if own_reward else 1.0
        assert torch.allclose(-mean, factor * policy.exact(), atol=1e-12)

    def test_the_loss_by_a_loop(self):
        logprobs = torch.tensor([[-1.0, -2.0, 0.0], [-0.5, 0.0, 0.0]])
        loss = reasoning.policy_loss(logprobs, torch.tensor([1.0, -2.0]))
        assert loss.item() == pytest.approx(-(1.0 * -3.0 + -2.0 * -0.5) / 2)


class TestReinforcement:
    def update(self, model, reward, seed=1):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        return reasoning.grpo_update(model, optimizer, reasoning.held_out()[:4], reward, samples=16, seed=seed)

    def test_what_is_rewarded_becomes_more_probable(self, model):
        def short(question, text):
            return float(len(text) <= 3)

        before = self.update(model, short)["reward"]
        for seed in range(2, 32):
            after = self.update(model, short, seed)["reward"]
        assert after > before + 0.2

    def test_equal_rewards_change_nothing(self, model):
        before = [weight.clone() for weight in model.parameters()]
        seen = self.update(model, lambda question, text: 1.0)
        assert seen["mixed"] == 0 and seen["reward"] == 1
        assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))

    def test_what_is_recorded(self, model):
        rows = reasoning.ask(model, reasoning.held_out()[:4], 16, 1.0, seed=1)
        texts = reasoning.to_texts(rows)
        with torch.no_grad():
            surprise = -reasoning.answer_logprobs(model, rows).sum(dim=1).mean().item()
        seen = self.update(model, reasoning.no_mistakes)
        assert seen["tokens"] == pytest.approx(sum(map(len, texts)) / 64)
        assert seen["surprise"] == pytest.approx(surprise, rel=1e-5)
        assert seen["right"] == pytest.approx(reasoning.score(reasoning.held_out()[:4], rows).mean().item())
        rewards = reasoning.score(reasoning.held_out()[:4], rows, reasoning.no_mistakes)
        assert seen["reward"] == pytest.approx(rewards.mean().item())
        assert seen["mixed"] == pytest.approx(sum(len(set(row)) > 1 for row in rewards.tolist()) / 4)

    def test_a_run_repeats(self):
        def run():
            return reasoning.train_grpo(reasoning.new_model(3, **SIZE), 3, questions=4, samples=4)

        first, second = run(), run()
        assert first == second and len(first) == 3 and all(math.isfinite(v) for row in first for v in row.values())


def test_operations_are_counted_by_weights(model):
    blocks = sum(weight.numel() for weight in model.trf_blocks.parameters())
    rest = sum(weight.numel() for weight in (*model.final_norm.parameters(), *model.out_head.parameters()))
    assert reasoning.parameters(model) == blocks + rest
    assert reasoning.gflop(model, generated=3, trained=2) == pytest.approx((blocks + rest) * (2 * 3 + 6 * 2) / 1e9)


def test_the_models_are_small():
    for size, most in ((reasoning.BASE_SIZE, 300_000), (reasoning.STUDENT_SIZE, 40_000)):
        model = reasoning.new_model(1, **size)
        assert isinstance(model, GPTModel) and not model.training
        assert sum(weight.numel() for weight in model.parameters()) < most
