"""From the data section of a config to tokenizers and rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from test_dataset import PAIRS, SAMPLED, WORDS, split

import tinytokens
from dragoman.config import CorpusConfig, DataConfig, TokenizerConfig
from dragoman.data import corpora, sources
from dragoman.data.preparation import (
    build_training_set,
    prepare_texts,
    train_or_load_tokenizers,
)


@pytest.fixture
def text_files(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stand in for the readers of raw text: every corpus is ``PAIRS``."""
    reads: list[int] = []

    def iter_pairs(data: DataConfig, corpus: CorpusConfig) -> Iterator[tuple[str, str]]:
        reads.append(1)
        yield from PAIRS

    monkeypatch.setattr(corpora, "iter_pairs", iter_pairs)
    monkeypatch.setattr(sources, "corpus_fingerprint", lambda data, corpus: "abc")
    monkeypatch.setattr(corpora, "evaluation_pairs", lambda data: {"val": ([], [])})
    return reads


@pytest.mark.parametrize("config", [WORDS, SAMPLED, TokenizerConfig(vocab_size=50, joint=False)])
def test_from_config_to_rows(
    config: TokenizerConfig, text_files: list[int], tmp_path: Path
) -> None:
    data = DataConfig(
        cache=str(tmp_path), corpora=[CorpusConfig(tag="<2en>", weight=2)], tokenizer=config
    )
    texts = prepare_texts(data)
    first = train_or_load_tokenizers(data, texts)
    mixture = build_training_set(data, texts, *first, 1)
    assert len(text_files) == 1  # cut once for the vocabulary and for the ids
    src, tgt = mixture.rows(np.arange(96), 0)
    assert [first[0].decode(row) for row in split(src)] == [pair[0] for pair in PAIRS]
    assert [first[1].decode(row) for row in split(tgt)] == [pair[1] for pair in PAIRS]
    assert {row[0] for row in split(src)} == {first[0].tag_id("<2en>")}
    assert len(mixture.epoch_pairs(0)) == 192
    loaded = train_or_load_tokenizers(data, prepare_texts(data))
    direct = tinytokens.train_tokenizers(config, PAIRS, tags=("<2en>",))
    for a, b, c in zip(first, loaded, direct, strict=True):
        assert a.fingerprint() == b.fingerprint() == c.fingerprint()
    assert (loaded[0] is loaded[1]) == (config is SAMPLED)
    assert len(text_files) == 1


def test_sampling_does_not_train_another_tokenizer(text_files: list[int], tmp_path: Path) -> None:
    def folders(config: TokenizerConfig) -> int:
        data = DataConfig(cache=str(tmp_path), corpora=[CorpusConfig()], tokenizer=config)
        train_or_load_tokenizers(data, prepare_texts(data))
        return len([path for path in tmp_path.iterdir() if path.is_dir()])

    assert folders(TokenizerConfig(vocab_size=90)) == 2
    assert folders(SAMPLED) == 2
    assert folders(TokenizerConfig(vocab_size=80)) == 3
