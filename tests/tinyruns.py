"""Tiny runs for tests: a toy language on disk, configs of small models, and one trained run."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dragoman import settings
from dragoman.config import Config
from dragoman.launch import run_training
from dragoman.runs import Run
from dragoman.training import trainer as trainer_module
from dragoman.training.distributed import Ranks
from dragoman.training.loop import train

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"

# Word for word.
_LEXICON = {
    "ein": "a",
    "kleiner": "small",
    "hund": "dog",
    "schwarzer": "black",
    "junge": "boy",
    "alte": "old",
    "frau": "woman",
    "läuft": "runs",
    "springt": "jumps",
    "spielt": "plays",
    "im": "in-the",
    "park": "park",
    "am": "at-the",
    "strand": "beach",
}

TRANSFORMER: dict[str, Any] = {
    "model.name": "transformer",
    "model.d_model": 16,
    "model.num_heads": 2,
    "model.encoder_layers": 1,
    "model.decoder_layers": 1,
    "model.d_ff": 24,
    "model.dropout": 0.2,
}
RNN: dict[str, Any] = {
    "model.name": "rnn",
    "model.d_embed": 12,
    "model.d_model": 16,
    "model.dropout": 0.2,
    "train.teacher_forcing": 0.5,
}


def write_pairs(root: Path, train: int = 120, val: int = 8, seed: int = 0) -> Path:
    """Write ``train``, ``val`` and ``test`` of a toy language, word by word translatable."""
    draws = random.Random(seed)
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("val", val), ("test", val)):
        rows = [draws.choices(list(_LEXICON), k=draws.randint(2, 7)) for _ in range(count)]
        sides = {"de": rows, "en": [[_LEXICON[word] for word in row] for row in rows]}
        for language, sentences in sides.items():
            lines = [" ".join(words).capitalize() + "." for words in sentences]
            (root / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def keys(folder: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Return the flat keys of a tiny run on the text in ``folder/text``, cache and runs beside."""
    return {
        "data.root": str(folder / "text"),
        "data.cache": str(folder / "cache"),
        "data.max_length": 40,
        "data.tokenizer.vocab_size": 80,
        "train.batch_size": 200,
        "train.lr": 0.01,
        "train.warmup_steps": 3,
        "train.schedule_steps": 20,
        "train.max_steps": 10,
        "train.validate_every": 5,
        "train.checkpoint_every": 5,
        "train.metric": "loss",
        "log.every": 1,
        "log.samples": 1,
        "log.figures": False,
        "log.graph": False,
        "decode.beam_size": 2,
        "device": "cpu",
        "threads": 1,
        "run_name": "run",
        "checkpoint_dir": str(folder / "checkpoints"),
        **changes,
    }


def config(folder: Path, model: dict[str, Any] = TRANSFORMER, **changes: Any) -> Config:
    """Return the config of a tiny run; ``changes`` has ``__`` where keys have a dot."""
    flat = keys(folder, {**model, **{name.replace("__", "."): v for name, v in changes.items()}})
    nested: dict[str, Any] = {}
    corpus = {"source": "files", "src": "de", "tgt": "en"}
    files = {split: f"{split}.{{lang}}" for split in ("train", "val", "test")}
    defaults = {"data.name": "files", "data.files": files, "data.corpora": [corpus]}
    for path, value in {**defaults, **flat}.items():
        section = nested
        *outer, last = path.split(".")
        for name in outer:
            section = section.setdefault(name, {})
        section[last] = value
    corpus["source"] = nested["data"]["name"]
    if nested["model"]["name"] == "rnn" or nested["data"].get("tokenizer", {}).get("kind"):
        nested["model"].setdefault("tie_embeddings", "none")
    return settings.from_dict(nested)


def run_of(wanted: Config) -> Run:
    """Return the run folder of a config with a ``run_name``."""
    return Run(Path(wanted.checkpoint_dir) / str(wanted.run_name))


def train_run(wanted: Config) -> Run:
    """Train a run in this process."""
    run = run_of(wanted)
    train(wanted, run)
    return run


def trainer(
    home: Path, folder: Path, model: dict[str, Any] = TRANSFORMER, **changes: Any
) -> trainer_module.Trainer:
    """Return the trainer of a run that has not begun."""
    options = {"checkpoint_dir": str(folder), "log__tensorboard": False, **changes}
    wanted = config(home, model, **options)
    run = run_of(wanted)
    run.create()
    return trainer_module.Trainer(wanted, run, Ranks())


def captured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Return a list that every step will add its gradients to, unclipped."""
    gradients: list[dict[str, Tensor]] = []

    def capture(module: torch.nn.Module, largest: float) -> Tensor:
        gradients.append({n: p.grad.clone() for n, p in module.named_parameters()})  # type: ignore[union-attr]
        return torch.ones(())

    monkeypatch.setattr(trainer_module, "clip_gradients", capture)
    return gradients


def overrides(folder: Path, model: dict[str, Any] = TRANSFORMER, **changes: Any) -> list[str]:
    """Return the command line of ``train.py`` for the run that ``config`` describes."""
    flat = keys(folder, {**model, **{name.replace("__", "."): v for name, v in changes.items()}})
    name = flat.pop("model.name")
    if name == "rnn":
        flat.setdefault("model.tie_embeddings", "none")
    groups = ["data=files", "data.clean.duplicates=none", f"model={name}"]  # toy text repeats
    texts = {False: "false", True: "true", None: "null"}
    return [
        *groups,
        *(f"{k}={texts[v] if v is None or isinstance(v, bool) else v}" for k, v in flat.items()),
    ]


def bare_environment() -> dict[str, str]:
    """Return the variables of a shell in which neither ``make`` nor an environment is active."""
    ours = ("PYTHONPATH", "VIRTUAL_ENV", "ARGS", "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL")
    return {name: value for name, value in os.environ.items() if name not in ours}


def environment() -> dict[str, str]:
    """Return the environment of a child process: one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def start(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a Python program of the repository, such as ``train.py``."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(),
        text=True,
        stderr=subprocess.PIPE,
        **{"stdout": subprocess.PIPE, **options},
    )


def call(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python program of the repository to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(),
        text=True,
        capture_output=True,
        check=False,
        **options,
    )


FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(
    [
        "dragoman.training.loop",
        "sacrebleu",
        "sentencepiece",
        "torch.utils.tensorboard",
        "torchtext.data",
        "tinyruns",
    ]
)


def _train_and_exit(wanted: Config) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(run_training(wanted, None))


def start_training(wanted: Config) -> Any:
    """Train in a fresh process that has only imported the program: quicker than a new one."""
    process = FRESH.Process(target=_train_and_exit, args=(wanted,), daemon=True)
    process.start()
    return process


_TRAINED: list[Path] = []
WORDS = {"data__tokenizer__kind": "spacy", "decode__replace_unknown": True}


def trained(factory: Any) -> Path:
    """Return a folder with ``text`` and trained runs, made once per test session.

    ``checkpoints/one`` and ``two`` are Transformers on subwords that differ in their seed, and
    ``words`` is a recurrent model on words. ``factory`` is pytest's ``tmp_path_factory``.
    """
    if not _TRAINED:
        home: Path = factory.mktemp("trained")
        write_pairs(home / "text")
        common = {"train__max_steps": 16, "train__validate_every": 8, "train__checkpoint_every": 8}
        for name, seed in (("one", 1), ("two", 2)):
            train_run(config(home, run_name=name, seed=seed, **common))
        train_run(config(home, RNN, run_name="words", **WORDS, **common))
        _TRAINED.append(home)
    return _TRAINED[0]
