"""The results table: it says what its evidence says, and trains what is missing."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

import tinyruns
from dragoman import cli, settings
from dragoman.compose import compose_config
from dragoman.config import Config

MULTI30K = Path(os.environ.get("MULTI30K", tinyruns.ROOT / "data" / "multi30k" / "raw"))

WILD = Path(os.environ.get("WILD", tinyruns.ROOT / "data" / "wild"))

MODELS = sorted((tinyruns.ROOT / "docs" / "results" / "models").iterdir())


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(tinyruns.ROOT / "scripts")
    return importlib.import_module("results")


@pytest.mark.skipif(
    not ((MULTI30K / "val.de.gz").exists() and (WILD / "deu-eng.zip").exists()),
    reason="needs Multi30k and Tatoeba",
)
@pytest.mark.slow
def test_the_page_is_what_its_evidence_gives(results: ModuleType) -> None:
    page = (tinyruns.ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results.page.page(results.read_rows(), MULTI30K)


def validated(config: Config) -> set[int]:
    return {*range(0, config.train.max_steps, config.train.validate_every), config.train.max_steps}


@pytest.mark.slow
def test_the_commands_on_the_page_are_those_of_the_runs(results: ModuleType) -> None:
    """Keys that change the weights are the same, and so are the steps that were validated."""
    checked = 0
    for row in results.read_rows():
        for seed in row.seeds:
            folder = results.evidence(row, seed)
            if not results.is_done(row, seed):
                continue
            words = [*row.words_for(seed), f"seed={seed}"]
            pairs = row.pairs
            config = compose_config(tinyruns.CONFIGS, words, lambda _, pairs=pairs: pairs)[0]
            config = settings.portable(config)
            there = settings.load(folder / "config.yaml")
            if json.loads((folder / "run.json").read_text())["weights"] == "raw":
                there.train.ema_decay = config.train.ema_decay  # an average that is not scored
            assert settings.fixed_keys(there) == settings.fixed_keys(config), row.name
            assert validated(there) == validated(config), row.name
            checked += 1
    assert checked > 50


def test_more_runs_than_gpus_share_them(
    results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert results.places(None) == [["device=cuda:0"], ["device=cuda:1"]]
    assert results.places(1) == [["device=cuda:0"]]
    devices, threads = zip(*results.places(3), strict=True)
    assert devices == ("device=cuda:0", "device=cuda:1", "device=cuda:0")
    assert set(threads) == {"threads=1"}


def on_validation(results: ModuleType) -> dict[str, dict[str, float]]:
    """Return the BLEU on validation of every run of the results, by pair and name."""
    found: dict[str, dict[str, float]] = {}
    for row in results.read_rows():
        for seed in row.seeds:
            folder = results.evidence(row, seed)
            if row.split == results.page.SPLIT and results.is_done(row, seed):
                data = settings.load(folder / "config.yaml").data
                bleu = results.page.on_validation([folder])
                found.setdefault(f"{data.src}-{data.tgt}", {})[f"{row.name}-s{seed}"] = bleu
    return found


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.name)
def test_the_models_that_come_along_are_the_best_on_validation(
    results: ModuleType, model: Path
) -> None:
    runs = on_validation(results)[model.name]
    best = max(runs, key=lambda name: runs[name])
    said = (model / "README.txt").read_text()
    assert f"run {best}, " in said
    assert f"BLEU {runs[best]:.2f} on val" in said
    assert sum(path.stat().st_size for path in model.iterdir()) <= 25e6


@pytest.mark.slow
@pytest.mark.skipif(not (MULTI30K / "val.de.gz").exists(), reason="needs Multi30k")
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.name)
def test_half_precision_costs_them_nothing(
    results: ModuleType, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / model.name
    shutil.copytree(model, copy)
    assert cli.main(["evaluate", str(copy), "--root", str(MULTI30K), "--split", "val"]) == 0
    found = json.loads((copy / "scores.val.json").read_text())["bleu"]["score"]
    assert found == pytest.approx(max(on_validation(results)[model.name].values()), abs=0.1)


@pytest.mark.slow
def test_missing_runs_are_trained_scored_and_collected(
    results: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    args = tinyruns.overrides(tmp_path, tinyruns.TRANSFORMER, train__max_steps=4)
    args = [word for word in args if not word.startswith(("run_name=", "checkpoint_dir="))]
    made = {"text": "made", "what": "Tests", "by": ["small-s1"], "input": "{data}/text/test.d*"}
    rows = [{"row": "more", "args": args, "texts": ["made"]},
            {"row": "small", "args": args, "seeds": [1, 2]},
            {"row": "large", "args": args, "seeds": [1], "gpu": True}]  # fmt: skip
    small = "{runs}/small-s1"
    further = [*args, f"train.init_from={small}", f"data.tokenizer.from_run={small}"]
    tried = [
        {"row": "wider", "args": [*args, "model.d_ff=30"], "why": "More is more."},
        {"row": "longer", "args": further, "after": ["small-s1"]},
        {"row": "voted", "of": "small", "search": ["decode.method=mbr"]},
    ]
    goals = [{"what": what, "row": "small", "metric": "bleu", "least": least}
             for what, least in (("low", 0.0), ("high", 101.0))]  # fmt: skip
    sections = {"goals": goals, "recipes": {"In four steps": tried}, "texts": [made]}
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump({"results": rows, **sections}))
    monkeypatch.setattr(results.page, "ROWS", tmp_path / "rows.yaml")
    monkeypatch.setattr(results.page, "RESULTS", tmp_path / "docs" / "results")
    monkeypatch.setattr(results.page, "SPLIT", "test")
    own = [f"checkpoint_dir={tmp_path / 'runs'}", f"data.root={tmp_path / 'text'}"]
    results.main(["--jobs", "2", *own])
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "* large: seed 1 (with `ARGS=--all`, or where there is a GPU)\n" in page
    scores, validated = [], []
    for seed in (1, 2):
        folder = tmp_path / "docs" / "results" / "small" / str(seed)
        assert {"config.yaml", "train.jsonl", "run.json", "scores.val.json",
                "hypotheses.test.txt"} <= {path.name for path in folder.iterdir()}  # fmt: skip
        assert json.loads((folder / "run.json").read_text())["threads"] == "1"
        scores.append(json.loads((folder / "scores.test.json").read_text())["bleu"]["score"])
        validated.append(json.loads((folder / "scores.val.json").read_text())["bleu"]["score"])
    means = f"{sum(validated) / 2:.2f} | **{sum(scores) / 2:.2f} (sd"
    assert f"| the pair alone | 1, 2 | {means}" in page
    command = "`dragoman backtranslate checkpoints/small-s1 --root data/"
    assert re.search(rf"\n\* made: \d lines, Tests, {command}", page)
    assert (tmp_path / "synthetic" / "made.de").exists()
    assert (tmp_path / "docs" / "results" / "texts" / "made.json").exists()
    assert "| wider | More is more. | not trained yet |" in page
    mean = sum(scores) / 2
    of_both = f"[small](results/small) | {mean:.2f} | {scores[0]:.2f}, {scores[1]:.2f}"
    assert f"| low | `bleu` 0.0 | {of_both} | reached |" in page
    assert f"| high | `bleu` 101.0 | {of_both} | missed by {101 - mean:.2f} |" in page
    # What is unfinished, or scored with another search, is no evidence.
    state = tmp_path / "runs" / "small-s1" / "step-4" / "state.json"
    scored = tmp_path / "runs" / "small-s1" / "scores.test.json"
    for path, old, new, words in (
        (state, '"finished": true', '"finished": false', "stands at step 4; train it to its end"),
        (scored, '"beam_size": 2', '"beam_size": 8', "of another search or checkpoint"),
    ):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(SystemExit):
            results.main(["--collect", str(state.parents[1]), *own])
        assert words in capsys.readouterr().err
        path.write_text(text)
    # Recipes tried are trained when asked for, and never see a test split.
    results.main(["--recipes", *own])
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "### In four steps" in page
    assert "| More is more. |" in page
    assert f"**{sum(scores) / 2:.2f} (sd" in page
    wider = tmp_path / "docs" / "results" / "recipes" / "wider" / "1"
    kept = {"config.yaml", "hypotheses.val.txt", "run.json", "scores.val.json", "train.jsonl"}
    assert {path.name for path in wider.iterdir()} == kept
    assert not list((tmp_path / "runs" / "wider-s1").glob("scores.test*"))
    # One goes on from the run of another, one is only scored again with another search.
    assert "train.init_from=checkpoints/small-s1 data.tokenizer.from_run=checkpoints/" in page
    assert " scored with `decode.method=mbr` |" in page
    tried_there = tmp_path / "docs" / "results" / "recipes"
    saved = settings.load(tried_there / "longer" / "1" / "config.yaml")
    assert saved.train.init_from == saved.data.tokenizer.from_run == "checkpoints/small-s1"
    voted = json.loads((tried_there / "voted" / "1" / "scores.val.json").read_text())
    assert voted["decoding"]["method"] == "mbr"
    assert not (tmp_path / "runs" / "voted-s1").exists()
    own_search = json.loads((tmp_path / "runs" / "small-s1" / "scores.val.json").read_text())
    assert own_search["decoding"]["method"] == "beam"
    # A row that cannot be made ready does not keep the others from being trained.
    stuck = {"row": "stuck", "args": args, "texts": ["none"]}
    nothing = {"text": "none", "what": "Nothing", "by": ["small-s2"], "input": "nothing"}
    rows = [stuck, *rows, {"row": "late", "args": args}]
    rows.append({"row": "behind", "args": args, "after": ["stuck-s1"]})
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump({"results": rows, "texts": [made, nothing]}))
    with pytest.raises(SystemExit):
        results.main(own)
    said = capsys.readouterr().err
    assert "error: stuck: " in said
    assert "error: behind: waits for stuck-s1" in said
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "* stuck: seed 1" in page
    assert "[late](results/late)" in page
    # What is there is not trained again, and a changed hypothesis is noticed.
    (tmp_path / "rows.yaml").write_text(yaml.safe_dump({"results": rows[1:-1], "texts": [made]}))
    results.main(own)
    assert "train.py" not in capsys.readouterr().out
    (folder / "hypotheses.test.txt").write_text("changed\n" * 8)
    with pytest.raises(SystemExit):
        results.main(own)
    assert "the hypotheses score" in capsys.readouterr().err
    # So is a changed figure, of every metric.
    written = folder / "scores.test.json"
    said = json.loads(written.read_text())
    shutil.copy(tmp_path / "runs" / "small-s2" / "hypotheses.test.txt", folder)
    results.main(own)
    for name in results.page.COLUMNS:
        changed = {**said, name: {**said[name], "score": said[name]["score"] + 0.01}}
        written.write_text(json.dumps(changed))
        with pytest.raises(SystemExit):
            results.main(own)
        assert f" {name}, not what is said" in capsys.readouterr().err
