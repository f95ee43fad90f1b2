"""Linear layers that know how a CPU multiplies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Rows up to which W x^T is faster than x W^T, by up to two times: one step of a search.
FEW = 96
# Columns of logits are filled up to a multiple of this: a product whose rows end within a vector
# register takes half as long again on a CPU, and does not use a GPU's tensor cores.
MULTIPLE = 16
# Where there is AVX-512, oneDNN, which PyTorch has aboard, multiplies up to twice as fast as
# PyTorch's usual library. But it generates code for every shape that it meets, and keeps it: so
# rows are filled up to a multiple of ``ROWS``, and only products of one step or chunk use it.
ONEDNN = torch.backends.mkldnn.is_available() and (
    torch.backends.cpu.get_cpu_capability().startswith("AVX512")
)
ROWS = 32


def suits_onednn(x: Tensor) -> bool:
    """Whether oneDNN can multiply x, and is worth it."""
    usual = x.device.type == "cpu" and x.dtype == torch.float32
    return ONEDNN and usual and not torch.is_autocast_enabled("cpu")


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """Return x W^T + b, (N, D) -> (N, E), through which no gradient goes; ``out`` may hold it."""
    if suits_onednn(x):
        onednn = torch.ops.mkldnn._linear_pointwise.default
        more = -len(x) % ROWS
        filled = F.pad(x, (0, 0, 0, more)) if more else x
        found: Tensor = onednn(filled, weight, bias, "none", [], "")
        return found[: len(x)]
    if bias is None:
        return torch.mm(x, weight.t(), out=out)
    return torch.addmm(bias, x, weight.t(), out=out)


class _Packed(torch.autograd.Function):
    """x W^T + b for rows (N, D), with its gradient by hand.

    That of the bias is a product with ones: a third of the time that a sum over the rows takes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.addmm(bias, x, weight.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        d_x = grad @ weight if ctx.needs_input_grad[0] else None
        return d_x, grad.t() @ x, (grad.new_ones(1, len(grad)) @ grad)[0]


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W^T + b, (..., D) -> (..., E)."""
    rows = x.numel() // x.shape[-1]
    if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        if torch.is_grad_enabled() and x.ndim == 2:
            out: Tensor = _Packed.apply(x, weight, bias)  # type: ignore[no-untyped-call]
            return out
        if not torch.is_grad_enabled() and rows <= FEW:
            turned = torch.addmm(bias[:, None], weight, x.reshape(rows, -1).t())
            return turned.t().reshape(*x.shape[:-1], -1)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """``torch.nn.Linear``, fast for few rows as well."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., E)."""
        return affine(x, self.weight, self.bias)


def aligned(layer: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return copies of the output layer's weight and bias for a vocabulary rounded up.

    The entries beyond the vocabulary have no probability. No gradient goes through.
    """
    more = -layer.out_features % MULTIPLE
    weight = F.pad(layer.weight.detach().to(dtype), (0, 0, 0, more))
    return weight, F.pad(layer.bias.detach().to(dtype), (0, more), value=-torch.inf)


def guesser(layer: nn.Linear, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return the output layer as a function (N, D) -> (N, V rounded up) without gradients.

    It is made of today's weights: ask for a new one once they have changed.
    """
    weight, bias = aligned(layer, dtype)
    return lambda x: product(x, weight, bias)
