"""Rows of real tokens instead of padded grids: no arithmetic on padding.

Shapes: B batch, L longest sentence rounded up, N real tokens, D width.

Everything in a Transformer but attention looks at one token at a time, so it can run on the real
tokens alone, (N, D). Attention wants sentences side by side: ``spread`` puts the rows into a grid
(B, L, D) with zeros at the padding, ``gather`` takes them out again, and each is the other's
gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dragoman.data.batching import length_mask

# A softmax over rows of whole vector registers is ten times as fast on a CPU as over ragged ones.
MULTIPLE = 8


class Packing:
    """Where the real tokens of a batch stand in its grid (B, L)."""

    def __init__(self, lengths_B: Tensor) -> None:
        longest = -int(lengths_B.max()) // MULTIPLE * -MULTIPLE
        self.mask_BL = length_mask(lengths_B, longest)
        self.cells_N = self.mask_BL.flatten().nonzero()[:, 0]
        self.rows_N = self.cells_N // longest  # which sentence
        self.places_N = self.cells_N % longest  # where in it

    def spread(self, x_ND: Tensor) -> Tensor:
        """Return the grid (B, L, D), zero at padding."""
        grid: Tensor = _Spread.apply(x_ND, self.cells_N, self.mask_BL.numel())  # type: ignore[no-untyped-call]
        return grid.view(*self.mask_BL.shape, -1)

    def gather(self, x_BLD: Tensor) -> Tensor:
        """Return the rows at real tokens (N, D)."""
        rows: Tensor = _Gather.apply(x_BLD.flatten(0, 1), self.cells_N)  # type: ignore[no-untyped-call]
        return rows


def _spread(x: Tensor, cells: Tensor, size: int) -> Tensor:
    return x.new_zeros(size, x.shape[1]).index_copy_(0, cells, x)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(cells)
        return _spread(x, cells, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (cells,) = ctx.saved_tensors
        return grad.index_select(0, cells), None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cells: Tensor) -> Tensor:
        ctx.save_for_backward(cells)
        ctx.size = x.shape[0]
        return x.index_select(0, cells)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (cells,) = ctx.saved_tensors
        return _spread(grad, cells, ctx.size), None
