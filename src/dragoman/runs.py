"""Run folders: their names, what lies where in them, and who may write.

checkpoints/<run_name>/
    config.yaml              the resolved config
    step-<n>/                checkpoints, each whole (config, tokenizer, weights, state)
    best, last               text pointers: the name of a checkpoint
    train.jsonl              one line per logged step and validation
    data.json                what became of the training pairs, corpus by corpus
    pairs/                   lines held out of the training text, or given in memory
    scores.<split>.json      and hypotheses.<split>.txt: results of evaluations
    tensorboard/, attention/

An exported run (``dragoman export --format dragoman``) is a folder that is its only checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape, glob
from pathlib import Path
from typing import Any

from dragoman import settings
from dragoman.config import Config, trained_pairs, walk
from dragoman.errors import DragomanError, nearest, one_of
from dragoman.files import held, open_file, read_file, write_atomic

POINTERS = ("best", "last")
_STEP = re.compile(r"step-(\d+)")


def run_name(config: Config, experiment: str | None) -> str:
    """Return the name of a run's folder.

    ``<experiment>-<src>-<tgt>-s<seed>-<hash of the values that change the weights and are not the
    default>``: the same command finds the same folder, other values another one.
    """
    if config.run_name is not None:
        return config.run_name
    data, name = config.data, experiment or config.model.name
    digest = settings.fingerprint(config)
    return f"{name}-{data.src}-{data.tgt}-s{config.seed}-{digest}"


def run_of(config: Config, experiment: str | None) -> Run:
    """Return the run of a config.

    It may have another hash in its name, since defaults and keys were others when it was made:
    where there is no folder of the name, one with the same values is taken.
    """
    run = Run(Path(config.checkpoint_dir) / run_name(config, experiment))
    now = config.data.clean
    if config.run_name is None and not os.path.exists(run.folder):
        pattern = escape(str(run.folder)[:-8]) + 8 * "[0-9a-f]"
        for other in map(Run, map(Path, sorted(glob(pattern)))):
            with suppress(DragomanError):  # one that cannot be read is not this run
                saved = settings.load(other.folder / "config.yaml")
                config.data.clean = settings.as_then(config, other.folder / "config.yaml")
                if other.steps() and not changed_keys(saved, config):
                    return other
                config.data.clean = now
    config.data.clean = settings.as_then(config, run.folder / "config.yaml")
    return run


class Run:
    """One run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def exported(self) -> bool:
        """Whether the folder holds weights itself, no checkpoints."""
        return os.path.exists(self.folder / "model.safetensors")

    def create(self) -> None:
        """Make the folder.

        Raises:
            DragomanError: if it cannot be made or written to, or holds an exported run.
        """
        if self.exported:
            raise DragomanError(
                f"{self.folder}: holds an exported run, which cannot be trained on; choose another "
                "run_name (train.init_from begins with its weights)"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise DragomanError(
                f"{self.folder}: cannot make the run folder ({problem.strerror}); "
                "choose another checkpoint_dir"
            ) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder alone while inside.

        Raises:
            DragomanError: if another process holds it.
        """
        busy = f"{self.folder}: another process is using this run; wait or choose another run_name"
        with held(self.folder / ".lock", busy):
            try:
                yield
            finally:
                if not (self.folder / "config.yaml").exists():  # refused before it began
                    with suppress(OSError):
                        (self.folder / ".lock").unlink()
                        self.folder.rmdir()

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order."""
        found = [_STEP.fullmatch(entry.name) for entry in self.folder.glob("step-*")]
        return sorted(int(match[1]) for match in found if match)

    def _named(self, which: str) -> str:
        """Return the name in a pointer; what is no pointer, or not there, stands for itself."""
        if which not in POINTERS or not os.path.lexists(self.folder / which):
            return which
        with suppress(OSError):
            return read_file(self.folder / which, 100).decode(errors="replace").strip()
        return ""

    def _has(self, name: str) -> bool:
        return bool(_STEP.fullmatch(name)) and (self.folder / name).is_dir()

    def checkpoint(self, which: str = "best") -> Path:
        """Return the folder of a checkpoint: ``best``, ``last`` or ``step-<n>``.

        Raises:
            DragomanError: naming what there is, if there is no such checkpoint.
        """
        if self.exported:
            if which in POINTERS:
                return self.folder
            raise DragomanError(
                f"{self.folder}: there is no checkpoint '{which}', expected {one_of(POINTERS)}"
            )
        name = self._named(which)
        if self._has(name):
            return self.folder / name
        there = [p for p in POINTERS if self.exported or self._has(self._named(p))]
        there += [f"step-{step}" for step in self.steps()]
        said = f" (the file '{which}' names {name!r})" if name != which else ""
        advice = f", expected {one_of(there)}" if there else " yet; train the run first"
        raise DragomanError(f"{self.folder}: there is no checkpoint '{which}'{said}{advice}")

    def has_checkpoint(self) -> bool:
        """Whether training goes on from ``last``.

        Raises:
            DragomanError: if it cannot, although there are checkpoints.
        """
        if not self.steps() and not os.path.lexists(self.folder / "last"):
            return False
        try:
            read_state(self.checkpoint("last"))
        except DragomanError as problem:
            raise DragomanError(f"{problem}; {self.way_on()}") from None
        return True

    def way_on(self, without: str = "") -> str:
        """Say how to go on with the newest whole checkpoint but ``without``, or else anew."""
        anew = f"delete {self.folder} to start anew"
        for name in (f"step-{step}" for step in reversed(self.steps())):
            with suppress(DragomanError):
                if name != without and not damaged(self.folder / name):
                    words = f"train on from it with train.resume_from={name}"
                    return f"{name} is whole: {words}, use it with --checkpoint {name}, or {anew}"
        return anew

    def resume_from(self, which: str | None) -> None:
        """Point ``last`` at a checkpoint to go on from, unless that was done before.

        So the same command, given again, goes on from where it got to.

        Raises:
            DragomanError: if there is no such checkpoint.
        """
        with suppress(DragomanError):
            done = settings.load(self.checkpoint("last") / "config.yaml").train.resume_from
            which = None if which == done else which
        if which is not None:
            self.point("last", int(self.checkpoint(which).name.removeprefix("step-")))

    def trained_pairs(self) -> list[tuple[str, str]]:
        """Return the language pairs, source and target, that the run was trained to translate."""
        return trained_pairs(settings.load(self.folder / "config.yaml").data)

    def leaks(self, split: str) -> int:
        """Return how many training pairs share a sentence with a split, if that was counted."""
        try:
            counts = json.loads(read_file(self.folder / "data.json"))
            return sum(int(corpus["leaks"].get(split, 0)) for corpus in counts)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return 0  # an older run, or one that was handed on, has no such file

    def point(self, pointer: str, step: int) -> None:
        """Move a pointer to a checkpoint."""
        write_atomic(self.folder / pointer, f"step-{step}\n")

    def prune(self, keep: int, also: set[int]) -> None:
        """Delete all checkpoints but the newest ``keep``, the last, the best and ``also``.

        The best is the one that the last one's state names; its pointer may have been damaged.
        """
        last = self.checkpoint("last")
        best = read_state(last).get("best_step", 0)
        if self._named("best") != f"step-{best}" and self._has(f"step-{best}"):
            self.point("best", best)
        also = also | {best, int(last.name.removeprefix("step-"))}
        steps = self.steps()
        for step in steps[: max(0, len(steps) - keep)]:
            if step not in also:
                # Renamed first: a folder half deleted must not look like a checkpoint.
                doomed = self.folder / f".step-{step}.doomed"
                (self.folder / f"step-{step}").rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def clean(self) -> None:
        """Delete what a killed process left half written or half deleted."""
        for old in self.folder.glob(".step-*.old"):  # set aside for a newer one that never came
            name = old.name.removeprefix(".").removesuffix(".old")
            if not (self.folder / name).exists():
                old.rename(self.folder / name)
        for pattern in (".step-*.tmp", ".step-*.old", ".step-*.doomed", ".*.tmp"):
            for leftover in self.folder.glob(pattern):
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)


def leaking(split: str, shared: int) -> str:
    """Say that training pairs share a sentence with a split."""
    return (
        f"{shared:,} training pairs share a sentence with the split '{split}', which makes its "
        "score better than it is (data.clean.leaks)"
    )


def find_run(text: str) -> Run:
    """Return the run that a command line names: a folder, or a name under ``checkpoints``.

    Raises:
        DragomanError: suggesting the nearest run, if there is none.
    """
    given = Path(os.path.expanduser(text))
    for folder in (given, "checkpoints" / given):
        if os.path.isfile(folder / "config.yaml"):
            return Run(folder)
    root = Path("checkpoints")
    names = sorted(p.parent.name for p in root.glob("*/config.yaml")) if root.is_dir() else []
    hint = nearest(given.name, names) or (
        f"; runs here: {', '.join(names[:5])}" if names else "; train one first"
    )
    raise DragomanError(f"{text}: not a run folder (no config.yaml in it){hint}")


def changed_keys(saved: Config, wanted: Config) -> list[str]:
    """Return the weights-changing keys that differ, each with both values, to be read by people."""
    fixed = settings.fixed_keys(saved).keys() | settings.fixed_keys(wanted).keys()
    old, new = ({path: value for path, _, value in walk(config)} for config in (saved, wanted))
    return [
        f"{path}: saved {old.get(path)!r}, now {new.get(path)!r}"
        for path in sorted(fixed)
        if old.get(path) != new.get(path)
    ]


def check_resume(saved: Config, wanted: Config, run: Run) -> None:
    """Refuse to go on with a run whose weights-changing keys differ from the saved ones.

    Raises:
        DragomanError: naming every such key with both values.
    """
    if changed := changed_keys(saved, wanted):
        raise DragomanError(
            f"{run.folder}: this run was trained with other values ({'; '.join(changed)}); "
            "restore them or choose another run_name"
        )


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return a checkpoint's ``state.json``.

    Raises:
        DragomanError: if it is missing, unreadable or of a newer format.
    """
    path = checkpoint / "state.json"
    try:
        state = json.loads(read_file(path))
        version = state["format_version"]
        if type(version) is not int:
            raise TypeError(f"format_version is {version!r}")
    except FileNotFoundError:
        raise DragomanError(f"{checkpoint}: not a checkpoint (no state.json)") from None
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DragomanError(f"{path}: not a readable checkpoint state ({problem})") from None
    if version > FORMAT_VERSION:
        raise DragomanError(
            f"{path}: format version {version} is newer than this Dragoman reads "
            f"({FORMAT_VERSION}); update it"
        )
    return dict(state)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of ``train.jsonl``; one that a kill has cut off is left out.

    A run without a log, such as an exported one, has none.
    """
    try:
        lines = read_file(path).decode(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                found.append(entry)
    return found


def _sha256(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(checkpoint: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a checkpoint but ``state.json``, which holds them."""
    files = (path for path in sorted(checkpoint.iterdir()) if path.name != "state.json")
    return {path.name: _sha256(path) for path in files}


def damaged(checkpoint: Path, weights: str | None = None) -> Path | None:
    """Return a file that is not what the digests in a checkpoint's state say, if there is one.

    Older checkpoints have no digests. With ``weights``, the name of a file, only this one and those
    of the tokenizer are read.
    """
    saved = read_state(checkpoint).get("digests", {})
    for name, digest in saved.items() if isinstance(saved, dict) else ():
        path: Path = checkpoint / name
        if weights not in (None, name) and path.suffix in (".safetensors", ".yaml"):
            continue
        try:
            if _sha256(path) != digest:
                return path
        except OSError:
            return path
    return None


def verify(checkpoint: Path, weights: str | None = None) -> None:
    """Refuse a checkpoint that is ``damaged``.

    Raises:
        DragomanError: naming the file that is not what was saved, and a checkpoint to take instead.
    """
    if path := damaged(checkpoint, weights):
        of_run = _STEP.fullmatch(checkpoint.name)
        advice = Run(checkpoint.parent).way_on(checkpoint.name) if of_run else "take another copy"
        raise DragomanError(f"{path}: is missing or damaged: not what was saved there; {advice}")


# Grows when a checkpoint written by an older version would be read wrongly.
FORMAT_VERSION = 1
