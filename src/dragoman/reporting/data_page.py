"""One HTML page about training text: what it looks like, and what was left out of it.

Counts are of all pairs. Words, pictures and unknown tokens are of a sample from the whole corpus,
of what the rules left. Words are those of ``breakdown``.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dragoman.config import CorpusConfig, DataConfig
from dragoman.data.preparation import Prepared
from dragoman.data.tokenizers import UNK, Tokenizer
from dragoman.reporting.breakdown import frequencies, words
from dragoman.reporting.page import picture, rendered

SAMPLE = 20_000  # pairs
SHOWN = 24  # words of a kind, and characters
SCRIPTS = 6
TIMES = (1, 2, 3, 6, 21)  # how often a sentence occurs: where a bar begins


def _histogram(axes: Axes, sides: Sequence[Sequence[int]], names: Sequence[str], unit: str) -> None:
    most = max(1, int(np.percentile(np.concatenate(sides), 99.5)))
    bins = np.arange(most + 2) - 0.5 if most < 60 else np.linspace(0, most, 60)
    for side, name in zip(sides, names, strict=True):
        axes.hist(np.minimum(side, most), bins=list(bins), histtype="step", label=name)
    axes.set(xlabel=f"{unit} a line (the last bar: all above)", ylabel="lines", title=unit)
    axes.legend()


def _lengths(
    lines: Sequence[Sequence[str]], ids: Sequence[Sequence[Sequence[int]]], names: Sequence[str],
    limit: int,
) -> str:  # fmt: skip
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    counts = [[len(words(line)) for line in side] for side in lines]
    _histogram(left, counts, names, "words")
    _histogram(middle, [[len(row) for row in side] for side in ids], names, "tokens")
    if middle.get_xlim()[1] > limit:
        middle.axvline(limit, color="0.5", linestyle=":")
    src, tgt = (np.maximum(1, side) for side in counts)
    right.hist(np.clip(np.log2(tgt / src), -3, 3), bins=list(np.linspace(-3.125, 3.125, 26)))
    right.set_xticks([-3, -2, -1, 0, 1, 2, 3], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    right.set(xlabel=f"{names[1]} words for one of {names[0]}", ylabel="lines", title="ratio")
    return picture(figure)


def _scripts(lines: Sequence[str]) -> Counter[str]:
    """Count letters by script, which a letter's name begins with: "THAI CHARACTER KO KAI"."""
    found: Counter[str] = Counter()
    for sign, count in Counter("".join(lines)).items():
        if sign.isalpha():
            found[unicodedata.name(sign, "unknown").split()[0].title().replace("Cjk", "Han")] += (
                count
            )
    return found


def _kinds(prepared: Prepared, lines: Sequence[Sequence[str]], names: Sequence[str]) -> str:
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    scripts = list(map(_scripts, lines))
    known = [name for name, _ in (scripts[0] + scripts[1]).most_common(SCRIPTS)]
    for place, (side, name) in enumerate(zip(scripts, names, strict=True)):
        shares = [100 * side[script] / max(1, side.total()) for script in known]
        left.barh(np.arange(len(known)) + 0.4 * place, shares, 0.4, label=name)
        counts = sorted(frequencies(lines[place]).values(), reverse=True)
        middle.loglog(range(1, len(counts) + 1), counts, label=name)
        times = np.unique(prepared.text.keys[place], return_counts=True)[1]
        bar = np.searchsorted(TIMES, times, side="right") - 1
        heights = np.bincount(bar, weights=times, minlength=len(TIMES)) * 100 / times.sum()
        right.bar(np.arange(len(TIMES)) + 0.4 * place, heights, 0.4, label=name)
    left.set_yticks(np.arange(len(known)) + 0.2, known)
    left.set_ylim(max(len(known), 4), -0.5)
    left.set(xlabel="% of the letters", title="scripts")
    middle.set(xlabel="rank of a word", ylabel="times", title="words by frequency")
    right.set_xticks(np.arange(len(TIMES)) + 0.2, ["1", "2", "3-5", "6-20", "21+"])
    right.set(xlabel="times the sentence occurs", ylabel="% of the lines", title="repetition")
    for axes in (left, middle, right):
        axes.legend()
    return picture(figure)


def _side(
    lines: Sequence[str], ids: Sequence[Sequence[int]], language: str, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Return a side in words: frequent and rare ones, and what the vocabulary lacks."""
    counts = frequencies(lines)
    once = [word for word, count in counts.items() if count == 1]
    unknown = sum(list(row).count(UNK) for row in ids)
    lacking = Counter(c for line, row in zip(lines, ids, strict=True) if UNK in row for c in line)
    return {
        "language": language,
        "words": counts.total(),
        "distinct": len(counts),
        "frequent": counts.most_common(SHOWN),
        "once": len(once),
        "rare": once[:: max(1, len(once) // SHOWN)][:SHOWN],
        "unknown": unknown / max(1, sum(map(len, ids))),
        "lacking": [
            (sign, count)
            for sign, count in lacking.most_common()
            if tokenizer.is_subword and not sign.isspace() and UNK in tokenizer.encode(sign)
        ][:SHOWN],
    }


def _corpus(
    corpus: CorpusConfig, prepared: Prepared, tokenizers: Sequence[Tokenizer], limit: int
) -> dict[str, Any]:
    text, counts = prepared.text, prepared.counts
    kept = np.flatnonzero(~prepared.left_out)
    sample = kept[:: max(1, len(kept) // SAMPLE)]
    lines = [side.lines(sample) for side in text.sides]
    ids = [
        [tokenizer.encode(line) for line in side]
        for side, tokenizer in zip(lines, tokenizers, strict=True)
    ]
    languages = (corpus.src, corpus.tgt)
    return {
        "name": f"{corpus.source} {corpus.split}, {corpus.src} to {corpus.tgt}",
        "read": counts.read,
        "left_out": counts.left_out,
        "examples": text.examples(),
        "leaks": counts.leaks,
        "kept": len(kept),
        "sample": len(sample),
        "sides": list(map(_side, lines, ids, languages, tokenizers)),
        "pictures": {
            "lengths of lines, and their ratio": _lengths(lines, ids, languages, limit),
            "scripts, frequencies of words, and repetitions": _kinds(prepared, lines, languages),
        } if len(sample) else {},
    }  # fmt: skip


def data_page(data: DataConfig, texts: Sequence[Prepared], tokenizers: Sequence[Tokenizer]) -> str:
    """Return the page."""
    corpora = [
        _corpus(corpus, prepared, tokenizers, data.max_length)
        for corpus, prepared in zip(data.corpora, texts, strict=True)
    ]
    sizes = [len(tokenizer) for tokenizer in dict.fromkeys(tokenizers)]
    return rendered("data.html.j2", data=data, corpora=corpora, sizes=sizes)
