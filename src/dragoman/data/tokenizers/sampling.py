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
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dragoman.config import TokenizerConfig
from dragoman.data.draws import GOLDEN, mix, unit_interval
from dragoman.data.ragged import IntArray, Ragged, Table, merge, ragged, stack, starts_of, sums
from dragoman.data.tokenizers.base import UNK, Cutter, Tokenizer
from dragoman.data.tokenizers.sentencepiece import SPACE, Inventory, SentencePieceTokenizer

Keys = NDArray[np.uint64]
Int32Array = NDArray[np.int32]

MOST_HELD = 1 << 21  # numbers kept of words before they are all forgotten
_CELLS = 1 << 16  # symbols that BPE-dropout works on at once
_NO_MERGE = np.iinfo(np.int32).max


def make_sampler(tokenizer: Tokenizer, config: TokenizerConfig) -> Sampler | None:
    """Return what samples the segmentations of words, or None where they are fixed."""
    if not isinstance(tokenizer, SentencePieceTokenizer):
        return None
    if config.algorithm == "unigram" and config.sampling_alpha > 0:
        return UnigramSampler(tokenizer.cutter, tokenizer.inventory(), config.sampling_alpha)
    if config.algorithm == "bpe" and config.bpe_dropout > 0:
        return BPEDropoutSampler(tokenizer.cutter, tokenizer.inventory(), config.bpe_dropout)
    return None


def _draws(keys: Keys, counter: NDArray[np.int64] | int) -> Keys:
    """Return the draw number ``counter`` of every key, 64 bits."""
    with np.errstate(over="ignore"):
        return mix(keys + (np.asarray(counter).astype(np.uint64) + np.uint64(1)) * GOLDEN)


def _view(numbers: array[int]) -> NDArray[Any]:
    return np.frombuffer(numbers, np.dtype(numbers.typecode))


class Sampler(ABC):
    """Draws segmentations of words.

    It works on symbols: a piece is one, and so is a run of characters that no piece holds. The
    symbol of a piece is its id; that of a run stands for the ids of its bytes, or for one ``UNK``.

    What it has found out about words it keeps for the next ones, up to a bound: then it forgets all
    of it. A draw does not depend on what is kept.
    """

    def __init__(self, cutter: Cutter, inventory: Inventory) -> None:
        self.cutter = cutter
        self._ids, self._scores, self._bytes = inventory
        self._forget()

    def _forget(self) -> None:
        self._tokens = [[index] for index in range(len(self._scores))]  # of every symbol
        self._runs: dict[str, int] = {}
        self._words: dict[str, int] = {}  # number of each word that is known
        self._held = 0  # what is kept of them, in symbols

    def sample(self, words: Sequence[str], keys: Keys) -> Ragged:
        """Return the token ids drawn for each word, a function of it and of its 64-bit key."""
        if not words:
            return ragged([])
        if self._held > MOST_HELD:
            self._forget()
        known = self._words
        numbers = np.fromiter(
            (known[w] if w in known else self._learn(w) for w in words), np.int64, len(words)
        )
        return self._expand(self._sample(numbers, keys))

    def _learn(self, word: str) -> int:
        self._held += self._add(SPACE + word)
        self._words[word] = len(self._words)
        return self._words[word]

    @abstractmethod
    def _add(self, word: str) -> int:
        """Get to know one more word; return how many numbers are kept of it."""

    @abstractmethod
    def _sample(self, words: IntArray, keys: Keys) -> Ragged:
        """Return the symbols drawn for each word number."""

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

    def _expand(self, symbols: Ragged) -> Ragged:
        """Return the token ids of rows of symbols."""
        if not self._runs:
            return symbols
        runs = symbols.flat >= len(self._scores)
        found = Table.of(ragged(self._tokens[len(self._scores) :]))
        single = Ragged(symbols.flat, np.ones_like(symbols.flat))
        tokens = merge(runs, found.rows(symbols.flat[runs] - len(self._scores)), single)
        return Ragged(tokens.flat, sums(tokens.lengths, symbols.lengths))


class UnigramSampler(Sampler):
    """Samples a segmentation with probability proportional to the product of p(piece)^alpha.

    Kudo 2018, "Subword Regularization", section 3.3, with l = infinity: instead of taking the l
    best segmentations, the lattice of each word is summed backwards once (the log weight of all
    ways from a position to the end), and a segmentation is drawn forwards, edge by edge.
    """

    def __init__(self, cutter: Cutter, inventory: Inventory, alpha: float) -> None:
        self._alpha = alpha
        self._longest = max((len(piece) for piece in inventory.ids), default=1)
        self._inside = {piece[i : i + 2] for piece in inventory.ids for i in range(len(piece) - 1)}
        super().__init__(cutter, inventory)

    def _forget(self) -> None:
        super()._forget()
        self._segments: dict[str, int] = {}  # the first node of every part that is known
        # Per part of a word, one word after the other: its first node, and whether it ends a word.
        self._nodes_of, self._last, self._first = array("q"), array("b"), array("q")
        self._bounds = array("Q")  # per edge: number of its node * 2^32 + cumulated probability
        self._targets = array("q")  # per edge: the node it leads to, -1 at the end of the part
        self._symbols = array("i")  # per edge
        self._ends = array("q")  # per node: end of its edges

    def _add(self, word: str) -> int:
        before = len(self._bounds)
        self._first.append(len(self._nodes_of))
        for part in self._parts(word):
            if part not in self._segments:
                self._segments[part] = self._build(part)
            self._nodes_of.append(self._segments[part])
            self._last.append(False)
        self._last[-1] = True
        return len(self._bounds) - before + len(word)

    def _parts(self, word: str) -> Iterator[str]:
        """Cut a word where no piece can cross, so that each part is segmented by itself."""
        start = 0
        for place in range(1, len(word)):
            unknown = word[place - 1] not in self._ids and word[place] not in self._ids
            if word[place - 1 : place + 1] not in self._inside and not unknown:
                yield word[start:place]
                start = place
        yield word[start:]

    def _build(self, part: str) -> int:
        """Sum the lattice of a part of a word; return its first node."""
        base, size = len(self._ends), len(part)
        for edges, total in self._lattice(part):
            below, node = 0.0, len(self._ends) << 32
            for weight, end, symbol in edges:
                below += math.exp(weight - total)
                self._bounds.append(node + int(below * 2**32))
                self._targets.append(base + size - 1 - end if end < size else -1)
                self._symbols.append(symbol)
            self._ends.append(len(self._bounds))
        return len(self._ends) - 1

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

    def _sample(self, words: IntArray, keys: Keys) -> Ragged:
        # Views of what is kept: nothing is added to it before they are gone.
        first, nodes_of, targets, ends = map(
            _view, (self._first, self._nodes_of, self._targets, self._ends)
        )
        last, bounds, symbols = map(_view, (self._last, self._bounds, self._symbols))
        active, parts = np.arange(len(words)), first[words]
        nodes = nodes_of[parts]
        steps: list[tuple[IntArray, Int32Array]] = []
        lengths = np.zeros(len(words), np.int64)
        while active.size:
            drawn = (nodes.astype(np.uint64) << np.uint64(32)) + (
                _draws(keys[active], len(steps)) >> np.uint64(32)
            )
            edges = np.searchsorted(bounds, drawn, side="right")
            edges = np.minimum(edges, ends[nodes] - 1)  # rounding must not leave the node
            steps.append((active, symbols[edges]))
            lengths[active] += 1
            nodes = targets[edges]
            over = nodes < 0  # at the end of a part: on to the next one, if there is one
            going = ~over | (last[parts] == 0)
            parts = parts + over
            active, parts, nodes, over = active[going], parts[going], nodes[going], over[going]
            nodes[over] = nodes_of[parts[over]]
        flat, starts = np.empty(int(lengths.sum()), np.int64), starts_of(lengths)
        for step, (rows, found) in enumerate(steps):
            flat[starts[rows] + step] = found
        return Ragged(flat, lengths)


class BPEDropoutSampler(Sampler):
    """Byte-pair encoding in which each possible merge is dropped with a probability, every step.

    Provilkov et al. 2020, "BPE-Dropout", algorithm 1: of the merges that survive this step's draws
    the one learnt first is applied (the leftmost, if it is possible more than once); a word is done
    when no merge survives. All words are simulated side by side, one merge each a step. Without
    dropout this is SentencePiece's own encoding.
    """

    def __init__(self, cutter: Cutter, inventory: Inventory, dropout: float) -> None:
        self._dropout = dropout
        ids, scores = inventory.ids, inventory.scores
        merged = sorted((piece for piece in ids if len(piece) > 1), key=lambda p: -scores[ids[p]])
        self._results = np.array([ids[piece] for piece in merged], np.int32)
        self._base = 1 << 31  # above the number of every symbol
        table = {
            self._pair(ids[piece[:cut]], ids[piece[cut:]]): rank
            for rank, piece in enumerate(merged)
            for cut in range(1, len(piece))
            if piece[:cut] in ids and piece[cut:] in ids
        }
        self._pairs = np.array([*sorted(table), np.iinfo(np.int64).max], np.int64)
        self._ranks = np.array([table[pair] for pair in sorted(table)] + [_NO_MERGE], np.int32)
        super().__init__(cutter, inventory)

    def _forget(self) -> None:
        super()._forget()
        # The symbols of all words, and where those of each begin.
        self._spelled, self._starts = array("i"), array("q", [0])

    def _add(self, word: str) -> int:
        before = len(self._spelled)
        self._spelled.extend(self._spell(word))
        self._starts.append(len(self._spelled))
        return len(self._spelled) - before

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

    def _sample(self, words: IntArray, keys: Keys) -> Ragged:
        spelled = Table(_view(self._spelled), _view(self._starts)).rows(words)
        sizes, symbols = spelled.lengths, Table.of(spelled)
        order = np.argsort(sizes, kind="stable")  # words of like length waste no cells
        done = [(order[:0], np.empty((0, 0), np.int32))]
        while len(order):
            cells = sizes[order] * np.arange(1, len(order) + 1)
            count = max(1, int(np.searchsorted(cells, _CELLS)))
            rows, order = order[:count], order[count:]
            done += self._simulate(rows, symbols.rows(rows), keys[rows])
        drawn = stack([Ragged(found[found >= 0], (found >= 0).sum(axis=1)) for _, found in done])
        places = np.argsort(np.concatenate([rows for rows, _ in done]))
        return Table.of(drawn).rows(places)

    def _simulate(
        self, rows: IntArray, spelled: Ragged, keys: Keys
    ) -> Iterator[tuple[IntArray, Int32Array]]:
        """Merge until no merge survives; yield (rows, symbols padded with -1) as words end."""
        sizes = spelled.lengths
        columns = np.arange(int(sizes.max()) + 1)  # every row ends in padding
        symbols = np.full((len(rows), len(columns)), -1, np.int32)
        symbols[columns < sizes[:, None]] = spelled.flat
        # ranks[:, i] is that of the merge of symbols i and i + 1
        ranks = np.full_like(symbols, _NO_MERGE)
        ranks[:, :-1] = self._rank(symbols[:, :-1], symbols[:, 1:])
        for step in itertools.count():
            survivors = ranks.copy()
            row, column = np.nonzero(ranks != _NO_MERGE)
            dropped = unit_interval(_draws(keys[row], (step << 20) + column)) < self._dropout
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
