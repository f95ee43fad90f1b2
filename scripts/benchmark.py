"""Training speed of Dragoman beside the tools its users come from, in one run on one machine.

    python scripts/benchmark.py [--rounds 3] [--seconds 60] [--only dragoman plain ...]
    python scripts/benchmark.py --recurrent     the tutorials' GRU, their loop and Dragoman's
    python scripts/benchmark.py --quick         Dragoman and the nn.Transformer loop, 5 minutes

Every contender is a file in scripts/contenders and runs in a virtual environment of its own with
the exact versions listed beside it. All get the same tokens, the same sizes (those of
configs/experiment/benchmark.yaml) and batches of 128 sentences; each counts the real target tokens
of its own updates within a window of time. Rounds go through all contenders in turn, so that a
machine that slows down slows all; ratios of medians are what to quote. The figures go to
docs/benchmarks as JSON, table and plot.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
CONTENDERS = ROOT / "scripts" / "contenders"
BENCH = ROOT / ".bench"
TORCH = "torch==2.13.0"


class Contender(NamedTuple):
    """A file to run, its flags, and the name of its pins; "" runs in Dragoman's environment."""

    script: str
    flags: tuple[str, ...] = ()
    pins: str = ""


TRANSFORMERS = {
    "dragoman": Contender("train_dragoman.py"),
    "plain": Contender("train_plain.py"),
    "marian": Contender("train_marian.py", pins="marian"),
    "opennmt": Contender("train_opennmt.py", pins="opennmt"),
    "eole": Contender("train_eole.py", pins="eole"),
    "sockeye": Contender("train_sockeye.py", pins="sockeye"),
    "joeynmt": Contender("train_joeynmt.py", pins="joeynmt"),
}
RECURRENT = {
    "dragoman": Contender("train_dragoman.py", ("--recurrent",)),
    "tutorial": Contender("train_tutorial.py"),
    "tutorial-sorted": Contender("train_tutorial.py", ("--sorted",)),
}
COLUMNS = {
    "tokens_per_second": "target tokens/s",
    "first_step_seconds": "seconds to first step",
    "peak_mib": "peak MiB",
    "parameters": "parameters",
}


def write_text(folder: Path, multi30k: Path) -> None:
    """Write the tokens that every contender trains on, and the vocabularies."""
    from dragoman.compose import compose_config
    from dragoman.data.corpora import read_pairs
    from dragoman.data.encoded import train_or_load_tokenizers
    from dragoman.data.tokenizers import SPECIALS

    options = ["+experiment=benchmark", f"data.root={multi30k}", f"data.cache={BENCH / 'cache'}"]
    config, _ = compose_config(ROOT / "configs", options)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizers = train_or_load_tokenizers(config.data)
    for split in ("train", "val"):
        sides = read_pairs(config.data, split)
        for language, lines, tokenizer in zip(("de", "en"), sides, tokenizers, strict=True):
            text = "".join(" ".join(tokenizer.units(line)) + "\n" for line in lines)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
            words = tokenizer.tokens(list(range(len(SPECIALS), len(tokenizer))))
            vocabulary = "".join(word + "\n" for word in words)
            (folder / f"vocab.{language}").write_text(vocabulary, encoding="utf-8")


def interpreter(contender: Contender) -> Path:
    """Return the Python of a contender's environment, made now if it is not there."""
    if not contender.pins:
        return Path(sys.executable)
    home = BENCH / "venv" / contender.pins
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists():
        print(f"installing {contender.pins}", flush=True)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, TORCH], check=True)
        alone = CONTENDERS / f"{contender.pins}.nodeps.txt"
        if alone.exists():
            subprocess.run([*pip, "--no-deps", "-r", str(alone)], check=True)
        subprocess.run([*pip, "-r", str(CONTENDERS / f"{contender.pins}.txt")], check=True)
        ready.touch()
    return python


def run(name: str, contender: Contender, args: argparse.Namespace) -> dict[str, Any]:
    """Run a contender once; return its figures."""
    command = [
        str(interpreter(contender)),
        str(CONTENDERS / contender.script),
        *("--data", str(BENCH / "text"), "--work", str(BENCH / "work" / name)),
        *("--seconds", str(args.seconds), "--threads", str(args.threads), *contender.flags),
    ]
    environment = {**os.environ, "MULTI30K": str(args.multi30k.absolute())}
    environment |= {"OMP_NUM_THREADS": str(args.threads), "MKL_NUM_THREADS": str(args.threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    try:
        figures: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        sys.exit(f"{name}: no figures, exit {done.returncode}\n{done.stderr[-3000:]}")
    return figures


def table(figures: dict[str, list[dict[str, Any]]]) -> str:
    """Return a Markdown table of medians, with the spread of the speeds."""
    base = statistics.median(r["tokens_per_second"] for r in figures["dragoman"])
    lines = [
        f"| tool | {' | '.join(COLUMNS.values())} | lowest to highest | Dragoman is |",
        "|---|" + "---:|" * (len(COLUMNS) + 2),
    ]
    for runs in figures.values():
        medians = [statistics.median(r[column] for r in runs) for column in COLUMNS]
        speeds = [r["tokens_per_second"] for r in runs]
        cells = [f"{value:,.0f}" for value in medians]
        lines.append(
            f"| {runs[0]['tool']} {runs[0]['version']} | {' | '.join(cells)} | "
            f"{min(speeds):,.0f} to {max(speeds):,.0f} | {base / medians[0]:.2f} x |"
        )
    return "\n".join(lines) + "\n"


def plot(figures: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the speeds: a bar at the median, a dot for every run."""
    from matplotlib.figure import Figure

    order = sorted(
        figures.values(), key=lambda runs: statistics.median(r["tokens_per_second"] for r in runs)
    )
    figure = Figure(figsize=(7, 0.5 * len(order) + 1), layout="constrained")
    axes = figure.add_subplot()
    for place, runs in enumerate(order):
        speeds = [r["tokens_per_second"] for r in runs]
        colour = "#1f5a96" if runs[0]["tool"] == "Dragoman" else "#b8c4d0"
        axes.barh(place, statistics.median(speeds), color=colour)
        axes.plot(speeds, [place] * len(speeds), "o", color="#222222", markersize=3)
    axes.set_yticks(range(len(order)), [f"{r[0]['tool']} {r[0]['version']}" for r in order])
    axes.set_xlabel("training: target tokens per second")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run all contenders in turn, and write what they say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="some of the contenders; always with dragoman")
    parser.add_argument("--recurrent", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--multi30k", type=Path, default=ROOT / "data" / "multi30k" / "raw")
    parser.add_argument("--out", type=Path, help="folder for JSON, table and plot")
    args = parser.parse_args()
    contenders = RECURRENT if args.recurrent else TRANSFORMERS
    if args.quick:
        args.only, args.seconds = ["plain"], min(args.seconds, 25.0)
    if args.only:
        unknown = set(args.only) - set(contenders)
        if unknown:
            parser.error(f"no contender {', '.join(sorted(unknown))}: {', '.join(contenders)}")
        contenders = {n: c for n, c in contenders.items() if n in {"dragoman", *args.only}}
    if not (args.multi30k / "train.de.gz").exists():
        parser.error(f"{args.multi30k}: no Multi30k there; run `make data` or give --multi30k")
    for contender in contenders.values():
        interpreter(contender)
    write_text(BENCH / "text", args.multi30k)
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for number in range(args.rounds):
        for name, contender in contenders.items():
            figures[name].append(run(name, contender, args))
            speed = figures[name][-1]["tokens_per_second"]
            print(f"round {number + 1}  {name:16} {speed:8,.0f} target tokens/s", flush=True)
    print(table(figures))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        stem = args.out / ("training-recurrent" if args.recurrent else "training")
        machine = {
            "processor": platform.processor() or platform.machine(),
            "threads": args.threads,
            "seconds": args.seconds,
        }
        text = json.dumps({"machine": machine, "runs": figures}, indent=1) + "\n"
        stem.with_suffix(".json").write_text(text, encoding="utf-8")
        stem.with_suffix(".md").write_text(table(figures), encoding="utf-8")
        plot(figures, stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
