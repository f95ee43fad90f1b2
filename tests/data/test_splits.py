"""What is held out of the training text, and what keeps it from being trained on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dragoman
import tinyruns
from dragoman.config import CleanConfig, CorpusConfig, DataConfig
from dragoman.data.corpora import (
    Counts,
    check_texts,
    corpus_fingerprint,
    evaluation_keys,
    facts_of,
    held_folder,
    held_splits,
    keep_held_out,
    left_out,
    read_pairs,
    splits_of,
    training_text,
    use_kept,
)
from dragoman.data.ragged import IntArray
from dragoman.data.splits import LARGEST, MOST_SHARE, choose, groups
from dragoman.data.store import Keys, hash_of, keys_of
from dragoman.errors import DragomanError

Rows = list[tuple[str, str]]

# Groups.


def joined(src: Sequence[int], tgt: Sequence[int]) -> list[int]:
    """The first place of each pair's group, by search."""
    found = [-1] * len(src)
    for first in range(len(src)):
        reached = [first] if found[first] < 0 else []
        while reached:
            place = reached.pop()
            found[place] = first
            reached += [
                other
                for other in range(len(src))
                if found[other] < 0 and (src[other] == src[place] or tgt[other] == tgt[place])
            ]
    return found


def as_keys(numbers: Sequence[int]) -> Keys:
    return np.array([hash_of(str(number)) for number in numbers], np.uint64)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=14))
def test_groups_are_what_a_search_finds(pairs: list[tuple[int, int]]) -> None:
    src, tgt = [src for src, _ in pairs], [tgt for _, tgt in pairs]
    assert groups(as_keys(src), as_keys(tgt)).tolist() == joined(src, tgt)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_long_chain_is_one_group(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(200)
    src, tgt = order // 2, (order + 1) // 2  # each pair shares a side with the next
    assert groups(as_keys(src.tolist()), as_keys(tgt.tolist())).tolist() == [0] * 200


# The choice.

BOTH = ("val", "test")


def drawn(seed: int, count: int = 4000, sentences: int = 6000) -> tuple[Keys, Keys]:
    """Keys of pairs of which many share a sentence: groups of very different sizes."""
    draws = np.random.default_rng(seed)
    return tuple(as_keys(draws.integers(0, sentences, count).tolist()) for _ in "st")  # type: ignore[return-value]


def check(chosen: dict[str, IntArray], src: Keys, tgt: Keys, wanted: int) -> None:
    """No sentence is on both sides of a split, and no split is too large."""
    held = np.concatenate(list(chosen.values()))
    parts = {**chosen, "rest": np.setdiff1d(np.arange(len(src)), held)}
    assert sum(map(len, parts.values())) == len(src)
    for keys in (src, tgt):
        sides = [set(keys[places].tolist()) for places in parts.values()]
        assert len(set.union(*sides)) == sum(map(len, sides))
    for places in chosen.values():
        assert 0 < len(places) <= min(wanted, len(src) // MOST_SHARE)
        assert places.tolist() == sorted(places)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("wanted", [1, 30, 150, 10**6])
def test_no_sentence_is_on_both_sides(seed: int, wanted: int) -> None:
    src, tgt = drawn(seed)
    chosen = choose(src, tgt, wanted, BOTH)
    assert list(chosen) == ["val", "test"]
    check(chosen, src, tgt, wanted)
    sizes = np.bincount(groups(src, tgt))
    assert sizes.max() > 200 // LARGEST  # there was one to pass over
    assert sorted(map(len, chosen.values())) == [min(wanted, 200)] * 2


def test_the_choice_is_not_made_of_pairs_alone() -> None:
    src, tgt = drawn(0)
    chosen = choose(src, tgt, 150, BOTH)
    labels = groups(src, tgt)
    for places in chosen.values():
        assert len(np.unique(labels[places])) < len(places)


@pytest.mark.parametrize("seed", range(3))
def test_the_choice_does_not_depend_on_the_order_of_lines(seed: int) -> None:
    src, tgt = drawn(seed)
    first = choose(src, tgt, 100, BOTH)
    assert all(np.array_equal(first[name], choose(src, tgt, 100, BOTH)[name]) for name in BOTH)
    order = np.random.default_rng(seed).permutation(len(src))
    again = choose(src[order], tgt[order], 100, BOTH)
    for name in BOTH:
        assert sorted(order[again[name]].tolist()) == first[name].tolist()


def test_validation_is_the_same_without_a_test() -> None:
    src, tgt = drawn(1)
    both, one = choose(src, tgt, 100, BOTH), choose(src, tgt, 100, ["val"])
    assert list(one) == ["val"]
    assert np.array_equal(one["val"], both["val"])


@pytest.mark.parametrize(("size", "held"), [(5, True), (6, False)])
def test_groups_over_the_limit_are_passed_over(size: int, held: bool) -> None:
    # 100 lines are wanted, so a group may have 5: all have the same source.
    src = as_keys([number // size for number in range(2400)])
    tgt = as_keys(range(2400))
    chosen = choose(src, tgt, 100, BOTH)
    assert [len(chosen[name]) for name in BOTH] == ([100, 100] if held else [0, 0])
    # Single pairs are found among them.
    singles = as_keys(range(10_000, 10_050))
    more = choose(np.append(src, singles), np.append(tgt, singles), 100, BOTH)
    if not held:
        assert [len(more[name]) for name in BOTH] == [50, 0]
        assert more["val"].tolist() == list(range(2400, 2450))


@pytest.mark.parametrize(("lines", "count"), [(0, 0), (19, 0), (20, 1), (39, 1), (40, 2)])
def test_at_most_one_line_in_twenty(lines: int, count: int) -> None:
    keys = as_keys(range(lines))
    assert [len(places) for places in choose(keys, keys, 1000, BOTH).values()] == [count, count]


# Of a file.

NOUNS = {"Hund": "dog", "Mann": "man", "Vogel": "bird", "Junge": "boy", "König": "king"}
VERBS = {"sieht": "sees", "sucht": "looks for", "findet": "finds", "kennt": "knows"}


def sentences(count: int, seed: int = 0) -> Rows:
    """Pairs of German and English, all different; of one in ten, a side recurs once."""
    draws, rows = random.Random(seed), []
    for number in range(count):
        noun, verb = draws.choice(list(NOUNS)), draws.choice(list(VERBS))
        src = f"Der {noun} Nummer {number} {verb} ein Haus in der Stadt."
        tgt = f"The {NOUNS[noun]} with number {number} {VERBS[verb]} a house in the city."
        if number % 20 == 19:
            src = rows[-1][0].upper()
        elif number % 20 == 9:
            tgt = rows[-1][1].replace(".", "!")
        rows.append((src, tgt))
    return rows


def write(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{src}\t{tgt}\n" for src, tgt in rows)
    path.write_text(content, encoding="utf-8")
    return path


THERE = CorpusConfig(source="files", src="de", tgt="en")
BACK = CorpusConfig(source="files", src="en", tgt="de")


def mine(folder: Path, rows: Rows, **keys: Any) -> DataConfig:
    """A config of one's own text in one file, from German to English."""
    options = {
        "corpora": [replace(THERE)],
        "pairs": str(write(folder / "mine.tsv", rows)),
        "root": str(folder),
        "cache": str(folder / "cache"),
        "src": "de",
        "tgt": "en",
    }
    return DataConfig(name="files", **{**options, **keys})


def pairs_of(data: DataConfig, split: str) -> Rows:
    return list(zip(*read_pairs(data, split), strict=True))


def refusal(call: object) -> str:
    """The one line with which `call` is refused."""
    with pytest.raises(DragomanError) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_lines_are_held_out_for_validation_and_test(tmp_path: Path) -> None:
    rows = sentences(1000)
    data = mine(tmp_path, rows, holdout=30)
    assert held_splits(data) == ["val", "test"]
    assert splits_of(data) == ["train", "val", "test"]
    check_texts(data)
    val, test = pairs_of(data, "val"), pairs_of(data, "test")
    assert len(val) == len(test) == 30
    assert set(val) | set(test) <= set(rows)
    assert pairs_of(data, "train") == rows  # as it is in the file
    src, tgt = keys_of(s for s, _ in rows), keys_of(t for _, t in rows)
    places = {split: np.array([rows.index(row) for row in pairs_of(data, split)]) for split in BOTH}
    check(places, src, tgt, 30)
    prints = {corpus_fingerprint(data, replace(THERE, split=s)) for s in ("train", *BOTH)}
    assert len(prints) == 3
    assert prints == {corpus_fingerprint(data, replace(THERE, split=s)) for s in ("train", *BOTH)}


def test_the_same_pairs_are_held_out_of_a_shuffled_file(tmp_path: Path) -> None:
    rows = sentences(600)
    data = mine(tmp_path / "one", rows, holdout=25)
    random.Random(1).shuffle(rows)
    other = mine(tmp_path / "other", rows, holdout=25)
    for split in BOTH:
        assert len(pairs_of(data, split)) == 25
        assert sorted(pairs_of(data, split)) == sorted(pairs_of(other, split))


def test_held_out_lines_say_where_they_were(tmp_path: Path) -> None:
    rows = [row for pair in sentences(500) for row in (("", "Nothing."), pair, pair)]
    clean = CleanConfig(empty=True, normalise=True, duplicates="exact")
    data = mine(tmp_path, rows, holdout=10, clean=clean)
    lines = Path(data.pairs).read_text(encoding="utf-8").splitlines()
    numbers = set()
    for split in BOTH:
        content = (held_folder(data) / f"{split}.jsonl").read_text(encoding="utf-8")
        found = [json.loads(line) for line in content.splitlines()]
        assert len(found) == 10
        assert [(row["de"], row["en"]) for row in found] == pairs_of(data, split)
        for row in found:
            assert set(row) == {"de", "en", "pair"}
            assert lines[row["pair"] - 1] == f"{row['de']}\t{row['en']}"
            assert row["pair"] % 3 == 2  # not the empty one, nor the repetition
            numbers.add(row["pair"])
    assert len(numbers) == 20


def test_held_out_text_is_as_it_was_but_for_cleaning(tmp_path: Path) -> None:
    odd = (" Gro\u0308ße\u200b \U0001f642 ", 'a "quoted" \\ thing  ')
    rows = [(f"{n}{odd[0]}", f"{n}{odd[1]}") for n in range(40)]
    data = mine(tmp_path, rows, holdout=2)
    assert set(pairs_of(data, "val")) <= set(rows)
    data.clean = CleanConfig(normalise=True)
    for src, _ in pairs_of(data, "val"):
        assert src.endswith(" Gr\u00f6ße \U0001f642 ")


@pytest.mark.parametrize("count", [1, 19])
def test_too_few_pairs_are_refused(tmp_path: Path, count: int) -> None:
    data = mine(tmp_path, sentences(count))
    said = refusal(lambda: check_texts(data))
    assert said.startswith("data.holdout: ")
    assert f"{count} pairs" in said
    assert "data.files.val=" in said
    data.pairs = str(write(tmp_path / "mine.tsv", sentences(40)))
    assert len(pairs_of(data, "val")) == 2


def test_text_of_another_pair_is_nothing_to_hold_out_of(tmp_path: Path) -> None:
    data = mine(tmp_path, sentences(400), corpora=[replace(BACK)])
    said = refusal(lambda: read_pairs(data, "val"))
    assert "'val'" in said
    assert "de-en" in said


# What is named is not held out.


def test_nothing_is_held_out_beside_a_validation_file(tmp_path: Path) -> None:
    write(tmp_path / "val.tsv", sentences(30, seed=5))
    for name in ("val", "dev", "valid_2020"):
        data = mine(tmp_path, sentences(400), files={name: "val.tsv"}, validation_split=name)
        assert held_splits(data) == []
        assert splits_of(data) == [name, "train"]
        assert pairs_of(data, name) == sentences(30, seed=5)
        assert "no split 'test'" in refusal(lambda data=data: read_pairs(data, "test"))
        # Another split is to be validated on: a slip, not a wish for a holdout.
        data.validation_split = "valdi"
        assert "no split 'valdi'" in refusal(lambda data=data: read_pairs(data, "valdi"))


def test_without_a_holdout_a_missing_split_is_refused(tmp_path: Path) -> None:
    data = mine(tmp_path, sentences(400), holdout=0)
    assert held_splits(data) == []
    assert splits_of(data) == ["train"]
    assert "no split 'val'" in refusal(lambda: read_pairs(data, "val"))
    assert "no split 'val'" in refusal(lambda: check_texts(data))


def test_beside_a_test_file_validation_alone_is_held_out(tmp_path: Path) -> None:
    write(tmp_path / "test.tsv", sentences(30, seed=5))
    data = mine(tmp_path, sentences(400), files={"test": "test.tsv"})
    assert held_splits(data) == ["val"]
    assert sorted(splits_of(data)) == ["test", "train", "val"]
    assert pairs_of(data, "test") == sentences(30, seed=5)
    assert len(pairs_of(data, "val")) == 20
    assert [path.name for path in held_folder(data).glob("*.jsonl")] == ["val.jsonl"]


@pytest.mark.parametrize("name", ["multi30k", "captions"])
def test_nothing_is_held_out_of_a_source_with_splits(name: str) -> None:
    assert held_splits(DataConfig(name=name)) == []


def test_the_usual_files_have_a_validation_split() -> None:
    assert held_splits(DataConfig(name="files")) == []
    assert held_splits(DataConfig(name="files", files={"train": "a.tsv"})) == ["val", "test"]
    assert held_splits(
        DataConfig(name="files", files={"train": "a.tsv"}, validation_split="dev")
    ) == ["dev", "test"]
    assert held_splits(
        DataConfig(name="files", files={"train": "a.tsv"}, validation_split="test")
    ) == ["test"]


# What is left out of training.


def taken(data: DataConfig, corpus: CorpusConfig) -> tuple[Rows, Rows, Counts]:
    """The pairs of a corpus that are trained on, those that are not, and the counts."""
    text = training_text(data, corpus)
    out, counts = left_out(data, corpus, text, evaluation_keys(data))
    found = [
        list(zip(*(side.lines(np.flatnonzero(which)) for side in text.sides), strict=True))
        for which in (~out, out)
    ]
    return found[0], found[1], counts


def keys_in(rows: Rows) -> set[int]:
    return set(keys_of(side for row in rows for side in row).tolist())


@pytest.mark.parametrize("leaks", ["warn", "drop"])
def test_held_out_sentences_are_trained_on_in_no_direction(tmp_path: Path, leaks: str) -> None:
    rows = sentences(600)
    both = [replace(THERE), replace(BACK)]
    data = mine(tmp_path, rows, holdout=25, corpora=both, clean=CleanConfig(leaks=leaks))
    held = pairs_of(data, "val") + pairs_of(data, "test")
    assert len(held) == 50
    for corpus in both:
        kept, out, counts = taken(data, corpus)
        assert len(kept) == 550
        assert not keys_in(kept) & keys_in(held)
        swapped = [pair[::-1] for pair in out] if corpus.src == "en" else out
        assert sorted(swapped) == sorted(held)
        assert counts == Counts(
            600, {"duplicates": 0, "held out for val": 25, "held out for test": 25}, {}
        )


def test_a_sentence_that_changes_sides_is_left_out_too(tmp_path: Path) -> None:
    data = mine(tmp_path, sentences(600), holdout=25)
    src, tgt = pairs_of(data, "val")[0]
    rows = [*sentences(600), ("Ganz neu.", src.lower()), (tgt.upper(), "Brand new.")]
    turned = mine(tmp_path / "turned", rows, holdout=25)
    turned.held_out = str(held_folder(data))
    kept, out, counts = taken(turned, turned.corpora[0])
    assert not keys_in(kept) & keys_in(pairs_of(data, "val"))
    assert set(rows[-2:]) <= set(out)
    assert counts.left_out["held out for val"] == 27


@pytest.mark.parametrize("leaks", ["warn", "drop"])
def test_leaks_are_counted_or_left_out(tmp_path: Path, leaks: str) -> None:
    rows = sentences(400)
    val = [rows[3], ("Etwas ganz anderes.", rows[50][1].upper()), (rows[60][0], "Other.")]
    test = [("Nichts davon.", "None of it."), rows[3], rows[70]]
    write(tmp_path / "val.tsv", val)
    write(tmp_path / "test.tsv", test)
    data = mine(
        tmp_path,
        [*rows, rows[3], rows[7]],
        files={"val": "val.tsv", "test": "test.tsv"},
        clean=CleanConfig(leaks=leaks, duplicates="exact"),
        corpora=[replace(THERE), replace(BACK)],
    )
    leaked = [rows[3], rows[50], rows[60]], [rows[70]]
    for corpus in data.corpora:
        kept, out, counts = taken(data, corpus)
        turn = -1 if corpus.src == "en" else 1
        assert counts.read == 402
        gone = [rows[3], rows[7]]  # the second time
        if leaks == "drop":
            gone += leaked[0] + leaked[1]
            left = {"duplicates": 2, "leaks into val": 3, "leaks into test": 1}
            assert counts[1:] == (left, {})
        else:
            assert counts[1:] == ({"duplicates": 2}, {"val": 3, "test": 2})
        assert sorted(pair[::turn] for pair in out) == sorted(gone)
        assert len(kept) == 402 - len(gone)


def test_text_of_another_source_is_not_cleaned_but_its_leaks_are_held_back(tmp_path: Path) -> None:
    shipped = CorpusConfig(source="captions", src="de", tgt="en")
    data = mine(tmp_path, sentences(400), clean=CleanConfig(empty=True, leaks="drop"))
    data.corpora.append(shipped)
    assert facts_of(data, data.corpora[0]).clean == data.clean
    assert facts_of(data, shipped).clean == CleanConfig()
    kept, out, counts = taken(data, shipped)
    assert (out, counts.left_out["held out for val"]) == ([], 0)
    assert counts.read == len(kept) > 0
    write(tmp_path / "mine.tsv", [*sentences(400), *kept])  # so that some of them are held out
    data.holdout = 100
    held = [*pairs_of(data, "val"), *pairs_of(data, "test")]
    assert set(held) & set(kept)
    now, out, counts = taken(data, shipped)
    assert not keys_in(now) & keys_in(held)
    assert set(held) & set(kept) <= set(out)


# A run keeps its lines.


def test_the_lines_of_a_run_are_kept_and_used(tmp_path: Path) -> None:
    data = mine(tmp_path, sentences(400), holdout=10)
    chosen = {split: pairs_of(data, split) for split in BOTH}
    run = tmp_path / "run"
    run.mkdir()
    use_kept(data, run)
    assert data.held_out is None  # there are none yet
    keep_held_out(data, run)
    assert sorted(path.name for path in (run / "pairs").iterdir()) == ["test.jsonl", "val.jsonl"]
    write(tmp_path / "mine.tsv", sentences(300, seed=9))
    fresh = mine(tmp_path, sentences(300, seed=9), holdout=10)
    assert pairs_of(fresh, "val") != chosen["val"]
    use_kept(fresh, run)
    assert {split: pairs_of(fresh, split) for split in BOTH} == chosen
    print_of = corpus_fingerprint(fresh, replace(THERE, split="val"))
    assert print_of == corpus_fingerprint(data, replace(THERE, split="val"))


def train(home: Path, pairs: Path, steps: int = 2) -> dragoman.Run:
    words = tinyruns.overrides(
        home,
        data__pairs=str(pairs),
        data__holdout=15,
        data__max_length=100,
        train__max_steps=steps,
        train__validate_every=2,
        train__checkpoint_every=2,
    )
    return dragoman.train(*words)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a trained run."""
    train(tmp_path, write(tmp_path / "mine.tsv", sentences(400)))
    return tmp_path


def test_a_run_is_evaluated_without_its_training_text(home: Path) -> None:
    folder = home / "checkpoints" / "run"
    assert sorted(path.name for path in (folder / "pairs").iterdir()) == ["test.jsonl", "val.jsonl"]
    (home / "mine.tsv").unlink()
    shutil.rmtree(home / "cache")
    folder = folder.rename(home / "moved")
    for split in BOTH:
        content = (folder / "pairs" / f"{split}.jsonl").read_text(encoding="utf-8")
        expected = [json.loads(line) for line in content.splitlines()]
        assert len(expected) == 15
        done = dragoman.Run(folder).evaluate(split)
        assert list(done.references) == [row["en"] for row in expected]
        assert list(done.sources) == [row["de"] for row in expected]


def logged(run: dragoman.Run) -> int:
    """The last step of a run."""
    return max(int(line["step"]) for line in run.history)


def test_a_run_goes_on_with_its_text_and_no_other(home: Path) -> None:
    folder = home / "checkpoints" / "run"
    kept = {path.name: path.read_bytes() for path in (folder / "pairs").iterdir()}
    assert logged(train(home, home / "mine.tsv", steps=3)) == 3
    assert kept == {path.name: path.read_bytes() for path in (folder / "pairs").iterdir()}
    write(home / "mine.tsv", sentences(401))
    said = refusal(lambda: train(home, home / "mine.tsv", steps=4))
    assert f"data.pairs ({home / 'mine.tsv'}) has changed" in said
    assert kept == {path.name: path.read_bytes() for path in (folder / "pairs").iterdir()}
    write(home / "mine.tsv", sentences(400))
    assert logged(train(home, home / "mine.tsv", steps=4)) == 4


def test_leaks_are_said_at_the_start_and_with_the_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sentences(400)
    texts = {"train.tsv": rows[:300], "val.tsv": rows[300:340], "test.tsv": rows[280:310]}
    for name, some in texts.items():
        write(tmp_path / name, some)
    files = [f"+data.files.{name.removesuffix('.tsv')}={tmp_path / name}" for name in texts]
    words = tinyruns.overrides(tmp_path, train__max_steps=2, data__max_length=100)
    run = dragoman.train(*words, *files)
    said = "20 training pairs share a sentence with the split 'test', which makes its score better"
    shared = run.leaks("test")
    assert shared >= 20  # by a source or a target alone, perhaps, some more
    assert said.replace("20", str(shared), 1) in capsys.readouterr().err
    with pytest.warns(UserWarning, match=f"^{shared} training pairs share a sentence"):
        run.evaluate("test")
    (run.folder / "data.json").unlink()
    assert run.leaks("test") == 0
