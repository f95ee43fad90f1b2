"""The loss: sums over real target tokens, against ``F.cross_entropy`` and by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from dragoman.data.batching import Batch
from dragoman.models.fast import linear as linear_module
from dragoman.models.fast.linear import MULTIPLE
from dragoman.training import loss as loss_module
from dragoman.training.loss import (
    loss_and_gradient,
    sequence_loss,
    smoothed_nll,
)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_equals_cross_entropy_forward_and_gradient(smoothing: float) -> None:
    logits = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(11, (7,))
    ours = smoothed_nll(logits, targets, smoothing)
    theirs = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    plain = F.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(ours.smoothed, theirs)
    torch.testing.assert_close(ours.nll, plain.detach())
    gradients = [torch.autograd.grad(value, logits)[0] for value in (ours.smoothed, theirs)]
    torch.testing.assert_close(*gradients)


def test_gradcheck() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 3, 3, 1])
    assert torch.autograd.gradcheck(lambda x: smoothed_nll(x, targets, 0.2).smoothed, logits)


def test_sums_by_hand() -> None:
    # Two tokens, probabilities 1/4 and 3/4 each time; the targets are hit once.
    logits = torch.tensor([[0.25, 0.75], [0.25, 0.75]], dtype=torch.float64).log()
    found = smoothed_nll(logits, torch.tensor([0, 1]), 0.0)
    assert float(found.nll) == pytest.approx(math.log(4) + math.log(4 / 3))
    assert int(found.correct) == 1
    # Perplexity: the inverse of the geometric mean of the probabilities.
    assert math.exp(float(found.nll) / 2) == pytest.approx(1 / math.sqrt(0.25 * 0.75))


def test_uniform_model_has_perplexity_of_the_vocabulary() -> None:
    found = smoothed_nll(torch.zeros(9, 13), torch.arange(9), 0.1)
    assert math.exp(float(found.nll) / 9) == pytest.approx(13)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    logits = torch.randn(50, 30)
    found = smoothed_nll(logits.bfloat16(), torch.zeros(50, dtype=torch.int64), 0.1)
    assert found.smoothed.dtype == found.nll.dtype == torch.float32


def test_chunks_change_nothing(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build(tiny.transformer())
    states = model(batch)
    whole = sequence_loss(model, states, batch.targets_N, 0.1)
    monkeypatch.setattr(loss_module, "CHUNK", 3)
    assert len(states) > 3
    chunked = sequence_loss(model, states, batch.targets_N, 0.1)
    for a, b in zip(whole, chunked, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("name", tiny.FEW)
def test_the_gradient_in_chunks_is_that_of_the_plain_form(
    name: str, chunk: int, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    losses, gradients = [], []
    for plain in (True, False):
        model: Any = tiny.build(tiny.FEW[name])
        states = model(batch)
        if plain:
            loss = sequence_loss(model, states, batch.targets_N, 0.1)
            (loss.smoothed / 7).backward()
            loss = loss._replace(smoothed=loss.smoothed.detach())
        else:
            loss, gradient = loss_and_gradient(model, states, batch.targets_N, 0.1, divisor=7.0)
            states.backward(gradient)
        losses.append(loss)
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    for mine, other in zip(*losses, strict=True):
        torch.testing.assert_close(mine, other)
        assert not mine.requires_grad
    for key, expected in gradients[0].items():
        assert expected is not None, key
        torch.testing.assert_close(gradients[1][key], expected, rtol=1e-9, atol=1e-12)


class Widest(TorchDispatchMode):
    """Notes the most rows of any tensor as wide as the vocabulary, filled up or not."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.widths, self.rows = (vocab, -(-vocab // MULTIPLE) * MULTIPLE), 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = op(*args, **(kwargs or {}))
        turned = op is torch.ops.aten.t.default  # the weights
        matrix = isinstance(out, torch.Tensor) and out.ndim == 2 and not turned
        if matrix and out.shape[1] in self.widths:
            self.rows = max(self.rows, out.shape[0])
        return out


def test_no_more_logits_than_a_chunk_are_ever_held(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK", 4)
    model: Any = tiny.build(tiny.transformer())
    states = model(batch)
    vocab = model.output.out_features
    assert states.shape[1] not in (vocab, -(-vocab // MULTIPLE) * MULTIPLE)
    for fast, most in ((True, 4), (False, batch.num_tokens)):
        model.fast = fast
        with Widest(vocab) as widest:
            loss_and_gradient(model, states, batch.targets_N, 0.1, divisor=1.0)
        assert widest.rows == most


@pytest.mark.skipif(not linear_module.ONEDNN, reason="no AVX-512")
def test_logits_and_their_way_back_are_products_of_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK", 64)  # a whole one and a rest, which is filled up
    model: Any = SimpleNamespace(output=nn.Linear(5, 31), fast=True)
    with tiny.RowsOfOneDNN() as seen:
        loss_and_gradient(model, torch.randn(70, 5), torch.randint(31, (70,)), 0.1, divisor=1.0)
    assert seen.found == [64, 64, 32, 32]


@pytest.mark.parametrize("vocab", [16, 17, 31])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("chunk", [16, 100])
@pytest.mark.parametrize("onednn", [True, False])
def test_the_gradient_by_hand_is_that_of_cross_entropy(
    vocab: int, smoothing: float, chunk: int, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_module, "ONEDNN", onednn and linear_module.ONEDNN)
    monkeypatch.setattr(loss_module, "CHUNK", chunk)  # two whole ones and a rest, or a rest alone
    model: Any = SimpleNamespace(output=nn.Linear(5, vocab), fast=True)
    states = torch.randn(40, 5, requires_grad=True)
    targets = torch.randint(vocab, (40,))
    found, gradient = loss_and_gradient(model, states, targets, smoothing, divisor=3.0)
    mine = [gradient, model.output.weight.grad, model.output.bias.grad]
    inputs = [states, model.output.weight, model.output.bias]
    loss = F.cross_entropy(
        model.output(states), targets, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(found.smoothed, loss.detach())
    for own, theirs in zip(mine, torch.autograd.grad(loss / 3.0, inputs), strict=True):
        torch.testing.assert_close(own, theirs)
    # A second micro-batch adds to what is there.
    loss_and_gradient(model, states, targets, smoothing, divisor=3.0)
    torch.testing.assert_close(model.output.weight.grad, 2 * mine[1])


@pytest.mark.parametrize("chunk", [6, 7, 100])
@pytest.mark.parametrize("vocab", [16, 19])
def test_two_passes_add_their_divergence(
    vocab: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R-Drop's loss and gradients, by hand and plain, are those of PyTorch's KL divergence."""
    monkeypatch.setattr(loss_module, "CHUNK", chunk)
    model: Any = SimpleNamespace(output=nn.Linear(5, vocab).double())
    model.project = model.output
    states = torch.randn(26, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(vocab, (13,)).repeat(2)
    logits = model.output(states)
    p, q = logits.log_softmax(-1).chunk(2)
    apart = [F.kl_div(a, b, reduction="sum", log_target=True) for a, b in ((p, q), (q, p))]
    entropy = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.1)
    loss = (entropy + 4.0 * (apart[0] + apart[1]) / 2) / 2
    inputs = [states, model.output.weight, model.output.bias]
    expected = torch.autograd.grad(loss / 3.0, inputs)
    nll = F.cross_entropy(logits, targets, reduction="sum") / 2
    for model.fast in (True, False):
        model.output.zero_grad()
        found, gradient = loss_and_gradient(model, states, targets, 0.1, 3.0, r_drop=4.0)
        mine = [gradient, model.output.weight.grad, model.output.bias.grad]
        torch.testing.assert_close(found.smoothed, loss.detach())
        torch.testing.assert_close(found.nll, nll.detach())
        assert float(found.correct) == int((logits.argmax(-1) == targets).sum()) / 2
        for own, theirs in zip(mine, expected, strict=True):
            torch.testing.assert_close(own, theirs)


def test_under_autocast_logits_are_bfloat16_and_sums_are_not() -> None:
    model: Any = SimpleNamespace(output=nn.Linear(64, 50), fast=True)
    model.project = model.output
    states, targets = torch.randn(40, 64), torch.randint(50, (40,))
    found = []
    for fast in (True, False):
        model.fast, model.output.weight.grad = fast, None
        with torch.autocast("cpu", torch.bfloat16):
            loss, gradient = loss_and_gradient(model, states, targets, 0.1, divisor=40.0)
        assert loss.smoothed.dtype == gradient.dtype == torch.float32
        found.append((loss.smoothed, gradient, model.output.weight.grad))
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=0.02, atol=1e-3)


def test_padding_is_never_a_target(batch: Batch) -> None:
    model = tiny.build(tiny.transformer())
    real = int(batch.tgt_lengths_B.sum())
    assert model(batch).shape[0] == batch.num_tokens == real < batch.tgt_in_BT.numel()
