"""The page docs/results.md, made of nothing but the evidence under docs/results.

A row of the results is a recipe with its seeds, scored on the test split once; a recipe tried is a
run, scored on validation alone. ``results.yaml`` names them all.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

import random_split
from dragoman import settings
from dragoman.config import Config
from dragoman.data.corpora import read_pairs
from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS, MetricResult
from dragoman.evaluation.scores import read_hypotheses, read_scores
from dragoman.evaluation.significance import paired_bootstrap_of_means, resampled_means

ROOT = Path(__file__).parents[1]
ROWS = Path(__file__).with_name("results.yaml")
RESULTS = ROOT / "docs" / "results"
OTHERS = Path("data/wild")  # the corpora other than Multi30k; or where $WILD says
RANDOM = Path("data/random")  # one of them, split at random
SPLIT = "test_2016_flickr"  # of Multi30k; of other corpora, test
COLUMNS = ("bleu", "bleu_lc", "bleu_lc_tok", "chrf", "ter")

INTRODUCTION = f"""# Results

Multi30k, `{SPLIT}`, text only, trained from scratch or, where a row says so, from the run of
another row. Checkpoints were chosen on the validation split; the test split was scored once, at the
end. Figures are means over the seeds named, with their standard deviation (sd) where there are
several. No seed was left out. `make results` trains what is missing and rewrites this page.

Behind each row lies `docs/results/<row>/<seed>/` with the resolved config, the log of the training,
the scores and the hypotheses. To re-score a run without Dragoman:

    gunzip -c data/multi30k/raw/{SPLIT}.en.gz > reference.en
    sacrebleu reference.en -i docs/results/rnn_additive/1/hypotheses.{SPLIT}.txt -w 2

With `-lc` it is `bleu_lc`. For `bleu_lc_tok` pass both files through `python -m
dragoman.evaluation.moses en` first, and score the tokens with `-tok none --force`.

`bleu` is cased sacreBLEU on detokenised text (val: on the validation split), `bleu_lc` the same
lower-cased, `bleu_lc_tok` the lower-cased, tokenised figure of most papers;
[how-it-works.md](how-it-works.md#evaluation) says how it is made. The 95 % interval is that of the
mean `bleu`, by bootstrap over sentences; p is of the paired bootstrap against the row above, where
that one translates the same pair, and does not say which of the two is better. Both resample
sentences, not seeds, so they say nothing of what other seeds would give. Minutes are of training
alone: "56 on 2" took 56 on two threads of a CPU. One thread a run, two runs at once, do about as
much in the same time. "4 on NVIDIA H200" took 4 on a GPU that nine to thirteen runs shared. CPUs
were of several kinds and did other work beside, and Dragoman became faster between some runs, so
minutes of two rows do not compare them. The command trains the first seed; others are `seed=2
run_name=<row>-s2` and so on.
"""
GOALS = f"""## Goals

What was to be reached on `{SPLIT}`, set before the first run. The row named is the best of its
kind on validation, of those with three seeds where there are any. What else was tried for goals
that are missed is in the tables of recipes below.
"""
ROBUSTNESS = f"""## Robustness

`bleu` on `{SPLIT}` when its text comes in another form, and how much of the score is left
(`dragoman evaluate <run> --split {SPLIT} --robust`).
"""
OTHER_TEXT = """## Other text

The recipe `+experiment=auto` on text as people have it, scored on its `test` split: that of the
corpus or, where it has none, lines that are held out by groups of pairs that share a sentence.
`auto_tatoeba_random` has the same pairs as `auto_tatoeba`, split at random, line by line
(`python scripts/random_split.py data/wild/deu-eng.zip data/random`): what it scores higher is worth
nothing, since sentences of its test split were trained on. The files belong in `data/wild`, or
where `$WILD` says:

* `deu-eng.zip`: Tatoeba's German-English pairs as the Anki site hands them out, of 2018-05-13,
  SHA-256 `b7688f84f99fa33c17397c14d8bd9cef1fdeb2ee0bf50074767023aee8926e28`
* `enja50k`: [small_parallel_enja](https://github.com/odashi/small_parallel_enja), packed by gzip
* `mafand`: [MAFAND](https://github.com/masakhane-io/lafand-mt), `data/text_files/en-swa`, packed by
  gzip
* `ui.en-ja.tsv.gz`: strings of user interfaces, gathered from the message catalogues of Debian
  packages; it has no address. SHA-256
  `e7dc918d1e1bb36961dd2882f98a433412837e7b494b613df18405db5cb35191`
"""
RECIPES = """## Recipes tried

Every recipe was judged on the validation split, with the search of the results; test sets play no
part here. Runs are shortened, so that more of them can be tried: compare within a table. Each is
one seed, and seeds alone move BLEU: a difference of less than a point says little. Weights are
those that were scored: `raw`, `ema` (the moving average) or `average` (of checkpoints, where it
validated better than the best of them). `make results ARGS=--recipes` trains what is missing.
Mixtures, lengths and rates of `transformer_best`, `transformer_german` and `transformer_tuned`
follow from what is seen here and were set once.
"""


class Text(NamedTuple):
    """Sentence pairs that models make of real text, for rows that are trained on them."""

    name: str
    by: list[str]
    input: str
    search: list[str]
    what: str

    @property
    def output(self) -> str:
        """What its files' names begin with; {data} stands for a folder."""
        return f"{{data}}/synthetic/{self.name}"

    @property
    def command(self) -> list[str]:
        """The words for dragoman; {runs}, {root} and {data} stand for folders."""
        runs = [f"{{runs}}/{run}" for run in self.by]
        files = ["--root", "{root}", "--input", self.input, "--output", self.output]
        return ["backtranslate", *runs, *self.search, *files]


class Row(NamedTuple):
    """A recipe and its runs: a line of the results or, with a reason, of the recipes tried."""

    name: str
    args: list[str]
    seeds: list[int]
    gpu: bool
    texts: list[Text]
    after: list[str]
    of: str
    search: list[str]
    why: str
    pairs: int
    robust: bool
    split: str
    group: str

    @property
    def is_trial(self) -> bool:
        """Whether it is scored on validation alone."""
        return bool(self.group)

    @property
    def needs(self) -> set[str]:
        """The runs of other rows that it builds on."""
        return {*self.after, *(run for text in self.texts for run in text.by)}

    def run_name(self, seed: int) -> str:
        """Return the name of the run that one seed's evidence comes from."""
        return f"{self.of}-s{seed}"

    def words_for(self, seed: int, runs: object = Config.checkpoint_dir) -> list[str]:
        """Return the words for train.py, where the runs are in a folder ``runs``."""
        values = {"{runs}": str(runs), "{seed}": str(seed)}
        return [re.sub("{(runs|seed)}", lambda m: values[m[0]], word) for word in self.args]

    @property
    def words(self) -> str:
        """The words for train.py, as a reader types them for the first seed."""
        return shlex.join(self.words_for(self.seeds[0]))


def read_rows() -> list[Row]:
    """Return the rows of ``results.yaml``: results first, then recipes tried."""
    found = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    of_others = [{"split": "test", **row} for row in found.get("others", [])]
    groups = {"": [*found["results"], *of_others], **found.get("recipes", {})}
    args = {r["row"]: r["args"] for rows in groups.values() for r in rows if "args" in r}
    texts = {
        t["text"]: Text(t["text"], t["by"], t["input"], t.get("search", []), t["what"])
        for t in found.get("texts", [])
    }
    return [
        Row(
            r["row"],
            args[r.get("of", r["row"])],
            r.get("seeds", [1]),
            r.get("gpu", False),
            [texts[name] for name in r.get("texts", [])],
            r.get("after", [f"{r['of']}-s{seed}" for seed in r.get("seeds", [1]) if "of" in r]),
            r.get("of", r["row"]),
            r.get("search", []),
            r.get("why", ""),
            r.get("pairs", 0),
            r.get("robust", False),
            r.get("split", "val" if group else SPLIT),
            group,
        )
        for group, rows in groups.items()
        for r in rows
    ]


def home(row: Row) -> Path:
    """Return the folder of a row's evidence, one folder a seed."""
    return (RESULTS / "recipes" if row.is_trial else RESULTS) / row.name


def evidence(row: Row, seed: int) -> Path:
    """Return the folder that backs one run of a row."""
    return home(row) / str(seed)


def is_done(row: Row, seed: int) -> bool:
    """Whether a run's evidence is there, all of it: ``run.json`` is written last."""
    folder = evidence(row, seed)
    return (folder / f"scores.{row.split}.json").exists() and (folder / "run.json").exists()


class Scored(NamedTuple):
    """The runs of a row, as far as they are there."""

    row: Row
    seeds: list[int]
    config: Config
    scores: list[dict[str, MetricResult]]
    signatures: dict[str, str]
    validation: float
    facts: list[dict[str, Any]]


def others() -> Path:
    """Return the folder of the corpora other than Multi30k."""
    return Path(os.environ.get("WILD", ROOT / OTHERS))


def config_of(folder: Path, root: Path) -> Config:
    """Return the config of a run, its data set where it is here."""
    config = settings.load(folder / "config.yaml")
    data = config.data
    if Path(data.root) == RANDOM:
        random_split.split(others() / "deu-eng.zip", ROOT / RANDOM, data.src, data.tgt)
    homes = {OTHERS: others(), RANDOM: ROOT / RANDOM}
    data.root = str(homes.get(Path(data.root), root))
    if data.pairs:
        data.pairs = str(others() / Path(data.pairs).relative_to(OTHERS))
        data.held_out = None  # the run that kept them is not here: the same lines are chosen again
    return config


def rescored(
    folder: Path, config: Config, split: str, names: Sequence[str]
) -> tuple[dict[str, MetricResult], dict[str, Any]]:
    """Score a run's hypotheses again; return that and what its scores say.

    Metrics that the scores lack are left out.

    Raises:
        DragomanError: if the two differ.
    """
    data, tokens = config.data, settings.tokens_of(config)
    hypotheses = read_hypotheses(folder / f"hypotheses.{split}.txt")
    _, references = read_pairs(data, split)
    said = json.loads((folder / f"scores.{split}.json").read_text("utf-8"))
    found = {
        name: METRICS[name](hypotheses, references, data.tgt, tokens)
        for name in names
        if name in said
    }
    for name, result in found.items():
        if round(result.score, 4) != said[name]["score"]:
            raise DragomanError(
                f"{folder}: on {split} the hypotheses score {result.score:.4f} {name}, not what is "
                "said"
            )
    return found, said


def load(row: Row, root: Path) -> Scored | None:
    """Read a row's evidence; None if there is none.

    Raises:
        DragomanError: if the hypotheses do not score what is said.
    """
    names = [p.name for p in home(row).glob("*") if p.name.isdigit()]
    seeds = sorted(int(name) for name in names if is_done(row, int(name)))
    if not seeds:
        return None
    folders = [evidence(row, seed) for seed in seeds]
    config = config_of(folders[0], root)
    scores, signatures = [], dict[str, str]()
    for path in folders:
        rescored(path, config, config.data.validation_split, ["bleu"])
        found, said = rescored(path, config, row.split, COLUMNS)
        for name in found:
            signatures[name] = f"`{said[name]['signature']}`"
            if "preprocessing" in said[name]:
                signatures[name] += f" on text {said[name]['preprocessing']}"
        scores.append(found)
    facts = [json.loads((path / "run.json").read_text()) for path in folders]
    validated = on_validation(folders, config.data.validation_split)
    return Scored(row, seeds, config, scores, signatures, validated, facts)


def on_validation(folders: list[Path], split: str = "val") -> float:
    """Return the mean BLEU on validation of some runs, what recipes and models are chosen by."""
    found = [json.loads((path / f"scores.{split}.json").read_text()) for path in folders]
    return float(statistics.mean(scores["bleu"]["score"] for scores in found))


def minutes(facts: list[dict[str, Any]]) -> str:
    """Return the mean time of training, for each number of threads or kind of GPU."""
    times: dict[str, list[float]] = {}
    for f in facts:
        times.setdefault(f" on {f['threads'] or f['gpus']}", []).append(f["minutes"])
    return ", ".join(f"{statistics.mean(found):.0f}{on}" for on, found in times.items())


def text_of(config: Config) -> str:
    """Return what a run was trained on: the pair alone, or the corpora of its mixture."""
    corpora, pair = config.data.corpora, (config.data.src, config.data.tgt)
    first = ""
    if config.train.init_from:
        first = f"as {Path(config.train.init_from).name.rsplit('-s', 1)[0]}, then "
    if config.data.pairs:
        return f"`{Path(config.data.pairs).name}`"
    if Path(config.data.root) in (others(), ROOT / RANDOM):
        return f"`{config.data.files['train']}`"
    if len(corpora) == 1 and (corpora[0].src, corpora[0].tgt) == pair:
        return f"{first}the pair alone"
    parts = []
    for c in corpora:
        name = f"{c.src}→{c.tgt}"
        if c.source == "files":
            name = Path(config.data.files[c.split]).name.removesuffix(".{lang}")
        parts.append(name if c.weight == 1 else f"{name} ×{c.weight:g}")
    return first + ", ".join(parts)


def text_scored(config: Config) -> tuple[str, ...]:
    """Return what tells the text that a run is scored on."""
    data = config.data
    return data.name, data.root, str(data.pairs), data.src, data.tgt


def line(found: Scored, above: Scored | None) -> list[str]:
    """Return a row of the table."""
    config, scores, facts = found.config, found.scores, found.facts
    d, seed = config.decode, found.row.seeds[0]
    search = f"{d.method} {d.beam_size}" if d.method == "beam" else d.method
    figures = []
    for name in COLUMNS:
        values = [score[name].score for score in scores if name in score]
        if not values:
            figures.append("")
            continue
        sd = f" (sd {statistics.stdev(values):.2f})" if len(values) > 1 else ""
        figures.append(f"{statistics.mean(values):.2f}{sd}")
    bleu = [score["bleu"] for score in scores]
    low, high = np.percentile(resampled_means([bleu])[0], [2.5, 97.5])
    pair, p = (config.data.src, config.data.tgt), ""
    if above is not None and text_scored(above.config) == text_scored(config):
        others = [score["bleu"] for score in above.scores]
        p = f"{paired_bootstrap_of_means(bleu, others):.3f}"
    figures[0] = f"**{figures[0]}** [{low:.1f}, {high:.1f}]"
    return [
        f"[{found.row.name}](results/{found.row.name})",
        "→".join(pair),
        text_of(config),
        ", ".join(map(str, found.seeds)),
        f"{found.validation:.2f}",
        *figures,
        p,
        f"{facts[0]['parameters'] / 1e6:.1f} M",
        minutes(facts),
        f"{statistics.mean(f['target_tokens'] for f in facts) / 1e6:.1f} M",
        f"{search}, {d.length_penalty_form} {d.length_penalty:g}",
        f"`python train.py {found.row.words} seed={seed} run_name={found.row.name}-s{seed}`",
    ]


def robustness(there: list[Scored]) -> list[str]:
    """Return a table of what is left of BLEU when the same text comes in other forms."""
    columns: dict[str, dict[str, str]] = {}
    for found in there:
        for seed, facts in zip(found.seeds, found.facts, strict=True):
            said = read_scores(evidence(found.row, seed), found.row.split)
            for form in said.get("robustness", []):
                cell = f"{form['score']:.2f} ({100 * (form['kept'] or 0):.0f} %)"
                columns.setdefault(form["text"], {})[facts["run"]] = cell
    if not columns:
        return []
    runs = list(dict.fromkeys(run for cells in columns.values() for run in cells))
    lines = [[text, *(cells.get(run, "") for run in runs)] for text, cells in columns.items()]
    return [ROBUSTNESS, *markdown(["input", *runs], lines), ""]


def text_made_first(rows: list[Row]) -> list[str]:
    """Return the commands behind texts that other models made."""
    where = {"runs": "checkpoints", "root": "data/multi30k/raw", "data": "data/multi30k"}
    lines = []
    for text in {text.name: text for row in rows for text in row.texts}.values():
        note, count = RESULTS / "texts" / f"{text.name}.json", ""
        if note.exists():
            count = f"{json.loads(note.read_text('utf-8'))['counts']['kept']:,} lines, "
        command = " ".join(text.command).format(**where)
        lines.append(f"* {text.name}: {count}{text.what}, `dragoman {command}`")
    return lines


def trial(row: Row, root: Path) -> list[str]:
    """Return a line about a recipe, tried or not yet.

    Raises:
        DragomanError: if hypotheses do not score what is said; those of the first trials are gone.
    """
    folders = [evidence(row, seed) for seed in row.seeds if is_done(row, seed)]
    words = f"`{row.words}`"
    if row.search:
        words += f" scored with `{' '.join(row.search)}`"
    if not folders:
        return [row.name, row.why, "not trained yet", *[""] * 5, words]
    for path in folders:
        if (path / "hypotheses.val.txt").exists():
            rescored(path, config_of(path, root), "val", ["bleu"])
    facts = [json.loads((path / "run.json").read_text()) for path in folders]
    why = row.why if row.search or row.of == row.name else f"{row.why} (the run of {row.of})"
    return [
        f"[{row.name}](results/recipes/{row.name})",
        why,
        f"{on_validation(folders):.2f}",
        ", ".join(dict.fromkeys(f["weights"] for f in facts)),
        str(len(folders)),
        f"{facts[0]['parameters'] / 1e6:.1f} M",
        minutes(facts),
        f"{statistics.mean(f['target_tokens'] for f in facts) / 1e6:.1f} M",
        words,
    ]


class Goal(NamedTuple):
    """What a row was to reach."""

    what: str
    row: str
    metric: str
    least: float


def read_goals() -> list[Goal]:
    """Return the goals of ``results.yaml``."""
    found = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    return [Goal(**goal) for goal in found.get("goals", [])]


def outcome(goal: Goal, found: Scored) -> list[str]:
    """Return a line about a goal."""
    values = [score[goal.metric].score for score in found.scores]
    mean = statistics.mean(values)
    return [
        goal.what,
        f"`{goal.metric}` {goal.least:.1f}",
        f"[{goal.row}](results/{goal.row})",
        f"{mean:.2f}",
        ", ".join(f"{value:.2f}" for value in values) if len(values) > 1 else "",
        "reached" if mean >= goal.least else f"missed by {goal.least - mean:.2f}",
    ]


def markdown(head: list[str], lines: list[list[str]]) -> list[str]:
    """Return a table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def page(rows: list[Row], root: Path) -> str:
    """Return docs/results.md."""
    figures = [f"`{name}`" for name in COLUMNS]
    head = ["row", "pair", "trained on", "seeds", "`bleu` (val)", *figures, "p", "parameters"]
    head += ["minutes", "target tokens", "search", "command"]
    tables: dict[bool, list[list[str]]] = {True: [], False: []}  # of Multi30k, of other text
    missing, there = list[str](), list[Scored]()
    for row in rows:
        gone = [str(seed) for seed in row.seeds if not is_done(row, seed)]
        if gone and not row.is_trial:
            how = " (with `ARGS=--all`, or where there is a GPU)" if row.gpu else ""
            missing.append(f"* {row.name}: seed {', '.join(gone)}{how}")
        found = None if row.is_trial else load(row, root)
        if found is not None:
            tables[row.split == SPLIT].append(line(found, there[-1] if there else None))
            there.append(found)
    parts = [INTRODUCTION, *markdown(head, tables[True]), ""]
    parts += robustness(there)
    parts += [OTHER_TEXT, *markdown(head, tables[False]), ""] if tables[False] else []
    if made := text_made_first([row for row in rows if not row.is_trial]):
        parts += ["Texts made by other models (`make results` does it too):", "", *made, ""]
    scored = {found.row.name: found for found in there}
    outcomes = [outcome(goal, scored[goal.row]) for goal in read_goals() if goal.row in scored]
    head = ["goal", "at least", "row", "mean", "each seed", ""]
    parts += [GOALS, *markdown(head, outcomes), ""] if outcomes else []
    if missing:
        parts += ["Not trained yet (`make results` does):", "", *missing, ""]
    parts += [
        "Signatures:",
        "",
        *dict.fromkeys(
            f"* `{name}`: {one.signatures[name]}"
            for name in COLUMNS
            for one in there
            if name in one.signatures
        ),
        "",
    ]
    head = ["recipe", "what and why", "`bleu`", "weights", "seeds", "parameters", "minutes"]
    head += ["target tokens", "words for train.py"]
    groups = dict.fromkeys(row.group for row in rows if row.is_trial)
    for number, group in enumerate(groups):
        tried = [trial(row, root) for row in rows if row.group == group]
        parts += [RECIPES] if number == 0 else []
        parts += [f"### {group}", "", *markdown(head, tried), ""]
    return "\n".join(parts)
