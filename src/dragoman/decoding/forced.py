"""Given both sides: what a model says of a translation it did not search for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dragoman.data.batching import Batch
from dragoman.decoding.ensemble import mean_log_prob
from dragoman.models.seq2seq import Seq2Seq, Weights


@torch.no_grad()
def log_probabilities(models: Sequence[Seq2Seq], batch: Batch) -> Tensor:
    """Return the log-probability (B,) of each target sentence, EOS included, in float64."""
    log_probs = mean_log_prob([model.project(model(batch)).log_softmax(-1) for model in models])
    tokens = log_probs.gather(1, batch.targets_N[:, None])[:, 0].to(torch.float64)
    row_N = torch.arange(len(batch.src_BS), device=tokens.device).repeat_interleave(
        batch.tgt_lengths_B
    )
    return tokens.new_zeros(len(batch.src_BS)).index_add(0, row_N, tokens)


@torch.no_grad()
def attention_weights(model: Seq2Seq, batch: Batch) -> Weights:
    """Return the weights (B, H, T, S) of every attention of the model, by name."""
    weights: Weights = {}
    model(batch, weights=weights)
    return weights


def word_attention(model: Seq2Seq, weights: Weights) -> Tensor | None:
    """Return the mean (B, T, S) over the heads of the attention that aligns words, or None."""
    name = model.alignment_layer
    return None if name is None else weights[name].mean(1)
