"""Minimum Bayes risk: sentence BLEU for all pairs, and what the samples agree on."""

from __future__ import annotations

import random

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from dragoman.decoding.consensus import consensus, sentence_bleu

WORDS = ["a", "man", "rides", "the", "dog", ",", "it's", "two-year-old", "red.", "Ein"]


def sentences(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) for _ in range(count)]


def test_it_is_the_sentence_bleu_of_sacrebleu() -> None:
    candidates = [*sentences(25, 1), "", "a", "no word of them", " a man ", "a man rides the dog"]
    references = [*sentences(20, 2), "", "a", "a man rides the dog"]
    found = sentence_bleu(candidates, references)
    metric = BLEU(effective_order=True)
    for row, candidate in zip(found, candidates, strict=True):
        expected = [metric.sentence_score(candidate, [reference]).score for reference in references]
        assert row.tolist() == pytest.approx(expected, abs=1e-9)
    assert found.max() == pytest.approx(100)


def test_the_consensus_is_the_candidate_of_the_highest_expected_bleu() -> None:
    samples = sentences(12, 3)
    samples += [samples[4]] * 2 + [samples[7]]
    places, expected = consensus(samples)
    metric = BLEU(effective_order=True)
    means = {
        text: np.mean([metric.sentence_score(text, [other]).score for other in samples])
        for text in samples
    }
    assert len(places) == len(set(samples)) == len(expected)
    assert [samples[place] for place in places] == sorted(means, key=lambda text: -means[text])
    assert expected.tolist() == pytest.approx(sorted(means.values(), reverse=True))
    assert places == [samples.index(samples[place]) for place in places]
