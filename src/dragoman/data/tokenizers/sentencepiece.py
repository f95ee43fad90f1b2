"""SentencePiece subwords, lossless: identity normalisation, every character kept."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

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
# Its trainer passes over words with U+2585, in silence.
MARKS = f"{SPACE}▅"

# The sums of EM are added up thread by thread: another number of threads rounds otherwise, so it
# must not follow the machine.
_THREADS = 4


class WhitespaceCutter(Cutter):
    """Cuts at white space: no piece ever crosses it, so words are independent."""

    def __init__(self, lowercase: bool) -> None:
        self.lowercase, self.identity = lowercase, f"whitespace lowercase={lowercase}"

    def __call__(self, text: str) -> list[str]:
        """Return the words; a U+2581 or U+2585 of the text itself is escaped."""
        return escape(normalise(text, self.lowercase), MARKS).split()


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
        sample = _sample(config, counts, len(tags))
        special: dict[str, Any] = {f"{name[1:-1]}_piece": name for name in SPECIALS}
        special.update({f"{name[1:-1]}_id": index for index, name in enumerate(SPECIALS)})
        try:
            sentencepiece.SentencePieceTrainer.train(
                # Words with counts train the same model as the lines they came from, from less
                # memory.
                sentence_iterator=(f"{word}\t{sample[word]}" for word in sorted(sample)),
                input_format="tsv",
                model_writer=model,
                model_type=config.algorithm,
                vocab_size=config.vocab_size,
                byte_fallback=config.byte_fallback,
                normalization_rule_name="identity",
                character_coverage=1.0,
                split_digits=config.split_digits,
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
        return unescape(" ".join(self._processor.decode(tokens).split()), MARKS)

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


def _sample(config: TokenizerConfig, counts: Mapping[str, int], tags: int) -> Mapping[str, int]:
    """Return a sample of the words, without the characters that are to have no piece.

    A word's count is scaled and rounded up or down by a hash of it, so that of rare words as large
    a part is left as of frequent ones, and always the same. Rare characters go where
    ``character_coverage`` says so and, with byte fallback, where the vocabulary is too small: they
    are spelled as bytes.
    """
    total = sum(len(word) * count for word, count in counts.items())
    if (share := config.sample_characters / max(1, total)) < 1:
        scaled = {w: int(n * share + crc32(w.encode()) / 2**32) for w, n in counts.items()}
        counts = {word: count for word, count in scaled.items() if count}
    if config.character_coverage == 1 and not config.byte_fallback:
        return counts
    others = len(SPECIALS) + tags + (256 if config.byte_fallback else 0)
    if config.vocab_size < others + 2:
        raise DragomanError(_too_small(config, others + 2))
    characters = Counter[str]()
    for word, count in counts.items():
        for character in SPACE + word:
            characters[character] += count
    ranked, goal = characters.most_common(), config.character_coverage * characters.total()
    before = accumulate((count for _, count in ranked), initial=0)
    most = config.vocab_size - others if config.byte_fallback else len(ranked)
    kept = {c for (c, _), seen in zip(ranked[:most], before, strict=False) if seen < goal}
    if len(kept) == len(ranked):
        return counts
    shorter = Counter[str]()
    for word, count in counts.items():
        shorter["".join(filter(kept.__contains__, word))] += count
    del shorter[""]
    return shorter


def _file_name(side: str, joint: bool) -> str:
    return "tokenizer.model" if joint else f"tokenizer.{side}.model"


def _too_small(config: TokenizerConfig, least: int) -> str:
    return (
        f"data.tokenizer.vocab_size: {config.vocab_size} is too small for the characters of this "
        f"text and the special tokens, expected at least {least}"
    )


def _explain(config: TokenizerConfig, message: str) -> str:
    """Turn SentencePiece's complaint into one line about the config key."""
    key, size = "data.tokenizer.vocab_size", config.vocab_size
    if match := re.search(r"too high .*<= (\d+)", message):
        return f"{key}: {size} is too large for this text, expected at most {match[1]}"
    if match := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return _too_small(config, int(match[1]))
    reason = message.splitlines()[0] if message else "no reason given"
    return f"{key}: no model of {size} pieces can be trained on this text ({reason})"
