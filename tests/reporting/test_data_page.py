"""The page about training text: its figures are those of the text, and it is safe to open."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from dragoman.cli import main
from dragoman.reporting.data_page import _scripts

WORDS = ["data=files", "data.pairs=pairs.tsv", "data.clean.identical=true", "data.cache=cache",
         "data.tokenizer.vocab_size=50", "data.holdout=0", "data.files.val=val.tsv",
         "data.tokenizer.character_coverage=0.99"]  # fmt: skip


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    rows = [f"Hund {n % 50} läuft <b>heute</b>\tdog {n} runs today" for n in range(200)]
    rows += [rows[0], "gleich\tgleich", "\x1b[31m é\tx", "Wort ЖЖ 漢\tword"]
    Path("pairs.tsv").write_text("\n".join(["de\ten", *rows]) + "\n", encoding="utf-8")
    Path("data/files").mkdir(parents=True)
    Path("data/files/val.tsv").write_text("de\ten\nHund 3\tdog 3\nanders\tword\n", "utf-8")
    assert main(["prepare", *WORDS, "--output", "about/text.html"]) == 0
    return Path("about/text.html").read_text("utf-8")


def shown(page: str, what: str) -> str:
    found = re.search(rf'<tr><td class="n">([\d,]+)</td><td>{what}', page)
    assert found, what
    return found[1]


def test_counts_and_examples(page: str) -> None:
    assert shown(page, "read") == "204"
    assert shown(page, "left out: identical") == "1"
    assert shown(page, "left out: duplicates") == "1"
    assert shown(page, "trained on") == "202"
    assert shown(page, "of these share a sentence with val") == "1"
    assert '<span lang="de" dir="auto">gleich</span> | <span lang="en" dir="auto">gleich<' in page
    assert "<h3>de</h3>" in page
    assert "frequent" in page
    assert re.search(r'b <span class="note">400</span>', page)
    assert re.search(r'hund <span class="note">200</span>', page)
    assert re.search(r"1 vocabulary of \d\d tokens", page)


def test_what_the_vocabulary_lacks_is_named(page: str) -> None:
    assert "<dt>not known</dt>" in page
    lacking = page.split("<dt>not known</dt>")[1].split("</dd>")[0]
    assert 'Ж <span class="note">2</span>' in lacking
    assert '漢 <span class="note">1</span>' in lacking


def test_it_is_one_file_in_which_text_is_text(page: str) -> None:
    assert page.count('src="data:image/png;base64,') == 2
    assert "<b>" not in page
    assert "\x1b" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_letters_by_script() -> None:
    assert _scripts(["aé Ж", "漢字かな カ", "3.!"]) == Counter(
        {"Latin": 2, "Cyrillic": 1, "Han": 2, "Hiragana": 2, "Katakana": 1}
    )


def test_a_place_that_cannot_be_written_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["prepare", "data=captions", "--output", "file/data.html"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: file: cannot be written")
    assert not said.out
