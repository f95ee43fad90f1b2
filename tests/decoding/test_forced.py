from __future__ import annotations

import pytest
import slow
import torch

import tiny
from dragoman.data.batching import Batch
from dragoman.decoding.forced import attention_weights, word_attention


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", tiny.FEW)
def test_log_probability_is_the_sum_over_the_tokens(
    name: str, dtype: torch.dtype, batch: Batch
) -> None:
    model = tiny.build(tiny.FEW[name], dtype=dtype)
    found = slow.log_probabilities([model], batch)
    assert found.dtype == torch.float64
    for row in range(len(batch.src_BS)):
        memory = model.encode(batch.src_BS[row : row + 1], batch.src_lengths_B[row : row + 1])
        state, total = model.init_state(memory), 0.0
        single = tiny.pick(batch, [row])
        for fed, wanted in zip(single.tgt_in_BT[0], single.targets_N, strict=True):
            logits, state = model.decode_step(fed[None], state, memory)
            total += logits[0].log_softmax(-1)[wanted].item()
        tolerance = 1e-10 if dtype == torch.float64 else 1e-4
        assert found[row].item() == pytest.approx(total, abs=tolerance)


def test_attention_weights_are_those_of_the_model(batch: Batch) -> None:
    model = tiny.build(tiny.FEW["transformer"])
    weights = attention_weights(model, batch)
    assert "decoder.1.cross" in weights
    assert not weights["decoder.1.cross"].requires_grad


@pytest.mark.parametrize(
    ("config", "chosen"),
    [
        (tiny.transformer(decoder_layers=1), "decoder.0.cross"),
        (tiny.transformer(decoder_layers=2), "decoder.0.cross"),
        (tiny.transformer(decoder_layers=3), "decoder.1.cross"),
        (tiny.rnn(), "decoder.attention"),
        (tiny.rnn(attention_dim=8, num_heads=2), "decoder.attention"),
    ],
)
def test_word_attention_is_the_mean_over_the_heads_of_one_layer(
    config: object, chosen: str, batch: Batch
) -> None:
    model = tiny.build(config)
    weights = attention_weights(model, batch)
    found = word_attention(model, weights)
    assert found is not None
    torch.testing.assert_close(found, weights[chosen].mean(1))
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))


def test_a_model_without_attention_has_no_word_attention(batch: Batch) -> None:
    model = tiny.build(tiny.FEW["lstm-no-attention"])
    weights = attention_weights(model, batch)
    assert weights == {}
    assert word_attention(model, weights) is None
