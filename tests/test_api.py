"""The Python door, as somebody else's program uses it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dragoman
import tinyruns
from dragoman.cli import main
from dragoman.data.lines import read_lines
from dragoman.errors import DragomanError
from dragoman.reporting.attention import attention_of
from dragoman.runs import Run

ROWS = [
    ("Ein kleiner hund läuft im park.", "A small dog runs in-the park."),
    ("Schwarzer junge springt am strand.", "Black boy jumps at-the beach."),
    ("Alte frau spielt im park.", "Old woman plays in-the park."),
]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tinyruns.trained(tmp_path_factory)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def lines(home: Path) -> list[str]:
    return list(read_lines(home / "text" / "test.de"))


@pytest.fixture
def translator(home: Path) -> dragoman.Translator:
    return dragoman.load("one")


def test_a_string_in_a_string_out_a_list_in_a_list_out(
    translator: dragoman.Translator, lines: list[str]
) -> None:
    one = translator.translate(lines[0])
    assert isinstance(one, str)
    assert translator.translate(lines)[0] == one
    assert translator.translate(iter(lines[:2])) == translator.translate(lines[:2])
    assert translator.translate([]) == []
    assert translator.translate("") == ""
    assert translator.translate(["", lines[0]]) == ["", one]


def test_details_and_nbest(translator: dragoman.Translator, lines: list[str]) -> None:
    best = translator.translate(lines[0], details=True)
    assert best.text == translator.translate(lines[0])
    assert best.log_prob < 0
    assert translator.tgt_tokenizer.detokenize(best.tokens) == best.text
    three = translator.translate(lines[0], beam_size=4, nbest=3)
    assert len(three) == 3
    assert all(isinstance(text, str) for text in three)
    rows = translator.translate(lines[:2], beam_size=4, nbest=3, details=True)
    assert [text.text for text in rows[0]] == three
    assert [len(row) for row in rows] == [3, 3]
    assert rows[0][0].score >= rows[0][1].score >= rows[0][2].score


def test_it_says_what_the_command_says(
    translator: dragoman.Translator, lines: list[str], home: Path, tmp_path: Path
) -> None:
    words = ["--input", str(home / "text" / "test.de"), "--output", str(tmp_path / "out")]
    assert main(["translate", "one", *words, "decode.beam_size=3"]) == 0
    assert translator.translate(lines, beam_size=3) == list(read_lines(tmp_path / "out"))
    assert dragoman.load("one", beam_size=3).translate(lines) == list(read_lines(tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "search", "said"),
    [
        (7, {}, r"text: 7 is neither a string nor a list"),
        (["a", 7], {}, r"line 2: 7 is not a string"),
        ("M\udce4d", {}, r"text: is not valid UTF-8"),
        ("x", {"beam_sise": 2}, r"no key 'decode\.beam_sise'; did you mean 'beam_size'"),
        ("x", {"method": "beem"}, r"'beem' is not accepted, .*; did you mean 'beam'"),
        ("x", {"beam_size": 0}, r"beam_size: 0 is out of range"),
        ("x", {"beam_size": "wide"}, r"beam_size"),
        ("x", {"nbest": 9}, r"nbest: 9 is more than"),
        ("x", {"top_k": 3}, r"decode\.top_k: is for decode\.method=sample or mbr"),
    ],
)
def test_what_is_wrong_is_said(
    translator: dragoman.Translator, text: Any, search: dict[str, Any], said: str
) -> None:
    with pytest.raises(DragomanError, match=said):
        translator.translate(text, **search)


def test_an_ensemble_and_nothing_and_nowhere(home: Path, lines: list[str]) -> None:
    both = dragoman.load("one", home / "checkpoints" / "two")
    assert len(both.models) == 2
    assert len(both.translate(lines)) == len(lines)
    with pytest.raises(DragomanError, match="name a run"):
        dragoman.load()
    with pytest.raises(DragomanError, match=r"oen: .*; did you mean 'one'"):
        dragoman.load("oen")


@pytest.mark.parametrize("name", ["one", "words"])
def test_attention_is_labelled_matrices_and_a_picture(
    home: Path, name: str, lines: list[str]
) -> None:
    found = dragoman.load(name).attention(lines[0])
    assert found.target == dragoman.load(name).translate(lines[0])
    assert found.aligning in found
    for layer, matrix in found.items():
        rows, columns = found.labels(layer)
        assert matrix.shape[1:] == (len(rows), len(columns))
        np.testing.assert_allclose(matrix.sum(-1), 1, atol=1e-5)
    assert found._repr_png_().startswith(b"\x89PNG")
    assert found.plot(layer=found.aligning, head=0).axes
    with pytest.raises(DragomanError, match=r"layer: there is no attention 'encoder\.9"):
        found.plot(layer="encoder.9.self")
    with pytest.raises(DragomanError, match="source: is empty"):
        dragoman.load(name).attention("  ")


@pytest.mark.parametrize("name", ["one", "words"])
def test_attention_is_the_same_beside_longer_sentences(
    home: Path, name: str, lines: list[str]
) -> None:
    translator = dragoman.load(name)
    pairs = list(zip(lines, translator.translate(lines), strict=True))
    assert len({len(translator.encode_line(line)) for line in lines}) > 1
    for together, (source, target) in zip(attention_of(translator, pairs), pairs, strict=True):
        alone = translator.attention(source, target)
        assert (together.src_tokens, together.tgt_tokens) == (alone.src_tokens, alone.tgt_tokens)
        for layer, matrix in alone.items():
            np.testing.assert_allclose(together[layer], matrix, atol=1e-5)


def test_evaluate_gives_the_scores_of_the_command(home: Path, tmp_path: Path) -> None:
    assert main(["evaluate", "one", "--split", "test", "--output", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "scores.test.json").read_text("utf-8"))
    sides = [list(read_lines(home / "text" / f"test.{code}")) for code in ("de", "en")]
    done = dragoman.evaluate(dragoman.load("one"), *sides)
    for name, entry in done.scores.items():
        assert entry.score == written[name]["score"]
        assert entry.signature == written[name]["signature"]
    assert done.bleu.interval == tuple(written["bleu"]["interval"])
    assert done.bleu.signature in str(done)
    with pytest.raises(AttributeError, match=r"no metric 'blue', .*did you mean 'bleu'"):
        done.blue  # noqa: B018
    with pytest.raises(DragomanError, match="3 source lines and 2 references"):
        dragoman.evaluate(dragoman.load("one"), ["a", "b", "c"], ["a", "b"])


def words_of(folder: Path, **changes: Any) -> list[str]:
    return tinyruns.overrides(folder, **changes)


def test_a_trained_run_knows_how_it_went(tmp_path: Path) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    run = dragoman.train(*words_of(tmp_path), seed=3, **{"train.lr": 0.02, "log.every": 5})
    assert run.folder == tmp_path / "checkpoints" / "run"
    steps = [entry["step"] for entry in run.history if "validation/loss" in entry]
    assert steps == [5, 10]
    assert run.best_score == pytest.approx(
        -min(entry["validation/loss"] for entry in run.history if "validation/loss" in entry),
        rel=1e-4,
    )
    assert run.translator().config.seed == 3
    assert run.evaluate("test").bleu.score >= 0
    assert (run.folder / "scores.test.json").exists()
    again = dragoman.train(*words_of(tmp_path), seed=3, **{"train.lr": 0.02, "log.every": 5})
    assert again.history == run.history  # complete: nothing was trained again


def test_words_and_keywords_are_the_same_run(tmp_path: Path) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    first = dragoman.train(*words_of(tmp_path, run_name="a"), "seed=2")
    second = dragoman.train(*words_of(tmp_path), seed=2, run_name="b")
    ends = [(run.checkpoint("last") / "model.safetensors").read_bytes() for run in (first, second)]
    assert ends[0] == ends[1]


def test_training_refuses(tmp_path: Path) -> None:
    for word in ("-m", "--multirun"):
        with pytest.raises(DragomanError, match=f"{word}: is an option of the command line"):
            dragoman.train(word, "seed=1,2")
    with pytest.raises(DragomanError, match=r"no key 'train\.lrr'"):
        dragoman.train("+experiment=demo", **{"train.lrr": 1})
    with pytest.raises(DragomanError, match="'val'"):
        dragoman.train("+experiment=demo", pairs={"train": ROWS})


def dictionaries() -> list[dict[str, str]]:
    return [{"de": src, "en": tgt, "id": "x"} for src, tgt in ROWS]


class Frame:
    """What is used of a pandas frame."""

    columns = ("de", "en")

    def to_dict(self, orient: str) -> list[dict[str, str]]:
        assert orient == "records"
        return dictionaries()


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        [list(row) for row in ROWS],
        dictionaries(),
        [{"translation": row} for row in dictionaries()],
        Frame(),
    ],
    ids=["tuples", "lists", "dicts", "nested", "frame"],
)
def test_every_form_of_pairs_is_the_same_text(rows: Any, tmp_path: Path) -> None:
    from dragoman.data import memory

    held = memory.read({"train": rows, "val": iter(ROWS)}, "de", "en")
    assert held == {"train": ROWS, "val": ROWS}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], r"pairs\['train'\]: holds no sentence pair"),
        ([ROWS[0], ("a",)], r"pairs\['train'\]: row 1: has 1 parts"),
        (["ab"], r"row 0: 'ab' is no pair"),
        ([("a", None)], r"row 0: None is not a string"),
        ([{"de": "a"}], r"row 0: has the keys de, expected .* 'de' and 'en'"),
        ([("a", "\udce4")], r"row 0: is not valid UTF-8"),
        ([7], r"row 0: 7 is no pair"),
    ],
)
def test_what_is_no_pair_is_said(rows: Any, said: str) -> None:
    with pytest.raises(DragomanError, match=said):
        dragoman.train("+experiment=demo", pairs={"train": rows, "val": ROWS})


def test_pairs_in_memory_train_resume_and_are_scored_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tinyruns.write_pairs(tmp_path / "text")
    pairs = {
        split: list(
            zip(*(read_lines(text / f"{split}.{code}") for code in ("de", "en")), strict=True)
        )
        for split in ("train", "val", "test")
    }
    words = [word for word in words_of(tmp_path) if not word.startswith(("run_name", "data.root"))]
    half = dragoman.train(*words, pairs=pairs, **{"train.max_steps": 5})
    run = dragoman.train(*words, pairs=pairs)
    assert run.folder == half.folder
    straight = dragoman.train(*words, pairs=pairs, run_name="straight")
    ends = [
        (each.checkpoint("last") / "model.safetensors").read_bytes() for each in (run, straight)
    ]
    assert ends[0] == ends[1]
    # From files the weights are the same, too.
    files = dragoman.train(*words_of(tmp_path, run_name="files"))
    assert (files.checkpoint("last") / "model.safetensors").read_bytes() == ends[0]
    # The run is scored where it lies now, without the pairs.
    moved = tmp_path / "elsewhere"
    shutil.move(run.folder, moved)
    assert dragoman.load(moved).evaluate("test").references == [tgt for _, tgt in pairs["test"]]
    # Other pairs are another run; under the same name they are refused.
    other = {**pairs, "train": pairs["train"][1:]}
    assert dragoman.train(*words, pairs=other, **{"train.max_steps": 1}).name != half.name
    with pytest.raises(DragomanError, match="changed"):
        dragoman.train(*words, pairs=other, run_name="straight", **{"train.max_steps": 11})
    with pytest.raises(DragomanError, match="other pairs"):
        dragoman.train(*words, pairs={**pairs, "val": ROWS}, run_name="straight")


def test_training_works_in_a_thread_and_twice(tmp_path: Path) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    done: list[Run] = []

    def work() -> None:
        done.append(dragoman.train(*words_of(tmp_path, run_name="thread")))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    done.append(dragoman.train(*words_of(tmp_path, run_name="main")))
    ends = [(run.checkpoint("last") / "model.safetensors").read_bytes() for run in done]
    assert ends[0] == ends[1]


def test_help_is_a_page_and_the_door_is_all_there() -> None:
    code = "import dragoman; help(dragoman)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in dragoman.__all__:
        assert name in dir(dragoman)
        assert name in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        dragoman.lod  # noqa: B018
