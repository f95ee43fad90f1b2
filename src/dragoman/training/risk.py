"""Minimum-risk training: what a model samples is weighed by its sentence BLEU (Shen et al. 2016).

Cross-entropy keeps a share of the loss (Edunov et al. 2018, the weighted combination).

Shapes: B sentences, C candidates of all of them, N target tokens of the candidates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from dragoman.config import DecodeConfig, TrainConfig
from dragoman.data.batching import Batch, collate
from dragoman.data.ragged import ragged
from dragoman.data.tokenizers import EOS, UNK, Tokenizer
from dragoman.decoding.consensus import sentence_bleu
from dragoman.decoding.search import search
from dragoman.models.seq2seq import Seq2Seq
from dragoman.training.loss import loss_and_gradient, target_log_probs

# What an unknown word of a reference reads here: no candidate has it, so none is paid for <unk>.
_UNKNOWN = "\ue000"


def _reference(tokenizer: Tokenizer, ids: list[int]) -> str:
    text = tokenizer.decode(ids)
    return text.replace(tokenizer.decode([UNK]), _UNKNOWN) if UNK in ids else text


def candidates(
    model: Seq2Seq, batch: Batch, tokenizer: Tokenizer, decode: DecodeConfig, tokenize: str = "13a"
) -> tuple[Batch, Tensor, Tensor]:
    """Sample different translations of every sentence (Shen et al. 2016, section 3.3).

    Unlike there the reference is not one of them: what it teaches is left to
    cross-entropy, which has a weight of its own.

    Returns:
        Pairs of sentence and candidate, the sentence (C,) each belongs to, and its cost (C,):
        1 - BLEU / 100.
    """
    found = search([model], batch.src_BS, batch.src_lengths_B, decode)
    sources = [row[:length] for row, length in zip(*_lists(batch), strict=True)]
    references = batch.targets_N.split(batch.tgt_lengths_B.tolist())
    src, tgt, rows, costs = [], [], [], []
    for place, hypotheses in enumerate(found):
        different = list(dict.fromkeys(tuple(h.tokens) for h in hypotheses))
        texts = [tokenizer.decode(list(tokens)) for tokens in different]
        reference = _reference(tokenizer, references[place].tolist()[:-1])
        src += [sources[place]] * len(different)
        tgt += [[*tokens, EOS] for tokens in different]
        rows += [place] * len(different)
        bleu = sentence_bleu(texts, [reference], tokenize)[:, 0]
        costs.append(torch.from_numpy(1 - bleu / 100).float())
    pairs = collate(ragged(src), ragged(tgt)).to(batch.src_BS.device)
    device = batch.src_BS.device
    return pairs, torch.tensor(rows, device=device), torch.cat(costs).to(device)


def _lists(batch: Batch) -> tuple[list[list[int]], list[int]]:
    return batch.src_BS.tolist(), batch.src_lengths_B.tolist()


def expected_cost(
    log_probs_C: Tensor, rows_C: Tensor, costs_C: Tensor, sharpness: float
) -> tuple[Tensor, Tensor]:
    """Return the summed expected cost, and its gradient (C,) for the log-probabilities.

    A sentence's candidates are given the probability p^sharpness, normalised over themselves
    (Shen et al. 2016, equations 12 and 13).
    """
    size = int(rows_C.max()) + 1
    scaled = sharpness * log_probs_C
    highest = scaled.new_full((size,), -torch.inf).scatter_reduce(0, rows_C, scaled, "amax")
    weights = (scaled - highest[rows_C]).exp()
    weights = weights / weights.new_zeros(size).index_add(0, rows_C, weights)[rows_C]
    risks = weights.new_zeros(size).index_add(0, rows_C, weights * costs_C)
    return risks.sum(), sharpness * weights * (costs_C - risks[rows_C])


def risk_backward(
    model: Seq2Seq,
    forward: Callable[[Batch], Tensor],
    pairs: Batch,
    rows_C: Tensor,
    costs_C: Tensor,
    sharpness: float,
    divisor: float,
) -> Tensor:
    """Leave the gradient of expected cost / divisor on the parameters; return the summed cost."""
    states = forward(pairs)
    rows_N = torch.arange(len(costs_C), device=costs_C.device).repeat_interleave(
        pairs.tgt_lengths_B
    )
    tokens = target_log_probs(model, states.detach(), pairs.targets_N)
    log_probs = tokens.new_zeros(len(costs_C)).index_add(0, rows_N, tokens)
    risk, gradient = expected_cost(log_probs, rows_C, costs_C, sharpness)
    # The loss is the sum of -log p, each times a weight that stands still.
    _, d_states = loss_and_gradient(
        model, states, pairs.targets_N, 0.0, divisor, weights_N=-gradient[rows_N]
    )
    states.backward(d_states)
    return risk


def sampling(decode: DecodeConfig, train: TrainConfig, seed: int) -> DecodeConfig:
    """Return how candidates are drawn: from the whole distribution."""
    return dataclasses.replace(
        decode,
        method="sample",
        nbest=train.risk_samples,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        no_repeat_ngram=0,
        min_length=0,
        seed=seed % 2**31,
    )
