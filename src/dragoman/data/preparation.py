"""From the data section of a config to its tokenizers and its training set, through the cache."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from pathlib import Path

from dragoman import settings
from dragoman.config import CorpusConfig, DataConfig, TokenizerConfig
from dragoman.data.cache import cache_key, cached_folder
from dragoman.data.dataset import TrainingSet
from dragoman.data.sources import corpus_fingerprint, iter_pairs
from dragoman.data.store import (
    FORMAT,
    SIDES,
    Pairs,
    UnitSide,
    cut_corpus,
    encode_corpus,
    package_versions,
)
from dragoman.data.tokenizers import TOKENIZERS, Tokenizer, load_tokenizers, train_from_counts
from dragoman.data.tokenizers.sampling import make_sampler
from dragoman.errors import DragomanError
from dragoman.runs import find_run

# Keys that change how text is cut, or where its tokens come from, and not what is learnt of it.
NOT_LEARNT = ("sampling_alpha", "bpe_dropout", "from_run")


def build_training_set(
    data: DataConfig, src_tokenizer: Tokenizer, tgt_tokenizer: Tokenizer, seed: int
) -> TrainingSet:
    """Encode the corpora of ``data``, or take them from its cache, and mix them.

    Raises:
        DragomanError: if a corpus or the cache is at fault, or nothing is kept.
    """
    tokenizers = (src_tokenizer, tgt_tokenizer)
    src_sampler, tgt_sampler = (make_sampler(each, data.tokenizer) for each in tokenizers)
    return TrainingSet(
        [encode_corpus(*_text(data, corpus), tokenizers) for corpus in data.corpora],
        weights=[corpus.weight for corpus in data.corpora],
        tag_ids=[None if c.tag is None else src_tokenizer.tag_id(c.tag) for c in data.corpora],
        max_length=data.max_length,
        seed=seed,
        samplers=(src_sampler, tgt_sampler),
    )


def train_or_load_tokenizers(data: DataConfig) -> tuple[Tokenizer, Tokenizer]:
    """Train the tokenizers of ``data`` on its training corpora, or take them from its cache.

    Training draws nothing, so runs of every seed share them. Weights do not count. With
    ``data.tokenizer.from_run`` they are those of that run.

    Raises:
        DragomanError: if a corpus, the cache, the vocabulary asked for or the run is at fault.
    """
    config, languages = data.tokenizer, (data.src, data.tgt)
    if config.from_run is not None:
        return _tokenizers_of_run(config.from_run, config)
    kind = TOKENIZERS[config.kind]
    cutters = (kind.make_cutter(config, data.src), kind.make_cutter(config, data.tgt))
    corpora = [cut_corpus(*_text(data, corpus), cutters) for corpus in data.corpora]
    tags = [corpus.tag for corpus in data.corpora if corpus.tag is not None]
    learnt = {name: value for name, value in asdict(config).items() if name not in NOT_LEARNT}
    key = cache_key(
        what="tokenizers",
        format=FORMAT,
        units=[corpus.name for corpus in corpora],
        settings=learnt,
        tags=tags,
        versions=package_versions(),
    )

    def build(folder: Path) -> None:
        counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for corpus in corpora:
            for name, total in zip(SIDES, counts, strict=True):
                side = UnitSide(corpus, name)
                total.update(dict(zip(side.types(), side.counts.tolist(), strict=True)))
        for name, trained in zip(
            SIDES, train_from_counts(config, counts, languages, tags), strict=True
        ):
            trained.save(folder, name)

    return load_tokenizers(cached_folder(Path(data.cache), key, build), config)


def _text(data: DataConfig, corpus: CorpusConfig) -> tuple[Path, str, Pairs]:
    """Return the cache, and the fingerprint and the pairs of a corpus, as ``store`` takes them."""
    pairs = partial(iter_pairs, data, corpus)
    return Path(data.cache), corpus_fingerprint(data, corpus), pairs


def _tokenizers_of_run(name: str, config: TokenizerConfig) -> tuple[Tokenizer, Tokenizer]:
    run = find_run(name)
    folder = run.checkpoint()
    theirs = settings.load(folder / "config.yaml").data.tokenizer
    if wrong := settings.differences(theirs, config, NOT_LEARNT):
        raise DragomanError(
            f"data.tokenizer.from_run: {run.folder} has another data.tokenizer: {', '.join(wrong)}"
        )
    return load_tokenizers(folder, config)
