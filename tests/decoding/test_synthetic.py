"""`dragoman backtranslate`: which lines are kept, what is written, going on, using it."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tinyruns
from dragoman.cli import main
from dragoman.compose import compose_config
from dragoman.config import CorpusConfig, DataConfig
from dragoman.data.lines import read_lines
from dragoman.data.sources import iter_pairs
from dragoman.decoding import synthetic
from dragoman.files import held

WORDS = ["ein", "kleiner", "hund", "läuft", "im", "park", "am", "strand", "frau", "spielt"]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tinyruns.trained(tmp_path_factory)
    monkeypatch.chdir(folder)
    return folder


def text(folder: Path, count: int = 30) -> tuple[list[str], list[str]]:
    """Write monolingual text in two files; return their names and the lines worth keeping."""
    lines = [" ".join(WORDS[n % 7 : n % 7 + 2 + n % 3]) + f" {WORDS[n % 10]}" for n in range(count)]
    lines = list(dict.fromkeys(lines))
    (folder / "one.txt").write_text("\n".join([*lines[:9], "", lines[2].upper(), "  "]) + "\n")
    with gzip.open(folder / "two.txt.gz", "wt") as stream:
        test = next(iter(read_lines(Path("text/test.de"))))
        long = "hund " * 60
        stream.write("\n".join([test.upper(), *lines[9:], long, f" {lines[4]}  "]) + "\n")
    return [str(folder / "one.txt"), str(folder / "two.txt.gz")], lines


def command(inputs: list[str], output: Path, *more: str) -> int:
    return main(["backtranslate", "one", "--input", *inputs, "--output", str(output), *more])


def test_it_translates_every_line_worth_it_and_says_how_to_train_on_the_pairs(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, lines = text(tmp_path)
    assert command(inputs, tmp_path / "new" / "pairs", "decode.method=greedy") == 0
    out = capsys.readouterr().out
    kept = list(read_lines(tmp_path / "new" / "pairs.de"))
    assert kept == lines
    joined = tmp_path / "joined.txt"
    joined.write_text("\n".join(lines) + "\n")
    assert main(["translate", "one", "--input", str(joined), "decode.method=greedy"]) == 0
    assert list(read_lines(tmp_path / "new" / "pairs.en")) == capsys.readouterr().out.splitlines()
    counts = json.loads((tmp_path / "new" / "pairs.json").read_text())["counts"]
    assert counts == {"read": len(lines) + 6, "empty": 2, "repeated": 2, "too_long": 1,
                      "held_out": 1, "kept": len(lines)}  # fmt: skip
    # The overrides it prints are ones that training takes.
    overrides = shlex.split(next(row for row in out.splitlines() if "data.corpora=" in row))
    config, _ = compose_config(tinyruns.CONFIGS, ["data=files", *overrides])
    assert (config.data.src, config.data.tgt) == ("en", "de")
    pairs = list(iter_pairs(config.data, config.data.corpora[1]))
    assert [tgt for _, tgt in pairs] == kept


def kept_out(data: DataConfig) -> set[str]:
    stand_in: Any = SimpleNamespace(config=SimpleNamespace(data=data))
    return synthetic.held_out(stand_in)[0]


def test_a_test_set_that_the_target_language_lacks_is_left_out(tmp_path: Path) -> None:
    for split in ("train", "val", "test_2017_flickr"):
        for language in ("en", "de") if split == "test_2017_flickr" else ("en", "cs"):
            (tmp_path / f"{split}.{language}").write_text(f"{split}\n")
    corpus = CorpusConfig(source="multi30k", src="en", tgt="cs")
    data = DataConfig(name="multi30k", root=str(tmp_path), src="en", tgt="cs", corpora=[corpus])
    assert kept_out(data) == {"val", "test_2017_flickr"}


def test_the_training_text_of_a_student_of_made_pairs_is_not_held_out(tmp_path: Path) -> None:
    splits = ("train", "val", "test", "made")
    for split in splits:
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text(f"{split}\n")
    corpus = CorpusConfig(source="files", src="de", tgt="en", split="made")
    data = DataConfig(
        name="files", root=str(tmp_path), src="de", tgt="en", corpora=[corpus],
        files={split: f"{split}.{{lang}}" for split in splits},
    )  # fmt: skip
    assert kept_out(data) == {"val", "test"}


def test_an_ensemble_makes_pairs_to_distil_it(home: Path, tmp_path: Path) -> None:
    inputs, lines = text(tmp_path)
    made = {}
    for runs in (["one"], ["one", "two"]):
        output = tmp_path / "-".join(runs)
        words = ["--input", *inputs, "--output", str(output)]
        assert main(["backtranslate", *runs, *words]) == 0
        made[len(runs)] = list(read_lines(output.with_name(f"{output.name}.en")))
    joined = tmp_path / "joined.txt"
    joined.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.txt"
    assert main(["translate", "one", "two", "--input", str(joined), "--output", str(out)]) == 0
    assert made[2] == list(read_lines(out))
    assert made[2] != made[1]


def test_it_goes_on_where_it_was_stopped(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(synthetic, "CHUNK", 4)
    inputs, lines = text(tmp_path)
    assert command(inputs, tmp_path / "whole") == 0
    assert command(inputs, tmp_path / "parts") == 0
    files = {code: (tmp_path / f"whole.{code}").read_bytes() for code in ("de", "en")}
    # As if killed: one file ahead of the other, which ends within a line.
    ahead, behind = (tmp_path / f"parts.{code}" for code in ("de", "en"))
    ahead.write_bytes(b"".join(files["de"].splitlines(keepends=True)[:8]))
    behind.write_bytes(b"".join(files["en"].splitlines(keepends=True)[:6]) + b"a litt")
    capsys.readouterr()
    assert command(inputs, tmp_path / "parts") == 0
    assert "going on after 6" in capsys.readouterr().out
    assert ahead.read_bytes() == files["de"]
    assert behind.read_bytes() == files["en"]
    assert len(lines) > 8


def test_pairs_of_other_weights_are_not_mixed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, _ = text(tmp_path)
    assert command(inputs, tmp_path / "pairs") == 0
    before = (tmp_path / "pairs.en").read_bytes()
    (tmp_path / "one").symlink_to(home / "checkpoints" / "two")  # the same name, another seed
    capsys.readouterr()
    words = ["--input", *inputs, "--output", str(tmp_path / "pairs")]
    assert main(["backtranslate", str(tmp_path / "one"), *words]) == 2
    assert "pairs.json: the pairs there were made of another run" in capsys.readouterr().err
    assert (tmp_path / "pairs.en").read_bytes() == before


def test_two_processes_do_not_write_the_same_pairs(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, lines = text(tmp_path)
    with held(tmp_path / ".pairs.lock", ""):
        assert command(inputs, tmp_path / "pairs") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'pairs'}: another process is writing there")
    assert error.count("\n") == 1
    assert command(inputs, tmp_path / "pairs") == 0
    with (tmp_path / "pairs.de").open("a") as stream:
        stream.write("ein hund\n")
    assert command(inputs, tmp_path / "pairs") == 2
    assert f"pairs.de: has more lines than the {len(lines)} to" in capsys.readouterr().err


def test_pairs_of_another_search_are_not_mixed(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, _ = text(tmp_path)
    assert command(inputs, tmp_path / "pairs") == 0
    before = (tmp_path / "pairs.en").read_bytes()
    capsys.readouterr()
    assert command(inputs, tmp_path / "pairs", "decode.beam_size=3") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'pairs.json'}: the pairs there were made of")
    assert error.count("\n") == 1
    assert (tmp_path / "pairs.en").read_bytes() == before
    assert command([str(tmp_path / "none.txt")], tmp_path / "other") == 2
    assert "none.txt: no such file" in capsys.readouterr().err


def test_files_that_it_did_not_make_are_left_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.de").write_text("ein hund\n")
    assert command([str(tmp_path / "mine.de")], tmp_path / "mine") == 2
    assert "was not made by this command" in capsys.readouterr().err
    assert (tmp_path / "mine.de").read_text() == "ein hund\n"
    (tmp_path / "notes.json").write_text("not JSON\n")
    assert command([str(tmp_path / "mine.de")], tmp_path / "notes") == 2
    assert "notes.json: the pairs there" in capsys.readouterr().err
    assert command([str(tmp_path / "mine.de")], Path(".")) == 2
    assert "--output: '.' is a folder" in capsys.readouterr().err


def test_without_the_validation_lines_nothing_is_made(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, _ = text(tmp_path)
    assert command(inputs, tmp_path / "pairs", "--root", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --root: validation and test lines are left out, but ")
    assert error.count("\n") == 1
    assert not (tmp_path / "pairs.de").exists()
    for side in ("de", "en"):  # validation is there, the test set is not
        (tmp_path / f"val.{side}").write_text((home / "text" / f"val.{side}").read_text())
    assert command(inputs, tmp_path / "pairs", "--root", str(tmp_path)) == 0
    assert "not compared with test: not there" in capsys.readouterr().out
