"""Run folders: their names, pointers and locks."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

import tinyruns
from dragoman.errors import DragomanError
from dragoman.runs import Run, check_resume, find_run, read_state, run_name
from dragoman.settings import fingerprint


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


def test_an_explicit_name_is_taken_as_it_is(tmp_path: Path) -> None:
    assert run_name(tinyruns.config(tmp_path, run_name="mine"), "demo") == "mine"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "checkpoints" / "one")
    made.create()
    (made.folder / "config.yaml").touch()
    for step in (5, 10):
        (made.folder / f"step-{step}").mkdir()
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
    run.point("best", 77)
    with pytest.raises(DragomanError, match="there is no checkpoint 'step-77'"):
        run.checkpoint("best")
    (run.folder / "best").write_bytes(b"\xff\xfe")
    with pytest.raises(DragomanError, match="not a readable pointer"):
        run.checkpoint("best")


def test_a_run_without_checkpoints_says_so(tmp_path: Path) -> None:
    with pytest.raises(DragomanError, match="no checkpoint 'best' yet; train the run first"):
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
