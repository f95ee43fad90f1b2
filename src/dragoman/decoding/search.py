"""Greedy, beam and sampling search over the model contract, for every model and ensemble.

Shapes: B sentences, K hypotheses a sentence, V vocabulary; rows are sentence-major (B * K).

One loop serves all three. At every step a sentence's open hypotheses are extended. Of the K best
extensions those that end in EOS are finished; the K best others go on, so that the beam stays full.
Greedy search is a beam of one that goes no further once it has ended; sampling draws one extension
of each hypothesis. A sentence without open hypotheses, or whose open ones can no longer win, leaves
the batch. At its longest length a hypothesis must end: only EOS is allowed there, at its own
probability, so every score is the model's score of the whole sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dragoman.config import DecodeConfig
from dragoman.data.draws import uniforms
from dragoman.data.tokenizers import BOS, EOS, PAD
from dragoman.decoding.ensemble import Ensemble
from dragoman.errors import DragomanError
from dragoman.models.seq2seq import Seq2Seq, reorder


class Hypothesis(NamedTuple):
    """A finished translation: tokens without EOS, log-probability with it, and the final score."""

    tokens: list[int]
    log_prob: float
    score: float


def length_penalty(length: float, alpha: float, form: str) -> float:
    """Return what a log-probability is divided by; ``length`` counts the end mark.

    ``gnmt``: ((5 + n) / 6)^alpha (Wu et al. 2016, equation 14); ``power``: n^alpha.
    """
    return float(((5 + length) / 6) ** alpha if form == "gnmt" else length**alpha)


def block_repeats(log_probs: Tensor, history: Tensor, size: int) -> None:
    """Forbid, in place, tokens that would complete an n-gram already in ``history`` (rows, t)."""
    if history.shape[1] < size:
        return
    windows = history.unfold(1, size, 1)
    tail = history[:, history.shape[1] - size + 1 :]
    seen = (windows[:, :, :-1] == tail[:, None]).all(-1)
    rows, places = seen.nonzero(as_tuple=True)
    log_probs[rows, windows[rows, places, -1]] = -math.inf


def truncate(log_probs: Tensor, top_k: int, top_p: float) -> Tensor:
    """Keep the ``top_k`` likeliest tokens and the smallest set of probability ``top_p``.

    Nucleus sampling: Holtzman et al. 2020, section 3.1.
    """
    if not top_k and top_p == 1:
        return log_probs  # all of them: to sort them would take longer than to find them
    ordered, order = log_probs.sort(-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    drop = before >= top_p
    if top_k:
        drop[:, top_k:] = True
    return torch.empty_like(log_probs).scatter_(-1, order, ordered.masked_fill(drop, -math.inf))


class _Search:
    """The search of one batch. Rows of finished sentences are taken out as it goes."""

    def __init__(
        self,
        models: Sequence[Seq2Seq],
        src_BS: Tensor,
        src_lengths_B: Tensor,
        config: DecodeConfig,
        numbers: Sequence[int],
    ) -> None:
        self.config, self.device = config, src_BS.device
        self.sampling = config.method == "sample"
        self.width = {"greedy": 1, "beam": config.beam_size, "sample": config.nbest}[config.method]
        self.model = Ensemble(models)
        batch = src_BS.shape[0]
        self.done: list[list[Hypothesis]] = [[] for _ in range(batch)]
        # What decides is looked up sentence by sentence, so it is kept where Python is: asking a
        # GPU for one number costs as much as for all of them.
        self.active = list(range(batch))
        self.numbers = np.asarray(numbers)
        # EOS is not part of the source the ratio speaks of.
        lengths = (src_lengths_B - 1) * config.max_length_ratio + config.max_length_extra
        self.longest_B = lengths.long().clamp(min=1)
        self.longest: list[int] = self.longest_B.tolist()  # the same, where Python is
        # A sentence's hypotheses share its memory.
        self.memories = self.model.encode(src_BS, src_lengths_B)
        rows = torch.arange(batch, device=self.device).repeat_interleave(self.width)
        self.states = reorder(self.model.init_state(self.memories), rows)
        self.tokens = torch.full((batch * self.width,), BOS, device=self.device)
        self.history = self.tokens.new_zeros(batch * self.width, 0)
        # Doubles: a sum of forty float32 terms would lose the digits that break ties.
        self.scores = torch.zeros(batch, self.width, dtype=torch.float64, device=self.device)
        if not self.sampling:
            self.scores[:, 1:] = -math.inf  # all hypotheses are equal before the first step

    def run(self) -> list[list[Hypothesis]]:
        """Search to the end; return hypotheses per sentence, best first."""
        while len(self.active):
            self._advance()
        for found in self.done:
            found.sort(key=lambda hypothesis: -hypothesis.score)
        return [found[: self.config.nbest] for found in self.done]

    def _constrain(self, log_probs: Tensor) -> Tensor:
        """Return log-probabilities (rows, V) with everything forbidden at -inf, in place."""
        config, length = self.config, self.history.shape[1]
        log_probs[:, PAD] = -math.inf
        log_probs[:, BOS] = -math.inf
        longest = self.longest_B.repeat_interleave(self.width)
        ending = log_probs[:, EOS].clone()
        if config.no_repeat_ngram:
            block_repeats(log_probs, self.history, config.no_repeat_ngram)
        if length < config.min_length:
            log_probs[longest > length, EOS] = -math.inf
        if length >= min(self.longest):
            late = length >= longest
            log_probs[late] = -math.inf
            log_probs[late, EOS] = ending[late]
        if config.no_repeat_ngram or length < config.min_length:
            # N-gram blocking can forbid everything: then the sentence ends, even so early.
            stuck = (log_probs == -math.inf).all(-1)
            log_probs[stuck, EOS] = ending[stuck]
        return log_probs

    def _extend(self, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose extensions per sentence: log-probability, parent in 0..K-1 and token.

        A beam gets (B, 2 K) of them, best first: K may end, and K are to go on. Greedy search and
        sampling get (B, K), one for each hypothesis.
        """
        batch, vocab = len(self.active), log_probs.shape[1]
        if not self.sampling:
            # No hypothesis can have more among them than K and its end.
            best, token = log_probs.topk(min(self.width + 1, vocab) if self.width > 1 else 1)
            totals = self.scores[:, :, None] + best.view(batch, self.width, -1)
            chosen, flat = totals.flatten(1).topk(2 * self.width if self.width > 1 else 1)
            token = token.view(batch, -1).gather(1, flat)
            return chosen, flat // best.shape[1], token
        shaped = truncate(log_probs / self.config.temperature, self.config.top_k, self.config.top_p)
        # Each draw follows from (seed, sentence, sample, step), whatever else is in the batch.
        draws = uniforms(
            self.config.seed,
            self.numbers[self.active][:, None],
            np.arange(self.width)[None, :],
            self.history.shape[1],
        )
        targets = torch.from_numpy(draws).to(self.device).view(-1, 1)
        cumulative = shaped.softmax(-1).cumsum(-1)
        token = torch.searchsorted(cumulative, targets * cumulative[:, -1:], right=True)
        token = token.clamp(max=vocab - 1)
        gained = log_probs.gather(-1, token).view(batch, self.width)
        parent = torch.arange(self.width, device=self.device).expand(batch, -1)
        return self.scores + gained, parent, token.view(batch, self.width)

    def _advance(self) -> None:
        log_probs, states = self.model.step(self.tokens, self.states, self.memories)
        totals, parent, token = self._extend(self._constrain(log_probs))
        ended = (token == EOS) & (totals > -math.inf)
        self._finish(ended[:, : self.width], parent, totals)
        self.scores = totals.masked_fill(ended, -math.inf)
        if self.scores.shape[1] > self.width:
            self.scores, chosen = self.scores.topk(self.width)
            parent, token = parent.gather(1, chosen), token.gather(1, chosen)
            offset = torch.arange(len(self.active), device=self.device)[:, None] * self.width
            rows = (offset + parent).flatten()
            # Greedy hypotheses and samples stay in their rows, a beam's do not.
            states, self.history = reorder(states, rows), self.history[rows]
        self.history = torch.cat([self.history, token.flatten()[:, None]], 1)
        self.tokens, self.states = token.flatten(), states
        self._leave()

    def _penalty(self, length: float) -> float:
        return length_penalty(length, self.config.length_penalty, self.config.length_penalty_form)

    def _finish(self, ended: Tensor, parent: Tensor, totals: Tensor) -> None:
        """Keep the hypotheses whose extension has ended: (B, K), True where one has."""
        sentences, places = ended.nonzero(as_tuple=True)
        rows = sentences * self.width + parent[sentences, places]
        found = (sentences, self.history[rows], totals[sentences, places])
        for sentence, tokens, log_prob in zip(*(x.tolist() for x in found), strict=True):
            score = log_prob / self._penalty(len(tokens) + 1)
            self.done[self.active[sentence]].append(Hypothesis(tokens, log_prob, score))

    def _decided(self, sentence: int, open_score: float) -> bool:
        """Whether a sentence's search is over."""
        if open_score == -math.inf:
            return True
        found = self.done[self.active[sentence]]
        if self.sampling or len(found) < self.config.nbest:
            return False
        if self.config.stopping == "first":
            return len(found) >= self.width
        # Scores only fall, and the penalty is largest at the longest length: an upper bound.
        bound = open_score / self._penalty(self.longest[sentence] + 1)
        return sorted((h.score for h in found), reverse=True)[self.config.nbest - 1] >= bound

    def _leave(self) -> None:
        """Take sentences whose search is over out of the batch."""
        open_scores = self.scores.max(1).values.tolist()
        if any(map(math.isnan, open_scores)):  # would be neither over nor ever decided
            raise DragomanError("the model's probabilities are not numbers: are its weights?")
        keep = [b for b, score in enumerate(open_scores) if not self._decided(b, score)]
        if len(keep) == len(self.active):
            return
        kept = torch.tensor(keep, dtype=torch.long, device=self.device)
        slots = torch.arange(self.width, device=self.device)
        rows = (kept[:, None] * self.width + slots).flatten()
        self.active = [self.active[b] for b in keep]
        self.longest = [self.longest[b] for b in keep]
        self.longest_B, self.scores = self.longest_B[kept], self.scores[kept]
        self.tokens, self.history = self.tokens[rows], self.history[rows]
        self.states, self.memories = reorder(self.states, rows), reorder(self.memories, kept)


@torch.no_grad()
def search(
    models: Sequence[Seq2Seq],
    src_BS: Tensor,
    src_lengths_B: Tensor,
    config: DecodeConfig,
    numbers: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Translate a batch of source rows that end in EOS.

    Args:
        models: one model, or several whose probabilities are averaged.
        src_BS: source ids, padded on the right.
        src_lengths_B: real lengths, EOS included.
        config: the search.
        numbers: the sentences' numbers, which sampling draws from; by default 0..B-1.

    Returns:
        Per sentence, at most ``config.nbest`` hypotheses, best first.
    """
    if src_BS.shape[0] == 0:
        return []
    numbers = range(src_BS.shape[0]) if numbers is None else numbers
    return _Search(models, src_BS, src_lengths_B, config, numbers).run()
