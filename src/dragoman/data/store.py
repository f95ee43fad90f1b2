"""A corpus on disk, memory-mapped: sentences as unit numbers, units as token ids.

Units do not depend on a vocabulary: text is cut once, whatever is later trained on it. Files per
side (``src``, ``tgt``): ``units.npy``, the number of every unit (2 bytes where they fit, else 4);
``offsets.npy``, where each sentence begins, one more than there are sentences (4 bytes or 8);
``types.txt``, the unit strings, one per line; ``counts.npy``, how often each occurs.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dragoman.data.cache import cache_key, cached_folder
from dragoman.data.ragged import IntArray, Ragged, chunks, sums, take
from dragoman.data.tokenizers.base import Cutter, Tokenizer

FORMAT = 1  # of everything in the cache; raise it when a file or a rule changes
_CHUNK = 1 << 20  # numbers held in memory before they go to the file
SIDES = ("src", "tgt")


class UnitSide:
    """One side of a corpus: sentences as unit numbers."""

    def __init__(self, folder: Path, side: str) -> None:
        self._types = folder / f"{side}.types.txt"
        self.counts: IntArray = np.load(folder / f"{side}.counts.npy")
        # Plain views: indexing a np.memmap costs ten times as much as indexing an array.
        self.units = np.asarray(np.load(folder / f"{side}.units.npy", mmap_mode="r"))
        self.offsets = np.asarray(np.load(folder / f"{side}.offsets.npy", mmap_mode="r"))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def types(self) -> list[str]:
        """Return the unit strings, by number."""
        return self._types.read_bytes().decode().split("\n")[:-1]

    def sentences(self, numbers: IntArray) -> Ragged:
        """Return the unit numbers of sentences."""
        starts = self.offsets[numbers].astype(np.int64)
        return take(self.units, starts, self.offsets[numbers + 1].astype(np.int64) - starts)


class UnitCorpus:
    """A corpus cut into units: ``key`` in the cache, and its two ``sides``."""

    def __init__(self, folder: Path) -> None:
        self.key = folder.name
        self.sides = tuple(UnitSide(folder, side) for side in SIDES)

    @classmethod
    def open(
        cls,
        cache: Path,
        fingerprint: str,
        pairs: Callable[[], Iterable[tuple[str, str]]],
        cutters: tuple[Cutter, Cutter],
    ) -> UnitCorpus:
        """Read the corpus from the cache, or cut it and write it there.

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
            writers = [_Writer(folder, side) for side in SIDES]
            try:
                for pair in pairs():
                    for writer, cutter, text in zip(writers, cutters, pair, strict=True):
                        writer.add(cutter(text))
                for writer in writers:
                    writer.finish()
            finally:
                for writer in writers:
                    writer.close()

        return cls(cached_folder(cache, key, build))


class EncodedCorpus:
    """A corpus in units, and per side the deterministic token ids of every unit.

    ``pieces[side]`` and ``starts[side]`` (one more than there are units): the ids of unit u are
    ``pieces[starts[u]:starts[u + 1]]``. ``lengths[side]``: the number of ids of every sentence.
    """

    def __init__(self, units: UnitCorpus, folder: Path) -> None:
        self.units = units
        self.pieces = [np.load(folder / f"{side}.pieces.npy", mmap_mode="r") for side in SIDES]
        self.starts = [np.load(folder / f"{side}.starts.npy", mmap_mode="r") for side in SIDES]
        self.lengths = [
            np.asarray(np.load(folder / f"{side}.lengths.npy", mmap_mode="r")) for side in SIDES
        ]

    def __len__(self) -> int:
        return len(self.units.sides[0])

    @classmethod
    def open(
        cls,
        cache: Path,
        fingerprint: str,
        pairs: Callable[[], Iterable[tuple[str, str]]],
        tokenizers: tuple[Tokenizer, Tokenizer],
    ) -> EncodedCorpus:
        """Read the corpus from the cache, or encode it and write it there.

        Args:
            cache: folder of the cache.
            fingerprint: stands for the text that ``pairs`` will give.
            pairs: returns an iterator over (source, target) lines; called only when needed.
            tokenizers: of source and target.

        Raises:
            DragomanError: if the cache cannot be written, and whatever ``pairs`` raises.
        """
        cutters = (tokenizers[0].cutter, tokenizers[1].cutter)
        units = UnitCorpus.open(cache, fingerprint, pairs, cutters)
        key = cache_key(
            what="pieces and lengths",
            format=FORMAT,
            units=units.key,
            tokenizers=[tokenizer.fingerprint() for tokenizer in tokenizers],
            versions=package_versions(),
        )

        def build(folder: Path) -> None:
            for name, side, tokenizer in zip(SIDES, units.sides, tokenizers, strict=True):
                ids = [tokenizer.pieces(unit) for unit in side.types()]
                lengths = np.array([0] + [len(row) for row in ids], np.int64)
                flat = np.array([index for row in ids for index in row], np.int32)
                np.save(folder / f"{name}.pieces.npy", flat)
                np.save(folder / f"{name}.starts.npy", _smallest(np.cumsum(lengths)))
                totals = [
                    sums(lengths[1:][units.flat], units.lengths)
                    for units in map(side.sentences, chunks(len(side)))
                ]
                np.save(folder / f"{name}.lengths.npy", _smallest(np.concatenate(totals)))

        return cls(units, cached_folder(cache, key, build))


class _Writer:
    """Writes one side, sentence by sentence; only the unit strings stay in memory."""

    def __init__(self, folder: Path, side: str) -> None:
        self._folder, self._side = folder, side
        self._numbers: defaultdict[str, int] = defaultdict()
        self._numbers.default_factory = self._numbers.__len__
        self._units, self._offsets, self._total = array("I"), array("Q", [0]), 0
        self._paths = [folder / f"{side}.units.raw", folder / f"{side}.offsets.raw"]
        self._files = [open(path, "w+b") for path in self._paths]  # noqa: SIM115

    def add(self, units: list[str]) -> None:
        numbers = self._numbers
        self._units.extend([numbers[unit] for unit in units])
        self._total += len(units)
        self._offsets.append(self._total)
        if len(self._units) + len(self._offsets) > _CHUNK:
            self._flush()

    def _flush(self) -> None:
        for file, buffer in zip(self._files, (self._units, self._offsets), strict=True):
            file.write(buffer)
            del buffer[:]

    def finish(self) -> None:
        self._flush()
        folder, side, types = self._folder, self._side, len(self._numbers)
        unit_type = np.uint16 if types <= 1 << 16 else np.uint32
        offset_type = np.uint32 if self._total < 1 << 32 else np.int64
        counts = np.zeros(types, np.int64)
        for (name, raw_type, final_type), file in zip(
            (("units", np.uint32, unit_type), ("offsets", np.uint64, offset_type)),
            self._files,
            strict=True,
        ):
            itemsize = np.dtype(raw_type).itemsize
            size = file.seek(0, os.SEEK_END) // itemsize
            file.seek(0)
            with open(folder / f"{side}.{name}.npy", "wb") as final:
                # Written, not mapped: a full disk is then an error and not a crash.
                _write_header(final, np.dtype(final_type), size)
                while chunk := file.read(_CHUNK * itemsize):
                    numbers = np.frombuffer(chunk, raw_type)
                    final.write(numbers.astype(final_type).tobytes())
                    if name == "units":
                        counts += np.bincount(numbers, minlength=types)
        np.save(folder / f"{side}.counts.npy", counts)
        with open(folder / f"{side}.types.txt", "wb") as text:
            text.writelines(f"{unit}\n".encode() for unit in self._numbers)
        self.close()
        for path in self._paths:
            path.unlink()

    def close(self) -> None:
        for file in self._files:
            file.close()


def _write_header(file: Any, dtype: np.dtype[Any], size: int) -> None:
    np.lib.format.write_array_header_1_0(
        file,
        {
            "descr": np.lib.format.dtype_to_descr(dtype),
            "fortran_order": False,
            "shape": (size,),
        },
    )


def _smallest(numbers: IntArray) -> NDArray[Any]:
    """Return sizes or offsets as uint32 where they fit."""
    fits = not len(numbers) or int(numbers.max()) < 1 << 32
    return numbers.astype(np.uint32) if fits else numbers


def package_versions() -> dict[str, str]:
    """Return the versions of the libraries that tokens depend on."""
    found = {}
    for name in ("sentencepiece", "spacy", "torchtext"):
        with contextlib.suppress(PackageNotFoundError):  # where only the others are needed
            found[name] = version(name)
    return found
