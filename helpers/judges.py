"""Scoring answers (section 7.8): against a reference, offline, or by a language model that runs on a local server.

The judge is reached through Ollama's HTTP API or any OpenAI-compatible one, or is a function. Scores of a language
model are opinions: fix its seed and temperature, read some of its answers, and compare only scores of one judge and one
prompt. What this leaves out: judging by comparison of two answers, and several judges whose scores are averaged.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import regex

from .files import check_writable, progress_bar, read_json, write_text_whole
from .instructions import check_entries
from .model_client import OLLAMA, query_model

# Scripts without blanks between words: there, each letter with its marks counts as a word.
_NO_BLANKS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTERS = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_NO_BLANKS}]]+"  # vowel signs and other marks belong to the word
_WORDS = regex.compile(
    rf"(?<![\p{{L}}\p{{M}}\p{{N}}_])-?\d+(?:[.,:/]\d+)*(?![\p{{L}}\p{{M}}_])|[{_NO_BLANKS}]\p{{M}}*"
    rf"|{_LETTERS}(?:'{_LETTERS})*|[%°$€£+=*/<>]",
    regex.V1,
)
# A whole number by itself: no part of a word, a fraction or a range such as 85-90.
_NUMBER = r"(?<![\w.,/-])(?<!\d[-–] )(\d+)(?:\.0+)?(?!\w|[.,]\d|\s*[-–]\s*\d|\s+(?:to|or|and)\s+\d)"
# What a judge may say of the scale, which is no score.
_SCALES = (
    r"(?i)[(\[]?\b(?:from |between )?0\s*(?:-|–|to|and)\s*100\b[)\]]?",
    r"(?i)\b(?:full|perfect|top|highest|maximum|best|possible)\W+(?:possible\W+)?(?:score|mark|grade|rating)s?\b\W*"
    r"(?:(?:of|is|would be)\W+)?\d+(?:\s*/\s*100)?",
)
_JUDGE_PROMPT = """You grade answers. Compare the response with the correct output for the instruction.

Instruction: {instruction}

Correct output: {output}

Response: {response}

Grade the response from 0 (wrong or useless) to 100 (as good as the correct output). Reply with the integer only."""


def exact_match(answer: str, reference: str) -> float:
    """1.0 if both texts have the same words and numbers in the same order, else 0.0.

    Case and punctuation do not count, except within numbers: 3.5 is not 35, and -2 is not 2. In scripts without blanks,
    such as Chinese and Thai, each letter with its marks is a word.

    >>> exact_match("the answer is 3.5", "The answer is 3.5.")
    1.0
    """
    return float(_words(answer) == _words(reference))


def token_f1(answer: str, reference: str) -> float:
    """How many words the two texts share, in any order: the harmonic mean of precision and recall, 0 to 1.

    Words are as in `exact_match`; a word that occurs twice counts twice (Rajpurkar et al., 2016, SQuAD).

    >>> token_f1("a big red bus", "the red bus")  # 2 shared of 4 and of 3: 2 * 1/2 * 2/3 / (1/2 + 2/3)
    0.5714285714285714
    """
    ours, theirs = Counter(_words(answer)), Counter(_words(reference))
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 1.0


def rouge_l(answer: str, reference: str) -> float:
    """As `token_f1`, but of the longest run of shared words in the same order, with gaps (Lin, 2004), 0 to 1.

    >>> rouge_l("bus red the", "the red bus")  # any one word is the longest common subsequence
    0.3333333333333333
    """
    from rouge_score.rouge_scorer import RougeScorer

    if not _words(answer) and not _words(reference):
        return 1.0
    return float(RougeScorer(["rougeL"], tokenizer=_Words()).score(reference, answer)["rougeL"].fmeasure)


def generate_model_scores(
    json_data: Sequence[Mapping[str, Any]],
    json_key: str,
    model: str = "llama3",
    url: str = OLLAMA,
    *,
    ask: Callable[[str], str] | None = None,
    save_to: Path | str | None = None,
    **options: Any,
) -> list[int | None]:
    """A judge's scores, 0 to 100, of the responses that the entries have under `json_key`, in their order.

    Entries have the keys instruction, output, `json_key` and perhaps input. An empty response gets 0 unasked. An answer
    of the judge without a score gives None in its place, so that scores and entries stay together; such answers are
    counted and shown. `options` are those of `query_model`. With `ask`, a function from a prompt to an answer, no
    server is asked: the judge is then a model in this process, such as `helpers.smollm2.smollm2_judge` makes one, and
    `model` is only its name.

    With `save_to`, each answer is written to that JSON file at once, and a later call with the same file asks only for
    what is missing. A failure or Ctrl-C ends the run early: it is printed, and the finished scores are returned; with
    none finished, it is raised. Raises ValueError, before anything is asked, if an entry lacks a key or the file is
    not one of scores; ValueError if no answer has a score; and what `query_model` raises.
    """
    check_entries(json_data, ("instruction", "input", "output"), optional=("input",), name="json_data")
    prompts = [_judge_prompt(entry, json_key, number) for number, entry in enumerate(json_data)]
    answers = _read_answers(save_to)
    settings = {name: options[name] for name in ("seed", "temperature", "num_ctx", "max_tokens") if name in options}
    scores: list[int | None] = []
    garbage: dict[int, str] = {}
    number = 0
    try:
        for number, prompt in enumerate(progress_bar(prompts, leave=False, unit="answer")):
            if prompt is None:
                scores.append(0)
                continue
            key = hashlib.sha256(json.dumps([model, prompt, settings], sort_keys=True).encode()).hexdigest()
            if key not in answers:
                answers[key] = query_model(prompt, model, url, **options) if ask is None else ask(prompt)
                if save_to is not None:
                    write_text_whole(save_to, json.dumps(answers, indent=1))
            scores.append(_score_in(answers[key]))
            if scores[-1] is None:
                garbage[number] = answers[key]
    except (OSError, LookupError, ValueError, KeyboardInterrupt) as error:
        if not scores:
            raise
        print(str(error) or "Interrupted.")
        again = "; the same call goes on from here" if save_to is not None else ""
        print(f"Stopped at entry {number} of {len(prompts)}: the {len(scores)} finished scores are returned{again}.")
    if garbage:
        number, answer = next(iter(garbage.items()))
        message = (
            f"{len(garbage)} of {len(scores)} answers have no score from 0 to 100 and give None, as that to entry "
            f"{number}, {' '.join(answer.split())[:80]!r}; use a larger judge, tuned for instructions."
        )
        if len(garbage) == len(scores):
            raise ValueError(message)
        print(message)
    return scores


class _Words:
    """What rouge-score calls a tokenizer; its own would drop every letter outside a to z."""

    def tokenize(self, text: str) -> list[str]:
        return _words(text)


def _words(text: str) -> list[str]:
    if not isinstance(text, str):
        raise ValueError(f"answer and reference must be strings, not {type(text).__name__}")
    # Letters may be written in one piece or as letter and accent; a minus and an apostrophe in two ways each. Case
    # folding makes "Straße" and "STRASSE" one word too, and one letter of the two small sigmas of Greek.
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    text = text.replace("−", "-").replace("’", "'")
    return _WORDS.findall(text) or text.split()  # a text of punctuation alone is compared as it is


def _judge_prompt(entry: Mapping[str, Any], json_key: str, number: int) -> str | None:
    if not isinstance(entry.get(json_key), str):
        raise ValueError(f"json_data[{number}] has no text under {json_key!r}; it has {', '.join(entry)}")
    instruction = "\n".join(filter(None, (entry["instruction"], entry.get("input"))))
    response = entry[json_key].strip()
    return (
        _JUDGE_PROMPT.format(instruction=instruction, output=entry["output"], response=response) if response else None
    )


def _score_in(answer: str) -> int | None:
    """The one integer of 0 to 100 that an answer states as its score; None if it has none, or more than one.

    A number counts if it is the whole answer, follows "score" or stands before "/100". Others, as in "it has 3
    mistakes", are not scores, and neither is what is said of the scale: "score (0-100)", "a full score of 100".
    """
    answer = answer.rpartition("</think>")[2]  # models that reason aloud first
    if "<think>" in answer:  # cut off before it came to its answer
        return None
    for scale in _SCALES:
        answer = re.sub(scale, " ", answer)
    found = re.findall(rf"^\W*?{_NUMBER}(?:\s*(?:/|out of)\s*100)?\W*$", answer.strip()) or re.findall(
        rf"(?i)\b(?:score|grade|rating)\b\W*(?:(?:is|of|as|it|at)\W+)*?{_NUMBER}(?!\s*/)", answer
    ) + re.findall(rf"(?i){_NUMBER}\s*(?:/|out of)\s*100\b", answer)
    if any(len(value) > 1000 for value in found):  # Python refuses to read numbers of thousands of digits
        return None
    values = {int(value) for value in found}
    return values.pop() if len(values) == 1 and max(values) <= 100 else None


def _read_answers(path: Path | str | None) -> dict[str, str]:
    if path is None or not check_writable(path).exists():
        return {}
    try:
        answers = read_json(path)
    except ValueError:
        answers = None
    if not isinstance(answers, dict) or not all(isinstance(answer, str) for answer in answers.values()):
        raise ValueError(f"{path} is not a file of judged answers; give save_to another name, or remove it")
    return answers
