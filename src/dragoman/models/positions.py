"""Position encodings: how a Transformer learns where its tokens stand.

Shapes: B batch, H heads, T queries, S keys, A width of a head, D width of the model.

A position encoding acts in one of three places, so it has three hooks and overrides one of them:
``added`` to the embeddings, ``rotate`` on queries and keys, ``bias`` on the scores. ``offset`` is
the position of the first query; it is above 0 when decoding goes on from a cache.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """No positions at all: the base class, and the entry "none"."""

    per_layer = False  # whether each layer has parameters of its own

    def __init__(self, d_model: int, num_heads: int, max_positions: int, causal: bool) -> None:
        super().__init__()
        self.d_head = d_model // num_heads

    def added(self, offset: int, length: int) -> Tensor | None:
        """Return what is added to the embeddings at positions offset, offset + 1, ..., (T, D)."""
        return None

    def rotate(self, x_BHTA: Tensor, offset: int) -> Tensor:
        """Return queries or keys turned by their positions."""
        return x_BHTA

    def bias(self, query_BHTA: Tensor, offset: int, num_keys: int) -> Tensor | None:
        """Return what is added to the scores, broadcast to (B, H, T, S), or None."""
        return None


def sinusoids(positions_T: Tensor, width: int) -> Tensor:
    """Return sin and cos of the positions (T, width), interleaved: Vaswani et al. 2017, 3.5."""
    # float64 and then rounded: the angle of a late position loses digits in float32.
    rates = torch.exp(
        torch.arange(0, width, 2, dtype=torch.float64, device=positions_T.device)
        * (-math.log(10000.0) / width)
    )
    angles = positions_T.to(torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


class SinusoidalPositions(Positions):
    """Fixed sines and cosines added to the embeddings: Vaswani et al. 2017, section 3.5."""

    table: Tensor

    def __init__(self, d_model: int, num_heads: int, max_positions: int, causal: bool) -> None:
        super().__init__(d_model, num_heads, max_positions, causal)
        table = sinusoids(torch.arange(max_positions), d_model)
        self.register_buffer("table", table, persistent=False)

    def added(self, offset: int, length: int) -> Tensor:
        """Return rows of the table (T, D); there is no longest sentence."""
        end = offset + length
        if end > self.table.shape[0]:
            longer = torch.arange(2 * end, device=self.table.device)
            self.table = sinusoids(longer, self.table.shape[1])
        return self.table[offset:end]


class LearnedPositions(Positions):
    """A learned vector per position, added to the embeddings: Gehring et al. 2017, section 3.1."""

    def __init__(self, d_model: int, num_heads: int, max_positions: int, causal: bool) -> None:
        super().__init__(d_model, num_heads, max_positions, causal)
        self.table = nn.Parameter(torch.randn(max_positions, d_model) * d_model**-0.5)

    def added(self, offset: int, length: int) -> Tensor:
        """Return rows of the table (T, D); positions past its end share its last."""
        places = torch.arange(offset, offset + length, device=self.table.device)
        return self.table[places.clamp(max=self.table.shape[0] - 1)]


class RotaryPositions(Positions):
    """Queries and keys turned by an angle per position: Su et al. 2021, section 3.2.2."""

    def __init__(self, d_model: int, num_heads: int, max_positions: int, causal: bool) -> None:
        super().__init__(d_model, num_heads, max_positions, causal)
        # Every layer and step turns by the same angles. No buffer: half precision would round them.
        self._turns: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def rotate(self, x_BHTA: Tensor, offset: int) -> Tensor:
        """Return queries or keys, neighbouring pairs of coordinates turned by their positions."""
        half = x_BHTA.dtype in (torch.bfloat16, torch.float16)
        wide, end = x_BHTA.float() if half else x_BHTA, offset + x_BHTA.shape[2]
        pairs = wide.contiguous().unflatten(-1, (-1, 2))
        if torch.compiler.is_compiling():  # compilers make no code for complex numbers
            cos, sin = self._angles(offset, end, wide)
            even, odd = pairs.unbind(-1)
            turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
        else:  # (even + i odd) (cos + i sin): one pass, not seven
            turns = self._known(end, wide)[offset:end]
            turned = torch.view_as_real(torch.view_as_complex(pairs) * turns)
        return turned.flatten(-2).to(x_BHTA.dtype)

    def _angles(self, start: int, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin of the angles (T, A / 2) of positions, in the type of ``like``."""
        places = torch.arange(start, end, device=like.device)
        angles = sinusoids(places, self.d_head).to(like.dtype).unflatten(-1, (-1, 2))
        return angles[..., 1], angles[..., 0]

    def _known(self, end: int, like: Tensor) -> Tensor:
        """Return cos + i sin for at least the first ``end`` positions."""
        key = (like.device, like.dtype)
        if key not in self._turns or len(self._turns[key]) < end:
            self._turns[key] = torch.complex(*self._angles(0, 2 * end, like))
        return self._turns[key]


def relative_distance(num_queries: int, offset: int, num_keys: int, device: torch.device) -> Tensor:
    """Return (T, S): position of key minus position of query."""
    queries = torch.arange(offset, offset + num_queries, device=device)
    return torch.arange(num_keys, device=device)[None, :] - queries[:, None]


class ShawPositions(Positions):
    """A learned vector per clipped distance, compared with the query: Shaw et al. 2018, eq. 4.

    The vectors on the values (eq. 3) are left out: they change nothing there (table 4).
    """

    per_layer = True
    max_distance = 16

    def __init__(self, d_model: int, num_heads: int, max_positions: int, causal: bool) -> None:
        super().__init__(d_model, num_heads, max_positions, causal)
        self.vectors = nn.Parameter(torch.randn(2 * self.max_distance + 1, self.d_head) * 0.02)

    def bias(self, query_BHTA: Tensor, offset: int, num_keys: int) -> Tensor:
        """Return q . a / sqrt(A), (B, H, T, S)."""
        distance = relative_distance(query_BHTA.shape[2], offset, num_keys, query_BHTA.device)
        rows = distance.clamp(-self.max_distance, self.max_distance) + self.max_distance
        # Every query against the few distinct vectors first, then spread over the keys.
        scores = query_BHTA @ self.vectors.t() / math.sqrt(self.d_head)
        return scores.gather(-1, rows.expand(*scores.shape[:2], -1, -1))


class T5Positions(Positions):
    """A learned scalar per head and distance bucket: Raffel et al. 2020, section 2.1."""

    num_buckets, max_distance = 32, 128

    def __init__(self, d_model: int, num_heads: int, max_positions: int, causal: bool) -> None:
        super().__init__(d_model, num_heads, max_positions, causal)
        self.causal = causal
        self.table = nn.Parameter(torch.randn(num_heads, self.num_buckets) * 0.02)

    def buckets(self, distance: Tensor) -> Tensor:
        """Return the bucket of each distance: near ones have their own, far ones share by log."""
        half = self.num_buckets if self.causal else self.num_buckets // 2
        side = torch.zeros_like(distance) if self.causal else (distance > 0) * half
        away = -distance.clamp(max=0) if self.causal else distance.abs()
        exact = half // 2
        steps = torch.log(away.clamp(min=1) / exact) / math.log(self.max_distance / exact)
        far = (exact + (steps * (half - exact)).long()).clamp(max=half - 1)
        return side + torch.where(away < exact, away, far)

    def bias(self, query_BHTA: Tensor, offset: int, num_keys: int) -> Tensor:
        """Return the learned scalars, (H, T, S)."""
        distance = relative_distance(query_BHTA.shape[2], offset, num_keys, query_BHTA.device)
        return self.table[:, self.buckets(distance)]


POSITIONS: dict[str, type[Positions]] = {
    "sinusoidal": SinusoidalPositions,
    "learned": LearnedPositions,
    "rotary": RotaryPositions,
    "shaw": ShawPositions,
    "t5": T5Positions,
    "none": Positions,
}
