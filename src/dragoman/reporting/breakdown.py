"""Where a system is good and where it is not: scores by kind of sentence, and suspicious ones.

Words are runs of letters and digits, lower-cased: nothing here depends on a model's tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from dragoman.decoding.consensus import sentence_bleu
from dragoman.evaluation.metrics import METRICS

_WORD = re.compile(r"\w+")
LENGTHS = (8, 11, 14, 18)  # a bucket ends with so many source words; the last has no end
COUNTS = (0, 2, 10, 100)  # a bucket ends with so many occurrences in training


class Bucket(NamedTuple):
    """The sentences of one kind."""

    label: str
    sentences: int
    bleu: float
    ratio: float  # hypothesis words per reference word


class Sentence(NamedTuple):
    """One translation beside its reference."""

    number: int  # from 1
    source: str
    hypothesis: str
    reference: str
    bleu: float  # sentence BLEU

    @property
    def ratio(self) -> float:
        """Hypothesis words per reference word."""
        return len(words(self.hypothesis)) / max(1, len(words(self.reference)))

    @property
    def repeats(self) -> int:
        """How many more bigrams occur again in the hypothesis than in the reference."""
        return max(0, _repeated(self.hypothesis) - _repeated(self.reference))


def words(text: str) -> list[str]:
    """Return the words of a line."""
    return _WORD.findall(text.lower())


def _repeated(text: str) -> int:
    found = words(text)
    counts = Counter(pairwise(found))
    return sum(count - 1 for count in counts.values())


def frequencies(lines: Iterable[str]) -> Counter[str]:
    """Count the words of the training text."""
    return Counter(word for line in lines for word in words(line))


def sentences_of(
    sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> list[Sentence]:
    """Return every translation with its sentence BLEU."""
    rows = zip(sources, hypotheses, references, strict=True)
    return [
        Sentence(number, src.strip(), hyp, ref.strip(), float(sentence_bleu([hyp], [ref])[0, 0]))
        for number, (src, hyp, ref) in enumerate(rows, start=1)
    ]


def _label(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(high) if low == high else f"{low} to {high}"


def buckets(
    sentences: Sequence[Sentence],
    value: Callable[[Sentence], int],
    ends: Sequence[int],
    language: str,
) -> list[Bucket]:
    """Score the sentences whose ``value`` falls between one end and the next; empty ones are gone.

    ``language`` is the target's. BLEU is that of the bucket's sentences as a corpus.
    """
    found = []
    values = np.array([value(sentence) for sentence in sentences])
    low = min(0, *ends)
    for end in (*ends, None):
        inside = (values >= low) & (values <= (np.inf if end is None else end))
        chosen = [sentence for sentence, there in zip(sentences, inside, strict=True) if there]
        if chosen:
            hypotheses, references = [s.hypothesis for s in chosen], [s.reference for s in chosen]
            sizes = [sum(len(words(text)) for text in side) for side in (hypotheses, references)]
            score = METRICS["bleu"](hypotheses, references, language).score
            label = _label(low, end)
            found.append(Bucket(label, len(chosen), score, sizes[0] / max(1, sizes[1])))
        low = low if end is None else end + 1
    return found


def by_length(sentences: Sequence[Sentence], language: str) -> list[Bucket]:
    """Score by the number of source words."""
    return buckets(sentences, lambda s: len(words(s.source)), LENGTHS, language)


def by_rarity(sentences: Sequence[Sentence], seen: Counter[str], language: str) -> list[Bucket]:
    """Score by how often the rarest source word of a sentence was seen in training."""

    def rarest(sentence: Sentence) -> int:
        return min((seen[word] for word in words(sentence.source)), default=0)

    return buckets(sentences, rarest, COUNTS, language)


def unseen_share(lines: Iterable[str], seen: Counter[str]) -> float:
    """Return the share of words that training never showed."""
    every = [word for line in lines for word in words(line)]
    return sum(not seen[word] for word in every) / max(1, len(every))
