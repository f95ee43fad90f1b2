"""A corpus on disk, memory-mapped: sentences as unit numbers, units as token ids.

Units do not depend on a vocabulary: text is cut once, whatever is later trained on it. Files per
side (``src``, ``tgt``) of what is cut: ``units.npy``, the number of every unit (2 bytes where they
fit, else 4); ``offsets.npy``, where each sentence begins, one more than there are sentences (4
bytes or 8); ``types.txt``, the unit strings, one per line; ``counts.npy``, how often each occurs.
Of what is encoded: ``pieces.npy``, the deterministic token ids of the units, one after the other;
``starts.npy``, where those of each unit begin, one more than there are units; ``lengths.npy``, the
number of ids of every sentence.
"""

from __future__ import annotations

import contextlib
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dragoman.data.cache import cache_key, cached_folder
from dragoman.data.ragged import IntArray, Table, chunks, ragged, sums
from dragoman.data.tokenizers.base import Cutter, Tokenizer
from dragoman.errors import DragomanError

FORMAT = 1  # of everything in the cache; raise it when a file or a rule changes
_CHUNK = 1 << 20  # numbers held in memory before they go to the file
SIDES = ("src", "tgt")
TOKEN_PACKAGES = ("sentencepiece", "spacy", "torchtext")

Pairs = Callable[[], Iterable[tuple[str, str]]]


class UnitSide:
    """One side of a corpus that is cut: sentences as unit numbers."""

    def __init__(self, folder: Path, side: str) -> None:
        self.sentences = Table(_mapped(folder, side, "units"), _mapped(folder, side, "offsets"))
        self.counts = _mapped(folder, side, "counts")
        self._types = folder / f"{side}.types.txt"

    def types(self) -> list[str]:
        """Return the unit strings, by number."""
        return self._types.read_bytes().decode().split("\n")[:-1]


class EncodedSide(UnitSide):
    """One side of a corpus that is encoded: also units as token ids, and sentence lengths."""

    def __init__(self, units: Path, tokens: Path, side: str) -> None:
        super().__init__(units, side)
        self.pieces = Table(_mapped(tokens, side, "pieces"), _mapped(tokens, side, "starts"))
        self.lengths = _mapped(tokens, side, "lengths")


def cut_corpus(cache: Path, fingerprint: str, pairs: Pairs, cutters: tuple[Cutter, Cutter]) -> Path:
    """Return the folder of a corpus in units: found in the cache, or cut and written there.

    Args:
        cache: folder of the cache.
        fingerprint: stands for the text that ``pairs`` will give.
        pairs: returns an iterator over (source, target) lines; called only when needed.
        cutters: of source and target.

    Raises:
        DragomanError: if the cache cannot be written, and whatever ``pairs`` raises.
    """
    identities = [cutter.identity for cutter in cutters]
    key = cache_key(what="units", format=FORMAT, corpus=fingerprint, cutters=identities)

    def build(folder: Path) -> None:
        with contextlib.ExitStack() as files:
            writers = [_UnitWriter(folder, side, files) for side in SIDES]
            for pair in pairs():
                for writer, cutter, text in zip(writers, cutters, pair, strict=True):
                    writer.add(cutter(text))
            for writer in writers:
                writer.finish()

    return cached_folder(cache, key, build)


def encode_corpus(
    cache: Path, fingerprint: str, pairs: Pairs, tokenizers: tuple[Tokenizer, Tokenizer]
) -> tuple[EncodedSide, EncodedSide]:
    """Return both sides of an encoded corpus: found in the cache, or encoded and written there.

    Arguments and errors are those of ``cut_corpus``.
    """
    units = cut_corpus(cache, fingerprint, pairs, (tokenizers[0].cutter, tokenizers[1].cutter))
    key = cache_key(
        what="pieces and lengths",
        format=FORMAT,
        units=units.name,
        tokenizers=[tokenizer.fingerprint() for tokenizer in tokenizers],
        versions=package_versions(),
    )

    def build(folder: Path) -> None:
        for name, tokenizer in zip(SIDES, tokenizers, strict=True):
            side = UnitSide(units, name)
            pieces = ragged([tokenizer.pieces(unit) for unit in side.types()])
            totals = [
                sums(pieces.lengths[sentences.flat], sentences.lengths)
                for sentences in map(side.sentences.rows, chunks(len(side.sentences)))
            ]
            np.save(folder / f"{name}.pieces.npy", pieces.flat.astype(np.int32))
            np.save(folder / f"{name}.starts.npy", _smallest(Table.of(pieces).offsets))
            np.save(folder / f"{name}.lengths.npy", _smallest(np.concatenate(totals)))

    tokens = cached_folder(cache, key, build)
    return EncodedSide(units, tokens, "src"), EncodedSide(units, tokens, "tgt")


class _UnitWriter:
    """Writes one side, sentence by sentence; only the unit strings stay in memory."""

    def __init__(self, folder: Path, side: str, files: contextlib.ExitStack) -> None:
        self._stem = str(folder / side)
        self._numbers: defaultdict[str, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__
        self._units, self._offsets = _Column(folder, files, "I"), _Column(folder, files, "Q")
        self._offsets.extend([0])

    def add(self, units: list[str]) -> None:
        self._units.extend([self._numbers[unit] for unit in units])
        self._offsets.extend([self._units.size])

    def finish(self) -> None:
        types = len(self._numbers)
        text = "".join(f"{unit}\n" for unit in self._numbers)
        if text.count("\n") != types:
            raise DragomanError(f"{self._stem}.types.txt: a unit of the text holds a line break")
        Path(f"{self._stem}.types.txt").write_bytes(text.encode())
        path = Path(f"{self._stem}.units.npy")
        self._units.save(path, np.uint16 if types <= 1 << 16 else np.uint32)
        small = self._units.size < 1 << 32
        self._offsets.save(Path(f"{self._stem}.offsets.npy"), np.uint32 if small else np.int64)
        units, counts = np.load(path, mmap_mode="r"), np.zeros(types, np.int64)
        for first in range(0, len(units), _CHUNK):
            counts += np.bincount(units[first : first + _CHUNK], minlength=types)
        np.save(f"{self._stem}.counts.npy", counts)


class _Column:
    """Numbers that are appended to a file as they come, and saved in a smaller type at the end."""

    def __init__(self, folder: Path, files: contextlib.ExitStack, typecode: str) -> None:
        self._file = files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        self._buffer, self.size = array(typecode), 0

    def extend(self, numbers: list[int]) -> None:
        self._buffer.extend(numbers)
        self.size += len(numbers)
        if len(self._buffer) > _CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._buffer.tofile(self._file)
        del self._buffer[:]

    def save(self, path: Path, dtype: type[np.generic]) -> None:
        self._flush()
        self._file.seek(0)
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (self.size,)}
        with path.open("wb") as final:
            np.lib.format.write_array_header_1_0(final, header)
            # Written, not mapped: a full disk is then an error and not a crash.
            while data := self._file.read(_CHUNK * self._buffer.itemsize):
                final.write(np.frombuffer(data, self._buffer.typecode).astype(dtype).tobytes())


def _mapped(folder: Path, side: str, name: str) -> NDArray[Any]:
    # A plain view: indexing a np.memmap costs ten times as much as indexing an array.
    return np.asarray(np.load(folder / f"{side}.{name}.npy", mmap_mode="r"))


def _smallest(numbers: IntArray) -> NDArray[Any]:
    """Return sizes or offsets as uint32 where they fit."""
    fits = not len(numbers) or int(numbers.max()) < 1 << 32
    return numbers.astype(np.uint32) if fits else numbers


def package_versions(names: Iterable[str] = TOKEN_PACKAGES) -> dict[str, str]:
    """Return the versions of packages that are installed, by default those tokens depend on."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):  # where only the others are needed
            found[name] = version(name)
    return found
