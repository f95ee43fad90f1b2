"""Run folders: their names, pointers and locks."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import tinyruns
from dragoman import settings
from dragoman.compose import compose_config
from dragoman.config import CleanConfig
from dragoman.errors import DragomanError
from dragoman.runs import Run, check_resume, find_run, read_state, run_name, run_of
from dragoman.settings import fingerprint, save


def test_the_default_name_says_what_it_is_a_run_of(tmp_path: Path) -> None:
    config = tinyruns.config(tmp_path, run_name=None, seed=7)
    assert run_name(config, "demo") == f"demo-de-en-s7-{fingerprint(config)}"
    assert run_name(config, None) == f"transformer-de-en-s7-{fingerprint(config)}"


def test_other_values_make_another_name_and_free_ones_do_not(tmp_path: Path) -> None:
    def name(**changes: object) -> str:
        return run_name(tinyruns.config(tmp_path, run_name=None, **changes), "x")

    assert name() == name(train__max_steps=99, train__patience=3, log__every=7, device="auto")
    others = [name(), name(seed=2), name(train__lr=0.5), name(model__dropout=0.3)]
    assert len(set(others)) == 4


def made_before(folder: Path, name: str, **changes: object) -> Path:
    """Make the folder of a run that has a checkpoint."""
    old = folder / "checkpoints" / name
    (old / "step-5").mkdir(parents=True)
    save(tinyruns.config(folder, run_name=None, **changes), old / "config.yaml")
    return old


def test_a_run_that_an_earlier_version_named_is_found_by_its_values(tmp_path: Path) -> None:
    wanted = tinyruns.config(tmp_path, run_name=None, train__max_steps=99)
    made_before(tmp_path, "x-de-en-s1-00000000", train__lr=0.5)
    made_before(tmp_path, "x-de-en-s2-11111111", seed=2)
    made_before(tmp_path, "y-de-en-s1-22222222")  # of another experiment
    made_before(tmp_path, "x-de-en-s1-2222222x")
    (made_before(tmp_path, "x-de-en-s1-33333333") / "config.yaml").write_text("not a config")
    (made_before(tmp_path, "x-de-en-s1-44444444") / "step-5").rmdir()
    assert run_of(wanted, "x").name == run_name(wanted, "x")
    made_before(tmp_path, "x-de-en-s1-55555555")
    assert run_of(wanted, "x").name == "x-de-en-s1-55555555"
    made_before(tmp_path, run_name(wanted, "x"))
    assert run_of(wanted, "x").name == run_name(wanted, "x")
    explicit = dataclasses.replace(wanted, run_name="mine")
    assert run_of(explicit, "x").name == "mine"


def test_an_explicit_name_is_taken_as_it_is(tmp_path: Path) -> None:
    assert run_name(tinyruns.config(tmp_path, run_name="mine"), "demo") == "mine"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "checkpoints" / "one")
    made.create()
    (made.folder / "config.yaml").touch()
    for step in (5, 10):
        (made.folder / f"step-{step}").mkdir()
        state = json.dumps({"format_version": 1, "best_step": 5})
        (made.folder / f"step-{step}" / "state.json").write_text(state)
        save(tinyruns.config(tmp_path), made.folder / f"step-{step}" / "config.yaml")
    made.point("best", 5)
    made.point("last", 10)
    return made


def test_checkpoints_by_name(run: Run) -> None:
    assert run.checkpoint().name == "step-5"
    assert run.checkpoint("last").name == "step-10"
    assert run.checkpoint("step-10").name == "step-10"
    assert run.steps() == [5, 10]
    assert (run.folder / "best").read_text() == "step-5\n"


@pytest.mark.parametrize("which", ["step-7", "first", "", "../one/step-5", "step-5/../step-10"])
def test_a_checkpoint_that_is_not_there_names_those_that_are(which: str, run: Run) -> None:
    with pytest.raises(DragomanError, match="expected best, last, step-5 or step-10"):
        run.checkpoint(which)


def test_a_pointer_to_nowhere_is_said(run: Run) -> None:
    there = "expected last, step-5 or step-10"
    run.point("best", 77)
    with pytest.raises(
        DragomanError, match=f"'best' \\(the file 'best' names 'step-77'\\), {there}"
    ):
        run.checkpoint("best")
    for content, said in ((b"\xff", "'\ufffd'"), (b"\n", "''"), (b"x" * 101, "''")):
        (run.folder / "best").write_bytes(content)
        with pytest.raises(DragomanError, match=f"names {said}\\), {there}"):
            run.checkpoint("best")
    (run.folder / "best").unlink()
    with pytest.raises(DragomanError, match=f"there is no checkpoint 'best', {there}"):
        run.checkpoint("best")


def no_last(run: Run) -> None:
    (run.folder / "last").unlink()


def no_newest(run: Run) -> None:
    shutil.rmtree(run.folder / "step-10")


def broken_state(run: Run) -> None:
    (run.folder / "step-10" / "state.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "newest"),
    [(no_last, 10), (no_newest, 5), (broken_state, 5)],
)
def test_training_does_not_begin_anew_over_checkpoints(
    damage: Callable[[Run], None], newest: int, run: Run
) -> None:
    assert run.has_checkpoint()
    damage(run)
    with pytest.raises(DragomanError) as caught:
        run.has_checkpoint()
    advice = f"; step-{newest} is whole: train on from it with train.resume_from=step-{newest}, "
    assert advice in str(caught.value)
    assert str(caught.value).endswith(f"delete {run.folder} to start anew")
    run.resume_from(f"step-{newest}")
    assert run.has_checkpoint()
    assert run.checkpoint("last").name == f"step-{newest}"


def test_without_a_whole_checkpoint_the_advice_is_to_start_anew(run: Run) -> None:
    broken_state(run)
    shutil.rmtree(run.folder / "step-5")
    with pytest.raises(DragomanError, match=r"\); delete .* to start anew"):
        run.has_checkpoint()


def test_the_same_command_goes_back_once(run: Run, tmp_path: Path) -> None:
    run.resume_from(None)
    assert run.checkpoint("last").name == "step-10"
    for _ in range(2):  # killed before the next checkpoint
        run.resume_from("step-5")
        assert run.checkpoint("last").name == "step-5"
    config = tinyruns.config(tmp_path, train__resume_from="step-5")
    save(config, run.folder / "step-10" / "config.yaml")  # made by the run that went on
    run.point("last", 10)
    run.resume_from("step-5")
    assert run.checkpoint("last").name == "step-10"
    run.resume_from("best")
    assert run.checkpoint("last").name == "step-5"
    with pytest.raises(DragomanError, match="there is no checkpoint 'step-7', expected best, last"):
        run.resume_from("step-7")


@pytest.mark.parametrize("content", [None, b"step-99", b"\xff", b"step-15"])
def test_what_the_state_calls_best_is_never_pruned(content: bytes | None, run: Run) -> None:
    for step in (15, 20):
        shutil.copytree(run.folder / "step-10", run.folder / f"step-{step}")
    run.point("last", 20)
    (run.folder / "best").unlink()
    if content is not None:
        (run.folder / "best").write_bytes(content)
    run.prune(1, {15})
    assert run.steps() == [5, 15, 20]
    assert run.checkpoint("best").name == "step-5"


def test_a_run_without_checkpoints_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        DragomanError, match="there is no checkpoint 'best' yet; train the run first"
    ):
        Run(tmp_path).checkpoint()
    assert not Run(tmp_path).has_checkpoint()


def test_a_folder_in_use_is_refused_until_it_is_free(run: Run) -> None:
    with run.lock(), pytest.raises(DragomanError, match="another process is using this run"):
        Run(run.folder).lock().__enter__()
    with Run(run.folder).lock():
        pass


def test_a_run_that_was_refused_leaves_no_folder(tmp_path: Path) -> None:
    run = Run(tmp_path / "x")
    run.create()
    with pytest.raises(DragomanError), run.lock():
        raise DragomanError("no data")
    assert not run.folder.exists()


def test_a_folder_with_other_things_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with Run(tmp_path).lock():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("not a folder")
    with pytest.raises(
        DragomanError, match=r"cannot make the run folder .* another checkpoint_dir"
    ):
        Run(tmp_path / "checkpoints" / "x").create()


@pytest.mark.parametrize("name", ["x" * 300, "sub/" * 2000 + "x"])
def test_a_name_that_no_folder_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(DragomanError, match=r"cannot make the run folder \(File name too long\)"):
        Run(tmp_path / name).create()
    with pytest.raises(DragomanError, match="not a run folder"):
        find_run(name)
    config = tinyruns.config(tmp_path, run_name=None, checkpoint_dir=str(tmp_path / name))
    assert run_of(config, "x").folder.parent == tmp_path / name


def test_runs_are_found_in_the_home_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(run.folder.parents[1]))
    assert find_run("~/checkpoints/one").folder == run.folder
    with pytest.raises(DragomanError, match="~no-such-user/one: not a run folder"):
        find_run("~no-such-user/one")


def test_runs_are_found_by_path_or_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder.parents[1])
    assert find_run(str(run.folder)).folder == run.folder
    assert find_run("one").folder == Path("checkpoints/one")
    assert find_run("checkpoints/one").name == "one"
    with pytest.raises(DragomanError, match=r"oen: not a run folder .*; did you mean 'one'"):
        find_run("oen")
    with pytest.raises(DragomanError, match="; runs here: one"):
        find_run("something else")


def test_without_any_run_the_advice_is_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DragomanError, match="train one first"):
        find_run("one")


def test_resuming_with_other_values_names_each_with_both(tmp_path: Path) -> None:
    saved = tinyruns.config(tmp_path)
    wanted = dataclasses.replace(saved, seed=9)
    wanted.train = dataclasses.replace(saved.train, lr=0.5, max_steps=999, patience=4)
    with pytest.raises(DragomanError) as caught:
        check_resume(saved, wanted, Run(tmp_path / "run"))
    message = str(caught.value)
    assert "seed: saved 1, now 9" in message
    # When checkpoints are made decides what is averaged: named if it changed, and only then.
    saved.train.average_last, wanted.train.average_last = 2, 0
    with pytest.raises(DragomanError) as caught:
        check_resume(saved, wanted, Run(tmp_path))
    assert "train.average_last: saved 2, now 0" in str(caught.value)
    assert "checkpoint_every" not in str(caught.value)
    assert "train.lr: saved 0.01, now 0.5" in message
    assert "max_steps" not in message
    assert "patience" not in message
    check_resume(saved, dataclasses.replace(saved, threads=3), Run(tmp_path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(DragomanError, match="format version 99 is newer than this Dragoman"):
        read_state(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", "\udcff"])
def test_a_broken_state_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_bytes(os.fsencode(text))
    with pytest.raises(DragomanError, match="not a readable checkpoint state"):
        read_state(tmp_path)


def test_a_folder_without_a_state_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DragomanError, match=r"not a checkpoint \(no state.json\)"):
        read_state(tmp_path)


def test_training_goes_on_from_a_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    tinyruns.write_pairs(tmp_path / "text", train=40, val=4)
    steps = {"train__max_steps": 8, "train__validate_every": 2, "train__checkpoint_every": 2}
    whole = tinyruns.train_run(tinyruns.config(tmp_path, run_name="whole", **steps))
    shutil.copytree(whole.folder, tmp_path / "checkpoints" / "hurt")
    hurt = Run(tmp_path / "checkpoints" / "hurt")
    (before, _), weights = hurt.steps()[-2:], "step-8/model.safetensors"
    saved = (hurt.folder / weights).read_bytes()
    (hurt.folder / weights).write_bytes(saved[:-7])
    command = {"run_name": "hurt", **steps}
    with pytest.raises(DragomanError, match=f"step-8/model.* step-{before} is whole: train on"):
        tinyruns.train_run(tinyruns.config(tmp_path, **command))
    command["train__resume_from"] = f"step-{before}"
    tinyruns.train_run(tinyruns.config(tmp_path, **command))
    assert (hurt.folder / weights).read_bytes() == saved
    tinyruns.train_run(tinyruns.config(tmp_path, **command))  # complete: nothing to do
    log = [json.loads(line) for line in (hurt.folder / "train.jsonl").open()]
    assert len(log) == len({json.dumps(entry) for entry in log})


@pytest.mark.parametrize("named", [False, True], ids=["hashed", "named"])
def test_a_run_from_before_there_were_rules_goes_on_without(tmp_path: Path, named: bool) -> None:
    words = ["data=files", f"checkpoint_dir={tmp_path}", *(["run_name=mine"] if named else [])]
    config, _ = compose_config(tinyruns.CONFIGS, words)
    assert config.data.clean != CleanConfig()
    saved = settings.to_dict(config)
    for key in ("clean", "pairs", "holdout", "held_out"):
        del saved["data"][key]
    del saved["evaluation"]
    folder = tmp_path / ("mine" if named else "transformer-de-en-s1-01234567")
    (folder / "step-3").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    assert run_of(config, None).folder == folder
    assert config.data.clean == CleanConfig()
    assert settings.load(folder / "config.yaml").evaluation.tokenize == "13a"
    asked, _ = compose_config(tinyruns.CONFIGS, [*words, "data.clean.digits=true"])
    again = run_of(asked, None)
    assert asked.data.clean.digits
    assert (again.folder == folder) == named  # where the values that changed are refused
