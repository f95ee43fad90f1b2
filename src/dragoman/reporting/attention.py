"""The attention of a trained run: heat maps of a sentence, and how well it aligns words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from dragoman.data.captions import captions
from dragoman.data.tokenizers import EOS, Tokenizer
from dragoman.decoding.forced import attention_weights
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError, nearest, one_of
from dragoman.reporting.alignment import (
    AlignmentErrorRate,
    alignment_error_rate,
    hard_alignment,
    merge_to_words,
)
from dragoman.reporting.heatmap import attention_figure, attention_grid, figure_png

Matrix = NDArray[Any]
# Marks that tokenizers print and that stand for no character of the text.
MARKS = ("▁", "￭")
TOGETHER = 64  # sentences looked at in one pass


@dataclass(frozen=True, eq=False, repr=False)
class Attention(Mapping[str, Matrix]):
    """Where a model looks while it writes a translation: a mapping from names to matrices.

    A matrix is (heads, rows, columns): its rows look at its columns, and each sums to 1.
    ``labels(name)`` has the tokens of both, ``plot()`` draws the picture.
    """

    source: str
    target: str
    src_tokens: list[str]
    tgt_tokens: list[str]
    matrices: dict[str, Matrix]
    aligning: str | None  # the one whose rows align best with the source; None without any

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {matrix.shape}" for name, matrix in self.matrices.items())
        return f"Attention({self.source!r} -> {self.target!r}: {shapes})"

    def __getitem__(self, name: str) -> Matrix:
        return self.matrices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.matrices)

    def __len__(self) -> int:
        return len(self.matrices)

    def labels(self, name: str) -> tuple[list[str], list[str]]:
        """Return the tokens of a matrix's rows and of its columns."""
        if name.startswith("encoder"):
            return self.src_tokens, self.src_tokens
        if name.endswith("self"):
            # Row t of the decoder predicts target t; it looks at what the decoder was fed.
            return self.tgt_tokens, ["<bos>", *self.tgt_tokens[:-1]]
        return self.tgt_tokens, self.src_tokens

    def plot(self, layer: str | None = None, head: int | None = None, title: str = "") -> Figure:
        """Draw one head of an attention, or all of them side by side.

        Without ``layer``, the attention that aligns best, its heads averaged.

        Raises:
            DragomanError: naming the attentions or heads there are.
        """
        if self.aligning is None:
            raise DragomanError("this model has no attention to draw (model.attention=none)")
        if layer is None:
            if head is not None:
                raise DragomanError("head: name the attention it belongs to with layer")
            layer, matrix = self.aligning, self.matrices[self.aligning].mean(0)[None]
            title = title or f"{layer}, mean of the heads"
        elif layer not in self.matrices:
            raise DragomanError(
                f"layer: there is no attention '{layer}', expected {one_of(self.matrices)}"
                f"{nearest(layer, self.matrices)}"
            )
        else:
            matrix = self.matrices[layer]
        if head is not None:
            if not 0 <= head < len(matrix):
                raise DragomanError(
                    f"head: {head} is out of range, expected 0 to {len(matrix) - 1}"
                )
            matrix, title = matrix[head : head + 1], title or f"{layer}, head {head}"
        down, across = self.labels(layer)
        if len(matrix) == 1:
            return attention_figure(matrix[0], across, down, title or layer)
        return attention_grid(matrix, across, down, title or layer)

    def _repr_png_(self) -> bytes | None:
        return None if self.aligning is None else figure_png(self.plot(), 110)


def attention_of(translator: Translator, pairs: Iterable[tuple[str, str]]) -> Iterator[Attention]:
    """Yield all attention between each source and its translation.

    Both are cut where translating cuts: at ``data.max_length``.
    """
    longest, model, pairs = translator.longest, translator.models[0], iter(pairs)
    while texts := list(islice(pairs, TOGETHER)):
        src = [[*translator.encode_line(source)[:longest], EOS] for source, _ in texts]
        tgt = [[*translator.tgt_tokenizer.encode(target)[:longest], EOS] for _, target in texts]
        weights = attention_weights(model, translator.batch(src, tgt))
        grids = {name: grid.float().cpu().numpy() for name, grid in weights.items()}
        for number, (text, row, column) in enumerate(zip(texts, src, tgt, strict=True)):
            tokens = translator.src_tokenizer.tokens(row), translator.tgt_tokenizer.tokens(column)
            found = Attention(*text, *tokens, {}, model.alignment_layer)
            for name, grid in grids.items():
                down, across = found.labels(name)
                found.matrices[name] = grid[number, :, : len(down), : len(across)]
            yield found


def words_of_tokens(tokens: Sequence[str], words: Sequence[str]) -> list[int]:
    """Return, for each token, the number of the word that its first character lies in, or -1.

    Tokens and words spell the same text but for spaces; special tokens belong to no word.
    """
    owner = [number for number, word in enumerate(words) for _ in word]
    place, found = 0, []
    for token in tokens:
        if token.startswith("<") and token.endswith(">"):
            found.append(-1)
            continue
        length = sum(character not in MARKS for character in token)
        found.append(owner[min(place, len(owner) - 1)] if length or place < len(owner) else -1)
        place += length
    return found


def spelling(tokenizer: Tokenizer, tokens: Sequence[str], text: str) -> list[str]:
    """Return the tokens of a sentence that ends in EOS; unknown words as the text spells them."""
    if tokenizer.is_subword:
        return list(tokens)
    units = tokenizer.units(text)  # one token a unit, behind the tag if there is one
    return [*tokens[: len(tokens) - 1 - len(units)], *units, tokens[-1]]


def caption_alignment(translator: Translator, split: str) -> AlignmentErrorRate:
    """Return the alignment error rate on the embedded corpus, references forced.

    For every target word, the source word with the largest weight is its link; gold alignments are
    those of the grammar (Och and Ney 2003, equation 22).

    Raises:
        DragomanError: if the run was not trained on the embedded corpus.
    """
    data = translator.config.data
    if data.name != "captions":
        raise DragomanError(
            f"--aer: gold alignments are known for data=captions only, not for {data.name}"
        )
    total, german = AlignmentErrorRate(), data.src == "de"
    tokenizers = translator.src_tokenizer, translator.tgt_tokenizer
    entries = list(captions(split))
    pairs = ((entry.de, entry.en) if german else (entry.en, entry.de) for entry in entries)
    for entry, found in zip(entries, attention_of(translator, pairs), strict=True):
        if found.aligning is None:
            raise DragomanError("this model has no attention to align with (model.attention=none)")
        words = (entry.de_words, entry.en_words) if german else (entry.en_words, entry.de_words)
        gold = set(entry.alignment) if german else {(e, d) for d, e in entry.alignment}
        tokens, texts = (found.src_tokens, found.tgt_tokens), (found.source, found.target)
        sides = zip(tokenizers, tokens, texts, words, strict=True)
        owners = [words_of_tokens(spelling(t, own, text), w) for t, own, text, w in sides]
        matrix = found[found.aligning].mean(0)
        total += alignment_error_rate(hard_alignment(merge_to_words(matrix, *owners)), gold)
    return total
