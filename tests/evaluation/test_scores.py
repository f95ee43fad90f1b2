from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS, one_line
from dragoman.evaluation.scores import (
    format_scores,
    read_evaluated,
    read_hypotheses,
    score,
    write_scores,
)

REFERENCES = [
    "Ein Mann mit einem roten Hut liest eine Zeitung.",
    "Zwei Hunde laufen über das Gras.",
    "Eine Frau steht vor dem Haus.",
    "Das Kind schläft.",
]
HYPOTHESES = [
    "Ein Mann mit rotem Hut liest eine Zeitung.",
    "Zwei Hunde rennen über das Gras.",
    "Eine Frau steht vor dem Haus.",
    "",
]


def test_score_has_every_metric_with_signature_and_interval() -> None:
    scores = score(HYPOTHESES, REFERENCES, "de")
    assert (
        list(scores)
        == list(METRICS)
        == ["bleu", "bleu_lc", "bleu_lc_tok", "chrf", "ter", "chrf_pp"]
    )
    for name, entry in scores.items():
        result = METRICS[name](HYPOTHESES, REFERENCES, "de")
        assert entry.score == pytest.approx(result.score, abs=5e-5)
        assert entry.score == round(entry.score, 4)
        assert entry.signature == result.signature
        low, high = entry.interval
        assert low <= entry.score <= high
        assert bool(entry.preprocessing) == (name == "bleu_lc_tok")
    assert "tok:13a" in scores["bleu"].signature
    assert "case:lc" in scores["bleu_lc"].signature
    assert "tok:none" in scores["bleu_lc_tok"].signature


def test_score_refuses_unequal_counts() -> None:
    with pytest.raises(DragomanError, match=r"1 hypotheses .* 4 references"):
        score(["x"], REFERENCES, "de")


def written(folder: Path, hypotheses: list[str]) -> Path:
    scores = score(HYPOTHESES, REFERENCES, "de")
    decoding, counts = {"method": "beam", "beam_size": 5}, {"sentences": 4}
    return write_scores(folder, "val", hypotheses, scores, decoding, counts)


def test_scores_file_holds_scores_decoding_and_counts(tmp_path: Path) -> None:
    path = written(tmp_path, HYPOTHESES)
    assert path == tmp_path / "scores.val.json"
    read = json.loads(path.read_text(encoding="utf-8"))
    for name, entry in score(HYPOTHESES, REFERENCES, "de").items():
        assert read[name]["score"] == entry.score
        assert tuple(read[name]["interval"]) == entry.interval
        assert read[name].get("preprocessing", "") == entry.preprocessing
    assert read["decoding"] == {"method": "beam", "beam_size": 5}
    assert read["counts"]["sentences"] == 4
    assert read["bootstrap"]["samples"] == 1000
    there = {p.name for p in tmp_path.iterdir()}
    assert there == {path.name, "hypotheses.val.txt"}  # no temporary file is left


def test_hypotheses_file_has_one_line_per_source_line(tmp_path: Path) -> None:
    written(tmp_path, ["Zwei\nZeilen", "", "a\r\nb", "ein\u2028Satz", "é"])
    path = tmp_path / "hypotheses.val.txt"
    assert path.read_bytes() == "Zwei Zeilen\n\na b\nein\u2028Satz\né\n".encode()
    assert read_hypotheses(path) == ["Zwei Zeilen", "", "a b", "ein\u2028Satz", "é"]


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_hypotheses_survive_the_file(
    tmp_path_factory: pytest.TempPathFactory, hypotheses: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    write_scores(folder, "property", hypotheses, {}, {}, {})
    read = read_evaluated(folder, "property", "run", len(hypotheses)).hypotheses
    assert read == [one_line(hypothesis) for hypothesis in hypotheses]


def test_translations_that_were_not_scored_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, HYPOTHESES)
    scores = path.read_bytes()
    assert read_evaluated(tmp_path, "val", "run", 4).hypotheses == HYPOTHESES
    written(tmp_path, REFERENCES)  # and then killed, before the scores had their name:
    path.write_bytes(scores)
    with pytest.raises(DragomanError, match=r"hypotheses\.val\.txt: these are not .* evaluate"):
        read_evaluated(tmp_path, "val", "run", 4)
    with pytest.raises(DragomanError, match=r"4 translations for 5 references"):
        read_evaluated(written(tmp_path, HYPOTHESES).parent, "val", "run", 5)


def test_hypotheses_made_elsewhere_are_read(tmp_path: Path) -> None:
    path = tmp_path / "hyp.txt"
    path.write_bytes(b"eins\r\n\r\nzwei")
    assert read_hypotheses(path) == ["eins", "", "zwei"]
    path.write_bytes(b"")
    assert read_hypotheses(path) == []


def test_unreadable_hypotheses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DragomanError, match=r"missing\.txt: no such file"):
        read_hypotheses(tmp_path / "missing.txt")
    with pytest.raises(DragomanError, match="cannot be read"):
        read_hypotheses(tmp_path)
    path = tmp_path / "latin1.txt"
    path.write_bytes("gut\nläuft\n".encode("latin-1"))
    with pytest.raises(DragomanError, match=r"latin1\.txt: line 2 is not UTF-8"):
        read_hypotheses(path)


def test_table_is_aligned_and_complete() -> None:
    scores = score(HYPOTHESES, REFERENCES, "de")
    header, *rows, note = format_scores(scores).splitlines()
    assert len(rows) == len(METRICS)
    assert note == f"bleu_lc_tok: on text {scores['bleu_lc_tok'].preprocessing}"
    column = header.index("signature")
    for name, row in zip(METRICS, rows, strict=True):
        low, high = scores[name].interval
        assert row.split()[:2] == [name, f"{scores[name].score:.2f}"]
        assert f"[{low:.2f}, {high:.2f}]" in row
        assert row[column:] == scores[name].signature
