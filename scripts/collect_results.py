"""Copy what backs a result into docs/results, and rewrite the table from what lies there.

    python scripts/collect_results.py [RUN ...]

A run goes to ``docs/results/<experiment>/<seed>/``: its config, the log of its steps, the scores
and hypotheses of every split evaluated, and ``run.json`` (parameters, minutes, target tokens,
versions). ``docs/results.md`` is then written from these folders alone, so that anyone can check it
without training: the hypotheses are re-scored with the sacrebleu command line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

from dragoman import settings
from dragoman.compose import fail
from dragoman.config import Config, DataConfig
from dragoman.errors import DragomanError
from dragoman.files import write_atomic
from dragoman.models.weights import read_tensors
from dragoman.runs import find_run, read_state

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SPLIT = "test_2016_flickr"
COLUMNS = ("bleu", "bleu_lc", "bleu_lc_tok", "chrf", "ter")

INTRODUCTION = f"""# Results

Multi30k, `{SPLIT}`, text only, trained from scratch on the 29,000 pairs of the language pair.
Checkpoints were chosen on the validation split; the test split was scored once, at the end. Every
row lists its seeds; where there are several, figures are their mean.

Behind each row lies `docs/results/<experiment>/<seed>/` with the resolved config, the log of all
steps, the scores and the hypotheses. To re-score a row without Dragoman:

    gunzip -c data/multi30k/raw/{SPLIT}.en.gz > reference.en
    sacrebleu reference.en -i docs/results/transformer/1/hypotheses.{SPLIT}.txt

`bleu` is cased sacreBLEU on detokenised text, `bleu_lc` the same lower-cased, `bleu_lc_tok` the
lower-cased, tokenised figure of most papers; [how-it-works.md](how-it-works.md#evaluation) says how
it is made. The 95 % interval is that of `bleu`, by bootstrap over sentences (seed by seed; shown
for the first). Minutes are of training alone, on the CPU and the threads named.
"""


def collect(name: str) -> None:
    """Copy one run's evidence."""
    run = find_run(name)
    config = settings.load(run.folder / "config.yaml")
    experiment = run.name.split(f"-{config.data.src}-{config.data.tgt}-")[0]
    target = RESULTS / experiment / str(config.seed)
    target.mkdir(parents=True, exist_ok=True)
    scored = sorted(run.folder.glob("scores.*.json"))
    if not scored:
        raise DragomanError(f"{run.folder}: not evaluated yet; run dragoman evaluate on it first")
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
    print(f"{run.folder} -> {target}")


def row(experiment: Path) -> list[str] | None:
    """Return a table row from the seeds of one experiment, or None if none was scored."""
    seeds = sorted((p for p in experiment.iterdir() if p.is_dir()), key=lambda p: int(p.name))
    seeds = [seed for seed in seeds if (seed / f"scores.{SPLIT}.json").exists()]
    if not seeds:
        return None
    scores: list[dict[str, Any]] = [
        json.loads((seed / f"scores.{SPLIT}.json").read_text()) for seed in seeds
    ]
    facts: list[dict[str, Any]] = [json.loads((seed / "run.json").read_text()) for seed in seeds]
    config = settings.load(seeds[0] / "config.yaml")
    d = config.decode
    search = f"{d.method} {d.beam_size}" if d.method == "beam" else d.method
    low, high = scores[0]["bleu"]["interval"]
    figures = [f"{statistics.mean(s[name]['score'] for s in scores):.2f}" for name in COLUMNS]
    figures[0] = f"**{figures[0]}** [{low:.1f}, {high:.1f}]"
    return [
        f"[{experiment.name}](results/{experiment.name})",
        f"{config.data.src}→{config.data.tgt}",
        ", ".join(seed.name for seed in seeds),
        *figures,
        f"{facts[0]['parameters'] / 1e6:.1f} M",
        f"{statistics.mean(f['minutes'] for f in facts):.0f}",
        f"{statistics.mean(f['target_tokens'] for f in facts) / 1e6:.1f} M",
        f"{search}, {d.length_penalty_form} {d.length_penalty:g}",
        f"`python train.py +experiment={experiment.name}`",
    ]


def table() -> str:
    """Return docs/results.md."""
    head = ["experiment", "pair", "seeds", *(f"`{name}`" for name in COLUMNS)]
    head += ["parameters", "minutes", "target tokens", "search", "command"]
    rows = [row(path) for path in sorted(RESULTS.iterdir()) if path.is_dir()]
    lines = [head, ["---"] * len(head), *(found for found in rows if found)]
    signatures = []
    for path in sorted(RESULTS.glob(f"*/*/scores.{SPLIT}.json"))[:1]:
        scores = json.loads(path.read_text())
        signatures = [f"* `{name}`: `{scores[name]['signature']}`" for name in COLUMNS]
    return "\n".join(
        [
            INTRODUCTION,
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            "Signatures:",
            "",
            *signatures,
            "",
        ]
    )


def main() -> None:
    """Collect the named runs and rewrite the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", metavar="RUN")
    try:
        for name in parser.parse_args().runs:
            collect(name)
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_atomic(RESULTS.parent / "results.md", table())
    except DragomanError as problem:
        fail(problem)


if __name__ == "__main__":
    main()
