"""Which column holds which language; and codes and names of languages."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dragoman import languages
from dragoman.config import CorpusConfig, DataConfig
from dragoman.data.columns import FEWEST, Layout, Wanted, layout, named, sides
from dragoman.data.formats import read_file
from dragoman.data.lines import Pair, Place
from dragoman.data.sources import iter_pairs
from dragoman.errors import DragomanError

GERMAN = [
    "Zwei junge Männer stehen vor dem Haus.",
    "Der Hund läuft über die grüne Wiese.",
    "Eine Frau sitzt auf der Bank und liest ein Buch.",
    "Das kleine Mädchen spielt mit ihrem Ball.",
    "Die Kinder gehen heute nicht in die Schule.",
]
ENGLISH = [
    "Two young men are standing in front of the house.",
    "The dog is running across the green meadow.",
    "A woman is sitting on the bench and reading a book.",
    "The little girl is playing with her ball.",
    "The children are not going to school today.",
]
WANTED = Wanted("de", "en")


def text(count: int, first: Sequence[str] = GERMAN, other: Sequence[str] = ENGLISH) -> list[Pair]:
    """So many sentence pairs, no two of them the same."""
    which = [n % len(GERMAN) for n in range(count)]
    return [(f"{first[k]} {n}", f"{other[k]} {n}") for n, k in enumerate(which)]


def turned(pairs: Sequence[Pair]) -> list[Pair]:
    return [(second, first) for first, second in pairs]


def table(path: Path, rows: Sequence[Sequence[str]], *header: str) -> Path:
    lines = ["\t".join(row) for row in ([header] if header else []) + list(rows)]
    path.write_bytes(("\n".join(lines) + "\n").encode())
    return path


def read(path: Path, wanted: Wanted = WANTED) -> list[Pair]:
    return list(read_file(Place(path), wanted))


def pairs_of(path: Path, src: str = "de", tgt: str = "en", **keys: Any) -> list[Pair]:
    """What a config with this file as its training text reads."""
    corpora = [CorpusConfig(source="files", src=src, tgt=tgt)]
    data = DataConfig(name="files", src=src, tgt=tgt, corpora=corpora, pairs=str(path), **keys)
    return list(iter_pairs(data, corpora[0]))


def refusal(call: Callable[[], object]) -> str:
    """The one line with which `call` is refused."""
    with pytest.raises(DragomanError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def without_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Headers.

HEADERS = [
    ("de", "en"),
    ("DE", "EN"),
    ("de-DE", "en_US"),
    ("de_AT", "en-gb"),
    ("deu", "eng"),
    ("ger", "eng"),
    ("deu_Latn", "eng_Latn"),
    ("German", "English"),
    ("GERMAN", "english"),
    ("Deutsch", "Englisch"),
    ("allemand", "anglais"),
    ("source", "target"),
    ("Source", "TARGET"),
    ("src", "tgt"),
    ("src_text", "tgt_text"),
    (" de ", "en  "),
    ('"de"', '"en"'),
    ("'de'", "'en'"),
]


@pytest.mark.usefixtures("without_warnings")
@pytest.mark.parametrize(("german", "english"), HEADERS)
def test_a_header_is_recognised_in_every_form(tmp_path: Path, german: str, english: str) -> None:
    pairs = text(3)
    path = tmp_path / "pairs"
    assert read(table(path, pairs, german, english)) == pairs
    assert read(table(path, turned(pairs), english, german)) == pairs
    wide = [("7", first, "x", second, "CC-BY") for first, second in pairs]
    assert read(table(path, wide, "id", german, "note", english, "licence")) == pairs
    back = [("7", second, first) for first, second in pairs]
    assert read(table(path, back, "", english, german)) == pairs


@pytest.mark.usefixtures("without_warnings")
def test_a_header_is_believed_whatever_the_text_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "pairs", turned(text(40)), "de", "en")
    assert read(path) == turned(text(40))
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("without_warnings")
@pytest.mark.parametrize(
    ("header", "src", "tgt"),
    [
        (("pt-BR", "pt-PT"), "pt-BR", "pt-PT"),
        (("por_BR", "pt_pt"), "pt-BR", "pt-PT"),
        (("Brazilian Portuguese", "European Portuguese"), "pt-BR", "pt-PT"),
        (("source", "target"), "pt-BR", "pt-PT"),
        (("swa", "eng"), "sw", "en"),
        (("swahili", "en"), "swa", "en"),
        (("zh-TW", "zh-CN"), "zh-TW", "zh-CN"),
        (("jpn", "ENGLISH"), "ja", "en"),
        (("lzh", "zh"), "lzh", "zh"),
    ],
)
def test_headers_of_other_language_pairs(tmp_path: Path, header: Pair, src: str, tgt: str) -> None:
    path = tmp_path / "pairs"
    assert read(table(path, [("a", "b")], *header), Wanted(src, tgt)) == [("a", "b")]
    assert read(path, Wanted(tgt, src)) == ([("b", "a")] if header[0] != "source" else [("a", "b")])


def test_the_target_may_be_named_by_its_longer_code(tmp_path: Path) -> None:
    path = table(tmp_path / "pairs", [("mbwa", "dog")], "swa", "en")
    assert pairs_of(path, "en", "sw") == [("dog", "mbwa")]


@pytest.mark.parametrize(
    ("names", "src", "tgt", "places"),
    [
        (["de", "en"], "de", "en", (0, 1)),
        (["de", "de-AT", "en"], "de", "en", (0, 2)),  # the very code first
        (["de-AT", "de-CH", "en"], "de", "en", None),  # which of the two?
        (["de-AT", "de-CH", "en"], "de-CH", "en", (1, 2)),
        (["pt", "pt-PT"], "pt-BR", "pt-PT", None),
        (["pt-BR", "pt"], "pt-BR", "pt-PT", None),
        (["source", "source"], "de", "en", None),
        (["source", "en"], "de", "en", None),
        (["source", "target", "en", "de"], "de", "en", (3, 2)),
        (["de"], "de", "en", None),
        (["", ""], "de", "en", None),
        ([], "de", "en", None),
        ([3, None, "en", "de"], "de", "en", (3, 2)),
        (["ein Hund", "a dog"], "de", "en", None),
    ],
)
def test_sides(names: list[object], src: str, tgt: str, places: tuple[int, int] | None) -> None:
    assert sides(names, Wanted(src, tgt)) == places


@pytest.mark.parametrize("header", [("de", "fr"), ("fr", "en"), ("en", "fr"), ("en", "en")])
def test_a_header_with_one_of_the_languages_is_refused(tmp_path: Path, header: Pair) -> None:
    path = table(tmp_path / "pairs", text(3), *header)
    assert refusal(lambda: read(path)) == (
        f"{path}: line 1: the header names the languages '{header[0]}' and '{header[1]}', "
        "expected 'de' and 'en'"
    )


@pytest.mark.parametrize("header", [("fr", "cs"), ("French", "Czech"), ("fra", "ces")])
def test_a_header_of_none_of_the_languages_is_asked_about(tmp_path: Path, header: Pair) -> None:
    path = table(tmp_path / "pairs", text(3), *header)
    with pytest.warns(UserWarning, match="are taken for a sentence pair") as caught:
        assert read(path) == [header, *text(3)]
    assert [str(warning.message) for warning in caught] == [
        f"{path}: line 1: '{header[0]}' and '{header[1]}' are taken for a sentence pair, not for "
        "a header, which would be 'de' and 'en'"
    ]


@pytest.mark.usefixtures("without_warnings")
@pytest.mark.parametrize("first", [("Hallo!", "Hi."), ("", ""), ("7", "7")])
def test_a_first_pair_is_no_header(tmp_path: Path, first: Pair) -> None:
    assert read(table(tmp_path / "pairs", [first, *text(3)])) == [first, *text(3)]


# Columns named by the user.


@pytest.mark.usefixtures("without_warnings")
@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (["de", "en"], ("Satz", "line")),
        (["en", "de"], ("line", "Satz")),
        (["_", "en", "de"], ("7", "line", "Satz")),
        (["id", "German", "note", "English"], ("7", "Satz", "x", "line")),
        (["target", "source"], ("line", "Satz")),
        (["eng", "deu", "_"], ("line", "Satz", "x", "y")),
    ],
)
def test_columns_are_what_the_user_calls_them(
    tmp_path: Path, columns: list[str], row: tuple[str, ...]
) -> None:
    path = table(tmp_path / "pairs", [row] * 3)
    assert read(path, Wanted("de", "en", columns)) == [("Satz", "line")] * 3
    assert pairs_of(path, columns=columns) == [("Satz", "line")] * 3
    if "source" not in columns:
        assert pairs_of(path, "en", "de", columns=columns) == [("line", "Satz")] * 3


@pytest.mark.usefixtures("without_warnings")
@pytest.mark.parametrize(
    "columns", [["german_text", "english_text"], ["sentence1", "sentence2"], ["q", "a"]]
)
def test_two_columns_of_a_header_chosen_by_name(tmp_path: Path, columns: list[str]) -> None:
    rows = [("7", second, "x", first) for first, second in text(3)]
    path = table(tmp_path / "pairs", rows, "id", columns[1], "note", columns[0])
    assert read(path, Wanted("de", "en", columns)) == text(3)
    assert pairs_of(path, columns=columns) == text(3)
    assert named(["id", *columns], Wanted("de", "en", columns)) == (1, 2)


@pytest.mark.usefixtures("without_warnings")
def test_a_header_is_taken_before_the_columns_that_are_named(tmp_path: Path) -> None:
    path = table(tmp_path / "pairs", turned(text(3)), "en", "de")
    assert read(path, Wanted("de", "en", ["de", "en"])) == text(3)


def test_columns_that_do_not_tell_the_languages_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "pairs", text(3))
    assert refusal(lambda: read(path, Wanted("de", "en", ["left", "right"]))) == (
        f"{path}: line 1 is no header with data.columns=left or right, and these do not tell which "
        "column is de and which en"
    )


def test_a_named_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "pairs", text(3))
    message = refusal(lambda: read(path, Wanted("de", "en", ["_", "de", "en"])))
    assert message == f"{path}: line 1: 2 columns, expected at least 3"


# Told from the text.


@pytest.mark.usefixtures("without_warnings")
@pytest.mark.parametrize("count", [FEWEST, 300])
@pytest.mark.parametrize("swapped", [False, True])
def test_the_direction_is_told_from_the_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int, swapped: bool
) -> None:
    pairs = text(count)
    path = table(tmp_path / "pairs.tsv", turned(pairs) if swapped else pairs)
    assert read(path) == pairs
    assert read(path) == pairs  # said once
    assert pairs_of(path) == pairs
    names = ("English", "German") if swapped else ("German", "English")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"{path}: column 1 is {names[0]}, column 2 is {names[1]} (")
    assert said.endswith(f"% of {count} lines)\n")
    assert read(path, Wanted("en", "de")) == turned(pairs)


@pytest.mark.parametrize("swapped", [False, True])
def test_fewer_than_twenty_lines_stay_in_order_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], swapped: bool
) -> None:
    rows = turned(text(FEWEST - 1)) if swapped else text(FEWEST - 1)
    path = table(tmp_path / "pairs", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path) == rows
        assert pairs_of(path) == rows
        assert pairs_of(path, "en", "de") == rows
    assert capsys.readouterr().err == ""


def test_the_order_that_is_known_holds_where_the_text_is_short(tmp_path: Path) -> None:
    """As for the reversed corpus of a mixture: the columns are those of the pair validated."""
    path = table(tmp_path / "pairs", text(3))
    assert read(path, Wanted("en", "de", None, ("de", "en"))) == turned(text(3))
    assert read(path, Wanted("de", "en", None, ("de", "en"))) == text(3)


@pytest.mark.parametrize(("src", "tgt"), [("lzh", "zh"), ("zh", "lzh"), ("pt-BR", "pt-PT")])
def test_languages_that_cannot_be_told_apart_stay_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], src: str, tgt: str
) -> None:
    rows = [(f"学而时习之 {n}", f"学了又时常温习 {n}") for n in range(50)]
    path = table(tmp_path / "pairs", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pairs_of(path, src, tgt) == rows
    assert capsys.readouterr().err == ""


def test_text_that_does_not_tell_is_asked_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = text(20) + turned(text(20))
    path = table(tmp_path / "pairs", rows)
    with pytest.warns(UserWarning, match="the text does not tell the languages of the columns"):
        assert read(path) == rows
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("without_warnings")
def test_lines_that_are_the_same_on_both_sides_tell_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = turned(text(FEWEST - 1)) + [(f"OK {n}", f"OK {n}") for n in range(50)]
    assert read(table(tmp_path / "pairs", rows)) == rows
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("without_warnings")
def test_a_packed_file_is_told_as_any_other(tmp_path: Path) -> None:
    path = table(tmp_path / "pairs", turned(text(30)))
    packed = tmp_path / "pairs.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert pairs_of(packed) == text(30)


@pytest.mark.parametrize("columns", [["de", "en"], ["German", "English"], ["source", "target"]])
def test_columns_against_the_text_are_refused(tmp_path: Path, columns: list[str]) -> None:
    path = table(tmp_path / "pairs", turned(text(40)))
    message = refusal(lambda: pairs_of(path, columns=columns))
    assert message.startswith(f"{path}: column 1 looks like English, ")
    assert message.endswith(f" % of 40 lines, not de: columns swapped? (data.columns={columns})")
    wide = table(tmp_path / "wide", [("7", *row) for row in turned(text(40))])
    message = refusal(lambda: pairs_of(wide, columns=["_", *columns]))
    assert message.startswith(f"{wide}: column 2 looks like English, ")


@pytest.mark.usefixtures("without_warnings")
def test_columns_that_the_text_bears_out_are_taken_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path / "pairs", turned(text(40)))
    assert pairs_of(path, columns=["en", "de"]) == text(40)
    mixed = text(20) + turned(text(20))
    assert pairs_of(table(path, mixed), columns=["de", "en"]) == mixed
    assert capsys.readouterr().err == ""


def test_a_layout_counts_the_header() -> None:
    assert layout([["en", "de"], ["a", "b"]], WANTED, "here") == Layout(1, 0, header=True)
    assert layout([["a", "b"]], WANTED, "here") == Layout(0, 1)
    assert layout([["x", "a", "b"]], Wanted("de", "en", ["_", "en", "de"]), "here") == Layout(2, 1)


# Codes and names.


@pytest.mark.parametrize(
    ("code", "base", "full", "name", "script", "spaceless"),
    [
        ("de", "de", "de", "German", "Latn", False),
        ("deu", "de", "de", "German", "Latn", False),
        ("EN-us", "en", "en-US", "English (United States)", "Latn", False),
        ("eng_Latn", "en", "en", "English", "Latn", False),
        ("por_br", "pt", "pt-BR", "Portuguese (Brazil)", "Latn", False),
        ("swa", "sw", "sw", "Swahili", "Latn", False),
        ("ru", "ru", "ru", "Russian", "Cyrl", False),
        ("ar", "ar", "ar", "Arabic", "Arab", False),
        ("hi", "hi", "hi", "Hindi", "Deva", False),
        ("ko", "ko", "ko", "Korean", "Kore", False),
        ("jpn", "ja", "ja", "Japanese", "Jpan", True),
        ("zh", "zh", "zh", "Chinese", "Hans", True),
        ("zh_TW", "zh", "zh-TW", "Chinese (Taiwan)", "Hant", True),
        ("lzh", "lzh", "lzh", "Literary Chinese", None, True),
        ("tha", "th", "th", "Thai", "Thai", True),
        ("zz zz", "zz zz", "zz zz", "zz zz", None, False),
        ("klingonish", "klingonish", "klingonish", "klingonish", None, False),
        ("", "", "", "", None, False),
    ],
)
def test_codes_of_languages(
    code: str, base: str, full: str, name: str, script: str | None, spaceless: bool
) -> None:
    assert languages.base(code) == base
    assert languages.full(code) == full
    assert languages.name(code) == name
    assert script is None or languages.script(code) == script
    assert languages.is_spaceless(code) is spaceless


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("de", "de"),
        ("DEU", "de"),
        ("de_at", "de-AT"),
        ("German", "de"),
        (" deutsch ", "de"),
        ("allemand", "de"),
        ("français", "fr"),
        ("Kiswahili", "sw"),
        ("Brazilian Portuguese", "pt-BR"),
        ("swa", "sw"),
        ("Hallo", None),
        ("Zwei Hunde", None),
        ("source", None),
        ("_", None),
        ("", None),
        ("q!", None),
    ],
)
def test_what_a_heading_means(word: str, code: str | None) -> None:
    assert languages.meant(word) == code
