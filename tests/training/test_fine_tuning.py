"""A run of both directions, and another that goes on with its vocabulary and weights in one."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

import tinyruns
from dragoman.cli import main
from dragoman.config import Config, CorpusConfig
from dragoman.decoding.translator import load_translator
from dragoman.evaluation.scores import read_hypotheses
from dragoman.launch import run_training
from dragoman.models.weights import read_tensors, weights_of
from dragoman.runs import Run
from dragoman.training.distributed import Ranks
from dragoman.training.trainer import Trainer

BOTH = [
    CorpusConfig("files", "de", "en", tag="<2en>"),
    CorpusConfig("files", "en", "de", tag="<2de>"),
]


def config(folder: Path, corpora: list[CorpusConfig], **changes: object) -> Config:
    return tinyruns.config(folder, data__corpora=[asdict(c) for c in corpora], **changes)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of both directions in it."""
    folder = tmp_path_factory.mktemp("both")
    tinyruns.write_pairs(folder / "text")
    options = {"train__max_steps": 40, "train__schedule_steps": 40, "train__batch_size": 400}
    tinyruns.train_run(config(folder, BOTH, run_name="both", model__dropout=0.0, **options))
    return folder


def test_another_pair_of_the_run_has_its_own_tag_and_files(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(both / "checkpoints" / "both")
    here = load_translator([Run(Path(run))])
    tags, found = set(), []
    for pair in ("de-en", "en-de"):
        words = ["evaluate", run, "--split", "test", "--pair", pair, "--output", str(tmp_path)]
        assert main(words) == 0
        label = "test" if pair == "de-en" else f"test.{pair}"  # the run's own pair is not said
        assert f"scores.{label}.json" in capsys.readouterr().out
        data = here.config.data
        data.src, data.tgt = pair.split("-")
        lines = (both / "text" / f"test.{data.src}").read_text("utf-8").splitlines()
        ours = [best[0].text for best in here.translate_lines(lines, here.config.decode)]
        assert read_hypotheses(tmp_path / f"hypotheses.{label}.txt") == ours
        tags.add(here.encode_line(lines[0])[0])
        found.append(ours)
    assert len(tags) == 2
    assert found[0] != found[1]
    assert main(["translate", run, "--pair", "de-fr"]) == 2
    error = capsys.readouterr().err
    assert "--pair: both was not trained to translate de-fr, expected de-en or en-de" in error


def test_columns_without_names_are_those_of_the_run_in_both_directions(
    both: Path, tmp_path: Path
) -> None:
    """A TSV without header line, asked for the other direction."""
    sides = [(both / "text" / f"test.{c}").read_text().splitlines() for c in ("de", "en")]
    rows = zip(*sides, strict=True)
    (tmp_path / "val.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    shutil.copytree(both / "checkpoints" / "both", tmp_path / "both")
    for path in (tmp_path / "both").rglob("config.yaml"):
        saved = yaml.safe_load(path.read_text())
        saved["data"]["files"]["val"] = "val.tsv"
        path.write_text(yaml.safe_dump(saved))
    where = ["--pair", "en-de", "--root", str(tmp_path), "--output", str(tmp_path)]
    assert main(["evaluate", str(tmp_path / "both"), *where]) == 0
    plain = ["--pair", "en-de", "--split", "test", "--output", str(tmp_path)]
    assert main(["evaluate", str(both / "checkpoints" / "both"), *plain]) == 0
    found = [tmp_path / f"hypotheses.{split}.en-de.txt" for split in ("val", "test")]
    assert found[0].read_bytes() == found[1].read_bytes()


def test_a_run_goes_on_with_another_ones_vocabulary_and_weights(
    both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Run(both / "checkpoints" / "both")
    tuned = config(
        both, BOTH[:1], run_name="tuned", train__max_steps=2,
        train__init_from=str(source.folder), data__tokenizer__from_run=str(source.folder),
    )  # fmt: skip
    run = tinyruns.run_of(tuned)
    run.create()
    made = Trainer(tuned, run, Ranks())
    weights = read_tensors(source.checkpoint("best") / "model.safetensors")
    assert all(torch.equal(weights[n], t) for n, t in weights_of(made.module).items())
    model = "tokenizer.model"
    assert run_training(tuned, None) == 0
    said = capsys.readouterr().err
    assert (
        f"begins with the weights of {source.folder} (de->en, {source.checkpoint().name}, w" in said
    )
    assert (run.checkpoint() / model).read_bytes() == (source.checkpoint() / model).read_bytes()
    # Trained on one direction alone, the vocabulary would have been another.
    alone = config(both, BOTH[:1], run_name="alone", train__max_steps=1)
    other = tinyruns.train_run(alone).checkpoint()
    assert (other / model).read_bytes() != (source.checkpoint() / model).read_bytes()


def test_a_vocabulary_made_in_another_way_is_refused(
    both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(both / "checkpoints" / "both")
    for changes, words in (
        ({"data__tokenizer__vocab_size": 70}, "vocab_size=80 there, 70 here"),
        ({"data__tokenizer__lowercase": True}, "lowercase=False there, True here"),
        ({"data__tokenizer__from_run": "nowhere"}, "nowhere: not a run folder"),
    ):
        changes = {"data__tokenizer__from_run": source, **changes}
        wrong = config(both, BOTH[:1], run_name="wrong", **changes)
        assert run_training(wrong, None) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error
        assert not Path(wrong.checkpoint_dir, "wrong", "config.yaml").exists()
        shutil.rmtree(Path(wrong.checkpoint_dir, "wrong"), ignore_errors=True)


def test_a_run_of_both_directions_is_compared_with_one_of_its_own_pair(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = both / "checkpoints"
    back = [CorpusConfig("files", "en", "de", tag="<2de>")]
    other = config(both, back, run_name="back", train__max_steps=1, data__src="en", data__tgt="de")
    tinyruns.train_run(other)
    assert main(["evaluate", str(runs / "back"), "--split", "test"]) == 0
    where = ["--split", "test", "--pair", "en-de"]
    there = [*where, "--output", str(tmp_path), "--compare", str(runs / "back")]
    assert main(["evaluate", str(runs / "both"), *there]) == 0
    assert "paired against back" in capsys.readouterr().out
    assert main(["report", str(runs / "both"), *where]) == 2
    assert "scores.test.en-de.json: no such file" in capsys.readouterr().err


def test_a_recurrent_run_of_both_directions_does_it_all_too(both: Path, tmp_path: Path) -> None:
    corpora = {"data__corpora": [asdict(corpus) for corpus in BOTH]}
    made = tinyruns.config(both, tinyruns.RNN, run_name="rnn", train__max_steps=4, **corpora)
    run = str(tinyruns.train_run(made).folder)
    for pair in ("de-en", "en-de"):
        src, tgt = pair.split("-")
        where, label = ["--pair", pair], "test" if pair == "de-en" else f"test.{pair}"
        assert main(["evaluate", run, "--split", "test", *where]) == 0
        assert main(["report", run, "--split", "test", *where]) == 0
        page = (Path(run) / f"report.{label}.html").read_text("utf-8")
        assert f"{src} to {tgt}, test" in page
        assert page.count("data:image/png;base64,") == 1 + 3
        assert "Not counted" not in page
        text, output = both / "text" / f"train.{src}", tmp_path / pair / "pairs"
        words = ["--input", str(text), "--output", str(output)]
        assert main(["backtranslate", run, *where, *words]) == 0
        sides = {c: (tmp_path / pair / f"pairs.{c}").read_text("utf-8") for c in (src, tgt)}
        kept = sides[src].splitlines()
        lines = dict.fromkeys(text.read_text("utf-8").splitlines())
        assert kept == [line for line in lines if line in set(kept)]
        assert len(sides[tgt].splitlines()) == len(kept) > 20
