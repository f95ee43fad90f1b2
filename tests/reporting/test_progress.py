from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from types import SimpleNamespace

import pytest

from dragoman.reporting.progress import Progress, clock_time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_plain_lines_read_as_documented():
    stream, clock = io.StringIO(), Clock()
    with Progress(4000, start=0, every=50, stream=stream, clock=clock) as progress:
        for step in range(1, 1201):
            clock.now = step * 0.27
            figures = {"loss": 2.345, "ppl": 10.43, "lr": 1.2e-3, "tokens_per_second": 5321.4}
            progress.update(step, **figures if step % 50 == 0 else {})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 24
    assert lines[-1] == ("step 1200/4000  loss 2.345  ppl 10.4  lr 1.2e-03  5,321 tok/s  ETA 12:36")


def test_the_last_step_always_has_a_line_and_none_comes_twice():
    stream = io.StringIO()
    with Progress(7, every=3, stream=stream) as progress:
        for step in (1, 2, 3, 3, 4, 5, 6, 7, 7):
            progress.update(step, loss=step)
    steps = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert steps == ["3/7", "6/7", "7/7"]
    assert stream.getvalue().splitlines()[-1].endswith("ETA 0:00")


def test_steps_that_skip_the_mark_are_reported_at_the_next_chance():
    stream = io.StringIO()
    with Progress(100, every=10, stream=stream) as progress:
        for step in range(4, 40, 4):
            progress.update(step)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == [
        "12/100",
        "20/100",
        "32/100",
    ]


def test_a_resumed_run_estimates_from_its_own_pace():
    stream, clock = io.StringIO(), Clock()
    with Progress(200, start=100, every=50, stream=stream, clock=clock) as progress:
        clock.now = 100.0
        progress.update(150)
    assert stream.getvalue() == "step 150/200  ETA 1:40\n"


def test_figures_keep_their_last_value_and_unknown_ones_are_shown():
    stream = io.StringIO()
    with Progress(4, every=2, stream=stream, clock=Clock()) as progress:
        progress.update(1, loss=1.5, grad_norm=0.123456)
        progress.update(2)
    assert stream.getvalue() == "step 2/4  loss 1.500  grad_norm 0.1235  ETA 0:00\n"


@pytest.mark.parametrize("ppl", [float("inf"), 3.2e7])
def test_perplexities_of_the_first_steps_stay_short(ppl):
    stream = io.StringIO()
    with Progress(1, every=1, stream=stream) as progress:
        progress.update(1, ppl=ppl)
    assert f"ppl {ppl:.1e}" in stream.getvalue()


def test_a_terminal_gets_a_bar_with_figures_and_whole_messages():
    stream = Terminal()
    with Progress(200, start=100, every=50, stream=stream) as progress:
        for step in range(101, 201):
            progress.update(step, loss=2.0, ppl=7.389, tokens_per_second=5321.0)
            if step == 150:
                progress.message("valid  BLEU 31.2")
    out = stream.getvalue()
    assert "\rvalid  BLEU 31.2\n" in out or "\nvalid  BLEU 31.2\n" in out
    last = out.split("\r")[-1]
    for part in ("100%", "200/200", "loss 2.000", "ppl 7.4", "5,321 tok/s", "ETA"):
        assert part in last
    assert "step 150" not in out
    assert out.endswith("\n")


def test_a_notebook_gets_a_bar(monkeypatch):
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    stream = io.StringIO()
    with Progress(2, every=1, stream=stream) as progress:
        progress.update(2, loss=2.0)
    assert "100%|" in stream.getvalue()
    assert "step 2/2" not in stream.getvalue()


def test_a_shell_of_ipython_is_no_notebook(monkeypatch):
    for shell in (None, SimpleNamespace(config={})):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda s=shell: s))
        stream = io.StringIO()
        with Progress(2, every=1, stream=stream) as progress:
            progress.update(2, loss=2.0)
        assert "step 2/2" in stream.getvalue()


@pytest.mark.parametrize(
    ("rows", "columns", "bar"), [(24, 80, True), (0, 80, False), (24, 0, False), (0, 0, False)]
)
def test_a_terminal_without_room_gets_plain_lines(rows, columns, bar):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with os.fdopen(slave, "w") as stream, Progress(2, every=1, stream=stream) as progress:
        progress.update(1, loss=2.0)
        said = os.read(master, 4096).decode()
    os.close(master)
    assert ("step 1/2  loss 2.000" in said) != bar


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("problem", [BrokenPipeError(32, "Broken pipe"), OSError(5, "I/O error"),
                                     ValueError("I/O operation on closed file")])  # fmt: skip
def test_no_message_is_worth_a_run(problem, terminal):
    class Gone(Terminal if terminal else io.StringIO):
        gone = False

        def write(self, text):
            if self.gone:
                raise problem
            return super().write(text)

    stream = Gone()
    with Progress(20, every=1, stream=stream) as progress:
        progress.update(1, loss=2.0)
        stream.gone = True
        progress.message("saved step-5")
        for step in range(2, 21):
            progress.update(step, loss=2.0)
    assert ("0%" if terminal else "step 1/20") in stream.getvalue()
    assert "saved" not in stream.getvalue()


def test_messages_are_lines_of_their_own_in_a_log():
    stream = io.StringIO()
    with Progress(10, stream=stream) as progress:
        progress.message("saved step-5")
    assert stream.getvalue() == "saved step-5\n"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_is_written_when_disabled_or_closed(stream):
    progress = Progress(10, every=1, enabled=False, stream=stream)
    progress.update(5, loss=1.0)
    progress.message("hello")
    progress.close()
    assert stream.getvalue() == ""


def test_clock_time():
    assert [clock_time(seconds) for seconds in (0, 59.6, 754, 3600, 36061)] == [
        "0:00",
        "1:00",
        "12:34",
        "1:00:00",
        "10:01:01",
    ]


def test_the_default_stream_is_standard_error(capsys):
    with Progress(1, every=1) as progress:
        progress.update(1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("step 1/1")
