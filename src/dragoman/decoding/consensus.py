"""Minimum Bayes risk decoding: of many samples, the one that agrees best with all of them.

Shapes: C candidates, R references.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

ORDER = 4  # longest n-gram


@cache
def _tokenizer(name: str) -> Callable[[str], str]:
    found: Callable[[str], str] = BLEU(tokenize=name).tokenizer
    return found


def _ngrams(text: str, tokenize: str) -> tuple[int, list[Counter[tuple[str, ...]]]]:
    """Return the length of a text and how often each of its n-grams occurs, order by order."""
    tokens = _tokenizer(tokenize)(text.rstrip()).split()
    orders = range(1, ORDER + 1)
    return len(tokens), [
        Counter(zip(*(tokens[i:] for i in range(n)), strict=False)) for n in orders
    ]


def _table(counts: Sequence[Counter[tuple[str, ...]]]) -> NDArray[np.int64]:
    """Return counts as a matrix: a row for each text, a column for each n-gram of any."""
    columns = {ngram: place for place, ngram in enumerate({n for row in counts for n in row})}
    table = np.zeros((len(counts), len(columns)), np.int64)
    for row, found in enumerate(counts):
        for ngram, count in found.items():
            table[row, columns[ngram]] = count
    return table


def sentence_bleu(
    candidates: Sequence[str], references: Sequence[str], tokenize: str = "13a"
) -> NDArray[np.float64]:
    """Return the sentence BLEU of every candidate against every reference, (C, R), 0 to 100.

    As sacreBLEU's ``sentence_score`` with effective order and exponential smoothing (Chen and
    Cherry 2014, method 3; Post 2018), but for all pairs at once. ``tokenize`` names its tokens.
    """
    texts = [_ngrams(text, tokenize) for text in (*candidates, *references)]
    count = len(candidates)
    lengths = np.array([length for length, _ in texts], float)
    own, other = lengths[:count, None], lengths[None, count:]
    logs, orders = np.zeros((count, len(references))), np.zeros((count, 1))
    smallest, matched = np.ones_like(logs), np.zeros_like(logs)
    for n in range(ORDER):
        table = _table([counts[n] for _, counts in texts])
        # Row by row: all at once would hold a number for each pair of texts and n-gram.
        hits = np.array([np.minimum(row, table[count:]).sum(-1) for row in table[:count]])
        total = own - n
        there = total > 0  # shorter candidates have no n-gram of this order
        smallest = np.where(there & (hits == 0), smallest * 2, smallest)
        precision = np.where(hits > 0, hits, 1 / smallest) / np.maximum(total, 1)
        logs += np.where(there, np.log(precision), 0.0)
        orders += there
        matched += hits
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty text matches nothing
        brevity = np.exp(np.minimum(0.0, 1 - other / own))
    score = 100 * brevity * np.exp(logs / np.maximum(orders, 1))
    return np.where(matched > 0, score, 0.0)


def consensus(
    samples: Sequence[str], tokenize: str = "13a"
) -> tuple[list[int], NDArray[np.float64]]:
    """Return where the different samples stand, best first, and the expected BLEU of each.

    The expectation is over all samples, the likelier ones being there more often (Kumar and Byrne
    2004; with samples as references, Eikema and Aziz 2020, section 5.2).
    """
    weights = Counter(samples)
    different = list(weights)
    odds = np.array([weights[text] for text in different]) / len(samples)
    expected = sentence_bleu(different, different, tokenize) @ odds
    first = {text: place for place, text in reversed(list(enumerate(samples)))}
    order = np.argsort(-expected, kind="stable")
    return [first[different[place]] for place in order], expected[order]
