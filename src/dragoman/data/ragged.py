"""Rows of different lengths in one flat array, and the index arithmetic on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Lengths = NDArray[np.int32]

_CHUNK = 1 << 16  # rows looked at together: what numbers in memory are made of in passing


class Ragged(NamedTuple):
    """Rows of integers, one after the other: ``flat`` (sum of lengths,) and ``lengths`` (rows,)."""

    flat: NDArray[Any]
    lengths: IntArray


def ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    """Put rows of different length behind one another."""
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    flat = np.fromiter((number for row in rows for number in row), np.int64, int(lengths.sum()))
    return Ragged(flat, lengths)


def chunks(count: int, size: int = _CHUNK) -> Iterator[IntArray]:
    """Yield 0 ... count - 1, some at a time; a single empty array of nothing."""
    for first in range(0, max(count, 1), size):
        yield np.arange(first, min(first + size, count))


def starts_of(lengths: IntArray) -> IntArray:
    """Return where each row begins in the flat array."""
    return np.cumsum(lengths) - lengths


def ranges(starts: NDArray[Any], lengths: IntArray) -> IntArray:
    """Return ``start, start + 1, ..., start + length - 1`` of every row, one after the other."""
    shift = starts.astype(np.int64) - starts_of(lengths)
    return np.arange(int(lengths.sum())) + np.repeat(shift, lengths)


def take(flat: NDArray[Any], starts: NDArray[Any], lengths: IntArray) -> Ragged:
    """Return the rows that begin at ``starts`` of ``flat``."""
    return Ragged(flat[ranges(starts, lengths)].astype(np.int64), lengths)


def stack(parts: Sequence[Ragged]) -> Ragged:
    """Return the rows of all parts, one part after the other."""
    flat, lengths = zip(*parts, strict=True)
    return Ragged(np.concatenate(flat), np.concatenate(lengths))


class Table:
    """Rows to look up, in memory or on disk: row n is ``flat[offsets[n] : offsets[n + 1]]``."""

    def __init__(self, flat: NDArray[Any], offsets: NDArray[Any]) -> None:
        self.flat, self.offsets = flat, offsets

    @classmethod
    def of(cls, rows: Ragged) -> Table:
        """Make a table of rows."""
        return cls(rows.flat, np.concatenate(([0], np.cumsum(rows.lengths))))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, numbers: IntArray) -> Ragged:
        """Return the rows of these numbers."""
        starts = self.offsets[numbers].astype(np.int64)
        return take(self.flat, starts, self.offsets[numbers + 1].astype(np.int64) - starts)


def sums(values: IntArray, lengths: IntArray) -> IntArray:
    """Return the sum of each row's values; rows may be empty."""
    total = np.concatenate(([0], np.cumsum(values)))
    ends = np.cumsum(lengths)
    result: IntArray = total[ends] - total[ends - lengths]
    return result


def merge(mask: NDArray[np.bool_], where_true: Ragged, otherwise: Ragged) -> Ragged:
    """Return the rows of ``otherwise`` with those under ``mask`` replaced, in order.

    ``otherwise`` has a row for every element of the mask, ``where_true`` one for every True.
    """
    places = np.arange(len(mask))
    places[mask] = len(mask) + np.arange(len(where_true.lengths))
    return Table.of(stack([otherwise, where_true])).rows(places)
