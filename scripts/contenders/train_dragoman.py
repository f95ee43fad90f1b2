"""Dragoman itself, through its own loop: TensorBoard, progress line and all.

The text comes from Multi30k ($MULTI30K), through Dragoman's own tokenizer: the same tokens that the
others are given. ``--recurrent`` trains the tutorials' GRU instead.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from window import Window, arguments

from dragoman import __version__
from dragoman.compose import compose_config
from dragoman.models.seq2seq import count_parameters
from dragoman.runs import Run
from dragoman.training.loop import train
from dragoman.training.trainer import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"
# The GRU of the tutorials: one layer each, otherwise as in configs/experiment/tutorial.yaml.
GRU = ["model.cell=gru", "model.encoder_layers=1", "model.decoder_layers=1"]
GRU += ["train.sort_by_length=true", "train.validate_every=2270", "train.checkpoint_every=2270"]


def main() -> None:
    """Train inside a window of time."""
    args = arguments("recurrent")
    shutil.rmtree(args.work)
    overrides = ["+experiment=tutorial", *GRU] if args.recurrent else ["+experiment=benchmark"]
    overrides += [
        f"data.root={os.environ['MULTI30K']}",
        f"data.cache={args.work / 'cache'}",
        f"threads={args.threads}",
        "device=cpu",
    ]
    config, _ = compose_config(CONFIGS, overrides)
    window = Window(args.seconds, "Dragoman", __version__, args.steps)
    step, trainers = Trainer.step, list[Trainer]()

    def counted(trainer: Trainer, buckets: Any) -> Any:
        trainers[:] = [trainer]
        window.batch(sum(bucket.tgt_tokens for bucket in buckets))
        result = step(trainer, buckets)
        window.updated()
        return result

    Trainer.step = counted  # type: ignore[method-assign]
    with contextlib.suppress(Window.Done):
        train(config, Run(args.work / "run"))
    window.report(count_parameters(trainers[0].module))


if __name__ == "__main__":
    main()
