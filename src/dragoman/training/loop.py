"""The training loop."""

from __future__ import annotations

import math
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import torch
from torch import Tensor

from dragoman import settings
from dragoman.config import Config, TrainConfig
from dragoman.data.batching import Bucket
from dragoman.data.tokenizers.spacy import SpacyTokenizer
from dragoman.errors import DragomanError
from dragoman.models.seq2seq import count_parameters
from dragoman.reporting.board import profiler
from dragoman.reporting.progress import Progress
from dragoman.runs import Run
from dragoman.training import distributed
from dragoman.training.checkpoint import TrainState
from dragoman.training.distributed import Ranks
from dragoman.training.schedules import learning_rate, teacher_forcing_ratio
from dragoman.training.trainer import Trainer, out_of_memory


class Stopped(Exception):
    """Training was asked to stop by a signal, and has saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped at step {step} by {signal.Signals(number).name}, saved")
        self.number = number


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C instead of dying in the middle of a step."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:  # a second one means it
            raise KeyboardInterrupt
        received.append(number)
        print("stopping after this step, then saving; again to give up", file=sys.stderr)

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@dataclass
class Window:
    """What happened since the last log line."""

    began: float = field(default_factory=time.monotonic)
    steps: int = 0
    tokens: int = 0
    real: int = 0
    padded: int = 0
    sums: Tensor | None = None
    norm: Tensor | None = None

    def add(self, buckets: list[Bucket], results: dict[str, Tensor]) -> None:
        """Take note of a step; its tensors are not read yet, so nothing waits for the device."""
        self.steps += 1
        self.tokens += sum(bucket.tgt_tokens for bucket in buckets)
        self.real += sum(bucket.real_tokens for bucket in buckets)
        self.padded += sum(bucket.padded_tokens for bucket in buckets)
        self.sums = results["sums"] if self.sums is None else self.sums + results["sums"]
        self.norm = results["norm"]

    def figures(self, trainer: Trainer) -> dict[str, float]:
        """Return the means of the window."""
        assert self.sums is not None
        assert self.norm is not None
        loss, nll, correct, risk = (self.sums / self.steps).tolist()
        train, step = trainer.config.train, trainer.state.step
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
        if sys.platform == "darwin":
            memory /= 1024
        if trainer.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(trainer.device) / 2**20
        return {
            "loss": loss,
            "ppl": math.exp(min(nll, 80.0)),
            "accuracy": correct,
            **({"expected_bleu": 100 * (1 - risk)} if train.risk else {}),
            "lr": learning_rate(train, step, trainer.state.plateau),
            "gradient_norm": float(self.norm),
            "tokens_per_second": self.tokens / max(time.monotonic() - self.began, 1e-9),
            "padding": 1 - self.real / self.padded,
            "teacher_forcing": teacher_forcing_ratio(train, step),
            "memory_mib": memory,
        }


def train(config: Config, run: Run) -> None:
    """Train a run to its end, from its last checkpoint if it has one.

    Raises:
        DragomanError: for everything the user can put right.
        Stopped: after SIGTERM or Ctrl-C, when the run is saved.
    """
    ranks = distributed.launch(config.device)
    try:
        if not ranks.main:
            _train(config, run, ranks)
            return
        run.create()
        with run.lock():
            run.clean()
            _train(config, run, ranks)
    except (MemoryError, RuntimeError) as problem:
        if not out_of_memory(problem):
            raise
        raise DragomanError(
            f"{run.folder}: out of memory; its last checkpoint is there to go on from where there "
            "is more, or begin another run with a lower train.batch_size and train.accumulate"
        ) from None
    finally:
        distributed.leave()


def _train(config: Config, run: Run, ranks: Ranks) -> None:
    trainer = Trainer(config, run, ranks)
    state, options = trainer.state, config.train
    if ranks.main:
        settings.save(config, run.folder / "config.yaml")
    progress = Progress(options.max_steps, state.step, config.log.every, ranks.main)
    _introduce(trainer, progress)
    if why := _nothing_to_do(state, options):
        progress.message(f"nothing to do: the run {why} at step {state.step}")
        trainer.board.close()
        return
    if state.finished:  # there are more steps now: an average of all so far is not theirs
        state.finished, state.scored = False, trainer.usual
    if options.dry_run and state.step == 0:
        trainer.dry_run()
    trace = profiler(run.folder / "profile", config.log.profile_steps if ranks.main else 0)
    window, began = Window(), time.monotonic()
    over = _stopped_early(state, options) or state.step == options.max_steps
    with signals() as received, progress, trace:
        while not over:
            buckets = trainer.stream.take(options.accumulate * ranks.world)
            window.add(buckets, trainer.step(buckets))
            state.epoch, state.consumed = trainer.stream.epoch, trainer.stream.consumed
            trace.step()
            state.seconds, began = state.seconds + time.monotonic() - began, time.monotonic()
            stopping = ranks.any(bool(received), trainer.device)
            last = over = state.step == options.max_steps

            if state.step % config.log.every == 0 or last:
                figures = window.figures(trainer)
                trainer.report({"train": figures, "epoch": state.epoch, "seconds": state.seconds})
                progress.update(state.step, **{k: figures[k] for k in SHOWN if k in figures})
                window = Window(began)
            else:
                progress.update(state.step)

            if state.step % options.validate_every == 0 or last:
                found = trainer.validate()
                trainer.report({"validation": found._asdict(), "seconds": state.seconds})
                progress.message(
                    f"step {state.step}  validation: loss {found.loss:.3f}  "
                    f"ppl {found.perplexity:.2f}  BLEU {found.bleu:.2f}"
                    f"{'  (best)' if state.best_step == state.step else ''}"
                )
                if _stopped_early(state, options):
                    progress.message(f"no gain in {state.stale} validations: stopping early")
                    break

            due = state.step % options.checkpoint_every == 0 or state.best_step == state.step
            if ranks.main and (due or stopping) and not last:
                trainer.save()
            if stopping and not last:
                raise Stopped(received[0] if received else signal.SIGTERM, state.step)
            # Logging, validating and saving are not training time.
            window.began, began = window.began + time.monotonic() - began, time.monotonic()
        if said := trainer.finish():
            progress.message(said)
        progress.message(
            f"done: {state.target_tokens:,} target tokens in {state.seconds / 60:.1f} minutes; "
            f"best step {state.best_step}; weights in {run.folder}"
        )
    trainer.board.close()


def _stopped_early(state: TrainState, options: TrainConfig) -> bool:
    return bool(options.patience) and state.stale >= options.patience


def _nothing_to_do(state: TrainState, options: TrainConfig) -> str | None:
    """Say why a run has no step left, or return None."""
    if state.step > options.max_steps:
        return f"is past train.max_steps={options.max_steps}"
    if state.finished and _stopped_early(state, options):
        return "stopped early"
    if state.finished and state.step == options.max_steps:
        return "is complete"
    return None


# Figures of the progress line; the rest is for TensorBoard and the log.
SHOWN = ("loss", "ppl", "expected_bleu", "lr", "tokens_per_second")


def _introduce(trainer: Trainer, progress: Progress) -> None:
    """Say what is about to be trained, on the terminal and in TensorBoard."""
    config, run, counts = trainer.config, trainer.run, trainer.training_set.counts
    parameters = count_parameters(trainer.module)
    where = f"from step {trainer.state.step}" if trainer.state.step else "from the start"
    src, tgt = trainer.tokenizers
    sizes = f"vocabularies {len(src):,} and {len(tgt):,}"
    if src is tgt:
        sizes = f"one vocabulary of {len(src):,}"
    progress.message(f"run {run.folder} {where} on {trainer.device}")
    progress.message(
        f"{config.data.src}->{config.data.tgt}: {counts['kept']:,} of {counts['pairs']:,} training "
        f"pairs ({counts['empty']:,} empty, {counts['too_long']:,} too long left out); "
        f"{sizes}; {config.model.name} with {parameters:,} parameters"
    )
    if trainer.origin:
        progress.message(f"begins with the weights of {trainer.origin}")
    options, plateau = config.train, trainer.state.plateau
    longer = options.max_steps > options.schedule_steps
    if longer and not learning_rate(options, options.max_steps, plateau):
        progress.message(
            f"after step {options.schedule_steps} the learning rate is 0, nothing more is learnt: "
            "train.min_lr above 0 or a longer train.schedule_steps would change that"
        )
    target = trainer.tokenizers[1]
    if isinstance(target, SpacyTokenizer):
        # Word tokenizers in plain form lose some spaces: BLEU cannot be better than this allows.
        kept = target.restored_fraction(trainer.validator.references)
        progress.message(
            f"spaCy words, {config.data.tokenizer.form} form: {100 * kept:.1f} % of the validation "
            "references come back unchanged from their tokens"
        )
    if trainer.state.step == 0:
        text = (
            (run.folder / "config.yaml").read_text(encoding="utf-8") if trainer.ranks.main else ""
        )
        trainer.board.text(0, "config", f"```yaml\n{text}\n```")
