"""From the data section of a config to its tokenizers and its training set, through the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dragoman import settings
from dragoman.config import AugmentConfig, DataConfig, TokenizerConfig
from dragoman.data.augmentation import CASES, Augmenter, add_cases
from dragoman.data.cache import cache_key, cached_folder
from dragoman.data.corpora import Counts, check_texts, evaluation_keys, left_out, training_text
from dragoman.data.dataset import TrainingSet
from dragoman.data.store import FORMAT, SIDES, Text, count_units, encode_text, package_versions
from dragoman.data.tokenizers import TOKENIZERS, Tokenizer, load_tokenizers, train_from_counts
from dragoman.data.tokenizers.sampling import make_sampler
from dragoman.errors import DragomanError
from dragoman.languages import is_spaceless
from dragoman.runs import find_run

# Keys that change how text is cut, or where its tokens come from, and not what is learnt of it.
NOT_LEARNT = ("sampling_alpha", "bpe_dropout", "from_run")


class Prepared(NamedTuple):
    """A training corpus as text, which of its pairs are left out, and why."""

    text: Text
    left_out: NDArray[np.bool_]
    counts: Counts


def prepare_texts(data: DataConfig) -> list[Prepared]:
    """Read, clean and split the training corpora of ``data``, or take them from its cache.

    Raises:
        DragomanError: if a corpus or the cache is at fault.
    """
    keys = evaluation_keys(data)
    texts = [(corpus, training_text(data, corpus)) for corpus in data.corpora]
    return [Prepared(text, *left_out(data, corpus, text, keys)) for corpus, text in texts]


def count_pairs(data: DataConfig) -> int:
    """Return how many pairs of ``data`` are to be trained on, but for their length in tokens.

    Raises:
        DragomanError: if a file, a corpus or the cache is at fault.
    """
    check_texts(data)
    return sum(int((~prepared.left_out).sum()) for prepared in prepare_texts(data))


def build_training_set(
    data: DataConfig, texts: Sequence[Prepared], src: Tokenizer, tgt: Tokenizer, seed: int
) -> TrainingSet:
    """Encode the corpora of ``data``, or take them from its cache, and mix them.

    Raises:
        DragomanError: if the cache is at fault, or nothing is kept.
    """
    return TrainingSet(
        [encode_text(Path(data.cache), prepared.text, (src, tgt)) for prepared in texts],
        weights=[corpus.weight for corpus in data.corpora],
        tag_ids=[None if c.tag is None else src.tag_id(c.tag) for c in data.corpora],
        max_length=data.max_length,
        seed=seed,
        samplers=(make_sampler(src, data.tokenizer), make_sampler(tgt, data.tokenizer)),
        left_out=[prepared.left_out for prepared in texts],
        augmenter=Augmenter(data.augment) if data.augment != AugmentConfig() else None,
        tokenizers=(src, tgt),
        languages=[(corpus.src, corpus.tgt) for corpus in data.corpora],
    )


def train_or_load_tokenizers(
    data: DataConfig, texts: Sequence[Prepared]
) -> tuple[Tokenizer, Tokenizer]:
    """Train the tokenizers of ``data`` on its training corpora, or take them from its cache.

    Training draws nothing, so runs of every seed share them. Weights do not count. With
    ``data.tokenizer.from_run`` they are those of that run.

    Raises:
        DragomanError: if a corpus, the cache, the vocabulary asked for or the run is at fault.
    """
    config, languages = data.tokenizer, (data.src, data.tgt)
    if config.from_run is not None:
        return _tokenizers_of_run(config.from_run, config)
    kind, cache = TOKENIZERS[config.kind], Path(data.cache)
    cutters = (kind.make_cutter(config, data.src), kind.make_cutter(config, data.tgt))
    tags = [corpus.tag for corpus in data.corpora if corpus.tag is not None]
    learnt = {name: value for name, value in asdict(config).items() if name not in NOT_LEARNT}
    if kind.is_subword:
        learnt |= {name: rate for name in CASES if (rate := getattr(data.augment, name))}
    key = cache_key(
        what="tokenizers",
        format=FORMAT,
        texts=[(t.text.folder.name, sha256(t.left_out.tobytes()).hexdigest()) for t in texts],
        cutters=[cutter.identity for cutter in cutters],
        languages=languages,
        settings=learnt,
        tags=tags,
        versions=package_versions(),
    )

    def build(folder: Path) -> None:
        totals: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for number, prepared in enumerate(texts):
            kept = np.flatnonzero(~prepared.left_out)
            counts = count_units(
                cache,
                f"{key}.{number}",
                prepared.text,
                [kept[:: _stride(len(kept), language, config)] for language in languages],
                cutters,
            )
            for total, counted in zip(totals, counts, strict=True):
                total.update(counted)
        for total, language in zip(totals, languages, strict=True):
            if kind.is_subword:
                add_cases(total, data.augment, language)
        for name, trained in zip(
            SIDES, train_from_counts(config, totals, languages, tags), strict=True
        ):
            trained.save(folder, name)

    return load_tokenizers(cached_folder(cache, key, build), config)


def _stride(lines: int, language: str, config: TokenizerConfig) -> int:
    """Return of how many lines one is learnt from: without spaces, a line is a unit of its own."""
    few = config.kind == "sentencepiece" and is_spaceless(language)
    return -(-lines // config.sample_lines) if few and lines else 1


def _tokenizers_of_run(name: str, config: TokenizerConfig) -> tuple[Tokenizer, Tokenizer]:
    run = find_run(name)
    folder = run.checkpoint()
    theirs = settings.load(folder / "config.yaml").data.tokenizer
    if wrong := settings.differences(theirs, config, NOT_LEARNT):
        raise DragomanError(
            f"data.tokenizer.from_run: {run.folder} has another data.tokenizer: {', '.join(wrong)}"
        )
    return load_tokenizers(folder, config)
