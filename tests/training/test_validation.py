"""The pictures of training: the model graph."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny
from dragoman.data.batching import Batch
from dragoman.reporting.board import Board
from dragoman.training.validation import ModelGraph


@pytest.mark.parametrize("name", tiny.FEW)
def test_every_model_has_a_graph_and_stays_as_it_was(
    name: str, batch: Batch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model: Any = tiny.build(tiny.FEW[name]).train()
    model(batch)  # the table of positions, made small for tests, grows at first sight
    board = Board(tmp_path)
    with caplog.at_level(logging.WARNING):
        board.graph(*ModelGraph.of(model, batch))
    board.close()
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["graph"]
    assert not caplog.records
    assert model.training
    assert model.fast
