"""The training mixture, over corpora in a cache."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytokens
from dragoman.config import CleanConfig, TokenizerConfig
from dragoman.data.cleaning import Facts
from dragoman.data.dataset import TrainingSet
from dragoman.data.ragged import Ragged, merge, ranges, starts_of, sums, take
from dragoman.data.store import Encoded, Pairs, count_units, encode_text, read_text
from dragoman.data.tokenizers import EOS, TOKENIZERS, Cutter, Tokenizer
from dragoman.data.tokenizers.sampling import make_sampler
from dragoman.errors import DragomanError

PEOPLE = ["Mann", "Frau", "Kind", "Hund", "Mädchen", "Junge"]
PLACES = ["Straße", "Brücke", "Wiese", "Küste"]
PAIRS = [
    (f"Ein {who} steht Nummer {n} auf der {where}.", f"The {who.lower()}, number {n}, {where}!")
    for n, (who, where) in enumerate((who, where) for who in PEOPLE * 4 for where in PLACES)
]
WORDS = TokenizerConfig(kind="spacy")
SAMPLED = TokenizerConfig(vocab_size=90, sampling_alpha=0.2)
DROPPED = TokenizerConfig(vocab_size=90, algorithm="bpe", bpe_dropout=0.2)
CONFIGS = {
    "words": WORDS,
    "unigram": TokenizerConfig(vocab_size=90),
    "sampled": SAMPLED,
    "dropped": DROPPED,
}


@cache
def trained(name: str) -> tuple[Tokenizer, Tokenizer]:
    return tinytokens.train_tokenizers(CONFIGS[name], PAIRS, tags=("<2en>",))


AS_IT_IS = Facts(CleanConfig(), "de", "en")


def encoded(folder: Path, fingerprint: str, pairs: Pairs, name: str) -> Encoded:
    return encode_text(folder, read_text(folder, fingerprint, pairs, AS_IT_IS), trained(name))


def corpus(
    folder: Path, pairs: list[tuple[str, str]], name: str, fingerprint: str = "f"
) -> Encoded:
    return encoded(folder, fingerprint, lambda: pairs, name)


def training_set(
    corpora: list[Encoded],
    name: str,
    *,
    weights: list[float] | None = None,
    tags: list[int | None] | None = None,
    max_length: int = 1000,
    seed: int = 1,
) -> TrainingSet:
    src, tgt = (make_sampler(tokenizer, CONFIGS[name]) for tokenizer in trained(name))
    return TrainingSet(
        corpora,
        weights=weights or [1.0] * len(corpora),
        tag_ids=tags or [None] * len(corpora),
        max_length=max_length,
        seed=seed,
        samplers=(src, tgt),
    )


def split(rows: Ragged) -> list[list[int]]:
    ends = np.cumsum(rows.lengths)
    return [rows.flat[e - n : e].tolist() for e, n in zip(ends, rows.lengths, strict=True)]


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_spell_the_pairs_and_end_in_eos(tmp_path: Path, name: str) -> None:
    data = training_set([corpus(tmp_path, PAIRS, name)], name)
    assert data.counts == {"pairs": 96, "left_out": 0, "empty": 0, "too_long": 0, "kept": 96}
    pairs = np.array([5, 0, 95, 5])
    for side, rows in enumerate(data.rows(pairs, 0)):
        tokenizer = trained(name)[side]
        assert rows.flat.dtype == rows.lengths.dtype == np.int64
        for pair, row in zip(pairs, split(rows), strict=True):
            assert row[-1] == EOS
            assert EOS not in row[:-1]
            assert tokenizer.decode(row) == PAIRS[pair][side]
            if name in ("words", "unigram"):
                assert row[:-1] == tokenizer.encode(PAIRS[pair][side])


@pytest.mark.parametrize("name", CONFIGS)
def test_lengths_are_those_of_the_rows(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragoman.data.ragged._CHUNK", 7)
    tag = trained(name)[0].tag_id("<2en>")
    corpora = [corpus(tmp_path, PAIRS[:50], name, "a"), corpus(tmp_path, PAIRS[50:], name, "b")]
    data = training_set(corpora, name, tags=[None, tag])
    pairs = np.random.default_rng(0).permutation(96)
    for epoch in (0, 3):
        rows, lengths = data.rows(pairs, epoch), data.lengths(pairs, epoch)
        assert all(np.array_equal(r.lengths, n) for r, n in zip(rows, lengths, strict=True))
        for pair, src, tgt in zip(pairs, split(rows[0]), split(rows[1]), strict=True):
            assert (src[0] == tag) == (pair >= 50)
            assert tag not in src[1:]
            assert name == "words" or tag not in tgt  # words: two vocabularies
            assert trained(name)[0].decode(src) == PAIRS[pair][0]
            assert trained(name)[1].decode(tgt) == PAIRS[pair][1]


@pytest.mark.parametrize("name", ["sampled", "dropped"])
def test_what_is_drawn_depends_on_epoch_and_pair_alone(tmp_path: Path, name: str) -> None:
    data = training_set([corpus(tmp_path, PAIRS, name)], name)
    pairs = np.arange(96)
    src, tgt = (split(rows) for rows in data.rows(pairs, 2))
    again = training_set([corpus(tmp_path, PAIRS, name)], name, max_length=999)
    for pair in (3, 77):
        one = again.rows(np.array([pair]), 2)
        assert (split(one[0])[0], split(one[1])[0]) == (src[pair], tgt[pair])
    assert split(data.rows(pairs, 1)[0]) != src
    other = training_set([corpus(tmp_path, PAIRS, name)], name, seed=2)
    assert split(other.rows(pairs, 2)[0]) != src
    assert (
        split(data.rows(np.array([4, 4]), 0)[0])[0] == split(data.rows(np.array([4, 4]), 0)[0])[1]
    )


def test_a_word_twice_in_a_sentence_is_drawn_twice(tmp_path: Path) -> None:
    data = training_set([corpus(tmp_path, [("Brücke " * 40, "a")], "dropped")], "dropped")
    row = trained("dropped")[0].tokens(split(data.rows(np.array([0]), 0)[0])[0])
    words = " ".join(row).replace("▁", "|▁").split("|")[1:]
    assert len({word.strip() for word in words[:-1]}) > 3


@pytest.mark.parametrize("name", ["sampled", "dropped"])
def test_no_drawn_row_is_longer_than_max_length(tmp_path: Path, name: str) -> None:
    free = training_set([corpus(tmp_path, PAIRS, name)], name)
    pairs = np.arange(96)
    src, tgt = trained(name)
    fixed = max(max(len(src.encode(s)), len(tgt.encode(t))) + 1 for s, t in PAIRS)
    assert max(int(n.max()) for n in free.lengths(pairs, 0)) > fixed
    data = training_set([corpus(tmp_path, PAIRS, name)], name, max_length=fixed)
    assert data.counts["kept"] == 96
    rows = data.rows(pairs, 0)
    assert max(int(r.lengths.max()) for r in rows) <= fixed
    wild = split(free.rows(pairs, 0)[0])
    for pair, row in enumerate(split(rows[0])):
        fits = len(wild[pair]) <= fixed
        assert row == (wild[pair] if fits else [*src.encode(PAIRS[pair][0]), EOS])


def test_empty_and_long_pairs_are_left_out_and_counted(tmp_path: Path) -> None:
    pairs = [*PAIRS[:3], ("", "x"), ("x", " \t"), ("", ""), ("lang " * 30, "x"), ("x", "y " * 30)]
    tag = trained("words")[0].tag_id("<2en>")
    data = training_set([corpus(tmp_path, pairs, "words")], "words", tags=[tag], max_length=20)
    assert data.counts == {"pairs": 8, "left_out": 0, "empty": 3, "too_long": 2, "kept": 3}
    assert data.epoch_pairs(0).tolist() == [0, 1, 2]
    limit = len(trained("words")[0].encode(PAIRS[0][0])) + 2  # with tag and EOS
    for max_length, kept in ((limit, 3), (limit - 1, 0)):
        if kept:
            exact = training_set([corpus(tmp_path, pairs, "words")], "words", tags=[tag],
                                 max_length=max_length)  # fmt: skip
            assert exact.counts["kept"] == kept
        else:
            with pytest.raises(DragomanError, match=r"data\.max_length: none of the 8 .*5 are too"):
                training_set([corpus(tmp_path, pairs, "words")], "words", tags=[tag],
                             max_length=max_length)  # fmt: skip


def test_a_corpus_without_words_is_refused(tmp_path: Path) -> None:
    for number, pairs in enumerate(([], [("", "a"), ("b", "")])):
        with pytest.raises(DragomanError, match=r"data\.corpora: none of the \d training pairs"):
            training_set([corpus(tmp_path, pairs, "words", str(number))], "words")


def test_weights_say_how_often_a_pair_is_seen(tmp_path: Path) -> None:
    many = [(f"w{n}", f"v{n}") for n in range(4000)]
    corpora = [corpus(tmp_path, many, "words", "many"), corpus(tmp_path, PAIRS, "words")]
    data = training_set(corpora, "words", weights=[0.25, 2.5])
    entries = [data.epoch_pairs(epoch) for epoch in range(40)]
    assert all(len(set(found.tolist())) == len(found) for found in entries)
    epochs = [Counter(data.pairs_of(found).tolist()) for found in entries]
    assert epochs[0] != epochs[1]
    assert epochs[3] == Counter(data.pairs_of(data.epoch_pairs(3)).tolist())
    for epoch in epochs:
        small = [epoch[pair] for pair in range(4000)]
        large = [epoch[pair] for pair in range(4000, 4096)]
        assert set(small) == {0, 1}
        assert set(large) == {2, 3}
        assert 860 < sum(small) < 1140
    seen = [sum(epoch[pair] for epoch in epochs) / 40 for pair in range(4000, 4096)]
    assert min(seen) > 2.1
    assert max(seen) < 2.9
    other = training_set(corpora, "words", weights=[0.25, 2.5], seed=9)
    assert Counter(other.pairs_of(other.epoch_pairs(0)).tolist()) != epochs[0]


@pytest.mark.parametrize("name", ["sampled", "dropped"])
def test_copies_of_a_pair_draw_for_themselves(tmp_path: Path, name: str) -> None:
    once = training_set([corpus(tmp_path, PAIRS, name)], name)
    data = training_set([corpus(tmp_path, PAIRS, name)], name, weights=[2.5])
    entries = np.sort(data.epoch_pairs(1))
    assert data.num_tokens > 2 * once.num_tokens
    lengths = data.lengths(entries, 1)
    for side, rows in enumerate(data.rows(entries, 1)):
        assert np.array_equal(rows.lengths, lengths[side])
        found = split(rows)
        assert found[:96] == split(once.rows(np.arange(96), 1)[side])  # the first is as ever
        assert sum(a != b for a, b in zip(found[:96], found[96:192], strict=True)) > 40
        for entry, row in zip(entries, found, strict=True):
            assert trained(name)[side].decode(row) == PAIRS[entry % 96][side]


def test_weights_that_leave_nothing_are_refused(tmp_path: Path) -> None:
    data = training_set([corpus(tmp_path, PAIRS[:2], "words")], "words", weights=[1e-9])
    with pytest.raises(DragomanError, match=r"data\.corpora.*epoch 0"):
        data.epoch_pairs(0)


def test_the_text_is_read_once(tmp_path: Path) -> None:
    calls = []

    def pairs() -> Iterator[tuple[str, str]]:
        calls.append(1)
        yield from PAIRS

    for name in ("unigram", "sampled", "dropped"):  # all cut at white space
        for _ in range(2):
            encoded(tmp_path, "f", pairs, name)
    encoded(tmp_path, "f", pairs, "words")
    assert len(calls) == 1
    encoded(tmp_path, "other text", pairs, "unigram")
    assert len(calls) == 2


def test_a_damaged_cache_is_built_again(tmp_path: Path) -> None:
    before = training_set([corpus(tmp_path, PAIRS, "words")], "words").rows(np.arange(96), 0)
    files = [*tmp_path.rglob("*.npy"), *tmp_path.rglob("examples.json")]
    assert len(files) == 13
    for number, path in enumerate(files):
        data = bytearray(path.read_bytes())
        data[-1 - number % len(data)] ^= 1 << number % 8
        path.write_bytes(data)
    with pytest.warns(UserWarning, match="checksums"):
        after = training_set([corpus(tmp_path, PAIRS, "words")], "words").rows(np.arange(96), 0)
    for old, new in zip(before, after, strict=True):
        assert split(old) == split(new)


class Lines(Cutter):
    """A cutter that breaks its promise."""

    lowercase, identity = False, "lines"

    def __call__(self, text: str) -> list[str]:
        return [text + "\n"]


def test_a_unit_with_a_line_break_is_refused(tmp_path: Path) -> None:
    text = read_text(tmp_path, "f", lambda: PAIRS, AS_IT_IS)
    with pytest.raises(DragomanError, match="unit of the text holds a line break"):
        count_units(tmp_path, "k", text, [np.arange(96)] * 2, (Lines(), Lines()))


def test_units_are_counted_over_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.data.store.ROWS", 7)
    text = read_text(tmp_path, "f", lambda: PAIRS, AS_IT_IS)
    cut = TOKENIZERS["sentencepiece"].make_cutter(TokenizerConfig(), "de")
    src, tgt = count_units(tmp_path, "k", text, [np.arange(96), np.arange(0, 96, 2)], (cut, cut))
    assert src == Counter(word for line, _ in PAIRS for word in line.split())
    assert tgt == Counter(word for _, line in PAIRS[::2] for word in line.split())
    assert not list(tmp_path.glob("*.parts"))


def test_of_very_many_words_the_rarest_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragoman.data.store.ROWS", 10)
    monkeypatch.setattr("dragoman.data.store._PRUNED", 20)
    pairs = [(f"often w{n} v{n} u{n}", "x") for n in range(100)]
    text = read_text(tmp_path, "f", lambda: pairs, AS_IT_IS)
    cut = TOKENIZERS["sentencepiece"].make_cutter(TokenizerConfig(), "de")
    src, _ = count_units(tmp_path, "k", text, [np.arange(100)] * 2, (cut, cut))
    assert src["often"] == 100
    assert len(src) <= 2 * 20 + 31


def test_bytes_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.data.store.ROWS", 10)  # the files are joined of many parts
    found = corpus(tmp_path, PAIRS * 20, "unigram")
    data = training_set([found], "unigram")
    lines = len(PAIRS) * 20

    def size(*names: str) -> int:
        paths = (path for name in names for path in tmp_path.rglob(f"*.{name}.npy"))
        return sum(path.stat().st_size - 128 for path in paths)

    tokens = sum(int(n.sum()) for n in data.lengths(np.arange(lines), 0))
    assert size("pieces", "starts") <= 2 * tokens + 2 * 4 * (lines + 1)
    assert size("text") == sum(len(side.encode()) for pair in PAIRS for side in pair) * 20
    some = np.array([1000, 3, 4, 5, 3, 1919])
    assert found.text.sides[0].lines(some) == [PAIRS[n % 96][0] for n in some]
    assert found.sides[1].rows(some[:0]).lengths.tolist() == []
    assert trained("unigram")[1].decode(split(data.rows(np.array([1000]), 0)[1])[0]) == PAIRS[40][1]


def test_an_unwritable_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DragomanError, match=r"cache: the token cache cannot be written"):
        corpus(tmp_path / "cache", PAIRS, "words")


SCRIPT = """
import sys, hashlib
from pathlib import Path
import numpy as np
sys.path[:0] = [{folder!r}, {folder!r} + "/.."]
import test_dataset as t
for name in ("sampled", "dropped"):
    data = t.training_set([t.corpus(Path(sys.argv[1]), t.PAIRS, name)], name, weights=[1.5])
    rows = data.rows(data.epoch_pairs(4), 4)
    print(hashlib.sha256(b"".join(r.flat.tobytes() for r in rows)).hexdigest())
"""


def test_processes_that_start_together_read_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT.format(folder=str(Path(__file__).parent)), tmp_path]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert printed[0] == printed[1]
    assert len(set(printed[0])) == 2
    assert not list(tmp_path.glob("*.tmp"))


ROWS = st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=6)


def ragged(rows: list[list[int]]) -> Ragged:
    flat = np.array([x for row in rows for x in row], np.int64)
    return Ragged(flat, np.array([len(row) for row in rows], np.int64))


@given(ROWS, st.data())
@settings(max_examples=200, deadline=None)
def test_index_arithmetic_on_rows(rows: list[list[int]], data: st.DataObject) -> None:
    table = ragged(rows)
    starts = starts_of(table.lengths)
    assert split(Ragged(table.flat, table.lengths)) == rows
    assert ranges(starts, table.lengths).tolist() == list(range(len(table.flat)))
    assert sums(table.flat, table.lengths).tolist() == [sum(row) for row in rows]
    order = data.draw(st.permutations(range(len(rows)))) if rows else []
    picked = take(table.flat, starts[order], table.lengths[order]) if rows else table
    assert split(picked) == [rows[i] for i in order]
    chosen = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    others = [[100 + i] * (i % 3) for i, take_it in enumerate(chosen) if take_it]
    replacement = iter(others)
    expected = [next(replacement) if c else row for c, row in zip(chosen, rows, strict=True)]
    assert split(merge(np.array(chosen, bool), ragged(others), table)) == expected
