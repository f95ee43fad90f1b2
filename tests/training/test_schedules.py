"""Learning rates and teacher-forcing ratios at points worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest

from dragoman.config import TrainConfig
from dragoman.training.schedules import (
    SCHEDULES,
    TEACHER_FORCING,
    Plateau,
    learning_rate,
    teacher_forcing_ratio,
)


def train(**changes: Any) -> TrainConfig:
    base = TrainConfig(lr=0.8, warmup_steps=10, schedule_steps=110, min_lr=0.0)
    return dataclasses.replace(base, **changes)


def rate(config: TrainConfig, step: int, cuts: int = 0) -> float:
    return learning_rate(config, step, Plateau(cuts=cuts))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_a_straight_line_to_the_peak(schedule: str) -> None:
    config = train(schedule=schedule)
    assert rate(config, 1) == pytest.approx(0.08)
    assert rate(config, 5) == pytest.approx(0.4)
    assert rate(config, 10) == pytest.approx(0.8)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warm_up_the_first_step_is_near_the_peak(schedule: str) -> None:
    assert 0.79 < rate(train(schedule=schedule, warmup_steps=0), 1) <= 0.8


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("linear", 60, 0.4),  # half of 100 steps of decay
        ("linear", 85, 0.2),
        ("linear", 110, 0.0),
        ("linear", 500, 0.0),
        ("cosine", 35, 0.4 * (1 + math.sqrt(0.5))),  # a quarter: cos(pi / 4)
        ("cosine", 60, 0.4),
        ("cosine", 110, 0.0),
        ("cosine", 500, 0.0),
        ("inverse_sqrt", 40, 0.4),  # 0.8 * sqrt(10 / 40)
        ("inverse_sqrt", 1000, 0.08),
        ("constant", 10_000, 0.8),
        ("plateau", 10_000, 0.8),
    ],
)
def test_after_warm_up(schedule: str, step: int, expected: float) -> None:
    assert rate(train(schedule=schedule), step) == pytest.approx(expected, abs=1e-12)


def test_inverse_sqrt_is_the_papers_formula_up_to_a_factor() -> None:
    # Vaswani et al. 2017, equation 3: d_model^-0.5 * min(step^-0.5, step * warmup^-1.5)
    config = train(schedule="inverse_sqrt", warmup_steps=400)
    factor = 0.8 / 400**-0.5
    for step in (1, 100, 399, 400, 401, 5000):
        paper = min(step**-0.5, step * 400**-1.5)
        assert rate(config, step) == pytest.approx(factor * paper)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decays_end_at_min_lr(schedule: str) -> None:
    config = train(schedule=schedule, min_lr=0.2)
    assert rate(config, 60) == pytest.approx(0.5)  # halfway between 0.8 and 0.2
    assert rate(config, 110) == pytest.approx(0.2)
    assert rate(config, 9999) == pytest.approx(0.2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_longer_run_does_not_change_the_steps_already_taken(schedule: str) -> None:
    short, long = (train(schedule=schedule, max_steps=steps) for steps in (20, 2000))
    assert [rate(short, s) for s in range(1, 21)] == [rate(long, s) for s in range(1, 21)]


def test_plateau_cuts_after_more_than_patience_validations_without_gain() -> None:
    config, plateau = train(schedule="plateau", plateau_patience=1, plateau_factor=0.5), Plateau()
    rates = []
    for improved in (True, False, False, True, False, False, False, False):
        plateau.update(config, improved)
        rates.append(learning_rate(config, 50, plateau))
    assert rates == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.1])


def test_plateau_never_falls_below_min_lr() -> None:
    assert rate(train(schedule="plateau", min_lr=0.3), 50, cuts=9) == pytest.approx(0.3)


def test_only_plateau_listens_to_validation() -> None:
    plateau = Plateau()
    for _ in range(20):
        plateau.update(train(schedule="linear"), improved=False)
    assert plateau.cuts == 0


def forcing(schedule: str) -> TrainConfig:
    return train(
        teacher_forcing=0.9,
        teacher_forcing_end=0.1,
        teacher_forcing_steps=100,
        teacher_forcing_schedule=schedule,
    )


def test_constant_teacher_forcing_has_no_end() -> None:
    config = forcing("constant")
    assert {teacher_forcing_ratio(config, step) for step in (1, 50, 5000)} == {0.9}


@pytest.mark.parametrize(
    ("step", "ratio"), [(1, 0.9), (26, 0.7), (51, 0.5), (101, 0.1), (999, 0.1)]
)
def test_linear_teacher_forcing(step: int, ratio: float) -> None:
    assert teacher_forcing_ratio(forcing("linear"), step) == pytest.approx(ratio)


def test_inverse_sigmoid_teacher_forcing() -> None:
    config = forcing("inverse_sigmoid")
    ratios = [teacher_forcing_ratio(config, step) for step in range(1, 120)]
    assert ratios[0] == pytest.approx(0.9)
    assert ratios[100:] == pytest.approx([0.1] * 19)
    assert all(a > b for a, b in itertools.pairwise(ratios[:101]))

    def curve(i: float) -> float:  # Bengio et al. 2015: k / (k + exp(i / k)), k = 10
        return 10 / (10 + math.exp(i / 10))

    middle = (curve(23) - curve(46)) / (curve(0) - curve(46))
    assert ratios[50] == pytest.approx(0.1 + 0.8 * middle)


@pytest.mark.parametrize("schedule", TEACHER_FORCING)
def test_teacher_forcing_stays_a_probability(schedule: str) -> None:
    config = forcing(schedule)
    assert all(0 <= teacher_forcing_ratio(config, step) <= 1 for step in range(1, 300))
