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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, Protocol

from dragoman.config import CorpusConfig, DataConfig
from dragoman.data import captions, multi30k
from dragoman.data.columns import Wanted
from dragoman.data.formats import parallel_member, read_file
from dragoman.data.lines import (
    ENDINGS,
    Pair,
    Place,
    Row,
    check_file,
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
    files: Mapping[str, Any]
    pairs: Any  # of ``files``, what ``data.pairs`` names
    languages: Wanted
    key: str  # config section that messages about languages name

    @property
    def src(self) -> str:
        """Language of the source."""
        return self.languages.src

    @property
    def tgt(self) -> str:
        """Language of the target."""
        return self.languages.tgt


class Source(Protocol):
    """A source of parallel text; every method raises ``DragomanError`` for what it has not."""

    def splits(self, wanted: Request) -> list[str]:
        """Return the names of the splits of a language pair."""

    def pairs(self, wanted: Request, split: str) -> Iterator[Row]:
        """Stream the raw (source, target) pairs of a split; there may be several targets."""

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

    def pairs(self, wanted: Request, split: str) -> Iterator[Row]:
        """Stream the captions of a split."""
        return zip_lines(*self._paths(wanted, split))

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return the digest of both files."""
        return _digest("multi30k", *map(remembered_sha256, self._paths(wanted, split)))


class FilesSource:
    """Any parallel text: two plain files, or files of pairs in any of ``FORMATS``."""

    def splits(self, wanted: Request) -> list[str]:
        """Return the splits that ``data.pairs`` and ``data.files`` name."""
        return list(wanted.files)

    def _find(self, wanted: Request, split: str) -> list[list[Place]]:
        """Return what to read of a split: places of pairs, or of sentences that go together.

        A target file ``NAME`` that is not there may be several: ``NAME.0``, ``NAME.1``, ...

        Every file is looked for; which member of an archive is read is found out here, too.
        """
        if not wanted.files:
            raise DragomanError(
                f"data.files: names no file, so there is no split '{split}'; name the training "
                "text with data.pairs=FILE"
            )
        check_known(split, list(wanted.files), "data.files has no split")
        patterns = wanted.files[split]
        key, root = f"data.files.{split}", wanted.root
        if wanted.pairs and split == "train":  # typed by hand, beside the file
            key, root = "data.pairs", Path()
        found: list[list[Place]] = []
        try:
            for pattern in [patterns] if isinstance(patterns, str) else patterns:
                sides = (wanted.src, wanted.tgt)
                first, *second = dict.fromkeys(pattern.replace("{lang}", s) for s in sides)
                names = [first, *(each for name in second for each in _numbered(root, name))]
                paths = [_matching(root, name) for name in names]
                if len({len(found) for found in paths}) > 1:
                    raise DragomanError(
                        f"{pattern}: there are {len(paths[0])} files for {wanted.src} and "
                        f"{len(paths[1])} for {wanted.tgt}; each needs its counterpart"
                    )
                for together in zip(*paths, strict=True):
                    _check_counterparts(root / pattern, together, sides)
                    if second:
                        found.append([Place(path) for path in together])
                    else:
                        found.append(parallel_member(together[0], wanted.src, wanted.tgt))
        except DragomanError as problem:
            raise DragomanError(f"{problem} ({key})") from None
        return found

    def pairs(self, wanted: Request, split: str) -> Iterator[Row]:
        """Stream the pairs of a split, one file after the other."""
        return itertools.chain.from_iterable(
            read_file(places[0], wanted.languages) if len(places) == 1 else zip_lines(*places)
            for places in self._find(wanted, split)
        )

    def fingerprint(self, wanted: Request, split: str) -> str:
        """Return the digest of the files and of how they are read."""
        places = self._find(wanted, split)
        reading: list[str] = []
        if any(len(together) == 1 for together in places):
            columns = wanted.languages.columns or wanted.languages.order or ()
            # As it was written when the ending of a name told how a file is read.
            ending = re.search(r"\.(tsv|jsonl)(\.(gz|bz2|xz))?$", str(places[0][0].path).lower())
            kind = f".{ending[1]}" if ending and len(places) == 1 else "by content"
            reading = [kind, wanted.src, wanted.tgt, *columns]
        paths = dict.fromkeys(p for together in places for place in together for p in _files(place))
        return _digest("files", *reading, *map(remembered_sha256, paths))


def _check_counterparts(pattern: Path, paths: Sequence[Path], sides: Sequence[str]) -> None:
    """Refuse two files of a pattern with ``{lang}`` in which the rest stands for other words."""
    if len(paths) == 2 and "*" in str(pattern):
        rest = []
        for path, language in zip(paths, sides, strict=True):
            words = re.escape(os.path.normpath(pattern)).replace(r"\*", "([^/]*)")
            match = re.match(words.replace(r"\{lang\}", re.escape(language)), str(path))
            rest.append(match and match.groups())
        if rest[0] != rest[1]:
            raise DragomanError(f"{paths[0]}: has no counterpart in {sides[1]}, but {paths[1]}")


def _place(root: Path, name: str) -> str:
    # "../" leads to what lies beside the folder as it was named, though that may be a link.
    return os.path.normpath(root / os.path.expanduser(name))


def _existing(root: Path, name: str) -> list[str]:
    """Return the file that a name means, plain or packed; else those that a pattern means."""
    place = _place(root, name)
    packed = [f"{place}{end}" for end in ("", *ENDINGS)]
    return list(filter(os.path.exists, packed))[:1] or sorted(glob(place))


def _numbered(root: Path, name: str) -> list[str]:
    """Return ``name``; where there is no such file, but ``name.0``, ``name.1``, ...: those."""
    several = (f"{name}.{number}" for number in itertools.count())
    found = list(itertools.takewhile(partial(_existing, root), several))
    return found if found and not _existing(root, name) else [name]


def _matching(root: Path, name: str) -> list[Path]:
    """Return the files that a name or pattern means, plain, packed, or a folder of a data set.

    Raises:
        DragomanError: if one is missing or cannot be read.
    """
    paths = map(Path, _existing(root, name) or [_place(root, name)])
    return [p if os.path.isdir(p) else check_file(p, reread=True) for p in paths]


def _files(place: Place) -> list[Path]:
    """Return the files that a place is read from: that of a data set, all in its folder."""
    if not os.path.isdir(place.path):
        return [place.path]
    return sorted(path for path in place.path.iterdir() if path.is_file())


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
    # In a file without a header the columns are those of the pair that is validated, also for a
    # corpus of the other direction; a corpus of other languages has its own.
    ours = {src, tgt} == {data.src, data.tgt}
    languages = Wanted(src, tgt, *((data.columns, (data.src, data.tgt)) if ours else ()))
    root = Path(os.path.expanduser(data.root))
    return Request(root, _files_of(data), data.pairs, languages, key)


def _corpus_request(data: DataConfig, corpus: CorpusConfig) -> Request:
    place = next((f".{n}" for n, entry in enumerate(data.corpora) if entry is corpus), "")
    return _request(data, corpus.src, corpus.tgt, f"data.corpora{place}")


def where_text_is(data: DataConfig, split: str) -> str:
    """Return the key and the files of a split of the user's own, in words."""
    if data.pairs and split == "train":
        return f"data.pairs ({data.pairs})"
    return f"data.files.{split} ({_files_of(data)[split]} in {data.root})"


def _files_of(data: DataConfig) -> dict[str, Any]:
    """Return what the splits of the source ``files`` are read from."""
    return {**data.files, "train": data.pairs} if data.pairs else data.files


def iter_rows(data: DataConfig, corpus: CorpusConfig, key: str | None = None) -> Iterator[Row]:
    """Stream the raw (source, target, ...) lines of one corpus, with all targets that there are.

    ``key`` is the section that messages name, by default that of the training corpus.

    Pairs with an empty side are yielded as they are; neither ``corpus.tag`` nor ``corpus.weight``
    is applied. In a TSV file without a header the columns are those of ``data.columns``, by default
    ``data.src`` and ``data.tgt``, also when ``corpus`` asks for the other direction; for other
    languages they are ``corpus.src`` and ``corpus.tgt``.

    Raises:
        DragomanError: at once for an unknown language or split, a missing, empty or unreadable
            file or a wrong checksum; while streaming for whatever is wrong with a line or with the
            number of lines.
    """
    wanted = _request(data, corpus.src, corpus.tgt, key) if key else _corpus_request(data, corpus)
    return SOURCES[corpus.source].pairs(wanted, corpus.split)


def iter_pairs(data: DataConfig, corpus: CorpusConfig) -> Iterator[Pair]:
    """Stream the raw (source, target) pairs of one corpus: a source comes with each of its targets.

    Raises:
        DragomanError: as ``iter_rows``.
    """
    return ((row[0], target) for row in iter_rows(data, corpus) for target in row[1:])


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
