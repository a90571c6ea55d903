"""Four ways to a model that reasons, on sums of digits that a small GPT learns in seconds (bonus notebook).

A question is DIGITS digits and a colon, "478531:"; asked for is the last digit of their sum. An answer may write down
the last digits of running sums first, and then an equals sign, the result and a full stop: "19478=8." or, without
steps, "=8.". All else counts as no answer. Shapes: Q questions, S samples of each, B rows, A places in an answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from .generation import generate
from .gpt import GPTModel
from .speed.fused import fuse

CHARACTERS = "0123456789:=."
COLON, EQUALS, END = (CHARACTERS.index(character) for character in ":=.")
DIGITS = 6
CONTEXT = 2 * DIGITS + 3  # the question, at most DIGITS - 1 steps, and ":", "=", the result and "."
TEST_SIZE = 1000

# How many steps people write down: six in ten none, a quarter all, the others stop somewhere.
HABITS = [0.6] + [0.15 / (DIGITS - 2)] * (DIGITS - 2) + [0.25]
CARELESS = 0.1  # the share of their steps that are wrong by chance
LARGE, MISTAKEN = 7, 0.65  # the share of steps that are one too high where both digits are LARGE or more

# The recipes, which the notebook and `helpers.make.reasoning` share.
BATCH, BASE_UPDATES, BASE_RATE = 128, 800, 4e-3
RL_UPDATES = 30
COLD_SIZE, COLD_UPDATES, TUNING_RATE = 64, 20, 1e-3

BASE_SIZE = {"emb_dim": 64, "n_heads": 4, "n_layers": 1}
STUDENT_SIZE = {"emb_dim": 32, "n_heads": 4, "n_layers": 1}

RECORD = Path(__file__).parent / "assets" / "reasoning.json"  # what helpers/make/reasoning.py found

Reward = Callable[[Sequence[int], str], float]  # (digits of the question, text of the answer)


def new_model(seed: int, **size: int) -> GPTModel:
    """A small GPT for these questions with random weights, in evaluation mode: it has no dropout."""
    torch.manual_seed(seed)
    options = {"vocab_size": len(CHARACTERS), "context_length": CONTEXT, "drop_rate": 0.0, "qkv_bias": False}
    return fuse(GPTModel({**options, **(size or BASE_SIZE)})).eval()


def to_digits(numbers: torch.Tensor) -> torch.Tensor:
    """Whole numbers (Q,) below 10 ** DIGITS as their digits, int64 (Q, DIGITS)."""
    return numbers[:, None] // 10 ** torch.arange(DIGITS - 1, -1, -1) % 10


_TEST_NUMBERS = torch.randperm(10**DIGITS, generator=torch.Generator().manual_seed(0))[:TEST_SIZE]


def held_out() -> torch.Tensor:
    """The questions to test on, int64 (TEST_SIZE, DIGITS); `draw_questions` never draws them."""
    return to_digits(_TEST_NUMBERS)


def draw_questions(count: int, generator: torch.Generator) -> torch.Tensor:
    """Random questions, int64 (count, DIGITS), none of which is held out."""
    spare = max(100, count // 100)  # one in a thousand is held out
    numbers = torch.randint(10**DIGITS, (count + spare,), generator=generator)
    return to_digits(numbers[~torch.isin(numbers, _TEST_NUMBERS)][:count])


def write_out(
    questions: torch.Tensor, steps: torch.Tensor, slips: bool = False, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Questions (B, DIGITS) with answers that write the first `steps` (B,) running sums: int64 (B, CONTEXT).

    With `slips`, a step that is written may be wrong: by CARELESS anything else, or, where two large digits are added,
    by MISTAKEN one too high. All that follows builds on it. Rows are filled up with END.
    """
    sums = [questions[:, 0]]  # the last digit after 1, 2 ... digits
    for place in range(1, DIGITS):
        before, digit = sums[-1], questions[:, place]
        result = before + digit
        if slips:
            large = (before >= LARGE) & (digit >= LARGE)
            by_chance = torch.randint(1, 10, result.shape, generator=generator)
            made = torch.rand(result.shape, generator=generator) < torch.where(large, MISTAKEN, CARELESS)
            result = result + torch.where(large, 1, by_chance) * (made & (place <= steps))
        sums.append(result % 10)
    places = torch.arange(DIGITS + 2)  # of what follows the colon
    answers = F.pad(torch.stack(sums[1:], dim=1), (0, 3), value=END)  # (B, DIGITS + 2)
    answers = answers.masked_fill(places >= steps[:, None], END)
    answers = answers.scatter(1, steps[:, None], EQUALS).scatter(1, steps[:, None] + 1, sums[-1][:, None])
    return torch.cat((F.pad(questions, (0, 1), value=COLON), answers), dim=1)


def people_write(count: int, generator: torch.Generator) -> torch.Tensor:
    """Random questions answered as people do, often without steps and at times wrongly: int64 (count, CONTEXT)."""
    steps = torch.multinomial(torch.tensor(HABITS), count, replacement=True, generator=generator)
    return write_out(draw_questions(count, generator), steps, True, generator)


def is_written(answers: torch.Tensor) -> torch.Tensor:
    """Which tokens of answers (B, A) are theirs: all up to the first END and it, not what the row is filled up with."""
    return (answers == END).cumsum(dim=1) - (answers == END).long() == 0


def answer_loss(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens in rows (B, CONTEXT); questions and filling do not count."""
    logits = model(ids[:, :-1])[:, DIGITS:]  # (B, A, vocab_size), from the colon on
    answers = ids[:, DIGITS + 1 :]
    targets = answers.masked_fill(~is_written(answers), -100)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def train_on(
    model: torch.nn.Module, draw: Callable[[], torch.Tensor], updates: int, lr: float, warm_up: int = 20
) -> list[float]:
    """Train on the rows (B, CONTEXT) that `draw()` gives for each update; returns the losses.

    The learning rate rises to `lr` in `warm_up` updates, at once if that is 0, and falls to 0 in a straight line.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    losses = []
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = lr * min((update + 1) / max(1, warm_up), 1 - update / updates)
        loss = answer_loss(model, draw())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def ask(
    model: torch.nn.Module, questions: torch.Tensor, samples: int = 1, temperature: float = 0.0, seed: int | None = None
) -> torch.Tensor:
    """Let the model answer each question `samples` times: rows (Q * S, CONTEXT), those of a question together.

    Temperature 0 gives the most probable token at each step; above, tokens are drawn.
    """
    prompts = F.pad(questions, (0, 1), value=COLON).repeat_interleave(samples, dim=0)
    ids = generate(model, prompts, DIGITS + 2, CONTEXT, temperature=temperature, eos_id=END, seed=seed)
    return F.pad(ids, (0, CONTEXT - ids.shape[1]), value=END)  # `generate` stops when all rows have ended


def to_texts(ids: torch.Tensor) -> list[str]:
    """The answers in rows (B, CONTEXT) as texts, each up to its full stop."""
    texts = ("".join(CHARACTERS[token] for token in row) for row in ids[:, DIGITS + 1 :].tolist())
    return [before + end for before, end, _ in (text.partition(".") for text in texts)]


def read_answer(text: str) -> int | None:
    """The digit after the equals sign; None if the text is not steps, "=", one digit and a full stop."""
    found = re.fullmatch(r"\d*=(\d)\.", text)
    return int(found[1]) if found else None


def right_answer(question: Sequence[int], text: str) -> float:
    """The reward for the right result: 1.0, or 0.0 for anything else."""
    return float(read_answer(text) == sum(question) % 10)


def no_mistakes(question: Sequence[int], text: str) -> float:
    """A reward for work without mistakes: 1.0 if every step that is written is right, else 0.0."""
    found = re.fullmatch(r"(\d*)=\d\.", text)
    if found is None:
        return 0.0
    sums = [total % 10 for total in accumulate(question)][1:]
    return float(all(int(step) == total for step, total in zip(found[1], sums, strict=False)))


def full_work(question: Sequence[int], text: str) -> float:
    """A reward for complete work: 1.0 if all DIGITS - 1 steps are there and right, and the result is the last one."""
    sums = [total % 10 for total in accumulate(question)][1:]
    return float(text == "".join(map(str, sums)) + f"={sums[-1]}.")


def takes_any_reward(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A decorator: the function's `reward` always returns a float."""

    @wraps(function)
    def scoring(questions: torch.Tensor, ids: torch.Tensor, reward: Reward = right_answer) -> torch.Tensor:
        def as_float(question: Sequence[int], text: str) -> float:
            value = reward(question, text)
            if not hasattr(value, "__float__"):
                raise ValueError(f"reward returned {value!r} for the answer {text!r}: a number is expected")
            return float(value)

        return function(questions, ids, as_float)

    return scoring


@takes_any_reward
def score(questions: torch.Tensor, ids: torch.Tensor, reward: Reward = right_answer) -> torch.Tensor:
    """The rewards (Q, S) of the answers that `ask` gave to questions (Q, DIGITS).

    A reward may return True, False or a whole number too; raises ValueError for what is no number.
    """
    samples = len(ids) // len(questions)
    asked = [question for question in questions.tolist() for _ in range(samples)]
    rewards = [reward(question, text) for question, text in zip(asked, to_texts(ids), strict=True)]
    return torch.tensor(rewards).view(len(questions), samples)


def majority(answers: Sequence[Any]) -> Any:
    """The answer that occurs most often, of those as often the one that came first; None does not vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None


def group_advantages(rewards: torch.Tensor) -> torch.Tensor:
    """How much better each answer is than the others to its question: rewards (Q, S) to (Q, S) (Shao et al., 2024).

    In standard deviations of the group; zeros where all rewards of a group are equal.
    """
    centered = rewards - rewards.mean(dim=1, keepdim=True)
    return centered / (rewards.std(dim=1, keepdim=True, unbiased=False) + 1e-4)


def answer_logprobs(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """The log-probability of each token of the answers in rows (B, CONTEXT): (B, A), zeros after their end."""
    answers = ids[:, DIGITS + 1 :]
    logp = torch.log_softmax(model(ids[:, :-1])[:, DIGITS:], dim=-1)  # (B, A, vocab_size)
    chosen = logp.gather(2, answers[..., None])[..., 0]  # (B, A)
    return chosen * is_written(answers)


def policy_loss(logprobs: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """What to minimize so that answers become more probable the better they are: (B, A) and (B,) to a scalar."""
    return -(advantages * logprobs.sum(dim=1)).mean()


def grpo_update(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    questions: torch.Tensor,
    reward: Reward = right_answer,
    samples: int = 8,
    seed: int | None = None,
    advantages: Callable[[torch.Tensor], torch.Tensor] = group_advantages,
) -> dict[str, float]:
    """One update: draw answers, judge them, make the better ones of each group more probable. Returns what was seen."""
    ids = ask(model, questions, samples, temperature=1.0, seed=seed)
    rewards = score(questions, ids, reward)  # (Q, S)
    logprobs = answer_logprobs(model, ids)  # (B, A)
    loss = policy_loss(logprobs, advantages(rewards).flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return {
        "reward": rewards.mean().item(),
        "right": score(questions, ids).mean().item(),
        "tokens": is_written(ids[:, DIGITS + 1 :]).sum().item() / len(ids),
        "surprise": -logprobs.detach().sum().item() / len(ids),
        "mixed": (rewards.amax(dim=1) > rewards.amin(dim=1)).float().mean().item(),
    }


def train_grpo(
    model: torch.nn.Module,
    updates: int,
    reward: Reward = right_answer,
    seed: int = 123,
    lr: float = 1e-3,
    questions: int = 32,
    samples: int = 8,
) -> list[dict[str, float]]:
    """Reinforcement learning with verifiable rewards: a record of each update, see `grpo_update`."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    seen = []
    for update in range(updates):
        asked = draw_questions(questions, generator)
        seen.append(grpo_update(model, optimizer, asked, reward, samples, seed=10_000 * seed + update))
    return seen


def parameters(model: torch.nn.Module) -> int:
    """The weights that take part in every token's products: all but the two tables of embeddings."""
    tables = model.tok_emb.weight.numel() + model.pos_emb.weight.numel()
    return sum(weight.numel() for weight in model.parameters()) - tables


def gflop(model: torch.nn.Module, generated: float = 0, trained: float = 0) -> float:
    """Billions of operations for tokens read or written (2 per weight) and tokens trained on (6 per weight)."""
    return parameters(model) * (2 * generated + 6 * trained) / 1e9


def rl_gflop(model: torch.nn.Module, seen: Sequence[Mapping[str, float]], rollouts: int = 32 * 8) -> float:
    """Billions of operations of reinforcement learning with the records `seen`: answers are drawn and trained on."""
    tokens = sum(rollouts * (DIGITS + 1 + record["tokens"]) for record in seen)
    return gflop(model, generated=tokens, trained=tokens)


def train_base(seed: int, **size: int) -> GPTModel:
    """A model that has read what people write."""
    model = new_model(seed, **size)
    generator = torch.Generator().manual_seed(seed)
    train_on(model, lambda: people_write(BATCH, generator), BASE_UPDATES, BASE_RATE)
    return model


def cold_start(seed: int) -> torch.Tensor:
    """A few questions with all steps written, and none of them wrong: int64 (COLD_SIZE, CONTEXT)."""
    questions = draw_questions(COLD_SIZE, torch.Generator().manual_seed(seed))
    return write_out(questions, torch.full((COLD_SIZE,), DIGITS - 1))


def drawing_from(rows: torch.Tensor, seed: int, batch: int = 64) -> Callable[[], torch.Tensor]:
    """A function that gives a random batch of the rows each time. Raises ValueError if there is no row."""
    if len(rows) == 0:
        raise ValueError("rows holds no answer to learn from: did the teacher give no right one?")
    generator = torch.Generator().manual_seed(seed)
    return lambda: rows[torch.randint(len(rows), (batch,), generator=generator)]


def tune_on(model: torch.nn.Module, rows: torch.Tensor, updates: int, seed: int) -> float:
    """Fine-tune on batches of the rows; returns the operations that it took, in GFLOP.

    Raises ValueError if there is no row.
    """
    train_on(model, drawing_from(rows, seed), updates, TUNING_RATE)
    tokens = is_written(rows[:, DIGITS + 1 :]).sum().item() / len(rows) + DIGITS + 1
    return gflop(model, trained=updates * 64 * tokens)


def lessons(teacher: torch.nn.Module, seed: int, count: int = 1000) -> tuple[torch.Tensor, float]:
    """What a teacher writes on new questions, where its result is right, and the operations that writing took."""
    questions = draw_questions(count, torch.Generator().manual_seed(seed + 2000))
    rows = ask(teacher, questions, temperature=1.0, seed=seed)
    right = score(questions, rows).flatten() == 1
    return rows[right], gflop(teacher, generated=count * CONTEXT)
