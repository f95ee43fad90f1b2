"""Label-smoothed cross-entropy, summed; the caller divides by the step's number of tokens.

Shapes: N real target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dragoman.models.linear import aligned
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
    return _sums(_wide(logits_NV).log_softmax(-1), targets_N, smoothing)


def _wide(logits_NV: Tensor) -> Tensor:
    """Return logits that can be summed over a vocabulary."""
    return logits_NV.float() if logits_NV.dtype == torch.bfloat16 else logits_NV


def _sums(log_probs: Tensor, targets_N: Tensor, smoothing: float) -> Loss:
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
) -> tuple[Loss, Tensor]:
    """Return the summed loss, and the gradient (N, D) of loss / divisor for the states.

    The output layer's own gradient is left on its parameters. A model that is not ``fast`` has all
    logits at once and leaves the gradient to autograd, the plain form.
    """
    if model.fast:
        return _Output(model.output, states_ND, targets_N, smoothing, divisor).run()
    leaf = states_ND.detach().requires_grad_()
    loss = smoothed_nll(model.project(leaf), targets_N, smoothing)
    (loss.smoothed / divisor).backward()
    assert leaf.grad is not None
    return loss._replace(smoothed=loss.smoothed.detach()), leaf.grad


class _Output:
    """Output layer and cross-entropy in one: each chunk goes forward and back at once.

    No more than (CHUNK, V) logits are ever held. Their gradient is the distribution predicted less
    the one wanted, made where the logits were.
    """

    def __init__(
        self,
        layer: nn.Linear,
        states_ND: Tensor,
        targets_N: Tensor,
        smoothing: float,
        divisor: float,
    ) -> None:
        device = states_ND.device.type
        mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if mixed else states_ND.dtype
        self.layer, self.vocab = layer, layer.out_features
        self.weight_VD, self.bias_V = aligned(layer, dtype)
        self.states_ND, self.targets_N = states_ND.detach().to(dtype), targets_N
        self.smoothing, self.divisor, self.wanted = smoothing, divisor, states_ND.dtype

    @torch.no_grad()
    def run(self) -> tuple[Loss, Tensor]:
        """Return the loss and the states' gradient; leave the layer's on its parameters."""
        states, targets = _chunks(self.states_ND), _chunks(self.targets_N)
        gradient_ND = torch.empty_like(self.states_ND)
        weight_grad, bias_grad = torch.zeros_like(self.weight_VD), torch.zeros_like(self.bias_V)
        buffer = states[0].new_empty(len(states[0]), len(self.bias_V))
        parts = []
        for x, target, gradient in zip(states, targets, _chunks(gradient_ND), strict=True):
            logits = torch.addmm(self.bias_V, x, self.weight_VD.t(), out=buffer[: len(x)])
            loss, wrong = self._backward(logits, target)
            parts.append(loss)
            torch.mm(wrong, self.weight_VD, out=gradient)
            weight_grad.addmm_(wrong.t(), x)
            bias_grad += wrong.sum(0)
        for parameter, found in ((self.layer.weight, weight_grad), (self.layer.bias, bias_grad)):
            found = found[: self.vocab].to(parameter.dtype)
            parameter.grad = found if parameter.grad is None else parameter.grad + found
        return _total(parts), gradient_ND.to(self.wanted)

    def _backward(self, logits_NV: Tensor, targets_N: Tensor) -> tuple[Loss, Tensor]:
        """Return the loss and the gradient (N, V) of the logits; they are overwritten."""
        wide = _wide(logits_NV)
        log_probs = torch.log_softmax(wide, -1, out=wide)
        loss = _sums(log_probs[:, : self.vocab], targets_N, self.smoothing)
        everywhere = log_probs.new_tensor(-self.smoothing / self.vocab / self.divisor)
        wrong = torch.add(everywhere, log_probs.exp_(), alpha=1 / self.divisor, out=log_probs)
        hit = wrong.new_tensor((self.smoothing - 1) / self.divisor).expand(len(wrong), 1)
        wrong.scatter_add_(1, targets_N[:, None], hit)
        return loss, wrong.to(logits_NV.dtype)


def _chunks(rows: Tensor) -> tuple[Tensor, ...]:
    """Split evenly; a GPU has no such cache, and rather does more at a time."""
    most = CHUNK if rows.device.type == "cpu" else 32 * CHUNK
    parts: tuple[Tensor, ...] = rows.tensor_split(max(1, -(-len(rows) // most)))
    return parts


def _total(parts: list[Loss]) -> Loss:
    return Loss(*(torch.stack(column).sum() for column in zip(*parts, strict=True)))
