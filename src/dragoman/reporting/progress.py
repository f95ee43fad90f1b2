"""What long work says while it runs: a bar on a terminal or in a notebook, else plain lines."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

with warnings.catch_warnings():  # a notebook without widgets gets a bar of text
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm

# How each figure is written; others read "name value". Kept in this order.
FIGURES: dict[str, Callable[[float], str]] = {
    "loss": lambda value: f"loss {value:.3f}",
    "ppl": lambda value: f"ppl {value:.1f}" if value < 1e5 else f"ppl {value:.1e}",
    "bleu": lambda value: f"BLEU {value:.1f}",
    "lr": lambda value: f"lr {value:.1e}",
    "expected_bleu": lambda value: f"expected BLEU {value:.1f}",
    "tokens_per_second": lambda value: f"{value:,.0f} tok/s",
}

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}  {desc}  ETA {remaining}"


def clock_time(seconds: float) -> str:
    """Write a duration as m:ss or, from an hour on, h:mm:ss."""
    whole = round(max(seconds, 0.0))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _has_room(stream: TextIO) -> bool:
    """Whether a bar can be shown: in a notebook, or on a terminal that has rows and columns."""
    with suppress(KeyError, AttributeError):  # no IPython, or one that has not begun
        if "IPKernelApp" in sys.modules["IPython"].get_ipython().config:
            return True
    if not stream.isatty():
        return False
    with suppress(OSError):
        return min(os.get_terminal_size(stream.fileno())) > 0
    return True


class Progress:
    """Progress of ``total`` steps, of which ``start`` were done before (a resumed run).

    On a terminal and in a notebook this is a tqdm bar; elsewhere one line every ``every`` steps
    and at the end::

        step 1200/4000  loss 2.345  ppl 10.4  lr 1.2e-03  5,321 tok/s  ETA 12:34

    With ``enabled=False`` (ranks above 0) nothing is written, nor where nobody reads any more: no
    message is worth a run. ``stream`` is standard error unless another one is given; ``clock``
    returns seconds.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        every: int = 50,
        enabled: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.start, self.every, self.enabled = total, start, max(every, 1), enabled
        self._stream = stream if stream is not None else sys.stderr
        self._clock = clock
        self._began = clock()
        self._written = start
        self._figures: dict[str, float] = {}
        self._bar: tqdm[Any] | None = None
        if enabled and _has_room(self._stream):
            self._bar = tqdm(
                total=total,
                initial=start,
                file=self._stream,
                bar_format=BAR,
                dynamic_ncols=True,
                leave=True,
            )

    def update(self, step: int, **figures: float) -> None:
        """Say that ``step`` steps are done.

        ``figures`` are the newest values of ``loss``, ``ppl``, ``lr``, ``tokens_per_second`` or
        any other name; those not given keep their last value, so that the caller can hand over
        numbers only when it has them.
        """
        if not self.enabled:
            return
        self._figures.update(figures)
        if self._bar is not None:
            self._bar.set_description_str("  ".join(self._parts()), refresh=False)
            with suppress(Exception):
                self._bar.update(step - self._bar.n)
        elif step > self._written and (
            step // self.every > self._written // self.every or step >= self.total
        ):
            self._written = step
            parts = [f"step {step}/{self.total}", *self._parts(), f"ETA {self._eta(step)}"]
            self._print("  ".join(parts))

    def message(self, text: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        if self.enabled:
            self._print(text)

    def close(self) -> None:
        """End the bar and leave its last state on the screen."""
        if self._bar is not None:
            with suppress(Exception):
                self._bar.close()
            self._bar = None
        self.enabled = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _print(self, text: str) -> None:
        with suppress(Exception):
            tqdm.write(text, file=self._stream)
            self._stream.flush()

    def _parts(self) -> list[str]:
        known = [
            form(self._figures[name]) for name, form in FIGURES.items() if name in self._figures
        ]
        other = [
            f"{name} {value:.4g}" for name, value in self._figures.items() if name not in FIGURES
        ]
        return known + other

    def _eta(self, step: int) -> str:
        # The mean since the start, so that validations and checkpoints are counted in.
        done = step - self.start
        seconds = (self._clock() - self._began) / done * (self.total - step)
        return clock_time(seconds)
