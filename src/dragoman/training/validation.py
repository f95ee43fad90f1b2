"""Scores and pictures of a model on the validation split while it trains."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from dragoman import settings
from dragoman.config import Config
from dragoman.data.batching import Batch, length_mask
from dragoman.data.corpora import read_pairs
from dragoman.data.lines import alternatives
from dragoman.data.tokenizers import EOS, Tokenizer
from dragoman.decoding.translator import Translator
from dragoman.errors import DragomanError
from dragoman.evaluation.metrics import METRICS
from dragoman.models.seq2seq import Seq2Seq
from dragoman.reporting.trackers import Trackers, plain
from dragoman.training.loss import sequence_loss

# Decoded at a time: greedy search on a CPU gains nothing from more.
BATCH = 128


class Figures(NamedTuple):
    """Scores on the validation split. ``loss`` is the unsmoothed mean over tokens."""

    loss: float
    perplexity: float
    accuracy: float
    bleu: float
    chrf: float = 0.0


class ModelGraph(nn.Module):
    """A model as one call from padded tensors to logits, which is what tracing can follow."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(self, src: Tensor, src_lengths: Tensor, tgt_in: Tensor, tgt_lengths: Tensor) -> Any:
        """Return the logits at the real target positions."""
        real_N = tgt_in[length_mask(tgt_lengths, tgt_in.shape[1])]  # as many as there are targets
        batch = Batch(src, src_lengths, tgt_in, tgt_lengths, real_N)
        fast, self.model.fast = self.model.fast, False  # the plain form is what a picture shows
        try:
            return self.model.project(self.model(batch))
        finally:
            self.model.fast = fast

    @classmethod
    def of(cls, model: Seq2Seq, batch: Batch) -> tuple[ModelGraph, tuple[Tensor, ...]]:
        """Return the module to trace and the first two sentences of a batch to trace it with."""
        tensors = (batch.src_BS, batch.src_lengths_B, batch.tgt_in_BT, batch.tgt_lengths_B)
        return cls(model), tuple(tensor[:2] for tensor in tensors)


@contextmanager
def weights_in(model: nn.Module, tensors: Mapping[str, Tensor] | None) -> Iterator[None]:
    """Evaluate with other weights (a moving average) in the model's place."""
    own = dict(model.named_parameters())
    kept = {name: p.detach().clone() for name, p in own.items()} if tensors else {}
    training = model.training
    model.eval()
    with torch.no_grad():
        for name, tensor in (tensors or {}).items():
            own[name].copy_(tensor)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in kept.items():
                own[name].copy_(tensor)
        model.train(training)


class Validator:
    """The validation split, tokenised once, and what is done with it."""

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        tokenizers: tuple[Tokenizer, Tokenizer],
        device: torch.device,
    ) -> None:
        self.config = config
        self.src_lines, self.references = read_pairs(config.data, config.data.validation_split)
        if not self.src_lines:
            raise DragomanError(
                f"data.validation_split: '{config.data.validation_split}' has no sentences"
            )
        self.translator = Translator([cast(Seq2Seq, model)], *tokenizers, config, device)
        beam = config.train.validation_beam
        method = "greedy" if beam == 1 else "beam"
        self.decode = dataclasses.replace(
            config.decode, method=method, beam_size=beam, nbest=1, batch_size=BATCH, split="never"
        )
        self.rows = [
            (self.translator.encode_line(src), tokenizers[1].encode(alternatives(reference)[0]))
            for src, reference in zip(self.src_lines, self.references, strict=True)
        ]

    def _batches(self) -> Iterator[Batch]:
        limit = self.config.data.max_length
        order = sorted(range(len(self.rows)), key=lambda n: (len(self.rows[n][1]), n))
        for start in range(0, len(order), BATCH):
            rows = [self.rows[n] for n in order[start : start + BATCH]]
            yield self.translator.batch(
                [[*src[: limit - 1], EOS] for src, _ in rows],
                [[*tgt[: limit - 1], EOS] for _, tgt in rows],
            )

    @torch.no_grad()
    def score(self) -> tuple[Figures, list[str]]:
        """Return the figures under the references and of a search, and what the search found."""
        model = self.translator.models[0]
        totals = torch.zeros(3, dtype=torch.float64)
        for batch in self._batches():
            loss = sequence_loss(model, model(batch), batch.targets_N, 0.0)
            totals += torch.tensor([float(loss.nll), float(loss.correct), batch.num_tokens])
        nll, correct, tokens = totals.tolist()
        found = self.translator.translate_lines(self.src_lines, self.decode)
        texts = [translations[0].text for translations in found]
        told = (texts, self.references, self.config.data.tgt, settings.tokens_of(self.config))
        scores = [METRICS[name](*told).score for name in ("bleu", "chrf")]
        mean = nll / tokens
        return Figures(mean, math.exp(min(mean, 80.0)), correct / tokens, *scores), texts

    def show(self, trackers: Trackers, step: int, texts: list[str]) -> None:
        """Tell trackers the first of the translations, their attention and the model's graph."""
        log = self.config.log
        count = min(log.samples, len(self.src_lines))
        if not (log.tensorboard or log.trackers):  # nobody looks at pictures
            return
        # Not before the start: tracing takes a second.
        if log.graph:
            model = self.translator.models[0]
            trackers.tell("graph", *ModelGraph.of(model, next(self._batches())))
        if count == 0:
            return
        lines = self.src_lines[:count]
        references = [" / ".join(alternatives(each)) for each in self.references[:count]]
        table = ["| source | translation | reference |", "|---|---|---|"]
        table += [
            f"| {' | '.join(map(plain, row))} |"
            for row in zip(lines, texts[:count], references, strict=True)
        ]
        trackers.tell("text", step, "samples", "\n".join(table))
        if log.figures:
            from dragoman.reporting.attention import attention_of  # brings matplotlib

            attention = next(attention_of(self.translator, [(lines[0], texts[0])]))
            if attention.aligning is not None:
                figure = attention.plot(title=f"attention at step {step}")
                trackers.tell("figure", step, "attention", figure)
