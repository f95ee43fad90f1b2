"""Count the code lines of ``src`` by room, and those of the core that a student reads.

A code line is one that holds code: no blank line, no comment, no docstring. Run it with
``python scripts/lines.py [FOLDER]``.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections import Counter
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[1] / "src" / "dragoman"

# Models without fast/, search, translator, batching, loop and step, loss, schedules, optimisers.
CORE = (
    "models/*.py",
    "decoding/search.py",
    "decoding/translator.py",
    "data/batching.py",
    "training/loop.py",
    "training/trainer.py",
    "training/loss.py",
    "training/schedules.py",
    "training/optimisation.py",
)

_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def code_lines(path: Path) -> int:
    """Return how many lines of a Python file hold code."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body:
            continue
        first = body[0]
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    held: set[int] = set()
    with path.open("rb") as stream:
        for token in tokenize.tokenize(stream.readline):
            if token.type not in _NO_CODE:
                held.update(range(token.start[0], token.end[0] + 1))
    return len(held - docstrings)


def main() -> None:
    """Print the table."""
    house = Path(sys.argv[1]) if len(sys.argv) > 1 else HOUSE
    counts = {path: code_lines(path) for path in sorted(house.rglob("*.py"))}
    core = [path for pattern in CORE for path in sorted(house.glob(pattern))]
    for path in core:
        print(f"  {path.relative_to(house)!s:<28}{counts[path]:>6,}")
    print(f"{'core':<30}{sum(counts[path] for path in core):>6,}")
    rooms: Counter[str] = Counter()
    for path, count in counts.items():
        rooms[path.relative_to(house).parts[0]] += count
    for room, count in sorted(rooms.items(), key=lambda item: -item[1]):
        print(f"  {room:<28}{count:>6,}")
    print(f"{'src':<30}{sum(counts.values()):>6,}")


if __name__ == "__main__":
    main()
