"""Every key of a run: its type, default, range and meaning. The only truth about configuration.

The dataclasses below are registered with Hydra as schemas, so a misspelt or mistyped key is refused
while the config is composed. Ranges and choices stand beside each key; ``dragoman.settings``
checks them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf


def key(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    table: str | None = None,
    pattern: tuple[str, str] | None = None,
    free: bool = False,
    path: bool = False,
    before: Any = dataclasses.MISSING,
    **bounds: float,
) -> Any:
    """Declare one config key.

    Args:
        default: its value where none is given.
        meaning: a phrase for the reference of keys.
        choices: the values accepted; none: any.
        table: the table of ``dragoman.plugins`` whose entries are accepted besides ``choices``.
        pattern: a regular expression for texts (of a mapping: its names), and what it asks for.
        free: does not change the weights, and so may change when a run is resumed.
        path: a file or folder: never empty, ``~`` is expanded.
        before: for a key that is newer than saved runs: what was done before it existed, where
            that is not the default. A saved config without the key is read so.
        bounds: ``low`` and ``high``, which are inclusive, and ``above``, which is exclusive.
    """
    assert bounds.keys() <= {"low", "high", "above"}
    metadata: dict[str, Any] = {"meaning": meaning, "choices": choices, "table": table}
    metadata |= {"pattern": pattern, "free": free, "path": path, "before": before, **bounds}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def bounded_key(default: float | None, meaning: str, high: float = 1.0) -> Any:
    """Declare a key for a number from 0 to ``high``, such as a probability."""
    return key(default, meaning, low=0.0, high=high)


def dropout_key(place: str) -> Any:
    """Declare a dropout that is ``dropout`` unless it is set."""
    return bounded_key(None, f"dropout {place}; null: as dropout", 0.99)


def size_key(default: int | None, meaning: str, high: int = 65_536) -> Any:
    """Declare a key for a size; one above ``high``, more than anyone trains, is a slip."""
    return key(default, meaning, low=1, high=high)


# Languages, splits and run names become parts of paths: nothing in them may lead elsewhere. False
# is what YAML makes of an unquoted no.
LANGUAGE = (r"(?!(True|False)$)\w[\w-]{0,31}", "a language code such as de")
SPLIT = (r"\w[\w.-]{0,99}", "the name of a split: letters, digits, '_', '-' and '.'")
FOLDER = (r"[^./\x00-\x1f][^/\x00-\x1f]{0,199}", "a folder name of up to 200 characters, no '/'")
DEVICE = (r"auto|cpu|cuda|cuda:\d{1,2}", "auto, cpu, cuda or cuda:<n>")
CHECKPOINT = (r"best|step-\d{1,12}", "best or step-<n>")


@dataclass
class CorpusConfig:
    """One parallel corpus of the training mixture."""

    source: str = key("multi30k", "where the pairs come from", table="source")
    src: str = key("de", "source language", pattern=LANGUAGE)
    tgt: str = key("en", "target language", pattern=LANGUAGE)
    weight: float = key(1.0, "how often each pair is seen per epoch", low=1e-6, high=1000)
    tag: str | None = key(
        None, "token before every source, e.g. <2en>; in use too, unless some of the pair have none"
    )
    split: str = key("train", "split of the source to train on", pattern=SPLIT)


@dataclass
class TokenizerConfig:
    """How text becomes tokens."""

    kind: str = key("sentencepiece", "token type", table="tokenizer")
    lowercase: bool = key(False, "lower-case both sides")
    algorithm: str = key("unigram", "sentencepiece: algorithm", choices=("unigram", "bpe"))
    joint: bool = key(True, "sentencepiece: one model and vocabulary for both sides")
    vocab_size: int = key(5000, "sentencepiece: pieces, specials included", low=8, high=10**6)
    byte_fallback: bool = key(False, "sentencepiece: spell unseen characters as bytes")
    character_coverage: float = key(
        1.0, "sentencepiece: share of the text's characters that have a piece", low=0.9, high=1.0
    )
    split_digits: bool = key(False, "sentencepiece: every digit is a piece of its own")
    sample_characters: int = key(
        20_000_000, "sentencepiece: learn from a sample of so many characters", low=1000
    )
    sample_lines: int = key(
        20_000, "sentencepiece: of languages without spaces, learn from so many lines", low=100
    )
    sampling_alpha: float = bounded_key(0.0, "unigram: sample by p^alpha; 0: take the best", 100)
    bpe_dropout: float = bounded_key(0.0, "bpe: probability of skipping a merge")
    form: str = key("joiner", "spacy: token strings", choices=("joiner", "plain"))
    min_freq: int = key(1, "spacy: words seen less often become <unk>", low=1)
    max_size: int | None = key(None, "spacy: most words kept, specials not counted", low=1)
    from_run: str | None = key(None, "take the tokenizer of this run; null: train one", path=True)


# Sources whose text is trained on as it is: results are compared on it.
SHIPPED = ("multi30k", "captions")


@dataclass
class CleanConfig:
    """What is left out of training text of one's own, and counted; data=files turns some on."""

    normalise: bool = key(False, "put text in Unicode's form NFC, without unseen characters")
    empty: bool = key(False, "leave out pairs with an empty side")
    max_characters: int = key(0, "leave out pairs with a longer side; 0: none", low=0)
    length_ratio: float = key(
        0.0, "leave out pairs with one side so many times as long; 0: none", low=0.0, high=1000
    )
    identical: bool = key(False, "leave out pairs whose sides are the same")
    duplicates: str = key(
        "none", "leave out pairs that were there before: exact, or but for case and punctuation",
        choices=("none", "exact", "normalised"),
    )  # fmt: skip
    digits: bool = key(False, "leave out pairs whose digits differ")
    markup: bool = key(False, "leave out pairs with nothing but mark-up or addresses on a side")
    script: bool = key(False, "leave out pairs with a side that is mostly in another script")
    language: bool = key(
        False, "leave out pairs with a side of 5 words or more that looks like another language"
    )
    leaks: str = key(
        "warn", "pairs that share a sentence with an evaluation split: count or leave them out",
        choices=("warn", "drop"),
    )  # fmt: skip


@dataclass
class AugmentConfig:
    """How often training pairs are varied on the way in; shares of the sentences."""

    upper: float = bounded_key(0.0, "share of the pairs in capitals")
    title: float = bounded_key(
        0.0, "share of the pairs with capitals at the beginning of every word"
    )
    lower: float = bounded_key(0.0, "share of the pairs without capitals")
    no_end_mark: float = bounded_key(0.0, "share of the sources that lose their end mark")
    double_space: float = bounded_key(0.0, "share of the sources with a doubled space")
    typos: float = bounded_key(0.0, "share of the sources with typos")
    typo_rate: float = bounded_key(0.03, "share of their letters that are mistyped")
    joined: float = bounded_key(0.0, "share of the pairs with another pair of the corpus behind")


# What is read with data.name=files where no training text is named.
USUAL_FILES = {split: f"{split}.{{lang}}" for split in ("train", "val", "test")}


@dataclass
class DataConfig:
    """Which sentence pairs, and how they are cut into tokens."""

    name: str = key("multi30k", "where validation and test pairs come from", table="source")
    root: str = key("data/multi30k/raw", "folder of the data files", path=True)
    src: str = key("de", "source language", pattern=LANGUAGE)
    tgt: str = key("en", "target language", pattern=LANGUAGE)
    corpora: list[CorpusConfig] = key([], "the training mixture; one corpus is a list of one")
    pairs: Any = key(
        None, "files: the training text, one file or a list; short for files.train", path=True
    )
    files: dict[str, Any] = key(
        {}, "split -> file, pattern or list of them, under root; {lang} is the language code",
        pattern=SPLIT, path=True,
    )  # fmt: skip
    columns: list[str] | None = key(
        None, "languages (or other names) of the columns of files without a header; null: told "
        "from the text",
    )  # fmt: skip
    holdout: int = key(
        1000, "files: lines held out for validation and test each, where no file is named; 0: none",
        low=0, high=10**6,
    )  # fmt: skip
    held_out: str | None = key(
        None, "folder of lines held out by another run (its pairs/); null: choose them",
        path=True, free=True,
    )  # fmt: skip
    clean: CleanConfig = field(default_factory=CleanConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    validation_split: str = key("val", "split scored during training", pattern=SPLIT)
    max_length: int = key(128, "longest training sentence, in tokens a side", low=2, high=10**6)
    cache: str = key("data/cache", "folder of the token cache", free=True, path=True)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)


TIES = ("none", "two_way", "three_way")
SHARED = "shared matrices: none; two_way = decoder input and output; three_way = encoder too"
WORD_DROPOUT = "share of the tokens whose whole embedding is left out"


@dataclass
class TransformerConfig:
    """Encoder-decoder Transformer (Vaswani et al. 2017)."""

    name: str = key("transformer", "architecture", choices=("transformer",))
    d_model: int = size_key(256, "width of the residual stream")
    num_heads: int = size_key(4, "attention heads; must divide d_model")
    encoder_layers: int = size_key(3, "encoder layers", 1000)
    decoder_layers: int = size_key(3, "decoder layers", 1000)
    d_ff: int = size_key(768, "inner width of the feed-forward layers")
    dropout: float = bounded_key(0.1, "dropout on the residual branches", 0.99)
    embedding_dropout: float | None = dropout_key("on embeddings")
    word_dropout: float = bounded_key(0.0, WORD_DROPOUT, 0.99)
    attention_dropout: float | None = dropout_key("on attention weights")
    activation_dropout: float | None = dropout_key("inside the feed-forward layers")
    norm: str = key("pre", "layer norm before or after each sub-layer", choices=("pre", "post"))
    positions: str = key("sinusoidal", "position encoding", table="positions")
    attention: str = key("scaled_dot", "score function of every attention", table="attention")
    attention_gain: float = key(
        1.0, "factor of the first queries, keys and values; norm=post: 0.7", above=0.0, high=100
    )
    activation: str = key("relu", "feed-forward activation", choices=("relu", "gelu", "swiglu"))
    tie_embeddings: str = key("three_way", SHARED, choices=TIES)
    max_positions: int = key(512, "longest sentence of the learned positions", low=2, high=10**6)


@dataclass
class RNNConfig:
    """Recurrent encoder-decoder with attention (Bahdanau et al. 2015, Luong et al. 2015)."""

    name: str = key("rnn", "architecture", choices=("rnn",))
    cell: str = key("lstm", "recurrent cell", choices=("lstm", "gru"))
    d_embed: int = size_key(256, "width of the embeddings")
    d_model: int = size_key(512, "width of the decoder's hidden state")
    encoder_hidden: int | None = size_key(
        None, "width of the encoder's hidden state in each direction; null: d_model / directions"
    )
    encoder_layers: int = size_key(1, "encoder layers", 1000)
    decoder_layers: int = size_key(1, "decoder layers", 1000)
    bidirectional: bool = key(True, "read the source in both directions")
    bridge: str = key(
        "dense", "the first state: tanh of a linear layer on the encoder's last, a copy, or zeros",
        choices=("dense", "copy", "zeros"),
    )  # fmt: skip
    attention: str = key("additive", "score function", table="attention", choices=("none",))
    attention_dim: int | None = size_key(None, "width the score is taken in; null: d_model")
    num_heads: int = size_key(1, "attention heads; must divide attention_dim and memory width")
    wiring: str = key(
        "luong",
        "luong: attend with the new state; bahdanau: attend with the old one, feed the context in",
        choices=("luong", "bahdanau"),
    )
    input_feeding: bool = key(True, "luong: the last attentional state is part of the next input")
    readout: str = key(
        "tanh",
        "what the output layer sees: tanh(W [state; context]) or [state; context; embedding]",
        choices=("tanh", "concat"),
    )
    dropout: float = bounded_key(0.2, "dropout between layers", 0.99)
    readout_dropout: float | None = dropout_key("on what the output layer sees")
    embedding_dropout: float | None = dropout_key("on embeddings")
    word_dropout: float = bounded_key(0.0, WORD_DROPOUT, 0.99)
    tie_embeddings: str = key("none", SHARED, choices=TIES)


MODELS: dict[str, type] = {"transformer": TransformerConfig, "rnn": RNNConfig}


@dataclass
class TrainConfig:
    """Optimisation, its schedules, and when to validate, save and stop."""

    max_steps: int = key(4000, "optimiser steps of the run", low=1, free=True)
    batch_type: str = key(
        "tokens", "what batch_size counts: padded tokens of the longer side, or sentences",
        choices=("tokens", "sentences"),
    )  # fmt: skip
    batch_size: int = key(2500, "size of a (micro-)batch", low=1)
    accumulate: int = size_key(1, "micro-batches per optimiser step (and rank)", 10_000)
    sort_by_length: bool = key(True, "bucket sentences of like length; false: batch in drawn order")
    dry_run: bool = key(True, "run the longest batch once first, to fail early", free=True)

    optimizer: str = key("adamw", "optimiser", table="optimizer")
    lr: float = key(1.8e-3, "peak learning rate", above=0.0)
    beta1: float = bounded_key(0.9, "Adam's beta 1", 0.9999)
    beta2: float = bounded_key(0.98, "Adam's beta 2", 0.99999)
    eps: float = key(1e-9, "Adam's epsilon", low=1e-30, high=1.0)
    momentum: float = bounded_key(0.0, "SGD's momentum", 0.9999)
    muon_lr: float | None = key(None, "muon: peak rate of hidden matrices; null: lr", above=0.0)
    muon_momentum: float = bounded_key(0.95, "muon: momentum", 0.9999)
    weight_decay: float = bounded_key(0.0, "of matrices only; decoupled for adamw and muon", 1000)
    schedule: str = key("linear", "learning rate after warm-up", table="schedule")
    warmup_steps: int = key(500, "steps of linear warm-up", low=0)
    schedule_steps: int = key(4000, "length of the cosine and linear decays, in steps", low=1)
    min_lr: float = key(0.0, "the decays end here", low=0.0)
    plateau_factor: float = key(0.5, "plateau: lr factor", above=0.0, high=1.0)
    plateau_patience: int = key(2, "plateau: validations without gain before a cut", low=0)
    clip_norm: float = key(1.0, "largest gradient norm; 0 turns clipping off", low=0.0)
    label_smoothing: float = bounded_key(0.1, "mass spread over the vocabulary", 0.99)
    r_drop: float = bounded_key(0.0, "R-Drop: weight of the divergence of two passes; 0: off", 1000)
    risk: float = bounded_key(
        0.0, "minimum risk: weight of the expected 1 - sentence BLEU; cross-entropy has the rest"
    )
    risk_samples: int = key(8, "risk: translations sampled of each sentence", low=2, high=10_000)
    risk_sharpness: float = key(0.05, "risk: samples weigh p to this power", above=0.0, high=100)
    init_from: str | None = key(None, "run whose weights to begin with; same model", path=True)
    resume_from: str | None = key(
        None, "go on from this checkpoint instead of last, once", pattern=CHECKPOINT, free=True
    )
    precision: str = key(
        "float32", "of matrix products; for GPUs: tf32 (float32 with 10 bits), bf16 (autocast)",
        choices=("float32", "tf32", "bf16"),
    )  # fmt: skip
    compile: bool = key(False, "compile the Transformer first (torch.compile): for GPUs")
    fast: bool = key(True, "false: compute in the plainest way, to compare with")

    teacher_forcing: float = bounded_key(1.0, "chance that the decoder is fed the reference token")
    teacher_forcing_schedule: str = key("constant", "how it changes", table="teacher_forcing")
    teacher_forcing_end: float = bounded_key(0.0, "where the schedules end")
    teacher_forcing_steps: int = key(4000, "length of the schedules, in steps", low=1)
    teacher_forcing_draw: str = key(
        "token", "one coin per sentence and step, or per step for the whole batch",
        choices=("token", "batch"),
    )  # fmt: skip

    ema_decay: float = bounded_key(0.0, "moving average of the weights; 0: none", 0.99999)
    average_last: int = key(0, "average the weights of the last k checkpoints; 0: none", low=0)
    average_best: int = key(0, "average the k checkpoints that validate best; 0: none", low=0)

    validate_every: int = key(
        500, "steps between validations; fixed for plateau and average_best", low=1, free=True
    )
    validation_beam: int = size_key(1, "beam size of the validation BLEU", 10_000)
    checkpoint_every: int = key(
        500, "steps between checkpoints; fixed for average_last and average_best", low=1, free=True
    )
    keep: int = key(2, "checkpoints kept besides best", low=1, free=True)
    metric: str = key("bleu", "what chooses best and stops early", choices=("bleu", "chrf", "loss"))
    patience: int = key(0, "validations without gain before stopping; 0: never", low=0, free=True)


@dataclass
class DecodeConfig:
    """Search. The only section that evaluation may override."""

    method: str = key(
        "beam", "search; mbr: of many samples the one that agrees best with the others",
        choices=("greedy", "beam", "sample", "mbr"),
    )  # fmt: skip
    beam_size: int = size_key(5, "hypotheses kept", 10_000)
    nbest: int = size_key(1, "hypotheses returned per sentence", 10_000)
    length_penalty: float = key(1.0, "alpha of the length penalty", low=0.0, high=10)
    length_penalty_form: str = key(
        "gnmt", "((5 + n) / 6)^alpha or n^alpha", choices=("gnmt", "power")
    )
    stopping: str = key(
        "bound", "bound: when no open hypothesis can still win; first: when beam_size have ended",
        choices=("bound", "first"),
    )  # fmt: skip
    min_length: int = key(0, "fewest target tokens, end mark not counted", low=0)
    max_length_ratio: float = key(2.0, "most target tokens per source token", low=0.0, high=100.0)
    max_length_extra: int = key(20, "and this many more", low=0, high=10**6)
    no_repeat_ngram: int = key(0, "n-grams of this size never repeat; 0: off", low=0)
    samples: int = size_key(32, "mbr: samples drawn for a sentence", 10_000)
    temperature: float = key(1.0, "sample, mbr: softmax temperature", low=0.001, high=1000)
    top_k: int = key(0, "sample, mbr: only the k likeliest tokens; 0: all", low=0)
    top_p: float = key(1.0, "sample, mbr: smallest set of this probability", low=1e-6, high=1.0)
    seed: int = key(1, "sample, mbr: seed of the draws", low=0, high=2**31 - 1)
    split: str = key(
        "auto", "translate by the sentence: auto: lines of more sentences than those that were "
        "trained on; always; never: only lines that are too long for the model",
        choices=("auto", "always", "never"),
    )  # fmt: skip
    replace_unknown: bool = key(False, "copy the most attended source word for every <unk>")
    batch_size: int = key(64, "sentences searched together", low=1)


@dataclass
class EvaluationConfig:
    """How translations are compared with their references."""

    tokenize: str | None = key(
        None, "sacreBLEU's tokens for BLEU and TER; null: those that suit the target language, "
        "which a run keeps", free=True, before="13a",
        choices=("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none"),
    )  # fmt: skip


@dataclass
class LogConfig:
    """What is shown while a run goes on. Changes nothing that is trained."""

    every: int = key(50, "steps between log lines and TensorBoard points", low=1, free=True)
    tensorboard: bool = key(True, "write TensorBoard logs", free=True)
    trackers: list[str] = key([], "further trackers to tell, those of plug-ins", free=True)
    samples: int = key(5, "sentences translated at every validation", low=0, free=True)
    figures: bool = key(True, "draw attention heat maps at every validation", free=True)
    graph: bool = key(True, "write the model graph", free=True)
    profile_steps: int = key(0, "steps recorded by the PyTorch profiler; 0: none", low=0, free=True)


# The groups of `configs/size`, and the least number of training pairs that each is for.
SIZES = {"tiny": 0, "small": 1_000, "medium": 10_000, "large": 100_000, "huge": 1_000_000}


@dataclass
class AutoConfig:
    """Whether the size of the corpus chooses one of `configs/size`, as `+size=NAME` does."""

    minutes: float | None = key(
        None, "time on two CPU cores, by which the steps are scaled; null: nothing is chosen",
        low=0.1, high=1e6,
    )  # fmt: skip


@dataclass
class Config:
    """A whole run."""

    data: DataConfig = field(default_factory=DataConfig)
    model: Any = field(default_factory=TransformerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    log: LogConfig = field(default_factory=LogConfig)
    auto: AutoConfig = field(default_factory=AutoConfig)
    seed: int = key(1, "every random draw of the run follows from it", low=0, high=2**31 - 1)
    device: str = key("auto", "where to compute", pattern=DEVICE, free=True)
    threads: int | None = key(None, "CPU threads; null: torch chooses", low=1, high=1024, free=True)
    run_name: str | None = key(None, "folder; null: named by its config", pattern=FOLDER, free=True)
    checkpoint_dir: str = key("checkpoints", "where run folders live", free=True, path=True)


def source_tag(data: DataConfig) -> str | None:
    """Return the tag that evaluation puts before a source sentence, or None.

    It is the one that training used for this language pair. Where some of its corpora have a tag,
    as back-translated ones do, and another has none, that one is what evaluation resembles.
    """
    tags = [c.tag for c in data.corpora if (c.src, c.tgt) == (data.src, data.tgt)]
    return None if None in tags else next(iter(tags), None)


def trained_pairs(data: DataConfig) -> list[tuple[str, str]]:
    """Return the language pairs, source and target, of the training mixture."""
    return list(dict.fromkeys((corpus.src, corpus.tgt) for corpus in data.corpora))


def source_tags(data: DataConfig) -> dict[tuple[str, str], str | None]:
    """Return ``source_tag`` for every language pair of the training mixture."""
    pairs = trained_pairs(data)
    return {(src, tgt): source_tag(replace(data, src=src, tgt=tgt)) for src, tgt in pairs}


def register_schemas() -> None:
    """Tell Hydra the schemas that the YAML files of ``configs/`` are checked against."""
    store = ConfigStore.instance()
    # The model's own schema comes from its group; a default here could not be replaced by another.
    store.store(name="config_schema", node=OmegaConf.structured(Config(model=None)))
    groups = {"data": DataConfig, "train": TrainConfig, "decode": DecodeConfig, "log": LogConfig}
    for group, schema in groups.items():
        store.store(group=group, name=f"{group}_schema", node=schema)
    for name, schema in MODELS.items():
        store.store(group="model", name=f"{name}_schema", node=schema)


def walk(section: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Yield (dotted key, field, value) of every leaf of a config dataclass."""
    for item in dataclasses.fields(section):
        value, path = getattr(section, item.name), f"{prefix}{item.name}"
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{path}.")
        elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
            for number, entry in enumerate(value):
                yield from walk(entry, f"{path}.{number}.")
        else:
            yield path, item, value
