"""From attention weights to word alignments, and how far those are from the gold ones.

Shapes: T target tokens, S source tokens, Tw target words, Sw source words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.floating]
Link = tuple[int, int]


@dataclass(frozen=True)
class AlignmentErrorRate:
    """Link counts of one sentence or, added up with ``+``, of a corpus.

    ``sum(sentences, AlignmentErrorRate())`` gives the corpus figure: counts are added, rates are
    never averaged, so that long sentences weigh more than short ones.
    """

    predicted: int = 0
    sure: int = 0
    predicted_and_sure: int = 0
    predicted_and_possible: int = 0

    def __add__(self, other: AlignmentErrorRate) -> AlignmentErrorRate:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return AlignmentErrorRate(*(mine + theirs for mine, theirs in pairs))

    @property
    def precision(self) -> float:
        """Share of the predicted links that are at least possible; 1 if none was predicted."""
        return self.predicted_and_possible / self.predicted if self.predicted else 1.0

    @property
    def recall(self) -> float:
        """Share of the sure links that were predicted; 1 if there are none."""
        return self.predicted_and_sure / self.sure if self.sure else 1.0

    @property
    def rate(self) -> float:
        """Alignment error rate, 0 (perfect) to 1; 0 where there is nothing to align.

        1 - (|A and S| + |A and P|) / (|A| + |S|), Och and Ney (2003), "A Systematic Comparison of
        Various Statistical Alignment Models", section 5.
        """
        links = self.predicted + self.sure
        hits = self.predicted_and_sure + self.predicted_and_possible
        return 1.0 - hits / links if links else 0.0


def alignment_error_rate(
    predicted: Iterable[Link], sure: Iterable[Link], possible: Iterable[Link] | None = None
) -> AlignmentErrorRate:
    """Count the links of one sentence; ``.rate`` is its alignment error rate.

    All links are (source, target) pairs and count once. Every sure link is also possible, whether
    ``possible`` repeats it or not; without ``possible`` the sure links are the only good ones.
    """
    links, certain = set(predicted), set(sure)
    allowed = certain | set(possible or ())
    return AlignmentErrorRate(len(links), len(certain), len(links & certain), len(links & allowed))


def hard_alignment(weights: Weights) -> list[Link]:
    """Link every target position to its most attended source position.

    ``weights`` is (T, S); returns (source, target) pairs, ordered by target. The first of equal
    weights wins; a row without any positive weight (everything masked) gives no link.
    """
    if weights.size == 0:
        return []
    best = weights.argmax(axis=1)
    return [(int(s), t) for t, s in enumerate(best) if weights[t, s] > 0]


def merge_to_words(weights: Weights, src_words: Sequence[int], tgt_words: Sequence[int]) -> Weights:
    """Turn subword attention (T, S) into word attention (Tw, Sw).

    ``src_words`` and ``tgt_words`` give the word number of every token, -1 for tokens that belong
    to no word (end mark, language tag). A source word receives the sum over its pieces, a target
    word gives the mean over its pieces. Dropped source tokens take their weight with them (rows
    are not renormalised), so a row may sum to less than 1. Word numbers with no piece give zeros.

    Raises:
        ValueError: if the word lists are not as long as the sides of ``weights``.
    """
    if weights.shape != (len(tgt_words), len(src_words)):
        raise ValueError(
            f"weights {weights.shape} do not fit {len(tgt_words)} target and "
            f"{len(src_words)} source tokens"
        )
    src, tgt = np.asarray(src_words, dtype=np.int64), np.asarray(tgt_words, dtype=np.int64)
    rows, columns = np.flatnonzero(tgt >= 0), np.flatnonzero(src >= 0)
    merged: Weights = np.zeros((tgt.max(initial=-1) + 1, src.max(initial=-1) + 1))
    np.add.at(merged, np.ix_(tgt[rows], src[columns]), weights[np.ix_(rows, columns)])
    pieces = np.bincount(tgt[rows], minlength=len(merged))
    return merged / np.maximum(pieces, 1)[:, None]
