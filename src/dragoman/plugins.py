"""Tables of parts by name, and plug-ins: modules of the user's own that add to them.

A key of the config that chooses a part names its table, and the table is the only list of names it
accepts. ``register`` adds an entry. Plug-ins that call it are found through the entry points
``dragoman.plugins`` of installed packages and in what the command line names (``--plugin``), never
in a config or a checkpoint: those are data. They are loaded when a table is first looked up.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from dragoman.config import MODELS
from dragoman.errors import DragomanError, nearest, one_of

GROUP = "dragoman.plugins"
# What --plugin named, for ranks and the jobs of a sweep, which are processes of their own.
NAMED = "DRAGOMAN_PLUGINS"

# Where each table stands. Named and not imported: a table's module may bring PyTorch along.
TABLES = {
    "attention": "dragoman.models.attention:SCORES",
    "positions": "dragoman.models.positions:POSITIONS",
    "model": "dragoman.models.seq2seq:MODELS",
    "schedule": "dragoman.training.schedules:SCHEDULES",
    "teacher_forcing": "dragoman.training.schedules:TEACHER_FORCING",
    "optimizer": "dragoman.training.optimisation:OPTIMIZERS",
    "metric": "dragoman.evaluation.metrics:METRICS",
    "tokenizer": "dragoman.data.tokenizers:TOKENIZERS",
    "source": "dragoman.data.sources:SOURCES",
    "tracker": "dragoman.reporting.trackers:TRACKERS",
    "export": "dragoman.export.export:FORMATS",
}

# (kind, name) -> the plug-in that registered it.
ORIGINS: dict[tuple[str, str], str] = {}
_loading: list[str] = []
_loaded: set[str] = set()


def register(kind: str, name: str, part: Any, *, config: type | None = None) -> None:
    """Add a part to the table of its kind, so that a config may name it.

    Args:
        kind: ``attention``, ``positions``, ``model``, ``schedule``, ``teacher_forcing``,
            ``optimizer``, ``metric``, ``tokenizer``, ``source``, ``tracker`` or ``export``.
        name: what the config key, or the command line, says for it.
        part: the class or function; docs/extending.md shows what each kind has to offer.
        config: the dataclass of an architecture's keys, for ``kind="model"`` alone. It becomes the
            choice ``model=<name>``.

    Raises:
        DragomanError: for an unknown kind, a name that is taken or is not a word, or a missing
            ``config``.
    """
    if kind not in TABLES:
        raise DragomanError(
            f"register: there is no kind '{kind}', expected {one_of(TABLES)}{nearest(kind, TABLES)}"
        )
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise DragomanError(f"register: '{name}' cannot be a name, expected letters, digits and _")
    entries = _resolve(kind)
    if name in entries and (kind, name) not in ORIGINS:
        raise DragomanError(f"register: {kind} '{name}' is Dragoman's own; choose another name")
    if (kind == "model") != (config is not None):
        raise DragomanError("register: config=<dataclass of its keys> is for kind 'model', always")
    if config is not None:
        if not dataclasses.is_dataclass(config):
            raise DragomanError(f"register: model '{name}': config is not a dataclass")
        MODELS[name] = config
        ConfigStore.instance().store(group="model", name=name, node=config)
    entries[name] = part
    ORIGINS[kind, name] = _loading[-1] if _loading else getattr(part, "__module__", "__main__")


def _resolve(kind: str) -> dict[str, Any]:
    module, _, attribute = TABLES[kind].partition(":")
    entries: dict[str, Any] = getattr(importlib.import_module(module), attribute)
    return entries


def table(kind: str) -> dict[str, Any]:
    """Return the parts of a kind by name, those of plug-ins among them."""
    load_plugins()
    return _resolve(kind)


def look_up(kind: str, name: str, where: str) -> Any:
    """Return a part by name.

    Raises:
        DragomanError: naming ``where`` the name stands, and the names there are.
    """
    entries = table(kind)
    if name not in entries:
        raise DragomanError(
            f"{where}: there is no {kind} '{name}', expected {one_of(entries)}"
            f"{nearest(name, entries)}"
        )
    return entries[name]


def from_arguments(arguments: Sequence[str]) -> list[str]:
    """Load what ``--plugin`` names on a command line; return the other arguments.

    A plug-in is the name of a module, or a file that ends in ``.py``.

    Raises:
        DragomanError: if one cannot be loaded.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--plugin", action="append", default=[])
    try:
        found, others = parser.parse_known_args(arguments)
    except argparse.ArgumentError:
        raise DragomanError("--plugin: expected a module or a .py file after it") from None
    known = [text for text in os.environ.get(NAMED, "").split(os.pathsep) if text]
    for text in found.plugin:
        file = str(Path(text).expanduser().resolve()) if text.endswith(".py") else text
        if os.pathsep in file:
            raise DragomanError(f"--plugin: '{text}' may not hold '{os.pathsep}'")
        if file not in known:
            known.append(file)
    if found.plugin:
        os.environ[NAMED] = os.pathsep.join(known)
        load_plugins()
    return others


def load_plugins() -> None:
    """Load every plug-in that is not loaded yet; a broken one of a package is named and skipped.

    Raises:
        DragomanError: if one that the command line named is broken.
    """
    for text in os.environ.get(NAMED, "").split(os.pathsep):
        if text and text not in _loaded:
            with _origin(text):
                try:
                    _import(text)
                except Exception as problem:  # whatever code of the user's own raises
                    raise DragomanError(f"--plugin: {text}: {_said(problem)}") from problem
    if GROUP in _loaded:
        return
    _loaded.add(GROUP)
    for entry in entry_points(group=GROUP):
        with _origin(entry.value):
            try:
                entry.load()
            except Exception as problem:
                warnings.warn(
                    f"plug-in {entry.name} ({entry.value}): {_said(problem)}; left out",
                    stacklevel=2,
                )


@contextmanager
def _origin(plugin: str) -> Iterator[None]:
    """Note down what is loading, for ``ORIGINS``; once, whatever comes of it."""
    _loaded.add(plugin)
    _loading.append(plugin)
    try:
        yield
    finally:
        _loading.pop()


def _import(text: str) -> None:
    if not text.endswith(".py"):
        if "" not in sys.path:  # a module beside the user, as with `python -m`
            sys.path.insert(0, "")
        importlib.import_module(text)
        return
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


def _said(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text if isinstance(problem, DragomanError) else f"{type(problem).__name__}: {text}"
