"""Several references: read from numbered files, scored together, shown side by side."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU

import dragoman
import tinyruns
from dragoman.cli import main
from dragoman.config import CorpusConfig, DataConfig
from dragoman.data.corpora import evaluation_keys, read_pairs, training_text
from dragoman.data.sources import iter_pairs
from dragoman.data.store import keys_of
from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS
from dragoman.evaluation.moses import lc_norm_tok

HYPOTHESES = ["a small dog runs.", "the old woman sings in the park.", "two boys play."]
FIRST = ["a little dog runs.", "an old woman sings in a park.", "Two boys are playing."]
SECOND = ["a small dog is running.", "the old lady is singing in the park.", "two boys play ball."]
BOTH = list(zip(FIRST, SECOND, strict=True))


def scored_by_sacrebleu(folder: Path, *options: str, tokens: bool = False) -> Any:
    for name, lines in (("hyp", HYPOTHESES), ("first", FIRST), ("second", SECOND)):
        texts = [lc_norm_tok(line, "en") for line in lines] if tokens else lines
        (folder / name).write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "first", "second", "-i", "hyp", "-w", "6"]
    done = subprocess.run([*command, "-f", "json", *options], cwd=folder, capture_output=True)
    return json.loads(done.stdout)


def test_scores_are_those_of_the_sacrebleu_command(tmp_path: Path) -> None:
    bleu, chrf, ter = scored_by_sacrebleu(tmp_path, "-m", "bleu", "chrf", "ter")
    expected = {
        "bleu": bleu,
        "bleu_lc": scored_by_sacrebleu(tmp_path, "-lc"),
        "bleu_lc_tok": scored_by_sacrebleu(tmp_path, "--tokenize", "none", "--force", tokens=True),
        "chrf": chrf,
        "ter": ter,
        "chrf_pp": scored_by_sacrebleu(tmp_path, "-m", "chrf", "--chrf-word-order", "2"),
    }
    for name, metric in METRICS.items():
        result = metric(HYPOTHESES, BOTH, "en")
        assert result.score == pytest.approx(expected[name]["score"], abs=1e-6), name
        assert result.signature.startswith("nrefs:2|")
        assert result.score != metric(HYPOTHESES, FIRST, "en").score
        alone = metric(HYPOTHESES, [(line,) for line in FIRST], "en")
        assert (alone.score, alone.signature) == (
            metric(HYPOTHESES, FIRST, "en").score,
            metric(HYPOTHESES, FIRST, "en").signature,
        )


def test_lines_may_have_different_numbers_of_them() -> None:
    found = METRICS["bleu"](HYPOTHESES, [FIRST[0], BOTH[1], BOTH[2]], "en")
    streams = [FIRST, [None, *SECOND[1:]]]
    assert found.score == pytest.approx(BLEU().corpus_score(HYPOTHESES, streams).score)
    assert found.signature.startswith("nrefs:var|")


def write(folder: Path, name: str, lines: list[str]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def own(folder: Path, **files: str) -> DataConfig:
    corpus = CorpusConfig(source="files", src="de", tgt="en")
    return DataConfig(
        name="files",
        root=str(folder),
        cache=str(folder / "cache"),
        corpora=[corpus],
        files=files,
    )


def test_numbered_files_are_references_of_the_same_lines(tmp_path: Path) -> None:
    sources = ["eins", "zwei", "drei"]
    write(tmp_path, "test.de", sources)
    write(tmp_path, "test.en.0", FIRST)
    write(tmp_path, "test.en.1.gz", SECOND)
    write(tmp_path, "test.en.3", FIRST)  # 2 is not there
    data = own(tmp_path, test="test.{lang}", train="train.{lang}")
    assert read_pairs(data, "test") == (sources, BOTH)
    write(tmp_path, "test.en", SECOND)  # what is named itself comes first
    assert read_pairs(data, "test") == (sources, SECOND)
    (tmp_path / "test.en").unlink()
    write(tmp_path, "test.en.1.gz", SECOND[:2])
    with pytest.raises(DragomanError, match=r"test\.de has 3 lines but .*test\.en\.1\.gz has 2"):
        read_pairs(data, "test")
    # A source is one line: several are not chosen from.
    data.src, data.tgt = "en", "de"
    with pytest.raises(DragomanError, match=r"test\.en: no such file"):
        read_pairs(data, "test")


def test_all_of_them_leak_and_all_of_them_teach(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path, f"{split}.de", ["eins", "zwei", "drei"])
        write(tmp_path, f"{split}.en.0", FIRST)
        write(tmp_path, f"{split}.en.1", SECOND)
    data = own(tmp_path, train="train.{lang}", val="val.{lang}")
    keys = set(evaluation_keys(data)["val"].tolist())
    assert keys == set(keys_of(["eins", "zwei", "drei", *FIRST, *SECOND]).tolist())
    pairs = list(iter_pairs(data, data.corpora[0]))
    assert pairs[:3] == [("eins", FIRST[0]), ("eins", SECOND[0]), ("zwei", FIRST[1])]
    assert len(training_text(data, data.corpora[0]).verdicts) == 6


def test_a_run_is_scored_by_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tinyruns.write_pairs(tmp_path / "text")
    for split in ("val", "test"):
        lines = (text / f"{split}.en").read_text("utf-8").splitlines()
        (text / f"{split}.en").rename(text / f"{split}.en.0")
        write(text, f"{split}.en.1", [f"see: {line}" for line in lines])
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        tinyruns.train_run(tinyruns.config(tmp_path, run_name=f"run-{seed}", seed=seed))
        capsys.readouterr()
        compare = ["--compare", "run-1"] if seed == 2 else []
        words = ["evaluate", f"run-{seed}", "--split", "test", "--samples", "1", *compare]
        assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("  reference    ") == 2
    assert "  reference    see: " in said
    scores = json.loads((tmp_path / "checkpoints/run-2/scores.test.json").read_text("utf-8"))
    assert scores["bleu"]["signature"].startswith("nrefs:2|case")
    tests = scores["comparisons"][0]["tests"]
    assert {row["signature"][:11] for row in tests} == {"nrefs:2|bs:", "nrefs:2|ar:"}
    assert main(["report", "run-2", "--split", "test", "--compare", "run-1"]) == 0
    page = (tmp_path / "checkpoints/run-2/report.test.html").read_text("utf-8")
    shown = page.count("<dt>translation</dt>")
    assert shown
    assert page.count("<dt>reference</dt>") == 2 * shown


def test_robustness_varies_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tinyruns.write_pairs(tmp_path / "text")
    (text / "test.en").rename(text / "test.en.0")
    write(text, "test.en.1", (text / "test.en.0").read_text("utf-8").splitlines())
    monkeypatch.chdir(tmp_path)
    tinyruns.train_run(tinyruns.config(tmp_path, run_name="run"))
    assert main(["evaluate", "run", "--split", "test", "--robust"]) == 0
    twice = json.loads((tmp_path / "checkpoints/run/scores.test.json").read_text("utf-8"))
    (text / "test.en.1").unlink()
    assert main(["evaluate", "run", "--split", "test", "--robust"]) == 0
    once = json.loads((tmp_path / "checkpoints/run/scores.test.json").read_text("utf-8"))
    assert twice["robustness"] == once["robustness"]  # the same line twice is no other reference
    assert len(once["robustness"]) > 5


def test_a_program_hands_over_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    monkeypatch.chdir(tmp_path)
    tinyruns.train_run(tinyruns.config(tmp_path, run_name="run"))
    translator = dragoman.load("run")
    done = dragoman.evaluate(translator, ["Ein Hund."], [["A dog.", "A hound."]])
    assert done.bleu.signature.startswith("nrefs:2|")
    with pytest.raises(DragomanError, match="references: line 1: 3 is not a string"):
        dragoman.evaluate(translator, ["Ein Hund."], [["A dog.", 3]])  # type: ignore[list-item]
    with pytest.raises(DragomanError, match=r"references: line 1: \[\] is not a string"):
        dragoman.evaluate(translator, ["Ein Hund."], [[]])
