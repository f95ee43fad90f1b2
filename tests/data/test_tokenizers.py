"""Tokenizers: vocabularies, round trips, saving, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinytokens
from dragoman.config import TokenizerConfig
from dragoman.data.tokenizers import (
    BOS,
    EOS,
    PAD,
    SPECIALS,
    TOKENIZERS,
    UNK,
    Cutter,
    Tokenizer,
    load_tokenizer,
    load_tokenizers,
    normalise,
)
from dragoman.data.tokenizers.spacy import SpacyTokenizer
from dragoman.errors import DragomanError

MULTI30K = Path(os.environ.get("MULTI30K", "data/multi30k/raw"))
needs_multi30k = pytest.mark.skipif(
    not (MULTI30K / "train.de.gz").exists(), reason="Multi30k is not there"
)

PAIRS = [
    ("Ein Mann läuft über die Straße.", "A man is running across the street."),
    ("Zwei Hunde spielen im Schnee, oder?", "Two dogs are playing in the snow, aren't they?"),
    ("Die Frau liest ein Buch.", "The woman is reading a book (a red one)."),
    ("Ein kleines Mädchen fährt Rad.", 'A little girl says "hello" to the man.'),
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
KINDS = [
    TokenizerConfig(vocab_size=70),
    TokenizerConfig(vocab_size=90, algorithm="bpe", joint=False),
    TokenizerConfig(vocab_size=320, byte_fallback=True, lowercase=True),
    TokenizerConfig(kind="spacy"),
    TokenizerConfig(kind="spacy", form="plain", lowercase=True),
]


def train(config: TokenizerConfig, tags: tuple[str, ...] = ()) -> tuple[Tokenizer, Tokenizer]:
    return tinytokens.train_tokenizers(config, PAIRS, tags=tags)


def lines(split: str, language: str, step: int = 1) -> Iterator[str]:
    with gzip.open(MULTI30K / f"{split}.{language}.gz", "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number % step == 0:
                yield line


def train_one(config: TokenizerConfig, text: Iterable[str], language: str) -> Tokenizer:
    return tinytokens.train_tokenizers(
        config, ((line, line) for line in text), (language, language)
    )[0]


@pytest.fixture(scope="module")
def bytes_tokenizer() -> Tokenizer:
    return train(TokenizerConfig(vocab_size=320, byte_fallback=True))[1]


def test_normalise_touches_white_space_and_case_alone() -> None:
    assert normalise("\u3000 Ä½\tﬁne\u00a0\x85 x\r\n", False) == "Ä½ ﬁne x"
    assert normalise(" ÄB  c", True) == "äb c"


@needs_multi30k
def test_golden_vocabulary_sizes() -> None:
    config = TokenizerConfig(kind="spacy", form="plain", lowercase=True, min_freq=2)
    src, tgt = tinytokens.train_tokenizers(
        config, zip(lines("train", "de"), lines("train", "en"), strict=True)
    )
    assert (len(src), len(tgt)) == (7853, 5893)
    assert tuple(src.tokens(range(4))) == tuple(tgt.tokens(range(4))) == SPECIALS


@pytest.mark.parametrize("config", KINDS)
def test_first_entries_are_the_special_tokens(config: TokenizerConfig) -> None:
    for tokenizer in train(config):
        assert tuple(tokenizer.tokens([UNK, PAD, BOS, EOS])) == SPECIALS
        assert tokenizer.is_subword == (config.kind == "sentencepiece")


@pytest.mark.parametrize("config", KINDS)
def test_training_text_comes_back(config: TokenizerConfig) -> None:
    for side, tokenizer in enumerate(train(config)):
        for pair in PAIRS:
            ids = tokenizer.encode(pair[side])
            assert min(ids) > EOS
            assert max(ids) < len(tokenizer)
            text = normalise(pair[side], config.lowercase)
            assert tokenizer.decode([BOS, *ids, EOS, PAD]) == text
            assert tokenizer.detokenize(tokenizer.tokens(ids)) == text


@pytest.mark.parametrize("config", KINDS)
def test_units_and_pieces_agree_with_encode(config: TokenizerConfig) -> None:
    tokenizer = train(config)[1]
    text = " Two  men are  running. "
    units = tokenizer.units(text)
    assert [i for unit in units for i in tokenizer.pieces(unit)] == tokenizer.encode(text)
    assert tokenizer.encode("  \t ") == []
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("config", KINDS)
def test_saved_and_loaded_it_is_the_same(config: TokenizerConfig, tmp_path: Path) -> None:
    trained = train(config, ("<2en>",))
    for side, tokenizer in zip(("src", "tgt"), trained, strict=True):
        tokenizer.save(tmp_path, side)
    for side, tokenizer, pair in zip(
        ("src", "tgt"), trained, zip(*PAIRS, strict=True), strict=True
    ):
        again = load_tokenizer(tmp_path, side, config)
        assert again.fingerprint() == tokenizer.fingerprint()
        assert [again.encode(text) for text in pair] == [tokenizer.encode(text) for text in pair]
        assert again.tokens(range(len(again))) == tokenizer.tokens(range(len(tokenizer)))
    assert load_tokenizer(tmp_path, "src", config).tag_id("<2en>") == trained[0].tag_id("<2en>")
    models = {path.name for path in tmp_path.iterdir()}
    if config.kind == "spacy":
        assert {"vocab.src.txt", "vocab.tgt.txt"} <= models
    elif config.joint:
        assert models == {"tokenizer.model"}
    else:
        assert models == {"tokenizer.src.model", "tokenizer.tgt.model"}


@pytest.mark.parametrize("config", KINDS)
def test_tags_are_reserved_in_the_source_and_never_read_from_text(config: TokenizerConfig) -> None:
    src, tgt = train(config, ("<2en>", "<2fr>", "<2en>"))
    ids = {src.tag_id("<2en>"), src.tag_id("<2fr>")}
    assert len(ids) == 2
    assert min(ids) > EOS
    assert src.tokens([src.tag_id("<2fr>")]) == ["<2fr>"]
    assert ids.isdisjoint(src.encode("<2en> Ein Mann <2fr> <eos> <pad>"))
    assert all(i == UNK or i > EOS for i in src.encode("<eos><pad> <bos>"))
    mann = src.encode("Mann")
    assert src.decode([src.tag_id("<2en>"), *mann]) == src.decode(mann)
    with pytest.raises(DragomanError, match="<2cs>"):
        src.tag_id("<2cs>")
    if src is not tgt:
        with pytest.raises(DragomanError, match="<2en>"):
            tgt.tag_id("<2en>")


@pytest.mark.parametrize("tag", ["<pad>", "a b", ""])
def test_a_bad_tag_is_refused(tag: str) -> None:
    with pytest.raises(DragomanError, match=r"data\.corpora: tag"):
        train(TokenizerConfig(kind="spacy"), (tag,))


@given(ANY_TEXT)
@settings(max_examples=300, deadline=None)
def test_sentencepiece_with_bytes_loses_nothing(bytes_tokenizer: Tokenizer, text: str) -> None:
    ids = bytes_tokenizer.encode(text)
    assert UNK not in ids
    assert bytes_tokenizer.decode(ids) == normalise(text, False)


@given(ANY_TEXT, st.sampled_from(["de", "en", "xx"]), st.booleans())
@settings(max_examples=200, deadline=None)
def test_joiner_words_lose_nothing(text: str, language: str, lowercase: bool) -> None:
    config = TokenizerConfig(kind="spacy", lowercase=lowercase)
    tokenizer = train_one(config, [text, "a"], language)
    assert tokenizer.decode(tokenizer.encode(text)) == normalise(text, lowercase)


@pytest.mark.parametrize("text", ["a￭b ￭ ￭c", "\ue000 \ue0000 \ue0001￭", "▁a a▁b ▁", "<unk> <pad>"])
def test_marks_of_the_tokenizers_own_come_back(bytes_tokenizer: Tokenizer, text: str) -> None:
    words = train_one(TokenizerConfig(kind="spacy"), [text], "en")
    assert words.decode(words.encode(text)) == text
    assert bytes_tokenizer.decode(bytes_tokenizer.encode(text)) == text


def test_unknown_text_reads_unk() -> None:
    subwords = train(TokenizerConfig(vocab_size=70))[1]
    assert subwords.decode(subwords.encode("A ☃☃ man")) == "A <unk> man"
    words = train(TokenizerConfig(kind="spacy"))[1]
    assert words.decode(words.encode("A zebra man")) == "A <unk> man"
    assert words.detokenize(["A", "￭!", "☃"]) == "A! ☃"


def test_broken_bytes_from_a_model_never_break_the_line(bytes_tokenizer: Tokenizer) -> None:
    names = bytes_tokenizer.tokens(range(len(bytes_tokenizer)))
    newline, lead = names.index("<0x0A>"), names.index("<0xE2>")
    text = bytes_tokenizer.decode([newline, lead, newline])
    assert text.splitlines() in ([], ["\ufffd"])


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Is", "n't", "it", "?"], "Isn't it?"),
        (["He", "said", '"', "no", '"', "(", "twice", ")", "."], 'He said "no" (twice).'),
        (["red", "-", "haired", "boys", "'", "dogs"], "red-haired boys' dogs"),
        (["Das", "„", "Nein", "“", ":", "laut"], "Das „Nein“: laut"),
        (["l'", "eau", "d'", "un", "puits"], "l'eau d'un puits"),
        ([], ""),
    ],
)
def test_plain_words_get_their_spaces_back(tokens: list[str], text: str) -> None:
    tokenizer = train(TokenizerConfig(kind="spacy", form="plain"))[1]
    assert tokenizer.detokenize(tokens) == text


@needs_multi30k
@pytest.mark.parametrize(("language", "least"), [("de", 0.993), ("en", 0.963)])
def test_plain_restores_nearly_every_line(language: str, least: float) -> None:
    tokenizer = train(TokenizerConfig(kind="spacy", form="plain"))[language == "en"]
    assert isinstance(tokenizer, SpacyTokenizer)
    assert tokenizer.restored_fraction(lines("train", language, 10)) >= least
    assert tokenizer.restored_fraction(["a( b"]) == 0.0


def check_lossless(language: str, step: int, tokenizer: Tokenizer) -> None:
    config = TokenizerConfig(kind="spacy")
    text = list(lines("train", language, step))
    words = train_one(config, text, language)
    for line in text:
        line_normalised = normalise(line, False)
        assert words.decode(words.encode(line)) == line_normalised
        ids = tokenizer.encode(line)
        assert tokenizer.decode(ids) == line_normalised


@needs_multi30k
@pytest.mark.parametrize("language", ["de", "en", "fr", "cs"])
def test_real_lines_lose_nothing(language: str, bytes_tokenizer: Tokenizer) -> None:
    check_lossless(language, 100, bytes_tokenizer)


@needs_multi30k
@pytest.mark.slow
@pytest.mark.parametrize("language", ["de", "en", "fr", "cs"])
def test_all_real_lines_lose_nothing(language: str, bytes_tokenizer: Tokenizer) -> None:
    check_lossless(language, 1, bytes_tokenizer)


@needs_multi30k
@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_word_by_word_equals_the_whole_line(algorithm: str) -> None:
    import sentencepiece

    text = list(lines("val", "de"))
    tokenizer = train_one(TokenizerConfig(vocab_size=1500, algorithm=algorithm), text, "de")
    (model,) = tokenizer.files("src").values()
    whole = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert [tokenizer.encode(line) for line in text] == [
        whole.encode(normalise(line, False)) for line in text
    ]


SCRIPT = """
import hashlib, sys
from collections import Counter
from dragoman.config import TokenizerConfig
from dragoman.data.tokenizers import train_from_counts
counts = [Counter(" ".join(side).split()) for side in zip(*{pairs!r})]
for algorithm in ("unigram", "bpe"):
    config = TokenizerConfig(vocab_size=70, algorithm=algorithm)
    src, _ = train_from_counts(config, counts, ("de", "en"), ())
    print(hashlib.sha256(src.files("src")["tokenizer.model"]).hexdigest())
assert "spacy" not in sys.modules and "torchtext" not in sys.modules
"""


def test_another_process_trains_the_same_bytes_and_imports_no_spacy() -> None:
    configs = [TokenizerConfig(vocab_size=70, algorithm=name) for name in ("unigram", "bpe")]
    models = [train(config)[0].files("src")["tokenizer.model"] for config in configs]
    theirs = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(pairs=PAIRS)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert theirs.stdout.split() == [hashlib.sha256(model).hexdigest() for model in models]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_impossible_vocabulary_sizes_name_the_possible(algorithm: str, byte_fallback: bool) -> None:
    def attempt(size: int) -> None:
        train(TokenizerConfig(algorithm=algorithm, vocab_size=size, byte_fallback=byte_fallback))

    for size, bound in ((20, "at least"), (100_000, "at most")):
        with pytest.raises(
            DragomanError, match=rf"data\.tokenizer\.vocab_size: {size}.*{bound} \d"
        ):
            attempt(size)
    with pytest.raises(DragomanError) as caught:
        attempt(100_000)
    attempt(int(str(caught.value).split()[-1]))  # the size it names is possible


def test_vocabulary_limits_of_words() -> None:
    frequent = train(TokenizerConfig(kind="spacy", min_freq=3))[1]
    assert frequent.tokens(range(4, len(frequent))) == ["the", "￭."]  # by frequency, then letters
    assert len(train(TokenizerConfig(kind="spacy", max_size=5))[0]) == 9
    with pytest.raises(DragomanError, match=r"data\.tokenizer\.min_freq.*at most 3"):
        train(TokenizerConfig(kind="spacy", min_freq=1000))


def test_plain_words_are_those_of_the_tutorials() -> None:
    config = TokenizerConfig(kind="spacy", form="plain", lowercase=True)
    cut = TOKENIZERS["spacy"].make_cutter(config, "en")
    assert cut(" Mr. X  did\u00a0n\n") == ["mr.", "x", " ", "did", "\u00a0", "n"]


def test_text_without_words_is_refused() -> None:
    for config in KINDS:
        with pytest.raises(DragomanError, match="no word on the target side"):
            tinytokens.train_tokenizers(config, [("a", " ")])


def test_a_language_spacy_does_not_know_is_cut_by_the_general_rules() -> None:
    cut = TOKENIZERS["spacy"].make_cutter(TokenizerConfig(kind="spacy"), "qq")
    assert cut("Na, so!") == ["Na", "￭,", "so", "￭!"]


@pytest.mark.parametrize("config", [KINDS[0], KINDS[1], KINDS[3]])
def test_missing_and_corrupt_files_are_named(config: TokenizerConfig, tmp_path: Path) -> None:
    with pytest.raises(DragomanError, match="no such file"):
        load_tokenizer(tmp_path, "src", config)
    train(config)[0].save(tmp_path, "src")
    for path in list(tmp_path.iterdir()):
        content = path.read_bytes()
        for wrong in (b"\xff\xfe nothing", b"", b"[]\n"):
            path.write_bytes(wrong)
            with pytest.raises(DragomanError, match=str(tmp_path)):
                load_tokenizer(tmp_path, "src", config)
        path.write_bytes(content)


def test_a_vocabulary_of_another_form_is_refused(tmp_path: Path) -> None:
    train(TokenizerConfig(kind="spacy"))[0].save(tmp_path, "src")
    with pytest.raises(DragomanError, match=r"data\.tokenizer\.form=joiner, not plain"):
        load_tokenizer(tmp_path, "src", TokenizerConfig(kind="spacy", form="plain"))


@pytest.mark.parametrize("entry", ["two\nlines", 7])
def test_an_entry_that_is_no_word_is_refused(entry: object, tmp_path: Path) -> None:
    config = TokenizerConfig(kind="spacy", form="plain")
    train(config)[0].save(tmp_path, "src")
    path = tmp_path / "vocab.src.txt"
    path.write_bytes(path.read_bytes() + f"{json.dumps(entry)}\n".encode())
    with pytest.raises(DragomanError, match=r"vocab\.src\.txt: .*line \d+ is no word"):
        load_tokenizer(tmp_path, "src", config)


class Letters(Tokenizer):
    """A kind of tokenizer as a plug-in may bring it: every character is a token."""

    is_subword = True

    def __init__(self, letters: str, tags: Sequence[str]) -> None:
        self.cutter = TOKENIZERS["sentencepiece"].make_cutter(TokenizerConfig(), "xx")
        self.letters, self.tags = letters, list(tags)

    @staticmethod
    def make_cutter(config: TokenizerConfig, language: str) -> Cutter:
        return TOKENIZERS["sentencepiece"].make_cutter(config, language)

    @classmethod
    def train(
        cls, config: TokenizerConfig, counts: Mapping[str, int], language: str, tags: Sequence[str]
    ) -> Letters:
        return cls("".join(sorted(set("".join(counts)))), tags)

    @classmethod
    def load(cls, folder: Path, side: str, config: TokenizerConfig) -> Letters:
        letters, *tags = (folder / f"{side}.txt").read_text().split("\n")
        return cls(letters, tags)

    def files(self, side: str) -> dict[str, bytes]:
        return {f"{side}.txt": "\n".join([self.letters, *self.tags]).encode()}

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.tags) + len(self.letters)

    def pieces(self, unit: str) -> list[int]:
        first = len(self) - len(self.letters)
        return [first + self.letters.index(c) if c in self.letters else UNK for c in unit]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        every = [*SPECIALS, *self.tags, *self.letters]
        return [every[index] for index in ids]

    def detokenize(self, tokens: Sequence[str]) -> str:
        return " ".join(tokens)


def test_another_kind_of_tokenizer_is_one_class_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TOKENIZERS, "letters", Letters)
    config = TokenizerConfig(kind="letters")
    src, tgt = train(config, ("<2en>",))
    assert src.decode([src.tag_id("<2en>"), *src.encode("Ein Hund☃"), EOS]) == "E i n H u n d <unk>"
    for tokenizer, side in ((src, "src"), (tgt, "tgt")):
        tokenizer.save(tmp_path, side)
    again = load_tokenizers(tmp_path, config)
    assert [t.fingerprint() for t in again] == [src.fingerprint(), tgt.fingerprint()]
