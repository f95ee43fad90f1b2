"""What a report counts as training text."""

from __future__ import annotations

from pathlib import Path

from dragoman import settings
from dragoman.config import Config, CorpusConfig, DataConfig, TrainConfig
from dragoman.reporting.report import _training_words


def config(root: Path, split: str, init_from: str | None = None) -> Config:
    corpus = CorpusConfig(source="files", src="de", tgt="en", split=split)
    files = {name: f"{name}.{{lang}}" for name in ("train", "made", "val")}
    data = DataConfig(
        name="files", root=str(root), src="de", tgt="en", files=files, corpora=[corpus]
    )
    return Config(data=data, train=TrainConfig(init_from=init_from))


def test_the_text_of_the_run_it_began_with_is_training_text_too(tmp_path: Path) -> None:
    for split, line in (("made", "ein Hund läuft"), ("train", "ein Junge")):
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text(f"{line}\n", encoding="utf-8")
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
