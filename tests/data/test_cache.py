"""The cache: whole folders or none, whoever is killed or comes second."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from dragoman.data.cache import cache_key, cached_folder
from dragoman.errors import DragomanError


def write(folder: Path) -> None:
    (folder / "a.txt").write_text("content")


def refuse(folder: Path) -> None:
    raise AssertionError("built again")


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    folder = cached_folder(tmp_path / "deep" / "cache", "k", write)
    assert (folder / "a.txt").read_text() == "content"
    assert cached_folder(tmp_path / "deep" / "cache", "k", refuse) == folder


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut": ("a.txt", lambda path: path.write_text("con")),
    "replaced": ("a.txt", lambda path: path.write_text("CONTENT")),
    "a bit": ("a.txt", flip),
    "removed": ("a.txt", Path.unlink),
    "no checksums": ("meta.json", Path.unlink),
    "garbage": ("meta.json", lambda path: path.write_text("[1")),
    "of an earlier version": ("meta.json", lambda path: path.write_text('{"sizes": {"a.txt": 7}}')),
    "another checksum": ("meta.json", lambda path: path.write_text('{"crc32": {"a.txt": 7}}')),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_folder_is_built_again_and_named(
    name: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = cached_folder(tmp_path, "k", write)
    damage(folder / name)
    with pytest.warns(UserWarning, match=f"^{folder}: .*checksums"):
        cached_folder(tmp_path, "k", write)
    assert (folder / "a.txt").read_text() == "content"
    assert cached_folder(tmp_path, "k", refuse) == folder
    assert not list(tmp_path.glob("*.tmp"))


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise DragomanError("line 3: bad")

    with pytest.raises(DragomanError, match="line 3"):
        cached_folder(tmp_path, "k", fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


KILLED = """
import os, signal, sys
from pathlib import Path
from dragoman.data.cache import cached_folder
def build(folder):
    (folder / "a.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
cached_folder(Path(sys.argv[1]), "k", build)
"""


def test_what_a_killed_process_left_is_neither_used_nor_kept(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert dead.returncode < 0
    assert list(tmp_path.glob(".k.*.tmp"))
    folder = cached_folder(tmp_path, "k", write)
    assert (folder / "a.txt").read_text() == "content"
    assert not list(tmp_path.glob("*.tmp"))


def test_of_two_at_once_one_builds(tmp_path: Path) -> None:
    built: list[Path] = []
    building, coming = threading.Event(), threading.Event()

    def slow(folder: Path) -> None:
        building.set()
        assert coming.wait(10)
        time.sleep(0.1)  # the other is at the lock by now
        write(folder)
        built.append(folder)

    def come_second() -> None:
        assert building.wait(10)
        coming.set()
        cached_folder(tmp_path, "k", slow)

    second = threading.Thread(target=come_second)
    second.start()
    cached_folder(tmp_path, "k", slow)
    second.join()
    assert len(built) == 1


def test_without_locks_the_second_takes_what_the_first_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lock(*_: object) -> None:
        raise OSError("locks are not supported")

    monkeypatch.setattr("fcntl.flock", no_lock)

    def overtaken(folder: Path) -> None:
        write(folder)
        winner = tmp_path / "k"
        winner.mkdir()
        (winner / "a.txt").write_text("content")
        (winner / "meta.json").write_text(f'{{"crc32": {{"a.txt": {crc32(b"content")}}}}}')

    assert cached_folder(tmp_path, "k", overtaken).name == "k"
    assert cached_folder(tmp_path, "k", refuse)


def test_an_unusable_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DragomanError, match=r"file.*cannot be written.*data\.cache"):
        cached_folder(tmp_path / "file", "k", write)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, os.strerror(28))

    with pytest.raises(DragomanError, match=r"k: .*No space left on device"):
        cached_folder(tmp_path, "k", full)
    assert not list(tmp_path.glob("*.tmp"))


def test_keys_follow_every_cause() -> None:
    assert cache_key(a=1, b=[2]) == cache_key(b=[2], a=1)
    assert len({cache_key(a=1), cache_key(a=2), cache_key(b=1), cache_key(a="1")}) == 4
    assert len(cache_key(a=1)) == 16
