"""Scores count the tokens that suit the target language, and a run keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.ter import TER

import dragoman.languages
import tinyruns
from dragoman import settings
from dragoman.decoding.consensus import sentence_bleu
from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS, check_tokens
from dragoman.evaluation.scores import score
from dragoman.languages import score_tokens
from dragoman.training.distributed import Ranks
from dragoman.training.trainer import Trainer

REFERENCES = ["今天天气很好我们去吧。", "他昨天买了一本新书看。", "这个城市非常漂亮安静。"]
# One character of ten is another one.
HYPOTHESES = ["今天天气很坏我们去吧。", "他昨天买了一本旧书看。", "这个城市非常漂亮热静。"]


def test_chinese_is_scored_by_its_characters() -> None:
    plain = METRICS["bleu"](HYPOTHESES, REFERENCES, "zh").score
    found = METRICS["bleu"](HYPOTHESES, REFERENCES, "zh", "zh")
    expected = BLEU(tokenize="zh").corpus_score(HYPOTHESES, [REFERENCES])
    assert plain < 1 < 60 < found.score == pytest.approx(expected.score)
    assert "tok:zh" in found.signature
    ter = METRICS["ter"](HYPOTHESES, REFERENCES, "zh", "zh")
    asian = TER(normalized=True, asian_support=True).corpus_score(HYPOTHESES, [REFERENCES])
    assert ter.score == pytest.approx(asian.score) == pytest.approx(100 / 11, abs=0.5)
    assert "asian:yes" in ter.signature.replace("asian:True", "asian:yes")


def test_a_metric_of_words_that_moses_does_not_know_is_left_out() -> None:
    assert "bleu_lc_tok" in score(HYPOTHESES, REFERENCES, "fr")
    assert "bleu_lc_tok" not in score(HYPOTHESES, REFERENCES, "sw")


def test_sentence_bleu_counts_the_same_tokens() -> None:
    found = sentence_bleu(HYPOTHESES[:1], REFERENCES[:1], "zh")[0, 0]
    metric = BLEU(tokenize="zh", effective_order=True)
    assert found == pytest.approx(metric.sentence_score(HYPOTHESES[0], REFERENCES[:1]).score)


@pytest.mark.parametrize(
    ("language", "with_packages", "without"),
    [
        ("de", "13a", "13a"),
        ("zh-TW", "zh", "zh"),
        ("yue", "zh", "zh"),
        ("lzh", "zh", "zh"),
        ("ja", "ja-mecab", "char"),
        ("ko-KR", "ko-mecab", "13a"),
        ("th", "char", "char"),
        ("khm", "char", "char"),
        ("swa", "13a", "13a"),
        ("none-such", "13a", "13a"),
    ],
)
def test_tokens_suit_the_language(
    language: str, with_packages: str, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for there, expected in ((object(), with_packages), (None, without)):
        monkeypatch.setattr(dragoman.languages, "find_spec", lambda name, there=there: there)
        assert score_tokens(language) == expected


@pytest.mark.parametrize("tokens", ["ja-mecab", "ko-mecab"])
def test_tokens_that_cannot_be_had_are_refused_by_name(
    tokens: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(tokenize: str) -> None:
        raise RuntimeError("\nThis needs packages\nthat are not there.\n")

    monkeypatch.setattr("dragoman.evaluation.metrics.BLEU", missing)
    extra = tokens[:2]
    with pytest.raises(
        DragomanError, match=rf"^evaluation\.tokenize: {tokens} needs .*\[{extra}\]"
    ):
        check_tokens(tokens)


def test_japanese_is_cut_by_mecab_where_it_is() -> None:
    pytest.importorskip("MeCab")
    pytest.importorskip("ipadic")
    lines = ["これは新しい本です。", "彼は昨日学校へ行きました。"]
    found = METRICS["bleu"](lines, lines, "ja", score_tokens("ja"))
    assert found.score == pytest.approx(100)
    assert "tok:ja-mecab" in found.signature


def test_a_run_is_scored_with_the_same_tokens_to_its_end(tmp_path: Path) -> None:
    tinyruns.write_pairs(tmp_path / "text")
    for side in ("train", "val", "test"):
        (tmp_path / "text" / f"{side}.en").rename(tmp_path / "text" / f"{side}.zh")
    corpora = [{"source": "files", "src": "de", "tgt": "zh"}]
    options = {"data__tgt": "zh", "data__corpora": corpora, "train__max_steps": 2}
    config = tinyruns.config(tmp_path, **options)
    assert tinyruns.run_training(config, None) == 0
    run = tinyruns.run_of(config)
    assert settings.load(run.folder / "config.yaml").evaluation.tokenize == "zh"
    again = tinyruns.config(tmp_path, **options)
    Trainer(again, run, Ranks())
    assert again.evaluation.tokenize == "zh"
    other = tinyruns.config(tmp_path, **options, evaluation__tokenize="13a")
    with pytest.raises(DragomanError, match=r"^evaluation\.tokenize: .* is scored with zh tokens"):
        Trainer(other, run, Ranks())
