"""Parallel text in one file: TSV, CSV, JSON, TMX, Parquet and Hugging Face's folders.

What a file is, its content tells. A format is a function from a file and what is wanted of it to
pairs of strings, and a line of ``FORMATS``. Everything streams, and every refusal names the file
and the line, or the number of the record, counted from 1.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat

from dragoman.data.columns import LOOK_AHEAD, Wanted, layout, named
from dragoman.data.lines import LONGEST, Pair, Place, decode_lines, members, opened
from dragoman.errors import DragomanError
from dragoman.languages import base, full

_LOOK = 1 << 16  # bytes that tell what a file is
_MOST_AHEAD = 1 << 25  # bytes of the rows that tell which column is which
_ASIDE = re.compile(r"(^|/)([._]|__MACOSX|readme|license|licence|about)|\.(ids|xml|md|html)$", re.I)


def read_file(place: Place, wanted: Wanted) -> Iterator[Pair]:
    """Yield the (source, target) pairs of one file, in whatever format it is.

    Raises:
        DragomanError: naming the file, if it is in no format that is known; and whatever its format
            refuses.
    """
    if os.path.isdir(place.path):
        return _read_folder(place, wanted)
    return FORMATS[kind_of(place)](place, wanted)


def parallel_member(path: Path, src: str, tgt: str) -> list[Place]:
    """Return what to read of a zip archive: its one file of pairs, or one file for each language.

    A file that is no archive is returned as it is.

    Raises:
        DragomanError: if the archive holds neither, or more than one.
    """
    held = None if os.path.isdir(path) else members(path)
    if held is None:
        return [Place(path)]
    names = [name for name in held if not _ASIDE.search(name)]
    same = full if base(src) == base(tgt) else base
    together = [
        [Place(path, one), Place(path, other)]
        for one, other in itertools.permutations(names, 2)
        if one.rpartition(".")[0] == other.rpartition(".")[0]
        and same(one.rpartition(".")[2]) == same(src)
        and same(other.rpartition(".")[2]) == same(tgt)
    ]
    if len(together) == 1:
        return together[0]
    if len(names) != 1:
        some = ", ".join(names[:6]) or "no text"
        raise DragomanError(
            f"{path}: holds {some}{' ...' * (len(names) > 6)}; expected "
            f"one file of pairs, or two that end in .{src} and .{tgt}; unpack it to choose"
        )
    return [Place(path, names[0])]


def kind_of(place: Place) -> str:
    """Return the name of a file's format, told from its first bytes.

    Raises:
        DragomanError: if they are of no format that holds sentence pairs.
    """
    with opened(place) as stream:
        head = stream.peek(_LOOK) if stream.seekable() else b""
        head = head if len(head) >= _LOOK else stream.read(_LOOK)
    if head.startswith(b"PAR1"):
        return "parquet"
    plain = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")  # UTF-16 too
    if re.match(rb"<(\?xml|!DOCTYPE|!--|tmx|html)", plain, re.I):
        if b"<tmx" not in plain.lower():
            raise DragomanError(f"{place}: looks like XML but not like TMX, expected <tmx>")
        return "tmx"
    if re.match(rb"\[\s*\{", plain):
        return "json"
    if re.match(rb'\{\s*("[^"]*"\s*:|\})', plain):
        return "jsonl"
    return "tsv" if dialect_of(head, place) == TSV else "csv"


TSV = ("\t", csv.QUOTE_NONE)


def dialect_of(head: bytes, place: Place) -> tuple[str, int]:
    """Tell from the first bytes of a table what separates its columns, and whether it is quoted.

    Raises:
        DragomanError: if there is but one column.
    """
    cut = len(head) >= _LOOK
    text = (head[: head.rfind(b"\n") + 1] or head) if cut else head
    lines = list(decode_lines(io.BytesIO(text), str(place)))
    full_lines = [line for line in lines if line.strip()]
    if not full_lines:
        raise DragomanError(f"{place}: holds no sentence pair")
    tabbed = [line for line in full_lines if "\t" in line]
    if tabbed and len(tabbed) * 2 >= len(full_lines):
        quoted = sum(line[0] == line.rstrip()[-1] == '"' for line in tabbed)
        return ("\t", csv.QUOTE_MINIMAL) if quoted * 10 >= len(tabbed) * 9 else TSV
    for mark in ",;|":
        rows = list(csv.reader((f"{line}\n" for line in lines), delimiter=mark))
        rows = rows[:-1] if cut and len(rows) > 1 else rows  # its quotes may be closed further on
        widths = {len(row) for row in rows if row}
        if len(widths) == 1 and widths != {1}:
            return mark, csv.QUOTE_MINIMAL
    if Path(str(place.member or place.path.name).removesuffix(".gz")).suffix.lower() == ".csv":
        return ",", csv.QUOTE_MINIMAL
    raise DragomanError(
        f"{place}: does not look like sentence pairs; expected two columns separated by a tab or "
        "a comma, JSON, TMX or Parquet, or {lang} in the name for two plain text files"
    )


def _read_tsv(place: Place, wanted: Wanted) -> Iterator[Pair]:
    with opened(place) as stream:
        rows = (line.split("\t") for line in decode_lines(stream, str(place)))
        yield from _columns(enumerate(rows, 1), wanted, str(place))


def _read_csv(place: Place, wanted: Wanted) -> Iterator[Pair]:
    """Quotes are understood, so a sentence may hold separators and line breaks."""
    with opened(place) as stream:
        mark, quoting = dialect_of(stream.read(_LOOK), place)
    with opened(place) as stream:
        csv.field_size_limit(LONGEST)
        rows = csv.reader(
            (f"{line}\n" for line in decode_lines(stream, str(place))),
            delimiter=mark,
            quoting=quoting,  # type: ignore[arg-type]
            strict=True,
        )
        begun = [1]  # the line that a row begins in

        def numbered() -> Iterator[tuple[int, list[str]]]:
            for row in rows:
                yield rows.line_num, row
                begun[0] = rows.line_num + 1

        try:
            yield from _columns(numbered(), wanted, str(place))
        except csv.Error as problem:
            raise DragomanError(f"{place}: line {begun[0]}: not CSV ({problem})") from None


def _columns(rows: Iterable[tuple[int, list[str]]], wanted: Wanted, where: str) -> Iterator[Pair]:
    """Yield two columns of a table; an empty line is an empty pair."""
    rows = iter(rows)
    ahead: list[tuple[int, list[str]]] = []
    size = 0
    while size < _MOST_AHEAD and len(ahead) < LOOK_AHEAD and (found := next(rows, None)):
        ahead.append(found)
        size += sum(map(len, found[1])) + 50 * len(found[1])
    if not any(any(row) for _, row in ahead):
        raise DragomanError(f"{where}: holds no sentence pair")
    src, tgt, header = layout([row for _, row in ahead], wanted, where)
    if header and len(ahead) == 1:
        raise DragomanError(f"{where}: holds a header but no sentence pair")
    needed = max(src, tgt) + 1
    for number, row in itertools.chain(ahead[header:], rows):
        if len(row) < needed:
            if not any(row):
                yield "", ""
                continue
            raise DragomanError(
                f"{where}: line {number}: {len(row)} column{'s' * (len(row) != 1)}, expected "
                f"at least {needed}"
            )
        yield row[src], row[tgt]


def _read_jsonl(place: Place, wanted: Wanted) -> Iterator[Pair]:
    """One object a line; blank lines are skipped."""

    def records(stream: io.BufferedReader) -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(decode_lines(stream, str(place)), 1):
            if line.strip():
                where = f"{place}: line {number}"
                try:
                    yield where, json.loads(line)
                except (ValueError, RecursionError) as problem:
                    reason = getattr(problem, "msg", "out of range")
                    raise DragomanError(f"{where}: not valid JSON ({reason})") from None

    with opened(place) as stream:
        yield from _sentences(records(stream), wanted, str(place))


def _read_json(place: Place, wanted: Wanted) -> Iterator[Pair]:
    """One array of objects, read one after the other."""
    decoder = json.JSONDecoder()

    def records(stream: io.TextIOWrapper) -> Iterator[tuple[str, Any]]:
        text, number, ended = "", 0, False
        while True:
            text = text.lstrip()
            opening = "[" if number == 0 else ","
            if text[:1] == "]" and number:
                if text[1:].strip() or stream.read(LONGEST).strip():
                    raise DragomanError(f"{place}: something follows the array")
                return
            try:
                if text[:1] != opening:
                    raise ValueError
                start = len(text) - len(text[1:].lstrip())
                record, end = decoder.raw_decode(text, start)
            except (ValueError, RecursionError):
                if ended or len(text) > 2 * LONGEST:
                    raise DragomanError(
                        f"{place}: not valid JSON at record {number + 1}, expected an array of "
                        "objects, each of at most 1 MiB"
                    ) from None
                more = stream.read(1 << 16)
                text, ended = text + more, not more
                continue
            text, number = text[end:], number + 1
            yield f"{place}: record {number}", record

    with opened(place) as stream:
        try:
            with io.TextIOWrapper(stream, encoding="utf-8-sig") as decoded:
                yield from _sentences(records(decoded), wanted, str(place))
        except UnicodeDecodeError as problem:
            raise DragomanError(f"{place}: not valid UTF-8 ({problem.reason})") from None


def _sentences(records: Iterable[tuple[str, Any]], wanted: Wanted, file: str) -> Iterator[Pair]:
    """Yield two values of every record, or of the record under its key ``translation``."""
    count, places = 0, dict[tuple[str, ...], Pair]()
    for where, record in records:
        if not isinstance(record, Mapping):
            raise DragomanError(
                f"{where}: not a JSON object, expected keys '{wanted.src}' and '{wanted.tgt}'"
            )
        nested = record.get("translation")
        if isinstance(nested, Mapping):
            record = nested
        keys = tuple(record)
        if keys not in places:
            if len(places) > 1000:  # records of ever other keys
                places.clear()
            places[keys] = _keys(keys, wanted, where)
        src, tgt = places[keys]
        yield _sentence(record[src], src, where), _sentence(record[tgt], tgt, where)
        count += 1
    if not count:
        raise DragomanError(f"{file}: holds no sentence pair")


def _keys(keys: Sequence[str], wanted: Wanted, where: str) -> Pair:
    found = named(list(keys), wanted)
    if found is None:
        there = ", ".join(f"'{name}'" for name in keys[:6]) or "none"
        missing = next((code for code in wanted[:2] if code not in keys), wanted.src)
        raise DragomanError(f"{where}: no key '{missing}' (keys found: {there})")
    return keys[found[0]], keys[found[1]]


def _sentence(text: Any, key: str, where: str) -> str:
    """Return one side of a record, refusing what no text could hold."""
    if not isinstance(text, str):
        raise DragomanError(f"{where}: '{key}' is not a string")
    if "\0" in text:
        raise DragomanError(f"{where}: '{key}' holds a NUL character; expected text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DragomanError(
            f"{where}: '{key}' holds half of a surrogate pair, which is not Unicode text"
        ) from None
    return text


class _TMX:
    """Collects the translation units of TMX 1.4 as expat reads along."""

    # What stands in these is mark-up of the program that wrote the file, not text.
    DROPPED = frozenset(("bpt", "ept", "ph", "it", "ut"))

    def __init__(self, place: Place, wanted: Wanted) -> None:
        self._place, self._wanted = place, wanted
        self.done: list[Pair] = []
        self.units = self.skipped = 0
        self._segments: dict[str, str] = {}
        self._language, self._text, self._in_segment, self._dropped = "", [""], False, 0
        self.parser = expat.ParserCreate()
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.EntityDeclHandler = self._entity
        self.parser.SkippedEntityHandler = self._unknown_entity

    def _entity(self, name: str, *_: Any) -> None:
        raise DragomanError(
            f"{self._place}: line {self.parser.CurrentLineNumber}: declares the entity '{name}'; "
            "entities are not accepted"
        )

    def _unknown_entity(self, name: str, *_: Any) -> None:
        raise DragomanError(
            f"{self._place}: line {self.parser.CurrentLineNumber}: there is no entity '{name}'"
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "tu":
            self._segments = {}
        elif tag == "tuv":
            self._language = attributes.get("xml:lang") or attributes.get("lang") or ""
        elif tag == "seg":
            self._in_segment, self._text, self._size = True, [], 0
        elif tag in self.DROPPED:
            self._dropped += 1

    def _characters(self, text: str) -> None:
        if self._in_segment and not self._dropped:
            self._text.append(text)
            self._size += len(text)
            if self._size > LONGEST:
                raise DragomanError(
                    f"{self._place}: line {self.parser.CurrentLineNumber}: a segment is longer "
                    "than 1 MiB"
                )

    def _end(self, tag: str) -> None:
        if tag == "seg":
            self._in_segment = False
            self._segments[self._language] = "".join(self._text)
        elif tag in self.DROPPED:
            self._dropped -= 1
        elif tag == "tu":
            self.units += 1
            src, tgt = (self._segment(code) for code in (self._wanted.src, self._wanted.tgt))
            if src is None or tgt is None:
                self.skipped += 1
            else:
                self.done.append((src, tgt))

    def _segment(self, code: str) -> str | None:
        """Return the segment of a language: of its very code, or of one in another region."""
        alike = base(self._wanted.src) == base(self._wanted.tgt)
        for same in (full,) if alike else (full, base):
            for language, text in self._segments.items():
                if same(language) == same(code):
                    return text
        return None


def _read_tmx(place: Place, wanted: Wanted) -> Iterator[Pair]:
    """TMX 1.4b (LISA OSCAR 2005), as a stream; a DOCTYPE is accepted and nothing is fetched."""
    units = _TMX(place, wanted)
    with opened(place) as stream:
        try:
            read = 0
            while block := stream.read(1 << 16):
                units.parser.Parse(block)
                read += len(block)
                if read - units.parser.CurrentByteIndex > 2 * LONGEST:
                    raise DragomanError(f"{place}: a tag is longer than 1 MiB; this is no TMX")
                yield from units.done
                units.done.clear()
            units.parser.Parse(b"", True)
        except expat.ExpatError as problem:
            raise DragomanError(
                f"{place}: line {problem.lineno}: not XML ({expat.ErrorString(problem.code)})"
            ) from None
        except (ValueError, LookupError) as problem:  # its encoding is none that expat reads
            raise DragomanError(f"{place}: cannot be read ({problem}); save it as UTF-8") from None
    if units.units == units.skipped:
        raise DragomanError(
            f"{place}: none of its {units.units:,} units has both {wanted.src} and {wanted.tgt}"
        )
    if units.skipped:
        warnings.warn(
            f"{place}: {units.skipped:,} of {units.units:,} units have no {wanted.src} or no "
            f"{wanted.tgt} and are left out",
            stacklevel=2,
        )


def _arrow(place: Place) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise DragomanError(
            f"{place}: reading it needs the extra [hf]: pip install 'dragoman[hf]'"
        ) from None
    return pyarrow


def _damaged(place: Place, kind: str, problem: Exception) -> DragomanError:
    return DragomanError(f"{place}: not a {kind} ({' '.join(str(problem).split())})")


def _read_parquet(place: Place, wanted: Wanted) -> Iterator[Pair]:
    arrow = _arrow(place)
    if place.member is not None:
        raise DragomanError(f"{place}: Parquet in an archive is not read; unpack it first")
    try:
        with arrow.parquet.ParquetFile(place.path) as file:
            yield from _record_batches(file.iter_batches(1024), wanted, place)
    except (arrow.ArrowException, OSError) as problem:
        raise _damaged(place, "Parquet file", problem) from None


def _read_arrow(place: Place, wanted: Wanted) -> Iterator[Pair]:
    arrow = _arrow(place)
    try:
        with arrow.memory_map(str(place.path)) as source:
            yield from _record_batches(arrow.ipc.open_stream(source), wanted, place)
    except (arrow.ArrowException, OSError) as problem:
        raise _damaged(place, "data set of Hugging Face's", problem) from None


def _record_batches(batches: Iterable[Any], wanted: Wanted, place: Place) -> Iterator[Pair]:
    rows = (row for batch in batches for row in batch.to_pylist())
    records = ((f"{place}: row {number}", row) for number, row in enumerate(rows, 1))
    yield from _sentences(records, wanted, str(place))


def _read_folder(place: Place, wanted: Wanted) -> Iterator[Pair]:
    """A split as ``datasets`` saves it (``save_to_disk``), or a folder of Parquet files."""
    for ending, read in ((".arrow", _read_arrow), (".parquet", _read_parquet)):
        if found := sorted(place.path.glob(f"*{ending}")):
            for path in found:
                yield from read(Place(path), wanted)
            return
    raise DragomanError(
        f"{place}: is a folder without .arrow or .parquet files, expected a data set of Hugging "
        "Face's"
    )


FORMATS: dict[str, Callable[[Place, Wanted], Iterator[Pair]]] = {
    "tsv": _read_tsv,
    "csv": _read_csv,
    "json": _read_json,
    "jsonl": _read_jsonl,
    "tmx": _read_tmx,
    "parquet": _read_parquet,
}
