"""What trackers are told, what of ``train.jsonl`` is dropped when a run goes on, a full disk."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinyruns
from dragoman.errors import DragomanError, visible
from dragoman.reporting import trackers as trackers_module
from dragoman.reporting.board import Board
from dragoman.reporting.trackers import TRACKERS, JsonLines, Trackers, plain
from dragoman.runs import read_log


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = JsonLines(tmp_path / "train.jsonl", 0)
    for step, kind in ((1, "train"), (2, "train"), (2, "validation"), (3, "train")):
        log.scalars(step, {f"{kind}/loss": 1.23456789, f"{kind}/bleu": 2.0, "epoch": 0})
    return tmp_path / "train.jsonl"


def test_lines_are_appended_and_rounded(path: Path) -> None:
    assert steps(path) == [1, 2, 2, 3]
    first = path.read_text().splitlines()[0]
    assert first == '{"step": 1, "train": {"loss": 1.23457, "bleu": 2.0}, "epoch": 0}'


def test_resuming_drops_what_lies_beyond(path: Path) -> None:
    kept = path.read_text().splitlines()[:3]
    JsonLines(path, 2).scalars(3, {"train/loss": 4.0})
    assert path.read_text().splitlines() == [*kept, '{"step": 3, "train": {"loss": 4.0}}']


def test_a_step_has_its_figures_once(path: Path) -> None:
    before = path.read_text()
    log = JsonLines(path, 3)
    log.scalars(3, {"train/loss": 1.0})
    assert path.read_text() == before
    log.scalars(3, {"validation_average/loss": 1.0})
    assert steps(path) == [1, 2, 2, 3, 3]


def test_starting_anew_drops_everything(path: Path) -> None:
    JsonLines(path, 0)
    assert path.read_text() == ""


@pytest.mark.parametrize(
    "line", ["[]", "3", "null", "{}", '{"step": "x"}', "\u00ff\u2028", '{"step": 3, "train": {"lo']
)
def test_lines_that_are_no_entries_are_left_out(line: str, path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
    assert [entry["step"] for entry in read_log(path)] == [1, 2, 2, 3]
    JsonLines(path, 3)
    assert steps(path) == [1, 2, 2, 3]


class Cells(HTMLParser):
    """Collects the cells of a table, and every tag of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data.rstrip("\n")


TABLE = {"table", "thead", "tbody", "tr", "th", "td"}


def shown(text: str) -> Cells:
    """Return what TensorBoard makes of a text in a table."""
    from tensorboard.plugin_util import markdown_to_safe_html

    return Cells(markdown_to_safe_html(f"| a | b |\n|---|---|\n| {plain(text)} | x |"))


@pytest.mark.parametrize(
    "text",
    [
        "</td><script>alert(1)</script>",
        "*x* _y_ __z__ `code` ~~gone~~ \\* a|b",
        "![x](http://127.0.0.1/x.png) [y](http://z) [z]: http://z <http://a.b> <a@b.c>",
        "&lt;b&gt; &amp;#42; &copy",
        "# 1. - + > ``` === --- {: #id }",
        "line\none\r\ntwo\x1b[31m\u2028three\x02wzxhzdk:0\x03",
    ],
)
def test_text_in_a_table_is_shown_as_it_is(text: str) -> None:
    found = shown(text)
    assert found.cells == [visible(text), "x"]
    assert found.tags == TABLE


@given(st.text("ab *_`~<>&|\\[]()!#:/\"'\n\x1b-=+.{}", min_size=1))
def test_any_text_in_a_table_is_text(text: str) -> None:
    found = shown(f".{text}.")
    assert found.cells == [visible(f".{text}."), "x"]
    assert found.tags == TABLE


class Told:
    """A plug-in's tracker: keeps what it is told, and fails at one step."""

    def __init__(self, fails_at: int = -1) -> None:
        self.heard: list[tuple[str, int]] = []
        self.fails_at = fails_at
        self.closed = False

    def scalars(self, step: int, values: Any) -> None:
        if step == self.fails_at:
            raise ConnectionError("the server is gone")
        self.heard += [(tag, step) for tag in values]

    def text(self, step: int, tag: str, text: str) -> None:
        self.heard.append((tag, step))

    def figure(self, step: int, tag: str, figure: Any) -> None:
        self.heard.append((tag, step))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tinyruns.write_pairs(folder / "text")
    return folder


def test_a_tracker_of_a_plug_in_hears_of_a_run_what_tensorboard_does(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Told, Path, int]] = []

    def make(folder: Path, resume_step: int, config: Any) -> Told:
        made.append((Told(), folder, resume_step))
        return made[-1][0]

    monkeypatch.setitem(TRACKERS, "told", make)
    for last in (2, 4):
        run = tinyruns.train_run(
            tinyruns.config(home, checkpoint_dir=str(tmp_path), log__trackers=["told"],
                            log__figures=True, train__max_steps=last, train__validate_every=2)
        )  # fmt: skip
    assert [(folder, step) for _, folder, step in made] == [(run.folder, 0), (run.folder, 2)]
    assert all(tracker.closed for tracker, _, _ in made)
    heard = [each for tracker, _, _ in made for each in tracker.heard]
    for kind in ("train/loss", "validation/bleu", "samples", "attention"):
        every = 1 if kind == "train/loss" else 2
        assert [step for tag, step in heard if tag == kind] == list(range(every, 5, every))
    assert [tag for tag, step in heard if step == 0] == ["config"]


def test_a_tracker_nobody_knows_is_named(home: Path, tmp_path: Path) -> None:
    config = tinyruns.config(home, log__trackers=["jsnl"])
    with pytest.raises(DragomanError, match=r"log\.trackers: .*'jsnl'.* did you mean 'jsonl'"):
        Trackers(tmp_path, 0, config, enabled=True)


def test_other_ranks_tell_nobody(home: Path, tmp_path: Path) -> None:
    Trackers(tmp_path, 0, tinyruns.config(home), enabled=False).tell("scalars", 1, {"a/b": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*TRACKERS, "told"])
def test_a_full_disk_costs_a_tracker_and_one_line_but_not_the_run(
    name: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def full(folder: Path, resume_step: int, config: Any) -> Any:
        if name == "told":
            return Told(fails_at=3)
        tracker = ordinary[name](folder, resume_step, config)
        if isinstance(tracker, JsonLines):
            tracker.path = Path("/dev/full")
        elif isinstance(tracker, Board):
            tracker._file.close()
            tracker._file = Path("/dev/full").open("wb")  # noqa: SIM115
        return tracker

    ordinary = dict(TRACKERS)
    monkeypatch.setitem(trackers_module.TRACKERS, name, full)
    options = {"log__tensorboard": True, "log__trackers": ["told"] if name == "told" else []}
    whole = tinyruns.config(home, checkpoint_dir=str(tmp_path), **options)
    run = tinyruns.train_run(whole)
    said = capfd.readouterr().err.splitlines()
    (warning,) = [line for line in said if line.startswith("warning: ")]
    assert warning.startswith(f"warning: {name}: ")
    assert not [line for line in said if "Traceback" in line or "Exception" in line]
    assert run.checkpoint("last").name == "step-10"
    assert (len(read_log(run.folder / "train.jsonl")) == 12) == (name != "jsonl")


def test_without_tensorboard_there_is_no_board_and_no_graph(home: Path, tmp_path: Path) -> None:
    options = {"log__tensorboard": False, "log__graph": True, "log__figures": True}
    run = tinyruns.train_run(tinyruns.config(home, checkpoint_dir=str(tmp_path), **options))
    assert not (run.folder / "tensorboard").exists()
    assert len(read_log(run.folder / "train.jsonl")) == 12
