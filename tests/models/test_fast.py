"""The fast path gives the numbers of the plain one: ``fast = False`` is what to compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

import tiny
from dragoman.data.batching import Batch
from dragoman.models.attention import attend, fold, masked_softmax, unfold
from dragoman.models.fast.linear import ONEDNN, ROWS, _Packed, affine, product
from dragoman.models.fast.packing import MULTIPLE, Packing
from dragoman.models.fast.short import short_attention

EXACT = {"rtol": 0, "atol": 1e-10}


def forcing_of(batch: Batch, kind: str) -> Tensor | None:
    if kind == "forced":
        return None
    coins = torch.rand(batch.tgt_in_BT.shape, generator=torch.Generator().manual_seed(4))
    return coins < 0.5 if kind == "mixed" else torch.zeros_like(coins).bool()


@pytest.mark.parametrize("kind", ["forced", "mixed", "free"])
@pytest.mark.parametrize("name", tiny.ZOO)
def test_loss_and_gradient_are_those_of_the_plain_form(name: str, kind: str, batch: Batch) -> None:
    forcing, losses, gradients = forcing_of(batch, kind), [], []
    for fast in (True, False):
        model: Any = tiny.build(tiny.ZOO[name]).train()
        assert model.fast, "fast unless told otherwise"
        model.fast = fast
        logits = model.project(model(batch, forcing))
        loss = F.cross_entropy(logits, batch.targets_N, label_smoothing=0.1)
        loss.backward()
        losses.append(loss.detach())
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    torch.testing.assert_close(*losses, **EXACT)
    for key, plain in gradients[1].items():
        torch.testing.assert_close(gradients[0][key], plain, **EXACT)


@pytest.mark.parametrize("lengths", [[3], [8], [9, 1, 16], [2, 2, 2], [17, 30, 1]])
def test_packing_knows_where_tokens_stand(lengths: list[int]) -> None:
    packing = Packing(torch.tensor(lengths))
    rows, longest = packing.mask_BL.shape
    assert rows == len(lengths)
    assert longest % MULTIPLE == 0
    assert max(lengths) <= longest < max(lengths) + MULTIPLE
    expected = [(b, t) for b, length in enumerate(lengths) for t in range(length)]
    assert list(zip(packing.rows_N.tolist(), packing.places_N.tolist(), strict=True)) == expected
    for parts, heads, width in ((1, 1, 5), (2, 3, 4), (3, 2, 1)):
        x = torch.randn(len(expected), parts * heads * width)
        grids = packing.heads(x, parts, heads)
        assert len(grids) == parts
        for grid, part in zip(grids, x.chunk(parts, -1), strict=True):
            assert grid.shape == (rows, heads, longest, width)
            for row, (b, t) in zip(part, expected, strict=True):
                assert torch.equal(grid[b, :, t].flatten(), row)
            assert torch.equal(packing.merge(grid), part)


@pytest.mark.parametrize("lengths", [[2, 4, 1], [8, 8]])
def test_gradients_of_packed_rows_and_grids(lengths: list[int]) -> None:
    packing = Packing(torch.tensor(lengths))
    rows = torch.randn(sum(lengths), 12, dtype=torch.float64, requires_grad=True)
    grid = torch.randn(len(lengths), 2, 8, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(packing.merge, grid)
    hidden = packing.mask_BL[:, None, :, None]

    def real(x: Tensor) -> tuple[Tensor, ...]:
        # What stands at padding is a copy that no gradient may come back from.
        return tuple(part * hidden for part in packing.heads(x, 2, 2))

    assert gradcheck(real, rows)


def test_no_row_of_padding_reaches_a_linear_layer(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = tiny.build(tiny.transformer())
    seen: list[int] = []

    def counted(function: Any) -> Any:
        def counting(x: Tensor, *rest: Tensor) -> Tensor:
            seen.append(x[..., 0].numel())
            return function(x, *rest)

        return counting

    monkeypatch.setattr(F, "linear", counted(F.linear))
    monkeypatch.setattr(_Packed, "apply", counted(_Packed.apply))
    model(batch)
    real = {int(batch.src_lengths_B.sum()), batch.num_tokens}
    assert set(seen) == real
    seen.clear()
    model.fast = False
    model(batch)
    assert min(seen) > min(real), "the plain form computes on padding"


def test_a_linear_layer_over_rows_is_the_plain_one_forward_and_backward() -> None:
    results = []
    for function in (affine, F.linear):
        x, weight, bias = (
            torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
            for n, shape in enumerate([(200, 6), (5, 6), (5,)])
        )
        inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
        out = function(*inputs)
        out.pow(2).sum().backward()
        results.append([out.detach(), *(tensor.grad for tensor in inputs)])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, **EXACT)


@pytest.mark.skipif(not ONEDNN, reason="no AVX-512")
@pytest.mark.parametrize("rows", [1, ROWS, 2 * ROWS + 3])
def test_products_of_onednn_take_turned_factors_and_any_rows(rows: int) -> None:
    x, weight, bias = (torch.randn(*n) for n in ((rows, 48), (40, 48), (40,)))
    turned, seen = [tensor.t().contiguous().t() for tensor in (x, weight)], tiny.RowsOfOneDNN()
    for factors in ((x, weight), (turned[0], weight), (x, turned[1]), turned):
        with seen:
            plain, biased = product(*factors), product(*factors, bias)
        torch.testing.assert_close(plain, x @ weight.t())
        torch.testing.assert_close(biased, x @ weight.t() + bias)
    assert seen.found == 8 * [-(-rows // ROWS) * ROWS], "of shapes that come again"


@pytest.mark.parametrize("kind", ["forced", "mixed", "free"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_steps_in_single_precision_are_those_of_the_plain_form(
    cell: str, kind: str, batch: Batch
) -> None:
    gradients = []
    for fast in (True, False):
        model: Any = tiny.build(tiny.rnn(cell=cell, wiring="bahdanau"), dtype=torch.float32)
        model.fast = fast
        states = model(batch, forcing_of(batch, kind))
        F.cross_entropy(model.project(states), batch.targets_N).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    for key, plain in gradients[1].items():
        torch.testing.assert_close(gradients[0][key], plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 7, 64, 65, 100])
def test_short_rows_and_the_fused_kernel_agree(length: int) -> None:
    from dragoman.models.attention import ScaledDotScore

    query, keys, values = (torch.randn(2, 3, length, 4, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(2, 1, length, length) < 0.6
    mask[0, :, 0] = False
    context = attend(ScaledDotScore(3, 4), query, keys, values, mask)
    expected = F.scaled_dot_product_attention(query, keys, values, mask)
    torch.testing.assert_close(context, expected, **EXACT)
    assert context[0, :, 0].abs().max() == 0, "nothing to attend to gives nothing"


def test_softmax_hides_what_the_mask_hides_even_of_large_scores() -> None:
    scores = torch.tensor([[1e30, 5.0, -1e30], [1e30, 1e30, 1e30]], requires_grad=True)
    weights = masked_softmax(scores, torch.tensor([[False, True, True], [False, False, False]]))
    assert weights.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    weights.sum().backward()
    assert scores.grad is not None
    assert bool(torch.isfinite(scores.grad).all())


def test_fold_and_unfold() -> None:
    query = torch.arange(6 * 5 * 2 * 3.0).view(6, 5, 2, 3)  # 2 sentences of 3 hypotheses, 5 heads
    folded = fold(query, 2)
    assert folded.shape == (2, 5, 3 * 2, 3)
    assert torch.equal(folded[1, 4, 3], query[3 + 1, 4, 1])
    assert torch.equal(unfold(folded, 6), query)
    assert fold(query, 6) is query


@pytest.mark.parametrize("name", tiny.FEW)
def test_hypotheses_share_the_memory_of_their_sentence(name: str, batch: Batch) -> None:
    from dragoman.models.seq2seq import reorder

    model: Any = tiny.build(tiny.FEW[name])
    memory = model.encode(batch.src_BS, batch.src_lengths_B)
    rows = torch.arange(len(batch.src_BS)).repeat_interleave(3)
    token = torch.arange(len(rows)) % 7 + 4
    shared: dict[str, Tensor] = {}
    copied: dict[str, Tensor] = {}
    state = reorder(model.init_state(memory), rows)
    logits, _ = model.decode_step(token, state, memory, shared)
    expected, _ = model.decode_step(token, state, reorder(memory, rows), copied)
    torch.testing.assert_close(logits, expected, **EXACT)
    assert shared.keys() == copied.keys()
    for key, found in shared.items():
        torch.testing.assert_close(found, copied[key], **EXACT)


@pytest.mark.parametrize("hidden", ["nothing", "keys", "whole rows"])
def test_short_attention_and_its_gradient_are_the_fused_kernels(hidden: str) -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (
        torch.randn(2, 3, n, 4, dtype=torch.float64, generator=generator, requires_grad=True)
        for n in (5, 6, 6)
    )
    mask = None
    if hidden != "nothing":
        mask = torch.arange(6) < torch.tensor([4, 6])[:, None, None, None]
    if hidden == "whole rows":
        mask = mask & (torch.arange(5) != 2)[:, None]  # type: ignore[operator]
    found = short_attention(q, k, v, mask)
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(found, expected, **EXACT)
    upstream = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    mine = torch.autograd.grad(found, (q, k, v), upstream)
    for own, theirs in zip(mine, torch.autograd.grad(expected, (q, k, v), upstream), strict=True):
        torch.testing.assert_close(own, theirs, **EXACT)


def test_short_attention_drops_weights_and_its_gradient_knows_which() -> None:
    q, k, v = (torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def attention(*tensors: Tensor) -> Tensor:
        torch.manual_seed(5)
        return short_attention(*tensors, None, dropout=0.4)

    assert gradcheck(attention, (q, k, v))
    whole = short_attention(q, k, v, None)
    assert not torch.allclose(attention(q, k, v), whole)
    torch.manual_seed(1)
    mean = torch.stack([short_attention(q, k, v, None, dropout=0.4) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, whole, rtol=0, atol=0.15)


def test_the_textbook_files_know_only_the_door() -> None:
    for path in (Path(__file__).parents[2] / "src/dragoman/models").glob("*.py"):
        assert "models.fast." not in path.read_text(encoding="utf-8"), path.name
