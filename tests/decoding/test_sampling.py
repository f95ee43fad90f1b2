from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import slow
import torch
from torch import Tensor

import tiny
from dragoman.config import DecodeConfig
from dragoman.data.batching import pad
from dragoman.data.ragged import ragged
from dragoman.data.tokenizers import BOS, EOS, PAD
from dragoman.decoding.search import Hypothesis, block_repeats, search, truncate

VOCAB = 8
WORDS = [0, 4, 5, 6, 7]  # what may be written, EOS aside


def run(
    model: Any, sources: list[list[int]], config: DecodeConfig, numbers: Any = None
) -> list[list[Hypothesis]]:
    table = ragged(sources)
    src, lengths = torch.from_numpy(pad(table)), torch.from_numpy(table.lengths)
    return search([model], src, lengths, config, numbers)


def slow_truncation(probabilities: list[float], top_k: int, top_p: float) -> set[int]:
    """Return the tokens kept: the likeliest, until k of them or until they weigh p."""
    kept: set[int] = set()
    for token in sorted(range(len(probabilities)), key=lambda t: -probabilities[t]):
        if sum(probabilities[t] for t in kept) >= top_p or (top_k and len(kept) == top_k):
            break
        kept.add(token)
    return kept


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.75, 0.95, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 3, 20])
def test_truncate_keeps_the_likeliest(top_k: int, top_p: float) -> None:
    log_probs = (2 * torch.randn(50, 12, dtype=torch.float64)).log_softmax(-1)
    found = truncate(log_probs, top_k, top_p)
    for row, kept in zip(log_probs, found, strict=True):
        expected = slow_truncation(row.exp().tolist(), top_k, top_p)
        assert set(kept.isfinite().nonzero()[:, 0].tolist()) == expected
        assert torch.equal(kept[kept.isfinite()], row[kept.isfinite()])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_k": 3},
        {"top_p": 0.6},
        {"top_k": 2, "top_p": 0.9},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 4},
        {"top_k": 1},
    ],
    ids=lambda changes: "-".join(f"{k}={v}" for k, v in changes.items()) or "all",
)
def test_draws_follow_the_truncated_distribution(changes: dict[str, Any]) -> None:
    model, many = slow.markov(), 4000
    config = tiny.decode(method="sample", max_length_extra=1, **changes)
    found = run(model, [[5, EOS]] * many, config)
    counts = Counter(row[0].tokens[0] if row[0].tokens else EOS for row in found)
    logits = model.logits_SVV[5, BOS] / config.temperature
    logits[[PAD, BOS]] = -math.inf
    probabilities = logits.softmax(-1).tolist()
    kept = slow_truncation(probabilities, config.top_k, config.top_p) - {PAD, BOS}
    assert set(counts) <= kept
    weight = sum(probabilities[token] for token in kept)
    chi_square = 0.0
    for token in kept:
        expected = many * probabilities[token] / weight
        chi_square += (counts[token] - expected) ** 2 / expected
    # Exceeded by chance once in 10,000 times: 23.5 for the five degrees of freedom of all six.
    limits = {1: 1e-9, 2: 15.2, 3: 18.5, 4: 21.2, 5: 23.6, 6: 25.8}
    assert chi_square < limits[len(kept)]


def test_log_probabilities_are_the_models_own() -> None:
    """Not those of the distribution after temperature and truncation."""
    model = slow.markov()
    config = tiny.decode(method="sample", nbest=3, top_k=2, temperature=0.7, length_penalty=0.0)
    log_probs = model.logits_SVV.log_softmax(-1)
    for number, row in enumerate(run(model, [[n, EOS] for n in range(12)], config)):
        for hypothesis in row:
            path = [BOS, *hypothesis.tokens, EOS]
            total = sum(log_probs[number, a, b].item() for a, b in pairwise(path))
            assert hypothesis.log_prob == pytest.approx(total, abs=1e-10)
            assert hypothesis.score == hypothesis.log_prob


def test_draws_follow_from_seed_sentence_and_sample_alone() -> None:
    model = slow.markov()
    model.logits_SVV[:, :, EOS] -= 2
    config = tiny.decode(method="sample", nbest=4, max_length_extra=10)
    sources = [[5, EOS]] * 30
    numbers = list(range(100, 130))
    whole = run(model, sources, config, numbers)
    # Alone, in another order, with another number of samples beside it.
    for place in (0, 17, 29):
        (alone,) = run(model, [[5, EOS]], config, [numbers[place]])
        assert alone == whole[place]
    backwards = run(model, sources, config, numbers[::-1])
    assert backwards == whole[::-1]
    fewer = run(model, sources, tiny.decode(method="sample", nbest=2, max_length_extra=10), numbers)
    for few, many in zip(fewer, whole, strict=True):
        assert {tuple(h.tokens) for h in few} <= {tuple(h.tokens) for h in many}
    # Other sentences, samples and seeds draw otherwise.
    assert len({tuple(h.tokens) for row in whole for h in row}) > 60
    other = run(
        model, sources, tiny.decode(method="sample", nbest=4, max_length_extra=10, seed=2), numbers
    )
    assert sum(a == b for a, b in zip(other, whole, strict=True)) < 3


def test_without_numbers_sentences_are_numbered_from_zero() -> None:
    config = tiny.decode(method="sample")
    sources = [[n, EOS] for n in range(12)]
    assert run(slow.markov(), sources, config) == run(slow.markov(), sources, config, range(12))


def test_the_global_generators_are_left_alone() -> None:
    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    run(slow.markov(), [[5, EOS]] * 4, tiny.decode(method="sample"))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # type: ignore[index]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_block_repeats_forbids_what_would_complete_an_ngram(size: int) -> None:
    history = torch.randint(4, 7, (40, 6))
    log_probs: Tensor = torch.zeros(40, VOCAB)
    block_repeats(log_probs, history, size)
    for row, found in zip(history.tolist(), log_probs, strict=True):
        grams = {tuple(row[i : i + size]) for i in range(len(row) - size + 1)}
        tail = row[len(row) - size + 1 :]
        expected = {t for t in range(VOCAB) if (*tail, t) in grams}
        assert set((found == -math.inf).nonzero()[:, 0].tolist()) == expected
