"""What is told how a run goes: its log of JSON lines, TensorBoard, and what a plug-in brings.

``train.jsonl`` has one JSON object for each logged step and for each validation, each step once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dragoman.config import Config
from dragoman.errors import say, visible
from dragoman.files import write_atomic
from dragoman.plugins import look_up
from dragoman.reporting.board import Board
from dragoman.runs import read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Tracker(Protocol):
    """Four calls, all of them on one process. One that raises is said and told no more."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take figures of a step: ``{"train/loss": 2.3, "validation/bleu": 31.5, ...}``."""

    def text(self, step: int, tag: str, text: str) -> None:
        """Take a text in Markdown: the config, a table of translations."""

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Take a picture."""

    def close(self) -> None:
        """End."""


def plain(text: str) -> str:
    """Return text as Markdown that shows it as it is, in one line: nothing in it is markup."""
    return re.sub(r"[&<>*_`~|\\!\[\]]", lambda match: f"&#{ord(match[0])};", visible(text))


class JsonLines:
    """Appends lines to a file; a resumed run first drops what lies beyond its step.

    The tag before the slash makes an object of its own: ``{"step": 3, "train": {"loss": 2.3}}``.

    Raises:
        OSError: from ``scalars``, if the disk is full or cannot be written.
    """

    def __init__(self, path: Path, resume_step: int) -> None:
        self.path = path
        kept = [e for e in read_log(path) if e["step"] <= resume_step] if resume_step else []
        # The average that ends a run is made again if a kill came before it was saved.
        self._told = {(entry["step"], kind) for entry in kept for kind in entry}
        write_atomic(path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Append one line, unless the step has these figures already."""
        entry: dict[str, Any] = {"step": step}
        for tag, value in values.items():
            kind, slash, name = tag.partition("/")
            place = entry.setdefault(kind, {}) if slash else entry
            place[name or kind] = float(f"{value:.6g}") if isinstance(value, float) else value
        kind = next(iter(values)).partition("/")[0]
        if (step, kind) not in self._told:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def text(self, step: int, tag: str, text: str) -> None:
        """Do nothing: the log is of numbers."""

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: no file is open between two lines."""


def _json_lines(folder: Path, resume_step: int, config: Config) -> Tracker:
    return JsonLines(folder / "train.jsonl", resume_step)


def _tensorboard(folder: Path, resume_step: int, config: Config) -> Tracker:
    return Board(folder / "tensorboard", resume_step=resume_step or None)


# What makes each: from the run folder, the step of the checkpoint the run goes on from (0: none)
# and the config.
TRACKERS: dict[str, Callable[[Path, int, Config], Tracker]] = {
    "jsonl": _json_lines,
    "tensorboard": _tensorboard,
}


class Trackers:
    """All trackers of a run. None is worth the run: one that fails costs one line.

    Raises:
        DragomanError: if ``log.trackers`` names an unknown one, or one cannot begin.
    """

    def __init__(self, folder: Path, resume_step: int, config: Config, enabled: bool) -> None:
        names = ["jsonl", *(["tensorboard"] if config.log.tensorboard else ())]
        names += config.log.trackers
        makers = {name: look_up("tracker", name, "log.trackers") for name in names if enabled}
        self._open = {name: make(folder, resume_step, config) for name, make in makers.items()}

    def tell(self, call: str, *values: Any) -> None:
        """Make a call to every tracker that has it: TensorBoard has two more, graph and hparams."""
        for name, tracker in list(self._open.items()):
            try:
                getattr(tracker, call, lambda *_: None)(*values)
            except Exception as problem:
                reason = getattr(problem, "strerror", None) or problem
                say(f"warning: {name}: {reason}; the run goes on and writes no more there")
                del self._open[name]
                with suppress(Exception):
                    tracker.close()

    def close(self) -> None:
        """End all; later calls do nothing."""
        self.tell("close")
        self._open.clear()
