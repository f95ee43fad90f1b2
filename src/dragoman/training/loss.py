"""Label-smoothed cross-entropy, summed; the caller divides by the step's number of tokens.

Shapes: N real target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dragoman.models.seq2seq import Seq2Seq

# Rows whose logits are held at a time: the widest tensors of a step are (CHUNK, V). So few stay in
# a CPU's cache from the product to the gradient.
CHUNK = 512


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
    target_log_probs = log_probs.gather(1, targets_N[:, None])
    nll = -target_log_probs.sum()
    smoothed = nll
    if smoothing:
        smoothed = (1 - smoothing) * nll - smoothing / log_probs.shape[1] * log_probs.sum()
    with torch.no_grad():
        # A maximum is vectorised, where it stands is not.
        correct = (target_log_probs[:, 0] == log_probs.amax(-1)).sum()
    return Loss(smoothed, nll.detach(), correct)


def sequence_loss(model: Seq2Seq, states_ND: Tensor, targets_N: Tensor, smoothing: float) -> Loss:
    """Return the summed loss of decoder states at the real target positions."""
    parts = [
        smoothed_nll(model.project(states), targets, smoothing)
        for states, targets in zip(_chunks(states_ND), _chunks(targets_N), strict=True)
    ]
    return _total(parts)


def loss_and_gradient(
    model: Seq2Seq,
    states_ND: Tensor,
    targets_N: Tensor,
    smoothing: float,
    divisor: float,
    at_once: bool = False,
) -> tuple[Loss, Tensor]:
    """Return the summed loss, and the gradient (N, D) of loss / divisor for the states.

    The output layer's own gradient is left on its parameters. The gradient of each chunk is taken
    as soon as its logits are there, so no more than (CHUNK, V) of them are ever held; ``at_once``
    takes all in one, the plain form.
    """
    parts, gradient_ND = [], torch.empty_like(states_ND, requires_grad=False)
    whole = (states_ND, targets_N, gradient_ND)
    chunks = [(tensor,) for tensor in whole] if at_once else [_chunks(t) for t in whole]
    for states, targets, gradient in zip(*chunks, strict=True):
        leaf = states.detach().requires_grad_()
        loss = smoothed_nll(model.project(leaf), targets, smoothing)
        (loss.smoothed / divisor).backward()
        gradient.copy_(leaf.grad)
        parts.append(loss._replace(smoothed=loss.smoothed.detach()))
    return _total(parts), gradient_ND


def _chunks(rows: Tensor) -> tuple[Tensor, ...]:
    """Split into (CHUNK, ...) on a CPU; a GPU has no such cache, and rather does more at a time."""
    parts: tuple[Tensor, ...] = rows.split(CHUNK if rows.device.type == "cpu" else 32 * CHUNK)
    return parts


def _total(parts: list[Loss]) -> Loss:
    return Loss(*(torch.stack(column).sum() for column in zip(*parts, strict=True)))
