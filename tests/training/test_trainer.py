"""What a step is: micro-batches, the dry run, numbers that are none, early stopping."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tinyruns
from dragoman.config import Config
from dragoman.data.batching import Bucket
from dragoman.data.resident import ResidentRows
from dragoman.errors import DragomanError
from dragoman.launch import run_training
from dragoman.models.weights import read_tensors, weights_of
from dragoman.runs import read_state
from dragoman.training import trainer as trainer_module
from dragoman.training.distributed import Ranks
from dragoman.training.loop import signals
from dragoman.training.loss import Loss
from dragoman.training.optimisation import optimizer_tensors
from dragoman.training.selection import judge
from dragoman.training.trainer import Trainer
from dragoman.training.validation import Figures, Validator
from tinyruns import captured, trainer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tinyruns.write_pairs(folder / "text")
    return folder


def split(made: Trainer, bucket: Bucket, cuts: list[int]) -> list[Bucket]:
    """Part the sentences of a batch into micro-batches of different sizes."""
    found = []
    for pairs in np.split(bucket.pairs, cuts):
        src, tgt = made.training_set.lengths(pairs, bucket.epoch)
        numbers = (int(src.max()), int(tgt.max()), int(tgt.sum()), int(src.sum() + tgt.sum()))
        found.append(Bucket(bucket.epoch, pairs, *numbers))
    return found


@pytest.mark.parametrize("model", [tinyruns.TRANSFORMER, tinyruns.RNN], ids=["transformer", "rnn"])
def test_four_micro_batches_are_one_batch(
    model: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = captured(monkeypatch)
    # No dropout and no free running: what is drawn belongs to the micro-batch.
    plain = {**model, "model.dropout": 0.0, "train.teacher_forcing": 1.0}
    sums = []
    for cuts in ([], [2, 7, 15]):
        made = trainer(home, tmp_path / str(len(cuts)), plain, train__batch_type="sentences",
                       train__batch_size=20)  # fmt: skip
        made.module.double()
        micro = split(made, made.stream.take(1)[0], cuts)
        assert [len(bucket.pairs) for bucket in micro] == ([2, 5, 8, 5] if cuts else [20])
        sums.append(made.step(micro)["sums"])
    torch.testing.assert_close(*sums, atol=1e-6, rtol=1e-6)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-12, rtol=1e-9)


def test_the_reported_loss_is_the_mean_over_target_tokens(home: Path, tmp_path: Path) -> None:
    plain = {**tinyruns.TRANSFORMER, "model.dropout": 0.0}
    made = trainer(home, tmp_path, plain, train__label_smoothing=0.0)
    buckets = made.stream.take(2)
    with torch.no_grad():
        nll, tokens = 0.0, 0
        for bucket in buckets:
            batch = made.order.fetch(bucket)
            log_probs = made.model.project(made.model(batch)).log_softmax(-1)
            nll -= float(log_probs.gather(1, batch.targets_N[:, None]).sum())
            tokens += batch.num_tokens
    loss, unsmoothed, correct, _ = made.step(buckets)["sums"].tolist()
    assert loss == pytest.approx(nll / tokens, rel=1e-5)
    assert unsmoothed == pytest.approx(nll / tokens, rel=1e-5)
    assert 0 <= correct <= 1
    assert made.state.target_tokens == tokens


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize(
    "model",
    [
        {**tinyruns.TRANSFORMER, "train.teacher_forcing": 0.5},
        {**tinyruns.RNN, "model.cell": "lstm", "model.attention": "scaled_dot"},
        {**tinyruns.RNN, "model.cell": "gru"},
    ],
    ids=["transformer", "lstm", "gru"],
)
def test_gradients_in_bf16_are_nearly_those_in_float32(
    model: dict[str, Any],
    fast: bool,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gradients = captured(monkeypatch)
    for precision in ("float32", "bf16"):
        options = {**model, "model.dropout": 0.0, "train.precision": precision}
        made = trainer(home, tmp_path / precision, options, train__fast=fast)
        made.dry_run()
        made.step(made.stream.take(1))
    for name, gradient in gradients[0].items():
        likeness = torch.cosine_similarity(gradient.flatten(), gradients[1][name].flatten(), 0)
        assert likeness > 0.9 or gradient.norm() < 1e-3, (name, float(likeness))


def test_the_dry_run_is_in_the_precision_of_the_steps(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path, tinyruns.TRANSFORMER, train__precision="bf16")
    seen, forward = [], made.forward

    def note(*given: Any) -> Tensor:
        # A pass without gradients must leave no copies of the weights to the one with them.
        seen.append((torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()))
        return forward(*given)

    monkeypatch.setattr(made, "forward", note)
    made.dry_run()
    made.step(made.stream.take(1))
    assert seen == [(True, False)] * 2


@pytest.mark.parametrize("model", [tinyruns.TRANSFORMER, tinyruns.RNN], ids=["transformer", "rnn"])
def test_r_drop_is_nothing_without_dropout_and_something_with_it(
    model: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    """Both passes see the same coins, so that nothing but dropout sets them apart."""
    for dropout in (0.0, 0.3):
        losses, weights = [], []
        for weight in (0.0, 3.0):
            options = {**model, "model.dropout": dropout, "train.teacher_forcing": 0.5}
            made = trainer(
                home, tmp_path / f"{dropout}-{weight}", options, train__r_drop=weight,
                train__optimizer="sgd", train__lr=0.1, train__label_smoothing=0.0,
            )  # fmt: skip
            losses.append(made.step(made.stream.take(1))["sums"])
            weights.append(weights_of(made.module))
        if dropout:
            assert losses[1][0] > losses[1][1] + 1e-3
            continue
        torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(*weights, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "backend",
    [
        "eager",
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler"),
            ],
        ),
    ],
)
@pytest.mark.slow
def test_a_compiled_model_learns_the_same(
    backend: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, asked = torch.compile, []

    def compile_with(module: torch.nn.Module, **options: Any) -> Any:
        asked.append(options)
        return compiler(module, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", compile_with)
    # Adam would blow up rounding where the gradient is nothing but that: at biases of keys.
    plain = {**tinyruns.TRANSFORMER, "model.dropout": 0.0, "train.optimizer": "sgd"}
    weights = []
    for chosen in (False, True):
        made = trainer(home, tmp_path / str(chosen), plain, train__compile=chosen)
        for _ in range(4):
            made.step(made.stream.take(1))
        weights.append(weights_of(made.module))
    assert asked == [{"dynamic": True}]
    torch.testing.assert_close(*weights, atol=1e-6, rtol=1e-4)


def test_the_dry_run_leaves_nothing_behind(home: Path, tmp_path: Path) -> None:
    tensors = []
    for dry in (True, False):
        made = trainer(home, tmp_path / str(dry), tinyruns.RNN)
        if dry:
            before = {name: tensor.clone() for name, tensor in weights_of(made.module).items()}
            made.dry_run()
            assert all(torch.equal(before[n], t) for n, t in weights_of(made.module).items())
            assert all(parameter.grad is None for parameter in made.module.parameters())
            assert not made.optimizer.state
        for _ in range(3):
            made.step(made.stream.take(1))
        tensors.append(weights_of(made.module) | optimizer_tensors(made.module, made.optimizer))
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_rows_on_the_device_train_the_same(home: Path, tmp_path: Path) -> None:
    weights = []
    for resident in (False, True):
        sampled = {"data__tokenizer__sampling_alpha": 0.5}
        made = trainer(home, tmp_path / str(resident), tinyruns.TRANSFORMER, **sampled)
        assert made.rows is made.order  # a CPU has them already
        if resident:
            made.rows = ResidentRows(made.training_set, made.device)
        while made.stream.epoch < 2:
            made.step(made.stream.take(1))
        weights.append(weights_of(made.module))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_the_dry_run_takes_the_largest_batch(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path, tinyruns.TRANSFORMER)
    sizes = [bucket.padded_tokens for bucket in made.order.epoch(0)]
    fetched = []
    fetch = made.order.fetch

    def note(bucket: Bucket) -> Any:
        fetched.append(bucket.padded_tokens)
        return fetch(bucket)

    monkeypatch.setattr(made.order, "fetch", note)
    made.dry_run()
    assert fetched == [max(sizes)]


def test_out_of_memory_in_the_dry_run_is_one_line(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path, tinyruns.TRANSFORMER)

    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2 GiB")

    monkeypatch.setattr(trainer_module, "loss_and_gradient", exhausted)
    with pytest.raises(DragomanError, match=r"^train\.batch_size: the largest batch .* lower it"):
        made.dry_run()


@pytest.mark.parametrize("good", [0, 6], ids=["before a checkpoint", "after one"])
def test_out_of_memory_later_says_what_is_saved(
    good: int,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = Trainer.step

    def exhausted(made: Trainer, buckets: list[Bucket]) -> dict[str, Tensor]:
        if made.state.step == good:
            torch.empty(10**15)  # the words of PyTorch's own allocator
        return step(made, buckets)

    monkeypatch.setattr(Trainer, "step", exhausted)
    assert run_training(tinyruns.config(home, checkpoint_dir=str(tmp_path)), None) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert ("run: out of memory; nothing is saved" in said) == (good == 0)
    assert ("goes on from the last checkpoint" in said) == (good > 0)


def nan_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the gradient of one step, and of all after it, not a number."""
    real, calls = trainer_module.loss_and_gradient, iter(range(1, 1000))

    def poisoned(*arguments: Any, **options: Any) -> tuple[Loss, Tensor]:
        loss, gradient = real(*arguments, **options)
        return loss, gradient if next(calls) < step else gradient * torch.nan

    monkeypatch.setattr(trainer_module, "loss_and_gradient", poisoned)


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(("every", "sound"), [(3, 3), (1, 4)])
def test_a_run_that_diverged_keeps_its_last_sound_step_and_its_advice_works(
    every: int,
    sound: int,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"train__dry_run": False, "train__checkpoint_every": every}
    config = tinyruns.config(home, checkpoint_dir=str(tmp_path), **options)
    config.train.validate_every = 3
    run = tinyruns.run_of(config)
    with monkeypatch.context() as patch:
        nan_at(6, patch)
        assert run_training(config, None) == 2
    (error,) = errors(capsys)
    assert "run: the gradient norm of step 6 is nan" in error
    # The weights of step 5 gave no number; those of step 4 did.
    assert run.checkpoint("last").name == f"step-{sound}"
    advised = re.search(r"train\.init_from=(\S+)", error)
    assert advised is not None
    assert Path(advised[1]) == run.folder / f"step-{sound}"
    lower = tinyruns.config(home, checkpoint_dir=str(tmp_path), run_name="lower", train__lr=0.001,
                            train__init_from=advised[1])  # fmt: skip
    assert run_training(lower, None) == 0
    # Once the cause is gone, the run itself arrives where an undisturbed one does.
    assert run_training(config, None) == 0
    other = tinyruns.config(home, checkpoint_dir=str(tmp_path / "other"))
    assert run_training(other, None) == 0
    ends = [r.folder / "step-10" / "model.safetensors" for r in (run, tinyruns.run_of(other))]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_the_pairs_of_a_gradient_that_is_no_number_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tinyruns.write_pairs(tmp_path / "text", train=40)
    for language in ("de", "en"):
        path = text / f"train.{language}"
        rows = (f"\x1b[31m{row} {'x' * 90}" for row in path.read_text().splitlines())
        path.write_text("\n".join(rows) + "\n")
    nan_at(1, monkeypatch)
    options = {"train__dry_run": False, "data__max_length": 140}
    assert run_training(tinyruns.config(tmp_path, **options), None) == 2
    (error,) = errors(capsys)
    assert error.count("' - '") == 3
    assert r"'\x1b[31m" in error
    assert "xxx...'" in error
    assert "\x1b" not in error
    assert "saved" not in error
    assert "init_from" not in error
    assert not tinyruns.run_of(tinyruns.config(tmp_path)).has_checkpoint()


def test_an_absurd_learning_rate_leaves_nothing_that_is_not_sound(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"checkpoint_dir": str(tmp_path), "train__warmup_steps": 0, "train__lr": 1e30}
    assert run_training(tinyruns.config(home, **options), None) == 2
    assert "the gradient norm of step 2 is" in errors(capsys)[0]
    assert not tinyruns.run_of(tinyruns.config(home, **options)).has_checkpoint()


def test_weights_that_are_no_numbers_are_not_saved(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.step

    def ruined(made: Trainer, buckets: list[Bucket]) -> dict[str, Tensor]:
        found = step(made, buckets)
        if made.state.step == 8:
            next(made.module.parameters()).data[0] = torch.inf
        return found

    monkeypatch.setattr(Trainer, "step", ruined)
    options = {"checkpoint_dir": str(tmp_path), "train__checkpoint_every": 4}
    config = tinyruns.config(home, **options)
    assert run_training(config, None) == 2
    assert "weights of step 8 are not finite" in errors(capsys)[0]
    assert tinyruns.run_of(config).checkpoint("last").name == "step-5"  # the best


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_validation_without_a_number_ends_the_run_before_it_is_saved(
    loss: float,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted([3.0, loss], monkeypatch)
    options = {"checkpoint_dir": str(tmp_path), "train__validate_every": 4}
    config = tinyruns.config(home, train__checkpoint_every=2, **options)
    assert run_training(config, None) == 2
    run = tinyruns.run_of(config)
    assert f"loss on the validation split is {loss} after step 8" in errors(capsys)[0]
    assert run.checkpoint("last").name == "step-6"
    assert run.checkpoint("best").name == "step-4"


def scripted(losses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    rest = iter(losses)

    def score(validator: Validator) -> tuple[Figures, list[str]]:
        loss = next(rest)
        return Figures(loss, 2.0, 0.5, 100 - loss), [""] * len(validator.src_lines)

    monkeypatch.setattr(Validator, "score", score)


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "train.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("metric", ["loss", "bleu"])
def test_early_stopping_after_patience_validations_without_gain(
    metric: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted([5, 4, 4.5, 3, 3, 3.5, 2, 1, 1, 1, 1, 1], monkeypatch)
    options = {
        "checkpoint_dir": str(tmp_path),
        "train__validate_every": 1,
        "train__metric": metric,
        "train__keep": 1,
    }
    config = tinyruns.config(home, train__patience=2, **options)
    run = tinyruns.train_run(config)
    assert "stopping early" in capsys.readouterr().err
    assert run.checkpoint("last").name == "step-6"  # 3, then 3 and 3.5: two without gain
    assert run.checkpoint("best").name == "step-4"
    assert run.steps() == [4, 6]
    tinyruns.train_run(config)
    assert "nothing to do" in capsys.readouterr().err
    # Patience may change on resume: with more of it the same run goes on.
    tinyruns.train_run(tinyruns.config(home, train__patience=5, **options))
    assert run.checkpoint("last").name == "step-10"
    assert run.checkpoint("best").name == "step-8"
    found = [entry["step"] for entry in lines(run.folder) if "validation" in entry]
    assert found == list(range(1, 11))


def test_the_best_checkpoint_is_kept_though_older_ones_go(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([1, *[9] * 20], monkeypatch)
    options = {"train__validate_every": 2, "train__checkpoint_every": 1, "train__keep": 2}
    run = tinyruns.train_run(tinyruns.config(home, checkpoint_dir=str(tmp_path), **options))
    assert run.steps() == [2, 9, 10]
    assert run.checkpoint("best").name == "step-2"


def test_a_longer_run_goes_on_to_where_it_would_have_come_at_once(
    home: Path, tmp_path: Path
) -> None:
    ends = []
    for name, lengths in (("whole", (9,)), ("grown", (4, 9))):
        for steps in lengths:
            options = {"checkpoint_dir": str(tmp_path / name), "train__max_steps": steps}
            run = tinyruns.train_run(tinyruns.config(home, tinyruns.RNN, **options))
        ends.append((run.folder / "step-9" / "model.safetensors").read_bytes())
    assert ends[0] == ends[1]


def test_a_run_that_is_past_its_last_step_is_left_as_it_is(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps in (5, 3):
        options = {"checkpoint_dir": str(tmp_path), "train__max_steps": steps}
        run = tinyruns.train_run(tinyruns.config(home, **options))
    assert "nothing to do: the run is complete at step 5" in capsys.readouterr().err
    assert run.checkpoint("last").name == "step-5"


def test_ema_is_what_validation_scores(home: Path, tmp_path: Path) -> None:
    options = {"checkpoint_dir": str(tmp_path), "train__ema_decay": 0.5}
    run = tinyruns.train_run(tinyruns.config(home, **options))
    folder = run.checkpoint("last")
    assert json.loads((folder / "state.json").read_text())["scored"] == "ema"
    raw, ema = (read_tensors(folder / f"{name}.safetensors") for name in ("model", "ema"))
    assert any(not torch.equal(raw[name], ema[name]) for name in raw)


def test_over_long_and_empty_training_lines_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tinyruns.write_pairs(tmp_path / "text")
    for language, words in (("de", "hund " * 60), ("en", "dog " * 60)):
        with (text / f"train.{language}").open("a", encoding="utf-8") as file:
            file.write(f"{words}\n\n{'' if language == 'de' else 'dog'}\n")
    tinyruns.train_run(tinyruns.config(tmp_path, train__max_steps=1))
    said = capsys.readouterr().err
    assert "120 of 123 training pairs (2 empty, 1 too long left out)" in said


def test_another_number_of_ranks_is_refused(home: Path, tmp_path: Path) -> None:
    made = trainer(home, tmp_path, tinyruns.TRANSFORMER)
    made.state.world = 2
    made.step(made.stream.take(1))
    judge(made.state, Figures(1.0, 1.0, 1.0, 1.0), made.config.train)
    made.save()
    with pytest.raises(DragomanError, match="trained by 2 ranks, now there are 1"):
        trainer(home, tmp_path, tinyruns.TRANSFORMER)


def stopping_at(steps: set[int], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Send this process a signal as soon as one of the steps is done."""
    step = Trainer.step

    def note(made: Trainer, buckets: list[Bucket]) -> dict[str, Tensor]:
        found = step(made, buckets)
        if made.state.step in steps:
            os.kill(os.getpid(), number)
        return found

    monkeypatch.setattr(Trainer, "step", note)


@pytest.mark.parametrize("last", [7, 4], ids=["at its step", "before it"])
@pytest.mark.parametrize("finished", [False, True], ids=["new", "finished once"])
def test_a_run_that_was_stopped_and_is_ended_there_is_validated(
    finished: bool, last: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(steps: int) -> Config:
        options = {"train__validate_every": 50, "train__checkpoint_every": 50}
        return tinyruns.config(
            home, checkpoint_dir=str(tmp_path), train__max_steps=steps, **options
        )

    run = tinyruns.run_of(config(3))
    if finished:
        tinyruns.train_run(config(3))
    with monkeypatch.context() as patch:
        stopping_at({7}, patch, signal.SIGTERM)
        assert run_training(config(20), None) == 128 + signal.SIGTERM
    assert run.checkpoint("last").name == "step-7"
    tinyruns.train_run(config(last))
    validated = [entry["step"] for entry in lines(run.folder) if "validation" in entry]
    assert validated == ([3, 7] if finished else [7])
    assert run.checkpoint("best").name in {f"step-{step}" for step in validated}
    weights = (run.folder / "step-7" / "model.safetensors").read_bytes()
    # Made longer, it arrives where a run that was never stopped does.
    tinyruns.train_run(config(9))
    tinyruns.train_run(
        tinyruns.config(home, checkpoint_dir=str(tmp_path / "whole"), train__max_steps=9)
    )
    whole = tmp_path / "whole" / "run" / "step-9" / "model.safetensors"
    assert (run.folder / "step-9" / "model.safetensors").read_bytes() == whole.read_bytes()
    assert weights != whole.read_bytes()


def test_signals_are_collected_and_handlers_put_back() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with signals(Ranks()) as received:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):  # as torchrun does
            os.kill(os.getpid(), number)
        assert received == [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(number) for number in numbers] == before


def test_one_of_several_ranks_does_not_give_up_at_a_second_ctrl_c() -> None:
    """The terminal sends it to every process, and torchrun sends it to every rank again."""
    with signals(Ranks(0, 2)) as received:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT] * 2


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals(Ranks()) as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "problem", [BrokenPipeError(), RuntimeError("reentrant call"), ValueError("closed file")]
)
def test_a_signal_is_taken_though_nobody_can_be_told(
    problem: Exception, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone:
        def write(self, text: str) -> int:
            raise problem

        flush = isatty = lambda *_: False

    monkeypatch.setattr(sys, "stderr", Gone())
    stopping_at({3}, monkeypatch, signal.SIGINT)
    config = tinyruns.config(home, checkpoint_dir=str(tmp_path))
    assert run_training(config, None) == 128 + signal.SIGINT
    assert tinyruns.run_of(config).checkpoint("last").name == "step-3"


def test_trainings_in_a_thread_and_one_after_another_are_as_in_a_process_of_their_own(
    home: Path, tmp_path: Path
) -> None:
    before = (torch.get_num_threads(), signal.getsignal(signal.SIGTERM), warnings.showwarning)
    ends = []
    for name, in_thread in (("first", False), ("second", False), ("thread", True)):
        config = tinyruns.config(home, checkpoint_dir=str(tmp_path / name), threads=2)
        work = threading.Thread(target=tinyruns.train_run, args=(config,))
        (work.start if in_thread else work.run)()
        if in_thread:
            work.join()
        run = tinyruns.run_of(config)
        assert read_state(run.checkpoint("last"))["threads"] == [2]
        ends.append((run.checkpoint("last") / "model.safetensors").read_bytes())
        now = (torch.get_num_threads(), signal.getsignal(signal.SIGTERM), warnings.showwarning)
        assert now == before
    assert ends[0] == ends[1] == ends[2]


@pytest.mark.parametrize("split", ["train", "val"])
def test_data_that_changed_between_two_sessions_are_refused_by_name(
    split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tinyruns.write_pairs(tmp_path / "text")
    config = tinyruns.config(tmp_path, train__max_steps=2)
    tinyruns.train_run(config)
    file = text / f"{split}.en"
    content = file.read_text()
    file.write_text(content.replace(".", "!", 1))
    config.train.max_steps = 4
    assert run_training(config, None) == 2
    (error,) = errors(capsys)
    assert (
        f"data.files.{split} ({split}.{{lang}} in {text}) has changed since this run began" in error
    )
    file.write_text(content)
    assert run_training(config, None) == 0


def test_an_older_state_takes_the_validation_split_as_it_is(home: Path, tmp_path: Path) -> None:
    config = tinyruns.config(home, checkpoint_dir=str(tmp_path), train__max_steps=2)
    run = tinyruns.train_run(config)
    path = run.checkpoint("last") / "state.json"
    state = json.loads(path.read_text())
    was = state["data"].pop("files.val.de-en")
    path.write_text(json.dumps(state))
    config.train.max_steps = 4
    tinyruns.train_run(config)
    assert read_state(run.checkpoint("last"))["data"]["files.val.de-en"] == was


def test_a_rate_that_will_be_nothing_is_told_with_advice_that_works(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"checkpoint_dir": str(tmp_path), "train__max_steps": 6, "train__warmup_steps": 1}
    run = tinyruns.train_run(tinyruns.config(home, **options, train__schedule_steps=3))
    said = capsys.readouterr().err
    assert "after step 3 the learning rate is 0" in said
    assert f"train.init_from={run.folder}" in said
    for advice in ({"train__min_lr": 1e-4, "train__schedule_steps": 3},
                   {"train__schedule_steps": 6}):  # fmt: skip
        name = "-".join(advice)
        config = tinyruns.config(
            home, run_name=name, train__init_from=str(run.folder), **options, **advice
        )
        assert run_training(config, None) == 0
        assert "learning rate is 0" not in capsys.readouterr().err
