"""Checkpoints: everything a run needs to go on to the bit, written whole or not at all.

    step-<n>/
        model.safetensors        the raw training weights
        ema.safetensors          and average.safetensors, when made
        optimizer.safetensors    <parameter>/<slot>
        config.yaml, tokenizer files
        state.json               step, position in the data, best score, versions, hashes of the
                                 data, digests of the other files

There are no random states: every draw of a run is a function of (seed, purpose, step or epoch).
"""

from __future__ import annotations

import functools
import json
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dragoman import settings
from dragoman.config import Config
from dragoman.data.store import package_versions
from dragoman.data.tokenizers import Tokenizer
from dragoman.errors import DragomanError
from dragoman.files import whole_folder, write_atomic
from dragoman.models.weights import Tensors, load_weights, read_tensors, weights_of, write_tensors
from dragoman.runs import FORMAT_VERSION, Run, digests, read_state
from dragoman.training.optimisation import MovingAverage, load_optimizer, optimizer_tensors
from dragoman.training.schedules import Plateau

PACKAGES = ("torch", "torchtext", "spacy", "sentencepiece", "sacrebleu", "numpy", "hydra-core")


@dataclass
class TrainState:
    """Where a run stands."""

    step: int = 0
    epoch: int = 0
    consumed: int = 0  # batches of the epoch that are behind
    target_tokens: int = 0
    seconds: float = 0.0  # spent training, over all sessions
    best_score: float | None = None
    best_step: int = 0
    scores: dict[str, float] = field(default_factory=dict)  # of every validation, by step
    stale: int = 0  # validations since the best one
    scored: str = "raw"  # which weights validation scored: raw, ema or average
    finished: bool = False
    world: int = 1  # ranks: more of them are a larger batch
    threads: list[int] = field(default_factory=list)  # of each CPU session unlike the one before
    gpus: list[str] = field(default_factory=list)  # likewise, the kind of GPU
    plateau: Plateau = field(default_factory=Plateau)
    sentences: int = 1  # that 99 % of the training lines have at most
    data: dict[str, str] = field(default_factory=dict)  # fingerprint of every corpus and validation


@functools.cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **package_versions(("dragoman", *PACKAGES))}


@functools.cache
def _commit() -> str | None:
    """Return the commit the code is at, where it runs from a git checkout."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(source), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None


def save_checkpoint(
    run: Run,
    config: Config,
    state: TrainState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tokenizers: tuple[Tokenizer, Tokenizer],
    extra: dict[str, Tensors],
) -> None:
    """Write ``step-<n>``, then move ``last`` (and ``best``, if this step is the best).

    ``extra`` holds further weights by file stem, such as ``{"ema": ...}``. Killed at any moment,
    the folder holds either the old checkpoints or the new one too.

    Raises:
        DragomanError: if the disk is full or cannot be written; older checkpoints stay as they are.
    """
    final = run.folder / f"step-{state.step}"
    try:
        with whole_folder(final) as partial:
            write_tensors(partial / "model.safetensors", weights_of(model))
            for stem, tensors in extra.items():
                write_tensors(partial / f"{stem}.safetensors", tensors)
            write_tensors(partial / "optimizer.safetensors", optimizer_tensors(model, optimizer))
            for side, tokenizer in zip(("src", "tgt"), tokenizers, strict=True):
                tokenizer.save(partial, side)
            settings.save(config, partial / "config.yaml")
            content = {
                "format_version": FORMAT_VERSION,
                **asdict(state),
                "versions": _versions(),
                "commit": _commit(),
                "digests": digests(partial),
            }
            write_atomic(partial / "state.json", json.dumps(content, indent=2) + "\n")
    except OSError as problem:
        raise DragomanError(f"{final}: cannot be written ({problem.strerror})") from None
    if state.best_step == state.step:
        run.point("best", state.step)
    run.point("last", state.step)


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, moving: MovingAverage | None
) -> TrainState:
    """Put a checkpoint's weights and optimiser back; return where the run stands.

    Raises:
        DragomanError: if a file is missing, damaged or of another model.
    """
    saved = read_state(folder)
    path = folder / "model.safetensors"
    load_weights(model, read_tensors(path), path)
    load_optimizer(model, optimizer, folder / "optimizer.safetensors")
    if moving is not None:
        path = folder / "ema.safetensors"
        tensors = read_tensors(path)
        if tensors.keys() != moving.tensors.keys():
            raise DragomanError(f"{path}: not the moving average of this model")
        moving.load(tensors)
    return state_from(saved, folder)


def state_from(saved: dict[str, Any], folder: Path) -> TrainState:
    """Read a ``TrainState`` out of ``state.json``; what an older version did not know is usual.

    Raises:
        DragomanError: naming the entry of the wrong type.
    """
    path, fresh = folder / "state.json", asdict(TrainState())
    values = {**fresh, **{name: saved[name] for name in fresh.keys() & saved.keys()}}
    for name, usual in fresh.items():
        # A score may be None, and whole seconds may read as an integer.
        number = name in ("best_score", "seconds")
        accepted = (int, float, type(None)) if number else type(usual)
        if not isinstance(values[name], accepted):
            raise DragomanError(f"{path}: not a training state: '{name}' is {values[name]!r}")
    try:
        return TrainState(**{**values, "plateau": Plateau(**values["plateau"])})
    except TypeError as problem:
        raise DragomanError(f"{path}: not a training state ({problem})") from None
