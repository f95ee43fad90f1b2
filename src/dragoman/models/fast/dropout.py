"""Dropout (Srivastava et al. 2014), with cheaper draws on CPUs.

PyTorch draws one number per element from the Mersenne twister, on one thread. Here one 64-bit word
of a small fast generator serves four elements, 16 bits each: the keep probability is a multiple of
2^-16, within 1e-4 of the one asked for, and the scale is exact for the one used, so the
expectation is unbiased.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_LEVELS = 1 << 16


def _words(count: int) -> Tensor:
    """Return random 64-bit words, which follow from torch's own generator."""
    seed = int(torch.randint(2**63 - 1, (1,)))
    return torch.from_numpy(np.random.SFC64(seed).random_raw(count).view(np.int64))


def draw(x: Tensor) -> Tensor:
    """Return 16 random bits for each element of ``x``, as int16: a quarter of a mask's memory."""
    return _words(x.numel() // 4 + 1).view(torch.int16)[: x.numel()].view(x.shape)


def keep_mask(draws: Tensor, p: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Return a mask of ones and zeros, and the probability of a one."""
    dropped = round(p * _LEVELS)
    # Compared as numbers of the mask's own type: there comparison and product are vectorised.
    wide = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
    mask = draws.to(wide).ge_(dropped - _LEVELS // 2)
    return mask.to(dtype), 1 - dropped / _LEVELS


def keep(x: Tensor, mask: Tensor, probability: float, residual: Tensor | None = None) -> Tensor:
    """Return what is kept of ``x``, scaled, and the residual: products and sum in one pass."""
    residual = x.new_zeros(()) if residual is None else residual
    return torch.addcmul(residual, x, mask, value=1 / probability)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, residual, p):  # type: ignore[no-untyped-def]
        draws = draw(x)
        ctx.save_for_backward(draws)
        ctx.p = p
        return keep(x, *keep_mask(draws, p, x.dtype), residual)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (draws,) = ctx.saved_tensors
        kept = keep(grad, *keep_mask(draws, ctx.p, grad.dtype))
        return kept, grad if ctx.needs_input_grad[1] else None, None


def drop(x: Tensor, p: float, training: bool = True, residual: Tensor | None = None) -> Tensor:
    """Zero elements with probability ``p`` and scale the rest by 1 / (1 - p) while training.

    With ``residual`` (of the same shape) return residual + drop(x), in one pass.
    """
    if training and p > 0.0 and x.device.type == "cpu":
        out: Tensor = _Dropout.apply(x, residual, p)  # type: ignore[no-untyped-call]
        return out
    out = F.dropout(x, p, training) if training and p > 0.0 else x
    return out if residual is None else residual + out


class _ReluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p):  # type: ignore[no-untyped-def]
        mask, probability = keep_mask(draw(x), p, x.dtype)
        out = keep(x, mask, probability).relu_()
        # Above zero is what was positive and kept: backwards needs neither the draws nor x.
        ctx.save_for_backward(out)
        ctx.scale = 1 / probability
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (out,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(grad, out, 0).mul_(ctx.scale), None


def activate_and_drop(
    activation: Callable[[Tensor], Tensor], x: Tensor, p: float, training: bool = True
) -> Tensor:
    """Return drop(activation(x)), after ``F.relu`` in fewer passes."""
    if activation is F.relu and training and p > 0.0 and x.device.type == "cpu":
        out: Tensor = _ReluDropout.apply(x, p)  # type: ignore[no-untyped-call]
        return out
    return drop(activation(x), p, training)
