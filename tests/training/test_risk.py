"""Minimum-risk training: costs, the expectation's gradient, and that it lowers the risk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sacrebleu.metrics.bleu import BLEU
from torch import Tensor

import tiny
import tinyruns
import tinytokens
from dragoman.config import TokenizerConfig
from dragoman.data.batching import Batch
from dragoman.data.tokenizers import EOS, UNK
from dragoman.decoding.search import Hypothesis
from dragoman.launch import run_training
from dragoman.training import risk
from dragoman.training.distributed import Ranks
from dragoman.training.loss import target_log_probs
from dragoman.training.risk import candidates, expected_cost, risk_backward
from dragoman.training.trainer import Trainer


class Letters:
    """A tokenizer whose token ids are words."""

    def decode(self, ids: list[int]) -> str:
        return " ".join(f"w{token}" for token in ids)


def test_the_expected_cost_and_its_gradient_by_hand() -> None:
    rows = torch.tensor([0, 0, 0, 1, 1])
    costs = torch.tensor([0.1, 0.9, 0.4, 0.7, 0.2], dtype=torch.float64)
    logs = torch.tensor([-200.0, -210.0, -190.0, -3.0, -1.0], dtype=torch.float64)
    leaf = logs.clone().requires_grad_()
    parts = [(leaf[:3], costs[:3]), (leaf[3:], costs[3:])]
    risk = sum(((0.3 * own).softmax(0) * cost).sum() for own, cost in parts)
    assert isinstance(risk, Tensor)
    found, gradient = expected_cost(logs, rows, costs, 0.3)
    torch.testing.assert_close(found, risk.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(risk, leaf)[0])


def test_candidates_differ_and_cost_what_sacrebleu_says(batch: Batch) -> None:
    model: Any = tiny.fluent("lstm")
    decode = tiny.decode(method="sample", nbest=12, seed=3)
    tokenizer: Any = Letters()
    pairs, rows, costs = candidates(model, batch, tokenizer, decode)
    metric = BLEU(effective_order=True)
    targets = [row.tolist() for row in pairs.targets_N.split(pairs.tgt_lengths_B.tolist())]
    references = [row.tolist() for row in batch.targets_N.split(batch.tgt_lengths_B.tolist())]
    assert set(rows.tolist()) == set(range(len(batch.src_BS)))
    assert len({(row, *target) for row, target in zip(rows.tolist(), targets, strict=True)}) == len(
        rows
    )
    assert len(rows) > 2 * len(batch.src_BS)
    for place, (row, target) in enumerate(zip(rows.tolist(), targets, strict=True)):
        length = int(batch.src_lengths_B[row])
        assert pairs.src_lengths_B[place] == length
        assert torch.equal(pairs.src_BS[place, :length], batch.src_BS[row, :length])
        assert target[-1] == EOS
        texts = tokenizer.decode(target[:-1]), tokenizer.decode(references[row][:-1])
        score = metric.sentence_score(texts[0], [texts[1]]).score
        assert float(costs[place]) == pytest.approx(1 - score / 100, abs=1e-6)


@pytest.mark.parametrize("kind", ["spacy", "sentencepiece"])
def test_an_unknown_word_matches_no_other(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["a dog runs in the park", "the dog sees a park", "in the park a dog runs"] * 3
    config = TokenizerConfig(kind=kind, vocab_size=20)
    tokenizer = tinytokens.train_tokenizers(config, [(t, t) for t in lines], ("en", "en"))[1]
    reference = tokenizer.encode("a dog runs qqqq")
    assert UNK in reference
    known = [token for token in reference if token != UNK]
    found = [[Hypothesis(tokens, 0.0, 0.0) for tokens in (reference, known)]]
    monkeypatch.setattr(risk, "search", lambda *_: found)
    batch = tiny.pairs([[5, 6]], [[*reference, EOS]])
    model: Any = None
    costs = candidates(model, batch, tokenizer, tiny.decode())[2].tolist()
    assert costs[0] > costs[1] > 0


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("name", tiny.FEW)
def test_its_gradient_is_that_of_the_expectation(name: str, fast: bool, batch: Batch) -> None:
    model: Any = tiny.build(tiny.FEW[name])
    model.fast = fast
    rows, costs = torch.tensor([0, 0, 1, 1]), torch.tensor([0.2, 0.9, 0.5, 0.3]).double()
    states = model(batch)
    logs = model.project(states).log_softmax(-1).gather(1, batch.targets_N[:, None])[:, 0]
    torch.testing.assert_close(target_log_probs(model, states, batch.targets_N), logs.detach())
    sentences = torch.stack([part.sum() for part in logs.split(batch.tgt_lengths_B.tolist())])
    weights = torch.cat([(0.5 * sentences[:2]).softmax(0), (0.5 * sentences[2:]).softmax(0)])
    expected = (weights * costs).sum()
    gradients = torch.autograd.grad(expected / 7, list(model.parameters()), allow_unused=True)
    found = risk_backward(model, model, batch, rows, costs, 0.5, divisor=7.0)
    torch.testing.assert_close(found, expected.detach())
    for (key, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        wanted = torch.zeros_like(parameter) if gradient is None else gradient
        own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(own, wanted, atol=1e-9, rtol=1e-6, msg=key)


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"checkpoint_dir": str(folder), "log__tensorboard": False, **changes}


@pytest.mark.parametrize(
    "model",
    [tinyruns.TRANSFORMER, pytest.param(tinyruns.RNN, marks=pytest.mark.slow)],
    ids=["transformer", "rnn"],
)
def test_fine_tuning_begins_with_another_runs_weights_and_lowers_the_risk(
    model: dict[str, Any], tmp_path: Path
) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    plain = {**model, "model.dropout": 0.0, "train.teacher_forcing": 1.0}
    first = tinyruns.config(tmp_path, plain, **options(tmp_path / "a", train__max_steps=60,
                                                       train__schedule_steps=60,))  # fmt: skip
    source = tinyruns.train_run(first)
    tuned = tinyruns.config(
        tmp_path, plain,
        **options(
            tmp_path / "b", train__init_from=str(source.folder), train__risk=1.0,
            train__risk_samples=16, train__clip_norm=0.0, train__lr=1e-2,
            train__schedule="constant", train__warmup_steps=0, train__risk_sharpness=1.0,
        ),
    )  # fmt: skip
    run = tinyruns.run_of(tuned)
    run.create()
    made = Trainer(tuned, run, Ranks())
    buckets = made.stream.take(1)
    risks = []
    for _ in range(30):  # of the very same sentences
        sums = made.step(buckets)["sums"]
        risks.append(float(sums[0]))
        assert 0 < sums[0] < 1 < sums[1] * 100
        torch.testing.assert_close(sums[3], sums[0])  # nothing is left of cross-entropy
    assert sum(risks[-5:]) < 0.97 * sum(risks[:5]), risks


def test_another_vocabulary_or_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    source = tinyruns.train_run(
        tinyruns.config(tmp_path, tinyruns.RNN, **options(tmp_path / "a", train__max_steps=1))
    )
    for model, changes, words in (
        (tinyruns.RNN, {"data__tokenizer__vocab_size": 70}, "has another vocabulary"),
        (tinyruns.TRANSFORMER, {}, "has another model: name=rnn there, transformer here"),
        (tinyruns.RNN, {"model__attention": "dot"}, "attention=additive there, dot here"),
    ):
        changes |= {"train__init_from": str(source.folder)}
        config = tinyruns.config(tmp_path, model, **options(tmp_path / "b", **changes))
        capsys.readouterr()
        assert run_training(config, None) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error
        assert error.count("\n") == 1
