"""The graphs compute what the recurrent models compute, over every option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tiny
from dragoman.config import Config, DecodeConfig
from dragoman.data.batching import pad
from dragoman.data.ragged import ragged
from dragoman.data.tokenizers import BOS
from dragoman.export.onnx import graphs, limits
from dragoman.models.fast.short import SHORT

onnx = pytest.importorskip("onnx", reason="needs dragoman[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs dragoman[onnx]")


def session(graph: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", [name for name in tiny.ZOO if name.startswith("rnn")])
def test_every_step_gives_the_same_logits(name: str) -> None:
    model = tiny.build(tiny.ZOO[name], dtype=torch.float32)
    encoder, step = map(session, graphs(model))
    memory_names = [output.name for output in encoder.get_outputs()]
    state_names = [output.name.removeprefix("new_") for output in step.get_outputs()][1:]
    assert {given.name for given in encoder.get_inputs()} == {"source", "lengths"}
    assert {given.name for given in step.get_inputs()} == {"token", *memory_names}
    # Sizes are open, and the second batch is longer than what attention computes by hand.
    for lengths in ([1, 5, 2], [3, SHORT + 1], [1]):
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


def test_an_export_leaves_the_model_as_it_was() -> None:
    model = tiny.build(tiny.rnn(), dtype=torch.float32)
    batch = tiny.batch([3, 1], [2, 4])
    before = model(batch)
    graphs(model)
    assert torch.equal(model(batch), before)


def test_parts_it_has_never_heard_of_are_all_named() -> None:
    decode = DecodeConfig(method="sample", min_length=2, no_repeat_ngram=3)
    found = limits(Config(model=tiny.rnn(attention="cosine"), decode=decode))
    assert [limit.partition(": ")[0] for limit in found] == [
        "model.attention",
        "decode.method",
        "decode.no_repeat_ngram",
        "decode.min_length",
    ]
    assert "has no 'cosine', expected additive, dot, scaled_dot, general or none" in found[0]


@pytest.mark.parametrize("model", [tiny.transformer(), tiny.rnn(name="mine")])
def test_other_architectures_are_refused(model: Any) -> None:
    (limit,) = limits(Config(model=model))
    assert limit.startswith("model.name: ")
    assert f"'{model.name}', expected rnn" in limit
