"""A GPU computes what a CPU does: gradients in every precision, searches, runs that go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
import tinyruns
from dragoman.data.batching import pad
from dragoman.data.ragged import ragged
from dragoman.decoding.search import search
from dragoman.models.weights import read_tensors
from dragoman.runs import read_state
from dragoman.training.loop import train

pytestmark = pytest.mark.gpu

MODELS = {
    "transformer": tinyruns.TRANSFORMER,
    "lstm": {**tinyruns.RNN, "model.cell": "lstm", "model.attention": "scaled_dot"},
    "gru": {**tinyruns.RNN, "model.cell": "gru", "model.attention": "additive"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tinyruns.write_pairs(folder / "text")
    return folder


def gradients(
    home: Path, folder: Path, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> dict[str, Tensor]:
    """Return the gradients of the first step, on the CPU."""
    steps = tinyruns.captured(monkeypatch)
    made = tinyruns.trainer(home, folder, {**model, "model.dropout": 0.0}, **changes)
    made.step(made.stream.take(1))
    return {name: gradient.double().cpu() for name, gradient in steps[0].items()}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_those_of_a_cpu(
    model: str,
    fast: bool,
    precision: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    least = {"float32": 0.9999, "tf32": 0.995, "bf16": 0.9}[precision]
    there = {"device": "cuda:0", "train__precision": precision, "train__fast": fast}
    expected = gradients(home, tmp_path / "cpu", MODELS[model], monkeypatch)
    found = gradients(home, tmp_path / "gpu", MODELS[model], monkeypatch, **there)
    for name, gradient in expected.items():
        likeness = torch.cosine_similarity(gradient.flatten(), found[name].flatten(), 0)
        assert likeness > least or gradient.norm() < 1e-3, (name, float(likeness))


@pytest.mark.parametrize("method", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("name", tiny.FEW)
def test_searches_find_the_same(name: str, method: str) -> None:
    table = ragged(tiny.sentences([n % 9 + 1 for n in range(40)], seed=7))
    src, lengths = torch.from_numpy(pad(table)), torch.from_numpy(table.lengths)
    config = tiny.decode(method=method, beam_size=3, nbest=1, max_length_extra=8)
    model: Any = tiny.fluent(name)
    expected = search([model], src, lengths, config)
    device = torch.device("cuda")
    found = search([model.to(device)], src.to(device), lengths.to(device), config)
    for one, other in zip(found, expected, strict=True):
        assert [h.tokens for h in one] == [h.tokens for h in other]
        assert one[0].score == pytest.approx(other[0].score, abs=1e-8)


@pytest.mark.parametrize("model", MODELS)
def test_a_run_goes_on_where_it_was(model: str, home: Path, tmp_path: Path) -> None:
    """To the last bits, not to the bytes: some operators add in no fixed order there."""
    weights = []
    for name, stops in (("whole", [10]), ("parted", [4, 10])):
        for steps in stops:
            options = {"device": "cuda", "checkpoint_dir": str(tmp_path), "train__ema_decay": 0.9}
            config = tinyruns.config(
                home, MODELS[model], run_name=name, train__max_steps=steps, **options
            )
            train(config, tinyruns.run_of(config))
        last = tinyruns.run_of(config).checkpoint("last")
        assert read_state(last)["gpus"] == [torch.cuda.get_device_name()]
        weights.append(read_tensors(last / "model.safetensors"))
    for key, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][key], tensor, rtol=1e-2, atol=1e-3)
