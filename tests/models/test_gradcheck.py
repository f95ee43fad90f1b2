"""Analytic gradients against finite differences, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.nn import functional as F

from dragoman.models.attention import SCORES, Attention, Grid, MultiHeadAttention, causal_mask
from dragoman.models.fast import dropout as dropout_module
from dragoman.models.positions import POSITIONS
from dragoman.training.loss import sequence_loss, smoothed_nll

B, T, S = 2, 3, 4


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def check(module: nn.Module, call: str, *inputs: Tensor, **fixed: object) -> None:
    """Check the gradient of a method's result in its inputs and in every parameter."""

    class Call(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *arguments: Tensor) -> Tensor:
            return getattr(self.inner, call)(*arguments, **fixed)

    caller = Call()
    names = [name for name, _ in caller.named_parameters()]
    values = [
        (p.detach() + 0.2 * torch.randn_like(p)).requires_grad_() for p in caller.parameters()
    ]

    def function(*everything: Tensor) -> Tensor:
        arguments, weights = everything[: len(inputs)], everything[len(inputs) :]
        return functional_call(caller, dict(zip(names, weights, strict=True)), tuple(arguments))

    assert gradcheck(function, (*inputs, *values), atol=1e-6)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("name", SCORES)
def test_recurrent_attention(name: str, need_weights: bool) -> None:
    class Whole(Attention):
        def run(self, query: Tensor, memory: Tensor) -> Tensor:
            mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
            return self(query, self.prepare(memory), mask, {} if need_weights else None)

    check(Whole(name, 2, 6, 4, num_heads=2).double(), "run", double(B, T, 2), double(B, S, 6))


@pytest.mark.parametrize("position", ["none", "rotary", "shaw", "t5"])
@pytest.mark.parametrize("name", SCORES)
def test_multi_head_self_attention(name: str, position: str) -> None:
    class Whole(MultiHeadAttention):
        def __init__(self) -> None:
            super().__init__(name, 4, 2)
            self.positions = POSITIONS[position](4, 2, 8, True)

        def run(self, x: Tensor) -> Tensor:
            return self(x, causal_mask(T, x.device), self.positions, None, Grid())[0]

    module = Whole().double()
    if position == "shaw":  # only the distances in reach, or finite differences take for ever
        module.positions.max_distance = 2
        module.positions.vectors = nn.Parameter(double(5, 2).detach())
    if position == "t5":
        module.positions.num_buckets = 6
        module.positions.table = nn.Parameter(double(2, 6).detach())
    check(module, "run", double(B, T, 4))


@pytest.mark.parametrize("name", SCORES)
def test_multi_head_cross_attention(name: str) -> None:
    class Whole(MultiHeadAttention):
        def run(self, x: Tensor, memory: Tensor) -> Tensor:
            mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()[:, None, None]
            return self.attend_to(x, self.prepare(memory, Grid()), mask, Grid())

    check(Whole(name, 4, 2).double(), "run", double(B, T, 4), double(B, S, 4))


def test_dropout_with_a_fixed_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.rand(3, 5) < 0.7
    monkeypatch.setattr(dropout_module, "keep_mask", lambda *_: (mask, 0.7))
    x = double(3, 5)
    assert gradcheck(lambda value: dropout_module.drop(value, 0.3), (x,))
    torch.testing.assert_close(dropout_module.drop(x, 0.3), x * mask / 0.7)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_loss(smoothing: float) -> None:
    logits, targets = double(7, 5), torch.tensor([0, 4, 2, 2, 1, 3, 0])
    assert gradcheck(lambda x: smoothed_nll(x, targets, smoothing).smoothed, (logits,))
    found = smoothed_nll(3 * logits, targets, smoothing)
    expected = F.cross_entropy(3 * logits, targets, label_smoothing=smoothing, reduction="sum")
    torch.testing.assert_close(found.smoothed, expected, rtol=0, atol=1e-11)
    plain = F.cross_entropy(3 * logits, targets, reduction="sum")
    torch.testing.assert_close(found.nll, plain, rtol=0, atol=1e-11)
    mine, theirs = (torch.autograd.grad(x, logits)[0] for x in (found.smoothed, expected))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)
    assert int(found.correct) == int((logits.argmax(-1) == targets).sum())


def test_loss_in_chunks_is_the_loss_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Linear(nn.Linear):
        def project(self, states: Tensor) -> Tensor:
            return self(states)

    model, states = Linear(4, 6).double(), double(11, 4)
    targets = torch.randint(6, (11,))
    whole = smoothed_nll(model(states), targets, 0.1)
    monkeypatch.setattr("dragoman.training.loss.CHUNK", 3)
    chunked = sequence_loss(model, states, targets, 0.1)
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    check_with = [states, *model.parameters()]
    mine = torch.autograd.grad(chunked.smoothed, check_with)
    theirs = torch.autograd.grad(whole.smoothed, check_with)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
