"""CTranslate2 computes what Dragoman computes: same tokens, same scores, over every option."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from dragoman.config import Config, DataConfig, DecodeConfig
from dragoman.data.batching import pad
from dragoman.data.ragged import ragged
from dragoman.data.tokenizers import BOS, EOS, PAD, SPECIALS
from dragoman.decoding.search import search
from dragoman.decoding.translator import Translator
from dragoman.export.ctranslate2 import export, limits

ctranslate2 = pytest.importorskip("ctranslate2", reason="needs dragoman[ctranslate2]")

VOCAB, MOST = 30, 12
NAMES = [name for name in tiny.ZOO if name.startswith("transformer")]
REFUSED = {n for n in NAMES if "-additive-" in n or "-general-rotary-" in n}


class Numbers:
    """A vocabulary of ``SPECIALS`` and t4, t5 and so on."""

    def __init__(self, size: int = VOCAB) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [SPECIALS[n] if n < len(SPECIALS) else f"t{n}" for n in ids]

    def files(self, side: str) -> dict[str, bytes]:
        return {"numbers": b""}

    def ids(self, tokens: Sequence[str]) -> list[int]:
        return [SPECIALS.index(t) if t in SPECIALS else int(t[1:]) for t in tokens]


def model_of(config: Any, seed: int = 0) -> nn.Module:
    """Return random weights that never like padding, so that scores can be compared."""
    model = tiny.build(config, seed=seed, vocab=VOCAB, dtype=torch.float32)
    with torch.no_grad():
        model.output.bias[[PAD, BOS]] = -1e4
        model.output.bias[EOS] += 1.0
    return model


def exported(
    model: nn.Module, folder: Path, quantization: str = "float32", size: int = VOCAB
) -> Any:
    """Export a model and load it with CTranslate2."""
    config = Config(model=model.config, data=DataConfig(max_length=20))
    whole = Translator([model], Numbers(size), Numbers(size), config, torch.device("cpu"))
    for name, content in export(whole, quantization, "a test").items():
        (folder / name).write_bytes(content)
    return ctranslate2.Translator(str(folder), compute_type=quantization, intra_threads=1)


def translate(there: Any, rows: list[list[int]], **options: Any) -> list[Any]:
    """Translate source rows, which end in EOS; CTranslate2 adds its own."""
    return there.translate_batch(
        [Numbers().tokens(row[:-1]) for row in rows],
        min_decoding_length=0,
        return_scores=True,
        return_end_token=True,
        **options,
    )


def here(model: nn.Module, rows: list[list[int]], decode: DecodeConfig) -> list[list[int]]:
    table = ragged(rows)
    lengths = torch.from_numpy(table.lengths)
    return [
        found[0].tokens for found in search([model], torch.from_numpy(pad(table)), lengths, decode)
    ]


def log_prob(model: nn.Module, source: list[int], target: list[int]) -> float:
    """Return what the model says of a target, which need not end in EOS."""
    with torch.no_grad():
        states = model(tiny.pairs([source], [target]))
        log_probs = model.project(states).double().log_softmax(-1)
    return float(log_probs.gather(1, torch.tensor(target)[:, None]).sum())


@pytest.mark.parametrize("name", sorted(set(NAMES) - REFUSED))
def test_tokens_and_scores_are_the_same(name: str, tmp_path: Path) -> None:
    model = model_of(tiny.ZOO[name])
    there = exported(model, tmp_path)
    # One source is longer than the learned positions and than the last distance of T5's.
    rows = tiny.sentences([1, 3, 7, 2, 140], seed=5, vocab=VOCAB)
    greedy = tiny.decode(method="greedy", max_length_extra=MOST)
    best = translate(there, rows, beam_size=1, max_decoding_length=MOST)
    found = [Numbers().ids(one.hypotheses[0]) for one in best]
    assert [[t for t in row if t != EOS] for row in found] == here(model, rows, greedy)
    assert len({one.scores[0] for one in best}) == len(rows), "the source says something"
    several = translate(
        there, rows, beam_size=5, num_hypotheses=5, length_penalty=0, max_decoding_length=MOST
    )
    for row, one in zip(rows, several, strict=True):
        for tokens, score in zip(one.hypotheses, one.scores, strict=True):
            assert score == pytest.approx(log_prob(model, row, Numbers().ids(tokens)), abs=2e-4)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_it_cannot_express_is_refused_by_name(name: str) -> None:
    (limit,) = limits(Config(model=tiny.ZOO[name]))
    assert limit.startswith("model.attention: ")
    assert "expected dot" in limit


def test_parts_it_has_never_heard_of_are_all_named() -> None:
    model = tiny.transformer(attention="cosine", positions="alibi", activation="tanh")
    found = limits(Config(model=model, decode=DecodeConfig(method="mbr")))
    assert [limit.partition(": ")[0] for limit in found] == [
        "model.attention",
        "model.positions",
        "model.activation",
        "decode.method",
    ]
    for limit, name in zip(found, ("cosine", "alibi", "tanh", "mbr"), strict=True):
        assert f"has no '{name}', expected " in limit


@pytest.mark.parametrize("model", [tiny.rnn(), tiny.transformer(name="mine")])
def test_other_architectures_are_refused(model: Any) -> None:
    (limit,) = limits(Config(model=model))
    assert limit.startswith("model.name: ")
    assert f"'{model.name}', expected transformer" in limit


def test_padding_is_never_translated_to(tmp_path: Path) -> None:
    model = model_of(tiny.transformer())
    with torch.no_grad():
        model.output.bias[[PAD, BOS]] = 50.0
    rows = tiny.sentences([3, 6], vocab=VOCAB)
    (*best,) = translate(exported(model, tmp_path), rows, beam_size=1, max_decoding_length=MOST)
    found = [Numbers().ids(one.hypotheses[0]) for one in best]
    assert not {PAD, BOS} & {token for row in found for token in row}
    greedy = tiny.decode(method="greedy", max_length_extra=MOST)
    assert [[t for t in row if t != EOS] for row in found] == here(model, rows, greedy)


@pytest.mark.parametrize("alpha", [0.6, 1.0])
def test_beam_search(alpha: float, tmp_path: Path) -> None:
    model = tiny.fluent("transformer").float()
    there = exported(model, tmp_path, size=tiny.VOCAB)
    rows = tiny.sentences([1 + n % 7 for n in range(40)], seed=5)
    found = translate(there, rows, beam_size=5, length_penalty=alpha, max_decoding_length=40)
    decode = tiny.decode(
        beam_size=5,
        length_penalty=alpha,
        length_penalty_form="power",
        stopping="first",
        max_length_extra=40,
    )
    assert [[*row, EOS] for row in here(model, rows, decode)] == [
        Numbers().ids(one.hypotheses[0]) for one in found
    ]


def test_int8(tmp_path: Path) -> None:
    model = model_of(tiny.transformer(d_model=64, d_ff=64, num_heads=4))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    sizes, found = {}, {}
    for quantization in ("float32", "int8"):
        folder = tmp_path / quantization
        folder.mkdir()
        there = exported(model, folder, quantization)
        sizes[quantization] = (folder / "model.bin").stat().st_size
        rows = tiny.sentences([4, 6], vocab=VOCAB)
        found[quantization] = translate(there, rows, beam_size=5, max_decoding_length=MOST)
    assert sizes["int8"] < 0.7 * sizes["float32"]
    exact, rounded = ([one.scores[0] for one in found[q]] for q in ("float32", "int8"))
    assert exact != rounded
    assert rounded == pytest.approx(exact, abs=0.5)
    after = model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
