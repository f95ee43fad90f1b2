"""Lines to lines, over a tokenizer of whole words and half-trained models."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import tiny
from dragoman.config import Config, CorpusConfig, DataConfig
from dragoman.data.tokenizers import EOS, SPECIALS, UNK, Cutter, Tokenizer
from dragoman.decoding.consensus import consensus
from dragoman.decoding.search import search
from dragoman.decoding.translator import Translator, choose_device
from dragoman.errors import DragomanError


class Spaces(Cutter):
    lowercase = False
    identity = "spaces"

    def __call__(self, text: str) -> list[str]:
        return text.split()


class Words(Tokenizer):
    """Words w4 to w11, and whatever else as <unk>."""

    cutter, tags = Spaces(), []
    is_subword = False
    make_cutter = train = load = None  # it is only ever made by hand

    def __len__(self) -> int:
        return tiny.VOCAB

    def pieces(self, unit: str) -> list[int]:
        known = {f"w{n}": n for n in range(len(SPECIALS), tiny.VOCAB)}
        return [known.get(unit, UNK)]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        return [SPECIALS[n] if n < len(SPECIALS) else f"w{n}" for n in ids]

    def detokenize(self, tokens: Sequence[str]) -> str:
        return " ".join(tokens)

    def tag_id(self, tag: str) -> int:
        return {"<2en>": 11}[tag]

    def files(self, side: str) -> dict[str, bytes]:
        return {}


def translator(name: str = "lstm", **data: Any) -> Translator:
    config = Config(data=DataConfig(corpora=[CorpusConfig()], **data))
    return Translator([tiny.fluent(name)], Words(), Words(), config, torch.device("cpu"))


LINES = [" ".join(f"w{n}" for n in row[:-1]) for row in tiny.sentences([3, 6, 1, 4, 2, 5, 3, 3, 2])]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_one_translation_per_line_in_order(size: int) -> None:
    lines = [*LINES[:4], "", *LINES[4:], "   "]
    found = translator().translate_lines(lines, tiny.decode(batch_size=size))
    assert len(found) == len(lines)
    for line, row in zip(lines, found, strict=True):
        if not line.strip():
            assert row == [("", 0.0, 0.0, [])]
            continue
        src = torch.tensor([[*Words().encode(line), EOS]])
        ((best,),) = search([tiny.fluent("lstm")], src, torch.tensor([src.shape[1]]), tiny.decode())
        assert row[0].text == Words().decode(best.tokens)
        assert row[0].tokens == Words().tokens(best.tokens)
        assert row[0].score == pytest.approx(best.score, abs=1e-10)
        assert row[0].log_prob == pytest.approx(best.log_prob, abs=1e-10)


def test_nbest_gives_several_translations_best_first() -> None:
    for row in translator().translate_lines(LINES, tiny.decode(beam_size=4, nbest=3)):
        assert len({translation.text for translation in row}) == 3
        assert row[0].score >= row[1].score >= row[2].score


def test_an_over_long_line_is_translated_in_parts() -> None:
    model = translator(max_length=6)
    lines = ["w4 w5", " ".join(["w6"] * 9), "w7"]
    found = model.translate_lines(lines, tiny.decode(), first_line=11)
    assert model.remarks() == ["1 lines were translated in parts (decode.split)"]
    assert model.remarks() == []
    # Alone in its batch: the same up to the rounding of other products.
    halves = [" ".join(["w6"] * count) for count in (4, 5)]
    alone = [row[0] for row in translator(max_length=6).translate_lines(halves, tiny.decode())]
    assert found[1][0].text == " ".join(part.text for part in alone).strip()
    assert found[1][0].score == pytest.approx(sum(part.score for part in alone), abs=1e-10)
    assert found[1][0].log_prob == pytest.approx(sum(p.log_prob for p in alone), abs=1e-10)
    assert found[1][0].tokens == [token for part in alone for token in part.tokens]
    assert [row[0].text for row in found[::2]] == [
        row[0].text for row in model.translate_lines(lines[::2], tiny.decode())
    ]


@pytest.fixture
def doubly_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sentence end at two spaces: these words have no punctuation."""

    def split(line: str, language: str) -> list[str]:
        return re.findall(r".+?(?:  |$)", line)

    monkeypatch.setattr("dragoman.decoding.sentences.sentences", split)


@pytest.mark.usefixtures("doubly_spaced")
def test_lines_are_split_as_decode_says() -> None:
    model, line = translator(), "w4 w5  w6 w7  w8"
    whole, apart = (
        model.translate_lines([line], tiny.decode(split=split))[0][0].text
        for split in ("never", "always")
    )
    pieces = model.translate_lines(["w4 w5", "w6 w7", "w8"], tiny.decode())
    assert apart == "  ".join(row[0].text for row in pieces).strip()
    assert apart != whole
    model.remarks()
    for usual, expected in ((1, apart), (2, apart), (3, whole)):  # the line has three
        model.sentences = usual
        assert model.translate_lines([line], tiny.decode())[0][0].text == expected
        assert len(model.remarks()) == (expected == apart)


@pytest.mark.usefixtures("doubly_spaced")
def test_several_translations_of_a_line_in_parts() -> None:
    decode = tiny.decode(beam_size=4, nbest=3)
    (row,) = translator().translate_lines(["w4 w5  w6 w7"], decode)
    first, second = translator().translate_lines(["w4 w5", "w6 w7"], decode)
    expected = zip(first, second, strict=True)
    assert [t.text for t in row] == [f"{a.text}  {b.text}".strip() for a, b in expected]


@pytest.mark.usefixtures("doubly_spaced")
def test_drawn_parts_do_not_depend_on_other_lines() -> None:
    decode = tiny.decode(method="sample")
    lines = ["w4 w5  w4 w5", "w4 w5  w4 w5"]
    together = [row[0].text for row in translator().translate_lines(lines, decode, 7)]
    for number, line in enumerate(lines):
        ((alone,),) = translator().translate_lines([line], decode, 7 + number)
        assert alone.text == together[number]
    first, second = (text.split("  ")[0] for text in together)
    assert first != second


def test_what_nobody_sees_changes_nothing() -> None:
    model = translator()
    lines = ["w4 w5", "\u200bw4 w5", "\ufeffw4\u00ad w5\u200e", "\u200b", " \u2060 "]
    found = [row[0].text for row in model.translate_lines(lines, tiny.decode())]
    assert found[0] == found[1] == found[2] != ""
    assert found[3] == found[4] == ""


def test_samples_follow_from_the_line_number_not_the_batch() -> None:
    config = tiny.decode(method="sample", batch_size=100)
    whole = translator().translate_lines(LINES, config)
    parts = [
        translator().translate_lines([line], config, first_line=number)[0]
        for number, line in enumerate(LINES, 1)
    ]
    assert [row[0].text for row in whole] == [row[0].text for row in parts]


def test_progress_counts_every_line_that_is_searched() -> None:
    counts: list[int] = []
    translator().translate_lines([*LINES, ""], tiny.decode(batch_size=4), progress=counts.append)
    assert counts == [4, 4, 1]


def test_the_tag_of_the_run_goes_before_the_source() -> None:
    tagged = translator()
    tagged.config = dataclasses.replace(
        tagged.config, data=DataConfig(corpora=[CorpusConfig(tag="<2en>")])
    )
    assert tagged.encode_line("w5 w6") == [11, 5, 6]
    assert translator().encode_line("w5 w6") == [5, 6]


def test_unknown_words_are_copied_from_where_attention_looks() -> None:
    model = copy.deepcopy(tiny.fluent("lstm"))
    with torch.no_grad():
        model.output.bias[UNK] += 8
    own = dataclasses.replace(translator(), models=[model])
    lines = ["alpha w5 beta", "w6 gamma"]
    plain = own.translate_lines(lines, tiny.decode(replace_unknown=False))
    replaced = own.translate_lines(lines, tiny.decode(replace_unknown=True))
    src = [[*Words().encode(line), EOS] for line in lines]
    seen = 0
    for row, (line, before, after) in enumerate(zip(lines, plain, replaced, strict=True)):
        words = before[0].text.split()
        tokens = [UNK if w == "<unk>" else int(w[1:]) for w in words]
        batch = tiny.pairs([src[row]], [[*tokens, EOS]])
        weights: dict[str, torch.Tensor] = {}
        model(batch, weights=weights)
        looks = weights["decoder.attention"][0, 0].argmax(-1).tolist()
        units = line.split()
        for t, word in enumerate(words):
            if word == "<unk>" and looks[t] < len(units):
                words[t] = units[looks[t]]
                seen += 1
        assert after[0].text == " ".join(words)
        assert after[0].score == before[0].score
    assert seen > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for wanted in ("cuda", "cuda:0", "cuda:7"):
        with pytest.raises(DragomanError, match=f"'{wanted}'.*no CUDA device.*use cpu"):
            choose_device(wanted)


@pytest.mark.parametrize("nbest", [1, 3])
def test_minimum_bayes_risk_returns_what_the_samples_agree_on(nbest: int) -> None:
    options: dict[str, Any] = {"seed": 5, "top_k": 4}
    lines = ["w4 w5 w6 w7 w8", "", "w7 w8 w4"]
    drawn = translator().translate_lines(lines, tiny.decode(method="sample", nbest=16, **options))
    options |= {"method": "mbr", "samples": 16, "nbest": nbest}
    found = translator().translate_lines(lines, tiny.decode(**options))
    assert [row[0].text for row in found][1] == ""
    for samples, best in zip(drawn[::2], found[::2], strict=True):
        texts = [sample.text for sample in samples]
        places, expected = consensus(texts)
        assert len(places) > nbest
        assert [b.text for b in best] == [texts[place] for place in places[:nbest]]
        assert [b.score for b in best] == expected[:nbest].tolist()
        assert [b.log_prob for b in best] == [samples[p].log_prob for p in places[:nbest]]


def test_a_search_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(DragomanError, match=r"decode\.method: 'beem' .* did you mean 'beam'"):
        translator().translate_lines(LINES, tiny.decode(method="beem"))
