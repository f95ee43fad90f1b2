"""``train.jsonl``: what is dropped when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dragoman.errors import DragomanError
from dragoman.training.runlog import RunLog


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = RunLog(tmp_path / "train.jsonl", 0, enabled=True)
    for step in (1, 2, 2, 3):
        log.write({"step": step, "train": {"loss": 1.23456789}, "note": "text"})
    return tmp_path / "train.jsonl"


def test_lines_are_appended_and_rounded(path: Path) -> None:
    assert steps(path) == [1, 2, 2, 3]
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {"step": 1, "train": {"loss": 1.23457}, "note": "text"}


def test_resuming_drops_what_lies_beyond(path: Path) -> None:
    RunLog(path, 2, enabled=True).write({"step": 3})
    assert steps(path) == [1, 2, 2, 3]
    assert json.loads(path.read_text().splitlines()[-1]) == {"step": 3}


def test_starting_anew_drops_everything(path: Path) -> None:
    RunLog(path, 0, enabled=True)
    assert path.read_text() == ""


def test_a_line_cut_off_by_a_kill_is_dropped(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"step": 3, "train": {"lo')
    RunLog(path, 3, enabled=True).write({"step": 4})
    assert steps(path) == [1, 2, 2, 3, 4]


@pytest.mark.parametrize("line", ["[]", "3", "null", "{}", '{"step": "x"}', "\u00ff\u2028"])
def test_lines_that_are_no_entries_are_dropped(line: str, path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    RunLog(path, 3, enabled=True)
    assert steps(path) == [1, 2, 2, 3]


def test_other_ranks_write_nothing(path: Path) -> None:
    before = path.read_bytes()
    RunLog(path, 0, enabled=False).write({"step": 9})
    assert path.read_bytes() == before


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "train.jsonl", 0, enabled=True)
    log.path = Path("/dev/full")
    with pytest.raises(DragomanError, match="cannot be written"):
        log.write({"step": 1})
