"""Is one system better than another on the same references? Two paired tests.

Both resample per-sentence statistics, as ``sacrebleu --paired-bs`` and ``--paired-ar`` do and with
the same draws. One thing differs: a resample whose statistic *equals* the observed one counts
towards p, so that a system compared with itself gets p = 1; sacreBLEU counts only larger ones and
gives it 1 / (n + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dragoman.data.lines import Reference
from dragoman.errors import DragomanError, nearest, one_of
from dragoman.evaluation.metrics import (
    METRICS,
    SAMPLES,
    SEED,
    FloatArray,
    MetricResult,
    applies,
    bootstrap_sums,
)
from dragoman.evaluation.scores import aligned

TRIALS = 10_000
TRIALS_AT_A_TIME = 512  # a multiple of 32, see metrics.BLOCK


def _p_value(resampled: FloatArray, observed: float) -> float:
    """Return the share of resamples at least as extreme as what was observed, itself included."""
    return float((np.sum(resampled >= observed) + 1) / (len(resampled) + 1))


def resampled_means(
    systems: Sequence[Sequence[MetricResult]], samples: int = SAMPLES, seed: int = SEED
) -> list[FloatArray]:
    """Return each system's score, the mean over its runs, on the same resamples (R)."""
    runs = [run for system in systems for run in system]
    sums = bootstrap_sums(np.hstack([run.statistics for run in runs]), samples, seed)
    parts = iter(np.split(sums, np.cumsum([run.statistics.shape[1] for run in runs])[:-1], axis=1))
    return [np.mean([run.aggregate(next(parts)) for run in system], axis=0) for system in systems]


def paired_bootstrap_of_means(
    a: Sequence[MetricResult], b: Sequence[MetricResult], samples: int = SAMPLES, seed: int = SEED
) -> float:
    """Return the p-value of paired bootstrap resampling of two means over runs.

    The sentences are resampled, the runs are not: seeds are what the standard deviation is for.
    """
    first, second = resampled_means([a, b], samples, seed)
    differences = np.abs(first - second)
    observed = np.mean([run.score for run in a]) - np.mean([run.score for run in b])
    return _p_value(differences - differences.mean(), abs(float(observed)))


def paired_bootstrap(
    a: MetricResult, b: MetricResult, samples: int = SAMPLES, seed: int = SEED
) -> float:
    """Return the p-value of paired bootstrap resampling (Koehn 2004, section 4).

    ``a`` and ``b`` are results of one metric on the same references. The absolute differences of
    the resamples, less their mean, stand for the null hypothesis.
    """
    return paired_bootstrap_of_means([a], [b], samples, seed)


def approximate_randomization(
    a: MetricResult, b: MetricResult, trials: int = TRIALS, seed: int = SEED
) -> float:
    """Return the p-value of two-sided approximate randomization (Riezler and Maxwell 2005).

    Each trial swaps the two outputs of a sentence with probability one half: if the systems were
    alike, that would change nothing.
    """
    rng = np.random.default_rng(seed)
    total = a.statistics.sum(axis=0) + b.statistics.sum(axis=0)
    differences = []
    for start in range(0, trials, TRIALS_AT_A_TIME):
        size = (min(TRIALS_AT_A_TIME, trials - start), len(a.statistics))
        keep = rng.integers(2, size=size, dtype=np.bool_).astype(np.float64)
        first = keep @ a.statistics + (1.0 - keep) @ b.statistics
        differences.append(np.abs(a.aggregate(first) - b.aggregate(total - first)))
    return _p_value(np.concatenate(differences), abs(a.score - b.score))


def compare(
    hypotheses_a: Sequence[str],
    hypotheses_b: Sequence[str],
    references: Sequence[Reference],
    language: str,
    metrics: Sequence[str] = tuple(METRICS),
    samples: int = SAMPLES,
    trials: int = TRIALS,
    tokenize: str = "13a",
) -> list[dict[str, Any]]:
    """Compare two systems by every metric and both tests.

    Returns one row per metric and method: ``metric``, ``method``, ``score_a``, ``score_b``,
    ``difference`` (a - b; for ter, negative is better), ``p_value``, ``samples`` and ``signature``
    (with the test and its seed, in sacreBLEU's form).

    Raises:
        DragomanError: for an unknown metric, no sentence, or unequal numbers of lines.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise DragomanError(
            f"there is no metric '{unknown[0]}', expected {one_of(METRICS)}"
            f"{nearest(unknown[0], METRICS)}"
        )
    rows = []
    for name in metrics:
        if not applies(name, language):
            continue
        a = METRICS[name](hypotheses_a, references, language, tokenize)
        b = METRICS[name](hypotheses_b, references, language, tokenize)
        for method, (test, short) in TESTS.items():
            count = samples if short == "bs" else trials
            rows.append(
                {
                    "metric": name,
                    "method": method,
                    "score_a": round(a.score, 4),
                    "score_b": round(b.score, 4),
                    "difference": round(a.score - b.score, 4),
                    "p_value": round(test(a, b, count, SEED), 6),
                    "samples": count,
                    "signature": a.signature.replace(
                        "|",
                        f"|{short}:{count}|seed:{SEED}|",
                        1,  # after the number of references
                    ),
                }
            )
    return rows


def format_comparison(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return an aligned table for the terminal of what ``compare`` found."""
    table = [("metric", "this run", "other run", "difference", "p", "test", "signature")]
    for row in rows:
        table.append(
            (
                row["metric"],
                f"{row['score_a']:.2f}",
                f"{row['score_b']:.2f}",
                f"{row['difference']:+.2f}",
                f"{row['p_value']:.4f}",
                row["method"],
                row["signature"],
            )
        )
    return aligned(table, "<<<<<<<")


# Name -> (test, the abbreviation that sacreBLEU signatures use for it).
TESTS: dict[str, tuple[Callable[[MetricResult, MetricResult, int, int], float], str]] = {
    "paired bootstrap": (paired_bootstrap, "bs"),
    "approximate randomization": (approximate_randomization, "ar"),
}
