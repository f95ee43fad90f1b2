"""Where the YAML of a training command is found, and how it is read: as data.

What comes with Dragoman is looked through first-hand, then ``./configs`` of the working directory
and the folder that ``--config-dir`` names. A value takes the type of its key and not the one that
it looks like to YAML, so that ``no`` is a language and ``2024_01_15`` a name. Nothing is imported
or called that a file names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from dragoman.errors import DragomanError

# What Hydra would import and call, and the sections of its own config where it does.
CALLED = ("_target_", "_args_", "()", "custom_search_space")
CLOSED = ("hydra.callbacks", "hydra.job_logging", "hydra.hydra_logging", "hydra.searchpath")
CHOSEN_BY_NAME = ("hydra.launcher", "hydra.sweeper")


def shipped_configs() -> Path:
    """Return the folder of the YAML that Dragoman brings: in the package, or in the checkout."""
    package = Path(__file__).resolve().parent
    return package / "configs" if (package / "configs").is_dir() else package.parents[1] / "configs"


class TextLoader(get_yaml_loader()):  # type: ignore[misc]
    """Reads YAML whose every value is text or null: the safe loader, with fewer types."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        first: [(tag, form) for tag, form in forms if tag.endswith((":null", ":merge"))]
        for first, forms in get_yaml_loader().yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases: with them a few hundred bytes can become gigabytes."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not accepted", problem_mark=mark)
        return super().compose_node(parent, index)


class DataSource(FileConfigSource):
    """A folder of YAML that Hydra reads as data."""

    @staticmethod
    def scheme() -> str:
        """Return what its address begins with."""
        return "data"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            DragomanError: if it is not YAML, says what to call, or has the name of a shipped one.
        """
        name = self._normalize_file_name(config_path)
        path = Path(self.path) / name
        here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        try:
            text = path.read_text(encoding="utf-8")
            data = TextLoader(text).get_single_data() or {}
        except yaml.MarkedYAMLError as problem:
            line = f", line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
            raise DragomanError(
                f"{here}{line}: not YAML ({problem.problem}); indent with spaces, and quote text "
                "that holds a brace, a bracket, a colon or a hash"
            ) from None
        except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as problem:
            raise DragomanError(f"{here}: cannot be read as YAML ({problem})") from None
        if not isinstance(data, dict):
            raise DragomanError(f"{here}: expected a mapping of keys to values")
        shipped = shipped_configs() / name
        own = self.provider == OwnFolders.PROVIDER
        if own and shipped.is_file() and text != shipped.read_text(encoding="utf-8"):
            raise DragomanError(f"{here}: Dragoman brings its own {name}; choose another name")
        header = self._get_header_dict(text[:512])
        package = header["package"] or config_path.rpartition("/")[0].replace("/", ".")
        for key in called(data, package.removeprefix("_global_").removeprefix(".")):
            raise DragomanError(
                f"{here}: {key}: may not say what is imported or called; a launcher or sweeper is "
                "chosen by its name alone"
            )
        return ConfigResult(self.provider, f"data://{self.path}", OmegaConf.create(data), header)


def called(data: Any, package: str) -> Iterator[str]:
    """Yield the dotted keys in a file, or entries of its defaults, by which code could be run."""
    entries = data.items() if isinstance(data, dict) else enumerate(data)
    for name, value in entries:
        key = f"{package}.{name}" if package else str(name)
        if name in CALLED or key.startswith((*CLOSED, *CHOSEN_BY_NAME)):
            yield key
        elif name == "defaults":
            yield from (
                f"defaults: {v}" for v in value or () if "hydra" in str(v).partition("@")[2]
            )
        elif isinstance(value, (dict, list)):
            yield from called(value, key)


class OwnFolders(SearchPathPlugin):
    """Puts the user's folders into Hydra's search path, and has all YAML read as data."""

    PROVIDER = "own"
    # None: another program's Hydra is at work in this process.
    folders: ClassVar[list[Path] | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folders, before the shipped one: a name that is in both is to be seen."""
        if self.folders is None:
            return
        for place in search_path.get_path():
            if place.provider == "main":
                place.path = f"data://{str(place.path).removeprefix('file://')}"
        for folder in self.folders:
            search_path.prepend(self.PROVIDER, f"data://{folder}", anchor="main")


@contextmanager
def looking_in(configs: Path, more: Sequence[Path] = ()) -> Iterator[None]:
    """Let Hydra find YAML in ``./configs`` and ``more`` folders too, besides ``configs``."""
    Plugins.instance().register(DataSource)
    Plugins.instance().register(OwnFolders)
    folders = [folder.resolve() for folder in (*more, Path("configs"))]
    OwnFolders.folders = [f for f in folders if f.is_dir() and f != configs.resolve()]
    try:
        yield
    finally:
        OwnFolders.folders = None
