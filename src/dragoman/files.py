"""Files and folders that are whole or absent.

They are written beside their place, flushed to the disk, then renamed into it.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import BufferedReader
from pathlib import Path

from dragoman.errors import DragomanError


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        DragomanError: naming the path and the reason it cannot be read.
    """
    try:
        return read_file(path)
    except FileNotFoundError:
        raise DragomanError(f"{path}: no such file") from None
    except OSError as problem:
        raise DragomanError(f"{path}: cannot be read ({problem.strerror})") from None


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
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
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
def whole_folder(folder: Path) -> Iterator[Path]:
    """Put the new folder that this yields, once it is filled, in the place of ``folder``.

    Everything is on the disk before the new folder gets its name. An older one is set aside for
    that moment and then deleted, with all that is in it. An exception in between leaves the older
    folder as it was; after a kill, ``recover`` (or the next ``whole_folder``) does so.

    Two processes may not write the same folder at once: callers hold a lock. Without one, the last
    to finish wins.

    Raises:
        OSError: the caller knows what the folder is for, and says so.
    """
    fresh, old = _beside(folder, f"{os.getpid()}.tmp"), _beside(folder, "old")
    recover(folder)
    try:
        fresh.mkdir(parents=True)
        yield fresh
        for path in (*fresh.rglob("*"), fresh):
            if path.is_file() or path.is_dir():
                _sync(path)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        _sync(folder.parent)
    finally:
        recover(folder)


def recover(folder: Path) -> None:
    """Put ``folder`` back if it was set aside for a newer one that never came.

    Whatever else killed processes left of writing it is deleted.
    """
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    for fresh in folder.parent.glob(glob.escape(f".{folder.name}.") + "*.tmp"):
        if not _of_another(fresh):
            shutil.rmtree(fresh, ignore_errors=True)


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f".{folder.name}.{ending}")


def _of_another(temporary: Path) -> bool:
    """Whether another process that is alive may be writing a temporary folder."""
    writer = temporary.suffixes[-2].removeprefix(".")
    if not writer.isdigit() or int(writer) == os.getpid():
        return False
    try:
        os.kill(int(writer), 0)
    except (ProcessLookupError, OverflowError):  # ended; no process number at all
        return False
    except OSError:  # there, and not ours
        pass
    return True


def open_file(path: Path) -> BufferedReader:
    """Open a regular file and nothing else: a pipe or a device, found somewhere, may never end.

    Raises:
        OSError: if it is missing, cannot be read or is no regular file.
    """
    # A pipe opened so answers at once.
    stream = open(path, "rb", opener=lambda n, flags: os.open(n, flags | os.O_NONBLOCK))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return stream


def read_file(path: Path, most: int | None = None) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: as ``open_file``, or if it is larger.
    """
    with open_file(path) as stream:
        if most is not None and os.fstat(stream.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
        return stream.read()


@contextmanager
def held(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file alone while inside; the system lets go of it even after kill -9.

    Raises:
        DragomanError: saying ``busy`` if another process holds it, or why it cannot be locked.
    """
    try:
        file = path.open("a")
    except OSError as problem:
        raise DragomanError(f"{path}: cannot be written ({problem.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.EACCES):
                raise DragomanError(busy) from None
            raise DragomanError(f"{path}: cannot be locked ({problem.strerror})") from None
        yield


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    # Some file systems cannot open or flush a folder.
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_PART = re.compile(r"\w[\w.-]*")


def check_file_part(name: str, key: str) -> None:
    """Refuse a name, such as a split's, that cannot be part of a file name or leads elsewhere.

    Raises:
        DragomanError: naming ``key``, where it was given.
    """
    if not _PART.fullmatch(name):
        raise DragomanError(
            f"{key}: {name!r} cannot be part of a file name, expected letters, digits, '_', '-', "
            "'.', and no '.' or '-' first"
        )
