"""What every tokenizer shares: the special tokens, text normalisation and the interface."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from dragoman.files import write_atomic

UNK, PAD, BOS, EOS = 0, 1, 2, 3
SPECIALS = ("<unk>", "<pad>", "<bos>", "<eos>")

_ESCAPE = "\ue000"  # private use: the least likely character to need escaping itself


def normalise(text: str, lowercase: bool) -> str:
    """Collapse every run of Unicode white space to one space, strip, and lower-case if asked."""
    text = " ".join(text.split())
    return text.lower() if lowercase else text


def escape(text: str, mark: str) -> str:
    """Write a tokenizer's own ``mark`` otherwise where it stands in the text itself."""
    if _ESCAPE in text:
        text = text.replace(_ESCAPE, _ESCAPE + "0")
    return text.replace(mark, _ESCAPE + "1") if mark in text else text


def unescape(text: str, mark: str) -> str:
    """Undo ``escape``."""
    if _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE + "1", mark).replace(_ESCAPE + "0", _ESCAPE)


class Cutter(ABC):
    """Cuts text into units that are tokenised independently of each other.

    It does not know the vocabulary, so a corpus is cut once, whatever is later trained on it.
    """

    lowercase: bool

    @property
    @abstractmethod
    def identity(self) -> str:
        """Everything the cut depends on, library versions included; part of the cache's key."""

    @abstractmethod
    def __call__(self, text: str) -> list[str]:
        """Return the units of ``text``; none is empty and none holds a line break (``\\n``)."""


class Tokenizer(ABC):
    """Text to token ids and back, for one side of the translation."""

    cutter: Cutter
    is_subword: bool

    @abstractmethod
    def __len__(self) -> int:
        """Return the size of the vocabulary, special tokens and tags included."""

    @abstractmethod
    def pieces(self, unit: str) -> list[int]:
        """Return the deterministic token ids of one unit (at least one)."""

    @abstractmethod
    def detokenize(self, tokens: Sequence[str]) -> str:
        """Return the text of printable tokens (see ``base``), white space normalised."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids.

        Padding, begin and end marks and tags are skipped, ``UNK`` reads ``<unk>``. The inverse of
        ``encode`` up to white space, lower-casing and unknown tokens.
        """

    @abstractmethod
    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the printable string of every id, special tokens included."""

    @abstractmethod
    def tag_id(self, tag: str) -> int:
        """Return the id of a tag such as ``<2en>``.

        Raises:
            DragomanError: if the vocabulary was made without it.
        """

    @abstractmethod
    def files(self, side: str) -> dict[str, bytes]:
        """Return the files (name to content) that ``load_tokenizer`` reads for ``side``."""

    def units(self, text: str) -> list[str]:
        """Return the text's independent units: words, with or without their punctuation."""
        return self.cutter(text)

    def encode(self, text: str) -> list[int]:
        """Return the deterministic token ids of ``text``, without begin and end marks."""
        return [piece for unit in self.cutter(text) for piece in self.pieces(unit)]

    def spans(self, text: str) -> list[int]:
        """Return, for every token of ``encode(text)``, the number of the unit it belongs to."""
        cut = self.cutter(text)
        return [number for number, unit in enumerate(cut) for _ in self.pieces(unit)]

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
