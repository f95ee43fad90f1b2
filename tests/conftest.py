"""What every test may use: one thread, and tiny batches (models are made by ``tiny``)."""

from __future__ import annotations

import pytest
import torch

import tiny
from dragoman.data.batching import Batch

# One thread: tiny tensors gain nothing from two, and pytest-xdist may run several processes.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Let every test see the same draws, whichever tests ran before it."""
    torch.manual_seed(20)


@pytest.fixture
def batch() -> Batch:
    """Four sentence pairs of different lengths, none sorted, ids below ``tiny.VOCAB``."""
    return tiny.batch([4, 7, 1, 5], [3, 5, 2, 6])
