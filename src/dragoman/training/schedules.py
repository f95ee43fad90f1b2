"""Learning rates and teacher-forcing ratios as pure functions of the step.

Steps count from 1: ``lr(1)`` is the rate of the first update. A decay reaches ``min_lr`` at step
``schedule_steps`` itself, so with ``min_lr=0`` the last update of a run of that length changes no
weight. It stays like this: another length would change the rate of every step before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from dragoman.config import TrainConfig

# What each schedule gives after warm-up: a factor of the peak rate, from the config and the step.


def inverse_sqrt(config: TrainConfig, step: int) -> float:
    """Vaswani et al. 2017, equation 3, scaled so that its peak is ``lr``."""
    return math.sqrt(max(config.warmup_steps, 1) / max(step, 1))


def cosine(config: TrainConfig, step: int) -> float:
    """Half a cosine from lr to min_lr (Loshchilov and Hutter 2017, equation 5, one cycle)."""
    floor = config.min_lr / config.lr
    return floor + (1 - floor) * (1 + math.cos(math.pi * _done(config, step))) / 2


def linear(config: TrainConfig, step: int) -> float:
    """A straight line from lr to min_lr."""
    floor = config.min_lr / config.lr
    return floor + (1 - floor) * (1 - _done(config, step))


def _done(config: TrainConfig, step: int) -> float:
    """Return the share of the decay that lies behind, 0 to 1."""
    length = max(config.schedule_steps - config.warmup_steps, 1)
    return min(max(step - config.warmup_steps, 0) / length, 1.0)


SCHEDULES: dict[str, Callable[[TrainConfig, int], float]] = {
    "inverse_sqrt": inverse_sqrt,
    "cosine": cosine,
    "linear": linear,
    "constant": lambda config, step: 1.0,
    "plateau": lambda config, step: 1.0,  # until ``Plateau`` cuts it
}


@dataclass
class Plateau:
    """The only schedule with a memory: how many times the rate was cut, and since when."""

    cuts: int = 0
    stale: int = 0

    def update(self, config: TrainConfig, improved: bool) -> None:
        """Take note of a validation."""
        self.stale = 0 if improved else self.stale + 1
        if config.schedule == "plateau" and self.stale > config.plateau_patience:
            self.cuts, self.stale = self.cuts + 1, 0


def learning_rate(config: TrainConfig, step: int, plateau: Plateau) -> float:
    """Return the rate of an update."""
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    rate = config.lr * SCHEDULES[config.schedule](config, step)
    return max(rate * config.plateau_factor**plateau.cuts, config.min_lr)


def _inverse_sigmoid(done: float) -> float:
    """Bengio et al. 2015, section 2.4: k / (k + exp(i / k)), its length set by ``done`` in 0..1.

    With k = 10 the curve starts at 0.91 and has fallen to 0.09 after i = 46; both ends are moved
    to 1 and 0, so that the ratio starts and ends where the config says.
    """
    k, span = 10.0, 46.0

    def curve(i: float) -> float:
        return k / (k + math.exp(i / k))

    return (curve(done * span) - curve(span)) / (curve(0) - curve(span))


TEACHER_FORCING: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "inverse_sigmoid": _inverse_sigmoid,
}


def teacher_forcing_ratio(config: TrainConfig, step: int) -> float:
    """Return the probability that the decoder is fed the reference token at this step."""
    if config.teacher_forcing_schedule == "constant":
        return config.teacher_forcing
    done = min((step - 1) / config.teacher_forcing_steps, 1.0)
    top, end = config.teacher_forcing, config.teacher_forcing_end
    return end + (top - end) * TEACHER_FORCING[config.teacher_forcing_schedule](done)
