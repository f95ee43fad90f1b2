"""Given both sides: what a model says of a translation it did not search for."""

from __future__ import annotations

import torch
from torch import Tensor

from dragoman.data.batching import Batch
from dragoman.models.seq2seq import Seq2Seq, Weights


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
