"""Exported folders: they translate by themselves, say how, and replace nothing but their like."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

import tiny
import tinyruns
import tinytokens
from dragoman.cli import main, parser
from dragoman.config import Config, CorpusConfig, DataConfig, TokenizerConfig
from dragoman.decoding.translator import Translator, load_translator
from dragoman.errors import DragomanError
from dragoman.export import limits
from dragoman.export.export import FORMATS, MANIFEST, Format, export, write_export
from dragoman.models.seq2seq import build_model
from dragoman.models.weights import read_tensors, weights_of
from dragoman.runs import Run, find_run

PAIRS = [
    ("Ein kleiner Hund läuft im Park.", "A small dog runs in the park."),
    ("Die alte Frau springt am Strand.", "The old woman jumps at the beach."),
    ("Ein Junge spielt, und ein Hund bellt!", "A boy plays, and a dog barks!"),
]
# The last one is longer than ``data.max_length``, and one has characters never seen.
LINES = [PAIRS[0][0], "", PAIRS[1][0], "  ", "Ein  Hund (☃☃) spielt", " ".join(["Hund"] * 60)]
MODELS = {
    "ctranslate2": tiny.transformer(tie_embeddings="none", d_model=32, d_ff=32),
    "onnx": tiny.rnn(d_embed=32, d_model=32),
}


def needs(format: str) -> None:
    for package in {"ctranslate2": ["ctranslate2"], "onnx": ["onnx", "onnxruntime"]}[format]:
        pytest.importorskip(package, reason=f"needs dragoman[{format}]")


def translator(format: str, tag: str | None = None, **tokenizer: Any) -> Translator:
    """Return a model with random weights and tokenizers trained on ``PAIRS``."""
    kinds = TokenizerConfig(**{"vocab_size": 50, **tokenizer})
    data = DataConfig(max_length=40, corpora=[CorpusConfig(tag=tag)], tokenizer=kinds)
    # Random weights go on and on: every line has another limit, and is cut there.
    decode = tiny.decode(method="greedy", max_length_ratio=0.7, max_length_extra=3)
    config = Config(data=data, model=MODELS[format], decode=decode)
    tags = [] if tag is None else [tag]
    src, tgt = tinytokens.train_tokenizers(kinds, PAIRS, tags=tags)
    model = build_model(config.model, len(src), len(tgt), seed=3).eval()
    with torch.no_grad():  # fresh weights say the same of every source
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    return Translator([model], src, tgt, config, torch.device("cpu"))


@pytest.mark.parametrize("format", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"joint": False, "lowercase": True, "vocab_size": 32, "tag": "<2en>"},
        {"algorithm": "bpe", "byte_fallback": True, "vocab_size": 330, "tag": "<2en>"},
        {"kind": "spacy"},
        {"kind": "spacy", "form": "plain", "lowercase": True, "tag": "<2en>"},
    ],
    ids=["joint", "apart", "bytes", "words", "plain"],
)
def test_the_program_in_the_folder_translates_the_same(
    format: str, options: dict[str, Any], tmp_path: Path
) -> None:
    needs(format)
    whole = translator(format, **options)
    write_export(tmp_path / "there", export(whole, format, "float32", "run r, step-1"))
    namespace = runpy.run_path(str(tmp_path / "there" / "translate.py"))
    lines = [line for line in LINES if len(whole.encode_line(line)) <= whole.longest]
    assert len(lines) == len(LINES) - 1  # the program cuts what Dragoman translates in parts
    assert len(namespace["translate"](LINES)) == len(LINES)
    ours = [found[0].text for found in whole.translate_lines(lines, whole.config.decode)]
    assert namespace["translate"](lines) == ours
    assert len(set(ours)) > 2
    assert len({len(whole.tgt_tokenizer.encode(text)) for text in ours}) > 2
    assert ours[1] == ours[3] == ""


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tinyruns.trained(tmp_path_factory)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("run", "format"), [("one", "ctranslate2"), ("words", "onnx")])
def test_the_command_and_its_readme(
    run: str,
    format: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs(format)
    folder = tmp_path / "there"
    search = ["decode.method=greedy", "decode.max_length_ratio=0", "decode.replace_unknown=false"]
    if format == "ctranslate2":
        search += ["decode.no_repeat_ngram=1"]
    words = ["export", run, "--format", format, "--output", str(folder), *search]
    assert main(words) == 0
    assert str(folder) in capsys.readouterr().out
    readme = (folder / "README.txt").read_text("utf-8")
    assert f"run {run}, step-" in readme
    (command,) = (line.strip() for line in readme.splitlines() if "translate.py <" in line)
    text = (home / "text" / "test.de").read_text("utf-8") + "\nEin hund."
    (folder / "in.txt").write_text(text, "utf-8")
    subprocess.run(
        command.replace("python", sys.executable, 1),
        shell=True,
        cwd=folder,
        env=tinyruns.environment(),
        check=True,
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["translate", run, *search]) == 0
    assert (folder / "out.txt").read_text("utf-8") + "\n" == capsys.readouterr().out


def test_the_default_folder_is_in_the_run(home: Path) -> None:
    needs("ctranslate2")
    for quantization, name in (("float32", "ctranslate2"), ("int8", "ctranslate2-int8")):
        words = ["export", "two", "--format", "ctranslate2", "--quantization", quantization]
        assert main(words) == 0
        assert (home / "checkpoints" / "two" / name / "model.bin").is_file()


@pytest.mark.parametrize(("run", "quantization"), [("one", "float16"), ("words", "float32")])
def test_an_exported_run_is_a_run(
    run: str,
    quantization: str,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    words = ["export", run, "--format", "dragoman", "--output", str(folder)]
    assert main([*words, "--quantization", quantization]) == 0
    assert f"run {run}, step-" in (folder / "README.txt").read_text("utf-8")
    there, here = load_translator([Run(folder)]), load_translator([find_run(run)])
    written = (folder / "config.yaml").read_text("utf-8")
    assert here.config.data.cache not in written
    assert here.config.checkpoint_dir not in written
    exact = quantization == "float32"
    for name, weight in weights_of(cast(nn.Module, here.models[0])).items():
        stored = read_tensors(folder / "model.safetensors")[name]
        assert stored.dtype == (torch.float32 if exact else torch.float16)
        loaded = weights_of(cast(nn.Module, there.models[0]))[name]
        assert loaded.dtype == torch.float32
        torch.testing.assert_close(loaded, weight, rtol=0 if exact else 1e-3, atol=1e-6)
    split = ["--split", "test", "--root", str(home / "text")]
    assert main(["evaluate", str(folder), *split]) == 0
    assert main(["report", str(folder), *split]) == 0
    assert "There is no log" in (folder / "report.test.html").read_text("utf-8")
    capsys.readouterr()


def test_an_exported_run_cannot_be_trained_on(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "run"
    words = ["export", "one", "--format", "dragoman", "--output", str(folder)]
    assert main(words) == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DragomanError, match=r"exported run.*run_name.*train\.init_from"):
        Run(folder).create()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(DragomanError, match="there is no checkpoint 'step-5', expected best"):
        Run(folder).checkpoint("step-5")


def test_a_weight_too_large_for_half_precision_is_named(home: Path) -> None:
    whole = load_translator([find_run("one")])
    name, weight = next(iter(weights_of(cast(nn.Module, whole.models[0])).items()))
    weight.view(-1)[0] = 1e6
    with pytest.raises(DragomanError, match=f"--quantization: {name} does not fit into float16"):
        export(whole, "dragoman", "float16", "run one")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return the one line that a refused command prints."""
    capsys.readouterr()
    assert main(["export", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_refusals(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "model.name" in refusal(capsys, "words", "--format", "ctranslate2")
    assert "model.name" in refusal(capsys, "one", "--format", "onnx")
    for run, format, unknown in (
        ("words", "onnx", "int8"),
        ("one", "dragoman", "int8"),
        ("one", "ctranslate2", "float16"),
    ):
        words = [run, "--format", format, "--quantization", unknown]
        assert f"has no {unknown}, expected float32" in refusal(capsys, *words)
    for run, format, search in (
        ("words", "onnx", "min_length=2"),
        ("words", "onnx", "no_repeat_ngram=2"),
        ("words", "onnx", "replace_unknown=true"),
        ("words", "onnx", "method=mbr"),
        ("one", "ctranslate2", "method=sample"),
    ):
        off = "decode.replace_unknown=false"  # which this run has on
        said = refusal(capsys, run, "--format", format, off, f"decode.{search}")
        assert said.startswith(f"error: decode.{search.partition('=')[0]}: ")
    assert "one run" in refusal(capsys, "one", "two", "--format", "ctranslate2")


def test_a_missing_package_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "find_spec", lambda name: None)
    for run, format in (("one", "ctranslate2"), ("words", "onnx")):
        said = refusal(capsys, run, "--format", format, "decode.replace_unknown=false")
        assert f"dragoman[{format}]" in said


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file in and under a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


OLD = {"README.txt": b"Exported by Dragoman", "model": b"old", "vocabulary": b"old"}
NEW = {"README.txt": b"Exported by Dragoman", "model": b"new", "translate.py": b"new"}
FOREIGN = {"notes.txt": b"mine", "mine/deep/notes.txt": b"mine"}


def with_an_old_export(folder: Path) -> Path:
    """Write ``OLD`` into a folder, and ``FOREIGN`` beside it by hand."""
    write_export(folder / "there", OLD)
    for name, content in FOREIGN.items():
        path = folder / "there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "there" / "link").symlink_to("nowhere")
    return folder / "there"


def test_an_export_is_replaced_and_everything_else_stays(tmp_path: Path) -> None:
    folder = with_an_old_export(tmp_path)
    inode = (folder / "notes.txt").stat().st_ino
    write_export(folder, NEW)
    found = contents(folder)
    assert set(json.loads(found.pop(MANIFEST))["files"]) == {*NEW, MANIFEST}
    assert found == {**NEW, **FOREIGN}
    assert (folder / "notes.txt").stat().st_ino == inode
    assert (folder / "link").readlink() == Path("nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_export_of_an_earlier_version_is_replaced(tmp_path: Path) -> None:
    folder = with_an_old_export(tmp_path)
    (folder / MANIFEST).unlink()  # what it wrote is not known: nothing of it is removed
    write_export(folder, NEW)
    found = contents(folder)
    del found[MANIFEST]
    assert found == {**OLD, **NEW, **FOREIGN}


def test_a_foreign_file_with_the_name_of_a_new_one_is_no_ones_to_replace(tmp_path: Path) -> None:
    folder = with_an_old_export(tmp_path)
    (folder / "translate.py").write_text("mine")
    before = contents(folder)
    with pytest.raises(DragomanError, match=r"translate\.py: was not written by .*--output"):
        write_export(folder, NEW)
    assert contents(folder) == before


def test_a_kill_leaves_the_old_export_or_the_new_one(tmp_path: Path) -> None:
    """Killed at every call that changes the disk, each time from the start."""
    endings = set()
    for last in itertools.count():
        home = tmp_path / str(last)
        home.mkdir()
        folder = with_an_old_export(home)
        old = contents(folder)
        killed = dies_at_call(last, folder)
        whole = folder if folder.exists() else folder.with_name(".there.old")
        found = contents(whole)
        endings.add("old" if found == old else "new")
        if found != old:
            assert {name: found[name] for name in {**NEW, **FOREIGN}} == {**NEW, **FOREIGN}
            assert "vocabulary" not in found
        write_export(folder, NEW)
        assert contents(folder).keys() == {*NEW, *FOREIGN, MANIFEST}
        assert [path.name for path in home.iterdir()] == ["there"]
        if not killed:
            break
    assert last > 10
    assert endings == {"old", "new"}


def dies_at_call(last: int, folder: Path) -> bool:
    """Write ``NEW`` in a process that ends before its change ``last`` to the disk; whether so."""
    child = os.fork()
    if child == 0:
        calls = itertools.count()

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            changes = event in CHANGES or (event == "open" and arguments[2] & os.O_WRONLY)
            if changes and next(calls) == last:
                os._exit(9)

        sys.addaudithook(hook)
        try:
            write_export(folder, NEW)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


CHANGES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir"}


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_is_no_export_is_left_alone(what: str, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    if what == "folder":
        target.mkdir()
        (target / "README.txt").write_text("Mine.")
    else:
        target.write_text("Mine.")
    with pytest.raises(DragomanError, match=r"mine: is there already.*--output"):
        write_export(target, NEW)
    assert (target / "README.txt" if what == "folder" else target).read_text() == "Mine."
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    write_export(tmp_path / "new", {"a": b"1"})
    assert (tmp_path / "new" / "a").read_bytes() == b"1"


def test_a_format_is_a_function_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(translator: Translator, quantization: str, origin: str) -> dict[str, bytes]:
        return {"README.txt": f"{origin} in {quantization}".encode()}

    monkeypatch.setitem(FORMATS, "text", Format(write, suits="whoever reads"))
    whole = translator("onnx")
    assert export(whole, "text", "float32", "run r") == {"README.txt": b"run r in float32"}
    with pytest.raises(DragomanError, match=r"--format text has no int8, expected float32"):
        export(whole, "text", "int8", "run r")
    with pytest.raises(DragomanError, match=r"^--format: .*'txt', expected .*did you mean 'text'"):
        export(whole, "txt", "float32", "run r")


def test_the_command_offers_every_format() -> None:
    (commands,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    (option,) = (a for a in commands.choices["export"]._actions if a.dest == "format")
    assert all(name in option.help for name in FORMATS)
