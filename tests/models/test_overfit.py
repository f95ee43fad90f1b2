"""Every model, attention and position encoding learns one batch by heart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import tiny
from dragoman.models.attention import SCORES
from dragoman.models.positions import POSITIONS
from dragoman.models.seq2seq import build_model, count_parameters

STEPS = 150


def cases() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, (score, position) in enumerate((s, p) for s in SCORES for p in POSITIONS):
        found[f"transformer-{score}-{position}"] = tiny.transformer(
            attention=score,
            positions=position,
            norm=("pre", "post")[(number + number // len(POSITIONS)) % 2],
            d_model=16,
            d_ff=32,
            encoder_layers=1,
            decoder_layers=1,
            max_positions=16,
        )
    for activation in ("gelu", "swiglu"):
        found[f"transformer-{activation}"] = tiny.transformer(activation=activation, d_model=16)
    for score in (*SCORES, "none"):
        for wiring in ("luong", "bahdanau"):
            for cell in ("lstm", "gru"):
                found[f"rnn-{score}-{wiring}-{cell}"] = tiny.rnn(
                    attention=score, wiring=wiring, cell=cell, d_embed=16, d_model=16
                )
    for name, changes in {
        "concat": {"readout": "concat"},
        "zeros": {"bridge": "zeros"},
        "copy": {"bridge": "copy", "encoder_layers": 2, "decoder_layers": 2},
        "no-input-feeding": {"input_feeding": False},
        "tied": {"tie_embeddings": "three_way"},
    }.items():
        found[f"rnn-{name}"] = tiny.rnn(**{"d_embed": 16, "d_model": 16, **changes})
    return found


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_one_batch_is_learnt_by_heart(name: str) -> None:
    model = build_model(CASES[name], tiny.VOCAB, tiny.VOCAB, seed=1).train()
    assert count_parameters(model) <= 50_000
    batch = tiny.batch([3, 5, 4], [4, 3, 5])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(STEPS):
        loss = F.cross_entropy(model.project(model(batch)), batch.targets_N)
        losses.append(loss.item())
        if losses[-1] < 0.1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 1
    assert losses[-1] < 0.1
