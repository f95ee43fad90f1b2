"""Sentence pairs made of monolingual text: back-translation, self-training and distillation.

A run translates real text. For a model of the opposite direction these are pairs with a real target
side (Sennrich et al. 2016, "Improving Neural Machine Translation Models with Monolingual Data",
section 3.2), for one of the same direction pairs with a real source side (self-training: Zhang and
Zong 2016). Made by an ensemble of the same direction, of the training text itself, they
distil it into one model (Kim and Rush 2016, section 3.2).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import nn

from dragoman.config import DecodeConfig
from dragoman.data.corpora import read_pairs, splits_of
from dragoman.data.lines import read_lines, sha256_of
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError
from dragoman.files import held, write_atomic
from dragoman.models.weights import fingerprint

CHUNK = 2048  # lines translated between two writes: as many are lost at most


class Counts(NamedTuple):
    """What became of the lines of monolingual text."""

    read: int
    empty: int
    repeated: int
    too_long: int  # for the model
    held_out: int  # also in a validation or test split
    kept: int


def plain(line: str) -> str:
    """Return what two lines share that differ in case and spaces alone."""
    return " ".join(line.split()).casefold()


def held_out(translator: Translator) -> tuple[set[str], list[str]]:
    """Return the source lines of every validation and test split, and the splits not there.

    Raises:
        DragomanError: if not even the validation split can be read.
    """
    data, absent = translator.config.data, list[str]()
    trained = {"train", *(c.split for c in data.corpora if c.source == data.name)}
    places = dict.fromkeys(splits_of(data), data)
    if data.name == "multi30k":  # the source side may have test sets that the target has not
        wide = replace(data, tgt="de" if data.src == "en" else "en")
        places = {**dict.fromkeys(splits_of(wide), wide), **places}
    found: set[str] = set()
    for split, place in places.items():
        if split not in trained:
            try:
                found.update(map(plain, read_pairs(place, split)[0]))
            except DragomanError as problem:
                if split == data.validation_split:
                    raise DragomanError(
                        f"--root: validation and test lines are left out, but {problem}"
                    ) from None
                absent.append(split)
    return found, absent


def clean(
    lines: Iterator[str], kept_out: set[str], fits: Callable[[str], bool]
) -> tuple[list[str], Counts]:
    """Return the lines worth translating.

    They are not empty, not there twice, in no validation or test split, and they ``fits``: of a
    longer one only the beginning would be translated.
    """
    seen: set[str] = set()
    kept: list[str] = []
    read = empty = repeated = long = out = 0
    for line in lines:
        read += 1
        text = plain(line)
        if not text:
            empty += 1
        elif text in kept_out:
            out += 1
        elif text in seen:
            repeated += 1
        elif not fits(line):
            long += 1
        else:
            seen.add(text)
            kept.append(line.strip())
    return kept, Counts(read, empty, repeated, long, out, len(kept))


def _lines_in(path: Path) -> int:
    """Return how many whole lines a file holds."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _cut(path: Path, count: int) -> None:
    """Leave the first ``count`` lines of a file, all of them whole."""
    if path.exists():
        with path.open("r+b") as file:  # never emptied: there are hours of work in it
            for _ in range(count):
                file.readline()
            file.truncate()


def _begin(note: Path, content: str, sides: Sequence[Path], most: int) -> int:
    """Check that the pairs there were made of the same; return how many of them are whole."""
    if note.exists() and note.read_text("utf-8", "replace") != content:
        raise DragomanError(
            f"{note}: the pairs there were made of another run, text or search; "
            "remove them or choose another --output"
        )
    for path in sides:
        if path.exists() and not note.exists():
            raise DragomanError(
                f"{path}: is there and was not made by this command; choose another --output"
            )
    counts = [_lines_in(path) for path in sides]
    for path, count in zip(sides, counts, strict=True):
        if count > most:
            raise DragomanError(
                f"{path}: has more lines than the {most} to translate; remove it or choose another "
                "--output"
            )
    done = min(counts)
    for path in sides:
        _cut(path, done)
    write_atomic(note, content)
    return done


def write_pairs(
    translator: Translator,
    inputs: Sequence[Path],
    output: Path,
    decode: DecodeConfig,
    origin: dict[str, Any],
    say: Callable[[str], object] = print,
    progress: Callable[[int], object] | None = None,
) -> Counts:
    """Write ``<output>.<src>`` with the lines of ``inputs`` and ``<output>.<tgt>``, line by line.

    A run that was interrupted goes on where it stopped; ``<output>.json`` says what was done.

    Raises:
        DragomanError: if a file cannot be read or written, the pairs there are of other weights,
            text or search, or another process is writing them.
    """
    data = translator.config.data
    if not output.name:
        raise DragomanError(f"--output: '{output}' is a folder, expected the start of a file name")
    sides = [output.with_name(f"{output.name}.{code}") for code in (data.src, data.tgt)]
    kept_out, absent = held_out(translator)
    lines, counts = clean(
        (line for path in inputs for line in read_lines(path)),
        kept_out,
        lambda line: len(translator.encode_line(line)) <= translator.longest,
    )
    said = {
        **origin,
        "models": [fingerprint(cast(nn.Module, model)) for model in translator.models],
        "inputs": {path.name: sha256_of(path) for path in inputs},
        "decoding": asdict(decode),
        "counts": counts._asdict(),
        "lines": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }
    content = json.dumps(said, indent=2, ensure_ascii=False) + "\n"
    note, lock = (output.with_name(f"{output.name}.json"), output.with_name(f".{output.name}.lock"))
    busy = f"{output}: another process is writing there; wait for it or choose another --output"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with held(lock, busy):
            done = _begin(note, content, sides, len(lines))
            say(
                f"{counts.kept:,} of {counts.read:,} lines ({counts.empty:,} empty, "
                f"{counts.repeated:,} repeated, {counts.too_long:,} too long for the model, "
                f"{counts.held_out:,} of validation or test left out)"
                + (f"; not compared with {', '.join(absent)}: not there" if absent else "")
                + (f"; going on after {done:,}" if 0 < done < len(lines) else "")
            )
            for start in range(done, len(lines), CHUNK):
                part = lines[start : start + CHUNK]
                found = translator.translate_lines(part, decode, start + 1, progress)
                texts = [" ".join(best[0].text.split()) for best in found]
                for path, rows in zip(sides, (part, texts), strict=True):
                    with path.open("ab") as stream:
                        stream.write("".join(f"{row}\n" for row in rows).encode())
            for path in sides:
                path.touch()  # where there was nothing to translate
    except OSError as problem:
        raise DragomanError(f"{output}: cannot be written ({problem.strerror})") from None
    return counts
