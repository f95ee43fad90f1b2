"""Checkpoints: written whole or not at all, read back to the bit, pruned with care."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tinyruns
from dragoman import files
from dragoman.decoding.translator import load_translator
from dragoman.errors import DragomanError
from dragoman.launch import run_training
from dragoman.models.weights import read_tensors, weights_of
from dragoman.runs import Run, read_state
from dragoman.training import checkpoint as checkpoint_module
from dragoman.training import trainer as trainer_module
from dragoman.training.checkpoint import TrainState, state_from
from dragoman.training.distributed import Ranks
from dragoman.training.schedules import Plateau
from dragoman.training.trainer import Trainer
from dragoman.training.validation import Figures, Validator

FILES = {
    "model.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
    "tokenizer.model",
    "config.yaml",
    "state.json",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tinyruns.write_pairs(folder / "text")
    return folder


def trainer(home: Path, folder: Path, **changes: Any) -> Trainer:
    config = tinyruns.config(
        home,
        checkpoint_dir=str(folder),
        train__ema_decay=0.9,
        log__tensorboard=False,
        **changes,
    )
    run = tinyruns.run_of(config)
    run.create()
    return Trainer(config, run, Ranks())


def advance(made: Trainer, steps: int) -> None:
    for _ in range(steps):
        made.step(made.stream.take(1))
        made.state.epoch, made.state.consumed = made.stream.epoch, made.stream.consumed


def test_everything_is_there_and_comes_back(home: Path, tmp_path: Path) -> None:
    made = trainer(home, tmp_path)
    advance(made, 3)
    made.state.plateau, made.state.best_step = Plateau(2, 1), 3
    made.state.best_score, made.state.stale = 12.5, 4
    made.save()
    folder = made.run.checkpoint("last")
    assert folder.name == "step-3" == made.run.checkpoint("best").name
    assert {path.name for path in folder.iterdir()} == FILES
    again = trainer(home, tmp_path)
    assert again.state == made.state
    assert made.moving is not None
    assert again.moving is not None
    optimizers = [checkpoint_module.optimizer_tensors(t.module, t.optimizer) for t in (made, again)]
    for saved, read in (
        (weights_of(made.module), weights_of(again.module)),
        (made.moving.tensors, again.moving.tensors),
        optimizers,
    ):
        assert saved.keys() == read.keys()
        assert all(torch.equal(saved[name], read[name]) for name in saved)
    assert again.stream.take(1)[0].pairs.tolist() == made.stream.take(1)[0].pairs.tolist()


def test_the_state_says_what_made_it(home: Path, tmp_path: Path) -> None:
    made = trainer(home, tmp_path)
    advance(made, 1)
    made.save()
    state = json.loads((made.run.checkpoint("last") / "state.json").read_text())
    assert state["format_version"] == 1
    assert {"python", "torch", "sentencepiece"} <= state["versions"].keys()
    assert "files.train.de-en" in state["data"]


def test_the_state_says_on_how_many_threads(home: Path, tmp_path: Path) -> None:
    said = []
    for step, threads in enumerate((1, 1, 2, 1), start=1):
        made = trainer(home, tmp_path, threads=threads)
        advance(made, 1)
        made.save()
        said.append(json.loads((made.run.folder / f"step-{step}" / "state.json").read_text()))
    torch.set_num_threads(1)
    assert [state["threads"] for state in said] == [[1], [1], [1, 2], [1, 2, 1]]


def test_weights_are_plain_safetensors_without_metadata(home: Path, tmp_path: Path) -> None:
    made = trainer(home, tmp_path)
    advance(made, 1)
    made.save()
    data = (made.run.checkpoint("last") / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert "__metadata__" not in header
    assert header.keys() == weights_of(made.module).keys()


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def failing_at(call: int, real: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function fail at its call number ``call`` and at every later one."""
    calls = iter(range(1, 1000))

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return real(*args, **kwargs) if next(calls) < call else full_disk()

    return wrapper


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("write_tensors", 1),  # model
        ("write_tensors", 2),  # ema
        ("write_tensors", 3),  # optimizer
        ("settings.save", 1),
        ("write_atomic", 1),  # state.json
        ("files._sync", 1),
        ("Path.rename", 1),
    ],
)
def test_a_failure_at_any_file_leaves_the_older_checkpoint_usable(
    function: str, call: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path)
    advance(made, 1)
    made.state.best_step = 1
    made.save()
    before = {path.name: path.read_bytes() for path in made.run.checkpoint("last").iterdir()}
    advance(made, 1)
    made.state.best_step = 2
    owner, _, name = f"checkpoint_module.{function}".rpartition(".")
    target = {
        "checkpoint_module": checkpoint_module,
        "checkpoint_module.Path": Path,
        "checkpoint_module.files": files,
        "checkpoint_module.settings": checkpoint_module.settings,
    }[owner]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, failing_at(call, getattr(target, name)))
        with pytest.raises(DragomanError, match=r"cannot be written .*No space left"):
            made.save()
    assert sorted(path.name for path in made.run.folder.iterdir()) == [
        "best", "last", "step-1", "train.jsonl",
    ]  # fmt: skip
    for pointer in ("best", "last"):
        folder = made.run.checkpoint(pointer)
        assert folder.name == "step-1"
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert trainer(home, tmp_path).state.step == 1
    made.save()
    assert made.run.checkpoint("last").name == made.run.checkpoint("best").name == "step-2"


def test_a_failure_while_replacing_a_checkpoint_puts_it_back(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path)
    advance(made, 1)
    made.save()
    rename, moves = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        moves.append(self.name)
        return full_disk() if len(moves) == 2 else rename(self, target)  # type: ignore[func-returns-value,return-value]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", second_fails)
        with pytest.raises(DragomanError, match="cannot be written"):
            made.save()
    assert moves == ["step-1", f".step-1.{os.getpid()}.tmp", ".step-1.old"]
    assert made.run.checkpoint("last").name == "step-1"
    assert trainer(home, tmp_path).state.step == 1


def test_a_pointer_that_cannot_be_moved_leaves_the_older_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path)
    advance(made, 1)
    made.save()
    advance(made, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "point", full_disk)
        with pytest.raises(OSError, match="No space"):
            made.save()
    # step-2 is whole, but nothing points to it: the run goes on from step 1 and writes it again.
    again = trainer(home, tmp_path)
    assert again.state.step == 1
    advance(again, 1)
    again.save()
    assert again.run.checkpoint("last").name == "step-2"
    assert not list(again.run.folder.glob(".step*"))


def test_killed_between_the_renames_of_a_replacement(home: Path, tmp_path: Path) -> None:
    made = trainer(home, tmp_path)
    advance(made, 1)
    made.save()
    run, kept = made.run, made.run.folder / "step-1"
    kept.rename(run.folder / ".step-1.old")
    (run.folder / ".step-1.tmp").mkdir()
    run.clean()
    assert run.checkpoint("last") == kept
    assert not list(run.folder.glob(".step*"))
    # Killed after the second rename: the newer one stays.
    shutil.copytree(kept, run.folder / ".step-1.old")
    (kept / "mark").touch()
    run.clean()
    assert (kept / "mark").exists()
    assert not list(run.folder.glob(".step*"))


def checkpoints(run: Run, *steps: int) -> None:
    for step in steps:
        (run.folder / f"step-{step}").mkdir(parents=True)


def test_prune_keeps_the_newest_the_best_and_the_spared(tmp_path: Path) -> None:
    run = Run(tmp_path)
    checkpoints(run, 1, 2, 3, 9, 10, 11)
    state = {"format_version": 1, "best_step": 2}
    (tmp_path / "step-11" / "state.json").write_text(json.dumps(state))
    run.point("best", 2)
    run.point("last", 11)
    run.prune(2, {3})
    assert run.steps() == [2, 3, 10, 11]
    run.prune(1, set())
    assert run.steps() == [2, 11]
    assert not list(tmp_path.glob(".step*"))


def test_clean_removes_what_a_kill_left_and_nothing_else(tmp_path: Path) -> None:
    run = Run(tmp_path)
    checkpoints(run, 1)
    run.point("last", 1)
    (tmp_path / ".step-2.tmp").mkdir()
    (tmp_path / ".step-2.tmp" / "model.safetensors").touch()
    (tmp_path / ".last.123.tmp").touch()
    (tmp_path / ".lock").touch()
    run.clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "last", "step-1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"step": "ten"}, "'step' is 'ten'"),
        ({"step": None}, "'step' is None"),
        ({"plateau": {"cuts": 1, "speed": 3}}, "speed"),
        ({"plateau": 3}, "'plateau' is 3"),
        ({"finished": "no"}, "'finished' is 'no'"),
        ({"best_score": "high"}, "'best_score' is 'high'"),
    ],
)
def test_a_state_of_wrong_types_is_refused(change: dict[str, Any], words: str) -> None:
    good = {"format_version": 1, **asdict(TrainState(step=3, best_score=1.5))}
    assert state_from(good, Path("x")) == TrainState(step=3, best_score=1.5)
    with pytest.raises(DragomanError, match=r"x/state\.json: not a training state.*" + words):
        state_from({**good, **change}, Path("x"))


@pytest.mark.parametrize("name", [item.name for item in fields(TrainState)])
def test_a_field_that_is_missing_is_as_in_a_new_state(name: str) -> None:
    full = TrainState(3, 1, 2, 90, 1.5, 2.5, 3, {"3": 2.5}, 1, "ema", True, 2, [1], ["H200"])
    full.plateau, full.data = Plateau(1, 1), {"files.train.de-en": "ab"}
    full.sentences = 2
    saved = {"format_version": 1, **asdict(full)}
    del saved[name]
    found, usual = state_from(saved, Path("x")), getattr(TrainState(), name)
    assert found == replace(full, **{name: usual}) != full


@pytest.mark.parametrize("version", [0.5, "1", None, [1]])
def test_a_version_that_is_no_number_is_refused(version: Any, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"format_version": version}))
    with pytest.raises(DragomanError, match="not a readable checkpoint state"):
        read_state(tmp_path)


@pytest.mark.parametrize("kind", ["last", "best"])
def test_the_final_average_is_the_mean_of_the_last_or_best_checkpoints(
    kind: str, home: Path, tmp_path: Path
) -> None:
    run = tinyruns.train_run(
        tinyruns.config(
            home,
            checkpoint_dir=str(tmp_path),
            train__max_steps=8,
            train__checkpoint_every=1 if kind == "best" else 2,
            train__validate_every=1 if kind == "best" else 4,
            train__metric="loss",
            train__lr=0.3,  # so high that the last is not the best
            train__keep=1,
            log__tensorboard=False,
            **{f"train__average_{kind}": 3},
        )
    )
    chosen = {4, 6, 8}
    if kind == "best":
        losses = {
            entry["step"]: entry["validation"]["loss"]
            for entry in map(json.loads, (run.folder / "train.jsonl").read_text().splitlines())
            if "validation" in entry and "validation_average" not in entry
        }
        chosen = set(sorted(losses, key=lambda step: losses[step])[:3])
        assert chosen != {6, 7, 8}
    assert chosen <= set(run.steps())
    files = [read_tensors(run.folder / f"step-{s}" / "model.safetensors") for s in chosen]
    average = read_tensors(run.folder / "step-8" / "average.safetensors")
    for name, tensor in average.items():
        mean = torch.stack([tensors[name] for tensors in files]).double().mean(0)
        torch.testing.assert_close(tensor, mean.float())


def validated(monkeypatch: pytest.MonkeyPatch, losses: Iterator[float]) -> None:
    """Let validations find these losses, one after the other."""
    monkeypatch.setattr(
        Validator, "score",
        lambda validator: (Figures(next(losses), 2.0, 0.5, 0.0), [""] * len(validator.src_lines)),
    )  # fmt: skip


AVERAGED: dict[str, Any] = {
    "train__max_steps": 6,
    "train__checkpoint_every": 2,
    "train__validate_every": 2,
    "train__average_last": 3,
    "train__lr": 0.001,
    "train__schedule": "constant",
    "log__tensorboard": False,
}


def averages(run: Run) -> list[dict[str, Any]]:
    """Return the lines of the log about the final average."""
    rows = map(json.loads, (run.folder / "train.jsonl").read_text().splitlines())
    return [row for row in rows if "validation_average" in row]


def test_killed_while_it_averages_a_run_ends_the_same(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tinyruns.train_run(
        tinyruns.config(home, checkpoint_dir=str(tmp_path / "whole"), **AVERAGED)
    )
    config = tinyruns.config(home, checkpoint_dir=str(tmp_path / "killed"), **AVERAGED)
    for moment in ("average", "settings.fixed_keys"):  # before it is scored, before it is saved
        with monkeypatch.context() as patch:
            patch.setattr(f"dragoman.training.trainer.{moment}", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                tinyruns.train_run(config)
    run = tinyruns.train_run(config)
    for name in ("model.safetensors", "average.safetensors", "optimizer.safetensors"):
        mine, other = (r.folder / "step-6" / name for r in (run, whole))
        assert mine.read_bytes() == other.read_bytes(), name
    states = [read_state(r.checkpoint("best")) for r in (run, whole)]
    assert [state.pop("seconds") > 0 for state in states] == [True, True]
    for state in states:
        state.pop("digests")  # the configs name their folders
    assert states[0] == states[1]
    assert len(averages(run)) == len(averages(whole)) == 1
    tinyruns.train_run(config)  # there is nothing left to do
    assert len(averages(run)) == 1


def test_an_average_that_is_better_does_not_start_a_stopped_run_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.5, 1.0])  # the last is of the average
    validated(monkeypatch, losses)
    options = {**AVERAGED, "train__max_steps": 20, "train__patience": 2}
    config = tinyruns.config(home, checkpoint_dir=str(tmp_path), **options)
    run = tinyruns.train_run(config)
    assert read_state(run.checkpoint("best"))["scored"] == "average"
    tinyruns.train_run(config)
    assert run.checkpoint("last").name == "step-8"


def test_a_longer_run_begins_without_the_average_of_the_shorter(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tinyruns.config(home, checkpoint_dir=str(tmp_path), **AVERAGED)
    run = tinyruns.train_run(config)
    weights = (run.folder / "step-6" / "average.safetensors").read_bytes()
    config.train.max_steps = 8
    with monkeypatch.context() as patch:  # the very next gradient is not a number
        patch.setattr(trainer_module, "clip_gradients", lambda *_: torch.tensor(torch.nan))
        with pytest.raises(DragomanError, match="gradient norm of step 7 is nan"):
            tinyruns.train_run(config)
    assert (run.folder / "step-6" / "average.safetensors").read_bytes() == weights
    seen = []
    save = Trainer.save
    monkeypatch.setattr(
        Trainer, "save", lambda self, *more: (seen.append(self.state.scored), save(self, *more))
    )
    tinyruns.train_run(config)
    assert seen[0] == "raw"


def test_where_no_checkpoint_was_due_there_is_no_average(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 3.0, 1.0])  # there is none left for an average
    validated(monkeypatch, losses)
    options = {**AVERAGED, "train__checkpoint_every": 50, "train__patience": 1}
    run = tinyruns.train_run(tinyruns.config(home, checkpoint_dir=str(tmp_path), **options))
    assert run.checkpoint("last").name == "step-4"
    assert read_state(run.checkpoint("best"))["scored"] == "raw"
    assert next(losses) == 1.0


def test_a_run_goes_on_with_the_vocabulary_that_it_has(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version of the tokenizer's library may learn another one from the same text."""
    made = trainer(home, tmp_path)
    advance(made, 1)
    made.save()
    monkeypatch.setattr(trainer_module, "train_or_load_tokenizers", lambda _: 1 / 0)
    again = trainer(home, tmp_path)
    assert again.tokenizers[0].fingerprint() == made.tokenizers[0].fingerprint()


@pytest.fixture(scope="module")
def saved(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two checkpoints, and all the files that one can have."""
    options = {**AVERAGED, "train__ema_decay": 0.9, "train__max_steps": 4}
    folder = str(tmp_path_factory.mktemp("saved"))
    return tinyruns.train_run(tinyruns.config(home, checkpoint_dir=folder, **options))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", sorted({*FILES, "average.safetensors"} - {"state.json"}))
@pytest.mark.parametrize("damage", [flip, Path.unlink], ids=["flipped", "removed"])
def test_damage_is_refused_by_file_name_and_the_advice_works(
    damage: Callable[[Path], None],
    name: str,
    home: Path,
    saved: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(saved.folder, run.folder)
    damage(run.folder / "step-4" / name)
    options = {**AVERAGED, "train__ema_decay": 0.9, "train__max_steps": 5}
    config = tinyruns.config(home, checkpoint_dir=str(tmp_path), **options)
    assert run_training(config, None) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"run/step-4/{name}: is missing or damaged" in error
    assert "--checkpoint step-2" in error
    # Translating reads the tokenizer and the weights that were scored.
    if name in ("tokenizer.model", "ema.safetensors"):
        with pytest.raises(DragomanError, match=f"{name}: is missing or damaged"):
            load_translator([run], "last", "ema", "cpu")
        load_translator([run], "step-2", "ema", "cpu")
    elif name != "config.yaml":
        load_translator([run], "last", "ema", "cpu")
    advised = re.search(r"train\.resume_from=(step-\d+)", error)
    assert advised is not None
    config.train.resume_from = advised[1]
    assert run_training(config, None) == 0
    assert run.checkpoint("last").name == "step-5"


def test_checkpoints_without_digests_are_accepted(home: Path, saved: Run, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    shutil.copytree(saved.folder, run.folder)
    path = run.folder / "step-4" / "state.json"
    state = json.loads(path.read_text())
    assert state["digests"].keys() == {*FILES, "average.safetensors"} - {"state.json"}
    del state["digests"]
    path.write_text(json.dumps(state))
    load_translator([run], "last", device="cpu")
    options = {**AVERAGED, "train__ema_decay": 0.9, "train__max_steps": 5}
    tinyruns.train_run(tinyruns.config(home, checkpoint_dir=str(tmp_path), **options))
    assert run.checkpoint("last").name == "step-5"
