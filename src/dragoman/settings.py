"""Configs in and out: built from Hydra or a file, checked, saved, compared and fingerprinted.

``validate`` collects every problem before it raises, so that one try shows them all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Container, Iterator, Mapping
from operator import ge, gt, le
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dragoman import plugins
from dragoman.config import (
    MODELS,
    SHIPPED,
    USUAL_FILES,
    CleanConfig,
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
from dragoman.files import read_file, write_atomic
from dragoman.languages import base, meant, score_tokens
from dragoman.search_path import shipped_configs

BOUNDS = (("low", ge, "at least"), ("high", le, "at most"), ("above", gt, "above"))


def accepted_names(item: dataclasses.Field[Any]) -> list[str]:
    """Return the names that a key accepts, those of its table first; none if it takes any value."""
    kind = item.metadata.get("table")
    return [*(plugins.table(kind) if kind else ()), *item.metadata.get("choices", ())]


def _problem(item: dataclasses.Field[Any], value: Any) -> str | None:
    """Return what is wrong with the value of one key by itself."""
    meta = item.metadata
    if value is None:
        return None
    if (names := accepted_names(item)) and value not in names:
        return f"'{value}' is not accepted, expected {one_of(names)}{nearest(str(value), names)}"
    if meta.get("pattern"):
        pattern, words = meta["pattern"]
        for text in [value] if isinstance(value, str) else value:
            if not re.fullmatch(pattern, text):
                return f"'{text}' is not accepted, expected {words}"
    if meta.get("path"):
        for path in _paths(value):
            if not isinstance(path, str) or not path.strip() or "\0" in path:
                return f"'{path}' is not a path, expected a file or folder"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number_problem(value, meta)
    return None


def _paths(value: Any) -> list[Any]:
    """Return the paths that a key holds: one, a list of them, or a mapping to such."""
    values = list(value.values()) if isinstance(value, dict) else [value]
    return [p for v in values for p in (v if isinstance(v, list) else [v])]


def _expanded(value: Any) -> Any:
    """Return the value of a key for paths with every ``~`` expanded."""
    if isinstance(value, dict):
        return {name: _expanded(path) for name, path in value.items()}
    if isinstance(value, list):
        return [_expanded(path) for path in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def _number_problem(value: float, meta: Mapping[str, Any]) -> str | None:
    if not math.isfinite(value):
        return f"{value} is not a finite number"
    for name, holds, words in BOUNDS:
        if name in meta and not holds(value, meta[name]):
            return f"{value} is out of range, expected {words} {meta[name]:.10g}"
    # Whatever the key: 32 bits hold the number, and the product of a few such.
    smallest, largest = (1, 2**31 - 1) if isinstance(value, int) else (1e-30, 1e30)
    if value and not smallest <= abs(value) <= largest:
        return f"{value} is out of range, expected {smallest:g} to {largest:.10g}"
    return None


def _transformer_problems(config: Config, model: TransformerConfig) -> Iterator[str]:
    width, heads, train = model.d_model, model.num_heads, config.train
    if width % heads:
        yield f"model.num_heads: {heads} heads do not divide model.d_model={width}"
    elif model.positions == "rotary" and (width // heads) % 2:
        yield "model.positions: rotary needs an even width per head, d_model / num_heads"
    if model.positions == "sinusoidal" and width % 2:
        yield f"model.d_model: sinusoidal positions need an even width, not {width}"
    most, longest = model.max_positions, config.data.max_length
    if model.positions == "learned" and longest > most:
        yield f"model.max_positions: {most} is less than data.max_length={longest}"
    forced = train.teacher_forcing == 1 and train.teacher_forcing_schedule == "constant"
    if not forced and train.teacher_forcing_draw == "batch":
        yield "train.teacher_forcing_draw: batch only works with model=rnn; use token"


def _rnn_problems(config: Config, model: RNNConfig) -> Iterator[str]:
    if config.train.compile:
        yield "train.compile: only works with model=transformer"
    directions = 2 if model.bidirectional else 1
    memory = (model.encoder_hidden or model.d_model // directions) * directions
    width, heads = model.attention_dim or model.d_model, model.num_heads
    if model.encoder_hidden is None and model.d_model % directions:
        yield f"model.d_model: a bidirectional encoder needs an even width, not {model.d_model}"
    if width % heads or memory % heads:
        widths = f"the attention width {width} and the memory width {memory}"
        yield f"model.num_heads: {heads} heads do not divide {widths}"
    like = memory == model.d_model and model.encoder_layers == model.decoder_layers
    if model.bridge == "copy" and not like:
        yield "model.bridge: copy needs an encoder as wide and as deep as the decoder; use dense"
    if model.attention == "none" and model.bridge == "zeros":
        yield "model.bridge: with attention=none only the bridge shows the source; use dense"
    if model.tie_embeddings != "none" and model.readout == "concat":
        yield "model.tie_embeddings: a tied output layer needs model.readout=tanh"


def _tokenizer_problems(config: Config) -> Iterator[str]:
    data, tokenizer = config.data, config.data.tokenizer
    kind, algorithm = tokenizer.kind, tokenizer.algorithm
    ties = getattr(config.model, "tie_embeddings", None)  # which a model of one's own may lack
    if ties == "three_way" and not (kind == "sentencepiece" and tokenizer.joint):
        yield "model.tie_embeddings: three_way needs a joint sentencepiece data.tokenizer"
    for side in ("src", "tgt"):
        languages = dict.fromkeys(getattr(part, side) for part in (data, *data.corpora))
        if kind == "spacy" and len(languages) > 1:
            there = f"data.corpora has {', '.join(languages)} as {side}"
            yield f"data.tokenizer.kind: spacy takes one language, but {there}; use sentencepiece"
    for name, only in (("sampling_alpha", "unigram"), ("bpe_dropout", "bpe")):
        if getattr(tokenizer, name) and kind != "sentencepiece":
            yield f"data.tokenizer.{name}: only for kind=sentencepiece, not {kind}"
        elif getattr(tokenizer, name) and algorithm != only:
            yield f"data.tokenizer.{name}: only for algorithm={only}, not {algorithm}"


def _search_problems(decode: DecodeConfig) -> Iterator[str]:
    drawn = {"beam": "beam_size", "mbr": "samples"}.get(decode.method)
    if drawn and decode.nbest > getattr(decode, drawn):
        yield f"decode.nbest: {decode.nbest} is more than decode.{drawn}={getattr(decode, drawn)}"
    if decode.method == "greedy" and decode.nbest > 1:
        yield "decode.nbest: greedy search has one hypothesis; use decode.method=beam or sample"
    most = int(decode.max_length_ratio + decode.max_length_extra)  # for a source of one token
    if decode.max_length_ratio == 0 and decode.max_length_extra == 0:
        yield "decode.max_length_extra: no target token is allowed; raise it or max_length_ratio"
    elif decode.min_length > most:
        why = f"a source of one token may have {most}; raise decode.max_length_extra"
        yield f"decode.min_length: {decode.min_length} tokens are too many, since {why}"


def _corpora_problems(data: DataConfig) -> Iterator[str]:
    src, tgt, trained = data.src, data.tgt, trained_pairs(data)
    if src == tgt:
        yield f"data.tgt: source and target are both '{src}'"
    if not trained:
        yield "data.corpora: at least one training corpus is needed"
    elif (src, tgt) not in trained:
        there = one_of(map("-".join, trained))
        yield f"data.src, data.tgt: {src}-{tgt} is validated, but data.corpora trains only {there}"
    told: dict[tuple[str, str | None], str] = {}
    for number, corpus in enumerate(data.corpora):
        path, split, tag = f"data.corpora.{number}", corpus.split, f"<2{corpus.tgt}>"
        if (corpus.source, split) == (data.name, data.validation_split):
            yield f"{path}.split: '{split}' is data.validation_split, which must not be trained on"
        other = told.setdefault((corpus.src, corpus.tag), corpus.tgt)
        if other != corpus.tgt:
            both = f"{corpus.src} is translated to {other} and to {corpus.tgt}"
            yield f"{path}.tag: {both}; tags such as {tag} must tell the model which"
    pairs = [(src, tgt), *trained]
    named = [base(meant(name) or "") for name in data.columns or ()]
    if all(named) and named and not any({base(s), base(t)} <= set(named) for s, t in pairs):
        yield f"data.columns: {data.columns} are not the two languages of data or of a corpus"
    if (cases := sum(getattr(data.augment, name) for name in ("upper", "title", "lower"))) > 1:
        yield f"data.augment: upper, title and lower add up to {cases:g}, expected at most 1"
    if data.clean != CleanConfig() and all(c.source in SHIPPED for c in data.corpora):
        yield f"data.clean: {one_of(SHIPPED)} is trained on as it is; only other text is cleaned"


# Schedules that fall from the peak to the end of schedule_steps.
DECAYING = ("linear", "cosine")


def _training_problems(data: DataConfig, train: TrainConfig) -> Iterator[str]:
    size, longest = train.batch_size, data.max_length
    if train.batch_type == "tokens" and size < longest:
        yield f"train.batch_size: {size} tokens do not hold a sentence of data.max_length={longest}"
    if train.r_drop and train.risk == 1:
        yield "train.r_drop: has no effect with train.risk=1, which leaves out the cross-entropy"
    if train.average_last and train.average_best:
        yield "train.average_best: does not go with train.average_last; set one of them to 0"
    validated, saved = train.validate_every, train.checkpoint_every
    if train.average_best and validated % saved:
        every = f"train.validate_every={validated} to be a multiple of train.checkpoint_every"
        yield f"train.average_best: needs {every}={saved}"
    warmup, end = train.warmup_steps, train.schedule_steps
    if train.schedule in DECAYING and warmup >= end:
        decay = f"train.schedule_steps={end}, where the {train.schedule} decay ends"
        yield f"train.warmup_steps: {warmup} must be less than {decay}"
    if train.min_lr > train.lr:
        yield f"train.min_lr: {train.min_lr} is above train.lr={train.lr}"


def check_device(device: str) -> None:
    """Refuse what is no name of a device; whether it is there is another question."""
    if problem := _problem(Config.__dataclass_fields__["device"], device):
        raise DragomanError(f"device: {problem}")


def check_search(decode: DecodeConfig) -> None:
    """Check a section ``decode`` by itself.

    Raises:
        DragomanError: with all problems at once.
    """
    if problems := _value_problems(decode, "decode.") or list(_search_problems(decode)):
        raise DragomanError("; ".join(problems))


def _value_problems(section: Any, prefix: str = "") -> list[str]:
    found = walk(section, prefix)
    return [f"{path}: {wrong}" for path, item, v in found if (wrong := _problem(item, v))]


def validate(config: Config, where: str = "") -> None:
    """Check ranges, choices and combinations.

    Raises:
        DragomanError: with all problems at once, behind the words ``where``.
    """
    problems = _value_problems(config)
    if not problems:  # combinations are only worth checking between values that are right
        problems += _corpora_problems(config.data)
        problems += _training_problems(config.data, config.train)
        problems += _tokenizer_problems(config)
        problems += _search_problems(config.decode)
        if isinstance(config.model, TransformerConfig):
            problems += _transformer_problems(config, config.model)
        if isinstance(config.model, RNNConfig):
            problems += _rnn_problems(config, config.model)
    if problems:
        raise DragomanError(where + "; ".join(problems))


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


def _complete(section: Any, data: Any, saved: bool) -> None:
    """Expand ``~`` in paths, and give keys that saved ``data`` lack the value ``before`` them."""
    for item in dataclasses.fields(section):
        value, given = getattr(section, item.name), data.get(item.name, {})
        before = item.metadata.get("before", dataclasses.MISSING)
        if dataclasses.is_dataclass(value):
            _complete(value, given, saved)
        elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            for entry, entry_given in zip(value, given, strict=True):
                _complete(entry, entry_given, saved)
        elif saved and item.name not in data and before is not dataclasses.MISSING:
            setattr(section, item.name, before)
        elif item.metadata.get("path") and value is not None:
            setattr(section, item.name, _expanded(value))


def from_dict(data: dict[str, Any], origin: str = "config", saved: bool = False) -> Config:
    """Build a validated ``Config`` from plain data, refusing unknown keys and wrong types.

    Paths have their ``~`` expanded. With ``saved`` the data are those of a run: a key that is
    newer than the run means what was done before the key existed.

    Raises:
        DragomanError: naming ``origin`` and every key at fault.
    """
    section = data.get("model", {})
    if not isinstance(section, dict):
        raise DragomanError(f"{origin}: model: expected a mapping of keys, not {section!r}")
    name = section.get("name", "transformer")
    if name not in list(MODELS):
        known = f"expected {one_of(MODELS)}{nearest(str(name), MODELS)}"
        raise DragomanError(f"{origin}: model.name: '{name}' is unknown, {known}")
    schema = Config(model=MODELS[name]())
    for path in _unknown_keys(schema, data):  # `+train.foo=1` slips through structured configs
        hint = nearest(path, known_keys(schema))
        raise DragomanError(f"{origin}: there is no key '{path}'{hint}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), data)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as problem:
        where = f"{key}: " if (key := getattr(problem, "full_key", None)) else ""
        raise DragomanError(f"{origin}: {where}{str(problem).splitlines()[0]}") from None
    assert isinstance(config, Config)
    _complete(config, data, saved)
    own = config.data
    if own.name == "files" and not own.pairs and "train" not in own.files:
        own.files = {**USUAL_FILES, **own.files}
    validate(config, f"{origin}: " if saved else "")
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
    here = Path(copy.checkpoint_dir)
    for section, name in ((copy.train, "init_from"), (copy.data.tokenizer, "from_run")):
        folder = getattr(section, name)
        if folder and Path(folder).is_relative_to(here):
            setattr(section, name, str(Config.checkpoint_dir / Path(folder).relative_to(here)))
    copy.data.cache, copy.checkpoint_dir = DataConfig.cache, Config.checkpoint_dir
    copy.device, copy.threads, copy.train.resume_from = Config.device, Config.threads, None
    return copy


# How a config begins that names parts of plug-ins: nothing reads it but a person, and a message.
_NEEDS = "# needs plug-ins: "


def tokens_of(config: Config) -> str:
    """Return the name of sacreBLEU's tokens that a run is scored with."""
    return config.evaluation.tokenize or score_tokens(config.data.tgt)


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


class _Loader(yaml.SafeLoader):
    """Reads YAML without aliases: with them a few hundred bytes can become gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted")
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> Any:
    """Return the plain data that a YAML text holds.

    Raises:
        ValueError: saying in one line why it cannot be read.
    """
    try:
        return _Loader(text).get_single_data()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as problem:
        raise ValueError(" ".join(str(problem).split())) from None


# Bytes: a hundred times what a config takes.
LARGEST_FILE = 2**20


def load(path: Path) -> Config:
    """Read a saved config as plain data: nothing in it is interpolated, imported or called.

    Raises:
        DragomanError: if the file is missing, is not YAML, or does not describe a run.
    """
    try:
        text = read_file(path, LARGEST_FILE).decode("utf-8")
        data = parse_yaml(text)
    except FileNotFoundError:
        raise DragomanError(f"{path}: no such file; is this a run folder?") from None
    except (OSError, ValueError) as problem:  # also of a date such as 2001-13-45
        raise DragomanError(f"{path}: not a readable config ({problem})") from None
    if not isinstance(data, dict):
        raise DragomanError(f"{path}: not a config: expected a mapping of sections")
    if "${" in repr(data):
        raise DragomanError(f"{path}: a saved config must not contain interpolations (${{...}})")
    try:
        return from_dict(data, origin=str(path), saved=True)
    except DragomanError as problem:
        if not (first := text.partition("\n")[0]).startswith(_NEEDS):
            raise
        raise DragomanError(
            f"{problem}; this run was trained with the plug-ins {first.removeprefix(_NEEDS)}: "
            "--plugin names one"
        ) from None


def as_then(config: Config, saved: Path) -> CleanConfig:
    """Return how a config's text is cleaned in a run that was begun before there were rules.

    What the recipes turn on today, nobody asked for then: such a run goes on without. Rules that
    were asked for stay, and are refused like any other change.
    """
    shipped = yaml.safe_load((shipped_configs() / "data" / "files.yaml").read_text("utf-8"))
    try:
        data = parse_yaml(read_file(saved, LARGEST_FILE).decode("utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return config.data.clean  # whoever loads it says what is wrong
    usual = CleanConfig(**shipped["clean"])
    return (
        CleanConfig() if "clean" not in data and config.data.clean == usual else config.data.clean
    )


def fixed_keys(config: Config) -> dict[str, Any]:
    """Return the keys that change the weights, with their values; a resumed run must match them."""
    train = config.train
    deciding = {  # keys that are free unless what they say when to do decides what the weights are
        "train.validate_every": train.average_best or train.schedule == "plateau",
        "train.checkpoint_every": train.average_best or train.average_last,
    }
    # Named data sets are known by their checksums, wherever they lie.
    named = all(corpus.source != "files" for corpus in config.data.corpora)
    moved = ("data.root", "data.files") if named else ()
    return {
        path: value
        for path, item, value in walk(config)
        if (not item.metadata.get("free") or deciding.get(path)) and path not in moved
    }


def differences(theirs: Any, ours: Any, ignored: Container[str]) -> list[str]:
    """Return what is set otherwise in a section of another run's config, to be read by people."""
    there, here = dataclasses.asdict(theirs), dataclasses.asdict(ours)
    return [
        f"{name}={there.get(name)} there, {value} here"
        for name, value in here.items()
        if name not in ignored and value != there.get(name)
    ]


def fingerprint(config: Config) -> str:
    """Return 8 hexadecimal digits for the values that change the weights and are no defaults.

    So a key that a later version adds changes no run's digits.
    """
    corpora = [CorpusConfig() for _ in config.data.corpora]
    plain = Config(data=DataConfig(corpora=corpora), model=type(config.model)())
    # Which architecture it is, and how many corpora there are, would not show in what differs.
    always = (".name", ".source")
    usual = {path: value for path, _, value in walk(plain) if not path.endswith(always)}
    fixed = fixed_keys(config).items()
    chosen = {path: v for path, v in fixed if path not in usual or v != usual[path]}
    text = json.dumps(chosen, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
