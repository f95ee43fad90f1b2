"""Recurrent encoder-decoder with attention (Bahdanau et al. 2015, Luong et al. 2015).

Shapes: B batch, S source length, T target length, N real target tokens, E width of the memory,
D width of the decoder, H heads, L decoder layers, V vocabulary.

Two wirings. ``luong``: the new state asks, and [state; context] is read out (and, with input
feeding, is part of the next input). ``bahdanau``: the old state asks, the context is part of the
input, and the new state is read out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dragoman.config import RNNConfig
from dragoman.data.batching import Batch, length_mask
from dragoman.models.attention import Attention, KeyValue
from dragoman.models.embeddings import build_embeddings
from dragoman.models.fast.cells import Step, Unrolled, one_step, sweep
from dragoman.models.fast.dropout import dropout
from dragoman.models.fast.linear import aligned, product


class RNNState(NamedTuple):
    """The decoder between two steps. ``cell`` is empty for GRUs, ``feed`` without input feeding."""

    hidden_BLD: Tensor
    cell_BLD: Tensor
    feed_BF: Tensor


class RNNMemory(NamedTuple):
    """The encoded source, its projected keys, and the decoder's first state."""

    states_BSE: Tensor
    mask_BS: Tensor
    keys: KeyValue
    first: RNNState


class Encoder(nn.Module):
    """LSTM or GRU over packed sequences, in one direction or both."""

    def __init__(self, config: RNNConfig, hidden: int) -> None:
        super().__init__()
        cell = nn.LSTM if config.cell == "lstm" else nn.GRU
        self.rnn = cell(
            config.d_embed,
            hidden,
            config.encoder_layers,
            batch_first=True,
            bidirectional=config.bidirectional,
            dropout=config.dropout if config.encoder_layers > 1 else 0.0,
        )

    def forward(
        self, x: Tensor, lengths_B: Tensor, fast: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return states (B, S, E), the last hidden states (layers, B, E) and cells, if any."""
        if fast and torch.is_grad_enabled():
            return self._sweep(x, length_mask(lengths_B, x.shape[1]))
        packed = pack_padded_sequence(x, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        out, last = self.rnn(packed)
        states, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        if isinstance(last, tuple):
            return states, self._join(last[0]), self._join(last[1])
        return states, self._join(last), None

    def _sweep(self, x: Tensor, mask_BS: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Do the same with gradients that cost less."""
        hidden, cell = [], []
        directions = ("", "_reverse") if self.rnn.bidirectional else ("",)
        for layer in range(self.rnn.num_layers):
            if layer:
                x = dropout(x, self.rnn.dropout, self.training)
            swept = [
                sweep(self.rnn, f"l{layer}{direction}", x, mask_BS) for direction in directions
            ]
            x = torch.cat([states for states, _, _ in swept], -1)
            hidden.append(torch.cat([last for _, last, _ in swept], -1))
            cell.append(torch.cat([last for _, _, last in swept], -1))
        lstm = isinstance(self.rnn, nn.LSTM)
        return x, torch.stack(hidden), torch.stack(cell) if lstm else None

    def _join(self, last: Tensor) -> Tensor:
        """(layers * directions, B, hidden) -> (layers, B, directions * hidden)."""
        directions = 2 if self.rnn.bidirectional else 1
        _, batch, hidden = last.shape
        return last.view(-1, directions, batch, hidden).transpose(1, 2).flatten(2)


class Bridge(nn.Module):
    """From the encoder's last states to the decoder's first ones."""

    def __init__(self, config: RNNConfig, d_memory: int) -> None:
        super().__init__()
        self.kind, self.layers, self.d_model = config.bridge, config.decoder_layers, config.d_model
        # Top layers meet; where the decoder is deeper, its lowest ones share the encoder's lowest.
        shift = config.encoder_layers - config.decoder_layers
        self.sources = [max(0, layer + shift) for layer in range(config.decoder_layers)]
        if config.bridge == "dense":
            self.dense = nn.ModuleList(
                nn.Linear(d_memory, config.d_model) for _ in range(config.decoder_layers)
            )

    def forward(self, last_LBE: Tensor) -> Tensor:
        """Return first states (B, L, D)."""
        if self.kind == "zeros":
            return last_LBE.new_zeros(last_LBE.shape[1], self.layers, self.d_model)
        chosen = [last_LBE[source] for source in self.sources]
        if self.kind == "dense":
            chosen = [torch.tanh(layer(x)) for layer, x in zip(self.dense, chosen, strict=True)]
        return torch.stack(chosen, 1)


class RNNSeq2Seq(nn.Module):
    """The recurrent model behind the contract of ``dragoman.models.seq2seq``."""

    fast = True  # False: one step at a time, all logits of a step

    def __init__(self, config: RNNConfig, src_vocab: int, tgt_vocab: int) -> None:
        super().__init__()
        self.config = c = config
        directions = 2 if c.bidirectional else 1
        hidden = c.encoder_hidden or c.d_model // directions
        d_memory = hidden * directions
        d_context = d_memory if c.attention != "none" else 0
        self.attending = c.attention != "none"
        self.feeding = c.wiring == "luong" and c.input_feeding
        d_tanh = c.d_embed if c.tie_embeddings != "none" else c.d_model
        d_readout = c.d_model + d_context + c.d_embed if c.readout == "concat" else d_tanh
        self.src_embedding, self.tgt_embedding, self.output = build_embeddings(
            c.tie_embeddings, c.d_embed, d_readout, src_vocab, tgt_vocab, c.word_dropout
        )
        self.encoder = Encoder(c, hidden)
        self.bridge = Bridge(c, d_memory)
        self.cell_bridge = Bridge(c, d_memory) if c.cell == "lstm" else None
        if self.attending:
            width = c.attention_dim or c.d_model
            self.attention = Attention(c.attention, c.d_model, d_memory, width, c.num_heads)
        if c.readout == "tanh":
            self.readout = nn.Linear(c.d_model + d_context, d_tanh)
        # What is fed back: the attentional state, or the bare context where there is none.
        self.d_feed = 0
        if self.feeding:
            self.d_feed = d_tanh if c.readout == "tanh" else d_context
        d_input = c.d_embed + (d_context if c.wiring == "bahdanau" else self.d_feed)
        cell = nn.LSTMCell if c.cell == "lstm" else nn.GRUCell
        self.cells = nn.ModuleList(
            cell(d_input if layer == 0 else c.d_model, c.d_model)
            for layer in range(c.decoder_layers)
        )
        # Whether a step needs the context or the readout of the step before.
        self.looping = self.feeding or (c.wiring == "bahdanau" and self.attending)
        self.embedding_dropout = c.dropout if c.embedding_dropout is None else c.embedding_dropout
        self.readout_dropout = c.dropout if c.readout_dropout is None else c.readout_dropout

    def _embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        return dropout(table(tokens), self.embedding_dropout, self.training)

    def encode(
        self,
        src_BS: Tensor,
        src_lengths_B: Tensor,
        weights: dict[str, Tensor] | None = None,
    ) -> RNNMemory:
        """Encode the source and project it to keys, once per sentence."""
        x = self._embed(self.src_embedding, src_BS)
        states, hidden, cell = self.encoder(x, src_lengths_B, self.fast)
        first_hidden = self.bridge(hidden)
        batch = src_BS.shape[0]
        empty = states.new_zeros(batch, 0)
        first = RNNState(
            first_hidden,
            empty[:, None] if self.cell_bridge is None else self.cell_bridge(cell),
            states.new_zeros(batch, self.d_feed),
        )
        keys = self.attention.prepare(states) if self.attending else KeyValue(empty, empty)
        return RNNMemory(states, length_mask(src_lengths_B, src_BS.shape[1]), keys, first)

    def init_state(self, memory: RNNMemory) -> RNNState:
        """Return the bridge's states."""
        return memory.first

    def _attend(
        self, query_BTD: Tensor, memory: RNNMemory, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the context (B, T, E), of width 0 without attention, and the weights."""
        if not self.attending:
            return query_BTD[..., :0], None
        found: tuple[Tensor, Tensor | None] = self.attention(
            query_BTD, memory.keys, memory.mask_BS, need_weights
        )
        return found

    def _recur(self, x: Tensor, state: RNNState, cells: Sequence[Step]) -> tuple[Tensor, Tensor]:
        """Run the cells of all layers one step; return hidden and cell states (B, L, D)."""
        hidden, cell = [], []
        # Taken apart at once: the gradient of an index would be a whole tensor of zeros each time.
        hidden_before, cell_before = state.hidden_BLD.unbind(1), state.cell_BLD.unbind(1)
        for layer, step in enumerate(cells):
            if layer:
                x = dropout(x, self.config.dropout, self.training)
            # A GRU has no cells to carry: they are of width 0.
            before = cell_before[layer if self.cell_bridge is not None else 0]
            x, after = step(x, hidden_before[layer], before)
            hidden.append(x)
            cell.append(after)
        carried = state.cell_BLD if self.cell_bridge is None else torch.stack(cell, 1)
        return torch.stack(hidden, 1), carried

    def _read(self, top: Tensor, context: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the output layer sees, and what is fed back; any leading dimensions."""
        if self.config.readout == "concat":
            out, feed = torch.cat([top, context, embedded], -1), context
        else:
            out = feed = torch.tanh(self.readout(torch.cat([top, context], -1)))
        return dropout(out, self.readout_dropout, self.training), feed

    def _step(
        self,
        embedded_BE: Tensor,
        state: RNNState,
        memory: RNNMemory,
        cells: Sequence[Step],
        need_weights: bool,
    ) -> tuple[Tensor, RNNState, Tensor | None]:
        """Run one step; return what the output layer sees, the new state and the weights."""
        if self.config.wiring == "bahdanau":
            asking = state.hidden_BLD.unbind(1)[-1]
            context, weights = self._attend(asking[:, None], memory, need_weights)
            x = torch.cat([embedded_BE, context.squeeze(1)], -1)
            hidden, cell = self._recur(x, state, cells)
            top = hidden.unbind(1)[-1]
        else:
            x = torch.cat([embedded_BE, state.feed_BF], -1)
            hidden, cell = self._recur(x, state, cells)
            top = hidden.unbind(1)[-1]
            context, weights = self._attend(top[:, None], memory, need_weights)
        out, feed = self._read(top, context.squeeze(1), embedded_BE)
        return out, RNNState(hidden, cell, feed if self.feeding else state.feed_BF), weights

    def decode_step(
        self,
        token_B: Tensor,
        state: RNNState,
        memory: RNNMemory,
        weights: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, RNNState]:
        """Decode one position."""
        embedded = self._embed(self.tgt_embedding, token_B)
        cells = [one_step(module) for module in self.cells]  # type: ignore[arg-type]
        out, state, found = self._step(embedded, state, memory, cells, weights is not None)
        if weights is not None and found is not None:
            weights["decoder.attention"] = found
        return self.project(out), state

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
        """Return the states (N, D) that the output layer sees, at the real target positions.

        Where teacher forcing is off, a row is fed its own best guess of the step before
        (Bengio et al. 2015).
        """
        memory = self.encode(batch.src_BS, batch.src_lengths_B)
        state = self.init_state(memory)
        embedded_BTE = self._embed(self.tgt_embedding, batch.tgt_in_BT)
        rows, steps = batch.tgt_in_BT.shape
        cells = [
            Unrolled(module, steps, rows) if self.fast else one_step(module)  # type: ignore[arg-type]
            for module in self.cells
        ]
        if self.fast and teacher_forcing_BT is None and not self.looping:
            return self._at_once(batch, embedded_BTE, state, memory, cells, weights)
        guessing = self.fast and teacher_forcing_BT is not None
        output = aligned(self.output, embedded_BTE.dtype) if guessing else None
        outs: list[Tensor] = []
        seen: list[Tensor] = []
        for t, embedded in enumerate(embedded_BTE.unbind(1)):
            if t > 0 and teacher_forcing_BT is not None:
                # Guesses cost a whole projection: only for rows that go on and are not told.
                asked = ~teacher_forcing_BT[:, t] & (batch.tgt_lengths_B > t)
                free = asked.nonzero()[:, 0]
                if len(free):
                    guesses = self._guess(outs[-1].detach()[free], output)
                    own = self._embed(self.tgt_embedding, guesses)
                    embedded = embedded.index_copy(0, free, own)
            out, state, found = self._step(embedded, state, memory, cells, weights is not None)
            outs.append(out)
            if found is not None:
                seen.append(found)
        if weights is not None and seen:
            weights["decoder.attention"] = torch.cat(seen, 2)
        return batch.at_targets(torch.stack(outs, 1))

    @torch.no_grad()
    def _guess(self, states_RD: Tensor, output: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return the likeliest tokens (R,); the output layer may come aligned."""
        if output is None:
            return self.project(states_RD).argmax(-1)
        return product(states_RD, *output).argmax(-1)

    def _at_once(
        self,
        batch: Batch,
        embedded_BTE: Tensor,
        state: RNNState,
        memory: RNNMemory,
        cells: Sequence[Step],
        weights: dict[str, Tensor] | None,
    ) -> Tensor:
        """Decode with nothing fed back but the state: only the cells go step by step."""
        tops: list[Tensor] = []
        for embedded in embedded_BTE.unbind(1):
            hidden, cell = self._recur(embedded, state, cells)
            state = state._replace(hidden_BLD=hidden, cell_BLD=cell)
            tops.append(hidden.unbind(1)[-1])
        top_BTD = torch.stack(tops, 1)
        context, found = self._attend(top_BTD, memory, weights is not None)
        if weights is not None and found is not None:
            weights["decoder.attention"] = found
        out_BTD, _ = self._read(top_BTD, context, embedded_BTE)
        return batch.at_targets(out_BTD)
