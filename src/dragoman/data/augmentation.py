"""Text as it also comes: in capitals, mistyped, without its end mark, two sentences in a line.

Training pairs are varied on the way in (Belinkov and Bisk 2018, "Synthetic and Natural Noise Both
Break Neural Machine Translation", section 6; Niu et al. 2020, "Evaluating Robustness to Input
Perturbations", section 3). What becomes of a pair is a function of a key that follows from (seed,
epoch, pair), so there is no state to save. ``evaluation.robustness`` measures with the same
functions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dragoman.config import AugmentConfig
from dragoman.data.draws import absorb, unit_interval
from dragoman.languages import base, is_spaceless

Keys = NDArray[np.uint64]

_DOTTED = ("tr", "az")  # write i and I with a dot, ı and I without
_END_MARK = re.compile(r"(?<=[^\s.!?…。！？।۔؟])\s*[.!?…。！？।۔؟]+\s*$")
_WORD = re.compile(r"(?<!\S)([^\w\s]*)(\w)")


def upper(text: str, language: str) -> str:
    """Return text in capitals."""
    return (text.replace("i", "İ") if base(language) in _DOTTED else text).upper()


def lower(text: str, language: str) -> str:
    """Return text without capitals."""
    if base(language) in _DOTTED:
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()


def title(text: str, language: str) -> str:
    """Return text with a capital at the beginning of every word."""
    return _WORD.sub(lambda match: match[1] + upper(match[2], language), text)


CASES: dict[str, Callable[[str, str], str]] = {"upper": upper, "title": title, "lower": lower}


def recased(case: str, src: str, tgt: str, languages: tuple[str, str]) -> tuple[str, str]:
    """Return a pair in another case; the target follows where the source changes."""
    changed = CASES[case](src, languages[0])
    return (changed, CASES[case](tgt, languages[1])) if changed != src else (src, tgt)


def without_end_mark(text: str) -> str:
    """Return text without the full stop, question mark or exclamation mark at its end."""
    return _END_MARK.sub("", text)


def joined(one: str, other: str, language: str) -> str:
    """Return two sentences as one line."""
    return one + ("" if is_spaceless(language) else " ") + other


def with_double_space(text: str, key: Keys) -> str:
    """Return text with one of its spaces doubled."""
    places = [place for place, character in enumerate(text) if character == " "]
    if not places:
        return text
    place = places[int(unit_interval(key) * len(places))]
    return text[:place] + " " + text[place:]


def with_typos(text: str, rate: float, key: Keys) -> str:
    """Return text in which each letter is, with a probability of ``rate``, mistyped.

    It is swapped with the next one, dropped, doubled, or replaced by another one of the text, all
    equally often.
    """
    letters = [place for place, character in enumerate(text) if character.isalpha()]
    states = absorb(key, np.arange(len(letters)))
    drawn = unit_interval(states)
    found, known = list(text), sorted({c.lower() for c in text if c.isalpha()})
    for number in np.flatnonzero(drawn < rate).tolist():
        place, kind = letters[number], int(4 * drawn[number] / rate)
        if kind == 0:
            after = place + 1 if place + 1 < len(text) and text[place + 1].isalpha() else place
            found[place], found[after] = found[after], found[place]
        elif kind == 1:
            found[place] = ""
        elif kind == 2:
            found[place] *= 2
        else:
            other = known[int(unit_interval(absorb(states[number], 1)) * len(known))]
            found[place] = other.upper() if text[place].isupper() else other
    return "".join(found)


def add_cases(counts: Counter[str], config: AugmentConfig, language: str) -> None:
    """Add to the counts of words what other cases bring, as often as they will come.

    Every letter is then known in every case.
    """
    words = [*counts.items()]
    letters = {character for word in counts for character in word}
    for name, case in CASES.items():
        if rate := getattr(config, name):
            for word, count in words:
                counts[case(word, language)] += round(rate * count)
            for letter in letters:
                counts[case(letter, language)] += 1


class Augmenter:
    """Varies pairs as ``data.augment`` says."""

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        self._cases = np.cumsum([getattr(config, name) for name in CASES])
        others = (config.no_end_mark, config.double_space, config.typos, config.joined)
        self._rates = np.array([self._cases[-1], *others])

    def draw(self, keys: Keys) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return numbers in [0, 1) for N keys, (N, 5), and which of them make a change.

        The last one is for ``joined``; where it makes one, its share of the rate tells the partner.
        """
        drawn = unit_interval(absorb(keys[:, None], np.arange(len(self._rates))))
        return drawn, drawn < self._rates

    def vary(
        self,
        pair: Sequence[str],
        languages: tuple[str, str],
        drawn: NDArray[np.float64],
        key: Keys,
    ) -> tuple[str, str]:
        """Return source and target as the numbers say that ``draw`` made of their key."""
        src, tgt = pair
        recase, mark, space, typos, _ = (drawn < self._rates).tolist()
        if recase:
            case = [*CASES][int(np.searchsorted(self._cases, drawn[0], side="right"))]
            src, tgt = recased(case, src, tgt, languages)
        if mark:
            src = without_end_mark(src)
        if typos:
            src = with_typos(src, self.config.typo_rate, key)
        return (with_double_space(src, key) if space else src), tgt
