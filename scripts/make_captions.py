"""Write the embedded corpus anew: ``python scripts/make_captions.py [FILE]``.

The sentences come from a seeded grammar (``scripts/captions``). A sentence is kept if it is new on
both sides, neither short nor long, and, in a held-out split, made of words that training has often.
The file holds one pair a line, separated by tabs: the split, the German and the English sentence,
the alignment as ``<German position>-<English position>``, and the adjective/noun/verb triples.
"""

from __future__ import annotations

import gzip
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from captions.grammar import Grammar, Triple
from captions.phrases import Phrase
from dragoman.data.captions import FILE, SPLITS, Caption
from dragoman.files import write_atomic

SEED = 1
SHORTEST, LONGEST = 6, 22  # words a side, punctuation not counted
KNOWN = 10  # a word of a held-out sentence occurs at least so often in training


def corpus() -> Iterator[tuple[str, Caption]]:
    """Yield every pair with its split."""
    rng = random.Random(SEED)
    seen: set[str] = set()
    counts: Counter[tuple[str, str]] = Counter()
    for split, size in SPLITS.items():
        grammar = Grammar(rng, held_out=split != "train")
        found = 0
        while found < size:
            pair = finish(grammar.sentence(), frozenset(grammar.triples))
            if not fits(pair) or pair.de in seen or pair.en in seen:
                continue
            if split == "train":
                counts.update(vocabulary(pair))
            elif not pair.triples or min(counts[word] for word in vocabulary(pair)) < KNOWN:
                continue
            seen |= {pair.de, pair.en}
            found += 1
            yield split, pair


def vocabulary(pair: Caption) -> list[tuple[str, str]]:
    """Return the words of both sides, each with its language."""
    return [("de", word) for word in pair.de_words] + [("en", word) for word in pair.en_words]


def fits(pair: Caption) -> bool:
    """Return whether both sides are neither short nor long."""
    lengths = [sum(word not in ",." for word in side) for side in (pair.de_words, pair.en_words)]
    return min(lengths) >= SHORTEST and max(lengths) <= LONGEST


def finish(sentence: Phrase, triples: frozenset[Triple]) -> Caption:
    """Write a sentence out: full stop, commas where they belong, capitals, positions."""
    sentence.say(".", ".")
    # Two clauses that end or begin at one place share the comma, and a full stop replaces it.
    following = [word.text for word in sentence.de[1:]] + [""]
    german = [
        word
        for word, after in zip(sentence.de, following, strict=True)
        if word.text != "," or after not in ",."
    ]
    position = {id(word): index for index, word in enumerate(german)}
    alignment = sorted(
        (position[id(word)], index)
        for index, english in enumerate(sentence.en)
        for word in english.of
    )
    de_words = capitalise([word.text for word in german])
    en_words = capitalise([word.text for word in sentence.en])
    return Caption(
        de=join(de_words),
        en=join(en_words),
        de_words=de_words,
        en_words=en_words,
        alignment=tuple(alignment),
        triples=triples,
    )


def capitalise(words: list[str]) -> tuple[str, ...]:
    """Begin a sentence with a capital letter."""
    return (words[0][0].upper() + words[0][1:], *words[1:])


def join(words: tuple[str, ...]) -> str:
    """Join words by spaces, none before a comma or a full stop."""
    return " ".join(words).replace(" ,", ",").replace(" .", ".")


def as_line(split: str, pair: Caption) -> str:
    """Return a pair as a line of the file."""
    links = " ".join(f"{german}-{english}" for german, english in pair.alignment)
    triples = " ".join(sorted("/".join(triple) for triple in pair.triples))
    return "\t".join((split, pair.de, pair.en, links, triples)) + "\n"


def packed() -> bytes:
    """Return the whole file; the time of packing is left out, so that it is always the same."""
    text = "".join(as_line(split, pair) for split, pair in corpus())
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def main() -> None:
    """Write the file."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    write_atomic(path, packed())
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
