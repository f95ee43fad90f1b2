"""Lines in parts, and together again."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.decoding.sentences import joined, parts_of, sentences, usual_count


def short(most: int) -> object:
    return lambda text: len(text.split()) <= most


@given(
    st.text("ab .,;!?。，Dr\n\u0301語 ", max_size=60),
    st.integers(1, 5),
    st.sampled_from([1, 2, math.inf]),
    st.sampled_from(["de", "zh", "th", "xx"]),
)
@settings(max_examples=300, deadline=None)
def test_parts_are_the_line_and_fit(line: str, most: int, count: float, language: str) -> None:
    parts = parts_of(line, language, count, lambda text: len(text) <= most)
    assert "".join(parts) == line
    assert all(len(part) <= most for part in parts)
    assert joined(parts, [part.strip() for part in parts], "de", "en") == line.strip()


@pytest.mark.parametrize(
    ("line", "language", "expected"),
    [
        ("Dr. Smith went home.  He slept.", "en", ["Dr. Smith went home.  ", "He slept."]),
        ("Das ist z. B. gut. Ja!", "de-DE", ["Das ist z. B. gut. ", "Ja!"]),
        ("你好。今天天气很好！", "zh-TW", ["你好。", "今天天气很好！"]),
        ("子曰。學而。", "lzh", ["子曰。", "學而。"]),
        ("", "en", [""]),
    ],
)
def test_sentences(line: str, language: str, expected: list[str]) -> None:
    assert (sentences(line, language) or [""]) == expected


@pytest.mark.parametrize(
    ("line", "most", "expected"),
    [
        ("one two. three four.", 9, ["one two. three four."]),
        ("one two. three four.", 3, ["one two. ", "three four."]),
        ("a b c, d e f g", 4, ["a b c, ", "d e f g"]),  # at the clause, not in the middle
        ("a b c d e f", 3, ["a b c ", "d e f"]),
    ],
)
def test_a_line_is_cut_at_the_best_place(line: str, most: int, expected: list[str]) -> None:
    assert parts_of(line, "en", math.inf, short(most)) == expected  # type: ignore[arg-type]


def test_a_line_of_more_sentences_than_usual_is_split() -> None:
    line = "One. Two. Three."
    assert len(parts_of(line, "en", 2, short(99))) == 3  # type: ignore[arg-type]
    assert parts_of(line, "en", 3, short(99)) == [line]  # type: ignore[arg-type]


def test_spaces_between_parts_suit_the_target() -> None:
    chinese, english = ["你好。", "再见。"], ["Hello. ", "Bye."]
    assert joined(chinese, ["Hello.", "Bye."], "zh", "en") == "Hello. Bye."
    assert joined(english, ["你好。", "再见。"], "en", "zh") == "你好。再见。"
    assert joined(["Hallo.\t ", "Bis dann."], ["Hello.", "Bye."], "de", "en") == "Hello.\t Bye."
    assert (
        joined(chinese, ["こんにちは。", "さようなら。"], "zh", "ja") == "こんにちは。さようなら。"
    )


def test_usual_is_what_99_of_100_lines_have() -> None:
    lines = ["One."] * 99 + ["One. Two. Three."]
    assert usual_count(lines, "en") == 1
    assert usual_count([*lines[1:], "One. Two."], "en") == 2
    assert usual_count([], "en") == 1
