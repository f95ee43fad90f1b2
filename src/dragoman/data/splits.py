"""Which pairs are for what: lines held out of the training text, and text on both sides of a split.

Two pairs that share a sentence, in its normal form, are of one group, and so are those that a chain
of such pairs joins. Lines are held out by whole groups: a plain shuffle of a corpus in which
sentences recur would put the same sentence into training and test.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dragoman.data.cache import cache_key, cached_folder
from dragoman.data.ragged import IntArray
from dragoman.data.store import Keys, Text
from dragoman.errors import DragomanError

FORMAT = 1  # raise it when the same text would give other lines
MOST_SHARE = 20  # at most one line in so many is held out for a split
LARGEST = 20  # at most one line in so many of a split is of one group


def groups(src: Keys, tgt: Keys) -> IntArray:
    """Return a number for each pair, equal for those of one group: the place of its first pair."""
    places = [np.unique(keys, return_inverse=True)[1] for keys in (src, tgt)]
    labels = np.arange(len(src))
    while True:
        before = labels
        for place in places:
            lowest = np.full(int(place.max(initial=-1)) + 1, len(src))
            np.minimum.at(lowest, place, labels)
            labels = lowest[place]
        labels = labels[labels]
        if np.array_equal(labels, before):
            return labels


def choose(src: Keys, tgt: Keys, wanted: int, splits: Sequence[str]) -> dict[str, IntArray]:
    """Return the places of the pairs held out for each split.

    The groups come in the order of a hash of their sentences, so that the lines of a file may come
    in any order. Very large groups are passed over.
    """
    labels = groups(src, tgt)
    count = min(wanted, len(src) // MOST_SHARE)
    first = np.full(len(src), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(first, labels, src)
    sizes = np.bincount(labels, minlength=len(src))
    order = np.argsort(first, kind="stable")
    order = order[(sizes[order] > 0) & (sizes[order] <= max(1, count // LARGEST))]
    chosen, place = {}, 0
    for split in splits:
        picked, left = [], count
        while left and place < len(order):
            if sizes[order[place]] <= left:
                picked.append(order[place])
                left -= int(sizes[order[place]])
            place += 1
        chosen[split] = np.flatnonzero(np.isin(labels, picked))
    return chosen


def hold_out(
    cache: Path, text: Text, languages: tuple[str, str], wanted: int, splits: Sequence[str]
) -> Path:
    """Return a folder with ``<split>.jsonl`` for every split: pairs, each with its number.

    Raises:
        DragomanError: if there are too few pairs, or the cache cannot be written.
    """
    key = cache_key(
        what="held out", format=FORMAT, text=text.folder.name, wanted=wanted, splits=list(splits)
    )

    def build(folder: Path) -> None:
        usable = np.flatnonzero(~text.duplicates)
        chosen = choose(text.keys[0][usable], text.keys[1][usable], wanted, splits)
        lines = np.flatnonzero(text.verdicts == 0) + 1
        for split, places in chosen.items():
            if not len(places):
                raise DragomanError(
                    f"data.holdout: {len(usable):,} pairs are too few, or hang together in too "
                    f"large groups, to hold any out for '{split}'; give it a file: "
                    f"data.files.{split}=..."
                )
            numbers = usable[places]
            rows = zip(numbers, *(side.lines(numbers) for side in text.sides), strict=True)
            content = "".join(
                json.dumps(
                    {languages[0]: src, languages[1]: tgt, "pair": int(lines[number])},
                    ensure_ascii=False,
                )
                + "\n"
                for number, src, tgt in rows
            )
            (folder / f"{split}.jsonl").write_text(content, encoding="utf-8")

    return cached_folder(cache, key, build)
