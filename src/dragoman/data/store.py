"""A corpus on disk, memory-mapped: its text, and its text as token ids.

Files per side (``src``, ``tgt``). Of text, which depends on no vocabulary: ``text.npy``, the
sentences in UTF-8, one after the other; ``offsets.npy``, where each begins, one more than there are
sentences; ``keys.npy``, a hash of each sentence's normal form. Beside them ``verdicts.npy`` says of
every pair that was read whether it was kept (0) or which rule took it out, ``duplicates.npy`` which
of the kept ones were there before, and ``examples.json`` shows some of what was taken out. Of
tokens: ``pieces.npy``, the deterministic ids, and ``starts.npy``, their offsets.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dragoman.data.cache import cache_key, cached_folder
from dragoman.data.cleaning import Facts, chosen, normal_form, normalise_text
from dragoman.data.parts import ROWS, Arrays, in_parts, join, read_part
from dragoman.data.ragged import IntArray, Ragged, chunks
from dragoman.data.tokenizers.base import Cutter, Tokenizer
from dragoman.errors import DragomanError

FORMAT = 2  # of everything in the cache; raise it when a file or a rule changes
SIDES = ("src", "tgt")
TOKEN_PACKAGES = ("sentencepiece", "spacy", "torchtext")
EXAMPLES = 3  # of what a rule takes out, that are shown
_PRUNED = 400_000  # distinct words counted before the rarest are forgotten

Pairs = Callable[[], Iterable[tuple[str, str]]]
Keys = NDArray[np.uint64]


class Rows:
    """Rows in a file, read when they are asked for.

    They are not mapped: the system maps sixteen pages around each row that is touched, so that the
    memory of a process would grow with its corpus.
    """

    def __init__(self, folder: Path, rows: str, offsets: str) -> None:
        header = np.load(folder / f"{rows}.npy", mmap_mode="r")
        self._first, self._dtype = header.offset, header.dtype
        self._file = os.open(folder / f"{rows}.npy", os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._offsets = _mapped(folder, offsets)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def lengths(self, numbers: IntArray) -> IntArray:
        """Return the lengths of rows."""
        found: IntArray = self._offsets[numbers + 1].astype(np.int64) - self._offsets[numbers]
        return found

    def bytes(self, numbers: IntArray) -> bytes:
        """Return rows, one after the other, as they are in the file."""
        if not len(numbers):
            return b""
        # Those that follow one another are read at once.
        first = np.concatenate([[0], np.flatnonzero(np.diff(numbers) != 1) + 1])
        starts = self._offsets[numbers[first]].tolist()
        ends = self._offsets[numbers[np.append(first[1:], len(numbers)) - 1] + 1].tolist()
        size = self._dtype.itemsize
        return b"".join(
            os.pread(self._file, size * (end - start), self._first + size * start)
            for start, end in zip(starts, ends, strict=True)
        )

    def rows(self, numbers: IntArray) -> Ragged:
        """Return rows of numbers."""
        flat = np.frombuffer(self.bytes(numbers), self._dtype)
        return Ragged(flat.astype(np.int64), self.lengths(numbers))

    def lines(self, numbers: IntArray) -> list[str]:
        """Return rows of text."""
        text, ends = self.bytes(numbers), np.cumsum(self.lengths(numbers)).tolist()
        return [text[a:b].decode() for a, b in itertools.pairwise([0, *ends])]


class Text:
    """A corpus as text: the pairs that its rules left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sides = [Rows(folder, f"{side}.text", f"{side}.offsets") for side in SIDES]
        self.keys = [_mapped(folder, f"{side}.keys") for side in SIDES]
        self.duplicates = _mapped(folder, "duplicates")
        self.verdicts = _mapped(folder, "verdicts")

    def __len__(self) -> int:
        return len(self.duplicates)

    def some(self, side: int, most: int) -> list[str]:
        """Return sentences of a side, from the whole corpus, at most so many and one."""
        return self.sides[side].lines(np.arange(0, len(self), max(1, len(self) // most)))

    def taken(self, facts: Facts) -> dict[str, int]:
        """Return how many pairs each rule took out, and how many are duplicates."""
        rules = chosen(facts.clean)
        counts = np.bincount(self.verdicts, minlength=len(rules) + 1).tolist()
        found = dict(zip(rules, counts[1:], strict=True))
        return {**found, "duplicates": int(self.duplicates.sum())}

    def examples(self) -> dict[str, list[tuple[str, str]]]:
        """Return some of the pairs that each rule took out, and of the duplicates."""
        found: dict[str, list[tuple[str, str]]] = json.loads(
            (self.folder / "examples.json").read_text(encoding="utf-8")
        )
        again = np.flatnonzero(self.duplicates)[:EXAMPLES]
        src, tgt = (side.lines(again) for side in self.sides)
        return {**found, "duplicates": list(zip(src, tgt, strict=True))}


def read_text(cache: Path, fingerprint: str, pairs: Pairs, facts: Facts) -> Text:
    """Return a corpus as text: found in the cache, or read, cleaned and written there.

    Args:
        cache: folder of the cache.
        fingerprint: stands for the text that ``pairs`` will give.
        pairs: returns an iterator over (source, target) lines; called only when needed.
        facts: the languages, and what ``data.clean`` says.

    Raises:
        DragomanError: if the cache cannot be written, and whatever ``pairs`` raises.
    """
    clean = {name: v for name, v in asdict(facts.clean).items() if name != "leaks"}
    causes = {"corpus": fingerprint, "clean": clean, "languages": [facts.src, facts.tgt]}
    key = cache_key(what="text", format=FORMAT, **causes)

    def build(folder: Path) -> None:
        with _parts(cache, key) as scratch, _bar("reading") as bar:
            parts = in_parts(
                scratch,
                _batches(pairs()),
                partial(_examine, facts=facts),
                lambda number: bar.update(ROWS),
            )
            for side in SIDES:
                join(parts, f"{side}.text", folder / f"{side}.text.npy")
                join(parts, f"{side}.keys", folder / f"{side}.keys.npy")
                _save_offsets(parts, f"{side}.lengths", folder / f"{side}.offsets.npy")
            join(parts, "verdicts", folder / "verdicts.npy")
            exact = np.concatenate([read_part(part, "keys") for part in parts])
            np.save(folder / "duplicates.npy", _seen_before(folder, exact, facts))
            examples: dict[str, list[Any]] = {}
            for part in parts:
                for name, rows in json.loads(read_part(part, "examples").tobytes()).items():
                    known = examples.setdefault(name, [])
                    known += rows[: EXAMPLES - len(known)]
            text = json.dumps(examples, ensure_ascii=False)
            (folder / "examples.json").write_text(text, encoding="utf-8")

    return Text(cached_folder(cache, key, build))


def _seen_before(folder: Path, exact: Keys, facts: Facts) -> NDArray[np.bool_]:
    """Tell which pairs are duplicates of one before them."""
    again = np.zeros(len(exact), bool)
    if facts.clean.duplicates == "normalised":
        src, tgt = (np.load(folder / f"{side}.keys.npy") for side in SIDES)
        with np.errstate(over="ignore"):
            exact = src * np.uint64(0x9E3779B97F4A7C15) + tgt
    if facts.clean.duplicates != "none":
        again[:] = True
        again[np.unique(exact, return_index=True)[1]] = False
    return again


def _batches(pairs: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    pairs = iter(pairs)
    first = list(islice(pairs, ROWS))
    yield first  # of a corpus of nothing, nothing
    while batch := list(islice(pairs, ROWS)):
        yield batch


def hash_of(text: str) -> int:
    """Return 64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def keys_of(lines: Iterable[str]) -> Keys:
    """Return 64 bits that stand for each line's normal form."""
    return np.array([hash_of(normal_form(line)) for line in lines], np.uint64)


def _examine(pairs: Sequence[tuple[str, str]], facts: Facts) -> Arrays:
    """Clean some pairs: what is left of them, and what became of each."""
    rules = chosen(facts.clean)
    verdicts = np.zeros(len(pairs), np.uint8)
    examples: dict[str, list[tuple[str, str]]] = {name: [] for name in rules}
    kept: list[tuple[str, str]] = []
    for place, (src, tgt) in enumerate(pairs):
        if facts.clean.normalise:
            src, tgt = normalise_text(src), normalise_text(tgt)
        for number, (name, rule) in enumerate(rules.items(), start=1):
            if rule(src, tgt, facts):
                verdicts[place] = number
                if len(examples[name]) < EXAMPLES:
                    examples[name].append((src, tgt))
                break
        else:
            kept.append((src, tgt))
    found: dict[str, NDArray[Any]] = {
        "verdicts": verdicts,
        "keys": np.array([hash_of(f"{src}\0{tgt}") for src, tgt in kept], np.uint64),
        "examples": np.frombuffer(json.dumps(examples).encode(), np.uint8),
    }
    for number, side in enumerate(SIDES):
        lines = [pair[number] for pair in kept]
        encoded = [line.encode() for line in lines]
        found[f"{side}.text"] = np.frombuffer(b"".join(encoded), np.uint8)
        found[f"{side}.lengths"] = np.fromiter(map(len, encoded), np.uint32, len(encoded))
        found[f"{side}.keys"] = keys_of(lines)
    return found


def count_units(
    cache: Path, key: str, text: Text, numbers: Sequence[IntArray], cutters: Sequence[Cutter]
) -> list[Counter[str]]:
    """Return how often each unit of both sides occurs; of very many, the rarest may be missing.

    Args:
        cache: folder of the cache.
        key: of the folder there that holds what is done so far.
        text: the corpus.
        numbers: of the sentences of source and target that are counted.
        cutters: of source and target.
    """
    totals: list[Counter[str]] = [Counter(), Counter()]
    tasks = [(number, part) for number in (0, 1) for part in _cut(numbers[number])]

    def work(task: tuple[int, IntArray]) -> Arrays:
        number, part = task
        counted = Counter(chain.from_iterable(map(cutters[number], text.sides[number].lines(part))))
        units = "\n".join(counted)
        if units.count("\n") >= max(1, len(counted)):
            raise DragomanError("data.tokenizer: a unit of the text holds a line break")
        return {
            "units": np.frombuffer(units.encode(), np.uint8),
            "counts": np.fromiter(counted.values(), np.int64, len(counted)),
        }

    with _parts(cache, key) as scratch, _bar("counting words", sum(map(len, numbers))) as bar:
        parts = in_parts(scratch, tasks, work, lambda number: bar.update(ROWS))
        for (number, _), part in zip(tasks, parts, strict=True):
            total, counts = totals[number], read_part(part, "counts").tolist()
            if counts:
                units = read_part(part, "units").tobytes().decode().split("\n")
                total.update(dict(zip(units, counts, strict=True)))
            if len(total) > 2 * _PRUNED:
                for unit, _ in total.most_common()[_PRUNED:]:
                    del total[unit]
    return totals


def _cut(numbers: IntArray) -> list[IntArray]:
    return [numbers[part] for part in chunks(len(numbers), ROWS)]


class Encoded:
    """A corpus as text and, in ``sides``, as token ids."""

    def __init__(self, text: Text, folder: Path) -> None:
        self.text = text
        self.sides = [Rows(folder, f"{side}.pieces", f"{side}.starts") for side in SIDES]


def encode_text(cache: Path, text: Text, tokenizers: tuple[Tokenizer, Tokenizer]) -> Encoded:
    """Return a corpus with its token ids: found in the cache, or encoded and written there.

    Raises:
        DragomanError: if the cache cannot be written.
    """
    key = cache_key(
        what="tokens",
        format=FORMAT,
        text=text.folder.name,
        tokenizers=[tokenizer.fingerprint() for tokenizer in tokenizers],
        versions=package_versions(),
    )
    small = max(map(len, tokenizers)) <= 1 << 16

    def work(numbers: IntArray) -> Arrays:
        found: dict[str, NDArray[Any]] = {}
        for number, (side, tokenizer) in enumerate(zip(SIDES, tokenizers, strict=True)):
            rows = [tokenizer.encode(line) for line in text.sides[number].lines(numbers)]
            flat = np.fromiter(chain.from_iterable(rows), np.int64)
            found[f"{side}.pieces"] = flat.astype(np.uint16 if small else np.uint32)
            found[f"{side}.lengths"] = np.fromiter(map(len, rows), np.uint32, len(rows))
        return found

    def build(folder: Path) -> None:
        with _parts(cache, key) as scratch, _bar("encoding", len(text)) as bar:
            tasks = chunks(len(text), ROWS)
            parts = in_parts(scratch, tasks, work, lambda number: bar.update(ROWS))
            for side in SIDES:
                join(parts, f"{side}.pieces", folder / f"{side}.pieces.npy")
                _save_offsets(parts, f"{side}.lengths", folder / f"{side}.starts.npy")

    return Encoded(text, cached_folder(cache, key, build))


@contextlib.contextmanager
def _parts(cache: Path, key: str) -> Iterator[Path]:
    """Yield a folder for parts that outlives a kill, and goes when all of them have been joined."""
    folder = cache / f"{key}.parts"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _bar(words: str, total: int | None = None) -> Any:
    return tqdm(desc=words, total=total, unit=" pairs", disable=None, leave=False, delay=1)


def _save_offsets(parts: list[Path], name: str, path: Path) -> None:
    lengths = np.concatenate([read_part(part, name) for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    np.save(path, offsets.astype(np.uint32) if offsets[-1] < 1 << 32 else offsets)


def _mapped(folder: Path, name: str) -> NDArray[Any]:
    # A plain view: indexing a np.memmap costs ten times as much as indexing an array.
    return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))


def package_versions(names: Iterable[str] = TOKEN_PACKAGES) -> dict[str, str]:
    """Return the versions of packages that are installed, by default those tokens depend on."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):  # where only the others are needed
            found[name] = version(name)
    return found
