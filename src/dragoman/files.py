"""Files that are whole or absent: written beside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dragoman.errors import DragomanError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content`` (text as UTF-8) so that no reader ever sees half of it.

    A crash or a full disk leaves the old file as it was.

    Raises:
        DragomanError: naming the path and the reason it cannot be written.
    """
    if not path.name:
        raise DragomanError(f"{path}: is a folder, expected the name of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        data = content.encode("utf-8") if isinstance(content, str) else content
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except UnicodeEncodeError as problem:
        raise DragomanError(f"{path}: cannot be written as UTF-8 ({problem.reason})") from None
    except OSError as problem:
        raise DragomanError(f"{path}: cannot be written ({problem.strerror})") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(folder: Path) -> None:
    """Make a folder and a file in it, and remove the file: before hours of work for nothing.

    Raises:
        DragomanError: naming the folder and the reason it cannot be written.
    """
    probe = folder / f".{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as problem:
        raise DragomanError(f"{folder}: cannot be written ({problem.strerror})") from None


@contextmanager
def held(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file alone while inside; the system lets go of it even after kill -9.

    Raises:
        DragomanError: saying ``busy`` if another process holds it, or why it cannot be locked.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as problem:
        raise DragomanError(f"{path}: cannot be written ({problem.strerror})") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(descriptor)
        if problem.errno in (errno.EAGAIN, errno.EACCES):
            raise DragomanError(busy) from None
        raise DragomanError(f"{path}: cannot be locked ({problem.strerror})") from None
    try:
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk where the file system can; some cannot open a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
