from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dragoman.models.attention import (
    SCORES,
    Attention,
    Grid,
    KeyValue,
    MultiHeadAttention,
    ScaledDotScore,
    attend,
    causal_mask,
    masked_softmax,
    merge_heads,
    split_heads,
)
from dragoman.models.positions import POSITIONS

B, H, T, S, A = 2, 3, 4, 5, 6


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def shaken(module: nn.Module) -> nn.Module:
    """Return the module in float64 with no parameter at its starting point (biases at zero)."""
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def attended(
    *inputs: Any, need_weights: bool = True, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Return the context and, if they are asked for, the weights."""
    weights: dict[str, Tensor] | None = {} if need_weights else None
    context = attend(*inputs, weights=weights, **options)
    return context, None if weights is None else weights["attention"]


def score_loop(name: str, score: nn.Module, query: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Compare every query with every key of every head, one number at a time."""
    weights = {key: value.detach().numpy() for key, value in score.named_parameters()}
    out = np.zeros((B, H, T, S))
    for b, h, t, s in np.ndindex(out.shape):
        q, k = query[b, h, t], keys[b, h, s]
        if name == "additive":
            out[b, h, t, s] = sum(
                v * math.tanh(x + y) for v, x, y in zip(weights["v_HA"][h], q, k, strict=True)
            )
        elif name == "general":
            matrix = weights["weight_HAA"][h]
            out[b, h, t, s] = sum(q[i] * matrix[i, j] * k[j] for i in range(A) for j in range(A))
        else:
            dot = sum(x * y for x, y in zip(q, k, strict=True))
            out[b, h, t, s] = dot / math.sqrt(A) if name == "scaled_dot" else dot
    return out


def softmax_loop(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    out = np.zeros_like(scores)
    for place in np.ndindex(scores.shape[:-1]):
        allowed = [s for s in range(scores.shape[-1]) if mask[(*place, s)]]
        total = sum(math.exp(scores[(*place, s)]) for s in allowed)
        for s in allowed:
            out[(*place, s)] = math.exp(scores[(*place, s)]) / total
    return out


@pytest.mark.parametrize("name", SCORES)
def test_score_is_its_loop(name: str) -> None:
    score = shaken(SCORES[name](H, A))
    query, keys = double(B, H, T, A), double(B, H, S, A)
    found = score(query, score.prepare(keys))
    expected = score_loop(name, score, query.detach().numpy(), keys.detach().numpy())
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_attend_is_its_loop(name: str) -> None:
    score = shaken(SCORES[name](H, A))
    query, keys, values = double(B, H, T, A), double(B, H, S, A), double(B, H, S, A)
    bias = double(B, H, T, S)
    mask = torch.rand(B, 1, T, S) < 0.6
    mask[..., 0] = True
    prepared = score.prepare(keys)
    context, weights = attended(score, query, prepared, values, mask, bias=bias)
    scores = score_loop(name, score, query.detach().numpy(), keys.detach().numpy())
    expected = softmax_loop(scores + bias.detach().numpy(), mask.expand(B, H, T, S).numpy())
    np.testing.assert_allclose(weights.detach().numpy(), expected, rtol=0, atol=1e-12)
    mixed = np.zeros((B, H, T, A))
    for b, h, t, s in np.ndindex(B, H, T, S):
        mixed[b, h, t] += expected[b, h, t, s] * values[b, h, s].detach().numpy()
    np.testing.assert_allclose(context.detach().numpy(), mixed, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mask_kind", ["none", "padding", "causal"])
def test_fused_path_is_the_explicit_path(mask_kind: str) -> None:
    query, keys, values = double(B, H, S, A), double(B, H, S, A), double(B, H, S, A)
    masks = {
        "none": None,
        "padding": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()[:, None, None],
        "causal": causal_mask(S, torch.device("cpu")),
    }
    results = []
    for need_weights in (False, True):
        context, weights = attended(
            ScaledDotScore(H, A), query, keys, values, masks[mask_kind], need_weights=need_weights
        )
        assert (weights is not None) == need_weights
        gradient = torch.autograd.grad(context.square().sum(), (query, keys, values))
        results.append((context, *gradient))
    for fused, explicit in zip(*results, strict=True):
        torch.testing.assert_close(fused, explicit, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("need_weights", [False, True])
def test_a_row_that_may_attend_to_nothing_gets_zeros(name: str, need_weights: bool) -> None:
    score = shaken(SCORES[name](H, A))
    query, keys, values = double(B, H, T, A), double(B, H, S, A), double(B, H, S, A)
    mask = torch.ones(B, 1, T, S, dtype=torch.bool)
    mask[0, :, 1] = False
    context, weights = attended(
        score, query, score.prepare(keys), values, mask, need_weights=need_weights
    )
    assert torch.equal(context[0, :, 1], torch.zeros(H, A, dtype=torch.float64))
    assert context[0, :, 0].abs().min() > 0
    if weights is not None:
        assert torch.equal(weights[0, :, 1], torch.zeros(H, S, dtype=torch.float64))
    gradients = torch.autograd.grad(context.square().sum(), (query, keys, values))
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_weights_sum_to_one_and_are_zero_where_masked() -> None:
    scores = 30 * double(B, H, T, S)
    mask = torch.rand(B, H, T, S) < 0.5
    mask[..., 2] = True
    weights = masked_softmax(scores, mask)
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert bool((weights[~mask] == 0).all())
    torch.testing.assert_close(masked_softmax(scores, None), torch.softmax(scores, -1))


@pytest.mark.parametrize("name", [n for n in SCORES if n != "additive"])
def test_explicit_weights_are_those_before_dropout(name: str) -> None:
    score = shaken(SCORES[name](H, A))
    query, keys, values = double(B, H, T, A), double(B, H, S, A), double(B, H, S, A)
    prepared = score.prepare(keys)
    plain, weights = attended(score, query, prepared, values, None)
    dropped, same = attended(score, query, prepared, values, None, dropout=0.5)
    assert torch.equal(weights, same)
    assert not torch.allclose(plain, dropped)


def torch_attention(own: MultiHeadAttention, d_model: int) -> nn.MultiheadAttention:
    """Return PyTorch's attention with our weights."""
    theirs = nn.MultiheadAttention(d_model, own.num_heads, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(own.qkv.weight)
        theirs.in_proj_bias.copy_(own.qkv.bias)
        theirs.out_proj.weight.copy_(own.out.weight)
        theirs.out_proj.bias.copy_(own.out.bias)
    return theirs


def assert_same_gradients(own: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    for mine, other in (
        (own.qkv.weight, theirs.in_proj_weight),
        (own.qkv.bias, theirs.in_proj_bias),
        (own.out.weight, theirs.out_proj.weight),
        (own.out.bias, theirs.out_proj.bias),
    ):
        assert mine.grad.abs().max() > 0
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("masked", ["causal", "padding", "both", "nothing"])
def test_self_attention_is_torchs(masked: str, need_weights: bool) -> None:
    d_model = 12
    own = shaken(MultiHeadAttention("scaled_dot", d_model, H))
    theirs = torch_attention(own, d_model)
    x = double(B, T, d_model)
    causal = causal_mask(T, x.device) if masked in ("causal", "both") else None
    real = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
    padding = real if masked in ("padding", "both") else None
    mask = causal
    if padding is not None:
        rows = padding[:, None, None, :]
        mask = rows if causal is None else rows & causal
    none = POSITIONS["none"](d_model, H, 9, True)
    found: dict[str, Tensor] | None = {} if need_weights else None
    out, _ = own(x, mask, none, None, Grid(found))
    expected, their_weights = theirs(
        x,
        x,
        x,
        key_padding_mask=None if padding is None else ~padding,
        attn_mask=None if causal is None else ~causal,
        average_attn_weights=False,
    )
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    if found is not None:
        torch.testing.assert_close(found["attention"], their_weights, rtol=0, atol=1e-12)
    probe = torch.randn_like(out)
    (mine,) = torch.autograd.grad((out * probe).sum(), x, retain_graph=True)
    (other,) = torch.autograd.grad((expected * probe).sum(), x, retain_graph=True)
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-11)
    (out * probe).sum().backward()
    (expected * probe).sum().backward()
    assert_same_gradients(own, theirs)


def test_cross_attention_is_torchs() -> None:
    d_model = 12
    own = shaken(MultiHeadAttention("scaled_dot", d_model, H))
    theirs = torch_attention(own, d_model)
    x, memory = double(B, T, d_model), double(B, S, d_model)
    real = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    grid = Grid({})
    out = own.attend_to(x, own.prepare(memory, grid), real[:, None, None, :], grid)
    expected, their_weights = theirs(
        x, memory, memory, key_padding_mask=~real, average_attn_weights=False
    )
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(grid.weights["attention"], their_weights, rtol=0, atol=1e-12)
    probe = torch.randn_like(out)
    mine = torch.autograd.grad((out * probe).sum(), (x, memory), retain_graph=True)
    other = torch.autograd.grad((expected * probe).sum(), (x, memory), retain_graph=True)
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-11)
    (out * probe).sum().backward()
    (expected * probe).sum().backward()
    assert_same_gradients(own, theirs)


@pytest.mark.parametrize("name", SCORES)
def test_heads_split_and_merge(name: str) -> None:
    x = torch.arange(B * T * H * A).view(B, T, H * A)
    assert torch.equal(split_heads(x, H)[1, 2, 3], x[1, 3, 2 * A : 3 * A])
    assert torch.equal(merge_heads(split_heads(x, H)), x)


@pytest.mark.parametrize("name", SCORES)
def test_recurrent_attention_projects_only_where_the_score_needs_it(name: str) -> None:
    learned = SCORES[name].projects
    for d_query, d_memory, width in ((6, 6, 6), (6, 4, 6), (4, 6, 6)):
        attention = Attention(name, d_query, d_memory, width)
        assert isinstance(attention.query, nn.Linear) == (learned or d_query != width)
        assert isinstance(attention.key, nn.Linear) == (learned or d_memory != width)
        keys = attention.prepare(torch.randn(B, S, d_memory))
        mask = torch.ones(B, S, dtype=torch.bool)
        weights: dict[str, Tensor] = {}
        context = attention(torch.randn(B, T, d_query), keys, mask, weights)
        assert context.shape == (B, T, d_memory)
        assert weights[Attention.name].shape == (B, 1, T, S)


# --- docs/attention.md ---------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "attention.md"
STATES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
QUERY = torch.tensor([0.5, 1.0])


def page_row(section: str, name: str) -> list[float]:
    """Return the numbers of one table row of the page."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    row = re.search(rf"^\| {re.escape(name)} \|(.*)\|$", text, re.MULTILINE)
    assert row is not None, f"{section}: no row '{name}'"
    return [float(cell) for cell in row[1].split("|") if cell.strip()]


def assert_printed(values: Tensor, section: str, name: str) -> None:
    printed = page_row(section, name)[: values.numel()]
    assert values.flatten().tolist() == pytest.approx(printed, abs=0.51e-4)


def test_the_page_is_what_additive_attention_computes() -> None:
    section = "Additive attention"
    attention = Attention("additive", 2, 2, 2)
    with torch.no_grad():
        attention.query.weight.copy_(
            torch.tensor([page_row(section, f"W, row {n}") for n in (1, 2)])
        )
        attention.key.weight.copy_(torch.tensor([page_row(section, f"U, row {n}") for n in (1, 2)]))
        attention.key.bias.zero_()
        attention.score.v_HA.copy_(torch.tensor([page_row(section, "v")]))
        memory = attention.prepare(STATES[None])
        assert_printed(memory.keys[0, 0, 1], section, "U h2")
        scores = attention.score(attention.query(QUERY)[None, None, None], memory.keys)
        weights: dict[str, Tensor] = {}
        real = torch.ones(1, 3, dtype=torch.bool)
        context = attention(QUERY[None, None], memory, real, weights)
    assert_printed(scores, section, "score")
    assert_printed(weights[Attention.name], section, "weight")
    assert_printed(context, section, "context")


def test_the_page_is_what_scaled_dot_product_attention_computes() -> None:
    section = "Scaled dot-product attention"
    score = ScaledDotScore(1, 2)
    query, keys = QUERY[None, None, None], STATES[None, None]
    context, weights = attended(score, query, keys, keys, None)
    assert_printed(score(query, keys), section, "scaled score")
    assert_printed(weights, section, "weight")
    assert_printed(context, section, "context")


def test_the_page_is_what_masks_do() -> None:
    section = "Masks, and what a padded position does"
    score = ScaledDotScore(1, 2)
    padded = torch.cat([STATES, torch.zeros(1, 2)])[None, None]
    real = torch.tensor([True, True, True, False])
    memory, query = KeyValue(padded, padded), QUERY[None, None, None]
    for mask, words in ((None, "without mask"), (real, "with mask")):
        context, weights = attended(score, query, *memory, mask)
        assert_printed(weights, section, f"weight {words}")
        assert_printed(context, section, f"context {words}")
    states = STATES[None, None]
    second = causal_mask(3, torch.device("cpu"))[1]
    _, weights = attended(score, query, states, states, second)
    assert_printed(weights, section, "causal weight")
