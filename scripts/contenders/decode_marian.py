"""Hugging Face transformers: ``generate`` with the weights that ``train_marian.py --keep`` left.

``--sorted`` gives it the test set sorted by length, which it does not do by itself.
"""

# ruff: noqa: E402
from __future__ import annotations

from window import arguments

args = arguments("sorted")  # before torch is imported: sets the threads

import torch
import transformers
from testset import LONGEST, decode
from torch.nn.utils.rnn import pad_sequence
from transformers import MarianMTModel

EOS, UNK, PAD = range(3)
model = MarianMTModel.from_pretrained(args.data / "marian").eval()


def translate(rows: list[list[int]], width: int) -> list[list[int]]:
    """Translate one batch."""
    src = pad_sequence([torch.tensor([*row, EOS]) for row in rows], True, PAD)
    out = model.generate(
        input_ids=src,
        attention_mask=(src != PAD).long(),
        num_beams=width,
        do_sample=False,
        max_new_tokens=LONGEST,
        length_penalty=0.0,
        early_stopping=width > 1,  # when ``width`` hypotheses have ended
    )
    kept = out[:, 1:].tolist()  # behind the start token
    return [row[: row.index(EOS)] if EOS in row else row for row in kept]


decode(
    args,
    {
        "tool": "transformers Marian" + (", sorted input" if args.sorted else ""),
        "version": transformers.__version__,
        "parameters": model.num_parameters(),
    },
    ["</s>", "<unk>", "<pad>"],
    translate,
)
