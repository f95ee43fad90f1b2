"""Translate standard input line by line: python translate.py < in.txt > out.txt"""

import json
from pathlib import Path

import numpy as np
import onnxruntime

FOLDER = Path(__file__).resolve().parent
SETTINGS = json.loads((FOLDER / "translate.json").read_text(encoding="utf-8"))
ENCODER, STEP = (
    onnxruntime.InferenceSession(str(FOLDER / name), providers=["CPUExecutionProvider"])
    for name in ("encoder.onnx", "step.onnx")
)
MEMORY = [output.name for output in ENCODER.get_outputs()]
STATE = [output.name.removeprefix("new_") for output in STEP.get_outputs()][1:]
PAD, BOS, EOS = (SETTINGS[name] for name in ("pad", "bos", "eos"))


def greedy(rows):
    """Return the target ids of rows of source ids: the likeliest token at every step."""
    lengths = np.array([len(row) + 1 for row in rows])
    source = np.full((len(rows), lengths.max()), PAD)
    for number, row in enumerate(rows):
        source[number, : len(row) + 1] = [*row, EOS]
    known = dict(zip(MEMORY, ENCODER.run(MEMORY, {"source": source, "lengths": lengths})))
    longest = [SETTINGS["longest_target"][len(row)] for row in rows]
    token, found, ended = np.full(len(rows), BOS), [], np.zeros(len(rows), bool)
    while len(found) < max(longest) and not ended.all():
        logits, *state = STEP.run(None, {"token": token, **known})
        known.update(zip(STATE, state))
        logits[:, [PAD, BOS]] = -np.inf
        token = logits.argmax(1)
        found.append(token)
        ended |= token == EOS
    whole = [[*row[:most], EOS] for row, most in zip(np.transpose(found).tolist(), longest)]
    return [row[: row.index(EOS)] for row in whole]


def search(rows):
    """Return the same for any number of rows."""
    batches = (rows[start : start + 64] for start in range(0, len(rows), 64))
    return [ids for batch in batches for ids in greedy(batch)]
