"""Folders that are computed once: named by a hash of their content's causes, never half written."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dragoman.errors import DragomanError
from dragoman.files import whole_folder

_META = "meta.json"


def cache_key(**causes: Any) -> str:
    """Return 16 hexadecimal digits that stand for JSON values."""
    text = json.dumps(causes, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached_folder(cache: Path, key: str, build: Callable[[Path], None]) -> Path:
    """Return ``cache/key``; unless it is there and whole, ``build`` writes it into a new folder.

    The new folder gets its name only when all of it is on disk. Of two processes one builds and
    the other waits; what a killed process left behind is removed. A folder whose files are not
    those that were written is built anew, with a warning; so is one of an earlier version, which
    kept no checksums.

    Raises:
        DragomanError: if the cache cannot be written; and whatever ``build`` raises.
    """
    folder = cache / key
    if _is_whole(folder):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{key}.lock"):
            if not _is_whole(folder):
                if folder.exists():
                    warnings.warn(
                        f"{folder}: files of the token cache do not match their checksums; they "
                        "are made again",
                        stacklevel=2,
                    )
                with whole_folder(folder) as fresh:
                    build(fresh)
                    meta = json.dumps({"crc32": _checksums(fresh)}, indent=1) + "\n"
                    (fresh / _META).write_text(meta, encoding="utf-8")
    except OSError as problem:
        path = problem.filename or folder
        raise DragomanError(
            f"{path}: the token cache cannot be written ({problem.strerror or problem}); "
            "data.cache names its folder"
        ) from None
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases even if the process is killed."""
    with open(path, "a") as file:
        with contextlib.suppress(OSError):  # file systems without locks: the rename still protects
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_whole(folder: Path) -> bool:
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        return isinstance(meta, dict) and meta.get("crc32") == _checksums(folder)
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    """Return the CRC-32 of every file: quick to compute, and damage is the threat, not forgery."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != _META:
            status = path.stat()
            found[path.name] = _checksum(path, status.st_size, status.st_mtime_ns)
    return found


@functools.cache
def _checksum(path: Path, size: int, changed: int) -> int:
    """Read a file, once in a process as long as its size and time stay the same."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
