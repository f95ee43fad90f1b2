from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS, bootstrap_sums
from dragoman.evaluation.moses import lc_norm_tok

WORDS = ["Ein", "Mann", "Eine", "Frau", "steht", "sitzt", "vor", "„dem", "Haus“", "und", "Peter's"]
WORDS += [
    "T-Shirt",
    "liest,",
    "z.B.",
    "1,5",
    "m",
    "weißen",
    "Hund",
    "(rot)",
    "läuft",
    "über",
    "Gras",
]


def corpus(seed: int, size: int = 150) -> tuple[list[str], list[str]]:
    """Return references and hypotheses with some words changed, moved, doubled or lost."""
    rng = random.Random(seed)
    references, hypotheses = [], []
    for _ in range(size):
        words = [rng.choice(WORDS) for _ in range(rng.randint(3, 16))]
        references.append(" ".join(words) + ".")
        for _ in range(len(words) // 4):
            here, there = rng.randrange(len(words)), rng.randrange(len(words))
            change = rng.randrange(4)
            if change == 0:
                words[here], words[there] = words[there], words[here]
            elif change == 1:
                words[here] = rng.choice(WORDS).lower()
            elif change == 2:
                words.insert(here, words[there])
            elif len(words) > 1:
                words.pop(here)
        hypotheses.append(" ".join(words) + ".")
    return hypotheses, references


@pytest.fixture(scope="module")
def lines() -> tuple[list[str], list[str]]:
    hypotheses, references = corpus(7)
    hypotheses[3] = ""  # a model may well say nothing
    return hypotheses, references


def command_line(folder: Path, lines: tuple[list[str], list[str]], *options: str) -> Any:
    for name, side in zip(("hyp", "ref"), lines, strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in side), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-w", "6", "-f", "json"]
    run = subprocess.run([*command, *options], cwd=folder, capture_output=True, check=True)
    return json.loads(run.stdout)


def test_scores_are_those_of_the_sacrebleu_command(
    lines: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    tokenised = tuple([lc_norm_tok(line, "de") for line in side] for side in lines)
    bleu, chrf, ter = command_line(tmp_path, lines, "-m", "bleu", "chrf", "ter")
    expected = {
        "bleu": bleu,
        "bleu_lc": command_line(tmp_path, lines, "-lc"),
        "bleu_lc_tok": command_line(tmp_path, tokenised, "--tokenize", "none", "--force"),
        "chrf": chrf,
        "ter": ter,
        "chrf_pp": command_line(tmp_path, lines, "-m", "chrf", "--chrf-word-order", "2"),
    }
    assert set(expected) == set(METRICS)
    for name, metric in METRICS.items():
        result = metric(*lines, "de")
        assert result.score == pytest.approx(expected[name]["score"], abs=1e-6), name
        # The command prints the signature's parts as keys of their own.
        parts = dict(part.split(":") for part in result.signature.split("|"))
        assert parts == {key: expected[name][key] for key in parts}, name
    assert len({round(expected[name]["score"], 4) for name in METRICS}) == len(METRICS)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("bleu", BLEU()), ("bleu_lc", BLEU(lowercase=True)), ("chrf", CHRF()), ("ter", TER())],
)
def test_score_and_interval_are_sacrebleus(
    name: str, metric: Any, lines: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    hypotheses, references = lines
    result = METRICS[name](hypotheses, references, "de")
    public = metric.corpus_score(hypotheses, [references], n_bootstrap=1000)
    assert result.score == pytest.approx(public.score, abs=1e-12)
    low, high = result.interval()
    assert (high - low) / 2 == pytest.approx(public._ci, abs=1e-4)  # sacreBLEU sums in float32


@pytest.mark.parametrize("name", METRICS)
def test_interval_holds_the_score_and_is_reproducible(
    name: str, lines: tuple[list[str], list[str]]
) -> None:
    first, second = METRICS[name](*lines, "de"), METRICS[name](*lines, "de")
    low, high = first.interval()
    assert low < first.score < high
    assert (low, high) == second.interval()
    assert first.interval(seed=1) != (low, high)


@pytest.mark.parametrize("name", METRICS)
def test_more_sentences_make_the_interval_narrower(name: str) -> None:
    few, many = (METRICS[name](*corpus(3, size), "de").interval() for size in (40, 640))
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])


@pytest.mark.parametrize("name", METRICS)
def test_perfect_and_empty_hypotheses(name: str, lines: tuple[list[str], list[str]]) -> None:
    references = lines[1]
    best, worst = (0.0, 100.0) if name == "ter" else (100.0, 0.0)
    perfect = METRICS[name](references, references, "de")
    assert perfect.score == pytest.approx(best)
    assert perfect.interval() == (pytest.approx(best), pytest.approx(best))
    silent = METRICS[name]([""] * len(references), references, "de")
    assert silent.score == worst
    assert silent.interval() == (worst, worst)
    assert METRICS[name](["   "] * len(references), references, "de").score == worst


@pytest.mark.parametrize("name", METRICS)
def test_empty_references_are_scored(name: str) -> None:
    result = METRICS[name](["", "Ein Hund läuft im Gras ."], ["", ""], "de")
    assert result.score == (100.0 if name == "ter" else 0.0)


@pytest.mark.parametrize("name", METRICS)
def test_trailing_space_and_line_breaks_change_nothing(
    name: str, lines: tuple[list[str], list[str]]
) -> None:
    hypotheses, references = lines
    clean = METRICS[name](hypotheses, references, "de").score
    assert METRICS[name](hypotheses, [f"{line} \t\n" for line in references], "de").score == clean
    assert METRICS[name]([f"{line}\r\n" for line in hypotheses], references, "de").score == clean
    broken = [line.replace(" ", "\n", 1) for line in hypotheses]
    assert METRICS[name](broken, references, "de").score == clean


@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_scored_is_refused(name: str) -> None:
    with pytest.raises(DragomanError, match=r"2 hypotheses .* 3 references"):
        METRICS[name](["a", "b"], ["a", "b", "c"], "de")
    with pytest.raises(DragomanError, match="0 hypotheses"):
        METRICS[name]([], [], "de")


def test_case_counts_for_bleu_alone() -> None:
    references = ["Ein Mann mit Hut liest eine Zeitung.", "Zwei Hunde laufen über das Gras."]
    lowered = [line.lower() for line in references]
    scores = {name: METRICS[name](lowered, references, "de").score for name in METRICS}
    assert scores["bleu"] < 60
    assert scores["bleu_lc"] == pytest.approx(100)
    assert scores["bleu_lc_tok"] == pytest.approx(100)


def test_quotation_marks_count_for_all_but_bleu_lc_tok() -> None:
    references = ["Auf dem Schild steht „Bitte nicht stören“ in Rot."]
    hypotheses = ['Auf dem Schild steht "Bitte nicht stören" in Rot.']
    assert METRICS["bleu_lc_tok"](hypotheses, references, "de").score == pytest.approx(100)
    assert METRICS["bleu"](hypotheses, references, "de").score < 90


def test_bleu_lc_tok_follows_the_target_language_and_says_so() -> None:
    # In French l' is one token, in German the apostrophe is a token of its own.
    hypotheses, references = ["l'eau est froide ici"], ["l'air est froide ici"]
    french = METRICS["bleu_lc_tok"](hypotheses, references, "fr")
    german = METRICS["bleu_lc_tok"](hypotheses, references, "de")
    assert french.statistics[0, 0] == 5  # the hypothesis' length
    assert german.statistics[0, 0] == 6
    assert "'fr'" in french.preprocessing
    assert METRICS["bleu"](hypotheses, references, "fr").preprocessing == ""


def test_resampling_draws_every_sentence_equally_often() -> None:
    sentences, samples = 50, 1000
    sums = bootstrap_sums(np.eye(sentences), samples)
    assert sums.shape == (samples, sentences)
    assert (sums.sum(axis=1) == sentences).all()
    # The mean of 1000 binomial(50, 1/50) counts has a standard deviation of about 0.031.
    assert np.abs(sums.mean(axis=0) - 1).max() < 0.15
