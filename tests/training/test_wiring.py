"""Every key of regularisation reaches what is learnt, scored or loaded, in both model families."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tinyruns
from dragoman import settings
from dragoman.config import Config, CorpusConfig
from dragoman.data.preparation import (
    build_training_set,
    prepare_texts,
    train_or_load_tokenizers,
)
from dragoman.decoding.translator import load_translator
from dragoman.models.weights import read_tensors, weights_of
from dragoman.training import trainer as trainer_module
from dragoman.training.distributed import Ranks
from dragoman.training.trainer import Trainer
from dragoman.training.validation import Figures, Validator

PLAIN: dict[str, Any] = {
    "model.dropout": 0.0,
    "train.teacher_forcing": 1.0,
    "train.label_smoothing": 0.0,
    "train.optimizer": "sgd",
    "train.lr": 0.5,
}
FAMILIES = {
    "transformer": {**tinyruns.TRANSFORMER, **PLAIN},
    "rnn": {**tinyruns.RNN, **PLAIN, "model.decoder_layers": 2},
}
BOTH: list[dict[str, Any]] = [
    {"model.dropout": 0.3},
    {"model.embedding_dropout": 0.3},
    {"model.word_dropout": 0.3},
    {"train.label_smoothing": 0.2},
    {"train.teacher_forcing": 0.3},
    {"train.teacher_forcing_schedule": "linear", "train.teacher_forcing_steps": 1},
    {"train.risk": 0.5},
    {"data.tokenizer.sampling_alpha": 0.3},
    {"data.augment.upper": 0.9},
    {"data.augment.typos": 0.9},
    {"data.augment.joined": 0.9},
]
OWN: dict[str, list[dict[str, Any]]] = {
    "transformer": [{"model.attention_dropout": 0.3}, {"model.activation_dropout": 0.3}],
    "rnn": [{"model.readout_dropout": 0.3}],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tinyruns.write_pairs(folder / "text")
    return folder


def trainer(home: Path, folder: Path, model: dict[str, Any]) -> Trainer:
    options = {"checkpoint_dir": str(folder), "log__tensorboard": False, "train__warmup_steps": 0}
    config = tinyruns.config(home, model, **options)
    run = tinyruns.run_of(config)
    run.create()
    return Trainer(config, run, Ranks())


def learnt(home: Path, folder: Path, model: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights after two steps."""
    made = trainer(home, folder, model)
    for _ in range(2):
        made.step(made.stream.take(1))
    return weights_of(made.module)


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return any(not torch.allclose(tensor, other[name], atol=1e-5) for name, tensor in one.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_regulariser_changes_what_is_learnt(family: str, home: Path, tmp_path: Path) -> None:
    bare = FAMILIES[family]
    plain, again = (learnt(home, tmp_path / name, bare) for name in ("plain", "again"))
    assert not differ(plain, again)
    for number, changes in enumerate([*BOTH, *OWN[family]]):
        assert differ(learnt(home, tmp_path / str(number), {**bare, **changes}), plain), changes
    bpe = {**bare, "data.tokenizer.algorithm": "bpe", "data.tokenizer.vocab_size": 70}
    dropped = {**bpe, "data.tokenizer.bpe_dropout": 0.3}
    assert differ(learnt(home, tmp_path / "bpe", bpe), learnt(home, tmp_path / "dropped", dropped))


@pytest.mark.parametrize("draw", ["token", "batch"])
def test_a_batch_is_forced_by_one_coin_a_step_or_by_one_a_word(
    draw: str, home: Path, tmp_path: Path
) -> None:
    options = {"train.teacher_forcing": 0.5, "train.teacher_forcing_draw": draw}
    made = trainer(home, tmp_path, {**FAMILIES["rnn"], **options})
    coins = made.draw(made.fetch(made.stream.take(1)[0]), 1, 0)
    assert coins is not None
    assert coins.any()
    assert not coins.all()
    assert bool((coins == coins[0]).all()) == (draw == "batch")


@pytest.mark.parametrize("family", FAMILIES)
def test_candidates_are_drawn_without_dropout(
    family: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path, {**FAMILIES[family], "train.risk": 0.5, "model.dropout": 0.3})
    drawn, modes = trainer_module.candidates, []

    def note(model: Any, *rest: Any) -> Any:
        modes.append(made.module.training)
        return drawn(model, *rest)

    monkeypatch.setattr(trainer_module, "candidates", note)
    made.step(made.stream.take(1))
    assert modes == [False]
    assert made.module.training


@pytest.mark.parametrize("family", FAMILIES)
def test_the_moving_average_is_updated_scored_saved_and_loaded(
    family: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path, {**FAMILIES[family], "train.ema_decay": 0.5})
    expected = {name: tensor.clone() for name, tensor in weights_of(made.module).items()}
    for step in (1, 2, 3):
        made.step(made.stream.take(1))
        rate = 1 - min(0.5, (1 + step) / (10 + step))
        for name, tensor in weights_of(made.module).items():
            expected[name] += rate * (tensor - expected[name])
    raw = {name: tensor.clone() for name, tensor in weights_of(made.module).items()}
    assert differ(raw, expected)
    seen: list[dict[str, Tensor]] = []

    def score(validator: Validator) -> tuple[Figures, list[str]]:
        seen.append({name: tensor.clone() for name, tensor in weights_of(made.module).items()})
        return Figures(1.0, 2.0, 0.5, 0.0), [""] * len(validator.src_lines)

    monkeypatch.setattr(Validator, "score", score)
    made.save()  # before there was any validation: what it would score
    made.validate()
    made.save()
    torch.testing.assert_close(seen[0], expected)
    assert not differ(weights_of(made.module), raw)
    settings.save(made.config, made.run.folder / "config.yaml")
    for weights, wanted in ((None, expected), ("ema", expected), ("raw", raw)):
        model: Any = load_translator([made.run], "last", weights, "cpu").models[0]
        torch.testing.assert_close(weights_of(model), wanted)


@pytest.mark.parametrize("ema", [0.0, 0.5])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_final_average_is_of_what_was_scored_and_is_scored(
    family: str,
    ema: float,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[dict[str, Tensor]] = []
    losses = iter([3.0, 2.5, 1.0])

    def score(validator: Validator) -> tuple[Figures, list[str]]:
        module: Any = validator.translator.models[0]
        seen.append({name: tensor.clone() for name, tensor in weights_of(module).items()})
        return Figures(next(losses), 2.0, 0.5, 0.0), [""] * len(validator.src_lines)

    monkeypatch.setattr(Validator, "score", score)
    options = {"train__max_steps": 4, "train__validate_every": 2, "train__checkpoint_every": 2}
    config = tinyruns.config(
        home, FAMILIES[family], checkpoint_dir=str(tmp_path), train__average_last=2,
        train__ema_decay=ema, log__tensorboard=False, **options,
    )  # fmt: skip
    run = tinyruns.train_run(config)
    assert "average of steps 2, 4: loss 1.000  BLEU 0.00, kept" in capsys.readouterr().err
    file = "ema.safetensors" if ema else "model.safetensors"
    files = [read_tensors(run.folder / f"step-{step}" / file) for step in (2, 4)]
    mean = {name: (tensor + files[1][name]) / 2 for name, tensor in files[0].items()}
    torch.testing.assert_close(seen[:2], files)
    torch.testing.assert_close(seen[2], mean)
    assert json.loads((run.folder / "step-4" / "state.json").read_text())["scored"] == "average"
    model: Any = load_translator([run], device="cpu").models[0]
    torch.testing.assert_close(weights_of(model), mean)


def mixed(home: Path, corpora: list[CorpusConfig], **tokenizer: Any) -> Config:
    options = {f"data__tokenizer__{name}": value for name, value in tokenizer.items()}
    return tinyruns.config(home, data__corpora=[asdict(c) for c in corpora], **options)


def test_every_corpus_has_its_own_tag(home: Path) -> None:
    tags = ("<2en>", None, "<2de>")
    pairs = (("de", "en"), ("de", "en"), ("en", "de"))
    config = mixed(
        home, [CorpusConfig("files", *pair, tag=t) for pair, t in zip(pairs, tags, strict=True)]
    )
    texts = prepare_texts(config.data)
    tokenizers = train_or_load_tokenizers(config.data, texts)
    made = build_training_set(config.data, texts, *tokenizers, seed=1)
    size = made.counts["pairs"] // 3
    for number, tag in enumerate(tags):
        entries = np.array([number * size, number * size + 7])
        rows, _ = made.rows(entries, 0)
        for start in (0, int(rows.lengths[0])):
            first = tokenizers[0].tokens([int(rows.flat[start])])[0]
            assert (first in ("<2en>", "<2de>")) == (tag is not None)
            assert tag in (None, first)


@pytest.mark.parametrize(
    "words", [{"sampling_alpha": 0.2}, {"algorithm": "bpe", "vocab_size": 70, "bpe_dropout": 0.3}]
)
def test_segmentations_are_drawn_anew_each_epoch(words: dict[str, Any], home: Path) -> None:
    config = mixed(home, [CorpusConfig("files")], **words)
    texts = prepare_texts(config.data)
    tokenizers = train_or_load_tokenizers(config.data, texts)
    made = build_training_set(config.data, texts, *tokenizers, seed=1)
    entries = np.arange(40)
    (one, _), (other, _) = (made.rows(entries, epoch) for epoch in (0, 1))
    assert one.flat.tolist() != other.flat.tolist()
    assert tokenizers[0].decode(one.flat.tolist()) == tokenizers[0].decode(other.flat.tolist())
