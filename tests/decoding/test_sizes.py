"""Weights are held against a config without building its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dragoman.config import RNNConfig, TransformerConfig
from dragoman.decoding.sizes import check_shapes
from dragoman.errors import DragomanError
from dragoman.models import seq2seq
from dragoman.models.positions import POSITIONS
from dragoman.models.seq2seq import build_model
from dragoman.models.weights import weights_of

SIZES = {"d_model": 8, "num_heads": 2}
CONFIGS = [RNNConfig(**SIZES), RNNConfig(cell="gru", attention="general", **SIZES)]
CONFIGS += [TransformerConfig(d_ff=8, positions=name, **SIZES) for name in POSITIONS]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: getattr(c, "positions", c.name))
def test_weights_that_fit_pass_and_a_model_without_end_is_never_built(config: Any) -> None:
    tensors = weights_of(build_model(config, 9, 9, seed=1))
    before = torch.random.get_rng_state()
    check_shapes(config, (9, 9), tensors, Path("here"))
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(DragomanError, match=r"here: not the weights of this model: .* is \(9, "):
        check_shapes(config, (10**7, 10**7), tensors, Path("here"))
    wide = dataclasses.replace(config, d_model=60_000, encoder_layers=20)
    with pytest.raises(DragomanError, match="here: not the weights of this model: missing"):
        check_shapes(wide, (9, 9), tensors, Path("here"))


def test_a_model_that_looks_at_its_numbers_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looking(nn.Linear):
        def __init__(self, *_: Any) -> None:
            super().__init__(2, 2)
            assert self.weight.abs().max().item() >= 0

    monkeypatch.setitem(seq2seq.MODELS, "rnn", Looking)
    check_shapes(RNNConfig(), (9, 9), {}, Path("here"))
