"""Pieces of a sentence in both languages: declension, conjugation, prepositions.

An English word remembers the German words it stands for, so that the alignment is known however the
two orders differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from captions.lexicon import CONTRACTIONS, Adjective, Modal, Noun, Verb

# Columns of the declension tables, by case: masculine, feminine, neuter, plural.
_GENDERS = ("m", "f", "n", "p")
_DEFINITE = {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"}
_EIN = {"nom": "- e - e", "acc": "en e - e", "dat": "em er em en"}
_DIES = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}
_WEAK = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}
_MIXED = {"nom": "er e es en", "acc": "en e es en", "dat": "en en en en"}
_STRONG = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}

# Determiners: what the adjective after them is declined like.
_ADJECTIVE_ENDINGS = {
    "der": _WEAK,
    "dies": _WEAK,
    "ein": _MIXED,
    "sein": _MIXED,
    "ihr": _MIXED,
    "": _STRONG,
    "zwei": _STRONG,
    "drei": _STRONG,
    "viele": _STRONG,
    "einige": _STRONG,
}


@dataclass(eq=False)
class De:
    """A German word; compared by identity, so that it can be aligned before it has a position."""

    text: str


class En(NamedTuple):
    """An English word and the German words it stands for."""

    text: str
    of: tuple[De, ...]


@dataclass
class Phrase:
    """A piece of a sentence in both languages, each in its own order."""

    de: list[De] = field(default_factory=list)
    en: list[En] = field(default_factory=list)

    def say(self, de: str, *en: str) -> None:
        """Append a German word and the English words that stand for it."""
        word = De(de)
        self.de.append(word)
        self.en += [En(text, (word,)) for text in en]

    def __add__(self, other: Phrase) -> Phrase:
        return Phrase(self.de + other.de, self.en + other.en)


class Subject(NamedTuple):
    """Who a clause is about: the phrase and what agrees with it."""

    phrase: Phrase
    noun: Noun | None  # None for two nouns joined by "und"
    gender: str  # m, f, n or p (plural)


class VerbGroup(NamedTuple):
    """The German verb in second place, the verbal words at the end, and the English verb."""

    second: list[De]
    right: list[De]
    en: list[En]


def comma() -> De:
    """Return a German comma; adjacent ones become one when the sentence is written out."""
    return De(",")


def _look_up(table: dict[str, str], gender: str, case: str) -> str:
    return table[case].split()[_GENDERS.index(gender)].replace("-", "")


def determiner_form(name: str, gender: str, case: str) -> str:
    """Return the form of a determiner; ``gender`` is m, f, n or p (plural)."""
    if name == "der":
        return _look_up(_DEFINITE, gender, case)
    if name == "dies":
        return name + _look_up(_DIES, gender, case)
    if name in ("ein", "sein", "ihr"):
        return name + _look_up(_EIN, gender, case)
    return name + "n" if name in ("viele", "einige") and case == "dat" else name


def relative_pronoun(gender: str, case: str) -> str:
    """Return the relative pronoun, in the nominative and accusative the definite article."""
    assert case != "dat"  # the dative plural would be "denen"
    return _look_up(_DEFINITE, gender, case)


def adjective_form(adjective: Adjective, after: str, gender: str, case: str) -> str:
    """Return the adjective with the ending it has after the determiner called ``after``."""
    return adjective.stem + _look_up(_ADJECTIVE_ENDINGS[after], gender, case)


def noun_form(noun: Noun, gender: str, case: str) -> str:
    """Return the noun in a case; ``gender`` is its own or p (plural)."""
    if gender != "p":
        return noun.de if case == "nom" else noun.oblique
    return noun.plural + "n" if case == "dat" and noun.plural[-1] not in "ns" else noun.plural


_ENGLISH = {
    "": "",
    "der": "the",
    "zwei": "two",
    "drei": "three",
    "viele": "many",
    "einige": "some",
}


def choose_determiner(
    name: str, gender: str, following: str, owner: Subject | None
) -> tuple[str, str]:
    """Return the German determiner, not yet declined, and the English one before ``following``."""
    if name == "mein":
        if owner is None or owner.noun is None or owner.noun.gender == "n":
            return choose_determiner("der", gender, following, None)
        if owner.gender == "p":
            return "ihr", "their"
        return ("ihr", "her") if owner.gender == "f" else ("sein", "his")
    if name == "dies":
        return name, "these" if gender == "p" else "this"
    if name == "ein":
        return name, "an" if following[0] in "aeiou" else "a"
    return name, _ENGLISH[name]


def prepositional(preposition: str, english: Sequence[str], phrase: Phrase) -> Phrase:
    """Put a preposition before a noun phrase, contracted with its article where they can be."""
    contracted = CONTRACTIONS.get((preposition, phrase.de[0].text))
    if contracted is None:
        opening = Phrase()
        opening.say(preposition, *english)
        return opening + phrase
    word = De(contracted)
    article = En(phrase.en[0].text, (word,))
    return Phrase(
        [word, *phrase.de[1:]], [*(En(text, (word,)) for text in english), article, *phrase.en[1:]]
    )


def fixed(de: Sequence[str], en: Sequence[tuple[str, int]]) -> Phrase:
    """Return a phrase from its German words and (English word, position of its German one)."""
    words = [De(text) for text in de]
    return Phrase(words, [En(text, (words[position],)) for text, position in en])


def verb_group(
    verb: Verb,
    plural: bool,
    *,
    final: bool = False,
    habitual: bool = False,
    modal: Modal | None = None,
    trying: bool = False,
) -> VerbGroup:
    """Conjugate a verb for a main clause or, ``final``, for one that has its verb at the end."""
    be = "are" if plural else "is"
    particle = verb.particle
    if modal or trying:
        infinitive = De(verb.de)
        if modal:
            finite = De(modal.plural if plural else modal.singular)
            words = modal.en_plural if plural else modal.en_singular
            second, right = [finite], [infinitive]
            english = [En(word, (finite,)) for word in words]
        else:
            finite = De("versuchen" if plural else "versucht")
            words = ("try" if plural else "tries",) if habitual else (be, "trying")
            zu = De("zu")
            if verb.prefix:
                zu = infinitive = De(f"{verb.prefix}zu{verb.plural}")
            second = [finite, comma()]
            right = [infinitive] if verb.prefix else [zu, infinitive]
            english = [*(En(word, (finite,)) for word in words), En("to", (zu,))]
        english.append(En(verb.en, (infinitive,)))
        source: tuple[De, ...] = (infinitive,)
    else:
        agreed = verb.plural if plural else verb.singular
        finite = De(verb.prefix + agreed if final else agreed)
        second = [finite]
        right = [De(verb.prefix)] if verb.prefix and not final else []
        words = (verb.en if plural else verb.en_singular,) if habitual else (be, verb.en_ing)
        english = [En(word, (finite,)) for word in words]
        source = tuple(right) or (finite,)
        if not particle and right:  # "ruft ... an" is "calls": both halves stand for one word
            english[-1] = En(words[-1], (finite, *right))
    if particle:
        english.append(En(particle, source))
    return VerbGroup([], right + second, english) if final else VerbGroup(second, right, english)
