"""Configs in and out: built from Hydra or a file, checked, saved, compared and fingerprinted.

``validate`` collects every problem before it raises, so that one try shows them all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Container, Iterator
from operator import ge, gt, le
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dragoman import plugins
from dragoman.config import (
    MODELS,
    Config,
    CorpusConfig,
    DataConfig,
    DecodeConfig,
    RNNConfig,
    TrainConfig,
    TransformerConfig,
    trained_pairs,
    walk,
)
from dragoman.errors import DragomanError, nearest, one_of
from dragoman.files import write_atomic

BOUNDS = (("low", ge, "at least"), ("high", le, "at most"), ("above", gt, "above"))


def accepted_names(item: dataclasses.Field[Any]) -> list[str]:
    """Return the names that a key accepts, those of its table first; none if it takes any value."""
    kind = item.metadata["table"]
    return [*(plugins.table(kind) if kind else ()), *item.metadata["choices"]]


def _range_problem(path: str, item: dataclasses.Field[Any], value: Any) -> str | None:
    meta = item.metadata
    if value is None or not meta:
        return None
    if (names := accepted_names(item)) and value not in names:
        hint = nearest(str(value), names)
        return f"{path}: '{value}' is not accepted, expected {one_of(names)}{hint}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            return f"{path}: {value} is not a finite number"
        for name, holds, words in BOUNDS:
            if meta[name] is not None and not holds(value, meta[name]):
                return f"{path}: {value} is out of range, expected {words} {meta[name]:.10g}"
    return None


def _transformer_problems(config: Config, model: TransformerConfig) -> Iterator[str]:
    width, heads = model.d_model, model.num_heads
    if width % heads:
        yield f"model.num_heads: {heads} heads do not divide model.d_model={width}"
    elif model.positions == "rotary" and (width // heads) % 2:
        yield "model.positions: rotary needs an even width per head, d_model / num_heads"
    if model.positions == "sinusoidal" and width % 2:
        yield f"model.d_model: sinusoidal positions need an even width, not {width}"
    if model.positions == "learned" and config.data.max_length > model.max_positions:
        yield (
            f"model.max_positions: {model.max_positions} is shorter than "
            f"data.max_length={config.data.max_length}"
        )
    train = config.train
    forced = train.teacher_forcing == 1 and train.teacher_forcing_schedule == "constant"
    if not forced and train.teacher_forcing_draw == "batch":
        yield "train.teacher_forcing_draw: batch is for model=rnn; the Transformer takes token"


def _rnn_problems(config: Config, model: RNNConfig) -> Iterator[str]:
    if config.train.compile:
        yield "train.compile: a loop over time does not compile; only for model=transformer"
    directions = 2 if model.bidirectional else 1
    hidden = model.encoder_hidden or model.d_model // directions
    width = model.attention_dim or model.d_model
    if model.encoder_hidden is None and model.d_model % directions:
        yield f"model.d_model: {model.d_model} cannot be split over two directions"
    if width % model.num_heads or (hidden * directions) % model.num_heads:
        yield (
            f"model.num_heads: {model.num_heads} heads do not divide the attention width "
            f"{width} and the memory width {hidden * directions}"
        )
    if model.bridge == "copy" and (
        hidden * directions != model.d_model or model.encoder_layers != model.decoder_layers
    ):
        yield (
            "model.bridge: copy needs as many decoder_layers as encoder_layers and "
            "encoder_hidden x directions = d_model; use dense"
        )
    if model.attention == "none" and model.bridge == "zeros":
        yield "model.bridge: zeros and no attention hide the source; use dense"
    if model.tie_embeddings != "none" and model.readout == "concat":
        yield "model.tie_embeddings: a tied output layer needs model.readout=tanh"


def _tokenizer_problems(config: Config) -> Iterator[str]:
    tokenizer, data = config.data.tokenizer, config.data
    joint = tokenizer.kind == "sentencepiece" and tokenizer.joint
    if config.model.tie_embeddings == "three_way" and not joint:
        yield "model.tie_embeddings: three_way needs a joint sentencepiece data.tokenizer"
    if tokenizer.kind == "spacy":
        for side in ("src", "tgt"):
            languages = dict.fromkeys(getattr(part, side) for part in (data, *data.corpora))
            if len(languages) > 1:
                yield (
                    f"data.tokenizer.kind: spacy has the rules of one language a side, and "
                    f"data.corpora has {', '.join(languages)} as {side}; use sentencepiece"
                )
    if tokenizer.kind != "sentencepiece":
        for name in ("sampling_alpha", "bpe_dropout"):
            if getattr(tokenizer, name):
                yield f"data.tokenizer.{name}: only for kind=sentencepiece, not {tokenizer.kind}"
    elif tokenizer.sampling_alpha > 0 and tokenizer.algorithm != "unigram":
        yield "data.tokenizer.sampling_alpha: only for algorithm=unigram; bpe has bpe_dropout"
    elif tokenizer.bpe_dropout > 0 and tokenizer.algorithm != "bpe":
        yield "data.tokenizer.bpe_dropout: only for algorithm=bpe; unigram has sampling_alpha"


def _search_problems(decode: DecodeConfig) -> Iterator[str]:
    if decode.method == "beam" and decode.nbest > decode.beam_size:
        yield f"decode.nbest: {decode.nbest} is more than decode.beam_size={decode.beam_size}"
    if decode.method == "mbr" and decode.nbest > decode.samples:
        yield f"decode.nbest: {decode.nbest} is more than decode.samples={decode.samples}"
    if decode.method == "greedy" and decode.nbest > 1:
        yield "decode.nbest: greedy search has one hypothesis; use decode.method=beam or sample"
    if decode.max_length_ratio == 0 and decode.max_length_extra == 0:
        yield "decode.max_length_extra: no target token is allowed; raise it or max_length_ratio"


# Schedules that fall from the peak to the end of schedule_steps.
DECAYING = ("linear", "cosine")


def _training_problems(data: DataConfig, train: TrainConfig) -> Iterator[str]:
    if data.src == data.tgt:
        yield f"data.tgt: source and target are both '{data.src}'"
    trained = trained_pairs(data)
    if not trained:
        yield "data.corpora: at least one training corpus is needed"
    elif (data.src, data.tgt) not in trained:
        yield (
            f"data.src, data.tgt: {data.src}-{data.tgt} is what validation translates, but "
            f"data.corpora trains {one_of(map('-'.join, trained))}"
        )
    told: dict[tuple[str, str | None], str] = {}
    for number, corpus in enumerate(data.corpora):
        if (corpus.source, corpus.split) == (data.name, data.validation_split):
            yield (
                f"data.corpora.{number}.split: '{corpus.split}' is data.validation_split, which "
                "must not be trained on"
            )
        other = told.setdefault((corpus.src, corpus.tag), corpus.tgt)
        if other != corpus.tgt:
            yield (
                f"data.corpora.{number}.tag: nothing tells whether {corpus.src} is to become "
                f"{other} or {corpus.tgt}; give each a tag such as <2{corpus.tgt}>"
            )
    if train.batch_type == "tokens" and train.batch_size < data.max_length:
        yield (
            f"train.batch_size: {train.batch_size} tokens do not hold one sentence of "
            f"data.max_length={data.max_length}"
        )
    if train.r_drop and train.risk == 1:
        yield "train.r_drop: is part of the cross-entropy, of which train.risk=1 leaves nothing"
    if train.average_last and train.average_best:
        yield "train.average_best: either the last checkpoints are averaged or the best"
    if train.average_best and train.validate_every % train.checkpoint_every:
        yield (
            f"train.average_best: train.validate_every={train.validate_every} is no multiple of "
            f"train.checkpoint_every={train.checkpoint_every}, so not every validated step is saved"
        )
    if train.schedule in DECAYING and train.warmup_steps >= train.schedule_steps:
        yield (
            f"train.warmup_steps: {train.warmup_steps} leave nothing of "
            f"train.schedule_steps={train.schedule_steps}, in which the rate also falls again"
        )
    if train.min_lr > train.lr:
        yield f"train.min_lr: {train.min_lr} is above train.lr={train.lr}"


def _cross_section_problems(config: Config) -> Iterator[str]:
    if isinstance(config.model, TransformerConfig):
        yield from _transformer_problems(config, config.model)
    if isinstance(config.model, RNNConfig):
        yield from _rnn_problems(config, config.model)
    yield from _tokenizer_problems(config)
    yield from _search_problems(config.decode)
    yield from _training_problems(config.data, config.train)
    yield from _place_problems(config)


# A language code names files and run folders.
_LANGUAGE = re.compile(r"\w[\w-]*")
_DEVICE = re.compile(r"auto|cpu|cuda|cuda:\d{1,2}")


def check_device(device: str) -> None:
    """Refuse what is no name of a device; whether it is there is another question."""
    if not _DEVICE.fullmatch(device):
        raise DragomanError(
            f"device: '{device}' is not accepted, expected auto, cpu, cuda or cuda:<n>"
        )


def _place_problems(config: Config) -> Iterator[str]:
    data = config.data
    pairs: list[tuple[str, DataConfig | CorpusConfig]] = [("data", data)]
    pairs += [(f"data.corpora.{n}", corpus) for n, corpus in enumerate(data.corpora)]
    for path, pair in pairs:
        for side in ("src", "tgt"):
            language = getattr(pair, side)
            if not _LANGUAGE.fullmatch(language):
                yield f"{path}.{side}: '{language}' is not a language code such as de"
    if data.columns is not None and not any(
        sorted(data.columns) == sorted((pair.src, pair.tgt)) for _, pair in pairs
    ):
        yield f"data.columns: {data.columns} are not the two languages of data or of a corpus"
    try:
        check_device(config.device)
    except DragomanError as problem:
        yield str(problem)
    if not config.checkpoint_dir:
        yield "checkpoint_dir: is empty, expected a folder"
    if config.run_name is not None and (
        not config.run_name or config.run_name.startswith(".") or "/" in config.run_name
    ):
        yield f"run_name: '{config.run_name}' cannot be a folder name (no '/', no leading '.')"


def validate(config: Config) -> None:
    """Check ranges, choices and combinations; raise ``DragomanError`` with all problems at once."""
    problems = [p for path, item, value in walk(config) if (p := _range_problem(path, item, value))]
    if not problems:  # combinations are only worth checking between values that are right
        problems = list(_cross_section_problems(config))
    if problems:
        raise DragomanError("; ".join(problems))


def known_keys(config: Any) -> list[str]:
    """Return every dotted key of a config, for suggestions."""
    return [path for path, _, _ in walk(config)]


def _unknown_keys(schema: Any, data: Any, prefix: str = "") -> Iterator[str]:
    """Yield keys of ``data`` that the dataclass instance ``schema`` does not have."""
    names = {item.name for item in dataclasses.fields(schema)}
    for name, value in data.items():
        if name not in names:
            yield f"{prefix}{name}"
        elif dataclasses.is_dataclass(getattr(schema, name)) and isinstance(value, dict):
            yield from _unknown_keys(getattr(schema, name), value, f"{prefix}{name}.")


def from_dict(data: dict[str, Any], origin: str = "config") -> Config:
    """Build a validated ``Config`` from plain data, refusing unknown keys and wrong types.

    Raises:
        DragomanError: naming ``origin`` and every key at fault.
    """
    section = data.get("model", {})
    if not isinstance(section, dict):
        raise DragomanError(f"{origin}: model: expected a mapping of keys, not {section!r}")
    name = section.get("name", "transformer")
    if name not in list(MODELS):
        raise DragomanError(
            f"{origin}: model.name: '{name}' is unknown, expected {one_of(MODELS)}"
            f"{nearest(str(name), MODELS)}"
        )
    schema = Config(model=MODELS[name]())
    for path in _unknown_keys(schema, data):  # `+train.foo=1` slips through structured configs
        raise DragomanError(
            f"{origin}: there is no key '{path}'{nearest(path, known_keys(schema))}"
        )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), data)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as problem:
        where = getattr(problem, "full_key", None)
        raise DragomanError(
            f"{origin}: {f'{where}: ' if where else ''}{str(problem).splitlines()[0]}"
        ) from None
    assert isinstance(config, Config)
    validate(config)
    return config


def from_hydra(composed: DictConfig) -> Config:
    """Build a ``Config`` from what Hydra composed, interpolations resolved."""
    try:
        plain = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as problem:
        raise DragomanError(f"config: {str(problem).splitlines()[0]}") from None
    assert isinstance(plain, dict)
    return from_dict({str(name): value for name, value in plain.items()})


def to_dict(config: Config) -> dict[str, Any]:
    """Return a config as plain data."""
    return dataclasses.asdict(config)


def portable(config: Config) -> Config:
    """Return a copy without the paths and the device of the machine it ran on.

    They say nothing about the result; files of one's own keep theirs, relative ones stay right.
    """
    copy = from_dict(to_dict(config))
    if copy.data.name != "files":
        copy.data.root = DataConfig.root
    here = Path(config.checkpoint_dir)
    for section, name in ((copy.train, "init_from"), (copy.data.tokenizer, "from_run")):
        folder = getattr(section, name)
        if folder and Path(folder).is_relative_to(here):
            setattr(section, name, str(Config.checkpoint_dir / Path(folder).relative_to(here)))
    copy.data.cache, copy.checkpoint_dir = DataConfig.cache, Config.checkpoint_dir
    copy.device, copy.threads = Config.device, Config.threads
    return copy


# How a config begins that names parts of plug-ins: nothing reads it but a person, and a message.
_NEEDS = "# needs plug-ins: "


def as_yaml(config: Config) -> str:
    """Return a resolved config as YAML; a comment says which plug-ins it needs."""
    parts = [(kind, v) for _, item, v in walk(config) if (kind := item.metadata.get("table"))]
    parts.append(("model", config.model.name))
    needed = sorted({plugins.ORIGINS[part] for part in parts if part in plugins.ORIGINS})
    head = f"{_NEEDS}{', '.join(needed)}\n" if needed else ""
    return head + yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def save(config: Config, path: Path) -> None:
    """Write a resolved config as YAML, whole or not at all."""
    write_atomic(path, as_yaml(config))


def load(path: Path) -> Config:
    """Read a saved config as plain data: nothing in it is interpolated, imported or called.

    Raises:
        DragomanError: if the file is missing, is not YAML, or does not describe a run.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = yaml.safe_load(text)
    except FileNotFoundError:
        raise DragomanError(f"{path}: no such file; is this a run folder?") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise DragomanError(
            f"{path}: not a readable config ({problem})".replace("\n", " ")
        ) from None
    if not isinstance(data, dict):
        raise DragomanError(f"{path}: not a config: expected a mapping of sections")
    if "${" in repr(data):
        raise DragomanError(f"{path}: a saved config must not contain interpolations (${{...}})")
    try:
        return from_dict(data, origin=str(path))
    except DragomanError as problem:
        if not (first := text.partition("\n")[0]).startswith(_NEEDS):
            raise
        raise DragomanError(
            f"{problem}; this run was trained with the plug-ins {first.removeprefix(_NEEDS)}: "
            "--plugin names one"
        ) from None


def fixed_keys(config: Config) -> dict[str, Any]:
    """Return the keys that change the weights, with their values; a resumed run must match them."""
    train = config.train
    averages = train.average_last or train.average_best
    deciding = {  # keys that are free unless what they say when to do decides what the weights are
        "train.validate_every": train.average_best or train.schedule == "plateau",
        "train.checkpoint_every": averages,
    }
    fixed = {
        path: value
        for path, item, value in walk(config)
        if not item.metadata.get("free") or deciding.get(path)
    }
    if all(corpus.source != "files" for corpus in config.data.corpora):
        # Named data sets are known by their checksums, wherever they lie.
        fixed.pop("data.root")
        fixed.pop("data.files", None)
    return fixed


def differences(theirs: Any, ours: Any, ignored: Container[str]) -> list[str]:
    """Return what is set otherwise in a section of another run's config, to be read by people."""
    there, here = dataclasses.asdict(theirs), dataclasses.asdict(ours)
    return [
        f"{name}={there.get(name)} there, {value} here"
        for name, value in here.items()
        if name not in ignored and value != there.get(name)
    ]


def fingerprint(config: Config) -> str:
    """Return 8 hexadecimal digits that stand for every key that changes the weights."""
    text = json.dumps(fixed_keys(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
