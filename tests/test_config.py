"""The schema: what every key means, what is refused, and what a run's name follows from."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyruns
from dragoman.config import (
    MODELS,
    Config,
    CorpusConfig,
    DataConfig,
    TransformerConfig,
    source_tag,
    walk,
)
from dragoman.config import key as config_key
from dragoman.errors import DragomanError
from dragoman.settings import (
    accepted_names,
    fingerprint,
    fixed_keys,
    from_dict,
    known_keys,
    load,
    save,
    to_dict,
    validate,
)


def whole(model: str = "transformer") -> Config:
    data = DataConfig(corpora=[CorpusConfig()])
    made = Config(data=data, model=MODELS[model]())
    made.model.tie_embeddings = "none"
    return made


LEAVES = {
    path: item
    for schema in MODELS.values()
    for path, item, _ in walk(Config(data=DataConfig(corpora=[CorpusConfig()]), model=schema()))
}
FREE = {
    "data.cache",
    "device",
    "threads",
    "run_name",
    "checkpoint_dir",
    "train.max_steps",
    "train.validate_every",
    "train.checkpoint_every",
    "train.keep",
    "train.patience",
    "train.resume_from",
    "train.dry_run",
    "log.every",
    "log.tensorboard",
    "log.trackers",
    "log.samples",
    "log.figures",
    "data.held_out",
    "evaluation.tokenize",
    "log.graph",
    "log.profile_steps",
}


@pytest.mark.parametrize("name", MODELS)
def test_every_default_is_in_its_range(name: str) -> None:
    validate(whole(name))


def other(value: Any, item: dataclasses.Field[Any]) -> Any:
    """Return a value that differs and is of the right type."""
    if names := accepted_names(item):
        return next((name for name in names if name != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, dict):
        return {"extra": "name"}
    return 7 if value is None and "int" in str(item.type) else f"{value}x"


NUMBERS = [path for path, item in LEAVES.items() if str(item.type).startswith(("int", "float"))]
PATHS = [path for path, item in LEAVES.items() if item.metadata["path"] and path != "data.files"]


def with_value(path: str, value: Any) -> dict[str, Any]:
    """Return the plain data of a whole config in which one key has a value."""
    data = to_dict(whole("rnn" if path in known_keys(whole("rnn")) else "transformer"))
    section: Any = data
    *outer, last = path.split(".")
    for name in outer:
        section = section[int(name)] if name.isdigit() else section[name]
    section[last] = value
    return data


@pytest.mark.parametrize("path", NUMBERS)
def test_no_key_takes_a_number_that_would_overflow_or_vanish(path: str) -> None:
    for value in [10**20] if "int" in str(LEAVES[path].type) else [1e39, 1e-39]:
        with pytest.raises(DragomanError, match="is out of range, expected"):
            from_dict(with_value(path, value))


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_expanded_and_never_empty(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = {key: value for key, _, value in walk(from_dict(with_value(path, "~/here")))}
    assert found[path] == "/home/me/here"
    for value in ("", "  ", "a\0b"):
        with pytest.raises(DragomanError, match=f"{path}: '.*' is not a path"):
            from_dict(with_value(path, value))


def test_files_are_expanded_and_never_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    files = from_dict(with_value("data.files", {"train": "~/t.{lang}", "val": "v"})).data.files
    assert files == {"train": "/home/me/t.{lang}", "val": "v"}
    with pytest.raises(DragomanError, match=r"data\.files: '' is not a path"):
        from_dict(with_value("data.files", {"train": ""}))


@dataclasses.dataclass
class Newer(TransformerConfig):
    """The Transformer of a later version."""

    gate: str = config_key("new", "a later key", before="as ever")
    size: int = config_key(3, "another", low=1)


def test_a_key_that_a_later_version_adds_renames_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = fingerprint(whole())
    monkeypatch.setitem(MODELS, "transformer", Newer)
    later = whole()
    assert fingerprint(later) == now
    later.model.size = 4
    assert fingerprint(later) != now


def test_a_key_missing_from_a_saved_config_means_what_was_done_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(whole(), tmp_path / "config.yaml")
    monkeypatch.setitem(MODELS, "transformer", Newer)
    old = load(tmp_path / "config.yaml")
    assert (old.model.gate, old.model.size) == ("as ever", 3)
    assert from_dict(to_dict(whole())).model.gate == "new"
    plain = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert from_dict(plain).model.gate == "new"  # typed today
    save(whole(), tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml").model.gate == "new"


def test_what_is_never_a_default_value_is_in_the_fingerprint() -> None:
    two = whole()
    two.data.corpora.append(CorpusConfig())
    found = {fingerprint(whole()), fingerprint(whole("rnn")), fingerprint(two)}
    assert len(found) == 3


@pytest.mark.parametrize("model", MODELS)
def test_the_fingerprint_ignores_exactly_the_free_keys(model: str) -> None:
    base = whole(model)
    base.data.corpora[0].source = "files"  # named data sets may lie anywhere
    before = fingerprint(base)
    ignored = set()
    for path, item, value in walk(base):
        changed = copy.deepcopy(base)
        section: Any = changed
        *outer, last = path.split(".")
        for name in outer:
            section = section[int(name)] if name.isdigit() else getattr(section, name)
        setattr(section, last, other(value, item))
        if getattr(section, last) != value and fingerprint(changed) == before:
            ignored.add(path)
    assert ignored == FREE


def test_named_data_sets_are_known_wherever_they_lie() -> None:
    moved = whole()
    moved.data.root = "/elsewhere"
    assert fingerprint(moved) == fingerprint(whole())
    moved.data.corpora[0].source = "files"
    here = copy.deepcopy(moved)
    here.data.root = "/here"
    assert fingerprint(moved) != fingerprint(here)


def test_the_fingerprint_is_the_same_for_equal_configs_however_made(tmp_path: Path) -> None:
    save(whole(), tmp_path / "config.yaml")
    assert fingerprint(load(tmp_path / "config.yaml")) == fingerprint(whole())
    assert len(fingerprint(whole())) == 8
    int(fingerprint(whole()), 16)


@pytest.mark.parametrize("model", MODELS)
def test_save_and_load(model: str, tmp_path: Path) -> None:
    made = whole(model)
    made.data.files = {"train": "größe.{lang}"}
    made.data.corpora = [CorpusConfig(tag="<2en>", weight=0.5), CorpusConfig(src="fr")]
    save(made, tmp_path / "config.yaml")
    assert load(tmp_path / "config.yaml") == made
    assert fixed_keys(load(tmp_path / "config.yaml")) == fixed_keys(made)


def test_plain_data_round_trip() -> None:
    assert from_dict(to_dict(whole())) == whole()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.lr", -1.0, "train.lr: -1.0 is out of range, expected above 0"),
        ("train.lr", float("nan"), "train.lr: nan is not a finite number"),
        ("train.lr", "fast", "train.lr"),
        ("train.max_steps", 1.5, "train.max_steps"),
        ("train.max_steps", 0, "train.max_steps: 0 is out of range, expected at least 1"),
        ("seed", 2**31, "expected at most 2147483647"),
        ("model.dropout", 1.0, "model.dropout: 1.0 is out of range, expected at most 0.99"),
        ("model.norm", "prae", "model.norm: 'prae' is not accepted, expected pre or post; did you"),
        ("model.num_heads", 3, "model.num_heads: 3 heads do not divide model.d_model=256"),
        ("model.d_model", None, "model.d_model"),
        ("train", None, "train"),
        ("model", 3, "model: expected a mapping"),
        ("model", {"name": ["rnn"]}, "model.name"),
        ("model", {"name": "rn"}, "did you mean 'rnn'"),
        ("data.corpora", None, "data.corpora"),
        ("data.corpora", [], "data.corpora: at least one"),
        ("data.corpora", [3], "corpora"),
        ("data.src", "../x", "data.src: '../x' is not accepted, expected a language code"),
        ("data.src", False, "data.src: 'False' is not accepted, expected a language code such as"),
        ("data.corpora", [{"tgt": "x" * 33}], "data.corpora.0.tgt: 'xxx"),
        ("data.validation_split", "../../victim/pwned", "data.validation_split: '../../victim/"),
        ("data.corpora", [{"split": "a/b"}], "data.corpora.0.split: 'a/b' is not accepted"),
        ("data.files", {"..": "x.{lang}"}, "data.files: '..' is not accepted, expected the name"),
        ("data.tgt", "de", "data.tgt: source and target are both 'de'"),
        ("device", "gpu", "device: 'gpu' is not accepted, expected auto, cpu, cuda or cuda:<n>"),
        ("run_name", "a/b", "run_name: 'a/b' is not accepted, expected a folder name"),
        ("run_name", "x" * 300, "expected a folder name of up to 200 characters"),
        ("train.resume_from", "last", "expected best or step-<n>"),
        (
            "train.warmup_steps",
            4000,
            "train.warmup_steps: 4000 must be less than train.schedule_steps=4000, where the",
        ),
        (
            "train",
            {"teacher_forcing_schedule": "linear", "teacher_forcing_draw": "batch"},
            "train.teacher_forcing_draw: batch only works with model=rnn",
        ),
        (
            "data.tokenizer",
            {"kind": "spacy", "sampling_alpha": 0.1},
            "data.tokenizer.sampling_alpha: only for kind=sentencepiece, not spacy",
        ),
        (
            "data.augment",
            {"upper": 0.5, "title": 0.3, "lower": 0.3},
            "data.augment: upper, title and lower add up to 1.1, expected at most 1",
        ),
        ("data.augment.typos", 1.5, "1.5 is out of range, expected at most 1"),
        ("data.src", "fr", "data.src, data.tgt: fr-en is validated, but data.corpora trains only"),
        (
            "data",
            {"corpora": [{}, {"src": "fr"}], "tokenizer": {"kind": "spacy"}},
            "data.corpora has de, fr as src; use sentencepiece",
        ),
        (
            "data.corpora",
            [{"split": "val"}, {}],
            "data.corpora.0.split: 'val' is data.validation_split, which must not be trained on",
        ),
        (
            "data.corpora",
            [{}, {"tgt": "fr"}],
            "data.corpora.1.tag: de is translated to en and to fr; tags such as <2fr> must",
        ),
        ("data.columns", ["fr", "cs"], "data.columns: ['fr', 'cs'] are not the two languages of"),
        (
            "train",
            {"average_best": 3, "validate_every": 400, "checkpoint_every": 300},
            "train.average_best: needs train.validate_every=400 to be a multiple of",
        ),
        ("train", {"risk": 1.0, "r_drop": 2.0}, "train.r_drop: has no effect with train.risk=1"),
        ("decode.length_penalty", 1000, "1000.0 is out of range, expected at most 10"),
        ("decode.temperature", 1e-39, "1e-39 is out of range, expected at least 0.001"),
        ("decode.min_length", 23, "decode.min_length: 23 tokens are too many, since a source of"),
        ("threads", 10**9, "threads: 1000000000 is out of range, expected at most 1024"),
        ("train.accumulate", 10**12, "expected at most 10000"),
        ("model.d_model", 10**9, "model.d_model: 1000000000 is out of range, expected at most"),
        ("trian", {}, "there is no key 'trian'; did you mean 'train"),
        ("train.lrr", 1, "there is no key 'train.lrr'; did you mean 'train.lr'?"),
    ],
)
def test_refused(key: str, value: Any, words: str) -> None:
    data = to_dict(whole())
    section = data
    *outer, last = key.split(".")
    for name in outer:
        section = section[name]
    section[last] = value
    with pytest.raises(DragomanError) as caught:
        from_dict(data, origin="here")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_said_at_once() -> None:
    made = whole()
    made.train.lr, made.train.max_steps, made.decode.beam_size = -1, 0, 0
    with pytest.raises(DragomanError) as caught:
        validate(made)
    assert all(key in str(caught.value) for key in ("train.lr", "max_steps", "beam_size"))


junk = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers(),
                                                         max_size=2),
)  # fmt: skip


@given(path=st.sampled_from([*sorted(LEAVES), "data", "train", "data.tokenizer"]), value=junk)
@settings(max_examples=40, deadline=None)
def test_whatever_stands_in_a_config_is_taken_or_refused(path: str, value: Any) -> None:
    with contextlib.suppress(DragomanError):
        from_dict(with_value(path, value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping"),
        ("- 1\n- 2\n", "expected a mapping"),
        ("a: [1\n", "not a readable config"),
        ("\x00", "not a readable config"),
        ("? [1, 2]\n: 3\n", "config.yaml"),
        ("2020-01-01: 3\n", "there is no key '2020-01-01'"),
        ("seed: ${oc.env:HOME}\n", "must not contain interpolations"),
        ('seed: "\\x24{oc.env:HOME}"\n', "must not contain interpolations"),
        ("_target_: os.system\n", "there is no key '_target_'"),
        ("model: {_target_: os.system, name: rnn}\n", "there is no key 'model._target_'"),
        ("seed: !!python/object/apply:os.getcwd []\n", "not a readable config"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases (*name) are not accepted"),
        ("seed: 2001-13-45\n", "not a readable config (month must be in 1..12)"),
        ("seed: 2001-12-14\n", "seed"),
        (f"seed: {'9' * 5000}\n", "not a readable config"),
        (f"seed: {'[' * 5000}\n", "nested too deeply"),
        (f"{' ' * 2**20}seed: 1\n", "larger than 1,048,576 bytes"),
        ("model: {d_model: 1000000000}\n", "model.d_model: 1000000000 is out of range"),
        ("seed: 1\nseed2: &x 1\n", "there is no key 'seed2'"),
    ],
)
def test_a_saved_config_is_data_and_nothing_else(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DragomanError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_only_files_are_read(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "config.yaml")
    with pytest.raises(DragomanError, match=r"config\.yaml: not a readable config \("):
        load(tmp_path / "config.yaml")


def test_a_missing_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DragomanError, match="is this a run folder"):
        load(tmp_path / "config.yaml")


def test_saving_fails_in_one_line_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    save(whole(), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DragomanError, match=r"config\.yaml: cannot be written \(No space left"):
        save(tinyruns.config(tmp_path), path)
    assert path.read_bytes() == before


def test_the_tag_of_evaluation_is_the_one_of_training() -> None:
    corpora = [CorpusConfig(tag="<2en>"), CorpusConfig(src="fr", tag="<fr>")]
    data = DataConfig(corpora=corpora)
    assert source_tag(data) == "<2en>"
    data.src = "fr"
    assert source_tag(data) == "<fr>"
    assert source_tag(DataConfig(corpora=[CorpusConfig()])) is None


@pytest.mark.parametrize("tags", [(None, "<bt>"), ("<bt>", None), ("<bt>", "<ft>", None)])
def test_what_is_translated_is_not_said_to_be_synthetic(tags: tuple[str | None, ...]) -> None:
    assert source_tag(DataConfig(corpora=[CorpusConfig(tag=tag) for tag in tags])) is None


def test_known_keys_are_those_of_the_saved_file(tmp_path: Path) -> None:
    save(whole(), tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert {key.split(".")[0] for key in known_keys(whole())} == saved.keys()
    assert to_dict(whole()) == saved


@pytest.mark.parametrize(
    ("change", "fixed"),
    [
        ({"schedule": "plateau"}, {"validate_every"}),
        ({"average_last": 3}, {"checkpoint_every"}),
        ({"average_best": 3}, {"validate_every", "checkpoint_every"}),
    ],
)
def test_when_to_validate_and_save_is_fixed_where_it_decides_the_weights(
    change: dict[str, Any], fixed: set[str]
) -> None:
    base = whole()
    for name, value in change.items():
        setattr(base.train, name, value)
    for name in ("validate_every", "checkpoint_every"):
        other = copy.deepcopy(base)
        setattr(other.train, name, 77)
        assert (fingerprint(other) != fingerprint(base)) == (name in fixed)
