"""Pairs of raw strings from every source of parallel text.

A source is asked with a ``Request`` and answers with splits, pairs and a fingerprint. What can be
refused without reading on (a language, a split, a missing file, a checksum) is refused when the
pairs are asked for; what only shows in the text, while they stream.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
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
from dragoman.errors import DragomanError, nearest, one_of


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


def _check_split(split: str, known: Sequence[str], owner: str) -> None:
    if split not in known:
        raise DragomanError(
            f"{owner} has no split '{split}', expected {one_of(known)}{nearest(split, known)}"
        )


class Multi30kSource:
    """The files of Multi30k under ``root``, verified by checksum."""

    def splits(self, wanted: Request) -> list[str]:
        """Return the splits that both languages have."""
        multi30k.check_language(wanted.src, f"{wanted.key}.src")
        multi30k.check_language(wanted.tgt, f"{wanted.key}.tgt")
        return multi30k.splits_of(wanted.src, wanted.tgt)

    def _paths(self, wanted: Request, split: str) -> tuple[Path, Path]:
        self.splits(wanted)
        multi30k.check_split(split, (wanted.src, wanted.tgt))
        src, tgt = (multi30k.find_file(wanted.root, split, s) for s in (wanted.src, wanted.tgt))
        return src, tgt

    def pairs(self, wanted: Request, split: str) -> Iterator[Pair]:
        """Stream the captions of a split."""
        return zip_lines(*self._paths(wanted, split))

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return the digest of both files."""
        return _digest("multi30k", *map(remembered_sha256, self._paths(wanted, split)))


class FilesSource:
    """Any parallel text: two plain files, a TSV or a JSONL file, each plain or gzip."""

    def splits(self, wanted: Request) -> list[str]:
        """Return the splits that ``data.files`` names."""
        return list(wanted.files)

    def _pattern(self, wanted: Request, split: str) -> str:
        if not wanted.files:
            raise DragomanError(
                f"data.files: names no file, so there is no split '{split}'; "
                "give each split a file name, e.g. {train: 'train.{lang}'}"
            )
        _check_split(split, list(wanted.files), "data.files")
        return wanted.files[split]

    def _paths(self, wanted: Request, split: str) -> list[Path]:
        pattern = self._pattern(wanted, split)
        kind, two = _kind(pattern), "{lang}" in pattern
        if two == (kind is not None):
            expected = (
                "{lang} in the name for two plain text files, or a name ending in .tsv or .jsonl"
            )
            raise DragomanError(
                f"data.files.{split}: '{pattern}' says not how the pairs are written; expected "
                f"{expected}; each also with .gz"
            )
        names = (
            [pattern.replace("{lang}", s) for s in (wanted.src, wanted.tgt)] if two else [pattern]
        )
        # "../" leads to what lies beside the folder as it was named, though that may be a link.
        paths = [Path(os.path.normpath(wanted.root / name)) for name in names]
        return [check_file(_plain_or_packed(path)) for path in paths]

    def pairs(self, wanted: Request, split: str) -> Iterator[Pair]:
        """Stream the pairs of a split in the format that its file name tells."""
        paths, kind = self._paths(wanted, split), _kind(self._pattern(wanted, split))
        if kind == ".tsv":
            return read_tsv(paths[0], wanted.src, wanted.tgt, wanted.columns)
        if kind == ".jsonl":
            return read_jsonl(paths[0], wanted.src, wanted.tgt)
        return zip_lines(paths[0], paths[1])

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return the digest of the files and of how they are read."""
        paths, kind = self._paths(wanted, split), _kind(self._pattern(wanted, split))
        reading = [] if kind is None else [kind, wanted.src, wanted.tgt, *wanted.columns]
        return _digest("files", *reading, *map(remembered_sha256, paths))


def _kind(pattern: str) -> str | None:
    """Return ``.tsv`` or ``.jsonl`` if a file name ends so, ``.gz`` left aside."""
    name = pattern.lower().removesuffix(".gz")
    return next((suffix for suffix in (".tsv", ".jsonl") if name.endswith(suffix)), None)


def _plain_or_packed(path: Path) -> Path:
    """Return ``path``, or ``path.gz`` where only that one is there."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path


class CaptionsSource:
    """The embedded corpus; it has no file on disk."""

    _LANGUAGES = ("de", "en")

    def splits(self, wanted: Request) -> list[str]:
        """Return the splits of the embedded corpus."""
        for side in ("src", "tgt"):
            language = getattr(wanted, side)
            if language not in self._LANGUAGES:
                raise DragomanError(
                    f"{wanted.key}.{side}: captions has no language '{language}', expected "
                    f"{one_of(self._LANGUAGES)}{nearest(language, self._LANGUAGES)}"
                )
        return list(captions.SPLITS)

    def pairs(self, wanted: Request, split: str) -> Iterator[Pair]:
        """Stream the captions of a split."""
        _check_split(split, self.splits(wanted), "captions")
        entries = captions.captions(split)
        if wanted.src == "de":
            return ((entry.de, entry.en) for entry in entries)
        return ((entry.en, entry.de) for entry in entries)

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return the digest of the grammar's output, the split and the direction."""
        _check_split(split, self.splits(wanted), "captions")
        return _digest("captions", captions.fingerprint(), split, wanted.src, wanted.tgt)


def _request(data: DataConfig, src: str, tgt: str, key: str) -> Request:
    if src == tgt:
        raise DragomanError(f"{key}.tgt: source and target are both '{src}'")
    first, second = data.columns or (data.src, data.tgt)
    columns = (first, second) if {src, tgt} == {first, second} else (src, tgt)
    return Request(Path(data.root).expanduser(), data.files, src, tgt, columns, key)


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


SOURCES: dict[str, Source] = {
    "multi30k": Multi30kSource(),
    "files": FilesSource(),
    "captions": CaptionsSource(),
    "memory": MemorySource(),
}
