"""The attention of a trained run: heat maps of a sentence, and how well it aligns words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dragoman.config import DecodeConfig
from dragoman.data.captions import captions
from dragoman.data.tokenizers import EOS, Tokenizer
from dragoman.decoding.forced import aligning, attention_weights, word_attention
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError, nearest, one_of
from dragoman.models.seq2seq import Weights
from dragoman.reporting.alignment import (
    AlignmentErrorRate,
    alignment_error_rate,
    hard_alignment,
    merge_to_words,
)
from dragoman.reporting.heatmap import attention_figure, attention_grid, save_figure

Matrix = NDArray[Any]
# Marks that tokenizers print and that stand for no character of the text.
MARKS = ("▁", "￭")


def choose(weights: Weights, name: str | None, head: int | None) -> tuple[str, Matrix]:
    """Return the weights (H, T, S) of the first sentence, of one attention and one or all heads.

    Without a name, the one attention that aligns target with source best, heads averaged.

    Raises:
        DragomanError: naming the attentions or heads there are.
    """
    if not weights:
        raise DragomanError("this model has no attention to draw (model.attention=none)")
    if name is None:
        best, mean = aligning(weights), word_attention(weights)
        assert mean is not None, "a model with attention attends to its source"
        matrix = mean[0].float().cpu().numpy()[None]
        if head is not None:
            raise DragomanError("--head: name the attention it belongs to with --layer")
        return f"{best}, mean of the heads", matrix
    if name not in weights:
        raise DragomanError(
            f"--layer: there is no attention '{name}', expected {one_of(weights)}"
            f"{nearest(name, weights)}"
        )
    matrix = weights[name][0].float().cpu().numpy()
    if head is None:
        return name, matrix
    if not 0 <= head < len(matrix):
        raise DragomanError(f"--head: {head} is out of range, expected 0 to {len(matrix) - 1}")
    return f"{name}, head {head}", matrix[head : head + 1]


def forced(
    translator: Translator, source: str, target: str
) -> tuple[list[str], list[str], Weights]:
    """Return the tokens of a source and of its translation, and all attention between them.

    Both are cut where translating cuts: at ``data.max_length``.
    """
    longest = translator.longest
    src = [*translator.encode_line(source)[:longest], EOS]
    tgt = [*translator.tgt_tokenizer.encode(target)[:longest], EOS]
    weights = attention_weights(translator.models[0], translator.batch([src], [tgt]))
    return translator.src_tokenizer.tokens(src), translator.tgt_tokenizer.tokens(tgt), weights


def sentence_figure(translator: Translator, source: str, target: str, title: str) -> Figure | None:
    """Draw where a translation looks in its source; None if the model has no attention."""
    src, tgt, weights = forced(translator, source, target)
    attention = word_attention(weights)
    if attention is None:
        return None
    return attention_figure(attention[0].float().cpu().numpy(), src, tgt, title)


def draw_attention(
    translator: Translator,
    sentence: str,
    decode: DecodeConfig,
    path: Path,
    *,
    target: str | None = None,
    name: str | None = None,
    head: int | None = None,
) -> str:
    """Draw the attention of one sentence and its translation (or ``target``) as a PNG.

    Returns the translation that was drawn.

    Raises:
        DragomanError: if there is no such attention, or the picture cannot be written.
    """
    if not sentence.strip():
        raise DragomanError("--sentence: is empty")
    if target is None:
        target = translator.translate([sentence], decode)[0][0].text
    src_tokens, tgt_tokens, weights = forced(translator, sentence, target)
    title, matrix = choose(weights, name, head)
    # Row t of the decoder predicts target t; its own attention looks at what it was fed.
    fed = ["<bos>", *tgt_tokens[:-1]]
    across = src_tokens if name is None or not name.endswith("self") else fed
    down = tgt_tokens
    if name is not None and name.startswith("encoder"):
        across = down = src_tokens
    if len(matrix) == 1:
        figure = attention_figure(matrix[0], across, down, title)
    else:
        figure = attention_grid(matrix, across, down, title)
    save_figure(figure, path)
    return target


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


def spelling(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> list[str]:
    """Return the tokens of a sentence that ends in EOS; unknown words as the text spells them."""
    tokens = tokenizer.tokens(ids)
    if not tokenizer.is_subword:  # one token a unit, behind the tag if there is one
        units = tokenizer.units(text)
        tokens[len(tokens) - 1 - len(units) : -1] = units
    return tokens


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
    total = AlignmentErrorRate()
    entries = captions(split)
    forwards = data.src == "de"
    for start in range(0, len(entries), 64):
        part = entries[start : start + 64]
        sides = [(e.de, e.en, e.de_words, e.en_words) for e in part]
        if not forwards:
            sides = [(en, de, en_words, de_words) for de, en, de_words, en_words in sides]
        src = [[*translator.encode_line(side[0]), EOS] for side in sides]
        tgt = [[*translator.tgt_tokenizer.encode(side[1]), EOS] for side in sides]
        attention = word_attention(
            attention_weights(translator.models[0], translator.batch(src, tgt))
        )
        if attention is None:
            raise DragomanError("this model has no attention to align with (model.attention=none)")
        matrices = attention.float().cpu().numpy()
        for row, (entry, side) in enumerate(zip(part, sides, strict=True)):
            matrix = matrices[row][: len(tgt[row]), : len(src[row])]
            src_tokens = spelling(translator.src_tokenizer, src[row], side[0])
            tgt_tokens = spelling(translator.tgt_tokenizer, tgt[row], side[1])
            src_words = words_of_tokens(src_tokens, side[2])
            tgt_words = words_of_tokens(tgt_tokens, side[3])
            links = hard_alignment(merge_to_words(np.asarray(matrix), src_words, tgt_words))
            gold = {(d, e) if forwards else (e, d) for d, e in entry.alignment}
            total += alignment_error_rate(links, gold)
    return total
