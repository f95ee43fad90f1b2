"""Files of sentence pairs in every format: what is read, told by content, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dragoman.config import CorpusConfig, DataConfig
from dragoman.data import lines
from dragoman.data.columns import Wanted
from dragoman.data.corpora import read_pairs
from dragoman.data.formats import kind_of, parallel_member, read_file
from dragoman.data.lines import Pair, Place, read_lines
from dragoman.data.sources import iter_pairs
from dragoman.errors import DragomanError

PAIRS = [("ein Hund", "a dog"), ("zwei", "two")]


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, src: str = "de", tgt: str = "en") -> list[Pair]:
    return list(read_file(Place(path), Wanted(src, tgt)))


def files(root: Path, pattern: str | list[str], **keys: Any) -> DataConfig:
    """A config of the source `files` with one training corpus and what it is read from."""
    pair = {"src": keys.pop("src", "de"), "tgt": keys.pop("tgt", "en")}
    corpora = [CorpusConfig(source="files", **pair)]
    return DataConfig(
        name="files", root=str(root), corpora=corpora, files={"train": pattern}, **pair, **keys
    )


def pairs_of(root: Path, pattern: str | list[str], **keys: Any) -> list[Pair]:
    data = files(root, pattern, **keys)
    return list(iter_pairs(data, data.corpora[0]))


def refusal(call: Callable[[], object]) -> str:
    """The one line with which `call` is refused."""
    with pytest.raises(DragomanError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# CSV.


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.txt", "pairs"])
@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        ("ein Hund,a dog\nzwei,two\n", PAIRS),
        ('"ein Hund","a dog"\r\n"zwei","two"', PAIRS),
        ("\ufeffde,en\nein Hund,a dog\nzwei,two\n", PAIRS),
        ("en;de\na dog;ein Hund\ntwo;zwei\n", PAIRS),
        ("ein Hund|a dog\nzwei|two\n", PAIRS),
        ('"ja, gut","yes, good"\nzwei,two\n', [("ja, gut", "yes, good"), ("zwei", "two")]),
        ('"ja; gut";"yes; good"\nzwei;two\n', [("ja; gut", "yes; good"), ("zwei", "two")]),
        ('"""so"", sagt er",x\nzwei,two\n', [('"so", sagt er', "x"), ("zwei", "two")]),
        ('de,en\n"ein\nHund","a\n\ndog"\nzwei,two\n', [("ein\nHund", "a\n\ndog"), PAIRS[1]]),
        ("id,en,de,user\n1,a dog,ein Hund,x\n2,two,zwei,\n", PAIRS),
        ("ein Hund,a dog,CC-BY,1\nzwei,two,CC-BY,2\n", PAIRS),
        ("zwei,\n,two\n", [("zwei", ""), ("", "two")]),
    ],
)
def test_csv_is_told_by_its_content(
    tmp_path: Path, name: str, content: str, pairs: list[Pair]
) -> None:
    assert read(write(tmp_path / name, content)) == pairs


def test_a_quoted_sentence_may_hold_every_separator(tmp_path: Path) -> None:
    sentence = 'a, b; c | d\t"e"\r\nf'
    quoted = sentence.replace('"', '""')
    for mark in ",;|":
        content = f'de{mark}en\n"{quoted}"{mark}x\ny{mark}z\n'
        found = read(write(tmp_path / "pairs.csv", content))
        assert found == [(sentence.replace("\r\n", "\n"), "x"), ("y", "z")]


def test_a_tsv_with_every_field_quoted_is_read_like_csv(tmp_path: Path) -> None:
    rows = ['"de"\t"en"', '"ein ""Hund"""\t"a\tdog"', '"ein\nHund"\t""', *['"zwei"\t"two"'] * 20]
    path = write(tmp_path / "pairs.tsv", "\n".join(rows))
    expected = [('ein "Hund"', "a\tdog"), ("ein\nHund", ""), *[("zwei", "two")] * 20]
    assert read(path) == expected


def test_a_tsv_with_some_quotes_keeps_them(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.tsv", '"ein"\t"one"\nzwei\ttwo\n"drei\tthree\n')
    assert read(path) == [('"ein"', '"one"'), ("zwei", "two"), ('"drei', "three")]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("ein,one\nzwei\n", "line 2: 1 column, expected at least 2"),
        ('"ei\nn",one\nzwei\n', "line 3: 1 column, expected at least 2"),
        ("id,en,de\n1,one,ein\n2,two\n", "line 3: 2 columns, expected at least 3"),
        ('"ein" x,one\nzwei,two\n', "line 1: not CSV ("),
        ('ein,one\nzwei,"two\n', "line 2: not CSV ("),
        ('ein,one\nzwei,"tw"o"\ndrei,three\n', "line 2: not CSV ("),
        ("de,fr\nein,un\n", "line 1: the header names the languages 'de' and 'fr'"),
        ("de,en\n", "holds a header but no sentence pair"),
        ("\n\n", "holds no sentence pair"),
        (",\n,\n", "holds no sentence pair"),
    ],
)
def test_bad_csv_is_refused_by_its_line(tmp_path: Path, content: str, what: str) -> None:
    path = write(tmp_path / "pairs.csv", content)
    assert refusal(lambda: read(path)).startswith(f"{path}: {what}")


def test_a_csv_of_one_column_is_refused_only_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv.gz", gzip.compress(b"ein\nzwei\n", mtime=0))
    assert refusal(lambda: read(path)).startswith(f"{path}: line 1: 1 column")


def test_a_bad_byte_inside_a_quoted_field_is_named_by_its_own_line(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.csv", b'de,en\n"ein\nH\xfcnd",one\n')
    assert refusal(lambda: read(path)).startswith(f"{path}: line 3: not valid UTF-8")


# JSON.


def records(count: int, nested: bool = False) -> list[dict[str, Any]]:
    flat = [{"id": n, "en": f"dog {n}", "de": f"Hündin {n}"} for n in range(count)]
    return [{"translation": record} for record in flat] if nested else flat


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("count", [1, 3000])
def test_json_arrays(
    tmp_path: Path, nested: bool, indent: int | None, plain: bool, count: int
) -> None:
    text = json.dumps(records(count, nested), indent=indent, ensure_ascii=plain)
    path = write(tmp_path / "pairs.json", "\ufeff\n" * (not plain) + text + "\r\n")
    if count > 1:
        assert path.stat().st_size > 2 << 16  # records lie across the ends of what is read
    assert read(path) == [(f"Hündin {n}", f"dog {n}") for n in range(count)]


def test_a_record_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    long = 'ä\\"]},' * 30_000
    content = json.dumps([{"de": long, "en": "x"}, {"de": "y", "en": long}])
    assert read(write(tmp_path / "pairs.json", content)) == [(long, "x"), ("y", long)]


def test_json_and_json_lines_are_told_apart_by_content(tmp_path: Path) -> None:
    expected = [(record["de"], record["en"]) for record in records(3)]
    array, rows = json.dumps(records(3)), "\n".join(map(json.dumps, records(3)))
    for name in ("pairs.json", "pairs.jsonl", "pairs.tsv", "pairs"):
        assert read(write(tmp_path / name, array)) == expected
        assert kind_of(Place(tmp_path / name)) == "json"
        assert read(write(tmp_path / name, rows)) == expected
        assert kind_of(Place(tmp_path / name)) == "jsonl"


GOOD = '{"de": "ein", "en": "one"}'


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (f"[{GOOD}", "not valid JSON at record 2"),
        (f"[{GOOD},", "not valid JSON at record 2"),
        (f"[{GOOD}, {GOOD[:-5]}", "not valid JSON at record 2"),
        (f"[{GOOD},]", "not valid JSON at record 2"),
        (f"[{GOOD} {GOOD}]", "not valid JSON at record 2"),
        (f"[{GOOD}]\n{GOOD}", "something follows the array"),
        (f"[{GOOD}]" + " " * (1 << 17) + "x", "something follows the array"),
        (f'[{GOOD}, ["ein", "one"]]', "record 2: not a JSON object"),
        (f"[{GOOD}, null]", "record 2: not a JSON object"),
        (f'[{GOOD}, {{"de": "ein", "fr": "un"}}]', "record 2: no key 'en' (keys found: 'de', 'fr'"),
        (f'[{GOOD}, {{"translation": {{"en": "x"}}}}]', "record 2: no key 'de' (keys found: 'en'"),
        (f'[{GOOD}, {{"de": "ein", "en": 1}}]', "record 2: 'en' is not a string"),
        (f'[{GOOD}, {{"de": "ein", "en": "\\u0000"}}]', "record 2: 'en' holds a NUL"),
        (f'[{GOOD}, {{"de": "\\ud83d", "en": "x"}}]', "record 2: 'de' holds half of a surrogate"),
        (f'[{GOOD}, {{"de": {"[" * 100_000}', "not valid JSON at record 2"),
        (f'[{GOOD}, {{"de": {"1" * 5000}}}]', "not valid JSON at record 2"),
    ],
)
def test_bad_json_is_refused_by_its_record(tmp_path: Path, content: str, what: str) -> None:
    path = write(tmp_path / "pairs.json", content)
    assert refusal(lambda: read(path)).startswith(f"{path}: {what}")


def test_json_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.json", b'[{"de": "H\xfcndin", "en": "dog"}]')
    assert refusal(lambda: read(path)).startswith(f"{path}: not valid UTF-8")


# TMX.

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
DOCTYPE = '<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n'


def unit(*sides: tuple[str, str], attribute: str = "xml:lang") -> str:
    """A translation unit of (language, mark-up of the segment)."""
    each = (f'<tuv {attribute}="{code}"><seg>{text}</seg></tuv>' for code, text in sides)
    return f"<tu>\n{''.join(each)}\n</tu>\n"


def tmx(*units: str, head: str = HEAD) -> str:
    header = '<header creationtool="x" srclang="de" segtype="sentence" adminlang="en"/>'
    return f'{head}<tmx version="1.4">{header}<body>\n{"".join(units)}</body></tmx>\n'


def test_tmx_keeps_text_and_drops_what_programs_put_in_it(tmp_path: Path) -> None:
    inline = (
        '<bpt i="1">{\\b </bpt>Ein<ept i="1">}</ept> <hi type="x">großer <hi>Hund</hi></hi>'
        '<ph>{1}<sub>Fußnote</sub></ph> &amp;<it pos="begin">&lt;i></it> <![CDATA[<b>]]>&#33;'
    )
    path = write(tmp_path / "memory.tmx", tmx(unit(("de", inline), ("en", "A big\n dog"))))
    assert read(path) == [("Ein großer Hund & <b>!", "A big\n dog")]
    assert read(path, "en", "de") == [("A big\n dog", "Ein großer Hund & <b>!")]


@pytest.mark.parametrize("attribute", ["xml:lang", "lang"])
@pytest.mark.parametrize(
    ("german", "english"), [("de", "en"), ("de-DE", "EN-us"), ("DE", "EN"), ("deu", "eng-GB")]
)
def test_languages_of_tmx_in_every_form(
    tmp_path: Path, attribute: str, german: str, english: str
) -> None:
    entries = [
        unit((english, f"dog {n}"), (german, f"Hund {n}"), attribute=attribute) for n in "ab"
    ]
    path = write(tmp_path / "memory", tmx(*entries, head=HEAD + DOCTYPE))
    assert read(path) == [("Hund a", "dog a"), ("Hund b", "dog b")]
    assert read(path, "de-AT", "en") == [("Hund a", "dog a"), ("Hund b", "dog b")]


def test_the_very_region_is_taken_before_another(tmp_path: Path) -> None:
    path = write(
        tmp_path / "memory.tmx",
        tmx(unit(("pt-PT", "autocarro"), ("pt-BR", "ônibus"), ("en", "bus"))),
    )
    assert read(path, "pt-BR", "en") == [("ônibus", "bus")]
    assert read(path, "pt-PT", "pt-BR") == [("autocarro", "ônibus")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_tmx_in_utf_16(tmp_path: Path, encoding: str) -> None:
    """As many translation tools write it; the byte-order mark tells."""
    text = tmx(unit(("de", "Hündin"), ("en", "dog")), head='<?xml version="1.0"?>\n' + DOCTYPE)
    mark = "" if encoding == "utf-16" else "\ufeff"
    assert read(write(tmp_path / "memory.tmx", (mark + text).encode(encoding))) == [
        ("Hündin", "dog")
    ]


def test_tmx_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    head = '<?xml version="1.0" encoding="windows-1252"?>\n'
    text = tmx(unit(("de", "„Hündin“"), ("en", "dog")), head=head)
    assert read(write(tmp_path / "memory.tmx", text.encode("cp1252"))) == [("„Hündin“", "dog")]


def test_units_without_one_of_the_languages_are_counted_in_one_warning(tmp_path: Path) -> None:
    units = [unit(("de", "ein"), ("en", "one")), unit(("de", "zwei"))] * 3 + [unit()]
    path = write(tmp_path / "memory.tmx", tmx(*units))
    with pytest.warns(UserWarning, match="are left out") as caught:
        assert read(path) == [("ein", "one")] * 3
    assert [str(warning.message) for warning in caught] == [
        f"{path}: 4 of 7 units have no de or no en and are left out"
    ]


def test_a_whole_tmx_is_read_without_a_warning(tmp_path: Path) -> None:
    units = [unit(("de", f"Satz {n}"), ("fr", "x"), ("en", "")) for n in range(3000)]
    path = write(tmp_path / "memory.tmx", tmx(*units))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path) == [(f"Satz {n}", "") for n in range(3000)]


def test_tmx_of_other_languages_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "memory.tmx", tmx(unit(("de", "ein"), ("fr", "un")), unit()))
    assert refusal(lambda: read(path)) == f"{path}: none of its 2 units has both de and en"
    path = write(tmp_path / "empty.tmx", tmx())
    assert refusal(lambda: read(path)) == f"{path}: none of its 0 units has both de and en"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (tmx(unit(("de", "a < b"), ("en", "x"))), "line 4: not XML ("),
        (tmx(unit(("de", "<hi>a"), ("en", "x"))), "line 4: not XML (mismatched tag)"),
        (tmx(unit(("de", "&nbsp;"), ("en", "x"))), "line 4: not XML (undefined entity)"),
        (tmx(unit(("de", "a"), ("en", "x")))[:-20], "line 5: not XML ("),
        (tmx() + "more", "line 4: not XML (junk after document element)"),
        (tmx().encode().replace(b"<body>", b"<body>\xff"), "line 2: not XML ("),
    ],
)
def test_malformed_tmx_is_refused_by_its_line(
    tmp_path: Path, content: bytes | str, what: str
) -> None:
    path = write(tmp_path / "memory.tmx", content)
    assert refusal(lambda: read(path)).startswith(f"{path}: {what}")


def laughs(levels: int) -> str:
    """A document type in which every entity is ten of the one before."""
    entities = ['<!ENTITY l0 "ha">'] + [
        f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, levels)
    ]
    return f"<!DOCTYPE tmx [\n{''.join(entities)}\n]>\n"


@pytest.mark.parametrize(
    "doctype",
    [
        laughs(12),
        f'<!DOCTYPE tmx [\n<!ENTITY l0 "{"ha" * 9999}">\n]>\n',
        '<!DOCTYPE tmx [\n<!ENTITY l0 SYSTEM "file:///etc/passwd">\n]>\n',
        '<!DOCTYPE tmx [\n<!ENTITY % l0 SYSTEM "http://127.0.0.1:9/x">\n%l0;\n]>\n',
    ],
)
def test_entities_are_refused_where_they_are_declared(tmp_path: Path, doctype: str) -> None:
    text = tmx(unit(("de", "&l0;&l11;"), ("en", "x")), head=HEAD + doctype)
    path = write(tmp_path / "memory.tmx", text)
    started = time.monotonic()
    message = refusal(lambda: read(path))
    assert time.monotonic() - started < 1
    assert message == f"{path}: line 3: declares the entity 'l0'; entities are not accepted"


@pytest.mark.slow
def test_a_memory_that_translate_toolkit_wrote(tmp_path: Path) -> None:
    pytest.importorskip("translate")
    from translate.storage.tmx import tmxfile

    memory = tmxfile()
    pairs = [("Ein <b>Hund</b> & Söhne", "A dog & sons"), ("zwei\nZeilen", "two\nlines")]
    for german, english in pairs:
        memory.addtranslation(german, "de-DE", english, "en-US")
    with (tmp_path / "memory.tmx").open("wb") as stream:
        memory.serialize(stream)
    assert read(tmp_path / "memory.tmx") == pairs


# Parquet, and folders of Hugging Face's.


def write_parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path, row_group_size=1000)
    return path


def test_parquet_with_flat_columns(tmp_path: Path) -> None:
    columns = {key: [record[key] for record in records(2500)] for key in ("id", "en", "de")}
    path = write_parquet(tmp_path / "train", columns)
    assert kind_of(Place(path)) == "parquet"
    assert read(path) == [(f"Hündin {n}", f"dog {n}") for n in range(2500)]


def test_parquet_with_a_column_named_translation(tmp_path: Path) -> None:
    rows = [record["translation"] for record in records(3, nested=True)]
    path = write_parquet(tmp_path / "train.parquet", {"id": [1, 2, 3], "translation": rows})
    assert read(path, "en", "de") == [(f"dog {n}", f"Hündin {n}") for n in range(3)]
    write_parquet(tmp_path / "more.parquet", {"translation": rows})
    expected = [(f"Hündin {n}", f"dog {n}") for n in range(3)] * 2
    assert pairs_of(tmp_path, ["train.parquet", "more.parquet"]) == expected
    assert read(tmp_path) == expected  # a folder of such files


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"de": ["ein"], "fr": ["un"]}, "row 1: no key 'en' (keys found: 'de', 'fr')"),
        ({"text": ["ein"]}, "row 1: no key 'de' (keys found: 'text')"),
        (
            {"translation": [{"de": "ein", "cs": "x"}]},
            "row 1: no key 'en' (keys found: 'de', 'cs')",
        ),
        ({"de": ["ein", None], "en": ["one", "two"]}, "row 2: 'de' is not a string"),
        ({"de": [1], "en": [2]}, "row 1: 'de' is not a string"),
    ],
)
def test_parquet_of_other_columns_is_refused_with_their_names(
    tmp_path: Path, columns: Mapping[str, Any], what: str
) -> None:
    path = write_parquet(tmp_path / "train.parquet", columns)
    assert refusal(lambda: read(path)) == f"{path}: {what}"


def test_parquet_without_rows_or_cut_short_is_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    none = arrow.array([], arrow.string())
    path = write_parquet(tmp_path / "train.parquet", {"de": none, "en": none})
    assert refusal(lambda: read(path)) == f"{path}: holds no sentence pair"
    write_parquet(path, {"de": ["ein"], "en": ["one"]})
    write(path, path.read_bytes()[:-20])
    assert refusal(lambda: read(path)).startswith(f"{path}: not a Parquet file (")


def test_parquet_in_an_archive_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "train.parquet", {"de": ["ein"], "en": ["one"]})
    zipped = archive(tmp_path / "train.zip", {"train.parquet": path.read_bytes()})
    message = refusal(lambda: pairs_of(tmp_path, "train.zip"))
    assert message == f"{zipped}: train.parquet: Parquet in an archive is not read; unpack it first"


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True])
def test_a_folder_that_save_to_disk_wrote(tmp_path: Path, nested: bool) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(records(50, nested))
    saved.save_to_disk(tmp_path / "train", num_shards=2)
    expected = [(f"Hündin {n}", f"dog {n}") for n in range(50)]
    assert read(tmp_path / "train") == expected
    assert read(tmp_path / "train", "en", "de") == [(en, de) for de, en in expected]
    message = refusal(lambda: read(tmp_path / "train", "de", "fr"))
    assert message.startswith(f"{tmp_path / 'train' / 'data-00000-of-00002.arrow'}: row 1: no key")
    assert message.endswith("'en', 'de')")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "ein\tone\n")
    assert refusal(lambda: read(tmp_path)).startswith(
        f"{tmp_path}: is a folder without .arrow or .parquet files"
    )
    write(tmp_path / "data.arrow", b"nothing")
    message = refusal(lambda: read(tmp_path))
    assert message.startswith(f"{tmp_path / 'data.arrow'}: not a data set of Hugging Face's (")


# Packed.


def zstd(content: bytes) -> bytes:
    name = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    packed: bytes = pytest.importorskip(name).compress(content)
    return packed


def archive(path: Path, content: Mapping[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in content.items():
            packed.writestr(name, text)
    return path


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


@pytest.mark.parametrize("ending", list(PACKERS))
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pairs.tsv", "ein Hund\ta dog\nzwei\ttwo\n"),
        ("pairs.csv", "en;de\na dog;ein Hund\ntwo;zwei\n"),
        ("pairs.json", json.dumps([{"de": de, "en": en} for de, en in PAIRS])),
        ("pairs.jsonl", "".join(json.dumps({"de": de, "en": en}) + "\n" for de, en in PAIRS)),
        ("pairs.tmx", tmx(*(unit(("de", de), ("en", en)) for de, en in PAIRS))),
    ],
)
def test_every_format_is_read_packed(tmp_path: Path, ending: str, name: str, content: str) -> None:
    packed = write(tmp_path / f"{name}.{ending}", PACKERS[ending](content.encode()))
    for pattern in (name, packed.name):  # its ending may be left out
        assert pairs_of(tmp_path, pattern) == PAIRS
    assert read(packed.rename(tmp_path / "pairs")) == PAIRS  # and is not needed
    archive(tmp_path / "pairs.zip", {f"set/{name}": content, "set/README.md": "read me"})
    assert pairs_of(tmp_path, "pairs.zip") == PAIRS
    assert sorted(os.listdir(tmp_path)) == ["pairs", "pairs.zip"]  # nothing is unpacked to disk


def test_sides_packed_in_different_ways(tmp_path: Path) -> None:
    write(tmp_path / "train.de.zst", zstd(b"ein Hund\nzwei\n"))
    write(tmp_path / "train.en.bz2", bz2.compress(b"a dog\ntwo\n"))
    assert pairs_of(tmp_path, "train.{lang}") == PAIRS


def test_zstandard_cut_short_or_damaged_is_refused(tmp_path: Path) -> None:
    packed = zstd(b"".join(f"Satz {n}\tline {n * n}\n".encode() for n in range(9999)))
    path = write(tmp_path / "pairs.zst", packed[:-9])
    assert refusal(lambda: read(path)).startswith(f"{path}: the Zstandard file is truncated")
    write(path, packed[:6] + bytes(range(60)) + packed[66:])
    assert refusal(lambda: read(path)).startswith(f"{path}: the Zstandard file is corrupt")


MOSES = {
    "README": "from OPUS",
    "LICENSE": "free",
    "corpus.de-en.de": "ein Hund\nzwei\n",
    "corpus.de-en.en": "a dog\ntwo\n",
    "corpus.de-en.ids": "1\n2\n",
}


@pytest.mark.parametrize("folder", ["", "corpus/de-en/"])
@pytest.mark.parametrize("backwards", [False, True])
def test_an_archive_with_a_file_for_each_language(
    tmp_path: Path, folder: str, backwards: bool
) -> None:
    names = list(reversed(MOSES)) if backwards else list(MOSES)
    archive(tmp_path / "de-en.txt.zip", {folder + name: MOSES[name] for name in names})
    assert pairs_of(tmp_path, "de-en.txt.zip") == PAIRS
    assert pairs_of(tmp_path, "de-en.txt") == PAIRS
    assert pairs_of(tmp_path, "de-en.txt", src="en", tgt="de") == [(b, a) for a, b in PAIRS]
    assert pairs_of(tmp_path, "de-en.txt", src="deu", tgt="eng") == PAIRS
    assert os.listdir(tmp_path) == ["de-en.txt.zip"]


def test_an_archive_of_unequal_sides_is_refused_with_both_names(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.de": "ein\nzwei\n", "a.en": "one\n"})
    message = refusal(lambda: pairs_of(tmp_path, "a.zip"))
    assert message.startswith(f"{path}: a.de has 2 lines but {path}: a.en has 1;")


def test_a_fault_in_an_archive_is_named_with_the_member(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.tsv": b"ein\tone\nzw\xffei\ttwo\n"})
    message = refusal(lambda: pairs_of(tmp_path, "a.zip"))
    assert message.startswith(f"{path}: a.tsv: line 2: not valid UTF-8")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.tsv", "b.tsv"], "a.tsv, b.tsv; expected one file of pairs"),
        (["a.de", "a.fr"], "a.de, a.fr; expected"),
        (["a.de", "b.en"], "a.de, b.en; expected"),
        ([f"{n}.tsv" for n in range(9)], "0.tsv, 1.tsv, 2.tsv, 3.tsv, 4.tsv, 5.tsv ...; expected"),
        (["README", "LICENSE"], "no text; expected"),
        (["__MACOSX/a.tsv", ".hidden"], "no text; expected"),
    ],
)
def test_an_archive_that_leaves_a_choice_is_refused_with_the_names(
    tmp_path: Path, names: list[str], said: str
) -> None:
    path = archive(tmp_path / "a.zip", dict.fromkeys(names, "ein\tone\n"))
    message = refusal(lambda: pairs_of(tmp_path, "a.zip"))
    assert message.startswith(f"{path}: holds {said}")
    assert message.endswith("that end in .de and .en; unpack it to choose (data.files.train)")


def test_an_archive_named_for_two_plain_files_is_one_line(tmp_path: Path) -> None:
    for code in ("de", "en"):
        archive(tmp_path / f"train.{code}.zip", {f"train.{code}": "ein\n"})
    message = refusal(lambda: pairs_of(tmp_path, "train.{lang}"))
    assert message == (
        f"{tmp_path / 'train.de.zip'}: looks like a zip archive, expected UTF-8 text"
    )


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.tsv": "ein\tone\n"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the member's header, and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    write(path, bytes(content))
    message = refusal(lambda: pairs_of(tmp_path, "a.zip"))
    assert message == f"{path}: the zip file is encrypted; unpack it first (data.files.train)"


def damage(content: bytes) -> bytes:
    """Change bytes in the middle of the packed text."""
    middle = content.index(b"PK\x01\x02") // 2
    return (
        content[:middle]
        + bytes(byte ^ 255 for byte in content[middle : middle + 9])
        + (content[middle + 9 :])
    )


@pytest.mark.parametrize(
    "break_it",
    [damage, lambda content: content[:-30], lambda content: content[:99], lambda _: b"PK\x03\x04"],
)
def test_a_corrupt_archive_is_one_line(tmp_path: Path, break_it: Callable[[bytes], bytes]) -> None:
    text = "".join(f"Satz {n}\tline {n * n}\n" for n in range(9999))
    path = archive(tmp_path / "a.zip", {"a.tsv": text})
    write(path, break_it(path.read_bytes()))
    message = refusal(lambda: pairs_of(tmp_path, "a.zip"))
    assert message.startswith(f"{path}: ")
    assert "the zip file is corrupt; fetch or copy it again" in message


def test_an_archive_read_as_one_file_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.tsv": "ein\tone\n"})
    assert "looks like a zip archive" in refusal(lambda: read(path))


# What is no file of pairs.


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("ein\tone\n".encode("utf-16"), "looks like UTF-16, expected UTF-8 text"),
        ("ein,one\n".encode("utf-16-be"), "looks like UTF-16"),
        ("ein\tone\n".encode("utf-32"), "looks like UTF-32"),
        (b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n", "looks like a PDF file"),
        ("<html><body>ein</body></html>\n", "looks like XML but not like TMX, expected <tmx>"),
        (f"{HEAD}<xliff version='1.2'/>", "looks like XML but not like TMX"),
        ("ein Hund\nzwei Hunde\n", "does not look like sentence pairs; expected two columns"),
        ("ein Hund, ja\nzwei Hunde\ndrei\n", "does not look like sentence pairs"),
        (b"ein\tone\nH\xfcnd\tdog\n", "line 2: not valid UTF-8"),
        (bytes(range(1, 256)), "not valid UTF-8"),
        (bytes(99), "line 1: holds a NUL byte"),
        (gzip.compress(gzip.compress(b"ein\tone", mtime=0), mtime=0), "looks like a gzip file"),
        ("", "the file is empty"),
        ("\n \n", "holds no sentence pair"),
    ],
)
@pytest.mark.parametrize("name", ["pairs.tsv", "pairs"])
def test_the_kind_of_what_is_no_pairs_is_named(
    tmp_path: Path, content: bytes | str, what: str, name: str
) -> None:
    path = write(tmp_path / name, content)
    message = refusal(lambda: read(path))
    assert message.startswith(f"{path}: ")
    assert what in message


# Several files, and patterns.


def test_a_list_of_files_is_read_in_its_order(tmp_path: Path) -> None:
    write(tmp_path / "a.tsv", "ein Hund\ta dog\n")
    write(tmp_path / "b.tsv", "en\tde\ntwo\tzwei\n")
    archive(tmp_path / "c.zip", {"c.csv": "drei,three\nvier,four\n"})
    more = [("drei", "three"), ("vier", "four")]
    assert pairs_of(tmp_path, ["a.tsv", "b.tsv"]) == PAIRS
    assert pairs_of(tmp_path, ["b.tsv", "c.zip", "a.tsv"]) == [PAIRS[1], *more, PAIRS[0]]
    missing = refusal(lambda: pairs_of(tmp_path, ["a.tsv", "d.tsv"]))
    assert missing == f"{tmp_path / 'd.tsv'}: no such file (data.files.train)"


def test_a_pattern_is_read_in_the_order_of_the_names(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write(tmp_path / f"part{number}.tsv", f"Satz {number}\tline {number}\n")
        for code, word in (("de", "Satz"), ("en", "line")):
            write(tmp_path / f"part{number}.{code}", f"{word} {number}\n")
    expected = [(f"Satz {n}", f"line {n}") for n in range(3)]
    assert pairs_of(tmp_path, "part*.tsv") == expected
    assert pairs_of(tmp_path, "part?.{lang}") == expected
    assert pairs_of(tmp_path, ["part[2].tsv", "part0.{lang}"]) == [expected[2], expected[0]]
    (tmp_path / "part1.en").unlink()
    assert refusal(lambda: pairs_of(tmp_path, "part*.{lang}")) == (
        "part*.{lang}: there are 3 files for de and 2 for en; each needs its counterpart "
        "(data.files.train)"
    )
    message = refusal(lambda: pairs_of(tmp_path, "other*.tsv"))
    assert message == f"{tmp_path / 'other*.tsv'}: no such file (data.files.train)"


def test_a_name_that_looks_like_a_pattern_is_a_name_first(tmp_path: Path) -> None:
    write(tmp_path / "part[1].tsv", "ein Hund\ta dog\n")
    write(tmp_path / "part1.tsv", "zwei\ttwo\n")
    assert pairs_of(tmp_path, "part[1].tsv") == PAIRS[:1]


def test_training_text_named_by_hand_lies_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    write(tmp_path / "mine.tsv", "ein Hund\ta dog\nzwei\ttwo\n")
    write(tmp_path / "root" / "val.tsv", "drei\tthree\n")
    monkeypatch.chdir(tmp_path)
    data = files(tmp_path / "root", "never.tsv", pairs="mine.tsv")
    data.files["val"] = "val.tsv"
    assert list(iter_pairs(data, data.corpora[0])) == PAIRS
    assert read_pairs(data, "val") == (["drei"], ["three"])
    data.pairs = ["mine.tsv", str(tmp_path / "root" / "val.tsv")]
    assert list(iter_pairs(data, data.corpora[0])) == [*PAIRS, ("drei", "three")]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("none.tsv", "none.tsv: no such file"),
        ("empty.tsv", "empty.tsv: the file is empty"),
        ("loop.tsv", "loop.tsv: cannot be read (Too many levels of symbolic links)"),
        ("two.zip", "two.zip: holds a.tsv, b.tsv; expected one file of pairs, or two that end in "),
        ("a.tsv/x", "x: no such file"),
    ],
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_what_cannot_be_found_is_said_with_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str, by_hand: bool
) -> None:
    write(tmp_path / "a.tsv", "ein\tone\n")
    write(tmp_path / "empty.tsv", "")
    (tmp_path / "loop.tsv").symlink_to("back.tsv")
    (tmp_path / "back.tsv").symlink_to("loop.tsv")
    archive(tmp_path / "two.zip", {"a.tsv": "ein\tone\n", "b.tsv": "ein\tone\n"})
    monkeypatch.chdir(tmp_path)
    keys = {"pairs": name} if by_hand else {}
    message = refusal(lambda: pairs_of(tmp_path, name, **keys))
    assert what in message
    assert message.endswith("(data.pairs)" if by_hand else "(data.files.train)")


# What is made to do harm: one line, and little memory.

_CHILD = """
import re, sys, time
from pathlib import Path
from dragoman.data import lines
from dragoman.data.columns import Wanted
from dragoman.data.formats import read_file
from dragoman.errors import DragomanError
how, path = sys.argv[1], Path(sys.argv[2])
started, said, count = time.monotonic(), None, 0
try:
    text = how == "text"
    place = lines.Place(path)
    for _ in lines.zip_lines(path, path) if text else read_file(place, Wanted("de", "en")):
        count += 1
except DragomanError as problem:
    said = str(problem)
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(repr((said, count, peak // 1024, time.monotonic() - started)))
"""


def read_apart(path: Path, how: str = "pairs", most: int = 300) -> tuple[str | None, int]:
    """Read a file in a process of its own: what it was refused with, and the number of pairs.

    Fails for a message of several lines, a traceback, and for more than ``most`` MiB of memory.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("the memory of a process is read from /proc")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, how, str(path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, count, peak, _ = eval(done.stdout)
    assert "\n" not in (said or "")
    assert peak < most, f"{peak} MiB"
    return said, count


def pack(path: Path, head: bytes, block: bytes, megabytes: int, tail: bytes = b"") -> Path:
    """Write a gzip file of ``head``, so many MiB of ``block`` over and over, and ``tail``."""
    block *= (1 << 20) // len(block)
    with gzip.open(path, "wb", compresslevel=6) as stream:
        stream.write(head)
        for _ in range(megabytes):
            stream.write(block)
        stream.write(tail)
    return path


GIGABYTE = 1030  # MiB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "block", "what"),
    [
        (b"", b"\0", "line 1: holds a NUL byte"),
        (b"ein\tone\n", b"\0", "line 2: is longer than 1 MiB"),
        (b"ein\tone\nzwei\t", b"x", "line 2: is longer than 1 MiB"),
        (b"", b"x", "does not look like sentence pairs"),
        (b'ein,one\nzwei,"', b"x", "line 2: is longer than 1 MiB"),
        (b'[{"de": "', b"x", "not valid JSON at record 1"),
        (b'[{"de": "ein", "en": "one"}', b" ", "unpacks to more than 200 times its size"),
        (b'{"de": "', b"x", "line 1: is longer than 1 MiB"),
        (b'<tmx><tu><tuv xml:lang="de"><seg>', b"x", "line 1: a segment is longer than 1 MiB"),
        (b'<tmx><tu><tuv xml:lang="de"><seg>', b"&lt;", "line 1: a segment is longer than 1 MiB"),
    ],
)
def test_a_few_megabytes_that_unpack_to_a_gigabyte(
    tmp_path: Path, head: bytes, block: bytes, what: str
) -> None:
    path = pack(tmp_path / "bomb.gz", head, block, GIGABYTE)
    assert path.stat().st_size < 8 << 20
    said, _ = read_apart(path)
    assert said is not None
    assert said.startswith(f"{path}: {what}")


@pytest.mark.slow
def test_a_bomb_in_two_plain_files_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "bomb.gz", b"", b"\0", GIGABYTE)
    assert read_apart(path, "text") == (
        f"{path}: line 1: is longer than 1 MiB; a line holds a sentence or a few",
        0,
    )


@pytest.mark.parametrize("name", ["a.gz", "a.zip"])
def test_what_grows_beyond_all_measure_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As for newlines alone, of which 256 MiB are read before; here it is one."""
    monkeypatch.setattr(lines, "_MOST_FREE", 1 << 20)
    said = "unpacks to more than 200 times its size, which text does not; it is not read on"
    if name == "a.gz":
        path = pack(tmp_path / name, b"", b"\n", 3)
        assert refusal(lambda: sum(1 for _ in read_lines(path))) == f"{path}: {said}"
        path = pack(tmp_path / name, b"ein\tone\n", b"\n", 3)
        assert refusal(lambda: sum(1 for _ in read_file(Place(path), Wanted("de", "en")))) == (
            f"{path}: {said}"
        )
    else:
        archive(tmp_path / name, {"a.tsv": "ein\tone\n" + "\n" * (3 << 20)})
        assert refusal(lambda: pairs_of(tmp_path, name)) == f"{tmp_path / name}: a.tsv: {said}"


def test_text_that_packs_well_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_MOST_FREE", 1 << 16)
    text = "".join(f"Satz Nummer {n}\tline number {n}\n" for n in range(20_000)).encode()
    for pack_it in PACKERS.values():
        assert len(read(write(tmp_path / "pairs", pack_it(text)))) == 20_000


@pytest.mark.parametrize("head", [b"", b"ein\tone\n", b'{"de": "ein", "en": "one"}\n'])
def test_a_sparse_file_of_a_gigabyte_is_refused(tmp_path: Path, head: bytes) -> None:
    path = write(tmp_path / "sparse", head)
    os.truncate(path, GIGABYTE << 20)
    said, _ = read_apart(path)
    assert said is not None
    assert said.startswith(f"{path}: line {1 + bool(head)}: ")


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("ein\tone" + "\t" * 1_000_000, 2),
        ("ein,one" + "," * 1_000_000, 2),
        ("ein\tone" + "\tx" * 1_000_000, None),
    ],
)
def test_a_line_of_a_million_columns(tmp_path: Path, line: str, pairs: int | None) -> None:
    path = write(tmp_path / "wide.csv", f"{line}\n{line}\n")
    said, count = read_apart(path)
    if pairs is None:
        assert said == f"{path}: line 1: is longer than 1 MiB; a line holds a sentence or a few"
    else:
        assert (said, count) == (None, pairs)


def test_an_entity_bomb_takes_no_memory(tmp_path: Path) -> None:
    text = tmx(unit(("de", "&l19;"), ("en", "x")), head=HEAD + laughs(20))
    path = write(tmp_path / "bomb.tmx", text)
    said, count = read_apart(path)
    assert count == 0
    assert said == f"{path}: line 3: declares the entity 'l0'; entities are not accepted"


@pytest.mark.parametrize("pattern", ["loop.tsv", "loop.{lang}", "loop*"])
def test_a_loop_of_links_is_one_line(tmp_path: Path, pattern: str) -> None:
    for name in ("loop.tsv", "loop.de", "loop.en"):
        (tmp_path / name).symlink_to(tmp_path / name)
    message = refusal(lambda: pairs_of(tmp_path, pattern))
    assert message.endswith(
        ": cannot be read (Too many levels of symbolic links) (data.files.train)"
    )


# Files as people have them.


def wild(name: str) -> Path:
    folder = os.environ.get("WILD")
    if not folder:
        pytest.skip("WILD does not name a folder of real files")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def test_the_archive_of_the_flash_cards(capsys: pytest.CaptureFixture[str]) -> None:
    path = wild("deu-eng.zip")
    found = pairs_of(path.parent, path.name)
    assert len(found) == 169_813
    assert found[0] == ("Hallo!", "Hi.")
    assert "column 1 is English, column 2 is German" in capsys.readouterr().err
    assert pairs_of(path.parent, path.name, src="en", tgt="de")[0] == ("Hi.", "Hallo!")


def test_messages_of_programs_in_japanese() -> None:
    path = wild("ui.en-ja.tsv.gz")
    found = pairs_of(path.parent, path.name, src="en", tgt="ja")
    assert len(found) == 98_654
    turned = pairs_of(path.parent, path.name, src="ja", tgt="en")
    assert turned == [(ja, en) for en, ja in found]
    kana = sum(any("\u3040" <= mark <= "\u30ff" for mark in ja) for _, ja in found)
    assert kana > 70_000


def test_classical_and_modern_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    path = wild("classical.lzh-zh.tsv.gz")
    found = pairs_of(path.parent, path.name, src="lzh", tgt="zh")
    assert len(found) == 120_000
    with io.TextIOWrapper(gzip.open(path), encoding="utf-8", newline="\n") as stream:
        first = stream.readline().rstrip("\n").split("\t")
    assert found[0] == (first[0], first[1])
    assert "column" not in capsys.readouterr().err  # the text cannot tell


# Found by trying: each was a traceback, or gave other pairs.


def test_a_saved_data_set_is_named_like_a_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow as pa
    import pyarrow.ipc

    (tmp_path / "set").mkdir()
    table = pa.table({"de": ["ein"], "en": ["one"]})
    with pyarrow.ipc.new_stream(
        tmp_path / "set" / "data-00000-of-00001.arrow", table.schema
    ) as out:
        out.write_table(table)
    assert pairs_of(tmp_path, "set") == [("ein", "one")]


@pytest.mark.parametrize("languages", [("de", "en"), ("pt-BR", "pt-PT")])
def test_the_members_that_go_together_are_read(tmp_path: Path, languages: Pair) -> None:
    src, tgt = languages
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"c.{tgt}", "right\n")
        archive.writestr(f"c.{src}", "left\n")
    places = parallel_member(tmp_path / "a.zip", src, tgt)
    assert [place.member for place in places] == [f"c.{src}", f"c.{tgt}"]
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        for code in languages:
            archive.writestr(f"d.{code}", "more\n")
    assert "unpack it to choose" in refusal(lambda: parallel_member(tmp_path / "a.zip", src, tgt))


def test_a_segment_of_another_region_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tmx", tmx(unit(("pt-PT", "ab")), unit(("pt-PT", "b"), ("pt-BR", "a")))
    )
    with pytest.warns(UserWarning, match="1 of 2 units"):
        assert list(read_file(Place(path), Wanted("pt-BR", "pt-PT"))) == [("a", "b")]


def test_an_entity_of_the_document_type_is_refused(tmp_path: Path) -> None:
    text = tmx(unit(("de", "caf&eacute;"), ("en", "cafe")))
    text = text.replace("<tmx", '<!DOCTYPE tmx SYSTEM "tmx14.dtd">\n<tmx', 1)
    message = refusal(lambda: read(write(tmp_path / "a.tmx", text)))
    assert "entity" in message


def test_files_of_a_pattern_are_paired_by_name(tmp_path: Path) -> None:
    for name in ("part1.de", "part2.de", "part2.en", "part3.en"):
        write(tmp_path / name, "x\n")
    assert "has no counterpart" in refusal(lambda: pairs_of(tmp_path, "part*.{lang}"))


def test_line_breaks_in_fields_do_not_hide_the_columns(tmp_path: Path) -> None:
    rows = "".join(f'"a\nb\nc {n}",x{n}\n' for n in range(300))
    path = write(tmp_path / "a.txt", f"de,en\n{rows}")
    assert read(path)[299] == ("a\nb\nc 299", "x299")
    path = write(tmp_path / "c.csv", 'de;en\nx;y\n"a\nb";z\n')
    assert read(path) == [("x", "y"), ("a\nb", "z")]


def test_text_may_begin_like_xml_or_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a", '<b>Datei</b>\t<b>File</b>\n{"n"} Dateien\t{"n"} files\n')
    assert read(path)[1] == ('{"n"} Dateien', '{"n"} files')
    path = write(tmp_path / "b", '{"n"} Dateien\t{"n"} files\n')
    assert read(path) == [('{"n"} Dateien', '{"n"} files')]


def test_an_open_quote_is_told_where_it_opens(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'de,en\n"ein,one\n' + "zwei,two\n" * 400)
    assert "line 2: not CSV" in refusal(lambda: read(path))


def test_rows_that_are_looked_at_take_little_memory(tmp_path: Path) -> None:
    wide = "x\t" * 300_000
    path = write(tmp_path / "wide.tsv", f"{wide}\n" * 40)
    script = (
        "import sys; from pathlib import Path;"
        "from dragoman.data.formats import read_file; from dragoman.data.columns import Wanted;"
        "from dragoman.data.lines import Place;"
        "print(sum(1 for _ in read_file(Place(Path(sys.argv[1])), Wanted('de', 'en'))),"
        "Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    count, kib = map(int, done.stdout.split())
    assert count == 40
    assert kib < 300 * 1024
