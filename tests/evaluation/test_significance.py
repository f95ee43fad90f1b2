from __future__ import annotations

import random

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS
from dragoman.evaluation.significance import (
    TESTS,
    compare,
    paired_bootstrap,
    paired_bootstrap_of_means,
    resampled_means,
)

WORDS = ["ein", "mann", "eine", "frau", "steht", "vor", "dem", "haus", "und", "liest", "im", "gras"]


def system(references: list[str], share: float, seed: int) -> list[str]:
    """Return the references with about ``share`` of their words replaced."""
    rng = random.Random(seed)
    return [
        " ".join(rng.choice(WORDS) if rng.random() < share else word for word in line.split())
        for line in references
    ]


@pytest.fixture(scope="module")
def references() -> list[str]:
    rng = random.Random(11)
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 14))) for _ in range(200)]


def test_a_system_and_itself(references: list[str]) -> None:
    hypotheses = system(references, 0.3, 1)
    rows = compare(hypotheses, hypotheses, references, "de", trials=600)
    assert [(row["metric"], row["method"]) for row in rows] == [
        (metric, method) for metric in METRICS for method in TESTS
    ]
    assert all(row["difference"] == 0 for row in rows)
    assert all(row["p_value"] == 1 for row in rows)


def test_a_clearly_better_system(references: list[str]) -> None:
    good, bad = system(references, 0.2, 1), system(references, 0.45, 2)
    for row in compare(good, bad, references, "de", trials=1000):
        assert row["p_value"] < 0.01, row
        better = -row["difference"] if row["metric"] == "ter" else row["difference"]
        assert better > 5, row
        assert row["difference"] == pytest.approx(row["score_a"] - row["score_b"], abs=2e-4)


def test_equally_good_systems_are_not_told_apart(references: list[str]) -> None:
    # Swapping the two outputs on every other line leaves two systems of the same quality.
    one, two = system(references, 0.3, 1), system(references, 0.3, 2)
    a = [x if i % 2 else y for i, (x, y) in enumerate(zip(one, two, strict=True))]
    b = [y if i % 2 else x for i, (x, y) in enumerate(zip(one, two, strict=True))]
    assert all(row["p_value"] > 0.05 for row in compare(a, b, references, "de", trials=1000))


def test_the_order_of_the_systems_only_turns_the_sign(references: list[str]) -> None:
    one, two = system(references, 0.30, 1), system(references, 0.31, 8)
    there = compare(one, two, references, "de", ["bleu"], trials=600)
    back = compare(two, one, references, "de", ["bleu"], trials=600)
    for row, turned in zip(there, back, strict=True):
        assert row["difference"] == -turned["difference"] != 0
        assert row["p_value"] == pytest.approx(turned["p_value"], abs=0.01)


@pytest.mark.parametrize(("method", "short"), [(m, short) for m, (_, short) in TESTS.items()])
def test_p_values_and_signatures_are_sacrebleus(
    method: str, short: str, references: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    one, two = system(references, 0.30, 1), system(references, 0.31, 8)
    names = {"bleu": "BLEU", "chrf": "chrF2", "ter": "TER"}
    rows = compare(two, one, references, "de", list(names), samples=400, trials=400)
    theirs = {"bleu": BLEU(), "chrf": CHRF(), "ter": TER()}
    paired = PairedTest([("one", one), ("two", two)], theirs, [references], short, n_samples=400)
    signatures, results = paired()
    for row in (row for row in rows if row["method"] == method):
        baseline, other = results[names[row["metric"]]]
        assert row["score_a"] == pytest.approx(other.score, abs=1e-4)
        assert row["score_b"] == pytest.approx(baseline.score, abs=1e-4)
        # Both draw the same, but here a tie counts too: rare, except for the whole edits of ter.
        ties = 0.05 if row["metric"] == "ter" else 0.005
        assert other.p_value - 1e-6 <= row["p_value"] <= other.p_value + ties
        assert 0.01 < row["p_value"] < 0.5
        assert row["signature"] == str(signatures[names[row["metric"]]])
        assert row["samples"] == 400


def test_comparisons_are_reproducible(references: list[str]) -> None:
    one, two = system(references, 0.30, 1), system(references, 0.31, 8)
    first, second = (
        compare(one, two, references, "de", ["bleu", "chrf"], trials=600) for _ in range(2)
    )
    assert first == second


def test_refusals(references: list[str]) -> None:
    with pytest.raises(DragomanError, match=r"no metric 'blue'.*did you mean 'bleu'"):
        compare(references, references, references, "de", ["blue"])
    with pytest.raises(DragomanError, match=r"199 hypotheses .* 200 references"):
        compare(references, references[1:], references, "de", ["bleu"])
    with pytest.raises(DragomanError, match="0 hypotheses"):
        compare([], [], [], "de")


def test_means_over_runs_are_resampled_together(references: list[str]) -> None:
    a, b, c = (METRICS["bleu"](system(references, share, seed), references, "de")
               for share, seed in ((0.2, 1), (0.3, 2), (0.45, 3)))  # fmt: skip
    alone = [resampled_means([[run]])[0] for run in (a, b, c)]
    first, second = resampled_means([[a, b], [c]])
    assert first == pytest.approx((alone[0] + alone[1]) / 2)
    assert second == pytest.approx(alone[2])
    assert len(first) == 1000
    assert np.std(first) > 0
    assert paired_bootstrap_of_means([a], [b]) == paired_bootstrap(a, b)
    assert paired_bootstrap_of_means([a, b], [c]) < 0.01
    assert paired_bootstrap_of_means([a, c], [c, a]) == 1
