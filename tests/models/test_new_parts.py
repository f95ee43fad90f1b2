"""What is put into a table of the models works everywhere: in both models, fast and plain."""

from __future__ import annotations

from typing import Any

import pytest
import test_contract
import test_fast
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tiny
from dragoman.data.batching import Batch
from dragoman.models.attention import SCORES, ScaledDotScore, Score
from dragoman.models.positions import POSITIONS, Positions
from dragoman.models.transformer import ACTIVATIONS, NORMS, PreNorm


class CosineScore(Score):
    """The cosine of query and key, times a learned factor."""

    def __init__(self, num_heads: int, d_head: int) -> None:
        super().__init__(num_heads, d_head)
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, query_BHTA: Tensor, keys_BHSA: Tensor) -> Tensor:
        query, keys = F.normalize(query_BHTA, dim=-1), F.normalize(keys_BHSA, dim=-1)
        return self.scale * query @ keys.transpose(-2, -1)


class SoftSignScore(ScaledDotScore):
    """A child of a score with a kernel, which scores otherwise."""

    def forward(self, query_BHTA: Tensor, keys_BHSA: Tensor) -> Tensor:
        return 4 * F.softsign(super().forward(query_BHTA, keys_BHSA))


class Distance(Positions):
    """Scores fall with the distance: Press et al. 2022, with one learned slope a layer."""

    per_layer = True

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.slope = nn.Parameter(torch.tensor(0.5))

    def bias(self, query_BHTA: Tensor, offset: int, num_keys: int) -> Tensor:
        queries = torch.arange(offset, offset + query_BHTA.shape[2])[:, None]
        return -self.slope * (torch.arange(num_keys) - queries).abs()


class TwoNorms(PreNorm):
    """Pre-norm with a second norm behind the sub-layer."""

    def __init__(self, d_model: int, dropout: float) -> None:
        super().__init__(d_model, dropout)
        self.second = nn.LayerNorm(d_model)

    def leave(self, x: Tensor, out: Tensor) -> Tensor:
        return super().leave(x, self.second(out))


NEW = {
    "transformer-cosine": tiny.transformer(attention="cosine"),
    "transformer-softsign": tiny.transformer(attention="softsign", norm="post"),
    "rnn-cosine": tiny.rnn(attention="cosine", num_heads=2),
    "rnn-cosine-bahdanau": tiny.rnn(attention="cosine", wiring="bahdanau", cell="gru"),
    "rnn-softsign": tiny.rnn(attention="softsign", input_feeding=False),
    "transformer-distance": tiny.transformer(positions="distance"),
    "transformer-norms-squared": tiny.transformer(norm="two", activation="squared"),
}


@pytest.fixture(params=NEW)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put the new parts into their tables for one test; return the name of a config with them."""
    monkeypatch.setitem(SCORES, "cosine", CosineScore)
    monkeypatch.setitem(SCORES, "softsign", SoftSignScore)
    monkeypatch.setitem(POSITIONS, "distance", Distance)
    monkeypatch.setitem(NORMS, "two", TwoNorms)
    monkeypatch.setitem(ACTIVATIONS, "squared", (lambda x: F.relu(x).square(), 1))
    monkeypatch.setitem(tiny.ZOO, request.param, NEW[request.param])
    return str(request.param)


@pytest.mark.parametrize(
    "behaviour",
    [
        test_contract.test_decode_step_rolled_out_is_forward,
        test_contract.test_extra_padding_changes_nothing,
        test_contract.test_batch_mates_change_nothing,
        test_contract.test_weights_are_named_shaped_and_normalised,
        test_contract.test_a_step_gives_the_weights_of_forward,
        test_contract.test_reordered_rows_go_on_as_themselves,
        test_contract.test_gradient_reaches_every_parameter,
    ],
)
def test_it_behaves_as_the_parts_there_are(name: str, behaviour: Any, batch: Batch) -> None:
    behaviour(name, batch)


@pytest.mark.parametrize("kind", ["forced", "mixed"])
def test_the_fast_path_computes_it_too(name: str, kind: str, batch: Batch) -> None:
    test_fast.test_loss_and_gradient_are_those_of_the_plain_form(name, kind, batch)


def test_a_score_changes_what_is_computed(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child does not inherit the kernel: that would compute its parent, without a word."""
    monkeypatch.setitem(SCORES, "softsign", SoftSignScore)
    parent, child = (
        tiny.build(tiny.transformer(attention=score)) for score in ("scaled_dot", "softsign")
    )
    assert parent.state_dict().keys() == child.state_dict().keys()
    assert not torch.allclose(parent(batch), child(batch))
