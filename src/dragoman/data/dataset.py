"""The training mixture as token ids, memory-mapped: which pairs, how long, and their rows.

Nothing here is a Python object per sentence: a corpus is a few arrays on disk (``store``), and a
sentence is a number. A corpus's tag begins its sources, to name the language wanted (Johnson et al.
2017, section 3) or text that a model made (Caswell et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dragoman.data.draws import absorb, uniforms
from dragoman.data.ragged import (
    IntArray,
    Lengths,
    Ragged,
    chunks,
    merge,
    ranges,
    starts_of,
    sums,
    take,
)
from dragoman.data.store import SIDES, EncodedCorpus
from dragoman.data.tokenizers import EOS
from dragoman.data.tokenizers.sampling import Sampler
from dragoman.errors import DragomanError

_SRC, _TGT, _SELECT = 0, 1, 2  # what a draw is for

SamplerFactory = Callable[[Sequence[str]], Sampler]


class _Side:
    """One side of a mixture: units numbered through all corpora, their tokens, their sampler."""

    def __init__(
        self, corpora: Sequence[EncodedCorpus], side: int, factory: SamplerFactory | None
    ) -> None:
        self._stored = [corpus.units.sides[side] for corpus in corpora]
        self.pairs_before = np.cumsum([0] + [len(stored) for stored in self._stored])
        self._units_before = np.cumsum([0] + [len(stored.counts) for stored in self._stored])
        self._pieces = np.concatenate([corpus.pieces[side] for corpus in corpora])
        lengths = [np.diff(corpus.starts[side].astype(np.int64)) for corpus in corpora]
        self._lengths = np.concatenate(lengths)
        self._starts = starts_of(self._lengths)
        self.sampler: Sampler | None = None
        if factory is not None:
            # A word that several corpora share is built once.
            words: dict[str, int] = {}
            numbers = [
                words.setdefault(unit, len(words))
                for stored in self._stored
                for unit in stored.types()
            ]
            self._word_of_unit = np.array(numbers, np.int64)
            self.sampler = factory(list(words))

    def units(self, pairs: IntArray) -> Ragged:
        """Return the unit numbers of pairs."""
        if len(self._stored) == 1:
            return self._stored[0].sentences(pairs)
        corpus = np.searchsorted(self.pairs_before, pairs, side="right") - 1
        found = []
        lengths = np.empty(len(pairs), np.int64)
        for number in np.unique(corpus):
            rows = np.flatnonzero(corpus == number)
            units = self._stored[number].sentences(pairs[rows] - self.pairs_before[number])
            found.append((rows, units.flat + self._units_before[number]))
            lengths[rows] = units.lengths
        flat, starts = np.empty(int(lengths.sum()), np.int64), starts_of(lengths)
        for rows, numbers in found:
            flat[ranges(starts[rows], lengths[rows])] = numbers
        return Ragged(flat, lengths)

    def fixed(self, units: IntArray) -> Ragged:
        """Return the deterministic token ids of units."""
        return take(self._pieces, self._starts[units], self._lengths[units])

    def draw(self, pairs: IntArray, states: NDArray[np.uint64], longest: IntArray) -> Ragged:
        """Return the tokens drawn for pairs, each from its state.

        Those that come out over ``longest`` are not drawn.
        """
        units = self.units(pairs)
        if self.sampler is None:
            tokens = self.fixed(units.flat)
        else:
            position = ranges(np.zeros_like(units.lengths), units.lengths).astype(np.uint64)
            keys = absorb(np.repeat(states, units.lengths), position)
            tokens = self.sampler.sample(self._word_of_unit[units.flat], keys)
            over = np.repeat(sums(tokens.lengths, units.lengths) > longest, units.lengths)
            if over.any():
                tokens = merge(over, self.fixed(units.flat[over]), tokens)
        return Ragged(tokens.flat, sums(tokens.lengths, units.lengths))


class TrainingSet:
    """The training mixture: pairs of all corpora, numbered through, as rows of token ids.

    A pair's number, and so what is drawn for it, depends on its place in the corpora alone, not on
    ``max_length`` or on the batch. With subword sampling a sentence that would come out longer than
    ``max_length`` keeps its deterministic tokens in that epoch, so no row is ever longer.

    An epoch holds a pair several times where its corpus weighs more than 1, and each copy draws for
    itself: the copy n (from 0) of pair p is the entry p + n * (number of pairs).

    ``counts`` says how many pairs there are, are empty on a side, are too long, and are kept.
    """

    def __init__(
        self,
        corpora: Sequence[EncodedCorpus],
        *,
        weights: Sequence[float],
        tag_ids: Sequence[int | None],
        max_length: int,
        seed: int,
        samplers: tuple[SamplerFactory | None, SamplerFactory | None] = (None, None),
    ) -> None:
        """Filter the pairs: one pass over the memory-mapped arrays.

        Args:
            corpora: at least one.
            weights: per corpus; how often each pair is seen per epoch.
            tag_ids: per corpus; id put before every source sentence, or None.
            max_length: longest side kept, in deterministic tokens, EOS and tag included.
            seed: of every draw.
            samplers: build the subword samplers of source and target (``make_sampler``), or None.

        Raises:
            DragomanError: naming ``data.corpora`` or ``data.max_length`` if no pair is kept.
        """
        assert len(corpora) == len(weights) == len(tag_ids) > 0
        self._seed, self._max_length = seed, max_length
        self._weights = list(weights)
        self._sides = [_Side(corpora, side, samplers[side]) for side in (_SRC, _TGT)]
        self._tags = np.array([-1 if tag is None else tag for tag in tag_ids], np.int64)
        self._before = self._sides[_SRC].pairs_before
        total, empty = int(self._before[-1]), 0
        # Of one corpus this is the file itself: nothing is read that is not asked for.
        self._fixed = [
            corpora[0].lengths[side]
            if len(corpora) == 1
            else np.concatenate([corpus.lengths[side] for corpus in corpora])
            for side in (_SRC, _TGT)
        ]
        kept = []
        for pairs in chunks(total):
            src, tgt = (fixed[pairs].astype(np.int64) for fixed in self._fixed)
            full = (src > 0) & (tgt > 0)
            empty += int((~full).sum())
            src, tgt = src + self._extra(_SRC, pairs), tgt + self._extra(_TGT, pairs)
            kept.append(pairs[full & (src <= max_length) & (tgt <= max_length)])
        self._kept = np.concatenate(kept)
        self.counts = {
            "pairs": total,
            "empty": empty,
            "too_long": total - empty - len(self._kept),
            "kept": len(self._kept),
        }
        self._refuse_nothing()

    def _refuse_nothing(self) -> None:
        counts = self.counts
        if counts["kept"]:
            return
        if counts["pairs"] == counts["empty"]:
            pairs = counts["pairs"]
            raise DragomanError(
                f"data.corpora: none of the {pairs} training pairs has words on both sides"
            )
        raise DragomanError(
            f"data.max_length: none of the {counts['pairs']} training pairs has at most "
            f"{self._max_length} tokens a side ({counts['too_long']} are too long, "
            f"{counts['empty']} empty)"
        )

    @property
    def num_tokens(self) -> int:
        """Deterministic tokens of both sides of an epoch, EOS and tags not counted."""
        pairs = self.pairs_of(self.epoch_pairs(0))
        return sum(int(fixed[pairs].sum(dtype=np.int64)) for fixed in self._fixed)

    def pairs_of(self, entries: IntArray) -> IntArray:
        """Return the pair that each entry of an epoch is a copy of."""
        return entries % self.counts["pairs"]

    def _tag_of(self, pairs: IntArray) -> IntArray:
        """Return the tag id of each pair, -1 without."""
        if len(self._tags) == 1:
            return np.broadcast_to(self._tags, pairs.shape)
        tags: IntArray = self._tags[np.searchsorted(self._before, pairs, side="right") - 1]
        return tags

    def epoch_pairs(self, epoch: int) -> IntArray:
        """Return the entries of an epoch, not shuffled.

        A corpus of weight w gives each of its pairs floor(w) times, and once more a fraction
        w - floor(w) of them, chosen anew each epoch.

        Raises:
            DragomanError: naming ``data.corpora`` if the weights leave the epoch empty.
        """
        parts = []
        bounds = np.searchsorted(self._kept, self._before)
        for number, weight in enumerate(self._weights):
            kept = self._kept[bounds[number] : bounds[number + 1]]
            whole, pairs = int(weight), self.counts["pairs"]
            parts += [kept + copy * pairs for copy in range(whole)]
            if weight > whole:
                chosen = uniforms(self._seed, epoch, _SELECT, kept) < weight - whole
                parts.append(kept[chosen] + whole * pairs)
        entries = np.concatenate(parts)
        if not len(entries):
            raise DragomanError(
                f"data.corpora: the weights are so small that epoch {epoch} has no pair at all"
            )
        return entries

    def lengths(self, entries: IntArray, epoch: int) -> tuple[Lengths, Lengths]:
        """Return how many tokens ``rows`` has for each entry: source (tag and EOS in), target."""
        found = [np.empty(len(entries), np.int32) for _ in SIDES]
        for places in chunks(len(entries)):
            part = entries[places]
            pairs = self.pairs_of(part)
            for number, side in enumerate(self._sides):
                lengths = (
                    self._draw(number, part, epoch).lengths
                    if side.sampler
                    else self._fixed[number][pairs]
                )
                found[number][places] = lengths + self._extra(number, pairs)
        return found[_SRC], found[_TGT]

    def rows(self, entries: IntArray, epoch: int) -> tuple[Ragged, Ragged]:
        """Return source and target token ids of entries as drawn for an epoch.

        Both end in EOS; the source begins with its corpus's tag, if any; the target has no BOS.
        """
        src, tgt = (self._row(number, entries, epoch) for number in (_SRC, _TGT))
        return src, tgt

    def _extra(self, number: int, pairs: IntArray) -> IntArray:
        """Return how many tokens are added to each row: EOS, and on the source its tag."""
        extra = np.ones(len(pairs), np.int64)
        return extra + (self._tag_of(pairs) >= 0) if number == _SRC else extra

    def _draw(self, number: int, entries: IntArray, epoch: int) -> Ragged:
        pairs = self.pairs_of(entries)
        states = absorb(np.zeros((), np.uint64), self._seed, epoch, number, entries)
        longest = self._max_length - self._extra(number, pairs)
        return self._sides[number].draw(pairs, states, longest)

    def _row(self, number: int, entries: IntArray, epoch: int) -> Ragged:
        tokens, pairs = self._draw(number, entries, epoch), self.pairs_of(entries)
        extra = self._extra(number, pairs)
        lengths = tokens.lengths + extra
        flat, starts = np.full(int(lengths.sum()), EOS, np.int64), starts_of(lengths)
        flat[ranges(starts + extra - 1, tokens.lengths)] = tokens.flat
        tagged = extra > 1
        flat[starts[tagged]] = self._tag_of(pairs)[tagged]
        return Ragged(flat, lengths)
