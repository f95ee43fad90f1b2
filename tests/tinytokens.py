"""Tokenizers trained on text at hand, without what needs PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from dragoman.config import TokenizerConfig
from dragoman.data.tokenizers import TOKENIZERS, Tokenizer, train_from_counts


def train_tokenizers(
    config: TokenizerConfig,
    pairs: Iterable[tuple[str, str]],
    languages: tuple[str, str] = ("de", "en"),
    tags: Sequence[str] = (),
) -> tuple[Tokenizer, Tokenizer]:
    """Train the tokenizers of both sides on text."""
    cutters = [TOKENIZERS[config.kind].make_cutter(config, language) for language in languages]
    src, tgt = Counter[str](), Counter[str]()
    for pair in pairs:
        for counts, cut, text in zip((src, tgt), cutters, pair, strict=True):
            counts.update(cut(text))
    return train_from_counts(config, (src, tgt), languages, tags)
