"""Every recipe in ``configs/experiment`` composes, and trains two steps with its own choices."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pytest
import yaml

import tinyruns
from dragoman.compose import compose_config
from dragoman.config import Config, RNNConfig
from dragoman.runs import Run, run_name
from dragoman.training.loop import train

EXPERIMENTS = sorted(path.stem for path in tinyruns.CONFIGS.glob("experiment/*.yaml"))

SMALL = [
    "train.max_steps=2",
    "train.validate_every=1",
    "train.checkpoint_every=1",
    "log.every=1",
    "log.samples=1",
    "log.graph=false",
    "model.dropout=0.1",
    "data.max_length=40",
    "data.tokenizer.min_freq=1",
    "data.tokenizer.byte_fallback=false",  # the bytes alone are more than so small a vocabulary
    "device=cpu",
    "threads=1",
]
# What is too large for a test, by architecture.
WIDTHS = {
    "transformer": {"d_model": 16, "num_heads": 2, "d_ff": 24},
    "rnn": {"d_model": 12, "d_embed": 10},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a little text under the names of Multi30k's unpacked files."""
    folder = tmp_path_factory.mktemp("experiments")
    text = tinyruns.write_pairs(folder / "text", train=60, val=4)
    for language in ("de", "en"):
        (text / f"test.{language}").rename(text / f"test_2016_flickr.{language}")
        (folder / "synthetic").mkdir(exist_ok=True)
        for name in ("task2", "task2_forward", "german_1", "german_2", "english_1", "english_2"):
            shutil.copy(text / f"train.{language}", folder / "synthetic" / f"{name}.{language}")
    for language in ("fr", "cs"):  # are as good as any
        for path in text.glob("*.en"):
            shutil.copy(path, path.with_suffix(f".{language}"))
    return folder


@functools.cache  # tests read it only
def composed(name: str, home: Path, *more: str) -> tuple[Config, str | None]:
    return compose_config(
        tinyruns.CONFIGS,
        [
            f"+experiment={name}",
            f"data.root={home / 'text'}",
            f"data.cache={home / 'cache'}",
            f"checkpoint_dir={home / 'checkpoints'}",
            *more,
        ],
    )


def small(name: str, home: Path) -> tuple[Config, str | None]:
    model = composed(name, home)[0].model
    widths = dict(WIDTHS[model.name])
    if isinstance(model, RNNConfig) and model.encoder_hidden is not None:
        widths["encoder_hidden"] = 6
    if isinstance(model, RNNConfig) and model.attention == "dot":
        widths["d_embed"] = widths["d_model"]
    config = composed(name, home)[0]
    more = [f"model.{key}={value}" for key, value in widths.items()]
    if config.train.batch_type == "tokens":
        more.append("train.batch_size=200")
    if config.data.name == "captions":  # as large a corpus is not needed to try the recipe
        more += ["data.name=multi30k", "data.corpora=[{source:multi30k}]"]
    return composed(name, home, *SMALL, "data.tokenizer.vocab_size=90", *more)


def test_there_are_the_recipes_that_the_documentation_names() -> None:
    promised = {
        "demo",
        "transformer",
        "rnn_additive",
        "rnn_scaled_dot",
        "lstm_additive",
        "tutorial",
    }
    assert promised <= set(EXPERIMENTS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_what_it_is(name: str) -> None:
    lines = (tinyruns.CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# ")
    assert len(lines[1]) > 20


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_as_it_stands(name: str, home: Path) -> None:
    config, experiment = composed(name, home)
    assert experiment == name
    pair = f"{config.data.src}-{config.data.tgt}"
    assert run_name(config, experiment).startswith(f"{name}-{pair}-s1-")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_trains_two_steps(name: str, home: Path) -> None:
    config, experiment = small(name, home)
    run = Run(Path(config.checkpoint_dir) / run_name(config, experiment))
    train(config, run)
    folder = run.checkpoint("last")
    assert folder.name == "step-2"
    assert json.loads((folder / "state.json").read_text())["finished"] is True
    own = yaml.safe_load((tinyruns.CONFIGS / "experiment" / f"{name}.yaml").read_text())
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    for key, value in own.get("model", {}).items():
        if f"model.{key}" not in {"model.dropout"} and key not in WIDTHS[config.model.name]:
            assert saved["model"][key] == value or key == "encoder_hidden", key


def test_runs_of_two_experiments_never_share_a_folder(home: Path) -> None:
    names = [run_name(*composed(name, home)) for name in EXPERIMENTS]
    assert len(set(names)) == len(EXPERIMENTS)


def test_the_tutorial_is_the_published_system(home: Path) -> None:
    config, _ = composed("tutorial", home)
    model, train_, tokenizer = config.model, config.train, config.data.tokenizer
    assert isinstance(model, RNNConfig)
    assert (model.cell, model.encoder_layers, model.decoder_layers) == ("lstm", 2, 2)
    assert (model.d_model, model.d_embed, model.attention) == (512, 256, "additive")
    assert (tokenizer.kind, tokenizer.form, tokenizer.lowercase) == ("spacy", "plain", True)
    assert (tokenizer.min_freq, train_.batch_type, train_.batch_size) == (2, "sentences", 128)
    assert (train_.teacher_forcing, train_.teacher_forcing_draw) == (0.5, "batch")
    assert (train_.clip_norm, train_.optimizer) == (1.0, "adam")
