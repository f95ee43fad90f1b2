"""Recurrent models as two ONNX graphs, for ONNX Runtime and whatever else reads ONNX.

``encoder.onnx`` runs once per sentence: source ids and lengths in, the memory and the decoder's
first state out. ``step.onnx`` runs once per target token: one token, state and memory in, the
logits of the next token and the new state out. What the encoder gives, the step takes under the
same name; each ``new_x`` of a step is the ``x`` of the next.

PyTorch's exporter traces the model's own ``encode`` and ``decode_step``. It is the older one
(``dynamo=False``): the newer one freezes the batch size of recurrent layers. Neither is given
packed sequences: the layers of ONNX take the lengths of their rows as an input.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dragoman.config import Config
from dragoman.data.tokenizers import BOS, EOS, PAD
from dragoman.decoding.translator import Translator
from dragoman.export.limits import model_limits, refuse, require, search_limits
from dragoman.export.usage import usage_files
from dragoman.models.attention import KeyValue
from dragoman.models.rnn import Encoder, RNNMemory, RNNSeq2Seq, RNNState

# Old enough for every ONNX Runtime of the last years.
_OPSET = 17
# What is known to come out of the exporter as it went in.
_SCORES = ("additive", "dot", "scaled_dot", "general", "none")
# Search settings that the program in the folder has not.
UNSUPPORTED = ("replace_unknown", "no_repeat_ngram", "min_length")
# Places of the sizes that stay open; in every other input or output that is the batch alone.
_OPEN = {
    "source": {0: "batch", 1: "length"},
    "mask": {0: "batch", 1: "length"},
    "keys": {0: "batch", 2: "length"},
    "values": {0: "batch", 2: "length"},
}


def limits(config: Config) -> list[str]:
    """Return what of a run cannot be written, a message each."""
    return [
        *model_limits(config, "the ONNX export", "rnn", {"attention": _SCORES}),
        *search_limits(config, "the ONNX export", UNSUPPORTED),
    ]


def export(translator: Translator, quantization: str, origin: str) -> dict[str, bytes]:
    """Return the files of the folder by name.

    Raises:
        DragomanError: if ONNX is not installed, or for a model or search it is not for.
    """
    refuse(limits(translator.config))
    require("onnx")
    encoder, step = graphs(cast(RNNSeq2Seq, translator.models[0]))
    settings = {"pad": PAD, "bos": BOS, "eos": EOS}
    files = {"encoder.onnx": encoder, "step.onnx": step}
    return files | usage_files(translator, "onnx", origin, settings)


def graphs(model: RNNSeq2Seq) -> tuple[bytes, bytes]:
    """Return the graphs of the encoder and of a step of the decoder."""
    model = copy.deepcopy(model).cpu().float().eval()
    _unpack(model.encoder)
    for cell in model.cells:
        _as_layer(cell)
    source, lengths = torch.zeros(2, 3, dtype=torch.long), torch.tensor([2, 3])
    with torch.no_grad():
        memory = model.encode(source, lengths)
    known, state = _known(memory), _parts(memory.first)

    def encode(source: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return tuple(_known(model.encode(source, lengths)).values())

    def step(token: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        found = dict(zip(known, given, strict=True))
        none = given[0].new_zeros(token.shape[0], 0)  # what a model has not is of width 0
        hidden, feed = found["hidden"], found.get("feed", none)
        before = RNNState(hidden, found.get("cell", hidden[..., :0]), feed)
        keys = KeyValue(found.get("keys", none), found.get("values", none))
        around = RNNMemory(found.get("mask", none), keys, before)
        logits, after = model.decode_step(token, before, around)
        return logits, *_parts(after).values()

    return (
        _graph(model, encode, {"source": source, "lengths": lengths}, list(known)),
        _graph(model, step, {"token": lengths} | known, ["logits", *(f"new_{n}" for n in state)]),
    )


def _parts(state: RNNState) -> dict[str, Tensor]:
    """Return a state by name: a GRU has no cell, and not every wiring a feed."""
    named = {"hidden": state.hidden_RLD, "cell": state.cell_RLD, "feed": state.feed_RF}
    return {name: part for name, part in named.items() if part.shape[-1]}


def _known(memory: RNNMemory) -> dict[str, Tensor]:
    """Return the first state, and what attention needs of the memory, by name."""
    found = {"keys": memory.keys.keys, "values": memory.keys.values, "mask": memory.mask_BS}
    return _parts(memory.first) | (found if memory.keys.keys.shape[-1] else {})


def _unpack(encoder: Encoder) -> None:
    """Have an encoder run over its padding: the graph's own layers are told the lengths."""

    def forward(x: Tensor, lengths_B: Tensor, fast: bool) -> tuple[Tensor, Tensor, Tensor]:
        states, last = encoder.rnn(x)
        hidden, cell = last if isinstance(last, tuple) else (last, last[..., :0])
        return states, encoder._join(hidden), encoder._join(cell)

    encoder.forward = forward  # type: ignore[method-assign]


def _as_layer(cell: nn.Module) -> None:
    """Have a cell run as a layer of one step: ONNX has no cells."""
    weights: list[Tensor] = list(cell.parameters())
    how = (True, 1, 0.0, False, False, False)  # biases, one layer, evaluation, one direction

    def lstm(x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        _, hidden, after = torch.lstm(x[None], [part[None] for part in state], weights, *how)
        return hidden[0], after[0]

    def gru(x: Tensor, hidden: Tensor) -> Tensor:
        return torch.gru(x[None], hidden[None], weights, *how)[1][0]

    cell.forward = lstm if isinstance(cell, nn.LSTMCell) else gru


class _Traced(nn.Module):
    """What the exporter takes: a function, and the model that has the weights."""

    def __init__(self, model: nn.Module, compute: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.forward = model, compute


def _graph(
    model: nn.Module,
    compute: Callable[..., tuple[Tensor, ...]],
    inputs: dict[str, Tensor],
    outputs: list[str],
) -> bytes:
    """Return the graph of a function over the model, checked."""
    import onnx

    stream: Any = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter is deprecated, and cannot know that no size is frozen: the tests do.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Traced(model, compute),
            tuple(inputs.values()),
            stream,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes={name: _OPEN.get(name, {0: "batch"}) for name in (*inputs, *outputs)},
            opset_version=_OPSET,
            dynamo=False,
        )
    graph = onnx.load_from_string(stream.getvalue())
    if "lengths" in inputs:
        _tell_lengths(graph.graph)
    onnx.checker.check_model(graph, full_check=True)
    return bytes(graph.SerializeToString())


def _tell_lengths(graph: Any) -> None:
    """Have the layers of the encoder's graph end every row where it ends."""
    from onnx import TensorProto, helper

    if "lengths" not in [given.name for given in graph.input]:  # attention alone asks for them
        lengths = helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"])
        graph.input.append(lengths)
    short = helper.make_node("Cast", ["lengths"], ["lengths_int32"], to=TensorProto.INT32)
    graph.node.insert(0, short)
    for node in graph.node:
        if node.op_type in ("LSTM", "GRU"):
            node.input[4] = short.output[0]
