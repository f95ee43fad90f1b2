"""Text in capitals, mistyped, joined: what becomes of a pair, and that it follows from its key."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinytokens
from dragoman.config import AugmentConfig, CleanConfig, TokenizerConfig
from dragoman.data import augmentation
from dragoman.data.augmentation import Augmenter
from dragoman.data.cleaning import Facts
from dragoman.data.dataset import TrainingSet
from dragoman.data.draws import absorb
from dragoman.data.ragged import Ragged
from dragoman.data.store import Encoded, encode_text, read_text
from dragoman.data.tokenizers import EOS, Tokenizer
from dragoman.data.tokenizers.sampling import make_sampler

TEXTS = [
    ("Ein Mann steht Nummer 7 auf der Straße.", "A man stands on the street, number 7!"),
    ("Wer ist das?", "Who is that?"),
    ("Zwei Hunde laufen", "Two dogs run"),
    ("Das Mädchen lacht …", "The girl laughs…"),
] * 12
OTHERS = [("Küste", "coast"), ("Wiese", "meadow")] * 4
SUBWORDS = TokenizerConfig(vocab_size=110, sampling_alpha=0.2)
ALL = AugmentConfig(
    upper=0.2, title=0.2, lower=0.2, no_end_mark=0.5, double_space=0.5, typos=0.5, joined=0.3
)


def keys(count: int) -> Any:
    return absorb(np.zeros((), np.uint64), 5, np.arange(count))


@pytest.mark.parametrize(
    ("case", "language", "text", "expected"),
    [
        ("upper", "de", "Größe: 5 kg", "GRÖSSE: 5 KG"),
        ("upper", "tr", "diyarbakır'da ışık", "DİYARBAKIR'DA IŞIK"),
        ("upper", "tr-TR", "iyi", "İYİ"),
        ("lower", "tr", "DİYARBAKIR IŞIK", "diyarbakır ışık"),
        ("lower", "en", "I AM Here", "i am here"),
        ("lower", "el", "ΟΔΟΣ", "οδος".replace("σ", "ς")),
        ("title", "en", "it's a (small) “world” of 2nd-hand e-mails", None),
        ("title", "az", "ilk işıq", "İlk İşıq"),
        ("title", "fr", "l'été à la mer", "L'été À La Mer"),
        ("upper", "ja", "犬が走る。", "犬が走る。"),
    ],
)
def test_case(case: str, language: str, text: str, expected: str | None) -> None:
    expected = expected or "It's A (Small) “World” Of 2nd-hand E-mails"
    assert augmentation.CASES[case](text, language) == expected


def test_the_target_changes_case_where_the_source_does() -> None:
    both = ("de", "en")
    assert augmentation.recased("upper", "Ein Hund", "A dog", both) == ("EIN HUND", "A DOG")
    assert augmentation.recased("title", "Berlin", "the city", both) == ("Berlin", "the city")
    assert augmentation.recased("upper", "犬が走る", "A dog", ("ja", "en")) == ("犬が走る", "A dog")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ein Hund.", "Ein Hund"),
        ("Wirklich ?!", "Wirklich"),
        ("Also …  ", "Also"),
        ("他走了。", "他走了"),
        ("क्या है।", "क्या है"),
        ("هل هذا؟", "هل هذا"),
        ("1.5", "1.5"),
        ("no mark", "no mark"),
        ("?", "?"),
        ("...", "..."),
        ("", ""),
    ],
)
def test_end_marks(text: str, expected: str) -> None:
    assert augmentation.without_end_mark(text) == expected


def test_joined_lines_have_a_space_where_their_language_writes_one() -> None:
    assert augmentation.joined("Ein Hund.", "Er läuft.", "de") == "Ein Hund. Er läuft."
    assert augmentation.joined("犬。", "走る。", "ja") == "犬。走る。"


@given(st.text(alphabet="ab C1\n", max_size=12), st.integers(0, 99))
def test_one_space_is_doubled(text: str, number: int) -> None:
    found = augmentation.with_double_space(text, keys(100)[number])
    assert len(found) == len(text) + (" " in text)
    assert found.replace(" ", "") == text.replace(" ", "")


def test_typos_come_as_often_as_they_should_and_only_in_letters() -> None:
    text = "Abc-Defg 12, hijklmnop! " * 400
    letters = sum(c.isalpha() for c in text)
    assert augmentation.with_typos(text, 0.0, keys(1)[0]) == text
    once = augmentation.with_typos("Abcdefgh", 1.0, keys(1)[0])
    assert once == augmentation.with_typos("Abcdefgh", 1.0, keys(1)[0])
    assert {augmentation.with_typos("Abcdefgh", 1.0, key) for key in keys(3)} > {once}

    kinds = Counter[str]()
    changed = 0
    for key in keys(300):
        found = augmentation.with_typos("Qabcd 1!", 0.1, key)
        assert found.endswith(" 1!")
        changed += found != "Qabcd 1!"
        word = found.removesuffix(" 1!")
        kinds["dropped"] += len(word) == 4
        kinds["doubled"] += len(word) == 6
        kinds["swapped"] += sorted(word) == sorted("Qabcd") and word != "Qabcd"
        kinds["replaced"] += len(word) == 5 and sorted(word) != sorted("Qabcd")
    assert 0.3 < changed / 300 < 0.5  # 1 - 0.9 ** 5 is 0.41
    assert min(kinds.values()) > 12
    for rate in (0.02, 0.05):
        found = augmentation.with_typos(text, rate, keys(1)[0])
        assert [c for c in found if not c.isalpha()] == [c for c in text if not c.isalpha()]
        # of a change in four, a drop and a doubling change the length; both are equally likely
        assert abs(len(found) - len(text)) < 0.02 * letters
    assert augmentation.with_typos("猫", 1.0, keys(1)[0]) in ("", "猫", "猫猫")


def test_other_cases_are_learnt_as_often_as_they_come() -> None:
    counts = Counter({"Hund": 100, "läuft": 10})
    augmentation.add_cases(counts, AugmentConfig(), "de")
    assert counts == {"Hund": 100, "läuft": 10}
    augmentation.add_cases(counts, AugmentConfig(upper=0.05, lower=0.5), "de")
    assert (counts["HUND"], counts["hund"], counts["Hund"]) == (5, 50, 100)
    assert (counts["LÄUFT"], counts["läuft"]) == (0, 15)
    assert all(counts[letter.upper()] for letter in "hundläft")


@cache
def tokenizers() -> tuple[Tokenizer, Tokenizer]:
    both = [*TEXTS, *OTHERS]
    more = [augmentation.recased(case, *pair, ("de", "en")) for pair in both
            for case in augmentation.CASES]  # fmt: skip
    return tinytokens.train_tokenizers(SUBWORDS, [*both, *more])


def corpus(folder: Path, pairs: list[tuple[str, str]], fingerprint: str) -> Encoded:
    facts = Facts(CleanConfig(), "de", "en")
    return encode_text(folder, read_text(folder, fingerprint, lambda: pairs, facts), tokenizers())


def training_set(
    folder: Path,
    augment: AugmentConfig | None,
    *,
    sampled: bool = False,
    max_length: int = 1000,
    seed: int = 1,
) -> TrainingSet:
    samplers = [make_sampler(each, SUBWORDS) if sampled else None for each in tokenizers()]
    return TrainingSet(
        [corpus(folder, TEXTS, "texts"), corpus(folder, OTHERS, "others")],
        weights=[2.0, 1.0],
        tag_ids=[None, None],
        max_length=max_length,
        seed=seed,
        samplers=(samplers[0], samplers[1]),
        augmenter=augment and Augmenter(augment),
        tokenizers=tokenizers(),
        languages=[("de", "en")] * 2,
    )


def split(rows: Ragged) -> list[list[int]]:
    ends = np.cumsum(rows.lengths)
    return [rows.flat[e - n : e].tolist() for e, n in zip(ends, rows.lengths, strict=True)]


def texts(data: TrainingSet, entries: Any, epoch: int = 0) -> list[tuple[str, str]]:
    src, tgt = (split(rows) for rows in data.rows(entries, epoch))
    assert all(row[-1] == EOS for row in (*src, *tgt))
    decoded = ([each.decode(row) for row in rows] for each, rows in
               zip(tokenizers(), (src, tgt), strict=True))  # fmt: skip
    return list(zip(*decoded, strict=True))


ENTRIES = np.random.default_rng(0).permutation(2 * len(TEXTS))


@pytest.mark.parametrize("sampled", [False, True])
def test_what_becomes_of_a_pair_follows_from_seed_epoch_and_pair(
    tmp_path: Path, sampled: bool
) -> None:
    data = training_set(tmp_path, ALL, sampled=sampled)
    assert data.rows(ENTRIES, 2)[0].flat.dtype == np.int64
    whole = [split(rows) for rows in data.rows(ENTRIES, 2)]
    again = training_set(tmp_path, ALL, sampled=sampled)
    for place in (0, 1, 40):  # alone, in another batch, in another process's set
        for side, rows in enumerate(again.rows(ENTRIES[place : place + 1], 2)):
            assert split(rows) == whole[side][place : place + 1]
    for side, lengths in enumerate(data.lengths(ENTRIES, 2)):
        assert lengths.tolist() == [len(row) for row in whole[side]]
    assert [split(rows) for rows in data.rows(ENTRIES, 3)] != whole
    other = training_set(tmp_path, ALL, sampled=sampled, seed=2)
    assert [split(rows) for rows in other.rows(ENTRIES, 2)] != whole


@pytest.mark.parametrize("sampled", [False, True])
def test_nothing_is_varied_at_rates_of_zero(tmp_path: Path, sampled: bool) -> None:
    plain = training_set(tmp_path, None, sampled=sampled)
    varied = training_set(tmp_path, AugmentConfig(), sampled=sampled)
    for ours, theirs in zip(plain.rows(ENTRIES, 1), varied.rows(ENTRIES, 1), strict=True):
        assert split(ours) == split(theirs)


@pytest.mark.parametrize("sampled", [False, True])
def test_every_rate_does_its_own_thing(tmp_path: Path, sampled: bool) -> None:
    first = np.arange(4)
    expected = {
        "upper": [augmentation.recased("upper", *pair, ("de", "en")) for pair in TEXTS[:4]],
        "lower": [augmentation.recased("lower", *pair, ("de", "en")) for pair in TEXTS[:4]],
        "title": [augmentation.recased("title", *pair, ("de", "en")) for pair in TEXTS[:4]],
        "no_end_mark": [(augmentation.without_end_mark(src), tgt) for src, tgt in TEXTS[:4]],
    }
    for name, pairs in expected.items():
        data = training_set(tmp_path, AugmentConfig(**{name: 1.0}), sampled=sampled)
        assert texts(data, first) == pairs
    typed = training_set(tmp_path, AugmentConfig(typos=1.0, typo_rate=0.5), sampled=sampled)
    found = texts(typed, first)
    assert all(mine[0] != pair[0] for mine, pair in zip(found, TEXTS, strict=False))
    assert [tgt for _, tgt in found] == [tgt for _, tgt in TEXTS[:4]]


def test_rates_are_shares_of_the_pairs(tmp_path: Path) -> None:
    data = training_set(tmp_path, AugmentConfig(upper=0.3, lower=0.2))
    found = [texts(data, np.arange(len(TEXTS)), epoch) for epoch in range(25)]
    seen = Counter(
        "upper" if src.isupper() else "lower" if src.islower() else "as it is"
        for rows in found
        for src, _ in rows
    )
    assert 0.25 < seen["upper"] / seen.total() < 0.35
    assert 0.15 < seen["lower"] / seen.total() < 0.25


def test_a_pair_is_joined_with_one_of_its_own_corpus(tmp_path: Path) -> None:
    data = training_set(tmp_path, AugmentConfig(joined=1.0))
    partners = set[tuple[str, str]]()
    for entry in range(4):
        for epoch in range(20):
            src, tgt = texts(data, np.array([entry]), epoch)[0]
            assert src.startswith(TEXTS[entry][0] + " ")
            assert tgt.startswith(TEXTS[entry][1] + " ")
            partners.add((src.removeprefix(TEXTS[entry][0] + " "),
                          tgt.removeprefix(TEXTS[entry][1] + " ")))  # fmt: skip
    assert partners == set(TEXTS)
    others = texts(data, np.arange(len(TEXTS), len(TEXTS) + 2))
    assert {tuple(src.split()) for src, _ in others} <= {
        (one, two) for one in ("Küste", "Wiese") for two in ("Küste", "Wiese")
    }


@pytest.mark.parametrize("sampled", [False, True])
def test_what_would_be_too_long_stays_as_it_is(tmp_path: Path, sampled: bool) -> None:
    src, tgt = tokenizers()
    limit = 1 + max(max(len(src.encode(a)), len(tgt.encode(b))) for a, b in TEXTS)
    loud = AugmentConfig(upper=1.0, joined=0.9)
    data = training_set(tmp_path, loud, sampled=sampled, max_length=limit)
    assert data.counts["kept"] == len(TEXTS) + len(OTHERS)
    rows = data.rows(ENTRIES, 0)
    assert max(int(side.lengths.max()) for side in rows) <= limit
    found = texts(data, ENTRIES)
    pairs = data.pairs_of(ENTRIES)
    longest = [f for f, pair in zip(found, pairs, strict=True) if pair in range(0, len(TEXTS), 4)]
    assert set(longest) == {TEXTS[0]}
    assert any(f[0].isupper() for f in found)


def test_a_side_is_never_varied_to_nothing(tmp_path: Path) -> None:
    drops = AugmentConfig(typos=1.0, typo_rate=1.0)
    data = TrainingSet(
        [corpus(tmp_path, [("a", "a"), ("b", "b")] * 40, "letters")],
        weights=[1.0], tag_ids=[None], max_length=9, seed=1,
        augmenter=Augmenter(drops), tokenizers=tokenizers(), languages=[("de", "en")],
    )  # fmt: skip
    found = Counter(src for src, _ in texts(data, np.arange(80)))
    assert "" not in found
    assert {"a", "aa"} <= found.keys()
