"""A small grammar of English for the instruction set: sentences of a subject, a verb and what follows it.

A `Clause` can be put into three tenses, negated, made a question and turned into the passive. The forms of nouns, verbs
and adjectives follow the rules of spelling; the word lists give the irregular ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_MALE = {"boy", "man", "king", "prince", "father", "brother", "uncle", "grandfather", "son", "nephew"}
_FEMALE = {"girl", "woman", "queen", "princess", "mother", "sister", "aunt", "grandmother", "daughter", "niece"}
_OBJECT_FORMS = {"he": "him", "she": "her", "they": "them", "we": "us", "I": "me"}


@dataclass(frozen=True)
class Noun:
    """A noun; `plural` is "" for what is not counted (bread), `singular` is "" for what has no singular (jeans)."""

    singular: str
    plural: str

    @property
    def counted(self) -> bool:
        return bool(self.singular and self.plural)

    @property
    def name(self) -> str:
        """The form that stands for the noun in the lists: the singular if it has one."""
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
        """The form after *she*: opens, washes, carries."""
        return "has" if self.base == "have" else add_s(self.base)


BE = Verb("be", "was", "been")
CAN = Verb("can", "could", "could")
HAVE = Verb("have", "had", "had")


@dataclass(frozen=True)
class Subject:
    """A subject such as "the girl", "Anna", "my brothers" or "we"; `pronoun` is "" where the noun does not tell."""

    text: str
    plural: bool
    pronoun: str

    @property
    def third(self) -> bool:
        """Does a verb in the present take an s?"""
        return not self.plural and self.text not in ("I", "you")

    @property
    def is_name(self) -> bool:
        return self.text[0].isupper() and self.text != "I"

    @property
    def as_object(self) -> str:
        return _OBJECT_FORMS.get(self.text, self.text)

    def be(self, tense: str) -> str:
        """The form of *be* in the present or the past: am, is, are; was, were."""
        if tense == "past":
            return "was" if self.third or self.text == "I" else "were"
        return "am" if self.text == "I" else "is" if self.third else "are"


def pronoun_subject(word: str) -> Subject:
    """A pronoun as subject: I, you, he, she, we or they."""
    return Subject(word, word in ("we", "they"), word)


def noun_subject(article: str, noun: Noun, plural: bool = False) -> Subject:
    """A person or thing as subject, as "the girls" or "my uncle"."""
    if plural:
        return Subject(f"{article} {noun.plural}", True, "they")
    word = noun.singular
    return Subject(f"{article} {word}", False, "he" if word in _MALE else "she" if word in _FEMALE else "")


@dataclass(frozen=True)
class Clause:
    """A subject, a verb and the rest: an object, a place, or what follows *be*.

    `plural_rest` says that the object is a plural, `action` is the verb after *can*, `tail` ends it ("again").
    The tenses are "present", "past" and "future"; *can* has no future.
    """

    subject: Subject
    verb: Verb
    rest: str
    plural_rest: bool = False
    action: str = ""
    tail: str = ""

    def tense(self, name: str) -> str:
        """The statement in a tense: "Anna opens the door.", "Anna opened the door.", "Anna will open the door." """
        auxiliary, main = self._auxiliary(name)
        if not auxiliary:
            main = self.verb.past if name == "past" else self.verb.third if self.subject.third else self.verb.base
        return sentence(self.subject.text, auxiliary, main, self.rest, self.tail)

    def negative(self, tense: str) -> str:
        """The statement with *not*: "Anna does not open the door." """
        auxiliary, main = self._auxiliary(tense, helped=True)
        auxiliary = "cannot" if auxiliary == "can" else f"{auxiliary} not"
        return sentence(self.subject.text, auxiliary, main, self.rest, self.tail)

    def question(self, tense: str) -> str:
        """The question that is answered with yes or no: "Does Anna open the door?" """
        auxiliary, main = self._auxiliary(tense, helped=True)
        return sentence(auxiliary, self.subject.text, main, self.rest, self.tail)[:-1] + "?"

    def passive(self, tense: str) -> str:
        """The passive: "The door is opened by Anna." """
        helper = Subject(self.rest, self.plural_rest, "").be(tense)
        return sentence(self.rest, helper, self.verb.participle, "by", self.subject.as_object, self.tail)

    def about(self, subject: Subject) -> Clause:
        """The same of another subject."""
        return replace(self, subject=subject)

    def _auxiliary(self, tense: str, helped: bool = False) -> tuple[str, str]:
        """The auxiliary and the verb that follows it; a form of *do* if there is no other and it is `helped`."""
        if self.verb is CAN:
            return ("could" if tense == "past" else "can"), self.action
        if tense == "future":
            return "will", self.verb.base
        if self.verb is BE:
            return self.subject.be(tense), ""
        if not helped:
            return "", ""
        return ("did" if tense == "past" else "does" if self.subject.third else "do"), self.verb.base


def sentence(*parts: str) -> str:
    """The parts that are not empty, with a capital letter and a full stop."""
    return capital(" ".join(part for part in parts if part)) + "."


def capital(text: str) -> str:
    """The text with a capital letter at the start."""
    return text[:1].upper() + text[1:]


def inside(statement: str, subject: Subject) -> str:
    """The statement as it is written after another word: "the girl sleeps.", but "Anna sleeps." """
    keeps = subject.is_name or subject.text == "I"
    return statement if keeps else statement[:1].lower() + statement[1:]


def with_article(text: str) -> str:
    """The text with *a* or *an* before it, by its first sound."""
    vowel = re.match(r"(?!uni|use|eu|one\b)[aeiou]|hour|honest|heir", text.lower())
    return ("an " if vowel else "a ") + text


def add_s(word: str) -> str:
    """The plural of a regular noun (cats, boxes, cities), or the form of a verb after *she* (opens, goes, carries)."""
    if re.search(r"(s|x|z|ch|sh)$|^(go|do)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


def add_ed(word: str) -> str:
    """The past of a regular verb that doubles no letter: opened, baked, carried."""
    if word.endswith("e"):
        return word + "d"
    return word[:-1] + "ied" if re.search(r"[^aeiou]y$", word) else word + "ed"


def verb_of(forms: str, follow: tuple[str, ...] = ()) -> Verb:
    """A verb from "open" (regular), from base and past ("find found"), or with a participle ("eat ate eaten")."""
    base, *others = forms.split()
    past = others[0] if others else add_ed(base)
    return Verb(base, past, others[-1] if others else past, follow)


def noun_of(word: str) -> Noun:
    """A noun from "cat" (regular), "mouse/mice", "bread/-" (no plural) or "-/jeans" (no singular)."""
    singular, slash, plural = word.partition("/")
    return Noun("" if singular == "-" else singular, "" if plural == "-" else plural if slash else add_s(word))


def compared(forms: str) -> tuple[str, str, str]:
    """An adjective's three forms, from "tall" (regular) or "big bigger biggest"."""
    word, *others = forms.split()
    if others:
        return word, others[0], others[1]
    stem = word[:-1] if word.endswith("e") else word[:-1] + "i" if re.search(r"[^aeiou]y$", word) else word
    return word, stem + "er", stem + "est"
