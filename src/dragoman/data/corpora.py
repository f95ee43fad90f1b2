"""The corpora of a config: raw, cleaned to be learnt from, and held out to be scored."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dragoman.config import SHIPPED, CleanConfig, CorpusConfig, DataConfig
from dragoman.data import sources
from dragoman.data.cleaning import Facts
from dragoman.data.columns import Wanted
from dragoman.data.formats import read_file
from dragoman.data.lines import Pair, Place, Reference, alternatives, remembered_sha256
from dragoman.data.sources import iter_pairs, iter_rows
from dragoman.data.splits import hold_out
from dragoman.data.store import Keys, Text, keys_of, read_text
from dragoman.errors import DragomanError
from dragoman.files import read_bytes, write_atomic


def facts_of(data: DataConfig, corpus: CorpusConfig) -> Facts:
    """Return how a corpus is cleaned: only text of the user's own is."""
    clean = CleanConfig() if corpus.source in SHIPPED else data.clean
    return Facts(clean, corpus.src, corpus.tgt)


def training_text(data: DataConfig, corpus: CorpusConfig) -> Text:
    """Return a training corpus as text, cleaned: from the cache, or read and written there.

    Raises:
        DragomanError: if the corpus or the cache is at fault.
    """
    return read_text(
        Path(data.cache),
        sources.corpus_fingerprint(data, corpus),
        partial(iter_pairs, data, corpus),
        facts_of(data, corpus),
    )


_VALIDATION = re.compile(r"(val|valid|validation|dev)([\W\d_].*)?")


def held_splits(data: DataConfig) -> list[str]:
    """Return the splits that are held out of the training text, since no file is named for them.

    There are none where validation text is named.
    """
    named = sources.splits_of(data) if data.name == "files" else []
    validated = data.validation_split in named or any(map(_VALIDATION.fullmatch, named))
    if not data.holdout or not named or validated:
        return []
    return [data.validation_split, *({"test"} - {*named, data.validation_split})]


def held_folder(data: DataConfig) -> Path:
    """Return the folder with the pairs that are held out, ``<split>.jsonl``.

    Raises:
        DragomanError: if there is no training text of the pair, or too little of it.
    """
    if data.held_out:
        return Path(os.path.expanduser(data.held_out))
    pair = (data.src, data.tgt)
    for corpus in data.corpora:
        if corpus.source == "files" and (corpus.src, corpus.tgt) == pair:
            text = training_text(data, corpus)
            return hold_out(Path(data.cache), text, pair, data.holdout, held_splits(data))
    raise DragomanError(
        f"data.files: names no file for the split '{data.validation_split}', and data.corpora has "
        f"no text of {data.src}-{data.tgt} to hold it out of"
    )


def use_kept(data: DataConfig, run: Path) -> None:
    """Have the lines held out that a run has kept, if it has kept any."""
    if any((run / "pairs" / f"{split}.jsonl").is_file() for split in held_splits(data)):
        data.held_out = str(run / "pairs")


def keep_held_out(data: DataConfig, run: Path) -> None:
    """Write the lines that are held out into the folder of a run.

    Raises:
        DragomanError: if they cannot be written.
    """
    for split in held_splits(data):
        path = run / "pairs" / f"{split}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, read_bytes(held_folder(data) / path.name))
    use_kept(data, run)


def _held_file(data: DataConfig, split: str) -> Path | None:
    return held_folder(data) / f"{split}.jsonl" if split in held_splits(data) else None


def read_pairs(data: DataConfig, split: str) -> tuple[list[str], list[Reference]]:
    """Return all source lines and all references of a split of ``data.name``, raw and in order.

    Where there are files of several references, those of a line are a tuple.

    Raises:
        DragomanError: as ``sources.iter_rows``.
    """
    held = _held_file(data, split)
    if held is None:
        rows = iter_rows(data, CorpusConfig(data.name, data.src, data.tgt, split=split), "data")
    else:
        rows = read_file(Place(held), Wanted(data.src, data.tgt))
    lines = list(rows)
    return [row[0] for row in lines], [row[1] if len(row) == 2 else row[1:] for row in lines]


def corpus_fingerprint(data: DataConfig, corpus: CorpusConfig) -> str:
    """Return a SHA-256, in hexadecimal digits, that changes when the pairs of a corpus do.

    Raises:
        DragomanError: as ``sources.iter_pairs`` does at once.
    """
    held = _held_file(data, corpus.split) if corpus.source == "files" else None
    return remembered_sha256(held) if held else sources.corpus_fingerprint(data, corpus)


def splits_of(data: DataConfig) -> list[str]:
    """Return the names of the splits ``data.name`` has for ``data.src`` and ``data.tgt``.

    Raises:
        DragomanError: for a language the source does not have.
    """
    return [*sources.splits_of(data), *held_splits(data)]


# Splits that are there to be scored, beside ``data.validation_split``.
_EVALUATION = re.compile(r"(val|valid|validation|dev|devtest|eval|test|newstest)([\W\d_].*)?")


def evaluation_pairs(data: DataConfig) -> dict[str, tuple[list[str], list[Reference]]]:
    """Return the lines of every split that is there to be scored; text to test on may be missing.

    Raises:
        DragomanError: if the validation split cannot be read.
    """
    found = {data.validation_split: read_pairs(data, data.validation_split)}
    for split in filter(_EVALUATION.fullmatch, splits_of(data)):
        try:
            found[split] = read_pairs(data, split)
        except DragomanError:
            found[split] = ([], [])  # it need not be there yet
    return found


def check_texts(data: DataConfig) -> None:
    """Refuse what is wrong with the text of a run before anything slow begins.

    The files of training and validation must be there, and no training corpus may be a split for
    validation or testing: neither by its name nor by its sentences, of which one side is enough.

    Raises:
        DragomanError: as ``iter_pairs`` does at once, and for a split that is both.
    """
    for corpus in data.corpora:
        iter_pairs(data, corpus)
    for split, lines in evaluation_pairs(data).items():
        held_out = [(src, alternatives(ref)[0]) for src, ref in zip(*lines, strict=True)]
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


def evaluation_keys(data: DataConfig) -> dict[str, Keys]:
    """Return the keys of the sentences of every split that is there to be scored."""
    return {
        split: keys_of([*sources, *itertools.chain.from_iterable(map(alternatives, references))])
        for split, (sources, references) in evaluation_pairs(data).items()
    }


class Counts(NamedTuple):
    """What became of the pairs of a training corpus.

    How many were read; how many were left out, by what; how many share a sentence with an
    evaluation split, by split.
    """

    read: int
    left_out: dict[str, int]
    leaks: dict[str, int]


def left_out(
    data: DataConfig, corpus: CorpusConfig, text: Text, keys: dict[str, Keys]
) -> tuple[NDArray[np.bool_], Counts]:
    """Tell which pairs of a training corpus are not to be trained on, and count why not.

    Duplicates, what is held out, and what shares a sentence with an evaluation split where
    ``data.clean.leaks`` is ``drop``; where it is ``warn``, such pairs are only counted.

    Args:
        keys: of the evaluation splits (``evaluation_keys``).
    """
    out, facts = np.array(text.duplicates), facts_of(data, corpus)
    counts = Counts(len(text.verdicts), text.taken(facts), {})
    for split, own in keys.items():
        shared = (np.isin(text.keys[0], own) | np.isin(text.keys[1], own)) & ~out
        held = split in held_splits(data)
        if held or facts.clean.leaks == "drop":
            out |= shared
            counts.left_out[f"{'held out for' if held else 'leaks into'} {split}"] = int(
                shared.sum()
            )
        else:
            counts.leaks[split] = int(shared.sum())
    return out, counts
