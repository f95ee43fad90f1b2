"""Score a run on a split: translate, compare with the raw references, write both down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from dragoman.config import DecodeConfig
from dragoman.data.sources import read_pairs
from dragoman.decoding.translator import Translator
from dragoman.evaluation.scores import score, write_hypotheses, write_scores


class Evaluation(NamedTuple):
    """What came of it: scores by metric, and the strings they were computed on."""

    scores: dict[str, dict[str, Any]]
    sources: list[str]
    hypotheses: list[str]
    references: list[str]
    seconds: float

    @property
    def empty(self) -> int:
        """How many hypotheses say nothing."""
        return sum(not hypothesis.strip() for hypothesis in self.hypotheses)


def evaluate(
    translator: Translator,
    split: str,
    decode: DecodeConfig,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Translate a split and score it by every metric.

    Raises:
        DragomanError: if the split does not exist or cannot be read.
    """
    data = translator.config.data
    sources, references = read_pairs(data, split)
    began = time.monotonic()
    found = translator.translate(sources, decode, progress=progress)
    seconds = time.monotonic() - began
    hypotheses = [translations[0].text for translations in found]
    scores = score(hypotheses, references, data.tgt)
    return Evaluation(scores, sources, hypotheses, references, seconds)


def write_evaluation(
    folder: Path,
    split: str,
    done: Evaluation,
    decode: DecodeConfig,
    origin: dict[str, Any],
    comparisons: list[dict[str, Any]] | None = None,
) -> None:
    """Write ``scores.<split>.json`` and ``hypotheses.<split>.txt``.

    ``origin`` says which runs, checkpoints and weights the hypotheses come from, ``comparisons``
    how other systems compare.

    Raises:
        DragomanError: if they cannot be written.
    """
    counts = {
        "sentences": len(done.sources),
        "empty_hypotheses": done.empty,
        "seconds": round(done.seconds, 2),
        **origin,
    }
    write_hypotheses(folder, split, done.hypotheses)
    write_scores(folder, split, done.scores, asdict(decode), counts, comparisons)
