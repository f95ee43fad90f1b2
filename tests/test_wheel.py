"""The package without the checkout: a wheel in a fresh environment, in an empty folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pages import ROOT, blocks
from test_readme import PAIRS, make_clone
from tinyruns import bare_environment

pytestmark = pytest.mark.slow
CONSTRAINTS = ROOT / "constraints.txt"


def ran(*words: str | Path, cwd: Path, typed: str | None = None) -> str:
    """Run a program to its end, without this test's own packages; return what it printed."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**bare_environment(), "OMP_NUM_THREADS": "2"},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist of a clone, and a wheel of that sdist."""
    home = tmp_path_factory.mktemp("built")
    clone = make_clone(home / "clone")
    ran(sys.executable, "-m", "build", "--outdir", home, cwd=clone)
    return home


def test_what_is_in_them(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    (sdist,) = built.glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {"dragoman/configs/config.yaml", "dragoman/py.typed"} <= inside
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"dragoman/configs/{path.relative_to(ROOT / 'configs')}" in inside
    for path in (ROOT / "src").rglob("*"):
        if path.is_file() and path.suffix not in (".pyc",) and "egg-info" not in str(path):
            assert str(path.relative_to(ROOT / "src")) in inside
    assert not any(name.startswith(("tests/", "scripts/", "docs/")) for name in inside)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"configs/config.yaml", "pyproject.toml", "README.md", "LICENSE"} <= names


def test_it_works_with_the_base_dependencies_alone(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    environment = tmp_path / "environment"
    ran(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    python, dragoman = environment / "bin" / "python", environment / "bin" / "dragoman"
    ran(python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, wheel, cwd=tmp_path)
    home = tmp_path / "empty"
    home.mkdir()
    words = ["+experiment=demo", "train.max_steps=30", "run_name=demo"]
    ran(dragoman, "train", *words, cwd=home)
    assert "bleu" in ran(python, "-m", "dragoman", "evaluate", "demo", "--split", "test", cwd=home)
    assert ran(dragoman, "translate", "demo", cwd=home, typed="Ein Hund.\n").count("\n") == 1
    # The README's lines of Python, with the model and a data set of one's own beside.
    shutil.copytree(
        ROOT / "docs" / "results" / "models" / "de-en", home / "docs/results/models/de-en"
    )
    (home / "configs" / "data").mkdir(parents=True)
    readme = (ROOT / "README.md").read_text("utf-8")
    (mine,) = (b.text for b in blocks(readme, "yaml") if b.text.startswith("# configs/data/mine"))
    (home / "configs" / "data" / "mine.yaml").write_text(mine, encoding="utf-8")
    (home / "data" / "mine").mkdir(parents=True)
    for split, rows in (("train", PAIRS), ("val", PAIRS[::9]), ("test", PAIRS[1::9])):
        text = "".join(f"{src}\t{tgt}\n" for src, tgt in [("de", "en"), *rows])
        (home / "data" / "mine" / f"{split}.tsv").write_text(text, encoding="utf-8")
    programs = [block.text for block in blocks(readme, "python")]
    assert len(programs) == 3
    for program in programs:
        quick = program.replace('"data=mine", ', '"data=mine", "train.max_steps=30", ')
        printed = ran(python, "-c", quick, cwd=home)
        assert printed.strip() or "print" not in program
    assert (home / "attention.png").read_bytes().startswith(b"\x89PNG")
