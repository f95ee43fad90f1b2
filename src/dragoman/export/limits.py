"""What a runtime cannot do: all of it is found first, then said in one message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec

from dragoman.config import Config, DecodeConfig
from dragoman.errors import DragomanError, one_of


def model_limits(
    config: Config, runtime: str, name: str, accepted: Mapping[str, Collection[str]]
) -> list[str]:
    """Return a message for each part of the model that a runtime has not.

    ``name`` is the only model it has, and ``accepted`` its choices by key of ``model``.
    """
    model = config.model
    if model.name != name:
        return [
            f"model.name: {runtime} has no model like '{model.name}', expected {name}; dragoman "
            "export --help says what the other formats suit"
        ]
    return [
        f"model.{key}: {runtime} has no '{getattr(model, key)}', expected {one_of(choices)}"
        for key, choices in accepted.items()
        if getattr(model, key) not in choices
    ]


def search_limits(config: Config, runtime: str, missing: tuple[str, ...]) -> list[str]:
    """Return a message for each search setting that a runtime has not, where it is not off.

    ``missing`` are the keys of ``decode`` that the runtime has no option for. Each message names
    the key and the value that turns it off.
    """
    decode, off = config.decode, DecodeConfig()
    found, accepted = [], ("greedy", "beam")
    if decode.method not in accepted:
        found.append(
            f"decode.method: {runtime} has no '{decode.method}', expected {one_of(accepted)}"
        )
    for key in missing:
        if key == "replace_unknown" and config.data.tokenizer.kind != "spacy":
            continue  # subwords know every word
        if getattr(decode, key) != getattr(off, key):
            value = str(getattr(off, key)).lower()
            found.append(
                f"decode.{key}: {runtime} has no such option; decode.{key}={value} exports the run "
                "without"
            )
    return found


def refuse(limits: list[str]) -> None:
    """Refuse to export what a runtime cannot do.

    Raises:
        DragomanError: with every limit, if there is one.
    """
    if limits:
        raise DragomanError("; ".join(limits))


def require(package: str) -> None:
    """Refuse to go on without the package of one of Dragoman's extras, which has its name.

    Raises:
        DragomanError: saying how to install it.
    """
    if find_spec(package) is None:
        raise DragomanError(
            f"--format {package}: the package {package} is not installed; "
            f"pip install 'dragoman[{package}]' brings it"
        )
