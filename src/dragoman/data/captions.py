"""The embedded corpus: German and English captions with gold word alignments, made in memory.

The sentences come from ``captions_grammar``. Every German sentence has one translation and every
English one a single source. The held-out splits are systematic: an (adjective, noun, verb) triple
belongs either to training or to validation and test, never to both, so translating them asks for
new combinations of known words.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from dragoman.data.captions_grammar import Grammar, Triple
from dragoman.data.captions_phrases import Phrase
from dragoman.errors import DragomanError, nearest, one_of

SPLITS = {"train": 8000, "val": 300, "test": 500}

_SEED = 1
_SHORTEST, _LONGEST = 6, 22  # words a side, punctuation not counted
_KNOWN = 10  # a word of a held-out sentence occurs at least so often in training


class Caption(NamedTuple):
    """A sentence pair with its gold word alignment.

    ``de`` and ``en`` are raw sentences; ``de_words`` and ``en_words`` their words and punctuation
    marks, which joined by single spaces, but none before ',' and '.', give the sentences.
    ``alignment`` holds sorted pairs (German position, English position), counted from 0. Every
    token is aligned, except the German commas that English does without.
    ``triples`` holds the German lemmas (adjective, noun, verb) of every attributive adjective: the
    noun it modifies and the main verb of the clause in which that noun stands. That verb is the
    infinitive where there is a modal or "versuchen"; the head of a relative clause stands in the
    clause outside it.
    """

    de: str
    en: str
    de_words: tuple[str, ...]
    en_words: tuple[str, ...]
    alignment: tuple[tuple[int, int], ...]
    triples: frozenset[Triple]


def captions(split: str) -> tuple[Caption, ...]:
    """Return the pairs of a split, the same in every process and Python version.

    Raises:
        DragomanError: for a split that is not one of ``SPLITS``.
    """
    if split not in SPLITS:
        raise DragomanError(
            f"captions has no split '{split}', expected {one_of(SPLITS)}{nearest(split, SPLITS)}"
        )
    return _corpus()[split]


@functools.cache
def fingerprint() -> str:
    """Return the SHA-256 of the text and alignment of all splits, in hexadecimal."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for pair in captions(split):
            digest.update(f"{split}\t{pair.de}\t{pair.en}\t{pair.alignment}\n".encode())
    return digest.hexdigest()


@functools.cache
def _corpus() -> Mapping[str, tuple[Caption, ...]]:
    rng = random.Random(_SEED)
    seen: set[str] = set()
    counts: Counter[tuple[str, str]] = Counter()
    splits = {}
    for split, size in SPLITS.items():
        grammar = Grammar(rng, held_out=split != "train")
        pairs: list[Caption] = []
        while len(pairs) < size:
            pair = _finish(grammar.sentence(), frozenset(grammar.triples))
            if not _fits(pair) or pair.de in seen or pair.en in seen:
                continue
            if split == "train":
                counts.update(_vocabulary(pair))
            elif not pair.triples or min(counts[word] for word in _vocabulary(pair)) < _KNOWN:
                continue
            seen |= {pair.de, pair.en}
            pairs.append(pair)
        splits[split] = tuple(pairs)
    return splits


def _vocabulary(pair: Caption) -> list[tuple[str, str]]:
    return [("de", word) for word in pair.de_words] + [("en", word) for word in pair.en_words]


def _fits(pair: Caption) -> bool:
    lengths = [sum(word not in ",." for word in side) for side in (pair.de_words, pair.en_words)]
    return min(lengths) >= _SHORTEST and max(lengths) <= _LONGEST


def _finish(sentence: Phrase, triples: frozenset[Triple]) -> Caption:
    """Write a sentence out: full stop, commas where they belong, capitals, positions."""
    sentence.say(".", ".")
    # Two clauses that end or begin at one place share the comma, and a full stop replaces it.
    following = [word.text for word in sentence.de[1:]] + [""]
    german = [
        word
        for word, after in zip(sentence.de, following, strict=True)
        if word.text != "," or after not in ",."
    ]
    position = {id(word): index for index, word in enumerate(german)}
    alignment = sorted(
        (position[id(word)], index)
        for index, english in enumerate(sentence.en)
        for word in english.of
    )
    de_words = _capitalise([word.text for word in german])
    en_words = _capitalise([word.text for word in sentence.en])
    return Caption(
        de=_join(de_words),
        en=_join(en_words),
        de_words=de_words,
        en_words=en_words,
        alignment=tuple(alignment),
        triples=triples,
    )


def _capitalise(words: list[str]) -> tuple[str, ...]:
    return (words[0][0].upper() + words[0][1:], *words[1:])


def _join(words: tuple[str, ...]) -> str:
    return " ".join(words).replace(" ,", ",").replace(" .", ".")
