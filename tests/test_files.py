from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dragoman import files
from dragoman.errors import DragomanError
from dragoman.files import recover, whole_folder, write_atomic


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


def fill(folder: Path, text: str) -> None:
    with whole_folder(folder) as fresh:
        (fresh / "deep").mkdir()
        (fresh / "deep" / text).write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.*")}


def test_a_new_folder_takes_the_place_of_the_old(tmp_path: Path) -> None:
    for text in ("a.x", "b.x"):
        fill(tmp_path / "in" / "folder", text)
        assert content(tmp_path / "in") == {f"folder/deep/{text}": text}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [(Path, "write_text", 1), (files, "_sync", 1), (files, "_sync", 3)]
    + [(Path, "rename", call) for call in (1, 2)],
)
def test_a_failed_folder_leaves_the_old_one(
    owner: Any,
    name: str,
    call: int,
    error: BaseException,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "folder[1]"
    fill(folder, "old.x")
    real, calls = getattr(owner, name), iter(range(1, 100))

    def fails(*args: Any) -> Any:
        if next(calls) == call:
            raise error
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        with pytest.raises(type(error)):
            fill(folder, "new.x")
    assert content(folder) == {"deep/old.x": "old.x"}
    assert list(tmp_path.iterdir()) == [folder]


KILLED = """
import os, signal, sys
from pathlib import Path
from dragoman import files
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "renaming":
    rename = Path.rename
    Path.rename = lambda self, target: die() if self.suffix == ".tmp" else rename(self, target)
with files.whole_folder(Path(sys.argv[1])) as fresh:
    (fresh / "new.x").write_text("new.x")
    if sys.argv[2] == "writing":
        die()
"""


@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_what_a_kill_left_is_put_right(moment: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, "old.x")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert folder.exists() == (moment == "writing")
    assert list(tmp_path.glob(".folder.*.tmp"))
    recover(folder)
    assert content(folder) == {"deep/old.x": "old.x"}
    assert list(tmp_path.iterdir()) == [folder]


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / f".folder.{os.getppid()}.tmp"
    other = tmp_path / ".folder.txt"
    theirs.mkdir()
    other.touch()
    fill(tmp_path / "folder", "a.x")
    assert sorted(tmp_path.iterdir()) == sorted([theirs, other, tmp_path / "folder"])
