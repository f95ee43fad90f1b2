"""The training loop."""

from __future__ import annotations

import json
import math
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from types import FrameType

import torch
from torch import Tensor

from dragoman import settings
from dragoman.config import Config, TrainConfig
from dragoman.data.batching import Bucket
from dragoman.data.corpora import keep_held_out
from dragoman.errors import memory_needed, say
from dragoman.files import write_atomic
from dragoman.reporting.board import profiler
from dragoman.reporting.progress import Progress
from dragoman.runs import Run
from dragoman.training import distributed
from dragoman.training.checkpoint import TrainState
from dragoman.training.distributed import Ranks
from dragoman.training.introduction import introduce
from dragoman.training.schedules import learning_rate, teacher_forcing_ratio
from dragoman.training.trainer import Trainer


class Stopped(Exception):
    """Training was asked to stop by a signal, and has saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped at step {step} by {signal.Signals(number).name}, saved")
        self.number = number


@contextmanager
def signals(ranks: Ranks) -> Iterator[list[int]]:
    """Collect SIGTERM, SIGHUP and Ctrl-C instead of dying in the middle of a step.

    A second Ctrl-C gives up. Other repetitions mean nothing: ``torchrun`` sends every signal on,
    and SIGTERM as soon as one rank has ended. Only a main thread has signals; on another one
    nothing is collected. A SIGHUP that is ignored stays so (``nohup``).
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT and ranks.world == 1:
            raise KeyboardInterrupt
        if ranks.main and not received:
            say("stopping after this step, then saving; Ctrl-C again gives up")
        received.append(number)

    numbers = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        numbers.clear()
    old = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: not set by Python


# Figures of the progress line; the rest is for TensorBoard and the log.
SHOWN = ("loss", "ppl", "expected_bleu", "lr", "tokens_per_second")


@dataclass
class Window:
    """What happened since the last log line."""

    began: float = field(default_factory=time.monotonic)
    steps: int = 0
    buckets: list[Bucket] = field(default_factory=list)
    sums: Tensor | None = None
    norm: Tensor | None = None

    def add(self, buckets: list[Bucket], results: dict[str, Tensor]) -> None:
        """Take note of a step; its tensors are not read yet, so nothing waits for the device."""
        self.steps += 1
        self.buckets += buckets
        self.sums = results["sums"] if self.sums is None else self.sums + results["sums"]
        self.norm = results["norm"]

    def figures(self, trainer: Trainer) -> dict[str, float]:
        """Return the means of the window."""
        assert self.sums is not None
        assert self.norm is not None
        loss, nll, correct, risk = (self.sums / self.steps).tolist()
        train, step = trainer.config.train, trainer.state.step
        tokens = sum(bucket.tgt_tokens for bucket in self.buckets)
        real = sum(bucket.real_tokens for bucket in self.buckets)
        padded = sum(bucket.padded_tokens for bucket in self.buckets)
        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        if trainer.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(trainer.device) / 2**20
        return {
            "loss": loss,
            "ppl": math.exp(min(nll, 80.0)),
            "accuracy": correct,
            **({"expected_bleu": 100 * (1 - risk)} if train.risk else {}),
            "lr": learning_rate(train, step, trainer.state.plateau),
            "gradient_norm": float(self.norm),
            "tokens_per_second": tokens / max(time.monotonic() - self.began, 1e-9),
            "padding": 1 - real / padded,
            "teacher_forcing": teacher_forcing_ratio(train, step),
            "memory_mib": memory,
        }


def train(config: Config, run: Run) -> None:
    """Train a run to its end, from its last checkpoint if it has one.

    Raises:
        DragomanError: for everything the user can put right.
        Stopped: after SIGTERM or Ctrl-C, when the run is saved.
    """
    ranks, threads = distributed.launch(config.device), torch.get_num_threads()
    try:
        with memory_needed(lambda: _less(run)), ExitStack() as held:
            if ranks.main:
                run.create()
                held.enter_context(run.lock())
                run.clean()
                run.resume_from(config.train.resume_from)
            trainer = Trainer(config, run, ranks)
            held.enter_context(closing(trainer.trackers))
            _train(trainer)
    finally:
        torch.set_num_threads(threads)  # whoever trains next, or goes on, has their own
        distributed.leave()


def _less(run: Run) -> str:
    """Return what to do about a run that needs more memory than there is."""
    saved = "the same command goes on from the last checkpoint where there is more"
    said = saved if run.has_checkpoint() else "nothing is saved"
    less = "another run takes less with a lower train.batch_size and a higher train.accumulate"
    return f"{run.folder}: out of memory; {said}, and {less}"


def _train(trainer: Trainer) -> None:
    config, run, ranks, state = trainer.config, trainer.run, trainer.ranks, trainer.state
    options = config.train
    if ranks.main:
        keep_held_out(config.data, run.folder)
        counts = [prepared.counts._asdict() for prepared in trainer.texts]
        write_atomic(run.folder / "data.json", json.dumps(counts, indent=1) + "\n")
        settings.save(config, run.folder / "config.yaml")
    progress = Progress(options.max_steps, state.step, config.log.every, ranks.main)
    introduce(trainer, progress)
    over = _stopped_early(state, options) or state.step >= options.max_steps
    if over and state.finished:
        why = "is complete" if state.step >= options.max_steps else "stopped early"
        progress.message(f"nothing to do: the run {why} at step {state.step}")
        return
    if state.finished:  # there are more steps now: an average of all so far is not theirs
        state.finished, state.scored = False, trainer.usual
    if options.dry_run and state.step == 0:
        trainer.dry_run()
    window, began = Window(), time.monotonic()
    profiled = profiler(run.folder / "profile", config.log.profile_steps if ranks.main else 0)
    with signals(ranks) as received, progress, profiled as trace:
        while not over:
            buckets = trainer.stream.take(options.accumulate * ranks.world)
            window.add(buckets, trainer.step(buckets))
            state.epoch, state.consumed = trainer.stream.epoch, trainer.stream.consumed
            if trace:
                trace.step()
            state.seconds, began = state.seconds + time.monotonic() - began, time.monotonic()
            stopping = ranks.any(bool(received), trainer.device)
            over = state.step == options.max_steps

            if state.step % config.log.every == 0 or over:
                figures = window.figures(trainer)
                trainer.report("train", figures, epoch=state.epoch, seconds=state.seconds)
                progress.update(state.step, **{k: figures[k] for k in SHOWN if k in figures})
                window = Window(began)
            else:
                progress.update(state.step)

            if state.step % options.validate_every == 0:
                _validate(trainer, progress)
                if _stopped_early(state, options):
                    progress.message(f"no gain in {state.stale} validations: stopping early")
                    over = True
            if over:
                break
            due = state.step % options.checkpoint_every == 0 or state.best_step == state.step
            if due or stopping:
                trainer.save()
            if stopping:
                ranks.wait()  # a rank that leaves makes torchrun end all, saved or not
                raise Stopped(received[0] if received else signal.SIGTERM, state.step)
            # Logging, validating and saving are not training time.
            window.began, began = window.began + time.monotonic() - began, time.monotonic()
        if str(state.step) not in state.scores:
            _validate(trainer, progress)
        if said := trainer.finish():
            progress.message(said)
        progress.message(
            f"done: {state.target_tokens:,} target tokens in {state.seconds / 60:.1f} minutes; "
            f"best step {state.best_step}; weights in {run.folder}"
        )


def _validate(trainer: Trainer, progress: Progress) -> None:
    found, state = trainer.validate(), trainer.state
    progress.message(
        f"step {state.step}  validation: loss {found.loss:.3f}  ppl {found.perplexity:.2f}  "
        f"BLEU {found.bleu:.2f}{'  (best)' if state.best_step == state.step else ''}"
    )


def _stopped_early(state: TrainState, options: TrainConfig) -> bool:
    return bool(options.patience) and state.stale >= options.patience
