"""Transformers for CTranslate2 (https://github.com/OpenNMT/CTranslate2).

CTranslate2 computes its own Transformer from named weights, so an export says which of its options
each key of the run is, and hands the weights over in its layout. What it has no option for is
refused by name.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dragoman.config import Config, TransformerConfig
from dragoman.data.tokenizers import BOS, EOS, PAD, SPECIALS, UNK
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError, one_of
from dragoman.export.usage import Usage, check_search
from dragoman.export.weights import Weights, plain_weights, require
from dragoman.models.positions import T5Positions, sinusoids

# Longest source that CTranslate2 takes unless it is told otherwise.
_LONGEST = 1024
# As good as never, and still a number in half precision.
_FORBIDDEN = -1e4
_ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "swiglu": "SWISH"}
_SCORES = ("dot", "scaled_dot", "general")
_POSITIONS = ("sinusoidal", "learned", "rotary", "shaw", "t5", "none")


def check(config: Any) -> None:
    """Refuse what CTranslate2 cannot compute.

    Raises:
        DragomanError: naming the key and what is accepted instead.
    """
    if not isinstance(config, TransformerConfig):
        raise DragomanError(
            f"model.name: CTranslate2 has no model like '{config.name}', expected transformer; "
            "use --format onnx"
        )
    for key, accepted in (
        ("attention", _SCORES),
        ("positions", _POSITIONS),
        ("activation", _ACTIVATIONS),
    ):
        value = getattr(config, key)
        if value not in accepted:
            raise DragomanError(
                f"model.{key}: CTranslate2 cannot compute '{value}', expected {one_of(accepted)}"
            )
    if config.attention == "general" and config.positions == "rotary":
        # Its matrix stands between queries and keys that are already turned.
        raise DragomanError(
            "model.attention: CTranslate2 cannot compute 'general' with model.positions=rotary, "
            "expected dot or scaled_dot"
        )


def export(translator: Translator, quantization: str) -> tuple[dict[str, bytes], Usage]:
    """Return CTranslate2's files by name, and how they are used.

    Raises:
        DragomanError: if CTranslate2 is not installed or cannot compute the model.
    """
    config = translator.config
    check(config.model)
    require("ctranslate2")
    check_search(config, "CTranslate2", UNSUPPORTED)
    weights = plain_weights(translator.models[0])
    spec = _model(config.model, weights, _positions_needed(config))
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
    return files, _usage(config, quantization)


def _longest_target(config: Config) -> int:
    """Return how many tokens Dragoman allows the translation of the longest source."""
    decode = config.decode
    longest = (config.data.max_length - 1) * decode.max_length_ratio + decode.max_length_extra
    return max(1, int(longest))


def _positions_needed(config: Config) -> int:
    """Return how many positions the longest source or target takes, end mark included."""
    return max(_LONGEST, config.data.max_length, _longest_target(config)) + 1


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


# Search settings that it has no option for.
UNSUPPORTED = ("replace_unknown",)

_BODY = '''
MODEL = ctranslate2.Translator(str(FOLDER), compute_type="{quantization}")


def translate(lines):
    """Return the translation of every line; a line without words stays empty."""
    found = MODEL.translate_batch(
        [(TAG + encode(line))[:{longest_source}] for line in lines if line.strip()],
        max_batch_size=64,
        beam_size={beam_size},
        length_penalty={length_penalty},
        return_end_token=True,  # so that lengths count it, as Dragoman's do
        min_decoding_length={min_length},
        no_repeat_ngram_size={no_repeat_ngram},
        max_decoding_length={longest_target},
    )
    texts = iter(decode([t for t in one.hypotheses[0] if t != "{end}"]) for one in found)
    return [next(texts) if line.strip() else "" for line in lines]
'''
_CONTENTS = """\
model.bin          the weights
config.json        the special tokens, for CTranslate2
*_vocabulary.json  the vocabulary, in the order of the ids"""
_NOTES = """\
Tokens go in as strings, without the end mark: CTranslate2 adds it. Scores are
log-probability / length^alpha, Dragoman's decode.length_penalty_form=power. The tokens are those of
Dragoman's own greedy search (beam_size=1) and, with that penalty and decode.stopping=first, of its
beam search. No translation is longer than Dragoman allows for the longest source; for shorter
sources it stops sooner."""


def _usage(config: Config, quantization: str) -> Usage:
    decode = config.decode
    body = _BODY.format(
        quantization=quantization,
        longest_source=config.data.max_length - 1,
        beam_size=decode.beam_size if decode.method == "beam" else 1,
        length_penalty=decode.length_penalty,
        min_length=decode.min_length,
        no_repeat_ngram=decode.no_repeat_ngram,
        longest_target=_longest_target(config),
        end=SPECIALS[EOS],
    )
    return Usage(
        "CTranslate2", "ctranslate2", "str", ("import ctranslate2",), body, _CONTENTS, _NOTES
    )
