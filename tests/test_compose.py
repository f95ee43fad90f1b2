"""The words of a training command: what is wrong with them is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman.compose import MOST_JOBS, Composer, compose_config, composer
from dragoman.config import RNNConfig, TransformerConfig
from dragoman.errors import DragomanError
from tinyruns import CONFIGS

REFUSED = {
    "misspelt key": ("train.lrr=1", "there is no key 'train.lrr'; did you mean 'train.lr'?"),
    "key in other words": ("train.learning_rate=1", "did you mean 'train.lr'?"),
    "key in other words, no section": ("learning_rate=1", "did you mean 'train.lr'?"),
    "key without section": ("lr=0.1", "there is no key 'lr'; did you mean 'train.lr'?"),
    "one of two without section": ("attention_dropout=0", "did you mean 'model.attention_dropout'"),
    "misspelt section": ("trian.lr=1", "there is no key 'trian.lr'; did you mean 'train.lr'?"),
    "key with plus": ("+train.foo=1", "there is no key 'train.foo'; did you mean"),
    "key with two plus": ("++train.foo=1", "there is no key 'train.foo'; did you mean"),
    "new section": ("++foo.bar=1", "there is no key 'foo.bar'"),
    "key that is there with plus": ("+train.lr=1", "remove + prefix: 'train.lr=1'"),
    "misspelt group": ("modle=rnn", "there is no key 'modle'; did you mean 'model'?"),
    "misspelt choice": (
        "model=rn",
        "model=rn: there is no such model, expected rnn or transformer; did you mean 'rnn'?",
    ),
    "misspelt data set": ("data=multi3k", "did you mean 'multi30k'?"),
    "misspelt experiment": ("+experiment=transfomer", "did you mean 'transformer'?"),
    "strange experiment": ("+experiment=qqq", "there is no such experiment, expected"),
    "experiment without plus": ("experiment=transformer", "+experiment=transformer"),
    "no experiment": ("+experiment=null", "expected one experiment=NAME"),
    "several choices": ("model=[rnn,transformer]", "expected one model=NAME"),
    "group with plus": ("+model=rnn", "Multiple values for model"),
    "group left empty": ("train=null", "train=null: expected one train=NAME"),
    "group somewhere else": ("data@foo=files", "data@foo"),
    "architecture by its key": ("model.name=rnn", "choose the architecture with model=rnn"),
    "key of the other architecture": ("model.cell=gru", "model.cell is for model=rnn"),
    "word for a number": ("train.lr=abc", "train.lr=abc: 'abc' is not accepted, expected a number"),
    "fraction for a whole number": ("train.max_steps=1.5", "'1.5' is not accepted, expected a who"),
    "list for a number": ("train.max_steps=[1,2]", "expected a whole number"),
    "null for a number": ("train.max_steps=null", "expected a whole number"),
    "nothing for a number": ("train.lr=", "expected a number"),
    "no truth value": ("data.tokenizer.joint=maybe", "expected true or false"),
    "mapping for text": ("+data.files.val={a: b}", "is not a path"),
    "not finite": ("train.lr=inf", "train.lr: inf is not a finite number"),
    "out of range": ("model.dropout=1", "model.dropout: 1.0 is out of range, expected at most"),
    "unknown word": ("model.positions=rotari", "did you mean 'rotary'?"),
    "indivisible heads": ("model.num_heads=3", "3 heads do not divide model.d_model=256"),
    "entry of a list": ("data.corpora=[{foo:1}]", "data.corpora': there is no key 'foo'"),
    "entry of a mapping": ("data.files={a:1}", "data.files.a=VALUE adds an entry"),
    "value of an entry": ("data.corpora.0.weight=x", "'x' is not accepted, expected a number"),
    "scalar for a list": ("data.corpora=3", "expected a list"),
    "scalar for a section": ("data.tokenizer=spacy", "'spacy' is not accepted, expected a mapping"),
    "sweep without -m": ("seed=1,2", "seed=1,2: contains several values; add -m"),
    "comma without -m": (
        "data.root=/a,b",
        "data.root=/a,b: contains a comma or a function; quote it: data.root='\"/a,b\"', or add -m",
    ),
    "not an override": ("foo", "'foo': not an override, expected key=value"),
    "nothing to override": ("=3", "'=3': not an override, expected key=value"),
    "open bracket": ("train.lr=[1", "train.lr: '[1' cannot be read; quote the values in it"),
    "braces without quotes": (
        "data.files.val=val.{lang}",
        "data.files.val: 'val.{lang}' cannot be read; quote it: 'data.files.val=\"val.{lang}\"'",
    ),
    "index in brackets": ("data.corpora[0].weight=2", "cannot be read"),
    "unknown interpolation": ("train.lr=${train.nothing}", "train.nothing"),
    "missing variable": ("checkpoint_dir=${oc.env:NOT_SET}", "NOT_SET"),
    "deleted key": ("~train.lr", "does not support deletion"),
    "language that is a path": (
        "data.tgt=a/b",
        "data.tgt: 'a/b' is not accepted, expected a language code",
    ),
    "three_way without joint": ("data.tokenizer.joint=false", "three_way needs a joint"),
    "device": ("device=gpu", "expected auto, cpu, cuda or cuda:<n>"),
    "unknown launcher": ("hydra/launcher=nosuch", "no such hydra/launcher, expected basic"),
    "unknown key of Hydra's": ("hydra.foo=1", "there is no key 'hydra.foo'"),
    "import of a callback": ("+hydra.callbacks.x._target_=a.B", "may not say what is imported"),
    "callback in a mapping": ("hydra.callbacks={x: {_target_: a.B}}", "may not say what is impo"),
    "import by logging": (
        "+hydra.job_logging.handlers.x.class=a.B",
        "may not say what is imported",
    ),
    "import by a sweeper": ("hydra.sweeper._target_=a.B", "may not say what is imported"),
    "import by a search": ("hydra.sweeper.custom_search_space=a.b", "may not say what is imported"),
    "folder elsewhere": ("hydra.searchpath=[pkg://this]", "may not say what is imported"),
}


@pytest.fixture(scope="module")
def composing() -> Iterator[Composer]:
    with composer(CONFIGS) as ready:
        yield ready


@pytest.mark.parametrize(("override", "words"), REFUSED.values(), ids=REFUSED)
def test_refused_in_one_line(override: str, words: str, composing: Composer) -> None:
    with pytest.raises(DragomanError) as caught:
        composing.config([override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("overrides", [
    [],
    ["train.lr=1e-4", "model.dropout=0"],
    ["model=rnn", "model.cell=gru"],
    ["+experiment=transformer", "seed=3"],
    ["data=files", '+data.files.extra="extra.{lang}"'],
    ["data=files", '++data.files.extra="extra.{lang}"'],
    ["data=files", 'data.files.extra="extra.{lang}"'],
    ["data=files", "data.pairs=a.tsv", "data.files.val=[b.tsv,c.tsv]"],
    ["data=files", "data.pairs=a.tsv", "+data.files.val=[b.tsv,c.tsv]"],
    ["data=files.yaml"],
    ["data={max_length: 9}"],
    ["data.corpora.0.weight=2"],
    ["++train.lr=1"],
    ["hydra.verbose=false", "hydra/job_logging=default"],
    ["run_name=null"],
])  # fmt: skip
def test_accepted(overrides: list[str], composing: Composer) -> None:
    composing.config(overrides)


@pytest.mark.parametrize("written", [
    "2024_01_15", "0.10", "10", "1_0", "1e5", "007", "true", "No", "nan", "+1", "-3",
    "a-2024", "2024-01-15", "'0.10'", '"1_0"',
])  # fmt: skip
def test_text_keeps_its_text(written: str, composing: Composer) -> None:
    config, _ = composing.config([f"run_name={written}", f"+data.files.extra={written}"])
    assert config.run_name == config.data.files["extra"] == written.strip("'\"")


def test_text_in_lists_and_sweeps_keeps_its_text() -> None:
    words = ["data.corpora=[{split: 0.10, weight: 2, tag: null}, {split: a}]", "data.src=no"]
    with pytest.raises(DragomanError, match="no-en is validated"):
        compose_config(CONFIGS, words)
    more = ["data.columns=[0.10,de]", "checkpoint_dir=${oc.env:HOME}/1_0"]
    config, _ = compose_config(CONFIGS, [*words[:1], *more])
    assert config.data.columns == ["0.10", "de"]
    assert [corpus.split for corpus in config.data.corpora] == ["0.10", "a"]
    assert config.data.corpora[0].weight == 2
    assert config.data.corpora[0].tag is None
    assert config.checkpoint_dir == str(Path.home() / "1_0")
    with composer(CONFIGS) as composing:
        jobs = composing.jobs([composing.parse("run_name=0.10,null,x_1,1_0")])
        assert [composing.config(job)[0].run_name for job in jobs] == ["0.10", None, "x_1", "1_0"]


def test_a_sweeper_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Composer, "options", lambda self, group: ["basic"])
    with pytest.raises(DragomanError, match=r"expected basic; pip install 'dragoman\[search\]'"):
        compose_config(CONFIGS, ["hydra/sweeper=optuna"])


@pytest.mark.parametrize(
    "group", ["+experiment=tutorial +experiment=demo", "data=files data=files"]
)
def test_two_choices_in_a_group_are_one_too_many(group: str) -> None:
    with pytest.raises(DragomanError, match=r"(experiment|data): given 2 times"):
        compose_config(CONFIGS, group.split())


def test_a_huge_sweep_is_not_tried_whole() -> None:
    with composer(CONFIGS) as composing:
        words = ["seed=range(0,100)", "data.max_length=range(10,99)"]
        assert len(composing.jobs([composing.parse(word) for word in words])) == MOST_JOBS


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
    with composer(CONFIGS) as composing:
        assert composing.options("data") == ["captions", "files", "multi30k"]
        assert composing.options("nothing") == []
