"""eole through its own training entry, ``eole.bin.run.train.train``, and its ``TrainConfig``."""

# ruff: noqa: E402
from __future__ import annotations

import contextlib
from importlib.metadata import version
from typing import Any

from window import Window, arguments

args = arguments()  # before torch is imported: sets the threads

import torch
from eole.bin.run.train import train
from eole.config.run import TrainConfig
from eole.trainer import Trainer

NEVER = 10**6

config = TrainConfig(
    data={
        "train": {
            "path_src": str(args.data / "train.de"),
            "path_tgt": str(args.data / "train.en"),
        }
    },
    src_vocab=str(args.data / "vocab.de"),
    tgt_vocab=str(args.data / "vocab.en"),
    src_vocab_size=NEVER,
    tgt_vocab_size=NEVER,
    vocab_size_multiple=1,
    seed=1,
    n_sample=0,
    model={
        "architecture": "transformer",
        "layers": 3,
        "heads": 8,
        "hidden_size": 256,
        "transformer_ff": 512,
        "embeddings": {"word_vec_size": 256, "position_encoding": True},
        "add_qkvbias": True,
        # It would follow from the line above, but for the decoder alone.
        "add_final_linear_bias": True,
        "add_ffnbias": True,
    },
    training={
        "model_path": str(args.work / "model"),
        "compute_dtype": "fp32",
        "dropout": [0.1],
        "attention_dropout": [0.1],
        "param_init_method": "xavier_uniform",
        # A bucket is sorted by length before it is cut into batches. Its default size is nine
        # copies of this corpus, all of which would be read before the first update.
        "bucket_size": sum(1 for _ in (args.data / "train.de").open("rb")),
        "batch_type": "sents",
        "batch_size": 128,
        "num_workers": 0,
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
        # A figure for its log that no other contender computes.
        "log_attention_entropy": False,
    },
)

window = Window(args.seconds, tool="eole", version=version("eole"))
window.watch(torch.optim.Adam)
update = Trainer._process_accumulated_batches
trainers: list[Trainer] = []


def counted(trainer: Trainer, batches: list[dict[str, Any]], *rest: Any) -> None:
    """Count the labels of each batch (B, T): everything after the start symbol."""
    trainers[:] = [trainer]
    padding = trainer.train_loss.padding_idx
    window.batch(sum(int((batch["tgt"][:, 1:] != padding).sum()) for batch in batches))
    update(trainer, batches, *rest)


Trainer._process_accumulated_batches = counted
with contextlib.suppress(Window.Done):
    train(config)
window.report(sum(parameter.numel() for parameter in trainers[0].model.parameters()))
