"""Score translations: translate, compare with the raw references, say all that it depends on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dragoman import settings
from dragoman.config import DecodeConfig
from dragoman.data.lines import Reference
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError, nearest, one_of
from dragoman.evaluation.scores import Score, format_scores, score, write_scores


@dataclass(repr=False)
class Evaluation:
    """Scores by metric, and the strings they were computed on.

    ``evaluation.bleu.score`` is short for ``evaluation.scores["bleu"].score``; printed, it is the
    table of all metrics. ``path`` is the score file, where one was written. ``comparisons`` has,
    for each other run, its name (``run``), its score file (``scores``) and the paired ``tests``;
    ``robustness`` the rows that :func:`dragoman.evaluation.robustness.robustness` returns.
    """

    scores: dict[str, Score]
    sources: Sequence[str]
    hypotheses: list[str]
    references: Sequence[Reference]
    decode: DecodeConfig
    seconds: float
    path: Path | None = None
    comparisons: list[dict[str, Any]] = field(default_factory=list)
    robustness: list[dict[str, Any]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Score:
        scores: dict[str, Score] = self.__dict__.get("scores", {})
        if name in scores:
            return scores[name]
        raise AttributeError(
            f"there is no metric '{name}', expected {one_of(scores or ['none'])}"
            f"{nearest(name, scores)}"
        )

    def __repr__(self) -> str:
        return format_scores(self.scores)

    @property
    def empty(self) -> int:
        """How many hypotheses say nothing."""
        return sum(not hypothesis.strip() for hypothesis in self.hypotheses)


def evaluate(
    translator: Translator,
    sources: Sequence[str],
    references: Sequence[Reference],
    decode: DecodeConfig,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Translate lines and score what comes out by every metric.

    Raises:
        DragomanError: if there is no line, or not one reference per source.
    """
    if len(sources) != len(references):
        raise DragomanError(
            f"{len(sources)} source lines and {len(references)} references: expected one reference "
            "per source line"
        )
    began = time.monotonic()
    # References are of whole lines: only what is too long for the model is parted.
    whole = replace(decode, split="never")
    found = translator.translate_lines(sources, whole, progress=progress)
    seconds = time.monotonic() - began
    hypotheses = [translations[0].text for translations in found]
    config = translator.config
    scores = score(hypotheses, references, config.data.tgt, settings.tokens_of(config))
    return Evaluation(scores, sources, hypotheses, references, decode, seconds)


def write_evaluation(folder: Path, label: str, done: Evaluation, origin: dict[str, Any]) -> None:
    """Write ``scores.<label>.json`` and ``hypotheses.<label>.txt``; note the path in ``done``.

    ``origin`` says which runs, checkpoints and weights the hypotheses come from.

    Raises:
        DragomanError: if they cannot be written.
    """
    counts = {
        "sentences": len(done.sources),
        "empty_hypotheses": done.empty,
        "seconds": round(done.seconds, 2),
        **origin,
    }
    beside = [
        {"run": found["run"], "decoding": found["scores"]["decoding"], "tests": found["tests"]}
        for found in done.comparisons
    ]
    more = {"comparisons": beside, "robustness": done.robustness}
    done.path = write_scores(
        folder, label, done.hypotheses, done.scores, asdict(done.decode), counts, more
    )
