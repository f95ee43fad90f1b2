"""From the data section of a config to its tokenizers and its training set, through the cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

from dragoman.config import CorpusConfig, DataConfig
from dragoman.data.cache import cache_key, cached_folder
from dragoman.data.dataset import TrainingSet
from dragoman.data.sources import corpus_fingerprint, iter_pairs
from dragoman.data.store import FORMAT, SIDES, EncodedCorpus, UnitCorpus, package_versions
from dragoman.data.tokenizers import (
    NOT_LEARNT,
    Cutter,
    Tokenizer,
    load_tokenizers,
    make_cutter,
    tokenizers_of,
    train_from_counts,
)
from dragoman.data.tokenizers.sampling import make_sampler
from dragoman.runs import find_run


def build_training_set(
    data: DataConfig, src_tokenizer: Tokenizer, tgt_tokenizer: Tokenizer, seed: int
) -> TrainingSet:
    """Encode the corpora of ``data``, or take them from its cache, and mix them.

    Raises:
        DragomanError: if a corpus or the cache is at fault, or nothing is kept.
    """
    tokenizers = (src_tokenizer, tgt_tokenizer)
    return TrainingSet(
        [
            EncodedCorpus.open(
                Path(data.cache).expanduser(),
                corpus_fingerprint(data, corpus),
                partial(iter_pairs, data, corpus),
                tokenizers,
            )
            for corpus in data.corpora
        ],
        weights=[corpus.weight for corpus in data.corpora],
        tag_ids=[None if c.tag is None else src_tokenizer.tag_id(c.tag) for c in data.corpora],
        max_length=data.max_length,
        seed=seed,
        samplers=(
            make_sampler(src_tokenizer, data.tokenizer),
            make_sampler(tgt_tokenizer, data.tokenizer),
        ),
    )


def train_or_load_tokenizers(data: DataConfig) -> tuple[Tokenizer, Tokenizer]:
    """Train the tokenizers of ``data`` on its training corpora, or take them from its cache.

    Training draws nothing, so runs of every seed share them. Weights do not count. With
    ``data.tokenizer.from_run`` they are those of that run.

    Raises:
        DragomanError: if a corpus, the cache, the vocabulary asked for or the run is at fault.
    """
    cache, config, languages = Path(data.cache).expanduser(), data.tokenizer, (data.src, data.tgt)
    if config.from_run is not None:
        return tokenizers_of(find_run(config.from_run), config)
    cutters = (make_cutter(config, data.src), make_cutter(config, data.tgt))
    corpora = [_open_units(data, corpus, cache, cutters) for corpus in data.corpora]
    tags = [corpus.tag for corpus in data.corpora if corpus.tag is not None]
    settings = {name: value for name, value in asdict(config).items() if name not in NOT_LEARNT}
    key = cache_key(
        what="tokenizers",
        format=FORMAT,
        units=[corpus.key for corpus in corpora],
        settings=settings,
        tags=tags,
        versions=package_versions(),
    )

    def build(folder: Path) -> None:
        counts: list[Counter[str]] = [Counter(), Counter()]
        for corpus in corpora:
            for total, side in zip(counts, corpus.sides, strict=True):
                total.update(dict(zip(side.types(), side.counts.tolist(), strict=True)))
        trained = train_from_counts(config, (counts[0], counts[1]), languages, tags)
        for name, tokenizer in zip(SIDES, trained, strict=True):
            tokenizer.save(folder, name)

    folder = cached_folder(cache, key, build)
    return load_tokenizers(folder, config)


def _open_units(
    data: DataConfig, corpus: CorpusConfig, cache: Path, cutters: tuple[Cutter, Cutter]
) -> UnitCorpus:
    pairs = partial(iter_pairs, data, corpus)
    return UnitCorpus.open(cache, corpus_fingerprint(data, corpus), pairs, cutters)
