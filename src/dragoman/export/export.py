"""Write a trained run into a folder to hand on, with all that translating takes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dragoman import __version__
from dragoman.errors import DragomanError, one_of
from dragoman.files import recover, whole_folder
from dragoman.plugins import look_up

if TYPE_CHECKING:  # the table of formats is there without PyTorch
    from dragoman.decoding.translator import Translator

# Lists the files of an export, so that the next one into the same folder takes away no others.
MANIFEST = "export.json"
_MARK = "Exported by Dragoman"  # README.txt begins so where there is no list yet


class Format(NamedTuple):
    """What writes a format: (translator, quantization, origin) -> the files of a folder by name.

    ``origin`` names the run, its checkpoint and the weights. What the format cannot express is a
    ``DragomanError`` that names all of it.
    """

    write: Callable[[Translator, str, str], dict[str, bytes]]
    quantizations: tuple[str, ...] = ("float32",)
    suits: str = ""  # one line of help


def _of(module: str) -> Callable[..., dict[str, bytes]]:
    """Return the ``export`` of a module of this room, which is imported when it is called."""

    def write(*arguments: Any) -> dict[str, bytes]:
        files: dict[str, bytes] = import_module(f"dragoman.export.{module}").export(*arguments)
        return files

    return write


FORMATS = {
    "dragoman": Format(_of("release"), ("float32", "float16"), "a RUN to hand on"),
    "ctranslate2": Format(_of("ctranslate2"), ("float32", "int8"), "Transformers"),
    "onnx": Format(_of("onnx"), suits="recurrent models"),
}


def export(translator: Translator, format: str, quantization: str, origin: str) -> dict[str, bytes]:
    """Return the files of an exported run by name.

    Args:
        translator: one model and its tokenizers.
        format: one of ``FORMATS``.
        quantization: one of the format's.
        origin: names the run, its checkpoint and the weights.

    Raises:
        DragomanError: if there is no such format or quantization, the format cannot express the
            run, or its package is not installed.
    """
    if len(translator.models) > 1:
        raise DragomanError("export: name one run; an ensemble has no single model to write")
    chosen = look_up("export", format, "--format")
    if quantization not in chosen.quantizations:
        raise DragomanError(
            f"--quantization: --format {format} has no {quantization}, expected "
            f"{one_of(chosen.quantizations)}"
        )
    files: dict[str, bytes] = chosen.write(translator, quantization, origin)
    return files


def write_export(folder: Path, files: dict[str, bytes]) -> None:
    """Write a folder, whole or not at all.

    An earlier export there is replaced; files that it did not write stay as they are.

    Raises:
        DragomanError: if it cannot be written, or holds something that is no export.
    """
    folder = folder.resolve()  # also "." has a name then
    manifest = {"dragoman": __version__, "files": sorted({*files, MANIFEST})}
    try:
        recover(folder)
        foreign = _foreign(folder, set(manifest["files"]))
        with whole_folder(folder) as fresh:
            for path in foreign:
                if path.is_dir() and not path.is_symlink():
                    shutil.copytree(path, fresh / path.name, symlinks=True, copy_function=_link)
                else:
                    _link(path, fresh / path.name)
            for name, content in {**files, MANIFEST: json.dumps(manifest).encode()}.items():
                (fresh / name).write_bytes(content)
    except OSError as problem:
        reason = problem.strerror or problem
        raise DragomanError(f"{folder}: cannot be written ({reason})") from None


def _foreign(folder: Path, names: set[str]) -> list[Path]:
    """Return what is in a folder and was not written by the export there.

    Raises:
        DragomanError: if there is no export, or ``names`` has one of these files.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return []
    ours = _written(folder, names)
    if ours is None:
        raise DragomanError(
            f"{folder}: is there already and no earlier export; --output names another folder"
        )
    found = [path for path in sorted(folder.iterdir()) if path.name not in ours]
    for path in found:
        if path.name in names:
            raise DragomanError(
                f"{path}: was not written by the earlier export there and would be lost; move it, "
                "or let --output name another folder"
            )
    return found


def _written(folder: Path, names: set[str]) -> set[str] | None:
    """Return the files of the export in a folder; None: there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return set(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    with suppress(OSError, ValueError):
        if (folder / "README.txt").read_text(encoding="utf-8").startswith(_MARK):
            return names  # all that is known of exports before there were lists
    return None


def _link(path: str | Path, target: str | Path) -> None:
    """Have the same file in two folders; a copy of it where the file system has no such links."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(path, target, follow_symlinks=False)
