"""Golden record: what a change that only moves code must leave alone, to the bit.

    python scripts/golden.py [--output FILE] [--only NAME ...]
    python scripts/golden.py --compare FILE [--only NAME ...]
    python scripts/golden.py --against REV [--only NAME ...]

An entry is ``<group>/<name>``; ``--only`` takes groups, entries or both. The groups:

    weights   SHA-256 of the final weights of tiny runs
    batches   which pairs the first 200 batches of the embedded corpus hold, in order
    search    translations and scores of the released models, for lines of the embedded corpus
    names     the run name of every experiment; a new key of the config may change them on purpose

Weights depend on the processor and the version of torch, so a file is only good on the machine that
made it. ``--against`` needs none: it records a revision in a temporary git worktree, then this
checkout, and compares the two. Code is known by few names here, and data are the script's own where
they can be, so that it also records revisions in which modules have other names.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import dragoman
from dragoman.compose import compose_config
from dragoman.config import Config, DataConfig
from dragoman.data.captions import captions
from dragoman.decoding.translator import load_translator
from dragoman.errors import DragomanError
from dragoman.runs import Run, run_name
from dragoman.training.distributed import Ranks
from dragoman.training.loop import train
from dragoman.training.trainer import Trainer

# The checkout whose code is imported, which with --against is not that of this file.
CHECKOUT = Path(dragoman.__file__).parents[2]
CONFIGS = CHECKOUT / "configs"
MODELS = CHECKOUT / "docs" / "results" / "models"

Entries = dict[str, Any]
Probe = Callable[[Path], Any]  # given an empty folder to work in

BATCHES = 200
LINES = 50

COMMON = [
    "device=cpu",
    "threads=1",
    "seed=1",
    "run_name=run",
    "log.tensorboard=false",
    "log.samples=0",
    "log.figures=false",
    "log.graph=false",
]
TINY = [
    "data=files",
    "data.max_length=40",
    "data.tokenizer.vocab_size=80",
    "train.batch_size=300",
    "train.lr=0.01",
    "train.warmup_steps=3",
    "train.schedule_steps=20",
    "train.max_steps=12",
    "train.validate_every=6",
    "train.checkpoint_every=6",
    "train.metric=loss",
]
TRANSFORMER = [
    "model=transformer",
    "model.d_model=16",
    "model.num_heads=2",
    "model.encoder_layers=2",
    "model.decoder_layers=2",
    "model.d_ff=24",
    "model.dropout=0.2",
]
RNN = [
    "model=rnn",
    "model.d_embed=12",
    "model.d_model=16",
    "model.encoder_layers=2",
    "model.dropout=0.2",
    "train.teacher_forcing=0.5",
]
WORDS = ["data.tokenizer.kind=spacy", "data.tokenizer.min_freq=2"]
PLAIN = ["train.fast=false"]
OBJECTIVES = [
    "train.optimizer=muon",
    "train.r_drop=1.0",
    "train.risk=0.5",
    "train.risk_samples=3",
]
# Both directions in one model, told apart by tags; one of them is seen one and a half times.
MIXTURE = (
    "data.corpora=[{source: files, src: de, tgt: en, weight: 1.5, tag: '<2en>', split: train},"
    " {source: files, src: en, tgt: de, weight: 1.0, tag: '<2de>', split: train}]"
)
RUNS = {
    "rnn": [*RNN, *WORDS],
    "rnn-plain": [*RNN, *WORDS, *PLAIN],
    "rnn-objectives": [*RNN, *OBJECTIVES, "model.cell=gru", "train.accumulate=2"],
    "transformer": TRANSFORMER,
    "transformer-plain": [*TRANSFORMER, *PLAIN],
    "transformer-objectives": [*TRANSFORMER, *OBJECTIVES, "model.positions=rotary"],
    "transformer-sampling": [
        *TRANSFORMER,
        "data.tokenizer.sampling_alpha=0.3",
        "model.norm=post",
        "train.ema_decay=0.9",
    ],
    "transformer-mixture": [
        *TRANSFORMER,
        MIXTURE,
        "data.tokenizer.algorithm=bpe",
        "data.tokenizer.bpe_dropout=0.1",
    ],
}
# The batches are so large that an epoch has fewer than 200 of them.
ORDERS = {
    "captions": ["data=captions", "train.batch_size=1500", *TRANSFORMER],
    "captions-sampling": [
        "data=captions",
        "data.tokenizer.sampling_alpha=0.3",
        "train.batch_size=3000",
        *TRANSFORMER,
    ],
}

_LEXICON = {
    "ein": "a",
    "kleiner": "small",
    "Hund": "dog",
    "schwarzer": "black",
    "Junge": "boy",
    "alte": "old",
    "Frau": "woman",
    "läuft": "runs",
    "springt": "jumps",
    "spielt": "plays",
    "im": "in the",
    "Park": "park",
    "am": "at the",
    "Strand": "beach",
    "mit": "with",
    "2": "2",
    "Bällen": "balls",
    "und": "and",
    "größer": "taller",
}


def write_text(folder: Path) -> None:
    """Write ``train``, ``val`` and ``test`` of a toy language in German and English words.

    Some pairs are empty on one side and some are longer than any limit, as in real text.
    """
    draws = random.Random(0)
    folder.mkdir(parents=True)
    for split, count in (("train", 400), ("val", 12), ("test", 12)):
        lines: dict[str, list[str]] = {"de": [], "en": []}
        for _ in range(count):
            words = draws.choices(list(_LEXICON), k=draws.randint(2, 12))
            lines["de"].append(" ".join(words).capitalize() + ".")
            lines["en"].append(" ".join(_LEXICON[word] for word in words).capitalize() + ".")
        if split == "train":
            lines["de"][10], lines["en"][20] = "", ""
            lines["de"][30] = " ".join(lines["de"][:30])
        for language, sentences in lines.items():
            text = "\n".join(sentences) + "\n"
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")


def digest_of(*parts: bytes) -> str:
    """Return the SHA-256 of byte strings, told apart by their lengths."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def digest_of_weights(path: Path) -> str:
    """Return the SHA-256 of a file of weights: names, types, shapes and bytes, in name order."""
    parts: list[bytes] = []
    for name, tensor in sorted(load_file(path).items()):
        parts.append(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        parts.append(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest_of(*parts)


def compose(folder: Path, overrides: list[str]) -> tuple[Config, Run]:
    """Compose the config of a run in a folder, with the toy text for its files."""
    places = [f"data.cache={folder}/cache", f"checkpoint_dir={folder}"]
    if "data=files" in overrides:
        write_text(folder / "text")
        places.append(f"data.root={folder}/text")
        if hasattr(DataConfig(), "clean"):  # as it was before there were rules
            off = {"empty": "false", "length_ratio": 0, "duplicates": "none"}
            places += [f"data.clean.{name}={value}" for name, value in off.items()]
    config, _ = compose_config(CONFIGS, [*COMMON, *overrides, *places])
    run = Run(folder / "run")
    run.create()
    return config, run


def weights(overrides: list[str], folder: Path) -> dict[str, str]:
    """Train a tiny run; return the digest of each file of its final weights."""
    config, run = compose(folder, [*TINY, *overrides])
    train(config, run)
    last = run.checkpoint("last")
    stems = ("model", "ema", "optimizer")
    paths = [last / f"{stem}.safetensors" for stem in stems]
    return {path.stem: digest_of_weights(path) for path in paths if path.exists()}


def batches(overrides: list[str], folder: Path) -> dict[str, Any]:
    """Return a digest of the pair numbers of the first batches, and the first three batches."""
    trainer = Trainer(*compose(folder, overrides), Ranks())
    buckets = trainer.stream.take(BATCHES)
    rows = [" ".join(map(str, bucket.pairs.tolist())) for bucket in buckets]
    return {
        "epochs": buckets[-1].epoch + 1,
        "first": rows[:3],
        "digest": digest_of(*(row.encode() for row in rows)),
    }


def translations(model: Path, folder: Path) -> list[list[Any]]:
    """Return the translations of a released model with their scores, in its config's search."""
    torch.set_num_threads(1)
    translator = load_translator([Run(model)], device="cpu")
    language = translator.config.data.src
    lines = [getattr(caption, language) for caption in captions("test")[:LINES]]
    # Revisions before 0.2 call it by the shorter name.
    search = getattr(translator, "translate_lines", None) or getattr(translator, "translate")  # noqa: B009
    found = search(lines, translator.config.decode)
    return [[best.text, round(best.score, 4)] for best, *_ in found]


def name_of(experiment: str, folder: Path) -> str:
    """Return the name of an experiment's run."""
    return run_name(*compose_config(CONFIGS, [f"+experiment={experiment}"]))


def probes() -> dict[str, Probe]:
    """Return how each entry is recorded, in order."""
    experiments = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
    return {
        **{f"weights/{name}": partial(weights, words) for name, words in RUNS.items()},
        **{f"batches/{name}": partial(batches, words) for name, words in ORDERS.items()},
        **{f"search/{path.name}": partial(translations, path) for path in sorted(MODELS.iterdir())},
        **{f"names/{name}": partial(name_of, name) for name in experiments},
    }


def wanted(entry: str, only: Collection[str]) -> bool:
    """Whether ``--only`` leaves an entry in; nothing given leaves all of them."""
    return not only or entry in only or entry.partition("/")[0] in only


@contextmanager
def silence() -> Iterator[None]:
    """Keep back what training says, so that standard output is the record alone."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        yield


def record(only: Collection[str] = ()) -> Entries:
    """Record this machine's entries of the imported code.

    Raises:
        DragomanError: if ``only`` names what there is not, or a probe is refused.
    """
    found = probes()
    known = {*found, *(entry.partition("/")[0] for entry in found)}
    if strange := [name for name in only if name not in known]:
        raise DragomanError(f"--only: there is no entry or group '{strange[0]}'")
    entries: Entries = {}
    for entry, probe in found.items():
        if wanted(entry, only):
            with tempfile.TemporaryDirectory() as folder, silence():
                entries[entry] = probe(Path(folder))
    return entries


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:87]}..."


def _difference(there: Any, here: Any) -> str:
    """Say where two values differ first."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**there, **here}:
            if there.get(key) != here.get(key):
                return f"{key}: {_difference(there.get(key), here.get(key))}"
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for number, (old, new) in enumerate(zip(there, here, strict=True)):
            if old != new:
                return f"{number}: {_difference(old, new)}"
    return f"{_short(there)} there, {_short(here)} here"


def compare(there: Entries, here: Entries) -> list[str]:
    """Return a line for each entry that differs or that only one of two records has."""
    lines = []
    for entry in {**there, **here}:
        if entry not in here:
            lines.append(f"{entry}: only there")
        elif entry not in there:
            lines.append(f"{entry}: only here")
        elif there[entry] != here[entry]:
            lines.append(f"{entry}: {_difference(there[entry], here[entry])}")
    return lines


def record_checkout(checkout: Path, only: Collection[str]) -> Entries:
    """Record the code of a checkout in a process of its own, with the probes of this file."""
    chosen = ["--only", *only] if only else []
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout / "src"),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), *chosen],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DragomanError(f"{checkout}: recording failed, as said above")
    return dict(json.loads(done.stdout))


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """Check a revision out into a temporary folder.

    Raises:
        DragomanError: if git does not know it.
    """
    git = ["git", "-C", str(Path(__file__).resolve().parents[1]), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        command = [*git, "add", "--detach", str(checkout), revision]
        added = subprocess.run(command, capture_output=True, text=True, check=False)
        if added.returncode:
            raise DragomanError(f"--against: {added.stderr.strip().splitlines()[-1]}")
        try:
            yield checkout
        finally:
            command = [*git, "remove", "--force", str(checkout)]
            subprocess.run(command, capture_output=True, check=False)


def read_record(path: Path) -> Entries:
    """Read what ``--output`` wrote.

    Raises:
        DragomanError: if it is no such file.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise DragomanError(f"{path}: not a record ({problem})") from None
    if not isinstance(entries, dict):
        raise DragomanError(f"{path}: not a record, expected a mapping of entries")
    return entries


def judge(there: Entries, here: Entries) -> int:
    """Print how two records compare; return the exit status."""
    lines = compare(there, here)
    for line in lines:
        print(line)
    if lines:
        return 1
    print(f"all {len(here)} entries equal")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Record or compare, as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--output", type=Path, metavar="FILE", help="write the record here")
    what.add_argument("--compare", type=Path, metavar="FILE", help="compare with this record")
    what.add_argument("--against", metavar="REV", help="compare with a revision")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="groups or entries")
    options = parser.parse_args(arguments)
    try:
        if options.against:
            here = record_checkout(Path(__file__).resolve().parents[1], options.only)
            with worktree(options.against) as checkout:
                return judge(record_checkout(checkout, options.only), here)
        if options.compare:
            there = read_record(options.compare)
            there = {name: value for name, value in there.items() if wanted(name, options.only)}
            return judge(there, record(options.only))
        text = json.dumps(record(options.only), indent=1, ensure_ascii=False) + "\n"
    except DragomanError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
