"""Attention: compare queries with keys, turn the scores into weights, average the values.

Shapes: B batch, H heads, T queries, S keys, A width of a head, D width of the model.

The score function is the seam. Every score compares vectors of one head and treats heads as one
more batch dimension, so each of them works alone (the attention of recurrent models) and side by
side in ``MultiHeadAttention``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dragoman.models.fast.dropout import dropout as drop
from dragoman.models.fast.linear import Linear, linear
from dragoman.models.fast.packing import Packing
from dragoman.models.fast.short import hiding, short_attention
from dragoman.models.positions import Positions


class Score(nn.Module):
    """Compares every query with every key, in each head by itself."""

    def __init__(self, num_heads: int, d_head: int) -> None:
        super().__init__()

    def prepare(self, keys_BHSA: Tensor) -> Tensor:
        """Return what can be computed once per memory: the keys themselves, or W k."""
        return keys_BHSA

    def forward(self, query_BHTA: Tensor, keys_BHSA: Tensor) -> Tensor:
        """Return scores (B, H, T, S) for prepared keys."""
        raise AssertionError("every score defines its own forward")


class AdditiveScore(Score):
    """v . tanh(q + k): Bahdanau et al. 2015, appendix A.1.2; q and k come projected."""

    def __init__(self, num_heads: int, d_head: int) -> None:
        super().__init__(num_heads, d_head)
        self.v_HA = nn.Parameter(torch.empty(num_heads, d_head))
        nn.init.uniform_(self.v_HA, -(d_head**-0.5), d_head**-0.5)

    def forward(self, query_BHTA: Tensor, keys_BHSA: Tensor) -> Tensor:
        """Return scores (B, H, T, S)."""
        hidden = torch.tanh(query_BHTA.unsqueeze(3) + keys_BHSA.unsqueeze(2))
        return (hidden * self.v_HA[:, None, None, :]).sum(-1)


class DotScore(Score):
    """q . k: Luong et al. 2015, section 3.1, "dot"."""

    def forward(self, query_BHTA: Tensor, keys_BHSA: Tensor) -> Tensor:
        """Return scores (B, H, T, S)."""
        return query_BHTA @ keys_BHSA.transpose(-2, -1)


class ScaledDotScore(Score):
    """q . k / sqrt(A): Vaswani et al. 2017, equation 1."""

    def __init__(self, num_heads: int, d_head: int) -> None:
        super().__init__(num_heads, d_head)
        self.scale: float = d_head**-0.5

    def forward(self, query_BHTA: Tensor, keys_BHSA: Tensor) -> Tensor:
        """Return scores (B, H, T, S)."""
        return (query_BHTA * self.scale) @ keys_BHSA.transpose(-2, -1)


class GeneralScore(DotScore):
    """q W k: Luong et al. 2015, section 3.1, "general"."""

    def __init__(self, num_heads: int, d_head: int) -> None:
        super().__init__(num_heads, d_head)
        self.weight_HAA = nn.Parameter(torch.empty(num_heads, d_head, d_head))
        for head in self.weight_HAA:
            nn.init.xavier_uniform_(head)

    def prepare(self, keys_BHSA: Tensor) -> Tensor:
        """Return W k: computed once per memory, so that a step is a dot product."""
        return keys_BHSA @ self.weight_HAA.transpose(-2, -1)


SCORES: dict[str, type[Score]] = {
    "additive": AdditiveScore,
    "dot": DotScore,
    "scaled_dot": ScaledDotScore,
    "general": GeneralScore,
}


# Keys up to which matrix products beat the fused kernel on a CPU.
SHORT = 64


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the last dimension where ``mask`` (bool, True = may attend) allows it.

    A row that may attend to nothing gets zeros, not NaN and not the uniform distribution.
    """
    if mask is None:
        return scores.softmax(-1)
    weights = (scores + hiding(mask, scores)).softmax(-1)
    return weights * mask.any(-1, keepdim=True).to(scores.dtype)


def attend(
    score: Score,
    query_BHTA: Tensor,
    keys_BHSA: Tensor,
    values_BHSV: Tensor,
    mask: Tensor | None,
    *,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the context (B, H, T, V) and, if asked for, the weights (B, H, T, S) before dropout.

    ``keys`` have been through ``score.prepare``; ``mask`` is bool and broadcasts to (B, H, T, S);
    ``bias`` is added to the scores. Scaled dot-product attention without bias takes PyTorch's fused
    kernel unless the weights are wanted, or the rows are so short that a CPU is faster without.
    """
    by_hand = torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    short = query_BHTA.device.type == "cpu" and keys_BHSA.shape[2] <= SHORT
    if isinstance(score, ScaledDotScore) and bias is None and not need_weights:
        if short and by_hand:
            return short_attention(query_BHTA, keys_BHSA, values_BHSV, mask, dropout), None
        if not short:
            context = F.scaled_dot_product_attention(
                query_BHTA, keys_BHSA, values_BHSV, mask, dropout
            )
            return context, None
    scores = score(query_BHTA, keys_BHSA)
    weights = masked_softmax(scores if bias is None else scores + bias, mask)
    context = drop(weights, dropout) @ values_BHSV
    return context, weights if need_weights else None


def split_heads(x_BTD: Tensor, num_heads: int) -> Tensor:
    """(B, T, H * A) -> (B, H, T, A)."""
    batch, length, _ = x_BTD.shape
    return x_BTD.view(batch, length, num_heads, -1).transpose(1, 2)


def merge_heads(x_BHTA: Tensor) -> Tensor:
    """(B, H, T, A) -> (B, T, H * A)."""
    return x_BHTA.transpose(1, 2).flatten(2)


class KeyValue(NamedTuple):
    """What attention needs of its memory: keys (B, H, S, A) and values (B, H, S, V)."""

    keys: Tensor
    values: Tensor


def fold(query_RTD: Tensor, memory: KeyValue) -> Tensor:
    """Make the hypotheses of a sentence queries of its one row: (B * K, T, D) -> (B, K * T, D).

    Beams then need no copies of the memory, and ask it in one product.
    """
    return query_RTD.reshape(memory.keys.shape[0], -1, query_RTD.shape[-1])


def unfold(
    context_BTD: Tensor, weights: Tensor | None, query_RTD: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Undo ``fold``: return the context (R, T, D) and the weights (R, H, T, S) of R rows."""
    rows, length = query_RTD.shape[:2]
    context = context_BTD.reshape(rows, length, -1)
    if weights is None or weights.shape[0] == rows:
        return context, weights
    batch, heads, _, keys = weights.shape
    apart = weights.view(batch, heads, rows // batch, length, keys).transpose(1, 2)
    return context, apart.reshape(rows, heads, length, keys)


class Attention(nn.Module):
    """The attention of recurrent models: raw encoder states as values, no output projection.

    Queries and keys are projected to ``d_attention`` where the score needs it: always for
    ``additive`` and ``scaled_dot`` (Bahdanau et al. 2015, A.1.2; Vaswani et al. 2017, 3.2.2), and
    for ``dot`` and ``general`` only where the widths differ.
    """

    def __init__(
        self, score: str, d_query: int, d_memory: int, d_attention: int, num_heads: int = 1
    ) -> None:
        super().__init__()
        learned = score in ("additive", "scaled_dot")
        self.num_heads = num_heads
        self.query: nn.Module = (
            nn.Linear(d_query, d_attention, bias=False)
            if learned or d_query != d_attention
            else nn.Identity()
        )
        self.key: nn.Module = (
            nn.Linear(d_memory, d_attention)
            if learned or d_memory != d_attention
            else nn.Identity()
        )
        self.score = SCORES[score](num_heads, d_attention // num_heads)

    def prepare(self, memory_BSE: Tensor) -> KeyValue:
        """Project the memory; once per sentence, not once per step."""
        keys = self.score.prepare(split_heads(self.key(memory_BSE), self.num_heads))
        return KeyValue(keys, split_heads(memory_BSE, self.num_heads))

    def forward(
        self,
        query_BTD: Tensor,
        memory: KeyValue,
        mask_BS: Tensor,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the context (B, T, E) and, if asked for, the weights (B, H, T, S).

        There may be K queries a row of the memory, (B * K, T, D), sentence by sentence.
        """
        query = split_heads(self.query(fold(query_BTD, memory)), self.num_heads)
        context, weights = attend(
            self.score,
            query,
            memory.keys,
            memory.values,
            mask_BS[:, None, None, :],
            need_weights=need_weights,
        )
        return unfold(merge_heads(context), weights, query_BTD)


class MultiHeadAttention(nn.Module):
    """Vaswani et al. 2017, section 3.2.2, over any score function and position encoding.

    Weights begin as in Glorot and Bengio 2010, equation 16; queries, keys and values ``gain`` times
    as large.
    """

    def __init__(
        self, score: str, d_model: int, num_heads: int, dropout: float = 0.0, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.d_model = num_heads, dropout, d_model
        # One matrix for queries, keys and values: self-attention is then one product, not three.
        self.qkv = Linear(d_model, 3 * d_model)
        self.out = Linear(d_model, d_model)
        self.score = SCORES[score](num_heads, d_model // num_heads)
        for block in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(block, gain)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def prepare(self, memory: Tensor, packing: Packing | None = None) -> KeyValue:
        """Project another sequence's states, (B, S, D) or packed (N, D), for cross-attention."""
        d = self.d_model
        projected = linear(memory, self.qkv.weight[d:], self.qkv.bias[d:])
        keys, values = self._heads(projected, 2, packing)
        return KeyValue(self.score.prepare(keys), values)

    def attend_to(
        self,
        x: Tensor,
        memory: KeyValue,
        mask: Tensor | None,
        need_weights: bool = False,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Cross-attention: ``x`` asks, prepared keys and values answer; returns a tensor like x.

        There may be K rows of x a row of the memory, (B * K, T, D), sentence by sentence.
        """
        d = self.d_model
        projected = linear(x, self.qkv.weight[:d], self.qkv.bias[:d])
        folded = fold(projected, memory) if packing is None else projected
        (query,) = self._heads(folded, 1, packing)
        out, weights = self._finish(query, memory, mask, None, need_weights, packing)
        return unfold(out, weights, x) if packing is None else (out, weights)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        positions: Positions,
        past: KeyValue | None = None,
        need_weights: bool = False,
        packing: Packing | None = None,
    ) -> tuple[Tensor, KeyValue, Tensor | None]:
        """Self-attention over ``past`` and ``x``, (B, T, D) or packed (N, D).

        Returns the output like x, keys and values of past and present together, and the weights
        (B, H, T, S) if asked for.
        """
        query, key, value = self._heads(self.qkv(x), 3, packing)
        offset = 0 if past is None else past.keys.shape[2]
        query, key = positions.rotate(query, offset), positions.rotate(key, offset)
        present = KeyValue(self.score.prepare(key), value)
        if past is not None:
            present = KeyValue(
                torch.cat([past.keys, present.keys], 2), torch.cat([past.values, value], 2)
            )
        bias = positions.bias(query, offset, present.keys.shape[2])
        out, weights = self._finish(query, present, mask, bias, need_weights, packing)
        return out, present, weights

    def _finish(
        self,
        query: Tensor,
        memory: KeyValue,
        mask: Tensor | None,
        bias: Tensor | None,
        need_weights: bool,
        packing: Packing | None,
    ) -> tuple[Tensor, Tensor | None]:
        context, weights = attend(
            self.score,
            query,
            memory.keys,
            memory.values,
            mask,
            bias=bias,
            dropout=self.dropout if self.training else 0.0,
            need_weights=need_weights,
        )
        out: Tensor = self.out(merge_heads(context) if packing is None else packing.merge(context))
        return out, weights

    def _heads(self, x: Tensor, parts: int, packing: Packing | None) -> tuple[Tensor, ...]:
        """(B, T, P * D) or packed (N, P * D) -> P times (B, H, T, A)."""
        if packing is not None:
            return packing.heads(x, parts, self.num_heads)
        return tuple(split_heads(part, self.num_heads) for part in x.chunk(parts, -1))


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return (T, T), True where query t may see key s: s <= t."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
