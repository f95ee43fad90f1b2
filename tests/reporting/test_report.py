"""What a report counts as training text, and what its page shows."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dragoman import settings
from dragoman.config import Config, CorpusConfig, DataConfig, TrainConfig
from dragoman.reporting import report
from dragoman.reporting.breakdown import sentences_of
from dragoman.reporting.report import _training_words, report_page


def config(root: Path, split: str, init_from: str | None = None) -> Config:
    corpus = CorpusConfig(source="files", src="de", tgt="en", split=split)
    files = {name: f"{name}.{{lang}}" for name in ("train", "made", "val")}
    data = DataConfig(
        name="files", root=str(root), src="de", tgt="en", files=files, corpora=[corpus]
    )
    return Config(data=data, train=TrainConfig(init_from=init_from))


def write(root: Path, split: str, line: str) -> None:
    for language in ("de", "en"):
        (root / f"{split}.{language}").write_text(f"{line}\n", encoding="utf-8")


def test_the_text_of_the_run_it_began_with_is_training_text_too(tmp_path: Path) -> None:
    write(tmp_path, "made", "ein Hund läuft")
    write(tmp_path, "train", "ein Junge")
    base = tmp_path / "base"
    base.mkdir()
    settings.save(config(tmp_path, "made"), base / "config.yaml")
    seen, absent = _training_words(config(tmp_path, "train", str(base)))
    assert dict(seen) == {"ein": 1, "hund": 1, "läuft": 1, "junge": 1}
    assert absent == []
    gone = str(tmp_path / "gone")
    seen, absent = _training_words(config(tmp_path, "train", gone))
    assert dict(seen) == {"ein": 1, "junge": 1}
    assert len(absent) == 1
    assert absent[0].startswith(f"the text of the run that this one began with ({gone}: not a run")


class Page(HTMLParser):
    """The elements, addresses and text of a page; every element is closed where it was opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], beside: bool = False
) -> Page:
    """Return the page of a run whose sources, translations and references are ``texts``."""
    write(folder, "train", "ein Hund")
    tokenizer = SimpleNamespace(encode=lambda text: [1] * len(text.split()))
    translator: Any = SimpleNamespace(
        config=config(folder, "train"), src_tokenizer=tokenizer, tgt_tokenizer=tokenizer
    )
    nothing = SimpleNamespace(aligning=None)
    monkeypatch.setattr(report, "attention_of", lambda _, pairs: [nothing for _ in pairs])
    monkeypatch.setattr(report, "compare", lambda *_, **__: [])  # the slow part
    scores = {
        "bleu": {"score": 9.0, "interval": [8.0, 10.0], "signature": texts[0]},
        "decoding": {"method": "greedy"},
        "counts": {"checkpoint": ["step-1"], "weights": "as validated"},
    }
    found = sentences_of(texts, texts, texts)
    other = (texts[0], texts[0], found) if beside else None
    return Page(report_page(translator, folder, "test", scores, found, other))


HOSTILE = [
    "<script>alert(1)</script> <img src=http://example.org/x.png>",
    "</dd></dl><h1>mine</h1> \" onload=x '",
    "![x](http://example.org/x.png)",
    "{{ 7 * 7 }} {% raw %} &amp; &#60;",
    "ça va\N{NO-BREAK SPACE}? mi\N{ZERO WIDTH NON-JOINER}khaham",
]


def test_text_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*HOSTILE, "\x1b[31mred\x07 alarm"]
    page = page_of(tmp_path, monkeypatch, texts, beside=True)
    for text in HOSTILE:
        assert page.text.count(text) >= 6
    assert r"\x1b[31mred\x07 alarm" in page.text
    assert "\x1b" not in page.text
    assert set(page.tags) >= {"table", "dl", "h2"}
    assert not {"script", "img"} & set(page.tags)
    assert page.tags.count("h1") == 1
    assert all(address.startswith("data:") for address in page.addresses)


@pytest.mark.parametrize(
    ("log", "drawn"),
    [
        ('{"step": 1, "train": {"loss": 2.5}}\n{"step": 2, "validation": {"loss": 2.1, "bl', 1),
        ('{"step": 2, "validation": {"loss": 2.1, "bleu": 3.0}}\n7\n\n', 1),
        ('{"st', 0),
        (None, 0),
    ],
)
def test_a_log_is_read_without_the_line_that_a_kill_cut(
    log: str | None, drawn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if log is not None:
        (tmp_path / "train.jsonl").write_text(log, encoding="utf-8")
    page = page_of(tmp_path, monkeypatch, ["a line"])
    assert page.tags.count("img") == drawn
    assert ("There is no log of the training here." in page.text) == (not drawn)
