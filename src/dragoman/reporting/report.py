"""One self-contained HTML page about a run: curves, scores by kind, sentences, attention.

This file gathers what the page shows; ``report.html.j2`` says how.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dragoman import settings
from dragoman.config import Config
from dragoman.data.sources import iter_pairs
from dragoman.data.tokenizers import SPECIALS, UNK, Tokenizer
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError
from dragoman.evaluation.scores import origin_words
from dragoman.evaluation.significance import compare
from dragoman.reporting import breakdown
from dragoman.reporting.attention import attention_of
from dragoman.reporting.breakdown import Sentence
from dragoman.reporting.page import picture, rendered
from dragoman.runs import find_run, read_log

SHOWN = 8  # sentences of a kind


def _curves(log: Path) -> str | None:
    """Draw loss and validation BLEU from a run's log; None if there is nothing in it."""
    entries = read_log(log)
    if not entries:
        return None

    def points(kind: str, value: str) -> tuple[list[int], list[float]]:
        rows = [(entry["step"], entry[kind][value]) for entry in entries if kind in entry]
        return [step for step, _ in rows], [height for _, height in rows]

    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*points("train", "loss"), label="training (what is minimised)")
    left.plot(*points("validation", "loss"), label="validation")
    left.set(xlabel="step", ylabel="loss a token", title="loss")
    left.legend()
    right.plot(*points("validation", "bleu"), "o-", markersize=3)
    right.set(xlabel="step", ylabel="BLEU", title="validation")
    return picture(figure)


def _attention(translator: Translator, sentences: Sequence[Sentence]) -> dict[int, str]:
    """Draw what the model looks at for some sentences, by number; nothing without attention."""
    found = attention_of(translator, ((s.source, s.hypothesis) for s in sentences))
    drawn = {s.number: a for s, a in zip(sentences, found, strict=True) if a.aligning}
    return {number: picture(a.plot(title=f"no. {number}")) for number, a in drawn.items()}


def _unknown(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Return the share of tokens that are ``<unk>``."""
    ids = [token for text in texts for token in tokenizer.encode(text)]
    return ids.count(UNK) / max(1, len(ids))


def _training_words(config: Config) -> tuple[Counter[str], list[str]]:
    """Count the source words that the run was trained on; say what could not be read.

    They are those of the run it began with, too; text of both counts once.
    """
    seen, absent = Counter[str](), []
    for corpus in config.data.corpora:
        if corpus.src == config.data.src:
            try:
                seen += breakdown.frequencies(src for src, _ in iter_pairs(config.data, corpus))
            except DragomanError as problem:  # a model that was handed on may come without its text
                absent.append(str(problem))
    if config.train.init_from:
        try:
            before = settings.load(find_run(config.train.init_from).folder / "config.yaml")
        except DragomanError as problem:
            return seen, [*absent, f"the text of the run that this one began with ({problem})"]
        before.data.root = config.data.root
        earlier, also_absent = _training_words(before)
        return seen | earlier, [*absent, *(text for text in also_absent if text not in absent)]
    return seen, absent


def _doubtful(sentences: Sequence[Sentence]) -> dict[str, list[Sentence]]:
    """Return the doubtful translations by kind, the worst of each first."""
    by_ratio = sorted(sentences, key=lambda s: s.ratio)
    return {
        "short": [s for s in by_ratio if s.ratio < 0.7],
        "long": [s for s in reversed(by_ratio) if s.ratio > 1.4],
        "again": sorted((s for s in sentences if s.repeats), key=lambda s: -s.repeats),
    }


def _beside(
    sentences: Sequence[Sentence],
    name: str,
    origin: str,
    others: Sequence[Sentence],
    scoring: tuple[str, str],
) -> dict[str, Any]:
    """Compare with another system: significance, and where they are furthest apart."""
    mine, theirs = ([s.hypothesis for s in system] for system in (sentences, others))
    references = [s.references for s in sentences]
    pairs = list(zip(sentences, others, strict=True))
    gaps = sorted(pairs, key=lambda pair: pair[1].bleu - pair[0].bleu)
    return {
        "name": name,
        "origin": origin,
        "tests": compare(
            mine, theirs, references, scoring[0], ("bleu", "chrf"), tokenize=scoring[1]
        ),
        "same": sum(a.hypothesis == b.hypothesis for a, b in pairs),
        "ahead": [a for a, b in gaps if a.bleu > b.bleu][:SHOWN],
        "behind": [a for a, b in reversed(gaps) if a.bleu < b.bleu][:SHOWN],
        "texts": {other.number: other.hypothesis for other in others},
    }


def report_page(
    translator: Translator,
    folder: Path,
    split: str,
    scores: Mapping[str, Any],
    sentences: Sequence[Sentence],
    other: tuple[str, str, Sequence[Sentence]] | None = None,
) -> str:
    """Return the page.

    Args:
        translator: the run's model, for attention pictures.
        folder: the run folder, whose log gives the curves.
        split: name of the split.
        scores: its scores, as ``scores.<split>.json`` has them.
        sentences: its translations.
        other: a second system to compare with: its name, how its translations were made, and
            these.
    """
    data = translator.config.data
    scoring = (data.tgt, settings.tokens_of(translator.config))
    sources = [s.source for s in sentences]
    references = [text for s in sentences for text in s.references]
    seen, absent = _training_words(translator.config)
    ranked = sorted(sentences, key=lambda s: (-s.bleu, -len(s.source)))
    typical = sorted(sentences, key=lambda s: (abs(s.ratio - 1), abs(len(s.source) - 60)))[:3]
    return rendered(
        "report.html.j2",
        run=folder.name,
        data=data,
        split=split,
        origin=origin_words(scores),
        scores={k: v for k, v in scores.items() if isinstance(v, dict) and "signature" in v},
        robustness=scores.get("robustness", []),
        curves=_curves(folder / "train.jsonl"),
        lengths=breakdown.by_length(sentences, *scoring),
        rarities=breakdown.by_rarity(sentences, seen, *scoring) if seen else [],
        absent=absent,
        unseen=breakdown.unseen_share(sources, seen),
        unknown_source=_unknown(translator.src_tokenizer, sources),
        unknown_reference=_unknown(translator.tgt_tokenizer, references),
        unk=SPECIALS[UNK],
        unk_written=sum(s.hypothesis.count(SPECIALS[UNK]) for s in sentences),
        other=None if other is None else _beside(sentences, *other, scoring),
        **_doubtful(sentences),
        ranked=ranked,
        sentences=sentences,
        shown=SHOWN,
        attention=_attention(translator, typical),
    )
