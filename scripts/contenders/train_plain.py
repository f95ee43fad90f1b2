"""The ordinary training loop around ``torch.nn.Transformer``, as the tutorials write it."""

# ruff: noqa: E402
from __future__ import annotations

import math
import random
from collections.abc import Iterator

from window import Window, arguments, read

args = arguments()  # before torch is imported: sets the threads

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
PAD, UNK, BOS, EOS = range(4)
WIDTH, HEADS, LAYERS, FEED_FORWARD, DROPOUT = 256, 8, 3, 512, 0.1
BATCH, POOL = 128, 100


class PlainTransformer(nn.Module):
    """``torch.nn.Transformer`` with embeddings, sinusoidal positions and an output layer."""

    positions: Tensor

    def __init__(self, src_vocab: int, tgt_vocab: int) -> None:
        super().__init__()
        self.src_embedding = nn.Embedding(src_vocab, WIDTH, padding_idx=PAD)
        self.tgt_embedding = nn.Embedding(tgt_vocab, WIDTH, padding_idx=PAD)
        rates = torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(10000.0) / WIDTH))
        angles = torch.arange(512)[:, None] * rates
        self.register_buffer("positions", torch.stack((angles.sin(), angles.cos()), 2).flatten(1))
        self.dropout = nn.Dropout(DROPOUT)
        self.transformer = nn.Transformer(
            WIDTH, HEADS, LAYERS, LAYERS, FEED_FORWARD, DROPOUT, batch_first=True, norm_first=True
        )
        self.generator = nn.Linear(WIDTH, tgt_vocab)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def embed(self, table: nn.Embedding, tokens: Tensor) -> Tensor:
        """Return embedded tokens (B, T, width) with their positions."""
        scaled = table(tokens) * math.sqrt(WIDTH)
        return self.dropout(scaled + self.positions[: tokens.shape[1]])

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Return logits (B, T, V), padding included."""
        states = self.transformer(
            self.embed(self.src_embedding, src),
            self.embed(self.tgt_embedding, tgt),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(tgt.shape[1]).isinf(),
            src_key_padding_mask=src == PAD,
            tgt_key_padding_mask=tgt == PAD,
            memory_key_padding_mask=src == PAD,
            tgt_is_causal=True,
        )
        return self.generator(states)


def padded(rows: list[Tensor]) -> Tensor:
    """Return sentences as one tensor, padded at their ends."""
    return pad_sequence(rows, batch_first=True, padding_value=PAD)


def batches(src: list[list[int]], tgt: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield padded batches (B, S) and (B, T) for ever, sorted by length within pools."""
    order = list(range(len(src)))
    while True:
        random.shuffle(order)
        for start in range(0, len(order), BATCH * POOL):
            pool = order[start : start + BATCH * POOL]
            pool.sort(key=lambda n: (len(src[n]), len(tgt[n])))
            cut = [pool[first : first + BATCH] for first in range(0, len(pool), BATCH)]
            random.shuffle(cut)
            for rows in cut:
                sources = [torch.tensor([*src[n], EOS]) for n in rows]
                targets = [torch.tensor([BOS, *tgt[n], EOS]) for n in rows]
                yield padded(sources), padded(targets)


torch.manual_seed(1)
random.seed(1)
sources, src_vocab = read(args.data, "de", SPECIALS)
targets, tgt_vocab = read(args.data, "en", SPECIALS)
model = PlainTransformer(len(src_vocab), len(tgt_vocab))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-9)
criterion = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=0.1)
window = Window(args.seconds, tool="nn.Transformer loop", version=torch.__version__)
model.train()
try:
    for src, tgt in batches(sources, targets):
        window.batch(int((tgt[:, 1:] != PAD).sum()))
        optimizer.zero_grad()
        logits = model(src, tgt[:, :-1])
        loss = criterion(logits.reshape(-1, logits.shape[-1]), tgt[:, 1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        window.updated()
except Window.Done:
    window.report(sum(parameter.numel() for parameter in model.parameters()))
