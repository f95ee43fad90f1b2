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
    blocks,
    clip_gradients,
    load_optimizer,
    optimizer_tensors,
    orthogonal,
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


def test_orthogonal_turns_a_matrix_as_its_polar_factor_does() -> None:
    x = torch.randn(5, 24, 40)
    x[0] *= 1e-6  # the size of the gradient is of no account
    found = orthogonal(x)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    # In the singular vectors of x it is diagonal: no direction is mixed with another.
    inner = u.mT @ found @ v.mT
    torch.testing.assert_close(inner, torch.diag_embed(inner.diagonal(dim1=1, dim2=2)),
                               atol=1e-3, rtol=0)  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "parts"), [((4, 4), 1), ((12, 4), 3), ((4, 8), 2), ((6, 4), 1), ((4, 6), 1)]
)
def test_blocks_are_squares_where_a_matrix_is_made_of_them(
    shape: tuple[int, int], parts: int
) -> None:
    matrix = torch.zeros(shape)
    found = blocks(matrix)
    assert len(found) == parts
    for number, part in enumerate(found):
        assert part.shape[0] <= part.shape[1]
        part += number + 1  # views: the matrix itself changes
    side = min(shape)
    expected = torch.arange(parts).repeat_interleave(max(shape) // parts) + 1.0
    lying = matrix if shape[0] <= shape[1] else matrix.T
    assert torch.equal(lying, expected.expand(side, -1))


@pytest.mark.parametrize("name", tiny.FEW)
def test_muon_is_adamw_but_for_matrices_between_states(name: str) -> None:
    """Against a plain loop: momentum, Nesterov's look ahead, polar factor, decay."""
    model = tiny.build(tiny.FEW[name], dtype=torch.float32)
    others = [copy.deepcopy(model) for _ in range(2)]
    config = train(optimizer="muon", muon_lr=0.03, muon_momentum=0.8, weight_decay=0.1)
    muon = OPTIMIZERS["muon"](model, config)
    adam = OPTIMIZERS["adamw"](others[0], dataclasses.replace(config, optimizer="adamw"))
    momenta: dict[str, torch.Tensor] = {}
    plain = dict(others[1].named_parameters())
    for seed in range(2):
        torch.manual_seed(seed)
        drawn = {name: torch.randn_like(p) for name, p in plain.items()}
        for one in (model, others[0]):
            for key, parameter in one.named_parameters():
                parameter.grad = drawn[key].clone()
        muon.step()
        adam.step()
        for key, gradient in drawn.items():
            momenta[key] = 0.8 * momenta.get(key, 0.0) + 0.2 * gradient
            if gradient.ndim != 2:
                continue
            update = (0.2 * gradient + 0.8 * momenta[key]).detach()
            with torch.no_grad():
                plain[key] *= 1 - 0.03 * 0.1
                for weight, part in zip(blocks(plain[key]), blocks(update), strict=True):
                    move = orthogonal(part[None])[0]
                    weight -= 0.03 * 0.2 * max(part.shape) ** 0.5 * move
    adamw = dict(others[0].named_parameters())
    hidden = {key for key, p in model.named_parameters() if not torch.allclose(p, adamw[key])}
    tables = ("embedding", "output", "positions", "v_HA")
    matrices = {key for key, p in model.named_parameters() if p.ndim == 2}
    assert hidden == {key for key in matrices if not any(word in key for word in tables)}
    for key, parameter in model.named_parameters():
        expected = plain[key] if key in hidden else adamw[key]
        torch.testing.assert_close(parameter, expected, atol=1e-5, rtol=1e-4)


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
