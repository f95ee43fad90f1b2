"""The command line of ``train.py``: what Hydra would refuse in many lines is refused in one."""

from __future__ import annotations

import pytest

from dragoman.compose import MOST_JOBS, _jobs, _parse, check_command_line, compose_config, options
from dragoman.config import RNNConfig, TransformerConfig
from dragoman.errors import DragomanError
from tinyruns import CONFIGS

REFUSED = {
    "misspelt key": ("train.lrr=1", "there is no key 'train.lrr'; did you mean 'train.lr'?"),
    "misspelt section": ("trian.lr=1", "there is no key 'trian.lr'; did you mean 'train.lr'?"),
    "key with plus": ("+train.foo=1", "there is no key 'train.foo'; did you mean"),
    "key with two plus": ("++train.foo=1", "there is no key 'train.foo'; did you mean"),
    "new section": ("++foo.bar=1", "there is no key 'foo'"),
    "misspelt group": ("modle=rnn", "there is no key 'modle'; did you mean 'model'?"),
    "misspelt choice": (
        "model=rn",
        "model=rn: there is no such model, expected rnn or transformer; did you mean 'rnn'?",
    ),
    "misspelt data set": ("data=multi3k", "did you mean 'multi30k'?"),
    "misspelt experiment": ("+experiment=transfomer", "did you mean 'transformer'?"),
    "strange experiment": ("+experiment=qqq", "there is no such experiment, expected"),
    "experiment without plus": ("experiment=transformer", "+experiment=transformer"),
    "no experiment": ("+experiment=null", "expected experiment=NAME"),
    "group with plus": ("+model=rnn", "name it without a plus: model=rnn"),
    "group left empty": ("train=null", "train=null: expected train=NAME"),
    "architecture by its key": ("model.name=rnn", "choose the architecture with model=rnn"),
    "word for a number": ("train.lr=abc", "train.lr=abc: Value 'abc'"),
    "fraction for a whole number": ("train.max_steps=1.5", "train.max_steps=1.5: Value '1.5'"),
    "list for a number": ("train.max_steps=[1,2]", "could not be converted to Integer"),
    "null for a number": ("train.max_steps=null", "is not Optional"),
    "nothing for a number": ("train.lr=", "could not be converted to Float"),
    "no truth value": ("data.tokenizer.joint=maybe", "is not a valid bool"),
    "not finite": ("train.lr=inf", "train.lr: inf is not a finite number"),
    "out of range": ("model.dropout=1", "model.dropout: 1.0 is out of range, expected at most"),
    "unknown word": ("model.positions=rotari", "did you mean 'rotary'?"),
    "indivisible heads": ("model.num_heads=3", "3 heads do not divide model.d_model=256"),
    "entry of a list": ("data.corpora=[{foo:1}]", "data.corpora: there is no key 'foo' in it"),
    "entry of a mapping": ("data.files={a:1}", "+data.files.NAME=VALUE adds an entry"),
    "scalar for a list": ("data.corpora=3", "data.corpora=3"),
    "scalar for a section": ("data.tokenizer=spacy", "data.tokenizer=spacy"),
    "sweep without -m": ("seed=1,2", "Ambiguous value for argument 'seed=1,2'; add -m"),
    "not an override": ("foo", "'foo': not an override, expected key=value"),
    "nothing to override": ("=3", "'=3': not an override, expected key=value"),
    "open bracket": ("train.lr=[1", "train.lr: '[1' cannot be read; quote the values in it"),
    "braces without quotes": (
        "data.files.val=val.{lang}",
        "data.files.val: 'val.{lang}' cannot be read; quote it: 'data.files.val=\"val.{lang}\"'",
    ),
    "index in brackets": ("data.corpora[0].weight=2", "cannot be read"),
    "unknown option": ("--foo", "--foo: there is no such option"),
    "unknown interpolation": ("train.lr=${train.nothing}", "train.nothing"),
    "missing variable": ("checkpoint_dir=${oc.env:NOT_SET}", "NOT_SET"),
    "deleted key": ("~train.lr", "does not support deletion"),
    "language that is a path": ("data.tgt=a/b", "data.tgt: 'a/b' is not a language code"),
    "three_way without joint": ("data.tokenizer.joint=false", "three_way needs a joint"),
    "device": ("device=gpu", "expected auto, cpu, cuda or cuda:<n>"),
}


@pytest.mark.parametrize(("override", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(override: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        check_command_line(CONFIGS, [override])
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train.lr=1e-4", "model.dropout=0"],
        ["model=rnn", "model.cell=gru"],
        ["+experiment=transformer", "seed=3"],
        ["-m", "seed=1,2,3"],
        ["--multirun", "+experiment=transformer,rnn_additive", "seed=range(1,3)"],
        ["-m", "train.lr=interval(1e-4,1e-3)", "train.warmup_steps=int(interval(1,9))"],
        ["-m", "model.dropout=tag(log,interval(0.01,0.1))"],
        ["--cfg", "job", "seed=2"],
        ["--help"],
        ["data=files", '+data.files.extra="extra.{lang}"'],
        ["data.corpora.0.weight=2"],
        ["hydra.verbose=false"],
        ["run_name=null"],
    ],
)
def test_accepted(arguments: list[str]) -> None:
    check_command_line(CONFIGS, arguments)


def test_an_interval_is_tried_at_its_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check_command_line(CONFIGS, ["-m", "model.dropout=interval(0.1,1.2)"])
    assert "model.dropout: 1.2 is out of range" in capsys.readouterr().err


def test_a_sweeper_that_is_not_installed_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragoman.compose.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        check_command_line(CONFIGS, ["-m", "hydra/sweeper=optuna", "seed=1,2"])
    assert "dragoman[search]" in capsys.readouterr().err


def test_one_wrong_job_of_a_sweep_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check_command_line(CONFIGS, ["-m", "seed=1,2", "train.lr=1e-3,0"])
    assert "train.lr: 0.0 is out of range" in capsys.readouterr().err


def test_two_experiments_are_one_too_many() -> None:
    with pytest.raises(DragomanError, match="there is another experiment already"):
        compose_config(CONFIGS, ["+experiment=tutorial", "+experiment=transformer"])


def test_a_huge_sweep_is_not_tried_whole() -> None:
    jobs = _jobs([_parse("seed=range(0,100)"), _parse("data.max_length=range(10,99)")])
    assert len(jobs) == MOST_JOBS


def test_the_experiment_is_named_and_its_values_taken() -> None:
    config, name = compose_config(CONFIGS, ["+experiment=gru_general", "train.lr=0.5"])
    assert name == "gru_general"
    assert isinstance(config.model, RNNConfig)
    assert (config.model.cell, config.model.attention, config.train.lr) == ("gru", "general", 0.5)
    assert compose_config(CONFIGS, [])[1] is None


def test_two_keys_turn_the_direction_round() -> None:
    config, _ = compose_config(CONFIGS, ["data.src=en", "data.tgt=de"])
    assert isinstance(config.model, TransformerConfig)
    assert [(corpus.src, corpus.tgt) for corpus in config.data.corpora] == [("en", "de")]


def test_options_are_the_files_of_a_group() -> None:
    assert options(CONFIGS, "data") == ["captions", "files", "multi30k"]
