"""Transformers for CTranslate2 (https://github.com/OpenNMT/CTranslate2).

CTranslate2 computes its own Transformer from named weights, so an export says which of its options
each key of the run is, and hands the weights over in its layout. What it has no option for is
refused by name.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from dragoman.config import Config, TransformerConfig
from dragoman.data.tokenizers import BOS, EOS, PAD, SPECIALS, UNK
from dragoman.decoding.translator import Translator
from dragoman.export.limits import model_limits, refuse, require, search_limits
from dragoman.export.usage import longest_targets, usage_files
from dragoman.models.positions import T5Positions, sinusoids

# Longest source that CTranslate2 takes unless it is told otherwise.
_LONGEST = 1024
# As good as never, and still a number in half precision.
_FORBIDDEN = -1e4
_ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "swiglu": "SWISH"}
# What it can compute, by key of the model.
_ACCEPTED = {
    "attention": ("dot", "scaled_dot", "general"),
    "positions": ("sinusoidal", "learned", "rotary", "shaw", "t5", "none"),
    "activation": tuple(_ACTIVATIONS),
}
# Search settings that it has no option for.
UNSUPPORTED = ("replace_unknown",)
Weights = dict[str, Tensor]


def limits(config: Config) -> list[str]:
    """Return what of a run CTranslate2 cannot compute, a message each."""
    found = model_limits(config, "CTranslate2", "transformer", _ACCEPTED)
    if not found and (config.model.attention, config.model.positions) == ("general", "rotary"):
        # Its matrix stands between queries and keys that are already turned.
        found.append(
            "model.attention: CTranslate2 has no 'general' with model.positions=rotary, expected "
            "dot or scaled_dot"
        )
    return found + search_limits(config, "CTranslate2", UNSUPPORTED)


def export(translator: Translator, quantization: str, origin: str) -> dict[str, bytes]:
    """Return the files of the folder by name.

    Raises:
        DragomanError: if CTranslate2 is not installed or cannot compute the run.
    """
    config = translator.config
    refuse(limits(config))
    require("ctranslate2")
    # Positions for the longest source or target, end mark included.
    longest = max(_LONGEST, config.data.max_length, *longest_targets(config)) + 1
    spec = _model(config.model, _weights(translator), longest)
    for register, tokenizer in (
        (spec.register_source_vocabulary, translator.src_tokenizer),
        (spec.register_target_vocabulary, translator.tgt_tokenizer),
    ):
        register(tokenizer.tokens(range(len(tokenizer))))
    spec.config.unk_token, spec.config.bos_token = SPECIALS[UNK], SPECIALS[BOS]
    spec.config.decoder_start_token, spec.config.eos_token = SPECIALS[BOS], SPECIALS[EOS]
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = torch.nn.LayerNorm(1).eps
    spec.validate()
    spec.optimize(quantization=quantization)
    with tempfile.TemporaryDirectory() as folder:  # it writes to a folder and nowhere else
        spec.save(folder)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return files | usage_files(translator, "ctranslate2", origin, _settings(config, quantization))


def _settings(config: Config, quantization: str) -> dict[str, Any]:
    """Return what the program hands to CTranslate2 itself."""
    decode = config.decode
    search = {
        "beam_size": decode.beam_size if decode.method == "beam" else 1,
        "length_penalty": decode.length_penalty,
        "min_decoding_length": decode.min_length,
        "no_repeat_ngram_size": decode.no_repeat_ngram,
    }
    return {"compute_type": quantization, "end": SPECIALS[EOS], "search": search}


def _weights(translator: Translator) -> Weights:
    """Return copies of all parameters in float32 on the CPU; a tied one under each of its names."""
    state = cast(nn.Module, translator.models[0]).state_dict()
    # Copies: CTranslate2 rounds to int8 in place.
    return {name: w.detach().cpu().float().clone() for name, w in state.items()}


def _model(c: TransformerConfig, weights: Weights, longest: int) -> Any:
    from ctranslate2 import specs

    options: dict[str, Any] = {
        "pre_norm": c.norm == "pre",
        "activation": getattr(specs.Activation, _ACTIVATIONS[c.activation]),
        "ffn_glu": c.activation == "swiglu",
        "relative_position": c.positions == "shaw",
        "relative_attention_bias": c.positions == "t5",
        "rotary_dim": 0 if c.positions == "rotary" else None,  # 0: all of a head
    }
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(c.encoder_layers, c.num_heads, **options),
        specs.TransformerDecoderSpec(c.decoder_layers, c.num_heads, **options),
    )
    for name, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        if c.norm == "pre":
            _norm(stack.layer_norm, weights, f"{name}.norm")
        if c.positions in ("sinusoidal", "learned", "none"):
            stack.position_encodings.encodings = _table(c, weights, name, longest)
        for number, layer in enumerate(stack.layer):
            _layer(layer, c, weights, f"{name}.layers.{number}", f"{name}.positions")
    spec.encoder.embeddings[0].weight = weights["src_embedding.weight"]
    spec.decoder.embeddings.weight = weights["tgt_embedding.weight"]
    spec.decoder.projection.weight = weights["output.weight"]
    # Dragoman's search never takes these two; CTranslate2's knows nothing of them.
    bias = weights["output.bias"].clone()
    bias[[PAD, BOS]] = _FORBIDDEN
    spec.decoder.projection.bias = bias
    return spec


def _table(c: TransformerConfig, weights: Weights, stack: str, longest: int) -> Tensor:
    """Return what is added to the embeddings at every position (longest, D).

    CTranslate2's own sinusoids are others, so they are written down like learned ones.
    """
    if c.positions == "sinusoidal":
        return sinusoids(torch.arange(longest), c.d_model).float()
    if c.positions == "learned":
        rows = torch.arange(longest).clamp(max=c.max_positions - 1)
        return weights[f"{stack}.positions.0.table"][rows]
    return torch.zeros(longest, c.d_model)


def _layer(layer: Any, c: TransformerConfig, weights: Weights, name: str, positions: str) -> None:
    _attention(layer.self_attention, c, weights, f"{name}.self_attention", f"{name}.self_residual")
    if hasattr(layer, "attention"):
        _attention(layer.attention, c, weights, f"{name}.cross_attention", f"{name}.cross_residual")
    if c.positions == "shaw":
        number = name.rpartition(".")[2]
        # It scales these vectors as it scales the keys; for us they are always q . a / sqrt(A).
        scale = 1.0 if c.attention == "scaled_dot" else (c.d_model // c.num_heads) ** -0.5
        vectors = weights[f"{positions}.{number}.vectors"] * scale
        layer.self_attention.relative_position_keys = vectors
        del layer.self_attention.relative_position_values
    if c.positions == "t5":
        layer.self_attention.relative_attention_bias = weights[f"{positions}.0.table"].t()
        layer.self_attention.relative_attention_max_distance = torch.tensor(
            T5Positions.max_distance, dtype=torch.int32
        )
    inner, outer = f"{name}.feed_forward.inner", f"{name}.feed_forward.outer"
    if c.activation == "swiglu":
        _linear(layer.ffn.linear_0, weights, inner, slice(0, c.d_ff))
        _linear(layer.ffn.linear_0_noact, weights, inner, slice(c.d_ff, None))
    else:
        _linear(layer.ffn.linear_0, weights, inner)
    _linear(layer.ffn.linear_1, weights, outer)
    _norm(layer.ffn.layer_norm, weights, f"{name}.feed_residual.norm")


def _attention(spec: Any, c: TransformerConfig, weights: Weights, name: str, residual: str) -> None:
    """Fill in self-attention (one matrix for q, k and v) or cross-attention (q; k and v)."""
    qkv = {f"qkv.{part}": weights[f"{name}.qkv.{part}"].clone() for part in ("weight", "bias")}
    if c.attention == "general":
        # W (U x + b) is (W U) x + W b: the score's matrix moves into the projection of the keys.
        heads = weights[f"{name}.score.weight_HAA"]
        keys = slice(c.d_model, 2 * c.d_model)
        for part in qkv.values():
            split = part[keys].view(c.num_heads, c.d_model // c.num_heads, -1)
            part[keys] = (heads @ split).reshape(part[keys].shape)
    if c.attention != "scaled_dot":
        spec.queries_scale = 1.0
    first = slice(None) if len(spec.linear) == 2 else slice(0, c.d_model)
    _linear(spec.linear[0], qkv, "qkv", first)
    if len(spec.linear) == 3:
        _linear(spec.linear[1], qkv, "qkv", slice(c.d_model, None))
    _linear(spec.linear[-1], weights, f"{name}.out")
    _norm(spec.layer_norm, weights, f"{residual}.norm")


def _linear(spec: Any, weights: Weights, name: str, rows: slice = slice(None)) -> None:
    spec.weight, spec.bias = weights[f"{name}.weight"][rows], weights[f"{name}.bias"][rows]


def _norm(spec: Any, weights: Weights, name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]
