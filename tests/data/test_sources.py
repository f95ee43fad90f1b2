"""Raw sentence pairs: what is read as it is, and what is refused in one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dragoman.config import CorpusConfig, DataConfig
from dragoman.data import lines, memory, multi30k
from dragoman.data.columns import Wanted
from dragoman.data.corpora import check_texts, corpus_fingerprint, read_pairs, splits_of
from dragoman.data.formats import read_file
from dragoman.data.lines import Place, check_file, decode_lines, read_lines, zip_lines
from dragoman.data.sources import iter_pairs
from dragoman.errors import DragomanError


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def files(root: Path, pattern: str, **keys: str) -> DataConfig:
    """A config of the source `files` with one training corpus and one split pattern."""
    corpus = CorpusConfig(source="files", src=keys.get("src", "de"), tgt=keys.get("tgt", "en"))
    return DataConfig(
        name="files",
        root=str(root),
        src=keys.get("src", "de"),
        tgt=keys.get("tgt", "en"),
        corpora=[corpus],
        files={"train": pattern},
    )


def read(path: Path) -> list[tuple[str, str]]:
    return list(read_file(Place(path), Wanted("de", "en")))


def refusal(call: object) -> str:
    """The one line with which `call` is refused."""
    with pytest.raises(DragomanError) as caught:
        call()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Lines that are accepted.


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"ein\nzwei\n", ["ein", "zwei"]),
        (b"ein\nzwei", ["ein", "zwei"]),
        (b"ein\r\nzwei\r\n", ["ein", "zwei"]),
        (b"ein\r\nzwei\r", ["ein", "zwei"]),
        (b"\xef\xbb\xbfein\nzwei\n", ["ein", "zwei"]),
        (b"\n\nein\n\n", ["", "", "ein", ""]),
        (b"\n", [""]),
        (b"\xef\xbb\xbf\n", [""]),
        (b" ein  Hund \n", [" ein  Hund "]),
        (b"ein\rHund\n", ["ein\rHund"]),
        ("ein\u2028Hund\x0b\x0c\x85\n".encode(), ["ein\u2028Hund\x0b\x0c\x85"]),
        ("ein\n\ufeffzwei\n".encode(), ["ein", "\ufeffzwei"]),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_lines_are_read_as_they_are(
    tmp_path: Path, content: bytes, lines: list[str], pack: Callable[[bytes], bytes]
) -> None:
    # The name never tells whether a file is packed.
    path = write(tmp_path / ("text.gz" if pack is bytes else "text"), pack(content))
    assert list(read_lines(path)) == lines


def test_gzip_files_of_several_members_are_read_to_the_end(tmp_path: Path) -> None:
    path = write(tmp_path / "text", gzip.compress(b"ein\n", mtime=0) + gzip.compress(b"zwei\n"))
    assert list(read_lines(path)) == ["ein", "zwei"]


def test_lines_stream(tmp_path: Path) -> None:
    """The first lines of a file come before a fault further on is met."""
    path = write(tmp_path / "text", b"ein\n" * 5 + b"\xff\n")
    lines = read_lines(path)
    assert [next(lines) for _ in range(5)] == ["ein"] * 5
    assert "line 6" in refusal(lambda: next(lines))


def test_a_stream_without_lines_gives_none() -> None:
    assert list(decode_lines([], "standard input")) == []


def piped(path: Path, content: bytes) -> threading.Thread:
    """Make a named pipe that is written to once, by a thread."""
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,), daemon=True)
    writer.start()
    return writer


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
@pytest.mark.parametrize("count", [1, 3000])
def test_a_pipe_is_read_once_from_its_first_byte(
    tmp_path: Path, pack: Callable[[bytes], bytes], count: int
) -> None:
    lines = [f"Satz {n} mit einigen Wörtern" for n in range(count)]
    writer = piped(tmp_path / "pipe", pack("\n".join(lines).encode()))
    assert check_file(tmp_path / "pipe") == tmp_path / "pipe"  # looked at, not opened
    assert list(read_lines(tmp_path / "pipe")) == lines
    writer.join()


def test_a_pipe_is_refused_where_it_would_be_read_again(tmp_path: Path) -> None:
    pipe = tmp_path / "train.tsv"
    os.mkfifo(pipe)  # nobody writes: to open it would take for ever
    data = files(tmp_path, "train.tsv")
    expected = f"{pipe}: cannot be read (a pipe or device gives its text only once"
    for call in (
        lambda: iter_pairs(data, data.corpora[0]),
        lambda: corpus_fingerprint(data, data.corpora[0]),
        lambda: lines.sha256_of(pipe),
        lambda: lines.remembered_sha256(Path("/dev/null")),
    ):
        assert expected.partition(": ")[2] in refusal(call)
    message = refusal(lambda: check_texts(data))
    assert message.startswith(expected)
    assert message.endswith("(data.files.train)")


# Lines that are refused.


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"ein\nzw\xffei\n", "line 2: not valid UTF-8 (byte 0xff at byte 3"),
        (b"ein\nzwei\nM\xfcnchen", "line 3: not valid UTF-8"),
        (b"ein\n\xed\xa0\x80\n", "line 2: not valid UTF-8"),
        (b"ein\nzw\0ei\n", "line 2: holds a NUL byte"),
    ],
)
def test_bad_bytes_are_refused_with_their_line(
    tmp_path: Path, content: bytes, what: str, packed: bool
) -> None:
    path = write(tmp_path / "text", gzip.compress(content, mtime=0) if packed else content)
    assert refusal(lambda: list(read_lines(path))).startswith(f"{path}: {what}")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(b"ein Hund\n" * 999, mtime=0)[:-9], "truncated"),
        (b"\x1f\x8b", "truncated"),
        (b"\x1f\x8bnothing packed", "corrupt"),
        (gzip.compress(b"ein Hund\n", mtime=0)[:-8] + bytes(8), "the gzip file is corrupt"),
        (bz2.compress(b"ein Hund\n" * 999)[:-9], "the bzip2 file is truncated"),
        (bz2.compress(b"ein Hund\n" * 999)[:30] + bytes(30), "the bzip2 file is corrupt"),
        (lzma.compress(b"ein Hund\n" * 999)[:-30], "the xz file is truncated"),
        (lzma.compress(b"ein Hund\n" * 999)[:20] + bytes(99), "the xz file is corrupt"),
        ("Hündin\n".encode("utf-16"), "looks like UTF-16, expected UTF-8 text"),
        ("Hündin\n".encode("utf-16-le"), "looks like UTF-16"),
        ("Hündin\n".encode("utf-16-be"), "looks like UTF-16"),
        (b"\xfe\xff" + "Hündin\n".encode("utf-16-be"), "looks like UTF-16"),
        ("Hündin\n".encode("utf-32"), "looks like UTF-32"),
        (b"PK\x03\x04\x14\0\0\0", "looks like a zip archive"),
        (b"\x28\xb5\x2f\xfd\x04\0", "the Zstandard file is truncated"),
        (gzip.compress(gzip.compress(b"ein", mtime=0), mtime=0), "looks like a gzip file"),
    ],
)
def test_files_that_cannot_be_right_are_refused(tmp_path: Path, content: bytes, what: str) -> None:
    path = write(tmp_path / "text", content)
    message = refusal(lambda: list(read_lines(path)))
    assert message.startswith(f"{path}: ")
    assert what in message


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    missing, below = tmp_path / "text", write(tmp_path / "file", "ein\n") / "text"
    assert refusal(lambda: list(read_lines(missing))) == f"{missing}: no such file"
    assert refusal(lambda: list(read_lines(below))) == f"{below}: no such file"
    assert "is a folder" in refusal(lambda: list(read_lines(tmp_path)))
    assert "cannot be read" in refusal(lambda: list(read_lines(tmp_path / "a\0b")))


@pytest.mark.parametrize("pattern", ["train.{lang}", "train.tsv"])
def test_a_folder_that_may_not_be_entered_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    asked = os.stat

    def denied(path: object, *rest: object, **keys: object) -> os.stat_result:
        if str(path).startswith(str(tmp_path / "closed")):  # chmod does not stop root
            raise PermissionError(13, "Permission denied", path)
        return asked(path, *rest, **keys)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", denied)
    closed = files(tmp_path / "closed", pattern)
    message = refusal(lambda: iter_pairs(closed, closed.corpora[0]))
    assert message.endswith("cannot be read (Permission denied) (data.files.train)")
    data = DataConfig(root=str(tmp_path / "closed"))
    assert "cannot be read (Permission denied)" in refusal(lambda: read_pairs(data, "val"))
    data = DataConfig(root=str(tmp_path / ("long" * 99)))
    assert "cannot be read (File name too long)" in refusal(lambda: read_pairs(data, "val"))


def test_unreadable_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "text", "ein\n")

    def denied(*_: object) -> None:  # chmod does not stop a test that runs as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert refusal(lambda: list(read_lines(path))) == f"{path}: cannot be read (Permission denied)"


# Two files.


def test_two_files_are_paired_line_by_line(tmp_path: Path) -> None:
    write(tmp_path / "train.de", b"\xef\xbb\xbfein  Hund\r\n\r\nzwei")
    write(tmp_path / "train.en", gzip.compress(b"a dog\n\ntwo\n", mtime=0))
    data = files(tmp_path, "train.{lang}")
    expected = [("ein  Hund", "a dog"), ("", ""), ("zwei", "two")]
    assert list(iter_pairs(data, data.corpora[0])) == expected
    assert read_pairs(data, "train") == (["ein  Hund", "", "zwei"], ["a dog", "", "two"])


def test_packed_files_are_found_without_naming_gz(tmp_path: Path) -> None:
    write(tmp_path / "train.de.gz", gzip.compress(b"ein\n", mtime=0))
    write(tmp_path / "train.en", b"one\n")
    assert read_pairs(files(tmp_path, "train.{lang}"), "train") == (["ein"], ["one"])
    write(tmp_path / "train.en.gz", gzip.compress(b"packed\n", mtime=0))
    assert read_pairs(files(tmp_path, "train.{lang}"), "train") == (["ein"], ["one"])
    assert read_pairs(files(tmp_path, "train.{lang}.gz"), "train") == (["ein"], ["packed"])
    write(tmp_path / "more.tsv.xz", lzma.compress(b"ein\tone\n"))
    for pattern in ("more.tsv", "more.tsv.xz"):
        assert read_pairs(files(tmp_path, pattern), "train") == (["ein"], ["one"])


def test_home_folders_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "mine.tsv", "ein\tone\n")
    for root, pattern in (("~", "mine.tsv"), ("/nowhere", "~/mine.tsv")):
        assert read_pairs(files(Path(root), pattern), "train") == (["ein"], ["one"])
    message = refusal(lambda: read_pairs(files(Path("~nobody-of-this-name"), "mine.tsv"), "train"))
    assert message.startswith("~nobody-of-this-name/mine.tsv: no such file")


@pytest.mark.parametrize(("german", "english"), [(3, 5), (5, 3), (4, 3), (1, 2)])
def test_unequal_files_are_refused_with_both_counts(
    tmp_path: Path, german: int, english: int
) -> None:
    src = write(tmp_path / "train.de", "ein\n" * german)
    tgt = write(tmp_path / "train.en", "one\n" * english)
    message = refusal(lambda: list(zip_lines(src, tgt)))
    assert message.startswith(f"{src} has {german} lines but {tgt} has {english};")


def test_a_fault_in_the_longer_file_is_still_told(tmp_path: Path) -> None:
    write(tmp_path / "train.de", b"ein\n")
    tgt = write(tmp_path / "train.en", b"one\ntwo\nth\xffree\n")
    assert f"{tgt}: line 3" in refusal(lambda: read_pairs(files(tmp_path, "train.{lang}"), "train"))


def test_an_unknown_language_is_a_missing_file(tmp_path: Path) -> None:
    write(tmp_path / "train.de", "ein\n")
    data = files(tmp_path, "train.{lang}", tgt="nl")
    assert refusal(lambda: iter_pairs(data, data.corpora[0])) == (
        f"{tmp_path / 'train.nl'}: no such file (data.files.train)"
    )


# TSV.


@pytest.mark.parametrize(
    ("content", "pairs"),
    [
        ("ein\tone\nzwei\ttwo\n", [("ein", "one"), ("zwei", "two")]),
        ("ein\tone\r\nzwei\t\r\n", [("ein", "one"), ("zwei", "")]),
        ("de\ten\nein\tone\n", [("ein", "one")]),
        ("en\tde\none\tein\n", [("ein", "one")]),
        ("\ufeffen\tde\r\none\tein", [("ein", "one")]),
        ('"ein\t"one\n\n', [('"ein', '"one'), ("", "")]),
    ],
)
def test_tsv(tmp_path: Path, content: str, pairs: list[tuple[str, str]]) -> None:
    write(tmp_path / "train.tsv", content)
    write(tmp_path / "packed.tsv.gz", gzip.compress(content.encode(), mtime=0))
    for pattern in ("train.tsv", "packed.tsv.gz", "packed.tsv"):
        data = files(tmp_path, pattern)
        assert list(iter_pairs(data, data.corpora[0])) == pairs


def test_what_lies_beside_a_root_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "raw").mkdir(parents=True)
    (tmp_path / "made").mkdir()
    (tmp_path / "raw").symlink_to(tmp_path / "elsewhere" / "raw")
    write(tmp_path / "made" / "pairs.tsv", "ein\tone\n")
    data = files(tmp_path / "raw", "../made/pairs.tsv")
    assert list(iter_pairs(data, data.corpora[0])) == [("ein", "one")]


def test_the_reversed_corpus_reads_the_same_columns(tmp_path: Path) -> None:
    """Training on both directions of one file, as for back-translation."""
    write(tmp_path / "train.tsv", "ein\tone\n")
    data = files(tmp_path, "train.tsv")
    reverse = CorpusConfig(source="files", src="en", tgt="de")
    assert list(iter_pairs(data, reverse)) == [("one", "ein")]
    other = CorpusConfig(source="files", src="fr", tgt="en")
    assert list(iter_pairs(data, other)) == [("ein", "one")]


def test_a_header_of_other_languages_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", "fr\tcs\nun\tjeden\n")
    with pytest.warns(UserWarning, match=r"line 1: 'fr' and 'cs' are taken for a sentence pair"):
        assert len(read(path)) == 2
    path = write(tmp_path / "train.tsv", "EN\tDE\none\tein\n")
    assert read(path) == [("ein", "one")]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("ein\tone\nzwei\n", "line 2: 1 column, expected at least 2"),
        ("de\ten\nein one\n", "line 2: 1 column,"),
        ("de\tfr\nein\tun\n", "line 1: the header names the languages 'de' and 'fr'"),
        ("de\ten\n", "holds a header but no sentence pair"),
    ],
)
def test_bad_tsv_is_refused(tmp_path: Path, content: str, what: str) -> None:
    path = write(tmp_path / "train.tsv", content)
    assert refusal(lambda: read(path)).startswith(f"{path}: {what}")


# JSON lines.


def test_jsonl(tmp_path: Path) -> None:
    records = [
        {"de": "ein  Hund", "en": "a dog", "id": 3},
        {"translation": {"en": "two", "de": "zwei"}},
        {"de": "", "en": "\u2028"},
        {"de": "drei\nvier", "en": "three"},
    ]
    text = "\ufeff" + "\r\n\r\n".join(json.dumps(record) for record in records)
    write(tmp_path / "train.jsonl", text)
    write(tmp_path / "packed.jsonl.gz", gzip.compress(text.encode(), mtime=0))
    for pattern in ("train.jsonl", "packed.jsonl.gz"):
        data = files(tmp_path, pattern)
        expected = [("ein  Hund", "a dog"), ("zwei", "two"), ("", "\u2028")]
        expected.append(("drei\nvier", "three"))  # white space, as any other
        assert list(iter_pairs(data, data.corpora[0])) == expected


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"de": "ein", "en"', "not valid JSON"),
        ("ein\tone", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"de": %s}' % ("1" * 5000), "not valid JSON"),
        ('["ein", "one"]', "not a JSON object"),
        ('{"de": "ein", "fr": "un"}', "no key 'en' (keys found: 'de', 'fr')"),
        ('{"translation": {"en": "one"}}', "no key 'de' (keys found: 'en')"),
        ("{}", "no key 'de' (keys found: none)"),
        ('{"de": "ein", "en": 1}', "'en' is not a string"),
        ('{"de": "ein", "en": null}', "'en' is not a string"),
        ('{"de": "ein", "en": "o\\u0000ne"}', "'en' holds a NUL"),
        ('{"de": "ein", "en": "\\ud83d"}', "'en' holds half of a surrogate pair"),
    ],
)
def test_bad_jsonl_is_refused(tmp_path: Path, line: str, what: str) -> None:
    path = write(tmp_path / "train.jsonl", f'{{"de": "ein", "en": "one"}}\n{line}\n')
    message = refusal(lambda: read(path))
    assert message.startswith(f"{path}: line 2: {what}")


def test_jsonl_without_a_pair_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", "\n\n")
    assert "no sentence pair" in refusal(lambda: read(path))


# Splits, patterns, languages.


@pytest.mark.parametrize("pattern", ["train.{lang}", "train.tsv", "train.jsonl.gz"])
def test_files_that_are_not_there_are_refused_before_reading(tmp_path: Path, pattern: str) -> None:
    data = files(tmp_path, pattern)
    assert "no such file" in refusal(lambda: iter_pairs(data, data.corpora[0]))
    assert "no such file" in refusal(lambda: corpus_fingerprint(data, data.corpora[0]))


def test_unknown_splits_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    data = files(tmp_path, "train.{lang}")
    data.files["test"] = "test.{lang}"
    assert splits_of(data) == ["train", "test", "val"]  # the last is held out
    message = refusal(lambda: read_pairs(data, "tset"))
    assert message == (
        "data.files has no split 'tset', expected train or test; did you mean 'test'?"
    )
    data.files = {}
    assert "there is no split 'train'" in refusal(lambda: read_pairs(data, "train"))


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        (
            "multi30k",
            "test_2016_flikr",
            "Multi30k has no split 'test_2016_flikr', expected train, val, test_2016_flickr, "
            "test_2017_flickr, test_2017_mscoco or test_2018_flickr; "
            "did you mean 'test_2016_flickr'?",
        ),
        ("captions", "trian", "did you mean 'train'?"),
    ],
)
def test_unknown_splits_of_named_sources(source: str, split: str, message: str) -> None:
    found = refusal(lambda: read_pairs(DataConfig(name=source), split))
    assert found.endswith(message)


@pytest.mark.parametrize("source", ["multi30k", "captions"])
def test_unknown_languages_are_refused_with_the_key(source: str) -> None:
    message = refusal(lambda: splits_of(DataConfig(name=source, src="dee")))
    assert message.startswith("data.src: ")
    assert message.endswith("did you mean 'de'?")
    data = DataConfig(corpora=[CorpusConfig(), CorpusConfig(source=source, tgt="english")])
    message = refusal(lambda: iter_pairs(data, data.corpora[1]))
    assert message.startswith("data.corpora.1.tgt: ")
    assert "'english'" in message
    message = refusal(lambda: iter_pairs(data, CorpusConfig(source=source, tgt="de")))
    assert message == "data.corpora.tgt: source and target are both 'de'"


# What a run is refused before it begins.


def corpus_of_files(root: Path, **patterns: str) -> DataConfig:
    """Write TRAIN, VAL and TEST in German and English; split -> pattern, train is trained on."""
    for split in ("train", "val", "test"):
        for language in ("de", "en"):
            write(root / f"{split}.{language}", f"{split} {language} 1\n{split} {language} 2\n")
    data = files(root, "train.{lang}")
    data.files = {"train": "train.{lang}", "val": "val.{lang}", "test": "test.{lang}", **patterns}
    return data


def test_text_that_is_there_and_apart_is_accepted(tmp_path: Path) -> None:
    check_texts(corpus_of_files(tmp_path))
    (tmp_path / "test.de").unlink()
    check_texts(corpus_of_files(tmp_path, test="nowhere.tsv"))  # nothing is tested yet
    corpora = [CorpusConfig(source="captions")]
    check_texts(DataConfig(name="captions", corpora=corpora))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_missing_file_is_named_with_its_key(tmp_path: Path, split: str) -> None:
    data = corpus_of_files(tmp_path)
    (tmp_path / f"{split}.en").unlink()
    path = tmp_path / f"{split}.en"
    assert refusal(lambda: check_texts(data)) == f"{path}: no such file (data.files.{split})"


def test_a_fault_in_the_validation_text_is_found_at_once(tmp_path: Path) -> None:
    data = corpus_of_files(tmp_path)
    write(tmp_path / "val.en", b"one\nt\xffwo\n")
    assert f"{tmp_path / 'val.en'}: line 2: not valid" in refusal(lambda: check_texts(data))


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("form", ["{}.{{lang}}", "packed.{{lang}}", "table.tsv", "half.{{lang}}"])
def test_evaluation_text_under_another_name_is_not_trained_on(
    tmp_path: Path, split: str, form: str
) -> None:
    data = corpus_of_files(tmp_path, more=form.format(split))
    german, english = ((tmp_path / f"{split}.{code}").read_text() for code in ("de", "en"))
    for code, text in (("de", german), ("en", english)):
        write(tmp_path / f"packed.{code}.gz", gzip.compress(text.encode()))
    write(tmp_path / "half.de", "made by\na model\n")
    write(tmp_path / "half.en", english)
    rows = zip(german.splitlines(), english.splitlines(), strict=True)
    write(tmp_path / "table.tsv", "".join(f"{de}\t{en}\n" for de, en in rows))
    check_texts(data)
    data.corpora.append(CorpusConfig(source="files", split="more"))
    assert refusal(lambda: check_texts(data)) == (
        f"data.corpora.1.split: 'more' is the text of the split '{split}', which is for evaluation "
        "and must not be trained on"
    )


@pytest.mark.parametrize("split", ["val", "validation", "test_2016", "dev", "newstest2019"])
def test_splits_for_evaluation_are_not_trained_on(tmp_path: Path, split: str) -> None:
    data = corpus_of_files(tmp_path, **{split: "val.{lang}"})
    check_texts(data)
    data.corpora.append(CorpusConfig(source="files", split=split))
    assert "for evaluation and must not" in refusal(lambda: check_texts(data))


def test_evaluation_text_is_not_trained_on_backwards(tmp_path: Path) -> None:
    data = corpus_of_files(tmp_path, more="val.{lang}")
    data.corpora.append(CorpusConfig(source="files", split="more", src="en", tgt="de"))
    assert "'more' is the text of the split 'val'" in refusal(lambda: check_texts(data))


def test_a_part_of_the_evaluation_text_or_more_is_other_text(tmp_path: Path) -> None:
    """Overlaps are another question: what is refused here is the split itself."""
    data = corpus_of_files(tmp_path, more="more.{lang}")
    data.corpora.append(CorpusConfig(source="files", split="more"))
    for change in (lambda text: text[: text.index(b"\n") + 1], lambda text: text + b"end\n"):
        for language in ("de", "en"):
            text = (tmp_path / f"val.{language}").read_bytes()
            write(tmp_path / f"more.{language}", change(text))
        check_texts(data)


@pytest.mark.parametrize("name", ["../../victim/pwned", "a/b", "..", "", ".hidden", "a\nb", "a b"])
def test_the_name_of_a_split_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    data = corpus_of_files(tmp_path, **{name: "val.{lang}"})
    for call in (lambda: read_pairs(data, name), lambda: splits_of(data)):
        assert refusal(call).startswith(f"data.files: {name!r} cannot be part of a file name")
    pairs = {"train": [("ein", "one")], name: [("zwei", "two")]}
    assert refusal(lambda: memory.read(pairs, "de", "en")).startswith(f"pairs: {name!r} cannot be")


# The embedded corpus.


def test_captions_go_both_ways() -> None:
    forth, back = DataConfig(name="captions"), DataConfig(name="captions", src="en", tgt="de")
    assert splits_of(forth) == splits_of(back)
    for split in splits_of(forth):
        sources, references = read_pairs(forth, split)
        assert len(sources) == len(references) > 0
        assert read_pairs(back, split) == (references, sources)
        corpus = CorpusConfig(source="captions", split=split)
        assert list(iter_pairs(forth, corpus)) == list(zip(sources, references, strict=True))


def test_captions_know_only_german_and_english() -> None:
    data = DataConfig(name="captions", src="fr")
    assert refusal(lambda: read_pairs(data, "train")).startswith(
        "data.src: captions has no language 'fr', expected de or en"
    )


# Fingerprints.


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    src = write(tmp_path / "train.de", "ein\n")
    write(tmp_path / "train.en", "one\n")
    data = files(tmp_path, "train.{lang}")
    corpus = data.corpora[0]
    first = corpus_fingerprint(data, corpus)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert corpus_fingerprint(data, corpus) == first
    reverse = CorpusConfig(source="files", src="en", tgt="de")
    assert corpus_fingerprint(data, reverse) != first
    write(src, "eins\n")
    assert corpus_fingerprint(data, corpus) != first
    write(src, "ein\n")
    os.utime(src, ns=(1, 1))
    assert corpus_fingerprint(data, corpus) == first


def test_fingerprints_tell_directions_splits_and_sources_apart(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "ein\tone\n")
    data = files(tmp_path, "train.tsv")
    corpora = [
        CorpusConfig(source="files"),
        CorpusConfig(source="files", src="en", tgt="de"),
        CorpusConfig(source="captions"),
        CorpusConfig(source="captions", src="en", tgt="de"),
        CorpusConfig(source="captions", split=splits_of(DataConfig(name="captions"))[-1]),
    ]
    assert len({corpus_fingerprint(data, corpus) for corpus in corpora}) == len(corpora)


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "text", "ein\n")
    first = lines.remembered_sha256(path)
    monkeypatch.setattr(lines, "sha256_of", lambda _: "hashed again")
    assert lines.remembered_sha256(path) == first
    write(path, "eins\n")
    assert lines.remembered_sha256(path) == "hashed again"


# Multi30k.


def test_czech_has_no_test_sets_of_2017() -> None:
    data = DataConfig(src="cs", tgt="en")
    assert splits_of(data) == ["train", "val", "test_2016_flickr", "test_2018_flickr"]
    assert len(splits_of(DataConfig(src="fr", tgt="de"))) == 6
    for ends in (("cs", "en"), ("de", "cs")):
        message = refusal(
            lambda ends=ends: read_pairs(DataConfig(src=ends[0], tgt=ends[1]), "test_2017_flickr")
        )
        assert message.startswith(f"Multi30k in {' and '.join(ends)} has no split")
        assert "expected train, val, test_2016_flickr or test_2018_flickr;" in message


def test_a_missing_file_of_multi30k_says_how_to_get_it(tmp_path: Path) -> None:
    data = DataConfig(root=str(tmp_path / "nowhere"), corpora=[CorpusConfig()])
    message = refusal(lambda: iter_pairs(data, data.corpora[0]))
    assert message.startswith(str(tmp_path / "nowhere" / "train.de.gz"))
    assert "`make data`" in message


def test_a_file_that_is_not_of_multi30k_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(root=str(tmp_path))
    packed = gzip.compress(b"ein\n", mtime=0)
    wrong = write(tmp_path / "val.de.gz", packed)
    write(tmp_path / "val.en", "one\n")
    message = refusal(lambda: read_pairs(data, "val"))
    assert message.startswith(f"{wrong}: ")
    assert "SHA-256" in message
    assert "`make data`" in message
    monkeypatch.setitem(multi30k.CHECKSUMS, "val.de.gz", lines.sha256_of(wrong))
    assert read_pairs(data, "val") == (["ein"], ["one"])


def test_unpacked_files_of_multi30k_are_accepted_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.de", "ein\nzwei\n")
    write(tmp_path / "train.cs", "jeden\n")
    data = DataConfig(root=str(tmp_path), src="cs", tgt="de")
    assert "has 1 lines but" in refusal(lambda: read_pairs(data, "train"))
    write(tmp_path / "train.cs", "jeden\ndva\n")
    assert read_pairs(data, "train") == (["jeden", "dva"], ["ein", "zwei"])


def multi30k_folder() -> Path:
    here = Path(__file__).resolve().parents[2] / "data" / "multi30k" / "raw"
    return Path(os.environ.get("MULTI30K") or here)


def test_multi30k_has_the_published_numbers_of_pairs() -> None:
    counts = {"train": 29_000, "val": 1_014, "test_2016_flickr": 1_000}
    names = multi30k.wanted_files(None, list(counts))
    if not all((multi30k_folder() / name).exists() for name in names):
        pytest.skip("Multi30k is not here")
    for src, tgt in (("de", "en"), ("fr", "cs")):
        data = DataConfig(root=str(multi30k_folder()), src=src, tgt=tgt)
        for split, count in counts.items():
            sources, references = read_pairs(data, split)
            assert len(sources) == len(references) == count
            corpus = CorpusConfig(src=tgt, tgt=src, split=split)
            assert next(iter_pairs(data, corpus)) == (references[0], sources[0])
    data = DataConfig(root=str(multi30k_folder()))
    assert read_pairs(data, "test_2016_flickr")[1][0] == (
        "A man in an orange hat starring at something."
    )
