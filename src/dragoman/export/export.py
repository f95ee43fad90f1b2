"""Write a trained run into a folder to hand on, with all that translating takes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError, one_of
from dragoman.export import ctranslate2, onnx, release
from dragoman.export.usage import Usage, program, readme
from dragoman.files import write_atomic

_MARK = "Exported by Dragoman"  # README.txt begins so


def export(translator: Translator, format: str, quantization: str, origin: str) -> dict[str, bytes]:
    """Return the files of an exported run by name.

    Args:
        translator: one model and its tokenizers.
        format: one of ``FORMATS``.
        quantization: ``float32``, ``float16`` or ``int8``.
        origin: names the run, its checkpoint and the weights.

    Raises:
        DragomanError: if the format cannot express the run or has no such quantization, or its
            package is not installed.
    """
    if len(translator.models) > 1:
        raise DragomanError("export: name one run; an ensemble has no single model to write")
    write, quantizations = FORMATS[format]
    if quantization not in quantizations:
        raise DragomanError(
            f"--quantization: --format {format} has no {quantization}, expected "
            f"{one_of(quantizations)}"
        )
    files, usage = write(translator, quantization)
    config = translator.config
    if usage is None:
        texts = {"README.txt": release.readme(config.data.src, config.data.tgt, origin)}
    else:
        texts = {
            "translate.py": program(config, usage),
            "README.txt": readme(config, usage, origin),
        }
    return {
        **files,
        **translator.src_tokenizer.files("src"),
        **translator.tgt_tokenizer.files("tgt"),
        **{name: text.encode() for name, text in texts.items()},
    }


def write_export(folder: Path, files: dict[str, bytes]) -> None:
    """Write a folder, whole or not at all; an earlier export there is replaced.

    Raises:
        DragomanError: if it cannot be written, or holds something else.
    """
    folder = folder.absolute()  # also "." has a name then
    if folder.exists() and not _replaceable(folder):
        raise DragomanError(
            f"{folder}: is there already and no earlier export; --output names another folder"
        )
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        fresh.mkdir(parents=True)
        for name, content in files.items():
            write_atomic(fresh / name, content)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except OSError as problem:
        raise DragomanError(f"{folder}: cannot be written ({problem.strerror})") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replaceable(folder: Path) -> bool:
    """Whether there is nothing to lose: an empty folder or an export."""
    try:
        if not any(folder.iterdir()):
            return True
        return (folder / "README.txt").read_text(encoding="utf-8").startswith(_MARK)
    except (OSError, UnicodeDecodeError):
        return False


class Format(NamedTuple):
    """What writes a format, and the number formats it writes weights in."""

    write: Callable[[Translator, str], tuple[dict[str, bytes], Usage | None]]
    quantizations: tuple[str, ...]


FORMATS = {
    "dragoman": Format(release.export, ("float32", "float16")),
    "ctranslate2": Format(ctranslate2.export, ("float32", "int8")),
    "onnx": Format(onnx.export, ("float32",)),
}
