"""Bucketing: every pair once, within the budget, and the same again from any position."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tinyruns
from dragoman.data.batching import (
    BatchOrder,
    BatchStream,
    Bucket,
    collate,
    length_mask,
    pad,
)
from dragoman.data.ragged import Ragged, ragged
from dragoman.data.tokenizers import BOS, EOS, PAD

IntArray = NDArray[np.int64]


class Pairs:
    """Sentence pairs of given lengths; token ids say which pair, side and epoch they are of."""

    def __init__(self, src: list[int], tgt: list[int], repeats: int = 1) -> None:
        self.src, self.tgt = np.array(src, np.int64), np.array(tgt, np.int64)
        self.repeats = repeats

    def epoch_pairs(self, epoch: int) -> IntArray:
        return np.tile(np.arange(len(self.src)), self.repeats)

    def lengths(self, pairs: IntArray, epoch: int) -> tuple[IntArray, IntArray]:
        return self.src[pairs], self.tgt[pairs]

    def usual_lengths(self, pairs: IntArray) -> tuple[IntArray, IntArray]:
        return self.lengths(pairs, 0)

    def rows(self, pairs: IntArray, epoch: int) -> tuple[Ragged, Ragged]:
        sides = []
        for offset, lengths in ((1000, self.src), (2000, self.tgt)):
            first = offset + 2000 * epoch
            rows = [[first + int(pair)] * (int(lengths[pair]) - 1) + [EOS] for pair in pairs]
            sides.append(ragged(rows))
        return sides[0], sides[1]


lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=150)


def order(rows: list[tuple[int, int]], size: int, **options: Any) -> BatchOrder:
    source = Pairs([src for src, _ in rows], [tgt for _, tgt in rows], options.pop("repeats", 1))
    settings = {"batch_type": "tokens", "sort_by_length": True, "seed": 3, **options}
    return BatchOrder(source, batch_size=size, **settings)


def plain(buckets: list[Bucket]) -> list[list[int]]:
    return [bucket.pairs.tolist() for bucket in buckets]


@given(rows=lengths, size=st.integers(10, 400), epoch=st.integers(0, 3), sort=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_pair_exactly_once_and_within_the_budget(
    rows: list[tuple[int, int]], size: int, epoch: int, sort: bool
) -> None:
    buckets = list(order(rows, size, sort_by_length=sort).epoch(epoch))
    assert sorted(pair for row in plain(buckets) for pair in row) == list(range(len(rows)))
    for bucket in buckets:
        longest = max(bucket.src_longest, bucket.tgt_longest)
        assert len(bucket.pairs) * longest <= size or len(bucket.pairs) == 1
        assert len(bucket.pairs) > 0
        src, tgt = ([rows[pair][side] for pair in bucket.pairs] for side in (0, 1))
        assert (bucket.src_longest, bucket.tgt_longest) == (max(src), max(tgt))
        assert (bucket.tgt_tokens, bucket.real_tokens) == (sum(tgt), sum(src) + sum(tgt))
        assert bucket.padded_tokens == len(src) * (max(src) + max(tgt)) >= bucket.real_tokens


@given(rows=lengths, size=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_batches_of_sentences(rows: list[tuple[int, int]], size: int) -> None:
    buckets = list(order(rows, size, batch_type="sentences").epoch(0))
    sizes = sorted(len(bucket.pairs) for bucket in buckets)
    assert sum(sizes) == len(rows)
    assert sizes[-1] <= size
    # Full, but for the rest of each pool of a hundred batches.
    assert sum(count < size for count in sizes) <= 1 + len(rows) // (100 * size)


@given(rows=lengths, size=st.integers(20, 200), seed=st.integers(0, 5), data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_position_reproduces_the_rest(
    rows: list[tuple[int, int]], size: int, seed: int, data: st.DataObject
) -> None:
    made = order(rows, size, seed=seed)
    stream = BatchStream(made)
    before = data.draw(st.integers(0, 2 * sum(1 for _ in made.epoch(0)) + 1))
    stream.take(before)
    # The position as a checkpoint keeps it, read in another process.
    epoch, consumed = json.loads(json.dumps([stream.epoch, stream.consumed]))
    other = BatchStream(order(rows, size, seed=seed), epoch, consumed)
    ahead, again = stream.take(7), other.take(7)
    assert plain(ahead) == plain(again)
    assert [bucket.epoch for bucket in ahead] == [bucket.epoch for bucket in again]
    assert (stream.epoch, stream.consumed) == (other.epoch, other.consumed)


@given(rows=lengths, size=st.integers(10, 300), repeats=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_the_largest_batch_has_no_fewer_rows_than_one_as_long(
    rows: list[tuple[int, int]], size: int, repeats: int
) -> None:
    made = order(rows, size, repeats=repeats)
    most = max(made.epoch(0), key=lambda bucket: bucket.padded_tokens)
    # At worst its other side is one token long, where that of a batch in a pool is as long again.
    assert 2 * made.largest().padded_tokens >= most.padded_tokens


def realistic(count: int) -> list[tuple[int, int]]:
    """Return lengths of both sides as those of image captions are."""
    draw = np.random.default_rng(0)
    src = 3 + draw.poisson(11, count)
    tgt = np.maximum(2, src + draw.integers(-3, 4, count))
    return list(zip(src.tolist(), tgt.tolist(), strict=True))


def test_the_largest_batch_of_a_real_length_distribution_is_as_large_as_any() -> None:
    made = order(realistic(4000), 1000)
    most = max(bucket.padded_tokens for bucket in made.epoch(0))
    assert 0.99 * most <= made.largest().padded_tokens <= 2000


def test_only_the_last_batch_of_a_pool_is_not_full() -> None:
    size, rows = 1500, realistic(12_000)
    made = order(rows, size)
    used = [len(b.pairs) * max(b.src_longest, b.tgt_longest) / size for b in made.epoch(0)]
    # What is not full, less than a pool holds at the end of an epoch included.
    pools = math.ceil(len(rows) * max(map(max, rows)) / (100 * size))
    assert sum(share < 0.9 for share in used) <= pools
    assert np.mean(used) > 0.97


def test_a_sentence_above_the_budget_is_a_batch_of_its_own() -> None:
    buckets = list(order([(5, 5), (90, 3), (4, 4), (5, 4)], 20).epoch(0))
    assert [1] in plain(buckets)
    assert sorted(pair for row in plain(buckets) for pair in row) == [0, 1, 2, 3]


def test_pairs_that_an_epoch_has_twice_come_twice() -> None:
    found = plain(list(order([(3, 3), (4, 4)], 100, repeats=2).epoch(0)))
    assert sorted(pair for row in found for pair in row) == [0, 0, 1, 1]


def many(count: int = 4000) -> list[tuple[int, int]]:
    draws = np.random.default_rng(0)
    src = draws.integers(5, 40, count)
    return list(zip(src.tolist(), (src + draws.integers(-3, 4, count)).tolist(), strict=True))


def padding(buckets: list[Bucket]) -> float:
    return 1 - sum(b.real_tokens for b in buckets) / sum(b.padded_tokens for b in buckets)


def test_sorting_leaves_little_padding_and_no_order_among_batches() -> None:
    sorted_batches = list(order(many(), 2500).epoch(0))
    drawn = list(order(many(), 2500, sort_by_length=False).epoch(0))
    assert padding(sorted_batches) < 0.12 < 0.25 < padding(drawn)
    longest = [bucket.src_longest for bucket in sorted_batches]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_epochs_and_seeds_differ() -> None:
    rows = many(300)
    first, second = (plain(list(order(rows, 300).epoch(epoch))) for epoch in (0, 1))
    other = plain(list(order(rows, 300, seed=4).epoch(0)))
    assert first != second
    assert first != other
    assert first == plain(list(order(rows, 300).epoch(0)))


def drawn() -> list[list[list[int]]]:
    return [plain(list(order(many(200), 300).epoch(epoch))) for epoch in (0, 5)]


def test_a_fresh_process_draws_the_same() -> None:
    with tinyruns.FRESH.Pool(1) as pool:
        assert pool.apply(drawn) == drawn()


def test_global_random_state_is_neither_used_nor_changed() -> None:
    import random

    rows = many(200)
    random.seed(1)
    state = random.getstate()
    first = plain(list(order(rows, 300).epoch(0)))
    assert random.getstate() == state
    random.seed(2)
    assert plain(list(order(rows, 300).epoch(0))) == first


def test_fetch_pads_and_shifts() -> None:
    made = order([(2, 3), (4, 1)], 100)
    src, tgt = made.source.rows(np.array([0, 1]), 0)
    batch = collate(src, tgt)
    assert batch.src_BS.tolist() == [[1000, EOS, PAD, PAD], [1001, 1001, 1001, EOS]]
    assert batch.src_lengths_B.tolist() == [2, 4]
    assert batch.tgt_in_BT.tolist() == [[BOS, 2000, 2000], [BOS, EOS, PAD]]
    assert batch.tgt_lengths_B.tolist() == [3, 1]
    assert batch.targets_N.tolist() == [2000, 2000, EOS, EOS]
    assert batch.num_tokens == 4
    assert batch.tgt_mask_BT.tolist() == [[True, True, True], [True, False, False]]
    assert batch.tgt_places_N.tolist() == [0, 1, 2, 3]
    assert batch.at_targets(batch.tgt_in_BT[:, :, None])[:, 0].tolist() == [BOS, 2000, 2000, BOS]


def test_a_fetched_batch_is_the_bucket() -> None:
    made = order(many(50), 200)
    for bucket in made.epoch(0):
        batch = made.fetch(bucket)
        assert batch.src_BS.shape == (len(bucket.pairs), bucket.src_longest)
        assert batch.tgt_in_BT.shape == (len(bucket.pairs), bucket.tgt_longest)
        assert batch.num_tokens == bucket.tgt_tokens
        assert all(t.device.type == "cpu" for t in vars(batch.to(torch.device("cpu"))).values())


@given(st.lists(st.lists(st.integers(4, 99), max_size=9), max_size=9))
@settings(max_examples=50, deadline=None)
def test_padding_by_hand(rows: list[list[int]]) -> None:
    longest = max(map(len, rows), default=0)
    expected = [row + [PAD] * (longest - len(row)) for row in rows]
    assert pad(ragged(rows)).tolist() == expected


def test_length_mask() -> None:
    mask = length_mask(torch.tensor([0, 2, 3]), 3)
    assert mask.tolist() == [[False] * 3, [True, True, False], [True] * 3]


@pytest.mark.parametrize("position", [(0, 0), (0, 3), (4, 1)])
def test_a_stream_counts_what_was_taken(position: tuple[int, int]) -> None:
    made = order(many(100), 300)
    stream = BatchStream(made, *position)
    expected = plain(list(made.epoch(position[0])))[position[1] : position[1] + 2]
    assert plain(stream.take(2)) == expected
    assert (stream.epoch, stream.consumed) == (position[0], position[1] + 2)
