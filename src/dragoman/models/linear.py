"""Linear layers that know how a CPU multiplies."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Rows up to which W x^T is faster than x W^T, by up to two times: one step of a search.
FEW = 96
# Columns of logits are filled up to a multiple of this: a product whose rows end within a vector
# register takes half as long again on a CPU, and does not use a GPU's tensor cores.
MULTIPLE = 16


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W^T + b, (..., D) -> (..., E)."""
    rows = x.numel() // x.shape[-1]
    if rows > FEW or x.device.type != "cpu" or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    turned = torch.addmm(bias[:, None], weight, x.reshape(rows, -1).t())
    return turned.t().reshape(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """``torch.nn.Linear``, fast for few rows as well."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., E)."""
        return linear(x, self.weight, self.bias)


def aligned(layer: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return copies of the output layer's weight and bias for a vocabulary rounded up.

    The entries beyond the vocabulary have no probability. No gradient goes through.
    """
    more = -layer.out_features % MULTIPLE
    weight = F.pad(layer.weight.detach().to(dtype), (0, 0, 0, more))
    return weight, F.pad(layer.bias.detach().to(dtype), (0, more), value=-torch.inf)
