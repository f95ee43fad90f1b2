"""Sweeps: a run that diverges ends alone; Optuna is told the best scores and finds the best run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import tinyruns
from dragoman import launch


def test_a_run_that_diverges_does_not_end_its_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HYDRA_FULL_ERROR", launch.NOTES):  # main sets them
        monkeypatch.setenv(name, "1")
    monkeypatch.chdir(tmp_path)
    tinyruns.write_pairs(tmp_path / "text")
    changes = {"train__lr": "1e30,1e-3,2e-3", "train__max_steps": 2}
    words = tinyruns.overrides(tmp_path, run_name=None, **changes)
    assert launch.main(["-m", *words, "train.validate_every=2"]) == 2
    first, failed = capsys.readouterr().err.splitlines()[-2:]
    assert first == "1 of 3 runs failed:"
    assert failed.startswith("  train.lr=1e+30: ")
    assert "the gradient norm of step 2 is nan" in failed
    ended = [json.loads(path.read_text()) for path in tmp_path.rglob("step-2/state.json")]
    assert [state["finished"] for state in ended] == [True, True]


@pytest.mark.slow
def test_optuna_maximises_the_best_score_on_validation(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs dragoman[search]")
    tinyruns.write_pairs(tmp_path / "text")
    words = tinyruns.overrides(tmp_path, tinyruns.TRANSFORMER, run_name=None, train__metric="bleu",
                               train__max_steps=60, train__schedule_steps=60)  # fmt: skip
    words = [word for word in words if not word.startswith("train.lr=")]
    search = [
        "hydra/sweeper=optuna",
        "hydra.sweeper.direction=maximize",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.sampler.seed=1",
        "train.lr=tag(log,interval(1e-5,1e-2))",
    ]
    done = tinyruns.call("train.py", "-m", *words, *search, cwd=tinyruns.ROOT)
    assert done.returncode == 0, done.stderr
    found = {}
    for path in (tmp_path / "checkpoints").glob("*/last"):
        folder = path.parent / path.read_text().strip()
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        found[saved["train"]["lr"]] = json.loads((folder / "state.json").read_text())["best_score"]
    assert len(found) == 3
    (notes,) = (tmp_path / "checkpoints" / ".sweeps").rglob("optimization_results.yaml")
    said = yaml.safe_load(notes.read_text())
    assert said["best_value"] == pytest.approx(max(found.values()))
    assert found[said["best_params"]["train.lr"]] == pytest.approx(max(found.values()))
