"""Dropout (Srivastava et al. 2014), with cheaper draws on CPUs.

PyTorch draws one number per element on one thread. Here one 64-bit draw serves four elements, 16
bits each: the keep probability is a multiple of 2^-16, within 1e-4 of the one asked for, and the
scale is exact for the one used, so the expectation is unbiased.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_LEVELS = 1 << 16


def keep_mask(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Return a bool mask shaped like ``x`` and the exact probability of True."""
    dropped = round(p * _LEVELS)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    lanes = words.view(torch.int16)[: x.numel()].view(x.shape)
    return lanes >= dropped - _LEVELS // 2, 1 - dropped / _LEVELS


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p):  # type: ignore[no-untyped-def]
        mask, keep = keep_mask(x, p)
        ctx.save_for_backward(mask)
        ctx.scale = 1 / keep
        # A product with a bool mask is twice as fast as torch.where here.
        return (x * mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (mask,) = ctx.saved_tensors
        return (grad * mask).mul_(ctx.scale), None


def dropout(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Zero elements with probability ``p`` and scale the rest by 1 / (1 - p) while training."""
    if not training or p == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p)
    out: Tensor = _Dropout.apply(x, p)  # type: ignore[no-untyped-call]
    return out
