"""YAML of the user's own: where it is found, and that it is data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from dragoman.compose import compose_config, composer
from dragoman.config import Config
from dragoman.errors import DragomanError
from dragoman.search_path import shipped_configs
from tinyruns import CONFIGS

Writer = Callable[..., Config]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """Write ``./configs/<name>``, compose ``words`` there and return the config."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str, *words: str) -> Config:
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
        return compose_config(CONFIGS, words)[0]

    return write


GLOBAL = "# @package _global_\n"
FILES = "defaults: [files, _self_]\n"

BROKEN = {
    "braces without quotes": (
        "files:\n  train: {lang}.train\n",
        "configs/data/mine.yaml, line 2: not YAML (expected <block end>",
    ),
    "tab": (
        "files:\n\ttrain: a\n",
        "configs/data/mine.yaml, line 2: not YAML (found character '\\t'",
    ),
    "open bracket": ("\ncolumns: [de,\n", "configs/data/mine.yaml, line 3: not YAML"),
    "key twice": (
        "src: de\nsrc: en\n",
        "configs/data/mine.yaml, line 2: not YAML (found dupl",
    ),
    "two documents": ("src: de\n---\nsrc: en\n", "configs/data/mine.yaml, line 2: not YAML"),
    "object": ("src: !!python/object:a.B {}\n", "configs/data/mine.yaml, line 1: not YAML"),
    "aliases": ("a: &a [1]\nb: *a\n", "configs/data/mine.yaml, line 2: not YAML (aliases are not"),
    "nested": ("[" * 3000, "configs/data/mine.yaml: cannot be read as YAML"),
    "list": ("- src\n", "configs/data/mine.yaml: expected a mapping"),
    "no UTF-8": ("src: \xff\n", "configs/data/mine.yaml: cannot be read as YAML"),
    "word for a number": (
        f"{FILES}max_length: long\n",
        "In 'data/mine': data.max_length: 'long' is not accepted, expected a whole number",
    ),
    "misspelt key": (
        f"{FILES}max_lenght: 9\n",
        "In 'data/mine': there is no key 'data.max_lenght'; did you mean 'data.max_length'?",
    ),
    "misspelt key of a corpus": (f"{FILES}corpora: [{{sorce: files}}]\n", "there is no key"),
    "defaults of another kind": ("defaults: 3\n", "Invalid defaults list in 'data/mine'"),
    "missing default": ("defaults: [nosuch]\n", "Could not load 'data/nosuch'"),
    "header": ("# @package\nsrc: de\n", "Expected header format"),
}


@pytest.mark.parametrize(("text", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_said_in_one_line(text: str, words: str, own: Writer) -> None:
    with pytest.raises(DragomanError) as caught:
        own("data/mine.yaml", text, "data=mine")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


IMPORTS = {
    "callback": (f"{GLOBAL}hydra: {{callbacks: {{x: {{_target_: a.B}}}}}}\n", "hydra.callbacks"),
    "callback without a class": (f"{GLOBAL}hydra: {{callbacks: {{x: 1}}}}\n", "hydra.callbacks"),
    "logging": (f"{GLOBAL}hydra: {{job_logging: {{root: {{'()': a.B}}}}}}\n", "hydra.job_logging"),
    "class of a handler": (
        f"{GLOBAL}hydra: {{hydra_logging: {{handlers: {{x: {{class: a.B}}}}}}}}\n",
        "hydra.hydra_logging",
    ),
    "launcher": (f"{GLOBAL}hydra: {{launcher: {{_target_: a.B}}}}\n", "hydra.launcher"),
    "sweeper": (f"{GLOBAL}hydra: {{sweeper: {{params: {{seed: '1,2'}}}}}}\n", "hydra.sweeper"),
    "search path": (f"{GLOBAL}hydra: {{searchpath: ['pkg://this']}}\n", "hydra.searchpath"),
    "package": ("# @package hydra.callbacks\nx: {y: 1}\n", "hydra.callbacks.x"),
    "longer package": ("# @package _global_.hydra.sweeper\nx: 1\n", "hydra.sweeper.x"),
    "package of a default": (f"{GLOBAL}defaults: ['/data@hydra.job_logging': files]\n", "defaults"),
    "argument anywhere": (f"{GLOBAL}data: {{files: {{_args_: a}}}}\n", "data.files._args_"),
    "target in a list": (f"{GLOBAL}data: {{corpora: [{{_target_: a.B}}]}}\n", "corpora.0._target_"),
}


@pytest.mark.parametrize(("text", "key"), IMPORTS.values(), ids=IMPORTS)
def test_a_file_may_not_import(text: str, key: str, own: Writer) -> None:
    with pytest.raises(DragomanError) as caught:
        own("experiment/mine.yaml", text, "+experiment=mine")
    assert str(caught.value).startswith("configs/experiment/mine.yaml: ")
    assert f"{key}: may not say" in str(caught.value) or key == "defaults"


def test_a_launcher_is_not_made_of_a_file(own: Writer) -> None:
    with pytest.raises(DragomanError, match=r"configs/hydra/launcher/mine\.yaml: hydra\.launcher"):
        own("hydra/launcher/mine.yaml", "_target_: a.B\n", "hydra/launcher=mine")


def test_launcher_and_sweeper_are_chosen_by_name(own: Writer) -> None:
    text = f"{GLOBAL}defaults: [override /hydra/launcher: basic, override /hydra/sweeper: basic]\n"
    assert own("experiment/mine.yaml", f"{text}seed: 4\n", "+experiment=mine").seed == 4


def test_values_take_the_types_of_their_keys(own: Writer) -> None:
    text = FILES + (
        "src: no\ntgt: yes\nmax_length: 030\ncolumns: [no, yes]\nvalidation_split: 0.10\n"
        "files: {no: 2024_01_15, 1_0: null.txt, 0.10: on}\n"
        "tokenizer: {lowercase: yes, joint: off, max_size: ~, bpe_dropout: 1e-1, algorithm: bpe}\n"
    )
    data = own("data/mine.yaml", text, "data=mine", "model.tie_embeddings=none").data
    assert (data.src, data.tgt, data.columns) == ("no", "yes", ["no", "yes"])
    assert (data.max_length, data.validation_split) == (30, "0.10")
    assert data.files.items() >= {"no": "2024_01_15", "1_0": "null.txt", "0.10": "on"}.items()
    tokenizer = data.tokenizer
    assert (tokenizer.lowercase, tokenizer.joint, tokenizer.max_size) == (True, False, None)
    assert tokenizer.bpe_dropout == 0.1


def test_names_of_runs_keep_their_text(own: Writer) -> None:
    text = f"{GLOBAL}run_name: 2024_01_15\ncheckpoint_dir: 0.10\nthreads: 1\n"
    config = own("experiment/dated.yaml", text, "+experiment=dated")
    assert (config.run_name, config.checkpoint_dir, config.threads) == ("2024_01_15", "0.10", 1)


@pytest.mark.parametrize("name", ["experiment/demo.yaml", "config.yaml"])
def test_a_name_that_is_shipped_too_is_refused(name: str, own: Writer) -> None:
    with pytest.raises(DragomanError, match=f"Dragoman brings its own {name}"):
        own(name, f"{GLOBAL}seed: 2\n", "+experiment=demo")
    shipped = (CONFIGS / name).read_text()
    assert own(name, shipped, "+experiment=demo").seed == 1  # a copy does no harm


def test_another_folder_adds_its_files(tmp_path: Path, own: Writer) -> None:
    own("experiment/mine.yaml", f"{GLOBAL}seed: 2\n")
    folder = tmp_path / "more"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "wide.yaml").write_text("defaults: [transformer]\nd_model: 512\n")
    with composer(CONFIGS, [folder]) as composing:
        config, experiment = composing.config(["+experiment=mine", "model=wide"])
        assert composing.options("model") == ["rnn", "transformer", "wide"]
    assert (config.seed, config.model.d_model, experiment) == (2, 512, "mine")


def test_shipped_configs_are_the_packages_or_the_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped_configs() == CONFIGS
    package = tmp_path / "dragoman"
    (package / "configs").mkdir(parents=True)
    monkeypatch.setattr("dragoman.search_path.__file__", str(package / "search_path.py"))
    assert shipped_configs() == package / "configs"


def test_a_program_that_uses_hydra_itself_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("x: {_target_: a.B, y: 1}\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert isinstance(compose_config(CONFIGS, [])[0], Config)
        assert compose("theirs").x == {"_target_": "a.B", "y": 1}
