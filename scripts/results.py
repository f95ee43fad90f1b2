"""The results table: train what is missing of it, keep the evidence, write docs/results.md.

    python scripts/results.py [--only ROW ...] [--recipes] [--jobs N] [--all] [key=value ...]
    python scripts/results.py --list
    python scripts/results.py --collect RUN ...

``scripts/results.yaml`` names the rows. Each seed of a row is a run of its own, ``<row>-s<seed>``
under checkpoints; stopped, the same command goes on with it. A finished run is scored on validation
and on every test set that is there, and what backs it goes to ``docs/results/<row>/<seed>/``:
config, log of the steps, scores, hypotheses, and ``run.json`` (parameters, minutes, versions). The
page is written from these folders and the references (``results_page.py``), so that anyone can
check it without training. ``--recipes`` trains the recipes that the search tried instead; of these
only the scores on validation are made and kept.

On CPUs as many runs go on at once as there are cores, a thread each, which is faster than one run
on all of them; on GPUs one run on each, or with a larger --jobs several, since a model this small
leaves most of a GPU idle. Further words, such as data.root=..., go to train.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from glob import glob
from pathlib import Path

import random_split
import results_page as page
from dragoman import settings
from dragoman.config import Config, DataConfig
from dragoman.data.corpora import read_pairs, splits_of
from dragoman.errors import DragomanError, report
from dragoman.files import write_atomic
from dragoman.models.weights import read_tensors
from dragoman.runs import Run, find_run, read_state
from results_page import ROOT, Row, evidence, is_done, read_rows

# Evidence beside the config and run.json.
KEPT = ("train.jsonl", "scores.*.json", "hypotheses.*.txt")
KEPT_OF_TRIALS = ("train.jsonl", "scores.val.json", "hypotheses.val.txt")

Cell = tuple[Row, int]  # and a seed


def name_of(cell: Cell) -> str:
    """Return the name of a cell's run."""
    return f"{cell[0].name}-s{cell[1]}"


def cell_of(run: str, rows: dict[str, Row]) -> Cell:
    """Return the cell of a run's name."""
    name, _, seed = run.rpartition("-s")
    return rows[name], int(seed)


def collect(run: Run, row: Row) -> None:
    """Copy one run's evidence."""
    config = settings.load(run.folder / "config.yaml")
    target = evidence(row, config.seed)
    kept = KEPT_OF_TRIALS if row.is_trial else KEPT
    scored_in = run.folder / row.name if row.search else run.folder
    found = [path for pattern in kept for path in sorted(scored_in.glob(pattern))]
    scored = [path for path in found if path.name.startswith("scores.")]
    if not scored:
        raise DragomanError(f"{run.folder}: not evaluated yet; run dragoman evaluate on it first")
    last, best = (run.checkpoint(which) for which in ("last", "best"))
    state = read_state(last)
    if not state["finished"]:
        raise DragomanError(f"{run.folder}: stands at step {state['step']}; train it to its end")
    scores = [json.loads(path.read_text("utf-8")) for path in scored]
    for path, found_there in zip(scored, scores, strict=True):
        own = row.search or found_there["decoding"] == asdict(config.decode)
        if not own or found_there["counts"]["checkpoint"] != [best.name]:
            raise DragomanError(f"{path}: of another search or checkpoint; evaluate it again")
    chosen = {score["counts"]["weights"] for score in scores}
    target.mkdir(parents=True, exist_ok=True)
    for path in found:
        shutil.copy(path, target / path.name)
    config.run_name = row.run_name(config.seed)  # whatever it was called here
    settings.save(settings.portable(config), target / "config.yaml")
    if chosen == {"as validated"}:
        chosen = {read_state(best)["scored"]}
    facts = {
        "run": config.run_name,
        "parameters": sum(t.numel() for t in read_tensors(best / "model.safetensors").values()),
        "minutes": round(state["seconds"] / 60, 1),
        "target_tokens": state["target_tokens"],
        "steps": state["step"],
        "best_step": state["best_step"],
        "weights": ", ".join(sorted(chosen)),
        "threads": " and later ".join(map(str, state["threads"])),  # "" on GPUs
        "gpus": " and later ".join(state.get("gpus", [])),
        "versions": state["versions"],
    }
    write_atomic(target / "run.json", json.dumps(facts, indent=2) + "\n")
    print(f"{run.folder} -> {target}", flush=True)


def option(own: list[str], key: str, usual: str) -> str:
    """Return the value that the words for train.py give a key."""
    return next((w.split("=", 1)[1] for w in own if w.startswith(f"{key}=")), usual)


def runs_folder(own: list[str]) -> Path:
    """Return where the runs are."""
    return ROOT / option(own, "checkpoint_dir", Config.checkpoint_dir)


def prepare(row: Row, own: list[str]) -> None:
    """Make the texts that a row's runs are trained on, and keep the notes of how they were made."""
    if any(f"={page.RANDOM}" in word for word in row.args):
        random_split.split(page.others() / "deu-eng.zip", ROOT / page.RANDOM)
    root = Path(option(own, "data.root", DataConfig.root))
    runs = runs_folder(own)
    where = {"root": root, "data": root.parent, "runs": runs}
    for text in row.texts:
        words: list[str] = []
        for word in text.command:
            pattern = word.format(**where)
            found = sorted(glob(pattern, root_dir=ROOT)) if "*" in pattern else [pattern]
            if not found:
                raise DragomanError(f"{row.name}: no file {pattern}; `make data` brings it")
            words += found
        words += ["--device", option(own, "device", "auto")]
        run_python(["-m", "dragoman.cli", *words], runs / ".results" / f"{row.name}.log")
        note = Path(f"{text.output.format(**where)}.json")
        kept = page.RESULTS / "texts"
        kept.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / note, kept)


def make(row: Row, seed: int, own: list[str]) -> None:
    """Train, score and collect one run; one that is done is only trained, where it is not here."""
    run = Run(runs_folder(own) / row.run_name(seed))
    log = run.folder.parent / ".results" / f"{run.name}.log"
    # Two runs that share cores must not both use all of them: their threads would wait in turn.
    threads = option(own, "threads", "")
    args = row.words_for(seed, run.folder.parent)
    words = ["train.py", *args, f"seed={seed}", f"run_name={run.name}", *own]
    run_python(words, log, threads)
    if is_done(row, seed):
        return
    data = settings.load(run.folder / "config.yaml").data
    for split in splits_of(data):
        if split in {corpus.split for corpus in data.corpora}:
            continue
        if row.is_trial and split != data.validation_split:
            continue
        try:
            read_pairs(data, split)
        except DragomanError:
            continue  # a test set that is not here can be scored later
        words = ["-m", "dragoman.cli", "evaluate", str(run.folder), "--split", split]
        words += ["--device", option(own, "device", "auto"), *row.search]
        words += ["--robust"] if row.robust and split == row.split else []
        if row.search:
            words += ["--output", str(run.folder / row.name)]
        run_python(words, log, threads)
    collect(run, row)


def run_python(words: list[str], log: Path, threads: str = "") -> None:
    """Run Python in the repository, on so many threads, its output in a log file."""
    print(f"{log.stem}: {' '.join(words)} (output in {log})", flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        command = [sys.executable, *words]
        env = {**os.environ, **({"OMP_NUM_THREADS": threads} if threads else {})}
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=stream, stderr=stream, check=False)
    if done.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise DragomanError(f"{log.stem}: {''.join(last)} ({log})")


def missing(rows: dict[str, Row], only: Iterable[str]) -> list[Cell]:
    """Return what has no evidence, and all that it builds on."""
    cells = [
        (rows[name], seed)
        for name in only
        for seed in rows[name].seeds
        if not is_done(rows[name], seed)
    ]
    for row, _ in cells:  # grows as it goes: what builds on others may be built on
        wanted = [cell_of(run, rows) for run in sorted(row.needs)]
        cells += [cell for cell in wanted if cell not in cells]
    return cells


def places(jobs: int | None) -> list[list[str]]:
    """Return the words for train.py that tell runs at once where to be."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        return [["device=cpu", "threads=1"]] * (jobs or cores())
    wanted = jobs or gpus
    own_core = ["threads=1"] if wanted > gpus else []  # else each would start one for every core
    return [[f"device=cuda:{n % gpus}", *own_core] for n in range(wanted)]


def cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def train_all(
    cells: list[Cell], where: list[list[str]], own: list[str]
) -> list[BaseException | None]:
    """Train cells, one a place at a time; return for each why it is still missing."""
    free = list(where)

    def one(cell: Cell) -> None:
        place = free.pop()
        try:
            make(*cell, [*place, *own])
        finally:
            free.append(place)

    with ThreadPoolExecutor(len(where)) as pool:
        futures = [pool.submit(one, cell) for cell in cells]
        try:
            wait(futures)
        except KeyboardInterrupt:  # the runs have heard it too; no other one may begin
            pool.shutdown(cancel_futures=True)
            raise
    return [future.exception() for future in futures]


def train_missing(cells: list[Cell], where: list[list[str]], own: list[str]) -> list[BaseException]:
    """Train cells, each after those that it builds on; return what went wrong."""
    problems: dict[str, BaseException] = {}
    while cells:
        unmade = set(map(name_of, cells))
        now = [cell for cell in cells if not cell[0].needs & unmade]
        assert now, "a row of the results builds on itself"
        cells = [cell for cell in cells if cell not in now]
        for row in {row.name: row for row, _ in now}.values():
            try:
                if lost := sorted(row.needs & problems.keys()):
                    raise DragomanError(f"{row.name}: waits for {', '.join(lost)}")
                prepare(row, own)
            except DragomanError as problem:
                problems |= {name_of(cell): problem for cell in now if cell[0] is row}
        ready = [cell for cell in now if name_of(cell) not in problems]
        for cell, found in zip(ready, train_all(ready, where, own), strict=True):
            if found is not None:
                problems[name_of(cell)] = found
    return list(dict.fromkeys(problems.values()))


def main(words: list[str] | None = None) -> None:
    """Train, collect, and rewrite the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="say what is there, train nothing")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="train these rows alone")
    parser.add_argument("--recipes", action="store_true", help="train the recipes tried instead")
    parser.add_argument("--jobs", type=int, help="runs at once; default: one a GPU or core")
    parser.add_argument("--all", action="store_true", help="rows meant for a GPU, too")
    parser.add_argument("--collect", nargs="+", metavar="RUN", default=None,
                        help="take over runs named <row>-..., train nothing")  # fmt: skip
    given = sys.argv[1:] if words is None else words
    own = [word for word in given if "=" in word and word[0] != "-"]  # wherever they stand
    args = parser.parse_args([word for word in given if word not in own])
    rows = {row.name: row for row in read_rows()}
    for name in args.only or []:
        if name not in rows:
            parser.error(f"no row {name} in {page.ROWS.name}: {', '.join(rows)}")
    root = option(own, "data.root", DataConfig.root)
    problems: list[BaseException] = []
    try:
        if args.list:
            for row in rows.values():
                marks = [f"{s}{'' if is_done(row, s) else ' missing'}" for s in row.seeds]
                print(f"{row.name:28} seeds {', '.join(marks)}")
            return
        if args.collect:
            for name in args.collect:
                run = find_run(name)
                place = run.name if run.name in rows else run.name.split("-")[0]
                if place not in rows:
                    raise DragomanError(f"{name}: no row of {page.ROWS.name} is called {place}")
                collect(run, rows[place])
        else:
            where = places(args.jobs)
            of_gpus = args.all or "cuda" in where[0][0]
            usual = [r.name for r in rows.values() if r.is_trial == args.recipes]
            only = args.only or [name for name in usual if of_gpus or not rows[name].gpu]
            problems = train_missing(missing(rows, only), where, own)
        write_atomic(page.RESULTS.parent / "results.md", page.page([*rows.values()], Path(root)))
        for reason in problems:
            print(f"error: {reason}", file=sys.stderr)
        if problems:
            raise DragomanError("the page lacks what did not end")
    except DragomanError as problem:
        raise SystemExit(report(problem)) from None
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
