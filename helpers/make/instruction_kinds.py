"""The kinds of task of the instruction set: what goes into the gaps of their phrasings.

A *skill* is a function that draws words and gives the name of a list of phrasings (`seeds/phrasings`) and what fills
their gaps. Its words come from one side of the kind, so that no main word of a test request occurs in practice.
A *fact* (the opposite of *hot*, the sound of a cow) can only be learned, so it may occur on both sides, but never in
the same phrasing. *Lines* were written by hand, and each stands on one side.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

from .instruction_words import (
    Clause,
    Noun,
    Subject,
    Words,
    add_ed,
    be_form,
    capital,
    gender,
    lines_of,
    lists_of,
    noun_classes,
    sentence,
    verb_list,
    with_article,
)

Filling = tuple[str, dict[str, str]]  # the name of a list of phrasings, and what fills the gaps of one of them
Fact = tuple[str, str, dict[str, str]]  # the same with the fact's own key in the middle

# How a class of nouns is called: one, and several.
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
# Classes that share members, or nearly do: a sled is a toy and a vehicle. They are never set against each other.
_RELATED = ({"animal", "bird", "insect"}, {"toy", "vehicle", "instrument"}, {"tool", "vehicle", "furniture"})
_ALIVE = {"animal": "animal", "bird": "animal", "insect": "animal", "flower": "plant", "tree": "plant"}
_THINGS = ("clothes", "furniture", "tool", "toy", "vehicle", "instrument", "kitchenware")
_EXCLUSIVE = (
    "new old, clean dirty, big small, wet dry, expensive cheap, hot cold, happy sad, rich poor, quiet noisy, full empty"
)
_NOT_ASKED_FOR = set("lose break drop steal meet win hide throw kick see wear touch enter watch cross explore".split())
_TO_PEOPLE = ("help", "thank", "meet", "greet", "call", "visit")
_STAYING = set("sleep sit stand play work live dance sing stay hide rest camp swim".split())
_AT_A_PLACE = ("in ", "on ", "at ", "by ", "under ", "behind ", "near ")
_NUMBERS = lists_of("words/values")["number"]
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
_SHORT_PRONOUNS = {"I am": "I'm", "he is": "he's", "she is": "she's", "we are": "we're", "they are": "they're"}


# Grammar


def plural(words: Words, rng: random.Random) -> Filling:
    noun = rng.choice(words.countable)
    return rng.choice(("plural", "plural", "singular")), {"word": noun.singular, "answer": noun.plural}


def past_tense(words: Words, rng: random.Random) -> Filling:
    verbs = {verb.base: verb for name in ("verbs", "animal_verbs", "places") for verb in verb_list(name)}
    verb = verbs[rng.choice(words.only(verbs))]
    values = {"word": verb.base, "answer": verb.past, "third": verb.third}
    return rng.choices(("past_tense", "third_person"), (4, 1))[0], values


def tense(words: Words, rng: random.Random) -> Filling:
    clause = words.clause(rng)
    values = {"present": clause.present(), "past": clause.past(), "future": clause.future()}
    return rng.choice(("past", "past", "future", "future", "present")), values


def negative(words: Words, rng: random.Random) -> Filling:
    clause, when = _any_clause(words, rng), _when(rng)
    values = {"sentence": clause.tense(when), "negative": clause.negative(when)}
    return rng.choices(("negative", "positive"), (4, 1))[0], values


def question(words: Words, rng: random.Random) -> Filling:
    clause, when = _any_clause(words, rng), _when(rng)
    values = {"sentence": clause.tense(when), "question": clause.question(when)}
    return rng.choices(("question", "statement"), (4, 1))[0], values


def passive(words: Words, rng: random.Random) -> Filling:
    clause, when = words.action(rng), rng.choice(("present", "past", "past"))
    values = {"active": clause.tense(when), "passive": clause.passive(when)}
    return rng.choices(("passive", "active"), (4, 1))[0], values


def article(words: Words, rng: random.Random) -> Filling:
    vowels = [noun.singular for noun in words.countable if with_article(noun.singular).startswith("an ")]
    others = [noun.singular for noun in words.countable if noun.singular not in vowels]
    word = rng.choice(rng.choice((vowels, others)))
    task = rng.choices(("article", "article_gap", "article_adjective"), (3, 3, 1))[0]
    things = {noun.singular for name in LABELS if name != "body" for noun in words.nouns[name]}
    if task == "article_gap":
        word = rng.choice([thing for thing in rng.choice((vowels, others)) if thing in things] or [word])
    wrong = "a" if word in vowels else "an"
    subject = capital(words.subject(rng, ()).text)
    while "and" in subject.split() or noun_ends_in_s(subject):
        subject = capital(words.subject(rng, ()).text)
    return task, {"word": word, "wrong": wrong, "subject": subject, "adjective": _adjective_for(words, rng)}


def noun_ends_in_s(text: str) -> bool:
    """Is the subject a plural noun?"""
    last = text.split()[-1].lower()
    return any(last == noun.plural for name in ("person", "job", "family") for noun in noun_classes()[name])


def _adjective_for(words: Words, rng: random.Random) -> str:
    adjectives = words.lists["adjectives object"] + ["old", "open", "empty", "ugly", "orange", "easy", "expensive"]
    return rng.choice([word for word in adjectives if words.has(word)] or words.lists["adjectives object"])


def agreement(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("person", "pronoun", "be_form"), (3, 2, 1))[0]
    if task == "be_form":
        clause = words.state(rng)
        form = be_form(clause.subject)
        gap = sentence(clause.subject.text, "___", clause.rest)
        return task, {"gap": gap, "answer": gap.replace("___", form)}
    when = _when(rng)
    if task == "person":
        old, new = rng.sample(("I", "you", "he", "she", "we", "they"), 2)
        first, second = (Subject(word, word in ("we", "they"), word) for word in (old, new))
        clause = _without_my(words, rng, first)
        when = "present" if rng.random() < 0.7 else when
        values = {"old": old, "new": new, "sentence": clause.tense(when)}
        return task, values | {"answer": clause.with_subject(second).tense(when)}
    clause = words.clause(rng)
    while clause.subject.pronoun in ("", clause.subject.text):
        clause = words.clause(rng)
    pronoun = clause.subject.pronoun
    answer = clause.with_subject(Subject(pronoun, clause.subject.plural, pronoun)).tense(when)
    values = {"subject": clause.subject.text, "pronoun": pronoun}
    return task, values | {"sentence": clause.tense(when), "answer": answer}


def comparison(words: Words, rng: random.Random) -> Filling:
    word, more, most = rng.choice(words.comparatives)
    values = {"word": word, "more": more, "most": most}
    if rng.random() < 0.3:
        adjectives = [forms for forms in words.comparatives if forms[0] in words.lists["adjectives person"]]
        if adjectives:
            word, more, most = rng.choice(adjectives)
            one, two = _two_names(words, rng)
            return "comparative_sentence", {"word": word, "more": more, "one": one, "two": two}
    return rng.choices(("comparative", "superlative", "comparison_all"), (2, 2, 1))[0], values


def grammar(words: Words, rng: random.Random) -> Filling:
    clause = _any_clause(words, rng)
    if rng.random() < 0.3:
        clause = rng.choice((words.action, words.movement))(rng)
        verb, when = clause.verb, rng.choice(("present", "past", "future"))
        opening = {"present": "every day", "past": "yesterday", "future": "tomorrow"}[when]
        gap = sentence(opening, clause.subject.text, f"___ ({verb.base})", clause.rest)
        return "verb_gap", {"gap": gap, "right": _opened(opening, clause.tense(when), clause.subject)}
    wrong, right = _mistake(clause, rng)
    return "grammar", {"wrong": wrong, "right": right}


def _mistake(clause: Clause, rng: random.Random) -> tuple[str, str]:
    """A sentence with a mistake in its verb, and the right sentence."""
    subject, verb, rest = clause.subject, clause.verb, clause.rest
    if verb.base == "be":
        when = rng.choice(("present", "past"))
        turned = Subject(subject.text, not subject.plural, "")
        wrong = {"present": "are" if subject.third else "is", "past": "were" if subject.third else "was"}[when]
        return sentence(turned.text, wrong, rest), clause.tense(when)
    if verb.base == "can":
        third = clause.action + "s" if clause.action.endswith("e") else clause.action
        forms = [f"can {third}" if third != clause.action else f"can to {clause.action}", f"can to {clause.action}"]
        return sentence(subject.text, rng.choice(forms), rest), clause.present()
    if verb.base == "have":
        return sentence(subject.text, "have" if subject.third else "has", rest), clause.present()
    ways = ["person", "yesterday", "did", "do"] + ["regular"] * (verb.past != add_ed(verb.base))
    way = rng.choice(ways)
    if way == "person":
        return sentence(subject.text, verb.base if subject.third else verb.third, rest), clause.present()
    if way == "yesterday":
        wrong = sentence("yesterday", subject.text, verb.third if subject.third else verb.base, rest)
        return wrong, _opened("yesterday", clause.past(), subject)
    if way == "did":
        return sentence(subject.text, "did not", verb.past, rest), clause.negative("past")
    if way == "do":
        return sentence(subject.text, "do not" if subject.third else "does not", verb.base, rest), clause.negative(
            "present"
        )
    return sentence(subject.text, add_ed(verb.base), rest), clause.past()


def _opened(opening: str, statement: str, subject: Subject) -> str:
    """The statement with a word or two before it: "Yesterday the girl ...", "Yesterday Anna ..."."""
    keeps = subject.text[0].isupper()
    return capital(opening) + " " + (statement if keeps else statement[0].lower() + statement[1:])


def _when(rng: random.Random) -> str:
    return rng.choice(("present", "past"))


def _any_clause(words: Words, rng: random.Random) -> Clause:
    return words.ability(rng) if rng.random() < 0.1 else words.clause(rng)


def _without_my(words: Words, rng: random.Random, subject: Subject) -> Clause:
    clause = words.clause(rng, subject)
    while "my" in clause.rest.split():
        clause = words.clause(rng, subject)
    return clause


def _two_names(words: Words, rng: random.Random) -> list[str]:
    return rng.sample(words.lists["names he"] + words.lists["names she"], 2)


# Choosing


def pick(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.2:
        name = rng.choice(("color", "number", "day", "month"))
        answer, label = rng.choice(words.lists[f"values {name}"]), name
        others, task = [noun for c in LABELS for noun in words.nouns[c] if noun.counted], "pick_value"
        items = [answer, *(noun.singular for noun in rng.sample(others, 2))]
    else:
        name = rng.choice([name for name in LABELS if words.nouns[name]])
        label, task = LABELS[name][0], "pick"
        others = [other for other in LABELS if _unrelated(name, other) and words.nouns[other]]
        items = [_countable(words, rng, c) for c in (name, *rng.sample(others, 2))]
        answer = items[0]
    rng.shuffle(items)
    return task, {"label": label, "items": ", ".join(items), "answer": answer}


def category(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.25:
        group = rng.choice(("animal", "plant", "thing"))
        classes = [c for c in (*LABELS, "kitchenware") if _ALIVE.get(c, "thing" if c in _THINGS else "") == group]
        return "alive", {"word": _countable(words, rng, rng.choice(classes)), "answer": group}
    name = rng.choice(list(LABELS))
    other = rng.choice([other for other in LABELS if _unrelated(name, other)])
    one, two = rng.sample((LABELS[name][0], LABELS[other][0]), 2)
    return "category", {"word": _countable(words, rng, name), "one": one, "two": two, "answer": LABELS[name][0]}


def odd_one_out(words: Words, rng: random.Random) -> Filling:
    name = rng.choice([c for c in LABELS if len([noun for noun in words.nouns[c] if noun.counted]) >= 3])
    other = rng.choice([other for other in LABELS if _unrelated(name, other) and words.nouns[other]])
    answer = _countable(words, rng, other)
    items = [answer, *(noun.singular for noun in rng.sample([n for n in words.nouns[name] if n.counted], 3))]
    rng.shuffle(items)
    label, labels = LABELS[name]
    return "odd_one_out", {"items": ", ".join(items), "answer": answer, "label": label, "labels": labels}


def opinion(words: Words, rng: random.Random) -> Filling:
    answer, about = rng.choice(("positive", "negative")), rng.choice(("food", "show", "person", "place"))
    word = rng.choice(words.lists[f"opinions {answer} {about}"])
    thing = rng.choice(words.lists[f"opinions things {about}"])
    frames = [
        f"The {thing} was {word}.",
        f"The {thing} is {word}.",
        f"I think that the {thing} is {word}.",
        f"It was {with_article(f'{word} {thing}')}.",
        f"What {with_article(f'{word} {thing}')}.",
        f"This {thing} is really {word}.",
        f"Everybody said that the {thing} was {word}.",
        f"We found the {thing} {word}.",
    ]
    text = rng.choice(frames)
    if rng.random() < 0.25:
        yes, liked = ("Yes", "liked") if answer == "positive" else ("No", "did not like")
        text = rng.choice(frames[:5])
        return "opinion_like", {"text": text, "thing": thing, "yes": yes, "liked": liked}
    return "opinion", {"text": text, "answer": answer}


def feelings(words: Words, rng: random.Random) -> Filling:
    answer = rng.choice(("happy", "sad", "angry", "afraid"))
    name = words.name(rng).text
    text = rng.choice(words.lists[f"feelings {answer}"]).replace("{name}", name)
    return "feelings", {"text": text, "name": name, "answer": answer}


def compare(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("larger", "smaller", "older", "alphabet_two"), (3, 2, 3, 1))[0]
    if task == "alphabet_two":
        one, two = (noun.singular for noun in rng.sample(words.countable, 2))
        if one[0] == two[0]:
            return compare(words, rng)
        return task, {"one": one, "two": two, "answer": min(one, two)}
    small, large = sorted(rng.sample(range(1, 21), 2))
    if not words.has_key(small, large):
        return compare(words, rng)
    a, b = rng.sample((small, large), 2)
    if task == "older":
        one, two = _two_names(words, rng)
        older, younger = (one, two) if a > b else (two, one)
        things = rng.choice([noun.plural for c in ("toy", "fruit", "animal") for noun in words.nouns[c] if noun.counted])
        while a < 2 or b < 2:
            return compare(words, rng)
        return task, {"a": f"{a}", "b": f"{b}", "one": one, "two": two, "older": older} | {
            "younger": younger,
            "things": things,
        }
    if rng.random() < 0.3:
        a, b, small, large = (_NUMBERS[n - 1] for n in (a, b, small, large))
    yes = f"Yes, {a} is larger than {b}." if a == large else f"No, {a} is smaller than {b}."
    values = {"a": f"{a}", "b": f"{b}", "larger": f"{large}", "smaller": f"{small}"}
    return task, values | {"yes_larger": yes}


def reading(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("who", "what", "where", "who_has", "what_has", "yes_if"), (2, 2, 2, 2, 1, 4))[0]
    who = words.subject(rng, ())
    while who.plural:
        who = words.subject(rng, ())
    if task in ("who_has", "what_has"):
        return task, _owners(words, rng)
    if task == "where":
        clause = _staying(words, rng, who)
        values = {"place": clause.rest, "text": clause.past()}
    else:
        clause = words.action(rng, who, only_the=True)
        values = {"object": clause.rest, "text": clause.past()}
    if task == "yes_if":
        return task, _yes_or_no(words, rng, clause)
    values |= {"who": who.text, "base": clause.verb.base, "verb": clause.verb.past}
    return task, values | {"past": f"{clause.verb.past} {clause.rest}"}


def _staying(words: Words, rng: random.Random, who: Subject) -> Clause:
    clause = words.movement(rng, who)
    while clause.verb.base not in _STAYING or not clause.rest.startswith(_AT_A_PLACE):
        clause = words.movement(rng, who)
    return clause


def _owners(words: Words, rng: random.Random) -> dict[str, str]:
    one, two = _two_names(words, rng)
    first, second = (_countable(words, rng, c) for c in rng.sample(("toy", "clothes", "instrument", "fruit"), 2))
    text = f"{one} has {with_article(first)}. {two} has {with_article(second)}."
    if rng.random() < 0.3:
        text = f"{one} has {with_article(first)} and {two} has {with_article(second)}."
    who, thing = rng.choice(((one, first), (two, second)))
    return {"text": text, "who": who, "thing": thing}


def _yes_or_no(words: Words, rng: random.Random, clause: Clause) -> dict[str, str]:
    """A sentence, a question about it and its answer, yes or no."""
    way, yes = rng.choice(("action", "place", "state")), rng.random() < 0.5
    when = "past"
    if way == "place":
        clause = _staying(words, rng, clause.subject)
    if way == "state":
        clause, when = words.state(rng), "present"
        rivals = _rivals(words, clause.rest)
        while not rivals:
            clause = words.state(rng)
            rivals = _rivals(words, clause.rest)
        asked = clause if yes else Clause(clause.subject, clause.verb, rng.choice(rivals))
    elif yes:
        asked = clause
    else:
        asked = clause
        while asked.tense(when) == clause.tense(when):
            if way == "place":
                asked = Clause(clause.subject, clause.verb, rng.choice(clause.verb.follow))
                if len(clause.verb.follow) == 1 or not asked.rest.startswith(_AT_A_PLACE):
                    asked = Clause(words.name(rng), clause.verb, clause.rest)
            elif rng.random() < 0.5 or len(clause.verb.follow) == 1:
                asked = Clause(words.name(rng), clause.verb, clause.rest)
            else:
                rest, _ = words.object(rng, rng.choice(clause.verb.follow), only_the=True, adjectives=False)
                asked = Clause(clause.subject, clause.verb, rest)
    statement = clause.tense(when)
    inner = statement if clause.subject.text[0].isupper() else statement[0].lower() + statement[1:]
    word = "Yes" if yes else "No"
    values = {"text": statement, "question": asked.question(when), "answer": f"{word}, {inner}"}
    return values | {"yes": word, "small_yes": word.lower()}


def _rivals(words: Words, adjective: str) -> list[str]:
    """The adjectives that cannot be true where this one is."""
    colors = words.lists["values color"]
    if adjective in colors:
        return [color for color in colors if color != adjective]
    pairs = [pair.split() for pair in _EXCLUSIVE.split(", ")]
    rivals = [other for pair in pairs if adjective in pair for other in pair if other != adjective]
    return [word for word in rivals if words.has(word)]


def yes_no(words: Words, rng: random.Random) -> Filling:
    name, yes = rng.choice(list(LABELS)), rng.random() < 0.5
    word = _countable(words, rng, name)
    asked = name if yes else rng.choice([other for other in LABELS if _unrelated(name, other)])
    is_it = f"{with_article(word)} is {'' if yes else 'not '}{with_article(LABELS[asked][0])}"
    yes_word = "Yes" if yes else "No"
    return "yes_no", {"word": word, "label": LABELS[asked][0], "answer": f"{yes_word}, {is_it}.", "yes": yes_word}


def _unrelated(one: str, two: str) -> bool:
    return one != two and not any({one, two} <= family for family in _RELATED)


def _countable(words: Words, rng: random.Random, name: str) -> str:
    return rng.choice([noun for noun in words.nouns[name] if noun.counted]).singular


# Copying and rearranging


def repeat(words: Words, rng: random.Random) -> Filling:
    form = rng.random()
    if form < 0.12:
        return "repeat_twice", {"word": rng.choice(words.countable).singular}
    if form < 0.5:
        clause = _any_clause(words, rng)
        return "repeat", {"text": clause.tense(_when(rng))}
    if form < 0.75:
        text = f"{rng.choice(words.lists['adjectives object'])} {_thing(words, rng)}"
    else:
        text = " ".join(noun.singular for noun in rng.sample(words.countable, rng.randint(1, 4)))
    return "repeat", {"text": text}


def words_in_order(words: Words, rng: random.Random) -> Filling:
    task = rng.choice(("first_word", "last_word", "first_item", "second_item", "last_item"))
    if task.endswith("item"):
        one, two, three = (noun.singular for noun in rng.sample(words.countable, 3))
        return task, {"items": rng.choice((", ", " ")).join((one, two, three)), "one": one, "two": two, "three": three}
    text = words.clause(rng, words.name(rng)).tense(_when(rng))
    return task, {"sentence": text, "first": text.split()[0], "last": text[:-1].split()[-1]}


def swap(words: Words, rng: random.Random) -> Filling:
    verbs = [verb for verb in words.verbs["verbs"] if verb.base in _TO_PEOPLE]
    if verbs and rng.random() < 0.2:
        one, two = _two_names(words, rng)
        verb = rng.choice(verbs)
        return "swap_sentence", {"one": one, "two": two, "verb": rng.choice((verb.third, verb.past))}
    one, two = rng.sample(words.countable, 2)
    if rng.random() < 0.3:
        return "swap", {"one": one.plural, "two": two.plural}
    return "swap", {"one": one.singular, "two": two.singular}


def reverse(words: Words, rng: random.Random) -> Filling:
    one, two, three = (noun.singular for noun in rng.sample(words.countable, 3))
    return "reverse", {"one": one, "two": two, "three": three}


def replacement(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("replace", "leave_out", "add_word"), (4, 1, 1))[0]
    when = _when(rng)
    if task == "add_word":
        items = [noun.singular for noun in rng.sample(words.countable, rng.randint(2, 4))]
        return task, {"word": items[0], "items": ", ".join(items[1:])}
    if task == "leave_out":
        noun, word = _thing(words, rng), rng.choice(words.lists["adjectives object"])
        clause = words.action(rng, words.name(rng))
        clause = Clause(clause.subject, words.possession(rng).verb, f"the {word} {noun}")
        return task, {"word": word, "sentence": clause.tense(when)} | {
            "answer": Clause(clause.subject, clause.verb, f"the {noun}").tense(when)
        }
    clause = words.action(rng, only_the=True, adjectives=False)
    if clause.subject.pronoun in ("he", "she") and clause.subject.text[0].isupper() and rng.random() < 0.5:
        new, old = words.name(rng), clause.subject.text
        if new.text == old:
            return replacement(words, rng)
        changed = clause.with_subject(new)
        return task, {"old": old, "new": new.text, "sentence": clause.tense(when), "answer": changed.tense(when)}
    if len(clause.verb.follow) == 1:
        return replacement(words, rng)
    old, new = rng.sample(clause.verb.follow, 2)
    first, second = (Clause(clause.subject, clause.verb, f"the {form}") for form in (old, new))
    if {old, new} & set(clause.subject.text.split()) or any(noun_family(form) for form in (old, new)):
        return replacement(words, rng)
    return task, {"old": old, "new": new, "sentence": first.tense(when), "answer": second.tense(when)}


def noun_family(form: str) -> bool:
    """Is the word a member of a family, who needs a "my"?"""
    return any(form in (noun.singular, noun.plural) for noun in noun_classes()["family"])


def punctuation(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("full_stop", "question_mark", "capital_letter"), (2, 2, 2))[0]
    clause, when = _any_clause(words, rng), _when(rng)
    text = clause.question(when) if task == "question_mark" else clause.tense(when)
    if task == "capital_letter" and clause.subject.text[0].isupper():
        return punctuation(words, rng)
    small = text[0].lower() + text[1:]
    return task, {"sentence": text, "bare": text[:-1], "small": small, "small_bare": small[:-1]}


def letters(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("first_letter", "last_letter", "spell", "join", "uppercase"), (3, 2, 3, 2, 2))[0]
    longest = 4 if task in ("spell", "join") else 6
    word = rng.choice([noun.singular for noun in words.countable if len(noun.singular) <= longest])
    letter = word[0] if task == "first_letter" else word[-1]
    return task, {"word": word, "letter": letter, "spelled": "-".join(word), "WORD": word.upper()}


def ordering(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("ascending", "descending", "alphabet"), (3, 2, 1))[0]
    if task == "alphabet":
        given = [noun.singular for noun in rng.sample(words.countable, 3)]
        if len({word[0] for word in given}) < 3:
            return ordering(words, rng)
        right = sorted(given)
    else:
        given = rng.sample(range(1, 21), 3)
        if not words.has_key(*sorted(given)):
            return ordering(words, rng)
        right = sorted(given, reverse=task == "descending")
    if given == right:
        return ordering(words, rng)
    return task, {"items": ", ".join(map(str, given)), "answer": ", ".join(map(str, right))}


def _thing(words: Words, rng: random.Random) -> str:
    return _countable(words, rng, rng.choice(("clothes", "kitchenware", "toy", "vehicle", "furniture")))


# Saying it otherwise


def polite(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.5:
        return _short_form(words, rng)
    verb = rng.choice([verb for verb in words.verbs["verbs"] if verb.base not in _NOT_ASKED_FOR])
    rest, _ = words.object(rng, rng.choice(verb.follow), only_the=True)
    order = sentence(verb.base, rest)
    small = order[0].lower() + order[1:]
    task = rng.choices(("polite", "not_do"), (3, 1))[0]
    return task, {"order": order, "small_order": small, "small_bare": small[:-1]}


def _short_form(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.25:
        pronoun = rng.choice(("I", "he", "she", "we", "they"))
        clause = words.state(rng, Subject(pronoun, pronoun in ("we", "they"), pronoun))
        long, forms = clause.present(), {capital(k): capital(v) for k, v in _SHORT_PRONOUNS.items()}
    else:
        clause = _any_clause(words, rng)
        long = clause.negative(rng.choice(("present", "past") if clause.verb.base == "can" else ("present", "past", "future")))
        forms = _SHORT
    if not any(form in long for form in forms):
        return _short_form(words, rng)
    short = long
    for form, contracted in forms.items():
        short = short.replace(form, contracted)
    return rng.choices(("short_forms", "long_forms"), (2, 1))[0], {"long": long, "short": short}


# Computing


def arithmetic(words: Words, rng: random.Random) -> Filling:
    a, b = rng.randint(1, 15), rng.randint(1, 10)
    if a + b > 20 or not words.has_key(*sorted((a, b))):
        return arithmetic(words, rng)
    task = rng.choice(("addition", "subtraction"))
    first, answer = (a, a + b) if task == "addition" else (a + b, a)
    if min(first, answer, b) < 2:
        return arithmetic(words, rng)
    things = rng.choice([noun.plural for c in ("toy", "fruit") for noun in words.nouns[c] if noun.counted])
    values = {"a": f"{first}", "b": f"{b}", "answer": f"{answer}"}
    return task, values | {"name": words.name(rng).text, "things": things}


def counting(words: Words, rng: random.Random) -> Filling:
    task = rng.choices(("count_words", "count_items", "count_letters"), (2, 2, 1))[0]
    if task == "count_words":
        text = words.clause(rng).tense(_when(rng))
        return task, {"sentence": text, "answer": f"{len(text.split())}"}
    if task == "count_items":
        items = [noun.singular for noun in rng.sample(words.countable, rng.randint(2, 6))]
        return task, {"items": ", ".join(items), "answer": f"{len(items)}"}
    word = rng.choice([noun.singular for noun in words.countable if len(noun.singular) <= 6])
    return task, {"word": word, "answer": f"{len(word)}"}


# Writing


def sentences(words: Words, rng: random.Random) -> Filling:
    if rng.random() < 0.5:
        adjective, noun = (rng.choice(words.lists[f"story {name}"]) for name in ("adjectives", "nouns"))
        return "title", {"adjective": adjective, "noun": noun}
    clause = words.action(rng, words.subject(rng, ()), adjectives=False)
    return "make_sentence", {"who": clause.subject.text, "word": clause.rest.split()[-1], "sentence": clause.past()}


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
    "words": words_in_order,
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


# Facts

_TABLES = {
    "antonyms": ("antonyms",),
    "synonyms": ("synonyms",),
    "rhyme": ("rhyme",),
    "animals": ("sound", "young", "legs", "home", "feeds", "gives"),
    "colors": ("colors",),
    "definitions": ("definitions",),
    "jobs": ("jobs",),
    "uses": ("uses",),
    "completion": ("completion",),
    "similes": ("similes",),
    "lists": ("lists",),
}


@cache
def facts(kind: str) -> tuple[Fact, ...]:
    """All facts of a kind: the list of phrasings, the fact's key, and what fills the gaps."""
    if kind == "calendar":
        return tuple(_calendar())
    if kind == "numbers":
        return tuple(_numbers())
    found = []
    for table in _TABLES[kind]:
        header, *rows = (line.split(" | ") for line in lines_of(f"facts/{table}"))
        for row in rows:
            found += _ways(table, dict(zip(header, row, strict=True)))
    return tuple(found)


FACTS = (*_TABLES, "calendar", "numbers")


def _ways(table: str, row: dict[str, str]) -> list[Fact]:
    """The facts of a row: an opposite can be asked both ways, and a definition by its word or by its meaning."""
    key = f"{table} {' '.join(row.values())}"
    ways = [(table, key, row)]
    if table in ("antonyms", "rhyme"):
        ways += [(table, key, {"word": row["answer"], "answer": row["word"]})]
    if table == "definitions":
        ways += [("defined_word", key, row)]
    if table == "colors":
        other = _another(sorted({line.split(" | ")[1] for line in lines_of("facts/colors")[1:]}), row["answer"], key)
        ways = [(table, key, row | {"other": other})]
    return ways


def _another(values: Sequence[str], value: str, key: str) -> str:
    return random.Random(key).choice([other for other in values if other != value])


def _calendar() -> list[Fact]:
    found = []
    for name in ("day", "month"):
        names = lists_of("words/values")[name]
        for i, value in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            found.append((f"next_{name}", f"next {value}", {name: value, "next": after}))
            found.append((f"previous_{name}", f"previous {value}", {name: value, "previous": before}))
    return found


def _numbers() -> list[Fact]:
    """The neighbors of each number from 1 to 20, in digits and in words."""
    found = []
    for names in ([str(n) for n in range(1, 21)], _NUMBERS):
        for i, value in enumerate(names):
            if i < 19:
                row = ", ".join(names[max(0, i - 2) : i + 1])
                found.append(("next_number", f"next {i}", {"n": value, "next": names[i + 1], "row": row}))
            if i > 0:
                found.append(("previous_number", f"previous {i}", {"n": value, "previous": names[i - 1]}))
    return found


# Lines written by hand: request and answer in full.
LINES = ("advice", "creative")
