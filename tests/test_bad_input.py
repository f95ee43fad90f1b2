"""Bad and odd input, one table: what is accepted, and what is refused in one clear line.

A refusal is an exit code other than 0 and exactly one line ``error: ...`` at the end of standard
error, no traceback, and nothing that was saved is lost.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import lzma
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import tinyruns
from dragoman.cli import main
from dragoman.errors import DragomanError, report
from dragoman.launch import read_command_line, run_training
from dragoman.runs import Run
from dragoman.training import checkpoint as checkpoint_module

LINE = "Ein kleiner hund läuft im park."


class Bench:
    """What a case works with: a folder of its own, and runs it may read or copy."""

    def __init__(self, home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.folder, self.monkeypatch = home, folder, monkeypatch

    # Training.

    def compose(self, *arguments: str) -> int:
        """Type something after ``train.py`` that never gets as far as training."""
        try:
            read_command_line(arguments)
        except DragomanError as problem:
            return report(problem)
        return 0

    def train(self, **changes: Any) -> int:
        """Train two steps on the text in ``folder/text``, or on that of the trained runs."""
        options = {"train__max_steps": 2, "checkpoint_dir": str(self.folder / "checkpoints")}
        place = self.folder if (self.folder / "text").exists() else self.home
        try:
            config = tinyruns.config(place, **{**options, **changes})
        except DragomanError as problem:
            return report(problem)
        return run_training(config, None)

    def text(self, change: Callable[[bytes], bytes]) -> Path:
        """Copy the text, change its German training file, and return that file."""
        shutil.copytree(self.home / "text", self.folder / "text")
        path = self.folder / "text" / "train.de"
        path.write_bytes(change(path.read_bytes()))
        return path

    def trained_on(self, change: Callable[[bytes], bytes], **changes: Any) -> int:
        """Train on text one file of which was changed."""
        self.text(change)
        return self.train(**changes)

    def weights(self) -> bytes:
        run = Run(self.folder / "checkpoints" / "run")
        return (run.checkpoint("last") / "model.safetensors").read_bytes()

    def same_as_plain(self, change: Callable[[bytes], bytes]) -> int:
        """Train on changed text and on the text as it was: both give the same weights."""
        assert self.trained_on(change) == 0
        changed = self.weights()
        shutil.rmtree(self.folder / "checkpoints")
        shutil.rmtree(self.folder / "text")
        assert self.train() == 0
        assert self.weights() == changed
        return 0

    def multi30k(self, **changes: Any) -> int:
        corpora = [{"source": "multi30k", "src": changes.get("data__src", "de")}]
        options = {"data__name": "multi30k", "data__files": {}, "data__corpora": corpora}
        return self.train(**{**options, **changes})

    # Runs.

    def copy(self, name: str = "one") -> Path:
        """Return a copy of a trained run that may be broken."""
        return Path(shutil.copytree(self.home / "checkpoints" / name, self.folder / "copy" / name))

    def broken(self, file: str, change: Callable[[Path], object], *words: str) -> int:
        """Break a file of a copied run's best checkpoint, and translate with it.

        The checkpoint is one of those that have no digests yet, so that the file is looked into.
        """
        run = self.copy()
        change(undigested(Run(run).checkpoint()) / file)
        return self.dragoman("translate", str(run), *words)

    def resumed(self, file: str, change: Callable[[Path], object], **changes: Any) -> int:
        """Train a run, break a file of its last checkpoint (without digests), and train on."""
        assert self.train() == 0
        run = Run(self.folder / "checkpoints" / "run")
        change(undigested(run.checkpoint("last")) / file)
        before = snapshot(run.folder)
        code = self.train(**{"train__max_steps": 4, **changes})
        assert snapshot(run.folder) == before
        return code

    def dragoman(self, *words: str, stdin: bytes = LINE.encode()) -> int:
        """Type ``dragoman`` and words behind it."""
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            return main(list(words))
        except SystemExit as leaving:
            return int(str(leaving.code))


def undigested(checkpoint: Path) -> Path:
    """Leave the digests out of a checkpoint, as an older version did; return it."""
    state = json.loads((checkpoint / STATE).read_text())
    (checkpoint / STATE).write_text(json.dumps({**state, "digests": {}}))
    return checkpoint


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return what is saved in a folder: checkpoints, pointers, config."""
    files = (path for path in folder.rglob("*") if path.is_file())
    kept = (p for p in files if p.suffix in {"", ".safetensors", ".json", ".yaml", ".model"})
    return {str(path): path.read_bytes() for path in kept if path.name != ".lock"}


def overwrite(content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def remove(path: Path) -> None:
    path.unlink()


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        found = load_file(path)
        change(found)
        save_file(found, path)

    return rewrite


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def swap(old: str, new: str) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return rewrite


def entries(**changes: Any) -> Callable[[Path], None]:
    """Change entries of a JSON file."""

    def rewrite(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return rewrite


def line(number: int, content: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        lines = data.split(b"\n")
        lines[number - 1] = content
        return b"\n".join(lines)

    return change


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def packed(bench: Bench, cut: int) -> int:
    path = bench.text(lambda data: data)
    data = gzip.compress(path.read_bytes())
    path.with_name("train.de.gz").write_bytes(data[:cut] if cut else data)
    path.unlink()
    return bench.train()


def folder_for_file(bench: Bench) -> int:
    path = bench.text(lambda data: data)
    path.unlink()
    path.mkdir()
    return bench.train()


def missing_file(bench: Bench) -> int:
    bench.text(lambda data: data).unlink()
    return bench.train()


def missing_validation_file(bench: Bench) -> int:
    path = bench.text(lambda data: data)
    path.with_name("val.de").unlink()
    bench.monkeypatch.setattr("dragoman.training.trainer.train_or_load_tokenizers", too_early)
    return bench.train()


def too_early(*_: Any) -> Any:
    raise AssertionError("all files are looked for before anything slow begins")


def validation_text_again(bench: Bench) -> int:
    path = bench.text(lambda data: data)
    for code in ("de", "en"):
        shutil.copy(path.with_name(f"val.{code}"), path.with_name(f"more.{code}"))
    files = {"train": "train.{lang}", "val": "val.{lang}", "more": "more.{lang}"}
    corpora = [{"source": "files"}, {"source": "files", "split": "more"}]
    return bench.train(data__files=files, data__corpora=corpora)


def split_that_leads_elsewhere(bench: Bench) -> int:
    run, split = bench.copy(), "../../victim/pwned"
    (bench.folder / "victim").mkdir()
    for path in run.rglob("config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["data"]["files"][split] = config["data"]["files"]["val"]
        config["data"]["validation_split"] = split
        path.write_text(yaml.safe_dump(config))
    code = bench.dragoman("evaluate", str(run))
    assert not list((bench.folder / "victim").iterdir())
    return code


def pipe_read_twice(bench: Bench) -> int:
    pipe = bench.folder / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_text, args=(f"{LINE}\n",), daemon=True).start()
    output = str(bench.folder / "made")
    return bench.dragoman("backtranslate", "one", "--input", str(pipe), "--output", output)


def table_file(name: str, content: str) -> Callable[[Bench], int]:
    def case(bench: Bench) -> int:
        (bench.text(lambda data: data).parent / name).write_text(content, encoding="utf-8")
        return bench.train(data__files={"train": name, "val": "val.{lang}"})

    return case


def wrong_checksum(bench: Bench) -> int:
    path = bench.text(lambda data: data)
    path.with_name("train.de.gz").write_bytes(gzip.compress(path.read_bytes()))
    return bench.multi30k()


def no_network(bench: Bench) -> int:
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        bench.monkeypatch.setattr("dragoman.data.multi30k.BACKOFF_SECONDS", 0.0)
        return main(["data", "--root", str(bench.folder), "--from", url])


def file_in_the_way(key: str) -> Callable[[Bench], int]:
    def case(bench: Bench) -> int:
        (bench.folder / "taken").write_text("not a folder")
        return bench.train(**{key: str(bench.folder / "taken")})

    return case


def full_while_saving(bench: Bench) -> int:
    assert bench.train() == 0
    run = Run(bench.folder / "checkpoints" / "run")
    before = snapshot(run.folder / "step-2")
    with bench.monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_tensors", full_disk)
        code = bench.train(train__max_steps=4, train__checkpoint_every=1)
    assert run.checkpoint("last").name == "step-2"
    assert snapshot(run.folder / "step-2") == before
    assert bench.train(train__max_steps=4) == 0  # goes on once there is room
    assert run.checkpoint("last").name == "step-4"
    return code


def full_cache(bench: Bench) -> int:
    bench.monkeypatch.setattr("dragoman.files._sync", full_disk)
    return bench.train(data__cache=str(bench.folder / "cache"))


def in_use(bench: Bench) -> int:
    run = Run(bench.folder / "checkpoints" / "run")
    run.create()
    (run.folder / "config.yaml").touch()
    with run.lock():
        return bench.train()


def changed_text(bench: Bench) -> int:
    path = bench.text(lambda data: data)
    assert bench.train() == 0
    path.write_bytes(line(3, b"Hund.")(path.read_bytes()))
    return bench.train(train__max_steps=4)


def other_tokenizer(bench: Bench) -> int:
    output = str(bench.folder)
    return bench.dragoman("evaluate", "one", "words", "--output", output)


def cut_line(bench: Bench) -> int:
    long = ("hund " * 90).strip()
    assert bench.dragoman("translate", "one", stdin=f"{LINE}\n{long}\n".encode()) == 0
    return 0


def empty_lines(bench: Bench) -> int:
    assert bench.dragoman("translate", "one", stdin=f"\n{LINE}\n\n  \n".encode()) == 0
    return 0


def full_output(bench: Bench) -> int:
    return bench.dragoman("translate", "one", "--output", "/dev/full")


ACCEPTED: dict[str, tuple[Callable[[Bench], int], str]] = {
    "byte-order mark": (lambda b: b.same_as_plain(lambda d: b"\xef\xbb\xbf" + d), ""),
    "CRLF": (lambda b: b.same_as_plain(lambda d: d.replace(b"\n", b"\r\n")), ""),
    "no final newline": (lambda b: b.same_as_plain(lambda d: d.removesuffix(b"\n")), ""),
    "doubled spaces": (lambda b: b.same_as_plain(lambda d: d.replace(b" ", b"  \t")), ""),
    "spaces at the ends": (
        lambda b: b.same_as_plain(lambda d: b" " + d.replace(b"\n", b" \n")),
        "",
    ),
    "gzip": (lambda b: packed(b, 0), "120 of 120 training pairs"),
    "xz": (lambda b: b.trained_on(lzma.compress), "120 of 120 training pairs"),
    "line separators inside a line": (
        lambda b: b.trained_on(line(2, "Hund\u2028läuft\x85.".encode())),
        "120 of 120 training pairs",
    ),
    "empty training line": (
        lambda b: b.trained_on(line(2, b"")),
        "119 of 120 training pairs (1 empty, 0 too long left out)",
    ),
    "over-long training line": (
        lambda b: b.trained_on(line(2, b"hund " * 90)),
        "119 of 120 training pairs (0 empty, 1 too long left out)",
    ),
    "over-long line to translate": (
        cut_line,
        "warning: 1 lines were translated in parts",
    ),
    "empty line to translate": (empty_lines, ""),
    "byte-order mark to translate": (
        lambda b: b.dragoman("translate", "one", stdin=b"\xef\xbb\xbf" + LINE.encode()),
        "",
    ),
    "nothing to translate": (lambda b: b.dragoman("translate", "one", stdin=b""), ""),
    "unseen characters": (
        lambda b: b.dragoman("translate", "one", stdin="犬が走る 🐕\n".encode()),
        "warning: 5 characters are not in the model's vocabulary: 犬 が 走 る 🐕",
    ),
}

MODEL, STATE, CONFIG = "model.safetensors", "state.json", "config.yaml"
NAME = "src_embedding.weight"

REFUSED: dict[str, tuple[Callable[[Bench], int], str]] = {
    # Text.
    "missing file": (missing_file, "train.de: no such file"),
    "missing validation file": (
        missing_validation_file,
        "val.de: no such file (data.files.val)",
    ),
    "validation text under another name": (
        validation_text_again,
        "data.corpora.1.split: 'more' is the text of the split 'val', which is for evaluation",
    ),
    "split that leads elsewhere": (
        split_that_leads_elsewhere,
        "config.yaml: data.files: '../../victim/pwned' is not accepted, expected the name of",
    ),
    "pipe that is read twice": (pipe_read_twice, "pipe: cannot be read (a pipe or device gives"),
    "zip archive": (
        lambda b: b.trained_on(lambda d: b"PK\x03\x04" + d),
        "train.de: looks like a zip archive, expected UTF-8 text",
    ),
    "folder for a file": (folder_for_file, "train.de: is a folder, expected a file"),
    "empty file": (lambda b: b.trained_on(lambda d: b""), "train.de: the file is empty"),
    "unequal files": (
        lambda b: b.trained_on(lambda d: d + b"Hund.\n"),
        "has 121 lines but",
    ),
    "truncated gzip": (lambda b: packed(b, 300), "train.de.gz: the gzip file is truncated"),
    "corrupt gzip": (
        lambda b: b.trained_on(lambda d: b"\x1f\x8b" + d),
        "train.de: the gzip file is corrupt",
    ),
    "invalid UTF-8": (
        lambda b: b.trained_on(line(7, b"gro\xdfe")),
        "train.de: line 7: not valid UTF-8 (byte 0xdf at byte 4 of the line)",
    ),
    "NUL byte": (lambda b: b.trained_on(line(5, b"Hund\0")), "train.de: line 5: holds a NUL byte"),
    "UTF-16": (
        lambda b: b.trained_on(lambda d: d.decode().encode("utf-16")),
        "train.de: looks like UTF-16, expected UTF-8 text",
    ),
    "only empty lines": (
        lambda b: b.trained_on(lambda d: b"\n" * 120),
        "the training text has no word on the source side",
    ),
    "all lines too long": (
        lambda b: b.train(data__max_length=2),
        "data.max_length: none of the 120 training pairs",
    ),
    "table without a tab": (table_file("t.tsv", "a\tb\nc d\n"), "t.tsv: line 2: 1 column"),
    "broken JSON": (table_file("t.jsonl", '{"de": "a", "en": "b"}\n{"de"\n'), "line 2: not valid"),
    "JSON without a language": (table_file("t.jsonl", '{"de": "a"}\n'), "no key 'en'"),
    "file name without a format": (
        table_file("t.txt", "a"),
        "t.txt: does not look like sentence pairs; expected two columns separated by a tab",
    ),
    "unknown split of files": (
        lambda b: b.train(data__validation_split="vla"),
        "data.files has no split 'vla', expected train, val or test; did you mean 'val'?",
    ),
    # Named data sets.
    "unknown language": (
        lambda b: b.multi30k(data__src="dee"),
        "Multi30k has no language 'dee', expected de, en, fr or cs; did you mean 'de'?",
    ),
    "split that Czech lacks": (
        lambda b: b.multi30k(
            data__src="cs",
            data__corpora=[{"source": "multi30k", "src": "cs", "split": "test_2017_flickr"}],
        ),
        "Multi30k in cs and en has no split 'test_2017_flickr', expected train, val",
    ),
    "unknown split of Multi30k": (
        lambda b: b.multi30k(data__validation_split="test_2016_flikr"),
        "did you mean 'test_2016_flickr'?",
    ),
    "Multi30k not fetched": (
        lambda b: b.multi30k(data__root=str(b.folder)),
        "train.de.gz: no such file; `make data` fetches Multi30k",
    ),
    "wrong checksum": (wrong_checksum, "train.de.gz: not the file of Multi30k (wrong SHA-256"),
    "no network": (no_network, "no connection"),
    "language of the embedded corpus": (
        lambda b: b.train(
            data__name="captions",
            data__src="fr",
            data__corpora=[{"source": "captions", "src": "fr"}],
        ),
        "captions has no language 'fr', expected de or en",
    ),
    # The command line of train.py; more of it in test_compose.
    "unknown experiment": (lambda b: b.compose("+experiment=tutrial"), "did you mean 'tutorial'?"),
    "experiment without plus": (lambda b: b.compose("experiment=demo"), "+experiment=demo"),
    "unknown key": (lambda b: b.compose("train.lrate=1"), "no key 'train.lrate'"),
    "unknown key with plus": (lambda b: b.compose("+train.foo=1"), "there is no key 'train.foo'"),
    "wrong group name": (lambda b: b.compose("modle=rnn"), "did you mean 'model'?"),
    "wrong type": (
        lambda b: b.compose("train.lr=fast"),
        "'fast' is not accepted",
    ),
    "out of range": (lambda b: b.compose("model.dropout=-1"), "expected at least 0"),
    "indivisible heads": (lambda b: b.compose("model.num_heads=7"), "7 heads do not divide"),
    "three_way without a joint vocabulary": (
        lambda b: b.compose("model.tie_embeddings=three_way", "data.tokenizer.joint=false"),
        "model.tie_embeddings: three_way needs a joint sentencepiece data.tokenizer",
    ),
    # Vocabularies.
    "vocabulary too large": (
        lambda b: b.train(data__tokenizer__vocab_size=90000),
        "data.tokenizer.vocab_size: 90000 is too large for this text, expected at most",
    ),
    "vocabulary too small": (
        lambda b: b.train(data__tokenizer__vocab_size=9),
        "data.tokenizer.vocab_size: 9 is too small for the characters",
    ),
    # Places.
    "no cache": (lambda b: b.compose("data.cache="), "data.cache: '' is not a path, expected a"),
    "checkpoint_dir of a name too long": (
        lambda b: b.train(checkpoint_dir=str(b.folder / ("x" * 300)), run_name=None),
        "cannot make the run folder (File name too long); choose another checkpoint_dir",
    ),
    "file for checkpoint_dir": (file_in_the_way("checkpoint_dir"), "cannot make the run folder"),
    "file for the cache": (file_in_the_way("data__cache"), "the token cache cannot be written"),
    "full disk at a checkpoint": (full_while_saving, "cannot be written (No space left on device)"),
    "full disk at the cache": (full_cache, "the token cache cannot be written (No space left"),
    "full disk at the output": (full_output, "No space left on device"),
    "output in no folder": (
        lambda b: b.dragoman("translate", "one", "--output", str(b.folder / "no" / "out")),
        "out: cannot be written (No such file or directory)",
    ),
    "scores in a file's place": (
        lambda b: b.dragoman("evaluate", "one", "--output", str(b.home / "text" / "val.de")),
        "val.de: cannot be written (File exists)",
    ),
    "picture in no folder": (
        lambda b: b.dragoman("attention", "one", "--output", "text/val.de/a.png"),
        "a.png: cannot be written (",
    ),
    # Checkpoints.
    "truncated weights": (lambda b: b.broken(MODEL, truncate), f"{MODEL}: not a readable"),
    "weights that are something else": (
        lambda b: b.broken(MODEL, overwrite(b"PK\x03\x04")),
        f"{MODEL}: not a readable safetensors file",
    ),
    "missing weights": (lambda b: b.broken(MODEL, remove), f"{MODEL}: no such file"),
    "missing tensor": (
        lambda b: b.broken(MODEL, tensors(lambda found: found.pop(NAME))),
        f"not the weights of this model: missing {NAME}",
    ),
    "tensor too many": (
        lambda b: b.broken(MODEL, tensors(lambda found: found.update(extra=torch.ones(1)))),
        "not the weights of this model: unexpected extra",
    ),
    "wrong shape": (
        lambda b: b.broken(MODEL, tensors(lambda found: found.update({NAME: torch.ones(2, 2)}))),
        f"{NAME} is (2, 2), expected (80, 16)",
    ),
    "newer format": (
        lambda b: b.broken(STATE, entries(format_version=9)),
        f"{STATE}: format version 9 is newer than this Dragoman reads (1); update it",
    ),
    "broken state": (lambda b: b.broken(STATE, truncate), f"{STATE}: not a readable checkpoint"),
    "no state": (lambda b: b.broken(STATE, remove), "not a checkpoint (no state.json)"),
    "weights of no known kind": (
        lambda b: b.broken(STATE, entries(scored="ema")),
        "this checkpoint has no ema weights",
    ),
    "config that reads the environment": (
        lambda b: b.broken(CONFIG, overwrite("seed: ${oc.env:HOME}\n")),
        f"{CONFIG}: a saved config must not contain interpolations",
    ),
    "config with an unknown key": (
        lambda b: b.broken(CONFIG, overwrite("sede: 3\n")),
        f"{CONFIG}: there is no key 'sede'; did you mean 'seed'?",
    ),
    "config with a _target_": (
        lambda b: b.broken(CONFIG, overwrite("model: {_target_: os.system, name: rnn}\n")),
        f"{CONFIG}: there is no key 'model._target_'",
    ),
    "config that is no YAML": (
        lambda b: b.broken(CONFIG, overwrite("a: [1\n")),
        f"{CONFIG}: not a readable config",
    ),
    "missing tokenizer": (
        lambda b: b.broken("tokenizer.model", remove),
        "tokenizer.model: no such file",
    ),
    "corrupt tokenizer": (
        lambda b: b.broken("tokenizer.model", overwrite(b"nothing")),
        "tokenizer.model: not a SentencePiece model",
    ),
    "pointer to nowhere": (
        lambda b: b.broken("../best", overwrite("step-99\n")),
        "there is no checkpoint 'best' (the file 'best' names 'step-99'), expected last, step-8 or",
    ),
    "weights that are a device": (
        lambda b: b.broken(MODEL, lambda path: (path.unlink(), path.symlink_to("/dev/zero"))),
        f"{MODEL}: not a readable safetensors file ([Errno 22] not a regular file",
    ),
    "weights that are a pipe": (lambda b: b.broken(MODEL, pipe), f"{MODEL}: not a readable"),
    "config that is a pipe": (lambda b: b.broken(CONFIG, pipe), f"{CONFIG}: not a readable config"),
    "state that is a pipe": (
        lambda b: b.broken(STATE, pipe),
        f"{STATE}: not a readable checkpoint",
    ),
    "pointer that is a pipe": (lambda b: b.broken("../best", pipe), "(the file 'best' names '')"),
    "tokenizer that is a pipe": (
        lambda b: b.broken("tokenizer.model", pipe),
        "tokenizer.model: cannot be read (not a regular file)",
    ),
    "config of a model too large to build": (
        lambda b: b.broken(CONFIG, swap("d_model: 16", "d_model: 65536")),
        f"{NAME} is (80, 16), expected (80, 65536)",
    ),
    "config with aliases": (
        lambda b: b.broken(CONFIG, overwrite("a: &a [x, x]\nb: [*a, *a]\n")),
        f"{CONFIG}: not a readable config (aliases (*name) are not accepted)",
    ),
    "config with an impossible date": (
        lambda b: b.broken(CONFIG, swap("seed: 1\n", "seed: 2001-13-45\n")),
        f"{CONFIG}: not a readable config (month must be in 1..12)",
    ),
    # Resuming.
    "resuming with another value": (
        lambda b: b.resumed(STATE, lambda path: None, train__lr=0.5, seed=3),
        "this run was trained with other values (seed: saved 1, now 3; train.lr: saved 0.01, now "
        "0.5); restore them or choose another run_name",
    ),
    "resuming on other text": (changed_text, "data.files.train (train.{lang} in "),
    "resuming truncated weights": (lambda b: b.resumed(MODEL, truncate), "not a readable"),
    "resuming a truncated optimiser": (
        lambda b: b.resumed("optimizer.safetensors", truncate),
        "optimizer.safetensors: not a readable safetensors file",
    ),
    "resuming half an optimiser": (
        lambda b: b.resumed(
            "optimizer.safetensors", tensors(lambda found: found.pop(f"{NAME}/exp_avg"))
        ),
        f"optimizer.safetensors: not the optimiser of this model: {NAME} does not fit",
    ),
    "resuming from a broken state": (
        lambda b: b.resumed(STATE, entries(step="two")),
        f"{STATE}: not a training state: 'step' is 'two'",
    ),
    "resuming from a pointer to nowhere": (
        lambda b: b.resumed("../last", overwrite("step-99\n")),
        "(the file 'last' names 'step-99'), expected best or step-2; step-2 is whole: "
        "train on from it with train.resume_from=step-2, use it with --checkpoint step-2, or",
    ),
    "resuming without a pointer": (
        lambda b: b.resumed("../last", remove),
        "there is no checkpoint 'last', expected best or step-2; step-2 is whole: train on from it",
    ),
    "run in use": (in_use, "another process is using this run"),
    # Devices.
    "no CUDA": (lambda b: b.train(device="cuda:99"), "device: 'cuda:99' was asked for, but there"),
    "no CUDA to translate": (
        lambda b: b.dragoman("translate", "one", "--device", "cuda:99"),
        "device: 'cuda:99' was asked for",
    ),
    "no device": (
        lambda b: b.dragoman("translate", "one", "--device", "gpu"),
        "device: 'gpu' is not accepted, expected auto, cpu, cuda or cuda:<n>",
    ),
    # The dragoman command.
    "no run": (
        lambda b: b.dragoman("translate", "onne"),
        "onne: not a run folder (no config.yaml in it); did you mean 'one'?",
    ),
    "no run but an override": (lambda b: b.dragoman("translate", "decode.nbest=2"), "name a run"),
    "model key": (
        lambda b: b.dragoman("translate", "one", "model.dropout=0"),
        "model.dropout: only decode.* keys can be changed here; the others are part of the trained",
    ),
    "unknown decoding key": (
        lambda b: b.dragoman("translate", "one", "decode.beamsize=3"),
        "there is no key 'decode.beamsize'; did you mean 'beam_size'?",
    ),
    "decoding key of the wrong type": (
        lambda b: b.dragoman("translate", "one", "decode.beam_size=wide"),
        "decode.beam_size: Value 'wide'",
    ),
    "decoding key that is no value": (
        lambda b: b.dragoman("translate", "one", "decode.beam_size=[3"),
        "decode.beam_size: '[3' is not a value",
    ),
    "decoding key out of range": (
        lambda b: b.dragoman("translate", "one", "decode.nbest=9"),
        "decode.nbest: 9 is more than decode.beam_size=2",
    ),
    "decoding key that is no date": (
        lambda b: b.dragoman("translate", "one", "decode.beam_size=2001-13-45"),
        "decode.beam_size: '2001-13-45' is not a value",
    ),
    "decoding key of 300 characters": (
        lambda b: b.dragoman("translate", "one", f"decode.beam_size={'x' * 300}"),
        "decode.beam_size: Value 'xxx",
    ),
    "length penalty that overflows": (
        lambda b: b.dragoman("translate", "one", "decode.length_penalty=1000"),
        "decode.length_penalty: 1000.0 is out of range, expected at most 10",
    ),
    "no output file": (lambda b: b.dragoman("translate", "one", "--output="), "--output: is empty"),
    "no input file": (lambda b: b.dragoman("translate", "one", "--input", ""), "--input: is empty"),
    "unknown option": (lambda b: b.dragoman("translate", "one", "--beam", "3"), "--beam"),
    "unknown command": (lambda b: b.dragoman("translte", "one"), "translte"),
    "no command": (lambda b: b.dragoman(), "COMMAND"),
    "unknown checkpoint": (
        lambda b: b.dragoman("translate", "one", "--checkpoint", "step-9"),
        "there is no checkpoint 'step-9', expected best, last, step-8 or step-16",
    ),
    "weights that were not made": (
        lambda b: b.dragoman("translate", "one", "--weights", "ema"),
        "this checkpoint has no ema weights",
    ),
    "unknown split to evaluate": (
        lambda b: b.dragoman("evaluate", "one", "--split", "tset"),
        "data.files has no split 'tset', expected train, val or test; did you mean 'test'?",
    ),
    "comparison without hypotheses": (
        lambda b: b.dragoman("evaluate", "one", "--split", "test", "--compare", "words"),
        "scores.test.json: no such file; has this split been evaluated?",
    ),
    "ensemble without a folder": (
        lambda b: b.dragoman("evaluate", "one", "two"),
        "--output: name a folder for the scores of an ensemble",
    ),
    "ensemble of different vocabularies": (
        other_tokenizer,
        "an ensemble needs runs with the same tokenizer",
    ),
    "missing text to translate": (
        lambda b: b.dragoman("translate", "one", "--input", str(b.folder / "in.txt")),
        "in.txt: no such file",
    ),
    "invalid UTF-8 to translate": (
        lambda b: b.dragoman("translate", "one", stdin=b"Hund\n\xff\n"),
        "standard input: line 2: not valid UTF-8",
    ),
    "NUL to translate": (
        lambda b: b.dragoman("translate", "one", stdin=b"Hund\nHu\0nd\n"),
        "standard input: line 2: holds a NUL byte",
    ),
    "unknown attention layer": (
        lambda b: b.dragoman("attention", "one", "--layer", "decoder.0.cros"),
        "layer: there is no attention 'decoder.0.cros', expected encoder.0.self, decoder.0.self "
        "or decoder.0.cross; did you mean 'decoder.0.cross'?",
    ),
    "attention head out of range": (
        lambda b: b.dragoman("attention", "one", "--layer", "encoder.0.self", "--head", "2"),
        "head: 2 is out of range, expected 0 to 1",
    ),
    "attention head that is no number": (
        lambda b: b.dragoman("attention", "one", "--layer", "encoder.0.self", "--head", "x"),
        "--head",
    ),
    "attention head without a layer": (
        lambda b: b.dragoman("attention", "one", "--head", "0"),
        "head: name the attention it belongs to with layer",
    ),
    "attention of nothing": (
        lambda b: b.dragoman("attention", "one", "--sentence", "  "),
        "source: is empty",
    ),
    "alignment without gold": (
        lambda b: b.dragoman("attention", "one", "--aer", "val", "--output", str(b.folder / "a")),
        "gold alignments are known for data=captions only, not for files",
    ),
}


@pytest.fixture
def bench(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    home = tinyruns.trained(tmp_path_factory)
    monkeypatch.chdir(home)
    return Bench(home, tmp_path, monkeypatch)


def test_there_are_at_least_forty_kinds() -> None:
    assert len(ACCEPTED) + len(REFUSED) >= 40


@pytest.mark.parametrize(("case", "words"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(
    case: Callable[[Bench], int],
    words: str,
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert case(bench) == 0
    captured = capsys.readouterr()
    assert "error: " not in captured.err
    assert words in captured.err
    if case is cut_line:
        assert captured.err.count("warning: ") == 1
        assert captured.out.count("\n") == 2
    if case is empty_lines:
        lines = captured.out.split("\n")
        assert [bool(text) for text in lines] == [False, True, False, False, False]


@pytest.mark.parametrize(("case", "words"), REFUSED.values(), ids=REFUSED)
def test_refused(
    case: Callable[[Bench], int],
    words: str,
    bench: Bench,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = snapshot(bench.home / "checkpoints")
    assert case(bench) != 0
    error = capsys.readouterr().err
    assert "Traceback" not in error
    found = [text for text in error.splitlines() if text.startswith("error: ")]
    assert len(found) == 1
    if case is not full_while_saving:  # which trains on afterwards
        assert error.splitlines()[-1] == found[0]
    assert words in found[0]
    assert len(found[0]) < 500
    assert snapshot(bench.home / "checkpoints") == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train.py", "train.lrr=1"], "error: there is no key 'train.lrr'; did you mean"),
        (["train.py", "data.tokenizer.vocab_size=abc"], "error: data.tokenizer.vocab_size=abc"),
        (["-m", "dragoman.cli", "translate", "nothing"], "error: nothing: not a run folder"),
    ],
    ids=["unknown key", "wrong type", "no run"],
)
def test_a_whole_process_says_one_line_and_fails(words: list[str], expected: str) -> None:
    done = tinyruns.call(*words, cwd=tinyruns.ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(expected)


def test_a_pipe_is_translated_from_its_first_line_to_its_last(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, lines = bench.folder / "pipe", [LINE, "Hund."] * 40
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_text, args=("\n".join(lines),), daemon=True).start()
    assert bench.dragoman("translate", "one", "--input", str(pipe)) == 0
    found = capsys.readouterr().out
    assert bench.dragoman("translate", "one", stdin="\n".join(lines).encode()) == 0
    assert found == capsys.readouterr().out
    assert found.count("\n") == len(lines)


def test_a_full_disk_behind_standard_output(bench: Bench) -> None:
    with open("/dev/full", "w") as full:
        done = tinyruns.start(
            *("-m", "dragoman.cli", "translate", "one", "--device", "cpu"),
            cwd=bench.home,
            stdout=full,
            stdin=(bench.home / "text" / "val.de").open(),
        )
        _, error = done.communicate()
    assert done.returncode == 2
    assert error == "error: output: No space left on device\n"
