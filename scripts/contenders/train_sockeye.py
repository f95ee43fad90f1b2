"""Sockeye through its own training entry, ``sockeye.train.train``, from its own command line."""

# ruff: noqa: E402
from __future__ import annotations

import contextlib
from importlib.metadata import version
from typing import Any

from window import Window, arguments

args = arguments()  # before torch is imported: sets the threads

import torch
from sockeye import constants, vocab
from sockeye.arguments import ConfigArgumentParser, add_train_cli_args
from sockeye.train import train
from sockeye.training import EarlyStoppingTrainer

NEVER = 10**6

for language in ("de", "en"):
    words = (args.data / f"vocab.{language}").read_text(encoding="utf-8").split()
    ids = {word: number for number, word in enumerate([*constants.VOCAB_SYMBOLS, *words])}
    vocab.vocab_to_json(ids, str(args.work / f"vocab.{language}.json"))

options: dict[str, Any] = {
    "source": args.data / "train.de",
    "target": args.data / "train.en",
    "validation-source": args.data / "val.de",
    "validation-target": args.data / "val.en",
    "source-vocab": args.work / "vocab.de.json",
    "target-vocab": args.work / "vocab.en.json",
    "output": args.work / "model",
    "seed": 1,
    # The model; normalisation before each sublayer is Sockeye's default.
    "num-layers": 3,
    "transformer-model-size": 256,
    "transformer-attention-heads": 8,
    "transformer-feed-forward-num-hidden": 512,
    "transformer-activation-type": "relu",
    "weight-tying-type": "none",
    "embed-dropout": 0.1,
    "transformer-dropout-attention": 0.1,
    "transformer-dropout-act": 0.1,
    "transformer-dropout-prepost": 0.1,
    # The training.
    # Both sides are padded to a multiple of this; the default, 8, is wide for short sentences.
    "bucket-width": 2,
    "batch-type": "sentence",
    "batch-size": 128,
    "optimizer": "adam",
    "optimizer-betas": "0.9:0.98",
    "initial-learning-rate": 5e-4,
    "learning-rate-scheduler-type": "none",
    "label-smoothing": 0.1,
    "gradient-clipping-type": "norm",
    "gradient-clipping-threshold": 1.0,
    "max-updates": NEVER,
    "checkpoint-interval": NEVER,
    "decode-and-evaluate": 0,
}
line = ["--use-cpu", "--overwrite-output"]
for name, value in options.items():
    line += [f"--{name}", str(value)]
parser = ConfigArgumentParser()
add_train_cli_args(parser)

window = Window(args.seconds, tool="Sockeye", version=version("sockeye"))
window.watch(torch.optim.Adam)
step = EarlyStoppingTrainer._step
trainers: list[EarlyStoppingTrainer] = []


def counted(trainer: EarlyStoppingTrainer, batch: Any) -> bool:
    """Count the labels (B, T) of a batch."""
    trainers[:] = [trainer]
    labels = batch.labels[constants.TARGET_LABEL_NAME]
    window.batch(int((labels != constants.PAD_ID).sum()))
    return step(trainer, batch)


EarlyStoppingTrainer._step = counted
with contextlib.suppress(Window.Done):
    train(parser.parse_args(line))
# Its sinusoidal positions are parameters too, but fixed ones.
learned = (p for p in trainers[0].sockeye_model.parameters() if p.requires_grad)
window.report(sum(parameter.numel() for parameter in learned))
