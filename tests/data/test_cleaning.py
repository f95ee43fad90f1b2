"""Text as it should be, what each rule takes out, and what becomes of a corpus."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.config import CleanConfig
from dragoman.data.cleaning import RULES, Facts, chosen, normal_form, normalise_text
from dragoman.data.store import EXAMPLES, Text, hash_of, read_text

FAMILY = "👨\u200d👩\u200d👧"
UNSEEN = "\u00ad\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2069\ufeff"

# Characters, not bytes.


@pytest.mark.parametrize("unseen", UNSEEN)
def test_what_nobody_sees_vanishes(unseen: str) -> None:
    assert normalise_text(f"{unseen}Größe{unseen}n mes{unseen}sen{unseen}") == "Größen messen"
    assert normalise_text(f"plain{unseen}") == "plain"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Ma\u0308dchen", "M\u00e4dchen"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("\u212b", "\u00c5"),
        ("m\u0323\u0307 \ufb01n\u00b2", "\u1e43\u0307 \ufb01n\u00b2"),  # NFC, not NFKC
        ("می\u200cخواهم", "می\u200cخواهم"),
        (f"Das ist {FAMILY}.", f"Das ist {FAMILY}."),
        ("\u200cمی\u200cخواهم\u200c \u200dx", "می\u200cخواهم x"),
        ("ن\u200d\u200c\nن", "ن\nن"),
        (" ein\u00a0 Hund\t\u3000\r\n", " ein\u00a0 Hund\t\u3000\r\n"),
        ("\u200b", ""),
        ("", ""),
    ],
)
def test_normalised_text(text: str, normal: str) -> None:
    assert normalise_text(text) == normal


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_stays_as_it_is(text: str) -> None:
    assert normalise_text(text) == text


@given(
    st.text(st.characters(exclude_characters=UNSEEN, exclude_categories=["Cs"]))
    | st.text(st.sampled_from(f"a é ß 漢 \u200c\u200d\u0308\n{FAMILY}"))
    | st.text(st.sampled_from(f"aé ß漢한.\n{UNSEEN}"))
)
def test_normal_text_stays_as_it_is(text: str) -> None:
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert unicodedata.is_normalized("NFC", once)


# What is compared.


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Hello, World!", "helloworld"),
        ("Ｈｅｌｌｏ", "hello"),
        ("«Straße» – 2 $", "strasse2"),
        ("Don\u2019t", "dont"),
        ("M\u0061\u0308dchen", "m\u00e4dchen"),
        ("ﬁn ½", "fin12"),
        ("Σίσυφος", "σίσυφοσ"),
        ("क्या हाल है?", "क्याहालहै"),
        ("ไม่เป็นไร", "ไม่เป็นไร"),
        ("می\u200cخواهم", "میخواهم"),
        (" ?! ", "?!"),
        ("...", "..."),
        ("\U0001f642", "\U0001f642"),
        (" ", ""),
        ("", ""),
    ],
)
def test_normal_form(text: str, form: str) -> None:
    assert normal_form(text) == form


@pytest.mark.parametrize(
    ("one", "other"),
    [("की", "का"), ("कि", "क"), ("ไม่", "ไม"), ("schon", "schön"), ("1", "2"), ("...", "!")],
)
def test_sentences_that_are_not_the_same(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


# Rules: a key, its value, languages, and pairs that are taken out and kept.

GERMAN = "Ein kleiner Hund läuft durch den Park und spielt."
ENGLISH = "A small dog runs through the park and plays."
JAPANESE = "小さな犬が公園を走り回って遊んでいます"
Cases = list[tuple[str, Any, str, list[tuple[str, str]], list[tuple[str, str]]]]
CASES: Cases = [
    (
        "empty",
        True,
        "de-en",
        [("", "a"), ("a", ""), (" \t", "a"), ("a", "\u3000\u00a0"), ("", "")],
        [("a", "b"), (" a", "."), ("0", "0")],
    ),
    (
        "max_characters",
        10,
        "de-en",
        [("a" * 11, "b"), ("a", "b" * 11), ("ä b " * 3, "a")],
        [("ä" * 10, "b" * 10), ("", ""), ("\U0001f642" * 10, "a")],
    ),
    (
        "length_ratio",
        3.0,
        "de-en",
        [("ein", "a b c d"), ("a b c d e f g", "zwei\u00a0Wörter")],
        [("ein", "a b c"), ("a  b\tc", "ein"), ("", "a b c d"), ("lang" * 20, "a")],
    ),
    (
        "length_ratio",
        3.0,
        "ja-en",
        [("犬", "dogs"), ("a" * 31, "今日は良い天気です。")],
        [("今日は良い天気です", "The weather is very nice."), ("", "a" * 40)],
    ),
    (
        "identical",
        True,
        "de-en",
        [("Berlin", "Berlin."), ("HALLO, Welt", "hallo welt!"), ("...", " ..."), ("", "")],
        [("Hallo", "Hello"), ("...", "!"), ("a b", "b a")],
    ),
    (
        "digits",
        True,
        "de-en",
        [("5 Leute", "6 people"), ("5 Leute", "five people"), ("1", "11"), ("1", "²")],
        [
            ("1,000 Euro", "1.000 euros"),
            ("12 und 3", "3 and 12"),
            ("५ लोग", "5 people"),
            ("في ٢٠٢٤", "in 2024"),
            ("２０人", "20 people"),
            ("kein", "none"),
        ],
    ),
    (
        "markup",
        True,
        "de-en",
        [
            ("<br/>", "Hello"),
            ("Hallo", '<a href="x">'),
            ("&nbsp;", "Hello"),
            ("&lt;p&gt;&lt;/p&gt;", "Hello"),
            ("https://example.org/a?b=1", "Hello"),
            ("Hallo", "<b>www.example.org</b>"),
            ("me@example.org", "Hello"),
            ("%s", "Hello"),
            ("{name}: %1$d", "Hello"),
        ],
        [
            ("<b>Hallo</b>", "<i>Hello</i>"),
            ("Siehe www.example.org", "See https://example.org"),
            ("%d Dateien", "{n} files"),
            ("5 < 6", "6 > 5"),
            ("नमस्ते &amp; 7", "hello & 7"),
        ],
    ),
    (
        "script",
        True,
        "ja-en",
        [("kanojo wa utau", "she sings"), ("うた", "歌う"), ("Привет", "hello"), ("안녕", "hello")],
        [
            ("彼女はコーヒーを飲む", "she drinks coffee"),
            ("東京大学", "Tokyo"),
            ("テレビ", "TV"),
            ("犬とCD", "a CD"),
            ("123 !", "123 !"),
            ("", ""),
        ],
    ),
    ("script", True, "zh-ko", [("ありがとう", "감사"), ("谢谢", "ありがとう")], [("谢谢", "감사")]),
    ("script", True, "zh-TW-ja", [("xiexie", "感謝")], [("謝謝", "感謝"), ("謝謝", "ありがと")]),
    ("script", True, "ko-en", [("annyeong", "hello")], [("안녕", "hello"), ("大韓民國", "Korea")]),
    (
        "script",
        True,
        "el-ru",
        [("Kalimera", "Привет"), ("Καλημέρα", "Privet"), ("Привет", "Καλημέρα")],
        [("Καλημέρα", "Привет"), ("Η PHP είναι", "Я люблю Python"), ("Ἀθῆναι", "Афины")],
    ),
    ("script", True, "hi-th", [("namaste", "ไม่"), ("ไม่", "नमस्ते")], [("क्या हाल है?", "ไม่เป็นไร")]),
    ("script", True, "no code-en", [("a", "привет")], [("Привет", "hello"), ("いろ", "hi")]),
    (
        "language",
        True,
        "de-en",
        [(ENGLISH, GERMAN), (GERMAN, GERMAN), (ENGLISH, ENGLISH)],
        [(GERMAN, ENGLISH), ("a small black dog", "ein kleiner Hund läuft"), ("", "")],
    ),
    ("language", True, "de-DE-en", [(ENGLISH, "x")], [(GERMAN, "x")]),
    (
        "language",
        True,
        "ja-en",
        [("这是一个非常普通的中文句子没有别的意思", "x"), (JAPANESE, GERMAN)],
        [(JAPANESE, ENGLISH), ("这是一个普通的句子", "x"), ("犬", "ein Hund läuft")],
    ),
    ("language", True, "qaa-en", [(GERMAN, GERMAN)], [(GERMAN, ENGLISH), (JAPANESE, "x")]),
]
JUDGED = [
    (name, value, languages, src, tgt, out)
    for name, value, languages, outs, keeps in CASES
    for out, pairs in ((True, outs), (False, keeps))
    for src, tgt in pairs
]


def facts(languages: str = "de-en", **keys: Any) -> Facts:
    src, _, tgt = languages.rpartition("-")
    return Facts(CleanConfig(**keys), src, tgt)


@pytest.mark.parametrize(("name", "value", "languages", "src", "tgt", "out"), JUDGED)
def test_what_a_rule_takes_out(
    name: str, value: Any, languages: str, src: str, tgt: str, out: bool
) -> None:
    assert RULES[name](src, tgt, facts(languages, **{name: value})) is out


def test_every_rule_is_tested() -> None:
    assert {name for name, *_ in JUDGED} == set(RULES)


def test_rules_are_off_until_a_key_turns_them_on() -> None:
    assert chosen(CleanConfig()) == {}
    for name, value, *_ in CASES:
        assert list(chosen(CleanConfig(**{name: value}))) == [name]
    # In the order of the table, however the keys are written.
    assert list(chosen(CleanConfig(digits=True, length_ratio=2, empty=True))) == [
        "empty",
        "length_ratio",
        "digits",
    ]


# A corpus.

ROWS: list[tuple[str, str, str]] = [
    ("Ein Hund.", "A dog.", "kept"),
    ("", "Nothing.", "empty"),
    ("Ein\u200b Ma\u0308dchen.", "A girl.", "kept"),
    ("Ein Mädchen.", "A girl.", "exact"),
    ("ein hund", "a dog!", "normalised"),
    ("Ein Hund.", "One dog.", "kept"),
    ("lang " * 13, "long " * 13, "max_characters"),
    ("Ja.", "Yes I do think so.", "length_ratio"),
    ("\u200b\u2060", "Unseen.", "empty"),
    ("Zwei\nZeilen\r\nhier\u2028!", f"Two\nlines \U0001f642 {FAMILY}", "kept"),
    ("5 Hunde", "6 dogs", "digits"),
    ("Ein Hund.", "A dog.", "exact"),
    ("7 Hunde", "seven dogs", "digits"),
    ("<br>", "<br>", "markup"),
    ("8 Hunde", "no dogs", "digits"),
    ("1 Hund", "2 dogs", "digits"),
    ("Tab\there", "می\u200cخواهم", "kept"),
    (" ", "3", "empty"),
    ("EIN MÄDCHEN", "A Girl", "normalised"),
    ("x" * 60, "y" * 60, "kept"),
]
SEVERAL: dict[str, Any] = {
    "normalise": True,
    "empty": True,
    "max_characters": 60,
    "length_ratio": 4.0,
    "digits": True,
    "markup": True,
}
NAMES = ["empty", "max_characters", "length_ratio", "digits", "markup"]


def cleaned(folder: Path, rules: Facts) -> Text:
    return read_text(folder, "corpus", lambda: (row[:2] for row in ROWS), rules)


def lines_of(text: Text) -> list[tuple[str, str]]:
    numbers = np.arange(len(text))
    return list(zip(*(side.lines(numbers) for side in text.sides), strict=True))


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("duplicates", ["none", "exact", "normalised"])
def test_what_becomes_of_a_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, duplicates: str, size: int
) -> None:
    monkeypatch.setattr("dragoman.data.store.ROWS", size)
    rules = facts(**SEVERAL, duplicates=duplicates)
    text = cleaned(tmp_path, rules)
    fates = [fate for *_, fate in ROWS]
    assert text.verdicts.tolist() == [1 + NAMES.index(f) if f in NAMES else 0 for f in fates]
    left = [row for row in ROWS if row[2] not in NAMES]
    assert lines_of(text) == [(normalise_text(src), normalise_text(tgt)) for src, tgt, _ in left]
    again = {"none": (), "exact": ("exact",), "normalised": ("exact", "normalised")}[duplicates]
    assert text.duplicates.tolist() == [fate in again for *_, fate in left]
    assert text.taken(rules) == {
        **{name: fates.count(name) for name in NAMES},
        "duplicates": sum(map(fates.count, again)),
    }
    for side, keys in enumerate(text.keys):
        forms = [normal_form(normalise_text(row[side])) for row in left]
        assert keys.tolist() == [hash_of(form) for form in forms]
    shown = {
        name: [[normalise_text(side) for side in row[:2]] for row in ROWS if row[2] == name]
        for name in NAMES
    }
    twice = [
        (src, tgt)
        for (src, tgt), fate in zip(lines_of(text), [r[2] for r in left], strict=True)
        if fate in again
    ]
    found = text.examples()
    assert found.pop("duplicates", []) == twice[:EXAMPLES]
    assert found == {name: rows[:EXAMPLES] for name, rows in shown.items()}
    assert len(shown["digits"]) > EXAMPLES


def test_the_size_of_parts_changes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for size in (3, 7, 1000):
        monkeypatch.setattr("dragoman.data.store.ROWS", size)
        folder = cleaned(tmp_path / str(size), facts(**SEVERAL, duplicates="exact")).folder
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert not list(folder.parent.glob("*.parts"))
    assert found[0] == found[1] == found[2]


def test_nothing_is_taken_out_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragoman.data.store.ROWS", 3)
    text = cleaned(tmp_path, facts())
    assert lines_of(text) == [row[:2] for row in ROWS]  # also what nobody sees
    assert not text.verdicts.any()
    assert not text.duplicates.any()
    assert text.taken(facts()) == {"duplicates": 0}
    assert text.examples() == {"duplicates": []}


def test_a_rule_changed_is_a_text_of_its_own(tmp_path: Path) -> None:
    one = cleaned(tmp_path, facts(empty=True))
    assert cleaned(tmp_path, facts(empty=True, leaks="drop")).folder == one.folder
    others = [facts(), facts("de-fr", empty=True), facts(empty=True, digits=True)]
    folders = {one.folder, *(cleaned(tmp_path, other).folder for other in others)}
    assert len(folders) == 4


@pytest.mark.parametrize("pairs", [[], [("", ""), (" ", "x")]])
def test_a_corpus_of_which_nothing_is_left(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    rules = facts(empty=True, duplicates="normalised")
    text = read_text(tmp_path, "corpus", lambda: pairs, rules)
    assert len(text) == 0
    assert lines_of(text) == []
    assert text.taken(rules) == {"empty": len(pairs), "duplicates": 0}
