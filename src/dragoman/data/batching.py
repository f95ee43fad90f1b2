"""Sentences into batches: bucketing by length under a token budget, padding, and the position.

Shapes: B batch, S longest source, T longest target, N real target tokens. Both sides end in EOS;
the decoder's inputs begin with BOS instead.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dragoman.data.dataset import TrainingSet
from dragoman.data.ragged import IntArray, Lengths, Ragged, chunks
from dragoman.data.tokenizers import BOS, PAD


def length_mask(lengths_B: Tensor, longest: int) -> Tensor:
    """Return (B, longest), True at real positions."""
    return torch.arange(longest, device=lengths_B.device)[None, :] < lengths_B[:, None]


def real_places(lengths_B: Tensor, longest: int, total: int) -> Tensor:
    """Return where the real tokens stand in a grid (B * longest,), row by row: (total,).

    ``total`` is the sum of the lengths. Who knows it beforehand need not wait for a GPU to count.
    """
    number = torch.arange(total, device=lengths_B.device)
    ends_B = lengths_B.cumsum(0)
    row = torch.searchsorted(ends_B, number, right=True)
    return number + row * longest - (ends_B - lengths_B)[row]


@dataclass(frozen=True)
class Batch:
    """Padded sentence pairs.

    ``targets_N`` holds the real target tokens, row by row; padding is never a target.
    """

    src_BS: Tensor
    src_lengths_B: Tensor
    tgt_in_BT: Tensor
    tgt_lengths_B: Tensor
    targets_N: Tensor

    @property
    def tgt_mask_BT(self) -> Tensor:
        """True at real target positions."""
        return length_mask(self.tgt_lengths_B, self.tgt_in_BT.shape[1])

    @property
    def tgt_places_N(self) -> Tensor:
        """Where the real target positions stand in a grid (B * T)."""
        return real_places(self.tgt_lengths_B, self.tgt_in_BT.shape[1], self.num_tokens)

    def at_targets(self, states_BTD: Tensor) -> Tensor:
        """Return the rows at real target positions, (B, T, D) -> (N, D)."""
        return states_BTD.flatten(0, 1).index_select(0, self.tgt_places_N)

    @property
    def num_tokens(self) -> int:
        """N, the number of real target tokens, EOS included."""
        return self.targets_N.shape[0]

    def twice(self) -> Batch:
        """Return the batch and, behind it, the batch once more."""
        return Batch(**{name: torch.cat([t, t]) for name, t in vars(self).items()})

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        moved = {name: t.to(device, non_blocking=True) for name, t in vars(self).items()}
        return Batch(**moved)


def pad(rows: Ragged) -> IntArray:
    """Return the rows as (B, longest), filled up with PAD on the right."""
    longest = int(rows.lengths.max()) if len(rows.lengths) else 0
    out = np.full((len(rows.lengths), longest), PAD, np.int64)
    out[np.arange(longest) < rows.lengths[:, None]] = rows.flat
    return out


def collate(src: Ragged, tgt: Ragged) -> Batch:
    """Build a batch from source and target rows that end in EOS."""
    return Batch(
        src_BS=torch.from_numpy(pad(src)),
        src_lengths_B=torch.from_numpy(src.lengths.copy()),
        tgt_in_BT=decoder_inputs(torch.from_numpy(pad(tgt))),
        tgt_lengths_B=torch.from_numpy(tgt.lengths.copy()),
        targets_N=torch.from_numpy(tgt.flat.copy()),
    )


def decoder_inputs(tgt_BT: Tensor) -> Tensor:
    """Return what the decoder is fed to predict each target: BOS first, each token one later."""
    return torch.cat([tgt_BT.new_full((len(tgt_BT), 1), BOS), tgt_BT[:, :-1]], 1)


class Bucket(NamedTuple):
    """The sentences of one batch, before they are fetched."""

    epoch: int
    pairs: IntArray
    src_longest: int
    tgt_longest: int
    tgt_tokens: int
    real_tokens: int

    @property
    def padded_tokens(self) -> int:
        """Number of positions both sides take, padding included."""
        return len(self.pairs) * (self.src_longest + self.tgt_longest)


class _Budget:
    """torchtext's ``batch_size_fn``: the cost of a batch when one more sentence joins it.

    A batch costs (sentences) x (longest sentence of either side), so padding counts.
    """

    def __init__(self, src: Lengths, tgt: Lengths) -> None:
        self.src, self.tgt, self.top = src, tgt, 0

    def __call__(self, new: int, count: int, cost_so_far: int) -> int:
        longest = max(int(self.src[new]), int(self.tgt[new]))
        self.top = max(0 if count == 1 else self.top, longest)
        return self.top * count


def _sort_key(src: Lengths, tgt: Lengths) -> IntArray:
    """Return by what pairs are sorted: their longer side.

    Ties are broken by the other one: less padding on both.
    """
    key: IntArray = np.maximum(src, tgt, dtype=np.int64) << 32
    key += tgt.astype(np.int64) << 16
    key += src
    return key


def _bucket(epoch: int, pairs: IntArray, src: Lengths, tgt: Lengths, chosen: IntArray) -> Bucket:
    """Return the batch of the pairs at the places ``chosen``."""
    src, tgt = src[chosen], tgt[chosen]
    return Bucket(
        epoch, pairs[chosen], int(src.max()), int(tgt.max()), int(tgt.sum()), int((src + tgt).sum())
    )


AHEAD = 1 << 13  # sentences whose lengths are found out at a time


class BatchOrder:
    """The order of all batches of a run: a pure function of (seed, epoch), so nothing is saved.

    Sentences are shuffled and pooled; a pool is sorted by length and cut under the budget, and its
    batches are shuffled: torchtext's bucketing, over indices. A pool holds a hundred times the
    budget, but counts all its sentences as long as its longest. Sorted, they need fewer batches:
    of image captions about thirty-five. The last of them is seldom full.
    """

    def __init__(
        self, source: TrainingSet, batch_type: str, batch_size: int, sort_by_length: bool, seed: int
    ) -> None:
        self.source, self.seed = source, seed
        self.batch_type, self.batch_size, self.sort = batch_type, batch_size, sort_by_length

    def epoch(self, epoch: int) -> Iterator[Bucket]:
        """Yield the batches of one epoch, each pair of the epoch exactly once."""
        from torchtext.data.iterator import pool
        from torchtext.data.utils import RandomShuffler

        pairs = self.source.epoch_pairs(epoch)
        pairs = np.random.default_rng([self.seed, epoch]).permutation(pairs)
        src, tgt = np.empty(len(pairs), np.int32), np.empty(len(pairs), np.int32)
        sort_key, by_tokens = np.empty(len(pairs), np.int64), self.batch_type == "tokens"

        def measured() -> Iterator[int]:
            """Find out lengths as far as they are needed: to draw those of an epoch takes long."""
            for part in chunks(len(pairs), AHEAD):
                src[part], tgt[part] = self.source.lengths(pairs[part], epoch)
                sort_key[part] = _sort_key(src[part], tgt[part])
                yield from part.tolist()

        batches = pool(
            measured(),
            self.batch_size,
            key=lambda place: int(sort_key[place]),
            batch_size_fn=_Budget(src, tgt) if by_tokens else lambda new, count, so_far: count,
            random_shuffler=RandomShuffler(random.Random(f"{self.seed}/{epoch}").getstate()),
            shuffle=True,
            sort_within_batch=self.sort,
        )
        for places in batches:
            if places:  # a sentence above the budget makes torchtext emit an empty batch before it
                yield _bucket(epoch, pairs, src, tgt, np.asarray(places))

    def fetch(self, bucket: Bucket) -> Batch:
        """Read the sentences of a batch and pad them."""
        return collate(*self.source.rows(bucket.pairs, bucket.epoch))

    def largest(self) -> Bucket:
        """Return a batch that takes about as much memory as the largest of the first epoch.

        Of the batches that may end at each length, filled from all pairs instead of from a pool,
        and counted without subword sampling, which makes sentences longer and batches of tokens as
        much smaller. Cutting the epoch for good takes seconds for millions of pairs.
        """
        pairs = self.source.epoch_pairs(0)
        src, tgt = self.source.usual_lengths(pairs)
        places = np.argsort(_sort_key(src, tgt))
        counts, found = np.bincount(np.maximum(src, tgt)), []
        for length, end in zip(*counts.nonzero(), counts.cumsum()[counts > 0], strict=True):
            size = self.batch_size
            if self.batch_type == "tokens":
                size = max(1, size // int(length))
            found.append(_bucket(0, pairs, src, tgt, places[max(0, end - size) : end]))
        return max(found, key=lambda bucket: bucket.padded_tokens)


class BatchStream:
    """Batches without end, epoch after epoch, from any position."""

    def __init__(self, order: BatchOrder, epoch: int = 0, consumed: int = 0) -> None:
        self.order, self.epoch, self.consumed = order, epoch, consumed
        self._batches: Iterator[Bucket] = islice(order.epoch(epoch), consumed, None)

    def take(self, count: int) -> list[Bucket]:
        """Return the next ``count`` batches of the global order."""
        taken = list(islice(self._batches, count))
        self.consumed += len(taken)
        while len(taken) < count:
            self.epoch += 1
            self._batches = self.order.epoch(self.epoch)
            more = list(islice(self._batches, count - len(taken)))
            taken, self.consumed = taken + more, len(more)
        return taken
