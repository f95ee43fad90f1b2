"""Every plug-in of docs/extending.md, from outside the package, as the page says it is used."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dragoman
import tinyruns
from dragoman import plugins
from pages import ROOT, blocks

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
# Kind -> its plug-in, and the words behind it.
EXAMPLES = {
    found[1]: (block.text, re.findall(r"^`([\w.]+=[^`]*)`", after, re.MULTILINE))
    for block, after in zip(
        blocks(PAGE, "python"), re.split(r"^```python\n.*?^```$", PAGE, flags=re.M | re.S)[1:],
        strict=True,
    )
    if (found := re.search(r'^dragoman\.register\("(\w+)"', block.text, re.MULTILINE))
}  # fmt: skip


@pytest.fixture
def run(request: Any, tmp_path: Path, fresh_tables: None) -> dragoman.Run:
    """Train ten steps with the plug-in of a kind."""
    text, words = EXAMPLES[request.param]
    path = tmp_path / "my_plugin.py"
    path.write_text(text)
    plugins.from_arguments(["--plugin", str(path)])
    tinyruns.write_pairs(tmp_path / "text")
    said = [word for line in words for word in re.findall(r"(?:'[^']*'|\S)+", line)]
    own = [word.replace("'", "") for word in said if not word.startswith("model=")]
    plain = tinyruns.overrides(tmp_path)
    if request.param == "model":
        plain = [word for word in plain if not word.startswith("model")]
        own.append("model=bag")
    return dragoman.train(*plain, *own)


def test_the_page_has_an_example_of_every_kind() -> None:
    assert EXAMPLES.keys() == plugins.TABLES.keys()


@pytest.mark.parametrize(
    "run", sorted(set(EXAMPLES) - {"metric", "export", "tracker"}), indirect=True
)
def test_it_trains_and_translates(run: dragoman.Run) -> None:
    losses = [entry["train/loss"] for entry in run.history if "train/loss" in entry]
    assert losses[-1] < losses[0]
    assert isinstance(run.translator().translate("Ein hund läuft."), str)
    assert "my_plugin.py" in (run.folder / "config.yaml").read_text("utf-8").splitlines()[0]


@pytest.mark.parametrize("run", ["metric"], indirect=True)
def test_a_metric_is_among_the_scores(run: dragoman.Run) -> None:
    done = run.evaluate("test")
    low, high = done.exact.interval
    assert low <= done.exact.score <= high
    assert json.loads(done.path.read_text("utf-8"))["exact"]["signature"] == done.exact.signature


@pytest.mark.parametrize("run", ["export"], indirect=True)
def test_an_export_is_a_folder(run: dragoman.Run) -> None:
    folder = run.translator().export("numpy", quantization="float16")
    with np.load(folder / "weights.npz") as arrays:
        assert {array.dtype for array in arrays.values()} == {np.dtype("float16")}


@pytest.mark.parametrize("run", ["tracker"], indirect=True)
def test_a_tracker_is_told(run: dragoman.Run) -> None:
    lines = (run.folder / "curve.csv").read_text("utf-8").splitlines()
    assert any(line.startswith("10,validation/bleu,") for line in lines)
    assert os.path.exists(run.folder / "train.jsonl")
