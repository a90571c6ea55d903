"""Entries of the instruction set for its tests: drawn once, read back with the phrasings, and their grammar.

The forms of words and the rules of verbs are worked out here again, apart from the generators.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cache

from helpers.make.instruction_set import INSTRUCTIONS_FILE, draw, kinds

SEEDS = INSTRUCTIONS_FILE.parent / "seeds"
ENTRIES = json.loads(INSTRUCTIONS_FILE.read_text(encoding="utf-8"))


def parts(text):
    return text.split()


TASKS = {  # the lists of phrasings of each kind
    "plural": "plural singular",
    "past_tense": "past_tense third_person",
    "tense": "past future present",
    "negative": "negative positive",
    "question": "question statement",
    "passive": "passive active",
    "article": "article article_gap article_seen article_adjective",
    "agreement": "person pronoun be_form",
    "comparison": "comparative superlative comparison_all comparative_sentence",
    "grammar": "grammar verb_gap",
    "pick": "pick pick_value",
    "category": "category alive",
    "odd_one_out": "odd_one_out",
    "opinion": "opinion opinion_like",
    "feelings": "feelings",
    "compare": "larger smaller older more alphabet_two",
    "reading": "who what where who_has what_has yes_if",
    "yes_no": "yes_no",
    "repeat": "repeat repeat_more",
    "first_and_last": "first_word last_word first_item second_item last_item",
    "swap": "swap swap_sentence",
    "reverse": "reverse",
    "replace": "replace leave_out add_word",
    "punctuation": "full_stop question_mark capital_letter",
    "letters": "first_letter last_letter spell join uppercase",
    "ordering": "ascending descending alphabet",
    "antonyms": "antonyms",
    "synonyms": "synonyms",
    "rhyme": "rhyme",
    "polite": "polite not_do short_forms long_forms",
    "animals": "sound young legs home feeds gives",
    "definitions": "definitions defined_word verb_meaning adjective_meaning",
    "colors": "colors",
    "calendar": "next_day previous_day next_month previous_month month_days month_place next_season",
    "jobs": "jobs",
    "uses": "uses",
    "completion": "completion",
    "arithmetic": "addition subtraction",
    "counting": "count_words count_items count_letters",
    "numbers": "next_number previous_number",
    "advice": "problem how_to",
    "sentences": "title story_start make_sentence",
    "lists": "lists",
    "similes": "similes",
}
NUMBERS = parts(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)


@cache
def practice(seed):
    return draw(20_000, seed)


@cache
def unseen():
    return draw(600, 1, unseen=True)


@cache
def everything():
    """Kinds and entries of the embedded set, of practice and of unseen requests, by kind."""
    by_kind = defaultdict(list)
    for kind, entry in [*zip(kinds(), ENTRIES, strict=True), *practice(1), *unseen()]:
        by_kind[kind].append(entry)
    return by_kind


def lines_of(name):
    return (SEEDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def lists_of(name, comma=", "):
    return {key: rest.split(comma) for key, rest in (line.split(": ", 1) for line in lines_of(f"words/{name}"))}


def table(name):
    header, *rows = (line.split(" | ") for line in lines_of(f"facts/{name}"))
    return [dict(zip(header, row, strict=True)) for row in rows]


def request(entry):
    return f"{entry['instruction']}\n{entry['input']}"


def normal(text):
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def words(text):
    return re.findall(r"[A-Za-z']+", text)


def numbers(text):
    return [int(digits) for digits in re.findall(r"\d+", text)]


def capital(text):
    return text[0].upper() + text[1:]


# Reading an entry back with the phrasings


@cache
def patterns(task):
    """Each phrasing of a list as a pattern; a gap that comes again must hold the same text, in any case."""
    return [re.compile(_pattern(line), flags=re.IGNORECASE) for line in lines_of(f"phrasings/{task}")]


def _pattern(line):
    instruction, *inputs, output = line.replace("\\n", "\n").split(" | ")
    pieces, seen = re.split(r"\{(\w+)\}", "\x00".join([instruction, "".join(inputs), output])), set()
    for i in range(1, len(pieces), 2):
        name = pieces[i][0].lower() + pieces[i][1:]
        article, name = ("an? ", name[2:]) if name.startswith("a_") else ("", name)
        pieces[i] = article + (f"(?P={name})" if name in seen else f"(?P<{name}>[^\x00]+?)")
        seen.add(name)
    return "".join(piece if i % 2 else re.escape(piece) for i, piece in enumerate(pieces))


def read(kind, entry):
    """All ways to read an entry: list of phrasings, number of the phrasing, what stands in its gaps."""
    text = "\x00".join(entry.values())
    return [
        (task, number, found.groupdict())
        for task in TASKS[kind].split()
        for number, pattern in enumerate(patterns(task))
        if (found := pattern.fullmatch(text))
    ]


def gaps(kind, *tasks):
    """What stands in the gaps of each entry of a kind, if its list of phrasings is one of `tasks`.

    Of several ways to read an entry it is the one with the longest phrasing.
    """
    found = [
        (*min(read(kind, entry), key=lambda way: sum(map(len, way[2].values())))[::2], entry)
        for entry in everything()[kind]
    ]
    found = [item for item in found if item[0] in tasks or not tasks]
    assert len(found) > 20
    return found


# Grammar that is worked out here again

IRREGULAR_PLURALS = dict(
    pair.split("/")
    for pair in parts(
        "deer/deer mouse/mice sheep/sheep wolf/wolves calf/calves goose/geese mosquito/mosquitoes mango/mangoes "
        "potato/potatoes scarf/scarves shelf/shelves knife/knives foot/feet tooth/teeth man/men woman/women "
        "child/children leaf/leaves snowman/snowmen fish/fish thief/thieves elf/elves"
    )
)
IRREGULAR_VERBS = {
    base: (past, participle)
    for base, past, participle in (
        forms.split("/")
        for forms in parts(
            "begin/began/begun become/became/become bend/bent/bent bite/bit/bitten blow/blew/blown break/broke/broken "
            "bring/brought/brought build/built/built buy/bought/bought catch/caught/caught choose/chose/chosen "
            "come/came/come creep/crept/crept dig/dug/dug do/did/done draw/drew/drawn drink/drank/drunk "
            "drive/drove/driven eat/ate/eaten fall/fell/fallen feed/fed/fed feel/felt/felt fight/fought/fought "
            "find/found/found fly/flew/flown forget/forgot/forgotten forgive/forgave/forgiven freeze/froze/frozen "
            "get/got/gotten give/gave/given go/went/gone grow/grew/grown hang/hung/hung have/had/had hear/heard/heard "
            "hide/hid/hidden hold/held/held keep/kept/kept kneel/knelt/knelt know/knew/known lead/led/led "
            "leave/left/left lend/lent/lent light/lit/lit lose/lost/lost make/made/made mean/meant/meant meet/met/met "
            "pay/paid/paid ride/rode/ridden ring/rang/rung rise/rose/risen run/ran/run say/said/said see/saw/seen "
            "sell/sold/sold send/sent/sent sew/sewed/sewn shake/shook/shaken shine/shone/shone shoot/shot/shot "
            "sing/sang/sung sink/sank/sunk sit/sat/sat sleep/slept/slept slide/slid/slid speak/spoke/spoken "
            "spend/spent/spent stand/stood/stood steal/stole/stolen stick/stuck/stuck sting/stung/stung "
            "strike/struck/struck swear/swore/sworn sweep/swept/swept swim/swam/swum swing/swung/swung "
            "take/took/taken teach/taught/taught tear/tore/torn tell/told/told think/thought/thought "
            "throw/threw/thrown understand/understood/understood wake/woke/woken wear/wore/worn weep/wept/wept "
            "win/won/won write/wrote/written"
        )
    )
}
DOUBLED = set(
    parts(
        "drop knit stop stir clap hop hug hum nod plan rub skip tap trip beg drip grin pat "
        "big hot sad thin wet fat slim flat"
    )
)
NOUNS = lists_of("nouns")
SINGULARS = {word.partition("/")[0] for words_ in NOUNS.values() for word in words_} - {"-"}
PLURAL_ONLY = {word[2:] for words_ in NOUNS.values() for word in words_ if word.startswith("-/")}
VERBS = {head.split()[0] for name in ("verbs", "animal_verbs", "places") for head in lists_of(name)} | {
    forms.split()[0] for line in lines_of("words/other_verbs") for forms in line.split(", ")
}
NAMES = {name: pronoun for pronoun, names in lists_of("names").items() for name in names}
PRONOUNS = {"I": False, "you": False, "he": True, "she": True, "it": True, "we": False, "they": False}
BE = {"is", "are", "am", "was", "were"}


def plural_of(word):
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeiou" else word + "s"


def third_of(base):
    return {"have": "has", "go": "goes", "do": "does"}.get(base) or plural_of(base)


def past_of(base):
    if base in IRREGULAR_VERBS:
        return IRREGULAR_VERBS[base][0]
    if base.endswith("e"):
        return base + "d"
    if base in DOUBLED:
        return base + base[-1] + "ed"
    return base[:-1] + "ied" if base.endswith("y") and base[-2] not in "aeiou" else base + "ed"


def needs_an(word):
    return (word[0] in "aeiou") != (word in ("uniform", "honest"))


def participle_of(base):
    return IRREGULAR_VERBS[base][1] if base in IRREGULAR_VERBS else past_of(base)


THIRD, PAST = ({form(base): base for base in VERBS} for form in (third_of, past_of))
PLURALS = {plural_of(word) for word in SINGULARS} - SINGULARS | PLURAL_ONLY


def subject_of(tokens):
    """The number of tokens of the subject, and whether its verb takes an s."""
    if tokens[0] in NAMES:
        return (3, False) if tokens[1] == "and" else (1, True)
    if tokens[0] in PRONOUNS or tokens[0].lower() in PRONOUNS:
        return 1, PRONOUNS.get(tokens[0], PRONOUNS.get(tokens[0].lower()))
    assert tokens[0].lower() in ("the", "my"), tokens
    return 2, tokens[1] not in PLURALS


def is_right(text):
    """Is the verb of a statement of the set's small grammar in the right form?"""
    tokens, opener = text.rstrip(".").split(), ""
    for words_ in (["Every", "day"], ["Yesterday"], ["Tomorrow"]):
        if tokens[: len(words_)] == words_:
            tokens, opener = tokens[len(words_) :], words_[0]
    length, third = subject_of(tokens)
    verb, *rest = tokens[length:]
    if verb in BE:
        first = tokens[0] == "I"
        form = {"is": third, "was": third or first, "are": not third and not first, "am": first}
        return form.get(verb, not third and not first)
    if verb in ("do", "does", "did"):
        return rest[0] == "not" and rest[1] in VERBS and (verb == "did" or (verb == "does") == third)
    if verb in ("can", "could", "will", "cannot"):
        rest = rest[1:] if rest[0] == "not" else rest
        return (rest[0] in VERBS or (rest[0] == "be" and verb == "will")) and opener in ("", "Tomorrow")
    now = verb in THIRD if third else verb in VERBS
    return (verb in PAST and opener in ("", "Yesterday")) or (now and opener in ("", "Every"))


def affirm(subject, auxiliary, rest):
    """The statement without *not*: from "Anna", "does", "open the door." comes "Anna opens the door." """
    if auxiliary not in ("do", "does", "did"):
        return f"{subject} {auxiliary} {rest}"
    base, *others = rest.rstrip(".").split()
    form = {"do": base, "does": third_of(base), "did": past_of(base)}[auxiliary]
    return " ".join([subject, form, *others]) + "."
