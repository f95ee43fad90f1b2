"""The grammar of the embedded corpus, and the file that it writes."""

from __future__ import annotations

import gzip
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from dragoman.data.captions import FILE, SPLITS, captions

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import make_captions
from captions.grammar import Grammar, is_held_out
from captions.lexicon import ADJECTIVES, ADJECTIVES_OF, NOUNS, VERBS, Noun
from captions.phrases import adjective_form, determiner_form, noun_form

EVERY = [pair for split in SPLITS for pair in captions(split)]


def test_the_script_makes_the_file_that_is_shipped() -> None:
    """Byte for byte; how the bytes are packed may differ from one zlib to another."""
    packed = make_captions.packed()
    assert gzip.decompress(packed) == gzip.decompress(FILE.read_bytes())
    assert packed[4:8] == FILE.read_bytes()[4:8] == bytes(4), "the time of packing is left out"


def test_triples_name_every_attributive_adjective() -> None:
    """The inflected adjectives before a noun can be counted in the sentence itself."""
    stems = {adjective.stem: adjective.de for adjective in ADJECTIVES.values()}
    forms = {stem + e: de for stem, de in stems.items() for e in ("e", "er", "es", "en", "em")}
    for pair in EVERY:
        following = [*pair.de_words[1:], ""]
        found = Counter(
            forms[word]
            for word, after in zip(pair.de_words, following, strict=True)
            if word in forms and after not in ("ist", "sind")  # those say how someone feels
        )
        assert set(found) == {adjective for adjective, _, _ in pair.triples}
        assert sum(found.values()) >= len(pair.triples)


def noun(name: str) -> Noun:
    return next(noun for noun in NOUNS if noun.de == name)


@pytest.mark.parametrize(
    ("determiner", "adjective", "name", "number", "case", "expected"),
    [
        ("ein", "klein", "Hund", "s", "nom", "ein kleiner Hund"),
        ("ein", "klein", "Hund", "s", "acc", "einen kleinen Hund"),
        ("ein", "klein", "Hund", "s", "dat", "einem kleinen Hund"),
        ("der", "alt", "Mann", "s", "dat", "dem alten Mann"),
        ("zwei", "klein", "Hund", "p", "nom", "zwei kleine Hunde"),
        ("zwei", "klein", "Hund", "p", "dat", "zwei kleinen Hunden"),
        ("viele", "alt", "Mann", "p", "dat", "vielen alten Männern"),
        ("", "rot", "Auto", "p", "dat", "roten Autos"),
        ("", "rot", "Auto", "p", "acc", "rote Autos"),
        ("der", "rot", "Auto", "p", "acc", "die roten Autos"),
        ("ein", "teuer", "Hemd", "s", "acc", "ein teures Hemd"),
        ("der", "müde", "Frau", "s", "nom", "die müde Frau"),
        ("der", "müde", "Frau", "s", "dat", "der müden Frau"),
        ("dies", "neugierig", "Junge", "s", "acc", "diesen neugierigen Jungen"),
        ("dies", "klein", "Mädchen", "s", "dat", "diesem kleinen Mädchen"),
        ("ihr", "nass", "Jacke", "s", "dat", "ihrer nassen Jacke"),
        ("sein", "neu", "Ball", "p", "acc", "seine neuen Bälle"),
        ("ein", "jung", "Affe", "s", "dat", "einem jungen Affen"),
        ("", "alt", "Lehrerin", "p", "dat", "alten Lehrerinnen"),
    ],
)
def test_declension(
    determiner: str, adjective: str, name: str, number: str, case: str, expected: str
) -> None:
    gender = "p" if number == "p" else noun(name).gender
    words = [
        determiner_form(determiner, gender, case),
        adjective_form(ADJECTIVES[adjective], determiner, gender, case),
        noun_form(noun(name), gender, case),
    ]
    assert " ".join(word for word in words if word) == expected


def test_lexicon_is_consistent() -> None:
    assert {name for names in ADJECTIVES_OF.values() for name in names} == set(ADJECTIVES)
    assert {noun.kind for noun in NOUNS} <= set(ADJECTIVES_OF)
    for verb in VERBS:
        assert verb.de.startswith(verb.prefix)
        assert set(verb.subjects + verb.objects) <= {noun.kind for noun in NOUNS}
        assert bool(verb.objects) == (verb.frame not in ("none", "move"))
    used = {triple[2] for pair in EVERY for triple in pair.triples}
    assert used == {verb.de for verb in VERBS}


@pytest.mark.parametrize("held_out", [False, True])
def test_grammar_keeps_to_its_side_of_the_triples(held_out: bool) -> None:
    grammar = Grammar(random.Random(7), held_out)
    seen = []
    for _ in range(200):
        grammar.sentence()
        seen += grammar.triples
    assert len(seen) > 100
    assert all(is_held_out(triple) == held_out for triple in seen)
