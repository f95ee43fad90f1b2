from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dragoman.models.fast import activate_and_drop, drop
from dragoman.models.fast import dropout as dropout_module
from dragoman.models.fast.dropout import draw, keep_mask

# Draws per test; a rate of 0.5 is then known to 0.0005 (one standard deviation).
MANY = 1_000_000
RATES = (0.1, 0.25, 0.3, 0.5, 0.9)


def mask_of(x: Tensor, p: float) -> tuple[Tensor, float]:
    return keep_mask(draw(x), p, x.dtype)


@pytest.mark.parametrize("p", [*RATES, 0.05, 0.2, 0.99])
def test_keep_probability_is_within_a_ten_thousandth_and_known_exactly(p: float) -> None:
    # Every 16-bit lane once: what is kept is then counted, not estimated.
    _, keep = mask_of(torch.empty(4), p)
    assert abs(keep - (1 - p)) < 1e-4
    assert keep * 2**16 == int(keep * 2**16)
    mask, _ = mask_of(torch.empty(MANY), p)
    deviation = math.sqrt(keep * (1 - keep) / MANY)
    assert abs(mask.double().mean() - keep) < 5 * deviation


def test_a_lane_is_kept_for_exactly_that_share_of_its_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.int64)
    monkeypatch.setattr(dropout_module, "_words", lambda count: every)
    for p in RATES:
        mask, keep = mask_of(torch.empty(2**16), p)
        assert int(mask.sum()) == keep * 2**16


@pytest.mark.parametrize("p", RATES)
def test_what_is_kept_is_scaled_exactly(p: float) -> None:
    x = torch.randn(5, 7, 11, dtype=torch.float64)
    torch.manual_seed(3)
    out = drop(x, p)
    torch.manual_seed(3)
    mask, keep = mask_of(x, p)
    torch.testing.assert_close(out, x * mask / keep, rtol=1e-15, atol=0)
    assert 0 < int(mask.sum()) < x.numel()


@pytest.mark.parametrize("p", RATES)
def test_the_mean_is_unbiased(p: float) -> None:
    out = drop(torch.ones(MANY, dtype=torch.float64), p)
    deviation = math.sqrt(p / (1 - p) / MANY)
    assert abs(float(out.mean()) - 1) < 5 * deviation


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize("apart", [1, 2, 3, 4, 5])
def test_neighbours_are_independent(p: float, apart: int) -> None:
    """Pearson's chi-square on pairs of elements, one of them for each place in the 64-bit word."""
    mask, keep = mask_of(torch.empty(MANY), p)
    for lane in range(4):
        first = mask[lane::4][: MANY // 4 - 2].long()
        second = mask[lane + apart :: 4][: len(first)].long()
        counts = torch.bincount(2 * first + second, minlength=4).double()
        odds = torch.tensor([1 - keep, keep], dtype=torch.float64)
        expected = len(first) * (odds[:, None] * odds[None]).flatten()
        # 3 degrees of freedom: 27.9 is exceeded by chance once in 260,000 times.
        assert float(((counts - expected).square() / expected).sum()) < 27.9


def test_gradient_passes_where_the_value_did() -> None:
    x = torch.randn(40, dtype=torch.float64, requires_grad=True)
    out = drop(x, 0.5)
    out.sum().backward()
    torch.testing.assert_close(x.grad, (out / x).detach(), rtol=1e-12, atol=0)


def test_with_a_residual_it_is_the_sum_forward_and_backward() -> None:
    x, residual = (torch.randn(6, 7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    torch.manual_seed(1)
    plain = residual + drop(x, 0.3)
    torch.manual_seed(1)
    fused = drop(x, 0.3, residual=residual)
    torch.testing.assert_close(fused, plain, rtol=1e-15, atol=1e-15)
    upstream = torch.randn(6, 7, dtype=torch.float64)
    for mine, other in zip(
        torch.autograd.grad(fused, [x, residual], upstream),
        torch.autograd.grad(plain, [x, residual], upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)
    assert torch.equal(drop(x, 0.3, training=False, residual=residual), residual + x)


@pytest.mark.parametrize(("p", "training"), [(0.5, False), (0.0, True), (0.0, False)])
def test_identity_when_not_training_or_at_rate_zero(p: float, training: bool) -> None:
    x = torch.randn(3, 4)
    state = torch.get_rng_state()
    assert drop(x, p, training) is x
    assert torch.equal(torch.get_rng_state(), state), "and nothing is drawn"


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 3), (0, 4), (5, 1, 3)])
def test_any_shape_and_layout(shape: tuple[int, ...]) -> None:
    mask, _ = mask_of(torch.empty(shape), 0.5)
    assert mask.shape == shape
    assert mask.dtype == torch.float32
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    x = torch.randn(6, 8).t()
    assert drop(x, 0.5).shape == x.shape


def test_draws_follow_from_the_seed() -> None:
    masks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        masks.append(mask_of(torch.empty(64), 0.5)[0])
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_half_precision_stays_so() -> None:
    out = drop(torch.ones(1000, dtype=torch.bfloat16), 0.5)
    assert out.dtype == torch.bfloat16
    assert set(out.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("p", [0.0, *RATES])
@pytest.mark.parametrize("training", [True, False])
def test_with_relu_it_is_dropout_of_relu_forward_and_backward(p: float, training: bool) -> None:
    x = torch.randn(31, 17, dtype=torch.float64)
    x[0] = 0.0
    grad = torch.randn_like(x)
    results = []
    for function in (
        lambda x: activate_and_drop(F.relu, x, p, training),
        lambda x: drop(x.relu(), p, training),
    ):
        torch.manual_seed(3)
        own = x.clone().requires_grad_()
        out = function(own)
        out.backward(grad)
        assert own.grad is not None
        results.append((out.detach(), own.grad))
    for fused, plain in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-14, atol=0)
