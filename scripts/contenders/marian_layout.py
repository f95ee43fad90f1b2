"""Weights of a Marian model (Hugging Face layout) as a Dragoman Transformer's.

Both are post-norm Transformers with sinusoidal positions, scaled embeddings and a bias on the
logits. They differ in names, in one matrix for queries, keys and values against three, and in the
order of the sinusoids: Marian puts all sines before all cosines, Dragoman alternates. Coordinates
of the width have no order of their own, so they are simply dealt anew, everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

PARTS = {
    "self_attn": ("self_attention", "self_residual"),
    "encoder_attn": ("cross_attention", "cross_residual"),
}


def _order(d_model: int) -> Tensor:
    """Return which Marian coordinate stands at each of ours: sine, cosine, sine, ..."""
    return torch.arange(d_model).view(2, -1).t().flatten()


def _attention(
    theirs: Mapping[str, Tensor], old: str, new: str, order: Tensor
) -> Iterator[tuple[str, Tensor]]:
    three = [f"{old}.{kind}_proj" for kind in "qkv"]
    yield f"{new}.qkv.weight", torch.cat([theirs[f"{name}.weight"] for name in three])[:, order]
    yield f"{new}.qkv.bias", torch.cat([theirs[f"{name}.bias"] for name in three])
    yield f"{new}.out.weight", theirs[f"{old}.out_proj.weight"][order]
    yield f"{new}.out.bias", theirs[f"{old}.out_proj.bias"][order]


def _layer(
    theirs: Mapping[str, Tensor], old: str, new: str, order: Tensor
) -> Iterator[tuple[str, Tensor]]:
    norms = {"final_layer_norm": "feed_residual"}
    for part, (attention, residual) in PARTS.items():
        if f"{old}.{part}.q_proj.weight" in theirs:
            yield from _attention(theirs, f"{old}.{part}", f"{new}.{attention}", order)
            norms[f"{part}_layer_norm"] = residual
    for norm, residual in norms.items():
        for kind in ("weight", "bias"):
            yield f"{new}.{residual}.norm.{kind}", theirs[f"{old}.{norm}.{kind}"][order]
    yield f"{new}.feed_forward.inner.weight", theirs[f"{old}.fc1.weight"][:, order]
    yield f"{new}.feed_forward.inner.bias", theirs[f"{old}.fc1.bias"]
    yield f"{new}.feed_forward.outer.weight", theirs[f"{old}.fc2.weight"][order]
    yield f"{new}.feed_forward.outer.bias", theirs[f"{old}.fc2.bias"][order]


def from_marian(theirs: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return the state of a Dragoman Transformer without tied embeddings.

    Args:
        theirs: the ``state_dict`` of a ``MarianMTModel``.
        layers: of the encoder, and as many of the decoder.
    """
    shared = theirs.get("model.shared.weight")
    tables = [
        theirs.get(f"model.{side}.embed_tokens.weight", shared) for side in ("encoder", "decoder")
    ]
    assert tables[0] is not None
    assert tables[1] is not None
    order = _order(tables[0].shape[1])
    ours = {
        "src_embedding.weight": tables[0][:, order],
        "tgt_embedding.weight": tables[1][:, order],
        "output.weight": theirs.get("lm_head.weight", tables[1])[:, order],
        "output.bias": theirs["final_logits_bias"].flatten(),
    }
    for side in ("encoder", "decoder"):
        for layer in range(layers):
            ours.update(
                _layer(theirs, f"model.{side}.layers.{layer}", f"{side}.layers.{layer}", order)
            )
    return {name: tensor.clone() for name, tensor in ours.items()}
