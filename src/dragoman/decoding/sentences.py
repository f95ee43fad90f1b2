"""Long lines in parts: by sentences, by clauses, by words; translated, they are a line again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from sentencex import segment

from dragoman.languages import base, is_spaceless

# Where a sentence may be cut, the best places first: after a clause, after a word, anywhere.
_PLACES = (re.compile(r"[,;:،؛，；：、—–]\s*"), re.compile(r"\s+"), re.compile(r"(?s)."))


def sentences(line: str, language: str) -> list[str]:
    """Return the sentences of a line, each with the white space behind it (sentencex)."""
    found = list(segment(base(language), line))
    return found if "".join(found) == line else [line]


def usual_count(lines: Sequence[str], language: str) -> int:
    """Return how many sentences 99 % of the lines have at most; 1 if there is no line."""
    counts = sorted(len(sentences(line, language)) for line in lines)
    return max(1, counts[(99 * len(counts) - 1) // 100]) if counts else 1


def parts_of(line: str, language: str, most: float, fits: Callable[[str], bool]) -> list[str]:
    """Return the parts of a line that are translated one by one; joined, they are the line.

    Args:
        line: what is to be translated.
        language: that it is in.
        most: of more sentences than this, each is a part.
        fits: whether a text is short enough for the model; a sentence that is not is cut.
    """
    if most == float("inf") and fits(line):
        return [line]
    found = sentences(line, language)
    if len(found) <= most and fits(line):
        return [line]
    return [part for sentence in found for part in _cut(sentence, fits)]


def _cut(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """Halve a text until every part fits, at the best places that are near the middle."""
    inside = range(1, len(text))
    for pattern in () if fits(text) else _PLACES:
        places = [match.end() for match in pattern.finditer(text) if match.end() in inside]
        if places:
            middle = min(places, key=lambda place: abs(2 * place - len(text)))
            yield from _cut(text[:middle], fits)
            yield from _cut(text[middle:], fits)
            return
    yield text


def joined(parts: Sequence[str], translations: Sequence[str], src: str, tgt: str) -> str:
    """Return one line of the translations of its parts, spaced as the source is.

    From a language without spaces to one that has them, parts are set apart by a space; the other
    way round, single spaces go.
    """
    line = ""
    for part, translation in zip(parts, translations, strict=True):
        core = part.strip()
        before, _, space = part.partition(core) if core else ("", "", part)
        line += before + translation
        if is_spaceless(src) and not is_spaceless(tgt):
            space = space or " "
        elif is_spaceless(tgt) and not is_spaceless(src):
            space = "" if space == " " else space
        line += space
    return line.strip()
