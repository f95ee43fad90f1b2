"""What every contender of the benchmark measures in the same way: a window of its own training.

Standard library and torch only: this runs in each contender's own virtual environment.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

# Updates before the clock starts: allocators, caches and compiled kernels are warm by then.
WARM_UP = 10


def _process_start() -> float:
    """Return when this process began, in seconds since 1970."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + float(fields[19]) / os.sysconf("SC_CLK_TCK")


def peak_mib() -> float:
    """Return the most memory that this process has held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def arguments(*flags: str) -> argparse.Namespace:
    """Read the driver's command line, with the contender's own flags, and set the threads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    for flag in flags:
        parser.add_argument(f"--{flag}", action="store_true")
    found = parser.parse_args()
    found.work.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(found.threads)
    import torch

    torch.set_num_threads(found.threads)
    return found


def read(
    data: Path, language: str, specials: list[str], split: str = "train"
) -> tuple[list[list[int]], dict[str, int]]:
    """Return a split's sentences as ids, and the vocabulary: special tokens, then words."""
    words = (data / f"vocab.{language}").read_text(encoding="utf-8").split("\n")[:-1]
    vocabulary = {word: number for number, word in enumerate(specials + words)}
    lines = (data / f"{split}.{language}").read_text(encoding="utf-8").split("\n")[:-1]
    unknown = vocabulary["<unk>"]
    return [
        [vocabulary.get(word, unknown) for word in line.split(" ")] for line in lines
    ], vocabulary


class Window:
    """Counts real target tokens from the end of the warm-up until the time is over.

    Where a step takes seconds, ``steps`` asks for that many at least, and ``warm_up`` for fewer.
    """

    class Done(Exception):
        """The time is over."""

    def __init__(
        self, seconds: float, tool: str, version: str, steps: int = 0, warm_up: int = WARM_UP
    ) -> None:
        self.seconds, self.tool, self.version = seconds, tool, version
        self.steps, self.warm_up = steps, warm_up
        self.updates = self.tokens = self.pending = 0
        self.began = self.ended = self.first = 0.0

    def batch(self, tokens: int) -> None:
        """Note the real target tokens of a batch, end marks included, before its update."""
        self.pending += int(tokens)

    def updated(self) -> None:
        """Note the end of an optimiser update.

        Raises:
            Window.Done: when the time is over.
        """
        self.updates += 1
        now = time.time()
        if self.updates == 1:
            self.first = now - _process_start()
        counted = self.updates - self.warm_up
        if counted == 0:
            self.began = now
        if counted > 0:
            self.tokens += self.pending
            self.ended = now
        self.pending = 0
        if counted >= max(1, self.steps) and now - self.began >= self.seconds:
            raise self.Done

    def watch(self, optimizer: type) -> None:
        """Have ``updated`` called after every ``step`` of an optimiser class."""
        step: Any = optimizer.step  # type: ignore[attr-defined]

        def stepping(this: Any, *arguments: Any, **options: Any) -> Any:
            result = step(this, *arguments, **options)
            self.updated()
            return result

        optimizer.step = stepping  # type: ignore[attr-defined]

    def report(self, parameters: int) -> None:
        """Print the figures, the last line of a contender's output."""
        seconds = self.ended - self.began
        figures = {
            "tool": self.tool,
            "version": self.version,
            "tokens_per_second": self.tokens / seconds,
            "tokens": self.tokens,
            "steps": self.updates - self.warm_up,
            "seconds": seconds,
            "first_step_seconds": self.first,
            "peak_mib": peak_mib(),
            "parameters": parameters,
        }
        print(json.dumps(figures), flush=True)
