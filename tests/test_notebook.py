"""The notebook runs from its first cell to its last, and was committed with what it shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from pages import ROOT

PATH = ROOT / "docs" / "notebooks" / "first_steps.ipynb"


def shown(notebook: Any) -> list[set[str]]:
    """Return the kinds of results of every code cell."""
    return [
        {kind for output in cell.outputs for kind in output.get("data", {})}
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.mark.slow
def test_it_runs_and_shows_what_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv(
        "PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    committed = nbformat.read(PATH, 4)
    fresh = nbformat.read(PATH, 4)
    for cell in fresh.cells:
        cell.source = cell.source.replace("/tmp/dragoman", str(tmp_path))
        if cell.cell_type == "code":
            cell.outputs = []
    folder = {"metadata": {"path": str(PATH.parent)}}
    NotebookClient(fresh, timeout=600, kernel_name="python3", resources=folder).execute()
    assert shown(fresh) == shown(committed)
    assert "image/png" in set().union(*shown(committed))
