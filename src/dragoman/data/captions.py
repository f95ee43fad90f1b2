"""The embedded corpus: German and English captions with gold word alignments, shipped as one file.

Every German sentence has one translation and every English one a single source. The held-out splits
are systematic: an (adjective, noun, verb) triple belongs either to training or to validation and
test, never to both, so translating them asks for new combinations of known words. The sentences
were written by a seeded grammar, ``scripts/make_captions.py`` in the source repository.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dragoman.data.formats import read_lines
from dragoman.errors import DragomanError, nearest, one_of

SPLITS = {"train": 8000, "val": 300, "test": 500}
FILE = Path(__file__).with_name("captions.tsv.gz")


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
    triples: frozenset[tuple[str, str, str]]


def captions(split: str) -> tuple[Caption, ...]:
    """Return the pairs of a split; the file is read when the first one is asked for.

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
    splits: dict[str, list[Caption]] = {split: [] for split in SPLITS}
    for line in read_lines(FILE):
        split, de, en, links, triples = line.split("\t")
        splits[split].append(
            Caption(
                de=de,
                en=en,
                de_words=_words(de),
                en_words=_words(en),
                alignment=tuple(_link(link) for link in links.split()),
                triples=frozenset(_triple(triple) for triple in triples.split()),
            )
        )
    return {split: tuple(pairs) for split, pairs in splits.items()}


def _words(sentence: str) -> tuple[str, ...]:
    return tuple(sentence.replace(",", " ,").replace(".", " .").split())


def _link(text: str) -> tuple[int, int]:
    german, english = text.split("-")
    return int(german), int(english)


def _triple(text: str) -> tuple[str, str, str]:
    adjective, noun, verb = text.split("/")
    return adjective, noun, verb
