"""SentencePiece subwords, lossless: identity normalisation, every character kept."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from dragoman.config import TokenizerConfig
from dragoman.data.tokenizers.base import (
    SPECIALS,
    UNK,
    Cutter,
    Tokenizer,
    escape,
    normalise,
    unescape,
)
from dragoman.errors import DragomanError
from dragoman.files import read_bytes

SPACE = "▁"  # U+2581, how SentencePiece writes a space

# The sums of EM are added up thread by thread: another number of threads rounds otherwise, so it
# must not follow the machine.
_THREADS = 4


class WhitespaceCutter(Cutter):
    """Cuts at white space: no piece ever crosses it, so words are independent."""

    def __init__(self, lowercase: bool) -> None:
        self.lowercase, self.identity = lowercase, f"whitespace lowercase={lowercase}"

    def __call__(self, text: str) -> list[str]:
        """Return the words; a U+2581 of the text itself is escaped."""
        return escape(normalise(text, self.lowercase), SPACE).split()


class Inventory(NamedTuple):
    """What a segmentation needs to know of a model."""

    ids: dict[str, int]  # normal piece -> id
    scores: list[float]  # per id; unigram: log probability, bpe: minus the rank of the merge
    bytes: list[int]  # id of each of the 256 byte pieces; empty without byte fallback


class SentencePieceTokenizer(Tokenizer):
    """A trained SentencePiece model; one object serves both sides when ``joint``."""

    is_subword = True

    def __init__(self, model: bytes, lowercase: bool, joint: bool) -> None:
        import sentencepiece

        self.model, self.joint = model, joint
        self.cutter = WhitespaceCutter(lowercase)
        self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        others = range(len(SPECIALS), len(self))
        self.tags = self.tokens(takewhile(self._processor.is_control, others))

    @staticmethod
    def make_cutter(config: TokenizerConfig, language: str) -> WhitespaceCutter:
        """Return what cuts at white space, in every language."""
        return WhitespaceCutter(config.lowercase)

    @staticmethod
    def is_joint(config: TokenizerConfig) -> bool:
        """Whether ``data.tokenizer.joint`` asks for one model."""
        return config.joint

    @classmethod
    def train(
        cls, config: TokenizerConfig, counts: Mapping[str, int], language: str, tags: Sequence[str]
    ) -> SentencePieceTokenizer:
        """Train a model; the same input gives the same bytes everywhere.

        Tags become control symbols. A run of unknown characters becomes one ``<unk>``.

        Raises:
            DragomanError: naming ``data.tokenizer.vocab_size`` and what is possible.
        """
        import sentencepiece

        model = io.BytesIO()
        special: dict[str, Any] = {f"{name[1:-1]}_piece": name for name in SPECIALS}
        special.update({f"{name[1:-1]}_id": index for index, name in enumerate(SPECIALS)})
        try:
            sentencepiece.SentencePieceTrainer.train(
                # Words with counts train the same model as the lines they came from, from less
                # memory.
                sentence_iterator=(f"{word}\t{counts[word]}" for word in sorted(counts)),
                input_format="tsv",
                model_writer=model,
                model_type=config.algorithm,
                vocab_size=config.vocab_size,
                byte_fallback=config.byte_fallback,
                normalization_rule_name="identity",
                character_coverage=1.0,
                max_sentence_length=1 << 20,
                control_symbols=list(tags),
                **special,
                unk_surface=SPECIALS[UNK],
                num_threads=_THREADS,
                minloglevel=2,
            )
        except (RuntimeError, OSError) as problem:
            raise DragomanError(_explain(config, str(problem))) from None
        return cls(model.getvalue(), config.lowercase, config.joint)

    @classmethod
    def load(cls, folder: Path, side: str, config: TokenizerConfig) -> SentencePieceTokenizer:
        """Read the file that ``files`` describes.

        Raises:
            DragomanError: if it is missing or is no model of Dragoman's.
        """
        path = folder / _file_name(side, config.joint)
        model = read_bytes(path)
        try:
            tokenizer = cls(model, config.lowercase, config.joint)
            specials = tokenizer.tokens(range(min(len(tokenizer), len(SPECIALS))))
        except RuntimeError:
            raise DragomanError(f"{path}: not a SentencePiece model") from None
        if tuple(specials) != SPECIALS:
            raise DragomanError(
                f"{path}: the first entries are {specials}, expected {', '.join(SPECIALS)}"
            )
        return tokenizer

    def files(self, side: str) -> dict[str, bytes]:
        """Return ``tokenizer.model`` when joint, else ``tokenizer.<side>.model``."""
        return {_file_name(side, self.joint): self.model}

    def __len__(self) -> int:
        return int(self._processor.get_piece_size())

    def pieces(self, unit: str) -> list[int]:
        """Return the ids of the best segmentation."""
        ids: list[int] = self._processor.encode(unit)
        return ids

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the pieces, with ``▁`` for the space before a word."""
        return [self._processor.id_to_piece(int(index)) for index in ids]

    def detokenize(self, tokens: Sequence[str]) -> str:
        """Return the text of pieces; byte pieces that are no UTF-8 read U+FFFD."""
        return unescape(" ".join(self._processor.decode(tokens).split()), SPACE)

    def inventory(self) -> Inventory:
        """Return the pieces that segmentations are made of."""
        model = self._processor
        everything = range(len(self))
        special = (model.is_control, model.is_unknown, model.is_unused, model.is_byte)
        normal = {model.id_to_piece(i): i for i in everything if not any(f(i) for f in special)}
        return Inventory(
            normal,
            [model.get_score(i) for i in everything],
            [i for i in everything if model.is_byte(i)],
        )


def _file_name(side: str, joint: bool) -> str:
    return "tokenizer.model" if joint else f"tokenizer.{side}.model"


def _explain(config: TokenizerConfig, message: str) -> str:
    """Turn SentencePiece's complaint into one line about the config key."""
    key, size = "data.tokenizer.vocab_size", config.vocab_size
    if match := re.search(r"too high .*<= (\d+)", message):
        return f"{key}: {size} is too large for this text, expected at most {match[1]}"
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (
            f"{key}: {size} is too small for the characters of this text and the special tokens, "
            f"expected at least {match[1]}"
        )
    reason = message.splitlines()[0] if message else "no reason given"
    return f"{key}: no model of {size} pieces can be trained on this text ({reason})"
