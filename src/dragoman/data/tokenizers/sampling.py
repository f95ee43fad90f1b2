"""Dragoman's own sampling of segmentations: unigram subword regularisation and BPE-dropout.

SentencePiece's sampler differs from process to process even when seeded. Here every draw is a hash
of a key that the caller derives from (seed, epoch, sentence, side, position of the word), so there
is no state to save and the batch a word is in changes nothing. Both samplers are exact: no n-best
list, no table of ready-made samples.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dragoman.config import TokenizerConfig
from dragoman.data.draws import GOLDEN, mix, unit_interval
from dragoman.data.ragged import IntArray, Ragged, Table, ragged, stack, starts_of, sums
from dragoman.data.tokenizers.base import UNK, Tokenizer
from dragoman.data.tokenizers.sentencepiece import SPACE, Inventory, SentencePieceTokenizer

Keys = NDArray[np.uint64]
Int32Array = NDArray[np.int32]

_CELLS = 1 << 16  # symbols that BPE-dropout works on at once
_NO_MERGE = np.iinfo(np.int32).max


def make_sampler(
    tokenizer: Tokenizer, config: TokenizerConfig
) -> Callable[[Sequence[str]], Sampler] | None:
    """Return what builds a sampler for a list of words, or None where segmentation is fixed."""
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return None
    if config.algorithm == "unigram" and config.sampling_alpha > 0:
        return lambda words: UnigramSampler(tokenizer.inventory(), words, config.sampling_alpha)
    if config.algorithm == "bpe" and config.bpe_dropout > 0:
        return lambda words: BPEDropoutSampler(tokenizer.inventory(), words, config.bpe_dropout)
    return None


def _uniform(keys: Keys, counter: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Return the draw number ``counter`` of every key, in [0, 1)."""
    with np.errstate(over="ignore"):
        state = mix(keys + (np.asarray(counter).astype(np.uint64) + np.uint64(1)) * GOLDEN)
    return unit_interval(state)


class Sampler(ABC):
    """Draws segmentations of the words it was built for.

    It works on symbols: a piece is one, and so is a run of characters that no piece holds. The
    symbol of a piece is its id; that of a run stands for the ids of its bytes, or for one ``UNK``.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._ids, self._scores, self._bytes = inventory
        self._tokens = [[index] for index in range(len(self._scores))]  # of every symbol
        self._runs: dict[str, int] = {}

    @abstractmethod
    def sample(self, words: IntArray, keys: Keys) -> Ragged:
        """Return the token ids drawn for each word number, a function of its 64-bit key alone."""

    def _symbol(self, word: str, start: int) -> tuple[int, int]:
        """Return the symbol of the character, or unknown run, at ``start``: its end and number."""
        end = start + 1
        if word[start] in self._ids:
            return end, self._ids[word[start]]
        while end < len(word) and word[end] not in self._ids:
            end += 1
        run = word[start:end]
        if not self._bytes:
            return end, UNK
        if run not in self._runs:
            self._runs[run] = len(self._tokens)
            self._tokens.append([self._bytes[byte] for byte in run.encode()])
        return end, self._runs[run]

    @cached_property
    def _tokens_of(self) -> Table:
        return Table.of(ragged(self._tokens))

    def _expand(self, symbols: Ragged) -> Ragged:
        """Return the token ids of rows of symbols."""
        if not self._runs:
            return symbols
        tokens = self._tokens_of.rows(symbols.flat)
        return Ragged(tokens.flat, sums(tokens.lengths, symbols.lengths))


class UnigramSampler(Sampler):
    """Samples a segmentation with probability proportional to the product of p(piece)^alpha.

    Kudo 2018, "Subword Regularization", section 3.3, with l = infinity: instead of taking the l
    best segmentations, the lattice of each word is summed backwards once (the log weight of all
    ways from a position to the end), and a segmentation is drawn forwards, edge by edge.
    """

    def __init__(self, inventory: Inventory, words: Iterable[str], alpha: float) -> None:
        super().__init__(inventory)
        self._alpha = alpha
        self._longest = max((len(piece) for piece in inventory.ids), default=1)
        first = array("q")  # per word: the node before its first character
        bounds = array("d")  # per edge: number of its node + cumulated probability
        targets = array("q")  # per edge: the node it leads to, -1 at the end of the word
        symbols = array("i")  # per edge
        ends = array("q")  # per node: end of its edges
        for word in words:
            base, size = len(ends), len(SPACE + word)
            for edges, total in self._lattice(SPACE + word):
                below = 0.0
                for weight, end, symbol in edges:
                    below += math.exp(weight - total)
                    bounds.append(len(ends) + below)
                    targets.append(base + size - 1 - end if end < size else -1)
                    symbols.append(symbol)
                ends.append(len(bounds))
            first.append(len(ends) - 1)
        self._first, self._bounds, self._targets = map(np.array, (first, bounds, targets))
        self._symbols, self._ends = np.array(symbols), np.array(ends)

    def _lattice(self, word: str) -> Iterator[tuple[list[tuple[float, int, int]], float]]:
        """Yield the edges from each position of a word, the last position first.

        An edge is a log weight, where it ends, and its symbol; with them comes the log of the sum
        of their weights.
        """
        size = len(word)
        log_weight = [0.0] * (size + 1)  # of all ways from a position to the end
        for start in range(size - 1, -1, -1):
            edges: list[tuple[float, int, int]] = []
            for end in range(start + 1, min(start + self._longest, size) + 1):
                piece = self._ids.get(word[start:end])
                if piece is not None:
                    edges.append((self._alpha * self._scores[piece] + log_weight[end], end, piece))
            if not edges:
                end, symbol = self._symbol(word, start)
                edges.append((log_weight[end], end, symbol))
            best = max(edges)[0]
            total = best + math.log(sum(math.exp(weight - best) for weight, _, _ in edges))
            log_weight[start] = total
            yield edges, total

    def sample(self, words: IntArray, keys: Keys) -> Ragged:
        """Return the token ids drawn for each word number."""
        active, nodes = np.arange(len(words)), self._first[words]
        steps: list[tuple[IntArray, Int32Array]] = []
        lengths = np.zeros(len(words), np.int64)
        while active.size:
            drawn = nodes + _uniform(keys[active], len(steps))
            edges = np.searchsorted(self._bounds, drawn, side="right")
            edges = np.minimum(edges, self._ends[nodes] - 1)  # rounding must not leave the node
            steps.append((active, self._symbols[edges]))
            lengths[active] += 1
            nodes = self._targets[edges]
            active, nodes = active[nodes >= 0], nodes[nodes >= 0]
        flat, starts = np.empty(int(lengths.sum()), np.int64), starts_of(lengths)
        for step, (rows, symbols) in enumerate(steps):
            flat[starts[rows] + step] = symbols
        return self._expand(Ragged(flat, lengths))


class BPEDropoutSampler(Sampler):
    """Byte-pair encoding in which each possible merge is dropped with a probability, every step.

    Provilkov et al. 2020, "BPE-Dropout", algorithm 1: of the merges that survive this step's draws
    the one learnt first is applied (the leftmost, if it is possible more than once); a word is done
    when no merge survives. All words are simulated side by side, one merge each a step. Without
    dropout this is SentencePiece's own encoding.
    """

    def __init__(self, inventory: Inventory, words: Iterable[str], dropout: float) -> None:
        super().__init__(inventory)
        self._dropout = dropout
        spelled = ragged([self._spell(SPACE + word) for word in words])
        self._flat, self._lengths = spelled.flat.astype(np.int32), spelled.lengths
        self._starts = starts_of(self._lengths)
        ids, scores = inventory.ids, inventory.scores
        merged = sorted((piece for piece in ids if len(piece) > 1), key=lambda p: -scores[ids[p]])
        self._results = np.array([ids[piece] for piece in merged], np.int32)
        self._base = len(self._tokens) + 1
        table = {
            self._pair(ids[piece[:cut]], ids[piece[cut:]]): rank
            for rank, piece in enumerate(merged)
            for cut in range(1, len(piece))
            if piece[:cut] in ids and piece[cut:] in ids
        }
        self._pairs = np.array([*sorted(table), np.iinfo(np.int64).max], np.int64)
        self._ranks = np.array([table[pair] for pair in sorted(table)] + [_NO_MERGE], np.int32)
        # Of each symbol with the next one, as long as nothing is merged.
        self._first_ranks = self._rank(self._flat, np.append(self._flat[1:], np.int32(-1)))

    def _spell(self, word: str) -> list[int]:
        symbols, start = [], 0
        while start < len(word):
            start, symbol = self._symbol(word, start)
            symbols.append(symbol)
        return symbols

    def _pair(self, left: Any, right: Any) -> Any:
        """Return one number for two symbols; the right one may be -1, for none."""
        return left * self._base + right + 1

    def _rank(self, left: Int32Array, right: Int32Array) -> Int32Array:
        """Return the rank of the merge of two symbols, ``_NO_MERGE`` if there is none."""
        pairs = self._pair(left.astype(np.int64), right)
        found = np.searchsorted(self._pairs, pairs)
        return np.where(self._pairs[found] == pairs, self._ranks[found], np.int32(_NO_MERGE))

    def sample(self, words: IntArray, keys: Keys) -> Ragged:
        """Return the token ids drawn for each word number."""
        sizes = self._lengths[words]
        order = np.argsort(sizes, kind="stable")  # words of like length waste no cells
        done = [(order[:0], np.empty((0, 0), np.int32))]
        while len(order):
            cells = sizes[order] * np.arange(1, len(order) + 1)
            count = max(1, int(np.searchsorted(cells, _CELLS)))
            rows, order = order[:count], order[count:]
            done += self._simulate(rows, words[rows], keys[rows])
        drawn = stack([Ragged(found[found >= 0], (found >= 0).sum(axis=1)) for _, found in done])
        places = np.argsort(np.concatenate([rows for rows, _ in done]))
        return self._expand(Table.of(drawn).rows(places))

    def _simulate(
        self, rows: IntArray, words: IntArray, keys: Keys
    ) -> Iterator[tuple[IntArray, Int32Array]]:
        """Merge until no merge survives; yield (rows, symbols padded with -1) as words end."""
        sizes = self._lengths[words]
        columns = np.arange(int(sizes.max()) + 1)  # every row ends in padding
        cells = np.minimum(self._starts[words][:, None] + columns, len(self._flat) - 1)
        symbols = np.where(columns < sizes[:, None], self._flat[cells], np.int32(-1))
        # ranks[:, i] is that of the merge of symbols i and i + 1
        inside = columns < sizes[:, None] - 1
        ranks = np.where(inside, self._first_ranks[cells], np.int32(_NO_MERGE))
        for step in itertools.count():
            survivors = ranks.copy()
            row, column = np.nonzero(ranks != _NO_MERGE)
            dropped = _uniform(keys[row], (step << 20) + column) < self._dropout
            survivors[row[dropped], column[dropped]] = _NO_MERGE
            place = survivors.argmin(axis=1)
            best = survivors[np.arange(len(rows)), place]
            going = best != _NO_MERGE
            yield rows[~going], symbols[~going]
            if not going.any():
                return
            rows, keys = rows[going], keys[going]
            symbols, ranks = self._merge(symbols[going], ranks[going], place[going], best[going])

    def _merge(
        self, symbols: Int32Array, ranks: Int32Array, place: IntArray, best: Int32Array
    ) -> tuple[Int32Array, Int32Array]:
        """Join symbols ``place`` and ``place + 1`` of every row; all rows become one shorter."""
        every, columns = np.arange(len(place)), np.arange(symbols.shape[1] - 1)
        source = columns + (columns > place[:, None])
        symbols = np.take_along_axis(symbols, source, axis=1)
        ranks = np.take_along_axis(ranks, source, axis=1)
        symbols[every, place] = self._results[best]
        for left in (place - 1, place):
            rows, at = every[left >= 0], left[left >= 0]
            ranks[rows, at] = self._rank(symbols[rows, at], symbols[rows, at + 1])
        return symbols, ranks
