"""Optimisers, gradient clipping and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.config import TrainConfig
from dragoman.errors import DragomanError
from dragoman.models.weights import Tensors, read_tensors, weights_of


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Decay matrices, not biases and norms (Loshchilov and Hutter 2019 leave this open)."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    decayed = {"params": matrices, "weight_decay": config.weight_decay}
    return [decayed, {"params": others, "weight_decay": 0.0}]


def _adams(c: TrainConfig) -> dict[str, Any]:
    return {"lr": c.lr, "betas": (c.beta1, c.beta2), "eps": c.eps, "fused": True}


# Layers whose matrices map states to states.
LAYERS = (nn.Linear, nn.RNNBase, nn.RNNCellBase)
# The quintic of Jordan et al. 2024: five rounds bring a singular value of 0.001 near 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
# Numbers that go through the rounds together on a CPU: they stay in its cache.
TOGETHER = 1 << 19


def orthogonal(x_BMN: Tensor, rounds: int = 5) -> Tensor:
    """Return matrices (B, M, N), M <= N, with their singular values moved to about 1.

    Newton-Schulz iteration, the polar factor U V^T of U S V^T without a decomposition (Jordan et
    al. 2024): products alone, and as good as exact for what an update needs.
    """
    a, b, c = QUINTIC
    few = len(x_BMN) if x_BMN.is_cuda else max(1, TOGETHER // x_BMN[0].numel())
    done = []
    for part in x_BMN.split(few):
        x = part / (part.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(rounds):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        done.append(x)
    return torch.cat(done)


class Muon(torch.optim.AdamW):
    """Momentum whose update is made orthogonal, for hidden matrices (Jordan et al. 2024).

    Groups with a ``scale`` are moved so, all others by AdamW. The update is as large as Adam's
    usually is, 0.2 a weight, so that one learning rate can serve both (Liu et al. 2025, section
    2.2); the group's ``scale`` multiplies it.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Do one update."""
        every = self.param_groups
        for group in every:
            if "scale" in group:
                self._move(group)
        self.param_groups = [group for group in every if "scale" not in group]
        try:
            super().step(closure)
        finally:
            self.param_groups = every

    def _move(self, group: dict[str, Any]) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = [p.grad for p in parameters]
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["scale"] * group["weight_decay"])
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p, update in zip(parameters, ahead, strict=True):
            for part in zip(blocks(p), blocks(update), strict=True):
                alike.setdefault(part[0].shape, []).append(part)
        for shape, parts in alike.items():
            moves = orthogonal(torch.stack([update for _, update in parts]))
            size = 0.2 * math.sqrt(max(shape)) * group["scale"] * group["lr"]
            torch._foreach_add_([p for p, _ in parts], list(moves), alpha=-size)


def blocks(matrix: Tensor) -> list[Tensor]:
    """Return views of the squares that a matrix is made of, else of all of it, lying on its side.

    Queries, keys and values are squares that happen to be stored as one matrix; and squares are
    the cheapest to make orthogonal.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    rows, columns = wide.shape
    return list(wide.split(rows, 1)) if columns % rows == 0 else [wide]


def _muon(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    matrices, others = _groups(model, config)
    layers = [m for m in model.modules() if isinstance(m, LAYERS) and m is not model.output]
    weights = {id(p): p for m in layers for p in m.parameters(recurse=False) if p.ndim == 2}
    tables = [p for p in matrices["params"] if id(p) not in weights]
    scale = 1.0 if config.muon_lr is None else config.muon_lr / config.lr
    hidden = {"params": list(weights.values()), "momentum": config.muon_momentum, "scale": scale}
    return Muon([{**matrices, **hidden}, {**matrices, "params": tables}, others], **_adams(config))


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainConfig], torch.optim.Optimizer]] = {
    "adam": lambda model, c: torch.optim.Adam(_groups(model, c), **_adams(c)),
    "adamw": lambda model, c: torch.optim.AdamW(_groups(model, c), **_adams(c)),
    "muon": _muon,
    "sgd": lambda model, c: torch.optim.SGD(_groups(model, c), lr=c.lr, momentum=c.momentum),
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
    if strange := slots.keys() - parameters.keys():
        raise DragomanError(f"{path}: not the optimiser of this model: unexpected {min(strange)}")
    moved = {id(p) for group in optimizer.param_groups if "scale" in group for p in group["params"]}
    usual: dict[bool, set[str]] = {True: set(), False: set()}
    for name, state in slots.items():
        usual[id(parameters[name]) in moved] |= state.keys()
    for name, parameter in parameters.items():
        state = slots.get(name, {})
        # All of a kind have the same slots, of their own shape but for scalars such as the step.
        if state.keys() != usual[id(parameter) in moved] or any(
            t.shape not in (parameter.shape, ()) for t in state.values()
        ):
            raise DragomanError(f"{path}: not the optimiser of this model: {name} does not fit")
        if state:
            optimizer.state[parameter] = {
                slot: value.clone().to(parameter.device) for slot, value in state.items()
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
        self.decay = decay
        weights = weights_of(model)  # views: an optimiser moves what they show
        self.tensors = {name: tensor.clone() for name, tensor in weights.items()}
        self._pairs = list(self.tensors.values()), list(weights.values())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the model's weights after update number ``step``."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._pairs, rate)

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
