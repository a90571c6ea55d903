"""Words and a small grammar for the generated part of the instruction set (`seeds/words`).

The grammar makes plain English sentences of a subject, a verb and what follows the verb, and changes them: tenses,
negatives, questions, the passive. Verbs go only with the objects and places that their list gives, so that the
sentences make sense. `Words` deals out the words of one side of a kind of task: those to practice with, or those that
are set aside for its test requests.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from ..texts import EMBEDDED_INSTRUCTIONS

SEEDS = EMBEDDED_INSTRUCTIONS["instructions"].parent / "seeds"
_SET_ASIDE = 0.2  # the share of each list of words that only test requests use

# What carries no content: these words may occur on both sides of a kind.
_FUNCTION_WORDS = set(
    "a an the my in on at to from of with by under over behind near into up down through for out off around across "
    "about onto along".split()
)
_MALE = set("boy man king prince father brother uncle grandfather son nephew".split())
_FEMALE = set("girl woman queen princess mother sister aunt grandmother daughter niece".split())
_OBJECT_FORMS = {"he": "him", "she": "her", "they": "them", "we": "us", "I": "me", "it": "it", "you": "you"}
_DESCRIBED = ("clothes", "kitchenware", "toy", "vehicle", "furniture", "instrument")  # "the red coat", "the old chair"


@dataclass(frozen=True)
class Noun:
    """A noun; `plural` is "" for what cannot be counted (bread), `singular` is "" for what has no singular (jeans)."""

    singular: str
    plural: str

    @property
    def counted(self) -> bool:
        return bool(self.singular and self.plural)

    @property
    def name(self) -> str:
        return self.singular or self.plural


@dataclass(frozen=True)
class Verb:
    """A verb, and what may follow it: objects ("door"), or places ("in the garden")."""

    base: str
    past: str
    participle: str
    follow: tuple[str, ...] = ()

    @property
    def third(self) -> str:
        """The form that follows *she*: opens, washes, carries."""
        return "has" if self.base == "have" else add_s(self.base)


BE = Verb("be", "was", "been")
CAN = Verb("can", "could", "could")
HAVE = Verb("have", "had", "had")


@dataclass(frozen=True)
class Subject:
    """A subject such as "the girl", "Anna", "my brothers" or "we"; `pronoun` is "" where the sex is not known."""

    text: str
    plural: bool
    pronoun: str

    @property
    def third(self) -> bool:
        """Does the verb take an s?"""
        return not self.plural and self.text not in ("I", "you")

    @property
    def as_object(self) -> str:
        return _OBJECT_FORMS.get(self.text, self.text)


@dataclass(frozen=True)
class Clause:
    """A subject, a verb and the rest, which can be put into tenses, negated, asked and turned around.

    `action` is the verb that follows *can*. `plural_rest` says whether the object is a plural (for the passive).
    """

    subject: Subject
    verb: Verb
    rest: str
    plural_rest: bool = False
    action: str = ""

    def present(self) -> str:
        auxiliary, main = self._auxiliary("present")
        if auxiliary:
            return sentence(self.subject.text, auxiliary, main, self.rest)
        return sentence(self.subject.text, self.verb.third if self.subject.third else self.verb.base, self.rest)

    def past(self) -> str:
        auxiliary, main = self._auxiliary("past")
        if auxiliary:
            return sentence(self.subject.text, auxiliary, main, self.rest)
        return sentence(self.subject.text, self.verb.past, self.rest)

    def future(self) -> str:
        return sentence(self.subject.text, "will", self.verb.base, self.rest)

    def tense(self, name: str) -> str:
        """The statement in the tense called `name`: "present", "past" or "future"."""
        return {"present": self.present, "past": self.past, "future": self.future}[name]()

    def negative(self, tense: str) -> str:
        auxiliary, main = self._helped(tense)
        auxiliary = "cannot" if auxiliary == "can" else f"{auxiliary} not"
        return sentence(self.subject.text, auxiliary, main, self.rest)

    def question(self, tense: str) -> str:
        auxiliary, main = self._helped(tense)
        return sentence(auxiliary, self.subject.text, main, self.rest)[:-1] + "?"

    def passive(self, tense: str) -> str:
        """The passive: "The door is opened by Anna."; the object is a noun phrase."""
        now = "are" if self.plural_rest else "is"
        then = "were" if self.plural_rest else "was"
        helper = {"present": now, "past": then, "future": "will be"}[tense]
        return sentence(self.rest, helper, self.verb.participle, "by", self.subject.as_object)

    def with_subject(self, subject: Subject) -> Clause:
        return replace(self, subject=subject)

    def _auxiliary(self, tense: str) -> tuple[str, str]:
        if self.verb is CAN:
            return ("can" if tense == "present" else "could"), self.action
        if self.verb is BE:
            return be_form(self.subject, tense), ""
        return "", ""

    def _helped(self, tense: str) -> tuple[str, str]:
        """The auxiliary, with a form of *do* where there would be none, and the verb after it."""
        auxiliary, main = self._auxiliary(tense)
        if tense == "future":
            return "will", self.verb.base
        if auxiliary:
            return auxiliary, main
        return ("did" if tense == "past" else "does" if self.subject.third else "do"), self.verb.base


def be_form(subject: Subject, tense: str = "present") -> str:
    """The form of *be* for a subject: am, is or are; was or were."""
    if tense == "past":
        return "was" if subject.third or subject.text == "I" else "were"
    return "am" if subject.text == "I" else "is" if subject.third else "are"


def sentence(*parts: str) -> str:
    """The parts that are not empty, with a capital letter and a full stop."""
    return capital(" ".join(part for part in parts if part)) + "."


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def with_article(text: str) -> str:
    """The text with *a* or *an* before it, by its first sound."""
    vowel = re.match(r"(?!uni|use|eu|one\b)[aeiou]|hour|honest|heir", text.lower())
    return ("an " if vowel else "a ") + text


def add_s(word: str) -> str:
    """The plural of a regular noun, or the form of a verb after *she*: cats, boxes, cities; opens, washes, carries."""
    if re.search(r"(s|x|z|ch|sh)$|^(go|do)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


def add_ed(word: str) -> str:
    """The past of a regular verb that doubles no letter: opened, baked, carried."""
    if word.endswith("e"):
        return word + "d"
    return word[:-1] + "ied" if re.search(r"[^aeiou]y$", word) else word + "ed"


def compared(line: str) -> tuple[str, str, str]:
    """An adjective's three forms, from "tall", from "big bigger biggest", or for a long word with more and most."""
    word, *forms = line.split()
    if forms:
        return word, forms[0], forms[1]
    stem = word[:-1] if word.endswith("e") else word[:-1] + "i" if re.search(r"[^aeiou]y$", word) else word
    return word, stem + "er", stem + "est"


def lines_of(name: str) -> list[str]:
    """The lines of a seed file, such as "words/nouns"."""
    return (SEEDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def lists_of(name: str, comma: str = ", ") -> dict[str, list[str]]:
    """The lists of a file with lines "name: word, word, ..."."""
    return {key: rest.split(comma) for key, rest in (line.split(": ", 1) for line in lines_of(name))}


@cache
def noun_classes() -> dict[str, list[Noun]]:
    """All nouns by class, such as "animal" or "tool"."""
    return {name: [_noun(word) for word in words] for name, words in lists_of("words/nouns").items()}


def _noun(word: str) -> Noun:
    singular, slash, plural = word.partition("/")
    if not slash:
        return Noun(word, add_s(word))
    return Noun(singular.replace("-", ""), "" if plural == "-" else plural)


@cache
def noun_forms() -> dict[str, tuple[Noun, bool]]:
    """Each form of each noun: the noun, and whether the form is its plural."""
    forms = {}
    for noun in (noun for nouns in noun_classes().values() for noun in nouns):
        forms.setdefault(noun.plural, (noun, True))
        forms.setdefault(noun.singular, (noun, False))
    return forms


@cache
def verb_list(name: str) -> list[Verb]:
    """The verbs of one file: "verbs" and "animal_verbs" with their objects, "places" with places."""
    verbs = []
    for head, follow in lists_of(f"words/{name}").items():
        base, *forms = head.split()
        past = forms[0] if forms else add_ed(base)
        verbs.append(Verb(base, past, forms[-1] if forms else past, tuple(follow)))
    return verbs


@cache
def comparatives() -> list[tuple[str, str, str]]:
    """Adjectives with comparative and superlative."""
    short, long = lines_of("words/comparatives")
    return [compared(word) for word in short.split(", ")] + [(w, f"more {w}", f"most {w}") for w in long.split(", ")]


def content_words(text: str) -> list[str]:
    """The words of a noun, verb, adjective or phrase that carry its content, nouns in the singular."""
    words = [word for word in text.split() if word not in _FUNCTION_WORDS]
    return [noun_forms()[word][0].name if word in noun_forms() else word for word in words]


def draw_number(*parts: object) -> float:
    """A number from 0 to 1 that depends on the parts alone: the same on every machine and in every run."""
    key = " ".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=6).digest(), "big") / 2**48


@cache
def _word_lists() -> list[list[str]]:
    """All lists of words, each of which is divided between practice and test."""
    lists = [[noun.name for noun in nouns] for nouns in noun_classes().values()]
    lists += [[verb.base for verb in verb_list(name)] for name in ("verbs", "animal_verbs", "places")]
    lists += [[word for word, *_ in comparatives()]]
    for name in ("names", "adjectives", "opinions", "values", "story"):
        lists += lists_of(f"words/{name}").values()
    return lists + list(lists_of("words/feelings", " | ").values())


@cache
def words_aside(kind: str) -> frozenset[str]:
    """The words that only test requests of a kind use: a fifth of each list, by a number drawn for kind and word."""
    aside = set()
    for words in _word_lists():
        drawn = sorted(words, key=lambda word: draw_number(kind, word))
        aside.update(drawn[: -(-len(words) // int(1 / _SET_ASIDE))])
    return frozenset(aside)


class Words:
    """The words of one side of a kind: to practice with (`aside` False), or set aside for its test requests (True)."""

    def __init__(self, kind: str, aside: bool):
        self.kind, self.aside = kind, aside

    def has(self, text: str) -> bool:
        """Do all content words of a text stand on this side?"""
        return all((word in words_aside(self.kind)) == self.aside for word in content_words(text))

    def has_key(self, *key: object) -> bool:
        """Does a combination, such as a pair of numbers, stand on this side?"""
        return (draw_number(self.kind, *key) < _SET_ASIDE) == self.aside

    def only(self, words: Iterable[str]) -> list[str]:
        return [word for word in words if (word in words_aside(self.kind)) == self.aside]

    @cached_property
    def nouns(self) -> dict[str, list[Noun]]:
        """Nouns by class."""
        return {name: [noun for noun in nouns if self.has(noun.name)] for name, nouns in noun_classes().items()}

    @cached_property
    def countable(self) -> list[Noun]:
        """All nouns with singular and plural."""
        found = {noun.name: noun for nouns in self.nouns.values() for noun in nouns if noun.counted}
        return list(found.values())

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """The lists of names, adjectives, opinions, feelings and values, by "file list", as "adjectives person"."""
        lists = {}
        for name in ("names", "adjectives", "opinions", "values", "story", "feelings"):
            comma = " | " if name == "feelings" else ", "
            for key, words in lists_of(f"words/{name}", comma).items():
                lists[f"{name} {key}"] = self.only(words)
        return lists

    @cached_property
    def verbs(self) -> dict[str, list[Verb]]:
        """The verbs of each file, with those objects and places that stand on this side as well."""
        return {name: self._verbs(name) for name in ("verbs", "animal_verbs", "places")}

    @cached_property
    def comparatives(self) -> list[tuple[str, str, str]]:
        return [forms for forms in comparatives() if self.has(forms[0])]

    def _verbs(self, name: str) -> list[Verb]:
        verbs = []
        for verb in verb_list(name):
            follow = tuple(text for text in verb.follow if self.has(text))
            if follow and self.has(verb.base):
                verbs.append(replace(verb, follow=follow))
        return verbs

    def name(self, rng: random.Random) -> Subject:
        """A first name."""
        pronoun = rng.choice(("he", "she"))
        return Subject(rng.choice(self.lists[f"names {pronoun}"]), False, pronoun)

    def subject(self, rng: random.Random, pronouns: Sequence[str] = ("he", "she", "we", "they")) -> Subject:
        """A person or several: a name, "the teacher", "my brother", "the girls", two names, or one of the pronouns."""
        form = rng.random()
        if form < 0.1 and pronouns:
            word = rng.choice(pronouns)
            return Subject(word, word in ("we", "they"), word)
        if form < 0.45:
            return self.name(rng)
        if form < 0.5:
            one, two = rng.sample(self.lists["names he"] + self.lists["names she"], 2)
            return Subject(f"{one} and {two}", True, "they")
        nouns = self.nouns["family"] if form > 0.87 else rng.choice((self.nouns["person"], self.nouns["job"]))
        noun, article = rng.choice(nouns), "my" if form > 0.87 else "the"
        if 0.5 < form < 0.6:
            return Subject(f"{article} {noun.plural}", True, "they")
        return Subject(f"{article} {noun.singular}", False, gender(noun.singular))

    def animal(self, rng: random.Random) -> Subject:
        noun = rng.choice(self.nouns["animal"] + self.nouns["bird"])
        if rng.random() < 0.25:
            return Subject(f"the {noun.plural}", True, "they")
        return Subject(f"the {noun.singular}", False, "it")

    def action(
        self, rng: random.Random, subject: Subject | None = None, only_the: bool = False, adjectives: bool = True
    ) -> Clause:
        """A clause with an object, as "Anna opens the door": what somebody does to something."""
        animal = subject is None and self.verbs["animal_verbs"] and rng.random() < 0.12
        verb = rng.choice(self.verbs["animal_verbs" if animal else "verbs"])
        subject = subject or (self.animal(rng) if animal else self.subject(rng))
        rest, plural = self.object(rng, rng.choice(verb.follow), only_the, adjectives)
        if rest.split()[-1] in subject.text.split():  # "the cat chases the cat"
            return self.action(rng, None, only_the, adjectives)
        return Clause(subject, verb, rest, plural)

    def object(
        self, rng: random.Random, form: str, only_the: bool = False, adjectives: bool = True
    ) -> tuple[str, bool]:
        """A noun phrase for a form from a list of objects, and whether it is a plural: "the door", "a red coat"."""
        noun, plural = noun_forms()[form]
        words = form
        described = any(noun in noun_classes()[name] for name in _DESCRIBED)
        if described and adjectives and rng.random() < 0.2:
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
        """A clause with *be*, as "The soup is hot" or "We are tired"."""
        form = rng.random()
        if subject or form < 0.5:
            return Clause(subject or self.subject(rng), BE, rng.choice(self.lists["adjectives person"]))
        if form < 0.6:
            return Clause(self.animal(rng), BE, rng.choice(self.lists["adjectives animal"]))
        adjectives = "edible" if form < 0.7 else "place" if form < 0.8 else "object"
        classes = {"edible": ("food",), "place": ("place",), "object": _DESCRIBED}[adjectives]
        noun = rng.choice([noun for name in classes for noun in self.nouns[name]])
        plural = not noun.singular or (noun.counted and rng.random() < 0.3)
        subject = Subject(f"the {noun.plural if plural else noun.singular}", plural, "they" if plural else "it")
        return Clause(subject, BE, rng.choice(self.lists[f"adjectives {adjectives}"]))

    def possession(self, rng: random.Random, subject: Subject | None = None) -> Clause:
        """A clause with *have*, as "My brother has a kite"."""
        nouns = [noun for name in _DESCRIBED[:5] for noun in self.nouns[name] if noun.counted]
        words = rng.choice(nouns).singular
        if rng.random() < 0.3:
            words = f"{rng.choice(self.lists['adjectives object'])} {words}"
        return Clause(subject or self.subject(rng), HAVE, with_article(words))

    def ability(self, rng: random.Random, subject: Subject | None = None) -> Clause:
        """A clause with *can*, as "The nurse can drive the car"."""
        clause = self.action(rng, subject, only_the=True)
        return replace(clause, verb=CAN, action=clause.verb.base)

    def clause(self, rng: random.Random, subject: Subject | None = None) -> Clause:
        """A clause of any of these forms."""
        make = rng.choices((self.action, self.movement, self.state, self.possession), (5, 3, 2, 1))[0]
        return make(rng, subject)


def gender(noun: str) -> str:
    """The pronoun for a person: "he", "she", or "" where the noun does not say."""
    return "he" if noun in _MALE else "she" if noun in _FEMALE else ""
