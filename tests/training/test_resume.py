"""A run that is killed and started again ends with the bytes of one that was left alone.

Every process here is a fresh one. The moments of the kills are found by watching the run folder,
and a kill that came too late is tried again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tinyruns
from dragoman.compose import compose_config
from dragoman.config import Config
from dragoman.runs import Run

STEPS = 12
SAMPLING = {
    "data__tokenizer__sampling_alpha": 0.3,
    "data__augment__upper": 0.2,
    "data__augment__typos": 0.3,
    "data__augment__joined": 0.3,
    "train__ema_decay": 0.9,
}
EVERYTHING = {
    "train__optimizer": "muon",
    "train__r_drop": 1.0,
    "train__risk": 0.5,
    "train__risk_samples": 3,
}
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rnn": (tinyruns.RNN, EVERYTHING),
    "transformer": (tinyruns.TRANSFORMER, SAMPLING),
}


# Among the quick tests is one polite end of the Transformer's run; the recurrent one takes three
# times as long.
RECURRENT = pytest.param("rnn", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[RECURRENT, *(n for n in MODELS if n != "rnn")])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp(request.param), *MODELS[request.param])


class Case:
    """A kind of run, and one of it that was never disturbed."""

    def __init__(self, home: Path, model: dict[str, Any], changes: dict[str, Any]) -> None:
        self.home, self.model, self.changes = home, model, changes
        tinyruns.write_pairs(home / "text")
        self.undisturbed = tinyruns.run_of(self.config("undisturbed"))
        assert finish(self.config("undisturbed")) == 0

    def config(self, name: str, **more: Any) -> Config:
        return compose_config(tinyruns.CONFIGS, self.overrides(name, **more))[0]

    def overrides(self, name: str, **more: Any) -> list[str]:
        options = {
            "train__max_steps": STEPS,
            "train__checkpoint_every": 1,
            "train__validate_every": 4,
            "checkpoint_dir": str(self.home / name),
            **self.changes,
            **more,
        }
        return tinyruns.overrides(self.home, self.model, **options)

    def check_weights(self, run: Run) -> None:
        for name in ("model.safetensors", "optimizer.safetensors"):
            ends = [r.folder / f"step-{STEPS}" / name for r in (run, self.undisturbed)]
            assert ends[0].read_bytes() == ends[1].read_bytes()

    def check(self, run: Run) -> None:
        """Compare everything that a run leaves with what the undisturbed one left."""
        folder = self.undisturbed.folder / f"step-{STEPS}"
        names = [
            path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".model")
        ]
        assert ("ema.safetensors" in names) == ("train__ema_decay" in self.changes)
        for name in names:
            other = run.folder / f"step-{STEPS}" / name
            assert other.read_bytes() == (folder / name).read_bytes(), name
        assert figures(run) == figures(self.undisturbed)
        assert scalar_steps(run) == scalar_steps(self.undisturbed)
        assert run.checkpoint("best").name == self.undisturbed.checkpoint("best").name
        assert not list(run.folder.glob(".step*"))


def finish(config: Config) -> int | None:
    process = tinyruns.start_training(config)
    process.join(120)
    code: int | None = process.exitcode
    return code


def figures(run: Run) -> list[tuple[int, str, float]]:
    """Return (step, kind, loss) of every line of the log, in order; no step twice."""
    text = (run.folder / "train.jsonl").read_text(encoding="utf-8")
    entries = [json.loads(line) for line in text.splitlines()]
    found = [
        (entry["step"], kind, entry[kind]["loss"])
        for entry in entries
        for kind in ("train", "validation")
        if kind in entry
    ]
    for kind in ("train", "validation"):
        steps = [step for step, which, _ in found if which == kind]
        assert steps == sorted(set(steps)), kind
    return found


def scalar_steps(run: Run) -> dict[str, list[int]]:
    """Return the steps of every curve in TensorBoard, which must increase."""
    reader = EventAccumulator(str(run.folder / "tensorboard"), {"scalars": 0})
    reader.Reload()
    tags = reader.Tags()["scalars"]
    steps = {tag: [event.step for event in reader.Scalars(tag)] for tag in tags}
    assert all(row == sorted(set(row)) for row in steps.values()), steps
    assert steps["train/loss"] == list(range(1, STEPS + 1))
    return steps


def last_step(run: Run) -> int:
    try:
        return int((run.folder / "last").read_text().strip().removeprefix("step-"))
    except (OSError, ValueError):
        return 0


def kill_when(config: Config, moment: Callable[[], bool], number: int = signal.SIGKILL) -> int:
    """Start training, send a signal at the first moment, and return the exit code."""
    process = tinyruns.start_training(config)
    patience = time.monotonic() + 120
    while not moment():
        assert process.is_alive(), f"ended before the moment came: {process.exitcode}"
        assert time.monotonic() < patience
    os.kill(process.pid, number)
    process.join(120)
    code: int = process.exitcode
    return code


@pytest.mark.slow
def test_killed_after_a_checkpoint(case: Case) -> None:
    config = case.config("killed")
    run = tinyruns.run_of(config)
    assert kill_when(config, lambda: last_step(run) >= 4) == -signal.SIGKILL
    assert 4 <= last_step(run) < STEPS
    assert finish(config) == 0
    case.check(run)


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(case: Case) -> None:
    config = case.config("half-written")
    run = tinyruns.run_of(config)

    def writing() -> bool:
        return last_step(run) >= 3 and any(run.folder.glob(".step-*.tmp"))

    kill_when(config, writing)
    for _ in range(20):
        if any(run.folder.glob(".step-*.tmp")):
            break
        kill_when(config, writing)  # it was renamed before the signal came
    assert any(run.folder.glob(".step-*.tmp"))
    assert finish(config) == 0
    case.check(run)


@pytest.mark.slow
def test_killed_during_tokenization(case: Case) -> None:
    for attempt in range(20):
        cache = case.home / f"cache-{attempt}"
        config = case.config("untokenised", data__cache=str(cache))
        kill_when(config, lambda cache=cache: any(cache.glob("*.tmp")))  # type: ignore[misc]
        if any(cache.glob("*.tmp")):
            break
    assert any(cache.glob("*.tmp"))
    assert not tinyruns.run_of(config).has_checkpoint()
    assert finish(config) == 0
    assert not any(cache.glob("*.tmp"))
    case.check(tinyruns.run_of(config))


def test_sigterm_saves_and_the_same_command_goes_on(case: Case) -> None:
    stop_politely(case, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "hangup"])
def test_other_signals_save_and_the_same_command_goes_on(
    case: Case, number: signal.Signals
) -> None:
    stop_politely(case, number)


@pytest.mark.slow
def test_ctrl_c_saves_though_the_reader_of_the_output_has_gone(case: Case) -> None:
    """As in ``train.py 2>&1 | tee log``, where Ctrl-C ends tee too, or ``| head -1``."""
    words = case.overrides("unread", train__checkpoint_every=STEPS, train__validate_every=STEPS)
    config = case.config("unread", train__checkpoint_every=STEPS, train__validate_every=STEPS)
    run = tinyruns.run_of(config)
    process = tinyruns.start("train.py", *words, cwd=tinyruns.ROOT)
    assert process.stderr is not None
    assert process.stdout is not None
    assert process.stderr.readline()
    process.stderr.close()
    process.stdout.close()
    log = run.folder / "train.jsonl"
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    process.wait(120)
    assert 3 <= last_step(run) < STEPS
    assert finish(config) == 0
    case.check_weights(run)


def stop_politely(case: Case, number: signal.Signals) -> None:
    # No checkpoint is due but at the end: what is there was saved because of the signal.
    config = case.config(number.name, train__checkpoint_every=STEPS, train__validate_every=STEPS)
    run = tinyruns.run_of(config)
    log = run.folder / "train.jsonl"
    code = kill_when(config, lambda: log.exists() and log.read_bytes().count(b"\n") >= 3, number)
    assert code == 128 + number
    stopped_at = last_step(run)
    assert 3 <= stopped_at < STEPS
    assert finish(config) == 0
    case.check_weights(run)
    assert [step for step, kind, _ in figures(run) if kind == "train"] == [*range(1, STEPS + 1)]


def test_a_finished_run_is_left_alone(case: Case) -> None:
    folder = case.undisturbed.folder

    def content() -> dict[str, bytes]:
        files = (p for p in folder.rglob("*") if p.is_file() and "tensorboard" not in p.parts)
        return {str(path): path.read_bytes() for path in files}

    before = content()
    assert finish(case.config("undisturbed")) == 0
    assert content() == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_five_random_kills_of_the_command(case: Case, seed: int) -> None:
    draws = random.Random(seed)
    name = f"random-{seed}"
    cache = case.home / f"cache-{name}"
    arguments = case.overrides(name, data__cache=str(cache))
    run = tinyruns.run_of(case.config(name, data__cache=str(cache)))
    struck = 0
    for number in range(5):
        # Twice while it imports and tokenises, then after a checkpoint not reached before.
        goal = 0 if number < 2 else last_step(run) + draws.randint(1, 2)
        process = tinyruns.start("train.py", *arguments, cwd=tinyruns.ROOT)
        while process.poll() is None and last_step(run) < goal:
            time.sleep(0.001)
        time.sleep(draws.random() * (3 if number < 2 else 0.03))
        process.kill()
        process.communicate()
        struck += process.returncode == -signal.SIGKILL and 0 < last_step(run) < STEPS
    assert struck >= 3
    done = tinyruns.call("train.py", *arguments, cwd=tinyruns.ROOT)
    assert done.returncode == 0, done.stderr
    case.check(run)
