"""Corpus metrics on raw strings: score, sacreBLEU signature and statistics to resample.

A metric is a function ``(hypotheses, references, language, tokenize) -> MetricResult`` and a line
of ``METRICS``. Hypotheses and references are detokenised lines; where a line has several
references, they are a tuple. ``tokenize`` names sacreBLEU's tokens. The numbers are sacreBLEU's own
(Post 2018, "A Call for Clarity in Reporting BLEU Scores"): its per-sentence sufficient statistics
are kept, so that resampling never counts an n-gram twice.

Shapes: S sentences, K statistics of a metric, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from dragoman.data.lines import Reference, alternatives
from dragoman.errors import DragomanError
from dragoman.evaluation.moses import describe, knows, lc_norm_tok

FloatArray = NDArray[np.float64]

MetricFunction = Callable[..., "MetricResult"]


def check_tokens(tokenize: str) -> str:
    """Return the name of sacreBLEU's tokens if they can be had.

    Raises:
        DragomanError: naming the package that is missing.
    """
    try:
        BLEU(tokenize=tokenize)
    except (ImportError, RuntimeError) as problem:
        extra = tokenize[:2]
        raise DragomanError(
            f"evaluation.tokenize: {tokenize} needs the extra [{extra}]: pip install "
            f"'dragoman[{extra}]' ({' '.join(str(problem).split())[:80]})"
        ) from None
    return tokenize


# sacreBLEU's defaults: with them the resamples drawn here are the ones it draws itself.
SAMPLES = 1000
SEED = 12345
# Resamples drawn at a time, so that memory stays flat on large corpora; a multiple of 32, because
# NumPy draws booleans 32 at a time and the size must not change which ones come.
BLOCK = 128


@dataclass(frozen=True)
class MetricResult:
    """A corpus score and what is needed to resample it.

    ``statistics`` is (S, K): one row of sufficient statistics per sentence. ``aggregate`` maps
    summed statistics (R, K) to corpus scores (R). ``preprocessing`` says what was done to the text
    before sacreBLEU saw it, and is empty when nothing was.
    """

    score: float
    signature: str
    statistics: FloatArray
    aggregate: Callable[[FloatArray], FloatArray]
    preprocessing: str = ""

    def interval(self, samples: int = SAMPLES, seed: int = SEED) -> tuple[float, float]:
        """Return the 95 % percentile bootstrap interval over sentences (Koehn 2004, section 3)."""
        scores = np.sort(self.aggregate(bootstrap_sums(self.statistics, samples, seed)))
        tail = samples // 40
        return float(scores[tail]), float(scores[samples - tail - 1])


def bootstrap_sums(statistics: FloatArray, samples: int = SAMPLES, seed: int = SEED) -> FloatArray:
    """Draw ``samples`` corpora of S sentences with replacement; return their summed statistics.

    ``statistics`` is (S, K), the result (samples, K).
    """
    rng = np.random.default_rng(seed)
    sentences = len(statistics)
    blocks = []
    for start in range(0, samples, BLOCK):
        drawn = rng.choice(sentences, size=(min(BLOCK, samples - start), sentences))
        counts = np.stack([np.bincount(row, minlength=sentences) for row in drawn])
        blocks.append(counts.astype(np.float64) @ statistics)
    return np.concatenate(blocks)


def one_line(text: str) -> str:
    """Return ``text`` as the one line it takes in a file: line breaks become spaces."""
    return text.replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


def check_counts(hypotheses: Sequence[str], references: Sequence[Reference]) -> None:
    """Refuse what cannot be scored.

    Raises:
        DragomanError: if there is no sentence, or not one hypothesis per reference.
    """
    if len(hypotheses) != len(references):
        raise DragomanError(
            f"{len(hypotheses)} hypotheses cannot be scored against {len(references)} references: "
            "expected one hypothesis per reference line"
        )
    if not references:
        raise DragomanError("there is nothing to score: 0 hypotheses and 0 references")


def _evaluate(
    metric: Metric,
    hypotheses: Iterable[str],
    references: Iterable[Reference],
    prepare: Callable[[str], str] = one_line,
    preprocessing: str = "",
) -> MetricResult:
    """Run a sacreBLEU metric once over the corpus, keeping its per-sentence statistics."""

    def aggregate(sums: FloatArray) -> FloatArray:
        scores = [metric._compute_score_from_stats(row).score for row in sums.tolist()]
        return np.array(scores, dtype=np.float64)

    # corpus_score() does just this but drops the statistics; a test holds the two together.
    lines = [[prepare(text) for text in alternatives(reference)] for reference in references]
    rows = metric._extract_corpus_statistics(
        list(map(prepare, hypotheses)), list(zip_longest(*lines))
    )
    statistics = np.array(rows, dtype=np.float64)
    score = float(aggregate(statistics.sum(axis=0, keepdims=True))[0])
    return MetricResult(score, str(metric.get_signature()), statistics, aggregate, preprocessing)


def _on_raw_text(build: Callable[[str], Metric]) -> MetricFunction:
    """Make a metric function of a sacreBLEU metric that needs no preparation of the text."""

    def metric(
        hypotheses: Sequence[str],
        references: Sequence[Reference],
        language: str,
        tokenize: str = "13a",
    ) -> MetricResult:
        check_counts(hypotheses, references)
        return _evaluate(build(tokenize), hypotheses, references)

    return metric


def _ter(tokenize: str) -> TER:
    """TER counts words: where there are none, the characters of Chinese, Japanese and Korean."""
    asian = tokenize in ("zh", "ja-mecab", "ko-mecab", "char")
    return TER(normalized=asian, asian_support=asian)


def bleu_lc_tok(
    hypotheses: Sequence[str], references: Sequence[Reference], language: str, tokenize: str = "13a"
) -> MetricResult:
    """BLEU on lower-cased Moses tokens of both sides, as papers on Multi30k report it.

    ``language`` is the target language's code. Papineni et al. 2002 on the text of
    :func:`dragoman.evaluation.moses.lc_norm_tok`. Not for every language: ``applies``.

    Raises:
        DragomanError: if there is no sentence, or not one hypothesis per reference.
    """
    check_counts(hypotheses, references)
    # force: the text is tokenised on purpose, sacreBLEU need not warn of it.
    return _evaluate(
        BLEU(tokenize="none", force=True),
        hypotheses,
        references,
        lambda text: lc_norm_tok(one_line(text), language),
        describe(language),
    )


def applies(name: str, language: str) -> bool:
    """Whether a metric is for a language: Moses tokens only where Moses has rules."""
    return name != "bleu_lc_tok" or knows(language)


METRICS: dict[str, MetricFunction] = {
    "bleu": _on_raw_text(lambda tokens: BLEU(tokenize=tokens)),  # cased, exponential smoothing
    "bleu_lc": _on_raw_text(lambda tokens: BLEU(lowercase=True, tokenize=tokens)),
    "bleu_lc_tok": bleu_lc_tok,
    "chrf": _on_raw_text(lambda _: CHRF()),  # chrF2 (Popović 2016)
    # Edits per 100 reference words, lower is better (Snover et al. 2006).
    "ter": _on_raw_text(_ter),
    "chrf_pp": _on_raw_text(lambda _: CHRF(word_order=2)),  # chrF2++ (Popović 2017)
}
