"""Every command of the README runs as it is written, in a clone, on a tiny Multi30k of our own."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, stdev

import pytest

from pages import ROOT, blocks, commands
from tinyruns import bare_environment

README = (ROOT / "README.md").read_text("utf-8")
BIN = Path(sys.executable).parent

# Not run here, each for its reason.
SKIPPED = {
    "make demo",  # these three install packages: test_the_demo runs the first whole
    "make test",
    "make setup",
    "source .venv/bin/activate",  # PATH does here what it would do
    "make tensorboard",  # a server: it never ends
}
# Appended to every training command. Two steps of the real sizes would take minutes.
TINY = (
    "train.max_steps=2 model.d_model=16 data.tokenizer.vocab_size=50 decode.max_length_ratio=0.0 "
    "log.figures=false"
)

NOUNS = [("Hund", "dog"), ("Mann", "man"), ("Junge", "boy"), ("Vogel", "bird"), ("Koch", "cook")]
VERBS = [("schläft", "sleeps"), ("singt", "sings"), ("tanzt", "dances"), ("wartet", "waits")]
PLACES = [("im Park", "in the park"), ("am See", "by the lake"), ("im Wald", "in the forest"),
          ("am Strand", "at the beach")]  # fmt: skip
PAIRS = [
    (f"Ein {noun[0]} {verb[0]} {place[0]}.", f"A {noun[1]} {verb[1]} {place[1]}.")
    for noun, verb, place in itertools.product(NOUNS, VERBS, PLACES)
]


def test_its_figures_are_those_of_the_results() -> None:
    for row, pair, experiment in (
        ("transformer", "German to English", "transformer` (an hour on two cores)"),
        ("transformer_best", "German to English", "transformer_best`"),
        (
            "transformer_best_tuned",
            "German to English",
            "transformer_tuned`, from `transformer_best`",
        ),
        ("transformer_best_en_de", "English to German", "transformer_best`"),
        ("transformer_german", "English to German", "transformer_german`"),
        (
            "transformer_german_tuned",
            "English to German",
            "transformer_tuned`, from `transformer_german` (one seed)",
        ),
    ):
        found = [*ROOT.glob(f"docs/results/{row}/*/scores.test_2016_flickr.json")]
        scores = [json.loads(path.read_text("utf-8")) for path in found]
        assert len(scores) == (1 if "one seed" in experiment else 3)
        assert all(score["bleu"]["signature"] in README for score in scores)
        bleu = [score["bleu"]["score"] for score in scores]
        tokenised = mean(score["bleu_lc_tok"]["score"] for score in scores)
        (line,) = [x for x in README.splitlines() if x.startswith(f"| {pair} | `{experiment} |")]
        sd = f" {stdev(bleu):.2f}" if len(bleu) > 1 else ""
        assert line.endswith(f"| {mean(bleu):.2f} |{sd} | {tokenised:.2f} |")
    results = (ROOT / "docs" / "results.md").read_text("utf-8")
    (row,) = [x for x in results.splitlines() if x.startswith("| [transformer_best](")]
    p_value = row.split(" | ")[10]
    assert f"(paired bootstrap, p = {p_value})" in README


def git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_clone(folder: Path) -> Path:
    """Clone the repository and bring over what is not committed yet."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    git("clone", "--quiet", str(ROOT), str(folder))
    for name in git("ls-files", "-z", "-m", "-o", "--exclude-standard").split("\0")[:-1]:
        source, target = ROOT / name, folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        else:
            target.unlink(missing_ok=True)
    return folder


def lend_environment(clone: Path) -> dict[str, str]:
    """Give the clone this test's Python as its ``.venv``; return the variables to run with."""
    programs = clone / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "dragoman", "torchrun"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{BIN / name}" "$@"\n')
        program.chmod(0o755)
    (clone / ".venv" / ".ready").touch()
    return {
        **bare_environment(),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone / "src"),  # the clone's package, not the one installed
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",  # a second GPU is not there on every machine
    }


def write_data(clone: Path) -> None:
    """Write the unpacked files of a small Multi30k, and the files a reader would bring."""
    root = clone / "data" / "multi30k" / "raw"
    root.mkdir(parents=True, exist_ok=True)
    for packed in root.glob("*.gz"):  # from `make data`; packed files come first
        packed.unlink()
    splits = {"train": PAIRS, "val": PAIRS[:6], "test_2016_flickr": PAIRS[6:14]}
    for split, pairs in splits.items():
        for side, language in enumerate(("de", "en")):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (root / f"{split}.{language}").write_text(text, encoding="utf-8")
    mine = clone / "data" / "mine"
    mine.mkdir(exist_ok=True)
    for split, pairs in (("train", PAIRS), ("val", PAIRS[:6]), ("test", PAIRS[6:14])):
        lines = ["de\ten", *("\t".join(pair) for pair in pairs)]
        (mine / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with zipfile.ZipFile(clone / "deu-eng.zip", "w") as archive:
        archive.writestr("deu.txt", "".join(f"{en}\t{de}\tby us\n" for de, en in PAIRS))
        archive.writestr("_about.txt", "Made for a test.\n")
    task2 = root.parent / "task2"
    task2.mkdir(exist_ok=True)
    for packed in task2.glob("*.gz"):
        packed.unlink()
    for number in (1, 2):
        with gzip.open(task2 / f"train.{number}.en.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(f"{en}\n" for _, en in PAIRS[number : number + 4])
    (clone / "in.txt").write_text("".join(f"{de}\n" for de, _ in PAIRS[:3]), encoding="utf-8")
    for block in blocks(README, "yaml"):
        name = block.text.partition("\n")[0].removeprefix("# ")
        (clone / name).write_text(block.text, encoding="utf-8")


def shortened(command: str) -> str:
    """Return a training command that takes two steps of a tiny model; others as they are."""
    if "train.py" in command or command.startswith(("dragoman train", "dragoman prepare")):
        tiny = TINY
        if "experiment=auto" in command:  # bytes and capitals take more units than the text has
            tiny = tiny.replace("vocab_size=50", "vocab_size=60 data.tokenizer.byte_fallback=false")
        return f"{command} {tiny}"
    if command.startswith("make train"):
        return f'{command} ARGS="{TINY}"'
    return command


def run(command: str, clone: Path, variables: dict[str, str]) -> str:
    """Run a command as a shell would, and return what it printed."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shortened(command)],
        cwd=clone,
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"$ {shortened(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_readme(clone: Path, wanted: list[str]) -> dict[str, str]:
    """Run commands in a fresh clone, in order; return what each printed."""
    make_clone(clone)
    variables = lend_environment(clone)
    printed = {}
    (clone / "configs" / "data").mkdir(parents=True, exist_ok=True)
    for command in wanted:
        if command.startswith("make data"):
            local = os.environ.get("MULTI30K")
            if local:  # else it needs the network
                printed[command] = run(f"{command} MULTI30K={local}", clone, variables)
                assert list((clone / "data" / "multi30k" / "raw").glob("*.gz"))
            write_data(clone)  # in its place
            continue
        if not (clone / "data" / "mine").exists():
            write_data(clone)
        if " demo " in command and not (clone / "checkpoints" / "demo").exists():
            # `make demo` is skipped here; its training stands in for it.
            run("python train.py +experiment=demo run_name=demo", clone, variables)
        printed[command] = run(command, clone, variables)
    return printed


def runnable() -> list[str]:
    return [command for command in commands(README) if command not in SKIPPED]


def installed(command: str) -> bool:
    """Whether the extra that a command needs is there."""
    return "optuna" not in command or find_spec("optuna") is not None


def test_nothing_is_skipped_in_vain():
    assert set(commands(README)) >= SKIPPED


def test_the_set_up_commands_come_first():
    assert commands(README)[1:3] == ["make demo", "make test"]  # a line that translates is first


def check_results(clone: Path) -> None:
    """What the commands wrote is what the README says they write."""
    run_folder = clone / "checkpoints" / "transformer"
    scores = json.loads((run_folder / "scores.test_2016_flickr.json").read_text("utf-8"))
    assert {"bleu", "bleu_lc", "bleu_lc_tok", "chrf", "ter"} <= scores.keys()
    assert "version:" in scores["bleu"]["signature"]
    hypotheses = (run_folder / "hypotheses.test_2016_flickr.txt").read_text("utf-8")
    assert hypotheses.count("\n") == 8
    assert (clone / "out.txt").read_text("utf-8").count("\n") == 3
    assert (run_folder / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert (clone / "checkpoints" / "mine" / "scores.test.json").exists()


@pytest.mark.slow
def test_every_command(tmp_path):
    clone = tmp_path / "clone"
    printed = run_readme(clone, [command for command in runnable() if installed(command)])
    check_results(clone)
    (compared,) = (
        text
        for command, text in printed.items()
        if "--split test_2016_flickr --compare" in command and "evaluate" in command
    )
    assert "paired against rnn" in compared
    names = [path.parent.name for path in (clone / "checkpoints").glob("*/best")]
    assert len([n for n in names if re.match(r"transformer-de-en-s[123]-", n)]) >= 3
    assert any(name.startswith("transformer-en-de-s1-") for name in names)
    for line in (clone / "nbest.txt").read_text("utf-8").splitlines():
        number, score, _ = line.split("\t")
        assert int(number) in (1, 2, 3)
        assert float(score) < 0


@pytest.mark.slow
def test_the_demo(tmp_path):
    """``make demo`` in a clone with an environment of its own; ``.ci/run`` is ``make test``."""
    clone = make_clone(tmp_path / "clone")
    done = subprocess.run(
        ["make", "demo"],
        cwd=clone,
        env=bare_environment(),
        capture_output=True,
        text=True,
        timeout=3600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "bleu" in done.stdout
    scores = json.loads((clone / "checkpoints" / "demo" / "scores.test.json").read_text("utf-8"))
    assert scores["bleu"]["score"] >= 90
    assert (clone / "checkpoints" / "demo" / "attention.png").exists()
    assert list((clone / "checkpoints" / "demo" / "tensorboard").glob("events.*"))
