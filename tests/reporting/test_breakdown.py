"""Scores by kind of sentence."""

from __future__ import annotations

import pytest
from sacrebleu.metrics.bleu import BLEU

from dragoman.reporting.breakdown import (
    by_length,
    by_rarity,
    frequencies,
    sentences_of,
    unseen_share,
    words,
)

TRAINING = ["Ein Hund läuft.", "ein Hund spielt", "Ein Mann, ein Wort"] * 3
SOURCES = ["Ein Hund läuft.", "Ein Wal spielt.", "Ein Mann " + "läuft " * 9, "ein " * 20]
REFERENCES = ["A dog runs.", "A whale plays around here.", "A man " + "runs " * 9, "a " * 20]
HYPOTHESES = ["A dog runs.", "A dog plays.", "A man " + "runs " * 7, "b " * 25]


def test_each_bucket_is_scored_as_a_corpus() -> None:
    sentences = sentences_of(SOURCES, HYPOTHESES, REFERENCES)
    found = by_length(sentences, "en")
    assert [(b.label, b.sentences) for b in found] == [
        ("0 to 8", 2), ("9 to 11", 1), ("19 or more", 1)
    ]  # fmt: skip
    expected = BLEU().corpus_score(HYPOTHESES[:2], [REFERENCES[:2]]).score
    assert found[0].bleu == pytest.approx(expected)
    assert found[0].ratio == pytest.approx(6 / 8)
    assert found[2].ratio == pytest.approx(25 / 20)
    assert sum(b.sentences for b in found) == 4


def test_rarity_is_that_of_the_rarest_source_word() -> None:
    seen = frequencies(TRAINING)
    assert (seen["hund"], seen["ein"], seen["wal"]) == (6, 12, 0)
    found = by_rarity(sentences_of(SOURCES, HYPOTHESES, REFERENCES), seen, "en")
    # läuft: 3 times; Wal: never; läuft again; ein: 12 times.
    assert [(b.label, b.sentences) for b in found] == [("0", 1), ("3 to 10", 2), ("11 to 100", 1)]
    assert unseen_share(SOURCES[:2], seen) == pytest.approx(1 / 6)


def test_length_ratio_and_repetition() -> None:
    first, second, third, fourth = sentences_of(SOURCES, HYPOTHESES, REFERENCES)
    assert first.bleu == pytest.approx(100)
    assert second.ratio == pytest.approx(3 / 5)
    assert third.repeats == 0  # it repeats, but less than the reference does
    assert fourth.repeats == 23 - 18
    assert words("It's a T-shirt, 3 €!") == ["it", "s", "a", "t", "shirt", "3"]
