"""The score files of a run: ``scores.<split>.json`` and ``hypotheses.<split>.txt``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dragoman.data.lines import Reference
from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import SAMPLES, SEED, applies, check_counts, one_line
from dragoman.files import read_file, write_atomic
from dragoman.plugins import table

BOOTSTRAP = {
    "method": "percentile bootstrap over sentences",
    "level": 0.95,
    "samples": SAMPLES,
    "seed": SEED,
}


class Score(NamedTuple):
    """A corpus score, rounded to 4 decimals, with its sacreBLEU signature.

    ``interval`` is the 95 % bootstrap interval over sentences. ``preprocessing`` says what was done
    to the text before sacreBLEU saw it, and is empty where nothing was.
    """

    score: float
    signature: str
    interval: tuple[float, float]
    preprocessing: str = ""


def score(
    hypotheses: Sequence[str], references: Sequence[Reference], language: str, tokenize: str = "13a"
) -> dict[str, Score]:
    """Score detokenised hypotheses against raw references by every metric of ``METRICS``.

    ``language`` is the target language's code, ``tokenize`` names sacreBLEU's tokens.

    Raises:
        DragomanError: if there is no sentence, or not one hypothesis per reference.
    """
    check_counts(hypotheses, references)
    scores: dict[str, Score] = {}
    for name, metric in table("metric").items():
        if not applies(name, language):
            continue
        result = metric(hypotheses, references, language, tokenize)
        low, high = result.interval()
        scores[name] = Score(
            round(result.score, 4),
            result.signature,
            (round(low, 4), round(high, 4)),
            result.preprocessing,
        )
    return scores


def search_words(decoding: Mapping[str, Any]) -> str:
    """Return the search of the section ``decode`` in words: what a score depends on."""
    d, method = decoding, decoding["method"]
    if method == "beam":
        return f"beam {d['beam_size']}, length penalty {d['length_penalty_form']} " + (
            f"{d['length_penalty']:g}"
        )
    if method == "greedy":
        return "greedy search"
    drawn = f"temperature {d['temperature']:g}, top_k {d['top_k']}, top_p {d['top_p']:g}"
    many = f"mbr of {d['samples']} samples" if method == "mbr" else "one sample"
    return f"{many}, {drawn}, seed {d['seed']}"


def origin_words(scores: Mapping[str, Any]) -> str:
    """Return how the hypotheses of a score file were made: the search and the weights."""
    counts = scores["counts"]
    where = ", ".join(dict.fromkeys(counts["checkpoint"]))
    return f"{search_words(scores['decoding'])}; {where}, weights {counts['weights']}"


class Evaluated(NamedTuple):
    """A run as it was evaluated: its name, its score file and its hypotheses."""

    name: str
    scores: dict[str, Any]
    hypotheses: list[str]

    def beside(self, decoding: Mapping[str, Any]) -> str:
        """Return its name, how it was made, and whether by another search than ``decoding``."""
        theirs = self.scores["decoding"]  # an older file lacks the keys that are newer
        same = all(decoding.get(name) == value for name, value in theirs.items())
        other = "" if same else "; another search than of this run"
        return f"{self.name} ({origin_words(self.scores)}{other})"


def write_scores(
    folder: Path,
    label: str,
    hypotheses: Sequence[str],
    scores: Mapping[str, Score],
    decoding: Mapping[str, Any],
    counts: Mapping[str, Any],
    more: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Path:
    """Write ``hypotheses.<label>.txt``, one per line, and ``scores.<label>.json``; return its path.

    ``counts`` says what was translated by which weights, ``more`` has what else was found, by
    name; lists without an entry are not written. Line breaks inside a hypothesis become spaces, so
    that line N stays the translation of line N. The scores hold the digest of the hypotheses they
    belong to: a process that is killed between the two files leaves a pair that ``read_evaluated``
    refuses.

    Raises:
        DragomanError: if they cannot be written.
    """
    text = "".join(f"{one_line(hypothesis)}\n" for hypothesis in hypotheses)
    path = folder / f"scores.{label}.json"
    entries: dict[str, Any] = {name: entry._asdict() for name, entry in scores.items()}
    for entry in entries.values():
        if not entry["preprocessing"]:
            del entry["preprocessing"]
    content = {
        **entries,
        "bootstrap": BOOTSTRAP,
        "decoding": dict(decoding),
        "counts": {**counts, "hypotheses": _digest(text.encode())},
        **{name: found for name, found in (more or {}).items() if found},
    }
    write_atomic(folder / f"hypotheses.{label}.txt", text)
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_scores(folder: Path, split: str) -> dict[str, Any]:
    """Read ``scores.<split>.json`` of a run folder.

    Raises:
        DragomanError: if it is not there or not readable.
    """
    path = folder / f"scores.{split}.json"
    try:
        content = json.loads(read_file(path))
    except FileNotFoundError:
        raise DragomanError(f"{path}: no such file; has this split been evaluated?") from None
    except (OSError, ValueError) as problem:
        raise DragomanError(f"{path}: cannot be read ({problem})") from None
    if not isinstance(content, dict) or not {"decoding", "counts"} <= content.keys():
        raise DragomanError(f"{path}: not a score file")
    return content


def read_hypotheses(path: Path) -> list[str]:
    """Read a file of hypotheses, one per line; empty lines are hypotheses too.

    Raises:
        DragomanError: if the file is missing, unreadable or not UTF-8 (naming the line).
    """
    try:
        data = read_file(path)
    except FileNotFoundError:
        raise DragomanError(f"{path}: no such file; has this split been evaluated?") from None
    except OSError as problem:
        raise DragomanError(f"{path}: cannot be read ({problem.strerror})") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise DragomanError(f"{path}: line {line} is not UTF-8") from None
    # Only \n ends a line: str.splitlines() would also break at U+2028 and its like.
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_evaluated(folder: Path, label: str, name: str, sentences: int) -> Evaluated:
    """Read what an evaluation of ``sentences`` lines wrote about a run called ``name``.

    Raises:
        DragomanError: if a file is missing or unreadable, the hypotheses are not those that were
            scored, or there are more or fewer of them.
    """
    scores, path = read_scores(folder, label), folder / f"hypotheses.{label}.txt"
    hypotheses = read_hypotheses(path)
    recorded = scores["counts"].get("hypotheses")  # absent from files before 0.2
    if recorded is not None and recorded != _digest(read_file(path)):
        raise DragomanError(
            f"{path}: these are not the translations that scores.{label}.json was made of; "
            "evaluate the run again"
        )
    if len(hypotheses) != sentences:
        raise DragomanError(
            f"{path}: {len(hypotheses)} translations for {sentences} references; evaluate the run "
            "again"
        )
    return Evaluated(name, scores, hypotheses)


def aligned(rows: Sequence[Sequence[str]], sides: str) -> str:
    """Return rows of cells as a table of text; of each column < or > says on which side it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def format_scores(scores: Mapping[str, Score]) -> str:
    """Return an aligned table for the terminal: metric, score, 95 % interval and signature.

    Below it stands what was done to the text before some metric saw it.
    """
    rows = [("metric", "score", "95 % interval", "signature")]
    for name, entry in scores.items():
        low, high = entry.interval
        rows.append((name, f"{entry.score:.2f}", f"[{low:.2f}, {high:.2f}]", entry.signature))
    lines = [aligned(rows, "<>><")]
    for name, entry in scores.items():
        if entry.preprocessing:
            lines.append(f"{name}: on text {entry.preprocessing}")
    return "\n".join(lines)
