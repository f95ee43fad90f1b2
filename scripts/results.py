"""The results table: train what is missing of it, keep the evidence, write docs/results.md.

    python scripts/results.py [--list] [--only ROW ...] [--jobs N] [--all] [key=value ...]
    python scripts/results.py --collect RUN ...

``scripts/results.yaml`` names the rows. Each seed of a row is a run of its own, ``<row>-s<seed>``
under checkpoints; stopped, the same command goes on with it. A finished run is scored on validation
and on every test set that is there, and what backs it goes to ``docs/results/<row>/<seed>/``:
config, log of the steps, scores, hypotheses, and ``run.json`` (parameters, minutes, versions). The
table is written from these folders and the references, so that anyone can check it without
training.

On CPUs as many runs go on at once as there are cores, a thread each, which is faster than one run
on all of them; on GPUs one run on each. Further words, such as data.root=..., go to train.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from dragoman import settings
from dragoman.compose import fail
from dragoman.config import Config, DataConfig
from dragoman.data.corpora import read_pairs, splits_of
from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS, MetricResult
from dragoman.evaluation.scores import read_hypotheses
from dragoman.evaluation.significance import paired_bootstrap_of_means, resampled_means
from dragoman.files import write_atomic
from dragoman.models.weights import read_tensors
from dragoman.runs import Run, find_run, read_state

ROOT = Path(__file__).parents[1]
ROWS = Path(__file__).with_name("results.yaml")
RESULTS = ROOT / "docs" / "results"
SPLIT = "test_2016_flickr"
COLUMNS = ("bleu", "bleu_lc", "bleu_lc_tok", "chrf", "ter")

INTRODUCTION = f"""# Results

Multi30k, `{SPLIT}`, text only, trained from scratch. Checkpoints were chosen on the validation
split; the test split was scored once, at the end. Figures are means over the seeds named, with
their standard deviation (sd) where there are several. No seed was left out. `make results` trains
what is missing and rewrites this page.

Behind each row lies `docs/results/<row>/<seed>/` with the resolved config, the log of all steps,
the scores and the hypotheses. To re-score a run without Dragoman:

    gunzip -c data/multi30k/raw/{SPLIT}.en.gz > reference.en
    sacrebleu reference.en -i docs/results/transformer/1/hypotheses.{SPLIT}.txt

`bleu` is cased sacreBLEU on detokenised text, `bleu_lc` the same lower-cased, `bleu_lc_tok` the
lower-cased, tokenised figure of most papers; [how-it-works.md](how-it-works.md#evaluation) says how
it is made. The 95 % interval is that of the mean `bleu`, by bootstrap over sentences; p is of the
paired bootstrap against the row above, where that one translates the same pair. Minutes are of
training alone, on the device named.
"""


class Row(NamedTuple):
    """A line of the table."""

    name: str
    args: list[str]
    seeds: list[int]
    gpu: bool


def read_rows() -> list[Row]:
    """Return the rows of ``results.yaml``."""
    found = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    return [Row(r["row"], r["args"], r["seeds"], r.get("gpu", False)) for r in found]


def evidence(row: str, seed: int) -> Path:
    """Return the folder that backs one run of a row."""
    return RESULTS / row / str(seed)


def is_done(row: str, seed: int) -> bool:
    """Whether a run's evidence is there."""
    return (evidence(row, seed) / f"scores.{SPLIT}.json").exists()


def collect(run: Run, target: Path) -> None:
    """Copy one run's evidence."""
    config = settings.load(run.folder / "config.yaml")
    scored = sorted(run.folder.glob("scores.*.json"))
    if not scored:
        raise DragomanError(f"{run.folder}: not evaluated yet; run dragoman evaluate on it first")
    target.mkdir(parents=True, exist_ok=True)
    for path in (run.folder / "train.jsonl", *scored, *sorted(run.folder.glob("hypotheses.*.txt"))):
        shutil.copy(path, target / path.name)
    # Paths of the machine it ran on say nothing about the result.
    config.data.root, config.data.cache, config.checkpoint_dir = (
        DataConfig.root,
        DataConfig.cache,
        Config.checkpoint_dir,
    )
    settings.save(config, target / "config.yaml")
    last, best = (run.checkpoint(which) for which in ("last", "best"))
    state = read_state(last)
    facts = {
        "run": run.name,
        "parameters": sum(t.numel() for t in read_tensors(best / "model.safetensors").values()),
        "minutes": round(state["seconds"] / 60, 1),
        "target_tokens": state["target_tokens"],
        "steps": state["step"],
        "best_step": state["best_step"],
        "weights": read_state(best)["scored"],
        "threads": config.threads,
        "versions": state["versions"],
    }
    write_atomic(target / "run.json", json.dumps(facts, indent=2) + "\n")
    print(f"{run.folder} -> {target}", flush=True)


def option(own: list[str], key: str, usual: str) -> str:
    """Return the value that the words for train.py give a key."""
    return next((w.split("=", 1)[1] for w in own if w.startswith(f"{key}=")), usual)


def make(row: Row, seed: int, own: list[str]) -> None:
    """Train, score and collect one run."""
    name = f"{row.name}-s{seed}"
    home = ROOT / option(own, "checkpoint_dir", Config.checkpoint_dir)
    log = home / ".results" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    run_python(["train.py", *row.args, f"seed={seed}", f"run_name={name}", *own], log)
    run = Run(home / name)
    data = settings.load(run.folder / "config.yaml").data
    for split in splits_of(data):
        if split in {corpus.split for corpus in data.corpora}:
            continue
        try:
            read_pairs(data, split)
        except DragomanError:
            continue  # a test set that is not here can be scored later
        run_python(["-m", "dragoman.cli", "evaluate", str(run.folder), "--split", split], log)
    collect(run, evidence(row.name, seed))


def run_python(words: list[str], log: Path) -> None:
    """Run Python in the repository, its output in a log file."""
    print(f"{log.stem}: {' '.join(words)} (output in {log})", flush=True)
    with log.open("a") as stream:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=ROOT, stdout=stream, stderr=stream, check=False)
    if done.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise DragomanError(f"{log.stem}: {''.join(last)} ({log})")


def train_missing(rows: list[Row], jobs: int | None, everything: bool, own: list[str]) -> None:
    """Train all cells that have no evidence, some at once."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    jobs = jobs or gpus or os.cpu_count() or 1
    cells = [
        (row, seed)
        for row in rows
        for seed in row.seeds
        if not is_done(row.name, seed) and (gpus or everything or not row.gpu)
    ]
    places = [[f"device=cuda:{n}"] for n in range(gpus)] or [["device=cpu", "threads=1"]] * jobs
    free = list(places[:jobs])

    def one(cell: tuple[Row, int]) -> None:
        place = free.pop()
        try:
            make(*cell, [*place, *own])
        finally:
            free.append(place)

    with ThreadPoolExecutor(min(jobs, len(places))) as pool:
        futures = [pool.submit(one, cell) for cell in cells]
        problems = [problem for future in futures if (problem := future.exception())]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise DragomanError(
            f"{len(problems)} of {len(cells)} runs did not end; the table lacks them"
        )


class Scored(NamedTuple):
    """The runs of a row, as far as they are there."""

    row: str
    seeds: list[int]
    config: Config
    scores: list[dict[str, Any]]
    facts: list[dict[str, Any]]
    results: list[MetricResult]


def load(row: str, root: Path) -> Scored | None:
    """Read a row's evidence; None if there is none."""
    folder = RESULTS / row
    found = [p.name for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    seeds = sorted(int(name) for name in found if is_done(row, int(name)))
    if not seeds:
        return None
    folders = [evidence(row, seed) for seed in seeds]
    config = settings.load(folders[0] / "config.yaml")
    config.data.root = str(root)
    _, references = read_pairs(config.data, SPLIT)
    results = [
        METRICS["bleu"](
            read_hypotheses(path / f"hypotheses.{SPLIT}.txt"), references, config.data.tgt
        )
        for path in folders
    ]
    scores = [json.loads((path / f"scores.{SPLIT}.json").read_text()) for path in folders]
    for path, score, result in zip(folders, scores, results, strict=True):
        if round(result.score, 4) != score["bleu"]["score"]:
            raise DragomanError(
                f"{path}: the hypotheses score {result.score:.4f}, not what is said"
            )
    facts = [json.loads((path / "run.json").read_text()) for path in folders]
    return Scored(row, seeds, config, scores, facts, results)


def line(found: Scored, above: Scored | None, args: list[str]) -> list[str]:
    """Return a row of the table."""
    config, scores, facts = found.config, found.scores, found.facts
    d = config.decode
    search = f"{d.method} {d.beam_size}" if d.method == "beam" else d.method
    figures = []
    for name in COLUMNS:
        values = [score[name]["score"] for score in scores]
        sd = f" (sd {statistics.stdev(values):.2f})" if len(values) > 1 and name == "bleu" else ""
        figures.append(f"{statistics.mean(values):.2f}{sd}")
    low, high = np.percentile(resampled_means([found.results])[0], [2.5, 97.5])
    pair, p = (config.data.src, config.data.tgt), ""
    if above is not None and (above.config.data.src, above.config.data.tgt) == pair:
        p = f"{paired_bootstrap_of_means(found.results, above.results):.3f}"
    figures[0] = f"**{figures[0]}** [{low:.1f}, {high:.1f}]"
    return [
        f"[{found.row}](results/{found.row})",
        "→".join(pair),
        ", ".join(map(str, found.seeds)),
        *figures,
        p,
        f"{facts[0]['parameters'] / 1e6:.1f} M",
        f"{statistics.mean(f['minutes'] for f in facts):.0f}",
        f"{statistics.mean(f['target_tokens'] for f in facts) / 1e6:.1f} M",
        f"{search}, {d.length_penalty_form} {d.length_penalty:g}",
        f"`python train.py {' '.join(args)}`",
    ]


def table(rows: list[Row], root: Path) -> str:
    """Return docs/results.md."""
    head = ["row", "pair", "seeds", *(f"`{name}`" for name in COLUMNS), "p"]
    head += ["parameters", "minutes", "target tokens", "search", "command"]
    lines, missing, above = [head, ["---"] * len(head)], [], None
    signatures: dict[str, str] = {}
    for row in rows:
        found = load(row.name, root)
        gone = [str(seed) for seed in row.seeds if not is_done(row.name, seed)]
        if gone:
            missing.append(f"* {row.name}: seed {', '.join(gone)}")
        if found is not None:
            lines.append(line(found, above, row.args))
            signatures = {name: found.scores[0][name]["signature"] for name in COLUMNS}
            above = found
    parts = [INTRODUCTION, *(f"| {' | '.join(cells)} |" for cells in lines), ""]
    if missing:
        parts += ["Not trained yet (`make results` does):", "", *missing, ""]
    parts += [
        "Signatures:",
        "",
        *(f"* `{name}`: `{text}`" for name, text in signatures.items()),
        "",
    ]
    return "\n".join(parts)


def main(words: list[str] | None = None) -> None:
    """Train, collect, and rewrite the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="say what is there, train nothing")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="train these rows alone")
    parser.add_argument("--jobs", type=int, help="runs at once; default: one a GPU or core")
    parser.add_argument("--all", action="store_true", help="rows meant for a GPU, too")
    parser.add_argument("--collect", nargs="+", metavar="RUN", default=None,
                        help="take over runs named <row>-..., train nothing")  # fmt: skip
    args, own = parser.parse_known_args(words)
    rows = read_rows()
    names = [row.name for row in rows]
    for name in args.only or []:
        if name not in names:
            parser.error(f"no row {name} in {ROWS.name}: {', '.join(names)}")
    root = option(own, "data.root", DataConfig.root)
    try:
        if args.list:
            for row in rows:
                marks = [f"{s}{'' if is_done(row.name, s) else ' missing'}" for s in row.seeds]
                print(f"{row.name:24} seeds {', '.join(marks)}")
            return
        if args.collect:
            for name in args.collect:
                run = find_run(name)
                config = settings.load(run.folder / "config.yaml")
                place = next((n for n in names if run.name.startswith(f"{n}-")), run.name)
                collect(run, evidence(place, config.seed))
        else:
            chosen = [row for row in rows if not args.only or row.name in args.only]
            train_missing(chosen, args.jobs, args.all, own)
        write_atomic(RESULTS.parent / "results.md", table(rows, Path(root)))
    except DragomanError as problem:
        fail(problem)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
