"""The training mixture as token ids, memory-mapped: which pairs, how long, and their rows.

Nothing here is a Python object per sentence: a corpus is a few arrays on disk (``store``), and a
sentence is a number. A corpus's tag begins its sources, to name the language wanted (Johnson et al.
2017, section 3) or text that a model made (Caswell et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from dragoman.data.augmentation import Augmenter, joined
from dragoman.data.draws import absorb, uniforms
from dragoman.data.ragged import (
    IntArray,
    Lengths,
    Ragged,
    Table,
    chunks,
    merge,
    ragged,
    ranges,
    stack,
    starts_of,
    sums,
)
from dragoman.data.store import Encoded
from dragoman.data.tokenizers import EOS, Tokenizer
from dragoman.data.tokenizers.sampling import Sampler
from dragoman.errors import DragomanError

_SRC, _TGT, _SELECT, _VARY = 0, 1, 2, 3  # what a draw is for

Varied = dict[int, tuple[str, list[int]]]  # by place: the text that a sentence has become, encoded


class _Side:
    """One side of a mixture: the tokens of all corpora's pairs, numbered through, and a sampler."""

    def __init__(
        self,
        number: int,
        corpora: Sequence[Encoded],
        tags: Sequence[int],
        sampler: Sampler | None,
    ) -> None:
        self._number, self._corpora, self._tags = number, corpora, np.array(tags, np.int64)
        self._rows = [corpus.sides[number] for corpus in corpora]
        self.pairs_before = np.cumsum([0] + [len(corpus.text) for corpus in corpora])
        self.sampler = sampler

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

    def _by_corpus(self, pairs: IntArray) -> Iterator[tuple[int, NDArray[np.bool_], IntArray]]:
        """Yield the corpora that pairs are of: number, which pairs, and their numbers there."""
        corpus = self.corpus_of(pairs)
        for number in range(len(self._corpora)):
            mine = corpus == number
            yield number, mine, pairs[mine] - self.pairs_before[number]

    def lengths(self, pairs: IntArray) -> IntArray:
        """Return the number of deterministic tokens of pairs."""
        found = np.empty(len(pairs), np.int64)
        for number, mine, own in self._by_corpus(pairs):
            found[mine] = self._rows[number].lengths(own)
        return found

    def tokens(self, pairs: IntArray, varied: Varied) -> Ragged:
        """Return the deterministic tokens of pairs."""
        found = [self._rows[number].rows(own) for number, _, own in self._by_corpus(pairs)]
        tokens = stack(found)
        if len(found) > 1:
            order = np.argsort(self.corpus_of(pairs), kind="stable")
            tokens = Table.of(tokens).rows(np.argsort(order))
        if not varied:
            return tokens
        mask = np.zeros(len(pairs), bool)
        mask[list(varied)] = True
        return merge(mask, ragged([row for _, row in varied.values()]), tokens)

    def lines(self, pairs: IntArray) -> list[str]:
        """Return the text of pairs."""
        found = [""] * len(pairs)
        for number, mine, own in self._by_corpus(pairs):
            lines = self._corpora[number].text.sides[self._number].lines(own)
            for place, line in zip(np.flatnonzero(mine).tolist(), lines, strict=True):
                found[place] = line
        return found

    def draw(
        self, pairs: IntArray, states: NDArray[np.uint64], longest: IntArray, varied: Varied
    ) -> Ragged:
        """Return the tokens drawn for pairs, each from its state.

        Those that come out over ``longest`` are not drawn.
        """
        if self.sampler is None:
            return self.tokens(pairs, varied)
        lines = self.lines(pairs)
        for place, (text, _) in varied.items():
            lines[place] = text
        units = [self.sampler.cutter(line) for line in lines]
        counts = np.fromiter(map(len, units), np.int64, len(units))
        position = ranges(np.zeros_like(counts), counts).astype(np.uint64)
        keys = absorb(np.repeat(states, counts), position)
        drawn = self.sampler.sample(list(chain.from_iterable(units)), keys)
        tokens = Ragged(drawn.flat, sums(drawn.lengths, counts))
        over = tokens.lengths > longest
        if not over.any():
            return tokens
        fixed = Table.of(self.tokens(pairs, varied)).rows(np.flatnonzero(over))
        return merge(over, fixed, tokens)


class TrainingSet:
    """The training mixture: pairs of all corpora, numbered through, as rows of token ids.

    A pair's number, and so what is drawn for it, depends on its place in the corpora alone, not on
    ``max_length`` or on the batch. With subword sampling a sentence that would come out longer than
    ``max_length`` keeps its deterministic tokens in that epoch, so no row is ever longer.

    An epoch holds a pair several times where its corpus weighs more than 1, and each copy draws for
    itself: the copy n (from 0) of pair p is the entry p + n * (number of pairs).

    With an augmenter some entries of an epoch are varied; one that would come out longer than
    ``max_length`` or empty on a side is not.

    ``counts`` says how many pairs there are, are empty on a side, are too long, and are kept.
    """

    def __init__(
        self,
        corpora: Sequence[Encoded],
        *,
        weights: Sequence[float],
        tag_ids: Sequence[int | None],
        max_length: int,
        seed: int,
        samplers: tuple[Sampler | None, Sampler | None] = (None, None),
        left_out: Sequence[NDArray[np.bool_]] | None = None,
        augmenter: Augmenter | None = None,
        tokenizers: Sequence[Tokenizer] = (),
        languages: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Filter the pairs: one pass over the memory-mapped arrays.

        Args:
            corpora: at least one.
            weights: per corpus; how often each pair is seen per epoch.
            tag_ids: per corpus; id put before every source sentence, or None.
            max_length: longest side kept, in deterministic tokens, EOS and tag included.
            seed: of every draw.
            samplers: subword samplers of source and target (``make_sampler``), or None.
            left_out: per corpus; which of its pairs are not to be trained on.
            augmenter: varies some of the pairs; or None.
            tokenizers: of source and target, which encode what is varied.
            languages: per corpus; those of source and target.

        Raises:
            DragomanError: naming ``data.corpora`` or ``data.max_length`` if no pair is kept.
        """
        assert len(corpora) == len(weights) == len(tag_ids) > 0
        self._seed, self._max_length, self._weights = seed, max_length, weights
        self._augmenter, self._tokenizers, self._languages = augmenter, tokenizers, languages
        tags = ([-1 if tag is None else tag for tag in tag_ids], [-1] * len(corpora))
        self._sides = [
            _Side(number, corpora, *own)
            for number, own in enumerate(zip(tags, samplers, strict=True))
        ]
        self._before = self._sides[_SRC].pairs_before
        total, empty, kept = int(self._before[-1]), 0, []
        out = np.concatenate(left_out) if left_out else np.zeros(total, bool)
        for pairs in chunks(total):
            pairs = pairs[~out[pairs]]
            src, tgt = (side.lengths(pairs) for side in self._sides)
            full = (src > 0) & (tgt > 0)
            empty += int((~full).sum())
            fits = [
                lengths + side.extra(pairs) <= max_length
                for side, lengths in zip(self._sides, (src, tgt), strict=True)
            ]
            kept.append(pairs[full & fits[_SRC] & fits[_TGT]])
        self._kept = np.concatenate(kept)
        self._bounds = np.searchsorted(self._kept, self._before)  # of the corpora, among the kept
        self.counts = {
            "pairs": total,
            "left_out": int(out.sum()),
            "empty": empty,
            "too_long": total - int(out.sum()) - empty - len(self._kept),
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
        return sum(int(side.lengths(pairs).sum()) for side in self._sides)

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
        for number, weight in enumerate(self._weights):
            kept = self._kept[self._bounds[number] : self._bounds[number + 1]]
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
            pairs, varied = self.pairs_of(part), self._vary(part, epoch)
            for number, (side, found) in enumerate(zip(self._sides, (src, tgt), strict=True)):
                if side.sampler is None:
                    lengths = side.lengths(pairs)
                    for place, (_, row) in varied[number].items():
                        lengths[place] = len(row)
                else:
                    lengths = self._draw(number, part, epoch, varied[number]).lengths
                found[places] = lengths + side.extra(pairs)
        return src, tgt

    def usual_lengths(self, entries: IntArray) -> tuple[Lengths, Lengths]:
        """Return ``lengths`` as they are without subword sampling."""
        pairs = self.pairs_of(entries)
        src, tgt = (
            (side.lengths(pairs) + side.extra(pairs)).astype(np.int32) for side in self._sides
        )
        return src, tgt

    def rows(self, entries: IntArray, epoch: int) -> tuple[Ragged, Ragged]:
        """Return source and target token ids of entries as drawn for an epoch.

        Both end in EOS; the source begins with its corpus's tag, if any; the target has no BOS.
        """
        src, tgt = self._vary(entries, epoch)
        return self._row(_SRC, entries, epoch, src), self._row(_TGT, entries, epoch, tgt)

    def _vary(self, entries: IntArray, epoch: int) -> tuple[Varied, Varied]:
        """Return what becomes of the entries that are varied in an epoch, source and target."""
        found: tuple[Varied, Varied] = ({}, {})
        if self._augmenter is None:
            return found
        keys = absorb(np.zeros((), np.uint64), self._seed, epoch, _VARY, entries)
        drawn, changes = self._augmenter.draw(keys)
        places = np.flatnonzero(changes.any(axis=1))
        pairs, joins = self.pairs_of(entries[places]), changes[places, -1]
        corpora = self._sides[_SRC].corpus_of(pairs)
        share = drawn[places[joins], -1] / self._augmenter.config.joined  # of none where it is 0
        first, last = self._bounds[corpora[joins]], self._bounds[corpora[joins] + 1]
        partners = self._kept[first + (share * (last - first)).astype(np.int64)]
        texts = [(side.lines(pairs), iter(side.lines(partners))) for side in self._sides]
        most = [self._max_length - side.extra(pairs) for side in self._sides]
        for number, place in enumerate(places.tolist()):
            languages = self._languages[corpora[number]]
            pair = [lines[number] for lines, _ in texts]
            if joins[number]:
                partner = [next(others) for _, others in texts]
                pair = list(map(joined, pair, partner, languages))
            varied = self._augmenter.vary(pair, languages, drawn[place], keys[place])
            rows = [self._tokenizers[side].encode(varied[side]) for side in (_SRC, _TGT)]
            if all(0 < len(rows[side]) <= most[side][number] for side in (_SRC, _TGT)):
                for side in (_SRC, _TGT):
                    found[side][place] = (varied[side], rows[side])
        return found

    def _draw(self, number: int, entries: IntArray, epoch: int, varied: Varied) -> Ragged:
        side, pairs = self._sides[number], self.pairs_of(entries)
        states = absorb(np.zeros((), np.uint64), self._seed, epoch, number, entries)
        return side.draw(pairs, states, self._max_length - side.extra(pairs), varied)

    def _row(self, number: int, entries: IntArray, epoch: int, varied: Varied) -> Ragged:
        tokens, pairs = self._draw(number, entries, epoch, varied), self.pairs_of(entries)
        tags = self._sides[number].tags(pairs)
        extra = 1 + (tags >= 0)
        lengths = tokens.lengths + extra
        flat, starts = np.full(int(lengths.sum()), EOS, np.int64), starts_of(lengths)
        flat[ranges(starts + extra - 1, tokens.lengths)] = tokens.flat
        flat[starts[tags >= 0]] = tags[tags >= 0]
        return Ragged(flat, lengths)
