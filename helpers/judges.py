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
from .model_client import OLLAMA, CutOff, query_model

# Scripts without blanks between words: there, each letter with its marks counts as a word.
_NO_BLANKS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTERS = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_NO_BLANKS}]]+"  # vowel signs and other marks belong to the word
# What a minus may stand before, as no hyphen or list's dash does: 2x, a function, a variable (but a suffix -d or -s).
_NEGATED = r"(?=\d|(?:sin|cos|tan|cot|sinh|cosh|tanh|ln|log|exp|sqrt|[[\p{L}]--[adis]])(?![\p{L}\p{M}']))"
_WORDS = regex.compile(
    rf"(?<![\p{{L}}\p{{M}}\p{{N}}_])-?\d+(?:[.,:/]\d+)*(?![\p{{L}}\p{{M}}_])|[{_NO_BLANKS}]\p{{M}}*"
    rf"|(?<![\p{{L}}\p{{M}}\p{{N}}_)\-])-(?:{_NEGATED}{_LETTERS}|(?=[\p{{Sc}}√∞]))"
    rf"|{_LETTERS}(?:'{_LETTERS})*|(?<=\p{{L}})\#|[%°*/[\p{{Sm}}\p{{Sc}}--[|~]]]",
    regex.V1,
)
# A whole number by itself: no part of a word, of a fraction, of -5 or 1 000, or of a range such as 85-90.
_NUMBER = (
    r"(?<![\w.,/−–-])(?<!\d[-–] )(?<!\d[ \u00a0\u202f])(\d+)(?:\.0+)?"
    r"(?!\w|[.,]\d|[ \t\u00a0\u202f]+\d|\s*[-–]\s*\d|\s+(?:to|or|and)\s+\d)"
)
_OF_100 = r"(?:/|\(?(?:out )?of) ?(?:(?:a|the) )?(?:(?:possible|maximum|total) )?(?:of )?100\b"
_OF_OTHERS = r"(?!\s*/|[ \t]*(?:\(?(?:out|of)\b|stars?\b))"  # 8 out of 10, 4 stars
_COUNTED = r"(?![ \t]+(?!(?:as|is|marks|points|this|was)\b)(?-i:[a-z]\w*s|level)\b)"  # 3 mistakes, grade 5 level
_WORD = r"\b(?:score|grade|rating)\b"
_SCORES = (
    rf"(?i){_WORD}\W*{_NUMBER}(?:\s*{_OF_100})?{_OF_OTHERS}{_COUNTED}",
    rf"(?i){_WORD}\W*(?:(?:is|of|as|it|at)\W+)+{_NUMBER}(?:\s*{_OF_100})?{_OF_OTHERS}",
    rf"(?i){_NUMBER}\s*(?!of|\(of){_OF_100}",
    rf"\\boxed\{{\s*{_NUMBER}(?:\s*{_OF_100})?\W*\}}",
)
# What a judge may say of the scale, and of a score that it does not give.
_NO_SCORES = (
    r"(?i)[(\[]?\b(?:from |between )?0\s*(?:-|–|to|and)\s*100\b[)\]]?",
    r"(?i)\b(?:full|perfect|top|highest|maximum|best|possible)\W+(?:possible\W+)?(?:score|mark|grade|rating)s?\b\W*"
    r"(?:(?:of|is|would be)\W+)?\d+(?:\s*/\s*100)?",
    r"(?i)(?:\b(?:not|cannot|never|less than|more than|below|above)|n['’]t)\b"
    r"(?:(?!\b(?:and|because|but|so|therefore|thus)\b)[^.,:;!?\n]){0,100}?"
    rf"(?:{_WORD} (?:of|as|at) \d+|\b\d{{1,3}}\s*{_OF_100})",
    rf"(?i)(?:{_WORD} of \d+|\b\d{{1,3}}\s*{_OF_100}) "
    r"(?:is|seems|(?:would|might|may|could) (?:be|seem)) (?:\w+ )?(?:not|too|un\w+)\b",
)
_ANOTHER_SCALE = r"(?i)\bscale (?:of|from|between) \d+\s*(?:-|–|to|and)\s*(?!100\b)\d+"
_REASONING = r"(?is)<{0}(?:think(?:ing)?|reasoning)>|\[{0}think\]"
_JUDGE_PROMPT = """You grade answers. Compare the response with the correct output for the instruction.

Instruction: {instruction}

Correct output: {output}

Response: {response}

Grade the response from 0 (wrong or useless) to 100 (as good as the correct output). Reply with the integer only."""


def exact_match(answer: str, reference: str) -> float:
    """1.0 if both texts have the same words and numbers in the same order, else 0.0.

    Case and punctuation do not count, except within numbers: 3.5 is not 35, and -2 is not 2. Signs of mathematics and
    of money do: x ≤ 5 is not x ≥ 5, nor -x what x is. In scripts without blanks, such as Chinese and Thai, each letter
    with its marks is a word.

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
    model: str | None = None,
    url: str = OLLAMA,
    *,
    ask: Callable[[str], str] | None = None,
    save_to: Path | str | None = None,
    **options: Any,
) -> list[int | None]:
    """A judge's scores, 0 to 100, of the responses that the entries have under `json_key`, in their order.

    Entries have the keys instruction, output, `json_key` and perhaps input. An empty response gets 0 unasked. An answer
    of the judge without a score gives None in its place, so that scores and entries stay together; such answers are
    counted and shown. `model`, "llama3" unless named, and `options` are those of `query_model`. With `ask`, a function
    from a prompt to an answer, no server is asked: the judge is then a model in this process, such as
    `helpers.smollm2.smollm2_judge` makes one, `model` is only its name, and there are no options.

    With `save_to`, each answer is written to that JSON file at once, under the judge's name, and a later call with the
    same file asks only for what is missing. A failure or Ctrl-C ends the run early: it is printed, and the finished
    scores are returned; with none finished, it is raised. Raises ValueError, before anything is asked, if an entry
    lacks a key, the file is not one of scores, or `ask` comes with options, or with `save_to` and no name; ValueError
    if no answer has a score; and what `query_model` or `ask` raises.
    """
    if ask is not None and options:
        raise ValueError(f"{', '.join(options)}: with ask, no server is asked that could take options")
    if ask is not None and save_to is not None and model is None:
        raise ValueError("model=None: with ask and save_to, give the judge a name, under which its answers are kept")
    model = model or "llama3"
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
                answer = query_model(prompt, model, url, **options) if ask is None else ask(prompt)
                if not isinstance(answer, str):
                    raise ValueError(f"ask gives a {type(answer).__name__}: the text of an answer is expected")
                # The last word of an answer that was cut off may be half of one: 8 of 85.
                answers[key] = re.sub(r"\S+$", "…", answer) if isinstance(answer, CutOff) else answer
                if save_to is not None:
                    write_text_whole(save_to, json.dumps(answers, indent=1))
            scores.append(_score_in(answers[key]))
            if scores[-1] is None:
                garbage[number] = answers[key]
    except (Exception, KeyboardInterrupt) as error:
        if not scores:
            raise
        print("Interrupted." if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__)
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
    text = text.replace("−", "-").replace("’", "'").replace("!=", "≠")
    text = re.sub(r"(?<![\w.])\.(?=\d)", "0.", text)  # .5
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

    A number counts if it is the whole first or last line, follows "score", or stands before "/100" or in LaTeX's box.
    Others, as in "it has 3 mistakes", are not scores, and neither is what is said of the scale ("score (0-100)", "a
    full score of 100"), of a score that is not given, or by another scale ("8 out of 10").
    """
    answer = re.split(_REASONING.format("/"), answer)[-1]  # models that reason aloud first
    if re.search(_REASONING.format(""), answer) or re.search(_ANOTHER_SCALE, answer):  # cut off before its answer
        return None
    for pattern in _NO_SCORES:
        answer = re.sub(pattern, " ", answer)
    lines = [line for line in answer.splitlines() if line.strip()]
    found = [re.fullmatch(rf"\W*?{_NUMBER}(?:\s*{_OF_100})?\W*", line) for line in (lines[:1] + lines[-1:])]
    found += [match for pattern in _SCORES for match in re.finditer(pattern, answer)]
    numbers = {match[1] for match in found if match}
    if any(len(number) > 1000 for number in numbers):  # Python refuses to read numbers of thousands of digits
        return None
    values = {int(number) for number in numbers}
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
