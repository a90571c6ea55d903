"""The words of the instruction set (`seeds/words`), divided between practice and test.

For each kind of task a fifth of every list of words is set aside: only the kind's test requests use them. `Words` has
the words of one side, and makes sentences of them. Verbs go with the objects and places that their list gives, so that
the sentences make sense.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, cached_property

from ..texts import EMBEDDED_INSTRUCTIONS
from .instruction_grammar import (
    BE,
    CAN,
    HAVE,
    Clause,
    Noun,
    Subject,
    Verb,
    compared,
    noun_of,
    noun_subject,
    pronoun_subject,
    verb_of,
    with_article,
)

SEEDS = EMBEDDED_INSTRUCTIONS["instructions"].parent / "seeds"
ASIDE = 0.2  # the share of words, of phrasings of a fact, and of written lines that only test requests use

# Words without content, which may stand on both sides.
_PREPOSITIONS = (
    "in on at to from of with by under over behind near into up down through for out off around across about onto along"
)
FUNCTION_WORDS = frozenset(["a", "an", "the", "my", *_PREPOSITIONS.split()])
PORTABLE = ("clothes", "kitchenware", "toy", "instrument")  # what somebody can have
DESCRIBED = (*PORTABLE, "vehicle", "furniture")  # what can be red, old or heavy
_TAILS = ("in the morning", "in the evening", "at night", "again")
_LISTS = ("names", "adjectives", "opinions", "values", "story", "feelings")
_VERBS = ("verbs", "animal_verbs", "places")


def lines_of(name: str) -> list[str]:
    """The lines of a seed file, such as "words/nouns"."""
    return (SEEDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


@cache
def lists_of(name: str) -> dict[str, list[str]]:
    """The lists of a file of words with lines "name: word, word"; whole sentences are parted by " | "."""
    pairs = (line.split(": ", 1) for line in lines_of(f"words/{name}"))
    return {key: rest.split(" | " if name == "feelings" else ", ") for key, rest in pairs}


@cache
def noun_classes() -> dict[str, list[Noun]]:
    """All nouns by class, such as "animal" or "tool"."""
    return {name: [noun_of(word) for word in words] for name, words in lists_of("nouns").items()}


@cache
def noun_forms() -> dict[str, tuple[Noun, bool]]:
    """Each form of each noun: the noun, and whether the form is its plural."""
    forms: dict[str, tuple[Noun, bool]] = {}
    for noun in (noun for nouns in noun_classes().values() for noun in nouns):
        forms.setdefault(noun.plural, (noun, True))
        forms.setdefault(noun.singular, (noun, False))
    return forms


@cache
def verb_list(name: str) -> list[Verb]:
    """The verbs of one file: "verbs" and "animal_verbs" with their objects, "places" with places."""
    return [verb_of(head, tuple(follow)) for head, follow in lists_of(name).items()]


@cache
def all_verbs() -> dict[str, Verb]:
    """All verbs by their base form, those of "other_verbs" too, which stand in no sentence."""
    others = [verb_of(forms) for line in lines_of("words/other_verbs") for forms in line.split(", ")]
    return {verb.base: verb for verb in (*others, *(verb for name in _VERBS for verb in verb_list(name)))}


@cache
def comparatives() -> list[tuple[str, str, str]]:
    """Adjectives with comparative and superlative: the short ones are on the first line of the file, the long below."""
    short, long = lines_of("words/comparatives")
    return [compared(word) for word in short.split(", ")] + [(w, f"more {w}", f"most {w}") for w in long.split(", ")]


def content_words(text: str) -> list[str]:
    """The words of a text that carry its content, nouns in the singular."""
    words = [word for word in text.split() if word not in FUNCTION_WORDS]
    return [noun_forms()[word][0].name if word in noun_forms() else word for word in words]


def draw_number(*parts: object) -> float:
    """A number from 0 to 1 that depends on nothing but the parts: the same on every machine and in every run."""
    key = " ".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") / 2**48


@cache
def _word_lists() -> list[list[str]]:
    lists = [[noun.name for noun in nouns] for nouns in noun_classes().values()]
    lists += [[verb.base for verb in verb_list(name)] for name in _VERBS]
    lists += [list(all_verbs()), [word for word, *_ in comparatives()]]
    return lists + [words for name in _LISTS for words in lists_of(name).values()]


@cache
def words_aside(kind: str) -> frozenset[str]:
    """The words that only test requests of a kind use: of each list the fifth that comes first in the kind's order."""
    place = {word: draw_number(kind, word) for words in _word_lists() for word in words}
    aside: set[str] = set()
    for words in _word_lists():
        aside.update(sorted(words, key=place.__getitem__)[: -(-len(words) // round(1 / ASIDE))])
    return frozenset(aside)


class Words:
    """The words of one side of a kind: to practice with (`aside` False), or for its test requests only (True)."""

    def __init__(self, kind: str, aside: bool):
        self.kind, self.aside = kind, aside

    def has(self, text: str) -> bool:
        """Do all content words of a text stand on this side?"""
        return all((word in words_aside(self.kind)) == self.aside for word in content_words(text))

    def has_numbers(self, *numbers: int) -> bool:
        """Does a combination of numbers, in any order, stand on this side?"""
        return (draw_number(self.kind, *sorted(numbers)) < ASIDE) == self.aside

    def only(self, words: Iterable[str]) -> list[str]:
        """Those of the words that stand on this side."""
        return [word for word in words if (word in words_aside(self.kind)) == self.aside]

    @cached_property
    def nouns(self) -> dict[str, list[Noun]]:
        """Nouns by class, those without singular or plural too."""
        return {name: [noun for noun in nouns if self.has(noun.name)] for name, nouns in noun_classes().items()}

    @cached_property
    def counted(self) -> dict[str, list[Noun]]:
        """Nouns by class, those with singular and plural."""
        return {name: [noun for noun in nouns if noun.counted] for name, nouns in self.nouns.items()}

    @cached_property
    def all_counted(self) -> list[Noun]:
        """All nouns with singular and plural, each once."""
        return list({noun.name: noun for nouns in self.counted.values() for noun in nouns}.values())

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """The lists of names, adjectives, opinions and so on, by file and list, as "adjectives person"."""
        return {f"{name} {key}": self.only(words) for name in _LISTS for key, words in lists_of(name).items()}

    @cached_property
    def verbs(self) -> dict[str, list[Verb]]:
        """The verbs of each file, with those objects and places that stand on this side as well."""
        return {name: [verb for verb in map(self._narrowed, verb_list(name)) if verb.follow] for name in _VERBS}

    @cached_property
    def comparatives(self) -> list[tuple[str, str, str]]:
        """Adjectives with comparative and superlative."""
        return [forms for forms in comparatives() if self.has(forms[0])]

    def _narrowed(self, verb: Verb) -> Verb:
        return replace(verb, follow=tuple(text for text in verb.follow if self.has(verb.base) and self.has(text)))

    def noun(self, rng: random.Random, *classes: str) -> Noun:
        """A noun with singular and plural, of one of the classes or of any."""
        return rng.choice(self.counted[rng.choice(classes)] if classes else self.all_counted)

    def names(self, rng: random.Random, count: int) -> list[str]:
        """Different first names."""
        return rng.sample(self.lists["names he"] + self.lists["names she"], count)

    def name(self, rng: random.Random) -> Subject:
        """A first name as subject."""
        pronoun = rng.choice(("he", "she"))
        return Subject(rng.choice(self.lists[f"names {pronoun}"]), False, pronoun)

    def person(self, rng: random.Random) -> Subject:
        """One person: "Anna", "the teacher" or "my brother"."""
        form = rng.random()
        if form < 0.45:
            return self.name(rng)
        if form < 0.85:
            return noun_subject("the", self.noun(rng, "person", "job"))
        return noun_subject("my", self.noun(rng, "family"))

    def subject(self, rng: random.Random) -> Subject:
        """One person or several: also "the girls", "Anna and Tom", "they"."""
        form = rng.random()
        if form < 0.1:
            return pronoun_subject(rng.choice(("he", "she", "we", "they")))
        if form < 0.2:
            return noun_subject("the", self.noun(rng, "person", "job"), plural=True)
        if form < 0.25:
            return Subject(" and ".join(self.names(rng, 2)), True, "they")
        return self.person(rng)

    def beast(self, rng: random.Random) -> Subject:
        """An animal or several as subject."""
        noun = noun_forms()[rng.choice(self.lists["values beast"])][0]
        return replace(noun_subject("the", noun, plural=rng.random() < 0.25), pronoun="")

    def action(
        self, rng: random.Random, subject: Subject | None = None, only_the: bool = False, adjectives: bool = True
    ) -> Clause:
        """A clause with an object, as "Anna opens the door": what somebody does, now and then an animal."""
        animal = subject is None and self.verbs["animal_verbs"] and rng.random() < 0.12
        subject = subject or (self.beast(rng) if animal else self.subject(rng))
        while True:
            verb = rng.choice(self.verbs["animal_verbs" if animal else "verbs"])
            rest, plural = self.object(rng, rng.choice(verb.follow), only_the, adjectives)
            if not set(content_words(rest)) & set(content_words(subject.text)):  # not "the dog chases the dog"
                return Clause(subject, verb, rest, plural)

    def object(
        self, rng: random.Random, form: str, only_the: bool = False, adjectives: bool = True
    ) -> tuple[str, bool]:
        """A noun phrase for a form from a list of objects, as "a red coat", and whether it is a plural."""
        noun, plural = noun_forms()[form]
        words = form
        if adjectives and rng.random() < 0.2 and any(noun in noun_classes()[name] for name in DESCRIBED):
            words = f"{rng.choice(self.lists['adjectives object'])} {form}"
        if noun in noun_classes()["family"]:
            return f"my {words}", plural
        if noun.counted and not plural and not only_the and rng.random() < 0.3:
            return with_article(words), plural
        return f"the {words}", plural

    def movement(self, rng: random.Random, subject: Subject | None = None) -> Clause:
        """A clause with a place, as "Tom sleeps in the tent"."""
        verb = rng.choice(self.verbs["places"])
        return Clause(subject or self.subject(rng), verb, rng.choice(verb.follow))

    def state(self, rng: random.Random, subject: Subject | None = None) -> Clause:
        """A clause with *be*, as "We are tired" or "The soup is hot"."""
        form = rng.random()
        if subject or form < 0.5:
            return Clause(subject or self.subject(rng), BE, rng.choice(self.lists["adjectives person"]))
        if form < 0.6:
            return Clause(self.beast(rng), BE, rng.choice(self.lists["adjectives animal"]))
        adjectives = "edible" if form < 0.7 else "place" if form < 0.8 else "object"
        classes = {"edible": ("food",), "place": ("place",), "object": DESCRIBED}[adjectives]
        noun = rng.choice(self.nouns[rng.choice(classes)])
        plural = not noun.singular or (noun.counted and rng.random() < 0.3)
        return Clause(noun_subject("the", noun, plural), BE, rng.choice(self.lists[f"adjectives {adjectives}"]))

    def possession(self, rng: random.Random, subject: Subject | None = None) -> Clause:
        """A clause with *have*, as "My brother has a kite"."""
        words = self.noun(rng, *PORTABLE).singular
        if rng.random() < 0.3:
            words = f"{rng.choice(self.lists['adjectives object'])} {words}"
        return Clause(subject or self.subject(rng), HAVE, with_article(words))

    def ability(self, rng: random.Random) -> Clause:
        """A clause with *can*, as "The nurse can drive the car"."""
        clause = self.action(rng, self.subject(rng), only_the=True)
        return replace(clause, verb=CAN, action=clause.verb.base)

    def clause(self, rng: random.Random, subject: Subject | None = None) -> Clause:
        """A clause with an object, a place, *be* or *have*; the first two end now and then with a time."""
        make = rng.choices((self.action, self.movement, self.state, self.possession), (5, 3, 2, 1))[0]
        clause = make(rng, subject)
        with_time = make in (self.action, self.movement) and rng.random() < 0.12
        return replace(clause, tail=rng.choice(_TAILS)) if with_time else clause

    def any_clause(self, rng: random.Random) -> Clause:
        """A clause as `clause` makes it, or one with *can*."""
        return self.ability(rng) if rng.random() < 0.1 else self.clause(rng)
