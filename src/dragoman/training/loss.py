"""Label-smoothed cross-entropy, summed; the caller divides by the step's number of tokens.

Shapes: N real target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dragoman.models.seq2seq import Seq2Seq

# Rows whose logits are held at a time: the widest tensors of a step are (CHUNK, V).
CHUNK = 4096


class Loss(NamedTuple):
    """Sums over target tokens: what is minimised, the plain negative log-likelihood, and hits."""

    smoothed: Tensor
    nll: Tensor
    correct: Tensor


def smoothed_nll(logits_NV: Tensor, targets_N: Tensor, smoothing: float) -> Loss:
    """Return (1 - e) * nll + e * mean over V of -log p, summed (Szegedy et al. 2016, section 7).

    Equal to ``F.cross_entropy(label_smoothing=e, reduction="sum")``; the unsmoothed part comes out
    of the same log-softmax, so that perplexity costs nothing.
    """
    log_probs = logits_NV.float() if logits_NV.dtype == torch.bfloat16 else logits_NV
    log_probs = log_probs.log_softmax(-1)
    nll = -log_probs.gather(1, targets_N[:, None]).sum()
    smoothed = nll
    if smoothing:
        smoothed = (1 - smoothing) * nll - smoothing / log_probs.shape[1] * log_probs.sum()
    with torch.no_grad():
        correct = (log_probs.argmax(-1) == targets_N).sum()
    return Loss(smoothed, nll.detach(), correct)


def sequence_loss(model: Seq2Seq, states_ND: Tensor, targets_N: Tensor, smoothing: float) -> Loss:
    """Return the summed loss of decoder states at the real target positions."""
    parts = [
        smoothed_nll(model.project(states), targets, smoothing)
        for states, targets in zip(states_ND.split(CHUNK), targets_N.split(CHUNK), strict=True)
    ]
    return Loss(*(torch.stack(column).sum() for column in zip(*parts, strict=True)))
