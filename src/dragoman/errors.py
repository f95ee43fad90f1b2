"""The one exception that is meant for the user, and how lines reach the user's terminal."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

# Control characters, whatever breaks a line or turns its direction, and halves of characters.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# The exit code of every error; what went wrong is said in words.
FAILED = 2


class DragomanError(Exception):
    """Something the user can put right: shown as one line, without a traceback.

    The message names the file, line or config key at fault and what is accepted instead.
    """


def report(problem: BaseException) -> int:
    """Print an error as one line; return the exit code."""
    say(f"error: {' '.join(str(problem).split())}")
    return FAILED


def warn(message: Any, *_: Any, **__: Any) -> None:
    """Print a warning as one line, in the place of ``warnings.showwarning``."""
    say(f"warning: {message}")


@contextmanager
def memory_needed(advice: Callable[[], str]) -> Iterator[None]:
    """Give advice where there is no memory left, on a GPU or anywhere.

    Raises:
        DragomanError: in the words of ``advice``, in place of what Python or PyTorch raised.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        words = ("can't allocate memory", "out of memory")  # PyTorch's
        if isinstance(problem, MemoryError) or any(said in str(problem) for said in words):
            raise DragomanError(advice()) from None
        raise


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
    """Return text of unknown origin with its control characters written out, ``\\x1b`` for escape.

    A terminal obeys them otherwise, and a line break would make two lines of one.
    """
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """Print a line on standard error, or nothing where it cannot be written.

    The reader may have gone (``| head``), or the terminal: no message is worth a run.
    """
    with suppress(Exception):
        print(visible(text), file=sys.stderr, flush=True)


def check_text(text: object, where: str) -> str:
    """Return a string that came from a program; refuse what is not text.

    Raises:
        DragomanError: naming ``where`` it stands.
    """
    if not isinstance(text, str):
        raise DragomanError(f"{where}: {text!r:.40} is not a string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DragomanError(f"{where}: is not valid UTF-8; expected text") from None
    return text


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
