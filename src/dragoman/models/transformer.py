"""Encoder-decoder Transformer (Vaswani et al. 2017), pre- or post-norm, any position encoding.

Shapes: B batch, S source length, T target length, N real target tokens, D width, H heads,
A width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dragoman.config import TransformerConfig
from dragoman.data.batching import Batch, length_mask
from dragoman.models.attention import KeyValue, MultiHeadAttention, causal_mask
from dragoman.models.embeddings import build_embeddings
from dragoman.models.fast.dropout import dropout, relu_dropout
from dragoman.models.fast.linear import Linear
from dragoman.models.fast.packing import Packing
from dragoman.models.positions import POSITIONS, Positions


class TransformerMemory(NamedTuple):
    """The source as decoders see it: its mask, and keys and values for every decoder layer."""

    mask_BS: Tensor
    cross: tuple[KeyValue, ...]


class TransformerState(NamedTuple):
    """Keys and values of the target so far, for every decoder layer; (B, H, t, A) each."""

    past: tuple[KeyValue, ...]


class FeedForward(nn.Module):
    """Two linear layers with ReLU or GELU between them, or SwiGLU (Shazeer 2020, eq. 6)."""

    def __init__(self, d_model: int, d_ff: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.inner = Linear(d_model, 2 * d_ff if activation == "swiglu" else d_ff)
        self.outer = Linear(d_ff, d_model)
        self.activation, self.dropout = activation, dropout
        for layer in (self.inner, self.outer):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., D)."""
        hidden = self.inner(x)
        if self.activation == "relu":
            hidden = relu_dropout(hidden, self.dropout, self.training)
        elif self.activation == "gelu":
            hidden = dropout(F.gelu(hidden), self.dropout, self.training)
        else:
            gate, hidden = hidden.chunk(2, -1)
            hidden = dropout(F.silu(gate) * hidden, self.dropout, self.training)
        out: Tensor = self.outer(hidden)
        return out


class Residual(nn.Module):
    """x + f(norm(x)) before, or norm(x + f(x)) after (Xiong et al. 2020, figure 1)."""

    def __init__(self, d_model: int, dropout: float, pre: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.dropout, self.pre = dropout, pre

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Run one sub-layer with its norm, dropout and residual connection."""
        out = sublayer(self.norm(x) if self.pre else x)
        x = dropout(out, self.dropout, self.training, residual=x)
        return x if self.pre else self.norm(x)


def _inherit(value: float | None, default: float) -> float:
    return default if value is None else value


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, and feed-forward."""

    def __init__(self, config: TransformerConfig, cross: bool) -> None:
        super().__init__()
        c = config
        pre = c.norm == "pre"
        weights_dropout = _inherit(c.attention_dropout, c.dropout)
        attention = (c.attention, c.d_model, c.num_heads, weights_dropout, c.attention_gain)
        self.self_attention = MultiHeadAttention(*attention)
        self.self_residual = Residual(c.d_model, c.dropout, pre)
        if cross:
            self.cross_attention = MultiHeadAttention(*attention)
            self.cross_residual = Residual(c.d_model, c.dropout, pre)
        self.feed_forward = FeedForward(
            c.d_model, c.d_ff, c.activation, _inherit(c.activation_dropout, c.dropout)
        )
        self.feed_residual = Residual(c.d_model, c.dropout, pre)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        positions: Positions,
        past: KeyValue | None = None,
        memory: tuple[KeyValue, Tensor] | None = None,
        weights: dict[str, Tensor] | None = None,
        name: str = "",
        packing: Packing | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Return the states, like x, and this layer's keys and values so far."""
        present: list[KeyValue] = []

        def keep(kind: str, found: Tensor | None) -> None:
            if weights is not None and found is not None:
                weights[f"{name}.{kind}"] = found

        def self_attention(y: Tensor) -> Tensor:
            out, now, found = self.self_attention(
                y, mask, positions, past, weights is not None, packing
            )
            present.append(now)
            keep("self", found)
            return out  # type: ignore[no-any-return]

        x = self.self_residual(x, self_attention)
        if memory is not None:
            cross, memory_mask = memory

            def cross_attention(y: Tensor) -> Tensor:
                out, found = self.cross_attention.attend_to(
                    y, cross, memory_mask, weights is not None, packing
                )
                keep("cross", found)
                return out

            x = self.cross_residual(x, cross_attention)
        return self.feed_residual(x, self.feed_forward), present[0]


class Stack(nn.Module):
    """The layers of the encoder or of the decoder, their positions and the last norm."""

    def __init__(self, config: TransformerConfig, num_layers: int, decoder: bool) -> None:
        super().__init__()
        self.name = "decoder" if decoder else "encoder"
        self.layers = nn.ModuleList(Layer(config, decoder) for _ in range(num_layers))
        encoding = POSITIONS[config.positions]
        self.positions = nn.ModuleList(
            encoding(config.d_model, config.num_heads, config.max_positions, decoder)
            for _ in range(num_layers if encoding.per_layer else 1)
        )
        # Post-norm layers end in a norm; pre-norm ones leave the sum of all branches unscaled.
        pre = config.norm == "pre"
        self.norm: nn.Module = nn.LayerNorm(config.d_model) if pre else nn.Identity()
        self.scale = math.sqrt(config.d_model)
        self.dropout = _inherit(config.embedding_dropout, config.dropout)

    def embed(self, embedded: Tensor, offset: int = 0, packing: Packing | None = None) -> Tensor:
        """Scale the embeddings (Vaswani et al. 2017, 3.4) and add positions."""
        positions: Positions = self.positions[0]  # type: ignore[assignment]
        length = embedded.shape[1] if packing is None else packing.mask_BL.shape[1]
        vectors = positions.added(offset, length)
        x = embedded * self.scale
        if vectors is not None:
            x = x + (vectors if packing is None else vectors[packing.places_N]).to(x.dtype)
        return dropout(x, self.dropout, self.training)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past: tuple[KeyValue, ...] | None = None,
        cross: tuple[KeyValue, ...] | None = None,
        cross_mask: Tensor | None = None,
        weights: dict[str, Tensor] | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, tuple[KeyValue, ...]]:
        """Run all layers; return the states, like x, and every layer's keys and values."""
        present = []
        for number, layer in enumerate(self.layers):
            x, now = layer(
                x,
                mask,
                self.positions[number % len(self.positions)],
                past=None if past is None else past[number],
                memory=None if cross is None else (cross[number], cross_mask),
                weights=weights,
                name=f"{self.name}.{number}",
                packing=packing,
            )
            present.append(now)
        return self.norm(x), tuple(present)


class TransformerSeq2Seq(nn.Module):
    """The Transformer behind the contract of ``dragoman.models.seq2seq``."""

    fast = True  # False: padded grids all the way

    def __init__(self, config: TransformerConfig, src_vocab: int, tgt_vocab: int) -> None:
        super().__init__()
        self.config = config
        self.src_embedding, self.tgt_embedding, self.output = build_embeddings(
            config.tie_embeddings,
            config.d_model,
            config.d_model,
            src_vocab,
            tgt_vocab,
            config.word_dropout,
        )
        self.encoder = Stack(config, config.encoder_layers, decoder=False)
        self.decoder = Stack(config, config.decoder_layers, decoder=True)

    def encode(
        self,
        src_BS: Tensor,
        src_lengths_B: Tensor,
        weights: dict[str, Tensor] | None = None,
    ) -> TransformerMemory:
        """Encode the source and project it for every decoder layer."""
        packing = self._packing(src_lengths_B, weights)
        if packing is None:
            mask_BS, tokens = length_mask(src_lengths_B, src_BS.shape[1]), src_BS
        else:
            mask_BS, tokens = packing.mask_BL, src_BS[packing.rows_N, packing.places_N]
        x = self.encoder.embed(self.src_embedding(tokens), packing=packing)
        mask = mask_BS[:, None, None, :]
        states, _ = self.encoder(x, mask, weights=weights, packing=packing)
        cross = tuple(
            layer.cross_attention.prepare(states, packing=packing)  # type: ignore[union-attr, operator]
            for layer in self.decoder.layers
        )
        return TransformerMemory(mask_BS, cross)

    def _packing(self, lengths_B: Tensor, weights: dict[str, Tensor] | None) -> Packing | None:
        """Return how to leave padding out, or None where grids are wanted or better.

        A GPU would have to wait for the number of tokens, and does grids of one shape faster; a
        compiler would have to compile for every number of tokens.
        """
        grids = lengths_B.device.type != "cpu" or torch.compiler.is_compiling()
        if not self.fast or weights is not None or grids:
            return None
        return Packing(lengths_B)

    def init_state(self, memory: TransformerMemory) -> TransformerState:
        """Return empty caches."""
        empty = memory.cross[0].keys[:, :, :0]
        return TransformerState(
            tuple(KeyValue(empty, empty) for _ in range(self.config.decoder_layers))
        )

    def decode_step(
        self,
        token_B: Tensor,
        state: TransformerState,
        memory: TransformerMemory,
        weights: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, TransformerState]:
        """Decode one position against the cache."""
        x = self.decoder.embed(self.tgt_embedding(token_B[:, None]), state.past[0].keys.shape[2])
        x, past = self.decoder(
            x,
            None,  # the one query may see every cached position
            past=state.past,
            cross=memory.cross,
            cross_mask=memory.mask_BS[:, None, None, :],
            weights=weights,
        )
        return self.project(x[:, 0]), TransformerState(past)

    def project(self, states_ND: Tensor) -> Tensor:
        """Return logits (N, V)."""
        logits: Tensor = self.output(states_ND)
        return logits

    def forward(
        self,
        batch: Batch,
        teacher_forcing_BT: Tensor | None = None,
        weights: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Return decoder states (N, D) at the real target positions.

        Where teacher forcing is off, a first pass over the references gives the guesses that the
        second is fed (two-pass scheduled sampling, Mihaylova and Martins 2019, section 3).
        """
        memory = self.encode(batch.src_BS, batch.src_lengths_B, weights)
        packing, tokens = self._packing(batch.tgt_lengths_B, weights), batch.tgt_in_BT
        if teacher_forcing_BT is not None and not bool(teacher_forcing_BT.all()):
            with torch.no_grad():
                best_N = self.project(self._decode(batch, tokens, memory, packing)).argmax(-1)
                guesses = tokens.new_zeros(tokens.numel())
                guesses = guesses.index_copy(0, batch.tgt_places_N, best_N).view_as(tokens)
            shifted = torch.cat([tokens[:, :1], guesses[:, :-1]], 1)
            tokens = torch.where(teacher_forcing_BT, tokens, shifted)
        return self._decode(batch, tokens, memory, packing, weights)

    def _decode(
        self,
        batch: Batch,
        tokens_BT: Tensor,
        memory: TransformerMemory,
        packing: Packing | None,
        weights: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the states (N, D) at the batch's real positions, given all tokens before them."""
        tokens, length = tokens_BT, tokens_BT.shape[1]
        if packing is not None:
            tokens, length = tokens[packing.rows_N, packing.places_N], packing.mask_BL.shape[1]
        # Padding follows the real tokens, so the causal mask already hides it from them.
        states, _ = self.decoder(
            self.decoder.embed(self.tgt_embedding(tokens), packing=packing),
            causal_mask(length, tokens.device),
            cross=memory.cross,
            cross_mask=memory.mask_BS[:, None, None, :],
            weights=weights,
            packing=packing,
        )
        if packing is not None:
            return states  # type: ignore[no-any-return]
        return batch.at_targets(states)
