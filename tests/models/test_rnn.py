"""The recurrent models against their papers' equations, one sentence and one number at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from dragoman.data.batching import Batch

EXACT = {"rtol": 0, "atol": 1e-11}


def lstm_step(
    x: Tensor, h: Tensor, c: Tensor, w: Tensor, u: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    i, f, g, o = (w @ x + u @ h + b).chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def encode(model: Any, source: Tensor, layers: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return states (S, E) and the last hidden and cell state of every layer, both directions."""
    parameters = dict(model.encoder.rnn.named_parameters())
    inputs = list(model.src_embedding.weight[source])
    hiddens, cells = [], []
    for layer in range(layers):
        outs, last = [], []
        for suffix in ("", "_reverse"):
            w, u, b1, b2 = (
                parameters[f"{name}_l{layer}{suffix}"]
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            h = c = torch.zeros(u.shape[1], dtype=torch.float64)
            states = []
            for x in reversed(inputs) if suffix else inputs:
                h, c = lstm_step(x, h, c, w, u, b1 + b2)
                states.append(h)
            outs.append(states[::-1] if suffix else states)
            last.append((h, c))
        inputs = [torch.cat(both) for both in zip(*outs, strict=True)]
        hiddens.append(torch.cat([h for h, _ in last]))
        cells.append(torch.cat([c for _, c in last]))
    return torch.stack(inputs), hiddens, cells


@pytest.mark.parametrize("layers", [1, 2])
def test_encoder_reads_every_sentence_to_its_own_end(layers: int, batch: Batch) -> None:
    model = tiny.build(tiny.rnn(encoder_layers=layers, decoder_layers=layers, bridge="copy"))
    memory = model.encode(batch.src_BS, batch.src_lengths_B)
    for row, length in enumerate(batch.src_lengths_B.tolist()):
        states, hiddens, cells = encode(model, batch.src_BS[row, :length], layers)
        torch.testing.assert_close(memory.keys.values[row, 0, :length], states, **EXACT)
        # bridge=copy: the decoder starts from [forward; backward] of the same layer
        torch.testing.assert_close(memory.first.hidden_RLD[row], torch.stack(hiddens), **EXACT)
        torch.testing.assert_close(memory.first.cell_RLD[row], torch.stack(cells), **EXACT)


@pytest.mark.parametrize(
    ("encoder_layers", "decoder_layers", "sources"),
    [(1, 1, [0]), (1, 3, [0, 0, 0]), (2, 1, [1]), (2, 3, [0, 0, 1]), (3, 2, [1, 2])],
)
def test_the_bridge_joins_the_layers_from_the_top(
    encoder_layers: int, decoder_layers: int, sources: list[int], batch: Batch
) -> None:
    model = tiny.build(tiny.rnn(encoder_layers=encoder_layers, decoder_layers=decoder_layers))
    memory = model.encode(batch.src_BS, batch.src_lengths_B)
    length = int(batch.src_lengths_B[0])
    _, hiddens, cells = encode(model, batch.src_BS[0, :length], encoder_layers)
    for layer, source in enumerate(sources):
        for bridge, last, found in (
            (model.bridge, hiddens, memory.first.hidden_RLD),
            (model.cell_bridge, cells, memory.first.cell_RLD),
        ):
            expected = torch.tanh(bridge.dense[layer](last[source]))
            torch.testing.assert_close(found[0, layer], expected, **EXACT)


def additive(model: Any, query: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Bahdanau et al. 2015, A.1.2: return the context and the weights."""
    a = model.attention
    keys = states @ a.key.weight.t() + a.key.bias
    scores = torch.tanh(keys + a.query.weight @ query) @ a.score.v_HA[0]
    weights = scores.softmax(0)
    return weights @ states, weights


def cell_step(model: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    cell = model.cells[0]
    return lstm_step(x, h, c, cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh)


@pytest.mark.parametrize("readout", ["tanh", "concat"])
@pytest.mark.parametrize("wiring", ["luong", "luong-no-feeding", "bahdanau"])
def test_decoder_is_its_equations(wiring: str, readout: str, batch: Batch) -> None:
    config = tiny.rnn(
        wiring=wiring.split("-")[0], input_feeding="no" not in wiring, readout=readout
    )
    model = tiny.build(config)
    expected, looks = [], []
    for row in range(len(batch.src_BS)):
        length = int(batch.src_lengths_B[row])
        states, hiddens, cells = encode(model, batch.src_BS[row, :length], 1)
        h = torch.tanh(model.bridge.dense[0](hiddens[0]))
        c = torch.tanh(model.cell_bridge.dense[0](cells[0]))
        feed = torch.zeros(model.d_feed, dtype=torch.float64)
        for token in batch.tgt_in_BT[row, : batch.tgt_lengths_B[row]]:
            y = model.tgt_embedding.weight[token]
            if wiring == "bahdanau":  # the old state asks; its context is part of the input
                context, weights = additive(model, h, states)
                h, c = cell_step(model, torch.cat([y, context]), h, c)
            else:  # the new state asks
                h, c = cell_step(model, torch.cat([y, feed]), h, c)
                context, weights = additive(model, h, states)
            if readout == "tanh":  # Luong et al. 2015, equation 5
                out = feed = torch.tanh(model.readout(torch.cat([h, context])))
            else:
                out, feed = torch.cat([h, context, y]), context
            if wiring != "luong":
                feed = torch.zeros(0, dtype=torch.float64)
            expected.append(out)
            looks.append(weights)
    found: dict[str, Tensor] = {}
    states = model(batch, weights=found)
    torch.testing.assert_close(states, torch.stack(expected), **EXACT)
    weights_NS = found["decoder.attention"][:, 0][batch.tgt_mask_BT]
    for row_S, weights in zip(weights_NS, looks, strict=True):
        torch.testing.assert_close(row_S[: len(weights)], weights, **EXACT)


def test_dropout_acts_between_layers_on_embeddings_and_on_the_readout(batch: Batch) -> None:
    for changes in (
        {"dropout": 0.5, "embedding_dropout": 0.0},
        {"dropout": 0.0, "embedding_dropout": 0.5},
    ):
        model = tiny.build(tiny.rnn(encoder_layers=2, decoder_layers=2, **changes))
        plain = model(batch)
        assert torch.equal(plain, model(batch))
        model.train()
        assert not torch.allclose(model(batch), model(batch))
        readout_zeros = (model(batch) == 0).double().mean()
        if changes["dropout"]:
            assert 0.4 < readout_zeros < 0.6
        else:
            assert readout_zeros == 0
