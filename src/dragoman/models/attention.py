"""Attention: compare queries with keys, turn the scores into weights, average the values.

Shapes: B batch, R rows (one or more hypotheses of each sentence of the batch), H heads, T queries,
S keys, A width of a head, V width of a head's values, D width of the model, E width of a recurrent
memory, N real tokens, P parts.

The score function is the seam. Every score compares vectors of one head and treats heads as one
more batch dimension, so each of them works alone (the attention of recurrent models) and side by
side in ``MultiHeadAttention``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dragoman.data.batching import Batch, length_mask
from dragoman.models.fast import Linear, Packing, affine, drop, hiding, scaled_dot_attention
from dragoman.models.positions import Positions

# Bool, True = may attend; None hides nothing.
Mask = Tensor | None

# Attention weights by name ("encoder.0.self", "decoder.2.cross", "decoder.attention"), each
# (B, H, T, S). A dict handed to a model is filled by it.
Weights = dict[str, Tensor]
# (query, keys, values, mask, dropout) -> context, or None where it would not be quicker.
Kernel = Callable[[Tensor, Tensor, Tensor, Mask, float], Tensor | None]


class Score(nn.Module):
    """Compares every query with every key, in each head by itself.

    A new score needs ``forward``; all else has a default that is right.
    """

    # Whether recurrent models project queries and keys even where both are as wide as the score.
    projects = True
    # What does all of ``attend`` at once, weights and biases apart.
    kernel: Kernel | None = None

    def __init_subclass__(cls) -> None:
        # A kernel is for the class that names it: a subclass may score otherwise.
        cls.kernel = vars(cls).get("kernel")

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

    projects = False

    def forward(self, query_BHTA: Tensor, keys_BHSA: Tensor) -> Tensor:
        """Return scores (B, H, T, S)."""
        return query_BHTA @ keys_BHSA.transpose(-2, -1)


class ScaledDotScore(Score):
    """q . k / sqrt(A): Vaswani et al. 2017, equation 1."""

    kernel = staticmethod(scaled_dot_attention)

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


def masked_softmax(scores: Tensor, mask: Mask) -> Tensor:
    """Softmax over the last dimension where ``mask`` allows it.

    A row that may attend to nothing gets zeros, not NaN and not the uniform distribution.
    """
    if mask is None:
        return scores.softmax(-1)
    weights = (scores + hiding(mask, scores)).softmax(-1)
    return weights * mask.any(-1, keepdim=True).to(scores.dtype)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return (T, T), True where query t may see key s: s <= t."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


class KeyValue(NamedTuple):
    """What attention needs of its memory: prepared keys (B, H, S, A) and values (B, H, S, V)."""

    keys: Tensor
    values: Tensor


def attend(
    score: Score,
    query_RHTA: Tensor,
    keys_BHSA: Tensor,
    values_BHSV: Tensor,
    mask: Mask,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    weights: Weights | None = None,
    name: str = "attention",
) -> Tensor:
    """Return the context (R, H, T, V): for each query the mean of the values, weighted.

    ``keys`` have been through ``score.prepare``; ``mask`` broadcasts to (B, H, T, S);
    ``bias`` is added to the scores. There may be several rows of queries for one of the memory,
    sentence by sentence. The weights (R, H, T, S) before dropout are put into ``weights``.
    """
    rows, query = len(query_RHTA), fold(query_RHTA, len(keys_BHSA))
    if score.kernel is not None and bias is None and weights is None:
        context = score.kernel(query, keys_BHSA, values_BHSV, mask, dropout)
        if context is not None:
            return unfold(context, rows)
    scores = score(query, keys_BHSA)
    shares = masked_softmax(scores if bias is None else scores + bias, mask)
    if weights is not None:
        weights[name] = unfold(shares, rows)
    return unfold(drop(shares, dropout) @ values_BHSV, rows)


def fold(query_RHTA: Tensor, batch: int) -> Tensor:
    """Make the hypotheses of a sentence queries of its one memory: (R, H, T, A) -> (B, H, K T, A).

    Beams then need no copies of the memory, and ask it in one product.
    """
    if len(query_RHTA) == batch:
        return query_RHTA
    return query_RHTA.view(batch, -1, *query_RHTA.shape[1:]).transpose(1, 2).flatten(2, 3)


def unfold(found_BHTX: Tensor, rows: int) -> Tensor:
    """Undo ``fold``, of a context or of weights: (B, H, K T, X) -> (R, H, T, X)."""
    batch, heads, _, width = found_BHTX.shape
    if rows == batch:
        return found_BHTX
    apart = found_BHTX.view(batch, heads, rows // batch, -1, width)
    return apart.transpose(1, 2).flatten(0, 1)


def split_heads(x_BTD: Tensor, num_heads: int) -> Tensor:
    """(B, T, H * A) -> (B, H, T, A)."""
    return x_BTD.view(*x_BTD.shape[:2], num_heads, -1).transpose(1, 2)


def merge_heads(x_BHTA: Tensor) -> Tensor:
    """(B, H, T, A) -> (B, T, H * A)."""
    return x_BHTA.transpose(1, 2).flatten(2)


class Grid:
    """How a batch goes through the layers: sentences side by side, padded to the longest.

    Attention puts its weights into ``weights`` where that is a dict. ``fast.Packing`` has the same
    calls, leaves the padding out, and gives no weights.
    """

    mask = staticmethod(length_mask)
    merge = staticmethod(merge_heads)

    def __init__(self, weights: Weights | None = None) -> None:
        self.weights = weights

    def pick(self, tokens_BT: Tensor) -> Tensor:
        """Return the tokens that are computed on: all."""
        return tokens_BT

    def along(self, vectors_TD: Tensor) -> Tensor:
        """Return a vector for each place, to be added to (B, T, D)."""
        return vectors_TD

    def heads(self, x_BTD: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
        """(B, T, P * H * A) -> P times (B, H, T, A)."""
        return tuple(split_heads(part, num_heads) for part in x_BTD.chunk(parts, -1))

    def real(self, states_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the states (N, D) at the batch's real targets."""
        return batch.at_targets(states_BTD)


Layout = Grid | Packing


class Attention(nn.Module):
    """The attention of recurrent models: raw encoder states as values, no output projection.

    Queries and keys are projected to ``d_attention`` where the score needs it: always for
    ``additive`` and ``scaled_dot`` (Bahdanau et al. 2015, A.1.2; Vaswani et al. 2017, 3.2.2), and
    for ``dot`` and ``general`` only where the widths differ.
    """

    name = "decoder.attention"  # of its weights

    def __init__(
        self, score: str, d_query: int, d_memory: int, d_attention: int, num_heads: int = 1
    ) -> None:
        super().__init__()
        self.num_heads, kind = num_heads, SCORES[score]
        self.query: nn.Module = nn.Identity()
        self.key: nn.Module = nn.Identity()
        if kind.projects or d_query != d_attention:
            self.query = nn.Linear(d_query, d_attention, bias=False)
        if kind.projects or d_memory != d_attention:
            self.key = nn.Linear(d_memory, d_attention)
        self.score = kind(num_heads, d_attention // num_heads)

    def prepare(self, memory_BSE: Tensor) -> KeyValue:
        """Project the memory; once per sentence, not once per step."""
        keys = self.score.prepare(split_heads(self.key(memory_BSE), self.num_heads))
        return KeyValue(keys, split_heads(memory_BSE, self.num_heads))

    def forward(
        self, query_RTD: Tensor, memory: KeyValue, mask_BS: Tensor, weights: Weights | None
    ) -> Tensor:
        """Return the context (R, T, E); put the weights (R, H, T, S) into ``weights``."""
        query = split_heads(self.query(query_RTD), self.num_heads)
        mask = mask_BS[:, None, None, :]
        context = attend(self.score, query, *memory, mask, weights=weights, name=self.name)
        return merge_heads(context)


class MultiHeadAttention(nn.Module):
    """Vaswani et al. 2017, section 3.2.2, over any score function and position encoding.

    States are (B, T, D) in a ``Grid``, else as the ``layout`` has them. The weights are kept under
    ``name``.

    Weights begin as in Glorot and Bengio 2010, equation 16, queries, keys and values ``gain`` times
    as large; biases at 0.
    """

    def __init__(
        self,
        score: str,
        d_model: int,
        num_heads: int,
        dropout: float = 0.0,
        gain: float = 1.0,
        name: str = "attention",
    ) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.d_model, self.name = num_heads, dropout, d_model, name
        # One matrix for queries, keys and values: self-attention is then one product, not three.
        self.qkv = Linear(d_model, 3 * d_model)
        self.out = Linear(d_model, d_model)
        self.score = SCORES[score](num_heads, d_model // num_heads)
        for block in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(block, gain)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def prepare(self, memory: Tensor, layout: Layout) -> KeyValue:
        """Project another sequence's states, for cross-attention; once per sentence."""
        projected = affine(memory, self.qkv.weight[self.d_model :], self.qkv.bias[self.d_model :])
        keys, values = layout.heads(projected, 2, self.num_heads)
        return KeyValue(self.score.prepare(keys), values)

    def attend_to(self, x: Tensor, memory: KeyValue, mask: Mask, layout: Layout) -> Tensor:
        """Cross-attention: ``x`` asks, prepared keys and values answer; returns a tensor like x."""
        projected = affine(x, self.qkv.weight[: self.d_model], self.qkv.bias[: self.d_model])
        (query,) = layout.heads(projected, 1, self.num_heads)
        return self._answer(query, memory, mask, None, layout)

    def forward(
        self, x: Tensor, mask: Mask, positions: Positions, past: KeyValue | None, layout: Layout
    ) -> tuple[Tensor, KeyValue]:
        """Self-attention over ``past`` and ``x``.

        Returns the output, like x, and keys and values of past and present together.
        """
        query, key, value = layout.heads(self.qkv(x), 3, self.num_heads)
        offset = 0 if past is None else past.keys.shape[2]
        query, key = positions.rotate(query, offset), positions.rotate(key, offset)
        present = KeyValue(self.score.prepare(key), value)
        if past is not None:
            present = KeyValue(*(torch.cat(pair, 2) for pair in zip(past, present, strict=True)))
        bias = positions.bias(query, offset, present.keys.shape[2])
        return self._answer(query, present, mask, bias, layout), present

    def _answer(
        self, query: Tensor, memory: KeyValue, mask: Mask, bias: Tensor | None, layout: Layout
    ) -> Tensor:
        dropout, weights = self.dropout if self.training else 0.0, layout.weights
        context = attend(self.score, query, *memory, mask, bias, dropout, weights, self.name)
        out: Tensor = self.out(layout.merge(context))
        return out


SCORES: dict[str, type[Score]] = {
    "additive": AdditiveScore,
    "dot": DotScore,
    "scaled_dot": ScaledDotScore,
    "general": GeneralScore,
}
