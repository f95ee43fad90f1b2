"""The robustness sheet: what is left of a score when the same text comes in another form.

After Niu et al. 2020, "Evaluating Robustness to Input Perturbations for Neural Machine
Translation", section 3: the score of changed input is set beside that of the input as it is.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

from dragoman.data.augmentation import joined, recased, with_typos, without_end_mark
from dragoman.data.draws import absorb
from dragoman.data.lines import alternatives
from dragoman.decoding.translator import Translator
from dragoman.evaluation.evaluate import Evaluation, evaluate
from dragoman.evaluation.scores import aligned

SEED = 1
EMOJI = "🙂🎉👍😂🔥😍🚀🙏"

Pairs = list[tuple[str, str]]  # sources with their references
Vary = Callable[[Pairs, tuple[str, str]], Pairs]


def _cased(case: str, pairs: Pairs, languages: tuple[str, str]) -> Pairs:
    return [recased(case, src, ref, languages) for src, ref in pairs]


def _without_end_marks(pairs: Pairs, _: tuple[str, str]) -> Pairs:
    return [(without_end_mark(src), ref) for src, ref in pairs]


def _typos(rate: float, pairs: Pairs, _: tuple[str, str]) -> Pairs:
    keys = absorb(np.zeros((), np.uint64), SEED, np.arange(len(pairs)))
    return [(with_typos(src, rate, key), ref) for (src, ref), key in zip(pairs, keys, strict=True)]


def _decomposed(pairs: Pairs, _: tuple[str, str]) -> Pairs:
    return [(unicodedata.normalize("NFD", src), ref) for src, ref in pairs]


def _by_two(pairs: Pairs, languages: tuple[str, str]) -> Pairs:
    """Join lines 1 and 2, 3 and 4, ...; the last of an odd number stays alone."""
    two = [
        (joined(src, next_src, languages[0]), joined(ref, next_ref, languages[1]))
        for (src, ref), (next_src, next_ref) in zip(pairs[::2], pairs[1::2], strict=False)
    ]
    return two + pairs[2 * len(two) :]


def _with_emoji(pairs: Pairs, _: tuple[str, str]) -> Pairs:
    return [
        (f"{src} {emoji}", f"{ref} {emoji}")
        for (src, ref), emoji in zip(pairs, cycle(EMOJI), strict=False)
    ]


# What becomes of the text. References follow the case, are joined, and end in the emoji, as a
# translator would write them; else they stay.
VARIANTS: dict[str, Vary] = {
    "ALL CAPS": partial(_cased, "upper"),
    "Title Case": partial(_cased, "title"),
    "lower case": partial(_cased, "lower"),
    "no end marks": _without_end_marks,
    "typos, 2 % of the letters": partial(_typos, 0.02),
    "typos, 5 % of the letters": partial(_typos, 0.05),
    "accents as characters of their own (NFD)": _decomposed,
    "two sentences a line": _by_two,
    "an emoji at the end": _with_emoji,
}


def robustness(
    translator: Translator, done: Evaluation, progress: Callable[[int], object] | None = None
) -> list[dict[str, Any]]:
    """Translate the lines of an evaluation again in every form of ``VARIANTS``; return the rows.

    A row has the form (``text``), how many of its ``lines`` are not in the text as it is, BLEU
    (``score``) with its 95 % ``interval``, and which share of the clean score is ``kept``. The
    first one is the clean text's. A form that changes no line keeps its score untranslated.
    """
    data = translator.config.data
    # Every first reference, every second one, ...
    streams = list(zip(*map(alternatives, done.references), strict=True))
    clean, known = done.bleu, set(done.sources)

    def row(text: str, lines: int, found: Evaluation) -> dict[str, Any]:
        bleu = found.bleu
        kept = round(bleu.score / clean.score, 4) if clean.score else None
        return {
            "text": text, "lines": lines, "score": bleu.score, "interval": bleu.interval,
            "kept": kept,
        }  # fmt: skip

    rows = [row("as it is", 0, done)]
    for text, vary in VARIANTS.items():
        varied = [
            vary(list(zip(done.sources, stream, strict=True)), (data.src, data.tgt))
            for stream in streams
        ]
        sources = [src for src, _ in varied[0]]
        lines = sum(src not in known for src in sources)
        found = done
        if lines:
            references = list(zip(*([ref for _, ref in pairs] for pairs in varied), strict=True))
            found = evaluate(translator, sources, references, done.decode, progress)
        rows.append(row(text, lines, found))
    translator.remarks()  # of text that nobody wrote
    return rows


def format_robustness(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return an aligned table for the terminal of what ``robustness`` found."""
    clean = rows[0]["score"]
    table = [("input", "lines changed", "BLEU", "95 % interval", "drop", "kept")]
    for row in rows:
        low, high = row["interval"]
        kept = "-" if row["kept"] is None else f"{100 * row['kept']:.1f} %"
        table.append(
            (
                row["text"],
                f"{row['lines']:,}",
                f"{row['score']:.2f}",
                f"[{low:.2f}, {high:.2f}]",
                f"{clean - row['score']:.2f}",
                kept,
            )
        )
    return aligned(table, "<>>>>>")
