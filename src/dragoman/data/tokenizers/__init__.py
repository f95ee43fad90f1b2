"""Tokenizers by kind: how they are trained and loaded.

Every kind cuts text into independent units first (``Cutter``), and turns each unit into token ids
(``Tokenizer``); ``base`` says what a kind has to offer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from dragoman.config import TokenizerConfig
from dragoman.data.tokenizers.base import BOS, EOS, PAD, SPECIALS, UNK, Cutter, Tokenizer, normalise
from dragoman.data.tokenizers.sentencepiece import SentencePieceTokenizer
from dragoman.data.tokenizers.spacy import SpacyTokenizer
from dragoman.errors import DragomanError

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "SPECIALS",
    "TOKENIZERS",
    "UNK",
    "Cutter",
    "Tokenizer",
    "load_tokenizer",
    "load_tokenizers",
    "normalise",
    "train_from_counts",
]


def load_tokenizer(folder: Path, side: str, config: TokenizerConfig) -> Tokenizer:
    """Read the tokenizer of ``side`` (``src`` or ``tgt``) that ``Tokenizer.save`` wrote.

    Raises:
        DragomanError: naming the file that is missing, unreadable or made for another config.
    """
    return TOKENIZERS[config.kind].load(folder, side, config)


def load_tokenizers(folder: Path, config: TokenizerConfig) -> tuple[Tokenizer, Tokenizer]:
    """Read the tokenizers of both sides; a joint one is one object.

    Raises:
        DragomanError: as ``load_tokenizer``.
    """
    src = load_tokenizer(folder, "src", config)
    joint = TOKENIZERS[config.kind].is_joint(config)
    return src, src if joint else load_tokenizer(folder, "tgt", config)


def train_from_counts(
    config: TokenizerConfig,
    counts: tuple[Mapping[str, int], Mapping[str, int]],
    languages: tuple[str, str],
    tags: Sequence[str] = (),
) -> tuple[Tokenizer, Tokenizer]:
    """Train the tokenizers of both sides on units and how often each occurs.

    Args:
        config: kind and sizes.
        counts: of the units of source and target, as the kind's cutters give them.
        languages: language codes of source and target.
        tags: tokens to reserve in the source vocabulary.

    Raises:
        DragomanError: if the text is empty or the config asks for an impossible vocabulary.
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
    kind = TOKENIZERS[config.kind]
    if kind.is_joint(config):
        joint = kind.train(config, Counter(counts[0]) + Counter(counts[1]), languages[0], tags)
        return joint, joint
    src = kind.train(config, counts[0], languages[0], tags)
    return src, kind.train(config, counts[1], languages[1], ())


TOKENIZERS: dict[str, type[Tokenizer]] = {
    "sentencepiece": SentencePieceTokenizer,
    "spacy": SpacyTokenizer,
}
