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
        "--from", dest="folder", type=Path, help="copy from this local folder, not the network"
    )
    parser.add_argument(
        "--no-monolingual",
        action="store_true",
        help="leave out the independent captions (task2, beside the folder)",
    )
    parser.add_argument("--url", default=multi30k.URL, help="address to fetch from (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        present = multi30k.fetch(
            options.root,
            options.languages,
            options.splits,
            url=options.url,
            folder=options.folder,
            say=lambda line: print(line, flush=True),
        )
        print(f"{len(present)} files of Multi30k are in {options.root}")
        if options.splits is None and not options.no_monolingual:
            own, beside = options.folder, options.root.parent / "task2"
            present = multi30k.fetch_monolingual(
                beside,
                options.languages,
                url=options.url.replace("task1", "task2"),
                folder=None if own is None else own.resolve().parent / "task2",
                say=lambda line: print(line, flush=True),
            )
            print(f"{len(present)} files of monolingual captions are in {beside}")
    except DragomanError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
