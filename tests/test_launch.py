"""Training from a command line: its options, and sweeps in which a job fails."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import tinyruns
from dragoman import launch, plugins
from dragoman.config import Config
from dragoman.errors import DragomanError
from dragoman.runs import run_of
from dragoman.training.loop import Stopped


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep what ``main`` sets for the whole process out of other tests."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("warnings.showwarning", None)
    for name in ("HYDRA_FULL_ERROR", launch.NOTES):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv(plugins.NAMED, "")
    yield
    root.handlers[:] = handlers  # Hydra's help logs to standard output
    root.setLevel(level)


class Fake:
    """Stands in for training: some runs fail, the others have a score."""

    def __init__(self) -> None:
        self.trained: list[Config] = []

    def __call__(self, config: Config, experiment: str | None) -> None:
        self.trained.append(config)
        rate = config.train.lr
        if rate == 1:
            raise DragomanError("the loss is\nnan")
        if rate == 2:
            raise ZeroDivisionError("a bug")
        if rate == 3:
            raise Stopped(15, 7)
        folder = run_of(config, experiment).folder / "step-1"
        folder.mkdir(parents=True, exist_ok=True)
        score = float("nan") if rate == 4 else rate
        (folder / "state.json").write_text(json.dumps({"format_version": 1, "best_score": score}))
        (folder.parent / "last").write_text("step-1")

    @property
    def rates(self) -> list[float]:
        return [config.train.lr for config in self.trained]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    training = Fake()
    monkeypatch.setattr(launch, "_train", training)
    return training


def table(error: str) -> list[str]:
    lines = error.splitlines()
    start = next(number for number, line in enumerate(lines) if line.endswith("runs failed:"))
    return lines[start:]


def test_jobs_that_fail_do_not_end_the_others(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["-m", "train.lr=1,2,4,0.5", "seed=7"]) == 2
    assert fake.rates == [1, 2, 4, 0.5]
    first, *failed = table(capsys.readouterr().err)
    assert first == "3 of 4 runs failed:"
    assert failed[0] == "  train.lr=1: the loss is nan"
    assert failed[1] == "  train.lr=2: ZeroDivisionError: a bug"
    assert failed[2].startswith("  train.lr=4: checkpoints/")
    assert failed[2].endswith("the best score on validation is nan")
    assert len(failed) == 3


def test_a_sweep_without_failures_has_no_table(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["-m", "train.lr=0.5,0.25"]) == 0
    assert capsys.readouterr().err == ""
    assert len(fake.trained) == 2


def test_a_stopped_job_ends_its_sweep(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["-m", "train.lr=1,3,0.5"]) == 128 + 15
    assert fake.rates == [1, 3]
    error = capsys.readouterr().err
    assert "stopped at step 7 by SIGTERM, saved; the same command goes on from there" in error
    assert table(error) == ["1 of 1 runs failed:", "  train.lr=1: the loss is nan"]


def test_values_that_are_wrong_are_refused_before_anything_starts(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["-m", "seed=1,2", "train.lr=1e-3,-1"]) == 2
    assert capsys.readouterr().err == ("error: train.lr: -1.0 is out of range, expected above 0\n")
    assert fake.trained == []


@pytest.mark.slow
def test_a_search_is_told_of_failures_and_goes_on(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs dragoman[search]")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.n_trials=5"]
    assert launch.main(["-m", *search, "train.lr=choice(0.5,1,0.25)", "run_name=0.10"]) == 2
    assert len(fake.rates) == 5
    bad = fake.rates.count(1)
    assert 0 < bad < 5
    assert {config.run_name for config in fake.trained} == {"0.10"}
    first, *failed = table(capsys.readouterr().err)
    assert first == f"{bad} of 5 runs failed:"
    assert failed == ["  train.lr=1: the loss is nan"] * bad
    (notes,) = Path("checkpoints/.sweeps").rglob("optimization_results.yaml")
    best = min(rate for rate in fake.rates if rate != 1)  # by default it minimises
    assert f"best_value: {best}" in notes.read_text()


def test_a_search_in_which_all_fail_says_so(fake: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs dragoman[search]")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"]
    assert launch.main(["-m", *search, "train.lr=choice(1,1)"]) == 2
    first, *rest = table(capsys.readouterr().err)
    assert first == "2 of 2 runs failed:"
    assert rest[-1].startswith("error: ")
    assert len(rest) == 3


@pytest.mark.parametrize(("rate", "status", "words"), [
    (0.5, 0, ""),
    (1, 2, "error: the loss is nan\n"),
    (2, 1, "ZeroDivisionError: a bug\n"),
    (3, 143, "goes on from there\n"),
])  # fmt: skip
def test_a_single_run_ends_with_its_exit_code(
    rate: float, status: int, words: str, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main([f"train.lr={rate}", "hydra.run.dir=."]) == status
    assert capsys.readouterr().err.endswith(words)


SHOWN = {
    "one key": (["--cfg", "job", "-p", "train.lr", "train.lr=0.5"], "0.5\n"),
    "options among words": (["seed=4", "-c", "job", "run_name=0.10", "-p", "run_name"], "0.10\n"),
    "resolved": (["--cfg", "job", "--resolve", "--package", "data.corpora"], "  src: de\n"),
    "help": (["--help"], "experiment: auto, benchmark, demo"),
    "Hydra's help": (["--hydra-help"], "--config-dir"),
    "version": (["--version"], "Hydra 1."),
    "search path": (["--info", "searchpath"], "configs"),
    "completion": (["-sc", "install=bash"], "complete"),
    "folder": (["--config-dir", "more", "model=wide", "-c", "job", "-p", "model.d_model"], "512\n"),
    "short folder": (["-cd=more", "model=wide", "-c", "job", "-p", "model.d_model"], "512\n"),
    "primary": (["-cd", "more", "--config-name", "own", "-c", "job", "-p", "seed"], "9\n"),
    "only folder": (["--config-path", "alone", "-c", "job", "-p", "train.lr"], "0.25\n"),
    "own configs": (["+experiment=mine", "-c", "job", "-p", "seed"], "3\n"),
    "plug-in": (["--plugin", "part.py", "--cfg", "job", "-p", "seed"], "a part\n1\n"),
}  # fmt: skip


@pytest.fixture
def folders(tmp_path: Path) -> None:
    for name, text in {
        "more/model/wide.yaml": "defaults: [transformer]\nd_model: 512\n",
        "more/own.yaml": "defaults: [config, _self_]\nseed: 9\n",
        "alone/config.yaml": "defaults: [config_schema, /model/transformer_schema@model, _self_]\n"
        "train: {lr: 0.25}\ndata: {corpora: [{source: captions}]}\n",
        "configs/experiment/mine.yaml": "# @package _global_\nseed: 3\n",
        "part.py": "print('a part')\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)


@pytest.mark.usefixtures("folders")
@pytest.mark.parametrize(("arguments", "words"), SHOWN.values(), ids=SHOWN)
def test_options_show_what_they_promise(
    arguments: Sequence[str], words: str, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: Any = launch.main(arguments)
    except SystemExit as leaving:  # argparse, of --version
        status = leaving.code
    assert status == 0
    shown = capsys.readouterr()
    assert words in shown.out
    assert shown.err == ""
    assert fake.trained == []


REFUSED = {
    "unknown option": (["--foo"], "--foo: there is no such option"),
    "misspelt option": (["--multrun"], "did you mean '--multirun'?"),
    "option without its value": (["--config-dir"], "argument --config-dir/-cd: expected one arg"),
    "unknown choice": (["--cfg", "jobs"], "invalid choice: 'jobs'"),
    "no folder": (["-cd", "nosuch"], "nosuch: there is no such folder of configs"),
    "no such config": (["-cn", "nosuch"], "Cannot find primary config 'nosuch'"),
    "resolving nothing": (["--resolve"], "The --resolve flag can only be used"),
    "two at once": (["--cfg", "job", "-m"], "Only one of --run"),
    "pickle": (["--experimental-rerun", "x"], "--experimental-rerun: reads a pickle"),
    "no plug-in": (["--plugin", "nosuch.py"], "no such file"),
    "sweep over Hydra's own": (["-m", "hydra.verbose=true,false"], "Sweeping over Hydra's config"),
    "interval without a search": (
        ["-m", "train.lr=interval(0.1,1)"],
        "does not support sweep type",
    ),
    "end of an interval": (["-m", "model.dropout=interval(0.1,1.2)"], "model.dropout: 1.2 is out"),
    "unknown sweeper": (["-m", "hydra/sweeper=nosuch"], "there is no such hydra/sweeper"),
    "unknown launcher": (["-m", "hydra/launcher=nosuch", "seed=1,2"], "no such hydra/launcher"),
}


@pytest.mark.parametrize(("arguments", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(
    arguments: Sequence[str], words: str, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert fake.trained == []


@pytest.mark.parametrize("arguments", [
    ["-m", "seed=1,2,3"],
    ["--multirun", "+experiment=transformer,rnn_additive", "seed=range(1,3)"],
    ["-m", "train.lr=interval(1e-4,1e-3)", "train.warmup_steps=int(interval(1,9))"],
    ["-m", "model.dropout=tag(log,interval(0.01,0.1))"],
    ["hydra.mode=MULTIRUN", "+experiment=glob(rnn_*)"],
])  # fmt: skip
def test_sweeps_are_read(arguments: Sequence[str]) -> None:
    launch.read_command_line(arguments)


def test_the_program_runs_from_anywhere(tmp_path: Path) -> None:
    program = os.path.relpath(tinyruns.ROOT / "train.py", tmp_path)
    done = tinyruns.call(program, "+experiment=demo", "-c", "job", "-p", "data.name", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "captions\n", "")
