"""Folders that are computed once: named by a hash of their content's causes, never half written."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
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
    the other waits; what a killed process left behind is removed. A folder whose files have not
    the sizes they were written with is built anew.

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
                with whole_folder(folder) as fresh:
                    build(fresh)
                    sizes = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
                    meta = json.dumps({"sizes": sizes}, indent=1) + "\n"
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
        sizes = json.loads((folder / _META).read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
