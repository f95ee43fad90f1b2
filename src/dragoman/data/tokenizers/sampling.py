"""Dragoman's own sampling of segmentations: unigram subword regularisation and BPE-dropout.

SentencePiece's sampler differs from process to process even when seeded. Here every draw is a hash
of a key that the caller derives from (seed, epoch, sentence, side, position of the word), so there
is no state to save and the batch a word is in changes nothing. Both samplers are exact: no n-best
list, no table of ready-made samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dragoman.config import TokenizerConfig
from dragoman.data.draws import GOLDEN, mix, unit_interval
from dragoman.data.ragged import IntArray, Ragged, starts_of, sums, take
from dragoman.data.tokenizers.base import UNK, Tokenizer
from dragoman.data.tokenizers.sentencepiece import SPACE, Inventory, SentencePieceTokenizer

_CELLS = 1 << 16  # symbols that BPE-dropout works on at once
_NO_MERGE = np.iinfo(np.int32).max


class Sampler(Protocol):
    """Draws segmentations of the words it was built for."""

    def sample(self, words: IntArray, keys: NDArray[np.uint64]) -> Ragged:
        """Return the token ids drawn for each word number, a function of its 64-bit key alone."""


def make_sampler(
    tokenizer: Tokenizer, config: TokenizerConfig
) -> Callable[[Sequence[str]], Sampler] | None:
    """Return what builds a sampler for a list of words, or None where segmentation is fixed."""
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return None
    inventory = tokenizer.inventory()
    if config.algorithm == "unigram" and config.sampling_alpha > 0:
        return lambda words: UnigramSampler(inventory, words, config.sampling_alpha)
    if config.algorithm == "bpe" and config.bpe_dropout > 0:
        return lambda words: BPEDropoutSampler(inventory, words, config.bpe_dropout)
    return None


def _uniform(keys: NDArray[np.uint64], counter: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Return the draw number ``counter`` of every key, in [0, 1)."""
    with np.errstate(over="ignore"):
        state = mix(keys + (np.asarray(counter).astype(np.uint64) + np.uint64(1)) * GOLDEN)
    return unit_interval(state)


class _Symbols:
    """Pieces, and runs of unknown characters, as symbols; each stands for one or more token ids."""

    def __init__(self, inventory: Inventory) -> None:
        self.pieces = inventory.ids
        self._bytes = inventory.bytes
        self._runs: dict[str, int] = {}
        self._emitted = [[index] for index in range(len(inventory.scores))]
        self._table: tuple[NDArray[np.int32], IntArray, IntArray] | None = None

    def unknown_run_end(self, word: str, start: int) -> int:
        """Return where the run of unknown characters from ``start`` on ends (``start`` if none)."""
        end = start
        while end < len(word) and word[end] not in self.pieces:
            end += 1
        return end

    def of_run(self, run: str) -> int:
        """Return the symbol of a run of unknown characters: its bytes, or one ``UNK``."""
        if not self._bytes:
            return UNK
        if run not in self._runs:
            self._runs[run] = len(self._emitted)
            self._emitted.append([self._bytes[byte] for byte in run.encode()])
        return self._runs[run]

    def __len__(self) -> int:
        return len(self._emitted)

    def expand(self, symbols: Ragged) -> Ragged:
        """Return the token ids of rows of symbols."""
        if not self._runs:
            return symbols
        if self._table is None:
            lengths = np.array([len(ids) for ids in self._emitted])
            flat = np.array([i for ids in self._emitted for i in ids], np.int32)
            self._table = (flat, starts_of(lengths), lengths)
        flat, starts, lengths = self._table
        tokens = take(flat, starts[symbols.flat], lengths[symbols.flat])
        return Ragged(tokens.flat, sums(tokens.lengths, symbols.lengths))


class UnigramSampler:
    """Samples a segmentation with probability proportional to the product of p(piece)^alpha.

    Kudo 2018, "Subword Regularization", section 3.3, with l = infinity: instead of taking the l
    best segmentations, the lattice of each word is summed backwards once (the log weight of all
    ways from a position to the end), and a segmentation is drawn forwards, edge by edge.
    """

    def __init__(self, inventory: Inventory, words: Iterable[str], alpha: float) -> None:
        self._symbols = _Symbols(inventory)
        self._alpha = alpha
        self._scores = inventory.scores
        self._longest = max((len(piece) for piece in inventory.ids), default=1)
        first: list[int] = []  # per word: the node before its first character
        bounds: list[float] = []  # per edge: number of its node + cumulated probability
        targets: list[int] = []  # per edge: the node it leads to, -1 at the end of the word
        symbols: list[int] = []
        ends: list[int] = []  # per node: end of its edges
        for word in words:
            self._add(SPACE + word, bounds, targets, symbols, ends)
            first.append(len(ends) - 1)
        self._first = np.array(first, np.int64)
        self._bounds = np.array(bounds, np.float64)
        self._targets = np.array(targets, np.int64)
        self._edge_symbols = np.array(symbols, np.int32)
        self._ends = np.array(ends, np.int64)

    def _add(
        self,
        word: str,
        bounds: list[float],
        targets: list[int],
        symbols: list[int],
        ends: list[int],
    ) -> None:
        """Append the lattice of a word, last position first."""
        pieces, size, base = self._symbols.pieces, len(word), len(ends)
        log_weight = [0.0] * (size + 1)  # of all ways from a position to the end
        for start in range(size - 1, -1, -1):
            edges: list[tuple[int, int, float]] = []
            for end in range(start + 1, min(start + self._longest, size) + 1):
                piece = pieces.get(word[start:end])
                if piece is not None:
                    score = self._alpha * self._scores[piece]
                    edges.append((end, piece, score + log_weight[end]))
            if not edges:
                end = self._symbols.unknown_run_end(word, start)
                run = self._symbols.of_run(word[start:end])
                edges.append((end, run, log_weight[end]))
            best = max(weight for _, _, weight in edges)
            total = best + math.log(sum(math.exp(weight - best) for _, _, weight in edges))
            log_weight[start] = total
            below = 0.0
            for end, symbol, weight in edges:
                below += math.exp(weight - total)
                bounds.append(len(ends) + below)
                targets.append(base + size - 1 - end if end < size else -1)
                symbols.append(symbol)
            ends.append(len(bounds))

    def sample(self, words: IntArray, keys: NDArray[np.uint64]) -> Ragged:
        """Return the token ids drawn for each word number."""
        active, nodes = np.arange(len(words)), self._first[words]
        steps: list[tuple[IntArray, NDArray[np.int32]]] = []
        lengths = np.zeros(len(words), np.int64)
        while active.size:
            drawn = nodes + _uniform(keys[active], len(steps))
            edges = np.searchsorted(self._bounds, drawn, side="right")
            edges = np.minimum(edges, self._ends[nodes] - 1)  # rounding must not leave the node
            steps.append((active, self._edge_symbols[edges]))
            lengths[active] += 1
            nodes = self._targets[edges]
            active, nodes = active[nodes >= 0], nodes[nodes >= 0]
        flat, starts = np.empty(int(lengths.sum()), np.int64), starts_of(lengths)
        for step, (rows, symbols) in enumerate(steps):
            flat[starts[rows] + step] = symbols
        return self._symbols.expand(Ragged(flat, lengths))


class BPEDropoutSampler:
    """Byte-pair encoding in which each possible merge is dropped with a probability, every step.

    Provilkov et al. 2020, "BPE-Dropout", algorithm 1: of the merges that survive this step's draws
    the one learnt first is applied (the leftmost, if it is possible more than once); a word is done
    when no merge survives. All words are simulated side by side, one merge each a step. Without
    dropout this is SentencePiece's own encoding.
    """

    def __init__(self, inventory: Inventory, words: Iterable[str], dropout: float) -> None:
        self._symbols = symbols = _Symbols(inventory)
        self._dropout = dropout
        flat: list[int] = []
        lengths: list[int] = []
        for word in words:
            before = len(flat)
            self._characters(SPACE + word, flat)
            lengths.append(len(flat) - before)
        self._flat = np.array(flat, np.int32)
        self._lengths = np.array(lengths, np.int64)
        self._starts = starts_of(self._lengths)
        merged = [piece for piece in inventory.ids if len(piece) > 1]
        merged.sort(key=lambda piece: -inventory.scores[inventory.ids[piece]])
        self._results = np.array([inventory.ids[piece] for piece in merged], np.int32)
        self._base = len(symbols)
        table = {
            inventory.ids[piece[:cut]] * self._base + inventory.ids[piece[cut:]]: rank
            for rank, piece in enumerate(merged)
            for cut in range(1, len(piece))
            if piece[:cut] in inventory.ids and piece[cut:] in inventory.ids
        }
        self._pairs = np.array([*sorted(table), np.iinfo(np.int64).max], np.int64)
        self._ranks = np.array([table[pair] for pair in sorted(table)] + [_NO_MERGE], np.int32)
        self._first_ranks = self._rank(self._flat[:-1], self._flat[1:])
        self._first_ranks = np.append(self._first_ranks, np.int32(_NO_MERGE))

    def _characters(self, word: str, flat: list[int]) -> None:
        start = 0
        while start < len(word):
            end = self._symbols.unknown_run_end(word, start)
            if end > start:
                flat.append(self._symbols.of_run(word[start:end]))
            else:
                end = start + 1
                flat.append(self._symbols.pieces[word[start]])
            start = end

    def _rank(self, left: NDArray[np.int32], right: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the rank of the merge of two symbols, ``_NO_MERGE`` if there is none."""
        pairs = left.astype(np.int64) * self._base + right
        found = np.searchsorted(self._pairs, pairs)
        return np.where(self._pairs[found] == pairs, self._ranks[found], np.int32(_NO_MERGE))

    def sample(self, words: IntArray, keys: NDArray[np.uint64]) -> Ragged:
        """Return the token ids drawn for each word number."""
        sizes = self._lengths[words]
        order = np.argsort(sizes, kind="stable")  # words of like length waste no cells
        groups: list[tuple[IntArray, NDArray[np.int32]]] = []
        first = 0
        while first < len(order):
            cells = sizes[order[first:]] * np.arange(1, len(order) - first + 1)
            last = first + max(1, int(np.searchsorted(cells, _CELLS)))
            rows = order[first:last]
            self._simulate(words[rows], keys[rows], rows, groups)
            first = last
        lengths = np.empty(len(words), np.int64)
        for rows, symbols in groups:
            lengths[rows] = (symbols >= 0).sum(axis=1)
        starts = starts_of(lengths)
        flat = np.empty(int(lengths.sum()), np.int64)
        for rows, symbols in groups:
            real = symbols >= 0
            positions = starts[rows][:, None] + np.arange(symbols.shape[1])
            flat[positions[real]] = symbols[real]
        return self._symbols.expand(Ragged(flat, lengths))

    def _simulate(
        self,
        words: IntArray,
        keys: NDArray[np.uint64],
        rows: IntArray,
        groups: list[tuple[IntArray, NDArray[np.int32]]],
    ) -> None:
        """Merge until no merge survives; append (rows, symbols padded with -1) as words end."""
        sizes = self._lengths[words]
        width = int(sizes.max())
        columns = np.arange(width)
        cells = np.minimum(self._starts[words][:, None] + columns, len(self._flat) - 1)
        symbols = np.where(columns < sizes[:, None], self._flat[cells], np.int32(-1))
        # ranks[:, i] is that of the merge of symbols i and i + 1
        inside = columns < sizes[:, None] - 1
        ranks = np.where(inside, self._first_ranks[cells], np.int32(_NO_MERGE))
        step = 0
        while len(rows):
            survivors = ranks.copy()
            row, column = np.nonzero(ranks != _NO_MERGE)
            dropped = _uniform(keys[row], (step << 20) + column) < self._dropout
            survivors[row[dropped], column[dropped]] = _NO_MERGE
            place = survivors.argmin(axis=1)
            best = survivors[np.arange(len(rows)), place]
            going = best != _NO_MERGE
            groups.append((rows[~going], symbols[~going]))
            rows, keys, symbols, ranks = rows[going], keys[going], symbols[going], ranks[going]
            if not len(rows):
                return
            symbols, ranks = self._merge(symbols, ranks, place[going], best[going])
            step += 1

    def _merge(
        self,
        symbols: NDArray[np.int32],
        ranks: NDArray[np.int32],
        place: IntArray,
        best: NDArray[np.int32],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Join symbols ``place`` and ``place + 1`` of every row; all rows become one shorter."""
        every, columns = np.arange(len(place)), np.arange(symbols.shape[1] - 1)
        source = columns + (columns > place[:, None])
        symbols = np.take_along_axis(symbols, source, axis=1)
        ranks = np.take_along_axis(ranks, source, axis=1)
        symbols[every, place] = self._results[best]
        for left in (place - 1, place):
            possible = (left >= 0) & (left < len(columns) - 1)
            rows, at = every[possible], left[possible]
            ranks[rows, at] = self._rank_of(symbols[rows, at], symbols[rows, at + 1])
        outside = place == len(columns) - 1  # nothing stands right of the last symbol
        ranks[every[outside], place[outside]] = _NO_MERGE
        return symbols, ranks

    def _rank_of(self, left: NDArray[np.int32], right: NDArray[np.int32]) -> NDArray[np.int32]:
        """As ``_rank``, where the right symbol may be padding."""
        return np.where(right >= 0, self._rank(left, right), np.int32(_NO_MERGE))
