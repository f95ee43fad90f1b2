"""The command line of ``train.py``, checked before Hydra sees it.

Hydra's own messages take several lines and suggest little. Here every override is tried first, and
what Hydra refuses is said in one line with the nearest name that exists.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import open_dict
from omegaconf.errors import OmegaConfBaseException

from dragoman.config import MODELS, Config, from_hydra, known_keys, register_schemas
from dragoman.errors import DragomanError, nearest, one_of

# More combinations than this are a mistake, or a sweep whose values Hydra will refuse one by one.
MOST_JOBS = 256


def fail(problem: DragomanError) -> NoReturn:
    """Print an error as one line and leave with exit code 2."""
    print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
    sys.exit(2)


def compose_config(configs: Path, overrides: Sequence[str]) -> tuple[Config, str | None]:
    """Compose a config as ``train.py`` would; return it with the experiment's name.

    Raises:
        DragomanError: naming the override at fault and the nearest that exists.
    """
    register_schemas()
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        try:
            composed = compose("config", overrides=list(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as problem:
            raise _explain(problem, configs, overrides) from None
    experiment = composed.hydra.runtime.choices.get("experiment")
    with open_dict(composed):
        del composed["hydra"]
    return from_hydra(composed), experiment


def options(configs: Path, group: str) -> list[str]:
    """Return the names in a config group."""
    return sorted(path.stem for path in (configs / group).glob("*.yaml"))


def _explain(problem: Exception, configs: Path, overrides: Sequence[str]) -> DragomanError:
    """Turn a message of Hydra's into one line."""
    text = str(problem)
    groups = sorted(path.name for path in configs.iterdir() if path.is_dir())
    if missing := re.search(r"Could not find '(\w+)/([^']*)'", text):
        group, name = missing[1], missing[2]
        names = options(configs, group)
        return DragomanError(f"{group}={name}: there is no such {group}, expected {one_of(names)}"
                             f"{nearest(name, names)}")  # fmt: skip
    if unknown := re.search(r"Could not override '([^']+)'|Key '([^']+)' (?:is )?not in", text):
        path = unknown[1] or unknown[2]
        if full := re.search(r"full_key: (\S+)", text):
            path = full[1]
        if path in groups:
            return DragomanError(
                f"{path}: name it with a plus: +{path}={_value(path, overrides)} "
                f"(one of {one_of(options(configs, path))})"
            )
        keys = [key for schema in MODELS.values() for key in known_keys(Config(model=schema()))]
        return DragomanError(f"there is no key '{path}'{nearest(path, [*keys, *groups])}")
    lines = [line for line in text.splitlines() if line and "full_key" not in line]
    key = re.search(r"full_key: (\S+)", text)
    prefix = f"{key[1]}: " if key else ""
    cause = lines[0] if lines else type(problem).__name__
    if cause.startswith("Error merging override") and problem.__cause__ is not None:
        cause = f"{cause.removeprefix('Error merging override ')}: {problem.__cause__}".split("\n")[
            0
        ]
    return DragomanError(f"{prefix}{cause}")


def _value(key: str, overrides: Sequence[str]) -> str:
    return next(
        (o.partition("=")[2] for o in overrides if o.lstrip("+").startswith(f"{key}=")), "NAME"
    )


def _jobs(overrides: list[Override]) -> list[list[str]]:
    """Return the overrides of every job of a sweep, at most ``MOST_JOBS``."""
    choices = []
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override() and override.is_discrete_sweep():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([override.input_line or ""])
    return [list(job) for job in itertools.islice(itertools.product(*choices), MOST_JOBS)]


def check_command_line(configs: Path, arguments: Sequence[str]) -> None:
    """Compose every job of a command line; leave with one line if one of them is wrong."""
    register_schemas()
    if any(
        flag in arguments for flag in ("--help", "-h", "--hydra-help", "--version", "--info", "-i")
    ):
        return
    try:
        words = [word for word in arguments if not word.startswith("-")]
        try:
            parsed = OverridesParser.create().parse_overrides(words)
        except HydraException as problem:
            raise DragomanError(f"not an override: {str(problem).splitlines()[0]}") from None
        multirun = any(flag in arguments for flag in ("-m", "--multirun"))
        own = [override for override in parsed if not override.is_hydra_override()]
        jobs = _jobs(own) if multirun else [[o.input_line or "" for o in own]]
        for job in jobs:
            compose_config(configs, job)
    except DragomanError as problem:
        fail(problem)
