"""The grammar of the embedded corpus: sentences grown in German and English at once.

An English word remembers the German words it stands for, so that the alignment is known however the
two orders differ. The German side has three genders, case and adjective endings (weak, mixed,
strong), the n-declension, separable verbs, verb-second and verb-final clauses, infinitives with
``zu``, contractions and compounds; the English side has the progressive and the habitual present,
particles, relative clauses and its own order of objects, place and time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from captions import lexicon
from captions.lexicon import Noun, Verb
from captions.phrases import (
    En,
    Phrase,
    Subject,
    adjective_form,
    choose_determiner,
    comma,
    determiner_form,
    fixed,
    noun_form,
    prepositional,
    relative_pronoun,
    verb_group,
)

T = TypeVar("T")
Triple = tuple[str, str, str]  # German lemmas: adjective, noun, verb
HELD_OUT_ONE_IN = 5


class Plan(NamedTuple):
    """What a main clause is to contain beside subject, verb and objects."""

    style: str  # plain, modal or try
    time: str  # "", front or middle
    place: str  # "", front or middle
    tail: str  # "", while, front (a fronted "while"), weather or reason


def is_held_out(triple: Triple) -> bool:
    """Return whether a triple is kept from training: one in five of each word's triples.

    A Latin square: with four in five of their verbs, every adjective and noun that go together are
    seen in training, and so are every noun and verb, adjective and verb.
    """
    adjective, noun, verb = triple
    return (_ADJECTIVES[adjective] + _NOUNS[noun] + _VERBS[verb]) % HELD_OUT_ONE_IN == 0


_ADJECTIVES = {name: rank for rank, name in enumerate(lexicon.ADJECTIVES)}
_NOUNS = {
    noun.de: rank for rank, noun in enumerate((*lexicon.NOUNS, *(p.noun for p in lexicon.PLACES)))
}
_VERBS = {verb.de: rank for rank, verb in enumerate(lexicon.VERBS)}

# Determiners, as often as they are listed. "mein" stands for the possessive of the subject: sein or
# ihr; "" for none.
_SUBJECTS = ("ein",) * 5 + ("der",) * 2 + ("dies",)
_SUBJECTS_PLURAL = ("zwei", "drei", "viele", "einige", "der", "dies")
_OBJECTS = ("ein",) * 6 + ("der",) * 3 + ("mein",) * 2
_OBJECTS_PLURAL = ("", "", "zwei", "drei", "viele", "einige", "der", "mein")
_PERSONS = ("adult", "child")
_LIVING = (*_PERSONS, "animal", "livestock")
_NOBODYS = (*_LIVING, "tree", "seat")  # what is never his or hers


class Grammar:
    """Draws sentences whose triples are all held out, or none of them.

    Only ``random()`` of the generator is used: its values are the same in every Python version.
    ``triples`` belongs to the sentence being made, as do its nouns, ``used``, and its verbs,
    ``done``.
    """

    def __init__(self, rng: random.Random, held_out: bool) -> None:
        self.rng = rng
        self.held_out = held_out
        self.triples: list[Triple] = []
        self.used: list[Noun] = []
        self.done: list[str] = []

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.rng.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, each equally likely."""
        return options[int(self.rng.random() * len(options))]

    # -- noun phrases --------------------------------------------------------------------------

    def noun(self, classes: Sequence[str]) -> Noun:
        """Draw a class, then a noun of it that is not in the sentence yet."""
        known = lexicon.NOUNS_OF[self.pick(classes)]
        noun = self.pick([noun for noun in known if noun not in self.used] or known)
        self.used.append(noun)
        return noun

    def noun_phrase(
        self,
        noun: Noun,
        gender: str,
        case: str,
        verb: Verb,
        determiner: str,
        owner: Subject | None = None,
    ) -> Phrase:
        """Return a declined noun phrase, more often than not with an adjective."""
        options = [
            name
            for name in lexicon.ADJECTIVES_OF[noun.kind]
            if is_held_out((name, noun.de, verb.de)) == self.held_out
        ]
        phrase = Phrase()
        names = noun.en_plural if gender == "p" else noun.en
        if options and self.chance(0.6):
            adjective = lexicon.ADJECTIVES[self.pick(options)]
            described = adjective.special.get(noun.kind, adjective.en)
            german, english = choose_determiner(determiner, gender, described, owner)
            form = adjective_form(adjective, german, gender, case)
            if german:
                phrase.say(determiner_form(german, gender, case), english)
            phrase.say(form, described)
            self.triples.append((adjective.de, noun.de, verb.de))
        else:
            german, english = choose_determiner(determiner, gender, names[0], owner)
            if german:
                phrase.say(determiner_form(german, gender, case), english)
        phrase.say(noun_form(noun, gender, case), *names)
        return phrase

    def subject(self, classes: Sequence[str], verb: Verb) -> Subject:
        """Draw a subject: one noun, or two joined by "und"."""
        if self.chance(0.08):
            pair = [self.noun([self.pick(classes)]) for _ in range(2)]
            first, second = (self.noun_phrase(n, n.gender, "nom", verb, "ein") for n in pair)
            joined = Phrase()
            joined.say("und", "and")
            return Subject(first + joined + second, None, "p")
        noun = self.noun(classes)
        gender = "p" if self.chance(0.35) else noun.gender
        determiner = self.pick(_SUBJECTS_PLURAL if gender == "p" else _SUBJECTS)
        return Subject(self.noun_phrase(noun, gender, "nom", verb, determiner), noun, gender)

    def object(self, verb: Verb, case: str, subject: Subject, classes: Sequence[str]) -> Subject:
        """Draw an object; it has the same shape as a subject, for relative clauses."""
        noun = self.noun(classes)
        if verb.objects in (("garment",), ("instrument",)):  # as many hats as heads
            plural = subject.gender == "p"
            determiner = self.pick(("", "", "mein") if plural else ("ein", "ein", "mein"))
        elif verb.frame == "give" and case == "dat":  # English "to" stands for the case it shows
            plural = self.chance(0.3)
            determiner = self.pick(_SUBJECTS_PLURAL if plural else _SUBJECTS)
        else:
            plural = self.chance(0.3)
            determiner = self.pick(_OBJECTS_PLURAL if plural else _OBJECTS)
        gender = "p" if plural else noun.gender
        owns = subject.noun and subject.noun.kind in _PERSONS and noun.kind not in _NOBODYS
        owner = subject if owns else None
        phrase = self.noun_phrase(noun, gender, case, verb, determiner, owner)
        return Subject(phrase, noun, gender)

    def place(self, verb: Verb, whither: bool = False) -> Phrase:
        """Draw a place that suits the nouns of the sentence: no cows in the kitchen."""
        kinds = {noun.kind for noun in self.used}
        fitting = [
            place
            for place in lexicon.PLACES
            if place.noun not in self.used
            and (place.noun.kind == "nature" or "livestock" not in kinds)
            and (place.noun.kind != "indoors" or not kinds & {"vehicle", "tree"})
        ]
        place = self.pick(fitting)
        self.used.append(place.noun)
        preposition, case, english = place.whither if whither else place.where
        determiner = "ein" if self.chance(0.25) else "der"
        phrase = self.noun_phrase(place.noun, place.noun.gender, case, verb, determiner)
        return prepositional(preposition, english, phrase)

    # -- verbs and their objects ---------------------------------------------------------------

    def complement(self, verb: Verb, subject: Subject) -> tuple[Phrase, Subject | None]:
        """Return the objects of a verb, and the last one where it can take a relative clause."""
        if verb.frame == "none":
            return Phrase(), None
        if verb.frame == "move":
            return self.place(verb, whither=True), None
        if verb.frame == "give":
            recipient = self.object(verb, "dat", subject, _PERSONS).phrase
            given = self.object(verb, "acc", subject, verb.objects)
            to = En("to", (recipient.de[0],))
            english = [*given.phrase.en, to, *recipient.en]
            return Phrase(recipient.de + given.phrase.de, english), None
        if verb.frame in ("acc", "dat"):
            thing = self.object(verb, verb.frame, subject, verb.objects)
            return thing.phrase, thing
        preposition, case, english_words = lexicon.frame_of(verb.frame)
        thing = self.object(verb, case, subject, verb.objects)
        return prepositional(preposition, english_words, thing.phrase), thing

    def verb(self, options: Sequence[Verb]) -> Verb:
        """Draw a verb that is not in the sentence yet."""
        verb = self.pick([verb for verb in options if verb.de not in self.done] or options)
        self.done.append(verb.de)
        return verb

    def relative_clause(self, head: Subject, frames: Sequence[str] = ()) -> Phrase:
        """Return a relative clause whose subject is the head, between German commas.

        Its verb has one of the ``frames``, or any.
        """
        assert head.noun is not None
        options = lexicon.VERBS_OF[head.noun.kind]
        verb = self.verb([verb for verb in options if not frames or verb.frame in frames])
        complement, _ = self.complement(verb, head)
        place = self.place(verb) if verb.frame == "none" else Phrase()
        group = verb_group(verb, head.gender == "p", final=True)
        opening = Phrase([comma()])
        english = "who" if head.noun.kind in _PERSONS else "that"
        opening.say(relative_pronoun(head.gender, "nom"), english)
        clause = Phrase(place.de + complement.de, group.en + complement.en + place.en)
        return opening + clause + Phrase([*group.right, comma()])

    def relative_clause_of_thing(self, head: Subject) -> Phrase:
        """Return a relative clause whose object is the head: "den ein Kind wirft"."""
        assert head.noun is not None
        verb = self.verb(lexicon.VERBS_WITH[head.noun.kind])
        subject = self.subject(verb.subjects, verb)
        group = verb_group(verb, subject.gender == "p", final=True)
        opening = Phrase([comma()])
        opening.say(relative_pronoun(head.gender, "acc"), "that")
        clause = Phrase([*subject.phrase.de, *group.right], subject.phrase.en + group.en)
        return opening + clause + Phrase([comma()])

    # -- clauses -------------------------------------------------------------------------------

    def while_clause(self) -> Phrase:
        """Return a clause with "während", the verb at its end."""
        verb = self.verb(lexicon.VERBS)
        subject = self.subject(verb.subjects, verb)
        complement, _ = self.complement(verb, subject)
        place = self.place(verb) if verb.frame == "none" and self.chance(0.6) else Phrase()
        group = verb_group(verb, subject.gender == "p", final=True)
        opening = Phrase()
        opening.say("während", "while")
        german = place.de + complement.de + group.right
        return opening + subject.phrase + Phrase(german, group.en + complement.en + place.en)

    def reason(self, subject: Subject) -> Phrase:
        """Return a clause with "weil" about the subject: how it feels or what it wants."""
        pronoun = "they" if subject.gender == "p" else subject.noun.pronoun if subject.noun else ""
        if not pronoun:
            return self.weather()
        plural = subject.gender == "p"
        clause = Phrase()
        clause.say("weil", "because")
        clause.say({"m": "er", "f": "sie", "n": "es", "p": "sie"}[subject.gender], pronoun)
        if subject.noun is None or self.chance(0.5):
            mood = Phrase()
            german, english = self.pick(lexicon.MOODS)
            mood.say(german, english)
            be = Phrase()
            be.say("sind" if plural else "ist", "are" if plural else "is")
            return clause + Phrase(mood.de + be.de, be.en + mood.en)
        verb = self.verb(lexicon.VERBS_OF[subject.noun.kind])
        complement, _ = self.complement(verb, subject)
        group = verb_group(verb, plural, final=True, modal=self.pick(lexicon.WISHES))
        return clause + Phrase(complement.de + group.right, group.en + complement.en)

    def weather(self) -> Phrase:
        """Return one of the fixed clauses with "weil" or "obwohl"."""
        clause = Phrase()
        clause.say(*self.pick(lexicon.CONJUNCTIONS))
        return clause + fixed(*self.pick(lexicon.WEATHER))

    def plan(self, verb: Verb) -> Plan:
        """Draw what the sentence is to contain."""
        style = self.pick(("plain",) * 7 + ("modal", "modal", "try"))
        tail = self.pick(("",) * 5 + ("while", "while", "front", "weather", "reason", "reason"))
        slots = ["", "middle"] if tail == "front" else ["", "front", "middle"]
        time = self.pick(["", *slots])
        if style == "try" and time == "middle":  # trying every day, or to do it every day?
            time = ""
        slots = [slot for slot in slots if slot != "front" or time != "front"]
        place = "" if verb.frame == "move" else self.pick(slots)
        return Plan(style, time, place, tail)

    def sentence(self) -> Phrase:
        """Draw a sentence, without the full stop; its triples are in ``triples``."""
        self.triples, self.used, self.done = [], [], []
        verb = self.verb(lexicon.VERBS)
        plan = self.plan(verb)
        subject = self.subject(verb.subjects, verb)
        complement, last = self.complement(verb, subject)
        after = Phrase()
        if last and last.noun and not plan.tail and "middle" not in plan and self.chance(0.6):
            living = last.noun.kind in _LIVING
            after = self.relative_clause(last) if living else self.relative_clause_of_thing(last)
        place = self.place(verb) if plan.place else Phrase()
        described = subject.phrase
        if subject.noun and not after.de:
            described = described + self.description(subject, verb)
        time = self.pick(lexicon.TIMES)
        when = fixed(time.de, time.en) if plan.time else Phrase()
        group = verb_group(
            verb,
            subject.gender == "p",
            habitual=bool(plan.time) and time.habitual,
            modal=self.pick(lexicon.MODALS) if plan.style == "modal" else None,
            trying=plan.style == "try",
        )
        front, tail = Phrase(), Phrase()
        if plan.tail == "front":
            mark = comma()
            front = self.while_clause() if self.chance(0.6) else self.weather()
            front = front + Phrase([mark], [En(",", (mark,))])
        elif plan.tail:
            clause = {"while": self.while_clause, "weather": self.weather}.get(plan.tail)
            tail = Phrase([comma()]) + (clause() if clause else self.reason(subject))
        middle = Phrase()
        for slot, phrase in ((plan.time, when), (plan.place, place)):
            if slot == "front":
                front = phrase
            elif slot:  # German has the time before the place, English after it
                middle = Phrase(middle.de + phrase.de, phrase.en + middle.en)
        head = group.second[:1] + described.de if front.de else described.de + group.second[:1]
        german = [*head, *group.second[1:], *middle.de, *complement.de, *group.right, *after.de]
        english = [*described.en, *group.en, *complement.en, *after.en, *middle.en]
        return front + Phrase(german, english) + tail

    def description(self, subject: Subject, verb: Verb) -> Phrase:
        """Return what may follow a subject: nothing, a phrase with "mit" or a relative clause."""
        assert subject.noun is not None
        if self.chance(0.2):
            return self.relative_clause(subject, ("acc",))  # a second place would clash
        if subject.noun.kind not in _PERSONS or not self.chance(0.15):
            return Phrase()
        noun = self.noun(("garment", "bag", "gadget"))
        gender, determiner = ("p", "") if subject.gender == "p" else (noun.gender, "ein")
        phrase = self.noun_phrase(noun, gender, "dat", verb, determiner)
        return prepositional("mit", ("with",), phrase)
