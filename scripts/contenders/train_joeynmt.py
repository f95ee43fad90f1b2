"""JoeyNMT through ``joeynmt train``, from a YAML file like a user's.

JoeyNMT sorts within a batch but does not put sentences of one length into a batch, and its output
layer has no bias.
"""

# ruff: noqa: E402
from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Any

from window import Window, arguments

args = arguments()  # before torch is imported: sets the threads

import joeynmt.training
import torch
import yaml
from joeynmt.__main__ import main

STACK = {
    "type": "transformer",
    "num_layers": 3,
    "num_heads": 8,
    "embeddings": {"embedding_dim": 256, "scale": True, "dropout": 0.1},
    "hidden_size": 256,
    "ff_size": 512,
    "dropout": 0.1,
    "layer_norm": "pre",
    "activation": "relu",
}
CONFIG = {
    "name": "benchmark",
    "model_dir": str(args.work / "model"),
    "use_cuda": False,
    "fp16": False,
    "random_seed": 1,
    "data": {
        "train": str(args.data / "train"),
        "dev": str(args.data / "val"),
        "dataset_type": "plain",
        "src": {"lang": "de", "level": "word", "voc_file": str(args.data / "vocab.de")},
        "trg": {"lang": "en", "level": "word", "voc_file": str(args.data / "vocab.en")},
    },
    "model": {
        "encoder": STACK,
        "decoder": STACK,
        "tied_embeddings": False,
        "tied_softmax": False,
        "initializer": "xavier_uniform",
        "embed_initializer": "xavier_uniform",
    },
    "training": {
        "batch_size": 128,
        "batch_type": "sentence",
        "normalization": "tokens",
        "optimizer": "adam",
        "adam_betas": [0.9, 0.98],
        "scheduling": "noam",
        "learning_rate_min": 1e-9,
        "label_smoothing": 0.1,
        "clip_grad_norm": 1.0,
        "epochs": 1_000_000,
        "logging_freq": 100,
        "validation_freq": 1_000_000,
        "overwrite": True,
    },
    "testing": {"batch_size": 128, "batch_type": "sentence"},
}

window = Window(args.seconds, tool="JoeyNMT", version=version("joeynmt"))


class WatchedManager(joeynmt.training.TrainManager):
    """The training manager, with every batch counted on its way in."""

    parameters = 0

    def _train_step(self, batch: Any) -> Any:
        if not WatchedManager.parameters:
            WatchedManager.parameters = sum(weight.numel() for weight in self.model.parameters())
        window.batch(batch.ntokens)
        return super()._train_step(batch)

    def _save_checkpoint(self, *_: Any) -> None:
        """Save nothing: JoeyNMT saves when it is stopped, and that is not training."""


joeynmt.training.TrainManager = WatchedManager
window.watch(torch.optim.Adam)
recipe = args.work / "joeynmt.yaml"
recipe.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
sys.argv = ["joeynmt", "train", str(recipe), "--skip-test"]
try:
    main()
except Window.Done:
    window.report(WatchedManager.parameters)
