"""Work in parts: by one process or several, through faults and kills."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import tinyruns
from dragoman.config import CleanConfig
from dragoman.data import store
from dragoman.data.cleaning import Facts
from dragoman.data.parts import Arrays, in_parts, join, read_part
from dragoman.errors import DragomanError

COUNTS = [0, 1, 2, 3, 10]


def use_cores(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(count)))


def squares(task: int) -> Arrays:
    return {
        "squares": np.arange(task, dtype=np.uint32) ** 2,
        "process": np.array([os.getpid()]),
    }


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("cores", [1, 3])
def test_the_parts_are_the_same_whoever_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, cores: int
) -> None:
    use_cores(monkeypatch, cores)
    numbers: list[int] = []
    parts = in_parts(tmp_path / "parts", iter(range(count)), squares, numbers.append)
    assert [part.name for part in parts] == [f"{number:06}" for number in range(count)]
    assert sorted((tmp_path / "parts").iterdir()) == parts
    for task, part in enumerate(parts):
        found = read_part(part, "squares")
        assert found.dtype == np.uint32
        assert found.tolist() == [number**2 for number in range(task)]
        here = read_part(part, "process").tolist() == [os.getpid()]
        assert here == (cores == 1 or count < 3)
    assert numbers == list(range(1, count + 1))


@pytest.mark.parametrize("cores", [1, 3])
def test_what_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    use_cores(monkeypatch, cores)
    before = in_parts(tmp_path, range(4), squares)

    def other(task: int) -> Arrays:
        assert task >= 4
        return squares(task + 100)

    parts = in_parts(tmp_path, range(7), other)
    assert parts[:4] == before
    assert [len(read_part(part, "squares")) for part in parts] == [0, 1, 2, 3, 104, 105, 106]


@pytest.mark.parametrize("problem", [DragomanError("line 7: is bad"), ZeroDivisionError("x")])
@pytest.mark.parametrize("cores", [1, 2])
def test_an_exception_of_the_work_reaches_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, problem: Exception
) -> None:
    use_cores(monkeypatch, cores)

    def faulty(task: int) -> Arrays:
        if task == 3:
            raise problem
        return squares(task)

    with pytest.raises(type(problem)) as caught:
        in_parts(tmp_path, range(10), faulty)
    assert type(caught.value) is type(problem)
    assert str(caught.value) == str(problem)
    assert {"000000", "000001", "000002"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "000003").exists()
    assert len(in_parts(tmp_path, range(10), squares)) == 10  # another time it works


def test_an_exception_of_the_tasks_reaches_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cores(monkeypatch, 2)

    def tasks() -> Iterator[int]:
        yield from range(5)
        raise DragomanError("line 6: is bad")

    with pytest.raises(DragomanError, match=r"^line 6: is bad$"):
        in_parts(tmp_path, tasks(), squares)


def test_text_whose_end_was_at_fault_is_not_examined_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_cores(monkeypatch, 1)
    monkeypatch.setattr(store, "ROWS", 3)
    seen: list[str] = []
    examine = store._examine

    def counted(pairs: list[tuple[str, str]], facts: Facts) -> Arrays:
        seen.extend(src for src, _ in pairs)
        return examine(pairs, facts)

    monkeypatch.setattr(store, "_examine", counted)
    rows = [(f"de {n}", f"en {n}") for n in range(14)]

    def broken() -> Iterator[tuple[str, str]]:
        yield from rows[:10]
        raise DragomanError("train.tsv: cannot be read")

    facts = Facts(CleanConfig(), "de", "en")
    with pytest.raises(DragomanError, match="cannot be read"):
        store.read_text(tmp_path, "corpus", broken, facts)
    assert seen == [src for src, _ in rows[:9]]
    text = store.read_text(tmp_path, "corpus", lambda: rows, facts)
    assert seen == [src for src, _ in rows]
    assert text.sides[1].lines(np.arange(14)) == [tgt for _, tgt in rows]


# Kills.

SLOW = """
import os, sys, time
from pathlib import Path
import numpy as np
from dragoman.data.parts import in_parts

folder, marks, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
os.sched_getaffinity = lambda process: {0, 1}

def work(task):
    (marks / f"{task}.{os.getpid()}").touch()
    time.sleep(seconds)
    return {"numbers": np.arange(task) * 7}

in_parts(folder, range(12), work)
"""


def alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def wait_for(told: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not told():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def finished(folder: Path) -> set[int]:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return {int(name) for name in names if name.isdigit()}


def marked(marks: Path) -> list[tuple[int, int]]:
    """What was begun: task and process."""
    found = [path.name.split(".") for path in marks.iterdir()]
    return [(int(task), int(process)) for task, process in found]


@contextmanager
def slowly(folder: Path, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """Run ``SLOW``, and in the end leave nothing of it, whatever became of it."""
    (folder / "marks").mkdir()
    arguments = [str(folder / "parts"), str(folder / "marks"), str(seconds)]
    slow = tinyruns.start("-c", SLOW, *arguments, cwd=folder)
    try:
        yield slow
    finally:
        for process in {slow.pid, *(process for _, process in marked(folder / "marks"))}:
            if alive(process):
                os.kill(process, signal.SIGKILL)
        slow.communicate()


def test_a_kill_loses_no_finished_part_and_leaves_no_process(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with slowly(tmp_path, 0.3) as slow:
        wait_for(lambda: len(finished(tmp_path / "parts")) >= 3)
        slow.kill()
        slow.wait()
        workers = {process for _, process in marked(marks)}
        assert len(workers) == 2
        assert slow.pid not in workers
        wait_for(lambda: not any(map(alive, workers)), 10)
    done = finished(tmp_path / "parts")
    assert 3 <= len(done) < 12

    arguments = [str(tmp_path / "parts"), str(marks), "0"]
    again = tinyruns.call("-c", SLOW, *arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    begun = [task for task, process in marked(marks) if process not in workers]
    assert sorted(begun) == sorted(set(range(12)) - done)
    for task in range(12):
        part = tmp_path / "parts" / f"{task:06}"
        assert read_part(part, "numbers").tolist() == [7 * n for n in range(task)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_workers_with_their_parent(tmp_path: Path, number: int) -> None:
    with slowly(tmp_path, 0.5) as slow:
        wait_for(lambda: finished(tmp_path / "parts"))
        slow.send_signal(number)
        assert slow.wait(timeout=60) != 0
        wait_for(lambda: not any(alive(process) for _, process in marked(tmp_path / "marks")), 10)
    assert len(finished(tmp_path / "parts")) < 12


def test_a_daemon_works_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cores(monkeypatch, 3)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=in_parts, args=(tmp_path, range(6), squares), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    made_by = {read_part(tmp_path / f"{n:06}", "process").item() for n in range(6)}
    assert made_by == {process.pid}


# Parts as one file.


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "<u2", "uint32", "uint64", "int64", ">i4", "f4"]
)
@pytest.mark.parametrize("lengths", [[3, 0, 2], [0, 4], [5], [0, 0], [0]])
def test_joined_parts_are_what_numpy_reads(tmp_path: Path, dtype: str, lengths: list[int]) -> None:
    arrays = [np.arange(n).astype(dtype) for n in lengths]
    parts = in_parts(tmp_path / "parts", range(len(arrays)), lambda n: {"x": arrays[n]})
    join(parts, "x", tmp_path / "x.npy")
    whole = np.load(tmp_path / "x.npy")
    assert whole.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(whole, np.concatenate(arrays))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(mapped, whole)


def test_joined_parts_may_get_another_type(tmp_path: Path) -> None:
    parts = in_parts(tmp_path / "parts", [2, 0, 3], lambda n: {"x": np.arange(n, dtype=np.uint8)})
    join(parts, "x", tmp_path / "x.npy", np.int64)
    whole = np.load(tmp_path / "x.npy")
    assert whole.dtype == np.int64
    assert whole.tolist() == [0, 1, 0, 1, 2]
