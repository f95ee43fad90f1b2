"""TensorBoard logs: what is written is read back with TensorBoard's own readers."""

from __future__ import annotations

import itertools
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing import (
    event_accumulator,
    event_file_loader,
    plugin_event_multiplexer,
)
from torch import nn

from dragoman.errors import DragomanError
from dragoman.reporting import board as board_module
from dragoman.reporting.board import Board, profiler
from dragoman.reporting.heatmap import attention_figure

PLENTY = {"scalars": 0, "images": 0, "tensors": 0, "compressedHistograms": 0}


def read(folder: Path) -> event_accumulator.EventAccumulator:
    reader = event_accumulator.EventAccumulator(str(folder), size_guidance=PLENTY)
    return reader.Reload()


def every_step(folder: Path) -> dict[str, list[int]]:
    """Return the steps of each tag with nothing hidden by the reader's own rules."""
    reader = event_accumulator.EventAccumulator(
        str(folder), size_guidance=PLENTY, purge_orphaned_data=False
    ).Reload()
    found = {}
    for kind, get in (
        ("scalars", reader.Scalars),
        ("images", reader.Images),
        ("tensors", reader.Tensors),
    ):
        for tag in reader.Tags()[kind]:
            found[tag] = [event.step for event in get(tag)]
    return found


def steps_as_served(folder: Path) -> dict[str, list[int]]:
    """Return the steps of each tag as TensorBoard's server would show them."""
    served = plugin_event_multiplexer.EventMultiplexer(tensor_size_guidance={"scalars": 0})
    served.AddRun(str(folder), "run")
    served.Reload()
    return {
        tag: [event.step for event in served.Tensors("run", tag)]
        for tag in served.Runs()["run"]["tensors"]
    }


def picture(seed: int = 0):
    weights = np.random.default_rng(seed).dirichlet(np.ones(3), size=2)
    return attention_figure(weights, list("abc"), list("xy"), "title")


def train(folder: Path, resume: int | None, until: int) -> Board:
    """Log like a training run, and leave the board open as a killed process would."""
    board = Board(folder, resume_step=resume)
    for step in range((resume or 0) + 1, until + 1):
        board.scalars(step, {"train/loss": 1 / step, "train/lr": float(step)})
        if step % 5 == 0:
            board.scalars(step, {"valid/bleu": step})
            board.text(step, "samples", f"translation at {step}")
            board.figure(step, "attention", picture())
    return board


def test_scalars_text_and_figures_are_read_back(tmp_path):
    board = Board(tmp_path)
    board.scalars(3, {"train/loss": 2.5, "train/lr": 0.125})
    board.text(3, "config", "seed: 1 – ü")
    board.figure(3, "attention", picture())
    board.close()
    reader = read(tmp_path)
    (loss,) = reader.Scalars("train/loss")
    assert (loss.step, loss.value) == (3, 2.5)
    assert reader.Scalars("train/lr")[0].value == 0.125
    (text,) = reader.Tensors("config/text_summary")
    assert text.tensor_proto.string_val[0].decode() == "seed: 1 – ü"
    (image,) = reader.Images("attention")
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert min(image.width, image.height) > 50


def test_after_several_resumes_no_step_appears_twice(tmp_path):
    train(tmp_path, None, 17)
    train(tmp_path, 10, 24)
    train(tmp_path, 20, 22)
    train(tmp_path, 20, 30)
    curve, validations = list(range(1, 31)), [5, 10, 15, 20, 25, 30]
    expected = {
        "train/loss": curve,
        "train/lr": curve,
        "valid/bleu": validations,
        "samples/text_summary": validations,
        "attention": validations,
    }
    assert every_step(tmp_path) == expected
    assert steps_as_served(tmp_path) == expected
    losses = [event.value for event in read(tmp_path).Scalars("train/loss")]
    assert losses == pytest.approx([1 / step for step in curve])


def test_a_new_start_without_a_checkpoint_drops_what_was_there(tmp_path):
    train(tmp_path, None, 9)
    train(tmp_path, None, 4)
    assert every_step(tmp_path) == {"train/loss": [1, 2, 3, 4], "train/lr": [1, 2, 3, 4]}


def test_tensorboard_that_watches_sees_one_history_too(tmp_path, monkeypatch):
    # The name of an event file carries the second it was made in; a real resume takes longer.
    seconds = itertools.count(1_700_000_000)
    monkeypatch.setattr(board_module, "time", SimpleNamespace(time=lambda: next(seconds)))
    train(tmp_path, None, 12)
    watching = event_accumulator.EventAccumulator(str(tmp_path), size_guidance=PLENTY).Reload()
    assert len(watching.Scalars("train/loss")) == 12
    train(tmp_path, 10, 14)
    watching.Reload()
    train(tmp_path, 13, 15)
    watching.Reload()
    assert [event.step for event in watching.Scalars("train/loss")] == list(range(1, 16))
    assert [event.step for event in watching.Images("attention")] == [5, 10, 15]


def test_a_half_written_last_record_is_left_out(tmp_path):
    train(tmp_path, None, 6)
    (file,) = tmp_path.glob("*tfevents*")
    whole = file.read_bytes()
    for cut in (1, 5, 30):
        file.write_bytes(whole[:-cut])
        Board(tmp_path, resume_step=6).close()
        assert every_step(tmp_path)["train/lr"] == [1, 2, 3, 4, 5]
        for path in tmp_path.iterdir():
            path.unlink()
    file.write_bytes(whole[:-10] + bytes(10))
    Board(tmp_path, resume_step=6).close()
    assert every_step(tmp_path)["train/lr"] == [1, 2, 3, 4, 5]


def test_a_clock_set_back_does_not_mix_up_the_history(tmp_path, monkeypatch):
    for second, resume in ((2_000_000_000, None), (1_900_000_000, 4), (2_000_000_000, 6)):
        clock = SimpleNamespace(time=lambda second=second: second)
        monkeypatch.setattr(board_module, "time", clock)
        train(tmp_path, resume, (resume or 0) + 4)
    monkeypatch.undo()
    train(tmp_path, 8, 9)
    assert every_step(tmp_path)["train/loss"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "history.tmp").write_text("left by a process killed while it put the files right")
    train(tmp_path, None, 2)
    train(tmp_path, 1, 2)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "history.tmp").exists()


def test_a_process_really_killed_loses_no_point(tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from dragoman.reporting.board import Board
board = Board(Path({str(tmp_path)!r}))
for step in range(1, 8):
    board.scalars(step, {{"loss": step}})
assert "matplotlib.pyplot" not in __import__("sys").modules
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert every_step(tmp_path) == {"loss": [1, 2, 3, 4, 5, 6, 7]}
    board = Board(tmp_path, resume_step=5)
    board.scalars(6, {"loss": 6})
    board.close()
    assert every_step(tmp_path) == {"loss": [1, 2, 3, 4, 5, 6]}


def test_a_point_at_a_step_already_shown_is_left_out(tmp_path):
    board = train(tmp_path, None, 5)
    board.scalars(5, {"train/loss": 9.0})
    board.text(5, "samples", "again")
    board.figure(5, "attention", picture())
    board.close()
    board = train(tmp_path, 5, 5)
    board.scalars(5, {"train/loss": 9.0})
    board.close()
    assert all(len(steps) == len(set(steps)) for steps in every_step(tmp_path).values())
    assert read(tmp_path).Scalars("train/loss")[-1].value == pytest.approx(1 / 5)


def hparams_of(folder: Path) -> list[dict[str, object]]:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = read(folder).PluginTagToContent("hparams")["_hparams_/session_start_info"]
    start = HParamsPluginData.FromString(content).session_start_info
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}


def test_hparams_are_part_of_the_same_run(tmp_path):
    board = train(tmp_path, None, 5)
    board.hparams({"model": "rnn", "layers": 2, "lr": 0.5, "tied": True}, {"bleu": 31.5})
    board.close()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert hparams_of(tmp_path) == {"model": "rnn", "layers": 2, "lr": 0.5, "tied": "true"}
    (bleu,) = read(tmp_path).Scalars("hparam/bleu")
    assert (bleu.step, bleu.value) == (5, 31.5)
    assert "_hparams_/session_start_info" in steps_as_served(tmp_path)


def test_new_hparams_replace_the_old(tmp_path):
    board = train(tmp_path, None, 5)
    board.hparams({"lr": 0.5}, {"bleu": 1.0})
    board.hparams({"lr": 0.25}, {"bleu": 2.0})
    board.scalars(6, {"train/lr": 6.0})
    board.close()
    assert hparams_of(tmp_path) == {"lr": 0.25}
    board = Board(tmp_path, resume_step=6)
    board.hparams({"lr": 0.125}, {"bleu": 3.0})
    board.close()
    assert hparams_of(tmp_path) == {"lr": 0.125}
    assert [event.value for event in read(tmp_path).Scalars("hparam/bleu")] == [3.0]
    steps = every_step(tmp_path)
    assert steps["train/lr"] == [1, 2, 3, 4, 5, 6]
    assert all(len(found) == len(set(found)) for found in steps.values())


class Untraceable(nn.Module):
    def forward(self, value):
        raise RuntimeError("cannot be traced\nsecond line")


def test_the_graph_is_written_once_and_changes_nothing(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)).train()
    model[1].eval()
    state = torch.get_rng_state()
    for resume in (None, 2):
        board = Board(tmp_path, resume_step=resume)
        board.graph(model, torch.zeros(1, 4))
        board.close()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True, False, True]
    graph = read(tmp_path).Graph()
    assert any("Linear" in node.name for node in graph.node)
    events = [
        event
        for path in tmp_path.glob("*tfevents*")
        for event in event_file_loader.LegacyEventFileLoader(str(path)).Load()
    ]
    assert sum(event.HasField("graph_def") for event in events) == 1
    assert sum(event.HasField("tagged_run_metadata") for event in events) == 1


def test_a_model_that_cannot_be_traced_costs_one_line(tmp_path, caplog, capfd):
    board = Board(tmp_path)
    with caplog.at_level(logging.WARNING):
        board.graph(Untraceable(), torch.zeros(1))
    board.scalars(1, {"loss": 1.0})
    board.close()
    assert [record.getMessage() for record in caplog.records] == [
        "no model graph: RuntimeError cannot be traced"
    ]
    assert capfd.readouterr().out == ""
    assert every_step(tmp_path) == {"loss": [1]}


@pytest.mark.parametrize("call", ["scalars", "text", "graph", "hparams"])
def test_a_full_disk_is_found_by_the_call_that_fills_it(call, tmp_path):
    board = Board(tmp_path)
    board._file = open("/dev/full", "wb")  # noqa: SIM115
    values = {
        "scalars": (1, {"train/loss": 1.0}),
        "text": (1, "samples", "text"),
        "graph": (nn.Linear(1, 1), torch.zeros(1, 1)),
        "hparams": ({"lr": 0.5}, {"bleu": 1.0}),
    }
    with pytest.raises(OSError, match="No space"):
        getattr(board, call)(*values[call])


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DragomanError, match=r"file/logs: cannot write the TensorBoard logs"):
        Board(tmp_path / "file" / "logs")


def test_profiler_records_the_steps_asked_for(tmp_path):
    with profiler(tmp_path, 2) as recording:
        for _ in range(6):
            torch.ones(8, 8) @ torch.ones(8, 8)
            recording.step()
    (trace,) = tmp_path.glob("*.pt.trace.json")
    events = json.loads(trace.read_text())["traceEvents"]
    products = [event for event in events if event.get("name") == "aten::mm"]
    assert len(products) == 2


def test_no_profiler_for_no_steps(tmp_path):
    with profiler(tmp_path, 0) as recording:
        assert recording is None
    assert list(tmp_path.iterdir()) == []
