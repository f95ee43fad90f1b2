"""Fetch Multi30k into a folder and verify it: what `make data` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dragoman.data import multi30k
from dragoman.errors import DragomanError


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=Path, default=Path("data/multi30k/raw"), help="folder to fill (%(default)s)"
    )
    parser.add_argument(
        "--languages", nargs="+", help=f"any of {' '.join(multi30k.LANGUAGES)}; default: all"
    )
    parser.add_argument(
        "--splits", nargs="+", help=f"any of {' '.join(multi30k.SPLITS)}; default: all"
    )
    parser.add_argument(
        "--from",
        "--url",
        dest="source",
        default=multi30k.URL,
        help="local folder or address to take the files from (%(default)s)",
    )
    parser.add_argument(
        "--no-monolingual",
        action="store_true",
        help="leave out the independent captions (task2, beside the folder)",
    )
    options = parser.parse_args(arguments)
    try:
        multi30k.fetch(
            options.root,
            options.languages,
            options.splits,
            source=options.source,
            monolingual=not options.no_monolingual,
            say=lambda line: print(line, flush=True),
        )
    except DragomanError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
