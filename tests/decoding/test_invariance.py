"""What a sentence's translation does not depend on: its batch, its place in it, the cache."""

from __future__ import annotations

import random
from typing import Any

import pytest
import slow
import torch

import tiny
from dragoman.config import DecodeConfig
from dragoman.data.batching import pad
from dragoman.data.ragged import ragged
from dragoman.decoding.search import Hypothesis, search

SOURCES = tiny.sentences([n % 9 + 1 for n in range(64)], seed=7)
CONFIGS = {
    "greedy": tiny.decode(method="greedy", max_length_extra=8),
    "beam": tiny.decode(beam_size=4, nbest=2, max_length_extra=8, length_penalty=0.6),
    "sample": tiny.decode(method="sample", nbest=2, max_length_extra=8, top_p=0.9),
}


def in_batches(
    models: list[Any], config: DecodeConfig, size: int, order: list[int]
) -> dict[int, list[Hypothesis]]:
    """Search the sentences in an order and in batches; return the outcome by sentence number."""
    found: dict[int, list[Hypothesis]] = {}
    for start in range(0, len(order), size):
        numbers = order[start : start + size]
        table = ragged([SOURCES[number] for number in numbers])
        src, lengths = torch.from_numpy(pad(table)), torch.from_numpy(table.lengths)
        rows = search(models, src, lengths, config, numbers)
        found |= dict(zip(numbers, rows, strict=True))
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    # The draws of sampling do not depend on the model: two of them are enough.
    [(n, k) for n in tiny.FEW for k in CONFIGS if k != "sample" or n in ("transformer", "lstm")],
)
def test_batch_size_and_order_change_nothing(name: str, kind: str) -> None:
    models, config = [tiny.fluent(name)], CONFIGS[kind]
    order = list(range(64))
    whole = in_batches(models, config, 64, order)
    assert len({tuple(row[0].tokens) for row in whole.values()}) > 8, "the source matters"
    assert len({len(row[0].tokens) for row in whole.values()}) > 3
    shuffled, by_length = order.copy(), sorted(order, key=lambda n: len(SOURCES[n]))
    random.Random(1).shuffle(shuffled)
    for size, some_order in ((1, order), (7, order), (64, shuffled), (7, by_length)):
        found = in_batches(models, config, size, some_order)
        for number in order:
            assert [h.tokens for h in found[number]] == [h.tokens for h in whole[number]]
            for one, other in zip(found[number], whole[number], strict=True):
                assert one.score == pytest.approx(other.score, abs=1e-10)


@pytest.mark.parametrize("name", tiny.FEW)
def test_cached_search_is_search_over_whole_prefixes(name: str) -> None:
    models = [tiny.fluent(name)]
    found = in_batches(models, CONFIGS["greedy"], 64, list(range(64)))
    for number in range(0, 64, 5):
        (best,) = found[number]
        assert best.tokens == slow.greedy(models, SOURCES[number], CONFIGS["greedy"])


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_same_search_twice_is_the_same(kind: str) -> None:
    order = list(range(64))
    first, second = (in_batches([tiny.fluent("lstm")], CONFIGS[kind], 64, order) for _ in range(2))
    assert first == second
