"""From the words of a training command to a checked config.

Hydra composes. What users get wrong is looked for first, against the keys and the files there are,
and said in one line with the nearest name that exists.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from dragoman.config import MODELS, SIZES, Config, CorpusConfig, DataConfig, register_schemas, walk
from dragoman.errors import DragomanError, nearest, one_of, say
from dragoman.plugins import load_plugins
from dragoman.search_path import CALLED, CLOSED, looking_in
from dragoman.settings import from_hydra

PRIMARY = "config"
# More combinations than this are a mistake, or a sweep whose values Hydra will refuse one by one.
MOST_JOBS = 256
# The steps of `configs/size` are for an hour on two CPU cores; these keys follow `auto.minutes`.
MINUTES = 60
SCALED = ("max_steps", "schedule_steps", "warmup_steps", "validate_every", "checkpoint_every")
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
}
# What Hydra would take for a number or a truth value, where a value may stand.
_NO_TEXT = re.compile(
    r"(?<![^,\[{(: ])([-+.]?\d[\w.+-]*|true|false|inf|nan)(?![^,\]}) ])", re.IGNORECASE
)
_QUOTED_OR_CALLED = re.compile(r"['\"\\$]|[a-z]\(")


class Composer:
    """Reads, checks and composes words while Hydra is set up."""

    def __init__(self, primary: str) -> None:
        self.primary = primary
        self.loader: ConfigLoader = GlobalHydra.instance().config_loader()
        self.parser = OverridesParser.create(config_loader=self.loader)
        configs = [Config(model=schema()) for schema in MODELS.values()]
        configs.append(Config(data=DataConfig(corpora=[CorpusConfig()])))
        self.keys = {path: item for config in configs for path, item, _ in walk(config)}

    def options(self, group: str) -> list[str]:
        """Return the names in a config group; none if there is no such group."""
        names = self.loader.get_group_options(group)
        return [name for name in names if not name.endswith("_schema")]

    def config(self, words: Sequence[str]) -> tuple[Config, str | None]:
        """Return the config that words describe, and the name of its experiment."""
        composed = self._compose([self.parse(word) for word in words])
        experiment = composed.hydra.runtime.choices.get("experiment")
        with open_dict(composed):
            del composed["hydra"]
        return from_hydra(composed), experiment

    def sized(self, words: Sequence[str], count: Callable[[DataConfig], int]) -> list[str]:
        """Return words with those that ``auto.minutes`` adds: a size, and steps for that time.

        ``count`` says how many training pairs there are. What is given already is not added.
        """
        config, _ = self.config(words)
        minutes = config.auto.minutes
        if minutes is None:
            return [*words]
        given = {word.partition("=")[0].lstrip("+") for word in words}
        pairs, sized = count(config.data), [*words]
        if "size" not in given:
            fits = [name for name, least in SIZES.items() if pairs >= least]
            sized.append(f"+size={max(fits, key=lambda name: SIZES[name])}")
        config, share = self.config(sized)[0], minutes / MINUTES
        for name in (f"train.{key}" for key in SCALED if f"train.{key}" not in given):
            steps = round(share * getattr(config.train, name.removeprefix("train.")))
            sized.append(f"{name}={max(1, steps)}")
        config = self.config(sized)[0]
        size = next(
            word.partition("=")[2] for word in sized if word.lstrip("+").startswith("size=")
        )
        model, vocabulary = config.model, config.data.tokenizer.vocab_size
        say(
            f"auto: {pairs:,} training pairs, size={size}: vocabulary {vocabulary:,}, "
            f"width {model.d_model}, {model.encoder_layers} + {model.decoder_layers} layers, "
            f"dropout {model.dropout:g}; {config.train.max_steps:,} steps "
            f"({minutes:g} minutes on two CPU cores)"
        )
        return sized

    def _compose(self, words: list[Override]) -> DictConfig:
        for word in words:
            self._check(word)
        groups = [word.key_or_group for word in words if self.options(word.key_or_group)]
        for group in set(groups):
            if groups.count(group) > 1:
                raise DragomanError(f"{group}: given {groups.count(group)} times, expected one")
        try:
            composed = compose(
                self.primary, [str(word.input_line) for word in words], return_hydra_config=True
            )
        except DragomanError:
            raise
        except Exception as problem:  # of many kinds
            raise self._explain(problem) from None
        for section in CLOSED:
            name = section.removeprefix("hydra.")
            if any(called in str(composed.hydra[name]) for called in CALLED):
                raise DragomanError(f"{section}: may not say what is imported or called")
        return composed

    def parse(self, word: str) -> Override:
        """Read a word, such as ``train.lr=1e-3``; the values of text keys keep their text."""
        key, equals, value = word.partition("=")
        kind = self._kind(key.lstrip("+"))
        if kind not in ("", "int", "float", "bool") and not _QUOTED_OR_CALLED.search(value):
            word = key + equals + _NO_TEXT.sub(r'"\1"', value)
        if key.startswith("data.files."):
            word = f"++{word}"  # another entry needs no other spelling than one that is there
        try:
            (parsed,) = self.parser.parse_overrides([word])
            if key:
                return parsed
        except HydraException:
            if key and equals:
                hint = f"quote it: '{key}=\"{value}\"'"
                if value[:1] in "[{":
                    hint = "quote the values in it, as in '[{tag: \"<2en>\"}]'"
                raise DragomanError(f"{key}: '{value}' cannot be read; {hint}") from None
        raise DragomanError(f"'{word}': not an override, expected key=value")

    def _kind(self, key: str) -> str:
        """Return the type of a key, by its name in ``TYPES``; ``""`` if there is no such key."""
        key = re.sub(r"\.\d+|\[\d+\]", ".0", key)
        if key.startswith("data.files."):
            return "str"
        if key not in self.keys:
            return "dict" if any(path.startswith(f"{key}.") for path in self.keys) else ""
        type_ = self.keys[key].type
        return str(getattr(type_, "__name__", type_)).removesuffix(" | None").partition("[")[0]

    def _check(self, word: Override) -> None:
        """Refuse a word that Hydra would trip over, naming what is accepted instead."""
        key, line, value = word.key_or_group, word.input_line, word.value()
        names = self.options(key)
        if word.is_sweep_override():
            said = "contains several values;"
            if self._kind(key) == "str":
                quoted = f"{key}='\"{str(line).partition('=')[2]}\"'"
                said = f"contains a comma or a function; quote it: {quoted}, or"
            raise DragomanError(f"{line}: {said} add -m to train one run for each value")
        if key.startswith(CLOSED) or (
            word.is_hydra_override() and any(name in str(line) for name in CALLED)
        ):
            raise DragomanError(f"{line}: may not say what is imported or called")
        if names and not isinstance(value, dict):
            folder, _, name = f"{key}/{value}".rpartition("/")
            if not isinstance(value, str) or not value:
                raise DragomanError(f"{line}: expected one {key}=NAME, {one_of(names)}")
            if name.removesuffix(".yaml") not in self.options(folder):
                hint = nearest(value, names)
                if value == "optuna":
                    hint = "; pip install 'dragoman[search]' brings it"
                raise DragomanError(
                    f"{line}: there is no such {key}, expected {one_of(names)}{hint}"
                )
        elif key == "model.name":
            raise DragomanError(f"model.name: choose the architecture with model={value}")
        elif not self._kind(key) and not word.is_hydra_override():
            raise DragomanError(f"there is no key '{key}'{self._suggest(key)}")

    def _suggest(self, key: str) -> str:
        """Return a hint at the key that a wrong one may stand for."""
        if key.startswith("hydra."):
            return ""
        last = key.rpartition(".")[2]
        alike = [path for path in self.keys if path.rpartition(".")[2] == last]
        if not alike and "_" in last:  # what train.learning_rate is called in words
            meanings = {path: item.metadata.get("meaning", "") for path, item in self.keys.items()}
            alike = [path for path, said in meanings.items() if last.replace("_", " ") in said][:1]
        if alike:
            return nearest(key, alike, cutoff=0.0)
        sections = [section.name for section in dataclasses.fields(Config)]
        return nearest(key, [*self.keys, *sections, "experiment"])

    def _explain(self, problem: Exception) -> DragomanError:
        """Say in one line what Hydra met in spite of all checks."""
        cause = problem.__cause__ or problem.__context__
        lines = [line for line in str(problem).splitlines() if line] or [type(problem).__name__]
        if not isinstance(cause, OmegaConfBaseException) or not cause.full_key:
            return DragomanError(" ".join(line for line in lines[:2] if line[-1] != ":"))
        key = cause.full_key.replace("[", ".").replace("]", "")
        place = lines[0].partition(": ")[0].removeprefix("Error merging override ").rstrip(".")
        kind, said = self._kind(key), str(cause).partition("\n")[0]
        if isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
            models = [name for name, schema in MODELS.items() if hasattr(schema, str(cause.key))]
            if key.startswith("data.files."):
                said = f"{key}=VALUE adds an entry"
            elif kind and models:
                said = f"{key} is for model={one_of(models)}"
            else:
                said = f"there is no key '{key}'{self._suggest(key)}"
        elif isinstance(cause, ValidationError) and kind in TYPES:
            said = f"'{cause.value}' is not accepted, expected {TYPES[kind]}"
            said = said if key in place else f"{key}: {said}"
        return DragomanError(f"{place}: {said}")

    def jobs(self, words: Sequence[Override]) -> list[list[str]]:
        """Return the words of every job of a sweep, of at most ``MOST_JOBS``."""
        choices = []
        for word in words:
            key = word.get_key_element()
            if word.is_sweep_override() and word.is_discrete_sweep():
                choices.append([f"{key}={value}" for value in word.sweep_string_iterator()])
            elif word.is_interval_sweep():  # of a sweeper that searches: try both ends
                ends = cast(IntervalSweep, word.value())
                choices.append([f"{key}={end}" for end in (ends.start, ends.end)])
            else:
                choices.append([str(word.input_line)])
        return [list(job) for job in itertools.islice(itertools.product(*choices), MOST_JOBS)]


@contextmanager
def composer(
    configs: Path, folders: Sequence[Path] = (), primary: str = PRIMARY
) -> Iterator[Composer]:
    """Set Hydra up to find YAML in ``configs``, in ``./configs`` and in more ``folders``."""
    load_plugins()
    register_schemas()
    outer = GlobalHydra.instance().hydra  # of a program that calls this one
    GlobalHydra.instance().clear()
    try:
        with (
            looking_in(configs, folders),
            initialize_config_dir(str(configs.resolve()), version_base="1.3"),
        ):
            yield Composer(primary)
    finally:
        GlobalHydra.instance().hydra = outer


def compose_config(
    configs: Path, overrides: Sequence[str], count: Callable[[DataConfig], int] | None = None
) -> tuple[Config, str | None]:
    """Compose a config as ``train.py`` would; return it with the experiment's name.

    With ``count`` the size of the corpus chooses what ``auto.minutes`` leaves to it.

    Raises:
        DragomanError: naming the override at fault and the nearest that exists.
    """
    with composer(configs) as composing:
        return composing.config(composing.sized(overrides, count) if count else overrides)
