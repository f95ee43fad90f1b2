"""One self-contained HTML page about a run: curves, scores by kind, sentences, attention."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dragoman import settings
from dragoman.config import Config
from dragoman.data.sources import iter_pairs
from dragoman.data.tokenizers import SPECIALS, UNK
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError
from dragoman.evaluation.scores import origin_words
from dragoman.evaluation.significance import compare
from dragoman.reporting.attention import attention_of
from dragoman.reporting.breakdown import (
    Bucket,
    Sentence,
    by_length,
    by_rarity,
    frequencies,
    unseen_share,
)
from dragoman.reporting.heatmap import figure_png
from dragoman.runs import find_run, read_log

SHOWN = 8  # sentences of a kind
STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #8884; } td.n, th.n { text-align: right; white-space: nowrap; }
.note { color: #777; } img { max-width: 100%; background: white; } code { font-size: .85em; }
dl { display: grid; grid-template-columns: 6rem 1fr; gap: .1rem 1rem; margin: 1rem 0; }
dt { color: #777; } dd { margin: 0; }
"""


def _picture(figure: Figure, text: str) -> str:
    data = base64.b64encode(figure_png(figure, 110)).decode()
    return f'<img alt="{escape(text)}" src="data:image/png;base64,{data}">'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], text: Sequence[str] = ()) -> str:
    """Return a table; all columns but the first and those called ``text`` are numbers."""
    words = {head[0], *text}

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = ("" if name in words else ' class="n"' for name in head)
        return "<tr>" + "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True)
        )

    body = "\n".join(line(row, "td") for row in rows)
    return f"<table>\n{line(head, 'th')}\n{body}\n</table>"


def _curves(folder: Path) -> str:
    """Draw loss and validation BLEU from the run's log."""
    log = folder / "train.jsonl"
    if not log.exists():
        return '<p class="note">An exported run has no log.</p>'
    entries = read_log(log)
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind, name in (("train", "training (what is minimised)"), ("validation", "validation")):
        points = [(e["step"], e[kind]["loss"]) for e in entries if kind in e]
        if points:
            left.plot(*zip(*points, strict=True), label=name)
    left.set(xlabel="step", ylabel="loss a token", title="loss")
    left.legend()
    points = [(e["step"], e["validation"]["bleu"]) for e in entries if "validation" in e]
    if points:
        right.plot(*zip(*points, strict=True), marker="o", markersize=3)
    right.set(xlabel="step", ylabel="BLEU", title="validation")
    return _picture(figure, "loss and validation BLEU by step")


def _scores(scores: Mapping[str, Any]) -> str:
    """Return the table of metrics that a score file holds."""
    rows = [
        (
            name,
            f"{entry['score']:.2f}",
            "[{:.2f}, {:.2f}]".format(*entry["interval"]),
            "; on text ".join(entry[k] for k in ("signature", "preprocessing") if k in entry),
        )
        for name, entry in scores.items()
        if isinstance(entry, dict) and "signature" in entry
    ]
    return _table(("metric", "score", "95 % interval", "signature"), rows, text=["signature"])


def _buckets(head: str, found: Sequence[Bucket]) -> str:
    rows = [(b.label, str(b.sentences), f"{b.bleu:.1f}", f"{b.ratio:.2f}") for b in found]
    return _table((head, "sentences", "BLEU", "words per reference word"), rows)


def _sentences(found: Sequence[Sentence], others: Mapping[int, str] | None = None) -> str:
    """Return a list of sentences; ``others`` are another system's translations by number."""
    parts = []
    for s in found:
        rows = [("source", s.source), ("translation", s.hypothesis)]
        if others is not None:
            rows.append(("other run", others[s.number]))
        rows.append(("reference", s.reference))
        rows.append((f"no. {s.number}", f"sentence BLEU {s.bleu:.0f}, length ratio {s.ratio:.2f}"))
        cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
        parts.append(f"<dl>{cells}</dl>")
    return "\n".join(parts) or '<p class="note">None.</p>'


def _attention(translator: Translator, sentences: Sequence[Sentence]) -> str:
    """Draw what the model looks at for some sentences."""
    parts = []
    for s in sentences:
        attention = attention_of(translator, s.source, s.hypothesis)
        if attention.aligning is None:
            return '<p class="note">This model has no attention.</p>'
        figure = attention.plot(title=f"no. {s.number}")
        parts.append(_picture(figure, f"attention of sentence {s.number}"))
    return "\n".join(parts)


def _unknown(translator: Translator, texts: Sequence[str], source: bool) -> float:
    """Return the share of tokens that are ``<unk>``."""
    tokenizer = translator.src_tokenizer if source else translator.tgt_tokenizer
    ids = [token for text in texts for token in tokenizer.encode(text)]
    return sum(token == UNK for token in ids) / max(1, len(ids))


def _training_words(config: Config) -> tuple[Counter[str], list[str]]:
    """Count the source words that the run was trained on; say what could not be read.

    They are those of the run it began with, too; text of both counts once.
    """
    seen, absent = Counter[str](), []
    for corpus in config.data.corpora:
        if corpus.src == config.data.src:
            try:
                seen += frequencies(src for src, _ in iter_pairs(config.data, corpus))
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


def _rarity(translator: Translator, found: Sequence[Sentence]) -> str:
    """Return the scores by the rarest source word, and how much of the text is new to the model."""
    seen, absent = _training_words(translator.config)
    sources, references = [s.source for s in found], [s.reference for s in found]
    parts = [f'<p class="note">Not counted: {escape(problem)}.</p>' for problem in absent]
    if seen:
        buckets = by_rarity(found, seen, translator.config.data.tgt)
        share = 100 * unseen_share(sources, seen)
        parts.insert(0, _buckets("times seen in training", buckets))
        parts.append(f"<p>{share:.1f} % of the source words never occur in training.</p>")
    written = sum(s.hypothesis.count(SPECIALS[UNK]) for s in found)
    parts.append(
        f"<p>{100 * _unknown(translator, sources, True):.2f} % of the source tokens are unknown to "
        f"the model, {100 * _unknown(translator, references, False):.2f} % of the reference's. It "
        f"wrote {escape(SPECIALS[UNK])} {written} times.</p>"
    )
    return "\n".join(parts)


def _doubtful(sentences: Sequence[Sentence]) -> str:
    """Return a list for each kind of doubtful translation, the worst of each first."""
    short = sorted((s for s in sentences if s.ratio < 0.7), key=lambda s: s.ratio)
    long = sorted((s for s in sentences if s.ratio > 1.4), key=lambda s: -s.ratio)
    again = sorted((s for s in sentences if s.repeats), key=lambda s: -s.repeats)
    kinds = {
        "Much shorter than the reference (under-translation)": short,
        "Much longer than the reference (over-translation)": long,
        "Two words in a row said again": again,
    }
    return "\n".join(
        f"<h3>{kind}: {len(found)} of {len(sentences)}</h3>\n{_sentences(found[: SHOWN // 2])}"
        for kind, found in kinds.items()
    )


def _difference(
    sentences: Sequence[Sentence],
    others: Sequence[Sentence],
    name: str,
    said: str,
    language: str,
) -> str:
    """Compare with another system: significance, and where they are furthest apart."""
    mine, theirs = ([s.hypothesis for s in system] for system in (sentences, others))
    tests = compare(mine, theirs, [s.reference for s in sentences], language, ("bleu", "chrf"))
    rows = [
        (
            t["metric"],
            f"{t['score_a']:.2f}",
            f"{t['score_b']:.2f}",
            f"{t['difference']:+.2f}",
            f"{t['p_value']:.4f}",
            t["method"],
        )
        for t in tests
    ]
    head = ("metric", "this run", name, "difference", "p", "test")
    gaps = sorted(zip(sentences, others, strict=True), key=lambda pair: pair[1].bleu - pair[0].bleu)
    texts = {other.number: other.hypothesis for other in others}
    same = sum(a.hypothesis == b.hypothesis for a, b in zip(sentences, others, strict=True))
    return "\n".join(
        [
            f"<h2>Beside {escape(name)}</h2>",
            f"<p>{escape(said)}. p is how often chance alone, over these sentences, makes so large "
            "a difference.</p>",
            _table(head, rows, text=["test"]),
            f"<p>{same} of {len(sentences)} translations are the same.</p>",
            "<h3>Where this run is furthest ahead</h3>",
            _sentences([a for a, b in gaps if a.bleu > b.bleu][:SHOWN], texts),
            "<h3>Where it is furthest behind</h3>",
            _sentences([a for a, b in reversed(gaps) if a.bleu < b.bleu][:SHOWN], texts),
        ]
    )


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
    config = translator.config
    data = config.data
    ranked = sorted(sentences, key=lambda s: (-s.bleu, -len(s.source)))
    typical = sorted(sentences, key=lambda s: (abs(s.ratio - 1), abs(len(s.source) - 60)))[:3]
    title = f"{folder.name}: {data.src} to {data.tgt}, {split}"
    parts = [
        f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{escape(title)}</title>",
        '<meta name="viewport" content="width=device-width">',
        f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>",
        f"<p>{len(sentences):,} sentences; {escape(origin_words(scores))}.</p>",
        _scores(scores),
        "<h2>Training</h2>",
        _curves(folder),
        "<h2>By length</h2>",
        _buckets("source words", by_length(sentences, data.tgt)),
        "<h2>By the rarest source word</h2>",
        _rarity(translator, sentences),
    ]
    if other is not None:
        name, said, others = other
        parts.append(_difference(sentences, others, name, said, data.tgt))
    parts += [
        "<h2>Doubtful translations</h2>",
        _doubtful(sentences),
        "<h2>Worst sentences</h2>",
        _sentences(ranked[: -SHOWN - 1 : -1]),
        "<h2>Best sentences</h2>",
        _sentences(ranked[:SHOWN]),
        "<h2>Attention</h2>",
        _attention(translator, typical),
    ]
    return "\n".join(parts) + "\n</html>\n"
