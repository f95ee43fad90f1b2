"""An epoch's rows on the device: a batch is gathered where it is used, and nothing waits for it.

Shapes as in ``batching``. From the host come only the places of a batch's sentences; the sizes of
its grids are known from the bucket, so a GPU never has to be asked for them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dragoman.data.batching import Batch, Bucket, decoder_inputs, length_mask, real_places
from dragoman.data.dataset import TrainingSet
from dragoman.data.ragged import IntArray, chunks, stack, starts_of
from dragoman.data.tokenizers import PAD

# Tokens of both sides, 4 bytes each, that a GPU is asked to keep: 1 GiB.
MOST_TOKENS = 1 << 28


class _Side(NamedTuple):
    """Rows of one side, one after the other, and where each begins and how long it is."""

    flat: Tensor
    starts: Tensor
    lengths: Tensor

    def grid(self, places_B: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """Return rows padded to (B, longest), and their lengths (B,)."""
        lengths_B = self.lengths[places_B]
        real = length_mask(lengths_B, longest)
        within = torch.arange(longest, device=places_B.device)
        index = torch.where(real, self.starts[places_B][:, None] + within, 0)
        return self.flat[index].long().masked_fill(~real, PAD), lengths_B


class ResidentRows:
    """The rows of the epoch that is being trained on, kept on a device."""

    def __init__(self, source: TrainingSet, device: torch.device) -> None:
        self.source, self.device = source, device
        self._epoch: int | None = None
        self._pairs: IntArray = np.empty(0, np.int64)
        self._sides: list[_Side] = []

    def fetch(self, bucket: Bucket) -> Batch:
        """Return what ``BatchOrder.fetch`` does, on the device."""
        if bucket.epoch != self._epoch:
            self._load(bucket.epoch)
        found = torch.from_numpy(np.searchsorted(self._pairs, bucket.pairs))
        if self.device.type == "cuda":  # a copy from pinned memory is not waited for
            found = found.pin_memory()
        places_B = found.to(self.device, non_blocking=True)
        src, tgt = self._sides
        src_BS, src_lengths_B = src.grid(places_B, bucket.src_longest)
        tgt_BT, tgt_lengths_B = tgt.grid(places_B, bucket.tgt_longest)
        real = real_places(tgt_lengths_B, bucket.tgt_longest, bucket.tgt_tokens)
        return Batch(
            src_BS=src_BS,
            src_lengths_B=src_lengths_B,
            tgt_in_BT=decoder_inputs(tgt_BT),
            tgt_lengths_B=tgt_lengths_B,
            targets_N=tgt_BT.flatten()[real],
        )

    def _load(self, epoch: int) -> None:
        self._sides = []  # before the next ones come: there may not be room for both
        self._pairs = np.unique(self.source.epoch_pairs(epoch))
        parts = [self.source.rows(self._pairs[part], epoch) for part in chunks(len(self._pairs))]
        for side in zip(*parts, strict=True):
            rows = stack(side)
            made = (rows.flat.astype(np.int32), starts_of(rows.lengths), rows.lengths)
            self._sides.append(_Side(*(torch.from_numpy(part).to(self.device) for part in made)))
        self._epoch = epoch
