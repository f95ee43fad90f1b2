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
    Table,
    chunks,
    merge,
    ranges,
    stack,
    starts_of,
    sums,
)
from dragoman.data.store import EncodedSide
from dragoman.data.tokenizers import EOS
from dragoman.data.tokenizers.sampling import Sampler
from dragoman.errors import DragomanError

_SRC, _TGT, _SELECT = 0, 1, 2  # what a draw is for

SamplerFactory = Callable[[Sequence[str]], Sampler]


class _Side:
    """One side of a mixture: units numbered through all corpora, their tokens, their sampler."""

    def __init__(
        self, stored: Sequence[EncodedSide], tags: Sequence[int], factory: SamplerFactory | None
    ) -> None:
        self._stored, self._tags = stored, np.array(tags, np.int64)
        self.pairs_before = np.cumsum([0] + [len(side.sentences) for side in stored])
        self._units_before = np.cumsum([0] + [len(side.counts) for side in stored])
        # Of one corpus this is the file itself: nothing is read that is not asked for.
        self.lengths = (
            stored[0].lengths
            if len(stored) == 1
            else np.concatenate([side.lengths for side in stored])
        )
        pieces = np.concatenate([side.pieces.flat for side in stored])
        sizes = [np.diff(side.pieces.offsets.astype(np.int64)) for side in stored]
        self._pieces = Table.of(Ragged(pieces, np.concatenate(sizes)))
        self.sampler: Sampler | None = None
        if factory is not None:
            # A word that several corpora share is built once.
            words: dict[str, int] = {}
            numbers = [words.setdefault(unit, len(words)) for s in stored for unit in s.types()]
            self._word_of_unit = np.array(numbers, np.int64)
            self.sampler = factory(list(words))

    def corpus_of(self, pairs: IntArray) -> IntArray:
        """Return the number of each pair's corpus."""
        return np.searchsorted(self.pairs_before, pairs, side="right") - 1

    def tags(self, pairs: IntArray) -> IntArray:
        """Return the tag id put before each pair, -1 without."""
        tags: IntArray = self._tags[self.corpus_of(pairs)]
        return tags

    def extra(self, pairs: IntArray) -> IntArray:
        """Return how many tokens are added to each row: EOS and a tag."""
        return 1 + (self.tags(pairs) >= 0)

    def units(self, pairs: IntArray) -> Ragged:
        """Return the unit numbers of pairs."""
        if len(self._stored) == 1:
            return self._stored[0].sentences.rows(pairs)
        corpus, found = self.corpus_of(pairs), []
        for number, side in enumerate(self._stored):
            units = side.sentences.rows(pairs[corpus == number] - self.pairs_before[number])
            found.append(Ragged(units.flat + self._units_before[number], units.lengths))
        # Where each pair is among those found.
        return Table.of(stack(found)).rows(np.argsort(np.argsort(corpus, kind="stable")))

    def draw(self, pairs: IntArray, states: NDArray[np.uint64], longest: IntArray) -> Ragged:
        """Return the tokens drawn for pairs, each from its state.

        Those that come out over ``longest`` are not drawn.
        """
        units = self.units(pairs)
        if self.sampler is None:
            tokens = self._pieces.rows(units.flat)
        else:
            position = ranges(np.zeros_like(units.lengths), units.lengths).astype(np.uint64)
            keys = absorb(np.repeat(states, units.lengths), position)
            tokens = self.sampler.sample(self._word_of_unit[units.flat], keys)
            over = np.repeat(sums(tokens.lengths, units.lengths) > longest, units.lengths)
            if over.any():
                tokens = merge(over, self._pieces.rows(units.flat[over]), tokens)
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
        corpora: Sequence[tuple[EncodedSide, EncodedSide]],
        *,
        weights: Sequence[float],
        tag_ids: Sequence[int | None],
        max_length: int,
        seed: int,
        samplers: tuple[SamplerFactory | None, SamplerFactory | None] = (None, None),
    ) -> None:
        """Filter the pairs: one pass over the memory-mapped arrays.

        Args:
            corpora: source and target side of each; at least one.
            weights: per corpus; how often each pair is seen per epoch.
            tag_ids: per corpus; id put before every source sentence, or None.
            max_length: longest side kept, in deterministic tokens, EOS and tag included.
            seed: of every draw.
            samplers: build the subword samplers of source and target (``make_sampler``), or None.

        Raises:
            DragomanError: naming ``data.corpora`` or ``data.max_length`` if no pair is kept.
        """
        assert len(corpora) == len(weights) == len(tag_ids) > 0
        self._seed, self._max_length, self._weights = seed, max_length, weights
        tags = ([-1 if tag is None else tag for tag in tag_ids], [-1] * len(corpora))
        stored = zip(*corpora, strict=True)
        self._sides = [_Side(*parts) for parts in zip(stored, tags, samplers, strict=True)]
        self._before = self._sides[_SRC].pairs_before
        total, empty, kept = int(self._before[-1]), 0, []
        for pairs in chunks(total):
            src, tgt = (side.lengths[pairs].astype(np.int64) for side in self._sides)
            full = (src > 0) & (tgt > 0)
            empty += int((~full).sum())
            fits = [
                lengths + side.extra(pairs) <= max_length
                for side, lengths in zip(self._sides, (src, tgt), strict=True)
            ]
            kept.append(pairs[full & fits[_SRC] & fits[_TGT]])
        self._kept = np.concatenate(kept)
        self.counts = {
            "pairs": total,
            "empty": empty,
            "too_long": total - empty - len(self._kept),
            "kept": len(self._kept),
        }
        if total == empty:
            raise DragomanError(
                f"data.corpora: none of the {total} training pairs has words on both sides"
            )
        if not len(self._kept):
            raise DragomanError(
                f"data.max_length: none of the {total} training pairs has at most {max_length} "
                f"tokens a side ({self.counts['too_long']} are too long, {empty} empty)"
            )

    @property
    def num_tokens(self) -> int:
        """Deterministic tokens of both sides of an epoch, EOS and tags not counted."""
        pairs = self.pairs_of(self.epoch_pairs(0))
        return sum(int(side.lengths[pairs].sum(dtype=np.int64)) for side in self._sides)

    def pairs_of(self, entries: IntArray) -> IntArray:
        """Return the pair that each entry of an epoch is a copy of."""
        return entries % self.counts["pairs"]

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
        src, tgt = (np.empty(len(entries), np.int32) for _ in self._sides)
        for places in chunks(len(entries)):
            part = entries[places]
            pairs = self.pairs_of(part)
            for number, (side, found) in enumerate(zip(self._sides, (src, tgt), strict=True)):
                drawn = side.sampler is not None
                lengths = self._draw(number, part, epoch).lengths if drawn else side.lengths[pairs]
                found[places] = lengths + side.extra(pairs)
        return src, tgt

    def rows(self, entries: IntArray, epoch: int) -> tuple[Ragged, Ragged]:
        """Return source and target token ids of entries as drawn for an epoch.

        Both end in EOS; the source begins with its corpus's tag, if any; the target has no BOS.
        """
        return self._row(_SRC, entries, epoch), self._row(_TGT, entries, epoch)

    def _draw(self, number: int, entries: IntArray, epoch: int) -> Ragged:
        side, pairs = self._sides[number], self.pairs_of(entries)
        states = absorb(np.zeros((), np.uint64), self._seed, epoch, number, entries)
        return side.draw(pairs, states, self._max_length - side.extra(pairs))

    def _row(self, number: int, entries: IntArray, epoch: int) -> Ragged:
        tokens, pairs = self._draw(number, entries, epoch), self.pairs_of(entries)
        tags = self._sides[number].tags(pairs)
        extra = 1 + (tags >= 0)
        lengths = tokens.lengths + extra
        flat, starts = np.full(int(lengths.sum()), EOS, np.int64), starts_of(lengths)
        flat[ranges(starts + extra - 1, tokens.lengths)] = tokens.flat
        flat[starts[tags >= 0]] = tags[tags >= 0]
        return Ragged(flat, lengths)
