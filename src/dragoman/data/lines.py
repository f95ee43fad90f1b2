"""Bytes in, lines out: text files and what they are packed in.

Everything streams, and every refusal names the file and, where there is one, the line (counted from
1). Lines end at ``\\n`` alone: ``str.splitlines`` also breaks at U+2028, U+0085 and others, which
occur inside real sentences and would shift one side of a corpus.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
import re
import stat
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from dragoman.errors import DragomanError

Pair = tuple[str, str]
Row = tuple[str, ...]  # a source line and its target; in text to be scored, there may be several
Reference = str | tuple[str, ...]  # what a translation is compared with; there may be several


def alternatives(reference: Reference) -> tuple[str, ...]:
    """Return all references of a line, of which there is mostly one."""
    return (reference,) if isinstance(reference, str) else tuple(reference)


LONGEST = 1 << 20  # bytes of a line: more is no sentence
_BOM = b"\xef\xbb\xbf"
# A file that grows so many times over is made to fill memory or disk: text packs ten to one.
_MOST_RATIO, _MOST_FREE = 200, 1 << 24
_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
# Packed files by their first bytes: the name people know, and the module, loaded when it is needed,
# for a Python may have been built without it.
_PACKED = {
    re.compile(rb"\x1f\x8b"): ("gzip", "gzip"),
    re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"): ("bzip2", "bz2"),
    re.compile(rb"\xfd7zXZ\0"): ("xz", "lzma"),
    re.compile(rb"\x28\xb5\x2f\xfd"): ("Zstandard", _ZSTD),
}
ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".zip")  # of what a file may be packed in
# First bytes of what is no UTF-8 text, in this order: UTF-32 begins like UTF-16.
_FOREIGN = {
    re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"): "UTF-32",
    re.compile(rb"\xff\xfe|\xfe\xff|\0[^\0]|[^\0]\0"): "UTF-16",
    re.compile(rb"PK\x03\x04"): "a zip archive",
    re.compile(rb"%PDF-"): "a PDF file",
    re.compile(rb"PAR1"): "a Parquet file",
    **{magic: f"a {name} file" for magic, (name, _) in _PACKED.items()},
}


class Place(NamedTuple):
    """Where text stands: a file, or a member of a zip archive."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"


def refusal(path: Path | Place, problem: Exception) -> DragomanError:
    """Say in one line why a file could not be opened or read."""
    if isinstance(problem, FileNotFoundError | NotADirectoryError):
        return DragomanError(f"{path}: no such file")
    if isinstance(problem, IsADirectoryError):
        return DragomanError(f"{path}: is a folder, expected a file")
    reason = getattr(problem, "strerror", None) or str(problem)
    return DragomanError(f"{path}: cannot be read ({reason})")


def _is_stream(path: Path, reread: bool) -> bool:
    """Tell whether a path is a pipe or a device, which is refused if it is to be read again."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return False
    if reread:
        raise io.UnsupportedOperation(
            "a pipe or device gives its text only once; write it to a file"
        )
    return True


def check_file(path: Path, reread: bool = False) -> Path:
    """Return ``path`` if it is a file that can be read and is not empty.

    A pipe is left alone, since what is read of it is gone; ``reread`` refuses it.

    Raises:
        DragomanError: if it is missing, a folder, unreadable, empty, or a pipe to be read again.
    """
    try:
        if _is_stream(path, reread):
            return path
        with path.open("rb") as stream:
            first = stream.read(1)
    except (OSError, ValueError) as problem:  # ValueError: a path that no file can have
        raise refusal(path, problem) from None
    if not first:
        raise DragomanError(f"{path}: the file is empty")
    return path


class _Unpacked(io.RawIOBase):
    """What a packed file holds; refused if it is damaged or grows beyond all measure."""

    def __init__(self, stream: IO[bytes], kind: str, place: Place, size: int) -> None:
        self._stream, self._kind, self._place, self._size = stream, kind, place, size
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._stream.read(len(buffer))
        except Exception as problem:  # every module has a class of its own for what is corrupt
            if getattr(problem, "errno", None):
                raise
            state = "truncated" if isinstance(problem, EOFError) else "corrupt"
            raise DragomanError(
                f"{self._place}: the {self._kind} file is {state}; fetch or copy it again"
            ) from None
        self._given += len(found)
        if self._given > _MOST_FREE and self._given > _MOST_RATIO * self._size:
            raise DragomanError(
                f"{self._place}: unpacks to more than {_MOST_RATIO} times its size, which text "
                "does not; it is not read on"
            )
        buffer[: len(found)] = found
        return len(found)


@contextmanager
def opened(place: Place) -> Iterator[io.BufferedReader]:
    """Open a file, or a member of an archive, unpacked if its first bytes say that it is packed.

    A pipe is read once, from its first byte on.

    Raises:
        DragomanError: if it is missing, empty, damaged, or cannot be read.
    """
    check_file(place.path)
    try:
        with place.path.open("rb") as raw:
            if place.member is not None:
                with _archive(raw, place.path) as (archive, entries):
                    entry = entries[place.member]
                    with _zip_faults(place.path):
                        inner = archive.open(entry)
                    yield _unpacked(inner, "zip", place, entry.compress_size)
                return
            head = raw.peek(10)
            kind, module = next((n for m, n in _PACKED.items() if m.match(head)), ("", ""))
            if not module:
                yield raw
                return
            try:
                unpacker = importlib.import_module(module)
            except ImportError as problem:
                raise DragomanError(f"{place}: cannot be unpacked here ({problem})") from None
            yield _unpacked(unpacker.open(raw), kind, place, place.path.stat().st_size)
    except OSError as problem:
        raise refusal(place, problem) from None


def _unpacked(inner: IO[bytes], kind: str, place: Place, size: int) -> io.BufferedReader:
    return io.BufferedReader(_Unpacked(inner, kind, place, size), 1 << 16)


@contextmanager
def _zip_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, UnicodeDecodeError):
        raise DragomanError(f"{path}: the zip file is corrupt; fetch or copy it again") from None
    except (NotImplementedError, RuntimeError) as problem:
        raise DragomanError(
            f"{path}: cannot be unpacked here ({problem}); unpack it first"
        ) from None


@contextmanager
def _archive(
    raw: IO[bytes], path: Path
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open a zip archive; yield it and its files by name."""
    with _zip_faults(path):
        archive = zipfile.ZipFile(raw)
    with archive:
        yield archive, {e.filename: e for e in archive.infolist() if not e.is_dir()}


def members(path: Path) -> list[str] | None:
    """Return the names of the files in a zip archive; None if the file is no archive.

    Raises:
        DragomanError: if it is missing, damaged or encrypted.
    """
    check_file(path)
    with path.open("rb") as raw:
        if raw.peek(4)[:4] != b"PK\x03\x04":
            return None
        with _archive(raw, path) as (_, entries):
            if any(entry.flag_bits & 1 for entry in entries.values()):
                raise DragomanError(f"{path}: the zip file is encrypted; unpack it first")
            return list(entries)


def decode_lines(stream: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """Yield the lines of a binary stream, such as standard input, without their ends.

    UTF-8 with or without a byte-order mark; LF or CRLF; the last line may lack its end. ``first``
    is the number of the first line, where the stream is a later part of something.

    Raises:
        DragomanError: naming ``name`` for what begins like another encoding or no text at all;
            and the line, for bytes that are not UTF-8, for NUL, and for more than 1 MiB.
    """
    if isinstance(stream, io.BufferedIOBase):
        stream = iter(partial(stream.readline, LONGEST + 1), b"")
    for number, raw in enumerate(stream, first):
        line = raw
        if number == 1:
            if foreign := next((what for m, what in _FOREIGN.items() if m.match(raw)), None):
                raise DragomanError(f"{name}: looks like {foreign}, expected UTF-8 text")
            line = raw.removeprefix(_BOM)
        if not line:
            return  # a byte-order mark and nothing else: there is no line
        if len(line) > LONGEST:
            raise DragomanError(
                f"{name}: line {number}: is longer than 1 MiB; a line holds a sentence or a few"
            )
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if b"\0" in line:
            raise DragomanError(f"{name}: line {number}: holds a NUL byte; expected UTF-8 text")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as problem:
            raise DragomanError(
                f"{name}: line {number}: not valid UTF-8 "
                f"(byte 0x{line[problem.start]:02x} at byte {problem.start + 1} of the line)"
            ) from None


def read_lines(place: Path | Place) -> Iterator[str]:
    """Yield the lines of a text file, plain or packed; its first bytes tell, not its name.

    Raises:
        DragomanError: as ``opened`` and ``decode_lines``.
    """
    place = place if isinstance(place, Place) else Place(place)
    number = 0
    with opened(place) as stream:
        for number, line in enumerate(decode_lines(stream, str(place)), 1):  # noqa: B007
            yield line
    if not number:
        raise DragomanError(f"{place}: the file is empty")


def zip_lines(*places: Path | Place) -> Iterator[Row]:
    """Yield line N of one file with line N of the others.

    Raises:
        DragomanError: as ``read_lines``, and when two files end at different lines.
    """
    streams = [read_lines(place) for place in places]
    for number, lines in enumerate(itertools.zip_longest(*streams), 1):
        if None in lines:
            counts = [
                number - 1 if line is None else number + sum(1 for _ in stream)
                for line, stream in zip(lines, streams, strict=True)
            ]
            other = next(n for n, count in enumerate(counts) if count != counts[0])
            raise DragomanError(
                f"{places[0]} has {counts[0]:,} lines but {places[other]} has {counts[other]:,}; "
                "line N of one must translate line N of the other"
            )
        yield lines


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits.

    Raises:
        DragomanError: if the file cannot be read, or is a pipe, which would have to be read again.
    """
    try:
        _is_stream(path, reread=True)
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as problem:
        raise refusal(path, problem) from None


_DIGESTS: dict[tuple[str, int, int, int], str] = {}


def remembered_sha256(path: Path) -> str:
    """Return ``sha256_of(path)``, computed once per process, path, size, time of change and inode.

    Raises:
        DragomanError: if the file cannot be read.
    """
    facts = check_file(path, reread=True).stat()
    known = (str(path.absolute()), facts.st_size, facts.st_mtime_ns, facts.st_ino)
    if known not in _DIGESTS:
        _DIGESTS[known] = sha256_of(path)
    return _DIGESTS[known]
