"""Text as it should be, and pairs that should not be trained on: rules, each of them counted.

A rule is a function ``(src, tgt, Facts) -> bool`` that tells what it takes out, and a line of
``RULES`` under the name of its key in ``data.clean``. Rules look at one pair alone, so that pairs
can be looked at in any order, by as many processes as there are.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from dragoman.config import CleanConfig
from dragoman.data.columns import likeliest
from dragoman.languages import base, is_spaceless, script

# Seen by nobody: soft hyphen, Arabic letter mark, zero-width space, marks and turns of direction,
# word joiner, byte-order mark. Joiners (U+200C, U+200D) mean something inside a word alone.
_UNSEEN = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_AT_EDGES = re.compile("(?<!\\S)[\u200c\u200d]+|[\u200c\u200d]+(?!\\S)")


def normalise_text(text: str) -> str:
    """Return text in Unicode's form NFC, without characters that nobody sees."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _AT_EDGES.sub("", _UNSEEN.sub("", text)))


class _Bare(dict[int, int | None]):
    """A table for ``str.translate`` that drops punctuation, symbols, spaces and what is unseen."""

    def __missing__(self, code: int) -> int | None:
        kept = None if unicodedata.category(chr(code))[0] in "PSZC" else code
        self[code] = kept
        return kept


_BARE = _Bare()


def normal_form(text: str) -> str:
    """Return what is compared to tell whether two sentences are the same: no case, no punctuation.

    Of a sentence of nothing but punctuation, the sentence itself.
    """
    return unicodedata.normalize("NFKC", text).casefold().translate(_BARE) or text.strip()


class Facts(NamedTuple):
    """What rules know beside the pair."""

    clean: CleanConfig
    src: str
    tgt: str


def _length(text: str, facts: Facts) -> int:
    """Return a length that can be compared: in words, or in characters where a side has none."""
    if is_spaceless(facts.src) or is_spaceless(facts.tgt):
        return len(text)
    return len(text.split())


def _empty(src: str, tgt: str, facts: Facts) -> bool:
    return not src.strip() or not tgt.strip()


def _too_long(src: str, tgt: str, facts: Facts) -> bool:
    return max(len(src), len(tgt)) > facts.clean.max_characters


def _unequal(src: str, tgt: str, facts: Facts) -> bool:
    one, other = sorted((_length(src, facts), _length(tgt, facts)))
    return one > 0 and other > facts.clean.length_ratio * one


def _identical(src: str, tgt: str, facts: Facts) -> bool:
    return normal_form(src) == normal_form(tgt)


def _digits(src: str, tgt: str, facts: Facts) -> bool:
    """Digits that differ, in whatever order and script they are written."""

    def numbers(text: str) -> Counter[str]:
        return Counter(str(unicodedata.digit(c)) for c in text if c.isdigit())

    return numbers(src) != numbers(tgt)


_MARKUP = re.compile(
    r"<[^<>]*>|&#?\w+;|\b(https?|ftp)://\S+|\bwww\.\S+|\S+@\S+\.\w+"
    r"|%[-+#\d.$*]*[a-zA-Z]|\{[^{}]*\}",
    re.ASCII,
)


def _markup(src: str, tgt: str, facts: Facts) -> bool:
    """Nothing but tags, addresses and placeholders on a side."""

    def bare(side: str) -> bool:
        rest = _MARKUP.sub(" ", html.unescape(side))
        return rest != side and not re.search(r"\w", rest)

    return bare(src) or bare(tgt)


# Scripts that ISO 15924 counts as one, in Unicode's.
_MIXED = {"Jpan": ("Hira", "Kana", "Hani"), "Hans": ("Hani",), "Hant": ("Hani",),
          "Hanb": ("Hani", "Bopo"), "Kore": ("Hang", "Hani")}  # fmt: skip


@cache
def _letters(code: str) -> Any:
    """Return the pattern of a letter in the script of a language; None where it is not known."""
    import regex

    name = script(code)
    names = _MIXED.get(name or "", (name,))
    classes = "".join(f"\\p{{scx={each}}}" for each in names)
    try:
        return regex.compile(f"(?V1)[[{classes}]&&\\p{{L}}]") if name else None
    except regex.error:  # a script that Unicode does not have
        return None


def _wrong_script(src: str, tgt: str, facts: Facts) -> bool:
    """Less than half of the letters of a side in the script of its language."""
    for side, code in ((src, facts.src), (tgt, facts.tgt)):
        letters = sum(map(str.isalpha, side))
        pattern = _letters(code)
        if pattern and letters and 2 * len(pattern.findall(side)) < letters:
            return True
    return False


FEWEST_WORDS = 5  # on shorter lines language identification errs too often


def _wrong_language(src: str, tgt: str, facts: Facts) -> bool:
    for side, code in ((src, facts.src), (tgt, facts.tgt)):
        words = len(side) // 3 if is_spaceless(code) or " " not in side else len(side.split())
        if words >= FEWEST_WORDS and not likeliest(side, base(code)):
            return True
    return False


RULES: dict[str, Callable[[str, str, Facts], bool]] = {
    "empty": _empty,
    "max_characters": _too_long,
    "length_ratio": _unequal,
    "identical": _identical,
    "digits": _digits,
    "markup": _markup,
    "script": _wrong_script,
    "language": _wrong_language,
}


def chosen(clean: CleanConfig) -> dict[str, Callable[[str, str, Facts], bool]]:
    """Return the rules that a config turns on, in the order they are asked."""
    return {name: rule for name, rule in RULES.items() if getattr(clean, name)}
