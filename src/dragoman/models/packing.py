"""Rows of real tokens instead of padded grids: no arithmetic on padding.

Shapes: B batch, L longest sentence rounded up, N real tokens, P parts, H heads, A width of a head.

Everything in a Transformer but attention looks at one token at a time, so it can run on the real
tokens alone, (N, D). Attention wants sentences side by side, head by head: ``heads`` takes the rows
there and ``merge`` takes them back, each by copying pieces of width A once.
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
        cells = self.mask_BL.flatten().nonzero()[:, 0]
        self.rows_N = cells // longest  # which sentence
        self.places_N = cells % longest  # where in it
        self._made: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def _indices(self, parts: int, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return where pieces of width A come from and go to.

        Rows hold them as (N, P, H), grids as (P, B, H, L). The first index leads from rows to grids
        and has some real piece at padding; the second leads back; the third is the first with the
        number N P H, which no piece has, at padding.
        """
        if (parts, num_heads) in self._made:  # all layers share them
            return self._made[parts, num_heads]
        batch, longest = self.mask_BL.shape
        total, device = len(self.rows_N), self.mask_BL.device
        token_BL = torch.full((batch, longest), -1, device=device)
        token_BL[self.rows_N, self.places_N] = torch.arange(total, device=device)
        part = torch.arange(parts, device=device)
        head = torch.arange(num_heads, device=device)
        to_grid = token_BL[:, None, :] * parts + part[:, None, None, None]
        to_grid = (to_grid * num_heads + head[:, None]).flatten()
        back = self.rows_N[:, None, None] + part[:, None] * batch
        back = ((back * num_heads + head) * longest + self.places_N[:, None, None]).flatten()
        hidden = ~self.mask_BL[None, :, None, :].expand(parts, -1, num_heads, -1).flatten()
        self._made[parts, num_heads] = (
            to_grid.masked_fill(hidden, 0),
            back,
            to_grid.masked_fill(hidden, total * parts * num_heads),
        )
        return self._made[parts, num_heads]

    def heads(self, x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
        """(N, P * H * A) -> P grids (B, H, L, A). At padding stands a copy of something real."""
        to_grid, back, _ = self._indices(parts, num_heads)
        batch, longest = self.mask_BL.shape
        pieces: Tensor = _Move.apply(x.reshape(len(back), -1), to_grid, back)  # type: ignore[no-untyped-call]
        return pieces.view(parts, batch, num_heads, longest, -1).unbind(0)

    def merge(self, x_BHLA: Tensor) -> Tensor:
        """(B, H, L, A) -> (N, H * A)."""
        num_heads, width = x_BHLA.shape[1], x_BHLA.shape[3]
        _, back, to_grid = self._indices(1, num_heads)
        pieces: Tensor = _Move.apply(x_BHLA.reshape(-1, width), back, to_grid)  # type: ignore[no-untyped-call]
        return pieces.view(-1, num_heads * width)


class _Move(torch.autograd.Function):
    """Rows to new places; backwards, from where each came. Where nothing came from is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        if len(back) > len(grad):  # there is padding: it reads the row of zeros put behind
            grad = torch.cat([grad, grad.new_zeros(1, grad.shape[1])])
        return grad.index_select(0, back), None, None
