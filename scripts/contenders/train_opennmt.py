"""OpenNMT-py through its own training entry, ``onmt.bin.train.train``, and a YAML file."""

# ruff: noqa: E402
from __future__ import annotations

import contextlib
from importlib.metadata import version
from typing import Any

from window import Window, arguments

args = arguments()  # before torch is imported: sets the threads

import torch
import yaml
from onmt.bin.train import _get_parser, train
from onmt.trainer import Trainer

NEVER = 10**6

config = {
    "data": {
        "train": {
            "path_src": str(args.data / "train.de"),
            "path_tgt": str(args.data / "train.en"),
            "transforms": [],
            "weight": 1,
        }
    },
    "src_vocab": str(args.data / "vocab.de"),
    "tgt_vocab": str(args.data / "vocab.en"),
    "src_vocab_size": NEVER,
    "tgt_vocab_size": NEVER,
    "vocab_size_multiple": 1,
    "save_model": str(args.work / "model"),
    "seed": 1,
    # The model.
    "encoder_type": "transformer",
    "decoder_type": "transformer",
    "position_encoding": True,
    "layers": 3,
    "heads": 8,
    "hidden_size": 256,
    "word_vec_size": 256,
    "transformer_ff": 512,
    "add_qkvbias": True,
    "add_ffnbias": True,
    "dropout": [0.1],
    "attention_dropout": [0.1],
    "param_init": 0.0,
    "param_init_glorot": True,
    # A bucket is sorted by length before it is cut into batches. Its default size is nine copies
    # of this corpus, all of which would be read before the first update.
    "bucket_size": sum(1 for _ in (args.data / "train.de").open("rb")),
    "batch_type": "sents",
    "batch_size": 128,
    "num_workers": 0,
    # The training.
    "optim": "adam",
    "learning_rate": 5e-4,
    "adam_beta2": 0.98,
    "label_smoothing": 0.1,
    "max_grad_norm": 1.0,
    "normalization": "tokens",
    "accum_count": [1],
    "train_steps": NEVER,
    "valid_steps": NEVER,
    "save_checkpoint_steps": NEVER,
}
path = args.work / "config.yaml"
path.write_text(yaml.safe_dump(config), encoding="utf-8")

window = Window(args.seconds, tool="OpenNMT-py", version=version("OpenNMT-py"))
window.watch(torch.optim.Adam)
update = Trainer._gradient_accumulation
trainers: list[Trainer] = []


def counted(trainer: Trainer, batches: list[dict[str, Any]], *rest: Any) -> None:
    """Count the labels of each batch (B, T, 1): everything after the start symbol."""
    trainers[:] = [trainer]
    padding = trainer.train_loss.padding_idx
    window.batch(sum(int((batch["tgt"][:, 1:] != padding).sum()) for batch in batches))
    update(trainer, batches, *rest)


Trainer._gradient_accumulation = counted
with contextlib.suppress(Window.Done):
    train(_get_parser().parse_args(["-config", str(path)]))
window.report(sum(parameter.numel() for parameter in trainers[0].model.parameters()))
