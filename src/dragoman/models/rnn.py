"""Recurrent encoder-decoder with attention (Bahdanau et al. 2015, Luong et al. 2015).

Shapes: B batch, R rows (one or more hypotheses of each sentence of the batch), S source length,
T target length, N real target tokens, E width of the memory, D width of the decoder, F width of
what is fed back, H heads, L decoder layers, V vocabulary.

Two wirings. ``luong``: the new state asks, and [state; context] is read out (and, with input
feeding, is part of the next input). ``bahdanau``: the old state asks, the context is part of the
input, and the new state is read out.

How weights begin, those of the output layer where it is not tied:

| weights | first values |
|---|---|
| embeddings | N(0, 1 / width) |
| LSTM and GRU cells, biases included | uniform within 1 / sqrt(width of the state) |
| bridge, readout, the attention's projections | uniform within 1 / sqrt(width of the input) |
| output layer | Glorot and Bengio 2010, eq. 16; bias 0 |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dragoman.config import RNNConfig
from dragoman.data.batching import Batch, length_mask
from dragoman.models.attention import Attention, KeyValue, Weights
from dragoman.models.embeddings import build_embeddings
from dragoman.models.fast import Step, Unrolled, drop, guesser, sweep


class RNNState(NamedTuple):
    """The decoder between two steps. GRUs have cells of width 0; so is ``feed`` without feeding."""

    hidden_RLD: Tensor
    cell_RLD: Tensor
    feed_RF: Tensor


class RNNMemory(NamedTuple):
    """The encoded source: its mask, its states and their keys, and the decoder's first state."""

    mask_BS: Tensor
    keys: KeyValue
    first: RNNState


class Encoder(nn.Module):
    """LSTM or GRU over packed sequences, in one direction or both."""

    def __init__(self, config: RNNConfig, hidden: int) -> None:
        super().__init__()
        c = config
        kind = nn.LSTM if c.cell == "lstm" else nn.GRU
        self.rnn = kind(
            c.d_embed,
            hidden,
            c.encoder_layers,
            batch_first=True,
            bidirectional=c.bidirectional,
            dropout=c.dropout if c.encoder_layers > 1 else 0.0,
        )

    def forward(self, x: Tensor, lengths_B: Tensor, fast: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return states (B, S, E), and the last hidden states and cells (layers, B, E)."""
        if fast and torch.is_grad_enabled():
            return sweep(self.rnn, x, length_mask(lengths_B, x.shape[1]))
        packed = pack_padded_sequence(x, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        out, last = self.rnn(packed)
        states, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        hidden, cell = last if isinstance(last, tuple) else (last, last[..., :0])
        return states, self._join(hidden), self._join(cell)

    def _join(self, last: Tensor) -> Tensor:
        """(layers * directions, B, hidden) -> (layers, B, directions * hidden)."""
        directions = 2 if self.rnn.bidirectional else 1
        apart = last.view(self.rnn.num_layers, directions, *last.shape[1:])
        return apart.transpose(1, 2).flatten(2)


class Bridge(nn.Module):
    """From the encoder's last states to the decoder's first ones."""

    def __init__(self, config: RNNConfig, kind: str, d_memory: int) -> None:
        super().__init__()
        c = config
        self.kind, self.layers, self.d_model = kind, c.decoder_layers, c.d_model
        # Top layers meet; where the decoder is deeper, its lowest ones share the encoder's lowest.
        shift = c.encoder_layers - c.decoder_layers
        self.sources = [max(0, layer + shift) for layer in range(c.decoder_layers)]
        if kind == "dense":
            self.dense = nn.ModuleList(nn.Linear(d_memory, c.d_model) for _ in self.sources)

    def forward(self, last_LBE: Tensor) -> Tensor:
        """Return first states (B, L, D)."""
        if self.kind == "zeros":
            return last_LBE.new_zeros(last_LBE.shape[1], self.layers, self.d_model)
        chosen = [last_LBE[source] for source in self.sources]
        if self.kind == "dense":
            chosen = [torch.tanh(layer(x)) for layer, x in zip(self.dense, chosen, strict=True)]
        return torch.stack(chosen, 1)


def one_step(module: nn.LSTMCell | nn.GRUCell) -> Step:
    """Return a cell as a function: (input, hidden, cell) -> (hidden, cell)."""
    if isinstance(module, nn.LSTMCell):
        return lambda x, hidden, cell: module(x, (hidden, cell))
    return lambda x, hidden, cell: (module(x, hidden), cell)


class RNNSeq2Seq(nn.Module):
    """The recurrent model behind the contract of ``dragoman.models.seq2seq``."""

    fast = True  # False: one step at a time, all logits of a step

    def __init__(self, config: RNNConfig, src_vocab: int, tgt_vocab: int) -> None:
        super().__init__()
        self.config = c = config
        directions = 2 if c.bidirectional else 1
        hidden = c.encoder_hidden or c.d_model // directions
        d_memory = hidden * directions
        self.attending = c.attention != "none"
        self.feeding = c.wiring == "luong" and c.input_feeding
        d_context = d_memory if self.attending else 0
        d_tanh = c.d_embed if c.tie_embeddings != "none" else c.d_model
        d_readout = c.d_model + d_context + c.d_embed if c.readout == "concat" else d_tanh
        self.src_embedding, self.tgt_embedding, self.output = build_embeddings(
            c.tie_embeddings, c.d_embed, d_readout, src_vocab, tgt_vocab, c.word_dropout
        )
        self.encoder = Encoder(c, hidden)
        self.bridge = Bridge(c, c.bridge, d_memory)
        self.cell_bridge = Bridge(c, c.bridge if c.cell == "lstm" else "copy", d_memory)
        if self.attending:
            width = c.attention_dim or c.d_model
            self.attention = Attention(c.attention, c.d_model, d_memory, width, c.num_heads)
        if c.readout == "tanh":
            self.readout = nn.Linear(c.d_model + d_context, d_tanh)
        # What is fed back: the attentional state, or the bare context where there is none.
        d_fed = d_tanh if c.readout == "tanh" else d_context
        self.d_feed = d_fed if self.feeding else 0
        d_input = c.d_embed + (d_context if c.wiring == "bahdanau" else self.d_feed)
        cell = nn.LSTMCell if c.cell == "lstm" else nn.GRUCell
        inputs = [d_input, *[c.d_model] * (c.decoder_layers - 1)]
        self.cells = nn.ModuleList(cell(width, c.d_model) for width in inputs)
        # Whether a step needs the context or the readout of the step before.
        self.looping = self.feeding or (c.wiring == "bahdanau" and self.attending)
        self.embedding_dropout = c.dropout if c.embedding_dropout is None else c.embedding_dropout
        self.readout_dropout = c.dropout if c.readout_dropout is None else c.readout_dropout
        self.alignment_layer = Attention.name if self.attending else None

    def _embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        return drop(table(tokens), self.embedding_dropout, self.training)

    def encode(
        self, src_BS: Tensor, src_lengths_B: Tensor, weights: Weights | None = None
    ) -> RNNMemory:
        """Encode the source and project it to keys, once per sentence."""
        x = self._embed(self.src_embedding, src_BS)
        states, hidden, cell = self.encoder(x, src_lengths_B, self.fast)
        feed = states.new_zeros(src_BS.shape[0], self.d_feed)
        first = RNNState(self.bridge(hidden), self.cell_bridge(cell), feed)
        nothing = states[..., :0]
        keys = self.attention.prepare(states) if self.attending else KeyValue(nothing, nothing)
        return RNNMemory(length_mask(src_lengths_B, src_BS.shape[1]), keys, first)

    def init_state(self, memory: RNNMemory) -> RNNState:
        """Return the bridge's states."""
        return memory.first

    def _attend(self, query_RTD: Tensor, memory: RNNMemory, weights: Weights | None) -> Tensor:
        """Return the context (R, T, E), of width 0 without attention."""
        if not self.attending:
            return query_RTD[..., :0]
        context: Tensor = self.attention(query_RTD, memory.keys, memory.mask_BS, weights)
        return context

    def _recur(self, x: Tensor, state: RNNState, cells: Sequence[Step]) -> tuple[Tensor, Tensor]:
        """Run the cells of all layers one step; return hidden and cell states (R, L, D)."""
        after = []
        # Taken apart at once: the gradient of an index would be a whole tensor of zeros each time.
        before = zip(state.hidden_RLD.unbind(1), state.cell_RLD.unbind(1), strict=True)
        for layer, (step, (hidden, cell)) in enumerate(zip(cells, before, strict=True)):
            if layer:
                x = drop(x, self.config.dropout, self.training)
            x, cell = step(x, hidden, cell)
            after.append((x, cell))
        hidden_RLD, cell_RLD = (torch.stack(states, 1) for states in zip(*after, strict=True))
        return hidden_RLD, cell_RLD

    def _read(self, top: Tensor, context: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the output layer sees, and what is fed back; any leading dimensions."""
        if self.config.readout == "concat":
            out, feed = torch.cat([top, context, embedded], -1), context
        else:
            out = feed = torch.tanh(self.readout(torch.cat([top, context], -1)))
        return drop(out, self.readout_dropout, self.training), feed

    def _step(
        self,
        embedded_RE: Tensor,
        state: RNNState,
        memory: RNNMemory,
        cells: Sequence[Step],
        weights: Weights | None,
    ) -> tuple[Tensor, RNNState]:
        """Run one step; return what the output layer sees, and the new state."""
        old_asks, fed = self.config.wiring == "bahdanau", state.feed_RF
        if old_asks:
            top = state.hidden_RLD.unbind(1)[-1]
            fed = context = self._attend(top[:, None], memory, weights).squeeze(1)
        hidden, cell = self._recur(torch.cat([embedded_RE, fed], -1), state, cells)
        top = hidden.unbind(1)[-1]
        if not old_asks:
            context = self._attend(top[:, None], memory, weights).squeeze(1)
        out, feed = self._read(top, context, embedded_RE)
        return out, RNNState(hidden, cell, feed if self.feeding else state.feed_RF)

    def decode_step(
        self, token_R: Tensor, state: RNNState, memory: RNNMemory, weights: Weights | None = None
    ) -> tuple[Tensor, RNNState]:
        """Decode one position."""
        embedded = self._embed(self.tgt_embedding, token_R)
        cells = [one_step(module) for module in self.cells]  # type: ignore[arg-type]
        out, state = self._step(embedded, state, memory, cells, weights)
        return self.project(out), state

    def project(self, states_ND: Tensor) -> Tensor:
        """Return logits (N, V)."""
        logits: Tensor = self.output(states_ND)
        return logits

    def forward(
        self, batch: Batch, teacher_forcing_BT: Tensor | None = None, weights: Weights | None = None
    ) -> Tensor:
        """Return the states (N, D) that the output layer sees, at the real target positions.

        Where teacher forcing is off, a row is fed its own best guess of the step before
        (Bengio et al. 2015).
        """
        memory = self.encode(batch.src_BS, batch.src_lengths_B)
        embedded_BTE = self._embed(self.tgt_embedding, batch.tgt_in_BT)
        rows, steps = batch.tgt_in_BT.shape
        cells = [
            Unrolled(module, steps, rows) if self.fast else one_step(module)  # type: ignore[arg-type]
            for module in self.cells
        ]
        state, outs, looks = memory.first, list[Tensor](), list[Tensor]()
        if self.fast and teacher_forcing_BT is None and not self.looping:
            # Nothing is fed back but the state: only the cells go step by step.
            for embedded in embedded_BTE.unbind(1):
                hidden, cell = self._recur(embedded, state, cells)
                state = RNNState(hidden, cell, state.feed_RF)
                outs.append(hidden.unbind(1)[-1])
            top_BTD = torch.stack(outs, 1)
            out_BTD, _ = self._read(top_BTD, self._attend(top_BTD, memory, weights), embedded_BTE)
            return batch.at_targets(out_BTD)
        project: Callable[[Tensor], Tensor] = self.project
        if self.fast and teacher_forcing_BT is not None:
            project = guesser(self.output, embedded_BTE.dtype)
        for t, embedded in enumerate(embedded_BTE.unbind(1)):
            if t > 0 and teacher_forcing_BT is not None:
                # Guesses cost a whole projection: only for rows that go on and are not told.
                asked = ~teacher_forcing_BT[:, t] & (batch.tgt_lengths_B > t)
                free = asked.nonzero()[:, 0]
                if len(free):
                    with torch.no_grad():
                        guesses = project(outs[-1][free]).argmax(-1)
                    own = self._embed(self.tgt_embedding, guesses)
                    embedded = embedded.index_copy(0, free, own)
            out, state = self._step(embedded, state, memory, cells, weights)
            outs.append(out)
            if weights is not None and self.attending:
                looks.append(weights[Attention.name])
        if weights is not None and self.attending:
            weights[Attention.name] = torch.cat(looks, 2)
        return batch.at_targets(torch.stack(outs, 1))
