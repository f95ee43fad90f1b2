"""Label-smoothed cross-entropy, summed; the caller divides by the step's number of tokens.

Shapes: N real target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dragoman.models.fast import aligned, product
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
        smoothed_nll(model.project(states[0]), targets[0], smoothing)
        for states, targets in _chunks(states_ND, targets_N)
    ]
    return _total(parts)


@torch.no_grad()
def target_log_probs(model: Seq2Seq, states_ND: Tensor, targets_N: Tensor) -> Tensor:
    """Return the log-probability (N,) of every target."""
    parts = [
        _wide(model.project(states[0])).log_softmax(-1).gather(1, targets[0][:, None])
        for states, targets in _chunks(states_ND, targets_N)
    ]
    return torch.cat(parts)[:, 0]


def divergence(first_NV: Tensor, second_NV: Tensor) -> Tensor:
    """Return (KL(p || q) + KL(q || p)) / 2 of two log-distributions, summed over rows.

    R-Drop's second term (Liang et al. 2021, equation 2).
    """
    return ((first_NV.exp() - second_NV.exp()) * (first_NV - second_NV)).sum() / 2


def loss_and_gradient(
    model: Seq2Seq,
    states_ND: Tensor,
    targets_N: Tensor,
    smoothing: float,
    divisor: float,
    r_drop: float = 0.0,
    weights_N: Tensor | None = None,
) -> tuple[Loss, Tensor]:
    """Return the summed loss, and the gradient (N, D) of loss / divisor for the states.

    With ``r_drop`` above 0 the second half of the rows are those of the first, passed through the
    model once more. All sums are then means of the two passes, and r_drop / 2 times their
    ``divergence`` is added (Liang et al. 2021, equation 4, halved).

    With ``weights_N`` (and neither smoothing nor r_drop) each row's part of the gradient is
    multiplied by its weight; the sums are not.

    The output layer's own gradient is left on its parameters. A model that is not ``fast`` has all
    logits at once and leaves the gradient to autograd, the plain form.
    """
    assert weights_N is None or not (smoothing or r_drop)
    if model.fast:
        output = _Output(model.output, states_ND, targets_N, smoothing, divisor, r_drop, weights_N)
        return output.run()
    leaf = states_ND.detach().requires_grad_()
    log_probs = _wide(model.project(leaf)).log_softmax(-1)
    loss = _sums(log_probs, targets_N, smoothing)
    if r_drop:
        loss = _with_divergence(loss, divergence(*log_probs.chunk(2)), r_drop)
    weighted = loss.smoothed
    if weights_N is not None:
        weighted = -(log_probs.gather(1, targets_N[:, None])[:, 0] * weights_N).sum()
    (weighted / divisor).backward()
    assert leaf.grad is not None
    return loss._replace(smoothed=loss.smoothed.detach()), leaf.grad


class _Output:
    """Output layer and cross-entropy in one: each chunk goes forward and back at once.

    No more than (CHUNK, V) logits are ever held. Their gradient is the distribution predicted less
    the one wanted, made where the logits were: without R-Drop one softmax serves loss and gradient.
    """

    def __init__(
        self,
        layer: nn.Linear,
        states_ND: Tensor,
        targets_N: Tensor,
        smoothing: float,
        divisor: float,
        r_drop: float,
        weights_N: Tensor | None,
    ) -> None:
        device = states_ND.device.type
        mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if mixed else states_ND.dtype
        self.layer, self.vocab = layer, layer.out_features
        self.weight_VD, self.bias_V = aligned(layer, dtype)
        self.weight_sum_D = self.weight_VD.sum(0, dtype=states_ND.dtype)
        self.bias_sum = layer.bias.detach().sum()
        self.states_ND, self.targets_N = states_ND.detach().to(dtype), targets_N
        self.smoothing, self.r_drop, self.wanted = smoothing, r_drop, states_ND.dtype
        self.passes = 2 if r_drop else 1
        self.divisor = divisor * self.passes
        self.weights = () if weights_N is None else (weights_N,)

    @torch.no_grad()
    def run(self) -> tuple[Loss, Tensor]:
        """Return the loss and the states' gradient; leave the layer's on its parameters."""
        gradient_ND = torch.empty_like(self.states_ND)
        weight_grad, bias_grad = torch.zeros_like(self.weight_VD), torch.zeros_like(self.bias_V)
        rows = (self.states_ND, gradient_ND, self.targets_N, *self.weights)
        chunks = _chunks(*rows, passes=self.passes)
        buffer = self.states_ND.new_empty(chunks[0][2].numel(), len(self.bias_V))
        parts = []
        for chunk, gradient, target, *weights in chunks:
            x = chunk.flatten(0, 1)
            logits = product(x, self.weight_VD, self.bias_V, out=buffer[: len(x)])
            loss, wrong = self._backward(logits, x, target.flatten())
            parts.append(loss)
            for weight in weights:  # one, or none
                wrong.mul_(weight.view(-1, 1))
            weight_grad.addmm_(wrong.t(), x)  # oneDNN would write a new sum every time
            gradient.copy_(product(wrong, self.weight_VD.t()).view_as(gradient))
            bias_grad.addmv_(wrong.t(), wrong.new_ones(len(x)))  # faster than a sum over the rows
            del logits, wrong  # before the next are made
        each = self.smoothing / self.vocab  # what smoothing wants of every word goes through sums
        gradient_ND.sub_(each * self.weight_sum_D).div_(self.divisor)
        weight_grad.sub_(each * self.states_ND.sum(0)).div_(self.divisor)
        bias_grad.sub_(each * len(self.states_ND)).div_(self.divisor)
        for parameter, found in ((self.layer.weight, weight_grad), (self.layer.bias, bias_grad)):
            found = found[: self.vocab].to(parameter.dtype)
            parameter.grad = found if parameter.grad is None else parameter.grad + found
        return _total(parts), gradient_ND.to(self.wanted)

    def _backward(self, logits_NV: Tensor, x_ND: Tensor, targets_N: Tensor) -> tuple[Loss, Tensor]:
        """Return a chunk's loss, and the gradient (N, V) of its logits, which are overwritten.

        The divisor and what smoothing wants of every word are left out of the gradient.
        """
        wide, hits = _wide(logits_NV), targets_N[:, None]
        best, wanted = wide.amax(-1), wide.gather(1, hits)[:, 0]
        both = wide[:, : self.vocab].log_softmax(-1).chunk(2) if self.r_drop else None
        probs = torch.softmax(wide, -1, out=wide)
        # Of all exponentials the largest is 1, and so leads from a probability to their sum.
        log_sum = best - probs.amax(-1).log()
        nll = smoothed = (log_sum - wanted).sum()
        if self.smoothing:
            total = x_ND.sum(0, dtype=wide.dtype) @ self.weight_sum_D + len(x_ND) * self.bias_sum
            smoothed = (1 - self.smoothing) * nll
            smoothed = smoothed + self.smoothing * (log_sum.sum() - total / self.vocab)
        loss = Loss(smoothed, nll, (wanted == best).sum())
        wrong = probs.scatter_add_(1, hits, probs.new_full(hits.shape, self.smoothing - 1))
        if both is not None:
            loss = _with_divergence(loss, divergence(*both), self.r_drop)
            wrong[:, : self.vocab].add_(_divergence_gradient(*both), alpha=self.r_drop)
        return loss, wrong.to(logits_NV.dtype)


def _with_divergence(loss: Loss, distance: Tensor, r_drop: float) -> Loss:
    """Return the means of two passes, and their distance added to what is minimised."""
    return Loss((loss.smoothed + r_drop * distance) / 2, loss.nll / 2, loss.correct / 2)


def _divergence_gradient(first_NV: Tensor, second_NV: Tensor) -> Tensor:
    """Return the gradient (2 N, V) of ``divergence`` for the logits behind both."""
    p, q, apart = first_NV.exp(), second_NV.exp(), first_NV - second_NV
    forth, back = (p * apart).sum(-1, keepdim=True), -(q * apart).sum(-1, keepdim=True)
    return torch.cat([p * (apart - forth) + p - q, q - p - q * (apart + back)]) / 2


def _chunks(*tables: Tensor, passes: int = 1) -> list[tuple[Tensor, ...]]:
    """Return views (passes, n, ...) of a few rows at a time of tables (passes * N, ...).

    Rows that are compared with each other share a chunk. A GPU has no such cache, and rather does
    more at a time.
    """
    most = CHUNK if tables[0].device.type == "cpu" else 32 * CHUNK
    apart = [table.unflatten(0, (passes, -1)) for table in tables]
    return list(zip(*(x.split(max(1, most // passes), 1) for x in apart), strict=True))


def _total(parts: list[Loss]) -> Loss:
    return Loss(*(torch.stack(column).sum() for column in zip(*parts, strict=True)))
