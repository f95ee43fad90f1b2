"""Text files in: lines, and the three ways of writing parallel text down.

Everything streams, a line at a time, and every refusal names the file and, where there is one, the
line (counted from 1). Lines end at ``\\n`` alone: ``str.splitlines`` also breaks at U+2028, U+0085
and others, which occur inside real sentences and would shift one side of a corpus.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
import json
import re
import stat
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dragoman.errors import DragomanError

Pair = tuple[str, str]

_BOM = b"\xef\xbb\xbf"
# Packed files by their first bytes: the name people know, and the module, loaded when it is needed,
# for a Python may have been built without it.
_PACKED = {
    re.compile(rb"\x1f\x8b"): ("gzip", "gzip"),
    re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"): ("bzip2", "bz2"),
    re.compile(rb"\xfd7zXZ\0"): ("xz", "lzma"),
}
# First bytes of what is no UTF-8 text, in this order: UTF-32 begins like UTF-16.
_FOREIGN = {
    re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"): "UTF-32",
    re.compile(rb"\xff\xfe|\xfe\xff|\0[^\0]|[^\0]\0"): "UTF-16",
    re.compile(rb"PK\x03\x04"): "a zip archive",
    re.compile(rb"\x28\xb5\x2f\xfd"): "a Zstandard file",
    **{magic: f"a {name} file" for magic, (name, _) in _PACKED.items()},
}


def _refusal(path: Path, problem: Exception) -> DragomanError:
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
        raise _refusal(path, problem) from None
    if not first:
        raise DragomanError(f"{path}: the file is empty")
    return path


def decode_lines(stream: Iterable[bytes], name: str, first: int = 1) -> Iterator[str]:
    """Yield the lines of a binary stream, such as standard input, without their ends.

    UTF-8 with or without a byte-order mark; LF or CRLF; the last line may lack its end. ``first``
    is the number of the first line, where the stream is a later part of something.

    Raises:
        DragomanError: naming ``name`` for what begins like another encoding or no text at all;
            and the line, for bytes that are not UTF-8 and for NUL.
    """
    for number, raw in enumerate(stream, first):
        line = raw
        if number == 1:
            if foreign := next((what for m, what in _FOREIGN.items() if m.match(raw)), None):
                raise DragomanError(f"{name}: looks like {foreign}, expected UTF-8 text")
            line = raw.removeprefix(_BOM)
        if not line:
            return  # a byte-order mark and nothing else: there is no line
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


def _unpacked(raw: io.BufferedReader, path: Path) -> Iterator[bytes]:
    """Yield the lines of a file as bytes, unpacked if its first bytes say that it is packed."""
    head = raw.peek(10)
    packed = next((names for magic, names in _PACKED.items() if magic.match(head)), None)
    if packed is None:
        yield from raw
        return
    try:
        yield from importlib.import_module(packed[1]).open(raw)
    except Exception as problem:  # every module has a class of its own for what is corrupt
        if getattr(problem, "errno", None) or isinstance(problem, ImportError):
            raise
        state = "truncated" if isinstance(problem, EOFError) else "corrupt"
        raise DragomanError(
            f"{path}: the {packed[0]} file is {state}; fetch or copy it again"
        ) from None


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, plain or packed by gzip, bzip2 or xz.

    Its first bytes tell, not its name. A pipe is read once, from its first byte on.

    Raises:
        DragomanError: as ``check_file`` and ``decode_lines``, and for a truncated or corrupt
            packed file.
    """
    check_file(path)
    number = 0
    try:
        with path.open("rb") as raw:
            lines = decode_lines(_unpacked(raw, path), str(path))
            for number, line in enumerate(lines, 1):  # noqa: B007
                yield line
    except OSError as problem:
        raise _refusal(path, problem) from None
    if not number:
        raise DragomanError(f"{path}: the file is empty")


def zip_lines(src: Path, tgt: Path) -> Iterator[Pair]:
    """Yield line N of one file with line N of another.

    Raises:
        DragomanError: as ``read_lines``, and when the two files end at different lines.
    """
    sources, targets = read_lines(src), read_lines(tgt)
    for number, (source, target) in enumerate(itertools.zip_longest(sources, targets), 1):
        if source is None or target is None:
            longer = number + sum(1 for _ in itertools.chain(sources, targets))
            counts = (number - 1, longer) if source is None else (longer, number - 1)
            raise DragomanError(
                f"{src} has {counts[0]:,} lines but {tgt} has {counts[1]:,}; "
                "line N of one must translate line N of the other"
            )
        yield source, target


def _tsv_order(path: Path, first: str, src: str, tgt: str, columns: Pair) -> tuple[bool, bool]:
    """Tell from a first line whether it is a header and whether the target stands left."""
    fields = [field.strip() for field in first.split("\t")]
    if len(fields) == 2 and {field.lower() for field in fields} == {src.lower(), tgt.lower()}:
        return True, fields[0].lower() == tgt.lower()
    if len(fields) == 2 and len({src, tgt} & set(fields)) == 1:
        raise DragomanError(
            f"{path}: line 1: the header names the languages '{fields[0]}' and '{fields[1]}', "
            f"expected '{src}' and '{tgt}'"
        )
    if len(fields) == 2 and all(map(_CODE.fullmatch, fields)):
        warnings.warn(
            f"{path}: line 1: '{fields[0]}' and '{fields[1]}' are taken for a sentence pair, not "
            f"for a header, which would be '{src}' and '{tgt}'",
            stacklevel=2,
        )
    return False, columns[0] == tgt


# What looks like the code of a language, and hardly like a sentence.
_CODE = re.compile(r"[a-z]{2}")


def read_tsv(path: Path, src: str, tgt: str, columns: Pair | None = None) -> Iterator[Pair]:
    """Yield the pairs of a file with two columns separated by a tab; nothing is quoted.

    A first line made of the two language codes is a header and tells the columns; without one they
    are in the order of ``columns``, by default ``(src, tgt)``. An empty line is an empty pair.

    Raises:
        DragomanError: as ``read_lines``; for a line that has not two columns; for a header with
            another language; when there is no pair at all.
    """
    swapped, number = False, 0
    for number, line in enumerate(read_lines(path), 1):
        if number == 1:
            header, swapped = _tsv_order(path, line, src, tgt, columns or (src, tgt))
            if header:
                number = 0
                continue
        fields = line.split("\t") if line else ["", ""]
        if len(fields) != 2:
            raise DragomanError(
                f"{path}: line {number}: {len(fields)} column{'s' * (len(fields) != 1)}, "
                "expected 2 separated by one tab"
            )
        yield (fields[1], fields[0]) if swapped else (fields[0], fields[1])
    if not number:
        raise DragomanError(f"{path}: holds a header but no sentence pair")


def _sentence(record: dict[str, Any], language: str, where: str) -> str:
    """Return one side of a JSON record, refusing what no line of text could hold."""
    if language not in record:
        found = ", ".join(f"'{name}'" for name in list(record)[:6]) or "none"
        raise DragomanError(f"{where}: no key '{language}' (keys found: {found})")
    text = record[language]
    if not isinstance(text, str):
        raise DragomanError(f"{where}: '{language}' is not a string")
    if "\n" in text or "\0" in text:
        what = "a line break" if "\n" in text else "a NUL character"
        raise DragomanError(f"{where}: '{language}' holds {what}; a sentence is one line of text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DragomanError(
            f"{where}: '{language}' holds half of a surrogate pair, which is not Unicode text"
        ) from None
    return text


def read_jsonl(path: Path, src: str, tgt: str) -> Iterator[Pair]:
    """Yield the pairs of a file with one JSON object a line.

    The two language codes are keys of the object or of the object under its key ``translation``.
    Blank lines are skipped.

    Raises:
        DragomanError: as ``read_lines``; for a line that is not a JSON object, lacks a language or
            holds something other than a sentence; when there is no pair at all.
    """
    count = 0
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as problem:
            reason = getattr(problem, "msg", "out of range")
            raise DragomanError(f"{where}: not valid JSON ({reason})") from None
        if not isinstance(record, dict):
            raise DragomanError(f"{where}: not a JSON object, expected keys '{src}' and '{tgt}'")
        nested = record.get("translation")
        if isinstance(nested, dict):
            record = nested
        yield _sentence(record, src, where), _sentence(record, tgt, where)
        count += 1
    if not count:
        raise DragomanError(f"{path}: holds no sentence pair")


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
        raise _refusal(path, problem) from None


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
