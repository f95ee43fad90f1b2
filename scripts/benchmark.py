"""Speed of Dragoman beside the tools its users come from, in one run on one machine.

    python scripts/benchmark.py [--rounds 3] [--seconds 60] [--only marian plain ...]
    python scripts/benchmark.py --suite recurrent   the tutorials' GRU, their loop and Dragoman's
    python scripts/benchmark.py --suite decoding    translating with the same weights
    python scripts/benchmark.py --suite prepare     from text to what is trained on, 300,000 pairs
    python scripts/benchmark.py --quick             Dragoman and the nn.Transformer loop, 5 minutes

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


class Suite(NamedTuple):
    """What is compared: the contenders, what each prints, and the figures that are speeds."""

    contenders: dict[str, Contender]
    columns: dict[str, str]
    speeds: tuple[str, ...]
    steps: int = 0  # at least, in a round


DRAGOMAN = "train_dragoman.py"
TRAINING = {
    "tokens_per_second": "target tokens/s",
    "first_step_seconds": "seconds to first step",
    "peak_mib": "peak MiB",
    "parameters": "parameters",
}
SUITES = {
    "training": Suite(
        {
            "dragoman": Contender(DRAGOMAN),
            "plain": Contender("train_plain.py"),
            "marian": Contender("train_marian.py", pins="marian"),
            "opennmt": Contender("train_opennmt.py", pins="opennmt"),
            "eole": Contender("train_eole.py", pins="eole"),
            "sockeye": Contender("train_sockeye.py", pins="sockeye"),
            "joeynmt": Contender("train_joeynmt.py", pins="joeynmt"),
        },
        TRAINING,
        ("tokens_per_second",),
    ),
    "recurrent": Suite(
        {
            "dragoman": Contender(DRAGOMAN, ("--recurrent",)),
            "tutorial": Contender("train_tutorial.py"),
            "tutorial-sorted": Contender("train_tutorial.py", ("--sorted",)),
        },
        {**TRAINING, "steps": "steps a round"},
        ("tokens_per_second",),
        steps=34,
    ),
    "decoding": Suite(
        {
            "dragoman": Contender("decode_dragoman.py"),
            "marian": Contender("decode_marian.py", pins="marian"),
            "marian-sorted": Contender("decode_marian.py", ("--sorted",), pins="marian"),
        },
        {
            "greedy_per_second": "greedy, sentences/s",
            "beam_per_second": "beam 5, sentences/s",
            "peak_mib": "peak MiB",
            "parameters": "parameters",
        },
        ("greedy_per_second", "beam_per_second"),
    ),
    "prepare": Suite(
        {
            "dragoman": Contender("prepare.py", ("--dragoman",)),
            "sentencepiece": Contender("prepare.py", ("--sentencepiece",)),
            "sockeye": Contender("prepare.py", ("--sockeye",), pins="sockeye"),
            "eole": Contender("prepare.py", ("--eole",), pins="eole"),
        },
        {
            "pairs_per_second": "pairs/s",
            "seconds": "seconds",
            "peak_mib": "peak MiB, all processes",
        },
        ("pairs_per_second",),
    ),
}
PAIRS = 300_000  # that the suite prepare is about


def write_text(folder: Path, multi30k: Path) -> None:
    """Write the tokens that every contender trains on, and the vocabularies."""
    from dragoman.compose import compose_config
    from dragoman.config import CorpusConfig
    from dragoman.data.preparation import prepare_texts, train_or_load_tokenizers
    from dragoman.data.sources import iter_pairs
    from dragoman.data.tokenizers import SPECIALS

    options = ["+experiment=benchmark", f"data.root={multi30k}", f"data.cache={BENCH / 'cache'}"]
    config, _ = compose_config(ROOT / "configs", options)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizers = train_or_load_tokenizers(config.data, prepare_texts(config.data))
    for split in ("train", "val", "test_2016_flickr"):
        sides = zip(*iter_pairs(config.data, CorpusConfig(split=split)), strict=True)
        for language, lines, tokenizer in zip(("de", "en"), sides, tokenizers, strict=True):
            text = "".join(" ".join(tokenizer.units(line)) + "\n" for line in lines)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
            words = tokenizer.tokens(list(range(len(SPECIALS), len(tokenizer))))
            vocabulary = "".join(word + "\n" for word in words)
            (folder / f"vocab.{language}").write_text(vocabulary, encoding="utf-8")


def write_growing_text(multi30k: Path) -> Path:
    """Write raw text whose words grow in number, and cut by SentencePiece; return its folder."""
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    import growth

    growth.write(PAIRS, multi30k)
    home = growth.FOLDER / str(PAIRS)
    if not (home / "train.pieces.en").exists():
        texts = [str(home / f"train.{side}") for side in ("de", "en")]
        SentencePieceTrainer.train(
            input=texts, model_prefix=str(home / "pieces"), vocab_size=8000, minloglevel=2
        )
        learnt = SentencePieceProcessor(model_file=str(home / "pieces.model"))
        for side in ("de", "en"):
            lines = (home / f"train.{side}").read_text(encoding="utf-8").split("\n")[:-1]
            cut = "".join(" ".join(row) + "\n" for row in learnt.encode(lines, out_type=str))
            (home / f"train.pieces.{side}").write_text(cut, encoding="utf-8")
    return home


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
        *("--data", str(args.data), "--work", str(BENCH / "work" / name)),
        *("--seconds", str(args.seconds), "--steps", str(SUITES[args.suite].steps)),
        *("--threads", str(args.threads), *contender.flags),
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


def kept_weights() -> None:
    """Train the model that the decoding suite translates with, unless it is there."""
    if not (BENCH / "text" / "marian" / "model.safetensors").exists():
        print("training the weights that all will translate with (20 minutes)", flush=True)
        keeper = Contender("train_marian.py", ("--keep",), "marian")
        command = [str(interpreter(keeper)), str(CONTENDERS / keeper.script), *keeper.flags]
        folders = ["--data", str(BENCH / "text"), "--work", str(BENCH / "work" / "kept")]
        subprocess.run([*command, *folders], check=True, stdout=subprocess.DEVNULL)


def agreement(names: list[str]) -> dict[str, dict[str, float]]:
    """Return the share of sentences for which a tool gave the very tokens that Dragoman gave."""
    shares: dict[str, dict[str, float]] = {}
    for kind in ("greedy", "beam"):
        texts = {
            name: (BENCH / "work" / name / f"{kind}.txt").read_text(encoding="utf-8").split("\n")
            for name in names
        }
        ours = texts.pop("dragoman")[:-1]
        shares[kind] = {
            name: sum(mine == yours for mine, yours in zip(ours, theirs, strict=False)) / len(ours)
            for name, theirs in texts.items()
        }
    return shares


Figures = dict[str, list[dict[str, Any]]]


def table(suite: Suite, figures: Figures) -> str:
    """Return a Markdown table of medians, with the spread of the speeds."""
    many = len(suite.speeds) > 1
    spreads = [
        f"{suite.columns[s]}, lowest to highest" if many else "lowest to highest"
        for s in suite.speeds
    ]
    ratios = [
        f"Dragoman is ({suite.columns[s].split(',')[0]})" if many else "Dragoman is"
        for s in suite.speeds
    ]
    heads = [*suite.columns.values(), *spreads, *ratios]
    lines = [f"| tool | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for runs in figures.values():
        cells = [f"{median(runs, column):,.0f}" for column in suite.columns]
        for speed in suite.speeds:
            values = [r[speed] for r in runs]
            cells.append(f"{min(values):,.0f} to {max(values):,.0f}")
        for speed in suite.speeds:
            cells.append(f"{median(figures['dragoman'], speed) / median(runs, speed):.2f} x")
        lines.append(f"| {runs[0]['tool']} {runs[0]['version']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def median(runs: list[dict[str, Any]], column: str) -> float:
    """Return the middle one of a tool's figures."""
    return float(statistics.median(r[column] for r in runs))


def plot(suite: Suite, figures: Figures, path: Path) -> None:
    """Draw the speeds: a bar at the median, a dot for every run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 * len(suite.speeds), 0.5 * len(figures) + 1.2), layout="constrained")
    for axes, speed in zip(
        figure.subplots(1, len(suite.speeds), squeeze=False)[0], suite.speeds, strict=True
    ):
        order = sorted(figures.values(), key=lambda runs: median(runs, speed))
        for place, runs in enumerate(order):
            colour = "#1f5a96" if runs[0]["tool"] == "Dragoman" else "#b8c4d0"
            axes.barh(place, median(runs, speed), color=colour)
            values = [r[speed] for r in runs]
            axes.plot(values, [place] * len(values), "o", color="#222222", markersize=3)
        axes.set_yticks(range(len(order)), [f"{r[0]['tool']} {r[0]['version']}" for r in order])
        axes.set_xlabel(suite.columns[speed])
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run all contenders in turn, and write what they say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="some of the contenders; always with dragoman")
    parser.add_argument("--suite", choices=list(SUITES), default="training")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--multi30k", type=Path, default=ROOT / "data" / "multi30k" / "raw")
    parser.add_argument("--out", type=Path, help="folder for JSON, table and plot")
    args = parser.parse_args()
    suite = SUITES[args.suite]
    if args.quick:
        args.only, args.seconds = ["plain"], min(args.seconds, 15.0)
    if args.only:
        unknown = set(args.only) - set(suite.contenders)
        if unknown:
            there = ", ".join(suite.contenders)
            parser.error(f"no contender {', '.join(sorted(unknown))} in {args.suite}: {there}")
        wanted = {"dragoman", *args.only}
        chosen = {n: c for n, c in suite.contenders.items() if n in wanted}
        suite = suite._replace(contenders=chosen)
    if not (args.multi30k / "train.de.gz").exists():
        parser.error(f"{args.multi30k}: no Multi30k there; run `make data` or give --multi30k")
    for contender in suite.contenders.values():
        interpreter(contender)
    if args.suite == "prepare":
        args.data = write_growing_text(args.multi30k)
    else:
        args.data = BENCH / "text"
        write_text(args.data, args.multi30k)
    if args.suite == "decoding":
        kept_weights()
    figures: Figures = {name: [] for name in suite.contenders}
    for number in range(args.rounds):
        for name, contender in suite.contenders.items():
            figures[name].append(run(name, contender, args))
            speeds = [f"{figures[name][-1][s]:8,.0f} {suite.columns[s]}" for s in suite.speeds]
            print(f"round {number + 1}  {name:16} {'  '.join(speeds)}", flush=True)
    found: dict[str, Any] = {"runs": figures}
    report = table(suite, figures)
    if args.suite == "decoding":
        found["same_tokens"] = agreement(list(suite.contenders))
        for kind, shares in found["same_tokens"].items():
            for name, share in shares.items():
                report += f"\n{kind}: the same tokens as {name} on {share:.1%} of the sentences  "
    if args.suite == "training":
        found["step"] = profile(args)
        report += "\n" + found["step"].pop("text")
    print(report)
    if args.out:
        save(args, suite, found, report)


def profile(args: argparse.Namespace) -> dict[str, Any]:
    """Return where Dragoman's own step goes, and its matrix products done alone."""
    path = BENCH / "work" / "profile.json"
    command = [sys.executable, str(ROOT / "scripts" / "profile_step.py"), "--json", str(path)]
    options = [f"data.root={args.multi30k}", f"data.cache={BENCH / 'cache'}"]
    options.append(f"threads={args.threads}")
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {**figures, "text": done.stdout[done.stdout.index("STEP\n") + 5 :]}


def save(args: argparse.Namespace, suite: Suite, found: dict[str, Any], report: str) -> None:
    """Write JSON, table and plot."""
    args.out.mkdir(parents=True, exist_ok=True)
    stem = args.out / args.suite
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": args.threads,
        "seconds": args.seconds,
    }
    text = json.dumps({"machine": machine, **found}, indent=1) + "\n"
    stem.with_suffix(".json").write_text(text, encoding="utf-8")
    stem.with_suffix(".md").write_text(report, encoding="utf-8")
    plot(suite, found["runs"], stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
