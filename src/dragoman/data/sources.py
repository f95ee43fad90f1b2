"""Pairs of raw strings from every source of parallel text.

A source is asked with a ``Request`` and answers with splits, pairs and a fingerprint. What can be
refused without reading on (a language, a split, a missing file, a checksum) is refused when the
pairs are asked for; what only shows in the text, while they stream.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dragoman.config import CorpusConfig, DataConfig
from dragoman.data import captions, multi30k
from dragoman.data.formats import (
    Pair,
    check_file,
    read_jsonl,
    read_tsv,
    remembered_sha256,
    zip_lines,
)
from dragoman.data.memory import MemorySource
from dragoman.errors import DragomanError, check_known
from dragoman.files import check_file_part


@dataclass(frozen=True)
class Request:
    """What is wanted of a source, free of the config section it came from."""

    root: Path
    files: Mapping[str, str]
    src: str
    tgt: str
    columns: Pair  # languages of the two columns of a TSV file without a header
    key: str  # config section that messages about languages name


class Source(Protocol):
    """A source of parallel text; every method raises ``DragomanError`` for what it has not."""

    def splits(self, wanted: Request) -> list[str]:
        """Return the names of the splits of a language pair."""

    def pairs(self, wanted: Request, split: str) -> Iterator[Pair]:
        """Stream the raw (source, target) pairs of a split."""

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return hexadecimal digits that change when the content of a split does."""


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _check_languages(wanted: Request, known: Sequence[str], owner: str) -> None:
    for side, language in (("src", wanted.src), ("tgt", wanted.tgt)):
        check_known(language, known, f"{wanted.key}.{side}: {owner} has no language")


class Multi30kSource:
    """The files of Multi30k under ``root``, verified by checksum."""

    def splits(self, wanted: Request) -> list[str]:
        """Return the splits that both languages have."""
        _check_languages(wanted, multi30k.LANGUAGES, "Multi30k")
        return multi30k.splits_of(wanted.src, wanted.tgt)

    def _paths(self, wanted: Request, split: str) -> list[Path]:
        self.splits(wanted)
        multi30k.check_split(split, (wanted.src, wanted.tgt))
        return [multi30k.find_file(wanted.root, split, s) for s in (wanted.src, wanted.tgt)]

    def pairs(self, wanted: Request, split: str) -> Iterator[Pair]:
        """Stream the captions of a split."""
        return zip_lines(*self._paths(wanted, split))

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return the digest of both files."""
        return _digest("multi30k", *map(remembered_sha256, self._paths(wanted, split)))


class FilesSource:
    """Any parallel text: two plain files, a TSV or a JSONL file, each as it is or packed."""

    def splits(self, wanted: Request) -> list[str]:
        """Return the splits that ``data.files`` names."""
        return list(wanted.files)

    def _find(self, wanted: Request, split: str) -> tuple[list[Path], str | None]:
        """Return the files of a split, and ``.tsv`` or ``.jsonl`` if it is one that ends so."""
        if not wanted.files:
            raise DragomanError(
                f"data.files: names no file, so there is no split '{split}'; "
                "give each split a file name, e.g. {train: 'train.{lang}'}"
            )
        check_known(split, list(wanted.files), "data.files has no split")
        pattern = wanted.files[split]
        plain = re.sub(r"\.(gz|bz2|xz)$", "", pattern.lower())
        kind = next((end for end in (".tsv", ".jsonl") if plain.endswith(end)), None)
        if ("{lang}" in pattern) == (kind is not None):
            raise DragomanError(
                f"data.files.{split}: '{pattern}' does not tell how the pairs are written; "
                "expected {lang} in the name for two plain text files, or a name ending in .tsv "
                "or .jsonl; each also packed (.gz, .bz2, .xz)"
            )
        names = dict.fromkeys(pattern.replace("{lang}", s) for s in (wanted.src, wanted.tgt))
        # "../" leads to what lies beside the folder as it was named, though that may be a link.
        places = (os.path.normpath(wanted.root / os.path.expanduser(name)) for name in names)
        try:
            return [check_file(_plain_or_packed(place), reread=True) for place in places], kind
        except DragomanError as problem:
            raise DragomanError(f"{problem} (data.files.{split})") from None

    def pairs(self, wanted: Request, split: str) -> Iterator[Pair]:
        """Stream the pairs of a split in the format that its file name tells."""
        paths, kind = self._find(wanted, split)
        if kind == ".tsv":
            return read_tsv(paths[0], wanted.src, wanted.tgt, wanted.columns)
        if kind == ".jsonl":
            return read_jsonl(paths[0], wanted.src, wanted.tgt)
        return zip_lines(paths[0], paths[1])

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return the digest of the files and of how they are read."""
        paths, kind = self._find(wanted, split)
        reading = [] if kind is None else [kind, wanted.src, wanted.tgt, *wanted.columns]
        return _digest("files", *reading, *map(remembered_sha256, paths))


def _plain_or_packed(place: str) -> Path:
    """Return a path, or that of the packed file where only that one is there."""
    packed = (f"{place}{end}" for end in ("", ".gz", ".bz2", ".xz"))
    return Path(next(filter(os.path.exists, packed), place))


class CaptionsSource:
    """The embedded corpus; it has no file of the user's."""

    def splits(self, wanted: Request) -> list[str]:
        """Return the splits of the embedded corpus."""
        _check_languages(wanted, ("de", "en"), "captions")
        return list(captions.SPLITS)

    def pairs(self, wanted: Request, split: str) -> Iterator[Pair]:
        """Stream the captions of a split."""
        self.splits(wanted)
        entries = captions.captions(split)
        if wanted.src == "de":
            return ((entry.de, entry.en) for entry in entries)
        return ((entry.en, entry.de) for entry in entries)

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return the digest of the corpus, the split and the direction."""
        check_known(split, self.splits(wanted), "captions has no split")
        return _digest("captions", captions.fingerprint(), split, wanted.src, wanted.tgt)


def _request(data: DataConfig, src: str, tgt: str, key: str) -> Request:
    if src == tgt:
        raise DragomanError(f"{key}.tgt: source and target are both '{src}'")
    for split in data.files:
        check_file_part(split, "data.files")
    first, second = data.columns or (data.src, data.tgt)
    columns = (first, second) if {src, tgt} == {first, second} else (src, tgt)
    return Request(Path(os.path.expanduser(data.root)), data.files, src, tgt, columns, key)


def _corpus_request(data: DataConfig, corpus: CorpusConfig) -> Request:
    place = next((f".{n}" for n, entry in enumerate(data.corpora) if entry is corpus), "")
    return _request(data, corpus.src, corpus.tgt, f"data.corpora{place}")


def iter_pairs(data: DataConfig, corpus: CorpusConfig) -> Iterator[Pair]:
    """Stream the raw (source, target) pairs of one training corpus.

    Pairs with an empty side are yielded as they are; neither ``corpus.tag`` nor ``corpus.weight``
    is applied. In a TSV file without a header the columns are those of ``data.columns``, by default
    ``data.src`` and ``data.tgt``, also when ``corpus`` asks for the other direction; for other
    languages they are ``corpus.src`` and ``corpus.tgt``.

    Raises:
        DragomanError: at once for an unknown language or split, a missing, empty or unreadable
            file or a wrong checksum; while streaming for whatever is wrong with a line or with the
            number of lines.
    """
    return SOURCES[corpus.source].pairs(_corpus_request(data, corpus), corpus.split)


def read_pairs(data: DataConfig, split: str) -> tuple[list[str], list[str]]:
    """Return all source lines and all references of a split of ``data.name``, raw and in order.

    Raises:
        DragomanError: as ``iter_pairs``.
    """
    wanted = _request(data, data.src, data.tgt, "data")
    sources: list[str] = []
    references: list[str] = []
    for source, reference in SOURCES[data.name].pairs(wanted, split):
        sources.append(source)
        references.append(reference)
    return sources, references


def corpus_fingerprint(data: DataConfig, corpus: CorpusConfig) -> str:
    """Return a SHA-256, in hexadecimal digits, that changes when the pairs of a corpus do.

    Raises:
        DragomanError: as ``iter_pairs`` does at once.
    """
    return SOURCES[corpus.source].fingerprint(_corpus_request(data, corpus), corpus.split)


def splits_of(data: DataConfig) -> list[str]:
    """Return the names of the splits ``data.name`` has for ``data.src`` and ``data.tgt``.

    Raises:
        DragomanError: for a language the source does not have.
    """
    return SOURCES[data.name].splits(_request(data, data.src, data.tgt, "data"))


# Splits that are there to be scored, beside ``data.validation_split``.
_EVALUATION = re.compile(r"(val|valid|validation|dev|eval|test|newstest)([\W\d_].*)?")


def check_texts(data: DataConfig) -> None:
    """Refuse what is wrong with the text of a run before anything slow begins.

    The files of training and validation must be there, and no training corpus may be a split for
    validation or testing: neither by its name nor by its sentences, of which one side is enough.

    Raises:
        DragomanError: as ``iter_pairs`` does at once, and for a split that is both.
    """
    for corpus in data.corpora:
        iter_pairs(data, corpus)
    evaluation = filter(_EVALUATION.fullmatch, splits_of(data))
    for split in dict.fromkeys([data.validation_split, *evaluation]):
        try:
            held_out = list(zip(*read_pairs(data, split), strict=True))
        except DragomanError:
            if split == data.validation_split:
                raise
            held_out = []  # text to test on need not be there yet
        for number, corpus in enumerate(data.corpora):
            same = (corpus.source, corpus.split) == (data.name, split)
            if same or _share_a_side(iter_pairs(data, corpus), held_out):
                raise DragomanError(
                    f"data.corpora.{number}.split: '{corpus.split}' is the text of the split "
                    f"'{split}', which is for evaluation and must not be trained on"
                )


def _share_a_side(pairs: Iterable[Pair], others: Iterable[Pair]) -> bool:
    """Tell whether a side of all pairs is a side of all others; read on until they differ."""
    alike = set(itertools.product((0, 1), repeat=2))
    for one, other in itertools.zip_longest(pairs, others, fillvalue=(None, None)):
        alike = {(i, j) for i, j in alike if one[i] == other[j]}
        if not alike:
            return False
    return True


SOURCES: dict[str, Source] = {
    "multi30k": Multi30kSource(),
    "files": FilesSource(),
    "captions": CaptionsSource(),
    "memory": MemorySource(),
}
