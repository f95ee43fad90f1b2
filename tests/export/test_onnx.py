"""The graphs compute what the recurrent models compute, over every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tiny
from dragoman.data.batching import pad, ragged
from dragoman.data.tokenizers import BOS
from dragoman.errors import DragomanError
from dragoman.export.onnx import check
from dragoman.export.recurrent import encoder_graph, step_graph
from dragoman.export.weights import plain_weights

onnx = pytest.importorskip("onnx", reason="needs dragoman[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs dragoman[onnx]")


def session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", [name for name in tiny.ZOO if name.startswith("rnn")])
def test_every_step_gives_the_same_logits(name: str) -> None:
    model = tiny.build(tiny.ZOO[name], dtype=torch.float32)
    weights = plain_weights(model)
    encoder = session(encoder_graph(model.config, weights))
    step = session(step_graph(model.config, weights))
    memory_names = [output.name for output in encoder.get_outputs()]
    state_names = [output.name.removeprefix("new_") for output in step.get_outputs()][1:]
    assert {given.name for given in step.get_inputs()} == {"token", *memory_names}
    for lengths in ([1, 5, 2], [3]):  # sizes are open
        table = ragged(tiny.sentences(lengths, seed=len(lengths)))
        source = pad(table)
        known = dict(
            zip(
                memory_names,
                encoder.run(memory_names, {"source": source, "lengths": table.lengths}),
                strict=True,
            )
        )
        token = torch.full((len(lengths),), BOS)
        with torch.no_grad():
            memory = model.encode(torch.from_numpy(source), torch.from_numpy(table.lengths))
            state = model.init_state(memory)
            for _ in range(4):
                expected, state = model.decode_step(token, state, memory)
                found, *new = step.run(None, {"token": token.numpy(), **known})
                np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
                known.update(zip(state_names, new, strict=True))
                token = expected.argmax(-1)
                assert known.keys() == set(memory_names), "new state goes where the old one was"


def test_transformers_are_sent_to_the_other_format() -> None:
    with pytest.raises(DragomanError, match=r"^model\.name: .*'transformer'.*--format ctranslate2"):
        check(tiny.transformer())
