"""What a step is: micro-batches, the dry run, numbers that are none, early stopping."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tinyruns
from dragoman.data.batching import Bucket
from dragoman.data.resident import ResidentRows
from dragoman.errors import DragomanError
from dragoman.launch import run_training
from dragoman.models.weights import read_tensors, weights_of
from dragoman.training import trainer as trainer_module
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


def test_out_of_memory_later_is_one_line_too(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: Any) -> None:
        torch.empty(10**15)  # the words of PyTorch's own allocator

    monkeypatch.setattr(trainer_module.Trainer, "step", exhausted)
    assert run_training(tinyruns.config(home, checkpoint_dir=str(tmp_path)), None) == 2
    assert "run: out of memory; its last checkpoint" in capsys.readouterr().err.splitlines()[-1]


def nan_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the gradient of one step, and of all after it, not a number."""
    real, calls = trainer_module.loss_and_gradient, iter(range(1, 1000))

    def poisoned(*arguments: Any, **options: Any) -> tuple[Loss, Tensor]:
        loss, gradient = real(*arguments, **options)
        return loss, gradient if next(calls) < step else gradient * torch.nan

    monkeypatch.setattr(trainer_module, "loss_and_gradient", poisoned)


def test_a_gradient_that_is_no_number_stops_the_run_after_saving(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tinyruns.config(home, checkpoint_dir=str(tmp_path), train__dry_run=False)
    run = tinyruns.run_of(config)
    with monkeypatch.context() as patch:
        nan_at(4, patch)
        assert run_training(config, None) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert error[0].startswith("error: step 4: the gradient norm is nan in the batch of training")
    assert "saved as step-3" in error[0]
    assert "lower train.lr" in error[0]
    assert run.checkpoint("last").name == "step-3"
    weights = read_tensors(run.folder / "step-3" / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    # What was saved goes on, once the cause is gone, to where an undisturbed run arrives.
    assert run_training(config, None) == 0
    other = tinyruns.config(home, checkpoint_dir=str(tmp_path / "other"))
    assert run_training(other, None) == 0
    ends = [r.folder / "step-10" / "model.safetensors" for r in (run, tinyruns.run_of(other))]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_an_absurd_learning_rate_is_refused_by_its_gradient(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"checkpoint_dir": str(tmp_path), "train__warmup_steps": 0, "train__lr": 1e30}
    assert run_training(tinyruns.config(home, **options), None) == 2
    assert "the gradient norm is" in capsys.readouterr().err.splitlines()[-1]


def test_at_the_first_step_nothing_is_said_to_be_saved(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trainer(home, tmp_path, tinyruns.TRANSFORMER)
    nan_at(1, monkeypatch)
    with pytest.raises(DragomanError, match=r"^step 1: the gradient norm is nan") as caught:
        made.step(made.stream.take(1))
    assert "saved" not in str(caught.value)
    assert not made.run.has_checkpoint()


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
    said = capsys.readouterr().err
    assert "nothing to do: the run is past train.max_steps=3 at step 5" in said
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
