"""Recurrent models as two ONNX graphs, for ONNX Runtime and whatever else reads ONNX.

``encoder.onnx`` runs once per sentence: source ids and lengths in, the memory and the decoder's
first state out. ``step.onnx`` runs once per target token: one token, state and memory in, the
logits of the next token and the new state out. What the encoder gives, the step takes under the
same name; each ``new_x`` of a step is the ``x`` of the next.

The graphs are written operation by operation from the config and the weights, not traced: ONNX has
recurrent layers of its own, and every size stays open.
"""

from __future__ import annotations

from typing import Any

from dragoman.config import Config, RNNConfig
from dragoman.data.tokenizers import BOS, EOS, PAD
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError
from dragoman.export.recurrent import encoder_graph, step_graph
from dragoman.export.usage import Usage, check_search
from dragoman.export.weights import plain_weights, require


def check(config: Any) -> None:
    """Refuse what is not a recurrent model.

    Raises:
        DragomanError: naming the key and what is accepted instead.
    """
    if not isinstance(config, RNNConfig):
        raise DragomanError(
            f"model.name: ONNX graphs are written for rnn, not '{config.name}'; "
            "use --format ctranslate2"
        )


def export(translator: Translator, quantization: str) -> tuple[dict[str, bytes], Usage]:
    """Return the graphs by file name, and how they are used.

    Raises:
        DragomanError: if ONNX is not installed, or for a model it is not for.
    """
    config = translator.config
    check(config.model)
    require("onnx")
    check_search(config, "greedy() of the ONNX export", UNSUPPORTED)
    weights = plain_weights(translator.models[0])
    files = {
        "encoder.onnx": encoder_graph(config.model, weights),
        "step.onnx": step_graph(config.model, weights),
    }
    return files, _usage(config)


# Search settings that greedy() below has not.
UNSUPPORTED = ("replace_unknown", "no_repeat_ngram", "min_length")

_BODY = '''
ENCODER, STEP = (
    onnxruntime.InferenceSession(str(FOLDER / name), providers=["CPUExecutionProvider"])
    for name in ("encoder.onnx", "step.onnx")
)
MEMORY = [output.name for output in ENCODER.get_outputs()]
STATE = [output.name.removeprefix("new_") for output in STEP.get_outputs()][1:]
PAD, BOS, EOS = {specials}


def greedy(rows):
    """Return the target ids of rows of source ids: the likeliest token at every step."""
    lengths = np.array([len(row) + 1 for row in rows])
    source = np.full((len(rows), lengths.max()), PAD)
    for number, row in enumerate(rows):
        source[number, : len(row) + 1] = [*row, EOS]
    known = dict(zip(MEMORY, ENCODER.run(MEMORY, {{"source": source, "lengths": lengths}})))
    longest = np.maximum(1, (lengths - 1) * {ratio} + {extra}).astype(int)
    token, found, ended = np.full(len(rows), BOS), [], np.zeros(len(rows), bool)
    while len(found) < longest.max() and not ended.all():
        logits, *state = STEP.run(None, {{"token": token, **known}})
        known.update(zip(STATE, state))
        logits[:, [PAD, BOS]] = -np.inf
        token = logits.argmax(1)
        found.append(token)
        ended |= token == EOS
    whole = [[*row[:most], EOS] for row, most in zip(np.transpose(found).tolist(), longest)]
    return [row[: row.index(EOS)] for row in whole]


def translate(lines):
    """Return the translation of every line; a line without words stays empty."""
    full = [line for line in lines if line.strip()]
    texts = []
    for start in range(0, len(full), 64):
        rows = [(TAG + encode(line))[:{longest_source}] for line in full[start : start + 64]]
        texts += [decode(ids) for ids in greedy(rows)]
    left = iter(texts)
    return [next(left) if line.strip() else "" for line in lines]
'''
_CONTENTS = """\
encoder.onnx       source ids and lengths -> memory and first state; once per sentence
step.onnx          token, state and memory -> logits and new state; once per target token"""
_NOTES = """\
Source ids end in the end mark and are padded on the right. What the encoder gives, the step takes
under the same name, and each new_x of a step is the x of the next: greedy() in translate.py is
the whole loop. It takes the same tokens as Dragoman with decode.method=greedy."""


def _usage(config: Config) -> Usage:
    body = _BODY.format(
        specials=f"{PAD}, {BOS}, {EOS}",
        ratio=config.decode.max_length_ratio,
        extra=config.decode.max_length_extra,
        longest_source=config.data.max_length - 1,
    )
    return Usage(
        "ONNX Runtime",
        "numpy onnxruntime",
        "int",
        ("import numpy as np", "import onnxruntime"),
        body,
        _CONTENTS,
        _NOTES,
    )
