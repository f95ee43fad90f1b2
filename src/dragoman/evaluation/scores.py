"""The score files of a run: ``scores.<split>.json`` and ``hypotheses.<split>.txt``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS, SAMPLES, SEED, check_counts, one_line
from dragoman.files import write_atomic

BOOTSTRAP = {
    "method": "percentile bootstrap over sentences",
    "level": 0.95,
    "samples": SAMPLES,
    "seed": SEED,
}


def score(
    hypotheses: Sequence[str], references: Sequence[str], language: str
) -> dict[str, dict[str, Any]]:
    """Score detokenised hypotheses against raw references by every metric of ``METRICS``.

    ``language`` is the target language's code. Returns ``{metric: {"score", "signature",
    "interval"}}``, scores rounded to 4 decimals, the interval as ``[low, high]`` at 95 %; a metric
    that prepares the text before sacreBLEU sees it says so under ``"preprocessing"``.

    Raises:
        DragomanError: if there is no sentence, or not one hypothesis per reference.
    """
    check_counts(hypotheses, references)
    scores: dict[str, dict[str, Any]] = {}
    for name, metric in METRICS.items():
        result = metric(hypotheses, references, language)
        scores[name] = {
            "score": round(result.score, 4),
            "signature": result.signature,
            "interval": [round(bound, 4) for bound in result.interval()],
        }
        if result.preprocessing:
            scores[name]["preprocessing"] = result.preprocessing
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
        other = "" if self.scores["decoding"] == decoding else "; another search than of this run"
        return f"{self.name} ({origin_words(self.scores)}{other})"


def write_scores(
    folder: Path,
    split: str,
    scores: Mapping[str, Any],
    decoding: Mapping[str, Any],
    counts: Mapping[str, Any],
    comparisons: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write ``scores.<split>.json`` into a run folder, whole or not at all; return its path.

    ``comparisons`` are what ``significance.compare`` found beside other systems.

    Raises:
        DragomanError: if it cannot be written.
    """
    path = folder / f"scores.{split}.json"
    content = {
        **scores,
        "bootstrap": BOOTSTRAP,
        "decoding": dict(decoding),
        "counts": dict(counts),
        **({"comparisons": comparisons} if comparisons else {}),
    }
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_scores(folder: Path, split: str) -> dict[str, Any]:
    """Read ``scores.<split>.json`` of a run folder.

    Raises:
        DragomanError: if it is not there or not readable.
    """
    path = folder / f"scores.{split}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DragomanError(f"{path}: no such file; has this split been evaluated?") from None
    except (OSError, ValueError) as problem:
        raise DragomanError(f"{path}: cannot be read ({problem})") from None
    if not isinstance(content, dict) or not {"decoding", "counts"} <= content.keys():
        raise DragomanError(f"{path}: not a score file")
    return content


def write_hypotheses(folder: Path, split: str, hypotheses: Sequence[str]) -> Path:
    """Write ``hypotheses.<split>.txt``, one line per source line; return its path.

    Line breaks inside a hypothesis become spaces, so that line N stays the translation of line N.

    Raises:
        DragomanError: if it cannot be written.
    """
    path = folder / f"hypotheses.{split}.txt"
    write_atomic(path, "".join(f"{one_line(hypothesis)}\n" for hypothesis in hypotheses))
    return path


def read_hypotheses(path: Path) -> list[str]:
    """Read a file of hypotheses, one per line; empty lines are hypotheses too.

    Raises:
        DragomanError: if the file is missing, unreadable or not UTF-8 (naming the line).
    """
    try:
        data = path.read_bytes()
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


def format_scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return an aligned table for the terminal: metric, score, 95 % interval and signature.

    Below it stands what was done to the text before some metric saw it.
    """
    rows = [("metric", "score", "95 % interval", "signature")]
    for name, entry in scores.items():
        low, high = entry["interval"]
        rows.append((name, f"{entry['score']:.2f}", f"[{low:.2f}, {high:.2f}]", entry["signature"]))
    first, second, third = (max(len(row[column]) for row in rows) for column in range(3))
    lines = [f"{row[0]:<{first}}  {row[1]:>{second}}  {row[2]:>{third}}  {row[3]}" for row in rows]
    for name, entry in scores.items():
        if "preprocessing" in entry:
            lines.append(f"{name}: on text {entry['preprocessing']}")
    return "\n".join(lines)
