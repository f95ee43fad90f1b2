"""The recipe that the size of the corpus chooses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import dragoman
import tinyruns
from dragoman import settings
from dragoman.compose import compose_config
from dragoman.config import SIZES, Config, DataConfig
from dragoman.launch import main

AUTO = ["+experiment=auto", "data.src=de", "data.tgt=en"]


def composed(pairs: int, *words: str) -> Config:
    return compose_config(tinyruns.CONFIGS, [*AUTO, *words], lambda _: pairs)[0]


def recipe(size: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((tinyruns.CONFIGS / f"size/{size}.yaml").read_text())
    return found


def test_every_size_is_there_and_sets_the_same_keys() -> None:
    assert {path.stem for path in (tinyruns.CONFIGS / "size").iterdir()} == {*SIZES}
    keys = [{f"{s}.{key}" for s, section in recipe(size).items() for key in section}
            for size in SIZES]  # fmt: skip
    assert all(found == keys[0] for found in keys)
    vocabularies = [recipe(size)["data"]["tokenizer"]["vocab_size"] for size in SIZES]
    assert vocabularies == sorted(vocabularies)
    assert [*SIZES.values()] == sorted(SIZES.values())


def test_the_readme_has_the_table_of_the_sizes() -> None:
    readme = (tinyruns.ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+|any) \| (.+) \|$", readme, re.MULTILINE)
    assert [name for name, _, _ in rows] == [*SIZES]
    for name, least, cells in rows:
        found = recipe(name)
        model, steps = found["model"], found["train"]["max_steps"]
        vocabulary = found["data"]["tokenizer"]["vocab_size"]
        layers = f"{model['encoder_layers']} + {model['decoder_layers']}"
        assert least.strip() == (f"{SIZES[name]:,}" if SIZES[name] else "any")
        assert cells.split(" | ") == [
            f"{vocabulary:,}", str(model["d_model"]), layers, str(model["d_ff"]),
            str(model["dropout"]), f"{steps:,}",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "size"),
    [(1, "tiny"), (999, "tiny"), (1000, "small"), (9999, "small"), (10_000, "medium"),
     (99_999, "medium"), (100_000, "large"), (1_000_000, "huge"), (10**9, "huge")],
)  # fmt: skip
def test_the_number_of_pairs_chooses(pairs: int, size: str) -> None:
    found, wanted = settings.to_dict(composed(pairs)), recipe(size)
    for section in ("model", "train"):
        assert found[section].items() >= wanted[section].items()
    assert found["data"]["tokenizer"]["vocab_size"] == wanted["data"]["tokenizer"]["vocab_size"]
    assert found["data"]["tokenizer"]["byte_fallback"]
    assert found["data"]["augment"]["typos"] > 0


def test_minutes_scale_the_steps() -> None:
    hour, short = composed(50_000).train, composed(50_000, "auto.minutes=6").train
    for key in ("max_steps", "schedule_steps", "warmup_steps", "validate_every",
                "checkpoint_every"):  # fmt: skip
        assert getattr(short, key) == getattr(hour, key) / 10
    assert composed(50_000, "auto.minutes=0.1").train.warmup_steps == 1
    with_data = composed(50_000, "auto.minutes=6", "data=multi30k", "data.src=de")
    assert with_data.data.name == "multi30k"
    assert with_data.train == short


def test_what_is_typed_is_not_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    found = composed(
        50, "auto.minutes=30", "train.max_steps=77", "train.schedule_steps=77",
        "train.warmup_steps=7", "data.tokenizer.vocab_size=300", "model.d_model=64",
    )  # fmt: skip
    assert (found.train.max_steps, found.train.schedule_steps, found.train.warmup_steps) == (
        77, 77, 7,
    )  # fmt: skip
    assert found.train.validate_every == recipe("tiny")["train"]["validate_every"] / 2
    assert (found.data.tokenizer.vocab_size, found.model.d_model) == (300, 64)
    assert capsys.readouterr().err == (
        "auto: 50 training pairs, size=tiny: vocabulary 300, width 64, 2 + 2 layers, dropout 0.3; "
        "77 steps (30 minutes on two CPU cores)\n"
    )
    by_hand = composed(50, "+size=large")
    assert by_hand.data.tokenizer.vocab_size == recipe("large")["data"]["tokenizer"]["vocab_size"]


def test_other_recipes_are_left_alone() -> None:
    def never(_: DataConfig) -> int:
        raise AssertionError("nothing is to be counted")

    words = ["+experiment=transformer"]
    found, plain = (compose_config(tinyruns.CONFIGS, words, count)[0] for count in (never, None))
    assert found == plain
    sized = compose_config(tinyruns.CONFIGS, ["+size=small", "auto.minutes=null"], never)[0]
    assert sized.model.d_model == recipe("small")["model"]["d_model"]


def words(folder: Path, *more: str) -> list[str]:
    small = tinyruns.overrides(folder, run_name=None)
    drop = ("data=", "model=", "model.name", "train.", "data.clean")
    return ["+experiment=auto", *(w for w in small if not w.startswith(drop)),
            "data.clean.duplicates=none", "auto.minutes=0.2", "train.batch_size=200",
            "data.tokenizer.byte_fallback=false", *more]  # fmt: skip


def test_a_run_is_chosen_trained_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tinyruns.write_pairs(tmp_path / "text")
    assert main(words(tmp_path)) == 0
    said = capsys.readouterr().err
    assert said.count("auto: 120 training pairs, size=tiny: ") == 1
    (run,) = (tmp_path / "checkpoints").iterdir()
    assert run.name.startswith("auto-de-en-s1-")
    saved = settings.load(run / "config.yaml")
    assert saved.train.max_steps == round(recipe("tiny")["train"]["max_steps"] / 300)
    assert main(words(tmp_path)) == 0
    assert "nothing to do" in capsys.readouterr().err
    # The door of Python chooses the same, of pairs in memory, too.
    lines = [(tmp_path / f"text/train.{code}").read_text().splitlines() for code in ("de", "en")]
    pairs = list(zip(*lines, strict=True))
    options = [w for w in words(tmp_path) if not w.startswith(("data.root", "data.clean"))]
    found = dragoman.train(*options, "data.src=de", pairs={"train": pairs, "val": pairs[:4]})
    assert "auto: 120 training pairs, size=tiny: " in capsys.readouterr().err
    assert found.translator().config.train.max_steps == saved.train.max_steps


def test_the_jobs_of_a_sweep_must_be_of_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tinyruns.write_pairs(tmp_path / "text")
    assert main(["-m", "seed=1,2", *words(tmp_path)]) == 0
    assert len([p for p in (tmp_path / "checkpoints").iterdir() if p.name[0] != "."]) == 2
    capsys.readouterr()
    sweep = [w for w in words(tmp_path) if not w.startswith("auto.")]
    assert main(["-m", "auto.minutes=0.2,0.4", *sweep]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: auto.minutes: chooses differently for the jobs of this sweep;")


def test_a_missing_file_is_named_before_anything_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*AUTO, "data.pairs=gone.tsv"]) == 2
    assert capsys.readouterr().err == "error: gone.tsv: no such file (data.pairs)\n"
