"""What every tokenizer shares: the special tokens, text normalisation and the interface."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self

from dragoman.config import TokenizerConfig
from dragoman.errors import DragomanError
from dragoman.files import write_atomic

UNK, PAD, BOS, EOS = 0, 1, 2, 3
SPECIALS = ("<unk>", "<pad>", "<bos>", "<eos>")

_ESCAPE = "\ue000"  # private use: the least likely character to need escaping itself


def normalise(text: str, lowercase: bool) -> str:
    """Collapse every run of Unicode white space to one space, strip, and lower-case if asked."""
    text = " ".join(text.split())
    return text.lower() if lowercase else text


def escape(text: str, marks: str) -> str:
    """Write a tokenizer's own ``marks`` otherwise where they stand in the text itself."""
    if _ESCAPE in text:
        text = text.replace(_ESCAPE, _ESCAPE + "0")
    for number, mark in enumerate(marks, start=1):
        if mark in text:
            text = text.replace(mark, f"{_ESCAPE}{number}")
    return text


def unescape(text: str, marks: str) -> str:
    """Undo ``escape``."""
    for number, mark in enumerate(marks, start=1):
        text = text.replace(f"{_ESCAPE}{number}", mark)
    return text.replace(_ESCAPE + "0", _ESCAPE)


class Cutter(ABC):
    """Cuts text into units that are tokenised independently of each other.

    It does not know the vocabulary, so a corpus is cut once, whatever is later trained on it.
    ``identity`` names everything the cut depends on, library versions included; it is part of the
    cache's key.
    """

    lowercase: bool
    identity: str

    @abstractmethod
    def __call__(self, text: str) -> list[str]:
        """Return the units of ``text``; none is empty and none holds a line break (``\\n``)."""


class Tokenizer(ABC):
    """Text to token ids and back, for one side of the translation.

    A kind of tokenizer is a subclass and an entry in ``TOKENIZERS``. Its vocabulary begins with
    ``SPECIALS``, then come the ``tags`` it was trained with.
    """

    cutter: Cutter
    tags: list[str]
    is_subword: bool

    @staticmethod
    @abstractmethod
    def make_cutter(config: TokenizerConfig, language: str) -> Cutter:
        """Return what cuts text of ``language`` into units."""

    @classmethod
    @abstractmethod
    def train(
        cls, config: TokenizerConfig, counts: Mapping[str, int], language: str, tags: Sequence[str]
    ) -> Self:
        """Make the vocabulary from units and how often each occurs (at least one).

        Text never becomes one of the ``tags``, even if it spells them.

        Raises:
            DragomanError: if ``config`` asks for an impossible vocabulary.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, side: str, config: TokenizerConfig) -> Self:
        """Read the tokenizer of ``side`` (``src`` or ``tgt``) that ``save`` wrote.

        Raises:
            DragomanError: naming the file that is missing, unreadable or made for another config.
        """

    @staticmethod
    def is_joint(config: TokenizerConfig) -> bool:
        """Whether one tokenizer, trained on both sides, serves both."""
        return False

    @abstractmethod
    def __len__(self) -> int:
        """Return the size of the vocabulary, special tokens and tags included."""

    @abstractmethod
    def pieces(self, unit: str) -> list[int]:
        """Return the deterministic token ids of one unit (at least one)."""

    @abstractmethod
    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the printable string of every id, special tokens included."""

    @abstractmethod
    def detokenize(self, tokens: Sequence[str]) -> str:
        """Return the text of printable tokens, known or not, white space normalised."""

    @abstractmethod
    def files(self, side: str) -> dict[str, bytes]:
        """Return the files (name to content) that ``load`` reads for ``side``."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids.

        Padding, begin and end marks and tags are skipped, ``UNK`` reads ``<unk>``. The inverse of
        ``encode`` up to white space, lower-casing and unknown tokens.
        """
        first = len(SPECIALS) + len(self.tags)
        return self.detokenize(self.tokens(i for i in ids if i == UNK or i >= first))

    def tag_id(self, tag: str) -> int:
        """Return the id of a tag such as ``<2en>``.

        Raises:
            DragomanError: if the vocabulary was made without it.
        """
        if tag not in self.tags:
            raise DragomanError(f"data.corpora: the vocabulary has no tag '{tag}'; train it anew")
        return len(SPECIALS) + self.tags.index(tag)

    def units(self, text: str) -> list[str]:
        """Return the text's independent units: words, with or without their punctuation."""
        return self.cutter(text)

    def encode(self, text: str) -> list[int]:
        """Return the deterministic token ids of ``text``, without begin and end marks."""
        return [piece for unit in self.cutter(text) for piece in self.remembered(unit)]

    @cached_property
    def remembered(self) -> Callable[[str], list[int]]:
        """``pieces``, which looks up the units it has met lately."""
        return lru_cache(1 << 16)(self.pieces)

    def fingerprint(self) -> str:
        """Return the SHA-256 (hexadecimal) of everything that decides what ``encode`` returns."""
        digest = hashlib.sha256(self.cutter.identity.encode())
        for name, content in sorted(self.files("src").items()):
            digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def save(self, folder: Path, side: str) -> None:
        """Write the tokenizer of ``side`` (``src`` or ``tgt``) into ``folder``, which exists.

        Raises:
            DragomanError: if the folder cannot be written.
        """
        for name, content in self.files(side).items():
            write_atomic(folder / name, content)
