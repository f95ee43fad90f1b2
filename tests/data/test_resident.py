"""Rows that stay on a device give the batches that the host would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_batching import lengths, many, order

from dragoman.data.resident import ResidentRows

IntArray = NDArray[np.int64]


@given(rows=lengths, size=st.integers(10, 400), repeats=st.integers(1, 2), epoch=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_rows_on_the_device_give_the_same_batches(
    rows: list[tuple[int, int]], size: int, repeats: int, epoch: int
) -> None:
    made = order(rows, size, repeats=repeats)
    resident = ResidentRows(made.source, torch.device("cpu"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dragoman.data.ragged._CHUNK", 7)
        for bucket in (*made.epoch(epoch), *made.epoch(epoch + 1)):
            expected, found = (vars(source.fetch(bucket)) for source in (made, resident))
            for name, tensor in expected.items():
                torch.testing.assert_close(found[name], tensor, atol=0, rtol=0)


def test_rows_are_taken_from_their_source_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    made = order(many(60), 300)
    resident, read = ResidentRows(made.source, torch.device("cpu")), []
    rows = made.source.rows

    def note(pairs: IntArray, epoch: int) -> Any:
        read.append((epoch, len(pairs)))
        return rows(pairs, epoch)

    monkeypatch.setattr(made.source, "rows", note)
    for bucket in (*made.epoch(0), *made.epoch(1)):
        resident.fetch(bucket)
    assert read == [(0, 60), (1, 60)]


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for() -> None:
    made, device = order(many(60), 300), torch.device("cuda")
    resident, buckets = ResidentRows(made.source, device), list(made.epoch(0))
    resident.fetch(buckets[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = resident.fetch(buckets[1])
        places = batch.tgt_places_N
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = made.fetch(buckets[1])
    assert places.tolist() == expected.tgt_mask_BT.flatten().nonzero()[:, 0].tolist()
    for name, tensor in vars(expected).items():
        torch.testing.assert_close(vars(batch)[name].cpu(), tensor, atol=0, rtol=0)
