"""Split a corpus at random, line by line: how it should not be done.

    python scripts/random_split.py CORPUS FOLDER

Sentences that recur come to stand on both sides of the split. ``docs/results.md`` has a row trained
on such text, beside one whose lines Dragoman held out, to show what a leak is worth. The same
corpus always gives the same ``train.tsv``, ``val.tsv`` and ``test.tsv``.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from dragoman.config import CorpusConfig, DataConfig
from dragoman.data.sources import iter_pairs
from dragoman.errors import DragomanError, report

LINES = 1000  # for validation and for test, as data.holdout


def split(corpus: Path, folder: Path, src: str = "de", tgt: str = "en") -> None:
    """Write the three files, unless they are there.

    Raises:
        DragomanError: if the corpus cannot be read.
    """
    if (folder / "test.tsv").exists():
        return
    data = DataConfig(name="files", src=src, tgt=tgt, pairs=str(corpus))
    pairs = list(iter_pairs(data, CorpusConfig("files", src, tgt)))
    random.Random(1).shuffle(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": pairs[2 * LINES :], "val": pairs[:LINES], "test": pairs[LINES : 2 * LINES]}
    for name, chosen in parts.items():  # the test split last: it says that all are there
        rows = [f"{src}\t{tgt}", *(f"{source}\t{target}" for source, target in chosen)]
        (folder / f"{name}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def main() -> None:
    """Split the corpus of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    try:
        split(args.corpus, args.folder)
    except DragomanError as problem:
        raise SystemExit(report(problem)) from None


if __name__ == "__main__":
    main()
