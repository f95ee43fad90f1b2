"""Which weights are best: what validations are compared by, what the final average takes."""

from __future__ import annotations

from dataclasses import replace

from dragoman.config import TrainConfig
from dragoman.training.checkpoint import TrainState
from dragoman.training.validation import Figures


def score_of(figures: Figures, train: TrainConfig) -> float:
    """Return what is compared: the higher the better."""
    return -figures.loss if train.metric == "loss" else float(getattr(figures, train.metric))


def judge(state: TrainState, figures: Figures, train: TrainConfig) -> bool:
    """Remember the best validation so far; return whether this is it."""
    score = score_of(figures, train)
    improved = state.best_score is None or score > state.best_score
    if improved:
        state.best_score, state.best_step = score, state.step
    return improved


def note(state: TrainState, figures: Figures, train: TrainConfig) -> None:
    """Take a validation during training into the state: what patience and a plateau go by.

    They go by the validations that are due and by nothing that is only scored because a run ends,
    so that one that is made longer does what it would have done at once.
    """
    judge(state, figures, train)
    score = score_of(figures, train)
    before = [s for step, s in state.scores.items() if int(step) % train.validate_every == 0]
    state.scores[str(state.step)] = score
    if state.step % train.validate_every == 0:
        improved = all(score > earlier for earlier in before)
        state.stale = 0 if improved else state.stale + 1
        state.plateau.update(train, improved)


def averaged_steps(state: TrainState, steps: list[int], train: TrainConfig) -> list[int]:
    """Return the steps whose weights the final average takes: the last or the best.

    Of the checkpoints ``steps`` only those count that every run of this length has, not one that a
    signal left behind.
    """
    due = [s for s in steps if s % train.checkpoint_every == 0 or s == train.max_steps]
    if not train.average_best:
        return due[-train.average_last :] if train.average_last else []
    scored = [step for step in due if str(step) in state.scores]
    return sorted(scored, key=lambda step: -state.scores[str(step)])[: train.average_best]


def needed_steps(state: TrainState, steps: list[int], train: TrainConfig) -> set[int]:
    """Return the steps whose weights the final average may take, should the run be made longer."""
    longer = replace(train, max_steps=state.step + 1)
    return {*averaged_steps(state, steps, train), *averaged_steps(state, steps, longer)}
