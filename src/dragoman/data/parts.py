"""Work on a corpus part by part: on all cores, and so that a killed process can go on."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Task = TypeVar("Task")
Arrays = Mapping[str, NDArray[Any]]

ROWS = 1 << 14  # pairs of a part
_FEW = 2  # parts that are not worth a process

_work: Callable[[Any], Arrays] | None = None  # what a worker does; inherited, not sent


def in_parts(
    folder: Path,
    tasks: Iterable[Task],
    work: Callable[[Task], Arrays],
    done: Callable[[int], object] = lambda number: None,
) -> list[Path]:
    """Write the arrays that ``work`` makes of every task into a folder each; return the folders.

    What an earlier process finished is kept. Few tasks are worked on here, more by a process for
    each core (a fork: a program that trains needs no guard around its main part).

    Args:
        folder: where the parts go.
        tasks: the same whenever this is called, and cheap to pass over.
        work: from a task to arrays by name.
        done: called with the number of every part that is there, in order.

    Raises:
        OSError: if the folder cannot be written; and whatever ``work`` raises.
    """
    global _work
    folder.mkdir(parents=True, exist_ok=True)
    tasks, paths = iter(tasks), list[Path]()
    first = list(itertools.islice(tasks, _FEW + 1))
    alone = sys.platform != "linux" or multiprocessing.current_process().daemon
    cores = 1 if alone or len(first) <= _FEW else len(os.sched_getaffinity(0))
    waiting: deque[Future[None]] = deque()

    def settle(most: int) -> None:
        while len(waiting) > most:
            waiting.popleft().result()
            done(len(paths) - len(waiting))

    with ExitStack() as stack:
        pool = None
        for number, task in enumerate(itertools.chain(first, tasks)):
            path = folder / f"{number:06}"
            if path.is_dir():
                settle(0)
            paths.append(path)
            if path.is_dir():
                done(len(paths))
            elif cores == 1:
                _write(paths[-1], work(task))
                done(len(paths))
            else:
                if pool is None:
                    _work = work
                    pool = stack.enter_context(_workers(cores))
                waiting.append(pool.submit(_do, paths[-1], task))
                settle(2 * cores)
        settle(0)
    return paths


def _workers(cores: int) -> ProcessPoolExecutor:
    with warnings.catch_warnings():
        # Python warns of forks beside threads: a worker uses none of what those may have locked.
        warnings.simplefilter("ignore", DeprecationWarning)
        context = multiprocessing.get_context("fork")
        return ProcessPoolExecutor(cores, context, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    """Leave signals to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _do(path: Path, task: Any) -> None:
    assert _work is not None
    _write(path, _work(task))


def _write(path: Path, arrays: Arrays) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name, array in arrays.items():
        np.save(fresh / f"{name}.npy", array)
    fresh.rename(path)


def read_part(path: Path, name: str) -> NDArray[Any]:
    """Return one array of a part, mapped."""
    return np.asarray(np.load(path / f"{name}.npy", mmap_mode="r"))


def join(parts: list[Path], name: str, path: Path, dtype: type[np.generic] | None = None) -> None:
    """Write one array of all parts, one after the other, as one file."""
    arrays: Iterator[NDArray[Any]] = (read_part(part, name) for part in parts)
    total = sum(len(read_part(part, name)) for part in parts)
    with path.open("wb") as file:
        kind = np.dtype(dtype or read_part(parts[0], name).dtype)
        header = {"descr": kind.str, "fortran_order": False, "shape": (total,)}
        np.lib.format.write_array_header_1_0(file, header)
        # Written, not mapped: a full disk is then an error and not a crash.
        for array in arrays:
            file.write(array.astype(kind, copy=False).tobytes())
