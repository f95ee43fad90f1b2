"""Tokenizers by kind: how they are trained and loaded.

Both kinds cut text into independent units first (``Cutter``), and turn each unit into token ids
(``Tokenizer``); ``base`` has what they share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from dragoman import settings
from dragoman.config import TokenizerConfig
from dragoman.data.tokenizers.base import BOS, EOS, PAD, SPECIALS, UNK, Cutter, Tokenizer, normalise
from dragoman.data.tokenizers.sentencepiece import (
    SentencePieceTokenizer,
    WhitespaceCutter,
    load_sentencepiece,
    train_sentencepiece,
)
from dragoman.data.tokenizers.spacy import SpacyCutter, SpacyTokenizer, load_spacy, train_spacy
from dragoman.errors import DragomanError
from dragoman.runs import Run

__all__ = [
    "BOS",
    "EOS",
    "NOT_LEARNT",
    "PAD",
    "SPECIALS",
    "UNK",
    "Cutter",
    "SentencePieceTokenizer",
    "SpacyTokenizer",
    "Tokenizer",
    "load_tokenizer",
    "load_tokenizers",
    "make_cutter",
    "normalise",
    "tokenizers_of",
    "train_from_counts",
    "train_tokenizers",
]


def make_cutter(config: TokenizerConfig, language: str) -> Cutter:
    """Return what cuts text of ``language`` into units."""
    if config.kind == "spacy":
        return SpacyCutter(language, config.form, config.lowercase)
    return WhitespaceCutter(config.lowercase)


def load_tokenizer(folder: Path, side: str, config: TokenizerConfig) -> Tokenizer:
    """Read the tokenizer of ``side`` (``src`` or ``tgt``) that ``Tokenizer.save`` wrote.

    Raises:
        DragomanError: naming the file that is missing, unreadable or made for another config.
    """
    return LOADERS[config.kind](folder, side, config)


def load_tokenizers(folder: Path, config: TokenizerConfig) -> tuple[Tokenizer, Tokenizer]:
    """Read the tokenizers of both sides; a joint one is one object.

    Raises:
        DragomanError: as ``load_tokenizer``.
    """
    src = load_tokenizer(folder, "src", config)
    joint = config.kind == "sentencepiece" and config.joint
    return src, src if joint else load_tokenizer(folder, "tgt", config)


def tokenizers_of(run: Run, config: TokenizerConfig) -> tuple[Tokenizer, Tokenizer]:
    """Read the tokenizers of a trained run, for another run that shares its vocabulary.

    Raises:
        DragomanError: naming the keys of ``data.tokenizer`` that are not as they were there.
    """
    folder = run.checkpoint()
    theirs = settings.load(folder / "config.yaml").data.tokenizer
    if wrong := settings.differences(theirs, config, NOT_LEARNT):
        raise DragomanError(
            f"data.tokenizer.from_run: {run.folder} has another data.tokenizer: {', '.join(wrong)}"
        )
    return load_tokenizers(folder, config)


def train_tokenizers(
    config: TokenizerConfig,
    pairs: Callable[[], Iterable[tuple[str, str]]],
    languages: tuple[str, str],
    tags: Sequence[str] = (),
) -> tuple[Tokenizer, Tokenizer]:
    """Train the tokenizers of both sides on the training pairs.

    Args:
        config: kind and sizes.
        pairs: returns a fresh iterator over (source, target) lines.
        languages: language codes of source and target, for the spaCy rules.
        tags: tokens to reserve in the source vocabulary.

    Raises:
        DragomanError: if the text is empty or the config asks for an impossible vocabulary.
    """
    cut_src, cut_tgt = (make_cutter(config, language) for language in languages)
    src: Counter[str] = Counter()
    tgt: Counter[str] = Counter()
    for src_text, tgt_text in pairs():
        src.update(cut_src(src_text))
        tgt.update(cut_tgt(tgt_text))
    return train_from_counts(config, (src, tgt), languages, tags)


def train_from_counts(
    config: TokenizerConfig,
    counts: tuple[Mapping[str, int], Mapping[str, int]],
    languages: tuple[str, str],
    tags: Sequence[str] = (),
) -> tuple[Tokenizer, Tokenizer]:
    """Train the tokenizers of both sides on units and how often each occurs.

    Raises:
        DragomanError: as ``train_tokenizers``.
    """
    for side, units in zip(("source", "target"), counts, strict=True):
        if not units:
            raise DragomanError(f"data.corpora: the training text has no word on the {side} side")
    for tag in tags:
        if tag in SPECIALS or tag != "".join(tag.split()) or not tag:
            raise DragomanError(
                f"data.corpora: tag '{tag}' cannot be used, expected a token without spaces other "
                f"than {', '.join(SPECIALS)}"
            )
    tags = list(dict.fromkeys(tags))
    if config.kind == "spacy":
        return (
            train_spacy(config, counts[0], languages[0], tags),
            train_spacy(config, counts[1], languages[1], ()),
        )
    if config.joint:
        both = Counter(counts[0])
        both.update(counts[1])
        joint = train_sentencepiece(config, both, tags, joint=True)
        return joint, joint
    return (
        train_sentencepiece(config, counts[0], tags, joint=False),
        train_sentencepiece(config, counts[1], (), joint=False),
    )


# Keys that change how text is cut, or where its tokens come from, and not what is learnt of it.
NOT_LEARNT = ("sampling_alpha", "bpe_dropout", "from_run")
LOADERS: dict[str, Callable[[Path, str, TokenizerConfig], Tokenizer]] = {
    "sentencepiece": load_sentencepiece,
    "spacy": load_spacy,
}
