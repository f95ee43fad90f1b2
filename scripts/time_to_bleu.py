"""How long it takes, from the shell to a BLEU score.

    python scripts/time_to_bleu.py [key=value ...] [--seeds 1 2 3] [--target 38]
                                   [--split test_2016_flickr] [--out docs/benchmarks]

Trains ``+experiment=sprint`` (or another one) and scores its best checkpoint, seed by seed, each in
a new process with nothing cached: no tokenizer, no token ids, no compiled kernels. The clock runs
from the start of the process to its end. The schedule is fixed, nothing looks at the split before
the end, and it is scored once. Then the same again with the caches of the first time: the warm
figure. ``train.precision=bf16 device=cuda`` and a larger ``train.batch_size`` suit a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Where kernels that were compiled once are kept, so that a cold start has none.
KERNELS = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH")
COLUMNS = {
    "seed": "seed",
    "cold_seconds": "seconds, cold",
    "warm_seconds": "seconds, warm",
    "training_seconds": "of them updates",
    "scoring_seconds": "and the search",
    "tokens_per_second": "target tokens/s",
    "validation_bleu": "validation BLEU, greedy",
    "bleu": "BLEU",
}


def measure(folder: Path, split: str, overrides: list[str]) -> None:
    """Train, score and print the figures: what the clock runs for."""
    from dragoman.compose import compose_config
    from dragoman.errors import DragomanError, report

    try:
        config, _ = compose_config(ROOT / "configs", overrides)
        print(json.dumps(train_and_score(config, folder, split)), flush=True)
    except DragomanError as problem:
        raise SystemExit(report(problem)) from None


def train_and_score(config: Any, folder: Path, split: str) -> dict[str, Any]:
    """Return the figures of one run."""
    import torch

    from dragoman.api import Run
    from dragoman.runs import read_state
    from dragoman.training.loop import train

    run = Run(folder)
    train(config, run)
    state = read_state(run.checkpoint("best"))
    translator = run.translator(device=config.device)
    done = translator.evaluate(split)
    cuda = next(translator.models[0].parameters()).is_cuda
    return {
        "training_seconds": state["seconds"],
        "scoring_seconds": done.seconds,
        "tokens_per_second": state["target_tokens"] / state["seconds"],
        "validation_bleu": state["best_score"],
        "bleu": done.bleu.score,
        "signature": done.bleu.signature,
        "device": torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }


def clocked(folder: Path, seed: int, warm: bool, args: argparse.Namespace) -> dict[str, Any]:
    """Run ``measure`` in a process of its own and add the seconds that it lived."""
    own = [f"seed={seed}", f"data.cache={folder / 'cache'}", *args.overrides]
    run = folder / ("warm" if warm else "cold")
    command = [sys.executable, __file__, "--measure", str(run), "--split", args.split, *own]
    env = {**os.environ, **{name: str(folder / name) for name in KERNELS}}
    with (folder / f"{run.name}.log").open("w") as log:
        began = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        seconds = time.monotonic() - began
    if done.returncode:
        sys.exit((folder / f"{run.name}.log").read_text()[-2000:])
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


def main() -> None:
    """Time all seeds, cold and then warm."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--target", type=float, default=38.0, help="BLEU that is wanted")
    parser.add_argument("--split", default="test_2016_flickr")
    parser.add_argument("--no-warm", action="store_true", help="leave out the warm runs")
    parser.add_argument("--out", type=Path, help="folder for JSON and table")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args()
    if not any(word.startswith("+experiment=") for word in overrides):
        overrides.insert(0, "+experiment=sprint")
    args.overrides = overrides
    if args.measure:
        measure(args.measure, args.split, args.overrides)
        return
    runs = []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as home:
            found = clocked(Path(home), seed, False, args)
            found = {"seed": seed, **found, "cold_seconds": found.pop("seconds")}
            if not args.no_warm:
                found["warm_seconds"] = clocked(Path(home), seed, True, args)["seconds"]
        runs.append(found)
        print(json.dumps(found), flush=True)
    columns = {name: head for name, head in COLUMNS.items() if name in runs[0]}
    lines = [f"| {' | '.join(columns.values())} |", "|" + "---:|" * len(columns)]
    for run in runs:
        cells = [f"{run[name]:,.2f}" if "bleu" in name else f"{run[name]:,.0f}" for name in columns]
        lines.append(f"| {' | '.join(cells)} |")
    cold = statistics.median(run["cold_seconds"] for run in runs)
    bleu = statistics.median(run["bleu"] for run in runs)
    reached = sum(run["bleu"] >= args.target for run in runs)
    said = [word for word in args.overrides if not word.startswith("data.root=")]
    lines += [
        "",
        f"Median of {len(runs)}: {bleu:.2f} BLEU on {args.split} after {cold:,.0f} seconds, cold; "
        f"{reached} of {len(runs)} seeds reach {args.target:g}.",
        f"`{runs[0]['signature']}`; {' '.join(said)}; {runs[0]['device']}, "
        f"torch {runs[0]['torch']}, {platform.machine()}.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        rows = json.dumps({"overrides": said, "runs": runs}, indent=1) + "\n"
        (args.out / "time_to_bleu.json").write_text(rows, encoding="utf-8")
        (args.out / "time_to_bleu.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
