"""How training grows with the corpus: the same sentences, a hundred times over, with noise.

    python scripts/growth.py [--pairs 29000 300000 3000000] [--seconds 30] [--rounds 3]

For each size Multi30k is repeated, every copy with words exchanged, swapped and, 3 % of them, made
of two others, so that no two lines are alike and words grow in number as those of real text do.
Printed: how long `dragoman prepare` takes with nothing cached and what memory its processes hold
together; then, of a run on the cached corpus that trains for a while, seconds from the command to
the first update, target tokens/s, the share of the time in which batches are made, memory, and the
cache's bytes a token beside what it may take. Rounds go through the sizes in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "contenders"))

from prepare import measured  # type: ignore[import-not-found]
from window import Window  # type: ignore[import-not-found]

from dragoman.compose import compose_config
from dragoman.config import Config, CorpusConfig
from dragoman.data.batching import BatchOrder, BatchStream
from dragoman.data.sources import iter_pairs
from dragoman.runs import Run
from dragoman.training.loop import train
from dragoman.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".bench" / "growth"
NEW = 0.03  # of the words, that are made of two others
HEADS = {
    "pairs": "pairs",
    "words": "different words",
    "prepare_seconds": "seconds to prepare",
    "prepare_mib": "memory of preparing, MiB",
    "first_step_seconds": "seconds to first step, cached",
    "tokens_per_second": "target tokens/s",
    "input_percent": "making batches, % of the time",
    "anonymous_mib": "own memory, MiB",
    "resident_mib": "with mapped files, MiB",
    "disk_bytes_per_token": "cache, bytes a token",
    "allowed_bytes_per_token": "4 bytes a token and 16 a sentence",
}


def words_of(pairs: int) -> list[str]:
    """Return the benchmark's configuration on a corpus of that size, in pieces, in words."""
    home = FOLDER / str(pairs)
    return [
        "+experiment=benchmark",
        "data.name=files",
        f"data.root={home}",
        f"data.cache={home / 'cache'}",
        "data.corpora=[{source: files, src: de, tgt: en, split: train}]",
        *(f"data.files.{split}='{split}.{{lang}}'" for split in ("train", "val")),
        "data.tokenizer.kind=sentencepiece",
        "model.tie_embeddings=three_way",
        "train.max_steps=1000000",
        "train.validate_every=1000000",
        "train.checkpoint_every=1000000",
        "device=cpu",
        "data.max_length=24",  # common enough for the fullest batch to be as full at every size
    ]


def settings(pairs: int) -> Config:
    """Return the benchmark's configuration on a corpus of that size, in pieces."""
    return compose_config(ROOT / "configs", words_of(pairs))[0]


def noisy(words: list[str], common: list[str], draw: random.Random) -> str:
    """Return a sentence with words exchanged, swapped, and some made of halves of two others."""
    words = list(words)
    for place in range(len(words)):
        if draw.random() < NEW:
            one, other = draw.choice(common), draw.choice(common)
            words[place] = one[: len(one) // 2 + 1] + other[len(other) // 2 :]
    words[draw.randrange(len(words))] = draw.choice(common)
    place = draw.randrange(len(words))
    words[place : place + 2] = reversed(words[place : place + 2])
    return " ".join(words)


def write(pairs: int, multi30k: Path) -> None:
    """Write a corpus of that size, unless it is there."""
    home = FOLDER / str(pairs)
    if (home / "val.en").exists():
        return
    home.mkdir(parents=True, exist_ok=True)
    config, _ = compose_config(ROOT / "configs", ["+experiment=benchmark", f"data.root={multi30k}"])

    def sides(split: str) -> Iterator[tuple[str, ...]]:
        return zip(*iter_pairs(config.data, CorpusConfig(split=split)), strict=True)

    draw = random.Random(1)
    for language, lines in zip(("de", "en"), sides("train"), strict=True):
        split = [line.split() for line in lines]
        common = sorted({word for words in split for word in words})
        with (home / f"train.{language}").open("w", encoding="utf-8") as out:
            for number in range(pairs):
                if number < len(lines):
                    out.write(lines[number].strip() + "\n")
                else:
                    out.write(noisy(split[number % len(split)], common, draw) + "\n")
    for language, lines in zip(("de", "en"), sides("val"), strict=True):
        (home / f"val.{language}").write_text("".join(x + "\n" for x in lines), encoding="utf-8")


def memory() -> dict[str, float]:
    """Return what this process holds now, in MiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    names = {"resident_mib": "VmRSS", "anonymous_mib": "RssAnon"}
    return {name: int(fields[field].split()[0]) / 1024 for name, field in names.items()}


def measure(pairs: int, seconds: float) -> dict[str, Any]:
    """Train for a while in this process."""
    config, window = settings(pairs), Window(seconds, "Dragoman", "")
    spent, found = [0.0], dict[str, Any]()

    def clocked(owner: type, name: str) -> None:
        method: Any = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                spent[0] += time.perf_counter() - began if window.began else 0.0

        setattr(owner, name, timed)

    clocked(BatchStream, "take")
    clocked(BatchOrder, "fetch")
    step = Trainer.step

    def counted(trainer: Trainer, buckets: Any) -> Any:
        window.batch(sum(bucket.tgt_tokens for bucket in buckets))
        result = step(trainer, buckets)
        found.update(memory())
        window.updated()
        return result

    Trainer.step = counted  # type: ignore[method-assign, assignment]
    shutil.rmtree(FOLDER / "run", ignore_errors=True)
    with contextlib.suppress(Window.Done):
        train(config, Run(FOLDER / "run"))
    lasted = window.ended - window.began
    return {
        **found,
        "pairs": pairs,
        "tokens_per_second": window.tokens / lasted,
        "first_step_seconds": window.first,
        "input_percent": 100 * spent[0] / lasted,
    }


def prepared(pairs: int) -> dict[str, float]:
    """Prepare a corpus; return what it took, the bytes of its ids, a token, and their limit."""
    config = settings(pairs)
    from dragoman.data.preparation import (
        build_training_set,
        prepare_texts,
        train_or_load_tokenizers,
    )

    home = FOLDER / str(pairs)
    shutil.rmtree(home / "cache", ignore_errors=True)  # of older versions, too
    command = [sys.executable, "-m", "dragoman.cli", "prepare", *words_of(pairs)]
    seconds, peak = measured([*command, "--output", str(home / "data.html")])
    with (home / "train.de").open(encoding="utf-8") as text:
        different = len({word for line in text for word in line.split()})
    texts = prepare_texts(config.data)
    tokenizers = train_or_load_tokenizers(config.data, texts)
    training = build_training_set(config.data, texts, *tokenizers, 1)
    everything = training.epoch_pairs(0)
    tokens = sum(int(side.sum()) for side in training.lengths(everything, 0))
    files = [path for path in (FOLDER / str(pairs) / "cache").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return {
        "words": different,
        "prepare_seconds": seconds,
        "prepare_mib": peak,
        "disk_bytes_per_token": size / tokens,
        "allowed_bytes_per_token": 4 + 16 * 2 * pairs / tokens,
    }


def main() -> None:
    """Measure all sizes in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[29_000, 300_000, 3_000_000])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--multi30k", type=Path, default=ROOT / "data" / "multi30k" / "raw")
    parser.add_argument("--out", type=Path, help="folder for JSON and table")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.pairs[0], args.seconds)), flush=True)
        return
    runs: dict[int, list[dict[str, Any]]] = {pairs: [] for pairs in args.pairs}
    disks = {}
    for pairs in args.pairs:
        write(pairs, args.multi30k)
        disks[pairs] = prepared(pairs)
    for number in range(args.rounds):
        for pairs, found in runs.items():
            own = ["--measure", "--pairs", str(pairs), "--seconds", str(args.seconds)]
            done = subprocess.run(
                [sys.executable, __file__, *own],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ},
            )
            found.append({**json.loads(done.stdout.splitlines()[-1]), **disks[pairs]})
            print(f"round {number + 1}", found[-1], flush=True)
    lines = [f"| {' | '.join(HEADS.values())} |", "|" + "---:|" * len(HEADS)]
    for found in runs.values():
        medians = [statistics.median(run[name] for run in found) for name in HEADS]
        cells = [f"{v:,.0f}" if v >= 100 else f"{v:.2f}" for v in medians]
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({str(pairs): found for pairs, found in runs.items()}, indent=1) + "\n"
        (args.out / "growth.json").write_text(text, encoding="utf-8")
        (args.out / "growth.md").write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
