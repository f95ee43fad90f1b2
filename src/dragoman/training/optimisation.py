"""Optimisers, gradient clipping and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dragoman.config import TrainConfig
from dragoman.errors import DragomanError
from dragoman.models.weights import Tensors, read_tensors, weights_of


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    """Decay matrices, not biases and norms (Loshchilov and Hutter 2019 leave this open)."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


def _adam(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(
        _groups(model, config),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def _sgd(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(_groups(model, config), lr=config.lr, momentum=config.momentum)


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainConfig], torch.optim.Optimizer]] = {
    "adam": _adam,
    "adamw": _adam,
    "sgd": _sgd,
}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the optimiser's state as named tensors: ``<parameter>/<slot>``."""
    return {
        f"{name}/{slot}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Put back what ``optimizer_tensors`` gave.

    Raises:
        DragomanError: if the file does not fit the model.
    """
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read_tensors(path).items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(name, {})[slot] = tensor
    parameters = dict(model.named_parameters())
    usual = {slot for state in slots.values() for slot in state}
    for name, parameter in parameters.items():
        state = slots.get(name, {})
        # Every parameter has the same slots, of its own shape but for scalars such as the step.
        if state.keys() != usual or any(
            t.shape not in (parameter.shape, ()) for t in state.values()
        ):
            raise DragomanError(f"{path}: not the optimiser of this model: {name} does not fit")
    for name, state in slots.items():
        if name not in parameters:
            raise DragomanError(f"{path}: not the optimiser of this model: unexpected {name}")
        device = parameters[name].device
        optimizer.state[parameters[name]] = {
            slot: value.clone().to(device) for slot, value in state.items()
        }


def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """Scale the gradients down to a norm of ``largest`` (0: not at all); return the norm before.

    Pascanu et al. 2013, algorithm 1.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if largest and float(norm) > largest:  # most often it is not: that spares a pass over all
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), largest, norm)
    return norm


class MovingAverage:
    """Exponential moving average of the weights (Polyak and Juditsky 1992).

    It starts at the first update, and its decay grows with the step, so that early noise fades.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.tensors = {name: tensor.clone() for name, tensor in weights_of(model).items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the model's weights after update number ``step``."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        own = list(self.tensors.values())
        torch._foreach_lerp_(own, list(weights_of(self.model).values()), rate)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


def average(files: list[Path]) -> Tensors:
    """Return the mean of the weights in several files (Vaswani et al. 2017, section 6.1)."""
    total: dict[str, Tensor] = {}
    for path in files:
        for name, tensor in read_tensors(path).items():
            before = total.get(name)
            total[name] = tensor.double() if before is None else before + tensor
    return {name: (tensor / len(files)).float() for name, tensor in total.items()}
