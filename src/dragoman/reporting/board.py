"""TensorBoard logs of a run, in which no step appears twice however often the run is resumed.

TensorBoard hides the points that a killed process wrote after its last checkpoint only in some
cases (its reader takes the first start mark of a folder for the start of the run, and keeps what
came before). So the event files themselves are put right when a run is resumed: records beyond the
resumed step are taken out of them. Any reader then sees one history. The start mark is written
too, for a TensorBoard that has read the old files already.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
import socket
import struct
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.errors import DragomanError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

log = logging.getLogger(__name__)

EVENT_FILES = "events.out.tfevents.*"
PARTIAL = "history.tmp"
HPARAMS_TAGS = ("_hparams_/", "hparam/")
FIGURE_DPI = 100
# The clock of a run: the JSON lines have it, a curve of it says nothing.
NOT_CURVES = ("epoch", "seconds")
_NUMBERS = itertools.count()  # of the event files of this process


def _records(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield (record as stored, its content) until the end or the first damaged record.

    A killed process may leave its last record incomplete; nothing is ever appended after it. The
    format: content length (8 bytes), its checksum (4), content, checksum of the content (4).
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import (  # type: ignore[import-untyped]
        masked_crc32c,
    )

    size = path.stat().st_size
    with path.open("rb") as file:
        while len(header := file.read(12)) == 12:
            length, checksum = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != checksum or file.tell() + length + 4 > size:
                return
            content, footer = file.read(length), file.read(4)
            # Only the last record can be half written; checking all would take seconds.
            if file.tell() == size and struct.pack("<I", masked_crc32c(content)) != footer:
                return
            yield header + content + footer, content


class _History:
    """What the event files of a folder hold: the last step of every tag, and the graph."""

    def __init__(self) -> None:
        self.last_steps: dict[str, int] = {}
        self.has_graph = False
        self.has_hparams = False

    def admit(self, tag: str, step: int) -> bool:
        """Take note of a point; False if its tag has already come as far as ``step``."""
        if step <= self.last_steps.get(tag, -1):
            return False
        self.last_steps[tag] = step
        return True

    def keeps(self, content: bytes, until: int, drop_hparams: bool) -> bool:
        """Whether a record of an old event file belongs to the history up to step ``until``."""
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

        try:
            event = Event.FromString(content)
        except DecodeError:
            return False
        if until < 0 or event.HasField("file_version"):
            return bool(event.HasField("file_version"))
        if event.HasField("graph_def"):
            fresh, self.has_graph = not self.has_graph, True
            return fresh
        if event.HasField("tagged_run_metadata"):
            return self.admit(f"run metadata {event.tagged_run_metadata.tag}", 0)
        tags = [value.tag for value in event.summary.value]
        if event.step > until:
            return False
        if any(tag.startswith(HPARAMS_TAGS) for tag in tags):
            if drop_hparams:
                return False
            self.has_hparams = True
        fresh_tags = [self.admit(tag, event.step) for tag in tags]
        return all(fresh_tags)


def rewrite_history(folder: Path, until: int, drop_hparams: bool = False) -> _History:
    """Make the event files of ``folder`` end at step ``until``: -1 leaves nothing but their heads.

    Each file is replaced atomically and keeps its name, even when nothing is left in it: a
    TensorBoard that is reading it would not get over its disappearance.
    """
    history, partial = _History(), folder / PARTIAL
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob(EVENT_FILES)):
        with partial.open("wb") as file:
            for stored, content in _records(path):
                if history.keeps(content, until, drop_hparams):
                    file.write(stored)
            file.flush()
            os.fsync(file.fileno())
        if partial.stat().st_size < path.stat().st_size:
            os.replace(partial, path)
    partial.unlink(missing_ok=True)
    age_files(folder, time.time())
    return history


def age_files(folder: Path, now: float) -> None:
    """Rename event files whose names do not sort before those of a writer made ``now``.

    Readers take the files in the order of their names, which go on with the second they were made
    in and then host and process: two in one second, or a clock set back, would mix up the history.
    """
    second = int(now)
    for number, path in enumerate(sorted(folder.glob(EVENT_FILES))):
        made = path.name.split(".")[3]
        if made.isdigit() and int(made) >= second:
            # "~" sorts after every host name, so these stay behind the older files.
            path.rename(path.with_name(f"events.out.tfevents.{second - 1:010d}.~{number:06d}"))


class Board:
    """The TensorBoard logs of one run, in ``folder``: a tracker (``reporting/trackers.py``).

    ``resume_step`` is the step of the checkpoint the run goes on from; None starts a new history
    and removes an old one. A point at or before the last step of its tag is left out, so steps
    strictly increase for every tag. Every call hands its records to the system before it returns:
    a kill loses none of them, and a full disk shows where it can be dealt with. (TensorBoard's own
    writer has a thread for this, which ends in a traceback.)

    Raises:
        DragomanError: if the folder cannot be written.
        OSError: from every method, if the disk is full.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        self.folder = folder
        self._open(-1 if resume_step is None else resume_step)

    def _open(self, until: int, drop_hparams: bool = False) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        try:
            self._history = rewrite_history(self.folder, until, drop_hparams)
            made = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
            self._file = (self.folder / f"events.out.tfevents.{made}").open("wb")
            self._write(file_version="brain.Event:2")
            # A TensorBoard that has read the old files takes out what comes after this step.
            self._write(step=until + 1, file_version="brain.Event:2")
            self._write(step=until + 1, session_log=SessionLog(status=SessionLog.START))
        except OSError as error:
            raise DragomanError(
                f"{self.folder}: cannot write the TensorBoard logs ({error.strerror})"
            ) from error

    def _write(self, **content: Any) -> None:
        """Write an ``Event``."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import (  # type: ignore[import-untyped]
            RecordWriter,
        )

        event = Event(wall_time=time.time(), **content)
        RecordWriter(self._file).write(event.SerializeToString())
        self._file.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add one point to each curve: ``{"train/loss": 2.3, ...}``."""
        from torch.utils.tensorboard.summary import scalar

        for tag, value in values.items():
            if tag not in NOT_CURVES and self._history.admit(tag, step):
                self._write(step=step, summary=scalar(tag, value))

    def text(self, step: int, tag: str, text: str) -> None:
        """Add a text, shown as Markdown."""
        from torch.utils.tensorboard import summary

        if self._history.admit(f"{tag}/text_summary", step):
            self._write(step=step, summary=summary.text(tag, text))

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Add a picture (in TensorBoard's images)."""
        if not self._history.admit(tag, step):
            return
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        from dragoman.reporting.heatmap import figure_png

        # PyTorch's own way would load pyplot, and encode the picture a second time.
        png = figure_png(figure, FIGURE_DPI)
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
        self._write(step=step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def hparams(self, keys: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Put the run into the HPARAMS table: its keys and its final scores.

        The metrics are also written as scalars ``hparam/<name>`` at the last step. A second call
        replaces the first.
        """
        from torch.utils.tensorboard.summary import hparams

        step = max([*self._history.last_steps.values(), 0])
        if self._history.has_hparams:
            self._file.close()
            self._open(step, drop_hparams=True)
        self._history.has_hparams = True
        tagged = {f"hparam/{name.removeprefix('hparam/')}": v for name, v in metrics.items()}
        for summary in hparams({name: _shown(value) for name, value in keys.items()}, tagged):
            for value in summary.value:
                self._history.admit(value.tag, step)
            self._write(step=step, summary=summary)
        self.scalars(step, tagged)

    @property
    def has_graph(self) -> bool:
        """Whether the model's graph has been drawn."""
        return self._history.has_graph

    def graph(self, model: nn.Module, inputs: Any) -> None:
        """Draw the model's graph by tracing it once on ``inputs`` (a tensor or a tuple of them).

        Leaves the random generators and the mode of the model as they were. A model that cannot
        be traced gets no graph and one line in the log; a graph already there is kept.
        """
        if self.has_graph:
            return
        import torch
        from torch.utils.tensorboard import _pytorch_graph

        modes = {module: module.training for module in model.modules()}
        try:
            with (
                torch.random.fork_rng(),
                torch.no_grad(),
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                warnings.simplefilter("ignore")
                drawn, costs = _pytorch_graph.graph(model, inputs)
        except Exception as error:  # a picture is never worth a run
            reason = next((line for line in str(error).splitlines() if line.strip()), "")
            log.warning("no model graph: %s %s", type(error).__name__, reason.strip())
            return
        finally:
            for module, mode in modes.items():
                module.training = mode
        self._history.has_graph = True
        self._write(graph_def=drawn.SerializeToString())
        costs = {"tag": "step1", "run_metadata": costs.SerializeToString()}
        self._write(tagged_run_metadata=costs)

    def close(self) -> None:
        """End."""
        self._file.close()


def _shown(value: Any) -> Any:
    """Return what the HPARAMS table can hold; it would show booleans as 0 and 1."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, (str, int, float)) else str(value)


def profiler(folder: Path, steps: int) -> AbstractContextManager[Any]:
    """Return a context that records ``steps`` training steps with the PyTorch profiler.

    Call ``.step()`` of what it gives after every training step. The first two steps are left out
    (one to wait, one to warm up); after the last one the trace is written to ``folder`` as
    ``<host>_<pid>.<time>.pt.trace.json``, which TensorBoard's profile plugin, Perfetto and
    ``chrome://tracing`` read. With 0 steps nothing is recorded, and the context gives None.
    """
    if steps == 0:
        return contextlib.nullcontext()
    from torch import profiler as torch_profiler

    return torch_profiler.profile(
        schedule=torch_profiler.schedule(wait=1, warmup=1, active=steps, repeat=1),
        on_trace_ready=torch_profiler.tensorboard_trace_handler(str(folder)),
        record_shapes=True,
    )
