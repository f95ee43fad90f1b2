"""The shape of the house: rooms import only rooms to their left, and nothing unpickles."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "src" / "dragoman"

# From left to right. Rooms between the same bars do not know each other.
ORDER = [
    ("errors",),
    ("files", "languages", "search_path"),
    ("config",),
    ("plugins",),
    ("settings",),
    ("runs", "compose"),
    ("data",),
    ("models",),
    ("decoding",),
    ("evaluation", "export"),
    ("reporting",),
    ("training",),
    ("api", "launch"),
    ("commands",),
    ("cli",),
    ("__main__",),
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}

SOURCES = sorted(HOUSE.rglob("*.py"))
EVERYTHING = [*SOURCES, ROOT / "train.py", *sorted((ROOT / "scripts").rglob("*.py"))]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything imported anywhere in a file, names included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def strangers(path: Path, room: str) -> list[str]:
    """Return the imports of a file that reach for a room to its right, or for one beside it."""
    found = []
    for line, name in imported(parse(path)):
        parts = name.split(".")
        if parts[0] != "dragoman" or len(parts) < 2 or parts[1] not in RANK:
            continue
        if parts[1] != room and RANK[parts[1]] >= RANK[room]:
            found.append(f"line {line}: {room} imports {parts[1]}")
    return found


def test_every_room_has_its_place() -> None:
    rooms = {room_of(path) for path in SOURCES} - {"__init__"}
    assert rooms == set(RANK)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_room_imports_only_rooms_to_its_left(path: Path) -> None:
    room = room_of(path)
    if room != "__init__":  # the door's face names what it offers
        assert strangers(path, room) == []


def test_the_package_alone_brings_nothing_heavy() -> None:
    code = "import dragoman, sys; print({'torch', 'hydra', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_wrong_import_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(
        "import dragoman.data.batching\n"
        "from dragoman import __version__, config\n"
        "def late():\n    from dragoman.training.loop import train\n"
        "    from dragoman import decoding\n"
    )
    assert strangers(path, "models") == [
        "line 4: models imports training",
        "line 5: models imports decoding",
    ]


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_nothing_unpickles_or_runs_what_it_reads(path: Path) -> None:
    tree = parse(path)
    roots = {name.split(".")[0] for _, name in imported(tree)}
    assert not roots & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            call = ast.unparse(node)
            assert call not in {"torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}
            assert call not in {"np.save", "numpy.save"} or "allow_pickle" not in ast.unparse(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_is_one_idea(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}
    assert ast.get_docstring(parse(path)), "and says which"


def test_models_know_nothing_of_training_or_search() -> None:
    for path in (HOUSE / "models").glob("*.py"):
        names = {name for _, name in imported(parse(path))}
        assert not {n for n in names if n.startswith(("torch.optim", "torch.distributed"))}
