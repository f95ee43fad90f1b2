"""What every model owes to search, evaluation and training: the contract of ``seq2seq``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import tiny
from dragoman.data.batching import Batch
from dragoman.data.tokenizers import PAD
from dragoman.models.attention import Attention, MultiHeadAttention
from dragoman.models.seq2seq import reorder

pytestmark = pytest.mark.parametrize("name", tiny.ZOO)

PRODUCTS = ("dot", "scaled_dot", "general")  # scores that are linear in the key
EXACT = {"rtol": 0, "atol": 1e-10}


def tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    else:
        for part in tree:
            yield from tensors(part)


def roll_out(
    model: Any, batch: Batch, weights: list[dict[str, Tensor]] | None = None
) -> tuple[Tensor, Any, Any]:
    """Feed the references one token at a time; return the logits (B, T, V), state and memory."""
    memory = model.encode(batch.src_BS, batch.src_lengths_B)
    state, steps = model.init_state(memory), []
    for t in range(batch.tgt_in_BT.shape[1]):
        found: dict[str, Tensor] | None = None if weights is None else {}
        logits, state = model.decode_step(batch.tgt_in_BT[:, t], state, memory, found)
        steps.append(logits)
        if weights is not None and found is not None:
            weights.append(found)
    return torch.stack(steps, 1), state, memory


def test_decode_step_rolled_out_is_forward(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    states = model(batch)
    assert states.shape[0] == batch.num_tokens == len(batch.targets_N)
    logits, _, _ = roll_out(model, batch)
    torch.testing.assert_close(model.project(states), logits[batch.tgt_mask_BT], **EXACT)
    assert logits.shape[-1] == tiny.VOCAB
    assert logits.std() > 0.05, "a model that says nothing would pass everything"


def test_extra_padding_changes_nothing(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    padded = dataclasses.replace(
        batch,
        src_BS=F.pad(batch.src_BS, (0, 3), value=PAD),
        tgt_in_BT=F.pad(batch.tgt_in_BT, (0, 2), value=PAD),
    )
    torch.testing.assert_close(model(padded), model(batch), **EXACT)
    # Whatever stands at the padded places.
    noisy = dataclasses.replace(
        batch, src_BS=torch.where(batch.src_BS == PAD, 7, batch.src_BS),
        tgt_in_BT=torch.where(batch.tgt_mask_BT, batch.tgt_in_BT, 8),
    )  # fmt: skip
    assert not torch.equal(noisy.src_BS, batch.src_BS)
    torch.testing.assert_close(model(noisy), model(batch), **EXACT)


def test_batch_mates_change_nothing(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    together = model(batch).split(batch.tgt_lengths_B.tolist())
    for row, states in enumerate(together):
        torch.testing.assert_close(model(tiny.pick(batch, [row])), states, **EXACT)
    swapped = model(tiny.pick(batch, [2, 0]))
    torch.testing.assert_close(swapped, torch.cat([together[2], together[0]]), **EXACT)


def test_future_tokens_change_nothing_and_past_ones_do(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    row, t = 3, 4
    changed = batch.tgt_in_BT.clone()
    changed[row, t] = (changed[row, t] - 3) % (tiny.VOCAB - 4) + 4
    assert changed[row, t] != batch.tgt_in_BT[row, t]
    moved = model(dataclasses.replace(batch, tgt_in_BT=changed)) - model(batch)
    places = batch.tgt_mask_BT.nonzero()
    seen = (places[:, 0] == row) & (places[:, 1] >= t)
    assert moved[~seen].abs().max() < 1e-12
    assert bool((moved[seen].abs().max(-1).values > 1e-9).all())


def test_every_source_word_is_read(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    source, other = batch.src_BS[1:2], batch.src_BS.clone()
    for s in range(source.shape[1] - 1):
        other = source.clone()
        other[0, s] = (source[0, s] - 3) % (tiny.VOCAB - 4) + 4
        single = tiny.pick(batch, [1])
        moved = model(dataclasses.replace(single, src_BS=other)) - model(single)
        assert moved.abs().max() > 1e-9


def expected_names(config: Any) -> list[str]:
    if config.name == "rnn":
        return [] if config.attention == "none" else ["decoder.attention"]
    names = [f"encoder.{layer}.self" for layer in range(config.encoder_layers)]
    for layer in range(config.decoder_layers):
        names += [f"decoder.{layer}.self", f"decoder.{layer}.cross"]
    return names


def test_weights_are_named_shaped_and_normalised(name: str, batch: Batch) -> None:
    config = tiny.ZOO[name]
    model = tiny.build(config)
    weights: dict[str, Tensor] = {}
    states = model(batch, weights=weights)
    torch.testing.assert_close(states, model(batch), **EXACT)  # the fused path
    assert list(weights) == expected_names(config)
    rows, source = batch.src_BS.shape
    target = batch.tgt_in_BT.shape[1]
    for key, found in weights.items():
        queries = source if key.startswith("encoder") else target
        keys = target if key.endswith(".self") and key.startswith("decoder") else source
        assert found.shape == (rows, config.num_heads, queries, keys)
        torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))
        if keys == source:
            hidden = batch.src_BS == PAD
            assert found.transpose(1, 3)[hidden].abs().max() == 0
        else:
            assert found.triu(1).abs().max() == 0


def test_a_step_gives_the_weights_of_forward(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    whole: dict[str, Tensor] = {}
    model(batch, weights=whole)
    steps: list[dict[str, Tensor]] = []
    weighed, _, _ = roll_out(model, batch, steps)
    torch.testing.assert_close(weighed, roll_out(model, batch)[0], **EXACT)
    in_decoder = [key for key in whole if key.startswith("decoder")]
    for t, found in enumerate(steps):
        assert list(found) == in_decoder
        for key in in_decoder:
            reach = found[key].shape[-1]
            torch.testing.assert_close(found[key][:, :, 0], whole[key][:, :, t, :reach], **EXACT)
    encoder: dict[str, Tensor] = {}
    model.encode(batch.src_BS, batch.src_lengths_B, encoder)
    assert list(encoder) == [key for key in whole if key.startswith("encoder")]


def test_reordered_rows_go_on_as_themselves(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    _, state, memory = roll_out(model, batch)
    for tree in (state, memory):
        assert all(part.shape[0] == len(batch.src_BS) for part in tensors(tree))
    token, index = torch.tensor([5, 6, 7, 8]), torch.tensor([3, 3, 0, 2, 2])
    expected, after = model.decode_step(token, state, memory)
    logits, next_state = model.decode_step(
        token[index], reorder(state, index), reorder(memory, index)
    )
    assert type(next_state) is type(state)
    torch.testing.assert_close(logits, expected[index], **EXACT)
    for mine, other in zip(tensors(next_state), tensors(reorder(after, index)), strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


def test_a_step_leaves_state_and_memory_as_they_were(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    _, state, memory = roll_out(model, batch)
    before = [part.clone() for part in tensors((state, memory))]
    model.decode_step(torch.tensor([5, 6, 7, 8]), state, memory)
    for one, other in zip(before, tensors((state, memory)), strict=True):
        assert torch.equal(one, other)


def test_gradient_reaches_every_parameter(name: str, batch: Batch) -> None:
    config = tiny.ZOO[name]
    model = tiny.build(config).train()
    F.cross_entropy(model.project(model(batch)), batch.targets_N).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        largest = parameter.grad.abs().max()
        if parameter_name == "attention.key.bias" and config.attention in PRODUCTS:
            # It adds the same to all scores of a query, which the softmax does not see.
            assert largest < 1e-12
        else:
            assert largest > 1e-9, parameter_name


def test_the_source_is_projected_once_per_sentence(
    name: str, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.ZOO[name]
    calls = []
    for kind in (Attention, MultiHeadAttention):
        original = kind.prepare

        def counted(self: nn.Module, *inputs: Any, original: Any = original) -> Any:
            calls.append(self)
            return original(self, *inputs)

        monkeypatch.setattr(kind, "prepare", counted)
    roll_out(tiny.build(config), batch)
    attending = [key for key in expected_names(config) if not key.endswith(".self")]
    assert len(calls) == len(attending)
