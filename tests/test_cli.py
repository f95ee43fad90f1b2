"""The ``dragoman`` command and ``train.py`` as a user types them, on runs trained once."""

from __future__ import annotations

import gzip
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import tinyruns
import tinytokens
from dragoman import __version__
from dragoman.cli import main, parser
from dragoman.commands import arrived
from dragoman.config import TokenizerConfig
from dragoman.data.captions import captions
from dragoman.data.lines import read_lines
from dragoman.data.tokenizers import EOS, UNK
from dragoman.decoding.forced import attention_weights
from dragoman.decoding.translator import load_translator
from dragoman.evaluation.robustness import VARIANTS
from dragoman.evaluation.scores import read_hypotheses, search_words
from dragoman.reporting.attention import spelling, words_of_tokens
from dragoman.runs import Run
from dragoman.training.distributed import Ranks
from dragoman.training.trainer import Trainer

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tinyruns.trained(tmp_path_factory)
    monkeypatch.chdir(folder)
    return folder


def typed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def sources(home: Path) -> list[str]:
    return list(read_lines(home / "text" / "test.de"))


def translated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, *words: str
) -> list[str]:
    typed(text, monkeypatch)
    capsys.readouterr()
    assert main(["translate", *words]) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n")
    return out[:-1].split("\n")


def test_evaluate_writes_scores_and_hypotheses(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "one", "--split", "test", "--output", str(tmp_path), "--samples", "2"]
    assert main([*words, "decode.beam_size=3", "decode.length_penalty=0.7"]) == 0
    found = json.loads((tmp_path / "scores.test.json").read_text(encoding="utf-8"))
    for metric in ("bleu", "bleu_lc", "bleu_lc_tok", "chrf", "ter"):
        low, high = found[metric]["interval"]
        assert low <= found[metric]["score"] <= high
        assert "version:" in found[metric]["signature"]
    assert "tok:none" in found["bleu_lc_tok"]["signature"]
    assert "case:lc" in found["bleu_lc"]["signature"]
    assert found["decoding"]["beam_size"] == 3
    assert found["decoding"]["length_penalty"] == 0.7
    assert found["counts"]["sentences"] == len(sources(home))
    assert found["counts"]["runs"] == ["one"]
    assert found["counts"]["checkpoint"] == [Run(home / "checkpoints" / "one").checkpoint().name]
    hypotheses = read_hypotheses(tmp_path / "hypotheses.test.txt")
    assert len(hypotheses) == len(sources(home))
    said = capsys.readouterr().out
    assert found["bleu"]["signature"] in said
    assert said.count("  translation  ") == 2
    assert f"  translation  {hypotheses[1]}" in said


def test_evaluate_writes_into_the_run_folder_and_takes_the_validation_split(home: Path) -> None:
    assert main(["evaluate", str(home / "checkpoints" / "one")]) == 0
    assert (home / "checkpoints" / "one" / "scores.val.json").is_file()


def test_compare(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "two", "--split", "test"]) == 0
    capsys.readouterr()
    words = ["evaluate", "one", "--split", "test", "--output", str(tmp_path), "--compare", "two"]
    assert main(words) == 0
    table = capsys.readouterr().out.partition("paired against two")[2]
    assert "paired bootstrap" in table
    assert "approximate randomization" in table
    assert all(metric in table for metric in ("bleu", "chrf", "ter"))
    assert "another search" not in table
    beside = json.loads((tmp_path / "scores.test.json").read_text())["comparisons"][0]
    assert {test["metric"] for test in beside["tests"]} >= {"bleu", "chrf", "ter"}
    assert (beside["run"], beside["decoding"]["beam_size"]) == ("two", 2)
    # Where this run is searched in another way than the other one was, that is said.
    assert main([*words, "decode.method=greedy"]) == 0
    said = capsys.readouterr().out
    assert (
        "paired against two (beam 2, length penalty gnmt 1; step-16, weights as validated; " in said
    )
    assert "another search" in said


def test_an_exploratory_evaluation_leaves_the_runs_scores_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "checkpoints" / "two", folder := tmp_path / "two")
    assert main(["evaluate", str(folder), "--split", "test"]) == 0
    kept = {path.name: path.read_bytes() for path in folder.glob("*.test.*")}
    assert "its own scores stay" not in capsys.readouterr().out
    for words, name in (
        (["decode.method=greedy"], "test.method=greedy"),
        (
            ["decode.length_penalty=0.5", "decode.beam_size=3"],
            "test.beam_size=3.length_penalty=0.5",
        ),
        (["--checkpoint", "step-8"], "test.step-8"),
        (["--checkpoint", "last"], "test"),  # here the last is the best
    ):
        assert main(["evaluate", str(folder), "--split", "test", *words]) == 0
        said = capsys.readouterr().out
        assert f"written to {folder}/scores.{name}.json and hypotheses.{name}.txt" in said
        assert ("its own scores stay as they are" in said) == (name != "test")
        assert len(read_hypotheses(folder / f"hypotheses.{name}.txt")) == len(sources(home))
    read = {name: (folder / name).read_bytes() for name in kept}
    assert read["hypotheses.test.txt"] == kept["hypotheses.test.txt"]


def test_a_search_key_that_does_nothing_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (["decode.top_k=5"], "decode.top_k: is for decode.method=sample or mbr, not beam"),
        (["decode.method=sample", "decode.beam_size=3"], "decode.beam_size: is for decode.method="),
        (
            ["decode.method=mbr", "decode.length_penalty=3"],
            "decode.length_penalty: is for decode.met",
        ),
        (["decode.method=sample", "decode.samples=3"], "decode.samples: is for decode.method=mbr"),
    ):
        assert main(["translate", "one", *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {said}")
        assert error.count("\n") == 1


def test_translations_without_words_are_told(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output", str(tmp_path), "decode.max_length_ratio=0", "decode.max_length_extra=1"]
    assert main(["evaluate", "one", *words]) == 0
    counts = json.loads((tmp_path / "scores.val.json").read_text())["counts"]
    said = f"warning: {counts['empty_hypotheses']} of {counts['sentences']} translations are empty"
    assert (said in capsys.readouterr().err) == bool(counts["empty_hypotheses"])


def test_an_ensemble_of_a_run_with_itself_is_the_run(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(sources(home)) + "\n"
    alone = translated(capsys, monkeypatch, text, "one")
    assert translated(capsys, monkeypatch, text, "one", "one") == alone


def test_an_ensemble_is_evaluated_into_a_folder_of_its_own(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    assert main(["evaluate", "one", "two", "--output", str(folder)]) == 0
    counts = json.loads((folder / "scores.val.json").read_text())["counts"]
    assert counts["runs"] == ["one", "two"]


@pytest.mark.parametrize("run", ["one", "words"])
def test_translate_keeps_order_and_gives_a_line_for_a_line(
    run: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["Hund.", "", *sources(home), "   ", "Ein kleiner hund läuft im park."]
    text = "\n".join(lines) + "\n"
    found = translated(capsys, monkeypatch, text, run)
    assert len(found) == len(lines)
    assert found[1] == found[-2] == ""
    # Batch mates and order change nothing.
    turned = translated(capsys, monkeypatch, "\n".join(lines[::-1]), run, "decode.batch_size=3")
    assert turned[::-1] == found


def test_translate_from_file_to_file(home: Path, tmp_path: Path) -> None:
    packed = tmp_path / "in.gz"
    packed.write_bytes(gzip.compress("Hund.\nFrau läuft.".encode()))
    out = tmp_path / "out.txt"
    words = ["translate", "one", "--input", str(packed), "--output", str(out)]
    assert main([*words, "decode.method=greedy"]) == 0
    assert out.read_text(encoding="utf-8").count("\n") == 2


def test_n_best(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("decode.beam_size=4", "decode.nbest=3")
    found = translated(capsys, monkeypatch, "Hund.\nFrau läuft.\n", "one", *options)
    rows = [line.split("\t") for line in found]
    assert [row[0] for row in rows] == ["1"] * 3 + ["2"] * 3
    for number in ("1", "2"):
        scores = [float(row[1]) for row in rows if row[0] == number]
        assert scores == sorted(scores, reverse=True)
    best = translated(capsys, monkeypatch, "Hund.\nFrau läuft.\n", "one", "decode.beam_size=4")
    assert best == [rows[0][2], rows[3][2]]


def test_sampling_follows_its_seed(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(sources(home)) + "\n"

    def drawn(*options: str) -> list[str]:
        return translated(capsys, monkeypatch, text, "one", "decode.method=sample", *options)

    assert drawn() == drawn("decode.seed=1")
    assert drawn() != drawn("decode.seed=2")
    assert drawn("decode.top_k=1") == translated(
        capsys, monkeypatch, text, "one", "decode.method=greedy"
    )


def test_other_checkpoints_and_weights(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in (["--checkpoint", "last"], ["--checkpoint", "step-8"], ["--weights", "raw"]):
        words = ["evaluate", "one", *more, "--output", str(tmp_path)]
        assert main(words) == 0
        counts = json.loads((tmp_path / "scores.val.json").read_text())["counts"]
        if more[0] == "--checkpoint":
            assert counts["checkpoint"] == ["step-16" if more[1] == "last" else "step-8"]
        else:
            assert counts["weights"] == "raw"


def attentions(home: Path, run: str) -> list[tuple[str, int]]:
    translator = load_translator([Run(home / "checkpoints" / run)])
    batch = translator.batch([[4, 3]], [[5, 3]])
    weights = attention_weights(translator.models[0], batch)
    return [(name, head) for name, w in weights.items() for head in range(w.shape[1])]


@pytest.mark.parametrize("run", ["one", "words"])
def test_a_picture_of_every_layer_and_head(run: str, home: Path, tmp_path: Path) -> None:
    wanted = attentions(home, run)
    assert {name for name, _ in wanted} == (
        {"decoder.attention"}
        if run == "words"
        else {"encoder.0.self", "decoder.0.self", "decoder.0.cross"}
    )
    words = ["attention", run, "--sentence", "Ein Hund läuft."]
    for name, head in wanted:
        path = tmp_path / f"{name}.{head}.png"
        more = ["--layer", name, "--head", str(head), "--output", str(path)]
        assert main([*words, *more]) == 0
        assert path.read_bytes().startswith(PNG)
    for name in {name for name, _ in wanted}:
        assert main([*words, "--layer", name, "--output", str(tmp_path / "all.png")]) == 0


def test_a_picture_lands_in_the_run_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attention", "one", "--target", "A dog runs."]) == 0
    said = capsys.readouterr().out
    assert "translation  A dog runs." in said
    assert f"source       {next(read_lines(home / 'text' / 'val.de'))}" in said
    path = home / "checkpoints" / "one" / "attention.png"
    assert path.read_bytes().startswith(PNG)


def test_an_over_long_sentence_is_drawn_as_far_as_the_model_reads(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["attention", "one", "--sentence", "hund " * 60, "--output", str(tmp_path / "a.png")]
    assert main(words) == 0
    assert "1 lines were translated in parts" in capsys.readouterr().err


def test_alignment_error_rate_on_the_embedded_corpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tinyruns.config(
        tmp_path, data__name="captions", data__tokenizer__vocab_size=150, log__tensorboard=False
    )
    run = tinyruns.run_of(config)
    run.create()
    Trainer(config, run, Ranks()).save()  # untrained: what is asked is that it can be measured
    (run.folder / "config.yaml").write_bytes((run.checkpoint() / "config.yaml").read_bytes())
    assert main(["attention", str(run.folder), "decode.method=greedy"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("alignment error rate on val: ")
    rate = float(said.split()[5])
    assert 50 < rate <= 100
    assert (run.folder / "attention.png").is_file()


def test_unknown_words_are_aligned_where_they_stand() -> None:
    known = captions("train")[:60]
    config = TokenizerConfig(kind="spacy", lowercase=True, min_freq=4)
    pairs = ((pair.de, pair.en) for pair in known)
    tokenizer, _ = tinytokens.train_tokenizers(config, pairs, tags=["<2en>"])
    unknown = 0
    for pair in captions("val"):
        ids = [tokenizer.tag_id("<2en>"), *tokenizer.encode(pair.de), EOS]
        unknown += ids.count(UNK)
        words = words_of_tokens(spelling(tokenizer, tokenizer.tokens(ids), pair.de), pair.de_words)
        assert words == [-1, *range(len(pair.de_words)), -1]
    assert unknown > 100


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["--help"], ["evaluate", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
    said = capsys.readouterr().out
    assert __version__ in said
    assert "--compare" in said


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_train_sweeps_resumes_and_writes_nothing_elsewhere(tmp_path: Path) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    options: dict[str, Any] = {
        "run_name": None,
        "checkpoint_dir": "checkpoints",
        "data__root": "text",
        "data__cache": "cache",
        "train__max_steps": 2,
    }
    words = tinyruns.overrides(tmp_path, **options)
    program = str(tinyruns.ROOT / "train.py")
    done = tinyruns.call(program, "-m", "seed=1,2", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "checkpoints", "text"]
    runs = sorted(
        path for path in (tmp_path / "checkpoints").iterdir() if not path.name.startswith(".")
    )
    # No experiment: the name begins with the architecture's.
    assert [path.name[:20] for path in runs] == ["transformer-de-en-s1", "transformer-de-en-s2"]
    for seed, run in enumerate(runs, start=1):
        assert len(run.name) == len("transformer-de-en-s1-01234567")
        assert Run(run).checkpoint("last").name == "step-2"
        assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == seed
    before = everything(tmp_path)
    again = tinyruns.call(program, "seed=2", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr
    assert runs[1].name in again.stderr
    assert {name for name in everything(tmp_path) - before if "tfevents" not in name} == set()


def test_a_report_is_one_page_that_needs_nothing_else(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in ("one", "two"):
        assert main(["evaluate", run, "--split", "test"]) == 0
    page = tmp_path / "page.html"
    assert (
        main(["report", "one", "--split", "test", "--compare", "two", "--output", str(page)]) == 0
    )
    assert f"written to {page}" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    for source, hypothesis in zip(
        sources(home), read_hypotheses(home / "checkpoints/one/hypotheses.test.txt"), strict=True
    ):
        assert html.escape(source) in text
        assert html.escape(hypothesis) in text
    scores = json.loads((home / "checkpoints/one/scores.test.json").read_text())
    assert f"{scores['bleu']['score']:.2f}" in text
    assert scores["bleu"]["signature"] in text
    assert text.count("data:image/png;base64,") == 1 + 3
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "Beside two" in text
    assert "beam 2, length penalty gnmt 1; step-16, weights as validated." in text
    # A model may have been handed on without (some of) the text that it was trained on.
    corpus, again = home / "text" / "train.de", ["report", "one", "--split", "test"]
    corpus.rename(home / "text" / "elsewhere")
    assert main([*again, "--output", str(page)]) == 0
    (home / "text" / "elsewhere").rename(corpus)
    without = page.read_text(encoding="utf-8")
    assert f"Not counted: {corpus}: no such file" in without
    assert "times seen in training" in text
    assert "times seen in training" not in without
    assert "% of the source tokens are unknown to the model" in without
    written = (home / "checkpoints/one/hypotheses.test.txt").read_text("utf-8").count("<unk>")
    assert f"It wrote &lt;unk&gt; {written} times." in without
    assert main(["report", "one", "--split", "test", "decode.beam_size=1"]) == 2
    assert "report: shows translations that are there" in capsys.readouterr().err
    assert main(["report", "words", "--split", "test"]) == 2
    error = capsys.readouterr().err
    assert "scores.test.json: no such file; has this split been evaluated?" in error
    assert error.count("\n") == 1


def test_a_robustness_sheet_is_printed_written_and_reported(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    report = ["report", "one", "--split", "test", "--output", str(page)]
    assert main(["evaluate", "one", "--split", "test"]) == 0
    assert main(report) == 0
    assert "Robustness" not in page.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["evaluate", "one", "--split", "test", "--robust"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    scores = json.loads((home / "checkpoints/one/scores.test.json").read_text())
    clean, *others = scores["robustness"]
    assert (clean["text"], clean["score"]) == ("as it is", scores["bleu"]["score"])
    assert [row["text"] for row in others] == [*VARIANTS]
    table = said.out.partition("\ninput ")[2].splitlines()
    assert len(table) == 2 + len(VARIANTS)
    assert main(report) == 0
    text = page.read_text(encoding="utf-8")
    assert "<h2>Robustness</h2>" in text
    for row, line in zip(scores["robustness"], table[1:], strict=True):
        assert f"{row['score']:.2f}" in line
        assert f">{row['score']:.2f}</td>" in text
        assert f"<td>{row['text']}</td>" in text


def test_only_what_translates_the_same_is_compared(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "one", "--split", "test"]) == 0
    back = tmp_path / "back"  # one, as if it had been trained the other way round
    shutil.copytree(home / "checkpoints" / "one", back)
    for path in back.rglob("config.yaml"):
        saved = yaml.safe_load(path.read_text())
        saved["data"] |= {"src": "en", "tgt": "de"}
        saved["data"]["corpora"][0] |= {"src": "en", "tgt": "de"}
        path.write_text(yaml.safe_dump(saved))
    tagged = tmp_path / "tagged"
    shutil.copytree(home / "checkpoints" / "one", tagged)
    for path in tagged.rglob("config.yaml"):
        saved = yaml.safe_load(path.read_text())
        saved["data"]["corpora"][0]["tag"] = "<2en>"
        path.write_text(yaml.safe_dump(saved))
    short = tmp_path / "short"
    shutil.copytree(home / "checkpoints" / "one", short)
    (short / "hypotheses.test.txt").write_text("a dog\n")
    out = ["--split", "test", "--output", str(tmp_path / "out")]
    capsys.readouterr()
    for words, said in (
        (["translate", "one", str(back)], "translates other languages than checkpoints/one"),
        (["translate", "one", str(tagged)], "tagged: the tag before de-en is <2en>, that of check"),
        (
            ["evaluate", "one", *out, "--compare", str(back)],
            "back was trained to translate en-de",
        ),
        (["report", "one", *out, "--compare", str(short)], "these are not the translations that"),
        (["report", "one", "two", *out], "report: one run at a time, not 2"),
        (["attention", "one", "two"], "attention: one run at a time, not 2"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_an_output_is_not_emptied_for_an_input_that_is_not_there(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("ein hund\n")
    for name in ("none.txt", "kept.txt"):
        words = ["--input", str(tmp_path / name), "--output", str(kept)]
        assert main(["translate", "one", *words]) == 2
        assert kept.read_text() == "ein hund\n"
    assert "--output: " in capsys.readouterr().err
    assert main(["attention", "one", "--output", "."]) == 2
    assert capsys.readouterr().err == "error: .: is a folder, expected the name of a file\n"


def test_an_export_says_its_score_on_validation(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "one", "--format", "dragoman", "--output", str(tmp_path)]
    for search, name in (("beam_size=2", "val"), ("method=greedy", "val.method=greedy")):
        assert main(["evaluate", "one", f"decode.{search}"]) == 0
        assert main([*words, f"decode.{search}"]) == 0
        scores = json.loads((home / "checkpoints" / "one" / f"scores.{name}.json").read_text())
        said = f"BLEU {scores['bleu']['score']:.2f} on val ({search_words(scores['decoding'])}; "
        assert said in (tmp_path / "README.txt").read_text()
    assert "greedy search" in said
    assert main([*words, "--weights", "raw"]) == 0  # another choice than that of the scores
    assert "BLEU" not in (tmp_path / "README.txt").read_text()
    assert said not in capsys.readouterr().out.splitlines()[-2]


def test_paths_on_the_command_line_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    words = ["translate", "one", "--input=~/in", "--output=~/out", "--root=~/data"]
    found = parser().parse_args(words)
    assert (found.input, found.output, found.root) == (
        "/home/me/in",
        "/home/me/out",
        "/home/me/data",
    )


def test_what_has_arrived_is_translated_before_the_end(home: Path) -> None:
    """A coprocess waits for its answer before it says more."""
    words = ["-m", "dragoman", "translate", "one"]
    child = tinyruns.start(*words, cwd=home, stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    for line in sources(home)[:2]:
        child.stdin.write(f"{line}\n")
        child.stdin.flush()
        assert child.stdout.readline().endswith("\n")
    child.stdin.close()
    assert child.wait(timeout=60) == 0
    assert child.stdout.read() == ""


def test_lines_come_as_they_arrive_and_many_at_a_time() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as out:
        parts = arrived(stream)
        out.write(b"one\ntwo\nthr")
        assert next(parts) == [b"one\n", b"two\n"]
        out.write(b"ee\n")
        assert next(parts) == [b"three\n"]
        out.write(b"no end")
        out.close()
        assert list(parts) == [[b"no end"]]
    many = b"line\n" * 10_000
    assert [len(part) for part in arrived(io.BytesIO(many[:-1]), most=1 << 20)] == [10_000]
    assert sum(len(part) for part in arrived(io.BytesIO(many), most=100)) == 10_000


def test_a_terminal_without_the_letters_gets_their_codes(home: Path, tmp_path: Path) -> None:
    words = ["-m", "dragoman", "evaluate", "one", "--output", str(tmp_path), "--samples", "8"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=home,
        env={**tinyruns.environment(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    assert b"l\\xe4uft" in done.stdout


@pytest.mark.parametrize("problem", [MemoryError(), RuntimeError("can't allocate memory: 9 bytes")])
def test_no_memory_is_one_line(
    problem: Exception,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise problem

    monkeypatch.setattr("dragoman.decoding.translator.search", fail)
    typed("Ein hund läuft.\n", monkeypatch)
    assert main(["translate", "one"]) == 2
    assert capsys.readouterr().err.startswith("error: out of memory: lower decode.batch_size")


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_translated(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("dragoman.decoding.translator.search", None)  # not reached
    assert main(["evaluate", "one", "--output", str(tmp_path / "file" / "scores")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_words_that_are_no_runs_get_a_hint(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["translate", "one", "text/test.de"], "text/test.de: is a file, not a run; --input text/"),
        (["translate", "one", "lr=0.1"], "lr: only decode.* keys can be changed here"),
        (["evaluate", "oen"], "did you mean 'one'"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err


def test_a_run_with_an_equals_sign_is_a_run(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(home / "checkpoints" / "one", tmp_path / "checkpoints" / "lr=0.1")
    (run / "scores.val.json").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    assert main(["report", "lr=0.1", "--root", str(home / "text")]) == 2
    assert "lr=0.1/scores.val.json: no such file" in capsys.readouterr().err


def test_lines_are_numbered_through_all_parts_of_a_file(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["translate", "one", "--input", str(home / "text" / "test.de")]
    words += ["decode.method=sample", "decode.nbest=2"]
    found = []
    for most in (4096, 2):
        monkeypatch.setattr("dragoman.commands.MOST", most)
        assert main(words) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        found.append([(number, text) for number, _, text in rows])  # scores may differ in rounding
    assert found[0] == found[1]
    assert [number for number, _ in found[0][:5]] == ["1", "1", "2", "2", "3"]


def test_prepare_says_what_was_left_out_and_training_begins_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"Hund {n} läuft heute\tdog {n} runs today" for n in range(200)]
    rows += ["\tnothing", rows[0], "\x1b[31m 7\t8", "gleich\tgleich"]
    Path("pairs.tsv").write_text("\n".join(["de\ten", *rows]) + "\n", encoding="utf-8")
    words = ["data=files", "data.pairs=pairs.tsv", "data.clean.identical=true", "data.cache=cache",
             "data.clean.digits=true", "data.tokenizer.vocab_size=50"]  # fmt: skip
    assert main(["prepare", *words]) == 0
    said = capsys.readouterr().out
    assert "files train de->en: 204 pairs\n" in said
    for count, what in (
        *((1, "empty"), (1, "identical"), (1, "digits"), (1, "duplicates")),
        *((10, "held out for val"), (10, "held out for test")),
    ):
        assert re.search(rf"^ +{count}  {what}$", said, re.MULTILINE), what
    assert f"{'':15}gleich\n{'':15}gleich\n" in said
    assert "\\x1b[31m 7" in said
    assert "180 pairs are trained on (0 more are empty, 0 too long); vocabulary 50;" in said
    before = sorted(path.name for path in Path("cache").iterdir())
    tiny = ["train.max_steps=1", "model.d_model=16", "decode.max_length_ratio=0", "device=cpu"]
    assert main(["train", *words, *tiny, "log.tensorboard=false"]) == 0
    assert sorted(path.name for path in Path("cache").iterdir()) == before
    assert main(["prepare", "data=files", "data.pairs=nowhere.tsv"]) == 2
    assert "nowhere.tsv: no such file (data.pairs)" in capsys.readouterr().err
