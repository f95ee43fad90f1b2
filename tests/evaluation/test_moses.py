from __future__ import annotations

import gzip
import hashlib
import os
import random
from pathlib import Path

import pytest

import tinyruns
from dragoman.evaluation.moses import lc_norm_tok

# What lowercase.perl | normalize-punctuation.perl -l LANG | tokenizer.perl -l LANG (the Moses
# scripts of December 2017, the versions that made Multi30k's files) print for these lines.
KNOWN = [
    # Apostrophes: English splits before, French after, German and Czech on both sides.
    (
        "en",
        "A woman's dog doesn't like the 2 boys' hats.",
        "a woman &apos;s dog doesn &apos;t like the 2 boys &apos; hats .",
    ),
    (
        "de",
        "Das ist Peter's 1,5 m hohes T-Shirt-Regal usw. und so fort",
        "das ist peter &apos; s 1,5 m hohes t-shirt-regal usw. und so fort",
    ),
    (
        "fr",
        "L'homme qu’aime la fille d'à côté s'appelle « Léo ».",
        "l&apos; homme qu&apos; aime la fille d&apos; à côté s&apos; appelle &quot; léo &quot; .",
    ),
    # ’ before a letter outside a-z is a quotation mark to the script.
    (
        "fr",
        "Une femme jette un coup d’œil aujourd'hui.",
        "une femme jette un coup d &quot; œil aujourd&apos; hui .",
    ),
    # Quotation marks; a final full stop goes out of the quotation in German and French, into it
    # in English, and stays where it was in Czech.
    ("de", "Ein Mann sagt: „Komm her.“", "ein mann sagt : &quot; komm her &quot; ."),
    ("fr", "Elle lit “une œuvre d'art.”", "elle lit &quot; une œuvre d&apos; art &quot; ."),
    ("en", 'He said, "Stop, please".', "he said , &quot; stop , please . &quot;"),
    (
        "cs",
        "Muž říká: „To je v pořádku.“",
        "muž říká : &quot; to je v pořádku . &quot;",
    ),
    (
        "cs",
        "Dívka s nápisem ‚Rádio‘ a dr. Novák…",
        "dívka s nápisem &quot; rádio &quot; a dr. novák ...",
    ),
    # Numbers, abbreviations, hyphens, dashes, brackets and the characters that are escaped.
    (
        "en",
        "Prices rose 1,500 to 2.5%, e.g. in New York (USA)...",
        "prices rose 1,500 to 2.5 % , e.g. in new york ( usa ) ...",
    ),
    (
        "en",
        "A well-known man — about 6'2\" tall – waits.",
        "a well-known man - about 6 &apos; 2 &quot; tall - waits .",
    ),
    (
        "en",
        "Salt & pepper cost < $5 [today].",
        "salt &amp; pepper cost &lt; $ 5 &#91; today &#93; .",
    ),
    (
        "de",
        "Ein Schild mit der Aufschrift „Bitte nicht stören“, ca. 120 cm groß.",
        "ein schild mit der aufschrift &quot; bitte nicht stören &quot; , ca. 120 cm groß .",
    ),
    (
        "de",
        "Er kam am 3. Mai um 12:30 Uhr, z.B. zu Fuß",
        "er kam am 3. mai um 12 : 30 uhr , z.b. zu fuß",
    ),
    (
        "fr",
        "Un billet de 10 000 euros, c'est-à-dire trop !",
        "un billet de 10 000 euros , c&apos; est-à-dire trop !",
    ),
    ("cs", "Stálo to 1 234,50 Kč, tj. moc.", "stálo to 1 234,50 kč , tj. moc ."),
]

# SHA-256 of what the same scripts print for Multi30k's raw files. The published lc.norm.tok files
# have exactly as many characters, and the same ones wherever the two were compared.
DIGESTS = {
    "val.de": "97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00",
    "val.en": "46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec",
    "val.fr": "b303e301aa21fe7822a846b2b3fb2d5a1121ec807cd5b1d006fb7b2b5507168a",
    "val.cs": "b87ee4917f4a0f9ca6cca03e402026c9f4437dc1bd6a7dadfd2544ecfb6c5501",
    "test_2016_flickr.de": "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4",
    "test_2016_flickr.en": "5b7f32627cf99eced828311b955dae9800bb52bc8b91cf8b6526829e605b29d2",
    "test_2016_flickr.fr": "1463bd5960f9bfe098ec3cd752d3df0c49c84dc646fb518964a29232658cd836",
    "test_2016_flickr.cs": "748c8816de928732365176e5c5d2f9bbabcec9b8d4448fba2d230feb057898a7",
}


@pytest.mark.parametrize(("language", "raw", "expected"), KNOWN)
def test_known_lines(language: str, raw: str, expected: str) -> None:
    assert lc_norm_tok(raw, language) == expected


@pytest.mark.parametrize(("language", "raw", "expected"), KNOWN)
def test_surrounding_space_changes_nothing(language: str, raw: str, expected: str) -> None:
    assert lc_norm_tok(f"  {raw} \t\r\n", language) == expected


def test_empty_line_and_language_without_a_list() -> None:
    assert lc_norm_tok("", "de") == ""
    assert lc_norm_tok(" \n", "fr") == ""
    assert lc_norm_tok("Mluvi, e.g. o nas.", "xx") == "mluvi , e.g. o nas ."


def test_as_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    german = [(raw, expected) for language, raw, expected in KNOWN if language == "de"]
    command = ["-m", "dragoman.evaluation.moses"]
    text = "".join(f"{raw}\n" for raw, _ in german)
    done = tinyruns.call(*command, "de", cwd=tmp_path, input=text, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{expected}\n" for _, expected in german)
    done = tinyruns.call(*command, "de", cwd=tmp_path, input="läuft\n", encoding="latin-1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard input: ")
    assert done.stderr.count("\n") == 1
    done = tinyruns.call(*command, cwd=tmp_path, input="")
    assert done.returncode == 1
    assert done.stderr.startswith("usage: ")


def test_another_languages_tools_are_not_disturbed() -> None:
    lines = KNOWN * 3
    random.Random(5).shuffle(lines)
    assert [lc_norm_tok(raw, language) for language, raw, _ in lines] == [line[2] for line in lines]


@pytest.mark.parametrize("name", DIGESTS)
def test_multi30k_files_come_out_as_published(name: str) -> None:
    here = Path(__file__).resolve().parents[2] / "data" / "multi30k" / "raw"
    path = Path(os.environ.get("MULTI30K", here)) / f"{name}.gz"
    if not path.exists():
        pytest.skip("Multi30k is not here")
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as stream:
        made = "".join(f"{lc_norm_tok(line, name[-2:])}\n" for line in stream)
    assert hashlib.sha256(made.encode()).hexdigest() == DIGESTS[name]
