"""Where a system is good and where it is not: scores by kind of sentence, and suspicious ones.

Words are runs of letters and digits, lower-cased: nothing here depends on a model's tokens.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from dragoman.data.lines import Reference, alternatives
from dragoman.decoding.consensus import sentence_bleu
from dragoman.evaluation.metrics import METRICS

# Where words are not separated, a character is one: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_SINGLE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(f"[{_SINGLE}]|[^\\W{_SINGLE}]+")
LENGTHS = (8, 11, 14, 18)  # a bucket ends with so many source words; the last has no end
COUNTS = (0, 2, 10, 100)  # a bucket ends with so many occurrences in training


class Bucket(NamedTuple):
    """The sentences of one kind."""

    label: str
    sentences: int
    bleu: float
    ratio: float  # hypothesis words per reference word


class Sentence(NamedTuple):
    """One translation beside its references."""

    number: int  # from 1
    source: str
    hypothesis: str
    references: tuple[str, ...]
    bleu: float  # sentence BLEU

    @property
    def reference(self) -> str:
        """The first reference."""
        return self.references[0]

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
    bigrams = list(pairwise(words(text)))
    return len(bigrams) - len(set(bigrams))


def frequencies(lines: Iterable[str]) -> Counter[str]:
    """Count the words of the training text."""
    return Counter(word for line in lines for word in words(line))


def sentences_of(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Reference],
    tokenize: str = "13a",
) -> list[Sentence]:
    """Return every translation with its sentence BLEU, of the tokens that ``tokenize`` names.

    Where there are several references, it is that of the nearest.
    """
    rows = zip(sources, hypotheses, map(alternatives, references), strict=True)

    def score(hyp: str, refs: Sequence[str]) -> float:
        return float(sentence_bleu([hyp], refs, tokenize).max())

    return [
        Sentence(number, src.strip(), hyp, tuple(r.strip() for r in refs), score(hyp, refs))
        for number, (src, hyp, refs) in enumerate(rows, start=1)
    ]


def _buckets(
    sentences: Sequence[Sentence], values: Sequence[int], ends: Sequence[int], *scoring: str
) -> list[Bucket]:
    """Score the sentences whose value lies above one end and up to the next; empty ones are gone.

    ``scoring`` is the target language and, if not 13a, the name of its tokens. BLEU is that of the
    bucket's sentences as a corpus.
    """
    found = []
    for below, end in pairwise((-1, *ends, math.inf)):
        chosen = [s for s, value in zip(sentences, values, strict=True) if below < value <= end]
        if not chosen:
            continue
        low = int(below) + 1
        label = (
            f"{low} or more" if end == math.inf else f"{low} to {end}" if low < end else f"{low}"
        )
        written = sum(len(words(s.hypothesis)) for s in chosen)
        expected = sum(len(words(s.reference)) for s in chosen)
        bleu = METRICS["bleu"](
            [s.hypothesis for s in chosen], [s.references for s in chosen], *scoring
        )
        found.append(Bucket(label, len(chosen), bleu.score, written / max(1, expected)))
    return found


def by_length(sentences: Sequence[Sentence], *scoring: str) -> list[Bucket]:
    """Score by the number of source words."""
    lengths = [len(words(s.source)) for s in sentences]
    return _buckets(sentences, lengths, LENGTHS, *scoring)


def by_rarity(sentences: Sequence[Sentence], seen: Counter[str], *scoring: str) -> list[Bucket]:
    """Score by how often the rarest source word of a sentence was seen in training."""
    rarest = [min((seen[word] for word in words(s.source)), default=0) for s in sentences]
    return _buckets(sentences, rarest, COUNTS, *scoring)


def unseen_share(lines: Iterable[str], seen: Counter[str]) -> float:
    """Return the share of words that training never showed."""
    counts = frequencies(lines)
    return sum(counts[word] for word in counts if not seen[word]) / max(1, counts.total())
