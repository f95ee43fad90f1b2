from __future__ import annotations

from typing import Any

import pytest
import slow
import torch

import tiny
from dragoman.config import DecodeConfig
from dragoman.data.batching import pad
from dragoman.data.ragged import ragged
from dragoman.data.tokenizers import EOS
from dragoman.decoding.ensemble import Ensemble, mean_log_prob
from dragoman.decoding.search import search

SOURCES = tiny.sentences([3, 6, 1, 4, 2])


def run(models: list[Any], config: DecodeConfig) -> Any:
    table = ragged(SOURCES)
    return search(models, torch.from_numpy(pad(table)), torch.from_numpy(table.lengths), config)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_the_mean_is_of_probabilities(number: int) -> None:
    logs = [torch.randn(3, 7, dtype=torch.float64).log_softmax(-1) for _ in range(number)]
    expected = torch.stack([log.exp() for log in logs]).mean(0).log()
    torch.testing.assert_close(mean_log_prob(logs), expected, rtol=0, atol=1e-13)
    # The mean of the logarithms would be another one, and no distribution.
    assert mean_log_prob(logs).exp().sum(-1).tolist() == pytest.approx([1.0] * 3)


def test_improbable_tokens_do_not_underflow() -> None:
    logs = [torch.tensor([0.0, -2000.0]), torch.tensor([0.0, -3000.0])]
    assert mean_log_prob(logs)[1].item() == pytest.approx(-2000 - torch.tensor(2.0).log().item())


CONFIGS = {
    "greedy": tiny.decode(method="greedy"),
    "beam": tiny.decode(beam_size=3, nbest=3),
    "sample": tiny.decode(method="sample", nbest=2),
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", tiny.FEW)
def test_a_model_with_its_copy_is_the_model(name: str, kind: str) -> None:
    model, config = tiny.fluent(name), CONFIGS[kind]
    for one, two in zip(run([model], config), run([model, model], config), strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in two]
        for mine, other in zip(one, two, strict=True):
            assert mine.score == pytest.approx(other.score, abs=1e-12)


def test_different_models_search_together() -> None:
    models = [tiny.fluent("lstm"), tiny.fluent("transformer"), tiny.fluent("gru-bahdanau")]
    config = CONFIGS["beam"]
    found = run(models, config)
    for source, row in zip(SOURCES, found, strict=True):
        expected = slow.beam(models, source, config)
        assert [h.tokens for h in row] == [h.tokens for h in expected]
        batch = tiny.pairs([source] * len(row), [[*h.tokens, EOS] for h in row])
        forced = slow.log_probabilities(models, batch).tolist()
        assert [h.log_prob for h in row] == pytest.approx(forced, abs=1e-9)
    alone = [run([model], config) for model in models]
    assert all(found != other for other in alone), "no model decides by itself"


def test_every_model_keeps_its_own_state() -> None:
    models = [tiny.fluent("lstm"), tiny.fluent("transformer")]
    together = Ensemble(models)
    table = ragged(SOURCES)
    src, lengths = torch.from_numpy(pad(table)), torch.from_numpy(table.lengths)
    memories = together.encode(src, lengths)
    states = together.init_state(memories)
    singles = [model.init_state(memory) for model, memory in zip(models, memories, strict=True)]
    for token in (2, 5, 7):
        tokens = torch.full((len(SOURCES),), token)
        log_probs, states = together.step(tokens, states, memories)
        each = []
        for number, model in enumerate(models):
            logits, singles[number] = model.decode_step(tokens, singles[number], memories[number])
            each.append(logits.softmax(-1))
        torch.testing.assert_close(log_probs.exp(), sum(each) / 2, rtol=0, atol=1e-13)
