"""The embedded corpus: good German, good English, gold alignments, and nothing to copy from."""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict

import numpy as np
import pytest
import sacrebleu
import spacy

from dragoman.data.captions import SPLITS, Caption, captions, fingerprint
from dragoman.errors import DragomanError

HELD_OUT = ("val", "test")
EVERY = [pair for split in SPLITS for pair in captions(split)]
BY_GERMAN = {pair.de: pair for pair in EVERY}


def join(words: tuple[str, ...] | list[str]) -> str:
    return " ".join(words).replace(" ,", ",").replace(" .", ".")


def links(pair: Caption) -> set[str]:
    return {f"{pair.de_words[i]}-{pair.en_words[j]}" for i, j in pair.alignment}


def bleu(hypotheses: list[str]) -> float:
    return sacrebleu.corpus_bleu(hypotheses, [[pair.en for pair in captions("test")]]).score


# -- what is promised of every pair ----------------------------------------------------------------


def test_sizes_are_as_promised() -> None:
    assert {split: len(captions(split)) for split in SPLITS} == SPLITS
    assert 6000 <= SPLITS["train"] <= 10_000


def test_translation_is_a_function_both_ways() -> None:
    assert len({pair.de for pair in EVERY}) == len({pair.en for pair in EVERY}) == len(EVERY)


def test_vocabulary_is_a_few_hundred_words() -> None:
    for side in ("de_words", "en_words"):
        assert 200 <= len({word for pair in EVERY for word in getattr(pair, side)}) <= 450


def test_words_spell_the_sentences() -> None:
    for pair in EVERY:
        assert join(pair.de_words) == pair.de
        assert join(pair.en_words) == pair.en
        for sentence, words in ((pair.de, pair.de_words), (pair.en, pair.en_words)):
            assert sentence[0].isupper()
            assert words[-1] == "."
            assert ".," not in sentence
            assert ",," not in sentence.replace(" ", "")
            assert 6 <= sum(word not in ",." for word in words) <= 22


@pytest.mark.parametrize(("language", "side"), [("de", "de_words"), ("en", "en_words")])
def test_spacy_splits_the_sentences_into_the_same_words(language: str, side: str) -> None:
    tokenizer = spacy.blank(language).tokenizer
    pairs = EVERY[::6]
    known = {word for pair in pairs for word in getattr(pair, side)}
    for pair in EVERY:  # every sentence that ends in, or holds, a word the sixth has not
        words = set(getattr(pair, side))
        if not words <= known:
            pairs.append(pair)
            known |= words
    for pair in (*pairs, *captions("test")):
        assert tuple(t.text for t in tokenizer(getattr(pair, language))) == getattr(pair, side)


def test_every_word_is_aligned_but_german_commas() -> None:
    for pair in EVERY:
        assert list(pair.alignment) == sorted(set(pair.alignment))
        german = {i for i, _ in pair.alignment}
        assert {j for _, j in pair.alignment} == set(range(len(pair.en_words)))
        assert german <= set(range(len(pair.de_words)))
        assert {pair.de_words[i] for i in range(len(pair.de_words)) if i not in german} <= {","}


# -- what is held out ------------------------------------------------------------------------------


def test_no_held_out_triple_occurs_in_training() -> None:
    trained = {triple for pair in captions("train") for triple in pair.triples}
    for split in HELD_OUT:
        for pair in captions(split):
            assert pair.triples
            assert not pair.triples & trained


def test_parts_of_held_out_triples_are_known_in_pairs() -> None:
    trained = {triple for pair in captions("train") for triple in pair.triples}
    heads = {(adjective, noun) for adjective, noun, _ in trained}
    tested = {triple for pair in captions("test") for triple in pair.triples}
    assert len(tested) > 500
    assert {(adjective, noun) for adjective, noun, _ in tested} <= heads


def test_every_held_out_word_occurs_in_training_often() -> None:
    for side in ("de_words", "en_words"):
        trained = Counter(word for pair in captions("train") for word in getattr(pair, side))
        for split in HELD_OUT:
            assert min(trained[w] for p in captions(split) for w in getattr(p, side)) >= 10


def test_nearest_training_translation_scores_under_45() -> None:
    """Nearest by the words in common, and of the ten nearest so by edit distance."""
    train, test = captions("train"), captions("test")
    column = {w: i for i, w in enumerate(sorted({w for pair in train for w in pair.de_words}))}

    def bags(pairs: tuple[Caption, ...]) -> np.ndarray:
        present = np.zeros((len(pairs), len(column)), dtype=np.float32)
        for row, pair in enumerate(pairs):
            present[row, [column[word] for word in pair.de_words]] = 1
        return present

    x, y = bags(test), bags(train)
    dice = 2 * (x @ y.T) / (x.sum(1)[:, None] + y.sum(1)[None, :])
    copied = [train[i].en for i in dice.argmax(1)]
    edited = []
    for pair, order in zip(test, np.argsort(-dice, axis=1)[:, :10], strict=True):
        matcher = difflib.SequenceMatcher(None, autojunk=False)
        matcher.set_seq2(pair.de_words)
        ratios = []
        for i in order:
            matcher.set_seq1(train[i].de_words)
            ratios.append((matcher.ratio(), -int(i)))
        edited.append(train[-max(ratios)[1]].en)
    assert 5 < bleu(copied) < 45
    assert 5 < bleu(edited) < 45


def test_word_for_word_translation_scores_under_35() -> None:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for pair in captions("train"):
        for i, j in pair.alignment:
            counts[pair.de_words[i]][pair.en_words[j]] += 1
    dictionary = {word: found.most_common(1)[0][0] for word, found in counts.items()}
    translated = [join([dictionary[word] for word in pair.de_words]) for pair in captions("test")]
    assert 5 < bleu(translated) < 35


# -- the languages ---------------------------------------------------------------------------------

PAIRS = {
    # definite, dative of a masculine place, habit, contraction
    "Am Morgen rennt ein Junge ins Museum.": "In the morning a boy is running into the museum.",
    # n-declension, idiomatic preposition
    "Jeden Morgen wartet das Kind auf den Polizisten.": (
        "Every morning the child waits for the police officer."
    ),
    # separable verb after a fronted clause
    "Obwohl es regnet, hebt ein Junge die Kameras auf.": (
        "Although it is raining, a boy is picking up the cameras."
    ),
    # infinitive with zu inside a separable verb
    "Die fröhliche Lehrerin versucht, im Park den Koffer aufzuheben.": (
        "The cheerful teacher is trying to pick up the suitcase in the park."
    ),
    # compounds, relative clause of an object
    "Zwei Straßenmusiker ziehen nasse Jacken aus, die ein Fußballspieler aufhängt.": (
        "Two street musicians are taking off wet jackets that a football player is hanging up."
    ),
    # relative pronoun, one verb with two meanings
    "Der Bauarbeiter, der einen Hut anzieht, trägt ein Hemd.": (
        "The construction worker who is putting on a hat is wearing a shirt."
    ),
    "Eine Ärztin trägt jeden Abend die blaue Tasche.": (
        "A doctor carries the blue bag every evening."
    ),
    # one adjective with two meanings
    "Die große Frau fotografiert im großen Park einen alten Baum.": (
        "The tall woman is photographing an old tree in the big park."
    ),
    # dative plural, strong adjective
    "Der Mann gibt vielen Bauarbeitern Koffer.": (
        "The man is giving suitcases to many construction workers."
    ),
    # a neuter girl, modal verb at the end
    "Ein lachendes Mädchen singt, weil es tanzen muss.": (
        "A laughing girl is singing because she must dance."
    ),
    # possessives
    "Heute lesen diese Fußballspieler ihr nasses Buch.": (
        "Today these football players are reading their wet book."
    ),
    "Ein Junge sieht jeden Morgen sein teures Auto an.": (
        "A boy looks at his expensive car every morning."
    ),
}


@pytest.mark.parametrize("german", PAIRS)
def test_pairs_of_the_corpus(german: str) -> None:
    assert BY_GERMAN[german].en == PAIRS[german]


def test_alignment_and_triples_of_a_pair() -> None:
    pair = BY_GERMAN["Die fröhliche Lehrerin versucht, im Park den Koffer aufzuheben."]
    expected = """
        Die-The fröhliche-cheerful Lehrerin-teacher versucht-is versucht-trying im-in im-the
        Park-park den-the Koffer-suitcase aufzuheben-to aufzuheben-pick aufzuheben-up .-.
    """
    assert links(pair) == set(expected.split())
    assert pair.triples == {("fröhlich", "Lehrerin", "aufheben")}


@pytest.mark.parametrize(
    ("german", "expected"),
    [
        ("Obwohl es regnet, hebt ein Junge die Kameras auf.", "hebt-is hebt-picking auf-up ,-,"),
        ("Die Tänzerin ruft die Fußballspieler an.", "ruft-is ruft-calling an-calling"),
        (
            "Zwei Straßenmusiker ziehen nasse Jacken aus, die ein Fußballspieler aufhängt.",
            "Straßenmusiker-street Straßenmusiker-musicians aus-off aufhängt-is aufhängt-up",
        ),
        ("Der Mann gibt vielen Bauarbeitern Koffer.", "vielen-to vielen-many gibt-giving"),
        ("Jeden Morgen wartet das Kind auf den Polizisten.", "auf-for Jeden-Every wartet-waits"),
    ],
)
def test_alignment_of_what_is_not_word_for_word(german: str, expected: str) -> None:
    assert set(expected.split()) <= links(BY_GERMAN[german])


def test_english_article_fits_the_next_word() -> None:
    for pair in EVERY:
        for article, word in zip(pair.en_words, pair.en_words[1:], strict=False):
            if article.lower() in ("a", "an"):
                assert (article.lower() == "an") == (word[0] in "aeiou"), pair.en


# -- the same everywhere ---------------------------------------------------------------------------


def test_fingerprint_is_that_of_every_release() -> None:
    assert fingerprint() == "fb470773432e3ae4845d074e80f6ddf1f112120dfd1c881592aa4006ddd3db93"


def test_captions_are_read_once() -> None:
    assert captions("val") is captions("val")


@pytest.mark.parametrize("wrong", ["tets", "Train", ""])
def test_unknown_split_is_refused(wrong: str) -> None:
    with pytest.raises(
        DragomanError, match=r"captions has no split .*train, val or test"
    ) as caught:
        captions(wrong)
    assert wrong != "tets" or "did you mean 'test'?" in str(caught.value)
