"""Encoder-decoder Transformer (Vaswani et al. 2017), pre- or post-norm, any position encoding.

Shapes: B batch, R rows (one or more hypotheses of each sentence of the batch), S source length,
T target length, N real target tokens, D width, H heads, A width of a head, V vocabulary. States
``x`` are (B, T, D), or as the ``layout`` of a batch has them.

How weights begin:

| weights | first values |
|---|---|
| embeddings | N(0, 1 / D); multiplied by sqrt(D) before the first layer |
| queries, keys, values, of D x D each | Glorot and Bengio 2010, eq. 16, times ``attention_gain`` |
| all other matrices | Glorot and Bengio 2010, eq. 16 |
| biases | 0 |
| layer norms | gain 1, bias 0 |
| learned, Shaw and T5 positions | N(0, 1 / D); N(0, 0.02^2) both |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dragoman.config import TransformerConfig
from dragoman.data.batching import Batch
from dragoman.models.attention import (
    Grid,
    KeyValue,
    Layout,
    Mask,
    MultiHeadAttention,
    Weights,
    causal_mask,
)
from dragoman.models.embeddings import build_embeddings
from dragoman.models.fast import Linear, activate_and_drop, drop, pack
from dragoman.models.positions import POSITIONS, Positions


class TransformerMemory(NamedTuple):
    """The source as decoders see it: its mask, and keys and values for every decoder layer."""

    mask_BS: Tensor
    cross: tuple[KeyValue, ...]


class TransformerState(NamedTuple):
    """Keys and values of the target so far, for every decoder layer; (R, H, t, A) each."""

    past: tuple[KeyValue, ...]


def swiglu(x: Tensor) -> Tensor:
    """Return half of x, gated by the other half: Shazeer 2020, equation 6."""
    gate, hidden = x.chunk(2, -1)
    return F.silu(gate) * hidden


class FeedForward(nn.Module):
    """Two linear layers and an activation between them: Vaswani et al. 2017, equation 2."""

    def __init__(self, d_model: int, d_ff: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.activation, width = ACTIVATIONS[activation]
        self.inner = Linear(d_model, width * d_ff)
        self.outer = Linear(d_ff, d_model)
        self.dropout = dropout
        for layer in (self.inner, self.outer):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        hidden = activate_and_drop(self.activation, self.inner(x), self.dropout, self.training)
        out: Tensor = self.outer(hidden)
        return out


class PostNorm(nn.Module):
    """norm(x + f(x)) (Vaswani et al. 2017, section 3.1)."""

    # What follows the last layer: here each layer ends in a norm.
    last: ClassVar[type[nn.Module]] = nn.Identity

    def __init__(self, d_model: int, dropout: float) -> None:
        super().__init__()
        self.norm: Callable[[Tensor], Tensor] = nn.LayerNorm(d_model)
        self.dropout = dropout

    def enter(self, x: Tensor) -> Tensor:
        """Return what the sub-layer f sees."""
        return x

    def leave(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the new states, of the old and of what f gave."""
        return self.norm(drop(out, self.dropout, self.training, residual=x))


class PreNorm(PostNorm):
    """x + f(norm(x)) (Xiong et al. 2020, figure 1); it leaves the sum of all branches unscaled."""

    last = nn.LayerNorm

    def enter(self, x: Tensor) -> Tensor:
        """Return what the sub-layer f sees."""
        return self.norm(x)

    def leave(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the new states, of the old and of what f gave."""
        return drop(out, self.dropout, self.training, residual=x)


def _inherit(value: float | None, default: float) -> float:
    return default if value is None else value


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, and feed-forward."""

    def __init__(self, config: TransformerConfig, cross: bool, name: str = "") -> None:
        super().__init__()
        c, norm = config, NORMS[config.norm]
        weights_dropout = _inherit(c.attention_dropout, c.dropout)
        attention = (c.attention, c.d_model, c.num_heads, weights_dropout, c.attention_gain)
        self.self_attention = MultiHeadAttention(*attention, f"{name}.self")
        self.self_residual = norm(c.d_model, c.dropout)
        if cross:
            self.cross_attention = MultiHeadAttention(*attention, f"{name}.cross")
            self.cross_residual = norm(c.d_model, c.dropout)
        inner_dropout = _inherit(c.activation_dropout, c.dropout)
        self.feed_forward = FeedForward(c.d_model, c.d_ff, c.activation, inner_dropout)
        self.feed_residual = norm(c.d_model, c.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Mask,
        positions: Positions,
        past: KeyValue | None,
        memory: tuple[KeyValue, Tensor] | None,
        layout: Layout,
    ) -> tuple[Tensor, KeyValue]:
        """Return the states, like x, and this layer's keys and values so far."""
        y = self.self_residual.enter(x)
        y, present = self.self_attention(y, mask, positions, past, layout)
        x = self.self_residual.leave(x, y)
        if memory is not None:
            y = self.cross_residual.enter(x)
            x = self.cross_residual.leave(x, self.cross_attention.attend_to(y, *memory, layout))
        y = self.feed_forward(self.feed_residual.enter(x))
        return self.feed_residual.leave(x, y), present


class Stack(nn.Module):
    """The layers of the encoder or of the decoder, their positions and the last norm."""

    def __init__(self, config: TransformerConfig, num_layers: int, decoder: bool) -> None:
        super().__init__()
        c, name = config, "decoder" if decoder else "encoder"
        self.layers = nn.ModuleList(Layer(c, decoder, f"{name}.{n}") for n in range(num_layers))
        encoding = POSITIONS[c.positions]
        self.positions = nn.ModuleList(
            encoding(c.d_model, c.num_heads, c.max_positions, decoder)
            for _ in range(num_layers if encoding.per_layer else 1)
        )
        self.norm = NORMS[c.norm].last(c.d_model)
        self.scale = math.sqrt(c.d_model)
        self.dropout = _inherit(c.embedding_dropout, c.dropout)

    def forward(
        self,
        embedded: Tensor,
        mask: Mask,
        past: tuple[KeyValue, ...] | None,
        memory: TransformerMemory | None,
        layout: Layout,
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """Run all layers; return the states, like x, and every layer's keys and values.

        ``mask`` is as wide as the sentences are long; None is for one position after the ``past``.
        """
        offset = 0 if past is None else past[0].keys.shape[2]
        x = embedded * self.scale  # Vaswani et al. 2017, section 3.4
        vectors = self.positions[0].added(offset, 1 if mask is None else mask.shape[-1])  # type: ignore[operator]
        if vectors is not None:
            x = x + layout.along(vectors).to(x.dtype)
        x, present = drop(x, self.dropout, self.training), []
        for number, layer in enumerate(self.layers):
            positions = self.positions[number % len(self.positions)]
            before = None if past is None else past[number]
            cross = memory and (memory.cross[number], memory.mask_BS[:, None, None, :])
            x, now = layer(x, mask, positions, before, cross, layout)
            present.append(now)
        return self.norm(x), tuple(present)


class TransformerSeq2Seq(nn.Module):
    """The Transformer behind the contract of ``dragoman.models.seq2seq``."""

    fast = True  # False: padded grids all the way

    def __init__(self, config: TransformerConfig, src_vocab: int, tgt_vocab: int) -> None:
        super().__init__()
        self.config = c = config
        self.src_embedding, self.tgt_embedding, self.output = build_embeddings(
            c.tie_embeddings, c.d_model, c.d_model, src_vocab, tgt_vocab, c.word_dropout
        )
        self.encoder = Stack(c, c.encoder_layers, decoder=False)
        self.decoder = Stack(c, c.decoder_layers, decoder=True)
        # The last layer but one aligns best (Garg et al. 2019, section 4.1).
        self.alignment_layer = f"decoder.{max(0, c.decoder_layers - 2)}.cross"

    def encode(
        self, src_BS: Tensor, src_lengths_B: Tensor, weights: Weights | None = None
    ) -> TransformerMemory:
        """Encode the source and project it for every decoder layer."""
        layout = self._layout(src_lengths_B, weights)
        mask_BS = layout.mask(src_lengths_B, src_BS.shape[1])
        embedded = self.src_embedding(layout.pick(src_BS))
        x, _ = self.encoder(embedded, mask_BS[:, None, None, :], None, None, layout)
        cross = [layer.cross_attention.prepare(x, layout) for layer in self.decoder.layers]  # type: ignore[union-attr, operator]
        return TransformerMemory(mask_BS, tuple(cross))

    def _layout(self, lengths_B: Tensor, weights: Weights | None) -> Layout:
        """Return how sentences lie in memory: without padding, unless their grid is wanted."""
        packed = pack(lengths_B) if self.fast and weights is None else None
        return packed or Grid(weights)

    def init_state(self, memory: TransformerMemory) -> TransformerState:
        """Return empty caches."""
        empty = memory.cross[0].keys[:, :, :0]
        return TransformerState(tuple(KeyValue(empty, empty) for _ in memory.cross))

    def decode_step(
        self,
        token_R: Tensor,
        state: TransformerState,
        memory: TransformerMemory,
        weights: Weights | None = None,
    ) -> tuple[Tensor, TransformerState]:
        """Decode one position against the cache, all of which it may see."""
        embedded = self.tgt_embedding(token_R[:, None])
        x, past = self.decoder(embedded, None, state.past, memory, Grid(weights))
        return self.project(x[:, 0]), TransformerState(past)

    def project(self, states_ND: Tensor) -> Tensor:
        """Return logits (N, V)."""
        logits: Tensor = self.output(states_ND)
        return logits

    def forward(
        self, batch: Batch, teacher_forcing_BT: Tensor | None = None, weights: Weights | None = None
    ) -> Tensor:
        """Return decoder states (N, D) at the real target positions.

        Where teacher forcing is off, a first pass over the references gives the guesses that the
        second is fed (two-pass scheduled sampling, Mihaylova and Martins 2019, section 3).
        """
        memory = self.encode(batch.src_BS, batch.src_lengths_B, weights)
        layout, tokens = self._layout(batch.tgt_lengths_B, weights), batch.tgt_in_BT
        if teacher_forcing_BT is not None and not bool(teacher_forcing_BT.all()):
            with torch.no_grad():
                best_N = self.project(self._decode(batch, tokens, memory, layout)).argmax(-1)
                guesses = tokens.new_zeros(tokens.numel())
                guesses = guesses.index_copy(0, batch.tgt_places_N, best_N).view_as(tokens)
            shifted = torch.cat([tokens[:, :1], guesses[:, :-1]], 1)
            tokens = torch.where(teacher_forcing_BT, tokens, shifted)
        return self._decode(batch, tokens, memory, layout)

    def _decode(
        self, batch: Batch, tokens_BT: Tensor, memory: TransformerMemory, layout: Layout
    ) -> Tensor:
        """Return the states (N, D) at the batch's real positions, given all tokens before them."""
        length = layout.mask(batch.tgt_lengths_B, tokens_BT.shape[1]).shape[1]
        # Padding follows the real tokens, so the causal mask already hides it from them.
        mask = causal_mask(length, tokens_BT.device)
        embedded = self.tgt_embedding(layout.pick(tokens_BT))
        x, _ = self.decoder(embedded, mask, None, memory, layout)
        return layout.real(x, batch)


# A function, and how many times as wide as the inner layer what it is given must be.
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "relu": (F.relu, 1),
    "gelu": (F.gelu, 1),
    "swiglu": (swiglu, 2),
}

NORMS: dict[str, type[PostNorm]] = {"pre": PreNorm, "post": PostNorm}
