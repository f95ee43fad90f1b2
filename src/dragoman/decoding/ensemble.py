"""One or several models as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dragoman.models.seq2seq import Seq2Seq

# One Memory and one State per model; tuples, so that ``reorder`` serves them too.
Memories = tuple[Any, ...]
States = tuple[Any, ...]


class Ensemble:
    """Models that share a target vocabulary, with one memory and one state each."""

    def __init__(self, models: Sequence[Seq2Seq]) -> None:
        self.models = tuple(models)

    def encode(self, src_BS: Tensor, src_lengths_B: Tensor) -> Memories:
        """Return every model's memory."""
        return tuple(model.encode(src_BS, src_lengths_B) for model in self.models)

    def init_state(self, memories: Memories) -> States:
        """Return every model's first state."""
        return tuple(
            model.init_state(memory) for model, memory in zip(self.models, memories, strict=True)
        )

    def step(self, token_B: Tensor, states: States, memories: Memories) -> tuple[Tensor, States]:
        """Feed one token per row; return log-probabilities (B, V) of the next and the states."""
        log_probs, after = [], []
        for model, state, memory in zip(self.models, states, memories, strict=True):
            logits, state = model.decode_step(token_B, state, memory)
            log_probs.append(logits.log_softmax(-1))
            after.append(state)
        return mean_log_prob(log_probs), tuple(after)


def mean_log_prob(log_probs: Sequence[Tensor]) -> Tensor:
    """Return the log of the mean probability."""
    if len(log_probs) == 1:
        return log_probs[0]
    return torch.logsumexp(torch.stack(list(log_probs)), 0) - math.log(len(log_probs))
