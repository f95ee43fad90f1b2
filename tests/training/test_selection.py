"""Which validation is the best, and which checkpoints the final average takes."""

from __future__ import annotations

import pytest

from dragoman.config import TrainConfig
from dragoman.training.checkpoint import TrainState
from dragoman.training.selection import averaged_steps, judge, needed_steps, note, score_of
from dragoman.training.validation import Figures


def figures(loss: float, bleu: float) -> Figures:
    return Figures(loss=loss, perplexity=2.0, accuracy=0.5, bleu=bleu)


@pytest.mark.parametrize(("metric", "expected"), [("bleu", 30.0), ("loss", -2.0)])
def test_more_bleu_and_less_loss_are_better(metric: str, expected: float) -> None:
    assert score_of(figures(2.0, 30.0), TrainConfig(metric=metric)) == expected


def test_the_first_of_two_equal_validations_stays_the_best() -> None:
    state, train = TrainState(step=2), TrainConfig()
    assert judge(state, figures(2.0, 30.0), train)
    state.step = 4
    assert not judge(state, figures(2.0, 30.0), train)
    assert (state.best_step, state.best_score) == (2, 30.0)


def test_patience_counts_the_validations_that_are_due() -> None:
    state, train = TrainState(), TrainConfig(validate_every=2)
    seen = []
    for step, bleu in ((2, 30.0), (4, 29.0), (6, 29.5), (7, 20.0), (8, 31.0)):
        state.step = step
        note(state, figures(2.0, bleu), train)
        seen.append(state.stale)
    assert seen == [0, 1, 2, 2, 0]  # step 7 was the last of a shorter run
    assert state.scores == {"2": 30.0, "4": 29.0, "6": 29.5, "7": 20.0, "8": 31.0}


def test_a_plateau_cuts_the_rate() -> None:
    train = TrainConfig(schedule="plateau", plateau_patience=1, validate_every=1)
    state = TrainState()
    for step, bleu in enumerate((30.0, 29.0, 29.0, 29.0), 1):
        state.step = step
        note(state, figures(2.0, bleu), train)
    assert state.plateau.cuts == 1


def test_the_last_checkpoints_are_averaged() -> None:
    train = TrainConfig(checkpoint_every=4, max_steps=14, average_last=3)
    assert averaged_steps(TrainState(), [2, 4, 8, 12, 13, 14], train) == [8, 12, 14]


def test_nothing_is_averaged_unless_asked_for() -> None:
    assert averaged_steps(TrainState(), [4, 8], TrainConfig(checkpoint_every=4)) == []


def test_checkpoints_that_a_signal_left_are_not_averaged() -> None:
    train = TrainConfig(average_best=2, checkpoint_every=4, validate_every=4)
    state = TrainState()
    state.scores = {"4": -4.0, "5": -2.0, "8": -2.7, "12": -3.0}
    assert averaged_steps(state, [2, 4, 5, 8, 12], train) == [8, 12]


@pytest.mark.parametrize("schedule", ["plateau", "constant"])
def test_a_run_that_was_made_longer_decides_as_one_that_was_long_at_once(schedule: str) -> None:
    """Step 14, where the shorter one ended, was its best, and its average was better still."""
    scores = {4: 30.0, 8: 32.0, 12: 31.0, 14: 33.0, 16: 31.5, 20: 32.5}
    ends = []
    for stops in ((20,), (14, 20)):
        state, saved = TrainState(), set[int]()
        for length in stops:
            train = TrainConfig(
                max_steps=length, validate_every=4, checkpoint_every=4, average_best=2,
                schedule=schedule, plateau_patience=1,
            )  # fmt: skip
            for step in range(state.step + 1, length + 1):
                if step % 4 == 0 or step == length:
                    state.step = step
                    note(state, figures(2.0, scores[step]), train)
                    saved = needed_steps(state, sorted({*saved, step}), train)
            taken = averaged_steps(state, sorted(saved), train)
            judge(state, figures(2.0, 34.0), train)
        ends.append((taken, state.stale, state.plateau))
    assert ends[0] == ends[1]
    assert ends[0][0] == [20, 8]
