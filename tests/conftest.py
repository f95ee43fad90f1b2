"""What every test may use: one thread, and tiny batches (models are made by ``tiny``)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch
from hydra.core.config_store import ConfigStore

import tiny
from dragoman import config, plugins
from dragoman.data.batching import Batch

# One thread: tiny tensors gain nothing from two, and pytest-xdist may run several processes.
torch.set_num_threads(1)
# Under nohup it would be ignored, here and in every process that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Let every test see the same draws, whichever tests ran before it."""
    torch.manual_seed(20)


@pytest.fixture
def fresh_tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave every table of parts as it was, whatever a plug-in registers."""
    monkeypatch.setenv(plugins.NAMED, "")
    before = {kind: dict(plugins.table(kind)) for kind in plugins.TABLES}
    origins, loaded, models = dict(plugins.ORIGINS), set(plugins._loaded), set(config.MODELS)
    yield
    for kind, entries in before.items():
        there = plugins.table(kind)
        for name in set(there) - set(entries):
            del there[name]
    plugins.ORIGINS.clear()
    plugins.ORIGINS.update(origins)
    plugins._loaded.clear()
    plugins._loaded.update(loaded)
    for name in set(config.MODELS) - models:
        del config.MODELS[name]
        ConfigStore.instance().repo["model"].pop(f"{name}.yaml")


@pytest.fixture
def batch() -> Batch:
    """Four sentence pairs of different lengths, none sorted, ids below ``tiny.VOCAB``."""
    return tiny.batch([4, 7, 1, 5], [3, 5, 2, 6])
