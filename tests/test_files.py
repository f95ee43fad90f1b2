from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dragoman.errors import DragomanError
from dragoman.files import write_atomic


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "Straße\r\n\n")
    assert path.read_bytes() == "Straße\r\n\n".encode()
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [path]


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    path, plain = tmp_path / "file", tmp_path / "plain"
    write_atomic(path, "x")
    plain.write_text("x")
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if stage == "fsync" else (Path, "replace")), full)
    with pytest.raises(DragomanError, match=r"file: cannot be written \(No space left on device\)"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DragomanError, match=r"written \(No such file or directory"):
        write_atomic(tmp_path / "missing" / "file", "x")
    with pytest.raises(DragomanError, match="cannot be written as UTF-8"):
        write_atomic(tmp_path / "file", "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DragomanError, match=r"written \(Is a directory"):
        write_atomic(tmp_path / "folder", "x")
