"""Two processes are one with two micro-batches."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import tinyruns
from dragoman.compose import compose_config
from dragoman.models.weights import read_tensors
from dragoman.runs import Run, read_state
from dragoman.training.distributed import Ranks, local_device

STEPS = 6


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def losses(folder: Path) -> list[float]:
    text = (folder / "train.jsonl").read_text(encoding="utf-8")
    entries = [json.loads(line) for line in text.splitlines()]
    return [entry[kind]["loss"] for entry in entries for kind in ("train", "validation")
            if kind in entry]  # fmt: skip


PLAIN = {
    **tinyruns.TRANSFORMER,
    "train.optimizer": "sgd",  # AdamW makes steps of key biases, whose gradient is rounding alone
    "train.ema_decay": 0.9,
}
REGULARISED = {**PLAIN, "train.r_drop": 0.5, "train.risk": 0.3, "train.risk_samples": 3}


@pytest.mark.parametrize(
    "model",
    [PLAIN, *(pytest.param(m, marks=pytest.mark.slow) for m in (tinyruns.RNN, REGULARISED))],
    ids=["plain", "rnn", "regularised"],
)
def test_two_ranks_are_one_with_two_micro_batches(model: dict[str, Any], tmp_path: Path) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    options = {"train__max_steps": STEPS, "train__validate_every": 3, "train__batch_size": 120}
    # Dropout is on, and so are the coins of teacher forcing.
    one, _ = compose_config(
        tinyruns.CONFIGS,
        tinyruns.overrides(tmp_path, model, run_name="one", train__accumulate=2, **options),
    )
    single = tinyruns.train_run(one)
    done = tinyruns.call(
        *("-m", "torch.distributed.run", "--nproc-per-node", "2"),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port()), "train.py"),
        *tinyruns.overrides(tmp_path, model, run_name="two", **options),
        cwd=tinyruns.ROOT,
    )
    assert done.returncode == 0, done.stderr
    double = single.folder.parent / "two"
    weights = [
        read_tensors(f / f"step-{STEPS}" / "model.safetensors") for f in (single.folder, double)
    ]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-6, rtol=0)
    # Rank 0 alone writes and speaks: as many lines as one process has.
    assert len(losses(double)) == len(losses(single.folder)) == STEPS + 2
    for a, b in zip(losses(single.folder), losses(double), strict=True):
        assert abs(a - b) < 1e-5  # the log keeps six digits
    assert done.stderr.count("training pairs") == 1


def test_one_process_needs_no_one_else() -> None:
    alone, tensor = Ranks(), torch.tensor([1.5])
    alone.sum([tensor])
    alone.wait()
    assert tensor.tolist() == [1.5]
    assert alone.main
    assert alone.from_main([2.5], torch.device("cpu")) == [2.5]
    assert alone.any(True, torch.device("cpu"))
    assert not alone.any(False, torch.device("cpu"))


def test_every_rank_takes_its_own_gpu(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert local_device(torch.device("cuda:0")) == torch.device("cuda:0")
    assert local_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.delenv("LOCAL_RANK")  # no torchrun
    assert local_device(torch.device("cuda")) == torch.device("cuda", 0)


# Trains as train.py does, and takes its time to save; argument 1 is a folder for marks.
SLOW = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from dragoman.compose import compose_config
from dragoman.launch import run_training
from dragoman.training import trainer

marks, configs, *words = sys.argv[1:]
save, step = trainer.save_checkpoint, trainer.Trainer.step

def slow(*arguments):
    Path(marks, "saving").touch()
    time.sleep(1.5)
    save(*arguments)
    Path(marks, "saved").touch()

def noted(made, buckets):
    found = step(made, buckets)
    Path(marks, f"rank{made.ranks.rank}-{os.getpid()}").touch()
    return found

trainer.save_checkpoint, trainer.Trainer.step = slow, noted
sys.exit(run_training(compose_config(Path(configs), words)[0], None))
"""


class Pair:
    """Two ranks that train, under ``torchrun``."""

    def __init__(self, home: Path, words: list[str]) -> None:
        self.marks = home / f"marks-{len(list(home.glob('marks-*')))}"
        self.marks.mkdir()
        (home / "slow.py").write_text(SLOW)
        self.process = tinyruns.start(
            *("-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
            *(str(home / "slow.py"), str(self.marks), str(tinyruns.CONFIGS), *words),
            cwd=home,
        )

    def wait_for(self, mark: str) -> Path:
        patience = time.monotonic() + 120
        while not (found := list(self.marks.glob(mark))):
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < patience
            time.sleep(0.01)
        return found[0]

    def kill(self, rank: int, number: int) -> None:
        os.kill(int(self.wait_for(f"rank{rank}-*").name.rpartition("-")[2]), number)

    def said(self) -> str:
        return self.process.communicate(timeout=120)[1]


@pytest.fixture(scope="module")
def pair_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("pair")
    tinyruns.write_pairs(home / "text")
    return home


def words_of(home: Path, name: str, steps: int = 400) -> list[str]:
    options = {"train__max_steps": steps, "train__validate_every": 500, "run_name": name,
               "train__checkpoint_every": 500, "log__tensorboard": False}  # fmt: skip
    return tinyruns.overrides(home, tinyruns.RNN, **options)


@pytest.mark.slow
def test_two_ranks_stopped_while_saving_takes_long_and_resumed(pair_home: Path) -> None:
    """Rank 0 alone is told; torchrun would end it as soon as the other one had left."""
    name = "stopped"
    first = Pair(pair_home, words_of(pair_home, name))
    first.kill(0, signal.SIGTERM)
    first.wait_for("saving")
    first.kill(0, signal.SIGTERM)  # again, as torchrun does: nothing is given up
    said = first.said()
    assert (first.marks / "saved").exists()
    assert said.count("saved; the same command goes on from there") == 2
    assert first.process.returncode != 0
    run = Run(pair_home / "checkpoints" / name)
    step = read_state(run.checkpoint("last"))["step"]
    assert step < 400
    # Ended a little later, it is where two ranks come that nobody disturbed.
    for words in (words_of(pair_home, name, step + 3), words_of(pair_home, "whole", step + 3)):
        done = tinyruns.call(
            *("-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-addr", "127.0.0.1", "--master-port", str(free_port()), "train.py"),
            *words,
            cwd=tinyruns.ROOT,
        )
        assert done.returncode == 0, done.stderr
    whole = Run(pair_home / "checkpoints" / "whole")
    for file in ("model.safetensors", "optimizer.safetensors"):
        ends = [(r.folder / f"step-{step + 3}" / file).read_bytes() for r in (run, whole)]
        assert ends[0] == ends[1]


@pytest.mark.slow
def test_a_rank_killed_for_good_costs_the_other_one_line(pair_home: Path) -> None:
    ranks = Pair(pair_home, words_of(pair_home, "killed"))
    ranks.wait_for("rank0-*")
    ranks.kill(1, signal.SIGKILL)
    said = ranks.said()
    assert said.count("error: another rank has ended") == 1
    assert "gloo" not in said
    assert "[rank" not in said  # how PyTorch marks the lines of a rank's traceback
