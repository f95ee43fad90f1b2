"""Tiny models and batches for tests, and the zoo of configs that tests are parametrised over."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dragoman.config import DecodeConfig, RNNConfig, TransformerConfig
from dragoman.data.batching import Batch, collate
from dragoman.data.ragged import ragged
from dragoman.data.tokenizers import EOS, SPECIALS
from dragoman.models.attention import SCORES
from dragoman.models.positions import POSITIONS
from dragoman.models.seq2seq import build_model

VOCAB = 12


def rnn(**changes: Any) -> RNNConfig:
    """Return a small recurrent config without dropout."""
    return dataclasses.replace(RNNConfig(d_embed=6, d_model=8, dropout=0.0), **changes)


def transformer(**changes: Any) -> TransformerConfig:
    """Return a small Transformer config without dropout; two layers, so that layers can differ."""
    base = TransformerConfig(
        d_model=8,
        num_heads=2,
        encoder_layers=2,
        decoder_layers=2,
        d_ff=12,
        dropout=0.0,
        max_positions=5,
    )
    return dataclasses.replace(base, **changes)


def _zoo() -> dict[str, Any]:
    zoo: dict[str, Any] = {}
    # Every score with every position encoding, the norms and activations taking turns.
    for number, (score, position) in enumerate((s, p) for s in SCORES for p in POSITIONS):
        norm, activation = ("pre", "post")[number % 2], ("relu", "gelu", "swiglu")[number % 3]
        config = transformer(attention=score, positions=position, norm=norm, activation=activation)
        zoo[f"transformer-{score}-{position}-{norm}-{activation}"] = config
    for tie in ("none", "two_way"):
        zoo[f"transformer-{tie}"] = transformer(tie_embeddings=tie)
    zoo["transformer-depths"] = transformer(encoder_layers=1, decoder_layers=3, norm="post")
    # Every score with every wiring, cell and readout.
    for number, (score, wiring, cell) in enumerate(
        (s, w, c) for s in (*SCORES, "none") for w in ("luong", "bahdanau") for c in ("lstm", "gru")
    ):
        readout = ("tanh", "concat")[(number + number // 2) % 2]
        config = rnn(attention=score, wiring=wiring, cell=cell, readout=readout)
        zoo[f"rnn-{score}-{wiring}-{cell}-{readout}"] = config
    for score in SCORES:
        zoo[f"rnn-{score}-heads"] = rnn(attention=score, attention_dim=6, num_heads=2)
        zoo[f"rnn-{score}-wide-memory"] = rnn(attention=score, encoder_hidden=5)
    zoo["rnn-no-input-feeding"] = rnn(input_feeding=False)
    zoo["rnn-one-direction"] = rnn(bidirectional=False)
    zoo["rnn-copy"] = rnn(bridge="copy", encoder_layers=2, decoder_layers=2)
    zoo["rnn-copy-gru"] = rnn(bridge="copy", cell="gru")
    zoo["rnn-zeros"] = rnn(bridge="zeros", wiring="bahdanau")
    zoo["rnn-deep-encoder"] = rnn(encoder_layers=2, cell="gru")
    zoo["rnn-deep-decoder"] = rnn(decoder_layers=3, wiring="bahdanau")
    zoo["rnn-two_way"] = rnn(tie_embeddings="two_way")
    zoo["rnn-three_way"] = rnn(tie_embeddings="three_way", cell="gru")
    return zoo


ZOO = _zoo()

# A few that differ in everything that matters to search.
FEW = {
    "transformer": transformer(),
    "transformer-additive-t5-post": transformer(attention="additive", positions="t5", norm="post"),
    "transformer-rotary": transformer(positions="rotary", tie_embeddings="none"),
    "lstm": rnn(),
    "gru-bahdanau": rnn(cell="gru", wiring="bahdanau", attention="general", readout="concat"),
    "lstm-no-attention": rnn(attention="none", encoder_layers=2, decoder_layers=2),
}


def build(
    config: Any,
    seed: int = 0,
    vocab: int = VOCAB,
    dtype: torch.dtype = torch.float64,
    noise: float = 0.3,
) -> nn.Module:
    """Build a model in evaluation mode; ``noise`` on every parameter leaves no bias at zero."""
    model = build_model(config, vocab, vocab, seed=seed).to(torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * drawn)
    return model.to(dtype).eval()


def sentences(lengths: Sequence[int], seed: int = 0, vocab: int = VOCAB) -> list[list[int]]:
    """Return random sentences of these many words, each with EOS behind."""
    draws = np.random.default_rng(seed)
    return [[*draws.integers(len(SPECIALS), vocab, n).tolist(), EOS] for n in lengths]


def batch(src: Sequence[int], tgt: Sequence[int], seed: int = 0, vocab: int = VOCAB) -> Batch:
    """Return random sentence pairs of these many words; EOS comes on top."""
    return pairs(sentences(src, seed, vocab), sentences(tgt, seed + 1, vocab))


def pairs(src: Sequence[Sequence[int]], tgt: Sequence[Sequence[int]]) -> Batch:
    """Return a batch of given rows, which end in EOS."""
    return collate(ragged(src), ragged(tgt))


def pick(full: Batch, rows: Sequence[int]) -> Batch:
    """Return a batch of some rows of another, padded no more than they need."""
    starts = (full.tgt_lengths_B.cumsum(0) - full.tgt_lengths_B).tolist()
    src = [full.src_BS[b, : full.src_lengths_B[b]].tolist() for b in rows]
    tgt = [full.targets_N[starts[b] : starts[b] + int(full.tgt_lengths_B[b])] for b in rows]
    return pairs(src, [row.tolist() for row in tgt])


def decode(**changes: Any) -> DecodeConfig:
    """Return a search config: short outputs, everything else as by default."""
    return dataclasses.replace(DecodeConfig(max_length_ratio=0.0, max_length_extra=6), **changes)


def fluent(name: str, vocab: int = VOCAB, steps: int = 80) -> nn.Module:
    """Return one of ``FEW`` in float64, half-trained to copy: outputs follow from the source.

    Random weights say much the same of every source; these do not, and are still unsure. It is the
    caller's own: changing it changes nobody else's.
    """
    return copy.deepcopy(_fluent(name, vocab, steps))


@lru_cache
def _fluent(name: str, vocab: int, steps: int) -> nn.Module:
    model = build_model(FEW[name], vocab, vocab, seed=1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        rows = sentences([(step + n) % 6 + 1 for n in range(16)], step, vocab)
        data = pairs(rows, rows)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.project(model(data)), data.targets_N).backward()
        optimizer.step()
    return model.double().eval()


class RowsOfOneDNN(TorchDispatchMode):
    """Notes how many rows its products have."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[int] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op.namespace == "mkldnn":
            self.found.append(len(args[0]))
        return op(*args, **(kwargs or {}))
