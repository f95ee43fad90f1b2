"""The robustness sheet: what becomes of a split, and that each form is scored as it should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU

from dragoman.config import Config, DataConfig, DecodeConfig
from dragoman.evaluation.evaluate import Evaluation, evaluate
from dragoman.evaluation.robustness import VARIANTS, format_robustness, robustness

PAIRS = [
    ("Ein Mädchen geht auf der Straße.", "A girl walks on the street."),
    ("Wer ist dieser Mann da drüben?", "Who is that man over there?"),
    ("Zwei braune Hunde laufen über die Wiese.", "Two brown dogs run over the meadow."),
]
BOTH = ("de", "en")


def varied(name: str) -> list[tuple[str, str]]:
    return VARIANTS[name](PAIRS, BOTH)


def test_references_follow_the_case() -> None:
    assert varied("ALL CAPS")[0] == (
        "EIN MÄDCHEN GEHT AUF DER STRASSE.", "A GIRL WALKS ON THE STREET.",
    )  # fmt: skip
    assert varied("Title Case")[1] == (
        "Wer Ist Dieser Mann Da Drüben?", "Who Is That Man Over There?",
    )  # fmt: skip
    assert varied("lower case")[2][0].islower()
    assert varied("lower case")[2][1] == PAIRS[2][1].lower()


def test_references_stay_where_only_the_source_is_spoilt() -> None:
    for name in VARIANTS:
        if name.startswith(("no end", "typos", "accents")):
            assert [ref for _, ref in varied(name)] == [ref for _, ref in PAIRS]
            assert varied(name) != PAIRS
    assert varied("no end marks")[1][0] == "Wer ist dieser Mann da drüben"
    decomposed = varied("accents as characters of their own (NFD)")[0][0]
    assert decomposed == "Ein Ma\u0308dchen geht auf der Straße."


def test_typos_are_seeded_and_as_many_as_said() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz" * 40
    for rate, name in ((0.02, "typos, 2 % of the letters"), (0.05, "typos, 5 % of the letters")):
        found = VARIANTS[name]([(letters, "x")] * 20, BOTH)
        assert found == VARIANTS[name]([(letters, "x")] * 20, BOTH)
        assert len(set(found)) == 20
        # A quarter of the typos drops a letter, a quarter doubles one.
        both = [abs(len(src) - len(letters)) for src, _ in found]
        assert max(both) < 4 * (rate * len(letters) / 2) ** 0.5


def test_two_lines_become_one_and_the_odd_one_stays() -> None:
    assert varied("two sentences a line") == [
        tuple(f"{one} {two}" for one, two in zip(PAIRS[0], PAIRS[1], strict=True)),
        PAIRS[2],
    ]
    assert VARIANTS["two sentences a line"]([("犬。", "A."), ("猫。", "B.")], ("ja", "en")) == [
        ("犬。猫。", "A. B.")
    ]


def test_an_emoji_belongs_to_the_translation() -> None:
    for (src, ref), (before_src, before_ref) in zip(
        varied("an emoji at the end"), PAIRS, strict=True
    ):
        assert src[:-2] == before_src
        assert ref == f"{before_ref} {src[-1]}"


class Parrot:
    """Knows the pairs by heart, and says nothing to all else."""

    config = Config(data=DataConfig(src="de", tgt="en"))

    def __init__(self) -> None:
        self.asked: list[str] = []

    def translate_lines(self, lines: Sequence[str], decode: DecodeConfig, **_: Any) -> Any:
        assert decode.split == "never"
        self.asked += lines
        known = dict(PAIRS)
        return [[Text(known.get(line, ""))] for line in lines]

    def remarks(self) -> list[str]:
        return []


class Text:
    def __init__(self, text: str) -> None:
        self.text = text


def parroted(pairs: list[tuple[str, str]]) -> tuple[Parrot, Evaluation]:
    parrot: Any = Parrot()
    sources, references = zip(*pairs, strict=True)
    return parrot, evaluate(parrot, sources, references, DecodeConfig())


def test_every_form_is_scored_beside_the_clean_text() -> None:
    parrot, done = parroted(PAIRS)
    rows = robustness(parrot, done)  # type: ignore[arg-type]
    assert [row["text"] for row in rows] == ["as it is", *VARIANTS]
    assert [row["lines"] for row in rows] == [0, 3, 3, 3, 3, *(row["lines"] for row in rows[5:7]),
                                              3, 1, 3]  # fmt: skip
    assert rows[0]["score"] == pytest.approx(100)
    assert rows[0]["kept"] == 1
    by_name = {row["text"]: row for row in rows}
    assert by_name["ALL CAPS"]["score"] == by_name["ALL CAPS"]["kept"] == 0
    # One line of the two is known: the odd one.
    joined = by_name["two sentences a line"]
    references = [ref for _, ref in VARIANTS["two sentences a line"](PAIRS, BOTH)]
    expected = BLEU().corpus_score(["", PAIRS[2][1]], [references]).score
    assert joined["score"] == pytest.approx(expected, abs=1e-3)
    assert joined["kept"] == pytest.approx(expected / 100, abs=1e-4)
    assert joined["interval"][0] <= joined["score"] <= joined["interval"][1]


def test_a_form_that_changes_nothing_is_not_translated() -> None:
    pairs = [("12", "twelve is the number here"), ("34", "another number stands here now")]
    parrot, done = parroted(pairs)
    before = len(parrot.asked)
    rows = {row["text"]: row for row in robustness(parrot, done)}  # type: ignore[arg-type]
    asked = parrot.asked[before:]
    assert rows["ALL CAPS"]["lines"] == rows["no end marks"]["lines"] == 0
    assert rows["ALL CAPS"]["score"] == done.bleu.score == 0
    assert rows["ALL CAPS"]["kept"] is None
    assert len(asked) == 3  # one joined line, two with an emoji


def test_the_sheet_is_a_table() -> None:
    rows = [
        {"text": "as it is", "lines": 0, "score": 40.0, "interval": (38.0, 42.0), "kept": 1.0},
        {"text": "ALL CAPS", "lines": 1000, "score": 36.0, "interval": (34.0, 38.0), "kept": 0.9},
        {"text": "nothing", "lines": 0, "score": 0.0, "interval": (0.0, 0.0), "kept": None},
    ]
    assert format_robustness(rows).splitlines() == [
        "input     lines changed   BLEU   95 % interval   drop     kept",
        "as it is              0  40.00  [38.00, 42.00]   0.00  100.0 %",
        "ALL CAPS          1,000  36.00  [34.00, 38.00]   4.00   90.0 %",
        "nothing               0   0.00    [0.00, 0.00]  40.00        -",
    ]
