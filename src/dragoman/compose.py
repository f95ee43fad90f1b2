"""The command line of ``train.py``, checked before Hydra sees it.

Hydra's own messages take several lines and suggest little. Here every override is tried first, and
what Hydra refuses is said in one line with the nearest name that exists.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import open_dict
from omegaconf.errors import OmegaConfBaseException

from dragoman.config import MODELS, Config, register_schemas
from dragoman.errors import DragomanError, nearest, one_of
from dragoman.settings import from_hydra, known_keys

MULTIRUN = ("-m", "--multirun")
OPTUNA = "hydra_plugins.hydra_optuna_sweeper"
# More combinations than this are a mistake, or a sweep whose values Hydra will refuse one by one.
MOST_JOBS = 256


def fail(problem: DragomanError) -> NoReturn:
    """Print an error as one line and leave with exit code 2."""
    print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
    sys.exit(2)


def shipped_configs() -> Path:
    """Return the folder of the configs that come with Dragoman: in the wheel, or the checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def compose_config(configs: Path, overrides: Sequence[str]) -> tuple[Config, str | None]:
    """Compose a config as ``train.py`` would; return it with the experiment's name.

    Raises:
        DragomanError: naming the override at fault and the nearest that exists.
    """
    register_schemas()
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        _check_groups(configs, overrides)
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


def _check_groups(configs: Path, overrides: Sequence[str]) -> None:
    """Refuse what Hydra would take for a choice in a group and then trip over."""
    given: set[str] = set()
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+")
        if group == "model.name":
            raise DragomanError(f"model.name: choose the architecture with model={value}")
        if not (configs / group).is_dir() or not group:
            continue
        names = options(configs, group)
        if value in ("null", ""):
            raise DragomanError(f"{override}: expected {group}=NAME, {one_of(names)}")
        if key.startswith("+") and group != "experiment":
            raise DragomanError(f"{override}: name it without a plus: {group}={value}")
        if group in given:
            raise DragomanError(f"{override}: there is another {group} already; give one")
        given.add(group)


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
        if path in keys:  # an entry of its value is at fault
            entry = re.search(r"Key '([^']+)'", str(problem.__cause__))
            where = f"key '{entry[1]}'" if entry else "such value"
            hint = f"; +{path}.NAME=VALUE adds an entry" if path == "data.files" else ""
            return DragomanError(f"{path}: there is no {where} in it{hint}")
        return DragomanError(f"there is no key '{path}'{nearest(path, [*keys, *groups])}")
    if text.startswith("Ambiguous value"):
        return DragomanError(f"{text.splitlines()[0]}; add -m to train one run for each value")
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
        elif override.is_interval_sweep():  # of a sweeper that searches: try both ends
            ends = cast(IntervalSweep, override.value())
            choices.append([f"{key}={end}" for end in (ends.start, ends.end)])
        else:
            choices.append([override.input_line or ""])
    return [list(job) for job in itertools.islice(itertools.product(*choices), MOST_JOBS)]


def _parse(word: str) -> Override:
    try:
        parsed = OverridesParser.create().parse_override(word)
    except HydraException:
        parsed = None
    key, equals, value = word.partition("=")
    if parsed is None and key and equals:
        if value[:1] in "[{":
            hint = "quote the values in it, as in '[{tag: \"<2en>\"}]'"
        else:
            hint = f"quote it: '{key}=\"{value}\"'"
        raise DragomanError(f"{key}: '{value}' cannot be read; {hint}")
    if parsed is None or not parsed.key_or_group:
        raise DragomanError(f"'{word}': not an override, expected key=value")
    return parsed


def check_command_line(configs: Path, arguments: Sequence[str]) -> None:
    """Compose every job of a command line; leave with one line if one of them is wrong."""
    register_schemas()
    if any(
        flag in arguments for flag in ("--help", "-h", "--hydra-help", "--version", "--info", "-i")
    ):
        return
    try:
        words = list(arguments)
        for flag in set(words) & {"--cfg", "-c"}:  # shows the config; its value is job or all
            del words[words.index(flag) : words.index(flag) + 2]
        flags = [word for word in words if word.startswith("-")]
        if unknown := [flag for flag in flags if flag not in MULTIRUN]:
            raise DragomanError(
                f"{unknown[0]}: there is no such option, expected --multirun, --cfg job or --help"
            )
        parsed = [_parse(word) for word in words if word not in flags]
        multirun = bool(flags)
        if "hydra/sweeper=optuna" in words and find_spec(OPTUNA) is None:
            raise DragomanError(
                "hydra/sweeper=optuna: the package hydra-optuna-sweeper is not installed; "
                "pip install 'dragoman[search]' brings it"
            )
        own = [override for override in parsed if not override.is_hydra_override()]
        jobs = _jobs(own) if multirun else [[o.input_line or "" for o in own]]
        for job in jobs:
            compose_config(configs, job)
    except DragomanError as problem:
        fail(problem)
