"""Rows of real tokens instead of padded grids: no arithmetic on padding.

Shapes: B batch, L longest sentence rounded up, N real tokens, P parts, H heads, A width of a head.

Everything in a Transformer but attention looks at one token at a time, so it can run on the real
tokens alone, (N, D). Attention wants sentences side by side, head by head: ``heads`` takes the rows
there and ``merge`` takes them back, each by copying pieces of width A once.

``Packing`` has the calls of ``attention.Grid`` and takes its place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dragoman.data.batching import Batch, length_mask

# A softmax over rows of whole vector registers is ten times as fast on a CPU as over ragged ones.
MULTIPLE = 8


class Packing:
    """Where the real tokens of a batch stand in its grid (B, L)."""

    weights = None  # of attention: with padding left out there is no picture of them

    def __init__(self, lengths_B: Tensor) -> None:
        longest = -int(lengths_B.max()) // MULTIPLE * -MULTIPLE
        self.mask_BL = length_mask(lengths_B, longest)
        cells = self.mask_BL.flatten().nonzero()[:, 0]
        self.rows_N = cells // longest  # which sentence
        self.places_N = cells % longest  # where in it
        self._made: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def mask(self, lengths_B: Tensor, longest: int) -> Tensor:
        """Return True at real positions, (B, L)."""
        return self.mask_BL

    def pick(self, grid_BT: Tensor) -> Tensor:
        """Return the real ones of a grid of tokens, (N,)."""
        return grid_BT[self.rows_N, self.places_N]

    def along(self, vectors_LD: Tensor) -> Tensor:
        """Return the vector of each token's place, (N, D)."""
        return vectors_LD[self.places_N]

    def real(self, states_ND: Tensor, batch: Batch) -> Tensor:
        """Return the states at the batch's real targets: here there are no others."""
        return states_ND

    def _indices(self, parts: int, num_heads: int) -> tuple[Tensor, Tensor]:
        """Return where pieces of width A come from and go to.

        Rows hold them as (N, P, H), grids as (P, B, H, L). The first index leads from rows to grids
        and has some real piece at padding; the second leads back.
        """
        if (parts, num_heads) in self._made:  # all layers share them
            return self._made[parts, num_heads]
        batch, longest = self.mask_BL.shape
        total, device = len(self.rows_N), self.mask_BL.device
        token_BL = torch.zeros((batch, longest), dtype=torch.int64, device=device)
        token_BL[self.rows_N, self.places_N] = torch.arange(total, device=device)
        part = torch.arange(parts, device=device)
        head = torch.arange(num_heads, device=device)
        to_grid = token_BL[:, None, :] * parts + part[:, None, None, None]
        to_grid = (to_grid * num_heads + head[:, None]).flatten()
        back = self.rows_N[:, None, None] + part[:, None] * batch
        back = ((back * num_heads + head) * longest + self.places_N[:, None, None]).flatten()
        self._made[parts, num_heads] = to_grid, back
        return to_grid, back

    def heads(self, x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
        """(N, P * H * A) -> P grids (B, H, L, A). At padding stands a copy of something real."""
        grids: tuple[Tensor, ...] = _Heads.apply(self, x, parts, num_heads)  # type: ignore[no-untyped-call]
        return grids

    def merge(self, x_BHLA: Tensor) -> Tensor:
        """(B, H, L, A) -> (N, H * A)."""
        rows: Tensor = _Merge.apply(self, x_BHLA)  # type: ignore[no-untyped-call]
        return rows

    def to_grids(self, x: Tensor, parts: int, num_heads: int) -> Tensor:
        """(N, P * H * A) -> (P, B, H, L, A)."""
        to_grid, _ = self._indices(parts, num_heads)
        batch, longest = self.mask_BL.shape
        pieces = x.reshape(len(x) * parts * num_heads, -1).index_select(0, to_grid)
        return pieces.view(parts, batch, num_heads, longest, -1)

    def to_rows(self, grids_PBHLA: Tensor) -> Tensor:
        """(P, B, H, L, A) -> (N, P * H * A)."""
        parts, _, num_heads, _, width = grids_PBHLA.shape
        _, back = self._indices(parts, num_heads)
        pieces = grids_PBHLA.reshape(-1, width).index_select(0, back)
        return pieces.view(-1, parts * num_heads * width)


def pack(lengths_B: Tensor) -> Packing | None:
    """Return how to leave padding out, or None where grids are better.

    A GPU would have to wait for the number of tokens, and does grids of one shape faster; a
    compiler would have to compile for every number of tokens.
    """
    if lengths_B.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    return Packing(lengths_B)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, packing: Packing, x: Tensor, parts: int, num_heads: int
    ) -> tuple[Tensor, ...]:
        ctx.packing = packing
        return packing.to_grids(x, parts, num_heads).unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return None, ctx.packing.to_rows(joined(grads)), None, None


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packing: Packing, x_BHLA: Tensor) -> Tensor:
        ctx.packing, ctx.num_heads = packing, x_BHLA.shape[1]
        return packing.to_rows(x_BHLA[None])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (grid_BHLA,) = ctx.packing.to_grids(grad, 1, ctx.num_heads)
        # Nothing came from padding, so its gradient is zero.
        return None, grid_BHLA.mul_(ctx.packing.mask_BL[:, None, :, None])


def joined(tensors: tuple[Tensor, ...]) -> Tensor:
    """Stack tensors: where they lie behind one another in memory already, without a copy."""
    first = tensors[0]
    size, start = first.numel(), first.storage_offset()
    if all(
        tensor.is_contiguous()
        and tensor.storage_offset() == start + place * size
        and tensor.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        for place, tensor in enumerate(tensors)
    ):
        return first.as_strided((len(tensors), *first.shape), (size, *first.stride()))
    return torch.stack(tensors)
