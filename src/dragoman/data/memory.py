"""Pairs in memory: what ``dragoman.train(pairs=...)`` is given.

Training pairs stay where they are and are given again to resume. Those of every other split are
written into the run folder (``pairs/<split>.jsonl``), so that the run can be scored without them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dragoman.config import CorpusConfig, DataConfig
from dragoman.data.columns import Wanted
from dragoman.data.formats import read_file
from dragoman.data.lines import Pair, Place
from dragoman.errors import DragomanError, check_text, one_of
from dragoman.files import check_file_part, write_atomic

TRAIN = "train"
_held: dict[str, list[Pair]] = {}  # of the run that is being trained


def read(pairs: Mapping[str, Iterable[Any]], src: str, tgt: str) -> dict[str, list[Pair]]:
    """Return the pairs of every split as (source, target) strings.

    A row is a tuple, a dict with the language codes as keys, or one with such a dict under
    ``translation``; a pandas frame is read by its columns.

    Raises:
        DragomanError: naming the split and the row at fault, or a split that is missing.
    """
    if not isinstance(pairs, Mapping) or TRAIN not in pairs or len(pairs) < 2:
        raise DragomanError(
            "pairs: expected a dict with sentence pairs to train on under 'train' and others to "
            "validate with under 'val'"
        )
    found: dict[str, list[Pair]] = {}
    for split, rows in pairs.items():
        check_file_part(split, "pairs")
        if hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # a pandas frame
            rows = rows.to_dict("records")
        found[split] = [
            _pair(row, src, tgt, f"pairs['{split}']: row {number}")
            for number, row in enumerate(rows)
        ]
        if not found[split]:
            raise DragomanError(f"pairs['{split}']: holds no sentence pair")
    return found


def _pair(row: Any, src: str, tgt: str, where: str) -> Pair:
    expected = f"expected (source, target) or a dict with the keys '{src}' and '{tgt}'"
    if isinstance(row, Mapping):
        nested = row.get("translation")
        record = nested if isinstance(nested, Mapping) else row
        if src not in record or tgt not in record:
            raise DragomanError(f"{where}: has the keys {one_of(record or ['none'])}, {expected}")
        row = (record[src], record[tgt])
    if isinstance(row, str) or not isinstance(row, Iterable):
        raise DragomanError(f"{where}: {row!r:.40} is no pair, {expected}")
    sides = tuple(row)
    if len(sides) != 2:
        raise DragomanError(f"{where}: has {len(sides)} parts, {expected}")
    return check_text(sides[0], where), check_text(sides[1], where)


def digest(pairs: Mapping[str, list[Pair]]) -> str:
    """Return a SHA-256, in hexadecimal digits, that changes when the pairs do."""
    text = json.dumps({split: pairs[split] for split in sorted(pairs)}, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def configured(data: DataConfig, pairs: Mapping[str, list[Pair]]) -> None:
    """Change the section ``data`` of a config so that it speaks of pairs in memory.

    Raises:
        DragomanError: if there are none to validate with.
    """
    others = [split for split in pairs if split != TRAIN]
    if data.validation_split not in others:
        if "val" not in others:
            raise DragomanError(
                f"pairs: has the splits {one_of(pairs)}, expected 'val' to validate with (or set "
                "data.validation_split)"
            )
        data.validation_split = "val"
    data.name, data.files, data.columns = "memory", {}, None
    data.corpora = [CorpusConfig(source="memory", src=data.src, tgt=data.tgt, split=TRAIN)]


def _stored(root: Path, split: str) -> Path:
    return root / f"{split}.jsonl"


def keep(root: Path, data: DataConfig, pairs: Mapping[str, list[Pair]]) -> None:
    """Write the pairs of every split but the training pairs under ``root``.

    Raises:
        DragomanError: if they cannot be written, or other pairs are there already.
    """
    for split, rows in pairs.items():
        if split == TRAIN:
            continue
        path = _stored(root, split)
        lines = [
            json.dumps({data.src: src, data.tgt: tgt}, ensure_ascii=False) for src, tgt in rows
        ]
        content = "".join(f"{line}\n" for line in lines).encode()
        if path.exists() and path.read_bytes() != content:
            raise DragomanError(
                f"pairs['{split}']: this run began with other pairs ({path}); restore them or "
                "choose another run_name"
            )
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)


@contextmanager
def holding(pairs: Mapping[str, list[Pair]]) -> Iterator[None]:
    """Have the pairs at hand for the source ``memory`` while inside."""
    before = dict(_held)
    _held.clear()
    _held.update(pairs)
    try:
        yield
    finally:
        _held.clear()
        _held.update(before)


class MemorySource:
    """Pairs that were given to ``dragoman.train``, or those of them that the run has kept."""

    def splits(self, wanted: Any) -> list[str]:
        """Return the names of the splits there are."""
        kept = [path.stem for path in sorted(wanted.root.glob("*.jsonl"))]
        return list(dict.fromkeys([*_held, *kept]))

    def paths(self, wanted: Any, split: str) -> list[Path]:
        """Return the file that a split was kept in; training pairs have none."""
        return [] if split == TRAIN else [_stored(wanted.root, split)]

    def pairs(self, wanted: Any, split: str) -> Iterator[Pair]:
        """Yield the pairs of a split."""
        if split in _held:
            return iter(_held[split])
        if split == TRAIN:
            raise DragomanError(
                "data.corpora: the training pairs of this run were in memory; give them again: "
                "dragoman.train(..., pairs=...)"
            )
        path = _stored(wanted.root, split)
        if not path.exists():
            raise DragomanError(
                f"{wanted.root}: the run has kept no split '{split}', expected "
                f"{one_of(self.splits(wanted) or ['none'])}"
            )
        return read_file(Place(path), Wanted(wanted.src, wanted.tgt))

    def fingerprint(self, wanted: Any, split: str) -> str:
        """Return the digest of the pairs."""
        return digest({split: list(self.pairs(wanted, split))})
