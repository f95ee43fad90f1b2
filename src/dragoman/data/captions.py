"""The embedded corpus: German and English captions with gold word alignments, shipped as one file.

Every German sentence has one translation and every English one a single source. The held-out splits
are systematic: an (adjective, noun, verb) triple belongs either to training or to validation and
test, never to both, so translating them asks for new combinations of known words. The sentences
were written by a seeded grammar, ``scripts/make_captions.py`` in the source repository.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dragoman.data.lines import read_lines
from dragoman.errors import check_known

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


def captions(split: str) -> Sequence[Caption]:
    """Return the pairs of a split; the file is read when the first one is asked for.

    Raises:
        DragomanError: for a split that is not one of ``SPLITS``.
    """
    check_known(split, list(SPLITS), "captions has no split")
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
def _corpus() -> Mapping[str, Sequence[Caption]]:
    """Read the file: split, German, English, alignment as i-j, triples as adjective/noun/verb."""
    splits: dict[str, list[Caption]] = {split: [] for split in SPLITS}
    for line in read_lines(FILE):
        split, de, en, *fields = line.split("\t")
        links, triples = (field.split() for field in fields)
        alignment = tuple((int(i), int(j)) for i, j in (link.split("-") for link in links))
        lemmas = frozenset((a, n, v) for a, n, v in (triple.split("/") for triple in triples))
        splits[split].append(Caption(de, en, _words(de), _words(en), alignment, lemmas))
    return splits


def _words(sentence: str) -> tuple[str, ...]:
    return tuple(sentence.replace(",", " ,").replace(".", " .").split())
