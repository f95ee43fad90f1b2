"""The one exception that is meant for the user, and how it is shown."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

# The exit code of every error; what went wrong is said in words.
FAILED = 2


class DragomanError(Exception):
    """Something the user can put right: shown as one line, without a traceback.

    The message names the file, line or config key at fault and what is accepted instead.
    """


def report(problem: BaseException) -> int:
    """Print an error as one line; return the exit code."""
    print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
    return FAILED


def warn(message: Any, *_: Any, **__: Any) -> None:
    """Print a warning as one line, in the place of ``warnings.showwarning``."""
    print(f"warning: {message}", file=sys.stderr)


def nearest(wrong: str, accepted: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ``"; did you mean 'x'?"`` for the accepted word nearest to ``wrong``, or ``""``.

    ``cutoff`` is the least likeness, from 0 to 1.
    """
    close = difflib.get_close_matches(wrong, list(accepted), n=1, cutoff=cutoff)
    return f"; did you mean '{close[0]}'?" if close else ""


def one_of(accepted: Iterable[str]) -> str:
    """Return ``"a, b or c"``, the form in which every message lists what it accepts."""
    words = [str(word) for word in accepted]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def visible(text: str) -> str:
    """Return text for a terminal, its control characters shown as escapes: ``\\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_known(word: str, accepted: Sequence[str], lacking: str) -> None:
    """Refuse a word that is not among the accepted ones.

    Raises:
        DragomanError: as in ``"Multi30k has no split 'tets', expected ...; did you mean 'test'?"``,
            in which the words before the quoted one are ``lacking``.
    """
    if word not in accepted:
        raise DragomanError(
            f"{lacking} '{word}', expected {one_of(accepted)}{nearest(word, accepted)}"
        )
