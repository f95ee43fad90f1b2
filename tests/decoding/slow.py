"""Search written down the slow way: plain lists, no cache, the whole prefix run at every step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import tiny
from dragoman.config import DecodeConfig
from dragoman.data.batching import Batch
from dragoman.data.tokenizers import BOS, EOS, PAD, UNK
from dragoman.decoding.ensemble import mean_log_prob
from dragoman.decoding.search import Hypothesis


def next_log_probs(models: Sequence[Any], source: list[int], prefixes: list[list[int]]) -> Tensor:
    """Return log-probabilities (prefixes, V) of what follows prefixes of one length."""
    batch = tiny.pairs([source] * len(prefixes), [[*prefix, EOS] for prefix in prefixes])
    probabilities: Tensor | float = 0.0
    for model in models:
        logits = model.project(model(batch)).view(len(prefixes), len(prefixes[0]) + 1, -1)
        probabilities = probabilities + logits[:, -1].softmax(-1) / len(models)
    assert isinstance(probabilities, Tensor)
    return probabilities.log()


@torch.no_grad()
def log_probabilities(models: Sequence[Any], batch: Batch) -> Tensor:
    """Return the log-probability (B,) of each target sentence, EOS included, in float64."""
    log_probs = mean_log_prob([model.project(model(batch)).log_softmax(-1) for model in models])
    tokens = log_probs.gather(1, batch.targets_N[:, None])[:, 0].to(torch.float64)
    row_N = torch.arange(len(batch.src_BS), device=tokens.device).repeat_interleave(
        batch.tgt_lengths_B
    )
    return tokens.new_zeros(len(batch.src_BS)).index_add(0, row_N, tokens)


def penalty(length: int, config: DecodeConfig) -> float:
    """Return the length penalty of a sentence of ``length`` tokens, EOS counted."""
    if config.length_penalty_form == "gnmt":
        return math.pow(5 + length, config.length_penalty) / math.pow(6, config.length_penalty)
    return math.pow(length, config.length_penalty)


def longest(source: list[int], config: DecodeConfig) -> int:
    """Return the most tokens a translation may have, EOS not counted."""
    return max(1, int((len(source) - 1) * config.max_length_ratio + config.max_length_extra))


def repeats(tokens: list[int], size: int) -> bool:
    """Whether an n-gram of this size stands in the sentence twice."""
    grams = [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]
    return len(set(grams)) < len(grams)


def allowed(prefix: list[int], source: list[int], config: DecodeConfig, vocab: int) -> list[int]:
    """Return the tokens that may follow."""
    most = longest(source, config)
    if len(prefix) >= most:
        return [EOS]
    words = [token for token in range(vocab) if token not in (PAD, BOS, EOS)]
    if config.no_repeat_ngram:
        words = [w for w in words if not repeats([*prefix, w], config.no_repeat_ngram)]
    may_end = len(prefix) >= min(config.min_length, most) or not words
    return [*words, EOS] if may_end else words


@torch.no_grad()
def greedy(models: Sequence[Any], source: list[int], config: DecodeConfig) -> list[int]:
    """Take the likeliest token until the end mark."""
    prefix: list[int] = []
    while True:
        row = next_log_probs(models, source, [prefix])[0]
        token = max(allowed(prefix, source, config, len(row)), key=lambda t: float(row[t]))
        if token == EOS:
            return prefix
        prefix.append(token)


@torch.no_grad()
def beam(models: Sequence[Any], source: list[int], config: DecodeConfig) -> list[Hypothesis]:
    """Beam search over sorted lists, with both stopping rules; a beam of one is greedy."""
    opened: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[Hypothesis] = []
    while opened:
        rows = next_log_probs(models, source, [prefix for _, prefix in opened])
        extensions = [
            (total + float(row[token]), [*prefix, token])
            for (total, prefix), row in zip(opened, rows, strict=True)
            for token in allowed(prefix, source, config, len(row))
        ]
        extensions.sort(key=lambda extension: -extension[0])
        opened = []
        if config.beam_size == 1:
            del extensions[1:]
        for rank, (total, tokens) in enumerate(extensions):
            if tokens[-1] != EOS:
                opened.append((total, tokens))
            elif rank < config.beam_size:
                done.append(Hypothesis(tokens[:-1], total, total / penalty(len(tokens), config)))
        del opened[config.beam_size :]
        done.sort(key=lambda hypothesis: -hypothesis.score)
        if opened and len(done) >= config.nbest:
            if config.stopping == "first" and len(done) >= config.beam_size:
                break
            best = max(total for total, _ in opened) / penalty(longest(source, config) + 1, config)
            if config.stopping == "bound" and done[config.nbest - 1].score >= best:
                break
    return done[: config.nbest]


def everything(vocab: int, most: int) -> Iterator[list[int]]:
    """Yield every sentence of at most ``most`` tokens."""
    words = [token for token in range(vocab) if token not in (PAD, BOS, EOS)]
    for length in range(most + 1):
        for tokens in itertools.product(words, repeat=length):
            yield list(tokens)


class Table(NamedTuple):
    """The memory of ``Markov``: the first source token of every row."""

    first_B: Tensor


class Markov(nn.Module):
    """A model of the contract made of a table: logits follow from source and previous token."""

    def __init__(self, logits_SVV: Tensor) -> None:
        super().__init__()
        self.logits_SVV = logits_SVV

    def encode(self, src_BS: Tensor, src_lengths_B: Tensor, weights: Any = None) -> Table:
        return Table(src_BS[:, 0])

    def init_state(self, memory: Table) -> Table:
        return Table(memory.first_B.new_zeros(len(memory.first_B)))

    def decode_step(
        self, token_B: Tensor, state: Table, memory: Table, weights: Any = None
    ) -> tuple[Tensor, Table]:
        first_R = memory.first_B.repeat_interleave(len(token_B) // len(memory.first_B))
        return self.logits_SVV[first_R, token_B], Table(state.first_B + 1)

    def project(self, states: Tensor) -> Tensor:
        return states

    def forward(self, batch: Any, forced: Any = None, weights: Any = None) -> Tensor:
        first_BT = batch.src_BS[:, :1].expand_as(batch.tgt_in_BT)
        return self.logits_SVV[first_BT, batch.tgt_in_BT][batch.tgt_mask_BT]


def markov(sources: int = 12, vocab: int = 8, seed: int = 0, spread: float = 2.0) -> Markov:
    """Return a random one."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(sources, vocab, vocab, generator=generator, dtype=torch.float64)
    logits = spread * drawn
    logits[:, :, [UNK, EOS]] -= 1
    return Markov(logits)
