"""Building models: seeds, tied matrices, parameter counts, and the generic reordering."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import tiny
from dragoman.config import MODELS as CONFIGS
from dragoman.data.batching import Batch
from dragoman.models.embeddings import build_embeddings
from dragoman.models.seq2seq import MODELS, build_model, count_parameters, reorder
from dragoman.models.weights import weights_of


def test_every_config_has_its_model() -> None:
    assert set(MODELS) == set(CONFIGS)
    for name, config in CONFIGS.items():
        assert config().name == name


@pytest.mark.parametrize("name", tiny.ZOO)
def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone(name: str) -> None:
    state = torch.get_rng_state()
    first, again, other = (build_model(tiny.ZOO[name], 9, 9, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    ours, same, different = (weights_of(model) for model in (first, again, other))
    assert all(torch.equal(ours[key], same[key]) for key in ours)
    assert any(not torch.equal(ours[key], different[key]) for key in ours)


def test_without_a_seed_the_weights_follow_the_global_generator() -> None:
    config = tiny.rnn()
    torch.manual_seed(3)
    first = weights_of(build_model(config, 9, 9))
    second = weights_of(build_model(config, 9, 9))
    assert not torch.equal(first["output.weight"], second["output.weight"])
    assert torch.equal(
        first["output.weight"], weights_of(build_model(config, 9, 9, seed=3))["output.weight"]
    )


@pytest.mark.parametrize("base", [tiny.rnn, tiny.transformer])
def test_tied_matrices_share_their_storage(base: object) -> None:
    models = {
        tie: build_model(base(tie_embeddings=tie), tiny.VOCAB, tiny.VOCAB, seed=0)  # type: ignore[operator]
        for tie in ("none", "two_way", "three_way")
    }
    for tie, model in models.items():
        places = [
            weight.data_ptr()
            for weight in (
                model.src_embedding.weight,
                model.tgt_embedding.weight,
                model.output.weight,
            )
        ]
        assert len(set(places)) == {"none": 3, "two_way": 2, "three_way": 1}[tie]
        assert (places[1] == places[2]) == (tie != "none")
        # A step moves all of them together.
        with torch.no_grad():
            model.tgt_embedding.weight[5] += 1
        assert torch.equal(model.output.weight, model.tgt_embedding.weight) == (tie != "none")
    width = models["none"].tgt_embedding.weight.shape[1]
    counts = {tie: count_parameters(model) for tie, model in models.items()}
    assert counts["two_way"] - counts["three_way"] == tiny.VOCAB * width
    if base is tiny.transformer:  # a recurrent readout has another width where it is not tied
        assert counts["none"] - counts["two_way"] == tiny.VOCAB * width
    for tie, model in models.items():
        assert sum(w.numel() for w in weights_of(model).values()) == counts[tie]


def test_vocabularies_may_differ_unless_tied_three_ways() -> None:
    model = build_model(tiny.transformer(tie_embeddings="two_way"), 7, 11)
    assert model.src_embedding.weight.shape[0] == 7
    assert model.output.weight.shape[0] == model.output.bias.shape[0] == 11
    with pytest.raises(AssertionError, match="joint vocabulary"):
        build_embeddings("three_way", 4, 4, 7, 11)


def test_tied_logits_start_at_about_unit_variance() -> None:
    _, _, output = build_embeddings("two_way", 64, 64, 500, 500)
    logits = output(torch.randn(200, 64))
    assert 0.8 < logits.std().item() < 1.2


def test_parameters_that_are_not_trained_do_not_count() -> None:
    model = build_model(tiny.rnn(), 9, 9)
    before = count_parameters(model)
    model.output.bias.requires_grad_(False)
    assert count_parameters(model) == before - 9


class Inner(NamedTuple):
    a: Tensor
    b: tuple[Tensor, ...]


class Outer(NamedTuple):
    inner: tuple[Inner, ...]
    c: Tensor


def test_reorder_serves_any_nesting_of_tuples() -> None:
    x = torch.arange(12).view(4, 3)
    tree = Outer((Inner(x, (x + 1, x[:, :0])), Inner(x + 2, ())), x[:, 0])
    index = torch.tensor([2, 2, 0])
    found = reorder(tree, index)
    assert isinstance(found, Outer)
    assert isinstance(found.inner[0], Inner)
    assert torch.equal(found.inner[0].a, x[[2, 2, 0]])
    assert torch.equal(found.inner[0].b[0], x[[2, 2, 0]] + 1)
    assert found.inner[0].b[1].shape == (3, 0)
    assert torch.equal(found.inner[1].a, x[[2, 2, 0]] + 2)
    assert found.inner[1].b == ()
    assert found.c.tolist() == [6, 6, 0]
    assert torch.equal(reorder(tree, torch.tensor([], dtype=torch.long)).c, x[:0, 0])


@pytest.mark.parametrize("name", tiny.FEW)
def test_word_dropout_leaves_out_whole_tokens_while_training(name: str, batch: Batch) -> None:
    config = dataclasses.replace(tiny.FEW[name], word_dropout=0.4)
    model: Any = tiny.build(config)
    plain = model(batch)
    torch.testing.assert_close(plain, model(batch))
    assert not torch.allclose(model.train()(batch), plain)
    tokens = torch.randint(tiny.VOCAB, (200, 50))
    for table in (model.src_embedding, model.tgt_embedding):
        found = table(tokens)
        kept = (found != 0).any(-1)
        assert 0.58 < kept.double().mean() < 0.62
        vectors = nn.functional.embedding(tokens, table.weight)
        torch.testing.assert_close(found[kept], vectors[kept] / 0.6, rtol=1e-3, atol=0)
