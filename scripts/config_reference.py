"""Print docs/configuration.md: every key, from the dataclasses of ``dragoman.config``.

python scripts/config_reference.py > docs/configuration.md
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from dragoman import compose
from dragoman.config import CorpusConfig
from dragoman.settings import accepted_names

CONFIGS = Path(__file__).parents[1] / "configs"

INTRODUCTION = """\
# Configuration

Every key of a run. `python scripts/config_reference.py > docs/configuration.md` makes this page
from the dataclasses in `src/dragoman/config.py`, and a test keeps it current.

* On the command line a key is set with `key=value`, as in
  `python train.py +experiment=transformer train.lr=1e-3`. A group is chosen by name
  (`data=captions`, `model=rnn`), an experiment with a plus (`+experiment=tutorial`).
* The default is what `python train.py` composes from the groups in `configs/`; the experiments in
  `configs/experiment/` set values of their own.
* An unknown key, and a value of the wrong type or out of range, is refused before anything is
  trained. Whatever the key, an integer is at most 2,147,483,647, and a number with a point is 0 or
  between 1e-30 and 1e30 in size.
* A run resumes with the same command. Keys with "yes" in the last column may change then, and are
  not part of the hash in the run's name. Any other change names another run or, with an explicit
  `run_name`, is refused. `data.root` and `data.files` count only where a training corpus has
  `source: files`; the other corpora are known by the hash of their text.
* The hash is made of the values that are not the default, so a key that a later version adds
  renames no run. Runs that an earlier version named are found by their values.
* Where `last` is missing or its checkpoint is damaged, `train.resume_from=step-500` goes on from
  another one. The same command, given again, then goes on from where it got to.
* The commands of `dragoman` take the keys of `decode` as overrides, and no others.
"""


def text(value: Any) -> str:
    """Return a value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "{}" if value == {} else str(value)


def accepted(item: dataclasses.Field[Any]) -> str:
    """Return the choices, the form or the range of a key, in words."""
    meta = item.metadata
    if names := accepted_names(item):
        return ", ".join(f"`{name}`" for name in names)
    if meta["pattern"]:
        return str(meta["pattern"][1]).replace("<", "&lt;")
    if meta["path"]:
        return "a path; `~` is your home folder"
    bounds = [
        f"{words} {meta[name]:,}"
        for name, words in (("above", "above"), ("low", "at least"), ("high", "at most"))
        if name in meta
    ]
    return ", ".join(bounds)


def table(title: str, prefix: str, section: Any) -> str:
    """Return the heading and table of one section; sections inside it have their own."""
    rows = [
        "| key | default | type | accepted | meaning | may change on resume |",
        "|---|---|---|---|---|---|",
    ]
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if not item.metadata:
            continue
        default = "see below" if isinstance(value, list) else f"`{text(value)}`"
        kind = str(item.type).replace("None", "null").replace("CorpusConfig", "corpus")
        kind = kind.replace("Any", "str | list[str]")
        cells = (
            f"`{prefix}{item.name}`",
            default,
            kind,
            accepted(item),
            item.metadata["meaning"].replace("<", "&lt;"),
            "yes" if item.metadata["free"] else "no",
        )
        rows.append(f"| {' | '.join(cell.replace('|', 'or') for cell in cells)} |")
    about = (type(section).__doc__ or "").strip()
    return "\n".join([f"## {title}", "", about, "", *rows, ""])


def main() -> None:
    """Write the page to standard output."""
    config, _ = compose.compose_config(CONFIGS, [])
    rnn, _ = compose.compose_config(CONFIGS, ["model=rnn"])
    sections = [
        ("The run", "", config),
        ("data", "data.", config.data),
        ("data.corpora", "", CorpusConfig()),
        ("data.clean", "data.clean.", config.data.clean),
        ("data.augment", "data.augment.", config.data.augment),
        ("data.tokenizer", "data.tokenizer.", config.data.tokenizer),
        ("model=transformer", "model.", config.model),
        ("model=rnn", "model.", rnn.model),
        ("train", "train.", config.train),
        ("decode", "decode.", config.decode),
        ("evaluation", "evaluation.", config.evaluation),
        ("log", "log.", config.log),
        ("auto", "auto.", config.auto),
    ]
    sys.stdout.write("\n".join([INTRODUCTION, *(table(*section) for section in sections)]))


if __name__ == "__main__":
    main()
