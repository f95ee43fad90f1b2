"""The pictures of training: the model graph."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import tiny
from dragoman.data.batching import Batch
from dragoman.reporting.board import Board
from dragoman.training.validation import ModelGraph


@pytest.mark.parametrize("name", tiny.FEW)
def test_every_model_has_a_graph_and_stays_as_it_was(
    name: str, batch: Batch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from torch.utils.tensorboard.writer import SummaryWriter

    drawn: list[Any] = []
    original = SummaryWriter.add_graph

    def watched(self: Any, model: Any, inputs: Any, **options: Any) -> None:
        original(self, model, inputs, **options)
        drawn.append(model)

    model: Any = tiny.build(tiny.FEW[name]).train()
    model(batch)  # the table of positions, made small for tests, grows at first sight
    board = Board(tmp_path)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(SummaryWriter, "add_graph", watched)
        board.graph(*ModelGraph.of(model, batch))
    board.close()
    assert len(drawn) == 1
    assert not caplog.records
    assert model.training
    assert model.fast
