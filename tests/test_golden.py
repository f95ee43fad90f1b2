"""What must not change: the golden record names what differs, and old checkpoints go on."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import tinyruns
from dragoman import settings
from dragoman.decoding.translator import load_translator
from dragoman.errors import DragomanError
from dragoman.runs import Run, read_state
from dragoman.training.loop import train

FIXTURES = Path(__file__).parent / "fixtures"
CHECKPOINTS = ["checkpoint-v1", "checkpoint-v1-words"]

RECORD = {
    "weights/one": {"model": "aa", "optimizer": "bb"},
    "search/de-en": [["A dog.", -0.5], ["A cat.", -0.25]],
    "names/demo": "demo-de-en-s1-01234567",
}


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(tinyruns.ROOT / "scripts")
    return importlib.import_module("golden")


@pytest.fixture(params=CHECKPOINTS)
def old_run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a copy of an old run, in the working directory that its config was written for."""
    for name in (request.param, "checkpoint-v1-text"):
        shutil.copytree(FIXTURES / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return Run(Path(request.param))


def go_on(run: Run, steps: int) -> tuple[int, int]:
    """Train an old run for some steps more; return where it stood and where it ended."""
    before = read_state(run.checkpoint("last"))["step"]
    config = settings.load(run.folder / "config.yaml")
    config.train.max_steps = before + steps
    train(config, run)
    return before, read_state(run.checkpoint("last"))["step"]


def test_an_old_run_is_resumed(old_run: Run) -> None:
    logged = (old_run.folder / "train.jsonl").read_text()
    tokens = read_state(old_run.checkpoint("last"))["target_tokens"]
    before, after = go_on(old_run, 3)
    assert (before > 0, after) == (True, before + 3)
    assert read_state(old_run.checkpoint("last"))["target_tokens"] > tokens
    now = (old_run.folder / "train.jsonl").read_text()
    assert now.startswith(logged)
    assert json.loads(now.splitlines()[-1])["step"] == after


@pytest.mark.parametrize("missing", [["gpus"], ["gpus", "threads", "scores", "scored", "plateau"]])
def test_a_run_from_before_a_field_of_the_state_is_resumed(
    old_run: Run, missing: list[str]
) -> None:
    path = old_run.checkpoint("last") / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in state.items() if k not in missing}))
    before, after = go_on(old_run, 2)
    assert after == before + 2
    assert read_state(old_run.checkpoint("last"))["gpus"] == []


def test_an_old_run_on_other_text_is_refused(old_run: Run) -> None:
    with Path("checkpoint-v1-text/train.de").open("a") as text:
        text.write("\n")
    with Path("checkpoint-v1-text/train.en").open("a") as text:
        text.write("\n")
    with pytest.raises(DragomanError, match="has changed since this run began"):
        go_on(old_run, 2)


@pytest.mark.parametrize("pointer", ["best", "last"])
def test_an_old_run_translates_as_it_did(old_run: Run, pointer: str) -> None:
    text = (old_run.folder / "translations.txt").read_text(encoding="utf-8")
    pairs = [line.split("\t") for line in text.splitlines()]
    assert len(pairs) == 3
    translator = load_translator([old_run], pointer, device="cpu")
    found = translator.translate_lines([source for source, _ in pairs], translator.config.decode)
    assert [best.text for best, *_ in found] == [translation for _, translation in pairs]


def test_equal_records_have_no_difference(golden: ModuleType) -> None:
    assert golden.compare(RECORD, json.loads(json.dumps(RECORD))) == []


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        (
            "weights/one",
            {"model": "aa", "optimizer": "cc"},
            'weights/one: optimizer: "bb" there, "cc" here',
        ),
        (
            "search/de-en",
            [["A dog.", -0.5], ["A cat.", -0.3]],
            "search/de-en: 1: 1: -0.25 there, -0.3 here",
        ),
        ("search/de-en", [["A dog.", -0.5]], "search/de-en: "),
        ("names/demo", "demo", 'names/demo: "demo-de-en-s1-01234567" there, "demo" here'),
        ("names/new", "new", "names/new: only here"),
    ],
)
def test_the_entry_that_changed_is_named(
    entry: str, value: object, said: str, golden: ModuleType
) -> None:
    (line,) = golden.compare(RECORD, {**RECORD, entry: value})
    assert line.startswith(said)


def test_an_entry_that_is_gone_is_named(golden: ModuleType) -> None:
    here = {name: value for name, value in RECORD.items() if name != "names/demo"}
    assert golden.compare(RECORD, here) == ["names/demo: only there"]


def test_recording_is_deterministic_and_sees_one_changed_key(
    golden: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ["weights/transformer"]
    first = golden.record(only)
    assert list(first) == only
    assert golden.compare(first, golden.record(only)) == []
    monkeypatch.setitem(golden.RUNS, "transformer", [*golden.TRANSFORMER, "model.dropout=0.19"])
    (line,) = golden.compare(first, golden.record(only))
    assert line.startswith("weights/transformer: model: ")


def test_a_record_is_written_and_compared(
    golden: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, only = tmp_path / "record.json", ["--only", "names/demo", "names/tutorial"]
    assert golden.main(["--output", str(path), *only]) == 0
    assert capsys.readouterr().out == ""
    assert golden.main(["--compare", str(path), *only]) == 0
    assert capsys.readouterr().out == "all 2 entries equal\n"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "names/demo": "other"}))
    assert golden.main(["--compare", str(path), *only]) == 1
    assert capsys.readouterr().out.startswith('names/demo: "other" there, "demo-de-en-s1-')
    assert golden.main(["--compare", str(path), "--only", "names/tutorial"]) == 0


def test_an_entry_that_there_is_not_is_refused(
    golden: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        golden.main(["--only", "nmaes"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: --only: there is no entry or group 'nmaes'\n"


@pytest.mark.slow
@pytest.mark.skipif(not (tinyruns.ROOT / ".git").exists(), reason="needs a git checkout")
def test_a_checkout_is_compared_with_a_revision(golden: ModuleType) -> None:
    script = str(tinyruns.ROOT / "scripts" / "golden.py")
    only = ["--only", "names/demo", "weights/transformer"]
    done = tinyruns.call(script, "--against", "HEAD", *only, cwd=tinyruns.ROOT)
    assert (done.returncode, done.stdout) == (0, "all 2 entries equal\n"), done.stderr
    done = tinyruns.call(script, "--against", "no-such-revision", cwd=tinyruns.ROOT)
    assert done.returncode == 2
    assert "no-such-revision" in done.stderr
