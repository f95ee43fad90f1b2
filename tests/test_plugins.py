"""Plug-ins: parts from outside the package, by one line, under a name that a config may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import dragoman
import tinyruns
from dragoman import plugins, settings
from dragoman.cli import main
from dragoman.errors import DragomanError
from dragoman.models.attention import DotScore

PLUGIN = '''
import dragoman
from dragoman.models.attention import DotScore


class HalfScore(DotScore):
    """The dot product, halved."""

    def __call__(self, query_BHTA, keys_BHSA):
        return super().__call__(query_BHTA, keys_BHSA) / 2


dragoman.register("attention", "half", HalfScore)
'''


pytestmark = pytest.mark.usefixtures("fresh_tables")


@pytest.fixture
def half(tmp_path: Path) -> Path:
    path = tmp_path / "half_score.py"
    path.write_text(PLUGIN)
    return path


def test_a_registered_score_is_accepted_trained_and_named_by_its_checkpoint(
    half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    with pytest.raises(DragomanError, match=r"model\.attention: 'half' is not accepted"):
        tinyruns.config(tmp_path, model__attention="half")
    assert plugins.from_arguments(["translate", "--plugin", str(half), "one"]) == [
        "translate",
        "one",
    ]
    run = tinyruns.train_run(tinyruns.config(tmp_path, model__attention="half"))
    (tmp_path / "in.txt").write_text("Ein hund läuft.\n")
    words = ["translate", str(run.folder), "--input", str(tmp_path / "in.txt")]
    assert main(words) == 0
    # In a program that does not know it, the checkpoint says what it needs.
    del plugins.table("attention")["half"]
    capsys.readouterr()
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "'half' is not accepted" in said
    assert "half_score.py" in said
    assert "--plugin" in said
    assert said.count("\n") == 1


def test_the_names_there_are_stand_in_the_message(half: Path, tmp_path: Path) -> None:
    plugins.from_arguments(["--plugin", str(half)])
    with pytest.raises(DragomanError, match=r"general or half; did you mean 'half'"):
        tinyruns.config(tmp_path, model__attention="hafl")


def test_plugins_reach_the_processes_that_begin_from_here(half: Path) -> None:
    plugins.from_arguments(["--plugin", str(half)])
    code = "from dragoman import plugins; print('half' in plugins.table('attention'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_an_installed_package_is_found_and_a_broken_one_is_named_and_skipped(
    half: Path, tmp_path: Path
) -> None:
    for name, module in (("good", "half_score"), ("broken", "no_such_module")):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{name} = {module}\n")
    code = "from dragoman import plugins; print('half' in plugins.table('attention'))"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout == "True\n"
    assert "plug-in broken (no_such_module): ModuleNotFoundError" in done.stderr
    assert "left out" in done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "FileNotFoundError: no such file"),
        ("import nothing_of_the_kind", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        (
            "import dragoman; dragoman.register('attention', 'dot', int)",
            "register: attention 'dot' is Dragoman's own; choose another name",
        ),
    ],
)
def test_a_broken_plugin_that_is_named_is_one_line(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    assert main(["translate", "--plugin", str(path), "one"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --plugin: {path}: ")
    assert said in error
    assert error.count("\n") == 1


def test_register_refuses() -> None:
    @dataclass
    class Keys:
        name: str = "mine"

    for arguments, options, said in (
        (("atention", "mine", DotScore), {}, "no kind 'atention', .* did you mean 'attention'"),
        (("attention", "not a word", DotScore), {}, "cannot be a name"),
        (("model", "mine", torch.nn.Module), {}, "config=<dataclass of its keys>"),
        (("attention", "mine", DotScore), {"config": Keys}, "config=<dataclass of its keys>"),
        (("model", "mine", torch.nn.Module), {"config": int}, "config is not a dataclass"),
    ):
        with pytest.raises(DragomanError, match=said):
            dragoman.register(*arguments, **options)


def test_a_plugin_may_be_loaded_twice(half: Path) -> None:
    """As a cell of a notebook is."""
    for _ in range(2):
        exec(PLUGIN, {"__name__": "cell"})
    assert "half" in plugins.table("attention")


def test_no_config_loads_a_plugin(half: Path, tmp_path: Path) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    plain = settings.to_dict(tinyruns.config(tmp_path))
    for place in ("", "model", "data"):
        section = {**plain, **({"plugin": str(half)} if not place else {})}
        if place:
            section[place] = {**section[place], "plugin": str(half)}
        with pytest.raises(DragomanError, match=r"there is no key '.*plugin'"):
            settings.from_dict(json.loads(json.dumps(section)))
    assert "half" not in plugins.table("attention")
