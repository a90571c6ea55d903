"""The skills of the instruction set: kinds of task whose requests are drawn from word lists without end.

Each function here draws words and gives the name of a list of phrasings (`seeds/phrasings`) and what fills the gaps of
one of them. All words come from one side of the kind (see `instruction_words`), so that no noun, verb, adjective or
name of a test request occurs in practice. Of numbers it is the combination that stands on one side.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from .instruction_grammar import (
    BE,
    HAVE,
    Clause,
    Subject,
    add_ed,
    capital,
    inside,
    pronoun_subject,
    sentence,
    with_article,
)
from .instruction_words import DESCRIBED, PORTABLE, Words, all_verbs, lists_of, noun_classes

Filling = tuple[str, dict[str, str]]  # the name of a list of phrasings, and what fills the gaps of one of them
_Made = TypeVar("_Made")

# What a member of a class of nouns is called, and several of them.
LABELS = {
    "animal": ("animal", "animals"),
    "bird": ("bird", "birds"),
    "insect": ("insect", "insects"),
    "fruit": ("fruit", "fruits"),
    "vegetable": ("vegetable", "vegetables"),
    "clothes": ("piece of clothing", "pieces of clothing"),
    "furniture": ("piece of furniture", "pieces of furniture"),
    "tool": ("tool", "tools"),
    "toy": ("toy", "toys"),
    "vehicle": ("vehicle", "vehicles"),
    "instrument": ("musical instrument", "musical instruments"),
    "body": ("part of the body", "parts of the body"),
    "flower": ("flower", "flowers"),
    "tree": ("tree", "trees"),
}
# Classes that share members, or nearly do (a sled is a toy and a vehicle), are never set against each other.
RELATED = ({"animal", "bird", "insect"}, {"toy", "vehicle", "instrument"}, {"tool", "vehicle", "furniture", "toy"})
ALIVE = {
    "animal": ("animal", "bird", "insect"),
    "plant": ("flower", "tree"),
    "thing": ("clothes", "furniture", "tool", "toy", "vehicle", "instrument", "kitchenware"),
}
# Adjectives that cannot both be true of one thing.
_PAIRS = "new old, clean dirty, big small, wet dry, expensive cheap, hot cold, happy sad, rich poor, quiet noisy"
_EXCLUSIVE = [pair.split() for pair in _PAIRS.split(", ")]
_UNASKED = "lose break drop steal meet win hide throw kick see wear touch enter watch cross explore"
_NOT_ASKED_FOR = set(_UNASKED.split())
_PEOPLE = ("person", "job", "family", "baby")
_TO_PEOPLE = ("help", "thank", "meet", "greet", "call", "visit")
_STAYING = {"sleep", "sit", "stand", "play", "work", "live", "dance", "sing", "stay", "hide", "rest", "camp", "swim"}
_AT_A_PLACE = ("in ", "on ", "at ", "by ", "under ", "behind ", "near ")
_SHORT = {
    "does not": "doesn't",
    "do not": "don't",
    "did not": "didn't",
    "is not": "isn't",
    "are not": "aren't",
    "was not": "wasn't",
    "were not": "weren't",
    "cannot": "can't",
    "will not": "won't",
}
_SHORT_BE = {"I am": "I'm", "He is": "He's", "She is": "She's", "We are": "We're", "They are": "They're"}


def _until(fits: Callable[[_Made], bool], make: Callable[[], _Made]) -> _Made:
    """What `make` makes, made again until it fits."""
    made = make()
    while not fits(made):
        made = make()
    return made


def _when(rng: random.Random) -> str:
    return rng.choice(("present", "past"))


# Changing the grammar


def plural(words: Words, rng: random.Random) -> Filling:
    noun = words.noun(rng)
    return rng.choice(("plural", "plural", "singular")), {"word": noun.singular, "answer": noun.plural}


def past_tense(words: Words, rng: random.Random) -> Filling:
    verb = all_verbs()[rng.choice(words.only(all_verbs()))]
    values = {"word": verb.base, "answer": verb.past, "third": verb.third}
    return rng.choices(("past_tense", "third_person"), (4, 1))[0], values


def tense(words: Words, rng: random.Random) -> Filling:
    clause = words.clause(rng)
    values = {name: clause.tense(name) for name in ("present", "past", "future")}
    return rng.choices(("past", "future", "present"), (2, 2, 1))[0], values


def negative(words: Words, rng: random.Random) -> Filling:
    clause, when = words.any_clause(rng), _when(rng)
    values = {"sentence": clause.tense(when), "negative": clause.negative(when)}
    return rng.choices(("negative", "positive"), (4, 1))[0], values


def question(words: Words, rng: random.Random) -> Filling:
    clause, when = words.any_clause(rng), _when(rng)
    values = {"sentence": clause.tense(when), "question": clause.question(when)}
    return rng.choices(("question", "statement"), (4, 1))[0], values


def passive(words: Words, rng: random.Random) -> Filling:
    clause, when = words.action(rng), rng.choice(("present", "past", "past"))
    values = {"active": clause.tense(when), "passive": clause.passive(when)}
    return rng.choices(("passive", "active"), (4, 1))[0], values


def article(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("article", "article_gap", "article_seen", "article_adjective"), (3, 2, 1, 1))[0]
    nouns = words.all_counted
    if task in ("article_gap", "article_adjective"):  # "Tom has ___ umbrella.", "an old umbrella"
        nouns = [noun for name in (*PORTABLE, "fruit", "tool", "object") for noun in words.counted[name]]
    vowel = rng.random() < 0.5
    word = rng.choice([noun.singular for noun in nouns if _needs_an(noun.singular) == vowel])
    adjectives = [adjective for adjective in words.lists["adjectives article"] if _needs_an(adjective) == vowel]
    values = {"word": word, "wrong": "a" if vowel else "an", "adjective": rng.choice(adjectives)}
    return task, values | {"subject": capital(words.person(rng).text)}


def _needs_an(word: str) -> bool:
    return with_article(word).startswith("an ")


def agreement(words: Words, rng: random.Random) -> Filling:
    task, when = rng.choices(("person", "pronoun", "be_form"), (3, 2, 1))[0], _when(rng)
    if task == "be_form":
        clause = words.state(rng)
        gap = sentence(clause.subject.text, "___", clause.rest)
        return task, {"gap": gap, "answer": clause.tense("present")}
    if task == "person":
        old, new = rng.sample(("I", "you", "he", "she", "we", "they"), 2)
        clause = _until(lambda clause: "my " not in clause.rest, lambda: words.clause(rng, pronoun_subject(old)))
        when = "present" if rng.random() < 0.5 else when
        values = {"old": old, "new": new, "sentence": clause.tense(when)}
        return task, values | {"answer": clause.about(pronoun_subject(new)).tense(when)}
    clause = _until(lambda clause: clause.subject.pronoun not in ("", clause.subject.text), lambda: words.clause(rng))
    pronoun = clause.subject.pronoun
    answer = clause.about(pronoun_subject(pronoun)).tense(when)
    values = {"subject": clause.subject.text, "pronoun": pronoun}
    return task, values | {"sentence": clause.tense(when), "answer": answer}


def comparison(words: Words, rng: random.Random) -> Filling:
    adjectives = [forms for forms in words.comparatives if forms[0] in lists_of("adjectives")["person"]]
    if adjectives and rng.random() < 0.3:
        word, more, _ = rng.choice(adjectives)
        one, two = words.names(rng, 2)
        return "comparative_sentence", {"word": word, "more": more, "one": one, "two": two}
    word, more, most = rng.choice(words.comparatives)
    task = rng.choices(("comparative", "superlative", "comparison_all"), (2, 2, 1))[0]
    return task, {"word": word, "more": more, "most": most}


def grammar(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.3:
        clause = rng.choice((words.action, words.movement))(rng)
        time, when = rng.choice((("every day", "present"), ("yesterday", "past"), ("tomorrow", "future")))
        gap = sentence(time, clause.subject.text, f"___ ({clause.verb.base})", clause.rest)
        return "verb_gap", {"gap": gap, "right": f"{capital(time)} {inside(clause.tense(when), clause.subject)}"}
    wrong, right = _mistake(replace(words.any_clause(rng), tail=""), rng)
    return "grammar", {"wrong": wrong, "right": right}


def _mistake(clause: Clause, rng: random.Random) -> tuple[str, str]:
    """A sentence with a mistake in its verb, and the right sentence."""
    subject, verb, rest = clause.subject, clause.verb, clause.rest
    if verb is BE:
        when = _when(rng)
        return sentence(subject.text, Subject("", subject.third, "").be(when), rest), clause.tense(when)
    if clause.action:
        return sentence(subject.text, "can to", clause.action, rest), clause.tense("present")
    swapped = verb.base if subject.third else verb.third  # he open, they opens
    ways = ["person", "yesterday", "did", "do"] + ["regular"] * (not verb.past.endswith("ed"))
    way = "person" if verb is HAVE else rng.choice(ways)
    if way == "yesterday":
        right = "Yesterday " + inside(clause.tense("past"), subject)
        return sentence("yesterday", subject.text, verb.third if subject.third else verb.base, rest), right
    if way == "did":
        return sentence(subject.text, "did not", verb.past, rest), clause.negative("past")
    if way == "do":
        helper = "do not" if subject.third else "does not"
        return sentence(subject.text, helper, verb.base, rest), clause.negative("present")
    if way == "regular":  # he goed
        return sentence(subject.text, add_ed(verb.base), rest), clause.tense("past")
    return sentence(subject.text, swapped, rest), clause.tense("present")


# Choosing from a few


def pick(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.2:
        label = rng.choice(("color", "number", "day", "month"))
        answer, task = rng.choice(words.lists[f"values {label}"]), "pick_value"
        items = [answer, *_members(words, rng, *rng.sample(list(LABELS), 2))]
    else:
        name, task = rng.choice(list(LABELS)), "pick"
        items = _members(words, rng, name, *rng.sample([other for other in LABELS if unrelated(name, other)], 2))
        answer, label = items[0], LABELS[name][0]
    rng.shuffle(items)
    return task, {"label": label, "items": ", ".join(items), "answer": answer}


def category(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.25:
        group = rng.choice(list(ALIVE))
        return "alive", {"word": words.noun(rng, *ALIVE[group]).singular, "answer": group}
    name = rng.choice(list(LABELS))
    other = rng.choice([other for other in LABELS if unrelated(name, other)])
    one, two = rng.sample((LABELS[name][0], LABELS[other][0]), 2)
    return "category", {"word": words.noun(rng, name).singular, "one": one, "two": two, "answer": LABELS[name][0]}


def odd_one_out(words: Words, rng: random.Random) -> Filling:
    name = rng.choice([name for name in LABELS if len(words.counted[name]) >= 3])
    others = [noun.singular for noun in rng.sample(words.counted[name], 3)]
    (answer,) = _members(words, rng, rng.choice([other for other in LABELS if unrelated(name, other)]))
    items = [answer, *others]
    rng.shuffle(items)
    label, labels = LABELS[name]
    return "odd_one_out", {"items": ", ".join(items), "answer": answer, "label": label, "labels": labels}


def opinion(words: Words, rng: random.Random) -> Filling:
    answer, about = rng.choice(("positive", "negative")), rng.choice(("food", "show", "person", "place"))
    word = rng.choice(words.lists[f"opinions {answer} {about}"])
    thing = rng.choice(words.lists[f"opinions things {about}"])
    sure = [
        f"The {thing} was {word}.",
        f"I think that the {thing} is {word}.",
        f"It was {with_article(f'{word} {thing}')}.",
        f"This {thing} is really {word}.",
    ]
    if about != "person":
        verb = rng.choice(words.lists[f"opinions {answer} verb"])
        sure += [f"I {verb} this {thing}.", f"I really {verb} the {thing}."]
    if rng.random() < 0.25:
        yes, liked = ("Yes", "liked") if answer == "positive" else ("No", "did not like")
        return "opinion_like", {"text": rng.choice(sure), "thing": thing, "yes": yes, "liked": liked}
    others = [
        f"The {thing} is {word}.",
        f"What {with_article(f'{word} {thing}')}.",
        f"Everybody said that the {thing} was {word}.",
        f"We found the {thing} {word}.",
    ]
    return "opinion", {"text": rng.choice(sure + others), "answer": answer}


def feelings(words: Words, rng: random.Random) -> Filling:
    answer, name = rng.choice(("happy", "sad", "angry", "afraid")), words.name(rng).text
    text = rng.choice(words.lists[f"feelings {answer}"]).replace("{name}", name)
    return "feelings", {"text": text, "name": name, "answer": answer}


def compare(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("larger", "smaller", "older", "more", "alphabet_two"), (3, 2, 2, 2, 1))[0]
    if task == "alphabet_two":
        one, two = _different_letters(words, rng, 2)
        return task, {"one": one, "two": two, "answer": min(one, two)}
    a, b = _until(lambda pair: words.has_numbers(*pair), lambda: rng.sample(range(2, 21), 2))
    if task in ("older", "more"):
        one, two = words.names(rng, 2)
        first, second = (one, two) if a > b else (two, one)
        values = {"a": f"{a}", "b": f"{b}", "one": one, "two": two, "first": first, "second": second}
        return task, values | {"things": words.noun(rng, "toy", "fruit").plural}
    small, large = min(a, b), max(a, b)
    names = lists_of("values")["number"] if rng.random() < 0.3 else [f"{n}" for n in range(1, 21)]
    values = {"a": names[a - 1], "b": names[b - 1], "larger": names[large - 1], "smaller": names[small - 1]}
    verdict = "Yes, {a} is larger than {b}." if a > b else "No, {a} is smaller than {b}."
    return task, values | {"yes_larger": verdict.format_map(values)}


def reading(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("who", "what", "where", "who_has", "what_has", "yes_if"), (2, 2, 2, 2, 1, 4))[0]
    if task in ("who_has", "what_has"):
        return task, _owners(words, rng)
    if task == "yes_if":
        return task, _yes_or_no(words, rng)
    if task == "where":
        clause = _staying(words, rng)
    else:  # not "What did Tom thank?"
        people = {form for name in _PEOPLE for noun in noun_classes()[name] for form in (noun.singular, noun.plural)}
        clause = _until(
            lambda clause: task == "who" or clause.rest.split()[-1] not in people,
            lambda: words.action(rng, words.person(rng), only_the=True),
        )
    verb = clause.verb
    values = {"text": clause.tense("past"), "who": clause.subject.text, "base": verb.base, "verb": verb.past}
    return task, values | {"rest": clause.rest}


def _staying(words: Words, rng: random.Random) -> Clause:
    """Somebody at a place: "Tom slept in the tent"."""
    return _until(
        lambda clause: clause.verb.base in _STAYING and clause.rest.startswith(_AT_A_PLACE),
        lambda: words.movement(rng, words.person(rng)),
    )


def _owners(words: Words, rng: random.Random) -> dict[str, str]:
    one, two = words.names(rng, 2)
    first, second = _members(words, rng, *rng.sample((*PORTABLE, "fruit"), 2))
    joint = rng.choice((". ", " and "))
    text = f"{one} has {with_article(first)}{joint}{two} has {with_article(second)}."
    who, thing = rng.choice(((one, first), (two, second)))
    return {"text": text, "who": who, "thing": thing}


def _yes_or_no(words: Words, rng: random.Random) -> dict[str, str]:
    """A sentence, a question about it, and its answer with yes or no."""
    way, yes, when = rng.choice(("action", "place", "state")), rng.random() < 0.5, "past"
    if way == "state":
        when = "present"
        clause = _until(lambda clause: bool(_rivals(words, clause.rest)), lambda: words.state(rng))
        other = replace(clause, rest=rng.choice(_rivals(words, clause.rest)))
    else:
        clause = _staying(words, rng) if way == "place" else words.action(rng, words.person(rng), only_the=True)
        rests = [rest for rest in clause.verb.follow if not rest.startswith(("to ", "for ", "with "))]
        rests = [rest if way == "place" else words.object(rng, rest, True, False)[0] for rest in rests]
        rests = [rest for rest in rests if rest != clause.rest]
        if rests and rng.random() < 0.5:
            other = replace(clause, rest=rng.choice(rests))
        else:
            other = _until(lambda other: other != clause, lambda: clause.about(words.name(rng)))
    asked, word = (clause, "Yes") if yes else (other, "No")
    values = {"text": clause.tense(when), "question": asked.question(when), "yes": word, "small_yes": word.lower()}
    return values | {"answer": f"{word}, {inside(clause.tense(when), clause.subject)}"}


def _rivals(words: Words, adjective: str) -> list[str]:
    """The adjectives that cannot be true where this one is."""
    colors = lists_of("values")["color"]
    groups = [colors] if adjective in colors else [pair for pair in _EXCLUSIVE if adjective in pair]
    return [other for group in groups for other in words.only(group) if other != adjective]


def yes_no(words: Words, rng: random.Random) -> Filling:
    name, yes = rng.choice(list(LABELS)), rng.random() < 0.5
    asked = name if yes else rng.choice([other for other in LABELS if unrelated(name, other)])
    word, label = words.noun(rng, name).singular, LABELS[asked][0]
    start, verb = ("Yes", "is") if yes else ("No", "is not")
    answer = f"{start}, {with_article(word)} {verb} {with_article(label)}."
    return "yes_no", {"word": word, "label": label, "answer": answer, "yes": start}


def unrelated(one: str, other: str) -> bool:
    """Can no noun be of both classes?"""
    return one != other and not any({one, other} <= family for family in RELATED)


def _members(words: Words, rng: random.Random, *classes: str) -> list[str]:
    """A noun of each class."""
    return [words.noun(rng, name).singular for name in classes]


def _different_letters(words: Words, rng: random.Random, count: int) -> list[str]:
    """Nouns that all begin with another letter."""
    return _until(
        lambda nouns: len({noun[0] for noun in nouns}) == count,
        lambda: [noun.singular for noun in rng.sample(words.all_counted, count)],
    )


# Copying and rearranging


def repeat(words: Words, rng: random.Random) -> Filling:
    form = rng.random()
    if form < 0.12:
        return "repeat_more", {"word": words.noun(rng).singular}
    if form < 0.5:
        return "repeat", {"text": words.any_clause(rng).tense(_when(rng))}
    if form < 0.75:
        return "repeat", {"text": " ".join(_described(words, rng))}
    return "repeat", {"text": " ".join(_nouns(words, rng, rng.randint(1, 4)))}


def first_and_last(words: Words, rng: random.Random) -> Filling:
    task = rng.choice(("first_word", "last_word", "first_item", "second_item", "last_item"))
    if task.endswith("item"):
        one, two, three = _nouns(words, rng, 3)
        return task, {"items": rng.choice((", ", " ")).join((one, two, three)), "one": one, "two": two, "three": three}
    text = replace(words.clause(rng, words.name(rng)), tail="").tense(_when(rng))
    return task, {"sentence": text, "first": text.split()[0], "last": text[:-1].split()[-1]}


def swap(words: Words, rng: random.Random) -> Filling:
    verbs = [verb for verb in words.verbs["verbs"] if verb.base in _TO_PEOPLE]
    if verbs and rng.random() < 0.2:
        one, two = words.names(rng, 2)
        verb = rng.choice(verbs)
        return "swap_sentence", {"one": one, "two": two, "verb": rng.choice((verb.third, verb.past))}
    one, two = rng.sample(words.all_counted, 2)
    if rng.random() < 0.3:
        return "swap", {"one": one.plural, "two": two.plural}
    return "swap", {"one": one.singular, "two": two.singular}


def reverse(words: Words, rng: random.Random) -> Filling:
    return "reverse", dict(zip(("one", "two", "three"), _nouns(words, rng, 3), strict=True))


def replacement(words: Words, rng: random.Random) -> Filling:
    task, when = rng.choices(("replace", "leave_out", "add_word"), (4, 1, 1))[0], _when(rng)
    if task == "add_word":
        word, *items = _nouns(words, rng, rng.randint(3, 5))
        return task, {"word": word, "items": ", ".join(items)}
    if task == "leave_out":
        adjective, noun = _described(words, rng)
        clause = Clause(words.name(rng), HAVE, f"the {adjective} {noun}")
        values = {"word": adjective, "sentence": clause.tense(when)}
        return task, values | {"answer": replace(clause, rest=f"the {noun}").tense(when)}
    clause = words.action(rng, words.subject(rng), only_the=True, adjectives=False)
    old, new = clause.subject.text, words.name(rng)
    changed = clause.about(new)
    if not clause.subject.is_name or clause.subject.plural or old == new.text or rng.random() < 0.5:
        family = {form for noun in noun_classes()["family"] for form in (noun.singular, noun.plural)}
        clause = _until(
            lambda clause: len(set(clause.verb.follow) - family) > 1,
            lambda: words.action(rng, words.subject(rng), only_the=True, adjectives=False),
        )
        old, other = rng.sample(sorted(set(clause.verb.follow) - family), 2)
        clause, changed = (replace(clause, rest=f"the {form}") for form in (old, other))
        return task, {"old": old, "new": other, "sentence": clause.tense(when), "answer": changed.tense(when)}
    return task, {"old": old, "new": new.text, "sentence": clause.tense(when), "answer": changed.tense(when)}


def punctuation(words: Words, rng: random.Random) -> Filling:
    task, when = rng.choice(("full_stop", "question_mark", "capital_letter")), _when(rng)
    clause = _until(
        lambda clause: task != "capital_letter" or not clause.subject.is_name, lambda: words.any_clause(rng)
    )
    text = clause.question(when) if task == "question_mark" else clause.tense(when)
    small = text[0].lower() + text[1:]
    return task, {"sentence": text, "bare": text[:-1], "small": small, "small_bare": small[:-1]}


def letters(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("first_letter", "last_letter", "spell", "join", "uppercase"), (3, 2, 3, 2, 2))[0]
    longest = 4 if task in ("spell", "join") else 6
    word = _short_noun(words, rng, longest)
    letter = word[0] if task == "first_letter" else word[-1]
    return task, {"word": word, "letter": letter, "spelled": "-".join(word), "capitals": word.upper()}


def ordering(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("ascending", "descending", "alphabet"), (3, 2, 1))[0]

    def draw() -> list:
        if task == "alphabet":
            return _different_letters(words, rng, 3)
        return _until(lambda numbers: words.has_numbers(*numbers), lambda: rng.sample(range(1, 21), 3))

    given = _until(lambda items: items != sorted(items, reverse=task == "descending"), draw)
    right = sorted(given, reverse=task == "descending")
    return task, {"items": ", ".join(map(str, given)), "answer": ", ".join(map(str, right))}


def _nouns(words: Words, rng: random.Random, count: int) -> list[str]:
    return [noun.singular for noun in rng.sample(words.all_counted, count)]


def _short_noun(words: Words, rng: random.Random, longest: int) -> str:
    return _until(lambda noun: len(noun) <= longest, lambda: words.noun(rng).singular)


def _described(words: Words, rng: random.Random) -> tuple[str, str]:
    """An adjective and a thing: "red", "coat"."""
    return rng.choice(words.lists["adjectives object"]), words.noun(rng, *DESCRIBED).singular


# Saying it otherwise


def polite(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.5:
        return _short_form(words, rng)
    verb = rng.choice([verb for verb in words.verbs["verbs"] if verb.base not in _NOT_ASKED_FOR])
    order = sentence(verb.base, words.object(rng, rng.choice(verb.follow), only_the=True)[0])
    small = order[0].lower() + order[1:]
    task = rng.choices(("polite", "not_do"), (3, 1))[0]
    return task, {"order": order, "small_order": small, "small_bare": small[:-1]}


def _short_form(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.25:
        clause, forms = words.state(rng, pronoun_subject(rng.choice(("I", "he", "she", "we", "they")))), _SHORT_BE
        long = clause.tense("present")
    else:
        forms = _SHORT
        long = _until(
            lambda text: any(form in text for form in forms),
            lambda: words.any_clause(rng).negative(rng.choice(("present", "past", "future"))),
        )
    short = long
    for form, contracted in forms.items():
        short = short.replace(form, contracted)
    return rng.choices(("short_forms", "long_forms"), (2, 1))[0], {"long": long, "short": short}


# Computing


def arithmetic(words: Words, rng: random.Random) -> Filling:
    a, b = _until(
        lambda pair: sum(pair) <= 20 and words.has_numbers(*pair),
        lambda: (rng.randint(2, 15), rng.randint(2, 10)),
    )
    task = rng.choice(("addition", "subtraction"))
    first, answer = (a, a + b) if task == "addition" else (a + b, a)
    values = {"a": f"{first}", "b": f"{b}", "answer": f"{answer}", "name": words.name(rng).text}
    return task, values | {"things": words.noun(rng, "toy", "fruit").plural}


def counting(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("count_words", "count_items", "count_letters"), (2, 2, 1))[0]
    if task == "count_words":
        text = words.clause(rng).tense(_when(rng))
        return task, {"sentence": text, "answer": f"{len(text.split())}"}
    if task == "count_items":
        items = _nouns(words, rng, rng.randint(2, 6))
        return task, {"items": ", ".join(items), "answer": f"{len(items)}"}
    word = _short_noun(words, rng, 6)
    return task, {"word": word, "answer": f"{len(word)}"}


# Writing freely


def sentences(words: Words, rng: random.Random) -> Filling:
    task = rng.choice(("title", "story_start", "make_sentence"))
    if task == "make_sentence":
        clause = words.action(rng, words.person(rng), adjectives=False)
        word = clause.rest.split()[-1]
        return task, {"who": clause.subject.text, "word": word, "sentence": clause.tense("past")}
    about = rng.choice(("creature", "thing"))
    adjective, noun = (rng.choice(words.lists[f"story {about} {part}"]) for part in ("adjectives", "nouns"))
    return task, {"adjective": adjective, "noun": noun}


SKILLS: dict[str, Callable[[Words, random.Random], Filling]] = {
    "plural": plural,
    "past_tense": past_tense,
    "tense": tense,
    "negative": negative,
    "question": question,
    "passive": passive,
    "article": article,
    "agreement": agreement,
    "comparison": comparison,
    "grammar": grammar,
    "pick": pick,
    "category": category,
    "odd_one_out": odd_one_out,
    "opinion": opinion,
    "feelings": feelings,
    "compare": compare,
    "reading": reading,
    "yes_no": yes_no,
    "repeat": repeat,
    "first_and_last": first_and_last,
    "swap": swap,
    "reverse": reverse,
    "replace": replacement,
    "punctuation": punctuation,
    "letters": letters,
    "ordering": ordering,
    "polite": polite,
    "arithmetic": arithmetic,
    "counting": counting,
    "sentences": sentences,
}
