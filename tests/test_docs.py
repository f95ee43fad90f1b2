"""The documentation says what is there: links, keys, commands, flags, experiments and files."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragoman import cli
from dragoman.config import MODELS, Config, CorpusConfig
from dragoman.settings import known_keys
from pages import PAGES, ROOT, blocks, commands, prose, spans

CONFIGS = ROOT / "configs"
GROUPS = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
EXPERIMENTS = {path.stem for path in (CONFIGS / "experiment").glob("*.yaml")}
# What pages let the reader make; everything else that they name exists.
READERS_OWN = {"cosine.py", "configs/model/bag.yaml", "configs/data/mine.yaml", "data/mine"}
FOREIGN_FLAGS = {
    "torchrun": {"--nproc-per-node"},
    # Read by Hydra, not by Dragoman's parser.
    "train": {"--plugin", "--config-dir", "--config-name", "--resolve", "--package", "-m"},
    "pytest": {"-m"},
    "python": {"-m"},
    "sacrebleu": {"-i", "-lc", "-tok", "--force", "-w"},
}

page_parameter = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def keys() -> set[str]:
    known = {key for model in MODELS.values() for key in known_keys(Config(model=model()))}
    known |= {f"data.corpora.{field.name}" for field in dataclasses.fields(CorpusConfig)}
    return known | {key.rpartition(".")[0] for key in known if "." in key}


def is_key(name: str) -> bool:
    plain = re.sub(r"\.\d+(?=\.|$)", "", name)  # data.corpora.0.tag
    return plain in keys() or name.startswith(("data.files.", "hydra.", "hydra/"))


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page.read_text("utf-8")), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        copies = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one) is not None for one in found)
        found.add(f"{slug}-{copies}" if copies else slug)
    return found


def all_commands() -> Iterator[tuple[str, list[str]]]:
    """Yield (page, words) of every command in a shell block or in backticks."""
    for page in PAGES:
        text = page.read_text("utf-8")
        inline = [s for s in spans(text) if s.split()[0] in ("make", "python", "dragoman")]
        for line in [*commands(text), *inline]:
            for part in re.split(r"[|<>](?= )", re.sub(r"<[^> ]+>", "PLACEHOLDER", line)):
                words = shlex.split(part)
                if len(words) > 1:
                    yield page.name, words


def options(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
    """Return the flags of every ``dragoman`` command."""
    (commands_of,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return {name: set(sub._option_string_actions) for name, sub in commands_of.choices.items()}


def test_the_reference_of_keys_is_current(capsys):
    path = ROOT / "scripts" / "config_reference.py"
    spec = importlib.util.spec_from_file_location("config_reference", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main()
    assert (ROOT / "docs" / "configuration.md").read_text("utf-8") == capsys.readouterr().out


def test_the_reference_has_every_key():
    named = set(spans((ROOT / "docs" / "configuration.md").read_text("utf-8")))
    leaves = {key for model in MODELS.values() for key in known_keys(Config(model=model()))}
    assert leaves <= named


@page_parameter
def test_links_lead_somewhere(page):
    broken = []
    text = re.sub(r"`[^`\n]*`", "", prose(page.read_text("utf-8")))
    targets = re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in slugs(path)):
            broken.append(target)
    assert not broken


def test_anchors_are_those_of_the_headings(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# The `key=value` form, again!\n## Two\n## Two\n```\n# no heading\n```\n")
    assert slugs(page) == {"the-keyvalue-form-again", "two", "two-1"}


def test_the_keys_named_exist():
    sections = "|".join(["data", "model", "train", "decode", "log"])
    files = ("train.py", "train.jsonl", "train.tsv", "train.de", "train.en", "model.safetensors",
             "data.html")  # fmt: skip
    named = [
        (page.name, key[1])
        for page in PAGES
        for span in spans(page.read_text("utf-8"))
        if (key := re.fullmatch(rf"((?:{sections})(?:\.\w+)+)(?:=.*)?", span))
        and key[1] not in files
    ]
    assert len(named) > 100  # the reference alone has as many
    assert not [(page, key) for page, key in named if not is_key(key)]


def wrong_words(words: list[str]) -> Iterator[str]:
    """Yield the words of a command that name something that does not exist."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    program, what, *rest = words
    known_flags = set(FOREIGN_FLAGS.get(program, ()))
    if program == "make":
        variables = {*re.findall(r"^([A-Z0-9_]+) *\?=", makefile, re.MULTILINE), "MULTI30K"}
        if not re.search(rf"^{re.escape(what)}:", makefile, re.MULTILINE):
            yield what
        yield from (word for word in rest if word.partition("=")[0] not in variables)
        # ARGS="..." is handed on to another command.
        rest = [one for w in rest for one in shlex.split(w.removeprefix("ARGS=")) if "ARGS=" in w]
        rest += [f"+experiment={w[11:]}" for w in words if w.startswith("EXPERIMENT=")]
        script = {"bench": "benchmark.py", "results": "results.py"}
        known_flags |= script_flags(script[what]) if what in script else set()
        known_flags |= options(cli.parser()).get(what, set())
    elif program == "dragoman":
        known_flags |= options(cli.parser()).get(what, set()) | FOREIGN_FLAGS.get(what, set())
        if what not in options(cli.parser()):
            yield what
    elif program in ("python", "torchrun"):
        scripts = [word for word in words if word.endswith(".py")]
        yield from (name for name in scripts if not (ROOT / name).exists())
        if what == "-m" and importlib.util.find_spec(rest[0]) is None:
            yield rest[0]
        known_flags |= set().union(*map(script_flags, scripts))
        rest.insert(0, what)
    for word in rest:
        name, equals, value = word.partition("=")
        group = name.lstrip("+")
        if word.startswith("-"):
            ok = word in known_flags
        elif equals and group in GROUPS:
            own = f"configs/{group}/{value}.yaml"
            ok = (ROOT / own).exists() or own in READERS_OWN or value == "PLACEHOLDER"
        else:
            ok = not equals or is_key(group)
        if not ok:
            yield word


def test_the_commands_name_what_exists():
    found = list(all_commands())
    assert len(found) > 20
    wrong = [(page, " ".join(words), bad) for page, words in found for bad in wrong_words(words)]
    assert not wrong


@pytest.mark.parametrize(
    ("command", "bad"),
    [
        ("make deom", "deom"),
        ("make eval RUNS=a", "RUNS=a"),
        ('make train ARGS="train.max_step=2"', "train.max_step=2"),
        ("make train EXPERIMENT=transfromer", "+experiment=transfromer"),
        ('make data ARGS="--language de"', "--language"),
        ("python train.py +experiment=transformer model.d_modle=4", "model.d_modle=4"),
        ("python trian.py data=captions", "trian.py"),
        ("dragoman evaluate demo --splits val", "--splits"),
        ("dragoman score demo", "score"),
        ("python -m dragoman.evaluation.mose de", "dragoman.evaluation.mose"),
        ("sacrebleu reference -j hypotheses", "-j"),
    ],
)
def test_a_wrong_word_is_found(command, bad):
    assert list(wrong_words(shlex.split(command))) == [bad]


def script_flags(name: str) -> set[str]:
    """Return the long flags of a script, wherever it is named from."""
    path = ROOT / "scripts" / Path(name).name
    return set(re.findall(r'"(--[a-z-]+)"', path.read_text("utf-8"))) if path.exists() else set()


def test_the_flags_named_exist():
    known = set().union(*options(cli.parser()).values(), *FOREIGN_FLAGS.values())
    named = [
        (page.name, span.split()[0])
        for page in PAGES
        for span in spans(page.read_text("utf-8"))
        if span.startswith("-") and not span[1:2].isdigit()
    ]
    assert len(named) > 3
    assert not [(page, flag) for page, flag in named if flag not in known]


def test_every_message_of_troubleshooting_is_one_that_dragoman_says():
    text = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
    said = [
        m
        for bold in re.findall(r"^\*\*(`.*?)\*\*", text, re.M)
        for m in re.findall("`(.*?)`", bold)
    ]
    source = " ".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    source = re.sub(r'"\s*f?"', "", source)  # strings that go on in the next line
    source = re.sub(r"\{.*?\}", "...", source)
    assert len(said) > 15
    assert not [message for message in said if message not in source]


def test_the_python_interface_is_current():
    path = ROOT / "scripts" / "api_reference.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "api.md").read_text("utf-8") == done.stdout


def test_the_readme_lists_every_experiment():
    text = (ROOT / "README.md").read_text("utf-8")
    table = re.findall(r"^\| `(\w+)` \|", text.partition("| experiment | what |")[2], re.MULTILINE)
    rows = table[: len(EXPERIMENTS)]
    assert set(rows) == EXPERIMENTS


@page_parameter
def test_the_files_named_exist(page):
    missing = []
    for span in spans(page.read_text("utf-8")):
        for word in span.split():
            name = word.rstrip(",;:.")
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?|[a-z_]\w*\.(py|md)", name):
                continue
            bases = (page.parent, ROOT, ROOT / "src" / "dragoman")
            if name in READERS_OWN or any((base / name).exists() for base in bases):
                continue
            # Runs, data sets and caches are made by commands; git keeps their folders empty.
            made = [(base / name).resolve() for base in bases[:2]]
            if any(ROOT / top in path.parents for path in made for top in ("data", "checkpoints")):
                continue
            missing.append(name)
    assert not missing


def test_yaml_blocks_name_their_file():
    for page in PAGES:
        for block in blocks(page.read_text("utf-8"), "yaml"):
            assert re.match(r"# configs/[\w/]+\.yaml\n", block.text), (page, block.text)
