from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.reporting.alignment import (
    AlignmentErrorRate,
    alignment_error_rate,
    hard_alignment,
    merge_to_words,
)

LINKS = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)))


def test_error_rate_by_hand():
    # A = 4 links, S = 3, of which 2 found; P adds one more that was found.
    counts = alignment_error_rate(
        predicted=[(0, 0), (1, 1), (2, 3), (5, 5)],
        sure=[(0, 0), (1, 1), (2, 2)],
        possible=[(2, 3), (4, 4)],
    )
    assert counts == AlignmentErrorRate(4, 3, 2, 3)
    assert counts.rate == pytest.approx(1 - (2 + 3) / (4 + 3))
    assert counts.precision == pytest.approx(3 / 4)
    assert counts.recall == pytest.approx(2 / 3)


def test_perfect_wrong_and_nothing_to_do():
    gold = {(0, 1), (1, 0)}
    assert alignment_error_rate(gold, gold).rate == 0
    assert alignment_error_rate({(0, 0)}, gold).rate == 1
    assert alignment_error_rate([], gold).rate == 1
    assert alignment_error_rate([], []).rate == 0


def test_a_corpus_adds_counts_and_not_rates():
    long = alignment_error_rate([(i, i) for i in range(9)], [(i, i) for i in range(9)])
    short = alignment_error_rate([(0, 1)], [(0, 0)])
    corpus = sum([long, short], AlignmentErrorRate())
    assert corpus.rate == pytest.approx(1 - 18 / 20)


@given(LINKS, LINKS, LINKS)
def test_rate_is_a_rate_and_possible_links_only_help(predicted, sure, possible):
    strict = alignment_error_rate(predicted, sure).rate
    lenient = alignment_error_rate(list(predicted) * 2, sure, possible).rate
    assert 0 <= lenient <= strict <= 1


def test_hard_alignment_takes_the_largest_weight_of_each_target():
    weights = np.array([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2], [0.0, 0.0, 0.0]])
    assert hard_alignment(weights) == [(1, 0), (0, 1)]
    assert hard_alignment(np.zeros((0, 4))) == []
    assert hard_alignment(np.zeros((4, 0))) == []


def test_merging_sums_over_source_pieces_and_averages_over_target_pieces():
    weights = np.array(
        [
            # word 0: two pieces; word 1; end mark
            [0.1, 0.2, 0.3, 0.4],
            [0.5, 0.1, 0.2, 0.2],
            [0.0, 0.0, 0.9, 0.1],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    merged = merge_to_words(weights, src_words=[0, 0, 1, -1], tgt_words=[0, 1, 1, -1])
    np.testing.assert_allclose(merged, [[0.3, 0.3], [(0.6 + 0.0) / 2, (0.2 + 0.9) / 2]])


def test_merging_a_leading_tag_and_a_word_without_pieces():
    weights = np.array([[0.5, 0.2, 0.3]])
    merged = merge_to_words(weights, src_words=[-1, 0, 2], tgt_words=[1])
    np.testing.assert_allclose(merged, [[0, 0, 0], [0.2, 0, 0.3]])
    assert merge_to_words(weights, [-1, -1, -1], [-1]).shape == (0, 0)


def test_one_piece_per_word_changes_nothing():
    weights = np.random.default_rng(0).dirichlet(np.ones(4), size=3).astype(np.float32)
    np.testing.assert_allclose(merge_to_words(weights, range(4), range(3)), weights)


def test_word_lists_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) do not fit 2 target and 2 source"):
        merge_to_words(np.zeros((2, 3)), [0, 1], [0, 1])
