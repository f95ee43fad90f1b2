from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import tiny
from dragoman.data.batching import Batch

EXACT = {"rtol": 0, "atol": 1e-10}
RNNS = {
    name: config
    for name, config in tiny.ZOO.items()
    if config.name == "rnn" and ("-additive-" in name or "-none-" in name or "deep" in name)
}
TRANSFORMERS = {
    name: config
    for name, config in tiny.ZOO.items()
    if config.name == "transformer" and ("scaled_dot" in name or "depths" in name)
}


@pytest.mark.parametrize("name", tiny.ZOO)
def test_always_forced_is_the_reference_everywhere(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.ZOO[name])
    always = torch.ones_like(batch.tgt_in_BT, dtype=torch.bool)
    torch.testing.assert_close(model(batch, always), model(batch), **EXACT)


def slow_roll_out(model: Any, batch: Batch, forced: Tensor) -> tuple[Tensor, Tensor]:
    """Feed one token at a time, chosen row by row; return logits (B, T, V) and what was fed."""
    memory = model.encode(batch.src_BS, batch.src_lengths_B)
    state, logits, fed = model.init_state(memory), [], []
    for t in range(batch.tgt_in_BT.shape[1]):
        tokens = []
        for b in range(len(batch.src_BS)):
            if t == 0 or forced[b, t]:
                tokens.append(int(batch.tgt_in_BT[b, t]))
            else:
                tokens.append(int(logits[-1][b].argmax()))
        fed.append(tokens)
        step, state = model.decode_step(torch.tensor(tokens), state, memory)
        logits.append(step)
    return torch.stack(logits, 1), torch.tensor(fed).t()


def masks(batch: Batch) -> dict[str, Tensor]:
    drawn = torch.rand(batch.tgt_in_BT.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    return {"never": torch.zeros_like(drawn), "drawn": drawn}


@pytest.mark.parametrize("kind", ["never", "drawn"])
@pytest.mark.parametrize("name", RNNS)
def test_free_positions_of_recurrent_models_see_their_own_guess(
    name: str, kind: str, batch: Batch
) -> None:
    model = tiny.build(RNNS[name])
    forced = masks(batch)[kind]
    expected, fed = slow_roll_out(model, batch, forced)
    assert not torch.equal(fed[batch.tgt_mask_BT], batch.tgt_in_BT[batch.tgt_mask_BT])
    found = model.project(model(batch, forced))
    torch.testing.assert_close(found, expected[batch.tgt_mask_BT], **EXACT)
    # The guess is a choice, not a number: what it was made of gets no gradient through it.
    given = dataclasses.replace(batch, tgt_in_BT=fed)
    for one, other in zip(
        gradients(model, batch, forced), gradients(model, given, None), strict=True
    ):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("kind", ["never", "drawn"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_free_positions_of_transformers_see_the_guess_of_a_first_pass(
    name: str, kind: str, batch: Batch
) -> None:
    model = tiny.build(TRANSFORMERS[name])
    forced = masks(batch)[kind]
    guesses = model.project(model(batch)).argmax(-1).split(batch.tgt_lengths_B.tolist())
    fed = batch.tgt_in_BT.clone()
    for b, guess in enumerate(guesses):
        for t in range(1, len(guess)):
            if not forced[b, t]:
                fed[b, t] = guess[t - 1]
    assert not torch.equal(fed, batch.tgt_in_BT)
    given = dataclasses.replace(batch, tgt_in_BT=fed)
    torch.testing.assert_close(model(batch, forced), model(given), **EXACT)
    for one, other in zip(
        gradients(model, batch, forced), gradients(model, given, None), strict=True
    ):
        torch.testing.assert_close(one, other, **EXACT)


def gradients(model: Any, batch: Batch, forced: Tensor | None) -> list[Tensor]:
    loss = F.cross_entropy(model.project(model(batch, forced)), batch.targets_N)
    found = torch.autograd.grad(loss, list(model.parameters()))
    return list(found)


@pytest.mark.parametrize("name", tiny.FEW)
def test_the_first_input_is_always_the_start_mark(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.FEW[name])
    forced = torch.ones_like(batch.tgt_in_BT, dtype=torch.bool)
    forced[:, 0] = False
    torch.testing.assert_close(model(batch, forced), model(batch), **EXACT)


@pytest.mark.parametrize("name", tiny.FEW)
def test_rows_draw_for_themselves(name: str, batch: Batch) -> None:
    model = tiny.build(tiny.FEW[name])
    forced = torch.ones_like(batch.tgt_in_BT, dtype=torch.bool)
    forced[1] = False
    found = model(batch, forced).split(batch.tgt_lengths_B.tolist())
    plain = model(batch).split(batch.tgt_lengths_B.tolist())
    alone = model(tiny.pick(batch, [1]), torch.zeros(1, 6, dtype=torch.bool))
    torch.testing.assert_close(found[1], alone, **EXACT)
    assert not torch.allclose(found[1], plain[1])
    for row in (0, 2, 3):
        torch.testing.assert_close(found[row], plain[row], **EXACT)
