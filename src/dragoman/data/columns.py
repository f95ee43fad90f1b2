"""Which column holds which language: by the user's word, a header, or the text itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import NamedTuple

from dragoman.errors import DragomanError, one_of, say
from dragoman.languages import base, full, meant, name

# Headings that tell the side and not the language.
_SIDES = (
    frozenset(("source", "src", "source_text", "src_text", "original", "input")),
    frozenset(("target", "tgt", "trg", "target_text", "tgt_text", "translation", "output")),
)
CLEAR = 0.9  # share of the lines that must agree on a language
SAMPLE = 500  # lines looked at
FEWEST = 20  # lines without which nothing is told
LOOK_AHEAD = 20_000  # from among so many: a file is often sorted, shortest lines first


class Wanted(NamedTuple):
    """The languages to read, and what is known of the columns of files without a header."""

    src: str
    tgt: str
    columns: Sequence[str] | None = None  # a name for each column: a language's, or any other
    order: tuple[str, str] | None = None  # languages of the columns if the text does not tell


def sides(names: Iterable[object], wanted: Wanted) -> tuple[int, int] | None:
    """Return the places of source and target among the names of columns, or None.

    A name may be a code in any form (``de``, ``deu``, ``de-DE``), a language's name in any language
    (``German``, ``Deutsch``), or ``source`` and ``target``.
    """
    words = [str(word).strip().strip("\"'").strip() for word in names]
    different = base(wanted.src) != base(wanted.tgt)
    tests: list[Callable[[str, str, int], bool]] = [
        lambda word, code, side: word.lower() == code.lower(),
        lambda word, code, side: meant(word) == full(code),
        lambda word, code, side: different and base(meant(word) or "") == base(code),
        lambda word, code, side: word.lower() in _SIDES[side],
    ]
    for test in tests:
        found = [
            [place for place, word in enumerate(words) if word and test(word, code, side)]
            for side, code in enumerate((wanted.src, wanted.tgt))
        ]
        if all(len(places) == 1 for places in found):
            return found[0][0], found[1][0]
    return None


def named(names: Sequence[str], wanted: Wanted) -> tuple[int, int] | None:
    """Return the places of source and target in a header, ``data.columns`` considered, or None."""
    if wanted.columns and len(wanted.columns) == 2 and set(wanted.columns) <= set(names):
        turned = wanted.order is not None and wanted.order[0] == wanted.tgt
        src, tgt = sides(wanted.columns, wanted) or ((1, 0) if turned else (0, 1))
        return names.index(wanted.columns[src]), names.index(wanted.columns[tgt])
    return sides(names, wanted)


class Layout(NamedTuple):
    """Where source and target stand in a row, and whether the first row is a header."""

    src: int
    tgt: int
    header: bool = False


def layout(rows: Sequence[Sequence[str]], wanted: Wanted, where: str) -> Layout:
    """Tell from the first rows of a table, at most ``LOOK_AHEAD``, which column is which.

    Raises:
        DragomanError: naming ``where``, for a header of other languages, a column that is not
            there, or one that is clearly in the other language than ``data.columns`` says.
    """
    first = [field.strip() for field in rows[0]]
    if found := named(first, wanted):
        return Layout(*found, header=True)
    _check_heading(first, wanted, where)
    told = sides(wanted.columns, wanted) if wanted.columns else None
    if wanted.columns and told is None:
        raise DragomanError(
            f"{where}: line 1 is no header with data.columns={one_of(wanted.columns)}, and these "
            f"do not tell which column is {wanted.src} and which {wanted.tgt}"
        )
    src, tgt = told or ((1, 0) if wanted.order and wanted.order[0] == wanted.tgt else (0, 1))
    share = _agreement(rows, (src, tgt), wanted)
    if share is None:
        return Layout(src, tgt)
    agree, seen = share
    if told:
        if agree <= 1 - CLEAR:
            raise DragomanError(
                f"{where}: column {src + 1} looks like {name(wanted.tgt)}, "
                f"{100 * (1 - agree):.0f} % of {seen} lines, not {wanted.src}: columns swapped? "
                f"(data.columns={list(wanted.columns or ())})"
            )
        return Layout(src, tgt)
    if agree <= 1 - CLEAR:
        src, tgt, agree = tgt, src, 1 - agree
    languages = dict(sorted([(src, name(wanted.src)), (tgt, name(wanted.tgt))]))
    words = ", ".join(f"column {place + 1} is {language}" for place, language in languages.items())
    if agree >= CLEAR:
        say_once(f"{where}: {words} ({100 * agree:.0f} % of {seen} lines)")
    else:
        warnings.warn(
            f"{where}: the text does not tell the languages of the columns; taken: {words}; "
            "data.columns says otherwise",
            stacklevel=2,
        )
    return Layout(src, tgt)


def _check_heading(first: Sequence[str], wanted: Wanted, where: str) -> None:
    """Refuse or ask about a first row that may be a header."""
    fields = first[:2]
    known = [meant(field) is not None and len(field.split()) == 1 for field in fields]
    ours = {wanted.src, wanted.tgt} & set(fields)
    if len(fields) < 2 or not all(known):
        return
    if ours:
        raise DragomanError(
            f"{where}: line 1: the header names the languages '{fields[0]}' and '{fields[1]}', "
            f"expected '{wanted.src}' and '{wanted.tgt}'"
        )
    warnings.warn(
        f"{where}: line 1: '{fields[0]}' and '{fields[1]}' are taken for a sentence pair, not "
        f"for a header, which would be '{wanted.src}' and '{wanted.tgt}'",
        stacklevel=2,
    )


def _agreement(
    rows: Sequence[Sequence[str]], places: tuple[int, int], wanted: Wanted
) -> tuple[float, int] | None:
    """Return the share of a sample that is likelier as it is than swapped, and its size in lines.

    None if the two languages are one, or not both known, or there are too few lines to tell.
    """
    likelier = likelihoods(base(wanted.src), base(wanted.tgt))
    if likelier is None:
        return None
    full_rows = [row for row in rows if len(row) > max(places)]
    sample = full_rows[:: max(1, len(full_rows) // SAMPLE)][:SAMPLE]
    right = sum(
        likelier(row[places[0]]) + 1 - likelier(row[places[1]])
        for row in sample
        if row[places[0]] != row[places[1]]
    )
    seen = sum(2 for row in sample if row[places[0]] != row[places[1]])
    return (right / seen, len(sample)) if seen >= 2 * FEWEST else None


_IDENTIFIED = {"nb": "no", "nn": "no"}  # as py3langid calls them, or may as well


def likeliest(text: str, language: str) -> bool:
    """Whether text looks like a language more than like any other; of one not known, always."""
    import py3langid

    language = _IDENTIFIED.get(language, language)
    ranked = [_IDENTIFIED.get(code, code) for code, _ in py3langid.rank(text)]
    return ranked[0] == language or language not in ranked


@cache
def likelihoods(one: str, other: str) -> Callable[[str], bool] | None:
    """Return what tells whether text is likelier in one language than in another.

    By py3langid (Lui and Baldwin 2012). None if it does not know both, or they are the same.
    """
    import py3langid

    one, other = _IDENTIFIED.get(one, one), _IDENTIFIED.get(other, other)
    languages = {code for code, _ in py3langid.rank("")}
    if one == other or not {one, other} <= languages:
        return None

    def likelier(text: str) -> bool:
        scores = dict(py3langid.rank(text))
        return bool(scores[one] >= scores[other])

    return likelier


_said: set[str] = set()


def say_once(line: str) -> None:
    """Say a line on standard error, once in a process."""
    if line not in _said:
        _said.add(line)
        say(line)
