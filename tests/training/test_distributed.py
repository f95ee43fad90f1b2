"""Two processes are one with two micro-batches."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

import tinyruns
from dragoman.compose import compose_config
from dragoman.models.weights import read_tensors
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


REGULARISED = {
    **tinyruns.TRANSFORMER,
    "train.optimizer": "sgd",  # AdamW makes steps of key biases, whose gradient is rounding alone
    "train.r_drop": 0.5,
    "train.risk": 0.3,
    "train.risk_samples": 3,
    "train.ema_decay": 0.9,
}


@pytest.mark.parametrize("model", [tinyruns.RNN, REGULARISED], ids=["rnn", "regularised"])
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
