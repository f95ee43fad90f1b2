"""Recurrent models in ONNX operations: the encoder with the bridge, and one step of the decoder.

What ``dragoman.models.rnn`` and ``dragoman.models.attention`` compute, without dropout and for one
hypothesis a sentence.

Shapes: B batch, S source length, E width of the memory, D width of the decoder, H heads, L decoder
layers, A width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dragoman.config import RNNConfig
from dragoman.export.graph import Graph
from dragoman.export.weights import Weights

# PyTorch's order of the gates (i f g o; r z n) in ONNX's (i o f c; z r h).
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}


def _recur(
    graph: Graph,
    cell: str,
    x: str,
    weights: Weights,
    names: Sequence[str],
    lengths: str = "",
    first: Sequence[str] = (),
) -> list[str]:
    """Add an LSTM or GRU of one layer over x (S, B, I).

    Args:
        graph: where to.
        cell: ``lstm`` or ``gru``.
        x: the inputs.
        weights: of the model.
        names: of the weights, per direction, with ``{}`` for ``weight_ih`` and so on.
        lengths: real lengths (B), int32; empty: all.
        first: the first hidden state and, for an LSTM, cell (directions, B, hidden).

    Returns:
        All states (S, directions, B, hidden), and the last state and cell as ``first``.
    """

    def stack(*parts: str) -> Tensor:
        """Return (directions, gates * hidden, ...) in ONNX's order of gates."""
        return torch.stack(
            [
                torch.cat([
                    weights[name.format(part)].chunk(len(_GATES[cell]))[gate]
                    for part in parts
                    for gate in _GATES[cell]
                ])
                for name in names
            ]
        )  # fmt: skip

    recurrent = stack("weight_hh")
    # PyTorch's GRU resets after the recurrent product (Cho et al. 2014 before it).
    attributes = {"linear_before_reset": 1} if cell == "gru" else {}
    return graph.many(
        3 if cell == "lstm" else 2,
        cell.upper(),
        x,
        stack("weight_ih"),
        recurrent,
        stack("bias_ih", "bias_hh"),
        lengths,
        *first,
        hidden_size=recurrent.shape[2],
        direction="bidirectional" if len(names) == 2 else "forward",
        **attributes,
    )


def encoder_graph(c: RNNConfig, weights: Weights) -> bytes:
    """Return the graph from source ids (B, S) and lengths (B) to memory and first state."""
    graph = Graph()
    source = graph.input("source", np.int64, "batch", "length")
    lengths = graph.input("lengths", np.int64, "batch")
    lengths32 = graph("Cast", lengths, to=6)  # int32, as recurrent layers want it
    batch = graph("Shape", source, start=0, end=1)
    x = graph("Transpose", graph("Gather", weights["src_embedding.weight"], source), perm=[1, 0, 2])
    hidden: list[str] = []  # of every layer at its end, (B, E)
    cell: list[str] = []
    for layer in range(c.encoder_layers):
        sides = ("", "_reverse") if c.bidirectional else ("",)
        names = [f"encoder.rnn.{{}}_l{layer}{side}" for side in sides]
        states, *last = _recur(graph, c.cell, x, weights, names, lengths32)
        x = graph("Reshape", graph("Transpose", states, perm=[0, 2, 1, 3]), [0, 0, -1])
        for ends, end in zip((hidden, cell), last, strict=False):
            ends.append(graph("Reshape", graph("Transpose", end, perm=[1, 0, 2]), [0, -1]))
    for name, bridge, ends in (("hidden", "bridge", hidden), ("cell", "cell_bridge", cell)):
        if ends:
            first = _bridge(graph, c, weights, bridge, ends, batch)
            graph.output(name, first, np.float32, "batch", c.decoder_layers, c.d_model)
    if feed := _feed_width(c, weights):
        shape = graph("Concat", batch, [feed], axis=0)
        graph.output("feed", graph("Expand", torch.zeros(1, 1), shape), np.float32, "batch", feed)
    if c.attention != "none":
        memory = graph("Transpose", x, perm=[1, 0, 2])
        _memory(graph, c, weights, memory, source, lengths)
    return graph.write("encoder")


def _bridge(
    graph: Graph, c: RNNConfig, weights: Weights, name: str, ends: list[str], batch: str
) -> str:
    """Add the decoder's first states (B, L, D) from the encoder's last ones."""
    if c.bridge == "zeros":
        shape = graph("Concat", batch, [c.decoder_layers, c.d_model], axis=0)
        return graph("Expand", torch.zeros(1, 1, 1), shape)
    shift = c.encoder_layers - c.decoder_layers
    rows = []
    for layer in range(c.decoder_layers):
        row = ends[max(0, layer + shift)]
        if c.bridge == "dense":
            row = graph("Tanh", graph.linear(row, weights, f"{name}.dense.{layer}"))
        rows.append(graph("Unsqueeze", row, [1]))
    return graph("Concat", *rows, axis=1)


def _feed_width(c: RNNConfig, weights: Weights) -> int:
    """Return how wide the part of the state that is fed back is; 0: there is none."""
    if c.wiring != "luong":
        return 0
    return weights["cells.0.weight_ih"].shape[1] - c.d_embed


def _memory(
    graph: Graph, c: RNNConfig, weights: Weights, memory: str, source: str, lengths: str
) -> None:
    """Declare keys, values and mask of the memory (B, S, E) outputs."""

    def split(x: str) -> str:
        return graph("Transpose", graph("Reshape", x, [0, 0, c.num_heads, -1]), perm=[0, 2, 1, 3])

    keys = memory
    if "attention.key.weight" in weights:
        keys = graph.linear(memory, weights, "attention.key")
    keys = split(keys)
    if c.attention == "general":
        keys = graph("MatMul", keys, weights["attention.score.weight_HAA"].transpose(1, 2))
    places = graph(
        "Range", *(graph("Squeeze", n) for n in ([0], graph("Shape", source, start=1), [1]))
    )
    mask = graph("Less", places, graph("Unsqueeze", lengths, [1]))
    for name, value in (("keys", keys), ("values", split(memory))):
        graph.output(name, value, np.float32, *_memory_shape(c, weights)[name])
    graph.output("mask", mask, np.bool_, "batch", "length")


def _memory_shape(c: RNNConfig, weights: Weights) -> dict[str, tuple[str | int, ...]]:
    """Return the shapes of keys (B, H, S, A) and values (B, H, S, E / H)."""
    directions = 2 if c.bidirectional else 1
    memory = weights["encoder.rnn.weight_hh_l0"].shape[1] * directions
    key = weights.get("attention.key.weight")
    widths = {"keys": memory if key is None else key.shape[0], "values": memory}
    return {
        name: ("batch", c.num_heads, "length", width // c.num_heads)
        for name, width in widths.items()
    }


def step_graph(c: RNNConfig, weights: Weights) -> bytes:
    """Return the graph from tokens (B), state and memory to logits (B, V) and the new state."""
    graph = Graph()
    token = graph.input("token", np.int64, "batch")
    state = {
        name: graph.input(name, np.float32, "batch", c.decoder_layers, c.d_model)
        for name in ("hidden", "cell")[: 2 if c.cell == "lstm" else 1]
    }
    feed = _feed_width(c, weights)
    if feed:
        state["feed"] = graph.input("feed", np.float32, "batch", feed)
    if c.attention != "none":
        for name, shape in _memory_shape(c, weights).items():
            graph.input(name, np.float32, *shape)
        graph.input("mask", np.bool_, "batch", "length")
    embedded = graph("Gather", weights["tgt_embedding.weight"], token)
    # (B, L, D) -> L times (1, B, D)
    before = [
        graph.many(c.decoder_layers, "Split", graph("Transpose", state[name], perm=[1, 0, 2]))
        for name in state
        if name != "feed"
    ]
    context: list[str] = []
    if c.wiring == "bahdanau":
        top = graph("Squeeze", before[0][-1], [0])
        context = _attend(graph, c, weights, top)
        inputs = [embedded, *context]
    else:
        inputs = [embedded, *([state["feed"]] if feed else [])]
    x = graph("Unsqueeze", graph("Concat", *inputs, axis=1), [0])
    after = []
    for layer in range(c.decoder_layers):
        first = [kind[layer] for kind in before]
        _, *now = _recur(graph, c.cell, x, weights, [f"cells.{layer}.{{}}"], first=first)
        after.append(now)
        x = now[0]
    top = graph("Squeeze", x, [0])
    if c.wiring == "luong":
        context = _attend(graph, c, weights, top)
    if c.readout == "tanh":
        joined = graph("Concat", top, *context, axis=1)
        out = graph("Tanh", graph.linear(joined, weights, "readout"))
        new_feed = [out]
    else:
        out = graph("Concat", top, *context, embedded, axis=1)
        new_feed = context
    logits = graph.linear(out, weights, "output")
    graph.output("logits", logits, np.float32, "batch", weights["output.bias"].shape[0])
    for name, layers in zip(("hidden", "cell"), zip(*after, strict=True), strict=False):
        joined = graph("Transpose", graph("Concat", *layers, axis=0), perm=[1, 0, 2])
        graph.output(f"new_{name}", joined, np.float32, "batch", c.decoder_layers, c.d_model)
    if feed:
        graph.output("new_feed", new_feed[0], np.float32, "batch", feed)
    return graph.write("step")


def _attend(graph: Graph, c: RNNConfig, weights: Weights, query: str) -> list[str]:
    """Add attention of the query (B, D); return the context (B, E), or nothing without it."""
    if c.attention == "none":
        return []
    if "attention.query.weight" in weights:
        query = graph.linear(query, weights, "attention.query")
    query = graph("Reshape", query, [0, c.num_heads, 1, -1])
    if c.attention == "additive":
        v_HA1 = weights["attention.score.v_HA"][:, :, None]
        hidden = graph("Tanh", graph("Add", query, "keys"))
        scores = graph("Transpose", graph("MatMul", hidden, v_HA1), perm=[0, 1, 3, 2])
    else:
        if c.attention == "scaled_dot":
            width = weights["attention.query.weight"].shape[0] // c.num_heads
            query = graph("Mul", query, torch.tensor(width**-0.5))
        scores = graph("MatMul", query, graph("Transpose", "keys", perm=[0, 1, 3, 2]))
    hide = torch.tensor(torch.finfo(torch.float32).min)
    scores = graph("Where", graph("Unsqueeze", "mask", [1, 2]), scores, hide)
    context = graph("MatMul", graph("Softmax", scores, axis=-1), "values")
    return [graph("Reshape", context, [0, -1])]
