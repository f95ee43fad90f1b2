"""Subword sampling: the right distribution, a function of the key alone, lossless."""

from __future__ import annotations

import hashlib
import itertools
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.config import TokenizerConfig
from dragoman.data.ragged import Ragged
from dragoman.data.tokenizers import UNK, train_from_counts
from dragoman.data.tokenizers.sampling import (
    BPEDropoutSampler,
    Sampler,
    UnigramSampler,
    make_sampler,
)
from dragoman.data.tokenizers.sentencepiece import (
    SPACE,
    Inventory,
    SentencePieceTokenizer,
    WhitespaceCutter,
)

TEXT = (
    "a man in a red shirt is standing on the side of the street while two women are talking "
    "a dog runs through the deep snow and the other dog runs after it a young woman in a "
    "running outfit runs down the street banana bananas ananas running runner runs street streets"
)
COUNTS = Counter(TEXT.split())
WORDS = ["banana", "a", "running", "streets", "☃x☃☃", "ananas", "outfits", "é", "s" * 40]


CUTTER = WhitespaceCutter(lowercase=False)


def many(count: int) -> list[str]:
    return [WORDS[n % len(WORDS)] for n in range(count)]


def train(algorithm: str, byte_fallback: bool = False) -> SentencePieceTokenizer:
    size = (50 if algorithm == "unigram" else 60) + 256 * byte_fallback
    config = TokenizerConfig(algorithm=algorithm, vocab_size=size, byte_fallback=byte_fallback)
    tokenizer = train_from_counts(config, (COUNTS, COUNTS), ("en", "en"))[0]
    assert isinstance(tokenizer, SentencePieceTokenizer)
    return tokenizer


UNIGRAM, BPE = train("unigram"), train("bpe")
UNIGRAM_BYTES, BPE_BYTES = train("unigram", True), train("bpe", True)


def rows(drawn: Ragged) -> list[tuple[int, ...]]:
    ends = np.cumsum(drawn.lengths)
    return [
        tuple(drawn.flat[end - n : end].tolist())
        for end, n in zip(ends, drawn.lengths, strict=True)
    ]


def keys(count: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)


def frequencies(sampler: Sampler, word: str, draws: int) -> dict[tuple[int, ...], float]:
    drawn = Counter(rows(sampler.sample([word] * draws, keys(draws))))
    return {row: count / draws for row, count in drawn.items()}


def check_frequencies(
    seen: dict[tuple[int, ...], float], expected: dict[tuple[int, ...], float], draws: int
) -> None:
    assert set(seen) <= set(expected)
    assert sum(expected.values()) == pytest.approx(1)
    for row, probability in expected.items():
        deviation = math.sqrt(probability * (1 - probability) / draws)
        assert abs(seen.get(row, 0.0) - probability) <= 5 * deviation + 1 / draws


def every_segmentation(inventory: Inventory, word: str) -> list[list[str]]:
    found = []
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        parts, part = [], word[0]
        for character, cut in zip(word[1:], cuts, strict=True):
            if cut:
                parts.append(part)
                part = ""
            part += character
        parts.append(part)
        if all(part in inventory.ids for part in parts):
            found.append(parts)
    return found


@pytest.mark.parametrize("alpha", [0.2, 1.0])
@pytest.mark.parametrize("word", ["banana", "streets"])
def test_unigram_draws_with_the_probabilities_of_the_model(alpha: float, word: str) -> None:
    inventory, draws = UNIGRAM.inventory(), 100_000
    weights = {
        tuple(inventory.ids[part] for part in parts): math.exp(
            alpha * sum(inventory.scores[inventory.ids[part]] for part in parts)
        )
        for parts in every_segmentation(inventory, SPACE + word)
    }
    assert len(weights) > 4
    total = sum(weights.values())
    seen = frequencies(UnigramSampler(CUTTER, inventory, alpha), word, draws)
    check_frequencies(seen, {row: weight / total for row, weight in weights.items()}, draws)


def dropout_distribution(
    inventory: Inventory, symbols: tuple[str, ...], dropout: float
) -> dict[tuple[str, ...], float]:
    """Algorithm 1 of Provilkov et al. 2020, by summing over what may be dropped."""
    places = [i for i in range(len(symbols) - 1) if symbols[i] + symbols[i + 1] in inventory.ids]
    # The merge at a place is applied if it survives and every better one is dropped.
    places.sort(key=lambda i: (-inventory.scores[inventory.ids[symbols[i] + symbols[i + 1]]], i))
    result = {symbols: dropout ** len(places)}
    for better, i in enumerate(places):
        merged = (*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :])
        for row, probability in dropout_distribution(inventory, merged, dropout).items():
            chance = dropout**better * (1 - dropout) * probability
            result[row] = result.get(row, 0.0) + chance
    return result


@pytest.mark.parametrize("dropout", [0.1, 0.5])
@pytest.mark.parametrize("word", ["running", "streets"])
def test_bpe_draws_with_the_probabilities_of_algorithm_1(dropout: float, word: str) -> None:
    inventory, draws = BPE.inventory(), 100_000
    exact = dropout_distribution(inventory, tuple(SPACE + word), dropout)
    assert len(exact) > 4
    expected = {tuple(inventory.ids[part] for part in row): p for row, p in exact.items()}
    seen = frequencies(BPEDropoutSampler(CUTTER, inventory, dropout), word, draws)
    check_frequencies(seen, expected, draws)


@given(st.lists(st.text("abnrsteuigf☃é", min_size=1, max_size=12), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_bpe_without_dropout_is_sentencepiece(words: list[str]) -> None:
    for tokenizer in (BPE, BPE_BYTES):
        sampler = BPEDropoutSampler(CUTTER, tokenizer.inventory(), 0.0)
        drawn = sampler.sample(words, keys(len(words)))
        assert rows(drawn) == [tuple(tokenizer.pieces(word)) for word in words]


@given(st.lists(st.text("abnrsteuigf☃é", min_size=1, max_size=12), min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_unigram_with_large_alpha_is_the_best_segmentation(words: list[str]) -> None:
    for tokenizer in (UNIGRAM, UNIGRAM_BYTES):
        inventory = tokenizer.inventory()
        sampler = UnigramSampler(CUTTER, inventory, 1e6)
        drawn = rows(sampler.sample(words, keys(len(words))))
        for word, row in zip(words, drawn, strict=True):
            best = tokenizer.pieces(word)
            if row != tuple(best):  # only where two are equally good
                score = sum(inventory.scores[i] for i in row)
                assert score == pytest.approx(sum(inventory.scores[i] for i in best), abs=1e-4)


def test_bpe_that_drops_everything_spells() -> None:
    sampler = BPEDropoutSampler(CUTTER, BPE.inventory(), 1.0)
    (row,) = rows(sampler.sample(["banana"], keys(1)))
    assert BPE.tokens(row) == list(SPACE + "banana")


SAMPLERS = {
    "unigram": (UNIGRAM, UnigramSampler(CUTTER, UNIGRAM.inventory(), 0.1)),
    "unigram bytes": (UNIGRAM_BYTES, UnigramSampler(CUTTER, UNIGRAM_BYTES.inventory(), 0.1)),
    "bpe": (BPE, BPEDropoutSampler(CUTTER, BPE.inventory(), 0.3)),
    "bpe bytes": (BPE_BYTES, BPEDropoutSampler(CUTTER, BPE_BYTES.inventory(), 0.3)),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_whatever_is_drawn_spells_the_word(name: str) -> None:
    tokenizer, sampler = SAMPLERS[name]
    words = many(3000)
    drawn = rows(sampler.sample(words, keys(len(words))))
    for word, row in zip(words, drawn, strict=True):
        unknown = "bytes" not in name and not set(word) <= set(TEXT)
        if not unknown:
            assert UNK not in row
            assert tokenizer.decode(row) == word
        assert tokenizer.decode(row) == tokenizer.decode(tokenizer.encode(word))
    assert len(set(drawn)) > 3 * len(WORDS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_draw_depends_on_its_key_alone(name: str) -> None:
    _, sampler = SAMPLERS[name]
    words, every = many(400), keys(400)
    together = rows(sampler.sample(words, every))
    order = np.random.default_rng(0).permutation(400)
    shuffled = rows(sampler.sample([words[i] for i in order], every[order]))
    assert shuffled == [together[i] for i in order]
    alone = [rows(sampler.sample(words[i : i + 1], every[i : i + 1]))[0] for i in range(40)]
    assert alone == together[:40]
    assert rows(sampler.sample(words, keys(400, 1000))) != together


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_words_give_no_rows(name: str) -> None:
    drawn = SAMPLERS[name][1].sample([], keys(0))
    assert drawn.flat.shape == drawn.lengths.shape == (0,)


def test_more_words_than_are_simulated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sampler = SAMPLERS["bpe"]
    whole = rows(sampler.sample(many(400), keys(400)))
    monkeypatch.setattr("dragoman.data.tokenizers.sampling._CELLS", 50)
    assert rows(sampler.sample(many(400), keys(400))) == whole


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_has_been_forgotten_changes_no_draw(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = SAMPLERS[name][1]
    whole = rows(sampler.sample(many(90), keys(90)))
    monkeypatch.setattr("dragoman.data.tokenizers.sampling.MOST_HELD", 30)
    for first in (60, 0, 30):
        part = slice(first, first + 30)
        assert rows(sampler.sample(many(90)[part], keys(90)[part])) == whole[part]
        assert len(sampler._words) <= len(WORDS)


@given(st.text("abnrsteuigf☃é", min_size=1, max_size=30), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_a_word_is_cut_where_no_piece_can_cross(word: str, first: int) -> None:
    """So no draw differs from one of the whole lattice."""
    for tokenizer in (UNIGRAM, UNIGRAM_BYTES):
        sampler, whole = (UnigramSampler(CUTTER, tokenizer.inventory(), 0.3) for _ in range(2))
        whole._parts = lambda word: iter([word])  # type: ignore[method-assign]
        assert "".join(sampler._parts(word)) == word
        words = [word] * 20
        drawn = (rows(each.sample(words, keys(20, first))) for each in (sampler, whole))
        assert len(set(map(tuple, drawn))) == 1


def digest() -> str:
    """Draw with freshly trained models; run here and in another process."""
    found = hashlib.sha256()
    for tokenizer, config in (
        (UNIGRAM, TokenizerConfig(sampling_alpha=0.3)),
        (BPE, TokenizerConfig(algorithm="bpe", bpe_dropout=0.2)),
    ):
        sampler = make_sampler(tokenizer, config)
        assert sampler is not None
        drawn = sampler.sample(many(2000), keys(2000))
        found.update(drawn.flat.tobytes() + drawn.lengths.tobytes())
    return found.hexdigest()


def test_another_process_draws_the_same() -> None:
    script = f"import runpy; print(runpy.run_path({__file__!r})['digest']())"
    other = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert other.stdout.split() == [digest()]


@pytest.mark.parametrize(
    "settings_", [{}, {"algorithm": "bpe"}, {"algorithm": "bpe", "sampling_alpha": 0.5}]
)
def test_fixed_segmentation_needs_no_sampler(settings_: dict[str, str | float]) -> None:
    config = TokenizerConfig(**settings_)  # type: ignore[arg-type]
    assert make_sampler(BPE if settings_ else UNIGRAM, config) is None


def test_words_are_never_sampled() -> None:
    config = TokenizerConfig(kind="spacy", sampling_alpha=0.5)
    tokenizer: Sequence[object] = train_from_counts(config, (COUNTS, COUNTS), ("en", "en"))
    assert make_sampler(tokenizer[0], config) is None  # type: ignore[arg-type]
