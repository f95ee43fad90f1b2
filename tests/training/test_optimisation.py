"""Optimisers, clipping, moving and other averages."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from dragoman.config import TrainConfig
from dragoman.errors import DragomanError
from dragoman.models.weights import weights_of, write_tensors
from dragoman.training.optimisation import (
    OPTIMIZERS,
    MovingAverage,
    average,
    clip_gradients,
    load_optimizer,
    optimizer_tensors,
)


def train(**changes: Any) -> TrainConfig:
    return dataclasses.replace(TrainConfig(lr=0.01), **changes)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    "config",
    [train(optimizer=name) for name in OPTIMIZERS] + [train(optimizer="sgd", momentum=0.9)],
    ids=[*OPTIMIZERS, "momentum"],
)
def test_optimizer_tensors_round_trip(config: TrainConfig, tmp_path: Path) -> None:
    """Going on from a file gives the same weights, to the bit, as never having stopped."""
    model = tiny.build(tiny.transformer(), dtype=torch.float32)
    optimizer = OPTIMIZERS[config.optimizer](model, config)
    for seed in range(3):
        step(model, optimizer, seed)
    write_tensors(tmp_path / "o.safetensors", optimizer_tensors(model, optimizer))
    other = copy.deepcopy(model)
    fresh = OPTIMIZERS[config.optimizer](other, config)
    load_optimizer(other, fresh, tmp_path / "o.safetensors")
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(other, fresh, seed)
    for name, tensor in weights_of(model).items():
        assert torch.equal(tensor, weights_of(other)[name]), name


@pytest.mark.parametrize("harm", ["missing", "unexpected", "misshapen", "half"])
def test_a_foreign_optimizer_file_is_refused(harm: str, tmp_path: Path) -> None:
    model = tiny.build(tiny.rnn(), dtype=torch.float32)
    optimizer = OPTIMIZERS["adamw"](model, train())
    step(model, optimizer, 0)
    tensors = optimizer_tensors(model, optimizer)
    name = "output.weight"
    if harm == "missing":
        tensors = {key: value for key, value in tensors.items() if not key.startswith(name)}
    elif harm == "unexpected":
        tensors |= {key.replace(name, "x"): t.clone() for key, t in tensors.items() if name in key}
    elif harm == "misshapen":
        tensors[f"{name}/exp_avg"] = torch.zeros(2, 2)
    else:
        del tensors[f"{name}/exp_avg_sq"]
    path = tmp_path / "optimizer.safetensors"
    write_tensors(path, tensors)
    with pytest.raises(DragomanError, match="not the optimiser of this model"):
        load_optimizer(model, OPTIMIZERS["adamw"](model, train()), path)


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    before = copy.deepcopy(model)
    optimizer = OPTIMIZERS["adamw"](model, train(weight_decay=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    pairs = zip(model.named_parameters(), before.parameters(), strict=True)
    shrunk = {name: not torch.equal(new, old) for (name, new), old in pairs}
    assert shrunk == {"0.weight": True, "0.bias": False, "1.weight": False, "1.bias": False}
    torch.testing.assert_close(model[0].weight, before[0].weight * (1 - 0.01 * 0.5))


def gradients(model: nn.Module, *values: list[float]) -> None:
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.grad = torch.tensor(value).view_as(parameter)


def test_clipping_scales_the_norm_of_all_gradients_together() -> None:
    model = nn.Linear(2, 1)
    gradients(model, [3.0, 0.0], [4.0])
    assert float(clip_gradients(model, 1.0)) == pytest.approx(5.0)
    assert model.weight.grad is not None
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.0]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.bias.grad, torch.tensor([0.8]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("largest", [0.0, 5.5])
def test_gradients_that_are_small_enough_or_unlimited_stay(largest: float) -> None:
    model = nn.Linear(2, 1)
    gradients(model, [3.0, 0.0], [4.0])
    assert float(clip_gradients(model, largest)) == pytest.approx(5.0)
    torch.testing.assert_close(model.weight.grad, torch.tensor([[3.0, 0.0]]))


def test_a_gradient_that_is_no_number_shows_in_the_norm() -> None:
    model = nn.Linear(2, 1)
    gradients(model, [float("nan"), 0.0], [4.0])
    assert not torch.isfinite(clip_gradients(model, 1.0))


def test_moving_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    moving = MovingAverage(model, decay=0.25)
    nn.init.constant_(model.weight, 3.0)
    moving.update(1)  # decay min(0.25, 2 / 11) = 2 / 11
    first = 2 / 11 * 1 + 9 / 11 * 3
    assert float(moving.tensors["weight"]) == pytest.approx(first)
    moving.update(50)  # decay min(0.25, 51 / 60)
    assert float(moving.tensors["weight"]) == pytest.approx(0.25 * first + 0.75 * 3)
    assert float(model.weight.detach()) == 3.0


def test_moving_average_goes_on_from_saved_tensors() -> None:
    model = tiny.build(tiny.rnn())
    one, other = MovingAverage(model, 0.9), MovingAverage(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    one.update(5)
    other.load({name: tensor.clone() for name, tensor in one.tensors.items()})
    for moving in (one, other):
        moving.update(6)
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_average_of_files_is_the_mean(tmp_path: Path) -> None:
    drawn = [{"w": torch.randn(3, 2), "b": torch.randn(2)} for _ in range(3)]
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for path, tensors in zip(files, drawn, strict=True):
        write_tensors(path, tensors)
    found = average(files)
    for name in ("w", "b"):
        expected = torch.stack([tensors[name] for tensors in drawn]).double().mean(0).float()
        assert torch.equal(found[name], expected)
        assert found[name].dtype == torch.float32
